"""The exercises' checks: correct, not yet, or *which* common mistake it looks like.

A check never raises: an unsolved exercise says "Not yet" and the notebook runs on. Each one runs
the learner's function on a small case and compares it with the right answer and with the wrong
answers that people often give. Tell two wrong answers apart by a case in which they differ.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vae_lesson import latent, losses
from vae_lesson.lesson import Text


class Verdict(Text):
    """What a check says; `ok` tells whether the answer was right."""

    ok: bool

    def __new__(cls, text: str, ok: bool = False):
        verdict = super().__new__(cls, text)
        verdict.ok = ok
        return verdict


# --- lesson 01 ------------------------------------------------------------------------------------


def squared_error(answer: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(x_hat, x) -> `(B,)`, the squared error summed over pixels."""
    x_hat, x = _random((3, 8), (3, 8))
    square = (x - x_hat).square()
    return _compare(
        answer,
        (x_hat, x),
        square.sum(dim=1),
        {
            "the mean over pixels instead of the sum": square.mean(dim=1),
            "one number for the whole batch: sum over pixels only, and keep one value an image": [
                square.sum(),
                square.mean(),
                square.sum(dim=1).mean(),
            ],
            "the sum over images instead of over pixels": square.sum(dim=0),
            "the absolute difference: square it": (x - x_hat).abs().sum(dim=1),
            "the distance: leave out the square root": square.sum(dim=1).sqrt(),
            "the difference without a square: errors of opposite sign cancel": [
                (x - x_hat).sum(dim=1),
                (x_hat - x).sum(dim=1),
            ],
            "the squares before the sum over pixels": square,
        },
    )


def pca_reconstruct(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(x, mean, components) -> `(B, D)`, PCA's reconstruction from k components."""
    x, mean, directions = _random((3, 6), (6,), (6, 2))
    components = torch.linalg.qr(directions)[0].T  # (2, 6), orthonormal rows
    scores = (x - mean) @ components.T
    return _compare(
        answer,
        (x, mean, components),
        mean + scores @ components,
        {
            "the centred reconstruction: add the mean back": scores @ components,
            "uncentred codes: subtract the mean before projecting": [
                mean + x @ components.T @ components,
                x @ components.T @ components,
            ],
            "the codes: multiply by `components` to get back to pixels": scores,
        },
    )


def lerp(answer: Callable[[Tensor, Tensor, float], Tensor]) -> Verdict:
    """Check answer(z0, z1, t), the straight line from z0 at t = 0 to z1 at t = 1."""
    z0, z1 = _random((4,), (4,))
    t = 0.3
    return _compare(
        answer,
        (z0, z1, t),
        latent.lerp(z0, z1, t),
        {
            "the way from z1 to z0: at t = 0 you must be at z0": latent.lerp(z1, z0, t),
            "the midpoint, whatever t is": (z0 + z1) / 2,
            "z0 + t·z1: at t = 1 that is z0 + z1, not z1": z0 + t * z1,
        },
    )


# --- lesson 02 ------------------------------------------------------------------------------------


def reparameterize(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(mu, log_var, eps) -> z = mu + exp(½ log_var) · eps."""
    mu, log_var, eps = _random((3, 2), (3, 2), (3, 2))
    return _compare(
        answer,
        (mu, log_var, eps),
        mu + torch.exp(0.5 * log_var) * eps,
        {
            "log σ² used as σ: take exp(½ log_var)": mu + log_var * eps,
            "the variance used as σ: missing the ½ in exp(½ log_var)": mu
            + torch.exp(log_var) * eps,
            "log σ² halved but not exponentiated": mu + 0.5 * log_var * eps,
            "exp(−½ log_var), which is 1/σ": mu + torch.exp(-0.5 * log_var) * eps,
            "mu alone: the noise is forgotten": mu,
            "noise of your own instead of the eps that was passed in": None,
        },
    )


def kl_divergence(answer: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(mu, log_var) -> `(B,)`, KL(N(mu, σ²) ‖ N(0, I)) in nats per image."""
    mu, log_var = _random((3, 4), (3, 4))
    terms = mu.square() + log_var.exp() - 1 - log_var
    sigma_terms = mu.square() + log_var.square() - 1 - 2 * log_var.abs().log()
    return _compare(
        answer,
        (mu, log_var),
        losses.kl_standard_normal(mu, log_var),
        {
            "the mean over latent dimensions instead of the sum": 0.5 * terms.mean(dim=1),
            "missing the factor ½": terms.sum(dim=1),
            "the wrong sign: KL is never negative": [
                -0.5 * terms.sum(dim=1),
                -0.5 * terms.sum(dim=1).sum(),
            ],
            "one number for the whole batch: keep one value an image": [
                0.5 * terms.sum(),
                0.5 * terms.sum(dim=1).mean(),
                0.5 * terms.mean(),
            ],
            "the terms before the sum over dimensions": 0.5 * terms,
            "log σ² used as σ: here σ² = exp(log_var)": 0.5 * sigma_terms.sum(dim=1),
            "σ where σ² belongs: σ² is exp(log_var)": 0.5
            * (mu.square() + torch.exp(0.5 * log_var) - 1 - log_var).sum(dim=1),
            "log_var where exp(log_var) belongs": 0.5 * (mu.square() - 1).sum(dim=1),
            "mu where mu² belongs": 0.5 * (mu + log_var.exp() - 1 - log_var).sum(dim=1),
        },
    )


def neg_elbo(answer: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(x_logits, x, mu, log_var) -> `(B,)`, recon + KL in nats per image."""
    x_logits, x, mu, log_var = _random((3, 8), (3, 8), (3, 2), (3, 2))
    x = torch.sigmoid(x)
    recon, kl = losses.bernoulli_nll(x_logits, x), losses.kl_standard_normal(mu, log_var)
    bce = F.binary_cross_entropy_with_logits(x_logits, x, reduction="none")
    twice = F.binary_cross_entropy_with_logits(x_logits.sigmoid(), x, reduction="none").sum(dim=1)
    return _compare(
        answer,
        (x_logits, x, mu, log_var),
        recon + kl,
        {
            "the mean over pixels beside a summed KL: beta times the number of pixels": [
                bce.mean(dim=1) + kl,
                bce.mean() + kl,
                bce.mean() + kl.mean(),
                bce.mean() + kl.sum(),
            ],
            "the KL subtracted: it is a cost, add it": recon - kl,
            "the ELBO itself: what is minimised is −ELBO": -(recon + kl),
            "one number for the whole batch: keep one value an image": [
                (recon + kl).mean(),
                (recon + kl).sum(),
                recon.sum() + kl,
            ],
            "the reconstruction alone: the KL is missing": recon,
            "a sigmoid applied twice: the loss takes logits": twice + kl,
            "the mean of the KL over latent dimensions: sum it": recon
            + losses.kl_per_dimension(mu, log_var).mean(dim=1),
        },
    )


# --- lesson 03 ------------------------------------------------------------------------------------


def slerp(answer: Callable[[Tensor, Tensor, float], Tensor]) -> Verdict:
    """Check answer(z0, z1, t), the great arc from z0 at t = 0 to z1 at t = 1."""
    z0, z1 = _random((4,), (4,))
    z0, z1 = 0.4 * z0, 0.3 * z1  # short, so that acos of their plain product is a number too
    t = 0.3
    right = latent.slerp(z0, z1, t)
    dot_omega = torch.acos(torch.dot(z0, z1))
    return _compare(
        answer,
        (z0, z1, t),
        right,
        {
            "the straight line (lerp)": latent.lerp(z0, z1, t),
            "the way from z1 to z0: at t = 0 you must be at z0": latent.slerp(z1, z0, t),
            "missing the division by sin ω": right
            * torch.sin(torch.acos(torch.dot(z0, z1) / (z0.norm() * z1.norm()))),
            "the angle without dividing by the two norms": (
                torch.sin((1 - t) * dot_omega) * z0 + torch.sin(t * dot_omega) * z1
            )
            / torch.sin(dot_omega),
            "a unit vector: slerp keeps the length of the codes": [
                right / right.norm(),
                latent.slerp(z0 / z0.norm(), z1 / z1.norm(), t),
            ],
        },
    )


def active_units(answer: Callable[[Tensor], Tensor]) -> Verdict:
    """Check answer(mu) -> the number of dimensions with Var_x(mu_j) > 0.01, for mu `(N, L)`."""
    # Three columns that vary enough, one with σ = 0.07 (σ over 0.01, σ² under), two constant ones.
    (noise,) = _random((200, 6))
    noise = (noise - noise.mean(dim=0)) / noise.std(dim=0)
    mu = noise * torch.tensor([1.0, 0.3, 0.2, 0.07, 0, 0]) + torch.tensor([0, 0, 0, 0, 2.0, -1.0])
    return _compare(
        answer,
        (mu,),
        torch.tensor(3.0),
        {
            "the standard deviation against 0.01: use the variance": torch.tensor(4.0),
            "the number of images instead of dimensions: take the variance over images, dim=0": (
                mu.var(dim=1) > 0.01
            ).sum(),
            "the size of mu instead of its variance: a dimension that is always 2 says nothing": [
                (mu.abs().mean(dim=0) > 0.01).sum(),
                (mu.square().mean(dim=0) > 0.01).sum(),
                (mu.mean(dim=0).abs() > 0.01).sum(),
            ],
            "a mask: return how many": mu.var(dim=0) > 0.01,
        },
    )


def attribute_direction(answer: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(codes, has_it) -> mean code of those that have it less that of the others."""
    (codes,) = _random((7, 3))
    has_it = torch.tensor([True, False, True, False, False, False, True])
    right = codes[has_it].mean(dim=0) - codes[~has_it].mean(dim=0)
    return _compare(
        answer,
        (codes, has_it),
        right,
        {
            "the opposite direction: from without to with": -right,
            "the mean code of those that have it: subtract that of the others": codes[has_it].mean(
                0
            ),
            "sums instead of means: the larger group wins": codes[has_it].sum(0)
            - codes[~has_it].sum(0),
            "the difference from the mean of all, which contains the group itself": codes[
                has_it
            ].mean(0)
            - codes.mean(0),
            "a unit vector: keep its length, which is how far the two groups are apart": right
            / right.norm(),
        },
    )


# --- how a check works ----------------------------------------------------------------------------


def _compare(
    answer: Callable, arguments: tuple, right: Tensor, mistakes: dict[str, object]
) -> Verdict:
    """Run `answer` on `arguments` and name the result: `right`, or one of `mistakes`.

    `mistakes` maps what to say to the wrong result, or a list of them; None stands for a result
    that differs from one call to the next.
    """
    try:
        first, second = (answer(*(_copied(a) for a in arguments)) for _ in range(2))
    except NotImplementedError:
        return Verdict("Not yet: write the function, then run this cell again.")
    except (Exception, SystemExit) as error:  # whatever a learner's code raises, the lesson goes on
        return Verdict(f"Not yet: your function raised {type(error).__name__}: {error}")
    if first is None:
        return Verdict("Not yet: your function returns nothing.")
    try:
        first, second = (torch.as_tensor(r).detach().cpu() for r in (first, second))
    except (TypeError, ValueError, RuntimeError):
        return Verdict(f"Not yet: expected a tensor, got {type(first).__name__}.")
    if _same(first, right):
        return Verdict("Correct.", ok=True)
    for message, wrongs in mistakes.items():
        if wrongs is None:
            if first.shape == right.shape and first.isfinite().all() and not _same(first, second):
                return Verdict(f"Not yet: this looks like {message}.")
            continue
        for wrong in wrongs if isinstance(wrongs, list) else [wrongs]:
            if _same(first, wrong):
                return Verdict(f"Not yet: this looks like {message}.")
    if first.shape != right.shape:
        return Verdict(
            f"Not yet: the shape is {tuple(first.shape)}, it should be {tuple(right.shape)}."
        )
    if not torch.isfinite(first.double()).all():
        return Verdict("Not yet: the result holds NaN or inf.")
    off = (first.double() - right.double()).abs().max().item()
    return Verdict(f"Not yet: the right shape, but values are off by up to {off:.3g}.")


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or (a.dtype == torch.bool) != (b.dtype == torch.bool):
        return False
    return torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-5, equal_nan=False)


def _copied(argument):
    return argument.clone() if isinstance(argument, Tensor) else argument


def _random(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(shape, generator=generator) for shape in shapes]
