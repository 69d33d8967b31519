"""The checks on an autoencoder: its error, PCA beside it, and the line between two codes."""

from collections.abc import Callable

import torch
from torch import Tensor

from vae_lesson import latent
from vae_lesson.teaching.checks.verdict import Verdict, compare, draw


def squared_error(answer: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(x_hat, x) -> `(B,)`, the squared error summed over pixels."""
    x_hat, x = draw((3, 8), (3, 8))
    error = x - x_hat
    square, total = error.square(), error.sum(dim=1)
    right = square.sum(dim=1)
    whole = [square.sum(), square.mean(), right.mean()]
    mistakes = {
        "the mean over pixels instead of the sum": square.mean(dim=1),
        "one number for the whole batch: sum over pixels only, and keep one value an image": whole,
        "the sum over images instead of over pixels": square.sum(dim=0),
        "the absolute difference: square it": error.abs().sum(dim=1),
        "the distance: leave out the square root": right.sqrt(),
        "the difference without a square: errors of opposite sign cancel": [total, -total],
        "the squares before the sum over pixels": square,
    }
    return compare(answer, (x_hat, x), right, mistakes)


def pca_reconstruct(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(x, mean, components) -> `(B, D)`, PCA's reconstruction from k components."""
    x, mean, directions = draw((3, 6), (6,), (6, 2))
    components = torch.linalg.qr(directions)[0].T  # (2, 6), orthonormal rows
    scores = (x - mean) @ components.T
    centred, uncentred = scores @ components, x @ components.T @ components
    mistakes = {
        "the centred reconstruction: add the mean back": centred,
        "uncentred codes: subtract the mean before projecting": [mean + uncentred, uncentred],
        "the codes: multiply by `components` to get back to pixels": scores,
    }
    return compare(answer, (x, mean, components), mean + centred, mistakes)


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
