"""Write what depends on the course's address and version to where readers need it: the cell at the
head of each lesson that fetches the package, the links in the README and docs/hosts.md,
CITATION.cff. Both stand once, in pyproject.toml; after a change of either:
`.venv/bin/python tools/address.py`. Without an address nothing points to one.
"""

import re
import tomllib
from pathlib import Path

import nbformat

PROJECT = Path(__file__).parents[1]
LESSONS = sorted(PROJECT.glob("notebooks/[0-9]*.ipynb"))
ABOUT = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ADDRESS = ABOUT.get("urls", {}).get("Repository")  # None until the course is published
VERSION = ABOUT["version"]
TAG = f"v{VERSION}"


def install() -> str:
    """Return the code of the cell that fetches the package.

    pip is told the versions of what the host must keep: where that is too old for the package, it
    says so, and replaces nothing. (A magic by its function, so that the cell is plain Python.)
    """
    return f"""\
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
    """Return a lesson with the cell that fetches the package below its title, if it has an address,
    as if it had been run with the others: an older one is replaced, and they are numbered anew."""
    cells = [cell for cell in notebook.cells if cell.id != "install"]
    metadata = {"tags": ["install"], "jupyter": {"source_hidden": True}}  # JupyterLab folds it
    if ADDRESS:
        cell = nbformat.v4.new_code_cell(install(), id="install", metadata=metadata)
        cells.insert(1, cell)
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


def readme(text: str) -> str:
    """Return the README's text with the links to pages and hosts, if there is an address."""
    if not ADDRESS:
        return between_marks(text, "")
    there = f"{ADDRESS}/blob/main/docs/hosts.md"  # whole: pages.py shows the README too
    ways = f"read [the pages]({pages()}), with sliders that move, or run the lessons "
    ways += f"[in Colab or Kaggle]({there}) or [in Codespaces]({codespaces()})"
    archive = f"`git clone {ADDRESS}`, or unpack [this]({ADDRESS}/archive/refs/tags/{TAG}.zip)"
    lines = f"**Without installing anything**: {ways}.\n\n**On your own machine**: {archive}.\n"
    return between_marks(text, lines)


def hosts(text: str) -> str:
    """Return the text of docs/hosts.md with a link for each lesson, if there is an address."""
    if not ADDRESS:
        return between_marks(text, "The course has no address yet. Its links will stand here.\n")
    names = [path.stem for path in LESSONS]
    rows = [
        f"- {host}: " + " ".join(f"[{name[:2]}]({address(name)})" for name in names) + "\n"
        for host, address in [("Colab", colab), ("Kaggle", kaggle)]
    ]
    return between_marks(text, "".join(rows))


def between_marks(text: str, links: str) -> str:
    """Return a text with these links between its marks."""
    marks = r"(?<=<!-- links -->\n).*?(?=<!-- links end -->)"
    return re.sub(marks, lambda _: links, text, flags=re.DOTALL)


def citation(text: str) -> str:
    """Return the text of CITATION.cff with this address and version."""
    text = re.sub(r"(?m)^version: .*", f"version: {VERSION}", text)
    text = re.sub(r"(?m)^repository-code: .*\n", "", text)
    return text + (f"repository-code: {ADDRESS}\n" if ADDRESS else "")


FILES = {"README.md": readme, "docs/hosts.md": hosts, "CITATION.cff": citation}

if __name__ == "__main__":
    for path in LESSONS:
        nbformat.write(with_install(nbformat.read(path, as_version=4)), path)
    for name, change in FILES.items():
        path = PROJECT / name
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
