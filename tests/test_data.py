"""data: from uint8 to what a model takes, a drawing made like MNIST's images, batches."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vae_lesson import data

# --- from uint8 to what a model takes -------------------------------------------------------------


def test_grey_divides_by_255():
    images = torch.tensor([[[0, 51], [128, 255]], [[1, 2], [3, 4]]], dtype=torch.uint8)
    before = images.clone()
    x = data.to_float(images)
    assert x.dtype == torch.float32
    torch.testing.assert_close(
        x, torch.tensor([[0, 0.2, 128 / 255, 1], [1 / 255, 2 / 255, 3 / 255, 4 / 255]])
    )
    assert torch.equal(data.to_float(images, "grey"), x)
    assert torch.equal(images, before)
    assert data.to_float(torch.zeros(3, 5, 4, dtype=torch.uint8)).shape == (3, 20)


def test_threshold_is_one_above_a_half():
    images = torch.tensor([[[0, 1, 127], [128, 254, 255]]], dtype=torch.uint8)
    x = data.to_float(images, "threshold")
    assert x.dtype == torch.float32
    assert x.tolist() == [[0, 0, 0, 1, 1, 1]]


def test_dynamic_draws_each_pixel_by_its_grey_value():
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    draws = data.to_float(ramp.expand(4000, 16, 16), "dynamic", torch.Generator().manual_seed(0))
    assert draws.dtype == torch.float32
    assert draws.unique().tolist() == [0, 1]
    # Five standard errors of the widest, p = ½: 5 √(¼ / 4000) = 0.04.
    torch.testing.assert_close(draws.mean(0), torch.arange(256) / 255, atol=0.04, rtol=0)
    assert draws[:, 0].sum() == 0 and draws[:, 255].sum() == 4000  # black and white are certain


def test_dynamic_is_seedable_and_new_at_each_call():
    images = torch.full((10, 28, 28), 128, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    first = data.to_float(images, "dynamic", generator)
    second = data.to_float(images, "dynamic", generator)
    assert not torch.equal(first, second)
    assert torch.equal(data.to_float(images, "dynamic", generator.manual_seed(0)), first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_to_float_takes_uint8_only(dtype):
    with pytest.raises(ValueError) as error:
        data.to_float(torch.zeros(2, 28, 28, dtype=dtype))
    assert str(error.value) == f"to_float takes a tensor of uint8 images, got {dtype}"


def test_to_float_of_an_array_says_so():
    with pytest.raises(ValueError, match="takes a tensor of uint8 images, got ndarray"):
        data.to_float(torch.zeros(2, 4, 4, dtype=torch.uint8).numpy())


def test_unknown_binarisation():
    with pytest.raises(ValueError) as error:
        data.to_float(torch.zeros(2, 28, 28, dtype=torch.uint8), "gray")
    assert str(error.value) == (
        "unknown binarisation 'gray': choose one of grey, dynamic, threshold"
    )


# --- a drawing made like MNIST's images -----------------------------------------------------------


def box(image: Tensor) -> tuple[int, int, int, int]:
    """Return (first row, first column, height, width) of the ink."""
    rows, columns = (torch.where((image > 0).any(dim=d))[0].tolist() for d in (1, 0))
    return rows[0], columns[0], rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1


def centre_of_mass(image: Tensor) -> list[float]:
    x, position = image.double(), [torch.arange(n).double() for n in image.shape]
    return [((x.sum(dim=1 - d) * position[d]).sum() / x.sum()).item() for d in (0, 1)]


def seven(height: int, width: int, pen: int, top: int = 0, left: int = 0, size=(28, 28)) -> Tensor:
    """A digit that is not symmetric: a bar above and a slanting stem."""
    frame = torch.zeros(size, dtype=torch.uint8)
    frame[top : top + pen, left : left + width] = 255
    for row in range(height):
        start = left + round((width - pen) * (1 - row / height))
        frame[top + row, start : start + pen] = 200
    return frame


@pytest.mark.parametrize(
    "drawing",
    [
        seven(10, 6, 2, top=2, left=1),
        seven(26, 15, 3, top=1, left=12),
        seven(8, 16, 2, top=19, left=11),
        seven(150, 90, 9, top=20, left=100, size=(180, 300)),
    ],
    ids=["small", "tall", "wide", "large"],
)
def test_a_drawing_fills_twenty_pixels_about_its_centre_of_mass(drawing):
    before = drawing.clone()
    centred = data.centre_digit(drawing)
    assert centred.dtype == torch.uint8 and centred.shape == (28, 28)
    _, _, height, width = box(centred)
    assert max(height, width) == 20
    _, _, old_height, old_width = box(drawing)
    scale = 20 / max(old_height, old_width)
    assert abs(height - scale * old_height) <= 0.5 and abs(width - scale * old_width) <= 0.5
    for centre in centre_of_mass(centred):
        assert abs(centre - 14) <= 0.5 + 1e-4
    assert centred.max() > 150  # still ink
    assert torch.equal(drawing, before)


def test_where_a_drawing_is_makes_no_difference():
    drawings = [seven(12, 7, 2, top=top, left=left) for top, left in [(0, 0), (9, 3), (16, 21)]]
    first, *others = (data.centre_digit(drawing) for drawing in drawings)
    assert all(torch.equal(first, other) for other in others)


def test_a_digit_in_mnists_frame_already_stays_as_it_is():
    ink = seven(20, 13, 3, size=(20, 13))
    row, column = centre_of_mass(ink)
    digit = torch.zeros((28, 28), dtype=torch.uint8)
    top, left = round(14 - row), round(14 - column)
    assert abs(top + row - 14) < 0.49 and abs(left + column - 14) < 0.49  # no tie
    digit[top : top + 20, left : left + 13] = ink
    assert torch.equal(data.centre_digit(digit), digit)
    assert torch.equal(data.centre_digit(digit.roll((-3, 5), dims=(0, 1))), digit)


def test_an_empty_drawing_stays_empty():
    for size in [(28, 28), (100, 60)]:
        empty = data.centre_digit(torch.zeros(size, dtype=torch.uint8))
        assert empty.shape == (28, 28) and empty.dtype == torch.uint8 and not empty.any()


@pytest.mark.parametrize("upright", [True, False])
def test_a_thin_line_stays_a_line(upright):
    drawing = torch.zeros((28, 28), dtype=torch.uint8)
    drawing[2:26, 5] = 255  # 24 to 1: to 20 by less than a pixel
    centred = data.centre_digit(drawing if upright else drawing.T)
    top, left, height, width = box(centred if upright else centred.T)
    assert (height, width) == (20, 1)
    assert left == 14 and top in (4, 5)
    assert centred[centred > 0].min() > 200


def test_a_dot_and_a_full_frame_fill_the_box():
    dot = torch.zeros((28, 28), dtype=torch.uint8)
    dot[3, 25] = 180
    for drawing, grey in [(dot, 180), (torch.full((28, 28), 255, dtype=torch.uint8), 255)]:
        centred = data.centre_digit(drawing)
        top, left, height, width = box(centred)
        assert (height, width) == (20, 20)
        assert top in (4, 5) and left in (4, 5)
        assert (centred[top : top + 20, left : left + 20] == grey).all()


def test_a_lopsided_drawing_stays_whole():
    # Its centre of mass is so far to one side that the box would leave the frame.
    drawing = torch.zeros((20, 20), dtype=torch.uint8)
    drawing[:, :2] = 255
    drawing[9, :] = 60
    centred = data.centre_digit(drawing)
    assert box(centred) == (5, 8, 20, 20)
    assert torch.equal(centred[5:25, 8:28], drawing)


@pytest.mark.parametrize(
    "drawing",
    [
        torch.zeros(28, 28),
        torch.zeros(28, 28, dtype=torch.bool),
        torch.zeros(784, dtype=torch.uint8),
        torch.zeros(1, 28, 28, dtype=torch.uint8),
    ],
    ids=["float", "bool", "flat", "batch"],
)
def test_centre_digit_takes_one_uint8_image(drawing):
    with pytest.raises(ValueError) as error:
        data.centre_digit(drawing)
    assert str(error.value) == (
        f"centre_digit takes one uint8 image (h, w), got {drawing.dtype} {tuple(drawing.shape)}"
    )


def test_mnists_own_images_stay_as_they_are():
    root = os.environ.get("VAE_LESSON_DATA")
    path = Path(root or "", "MNIST/raw/t10k-images-idx3-ubyte")
    if not root or not path.is_file():
        pytest.skip("VAE_LESSON_DATA names no folder with the real MNIST")
    images = torch.frombuffer(bytearray(path.read_bytes()[16:]), dtype=torch.uint8)
    images = images.view(-1, 28, 28)[:1000]
    same = [torch.equal(data.centre_digit(image), image) for image in images]
    assert sum(same) >= 990


# --- batches --------------------------------------------------------------------------------------


def test_batches_have_every_image_once_in_its_order():
    images = torch.arange(100, dtype=torch.uint8)[:, None, None].repeat(1, 2, 2)
    parts = list(data.batches(images, 32))
    assert [tuple(part.shape) for part in parts] == [(32, 4), (32, 4), (32, 4), (4, 4)]
    assert torch.equal(torch.cat(parts), data.to_float(images))
    # When the batch size divides the number of images, no empty batch comes last.
    assert [len(part) for part in data.batches(images, 50)] == [50, 50]
    assert [len(part) for part in data.batches(images, 128)] == [100]


def test_batches_are_binarised_as_asked():
    images = torch.full((100, 2, 2), 128, dtype=torch.uint8)

    def drawn(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.cat(list(data.batches(images, 32, "dynamic", generator)))

    assert drawn(0).unique().tolist() == [0, 1]
    assert torch.equal(drawn(0), drawn(0)) and not torch.equal(drawn(0), drawn(1))
    assert torch.cat(list(data.batches(images, 32, "threshold"))).eq(1).all()
