"""A VAE that can be solved exactly: linear decoder, Gaussian noise (probabilistic PCA).

Its log p(x), its posterior p(z|x), its ELBO for any diagonal q, its best decoder and the price of a
diagonal q all have closed forms, so whatever is said of a VAE can be checked here to the last
digit. They are computed in float64 on the CPU, since a gap is a small difference of large numbers.
Training a `LinearVAE` is in float32, as for any model.

x is `(N, D)`, N images of D pixels; L is the number of latent dimensions. Shapes that do not fit,
an x that is not floats and a variance that is not over 0 raise ValueError.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vae_lesson.arguments import check_over_0, check_whole
from vae_lesson.likelihood.pixels import gaussian_nll
from vae_lesson.losses import kl_standard_normal
from vae_lesson.models import VAE


@dataclass(frozen=True, eq=False)
class LinearGaussian:
    """The model x|z ~ N(W z + mean, variance · I) with z ~ N(0, I).

    M is WᵀW + variance · I, and P = M / variance the posterior's precision; both are `(L, L)` and
    the same for every x. mu and log_var `(N, L)` are a diagonal q(z|x) = N(mu, σ²). A value an
    image is `(N,)`, in nats.
    """

    W: Tensor  # (D, L)
    mean: Tensor  # (D,)
    variance: Tensor  # (), of the noise, the same for every pixel; may be given as a number

    def __post_init__(self) -> None:
        W, mean, variance = self.W, self.mean, self.variance
        if W.ndim != 2:
            raise ValueError(f"W must be (D, L), got shape {tuple(W.shape)}")
        if mean.shape != W.shape[:1]:
            raise ValueError(f"mean must be ({len(W)},), got shape {tuple(mean.shape)}")
        single = isinstance(variance, Tensor) and variance.ndim == 0
        check_over_0("variance", variance.item() if single else variance)
        for name, value in {"W": W, "mean": mean, "variance": variance}.items():
            object.__setattr__(self, name, _exact(value))

    def log_marginal(self, x: Tensor) -> Tensor:
        """Return log p(x) = log N(x; mean, W Wᵀ + variance · I), what the ELBO is a bound of.

        With M only L × L matrices are needed.
        Source: Tipping & Bishop 1999, section 3; Woodbury's identity.
        """
        (x,) = self._checked(x)
        M, centred = self._M(), x - self.mean
        # rᵀ C⁻¹ r as |r - W z|² / variance + |z|², at the z that is the least: without the
        # cancellation that Woodbury's difference of two large numbers would have.
        z = torch.linalg.solve(M, self.W.T @ centred.T).T  # (N, L)
        error = (centred - z @ self.W.T).square().sum(dim=1)
        distance = error / self.variance + z.square().sum(dim=1)
        n_pixels, latent_size = self.W.shape
        log_det = torch.logdet(M) + (n_pixels - latent_size) * self.variance.log()
        return -0.5 * (n_pixels * math.log(2 * math.pi) + log_det + distance)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the true p(z|x) = N(mu, covariance): M⁻¹Wᵀ(x - mean) and variance · M⁻¹.

        The covariance `(L, L)` is diagonal only if the columns of W are orthogonal.
        Source: Tipping & Bishop 1999, section 3.
        """
        (x,) = self._checked(x)
        M = self._M()
        mu = torch.linalg.solve(M, self.W.T @ (x - self.mean).T).T
        return mu, self.variance * torch.linalg.inv(M)

    def elbo(self, x: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
        """Return E_q[log p(x|z)] - KL(q ‖ N(0, I)), without drawing any z.

        The noise of z adds its own error to that of the mean:
        E_q|x - W z - mean|² = |x - W mu - mean|² + sum_j |w_j|² σ_j², with w_j column j of W.
        Source: Lucas et al. 2019, section 4.
        """
        x, mu, log_var = self._checked(x, mu, log_var)
        recon = gaussian_nll(mu @ self.W.T + self.mean, x, self.variance.log())
        recon = recon + 0.5 * (log_var.exp() @ self.W.square().sum(dim=0)) / self.variance
        return -(recon + kl_standard_normal(mu, log_var))

    def gap(self, x: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
        """Return KL(q(z|x) ‖ p(z|x)), which is log p(x) - ELBO.

        With d the distance from the posterior's mean to mu, this is
        ½ [sum_j P_jj σ_j² + dᵀ P d - L - log det P - sum_j log σ_j²]. No likelihood is in it.
        Source: Kingma & Welling 2014, eq. 1, with the KL of two Gaussians.
        """
        x, mu, log_var = self._checked(x, mu, log_var)
        P, off = self._P(), mu - self.posterior(x)[0]
        spread = log_var.exp() @ P.diagonal() + ((off @ P) * off).sum(dim=1)
        return 0.5 * (spread - len(P) - torch.logdet(P) - log_var.sum(dim=1))

    def mean_field(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (mu, log_var) of the best diagonal q: the posterior's mean, and σ_j² = 1 / P_jj.

        1 / P_jj is the variance of z_j when the other dimensions are known; it is less than the
        posterior's own variance of z_j unless P is diagonal.
        Source: Bishop 2006, section 10.1.2.
        """
        mu, _ = self.posterior(x)
        return mu, -self._P().diagonal().log().expand_as(mu)

    def mean_field_gap(self) -> float:
        """Return the gap that is left at the best diagonal q, ½ (sum_j log P_jj - log det P).

        It is the same for every x, and 0 only if the columns of W are orthogonal (Hadamard's
        inequality). Units: nats per image.
        """
        P = self._P()
        return 0.5 * (P.diagonal().log().sum() - torch.logdet(P)).item()

    def rotated(self, degrees: float) -> "LinearGaussian":
        """Return it with W's first two columns turned into each other: W R, with RRᵀ = I.

        p(x) stays the same, since W R (W R)ᵀ = W Wᵀ, but the posterior's axes turn. L is 2 or more.
        """
        if self.W.shape[1] < 2:
            raise ValueError(f"W must be (D, L) with L of 2 or more, got {tuple(self.W.shape)}")
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        a, b = self.W[:, :1], self.W[:, 1:2]
        turned = [cos * a + sin * b, cos * b - sin * a, self.W[:, 2:]]
        return replace(self, W=torch.cat(turned, dim=1))

    @torch.no_grad()
    def as_model(self) -> "LinearVAE":
        """Return a `LinearVAE` with this decoder, and as its encoder the best diagonal q."""
        n_pixels, latent_size = self.W.shape
        model = LinearVAE(latent_size, n_pixels)
        # The best mu is affine in x: its values at 0 and at each unit vector are all there is to
        # it. The best log_var is the same for every x.
        mu, log_var = self.mean_field(torch.cat([torch.zeros(1, n_pixels), torch.eye(n_pixels)]))
        model.encoder.weight[:latent_size].copy_((mu[1:] - mu[0]).T)
        model.encoder.weight[latent_size:].zero_()
        model.encoder.bias.copy_(torch.cat([mu[0], log_var[0]]))
        model.decoder.weight.copy_(self.W)
        model.decoder.bias.copy_(self.mean)
        model.noise_log_var.fill_(math.log(self.variance))
        return model.eval()

    def _M(self) -> Tensor:
        return self.W.T @ self.W + self.variance * torch.eye(self.W.shape[1]).double()

    def _P(self) -> Tensor:
        return torch.eye(self.W.shape[1]).double() + self.W.T @ self.W / self.variance

    def _checked(self, x: Tensor, *q: Tensor) -> tuple[Tensor, ...]:
        """Return x, and mu and log_var if they are given, in float64; ValueError if they misfit."""
        x, (n_pixels, latent_size) = _exact_images(x), self.W.shape
        if x.ndim != 2 or x.shape[1] != n_pixels:
            raise ValueError(f"x must be (N, {n_pixels}), got shape {tuple(x.shape)}")
        fitting = (len(x), latent_size)
        for name, value in zip(("mu", "log_var"), q):
            if value.shape != fitting:
                raise ValueError(f"{name} must be {fitting}, got shape {tuple(value.shape)}")
        return x, *map(_exact, q)


def _exact(value: Tensor | float) -> Tensor:
    if not isinstance(value, Tensor):
        return torch.tensor(value, dtype=torch.float64)
    return value.cpu().double()  # first to the CPU: MPS has no float64


def _exact_images(x: Tensor) -> Tensor:
    if not x.is_floating_point():
        raise ValueError(f"x must be floats, got {x.dtype}: use data.to_float")
    return _exact(x)


# --- the best decoder -----------------------------------------------------------------------------


def principal_axes(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean of x, the eigenvalues of its covariance (largest first), the eigenvectors.

    The covariance is 1/N sum_n (x_n - mean)(x_n - mean)ᵀ: N as in maximum likelihood, not N - 1.

    Shapes: x `(N, D)`, N of 2 or more -> `(D,)`, `(D,)`, `(D, D)` with an eigenvector a column.
    """
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"x must be (N, D) with N of 2 or more, got shape {tuple(x.shape)}")
    x = _exact_images(x)
    mean = x.mean(dim=0)
    covariance = (x - mean).T @ (x - mean) / len(x)
    eigenvalues, eigenvectors = torch.linalg.eigh(covariance)  # smallest first
    # Rounding can leave an eigenvalue of 0 a little below it.
    return mean, eigenvalues.flip(0).clamp_min(0), eigenvectors.flip(1)


def ppca(x: Tensor, latent_size: int) -> LinearGaussian:
    """Return the model of highest likelihood: column j of W is u_j √(λ_j - variance).

    λ_j and u_j are the `latent_size` leading eigenvalues and eigenvectors of the covariance of x,
    and the variance of the noise is the mean of the eigenvalues that are left out.

    Raises: ValueError for a latent_size that is not in 1 … D - 1, or x that fits with no noise.
    Source: Tipping & Bishop 1999, eq. 7 and 8 (with R = I).
    """
    mean, eigenvalues, eigenvectors = principal_axes(x)
    check_whole("latent_size", latent_size, most=len(eigenvalues) - 1)
    variance = eigenvalues[latent_size:].mean()
    if variance <= 1e-12 * eigenvalues[0]:
        raise ValueError(
            f"x varies in no more than {latent_size} directions, so that the noise would have no "
            "variance: take a smaller latent_size"
        )
    lengths = (eigenvalues[:latent_size] - variance).clamp_min(0).sqrt()
    return LinearGaussian(eigenvectors[:, :latent_size] * lengths, mean, variance)


# --- the same model as a network to train ---------------------------------------------------------


class LinearVAE(VAE):
    """An affine encoder, an affine decoder, and the log variance of the noise as a parameter.

    The decoder gives the mean of x itself, no logits: give `exact_terms` to whatever takes `terms`,
    since the default there is the Bernoulli ELBO. To train it:
    `train.fit(model, images, terms=linear.exact_terms, lr=5e-2, epochs=60)`.

    With a weight beta on the KL and a fixed noise, the best column j of W is u_j √(λ_j - beta ·
    variance), with λ_j and u_j as in `ppca`, or 0 where λ_j <= beta · variance: dimension j is
    dead, whatever the training. For (recon + beta · kl) / beta is -ELBO of a model whose noise
    variance is beta · variance (so its `mean_field` is the best encoder), but for a constant. A
    noise that is learned too ends at the sum of the unused eigenvalues over D - beta · k, with k
    dimensions used.

    Source: Tipping & Bishop 1999, appendix A; for beta = 1 and VAEs Lucas et al. 2019, section 4.
    """

    def __init__(self, latent_size: int = 5, input_size: int = 784) -> None:
        super().__init__(latent_size, input_size=input_size, network="linear")
        # Variance 1 is over every eigenvalue of the lessons' 7×7 pixels: no dimension is used at
        # first, they come in one by one as the noise falls, the leading axis first. From a small
        # variance all come in at once, mixed, and it takes long to sort them out.
        self.noise_log_var = nn.Parameter(torch.zeros(()))

    def decode_mean(self, z: Tensor) -> Tensor:
        """Return E[x|z] = W z + mean, `(B, latent_size)` -> `(B, input_size)`: so does `decode`."""
        return self.decode(z)


def exact_terms(model: LinearVAE, x: Tensor, generator: torch.Generator | None = None):
    """Return E_q[-log p(x|z)] and KL(q(z|x) ‖ N(0, I)), each `(B,)`: no sample, see `elbo`.

    Units: nats per image. Source: Lucas et al. 2019, section 4.
    """
    mu, log_var = model.encode(x)
    at_mu = gaussian_nll(model.decode(mu), x.flatten(start_dim=1), model.noise_log_var)
    lengths = model.decoder.weight.square().sum(dim=0)  # |w_j|², (L,)
    of_noise = 0.5 * (log_var.exp() @ lengths) * torch.exp(-model.noise_log_var)
    return at_mu + of_noise, kl_standard_normal(mu, log_var)


@torch.no_grad()
def decoder_of(model: LinearVAE) -> LinearGaussian:
    """Return the decoder of a trained model."""
    variance = _exact(model.noise_log_var).exp()
    return LinearGaussian(model.decoder.weight, model.decoder.bias, variance)
