"""Say, by the exit code, whether this Python has what pyproject.toml asks for and this folder's
package, so that nothing need be installed and no network is needed. The Makefile asks.

`python tools/environment.py oldest` prints the lowest versions that it allows, for pip.
"""

import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
# Has a Jupyter server load vae_lesson.teaching.reopen; an older environment lacks it.
SERVER = Path(sys.prefix, "etc/jupyter/jupyter_server_config.d/vae_lesson.json")


def dependencies() -> list[str]:
    """Return what the lessons import, each with its lowest version: "numpy>=2.1.3"."""
    return _project()["dependencies"]


def tools() -> list[str]:
    """Return what only this folder's commands need."""
    return _project()["optional-dependencies"]["dev"]


def _project() -> dict:
    return tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def lacking(requirements: list[str]) -> list[str]:
    """Return the requirements that what is installed does not meet."""
    from packaging.requirements import Requirement

    found = []
    for line in requirements:
        wanted = Requirement(line)
        try:
            installed = distribution(wanted.name).version
        except PackageNotFoundError:
            installed = None
        if installed is None or not wanted.specifier.contains(installed, prereleases=True):
            found.append(line)
    return found


def has_this_folders_package() -> bool:
    """Say whether the installed vae_lesson is the one beside this file."""
    try:
        import vae_lesson
    except ImportError:
        return False
    return Path(vae_lesson.__file__).resolve().is_relative_to(PROJECT)


if __name__ == "__main__":
    if sys.argv[1:] == ["oldest"]:
        print(*(line.replace(">=", "==") for line in dependencies()))
        sys.exit()
    sys.path = [path for path in sys.path if Path(path).resolve() != PROJECT]
    try:
        complete = not lacking(dependencies() + tools())
    except ImportError:  # an empty environment has no `packaging`
        complete = False
    sys.exit(0 if complete and has_this_folders_package() and SERVER.is_file() else 1)
