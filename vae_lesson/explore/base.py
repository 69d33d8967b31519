"""What all explorers share: the code, the decoded picture, errors shown, the static twin.

No `interact` and no `Output` widget: now and then they hang a headless run for good. A callback
decodes, packs a PNG with Pillow and sets a picture's bytes, which takes about a millisecond.
Beside the widget every explorer shows a PNG of the same state, so that a page without a kernel
(GitHub, exported HTML, a headless run) shows a picture.
"""

import asyncio
import base64
import html
import math
from collections.abc import Callable

import ipywidgets as widgets
import numpy as np
import torch
import traitlets
from IPython import get_ipython
from torch import Tensor, nn

from vae_lesson.data import to_float
from vae_lesson.explore.parts import Picture, beside, enlarged, png

PAUSE = 0.2  # seconds without a move after which what is slow to draw is drawn again
# Intensity: fresh networks decode to greys that lie 0.02 to 0.11 from ½ in the mean, the trained
# ones of the course 0.38 to 0.46.
GREY = 0.15


class Decoder:
    """A model as explorers use it: codes in, pictures out, and back.

    `model` is one of the course's, or any function from codes to square images.

    Raises: ValueError for what is no decoder of square images, or whose output is not finite.
    """

    def __init__(self, model: nn.Module | Callable, latent_size: int | None = None) -> None:
        self.latent_size = getattr(model, "latent_size", latent_size)
        if not callable(model) or self.latent_size is None:
            raise ValueError(
                f"{type(model).__name__} is no decoder: give a model with latent_size and "
                "decode_mean(z), or a function from codes to images and the code z to start from"
            )
        weights = next(model.parameters(), None) if isinstance(model, nn.Module) else None
        self.device = torch.device("cpu") if weights is None else weights.device
        self.decode = getattr(model, "decode_mean", model)  # (n, latent_size) -> (n, side·side)
        self.encode = getattr(model, "encode", None)  # the way back, if there is one
        self.images(np.zeros((1, self.latent_size)))  # what is wrong with it shows now

    def images(self, z: np.ndarray) -> np.ndarray:
        """Return what codes `(n, latent_size)` decode to: uint8 `(n, side, side)`."""
        code = torch.from_numpy(np.float32(z)).to(self.device)
        with torch.inference_mode():
            x = self.decode(code)
            if not isinstance(x, Tensor) or x.ndim < 2 or len(x) != len(code):
                raise ValueError("the decoder must give a tensor with one image for each code")
            x = x.flatten(1)
            side = math.isqrt(x.shape[1])
            if side * side != x.shape[1]:
                raise ValueError(f"the decoder gives {x.shape[1]} pixels, which is no square image")
            if not x.isfinite().all():
                raise ValueError("the decoder gives NaN or inf: has its training diverged?")
            return (255 * x.clamp(0, 1)).round().byte().cpu().numpy().reshape(-1, side, side)

    def code(self, image: Tensor) -> np.ndarray:
        """Return the code of one uint8 image: z of an autoencoder, mu of a VAE. `(latent_size,)`"""
        if self.encode is None:
            raise ValueError("a decoder alone cannot encode an image: give the whole model")
        with torch.inference_mode():
            code = self.encode(to_float(image[None]).to(self.device))
        code = code[0] if isinstance(code, tuple) else code
        return code[0].cpu().numpy()

    def is_untrained(self) -> bool:
        """Say whether random codes decode to grey all over, as a fresh network's do."""
        images = self.images(np.random.default_rng(0).standard_normal((16, self.latent_size)))
        return float(np.abs(images / 255 - 0.5).mean()) < GREY


class Explorer(widgets.VBox):
    """A code `z`, an array `(latent_size,)`, and the decoded `image` as PNG bytes.

    Both are plain traits: set `explorer.z = code` from code, observe them, or link two explorers
    (`traitlets.dlink((one, "z"), (other, "z"))`, and a second one for the way back: `link` compares
    by `!=`, which arrays do not answer).
    With several decoders, each decodes the same z and `image` shows them side by side.
    """

    z = traitlets.Instance(np.ndarray)
    image = traitlets.Bytes()
    _pending = None  # the timer that will draw what is slow

    def __init__(self, decoders: dict[str, Decoder], z: Tensor | np.ndarray | None) -> None:
        latent_size = next(iter(decoders.values())).latent_size
        start = _checked_code(np.zeros(latent_size) if z is None else z, latent_size)
        super().__init__()
        self._decoders, self._start = decoders, start
        self._pictures = [Picture(alt=f"decoded image {name}".strip()) for name in decoders]
        for picture in self._pictures:
            picture.add_class("vae-picture")
        self._notice = widgets.HTML()
        untrained = [name or "this model" for name, d in decoders.items() if d.is_untrained()]
        self._warning = widgets.HTML(layout={"display": None if untrained else "none"})
        if untrained:
            names = html.escape(", ".join(untrained))
            self._warning.value = (
                f"<b>Is {names} trained?</b> Random codes decode to nearly the same grey all over."
            )

    def _open(self, *children: widgets.Widget) -> None:
        """Show the first state; the last line of a subclass's __init__."""
        self.observe(self._show_z, "z")
        self.z = self._start
        self.children = [self._warning, *children, self._notice]
        _close_earlier_run(self)

    @traitlets.validate("z")
    def _valid_z(self, proposal):
        try:
            return _checked_code(proposal["value"], self._start.size)
        except ValueError as error:
            raise traitlets.TraitError(str(error)) from error

    def _decoded(self) -> list[np.ndarray]:
        """Return what each decoder makes of z, uint8 `(side, side)`."""
        return [decoder.images(self.z[None])[0] for decoder in self._decoders.values()]

    def _show_z(self, change) -> None:
        images = [enlarged(image) for image in self._decoded()]
        pictures = [png(image) for image in images]
        for picture, value in zip(self._pictures, pictures):
            picture.value = value
        self.image = pictures[0] if len(pictures) == 1 else png(beside(images))

    def reset(self) -> None:
        """Go back to the first code."""
        self.z = self._start

    def _guarded(self, action: Callable[[], None]) -> None:
        """Run a callback; what goes wrong is shown in the widget, where the learner looks."""
        try:
            action()
            self._notice.value = ""
        except Exception as error:
            self._notice.value = f"<b>{type(error).__name__}</b>: {html.escape(str(error))}"

    def _on(self, widget: widgets.Widget, trait: str, action: Callable[[], None]) -> None:
        """Call a guarded action whenever a trait of a widget changes."""
        widget.observe(lambda change: self._guarded(action), trait)

    def _button(self, text: str, tooltip: str, action: Callable[[], None]) -> widgets.Button:
        button = widgets.Button(description=text, tooltip=tooltip, layout={"width": "auto"})
        button.on_click(lambda _: self._guarded(action))
        return button

    def _switch(self, tooltips: dict[str, str], action: Callable) -> widgets.ToggleButtons:
        """Return a choice between {option: tooltip}, the first to begin with."""
        switch = widgets.ToggleButtons(options=list(tooltips), tooltips=list(tooltips.values()))
        switch.style.button_width = "auto"
        self._on(switch, "value", action)
        return switch

    def _soon(self, action: Callable[[], None]) -> None:
        """Run a guarded action once the explorer rests: it costs more than a move may."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a plain script: nobody is looking
            return
        if self._pending is not None:
            self._pending.cancel()
        self._pending = loop.call_later(PAUSE, self._guarded, action)

    def _twin(self) -> np.ndarray:
        """Return the explorer's state as one picture."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs):
        data = super()._repr_mimebundle_(**kwargs)
        if _request().get("content", {}).get("allow_stdin") is False:
            # Nobody is there to ask: a headless run. An HTML page made of what it leaves would try
            # to draw the widget, and without a network show nothing.
            data.pop("application/vnd.jupyter.widget-view+json", None)
            data["text/plain"] = "the explorer, as a still picture"
        data["image/png"] = base64.b64encode(png(self._twin())).decode()
        return data

    def close(self) -> None:
        """Close the explorer and all that it is made of; ipywidgets would keep the parts."""
        if self._pending is not None:
            self._pending.cancel()
        _close(self)


def row(*children: widgets.Widget, **layout: str) -> widgets.HBox:
    """Return widgets side by side."""
    return widgets.HBox(children, layout=layout)


def column(*children: widgets.Widget, **layout: str) -> widgets.VBox:
    """Return widgets one below the other."""
    return widgets.VBox(children, layout=layout)


def _checked_code(z: Tensor | np.ndarray, latent_size: int) -> np.ndarray:
    """Return a code as float32; ValueError for another shape or what is not finite."""
    z = z.detach().cpu().numpy() if isinstance(z, Tensor) else np.asarray(z)
    z = z.astype(np.float32)
    if z.shape != (latent_size,):
        raise ValueError(f"z must have shape ({latent_size},), got {z.shape}")
    if not np.isfinite(z).all():
        raise ValueError("z holds NaN or inf")
    return z


def _close(widget: widgets.Widget) -> None:
    for child in getattr(widget, "children", ()):
        _close(child)
    for part in ("style", "layout"):
        if hasattr(widget, part):
            getattr(widget, part).close()
    widgets.Widget.close(widget)


def _request() -> dict:
    """Return the message that the kernel is at work on, or {} outside of a kernel."""
    shell = get_ipython()
    return shell.get_parent() if hasattr(shell, "get_parent") else {}


_OPEN: dict[str, dict[str, list[Explorer]]] = {}  # cell -> its last run -> what that made


def _close_earlier_run(explorer: Explorer) -> None:
    """Close what an earlier run of the same cell made: ipywidgets keeps every widget for ever."""
    request = _request()
    # JupyterLab names the cell; elsewhere its text must do. A slider's message has neither.
    cell = request.get("metadata", {}).get("cellId") or request.get("content", {}).get("code")
    if cell is None:
        return
    run = request["header"]["msg_id"]
    made = _OPEN.setdefault(cell, {})
    for earlier_run in made.keys() - {run}:
        for earlier in made.pop(earlier_run):
            earlier.close()
    made.setdefault(run, []).append(explorer)
