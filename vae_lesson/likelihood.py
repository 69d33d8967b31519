"""log p(x) by importance sampling: the estimate, and training on the bound.

A decoder's output becomes a likelihood by `nll(output, x) -> (B,)`, by default
`losses.bernoulli_nll`; the functions of `losses` fit, or one of your own.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vae_lesson import losses
from vae_lesson.data import batches
from vae_lesson.models import VAE, AutoregressiveVAE, reparameterize
from vae_lesson.train import Terms

Nll = Callable[[Tensor, Tensor], Tensor]


def log_weights(
    model: VAE,
    x: Tensor,
    n_samples: int,
    generator: torch.Generator | None = None,
    nll: Nll = losses.bernoulli_nll,
) -> Tensor:
    """Return log w = log p(x|z) + log p(z) - log q(z|x) for n_samples z ~ q(z|x) an image.

    Shapes: x `(B, ...)` -> `(n_samples, B)`. Units: nats per image.
    Source: Burda et al. 2016, section 3.
    """
    return _log_weights(model, x, *model.encode(x), n_samples, generator, nll)


def log_p_given_prior_draws(
    model: VAE,
    x: Tensor,
    n_samples: int,
    generator: torch.Generator | None = None,
    nll: Nll = losses.bernoulli_nll,
) -> Tensor:
    """Return log p(x|z) for n_samples z ~ N(0, I), which know nothing of the image.

    The mean of p(x|z) is p(x); with few samples none of them fits, and the estimate is far too low.

    Shapes: x `(B, ...)` -> `(n_samples, B)`. Units: nats per image.
    """
    shape = (n_samples, len(x), model.latent_size)
    z = torch.randn(shape, generator=generator, device=x.device, dtype=x.dtype)
    return -_recon(model, z, x, nll)


class LogLikelihood(NamedTuple):
    """An estimate of log p(x) from K samples an image; see `log_likelihood`."""

    n_samples: int
    mean: float  # over the images, nats per image
    standard_error: float  # of that mean, from the scatter of the images
    per_image: Tensor  # (N,)


@torch.no_grad()
def log_likelihood(
    model: VAE,
    images: Tensor,
    n_samples: tuple[int, ...] = (1, 10, 100, 1000, 5000),
    seed: int = 0,
    binarisation: str = "grey",
    nll: Nll = losses.bernoulli_nll,
    draws: Callable = log_weights,
) -> list[LogLikelihood]:
    """Estimate log p(x) of uint8 images by the importance-weighted bound, for each number K.

    All K share the same samples, as many as the largest: a K that is smaller takes them in groups
    and averages the groups' bounds. `draws=log_p_given_prior_draws` samples from the prior instead.

    Raises: ValueError unless every K is a whole number of at least 1, and there is an image.
    Source: Burda et al. 2016, section 5.1.
    """
    for k in n_samples or [None]:
        _check_n_samples(k)
    if len(images) == 0:
        raise ValueError("there are no images")
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    most, rows = max(n_samples), []
    for x in batches(images.to(device), 10, generator, binarisation, shuffle=False):
        # A part at a time: 5,000 samples of 10 images are 160 MB at once.
        parts = [min(500, most - done) for done in range(0, most, 500)]
        log_w = torch.cat([draws(model, x, k, generator, nll) for k in parts])
        rows.append([_mean_bound(log_w, k) for k in n_samples])
    estimates = []
    for k, parts in zip(n_samples, zip(*rows)):
        bound = torch.cat(parts)
        error = bound.std() / len(bound) ** 0.5
        estimates.append(LogLikelihood(k, bound.mean().item(), error.item(), bound))
    return estimates


def terms_with(nll: Nll) -> Terms:
    """Return the terms of the ELBO for another likelihood of the pixels, for `train.fit`."""

    def terms(model: nn.Module, x: Tensor, generator: torch.Generator | None = None):
        output, mu, log_var = model(x, generator=generator)
        return nll(output, x), losses.kl_standard_normal(mu, log_var)

    return terms


def sampled_terms(
    n_samples: int, importance_weighted: bool = True, nll: Nll = losses.bernoulli_nll
) -> Terms:
    """Return terms for `train.fit` that take n_samples of z an image.

    Their sum is minus the importance-weighted bound (IWAE), or minus the mean of n_samples ELBOs.
    The second term is the KL as always, so that a history shows it; the first is the rest of the
    sum. Only with beta = 1 is that the loss of the paper.

    Raises: ValueError unless n_samples is a whole number of at least 1.
    Source: Burda et al. 2016, section 3.
    """
    _check_n_samples(n_samples)

    def terms(model: VAE, x: Tensor, generator: torch.Generator | None = None):
        mu, log_var = model.encode(x)
        log_w = _log_weights(model, x, mu, log_var, n_samples, generator, nll)
        bound = losses.importance_weighted_bound(log_w) if importance_weighted else log_w.mean(0)
        kl = losses.kl_standard_normal(mu, log_var)
        return -bound - kl, kl

    return terms


def _check_n_samples(k) -> None:
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise ValueError(f"n_samples must be whole numbers of at least 1, got {k!r}")


def _log_weights(model, x, mu, log_var, n_samples, generator, nll) -> Tensor:
    shape = (n_samples, *mu.shape)
    z = reparameterize(mu.expand(shape), log_var.expand(shape), generator=generator)
    return losses.log_weights(_recon(model, z, x, nll), z, mu, log_var)


def _recon(model: VAE, z: Tensor, x: Tensor, nll: Nll) -> Tensor:
    """Return nll of every sample: z (K, B, L), x (B, ...) -> (K, B)."""
    output = model.decode(z.flatten(0, 1))
    if isinstance(model, AutoregressiveVAE):  # its decoder sees the image too
        output = output + model.context(x).repeat(len(z), 1)
    every = x.flatten(1).expand(len(z), -1, -1).reshape(output.shape)
    return nll(output, every).view(z.shape[:2])


def _mean_bound(log_w: Tensor, k: int) -> Tensor:
    """Return the bound from k samples, averaged over groups of k: (K, B) -> (B,)."""
    groups = log_w[: len(log_w) // k * k].unflatten(0, (k, -1))  # (k, groups, B)
    bounds = losses.importance_weighted_bound(groups.flatten(1))
    return bounds.view(groups.shape[1:]).mean(dim=0)
