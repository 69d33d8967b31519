"""From one image, or code, to another: one slider."""

import random

import ipywidgets as widgets
import numpy as np
import torch
from torch import Tensor, nn

from vae_lesson import latent
from vae_lesson.explore import living
from vae_lesson.explore.base import Decoder, Explorer, row
from vae_lesson.explore.parts import (
    FRAMES,
    GAP,
    PICTURE,
    Picture,
    as_pictures,
    enlarged,
    joined,
    png,
)

WIDTH = 3 * PICTURE + 2 * GAP  # pixels: the two ends and the image between them
PATHS = {"lerp": "a straight line", "slerp": "a great arc around the origin"}


class MorphExplorer(Explorer):
    """A slider from `ends[0]` (0) to `ends[1]` (1) on a straight line or a great arc.

    Setting `z` from code shows that code; the slider stays where it is, and the next move of it
    comes back to the path.
    """

    _title = "Morph"

    def __init__(self, decoder: Decoder, ends: list[tuple], test_images: Tensor | None) -> None:
        super().__init__({"": decoder}, None)
        self._test_images = test_images
        self.slider = widgets.FloatSlider(
            value=0.5, min=0, max=1, step=0.01, description="from start to end"
        )
        self.slider.style.description_width = "initial"
        self.slider.layout.width = f"{WIDTH}px"
        self._on(self.slider, "value", self._follow)
        self.path = self._switch(PATHS, self._show_path)
        self._originals = [Picture(alt=f"the image at the {name}") for name in ("start", "end")]
        start, end = self._originals
        self._film = Picture(alt="the whole path", width=WIDTH, height=0)
        buttons = [self.path]
        if test_images is not None:
            buttons.append(self._button("Another pair", self.draw))
        self._open(row(start, self._pictures[0], end), self.slider, self._film, row(*buttons))
        self._go_between(ends)

    def draw(self) -> None:
        """Go from one random test image to another."""
        pair = random.sample(range(len(self._test_images)), 2)
        self._go_between([_end(self._decoders[""], "", self._test_images[i]) for i in pair])

    def _go_between(self, ends: list[tuple]) -> None:
        self.ends, self._end_images = zip(*ends)
        for picture, image in zip(self._originals, self._end_images):
            picture.value = png(enlarged(image))
        self._start = self._code(0.5)
        self._show_path()

    def _code(self, t: float | Tensor) -> np.ndarray:
        start, end = (torch.from_numpy(code) for code in self.ends)
        return getattr(latent, self.path.value)(start, end, t).numpy()

    def _follow(self) -> None:
        self.z = self._code(self.slider.value)

    def _state(self) -> str:
        where = f"{self.slider.value:.2f} of the way from start to end on {PATHS[self.path.value]}"
        return f"{super()._state()}, {where}, between the images at its ends"

    def _living(self) -> dict:
        state = {
            "kind": "morph",
            "ends": living.numbers(self.ends),
            "end_images": living.pixels(self._end_images),
            "t": self.slider.value,
            "path": self.path.value,
            "paths": PATHS,
        }
        if self._test_images is not None:
            state |= living.examples(self._decoders[""], self._test_images)
        return state

    def _show_path(self) -> None:
        codes = self._code(torch.linspace(0, 1, FRAMES)[:, None])
        frames = joined(self._decoders[""].images(codes, largest=WIDTH // FRAMES), gap=1)
        self._film.height = round(WIDTH * np.divide(*frames.shape[:2]))
        self._film.value = png(frames)
        self._follow()


def morph(
    model: nn.Module, start: Tensor, end: Tensor, test_images: Tensor | None = None
) -> MorphExplorer:
    """Return one slider from `start` to `end`, on a straight line (lerp) or a great arc (slerp).

    start and end: two uint8 images `(side, side)`, in colour `(3, side, side)`, or two codes
    `(latent_size,)` as floats.
    test_images: uint8, for a button that takes two of them for the ends.

    Raises: ValueError if they are neither, or an image is given and the model cannot encode.
    """
    decoder = Decoder(model, None if start.dtype == torch.uint8 else len(start))
    ends = [_end(decoder, name, given) for name, given in [("start", start), ("end", end)]]
    return MorphExplorer(decoder, ends, test_images)


def _end(decoder: Decoder, name: str, given: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the code of one end, and its image."""
    if given.dtype == torch.uint8 and (given.ndim == 2 or given.shape[:-2] == (3,)):
        (code,), _ = decoder.encode(given[None])
        return code.cpu().numpy(), as_pictures(given[None])[0]
    if given.is_floating_point() and given.shape == (decoder.latent_size,):
        code = given.detach().cpu().float().numpy()
        return code, decoder.images(code[None])[0]
    raise ValueError(
        f"{name} must be a uint8 image, (side, side) or (3, side, side), or a code of floats "
        f"({decoder.latent_size},), got {given.dtype} of shape {tuple(given.shape)}"
    )
