"""The numbers of the lessons: codes and reconstructions, the ELBO, active units, the ROC curve.

Images are uint8, `(N, side, side)` or `(N, 3, side, side)`. Nothing here trains.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vae_lesson.data import as_inputs, batches, rows_at_once, to_float
from vae_lesson.losses import Terms, check_terms, default_terms, kl_per_dimension, squared_error
from vae_lesson.models import VAE, reparameterize

# --- codes and reconstructions --------------------------------------------------------------------


@torch.no_grad()
def posteriors(model: VAE, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return (mu, log_var) of q(z|x) for every image, each `(N, latent_size)`."""
    device = next(model.parameters()).device
    pairs = [model.encode(x) for x in batches(images, device=device)]
    mu, log_var = (torch.cat(part) for part in zip(*pairs))
    return mu, log_var


@torch.no_grad()
def codes(model: nn.Module, images: Tensor) -> Tensor:
    """Return the code of every image `(N, latent_size)`: z of an autoencoder, mu of a VAE."""
    if isinstance(model, VAE):
        return posteriors(model, images)[0]
    device = next(model.parameters()).device
    return torch.cat([model.encode(x) for x in batches(images, device=device)])


@torch.no_grad()
def decoder_inputs(model: nn.Module, images: Tensor, seed: int = 0) -> Tensor:
    """Return codes as the decoder meets them in training: z of an autoencoder, a draw from q(z|x)
    of a VAE. `(N, latent_size)`."""
    if not isinstance(model, VAE):
        return codes(model, images)
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    return reparameterize(*posteriors(model, images), generator=generator)


def reconstruction_error(model: nn.Module, images: Tensor) -> float:
    """Return the mean squared error an image (summed over pixels) of decode(code(x)).

    For a VAE z = mu, without noise, so that it compares with an autoencoder or PCA.
    """

    def terms(model, x, generator):
        code = model.encode(x)
        z = code[0] if isinstance(model, VAE) else code
        return {"squared error": squared_error(model.decode_mean(z), x)}

    return means_of_terms(model, images, terms=terms)["squared error"]


def pca_errors(pca, test: Tensor, sizes: list[int]) -> list[float]:
    """Return the mean squared error an image on `test` of scikit-learn's PCA, for each number of
    components."""
    x = to_float(test).cpu().numpy()
    # Components are orthonormal: what k of them miss is the length of the others' scores.
    energy = np.square(pca.transform(x)).mean(axis=0)
    total = energy.sum()
    return [float(total - energy[:k].sum()) for k in sizes]


# --- the ELBO and the latent dimensions -----------------------------------------------------------


class MeanTerms(NamedTuple):
    """Means over images, in nats per image; neg_elbo = recon + kl."""

    recon: float
    kl: float
    neg_elbo: float


@torch.no_grad()
def terms_per_image(
    model: nn.Module,
    *tensors: Tensor,
    terms: Terms | None = None,
    seed: int = 0,
    binarisation: str = "grey",
) -> dict[str, Tensor]:
    """Return each of the terms that `fit` would minimise, for every image: {name: `(N,)`}.

    tensors: those of `fit`: uint8 images, and what goes with them. The noise is that of the seed.
    """
    terms = terms or default_terms(model)
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    found: dict[str, list[Tensor]] = {}
    for parts in zip(*(tensor.split(rows_at_once(tensors[0])) for tensor in tensors)):
        inputs = as_inputs([part.to(device) for part in parts], binarisation, generator)
        named = terms(model, *inputs, generator=generator)
        check_terms(named, len(inputs[0]))
        for name, values in named.items():
            found.setdefault(name, []).append(values)
    return {name: torch.cat(values) for name, values in found.items()}


def means_of_terms(model: nn.Module, *tensors: Tensor, **options) -> dict[str, float]:
    """Return the mean over the images of each of the `terms_per_image`."""
    return {n: v.mean().item() for n, v in terms_per_image(model, *tensors, **options).items()}


def mean_terms(model: nn.Module, *tensors: Tensor, **options) -> MeanTerms:
    """Return the means over the images of a VAE's two terms, and their sum."""
    means = means_of_terms(model, *tensors, **options)
    return MeanTerms(means["recon"], means["kl"], means["recon"] + means["kl"])


def mean_kl_per_dimension(model: VAE, images: Tensor) -> Tensor:
    """Return each latent dimension's KL, the mean over images: `(latent_size,)`, in nats."""
    return kl_per_dimension(*posteriors(model, images)).mean(dim=0)


def active_units(mu: Tensor, threshold: float = 0.01) -> Tensor:
    """Return which dimensions carry information: Var_x(mu_j) > threshold. `(N, L)` -> `(L,)` bool.

    Source: Burda et al. 2016, section 5.2.
    """
    return mu.var(dim=0) > threshold


def roc(normal: Tensor, anomalous: Tensor) -> tuple[np.ndarray, np.ndarray, float]:
    """Return (false positive rate, true positive rate, area) of a score that is higher for
    anomalies. An area of 0.5 is a coin, 1 a perfect detector, under 0.5 worse than a coin."""
    from sklearn.metrics import roc_auc_score, roc_curve

    scores = torch.cat([normal, anomalous]).cpu().numpy()
    is_anomaly = np.r_[np.zeros(len(normal)), np.ones(len(anomalous))]
    false_positive, true_positive, _ = roc_curve(is_anomaly, scores)
    return false_positive, true_positive, float(roc_auc_score(is_anomaly, scores))
