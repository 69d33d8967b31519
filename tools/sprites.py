"""Sprites with known factors, and the mutual information gap: is each factor in one dimension?"""

from itertools import product
from typing import NamedTuple

import torch
from sklearn.metrics import mutual_info_score
from torch import Tensor

# The values of the factors. Pixels and degrees; a sprite's place is its centre of mass, counted
# from the image's left and top edge, so that the middle of the image is (14, 14).
SHAPES = ("square", "ellipse", "heart")
AREAS = (24, 40, 56, 72)  # of all three shapes, so that the brightness says nothing of the shape
ANGLES = tuple(90 / 8 * i for i in range(8))  # anticlockwise; a square turned by 90 is itself
PLACES = (7, 9, 11, 13, 15, 17, 19, 21)

SIDE = 28
PATCH = 14  # a square of pixels that holds any sprite, however turned; a place is its middle
BINS = 20  # that each dimension of a code is cut into


class Sprites(NamedTuple):
    """Images `(N, 28, 28)` uint8, and `(N, 5)` int64, the index of each factor's value."""

    images: Tensor
    factors: Tensor

    names = ("shape", "size", "angle", "x", "y")
    counts = tuple(map(len, (SHAPES, AREAS, ANGLES, PLACES, PLACES)))


def make_sprites() -> Sprites:
    """Draw 3 shapes × 4 sizes × 8 angles × 8 x × 8 y = 6,144 sprites, y changing fastest.

    A small dSprites (Matthey et al. 2017): the same factors at 28×28 pixels instead of 64×64.
    """
    images = torch.zeros((*Sprites.counts, SIDE, SIDE), dtype=torch.uint8)
    patches = _draw_patches()  # (shape, size, angle, PATCH, PATCH)
    for (i, x), (j, y) in product(enumerate(PLACES), repeat=2):
        left, top = x - PATCH // 2, y - PATCH // 2
        images[:, :, :, i, j, top : top + PATCH, left : left + PATCH] = patches
    factors = torch.cartesian_prod(*[torch.arange(count) for count in Sprites.counts])
    return Sprites(images.flatten(0, 4), factors)


def _draw_patches() -> Tensor:
    """Return every shape, size and angle in the middle of its patch, `(3, 4, 8, 14, 14)` uint8.

    A pixel is the share of 16 × 16 points in it that lie in the shape.
    """
    n_points = 16
    across = (torch.arange(PATCH * n_points) + 0.5) / n_points - PATCH / 2
    right, up = across, -across[:, None]  # rows count downwards
    angle = torch.tensor(ANGLES).deg2rad()[:, None, None]
    # Turn the points back instead of turning the shape.
    u = right * angle.cos() + up * angle.sin()  # (angle, points, points)
    v = up * angle.cos() - right * angle.sin()
    scale = torch.tensor(AREAS).sqrt()[:, None, None, None]
    inside = _is_inside(u / scale, v / scale)  # (shape, size, angle, points, points)
    inside = inside.float().unflatten(-1, (PATCH, n_points)).unflatten(-3, (PATCH, n_points))
    return (255 * inside.mean(dim=(-1, -3))).round().byte()


def _is_inside(u: Tensor, v: Tensor) -> Tensor:
    """Return whether points lie in each of the shapes: area 1, centre of mass at the origin."""
    square = torch.maximum(u.abs(), v.abs()) <= 1 / 2
    # Semi-axes 2b and b, of area 2πb² = 1.
    ellipse = (u / 2).square() + v.square() <= 1 / (2 * torch.pi)
    # A heart is a square on its tip, of side 2h, and two half-discs on its upper sides: its area is
    # (4 + π)h². A half-disc's centre of mass is 4h/3π above its base, so in the square's own axes
    # the heart's is c to either side of the square's.
    h = (4 + torch.pi) ** -0.5
    c = h * (torch.pi / 2 + 2 / 3) / (4 + torch.pi)
    p, q = (v + u) / 2**0.5 + c, (v - u) / 2**0.5 + c
    heart = torch.maximum(p.abs(), q.abs()) <= h
    heart |= p.square() + (q - h).square() <= h**2
    heart |= (p - h).square() + q.square() <= h**2
    return torch.stack([square, ellipse, heart])


def mutual_information(codes: Tensor, factors: Tensor) -> Tensor:
    """Return I(z_j; v_k) = sum_{a,b} p(a, b) log[p(a, b) / (p(a) p(b))], a the bin of z_j, b = v_k.

    Each z_j is cut into 20 bins of equal width: those of equally many codes would run through
    clusters. Finite samples bias it upwards, by about (bins - 1)(values - 1) / 2N nats where
    nothing is known (Miller 1955).

    Shapes: codes `(N, L)` floats, factors `(N, F)` whole numbers -> `(L, F)`. Units: nats.
    Source: Chen et al. 2018; the bins: Locatello et al. 2019.
    """
    low, high = codes.amin(dim=0), codes.amax(dim=0)
    width = torch.where(high > low, high - low, 1)  # a constant dimension all goes to bin 0
    binned = ((codes - low) / width * BINS).long().clamp_max(BINS - 1).cpu().numpy()
    table = [[mutual_info_score(v, z) for v in factors.cpu().numpy().T] for z in binned.T]
    return torch.tensor(table, dtype=torch.float32)


class MIG(NamedTuple):
    """The mutual information gap: its mean over the factors, and that of each, `(F,)`."""

    mean: float
    per_factor: Tensor


def mutual_information_gap(codes: Tensor, factors: Tensor) -> MIG:
    """Return the MIG, 1/F sum_k [I(z_j*; v_k) - max_{j ≠ j*} I(z_j; v_k)] / H(v_k).

    j* is the dimension that tells most about factor k. The gap is 1 if each factor is known from
    one dimension and no other tells of it; 0 if two tell equally much, or none anything.

    Shapes: codes `(N, L)` floats, L over 1; factors `(N, F)` whole numbers, each of some values.
    Source: Chen et al. 2018, who take I from draws of q(z|x).
    """
    best, second = mutual_information(codes, factors).topk(2, dim=0).values
    shares = [v.unique(return_counts=True)[1].cpu() / len(v) for v in factors.T]
    entropy = torch.stack([torch.special.entr(share).sum() for share in shares])
    per_factor = (best - second) / entropy
    return MIG(per_factor.mean().item(), per_factor)
