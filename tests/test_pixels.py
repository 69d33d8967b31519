"""pixels: densities against torch.distributions and sums that must be 1; sharpness."""

import math

import pytest
import torch
from torch.distributions import ContinuousBernoulli, Normal

from vae_lesson import losses, measures
from vae_lesson.likelihood import pixels


def draws(*shapes, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def grey(x):
    return torch.sigmoid(x)


def discretised_at_scale_1(x_mean, x):
    return pixels.discretised_logistic_nll(x_mean, x, 0.0)


NLLS = [pixels.gaussian_nll, pixels.continuous_bernoulli_nll, discretised_at_scale_1]


def name(f):
    return f.__name__


# --- what holds for each --------------------------------------------------------------------------


@pytest.mark.parametrize("nll", NLLS, ids=name)
def test_it_sums_over_the_pixels_of_images_of_any_shape(nll):
    output, x = draws((3, 5, 5), (3, 5, 5))
    x = grey(x)
    values = nll(output, x)
    assert values.shape == (3,)
    torch.testing.assert_close(values, nll(output.flatten(1), x.flatten(1)))
    # An image beside itself has twice the pixels and twice the nats: a mean would stay the same.
    torch.testing.assert_close(nll(torch.cat([output] * 2, 1), torch.cat([x] * 2, 1)), 2 * values)


@pytest.mark.parametrize("nll", NLLS, ids=name)
def test_a_value_does_not_depend_on_the_rest_of_the_batch(nll):
    output, x = draws((6, 5), (6, 5))
    x = grey(x)
    alone = torch.cat([nll(output[i : i + 1], x[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(nll(output, x), alone)


@pytest.mark.parametrize("nll", NLLS, ids=name)
def test_gradients_are_those_of_finite_differences(nll):
    output, x = draws((3, 4), (3, 4))
    assert torch.autograd.gradcheck(nll, (output.requires_grad_(), grey(x).requires_grad_()))


@pytest.mark.parametrize("loss", [*NLLS, pixels.optimal_log_var], ids=name)
def test_a_mismatch_names_both_shapes(loss):
    # (4, 1) would broadcast against (4, 9) to a plausible number.
    with pytest.raises(ValueError, match=r"same shape, got \(4, 1\) and \(4, 9\)"):
        loss(torch.zeros(4, 1), torch.zeros(4, 9))


@pytest.mark.parametrize("shape", [(3,), (5, 9), (4, 1, 9)])
def test_a_scale_that_would_stretch_the_images_is_refused(shape):
    x = torch.zeros(4, 9)
    for loss, name in [
        (pixels.gaussian_nll, "log_var"),
        (pixels.discretised_logistic_nll, "log_scale"),
    ]:
        with pytest.raises(ValueError, match=f"{name} .* must broadcast"):
            loss(x, x, torch.zeros(shape))


# --- Gaussian -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (9,), (4, 1), (4, 9)], ids=str)
def test_gaussian_nll_is_that_of_torch_distributions(shape):
    x_mean, x, log_var = draws((4, 9), (4, 9), shape)
    expected = -Normal(x_mean, torch.exp(0.5 * log_var)).log_prob(x).sum(dim=1)
    torch.testing.assert_close(pixels.gaussian_nll(x_mean, x, log_var), expected)


def test_gaussian_nll_takes_a_number_and_defaults_to_variance_one():
    x_mean, x = draws((4, 9), (4, 9))
    expected = -Normal(x_mean, 0.5).log_prob(x).sum(dim=1)
    torch.testing.assert_close(pixels.gaussian_nll(x_mean, x, math.log(0.25)), expected)
    expected = -Normal(x_mean, 1.0).log_prob(x).sum(dim=1)
    torch.testing.assert_close(pixels.gaussian_nll(x_mean, x), expected)


def test_the_gradient_of_the_gaussian_log_var_is_that_of_finite_differences():
    inputs = (x.requires_grad_() for x in draws((3, 4), (3, 4), (4,)))
    assert torch.autograd.gradcheck(pixels.gaussian_nll, tuple(inputs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_learned_variance_gets_a_gradient_that_is_zero_at_the_mean_squared_error(dtype):
    x_mean, x = draws((4, 9), (4, 9), dtype=dtype)
    log_var = torch.nn.Parameter(torch.zeros(()))  # float32, as a model would have it
    pixels.gaussian_nll(x_mean, x, log_var).sum().backward()
    squares = (x - x_mean).square()
    assert log_var.grad.item() == pytest.approx(0.5 * (1 - squares).sum().item(), rel=1e-5)

    best = torch.nn.Parameter(squares.mean().log())
    pixels.gaussian_nll(x_mean, x, best).sum().backward()
    assert best.grad.item() == pytest.approx(0, abs=1e-5)


def test_optimal_log_var_is_where_the_gaussian_loss_is_least():
    x_mean, x = draws((4, 9), (4, 9))
    best = pixels.optimal_log_var(x_mean.requires_grad_(), x)
    assert not best.requires_grad
    least = pixels.gaussian_nll(x_mean, x, best).sum()
    for step in (-0.1, 0.1):
        assert pixels.gaussian_nll(x_mean, x, best + step).sum() > least
    assert pixels.optimal_log_var(x, x).isfinite()


# --- grey pixels ----------------------------------------------------------------------------------


def test_continuous_bernoulli_is_that_of_torch_distributions():
    (x_logits, x) = draws((5, 7), (5, 7))
    x_logits, x = 4 * x_logits, grey(x)
    x_logits[0, :3] = torch.tensor([0.0, 1e-3, -5e-3])  # where the constant is 0/0
    # Its own series near λ = ½ is good to 1e-4 or so: so its limits are drawn in.
    theirs = ContinuousBernoulli(logits=x_logits, lims=(0.4999, 0.5001)).log_prob(x).sum(dim=1)
    ours = pixels.continuous_bernoulli_nll(x_logits, x)
    torch.testing.assert_close(ours, -theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("x_logit", [-30.0, -3.0, -1e-2, 0.0, 5e-3, 2.0, 30.0])
def test_continuous_bernoulli_is_a_density_and_the_cross_entropy_is_not(x_logit):
    x = torch.linspace(0, 1, 20_001, dtype=torch.float64)[:, None]
    x_logits = torch.full_like(x, x_logit)
    area = torch.trapezoid(torch.exp(-pixels.continuous_bernoulli_nll(x_logits, x)), x[:, 0])
    assert area.item() == pytest.approx(1, abs=1e-4)
    short = torch.trapezoid(torch.exp(-losses.bernoulli_nll(x_logits, x)), x[:, 0])
    assert short.item() < 0.51


def test_continuous_bernoulli_has_gradients_where_its_constant_is_a_limit():
    x_logits = torch.tensor([[0.0, 1e-4, 9.99e-3, 1.01e-2, -3.0, 90.0]], dtype=torch.float64)
    x = torch.full_like(x_logits, 0.3).requires_grad_()
    check = (pixels.continuous_bernoulli_nll, (x_logits.requires_grad_(), x))
    assert torch.autograd.gradcheck(*check)


@pytest.mark.parametrize("x_mean", [-0.2, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("log_scale", [-9.0, -4.0, -1.0, 2.0])
def test_discretised_logistic_probabilities_of_256_levels_add_up_to_1(x_mean, log_scale):
    levels = (torch.arange(256, dtype=torch.float64) / 255)[:, None]
    nll = pixels.discretised_logistic_nll(torch.full_like(levels, x_mean), levels, log_scale)
    assert torch.exp(-nll).sum().item() == pytest.approx(1, abs=1e-9)


def test_discretised_logistic_is_the_integral_of_the_density():
    x, x_mean, log_scale = torch.tensor([[0.4]]), torch.tensor([[0.45]]), math.log(0.05)
    x = (x * 255).round() / 255
    t = torch.linspace(x.item() - 1 / 510, x.item() + 1 / 510, 2001, dtype=torch.float64)
    u = (t - x_mean.item()) / 0.05
    density = torch.exp(-u) / (0.05 * (1 + torch.exp(-u)).square())
    expected = -torch.trapezoid(density, t).log().item()
    nll = pixels.discretised_logistic_nll(x_mean, x, log_scale).item()
    assert nll == pytest.approx(expected, rel=1e-4)


def test_discretised_logistic_is_finite_far_out_in_float32():
    x, x_mean = torch.tensor([[0.2, 0.0, 1.0]]), torch.tensor([[0.9, 1.0, 0.0]], requires_grad=True)
    nll = pixels.discretised_logistic_nll(x_mean, x, math.log(1e-4))
    nll.sum().backward()
    # Each is about a distance over the scale: 7,000, 9,980 and 9,980 nats.
    assert nll.item() == pytest.approx(26_941, rel=1e-3)
    assert x_mean.grad.isfinite().all()


# --- sharpness ------------------------------------------------------------------------------------


def test_the_fitted_scale_is_that_of_logistic_errors():
    generator = torch.Generator().manual_seed(0)
    x_logits = torch.randn((40, 500), generator=generator, dtype=torch.float64)
    u = torch.rand((40, 500), generator=generator, dtype=torch.float64)
    x = grey(x_logits) + 0.05 * torch.logit(u)  # errors of a logistic distribution of scale 0.05
    fitted = pixels.fitted_logistic_nll(x_logits, x).sum()

    def at(scale):
        return pixels.discretised_logistic_nll(grey(x_logits), x, math.log(scale)).sum()

    # It is within a nat or two of the best of all scales, for 40 images together, ...
    assert fitted == pytest.approx(min(at(scale) for scale in (0.049, 0.05, 0.051)).item(), abs=3)
    assert fitted < min(at(0.045), at(0.055)) - 10  # ... and far from others


def test_sharpness_falls_with_blur_and_reads_both_kinds_of_images():
    generator = torch.Generator().manual_seed(0)
    images = (torch.rand((5, 12, 12), generator=generator) * 255).byte()
    blurred = torch.nn.functional.avg_pool2d(images[:, None].float() / 255, 3, 1, 1)
    assert measures.sharpness(blurred) < 0.2 * measures.sharpness(images)
    assert measures.sharpness(images) == pytest.approx(measures.sharpness(images / 255))
    # A ramp has no edges; a checkerboard of 0 and 1 has -4 and +4 everywhere, variance 16.
    ramp = torch.linspace(0, 1, 12).expand(1, 12, 12)
    assert measures.sharpness(ramp) == pytest.approx(0, abs=1e-8)
    board = (torch.arange(12)[:, None] + torch.arange(12)) % 2.0
    assert measures.sharpness(board[None]) == pytest.approx(16, rel=0.02)


def test_sharpness_in_colour_is_the_mean_over_the_channels():
    images = torch.rand((4, 3, 7, 7), generator=torch.Generator().manual_seed(0))
    channels = [measures.sharpness(images[:, i]) for i in range(3)]
    assert measures.sharpness(images) == pytest.approx(sum(channels) / 3)
    assert measures.sharpness(images.flatten(1)) == measures.sharpness(images)


@pytest.mark.parametrize(
    "shape, says", [((2, 24), "24 values are no square"), ((2, 3, 2, 2), "3×3 or more, got 2×2")]
)
def test_sharpness_of_what_has_no_inner_pixel_is_refused(shape, says):
    with pytest.raises(ValueError, match=says):
        measures.sharpness(torch.zeros(shape))
