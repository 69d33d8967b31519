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
    log_var = torch.as_tensor(log_var, dtype=x.dtype, device=x.device)
    try:
        fits = torch.broadcast_shapes(log_var.shape, x.shape) == x.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"log_var {tuple(log_var.shape)} must broadcast to the images' shape {tuple(x.shape)}"
        )
    return _per_image(
        0.5 * (math.log(2 * math.pi) + log_var + (x - x_mean).square() * torch.exp(-log_var))
    )


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


def neg_elbo(recon: Tensor, kl: Tensor, beta: float = 1.0) -> Tensor:
    """Return what a VAE minimises, recon + beta · kl; with beta = 1 it bounds -log p(x) from above.

    Shapes: recon and kl `(B,)` -> `(B,)`. Units: nats per image.
    Raises: ValueError if the shapes differ.
    Source: Kingma & Welling 2014, eq. 7; beta: Higgins et al. 2017, eq. 4.
    """
    _same_shape("recon", recon, "kl", kl)
    return recon + beta * kl


def _per_image(x: Tensor) -> Tensor:
    return x.flatten(start_dim=1).sum(dim=1)


def _same_shape(name_a: str, a: Tensor, name_b: str, b: Tensor) -> None:
    # Broadcasting (B, 1) against (B, 784) gives a plausible number of the wrong thing: refuse it.
    if a.shape != b.shape:
        raise ValueError(
            f"{name_a} and {name_b} must have the same shape, "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
