"""The networks: an autoencoder and a variational autoencoder, linear, MLP or convolutional.

Images go in flat or square, floats in [0, 1], and come out flat, `(B, input_size)`. Decoders return
logits; `decode_mean` turns them into pixel intensities. No loss and no training here.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NETWORKS = ("linear", "mlp", "deep", "conv")


def reparameterize(
    mu: Tensor,
    log_var: Tensor,
    eps: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw z ~ N(mu, σ²) as z = mu + eps · σ with eps ~ N(0, I) and σ = exp(½ log_var).

    The noise comes from outside, so z is a differentiable function of mu and log_var.

    Shapes: mu, log_var and eps `(B, latent_size)` -> `(B, latent_size)`.
    Raises: ValueError if the shapes differ.
    Source: Kingma & Welling 2014, section 2.4.
    """
    if eps is None:
        eps = torch.randn(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype)
    if not mu.shape == log_var.shape == eps.shape:
        raise ValueError(
            "mu, log_var and eps must have the same shape, "
            f"got {tuple(mu.shape)}, {tuple(log_var.shape)} and {tuple(eps.shape)}"
        )
    return mu + eps * torch.exp(0.5 * log_var)


class Autoencoder(nn.Module):
    """x -> z -> x̂: a code z of `latent_size` numbers, and the image that the decoder makes of it.

    `network="linear"` has one matrix each way, no hidden layer and no sigmoid: trained on squared
    error it is PCA. `"mlp"` has one hidden layer each way, `"conv"` two strided convolutions.
    """

    def __init__(
        self,
        latent_size: int = 20,
        hidden_size: int = 400,
        input_size: int = 784,
        network: str = "mlp",
    ) -> None:
        super().__init__()
        self.config = {
            "latent_size": latent_size,
            "hidden_size": hidden_size,
            "input_size": input_size,
            "network": network,
        }
        self.latent_size, self.input_size, self.network = latent_size, input_size, network
        self.encoder, self.decoder = _networks(**self.config, code_size=latent_size)

    def encode(self, x: Tensor) -> Tensor:
        """Return the code z of each image. Shapes: x `(B, ...)` -> `(B, latent_size)`."""
        return self.encoder(_flat_images(x, self.input_size))

    def decode(self, z: Tensor) -> Tensor:
        """Return the decoder's output before the sigmoid: `(B, latent_size)` -> `(B, input_size)`.

        For the linear network these are the pixels themselves.
        """
        return self.decoder(_checked_codes(z, self.latent_size))

    def decode_mean(self, z: Tensor) -> Tensor:
        """Return the decoded images: `(B, latent_size)` -> `(B, input_size)`."""
        x_logits = self.decode(z)
        return x_logits if self.network == "linear" else torch.sigmoid(x_logits)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (x_hat, z): the reconstruction `(B, input_size)` and the code."""
        z = self.encode(x)
        return self.decode_mean(z), z


class VAE(nn.Module):
    """x -> q(z|x) = N(mu, σ²) -> z -> p(x|z): the encoder gives a cloud instead of a point.

    The defaults are the article's network, 784-400-20-400-784 with ReLU.
    Source: Kingma & Welling 2014, section 3 and appendix C.
    """

    def __init__(
        self,
        latent_size: int = 20,
        hidden_size: int = 400,
        input_size: int = 784,
        network: str = "mlp",
    ) -> None:
        super().__init__()
        self.config = {
            "latent_size": latent_size,
            "hidden_size": hidden_size,
            "input_size": input_size,
            "network": network,
        }
        self.latent_size, self.input_size, self.network = latent_size, input_size, network
        # One matrix for both heads: the same function as two layers, in one product.
        self.encoder, self.decoder = _networks(**self.config, code_size=2 * latent_size)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (mu, log_var) of q(z|x). Shapes: x `(B, ...)` -> two of `(B, latent_size)`."""
        mu, log_var = self.encoder(_flat_images(x, self.input_size)).chunk(2, dim=1)
        return mu, log_var

    def decode(self, z: Tensor) -> Tensor:
        """Return the logits of p(x|z): `(B, latent_size)` -> `(B, input_size)`."""
        return self.decoder(_checked_codes(z, self.latent_size))

    def decode_mean(self, z: Tensor) -> Tensor:
        """Return E[x|z] = sigmoid(logits): `(B, latent_size)` -> `(B, input_size)`."""
        return torch.sigmoid(self.decode(z))

    def forward(
        self, x: Tensor, eps: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return (x_logits, mu, log_var), with one sample z ~ q(z|x) an image."""
        mu, log_var = self.encode(x)
        z = reparameterize(mu, log_var, eps, generator)
        return self.decode(z), mu, log_var

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Decode n draws z ~ N(0, I): the encoder is not used. Returns images `(n, input_size)`."""
        if n < 1:
            raise ValueError(f"sample needs n of at least 1, got {n}")
        device = next(self.parameters()).device
        z = torch.randn((n, self.latent_size), generator=generator, device=device)
        return self.generate(z, generator)

    def generate(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return an image of each code, here E[x|z]: `(B, latent_size)` -> `(B, input_size)`."""
        return self.decode_mean(z)


class AutoregressiveVAE(VAE):
    """A VAE with a strong decoder: each pixel sees z and, through a masked network, those before.

    The logits of pixel i are decode(z)_i + context(x_1 … x_{i-1})_i. `decode` alone is the part
    that comes from z, and `decode_mean` no mean image. `generate` and `sample` draw black and white
    pixels one after the other.
    Source: the masks are those of MADE, Germain et al. 2015; beside a VAE Chen et al. 2017.
    """

    def __init__(
        self,
        latent_size: int = 20,
        hidden_size: int = 400,
        input_size: int = 784,
        context_size: int = 500,
    ) -> None:
        super().__init__(latent_size, hidden_size, input_size)
        self.config = {
            "latent_size": latent_size,
            "hidden_size": hidden_size,
            "input_size": input_size,
            "context_size": context_size,
        }
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
        x = _flat_images(x, self.input_size)
        h = F.relu(F.linear(x, self.to_context.weight * self.sees, self.to_context.bias))
        return F.linear(h, self.from_context.weight * self.is_seen, self.from_context.bias)

    def forward(
        self, x: Tensor, eps: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return (x_logits, mu, log_var), the logits given z and the image's own earlier pixels."""
        z_logits, mu, log_var = super().forward(x, eps, generator)
        return z_logits + self.context(x), mu, log_var

    @torch.no_grad()
    def generate(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw an image for each code, pixel by pixel: `(B, latent_size)` -> `(B, D)`, 0 or 1."""
        z_logits = self.decode(z)
        x = torch.zeros_like(z_logits)
        for i in range(self.input_size):
            logit = z_logits[:, i] + self.context(x)[:, i]
            x[:, i] = torch.bernoulli(torch.sigmoid(logit), generator=generator)
        return x


def _networks(
    latent_size: int, hidden_size: int, input_size: int, network: str, code_size: int
) -> tuple[nn.Module, nn.Module]:
    """Return (encoder to code_size numbers, decoder from latent_size numbers)."""
    for name, value in [
        ("latent_size", latent_size),
        ("hidden_size", hidden_size),
        ("input_size", input_size),
    ]:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    if network == "linear":
        return nn.Linear(input_size, code_size), nn.Linear(latent_size, input_size)
    if network == "mlp":
        return (
            nn.Sequential(
                nn.Linear(input_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, code_size)
            ),
            nn.Sequential(
                nn.Linear(latent_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, input_size)
            ),
        )
    if network == "deep":
        encoder = _deep(input_size, hidden_size, code_size)
        return encoder, _deep(latent_size, hidden_size, input_size)
    if network == "conv":
        return _conv_networks(latent_size, hidden_size, input_size, code_size)
    raise ValueError(f"network must be one of {', '.join(NETWORKS)}, got {network!r}")


def _deep(n_in: int, hidden_size: int, n_out: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(n_in, hidden_size),
        nn.Tanh(),
        nn.Linear(hidden_size, hidden_size),
        nn.Tanh(),
        nn.Linear(hidden_size, n_out),
    )


def _conv_networks(
    latent_size: int, hidden_size: int, input_size: int, code_size: int, channels: int = 16
) -> tuple[nn.Module, nn.Module]:
    side = math.isqrt(input_size)
    if side * side != input_size:
        raise ValueError(f"a convolutional network needs square images, got {input_size} pixels")
    half = (side + 1) // 2  # what a stride of 2 leaves of any side, odd ones too
    quarter = (half + 1) // 2
    features = 2 * channels * quarter * quarter
    encoder = nn.Sequential(
        nn.Unflatten(1, (1, side, side)),
        nn.Conv2d(1, channels, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(features, hidden_size),
        nn.ReLU(),
        nn.Linear(hidden_size, code_size),
    )
    # Upsampling to a given size, then convolving, works for any side and leaves no checkerboard
    # (Odena et al. 2016), which a transposed convolution does.
    decoder = nn.Sequential(
        nn.Linear(latent_size, hidden_size),
        nn.ReLU(),
        nn.Linear(hidden_size, features),
        nn.ReLU(),
        nn.Unflatten(1, (2 * channels, quarter, quarter)),
        nn.Upsample(size=(half, half)),
        nn.Conv2d(2 * channels, channels, 3, padding=1),
        nn.ReLU(),
        nn.Upsample(size=(side, side)),
        nn.Conv2d(channels, 1, 3, padding=1),
        nn.Flatten(),
    )
    return encoder, decoder


def _flat_images(x: Tensor, input_size: int) -> Tensor:
    if not x.is_floating_point():
        raise ValueError(f"images must be floats in [0, 1], got {x.dtype}: use data.to_float")
    if x.ndim < 2:
        raise ValueError(f"images come in batches, (B, ...): got shape {tuple(x.shape)}")
    flat = x.flatten(start_dim=1)
    if flat.shape[1] != input_size:
        raise ValueError(
            f"this model takes images of {input_size} pixels, "
            f"got {flat.shape[1]} (shape {tuple(x.shape)})"
        )
    return flat


def _checked_codes(z: Tensor, latent_size: int) -> Tensor:
    if z.ndim != 2 or z.shape[1] != latent_size:
        raise ValueError(f"this model's codes have shape (B, {latent_size}), got {tuple(z.shape)}")
    return z
