"""A VAE that can be solved exactly: linear decoder, Gaussian noise (probabilistic PCA).

Its log p(x), its posterior p(z|x), its ELBO for any diagonal q, its best decoder and the price of a
diagonal q all have closed forms, so whatever is said of a VAE can be checked here to the last
digit. They are computed in float64 on the CPU, since a gap is a small difference of large numbers.
Training a `LinearVAE` is in float32, as for any model.

x is `(N, D)`, N images of D pixels; L is the number of latent dimensions.
"""

import math

import torch
from torch import Tensor, nn
from torch.distributions import LowRankMultivariateNormal

from vae_lesson.arguments import check_over_0, check_same_shape, check_whole
from vae_lesson.data import exact
from vae_lesson.likelihood.pixels import gaussian_nll
from vae_lesson.losses import kl_standard_normal
from vae_lesson.models import VAE


class LinearGaussian:
    """The model x|z ~ N(W z + mean, variance · I) with z ~ N(0, I).

    W is `(D, L)`, mean `(D,)`; the variance is that of the noise, the same for every pixel. P, `(L,
    L)`, is the posterior's precision, the same for every x. mu and log_var `(N, L)` are a diagonal
    q(z|x) = N(mu, σ²). A value an image is `(N,)`, in nats.
    """

    def __init__(self, W: Tensor, mean: Tensor, variance: Tensor | float) -> None:
        check_same_shape(mean=mean, a_column_of_W=W[:, 0])
        self.W, self.mean = exact(W), exact(mean)
        self.variance = torch.as_tensor(variance, dtype=torch.float64, device="cpu")  # ()
        check_over_0("variance", self.variance.item())
        self.P = torch.eye(W.shape[1]).double() + self.W.T @ self.W / self.variance

    def log_marginal(self, x: Tensor) -> Tensor:
        """Return log p(x) = log N(x; mean, W Wᵀ + variance · I), what the ELBO is a bound of.

        Source: Tipping & Bishop 1999.
        """
        noise = self.variance.expand(len(self.mean))
        return LowRankMultivariateNormal(self.mean, self.W, noise).log_prob(exact(x))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the true p(z|x) = N(mu, P⁻¹), with mu = P⁻¹Wᵀ(x - mean) / variance.

        The covariance P⁻¹ `(L, L)` is diagonal only if the columns of W are orthogonal.
        Source: Tipping & Bishop 1999.
        """
        check_same_shape(one_image=x[0], mean=self.mean)
        covariance = torch.linalg.inv(self.P)
        return (exact(x) - self.mean) @ self.W @ covariance / self.variance, covariance

    def elbo(self, x: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
        """Return E_q[log p(x|z)] - KL(q ‖ N(0, I)), without drawing any z.

        The noise of z adds its own error to that of the mean:
        E_q|x - W z - mean|² = |x - W mu - mean|² + sum_j |w_j|² σ_j², with w_j column j of W.
        Source: Lucas et al. 2019.
        """
        mu, log_var = exact(mu), exact(log_var)
        recon = gaussian_nll(mu @ self.W.T + self.mean, exact(x), self.variance.log())
        recon = recon + 0.5 * (log_var.exp() @ self.W.square().sum(dim=0)) / self.variance
        return -(recon + kl_standard_normal(mu, log_var))

    def gap(self, x: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
        """Return KL(q(z|x) ‖ p(z|x)), which is log p(x) - ELBO.

        With d the distance from the posterior's mean to mu, this is
        ½ [sum_j P_jj σ_j² + dᵀ P d - L - log det P - sum_j log σ_j²]. No likelihood is in it.
        Source: Kingma & Welling 2014, eq. 1, with the KL of two Gaussians.
        """
        best_mu, _ = self.posterior(x)
        check_same_shape(mu=mu, log_var=log_var, mu_of_the_posterior=best_mu)
        P, d, log_var = self.P, exact(mu) - best_mu, exact(log_var)
        spread = log_var.exp() @ P.diagonal() + ((d @ P) * d).sum(dim=1)
        return 0.5 * (spread - len(P) - torch.logdet(P) - log_var.sum(dim=1))

    def mean_field(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (mu, log_var) of the best diagonal q: the posterior's mean, and σ_j² = 1 / P_jj.

        That is the variance of z_j when the other dimensions are known, less than the posterior's
        own unless P is diagonal. The gap that is left is ½ (sum_j log P_jj - log det P).
        Source: Bishop 2006, section 10.1.2.
        """
        mu, _ = self.posterior(x)
        return mu, -self.P.diagonal().log().expand_as(mu)

    def rotated(self, degrees: float) -> "LinearGaussian":
        """Return it with W's first two columns turned into each other: W R, with RRᵀ = I.

        p(x) stays the same, since W R (W R)ᵀ = W Wᵀ, but the posterior's axes turn. L is 2 or more.
        """
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        R = torch.eye(self.W.shape[1]).double()
        R[:2, :2] = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
        return LinearGaussian(self.W @ R, self.mean, self.variance)

    @torch.no_grad()
    def as_model(self) -> "LinearVAE":
        """Return a `LinearVAE` with this decoder, and as its encoder the best diagonal q."""
        model = LinearVAE(self.W.shape[1], len(self.W))
        gain = torch.linalg.solve(self.P, self.W.T) / self.variance  # the best mu of x and of 0
        model.encoder.weight.copy_(torch.cat([gain, torch.zeros_like(gain)]))
        model.encoder.bias.copy_(torch.cat([-gain @ self.mean, -self.P.diagonal().log()]))
        model.decoder.weight.copy_(self.W)
        model.decoder.bias.copy_(self.mean)
        model.noise_log_var.fill_(math.log(self.variance))
        return model.eval()


def principal_axes(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean of x, the eigenvalues of its covariance (largest first), the eigenvectors.

    The covariance is 1/N sum_n (x_n - mean)(x_n - mean)ᵀ: N as in maximum likelihood, not N - 1.

    Shapes: x `(N, D)` -> `(D,)`, `(D,)`, `(D, D)` with an eigenvector a column.
    """
    x = exact(x)
    covariance = torch.cov(x.T, correction=0)
    eigenvalues, eigenvectors = torch.linalg.eigh(covariance)  # smallest first
    # Rounding can leave an eigenvalue of 0 a little below it.
    return x.mean(dim=0), eigenvalues.flip(0).clamp_min(0), eigenvectors.flip(1)


def axis_angles(W: Tensor, axes: Tensor) -> Tensor:
    """Return, in degrees, how far each column of W is from the nearest of the axes, either way.

    Turning the codes, W -> W R, turns the columns within the plane that they span; the angle
    between two planes does not see that, and this does.

    Shapes: W `(D, L)`, axes `(D, M)` of length 1, at right angles -> `(L,)`.
    """
    columns = W / W.norm(dim=0)
    cosine, nearest = (axes.T @ columns).abs().max(dim=0)
    # By the sine too: the arc cosine of a number next to 1 has lost half of its digits.
    nearest = axes[:, nearest]
    sine = (columns - nearest * (nearest * columns).sum(dim=0)).norm(dim=0)
    return torch.rad2deg(torch.atan2(sine, cosine))


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
    since the default there is the Bernoulli ELBO.
    Source: Tipping & Bishop 1999; as a VAE Lucas et al. 2019.
    """

    decode_mean = VAE.decode  # E[x|z] = W z + mean, `(B, latent_size)` -> `(B, input_size)`

    def __init__(self, latent_size: int = 5, input_size: int = 784) -> None:
        super().__init__(latent_size, shape=(1, 1, input_size), network="linear")
        # As the noise falls from 1, over all eigenvalues of the lessons' 7×7 pixels, dimensions
        # come in one by one. From a small noise all come in at once, mixed, and take long to part.
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
    variance = exact(model.noise_log_var).exp()
    return LinearGaussian(model.decoder.weight, model.decoder.bias, variance)
