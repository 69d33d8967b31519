"""The exercises' checks: correct, not yet, or *which* common mistake it looks like.

A check never raises: an unsolved exercise says "Not yet" and the notebook runs on. Each one runs
the learner's function on a small case and compares it with the right answer and with the wrong
answers that people often give. Tell two wrong answers apart by a case in which they differ.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vae_lesson import diagnose as faults
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


# --- lesson 04 ------------------------------------------------------------------------------------


def log_weights(answer: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(recon, z, mu, log_var) -> `(K, B)`, log p(x|z) + log p(z) - log q(z|x)."""
    recon, z, mu, log_var = _random((4, 3), (4, 3, 5), (3, 5), (3, 5))
    distance = (z - mu).square()
    log_p = -0.5 * z.square()
    log_q = -0.5 * (distance / log_var.exp() + log_var)
    constant = -0.5 * torch.tensor(2 * torch.pi).log()  # torch.distributions keeps it
    right = losses.log_weights(recon, z, mu, log_var)

    def with_terms(terms):
        return terms.sum(dim=2) - recon

    def with_log_q(square_over_variance, log_variance):
        return with_terms(log_p + 0.5 * (square_over_variance + log_variance))

    return _compare(
        answer,
        (recon, z, mu, log_var),
        right,
        {
            "log p(x|z) with the wrong sign: recon is −log p(x|z)": right + 2 * recon,
            "log q added: w divides by q, so log q is subtracted": [
                with_terms(log_p + log_q),
                with_terms(log_p + log_q + 2 * constant),
            ],
            "log p(x|z) − log q(z|x): the prior's log p(z) is missing": [
                with_terms(-log_q),
                with_terms(-log_q - constant),
            ],
            "log p(x|z) + log p(z): without − log q(z|x), z counts as drawn from the prior": [
                with_terms(log_p),
                with_terms(log_p + constant),
            ],
            "the KL in closed form, which makes it the ELBO: take log p(z) and log q(z|x) at each "
            "z": -losses.kl_standard_normal(mu, log_var) - recon,
            "½ log 2π in only one of the two densities: it cancels": [
                with_terms(log_p - log_q + constant),
                with_terms(log_p - log_q - constant),
            ],
            "missing the factor ½ in the densities": [
                with_terms(2 * log_p - 2 * log_q),
                with_terms(2 * log_p - log_q),
                with_terms(log_p - 2 * log_q),
            ],
            "log q without −½ log σ²: where σ is small, the density is higher": with_log_q(
                distance / log_var.exp(), 0
            ),
            "log q with +½ log σ²: its sign is −, where σ is small the density is higher": (
                with_log_q(distance / log_var.exp(), -log_var)
            ),
            "log_var used as σ²: σ² is exp(log_var)": with_log_q(distance / log_var, log_var),
            "exp(log_var) used as σ: it is σ²": with_log_q(
                distance / (2 * log_var).exp(), 2 * log_var
            ),
            "(z − mu)² divided by σ: divide by σ², which is exp(log_var)": with_log_q(
                distance / (0.5 * log_var).exp(), log_var
            ),
            "the mean over latent dimensions: their log densities add up": (log_p - log_q).mean(2)
            - recon,
            "w itself: return its logarithm": right.exp(),
            "the negative of log w: turn every sign": -right,
            "the mean over samples, which is the ELBO: keep one value a sample and image, (K, B)": (
                right.mean(dim=0)
            ),
            "one number for the whole batch: keep one value for each sample and image, (K, B)": [
                right.mean(),
                right.sum(),
            ],
        },
    )


def importance_weighted_bound(answer: Callable[[Tensor], Tensor]) -> Verdict:
    """Check answer(log_w) -> `(B,)`, the log of the mean of w over the K samples."""
    (log_w,) = _random((5, 4))
    # Three images that tell the mistakes apart, and one for which exp(log_w) is 0, in float64 too.
    log_w = 2 * log_w - torch.tensor([0.0, 0.0, 0.0, 1000.0])
    w = log_w.exp()
    log_k, log_b = torch.tensor([5.0, 4.0]).log()
    log_sum = log_w.logsumexp(dim=0)
    right = losses.importance_weighted_bound(log_w)
    return _compare(
        answer,
        (log_w,),
        right,
        {
            "exp(log w) as it stands: e^−1000 is 0, and log 0 is −inf; use torch.logsumexp, which "
            "takes out each image's largest log w first": [
                w.mean(dim=0).log(),
                w.sum(dim=0).log(),
            ],
            "the mean of log w, which is the ELBO: the mean belongs inside the log": log_w.mean(0),
            "the log of the sum: subtract log K for the mean": log_sum,
            "log K added: the mean is the sum over K, so log K is subtracted": log_sum + log_k,
            "the log of the sum, divided by K: inside the log 1/K becomes − log K": log_sum / 5,
            "the log of the number of images subtracted: K is the number of samples, len(log_w)": (
                log_sum - log_b
            ),
            "the mean of w: return its logarithm": w.mean(dim=0),
            "the largest weight alone: the others count too": [
                log_w.amax(dim=0),
                log_w.amax(dim=0) - log_k,
            ],
            "log w weighted by its softmax: that is for the bound's gradient, not its value": (
                log_w.softmax(dim=0) * log_w
            ).sum(dim=0),
            "the mean over images instead of over samples: the samples are dim=0": [
                log_w.logsumexp(dim=1),
                log_w.logsumexp(dim=1) - log_b,
                log_w.mean(dim=1),
            ],
            "the negative of the bound: it is a bound on log p(x), higher is better": -right,
            "one number for the whole batch: keep one value an image": [
                right.mean(),
                right.sum(),
                log_w.logsumexp(dim=(0, 1)) - log_k - log_b,
                log_w.mean(),
            ],
        },
    )


def bits_per_dimension(answer: Callable[[Tensor, int], Tensor]) -> Verdict:
    """Check answer(nats, n_pixels) -> bits a pixel of 256 levels, from a density on [0, 1]."""
    # Few pixels, so that 8 bits an image show; near 0 bits, so that 255 levels for 256 show.
    nats, n_pixels = torch.tensor([-88.0, 40.0]), 16
    log_2, log_255, log_256 = torch.tensor([2.0, 255.0, 256.0]).log()
    a_pixel = nats / n_pixels
    right = a_pixel / log_2 + 8
    return _compare(
        answer,
        (nats, n_pixels),
        right,
        {
            "bits of the density: a level is 1/256 wide, which costs 8 bits more": right - 8,
            "8 bits subtracted: a level's probability is density / 256, so it costs 8 bits more": (
                right - 16
            ),
            "8 bits for the whole image: every pixel costs 8 more": right - 8 + 8 / n_pixels,
            "255 levels: from 0 to 255 there are 256": (a_pixel + log_255) / log_2,
            "nats: divide by log 2": [a_pixel, a_pixel + log_256, a_pixel + 8],
            "nats and bits added up: a level costs 8 bits, which are log 256 = 5.5 nats": [
                a_pixel / log_2 + log_256,
                (a_pixel + 8) / log_2,
            ],
            "multiplying by log 2: one bit is 0.69 nats, so there are more bits than nats": [
                a_pixel * log_2 + 8,
                a_pixel * log_2,
                (a_pixel + log_256) * log_2,
            ],
            "bits of the whole image: divide by the number of pixels": [
                right * n_pixels,
                nats / log_2 + 8,
                nats / log_2,
            ],
            "784 pixels, whatever n_pixels is": nats / 784 / log_2 + 8,
            "the wrong sign: nats is −log p already, more nats are more bits": [
                8 - a_pixel / log_2,
                -right,
            ],
            "one number for the whole batch: keep one value an image": right.mean(),
        },
    )


# --- lesson 05 ------------------------------------------------------------------------------------


def effective_beta(answer: Callable[[str, str, float, int, int], float]) -> Verdict:
    """Check answer(pixels, latents, kl_weight, n_pixels, latent_size) -> the effective beta.

    It is asked for all four ways to write "sum" or "mean", and its four numbers are compared.
    """
    cases = [(p, j, 0.5, 100, 4) for p in ("sum", "mean") for j in ("sum", "mean")]

    def table(by_pixels: float, by_latents: float, weight: float = 0.5) -> Tensor:
        return torch.tensor([weight * b * a for b in (1, by_pixels) for a in (1, by_latents)])

    def all_cases():
        betas = [answer(*case) for case in cases]
        no_numbers = [beta for beta in betas if not hasattr(beta, "__float__")]
        if no_numbers:
            return no_numbers[0]  # None, or a word: `_compare` says which
        return torch.stack([torch.as_tensor(beta).double() for beta in betas], dim=-1)

    right = table(100, 1 / 4)
    return _compare(
        all_cases,
        (),
        right,
        {
            "the inverse: a mean makes its term small, and beta is how much the KL counts beside "
            "recon": [
                table(1 / 100, 4),
                table(1 / 100, 4, 2.0),
            ],
            "a mean over pixels counted the wrong way: it makes recon small, and so beta large": (
                table(1 / 100, 1 / 4)
            ),
            "a mean over latents counted the wrong way: it makes the KL small, and so beta": (
                table(100, 4)
            ),
            "sum and mean exchanged: it is the mean that divides": right.flip(0),
            "n_pixels and latent_size exchanged: recon has n_pixels terms": table(4, 1 / 100),
            "the same factor for sum and for mean: a sum divides by nothing": [
                torch.full((4,), 0.5 * 100 / 4),
                torch.full((4,), 0.5 * 4 / 100),
            ],
            "a factor only where both are means: each mean counts by itself": torch.tensor(
                [0.5, 0.5, 0.5, 0.5 * 100 / 4]
            ),
            "the weight alone: the reductions count too": table(1, 1),
            "the reductions without the weight: multiply by kl_weight": table(100, 1 / 4, 1.0),
            "the reductions divided by the weight: multiply by kl_weight": table(100, 1 / 4, 2.0),
            "the pixels alone: a mean over latents divides the KL": table(100, 1),
            "the latents alone: a mean over pixels divides recon": table(1, 1 / 4),
        },
    )


def free_bits(answer: Callable[[Tensor, float], Tensor]) -> Verdict:
    """Check answer(kl_j, least) -> sum_j max(least, mean over the batch of KL_j), one number."""
    # Each mistake gives a number of its own: two dimensions under the limit, one image under it.
    kl_j = torch.tensor([[0.1, 1.2, 0.0, 0.8], [0.7, 0.5, 0.2, 1.2], [0.1, 0.1, 0.1, 0.1]])
    least = 0.5
    mean = kl_j.mean(dim=0)  # 0.3, 0.6, 0.1, 0.7
    right = mean.clamp_min(least).sum()
    return _compare(
        answer,
        (kl_j, least),
        right,
        {
            "the limit on every image: take the mean over the batch first, then the limit": [
                kl_j.clamp_min(least).sum(dim=1).mean(),
                kl_j.clamp_min(least).sum(dim=1),
                kl_j.clamp_min(least).sum(),
            ],
            "no limit, or one on the whole KL: every dimension has its own": [
                mean.sum(),
                mean.sum().clamp_min(least * 4),
                kl_j.sum(dim=1).clamp_min(least).mean(),
                kl_j.sum(dim=1).clamp_min(least * 4).mean(),
            ],
            "an upper limit: `least` is the least that a dimension counts, so take the larger": (
                mean.clamp_max(least).sum()
            ),
            "only what is over the limit: a dimension under it counts as `least`, not as 0": [
                (mean - least).clamp_min(0).sum(),
                mean[mean > least].sum(),
                mean.sum() - least,
            ],
            "the sum over the batch: take the mean, then the limit": kl_j.sum(dim=0)
            .clamp_min(least)
            .sum(),
            "the mean over dimensions instead of over the batch: the images are dim=0": [
                kl_j.mean(dim=1).clamp_min(least).sum(),
                kl_j.mean(dim=1).clamp_min(least).mean(),
                kl_j.mean(dim=1).clamp_min(least),
            ],
            "the mean over dimensions, after the limit: sum them": mean.clamp_min(least).mean(),
            "the dimensions before their sum: return one number": mean.clamp_min(least),
            "the same number for every image: return it once": right.expand(3),
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


# --- lesson 05 ------------------------------------------------------------------------------------


def diagnose(answers: dict[str, str] | Callable[[], dict[str, str]]) -> Verdict:
    """Check {"A": the fault of patient A, ...}, or a function that returns it, patient by patient.

    A fault is one of `diagnose.FAULTS`, in any words that fit no other of them.
    """
    right = {
        "A": faults.LOG_VAR_AS_SIGMA,
        "B": faults.SIGMOID_TWICE,
        "C": faults.MEAN_FOR_SUM,
        "D": faults.WRONG_SIGN,
        "E": faults.NO_NOISE,
    }
    symptoms = {
        faults.WRONG_SIGN: "the KL grows without end and takes the loss far below zero",
        faults.MEAN_FOR_SUM: "the KL of every dimension falls to 0, and all images become one",
        faults.LOG_VAR_AS_SIGMA: "log_var settles at 0, where σ should be 1, and yet two runs on "
        "the same image hardly differ; but they do differ",
        faults.NO_NOISE: "two runs on the same image agree to the last digit",
        faults.SIGMOID_TWICE: "no pixel of any image is under 0.50 or over 0.73",
        faults.VARIANCE_AS_SIGMA: "the curves, the KL and the images all look nearly healthy",
        faults.KL_FORMULA: "a silent dimension settles at another mu and log_var than 0 and 0",
        faults.NOT_FINITE: "the loss is NaN or infinite at the first step",
    }
    if callable(answers):
        try:
            answers = answers()
        except NotImplementedError:
            return Verdict("Not yet: write the function, then run this cell again.")
        except (Exception, SystemExit) as error:
            return Verdict(f"Not yet: your function raised {type(error).__name__}: {error}")
        if answers is None:
            return Verdict("Not yet: your function returns nothing.")
    if not isinstance(answers, dict):
        return Verdict(
            f'Not yet: expected a dict, {{"A": "...", ...}}, got {type(answers).__name__}.'
        )
    answers = {str(letter).strip().upper(): said for letter, said in answers.items()}
    lines, n_right = [], 0
    for letter, fault in right.items():
        said = answers.pop(letter, None)
        if not isinstance(said, str) or not said.strip(" .?"):
            lines.append(f"{letter}: not yet.")
            continue
        named = faults.fault_named(said)
        if named is None:
            known = ", ".join(faults.FAULTS)
            lines.append(f"{letter}: {said!r} names none or several of the faults: {known}.")
        elif named != fault:
            lines.append(f"{letter}: not {named!r}: with it {symptoms[named]}. Look again.")
        else:
            lines.append(f"{letter}: right, {named}.")
            n_right += 1
    lines += [f"There is no patient {letter}." for letter in answers]
    if n_right == len(right):
        return Verdict("\n".join(["Correct.", *lines]), ok=True)
    return Verdict("\n".join([f"Not yet: {n_right} of {len(right)} are right.", *lines]))
