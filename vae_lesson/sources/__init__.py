"""Where images come from, in every lesson: the disk, a download, or the offline digits.

Files get their final name only when they are whole and checked, so a half-finished download never
passes for a data set.
"""

from pathlib import Path

import torch

from vae_lesson.arguments import check_one_of
from vae_lesson.data import Images
from vae_lesson.places import place
from vae_lesson.sources.digits import offline_digits

NAMES = ("mnist", "fashion", "kmnist", "digits")


def load_images(
    name: str = "mnist",
    root: str | Path | None = None,
    device: torch.device | str = "cpu",
    time_limit: float = 120.0,
    fall_back: bool = True,
) -> Images:
    """Load "mnist", "fashion", "kmnist" or "digits", the last of which needs no network.

    In order: the files under `root` (default: `$VAE_LESSON_DATA`, else `data/` in the project), if
    they are whole; the download, which ends after `time_limit` seconds or 10 s of silence; the
    offline default "digits", with one line that says so.

    Raises: ValueError for an unknown name; OSError instead of the last step if not `fall_back`.
    """
    check_one_of("data set", name, NAMES)
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
