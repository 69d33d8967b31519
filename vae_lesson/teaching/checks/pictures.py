"""The checks on your own pictures: a scale that fits, a measure of colour, your own network."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vae_lesson.adapter import adapt
from vae_lesson.likelihood.pixels import fitted_log_scale
from vae_lesson.teaching.checks.verdict import Verdict, attempt, compare, draw, learns, ours, seeded


@ours(fitted_log_scale)
def log_scale(answer: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(x_mean, x) -> `()`, the log of the logistic scale that fits the errors."""
    x_mean, x = (values.sigmoid() for values in draw((4, 9), (4, 9)))
    right, factor = fitted_log_scale(x_mean, x), math.log(math.sqrt(3) / math.pi)
    error = (x - x_mean).square()
    of_sum = error.sum(dim=1).mean().sqrt()
    mistakes = {
        "the standard deviation: a logistic's scale is √3/π of it": right - factor,
        "the variance where its root belongs: take half of the logarithm": 2 * right - factor,
        "the scale itself: return its logarithm": right.exp(),
        "a sum over the pixels: take the mean": of_sum.log() + factor,
    }
    verdict = compare(answer, (x_mean, x), right, mistakes)
    scale = attempt(answer, x_mean.requires_grad_(), x)
    if verdict.ok and getattr(scale, "requires_grad", False):
        return Verdict("Not yet: this looks like a scale with a gradient: detach the errors.")
    return verdict


def our_warmth(x: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Return the mean red less the mean blue of flat images; 0 of grey ones: `(B, n)` -> `(B,)`."""
    channels = x.view(len(x), shape[0], -1).mean(dim=2)  # (B, channels)
    return channels[:, 0] - channels[:, -1]


@ours(our_warmth)
def warmth(answer: Callable[[Tensor, tuple], Tensor]) -> Verdict:
    """Check answer(x, shape) -> `(B,)`, the mean red less the mean blue of flat images."""
    (x,) = draw((5, 48))
    right, last = our_warmth(x, (3, 4, 4)), (x[:, 0::3] - x[:, 2::3]).mean(dim=1)
    mistakes = {
        "channels last: here all reds come first, then all greens": last,
        "blue less red": -right,
        "a sum over the pixels: take the mean": 16 * right,
    }
    return compare(answer, (x, (3, 4, 4)), right, mistakes, per_image=True)


class OurNetwork(nn.Module):
    """A small network by the contract: images in, (mu, log_var); codes in, logits."""

    def __init__(self, shape: tuple[int, int, int], latent_size: int) -> None:
        super().__init__()
        n = math.prod(shape)
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(n, 200), nn.SiLU(), nn.Linear(200, 2 * latent_size)
        )
        self.decoder = nn.Sequential(nn.Linear(latent_size, 200), nn.SiLU(), nn.Linear(200, n))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.encoder(x).chunk(2, dim=1)

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)


@ours(OurNetwork)
def own_network(answer: Callable[[tuple, int], nn.Module]) -> Verdict:
    """Check answer(shape, latent_size), a module by the contract of `adapt`, giving logits."""
    shape = (3, 8, 8)
    with seeded():
        model = attempt(answer, shape, 4)
        if isinstance(model, Verdict):
            return model
        if not isinstance(model, nn.Module) or not any(True for _ in model.parameters()):
            return Verdict("Not yet: write the two networks.")
        adapted = attempt(adapt, model, shape)
    if isinstance(adapted, Verdict):
        return adapted
    if adapted.latent_size != 4:
        says = "Not yet: codes have {n} numbers, asked for were 4."
        return Verdict(says, n=adapted.latent_size)
    mu, log_var = adapted.encode(torch.rand(1, 192, generator=torch.Generator().manual_seed(7)))
    decoded = adapted.decode(30 * torch.eye(4))
    if (decoded - decoded[:1]).abs().max() < 1e-6:
        return Verdict("Not yet: every code decodes to the same image.")
    return learns(mu, log_var, decoded)
