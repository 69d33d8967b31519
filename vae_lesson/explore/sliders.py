"""Sliders that move a code: one a latent dimension, or one a direction with a meaning."""

import random

import ipywidgets as widgets
import numpy as np
import torch
from torch import Tensor, nn

from vae_lesson import evaluate
from vae_lesson.arguments import check_same_shape
from vae_lesson.explore import living
from vae_lesson.explore.base import Decoder, Explorer, column, row
from vae_lesson.explore.parts import FRAMES, Picture, as_pictures, enlarged, png
from vae_lesson.models import VAE

FRAME = 28  # pixels, the height of a filmstrip
REACH = 3.0  # how far a dimension's slider goes either way: 3σ of a VAE's prior
Limit = float | tuple[float, float]  # of a slider: to both sides of 0, or its two ends
UNUSED = 0.01  # nats: a dimension with less KL than this does nothing


class SliderExplorer(Explorer):
    """Sliders that move a code along directions, z = origin + Σ_i slider_i · direction_i.

    directions: {name: (direction, limit)}; `sliders` go from -limit to limit, or over a limit that
    is a pair (low, high). The origin is what they do not express of a code that you set: with
    `sliders_show_z` only what is beyond their limits, otherwise all of it. Beside each a filmstrip
    shows what it does over its range, the others as they are.
    """

    _title = "Sliders"

    def __init__(
        self,
        decoders: dict[str, Decoder],
        directions: dict[str, tuple[Tensor, Limit]],
        z: Tensor | None,
        sliders_show_z: bool,
        n_folded: int = 0,
        test_images: Tensor | None = None,
    ) -> None:
        super().__init__(decoders, z)
        self._origin = np.zeros_like(self._start)
        self._sliders_show_z = sliders_show_z
        self._test_images, self._n_folded = test_images, n_folded
        self._moving = False  # True while the sliders follow z
        vectors = [direction.detach().cpu().numpy() for direction, _ in directions.values()]
        self._directions = np.stack(vectors).astype(np.float32)  # (n, latent_size)
        self.sliders, self._strips = [], []
        for name, (_, limit) in directions.items():
            low, high = limit if isinstance(limit, tuple) else (-limit, limit)
            ends = {"min": low, "max": high, "step": (high - low) / 120}
            slider = widgets.FloatSlider(**ends, description=name)
            slider.style.description_width = "100px"
            slider.layout.width = "320px"
            self._on(slider, "value", self._follow_sliders)
            self.sliders.append(slider)
            words = f"what {name} does from {low:g} to {high:g}"
            strip = Picture(alt=words, width=FRAMES * FRAME, height=FRAME * len(decoders))
            self._strips.append(strip.add_class("vae-strip"))
        self._original = Picture(alt="the test image")
        self._shown_original = column("the test image:", self._original, display="none")
        self._open(self._layout())
        self._draw_strips()

    def _layout(self) -> widgets.Widget:
        rows = [row(*pair) for pair in zip(self.sliders, self._strips)]
        n_shown = len(rows) - self._n_folded
        scrolling = {"max_height": "350px", "overflow": "auto"}  # sixty-four are too many
        right = [column(*rows[:n_shown], **scrolling)]
        if self._n_folded:
            # ipywidgets 7 would open the first by itself.
            folded = widgets.Accordion([column(*rows[n_shown:], **scrolling)], selected_index=None)
            folded.set_title(0, self._folded_title())
            right.append(folded)
        buttons = [self._button("Random draw", self.draw), self._button("Reset", self.reset)]
        if self._test_images is not None:
            buttons.append(self._button("Encode a test image", self.encode))
        right.append(row(*buttons))
        left = column(*self._named_pictures(), self._shown_original)
        return row(left, column(*right, flex="0 1 auto"))

    def _folded_title(self) -> str:
        return f"{self._n_folded} unused dimensions (KL under {UNUSED} nats)"

    def draw(self) -> None:
        """Go to a random code: z ~ N(0, I), or each direction's slider uniformly over its range."""
        if self._sliders_show_z:
            self.z = np.float32([random.gauss(0, 1) for _ in self._start])
        else:
            values = [random.uniform(slider.min, slider.max) for slider in self.sliders]
            self.z = self._start + np.float32(values) @ self._directions

    def encode(self) -> None:
        """Go to the code of a random test image, and show that image until the code moves on."""
        image = random.choice(self._test_images)
        (self.z,), _ = self._decoders[""].encode(image[None])
        self._original.value = png(enlarged(as_pictures(image[None])[0]))
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
        self._shown_original.layout.display = "none"
        self._moving = True
        try:
            for slider, direction in zip(self.sliders, self._directions):
                value = float(self.z @ direction) if self._sliders_show_z else 0.0
                slider.value = min(max(value, slider.min), slider.max)
            self._origin = self.z - self._moved()
        finally:
            self._moving = False

    def _draw_strips(self) -> None:
        """Show what each slider does over its range, the others as they are, a row a decoder."""
        for slider, direction, strip in zip(self.sliders, self._directions, self._strips):
            steps = np.linspace(slider.min, slider.max, FRAMES, dtype=np.float32) - slider.value
            codes = self.z + steps[:, None] * direction
            rows = [np.hstack(d.images(codes, FRAME)) for d in self._decoders.values()]
            strip.value = png(np.vstack(rows))

    def _state(self) -> str:
        shown = ", ".join(
            f"{slider.description} = {slider.value:z.2f}" for slider in self.sliders[:6]
        )
        return f"{super()._state()}, and what each slider does over its range: {shown}"

    def _living(self) -> dict:
        sliders = [
            {"name": s.description, "low": s.min, "high": s.max, "direction": living.numbers(d)}
            for s, d in zip(self.sliders, self._directions)
        ]
        state = {
            "kind": "sliders",
            "z": living.numbers(self.z),
            "sliders": sliders,
            "sliders_show_z": self._sliders_show_z,
            "n_folded": self._n_folded,
            "folded": self._folded_title(),
        }
        if self._test_images is not None:
            state |= living.examples(self._decoders[""], self._test_images)
        return state

    def _repr_mimebundle_(self, **kwargs):
        self._guarded(self._draw_strips)  # the still picture cannot wait for a rest
        return super()._repr_mimebundle_(**kwargs)


def latent_sliders(
    model: nn.Module, z: Tensor | None = None, test_images: Tensor | None = None
) -> SliderExplorer:
    """Return one slider for each latent dimension, from -3 to 3: ±3σ of a VAE's prior.

    model: a model of this course, or any function from codes `(n, latent_size)` to square images,
    grey or in colour; then z says the latent size. z: the code to start from, default 0.
    test_images: uint8, for the button that encodes one; of a VAE they also say how much each
    dimension is used (the mean KL): the most used comes first, unused ones are folded away.

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
    model: nn.Module, z: Tensor, directions: dict[str, tuple[Tensor, Limit]]
) -> SliderExplorer:
    """Return one slider for each named direction {name: (direction, limit)}, starting at code z.

    A slider's value is the number of steps along its direction from z, from -limit to limit, or
    from low to high for a limit (low, high), with 0 between them.

    Raises: ValueError if there is no direction, or one has another size than z.
    """
    if not directions:
        raise ValueError("direction_sliders needs at least one direction")
    for name, (direction, _) in directions.items():
        check_same_shape(**{"z": z, f"direction {name!r}": direction})
    return SliderExplorer({"": Decoder(model, len(z))}, directions, z, sliders_show_z=False)
