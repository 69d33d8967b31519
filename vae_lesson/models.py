"""The networks: an autoencoder and a variational autoencoder, linear, MLP or convolutional.

Images go in flat or as pictures, floats in [0, 1], and come out flat, `(B, input_size)`: row by
row, in colour one channel after the other. Decoders return logits; `decode_mean` turns them into
pixel intensities. No loss and no training here.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from vae_lesson.arguments import check_one_of, check_same_shape, check_shape, check_whole

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
    check_same_shape(mu=mu, log_var=log_var, eps=eps)
    return mu + eps * torch.exp(0.5 * log_var)


class EncoderDecoder(nn.Module):
    """What both models are made of: two networks, and a look at what goes into them.

    `network="linear"` has one matrix each way, no hidden layer and no sigmoid; `"mlp"` has one
    hidden layer each way, `"deep"` two; `"conv"` first halves the image by convolutions, until no
    side is over 7. `shape` is that of an image, (channels, height, width). The defaults are the
    article's network, 784-400-20-400-784 with ReLU.
    """

    heads = 1  # numbers that the encoder gives for each latent dimension

    def __init__(
        self,
        latent_size: int = 20,
        hidden_size: int = 400,
        shape: tuple[int, int, int] = (1, 28, 28),
        network: str = "mlp",
    ) -> None:
        super().__init__()
        sizes = {"latent_size": latent_size, "hidden_size": hidden_size, "shape": shape}
        self.config = sizes | {"network": network}
        self.encoder, self.decoder = networks(**self.config, heads=self.heads)
        self.latent_size, self.input_size, self.network = latent_size, math.prod(shape), network

    def decode(self, z: Tensor) -> Tensor:
        """Return the decoder's output, the logits: `(B, latent_size)` -> `(B, input_size)`."""
        if z.ndim != 2 or z.shape[1] != self.latent_size:
            wanted = f"(B, {self.latent_size})"
            raise ValueError(f"this model's codes have shape {wanted}, got {tuple(z.shape)}")
        return self.decoder(z)

    def checked(self, x: Tensor) -> Tensor:
        """Return the images flat, `(B, input_size)`; ValueError if they are not what goes in."""
        if not x.is_floating_point():
            raise ValueError(f"images must be floats in [0, 1], got {x.dtype}: use data.to_float")
        if x.ndim < 2:
            raise ValueError(f"images come in batches, (B, ...): got shape {tuple(x.shape)}")
        flat = x.flatten(start_dim=1)
        if flat.shape[1] != self.input_size:
            raise ValueError(
                f"this model takes images of {self.input_size} pixels, "
                f"got {flat.shape[1]} (shape {tuple(x.shape)})"
            )
        return flat


class Autoencoder(EncoderDecoder):
    """x -> z -> x̂: a code z of `latent_size` numbers, and the image that the decoder makes of it.

    With `network="linear"`, trained on squared error, it is PCA.
    """

    def encode(self, x: Tensor) -> Tensor:
        """Return the code z of each image. Shapes: x `(B, ...)` -> `(B, latent_size)`."""
        return self.encoder(self.checked(x))

    def decode_mean(self, z: Tensor) -> Tensor:
        """Return the decoded images: `(B, latent_size)` -> `(B, input_size)`."""
        x_logits = self.decode(z)
        return x_logits if self.network == "linear" else torch.sigmoid(x_logits)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (x_hat, z): the reconstruction `(B, input_size)` and the code."""
        z = self.encode(x)
        return self.decode_mean(z), z


class VAE(EncoderDecoder):
    """x -> q(z|x) = N(mu, σ²) -> z -> p(x|z): the encoder gives a cloud instead of a point.

    Source: Kingma & Welling 2014, section 3 and appendix C.
    """

    heads = 2  # mu and log_var, from one matrix: the same function as two layers, in one product

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (mu, log_var) of q(z|x). Shapes: x `(B, ...)` -> two of `(B, latent_size)`."""
        mu, log_var = self.encoder(self.checked(x)).chunk(2, dim=1)
        return mu, log_var

    def decode_mean(self, z: Tensor) -> Tensor:
        """Return E[x|z] = sigmoid(logits): `(B, latent_size)` -> `(B, input_size)`."""
        return torch.sigmoid(self.decode(z))

    def forward(
        self, x: Tensor, eps: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return (x_logits, mu, log_var), with one sample z ~ q(z|x) an image."""
        mu, log_var = self.encode(x)
        z = reparameterize(mu, log_var, eps, generator)
        return self.logits(z, x), mu, log_var

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Decode n draws z ~ N(0, I): the encoder is not used. Returns images `(n, input_size)`."""
        check_whole("n", n)
        device = next(self.parameters()).device
        z = torch.randn((n, self.latent_size), generator=generator, device=device)
        return self.generate(z, generator)

    def logits(self, z: Tensor, x: Tensor) -> Tensor:
        """Return the parameters of p(x|z), for images x: those of z alone. `(B, input_size)`."""
        return self.decode(z)

    def generate(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return an image of each code, here E[x|z]: `(B, latent_size)` -> `(B, input_size)`."""
        return self.decode_mean(z)


def networks(
    latent_size: int, hidden_size: int, shape: tuple[int, int, int], network: str, heads: int
) -> tuple[nn.Module, nn.Module]:
    """Return (encoder to heads · latent_size numbers, decoder from latent_size numbers)."""
    check_whole("latent_size", latent_size)
    check_whole("hidden_size", hidden_size)
    check_shape(shape)
    check_one_of("network", network, NETWORKS)
    code_size, input_size = heads * latent_size, math.prod(shape)
    if network == "linear":
        return nn.Linear(input_size, code_size), nn.Linear(latent_size, input_size)
    if network == "conv":
        return _conv_networks(latent_size, hidden_size, shape, code_size)
    hidden, activation = (
        ([hidden_size], nn.ReLU) if network == "mlp" else (2 * [hidden_size], nn.Tanh)
    )
    return (
        _mlp([input_size, *hidden, code_size], activation),
        _mlp([latent_size, *hidden, input_size], activation),
    )


def convolves(model: nn.Module) -> bool:
    """Return whether there is a convolution in it."""
    return any(isinstance(part, nn.Conv2d) for part in model.modules())


def _mlp(sizes: list[int], activation: type[nn.Module]) -> nn.Sequential:
    """Return linear layers between these sizes, an activation after each but the last."""
    layers = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), activation()]
    return nn.Sequential(*layers[:-1])


def _conv_networks(
    latent_size: int, hidden_size: int, shape: tuple[int, int, int], code_size: int
) -> tuple[nn.Module, nn.Module]:
    channels, *size = shape
    sizes, widths = [size], [channels]
    while len(sizes) == 1 or max(sizes[-1]) > 7:
        sizes.append([(length + 1) // 2 for length in sizes[-1]])  # of odd ones too
        widths.append(min(32 * 2 ** (len(sizes) - 2), 128))
    features = widths[-1] * math.prod(sizes[-1])
    encoder = [nn.Unflatten(1, tuple(shape))]
    for n_in, n_out in pairwise(widths):
        encoder += [nn.Conv2d(n_in, n_out, 3, stride=2, padding=1), *_normalised(n_out)]
    encoder += [nn.Flatten(), *_mlp([features, hidden_size, code_size], nn.ReLU)]
    decoder = [*_mlp([latent_size, hidden_size, features], nn.ReLU), nn.ReLU()]
    decoder += [nn.Unflatten(1, (widths[-1], *sizes[-1]))]
    # Upsampling to a given size, then convolving, works for any side and leaves no checkerboard
    # (Odena et al. 2016), which a transposed convolution does.
    for n_in, n_out, size in zip(widths[:0:-1], widths[-2::-1], sizes[-2::-1]):
        decoder += [nn.Upsample(size=tuple(size)), nn.Conv2d(n_in, n_out, 3, padding=1)]
        decoder += _normalised(n_out)
    return nn.Sequential(*encoder), nn.Sequential(*decoder[:-2], nn.Flatten())


def _normalised(n_channels: int) -> list[nn.Module]:
    """Return what follows a convolution: without a norm the default rate is too high for it. Of
    each image by itself (Wu & He 2018), so that no image's loss depends on its batch."""
    return [nn.GroupNorm(math.gcd(8, n_channels), n_channels), nn.ReLU()]
