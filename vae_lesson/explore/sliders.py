"""The sliders: move a code, see at once what the decoder makes of it.

No `interact` and no `Output` widget: now and then they hang a headless run for good. A slider's
callback decodes, packs a PNG with Pillow and sets `Image.value`, which takes about a millisecond.
Beside the widget every explorer shows a PNG of the same state, so that a page without a kernel
(GitHub, exported HTML, a headless run) shows a picture.
"""

import asyncio
import base64
import html
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

from vae_lesson.data import to_float

PICTURE = 224  # pixels, the side of the decoded picture
FRAMES = 11  # images in a filmstrip
STRIP_PAUSE = 0.2  # seconds without a move after which the filmstrips are drawn again
UNUSED = 0.01  # nats: a dimension with less KL than this does nothing


class LatentExplorer(widgets.VBox):
    """Sliders that move a code along directions, with the decoded picture beside them.

    Traits: `z`, the code as an array `(latent_size,)`, and `image`, the picture as PNG bytes. Set
    `explorer.z = code` from code, or observe it; the sliders follow. What the sliders do not
    express of a code that you set is kept as the origin: z = origin + Σ_i slider_i · directions_i.

    Beside each slider a filmstrip shows what it does over its range, the others as they are. The
    last `n_folded` sliders are folded away. With `test_images` (uint8) there is a button that
    encodes one of them and shows it beside its reconstruction.
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
        n_folded: int = 0,
        test_images: Tensor | None = None,
    ) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self._directions = directions.detach().cpu().numpy().astype(np.float32)  # (n, L)
        self._start = z.detach().cpu().numpy().astype(np.float32)
        self._sliders_show_z = sliders_show_z
        self._test_images = test_images
        self._moving = False  # True while z and the sliders are brought into line
        self._pending = None  # the timer that will draw the filmstrips again
        self._picture, self._original = _picture(), _picture()
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
                style={"description_width": "80px"},
                layout={"width": "300px"},
            )
            for name, (low, high) in zip(names, limits)
        ]
        self._strips = [
            widgets.Image(format="png", layout={"width": f"{FRAMES * 28}px", "height": "28px"})
            for _ in self.sliders
        ]
        for slider in self.sliders:
            slider.observe(self._slider_moved, "value")
        self.observe(self._show_z, "z")
        self.z = self._start
        self._draw_strips()
        super().__init__(self._layout(n_folded))

    def _layout(self, n_folded: int) -> list[widgets.Widget]:
        rows = [widgets.HBox(pair) for pair in zip(self.sliders, self._strips)]
        n_shown = len(rows) - n_folded
        # Sixty-four sliders scroll; in a block each row keeps its height.
        scrolling = {"display": "block", "max_height": "350px", "overflow": "auto"}
        column = [widgets.VBox(rows[:n_shown], layout=scrolling)]
        if n_folded:
            folded = widgets.Accordion([widgets.VBox(rows[n_shown:], layout=scrolling)])
            folded.set_title(0, f"{n_folded} unused dimensions (KL under {UNUSED} nats)")
            column.append(folded)
        actions = [
            ("Random draw", "Go to a random code", self.draw),
            ("Reset", "Go back to the code it started from", self.reset),
        ]
        if self._test_images is not None:
            tip = "Go to the code of a random test image"
            actions.append(("Encode a test image", tip, self.encode))
        buttons = []
        for text, tip, action in actions:
            button = widgets.Button(description=text, tooltip=tip, layout={"width": "auto"})
            button.on_click(lambda _, action=action: self._guarded(action))
            buttons.append(button)
        self._caption = widgets.HTML("the test image:")
        self._pictures = widgets.VBox([self._picture])
        # Aligned at the top: stretched to the column's height, the picture would be distorted.
        top = widgets.HBox(
            [self._pictures, widgets.VBox([*column, widgets.HBox(buttons)])],
            layout={"align_items": "flex-start"},
        )
        return [top, self._notice]

    def draw(self) -> None:
        """Go to a random code: each slider uniformly at random over its middle two thirds."""
        values = [
            random.uniform(s.min * 5 / 6 + s.max / 6, s.min / 6 + s.max * 5 / 6)
            for s in self.sliders
        ]
        origin = np.zeros_like(self._start) if self._sliders_show_z else self._start
        self.z = origin + np.float32(values) @ self._directions

    def reset(self) -> None:
        """Go back to the first code."""
        self.z = self._start

    def encode(self, index: int | None = None) -> None:
        """Go to the code of a test image (default: a random one), and show that image too."""
        if index is None:
            index = random.randrange(len(self._test_images))
        one = self._test_images[index : index + 1]
        with torch.inference_mode():
            code = self._model.encode(to_float(one).to(self._device))
        code = code[0] if isinstance(code, tuple) else code  # mu of a VAE, z of an autoencoder
        self.z = code[0].cpu().numpy()
        self._original.value = _png(_enlarged(one[0].cpu().numpy()))
        self._pictures.children = [self._picture, self._caption, self._original]

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
        self._draw_strips_soon()

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
            self._notice.value = f"<b>{type(error).__name__}</b>: {html.escape(str(error))}"

    def _draw_strips_soon(self) -> None:
        """Draw the filmstrips once the sliders rest: all of them cost more than a move may."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a plain script: nobody is looking
            return
        if self._pending is not None:
            self._pending.cancel()
        self._pending = loop.call_later(STRIP_PAUSE, self._guarded, self._draw_strips)

    def _draw_strips(self) -> None:
        for slider, direction, strip in zip(self.sliders, self._directions, self._strips):
            strip.value = _png(self._filmstrip(slider, direction))

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
    kl: Tensor | None = None,
    limits: list[tuple[float, float]] | None = None,
    test_images: Tensor | None = None,
) -> LatentExplorer:
    """Return one slider for each latent dimension.

    z: the code to start from, default 0. kl: each dimension's KL, `(latent_size,)`
    (`evaluate.mean_kl_per_dimension`): the most used comes first, unused ones are folded away.
    limits: each dimension's range, default ±3, which is ±3σ of a VAE's prior. test_images: uint8,
    for the button that encodes one.
    """
    order = list(range(model.latent_size))
    n_folded = 0
    if kl is not None:
        order = kl.argsort(descending=True).tolist()
        n_folded = int((kl < UNUSED).sum())
    limits = limits or [(-3.0, 3.0)] * len(order)
    return LatentExplorer(
        model,
        directions=torch.eye(model.latent_size)[order],
        names=[f"z[{j}]" for j in order],
        limits=[limits[j] for j in order],
        z=torch.zeros(model.latent_size) if z is None else z,
        sliders_show_z=True,
        n_folded=n_folded,
        test_images=test_images,
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


def _picture() -> widgets.Image:
    side = f"{PICTURE}px"
    return widgets.Image(format="png", layout={"width": side, "height": side, "min_width": side})


def _enlarged(image: np.ndarray) -> np.ndarray:
    """Return a uint8 image enlarged to PICTURE pixels, each pixel a crisp square."""
    return np.asarray(Image.fromarray(image).resize((PICTURE, PICTURE), Image.Resampling.NEAREST))


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
