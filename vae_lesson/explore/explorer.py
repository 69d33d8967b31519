"""What all explorers share in Python: the decoders, the code as a trait, and the still picture; and
what they share with a figure that moves without a decoder.

The controls are in JavaScript, in front/, the same on a page without a kernel. An explorer is one
anywidget; its page asks by messages, with codes as raw float32, and gets raw pixels:

    {do: "move", id, controls}, a code          -> `shown`, which has that id
    {do: "decode", id, side}, codes, row by row -> {id, shapes}, and a buffer of pixels each decoder
    what goes wrong                             -> {id, error}

Beside the widget every explorer shows a PNG of the same state, for where no kernel is (GitHub,
exported HTML, a headless run).
"""

import base64
import itertools
import re
import threading
from pathlib import Path

import anywidget
import numpy as np
import traitlets
from IPython import get_ipython
from torch import Tensor

from vae_lesson import words
from vae_lesson.explore import page
from vae_lesson.explore.decoder import Decoder, packed
from vae_lesson.explore.pictures import below, beside, captioned, enlarged, png, written
from vae_lesson.fonts import _, can_draw
from vae_lesson.words import N_

FRONT = Path(__file__).parent / "front"
KINDS = ("sliders", "map", "tokens", "morph", "drawing", "toy", "playground")
MODULES = ("parts", "vae", "trainer", "paint", "tour", *KINDS, "explorer", "kernel")
WIDGET = "application/vnd.jupyter.widget-view+json"
STILL = "the explorer, as a still picture"  # the text beside it, by which it is known
LOCK = threading.RLock()  # a kernel may hear the page in one thread and run a cell in another


def script(*paths: Path) -> str:
    """Return modules as one, without what ties them: neither a widget nor a page opened as a file
    can import a second one. Their names at the top level are different."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    text = re.sub(r"^import [^;]*;\n", "", text, flags=re.M)
    return re.sub(r"^export (?!default)", "", text, flags=re.M)


class Figure(anywidget.AnyWidget):
    """What its page moves from `state` alone, without a word to the kernel; its `_still()` is a
    picture of where it starts, in `_words()`."""

    _esm = script(*(FRONT / f"{name}.js" for name in MODULES))
    _css = (FRONT / "explorer.css").read_text(encoding="utf-8")  # a path it would watch for ever
    state = traitlets.Dict().tag(sync=True)  # what the page needs and does not change
    _decoders, shown, _title = {}, {}, N_("Figure")
    _ipython_display_ = None  # with ipywidgets 7's own, IPython would ask for no bundle

    def __init__(self, **state: object) -> None:
        of_the_page = {"words": known} if (known := words.words()) else {}
        self.state = {"names": [], "warnings": []} | of_the_page | state
        super().__init__()
        _close_earlier_run(self)

    def close(self) -> None:
        """Close the figure and its layout; ipywidgets would keep that."""
        if self.comm is not None:
            self.layout.close()
        super().close()

    def _repr_mimebundle_(self, **kwargs):
        data, metadata = super()._repr_mimebundle_()  # it says what Colab must know
        data["text/plain"] = STILL
        if _request().get("content", {}).get("allow_stdin") is False:
            # Nobody is there to ask: a headless run. An HTML page made of what it leaves would try
            # to draw the widget, and without a network show nothing.
            del data[WIDGET]
        still = self._picture()
        warned = filter(can_draw, self.state["warnings"])
        above = [written(each, still.shape[1]) for each in warned]
        data["image/png"] = base64.b64encode(png(below(*above, still))).decode()
        names = _(" and ").join(filter(None, self.state["names"]))
        template = _("{title} of {names}: {shown}") if names else _("{title}: {shown}")
        alt = template.format(title=_(self._title), names=names, shown=self._words())
        if alive := page.alive(self):
            data[page.MIME] = alive
        return data, (metadata or {}) | {"image/png": {"alt": alt}}

    def _picture(self) -> np.ndarray:
        return self._still()


class Explorer(Figure):
    """A code `z`, an array `(latent_size,)`, and the decoded `image` as PNG bytes, of several
    decoders side by side.

    Both are plain traits: set `explorer.z = code`, observe them, or link two explorers by
    `traitlets.dlink((one, "z"), (other, "z"))`, and a second one for the way back: `link` compares
    by `!=`, which arrays do not answer.
    """

    z = traitlets.Any()  # a tensor or a list may be set, and becomes an array of float32
    image = traitlets.Bytes()
    shown = traitlets.Dict().tag(sync=True)  # z, its pictures, and where the controls stand
    _title, _given = N_("Explorer"), "z"  # the trait that the page moves: the others follow it
    _keeps_controls = True  # where they stand, when z is set in code

    def __init__(
        self, decoders: dict[str, Decoder], z: Tensor | np.ndarray | None, **state: object
    ) -> None:
        latent_size = next(iter(decoders.values())).latent_size
        self._decoders = decoders
        self._asked = {}  # the move that is being answered
        self._start = checked_code(np.zeros(latent_size) if z is None else z, latent_size)
        warned = [d.warnings(name or words._("this model")) for name, d in decoders.items()]
        common = {"names": list(decoders), "start": self._start.tolist()}
        common["warnings"] = [*itertools.chain(*warned)]
        self.z = self._start
        self._show()
        super().__init__(**common | state)  # the kernel keeps it: all that may fail comes before
        self.observe(self._show, self._given)
        self.on_msg(self._answer)

    @traitlets.validate("z")
    def _valid_z(self, proposal):
        z = checked_code(proposal["value"], self._start.size)
        self._decoded = [decoder.images(z[None]) for decoder in self._decoders.values()]
        return z  # what cannot be decoded is refused

    def _look(self) -> dict:
        """Return what the page needs to paint."""
        return {"z": self.z.tobytes()} | packed(self._decoded)

    def _show(self, _=None) -> None:
        """Tell the page what it shows now, where the controls stand, and whose move it was."""
        kept = self.shown.get("controls", {}) if self._keeps_controls else {}
        controls = self._asked.get("controls", kept)
        self.shown = self._look() | {"controls": controls, "id": self._asked.get("id")}
        # After that: the page does not wait for it.
        self.image = png(beside(*(enlarged(image) for (image,) in self._decoded)))

    def _answer(self, _, asked: dict, buffers: list) -> None:
        """Do what the page asks; what goes wrong is said there, where the learner looks."""
        with LOCK:
            try:
                if asked["do"] == "move":
                    self._asked = asked
                    self._move(buffers[0])
                else:
                    codes = np.frombuffer(buffers[0], np.float32).reshape(-1, self._start.size)
                    images = [d.images(codes, asked["side"]) for d in self._decoders.values()]
                    answer = packed(images)
                    self.send({"id": asked["id"], "shapes": answer["shapes"]}, answer["buffers"])
            except (Exception, KeyboardInterrupt) as error:  # without an answer it would wait
                self.send({"id": asked["id"], "error": f"{type(error).__name__}: {error}"})
            finally:
                self._asked = {}

    def _move(self, given: bytes) -> None:
        z = np.frombuffer(given, np.float32)
        if np.array_equal(z, self.z):
            self._show()  # no news to traitlets, but the page waits
        else:
            self.z = z

    def _picture(self) -> np.ndarray:
        try:
            return self._still()
        except Exception:  # some place on a filmstrip cannot be decoded: the page will say so
            return Explorer._still(self)

    def _still(self) -> np.ndarray:
        images = [enlarged(image) for (image,) in self._decoded]
        return below(*map(captioned, self._decoders, images))

    def _words(self) -> str:
        """Return what the still picture shows, in words."""
        z = ", ".join(f"{x:z.2f}" for x in self.z[:6]) + ", …" * (self.z.size > 6)
        return _("the image decoded at z = ({z})").format(z=z)


def checked_code(z: Tensor | np.ndarray | list, latent_size: int) -> np.ndarray:
    """Return a code as float32; ValueError for another shape or what is not finite."""
    z = np.array(z.detach().cpu().float().numpy() if isinstance(z, Tensor) else z, np.float32)
    if z.shape != (latent_size,):
        raise ValueError(f"z must have shape ({latent_size},), got {z.shape}")
    if not np.isfinite(z).all():
        raise ValueError("z holds NaN or inf")
    return z


def _request() -> dict:
    """Return the message that the kernel is at work on, or {} outside of a kernel."""
    shell = get_ipython()
    return shell.get_parent() if hasattr(shell, "get_parent") else {}


_OPEN: dict[str, dict[str, list[Figure]]] = {}  # cell -> its last run -> what that made


def _close_earlier_run(figure: Figure) -> None:
    """Close what an earlier run of the same cell made: ipywidgets keeps every widget for ever."""
    request = _request()
    # JupyterLab names the cell; elsewhere its text must do. A page's message has neither.
    cell = request.get("metadata", {}).get("cellId") or request.get("content", {}).get("code")
    if cell is None:
        return
    run = request["header"]["msg_id"]
    earlier = _OPEN.get(cell, {})
    _OPEN[cell] = {run: [*earlier.pop(run, []), figure]}
    for each in itertools.chain(*earlier.values()):
        each.close()
