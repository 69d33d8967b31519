"""Where images come from, in every lesson: the disk, a download, the offline digits, or pictures of
your own.

Files get their final name only when they are whole and checked, so a half-finished download never
passes for a data set.
"""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vae_lesson.data import Images
from vae_lesson.places import place, project
from vae_lesson.sources.digits import offline_digits
from vae_lesson.sources.photos import offline_photos

MNIST_LIKE = ("mnist", "fashion", "kmnist", "digits")  # 28×28, grey
NAMES = (*MNIST_LIKE, "photos")


def load_images(
    name: str | Path | Tensor | np.ndarray | Dataset = "mnist",
    root: str | Path | None = None,
    device: torch.device | str = "cpu",
    time_limit: float = 120.0,
    fall_back: bool = True,
    side: int | None = None,
    colour: bool | None = None,
    seed: int = 0,
) -> Images:
    """Load "mnist", "fashion", "kmnist", "digits" or, in colour, "photos", of which the last two
    need no network; or your own pictures: their folder's path, a tensor, an array or a Dataset.

    A name, in order: the files under `root` (default: `$VAE_LESSON_DATA`, else `data/` in the
    project), if they are whole; the download, which ends after `time_limit` seconds or 10 s of
    silence; the offline default "digits", with one line that says so.

    Your own (see `folder_images`, `given_images`) are made squares of `side` pixels, by default 32,
    of an array its own; in colour or grey, by default as they are; `seed` chooses 1 in 10 for test.
    Photos take a side too. A folder of a data set's name is "./mnist".

    Raises: ValueError for an unknown name, and what it says of pictures that cannot be used;
    OSError instead of the last step if not `fall_back`.
    """
    if not isinstance(name, str) or name not in NAMES:
        folder = own_folder(name)
        if root is not None:
            raise ValueError("root is where downloads lie: leave it out with your own pictures")
        choices = {"side": side, "colour": colour, "seed": seed, "device": device}
        if folder is None:
            from vae_lesson.sources.in_memory import given_images

            return given_images(name, **choices)
        from vae_lesson.sources.folder import folder_images

        return folder_images(folder, data_root() / "pictures", **choices)
    if name == "photos" and colour is None:
        return offline_photos(device, side)
    if side is not None or colour is not None:
        raise ValueError(f"side and colour are for your own pictures, and {name!r} has its own")
    if name == "digits":
        return offline_digits(device)
    from vae_lesson.sources.mnist import load_mnist_like  # a second, for torchvision

    try:
        return load_mnist_like(name, Path(root or data_root()).expanduser(), device, time_limit)
    except OSError as error:  # filelock's Timeout is one too
        if not fall_back:
            raise
        print(
            f"'{name}' is not on disk and could not be downloaded ({error}). "
            "Using the offline default, 'digits', instead."
        )
        return offline_digits(device)


def data_root() -> Path:
    """Return the data folder: `$VAE_LESSON_DATA`, else `data/` in the project."""
    return place("VAE_LESSON_DATA", "data")


def own_folder(given: object) -> Path | None:
    """Return the folder that a path means, None for a tensor, an array or a Dataset; ValueError for
    anything else."""
    if isinstance(given, (Tensor, np.ndarray, Dataset)):
        return None
    what, where = type(given).__name__, ""
    if isinstance(given, (str, Path)):
        what = repr(str(given))
        # A notebook works in its own folder: the pictures may lie there or in the project.
        tried = dict.fromkeys(start / Path(given).expanduser() for start in (Path.cwd(), project()))
        for folder in tried:
            if str(given) and os.path.isdir(folder):
                return folder
        where = f" (there is no folder {' or '.join(map(str, tried))})" if str(given) else ""
    raise ValueError(
        f"unknown data set {what}: choose one of {', '.join(NAMES)}, "
        f"or the path of a folder of pictures{where}"
    )
