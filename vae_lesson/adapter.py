"""A network of your own in the place of the package's: `adapt` checks it and makes it a `VAE`."""

import math
import textwrap

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from vae_lesson.arguments import check_one_of, check_shape, shapes_of
from vae_lesson.models import VAE

EPS = 1e-6  # how near to 0 and 1 a mean may come before its logit is taken
TRIED = 5  # images or codes; not 1 or 3, as channels are, lest what mixes up the two fits
HEADS = """where the heads are in forward, put them into encode, of your class or of a wrapper:
    def encode(self, x):
        h = self.encoder(x)
        return self.fc_mu(h), self.fc_var(h)"""
NOISE = "the noise is the likelihood's, as of partial(losses.elbo_terms, nll=fitted_gaussian_nll)"


class AdaptedVAE(VAE):
    """A VAE whose networks are those of `model`, which trains with it; `adapt` makes it.

    takes: the shape in which the model takes an image, that of the image or flat.
    config: what `adapt` was told.
    encoder_weights: those that `encode` uses, which `fit` may train at a rate of their own.
    """

    def __init__(
        self,
        model: nn.Module,
        shape: tuple[int, ...],
        output: str,
        pixels: tuple[float, float],
        takes: tuple[int, ...],
        latent_size: int,
        encoder_weights: list[nn.Parameter],
    ) -> None:
        nn.Module.__init__(self)  # a VAE's own would build two networks
        self.model, self.shape, self.output, self.pixels = model, shape, output, pixels
        self.takes, self.input_size, self.latent_size = takes, math.prod(shape), latent_size
        self.encoder_weights = encoder_weights
        self.config = {"shape": shape, "output": output, "pixels": tuple(pixels)}

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (mu, log_var) of q(z|x). Shapes: x `(B, ...)` -> two of `(B, latent_size)`."""
        low, high = self.pixels
        x = low + (high - low) * self.checked(x)
        # x.shape[0] for len(x), here and below: torch.export would take a len for a constant.
        return _mu_and_log_var(self.model.encode(x.unflatten(1, self.takes)), x.shape[0])

    def decoder(self, z: Tensor) -> Tensor:
        """Return what the model's `decode` gives, flat: `VAE.decode` checks z and calls this."""
        return _flat(self.model.decode(z), z.shape[0], self.shape)

    def decode(self, z: Tensor) -> Tensor:
        """Return the logits: `(B, latent_size)` -> `(B, input_size)`.

        Those of means end at ±13.8, a mean within 1e-6 of 0 or 1, and have no gradient there: a
        pixel that is surely wrong no longer learns. Logits of the network's own do.
        """
        if self.output == "logits":
            return super().decode(z)
        return torch.logit(self.decode_mean(z), EPS)

    def decode_mean(self, z: Tensor) -> Tensor:
        """Return E[x|z], in [0, 1]: `(B, latent_size)` -> `(B, input_size)`."""
        if self.output == "logits":
            return super().decode_mean(z)
        low, high = self.pixels
        return (super().decode(z) - low) / (high - low)


def adapt(
    model: nn.Module,
    shape: tuple[int, int, int],
    output: str = "logits",
    pixels: tuple[float, float] = (0.0, 1.0),
) -> AdaptedVAE:
    """Return a network of your own as a `VAE`, for every function here that takes one.

    `model.encode(x)` gives mu and log_var = log σ², each `(B, latent_size)`, or a
    `torch.distributions.Normal`; x is `(B, *shape)`, or flat if that fails. `model.decode(z)` gives
    one value a pixel, flat or shaped. Its `forward` is not used.

    shape: (channels, height, width) of an image.
    output: what `decode` gives: "logits", without a sigmoid; or "means", which a sigmoid ends, or
    a tanh where pixels are (-1, 1). Logits train better: see `AdaptedVAE.decode`.
    pixels: (lowest, highest) value of the images that the model takes, and of means that it gives.

    The model is tried on random images in eval mode, and stays in it, as after `load_model`; `fit`
    trains it in training mode.

    Raises: ValueError for a model that does otherwise: it says what came and what to write.
    """
    if not isinstance(model, nn.Module) or next(model.parameters(), None) is None:
        raise ValueError(
            f"model must be an nn.Module with weights, got {type(model).__name__}: a wrapper keeps "
            "its network as self.network = network"
        )
    if missing := [half for half in ("encode", "decode") if not hasattr(model, half)]:
        raise ValueError(f"{type(model).__name__} has no {' and no '.join(missing)}: {HEADS}")
    check_shape(shape)
    check_one_of("output", output, ("logits", "means"))
    pair = isinstance(pixels, (tuple, list)) and len(pixels) == 2
    if not pair or not -math.inf < pixels[0] < pixels[1] < math.inf:
        raise ValueError(f"pixels must be (lowest, highest), as (0, 1) or (-1, 1), got {pixels!r}")
    try:
        return _tried(model.eval(), tuple(shape), output, pixels)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"encode or decode fails on random numbers: {_short(error)}") from error


# --- what is asked of a model ---------------------------------------------------------------------


def _tried(model, shape, output, pixels) -> AdaptedVAE:
    """Return the adapted model, if it does what it should on a few random images and codes."""
    device, generator = next(model.parameters()).device, torch.Generator().manual_seed(0)
    x = torch.rand((TRIED, math.prod(shape)), generator=generator).to(device)
    with torch.enable_grad():
        takes, code = _first_codes(model, pixels[0] + (pixels[1] - pixels[0]) * x, shape)
        weights = _weights_of(code, model)
    latent_size = code.shape[1] // 2
    vae = AdaptedVAE(model, shape, output, pixels, takes, latent_size, weights).eval()
    z = torch.randn((TRIED, latent_size), generator=generator).to(device)
    values = vae.decoder(z)
    halves = {
        "encode": (code, torch.cat(vae.encode(x[:1]), dim=1)),
        "decode": (values, vae.decoder(z[:1])),
    }
    for half, (of_batch, alone) in halves.items():
        if not of_batch.isfinite().all():
            raise ValueError(f"{half} gives NaN or inf for random images or codes")
        if not torch.allclose(of_batch[:1], alone, rtol=1e-3, atol=1e-4):
            raise ValueError(
                f"{half} gives something else for one of {TRIED} than for the same one alone: in "
                "eval mode it must draw no noise, drop nothing out, and not look at the batch"
            )
    # Untrained values may lie in any range by chance; those of codes far out do not.
    low, high = torch.cat([values, vae.decoder(1000 * z)]).aminmax()
    _check_range(low.item(), high.item(), output, pixels)
    return vae


def _first_codes(model, x: Tensor, shape) -> tuple[tuple[int, ...], Tensor]:
    """Return in which shape the model takes an image, and (mu, log_var) side by side, `(B, 2L)`."""
    failed = []
    for takes in (shape, (math.prod(shape),)):
        images = x.unflatten(1, takes)
        try:
            code = model.encode(images)
        except Exception as error:
            failed.append(f"{tuple(images.shape)} ({_short(error)})")
        else:
            return takes, torch.cat(_mu_and_log_var(code, len(x)), dim=1)
    raise ValueError(f"encode fails on images of shape {' and of shape '.join(failed)}")


def _weights_of(value: Tensor, model: nn.Module) -> list[nn.Parameter]:
    """Return the model's weights that this value has a gradient by, whatever they are called."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if not weights or not value.requires_grad:
        return []
    slopes = torch.autograd.grad(value.sum(), weights, allow_unused=True)
    return [weight for weight, slope in zip(weights, slopes) if slope is not None]


def _mu_and_log_var(code, n: int) -> tuple[Tensor, Tensor]:
    """Return what a model's encode gives for n images as (mu, log_var)."""
    if isinstance(code, Independent):
        code = code.base_dist
    if isinstance(code, Normal):
        code = code.mean, 2 * code.stddev.log()
    match shapes := shapes_of(code):
        # Not the first two of three: as often as not those are z and mu.
        case [(rows, _) as mu, log_var] if rows == n and mu == log_var:
            return tuple(code)
    wanted = f"two of ({n}, latent_size) for {n} image{'s' * (n > 1)}"
    advice = "" if isinstance(code, (tuple, list)) else f"; {HEADS}"
    match shapes:
        case [(_, _, _, *_) as each, other] if each == other:
            advice = (
                "; flatten such a code: return mu.flatten(1), log_var.flatten(1), and let decode "
                f"begin with z = z.unflatten(1, {each[1:]})"
            )
    raise ValueError(f"encode must return just (mu, log_var), {wanted}, got {shapes}{advice}")


def _flat(images, n: int, shape: tuple[int, ...]) -> Tensor:
    """Return what a model's decode gives for n codes as `(n, pixels)`."""
    if not isinstance(images, Tensor):
        raise ValueError(
            f"decode must return one tensor, the images, got {shapes_of(images)}: return the "
            f"means alone; {NOISE}"
        )
    n_pixels, got = math.prod(shape), tuple(images.shape)
    # Channels last would have the right number too, and scramble the image.
    sides, wanted = ([length for length in some if length > 1] for some in (got[1:], shape))
    if got[:1] != (n,) or sides not in (wanted, [n_pixels]):
        variances = f": are half of them variances? Return the means alone; {NOISE}"
        raise ValueError(
            f"decode must return {(n, *shape)} or {(n, n_pixels)} for {n} code{'s' * (n > 1)}, "
            f"{n_pixels} values an image, got {got}, {images.numel() // n}"
            f"{variances if images.numel() == 2 * n * n_pixels else ''}"
        )
    return images.reshape(n, n_pixels)


def _check_range(low: float, high: float, output: str, pixels: tuple[float, float]) -> None:
    """Raise ValueError for a decoder whose values, some of codes far out, are no such output."""
    gives = f"decode gives values from {low:.3g} to {high:.3g}"
    if output == "means":
        least, most = pixels
        if low < least - 1e-3 or high > most + 1e-3:
            raise ValueError(
                f"{gives}, and means lie within pixels={pixels}: end it with a sigmoid, with a "
                "tanh for (-1, 1), or say output='logits'"
            )
        if least < 0 <= low:
            raise ValueError(f"{gives}, and pixels={pixels} go below 0: so must it, as a tanh does")
    elif low >= 0 and high <= 1:
        raise ValueError(f"{gives}, as probabilities are: say output='means'")
    elif abs(low + 1) < 1e-3 and abs(high - 1) < 1e-3:
        raise ValueError(f"{gives}, as of a tanh: say output='means' and pixels=(-1, 1)")


def _short(error: Exception) -> str:
    return textwrap.shorten(f"{type(error).__name__}: {error}", 120)
