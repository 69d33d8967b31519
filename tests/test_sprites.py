"""sprites: the images show their factors, and the information is that of worked examples."""

import itertools
import math

import pytest
import sprites
import torch
from sprites import ANGLES, AREAS, PLACES, SHAPES, Sprites, make_sprites

SPRITES = make_sprites()
ENTROPY = torch.tensor(Sprites.counts).log()  # every value is as frequent as the others


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def moments(images):
    """Return the weights `(N, 784)`, and each image's offsets z = right + i up from its centre."""
    weight = images.flatten(1).double() / 255
    row, column = torch.meshgrid(torch.arange(28) + 0.5, torch.arange(28) + 0.5, indexing="ij")
    z = torch.complex(column, -row).flatten().to(torch.complex128)
    centre = (weight * z).sum(dim=1) / weight.sum(dim=1)
    return weight, z - centre[:, None], centre


# --- the images -----------------------------------------------------------------------------------


def test_the_factors_are_all_combinations_in_order():
    assert Sprites.names == ("shape", "size", "angle", "x", "y")
    assert Sprites.counts == (3, 4, 8, 8, 8)
    assert SPRITES.images.shape == (6144, 28, 28) and SPRITES.images.dtype == torch.uint8
    expected = list(itertools.product(range(3), range(4), range(8), range(8), range(8)))
    assert SPRITES.factors.dtype == torch.int64
    assert SPRITES.factors.tolist() == [list(values) for values in expected]


def test_sprites_are_bright_on_black_with_grey_edges():
    x = SPRITES.images.flatten(1).float() / 255
    assert (x.amax(dim=1) == 1).all()
    assert ((x == 0).float().mean(dim=1) > 0.85).all()
    grey = ((x > 0) & (x < 1)).sum(dim=1)
    assert (grey >= 16).all()


def test_every_combination_is_another_image():
    x = SPRITES.images.flatten(1).float() / 255
    distance = torch.cdist(x, x).fill_diagonal_(math.inf)
    # Not only by rounding: the nearest two are a small square and the same, turned by a step.
    assert distance.min() > 0.6


def test_the_area_is_declared_for_every_shape_angle_and_place():
    area = SPRITES.images.flatten(1).double().sum(dim=1) / 255
    declared = torch.tensor(AREAS, dtype=torch.float64)[SPRITES.factors[:, 1]]
    assert ((area / declared - 1).abs() < 0.02).all()


def test_the_centre_of_mass_is_declared_for_every_sprite():
    centre = moments(SPRITES.images)[2]
    places = torch.tensor(PLACES, dtype=torch.float64)
    assert ((centre.real - places[SPRITES.factors[:, 3]]).abs() < 0.1).all()
    assert ((-centre.imag - places[SPRITES.factors[:, 4]]).abs() < 0.1).all()  # y counts downwards


def test_a_sprite_that_moves_stays_the_same_whole_sprite():
    grid = SPRITES.images.view(*Sprites.counts, 28, 28)
    for i, j in itertools.product(range(8), repeat=2):
        # roll brings back on the other side what goes over the border: nothing may.
        moved = grid[:, :, :, 0, 0].roll((2 * j, 2 * i), dims=(-2, -1))
        assert torch.equal(grid[:, :, :, i, j], moved)


# The mean of z^k turns by k times the angle, for a shape of k corners. At angle 0 the square has
# its corners on the diagonals (z⁴ < 0), the ellipse lies (z² > 0), the heart's tip is down (z³: i).
@pytest.mark.parametrize(
    "shape, corners, start", [("square", 4, 180), ("ellipse", 2, 0), ("heart", 3, 90)]
)
def test_the_angle_turns_the_sprite_anticlockwise(shape, corners, start):
    chosen = SPRITES.factors[:, 0] == SHAPES.index(shape)
    weight, z, _ = moments(SPRITES.images[chosen])
    found = (weight * z**corners).sum(dim=1).angle().rad2deg()
    declared = torch.tensor(ANGLES, dtype=torch.float64)[SPRITES.factors[chosen, 2]]
    off = (found - start - corners * declared + 180) % 360 - 180
    assert (off.abs() / corners < 3).all()  # degrees; the angles are 11.25 apart


def test_the_shapes_are_a_square_an_ellipse_and_a_heart():
    largest = SPRITES.images.view(*Sprites.counts, 28, 28)[:, -1, 0, 3, 3].double() / 255
    square, ellipse, heart = largest
    half = math.sqrt(72) / 2  # the share of each row of pixels that [13 - half, 13 + half] covers
    share = torch.tensor([min(1, max(0, half + 0.5 - abs(i + 0.5 - 13))) for i in range(28)])
    torch.testing.assert_close(square, torch.outer(share, share).double(), atol=1 / 16, rtol=0)
    weight, z, _ = moments(ellipse[None] * 255)
    spread = [(weight * part.square()).sum() for part in (z.real, z.imag)]
    assert (spread[0] / spread[1]).item() == pytest.approx(4, rel=0.05)  # twice as long as wide
    torch.testing.assert_close(heart[:, :26], heart[:, :26].flip(1), atol=1e-2, rtol=0)
    width = (heart > 0.5).sum(dim=1)
    width = width[width > 0]
    assert width[-1] <= 2  # the tip
    # Two lobes: the top row of the heart is dark in the middle and bright beside it.
    top = heart[(heart > 0.5).any(dim=1)][0]
    assert top[12:14].max() < 0.5 < top[:12].max()


def test_the_axis_ratio_of_the_ellipse_at_every_angle():
    chosen = SPRITES.factors[:, 0] == SHAPES.index("ellipse")
    weight, z, _ = moments(SPRITES.images[chosen])
    # The eigenvalues of the second moments are (total ± |Σ z²|) / 2.
    total, turn = (weight * z.abs() ** 2).sum(dim=1), (weight * z**2).sum(dim=1).abs()
    large = SPRITES.factors[chosen, 1] == 3
    ratio = ((total + turn) / (total - turn))[large]
    assert ((ratio - 4).abs() < 0.25).all()


def test_sprites_may_be_made_on_another_device():
    elsewhere = make_sprites(device="meta")
    assert elsewhere.images.device.type == elsewhere.factors.device.type == "meta"


# --- mutual information ---------------------------------------------------------------------------


def test_the_information_of_a_factor_in_itself_is_its_entropy():
    information = sprites.mutual_information(SPRITES.factors.float(), SPRITES.factors)
    torch.testing.assert_close(information, torch.diag(ENTROPY), atol=1e-6, rtol=1e-5)


def test_the_information_of_a_noisy_bit_is_analytic():
    # Of 100 bits 10 are flipped: I = log 2 - H(0.1).
    bit = torch.arange(100) % 2
    flipped = torch.where(torch.arange(100) < 10, 1 - bit, bit)
    found = sprites.mutual_information(3.5 - 2 * flipped[:, None].float(), bit[:, None])
    assert found.item() == pytest.approx(math.log(2) + 0.1 * math.log(0.1) + 0.9 * math.log(0.9))


def test_the_information_is_that_of_the_definition():
    z, v = normal(300, 1), torch.randint(0, 3, (300, 1), generator=torch.Generator().manual_seed(1))
    z = z + v  # so that there is some
    edges = torch.linspace(z.min().item(), z.max().item(), 21)
    expected = 0.0
    for low, high in itertools.pairwise(edges):
        in_bin = (z >= low) & ((z < high) | (high == edges[-1]))
        for value in range(3):
            both = (in_bin & (v == value)).double().mean()
            if both > 0:
                apart = in_bin.double().mean() * (v == value).double().mean()
                expected += (both * (both / apart).log()).item()
    found = sprites.mutual_information(z, v).item()
    assert found == pytest.approx(expected, rel=1e-5)
    assert found > 0.2


def test_a_constant_dimension_informs_of_nothing():
    codes = torch.cat([torch.full((6144, 1), 0.3), SPRITES.factors[:, :1].float()], dim=1)
    information = sprites.mutual_information(codes, SPRITES.factors)
    assert (information[0] == 0).all()
    assert information[1, 0] > 1
    collapsed = sprites.mutual_information_gap(torch.full((6144, 4), -7.0), SPRITES.factors)
    assert collapsed.mean == 0 and (collapsed.information == 0).all()


@pytest.mark.parametrize("n", [500, 6144])
def test_the_bias_of_random_codes_is_as_the_docstring_says(n):
    chosen = torch.randperm(6144, generator=torch.Generator().manual_seed(1))[:n]
    factors = SPRITES.factors[chosen]
    found = sprites.mutual_information(normal(n, 40), factors).mean(dim=0)
    expected = 19 * (torch.tensor(Sprites.counts) - 1) / (2 * n)
    torch.testing.assert_close(found, expected, rtol=0.25, atol=0)


# --- the gap --------------------------------------------------------------------------------------


def test_a_perfect_code_scores_one():
    perfect = sprites.mutual_information_gap(SPRITES.factors.float(), SPRITES.factors)
    assert perfect.mean == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(perfect.per_factor, torch.ones(5), atol=1e-5, rtol=0)
    assert perfect.information.shape == (5, 5)


@pytest.mark.parametrize("f", [torch.sqrt, torch.neg, lambda v: torch.sinh(v / 3) * 100 - 7])
def test_a_perfect_code_may_be_stretched_permuted_and_padded(f):
    codes = f(SPRITES.factors[:, [3, 0, 4, 2, 1]].float())
    codes = torch.cat([codes, torch.zeros(6144, 2)], dim=1)
    assert sprites.mutual_information_gap(codes, SPRITES.factors).mean == pytest.approx(1, abs=1e-5)


def test_equal_widths_do_not_survive_an_outlier():
    # What the docstring admits, so that nobody takes it for a property of the codes.
    codes = SPRITES.factors.float()
    codes[0] = 1000.0
    assert sprites.mutual_information_gap(codes, SPRITES.factors).mean < 0.01


def test_a_perfect_code_with_a_little_noise_still_scores_one():
    codes = SPRITES.factors + 0.05 * normal(6144, 5)
    assert sprites.mutual_information_gap(codes, SPRITES.factors).mean > 0.99


def test_a_random_code_scores_about_nothing():
    gap = sprites.mutual_information_gap(normal(6144, 10), SPRITES.factors)
    assert 0 <= gap.mean < 0.002


def test_factors_told_twice_score_nothing():
    twice = SPRITES.factors.float().repeat(1, 2)
    gap = sprites.mutual_information_gap(twice, SPRITES.factors)
    assert gap.mean == pytest.approx(0, abs=1e-6)
    assert (gap.information.amax(dim=0) > 1).all()  # although all is known


def test_the_gap_to_a_dimension_that_tells_half_is_analytic():
    # x in one dimension, and its upper bit in another: (log 8 - log 2) / log 8.
    x = SPRITES.factors[:, 3:4]
    gap = sprites.mutual_information_gap(torch.cat([x, x // 4], dim=1).float(), x)
    assert gap.mean == pytest.approx(2 / 3, abs=1e-5)


def test_two_factors_in_one_dimension_lose_nothing():
    # What the MIG does not ask for. 4 sizes × 3 shapes are 12 values: each has a bin to itself.
    v = SPRITES.factors[:, :2]
    codes = torch.stack([3 * v[:, 1] + v[:, 0], torch.zeros(6144)], dim=1).float()
    assert sprites.mutual_information_gap(codes, v).mean == pytest.approx(1, abs=1e-5)


def test_a_turned_plane_mixes_x_and_y():
    x_y = SPRITES.factors[:, 3:].float()
    turned = torch.stack([x_y.sum(dim=1), x_y[:, 0] - x_y[:, 1]], dim=1)
    gap = sprites.mutual_information_gap(turned, SPRITES.factors[:, 3:])
    assert gap.mean < 0.01
    assert (gap.information > 0.4).all()  # each tells of both


def test_codes_may_need_a_gradient():
    codes = normal(50, 3).requires_grad_()
    gap = sprites.mutual_information_gap(codes, SPRITES.factors[::123])
    assert not gap.information.requires_grad


# --- what is refused ------------------------------------------------------------------------------


CODES, FACTORS = torch.zeros(4, 2), torch.zeros(4, 3, dtype=torch.int64)


@pytest.mark.parametrize(
    "codes, factors, message",
    [
        (CODES[0], FACTORS, r"codes must have shape \(N, L\), got \(2,\)"),
        (CODES, FACTORS[:, 0], r"factors must have shape \(N, F\), got \(4,\)"),
        (CODES[:0], FACTORS[:0], r"codes must have shape \(N, L\), got \(0, 2\)"),
        (CODES, FACTORS[:3], "not of the same images: 4 codes and 3 factors"),
        (CODES, FACTORS.float(), "codes must be floats and factors whole numbers"),
        (CODES.long(), FACTORS, "codes must be floats and factors whole numbers"),
        (CODES / 0, FACTORS, "codes must be finite"),
    ],
)
def test_bad_codes_and_factors_are_refused(codes, factors, message):
    for function in (sprites.mutual_information, sprites.mutual_information_gap):
        with pytest.raises(ValueError, match=message):
            function(codes, factors)


def test_a_gap_needs_two_dimensions_and_factors_that_vary():
    with pytest.raises(ValueError, match="at least 2 dimensions, got 1"):
        sprites.mutual_information_gap(normal(6144, 1), SPRITES.factors)
    factors = SPRITES.factors.clone()
    factors[:, [1, 4]] = 2
    with pytest.raises(ValueError, match=r"the columns \[1, 4\] have one value only"):
        sprites.mutual_information_gap(normal(6144, 2), factors)
