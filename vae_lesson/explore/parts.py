"""The parts of an explorer that the browser draws: a picture, a plane to point at, a drawing pad.

Each is a small anywidget: its state is below, what the page does with it in the `.js` beside. They
exist because ipywidgets' own Image has no alternative text and no part of it gives the position of
a pointer. Also here: how pictures are made, with Pillow, which takes well under a millisecond, and
the still picture of an explorer, made of the same parts.
"""

import functools
import html
import io
import re
import textwrap
import threading
from collections.abc import Sequence
from pathlib import Path

import anywidget
import ipywidgets as widgets
import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
import traitlets
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vae_lesson.data import SIDE, channels_last, square_shape

HERE = Path(__file__).parent
CSS = HERE / "parts.css"
PICTURE = 224  # pixels, the side of a decoded picture
FRAMES = 11  # images in a filmstrip
ROUND = 2**20  # states: more than a page ever sends while the kernel lags behind
LOCK = threading.RLock()  # a kernel may hear buttons in one thread and what is drawn in another
GAP = 8  # pixels between the parts of an explorer


class Picture(anywidget.AnyWidget):
    """A PNG, each pixel a crisp square, with the words that a screen reader says for it."""

    _esm = HERE / "picture.js"
    _css = CSS
    value = traitlets.Bytes().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    width = traitlets.Int(PICTURE).tag(sync=True)
    height = traitlets.Int(PICTURE).tag(sync=True)


class Numbered(anywidget.AnyWidget):
    """A part that the page and the kernel both set: what has a lower number is older, and dropped.

    The page counts the states that it sends. A button of the explorer begins a new round of them,
    on the page when it is pressed and here when the kernel comes to it, which may be much later.
    """

    number = traitlets.Int().tag(sync=True)
    _round = 0

    def set_state(self, sync_data: dict) -> None:
        with LOCK:
            if sync_data.get("number", self.number) >= self.number:
                super().set_state(sync_data)

    def begin_round(self, trait: str, value: object) -> None:
        """Set a trait, unless what the page has already sent is of this round: that is newer."""
        self._round += 1
        with self.hold_sync():
            if self._round * ROUND > self.number:
                self.number = self._round * ROUND
                setattr(self, trait, value)
            self.send_state([trait, "number"])  # be it news here or not: the page may show another


class Plane(Numbered):
    """A picture of a plane and a point (x, y) on it: click, drag or press the arrow keys."""

    _esm = HERE / "plane.js"
    _css = CSS
    background = traitlets.Bytes().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    point = traitlets.List(traitlets.Float(), [0.0, 0.0]).tag(sync=True)
    low = traitlets.List(traitlets.Float(), [-3.0, -3.0]).tag(sync=True)
    high = traitlets.List(traitlets.Float(), [3.0, 3.0]).tag(sync=True)
    cells = traitlets.Int(0).tag(sync=True)  # along a side, if any: an arrow key moves by one
    size = traitlets.Int(360).tag(sync=True)


class Pad(Numbered):
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


def as_pictures(images: Tensor, largest: int = PICTURE) -> np.ndarray:
    """Return images `(N, ...)`, uint8 or floats in [0, 1], as they are drawn: uint8
    `(N, side, side)`, in colour `(N, side, side, 3)`, made smaller where a side is over `largest`.
    """
    images = images.cpu()
    x = images / 255 if images.dtype == torch.uint8 else images
    shape = square_shape(x[0].numel())
    if shape[1] > largest:
        smaller = {"size": (largest, largest), "mode": "bilinear", "antialias": True}
        x = F.interpolate(x.reshape(-1, *shape), **smaller)
    return (255 * channels_last(x).clamp(0, 1)).round().byte().numpy()


def png(image: np.ndarray) -> bytes:
    """Return a uint8 image, grey `(h, w)` or colour `(h, w, 3)`, as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def enlarged(image: np.ndarray) -> np.ndarray:
    """Return a square uint8 image as large as a decoded picture, each pixel a crisp square."""
    size = (PICTURE, PICTURE)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.NEAREST))


def joined(images: Sequence[np.ndarray], gap: int = GAP, axis: int = 1) -> np.ndarray:
    """Return images side by side, or with axis 0 one below the other, with white between them."""
    longest = max(image.shape[1 - axis] for image in images)
    parts = []
    for image in images:
        room = [(0, 0)] * image.ndim
        room[axis], room[1 - axis] = (0, gap), (0, longest - image.shape[1 - axis])
        parts.append(np.pad(image, room, constant_values=255))
    whole = np.concatenate(parts, axis)
    return whole[:, :-gap] if axis else whole[:-gap]


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Return matplotlib's font in this size: Pillow's own has no μ and no minus sign."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def still(widget: widgets.Widget) -> np.ndarray | None:
    """Return what a widget shows as a picture `(h, w, 3)`; None for a button or what is hidden.

    Its parts lie as on the page. Of a box that scrolls, the first six are enough.
    """
    if widget.layout.display == "none":
        return None
    match widget:
        case widgets.HBox() | widgets.VBox():
            children = widget.children[:6] if widget.layout.max_height else widget.children
            shown = [image for child in children if (image := still(child)) is not None]
            return joined(shown, axis=int(isinstance(widget, widgets.HBox))) if shown else None
        case widgets.HTML(value=text) if text:
            return _written(as_text(text))
        case widgets.FloatSlider(description=name, value=value, readout_format="d"):
            return _written(f"{name} = {value:.0f}")
        case widgets.FloatSlider(description=name, value=value):
            return _written(f"{name} = {value:z.2f}")
        case widgets.ToggleButtons(value=option, tooltips=tooltips, index=i):
            return _written(f"{option}: {tooltips[i]}")
        case Picture(value=value, width=width, height=height):
            return np.asarray(_opened(value, width, height))
        case Pad(pixels=pixels, size=size):
            drawing = np.frombuffer(pixels, np.uint8).reshape(SIDE, SIDE)
            return np.asarray(_opened(png(drawing), size, size))
        case Plane(background=background, size=size, point=point, low=low, high=high):
            plane = _opened(background, size, size)
            x, y = size * np.subtract(point, low) / np.subtract(high, low)
            mark = (x - 7, size - y - 7, x + 7, size - y + 7)
            ImageDraw.Draw(plane).ellipse(mark, fill="#ffd400", outline="black", width=2)
            return np.asarray(plane)
    return None


def as_text(text: str) -> str:
    """Return HTML as the words in it."""
    return html.unescape(re.sub("<[^>]+>", "", text))


def _opened(value: bytes, width: int, height: int) -> Image.Image:
    """Return a PNG in this size: each pixel a crisp square, or made smooth where there are more."""
    image = Image.open(io.BytesIO(value)).convert("RGB")
    return image.resize((width, height), Image.Resampling.BOX)


def _written(text: str) -> np.ndarray:
    """Return words as a picture, as wide as a slider's name or wider, in lines of 56 letters."""
    lines = textwrap.wrap(text, 56)
    width = max(120, *(round(font(13).getlength(line)) + 1 for line in lines))
    image = Image.new("RGB", (width, 18 * len(lines)), "white")
    for i, line in enumerate(lines):
        ImageDraw.Draw(image).text((0, 18 * i), line, fill="black", font=font(13))
    return np.asarray(image)
