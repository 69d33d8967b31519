"""What a web page moves an explorer by, without a kernel: its decoders' weights and its state.

Only `make site` asks for it, by the environment variable VAE_LESSON_SITE, so that committed lessons
do not grow. What the page does with it is in site/decode.js and site/explorers.js.
"""

import base64
import copy
import gzip
import hashlib
import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from vae_lesson.explore.parts import as_pictures
from vae_lesson.models import VAE, Autoencoder

MIME = "application/vnd.vae-lesson.explorer+json"
EXAMPLES = 10  # test images that a page gets, with their codes: it has no encoder
COARSER = (64, 32)  # levels to either side of 0, where 127 are more than a pixel needs
TOLERANCE = 4 / 255  # intensity: what a pixel may be off by for fewer levels
WIDE = 1.5  # standard deviation of the codes that this is tried on: sliders go beyond N(0, 1)


def is_wanted() -> bool:
    """Say whether this run is for the site."""
    return bool(os.environ.get("VAE_LESSON_SITE"))


def state(decoders: dict, own: dict | None) -> dict | None:
    """Return an explorer's own state and its decoders' weights, as JSON; None if it has none, or if
    a decoder is something else than the course's MLP, which is all that the page can compute."""
    if own is None:
        return None
    packed = [weights(decoder.model, decoder.units) for decoder in decoders.values()]
    if None in packed:
        return None
    keys = [hashlib.sha256(each["data"].encode()).hexdigest()[:12] for each in packed]
    named = [{"name": name, "weights": key} for name, key in zip(decoders, keys)]
    return own | {"decoders": named, "weights": dict(zip(keys, packed))}


@torch.no_grad()
def weights(model: nn.Module, units: tuple[Tensor, Tensor] | None = None) -> dict | None:
    """Return the decoder z -> ReLU -> sigmoid of a model in grey: {"sizes", "data"}, or None.

    data: the first layer's weights `(hidden, latent)` and biases, the second's biases and steps,
    all float32, then its weights `(pixels, hidden)` as int8, in steps of one size a pixel; gzipped,
    in base64. units: (centre, spread) of codes that are counted in these.
    """
    if type(model) not in (Autoencoder, VAE) or model.network != "mlp":
        return None  # a subclass may decode in a way of its own
    if model.config["shape"][0] != 1:
        return None
    first, _, last = copy.deepcopy(model.decoder).cpu()
    a, b = first.weight, first.bias
    if units is not None:
        centre, spread = (unit.cpu() for unit in units)
        a, b = a * spread, b + a @ centre
    codes = WIDE * torch.randn((1000, a.shape[1]), generator=torch.Generator().manual_seed(0))
    whole, steps = _rounded(last.weight, last.bias, torch.relu(codes @ a.T + b))
    floats = [part.float().numpy().tobytes() for part in (a, b, last.bias, steps)]
    data = b"".join([*floats, whole.to(torch.int8).numpy().tobytes()])
    sizes = [a.shape[1], *last.weight.T.shape]
    return {"sizes": sizes, "data": _as_text(gzip.compress(data, mtime=0))}


def _rounded(w: Tensor, b: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Return (whole numbers up to ±127, steps) with w ≈ whole · step, a step a row.

    A pixel that is black for nearly all hidden layers h gets a coarse step: its weights take fewer
    bytes, a tenth of a page with three models.
    """
    largest = w.abs().amax(dim=1, keepdim=True).clamp_min(1e-12)
    steps, x = largest / 127, torch.sigmoid(h @ w.T + b)
    for levels in COARSER:
        step = largest / levels
        off = torch.sigmoid(h @ (step * (w / step).round()).T + b) - x
        steps = torch.where(off.abs().amax(dim=0)[:, None] < TOLERANCE, step, steps)
    return (w / steps).round(), steps


def numbers(array: Tensor | np.ndarray) -> list:
    """Return an array as lists of numbers with six decimals, which JSON has room for."""
    return np.asarray(array, dtype=np.float64).round(6).tolist()


def pixels(pictures: Sequence[np.ndarray]) -> list[str]:
    """Return grey pictures, uint8 `(side, side)` each, as base64 of their bytes, row by row."""
    return [_as_text(picture.tobytes()) for picture in pictures]


def examples(decoder, images: Tensor) -> dict:
    """Return the first of these test images, uint8 `(N, ...)`, and their codes."""
    some = images[:EXAMPLES]
    codes, _ = decoder.encode(some)
    return {"test_codes": numbers(codes.cpu()), "test_images": pixels(as_pictures(some))}


def _as_text(data: bytes) -> str:
    return base64.b64encode(data).decode()
