"""Pictures of any kind as images: square, of 8 bits, in training and test by their content."""

import contextlib
import hashlib
import os
import sys
import warnings
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from vae_lesson.arguments import check_whole
from vae_lesson.data import Images

SIDE = 32  # pixels, of pictures from a folder
FEWEST, FEW, MANY = 20, 1000, 500  # pictures; MANY are read by all cores, and kept
TENTH = 2**64 // 10  # a picture with a hash under it is a test picture
TINT = 4  # levels between channels: WebP gives greys a tint of 1


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
    values = np.asarray(picture).astype(np.float64)
    values[~np.isfinite(values)] = 0
    low, high = values.min(), values.max()
    if picture.mode not in ("I", "F"):
        low, high = 0, 65_535
    elif low >= 0 and high <= 65_535:
        low, high = 0, next(white for white in (1, 255, 65_535) if high <= white)
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


def check_choices(side: int, colour: bool | None = None, seed: int = 0) -> None:
    """Raise ValueError unless these are what pictures can be prepared with."""
    check_whole("side", side, most=1024)
    if colour not in (None, True, False):
        raise ValueError(f"colour must be True, False or None, got {colour!r}")
    check_whole("seed", seed, least=0)


def any_in_colour(pictures: Dataset) -> bool:
    """Say whether one of up to 100 pictures, evenly spaced, is in colour."""
    places = np.linspace(0, len(pictures) - 1, min(len(pictures), 100)).astype(int).tolist()
    each = _each(pictures, places)
    return any(pixels is not None and pixels.ndim == 3 for pixels, _ in each)


def sort_into(
    file: BinaryIO, pictures: Dataset, colour: bool, seed: int, bound: int = TENTH
) -> dict:
    """Write prepared pictures to a file, for training from its front and for testing from its back;
    what could not be read leaves a hole between them.

    A hash of its pixels as they are written, in grey, and of the seed says where a picture goes:
    the same one always to the same part, whatever it is called and whatever lies beside it. Only
    where a part would be empty do the pictures of the lowest or highest hash go there.

    Returns the labels of both parts, in the file's order, the indices of what could not be read,
    and how many pictures in colour were made grey.
    """
    order = np.random.default_rng(seed).permutation(len(pictures)).tolist()
    train_labels, test_labels, broken, hashes, n_made_grey = [], [], [], set(), 0
    each = tqdm(
        zip(order, _each(pictures, order)),
        desc="pictures",
        total=len(order),
        disable=len(order) < MANY,
        unit="picture",
    )
    for index, (pixels, label) in each:
        if pixels is None:
            broken.append(index)
            continue
        grey = with_channels(pixels, False).tobytes()
        key = hashlib.blake2b(grey, digest_size=8, key=str(seed).encode()).digest()
        hashes.add(int.from_bytes(key))
        if int.from_bytes(key) < bound:
            test_labels.append(label)
            place = len(order) - len(test_labels)
        else:
            place = len(train_labels)
            train_labels.append(label)
        content = with_channels(pixels, colour).tobytes()
        file.seek(place * len(content))
        file.write(content)
        n_made_grey += pixels.ndim == 3 and not colour
    ordered = sorted(hashes)
    if len(ordered) > 1 and bound == TENTH and not ordered[0] < bound <= ordered[-1]:
        bound = min(max(bound, ordered[1]), ordered[-1])
        return sort_into(file, pictures, colour, seed, bound)
    return {
        "train_labels": train_labels,
        "test_labels": test_labels[::-1],  # the first to come lies last
        "broken": sorted(broken),
        "n_made_grey": n_made_grey,
    }


def remarks(name: str, result: dict, colour: bool | None, why: str = "") -> list[str]:
    """Return what is to be said of the pictures that `sort_into` has read.

    Raises: ValueError, which ends in `why`, if they are too few, or all the same.
    """
    n = len(result["train_labels"]) + len(result["test_labels"])
    if n < FEWEST:
        raise ValueError(f"{name} has {n} pictures that can be read, of at least {FEWEST}. {why}")
    if not (result["train_labels"] and result["test_labels"]):
        raise ValueError(f"{name} has the same picture {n} times: nothing is left to test with")
    lines = []
    if result["n_made_grey"] and colour is None:
        lines.append(
            f"{result['n_made_grey']:,} of {n:,} pictures are in colour, but none of those looked "
            "at first: they were made grey. colour=True keeps their colour."
        )
    if n < FEW:
        lines.append(
            f"{n} pictures are few: a model learns them by heart. Expect the −ELBO of test "
            "pictures to rise while that of training pictures still falls."
        )
    return lines


def to_images(
    rows: np.ndarray, result: dict, name: str, class_names: list[str], device: torch.device | str
) -> Images:
    """Return what `sort_into` has written as Images; on a CPU its rows are not copied."""
    labels = [torch.tensor(result[f"{part}_labels"]).to(device) for part in ("train", "test")]
    with warnings.catch_warnings(action="ignore"):  # of rows that can only be read: nobody writes
        pixels = torch.from_numpy(rows)
    train, test = pixels[: len(labels[0])].to(device), pixels[-len(labels[1]) :].to(device)
    return Images(name, train, labels[0], test, labels[1], tuple(class_names))


def _each(pictures: Dataset, order: list[int]) -> Iterator[tuple[np.ndarray | None, int]]:
    """Yield the items of a data set in an order; on Linux all cores read many files."""
    n_workers = 0
    # Where processes cannot be forked, a script without `if __name__ == "__main__"` would fail.
    if getattr(pictures, "in_files", False) and len(pictures) >= MANY and sys.platform == "linux":
        n_workers = min(len(os.sched_getaffinity(0)), 16)
    loader = DataLoader(
        pictures,
        batch_size=32,
        sampler=order,
        num_workers=n_workers,
        collate_fn=list,  # of NumPy's arrays: tensors would go through shared memory
        multiprocessing_context="fork" if n_workers else None,
        generator=torch.Generator(),  # else it would draw from the global one
    )
    for batch in loader:
        yield from batch
