"""The numbers of the lessons: reconstruction, PCA, the ELBO, and how full a latent space is.

Images are uint8 `(N, side, side)`. Nothing here trains.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vae_lesson import losses
from vae_lesson.data import batches, to_float
from vae_lesson.models import VAE, reparameterize
from vae_lesson.train import mean_terms, terms_per_image

# --- codes and reconstructions --------------------------------------------------------------------


@torch.no_grad()
def posteriors(model: VAE, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return (mu, log_var) of q(z|x) for every image, each `(N, latent_size)`."""
    device = next(model.parameters()).device
    pairs = [model.encode(x) for x in batches(images.to(device), 1000, shuffle=False)]
    mu, log_var = (torch.cat(part) for part in zip(*pairs))
    return mu, log_var


@torch.no_grad()
def codes(model: nn.Module, images: Tensor) -> Tensor:
    """Return the code of every image `(N, latent_size)`: z of an autoencoder, mu of a VAE."""
    if isinstance(model, VAE):
        return posteriors(model, images)[0]
    device = next(model.parameters()).device
    return torch.cat([model.encode(x) for x in batches(images.to(device), 1000, shuffle=False)])


def reconstruction_error(model: nn.Module, images: Tensor) -> float:
    """Return the mean squared error an image (summed over pixels) of decode(code(x)).

    For a VAE z = mu, without noise, so that it compares with an autoencoder or PCA.
    """
    return mean_terms(model, images, _squared_error_from_code)[0]


def _squared_error_from_code(model, x, generator):
    code = model.encode(x)
    z = code[0] if isinstance(model, VAE) else code
    error = losses.squared_error(model.decode_mean(z), x)
    return error, torch.zeros_like(error)


# --- PCA ------------------------------------------------------------------------------------------


def fit_pca(train: Tensor):
    """Fit scikit-learn's PCA with all components to uint8 images and return it."""
    from sklearn.decomposition import PCA

    # By the covariance's eigenvectors: a second, where a full SVD of 60,000 rows takes a minute.
    return PCA(svd_solver="covariance_eigh").fit(to_float(train).cpu().numpy())


def pca_errors(pca, test: Tensor, sizes: list[int]) -> list[float]:
    """Return PCA's mean squared error an image on `test`, for each number of components."""
    x = to_float(test).cpu().numpy()
    # Components are orthonormal: what k of them miss is the length of the others' scores.
    energy = np.square(pca.transform(x)).mean(axis=0)
    total = energy.sum()
    return [float(total - energy[:k].sum()) for k in sizes]


def largest_principal_angle(a: Tensor, b: Tensor) -> float:
    """Return the largest principal angle, in degrees, between the row spaces of a and b `(k, D)`.

    0 means the same subspace, 90 that some direction of one is orthogonal to all of the other.
    """
    from scipy.linalg import subspace_angles

    a, b = (np.asarray(m.detach().cpu(), dtype=np.float64).T for m in (a, b))
    return float(np.rad2deg(subspace_angles(a, b).max()))


# --- labels from codes ----------------------------------------------------------------------------


def fit_knn(points: Tensor, labels: Tensor, n_neighbors: int = 10):
    """Fit scikit-learn's nearest-neighbour classifier to points `(N, D)` and their labels."""
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(n_neighbors).fit(points.cpu().numpy(), labels.cpu().numpy())


def knn_accuracy(knn, points: Tensor, labels: Tensor) -> float:
    """Return the fraction of points whose label the nearest-neighbour classifier reads right."""
    return float(knn.score(points.cpu().numpy(), labels.cpu().numpy()))


# --- can one sample from a latent space? ----------------------------------------------------------


class Judge(NamedTuple):
    """What `generation` measures against, made once a model by `judge`."""

    cloud: Tensor  # (N, L) codes as the decoder met them in training
    radius: float  # 95% of the test codes have a training code within it
    spread: float  # root mean square distance of the cloud from its centre
    classifier: nn.Module  # reads a class from pixels; see train.fit_classifier
    real: Tensor  # (N, F) the classifier's features of the test images


class Generation(NamedTuple):
    """How decoding a set of codes went; see `generation`."""

    frechet: float
    confidence: float
    round_trip: float
    empty: float


@torch.no_grad()
def decoder_inputs(model: nn.Module, images: Tensor, seed: int = 0) -> Tensor:
    """Return codes as the decoder meets them in training: z of an autoencoder, a draw from q(z|x)
    of a VAE. `(N, latent_size)`."""
    if not isinstance(model, VAE):
        return codes(model, images)
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    return reparameterize(*posteriors(model, images), generator=generator)


@torch.no_grad()
def judge(model: nn.Module, train: Tensor, test: Tensor, classifier: nn.Module) -> Judge:
    """Prepare `generation` for a model: its training cloud, what is near in it, the real images."""
    cloud, probe = decoder_inputs(model, train), decoder_inputs(model, test)
    radius = torch.quantile(nearest_distance(probe, cloud), 0.95).item()
    classifier = classifier.to(cloud.device)
    real = _features(classifier, to_float(test.to(cloud.device)))
    return Judge(cloud, radius, spread(cloud), classifier, real)


def spread(cloud: Tensor) -> float:
    """Return the root mean square distance of codes `(N, L)` from their centre."""
    return (cloud - cloud.mean(dim=0)).square().sum(dim=1).mean().sqrt().item()


@torch.no_grad()
def generation(model: nn.Module, z: Tensor, judge: Judge) -> Generation:
    """Measure what a decoder makes of codes z `(n, latent_size)`, n of a thousand or more.

    - frechet: the Fréchet distance between the decoded images and the test images, in the features
      of a small classifier. It is about 1 between training and test images of MNIST; it sees blur,
      and too little variety, but only means and covariances.
    - confidence: the mean over the decoded images of the classifier's largest probability. A
      classifier can be sure of nonsense, so a high value proves little; a low one is telling.
    - round_trip: the median distance from z to encode(decode(z)), over the codes' spread. A code
      that the encoder would never give comes back somewhere else.
    - empty: the fraction of z that no training code is near, where near is the distance within
      which 95% of the test images' codes find one: real images score about 0.05.
    """
    z = z.to(judge.cloud)
    images = model.decode_mean(z)
    back = model.encode(images)
    back = back[0] if isinstance(model, VAE) else back
    return Generation(
        frechet=frechet_distance(_features(judge.classifier, images), judge.real),
        confidence=judge.classifier(images).softmax(dim=1).amax(dim=1).mean().item(),
        round_trip=(back - z).norm(dim=1).median().item() / judge.spread,
        empty=(nearest_distance(z, judge.cloud) > judge.radius).float().mean().item(),
    )


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Return |m_a - m_b|² + tr(C_a + C_b - 2 (C_a C_b)^½) of two sets of features `(N, F)`.

    As usual no root is taken: it is the squared Wasserstein distance of two Gaussians with
    these means and covariances.
    Source: Dowson & Landau 1982; for images Heusel et al. 2017, eq. 6.
    """
    a, b = a.cpu().double(), b.cpu().double()  # MPS has no float64
    cov_a, cov_b = torch.atleast_2d(torch.cov(a.T)), torch.atleast_2d(torch.cov(b.T))
    # The trace of the root of C_a C_b is the sum of the roots of its eigenvalues, which are real
    # and not negative; rounding can leave small negative or complex parts.
    roots = torch.linalg.eigvals(cov_a @ cov_b).real.clamp_min(0).sqrt()
    distance = (a.mean(dim=0) - b.mean(dim=0)).square().sum() + cov_a.trace() + cov_b.trace()
    return (distance - 2 * roots.sum()).item()


def _features(classifier: nn.Sequential, images: Tensor) -> Tensor:
    return classifier[:-1](images)  # all but the last layer


def nearest_distance(points: Tensor, cloud: Tensor) -> Tensor:
    """Return each point's Euclidean distance to the nearest of the cloud. `(n, L)` -> `(n,)`."""
    # cdist goes through squared norms, which round badly far from the origin.
    centre = cloud.mean(dim=0)
    points, cloud = points - centre, cloud - centre
    # A part at a time: 10,000 × 60,000 distances at once are 2.4 GB.
    return torch.cat([torch.cdist(part, cloud).amin(dim=1) for part in points.split(500)])


@torch.no_grad()
def image_change(model: nn.Module, z: Tensor, step: float, seed: int = 0) -> Tensor:
    """Return ‖decode(z + step · u) - decode(z)‖ for a random unit vector u at each z: `(n,)`.

    How much the image changes, in pixel intensity (Euclidean), for a step of this length.
    """
    generator = torch.Generator(z.device).manual_seed(seed)
    u = torch.randn(z.shape, generator=generator, device=z.device)
    u = u / u.norm(dim=1, keepdim=True)
    return (model.decode_mean(z + step * u) - model.decode_mean(z)).norm(dim=1)


def sharpness(images: Tensor) -> float:
    """Return the mean variance of the images' Laplacian, high where grey changes within a pixel.

    Compare it with that of real images only: noise is sharp too. Images square, uint8 or in [0, 1].
    Source: a usual measure of focus, Pech-Pacheco et al. 2000.
    """
    x = to_float(images) if images.dtype == torch.uint8 else images.flatten(1)
    side = math.isqrt(x.shape[1])
    if side * side != x.shape[1] or side < 3:
        raise ValueError(f"images must be square, 3×3 or more, got {x.shape[1]} pixels")
    kernel = torch.tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]], device=x.device, dtype=x.dtype)
    edges = torch.nn.functional.conv2d(x.view(-1, 1, side, side), kernel[None, None])
    return edges.flatten(1).var(dim=1).mean().item()


# --- the ELBO and the latent dimensions -----------------------------------------------------------


class NegElbo(NamedTuple):
    """Means over images, in nats per image; neg_elbo = recon + kl."""

    recon: float
    kl: float
    neg_elbo: float


def neg_elbo(model: VAE, images: Tensor, seed: int = 0, binarisation: str = "grey") -> NegElbo:
    """Return the mean recon, KL and -ELBO over images, with one sample of z an image."""
    recon, kl = mean_terms(model, images, seed=seed, binarisation=binarisation)
    return NegElbo(recon, kl, recon + kl)


def neg_elbo_per_image(model: VAE, images: Tensor, n_samples: int = 1, seed: int = 0) -> Tensor:
    """Return the -ELBO of each image `(N,)`, in nats, as the mean over n_samples draws of z."""
    total = torch.zeros(len(images))
    for sample in range(n_samples):
        recon, kl = terms_per_image(model, images, seed=seed + sample)
        total += (recon + kl).cpu()
    return total / n_samples


def mean_kl_per_dimension(model: VAE, images: Tensor) -> Tensor:
    """Return each latent dimension's KL, the mean over images: `(latent_size,)`, in nats."""
    return losses.kl_per_dimension(*posteriors(model, images)).mean(dim=0)


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
