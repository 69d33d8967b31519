"""The checks on the likelihood: importance weights and their bound."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vae_lesson import losses
from vae_lesson.likelihood import importance
from vae_lesson.teaching.checks.verdict import Verdict, compare, draw, ours


@ours(importance.log_weights)
def log_weights(answer: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(recon, z, mu, log_var) -> `(K, B)`, log p(x|z) + log p(z) - log q(z|x)."""
    recon, z, mu, log_var = draw((4, 3), (4, 3, 5), (3, 5), (3, 5), learn=True)
    log_p, square, sigma2 = -0.5 * z.square(), (z - mu).square(), log_var.exp()

    def log_w(times_p, times_q, variance=sigma2, log_sigma2=log_var):
        log_q = -0.5 * (square / variance + log_sigma2)
        return (times_p * log_p + times_q * log_q).sum(dim=2) - recon

    c = -0.5 * 5 * math.log(2 * math.pi)  # of each density: torch.distributions has it
    right = importance.log_weights(recon, z, mu, log_var)
    added, no_p, no_q = log_w(1, 1), log_w(0, -1), log_w(1, 0)
    no_log = [log_w(1, -1, log_sigma2=log_sigma2) for log_sigma2 in (0, -log_var)]
    # σ where σ² belongs; and, as in Normal(mu, σ²), σ² where σ belongs
    other_variances = [log_w(1, -1, sigma2.sqrt()), log_w(1, -1, sigma2**2, 2 * log_var)]
    elbo = -losses.kl_standard_normal(mu, log_var) - recon
    mistakes = {
        "log p(x|z) with the wrong sign: recon is −log p(x|z)": right + 2 * recon,
        "log q added: w divides by q, so log q is subtracted": [added, added + 2 * c],
        "log p(x|z) − log q(z|x): the prior's log p(z) is missing": [no_p, no_p - c],
        "log p(x|z) + log p(z): without − log q(z|x), z counts as the prior's": [no_q, no_q + c],
        "the KL in closed form, which makes it the ELBO: take log p(z) and log q(z|x) at each "
        "z": elbo,
        "missing the factor ½ in the densities": log_w(2, -2),
        "log q without −½ log σ², or with +: where σ is small, the density is higher": no_log,
        "another number where σ² belongs in log q: σ² is exp(log_var)": other_variances,
    }
    learn = {"recon": recon, "z": z, "mu": mu, "log_var": log_var}
    return compare(answer, (recon, z, mu, log_var), right, mistakes, learn=learn)


@ours(importance.importance_weighted_bound)
def bound(answer: Callable[[Tensor], Tensor]) -> Verdict:
    """Check answer(log_w) -> `(B,)`, the log of the mean of w over the K samples."""
    (log_w,) = draw((5, 4), learn=True)
    # Three images that tell the mistakes apart, and one for which exp(log_w) is 0, in float64 too.
    log_w = 2 * log_w - torch.tensor([0.0, 0.0, 0.0, 1000.0])
    right = importance.importance_weighted_bound(log_w)
    over_images = importance.importance_weighted_bound(log_w.T)
    mistakes = {
        "exp(log w) as it stands: e^−1000 is 0, and log 0 is −inf; use torch.logsumexp, which "
        "takes out each image's largest log w first": log_w.exp().mean(dim=0).log(),
        "the mean of log w, which is the ELBO: the mean belongs inside the log": log_w.mean(dim=0),
        "the log of the sum: for the mean subtract log K, K = len(log_w)": log_w.logsumexp(dim=0),
        "the mean over images instead of over samples: the samples are dim=0": over_images,
        "the negative of the bound: it is a bound on log p(x), higher is better": -right,
    }
    return compare(answer, (log_w,), right, mistakes, per_image=True, learn={"log_w": log_w})
