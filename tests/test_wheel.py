"""The package as a wheel: all its files, all that it imports, and a lesson far from the project."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import environment
import nbformat
import papermill
import pytest
from lessons import LESSONS, read, with_few_images

PROJECT = Path(__file__).parents[1]
PACKAGE = PROJECT / "vae_lesson"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return a folder with what the wheel installs; it is built of a copy, and offline."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, copy)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, copy / "vae_lesson", ignore=ignored)
    build = "-m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir wheels ."
    subprocess.run([sys.executable, *build.split()], cwd=copy, check=True)
    (wheel,) = (copy / "wheels").iterdir()
    site = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(site)
    return site


def test_the_wheel_has_every_file_of_the_package(site):
    files = {path.relative_to(PROJECT) for path in PACKAGE.rglob("*.*") if path.suffix != ".pyc"}
    assert {path.suffix for path in files} == {".py", ".js", ".css", ".json", ".png"}
    assert {path.relative_to(site) for path in site.glob("vae_lesson/**/*.*")} == files


def imported(source: str) -> set[str]:
    """Return the packages that code imports, wherever in it, by the first part of their names."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.split(".")[0])
    return found


def test_what_package_and_lessons_import_comes_with_it_and_nothing_else():
    ours = {"copies.py", "grade.py"}  # only the project makes copies, and grades them
    sources = [p.read_text() for p in PACKAGE.rglob("*.py") if p.name not in ours]
    for path in LESSONS:
        sources += [cell.source for cell in read(path).cells if cell.cell_type == "code"]
    names = set().union(*map(imported, sources)) - sys.stdlib_module_names - {"vae_lesson"}
    names.remove("pillow_heif")  # used where somebody has installed it
    of = packages_distributions()
    imports = {each.lower() for name in names for each in of[name]}
    asked = {re.split("[<>=]", line)[0] for line in environment.dependencies()}
    assert imports == asked | {"traitlets"}  # which ipywidgets is made of


@pytest.mark.lessons
def test_a_lesson_runs_with_the_wheel_in_an_empty_folder(site, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(site))
    for name in ("VAE_LESSON_RESULTS", "VAE_LESSON_DATA"):
        monkeypatch.delenv(name, raising=False)
    notebook = with_few_images("03_latent_space")
    for code in ("lesson.show_source(latent.lerp)", "data.__file__"):
        notebook.cells.append(nbformat.v4.new_code_cell(code))
    nbformat.write(notebook, tmp_path / "in.ipynb")
    here = tmp_path / "here"
    here.mkdir()
    small = {"dataset": "digits", "epochs": 1, "latent_size": 5, "hidden_size": 64}
    how = {"kernel_name": "python3", "cwd": here, "progress_bar": False, "execution_timeout": 600}
    done = papermill.execute_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", small, **how)
    source, file = (cell.outputs[0].data["text/plain"] for cell in done.cells[-2:])
    assert "def lerp(" in source and str(site) in file
    assert [path.name for path in here.iterdir()] == ["results"]
    assert (here / "results" / "03_latent_space.json").is_file()
