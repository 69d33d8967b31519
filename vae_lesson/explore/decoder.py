"""A model as explorers use it: codes in, pictures out, and back."""

import contextlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from vae_lesson.data import batches, square_shape
from vae_lesson.explore.pictures import PICTURE, as_pictures
from vae_lesson.words import _

EXAMPLES = 24  # test images that the page has, with their codes
# Intensity: fresh networks decode to greys that lie 0.02 to 0.11 from ½ in the mean, the trained
# ones of the course 0.38 to 0.46.
GREY = 0.15
SLACK = 0.05  # intensity: what a decoder may be outside [0, 1] and still give intensities


class Decoder:
    """A model of the course, another with `decode(z)`, or any function from codes to square images.

    What has no `decode_mean` may give logits, or values in [-1, 1]: `warnings()` says so.

    Raises: ValueError for what is no decoder of square images, or whose output is not finite.
    """

    def __init__(self, model: nn.Module | Callable, latent_size: int | None = None) -> None:
        self.latent_size = getattr(model, "latent_size", latent_size)
        self.decode = getattr(model, "decode_mean", getattr(model, "decode", model))
        if not callable(self.decode) or self.latent_size is None:
            raise ValueError(
                f"{type(model).__name__} is no decoder: give a model with latent_size and "
                "decode(z), as adapter.adapt makes of yours, or a function from codes to images "
                "and the code z to start from"
            )
        weights = next(model.parameters(), None) if isinstance(model, nn.Module) else None
        self.device = getattr(weights, "device", torch.device("cpu"))
        self.model = model
        self.units = None  # (centre, spread), where `decode` counts codes in these
        self.random_codes = np.random.default_rng(0).standard_normal((16, self.latent_size))
        x = self.values(self.random_codes)  # what is wrong with it shows now
        self.intensity, self._doubt = _scale(x, hasattr(model, "decode_mean"))

    @torch.inference_mode()
    def values(self, z: np.ndarray) -> Tensor:
        """Return what the decoder gives for codes `(n, latent_size)`: images `(n, ...)`."""
        x = self.decode(torch.tensor(z, dtype=torch.float32, device=self.device))
        x = torch.from_numpy(x.copy()) if isinstance(x, np.ndarray) else x
        if not isinstance(x, Tensor) or x.ndim < 2 or len(x) != len(z):
            raise ValueError("the decoder must give a tensor or array with one image for each code")
        x = _channels_first(x)
        check_finite("decoder", x)
        return x.float()

    def images(self, z: np.ndarray, largest: int = PICTURE) -> np.ndarray:
        """Return the pictures of codes `(n, latent_size)`, see `pictures.as_pictures`."""
        return as_pictures(self.intensity(self.values(z)), largest)

    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, bool]:
        """Return the codes `(N, latent_size)` of uint8 images, and whether they are the mu of a
        VAE: its `encode` gives (mu, log_var)."""
        if not hasattr(self.model, "encode"):
            raise ValueError("a decoder alone cannot encode an image: give the whole model")
        given = [self.model.encode(x) for x in batches(images, device=self.device)]
        if is_vae := isinstance(given[0], (tuple, list)):
            given = [mu for mu, *_ in given]
        if any(getattr(z, "shape", (0,))[1:] != (self.latent_size,) for z in given):
            raise ValueError(f"encode must give codes (n, {self.latent_size}), or (mu, log_var)")
        codes = torch.cat([torch.as_tensor(z).float().to(self.device) for z in given])
        check_finite("encoder", codes)
        return codes, is_vae

    def examples(self, images: Tensor | None) -> dict | None:
        """Return some of these uint8 images, from all over, and their codes, for the page."""
        if images is None:
            return None
        some = images[:: -(-len(images) // EXAMPLES)]
        return {"codes": self.encode(some)[0].cpu().tolist()} | packed([as_pictures(some)])

    def warnings(self, name: str) -> list[str]:
        """Return what its random codes give reason to doubt, of a model with this name."""
        found = [self._doubt] if self._doubt else []
        if np.abs(self.images(self.random_codes) / 255 - 0.5).mean() < GREY:
            found.append(
                _("Is {name} trained? Random codes decode to nearly the same grey all over.")
            )
        return [each.format(name=name) for each in found]


def packed(images: list[np.ndarray]) -> dict:
    """Return pictures, a batch for each decoder, as the page takes them."""
    return {"shapes": [x.shape for x in images], "buffers": [x.tobytes() for x in images]}


def check_finite(part: str, *given: Tensor) -> None:
    """Raise a ValueError if what a part of the model gives holds NaN or inf."""
    if not all(x.isfinite().all() for x in given):
        raise ValueError(f"the {part} gives NaN or inf: has its training diverged?")


def _channels_first(x: Tensor) -> Tensor:
    """Return images `(n, ...)` as they are, or with the channels moved from the last place."""
    shape = tuple(x.shape[1:])
    with contextlib.suppress(ValueError):
        channels, side, _ = square_shape(x[0].numel())
        if shape in [(channels * side * side,), (side, side), (channels, side, side)]:
            return x
        if shape == (side, side, channels):
            return x.movedim(3, 1)
    wanted = "(s·s,), (s, s), (1, s, s), or in colour (3·s·s,), (3, s, s)"
    raise ValueError(f"the decoder gives images of shape {shape}: no square image, {wanted}")


def _scale(x: Tensor, is_intensity: bool) -> tuple[Callable[[Tensor], Tensor], str]:
    """Return what makes intensities of values like x, and a doubt about it to put {name} into."""
    low, high = x.min().item(), x.max().item()
    if is_intensity or (low >= -SLACK and high <= 1 + SLACK):
        return lambda x: x, ""
    if low < -1 - SLACK or high > 1 + SLACK:
        doubt = _(
            "Does {name} give logits? Random codes decode to values from {low:.3g} to "
            "{high:.3g}: shown is their sigmoid."
        )
        return torch.sigmoid, doubt.format(name="{name}", low=low, high=high)
    doubt = _(
        "Does {name} give [-1, 1]? Random codes decode to values from {low:.3g} to {high:.3g}: "
        "shown is (x + 1) / 2."
    )
    return lambda x: (x + 1) / 2, doubt.format(name="{name}", low=low, high=high)
