"""The sliders: move a code, see at once what the decoder makes of it.

No `interact` and no `Output` widget: now and then they hang a headless run for good. A slider's
callback decodes, packs a PNG with Pillow and sets `Image.value`, which takes about a millisecond.
Beside the widget every explorer shows a PNG of the same state, so that a page without a kernel
(GitHub, exported HTML, a headless run) shows a picture.
"""

import base64
import io
import math
import random
from collections.abc import Callable

import ipywidgets as widgets
import numpy as np
import torch
import traitlets
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

PICTURE = 224  # pixels, the side of the decoded picture
FRAMES = 11  # images in a filmstrip


class LatentExplorer(widgets.VBox):
    """Sliders that move a code along directions, with the decoded picture beside them.

    Traits: `z`, the code as an array `(latent_size,)`, and `image`, the picture as PNG bytes. Set
    `explorer.z = code` from code, or observe it; the sliders follow. What the sliders do not
    express of a code that you set is kept as `origin`: z = origin + Σ_i slider_i · directions_i.
    """

    z = traitlets.Instance(np.ndarray)
    image = traitlets.Bytes()

    def __init__(
        self,
        model: nn.Module,
        directions: Tensor,
        names: list[str],
        limits: list[tuple[float, float]],
        z: Tensor,
        sliders_show_z: bool,
    ) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self._directions = directions.detach().cpu().numpy().astype(np.float32)  # (n, L)
        self._start = z.detach().cpu().numpy().astype(np.float32)
        self._sliders_show_z = sliders_show_z
        self._moving = False  # True while z and the sliders are brought into line
        self._picture = widgets.Image(
            format="png", width=PICTURE, height=PICTURE, layout={"min_width": f"{PICTURE}px"}
        )
        self._picture.add_class("vae-picture")
        self._notice = widgets.HTML()
        self.sliders = [
            widgets.FloatSlider(
                value=0.0,
                min=low,
                max=high,
                step=(high - low) / 120,
                description=name,
                readout_format=".2f",
                style={"description_width": "90px"},
                layout={"width": "330px"},
            )
            for name, (low, high) in zip(names, limits)
        ]
        for slider in self.sliders:
            slider.observe(self._slider_moved, "value")
        buttons = []
        for text, tip, action in [
            ("Random draw", "A new code: one step in a random direction", self.draw),
            ("Reset", "Back to the code it started from", self.reset),
        ]:
            button = widgets.Button(description=text, tooltip=tip)
            button.on_click(lambda _, action=action: self._guarded(action))
            buttons.append(button)
        self.observe(self._show_z, "z")
        self.z = self._start
        # Sixty-four sliders scroll; in a block each keeps its height.
        scrolling = widgets.VBox(
            self.sliders, layout={"display": "block", "max_height": "300px", "overflow": "auto"}
        )
        column = widgets.VBox([scrolling, widgets.HBox(buttons)])
        # Aligned at the top: stretched to the column's height, the picture would be distorted.
        top = widgets.HBox([self._picture, column], layout={"align_items": "flex-start"})
        super().__init__([top, self._notice])

    def draw(self) -> None:
        """Go to a random code: each slider uniformly at random over its middle two thirds."""
        values = [
            random.uniform(s.min * 5 / 6 + s.max / 6, s.min / 6 + s.max * 5 / 6)
            for s in self.sliders
        ]
        self.z = self._start_origin() + np.float32(values) @ self._directions

    def reset(self) -> None:
        """Go back to the first code."""
        self.z = self._start

    def _start_origin(self) -> np.ndarray:
        return np.zeros_like(self._start) if self._sliders_show_z else self._start

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

    @traitlets.validate("z")
    def _valid_z(self, proposal):
        value = proposal["value"]
        if value.shape != self._start.shape:
            raise traitlets.TraitError(f"z must have shape {self._start.shape}, got {value.shape}")
        if not np.isfinite(value).all():
            raise traitlets.TraitError("z holds NaN or inf")
        return value.astype(np.float32)

    def _show_z(self, change) -> None:
        if not self._moving:
            self._move_sliders(change["new"])
        self.image = self._picture.value = _png(_enlarged(self._decode(change["new"][None])[0]))

    def _move_sliders(self, z: np.ndarray) -> None:
        self._moving = True
        try:
            for slider, direction in zip(self.sliders, self._directions):
                value = float(z @ direction) if self._sliders_show_z else 0.0
                slider.value = min(max(value, slider.min), slider.max)
            values = np.array([s.value for s in self.sliders], dtype=np.float32)
            self._origin = z - values @ self._directions
        finally:
            self._moving = False

    def _decode(self, z: np.ndarray) -> np.ndarray:
        """Return the decoded images as uint8, `(B, side, side)`."""
        with torch.inference_mode():
            x = self._model.decode_mean(torch.from_numpy(z).to(self._device))
        side = math.isqrt(x.shape[1])
        return (255 * x.clamp(0, 1)).round().byte().cpu().numpy().reshape(-1, side, side)

    def _guarded(self, action: Callable[[], None]) -> None:
        """Run a callback; what goes wrong is shown in the widget, where the learner looks."""
        try:
            action()
            self._notice.value = ""
        except Exception as error:
            self._notice.value = f"<b>{type(error).__name__}</b>: {error}"

    def _filmstrip(self, slider, direction: np.ndarray) -> np.ndarray:
        """Return what one slider does over its range, the others as they are: `(side, n·side)`."""
        steps = np.linspace(slider.min, slider.max, FRAMES, dtype=np.float32) - slider.value
        frames = self._decode(self.z + steps[:, None] * direction)
        return np.concatenate(list(frames), axis=1)

    def _twin(self) -> bytes:
        """Return the widget's state as one picture: the decoded image and a filmstrip a slider."""
        shown = list(zip(self.sliders, self._directions))[:6]
        strips = [Image.fromarray(self._filmstrip(*pair)) for pair in shown]
        row, label, gap = 40, 140, 14
        strip_size = (row * FRAMES, row)
        width = PICTURE + gap + label + strip_size[0]
        canvas = Image.new("L", (width, max(PICTURE, (row + 4) * len(strips))), 255)
        canvas.paste(Image.fromarray(_enlarged(self._decode(self.z[None])[0])), (0, 0))
        pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=14)
        for i, ((slider, _), strip) in enumerate(zip(shown, strips)):
            text, top = f"{slider.description} = {slider.value:.2f}", i * (row + 4)
            pen.text((PICTURE + gap, top + row // 3), text, fill=0, font=font)
            canvas.paste(strip.resize(strip_size), (PICTURE + gap + label, top))
        return _png(np.asarray(canvas))

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        data["image/png"] = base64.b64encode(self._twin()).decode()
        return bundle


def latent_sliders(
    model: nn.Module,
    z: Tensor | None = None,
    order: list[int] | None = None,
    limits: list[tuple[float, float]] | None = None,
) -> LatentExplorer:
    """Return one slider for each latent dimension.

    z: the code to start from, default 0. order: the dimensions to show, the first on top (default
    all); limits: each shown dimension's range (default ±3, which is ±3σ of a VAE's prior).
    """
    order = list(range(model.latent_size)) if order is None else order
    return LatentExplorer(
        model,
        directions=torch.eye(model.latent_size)[order],
        names=[f"z[{j}]" for j in order],
        limits=limits or [(-3.0, 3.0)] * len(order),
        z=torch.zeros(model.latent_size) if z is None else z,
        sliders_show_z=True,
    )


def direction_sliders(
    model: nn.Module, z: Tensor, directions: dict[str, tuple[Tensor, float]]
) -> LatentExplorer:
    """Return one slider for each named direction {name: (direction, limit)}, starting at code z.

    A slider's value is the number of steps along its direction from z, from -limit to limit.
    """
    return LatentExplorer(
        model,
        directions=torch.stack([direction.cpu() for direction, _ in directions.values()]),
        names=list(directions),
        limits=[(-limit, limit) for _, limit in directions.values()],
        z=z,
        sliders_show_z=False,
    )


def _enlarged(image: np.ndarray) -> np.ndarray:
    """Return a uint8 image enlarged to PICTURE pixels, each pixel a crisp square."""
    return np.asarray(Image.fromarray(image).resize((PICTURE, PICTURE), Image.Resampling.NEAREST))


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
