"""Many pictures as a data set: read once, in training and test by their content, and kept.

They come as a Dataset of (prepared pixels, label, what was seen of them, a digest), or (None,
label, why) where a file is broken, with `side`, `name`, `class_names` (None: one for each label),
`files` and `in_test` (of each whether it is for testing; None: see below), and for what is said of
them `title`, `name_of(index)`, `lines`, `unreadable` and `others`. Its `scales` are changed to what
all of them ask for. Its `signature` is None if all are in memory, else it changes with the files.
"""

import hashlib
import io
import json
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from filelock import FileLock
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from vae_lesson.data import Images
from vae_lesson.sources.pictures import HEIC, ON_BLACK, RAW, UNLABELLED, USUAL, scale, with_channels
from vae_lesson.sources.split import listed, look, near_copies, some
from vae_lesson.words import _

FEWEST, FEW, MANY = 20, 1000, 500  # pictures; MANY files are read by all cores, and kept
TENTH = 2**64 // 10  # a picture with a hash under it is a test picture
Read = tuple[np.ndarray, dict]  # rows of pixels, and what `_read_into` returns
# Processes that read; none where they cannot be forked, since there a script without
# `if __name__ == "__main__"` would fail.
N_READERS = min(len(os.sched_getaffinity(0)), 16) if sys.platform == "linux" else 0


def read_images(pictures: Dataset, cache: Path, colour: bool | None, seed: int) -> Images:
    """Return pictures as Images, and say what is to be said of them.

    What was read of many files is kept in `cache`, and used as long as none comes, goes or changes.
    It is mapped from there: the images may be larger than memory. `colour` None: in colour if one
    of up to 100 pictures is.

    Raises: ValueError for less than 20 pictures, 20 times the same, or labels without a class.
    """
    many_files = pictures.signature is not None and len(pictures) >= MANY
    kept = _cached(cache, pictures, colour, seed) if many_files else None
    rows, known = kept or _read(pictures, colour, seed)
    for line in known["lines"]:
        print(line)
    labels, names = known["labels"], pictures.class_names
    seen = {label for part in labels for label in part}
    if len({isinstance(label, str) for label in seen - {UNLABELLED}}) > 1:
        raise ValueError(f"{pictures.title} has names and numbers as labels: use one of them")
    found = sorted(seen - {UNLABELLED})
    if names is None or not found or isinstance(found[0], str):
        names = [str(label) for label in found] or [pictures.name]
    elif 0 <= found[0] <= found[-1] < len(names):
        found = [*range(len(names))]
    else:
        n, low, high = len(names), found[0], found[-1]
        raise ValueError(f"{pictures.title} has {n} classes, but labels from {low} to {high}")
    if found and UNLABELLED in seen:
        names = [*names, "unlabelled"]
    numbers = {label: number for number, label in enumerate([*found, UNLABELLED])}
    train_labels, test_labels = (torch.tensor([numbers[each] for each in part]) for part in labels)
    with warnings.catch_warnings(action="ignore"):  # of rows that can only be read: nobody writes
        pixels = torch.from_numpy(rows)
    train, test = pixels[: len(train_labels)], pixels[-len(test_labels) :]
    return Images(
        *(pictures.name, train, train_labels, test, test_labels, tuple(names)),
        *(tuple(pictures.files[i] for i in part if pictures.files) for part in known["indices"]),
        {kind: tuple(span) for kind, span in known["scales"].items()},
    )


def _read(pictures: Dataset, colour: bool | None, seed: int) -> Read:
    """Read pictures into memory."""
    memory = io.BytesIO()
    known = _read_into(memory, pictures, colour, seed)
    return np.frombuffer(memory.getbuffer(), np.uint8).reshape(known["shape"]), known


def _cached(cache: Path, pictures: Dataset, colour: bool | None, seed: int) -> Read | None:
    """Return what the cache has, read into it if need be; None, and a line, if that fails."""
    choices = f"{pictures.title} {pictures.side} {colour} {seed}"
    stem = cache / hashlib.blake2b(os.fsencode(choices), digest_size=8).hexdigest()
    try:
        if kept := _kept(stem, pictures):
            return kept
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{stem}.lock"):  # of two processes, one reads the pictures
            return _kept(stem, pictures) or _keep(stem, pictures, colour, seed)
    except OSError as error:
        said = _(
            "{folder} cannot be written ({error}): the pictures are read into memory, and anew the "
            "next time."
        )
        print(said.format(folder=cache, error=error))
        return None


def _keep(stem: Path, pictures: Dataset, colour: bool | None, seed: int) -> Read | None:
    """Read the pictures into the cache. What is known of the pixels goes before they change, and
    comes when they are whole: never do labels of one reading meet pixels of another."""
    about, part = Path(f"{stem}.json"), Path(f"{stem}.part")
    try:
        with open(part, "wb") as file:
            known = _read_into(file, pictures, colour, seed)
        about.unlink(missing_ok=True)
        os.replace(part, f"{stem}.pixels")
        about.write_text(json.dumps({"signature": pictures.signature} | known))
    finally:
        part.unlink(missing_ok=True)
    return _kept(stem, pictures)


def _kept(stem: Path, pictures: Dataset) -> Read | None:
    """Return what the cache has, its rows mapped into memory; None if it has none of these files as
    they are now."""
    try:
        known = json.loads(Path(f"{stem}.json").read_text())
        pixels, shape = f"{stem}.pixels", tuple(known["shape"])
        if known["signature"] != pictures.signature:
            return None
        try:
            return np.memmap(pixels, mode="c", shape=shape), known
        except OSError:  # Linux lends no more memory to write to than there is: then only to read
            return np.memmap(pixels, mode="r", shape=shape), known
    except (OSError, ValueError, KeyError):
        return None


def _read_into(
    file: BinaryIO, pictures: Dataset, colour: bool | None, seed: int, bound: int = TENTH
) -> dict:
    """Write pictures to a file, for training from its front and for testing from its back; what
    cannot be read leaves a hole between them. Return its shape, labels, and lines to be said.

    Where they bring no split, a hash of a picture's own bytes and of the seed says where it goes:
    the same one always to the same part, whatever it is called and whatever lies beside it. Only
    where a part would be empty are the pictures of the lowest hash alone for testing. Where all of
    them together ask for another black or white than the usual one, they are read a second time.
    """
    in_colour = _any_in_colour(pictures) if colour is None else colour
    order = np.random.default_rng(seed).permutation(len(pictures)).tolist()
    parts, broken, n_made_grey = ([], []), [], 0  # of training and of test pictures, what is known
    spans = {}  # of each kind of numbers: how many pictures, the least number and the greatest
    bar = {"total": len(order), "unit": _("picture"), "disable": len(order) < MANY}
    for index, found in tqdm(zip(order, _each(pictures, order)), _("pictures"), **bar):
        if found[0] is None:
            broken.append((index, found[2]))
            continue
        pixels, label, seen, digest = found
        kind, low, high = seen
        n, least, greatest = spans.get(kind, (0, low, high))
        spans[kind] = n + 1, min(low, least), max(high, greatest)
        digest = hashlib.blake2b(digest, digest_size=8, key=str(seed).encode()).digest()
        key = int.from_bytes(digest)
        for_test = key < bound if pictures.in_test is None else pictures.in_test[index]
        place = len(order) - 1 - len(parts[1]) if for_test else len(parts[0])
        parts[for_test].append((label, index, key, look(with_channels(pixels, False))))
        content = with_channels(pixels, in_colour).tobytes()
        file.seek(place * len(content))
        file.write(content)
        n_made_grey += pixels.ndim == 3 and not in_colour
    scales = USUAL | {kind: scale(kind, *span) for kind, (_, *span) in spans.items()}
    if scales != USUAL and pictures.scales is USUAL:
        pictures.scales = scales
        return _read_into(file, pictures, colour, seed, bound)
    keys = sorted({known[2] for part in parts for known in part})
    if pictures.in_test is None and len(keys) > 1 and not all(parts):
        return _read_into(file, pictures, colour, seed, bound=keys[1])
    parts[1].reverse()  # the first to come lies last
    n_made_grey *= colour is None  # else it was asked for
    return {
        "shape": [len(order), *[3] * in_colour, pictures.side, pictures.side],
        "labels": [[known[0] for known in part] for part in parts],
        "indices": [[known[1] for known in part] for part in parts],
        "scales": pictures.scales,
        "lines": _remarks(pictures, parts, sorted(broken), spans, n_made_grey),
    }


def _remarks(
    pictures: Dataset,
    parts: tuple[list[tuple], list[tuple]],
    broken: list[tuple[int, str]],
    spans: dict,
    n_made_grey: int,
) -> list[str]:
    """Return what is to be said of pictures; ValueError if nothing can be trained on them."""
    n, lines = sum(map(len, parts)), [*pictures.lines]
    names = [pictures.name_of(index) + (f" ({why})" if why else "") for index, why in broken]
    if names := [*pictures.unreadable, *names]:
        said = _("Left out, since they cannot be read ({n:,}): {names}.")
        lines.append(said.format(n=len(names), names=some(names)))
    others = dict(sorted(pictures.others.items()))
    if camera := [each for each in others if each in HEIC | RAW]:
        commas = _(", "), _(" and ")
        counts = listed((f"{others.pop(each):,} {each}" for each in camera), *commas)
        hints = ["pip install pillow-heif"] if HEIC.intersection(camera) else []
        raw = [each for each in camera if each in RAW]
        hints += [_("export {kinds} as JPEG").format(kinds=listed(raw, *commas))] if raw else []
        said = _("Left out: {counts}. To have them: {hints}.")
        lines.append(said.format(counts=counts, hints=listed(hints, *commas)))
    if n_others := sum(others.values()):
        lines.append(_("Left out, since Pillow opens no such names: {n:,}.").format(n=n_others))
    if n < FEWEST:
        few = f"{pictures.title} has {n} pictures that can be read, of at least {FEWEST}."
        raise ValueError(" ".join([few, *lines]))
    if not all(parts):
        why = f"the same picture {n} times: nothing is left to test with."
        if pictures.in_test is not None:
            why = "no picture that can be read in one part of its split."
        raise ValueError(" ".join([f"{pictures.title} has {why}", *lines]))
    for kind, (count, low, high) in spans.items():
        black, white = pictures.scales[kind]
        if kind == ON_BLACK:
            said = _("{n:,} transparent pictures are light: they are put on black.")
            lines.append(said.format(n=count))
        elif (black, white) != USUAL[kind]:
            said = _(
                "{n:,} pictures ({kind}) go from {low:.6g} to {high:.6g}: in all of them "
                "{black:.6g} is black and {white:.6g} white."
            )
            ends = {"low": low, "high": high, "black": black, "white": white}
            lines.append(said.format(n=count, kind=_(kind), **ends))
    lines += _on_both_sides(pictures, *parts)
    if n_made_grey:
        said = _(
            "{n:,} of {n_all:,} pictures are in colour, but none of those looked at first: they "
            "were made grey. colour=True keeps their colour."
        )
        lines.append(said.format(n=n_made_grey, n_all=n))
    if n < FEW:
        said = _(
            "{n} pictures are few: a model learns them by heart. Expect the −ELBO of test pictures "
            "to rise while that of training pictures still falls."
        )
        lines.append(said.format(n=n))
    return lines


def _on_both_sides(pictures: Dataset, train: list[tuple], test: list[tuple]) -> list[str]:
    """Return what is said of copies, near copies, and classes on one side only of a split."""
    lines, of_train = [], {key: index for _, index, key, _ in train}
    if n_copies := len(train) + len(test) - len({known[2] for known in [*train, *test]}):
        said = _("Exact copies of other pictures: {n:,}.")
        if pictures.in_test is None:
            said = _("Exact copies of other pictures, on the same side: {n:,}.")
        lines.append(said.format(n=n_copies))
    name = pictures.name_of
    if again := [(index, of_train[key]) for _, index, key, _ in test if key in of_train]:
        pair = _(" and ").join(map(name, again[0]))
        said = _("Test pictures that are training pictures too: {n:,}, such as {pair}.")
        lines.append(said.format(n=len(again), pair=pair))
    new = [known for known in test if known[2] not in of_train]
    near = near_copies([known[3] for known in train], [known[3] for known in new])
    if pairs := [(known[1], train[i][1]) for known, i in zip(new, near) if i is not None]:
        said = _(
            "Test pictures that look like a training picture: {n:,}, such as {pair}. Of a burst, "
            "or saved again? A test on them says little of new pictures: keep such on one side, in "
            "folders train/ and test/."
        )
        lines.append(said.format(n=len(pairs), pair=_(" and ").join(map(name, pairs[0]))))
    if pictures.in_test is not None:
        sides = [{known[0] for known in part} for part in (train, test)]
        no_test, no_training = (
            _("There is no test picture of {names}."),
            _("There is no training picture of {names}."),
        )
        for side, other, said in [(*sides, no_test), (*sides[::-1], no_training)]:
            if only := sorted(str(each) for each in side - other - {UNLABELLED}):
                lines.append(said.format(names=some(only)))
    return lines


def _any_in_colour(pictures: Dataset) -> bool:
    """Say whether one of up to 100 pictures, evenly spaced, is in colour."""
    places = np.linspace(0, len(pictures) - 1, min(len(pictures), 100)).astype(int).tolist()
    each = (pictures[place][0] for place in places)
    return any(pixels is not None and pixels.ndim == 3 for pixels in each)


def _each(pictures: Dataset, order: list[int]) -> Iterator[tuple[np.ndarray | None, int]]:
    """Yield pictures in an order; all cores read many files."""
    n_workers = N_READERS if pictures.signature is not None and len(order) >= MANY else 0
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
