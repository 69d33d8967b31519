"""latent: paths, grids and directions."""

import math

import pytest
import torch
from draws import normal

from vae_lesson import latent

# --- paths ----------------------------------------------------------------------------------------

Z0, Z1 = normal(2, 8)


def test_lerp_is_a_straight_line():
    for t in (0.0, 0.25, 1.0):
        torch.testing.assert_close(latent.lerp(Z0, Z1, t), (1 - t) * Z0 + t * Z1)


def test_slerp_of_codes_of_equal_length_keeps_it_and_turns_evenly():
    z1 = Z1 * Z0.norm() / Z1.norm()
    t = torch.linspace(0, 1, 9)[:, None]
    arc = latent.slerp(Z0, z1, t)
    torch.testing.assert_close(arc.norm(dim=1), Z0.norm().expand(9))
    cosines = arc @ Z0 / Z0.square().sum()
    omega = torch.acos(cosines[-1])
    torch.testing.assert_close(cosines, torch.cos(t[:, 0] * omega))
    torch.testing.assert_close(arc[-1], z1)
    torch.testing.assert_close(latent.slerp(Z0, z1, 0.25), arc[2])  # a number is as good


def test_slerp_of_codes_of_unequal_length_ends_at_both():
    torch.testing.assert_close(latent.slerp(Z0, 3 * Z1, torch.tensor([[0.0], [1.0]]))[1], 3 * Z1)
    norms = latent.slerp(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 3.0]), 0.5).norm()
    assert 2 < norms < 3


@pytest.mark.parametrize(
    "z1",
    [Z0, 2 * Z0, -0.5 * Z0, Z0 * (1 + 1e-7), torch.zeros(8)],
    ids=["same", "parallel", "antiparallel", "nearly the same", "zero"],
)
def test_slerp_falls_back_to_lerp_where_there_is_no_arc(z1):
    t = torch.linspace(0, 1, 5)[:, None]
    torch.testing.assert_close(latent.slerp(Z0, z1, t), latent.lerp(Z0, z1, t))
    assert torch.isfinite(latent.slerp(z1, Z0, 0.5)).all()


def test_traversal_changes_one_dimension():
    values, z = torch.tensor([-3.0, 0.0, 3.0]), Z0.clone()
    codes = latent.traversal(z, 5, values)
    assert torch.equal(codes[:, 5], values)
    others = [j for j in range(8) if j != 5]
    assert torch.equal(codes[:, others], Z0[others].expand(3, -1))
    assert torch.equal(z, Z0)  # and leaves the code itself alone


# --- grids ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 20])
def test_manifold_grid_has_the_gaussians_quantiles(n):
    grid = latent.manifold_grid(n).view(n, n, 2)
    quantiles = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(n) + 0.5) / n)
    for i in range(n):
        # Row by row from the top left: z1 grows to the right, z2 upwards.
        torch.testing.assert_close(grid[i, :, 0], quantiles, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(grid[:, i, 1], quantiles.flip(0), rtol=1e-4, atol=1e-5)


def test_box_grid_has_cell_centres_from_the_top_left():
    grid = latent.box_grid(torch.tensor([0.0, -2.0]), torch.tensor([4.0, 2.0]), n=2)
    assert grid.tolist() == [[1.0, 1.0], [3.0, 1.0], [1.0, -1.0], [3.0, -1.0]]


# --- directions -----------------------------------------------------------------------------------


def test_attribute_direction_is_the_pattern_and_not_a_weight_vector():
    # Strong noise in a direction that is not orthogonal to the planted one: a regression of the
    # attribute on the codes would cancel it, the pattern does not (Haufe et al. 2014).
    n, direction = 20_000, torch.tensor([2.0, 0.0])
    attribute = 5 + normal(n)
    codes = attribute[:, None] * direction + normal(n, seed=1)[:, None] * torch.tensor([3.0, 3.0])
    codes += 0.1 * normal(n, 2, seed=2) + 1
    found = latent.attribute_direction(codes, attribute)
    assert (found - direction).abs().max() < 4 * 3 / math.sqrt(n)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32], ids=str)
def test_attribute_direction_of_two_groups_is_the_difference_of_their_means(dtype):
    codes, has_it = normal(50, 4), torch.arange(50) % 3 == 0
    expected = codes[has_it].mean(dim=0) - codes[~has_it].mean(dim=0)
    torch.testing.assert_close(latent.attribute_direction(codes, has_it.to(dtype)), expected)


@pytest.mark.parametrize("value", [0.1, math.nan])
def test_a_constant_attribute_has_no_direction(value):
    with pytest.raises(ValueError, match="is NaN, or has the same value for every image"):
        latent.attribute_direction(normal(10, 2), torch.full((10,), value))


def test_attribute_and_codes_must_be_as_many():
    with pytest.raises(ValueError, match="5 codes but 4 attribute values"):
        latent.attribute_direction(normal(5, 2), torch.zeros(4))
