"""A trained model in another program: one picture to its code, a code to a picture, and both halves
as files that need nothing of this package.

    model, info = load_model("holiday.pt")
    mu, log_var = encode_picture(model, info, "beach.jpg")
    decode_picture(model, mu).save("again.png")
"""

import copy
import importlib.util
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vae_lesson.adapter import AdaptedVAE
from vae_lesson.data import channels_last, to_float
from vae_lesson.models import VAE
from vae_lesson.running.saving import written_whole
from vae_lesson.sources.pictures import read, with_channels

ONNX = ("onnx", "onnxscript")  # what torch.onnx needs


@torch.no_grad()
def encode_picture(
    model: VAE, info: dict, picture: str | Path | Image.Image | Tensor | np.ndarray
) -> tuple[Tensor, Tensor]:
    """Return (mu, log_var) of q(z|x) for one picture, each `(latent_size,)`, on the model's device.

    picture: the path of a file, a picture of Pillow's, or an array or a tensor `(h, w)`,
    `(h, w, 3)` or `(3, h, w)` of any numbers. It becomes what `load_images` made of the training
    pictures: turned upright, the square in its middle, resized, grey or in colour.
    info: what `load_model` returned, of a model that was saved with its images.

    Raises: FileNotFoundError; ValueError for what is no picture, or a model without its images.
    """
    _check_vae(model)
    if not {"shape", "scales"} <= info.keys():
        raise ValueError(
            "info does not say how the pictures were prepared: save the model with its images, as "
            "save_model(model, path, images), and give the info that load_model returns"
        )
    channels, side, _ = info["shape"]
    pixels = _prepared(picture, side, info["scales"])
    x = torch.from_numpy(np.array(with_channels(pixels, channels == 3)))
    mu, log_var = model.encode(to_float(x[None]).to(next(model.parameters())))
    return mu[0], log_var[0]


@torch.no_grad()
def decode_picture(model: VAE, z: Tensor | np.ndarray | list[float]) -> Image.Image:
    """Return E[x|z] of one code as a picture of Pillow's: z `(latent_size,)`, on any device.

    Raises: ValueError for a code of another length, and for more than one.
    """
    _check_vae(model)
    size = model.latent_size
    try:
        code = torch.as_tensor(z)
    except (TypeError, ValueError, RuntimeError):
        code = None
    if code is None or code.shape not in ((size,), (1, size)) or not code.isfinite().all():
        got = type(z).__name__ if code is None else f"shape {tuple(code.shape)}"
        raise ValueError(f"a code of this model is {size} finite numbers, z of one picture: {got}")
    x = model.decode_mean(code.reshape(1, size).to(next(model.parameters())))
    pixels = (255 * x.clamp(0, 1)).round().byte().cpu()
    return Image.fromarray(channels_last(pixels)[0].numpy())


def export(model: VAE, folder: str | Path) -> list[Path]:
    """Write both halves of a model for programs without this package; return the files' paths.

    encode: x `(B, pixels)`, floats in [0, 1], flat, in colour one channel after the other, as
    `to_float` gives them -> mu, log_var, each `(B, latent_size)`. decode: z `(B, latent_size)` ->
    x_mean `(B, pixels)`, in [0, 1]. All are float32, and B is free.

    encode.pt2 and decode.pt2 are torch.export's, for `torch.export.load(path).module()`. Beside
    them encode.onnx and decode.onnx are written where onnx and onnxscript are installed; else a
    line says so.

    Raises: ValueError for a network that torch.export cannot follow.
    """
    _check_vae(model)
    model, folder = copy.deepcopy(model).cpu().float().eval(), Path(folder)
    halves = {
        "encode": (model.encode, ["x"], model.input_size, ["mu", "log_var"]),
        "decode": (model.decode_mean, ["z"], model.latent_size, ["x_mean"]),
    }
    programs = {name: _followed(name, model, half, n) for name, (half, _, n, _) in halves.items()}
    absent = [name for name in ONNX if importlib.util.find_spec(name) is None]
    paths = []
    for name, (_, given, _, returned) in halves.items():
        paths.append(folder / f"{name}.pt2")
        with written_whole(paths[-1]) as part:
            torch.export.save(programs[name], part)
        if absent:
            continue
        names = {"input_names": given, "output_names": returned}
        paths.append(folder / f"{name}.onnx")
        with written_whole(paths[-1]) as part, warnings.catch_warnings(action="ignore"):
            torch.onnx.export(
                programs[name], (), part, **names, dynamo=True, verbose=False, external_data=False
            )
    if absent:
        print(f"No encode.onnx and decode.onnx: for them, pip install {' '.join(absent)}.")
    return paths


# --- what these are made of -----------------------------------------------------------------------


class _Half(nn.Module):
    """A method of a model as a module, which is what torch.export takes."""

    def __init__(self, model: nn.Module, method: Callable) -> None:
        super().__init__()
        self.model, self.method = model, method

    def forward(self, batch: Tensor):
        return self.method(batch)


def _followed(name: str, model: VAE, method: Callable, n: int) -> torch.export.ExportedProgram:
    """Return what torch.export makes of a method that takes floats `(B, n)`, for any B."""
    batch = torch.full((3, n), 0.5)  # not 1: that would be a constant
    try:
        return torch.export.export(
            _Half(model, method), (batch,), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
    except Exception as error:  # of the learner's own code it can be anything
        kind = type(model.model if isinstance(model, AdaptedVAE) else model).__name__
        said = textwrap.shorten(f"{type(error).__name__}: {error}", 300)
        raise ValueError(
            f"torch.export cannot follow {name} of {kind}: it must not look at values, as "
            "`if x.max() > 1`, .item() and a Normal do (return mu and log_var instead), nor use "
            f"len(x), for which x.shape[0] will do ({said})"
        ) from error


def _prepared(picture, side: int, scales: dict) -> np.ndarray:
    """Return a picture as `load_images` would have made it, uint8, grey or in colour as it is."""
    is_path = isinstance(picture, (str, Path))
    if is_path and not Path(picture).is_file():
        raise FileNotFoundError(f"there is no picture at {picture}")
    try:
        with warnings.catch_warnings(action="ignore"):
            return read(picture, side, scales)[0]
    except Exception as error:  # a broken file can make Pillow raise anything
        what = picture if is_path else "the picture"
        raise ValueError(f"{what} cannot be read: {error}") from error


def _check_vae(model: object) -> None:
    if not isinstance(model, VAE):
        raise ValueError(
            f"this takes a VAE, as load_model or adapter.adapt returns it, got a "
            f"{type(model).__name__}"
        )
