"""The beta translator: what a loss found in public code comes to, in nats per image.

Public code takes sums or means over pixels, latents and batch, and adds weights: each multiplies
one term only, so any such loss is a multiple of what the course minimises, recon + beta · kl.
"""

import math
from dataclasses import dataclass

from vae_lesson.arguments import check_one_of, check_over_0, check_whole
from vae_lesson.words import N_

# The variance of the Gaussian whose -log p(x|z) it is, less a constant; None for no Gaussian.
LIKELIHOODS = {
    "bernoulli": None,
    "squared error": 0.5,
    "half squared error": 1.0,
    "absolute error": None,
}


@dataclass(frozen=True)
class Loss:
    """recon_weight · recon + kl_weight · kl, as code has it; by default what the course minimises.

    likelihood: "bernoulli" is the cross-entropy (BCE); a "squared error" (x - x̂)² is a Gaussian of
    variance ½ less a constant, a "half squared error" ½(x - x̂)² one of variance 1, with a weight
    1/σ² one of variance σ²; "absolute error" |x - x̂| is a Laplace of scale 1, likewise.
    pixels, latents: "sum" or "mean", of recon over pixels, of the KL over latent dimensions.
    recon_batch, kl_batch: "sum" or "mean" over the batch. PyTorch's `reduction="mean"` is the mean
    over pixels and batch, "sum" the sum over both.
    n_pixels: the numbers in an image, 784 or 64 · 64 · 3. The sizes count where a sum is not a sum.

    Raises: ValueError for unknown names, sizes under 1, a weight that makes no ELBO.
    """

    likelihood: str = "bernoulli"
    pixels: str = "sum"
    latents: str = "sum"
    recon_batch: str = "mean"
    kl_batch: str = "mean"
    recon_weight: float = 1.0
    kl_weight: float = 1.0
    n_pixels: int = 784
    latent_size: int = 20
    batch_size: int = 128

    def __post_init__(self) -> None:
        check_one_of("likelihood", self.likelihood, LIKELIHOODS)
        for name in ("pixels", "latents", "recon_batch", "kl_batch"):
            check_one_of(name, getattr(self, name), ("sum", "mean"))
        for name in ("n_pixels", "latent_size", "batch_size"):
            check_whole(name, getattr(self, name))
        check_over_0("recon_weight", self.recon_weight)
        if not 0 <= self.kl_weight < math.inf:
            raise ValueError(
                f"kl_weight must be 0 or more and finite, got {self.kl_weight}: the KL is added to "
                "what is minimised, and with a minus sign training drives it up without end"
            )


def effective_beta(loss: Loss) -> float:
    """Return the beta of recon + beta · kl, in nats per image, whose gradient has this direction.

    recon is -log p(x|z) under the likelihood as written, so beta depends on it: half the squared
    error with beta 1 has the gradient direction of the squared error with beta 2.

    Source: Higgins et al. 2017, eq. 4.
    """
    recon, kl = loss.recon_weight, loss.kl_weight
    # What divides one term multiplies the other here: 1 / (1 / 784) is 784.0000000000001.
    kl *= loss.n_pixels if loss.pixels == "mean" else 1
    recon *= loss.latent_size if loss.latents == "mean" else 1
    recon *= loss.batch_size if loss.recon_batch == "sum" else 1
    kl *= loss.batch_size if loss.kl_batch == "sum" else 1
    return kl / recon


def noise_variance_at_beta_1(loss: Loss) -> float | None:
    """Return the Gaussian noise variance that gives the same gradient direction with beta = 1.

    A weight w on (x - x̂)² beside a KL of weight 1 is a Gaussian of variance 1/(2w). None for
    Bernoulli and absolute error, which have no such variance; 0 where the KL has no weight.

    Source: Rybkin et al. 2021.
    """
    variance = LIKELIHOODS[loss.likelihood]
    return None if variance is None else effective_beta(loss) * variance


# Each read in its file, at the commit or in the year given. Where a size plays no part in beta, it
# is the file's too. Images are scaled to [0, 1] in all of them.
PUBLIC_SETTINGS: dict[str, Loss] = {
    N_("pytorch/examples, vae/main.py (77f55b9): BCE and KL summed"): Loss(
        recon_batch="sum", kl_batch="sum"
    ),
    N_("the same file in October 2017 (ab7cb38): BCE mean, KL summed / (128 · 784)"): Loss(
        pixels="mean", kl_batch="sum", kl_weight=1 / (128 * 784)
    ),
    N_(
        "keras, variational_autoencoder.py, 2016 (f6bcaff): BCE mean of 784 pixels, KL summed"
    ): Loss(pixels="mean", latent_size=2, batch_size=100),
    N_("keras, variational_autoencoder_deconv.py (309f586): 784 · BCE mean, KL mean of 2"): Loss(
        pixels="mean", latents="mean", recon_weight=784, latent_size=2, batch_size=100
    ),
    N_("sksq96/pytorch-vae, vae-cnn.ipynb (14ce227): BCE summed, KL mean of 32 · 32 images"): Loss(
        latents="mean", recon_batch="sum", n_pixels=64 * 64 * 3, latent_size=32, batch_size=32
    ),
    N_("keras, making_new_layers… guide (3422977): squared error mean of 784, KL mean of 32"): Loss(
        "squared error", pixels="mean", latents="mean", latent_size=32, batch_size=64
    ),
    N_("PyTorch-VAE, vae.yaml (a6896b9): squared error mean of 12,288, 0.00025 · KL summed"): Loss(
        "squared error",
        pixels="mean",
        kl_weight=0.00025,
        n_pixels=64 * 64 * 3,
        latent_size=128,
        batch_size=64,
    ),
    N_(
        "lightning-bolts, its VAE (34958a8): squared error mean of 3,072, 0.1 · KL mean of 256"
    ): Loss(
        "squared error",
        pixels="mean",
        latents="mean",
        kl_weight=0.1,
        n_pixels=32 * 32 * 3,
        latent_size=256,
        batch_size=256,
    ),
}
