"""From one image, or code, to another: one slider."""

import random

import ipywidgets as widgets
import numpy as np
import torch
from torch import Tensor, nn

from vae_lesson import latent
from vae_lesson.explore.base import Decoder, Explorer, row
from vae_lesson.explore.parts import PICTURE, Picture, Sheet, SliderNames, beside, enlarged, png

FRAMES = 11  # images in the filmstrip
END = 112  # pixels, the side of the pictures at the two ends
GAP = 10  # pixels between them
WIDTH = PICTURE + 2 * END + 2 * GAP
PATHS = {"lerp": "a straight line", "slerp": "a great arc around the origin"}


class MorphExplorer(Explorer):
    """A slider from `ends[0]` (0) to `ends[1]` (1) on a straight line or a great arc.

    Setting `z` from code shows that code; the slider stays where it is, and the next move of it
    comes back to the path.
    """

    def __init__(
        self,
        decoder: Decoder,
        ends: list[np.ndarray],
        originals: list[np.ndarray],
        test_images: Tensor | None,
    ) -> None:
        super().__init__({"": decoder}, ends[0])
        self.ends, self._originals, self._test_images = ends, originals, test_images
        self.slider = widgets.FloatSlider(
            value=0.5, min=0, max=1, step=0.01, description="from start to end"
        )
        self.slider.style.description_width = "initial"
        self.slider.layout.width = f"{WIDTH}px"
        self._on(self.slider, "value", self._follow)
        self.path = self._switch(PATHS, self._show_path)
        start, end = self._end_pictures = [
            Picture(alt=f"the image at the {name}", width=END, height=END)
            for name in ("start", "end")
        ]
        self._film = Picture(alt="the whole path", width=WIDTH, height=0)
        buttons = [self.path]
        if test_images is not None:
            tip = "Go from one random test image to another"
            buttons.append(self._button("Another pair", tip, self.draw))
        self.add_class("vae-sliders")
        self._start = self._code(self.slider.value)
        self._open(
            row(start, self._pictures[0], end, align_items="center", grid_gap=f"{GAP}px"),
            self.slider,
            self._film,
            row(*buttons, SliderNames(), align_items="center"),
        )
        self._show_ends()

    def draw(self) -> None:
        """Take two random test images for the ends."""
        pair = random.sample(range(len(self._test_images)), 2)
        images = [self._test_images[i] for i in pair]
        self.ends = [self._decoders[""].code(image) for image in images]
        self._originals = [image.cpu().numpy() for image in images]
        self._start = self._code(0.5)
        self._show_ends()

    def _code(self, t: float | Tensor) -> np.ndarray:
        start, end = (torch.from_numpy(code) for code in self.ends)
        return getattr(latent, self.path.value)(start, end, t).numpy()

    def _follow(self) -> None:
        self.z = self._code(self.slider.value)

    def _show_ends(self) -> None:
        for picture, image in zip(self._end_pictures, self._originals):
            picture.value = png(enlarged(image))
        self._show_path()

    def _show_path(self) -> None:
        codes = self._code(torch.linspace(0, 1, FRAMES)[:, None])
        self._frames = beside(self._decoders[""].images(codes), gap=1)
        self._film.height = round(self._film.width * np.divide(*self._frames.shape))
        self._film.value = png(self._frames)
        self._follow()

    def _twin(self) -> np.ndarray:
        """Return the two ends with the image between them, and the whole path below."""
        sheet = Sheet(WIDTH, PICTURE + self._film.height + 40)
        start, end = self._originals
        sheet.picture(start, 0, END // 2, END)
        sheet.picture(self._decoded()[0], END + GAP, 0, PICTURE)
        sheet.picture(end, WIDTH - END, END // 2, END)
        words = f"{self.path.value}, {self.slider.value:.2f} of the way"
        sheet.text(words, END + GAP, PICTURE + 6)
        sheet.picture(self._frames, 0, PICTURE + 32, self._film.height)
        return sheet.array()


def morph(
    model: nn.Module, start: Tensor, end: Tensor, test_images: Tensor | None = None
) -> MorphExplorer:
    """Return one slider from `start` to `end`, on a straight line (lerp) or a great arc (slerp).

    start and end: two uint8 images `(side, side)`, or two codes `(latent_size,)` as floats.
    test_images: uint8, for a button that takes two of them for the ends.

    Raises: ValueError if they are neither, or an image is given and the model cannot encode.
    """
    decoder = Decoder(model, None if start.dtype == torch.uint8 else len(start))
    ends, originals = [], []
    for name, given in [("start", start), ("end", end)]:
        if given.dtype == torch.uint8 and given.ndim == 2:
            ends.append(decoder.code(given))
            originals.append(given.cpu().numpy())
        elif given.is_floating_point() and given.shape == (decoder.latent_size,):
            ends.append(given.detach().cpu().float().numpy())
            originals.append(decoder.images(ends[-1][None])[0])
        else:
            raise ValueError(
                f"{name} must be a uint8 image (side, side) or a code of floats "
                f"({decoder.latent_size},), got {given.dtype} of shape {tuple(given.shape)}"
            )
    return MorphExplorer(decoder, ends, originals, test_images)
