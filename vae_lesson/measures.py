"""Measures of pictures: the width and the slant of their strokes, and how sharp they are."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vae_lesson.data import square_shape, to_float


def thickness(images: Tensor) -> Tensor:
    """Return the mean stroke width in pixels, 2 · ink / contour length.

    A stroke of width w and length l has ink w·l and a contour of about 2·l; on grey images the
    contour is the total variation, the sum of |gradient|. Images `(N, side·side)` or
    `(N, side, side)`, floats -> `(N,)`; 0 for an empty image.
    """
    x = F.pad(_square(images), (1, 1, 1, 1))
    dx = (x[:, 1:, 1:] - x[:, 1:, :-1] + x[:, :-1, 1:] - x[:, :-1, :-1]) / 2
    dy = (x[:, 1:, 1:] - x[:, :-1, 1:] + x[:, 1:, :-1] - x[:, :-1, :-1]) / 2
    contour = torch.sqrt(dx.square() + dy.square() + 1e-12).sum(dim=(1, 2))
    return 2 * x.sum(dim=(1, 2)) / contour.clamp_min(1e-3)


def slant(images: Tensor) -> Tensor:
    """Return the slant in degrees from upright, positive to the right: atan(-m_xy / m_yy).

    m_xy and m_yy are the second moments of the ink about its centre; shearing by their ratio is
    what deskews a digit. Images as in `thickness` -> `(N,)`.
    """
    x = _square(images)
    position = torch.arange(x.shape[1], dtype=x.dtype, device=x.device)
    ink = x.sum(dim=(1, 2)).clamp_min(1e-6)
    row = position[:, None] - (x.sum(dim=2) @ position / ink)[:, None, None]
    column = position[None, :] - (x.sum(dim=1) @ position / ink)[:, None, None]
    m_xy = (x * row * column).sum(dim=(1, 2))
    m_yy = (x * row.square()).sum(dim=(1, 2)).clamp_min(1e-6)
    return torch.rad2deg(torch.atan(-m_xy / m_yy))  # rows count downwards, hence the sign


def bar(images: Tensor) -> Tensor:
    """Return how far a bar crosses the stem of a seven, in pixels of ink.

    The widest of the rows in the middle of the figure (45 to 75% of its height), less the median
    row below the top stroke, which is the stem. Near 0 for a plain 7; images -> `(N,)`.
    """
    x = _square(images)
    rows = x.sum(dim=2)  # (N, side) ink a row
    # Place the rows on a common scale of 0 (top of the figure) to 1 (bottom).
    ink_above = rows.cumsum(dim=1) / rows.sum(dim=1, keepdim=True).clamp_min(1e-6)
    inside = (ink_above > 0.01) & (ink_above < 0.99)
    place = (inside.cumsum(dim=1) - 0.5) / inside.sum(dim=1, keepdim=True).clamp_min(1)
    middle = torch.where(inside & (place > 0.45) & (place < 0.75), rows, torch.zeros(()).to(rows))
    stem = torch.where(inside & (place > 0.35), rows, torch.full((), torch.nan).to(rows))
    return middle.amax(dim=1) - stem.nanmedian(dim=1).values.nan_to_num()


def _square(images: Tensor) -> Tensor:
    if not images.is_floating_point():
        raise ValueError(f"images must be floats in [0, 1], got {images.dtype}: use data.to_float")
    channels, side, _ = square_shape(images[0].numel())
    if channels != 1:
        raise ValueError(f"measures of handwriting take grey images, got {tuple(images.shape)}")
    return images.reshape(len(images), side, side)


def sharpness(images: Tensor) -> float:
    """Return the mean variance of the images' Laplacian, high where it changes within a pixel.

    Compare it with that of real images only: noise is sharp too. Images square, uint8 or in [0, 1];
    of those in colour the mean over the channels.
    Source: a usual measure of focus, Pech-Pacheco et al. 2000.
    """
    x = to_float(images) if images.dtype == torch.uint8 else images.flatten(1)
    _, side, _ = square_shape(x.shape[1])
    kernel = torch.tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]], device=x.device, dtype=x.dtype)
    edges = F.conv2d(x.view(-1, 1, side, side), kernel[None, None])
    return edges.flatten(1).var(dim=1).mean().item()
