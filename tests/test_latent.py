"""latent: paths, grids, directions, and handwriting measured on drawn figures."""

import math

import pytest
import torch

from vae_lesson import latent, measures


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- paths ----------------------------------------------------------------------------------------

Z0, Z1 = normal(2, 8)


@pytest.mark.parametrize("path", [latent.lerp, latent.slerp])
def test_a_path_goes_from_z0_to_z1(path):
    torch.testing.assert_close(path(Z0, Z1, 0.0), Z0)
    torch.testing.assert_close(path(Z0, Z1, 1.0), Z1)
    t = torch.tensor([[0.0], [0.3], [1.0]])
    torch.testing.assert_close(path(Z0, Z1, t)[1], path(Z0, Z1, 0.3))


def test_lerp_is_a_straight_line():
    torch.testing.assert_close(latent.lerp(Z0, Z1, 0.5), (Z0 + Z1) / 2)
    torch.testing.assert_close(latent.lerp(Z0, Z1, 0.25), 0.75 * Z0 + 0.25 * Z1)


def test_slerp_of_codes_of_equal_length_keeps_it_where_lerp_cuts_through():
    z1 = Z1 * Z0.norm() / Z1.norm()
    t = torch.linspace(0, 1, 9)[:, None]
    norms = latent.slerp(Z0, z1, t).norm(dim=1)
    torch.testing.assert_close(norms, Z0.norm().expand(9))
    assert latent.lerp(Z0, z1, 0.5).norm() < 0.95 * Z0.norm()
    # The midpoint is on the bisector.
    bisector = (Z0 + z1) / (Z0 + z1).norm() * Z0.norm()
    torch.testing.assert_close(latent.slerp(Z0, z1, 0.5), bisector)


def test_slerp_turns_evenly_and_keeps_the_norm_between_theirs():
    def angle(a, b):
        return torch.acos(torch.dot(a, b) / (a.norm() * b.norm())).item()

    z0, z1 = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    for t in (0.1, 0.25, 0.8):
        assert angle(z0, latent.slerp(z0, z1, t)) == pytest.approx(t * math.pi / 2, abs=1e-3)
    norms = latent.slerp(z0, 1.5 * z1, torch.linspace(0, 1, 9)[:, None]).norm(dim=1)
    assert norms.min() >= 2 - 1e-5 and norms.max() <= 3 + 1e-5


@pytest.mark.parametrize(
    "z1",
    [Z0, 2 * Z0, -Z0, -0.5 * Z0, Z0 * (1 + 1e-7), torch.zeros(8)],
    ids=["same", "parallel", "opposite", "antiparallel", "nearly the same", "zero"],
)
def test_slerp_falls_back_to_lerp_where_there_is_no_arc(z1):
    t = torch.linspace(0, 1, 5)[:, None]
    path = latent.slerp(Z0, z1, t)
    assert torch.isfinite(path).all()
    torch.testing.assert_close(path, latent.lerp(Z0, z1, t))
    assert torch.isfinite(latent.slerp(z1, Z0, 0.5)).all()


def test_slerp_is_smooth_next_to_the_fallback():
    # A turn of 0.01 rad: far enough for the arc, and near enough to be the line.
    z0 = torch.tensor([1.0, 0.0])
    z1 = torch.tensor([math.cos(0.01), math.sin(0.01)])
    torch.testing.assert_close(
        latent.slerp(z0, z1, 0.3), latent.lerp(z0, z1, 0.3), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("path", [latent.lerp, latent.slerp])
def test_interpolate_includes_both_ends(path):
    codes = latent.interpolate(Z0, Z1, n=7, path=path)
    assert codes.shape == (7, 8)
    torch.testing.assert_close(codes[0], Z0)
    torch.testing.assert_close(codes[-1], Z1)
    torch.testing.assert_close(codes[2], path(Z0, Z1, 2 / 6))


def test_traversal_changes_one_dimension():
    values = torch.tensor([-3.0, 0.0, 3.0])
    z = Z0.clone()
    codes = latent.traversal(z, 5, values)
    assert torch.equal(codes[:, 5], values)
    others = [j for j in range(8) if j != 5]
    assert torch.equal(codes[:, others], Z0[others].expand(3, -1))
    assert torch.equal(z, Z0)  # and leaves the code itself alone


# --- grids ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_manifold_grid_has_the_gaussians_quantiles(n):
    grid = latent.manifold_grid(n).view(n, n, 2)
    quantiles = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(n) + 0.5) / n)
    for i in range(n):
        # Row by row from the top left: z1 grows to the right, z2 upwards.
        torch.testing.assert_close(grid[i, :, 0], quantiles, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(grid[:, i, 1], quantiles.flip(0), rtol=1e-4, atol=1e-5)


def test_manifold_grid_starts_top_left():
    grid = latent.manifold_grid(3)
    assert grid.shape == (9, 2)
    z1, z2 = grid.unbind(dim=1)
    assert z1[0] < 0 < z2[0]  # top left
    assert z1[2] > 0 and z2[2] > 0  # top right
    assert z1[6] < 0 and z2[6] < 0  # bottom left
    assert grid[4].abs().max() < 1e-6  # centre


def test_box_grid_has_cell_centres_from_the_top_left():
    grid = latent.box_grid(torch.tensor([0.0, -2.0]), torch.tensor([4.0, 2.0]), n=2)
    assert grid.tolist() == [[1.0, 1.0], [3.0, 1.0], [1.0, -1.0], [3.0, -1.0]]


# --- directions -----------------------------------------------------------------------------------


def test_attribute_direction_is_the_slope_of_the_mean_code():
    direction = torch.tensor([2.0, -1.0, 0.0])
    attribute = 5 + 3 * normal(4000)
    codes = attribute[:, None] * direction + torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(
        latent.attribute_direction(codes, attribute), direction, rtol=1e-3, atol=1e-3
    )


def test_attribute_direction_is_a_pattern_and_not_a_weight_vector():
    # Strong noise in a direction that is not orthogonal to the planted one: a regression of the
    # attribute on the codes would cancel it, the pattern does not (Haufe et al. 2014).
    n, direction = 20_000, torch.tensor([1.0, 0.0])
    attribute = normal(n)
    codes = attribute[:, None] * direction + normal(n, seed=1)[:, None] * torch.tensor([3.0, 3.0])
    codes += 0.1 * normal(n, 2, seed=2)
    found = latent.attribute_direction(codes, attribute)
    assert (found - direction).abs().max() < 4 * 3 / math.sqrt(n)
    weights = torch.linalg.lstsq(codes, attribute[:, None]).solution[:, 0]
    assert weights[1] < -0.5  # where the pattern has 0


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32], ids=str)
def test_attribute_direction_of_two_groups_is_the_difference_of_their_means(dtype):
    codes = normal(50, 4)
    has_it = torch.arange(50) % 3 == 0
    torch.testing.assert_close(
        latent.attribute_direction(codes, has_it.to(dtype)),
        codes[has_it].mean(dim=0) - codes[~has_it].mean(dim=0),
    )


@pytest.mark.parametrize(
    "value, n",
    [(0.0, 10), (1.0, 10), (0.5, 1000), pytest.param(0.1, 10)],
)
def test_a_constant_attribute_has_no_direction(value, n):
    with pytest.raises(ValueError, match="same value for every image"):
        latent.attribute_direction(normal(n, 2), torch.full((n,), value))


def test_attribute_and_codes_must_be_as_many():
    with pytest.raises(ValueError, match="5 codes but 4 attribute values"):
        latent.attribute_direction(normal(5, 2), torch.zeros(4))


# --- handwriting ----------------------------------------------------------------------------------


def stroke(width, lean=0.0, top=3, bottom=25, side=28):
    """Draw a bar `width` pixels wide that leans to the right by this many degrees."""
    image = torch.zeros(side, side)
    column = torch.arange(side)
    for row in range(top, bottom):
        left = side / 2 - width / 2 + (side / 2 - row - 0.5) * math.tan(math.radians(lean))
        # The part of each pixel that is inside, so that a shear of less than a pixel shows.
        image[row] = (torch.minimum(column + 1, torch.tensor(left + width)) - column.clamp_min(left)
                      ).clamp(0, 1)  # fmt: skip
    return image


MEASURES = [measures.thickness, measures.slant, measures.bar]


def test_the_drawn_strokes_are_what_they_should_be():
    assert torch.allclose(stroke(3.0, lean=20).sum(dim=1)[3:25], torch.tensor(3.0), atol=1e-4)
    upper, lower = stroke(2.0, lean=20)[4], stroke(2.0, lean=20)[23]
    assert upper.argmax() > lower.argmax()  # the top is on the right


@pytest.mark.parametrize("width", [2, 3, 4, 5])
def test_thickness_of_an_upright_bar(width):
    found = measures.thickness(stroke(width)[None]).item()
    assert found == pytest.approx(width, rel=0.2)


def test_thickness_orders_widths_and_does_not_depend_on_place_or_ink():
    strokes = torch.stack([stroke(width) for width in (2, 2.5, 3, 4, 5)])
    thickness = measures.thickness(strokes)
    assert (thickness.diff() > 0.2).all()
    torch.testing.assert_close(measures.thickness(strokes.roll(4, dims=2)), thickness)
    torch.testing.assert_close(measures.thickness(strokes.transpose(1, 2)), thickness)
    torch.testing.assert_close(measures.thickness(0.5 * strokes), thickness, rtol=1e-3, atol=0)


@pytest.mark.parametrize("degrees", [-35, -20, -5, 0, 5, 20, 35])
def test_slant_of_a_leaning_bar(degrees):
    images = torch.stack(
        [stroke(3.0, lean=degrees), stroke(1.5, lean=degrees).roll((1, -2), (0, 1))]
    )
    assert measures.slant(images).tolist() == pytest.approx([degrees, degrees], abs=2)


def seven(with_bar, boldness=2):
    image = torch.zeros(28, 28)
    image[4 : 4 + boldness, 8:21] = 1
    for row in range(6, 24):  # the stem, down to the left
        left = 19 - (row - 6) // 2
        image[row, left : left + 2] = 1
    if with_bar:
        image[14 : 14 + boldness, 10:20] = 1
    return image


def test_bar_sees_the_bar_of_a_seven():
    without, with_bar = measures.bar(torch.stack([seven(False), seven(True)])).tolist()
    assert without == pytest.approx(0, abs=0.5)
    assert with_bar == pytest.approx(10 - 2, abs=0.5)  # its ten pixels, less the stem's two
    foot = seven(False)
    foot[22:24, 5:20] = 1
    assert measures.bar(foot[None]).item() == pytest.approx(0, abs=0.5)  # too low for a bar
    # With top and bar of five rows each, half of the figure's rows are no stem.
    assert measures.bar(seven(True, boldness=5)[None]).item() == pytest.approx(8, abs=0.5)


@pytest.mark.parametrize("measure", MEASURES)
def test_measures_take_flat_images_one_by_one(measure):
    images = torch.stack([seven(True), stroke(3.0, lean=10), seven(False), stroke(5.0)])
    values = measure(images)
    assert values.shape == (4,)
    torch.testing.assert_close(measure(images.flatten(1)), values)
    torch.testing.assert_close(torch.cat([measure(image[None]) for image in images]), values)


@pytest.mark.parametrize("measure", MEASURES)
def test_measures_of_an_empty_image_are_zero(measure):
    assert measure(torch.zeros(2, 28, 28)).tolist() == [0, 0]


@pytest.mark.parametrize("measure", MEASURES)
def test_measures_refuse_images_in_colour(measure):
    for shape in [(2, 3, 28, 28), (2, 3 * 28 * 28)]:
        with pytest.raises(ValueError, match="measures of handwriting take grey images, got"):
            measure(torch.zeros(shape))


@pytest.mark.parametrize("measure", [measures.thickness, measures.bar])
def test_measures_refuse_uint8_images(measure):
    with pytest.raises(ValueError, match="float"):
        measure((255 * stroke(3)[None]).byte())
