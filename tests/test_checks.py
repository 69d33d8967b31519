"""checks: the right answer, no answer, and each common mistake told from the others.

The wrong answers are written as a learner would write them. That the lessons' own solutions are
right is tested with the notebooks.
"""

import importlib
import io
import linecache
import math
import pkgutil
from functools import partial
from unittest.mock import Mock

import ipywidgets as widgets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import traitlets
from PIL import Image
from torch import nn
from torch.distributions import Normal, kl_divergence

from vae_lesson.clinic.broken import healthy_loss
from vae_lesson.likelihood import importance
from vae_lesson.likelihood.pixels import fitted_log_scale
from vae_lesson.losses import kl_standard_normal as kl
from vae_lesson.priors import discrete, flow
from vae_lesson.priors.discrete import perplexity
from vae_lesson.teaching import checks, lesson
from vae_lesson.teaching.checks.diagnosis import PATIENTS, diagnose, fault_named
from vae_lesson.teaching.checks.pictures import OurNetwork
from vae_lesson.teaching.checks.verdict import Verdict

MODULES = [
    importlib.import_module(f"{checks.__name__}.{file.name}")
    for file in pkgutil.iter_modules(checks.__path__)
]
CHECKS = {
    name: check
    for module in MODULES
    for name, check in vars(module).items()
    if hasattr(check, "ours") and check.__module__ == module.__name__
}
RIGHT = {name: check.ours for name, check in CHECKS.items()}
# Ours gives it to every image.
RIGHT["free_bits"] = lambda kl_j, least: torch.clamp(kl_j.mean(dim=0), min=least).sum()

# --- lessons 01 to 04 -----------------------------------------------------------------------------


def pair(end=(nn.Sigmoid,), relu=(nn.ReLU,), code=()):
    def answer(latent, hidden):
        encoder = [nn.Linear(784, hidden), *(f() for f in relu), nn.Linear(hidden, latent)]
        decoder = [nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, 784)]
        encoder, decoder = encoder + [f() for f in code], decoder + [f() for f in end]
        return nn.Sequential(*encoder), nn.Sequential(*decoder)

    return answer


def train(weights, loss, images, epochs, batch_size, lr, generator, n=None, **mistake):
    optimizer = torch.optim.Adam(weights, lr=mistake.get("rate", lr))
    size = mistake.get("size", batch_size)
    for _ in range(n or epochs):
        for index in torch.randperm(len(images), generator=generator).split(size):
            if len(index) < mistake.get("least", 0):
                continue
            if mistake.get("zero", True):
                optimizer.zero_grad()
            loss_value = mistake.get("reduce", torch.mean)(
                loss(images[index].flatten(1) / mistake.get("white", 255))
            )
            (mistake.get("sign", 1) * loss_value).backward()
            if mistake.get("step", True):
                optimizer.step()


def train_autoencoder(encoder, decoder, *how, **mistake):
    weights = [*encoder.parameters(), *decoder.parameters()]
    train(weights, lambda x: ((decoder(encoder(x)) - x) ** 2).sum(1), *how, **mistake)


def train_vae(
    model,
    images,
    epochs,
    batch_size,
    lr,
    generator,
    noise=True,
    rows=None,
    blocked=False,
    **mistake,
):
    def loss(x):
        mu, log_var = model.encode(x)
        eps = torch.randn(mu[:rows].shape, generator=generator)
        z = mu + torch.exp(0.5 * log_var) * eps if noise else mu
        return bce(model.decode(z.detach() if blocked else z), x).sum(dim=1) + kl(mu, log_var)

    weights = [*model.parameters()]
    train(weights, loss, images, epochs, batch_size, lr, generator, **mistake)


class Net(nn.Module):
    """A VAE as a learner writes it, or one that is told labels; the options are mistakes."""

    def __init__(
        self, latent, hidden, n_classes=0, told=(1, 1), heads=2, relu=(nn.ReLU,), end=(), turn=1
    ):
        super().__init__()
        n_in, n_code = 784 + told[0] * n_classes, latent + told[1] * n_classes
        first = [nn.Linear(n_in, hidden), *(f() for f in relu), nn.Linear(hidden, heads * latent)]
        last = [nn.Linear(n_code, hidden), nn.ReLU(), nn.Linear(hidden, 784), *(f() for f in end)]
        self.encoder, self.decoder = nn.Sequential(*first), nn.Sequential(*last)
        self.n_classes, self.told, self.turn = n_classes, told, turn

    def encode(self, x, *y):
        both = torch.cat([x, *y][: 1 + self.told[0]], dim=1)
        return self.encoder(both).chunk(2, dim=1)[:: self.turn]

    def decode(self, z, *y):
        return self.decoder(torch.cat([z, *y][: 1 + self.told[1]], dim=1))


class NoDecode(Net):
    decode = property()


class TwoHeads(nn.Module):
    def __init__(self, latent, hidden):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, hidden), nn.ReLU())
        self.fc_mu, self.fc_var = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        self.decoder = pair(end=())(latent, hidden)[1]


class NoChunk(Net):
    def encode(self, *x):
        return torch.cat(super().encode(*x), dim=1)


class FrozenEncoder(Net):
    encode = torch.no_grad()(Net.encode)


class FrozenDecoder(Net):
    def decode(self, *z):
        return super().decode(*z).detach()


class NumPyDecoder(Net):
    def decode(self, *z):
        return super().decode(*z).detach().numpy()


class NoTensors(Net):
    def encode(self, *x):
        return 3, 4


bce = partial(F.binary_cross_entropy_with_logits, reduction="none")


def normal_kl(mu, sigma):
    return kl_divergence(Normal(mu, sigma), Normal(0.0, 1.0))


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
    code_of=lambda z, dims, numbers, moved: in_place(z.clone(), dims, numbers),
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
        moved = own.index(change["owner"]) if change else -1
        code = code_of(z, dimensions, [slider.value for slider in own], moved)
        image.value = png(pixels(decode(code)).view(28, 28), **look)

    for slider in own[heard]:
        slider.observe(show, names)
    if first:
        show()
    return box([image, *own])


def coded(code_of):
    return partial(own_sliders, code_of=code_of)


def slope(z, a, over=None):
    """Return cov(z, a) / var(a), or over something else."""
    return ((z - z.mean(dim=0)) * (a - a.mean())[:, None]).mean(dim=0) / (
        a.var() if over is None else over
    )


def weights_that_predict(z, a):
    ones = torch.ones(len(z), 1)
    return torch.linalg.lstsq(torch.cat([z, ones], dim=1), a[:, None]).solution[:-1, 0]


def own_gain(
    decode,
    measure,
    z,
    direction,
    step,
    ends=(-1, 1),
    asked=lambda step: 2 * step,
    median=torch.median,
):
    less, more = (measure(decode(z + end * step * direction)) for end in ends)
    return median((more - less) / asked(step))


def two_medians(decode, measure, z, direction, step):
    less, more = (measure(decode(z + end * step * direction)).median() for end in (-1, 1))
    return (more - less) / (2 * step)


def loops(training):
    return [
        ("not one weight", partial(training, step=False)),
        ("gradients that add up", partial(training, zero=False)),
        ("its sign is turned", partial(training, sign=-1)),
        ("a single epoch", partial(training, n=1)),
        ("the sum over the batch", partial(training, reduce=torch.sum)),
        ("all images in place of a batch", partial(training, size=20)),
        ("a last batch that is left out", partial(training, least=8)),
        ("another learning rate", partial(training, rate=1e-3)),
        ("the trained weights are off by", partial(training, reduce=torch.max)),
    ]


def normal_kl_of_log_var(mu, log_var):
    return normal_kl(mu, torch.exp(0.5 * log_var))


def own_terms(
    model, x, generator, sigma=lambda v: torch.exp(v / 2), shape=torch.Tensor.size, nll=bce, kl=kl
):
    """Return recon and KL of each image as a learner writes it; the options are mistakes."""
    mu, log_var = model.encode(x)
    z = mu + sigma(log_var) * torch.randn(shape(mu), generator=generator)
    return nll(model.decode(z), x).sum(dim=1), kl(mu, log_var)


def log_slip(mu, sigma2, log_sigma2):
    return 0.5 * (mu**2 + sigma2 - log_sigma2 - 1).sum(dim=1)


OWN_NOISE = torch.Generator()
WRONG = {  # {check: (a part of the message, how to earn it)}
    "squared_error": [  # (x_hat, x)
        ("the mean over pixels", lambda a, x: ((a - x) ** 2).mean(dim=1)),
        ("one number for the whole batch: sum", lambda a, x: ((a - x) ** 2).sum()),
        ("one number for the whole batch: sum", lambda a, x: F.mse_loss(a, x)),
        ("one number for the whole batch: sum", lambda a, x: ((a - x) ** 2).sum(dim=1).mean()),
        ("the sum over images", lambda a, x: ((a - x) ** 2).sum(dim=0)),
        ("leave out the square root", lambda a, x: torch.norm(a - x, dim=1)),
        ("before the sum over pixels", lambda a, x: (a - x) ** 2),
        ("respect to x_hat:", lambda a, x: ((a.detach() - x) ** 2).sum(dim=1)),
    ],
    "networks": [  # (latent_size, hidden_size)
        ("lacks the Sigmoid", pair(end=())),
        ("one ReLU in the encoder", pair(relu=())),
        ("one ReLU in the encoder", pair(relu=(nn.ReLU, nn.ReLU))),
        ("ends in ReLU(): a code may be any number", pair(code=(nn.ReLU,))),
        ("ends in Sigmoid(): a code may be any number", pair(code=(nn.Sigmoid,))),
        ("wanted Linear(in_features=784", lambda latent, hidden: pair()(latent, 2 * hidden)),
        ("return two nn.Sequential", lambda latent, hidden: nn.Sequential(nn.ReLU())),
    ],
    "training": [
        *loops(train_autoencoder),
        ("the mean over pixels", partial(train_autoencoder, reduce=lambda v: v.mean() / 784)),
        (
            "the first gradients are off by",
            partial(train_autoencoder, reduce=lambda v: v.mean() / 2),
        ),
    ],
    "network": [  # (latent_size, hidden_size)
        ("for latent_size 3 and hidden_size 5 the layers' weights", partial(Net, heads=1)),
        ("two heads, which are as good", TwoHeads),
        ("`.chunk(2, dim=1)` gives both. (encode)", NoChunk),
        ("respect to x:", FrozenEncoder),
        ("respect to z:", FrozenDecoder),
        ("one ReLU missing", partial(Net, relu=())),
        ("one ReLU missing", partial(Net, end=(nn.ReLU,))),
        ("log_var before mu", partial(Net, turn=-1)),
        ("leave the sigmoid", partial(Net, end=(nn.Sigmoid,))),
        ("write the encoder", lambda latent, hidden: nn.Module()),
        ("raised AttributeError", NoDecode),
    ],
    "reparameterize": [  # (mu, log_var, eps)
        ("log σ² used as σ", lambda m, v, e: m + v * e),
        ("the variance used as σ", lambda m, v, e: m + v.exp() * e),
        ("noise of your own", lambda m, v, e: m + torch.randn(m.shape, generator=OWN_NOISE)),
        ("halved but not exponentiated", lambda m, v, e: m + v / 2 * e),
        ("respect to log_var:", lambda m, v, e: m + (v / 2).exp().detach() * e),
        ("respect to log_var:", lambda m, v, e: m + (v.data / 2).exp() * e),
        ("respect to mu:", lambda m, v, e: m.detach() + (v / 2).exp() * e),
        ("respect to mu, log_var:", torch.no_grad()(lambda m, v, e: m + (v / 2).exp() * e)),
        ("respect to mu, log_var:", lambda m, v, e: m + torch.as_tensor(np.exp(v.numpy() / 2)) * e),
        ("changes in place", lambda m, v, e: v.div_(2).exp_().mul_(e).add_(m)),
    ],
    "kl_divergence": [  # (mu, log_var)
        ("the mean over latent", lambda m, v: -0.5 * torch.mean(1 + v - m**2 - v.exp(), dim=1)),
        ("missing the factor ½", lambda m, v: -torch.sum(1 + v - m**2 - v.exp(), dim=1)),
        ("missing the factor ½", lambda m, v: torch.sum(1 + v - m**2 - v.exp(), dim=1)),
        ("½ twice", lambda m, v: -0.25 * torch.sum(1 + v - m**2 - v.exp(), dim=1)),
        ("½ before a part", lambda m, v: (0.5 * m**2 + v.exp() - v - 1).sum(dim=1)),
        ("½ before a part", lambda m, v: (m**2 + 0.5 * (v.exp() - v - 1)).sum(dim=1)),
        ("½ before a part", lambda m, v: (0.5 * (m**2 + v.exp() - 1) - v).sum(dim=1)),
        ("½ before a part", lambda m, v: torch.sum(-0.5 * 1 + v - m**2 - v.exp(), dim=1)),
        ("sign before mu²", lambda m, v: -0.5 * torch.sum(1 + v + m**2 - v.exp(), dim=1)),
        ("sign before σ²", lambda m, v: -0.5 * torch.sum(1 + v - m**2 + v.exp(), dim=1)),
        ("sign before log σ²", lambda m, v: -0.5 * torch.sum(1 - v - m**2 - v.exp(), dim=1)),
        ("sign before the 1", lambda m, v: -0.5 * torch.sum(-1 + v - m**2 - v.exp(), dim=1)),
        ("no −1", lambda m, v: 0.5 * (m**2 + v.exp() - v).sum(dim=1)),
        ("no −1", lambda m, v: 0.5 * ((m**2 + v.exp() - v).sum(dim=1) - 1)),
        ("−1 twice", lambda m, v: 0.5 * (m**2 + v.expm1() - v - 1).sum(dim=1)),
        ("mu² belongs", lambda m, v: -0.5 * torch.sum(1 + v - m - v.exp(), dim=1)),
        ("mu² belongs", lambda m, v: -0.5 * torch.sum(1 + v - v.exp(), dim=1)),
        ("the wrong sign:", lambda m, v: 0.5 * (1 + v - m**2 - v.exp()).sum(dim=1)),
        ("one number for", lambda m, v: -0.5 * (1 + v - m**2 - v.exp()).sum()),
        ("before the sum", lambda m, v: -0.5 * (1 + v - m**2 - v.exp())),
        ("the sum over images", lambda m, v: -0.5 * (1 + v - m**2 - v.exp()).sum(dim=0)),
        ("number where σ²", lambda m, v: -0.5 * (1 + v - m**2 - torch.exp(v / 2)).sum(dim=1)),
        ("number where σ²", lambda m, v: -0.5 * (1 + v - m**2 - v).sum(dim=1)),
        ("number where σ²", lambda m, v: -0.5 * (1 + v - m**2 - v.exp() ** 2).sum(dim=1)),
        ("number where σ²", lambda m, v: -0.5 * (1 + v - m**2).sum(dim=1)),
        ("number where log σ²", lambda m, v: -0.5 * (1 + v / 2 - m**2 - v.exp()).sum(dim=1)),
        ("number where log σ²", lambda m, v: -0.5 * (1 + v.log() - m**2 - v.exp()).sum(dim=1)),
        ("number where log σ²", lambda m, v: -0.5 * (1 - m**2 - v.exp()).sum(dim=1)),
        ("σ in place of σ²", lambda m, v: log_slip(m, torch.exp(v / 2), v / 2)),
        ("taken for log σ:", lambda m, v: log_slip(m, torch.exp(v) ** 2, 2 * v)),
        ("taken for σ or σ²", lambda m, v: log_slip(m, v**2, torch.log(v**2))),
        ("taken for σ or σ²", lambda m, v: log_slip(m, v, torch.log(v))),
        ("respect to mu, log_var:", torch.no_grad()(kl)),
        ("respect to log_var:", lambda m, v: kl(m, v.detach())),
        ("respect to log_var:", lambda m, v: -0.5 * (1 + v - m**2 - v.exp().detach()).sum(1)),
    ],
    "neg_elbo": [  # (x_logits, x, mu, log_var)
        ("mean over pixels", lambda a, x, m, v: bce(a, x).mean(dim=1) + kl(m, v)),
        ("mean over pixels", lambda a, x, m, v: bce(a, x).mean() + kl(m, v)),
        ("mean over pixels", lambda a, x, m, v: bce(a, x).mean() + kl(m, v).mean()),
        ("mean over pixels", lambda a, x, m, v: bce(a, x).mean() + kl(m, v).sum()),
        ("the sum over the batch", lambda a, x, m, v: bce(a, x).sum() + kl(m, v)),
        ("KL subtracted", lambda a, x, m, v: bce(a, x).sum(dim=1) - kl(m, v)),
        ("the ELBO itself", lambda a, x, m, v: -bce(a, x).sum(dim=1) - kl(m, v)),
        ("one number for", lambda a, x, m, v: (bce(a, x).sum(dim=1) + kl(m, v)).mean()),
        ("sigmoid applied twice", lambda a, x, m, v: bce(a.sigmoid(), x).sum(dim=1) + kl(m, v)),
        ("the mean of the KL", lambda a, x, m, v: bce(a, x).sum(dim=1) + kl(m, v) / m.shape[1]),
        ("respect to x_logits:", lambda a, *b: RIGHT["neg_elbo"](a.detach(), *b)),
        ("respect to mu, log_var:", lambda a, x, m, v: bce(a, x).sum(1) + kl(m, v).detach()),
    ],
    "vae_training": [
        *loops(train_vae),
        ("the noise is forgotten", partial(train_vae, noise=False)),
        ("one eps for all images", partial(train_vae, rows=1)),
        ("bytes", partial(train_vae, white=1)),
        ("a z that blocks the gradient", partial(train_vae, blocked=True)),
    ],
    "sample": [  # (model, n, latent_size, generator)
        ("logits", lambda *a: torch.logit(RIGHT["sample"](*a))),
        ("uniform codes", lambda m, n, k, g: m.decode(torch.rand((n, k), generator=g)).sigmoid()),
    ],
    "sliders": [  # (decode, z, dimensions)
        ("this holds 0 and 0", lambda *_: widgets.VBox()),
        ("this holds 1 and 2", lambda d, z, j: own_sliders(d, z, j[:2])),
        ("this holds 0 and 0", partial(own_sliders, box=tuple)),
        ("start at [0.0, 0.5, 2.5], z has [-2.0, 0.5, 2.5]", partial(own_sliders, low=0)),
        ("no picture before the first move", partial(own_sliders, first=False)),
        ("the picture is black", partial(own_sliders, pixels=lambda x: x.byte())),
        ("not show the code", partial(own_sliders, pixels=lambda x: 255 - x.byte())),
        ("hear more than moves", partial(own_sliders, names=traitlets.All)),
        ("z itself is changed", coded(lambda z, j, n, i: in_place(z, j, n))),
        ("nobody hears", partial(own_sliders, heard=slice(0))),
        ("nobody hears", partial(own_sliders, heard=slice(2, 3))),
        ("the loop's last j", coded(lambda z, j, n, i: in_place(z.clone(), j[-1:], [n[i]]))),
        ("the loop's last j", coded(lambda z, j, n, i: in_place(z.clone(), j[-1:], n[-1:]))),
        ("that moved, alone", coded(lambda z, j, n, i: in_place(z.clone(), [j[i]], [n[i]]))),
        ("is for dimensions[0]", coded(lambda z, j, n, i: in_place(z.clone(), range(3), n))),
        ("zeros in", coded(lambda z, j, n, i: in_place(0 * z, j, n))),
        ("raised TypeError", coded(lambda z: z)),
    ],
    "attribute_direction": [  # (codes, a)
        ("the opposite", lambda z, a: -slope(z, a)),
        ("cov(z, a) alone", lambda z, a: slope(z, a, over=1)),
        ("over the standard deviation of a", lambda z, a: slope(z, a, over=a.std())),
        ("over the variance of z", lambda z, a: slope(z, a, over=z.var(dim=0))),
        ("the correlation", lambda z, a: torch.corrcoef(torch.cat([z, a[:, None]], 1).T)[-1, :-1]),
        ("the weights that predict a", weights_that_predict),
        ("means left in", lambda z, a: (a[:, None] * z).mean(dim=0) / a.var()),
        ("means left in", lambda z, a: a @ z / (a @ a)),
        ("means left in", lambda z, a: slope(z, a, over=a.square().mean())),
        ("a slope", lambda z, a: z[a > a.mean()].mean(dim=0) - z[a <= a.mean()].mean(dim=0)),
        ("a slope", lambda z, a: z[a > a.mean()].mean(dim=0) - z.mean(dim=0)),
        ("keep the length", lambda z, a: F.normalize(slope(z, a), dim=0)),
    ],
    "gain": [  # (decode, measure, z, direction, step)
        ("one number a code", partial(own_gain, median=lambda x: x)),
        ("the mean over", partial(own_gain, median=torch.mean)),
        ("two medians", two_medians),
        ("what was got:", partial(own_gain, asked=lambda step: 1)),
        ("half of what was asked", partial(own_gain, asked=lambda step: step)),
        ("half of what was asked", partial(own_gain, asked=lambda step: 2)),
        ("one side only", partial(own_gain, ends=(0, 1))),
        ("one side only", partial(own_gain, ends=(-1, 0))),
        ("one side only", partial(own_gain, ends=(0, 1), asked=lambda step: step)),
        ("the wrong way round", partial(own_gain, ends=(1, -1))),
        ("without the step", lambda f, m, z, d, step: own_gain(f, m, z, d / step, step)),
        ("without the step", lambda f, m, z, d, step: own_gain(f, m, z, d, 1.0)),
        ("a unit vector", lambda f, m, z, d, step: own_gain(f, m, z, d / d.norm(), step)),
        ("raised RuntimeError", lambda f, m, z, d, step: m(z + step * d)),
    ],
    "threshold": [  # (scores, false_alarms)
        ("all but this share", lambda s, rate: torch.quantile(s, rate)),
        ("all but this share", lambda s, rate: s.sort().values[int(rate * len(s))]),
        ("all but this share", lambda s, rate: s.kthvalue(int(rate * len(s))).values),
        ("a part of the largest", lambda s, rate: s.max() * (1 - rate)),
        ("the bell curve", lambda s, rate: s.mean() + 1.2816 * s.std()),
        ("the bell curve", lambda s, rate: s.mean() + 2 * s.std()),
        ("the flags", lambda s, rate: s > s.quantile(1 - rate)),
    ],
    "roc_area": [  # (normal, strange)
        ("a normal image has the higher score", lambda a, b: RIGHT["roc_area"](b, a)),
        ("counted as lost", lambda a, b: (b[:, None] > a[None, :]).float().mean()),
        ("counted as won", lambda a, b: (b[:, None] >= a).float().mean()),
        ("one normal image for each", lambda a, b: (b > a).float().mean()),
        ("the number of pairs", lambda a, b: sum(y > x for y in b for x in a)),
        ("the number of pairs", lambda a, b: RIGHT["roc_area"](a, b) * len(a) * len(b)),
    ],
    "recon_and_kl": [  # (model, x, generator)
        ("KL first", lambda *a: own_terms(*a)[::-1]),
        ("the noise is forgotten", partial(own_terms, sigma=lambda v: 0)),
        ("the variance used as σ", partial(own_terms, sigma=torch.exp)),
        ("one eps for the whole", partial(own_terms, shape=lambda mu: mu.shape[1:])),
        ("a sigmoid applied twice", partial(own_terms, nll=lambda a, x: bce(a.sigmoid(), x))),
        ("the squared error", partial(own_terms, nll=lambda a, x: (a.sigmoid() - x) ** 2)),
        ("the mean over pixels", partial(own_terms, nll=lambda a, x: bce(a, x) / 784)),
        ("the mean of the KL", partial(own_terms, kl=lambda *a: kl(*a) / 2)),
        ("one number for the", lambda *a: [part.mean() for part in own_terms(*a)]),
        ("one number for the", lambda *a: [part.sum() for part in own_terms(*a)]),
        ("not their sum", lambda *a: sum(own_terms(*a))),
        ("the KL's (3, 2)", partial(own_terms, kl=normal_kl_of_log_var)),
        ("noise of your own", lambda m, x, g: own_terms(m, x, OWN_NOISE)),
        ("your function returns nothing", lambda *a: None),
    ],
}

# --- lessons 05 to 07 -----------------------------------------------------------------------------


def log_normal(z, mu=0.0, sigma=1.0):
    return torch.distributions.Normal(mu, sigma).log_prob(z).sum(dim=-1)


def log_q(z, mu, log_var):
    return log_normal(z, mu, torch.exp(log_var / 2))


def squares(z):
    return z.square().sum(dim=-1)


def scaled(z, mu, log_var):
    return squares((z - mu) / torch.exp(log_var / 2))


beta = RIGHT["effective_beta"]
OTHER = {"sum": "mean", "mean": "sum"}


def ratios(loss, output, x, mu, log_var, sign=1, half=0.5, over=lambda slope, right: slope / right):
    leaves = [value.clone().requires_grad_() for value in (output, mu, log_var)]
    loss(leaves[0], x, *leaves[1:]).sum().backward()
    right = sign * (torch.sigmoid(output) - x), mu, half * (torch.exp(log_var) - 1)
    return torch.stack([over(leaf.grad, slope).median() for leaf, slope in zip(leaves, right)])


def noise_as(function, put_back=True):
    def answer(model, x):
        seen, decode = [], model.decode
        model.decode = lambda z: seen.append(z) or decode(z)
        _, mu, log_var = model(x)
        if put_back:
            del model.decode
        return function(seen[0], mu, log_var)

    return answer


def fit_q(
    model,
    x,
    n_steps,
    lr,
    k,
    generator,
    n=None,
    zero=True,
    loss=torch.add,
    over=torch.mean,
    noise=torch.Tensor.clone,
    rows=None,
    parts=slice(2),
    start=torch.detach,
    falls=True,
    all_weights=False,
):
    """Return each image's own mu and log_var, as a learner finds them; the options are mistakes."""
    q = [start(part).requires_grad_() for part in model.encode(x)]
    mu, log_var = q
    weights = [*model.parameters()] if all_weights else []
    optimizer = torch.optim.Adam([*q[parts], *weights], lr)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, n_steps)
    for _ in range(n or n_steps):
        eps = noise(torch.randn((k, rows or len(x), mu.shape[1]), generator=generator))
        x_logits = model.decode((mu + torch.exp(log_var / 2) * eps).flatten(0, 1))
        recon = over(bce(x_logits, x.repeat(k, 1)).sum(dim=1).view(k, -1), dim=0)
        if zero:
            optimizer.zero_grad()
        loss(recon, kl(mu, log_var)).mean().backward()
        optimizer.step()
        if falls:
            scheduler.step()
    return mu, log_var


WRONG |= {
    "log_weights": [  # (recon, z, mu, log_var); with the densities' constants, and without
        ("with the wrong sign: recon", lambda r, z, m, v: r + log_normal(z) - log_q(z, m, v)),
        ("log q added", lambda r, z, m, v: -r + log_normal(z) + log_q(z, m, v)),
        ("log q added", lambda r, z, m, v: -r - (squares(z) + scaled(z, m, v) + v.sum(1)) / 2),
        ("the prior's log p(z) is", lambda r, z, m, v: -r - log_q(z, m, v)),
        ("the prior's log p(z) is", lambda r, z, m, v: -r + (scaled(z, m, v) + v.sum(1)) / 2),
        ("z counts as the prior's", lambda r, z, m, v: -r + log_normal(z)),
        ("z counts as the prior's", lambda r, z, m, v: -r - squares(z) / 2),
        ("the KL in closed form", lambda r, z, m, v: -r - kl(m, v)),
        ("the factor ½", lambda r, z, m, v: -r - squares(z) + scaled(z, m, v) + v.sum(1)),
        ("without −½ log σ²", lambda r, z, m, v: -r - (squares(z) - scaled(z, m, v)) / 2),
        ("or with +", lambda r, z, m, v: -r - (squares(z) - scaled(z, m, v) + v.sum(1)) / 2),
        ("where σ²", lambda r, z, m, v: -r + log_normal(z) - log_normal(z, m, torch.exp(v))),
        ("where σ²", lambda r, z, m, v: -r - (squares(z) - scaled(z, m, v / 2) - v.sum(1)) / 2),
        ("respect to recon, z, mu, log_var:", torch.no_grad()(importance.log_weights)),
    ],
    "bound": [  # (log_w)
        ("as it stands", lambda w: w.exp().mean(dim=0).log()),
        ("as it stands", lambda w: w.double().exp().mean(dim=0).log()),
        ("which is the ELBO", lambda w: w.mean(dim=0)),
        ("subtract log K", lambda w: torch.logsumexp(w, dim=0)),
        ("the mean over images", lambda w: RIGHT["bound"](w.T)),
        ("the negative", lambda w: -RIGHT["bound"](w)),
        ("one number for", lambda w: RIGHT["bound"](w).mean()),
        ("respect to log_w:", lambda w: RIGHT["bound"](w).data),
    ],
    "own_q": [  # (model, x, n_steps, lr, k, generator)
        ("nothing was fitted", lambda m, x, *_: m.encode(x)),
        ("a single step", partial(fit_q, n=1)),
        ("gradients that add up", partial(fit_q, zero=False)),
        ("a loss that grows", partial(fit_q, loss=lambda recon, kl: -recon - kl)),
        ("the KL is missing", partial(fit_q, loss=lambda recon, kl: recon)),
        ("the KL subtracted", partial(fit_q, loss=lambda recon, kl: recon - kl)),
        ("the sum over the k draws", partial(fit_q, over=torch.sum)),
        ("the noise is forgotten", partial(fit_q, noise=lambda eps: 0 * eps)),
        ("one eps for all images", partial(fit_q, noise=lambda eps: eps[:, :1], rows=1)),
        ("mu alone", partial(fit_q, parts=slice(1))),
        ("log_var alone", partial(fit_q, parts=slice(1, 2))),
        ("begin at the encoder's", partial(fit_q, start=torch.zeros_like)),
        ("a rate that stays", partial(fit_q, falls=False)),
        ("weights have changed", partial(fit_q, all_weights=True)),
        ("noise of your own", lambda m, x, n, lr, k, g: fit_q(m, x, n, lr, k, OWN_NOISE)),
        ("values are off by", partial(fit_q, loss=lambda recon, kl: recon + 1.5 * kl)),
        ("raised ValueError: can't optimize a non-leaf", partial(fit_q, start=lambda part: part)),
    ],
    "entropy": [  # (x)
        ("one side of the coin", lambda x: -torch.xlogy(x, x).sum(dim=1)),
        ("the wrong sign", lambda x: -RIGHT["entropy"](x)),
        ("the mean over pixels", lambda x: RIGHT["entropy"](x) / x.shape[1]),
        ("bits", lambda x: RIGHT["entropy"](x) / math.log(2)),
        ("one number for", lambda x: RIGHT["entropy"](x).mean()),
    ],
    "free_bits": [  # (kl_j, least)
        ("the limit on every image", lambda k, least: k.clamp(min=least).mean(0).sum()),
        ("the limit on every image", lambda k, least: k.clamp(min=least).sum(dim=1)),
        ("no limit", lambda k, least: k.sum(dim=1).clamp(min=least).mean()),
        ("an upper limit", lambda k, least: k.mean(dim=0).clamp(max=least).sum()),
        ("what is over the limit", lambda k, least: F.relu(k.mean(0) - least).sum()),
        ("no sum over dimensions", lambda k, least: k.mean(0).clamp(min=least).mean()),
        ("no sum over dimensions", lambda k, least: k.mean(dim=0).clamp(min=least)),
        ("respect to kl_j:", lambda k, least: RIGHT["free_bits"](k, least).item()),
    ],
    "effective_beta": [  # (pixels, latents, kl_weight, n_pixels, latent_size)
        ("the inverse", lambda *a: 1 / beta(*a)),
        ("the inverse", lambda p, j, w, n, k: w / beta(p, j, 1, n, k)),
        ("pixels counted", lambda p, *a: beta(p, *a) / (a[2] ** 2 if p == "mean" else 1)),
        ("latents counted", lambda p, j, *a: beta(p, j, *a) * (a[2] ** 2 if j == "mean" else 1)),
        ("sum and mean exchanged", lambda p, j, *a: beta(OTHER[p], OTHER[j], *a)),
        ("without the weight", lambda p, j, w, n, k: beta(p, j, 1, n, k)),
        ("the pixels alone", lambda p, j, w, n, k: w * n if p == "mean" else w),
        ("returns nothing", lambda *a: beta(*a) if a[0] == "sum" else None),
        ("the latents alone", lambda p, j, w, n, k: w / k if j == "mean" else w),
    ],
    "factors": [  # (loss, output, x, mu, log_var)
        ("the mean of the loss", lambda loss, *a: ratios(lambda *b: loss(*b).mean(), *a)),
        ("themselves", partial(ratios, over=lambda slope, right: slope)),
        ("without its ½", partial(ratios, half=1)),
        ("it is sigmoid(o) − x", partial(ratios, sign=-1)),
    ],
    "noise": [  # (model, x)
        ("z − mu: divide", noise_as(lambda z, mu, v: z - mu)),
        ("σ² for σ", noise_as(lambda z, mu, v: (z - mu) / torch.exp(v))),
        ("log_var for σ", noise_as(lambda z, mu, v: (z - mu) / v)),
        ("the opposite sign", noise_as(lambda z, mu, v: (mu - z) / torch.exp(v / 2))),
        ("put the old one back", noise_as(lambda z, mu, v: (z - mu) / (v / 2).exp(), False)),
    ],
    "inspector": [  # (model, loss, x)
        ("of 'healthy' it says: no noise", lambda *a: ["no noise"]),
        ("of 'A' it says: nothing", lambda *a: []),
        (
            "beta 4' it says: mean for sum",
            lambda *a: RIGHT["inspector"](*a) or ["mean for sum"] * (a[1] is not healthy_loss),
        ),
        ("return a list of names", lambda *a: "nothing"),
        ("return a list of names", lambda *a: [1]),
    ],
    "bits_per_dimension": [  # (nats, n_pixels)
        ("bits of the density", lambda a, n: a / n / math.log(2)),
        ("255 levels", lambda a, n: a / n / math.log(2) + math.log2(255)),
        ("nats: divide", lambda a, n: a / n),
        ("nats: divide", lambda a, n: (a + n * math.log(256)) / n),
        ("added up", lambda a, n: a / n / math.log(2) + math.log(256)),
        ("added up", lambda a, n: (a + 8 * n) / n / math.log(2)),
        ("multiplying", lambda a, n: a / n * math.log(2) + 8),
        ("bits of the whole image", lambda a, n: a / math.log(2) + 8 * n),
        ("one number for", lambda a, n: RIGHT["bits_per_dimension"](a, n).mean()),
    ],
}

# --- lessons 08 to 11 -----------------------------------------------------------------------------


class Numbered(Net):
    """It is given the label as one number."""

    def __init__(self, latent, hidden, n_classes):
        super().__init__(latent, hidden, 1)

    def encode(self, x, y):
        return super().encode(x, y.argmax(dim=1, keepdim=True).float())


class Deaf(Net):
    def encode(self, x, y):
        return super().encode(x, 0 * y)


class LabelFirst(Net):
    def encode(self, x, y):
        return super().encode(y, x)


def of_every_label(neg_elbo, x, n_classes, seed, step=0):
    each = [neg_elbo(x, torch.full((len(x),), c), seed + c * step) for c in range(n_classes)]
    return torch.stack(each, dim=1)


SCALE = math.log(3**0.5 / math.pi)  # of a logistic beside its standard deviation


price = partial(discrete.code_bound, 0)  # of tokens, without what is rebuilt


class Detached(nn.Module):
    def forward(self, x):
        return x.detach()


class Own(OurNetwork):
    """The options are mistakes."""

    def __init__(self, shape, latent_size, end=nn.Identity, deaf=False):
        super().__init__(shape, latent_size)
        self.end, self.deaf = end(), deaf

    def decode(self, z):
        return self.end(super().decode(0 * z if self.deaf else z))


WRONG |= {
    "conditional_network": [  # (latent_size, hidden_size, n_classes)
        ("the label in the decoder only", partial(Net, told=(0, 1))),
        ("the label in the decoder only", Deaf),
        ("the label in the encoder only", partial(Net, told=(1, 0))),
        ("a plain VAE", partial(Net, told=(0, 0))),
        ("the label as a single number", Numbered),
        ("leave the sigmoid", partial(Net, end=(nn.Sigmoid,))),
        ("take [789, 8] numbers", lambda latent, hidden, n: Net(latent, hidden, n + 1)),
        ("shape is (4, 3), it should be (4, 6). (encode)", partial(Net, heads=1)),
        ("`.chunk(2, dim=1)` gives both. (encode)", NoChunk),
        ("respect to the weights:", FrozenEncoder),
        ("respect to the weights:", FrozenDecoder),
        ("respect to the weights:", NumPyDecoder),
        ("`.chunk(2, dim=1)` gives both. (encode)", NoTensors),
        ("write the encoder", lambda *_: nn.Module()),
        ("are to be nn.Sequential", lambda *s: pair()(s[0], s[1])[0]),
    ],
    "joint": [  # (neg_elbo, n_classes)
        ("subtracting", lambda a, n: a + math.log(1 / n)),
        ("as it stands", lambda a, n: a + n),
        ("a probability", lambda a, n: a + 1 / n),
        ("a probability", lambda a, n: a - 1 / n),
        ("the image alone", lambda a, n: a),
        ("one number for", lambda a, n: a.mean() + math.log(n)),
    ],
    "classify": [  # (neg_elbo, x, n_classes, seed)
        ("other noise", lambda *a: of_every_label(*a, step=1).argmin(dim=1)),
        ("the label of the largest", lambda *a: of_every_label(*a).argmax(dim=1)),
        ("the smallest −ELBO itself", lambda *a: of_every_label(*a).min(dim=1).values),
        ("the best image", lambda *a: of_every_label(*a).argmin(dim=0)),
    ],
    "matching_loss": [  # (velocity, z1, z0, t)
        ("time turned round", lambda v, b, a, t: flow.matching_loss(v, a, b, t)),
        ("time turned round", lambda v, b, a, t: squares(v(a + t * (b - a), t) - a + b)),
        ("time turned round", lambda v, b, a, t: squares(v(b + t * (a - b), t) - b + a)),
        ("the code as the target", lambda v, b, a, t: squares(v(a + t * (b - a), t) - b)),
        ("sum them", lambda v, b, a, t: (v(a + t * (b - a), t) - b + a).square().mean(dim=1)),
        ("the root", lambda v, b, a, t: torch.norm(v(a + t * (b - a), t) - b + a, dim=1)),
        ("one number for", lambda v, b, a, t: F.mse_loss(v(a + t * (b - a), t), b - a)),
        ("respect to the velocity:", torch.no_grad()(flow.matching_loss)),
    ],
    "euler": [  # (velocity, z, t, dt)
        ("a step of length 1", lambda v, z, t, dt: z + v(z, t)),
        ("t for dt", lambda v, z, t, dt: z + t * v(z, t)),
        ("the way alone", lambda v, z, t, dt: dt * v(z, t)),
        ("backwards", lambda v, z, t, dt: z - dt * v(z, t)),
        ("where the step ends", lambda v, z, t, dt: z + dt * v(z + dt * v(z, t), t + dt)),
        ("where the step ends", lambda v, z, t, dt: z + dt * v(z, t + dt)),
    ],
    "heun": [  # (velocity, z, t, dt)
        ("Euler's step:", lambda v, z, t, dt: z + dt * v(z, t)),
        ("the sum", lambda v, z, t, dt: z + dt * (v(z, t) + v(z + dt * v(z, t), t + dt))),
        ("second velocity at t:", lambda v, *a: flow.heun(lambda z, _: v(z, a[1]), *a)),
        ("at z + dt · v", lambda v, z, t, dt: z + dt / 2 * (v(z, t) + v(z, t + dt))),
        ("the midpoint rule", lambda v, z, t, dt: z + dt * v(z + dt / 2 * v(z, t), t + dt / 2)),
    ],
    "guide": [  # (free, asked, w)
        ("the paper's w", lambda free, asked, w: (1 + w) * asked - w * free),
        ("turned round", lambda free, asked, w: free + w * (free - asked)),
        ("turned round", lambda free, asked, w: (1 - w) * asked + w * free),
        ("w times one of the two", lambda free, asked, w: free + w * asked),
        ("only the difference", lambda free, asked, w: w * (asked - free)),
    ],
    "through": [  # (z, e)
        ("no gradient at all", lambda z, e: (z + (e - z)).detach()),
        ("the encoder learns nothing", lambda z, e: e),
        ("the decoder must see e", lambda z, e: z),
        ("e keeps its gradient", lambda z, e: z + e - z.detach()),
        ("the shape is (1, 3)", lambda z, e: (z + (e - z).detach())[:1]),
    ],
    "perplexity": [  # (tokens, n_codes)
        ("the mean over images", lambda c, n: sum(perplexity(row, n) for row in c) / len(c)),
        ("the entropy: perplexity", lambda c, n: math.log(perplexity(c, n))),
        ("the entropy: perplexity", lambda c, n: math.log2(perplexity(c, n))),
        ("the sign forgotten", lambda c, n: 1 / perplexity(c, n)),
        ("bits in exp", lambda c, n: math.exp(math.log2(perplexity(c, n)))),
        ("bits in exp", lambda c, n: 2 ** math.log(perplexity(c, n))),
    ],
    "bound_in_nats": [  # (recon, logits, tokens)
        ("a mean over tokens", lambda r, o, c: r + price(o, c) / c.shape[1]),
        ("the wrong sign", lambda r, o, c: r - price(o, c)),
        ("log_softmax makes", lambda r, o, c: r - o.gather(2, c[..., None]).sum(dim=(1, 2))),
        ("all entries' log p", lambda r, o, c: r - torch.log_softmax(o, dim=2).sum(dim=(1, 2))),
        ("one number for", lambda r, o, c: (r + price(o, c)).mean()),
    ],
    "next_token": [  # (logits, temperature, generator)
        ("argmax", lambda o, t, g: o.argmax(dim=1, keepdim=True)),
        ("without effect", lambda o, t, g: discrete.draw_token(o, 1, g)),
        ("multiplied by the temperature", lambda o, t, g: discrete.draw_token(o, 1 / t, g)),
        ("it should be (20000, 1)", lambda o, t, g: o.argmax(dim=1)),
        ("off by up to", lambda o, t, g: discrete.draw_token(0 * o, t, g)),
    ],
    "log_scale": [  # (x_mean, x)
        ("the standard deviation", lambda m, x: (x - m).square().mean().sqrt().log()),
        ("take half of the log", lambda m, x: 2 * fitted_log_scale(m, x) - SCALE),
        ("return its logarithm", lambda m, x: torch.exp(fitted_log_scale(m, x))),
        ("a sum over the pixels", lambda m, x: fitted_log_scale(m, x) + 0.5 * math.log(x.shape[1])),
        ("with a gradient", lambda m, x: (x - m).square().mean().sqrt().log() + SCALE),
    ],
    "warmth": [  # (x, shape)
        ("channels last", lambda x, s: (x[:, 0::3] - x[:, 2::3]).mean(dim=1)),
        ("blue less red", lambda x, s: -RIGHT["warmth"](x, s)),
        ("a sum over the pixels", lambda x, s: (x[:, :16] - x[:, -16:]).sum(dim=1)),
        ("one number for", lambda x, s: (x[:, :16] - x[:, -16:]).mean()),
    ],
    "own_network": [  # (shape, latent_size)
        ("codes have 8 numbers, asked for were 4", lambda s, n: OurNetwork(s, 2 * n)),
        ("as probabilities are", partial(Own, end=nn.Sigmoid)),
        ("every code decodes to the same image", partial(Own, deaf=True)),
        ("write the two networks", lambda *_: nn.Module()),
        ("has no encode and no decode", lambda *_: nn.Linear(3, 4)),
        ("respect to the weights:", partial(Own, end=Detached)),
    ],
}

# --- right ----------------------------------------------------------------------------------------

# What is built is judged by what it does; of the others the result is compared.
BUILT = {"networks", "training", "network", "vae_training", "sliders", "inspector"}
BUILT |= {"conditional_network", "through", "next_token", "own_network", "recon_and_kl", "own_q"}
# What training goes through: it is asked for its gradient.
LEARN = {"squared_error", "reparameterize", "kl_divergence", "neg_elbo", "log_weights", "bound"}
LEARN |= {"free_bits", "matching_loss"}
every_check = pytest.mark.parametrize("name", RIGHT)
every_result = pytest.mark.parametrize("name", [name for name in RIGHT if name not in BUILT])


def run(name, answer):
    state = torch.get_rng_state()
    verdict = CHECKS[name](answer)
    assert torch.equal(torch.get_rng_state(), state)
    assert repr(verdict) == str(verdict)  # a notebook shows it without quotes
    return verdict


def test_every_check_is_tested():
    assert set(CHECKS) == set(RIGHT) == set(WRONG)


@every_check
def test_the_right_answer_is_correct(name):
    verdict = run(name, RIGHT[name])
    assert verdict == "✓ Correct." and verdict.ok is True


@every_result
def test_arrays_and_other_precisions_are_no_mistake(name):
    def right(*arguments):
        return torch.as_tensor(RIGHT[name](*arguments)).detach()

    assert run(name, lambda *arguments: torch.as_tensor(RIGHT[name](*arguments)).double()).ok
    for plain in (lambda *a: right(*a).numpy(), lambda *a: right(*a).tolist()):
        verdict = run(name, plain)
        assert verdict.ok or (name in LEARN and "the values are right" in verdict)


@every_result
def test_changing_the_arguments_in_place_cannot_break_the_check(name):
    def spoilt(*arguments):
        result = torch.as_tensor(RIGHT[name](*arguments)).clone()
        for argument in arguments:
            if isinstance(argument, torch.Tensor):
                argument.zero_()
        return result

    assert run(name, spoilt).ok or name in LEARN  # whose gradient it breaks
    assert run(name, RIGHT[name]).ok  # nor the next one


@pytest.mark.parametrize(
    "name, answer",
    [
        ("reparameterize", lambda mu, v, eps: torch.addcmul(mu, torch.exp(v) ** 0.5, eps)),
        ("kl_divergence", lambda mu, v: -0.5 * torch.sum(1 + v - mu.pow(2) - v.exp(), dim=-1)),
        ("kl_divergence", lambda mu, v: sum((mu**2 + torch.expm1(v) - v).T) / 2),
        ("kl_divergence", lambda mu, v: normal_kl(mu, torch.exp(v / 2)).sum(dim=1)),
        ("reparameterize", lambda mu, v, eps: mu + eps * (v / 2).exp().requires_grad_()),
        ("squared_error", lambda a, x: torch.einsum("bi,bi->b", a - x, a - x)),
        ("attribute_direction", slope),  # N in cov, N − 1 in var
        ("attribute_direction", lambda z, a: (a - a.mean()) @ z / len(z) / a.var(correction=0)),
        ("gain", lambda f, m, z, d, s: np.median(m(f(z + s * d)) - m(f(z - s * d))) / (2 * s)),
        ("inspector", lambda *a: [fault.upper() for fault in RIGHT["inspector"](*a)]),
        ("networks", pair(relu=(partial(nn.ReLU, inplace=True),))),
        ("conditional_network", LabelFirst),
        ("threshold", lambda s, rate: s.sort(descending=True).values[int(rate * len(s))]),
        ("perplexity", lambda tokens, n: CHECKS["perplexity"].ours(tokens.byte(), n)),
        ("recon_and_kl", own_terms),
        ("own_q", fit_q),
    ],
)
def test_the_right_answer_may_be_written_in_another_way(name, answer):
    assert run(name, answer).ok


@pytest.mark.parametrize(
    "answer",
    [
        partial(own_sliders, side=224, mode="RGB"),
        partial(own_sliders, box=lambda parts: widgets.HBox([widgets.VBox([w]) for w in parts])),
        coded(lambda *a: in_place(a[0].clone(), *a[1:3])[None]),  # a batch of one
    ],
)
def test_sliders_may_be_written_in_another_way_and_none_is_left_open(answer, monkeypatch):
    made, closed = [], []
    monkeypatch.setattr(widgets.Widget, "close", lambda self: closed.append(self))
    assert run("sliders", lambda *a: made.append(answer(*a)) or made[-1]).ok
    assert made and {*made, *(box.layout for box in made)} <= set(closed)


@pytest.mark.parametrize("kind", [float, np.float32, np.array, torch.tensor])
def test_a_beta_may_be_any_kind_of_number(kind):
    def answer(pixels, *rest):  # one kind in two cases, an int or a float in the others
        result = beta(pixels, *rest)
        return kind(result) if pixels == "sum" else (int(result) if result == 50 else result)

    assert run("effective_beta", answer).ok


def test_the_learners_answer_is_used_if_it_is_right_and_else_the_packages(capsys):
    mine = RIGHT["kl_divergence"]
    assert lesson.yours(CHECKS["kl_divergence"], mine) is mine
    assert capsys.readouterr().out == "✓ Correct. It is used from here on.\n"
    used = lesson.yours(CHECKS["kl_divergence"], lambda *_: None)
    assert used is CHECKS["kl_divergence"].ours
    says = "Not yet: your function returns nothing. Until then ours is used.\n"
    assert capsys.readouterr().out == says


# --- not yet --------------------------------------------------------------------------------------


broken = Mock(side_effect=ZeroDivisionError("division by zero"))


@every_check
@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda *_: None, "returns nothing"),
        (lambda *_: ..., "expected a tensor, got ellipsis"),
        (lambda *_: (torch.zeros(2), torch.zeros(2)), "expected a tensor, got tuple"),
        (lambda *_: torch.ones(2) ^ 2, "^ is no power in Python, ** is"),
        (broken, "raised ZeroDivisionError: division by zero"),
        (lambda: 1, "raised TypeError"),  # takes no argument
    ],
)
def test_what_is_no_answer_is_not_yet_one_and_raises_nothing(name, answer, says):
    verdict = run(name, answer)
    assert verdict.startswith("Not yet: ") and verdict.ok is False
    assert says in verdict or name in BUILT


def test_an_exception_is_told_with_the_learners_own_line(monkeypatch):
    cell = "def answer(mu, log_var):\n    return mu.chunk(2, dim=9)\n"
    monkeypatch.setitem(linecache.cache, "a cell", (0, None, cell.splitlines(), "a cell"))
    exec(compile(cell, "a cell", "exec"), names := {})
    says = "Not yet: your function raised IndexError in line 2 (`return mu.chunk(2, dim=9)`): Dim"
    verdict = run("kl_divergence", names["answer"])
    assert verdict.startswith(says) and verdict.endswith(").")  # "Until then …" is a new sentence


@every_result
def test_shape_inf_nan_and_off_values_have_their_messages(name):
    def said(change):
        verdict = run(name, lambda *arguments: change(torch.as_tensor(RIGHT[name](*arguments))))
        assert not verdict.ok
        return verdict

    assert "the shape is (1," in (verdict := said(lambda right: right[None]))
    assert "it should be (" in verdict
    assert "holds NaN or inf" in said(lambda right: right + math.inf)
    assert "holds NaN or inf" in said(lambda right: right * math.nan)
    assert "right shape, but values are off by up to 0.125" in said(lambda right: right + 0.125)


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, says, answer", [(name, *case) for name, cases in WRONG.items() for case in cases]
)
def test_a_common_mistake_is_named(name, says, answer):
    verdict = run(name, answer)
    assert verdict.startswith("Not yet: ") and says in verdict and verdict.ok is False


def comparisons(name, monkeypatch):
    """Return (right result, {message: [wrong results]}) of each comparison that a check makes."""
    found = []

    def compare(answer, arguments, right, mistakes, **options):
        lists = {says: w if isinstance(w, list) else [w] for says, w in mistakes.items()}
        found.append((right, lists))
        return Verdict("Correct.")

    for module in MODULES:
        if hasattr(module, "compare"):
            monkeypatch.setattr(module, "compare", compare)
    CHECKS[name](RIGHT[name])
    return found


def same(a, b):
    """Say whether a check could take a for b, with a hundred times its tolerance."""
    if a.shape != b.shape or (a.dtype == torch.bool) != (b.dtype == torch.bool):
        return False
    return torch.allclose(a.double(), b.double(), rtol=1e-2, atol=1e-3)


@every_check
def test_the_mistakes_of_a_check_are_tested_and_differ_in_result_and_words(name, monkeypatch):
    for right, mistakes in comparisons(name, monkeypatch):
        for message, wrongs in mistakes.items():
            assert any(says in message for says, _ in WRONG[name]), message
            others = [w for says, ws in mistakes.items() if says != message for w in ws]
            for result in wrongs:
                assert not result.double().isnan().any(), message  # NaN fits nothing
                assert not any(same(result, other) for other in [right, *others]), message
        for says, _ in WRONG[name]:
            assert sum(says in message for message in mistakes) <= 1, says


# --- the diagnoses --------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [PATIENTS, lambda: PATIENTS], ids=["dict", "function"])
def test_the_right_diagnoses_are_correct(answer):
    verdict = diagnose(answer)
    assert verdict.ok is True and verdict.startswith("✓ Correct.\nA: right, log_var")
    assert repr(verdict) == str(verdict)


def test_each_wrong_diagnosis_is_answered_by_its_own_symptom():
    said = set()
    for letter, cause in PATIENTS.items():
        for fault in set(PATIENTS.values()) - {cause}:
            verdict = diagnose({**PATIENTS, letter: fault})
            assert verdict.ok is False and verdict.startswith("Not yet: 4 of 5 are right.")
            (line,) = (line for line in verdict.split("\n") if line.startswith(f"{letter}: "))
            assert line.startswith(f"{letter}: not {fault!r}: with it ")
            assert cause not in line  # the answer is not given away
            said.add(line.split(": ", 1)[1])
    assert len(said) == len(PATIENTS)


@pytest.mark.parametrize(
    "words, fault",
    [
        *((fault, fault) for fault in PATIENTS.values()),
        ("NO NOISE!", "no noise"),
        ("KL sign wrong", "wrong sign of the KL"),
        ("the KL has a minus sign", None),  # "has" is no word of any
        ("the mean, not the sum", "mean for sum"),
        ("log σ² used as σ", "log_var used as sigma"),
        ("logvar as sigma", "log_var used as sigma"),
        ("no", None),
        ("variance used as sigma", None),
        ("", None),
    ],
)
def test_any_unambiguous_spelling_names_a_fault(words, fault):
    assert fault_named(words) == fault


@pytest.mark.parametrize(
    "answers, says",
    [
        ({}, "0 of 5 are right.\nA: not yet."),
        ({"A": "...", "B": None, "C": ...}, "right.\nA: not yet.\nB: not yet.\nC: not y"),
        ({"A": "LOG VAR"}, "1 of 5 are right.\nA: right, log_var used as sigma."),
        ({"A": "the moon"}, "names none or several of the faults: log_var used as sigma, mean"),
        ({"F": "no noise"}, "There is no patient F."),
        (["no noise"], "got list"),
        (broken, "raised ZeroDivisionError"),
    ],
)
def test_what_is_not_yet_a_diagnosis(answers, says):
    verdict = diagnose(answers)
    assert verdict.ok is False and verdict.startswith("Not yet: ") and says in verdict
