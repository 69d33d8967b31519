"""The checks on a detector of anomalies: where it draws the line, how good it is, and the two
parts of its score."""

from collections.abc import Callable

import torch
from torch import Tensor

from vae_lesson import evaluate, losses
from vae_lesson.models import VAE
from vae_lesson.teaching.checks.verdict import Verdict, compare, draw, ours, seeded


@ours(lambda scores, false_alarms: torch.quantile(scores, 1 - false_alarms))
def threshold(answer: Callable[[Tensor, float], Tensor]) -> Verdict:
    """Check answer(scores, false_alarms) -> the score that this share of the scores exceed."""
    # Counted or interpolated, it is the same: the four around the right one are nearly equal.
    parts = torch.linspace(10, 40, 34), torch.linspace(50, 50.003, 4), torch.tensor([80.0, 120])
    ordered, false_alarms = torch.cat(parts), 0.1
    scores = ordered[torch.arange(0, 40 * 7, 7) % 40]  # out of order
    right = threshold.ours(scores, false_alarms)
    of_bell = [scores.mean() + k * scores.std() for k in (1, 1.2816, 1.6449, 2, 3)]
    mistakes = {
        "the threshold that flags all but this share": [scores.quantile(0.1), *ordered[3:5]],
        "a part of the largest score: count images, not nats": 0.9 * scores.max(),
        "a rule for the bell curve, which scores need not follow: count": of_bell,
        "the flags: return the threshold, one number": scores > right,
    }
    return compare(answer, (scores, false_alarms), right, mistakes)


@ours(lambda normal, strange: evaluate.roc(normal, strange)[2])
def roc_area(answer: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(normal, strange) -> the chance that a strange score is over a normal one."""
    # As many of both, so that a comparison without pairs is named and not a shape that fails.
    normal = torch.tensor([3.0, 3, 4, 1, 3, 3])
    strange = torch.tensor([3.0, 6, 3, 6, 6, 3])
    higher, ties = strange[:, None] > normal, strange[:, None] == normal
    one_each = (strange > normal).float().mean()
    pairs, right = higher + 0.5 * ties, torch.tensor(roc_area.ours(normal, strange))
    mistakes = {
        "the chance that a normal image has the higher score": 1 - right,
        "ties counted as lost: two equal scores count ½": higher.float().mean(),
        "ties counted as won: two equal scores count ½": (higher | ties).float().mean(),
        "one normal image for each strange one: compare all pairs": one_each,
        "the number of pairs: divide by how many there are": [pairs.sum(), higher.sum()],
    }
    return compare(answer, (normal, strange), right, mistakes)


def our_recon_and_kl(model, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return (recon, KL) of each image, both `(B,)`, with one draw of z."""
    terms = losses.elbo_terms(model, x, generator)
    return terms["recon"], terms["kl"]


@ours(our_recon_and_kl)
def recon_and_kl(answer: Callable) -> Verdict:
    """Check answer(model, x, generator) -> (recon, kl) of each image, in nats."""
    with seeded(), torch.no_grad():
        model = VAE(2, 5).requires_grad_(False)
        for weight in model.parameters():  # so that no two mistakes cost nearly the same
            weight.mul_(4)
    (x,) = draw((3, 784))
    x, seed = x.sigmoid(), torch.Generator().manual_seed

    def parts(x: Tensor) -> Tensor | Verdict:
        return one_below_the_other(answer(model, x, seed(7)))

    right = torch.stack(our_recon_and_kl(model, x, seed(7)))
    mu, log_var = model.encode(x)
    eps, kl = torch.randn(mu.shape, generator=seed(7)), right[1]

    def with_z(z: Tensor) -> Tensor:
        return torch.stack([losses.bernoulli_nll(model.decode(z), x), kl])

    logits = model.decode(mu + torch.exp(0.5 * log_var) * eps)
    one_eps = torch.randn(2, generator=seed(7))
    mistakes = {
        "KL first: return recon, then kl": right.flip(0),
        "mu in place of z: the noise is forgotten": with_z(mu),
        "the variance used as σ: missing the ½ in exp(½ log_var)": with_z(mu + log_var.exp() * eps),
        "one eps for the whole batch": with_z(mu + torch.exp(0.5 * log_var) * one_eps),
        "a sigmoid applied twice: recon takes logits": torch.stack(
            [losses.bernoulli_nll(logits.sigmoid(), x), kl]
        ),
        "the squared error: recon is −log p(x|z)": torch.stack(
            [losses.squared_error(logits.sigmoid(), x), kl]
        ),
        "the mean over pixels: sum them": torch.stack([right[0] / 784, kl]),
        "the mean of the KL over latent dimensions: sum it": torch.stack([right[0], kl / 2]),
        "one number for the whole batch: keep one value an image": [
            right.mean(dim=1),
            right.sum(dim=1),
        ],
    }
    return compare(parts, (x,), right, mistakes)


def one_below_the_other(parts: object) -> Tensor | Verdict | None:
    """Return recon and KL as one tensor, `(2, B)`, if these are two tensors of one shape."""
    if parts is None:
        return None
    is_pair = isinstance(parts, tuple | list) and len(parts) == 2
    if not is_pair or not all(isinstance(part, Tensor) for part in parts):
        return Verdict("Not yet: return two tensors, recon and kl, and not their sum.")
    recon, kl = parts
    if recon.shape != kl.shape:
        return Verdict(
            "Not yet: both should have the shape (3,), one value an image, but recon's is {recon}, "
            "the KL's {kl}.",
            recon=tuple(recon.shape),
            kl=tuple(kl.shape),
        )
    return torch.stack([recon, kl])
