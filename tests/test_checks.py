"""checks: the right answer, no answer, and each common mistake told from the others.

The wrong answers below are written as a learner would write them, without the checks' own tensors.
"""

import functools
import importlib
import io
import math
import pkgutil

import ipywidgets as widgets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import traitlets
from PIL import Image
from torch import nn

from vae_lesson.teaching import checks
from vae_lesson.teaching.checks.diagnosis import diagnose, fault_named
from vae_lesson.teaching.checks.verdict import Verdict

MODULES = [
    importlib.import_module(f"{checks.__name__}.{file.name}")
    for file in pkgutil.iter_modules(checks.__path__)
    if file.name != "verdict"
]
HOMES = {  # {check: its module}
    name: module
    for module in MODULES
    for name, value in vars(module).items()
    if callable(value) and value.__module__ == module.__name__ and name[0].islower()
    if not name.startswith("our_")
    if not name.startswith("our_")  # what a lesson goes on with while an exercise is unsolved
}

# --- right answers --------------------------------------------------------------------------------


def kl(mu, log_var):
    return -0.5 * torch.sum(1 + log_var - mu**2 - torch.exp(log_var), dim=1)


def bce(x_logits, x):
    return F.binary_cross_entropy_with_logits(x_logits, x, reduction="none")


def traversal(z, j, values):
    codes = z.repeat(len(values), 1)
    codes[:, j] = values
    return codes


def area(normal, strange):
    difference = strange[:, None] - normal
    return ((difference > 0).float() + (difference == 0).float() / 2).mean()


def log_normal(z, mu, sigma):
    return torch.distributions.Normal(mu, sigma).log_prob(z).sum(dim=-1)


def log_p(z):
    return log_normal(z, 0.0, 1.0)


def log_q(z, mu, log_var):
    return log_normal(z, mu, torch.exp(log_var / 2))


def log_weights(recon, z, mu, log_var):
    return -recon + log_p(z) - log_q(z, mu, log_var)


def bound(log_w):
    largest = log_w.max(dim=0).values
    return largest + torch.log(torch.exp(log_w - largest).mean(dim=0))


def bits(nats, n_pixels):
    return (nats + n_pixels * math.log(256)) / (n_pixels * math.log(2))


def beta(pixels, latents, kl_weight, n_pixels, latent_size):
    result = kl_weight
    if pixels == "mean":
        result = result * n_pixels
    if latents == "mean":
        result = result / latent_size
    return result


def matching_loss(velocity, z1, z0, t, target=lambda z1, z0: z1 - z0):
    return ((velocity((1 - t) * z0 + t * z1, t) - target(z1, z0)) ** 2).sum(dim=1)


def euler(velocity, z, n_steps, dt=None, first=0.0, t_step=None, n=None):
    """Return the last place of n steps, as a learner's loop goes; the rest are common mistakes."""
    t = first * torch.ones(len(z), 1)
    for _ in range(n_steps if n is None else n):
        z = z + (1 / n_steps if dt is None else dt) * velocity(z, t)
        t = t + (1 / n_steps if t_step is None else t_step)
    return z


def heun(velocity, z, t, dt):
    v = velocity(z, t)
    return z + dt * 0.5 * (v + velocity(z + dt * v, t + dt))


def of_every_label(neg_elbo, x, n_classes, seed, step=0):
    each = [neg_elbo(x, torch.full((len(x),), c), seed + c * step) for c in range(n_classes)]
    return torch.stack(each, dim=1)


def entropy_of(tokens, n_codes, log=torch.log):
    p = torch.stack([(tokens == k).float().mean() for k in range(n_codes)])
    return -(p[p > 0] * log(p[p > 0])).sum()


def nll_of(logits, c):
    return F.cross_entropy(logits.flatten(0, 1), c.flatten(), reduction="none").view(c.shape)


def scale_of(m, x, dim=None, power=0.5, factor=3**0.5 / math.pi):
    errors = ((x - m) ** 2).detach()
    variance = errors.mean() if dim is None else errors.mean(dim)
    return power * torch.log(variance) + math.log(factor)


def channels_of(x, shape):
    return x.view(len(x), *shape).mean(dim=(2, 3))


class Own(nn.Module):
    """A network by the contract of lesson 11; the options are mistakes."""

    def __init__(self, shape, latent_size, heads=2, end=(), deaf=False):
        super().__init__()
        n = math.prod(shape)
        self.to_code = nn.Linear(n, heads * latent_size)
        self.to_image = nn.Sequential(nn.Linear(latent_size, n), *(part() for part in end))
        self.deaf = deaf

    def encode(self, x):
        return self.to_code(x.flatten(1)).tensor_split(2, dim=1)

    def decode(self, z):
        return self.to_image(0 * z if self.deaf else z)


class OneCode(Own):
    def encode(self, x):
        return self.to_code(x.flatten(1))


RIGHT = {
    "squared_error": lambda x_hat, x: ((x_hat - x) ** 2).sum(dim=1),
    "lerp": lambda z0, z1, t: (1 - t) * z0 + t * z1,
    "reparameterize": lambda mu, log_var, eps: mu + eps * torch.exp(log_var / 2),
    "kl_divergence": kl,
    "neg_elbo": lambda x_logits, x, mu, log_var: bce(x_logits, x).sum(dim=1) + kl(mu, log_var),
    "traversal": traversal,
    "attribute_direction": lambda codes, has_it: codes[has_it].mean(0) - codes[~has_it].mean(0),
    "threshold": lambda scores, rate: torch.quantile(scores, 1 - rate),
    "roc_area": area,
    "log_weights": log_weights,
    "bound": bound,
    "entropy": lambda x: -(torch.xlogy(x, x) + torch.xlogy(1 - x, 1 - x)).sum(dim=1),
    "bits_per_dimension": bits,
    "effective_beta": beta,
    "free_bits": lambda kl_j, least: torch.clamp(kl_j.mean(dim=0), min=least).sum(),
    "matching_loss": matching_loss,
    "euler": euler,
    "heun": heun,
    "guide": lambda free, asked, w: (1 - w) * free + w * asked,
    "joint": lambda neg_elbo, n_classes: neg_elbo - math.log(1 / n_classes),
    "classify": lambda *a: of_every_label(*a).min(dim=1).indices,
    "perplexity": lambda tokens, n: torch.exp(entropy_of(tokens, n)),
    "bound_in_nats": lambda recon, logits, c: recon + nll_of(logits, c).sum(dim=1),
    "log_scale": scale_of,
    "warmth": lambda x, shape: channels_of(x, shape)[:, 0] - channels_of(x, shape)[:, 2],
}

# --- wrong answers: a part of the message, and how to earn it -------------------------------------


def mean_bce(x_logits, x):
    return F.binary_cross_entropy_with_logits(x_logits, x)


def kl_of_sigma(mu, sigma):
    return 0.5 * torch.sum(mu**2 + sigma**2 - 1 - torch.log(sigma**2), dim=1)


def changed_in_a_loop(z, j, values, copy=lambda code: code):
    codes = []
    for value in values:
        z[j] = value
        codes.append(copy(z))
    return torch.stack([code + 0 for code in codes])


def bell(times):
    return lambda scores, rate: scores.mean() + times * scores.std()


def half_squares(z):
    """Return ½ z² summed over dimensions: -log N(z; 0, I) without its constant."""
    return 0.5 * (z**2).sum(dim=-1)


def per_factor(mean_of_pixels, mean_of_latents):
    """Return an answer that multiplies by a function of (n_pixels, latent_size) for each mean."""

    def answer(p, j, w, n, latent_size):
        by_pixels = mean_of_pixels(n, latent_size) if p == "mean" else 1
        return w * by_pixels * (mean_of_latents(n, latent_size) if j == "mean" else 1)

    return answer


def exchanged(p, j, w, n, latent_size):
    return w * (n if p == "sum" else 1) / (latent_size if j == "sum" else 1)


WRONG = {
    "squared_error": [  # (x_hat, x)
        ("the mean over pixels", lambda a, x: ((a - x) ** 2).mean(dim=1)),
        ("one number for the whole batch", lambda a, x: ((a - x) ** 2).sum()),
        ("one number for the whole batch", lambda a, x: F.mse_loss(a, x)),
        ("one number for the whole batch", lambda a, x: F.mse_loss(a, x, reduction="sum") / len(x)),
        ("the sum over images", lambda a, x: ((a - x) ** 2).sum(dim=0)),
        ("the absolute difference", lambda a, x: (a - x).abs().sum(dim=1)),
        ("leave out the square root", lambda a, x: torch.norm(a - x, dim=1)),
        ("difference without a square", lambda a, x: (a - x).sum(dim=1)),
        ("difference without a square", lambda a, x: (x - a).sum(dim=1)),
        ("before the sum over pixels", lambda a, x: (a - x) ** 2),
    ],
    "lerp": [  # (z0, z1, t)
        ("from z1 to z0", lambda z0, z1, t: t * z0 + (1 - t) * z1),
        ("the midpoint", lambda z0, z1, t: 0.5 * z0 + 0.5 * z1),
        ("at t = 1 that is z0 + z1", lambda z0, z1, t: z0 + t * z1),
    ],
    "reparameterize": [  # (mu, log_var, eps)
        ("log σ² used as σ", lambda m, v, e: m + v * e),
        ("the variance used as σ", lambda m, v, e: m + v.exp() * e),
        ("halved but not exponentiated", lambda m, v, e: m + v / 2 * e),
        ("which is 1/σ", lambda m, v, e: m + e * torch.exp(-v / 2)),
        ("the noise is forgotten", lambda m, v, e: m),
    ],
    "kl_divergence": [  # (mu, log_var)
        (
            "the mean over latent dimensions",
            lambda m, v: -0.5 * torch.mean(1 + v - m**2 - v.exp(), dim=1),
        ),
        ("where σ² belongs", lambda m, v: -0.5 * (1 + v - m**2 - torch.exp(v / 2)).sum(dim=1)),
        ("the factor ½", lambda m, v: -torch.sum(1 + v - m**2 - v.exp(), dim=1)),
        ("the wrong sign", lambda m, v: 0.5 * (1 + v - m**2 - v.exp()).sum(dim=1)),
        ("the wrong sign", lambda m, v: 0.5 * (1 + v - m**2 - v.exp()).sum()),
        ("one number for", lambda m, v: -0.5 * (1 + v - m**2 - v.exp()).sum()),
        ("one number for", lambda m, v: kl(m, v).mean()),
        ("one number for", lambda m, v: -0.5 * (1 + v - m**2 - v.exp()).mean()),
        ("before the sum", lambda m, v: -0.5 * (1 + v - m**2 - v.exp())),
        ("where σ² belongs", lambda m, v: kl_of_sigma(m, v)),
        ("where σ² belongs", lambda m, v: -0.5 * (1 + v - m**2 - v).sum(dim=1)),
        ("mu where mu²", lambda m, v: -0.5 * (1 + v - m - v.exp()).sum(dim=1)),
    ],
    "neg_elbo": [  # (x_logits, x, mu, log_var)
        ("mean over pixels", lambda a, x, m, v: bce(a, x).mean(dim=1) + kl(m, v)),
        ("mean over pixels", lambda a, x, m, v: mean_bce(a, x) + kl(m, v)),
        ("mean over pixels", lambda a, x, m, v: mean_bce(a, x) + kl(m, v).mean()),
        ("KL subtracted", lambda a, x, m, v: bce(a, x).sum(dim=1) - kl(m, v)),
        ("the ELBO itself", lambda a, x, m, v: -bce(a, x).sum(dim=1) - kl(m, v)),
        ("one number for", lambda a, x, m, v: bce(a, x).sum() + kl(m, v).sum()),
        ("one number for", lambda a, x, m, v: (bce(a, x).sum(dim=1) + kl(m, v)).mean()),
        ("the KL is missing", lambda a, x, m, v: bce(a, x).sum(dim=1)),
        (
            "a sigmoid applied twice",
            lambda a, x, m, v: bce(torch.sigmoid(a), x).sum(dim=1) + kl(m, v),
        ),
        (
            "the mean of the KL over latent dimensions",
            lambda a, x, m, v: bce(a, x).sum(dim=1) + kl(m, v) / m.shape[1],
        ),
    ],
    "traversal": [  # (z, j, values)
        ("added to what is there", lambda z, j, v: z + v[:, None] * torch.eye(4)[j]),
        ("every dimension set", lambda z, j, v: v[:, None] * torch.ones_like(z)),
        ("zeros in the other dimensions", lambda z, j, v: v[:, None] * torch.eye(4)[j]),
        ("another dimension than j", lambda z, j, v: traversal(z, j - 1, v)),
        ("another dimension than j", lambda z, j, v: traversal(z, j + 1, v)),
        ("copies of z", lambda z, j, v: z.repeat(len(v), 1)),
        ("needs a clone", changed_in_a_loop),
        ("the codes as columns", lambda z, j, v: traversal(z, j, v).T),
        ("one code: return", lambda z, j, v: traversal(z, j, v)[0]),
        ("one code: return", lambda z, j, v: traversal(z, j, v)[-1]),
        ("the values of dimension j alone", lambda z, j, v: v),
        ("the values of dimension j alone", lambda z, j, v: v[:, None]),
    ],
    "attribute_direction": [  # (codes, has_it)
        ("the opposite", lambda c, h: c[~h].mean(dim=0) - c[h].mean(dim=0)),
        ("subtract that of the others", lambda c, h: c[h].mean(dim=0)),
        ("sums", lambda c, h: c[h].sum(dim=0) - c[~h].sum(dim=0)),
        ("the mean of all", lambda c, h: c[h].mean(dim=0) - c.mean(dim=0)),
        ("keep its length", lambda c, h: F.normalize(RIGHT["attribute_direction"](c, h), dim=0)),
    ],
    "threshold": [  # (scores, false_alarms)
        ("all but this share", lambda s, rate: torch.quantile(s, rate)),
        ("all but this share", lambda s, rate: s.sort().values[int(rate * len(s))]),
        ("all but this share", lambda s, rate: s.kthvalue(int(rate * len(s))).values),
        ("all but this share", lambda s, rate: s.sort(descending=True).values[36]),
        ("a part of the largest", lambda s, rate: s.max() * (1 - rate)),
        ("a part of the largest", lambda s, rate: s.max() - rate * (s.max() - s.min())),
        ("which flags nobody", lambda s, rate: s.max()),
        *(("the bell curve", bell(times)) for times in (1, 1.2816, 1.6449, 2, 3)),
        ("a place in the sorted scores", lambda s, rate: (1 - rate) * len(s)),
        ("a place in the sorted scores", lambda s, rate: round(rate * len(s))),
        ("the flags", lambda s, rate: s > s.quantile(1 - rate)),
    ],
    "roc_area": [  # (normal, strange)
        ("a normal image has the higher score", lambda a, b: area(b, a)),
        ("counted as lost", lambda a, b: (b[:, None] > a[None, :]).float().mean()),
        ("counted as won", lambda a, b: (b[:, None] >= a).float().mean()),
        ("one normal image for each", lambda a, b: (b > a).float().mean()),
        ("one normal image for each", lambda a, b: (b >= a).float().mean()),
        ("one normal image for each", lambda a, b: ((b > a) + 0.5 * (b == a)).mean()),
        ("the number of pairs", lambda a, b: sum(y > x for y in b for x in a)),
        ("the number of pairs", lambda a, b: area(a, b) * len(a) * len(b)),
        ("the table of all pairs", lambda a, b: b[:, None] > a),
        ("the table of all pairs", lambda a, b: b > a[:, None]),
        ("the table of all pairs", lambda a, b: (b > a[:, None]) + 0.5 * (b == a[:, None])),
        ("one number an image", lambda a, b: torch.stack([area(a, y[None]) for y in b])),
        ("one number an image", lambda a, b: torch.stack([area(x[None], b) for x in a])),
        ("a comparison of two means", lambda a, b: b.mean() > a.mean()),
        ("a comparison of two means", lambda a, b: b.mean() - a.mean()),
    ],
    "log_weights": [  # (recon, z, mu, log_var)
        ("with the wrong sign: recon", lambda r, z, m, v: r + log_p(z) - log_q(z, m, v)),
        ("log q added", lambda r, z, m, v: -r + log_p(z) + log_q(z, m, v)),
        (
            "log q added",
            lambda r, z, m, v: (
                -r - half_squares(z) - half_squares((z - m) / (v / 2).exp()) - v.sum(1) / 2
            ),
        ),
        ("the prior's log p(z) is missing", lambda r, z, m, v: -r - log_q(z, m, v)),
        (
            "the prior's log p(z) is missing",
            lambda r, z, m, v: -r + half_squares((z - m) / (v / 2).exp()) + v.sum(dim=1) / 2,
        ),
        ("z counts as the prior's", lambda r, z, m, v: -r + log_p(z)),
        ("z counts as the prior's", lambda r, z, m, v: -r - half_squares(z)),
        ("the KL in closed form", lambda r, z, m, v: -r - kl(m, v)),
        ("in only one of the two", lambda r, z, m, v: -r - half_squares(z) - log_q(z, m, v)),
        (
            "in only one of the two",
            lambda r, z, m, v: (
                -r + log_p(z) + half_squares((z - m) / torch.exp(v / 2)) + 0.5 * v.sum(dim=1)
            ),
        ),
        ("the factor ½", lambda r, z, m, v: -r + (-(z**2) + (z - m) ** 2 / v.exp() + v).sum(dim=2)),
        (
            "the factor ½",
            lambda r, z, m, v: -r + (-(z**2) + 0.5 * (z - m) ** 2 / v.exp() + 0.5 * v).sum(dim=2),
        ),
        (
            "the factor ½",
            lambda r, z, m, v: -r + (-0.5 * z**2 + (z - m) ** 2 / v.exp() + v).sum(dim=2),
        ),
        (
            "without −½ log σ²",
            lambda r, z, m, v: -r - half_squares(z) + half_squares((z - m) / torch.exp(v / 2)),
        ),
        (
            "without −½ log σ²",
            lambda r, z, m, v: (
                -r + (-0.5 * z**2 - (-0.5 * (z - m) ** 2 / v.exp() + 0.5 * v)).sum(dim=2)
            ),
        ),
        (
            "where σ² belongs",
            lambda r, z, m, v: -r + (-0.5 * z**2 + 0.5 * ((z - m) ** 2 / v + v)).sum(dim=2),
        ),
        ("where σ² belongs", lambda r, z, m, v: -r + log_p(z) - log_normal(z, m, torch.exp(v))),
        (
            "where σ² belongs",
            lambda r, z, m, v: (
                -r + (-0.5 * z**2 + 0.5 * ((z - m) ** 2 / torch.exp(v / 2) + v)).sum(dim=2)
            ),
        ),
        (
            "the mean over latent dimensions",
            lambda r, z, m, v: -r + 0.5 * ((z - m) ** 2 / v.exp() + v - z**2).mean(dim=2),
        ),
        ("w itself", lambda *a: torch.exp(log_weights(*a))),
        ("the negative of", lambda *a: -log_weights(*a)),
        ("one number for", lambda *a: log_weights(*a).mean(dim=0)),
        ("one number for", lambda *a: log_weights(*a).mean()),
        ("one number for", lambda *a: log_weights(*a).sum()),
    ],
    "entropy": [  # (x)
        ("one side of the coin", lambda x: -torch.xlogy(x, x).sum(dim=1)),
        ("one side of the coin", lambda x: -torch.xlogy(1 - x, 1 - x).sum(dim=1)),
        ("the wrong sign", lambda x: -RIGHT["entropy"](x)),
        ("the mean over pixels", lambda x: RIGHT["entropy"](x) / x.shape[1]),
        ("bits", lambda x: RIGHT["entropy"](x) / math.log(2)),
        ("a sum over images", lambda x: RIGHT["entropy"](x.T)),
        ("one number for", lambda x: RIGHT["entropy"](x).mean()),
    ],
    "bound": [  # (log_w)
        ("as it stands", lambda w: w.exp().mean(dim=0).log()),
        ("as it stands", lambda w: w.double().exp().mean(dim=0).log()),
        ("as it stands", lambda w: w.exp().sum(dim=0).log()),
        ("as it stands", lambda w: w.max() + torch.log(torch.exp(w - w.max()).mean(dim=0))),
        ("which is the ELBO", lambda w: w.mean(dim=0)),
        ("subtract log K", lambda w: torch.logsumexp(w, dim=0)),
        ("subtract log K", lambda w: torch.logsumexp(w, dim=0) + math.log(len(w))),
        ("subtract log K", lambda w: torch.logsumexp(w, dim=0) / len(w)),
        (
            "subtract log K",
            lambda w: torch.logsumexp(w, dim=0) - math.log(w.shape[1]),
        ),
        ("the mean of w:", lambda w: torch.exp(w).mean(dim=0)),
        ("the mean of w:", lambda w: torch.exp(bound(w))),
        ("the mean over images", lambda w: bound(w.T)),
        ("the mean over images", lambda w: torch.logsumexp(w, dim=1)),
        ("the mean over images", lambda w: w.mean(dim=1)),
        ("the negative", lambda w: -bound(w)),
        ("the negative", lambda w: math.log(len(w)) - w.logsumexp(0)),
        ("one number for", lambda w: bound(w).mean()),
        ("one number for", lambda w: bound(w).sum()),
        ("one number for", lambda w: w.exp().mean().log()),
        ("one number for", lambda w: w.mean()),
    ],
    "bits_per_dimension": [  # (nats, n_pixels)
        ("bits of the density", lambda a, n: a / n / math.log(2)),
        ("bits of the density", lambda a, n: a / n / math.log(2) - 8),
        ("bits of the density", lambda a, n: (a + math.log(256)) / math.log(2) / n),
        ("255 levels", lambda a, n: a / n / math.log(2) + math.log2(255)),
        ("nats: divide", lambda a, n: a / n),
        ("nats: divide", lambda a, n: (a + n * math.log(256)) / n),
        ("nats: divide", lambda a, n: a / n + 8),
        ("added up", lambda a, n: a / n / math.log(2) + math.log(256)),
        ("added up", lambda a, n: (a + 8 * n) / n / math.log(2)),
        ("multiplying", lambda a, n: a / n * math.log(2) + 8),
        ("multiplying", lambda a, n: a / n * math.log(2)),
        ("multiplying", lambda a, n: (a / n + math.log(256)) * math.log(2)),
        ("bits of the whole image", lambda a, n: a / math.log(2) + 8 * n),
        ("bits of the whole image", lambda a, n: a / math.log(2) + 8),
        ("bits of the whole image", lambda a, n: a / math.log(2)),
        ("the wrong sign", lambda a, n: bits(-a, n)),
        ("the wrong sign", lambda a, n: -bits(a, n)),
        ("one number for", lambda a, n: bits(a, n).mean()),
        ("one number for", lambda a, n: bits(a.mean(), n)),
    ],
    "effective_beta": [  # (pixels, latents, kl_weight, n_pixels, latent_size)
        ("the inverse", lambda *a: 1 / beta(*a)),
        ("the inverse", per_factor(lambda n, k: 1 / n, lambda n, k: k)),
        ("over pixels counted", per_factor(lambda n, k: 1 / n, lambda n, k: 1 / k)),
        ("over latents counted", per_factor(lambda n, k: n, lambda n, k: k)),
        ("sum and mean exchanged", exchanged),
        ("n_pixels and latent_size exchanged", per_factor(lambda n, k: k, lambda n, k: 1 / n)),
        ("the weight alone", lambda p, j, w, n, k: w),
        ("without the weight", lambda p, j, w, n, k: beta(p, j, 1, n, k)),
        ("without the weight", lambda p, j, w, n, k: beta(p, j, 1, n, k) / w),
        ("the pixels alone", lambda p, j, w, n, k: w * n if p == "mean" else w),
        ("the latents alone", lambda p, j, w, n, k: w / k if j == "mean" else w),
    ],
    "free_bits": [  # (kl_j, least)
        ("the limit on every image", lambda k, least: k.clamp(min=least).sum(1).mean()),
        ("the limit on every image", lambda k, least: k.clamp(min=least).mean(0).sum()),
        ("the limit on every image", lambda k, least: k.clamp(min=least).sum(dim=1)),
        ("the limit on every image", lambda k, least: k.clamp(min=least).sum()),
        ("no limit", lambda k, least: k.sum(dim=1).mean()),
        ("no limit", lambda k, least: max(k.sum(dim=1).mean(), least)),
        ("no limit", lambda k, least: k.sum(dim=1).clamp(min=least).mean()),
        ("an upper limit", lambda k, least: k.mean(dim=0).clamp(max=least).sum()),
        ("what is over the limit", lambda k, least: F.relu(k.mean(0) - least).sum()),
        ("what is over the limit", lambda k, least: sum(kl for kl in k.mean(dim=0) if kl > least)),
        ("what is over the limit", lambda k, least: F.relu(k.sum(1).mean() - least)),
        ("the sum over the batch", lambda k, least: k.sum(0).clamp(min=least).sum()),
        ("the images are dim=0", lambda k, least: k.mean(1).clamp(min=least).sum()),
        ("the images are dim=0", lambda k, least: k.mean(1).clamp(min=least).mean()),
        ("the images are dim=0", lambda k, least: k.mean(1).clamp(min=least)),
        ("no sum over dimensions", lambda k, least: k.mean(0).clamp(min=least).mean()),
        ("no sum over dimensions", lambda k, least: k.mean(dim=0).clamp(min=least)),
        (
            "no sum over dimensions",
            lambda k, least: RIGHT["free_bits"](k, least) * torch.ones(len(k)),
        ),
    ],
    "matching_loss": [  # (velocity, z1, z0, t)
        ("one t for the whole batch", lambda v, b, a, t: matching_loss(v, b, a, t[0])),
        ("one t for the whole batch", lambda v, b, a, t: matching_loss(v, b, a, t.mean())),
        ("one t for the whole batch", lambda v, b, a, t: matching_loss(v, b, a, t[-1])),
        ("time turned round", lambda v, b, a, t: matching_loss(v, a, b, t)),
        (
            "time turned round",
            lambda v, b, a, t: matching_loss(v, b, a, t, target=lambda b, a: a - b),
        ),
        (
            "time turned round",
            lambda v, b, a, t: matching_loss(v, a, b, t, target=lambda a, b: b - a),
        ),
        (
            "the code as the target",
            lambda v, b, a, t: matching_loss(v, b, a, t, target=lambda b, a: b),
        ),
        ("between them", lambda v, b, a, t: (v(a, t) - b + a).square().sum(dim=1)),
        ("between them", lambda v, b, a, t: (v(b, t) - b + a).square().sum(dim=1)),
        ("sum them", lambda v, b, a, t: (v(a + t * (b - a), t) - b + a).square().mean(dim=1)),
        ("the root", lambda v, b, a, t: torch.norm(v(a + t * (b - a), t) - b + a, dim=1)),
        ("one number for", lambda v, b, a, t: matching_loss(v, b, a, t).mean()),
        ("one number for", lambda v, b, a, t: matching_loss(v, b, a, t).sum()),
        ("one number for", lambda v, b, a, t: F.mse_loss(v(a + t * (b - a), t), b - a)),
    ],
    "euler": [  # (velocity, z, n_steps)
        ("at t = 0 in every step", lambda *a: euler(*a, t_step=0)),
        ("steps of length 1", lambda *a: euler(*a, dt=1)),
        ("steps of length 1", lambda *a: euler(*a, dt=1, t_step=1)),
        ("the way back", lambda v, z, n: euler(v, z, n, dt=-1 / n, first=1.0, t_step=-1 / n)),
        ("the way back", lambda v, z, n: euler(v, z, n, first=1.0, t_step=-1 / n)),
        ("where the step ends", lambda v, z, n: euler(v, z, n, first=1 / n)),
        ("a step too few", lambda v, z, n: euler(v, z, n, n=n - 1)),
        ("a step too many", lambda v, z, n: euler(v, z, n, n=n + 1)),
        (
            "all places on the way",
            lambda v, z, n: torch.stack([euler(v, z, n, n=i) for i in range(n + 1)]),
        ),
        (
            "all places on the way",
            lambda v, z, n: torch.stack([euler(v, z, n, n=i + 1) for i in range(n)]),
        ),
        ("no step at all", lambda v, z, n: z),
    ],
    "heun": [  # (velocity, z, t, dt)
        ("Euler's step:", lambda v, z, t, dt: z + dt * v(z, t)),
        (
            "the sum of the two",
            lambda v, z, t, dt: z + dt * (v(z, t) + v(z + dt * v(z, t), t + dt)),
        ),
        ("only the velocity at the end", lambda v, z, t, dt: z + dt * v(z + dt * v(z, t), t + dt)),
        ("the second velocity at t:", lambda v, z, t, dt: heun(lambda z, _: v(z, t), z, t, dt)),
        ("at z + dt · v", lambda v, z, t, dt: z + dt / 2 * (v(z, t) + v(z, t + dt))),
        ("at z + v:", lambda v, z, t, dt: z + dt / 2 * (v(z, t) + v(z + v(z, t), t + dt))),
        ("the midpoint rule", lambda v, z, t, dt: z + dt * v(z + dt / 2 * v(z, t), t + dt / 2)),
        ("the mean velocity alone", lambda v, z, t, dt: heun(v, z, t, dt) - z),
        ("the mean velocity alone", lambda v, z, t, dt: (heun(v, z, t, dt) - z) / dt),
    ],
    "guide": [  # (free, asked, w)
        ("the paper's w", lambda free, asked, w: (1 + w) * asked - w * free),
        ("turned round", lambda free, asked, w: (1 - w) * asked + w * free),
        ("turned round", lambda free, asked, w: free - w * (asked - free)),
        ("w times one of the two", lambda free, asked, w: free + w * asked),
        ("w times one of the two", lambda free, asked, w: w * asked),
        ("only the difference", lambda free, asked, w: w * (asked - free)),
    ],
    "joint": [  # (neg_elbo, n_classes)
        ("subtracting", lambda a, n: a - math.log(n)),
        ("subtracting", lambda a, n: a + math.log(1 / n)),
        ("bits", lambda a, n: a + math.log2(n)),
        ("as it stands", lambda a, n: a + n),
        ("a probability", lambda a, n: a + 1 / n),
        ("a probability", lambda a, n: a - 1 / n),
        ("the image alone", lambda a, n: a),
        ("in every pixel", lambda a, n: a + 784 * math.log(n)),
        ("a product", lambda a, n: a * math.log(n)),
        ("one number for", lambda a, n: a.mean() + math.log(n)),
        ("one number for", lambda a, n: (a + math.log(n)).sum()),
    ],
    "classify": [  # (neg_elbo, x, n_classes, seed)
        ("other noise", lambda f, x, n, s: of_every_label(f, x, n, s, step=1).argmin(dim=1)),
        ("other noise", lambda f, x, n, s: of_every_label(f, x, n, 0, step=1).argmin(dim=1)),
        ("the label of the largest", lambda *a: of_every_label(*a).argmax(dim=1)),
        ("the label of the largest", lambda *a: (-of_every_label(*a)).argmin(dim=1)),
        ("the smallest −ELBO itself", lambda *a: of_every_label(*a).min(dim=1).values),
        ("the smallest −ELBO itself", lambda *a: of_every_label(*a).amin(dim=1)),
        ("the best image", lambda *a: of_every_label(*a).argmin(dim=0)),
        ("the table of all", of_every_label),
        ("the table of all", lambda *a: of_every_label(*a).T),
        ("for the whole batch", lambda *a: of_every_label(*a).T.argmin()),
        ("for the whole batch", lambda *a: of_every_label(*a).mean(dim=0).argmin()),
    ],
    "perplexity": [  # (tokens, n_codes)
        ("the mean over images", lambda c, n: sum(entropy_of(r, n).exp() for r in c) / len(c)),
        ("the mean over images", lambda c, n: [entropy_of(row, n).exp() for row in c]),
        ("the mean over images", lambda c, n: sum(entropy_of(r, n) / len(c) for r in c).exp()),
        ("the mean over places", lambda c, n: sum(entropy_of(r, n).exp() for r in c.T) / 4),
        ("the entropy: perplexity", entropy_of),
        ("the entropy: perplexity", lambda c, n: entropy_of(c, n, torch.log2)),
        ("the sign forgotten", lambda c, n: torch.exp(-entropy_of(c, n))),
        ("bits in exp", lambda c, n: torch.exp(entropy_of(c, n, torch.log2))),
        ("bits in exp", lambda c, n: 2 ** entropy_of(c, n)),
        ("the number of entries in use", lambda c, n: len(c.unique())),
        ("1 / Σ p²", lambda c, n: 1 / ((c.flatten()[:, None] == c.flatten()).float().mean())),
        ("do not divide by it", lambda c, n: entropy_of(c, n).exp() / n),
    ],
    "bound_in_nats": [  # (recon, logits, tokens)
        ("under a uniform prior", lambda r, o, c: r + c.shape[1] * math.log(o.shape[2])),
        ("a mean over tokens", lambda r, o, c: r + nll_of(o, c).mean(dim=1)),
        ("the wrong sign", lambda r, o, c: r - nll_of(o, c).sum(dim=1)),
        ("the wrong sign", lambda r, o, c: -r - nll_of(o, c).sum(dim=1)),
        ("recon alone", lambda r, o, c: r),
        ("the tokens alone", lambda r, o, c: nll_of(o, c).sum(dim=1)),
        ("log_softmax makes", lambda r, o, c: r - o.gather(2, c.long()[..., None]).sum(dim=(1, 2))),
        ("all entries' log p", lambda r, o, c: r - torch.log_softmax(o, dim=2).sum(dim=(1, 2))),
        ("probabilities:", lambda r, o, c: r + torch.exp(-nll_of(o, c)).sum(dim=1)),
        ("probabilities:", lambda r, o, c: r - torch.exp(-nll_of(o, c)).sum(dim=1)),
        ("bits: recon", lambda r, o, c: r + nll_of(o, c).sum(dim=1) / math.log(2)),
        ("one number for", lambda r, o, c: (r + nll_of(o, c).sum(dim=1)).mean()),
    ],
    "log_scale": [  # (x_mean, x)
        ("the standard deviation", functools.partial(scale_of, factor=1)),
        ("take half of the logarithm", functools.partial(scale_of, power=1)),
        ("take half of the logarithm", functools.partial(scale_of, power=1, factor=1)),
        ("return its logarithm", lambda m, x: torch.exp(scale_of(m, x))),
        ("√3/π multiplies", functools.partial(scale_of, factor=math.pi / math.sqrt(3))),
        ("one scale for each image", functools.partial(scale_of, dim=1)),
        ("one scale for each pixel", lambda m, x: torch.log((x - m).abs() * 3**0.5 / math.pi)),
        ("a sum over the pixels", lambda m, x: scale_of(m, x) + 0.5 * math.log(x.numel())),
        ("a sum over the pixels", lambda m, x: scale_of(m, x) + 0.5 * math.log(x.shape[1])),
        ("the mean distance", lambda m, x: torch.log((x - m).abs().mean() * 3**0.5 / math.pi)),
    ],
    "warmth": [  # (x, shape)
        (
            "channels last",
            lambda x, s: (x[:, 0::3] - x[:, 2::3]).mean(dim=1),
        ),
        ("blue less red", lambda x, s: -channels_of(x, s)[:, 0] + channels_of(x, s)[:, 2]),
        ("red less green", lambda x, s: channels_of(x, s)[:, 0] - channels_of(x, s)[:, 1]),
        ("red alone", lambda x, s: channels_of(x, s)[:, 0]),
        ("a sum over the pixels", lambda x, s: (x[:, :16] - x[:, -16:]).sum(dim=1)),
        ("one value a pixel", lambda x, s: x[:, :16] - x[:, -16:]),
        ("one value a pixel", lambda x, s: x.view(-1, *s)[:, 0] - x.view(-1, *s)[:, 2]),
        ("one number for", lambda x, s: (x[:, :16] - x[:, -16:]).mean()),
    ],
}

every_check = pytest.mark.parametrize("name", RIGHT)


def run(name, answer):
    verdict = getattr(HOMES[name], name)(answer)
    assert repr(verdict) == str(verdict)  # a notebook shows it without quotes
    return verdict


def test_every_check_is_tested():
    # These compare names, not tensors, and have tests of their own at the end.
    assert set(HOMES) - {"diagnose", "fault_named", *BUILT} == set(RIGHT)


# --- right ----------------------------------------------------------------------------------------


@every_check
def test_the_right_answer_is_correct(name):
    verdict = run(name, RIGHT[name])
    assert verdict == "Correct." and verdict.ok is True


@every_check
def test_arrays_and_other_precisions_and_gradients_are_no_mistake(name):
    def of(convert):
        return lambda *arguments: convert(torch.as_tensor(RIGHT[name](*arguments)))

    assert run(name, of(lambda result: result.numpy())).ok
    assert run(name, of(lambda result: result.tolist())).ok
    assert run(name, of(lambda result: result.double())).ok
    assert run(name, of(lambda result: result.double().requires_grad_())).ok


@every_check
def test_changing_the_arguments_in_place_cannot_break_the_check(name):
    def spoilt(*arguments):
        result = torch.as_tensor(RIGHT[name](*arguments)).clone()
        for argument in arguments:
            if isinstance(argument, torch.Tensor):
                argument.zero_()
        return result

    assert run(name, spoilt).ok
    assert run(name, RIGHT[name]).ok  # nor the next one


@pytest.mark.parametrize("kind", [float, np.float32, np.array, torch.tensor])
def test_a_beta_may_be_any_kind_of_number(kind):
    def answer(pixels, *rest):  # one kind in two cases, an int or a float in the others
        result = beta(pixels, *rest)
        return kind(result) if pixels == "sum" else (int(result) if result == 50 else result)

    assert run("effective_beta", answer).ok


def test_a_beta_must_be_there_in_every_case():
    verdict = run("effective_beta", lambda *a: beta(*a) if a[0] == "sum" else None)
    assert not verdict.ok and "returns nothing" in verdict


def test_an_answer_made_in_place_is_correct():
    assert run("reparameterize", lambda mu, v, eps: v.div_(2).exp_().mul_(eps).add_(mu)).ok


@every_check
def test_a_check_leaves_the_global_random_state(name):
    state = torch.get_rng_state()
    run(name, RIGHT[name])
    assert torch.equal(torch.get_rng_state(), state)


# --- not yet --------------------------------------------------------------------------------------


def unwritten(*_):
    raise NotImplementedError


def broken(*_):
    raise ZeroDivisionError("division by zero")


@every_check
@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda *_: None, "returns nothing"),
        (lambda *_: ..., "expected a tensor, got ellipsis"),
        (lambda *_: "text", "expected a tensor, got str"),
        (lambda *_: (torch.zeros(2), torch.zeros(2)), "expected a tensor, got tuple"),
        (unwritten, "write the function"),
        (broken, "raised ZeroDivisionError: division by zero"),
        (lambda: 1, "raised TypeError"),  # takes no argument
        (lambda *_: torch.zeros(2, 3) @ torch.zeros(99, 99), "raised RuntimeError"),
    ],
)
def test_what_is_no_answer_is_not_yet_one_and_raises_nothing(name, answer, says):
    verdict = run(name, answer)
    assert verdict.startswith("Not yet: ") and says in verdict
    assert verdict.ok is False


@every_check
def test_the_stub_as_it_stands_is_not_yet_an_answer(name):
    def stub(*_): ...

    assert "returns nothing" in run(name, stub)


@every_check
def test_shape_inf_and_off_values_have_their_messages(name):
    right = RIGHT[name]

    verdict = run(name, lambda *arguments: torch.as_tensor(right(*arguments))[None])
    assert not verdict.ok and "the shape is (1," in verdict and "it should be (" in verdict

    verdict = run(name, lambda *arguments: right(*arguments) + math.inf)
    assert not verdict.ok and "holds NaN or inf" in verdict

    verdict = run(name, lambda *arguments: right(*arguments) + 0.125)
    assert not verdict.ok and "the right shape, but values are off by up to 0.125" in verdict


def test_noise_of_ones_own_is_named():
    verdict = run("reparameterize", lambda m, v, e: m + torch.exp(v / 2) * torch.randn_like(m))
    assert not verdict.ok and "noise of your own" in verdict


@every_check
def test_nan_has_its_message(name):
    verdict = run(name, lambda *arguments: RIGHT[name](*arguments) * math.nan)
    assert not verdict.ok and "holds NaN or inf" in verdict


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, says, answer", [(name, *case) for name, cases in WRONG.items() for case in cases]
)
def test_a_common_mistake_is_named(name, says, answer):
    verdict = run(name, answer)
    assert verdict.startswith("Not yet: this looks like ") and says in verdict
    assert verdict.ok is False


def listed(name, monkeypatch):
    """Return a check's right result and its {message: [wrong results]}."""
    found = {}

    def compare(answer, arguments, right, mistakes):
        found.update(right=right, mistakes=mistakes)
        return Verdict("")

    with monkeypatch.context() as patch:
        patch.setattr(HOMES[name], "compare", compare)
        run(name, None)
    mistakes = {
        message: wrongs if isinstance(wrongs, list) else [wrongs]
        for message, wrongs in found["mistakes"].items()
    }
    return found["right"], mistakes


def same(a, b):
    """Say whether a check could take a for b, with a hundred times its tolerance."""
    if a is None or b is None or a.shape != b.shape:
        return False
    if (a.dtype == torch.bool) != (b.dtype == torch.bool):
        return False
    return torch.allclose(a.double(), b.double(), rtol=1e-2, atol=1e-3)


@every_check
def test_the_mistakes_of_a_check_differ_from_each_other_and_from_the_right_answer(
    name, monkeypatch
):
    right, mistakes = listed(name, monkeypatch)
    for message, wrongs in mistakes.items():
        for result in wrongs:
            assert not same(result, right), message
            assert result is None or not result.double().isnan().any(), message  # NaN fits nothing
            for other, other_wrongs in mistakes.items():
                if other != message:
                    assert not any(same(result, r) for r in other_wrongs), (message, other)


@every_check
def test_every_listed_mistake_is_tested_here_and_no_part_fits_two(name, monkeypatch):
    _, mistakes = listed(name, monkeypatch)
    parts = {says for says, _ in WRONG[name]}
    for part in parts:
        assert sum(part in message for message in mistakes) == 1, part
    for message in mistakes:
        assert any(part in message for part in parts), message


# --- the diagnoses --------------------------------------------------------------------------------

CAUSES = {
    "A": "log_var used as sigma",
    "B": "sigmoid twice",
    "C": "mean for sum",
    "D": "wrong sign of the KL",
    "E": "no noise",
}


@pytest.mark.parametrize("convert", [lambda a: a, lambda a: lambda: a], ids=["dict", "function"])
def test_the_right_diagnoses_are_correct(convert):
    verdict = diagnose(convert(CAUSES))
    assert verdict.ok is True and verdict.startswith("Correct.\nA: right, log_var")
    assert repr(verdict) == str(verdict)


def test_each_wrong_diagnosis_is_answered_by_its_own_symptom():
    said = set()
    for letter, cause in CAUSES.items():
        for fault in set(CAUSES.values()) - {cause}:
            verdict = diagnose({**CAUSES, letter: fault})
            assert verdict.ok is False and verdict.startswith("Not yet: 4 of 5 are right.")
            (line,) = (line for line in verdict.split("\n") if line.startswith(f"{letter}: "))
            assert line.startswith(f"{letter}: not {fault!r}: with it ")
            assert cause not in line  # the answer is not given away
            said.add(line.split(": ", 1)[1])
    assert len(said) == len(CAUSES)


@pytest.mark.parametrize(
    "words, fault",
    [
        *((fault, fault) for fault in CAUSES.values()),
        *((fault.upper() + "!", fault) for fault in CAUSES.values()),
        ("KL sign wrong", "wrong sign of the KL"),
        ("the KL has a minus sign", None),  # "has" is no word of any
        ("the mean, not the sum", "mean for sum"),
        ("log σ² used as σ", "log_var used as sigma"),
        ("logvar as sigma", "log_var used as sigma"),
        ("log var as σ", "log_var used as sigma"),
        ("Noise", "no noise"),
        ("no", None),
        ("variance used as sigma", None),
        ("", None),
        ("the learning rate", None),
    ],
)
def test_any_unambiguous_spelling_names_a_fault(words, fault):
    assert fault_named(words) == fault


@pytest.mark.parametrize(
    "answers, says",
    [
        ({}, "0 of 5 are right.\nA: not yet."),
        (
            {"A": "...", "B": None, "C": ...},
            "0 of 5 are right.\nA: not yet.\nB: not yet.\nC: not y",
        ),
        ({"A": "LOG VAR"}, "1 of 5 are right.\nA: right, log_var used as sigma."),
        ({"A": "the moon"}, "names none or several of the faults: log_var used as sigma, mean"),
        ({"F": "no noise"}, "There is no patient F."),
        (None, "expected a dict"),
        (["no noise"], "got list"),
        (lambda: None, "returns nothing"),
        (lambda: 1 / 0, "raised ZeroDivisionError"),
        (lambda a: {}, "raised TypeError"),
        (unwritten, "write the function"),
    ],
)
def test_what_is_not_yet_a_diagnosis(answers, says):
    verdict = diagnose(answers)
    assert verdict.ok is False and verdict.startswith("Not yet: ") and says in verdict


# --- what is built: networks, and what trains them ------------------------------------------------


class Net(nn.Module):
    """A VAE as a learner writes it; the options are mistakes."""

    def __init__(self, latent_size, hidden_size, heads=2, relu=True, swapped=False, sigmoid=False):
        super().__init__()
        between = [nn.ReLU()] if relu else []
        code = heads * latent_size
        first = [nn.Linear(784, hidden_size), *between, nn.Linear(hidden_size, code)]
        last = [nn.Linear(latent_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, 784)]
        self.encoder, self.decoder = nn.Sequential(*first), nn.Sequential(*last)
        self.swapped, self.sigmoid = swapped, sigmoid

    def encode(self, x):
        mu, log_var = self.encoder(x).chunk(2, dim=1)
        return (log_var, mu) if self.swapped else (mu, log_var)

    def decode(self, z):
        return self.decoder(z).sigmoid() if self.sigmoid else self.decoder(z)


class Conditional(nn.Module):
    """A conditional VAE as a learner writes it; the options are mistakes."""

    def __init__(self, latent, hidden, n_classes, told=("encoder", "decoder"), end=(), first=False):
        super().__init__()
        self.told, self.first, self.n_classes = told, first, n_classes
        n_in, n_code = (n + n_classes * (name in told) for n, name in self.sizes(latent))
        last = [nn.Linear(n_code, hidden), nn.ReLU(), nn.Linear(hidden, 784), *(f() for f in end)]
        first = [nn.Linear(n_in, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent)]
        self.encoder, self.decoder = nn.Sequential(*first), nn.Sequential(*last)

    def sizes(self, latent):
        return (784, "encoder"), (latent, "decoder")

    def with_label(self, name, value, y):
        both = [y, value] if self.first else [value, y]
        return torch.cat(both, dim=1) if name in self.told else value

    def encode(self, x, y):
        return self.encoder(self.with_label("encoder", x, y)).chunk(2, dim=1)

    def decode(self, z, y):
        return self.decoder(self.with_label("decoder", z, y))


class Numbered(Conditional):
    """It is given the label as one number."""

    def __init__(self, latent, hidden, n_classes):
        super().__init__(latent, hidden, 1)

    def with_label(self, name, value, y):
        return torch.cat([value, y.argmax(dim=1, keepdim=True).float()], dim=1)


class Silent(Conditional):
    """Its encoder has room for the label and is given none."""

    def encode(self, x, y):
        return super().encode(x, 0 * y)


def pair(end=(nn.Sigmoid,), relu=(nn.ReLU,), code=()):
    def answer(latent, hidden):
        encoder = [nn.Linear(784, hidden), *(f() for f in relu), nn.Linear(hidden, latent)]
        decoder = [nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, 784)]
        encoder, decoder = encoder + [f() for f in code], decoder + [f() for f in end]
        return nn.Sequential(*encoder), nn.Sequential(*decoder)

    return answer


def train_autoencoder(encoder, decoder, images, epochs, batch_size, lr, generator, **how):
    def loss(x):
        return ((decoder(encoder(x)) - x) ** 2).sum(dim=1).mean()

    weights = [*encoder.parameters(), *decoder.parameters()]
    train(weights, loss, images, epochs, batch_size, lr, generator, **how)


def train_vae(model, images, epochs, batch_size, lr, generator, noise=True, **how):
    def loss(x):
        mu, log_var = model.encode(x)
        eps = torch.randn(mu.shape, generator=generator)
        z = mu + torch.exp(0.5 * log_var) * eps if noise else mu
        return (bce(model.decode(z), x).sum(dim=1) + kl(mu, log_var)).mean()

    train([*model.parameters()], loss, images, epochs, batch_size, lr, generator, **how)


def train(
    weights, loss, images, epochs, batch_size, lr, generator, zero=True, sign=1, n=None, step=True
):
    optimizer = torch.optim.Adam(weights, lr=lr)
    for _ in range(n or epochs):
        for index in torch.randperm(len(images), generator=generator).split(batch_size):
            if zero:
                optimizer.zero_grad()
            (sign * loss(images[index].flatten(1).float() / 255)).backward()
            if step:
                optimizer.step()


def in_place(z, dimensions, numbers):
    for j, number in zip(dimensions, numbers):
        z[j] = number
    return z


def png(pixels, side=28, mode="L"):
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels.numpy()).resize((side, side), Image.Resampling.NEAREST)
    picture.convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def own_sliders(
    decode,
    z,
    dimensions,
    code_of=lambda z, j, numbers: in_place(z.clone(), j, numbers),
    pixels=lambda x: (255 * x).byte(),
    low=-3,
    heard=slice(None),
    names="value",
    first=True,
    box=widgets.VBox,
    **look,
):
    """Return an image and its sliders as a learner writes them; most options are mistakes."""
    image = widgets.Image()
    own = [widgets.FloatSlider(value=z[j].item(), min=low, max=3) for j in dimensions]

    def show(change=None):
        code = code_of(z, dimensions, [slider.value for slider in own])
        image.value = png(pixels(decode(code[None])).view(28, 28), **look)

    for slider in own[heard]:
        slider.observe(show, names)
    if first:
        show()
    return box([image, *own])


def own_sliders_by_change(decode, z, dimensions, keep=False, hears=None, redraws=True):
    """Return the same with a function for each slider; all options but `keep` are mistakes."""
    image, code = widgets.Image(), z.clone()
    own = [widgets.FloatSlider(value=z[j].item(), min=-3, max=3) for j in dimensions]

    def show(j, number):
        now = code if keep else z.clone()
        now[j] = number
        picture = png((255 * decode(now)).round().byte().view(28, 28))
        if redraws or not image.value:
            image.value = picture

    for i, (j, slider) in enumerate(zip(dimensions, own)):
        slider.observe(
            {
                None: lambda change, j=j: show(j, change["new"]),
                "last j": lambda change: show(dimensions[-1], change["new"]),
                "last of all": lambda change: show(dimensions[-1], own[-1].value),
                "i": lambda change, i=i: show(i, change["new"]),
            }[hears],
            "value",
        )
    show(dimensions[0], z[dimensions[0]])
    return widgets.HBox([widgets.VBox(own), widgets.VBox([image])])


def new_images(model, n, latent_size, generator):
    return torch.sigmoid(model.decode(torch.randn((n, latent_size), generator=generator)))


def ratios(loss, output, x, mu, log_var, sign=1, half=0.5, probability=torch.sigmoid):
    leaves = [value.clone().requires_grad_() for value in (output, mu, log_var)]
    loss(leaves[0], x, *leaves[1:]).sum().backward()
    right = sign * (probability(output) - x), mu, half * (torch.exp(log_var) - 1)
    return torch.stack([(leaf.grad / slope).median() for leaf, slope in zip(leaves, right)])


def slopes(loss, output, x, mu, log_var):
    leaves = [value.clone().requires_grad_() for value in (output, mu, log_var)]
    return torch.autograd.grad(loss(leaves[0], x, *leaves[1:]).sum(), leaves)


def noise_as(function, put_back=True):
    def answer(model, x):
        seen, decode = [], model.decode
        model.decode = lambda z: seen.append(z) or decode(z)
        _, mu, log_var = model(x)
        if put_back:
            del model.decode
        return function(seen[0], mu, log_var)

    return answer


eps_of = noise_as(lambda z, mu, log_var: (z - mu) / torch.exp(log_var / 2))


def inspect(model, loss, x, beta=100.0, spread=0.2, far=100.0):
    mu, _ = model.encode(x)
    points = torch.randn_like(x), x, torch.randn_like(mu), torch.randn_like(mu)
    of_output, of_mu, _ = ratios(loss, *points)
    codes, eps = far * torch.randn_like(mu), eps_of(model, x).std()
    wrong = {
        "wrong sign": of_mu < 0,
        "mean for sum": of_mu / of_output > beta,
        "no noise": eps == 0,
        "log_var as sigma": eps > 0 and abs(eps - 1) > spread,
        "sigmoid twice": model.decode(codes).min() >= 0 and model.decode(codes).max() <= 1,
    }
    return [name for name, found in wrong.items() if found]


LOOP = [
    ("not one weight", {"step": False}),
    ("gradients that add up", {"zero": False}),
    ("its sign is turned", {"sign": -1}),
    ("a single epoch", {"n": 1}),
]
BUILT = {  # {check: (right answer, [(part of the message, wrong answer)])}
    "networks": (
        pair(),
        [
            ("lacks the Sigmoid", pair(end=())),
            ("one ReLU in the encoder", pair(relu=())),
            ("one ReLU in the encoder", pair(relu=(nn.ReLU, nn.ReLU))),
            ("ends in ReLU(): a code may be any number", pair(code=(nn.ReLU,))),
            ("ends in Sigmoid(): a code may be any number", pair(code=(nn.Sigmoid,))),
            ("wanted Linear(in_features=784", lambda latent, hidden: pair()(latent, 2 * hidden)),
            ("return two nn.Sequential", lambda latent, hidden: 3),
            ("return two nn.Sequential", lambda latent, hidden: nn.Sequential(nn.ReLU())),
        ],
    ),
    "network": (
        Net,
        [
            ("weights have shapes", functools.partial(Net, heads=1)),
            ("one ReLU missing", functools.partial(Net, relu=False)),
            ("log_var before mu", functools.partial(Net, swapped=True)),
            ("leave the sigmoid", functools.partial(Net, sigmoid=True)),
            ("write the encoder", lambda latent, hidden: nn.Module()),
            ("AttributeError", lambda latent, hidden: 3),
        ],
    ),
    "conditional_network": (
        Conditional,
        [
            ("the label in the decoder only", functools.partial(Conditional, told=("decoder",))),
            ("the label in the decoder only", Silent),
            ("the label in the encoder only", functools.partial(Conditional, told=("encoder",))),
            ("a plain VAE", functools.partial(Conditional, told=())),
            ("the label as a single number", Numbered),
            ("leave the sigmoid", functools.partial(Conditional, end=(nn.Sigmoid,))),
            ("shape is (4, 4), it should be (4, 6)", lambda *s: Conditional(s[0] - 1, *s[1:])),
            ("raised RuntimeError", lambda latent, hidden, n: Conditional(latent, hidden, n + 1)),
            ("write the encoder", lambda *_: nn.Module()),
            ("write the encoder", lambda *_: 3),
            ("are to be nn.Sequential", lambda *s: pair()(s[0], s[1])[0]),
            ("raised TypeError", lambda *s: Net(*s[:2])),
        ],
    ),
    "own_network": (
        Own,
        [
            ("encode must return just (mu, log_var)", OneCode),
            ("encode or decode fails", functools.partial(Own, heads=3)),
            ("codes have 8 numbers, asked for were 4", lambda s, n: Own(s, 2 * n)),
            ("as probabilities are", functools.partial(Own, end=(nn.Sigmoid,))),
            ("every code decodes to the same image", functools.partial(Own, deaf=True)),
            ("write the two networks", lambda *_: nn.Module()),
            ("has no encode and no decode", lambda *_: nn.Linear(3, 4)),
        ],
    ),
    "training": (
        train_autoencoder,
        [(says, functools.partial(train_autoencoder, **how)) for says, how in LOOP],
    ),
    "vae_training": (
        train_vae,
        [
            *((says, functools.partial(train_vae, **how)) for says, how in LOOP),
            ("the noise is forgotten", functools.partial(train_vae, noise=False)),
        ],
    ),
    "sliders": (
        own_sliders,
        [
            ("this holds 0 and 0", lambda *_: widgets.VBox()),
            ("this holds 1 and 2", lambda d, z, j: own_sliders(d, z, j[:2])),
            ("this holds 0 and 0", functools.partial(own_sliders, box=tuple)),
            (
                "start at [0.0, 0.5, 2.5], z has [-2.0, 0.5, 2.5]",
                functools.partial(own_sliders, low=0),
            ),
            ("z has [-2.0, 0.5, 2.5]", lambda d, z, j: own_sliders(d, z, [0, 1, 2])),
            ("no picture before the first move", functools.partial(own_sliders, first=False)),
            ("the picture is black", functools.partial(own_sliders, pixels=lambda x: x.byte())),
            ("the picture is black", functools.partial(own_sliders, pixels=lambda x: x)),
            ("not show the code", functools.partial(own_sliders, pixels=lambda x: 255 - x.byte())),
            (
                "not show the code",
                functools.partial(own_sliders_by_change, keep=True, redraws=False),
            ),
            ("hear more than moves", functools.partial(own_sliders, names=traitlets.All)),
            ("z itself is changed", functools.partial(own_sliders, code_of=in_place)),
            ("nobody hears", functools.partial(own_sliders, heard=slice(0))),
            ("nobody hears", functools.partial(own_sliders, heard=slice(2, 3))),
            ("the loop's last j", functools.partial(own_sliders_by_change, hears="last j")),
            ("the loop's last j", functools.partial(own_sliders_by_change, hears="last of all")),
            ("that moved, alone", own_sliders_by_change),
            (
                "is for dimensions[0]",
                functools.partial(own_sliders_by_change, hears="i", keep=True),
            ),
            (
                "is for dimensions[0]",
                functools.partial(
                    own_sliders, code_of=lambda z, j, n: in_place(z.clone(), range(3), n)
                ),
            ),
            (
                "zeros in the other",
                functools.partial(own_sliders, code_of=lambda z, j, n: in_place(0 * z, j, n)),
            ),
            ("z itself at every move", functools.partial(own_sliders, code_of=lambda z, j, n: z)),
            ("raised TypeError", lambda d, z, j: own_sliders(d, z, j, code_of=lambda z: z)),
        ],
    ),
    "factors": (
        ratios,
        [
            ("the mean of the loss", lambda *a: ratios(*a) / len(a[2])),
            ("the inverse", lambda *a: 1 / ratios(*a)),
            ("themselves", lambda *a: torch.stack([s.median() for s in slopes(*a)])),
            ("themselves", lambda *a: torch.cat([s.flatten() for s in slopes(*a)])),
            ("without its ½", functools.partial(ratios, half=1)),
            ("logits where probabilities", functools.partial(ratios, probability=lambda o: o)),
            ("it is sigmoid(o) − x", functools.partial(ratios, sign=-1)),
        ],
    ),
    "noise": (
        eps_of,
        [
            ("z itself", noise_as(lambda z, mu, v: z)),
            ("z − mu", noise_as(lambda z, mu, v: z - mu)),
            ("z / σ", noise_as(lambda z, mu, v: z / torch.exp(v / 2))),
            ("σ² for σ", noise_as(lambda z, mu, v: (z - mu) / torch.exp(v))),
            ("log_var for σ", noise_as(lambda z, mu, v: (z - mu) / v)),
            ("the opposite sign", noise_as(lambda z, mu, v: (mu - z) / torch.exp(v / 2))),
            ("noise times σ", noise_as(lambda z, mu, v: (z - mu) * torch.exp(v / 2))),
            (
                "put the old one back",
                noise_as(lambda z, mu, v: (z - mu) / torch.exp(v / 2), put_back=False),
            ),
        ],
    ),
    "through": (
        lambda z, e: z + (e - z).detach(),
        [
            ("no gradient at all", lambda z, e: (z + (e - z)).detach()),
            ("no gradient at all", lambda z, e: e.detach()),
            ("the encoder learns nothing", lambda z, e: e),
            ("the encoder learns nothing", lambda z, e: z + (e - z)),
            ("the decoder must see e", lambda z, e: z),
            ("with the opposite sign", lambda z, e: z.detach() + (e - z)),
            ("e keeps its gradient", lambda z, e: z + e - z.detach()),
            ("z and e exchanged", lambda z, e: e + (z - e).detach()),
            ("the shape is (1, 3)", lambda z, e: (z + (e - z).detach())[:1]),
        ],
    ),
    "next_token": (
        lambda o, t, g: torch.multinomial(torch.softmax(o / t, dim=1), 1, generator=g),
        [
            ("argmax", lambda o, t, g: o.argmax(dim=1, keepdim=True)),
            (
                "without effect",
                lambda o, t, g: torch.multinomial(torch.softmax(o, dim=1) / t, 1, generator=g),
            ),
            (
                "multiplied by the temperature",
                lambda o, t, g: torch.multinomial(torch.softmax(o * t, dim=1), 1, generator=g),
            ),
            (
                "equally often",
                lambda o, t, g: torch.multinomial(torch.ones_like(o), 1, generator=g),
            ),
            ("it should be (20000, 1)", lambda o, t, g: o.argmax(dim=1)),
        ],
    ),
    "inspector": (
        inspect,
        [
            ("of 'healthy' it says: no noise", lambda *a: ["no noise"]),
            ("beta 4' it says: mean for sum", functools.partial(inspect, beta=2)),
            ("of 'A' it says: nothing", functools.partial(inspect, spread=2)),
            (
                "of 'healthy' it says: sigmoid twice",
                lambda *a: inspect(*a, far=0) or ["sigmoid twice"],
            ),
            ("return a list of names", lambda *a: "nothing"),
            ("return a list of names", lambda *a: [1]),
        ],
    ),
    "sample": (
        new_images,
        [
            ("logits", lambda *a: torch.logit(new_images(*a))),
            (
                "uniform codes",
                lambda m, n, k, g: m.decode(torch.rand((n, k), generator=g)).sigmoid(),
            ),
            ("one code for all", lambda m, n, k, g: new_images(m, 1, k, g).expand(n, -1)),
        ],
    ),
}


def test_the_label_may_stand_before_the_image():
    assert run("conditional_network", functools.partial(Conditional, first=True)).ok


@pytest.mark.parametrize(
    "answer",
    [
        functools.partial(own_sliders_by_change, keep=True),
        functools.partial(own_sliders, side=224, mode="RGB", box=widgets.HBox),
        HOMES["sliders"].our_sliders,
    ],
)
def test_sliders_may_be_written_in_another_way_and_none_is_left_open(answer, monkeypatch):
    made, closed = [], []
    monkeypatch.setattr(widgets.Widget, "close", lambda self: closed.append(self))
    assert run("sliders", lambda *a: made.append(answer(*a)) or made[-1]).ok
    assert made and {*made, *(box.layout for box in made)} <= set(closed)


def test_a_scale_with_a_gradient_is_told():
    verdict = run(
        "log_scale", lambda m, x: torch.log((x - m).square().mean().sqrt() * 3**0.5 / math.pi)
    )
    assert not verdict.ok and "with a gradient" in verdict


@pytest.mark.parametrize("name", BUILT)
def test_what_is_built_is_told_right_from_wrong(name):
    right, wrong = BUILT[name]
    state = torch.get_rng_state()
    verdict = run(name, right)
    assert verdict.ok, verdict
    assert torch.equal(torch.get_rng_state(), state)
    for says, answer in wrong:
        verdict = run(name, answer)
        assert not verdict.ok and says in verdict, (says, verdict)
    for nothing in (lambda *_: None, lambda *_: ..., broken, lambda: 1):
        assert run(name, nothing).startswith("Not yet: ")
