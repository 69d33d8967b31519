"""How the package refuses bad input: a ValueError that says what came and what would be right."""

import math

from torch import Tensor


def check_whole(name: str, value: object, least: int = 1, most: int | None = None) -> None:
    """Raise ValueError unless `value` is a whole number from `least`, up to `most` if given."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        limits = f"of at least {least}" if most is None else f"from {least} to {most:,}"
        raise ValueError(f"{name} must be a whole number {limits}, got {value!r}")


def check_over_0(name: str, value: object) -> None:
    """Raise ValueError unless `value` is a single finite number over 0."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number over 0 and finite, got {value!r}")


def check_one_of(what: str, value: object, known) -> None:
    """Raise ValueError, with those that there are, unless `value` is one of the known names."""
    if value not in known:
        raise ValueError(f"unknown {what} {value!r}: choose one of {', '.join(known)}")


def check_shape(shape: object) -> None:
    """Raise ValueError unless `shape` is that of an image, (channels, height, width)."""
    if not isinstance(shape, (tuple, list)) or len(shape) != 3:
        raise ValueError(f"shape must be (channels, height, width), got {shape!r}")
    for length in shape:
        check_whole("each number of shape", length)


def check_same_shape(**tensors: Tensor) -> None:
    """Raise ValueError if shapes differ: (B, 1) against (B, 784) would broadcast to a plausible
    number of the wrong thing."""
    shapes = [tuple(tensor.shape) for tensor in tensors.values()]
    if len(set(shapes)) > 1:
        names, got = (
            f"{', '.join(map(str, some[:-1]))} and {some[-1]}" for some in (list(tensors), shapes)
        )
        raise ValueError(f"{names} must have the same shape, got {got}")


def shapes_of(value: object):
    """Return a tensor's shape, a list of those in a tuple or list, else the type's name."""
    if isinstance(value, (tuple, list)):
        return [shapes_of(part) for part in value]
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
