"""What a web page moves an explorer by, without a kernel: its state, and networks with weights.

Only `make site` asks for it, by the environment variable VAE_LESSON_SITE, so that committed lessons
do not grow. What the page does with it is in site/decode.js and site/page.js.
"""

import base64
import gzip
import hashlib
import os

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


def is_wanted() -> bool:
    """Say whether this run is for the site."""
    return bool(os.environ.get("VAE_LESSON_SITE"))


def alive(explorer) -> dict | None:
    """Return an explorer's state and networks, as JSON; None if a page cannot compute one."""
    decoders = explorer._decoders.values()
    networks = [network(each.model) for each in decoders]
    if explorer.state["kind"] == "drawing":
        networks.append(network(getattr(explorer._model, "encoder", None)))
    if None in networks:
        return None
    keys = [hashlib.sha256(str(each).encode()).hexdigest()[:12] for each in networks]
    return {
        "state": _as_json(explorer.state | explorer._for_page()),
        "shown": _as_json(explorer.shown),
        "networks": keys,
        "units": [each.units and [part.tolist() for part in each.units] for each in decoders],
        "weights": dict(zip(keys, networks)),
    }


def network(model: nn.Module) -> dict | None:
    """Return the way from codes to intensities as {"layers", "data"}; None where a page has no way.

    layers: [name, sizes …] each; data: their weights one after the other, as float16, first the low
    bytes of all and then the high ones, gzipped, in base64.
    """
    layers, weights = [], []
    try:
        _add(model, layers, weights)
    except NotImplementedError:
        return None
    flat = torch.cat([each.detach().cpu().flatten() for each in weights])
    halves = (flat.half().numpy().view(np.uint16) + 1) & 0xFFFE  # rounded to 9 bits of mantissa
    low_then_high = halves.view(np.uint8).reshape(-1, 2).T.tobytes()  # that gzip makes a third less
    return {"layers": layers, "data": _as_text(gzip.compress(low_then_high, mtime=0))}


def _add(part: nn.Module, layers: list, weights: list[Tensor]) -> None:
    """Append what a page must do for a part, and the weights for it."""
    if type(part) not in KNOWN:  # what is made of them may do anything
        raise NotImplementedError(type(part).__name__)
    match part:
        case LabelMoved() if type(part.model) is ConditionalVAE:
            layers.append(["label", part.label, part.model.n_classes])
            _add(nn.Sequential(part.model.decoder, nn.Sigmoid()), layers, weights)
        case Stopped() if type(part.field) is VelocityField:
            field = part.field
            layers.append(["flow", part.n_steps, field.n_classes, *field.enter.weight.shape[::-1]])
            weights += [part.start, *field.parameters()]
            _add(part.vae, layers, weights)
        case VQVAE():
            layers.append(["tokens", *part.codebook.shape])
            weights.append(part.codebook)
            layers.append(["shape", part.codebook.shape[1], 7, 7])
            _add(nn.Sequential(part.decoder, nn.Sigmoid()), layers, weights)
        case Autoencoder() | VAE():
            _add(part.decoder, layers, weights)
            layers += [["sigmoid"]] * (part.network != "linear" or type(part) is VAE)
        case nn.Sequential():
            for each in part:
                _add(each, layers, weights)
        case nn.Linear(bias=nn.Parameter()):
            layers.append(["linear", part.in_features, part.out_features])
            weights += part.parameters()
        case nn.Unflatten():
            layers.append(["shape", *part.unflattened_size])
        case nn.Upsample(mode="nearest", size=(_, _)):
            layers.append(["upsample", *part.size])
        case nn.Conv2d(kernel_size=(k, _), padding=(p, _)) if _is_plain(part, 1):
            layers.append(["conv", part.in_channels, part.out_channels, k, p])
            weights += part.parameters()
        case nn.ConvTranspose2d(kernel_size=(k, _), padding=(p, _)) if _is_plain(part, 2):
            # A convolution of pixels with zeros in between, by the kernel turned round.
            layers += [["spread"], ["conv", part.in_channels, part.out_channels, k, k - 1 - p]]
            weights += [part.weight.flip(2, 3).transpose(0, 1), part.bias]
        case nn.GroupNorm(affine=True, eps=1e-5):
            layers.append(["norm", part.num_groups, part.num_channels])
            weights += part.parameters()
        case nn.ReLU() | nn.Tanh() | nn.Sigmoid():
            layers.append([type(part).__name__.lower()])
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


def _as_json(value: object) -> object:
    """Return what an explorer holds with its bytes as {"base64": text}."""
    if isinstance(value, dict):
        return {name: _as_json(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(each) for each in value]
    return {"base64": _as_text(value)} if isinstance(value, bytes) else value


def _as_text(data: bytes) -> str:
    return base64.b64encode(data).decode()
