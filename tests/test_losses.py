"""losses: closed forms, units, the objective, what each model is trained on, what is refused."""

import functools
import math

import pytest
import torch
from draws import normal, seeded, uniform
from tiny import new
from torch import nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from vae_lesson import losses
from vae_lesson.models import Autoencoder

# --- against closed forms -------------------------------------------------------------------------


def test_kl_is_that_of_torch_distributions():
    mu, log_var = normal(5, 4), normal(5, 4, seed=1)
    expected = kl_divergence(Normal(mu, torch.exp(0.5 * log_var)), Normal(0.0, 1.0))
    torch.testing.assert_close(losses.kl_per_dimension(mu, log_var), expected)
    torch.testing.assert_close(losses.kl_standard_normal(mu, log_var), expected.sum(dim=1))


def test_kl_is_exact_for_a_tiny_variance_and_never_negative_near_the_prior():
    log_var = torch.tensor([[-1000.0], [0.0], *torch.linspace(-1e-3, 1e-3, 1000)[:, None]])
    kl = losses.kl_standard_normal(torch.zeros_like(log_var), log_var)
    assert kl[:2].tolist() == [0.5 * 999, 0.0]
    assert (kl >= 0).all()


def test_bernoulli_nll_is_that_of_torch_distributions():
    x_logits, x = normal(4, 9), (normal(4, 9, seed=1) > 0).float()
    expected = -Bernoulli(logits=x_logits).log_prob(x).sum(dim=1)
    torch.testing.assert_close(losses.bernoulli_nll(x_logits, x), expected)


def test_bernoulli_nll_of_grey_pixels_is_least_at_their_own_entropy():
    x = uniform(4, 9)
    entropy = -(x * x.log() + (1 - x) * (1 - x).log()).sum(dim=1)
    at_best = losses.bernoulli_nll(torch.logit(x), x)
    torch.testing.assert_close(at_best, entropy)
    assert (losses.bernoulli_nll(torch.logit(x) + 0.1, x) > at_best).all()


@pytest.mark.parametrize("x, expected", [(0.0, [1000.0, 0.0]), (1.0, [0.0, 1000.0])])
def test_bernoulli_nll_is_exact_at_large_logits(x, expected):
    x_logits = torch.tensor([[1000.0], [-1000.0]], requires_grad=True)
    nll = losses.bernoulli_nll(x_logits, torch.full((2, 1), x))
    assert nll.tolist() == expected
    nll.sum().backward()
    assert x_logits.grad.flatten().tolist() == [1 - x, -x]  # sigmoid(logit) - x


def test_squared_error_is_a_gaussians_nll_at_variance_a_half_less_a_constant():
    x_hat, x = normal(4, 9), normal(4, 9, seed=1)
    nll = -Normal(x_hat, math.sqrt(0.5)).log_prob(x).sum(dim=1)
    torch.testing.assert_close(losses.squared_error(x_hat, x), nll - 9 / 2 * math.log(math.pi))


@pytest.mark.parametrize("recon", [losses.bernoulli_nll, losses.squared_error])
def test_recon_sums_over_pixels_of_images_of_any_shape(recon):
    x_hat, x = normal(3, 5, 5), uniform(3, 5, 5)
    torch.testing.assert_close(recon(x_hat, x), recon(x_hat.flatten(1), x.flatten(1)))


def test_free_bits_counts_a_dimension_under_the_limit_as_the_limit():
    kl_j = torch.tensor([[0.1, 2.0, 0.0], [0.7, 4.0, 0.0]], requires_grad=True)
    kl = losses.free_bits(kl_j, 0.5)
    torch.testing.assert_close(kl, torch.tensor([0.5 + 3.0 + 0.5] * 2))
    kl.mean().backward()  # only the dimension over the limit is pushed
    assert kl_j.grad.tolist() == [[0, 0.5, 0], [0, 0.5, 0]]


# --- what is minimised ----------------------------------------------------------------------------

RECON, KL = torch.tensor([3.0, 5.0]), torch.tensor([1.0, 2.0])


@pytest.mark.parametrize(
    "terms, beta, expected",
    [
        ({"recon": RECON, "kl": KL}, 1.0, [4.0, 7.0]),
        ({"recon": RECON, "kl": KL}, 4, [7.0, 13.0]),
        ({"kl": KL, "recon": RECON}, torch.tensor(0.0), [3.0, 5.0]),
        ({"recon": RECON, "commitment": KL}, 4, [4.0, 7.0]),  # beta is the kl's alone
        ({"squared error": RECON}, 4, [3.0, 5.0]),
        ({"recon": RECON, "kl": KL, "classifier": RECON}, 2.0, [8.0, 14.0]),
    ],
)
def test_the_objective_is_the_sum_of_any_terms_and_beta_weighs_the_kl(terms, beta, expected):
    assert losses.objective(terms, beta).tolist() == expected


def test_the_elbo_has_two_terms_of_one_draw_and_any_likelihood():
    model, x = new(), uniform(5, 16)
    mu, log_var = model.encode(x)
    z = mu + torch.exp(0.5 * log_var) * normal(5, 2, seed=7)
    kl = kl_divergence(Normal(mu, torch.exp(0.5 * log_var)), Normal(0.0, 1.0)).sum(dim=1)
    recons = {losses.bernoulli_nll: losses.elbo_terms}
    recons[losses.squared_error] = functools.partial(losses.elbo_terms, nll=losses.squared_error)
    for nll, terms in recons.items():
        found = terms(model, x, generator=seeded(7))
        assert list(found) == ["recon", "kl"]
        torch.testing.assert_close(found["recon"], nll(model.decode(z), x))
        torch.testing.assert_close(found["kl"], kl)


def test_each_kind_of_model_has_its_terms():
    assert losses.default_terms(new()) is losses.elbo_terms
    autoencoder, x = new(Autoencoder), uniform(3, 16)
    terms = losses.default_terms(autoencoder)(autoencoder, x)
    assert list(terms) == ["squared error"]
    expected = (autoencoder(x)[0] - x).square().sum(dim=1)
    torch.testing.assert_close(terms["squared error"], expected)
    with pytest.raises(ValueError, match="what a Linear is trained on is not known here: give"):
        losses.default_terms(nn.Linear(2, 2))


# --- what is refused ------------------------------------------------------------------------------


def objective(recon, kl):
    return losses.objective({"recon": recon, "kl": kl})


@pytest.mark.parametrize(
    "loss, shape, other",
    [
        # (4, 1) would broadcast against (4, 9) to a plausible number.
        (losses.bernoulli_nll, (4, 1), (4, 9)),
        (losses.bernoulli_nll, (4, 784), (4, 28, 28)),
        (losses.squared_error, (1, 9), (4, 9)),
        (losses.kl_per_dimension, (4, 2), (4, 3)),
        (losses.kl_standard_normal, (1, 2), (4, 2)),
        (objective, (), (4,)),
        (objective, (4, 9), (4,)),
    ],
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_a_mismatch_names_both_shapes(loss, shape, other):
    with pytest.raises(ValueError, match="same shape") as error:
        loss(torch.zeros(shape), torch.zeros(other))
    assert f"got {shape} and {other}" in str(error.value)
