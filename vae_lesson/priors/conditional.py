"""A VAE that is told the label: q(z|x, y) and p(x|z, y). You choose the digit, z the rest of it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae_lesson.data import to_float
from vae_lesson.losses import bernoulli_nll, kl_standard_normal
from vae_lesson.models import networks, reparameterize


def one_hot(labels: Tensor, n_classes: int) -> Tensor:
    """Return labels as rows of zeros with a single 1: `(B,)` -> floats `(B, n_classes)`."""
    return F.one_hot(labels, n_classes).float()


def conditional_terms(
    model: nn.Module, x: Tensor, labels: Tensor, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Return the two terms of a bound on -log p(x|y), with one sample of z an image.

    recon = -log p(x|z, y) and kl = KL(q(z|x, y) ‖ N(0, I)), each `(B,)`, in nats per image.
    model is a `ConditionalVAE`, or what has its `n_classes`, `encode` and `decode`.
    Source: Sohn et al. 2015, section 4, with a prior that does not see the label.
    """
    y = one_hot(labels, model.n_classes)
    mu, log_var = model.encode(x, y)
    x_logits = model.decode(reparameterize(mu, log_var, generator=generator), y)
    return {"recon": bernoulli_nll(x_logits, x), "kl": kl_standard_normal(mu, log_var)}


@torch.no_grad()
def decoder_inputs(model: nn.Module, images: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
    """Draw a code of each uint8 image and its label from q(z|x, y): `(N, latent_size)`."""
    mu, log_var = model.encode(to_float(images), one_hot(labels, model.n_classes))
    return reparameterize(mu, log_var, generator=torch.Generator(mu.device).manual_seed(seed))


@torch.no_grad()
def decode_mean(model: nn.Module, z: Tensor, labels: Tensor) -> Tensor:
    """Return E[x|z, y] = sigmoid(logits): `(N, latent_size)` and labels `(N,)` -> `(N, pixels)`."""
    return torch.sigmoid(model.decode(z, one_hot(labels, model.n_classes)))


def fit_priors(z: Tensor, labels: Tensor, n_normals: int, seed: int = 0) -> list:
    """Fit p(z|y) to codes `(N, latent_size)`: scikit-learn's mixture of n_normals normal
    distributions for each class, of fewer where it has fewer codes."""
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    z, labels, priors = z.cpu().double(), labels.cpu(), []
    with threadpool_limits(limits=1):  # for such small fits a second thread costs ten times as much
        for c in range(int(labels.max()) + 1):
            of_class = z[labels == c]
            k = min(n_normals, len(of_class))
            mixture = GaussianMixture(k, reg_covar=1e-3, random_state=seed)
            priors.append(mixture.fit(of_class))
    return priors


def draw_codes(priors: list, n: int, seed: int = 0) -> Tensor:
    """Draw n codes of each class from `fit_priors`, the classes in turn: 0, 1, …, 0, 1, …"""
    z = torch.stack([torch.from_numpy(prior.sample(n)[0]).float() for prior in priors], dim=1)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return z[order].flatten(0, 1)  # sample had sorted them by the mixture's parts


class ConditionalVAE(nn.Module):
    """x, y -> q(z|x, y) = N(mu, σ²) -> z, y -> p(x|z, y): both networks are told the label.

    y is one-hot, `(B, n_classes)`. It is no `VAE`: it cannot decode a code without a label.
    Source: Kingma et al. 2014, M2 (with the labels known); Sohn et al. 2015.
    """

    def __init__(
        self,
        latent_size: int = 20,
        hidden_size: int = 400,
        n_classes: int = 10,
        n_pixels: int = 784,
    ) -> None:
        super().__init__()
        self.latent_size, self.n_classes = latent_size, n_classes
        self.input_size = n_pixels
        self.encoder, _ = networks(
            latent_size, hidden_size, (1, 1, n_pixels + n_classes), "mlp", heads=2
        )
        _, self.decoder = networks(
            latent_size + n_classes, hidden_size, (1, 1, n_pixels), "mlp", heads=1
        )

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return (mu, log_var) of q(z|x, y). Shapes: x `(B, pixels)` -> two `(B, latent_size)`."""
        mu, log_var = self.encoder(torch.cat([x, y], dim=1)).chunk(2, dim=1)
        return mu, log_var

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        """Return the logits of p(x|z, y): `(B, latent_size)` -> `(B, pixels)`."""
        return self.decoder(torch.cat([z, y], dim=1))


class Given(nn.Module):
    """A `ConditionalVAE` as a VAE of images whose labels are known, for `likelihood.importance`.

    labels: those of the images that go in, `(B,)`.
    """

    def __init__(self, model: ConditionalVAE, labels: Tensor) -> None:
        super().__init__()
        self.model, self.y = model, one_hot(labels, model.n_classes)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (mu, log_var) of q(z|x, y) for these images, all of them: two of `(B, L)`."""
        return self.model.encode(x, self.y)

    def logits(self, z: Tensor, x: Tensor) -> Tensor:
        """Return the logits of p(x|z, y) for K codes an image: `(K · B, L)` -> `(K · B, D)`."""
        return self.model.decode(z, self.y.repeat(len(z) // len(x), 1))


class LabelMoved(nn.Module):
    """A `ConditionalVAE`'s decoder of codes `(z, k)`: k, a whole number, moves the label on."""

    def __init__(self, model: ConditionalVAE, label: int) -> None:
        super().__init__()
        self.model, self.label, self.latent_size = model, label, model.latent_size + 1

    def decode_mean(self, codes: Tensor) -> Tensor:
        """Return E[x|z, label + k]: `(B, latent_size + 1)` -> images `(B, pixels)`."""
        moved = (self.label + codes[:, -1].round().long()) % self.model.n_classes
        return decode_mean(self.model, codes[:, :-1], moved)
