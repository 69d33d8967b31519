"""Pictures as arrays and as PNG, made with Pillow; and still pictures, of blocks with captions.

A picture is uint8, grey `(h, w)` or in colour `(h, w, 3)`.
"""

import functools
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib.backends.backend_agg
import matplotlib.figure
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vae_lesson import fonts
from vae_lesson.data import channels_last, square_shape

PICTURE = 224  # pixels, the side of a decoded picture
GAP = 8  # pixels between blocks
# Matplotlib's: Pillow's own has no μ and no minus sign.
FONT = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", 13)


@functools.cache
def _font(family: str) -> ImageFont.FreeTypeFont:
    path = font_manager.findfont(family)
    return ImageFont.truetype(path, FONT.size, getattr(path, "face_index", 0))


def as_pictures(x: Tensor, largest: int = PICTURE) -> np.ndarray:
    """Return images `(n, ...)`, uint8 or intensities in [0, 1], as uint8 `(n, side, side)`, in
    colour `(n, side, side, 3)`, made smaller where a side is over `largest`."""
    x = x.float() / 255 if x.dtype == torch.uint8 else x
    shape = square_shape(x[0].numel())
    if shape[1] > largest:
        smaller = {"size": (largest, largest), "mode": "bilinear", "antialias": True}
        x = F.interpolate(x.reshape(-1, *shape), **smaller)
    return (255 * channels_last(x).clamp(0, 1)).round().byte().cpu().numpy()


def png(image: np.ndarray) -> bytes:
    """Return a picture as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def drawn(figure: matplotlib.figure.Figure) -> np.ndarray:
    """Return a figure of matplotlib as a picture."""
    canvas = matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def enlarged(image: np.ndarray, side: int = PICTURE) -> np.ndarray:
    """Return a square picture with so large a side, each pixel a crisp square."""
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST))


def film(images: np.ndarray, side: int) -> np.ndarray:
    """Return pictures in a row, each enlarged to this side."""
    return np.hstack([enlarged(image, side) for image in images])


def beside(*blocks: np.ndarray, gap: int = GAP) -> np.ndarray:
    """Return pictures side by side on white, their tops at one height."""
    if len(blocks) == 1:
        return blocks[0]
    return _joined([_in_colour(block) for block in blocks], gap)


def below(*blocks: np.ndarray, gap: int = GAP) -> np.ndarray:
    """Return pictures one below the other on white."""
    turned = [_in_colour(block).transpose(1, 0, 2) for block in blocks]
    return _joined(turned, gap).transpose(1, 0, 2)


def captioned(text: str, image: np.ndarray) -> np.ndarray:
    """Return a picture below words."""
    return below(written(text, max(image.shape[1], 160)), image, gap=2) if text else image


def written(text: str, width: int) -> np.ndarray:
    """Return words as a picture, in lines that are about so wide."""
    font, letter = FONT, 7  # pixels, about the width of one
    if fonts.is_chinese(text) and fonts.CHINESE:
        font, letter = _font(fonts.CHINESE[0]), FONT.size
    lines = textwrap.wrap(text, max(width // letter, 112 // letter))
    width = max(round(font.getlength(line)) + 1 for line in lines)
    image = Image.new("RGB", (width, 18 * len(lines)), "white")
    for i, line in enumerate(lines):
        ImageDraw.Draw(image).text((0, 18 * i), line, fill="black", font=font)
    return np.asarray(image)


def _in_colour(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def _joined(images: Sequence[np.ndarray], gap: int) -> np.ndarray:
    highest = max(len(image) for image in images)
    room = [((0, highest - len(image)), (0, gap), (0, 0)) for image in images]
    padded = [np.pad(image, r, constant_values=255) for image, r in zip(images, room)]
    whole = np.concatenate(padded, axis=1)
    return whole[:, : whole.shape[1] - gap]
