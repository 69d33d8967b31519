"""linear: each closed form against another derivation or torch.distributions."""

import functools
import math

import draws
import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA
from torch.distributions import MultivariateNormal, kl_divergence

from vae_lesson import evaluate, losses, train
from vae_lesson.data import to_float
from vae_lesson.likelihood import linear
from vae_lesson.likelihood.linear import LinearGaussian, LinearVAE

normal = functools.partial(draws.normal, dtype=torch.float64)


def some_model(n_pixels=7, latent_size=3, variance=0.3):
    return LinearGaussian(normal(n_pixels, latent_size, seed=1), normal(n_pixels, seed=2), variance)


def some_q(n=5, latent_size=3):
    return normal(n, latent_size, seed=3), normal(n, latent_size, seed=4)


def dense(model):
    """Return p(x) as a Gaussian with a full covariance matrix."""
    covariance = model.W @ model.W.T + model.variance * torch.eye(len(model.W)).double()
    return MultivariateNormal(model.mean, covariance)


# --- a model that is given ------------------------------------------------------------------------

models = pytest.mark.parametrize(
    "latent_size, variance",
    [(1, 0.3), (3, 1e-4), (3, 10.0), (9, 0.01)],  # 9 is more than the pixels
)


@models
def test_log_marginal_is_that_of_the_dense_gaussian(latent_size, variance):
    model, x = some_model(7, latent_size, variance), normal(5, 7)
    torch.testing.assert_close(
        model.log_marginal(x), dense(model).log_prob(x), rtol=1e-9, atol=1e-6
    )


@models
def test_the_gap_three_ways(latent_size, variance):
    model, x = some_model(7, latent_size, variance), normal(5, 7)
    mu, log_var = some_q(5, latent_size)
    found = model.gap(x, mu, log_var)
    missing = model.log_marginal(x) - model.elbo(x, mu, log_var)
    torch.testing.assert_close(found, missing, rtol=1e-9, atol=1e-6)
    q = MultivariateNormal(mu, torch.diag_embed(log_var.exp()))
    expected = kl_divergence(q, MultivariateNormal(*model.posterior(x)))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("degrees", [-30, 0, 45])
def test_a_rotation_keeps_the_likelihood_and_costs_the_mean_field_gap(degrees):
    W = torch.linalg.qr(normal(7, 3))[0] * torch.tensor([3.0, 1.0, 0.5])
    model, x = LinearGaussian(W, normal(7, seed=2), 0.3), normal(5, 7)
    turned = model.rotated(degrees)
    torch.testing.assert_close(turned.W @ turned.W.T, W @ W.T)
    # By hand, from the two precisions a and b that are turned into each other: the same for all x.
    a, b = 1 + 9 / 0.3, 1 + 1 / 0.3
    c, s = math.cos(math.radians(degrees)) ** 2, math.sin(math.radians(degrees)) ** 2
    expected = 0.5 * math.log((a * c + b * s) * (a * s + b * c) / (a * b))
    assert turned.gap(x, *turned.mean_field(x)).tolist() == pytest.approx([expected] * 5, abs=1e-9)


# --- the best model of data -----------------------------------------------------------------------


def test_ppca_is_scikit_learns_but_for_its_n_minus_1():
    x = normal(50, 6) @ normal(6, 6, seed=1) + 3
    best, eigenvalues = linear.ppca(x, 2), linear.principal_axes(x)[1]
    theirs = PCA(2, svd_solver="full").fit(x.numpy())
    assert (eigenvalues[:2] * 50 / 49).tolist() == pytest.approx(theirs.explained_variance_)
    as_there = LinearGaussian(best.W * math.sqrt(50 / 49), best.mean, best.variance * 50 / 49)
    expected = theirs.score(x.numpy())  # their mean log p(x)
    assert as_there.log_marginal(x).mean().item() == pytest.approx(expected, rel=1e-9)
    assert best.log_marginal(x).mean() > expected


def test_columns_that_turn_within_their_plane_leave_the_axes():
    W = torch.linalg.qr(normal(7, 4))[0]
    model = LinearGaussian(W[:, :3] * torch.tensor([2.0, -2.0, 1.0]), normal(7, seed=2), 0.3)
    assert linear.axis_angles(model.W, W).tolist() == pytest.approx([0, 0, 0], abs=1e-9)
    turned = model.rotated(20).W
    assert linear.axis_angles(turned, W).tolist() == pytest.approx([20, 20, 0], abs=1e-9)
    assert np.rad2deg(subspace_angles(turned, model.W).max()) < 1e-4
    out = linear.axis_angles(model.W, W[:, 1:2])  # off the plane: one axis only
    assert out.tolist() == pytest.approx([90, 0, 90], abs=1e-9)


# --- the model that is trained --------------------------------------------------------------------


def new_vae():
    torch.manual_seed(0)
    model = LinearVAE(2, 7)
    torch.nn.init.constant_(model.noise_log_var, -1.2)
    return model


def test_exact_terms_are_those_of_the_closed_form():
    model, x = new_vae(), draws.normal(4, 7)
    terms, q = linear.exact_terms(model, x), model.encode(x)
    torch.testing.assert_close(terms["kl"], losses.kl_standard_normal(*q))
    expected = linear.decoder_of(model).elbo(x, *(part.detach() for part in q))
    torch.testing.assert_close(-sum(terms.values()).double(), expected, rtol=1e-5, atol=1e-5)


def test_the_linear_vae_decodes_to_the_mean_of_x():
    model, z = new_vae(), draws.normal(4, 2)
    there = linear.decoder_of(model)
    assert not there.W.requires_grad
    torch.testing.assert_close(model.decode_mean(z).double(), z.double() @ there.W.T + there.mean)
    assert there.variance.item() == pytest.approx(math.exp(-1.2))


def test_a_model_made_of_a_decoder_has_it_and_its_best_diagonal_encoder():
    x = draws.uniform(40, 6)
    turned = linear.ppca(x, 2).rotated(30)
    model = turned.as_model()
    there = linear.decoder_of(model)
    for name in ("W", "mean", "variance"):
        torch.testing.assert_close(getattr(there, name), getattr(turned, name), rtol=1e-5, atol=0)
    for mine, wanted in zip(model.encode(x), turned.mean_field(x)):
        torch.testing.assert_close(mine.double(), wanted, rtol=1e-5, atol=1e-5)


def test_training_finds_what_the_closed_form_says():
    # Three strong directions and noise.
    x = normal(1500, 3) * torch.tensor([80.0, 55.0, 40.0]) @ torch.linalg.qr(normal(12, 3))[0].T
    images = (128 + x + 12 * normal(1500, 12, seed=1)).round().clamp(0, 255).byte()
    x = to_float(images)
    best = linear.ppca(x, 3)
    torch.manual_seed(0)
    model = LinearVAE(3, 12)
    how = {"epochs": 100, "batch_size": 100, "lr": (2.5e-2, 0.1), "schedule": "linear"}
    how |= {"device": "cpu", "progress": False}
    train.fit(model, images, terms=linear.exact_terms, **how)
    found = linear.decoder_of(model)
    neg_elbo = evaluate.mean_terms(model, images, terms=linear.exact_terms).neg_elbo
    exact = -best.log_marginal(x).mean().item()
    assert exact < neg_elbo < exact + 0.1
    assert np.rad2deg(subspace_angles(found.W, best.W).max()) < 2
    torch.testing.assert_close(found.variance, best.variance, rtol=0.04, atol=0)


# --- what is refused ------------------------------------------------------------------------------


def test_a_model_that_misfits_itself_is_named():
    W, mean = normal(7, 3), normal(7)
    with pytest.raises(ValueError, match=r"mean and a_column_of_W .* got \(1,\) and \(7,\)"):
        LinearGaussian(W, mean[:1], 0.3)  # would broadcast
    for wrong in (0, -1.0, math.nan, torch.tensor(0.0)):
        with pytest.raises(ValueError, match="variance must be a number over 0"):
            LinearGaussian(W, mean, wrong)


@pytest.mark.parametrize("name", ["log_marginal", "mean_field", "elbo", "gap"])
def test_an_x_that_misfits_is_named(name):
    q = some_q() if name in ("elbo", "gap") else ()
    function, x = getattr(some_model(), name), normal(5, 7)
    for wrong in (x[:, 1:], x[:, :1]):  # the second would broadcast
        with pytest.raises(ValueError, match="shape"):
            function(wrong, *q)
    with pytest.raises(ValueError, match=r"floats, got torch\.uint8: use data\.to_float"):
        function(x.byte(), *q)


@pytest.mark.parametrize("name", ["elbo", "gap"])
def test_a_q_of_another_shape_is_named(name):
    function, x, (mu, log_var) = getattr(some_model(), name), normal(5, 7), some_q()
    for wrong in [(mu, log_var[0]), (mu, log_var[:1]), (mu[:1], log_var[:1])]:  # would broadcast
        with pytest.raises(ValueError, match="must have the same shape, got"):
            function(x, *wrong)


def test_what_cannot_be_fitted_is_refused():
    x = normal(50, 6)
    for wrong in (0, 6, 2.0):
        with pytest.raises(ValueError, match="latent_size must be a whole number from 1 to 5"):
            linear.ppca(x, wrong)
    for flat in (normal(50, 2) @ normal(2, 6, seed=1), torch.ones(50, 6)):
        with pytest.raises(ValueError, match="latent_size 2 leaves no noise in x"):
            linear.ppca(flat, 2)
