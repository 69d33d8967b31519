"""Five broken VAEs, the patients of lesson 07: name what is wrong with each before you look.

A patient is a model and a loss: one of the two is healthy, the other is wrong in one line. A loss
is a function of (output, x, mu, log_var), and the output of a VAE is its logits.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vae_lesson.arguments import check_one_of
from vae_lesson.losses import Terms, bernoulli_nll, kl_standard_normal, outputs
from vae_lesson.models import VAE


def patient(letter: str, **options) -> tuple[VAE, Callable]:
    """Return a fresh VAE with these options, and a loss, of one in the WARD; else ValueError."""
    check_one_of("patient", letter, WARD)
    kind, loss = WARD[letter]
    return kind(**options), loss


def terms_of_loss(loss: Callable) -> Terms:
    """Return a `terms` for `train.fit` that minimises loss(output, x, mu, log_var), `(B,)`."""

    def terms(model, x: Tensor, generator: torch.Generator | None = None):
        output, mu, log_var = outputs(model, x, generator)
        return {"loss": loss(output, x, mu, log_var)}

    return terms


def healthy_loss(x_logits: Tensor, x: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
    """Return −ELBO of each image, `(B,)`: nothing is wrong here."""
    return bernoulli_nll(x_logits, x) + kl_standard_normal(mu, log_var)


def wrong_sign(x_logits: Tensor, x: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
    return bernoulli_nll(x_logits, x) - kl_standard_normal(mu, log_var)  # the KL is a cost: + kl


def mean_for_sum(x_logits: Tensor, x: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
    recon = bernoulli_nll(x_logits, x) / x[0].numel()  # the mean over pixels: do not divide
    return recon + kl_standard_normal(mu, log_var)


class LogVarAsSigma(VAE):
    def forward(self, x, eps=None, generator=None):
        mu, log_var = self.encode(x)
        if eps is None:
            eps = torch.randn(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype)
        z = mu + eps * log_var  # σ is exp(½ log_var)
        return self.decode(z), mu, log_var


class NoNoise(VAE):
    def forward(self, x, eps=None, generator=None):
        mu, log_var = self.encode(x)
        return self.decode(mu), mu, log_var  # eps is forgotten: z = mu + eps · σ


class SigmoidTwice(VAE):
    def decode(self, z):
        return torch.sigmoid(super().decode(z))  # the loss has a sigmoid of its own


PATIENTS = {
    "A": (LogVarAsSigma, healthy_loss),
    "B": (SigmoidTwice, healthy_loss),
    "C": (VAE, mean_for_sum),
    "D": (VAE, wrong_sign),
    "E": (NoNoise, healthy_loss),
}
WARD = {"healthy": (VAE, healthy_loss), **PATIENTS}  # with their healthy twin
