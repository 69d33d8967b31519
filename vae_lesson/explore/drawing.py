"""Draw a digit, and see what the encoder makes of it."""

import html
import random
import re

import ipywidgets as widgets
import numpy as np
import torch
import traitlets
from PIL import Image, ImageDraw
from torch import Tensor

from vae_lesson import evaluate, losses
from vae_lesson.data import SIDE, Images, centre_digit, to_float
from vae_lesson.explore.base import Decoder, Explorer, column, row
from vae_lesson.explore.parts import Pad, Picture, Sheet, beside, enlarged, font, png
from vae_lesson.models import VAE, reparameterize

SHOWN = 6  # reconstructions and neighbours in their rows
SAMPLES = 32  # draws of z that the drawing's −ELBO is the mean over
ROW = 64  # pixels, the height of these rows
BARS = (640, 160)  # pixels, the size of the picture of μ and σ
SAMPLES_CAPTION = "reconstructions, each from another draw of z"
NEIGHBOURS_CAPTION = "nearest training images, by their codes"
BARS_CAPTION = "its code: μ (bar) ± σ (line) of each dimension; ±1σ of N(0, 1) in grey"
STRANGE = 0.99  # a higher −ELBO than this fraction of the test images have is called strange


class DrawExplorer(Explorer):
    """A pad, and what the VAE says of the drawing on it.

    Traits: `drawing`, uint8 `(28, 28)`, the pad's pixels, which you can set; `prepared`, the same
    as MNIST would have it; `z`, the mu of its code; `image`, what z decodes to. Here z follows the
    drawing, and an empty pad keeps the last one's: link from it, not to it.
    """

    drawing = traitlets.Instance(np.ndarray)
    prepared = traitlets.Instance(np.ndarray)

    def __init__(self, model: VAE, images: Images, drawing: np.ndarray) -> None:
        decoder = Decoder(model)
        super().__init__({"": decoder}, None)
        self._model, self._images, self._device = model, images, decoder.device
        # What a drawing is compared with, computed once.
        self._codes = evaluate.codes(model, images.train)
        self._test_scores = evaluate.neg_elbo_per_image(model, images.test).sort().values
        generator = torch.Generator().manual_seed(0)
        # The same draws for every drawing, so that the numbers change with the drawing alone.
        self._eps = torch.randn((SAMPLES, model.latent_size), generator=generator)
        self._eps = self._eps.to(self._device)
        self.pad = Pad(
            label="Pad: draw a digit with the mouse or a finger; or move the pen with the arrow "
            "keys and press the space bar to put it down and lift it"
        )
        side, width = 2 * ROW, ROW * SHOWN + 2 * (SHOWN - 1)
        self._seen = Picture(alt="the drawing as the network sees it", width=side, height=side)
        self._pictures[0].width = self._pictures[0].height = side
        self._bars = Picture(width=BARS[0], height=BARS[1])
        self._bars.add_class("vae-bars")
        self._samples = Picture(alt="reconstructions", width=width, height=ROW)
        self._neighbours = Picture(alt="nearest training images", width=width, height=ROW)
        self._neighbour_names = widgets.HTML()
        self._verdict = widgets.HTML()
        self._on(self.pad, "pixels", self._take_pixels)
        self.observe(self._show_drawing, "drawing")
        self._open(self._layout())
        self.drawing = drawing

    def _layout(self) -> widgets.Widget:
        buttons = row(
            self._button("Clear", "Wipe the pad", self.clear),
            self._button("Put a test image on it", "To draw on", self.take_test_image),
        )

        room = {"margin": "0 16px 0 0"}
        right = column(
            row(
                column(widgets.HTML("as the network sees it"), self._seen, **room),
                column(widgets.HTML("decoded from μ"), self._pictures[0], **room),
            ),
            column(widgets.HTML(SAMPLES_CAPTION), self._samples, **room),
            column(self._neighbour_names, self._neighbours, **room),
            margin="0 0 0 16px",
        )
        above = row(column(self.pad, buttons), right)
        return column(above, self._verdict, widgets.HTML(BARS_CAPTION), self._bars)

    def clear(self) -> None:
        """Wipe the pad."""
        self.drawing = np.zeros((SIDE, SIDE), np.uint8)

    def take_test_image(self) -> None:
        """Put a random test image on the pad."""
        self.drawing = random.choice(self._images.test).cpu().numpy()

    @traitlets.validate("drawing")
    def _valid_drawing(self, proposal):
        value = proposal["value"]
        if value.shape != (SIDE, SIDE) or value.dtype != np.uint8:
            raise traitlets.TraitError(
                f"drawing must be uint8 ({SIDE}, {SIDE}), got {value.dtype} {value.shape}"
            )
        return np.ascontiguousarray(value)  # torch takes no mirrored view

    def _take_pixels(self) -> None:
        pixels = np.frombuffer(self.pad.pixels, dtype=np.uint8)
        if pixels.size != SIDE * SIDE:
            raise ValueError(f"the pad sent {pixels.size} pixels instead of {SIDE * SIDE}")
        if not np.array_equal(pixels, self.drawing.ravel()):  # else it comes from us
            self.drawing = pixels.reshape(SIDE, SIDE)

    def _show_drawing(self, change) -> None:
        self.pad.pixels = self.drawing.tobytes()
        prepared = centre_digit(torch.tensor(self.drawing))
        self.prepared = prepared.numpy()
        self._seen.value = png(enlarged(self.prepared))
        if self.drawing.any():
            self._show_code(to_float(prepared[None]).to(self._device))
            return
        self._verdict.value = "<b>Draw a digit</b> on the black pad."
        self._neighbour_names.value = NEIGHBOURS_CAPTION
        self._bars.alt = "no code yet"
        for part in (self._pictures[0], self._samples, self._neighbours, self._bars):
            part.value = png(np.full((part.height, part.width), 240, np.uint8))

    @torch.inference_mode()
    def _show_code(self, x: Tensor) -> None:
        """Show what the model makes of one image `(1, 784)`."""
        mu, log_var = self._model.encode(x)
        if not (mu.isfinite().all() and log_var.isfinite().all()):
            raise ValueError("the encoder gives NaN or inf: has its training diverged?")
        code, sigma = mu[0].cpu().numpy(), (0.5 * log_var[0]).exp().cpu().numpy()
        if code.size == 1 and np.array_equal(code, self.z):
            self._show_z(None)  # the digit from before a clear: traitlets sees no change of z
        self.z = code
        self._bars.value = png(code_bars(code, sigma))
        self._bars.alt = "code: " + ", ".join(
            f"z[{j}] {code[j]:.1f} ± {sigma[j]:.1f}" for j in np.abs(code).argsort()[::-1][:5]
        )
        each = (SAMPLES, -1)
        z = reparameterize(mu.expand(each), log_var.expand(each), self._eps)
        x_logits = self._model.decode(z)
        samples = torch.sigmoid(x_logits[:SHOWN]).mul(255).round().byte().cpu().numpy()
        self._samples.value = png(beside(samples.reshape(-1, SIDE, SIDE), gap=1))
        n_neighbours = min(SHOWN, len(self._codes))
        nearest = torch.cdist(mu, self._codes)[0].topk(n_neighbours, largest=False).indices
        nearest = nearest.to(self._images.train.device)
        self._neighbours.value = png(beside(self._images.train[nearest].cpu().numpy(), gap=1))
        labels = self._images.train_labels[nearest].tolist()
        names = ", ".join(html.escape(self._images.class_names[label]) for label in labels)
        self._neighbour_names.value = f"{NEIGHBOURS_CAPTION}: {names}"
        recon = losses.bernoulli_nll(x_logits, x.expand(each)).mean().item()
        kl = losses.kl_standard_normal(mu, log_var).item()
        self._verdict.value = self._words(recon, kl)

    def _words(self, recon: float, kl: float) -> str:
        score, n = recon + kl, len(self._test_scores)
        place = int(torch.searchsorted(self._test_scores, torch.tensor(score))) / n
        word = "Strange" if place > STRANGE else "Too easy" if place < 1 - STRANGE else "Ordinary"
        return (
            f"−ELBO <b>{score:.1f}</b> nats (recon {recon:.1f} + KL {kl:.1f}): more than "
            f"<b>{100 * place:.1f}%</b> of {n:,} test images. <b>{word}.</b>"
        )

    def _twin(self) -> np.ndarray:
        """Return all that the widget shows, on one sheet."""
        left, line, strips = self.pad.size + 16, 20, 3 * (ROW + 28)
        sheet = Sheet(left + self._samples.width, 2 * ROW + line + strips + BARS[1])
        sheet.text("the drawing", 0, 0)
        sheet.picture(self.drawing, 0, line, self.pad.size)
        sheet.text("as the network sees it, and decoded from μ", left, 0)
        sheet.picture(self.prepared, left, line, 2 * ROW)
        if self.drawing.any():
            sheet.picture(self._decoded()[0], left + 2 * ROW + 12, line, 2 * ROW)
        top = 2 * ROW + line + 8
        for caption, strip in [
            (SAMPLES_CAPTION, self._samples),
            (_plain(self._neighbour_names.value), self._neighbours),
        ]:
            sheet.text(caption, left, top)
            sheet.png(strip.value, left, top + line, ROW)
            top += ROW + 28
        sheet.text(_plain(self._verdict.value), 0, top)
        sheet.text(BARS_CAPTION, 0, top + line)
        sheet.png(self._bars.value, 0, top + 2 * line, BARS[1])
        return sheet.array()


def draw_digit(model: VAE, images: Images, drawing: Tensor | None = None) -> DrawExplorer:
    """Return a pad to draw on, with what the VAE makes of the drawing.

    The drawing is prepared as MNIST's images were (`data.centre_digit`). Shown are μ and σ of its
    code, reconstructions from draws of z ~ q(z|x), the training images with the nearest codes
    (Euclidean, between means), and its −ELBO in nats, the mean over 32 draws, with its place among
    the test images (one draw each). drawing: uint8 `(28, 28)` to begin with, default the first
    test image.

    Raises: ValueError if the model is no VAE of 28×28 images.
    """
    if not isinstance(model, VAE) or model.input_size != SIDE * SIDE:
        raise ValueError(f"draw_digit needs a VAE of {SIDE}×{SIDE} images")
    drawing = images.test[0] if drawing is None else drawing
    return DrawExplorer(model, images, drawing.cpu().numpy())


def code_bars(mu: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Draw μ as a bar and μ ± σ as a line for each dimension, from -4 to 4, over N(0, 1)'s ±1σ.

    With Pillow and not matplotlib, because it is drawn anew at every move of the pen.
    """
    scale = 2  # drawn larger than it is shown, so that it stays crisp
    width, height = (scale * length for length in BARS)
    axis, foot = 28 * scale, 20 * scale
    image = Image.new("RGB", (width, height), "white")
    pen, words = ImageDraw.Draw(image), font(11 * scale)
    top, unit = 4 * scale, (height - foot - 4 * scale) / 8

    def y(value: float) -> float:
        return top + unit * (4 - min(max(value, -4.0), 4.0))

    def write(text: str, x: float, middle: float, anchor: str) -> None:
        pen.text((x, middle), text, fill="black", font=words, anchor=anchor)

    pen.rectangle((axis, y(1), width, y(-1)), fill="#e8e8e8")
    for value in (-3, 0, 3):
        write(f"{value:2d}".replace("-", "−"), 0, y(value), "lm")
        pen.line((axis, y(value), width, y(value)), fill="#9a9a9a", width=scale)
    room = (width - axis) / len(mu)
    every = 1 if room > 22 * scale else 5  # numbers need room
    thick = max(2, int(0.1 * room))
    for j, (m, s) in enumerate(zip(mu.tolist(), sigma.tolist())):
        centre, half = axis + (j + 0.5) * room, 0.3 * room
        low, high = sorted((y(m), y(0)))
        pen.rectangle((centre - half, low, centre + half, high), fill="#6fa8dc")
        pen.line((centre, y(m - s), centre, y(m + s)), fill="black", width=thick)
        if j % every == 0:
            write(str(j), centre, height - foot / 2, "mm")
    return np.asarray(image)


def _plain(text: str) -> str:
    """Return the words of an HTML text."""
    return html.unescape(re.sub("<[^>]+>", "", text))
