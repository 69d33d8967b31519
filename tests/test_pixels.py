"""pixels: densities against torch.distributions, and sums that must be 1."""

import math

import pytest
import torch
from draws import normal, uniform
from torch.distributions import ContinuousBernoulli, Normal

from vae_lesson.likelihood import pixels

# --- Gaussian -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (9,), (4, 1), (4, 9)], ids=str)
def test_gaussian_nll_is_that_of_torch_distributions(shape):
    x_mean, x, log_var = normal(4, 9), normal(4, 9, seed=1), normal(*shape, seed=2)
    expected = -Normal(x_mean, torch.exp(0.5 * log_var)).log_prob(x).sum(dim=1)
    torch.testing.assert_close(pixels.gaussian_nll(x_mean, x, log_var), expected)
    squares = (part.view(4, 3, 3) for part in (x_mean, x))
    variance_one = -Normal(x_mean, 1.0).log_prob(x).sum(dim=1)
    torch.testing.assert_close(pixels.gaussian_nll(*squares), variance_one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_learned_variance_gets_a_gradient_that_is_zero_at_the_mean_squared_error(dtype):
    x_mean, x = normal(4, 9, dtype=dtype), normal(4, 9, seed=1, dtype=dtype)
    log_var = torch.nn.Parameter(torch.zeros(()))  # float32, as a model would have it
    pixels.gaussian_nll(x_mean, x, log_var).sum().backward()
    squares = (x - x_mean).square()
    assert log_var.grad.item() == pytest.approx(0.5 * (1 - squares).sum().item(), rel=1e-5)

    best = pixels.optimal_log_var(x_mean.requires_grad_(), x)
    assert not best.requires_grad
    pixels.gaussian_nll(x_mean, x, best.requires_grad_()).sum().backward()
    assert best.grad.item() == pytest.approx(0, abs=1e-5)
    assert pixels.optimal_log_var(x, x).isfinite()


def test_the_fitted_gaussian_takes_the_batches_best_variance_or_the_one_that_is_given():
    x_logits, x = normal(4, 9), uniform(4, 9, seed=1)
    x_mean, fitted = torch.sigmoid(x_logits), pixels.fitted_gaussian_nll(x_logits, x)
    best = math.log((x - x_mean).square().mean())
    torch.testing.assert_close(fitted, pixels.gaussian_nll(x_mean, x, best))
    for log_var in (best - 0.1, best + 0.1):
        given = pixels.fitted_gaussian_nll(x_logits, x, log_var)
        torch.testing.assert_close(given, pixels.gaussian_nll(x_mean, x, log_var))
        assert given.sum() > fitted.sum()


# --- grey pixels ----------------------------------------------------------------------------------


def test_continuous_bernoulli_is_that_of_torch_distributions():
    x_logits, x = 4 * normal(5, 7, dtype=torch.float64), uniform(5, 7, dtype=torch.float64)
    x_logits[0, :3] = torch.tensor([0.0, 1e-3, -5e-3])  # where the constant is 0/0
    # Its own series near λ = ½ is good to 1e-4 or so: so its limits are drawn in.
    theirs = ContinuousBernoulli(logits=x_logits, lims=(0.4999, 0.5001)).log_prob(x).sum(dim=1)
    ours = pixels.continuous_bernoulli_nll(x_logits, x)
    torch.testing.assert_close(ours, -theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("x_logit", [-30.0, -1e-2, 0.0, 2.0])
def test_continuous_bernoulli_is_a_density(x_logit):
    x = torch.linspace(0, 1, 20_001, dtype=torch.float64)[:, None]
    nll = pixels.continuous_bernoulli_nll(torch.full_like(x, x_logit), x)
    assert torch.trapezoid(torch.exp(-nll), x[:, 0]).item() == pytest.approx(1, abs=1e-4)


def test_continuous_bernoulli_has_gradients_where_its_constant_is_a_limit():
    x_logits = torch.tensor([[0.0, 1e-4, 9.99e-3, 1.01e-2, -3.0, 90.0]], dtype=torch.float64)
    x = torch.full_like(x_logits, 0.3).requires_grad_()
    check = (pixels.continuous_bernoulli_nll, (x_logits.requires_grad_(), x))
    assert torch.autograd.gradcheck(*check)


@pytest.mark.parametrize("x_mean", [-0.2, 0.3, 1.0])
@pytest.mark.parametrize("log_scale", [-9.0, -4.0, 2.0])
def test_discretised_logistic_probabilities_of_256_levels_add_up_to_1(x_mean, log_scale):
    levels = (torch.arange(256, dtype=torch.float64) / 255)[:, None]
    nll = pixels.discretised_logistic_nll(torch.full_like(levels, x_mean), levels, log_scale)
    assert torch.exp(-nll).sum().item() == pytest.approx(1, abs=1e-9)


def test_discretised_logistic_is_the_integral_of_the_density():
    x, x_mean, scale = torch.tensor([[102 / 255]]), torch.tensor([[0.45]]), 0.05
    t = torch.linspace(x.item() - 1 / 510, x.item() + 1 / 510, 2001, dtype=torch.float64)
    u = (t - x_mean.item()) / scale
    density = torch.exp(-u) / (scale * (1 + torch.exp(-u)).square())
    expected = -torch.trapezoid(density, t).log().item()
    nll = pixels.discretised_logistic_nll(x_mean, x, math.log(scale))
    assert nll.item() == pytest.approx(expected, rel=1e-4)
    # A scale for each of two such pixels: their nats add up.
    pair, scales = (torch.cat([part, part], dim=1) for part in (x_mean, x)), torch.full((2,), scale)
    twice = pixels.discretised_logistic_nll(*pair, scales.log())
    assert twice.item() == pytest.approx(2 * expected, rel=1e-4)


def test_discretised_logistic_is_finite_far_out_in_float32():
    x, x_mean = torch.tensor([[0.2, 0.0, 1.0]]), torch.tensor([[0.9, 1.0, 0.0]], requires_grad=True)
    nll = pixels.discretised_logistic_nll(x_mean, x, math.log(1e-4))
    nll.sum().backward()
    # Each is about a distance over the scale: 7,000, 9,980 and 9,980 nats.
    assert nll.item() == pytest.approx(26_941, rel=1e-3)
    assert x_mean.grad.isfinite().all()


def test_the_fitted_scale_is_that_of_logistic_errors():
    x_logits, u = normal(40, 500, dtype=torch.float64), uniform(40, 500, dtype=torch.float64)
    x_mean = torch.sigmoid(x_logits)
    x = x_mean + 0.05 * torch.logit(u)  # errors of a logistic distribution of scale 0.05
    fitted = pixels.fitted_logistic_nll(x_logits, x).sum()

    def at(scale):
        return pixels.discretised_logistic_nll(x_mean, x, math.log(scale)).sum()

    # It is within a nat or two of the best of all scales, for 40 images together, ...
    assert fitted == pytest.approx(min(at(scale) for scale in (0.049, 0.05, 0.051)).item(), abs=3)
    assert fitted < min(at(0.045), at(0.055)) - 10  # ... and far from others


# --- what is refused ------------------------------------------------------------------------------

NLLS = [
    pixels.gaussian_nll,
    pixels.optimal_log_var,
    pixels.fitted_gaussian_nll,
    pixels.continuous_bernoulli_nll,
    pixels.fitted_logistic_nll,
]


@pytest.mark.parametrize("loss", NLLS, ids=lambda loss: loss.__name__)
def test_a_mismatch_names_both_shapes(loss):
    # (4, 1) would broadcast against (4, 9) to a plausible number.
    with pytest.raises(ValueError, match=r"same shape, got \(4, 1\) and \(4, 9\)"):
        loss(torch.zeros(4, 1), torch.zeros(4, 9))


@pytest.mark.parametrize("shape", [(3,), (4, 1, 9)])
@pytest.mark.parametrize(
    "loss, name",
    [(pixels.gaussian_nll, "log_var"), (pixels.discretised_logistic_nll, "log_scale")],
)
def test_a_scale_that_would_stretch_the_images_is_refused(loss, name, shape):
    x = torch.zeros(4, 9)
    with pytest.raises(ValueError, match=f"{name} .* must broadcast"):
        loss(x, x, torch.zeros(shape))
