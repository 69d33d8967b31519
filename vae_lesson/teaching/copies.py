"""The learner's own copies of the lessons, in `my/`: `python -m vae_lesson.teaching.copies`; those
of the lessons in another language, which tools/translations.py makes, in `my/zh-TW/`: `… zh-TW`.

A copy has no outputs, which would answer before the learner does, and what the text says of them is
folded. It is made where it is missing and never written over; its metadata keep a hash of the
lesson, so that a newer one is noticed. The cheat sheet goes with them, as a notebook: JupyterLab
serves my/ alone, and shows Markdown in a file as plain text.

The command prints only the path of the first lesson, for `jupyter lab "$(...)"` to open. What there
is to say goes to stderr.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

import nbformat

from vae_lesson.places import PROJECT
from vae_lesson.words import ENGLISH, _, made, speak

SHEET = "docs/cheatsheet.md"


def main(project: Path = PROJECT, language: str = ENGLISH) -> None:
    """Make the copies that are missing, say which are of an older lesson, print what to open."""
    folder = project / "my"
    if language != ENGLISH:
        folder, project = folder / language, made(language)
        speak(language)
    lessons = sorted((project / "notebooks").glob("[0-9]*.ipynb"))
    if not lessons:  # the package is installed without the project
        sys.exit(f"There are no lessons in {project / 'notebooks'}: they are in the repository.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for lesson in lessons:
            make_or_compare(lesson, folder / lesson.name)
        make_sheet(project / SHEET, (folder / SHEET).with_suffix(".ipynb"))
    except (OSError, ValueError) as error:  # ValueError: a lesson that is no notebook any more
        say(f"Not every lesson could be copied to my/ ({error}): they are in notebooks/ too.")
    else:
        if not os.access(folder, os.W_OK):
            say("my/ cannot be written: what you change there is not kept.")
    first = folder / lessons[0].name
    print(first if os.access(first, os.R_OK) else lessons[0])


def make_or_compare(lesson: Path, copy: Path) -> None:
    """Make a lesson's copy; if it is there already, say so where its lesson has changed since."""
    notebook = nbformat.read(lesson, as_version=4)
    # Without outputs and tags: a lesson that was only run again has not changed.
    content = json.dumps([(cell.cell_type, cell.source) for cell in notebook.cells])
    now = hashlib.sha256(content.encode()).hexdigest()
    try:
        file = copy.open("x", encoding="utf-8")  # only if there is nothing of this name
    except FileExistsError:
        if made_from(copy) not in (None, now):
            say(
                f"my/{copy.name} was made from an older lesson {copy.name[:2]}: to begin the new "
                "one, rename or remove it and start the course again."
            )
        return
    notebook.metadata["vae_lesson"] = {"made_from": now}
    answered = False  # a figure may stand between an answer and what the text says of it
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            answered = answered or "lesson.answer(" in cell.source
        elif answered and cell.cell_type == "markdown":
            cell.source, answered = with_answer_folded(cell.source), False
        cell.source = cell.source.replace("](../docs/cheatsheet.md)", "](docs/cheatsheet.ipynb)")
    try:
        with file:
            nbformat.write(notebook, file)
    except BaseException:  # a full disk, Ctrl-C: half a copy would stay for good
        copy.unlink()
        raise


def make_sheet(sheet: Path, copy: Path) -> None:
    """Make the cheat sheet's copy, with its links to the lessons as links to their copies."""
    if copy.exists() or not sheet.is_file():
        return
    text = sheet.read_text(encoding="utf-8").replace("](../notebooks/", "](../")
    copy.parent.mkdir(parents=True, exist_ok=True)
    cell = nbformat.v4.new_markdown_cell(text)
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    # Without a kernel's name JupyterLab would ask for one.
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel})
    nbformat.write(notebook, copy)


def with_answer_folded(text: str) -> str:
    """Fold the first paragraph, which says the number that the learner is to guess, with the list
    or table that it announces."""
    answer, *others = parted(text)
    if not answer:
        return text
    summary = _("What came out (run the cell first)")
    folded = f"<details>\n<summary>{summary}</summary>\n\n{answer}"
    return "\n\n".join([folded, "</details>", *others])


def parted(text: str) -> list[str]:
    """Return the paragraphs of a text, the first with the list or table that it announces; it is
    empty where the text says no number."""
    first, *others = text.split("\n\n")
    if first.startswith(("#", "<")):
        return ["", first, *others]
    if others and (first.endswith((":", "：")) or others[0].startswith("|")):
        first = f"{first}\n\n{others.pop(0)}"
    return [first, *others]


def made_from(copy: Path) -> str | None:
    """Return the hash in a copy; None if it is damaged or another tool has dropped the hash."""
    try:
        return json.loads(copy.read_text(encoding="utf-8"))["metadata"]["vae_lesson"]["made_from"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    main(language=(sys.argv[1:] or [ENGLISH])[0])
