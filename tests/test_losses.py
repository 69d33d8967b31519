"""losses: closed forms, units, gradients, and what is refused."""

import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from vae_lesson import losses


def draws(*shapes, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def grey(x):
    return torch.sigmoid(x)


# --- against closed forms -------------------------------------------------------------------------


def test_kl_is_that_of_torch_distributions():
    mu, log_var = draws((5, 4), (5, 4))
    expected = kl_divergence(Normal(mu, torch.exp(0.5 * log_var)), Normal(0.0, 1.0))
    torch.testing.assert_close(losses.kl_per_dimension(mu, log_var), expected)
    torch.testing.assert_close(losses.kl_standard_normal(mu, log_var), expected.sum(dim=1))


def test_kl_is_zero_at_the_prior_only():
    zeros = torch.zeros(2, 3)
    assert torch.equal(losses.kl_standard_normal(zeros, zeros), torch.zeros(2))
    # One dimension off by one: ½ mu² and ½ (e - 2).
    moved = torch.tensor([[1.0, 0.0, 0.0]])
    assert losses.kl_standard_normal(moved, zeros[:1]).item() == pytest.approx(0.5)
    assert losses.kl_standard_normal(zeros[:1], moved).item() == pytest.approx((math.e - 2) / 2)


def test_kl_is_the_mean_of_many_samples():
    mu, log_var = draws((3, 4), (3, 4))
    (eps,) = draws((20_000, 3, 4), seed=1)
    sigma = torch.exp(0.5 * log_var)
    z = mu + sigma * eps
    samples = (Normal(mu, sigma).log_prob(z) - Normal(0.0, 1.0).log_prob(z)).sum(dim=2)
    standard_error = samples.std(dim=0) / math.sqrt(len(samples))
    off = (samples.mean(dim=0) - losses.kl_standard_normal(mu, log_var)).abs()
    assert (off < 4 * standard_error).all()
    # The comparison above can fail: a missing ½ would be many standard errors away.
    assert (losses.kl_standard_normal(mu, log_var) > 20 * standard_error).all()


def test_bernoulli_nll_is_that_of_torch_distributions():
    x_logits, x = draws((4, 9), (4, 9))
    x = (x > 0).double()
    expected = -Bernoulli(logits=x_logits).log_prob(x).sum(dim=1)
    torch.testing.assert_close(losses.bernoulli_nll(x_logits, x), expected)


def test_bernoulli_nll_of_grey_pixels_is_least_at_their_own_entropy():
    (x,) = draws((4, 9))
    x = grey(x)
    entropy = -(x * x.log() + (1 - x) * (1 - x).log()).sum(dim=1)
    at_best = losses.bernoulli_nll(torch.logit(x), x)
    torch.testing.assert_close(at_best, entropy)
    assert (losses.bernoulli_nll(torch.logit(x) + 0.1, x) > at_best).all()


def test_squared_error_is_a_gaussians_nll_at_variance_a_half_less_a_constant():
    x_hat, x = draws((4, 9), (4, 9))
    expected = ((x - x_hat) ** 2).sum(dim=1)
    torch.testing.assert_close(losses.squared_error(x_hat, x), expected)
    nll = -Normal(x_hat, math.sqrt(0.5)).log_prob(x).sum(dim=1)
    torch.testing.assert_close(nll - 9 / 2 * math.log(math.pi), expected)


def test_neg_elbo_weighs_the_kl_by_beta():
    recon, kl = torch.tensor([3.0, 5.0]), torch.tensor([1.0, 2.0])
    assert losses.neg_elbo(recon, kl).tolist() == [4.0, 7.0]
    assert losses.neg_elbo(recon, kl, beta=4).tolist() == [7.0, 13.0]
    assert losses.neg_elbo(recon, kl, beta=0.0).tolist() == [3.0, 5.0]


# --- units and reduction --------------------------------------------------------------------------

RECONS = [losses.bernoulli_nll, losses.squared_error]


def name(f):
    return f.__name__


@pytest.mark.parametrize("recon", RECONS, ids=name)
def test_recon_sums_over_pixels_of_images_of_any_shape(recon):
    x_hat, x = draws((3, 5, 5), (3, 5, 5))
    x = grey(x)
    values = recon(x_hat, x)
    assert values.shape == (3,)
    torch.testing.assert_close(values, recon(x_hat.flatten(1), x.flatten(1)))
    # An image beside itself has twice the pixels and twice the nats: a mean would stay the same.
    torch.testing.assert_close(recon(torch.cat([x_hat] * 2, 1), torch.cat([x] * 2, 1)), 2 * values)


def test_kl_sums_over_latent_dimensions():
    mu, log_var = draws((3, 4), (3, 4))
    values = losses.kl_standard_normal(mu, log_var)
    assert values.shape == (3,)
    twice = losses.kl_standard_normal(torch.cat([mu, mu], 1), torch.cat([log_var, log_var], 1))
    torch.testing.assert_close(twice, 2 * values)


@pytest.mark.parametrize("loss", [*RECONS, losses.kl_standard_normal, losses.neg_elbo], ids=name)
def test_a_value_does_not_depend_on_the_rest_of_the_batch(loss):
    shape = (6,) if loss is losses.neg_elbo else (6, 5)
    a, b = draws(shape, shape)
    b = grey(b)
    alone = torch.cat([loss(a[i : i + 1], b[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(loss(a, b), alone)


# --- gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [*RECONS, losses.kl_per_dimension], ids=name)
def test_gradients_are_those_of_finite_differences(loss):
    a, b = draws((3, 4), (3, 4))
    a.requires_grad_()
    b = grey(b).requires_grad_()
    assert torch.autograd.gradcheck(loss, (a, b))


# --- safety ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("x, expected", [(0.0, [1000.0, 0.0]), (1.0, [0.0, 1000.0])])
def test_bernoulli_nll_is_exact_at_large_logits(x, expected):
    x_logits = torch.tensor([[1000.0], [-1000.0]], requires_grad=True)
    nll = losses.bernoulli_nll(x_logits, torch.full((2, 1), x))
    assert nll.tolist() == expected
    nll.sum().backward()
    assert x_logits.grad.flatten().tolist() == [1 - x, -x]  # sigmoid(logit) - x


def test_kl_is_finite_for_a_tiny_variance():
    kl = losses.kl_standard_normal(torch.zeros(1, 1), torch.full((1, 1), -1000.0))
    assert kl.item() == pytest.approx(0.5 * 999)


@pytest.mark.parametrize(
    "loss, shape, other",
    [
        # (4, 1) would broadcast against (4, 9) to a plausible number.
        (losses.bernoulli_nll, (4, 1), (4, 9)),
        (losses.bernoulli_nll, (4, 784), (4, 28, 28)),
        (losses.squared_error, (1, 9), (4, 9)),
        (losses.kl_per_dimension, (4, 2), (4, 3)),
        (losses.kl_standard_normal, (1, 2), (4, 2)),
        (losses.neg_elbo, (), (4,)),
    ],
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_a_mismatch_names_both_shapes(loss, shape, other):
    with pytest.raises(ValueError, match="same shape") as error:
        loss(torch.zeros(shape), torch.zeros(other))
    assert f"got {shape} and {other}" in str(error.value)
