"""Which pictures are for testing where that was decided already, and what lies on both sides."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
from PIL import Image

from vae_lesson.words import _

# What the parts of a split are called, in any case.
PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
PARTS |= {"val": "val", "valid": "val", "validation": "val"}
# Near copies differ in so many of the 64 bits of an average hash, and their fields correlate so
# much: of 831,600 pairs of windows on different photographs none does (by the bits alone 145), of
# windows saved again 94% do, of those moved by 2% of their side 60%, by 4% 12%.
NEAR, LIKE = 5, 0.98
FLAT = 16  # levels of 255: what differs by less has no hash


def own_split(where: list[str], title: str, mark: str = "/") -> tuple | None:
    """Return, of pictures with the name of the folder or the like that each is in, which of them
    are kept, whether each of these is for testing, and a line; or None if this is no split.

    A split is train or training, and val, valid, validation, test or testing, and nothing else.
    Beside test pictures, those for validation are left out.

    Raises: ValueError, a question, for what has two such names and is none.
    """
    counts = Counter(where)
    parts = {name: PARTS[name.lower()] for name in sorted(counts) if name.lower() in PARTS}
    kinds, others = {*parts.values()}, sorted(counts.keys() - parts.keys())
    if len(parts) < 2:
        return None
    if others or "train" not in kinds or len(kinds) == 1:
        what = "what to train on" if "train" not in kinds else "what to test on"
        then = f"Then {what} is missing."
        if others:
            loose = [name + mark if name else "what is in none" for name in others]
            then = f"Then {listed(loose)} must go elsewhere, or into one of them."
        raise ValueError(
            f"{title} has {listed(name + mark for name in parts)}. Are they a split? {then} Are "
            "they classes? Then give them other names."
        )
    left = "val" if "test" in kinds else None
    for_testing = _("{name} is for testing ({n:,})")
    roles = {"train": _("{name} is for training ({n:,})"), "val": for_testing, "test": for_testing}
    roles |= {left: _("{name} is left out ({n:,})")}
    said = [roles[part].format(name=name + mark, n=counts[name]) for name, part in parts.items()]
    line = _("Your split is kept: {parts}.").format(parts=listed(said, _(", "), _(" and ")))
    kept = [i for i, name in enumerate(where) if parts[name] != left]
    return kept, [parts[where[i]] != "train" for i in kept], line


def listed(names: Iterable[str], comma: str = ", ", last_comma: str = " and ") -> str:
    """Return "a, b and c"."""
    *most, last = names
    return f"{comma.join(most)}{last_comma}{last}" if most else last


def some(names: list[str]) -> str:
    """Return up to five names, and how many more there are."""
    more = [_("{n:,} more").format(n=len(names) - 5)] * (len(names) > 5)
    return listed([*names[:5], *more], _(", "), _(" and "))


def look(grey: np.ndarray) -> np.ndarray:
    """Return a picture's mean values in 8×8 fields, `(64,)`."""
    return np.asarray(Image.fromarray(grey).resize((8, 8), Image.BOX)).flatten()


def near_copies(train: list[np.ndarray], test: list[np.ndarray]) -> list[int | None]:
    """Return for each look of a test picture the place of a training picture's that is nearly the
    same, or None: by the average hash, 64 bits of which each says whether a field is over the mean
    (Krawetz 2011)."""
    (train, of_train), (test, of_test) = map(_hashes, (train, test))
    found = []
    for fields, bits in zip(test, of_test):
        places = np.flatnonzero(np.bitwise_count(of_train ^ bits) <= NEAR)
        places = places[train[places] @ fields > LIKE]
        found.append(int(places[0]) if len(places) else None)
    return found


def _hashes(looks: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return looks as unit vectors without their mean, 0 for flat ones, and their bits."""
    fields = np.array(looks, np.float32).reshape(-1, 64)
    fields -= fields.mean(axis=1, keepdims=True)
    bits = np.packbits(fields > 0, axis=1).view(np.uint64)[:, 0]
    fields[np.ptp(fields, axis=1) < FLAT] = 0
    return fields / np.linalg.norm(fields, axis=1, keepdims=True).clip(1), bits
