"""translate: each translation against autograd, hand-computed betas, and what is refused."""

import itertools
import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal

from vae_lesson import losses
from vae_lesson.clinic import translate
from vae_lesson.clinic.translate import LIKELIHOODS, PUBLIC_SETTINGS, Loss

# Three different primes: a factor that is mixed up with another shows.
SIZES = {"n_pixels": 7, "latent_size": 3, "batch_size": 5}
GAUSSIANS = ["squared error", "half squared error"]


def inputs(loss):
    """Return (output, x, mu, log_var) of the sizes of a loss; x is grey, the others need grad."""
    generator = torch.Generator().manual_seed(0)
    b, n, k = loss.batch_size, loss.n_pixels, loss.latent_size
    output, x, mu, log_var = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in [(b, n), (b, n), (b, k), (b, k)]
    )
    return output.requires_grad_(), x.sigmoid(), mu.requires_grad_(), log_var.requires_grad_()


def gradients(value, output, x, mu, log_var):
    return torch.autograd.grad(value, (output, mu, log_var))


def kl(mu, log_var):
    return -0.5 * (1 + log_var - mu.pow(2) - log_var.exp())


def as_written(loss, output, x, mu, log_var):
    """Return the loss as public code computes it: with torch's reductions, before any weight."""
    recon = {
        "bernoulli": F.binary_cross_entropy_with_logits(output, x, reduction="none"),
        "squared error": F.mse_loss(output, x, reduction="none"),
        "half squared error": F.mse_loss(output, x, reduction="none") / 2,
        "absolute error": F.l1_loss(output, x, reduction="none"),
    }[loss.likelihood]
    reduced = {"sum": torch.sum, "mean": torch.mean}
    recon = reduced[loss.recon_batch](reduced[loss.pixels](recon, dim=1))
    of_prior = reduced[loss.kl_batch](reduced[loss.latents](kl(mu, log_var), dim=1))
    return loss.recon_weight * recon + loss.kl_weight * of_prior


def gaussian_nll(output, x, variance):
    return -Normal(output, math.sqrt(variance)).log_prob(x).sum(dim=1)


def scale_of(loss):
    """Return what a batch mean of recon is multiplied by."""
    of_pixels = 1 / loss.n_pixels if loss.pixels == "mean" else 1
    of_batch = loss.batch_size if loss.recon_batch == "sum" else 1
    return loss.recon_weight * of_pixels * of_batch


def recon_of(loss, output, x):
    """Return -log p(x|z) `(B,)`."""
    return {
        "bernoulli": lambda: losses.bernoulli_nll(output, x),
        "squared error": lambda: losses.squared_error(output, x),
        "half squared error": lambda: gaussian_nll(output, x, 1.0),
        "absolute error": lambda: (x - output).abs().sum(dim=1),
    }[loss.likelihood]()


def every_loss(likelihood):
    """Yield losses of this likelihood with every combination of reductions, and weights."""
    weights = [(1.0, 1.0), (0.7, 4.0), (784, 0.00025)]
    for *how, some_weights in itertools.product(*[("sum", "mean")] * 4, weights):
        yield Loss(likelihood, *how, *some_weights, **SIZES)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_every_loss_has_the_gradient_of_its_translation(likelihood):
    for loss in every_loss(likelihood):
        tensors = output, x, mu, log_var = inputs(loss)
        terms = {"recon": recon_of(loss, output, x), "kl": losses.kl_standard_normal(mu, log_var)}
        expected = losses.objective(terms, translate.effective_beta(loss)).mean()
        found = gradients(as_written(loss, *tensors), *tensors)
        for a, b in zip(found, gradients(scale_of(loss) * expected, *tensors)):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=0, msg=str(loss))


@pytest.mark.parametrize("likelihood", GAUSSIANS)
def test_the_noise_variance_with_beta_1_gives_the_same_direction(likelihood):
    for loss in every_loss(likelihood):
        tensors = output, x, mu, log_var = inputs(loss)
        variance = translate.noise_variance_at_beta_1(loss)
        elbo = gaussian_nll(output, x, variance) + losses.kl_standard_normal(mu, log_var)
        # The KL's own factor is what is left: now its beta is 1.
        factor = scale_of(loss) * translate.effective_beta(loss)
        found = gradients(as_written(loss, *tensors), *tensors)
        for a, b in zip(found, gradients(factor * elbo.mean(), *tensors)):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=0, msg=str(loss))


# --- against hand-written code and hand-computed numbers ------------------------------------------


def bce(output, x, reduction):
    return F.binary_cross_entropy_with_logits(output, x, reduction=reduction)


# By the commit: the file's loss, its beta, its noise variance.
BY_HAND = {
    "77f55b9": (lambda o, x, m, v: bce(o, x, "sum") + kl(m, v).sum(), 1, None),
    "ab7cb38": (lambda o, x, m, v: bce(o, x, "mean") + kl(m, v).sum() / (128 * 784), 1, None),
    "f6bcaff": (lambda o, x, m, v: bce(o, x, "mean") + kl(m, v).sum(1).mean(), 784, None),
    # 1 / 2 latents
    "309f586": (lambda o, x, m, v: 784 * bce(o, x, "mean") + kl(m, v).mean(), 0.5, None),
    # 32 latents · 32 images
    "14ce227": (lambda o, x, m, v: bce(o, x, "sum") + kl(m, v).mean(), 1 / 1024, None),
    # 784 / 32, and half of it
    "3422977": (lambda o, x, m, v: F.mse_loss(o, x) + kl(m, v).mean(), 24.5, 12.25),
    # 0.00025 · 12288, and half of it
    "a6896b9": (
        lambda o, x, m, v: F.mse_loss(o, x) + 0.00025 * kl(m, v).sum(1).mean(),
        3.072,
        1.536,
    ),
    # 0.1 · 3072 / 256, and half of it
    "34958a8": (lambda o, x, m, v: F.mse_loss(o, x) + 0.1 * kl(m, v).mean(), 1.2, 0.6),
}


def commit(name):
    return re.search(r"\((\w{7})\)", name)[1]


def test_public_settings_are_the_code_of_their_names_and_have_their_betas():
    assert [*map(commit, PUBLIC_SETTINGS)] == [*BY_HAND]
    for name, loss in PUBLIC_SETTINGS.items():
        code, beta, variance = BY_HAND[commit(name)]
        tensors = inputs(loss)
        torch.testing.assert_close(as_written(loss, *tensors), code(*tensors), msg=name)
        assert translate.effective_beta(loss) == pytest.approx(beta), name
        assert translate.noise_variance_at_beta_1(loss) == pytest.approx(variance), name


def test_a_mean_over_784_pixels_is_784_to_the_last_digit():
    assert repr(translate.effective_beta(Loss("squared error", pixels="mean"))) == "784.0"


@pytest.mark.parametrize(
    "loss, beta, variance",
    [
        (Loss(), 1, None),  # the defaults are what the course minimises
        (Loss("absolute error"), 1, None),
        (Loss("half squared error"), 1, 1),
        (Loss("squared error", recon_weight=0.5), 2, 1),  # 1 / 2w
        (Loss("squared error", recon_weight=3), 1 / 3, 1 / 6),
        (Loss("squared error", kl_weight=0.0, pixels="mean"), 0, 0),
    ],
)
def test_worked_examples_of_beta_and_noise_variance(loss, beta, variance):
    assert translate.effective_beta(loss) == pytest.approx(beta)
    assert translate.noise_variance_at_beta_1(loss) == pytest.approx(variance)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"likelihood": "mse"}, "unknown likelihood 'mse': choose one of bernoulli, squared err"),
        ({"pixels": "average"}, "unknown pixels 'average': choose one of sum, mean"),
        ({"latents": "none"}, "unknown latents 'none': choose one of sum, mean"),
        ({"recon_batch": None}, "unknown recon_batch None: choose one of sum, mean"),
        ({"kl_batch": "batchmean"}, "unknown kl_batch 'batchmean': choose one of sum, mean"),
        ({"n_pixels": 0}, "n_pixels must be a whole number of at least 1, got 0"),
        ({"latent_size": -1}, "latent_size must be a whole number of at least 1, got -1"),
        ({"batch_size": 12.5}, "batch_size must be a whole number of at least 1, got 12.5"),
        ({"recon_weight": 0}, "recon_weight must be a number over 0 and finite, got 0"),
        ({"kl_weight": -1.0}, "kl_weight must be 0 or more .* with a minus sign"),
        ({"kl_weight": math.inf}, "kl_weight must be 0 or more and finite, got inf"),
    ],
    ids=str,
)
def test_a_loss_that_makes_no_sense_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        Loss(**bad)
