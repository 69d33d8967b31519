"""Where images come from, in every lesson: the disk, a download, the offline digits, or pictures of
your own."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vae_lesson.arguments import check_whole
from vae_lesson.data import Images
from vae_lesson.places import place, project
from vae_lesson.sources.offline import offline_digits, offline_photos
from vae_lesson.sources.pictures import SIDE, Folder, InMemory
from vae_lesson.sources.reading import read_images

MNIST_LIKE = ("mnist", "fashion", "kmnist", "digits")  # 28×28, grey
NAMES = (*MNIST_LIKE, "photos")


def load_images(
    name: str | Path | Tensor | np.ndarray | Dataset = "mnist",
    device: torch.device | str = "cpu",
    time_limit: float = 120.0,
    fall_back: bool = True,
    side: int | None = None,
    colour: bool | None = None,
    seed: int = 0,
) -> Images:
    """Load "mnist", "fashion", "kmnist", "digits" or, in colour, "photos", of which the last two
    need no network; or your own pictures: their folder's path, a tensor, an array or a Dataset.

    A name, in order: the files in the data folder, if they are whole; the download, which ends
    after `time_limit` seconds, or 10 without an answer; the offline default "digits", with one line
    that says so. A folder of a data set's name is "./mnist".

    Your own (see `Folder`, `InMemory`) are made squares of `side` pixels, by default 32, of an
    array its own; in colour or grey, by default as they are; `seed` chooses 1 in 10 for test.
    Photos take a side too.

    Raises: ValueError for an unknown name, and what it says of pictures that cannot be used;
    OSError instead of the last step if not `fall_back`.
    """
    check_whole("side", SIDE if side is None else side, most=1024)
    check_whole("seed", seed, least=0)
    if colour not in (None, True, False):
        raise ValueError(f"colour must be True, False or None, got {colour!r}")
    if not isinstance(name, str) or name not in NAMES:
        in_memory = isinstance(name, (Tensor, np.ndarray, Dataset))
        own = InMemory(name, side) if in_memory else Folder(own_folder(name), side or SIDE)
        images = read_images(own, data_root() / "pictures", colour, seed)
    elif name == "photos" and colour is None:
        images = offline_photos(side or SIDE)
    elif side is not None or colour is not None:
        raise ValueError(f"side and colour are for your own pictures, and {name!r} has its own")
    elif name == "digits":
        images = offline_digits()
    else:
        from vae_lesson.sources.mnist import load_mnist_like  # a second, for torchvision

        try:
            images = load_mnist_like(name, data_root(), time_limit)
        except OSError as error:
            if not fall_back:
                raise
            print(
                f"'{name}' is not on disk and could not be downloaded ({error}). "
                "Using the offline default, 'digits', instead."
            )
            images = offline_digits()
    parts = ("train", "train_labels", "test", "test_labels")
    return dataclasses.replace(images, **{part: getattr(images, part).to(device) for part in parts})


def data_root() -> Path:
    """Return the data folder: `$VAE_LESSON_DATA`, else `data/` in the project."""
    return place("VAE_LESSON_DATA", "data")


def own_folder(given: str | Path) -> Path:
    """Return the folder that a path means, here or in the project; ValueError if it is none."""
    is_path = isinstance(given, (str, Path))
    what = repr(str(given)) if is_path else type(given).__name__
    where = ""
    if is_path and str(given):
        # A notebook works in its own folder: the pictures may lie there or in the project.
        tried = dict.fromkeys(start / Path(given).expanduser() for start in (Path.cwd(), project()))
        for folder in tried:
            if os.path.isdir(folder):
                return folder
        where = f" (there is no folder {' or '.join(map(str, tried))})"
    raise ValueError(
        f"unknown data set {what}: choose one of {', '.join(NAMES)}, "
        f"or the path of a folder of pictures{where}"
    )
