"""Can one sample from a latent space? Measures of what a decoder makes of given codes."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vae_lesson.data import exact, to_float
from vae_lesson.evaluate import decoder_inputs


class Reference(NamedTuple):
    """What `measure` compares with; see `make_reference`."""

    cloud: Tensor  # (N, L) codes as the decoder met them in training
    radius: float  # 95% of the test codes have a training code within it
    classifier: nn.Module  # looks at images; see `fit_classifier`
    real: Tensor  # (N, F) the classifier's features of the test images


class Generation(NamedTuple):
    """How decoding a set of codes went; see `measure`."""

    frechet: float
    empty: float


@torch.no_grad()
def make_reference(
    model: nn.Module, train: Tensor, test: Tensor, classifier: nn.Module
) -> Reference:
    """Prepare `measure` for a model: its training cloud, what is near in it, the real images."""
    cloud, probe = decoder_inputs(model, train), decoder_inputs(model, test)
    radius = torch.quantile(nearest_distance(probe, cloud), 0.95).item()
    classifier = classifier.to(cloud.device)
    real = features(classifier, to_float(test.to(cloud.device)))
    return Reference(cloud, radius, classifier, real)


@torch.no_grad()
def measure(model: nn.Module, z: Tensor, reference: Reference) -> Generation:
    """Measure what a decoder makes of codes z `(n, latent_size)`, n of a thousand or more.

    - frechet: the Fréchet distance between the decoded images and the test images, in the features
      of a small classifier. It sees blur, and too little variety, but only means and covariances.
      Its floor are the codes of training images, chosen at random: MNIST's alternate between thin
      and thick strokes.
    - empty: the fraction of z that no training code is near, where near is the distance within
      which 95% of the test images' codes find one. Copies, which the Fréchet distance takes for
      perfect, score 0; so do codes in the middle of a wide cloud. To know a copier, look also how
      near its images are to training images (`nearest_distance`).
    """
    z = z.to(reference.cloud)
    images = model.decode_mean(z)
    return Generation(
        frechet=frechet_distance(features(reference.classifier, images), reference.real),
        empty=(nearest_distance(z, reference.cloud) > reference.radius).float().mean().item(),
    )


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Return |m_a - m_b|² + tr(C_a + C_b - 2 (C_a C_b)^½) of two sets of features `(N, F)`.

    It is the squared Wasserstein distance of two Gaussians with these means and covariances.
    Source: Dowson & Landau 1982; for images Heusel et al. 2017, eq. 6.
    """
    a, b = exact(a), exact(b)
    cov_a, cov_b = torch.atleast_2d(torch.cov(a.T)), torch.atleast_2d(torch.cov(b.T))
    # The trace of the root of C_a C_b is the sum of the roots of its eigenvalues, which are real
    # and not negative; rounding can leave small negative or complex parts.
    roots = torch.linalg.eigvals(cov_a @ cov_b).real.clamp_min(0).sqrt()
    distance = (a.mean(dim=0) - b.mean(dim=0)).square().sum() + cov_a.trace() + cov_b.trace()
    return (distance - 2 * roots.sum()).item()


@torch.no_grad()
def precision_recall(drawn: Tensor, real: Tensor, k: int = 3) -> tuple[float, float]:
    """Return (precision, recall) of two sets of features `(n, F)`, of equal n.

    A set's region is the union of balls, around each of its points, that reach its k-th nearest
    neighbour. Precision is the share of drawn points in the region of the real ones, fidelity;
    recall the share of real points in the region of the drawn ones, variety. Both depend on n:
    real images against others give the ceiling.

    Raises: ValueError for sets of different sizes, or of no more than k points.
    Source: Kynkäänniemi et al. 2019.
    """
    if not len(drawn) == len(real) > k:
        raise ValueError(f"two sets of equal size, over k = {k}: got {len(drawn)} and {len(real)}")
    return _share_within(drawn, real, k), _share_within(real, drawn, k)


def _share_within(points: Tensor, cloud: Tensor, k: int) -> float:
    """Return the share of points in the region of a cloud (see `precision_recall`)."""
    parts = cloud.split(500)  # all distances of 5,000 are 100 MB
    own = [torch.cdist(part, cloud).kthvalue(k + 1).values for part in parts]  # the 1st is itself
    radius = torch.cat(own)
    within = [(torch.cdist(part, cloud) <= radius).any(dim=1) for part in points.split(500)]
    return torch.cat(within).float().mean().item()


def features(classifier: nn.Sequential, images: Tensor) -> Tensor:
    """Return what a classifier of `fit_classifier` makes of images before its last layer."""
    return classifier[:-1](images)


def nearest_distance(points: Tensor, cloud: Tensor) -> Tensor:
    """Return each point's Euclidean distance to the nearest of the cloud. `(n, L)` -> `(n,)`."""
    # ‖p - c‖² = ‖p‖² - 2 p·c + ‖c‖², which rounds badly far from the origin.
    centre = cloud.mean(dim=0)
    points, cloud = points - centre, cloud - centre
    norms = cloud.square().sum(dim=1)
    # A part at a time, small enough for the cache: all 10,000 × 60,000 distances are 2.4 GB.
    parts = [torch.addmm(norms, p, cloud.T, alpha=-2).amin(dim=1) for p in points.split(64)]
    return (torch.cat(parts) + points.square().sum(dim=1)).clamp_min(0).sqrt()


def fit_classifier(images: Tensor, labels: Tensor, epochs: int = 2, seed: int = 0) -> nn.Sequential:
    """Train a small classifier on uint8 images, for MNIST 784-128-10: the instrument of `measure`.

    Its weights come from `seed` alone, and the global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the weights are made on the CPU
        classifier = nn.Sequential(
            nn.Linear(images[0].numel(), 128), nn.ReLU(), nn.Linear(128, int(labels.max()) + 1)
        ).to(images.device)
    generator = torch.Generator(images.device).manual_seed(seed)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-2)
    n_steps = epochs * math.ceil(len(images) / 256)
    to_zero = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, n_steps)
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator, device=images.device)
        for index in order.split(256):
            logits = classifier(to_float(images.index_select(0, index)))
            loss = nn.functional.cross_entropy(logits, labels[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            to_zero.step()
    return classifier.eval()
