"""Run lessons headless, in order: `python tools/run.py notebooks/*.ipynb`, or `make run`.

What they leave goes to results/run/, as do the lessons themselves: the learner's own models, which
later lessons go on from, stay as they are.
"""

import os
import sys
from pathlib import Path

import papermill
from refresh import ENCRYPTED

from vae_lesson.running.saving import results_path


def main(paths: list[str]) -> None:
    """Run each lesson; one that fails ends it all."""
    folder = results_path("run")
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["VAE_LESSON_RESULTS"] = str(folder)
    for path in map(Path, paths):
        print(path, flush=True)
        papermill.execute_notebook(
            path,
            folder / path.name,
            kernel_name="python3",
            cwd=path.parent,
            execution_timeout=900,
            config=ENCRYPTED,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
