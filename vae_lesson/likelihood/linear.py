"""A VAE that can be solved exactly: linear decoder, Gaussian noise (probabilistic PCA).

Its log p(x), its posterior p(z|x), its ELBO for any diagonal q, its best decoder and the price of a
diagonal q all have closed forms, so whatever is said of a VAE can be checked here to the last
digit. They are computed in float64 on the CPU, since a gap is a small difference of large numbers.
Training a `LinearVAE` is in float32, as for any model.

x is `(N, D)`, N images of D pixels; L is the number of latent dimensions. Shapes that do not fit,
tensors that are not floats and a variance that is not over 0 raise ValueError.
"""

import math

import torch
from torch import Tensor, nn

from vae_lesson.arguments import check_over_0, check_same_shape, check_whole
from vae_lesson.likelihood.pixels import gaussian_nll
from vae_lesson.losses import kl_standard_normal
from vae_lesson.models import VAE


class LinearGaussian:
    """The model x|z ~ N(W z + mean, variance · I) with z ~ N(0, I).

    W is `(D, L)`, mean `(D,)`; the variance is that of the noise, the same for every pixel. M is
    WᵀW + variance · I, and P = M / variance the posterior's precision; both are `(L, L)` and the
    same for every x. mu and log_var `(N, L)` are a diagonal q(z|x) = N(mu, σ²). A value an image is
    `(N,)`, in nats.
    """

    def __init__(self, W: Tensor, mean: Tensor, variance: Tensor | float) -> None:
        if W.ndim != 2:
            raise ValueError(f"W must be (D, L), got shape {tuple(W.shape)}")
        check_same_shape(mean=mean, a_column_of_W=W[:, 0])
        single = isinstance(variance, Tensor) and variance.ndim == 0
        check_over_0("variance", variance.item() if single else variance)
        self.W, self.mean = _exact(W), _exact(mean)
        self.variance = torch.as_tensor(variance, dtype=torch.float64, device="cpu")  # ()

    def log_marginal(self, x: Tensor) -> Tensor:
        """Return log p(x) = log N(x; mean, W Wᵀ + variance · I), what the ELBO is a bound of.

        With M only L × L matrices are needed.
        Source: Tipping & Bishop 1999; Woodbury's identity.
        """
        # rᵀ C⁻¹ r as |r - W z|² / variance + |z|², at the z that is the least: without the
        # cancellation that Woodbury's difference of two large numbers would have.
        z, _ = self.posterior(x)
        error = (_exact(x) - self.mean - z @ self.W.T).square().sum(dim=1)
        distance = error / self.variance + z.square().sum(dim=1)
        n_pixels, latent_size = self.W.shape
        log_det = torch.logdet(self._M()) + (n_pixels - latent_size) * self.variance.log()
        return -0.5 * (n_pixels * math.log(2 * math.pi) + log_det + distance)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the true p(z|x) = N(mu, covariance): M⁻¹Wᵀ(x - mean) and variance · M⁻¹.

        The covariance `(L, L)` is diagonal only if the columns of W are orthogonal.
        Source: Tipping & Bishop 1999.
        """
        if x.ndim != 2 or x.shape[1] != len(self.W):
            raise ValueError(f"x must be (N, {len(self.W)}), got shape {tuple(x.shape)}")
        M = self._M()
        mu = torch.linalg.solve(M, self.W.T @ (_exact(x) - self.mean).T).T
        return mu, self.variance * torch.linalg.inv(M)

    def elbo(self, x: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
        """Return E_q[log p(x|z)] - KL(q ‖ N(0, I)), without drawing any z.

        The noise of z adds its own error to that of the mean:
        E_q|x - W z - mean|² = |x - W mu - mean|² + sum_j |w_j|² σ_j², with w_j column j of W.
        Source: Lucas et al. 2019.
        """
        _, mu, log_var = self._fitting(x, mu, log_var)
        recon = gaussian_nll(mu @ self.W.T + self.mean, _exact(x), self.variance.log())
        recon = recon + 0.5 * (log_var.exp() @ self.W.square().sum(dim=0)) / self.variance
        return -(recon + kl_standard_normal(mu, log_var))

    def gap(self, x: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
        """Return KL(q(z|x) ‖ p(z|x)), which is log p(x) - ELBO.

        With d the distance from the posterior's mean to mu, this is
        ½ [sum_j P_jj σ_j² + dᵀ P d - L - log det P - sum_j log σ_j²]. No likelihood is in it.
        Source: Kingma & Welling 2014, eq. 1, with the KL of two Gaussians.
        """
        best_mu, mu, log_var = self._fitting(x, mu, log_var)
        P, off = self._P(), mu - best_mu
        spread = log_var.exp() @ P.diagonal() + ((off @ P) * off).sum(dim=1)
        return 0.5 * (spread - len(P) - torch.logdet(P) - log_var.sum(dim=1))

    def mean_field(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (mu, log_var) of the best diagonal q: the posterior's mean, and σ_j² = 1 / P_jj.

        1 / P_jj is the variance of z_j when the other dimensions are known; it is less than the
        posterior's own variance of z_j unless P is diagonal. The gap that is left, the same for
        every x, is ½ (sum_j log P_jj - log det P): 0 only if the columns of W are orthogonal.
        Source: Bishop 2006, section 10.1.2.
        """
        mu, _ = self.posterior(x)
        return mu, -self._P().diagonal().log().expand_as(mu)

    def rotated(self, degrees: float) -> "LinearGaussian":
        """Return it with W's first two columns turned into each other: W R, with RRᵀ = I.

        p(x) stays the same, since W R (W R)ᵀ = W Wᵀ, but the posterior's axes turn. L is 2 or more.
        """
        check_whole("L", self.W.shape[1], least=2)
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        a, b = self.W[:, :1], self.W[:, 1:2]
        turned = torch.cat([cos * a + sin * b, cos * b - sin * a, self.W[:, 2:]], dim=1)
        return LinearGaussian(turned, self.mean, self.variance)

    @torch.no_grad()
    def as_model(self) -> "LinearVAE":
        """Return a `LinearVAE` with this decoder, and as its encoder the best diagonal q."""
        model = LinearVAE(self.W.shape[1], len(self.W))
        # The best mu is M⁻¹Wᵀ(x - mean), and the best log_var the same for every x.
        gain = torch.linalg.solve(self._M(), self.W.T)
        model.encoder.weight.copy_(torch.cat([gain, torch.zeros_like(gain)]))
        model.encoder.bias.copy_(torch.cat(self.mean_field(torch.zeros(1, len(self.W))), dim=1)[0])
        model.decoder.weight.copy_(self.W)
        model.decoder.bias.copy_(self.mean)
        model.noise_log_var.fill_(math.log(self.variance))
        return model.eval()

    def _M(self) -> Tensor:
        return self.W.T @ self.W + self.variance * torch.eye(self.W.shape[1]).double()

    def _P(self) -> Tensor:
        return torch.eye(self.W.shape[1]).double() + self.W.T @ self.W / self.variance

    def _fitting(self, x: Tensor, mu: Tensor, log_var: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the posterior's mean, and mu and log_var, all of one shape and in float64."""
        best_mu, _ = self.posterior(x)
        check_same_shape(mu=mu, log_var=log_var, mu_of_the_posterior=best_mu)
        return best_mu, _exact(mu), _exact(log_var)


def _exact(value: Tensor) -> Tensor:
    if not value.is_floating_point():
        raise ValueError(f"the closed forms take floats, got {value.dtype}: use data.to_float")
    return value.cpu().double()  # first to the CPU: MPS has no float64


def principal_axes(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean of x, the eigenvalues of its covariance (largest first), the eigenvectors.

    The covariance is 1/N sum_n (x_n - mean)(x_n - mean)ᵀ: N as in maximum likelihood, not N - 1.

    Shapes: x `(N, D)`, N of 2 or more -> `(D,)`, `(D,)`, `(D, D)` with an eigenvector a column.
    """
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"x must be (N, D) with N of 2 or more, got shape {tuple(x.shape)}")
    x = _exact(x)
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
        raise ValueError(f"latent_size {latent_size} leaves no noise in x: take a smaller one")
    lengths = (eigenvalues[:latent_size] - variance).clamp_min(0).sqrt()
    return LinearGaussian(eigenvectors[:, :latent_size] * lengths, mean, variance)


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
    Source: Tipping & Bishop 1999; for beta = 1 and VAEs Lucas et al. 2019.
    """

    decode_mean = VAE.decode  # E[x|z] = W z + mean, `(B, latent_size)` -> `(B, input_size)`

    def __init__(self, latent_size: int = 5, input_size: int = 784) -> None:
        super().__init__(latent_size, shape=(1, 1, input_size), network="linear")
        # Variance 1 is over every eigenvalue of the lessons' 7×7 pixels: no dimension is used at
        # first, they come in one by one as the noise falls, the leading axis first. From a small
        # variance all come in at once, mixed, and it takes long to sort them out.
        self.noise_log_var = nn.Parameter(torch.zeros(()))


def exact_terms(model: LinearVAE, x: Tensor, generator: torch.Generator | None = None):
    """Return recon = E_q[-log p(x|z)] and kl = KL(q(z|x) ‖ N(0, I)) in nats, as `elbo` does."""
    mu, log_var = model.encode(x)
    at_mu = gaussian_nll(model.decode(mu), x.flatten(start_dim=1), model.noise_log_var)
    lengths = model.decoder.weight.square().sum(dim=0)  # |w_j|², (L,)
    of_noise = 0.5 * (log_var.exp() @ lengths) * torch.exp(-model.noise_log_var)
    return {"recon": at_mu + of_noise, "kl": kl_standard_normal(mu, log_var)}


@torch.no_grad()
def decoder_of(model: LinearVAE) -> LinearGaussian:
    """Return the decoder of a trained model."""
    variance = _exact(model.noise_log_var).exp()
    return LinearGaussian(model.decoder.weight, model.decoder.bias, variance)
