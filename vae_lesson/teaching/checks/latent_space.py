"""The checks on a latent space: the arc between two codes, active dimensions, a direction."""

from collections.abc import Callable

import torch
from torch import Tensor

from vae_lesson import latent
from vae_lesson.teaching.checks.verdict import Verdict, compare, draw


def slerp(answer: Callable[[Tensor, Tensor, float], Tensor]) -> Verdict:
    """Check answer(z0, z1, t), the great arc from z0 at t = 0 to z1 at t = 1."""
    z0, z1 = draw((4,), (4,))
    z0, z1 = 0.4 * z0, 0.3 * z1  # short, so that acos of their plain product is a number too
    t = 0.3
    right = latent.slerp(z0, z1, t)
    dot = torch.dot(z0, z1)
    omega, of_dot = torch.acos(dot / (z0.norm() * z1.norm())), torch.acos(dot)
    by_dot = (torch.sin((1 - t) * of_dot) * z0 + torch.sin(t * of_dot) * z1) / of_dot.sin()
    of_units = latent.slerp(z0 / z0.norm(), z1 / z1.norm(), t)
    mistakes = {
        "the straight line (lerp)": latent.lerp(z0, z1, t),
        "the way from z1 to z0: at t = 0 you must be at z0": latent.slerp(z1, z0, t),
        "missing the division by sin ω": right * omega.sin(),
        "the angle without dividing by the two norms": by_dot,
        "a unit vector: slerp keeps the length of the codes": [right / right.norm(), of_units],
    }
    return compare(answer, (z0, z1, t), right, mistakes)


def active_units(answer: Callable[[Tensor], Tensor]) -> Verdict:
    """Check answer(mu) -> the number of dimensions with Var_x(mu_j) > 0.01, for mu `(N, L)`."""
    # Three columns that vary enough, one with σ = 0.07 (σ over 0.01, σ² under), two constant ones.
    (noise,) = draw((200, 6))
    noise = (noise - noise.mean(dim=0)) / noise.std(dim=0)
    mu = noise * torch.tensor([1.0, 0.3, 0.2, 0.07, 0, 0]) + torch.tensor([0, 0, 0, 0, 2.0, -1.0])
    images = (mu.var(dim=1) > 0.01).sum()
    sizes = [(size.mean(dim=0).abs() > 0.01).sum() for size in (mu.abs(), mu.square(), mu)]
    mistakes = {
        "the standard deviation against 0.01: use the variance": torch.tensor(4.0),
        "the number of images instead of dimensions: take the variance over images, dim=0": images,
        "the size of mu instead of its variance: a dimension that is always 2 says nothing": sizes,
        "a mask: return how many": mu.var(dim=0) > 0.01,
    }
    return compare(answer, (mu,), torch.tensor(3.0), mistakes)


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
