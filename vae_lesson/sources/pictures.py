"""Pictures of your own, in a folder or in memory: what is found, and what becomes of each."""

import contextlib
import hashlib
import os
import stat
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

SIDE = 32  # pixels, of pictures that have none of their own
TINT = 4  # levels between channels: WebP gives greys a tint of 1


class Folder(Dataset):
    """The pictures in a folder and its subfolders, all that Pillow can open.

    The first-level subfolders are the classes; pictures beside them, or in a folder without any,
    are a class named after the folder. Hidden files are skipped.
    """

    def __init__(self, folder: Path, side: int) -> None:
        self.folder, self.side = Path(os.path.abspath(folder)), side
        self.title = str(self.folder)
        self.name = f"{self.folder.name}/"  # so that a folder "mnist" is not taken for MNIST
        self.paths, self.unreadable, self.n_others = _find(self.folder)
        states = [(path, _state(self.folder / path)) for path in self.paths]
        self.signature = hashlib.blake2b(repr((states, self.unreadable)).encode()).hexdigest()
        above = self.folder.name
        classes = [path.split(os.sep)[0] if os.sep in path else above for path in self.paths]
        numbers = {name: label for label, name in enumerate(sorted(set(classes)))}
        self.labels = [numbers[name] for name in classes]
        self.class_names = [_shown(name) for name in numbers]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray | None, int]:
        path, label = self.folder / self.paths[index], self.labels[index]
        try:
            if _state(path) is None:  # a pipe would wait for ever
                return None, label
            with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
                picture.draft(None, (2 * self.side, 2 * self.side))  # no more of a JPEG than needed
                return prepare(picture, self.side), label
        except Exception:  # a broken file can make Pillow raise anything
            return None, label

    def left_out(self, broken: list[int]) -> list[str]:
        """Return lines that name what could not be read and count what is no picture."""
        names, lines = [*self.unreadable, *(self.paths[index] for index in broken)], []
        if names:
            more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
            shown = ", ".join(map(_shown, names[:5]))
            lines.append(f"{len(names):,} could not be read and are left out: {shown}{more}.")
        if self.n_others:
            lines.append(f"{self.n_others:,} other files are left out: Pillow opens no such names.")
        return lines


def _find(folder: Path) -> tuple[list[str], list[str], int]:
    """Return the paths of pictures, from the folder on, those of unreadable subfolders, and the
    number of other files."""
    kinds = Image.registered_extensions()
    paths, errors, n_others = [], [], 0
    for here, folders, names in os.walk(folder, onerror=errors.append, followlinks=True):
        above = map(os.path.realpath, Path(here).parents)
        if os.path.islink(here) and os.path.realpath(here) in above:
            folders.clear()  # a link to a folder above it leads round in a circle
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith("."):
                continue
            if kinds.get(os.path.splitext(name)[1].lower()) in Image.OPEN:
                paths.append(os.path.relpath(os.path.join(here, name), folder))
            else:
                n_others += 1
    unreadable = [os.path.relpath(error.filename, folder) for error in errors]
    return sorted(paths), sorted(unreadable), n_others


def _state(path: Path) -> tuple[int, int] | None:
    """Return what changes with a file, None for what is none, or not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def _shown(name: str) -> str:
    """Return a file's name so that it can be printed also where it is not valid UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")


class InMemory(Dataset):
    """The pictures of a tensor, an array or a Dataset, and their labels, 0 where there are none.

    A uint8 tensor or array `(N, side, side)`, `(N, 3, side, side)` or `(N, side, side, 3)` is one
    class, and keeps its side unless another is given; a torch Dataset of (picture, label) or of
    pictures, be they Pillow's or uint8 tensors, has the classes that its `.classes` names.

    Raises: ValueError for other shapes and types.
    """

    signature = None

    def __init__(self, given: Tensor | np.ndarray | Dataset, side: int | None) -> None:
        if isinstance(given, Dataset):
            self.given, self.side = given, side or SIDE
            self.name, self.class_names = type(given).__name__, getattr(given, "classes", None)
            if not getattr(given, "__len__", int)():
                raise ValueError(f"{self.name} must be a data set with a length over 0")
        else:
            self.given, self.name, self.class_names = _pixels(given), "pictures", ["pictures"]
            some = given.ndim in (3, 4) and self.given.size > 0
            width, height = _picture(given[0]).size if some else (0, 1)
            if width != height:
                raise ValueError(
                    "pictures must be (N, side, side), (N, 3, side, side) or (N, side, side, 3), "
                    f"got {tuple(given.shape)}"
                )
            self.side = side or width
        self.title = self.name

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        item = self.given[index]
        picture, label = (*item, 0)[:2] if isinstance(item, (tuple, list)) else (item, 0)
        try:
            label = int(label)
        except (TypeError, ValueError):
            raise ValueError(f"a label must be a whole number, got {label!r}") from None
        return prepare(_picture(picture), self.side), label

    def left_out(self, broken: list[int]) -> list[str]:
        return []


def _pixels(values: Tensor | np.ndarray) -> np.ndarray:
    """Return uint8 pixels as an array; ValueError for other numbers and other things."""
    kind = getattr(values, "dtype", type(values).__name__)
    if kind not in (torch.uint8, np.uint8):
        raise ValueError(
            f"pictures must be uint8, from 0 to 255, got {kind}: make floats in [0, 1] so with "
            "(255 * x).round().to(torch.uint8), or leave ToTensor out of a data set's transform"
        )
    return np.asarray(values.cpu() if isinstance(values, Tensor) else values)


def _picture(values: Image.Image | Tensor | np.ndarray) -> Image.Image:
    """Return a picture of Pillow's, of uint8 pixels `(h, w)`, `(3, h, w)` or `(h, w, 3)`."""
    if isinstance(values, Image.Image):
        return values
    pixels = _pixels(values)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise ValueError(f"a picture must be (h, w) or (3, h, w), got {tuple(values.shape)}")
    return Image.fromarray(pixels)


def prepare(picture: Image.Image, side: int) -> np.ndarray:
    """Return the middle square of a picture, resized: uint8 `(side, side)`, in colour
    `(3, side, side)`.

    Of several frames the first, turned as the camera was (EXIF), on white where it is transparent.
    """
    picture.load()
    with contextlib.suppress(Exception):  # broken EXIF data can raise anything
        picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        picture = _to_8_bits(picture)
    elif picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    elif picture.mode not in ("L", "RGB"):
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    square = ImageOps.fit(picture, (side, side))
    pixels = np.asarray(square)
    if pixels.ndim == 3 and (np.ptp(pixels, axis=2) > TINT).any():
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))
    return np.asarray(square.convert("L"))


def _to_8_bits(picture: Image.Image) -> Image.Image:
    """Scale a grey picture of 16-bit or 32-bit numbers, which Pillow's own `convert` would clip.

    32 bits do not say how bright white is: it is the first of 1, 255 and 65,535 that no pixel is
    over. Where none is, or a pixel is under 0, black and white are the picture's own extremes.
    """
    values = np.nan_to_num(np.asarray(picture, np.float64), nan=0, posinf=0, neginf=0)
    low, high = values.min(), values.max()
    if low >= 0 and high <= 65_535:
        whites = (1, 255, 65_535) if picture.mode in ("I", "F") else (65_535,)
        low, high = 0, next(white for white in whites if high <= white)
    scaled = 255 * (values - low) / (high - low or 1)
    return Image.fromarray(scaled.round().astype(np.uint8))


def with_channels(pixels: np.ndarray, colour: bool) -> np.ndarray:
    """Return prepared pixels as `(3, side, side)` if `colour`, else as `(side, side)`, by ITU-R
    601-2's luma, as Pillow does."""
    if colour:
        return np.broadcast_to(pixels, (3, *pixels.shape[-2:]))
    if pixels.ndim == 2:
        return pixels
    red, green, blue = pixels.astype(np.uint32)
    return ((299 * red + 587 * green + 114 * blue + 500) // 1000).astype(np.uint8)
