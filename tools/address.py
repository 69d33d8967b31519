"""Write what depends on the course's address and version to where readers need it: the cell at the
head of each lesson that fetches the package, the README's links, CITATION.cff. Both stand once, in
pyproject.toml; after a change of either: `.venv/bin/python tools/address.py`.
"""

import re
import tomllib
from pathlib import Path

import nbformat
from lessons import LESSONS, NAMES

PROJECT = Path(__file__).parents[1]
ABOUT = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ADDRESS, VERSION = ABOUT["urls"]["Repository"], ABOUT["version"]
TAG = f"v{VERSION}"

# pip is told the versions of what the host must keep: where that is too old for the package, it
# says so, and replaces nothing. (A magic by its function, so that the cell is plain Python.)
INSTALL = f"""\
# Where this lesson was opened alone, as in Colab, it fetches its package; PyTorch stays the host's.
import importlib.metadata
import importlib.util

if importlib.util.find_spec("vae_lesson") is None:
    kept = filter(importlib.util.find_spec, ["torch", "torchvision", "numpy"])
    kept = " ".join(f"{{name}}=={{importlib.metadata.version(name)}}" for name in kept)
    package = "{ADDRESS}/archive/refs/tags/{TAG}.zip"
    get_ipython().run_line_magic("pip", f"install --quiet {{kept}} {{package}}")
    importlib.invalidate_caches()
    import vae_lesson  # where this fails, pip says above why"""


def with_install(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a lesson with the cell that fetches the package below its title, as if it had been run
    with the others: an older one is replaced, and the cells are numbered anew."""
    cells = [cell for cell in notebook.cells if cell.id != "install"]
    metadata = {"tags": ["install"], "jupyter": {"source_hidden": True}}  # JupyterLab folds it
    install = nbformat.v4.new_code_cell(INSTALL, id="install", metadata=metadata)
    cells.insert(1, install)
    code = [cell for cell in cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, 1):
        cell.execution_count = number
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = number
    return nbformat.from_dict({**notebook, "cells": cells})


def colab(name: str) -> str:
    """Return the address that opens a lesson in Colab."""
    where = ADDRESS.replace("github.com", "colab.research.google.com/github")
    return f"{where}/blob/{TAG}/notebooks/{name}.ipynb"


def kaggle(name: str) -> str:
    """Return the address that opens a lesson in Kaggle."""
    return f"https://kaggle.com/kernels/welcome?src={ADDRESS}/blob/{TAG}/notebooks/{name}.ipynb"


def codespaces() -> str:
    """Return the address that opens the course in Codespaces."""
    return ADDRESS.replace("github.com", "codespaces.new")


def pages() -> str:
    """Return the address of the pages that .github/workflows/site.yml publishes."""
    owner, name = ADDRESS.removeprefix("https://github.com/").split("/")
    return f"https://{owner}.github.io/{name}/"


def links() -> str:
    """Return the README's links to the pages and the hosts."""
    rows = [
        f"- {host}: " + " ".join(f"[{name[:2]}]({address(name)})" for name in NAMES)
        for host, address in [("Colab", colab), ("Kaggle", kaggle)]
    ]
    read = f"- To read, with sliders that move: [the pages]({pages()})"
    return "\n".join([read, *rows, f"- [Codespaces]({codespaces()}): the whole folder, in VS Code"])


def readme(text: str) -> str:
    """Return the README's text with these links between their marks."""
    marks = r"(?<=<!-- links -->\n).*?(?=\n<!-- links end -->)"
    return re.sub(marks, lambda _: links(), text, flags=re.DOTALL)


def citation(text: str) -> str:
    """Return the text of CITATION.cff with this address and version."""
    text = re.sub(r"(?m)^version: .*", f"version: {VERSION}", text)
    return re.sub(r"(?m)^repository-code: .*", f"repository-code: {ADDRESS}", text)


if __name__ == "__main__":
    for path in LESSONS:
        nbformat.write(with_install(nbformat.read(path, as_version=4)), path)
    for name, change in [("README.md", readme), ("CITATION.cff", citation)]:
        path = PROJECT / name
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
