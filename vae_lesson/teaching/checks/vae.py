"""The checks on a VAE: the sample of z, the KL, and the loss that they make together."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vae_lesson import losses
from vae_lesson.teaching.checks.verdict import ONE_NUMBER, Verdict, compare, draw


def reparameterize(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(mu, log_var, eps) -> z = mu + exp(½ log_var) · eps."""
    mu, log_var, eps = draw((3, 2), (3, 2), (3, 2))
    half, variance = 0.5 * log_var, log_var.exp()
    mistakes = {
        "log σ² used as σ: take exp(½ log_var)": mu + log_var * eps,
        "the variance used as σ: missing the ½ in exp(½ log_var)": mu + variance * eps,
        "log σ² halved but not exponentiated": mu + half * eps,
        "exp(−½ log_var), which is 1/σ": mu + torch.exp(-half) * eps,
        "mu alone: the noise is forgotten": mu,
    }
    return compare(answer, (mu, log_var, eps), mu + torch.exp(half) * eps, mistakes)


def kl_divergence(answer: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(mu, log_var) -> `(B,)`, KL(N(mu, σ²) ‖ N(0, I)) in nats per image."""
    mu, log_var = draw((3, 4), (3, 4))
    terms, variance = losses.kl_per_dimension(mu, log_var), log_var.exp()
    kl = terms.sum(dim=1)
    other_variances = [kl + 0.5 * (v - variance).sum(dim=1) for v in (variance.sqrt(), log_var)]
    other_variances += [losses.kl_standard_normal(mu, log_var.square().log())]
    mistakes = {
        "the mean over latent dimensions instead of the sum": terms.mean(dim=1),
        "missing the factor ½": 2 * kl,
        "the wrong sign: KL is never negative": [-kl, -kl.sum()],
        ONE_NUMBER: [kl.sum(), kl.mean(), terms.mean()],
        "the terms before the sum over dimensions": terms,
        "another number where σ² belongs: σ² is exp(log_var)": other_variances,
        "mu where mu² belongs": kl + 0.5 * (mu - mu.square()).sum(dim=1),
    }
    return compare(answer, (mu, log_var), kl, mistakes)


def neg_elbo(answer: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(x_logits, x, mu, log_var) -> `(B,)`, recon + KL in nats per image."""
    x_logits, x, mu, log_var = draw((3, 8), (3, 8), (3, 2), (3, 2))
    x = torch.sigmoid(x)
    recon, kl_j = losses.bernoulli_nll(x_logits, x), losses.kl_per_dimension(mu, log_var)
    kl = kl_j.sum(dim=1)
    right = recon + kl
    bce = F.binary_cross_entropy_with_logits(x_logits, x, reduction="none")
    pixel_mean = [bce.mean(dim=1) + kl, *(bce.mean() + k for k in (kl, kl.mean(), kl.sum()))]
    twice = losses.bernoulli_nll(x_logits.sigmoid(), x)
    mistakes = {
        "the mean over pixels beside a summed KL: beta times the number of pixels": pixel_mean,
        "the KL subtracted: it is a cost, add it": recon - kl,
        "the ELBO itself: what is minimised is −ELBO": -right,
        ONE_NUMBER: [right.mean(), right.sum(), recon.sum() + kl],
        "the reconstruction alone: the KL is missing": recon,
        "a sigmoid applied twice: the loss takes logits": twice + kl,
        "the mean of the KL over latent dimensions: sum it": recon + kl_j.mean(dim=1),
    }
    return compare(answer, (x_logits, x, mu, log_var), right, mistakes)
