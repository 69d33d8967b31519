"""Sliders that move a code: one a latent dimension, or one a direction with a meaning."""

import random

import ipywidgets as widgets
import numpy as np
import torch
from torch import Tensor, nn

from vae_lesson import evaluate
from vae_lesson.arguments import check_same_shape
from vae_lesson.explore.base import Decoder, Explorer, column, row
from vae_lesson.explore.parts import PICTURE, Picture, Sheet, SliderNames, beside, enlarged, png
from vae_lesson.models import VAE

FRAMES = 11  # images in a filmstrip
FRAME = 28  # pixels, the height of a filmstrip
REACH = 3.0  # how far a dimension's slider goes either way: 3σ of a VAE's prior
UNUSED = 0.01  # nats: a dimension with less KL than this does nothing


class SliderExplorer(Explorer):
    """Sliders that move a code along directions, z = origin + Σ_i slider_i · direction_i.

    directions: {name: (direction, limit)}; `sliders` go from -limit to limit. The origin is what
    they do not express of a code that you set: with `sliders_show_z` only what is beyond their
    limits, otherwise all of it. Beside each a filmstrip shows what it does over its range, the
    others as they are.
    """

    def __init__(
        self,
        decoders: dict[str, Decoder],
        directions: dict[str, tuple[Tensor, float]],
        z: Tensor | None,
        sliders_show_z: bool,
        n_folded: int = 0,
        test_images: Tensor | None = None,
    ) -> None:
        super().__init__(decoders, z)
        self._origin = np.zeros_like(self._start)
        self._sliders_show_z = sliders_show_z
        self._test_images = test_images
        self._moving = False  # True while the sliders follow z
        vectors = [direction.detach().cpu().numpy() for direction, _ in directions.values()]
        self._directions = np.stack(vectors).astype(np.float32)  # (n, latent_size)
        self.sliders, self._strips = [], []
        for name, (_, limit) in directions.items():
            slider = widgets.FloatSlider(min=-limit, max=limit, step=limit / 60, description=name)
            slider.style.description_width = "80px"
            slider.layout.width = "300px"
            self._on(slider, "value", self._follow_sliders)
            self.sliders.append(slider)
            strip = Picture(alt=f"what {name} does from {-limit:g} to {limit:g}")
            strip.width, strip.height = FRAMES * FRAME, FRAME * len(decoders)
            strip.layout.margin = "2px"
            strip.add_class("vae-strip")
            self._strips.append(strip)
        self._original = Picture(alt="the test image")
        caption = widgets.HTML("the test image:")
        self._shown_original = column(caption, self._original, display="none")
        self.add_class("vae-sliders")
        self._open(self._layout(n_folded))
        self._draw_strips()

    def _layout(self, n_folded: int) -> widgets.Widget:
        rows = [row(*pair) for pair in zip(self.sliders, self._strips)]
        n_shown = len(rows) - n_folded
        # Sixty-four sliders scroll; in a block each row keeps its height.
        scrolling = {"display": "block", "max_height": "350px", "overflow": "auto"}
        right = [column(*rows[:n_shown], **scrolling)]
        if n_folded:
            folded = widgets.Accordion([column(*rows[n_shown:], **scrolling)])
            folded.set_title(0, f"{n_folded} unused dimensions (KL under {UNUSED} nats)")
            right.append(folded)
        buttons = [
            self._button("Random draw", "Go to a random code", self.draw),
            self._button("Reset", "Go back to the code it started from", self.reset),
        ]
        if self._test_images is not None:
            tip = "Go to the code of a random test image"
            buttons.append(self._button("Encode a test image", tip, self.encode))
        left = []
        for name, picture in zip(self._decoders, self._pictures):
            left += [widgets.HTML(f"<b>{name}</b>"), picture] if name else [picture]
        # Aligned at the top: stretched to the column's height, the pictures would be distorted.
        return row(
            column(*left, self._shown_original, flex="0 0 auto"),
            column(*right, row(*buttons), SliderNames()),
            align_items="flex-start",
        )

    def draw(self) -> None:
        """Go to a random code: z ~ N(0, I), or each direction's slider uniformly over its range."""
        self._shown_original.layout.display = "none"
        if self._sliders_show_z:
            self.z = np.float32([random.gauss(0, 1) for _ in self._start])
        else:
            values = [random.uniform(slider.min, slider.max) for slider in self.sliders]
            self.z = self._start + np.float32(values) @ self._directions

    def reset(self) -> None:
        """Go back to the first code."""
        self._shown_original.layout.display = "none"
        super().reset()

    def encode(self) -> None:
        """Go to the code of a random test image, and show that image too."""
        image = random.choice(self._test_images)
        self.z = self._decoders[""].code(image)
        self._original.value = png(enlarged(image.cpu().numpy()))
        self._shown_original.layout.display = None

    def _moved(self) -> np.ndarray:
        """Return how far the sliders are from the origin, `(latent_size,)`."""
        values = np.array([slider.value for slider in self.sliders], dtype=np.float32)
        return values @ self._directions

    def _follow_sliders(self) -> None:
        if not self._moving:
            self.z = self._origin + self._moved()

    def _show_z(self, change) -> None:
        if not np.array_equal(self.z, self._origin + self._moved()):  # it is not from the sliders
            self._follow_z()
        super()._show_z(change)
        if self.children:  # not while it opens
            self._soon(self._draw_strips)

    def _follow_z(self) -> None:
        self._moving = True
        try:
            for slider, direction in zip(self.sliders, self._directions):
                value = float(self.z @ direction) if self._sliders_show_z else 0.0
                slider.value = min(max(value, slider.min), slider.max)
            self._origin = self.z - self._moved()
        finally:
            self._moving = False

    def _draw_strips(self) -> None:
        for i, strip in enumerate(self._strips):
            strip.value = png(self._filmstrip(i))

    def _filmstrip(self, i: int) -> np.ndarray:
        """Return what one slider does over its range, the others as they are, a row a decoder."""
        slider = self.sliders[i]
        steps = np.linspace(slider.min, slider.max, FRAMES, dtype=np.float32) - slider.value
        codes = self.z + steps[:, None] * self._directions[i]
        return np.vstack([np.hstack(decoder.images(codes)) for decoder in self._decoders.values()])

    def _twin(self) -> np.ndarray:
        """Return the decoded images, and the filmstrips of the first six sliders."""
        shown, n_rows = self.sliders[:6], len(self._decoders)
        picture = beside([enlarged(image) for image in self._decoded()])
        frame = 40 if n_rows == 1 else FRAME
        high, label, gap, top = frame * n_rows, 120, 14, 22 * (n_rows > 1)
        left = picture.shape[1] + gap
        height = max(PICTURE + top, (high + 4) * len(shown))
        sheet = Sheet(left + label + FRAMES * frame, height)
        sheet.picture(picture, 0, top, PICTURE)
        for i, name in enumerate(self._decoders):
            sheet.text(name, i * (PICTURE + 8), 2)
        for i, slider in enumerate(shown):
            y = i * (high + 4)
            sheet.text(f"{slider.description} = {slider.value:.2f}", left, y + high // 3)
            sheet.picture(self._filmstrip(i), left + label, y, high)
        return sheet.array()


def latent_sliders(
    model: nn.Module, z: Tensor | None = None, test_images: Tensor | None = None
) -> SliderExplorer:
    """Return one slider for each latent dimension, from -3 to 3: ±3σ of a VAE's prior.

    model: a model of this course, or any function from codes `(n, latent_size)` to square images;
    then z says the latent size. z: the code to start from, default 0. test_images: uint8, for the
    button that encodes one; of a VAE they also say how much each dimension is used (the mean KL):
    the most used comes first, unused ones are folded away.

    Raises: ValueError for what is no decoder of square images, and for a z of another size.
    """
    decoder = Decoder(model, None if z is None else len(z))
    kl = None
    if test_images is not None and isinstance(model, VAE):
        kl = evaluate.mean_kl_per_dimension(model, test_images)
    return dimension_sliders({"": decoder}, kl, z, test_images)


def dimension_sliders(
    decoders: dict[str, Decoder],
    kl: Tensor | None,
    z: Tensor | None = None,
    test_images: Tensor | None = None,
) -> SliderExplorer:
    """Return `latent_sliders` for one decoder or several that take the same codes."""
    latent_size = next(iter(decoders.values())).latent_size
    order = range(latent_size) if kl is None else kl.argsort(descending=True).tolist()
    # With several decoders a dimension that one does not use is not unused.
    n_folded = 0 if kl is None or len(decoders) > 1 else int((kl < UNUSED).sum())
    unit = torch.eye(latent_size)
    directions = {f"z[{j}]": (unit[j], REACH) for j in order}
    return SliderExplorer(decoders, directions, z, True, n_folded, test_images)


def direction_sliders(
    model: nn.Module, z: Tensor, directions: dict[str, tuple[Tensor, float]]
) -> SliderExplorer:
    """Return one slider for each named direction {name: (direction, limit)}, starting at code z.

    A slider's value is the number of steps along its direction from z, from -limit to limit.

    Raises: ValueError if there is no direction, or one has another size than z.
    """
    if not directions:
        raise ValueError("direction_sliders needs at least one direction")
    for name, (direction, _) in directions.items():
        check_same_shape(**{"z": z, f"direction {name!r}": direction})
    return SliderExplorer({"": Decoder(model, len(z))}, directions, z, sliders_show_z=False)
