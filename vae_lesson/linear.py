"""A VAE that can be solved exactly: linear decoder, Gaussian noise (probabilistic PCA).

The model is z ~ N(0, I), x|z ~ N(W z + mean, variance · I). Its log p(x), its posterior p(z|x), its
ELBO for any diagonal q, its best decoder and the price of a diagonal q all have closed forms, so
whatever is said of a VAE can be checked here to the last digit.

The closed forms are computed in float64 on the CPU, since a gap is a small difference of large
numbers. W has shape `(D, L)`: D pixels, L latent dimensions. A `LinearGaussian` unpacks into their
arguments: `log_marginal(x, *ppca(x, 5))`. Training a `LinearVAE` is in float32, as for any model.

Sources: Tipping & Bishop 1999; Lucas et al. 2019.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vae_lesson import losses
from vae_lesson.models import VAE, reparameterize


class LinearGaussian(NamedTuple):
    """The model x|z ~ N(W z + mean, variance · I) with z ~ N(0, I), in float64."""

    W: Tensor  # (D, L)
    mean: Tensor  # (D,)
    variance: float  # of the noise, the same for every pixel


# --- the best decoder -----------------------------------------------------------------------------


def principal_axes(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean of x, the eigenvalues of its covariance (largest first), the eigenvectors.

    The covariance is 1/N sum_n (x_n - mean)(x_n - mean)ᵀ: N as in maximum likelihood, not N - 1.

    Shapes: x `(N, D)`, floats -> `(D,)`, `(D,)`, `(D, D)` with an eigenvector a column.
    Raises: ValueError for another shape, fewer than two rows, or x that is not floats.
    """
    if not x.is_floating_point():
        raise ValueError(f"x must be floats, got {x.dtype}: use data.to_float")
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"x must be (N, D) with N of 2 or more, got shape {tuple(x.shape)}")
    x = _exact(x)
    mean = x.mean(dim=0)
    covariance = (x - mean).T @ (x - mean) / len(x)
    eigenvalues, eigenvectors = torch.linalg.eigh(covariance)  # smallest first
    # Rounding can leave an eigenvalue of 0 a little below it.
    return mean, eigenvalues.flip(0).clamp_min(0), eigenvectors.flip(1)


def ppca(x: Tensor, latent_size: int) -> LinearGaussian:
    """Return the model of highest likelihood: W = U (Λ - variance · I)^½, a mean, a variance.

    U and Λ are the `latent_size` leading eigenvectors and eigenvalues of the covariance of x, and
    the variance of the noise is the mean of the eigenvalues that are left out.

    Shapes: x `(N, D)`, floats -> W `(D, latent_size)`, mean `(D,)`.
    Raises: ValueError for a latent_size that is not in 1 … D - 1, or x that fits with no noise.
    Source: Tipping & Bishop 1999, eq. 7 and 8 (with R = I).
    """
    _, eigenvalues, _ = principal_axes(x)
    _check_latent_size(latent_size, len(eigenvalues) - 1)
    variance = eigenvalues[latent_size:].mean().item()
    if variance <= 1e-12 * eigenvalues[0].item():
        raise ValueError(
            f"x varies in no more than {latent_size} directions, so that the noise would have no "
            "variance: take a smaller latent_size"
        )
    return optimal_at(x, latent_size, variance)


def optimal_at(x: Tensor, latent_size: int, variance: float, beta: float = 1.0) -> LinearGaussian:
    """Return the best decoder at a fixed noise: column j of W is u_j √(λ_j - beta · variance).

    Where λ_j <= beta · variance the column is 0: dimension j is dead, whatever the training. This
    W, with its best encoder (`mean_field` with the variance beta · variance), is the global minimum
    of recon + beta · kl. For, divided by beta, that sum is -ELBO of a model whose noise variance is
    beta · variance, but for a constant.

    Where the noise is learned too, its variance goes with beta: it ends at the sum of the unused
    eigenvalues over D - beta · k, with k dimensions used (`ppca` has beta = 1).

    Shapes: x `(N, D)`, floats -> W `(D, latent_size)`, mean `(D,)`.
    Raises: ValueError for a latent_size not in 1 … D, or a variance or beta that is not over 0.
    Source: Tipping & Bishop 1999, appendix A; for beta = 1 and VAEs Lucas et al. 2019, section 4.
    """
    mean, eigenvalues, eigenvectors = principal_axes(x)
    _check_latent_size(latent_size, len(eigenvalues))
    _check_over_0("variance", variance)
    _check_over_0("beta", beta)
    lengths = (eigenvalues[:latent_size] - beta * variance).clamp_min(0).sqrt()
    return LinearGaussian(eigenvectors[:, :latent_size] * lengths, mean, float(variance))


def rotate(W: Tensor, degrees: float) -> Tensor:
    """Return W with its first two columns turned into each other by an angle: W R, with RRᵀ = I.

    The model stays the same, since W R (W R)ᵀ = W Wᵀ, but the posterior's axes turn.

    Shapes: W `(D, L)` with L of 2 or more -> `(D, L)`.
    """
    W = _checked_weights(W)
    if W.shape[1] < 2:
        raise ValueError(f"W needs two columns or more to turn, got shape {tuple(W.shape)}")
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    a, b = W[:, :1], W[:, 1:2]
    return torch.cat([cos * a + sin * b, cos * b - sin * a, W[:, 2:]], dim=1)


def random_rotation(size: int, generator: torch.Generator | None = None) -> Tensor:
    """Return a random orthogonal matrix `(size, size)` in float64, all equally likely.

    Source: Mezzadri 2007.
    """
    q, r = torch.linalg.qr(torch.randn((size, size), generator=generator, dtype=torch.float64))
    return q * r.diagonal().sign()  # else the signs would depend on how QR is done


# --- the exact likelihood and posterior -----------------------------------------------------------


def log_marginal(x: Tensor, W: Tensor, mean: Tensor, variance: float) -> Tensor:
    """Return log p(x) = log N(x; mean, W Wᵀ + variance · I), what the ELBO is a bound of.

    With M = WᵀW + variance · I only L × L matrices are needed.

    Shapes: x `(N, D)`, W `(D, L)`, mean `(D,)` -> `(N,)`. Units: nats per image.
    Raises: ValueError for shapes that do not fit, or a variance that is not over 0.
    Source: Tipping & Bishop 1999, section 3; Woodbury's identity.
    """
    x, W, mean, variance = _checked(x, W, mean, variance)
    n_pixels, latent_size = W.shape
    M = W.T @ W + variance * torch.eye(latent_size, dtype=W.dtype)
    centred = x - mean
    # rᵀ C⁻¹ r as |r - W z|² / variance + |z|², at the z that is the least: without the
    # cancellation that Woodbury's difference of two large numbers would have.
    z = torch.linalg.solve(M, W.T @ centred.T).T  # (N, L)
    distance = (centred - z @ W.T).square().sum(dim=1) / variance + z.square().sum(dim=1)
    log_det = torch.logdet(M) + (n_pixels - latent_size) * variance.log()
    return -0.5 * (n_pixels * math.log(2 * math.pi) + log_det + distance)


def posterior(x: Tensor, W: Tensor, mean: Tensor, variance: float) -> tuple[Tensor, Tensor]:
    """Return the true p(z|x) = N(mu, covariance): M⁻¹Wᵀ(x - mean) and variance · M⁻¹.

    Here M = WᵀW + variance · I. The covariance is the same for every x, and is diagonal only if
    the columns of W are orthogonal.

    Shapes: x `(N, D)`, W `(D, L)`, mean `(D,)` -> mu `(N, L)`, covariance `(L, L)`.
    Raises: ValueError for shapes that do not fit, or a variance that is not over 0.
    Source: Tipping & Bishop 1999, section 3.
    """
    x, W, mean, variance = _checked(x, W, mean, variance)
    M = W.T @ W + variance * torch.eye(W.shape[1], dtype=W.dtype)
    mu = torch.linalg.solve(M, W.T @ (x - mean).T).T
    return mu, variance * torch.linalg.inv(M)


# --- the ELBO of any diagonal q, and what it misses -----------------------------------------------


def elbo(
    x: Tensor, W: Tensor, mean: Tensor, variance: float, mu: Tensor, log_var: Tensor
) -> Tensor:
    """Return E_q[log p(x|z)] - KL(q ‖ N(0, I)) of q = N(mu, σ²), without drawing any z.

    The noise of z adds its own error to that of the mean:
    E_q|x - W z - mean|² = |x - W mu - mean|² + sum_j |w_j|² σ_j², with w_j column j of W.

    Shapes: x `(N, D)`, W `(D, L)`, mean `(D,)`, mu and log_var `(N, L)` -> `(N,)`.
    Units: nats per image.
    Raises: ValueError for shapes that do not fit, or a variance that is not over 0.
    Source: Lucas et al. 2019, section 4.
    """
    x, W, mean, variance, mu, log_var = _checked(x, W, mean, variance, mu, log_var)
    recon = losses.gaussian_nll(mu @ W.T + mean, x, variance.log())
    recon = recon + 0.5 * (log_var.exp() @ W.square().sum(dim=0)) / variance
    return -(recon + losses.kl_standard_normal(mu, log_var))


def gap(x: Tensor, W: Tensor, mean: Tensor, variance: float, mu: Tensor, log_var: Tensor) -> Tensor:
    """Return KL(q(z|x) ‖ p(z|x)) of q = N(mu, σ²), which is log p(x) - ELBO.

    With P the posterior's precision and d the distance from its mean to mu, this is
    ½ [sum_j P_jj σ_j² + dᵀ P d - L - log det P - sum_j log σ_j²]. No likelihood is in it.

    Shapes: x `(N, D)`, W `(D, L)`, mean `(D,)`, mu and log_var `(N, L)` -> `(N,)`.
    Units: nats per image.
    Raises: ValueError for shapes that do not fit, or a variance that is not over 0.
    Source: Kingma & Welling 2014, eq. 1, with the KL of two Gaussians.
    """
    x, W, mean, variance, mu, log_var = _checked(x, W, mean, variance, mu, log_var)
    precision = _posterior_precision(W, variance)
    off = mu - posterior(x, W, mean, variance)[0]
    spread = log_var.exp() @ precision.diagonal() + ((off @ precision) * off).sum(dim=1)
    return 0.5 * (spread - W.shape[1] - torch.logdet(precision) - log_var.sum(dim=1))


def mean_field(x: Tensor, W: Tensor, mean: Tensor, variance: float) -> tuple[Tensor, Tensor]:
    """Return (mu, log_var) of the best diagonal q: the posterior's mean, and σ_j² = 1 / P_jj.

    P is the posterior's precision. 1 / P_jj is the variance of z_j when the other dimensions are
    known; it is less than the posterior's own variance of z_j unless P is diagonal.

    Shapes: x `(N, D)`, W `(D, L)`, mean `(D,)` -> two of `(N, L)`.
    Raises: ValueError for shapes that do not fit, or a variance that is not over 0.
    Source: Bishop 2006, section 10.1.2.
    """
    x, W, mean, variance = _checked(x, W, mean, variance)
    mu, _ = posterior(x, W, mean, variance)
    return mu, -_posterior_precision(W, variance).diagonal().log().expand_as(mu)


def mean_field_gap(W: Tensor, variance: float) -> float:
    """Return the gap that is left at the best diagonal q, ½ (sum_j log P_jj - log det P).

    P is the posterior's precision, (WᵀW + variance · I) / variance. It is the same for every x, and
    0 only if the columns of W are orthogonal (Hadamard's inequality).

    Shapes: W `(D, L)` -> a number. Units: nats per image.
    Raises: ValueError if W is no matrix, or the variance is not over 0.
    """
    W = _checked_weights(W)
    _check_over_0("variance", variance)
    precision = _posterior_precision(W, _exact(variance))
    return 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision)).item()


def _posterior_precision(W: Tensor, variance: Tensor) -> Tensor:
    return torch.eye(W.shape[1], dtype=W.dtype) + W.T @ W / variance  # (L, L)


# --- the same model as a network to train ---------------------------------------------------------


class LinearVAE(VAE):
    """An affine encoder, an affine decoder, and the log variance of the noise as a parameter.

    The decoder gives the mean of x itself, no logits. Train it with `exact_terms`, or
    `gaussian_terms`: `train.fit(model, images, terms=linear.exact_terms, lr=5e-2, epochs=60)`. Give
    them to whatever takes `terms`, since the default there is the Bernoulli ELBO.
    Source: Lucas et al. 2019, section 4.
    """

    def __init__(self, latent_size: int = 5, input_size: int = 784) -> None:
        super().__init__(latent_size, input_size=input_size, network="linear")
        self.config = {"latent_size": latent_size, "input_size": input_size}
        # Variance 1 is over every eigenvalue of the lessons' 7×7 pixels: no dimension is used at
        # first, they come in one by one as the noise falls, the leading axis first. From a small
        # variance all come in at once, mixed, and it takes long to sort them out.
        self.noise_log_var = nn.Parameter(torch.zeros(()))

    def decode_mean(self, z: Tensor) -> Tensor:
        """Return E[x|z] = W z + mean, `(B, latent_size)` -> `(B, input_size)`: so does `decode`."""
        return self.decode(z)


def gaussian_terms(model: LinearVAE, x: Tensor, generator: torch.Generator | None = None):
    """Return -log p(x|z) and KL(q(z|x) ‖ N(0, I)), each `(B,)`, with one sample of z an image.

    Units: nats per image. Source: Kingma & Welling 2014, eq. 10.
    """
    mu, log_var = model.encode(x)
    x_mean = model.decode(reparameterize(mu, log_var, generator=generator))
    recon = losses.gaussian_nll(x_mean, x.flatten(start_dim=1), model.noise_log_var)
    return recon, losses.kl_standard_normal(mu, log_var)


def exact_terms(model: LinearVAE, x: Tensor, generator: torch.Generator | None = None):
    """Return E_q[-log p(x|z)] and KL(q(z|x) ‖ N(0, I)), each `(B,)`: no sample, see `elbo`.

    Units: nats per image. Source: Lucas et al. 2019, section 4.
    """
    mu, log_var = model.encode(x)
    at_mu = losses.gaussian_nll(model.decode(mu), x.flatten(start_dim=1), model.noise_log_var)
    lengths = model.decoder.weight.square().sum(dim=0)  # |w_j|², (L,)
    of_noise = 0.5 * (log_var.exp() @ lengths) * torch.exp(-model.noise_log_var)
    return at_mu + of_noise, losses.kl_standard_normal(mu, log_var)


@torch.no_grad()
def decoder_of(model: LinearVAE) -> LinearGaussian:
    """Return the decoder of a trained model as a `LinearGaussian`, in float64 on the CPU."""
    weight, bias = _exact(model.decoder.weight), _exact(model.decoder.bias)
    return LinearGaussian(weight, bias, _exact(model.noise_log_var).exp().item())


@torch.no_grad()
def as_model(decoder: LinearGaussian) -> LinearVAE:
    """Return a `LinearVAE` with this decoder, and as its encoder the best diagonal q.

    Source: `mean_field`, whose mean is affine in x and whose variance is the same for every x.
    """
    W, mean, variance = decoder
    n_pixels, latent_size = W.shape
    model = LinearVAE(latent_size, n_pixels)
    # Affine: its value at 0 and at each unit vector is all there is to it.
    points = torch.cat([torch.zeros(1, n_pixels), torch.eye(n_pixels)]).double()
    mu, log_var = mean_field(points, W, mean, variance)
    model.encoder.weight[:latent_size].copy_((mu[1:] - mu[0]).T)
    model.encoder.weight[latent_size:].zero_()
    model.encoder.bias.copy_(torch.cat([mu[0], log_var[0]]))
    model.decoder.weight.copy_(W)
    model.decoder.bias.copy_(mean)
    model.noise_log_var.fill_(math.log(variance))
    return model.eval()


# --- small parts ----------------------------------------------------------------------------------


def _exact(value: Tensor | float) -> Tensor:
    if not isinstance(value, Tensor):
        return torch.tensor(value, dtype=torch.float64)
    return value.cpu().double()  # first to the CPU: MPS has no float64


def _check_latent_size(latent_size: int, most: int) -> None:
    whole = isinstance(latent_size, int) and not isinstance(latent_size, bool)
    if not whole or not 1 <= latent_size <= most:
        raise ValueError(f"latent_size must be a whole number, 1 to {most}, got {latent_size!r}")


def _check_over_0(name: str, value: Tensor | float) -> None:
    value = _exact(value)
    if value.ndim > 0:
        raise ValueError(f"{name} must be a single number, got shape {tuple(value.shape)}")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be over 0 and finite, got {value.item()}")


def _checked_weights(W: Tensor) -> Tensor:
    W = _exact(W)
    if W.ndim != 2:
        raise ValueError(f"W must be (D, L), got shape {tuple(W.shape)}")
    return W


def _checked(x, W, mean, variance, *q) -> tuple[Tensor, ...]:
    """Return all of them in float64; q is mu and log_var, or nothing. ValueError if they misfit."""
    W = _checked_weights(W)
    _check_over_0("variance", variance)
    if not x.is_floating_point():
        raise ValueError(f"x must be floats, got {x.dtype}: use data.to_float")
    x, mean, variance, *q = (_exact(value) for value in (x, mean, variance, *q))
    n_pixels, latent_size = W.shape
    if x.ndim != 2 or x.shape[1] != n_pixels:
        raise ValueError(
            f"x must be (N, {n_pixels}), as W is {tuple(W.shape)}, got shape {tuple(x.shape)}"
        )
    if mean.shape != (n_pixels,):
        raise ValueError(
            f"mean must be ({n_pixels},), as W is {tuple(W.shape)}, got shape {tuple(mean.shape)}"
        )
    for name, value in zip(("mu", "log_var"), q):
        if value.shape != (len(x), latent_size):
            raise ValueError(
                f"{name} must be ({len(x)}, {latent_size}), one row an image and one column a "
                f"column of W, got shape {tuple(value.shape)}"
            )
    return x, W, mean, variance, *q
