"""importance: sampling against models whose log p(x) is known."""

import functools
import math

import pytest
import torch
from draws import grey_images, normal, seeded, uniform
from scipy.stats import genpareto
from torch.distributions import MultivariateNormal, Normal

from vae_lesson import losses
from vae_lesson.likelihood import importance, pixels
from vae_lesson.likelihood.autoregressive import AutoregressiveVAE
from vae_lesson.likelihood.linear import LinearGaussian
from vae_lesson.models import VAE

VARIANCE = 0.3
gaussian = functools.partial(pixels.gaussian_nll, log_var=math.log(VARIANCE))


@pytest.fixture(scope="module")
def solved():
    """Make a linear VAE with Gaussian noise, images, and their exact log p(x).

    Its encoder is wrong on purpose (untrained): importance sampling has to make up for that.
    """
    torch.manual_seed(0)
    model, images = VAE(2, shape=(1, 1, 6), network="linear").eval(), grey_images(40, 6)
    w, b = model.decoder.weight.detach().double(), model.decoder.bias.detach().double()
    exact = MultivariateNormal(b, w @ w.T + VARIANCE * torch.eye(6, dtype=torch.float64))
    return model, images, exact.log_prob(images.double() / 255)


# --- the formula ----------------------------------------------------------------------------------


def test_log_weights_are_the_three_densities():
    z, mu, log_var, recon = (normal(*shape) for shape in [(5, 3, 2), (3, 2), (3, 2), (5, 3)])
    q = Normal(mu, torch.exp(0.5 * log_var))
    expected = -recon + Normal(0.0, 1.0).log_prob(z).sum(dim=2) - q.log_prob(z).sum(dim=2)
    torch.testing.assert_close(importance.log_weights(recon, z, mu, log_var), expected)


@pytest.mark.parametrize(
    "recon, z, mu, log_var, error",
    [
        ((1, 5), (1, 5, 2), (5, 2), (1, 2), r"mu, log_var and .* got \(5, 2\), \(1, 2\) and"),
        ((4, 5), (4, 5, 1), (5, 2), (5, 2), r"z_of_one_sample .* \(5, 2\) and \(5, 1\)"),
        ((1, 5), (4, 5, 2), (5, 2), (5, 2), r"recon and z_.* got \(1, 5\) and \(4, 5\)"),
    ],
)
def test_weights_of_shapes_that_would_broadcast_are_refused(recon, z, mu, log_var, error):
    with pytest.raises(ValueError, match=error):
        importance.log_weights(*(torch.zeros(shape) for shape in (recon, z, mu, log_var)))


def test_importance_weighted_bound_is_the_log_of_the_mean_weight():
    log_w = normal(6, 4, dtype=torch.float64)
    bound = importance.importance_weighted_bound(log_w)
    torch.testing.assert_close(bound, log_w.exp().mean(dim=0).log())
    # e^-1000 is 0 even in float64.
    torch.testing.assert_close(importance.importance_weighted_bound(log_w - 1000), bound - 1000)


# --- whether to trust it --------------------------------------------------------------------------


def test_as_many_equal_weights_would_do_as_well():
    log_w = torch.tensor([[0.0, 0.0, 3.0], [0.0, -90.0, 3.0], [0.0, -95.0, 2.0]]) - 1000
    e = math.e
    expected = torch.tensor([3.0, 1.0, (2 * e + 1) ** 2 / (2 * e**2 + 1)])
    torch.testing.assert_close(importance.effective_sample_size(log_w), expected)


@pytest.mark.parametrize("k", [-1.0, -0.3, 0.0, 0.3, 0.7, 1.0, 1.5])
def test_pareto_k_is_the_shape_of_a_known_tail(k):
    u = uniform(5000, 60, dtype=torch.float64)
    w = -torch.log(u) if k == 0 else (u**-k - 1) / k  # generalised Pareto, by its quantiles
    found = importance.pareto_k(torch.log(w) - 1000)
    n = 213  # of them in the tail, and ten more of ½ beside them
    assert found.mean().item() == pytest.approx((n * k + 5) / (n + 10), abs=0.04)
    assert found.std() < 0.16


def test_pareto_k_is_near_scipys_maximum_likelihood():
    w = uniform(2000, 5, dtype=torch.float64) ** -0.8
    n = 135
    tails = w.sort(dim=0).values[-n - 1 :]
    theirs = [genpareto.fit(tail[1:] - tail[0], floc=0)[0] for tail in tails.T.numpy()]
    found = (importance.pareto_k(torch.log(w)) * (n + 10) - 5) / n
    assert found.tolist() == pytest.approx(theirs, abs=0.03)


def test_pareto_k_needs_a_tail():
    assert importance.pareto_k(normal(24, 3)).isnan().tolist() == [True] * 3
    assert importance.pareto_k(torch.zeros(100, 2)).isnan().tolist() == [True] * 2
    assert importance.pareto_k(normal(25)).isfinite()  # of no image in particular


@pytest.mark.parametrize("factor, low, high", [(0.5, 0.7, 1.2), (1.0, -0.3, 0.6), (2.0, -1.1, 0.0)])
def test_pareto_k_tells_of_a_cloud_that_is_too_narrow(solved, factor, low, high):
    model, images, _ = solved
    there = LinearGaussian(model.decoder.weight.detach(), model.decoder.bias.detach(), VARIANCE)
    narrow = there.as_model()
    with torch.no_grad():
        narrow.encoder.bias[2:] += 2 * math.log(factor)
    few, many = importance.log_likelihood(narrow, images, (10, 3000), nll=gaussian)
    assert few.pareto_k.isnan().all()
    assert low < many.pareto_k.mean() < high


# --- the best q of each image ---------------------------------------------------------------------


def test_the_best_q_of_each_image_is_the_one_that_theory_knows(solved):
    model, images, exact = solved
    x = images.float() / 255
    there = LinearGaussian(model.decoder.weight.detach(), model.decoder.bias.detach(), VARIANCE)
    there = there.rotated(25)  # so that the posterior is not diagonal
    model = there.as_model()
    torch.nn.init.normal_(model.encoder.weight, std=0.1, generator=seeded())  # now a bad one
    as_it_was = [weight.clone() for weight in model.parameters()]
    best, (_, covariance) = there.mean_field(x), there.posterior(x)
    how = {"n_steps": 300, "lr": 0.05, "n_samples": 32, "nll": gaussian}
    mu, log_var = importance.fit_q(model, x, generator=seeded(1), **how)
    assert not mu.requires_grad and not log_var.requires_grad
    torch.testing.assert_close(mu.double(), best[0], atol=0.05, rtol=0)
    torch.testing.assert_close(log_var.double(), best[1], atol=0.1, rtol=0)
    q = importance.fit_q(model, x, generator=seeded(1), full=True, **how)
    root = torch.diag_embed(torch.exp(0.5 * q[1])) + q[2].tril(-1)
    torch.testing.assert_close((root @ root.mT)[0].double(), covariance, atol=0.02, rtol=0)
    # With the true posterior every draw's weight is p(x), and the ELBO too.
    log_w = importance.log_weights_of(model, x, q, 50, seeded(2), gaussian).double()
    torch.testing.assert_close(log_w, exact.expand(50, -1), atol=0.5, rtol=0)
    torch.testing.assert_close(log_w.mean(dim=0), exact, atol=0.05, rtol=0)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), as_it_was))


def test_log_weights_of_any_covariance_are_the_three_densities():
    torch.manual_seed(0)
    model, x = VAE(3, 8, (1, 4, 4)), grey_images(5, 16) / 255
    q = normal(5, 3), normal(5, 3, seed=1), normal(5, 3, 3, seed=2)
    found = importance.log_weights_of(model, x, q, 4, seeded(3))
    root = torch.diag_embed(torch.exp(0.5 * q[1])) + q[2].tril(-1)
    eps = torch.randn((4, 5, 3), generator=seeded(3))
    z = q[0] + (root @ eps[..., None]).squeeze(-1)
    recon = losses.bernoulli_nll(model.decode(z.flatten(0, 1)), x.repeat(4, 1)).view(4, 5)
    log_q = MultivariateNormal(q[0], scale_tril=root).log_prob(z)
    torch.testing.assert_close(found, Normal(0.0, 1.0).log_prob(z).sum(dim=2) - log_q - recon)


# --- the estimate ---------------------------------------------------------------------------------


def test_the_estimate_rises_with_k_and_reaches_the_exact_value(solved):
    model, images, exact = solved
    k = (1, 10, 100, 5000)
    estimates = importance.log_likelihood(model, images, k, nll=gaussian)
    assert [e.n_samples for e in estimates] == list(k)
    means = [e.mean for e in estimates]
    assert means == sorted(means)
    assert exact.mean() - means[0] > 0.05  # the ELBO of this encoder is well below
    off = estimates[-1].per_image.double() - exact
    assert off.square().mean().sqrt() < 0.05
    assert means[-1] == pytest.approx(exact.mean().item(), abs=5e-3)
    scatter = estimates[-1].per_image.std().item()
    assert estimates[-1].standard_error == pytest.approx(scatter / math.sqrt(40))


def test_draws_from_the_prior_give_the_same_value_with_enough_of_them(solved):
    model, images, exact = solved
    options = {"nll": gaussian, "draws": importance.prior_log_weights}
    one, many = importance.log_likelihood(model, images, (1, 5000), **options)
    assert many.mean == pytest.approx(exact.mean().item(), abs=0.02)
    assert one.mean < many.mean - 0.1


def test_the_weight_of_a_draw_from_the_prior_is_its_likelihood():
    model, x, z = VAE(2, 8, (1, 4, 4)), grey_images(3, 16) / 255, normal(5, 3, 2, seed=1)
    found = importance.prior_log_weights(model, x, 5, seeded(1))
    recon = losses.bernoulli_nll(model.decode(z.flatten(0, 1)), x.repeat(5, 1))
    torch.testing.assert_close(found, -recon.view(5, 3))


def test_the_groups_of_a_smaller_k_are_averaged():
    log_w, two = normal(7, 2), torch.zeros((2, 16), dtype=torch.uint8)
    by_hand = torch.stack([log_w[[0, 2, 4]], log_w[[1, 3, 5]]]).exp().mean(dim=1).log().mean(dim=0)
    one, three, seven = importance.log_likelihood(
        VAE(2, 8, (1, 4, 4)), two, (1, 3, 7), draws=lambda *arguments: log_w
    )
    torch.testing.assert_close(three.per_image, by_hand)
    torch.testing.assert_close(one.per_image, log_w.mean(dim=0))
    torch.testing.assert_close(seven.per_image, importance.importance_weighted_bound(log_w))


def test_the_estimate_has_a_seed_and_leaves_the_global_one(solved):
    model, images, _ = solved
    before = torch.get_rng_state()
    a, b, c = (
        importance.log_likelihood(model, images[:12], (4,), seed, nll=gaussian)[0].mean
        for seed in (0, 0, 1)
    )
    assert a == b != c
    assert torch.equal(before, torch.get_rng_state())


def test_a_decoder_that_sees_the_image_is_asked_for_its_logits():
    torch.manual_seed(0)
    model = AutoregressiveVAE(1, 8, (1, 3, 3), context_size=5).eval()
    torch.nn.init.normal_(model.from_context.weight)
    images = 255 * (grey_images(6, 9) > 127).byte()
    # p(x) by a fine grid over its one latent dimension.
    z = torch.linspace(-6, 6, 2001)[:, None]
    logits = model.decode(z)[:, None] + model.context(images / 255)  # (2001, 6, 9)
    x = (images / 255).expand_as(logits).flatten(0, 1)
    log_p = -losses.bernoulli_nll(logits.flatten(0, 1), x).view(2001, 6)
    prior = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    exact = torch.trapezoid(log_p.exp() * prior, z, dim=0).log()
    (estimate,) = importance.log_likelihood(model, images, (5000,))
    torch.testing.assert_close(estimate.per_image, exact, atol=0.03, rtol=0)


def test_a_likelihood_of_probabilities_has_to_be_asked_for():
    class Probabilities(VAE):
        def decode(self, z):
            return torch.sigmoid(super().decode(z))

    torch.manual_seed(0)
    model, images = Probabilities(2, 8, (1, 4, 4)), grey_images(5, 4, 4)
    with pytest.raises(ValueError, match="as probabilities are, where bernoulli_nll takes logits"):
        importance.log_likelihood(model, images, (2,))
    nll = functools.partial(pixels.gaussian_nll, log_var=-1.0)
    assert len(importance.log_likelihood(model, images, (2,), nll=nll)) == 1


@pytest.mark.filterwarnings("error")
def test_one_image_has_no_standard_error():
    (estimate,) = importance.log_likelihood(VAE(2, 8, (1, 4, 4)), grey_images(1, 4, 4), (2,))
    assert estimate.standard_error is None and estimate.per_image.shape == (1,)


def test_no_samples_and_no_images_are_refused(solved):
    model, images, _ = solved
    for k in (0, 2.5):
        with pytest.raises(ValueError, match="n_samples must be a whole number of at least 1"):
            importance.log_likelihood(model, images, (1, k))
    with pytest.raises(ValueError, match=r"number of images must be .* at least 1, got 0"):
        importance.log_likelihood(model, images[:0], (1,))
