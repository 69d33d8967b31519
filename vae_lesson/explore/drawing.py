"""Draw a digit, and see what the encoder makes of it."""

import random

import ipywidgets as widgets
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from vae_lesson import evaluate, losses
from vae_lesson.data import SIDE, Images, centre_digit, to_float
from vae_lesson.explore import living
from vae_lesson.explore.base import Decoder, Explorer, as_html, column, row
from vae_lesson.explore.parts import Pad, Picture, as_text, enlarged, font, joined, png
from vae_lesson.models import VAE, reparameterize

SHOWN = 6  # reconstructions and neighbours in their rows
SAMPLES = 32  # draws of z that the drawing's −ELBO is the mean over
ROW = 64  # pixels, the height of these rows
BARS = (640, 160)  # pixels, the size of the picture of μ and σ
NEIGHBOURS_CAPTION = "nearest training images, by their codes"
QUANTILES = 201  # of the test images' −ELBO, which a page without a kernel has
STRANGE = 0.99  # a higher −ELBO than this fraction of the test images have is called strange


class DrawExplorer(Explorer):
    """A pad, and what the VAE says of the drawing on it.

    Here `z`, the mu of its code, follows the drawing, and an empty pad keeps the last one's: link
    from it, not to it. `drawing`, uint8 `(28, 28)`, is the pad's pixels, which you can set.
    """

    _title = "Drawing pad"

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
        self._bars = Picture(width=BARS[0], height=BARS[1]).add_class("vae-bars")
        self._samples = Picture(alt="reconstructions", width=width, height=ROW)
        self._neighbours = Picture(alt="nearest training images", width=width, height=ROW)
        self._neighbour_names, self._verdict = widgets.HTML(), widgets.HTML()
        self._open(self._layout())
        self.drawing = drawing
        self._show_drawing()
        self._on(self.pad, "pixels", self._show_drawing)

    def _layout(self) -> widgets.Widget:
        clear = self._button("Clear", self.clear)
        test_image = self._button("Put a test image on it", self.take_test_image)
        seen = column("as the network sees it", self._seen)
        decoded = column("decoded from μ", self._pictures[0])
        samples = column("reconstructions, each from another draw of z", self._samples)
        neighbours = column(self._neighbour_names, self._neighbours)
        return column(
            row(
                column("the drawing", self.pad, row(clear, test_image)),
                column(row(seen, decoded), samples, neighbours),
            ),
            self._verdict,
            "its code: μ (bar) ± σ (line) of each dimension; ±1σ of N(0, 1) in grey",
            self._bars,
        )

    @property
    def drawing(self) -> np.ndarray:
        return np.frombuffer(self.pad.pixels, np.uint8).reshape(SIDE, SIDE)

    @drawing.setter
    def drawing(self, value: np.ndarray) -> None:
        if value.shape != (SIDE, SIDE) or value.dtype != np.uint8:
            raise ValueError(
                f"drawing must be uint8 ({SIDE}, {SIDE}), got {value.dtype} {value.shape}"
            )
        self.pad.begin_round("pixels", value.tobytes())

    def clear(self) -> None:
        """Wipe the pad."""
        self.drawing = np.zeros((SIDE, SIDE), np.uint8)

    def take_test_image(self) -> None:
        """Put a random test image on the pad."""
        self.drawing = random.choice(self._images.test).cpu().numpy()

    def _state(self) -> str:
        return f"a drawing and what the VAE makes of it. {as_text(self._verdict.value)}"

    def _living(self) -> dict:
        shares = torch.linspace(0, 1, QUANTILES)
        return {
            "kind": "drawing",
            "drawing": living.pixels([self.drawing])[0],
            "label": self.pad.label,
            "size": self.pad.size,
            "encoder": living.encoder(self._model, self._images.test),
            "eps": living.numbers(self._eps.cpu()),
            "scores": living.numbers(self._test_scores.cpu().quantile(shares)),
            "n_scores": len(self._test_scores),
            "strange": STRANGE,
        } | living.examples(self._decoders[""], self._images.test)

    def _show_drawing(self) -> None:
        prepared = centre_digit(torch.tensor(self.drawing))
        self._seen.value = png(enlarged(prepared.numpy()))
        if prepared.any():
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
            f"z[{j}] {code[j]:z.1f} ± {sigma[j]:.1f}" for j in np.abs(code).argsort()[::-1][:5]
        )
        each = (SAMPLES, -1)
        z = reparameterize(mu.expand(each), log_var.expand(each), self._eps)
        x_logits = self._model.decode(z)
        samples = torch.sigmoid(x_logits[:SHOWN]).mul(255).round().byte().cpu().numpy()
        self._samples.value = png(joined(samples.reshape(-1, SIDE, SIDE), gap=1))
        n_neighbours = min(SHOWN, len(self._codes))
        nearest = torch.cdist(mu, self._codes)[0].topk(n_neighbours, largest=False).indices
        nearest = nearest.to(self._images.train.device)
        self._neighbours.value = png(joined(self._images.train[nearest].cpu().numpy(), gap=1))
        labels = self._images.train_labels[nearest].tolist()
        names = ", ".join(as_html(self._images.class_names[label]) for label in labels)
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


def draw_digit(model: VAE, images: Images, drawing: Tensor | None = None) -> DrawExplorer:
    """Return a pad to draw on, with what the VAE makes of the drawing.

    The drawing is prepared as MNIST's images were (`data.centre_digit`). Shown are μ and σ of its
    code, reconstructions from draws of z ~ q(z|x), the training images with the nearest codes
    (Euclidean, between means), and its −ELBO in nats, the mean over 32 draws, with its place among
    the test images (one draw each). drawing: uint8 `(28, 28)` to begin with, default the first
    test image.

    Raises: ValueError if the model is no VAE of 28×28 images in grey.
    """
    if not isinstance(model, VAE) or model.input_size != SIDE * SIDE:
        kind, size = type(model).__name__, getattr(model, "input_size", "unknown")
        raise ValueError(
            f"draw_digit needs a VAE of {SIDE}×{SIDE} images in grey, as its pad is "
            f"(adapter.adapt makes one of yours): got {kind} of input_size {size}"
        )
    drawing = images.test[0] if drawing is None else drawing
    return DrawExplorer(model, images, drawing.cpu().numpy())


def code_bars(mu: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Draw μ as a bar and μ ± σ as a line for each dimension, from -4 to 4, over N(0, 1)'s ±1σ.

    With Pillow and not matplotlib, because it is drawn anew at every move of the pen; twice as
    large as it is shown, so that it stays crisp.
    """
    width, height = 2 * BARS[0], 2 * BARS[1]
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    words = {"fill": "black", "font": font(22), "anchor": "mm"}
    axis = 56  # to the right of the numbers

    def y(value: float) -> float:
        return 144 - 34 * min(max(value, -4.0), 4.0)

    pen.rectangle((axis, y(1), width, y(-1)), fill="#e8e8e8")
    for value in (-3, 0, 3):
        pen.text((axis / 2, y(value)), f"{value}".replace("-", "−"), **words)
        pen.line((axis, y(value), width, y(value)), fill="#9a9a9a", width=2)
    room = (width - axis) / len(mu)
    for j, (m, s) in enumerate(zip(mu.tolist(), sigma.tolist())):
        x = axis + (j + 0.5) * room
        pen.rectangle((x - 0.3 * room, y(max(m, 0)), x + 0.3 * room, y(min(m, 0))), fill="#6fa8dc")
        pen.line((x, y(m - s), x, y(m + s)), fill="black", width=max(2, int(0.1 * room)))
        if room > 44 or j % 5 == 0:  # numbers need room
            pen.text((x, height - 20), str(j), **words)
    return np.asarray(image)
