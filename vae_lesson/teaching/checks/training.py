"""How a loop that trains is checked: by the weights that it leaves."""

from collections.abc import Callable

import torch
from torch import Tensor
from tqdm.auto import trange

from vae_lesson.data import to_float
from vae_lesson.teaching.checks.verdict import Verdict, compare, seeded

MISTAKES = {  # of every loop, as options of `descend`
    "no training: not one weight has changed": {"epochs": 0},
    "gradients that add up: call `zero_grad` in every step": {"zero": False},
    "a loss that grows: its sign is turned": {"sign": -1},
    "a single epoch, whatever `epochs` is": {"epochs": 1},
    "the sum over the batch: take its mean": {"reduce": Tensor.sum},
}


def compare_training(answer: Callable, ours: Callable, make: Callable, mistakes: dict) -> Verdict:
    """Compare what `answer` leaves of the modules that `make` makes, and what `ours` does, which
    makes a mistake on request: `mistakes` maps what to say to its options."""
    wrong = {says: _weights_after(ours, make, **how) for says, how in (MISTAKES | mistakes).items()}
    right, weights = _weights_after(ours, make), "the trained weights"
    return compare(lambda: _weights_after(answer, make), (), right, wrong, values=weights)


def _weights_after(train: Callable, make: Callable, epochs: int = 2, **mistake) -> Tensor:
    with seeded():
        modules = make()
    generator = torch.Generator().manual_seed(7)
    images = torch.randint(0, 256, (20, 2, 2), generator=generator).byte()
    train(*modules, images, epochs, 8, 0.01, generator, **mistake)
    return torch.cat([w.detach().flatten() for module in modules for w in module.parameters()])


def descend(
    weights, loss, images, epochs, batch_size, lr, generator, sign=1, zero=True, reduce=Tensor.mean
) -> None:
    """Train by Adam on the mean of loss(x), `(B,)`, of one batch after the other; the last three
    make common mistakes."""
    optimizer = torch.optim.Adam(weights, lr=lr, fused=True)
    few = len(images) < 100  # a check's: no bar
    for _ in trange(epochs, leave=False, disable=few):
        order = torch.randperm(len(images), generator=generator, device=images.device)
        for index in order.split(batch_size):
            value = sign * reduce(loss(to_float(images[index])))
            if zero:
                optimizer.zero_grad()
            value.backward()
            optimizer.step()
