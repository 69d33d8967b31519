"""The checks on the likelihood: importance weights, their bound, and the best q of each image."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vae_lesson import losses
from vae_lesson.likelihood import importance
from vae_lesson.models import VAE
from vae_lesson.teaching.checks.verdict import Verdict, compare, draw, ours, seeded


@ours(importance.log_weights)
def log_weights(answer: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(recon, z, mu, log_var) -> `(K, B)`, log p(x|z) + log p(z) - log q(z|x)."""
    recon, z, mu, log_var = draw((4, 3), (4, 3, 5), (3, 5), (3, 5), learn=True)
    log_p, square, sigma2 = -0.5 * z.square(), (z - mu).square(), log_var.exp()

    def log_w(times_p, times_q, variance=sigma2, log_sigma2=log_var):
        log_q = -0.5 * (square / variance + log_sigma2)
        return (times_p * log_p + times_q * log_q).sum(dim=2) - recon

    c = -0.5 * 5 * math.log(2 * math.pi)  # of each density: torch.distributions has it
    right = importance.log_weights(recon, z, mu, log_var)
    added, no_p, no_q = log_w(1, 1), log_w(0, -1), log_w(1, 0)
    no_log = [log_w(1, -1, log_sigma2=log_sigma2) for log_sigma2 in (0, -log_var)]
    # σ where σ² belongs; and, as in Normal(mu, σ²), σ² where σ belongs
    other_variances = [log_w(1, -1, sigma2.sqrt()), log_w(1, -1, sigma2**2, 2 * log_var)]
    elbo = -losses.kl_standard_normal(mu, log_var) - recon
    mistakes = {
        "log p(x|z) with the wrong sign: recon is −log p(x|z)": right + 2 * recon,
        "log q added: w divides by q, so log q is subtracted": [added, added + 2 * c],
        "log p(x|z) − log q(z|x): the prior's log p(z) is missing": [no_p, no_p - c],
        "log p(x|z) + log p(z): without − log q(z|x), z counts as the prior's": [no_q, no_q + c],
        "the KL in closed form, which makes it the ELBO: take log p(z) and log q(z|x) at each "
        "z": elbo,
        "missing the factor ½ in the densities": log_w(2, -2),
        "log q without −½ log σ², or with +: where σ is small, the density is higher": no_log,
        "another number where σ² belongs in log q: σ² is exp(log_var)": other_variances,
    }
    learn = {"recon": recon, "z": z, "mu": mu, "log_var": log_var}
    return compare(answer, (recon, z, mu, log_var), right, mistakes, learn=learn)


@ours(importance.importance_weighted_bound)
def bound(answer: Callable[[Tensor], Tensor]) -> Verdict:
    """Check answer(log_w) -> `(B,)`, the log of the mean of w over the K samples."""
    (log_w,) = draw((5, 4), learn=True)
    # Three images that tell the mistakes apart, and one for which exp(log_w) is 0, in float64 too.
    log_w = 2 * log_w - torch.tensor([0.0, 0.0, 0.0, 1000.0])
    right = importance.importance_weighted_bound(log_w)
    over_images = importance.importance_weighted_bound(log_w.T)
    mistakes = {
        "exp(log w) as it stands: e^−1000 is 0, and log 0 is −inf; use torch.logsumexp, which "
        "takes out each image's largest log w first": log_w.exp().mean(dim=0).log(),
        "the mean of log w, which is the ELBO: the mean belongs inside the log": log_w.mean(dim=0),
        "the log of the sum: for the mean subtract log K, K = len(log_w)": log_w.logsumexp(dim=0),
        "the mean over images instead of over samples: the samples are dim=0": over_images,
        "the negative of the bound: it is a bound on log p(x), higher is better": -right,
    }
    return compare(answer, (log_w,), right, mistakes, per_image=True, learn={"log_w": log_w})


@ours(importance.fit_q)
def own_q(answer: Callable) -> Verdict:
    """Check answer(model, x, n_steps, lr, k, generator) -> mu and log_var of each image's own q."""
    with seeded():
        model = VAE(3, 5, (1, 2, 4))
        for weight in model.parameters():  # larger than at the start of a training
            torch.nn.init.normal_(weight, std=0.5)
    (x,) = draw((4, 8))
    x, before = x.sigmoid(), [weight.detach().clone() for weight in model.parameters()]

    def found(fit: Callable, n_steps: int = 6, **mistake) -> Tensor | Verdict:
        generator = torch.Generator().manual_seed(7)
        q = fit(model, x.clone(), n_steps, 0.1, 2, generator, **mistake)
        if any(not torch.equal(a, b) for a, b in zip(model.parameters(), before)):
            with torch.no_grad():
                for weight, as_it_was in zip(model.parameters(), before):
                    weight.copy_(as_it_was)
            return Verdict(
                "Not yet: the model's weights have changed: only mu and log_var are to be fitted, "
                "which are each image's own."
            )
        if not isinstance(q, tuple | list) or len(q) != 2:
            return q  # `compare` has words for most of these
        return torch.cat([*q], dim=1)

    mistakes = {
        "the encoder's own mu and log_var: nothing was fitted": found(_slip, n_steps=0),
        "a single step, whatever `n_steps` is": found(_slip, last=1),
        "gradients that add up: call `zero_grad` in every step": found(_slip, zero=False),
        "a loss that grows: −ELBO is recon + KL": found(_slip, sign=-1),
        "recon alone: the KL is missing": found(_slip, kl=0),
        "the KL subtracted: it is a cost, add it": found(_slip, kl=-1),
        "the sum over the k draws: take their mean": found(_slip, recon=2),
        "mu in place of z: the noise is forgotten": found(_slip, noise=0),
        "one eps for all images": found(_slip, rows=1),
        "mu alone: log_var is fitted too": found(_slip, parts=slice(0, 1)),
        "log_var alone: mu is fitted too": found(_slip, parts=slice(1, 2)),
        "a start at 0: begin at the encoder's mu and log_var": found(_slip, start=0),
        "a rate that stays: it falls in a straight line from lr to 0": found(_slip, falls=0),
    }
    right = found(importance.fit_q)
    return compare(lambda: found(answer), (), right, mistakes)


def _slip(
    model,
    x,
    n_steps,
    lr,
    k,
    generator,
    *,
    last=None,
    zero=True,
    sign=1,
    kl=1,
    recon=1,
    noise=1,
    rows=None,
    parts=slice(None),
    start=1,
    falls=1,
):
    """Fit as `importance.fit_q` does; what follows the generator makes common mistakes."""
    q = [start * part.detach() for part in model.encode(x)]
    optimizer = torch.optim.Adam([part.requires_grad_() for part in q][parts], lr)
    for step in range(n_steps)[:last]:
        optimizer.param_groups[0]["lr"] = lr * (1 - falls * step / n_steps)
        eps = noise * torch.randn((k, rows or len(x), q[0].shape[1]), generator=generator)
        z = q[0] + torch.exp(0.5 * q[1]) * eps
        nll = losses.bernoulli_nll(model.decode(z.flatten(0, 1)), x.repeat(k, 1)).view(k, -1)
        loss = sign * (recon * nll.mean(dim=0) + kl * losses.kl_standard_normal(*q))
        if zero:
            optimizer.zero_grad()
        loss.sum().backward(inputs=q)
        optimizer.step()
    return [part.detach() for part in q]
