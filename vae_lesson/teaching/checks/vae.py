"""The checks on a VAE: its network, the draw of z, KL and loss, the training loop, new images."""

import itertools
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
    if got == [*wanted[:2], [3, 5], [3], [3, 5], [3], *wanted[4:]]:
        return Verdict(
            "Not yet: this looks like two heads, which are as good: but here one layer gives all "
            "2 · latent_size numbers, and `encode` splits them."
        )
    if got != wanted:
        return Verdict(
            "Not yet: for latent_size 3 and hidden_size 5 the layers' weights have shapes {got}, "
            "wanted {wanted}.",
            got=got,
            wanted=wanted,
        )
    with torch.no_grad():
        for mine, theirs in zip(weights, right.parameters()):
            mine.copy_(theirs)

    def encode(x: Tensor) -> Tensor | Verdict:
        return side_by_side(model.encode(x))

    x, z = draw((2, 784), (2, 3), learn=True)
    first, _, last = right.encoder
    coded = right.encoder(x)
    mistakes = {
        "log_var before mu: the first half of the numbers is mu": coded.roll(3, dims=1),
        "one ReLU missing, or one too many": [last(first(x)), coded.relu()],
    }
    verdict = compare(encode, (x,), coded, mistakes, learn={"x": x})
    if not verdict.ok:
        return Verdict("{verdict} ({method})", verdict=verdict, method="encode")
    first, _, last = right.decoder
    logits = right.decoder(z)
    mistakes = {
        "pixels: leave the sigmoid to the loss": logits.sigmoid(),
        "one ReLU missing, or one too many": [last(first(z)), logits.relu()],
    }
    verdict = compare(lambda z: model.decode(z), (z,), logits, mistakes, learn={"z": z})
    if not verdict.ok:
        return Verdict("{verdict} ({method})", verdict=verdict, method="decode")
    return verdict


def side_by_side(coded: object) -> Tensor | Verdict:
    """Return mu and log_var `(B, 2 · latent_size)` of what `encode` gave, if it gave the two."""
    is_pair = isinstance(coded, tuple | list) and len(coded) == 2
    if not is_pair or not all(isinstance(part, Tensor) for part in coded):
        return Verdict(
            "Not yet: return two tensors, mu and log_var: `.chunk(2, dim=1)` gives both."
        )
    return torch.cat([*coded], dim=1)


@ours(models.reparameterize)
def reparameterize(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(mu, log_var, eps) -> z = mu + exp(½ log_var) · eps."""
    mu, log_var, eps = draw((3, 2), (3, 2), (3, 2), learn=True)
    mistakes = {
        "log σ² used as σ: take exp(½ log_var)": mu + log_var * eps,
        "the variance used as σ: missing the ½ in exp(½ log_var)": mu + log_var.exp() * eps,
        "log σ² halved but not exponentiated": mu + 0.5 * log_var * eps,
    }
    right, learn = mu + torch.exp(0.5 * log_var) * eps, {"mu": mu, "log_var": log_var}
    return compare(answer, (mu, log_var, eps), right, mistakes, learn=learn)


@ours(losses.kl_standard_normal)
def kl_divergence(answer: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(mu, log_var) -> `(B,)`, KL(N(mu, σ²) ‖ N(0, I)) in nats per image."""
    mu, log_var = draw((3, 4), (3, 4), learn=True)
    v = log_var = log_var.abs()  # so that log(log_var), a mistake, is a number
    square, variance, sigma = mu.square(), v.exp(), torch.exp(v / 2)
    right, terms = losses.kl_standard_normal(mu, v), losses.kl_per_dimension(mu, v)

    def kl(mu2=square, sigma2=variance, log_sigma2=v, one=1.0) -> Tensor:
        return 0.5 * (mu2 + sigma2 - log_sigma2 - one).sum(dim=1)

    # Each term with its ½ or without; but for the last alone, the 1, which then counts twice.
    halves = [*itertools.product((1, 2), repeat=4)][2:-1]
    partly = [kl(a * square, b * variance, c * v, d) for a, b, c, d in halves]
    not_for_the_1 = kl(-2 * square, -2 * variance, -2 * v)  # -0.5 * 1 + log_var - …
    mistakes = {
        "the mean over latent dimensions instead of the sum": terms.mean(dim=1),
        "the sum over images instead of over latent dimensions": terms.sum(dim=0),
        "the terms before the sum over dimensions": terms,
        "missing the factor ½, or −½": [2 * right, -2 * right],
        "the factor ½ twice": right / 2,
        "the factor ½ before a part of the terms: it belongs to all": [*partly, not_for_the_1],
        "the wrong sign: KL is never negative": -right,
        "the wrong sign before mu²": kl(mu2=-square),
        "the wrong sign before σ²": kl(sigma2=-variance),
        "the wrong sign before log σ²": kl(log_sigma2=-v),
        "the wrong sign before the 1": kl(one=-1),
        "no −1: each latent dimension has one": [kl(one=0), kl(one=1 / 4)],
        "the −1 twice: each latent dimension has one": kl(one=2),
        "another number where mu² belongs": [kl(mu2=other) for other in (mu, 0)],
        "another number where σ² belongs: σ² is exp(log_var)": [
            kl(sigma2=other) for other in (sigma, v, variance**2, 0)
        ],
        "another number where log σ² belongs: that is log_var": [
            kl(log_sigma2=other) for other in (v / 2, v.log(), 0)
        ],
        "σ in place of σ²: that is exp(log_var)": kl(sigma2=sigma, log_sigma2=v / 2),
        "log_var taken for log σ: it is log σ²": kl(sigma2=variance**2, log_sigma2=2 * v),
        "log_var taken for σ or σ²: it is log σ²": [
            kl(sigma2=other, log_sigma2=other.log()) for other in (v, v**2)
        ],
    }
    learn = {"mu": mu, "log_var": log_var}
    return compare(answer, (mu, log_var), right, mistakes, per_image=True, learn=learn)


def our_neg_elbo(x_logits: Tensor, x: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
    """Return recon + KL of each image `(B,)`, by the package's two terms."""
    return losses.bernoulli_nll(x_logits, x) + losses.kl_standard_normal(mu, log_var)


@ours(our_neg_elbo)
def neg_elbo(answer: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(x_logits, x, mu, log_var) -> `(B,)`, recon + KL in nats per image."""
    x_logits, x, mu, log_var = draw((3, 8), (3, 8), (3, 2), (3, 2), learn=True)
    x = x.sigmoid()
    recon, kl = losses.bernoulli_nll(x_logits, x), losses.kl_standard_normal(mu, log_var)
    right, twice = recon + kl, losses.bernoulli_nll(x_logits.sigmoid(), x)
    mean = recon / 8
    pixel_mean = [mean + kl, *(mean.mean() + k for k in (kl, kl.mean(), kl.sum()))]
    mistakes = {
        "the mean over pixels beside a summed KL: beta times the number of pixels": pixel_mean,
        "the sum over the batch: keep one value an image": recon.sum() + kl,
        "the KL subtracted: it is a cost, add it": recon - kl,
        "the ELBO itself: what is minimised is −ELBO": -right,
        "a sigmoid applied twice: the loss takes logits": twice + kl,
        "the mean of the KL over latent dimensions: sum it": recon + kl / 2,
    }
    learn = {"x_logits": x_logits, "mu": mu, "log_var": log_var}
    return compare(answer, (x_logits, x, mu, log_var), right, mistakes, per_image=True, learn=learn)


def our_vae_training(
    model, images, epochs, batch_size, lr, generator, noise=1, rows=None, blocked=False, **mistake
) -> None:
    """Train a VAE: what `fit` does, without what surrounds it; noise, rows and blocked make
    mistakes."""

    def loss(x: Tensor) -> Tensor:
        mu, log_var = model.encode(x)
        shape = rows or len(mu), mu.shape[1]
        eps = noise * torch.randn(shape, generator=generator, device=mu.device)
        z = models.reparameterize(mu, log_var, eps.expand_as(mu))
        x_logits = model.decode(z.detach() if blocked else z)
        return our_neg_elbo(x_logits, x, mu, log_var)

    descend([*model.parameters()], loss, images, epochs, batch_size, lr, generator, **mistake)


@ours(our_vae_training)
def vae_training(answer: Callable) -> Verdict:
    """Check answer(model, images, epochs, batch_size, lr, generator), which trains."""
    mistakes = {
        "mu in place of z: the noise is forgotten": {"noise": 0},
        "one eps for all images of a batch": {"rows": 1},
        "bytes: `data.to_float` brings them to [0, 1]": {"pixels": lambda x: x.flatten(1).float()},
        "a z that blocks the gradient: recon does not reach the encoder": {"blocked": True},
    }
    return compare_training(answer, our_vae_training, lambda: [VAE(2, 3)], mistakes)


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
