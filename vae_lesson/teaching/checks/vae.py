"""The checks on a VAE: its network, the draw of z, KL and loss, the training loop, new images."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vae_lesson import losses, models
from vae_lesson.models import VAE
from vae_lesson.teaching.checks.training import compare_training, descend
from vae_lesson.teaching.checks.verdict import Verdict, attempt, compare, draw, ours, seeded


@ours(VAE)
def network(answer: Callable[[int, int], nn.Module]) -> Verdict:
    """Check answer(latent_size, hidden_size), a module whose `encode` gives (mu, log_var) and
    whose `decode` gives logits."""
    with seeded():
        right, model = VAE(3, 5), attempt(answer, 3, 5)
    if isinstance(model, Verdict):
        return model
    weights = [*model.parameters()] if isinstance(model, nn.Module) else []
    if not weights:
        return Verdict("Not yet: write the encoder and the decoder.")
    got, wanted = ([[*w.shape] for w in of] for of in (weights, right.parameters()))
    if got != wanted:
        return Verdict(f"Not yet: the layers' weights have shapes {got}, wanted {wanted}.")
    with torch.no_grad():
        for mine, theirs in zip(weights, right.parameters()):
            mine.copy_(theirs)

    def encode(x: Tensor) -> Tensor:
        mu, log_var = model.encode(x)
        return torch.cat([mu, log_var], dim=1)

    x, z = draw((2, 784), (2, 3))
    first, _, last = right.encoder
    coded = right.encoder(x)
    mistakes = {
        "log_var before mu: the first half of the numbers is mu": coded.roll(3, dims=1),
        "one ReLU missing, or one too many": [last(first(x)), coded.relu()],
    }
    verdict = compare(encode, (x,), coded, mistakes)
    if not verdict.ok:
        return Verdict(f"{verdict} (encode)")
    first, _, last = right.decoder
    logits = right.decoder(z)
    mistakes = {
        "pixels: leave the sigmoid to the loss": logits.sigmoid(),
        "one ReLU missing, or one too many": [last(first(z)), logits.relu()],
    }
    verdict = compare(lambda z: model.decode(z), (z,), logits, mistakes)
    return verdict if verdict.ok else Verdict(f"{verdict} (decode)")


@ours(models.reparameterize)
def reparameterize(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(mu, log_var, eps) -> z = mu + exp(½ log_var) · eps."""
    mu, log_var, eps = draw((3, 2), (3, 2), (3, 2))
    mistakes = {
        "log σ² used as σ: take exp(½ log_var)": mu + log_var * eps,
        "the variance used as σ: missing the ½ in exp(½ log_var)": mu + log_var.exp() * eps,
        "log σ² halved but not exponentiated": mu + 0.5 * log_var * eps,
    }
    return compare(answer, (mu, log_var, eps), mu + torch.exp(0.5 * log_var) * eps, mistakes)


@ours(losses.kl_standard_normal)
def kl_divergence(answer: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(mu, log_var) -> `(B,)`, KL(N(mu, σ²) ‖ N(0, I)) in nats per image."""
    mu, log_var = draw((3, 4), (3, 4))
    terms, variance = losses.kl_per_dimension(mu, log_var), log_var.exp()
    kl = terms.sum(dim=1)
    other_variances = [kl + 0.5 * (v - variance).sum(dim=1) for v in (variance.sqrt(), log_var)]
    mistakes = {
        "the mean over latent dimensions instead of the sum": terms.mean(dim=1),
        "missing the factor ½": 2 * kl,
        "the wrong sign: KL is never negative": -kl,
        "the terms before the sum over dimensions": terms,
        "another number where σ² belongs: σ² is exp(log_var)": other_variances,
    }
    return compare(answer, (mu, log_var), kl, mistakes, per_image=True)


def our_neg_elbo(x_logits: Tensor, x: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
    """Return recon + KL of each image `(B,)`, by the package's two terms."""
    return losses.bernoulli_nll(x_logits, x) + losses.kl_standard_normal(mu, log_var)


@ours(our_neg_elbo)
def neg_elbo(answer: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(x_logits, x, mu, log_var) -> `(B,)`, recon + KL in nats per image."""
    x_logits, x, mu, log_var = draw((3, 8), (3, 8), (3, 2), (3, 2))
    x = x.sigmoid()
    recon, kl = losses.bernoulli_nll(x_logits, x), losses.kl_standard_normal(mu, log_var)
    right, twice = recon + kl, losses.bernoulli_nll(x_logits.sigmoid(), x)
    mean = recon / 8
    pixel_mean = [mean + kl, *(mean.mean() + k for k in (kl, kl.mean(), kl.sum()))]
    mistakes = {
        "the mean over pixels beside a summed KL: beta times the number of pixels": pixel_mean,
        "the KL subtracted: it is a cost, add it": recon - kl,
        "the ELBO itself: what is minimised is −ELBO": -right,
        "a sigmoid applied twice: the loss takes logits": twice + kl,
        "the mean of the KL over latent dimensions: sum it": recon + kl / 2,
    }
    return compare(answer, (x_logits, x, mu, log_var), right, mistakes, per_image=True)


def our_vae_training(model, images, epochs, batch_size, lr, generator, noise=1, **mistake) -> None:
    """Train a VAE: what `fit` does, without what surrounds it."""

    def loss(x: Tensor) -> Tensor:
        mu, log_var = model.encode(x)
        eps = noise * torch.randn(mu.shape, generator=generator, device=mu.device)
        x_logits = model.decode(models.reparameterize(mu, log_var, eps))
        return our_neg_elbo(x_logits, x, mu, log_var).mean()

    descend([*model.parameters()], loss, images, epochs, batch_size, lr, generator, **mistake)


@ours(our_vae_training)
def vae_training(answer: Callable) -> Verdict:
    """Check answer(model, images, epochs, batch_size, lr, generator), which trains."""
    mistakes = {"mu in place of z: the noise is forgotten": {"noise": 0}}
    return compare_training(answer, our_vae_training, lambda: [VAE(2, 3, (1, 2, 2))], mistakes)


def our_sample(model, n: int, latent_size: int, generator: torch.Generator) -> Tensor:
    """Return n new images `(n, 784)`, decoded from draws of N(0, I)."""
    z = torch.randn((n, latent_size), generator=generator, device=generator.device)
    return torch.sigmoid(model.decode(z))


@ours(our_sample)
def sample(answer: Callable) -> Verdict:
    """Check answer(model, n, latent_size, generator) -> n new images `(n, 784)` in [0, 1]."""
    with seeded():
        model = VAE(3, 5).requires_grad_(False)
    seed = torch.Generator().manual_seed
    right = our_sample(model, 2, 3, seed(7))
    uniform = torch.rand((2, 3), generator=seed(7))
    mistakes = {
        "logits: a sigmoid turns them into pixels": torch.logit(right),
        "uniform codes: the prior is normal, `torch.randn`": model.decode_mean(uniform),
    }
    return compare(lambda: answer(model, 2, 3, seed(7)), (), right, mistakes)
