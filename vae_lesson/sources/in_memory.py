"""Pictures that are in memory already, or in a data set of PyTorch's, as a data set of ours."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from vae_lesson.data import Images
from vae_lesson.sources.pictures import (
    SIDE,
    any_in_colour,
    check_choices,
    prepare,
    remarks,
    sort_into,
    to_images,
)


def given_images(
    given: Tensor | np.ndarray | Dataset,
    side: int | None = None,
    colour: bool | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Images:
    """Prepare and split pictures as those of a folder.

    A uint8 tensor or array `(N, side, side)`, `(N, 3, side, side)` or `(N, side, side, 3)` is one
    class, and keeps its side unless another is given; a torch Dataset of (picture, label) or of
    pictures, be they Pillow's or uint8 tensors, has the classes that its `.classes` names, else one
    for each label.

    Raises: ValueError for other shapes and types.
    """
    if isinstance(given, Dataset):
        name, names = type(given).__name__, getattr(given, "classes", None)
    else:
        given, name, names = _pixels(given), "pictures", ["pictures"]
        some = given.ndim in (3, 4) and given.size > 0
        height, width = _channels_last(given[0]).shape[:2] if some else (0, 0)
        if not some or height != width:
            raise ValueError(
                "pictures must be (N, side, side), (N, 3, side, side) or (N, side, side, 3), "
                f"got {given.shape}"
            )
        side = height if side is None else side
    side = SIDE if side is None else side
    check_choices(side, colour, seed)
    if not getattr(given, "__len__", int)():
        raise ValueError(f"{name} must be a data set with a length over 0")
    pictures = _Given(given, side)
    in_colour = any_in_colour(pictures) if colour is None else colour
    buffer = io.BytesIO()
    result = sort_into(buffer, pictures, in_colour, seed)
    for line in remarks(name, result, colour):
        print(line)
    labels = {*result["train_labels"], *result["test_labels"]}
    if names is None:
        known = sorted(labels)
        names = list(map(str, known)) if len(known) > 1 else [name]
        for part in ("train_labels", "test_labels"):
            result[part] = [known.index(label) for label in result[part]]
    elif not labels <= set(range(len(names))):
        raise ValueError(f"{name} has {len(names)} classes, but labels up to {max(labels)}")
    shape = (-1, *[3] * in_colour, side, side)
    rows = np.frombuffer(buffer.getbuffer(), np.uint8).reshape(shape)
    return to_images(rows, result, name, names, device)


class _Given(Dataset):
    """The pictures of an array or a data set: each prepared, and its label, 0 where it has none."""

    def __init__(self, given: np.ndarray | Dataset, side: int) -> None:
        self.given, self.side = given, side

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        item = self.given[index]
        picture, label = (*item, 0)[:2] if isinstance(item, (tuple, list)) else (item, 0)
        if not isinstance(picture, Image.Image):
            picture = Image.fromarray(_channels_last(picture))
        try:
            label = int(label)
        except (TypeError, ValueError):
            raise ValueError(f"a label must be a whole number, got {label!r}") from None
        return prepare(picture, self.side), label


def _pixels(values: Tensor | np.ndarray) -> np.ndarray:
    """Return uint8 pixels as an array; ValueError for other numbers and other things."""
    kind = getattr(values, "dtype", type(values).__name__)
    if kind not in (torch.uint8, np.uint8):
        raise ValueError(
            f"pictures must be uint8, from 0 to 255, got {kind}: make floats in [0, 1] so with "
            "(255 * x).round().to(torch.uint8), or leave ToTensor out of a data set's transform"
        )
    return values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _channels_last(values: Tensor | np.ndarray) -> np.ndarray:
    """Return one picture as Pillow takes it: uint8 `(h, w)` or `(h, w, 3)`."""
    pixels = _pixels(values)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise ValueError(f"a picture must be (h, w) or (3, h, w), got {tuple(values.shape)}")
    return np.ascontiguousarray(pixels)
