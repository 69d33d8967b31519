"""The checks on a latent space: the line between two codes, a traversal, a direction."""

from collections.abc import Callable

import torch
from torch import Tensor

from vae_lesson import latent
from vae_lesson.teaching.checks.verdict import Verdict, compare, draw


def lerp(answer: Callable[[Tensor, Tensor, float], Tensor]) -> Verdict:
    """Check answer(z0, z1, t), the straight line from z0 at t = 0 to z1 at t = 1."""
    z0, z1 = draw((4,), (4,))
    t = 0.3
    mistakes = {
        "the way from z1 to z0: at t = 0 you must be at z0": latent.lerp(z1, z0, t),
        "the midpoint, whatever t is": (z0 + z1) / 2,
        "z0 + t·z1: at t = 1 that is z0 + z1, not z1": z0 + t * z1,
    }
    return compare(answer, (z0, z1, t), latent.lerp(z0, z1, t), mistakes)


def traversal(answer: Callable[[Tensor, int, Tensor], Tensor]) -> Verdict:
    """Check answer(z, j, values) -> `(n, L)`, copies of z `(L,)` with dimension j set to values."""
    z, values = draw((4,), (3,))
    j = 2
    right = latent.traversal(z, j, values)
    copies, others = z.repeat(3, 1), torch.arange(4) != j
    added = copies + values[:, None] * ~others
    neighbours = [latent.traversal(z, k, values) for k in (j - 1, j + 1)]
    mistakes = {
        "the values added to what is there: set dimension j to them": added,
        "every dimension set to the value: set only dimension j": values[:, None].expand(3, 4),
        "zeros in the other dimensions: keep what z has there": right * ~others,
        "another dimension than j: they count from 0": neighbours,
        "copies of z, unchanged": copies,
        "the last code n times: a code changed in a loop needs a clone": right[-1:].expand(3, 4),
        "the codes as columns: each is a row": right.T,
        "one code: return one for each of the values": [*right],
        "the values of dimension j alone: return whole codes": [values, values[:, None]],
    }
    return compare(answer, (z, j, values), right, mistakes)


def attribute_direction(answer: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(codes, has_it) -> mean code of those that have it less that of the others."""
    (codes,) = draw((7, 3))
    has_it = torch.tensor([True, False, True, False, False, False, True])
    group, others = codes[has_it], codes[~has_it]
    mean = group.mean(dim=0)
    right = mean - others.mean(dim=0)
    from_all, unit = mean - codes.mean(dim=0), right / right.norm()
    mistakes = {
        "the opposite direction: from without to with": -right,
        "the mean code of those that have it: subtract that of the others": mean,
        "sums instead of means: the larger group wins": group.sum(dim=0) - others.sum(dim=0),
        "the difference from the mean of all, which contains the group itself": from_all,
        "a unit vector: keep its length, which is how far the two groups are apart": unit,
    }
    return compare(answer, (codes, has_it), right, mistakes)
