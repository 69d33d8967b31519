"""Reconstruction, KL and the ELBO: pure functions of tensors, one value an image.

Every loss sums over pixels and over latent dimensions and returns shape `(B,)` in **nats per
image**; the caller takes the mean over the batch. Taking a mean over pixels in one term and a sum
over latent dimensions in the other changes beta by a factor of 784 without saying so, and is the
most common mistake in public VAE code.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def bernoulli_nll(x_logits: Tensor, x: Tensor) -> Tensor:
    """Return -log p(x|z) for Bernoulli pixels: -sum_i [x_i log p_i + (1 - x_i) log(1 - p_i)].

    Here p = sigmoid(x_logits). Working from logits stays finite where log(sigmoid) would not.
    For grey x in (0, 1) this is a cross-entropy: its least value is the pixels' own entropy, not 0.

    Shapes: x_logits and x `(B, ...)` -> `(B,)`. Units: nats per image.
    Raises: ValueError if the shapes differ.
    Source: Kingma & Welling 2014, appendix C.1.
    """
    _same_shape("x_logits", x_logits, "x", x)
    return _per_image(F.binary_cross_entropy_with_logits(x_logits, x, reduction="none"))


def gaussian_nll(x_mean: Tensor, x: Tensor, log_var: Tensor | float = 0.0) -> Tensor:
    """Return -log N(x; x_mean, exp(log_var)): sum_i ½[log 2π + log σ_i² + (x_i - m_i)² / σ_i²].

    `log_var` is the log of the noise variance: a number, a tensor that broadcasts against x, or an
    `nn.Parameter` to be learned. It is a density, so the result can be negative.

    Shapes: x_mean and x `(B, ...)` -> `(B,)`. Units: nats per image.
    Raises: ValueError if the shapes differ.
    Source: Kingma & Welling 2014, appendix C.2.
    """
    _same_shape("x_mean", x_mean, "x", x)
    log_var = _fitted("log_var", log_var, x)
    return _per_image(
        0.5 * (math.log(2 * math.pi) + log_var + (x - x_mean).square() * torch.exp(-log_var))
    )


def optimal_log_var(x_mean: Tensor, x: Tensor) -> Tensor:
    """Return the log of the one noise variance that fits best, σ² = mean (x_i - m_i)².

    The mean runs over the pixels of all images. Put into `gaussian_nll` it makes a σ-VAE. It comes
    without a gradient, and needs none: at its optimum the loss does not change with σ².

    Shapes: x_mean and x `(B, ...)` -> `()`. Units: log of squared pixel intensity.
    Raises: ValueError if the shapes differ.
    Source: Rybkin et al. 2021, eq. 6 and 7.
    """
    _same_shape("x_mean", x_mean, "x", x)
    # At least σ = 0.03 grey levels: a perfect reconstruction would make the logarithm infinite.
    # First each image's mean: one sum over all numbers would depend on the number of threads.
    mean = (x - x_mean).detach().square().flatten(1).mean(dim=1).mean()
    return mean.clamp_min(1e-3 / 255**2).log()


def continuous_bernoulli_nll(x_logits: Tensor, x: Tensor) -> Tensor:
    """Return -log p(x|z) for p(x_i) = C(λ_i) λ_i^x_i (1 - λ_i)^(1 - x_i), a density on [0, 1].

    λ = sigmoid(x_logits), and C(λ) = l / tanh(l/2) with the logit l makes it integrate to 1, which
    the cross-entropy of `bernoulli_nll` on grey pixels does not. The result can be negative.

    Shapes: x_logits and x `(B, ...)` -> `(B,)`. Units: nats per image, of a density.
    Raises: ValueError if the shapes differ.
    Source: Loaiza-Ganem & Cunningham 2019, eq. 6 to 8.
    """
    _same_shape("x_logits", x_logits, "x", x)
    size = x_logits.abs()  # the constant is even in l
    near = size < 1e-2  # where l / tanh(l/2) is 0/0, its series 2 + l²/6 is exact to 1e-11
    safe = torch.where(near, torch.ones_like(size), size)
    log_c = torch.where(
        near, torch.log(2 + x_logits.square() / 6), torch.log(safe / torch.tanh(safe / 2))
    )
    return bernoulli_nll(x_logits, x) - _per_image(log_c)


def discretised_logistic_nll(x_mean: Tensor, x: Tensor, log_scale: Tensor | float) -> Tensor:
    """Return -log P(x|z) for 256 grey levels: the logistic distribution's mass in x_i ± 1/510.

    P(x_i) = sigmoid((x_i + 1/510 - m_i) / s) - sigmoid((x_i - 1/510 - m_i) / s); black and white
    also take the tail beyond them, so that the 256 probabilities add up to 1.

    `log_scale` = log s: a number, or a tensor or `nn.Parameter` that broadcasts against x.

    Shapes: x_mean and x `(B, ...)` -> `(B,)`. Units: nats per image, of a probability; divided by
    the pixels and log 2 they are the bits per dimension that a lossless coder would need.
    Raises: ValueError if the shapes differ.
    Source: Kingma et al. 2016, section C.4; Salimans et al. 2017, eq. 2.
    """
    _same_shape("x_mean", x_mean, "x", x)
    inverse_scale = torch.exp(-_fitted("log_scale", log_scale, x))
    upper = (x - x_mean + 1 / 510) * inverse_scale
    lower = (x - x_mean - 1 / 510) * inverse_scale
    # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)): no difference of two
    # numbers that are both almost 0 or almost 1.
    width = torch.log(-torch.expm1(lower - upper))
    black, white = x < 0.5 / 255, x > 254.5 / 255
    log_p = (
        torch.where(white, torch.zeros_like(x), F.logsigmoid(upper))
        + torch.where(black, torch.zeros_like(x), F.logsigmoid(-lower))
        + torch.where(black | white, torch.zeros_like(x), width)
    )
    return -_per_image(log_p)


def squared_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """Return the squared distance of two images, sum_i (x_i - x̂_i)².

    It is `gaussian_nll` with variance ½, less a constant; by itself it has no unit of information.

    Shapes: x_hat and x `(B, ...)` -> `(B,)`. Units: squared pixel intensity per image.
    Raises: ValueError if the shapes differ.
    """
    _same_shape("x_hat", x_hat, "x", x)
    return _per_image((x - x_hat).square())


def kl_per_dimension(mu: Tensor, log_var: Tensor) -> Tensor:
    """Return KL(N(mu_j, σ_j²) ‖ N(0, 1)) = ½ (mu_j² + σ_j² - 1 - log σ_j²) for each dimension j.

    Shapes: mu and log_var `(B, latent_size)` -> `(B, latent_size)`. Units: nats.
    Raises: ValueError if the shapes differ.
    Source: Kingma & Welling 2014, appendix B.
    """
    _same_shape("mu", mu, "log_var", log_var)
    # expm1(log_var) is σ² - 1 without the rounding that would make a small KL negative.
    return 0.5 * (mu.square() + torch.expm1(log_var) - log_var)


def kl_standard_normal(mu: Tensor, log_var: Tensor) -> Tensor:
    """Return KL(q(z|x) ‖ N(0, I)) = ½ sum_j (mu_j² + σ_j² - 1 - log σ_j²), in closed form.

    Shapes: mu and log_var `(B, latent_size)` -> `(B,)`. Units: nats per image.
    Raises: ValueError if the shapes differ.
    Source: Kingma & Welling 2014, eq. 10 and appendix B.
    """
    return kl_per_dimension(mu, log_var).sum(dim=1)


def kl_monte_carlo(
    mu: Tensor,
    log_var: Tensor,
    n_samples: int = 1000,
    generator: torch.Generator | None = None,
    eps: Tensor | None = None,
) -> Tensor:
    """Estimate KL(q ‖ N(0, I)) as the mean of log q(z) - log p(z) over samples z = mu + σ·eps.

    Unbiased; its standard error falls as 1/√n_samples. It needs no closed form, only the two log
    densities, whose constants ½ log 2π cancel. `eps` `(n_samples, B, latent_size)` fixes the noise.

    Shapes: mu and log_var `(B, latent_size)` -> `(B,)`. Units: nats per image.
    Raises: ValueError if the shapes differ.
    Source: Kingma & Welling 2014, eq. 6 (estimator A).
    """
    _same_shape("mu", mu, "log_var", log_var)
    if eps is None:
        eps = torch.randn(
            (n_samples, *mu.shape), generator=generator, device=mu.device, dtype=mu.dtype
        )
    z = mu + torch.exp(0.5 * log_var) * eps  # (n_samples, B, latent_size)
    log_ratio = 0.5 * (z.square() - eps.square() - log_var)  # log q(z) - log p(z)
    return log_ratio.sum(dim=2).mean(dim=0)


def free_bits(kl_j: Tensor, least: float) -> Tensor:
    """Return sum_j max(least, mean over the batch of KL_j): up to `least` nats a dimension is free.

    A dimension under the limit is not pushed further towards the prior: a cure for collapse.

    Shapes: kl_j `(B, latent_size)` (see `kl_per_dimension`) -> `(B,)`, the same for every image.
    Units: nats per image.
    Source: Kingma et al. 2016, eq. 15.
    """
    return kl_j.mean(dim=0).clamp_min(least).sum().expand(len(kl_j))


def log_weights(recon: Tensor, z: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
    """Return log w = log p(x|z) + log p(z) - log q(z|x) for samples z of q(z|x) = N(mu, σ²).

    The mean of w over q is p(x); the mean of log w is the ELBO.

    Shapes: recon = -log p(x|z) `(K, B)`, z `(K, B, latent_size)`, mu and log_var `(B, latent_size)`
    -> `(K, B)`. Units: nats per image.
    Raises: ValueError if the shapes differ.
    Source: Burda et al. 2016, section 3.
    """
    _same_shape("mu", mu, "log_var", log_var)
    _same_shape("z of one sample", z[0], "mu", mu)
    _same_shape("recon", recon, "z without its last dimension", z[..., 0])
    eps = (z - mu) * torch.exp(-0.5 * log_var)
    # The constants ½ log 2π of the two densities cancel.
    log_ratio = 0.5 * (eps.square() + log_var - z.square())  # log p(z) - log q(z|x)
    return log_ratio.sum(dim=2) - recon


def importance_weighted_bound(log_w: Tensor) -> Tensor:
    """Return log (1/K) sum_k w_k, a bound on log p(x) from below (on average over the samples).

    With K = 1 it is the ELBO; it rises with K and reaches log p(x). The largest weight is taken out
    of the sum before exp: the weights themselves, e^-100 and less, are 0 in float32 or nearly so.

    Shapes: log_w `(K, B)` (see `log_weights`) -> `(B,)`. Units: nats per image; higher is better.
    Raises: ValueError unless log_w is `(K, B)` with K of at least 1.
    Source: Burda et al. 2016, eq. 8.
    """
    if log_w.ndim != 2 or len(log_w) == 0:
        raise ValueError(f"log_w must be (K, B) with K of at least 1, got {tuple(log_w.shape)}")
    return torch.logsumexp(log_w, dim=0) - math.log(len(log_w))


def neg_elbo(recon: Tensor, kl: Tensor, beta: float = 1.0) -> Tensor:
    """Return what a VAE minimises, recon + beta · kl; with beta = 1 it bounds -log p(x) from above.

    Shapes: recon and kl `(B,)` -> `(B,)`. Units: nats per image.
    Raises: ValueError if the shapes differ.
    Source: Kingma & Welling 2014, eq. 7; beta: Higgins et al. 2017, eq. 4.
    """
    _same_shape("recon", recon, "kl", kl)
    return recon + beta * kl


def _fitted(name: str, value: Tensor | float, x: Tensor) -> Tensor:
    """Return a number or a tensor as one that broadcasts against the images x, or a ValueError."""
    if not isinstance(value, Tensor):  # filled on the device: a CUDA graph copies nothing to it
        value = torch.full((), value, dtype=x.dtype, device=x.device)
    try:
        fits = torch.broadcast_shapes(value.shape, x.shape) == x.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"{name} {tuple(value.shape)} must broadcast to the images' shape {tuple(x.shape)}"
        )
    return value.to(x)


def _per_image(x: Tensor) -> Tensor:
    return x.flatten(start_dim=1).sum(dim=1)


def _same_shape(name_a: str, a: Tensor, name_b: str, b: Tensor) -> None:
    # Broadcasting (B, 1) against (B, 784) gives a plausible number of the wrong thing: refuse it.
    if a.shape != b.shape:
        raise ValueError(
            f"{name_a} and {name_b} must have the same shape, "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
