"""log p(x) by importance sampling.

A decoder's output becomes a likelihood by `nll(output, x) -> (B,)`, by default
`losses.bernoulli_nll`; the functions of `pixels` fit, or one of your own.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vae_lesson.arguments import check_same_shape, check_whole
from vae_lesson.data import batches
from vae_lesson.losses import bernoulli_nll
from vae_lesson.models import VAE, reparameterize

Nll = Callable[[Tensor, Tensor], Tensor]


def log_weights(recon: Tensor, z: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
    """Return log w = log p(x|z) + log p(z) - log q(z|x) for samples z of q(z|x) = N(mu, σ²).

    The mean of w over q is p(x); the mean of log w is the ELBO.

    Shapes: recon = -log p(x|z) `(K, B)`, z `(K, B, latent_size)`, mu and log_var `(B, latent_size)`
    -> `(K, B)`. Units: nats per image.
    Raises: ValueError for other shapes.
    Source: Burda et al. 2016, section 3.
    """
    check_same_shape(mu=mu, log_var=log_var, z_of_one_sample=z[0])
    check_same_shape(recon=recon, z_without_its_last_dimension=z[..., 0])
    eps = (z - mu) * torch.exp(-0.5 * log_var)
    # The constants ½ log 2π of the two densities cancel.
    log_ratio = 0.5 * (eps.square() + log_var - z.square())  # log p(z) - log q(z|x)
    return log_ratio.sum(dim=2) - recon


def importance_weighted_bound(log_w: Tensor) -> Tensor:
    """Return log (1/K) sum_k w_k, a bound on log p(x) from below (on average over the samples).

    With K = 1 it is the ELBO; it rises with K and reaches log p(x). The largest weight is taken out
    of the sum before exp: the weights themselves, e^-100 and less, are 0 in float32 or nearly so.

    Shapes: log_w `(K, ...)` (see `log_weights`) -> `(...)`. Units: nats per image.
    Source: Burda et al. 2016, eq. 8.
    """
    return torch.logsumexp(log_w, dim=0) - math.log(len(log_w))


def posterior_log_weights(
    model: VAE, x: Tensor, n_samples: int, generator: torch.Generator, nll: Nll = bernoulli_nll
) -> Tensor:
    """Return the `log_weights` of K = n_samples draws z ~ q(z|x): x `(B, ...)` -> `(K, B)`."""
    return _log_weights_of_draws(model, x, model.encode(x), n_samples, generator, nll)


def prior_log_weights(
    model: VAE, x: Tensor, n_samples: int, generator: torch.Generator, nll: Nll = bernoulli_nll
) -> Tensor:
    """Return log w = log p(x|z) of K draws z ~ N(0, I), which know nothing of the image.

    The mean of w is p(x); with few samples none of them fits, and the estimate is far too low.
    """
    zeros = x.new_zeros((len(x), model.latent_size))
    return _log_weights_of_draws(model, x, (zeros, zeros), n_samples, generator, nll)


def _log_weights_of_draws(model, x, mu_and_log_var, n_samples, generator, nll) -> Tensor:
    shape = (n_samples, len(x), model.latent_size)
    mu, log_var = (part.expand(shape) for part in mu_and_log_var)
    z = reparameterize(mu, log_var, generator=generator)
    output = model.logits(z.flatten(0, 1), x)  # (K · B, D)
    recon = nll(output, x.flatten(1).repeat(n_samples, 1)).view(shape[:2])
    return log_weights(recon, z, *mu_and_log_var)


class LogLikelihood(NamedTuple):
    """An estimate of log p(x) from K samples an image; see `log_likelihood`."""

    n_samples: int
    mean: float  # over the images, nats per image
    standard_error: float | None  # of that mean, from the scatter of the images; None for one
    per_image: Tensor  # (N,)


@torch.no_grad()
def log_likelihood(
    model: VAE,
    images: Tensor,
    n_samples: tuple[int, ...],
    seed: int = 0,
    binarisation: str = "grey",
    nll: Nll = bernoulli_nll,
    draws: Callable = posterior_log_weights,
) -> list[LogLikelihood]:
    """Estimate log p(x) of uint8 images by the importance-weighted bound, for each number K.

    All K share the same samples, as many as the largest: a K that is smaller takes them in groups
    and averages the groups' bounds. `draws=prior_log_weights` samples from the prior instead.

    Raises: ValueError for a K that is not a whole number of at least 1, no images, or a decoder
    that gives probabilities to a likelihood that takes logits.
    Source: Burda et al. 2016, section 5.1.
    """
    for k in n_samples:
        check_whole("n_samples", k)
    check_whole("the number of images", len(images))
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    low, high = model.decode(model.encode(next(batches(images[:10].to(device))))[0]).aminmax()
    if nll is bernoulli_nll and low >= 0 and high <= 1:
        raise ValueError(
            f"decode gives {low:.2f} to {high:.2f}, as probabilities are, where bernoulli_nll "
            "takes logits: leave its last sigmoid out, or give an nll of probabilities"
        )
    most, rows = max(n_samples), []
    for x in batches(images, 10, binarisation, generator, device):
        # A part at a time: 5,000 samples of 10 images of MNIST are 160 MB at once.
        at_once = min(500, max(1, 392_000 // x.shape[1]))
        parts = [min(at_once, most - done) for done in range(0, most, at_once)]
        log_w = torch.cat([draws(model, x, k, generator, nll) for k in parts])
        groups = [log_w[: most // k * k].unflatten(0, (k, -1)) for k in n_samples]
        # Each is (k, groups, B): the bound from k samples, averaged over the groups.
        rows.append([importance_weighted_bound(group).mean(dim=0) for group in groups])
    estimates = []
    for k, bound in zip(n_samples, map(torch.cat, zip(*rows))):
        error = (bound.std() / len(bound) ** 0.5).item() if len(bound) > 1 else None
        estimates.append(LogLikelihood(k, bound.mean().item(), error, bound))
    return estimates
