"""Where images come from, in every lesson: the disk, a download, the offline digits, or pictures of
your own."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vae_lesson.arguments import check_whole
from vae_lesson.data import Images
from vae_lesson.places import place, project
from vae_lesson.running.machine import to_device
from vae_lesson.sources.memory import FILES, InMemory, read_file
from vae_lesson.sources.offline import offline_digits, offline_photos
from vae_lesson.sources.pictures import SIDE, Folder, shown
from vae_lesson.sources.reading import read_images
from vae_lesson.words import _

MNIST_LIKE = ("mnist", "fashion", "kmnist", "digits")  # 28×28, grey
NAMES = (*MNIST_LIKE, "photos")


def load_images(
    name: str | Path | Tensor | np.ndarray | Dataset | list | dict = "mnist",
    device: torch.device | str = "cpu",
    time_limit: float = 120.0,
    fall_back: bool = True,
    side: int | None = None,
    colour: bool | None = None,
    seed: int = 0,
) -> Images:
    """Load "mnist", "fashion", "kmnist", "digits" or, in colour, "photos", of which the last two
    need no network; or your own pictures: the path of their folder, of an .npz or .npy (such as
    MedMNIST's) or of a .csv (such as Kaggle's digits), or what holds them in memory: a tensor or an
    array of any numbers, a list, a dictionary, a data set of torch or Hugging Face, a DataLoader.

    A name, in order: the files in the data folder, if they are whole; the download, which ends
    after `time_limit` seconds, or 10 without an answer; the offline default "digits", with one line
    that says so. A folder of a data set's name is "./mnist".

    Your own (see `Folder`, `InMemory`) are made squares of `side` pixels, by default 32, of an
    array its own; in colour or grey, by default as they are. A split of your own, folders or arrays
    train and test, is kept (see `own_split`); else `seed` chooses 1 in 10 for test. What is black
    and white in other numbers than bytes is decided for all of them (see `scale`), and said. Photos
    take a side too. What would fill a GPU stays on the CPU.

    Raises: ValueError for an unknown name, and what it says of pictures that cannot be used;
    OSError instead of the last step if not `fall_back`.
    """
    if isinstance(side, np.integer):
        side = int(side)
    check_whole("side", SIDE if side is None else side, most=1024)
    check_whole("seed", seed, least=0)
    if colour not in (None, True, False):
        raise ValueError(f"colour must be True, False or None, got {colour!r}")
    if not isinstance(name, str) or name not in NAMES:
        in_memory = hasattr(name, "__getitem__") or isinstance(name, DataLoader)
        if in_memory and not isinstance(name, str):
            own = InMemory(name, side)
        elif (path := own_path(name)).is_dir():
            own = Folder(path, side or SIDE)
        else:
            own = InMemory(read_file(path), side, path.name)
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
                gone = f"'{name}' is not on disk and could not be downloaded ({error})"
                raise OSError(f"{gone}: 'digits' needs no network") from error
            said = _(
                "'{name}' is not on disk and could not be downloaded ({error}). Using the offline "
                "default, 'digits', instead."
            )
            print(said.format(name=name, error=error))
            images = offline_digits()
    return _on_device(images, torch.device(device))


def _on_device(images: Images, device: torch.device) -> Images:
    """Return images on the device, or all as they are, and a line, if they would fill a GPU."""
    parts = ("train", "train_labels", "test", "test_labels")
    moved = {part: to_device(getattr(images, part), device) for part in parts}
    if len({part.device for part in moved.values()}) == 1:
        return dataclasses.replace(images, **moved)
    said = _(
        "{name} would take half of what is free on {device}: the images stay on the CPU, and `fit` "
        "takes each batch there."
    )
    print(said.format(name=images.name, device=device))
    return images


def data_root() -> Path:
    """Return the data folder: `$VAE_LESSON_DATA`, else `data/` in the project."""
    return place("VAE_LESSON_DATA", "data")


def own_path(given: str | Path | int, names: tuple[str, ...] = NAMES) -> Path:
    """Return the folder, or the file of pictures, that a path means, here or in the project;
    ValueError if it is none. A number is a path too: papermill makes one of a folder's name, 2024.
    names: the data sets that could be chosen instead.
    """
    advice = f"choose one of {', '.join(names)}, or the path of a folder of pictures or of a file "
    advice += ", ".join(FILES)
    if not isinstance(given, (str, Path, int)):
        raise ValueError(
            f"unknown data set {type(given).__name__}: {advice}, or give a tensor, an array, a "
            "list of pictures or a data set"
        )
    where = ""
    if str(given):
        # A notebook works in its own folder: the pictures may lie there or in the project.
        starts = (Path.cwd(), project())
        tried = dict.fromkeys(start / os.path.expanduser(str(given)) for start in starts)
        where = f" (there is no folder {shown(' or '.join(map(str, tried)))})"
        for path in tried:
            is_file = os.path.isfile(path)
            if os.path.isdir(path) or (is_file and path.suffix.lower() in FILES):
                return path
            if is_file:
                where = f" ({shown(str(path))} is another file: an archive must be unpacked)"
    raise ValueError(f"unknown data set {str(given)!r}: {advice}{where}")
