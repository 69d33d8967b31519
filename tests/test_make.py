"""The Makefile's environment: when it is made anew, and when nothing is installed; `make lab`; what
`make run` leaves alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import environment
import nbformat
import pytest
from lessons import LESSONS

PROJECT = Path(__file__).parents[1]

# Stands for the system's Python and for the environment's, and for its jupyter: it notes what it is
# asked to do.
STUB = """#!/bin/sh
echo "$@" >> "{log}"
case "$*" in
  "-m venv --clear .venv")
    rm -rf .venv && mkdir -p .venv/bin && cp "$0" .venv/bin/python && cp "$0" .venv/bin/jupyter
    echo "VIRTUAL_ENV='$PWD/.venv'" > .venv/bin/activate ;;
  "tools/environment.py") [ -e sufficient ] ;;
  "-m vae_lesson.teaching.copies") [ ! -e broken ] && echo "$PWD/my own/01.ipynb" ;;
  *version_info*) [ ! -e .venv/old ] || [ "$0" != .venv/bin/python ] ;;
esac
"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")


class Clone:
    """A folder with the project's Makefile, and a Python that only notes what it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name in ("Makefile", "requirements.txt", "pyproject.toml"):
            shutil.copy(PROJECT / name, folder)
        self.python, self.log = folder / "stub", folder.parent / "log"
        self.python.write_text(STUB.format(log=self.log))
        self.python.chmod(0o755)

    def make(self, target: str = ".venv/.ready", fails: bool = False) -> tuple[str, list[str]]:
        """Make the environment, or more; return what make says, and what Python was asked for."""
        self.log.write_text("")
        command = ["make", target, f"PYTHON={self.folder / 'stub'}"]
        where = {"cwd": self.folder, "env": {"PATH": os.environ["PATH"]}}
        done = subprocess.run(command, **where, capture_output=True, text=True)
        assert (done.returncode != 0) == fails, done.stderr
        return done.stdout, self.log.read_text().splitlines()


MADE, INSTALLED = "-m venv --clear .venv", "-m pip install -r requirements.txt"
ANEW = "it is made anew"


@pytest.fixture
def clone(tmp_path):
    clone = Clone(tmp_path / "here")
    said, asked = clone.make()
    assert ANEW not in said and MADE in asked and INSTALLED in asked
    assert "6 GB, a few minutes" in said
    return clone


def test_an_environment_is_made_once(clone):
    assert clone.make()[1] == []


@pytest.mark.parametrize("how", [shutil.move, shutil.copytree])
def test_a_moved_or_copied_folder_gets_an_environment_of_its_own(clone, how):
    clone.folder = Path(how(clone.folder, clone.folder.with_name("there")))
    said, asked = clone.make()
    assert ANEW in said and MADE in asked and INSTALLED in asked
    assert str(clone.folder) in (clone.folder / ".venv/bin/activate").read_text()
    assert clone.make()[1] == []


def test_an_environment_of_an_older_python_is_made_anew(clone):
    (clone.folder / ".venv/old").touch()
    os.utime(clone.folder / "requirements.txt", (2e9, 2e9))
    said, asked = clone.make()
    assert ANEW in said and MADE in asked


def test_what_is_installed_and_sufficient_is_enough(clone):
    (clone.folder / "sufficient").touch()
    os.utime(clone.folder / "pyproject.toml", (2e9, 2e9))
    said, asked = clone.make()
    assert said == "" and MADE not in asked and INSTALLED not in asked


def test_what_is_lacking_is_found():
    assert environment.lacking(environment.dependencies() + environment.tools()) == []
    absent = ["torch>=99", "no-such-thing"]
    assert environment.lacking(["numpy>=1", *absent]) == absent
    assert environment.has_this_folders_package()


def test_the_oldest_versions_are_those_that_are_allowed():
    told = subprocess.check_output([sys.executable, environment.__file__, "oldest"], text=True)
    pinned = dict(each.split("==") for each in told.split())
    assert pinned["numpy"] == "2.1.3" and pinned["ipywidgets"] == "7.7.1"
    assert [f"{name}>={version}" for name, version in pinned.items()] == environment.dependencies()


def test_lab_opens_the_first_of_the_own_copies(clone):
    _, (copies, lab) = clone.make("lab")
    assert copies == "-m vae_lesson.teaching.copies"
    own = clone.folder / "my own"
    root = " --allow-root" if os.getuid() == 0 else ""
    assert lab == f"lab --notebook-dir={own} {own}/01.ipynb{root}"


def test_lab_without_a_lesson_to_open_opens_nothing(clone):
    (clone.folder / "broken").touch()
    assert clone.make("lab", fails=True)[1] == ["-m vae_lesson.teaching.copies"]


@pytest.mark.lessons
def test_a_headless_run_has_results_of_its_own_and_warns_of_nothing(tmp_path):
    code = "import os; os.environ['VAE_LESSON_RESULTS']"
    lesson = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbformat.write(lesson, tmp_path / "lesson.ipynb")
    results = tmp_path / "results"
    where = {"cwd": tmp_path, "env": os.environ | {"VAE_LESSON_RESULTS": str(results)}}
    command = [sys.executable, PROJECT / "tools/run.py", "lesson.ipynb"]
    done = subprocess.run(command, **where, capture_output=True, text=True)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    (cell,) = nbformat.read(results / "run/lesson.ipynb", as_version=4).cells
    assert cell.outputs[0].data["text/plain"] == repr(str(results / "run"))


def test_it_is_said_without_make():
    opens = '.venv/bin/jupyter lab "$(.venv/bin/python -m vae_lesson.teaching.copies)"'
    assert opens in (PROJECT / "docs/installing.md").read_text(encoding="utf-8")
    on_windows = (PROJECT / "README.md").read_text(encoding="utf-8").split("```powershell")[1]
    assert rf"\jupyter lab my\{LESSONS[0].name}" in on_windows
