"""Likelihoods for pixels that are not black and white.

Each `..._nll` takes a decoder's output and x, `(B, ...)`, and returns -log p(x|z), `(B,)`, in nats
per image; of a density these can be negative. Shapes that differ, or a scale that does not
broadcast to them, raise ValueError.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vae_lesson.arguments import check_same_shape
from vae_lesson.losses import bernoulli_nll, per_image


def gaussian_nll(x_mean: Tensor, x: Tensor, log_var: Tensor | float = 0.0) -> Tensor:
    """Return -log N(x; x_mean, exp(log_var)): sum_i ½[log 2π + log σ_i² + (x_i - m_i)² / σ_i²].

    `log_var` is the log of the noise variance: a number, a tensor that broadcasts against x, or an
    `nn.Parameter` to be learned.
    Source: Kingma & Welling 2014, appendix C.2.
    """
    check_same_shape(x_mean=x_mean, x=x)
    log_var = _broadcasting("log_var", log_var, x)
    of_variance = math.log(2 * math.pi) + log_var
    return per_image(0.5 * (of_variance + (x - x_mean).square() * torch.exp(-log_var)))


def optimal_log_var(x_mean: Tensor, x: Tensor) -> Tensor:
    """Return the log of the one noise variance that fits best, σ² = mean (x_i - m_i)².

    The mean runs over the pixels of all images. In `gaussian_nll`, batch by batch, it makes the
    optimal σ-VAE (a σ-VAE learns one shared σ with the weights). It comes without a gradient, and
    needs none: at its optimum the loss does not change with σ².

    Shapes: x_mean and x `(B, ...)` -> `()`.
    Source: Rybkin et al. 2021.
    """
    check_same_shape(x_mean=x_mean, x=x)
    # At least σ = 0.03 grey levels: a perfect reconstruction would make the logarithm infinite.
    # First each image's mean: one sum over all numbers would depend on the number of threads.
    mean = (x - x_mean).detach().square().flatten(1).mean(dim=1).mean()
    return mean.clamp_min(1e-3 / 255**2).log()


def fitted_gaussian_nll(x_logits: Tensor, x: Tensor, log_var: Tensor | float | None = None):
    """Return `gaussian_nll` around sigmoid(x_logits), `(B,)`, at this log of the noise variance, or
    else at the batch's `optimal_log_var`."""
    x_mean = torch.sigmoid(x_logits)
    return gaussian_nll(x_mean, x, optimal_log_var(x_mean, x) if log_var is None else log_var)


def continuous_bernoulli_nll(x_logits: Tensor, x: Tensor) -> Tensor:
    """Return -log p(x|z) for p(x_i) = C(λ_i) λ_i^x_i (1 - λ_i)^(1 - x_i), a density on [0, 1].

    λ = sigmoid(x_logits), and C(λ) = l / tanh(l/2) with the logit l makes it integrate to 1, which
    the cross-entropy of `bernoulli_nll` on grey pixels does not.
    Source: Loaiza-Ganem & Cunningham 2019.
    """
    check_same_shape(x_logits=x_logits, x=x)
    near = x_logits.abs() < 1e-2  # l / tanh(l/2) is 0/0; its series 2 + l²/6 is exact to 1e-11
    safe = torch.where(near, torch.ones_like(x_logits), x_logits)
    c = torch.where(near, 2 + x_logits.square() / 6, safe / torch.tanh(safe / 2))
    return bernoulli_nll(x_logits, x) - per_image(c.log())


def discretised_logistic_nll(x_mean: Tensor, x: Tensor, log_scale: Tensor | float) -> Tensor:
    """Return -log P(x|z) for 256 grey levels: the logistic distribution's mass in x_i ± 1/510.

    P(x_i) = sigmoid((x_i + 1/510 - m_i) / s) - sigmoid((x_i - 1/510 - m_i) / s); black and white
    also take the tail beyond them, so that the 256 probabilities add up to 1. Divided by the pixels
    and log 2 these nats are the bits per dimension that a lossless coder would need.

    `log_scale` = log s: a number, or a tensor or `nn.Parameter` that broadcasts against x.
    Source: Kingma et al. 2016, appendix C.5, with a scale for each channel; ± ½ grey level as in
    Salimans et al. 2017, eq. 2. A scale for each pixel is this course's.
    """
    check_same_shape(x_mean=x_mean, x=x)
    inverse_scale = torch.exp(-_broadcasting("log_scale", log_scale, x))
    upper = (x - x_mean + 1 / 510) * inverse_scale
    lower = (x - x_mean - 1 / 510) * inverse_scale
    # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)): no difference of two
    # numbers that are both almost 0 or almost 1.
    width = torch.log(-torch.expm1(lower - upper))
    black, white = x < 0.5 / 255, x > 254.5 / 255
    below = F.logsigmoid(upper).masked_fill(white, 0)
    above = F.logsigmoid(-lower).masked_fill(black, 0)
    return -per_image(below + above + width.masked_fill(black | white, 0))


def fitted_log_scale(x_mean: Tensor, x: Tensor) -> Tensor:
    """Return log s, s = σ √3 / π: the logistic distribution with the variance σ² of the errors.

    σ² is that of `optimal_log_var`, and it comes without a gradient too. Shapes: -> `()`.
    """
    return 0.5 * optimal_log_var(x_mean, x) + math.log(math.sqrt(3) / math.pi)


def fitted_logistic_nll(x_logits: Tensor, x: Tensor) -> Tensor:
    """Return `discretised_logistic_nll` around sigmoid(x_logits), with the `fitted_log_scale`.

    To train with in colour, or on many greys, without a parameter of its own. The scale is the
    batch's: to compare single images, or to sample with `importance`, fit it once and keep it.
    """
    x_mean = torch.sigmoid(x_logits)
    return discretised_logistic_nll(x_mean, x, fitted_log_scale(x_mean, x))


def _broadcasting(name: str, value: Tensor | float, x: Tensor) -> Tensor:
    """Return a number or a tensor as one that broadcasts to the images x, or a ValueError."""
    if not isinstance(value, Tensor):  # filled on the device: a CUDA graph copies nothing to it
        value = x.new_full((), value)
    try:
        value.expand_as(x)
    except RuntimeError as error:
        shapes = f"{tuple(value.shape)} must broadcast to x {tuple(x.shape)}"
        raise ValueError(f"{name} {shapes}") from error
    return value.to(x)
