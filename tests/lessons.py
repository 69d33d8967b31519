"""The lessons as files, and copies of them that run in seconds, for the tests."""

import re
from pathlib import Path

import nbformat
import translations

from vae_lesson.words import LOCALE

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
NAMES = [path.stem for path in LESSONS]

LOAD = "images = load_images(dataset, "  # up to the end of the line
FEWER = """
import dataclasses
images = dataclasses.replace(
    images, train=images.train[:3000], train_labels=images.train_labels[:3000]
)
"""


def read(name: str | Path) -> nbformat.NotebookNode:
    """Return a committed lesson, by its name or path."""
    return nbformat.read(NOTEBOOKS / Path(name).with_suffix(".ipynb").name, as_version=4)


def read_in(language: str, name: str | Path) -> nbformat.NotebookNode:
    """Return a committed lesson in another language, with the outputs of the English one."""
    folder = LOCALE / language.replace("-", "_")
    english, number = read(name), Path(name).name[:2]
    catalogue = translations.load(folder / f"{number}.po", folder.name)
    notebook = translations.translated(read(name), catalogue, language)
    for cell, run in zip(notebook.cells, english.cells):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = run.outputs, run.execution_count
    return notebook


def sheet_in(language: str) -> str:
    """Return the cheat sheet in another language."""
    text, folder = translations.SHEET.read_text("utf-8"), LOCALE / language.replace("-", "_")
    catalogue = translations.load(folder / "pages.po", folder.name)
    return translations.replaced(text, translations.in_markdown(text, "cheatsheet"), catalogue)


def with_few_images(name: str) -> nbformat.NotebookNode:
    """Return a lesson without outputs that goes on with 3,000 of the training images."""
    notebook = read(name)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.source = re.sub(
                f"^{re.escape(LOAD)}.*$", rf"\g<0>{FEWER}", cell.source, flags=re.M
            )
    assert any(FEWER in cell.source for cell in notebook.cells), "the loading line has changed"
    return notebook


def exercises(notebook: nbformat.NotebookNode) -> list[tuple[str, str, str, str, str]]:
    """Return (cell's id, stub, call of its check, what makes the answer be used, solution) of each
    exercise. The solution is folded into the next cell."""
    found = []
    for cell, after in zip(notebook.cells, notebook.cells[1:]):
        checked = re.search(
            r"^(?:(\w+) = lesson\.yours\()?((?:vae_)?checks\.\w+)[(,] ?(\w+)\b.*$",
            cell.source,
            re.M,
        )
        if cell.cell_type == "code" and checked:
            folded = re.search(r"<details>.*?```python\n(.*?)```.*?</details>", after.source, re.S)
            assert folded, f"no folded solution below: {cell.source}"
            used, check, mine = checked.groups()
            use = f"{used} = {mine}" if used else ""
            stub = cell.source[: checked.start()]
            found.append((cell.id, stub, f"{check}({mine})", use, folded[1]))
    return found
