"""What all explorers share: the code, the decoded picture, errors shown, the still picture.

No `interact` and no `Output` widget: now and then they hang a headless run for good. A callback
decodes, packs a PNG with Pillow and sets a picture's bytes, which takes about a millisecond.
Beside the widget every explorer shows a PNG of the same state, so that a page without a kernel
(GitHub, exported HTML, a headless run) shows a picture.
"""

import asyncio
import base64
import contextlib
import html
from collections.abc import Callable

import ipywidgets as widgets
import numpy as np
import torch
import traitlets
from IPython import get_ipython
from torch import Tensor, nn

from vae_lesson.data import batches, square_shape
from vae_lesson.explore import living
from vae_lesson.explore.parts import (
    GAP,
    LOCK,
    PICTURE,
    Picture,
    SliderNames,
    as_pictures,
    enlarged,
    joined,
    png,
    still,
)

PAUSE = 0.2  # seconds without a move after which what is slow to draw is drawn again
# Intensity: fresh networks decode to greys that lie 0.02 to 0.11 from ½ in the mean, the trained
# ones of the course 0.38 to 0.46.
GREY = 0.15
SLACK = 0.05  # intensity: what a decoder may be outside [0, 1] and still give intensities
WIDGET = "application/vnd.jupyter.widget-view+json"


class Decoder:
    """A model as explorers use it: codes in, pictures out, and back.

    `model` is one of the course's, another with `decode(z)`, or any function from codes to square
    images. What has no `decode_mean` may give logits, or values in [-1, 1]: `notice` says so.

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
        self.device = torch.device("cpu") if weights is None else weights.device
        self.model = model
        self.units = None  # (centre, spread), where `decode` counts codes in these
        self.random_codes = np.random.default_rng(0).standard_normal((16, self.latent_size))
        x = self.values(self.random_codes)  # what is wrong with it shows now
        self.intensity, self.notice = _scale(x, hasattr(model, "decode_mean"))

    @torch.inference_mode()
    def values(self, z: np.ndarray) -> Tensor:
        """Return what the decoder gives for codes `(n, latent_size)`: images `(n, ...)`."""
        x = self.decode(torch.from_numpy(np.float32(z)).to(self.device))
        x = torch.from_numpy(x.copy()) if isinstance(x, np.ndarray) else x
        if not isinstance(x, Tensor) or x.ndim < 2 or len(x) != len(z):
            raise ValueError("the decoder must give a tensor or array with one image for each code")
        x = _channels_first(x)
        if not x.isfinite().all():
            raise ValueError("the decoder gives NaN or inf: has its training diverged?")
        return x.float()

    def images(self, z: np.ndarray, largest: int = PICTURE) -> np.ndarray:
        """Return what codes `(n, latent_size)` decode to: uint8 `(n, side, side)`, in colour
        `(n, side, side, 3)`, made smaller where a side is over `largest`."""
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
        return torch.cat([torch.as_tensor(z).float().to(self.device) for z in given]), is_vae

    def is_untrained(self) -> bool:
        """Say whether random codes decode to grey all over, as a fresh network's do."""
        images = self.images(self.random_codes)
        return float(np.abs(images / 255 - 0.5).mean()) < GREY


class Explorer(widgets.VBox):
    """A code `z`, an array `(latent_size,)`, and the decoded `image` as PNG bytes.

    Both are plain traits: set `explorer.z = code` from code, observe them, or link two explorers
    (`traitlets.dlink((one, "z"), (other, "z"))`, and a second one for the way back: `link` compares
    by `!=`, which arrays do not answer).
    With several decoders, each decodes the same z and `image` shows them side by side.
    """

    z = traitlets.Any()  # a tensor or a list may be set, and becomes an array of float32
    image = traitlets.Bytes()
    _title = "Explorer"
    _pending = None  # the timer that will draw what is slow
    _ipython_display_ = None  # with ipywidgets 7's own, IPython would ask for no bundle

    def __init__(self, decoders: dict[str, Decoder], z: Tensor | np.ndarray | None) -> None:
        latent_size = next(iter(decoders.values())).latent_size
        start = _checked_code(np.zeros(latent_size) if z is None else z, latent_size)
        super().__init__()
        self._decoders, self._start = decoders, start
        self._pictures = [
            Picture(alt=f"decoded image {name}".strip()).add_class("vae-picture")
            for name in decoders
        ]
        self._notice = widgets.HTML()
        named = {as_html(name or "this model"): decoder for name, decoder in decoders.items()}
        names = ", ".join(name for name, decoder in named.items() if decoder.is_untrained())
        says = f"<b>Is {names} trained?</b> Random codes decode to nearly the same grey all over."
        notices = [d.notice.format(name=name) for name, d in named.items() if d.notice]
        self._warnings = [widgets.HTML(text) for text in [*notices, *([says] if names else [])]]

    def _open(self, *children: widgets.Widget) -> None:
        """Show the first state, once a subclass has made its parts."""
        self.observe(self._show_z, "z")
        self.z = self._start
        self.add_class("vae-sliders")
        self.children = [*self._warnings, *children, SliderNames(), self._notice]
        _close_earlier_run(self)

    @traitlets.validate("z")
    def _valid_z(self, proposal):
        return _checked_code(proposal["value"], self._start.size)

    def _show_z(self, change) -> None:
        images = [enlarged(decoder.images(self.z[None])[0]) for decoder in self._decoders.values()]
        pictures = [png(image) for image in images]
        for picture, value in zip(self._pictures, pictures):
            picture.value = value
        self.image = pictures[0] if len(pictures) == 1 else png(joined(images))

    def _named_pictures(self) -> list[widgets.Widget]:
        """Return each decoded picture, below the name of its model if it has one."""
        return [
            column(f"<b>{as_html(name)}</b>", picture) if name else picture
            for name, picture in zip(self._decoders, self._pictures)
        ]

    def reset(self) -> None:
        """Go back to the code it started from."""
        self.z = self._start

    def _guarded(self, action: Callable[[], None]) -> None:
        """Run a callback; what goes wrong is shown in the widget, where the learner looks."""
        with LOCK:
            self._notice.value = ""
            try:
                action()
            except Exception as error:
                self._notice.value = f"<b>{as_html(type(error).__name__)}</b>: {as_html(error)}"

    def _on(self, widget: widgets.Widget, trait: str, action: Callable[[], None]) -> None:
        """Call a guarded action whenever a trait of a widget changes."""
        widget.observe(lambda change: self._guarded(action), trait)

    def _button(self, text: str, action: Callable[[], None]) -> widgets.Button:
        """Return a button for a guarded action, whose docstring is what the button says it does."""
        layout = {"width": "auto"}
        button = widgets.Button(description=text, tooltip=action.__doc__, layout=layout)
        button.on_click(lambda _: self._guarded(action))
        button.add_class("vae-button").add_class(f"vae-{action.__name__}")  # the parts hear them
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

    def _repr_mimebundle_(self, **kwargs):
        # A part's, with our id: ipywidgets 7 has none, and anywidget's says what Colab must know.
        data, metadata = self._pictures[0]._repr_mimebundle_()
        data[WIDGET]["model_id"] = self.model_id
        data["text/plain"] = "the explorer, as a still picture"
        if _request().get("content", {}).get("allow_stdin") is False:
            # Nobody is there to ask: a headless run. An HTML page made of what it leaves would try
            # to draw the widget, and without a network show nothing.
            del data[WIDGET]
        data["image/png"] = base64.b64encode(png(still(self))).decode()
        names = " and ".join(name for name in self._decoders if name)
        alt = f"{self._title}{' of ' * bool(names)}{names}: {self._state()}"
        if living.is_wanted() and (state := living.state(self._decoders, self._living())):
            data[living.MIME] = state
        return data, metadata | {"image/png": {"alt": alt}}

    def _state(self) -> str:
        """Return what the still picture shows, in words."""
        more = ", …" * (self.z.size > 6)
        return f"the image decoded at z = ({', '.join(f'{x:z.2f}' for x in self.z[:6])}{more})"

    def _living(self) -> dict | None:
        """Return what a page without a kernel moves it by, as JSON; None if it cannot."""
        return None

    def close(self) -> None:
        """Close the explorer and all that it is made of; ipywidgets would keep the parts."""
        if self._pending is not None:
            self._pending.cancel()
        _close(self)


def row(*children: widgets.Widget) -> widgets.HBox:
    """Return widgets side by side, each as high as it is: stretching distorts pictures."""
    layout = {"align_items": "flex-start", "grid_gap": f"{GAP}px", "flex": "0 0 auto"}
    return widgets.HBox(children, layout=layout)


def column(*children: widgets.Widget | str, **layout: str) -> widgets.VBox:
    """Return widgets, and words for them, one below the other, as wide as they are."""
    parts = [widgets.HTML(child) if isinstance(child, str) else child for child in children]
    return widgets.VBox(parts, layout={"grid_gap": "4px", "flex": "0 0 auto"} | layout)


def as_html(text: object) -> str:
    """Return a text that is not ours as HTML that shows it as it is written."""
    return html.escape(str(text))


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
    """Return what makes intensities of values like x, and a notice of it to put {name} into."""
    low, high = x.min().item(), x.max().item()
    if is_intensity or (low >= -SLACK and high <= 1 + SLACK):
        return lambda x: x, ""
    says = f"Random codes decode to values from {low:.3g} to {high:.3g}: shown is"
    if low < -1 - SLACK or high > 1 + SLACK:
        return torch.sigmoid, f"<b>Does {{name}} give logits?</b> {says} their sigmoid."
    return lambda x: (x + 1) / 2, f"<b>Does {{name}} give [-1, 1]?</b> {says} (x + 1) / 2."


def _checked_code(z: Tensor | np.ndarray | list, latent_size: int) -> np.ndarray:
    """Return a code as float32; ValueError for another shape or what is not finite."""
    z = z.detach().cpu().float().numpy() if isinstance(z, Tensor) else np.asarray(z)
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
