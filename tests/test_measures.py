"""measures: handwriting measured on drawn figures, and sharpness on patterns."""

import math

import pytest
import torch
from draws import grey_images, uniform

from vae_lesson import measures

# --- handwriting ----------------------------------------------------------------------------------


def stroke(width, lean=0.0, top=3, bottom=25, side=28):
    """Draw a bar `width` pixels wide that leans to the right by this many degrees."""
    image = torch.zeros(side, side)
    column = torch.arange(side)
    for row in range(top, bottom):
        left = side / 2 - width / 2 + (side / 2 - row - 0.5) * math.tan(math.radians(lean))
        # The part of each pixel that is inside, so that a shear of less than a pixel shows.
        right = torch.tensor(left + width)
        image[row] = (torch.minimum(column + 1, right) - column.clamp_min(left)).clamp(0, 1)
    return image


def seven(with_bar, boldness=2):
    image = torch.zeros(28, 28)
    image[4 : 4 + boldness, 8:21] = 1
    for row in range(6, 24):  # the stem, down to the left
        left = 19 - (row - 6) // 2
        image[row, left : left + 2] = 1
    if with_bar:
        image[14 : 14 + boldness, 10:20] = 1
    return image


def test_thickness_is_the_width_of_a_stroke_whatever_its_place_and_ink():
    widths = [2, 2.5, 3, 4, 5]
    strokes = torch.stack([stroke(width) for width in widths])
    thickness = measures.thickness(strokes)
    assert thickness.tolist() == pytest.approx(widths, rel=0.2)
    assert (thickness.diff() > 0.2).all()
    torch.testing.assert_close(measures.thickness(strokes.roll(4, dims=2)), thickness)
    torch.testing.assert_close(measures.thickness(strokes.transpose(1, 2)), thickness)
    torch.testing.assert_close(measures.thickness(0.5 * strokes), thickness, rtol=1e-3, atol=0)


@pytest.mark.parametrize("degrees", [-35, -5, 0, 20])
def test_slant_of_a_leaning_bar(degrees):
    images = torch.stack(
        [stroke(3.0, lean=degrees), stroke(1.5, lean=degrees).roll((1, -2), (0, 1))]
    )
    assert measures.slant(images).tolist() == pytest.approx([degrees, degrees], abs=2)


def test_bar_sees_the_bar_of_a_seven():
    without, with_bar = measures.bar(torch.stack([seven(False), seven(True)])).tolist()
    assert without == pytest.approx(0, abs=0.5)
    assert with_bar == pytest.approx(10 - 2, abs=0.5)  # its ten pixels, less the stem's two
    foot = seven(False)
    foot[22:24, 5:20] = 1
    assert measures.bar(foot[None]).item() == pytest.approx(0, abs=0.5)  # too low for a bar
    # With top and bar of five rows each, half of the figure's rows are no stem.
    assert measures.bar(seven(True, boldness=5)[None]).item() == pytest.approx(8, abs=0.5)


@pytest.mark.parametrize("measure", [measures.thickness, measures.slant, measures.bar])
def test_handwriting_is_measured_image_by_image_in_grey(measure):
    images = torch.stack([seven(True), stroke(3.0, lean=10), torch.zeros(28, 28)])
    values = measure(images)
    assert values[2] == 0  # an empty image
    torch.testing.assert_close(measure(images.flatten(1)), values)
    torch.testing.assert_close(torch.cat([measure(image[None]) for image in images]), values)
    with pytest.raises(ValueError, match="measures of handwriting take grey images, got"):
        measure(torch.zeros(2, 3, 28, 28))
    with pytest.raises(ValueError, match="must be floats"):
        measure((255 * images).byte())


# --- sharpness ------------------------------------------------------------------------------------


def test_sharpness_falls_with_blur_and_reads_both_kinds_of_images():
    images = grey_images(5, 12, 12)
    blurred = torch.nn.functional.avg_pool2d(images[:, None].float() / 255, 3, 1, 1)
    assert measures.sharpness(blurred) < 0.2 * measures.sharpness(images)
    assert measures.sharpness(images) == pytest.approx(measures.sharpness(images / 255))
    # A ramp has no edges; a checkerboard of 0 and 1 has -4 and +4 everywhere, variance 16.
    ramp = torch.linspace(0, 1, 12).expand(1, 12, 12)
    assert measures.sharpness(ramp) == pytest.approx(0, abs=1e-8)
    board = (torch.arange(12)[:, None] + torch.arange(12)) % 2.0
    assert measures.sharpness(board[None]) == pytest.approx(16, rel=0.02)


def test_sharpness_in_colour_is_the_mean_over_the_channels():
    images = uniform(4, 3, 7, 7)
    channels = [measures.sharpness(images[:, i]) for i in range(3)]
    assert measures.sharpness(images) == pytest.approx(sum(channels) / 3)
    assert measures.sharpness(images.flatten(1)) == measures.sharpness(images)
    with pytest.raises(ValueError, match="24 values are no square"):
        measures.sharpness(torch.zeros(2, 24))
