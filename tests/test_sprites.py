"""sprites: the images show their factors, and the gap is that of worked examples."""

import itertools
import math

import pytest
import torch
from sprites import (
    ANGLES,
    AREAS,
    PLACES,
    SHAPES,
    Sprites,
    make_sprites,
    mutual_information,
    mutual_information_gap,
)

SPRITES = make_sprites()


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def moments(images):
    """Return the weights `(N, 784)`, and each image's offsets z = right + i up from its centre."""
    weight = images.flatten(1).double() / 255
    row, column = torch.meshgrid(torch.arange(28) + 0.5, torch.arange(28) + 0.5, indexing="ij")
    z = torch.complex(column, -row).flatten().to(torch.complex128)
    centre = (weight * z).sum(dim=1) / weight.sum(dim=1)
    return weight, z - centre[:, None], centre


def declared(values, column):
    return torch.tensor(values, dtype=torch.float64)[SPRITES.factors[:, column]]


# --- the images -----------------------------------------------------------------------------------


def test_the_factors_are_all_combinations_in_order_and_each_is_another_image():
    assert SPRITES.images.shape == (6144, 28, 28) and SPRITES.images.dtype == torch.uint8
    expected = itertools.product(*map(range, Sprites.counts))
    assert SPRITES.factors.tolist() == [list(values) for values in expected]
    x = SPRITES.images.flatten(1).float() / 255
    distance = torch.cdist(x, x).fill_diagonal_(math.inf)
    # Not only by rounding: the nearest two are a small square and the same, turned by a step.
    assert distance.min() > 0.6


def test_area_and_centre_of_mass_are_declared_for_every_sprite():
    weight, _, centre = moments(SPRITES.images)
    assert ((weight.sum(dim=1) / declared(AREAS, 1) - 1).abs() < 0.02).all()
    assert ((centre.real - declared(PLACES, 3)).abs() < 0.1).all()
    assert ((-centre.imag - declared(PLACES, 4)).abs() < 0.1).all()  # y counts downwards


# The mean of z^k turns by k times the angle, for a shape of k corners. At angle 0 the square has
# its corners on the diagonals (z⁴ < 0), the ellipse lies (z² > 0), the heart's tip is down (z³: i).
# Its length beside the mean of |z|^k is 3/7 for a square, 3/5 for an ellipse twice as long as wide.
@pytest.mark.parametrize(
    "shape, corners, start, length",
    [("square", 4, 180, 3 / 7), ("ellipse", 2, 0, 3 / 5), ("heart", 3, 90, 0.33)],
)
def test_each_shape_is_itself_and_the_angle_turns_it_anticlockwise(shape, corners, start, length):
    chosen = SPRITES.factors[:, 0] == SHAPES.index(shape)
    weight, z, _ = moments(SPRITES.images[chosen])
    found = (weight * z**corners).sum(dim=1)
    off = found.angle().rad2deg() - start - corners * declared(ANGLES, 2)[chosen]
    off = (off + 180) % 360 - 180
    assert (off.abs() / corners < 3).all()  # degrees; the angles are 11.25 apart
    lengths = found.abs() / (weight * z.abs() ** corners).sum(dim=1)
    largest = SPRITES.factors[chosen, 1] == len(AREAS) - 1  # of the most pixels
    assert ((lengths - length).abs() < 0.03)[largest].all()


# --- mutual information and the gap ---------------------------------------------------------------


def test_the_information_of_a_noisy_bit_is_analytic():
    # Of 100 bits 10 are flipped: I = log 2 - H(0.1).
    bit = torch.arange(100) % 2
    flipped = torch.where(torch.arange(100) < 10, 1 - bit, bit)
    found = mutual_information(3.5 - 2 * flipped[:, None].float(), bit[:, None])
    assert found.item() == pytest.approx(math.log(2) + 0.1 * math.log(0.1) + 0.9 * math.log(0.9))


def test_each_dimension_is_cut_into_20_bins_of_equal_width():
    z = torch.arange(2000) / 2000
    told = mutual_information(z[:, None], torch.arange(2000)[:, None] // 100)
    assert told.item() == pytest.approx(math.log(20), rel=1e-3)
    told = mutual_information(z[:, None] ** 4, torch.arange(2000)[:, None] // 100)
    assert told.item() < 0.7 * math.log(20)


def test_a_perfect_code_scores_one_stretched_permuted_padded_or_with_a_little_noise():
    perfect = SPRITES.factors.float()
    other = torch.cat([torch.sinh(perfect[:, [3, 0, 4, 2, 1]] / 3), torch.zeros(6144, 2)], dim=1)
    for codes in (perfect, other, perfect + 0.05 * normal(6144, 5)):
        gap = mutual_information_gap(codes, SPRITES.factors)
        torch.testing.assert_close(gap.per_factor, torch.ones(5), atol=0.01, rtol=0)
        assert gap.mean == pytest.approx(gap.per_factor.mean().item())


@pytest.mark.parametrize(
    "codes", [normal(6144, 10), torch.full((6144, 4), -7.0), SPRITES.factors.float().repeat(1, 2)]
)
def test_a_code_of_chance_of_nothing_or_of_everything_twice_scores_nothing(codes):
    assert 0 <= mutual_information_gap(codes, SPRITES.factors).mean < 0.002


def test_the_gap_to_a_dimension_that_tells_half_is_analytic():
    # x in one dimension, and its upper bit in another: (log 8 - log 2) / log 8.
    x = SPRITES.factors[:, 3:4]
    gap = mutual_information_gap(torch.cat([x, x // 4], dim=1).float(), x)
    assert gap.mean == pytest.approx(2 / 3, abs=1e-5)
