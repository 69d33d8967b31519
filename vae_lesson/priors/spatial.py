"""Networks whose code is a small picture: 7×7 cells of a few numbers each (lessons 09 and 10)."""

import torch
from torch import Tensor, nn

from vae_lesson.losses import bernoulli_nll
from vae_lesson.models import Autoencoder

SIDE = 7  # cells in a row of the code; each stands for 4×4 pixels, and sees a little beyond them


def spatial_networks(channels: int, width: int = 32) -> tuple[nn.Sequential, nn.Sequential]:
    """Return (encoder, decoder): images to a code of 7×7 cells, and a code to logits.

    Two convolutions of stride 2 each way, so a cell knows of 10×10 pixels around its own place.

    Shapes: x `(B, 784)` -> code `(B, channels, 7, 7)`; code -> x_logits `(B, 784)`.
    """
    encoder = nn.Sequential(
        nn.Unflatten(1, (1, 4 * SIDE, 4 * SIDE)),
        nn.Conv2d(1, width, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(2 * width, channels, 1),
    )
    decoder = nn.Sequential(
        nn.Conv2d(channels, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1),
        nn.Flatten(),
    )
    return encoder, decoder


def spatial_autoencoder(channels: int, width: int = 32) -> Autoencoder:
    """Return an autoencoder with these networks, its codes flat, `(B, channels · 49)`."""
    model = Autoencoder(channels * SIDE**2)
    encoder, decoder = spatial_networks(channels, width)
    nn.init.constant_(decoder[-2].bias, -2.0)  # it starts from nearly black
    model.encoder = nn.Sequential(*encoder, nn.Flatten())
    model.decoder = nn.Sequential(nn.Unflatten(1, (channels, SIDE, SIDE)), *decoder)
    return model


def bernoulli_terms(model: Autoencoder, x: Tensor, generator: torch.Generator | None = None):
    """Return an autoencoder's recon = -log p(x|z), `(B,)`, in nats per image."""
    return {"recon": bernoulli_nll(model.decode(model.encode(x)), x)}
