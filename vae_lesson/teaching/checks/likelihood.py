"""The checks on the likelihood: importance weights and their bound."""

from collections.abc import Callable

import torch
from torch import Tensor

from vae_lesson import losses
from vae_lesson.likelihood import importance
from vae_lesson.teaching.checks.verdict import ONE_NUMBER, Verdict, compare, draw


def log_weights(answer: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(recon, z, mu, log_var) -> `(K, B)`, log p(x|z) + log p(z) - log q(z|x)."""
    recon, z, mu, log_var = draw((4, 3), (4, 3, 5), (3, 5), (3, 5))
    log_p, square, sigma2 = -0.5 * z.square(), (z - mu).square(), log_var.exp()
    scaled = square / sigma2

    def log_w(times_p, times_q, scaled=scaled, log_sigma2=log_var):
        log_q = -0.5 * (scaled + log_sigma2)
        return (times_p * log_p + times_q * log_q).sum(dim=2) - recon

    c = -0.5 * 5 * torch.tensor(2 * torch.pi).log()  # of each density: torch.distributions has it
    right = importance.log_weights(recon, z, mu, log_var)
    added, no_p, no_q = log_w(1, 1), log_w(0, -1), log_w(1, 0)
    no_log = [log_w(1, -1, log_sigma2=log_sigma2) for log_sigma2 in (0, -log_var)]
    other_variances = [log_w(1, -1, square / variance) for variance in (sigma2.sqrt(), log_var)]
    other_variances += [log_w(1, -1, square / sigma2**2, 2 * log_var)]
    pooled = [right.mean(dim=0), right.mean(), right.sum()]
    mistakes = {
        "log p(x|z) with the wrong sign: recon is −log p(x|z)": right + 2 * recon,
        "log q added: w divides by q, so log q is subtracted": [added, added + 2 * c],
        "log p(x|z) − log q(z|x): the prior's log p(z) is missing": [no_p, no_p - c],
        "log p(x|z) + log p(z): without − log q(z|x), z counts as the prior's": [no_q, no_q + c],
        "the KL in closed form, which makes it the ELBO: take log p(z) and log q(z|x) at each "
        "z": -losses.kl_standard_normal(mu, log_var) - recon,
        "½ log 2π in only one of the two densities: it cancels": [right + c, right - c],
        "missing the factor ½ in the densities": [log_w(2, -2), log_w(2, -1), log_w(1, -2)],
        "log q without −½ log σ², or with +: where σ is small, the density is higher": no_log,
        "another number where σ² belongs in log q: σ² is exp(log_var)": other_variances,
        "the mean over latent dimensions: their log densities add up": (right + recon) / 5 - recon,
        "w itself: return its logarithm": right.exp(),
        "the negative of log w: turn every sign": -right,
        "one number for several samples: keep one a sample and image, (K, B)": pooled,
    }
    return compare(answer, (recon, z, mu, log_var), right, mistakes)


def bound(answer: Callable[[Tensor], Tensor]) -> Verdict:
    """Check answer(log_w) -> `(B,)`, the log of the mean of w over the K samples."""
    (log_w,) = draw((5, 4))
    # Three images that tell the mistakes apart, and one for which exp(log_w) is 0, in float64 too.
    log_w = 2 * log_w - torch.tensor([0.0, 0.0, 0.0, 1000.0])
    w = log_w.exp()
    log_k, log_b = torch.tensor([5.0, 4.0]).log()
    log_sum, image_sum = log_w.logsumexp(dim=0), log_w.logsumexp(dim=1)
    log_sums = [log_sum, log_sum + log_k, log_sum / 5, log_sum - log_b]
    over_images = [image_sum, image_sum - log_b, log_w.mean(dim=1)]
    of_all = log_w.logsumexp(dim=(0, 1)) - log_k - log_b
    right = importance.importance_weighted_bound(log_w)
    mistakes = {
        "exp(log w) as it stands: e^−1000 is 0, and log 0 is −inf; use torch.logsumexp, which "
        "takes out each image's largest log w first": [w.mean(dim=0).log(), w.sum(dim=0).log()],
        "the mean of log w, which is the ELBO: the mean belongs inside the log": log_w.mean(dim=0),
        "the log of the sum: for the mean subtract log K, K = len(log_w)": log_sums,
        "the mean of w: return its logarithm": w.mean(dim=0),
        "the mean over images instead of over samples: the samples are dim=0": over_images,
        "the negative of the bound: it is a bound on log p(x), higher is better": -right,
        ONE_NUMBER: [right.mean(), right.sum(), of_all, log_w.mean()],
    }
    return compare(answer, (log_w,), right, mistakes)
