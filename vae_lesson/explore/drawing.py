"""Draw a digit, and see what the encoder makes of it."""

import numpy as np
import torch
import traitlets
from torch import Tensor

from vae_lesson import evaluate, losses
from vae_lesson.data import SIDE, Images, centre_digit, to_float
from vae_lesson.explore.decoder import Decoder, check_finite, packed
from vae_lesson.explore.explorer import Explorer
from vae_lesson.explore.pictures import below, beside, captioned, enlarged, film, written
from vae_lesson.fonts import _
from vae_lesson.models import VAE, reparameterize
from vae_lesson.words import N_

SHOWN = 6  # reconstructions and neighbours in their rows
SAMPLES = 32  # draws of z that the drawing's −ELBO is the mean over
STRANGE = 0.99  # a higher −ELBO than this fraction of the test images have is called strange
QUANTILES = 201  # of the test images' −ELBO, which a page without a kernel has
LARGE, SMALL = 280, 64  # pixels, the sides of pictures in the still picture


class DrawExplorer(Explorer):
    """A pad, and what the VAE says of the drawing on it.

    Here `z`, the mu of its code, follows the drawing, and an empty pad keeps the last one's: link
    from it, not to it. `drawing`, uint8 `(28, 28)`, is the pad's pixels, which you can set.
    """

    drawing = traitlets.Any()
    _title, _given = N_("Drawing pad"), "drawing"

    def __init__(self, model: VAE, images: Images, drawing: np.ndarray) -> None:
        decoder = Decoder(model)
        self._model, self._data, self._device = model, images, decoder.device
        # What a drawing is compared with, computed once.
        self._codes = evaluate.codes(model, images.train)
        scores = sum(evaluate.terms_per_image(model, images.test).values())  # −ELBO
        self._test_scores = scores.cpu().sort().values
        # The same draws for every drawing, so that the numbers change with the drawing alone.
        eps = torch.randn((SAMPLES, model.latent_size), generator=torch.Generator().manual_seed(0))
        self._eps = eps.to(self._device)
        quantiles = self._test_scores.quantile(torch.linspace(0, 1, QUANTILES)).tolist()
        # The training images are not on a page.
        self.for_page = {"eps": eps.tolist(), "scores": quantiles, "class_names": None}
        self.drawing = drawing
        own = {"strange": STRANGE, "n_scores": len(self._test_scores)}
        own |= {"class_names": images.class_names, "examples": decoder.examples(images.test)}
        super().__init__({"": decoder}, None, kind="drawing", **own)

    @traitlets.validate("drawing")
    def _valid_drawing(self, proposal):
        value = proposal["value"]
        if value.shape != (SIDE, SIDE) or value.dtype != np.uint8:
            wanted = f"uint8 ({SIDE}, {SIDE})"
            raise ValueError(f"drawing must be {wanted}, got {value.dtype} {value.shape}")
        return value.copy()

    def clear(self) -> None:
        """Wipe the pad."""
        self.drawing = np.zeros((SIDE, SIDE), np.uint8)

    def _move(self, given: bytes) -> None:
        self.drawing = np.frombuffer(given, np.uint8).reshape(SIDE, SIDE)

    def _look(self) -> dict:
        seen, told = centre_digit(torch.tensor(self.drawing)), {}
        self._made = [seen.numpy()[None]]
        if seen.any():
            self.z, told, *made = self._encoded(to_float(seen[None]).to(self._device))
            self._made += [*self._decoded, *made]
        return {"drawing": self.drawing.tobytes()} | told | packed(self._made)

    @torch.inference_mode()
    def _encoded(self, x: Tensor) -> tuple[np.ndarray, dict, np.ndarray, np.ndarray]:
        """Return of one image `(1, 784)` its code, numbers, reconstructions, and neighbours."""
        mu, log_var = self._model.encode(x)
        check_finite("encoder", mu, log_var)
        each = (SAMPLES, -1)
        z = reparameterize(mu.expand(each), log_var.expand(each), self._eps)
        x_logits = self._model.decode(z)
        recon = losses.bernoulli_nll(x_logits, x.expand(each)).mean().item()
        kl = losses.kl_standard_normal(mu, log_var).item()
        n_below = torch.searchsorted(self._test_scores, torch.tensor(recon + kl)).item()
        nearest = torch.cdist(mu, self._codes)[0].topk(SHOWN, largest=False).indices.cpu()
        samples = torch.sigmoid(x_logits[:SHOWN]).mul(255).round().byte()
        labels = self._data.train_labels.cpu()[nearest].tolist()
        told = {
            "mu": mu[0].tolist(),
            "sigma": (0.5 * log_var[0]).exp().tolist(),
            "score": {"recon": recon, "kl": kl, "place": n_below / len(self._test_scores)},
            "neighbours": [self._data.class_names[label] for label in labels],
        }
        near = self._data.train[nearest.to(self._data.train.device)].cpu().numpy()
        return mu[0].cpu().numpy(), told, samples.reshape(-1, SIDE, SIDE).cpu().numpy(), near

    def _still(self) -> np.ndarray:
        left = captioned(_("the drawing"), enlarged(self.drawing, LARGE))
        if len(self._made) == 1:
            return left
        (seen,), (decoded,), samples, nearest = self._made
        seen = captioned(_("as the network sees it"), enlarged(seen, 2 * SMALL))
        decoded = captioned(_("decoded from μ"), enlarged(decoded, 2 * SMALL))
        drawn = _("reconstructions, each from another draw of z")
        again = captioned(drawn, film(samples, SMALL))
        named = _("nearest training images, by their codes: {names}")
        named = named.format(names=", ".join(self.shown["neighbours"]))
        near = captioned(named, film(nearest, SMALL))
        right = below(beside(seen, decoded), again, near)
        return below(beside(left, right), written(self._words(), 700))

    def _words(self) -> str:
        if "score" not in self.shown:
            return _("an empty pad")
        recon, kl, place = self.shown["score"].values()
        word = _("ordinary")
        if not 1 - STRANGE <= place <= STRANGE:
            word = _("strange") if place > STRANGE else _("too easy")
        says = _(
            "a drawing of −ELBO {total:.1f} nats (recon {recon:.1f} + KL {kl:.1f}), more than "
            "{share:.1f}% of {n_images:,} test images: {word}"
        )
        counts = {"share": 100 * place, "n_images": len(self._test_scores), "word": word}
        return says.format(total=recon + kl, recon=recon, kl=kl, **counts)


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
