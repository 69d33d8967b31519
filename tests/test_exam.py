"""Lesson 02's exam: right VAEs of different styles pass, wrong ones are told what is wrong."""

import re
from functools import cache
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from lessons import read
from play import few
from torch import nn
from torch.distributions import Normal, kl_divergence

from vae_lesson import sources
from vae_lesson.teaching import exam as module
from vae_lesson.teaching.exam import exam

BAND = (110.0, 135.0)  # of 3,000 digits and 8 epochs; the mean image has more than 250


@cache
def images():
    return few(sources.offline_digits(), 3000, 1000)


@pytest.fixture(autouse=True)
def band(monkeypatch):
    monkeypatch.setitem(module.BANDS, "digits", BAND)


def layers(*sizes, end=()):
    pairs = [(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(sizes)]
    return nn.Sequential(*[layer for pair in pairs for layer in pair][:-1], *end)


class Plain(nn.Module):
    """One encoder of 2 · latent_size numbers, logits, flat images."""

    end = ()

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = layers(784, 200, 20), layers(10, 200, 784, end=self.end)

    def encode(self, x):
        return self.encoder(x).chunk(2, dim=1)

    def decode(self, z):
        return self.decoder(z)

    def draw(self, mu, log_var):
        return mu + torch.exp(0.5 * log_var) * torch.randn_like(mu)

    def forward(self, x):
        mu, log_var = self.encode(x)
        return self.decode(self.draw(mu, log_var)), mu, log_var


def plain_loss(x_logits, x, mu, log_var):
    recon = F.binary_cross_entropy_with_logits(x_logits, x, reduction="sum")
    return (recon + 0.5 * (mu**2 + log_var.exp() - 1 - log_var).sum()) / len(x)


def changed(**methods):
    return type("Changed", (Plain,), methods)


class TwoHeads(Plain):
    """Probabilities, two heads, and a loss of one number an image."""

    def __init__(self):
        nn.Module.__init__(self)
        self.body, self.to_mu, self.to_log_var = layers(784, 200, 200), *heads(200)
        self.decoder = layers(10, 200, 784, end=[nn.Sigmoid()])

    def encode(self, x):
        h = self.body(x).relu()
        return self.to_mu(h), self.to_log_var(h)


def heads(n):
    return nn.Linear(n, 10), nn.Linear(n, 10)


def loss_an_image(p, x, mu, log_var):
    recon = F.binary_cross_entropy(p, x, reduction="none").flatten(1).sum(dim=1)
    prior = Normal(torch.zeros_like(mu), torch.ones_like(mu))
    return recon + kl_divergence(Normal(mu, torch.exp(0.5 * log_var)), prior).sum(dim=1)


class Shaped(Plain):
    """Takes and gives (B, 1, 28, 28)."""

    def encode(self, x):
        assert x.shape[1:] == (1, 28, 28)
        return super().encode(x.flatten(1))

    def decode(self, z):
        return super().decode(z).view(-1, 1, 28, 28)


class Sampling(Plain):
    """Draws by rsample."""

    def draw(self, mu, log_var):
        return Normal(mu, torch.exp(0.5 * log_var)).rsample()


class LogSigma(Plain):
    """Its network gives log σ, and encode makes log σ² of it."""

    def encode(self, x):
        mu, log_sigma = super().encode(x)
        return mu, 2 * log_sigma


RIGHT = {
    "plain": (Plain, plain_loss),
    "two heads, probabilities, a loss an image": (TwoHeads, loss_an_image),
    "shaped": (Shaped, plain_loss),
    "rsample": (Sampling, plain_loss),
    "log sigma inside": (LogSigma, plain_loss),
}


def mean_over_pixels(x_logits, x, mu, log_var):
    kl = 0.5 * (mu**2 + log_var.exp() - 1 - log_var).sum(dim=1).mean()
    return F.binary_cross_entropy_with_logits(x_logits, x) + kl


def kl_subtracted(x_logits, x, mu, log_var):
    recon = F.binary_cross_entropy_with_logits(x_logits, x, reduction="sum")
    return (recon + 0.5 * (1 + log_var - mu**2 - log_var.exp()).sum()) / len(x)


def no_kl(x_logits, x, mu, log_var):
    return F.binary_cross_entropy_with_logits(x_logits, x, reduction="sum") / len(x)


class Copying(Plain):
    """Its decode gives back the image that encode has seen."""

    def encode(self, x):
        self.seen = x
        return super().encode(x)

    def decode(self, z):
        return 20 * self.seen[: len(z)].expand(len(z), -1) - 10 + 0 * super().decode(z)


class WithoutEncode(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Plain()

    def forward(self, x):
        return self.net(x)


class Raising(Plain):
    def decode(self, z):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


WRONG = {  # name -> (model, loss, epochs, what is said)
    "mean for sum": (Plain, mean_over_pixels, 8, "mean for sum.*|the code says nothing"),
    "variance as sigma": (
        changed(draw=lambda _, mu, v: mu + v.exp() * torch.randn_like(mu)),
        plain_loss,
        8,
        "variance used as sigma",
    ),
    "KL subtracted": (Plain, kl_subtracted, 0, "wrong sign of the KL"),
    "no KL": (Plain, no_kl, 8, "the KL hardly counts"),
    "one eps for the batch": (
        changed(draw=lambda _, mu, v: mu + torch.exp(0.5 * v) * torch.randn_like(mu[:1])),
        plain_loss,
        8,
        "noise that is not N",
    ),
    "hardly trained": (Plain, plain_loss, 1, "over the band .*more epochs"),
    "sigmoid twice": (changed(end=[nn.Sigmoid()]), plain_loss, 8, "sigmoid twice"),
    "copies its input": (Copying, plain_loss, 0, "the same code after another image"),
    "no encode": (WithoutEncode, plain_loss, 0, "has no encode and no decode"),
    "raises": (Raising, plain_loss, 0, "mat1 and mat2 shapes"),
    "gradient cut": (
        changed(draw=lambda _, mu, v: Normal(mu, torch.exp(0.5 * v)).sample()),
        plain_loss,
        8,
        "the code says nothing.*\n.*gradient cut",
    ),
    "a loss that raises": (Plain, lambda x_logits, x: x_logits, 0, "takes 2 positional arguments"),
    "no module": (3, plain_loss, 0, "model must be an nn.Module"),
    "not written": (..., ..., 0, "write the VAE"),
}


def trained(kind, loss, epochs):
    """Train as a learner would on a blank page."""
    if not isinstance(kind, type):
        return kind
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind()
        x = images().train.flatten(1) / 255
        x = x.view(-1, 1, 28, 28) if kind is Shaped else x
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, fused=True)
        for _ in range(epochs):
            for batch in x[torch.randperm(len(x))].split(64):
                output, mu, log_var = model(batch)
                value = loss(output, batch.view_as(output), mu, log_var).mean()
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
    return model


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_vae_passes_whatever_its_style(name):
    kind, loss = RIGHT[name]
    verdict = exam(trained(kind, loss, 8), images(), loss)
    assert verdict.ok, verdict
    assert verdict.count("✓") == 4
    assert re.search(r"−ELBO 1\d\d\.\d\d nats = recon .* inside the band", verdict)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_vae_is_told_what_is_wrong(name):
    kind, loss, epochs, says = WRONG[name]
    verdict = exam(trained(kind, loss, epochs), images(), loss)
    assert verdict.startswith("Not yet"), verdict
    assert re.search(says, verdict), verdict


def test_the_lesson_s_own_solution_passes(monkeypatch):
    text = next(cell.source for cell in read("02_vae").cells if cell.id == "exam-text")
    (solution,) = re.findall(r"```python\n(.*?)```", text, re.S)
    assert solution.count("\n") <= 40
    torch.manual_seed(0)
    names = {"images": images()}
    exec(solution.replace("split(128)", "split(64)"), names)
    verdict = exam(names["my_vae"], images(), names["my_loss"])
    assert verdict.ok, verdict


def test_a_data_set_without_a_band_is_measured_all_the_same(monkeypatch):
    monkeypatch.delitem(module.BANDS, "digits")
    verdict = exam(trained(Plain, plain_loss, 1), images(), plain_loss)
    assert verdict.ok
    assert "'digits' has no measured band" in verdict
