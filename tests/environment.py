"""Say, by the exit code, whether this Python has what requirements.txt asks for and this folder's
package, so that nothing need be installed and no network is needed. The Makefile asks."""

import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def lacking(requirements: str) -> list[str]:
    """Return the lines of a requirements file that what is installed does not meet."""
    from packaging.requirements import Requirement

    found = []
    for line in requirements.splitlines():
        line = line.split("#")[0].strip()
        if not line or line == "-e .":
            continue
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
    sys.path = [path for path in sys.path if Path(path).resolve() != PROJECT]
    try:
        complete = not lacking((PROJECT / "requirements.txt").read_text(encoding="utf-8"))
    except ImportError:  # an empty environment has no `packaging`
        complete = False
    sys.exit(0 if complete and has_this_folders_package() else 1)
