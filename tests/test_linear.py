"""linear: each closed form against another derivation, torch.distributions, or brute force."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal, Normal, kl_divergence

from vae_lesson import evaluate, losses, train
from vae_lesson.data import to_float
from vae_lesson.likelihood import importance, linear
from vae_lesson.likelihood.linear import LinearGaussian, LinearVAE
from vae_lesson.likelihood.pixels import gaussian_nll


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def some_model(n_pixels=7, latent_size=3, variance=0.3):
    return LinearGaussian(normal(n_pixels, latent_size, seed=1), normal(n_pixels, seed=2), variance)


def some_q(n=5, latent_size=3):
    return normal(n, latent_size, seed=3), normal(n, latent_size, seed=4)


def data_with(eigenvalues, n=200, seed=0):
    """Return x (n, D) whose covariance (divided by n) has exactly these eigenvalues."""
    left, _, right = torch.linalg.svd(normal(n, len(eigenvalues), seed=seed), full_matrices=False)
    left = torch.linalg.qr(left - left.mean(dim=0))[0]  # centred, still orthonormal
    scales = (n * torch.tensor(eigenvalues, dtype=torch.float64)).sqrt()
    return left * scales @ right + normal(len(eigenvalues), seed=seed + 1)


def dense(model):
    """Return p(x) as a Gaussian with a full covariance matrix."""
    covariance = model.W @ model.W.T + model.variance * torch.eye(len(model.W)).double()
    return MultivariateNormal(model.mean, covariance)


def log_likelihood(model, x, z):
    return -gaussian_nll(z @ model.W.T + model.mean, x, model.variance.log())


# --- log p(x) and the posterior -------------------------------------------------------------------


@pytest.mark.parametrize("variance", [1e-4, 0.3, 10.0])
@pytest.mark.parametrize("latent_size", [1, 3, 7, 9])  # 9 is more than the pixels
def test_log_marginal_is_that_of_the_dense_and_of_the_low_rank_gaussian(latent_size, variance):
    model, x = some_model(7, latent_size, variance), normal(5, 7)
    found = model.log_marginal(x)
    noise = torch.full((7,), variance, dtype=torch.float64)
    low_rank = LowRankMultivariateNormal(model.mean, model.W, noise)
    torch.testing.assert_close(found, dense(model).log_prob(x), rtol=1e-9, atol=1e-6)
    torch.testing.assert_close(found, low_rank.log_prob(x), rtol=1e-9, atol=1e-6)


def test_log_marginal_is_what_a_grid_over_z_sums_to():
    model, x = some_model(3, 1), normal(4, 3)
    z = torch.linspace(-12, 12, 20_001, dtype=torch.float64)[:, None]
    log_joint = Normal(0.0, 1.0).log_prob(z).T + torch.stack(
        [log_likelihood(model, row.expand(len(z), 3), z) for row in x]
    )
    found = torch.logsumexp(log_joint, dim=1) + (z[1] - z[0]).log()
    torch.testing.assert_close(found, model.log_marginal(x), rtol=0, atol=1e-9)


def test_posterior_is_the_conditional_of_the_joint_gaussian():
    model, x = some_model(), normal(5, 7)
    # z and x are jointly Gaussian with Cov(z, x) = Wᵀ: condition the textbook's way, D × D.
    gain = model.W.T @ torch.linalg.inv(dense(model).covariance_matrix)
    mu, covariance = model.posterior(x)
    torch.testing.assert_close(mu, (x - model.mean) @ gain.T)
    torch.testing.assert_close(covariance, torch.eye(3).double() - gain @ model.W)


def test_bayes_rule_holds_at_any_z():
    model, x, z = some_model(), normal(5, 7), normal(5, 3, seed=8)
    log_joint = log_likelihood(model, x, z) + Normal(0.0, 1.0).log_prob(z).sum(dim=1)
    log_posterior = MultivariateNormal(*model.posterior(x)).log_prob(z)
    torch.testing.assert_close(log_joint - log_posterior, model.log_marginal(x))


# --- the ELBO and the gap -------------------------------------------------------------------------


def test_elbo_is_that_of_many_samples():
    model, x, (mu, log_var) = some_model(), normal(5, 7), some_q()
    q, prior = Normal(mu, torch.exp(0.5 * log_var)), Normal(0.0, 1.0)
    z = mu + torch.exp(0.5 * log_var) * normal(50_000, 5, 3, seed=9)
    log_ratio = (prior.log_prob(z) - q.log_prob(z)).sum(dim=2)
    p_of_x = Normal(z @ model.W.T + model.mean, model.variance.sqrt())
    samples = p_of_x.log_prob(x).sum(dim=2) + log_ratio
    standard_error = samples.std(dim=0) / math.sqrt(len(samples))
    off = (samples.mean(dim=0) - model.elbo(x, mu, log_var)).abs()
    assert (off < 4 * standard_error).all()
    # It could fail: without the noise of z the value would be many standard errors away.
    at_mu = log_likelihood(model, x, mu) - losses.kl_standard_normal(mu, log_var)
    assert ((samples.mean(dim=0) - at_mu).abs() > 20 * standard_error).all()


@pytest.mark.parametrize("variance", [0.01, 0.3, 10.0])
@pytest.mark.parametrize("latent_size", [1, 3, 9])
def test_the_gap_three_ways(latent_size, variance):
    model, x = some_model(7, latent_size, variance), normal(5, 7)
    mu, log_var = some_q(5, latent_size)
    found = model.gap(x, mu, log_var)
    missing = model.log_marginal(x) - model.elbo(x, mu, log_var)
    torch.testing.assert_close(found, missing, rtol=1e-9, atol=1e-6)
    q = MultivariateNormal(mu, torch.diag_embed(log_var.exp()))
    expected = kl_divergence(q, MultivariateNormal(*model.posterior(x)))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-6)
    assert (found > 0).all()


def test_the_best_q_of_orthogonal_columns_has_no_gap():
    W = torch.linalg.qr(normal(7, 3))[0] * torch.tensor([3.0, 1.0, 0.0])  # one of them dead
    model, x = LinearGaussian(W, normal(7, seed=2), 0.3), normal(5, 7)
    q = model.mean_field(x)
    torch.testing.assert_close(model.gap(x, *q), torch.zeros(5).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(model.elbo(x, *q), model.log_marginal(x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("degrees", [-30, 10, 45, 80])
def test_a_rotation_keeps_the_likelihood_and_costs_the_mean_field_gap(degrees):
    W = torch.linalg.qr(normal(7, 3))[0] * torch.tensor([3.0, 1.0, 0.5])
    model, x = LinearGaussian(W, normal(7, seed=2), 0.3), normal(5, 7)
    turned = model.rotated(degrees)
    torch.testing.assert_close(turned.W @ turned.W.T, W @ W.T)
    torch.testing.assert_close(turned.log_marginal(x), model.log_marginal(x))
    gap = turned.gap(x, *turned.mean_field(x))
    expected = gap.mean().item()  # the same for every x
    torch.testing.assert_close(gap, torch.full_like(gap, expected), rtol=0, atol=1e-9)
    # By hand, from the two precisions a and b that are turned into each other:
    a, b = 1 + 9 / 0.3, 1 + 1 / 0.3
    c, s = math.cos(math.radians(degrees)) ** 2, math.sin(math.radians(degrees)) ** 2
    assert expected == pytest.approx(0.5 * math.log((a * c + b * s) * (a * s + b * c) / (a * b)))
    assert expected > 0.01


def test_no_other_diagonal_q_is_better():
    model, x = some_model(), normal(5, 7)
    mu, log_var = model.mean_field(x)
    best = model.gap(x, mu, log_var)
    step = 0.05
    for seed in range(20):
        moved = mu + step * normal(5, 3, seed=seed), log_var + step * normal(5, 3, seed=seed + 50)
        assert (model.gap(x, *moved) > best).all()
    # The tempting other choice, the posterior's own variances, is worse.
    own = model.posterior(x)[1].diagonal().log().expand(5, 3)
    assert (model.gap(x, mu, own) > best + 0.01).all()


# --- the best decoder -----------------------------------------------------------------------------

EIGENVALUES = [5.0, 3.0, 1.0, 0.5, 0.2, 0.1]


def best_at(x, latent_size, variance, beta=1.0):
    """Return the best decoder at a fixed noise, as `LinearVAE` says: u_j √(λ_j - beta · variance).

    Where λ_j <= beta · variance the column is 0.
    """
    mean, eigenvalues, eigenvectors = linear.principal_axes(x)
    lengths = (eigenvalues[:latent_size] - beta * variance).clamp_min(0).sqrt()
    return LinearGaussian(eigenvectors[:, :latent_size] * lengths, mean, variance)


def test_principal_axes_are_those_of_scikit_learn():
    x = normal(50, 6) @ normal(6, 6, seed=1) + 3
    mean, eigenvalues, eigenvectors = linear.principal_axes(x)
    pca = PCA().fit(x.numpy())
    torch.testing.assert_close(mean, torch.from_numpy(pca.mean_))
    # Its variances are divided by N - 1.
    torch.testing.assert_close(eigenvalues, torch.from_numpy(pca.explained_variance_) * 49 / 50)
    cosines = (eigenvectors.T * torch.from_numpy(pca.components_)).sum(dim=1).abs()
    torch.testing.assert_close(cosines, torch.ones_like(cosines))


def test_ppca_of_known_eigenvalues():
    model = linear.ppca(data_with(EIGENVALUES), 2)
    variance = (1.0 + 0.5 + 0.2 + 0.1) / 4
    assert model.variance.item() == pytest.approx(variance)
    expected = torch.tensor([5 - variance, 3 - variance], dtype=torch.float64)
    torch.testing.assert_close(model.W.T @ model.W, torch.diag(expected), rtol=1e-9, atol=1e-9)


def test_ppca_is_scikit_learns_but_for_its_n_minus_1():
    x = normal(50, 6) @ normal(6, 6, seed=1)
    best = linear.ppca(x, 2)
    expected = PCA(2, svd_solver="full").fit(x.numpy()).score(x.numpy())
    as_there = LinearGaussian(best.W * math.sqrt(50 / 49), best.mean, best.variance * 50 / 49)
    assert as_there.log_marginal(x).mean().item() == pytest.approx(expected, rel=1e-9)
    assert best.log_marginal(x).mean() > expected


def test_ppca_has_a_zero_gradient_and_beats_what_is_near():
    x = data_with(EIGENVALUES)
    model = linear.ppca(x, 2)
    at_best = model.log_marginal(x).mean().item()
    parameters = [value.clone().requires_grad_() for value in (model.W, model.mean, model.variance)]
    LinearGaussian(*parameters).log_marginal(x).mean().backward()
    for parameter in parameters:
        assert parameter.grad.abs().max() < 1e-9
    for seed in range(20):
        moved = LinearGaussian(
            model.W + 0.05 * normal(6, 2, seed=seed),
            model.mean + 0.05 * normal(6, seed=seed + 50),
            model.variance * math.exp(0.05 * normal(1, seed=seed + 90).item()),
        )
        assert moved.log_marginal(x).mean() < at_best
    # A decoder along other axes than the leading ones is no maximum either.
    other = LinearGaussian(best_at(x, 3, model.variance).W[:, 1:], model.mean, model.variance)
    assert other.log_marginal(x).mean() < at_best


def test_ppca_recovers_the_model_that_made_the_data():
    true, n = some_model(6, 2), 200_000
    noise = true.variance.sqrt() * normal(n, 6, seed=5)
    found = linear.ppca(normal(n, 2) @ true.W.T + true.mean + noise, 2)
    torch.testing.assert_close(found.variance, true.variance, rtol=0.01, atol=0)
    torch.testing.assert_close(found.mean, true.mean, rtol=0, atol=0.02)
    torch.testing.assert_close(found.W @ found.W.T, true.W @ true.W.T, rtol=0.02, atol=0.05)
    assert np.rad2deg(subspace_angles(found.W, true.W).max()) < 0.5


def train_directly(x, variance, beta, latent_size):
    """Minimise E_q[-log p(x|z)] + beta · kl over W, the mean and an affine encoder; return W, mean.

    Written without the module that is tested: E_q is by autograd on its definition.
    """
    n_pixels = x.shape[1]
    shapes = [(n_pixels, latent_size), (n_pixels,), (n_pixels, latent_size), (latent_size,)]
    parameters = [0.3 * normal(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    parameters.append(torch.zeros(latent_size, dtype=torch.float64))
    for parameter in parameters:
        parameter.requires_grad_()
    W, mean, V, offset, log_var = parameters

    def objective():
        mu = x @ V + offset
        q = Normal(mu, torch.exp(0.5 * log_var))
        # The image's covariance under q is W diag(σ²) Wᵀ; only its trace matters.
        spread = torch.trace(W @ torch.diag(log_var.exp()) @ W.T)
        recon = ((x - mu @ W.T - mean).square().sum(dim=1) + spread) / (2 * variance)
        kl = kl_divergence(q, Normal(0.0, 1.0)).sum(dim=1)
        return (recon + beta * kl).mean()

    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=3000,
        tolerance_grad=1e-9,
        tolerance_change=1e-14,
        history_size=50,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        loss = objective()
        loss.backward()
        return loss

    optimizer.step(closure)
    return W.detach(), mean.detach()


@pytest.mark.parametrize(
    "variance, beta, used",
    [(0.3, 1.0, 4), (0.8, 1.0, 3), (2.0, 1.0, 2), (0.3, 0.5, 4), (0.2, 4.0, 3), (0.6, 4.0, 2)],
)
def test_a_dimension_is_used_where_its_eigenvalue_is_over_beta_times_the_noise(
    variance, beta, used
):
    x = data_with(EIGENVALUES, n=100)
    best = best_at(x, 4, variance, beta)
    lengths = best.W.square().sum(dim=0)
    expected = [max(value - beta * variance, 0) for value in EIGENVALUES[:4]]
    assert lengths.tolist() == pytest.approx(expected, rel=1e-9)
    assert (lengths > 0).sum() == used
    W, mean = train_directly(x, variance, beta, 4)
    torch.testing.assert_close(W @ W.T, best.W @ best.W.T, rtol=0, atol=1e-3)
    torch.testing.assert_close(mean, best.mean, rtol=0, atol=1e-3)


@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0])
def test_a_learned_noise_is_the_unused_eigenvalues_over_d_minus_beta_times_the_used(beta):
    x = data_with(EIGENVALUES)

    def objective(variance):
        model = best_at(x, 2, variance, beta)
        q = LinearGaussian(model.W, model.mean, beta * variance).mean_field(x)
        kl = losses.kl_standard_normal(*q)
        recon = -model.elbo(x, *q) - kl
        return losses.neg_elbo(recon, kl, beta).mean().item()

    grid = torch.linspace(math.log(0.05), math.log(5), 801, dtype=torch.float64).exp().tolist()
    best = min(grid, key=objective)
    assert best == pytest.approx(sum(EIGENVALUES[2:]) / (6 - beta * 2), rel=6e-3)


# --- the trained model ----------------------------------------------------------------------------


def new_vae(latent_size=2, n_pixels=7, seed=0):
    torch.manual_seed(seed)
    model = LinearVAE(latent_size, n_pixels)
    with torch.no_grad():
        model.noise_log_var.fill_(-1.2)
    return model


def images_of_rank(n=1500, n_pixels=12):
    """Make uint8 images with three strong directions and noise."""
    x = normal(n, 3) * torch.tensor([80.0, 55.0, 40.0]) @ torch.linalg.qr(normal(n_pixels, 3))[0].T
    x = 128 + x + 12 * normal(n, n_pixels, seed=1)
    return x.round().clamp(0, 255).to(torch.uint8)


def test_exact_terms_are_the_closed_form_elbo_and_the_mean_of_many_samples():
    model, x = new_vae(), normal(4, 7).float()
    recon, kl = linear.exact_terms(model, x)
    assert recon.shape == kl.shape == (4,)
    with torch.no_grad():
        expected = linear.decoder_of(model).elbo(x, *model.encode(x))
    torch.testing.assert_close(-(recon + kl).double(), expected, rtol=1e-5, atol=1e-5)

    n = 20_000
    sampled = importance.elbo_terms_with(
        lambda x_mean, x: gaussian_nll(x_mean, x, model.noise_log_var)
    )
    generator = torch.Generator().manual_seed(0)
    drawn, kl_again = sampled(model, x.repeat_interleave(n, 0), generator)
    drawn = drawn.view(4, n)
    standard_error = drawn.std(dim=1) / math.sqrt(n)
    assert ((drawn.mean(dim=1) - recon).abs() < 4 * standard_error).all()
    torch.testing.assert_close(kl_again.view(4, n)[:, 0], kl)


def test_the_linear_vae_decodes_to_the_mean_of_x():
    model, z = new_vae(), normal(4, 2).float()
    there = linear.decoder_of(model)
    assert there.W.dtype == there.mean.dtype == there.variance.dtype == torch.float64
    assert not there.W.requires_grad
    expected = z.double() @ there.W.T + there.mean
    torch.testing.assert_close(model.decode_mean(z).double(), expected)
    assert there.variance.item() == pytest.approx(math.exp(-1.2))
    x = normal(4, 7).float()
    model(x, eps=z)[0].sum().backward()  # the forward pass of any VAE of the course


def test_training_finds_what_the_closed_form_says():
    images = images_of_rank()
    x = to_float(images)
    best = linear.ppca(x, 3)
    torch.manual_seed(0)
    model = LinearVAE(3, 12)
    train.fit(
        model,
        images,
        terms=linear.exact_terms,
        epochs=100,
        batch_size=100,
        lr=5e-2,
        device="cpu",
        progress=False,
    )
    found = linear.decoder_of(model)
    neg_elbo = evaluate.mean_terms(model, images, linear.exact_terms).neg_elbo
    exact = -best.log_marginal(x).mean().item()
    assert exact < neg_elbo < exact + 0.1
    assert np.rad2deg(subspace_angles(found.W, best.W).max()) < 2
    torch.testing.assert_close(found.variance, best.variance, rtol=0.04, atol=0)
    assert found.gap(x, *found.mean_field(x)).max() < 0.02
    missing = found.gap(x, *evaluate.posteriors(model, images)).mean().item()
    log_p = found.log_marginal(x).mean().item()
    assert log_p + neg_elbo == pytest.approx(missing, abs=1e-4)


# --- safety ---------------------------------------------------------------------------------------


def test_a_model_that_misfits_itself_is_named():
    W, mean = normal(7, 3), normal(7)
    with pytest.raises(ValueError, match=r"mean and a_column_of_W .* got \(1,\) and \(7,\)"):
        LinearGaussian(W, mean[:1], 0.3)  # would broadcast
    with pytest.raises(ValueError, match=r"W must be \(D, L\), got shape \(7,\)"):
        LinearGaussian(W[:, 0], mean, 0.3)
    for wrong in (0, 0.0, -1.0, math.nan, math.inf, torch.tensor(0.0)):
        with pytest.raises(ValueError, match="variance must be a number over 0"):
            LinearGaussian(W, mean, wrong)
    with pytest.raises(ValueError, match=r"variance must be a number over 0.*got tensor\(\["):
        LinearGaussian(W, mean, torch.ones(7))
    with pytest.raises(ValueError, match="L must be a whole number of at least 2, got 1"):
        LinearGaussian(W[:, :1], mean, 0.3).rotated(45)


@pytest.mark.parametrize("name", ["log_marginal", "posterior", "mean_field", "elbo", "gap"])
def test_an_x_that_misfits_is_named(name):
    q = some_q() if name in ("elbo", "gap") else ()
    function, x = getattr(some_model(), name), normal(5, 7)
    with pytest.raises(ValueError, match=r"x must be \(N, 7\), got shape \(5, 6\)"):
        function(x[:, 1:], *q)
    with pytest.raises(ValueError, match=r"x must be \(N, 7\), got shape \(7,\)"):
        function(x[0], *q)
    with pytest.raises(ValueError, match=r"floats, got torch\.uint8: use data\.to_float"):
        function(x.byte(), *q)


@pytest.mark.parametrize("name", ["elbo", "gap"])
def test_a_q_of_another_shape_is_named(name):
    function, x, (mu, log_var) = getattr(some_model(), name), normal(5, 7), some_q()
    with pytest.raises(ValueError, match=r"mu, log_var and .* got \(5, 2\), \(5, 3\) and \(5, 3\)"):
        function(x, mu[:, :2], log_var)
    with pytest.raises(ValueError, match=r"got \(5, 3\), \(3,\) and \(5, 3\)"):
        function(x, mu, log_var[0])  # would broadcast
    with pytest.raises(ValueError, match=r"got \(5, 3\), \(1, 3\) and \(5, 3\)"):
        function(x, mu, log_var[:1])


def test_what_cannot_be_fitted_is_refused():
    x = data_with(EIGENVALUES)
    for wrong in (0, 6, 2.0, True):
        with pytest.raises(ValueError, match="latent_size must be a whole number from 1 to 5"):
            linear.ppca(x, wrong)
    with pytest.raises(ValueError, match="latent_size 2 leaves no noise in x"):
        linear.ppca(normal(50, 2) @ normal(2, 6, seed=1), 2)
    with pytest.raises(ValueError, match="latent_size 2 leaves no noise in x"):
        linear.ppca(torch.ones(50, 6), 2)
    with pytest.raises(ValueError, match=r"floats, got torch\.uint8: use data\.to_float"):
        linear.ppca(images_of_rank(50), 2)
    for wrong in (x[0], x[:1], x[None]):
        with pytest.raises(ValueError, match=r"x must be \(N, D\)"):
            linear.ppca(wrong, 2)


def test_a_model_made_of_a_decoder_has_it_and_its_best_diagonal_encoder():
    x = torch.rand((40, 6), generator=torch.Generator().manual_seed(0))
    turned = linear.ppca(x, 2).rotated(30)
    model = turned.as_model()
    there = linear.decoder_of(model)
    torch.testing.assert_close(there.W, turned.W, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(there.variance, turned.variance, rtol=1e-6, atol=0)
    with torch.no_grad():
        q = model.encode(x)
    for mine, wanted in zip(q, turned.mean_field(x)):
        torch.testing.assert_close(mine.double(), wanted, rtol=1e-5, atol=1e-5)
