"""data: what a model takes, what `fit` is given, a drawing made like MNIST's images."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from draws import grey_images, seeded
from torch import Tensor

from vae_lesson import data
from vae_lesson.models import VAE

# --- from uint8 to what a model takes -------------------------------------------------------------


def test_grey_divides_by_255():
    images = torch.tensor([[[0, 51], [128, 255]], [[1, 2], [3, 4]]], dtype=torch.uint8)
    before = images.clone()
    x = data.to_float(images)
    assert x.dtype == torch.float32
    torch.testing.assert_close(
        x, torch.tensor([[0, 0.2, 128 / 255, 1], [1 / 255, 2 / 255, 3 / 255, 4 / 255]])
    )
    assert torch.equal(images, before)


def test_threshold_is_one_above_a_half():
    x = data.to_float(torch.tensor([[[0, 127], [128, 255]]], dtype=torch.uint8), "threshold")
    assert x.dtype == torch.float32
    assert x.tolist() == [[0, 0, 1, 1]]


def test_dynamic_draws_each_pixel_by_its_grey_value_anew_at_each_call():
    ramp, generator = torch.arange(256, dtype=torch.uint8).expand(4000, 256), seeded()
    draws = data.to_float(ramp, "dynamic", generator)
    assert draws.dtype == torch.float32
    assert draws.unique().tolist() == [0, 1]
    # Five standard errors of the widest, p = ½: 5 √(¼ / 4000) = 0.04.
    torch.testing.assert_close(draws.mean(0), torch.arange(256) / 255, atol=0.04, rtol=0)
    assert draws[:, 0].sum() == 0 and draws[:, 255].sum() == 4000  # black and white are certain
    assert not torch.equal(data.to_float(ramp, "dynamic", generator), draws)
    assert torch.equal(data.to_float(ramp, "dynamic", seeded()), draws)


@pytest.mark.parametrize(
    "images, binarisation, says",
    [
        (torch.zeros(2, 4, 4), "grey", "takes a tensor of uint8 images, got torch.float32"),
        (np.zeros((2, 4, 4), np.uint8), "grey", "takes a tensor of uint8 images, got ndarray"),
        (
            torch.zeros(2, 4, 4).byte(),
            "gray",
            "unknown binarisation 'gray': choose one of grey, dynamic, threshold",
        ),
    ],
)
def test_to_float_takes_uint8_and_a_known_binarisation(images, binarisation, says):
    with pytest.raises(ValueError, match=says):
        data.to_float(images, binarisation)


def test_terms_get_pixels_as_floats_and_all_else_as_it_is():
    images, labels, codes = grey_images(5, 2, 2), torch.arange(5), torch.rand(5, 3)
    x, *others = data.as_inputs([images, labels, codes], "dynamic", seeded(1))
    assert torch.equal(x, data.to_float(images, "dynamic", seeded(1)))
    assert others[0] is labels and others[1] is codes


# --- what `fit` is given --------------------------------------------------------------------------

MODEL = VAE(2, 8, (1, 4, 4))


def test_images_may_be_a_tensor_an_array_or_a_list_and_have_labels():
    images, labels = grey_images(5, 4, 4), torch.arange(5)
    for given in (images, images.numpy(), list(images), (images,)):
        (found,) = data.as_tensors(MODEL, given)
        assert torch.equal(found, images)
    pair = data.as_tensors(MODEL, (images, labels))
    assert pair[0] is images and pair[1] is labels
    assert data.as_tensors(MODEL, ()) == []


@pytest.mark.parametrize(
    "given, says",
    [
        (grey_images(5, 5, 5), "test have 25 values, this model takes 16: make one with shape="),
        (torch.rand(5, 4, 4), r"got \(5, 4, 4\) of torch.float32: .*as_tensor\(255 \* x\)"),
        (grey_images(0, 4, 4), "test must be at least one uint8 image"),
        ("mnist", "test must be one tensor or array of uint8 images .* got str"),
        ((grey_images(5, 4, 4), torch.arange(4)), r"goes with them differ in number: \[5, 4\]"),
    ],
    ids=["size", "floats", "none", "name", "lengths"],
)
def test_what_is_no_images_for_the_model_is_refused(given, says):
    with pytest.raises(ValueError, match=says):
        data.as_tensors(MODEL, given, "test")


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
        seven(8, 16, 2, top=19, left=11),
        seven(150, 90, 9, top=20, left=100, size=(180, 300)),
    ],
    ids=["small", "wide", "large"],
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
    empty = data.centre_digit(torch.zeros((100, 60), dtype=torch.uint8))
    assert empty.shape == (28, 28) and empty.dtype == torch.uint8 and not empty.any()


@pytest.mark.parametrize("upright", [True, False])
def test_a_thin_line_stays_a_line(upright):
    drawing = torch.zeros((60, 28), dtype=torch.uint8)
    drawing[2:58, 5] = 255  # 56 to 1: to 20 by less than half a pixel
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


@pytest.mark.parametrize("shape, dtype", [((2, 3), torch.float32), ((1, 2, 3), torch.uint8)])
def test_centre_digit_takes_one_uint8_image(shape, dtype):
    with pytest.raises(ValueError, match=r"one uint8 image \(h, w\), got") as error:
        data.centre_digit(torch.zeros(shape, dtype=dtype))
    assert str(error.value).endswith(f"got {dtype} {shape}")


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


def test_batches_have_every_image_once_in_its_order_and_are_binarised_as_asked():
    images = grey_images(100, 2, 2)
    parts = list(data.batches(images, 32))
    assert [tuple(part.shape) for part in parts] == [(32, 4), (32, 4), (32, 4), (4, 4)]
    assert torch.equal(torch.cat(parts), data.to_float(images))
    # When the batch size divides the number of images, no empty batch comes last.
    assert [len(part) for part in data.batches(images, 50)] == [50, 50]
    one = next(data.batches(images, 50, "dynamic", seeded(1)))
    assert torch.equal(one, data.to_float(images[:50], "dynamic", seeded(1)))
