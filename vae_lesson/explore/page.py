"""What a web page moves an explorer by, without a kernel: its state, and networks with weights.

Only `make site` asks for it, by the environment variable VAE_LESSON_SITE, so that committed lessons
do not grow. What the page does with it is in site/decode.js and site/page.js.
"""

import base64
import gzip
import hashlib
import json
import os
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from vae_lesson.models import VAE, Autoencoder
from vae_lesson.priors.conditional import ConditionalVAE, LabelMoved
from vae_lesson.priors.discrete import VQVAE
from vae_lesson.priors.flow import Stopped, VelocityField

KNOWN = {Autoencoder, VAE, LabelMoved, Stopped, VQVAE, nn.Sequential, nn.Flatten, nn.Unflatten}
KNOWN |= {nn.Linear, nn.ReLU, nn.Tanh, nn.Sigmoid, nn.Upsample, nn.GroupNorm}
KNOWN |= {nn.Conv2d, nn.ConvTranspose2d}
MIME = "application/vnd.vae-lesson.explorer+json"


def alive(explorer) -> dict | None:
    """Return an explorer's state and networks, as JSON; None if no page is wanted, or if it cannot
    compute one of them."""
    if not os.environ.get("VAE_LESSON_SITE"):
        return None
    decoders = explorer._decoders.values()
    networks = [network(each.model) for each in decoders]
    if explorer.state["kind"] == "drawing":
        networks.append(network(getattr(explorer._model, "encoder", None)))
    if None in networks:
        return None
    keys = [hashlib.sha256(str(each).encode()).hexdigest()[:12] for each in networks]
    left = {
        "state": explorer.state | getattr(explorer, "for_page", {}),
        "shown": explorer.shown,
        "networks": keys,
        "units": [each.units and [part.tolist() for part in each.units] for each in decoders],
        "weights": dict(zip(keys, networks)),
    }
    return json.loads(json.dumps(left, default=lambda data: {"base64": _as_text(data)}))


def network(model: nn.Module) -> dict | None:
    """Return the way from codes to intensities as {"layers", "data"}; None where a page has no way.

    layers: [name, sizes …] each; data: their weights one after the other, as float16, first the low
    bytes of all and then the high ones, gzipped, in base64.
    """
    try:
        layers, weights = zip(*_steps(model))
    except NotImplementedError:
        return None
    flat = torch.cat([each.detach().cpu().flatten() for some in weights for each in some])
    halves = (flat.half().numpy().view(np.uint16) + 1) & 0xFFFE  # rounded to 9 bits of mantissa
    low_then_high = halves.view(np.uint8).reshape(-1, 2).T.tobytes()  # that gzip makes a third less
    return {"layers": list(layers), "data": _as_text(gzip.compress(low_then_high, mtime=0))}


def _steps(part: nn.Module) -> Iterator[tuple[list, list[Tensor]]]:
    """Give what a page must do for a part, [name, sizes …] each, and the weights for it."""
    if type(part) not in KNOWN:  # what is made of them may do anything
        raise NotImplementedError(type(part).__name__)
    match part:
        case LabelMoved() if type(part.model) is ConditionalVAE:
            yield ["label", part.label, part.model.n_classes], []
            yield from _steps(nn.Sequential(part.model.decoder, nn.Sigmoid()))
        case Stopped() if type(part.field) is VelocityField:
            field = part.field
            sizes = part.n_steps, field.n_classes, *field.enter.weight.shape[::-1]
            yield ["flow", *sizes], [part.start, *field.parameters()]
            yield from _steps(part.vae)
        case VQVAE():
            yield ["tokens", *part.codebook.shape], [part.codebook]
            yield ["shape", part.codebook.shape[1], 7, 7], []
            yield from _steps(nn.Sequential(part.decoder, nn.Sigmoid()))
        case Autoencoder() | VAE():
            yield from _steps(part.decoder)
            if part.network != "linear" or type(part) is VAE:
                yield ["sigmoid"], []
        case nn.Sequential():
            for each in part:
                yield from _steps(each)
        case nn.Linear(bias=nn.Parameter()):
            yield ["linear", part.in_features, part.out_features], [*part.parameters()]
        case nn.Unflatten():
            yield ["shape", *part.unflattened_size], []
        case nn.Upsample(mode="nearest", size=(_, _)):
            yield ["upsample", *part.size], []
        case nn.Conv2d(kernel_size=(k, _), padding=(p, _)) if _is_plain(part, 1):
            yield ["conv", part.in_channels, part.out_channels, k, p], [*part.parameters()]
        case nn.ConvTranspose2d(kernel_size=(k, _), padding=(p, _)) if _is_plain(part, 2):
            # A convolution of pixels with zeros in between, by the kernel turned round.
            turned = part.weight.flip(2, 3).transpose(0, 1)
            yield ["spread"], []
            yield ["conv", part.in_channels, part.out_channels, k, k - 1 - p], [turned, part.bias]
        case nn.GroupNorm(affine=True, eps=1e-5):
            yield ["norm", part.num_groups, part.num_channels], [*part.parameters()]
        case nn.ReLU() | nn.Tanh() | nn.Sigmoid():
            yield [type(part).__name__.lower()], []
        case nn.Flatten():
            pass
        case _:
            raise NotImplementedError(str(part))


def _is_plain(part: nn.Conv2d | nn.ConvTranspose2d, stride: int) -> bool:
    """Say whether a convolution has this stride and nothing else that decode.js does not know."""
    (k, _), (p, _) = part.kernel_size, part.padding
    rest = part.groups, part.dilation, part.output_padding, part.padding_mode
    same = (part.kernel_size, part.padding, part.stride) == ((k, k), (p, p), (stride, stride))
    return same and rest == (1, (1, 1), (0, 0), "zeros") and part.bias is not None


def _as_text(data: bytes) -> str:
    return base64.b64encode(data).decode()
