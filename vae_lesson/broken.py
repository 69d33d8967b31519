"""Five broken VAEs, the patients of lesson 05. Each is wrong in one line: name it before you look.

Each patient is a model and a loss. One of the two is healthy, the other has one fault.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vae_lesson import losses
from vae_lesson.models import VAE

PATIENTS = ("A", "B", "C", "D", "E")
# What a learner writes: loss(output, x, mu, log_var) -> (B,)
Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def patient(letter: str, **options) -> tuple[VAE, Loss]:
    """Return (model, loss) of one patient; `options` are those of `models.VAE`.

    The model is a fresh VAE, the loss takes (x_logits, x, mu, log_var) and returns `(B,)`.

    Raises: ValueError for another letter.
    """
    patients = {
        "A": (LogVarAsSigma, healthy_loss),
        "B": (SigmoidTwice, healthy_loss),
        "C": (VAE, mean_for_sum),
        "D": (VAE, wrong_sign),
        "E": (NoNoise, healthy_loss),
    }
    if letter not in patients:
        raise ValueError(f"the patients are {', '.join(PATIENTS)}, got {letter!r}")
    kind, loss = patients[letter]
    return kind(**options), loss


def loss_terms(loss: Loss) -> Callable:
    """Return a `terms` for `train.fit` that gives loss(output, x, mu, log_var) as recon, and kl 0.

    So a loss that is not a sum of recon and kl can be trained too; the history's recon is the loss.
    """

    def terms(model, x: Tensor, generator: torch.Generator | None = None):
        output, mu, log_var = model(x, generator=generator)
        value = loss(output, x, mu, log_var)
        return value, torch.zeros_like(value)

    return terms


def healthy_loss(x_logits: Tensor, x: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
    """Return −ELBO of each image, `(B,)`: nothing is wrong here."""
    return losses.bernoulli_nll(x_logits, x) + losses.kl_standard_normal(mu, log_var)


# --- the faults, one line each --------------------------------------------------------------------


def wrong_sign(x_logits: Tensor, x: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
    recon, kl = losses.bernoulli_nll(x_logits, x), losses.kl_standard_normal(mu, log_var)
    return recon - kl  # the KL is a cost: + kl


def mean_for_sum(x_logits: Tensor, x: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
    recon = losses.bernoulli_nll(x_logits, x) / x[0].numel()  # the mean over pixels: do not divide
    return recon + losses.kl_standard_normal(mu, log_var)


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
