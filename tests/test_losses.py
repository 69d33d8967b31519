"""losses: closed forms, units, gradients, and what is refused."""

import math

import pytest
import torch
from torch.distributions import Bernoulli, ContinuousBernoulli, Normal, kl_divergence

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


def test_kl_monte_carlo_is_unbiased():
    mu, log_var = draws((3, 4), (3, 4))
    (eps,) = draws((100, 200, 3, 4), seed=1)
    estimates = torch.stack([losses.kl_monte_carlo(mu, log_var, eps=block) for block in eps])
    standard_error = estimates.std(dim=0) / math.sqrt(len(estimates))
    off = (estimates.mean(dim=0) - losses.kl_standard_normal(mu, log_var)).abs()
    assert (off < 4 * standard_error).all()
    # The comparison above can fail: a missing ½ would be many standard errors away.
    assert (losses.kl_standard_normal(mu, log_var) > 20 * standard_error).all()


def test_kl_monte_carlo_with_given_noise_is_exact():
    mu, log_var = draws((3, 4), (3, 4))
    estimate = losses.kl_monte_carlo(mu, log_var, eps=torch.zeros(1, 3, 4, dtype=mu.dtype))
    torch.testing.assert_close(estimate, 0.5 * (mu.square() - log_var).sum(dim=1))


def test_kl_monte_carlo_has_a_seed_and_uses_n_samples():
    mu, log_var = draws((2, 3), (2, 3))

    def estimates(n_samples):
        return torch.stack(
            [
                losses.kl_monte_carlo(mu, log_var, n_samples, torch.Generator().manual_seed(seed))
                for seed in range(200)
            ]
        )

    few, many = estimates(4), estimates(64)
    assert torch.equal(few, estimates(4))
    assert not torch.equal(few[0], few[1])
    ratio = few.std(dim=0) / many.std(dim=0)  # 1/√n: 4 for 16 times the samples
    assert ((ratio > 2.8) & (ratio < 5.6)).all()


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


@pytest.mark.parametrize("shape", [(), (9,), (4, 1), (4, 9)], ids=str)
def test_gaussian_nll_is_that_of_torch_distributions(shape):
    x_mean, x, log_var = draws((4, 9), (4, 9), shape)
    expected = -Normal(x_mean, torch.exp(0.5 * log_var)).log_prob(x).sum(dim=1)
    torch.testing.assert_close(losses.gaussian_nll(x_mean, x, log_var), expected)


def test_gaussian_nll_takes_a_number_and_defaults_to_variance_one():
    x_mean, x = draws((4, 9), (4, 9))
    expected = -Normal(x_mean, 0.5).log_prob(x).sum(dim=1)
    torch.testing.assert_close(losses.gaussian_nll(x_mean, x, math.log(0.25)), expected)
    expected = -Normal(x_mean, 1.0).log_prob(x).sum(dim=1)
    torch.testing.assert_close(losses.gaussian_nll(x_mean, x), expected)


def test_squared_error_is_gaussian_nll_at_variance_a_half_less_a_constant():
    x_hat, x = draws((4, 9), (4, 9))
    expected = ((x - x_hat) ** 2).sum(dim=1)
    torch.testing.assert_close(losses.squared_error(x_hat, x), expected)
    nll = losses.gaussian_nll(x_hat, x, math.log(0.5))
    torch.testing.assert_close(nll - 9 / 2 * math.log(math.pi), expected)


def test_neg_elbo_weighs_the_kl_by_beta():
    recon, kl = torch.tensor([3.0, 5.0]), torch.tensor([1.0, 2.0])
    assert losses.neg_elbo(recon, kl).tolist() == [4.0, 7.0]
    assert losses.neg_elbo(recon, kl, beta=4).tolist() == [7.0, 13.0]
    assert losses.neg_elbo(recon, kl, beta=0.0).tolist() == [3.0, 5.0]


# --- units and reduction --------------------------------------------------------------------------

RECONS = [losses.bernoulli_nll, losses.gaussian_nll, losses.squared_error]
KLS = [losses.kl_standard_normal, losses.kl_monte_carlo]


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


@pytest.mark.parametrize("kl", KLS, ids=name)
def test_kl_sums_over_latent_dimensions(kl):
    mu, log_var = draws((3, 4), (3, 4))
    (eps,) = draws((10, 3, 4), seed=1)
    noise, noise_twice = ({}, {})
    if kl is losses.kl_monte_carlo:
        noise, noise_twice = {"eps": eps}, {"eps": torch.cat([eps, eps], dim=2)}
    values = kl(mu, log_var, **noise)
    assert values.shape == (3,)
    twice = kl(torch.cat([mu, mu], dim=1), torch.cat([log_var, log_var], dim=1), **noise_twice)
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


def test_gradients_of_the_gaussian_log_var_and_of_the_monte_carlo_estimate():
    a, b, log_var = (x.requires_grad_() for x in draws((3, 4), (3, 4), (4,)))
    assert torch.autograd.gradcheck(losses.gaussian_nll, (a, b, log_var))
    (eps,) = draws((5, 3, 4), seed=1)
    assert torch.autograd.gradcheck(lambda m, v: losses.kl_monte_carlo(m, v, eps=eps), (a, b))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_learned_variance_gets_a_gradient_that_is_zero_at_the_mean_squared_error(dtype):
    x_mean, x = draws((4, 9), (4, 9), dtype=dtype)
    log_var = torch.nn.Parameter(torch.zeros(()))  # float32, as a model would have it
    losses.gaussian_nll(x_mean, x, log_var).sum().backward()
    squares = (x - x_mean).square()
    assert log_var.grad.item() == pytest.approx(0.5 * (1 - squares).sum().item(), rel=1e-5)

    best = torch.nn.Parameter(squares.mean().log())
    losses.gaussian_nll(x_mean, x, best).sum().backward()
    assert best.grad.item() == pytest.approx(0, abs=1e-5)


# --- grey pixels ----------------------------------------------------------------------------------


def test_continuous_bernoulli_is_that_of_torch_distributions():
    (x_logits, x) = draws((5, 7), (5, 7))
    x_logits, x = 4 * x_logits, grey(x)
    x_logits[0, :3] = torch.tensor([0.0, 1e-3, -5e-3])  # where the constant is 0/0
    # Its own series near λ = ½ is good to 1e-4 or so: so its limits are drawn in.
    theirs = ContinuousBernoulli(logits=x_logits, lims=(0.4999, 0.5001)).log_prob(x).sum(dim=1)
    ours = losses.continuous_bernoulli_nll(x_logits, x)
    torch.testing.assert_close(ours, -theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("x_logit", [-30.0, -3.0, -1e-2, 0.0, 5e-3, 2.0, 30.0])
def test_continuous_bernoulli_is_a_density_and_the_cross_entropy_is_not(x_logit):
    x = torch.linspace(0, 1, 20_001, dtype=torch.float64)[:, None]
    x_logits = torch.full_like(x, x_logit)
    area = torch.trapezoid(torch.exp(-losses.continuous_bernoulli_nll(x_logits, x)), x[:, 0])
    assert area.item() == pytest.approx(1, abs=1e-4)
    short = torch.trapezoid(torch.exp(-losses.bernoulli_nll(x_logits, x)), x[:, 0])
    assert short.item() < 0.51


def test_continuous_bernoulli_has_gradients_where_its_constant_is_a_limit():
    x_logits = torch.tensor([[0.0, 1e-4, 9.99e-3, 1.01e-2, -3.0, 90.0]], dtype=torch.float64)
    x = torch.full_like(x_logits, 0.3).requires_grad_()
    check = (losses.continuous_bernoulli_nll, (x_logits.requires_grad_(), x))
    assert torch.autograd.gradcheck(*check)


@pytest.mark.parametrize("x_mean", [-0.2, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("log_scale", [-9.0, -4.0, -1.0, 2.0])
def test_discretised_logistic_probabilities_of_256_levels_add_up_to_1(x_mean, log_scale):
    levels = (torch.arange(256, dtype=torch.float64) / 255)[:, None]
    nll = losses.discretised_logistic_nll(torch.full_like(levels, x_mean), levels, log_scale)
    assert torch.exp(-nll).sum().item() == pytest.approx(1, abs=1e-9)


def test_discretised_logistic_is_the_integral_of_the_density():
    x, x_mean, log_scale = torch.tensor([[0.4]]), torch.tensor([[0.45]]), math.log(0.05)
    x = (x * 255).round() / 255
    t = torch.linspace(x.item() - 1 / 510, x.item() + 1 / 510, 2001, dtype=torch.float64)
    u = (t - x_mean.item()) / 0.05
    density = torch.exp(-u) / (0.05 * (1 + torch.exp(-u)).square())
    expected = -torch.trapezoid(density, t).log().item()
    nll = losses.discretised_logistic_nll(x_mean, x, log_scale).item()
    assert nll == pytest.approx(expected, rel=1e-4)


def test_discretised_logistic_is_finite_far_out_in_float32():
    x, x_mean = torch.tensor([[0.2, 0.0, 1.0]]), torch.tensor([[0.9, 1.0, 0.0]], requires_grad=True)
    nll = losses.discretised_logistic_nll(x_mean, x, math.log(1e-4))
    nll.sum().backward()
    # Each is about a distance over the scale: 7,000, 9,980 and 9,980 nats.
    assert nll.item() == pytest.approx(26_941, rel=1e-3)
    assert x_mean.grad.isfinite().all()


def test_optimal_log_var_is_where_the_gaussian_loss_is_least():
    x_mean, x = draws((4, 9), (4, 9))
    best = losses.optimal_log_var(x_mean.requires_grad_(), x)
    assert not best.requires_grad
    least = losses.gaussian_nll(x_mean, x, best).sum()
    for step in (-0.1, 0.1):
        assert losses.gaussian_nll(x_mean, x, best + step).sum() > least
    assert losses.optimal_log_var(x, x).isfinite()


# --- bounds ---------------------------------------------------------------------------------------


def test_free_bits_counts_a_dimension_under_the_limit_as_the_limit():
    kl_j = torch.tensor([[0.1, 2.0, 0.0], [0.3, 4.0, 0.0]], requires_grad=True)
    kl = losses.free_bits(kl_j, 0.5)
    torch.testing.assert_close(kl, torch.tensor([0.5 + 3.0 + 0.5] * 2))
    kl.mean().backward()  # only the dimension over the limit is pushed
    assert kl_j.grad.tolist() == [[0, 0.5, 0], [0, 0.5, 0]]
    torch.testing.assert_close(losses.free_bits(kl_j, 0.0).sum(), kl_j.sum())


def test_log_weights_are_the_three_densities():
    z, mu, log_var, recon = draws((5, 3, 2), (3, 2), (3, 2), (5, 3))
    q = Normal(mu, torch.exp(0.5 * log_var))
    expected = -recon + Normal(0.0, 1.0).log_prob(z).sum(dim=2) - q.log_prob(z).sum(dim=2)
    torch.testing.assert_close(losses.log_weights(recon, z, mu, log_var), expected)


def test_importance_weighted_bound_is_the_log_of_the_mean_weight():
    (log_w,) = draws((6, 4))
    bound = losses.importance_weighted_bound(log_w)
    torch.testing.assert_close(bound, log_w.exp().mean(dim=0).log())
    torch.testing.assert_close(losses.importance_weighted_bound(log_w[:1]), log_w[0])  # the ELBO
    assert (bound > log_w.mean(dim=0)).all()  # Jensen
    # e^-1000 is 0 even in float64.
    torch.testing.assert_close(losses.importance_weighted_bound(log_w - 1000), bound - 1000)


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 3, 4)])
def test_importance_weighted_bound_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match="K of at least 1"):
        losses.importance_weighted_bound(torch.zeros(shape))


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
        (losses.gaussian_nll, (4, 1), (4, 9)),
        (losses.squared_error, (1, 9), (4, 9)),
        (losses.kl_per_dimension, (4, 2), (4, 3)),
        (losses.kl_standard_normal, (1, 2), (4, 2)),
        (losses.kl_monte_carlo, (4, 1), (4, 2)),
        (losses.neg_elbo, (), (4,)),
        (losses.continuous_bernoulli_nll, (4, 1), (4, 9)),
        (lambda a, b: losses.discretised_logistic_nll(a, b, 0.0), (4, 1), (4, 9)),
        (losses.optimal_log_var, (4, 1), (4, 9)),
        (lambda a, b: losses.log_weights(b, b[None], a, b), (5, 1), (5, 2)),
    ],
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_a_mismatch_names_both_shapes(loss, shape, other):
    with pytest.raises(ValueError, match="same shape") as error:
        loss(torch.zeros(shape), torch.zeros(other))
    assert f"got {shape} and {other}" in str(error.value)


@pytest.mark.parametrize("shape", [(3,), (5, 9), (4, 1, 9)])
def test_a_scale_that_would_stretch_the_images_is_refused(shape):
    x = torch.zeros(4, 9)
    for loss, name in [
        (losses.gaussian_nll, "log_var"),
        (losses.discretised_logistic_nll, "log_scale"),
    ]:
        with pytest.raises(ValueError, match=f"{name} .* must broadcast"):
            loss(x, x, torch.zeros(shape))
