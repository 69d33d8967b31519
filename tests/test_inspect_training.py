"""inspect_training: set-ups that break, as learners write them; healthy ones are left alone."""

import copy
import math

import pytest
import torch
import torch.distributions as D
import torch.nn.functional as F
import vaes
from torch import nn
from vaes import Foreign, Logits, bce_logits, with_methods

from vae_lesson.clinic.inspect_training import GROWTH, LIMITS, inspect_training


def images(n=32, top=1.0):
    """Make four batches of soft spots, `(n, 784)`, mostly black."""
    generator, t = torch.Generator().manual_seed(0), torch.arange(28.0)
    batches = []
    for _ in range(4):
        across, down = 6 + 16 * torch.rand(2, n, 1, generator=generator)
        bell = torch.exp(-(((t - across) / 4) ** 2))[:, None] * torch.exp(
            -(((t - down) / 4) ** 2)
        ).unsqueeze(2)
        batches.append(top * (bell * (bell > 0.1)).flatten(1))
    return batches


def kl(m, v):
    return -0.5 * torch.sum(1 + v - m.pow(2) - v.exp())


def bce(o, x, m, v):
    return (F.binary_cross_entropy(o, x, reduction="sum") + kl(m, v)) / len(x)


def logits(o, x, m, v):
    return (F.binary_cross_entropy_with_logits(o, x, reduction="sum") + kl(m, v)) / len(x)


def by_hand(o, x, m, v):
    return -(x * torch.log(o) + (1 - x) * torch.log(1 - o)).sum() + kl(m, v)


def root(o, x, m, v):
    return bce(o, x, m, v) + torch.sqrt((m**2).sum(1)).mean()


def squares(o, x, m, v):
    return F.mse_loss(o, x, reduction="sum") + kl(m, v)


def summed(o, x, m, v):
    return F.binary_cross_entropy_with_logits(o, x, reduction="sum") + kl(m, v)


def turned(o, x, m, v):
    return F.mse_loss(o, x, reduction="sum") - kl(m, v)


def filled(layer, weight=None, bias=None, kind=Foreign):
    model = kind()
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            nn.init.constant_(getattr(getattr(model, layer), name), value)
    return model


def spread(layer, std, kind=Foreign):
    model = kind()
    nn.init.normal_(getattr(model, layer).weight, std=std)
    return model


def relu_sigma(self, x):
    mu, v = Foreign.encode(self, x)
    return mu, F.relu(v)


def by_pixel(self, x):
    return Foreign.encode(self, (x - x.mean(0)) / x.std(0))


def half_autocast(self, x):
    with torch.autocast("cpu", dtype=torch.float16):
        return Foreign.forward(self, x)


def by_distributions(self, x):
    mu, v = self.encode(x)
    return self.decode(D.Normal(mu, torch.exp(0.5 * v)).rsample()), mu, v


def log_sigma(o, x, m, s):
    return F.binary_cross_entropy(o, x, reduction="sum") - (1 + torch.log(s**2) - m**2 - s**2).sum()


def not_a_number():
    batches = images()
    batches[2][5, 300] = math.nan
    return batches


Spiky = with_methods(encode=relu_sigma, reparameterize=lambda self, m, s: m + s)
ReLU = with_methods(decode=lambda self, z: F.relu(Logits.decode(self, z)))
Adam, SGD = torch.optim.Adam, torch.optim.SGD
AUTOCAST = with_methods(decode=Logits.decode, forward=half_autocast)
HALF = [x.half() for x in images(128)]
BROKEN = {  # name: (model, loss, batches, optimizer, what must be said)
    "log of 0": (lambda: spread("fc4", 9), by_hand, images, None, ["log in", "recon", "fc4"]),
    "log_var at 60": (lambda: filled("fc22", bias=60.0), bce, images, None, ["log_var", "fc22"]),
    "log_var huge": (lambda: spread("fc22", 50), bce, images, None, ["log_var", "fc22"]),
    "0 to 255": (ReLU, squares, lambda: images(top=255.0), None, ["output", "images to [0, 1]"]),
    "σ of 0": (Spiky, log_sigma, images, None, ["log in", "KL", "fc22"]),
    "root of 0": (lambda: filled("fc21", 0, 0), root, images, None, ["slope", "torch.sqrt"]),
    "a pixel's std": (with_methods(encode=by_pixel), bce, images, None, ["div in", "model"]),
    "half, summed": (
        lambda: Logits().half(),
        summed,
        lambda: HALF,
        None,
        ["torch.float16", "float32 or bfloat16"],
    ),
    "half, Adam": (
        lambda: Logits().half(),
        logits,
        lambda: HALF,
        None,
        ["torch.float16", "float32 or bfloat16"],
    ),
    "autocast": (
        lambda: filled("fc22", 0, 12.0, AUTOCAST),
        summed,
        images,
        None,
        ["exp in", "torch.float16"],
    ),
    "rate of 1": (Foreign, bce, images, lambda w: Adam(w, 1.0), ["rate helps", "loss"]),
    "RMSprop": (Foreign, bce, images, lambda w: torch.optim.RMSprop(w, 1.0), ["rate helps"]),
    "summed, SGD": (Logits, summed, images, lambda w: SGD(w, 0.1), ["rate helps"]),
    "a likelihood that refuses": (
        with_methods(forward=by_distributions),
        bce,
        images,
        lambda w: Adam(w, 3.0),
        ["rate helps", "Step 2", "model"],
    ),
    "NaN in an image": (Foreign, bce, not_a_number, None, ["Step 3", "x itself", "not help"]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_is_named(name):
    model, loss, batches, optimizer, words = BROKEN[name]
    torch.manual_seed(0)
    model = model()
    report = inspect_training(model, loss, batches(), optimizer and optimizer(model.parameters()))
    assert report
    assert [word for word in words if word not in str(report)] == [], report


def test_what_the_loss_asks_for_is_no_matter_of_the_rate():
    torch.manual_seed(0)
    report = inspect_training(Foreign(), turned, images(), n_steps=100)
    assert "log_var reaches" in str(report) and "inspect_vae" in str(report)
    assert {finding.fault for finding in report} == {"runs away"} and "Tried" not in str(report)


# --- healthy --------------------------------------------------------------------------------------


class WarmUp:
    def __init__(self, n):
        self.n, self.step = n, 0

    def __call__(self, o, x, m, v):
        self.step += 1
        return F.binary_cross_entropy(o, x, reduction="sum") + min(1, self.step / self.n) * kl(m, v)


class Normed(Foreign):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(40)

    def encode(self, x):
        h = F.dropout(F.relu(self.norm(self.fc1(x))), 0.2, self.training)
        return self.fc21(h), self.fc22(h)


class Conv(nn.Module):  # which keeps its KL, as tutorials do
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 8, 4, 4), nn.ReLU(), nn.Flatten())
        self.head, self.decoder = nn.Linear(392, 8), nn.Linear(4, 784)

    def forward(self, x):
        mu, v = self.head(self.encoder(x.view(-1, 1, 28, 28))).chunk(2, dim=1)
        self.kl = kl(mu, v)
        return self.decoder(mu + torch.randn_like(mu) * torch.exp(0.5 * v)), mu, v


class LearnedSigma(Logits):  # whose loss is a method
    def __init__(self):
        super().__init__()
        self.log_sigma = nn.Parameter(torch.zeros(()))

    def loss(self, o, x, m, v):
        error = 0.5 * ((o - x) / self.log_sigma.exp()) ** 2 + self.log_sigma
        return (error.sum() + kl(m, v)) / len(x)


def masked(self, x):
    p = x.view(-1, 28, 28)
    scores = (p @ p.mT).masked_fill(torch.ones(28, 28).triu(1).bool(), -math.inf)
    return Foreign.encode(self, (scores.softmax(-1) @ p).flatten(1))


def checkpointed(self, x):
    return torch.utils.checkpoint.checkpoint(Foreign.encode, self, x, use_reentrant=False)


def per_image(o, x, m, v):
    return (o - x).square().sum(1) + 0.5 * (m**2 + v.exp() - 1 - v).sum(1)


learned = LearnedSigma()
HEALTHY = {  # name: (model, loss, batches, optimizer)
    "PyTorch's example": (Foreign, bce, images, None),
    "a KL that first rises": (Logits, summed, images, lambda w: Adam(w, 5e-3)),
    "a warm-up": (Foreign, WarmUp(6), images, None),
    "norm and dropout": (Normed, bce, images, None),
    "convolutions": (Conv, logits, lambda: [(x, torch.zeros(32)) for x in images()], None),
    "a learned σ": (lambda: learned, learned.loss, images, None),
    "unequal batches": (Foreign, WarmUp(1), lambda: [images(2)[0], *images()], None),
    "a mask of −inf": (with_methods(encode=masked), bce, images, None),
    "checkpoints": (with_methods(encode=checkpointed), bce, images, None),
    "one an image": (Logits, per_image, images, lambda w: Adam(w, 1e-2)),
    "β of 1e-6": (Logits, lambda o, x, m, v: F.mse_loss(o, x) + 1e-6 * kl(m, v), images, None),
    "standardised": (Logits, squares, lambda: [(x - 0.1) / 0.3 for x in images()], None),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_what_is_healthy_is_not_accused(name):
    model, loss, batches, optimizer = HEALTHY[name]
    torch.manual_seed(0)
    model = model()
    report = inspect_training(model, loss, batches(), optimizer and optimizer(model.parameters()))
    assert not report, report
    assert len(report.steps) == 12 and "12 steps" in str(report)


@pytest.mark.parametrize("name", list(vaes.HEALTHY)[::3])  # of the others the same was seen once
def test_the_limits_leave_room_for_the_inspector_s_healthy(name):
    torch.manual_seed(0)
    model, loss = vaes.HEALTHY[name]
    report = inspect_training(model(), loss, [x.unflatten(1, (1, 28, 28)) for x in images()])
    assert not report, report
    for of, limit in LIMITS.items():
        assert max(row[of] for row in report.steps) < limit / 2
    assert max(row["loss"] for row in report.steps) < GROWTH / 2 * abs(report.steps[0]["loss"])


def test_the_kl_rises_and_is_the_loss_s():
    torch.manual_seed(0)
    model = Logits()
    report = inspect_training(model, summed, images(), Adam(model.parameters(), 5e-3))
    assert report.steps[-1]["KL"] > 10 * report.steps[0]["KL"] > 0
    assert report.steps[-1]["loss"] < report.steps[0]["loss"]
    assert set(report.steps[0]["gradients"]) == {name for name, _ in model.named_parameters()}
    with torch.no_grad():
        _, mu, log_var = Logits.forward(model, images()[0])
    assert report.steps[0]["KL"] == pytest.approx(kl(mu, log_var).item() / 32, rel=1e-4)


def test_the_steps_are_those_of_a_plain_loop():
    model, losses = filled("fc22", 0, -99.0, Logits), []  # without noise
    report = inspect_training(model, logits, images())
    optimizer = Adam(model.parameters(), lr=1e-3)
    for x in images() * 3:
        value = logits(*(out := model(x))[:1], x, *out[1:])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert [row["loss"] for row in report.steps] == pytest.approx(losses, rel=1e-5)


@pytest.mark.parametrize("loss", [logits, by_hand])
def test_nothing_of_the_learner_s_changes(loss):
    model = Normed().eval()
    optimizer = Adam(model.parameters(), lr=0.5)
    bce(*(out := model(images()[0]))[:1], images()[0], *out[1:]).backward()
    optimizer.step()
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    gradients = [w.grad.clone() for w in model.parameters()]
    random = torch.get_rng_state()
    loader = torch.utils.data.DataLoader(torch.cat(images()), 32, shuffle=True)
    inspect_training(model, loss, loader, optimizer)
    assert torch.equal(random, torch.get_rng_state()) and not any(
        module.training for module in model.modules()
    )
    assert all(torch.equal(a, w.grad) for a, w in zip(gradients, model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(before[0].values(), model.state_dict().values()))
    assert str(before[1]) == str(optimizer.state_dict())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_batch_is_no_list_of_batches():
    with pytest.raises(ValueError, match="give \\[x\\], not x"):
        inspect_training(Foreign(), bce, images()[0])


def test_a_learner_s_own_error_stays_it():
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        inspect_training(Foreign(), bce, [torch.rand(4, 28, 27)])


def test_bce_logits_of_the_table_is_healthy():
    torch.manual_seed(0)
    assert not inspect_training(Logits(), bce_logits, images())
