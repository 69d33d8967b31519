"""The parts of an explorer that the browser draws: a picture, a plane to point at, a drawing pad.

Each is a small anywidget: its state is below, what the page does with it in the `.js` beside. They
exist because ipywidgets' own Image has no alternative text and no part of it gives the position of
a pointer. Also here: how pictures are made, with Pillow, which takes well under a millisecond.
"""

import functools
import io
from collections.abc import Sequence
from pathlib import Path

import anywidget
import matplotlib
import numpy as np
import traitlets
from PIL import Image, ImageDraw, ImageFont

from vae_lesson.data import SIDE

HERE = Path(__file__).parent
CSS = HERE / "parts.css"
PICTURE = 224  # pixels, the side of a decoded picture


class Picture(anywidget.AnyWidget):
    """A PNG, each pixel a crisp square, with the words that a screen reader says for it."""

    _esm = HERE / "picture.js"
    _css = CSS
    value = traitlets.Bytes().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    width = traitlets.Int(PICTURE).tag(sync=True)
    height = traitlets.Int(PICTURE).tag(sync=True)


class Plane(anywidget.AnyWidget):
    """A picture of a plane and a point (x, y) on it: click, drag or press the arrow keys."""

    _esm = HERE / "plane.js"
    _css = CSS
    background = traitlets.Bytes().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    point = traitlets.List(traitlets.Float(), [0.0, 0.0]).tag(sync=True)
    low = traitlets.List(traitlets.Float(), [-3.0, -3.0]).tag(sync=True)
    high = traitlets.List(traitlets.Float(), [3.0, 3.0]).tag(sync=True)
    size = traitlets.Int(336).tag(sync=True)


class Pad(anywidget.AnyWidget):
    """28×28 pixels to draw on: `pixels`, a byte each, row by row, white on black."""

    _esm = HERE / "pad.js"
    _css = CSS
    # What comes from the page is a memoryview.
    pixels = traitlets.Bytes(bytes(SIDE * SIDE)).tag(
        sync=True, from_json=lambda value, widget: bytes(value)
    )
    label = traitlets.Unicode().tag(sync=True)
    size = traitlets.Int(280).tag(sync=True)


class SliderNames(anywidget.AnyWidget):
    """Nothing to see: gives the sliders beside it names for a screen reader."""

    _esm = HERE / "names.js"


def png(image: np.ndarray) -> bytes:
    """Return a uint8 image, grey `(h, w)` or colour `(h, w, 3)`, as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def enlarged(image: np.ndarray, side: int = PICTURE) -> np.ndarray:
    """Return a uint8 image enlarged to this height, each pixel a crisp square."""
    height, width = image.shape[:2]
    size = (round(width * side / height), side)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.NEAREST))


def beside(images: Sequence[np.ndarray], gap: int = 8) -> np.ndarray:
    """Return grey images of one height side by side, with white between them."""
    space = np.full((images[0].shape[0], gap), 255, dtype=np.uint8)
    row = [part for image in images for part in (image, space)][:-1]
    return np.concatenate(row, axis=1)


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Return matplotlib's font in this size: Pillow's own has no μ and no minus sign."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


class Sheet:
    """A white sheet that pictures and words are put on: an explorer's static twin."""

    def __init__(self, width: int, height: int) -> None:
        self._sheet = Image.new("RGB", (width, height), "white")
        self._pen = ImageDraw.Draw(self._sheet)

    def picture(self, image: np.ndarray, left: int, top: int, height: int) -> None:
        """Put a uint8 image here, enlarged to this height."""
        self._sheet.paste(Image.fromarray(enlarged(image, height)).convert("RGB"), (left, top))

    def png(self, value: bytes, left: int, top: int, height: int) -> None:
        """Put a PNG here, made smooth and this high."""
        with Image.open(io.BytesIO(value)) as image:
            size = (round(image.width * height / image.height), height)
            small = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        self._sheet.paste(small, (left, top))

    def text(self, text: str, left: int, top: int) -> None:
        """Write words, their top left corner here."""
        self._pen.text((left, top), text, fill="black", font=font(13))

    def cross(self, x: float, y: float) -> None:
        """Mark a point as the plane does, so that it shows on dark and on light."""
        for colour, width in (("white", 5), ("black", 3), ("#ffd400", 1)):
            self._pen.line([(x - 9, y), (x + 9, y)], fill=colour, width=width)
            self._pen.line([(x, y - 9), (x, y + 9)], fill=colour, width=width)

    def array(self) -> np.ndarray:
        return np.asarray(self._sheet)
