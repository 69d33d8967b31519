"""Where data and results lie: in a folder that the environment names, else in the project."""

import os
from pathlib import Path

PROJECT = Path(__file__).parents[1]


def project() -> Path:
    """Return the project's folder; the working folder where the package is installed without it."""
    # A lesson, and not pyproject.toml, which a badly made package may leave in site-packages.
    return PROJECT if (PROJECT / "notebooks/01_autoencoder.ipynb").is_file() else Path.cwd()


def place(variable: str, default: str) -> Path:
    """Return the folder that an environment variable names, else `default`; nothing is made.

    `~` is the home folder. A relative path starts from the project, in a kernel as in a shell;
    from the working folder where the package is installed without the project.
    """
    return project() / Path(os.environ.get(variable) or default).expanduser()
