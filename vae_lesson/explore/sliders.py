"""Sliders that move a code: one a latent dimension, or one a direction with a meaning."""

import random

import ipywidgets as widgets
import numpy as np
import torch
from torch import Tensor, nn

from vae_lesson import evaluate
from vae_lesson.explore.base import Decoder, Explorer
from vae_lesson.explore.parts import PICTURE, Picture, Sheet, SliderNames, beside, enlarged, png
from vae_lesson.models import VAE

FRAMES = 11  # images in a filmstrip
FRAME = 28  # pixels, the height of a filmstrip
UNUSED = 0.01  # nats: a dimension with less KL than this does nothing
Limits = list[tuple[float, float]]


class SliderExplorer(Explorer):
    """Sliders that move a code along directions, z = origin + Σ_i slider_i · directions_i.

    `sliders` are the sliders. The origin is what they do not express of a code that you set.
    Beside each a filmstrip shows what it does over its range, the others as they are; the last
    `n_folded` are folded away. With `test_images` (uint8) a button encodes one of them and shows it
    beside its reconstruction. `draws_normal`: a random draw is z ~ N(0, I), not uniform.
    """

    def __init__(
        self,
        decoders: dict[str, Decoder],
        directions: Tensor,
        names: list[str],
        limits: Limits,
        z: Tensor | None,
        sliders_show_z: bool,
        draws_normal: bool = False,
        n_folded: int = 0,
        test_images: Tensor | None = None,
    ) -> None:
        super().__init__(decoders, z)
        self._directions = directions.detach().cpu().numpy().astype(np.float32)  # (n, L)
        self._sliders_show_z = sliders_show_z
        self._draws_normal = draws_normal
        self._test_images = test_images
        self._moving = False  # True while z and the sliders are brought into line
        self.sliders = [
            widgets.FloatSlider(
                value=0.0,
                min=low,
                max=high,
                step=(high - low) / 120,
                description=name,
                readout_format=".2f",
                style={"description_width": "80px"},
                layout={"width": "300px"},
            )
            for name, (low, high) in zip(names, limits)
        ]
        self._strips = [
            Picture(
                alt=f"what {name} does from {low:g} to {high:g}",
                width=FRAMES * FRAME,
                height=FRAME * len(decoders),
                layout={"margin": "2px"},
            )
            for name, (low, high) in zip(names, limits)
        ]
        for slider, strip in zip(self.sliders, self._strips):
            strip.add_class("vae-strip")
            slider.observe(self._slider_moved, "value")
        self._original = Picture(alt="the test image")
        self._shown_original = widgets.VBox([widgets.HTML("the test image:"), self._original])
        self._shown_original.layout.display = "none"
        self.add_class("vae-sliders")
        self._draws_strips = False  # True once they are there
        self._open(self._layout(n_folded))
        self._draw_strips()
        self._draws_strips = True

    def _layout(self, n_folded: int) -> widgets.Widget:
        rows = [widgets.HBox(pair) for pair in zip(self.sliders, self._strips)]
        n_shown = len(rows) - n_folded
        # Sixty-four sliders scroll; in a block each row keeps its height.
        scrolling = {"display": "block", "max_height": "350px", "overflow": "auto"}
        column = [widgets.VBox(rows[:n_shown], layout=scrolling)]
        if n_folded:
            folded = widgets.Accordion([widgets.VBox(rows[n_shown:], layout=scrolling)])
            folded.set_title(0, f"{n_folded} unused dimensions (KL under {UNUSED} nats)")
            column.append(folded)
        buttons = [
            self._button("Random draw", "Go to a random code", self.draw),
            self._button("Reset", "Go back to the code it started from", self.reset),
        ]
        if self._test_images is not None:
            tip = "Go to the code of a random test image"
            buttons.append(self._button("Encode a test image", tip, self.encode))
        pictures = []
        for name, picture in zip(self._decoders, self._pictures):
            pictures += [widgets.HTML(f"<b>{name}</b>"), picture] if name else [picture]
        # Aligned at the top: stretched to the column's height, the pictures would be distorted.
        return widgets.HBox(
            [
                widgets.VBox([*pictures, self._shown_original], layout={"flex": "0 0 auto"}),
                widgets.VBox([*column, widgets.HBox(buttons), SliderNames()]),
            ],
            layout={"align_items": "flex-start"},
        )

    def draw(self) -> None:
        """Go to a random code: z ~ N(0, I), or each slider uniformly over its range."""
        self._shown_original.layout.display = "none"
        if self._draws_normal:
            self.z = np.float32([random.gauss(0, 1) for _ in self._start])
            return
        values = [random.uniform(slider.min, slider.max) for slider in self.sliders]
        origin = np.zeros_like(self._start) if self._sliders_show_z else self._start
        self.z = origin + np.float32(values) @ self._directions

    def reset(self) -> None:
        """Go back to the first code."""
        self._shown_original.layout.display = "none"
        super().reset()

    def encode(self, index: int | None = None) -> None:
        """Go to the code of a test image (default: a random one), and show that image too."""
        if index is None:
            index = random.randrange(len(self._test_images))
        image = self._test_images[index]
        (decoder,) = self._decoders.values()
        self.z = decoder.code(image)
        self._original.value = png(enlarged(image.cpu().numpy()))
        self._shown_original.layout.display = None

    def _slider_moved(self, _) -> None:
        if not self._moving:
            self._guarded(self._follow_sliders)

    def _follow_sliders(self) -> None:
        values = np.array([s.value for s in self.sliders], dtype=np.float32)
        self._moving = True  # z follows the sliders, not the other way round
        try:
            self.z = self._origin + values @ self._directions
        finally:
            self._moving = False

    def _show_z(self, change) -> None:
        if not self._moving:
            self._move_sliders()
        super()._show_z(change)
        if self._draws_strips:
            self._soon(self._draw_strips)

    def _move_sliders(self) -> None:
        self._moving = True
        try:
            for slider, direction in zip(self.sliders, self._directions):
                value = float(self.z @ direction) if self._sliders_show_z else 0.0
                slider.value = min(max(value, slider.min), slider.max)
            values = np.array([s.value for s in self.sliders], dtype=np.float32)
            self._origin = self.z - values @ self._directions
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
        return np.concatenate(
            [np.concatenate(list(d.images(codes)), axis=1) for d in self._decoders.values()]
        )

    def _twin(self) -> np.ndarray:
        """Return the decoded images, and the filmstrips of the first six sliders."""
        shown = self.sliders[:6]
        images = [enlarged(d.images(self.z[None])[0]) for d in self._decoders.values()]
        picture = beside(images)
        frame = 40 if len(images) == 1 else FRAME
        row, label, gap, top = frame * len(images), 120, 14, 22 * (len(images) > 1)
        left = picture.shape[1] + gap
        height = max(PICTURE + top, (row + 4) * len(shown))
        sheet = Sheet(left + label + FRAMES * frame, height)
        sheet.picture(picture, 0, top)
        if top:
            for i, name in enumerate(self._decoders):
                sheet.text(name, i * (PICTURE + 8), 2)
        for i, slider in enumerate(shown):
            sheet.text(f"{slider.description} = {slider.value:.2f}", left, i * (row + 4) + row // 3)
            sheet.picture(self._filmstrip(i), left + label, i * (row + 4), row)
        return sheet.array()


def latent_sliders(
    model: nn.Module,
    z: Tensor | None = None,
    kl: Tensor | None = None,
    limits: Limits | None = None,
    test_images: Tensor | None = None,
) -> SliderExplorer:
    """Return one slider for each latent dimension.

    model: a model of this course, or any function from codes `(n, latent_size)` to square images;
    then z says the latent size. z: the code to start from, default 0. kl: each dimension's KL,
    `(latent_size,)`: the most used comes first, unused ones are folded away; for a VAE with
    test_images it is computed. limits: each dimension's range, default ±3, which is ±3σ of a VAE's
    prior, and then a random draw is one from N(0, I); otherwise it is uniform over the limits.
    test_images: uint8, for the button that encodes one.

    Raises: ValueError for what is no decoder of square images, and for a z, kl or limits of
    another size.
    """
    decoder = Decoder.of(model, None if z is None else len(z))
    if kl is None and test_images is not None and isinstance(model, VAE):
        kl = evaluate.mean_kl_per_dimension(model, test_images)
    return dimension_sliders({"": decoder}, z, kl, limits, test_images)


def dimension_sliders(
    decoders: dict[str, Decoder],
    z: Tensor | None = None,
    kl: Tensor | None = None,
    limits: Limits | None = None,
    test_images: Tensor | None = None,
) -> SliderExplorer:
    """Return `latent_sliders` for one decoder or several that take the same codes."""
    latent_size = next(iter(decoders.values())).latent_size
    for name, value in [("kl", kl), ("limits", limits)]:
        if value is not None and len(value) != latent_size:
            raise ValueError(f"{name} needs {latent_size} entries, one a dimension: {len(value)}")
    order = list(range(latent_size))
    n_folded = 0
    if kl is not None:
        order = kl.argsort(descending=True).tolist()
        # With several decoders a dimension that one does not use is not unused.
        n_folded = int((kl < UNUSED).sum()) if len(decoders) == 1 else 0
    ranges = limits or [(-3.0, 3.0)] * latent_size
    return SliderExplorer(
        decoders,
        directions=torch.eye(latent_size)[order],
        names=[f"z[{j}]" for j in order],
        limits=[ranges[j] for j in order],
        z=z,
        sliders_show_z=True,
        draws_normal=limits is None,
        n_folded=n_folded,
        test_images=test_images,
    )


def direction_sliders(
    model: nn.Module, z: Tensor, directions: dict[str, tuple[Tensor, float]]
) -> SliderExplorer:
    """Return one slider for each named direction {name: (direction, limit)}, starting at code z.

    A slider's value is the number of steps along its direction from z, from -limit to limit.

    Raises: ValueError if there is no direction, or one has another size than z.
    """
    decoder = Decoder.of(model, len(z))
    for name, (direction, _) in directions.items():
        if direction.shape != (decoder.latent_size,):
            wanted, got = (decoder.latent_size,), tuple(direction.shape)
            raise ValueError(f"direction {name!r} must have shape {wanted}, got {got}")
    if not directions:
        raise ValueError("direction_sliders needs at least one direction")
    return SliderExplorer(
        {"": decoder},
        directions=torch.stack([direction.cpu() for direction, _ in directions.values()]),
        names=list(directions),
        limits=[(-limit, limit) for _, limit in directions.values()],
        z=z,
        sliders_show_z=False,
    )
