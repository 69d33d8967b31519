"""flow: the path, what is learned on it, the steps, and a density with a known answer."""

import pytest
import torch
from draws import normal, seeded, uniform
from torch.distributions import MultivariateNormal

from vae_lesson.priors import flow
from vae_lesson.priors.flow import VelocityField, euler, follow, heun, log_density
from vae_lesson.train import fit

MEAN = torch.tensor([1.0, -2.0, 0.5])
COVARIANCE = torch.tensor([[1.5, 0.6, 0.0], [0.6, 0.8, -0.3], [0.0, -0.3, 0.4]])


def to_gaussian(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Return the best velocity from N(0, I) to N(MEAN, COVARIANCE): E[z1 - z0 | z_t = z]."""
    t = t[:, :, None]  # (B, 1, 1)
    of_line = (1 - t) ** 2 * torch.eye(3) + t**2 * COVARIANCE
    with_difference = t * COVARIANCE - (1 - t) * torch.eye(3)
    away = z[:, :, None] - t * MEAN[:, None]
    return MEAN + (with_difference @ torch.linalg.solve(of_line, away)).squeeze(2)


def test_the_loss_is_the_distance_to_the_direction_of_the_line():
    z1, z0, t = normal(5, 3), normal(5, 3, seed=1), uniform(5, 1)
    at = z0 + t * (z1 - z0)
    found = flow.matching_loss(lambda z, t: t * z, z1, z0, t)
    torch.testing.assert_close(found, (t * at - (z1 - z0)).square().sum(dim=1))


def test_following_the_best_velocity_gives_the_gaussian():
    z1 = follow(to_gaussian, normal(2000, 3), 20)[-1]
    torch.testing.assert_close(z1.mean(dim=0), MEAN, atol=0.06, rtol=0)
    torch.testing.assert_close(torch.cov(z1.T), COVARIANCE, atol=0.08, rtol=0)


def test_the_density_is_the_gaussians_whose_answer_is_known():
    z = MEAN + 1.3 * normal(50, 3, seed=2)
    exact = MultivariateNormal(MEAN, COVARIANCE).log_prob(z)
    torch.testing.assert_close(log_density(to_gaussian, z, 200), exact, atol=1e-3, rtol=0)


@pytest.mark.parametrize("step, order", [(euler, 1), (heun, 2)])
def test_half_the_step_divides_the_error_by_the_order(step, order):
    z = normal(20, 3)
    exact = follow(to_gaussian, z, 400)[-1]
    errors = [(follow(to_gaussian, z, n, step)[-1] - exact).abs().mean() for n in (20, 40)]
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.15)


def test_the_way_keeps_every_place_and_can_be_walked_back():
    way = follow(to_gaussian, normal(5, 3), 50)
    assert way.shape == (51, 5, 3)
    back = follow(to_gaussian, way[-1], 50, start=1.0, end=0.0)
    torch.testing.assert_close(back[-1], way[0], atol=1e-3, rtol=0)
    half = follow(to_gaussian, way[0], 25, end=0.5)
    torch.testing.assert_close(half[-1], way[25], atol=1e-5, rtol=0)


def test_guidance_of_one_is_the_conditional_model_and_of_none_the_free_one():
    free, asked = normal(2, 4, 3)
    torch.testing.assert_close(flow.guide(free, asked, 1), asked)
    torch.testing.assert_close(flow.guide(free, asked, 0), free)
    torch.testing.assert_close(flow.guide(free, asked, 2), asked + (asked - free))


def test_no_label_is_a_label_of_zeros():
    field, z, t = VelocityField(3, n_classes=4), normal(5, 3), torch.rand(5, 1)
    torch.testing.assert_close(field(z, t), field(z, t, torch.zeros(5, 4)))
    assert not torch.allclose(field(z, t), field(z, t, torch.eye(4)[[0] * 5]))


def test_the_terms_drop_a_share_of_the_labels_that_they_are_given():
    x, labels, seen = uniform(400, 3), torch.arange(400) % 2, []

    def field(z, t, y):
        seen.append(y)
        return torch.zeros_like(z)

    field.n_classes = 2
    terms = flow.flow_terms(lambda x, generator: x, dropped=0.25)
    found = terms(field, x, labels, generator=seeded())
    assert list(found) == ["matching"] and found["matching"].shape == (400,)
    (y,) = seen
    kept = y.sum(dim=1) == 1
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.1)
    assert torch.equal(y[kept].argmax(dim=1), labels[kept]) and (y[~kept] == 0).all()
    # Without labels the flow is told none, and meets the same noise.
    free = terms(field, x, generator=seeded())
    assert seen[1] is None and torch.equal(free["matching"], found["matching"])


def test_fit_trains_a_velocity_on_codes_and_labels():
    # Codes of one number, +2 for the first class and -2 for the second.
    images, labels = torch.zeros((400, 1), dtype=torch.uint8), torch.ones(400, dtype=torch.int64)
    images[:200], labels[:200] = 255, 0

    def encode(x, generator):
        return 4 * x - 2 + 0.1 * torch.randn(x.shape, generator=generator)

    torch.manual_seed(0)
    field = VelocityField(1, n_classes=2, hidden_size=32)
    how = {"epochs": 30, "batch_size": 50, "lr": 3e-3, "progress": False, "device": "cpu"}
    fit(field, images, labels, terms=flow.flow_terms(encode), **how)
    with torch.no_grad():
        free = follow(field, normal(400, 1), 20)[-1]
        first = follow(lambda z, t: field(z, t, torch.eye(2)[[0] * 400]), normal(400, 1), 20)[-1]
    assert first.mean() == pytest.approx(2, abs=0.3)
    assert ((free > 0).float().mean() - 0.5).abs() < 0.2 and free.abs().mean() > 1.2
