"""translate: each translation against autograd, hand-computed betas, and what is refused."""

import dataclasses
import itertools
import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal

from vae_lesson import losses
from vae_lesson.clinic import translate
from vae_lesson.clinic.translate import PUBLIC_SETTINGS, RECON, Loss

# Three different primes: a factor that is mixed up with another shows.
SIZES = {"n_pixels": 7, "latent_size": 3, "batch_size": 5}
GAUSSIANS = ["squared error", "half squared error"]


def inputs(loss, seed=0):
    """Return (output, x, mu, log_var) of the sizes of a loss; x is grey, the others need grad."""
    generator = torch.Generator().manual_seed(seed)
    b, n, k = loss.batch_size, loss.n_pixels, loss.latent_size
    output, x, mu, log_var = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in [(b, n), (b, n), (b, k), (b, k)]
    )
    return output.requires_grad_(), x.sigmoid(), mu.requires_grad_(), log_var.requires_grad_()


def gradients(value, output, x, mu, log_var):
    return torch.autograd.grad(value, (output, mu, log_var))


def gaussian_nll(output, x, variance):
    return -Normal(output, math.sqrt(variance)).log_prob(x).sum(dim=1)


def scale_of(loss):
    """Return what a batch mean of recon is multiplied by."""
    of_pixels = 1 / loss.n_pixels if loss.pixels == "mean" else 1
    of_batch = loss.batch_size if loss.recon_batch == "sum" else 1
    return loss.recon_weight * of_pixels * of_batch


def recon_of(loss, output, x):
    """Return -log p(x|z) `(B,)` by the course's losses, which translate does not use."""
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


# --- against autograd -----------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", RECON)
def test_every_loss_has_the_gradient_of_its_translation(likelihood):
    for loss in every_loss(likelihood):
        tensors = output, x, mu, log_var = inputs(loss)
        value = loss(*tensors)
        kl = losses.kl_standard_normal(mu, log_var)
        beta = translate.effective_beta(loss)
        expected = scale_of(loss) * losses.neg_elbo(recon_of(loss, output, x), kl, beta).mean()
        for found, wanted in zip(gradients(value, *tensors), gradients(expected, *tensors)):
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=0, msg=str(loss))
        if likelihood != "half squared error":  # which has a constant less
            torch.testing.assert_close(value, expected, msg=str(loss))


@pytest.mark.parametrize("likelihood", GAUSSIANS)
def test_the_noise_variance_with_beta_1_gives_the_same_direction(likelihood):
    for loss in every_loss(likelihood):
        tensors = output, x, mu, log_var = inputs(loss)
        found = gradients(loss(*tensors), *tensors)
        variance = translate.noise_variance_at_beta_1(loss)
        elbo_form = gaussian_nll(output, x, variance) + losses.kl_standard_normal(mu, log_var)
        # The KL's own factor is what is left: now its beta is 1.
        factor = scale_of(loss) * translate.effective_beta(loss)
        wanted = gradients(factor * elbo_form.mean(), *tensors)
        for a, b in zip(found, wanted):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=0, msg=str(loss))


def direction(loss):
    tensors = inputs(loss)
    gradient = torch.cat([g.flatten() for g in gradients(loss(*tensors), *tensors)])
    return gradient / gradient.norm()


def test_losses_that_look_different_and_have_one_beta_go_one_way_and_others_do_not():
    same = [
        Loss(kl_weight=39.2),
        Loss(recon_batch="sum", kl_batch="sum", kl_weight=39.2),
        Loss(pixels="mean", latents="mean"),
        Loss(recon_weight=1 / 39.2),
    ]
    for loss in same:
        assert translate.effective_beta(loss) == pytest.approx(39.2)
        torch.testing.assert_close(direction(loss), direction(same[0]))
    other = direction(Loss(pixels="mean"))
    assert torch.dot(other, direction(same[0])) < 0.9999


def test_the_defaults_are_what_the_course_minimises():
    loss = Loss()
    tensors = output, x, mu, log_var = inputs(loss)
    expected = losses.neg_elbo(
        losses.bernoulli_nll(output, x), losses.kl_standard_normal(mu, log_var)
    ).mean()
    torch.testing.assert_close(loss(*tensors), expected)
    assert translate.effective_beta(loss) == 1


def test_images_may_be_square_and_in_colour():
    loss = Loss("squared error", pixels="mean", n_pixels=48, latent_size=3, batch_size=5)
    output, x, mu, log_var = inputs(loss)
    square = (output.view(5, 3, 4, 4), x.view(5, 3, 4, 4), mu, log_var)
    torch.testing.assert_close(loss(*square), loss(output, x, mu, log_var))


# --- against hand-written code and hand-computed numbers ------------------------------------------


def bce(output, x, reduction):
    return F.binary_cross_entropy_with_logits(output, x, reduction=reduction)


def minus_2_kl(mu, log_var):
    return 1 + log_var - mu.pow(2) - log_var.exp()


def kl_mean(mu, log_var):
    return -0.5 * torch.mean(minus_2_kl(mu, log_var))


def kl_sum(mu, log_var):
    return -0.5 * torch.sum(minus_2_kl(mu, log_var))


def kl_of_an_image(mu, log_var):
    return torch.mean(-0.5 * torch.sum(minus_2_kl(mu, log_var), dim=1), dim=0)


# By the commit: the file's loss, its beta, its noise variance.
BY_HAND = {
    "77f55b9": (lambda o, x, m, v: bce(o, x, "sum") + kl_sum(m, v), *(1, None)),
    "ab7cb38": (lambda o, x, m, v: bce(o, x, "mean") + kl_sum(m, v) / (128 * 784), *(1, None)),
    "f6bcaff": (lambda o, x, m, v: bce(o, x, "mean") + kl_of_an_image(m, v), *(784, None)),
    "309f586": (
        lambda o, x, m, v: 784 * bce(o, x, "mean") + kl_mean(m, v),
        *(0.5, None),  # 1 / 2 latents
    ),
    "14ce227": (
        lambda o, x, m, v: bce(o, x, "sum") + kl_mean(m, v),
        *(1 / 1024, None),  # 32 latents · 32 images
    ),
    "3422977": (
        lambda o, x, m, v: F.mse_loss(o, x) + kl_mean(m, v),
        *(24.5, 12.25),  # 784 / 32, and half of it
    ),
    "a6896b9": (
        lambda o, x, m, v: F.mse_loss(o, x) + 0.00025 * kl_of_an_image(m, v),
        *(3.072, 1.536),  # 0.00025 · 12288, and half of it
    ),
    "34958a8": (
        lambda o, x, m, v: F.mse_loss(o, x) + 0.1 * kl_mean(m, v),
        *(1.2, 0.6),  # 0.1 · 3072 / 256, and half of it
    ),
}


def commit(name):
    return re.search(r"\((\w{7})\)", name)[1]


@pytest.mark.parametrize("name", PUBLIC_SETTINGS)
def test_public_settings_are_the_code_of_their_names_and_have_their_betas(name):
    loss = PUBLIC_SETTINGS[name]
    code, beta, variance = BY_HAND[commit(name)]
    tensors = inputs(loss)
    torch.testing.assert_close(loss(*tensors), code(*tensors))
    assert translate.effective_beta(loss) == pytest.approx(beta)
    assert translate.noise_variance_at_beta_1(loss) == pytest.approx(variance)


def test_a_mean_over_784_pixels_is_784_to_the_last_digit():
    assert repr(translate.effective_beta(Loss("squared error", pixels="mean"))) == "784.0"


def test_every_public_setting_is_checked_by_hand():
    assert [*map(commit, PUBLIC_SETTINGS)] == [*BY_HAND]


def test_beta_is_by_the_likelihood_as_written_and_the_noise_variance_is_not():
    forms = [
        (Loss("half squared error"), 1),
        (Loss("squared error", recon_weight=0.5), 2),
        (Loss("half squared error", recon_weight=4, kl_weight=4), 1),  # of variance 1/4, beta 4
    ]
    for loss, beta in forms:
        assert translate.effective_beta(loss) == pytest.approx(beta)
        assert translate.noise_variance_at_beta_1(loss) == pytest.approx(1)


@pytest.mark.parametrize("w", [0.01, 0.5, 3.0])
def test_a_weight_w_on_the_squared_error_is_a_variance_of_1_over_2w(w):
    loss = Loss("squared error", recon_weight=w)
    assert translate.noise_variance_at_beta_1(loss) == pytest.approx(1 / (2 * w))


@pytest.mark.parametrize("likelihood", ["bernoulli", "absolute error"])
def test_other_likelihoods_have_no_noise_variance(likelihood):
    assert translate.noise_variance_at_beta_1(Loss(likelihood)) is None


def test_a_kl_without_weight_is_beta_0():
    loss = Loss("squared error", kl_weight=0.0, pixels="mean")
    assert translate.effective_beta(loss) == 0
    assert translate.noise_variance_at_beta_1(loss) == 0


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
        ({"batch_size": True}, "batch_size must be a whole number of at least 1, got True"),
        ({"recon_weight": 0}, "recon_weight must be a number over 0 and finite, got 0"),
        ({"recon_weight": math.nan}, "recon_weight must be a number over 0 and finite, got nan"),
        ({"kl_weight": -1.0}, "kl_weight must be 0 or more .* with a minus sign"),
        ({"kl_weight": math.inf}, "kl_weight must be 0 or more and finite, got inf"),
    ],
    ids=str,
)
def test_a_loss_that_makes_no_sense_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        Loss(**bad)


def test_a_loss_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Loss().kl_weight = 2.0


@pytest.mark.parametrize(
    "position, name, shape",
    [(0, "output", (4, 7)), (1, "x", (5, 1)), (2, "mu", (5,)), (3, "log_var", (5, 4))],
)
def test_tensors_of_other_sizes_are_refused(position, name, shape):
    loss = Loss(**SIZES)
    tensors = list(inputs(loss))
    tensors[position] = torch.zeros(shape, dtype=torch.float64)
    with pytest.raises(ValueError, match=f"this loss is for {name} ") as error:
        loss(*tensors)
    assert f"got {shape}" in str(error.value)
