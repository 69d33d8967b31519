"""Pictures of your own in a folder, what is found there, and what becomes of any picture."""

import contextlib
import hashlib
import io
import os
import stat
import unicodedata
import warnings
from collections import Counter
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from vae_lesson.data import ON_BLACK, USUAL
from vae_lesson.sources.split import PARTS, listed, own_split
from vae_lesson.words import _

SIDE = 32  # pixels, of pictures that have none of their own
TINT = 4  # levels between channels: WebP gives greys a tint of 1
HIDDEN = 64  # levels of 255: on white, a picture with less contrast is put on black
DARK = 32  # levels of 255: if no pixel of any picture has so many, they are a mask's numbers
UNLABELLED = -1  # as torchvision has it
HEIC = {".heic", ".heif", ".hif"}
RAW = {".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".pef", ".raf", ".raw", ".rw2", ".srw"}


@lru_cache(maxsize=1)
def know_heic() -> None:
    """Have Pillow open HEIC where pillow-heif is installed; once, when files are to be read."""
    with contextlib.suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()


class Folder(Dataset):
    """The pictures in a folder and its subfolders, all that Pillow can open.

    The first subfolders, below those that hold everything, are the classes; pictures beside them,
    or in a folder without any, are a class named after their folder. Hidden files are skipped.
    First subfolders that are a split (see `own_split`) stay one, with the classes inside.

    Raises: ValueError, a question, for what may be a split.
    """

    class_names, scales, in_test = None, USUAL, None

    def __init__(self, folder: Path, side: int) -> None:
        self.folder, self.side = Path(os.path.abspath(folder)), side
        self.title = shown(str(self.folder))
        self.name = f"{shown(self.folder.name)}/"  # so that "mnist" is not taken for MNIST
        self.paths, self.unreadable, self.others = _find(self.folder)
        # What is packed twice over, PetImages/PetImages/Cat, has its classes below.
        folders = [os.path.dirname(path) for path in self.paths]
        top = os.path.commonpath(folders) if folders else ""
        below = [[*map(shown, Path(each[len(top) :].strip(os.sep)).parts)] for each in folders]
        above = shown(os.path.basename(top) or self.folder.name)
        first, self.lines = [each[0] if each else "" for each in below], []
        if split := own_split(first, self.title):
            kept, self.in_test, line = split
            self.paths, below = [self.paths[i] for i in kept], [below[i][1:] for i in kept]
            self.lines.append(line)
            above = UNLABELLED if any(below) else above
        else:
            self.lines += _nearly_split(top, first, below, self.title)
        self.labels = [each[0] if each else above for each in below]
        self.files = [*map(shown, self.paths)]
        states = [(path, _state(self.folder / path)) for path in self.paths]
        unread = sorted(each for each in self.others.items() if each[0] in HEIC | RAW)
        known = (3, states, self.unreadable, self.lines, unread)  # 3: how this version reads them
        self.signature = hashlib.blake2b(repr(known).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple:
        path, label = self.folder / self.paths[index], self.labels[index]
        try:
            if _state(path) is None:  # a pipe would wait for ever
                return None, label, ""
            with warnings.catch_warnings(action="ignore"):
                pixels, seen, digest = read(path, self.side, self.scales)
                return pixels, label, seen, digest
        except Image.DecompressionBombError:
            return None, label, _("over {n:,} pixels").format(n=2 * Image.MAX_IMAGE_PIXELS)
        except Exception:  # a broken file can make Pillow raise anything
            return None, label, ""

    def name_of(self, index: int) -> str:
        return self.files[index]


def _nearly_split(top: str, first: list[str], below: list[list[str]], title: str) -> list[str]:
    """Return what is said of folders that may be part of a split; ValueError, a question, if a
    split lies inside of classes."""
    inner = {name for each in below for name in each[1:] if name.lower() in PARTS}
    kinds = {PARTS[name.lower()] for name in inner}
    if "train" in kinds and len(kinds) > 1:
        raise ValueError(
            f"{title} has {listed(f'{name}/' for name in sorted(inner))} inside other folders. Are "
            "they a split? Then they must be outside, and those folders in each of them. Are they "
            "nothing of the kind? Then give them other names."
        )
    as_class = _("{name}/ is taken for a class.")
    names = [name for name in sorted({*first}) if name.lower() in PARTS]
    lines = [as_class.format(name=name) for name in names]
    for name in Path(top).parts:
        if name.lower() in PARTS:
            said = _("{name}/ has no other part beside it: 1 in 10 is taken for testing.")
            lines.append(said.format(name=name))
    return lines


def _find(folder: Path) -> tuple[list[str], list[str], Counter]:
    """Return the paths of pictures, from the folder on, those of unreadable subfolders, and how
    many other files there are of each extension."""
    know_heic()
    kinds = Image.registered_extensions()
    paths, errors, others = [], [], Counter()
    for here, folders, names in os.walk(folder, onerror=errors.append, followlinks=True):
        above = map(os.path.realpath, Path(here).parents)
        if os.path.islink(here) and os.path.realpath(here) in above:
            folders.clear()  # a link to a folder above it leads round in a circle
            continue
        # __MACOSX: what a Mac adds to an archive, under the pictures' own names
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        for name in names:
            if name.startswith("."):
                continue
            extension = os.path.splitext(name)[1].lower()
            if kinds.get(extension) in Image.OPEN:
                paths.append(os.path.relpath(os.path.join(here, name), folder))
            else:
                others[extension] += 1
    unreadable = [os.path.relpath(error.filename, folder) for error in errors]
    return sorted(paths), sorted(map(shown, unreadable)), others


def _state(path: Path) -> tuple[int, int] | None:
    """Return what changes with a file, None for what is none, or not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def shown(name: str) -> str:
    """Return a name that can be printed: without control characters, and what is not UTF-8."""
    unsafe = ("Cc", "Cs")  # a byte that is not UTF-8 is a surrogate to Python
    return "".join("\ufffd" if unicodedata.category(each) in unsafe else each for each in name)


def read(
    picture: str | Path | Image.Image | Tensor | np.ndarray, side: int, scales: dict = USUAL
) -> tuple[np.ndarray, tuple[str, float, float], bytes]:
    """Return what `prepare` does of a picture or of the file at a path, and a digest of the file's
    bytes, or of the numbers in memory: whatever `side` is."""
    digest = partial(hashlib.blake2b, digest_size=16)
    if not isinstance(picture, (str, Path)):
        values, kind = _values(picture)
        content = digest(np.ascontiguousarray(values, float)).digest()  # of any type the same
        return *_square(values, kind, side, scales), content
    with open(picture, "rb") as file:
        content = hashlib.file_digest(file, digest).digest()
    know_heic()
    with Image.open(picture) as opened:
        opened.draft(None, (2 * side, 2 * side))  # no more of a JPEG than needed
        return *prepare(opened, side, scales), content


def prepare(
    picture: Image.Image | Tensor | np.ndarray, side: int, scales: dict = USUAL
) -> tuple[np.ndarray, tuple[str, float, float]]:
    """Return the middle square of a picture, resized: uint8 `(side, side)`, in colour
    `(3, side, side)`; and what was seen: the kind of its numbers, the least and the greatest.

    Of several frames the first, turned as the camera was (EXIF), on white where it is transparent,
    or on black if white would hide it. `scales`: what is black and what is white, by kind.
    """
    return _square(*_values(picture), side, scales)


def _values(picture: Image.Image | Tensor | np.ndarray) -> tuple[np.ndarray, str]:
    """Return a whole picture's numbers, `(h, w)` or `(h, w, 3)`, and their kind."""
    if isinstance(picture, Image.Image):
        return _of_pillow(picture)
    values = as_array(picture)
    return values, _kind(values)


def _square(values: np.ndarray, kind: str, side: int, scales: dict) -> tuple:
    finite = values[np.isfinite(values)] if kind == "floats" else values
    low, high = (finite.min().item(), finite.max().item()) if finite.size else (0, 0)
    black, white = scales[kind]
    if (black, white) != (0, 255) or values.dtype != np.uint8:
        scaled = 255 * (values.astype(np.float64) - black) / (white - black or 1)
        values = np.nan_to_num(scaled).clip(0, 255).round().astype(np.uint8)
    square = ImageOps.fit(Image.fromarray(values), (side, side))
    pixels = np.asarray(square)
    if pixels.ndim == 3 and (np.ptp(pixels, axis=2) > TINT).any():
        pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    else:
        pixels = np.asarray(square.convert("L"))
    return pixels, (kind, low, high)


def _of_pillow(picture: Image.Image) -> tuple[np.ndarray, str]:
    """Return the pixels of Pillow's picture, `(h, w)` or `(h, w, 3)`, and the kind of numbers."""
    picture.load()
    with contextlib.suppress(Exception):  # broken EXIF data can raise anything
        picture = ImageOps.exif_transpose(picture)
    profile, transparent = picture.info.get("icc_profile"), picture.has_transparency_data
    if profile and picture.mode in ("RGB", "CMYK") and not transparent:
        with contextlib.suppress(Exception):  # so can a profile
            picture = _to_srgb(profile, picture.mode).apply(picture)
    deep = picture.mode in ("I", "F") or picture.mode.startswith("I;")  # 16 or 32 bits
    if deep or not transparent:
        if not deep and picture.mode not in ("L", "RGB"):
            picture = picture.convert("L" if picture.mode == "1" else "RGB")
        values = np.asarray(picture)
        return values, _kind(values)
    picture = picture.convert("RGBA")
    on_white, on_black = (
        np.asarray(Image.alpha_composite(Image.new("RGBA", picture.size, ground), picture))[..., :3]
        for ground in ("white", "black")
    )
    # On black only what white would hide, so that pictures of one kind have one ground.
    hidden = np.ptp(on_white) < HIDDEN and np.ptp(on_white) < np.ptp(on_black)
    return (on_black, ON_BLACK) if hidden else (on_white, "8 bits")


@lru_cache(maxsize=8)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(io.BytesIO(profile), ImageCms.createProfile("sRGB"), mode, "RGB")


def as_array(values: Tensor | np.ndarray) -> np.ndarray:
    """Return a picture `(h, w)`, `(h, w, 1 or 3)` or `(1 or 3, h, w)` as `(h, w)` or `(h, w, 3)`;
    ValueError for other shapes, and for what holds no numbers."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "buif":
        kind = getattr(values, "dtype", type(values).__name__)
        raise ValueError(f"a picture must be Pillow's, or a tensor or array of numbers, got {kind}")
    pixels = values * np.uint8(255) if values.dtype == bool else values
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)) or pixels.size == 0:
        raise ValueError(f"a picture must be (h, w) or (3, h, w), got {values.shape}")
    return pixels


def _kind(values: np.ndarray) -> str:
    """Return the kind of an array's numbers, one of USUAL."""
    if values.dtype.kind == "f":
        return "floats"
    return {"uint8": "8 bits", "uint16": "16 bits"}.get(values.dtype.name, "integers")


def scale(kind: str, low: float, high: float) -> tuple[float, float]:
    """Return what is black and white in pictures with numbers from `low` to `high`, all together.

    Black is 0 and white the greatest number of 1, 8, 10, 12, 14 or 16 bits that the brightest pixel
    comes near; where it is near none, or numbers are negative, they are the extremes. White is 255
    in 8 bits, unless all pixels are as dark as a mask's numbers.
    """
    full = (1, 255, 1023, 4095, 16_383, 65_535)
    over = 1.1 if kind == "floats" else 1  # resampling overshoots: that is clipped
    white = next((each for each in full if each / 2 < max(high, 1) <= over * each), high)
    if kind.startswith("8 bits") and high >= DARK:
        white = 255
    return (0, white) if low >= (1 - over) * white else (low, high)


def with_channels(pixels: np.ndarray, colour: bool) -> np.ndarray:
    """Return prepared pixels as `(3, side, side)` if `colour`, else as `(side, side)`, by ITU-R
    601-2's luma, as Pillow does."""
    if colour:
        return np.broadcast_to(pixels, (3, *pixels.shape[-2:]))
    if pixels.ndim == 2:
        return pixels
    red, green, blue = pixels.astype(np.uint32)
    return ((299 * red + 587 * green + 114 * blue + 500) // 1000).astype(np.uint8)
