"""A decoder strong enough to do without z: each pixel also sees those before it (lesson 06)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae_lesson.models import VAE


class AutoregressiveVAE(VAE):
    """A VAE with a strong decoder: each pixel sees z and, through a masked network, those before.

    The logits of pixel i are decode(z)_i + context(x_1 … x_{i-1})_i. `decode` alone is the part
    that comes from z, and `decode_mean` no mean image. `generate` and `sample` draw black and white
    pixels one after the other. `context_size` is the network's; the other arguments are a VAE's.
    Source: the masks are those of MADE, Germain et al. 2015; beside a VAE Chen et al. 2017.
    """

    def __init__(self, *sizes, context_size: int = 500, **options) -> None:
        super().__init__(*sizes, **options)
        input_size = self.input_size
        self.to_context = nn.Linear(input_size, context_size)
        self.from_context = nn.Linear(context_size, input_size)
        nn.init.zeros_(self.from_context.weight)  # it starts as a plain VAE
        nn.init.zeros_(self.from_context.bias)
        # A hidden unit with the number d sees the pixels up to d, and is seen by those after d.
        pixel = torch.arange(input_size)
        number = torch.arange(context_size) * (input_size - 1) // context_size
        self.register_buffer("sees", (pixel <= number[:, None]).float(), persistent=False)
        self.register_buffer("is_seen", (number < pixel[:, None]).float(), persistent=False)

    def context(self, x: Tensor) -> Tensor:
        """Return what the pixels before each one add to its logit: `(B, ...)` -> `(B, D)`."""
        x = self.checked(x)
        h = F.relu(F.linear(x, self.to_context.weight * self.sees, self.to_context.bias))
        return F.linear(h, self.from_context.weight * self.is_seen, self.from_context.bias)

    def logits(self, z: Tensor, x: Tensor) -> Tensor:
        """Return those of p(x_i | z, x_1 … x_{i-1}), for K codes of each of B images, all images'
        first codes first: z `(K · B, latent_size)`, x `(B, ...)` -> `(K · B, D)`."""
        return self.decode(z) + self.context(x).repeat(len(z) // len(x), 1)

    @torch.no_grad()
    def generate(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw an image for each code, pixel by pixel: `(B, latent_size)` -> `(B, D)`, 0 or 1."""
        z_logits = self.decode(z)
        x = torch.zeros_like(z_logits)
        for i in range(self.input_size):
            logit = z_logits[:, i] + self.context(x)[:, i]
            x[:, i] = torch.bernoulli(torch.sigmoid(logit), generator=generator)
        return x
