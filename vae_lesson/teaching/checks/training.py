"""How a loop that trains is checked: by the weights that it leaves, and by its first gradients,
since Adam's steps are the same for a loss of any scale."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from tqdm.auto import trange

from vae_lesson.data import to_float
from vae_lesson.teaching.checks.verdict import Verdict, compare, seeded

MISTAKES = {  # of every loop, as arguments of `_after` and `descend`
    "no training: not one weight has changed": {"epochs": 0},
    "gradients that add up: call `zero_grad` in every step": {"zero": False},
    "a loss that grows: its sign is turned": {"sign": -1},
    "a single epoch, whatever `epochs` is": {"epochs": 1},
    "the sum over the batch: take its mean": {"reduce": Tensor.sum},
    "all images in place of a batch of `batch_size`": {"batch_size": 20},
    "a last batch that is left out for being smaller": {"drop_last": True},
    "another learning rate than `lr`": {"lr": 1e-3},
}


def compare_training(
    answer: Callable, ours: Callable, make: Callable, mistakes: dict, scales: dict | None = None
) -> Verdict:
    """Compare what `answer` leaves of the modules that `make` makes, and what `ours` does, which
    makes a mistake on request: `mistakes`, and `scales` of the loss, map what to say to its
    options."""

    scales = scales or {}
    right, options = _after(ours, make), MISTAKES | mistakes | scales
    wrong = {says: _after(ours, make, **how) for says, how in options.items()}

    def compared(part: int, names: dict, values: str) -> Verdict:
        named = {says: wrong[says][part] for says in names}
        return compare(lambda: _after(answer, make)[part], (), right[part], named, values=values)

    verdict = compared(0, options, "the trained weights")
    return compared(1, scales, "the first gradients") if verdict.ok else verdict


def _after(
    train: Callable, make: Callable, epochs=2, batch_size=8, lr=0.01, **mistake
) -> tuple[Tensor, Tensor]:
    """Return the weights after a training on 20 images, and their gradients in its first step."""
    with seeded():
        modules = make()
    weights = [weight for module in modules for weight in module.parameters()]
    first = [torch.zeros_like(weight) for weight in weights]

    def keep(gradient: Tensor, place: Tensor) -> None:
        if not place.any():
            place.copy_(gradient)

    for weight, place in zip(weights, first):
        weight.register_hook(functools.partial(keep, place=place))
    generator = torch.Generator().manual_seed(7)
    images = torch.randint(0, 256, (20, 28, 28), generator=generator).byte()
    train(*modules, images, epochs, batch_size, lr, generator, **mistake)
    return tuple(torch.cat([v.detach().flatten() for v in each]) for each in (weights, first))


def descend(
    weights,
    loss,
    images,
    epochs,
    batch_size,
    lr,
    generator,
    *,
    sign=1,
    zero=True,
    reduce=Tensor.mean,
    pixels=to_float,
    drop_last=False,
) -> None:
    """Train by Adam on the mean of loss(x), `(B,)`, of one batch after the other; what follows the
    generator makes common mistakes."""
    optimizer = torch.optim.Adam(weights, lr=lr, fused=True)
    few = len(images) < 100  # a check's: no bar
    for _ in trange(epochs, leave=False, disable=few):
        order = torch.randperm(len(images), generator=generator, device=images.device)
        for index in order.split(batch_size):
            if drop_last and len(index) < batch_size:
                continue
            value = sign * reduce(loss(pixels(images[index])))
            if zero:
                optimizer.zero_grad()
            value.backward()
            optimizer.step()
