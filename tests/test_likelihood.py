"""importance: sampling against a model that can be solved, and training on the bound."""

import functools
import math

import pytest
import torch
from torch.distributions import Normal

from vae_lesson import evaluate, losses, train
from vae_lesson.likelihood import importance, pixels
from vae_lesson.likelihood.autoregressive import AutoregressiveVAE
from vae_lesson.models import VAE

N_PIXELS = 6
VARIANCE = 0.3
gaussian = functools.partial(pixels.gaussian_nll, log_var=math.log(VARIANCE))


def generator(seed=3):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def solved():
    """Make a linear VAE with Gaussian noise, images, and their exact log p(x).

    Its encoder is wrong on purpose (untrained): importance sampling has to make up for that.
    """
    torch.manual_seed(0)
    model = VAE(2, shape=(1, 1, N_PIXELS), network="linear").eval()
    images = torch.randint(0, 256, (40, N_PIXELS), dtype=torch.uint8)
    w, b = model.decoder.weight.detach().double(), model.decoder.bias.detach().double()
    covariance = w @ w.T + VARIANCE * torch.eye(N_PIXELS, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(b, covariance)
    return model, images, exact.log_prob(images.double() / 255)


# --- the formula ----------------------------------------------------------------------------------


def draws(*shapes):
    noise = generator(0)
    return [torch.randn(shape, generator=noise, dtype=torch.float64) for shape in shapes]


def test_log_weights_are_the_three_densities():
    z, mu, log_var, recon = draws((5, 3, 2), (3, 2), (3, 2), (5, 3))
    q = Normal(mu, torch.exp(0.5 * log_var))
    expected = -recon + Normal(0.0, 1.0).log_prob(z).sum(dim=2) - q.log_prob(z).sum(dim=2)
    torch.testing.assert_close(importance.log_weights(recon, z, mu, log_var), expected)


@pytest.mark.parametrize(
    "recon, z, mu, log_var, error",
    [
        ((1, 5), (1, 5, 2), (5, 1), (5, 2), r"mu, log_var and .* got \(5, 1\), \(5, 2\) and"),
        ((1, 5), (1, 5, 2), (5, 2), (1, 2), r"mu, log_var and .* got \(5, 2\), \(1, 2\) and"),
        ((4, 5), (4, 5, 1), (5, 2), (5, 2), r"z_of_one_sample .* \(5, 2\) and \(5, 1\)"),
        ((1, 5), (4, 5, 2), (5, 2), (5, 2), r"recon and z_.* got \(1, 5\) and \(4, 5\)"),
        ((5,), (4, 5, 2), (5, 2), (5, 2), r"recon and z_.* got \(5,\) and \(4, 5\)"),
    ],
)
def test_weights_of_shapes_that_would_broadcast_are_refused(recon, z, mu, log_var, error):
    with pytest.raises(ValueError, match=error):
        importance.log_weights(*(torch.zeros(shape) for shape in (recon, z, mu, log_var)))


def test_importance_weighted_bound_is_the_log_of_the_mean_weight():
    (log_w,) = draws((6, 4))
    bound = importance.importance_weighted_bound(log_w)
    torch.testing.assert_close(bound, log_w.exp().mean(dim=0).log())
    elbo = importance.importance_weighted_bound(log_w[:1])
    torch.testing.assert_close(elbo, log_w[0])
    assert (bound > log_w.mean(dim=0)).all()  # Jensen
    # e^-1000 is 0 even in float64.
    torch.testing.assert_close(importance.importance_weighted_bound(log_w - 1000), bound - 1000)


def test_importance_weighted_bound_refuses_no_samples():
    with pytest.raises(ValueError, match="K must be a whole number of at least 1, got 0"):
        importance.importance_weighted_bound(torch.zeros(0, 3))


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


def test_the_mean_over_the_weights_is_p_of_x(solved):
    model, images, exact = solved
    x = images[:8].float() / 255
    log_w = importance.posterior_log_weights(model, x, 20_000, generator(1), gaussian)
    ratio = torch.exp(log_w.double() - exact[:8])  # w / p(x), whose mean is 1
    error = ratio.std(dim=0) / math.sqrt(len(ratio))
    assert ((ratio.mean(dim=0) - 1).abs() < 4 * error).all() and (error < 0.05).all()


def test_draws_from_the_prior_give_the_same_value_with_enough_of_them(solved):
    model, images, exact = solved
    options = {"nll": gaussian, "draws": importance.prior_log_weights}
    one, many = importance.log_likelihood(model, images, (1, 5000), **options)
    assert many.mean == pytest.approx(exact.mean().item(), abs=0.02)
    assert one.mean < many.mean - 0.1


def test_with_one_sample_it_is_the_elbo():
    torch.manual_seed(0)
    model = VAE(3, 8, (1, 4, 4)).eval()
    images = torch.randint(0, 256, (50, 16), dtype=torch.uint8)
    (one,) = importance.log_likelihood(model, images, (1,))
    # Not the same draws, and KL in closed form: the same within their scatter.
    elbos = [-evaluate.mean_terms(model, images, seed=seed).neg_elbo for seed in range(30)]
    assert one.mean == pytest.approx(sum(elbos) / 30, abs=0.2)
    assert one.standard_error == pytest.approx(one.per_image.std().item() / math.sqrt(50))


def test_the_groups_of_a_smaller_k_are_averaged():
    log_w = torch.randn(7, 2, generator=torch.Generator().manual_seed(0))
    by_hand = torch.stack([log_w[[0, 2, 4]], log_w[[1, 3, 5]]]).exp().mean(dim=1).log().mean(dim=0)
    two = torch.zeros((2, 16), dtype=torch.uint8)
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
        importance.log_likelihood(model, images[:12], (3, 4), seed, nll=gaussian)
        for seed in (0, 0, 1)
    )
    assert a[1].mean == b[1].mean != c[1].mean
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("k", [0, -1, 2.5])
def test_a_number_of_samples_that_is_none_is_refused(solved, k):
    with pytest.raises(ValueError, match="n_samples must be a whole number of at least 1"):
        importance.log_likelihood(*solved[:2], (1, k))


# --- training -------------------------------------------------------------------------------------


def a_batch():
    torch.manual_seed(0)
    return VAE(2, 8, (1, 4, 4)), torch.rand(30, 16)


def test_the_terms_add_up_to_minus_the_bound_of_the_same_samples():
    model, x = a_batch()
    recon, kl = importance.importance_weighted_terms(5)(model, x, generator())
    log_w = importance.posterior_log_weights(model, x, 5, generator())
    torch.testing.assert_close(recon + kl, -importance.importance_weighted_bound(log_w))
    torch.testing.assert_close(kl, losses.kl_standard_normal(*model.encode(x)))


def test_terms_with_another_likelihood_are_those_of_the_elbo():
    model, x = a_batch()
    theirs = losses.elbo_terms(model, x, generator())
    ours = importance.elbo_terms_with(losses.bernoulli_nll)(model, x, generator())
    assert torch.equal(torch.stack(ours), torch.stack(theirs))
    other, _ = importance.elbo_terms_with(pixels.continuous_bernoulli_nll)(model, x, generator())
    assert (other < theirs[0]).all()


def test_training_on_the_bound_lowers_it():
    images = (torch.rand(200, 16, generator=generator()) * 60).byte()
    images[:100, ::2] += 150
    torch.manual_seed(0)
    model = VAE(2, 8, (1, 4, 4))
    terms = importance.importance_weighted_terms(5)
    history = train.fit(
        model, images, epochs=15, terms=terms, batch_size=20, progress=False, device="cpu"
    )
    assert history.neg_elbo[-1] < history.neg_elbo[0] - 1


def test_the_strong_decoder_counts_with_its_context():
    torch.manual_seed(0)
    model = AutoregressiveVAE(1, 8, (1, 3, 3), context_size=5).eval()
    torch.nn.init.normal_(model.from_context.weight)
    images = 255 * (torch.rand((6, 9), generator=generator()) > 0.5).byte()
    x = images / 255
    # p(x) by a fine grid over its one latent dimension.
    z = torch.linspace(-6, 6, 2001)[:, None]
    logits = model.decode(z)[:, None] + model.context(x)  # (2001, 6, 9)
    log_p = -losses.bernoulli_nll(logits.flatten(0, 1), x.repeat(2001, 1)).view(2001, 6)
    prior = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    exact = torch.trapezoid(log_p.exp() * prior, z, dim=0).log()
    (estimate,) = importance.log_likelihood(model, images, (5000,))
    torch.testing.assert_close(estimate.per_image, exact, atol=0.03, rtol=0)


@pytest.mark.parametrize("images", [torch.zeros((0, 6), dtype=torch.uint8)])
def test_no_images_are_refused(solved, images):
    with pytest.raises(ValueError, match=r"number of images must be .* at least 1, got 0"):
        importance.log_likelihood(solved[0], images, (1,))


@pytest.mark.parametrize("k", [0, True, 1.5])
def test_training_with_no_samples_is_refused(k):
    with pytest.raises(ValueError, match="n_samples must be a whole number of at least 1"):
        importance.importance_weighted_terms(k)


def test_probabilities_where_logits_are_asked_for_are_noticed():
    class Probabilities(VAE):
        def decode(self, z):
            return torch.sigmoid(super().decode(z))

    torch.manual_seed(0)
    model, images = (
        Probabilities(2, 8, (1, 4, 4)),
        torch.randint(0, 256, (5, 4, 4), dtype=torch.uint8),
    )
    with pytest.raises(ValueError, match="as probabilities are, where bernoulli_nll takes logits"):
        importance.log_likelihood(model, images, (2,))

    def nll(p, x):
        return torch.nn.functional.binary_cross_entropy(p, x, reduction="none").sum(dim=1)

    (of_probabilities,) = importance.log_likelihood(model, images, (2,), nll=nll)
    plain = VAE(2, 8, (1, 4, 4))
    plain.load_state_dict(model.state_dict())
    (of_logits,) = importance.log_likelihood(plain, images, (2,))
    assert of_probabilities.mean == pytest.approx(of_logits.mean, rel=1e-5)


@pytest.mark.filterwarnings("error")
def test_one_image_has_no_standard_error():
    images = torch.randint(0, 256, (1, 4, 4), dtype=torch.uint8)
    (estimate,) = importance.log_likelihood(VAE(2, 8, (1, 4, 4)), images, (2,))
    assert estimate.standard_error is None and estimate.per_image.shape == (1,)
