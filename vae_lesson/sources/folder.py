"""A folder of pictures as a data set: found, read once, and then kept ready in a file."""

import errno
import hashlib
import io
import json
import os
import shutil
import stat
import warnings
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from torch.utils.data import Dataset

from vae_lesson.data import Images
from vae_lesson.sources.pictures import (
    MANY,
    SIDE,
    any_in_colour,
    check_choices,
    prepare,
    remarks,
    sort_into,
    to_images,
)


def folder_images(
    folder: Path,
    cache: Path,
    side: int | None = None,
    colour: bool | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Images:
    """Load the pictures in a folder and its subfolders, all that Pillow can open.

    The first-level subfolders are the classes; pictures beside them, or in a folder without any,
    are a class named after the folder. Hidden files are skipped. `colour` None: in colour if one
    of up to 100 pictures is.

    What was read of many is kept in `cache`, and used as long as no file comes, goes or changes. On
    a CPU it stays there: the images may be larger than memory.

    Raises: ValueError for less than 20 pictures that can be read; see `check_choices`.
    """
    side = SIDE if side is None else side
    check_choices(side, colour, seed)
    folder = Path(os.path.abspath(folder))
    pictures = _Pictures(folder, side)
    options = f"{folder} {side} {colour} {seed}"
    stem = cache / hashlib.blake2b(os.fsencode(options), digest_size=8).hexdigest()
    kept = _cached(stem, pictures, colour, seed) if len(pictures) >= MANY else None
    if kept is None:
        buffer = io.BytesIO()
        result = _read_into(buffer, pictures, colour, seed)
        kept = np.frombuffer(buffer.getbuffer(), np.uint8).reshape(result["shape"]), result
    rows, result = kept
    for line in result["lines"]:
        print(line)
    # With a slash, so that a folder "mnist" is not taken for MNIST.
    return to_images(rows, result, f"{folder.name}/", pictures.class_names, device)


class _Pictures(Dataset):
    """The pictures in a folder: each prepared, or None, and its label."""

    in_files = True

    def __init__(self, folder: Path, side: int) -> None:
        self.folder, self.side = folder, side
        self.paths, self.unreadable, self.n_others = _find(folder)
        states = [(path, _state(folder / path)) for path in self.paths]
        self.signature = hashlib.blake2b(repr((states, self.unreadable)).encode()).hexdigest()
        classes = [p.split(os.sep)[0] if os.sep in p else folder.name for p in self.paths]
        numbers = {name: label for label, name in enumerate(sorted(set(classes)))}
        self.labels = [numbers[name] for name in classes]
        self.class_names = [_shown(name) for name in numbers]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray | None, int]:
        path, label = self.folder / self.paths[index], self.labels[index]
        try:
            if _state(path) is None:
                return None, label
            with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
                picture.draft(None, (2 * self.side, 2 * self.side))  # no more of a JPEG than needed
                return prepare(picture, self.side), label
        except Exception:  # a broken file can make Pillow raise anything
            return None, label


def _find(folder: Path) -> tuple[list[str], list[str], int]:
    """Return the paths of pictures, from the folder on, those of unreadable subfolders, and the
    number of other files."""
    kinds = Image.registered_extensions()
    paths, unreadable, n_others = [], [], 0

    def cannot_read(error: OSError) -> None:
        unreadable.append(os.path.relpath(error.filename, folder))

    for here, folders, names in os.walk(folder, onerror=cannot_read, followlinks=True):
        # A link to a folder above it leads round in a circle.
        above = map(os.path.realpath, Path(here).parents)
        if os.path.islink(here) and os.path.realpath(here) in above:
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                known = kinds.get(os.path.splitext(name)[1].lower()) in Image.OPEN
                n_others += not known
                if known:
                    paths.append(os.path.relpath(os.path.join(here, name), folder))
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


def _read_into(file, pictures: _Pictures, colour: bool | None, seed: int) -> dict:
    """Write the pictures to a file; return what `sort_into` does, their shape, and what is to be
    said of them."""
    in_colour = any_in_colour(pictures) if colour is None and len(pictures) else bool(colour)
    result = sort_into(file, pictures, in_colour, seed)
    names = [*pictures.unreadable, *(pictures.paths[index] for index in result["broken"])]
    lines = []
    if names:
        more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
        shown = ", ".join(map(_shown, names[:5]))
        lines.append(f"{len(names):,} could not be read and are left out: {shown}{more}.")
    if pictures.n_others:
        lines.append(f"{pictures.n_others:,} other files are left out: Pillow opens no such names.")
    lines += remarks(str(pictures.folder), result, colour, why=" ".join(lines))
    shape = [len(pictures), *[3] * in_colour, pictures.side, pictures.side]
    return result | {"shape": shape, "lines": lines}


def _cached(
    stem: Path, pictures: _Pictures, colour: bool | None, seed: int
) -> tuple[np.ndarray, dict] | None:
    """Return what the cache has, read into it if need be; None, and a line, if that fails."""
    try:
        if kept := _kept(stem, pictures):
            return kept
        stem.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{stem}.lock"):  # of two processes, one reads the pictures
            if not (kept := _kept(stem, pictures)):
                _keep(stem, pictures, colour, seed)
                kept = _kept(stem, pictures)
            return kept
    except OSError as error:
        print(
            f"{stem.parent} cannot be written ({error}): the pictures are read into memory, "
            "and anew the next time."
        )
        return None


def _keep(stem: Path, pictures: _Pictures, colour: bool | None, seed: int) -> None:
    """Read the pictures into the cache. Files get their names when they are whole; while the pixels
    change there are no labels, so that the two are always of the same reading."""
    if shutil.disk_usage(stem.parent).free < len(pictures) * 3 * pictures.side**2:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    part, labels = Path(f"{stem}.part"), Path(f"{stem}.json")
    try:
        with open(part, "wb") as file:
            result = _read_into(file, pictures, colour, seed)
        labels.unlink(missing_ok=True)
        os.replace(part, f"{stem}.pixels")
        about = {"folder": _shown(str(pictures.folder)), "signature": pictures.signature}
        part.write_text(json.dumps(about | result))
        os.replace(part, labels)
    finally:
        part.unlink(missing_ok=True)


def _kept(stem: Path, pictures: _Pictures) -> tuple[np.ndarray, dict] | None:
    """Return the cache's rows, mapped into memory, and what is known of them; None if it has none
    of just these files."""
    try:
        result = json.loads(Path(f"{stem}.json").read_text())
        if result["signature"] != pictures.signature:
            return None
        shape = tuple(result["shape"])
        try:
            rows = np.memmap(f"{stem}.pixels", mode="c", shape=shape)
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
            # Linux gives no more memory to write to than there is: then only to be read.
            rows = np.memmap(f"{stem}.pixels", mode="r", shape=shape)
        return rows, result
    except (OSError, ValueError, KeyError):
        return None
