"""log p(x) by importance sampling, whether to trust it, and the best q of each image.

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
from vae_lesson.losses import bernoulli_nll, kl_standard_normal
from vae_lesson.models import VAE, reparameterize

Nll = Callable[[Tensor, Tensor], Tensor]
# mu and log_var `(B, latent_size)`, and for a q of any covariance lower `(B, latent_size,
# latent_size)`, of which only what is below the diagonal counts: z = mu + (diag(σ) + lower) eps.
Q = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]


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


def effective_sample_size(log_w: Tensor) -> Tensor:
    """Return 1 / sum_k share_k², with share_k = w_k / sum w: as many equal draws would do as well.

    It is K if all weights are equal, and 1 if one of them has everything: `(K, ...)` -> `(...)`.
    Source: Kong 1992.
    """
    return 1 / log_w.softmax(dim=0).square().sum(dim=0)


def pareto_k(log_w: Tensor) -> Tensor:
    """Return k̂, how heavy the tail of the weights w is: the more, the less the mean of w is worth.

    It is the shape of the generalised Pareto distribution that fits what the largest min(K/5, 3√K)
    weights have above the next. A tail of shape k has a mean for k < 1 and a variance for k < ½;
    over 0.7 the bound comes near log p(x) only with far more draws than there are. NaN for under 25
    draws, or equal ones.

    Shapes: log_w `(K, ...)` -> `(...)`.
    Source: Vehtari et al. 2024, section 3 and appendix C; the fit is Zhang & Stephens 2009.
    """
    n = min(len(log_w) // 5, math.ceil(3 * len(log_w) ** 0.5))
    if n < 5:
        return torch.full_like(log_w[0], math.nan)
    # In rising order, and in float64, which not every device has.
    largest = log_w.cpu().double().topk(n + 1, dim=0).values.flip(0)
    w = torch.exp(largest - largest[-1])
    x = w[1:] - w[0]  # (n, ...)
    m = 30 + int(n**0.5)
    j = torch.arange(1, m + 1).view(-1, *[1] * (x.ndim - 1))
    quartile = x[int(n / 4 + 0.5) - 1]
    b = 1 / x[-1] + (1 - (m / (j - 0.5)).sqrt()) / (3 * quartile)  # (m, ...) candidates for −k/σ
    k = torch.log1p(-b[:, None] * x).mean(dim=1)
    b = (b * torch.softmax(n * (torch.log(-b / k) - k - 1), dim=0)).sum(dim=0)  # the posterior mean
    k = torch.log1p(-b * x).mean(dim=0)
    return ((n * k + 5) / (n + 10)).to(log_w)  # as if ten more weights had a k of ½


def posterior_log_weights(
    model: VAE, x: Tensor, n_samples: int, generator: torch.Generator, nll: Nll = bernoulli_nll
) -> Tensor:
    """Return the `log_weights` of K = n_samples draws z ~ q(z|x): x `(B, ...)` -> `(K, B)`."""
    return log_weights_of(model, x, model.encode(x), n_samples, generator, nll)


def prior_log_weights(
    model: VAE, x: Tensor, n_samples: int, generator: torch.Generator, nll: Nll = bernoulli_nll
) -> Tensor:
    """Return log w = log p(x|z) of K draws z ~ N(0, I), which know nothing of the image.

    The mean of w is p(x); with few samples none of them fits, and the estimate is far too low.
    """
    zeros = x.new_zeros((len(x), model.latent_size))
    return log_weights_of(model, x, (zeros, zeros), n_samples, generator, nll)


def log_weights_of(
    model: VAE,
    x: Tensor,
    q: Q,
    n_samples: int,
    generator: torch.Generator,
    nll: Nll = bernoulli_nll,
) -> Tensor:
    """Return the `log_weights` of K = n_samples draws of any q, as of `fit_q`: -> `(K, B)`."""
    z, along_axes = _draws(q, n_samples, generator)
    log_w = log_weights(_recon(model, x, z, nll), along_axes, *q[:2])
    # log q of a draw is that of its eps: `lower` moves it elsewhere under the prior, and no more.
    return log_w if len(q) == 2 else log_w + 0.5 * (along_axes.square() - z.square()).sum(dim=2)


def _draws(q: Q, n_samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return z, and z without what `lower` adds to it: two of (K, B, latent_size)."""
    mu, log_var, *lower = q
    eps = torch.randn((n_samples, *mu.shape), generator=generator, device=mu.device, dtype=mu.dtype)
    z = reparameterize(mu.expand_as(eps), log_var.expand_as(eps), eps)
    return (z + torch.einsum("bij,kbj->kbi", lower[0].tril(-1), eps) if lower else z), z


def _recon(model: VAE, x: Tensor, z: Tensor, nll: Nll) -> Tensor:
    """Return -log p(x|z) for z (K, B, latent_size): (K, B)."""
    output = model.logits(z.flatten(0, 1), x)  # (K · B, D)
    return nll(output, x.flatten(1).repeat(len(z), 1)).view(z.shape[:2])


def fit_q(
    model: VAE,
    x: Tensor,
    n_steps: int,
    lr: float,
    n_samples: int,
    generator: torch.Generator,
    nll: Nll = bernoulli_nll,
    full: bool = False,
) -> Q:
    """Return the q of each image that has the best ELBO: by Adam, from the encoder's on.

    The decoder stays as it is. What the encoder's ELBO lacks of the one found here is the
    amortisation gap; what this one lacks of log p(x), the approximation gap. Each step draws eps
    `(n_samples, B, latent_size)`, and descends on the mean of recon over the draws + the KL in
    closed form; its rate falls in a straight line from lr to 0.
    full: a q of any covariance, with `lower` (see `Q`), instead of a diagonal one.

    Shapes: x `(B, ...)` -> mu and log_var `(B, latent_size)`, and lower.
    Source: Cremer et al. 2018.
    """
    q = [part.detach().clone() for part in model.encode(x)]
    q += [q[0].new_zeros((*q[0].shape, q[0].shape[1]))] if full else []
    optimizer = torch.optim.Adam([part.requires_grad_() for part in q], lr)
    for step in range(n_steps):
        optimizer.param_groups[0]["lr"] = lr * (1 - step / n_steps)
        recon = _recon(model, x, _draws(q, n_samples, generator)[0], nll).mean(dim=0)
        kl = kl_standard_normal(*q[:2])
        if full:  # det stays Π σ², and the trace has the squares of `lower` too
            kl = kl + 0.5 * q[2].tril(-1).square().sum(dim=(1, 2))
        optimizer.zero_grad()
        (recon + kl).sum().backward(inputs=q)  # the sum: each image has its own q
        optimizer.step()
    return tuple(part.detach() for part in q)


class LogLikelihood(NamedTuple):
    """An estimate of log p(x) from K samples an image; see `log_likelihood`."""

    n_samples: int
    mean: float  # over the images, nats per image
    standard_error: float | None  # of that mean, from the scatter of the images; None for one
    per_image: Tensor  # (N,)
    pareto_k: Tensor  # (N,), see `pareto_k`: over 0.7 the estimate is not to be trusted


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
        # Each is (k, groups, B): of k samples, averaged over the groups.
        of_groups = [(importance_weighted_bound(group), pareto_k(group)) for group in groups]
        rows.append([torch.stack(both).mean(dim=1) for both in of_groups])
    estimates = []
    for k, both in zip(n_samples, zip(*rows)):
        bound, tail = torch.cat(both, dim=1)
        error = (bound.std() / len(bound) ** 0.5).item() if len(bound) > 1 else None
        estimates.append(LogLikelihood(k, bound.mean().item(), error, bound, tail))
    return estimates
