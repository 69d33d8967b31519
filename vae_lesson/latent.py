"""Walking in a latent space: lines, traversals, grids, and directions with a meaning."""

import math

import torch
from torch import Tensor


def lerp(z0: Tensor, z1: Tensor, t: float | Tensor) -> Tensor:
    """Return (1 - t) z0 + t z1, the straight line from z0 (t = 0) to z1 (t = 1)."""
    return z0 + t * (z1 - z0)


def slerp(z0: Tensor, z1: Tensor, t: float | Tensor) -> Tensor:
    """Return [sin((1-t) ω) z0 + sin(t ω) z1] / sin ω, the great arc from z0 to z1.

    ω is the angle between them. Codes of equal norm keep that norm, while the straight line cuts
    through the sphere; where the two are (anti)parallel the arc is not defined and lerp is used.

    Shapes: z0 and z1 `(latent_size,)`, t a number or `(n, 1)`.
    Source: Shoemake 1985; for latent spaces White 2016, section 2.1.
    """
    cos = torch.dot(z0, z1) / (z0.norm() * z1.norm())
    if not cos.abs() < 1 - 1e-6:  # parallel, or a code of norm 0
        return lerp(z0, z1, t)
    omega = torch.acos(cos)
    t = torch.as_tensor(t, dtype=z0.dtype, device=z0.device)
    return (torch.sin((1 - t) * omega) * z0 + torch.sin(t * omega) * z1) / torch.sin(omega)


def traversal(z: Tensor, dimension: int, values: Tensor) -> Tensor:
    """Return copies of the code z `(L,)` with one dimension set to each of `values`: `(n, L)`."""
    codes = z.repeat(len(values), 1)
    codes[:, dimension] = values
    return codes


def manifold_grid(n: int = 20) -> Tensor:
    """Return an n × n grid of 2-D codes at the Gaussian's quantiles, row by row from the top left.

    Evenly spaced in probability instead of distance: each cell holds 1/n² of the prior's mass.
    Returns `(n·n, 2)`. Source: Kingma & Welling 2014, appendix A.
    """
    probability = box_grid(torch.zeros(2), torch.ones(2), n)
    return math.sqrt(2) * torch.erfinv(2 * probability - 1)  # the inverse of the normal's CDF


def box_grid(low: Tensor, high: Tensor, n: int = 20) -> Tensor:
    """Return an n × n grid of 2-D codes over a box, cell centres, row by row from the top left."""
    t = (torch.arange(n, device=low.device) + 0.5) / n
    z1, z2 = (low + t[:, None] * (high - low)).T
    return torch.cartesian_prod(z2.flip(0), z1).flip(1)  # the second axis points up


def attribute_direction(codes: Tensor, attribute: Tensor) -> Tensor:
    """Return cov(z, a) / var(a): how the mean code moves when the attribute grows by one.

    This is the slope of E[z|a], the pattern to add to a code. It is not the weight vector that
    predicts a from z, which also cancels what the attribute merely correlates with
    (Haufe et al. 2014). For an attribute of 0 and 1 it is the difference of the two mean codes.

    Shapes: codes `(N, L)`, attribute `(N,)` -> `(L,)`. Unit: latent units per unit of attribute.
    Raises: ValueError if the attribute is the same everywhere or NaN, or the lengths differ.
    """
    if len(codes) != len(attribute):
        raise ValueError(f"{len(codes)} codes but {len(attribute)} attribute values")
    attribute = attribute.to(codes)
    if not attribute.max() > attribute.min():
        raise ValueError("the attribute is NaN, or has the same value for every image")
    centred = attribute - attribute.mean()
    return (centred[:, None] * (codes - codes.mean(dim=0))).mean(dim=0) / centred.square().mean()
