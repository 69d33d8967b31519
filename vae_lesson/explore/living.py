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

from vae_lesson.data import to_float
from vae_lesson.explore.parts import as_pictures
from vae_lesson.models import VAE, Autoencoder

MIME = "application/vnd.vae-lesson.explorer+json"
EXAMPLES = 10  # test images that a page gets, with their codes: most have no encoder
LEVELS = (15, 19, 23, 31, 39, 47, 63, 79, 95, 127, 255, 511)  # to either side of 0: as few as do
TOLERANCE = 8 / 255  # intensity: what a pixel may be off by
DAMPING = 0.003  # of the mean of the diagonal, for what never varies; GPTQ has 0.01
REACH = 3.0  # units of a code: as far as sliders go
ENCODER_LEVELS = 39  # of an encoder's first layer: a drawing's −ELBO is right to 0.4 nats


def is_wanted() -> bool:
    """Say whether this run is for the site."""
    return bool(os.environ.get("VAE_LESSON_SITE"))


def state(decoders: dict, own: dict | None) -> dict | None:
    """Return an explorer's own state and its decoders' weights, as JSON; None if it has none, or if
    a decoder is something else than the course's MLP, which is all that the page can compute.

    If its own has what `encoder` returns as "encoder", that goes to the weights too.
    """
    if own is None:
        return None
    packed = [weights(decoder.model, decoder.units) for decoder in decoders.values()]
    if "encoder" in own:
        packed.append(own["encoder"])
    if None in packed:
        return None
    keys = [hashlib.sha256(each["data"].encode()).hexdigest()[:12] for each in packed]
    named = [{"name": name, "weights": key} for name, key in zip(decoders, keys)]
    if "encoder" in own:
        own = own | {"encoder": keys[-1]}
    return own | {"decoders": named, "weights": dict(zip(keys, packed))}


@torch.no_grad()
def weights(model: nn.Module, units: tuple[Tensor, Tensor] | None = None) -> dict | None:
    """Return the decoder z -> ReLU -> sigmoid of a model in grey: {"sizes", "data"}, or None.

    data: the first layer's weights `(hidden, latent)` and biases, the second's biases and steps,
    all float32, then its weights `(pixels, hidden)` in steps of one size a pixel, as int8, or int16
    if that is too coarse; gzipped, in base64. units: (centre, spread), if codes are counted so.
    """
    if not _is_ours(model):
        return None
    first, _, last = copy.deepcopy(model.decoder).cpu()
    a, b = first.weight, first.bias
    if units is not None:
        centre, spread = (unit.cpu() for unit in units)
        a, b = a * spread, b + a @ centre
    some, other = _hidden(a, b, seed=0), _hidden(a, b, seed=1)
    for levels in LEVELS:
        whole, steps = _rounded(last.weight, some, levels)
        x, rounded = (torch.sigmoid(other @ w.T + last.bias) for w in (last.weight, whole * steps))
        if (x - rounded).abs().max() < TOLERANCE:
            return _packed(a, b, last.bias, steps, whole)
    return None  # no page shows another picture than the notebook


@torch.no_grad()
def encoder(model: nn.Module, images: Tensor) -> dict | None:
    """Return the encoder x -> ReLU -> (mu, log_var) of a VAE in grey as `weights` does a decoder:
    in floats its second layer, `(2 · latent, hidden)`, as int8 its first, `(hidden, pixels)`.

    images: uint8 `(N, ...)` like those that it will see; the first 2,000 are enough.
    """
    if type(model) is not VAE or not _is_ours(model):
        return None
    first, _, heads = copy.deepcopy(model.encoder).cpu()
    whole, steps = _rounded(first.weight, to_float(images[:2000].cpu()), ENCODER_LEVELS)
    return _packed(heads.weight, heads.bias, first.bias, steps, whole)


def _is_ours(model: nn.Module) -> bool:
    """Say whether a model is the course's MLP in grey: a subclass may have a way of its own."""
    is_known = type(model) in (Autoencoder, VAE) and model.network == "mlp"
    return is_known and model.config["shape"][0] == 1


def _packed(a: Tensor, b: Tensor, bias: Tensor, steps: Tensor, whole: Tensor) -> dict:
    """Return a layer in floats, (a, b), and one in whole steps: {"sizes", "data"}."""
    floats = [part.float().numpy().tobytes() for part in (a, b, bias, steps)]
    whole = whole.to(torch.int8 if whole.abs().max() <= 127 else torch.int16)
    data = b"".join([*floats, whole.numpy().tobytes()])
    sizes = [*a.T.shape, *whole.T.shape]  # in and out of each
    return {"sizes": sizes, "data": _as_text(gzip.compress(data, mtime=0))}


def _hidden(a: Tensor, b: Tensor, seed: int) -> Tensor:
    """Return the hidden layer of random codes, a half from N(0, 1.5²), a half from all over."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2000, a.shape[1])
    normal = 1.5 * torch.randn(shape, generator=generator)
    uniform = REACH * (2 * torch.rand(shape, generator=generator) - 1)
    return torch.relu(torch.cat([normal, uniform]) @ a.T + b)


def _rounded(w: Tensor, h: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """Return (whole, steps), whole numbers up to ±levels and a step a row, with
    w @ h ≈ (whole · steps) @ h for hidden layers h `(n, hidden)`.

    One column after the other is rounded, the largest in h first, and those that follow make its
    error good as far as they go together in h. Source: Frantar et al. 2023, GPTQ.
    """
    steps = w.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / levels
    moments = h.double().T @ h.double()
    order = moments.diagonal().argsort(descending=True)
    damping = DAMPING * moments.diagonal().mean().clamp_min(1e-9)
    moments = moments[order][:, order] + damping * torch.eye(len(order))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    factor = torch.linalg.cholesky(inverse, upper=True)
    rest, whole = (w / steps).double()[:, order], torch.empty_like(w)
    for j, column in enumerate(order):
        whole[:, column] = rest[:, j].round().clamp(-levels, levels)
        off = (rest[:, j] - whole[:, column]) / factor[j, j]
        rest[:, j:] -= torch.outer(off, factor[j, j:])
    return whole, steps


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
