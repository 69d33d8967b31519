"""The checks on a VAE: its network, the draw of z, KL and loss, the training loop, new images."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae_lesson import losses
from vae_lesson.models import VAE
from vae_lesson.models import reparameterize as our_draw
from vae_lesson.teaching.checks.verdict import (
    ONE_NUMBER,
    Verdict,
    attempt,
    compare,
    compare_training,
    descend,
    draw,
)


def network(answer: Callable[[int, int], nn.Module]) -> Verdict:
    """Check answer(latent_size, hidden_size), a module whose `encode` gives (mu, log_var) and
    whose `decode` gives logits."""
    with torch.random.fork_rng(devices=[]):
        right, model = VAE(3, 5), attempt(answer, 3, 5)
    if isinstance(model, Verdict):
        return model
    shapes = [[*w.shape] for w in right.parameters()]
    (x, z) = (draw((2, 784))[0].sigmoid(), draw((2, 3))[0])
    try:
        got = [[*w.shape] for w in model.parameters()]
        if not got:
            return Verdict("Not yet: write the encoder and the decoder.")
        if got != shapes:
            return Verdict(f"Not yet: the layers' weights have shapes {got}, wanted {shapes}.")
        model.load_state_dict(dict(zip(model.state_dict(), right.state_dict().values())))
    except (AttributeError, RuntimeError, TypeError) as error:
        return Verdict(f"Not yet: {type(error).__name__}: {error}")
    mu, log_var = right.encode(x)
    swapped = "log_var before mu: the first half of the numbers is mu"
    both = {swapped: torch.cat([log_var, mu], dim=1)}
    both["one ReLU missing, or one too many"] = _without_relu(right.encoder, x)
    verdict = compare(
        lambda x: torch.cat(model.encode(x), 1), (x,), torch.cat([mu, log_var], 1), both
    )
    if not verdict.ok:
        return Verdict(f"{verdict} (encode)")
    logits = right.decode(z)
    wrong = {"pixels: leave the sigmoid to the loss": logits.sigmoid()}
    wrong["one ReLU missing, or one too many"] = _without_relu(right.decoder, z)
    verdict = compare(model.decode, (z,), logits, wrong)
    return verdict if verdict.ok else Verdict(f"{verdict} (decode)")


def _without_relu(network: nn.Sequential, x: Tensor) -> list[Tensor]:
    return [network[2](network[0](x)), network(x).relu()]


def reparameterize(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(mu, log_var, eps) -> z = mu + exp(½ log_var) · eps."""
    mu, log_var, eps = draw((3, 2), (3, 2), (3, 2))
    half, variance = 0.5 * log_var, log_var.exp()
    mistakes = {
        "log σ² used as σ: take exp(½ log_var)": mu + log_var * eps,
        "the variance used as σ: missing the ½ in exp(½ log_var)": mu + variance * eps,
        "log σ² halved but not exponentiated": mu + half * eps,
        "exp(−½ log_var), which is 1/σ": mu + torch.exp(-half) * eps,
        "mu alone: the noise is forgotten": mu,
    }
    return compare(answer, (mu, log_var, eps), mu + torch.exp(half) * eps, mistakes)


def kl_divergence(answer: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(mu, log_var) -> `(B,)`, KL(N(mu, σ²) ‖ N(0, I)) in nats per image."""
    mu, log_var = draw((3, 4), (3, 4))
    terms, variance = losses.kl_per_dimension(mu, log_var), log_var.exp()
    kl = terms.sum(dim=1)
    other_variances = [kl + 0.5 * (v - variance).sum(dim=1) for v in (variance.sqrt(), log_var)]
    other_variances += [losses.kl_standard_normal(mu, log_var.square().log())]
    mistakes = {
        "the mean over latent dimensions instead of the sum": terms.mean(dim=1),
        "missing the factor ½": 2 * kl,
        "the wrong sign: KL is never negative": [-kl, -kl.sum()],
        ONE_NUMBER: [kl.sum(), kl.mean(), terms.mean()],
        "the terms before the sum over dimensions": terms,
        "another number where σ² belongs: σ² is exp(log_var)": other_variances,
        "mu where mu² belongs": kl + 0.5 * (mu - mu.square()).sum(dim=1),
    }
    return compare(answer, (mu, log_var), kl, mistakes)


def neg_elbo(answer: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(x_logits, x, mu, log_var) -> `(B,)`, recon + KL in nats per image."""
    x_logits, x, mu, log_var = draw((3, 8), (3, 8), (3, 2), (3, 2))
    x = torch.sigmoid(x)
    recon, kl_j = losses.bernoulli_nll(x_logits, x), losses.kl_per_dimension(mu, log_var)
    kl = kl_j.sum(dim=1)
    right = recon + kl
    bce = F.binary_cross_entropy_with_logits(x_logits, x, reduction="none")
    pixel_mean = [bce.mean(dim=1) + kl, *(bce.mean() + k for k in (kl, kl.mean(), kl.sum()))]
    twice = losses.bernoulli_nll(x_logits.sigmoid(), x)
    mistakes = {
        "the mean over pixels beside a summed KL: beta times the number of pixels": pixel_mean,
        "the KL subtracted: it is a cost, add it": recon - kl,
        "the ELBO itself: what is minimised is −ELBO": -right,
        ONE_NUMBER: [right.mean(), right.sum(), recon.sum() + kl],
        "the reconstruction alone: the KL is missing": recon,
        "a sigmoid applied twice: the loss takes logits": twice + kl,
        "the mean of the KL over latent dimensions: sum it": recon + kl_j.mean(dim=1),
    }
    return compare(answer, (x_logits, x, mu, log_var), right, mistakes)


def our_neg_elbo(x_logits: Tensor, x: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
    """Return recon + KL of each image `(B,)`, by the package's two terms."""
    return losses.bernoulli_nll(x_logits, x) + losses.kl_standard_normal(mu, log_var)


def vae_training(answer: Callable) -> Verdict:
    """Check answer(model, images, epochs, batch_size, lr, generator), which trains."""
    mistakes = {"mu in place of z: the noise is forgotten": {"noise": 0}}
    return compare_training(answer, our_vae_training, lambda: [VAE(2, 3, (1, 2, 2))], mistakes)


def our_vae_training(model, images, epochs, batch_size, lr, generator, noise=1, **mistake) -> None:
    """Train a VAE: what `fit` does, without what surrounds it."""

    def loss(x: Tensor) -> Tensor:
        mu, log_var = model.encode(x)
        eps = noise * torch.randn(mu.shape, generator=generator, device=mu.device)
        x_logits = model.decode(our_draw(mu, log_var, eps))
        return our_neg_elbo(x_logits, x, mu, log_var).mean()

    descend([*model.parameters()], loss, images, epochs, batch_size, lr, generator, **mistake)


def sample(answer: Callable) -> Verdict:
    """Check answer(model, n, latent_size, generator) -> n new images `(n, 784)` in [0, 1]."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = VAE(3, 5).requires_grad_(False)
    seeded = torch.Generator().manual_seed
    right = our_sample(model, 2, 3, seeded(7))
    mistakes = {
        "logits: a sigmoid turns them into pixels": torch.logit(right),
        "uniform codes: the prior is normal, `torch.randn`": model.decode_mean(
            torch.rand((2, 3), generator=seeded(7))
        ),
        "one code for all images": right[:1].expand(2, -1),
    }
    return compare(lambda: answer(model, 2, 3, seeded(7)), (), right, mistakes)


def our_sample(model, n: int, latent_size: int, generator: torch.Generator) -> Tensor:
    """Return n new images `(n, 784)`, decoded from draws of N(0, I)."""
    z = torch.randn((n, latent_size), generator=generator, device=generator.device)
    return torch.sigmoid(model.decode(z))
