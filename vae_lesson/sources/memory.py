"""Pictures of your own in memory, or in one file of arrays or numbers."""

import math
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from vae_lesson.sources.pictures import SIDE, UNLABELLED, USUAL, as_array, read, shown
from vae_lesson.sources.split import PARTS, own_split
from vae_lesson.words import _

FILES = (".npz", ".npy", ".csv")
# Words of the names that arrays and columns have: of pictures, those of their labels, and of parts.
LABELS = {"image": "label", "images": "labels", "img": "label", "x": "y", "X": "y", "0": "1"}


class InMemory(Dataset):
    """The pictures of a tensor, an array, a list or a Dataset, and their labels, if any.

    A tensor or array `(N, side, side)`, `(N, 3, side, side)` or `(N, side, side, 3)` is one class,
    and keeps its side unless another is given. A list, a torch Dataset or one of Hugging Face's
    holds pictures, (picture, label) or {"image": picture, "label": label}; a dictionary, or a tuple
    of two, arrays or lists of them. A picture is Pillow's, a file's path, or a tensor or an array
    of any numbers. A label is a whole number, a name, or None or −1; `.classes` names the classes.
    Arrays whose names are a split's (see `own_split`), x_train and x_test, stay one.

    Raises: ValueError for other shapes and types.
    """

    signature, scales, unreadable, others, lines = None, USUAL, (), Counter(), ()

    def __init__(self, given, side: int | None, name: str | None = None) -> None:
        given = given.dataset if isinstance(given, DataLoader) else given
        plain = isinstance(given, (Tensor, np.ndarray, Mapping, list, tuple))
        self.name = self.title = name or ("pictures" if plain else type(given).__name__)
        self.class_names, self.labels, self.in_test = _class_names(given), None, None
        if isinstance(given, tuple) and len(given) == 2:  # (x, y), or Keras's two of them
            pairs = dict(zip(("train", "test"), given))
            if all(isinstance(pair, tuple) and len(pair) == 2 for pair in given):
                given = {f"{n}_{part}": v for part, xy in pairs.items() for n, v in zip("xy", xy)}
            else:
                given = dict(zip("xy", given))
        if isinstance(given, Mapping):
            given, self.labels, where = _columns(given)
            if split := own_split(where, self.name, mark=""):
                kept, self.in_test, line = split
                self.labels, self.lines = [self.labels[i] for i in kept], [line]
                given = given[kept] if isinstance(given, np.ndarray) else [given[i] for i in kept]
        self.given, self.side, self.files = given, side or SIDE, _files(given)
        if isinstance(given, (Tensor, np.ndarray)):
            some = given.ndim in (3, 4) and len(given) > 0
            height, width = as_array(given[0]).shape[:2] if some else (0, 1)
            if height != width:
                raise ValueError(
                    "pictures must be (N, side, side), (N, 3, side, side) or (N, side, side, 3), "
                    f"got {tuple(given.shape)}; rows of 784 pixels are x.reshape(-1, 28, 28)"
                )
            self.side = side or width
        elif not getattr(given, "__len__", int)():
            raise ValueError(f"{self.name} must be a data set with a length over 0")

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, index: int) -> tuple:
        label = None if self.labels is None else self.labels[index]
        try:
            picture = self.given[index]
            if isinstance(picture, (tuple, list)):
                picture, label = (*picture, None)[:2]
            elif isinstance(picture, Mapping):
                name, label_name = _named(picture)[0]
                picture, label = picture[name], picture.get(label_name)
            pixels, seen, digest = read(picture, self.side, self.scales)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # all Pillow's
            return None, UNLABELLED, shown(str(error))
        return pixels, _label(label), seen, digest

    def name_of(self, index: int) -> str:
        return self.files[index] if self.files else _("number {index}").format(index=index)


def _files(given) -> list[str] | None:
    """Return the paths of a list, or of torchvision's ImageFolder; None where pictures are not
    files."""
    found = given if isinstance(given, list) else getattr(given, "samples", None)
    if not isinstance(found, list) or len(found) != len(given):
        return None
    paths = [each[0] if isinstance(each, (tuple, list)) and each else each for each in found]
    are_paths = all(isinstance(path, (str, Path)) for path in paths)
    return [shown(str(path)) for path in paths] if are_paths else None


def _class_names(given) -> list[str] | None:
    """Return what a data set, or the one that it is a part of, calls its classes."""
    while isinstance(given, Subset):
        given = given.dataset
    features = getattr(given, "features", None)  # Hugging Face's
    if isinstance(features, Mapping) and hasattr(features.get("label"), "names"):
        return features["label"].names
    return getattr(given, "classes", None)


def _label(label) -> int | str:
    """Return a label as a whole number or a name; ValueError for what is neither."""
    if label is None or isinstance(label, str):
        return UNLABELLED if label is None else label
    try:
        number = label.item() if hasattr(label, "item") else label  # also of np.array([2])
        if number == int(number):
            return int(number)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        pass
    raise ValueError(
        f"a label must be a whole number or a name, got {label!r}: give the pictures without theirs"
    )


def _named(columns: Mapping) -> list[tuple[str, str]]:
    """Return the names of pictures and of what would be their labels: image and label,
    train_images and train_labels, x_test and y_test, arr_0 and arr_1; ValueError if none is."""
    pairs = []
    for name in columns:
        words = str(name).split("_")
        if LABELS.keys() & words and LABELS.keys() | PARTS | {"arr"} >= {*words}:
            pairs.append((name, "_".join(LABELS.get(word, word) for word in words)))
    if not pairs:
        raise ValueError(
            "pictures in a dictionary or file must be called image, img, images or x, and their "
            f"labels label, labels or y, got {', '.join(map(str, columns))}; of a dictionary of "
            "data sets give one"
        )
    return pairs


def _columns(columns: Mapping) -> tuple:
    """Return the pictures of all parts together, and for each its label, or None, and the word in
    its part's name that may be a split's."""
    pictures, labels, where, named = [], [], [], _named(columns)
    others = columns.keys() - {name for pair in named for name in pair}
    if others and not any(label_name in columns for _, label_name in named):
        names = ", ".join(sorted(map(str, others)))
        print(_("No labels: none of {names} is called label or y.").format(names=names))
    for name, label_name in named:
        pictures.append(columns[name])
        n = len(pictures[-1])
        labels += list(columns.get(label_name, [None] * n))
        where += n * [next((word for word in str(name).split("_") if word in PARTS), "")]
        if sum(map(len, pictures)) != len(labels):
            raise ValueError(f"{n} {name} and {len(columns[label_name])} {label_name} do not match")
    if all(isinstance(part, np.ndarray) for part in pictures):
        return np.concatenate(pictures), labels, where
    return [picture for part in pictures for picture in part], labels, where


def read_file(path: Path) -> np.ndarray | dict:
    """Return what is in one of FILES; ValueError if that are no pictures."""
    try:
        if path.suffix.lower() == ".csv":
            return _read_csv(path)
        found = np.load(path)
        return found if isinstance(found, np.ndarray) else dict(found)
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def _read_csv(path: Path) -> dict:
    """Return grey pictures, one a row, as Kaggle has them: label,pixel0,…,pixel783, with or without
    a header, with or without labels, which are the first column if none is called "label"."""
    with open(path, encoding="utf-8-sig") as file:
        names = [name.strip(' "\n') for name in file.readline().lower().split(",")]
    n_headers = int(names[0].strip("+-.e0123456789") != "" or names[0] == "")
    side = math.isqrt(len(names))
    if side < 2 or len(names) - side**2 > 1:
        raise ValueError(
            f"{len(names)} columns are not side² pixels, with a label or without, as in Kaggle's "
            "label,pixel0,…,pixel783, and no other column"
        )
    if path.stat().st_size > 2e7:
        print(_("Reading {file}, which takes a while.").format(file=path.name))
    form = {"delimiter": ",", "skiprows": n_headers, "ndmin": 2, "encoding": "utf-8-sig"}
    values, labels = np.loadtxt(path, np.float32, **form), {}
    if len(names) > side**2:
        column = names.index("label") if "label" in names else 0
        labels, values = {"labels": values[:, column]}, np.delete(values, column, axis=1)
    whole = values.astype(np.int32)
    values = whole if np.array_equal(whole, values) else values
    return {"images": values.reshape(-1, side, side)} | labels
