"""How a check works: run the learner's function on a small case and name what comes back.

A check never raises: an unsolved exercise says "Not yet" and the notebook runs on. Each one
compares the answer with the right result and with the wrong ones that people often give. Tell two
wrong results apart by a case in which they differ.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from tqdm.auto import trange

from vae_lesson.data import to_float
from vae_lesson.teaching.lesson import Text

ONE_NUMBER = "one number for the whole batch: keep one value an image"


class Verdict(Text):
    """What a check says; its first word, and `ok`, tell whether the answer was right."""

    @property
    def ok(self) -> bool:
        return self.startswith("Correct.")


def attempt(answer: Callable, *arguments) -> object:
    """Return what `answer` returns, or the Verdict on one that is unwritten or fails.

    It gets copies: an answer may change its arguments in place.
    """
    try:
        result = answer(*(a.clone() if isinstance(a, Tensor) else a for a in arguments))
    except NotImplementedError:
        return Verdict("Not yet: write the function, then run this cell again.")
    except (Exception, SystemExit) as error:  # whatever a learner's code raises, the lesson goes on
        return Verdict(f"Not yet: your function raised {type(error).__name__}: {error}")
    return Verdict("Not yet: your function returns nothing.") if result is None else result


def compare(answer: Callable, arguments: tuple, right: Tensor, mistakes: dict) -> Verdict:
    """Run `answer` on `arguments` and name the result: `right`, or one of `mistakes`.

    `mistakes` maps what to say to the wrong result, or a list of them.
    """
    results = [attempt(answer, *arguments) for _ in range(2)]
    for result in results:
        if isinstance(result, Verdict):
            return result
    try:
        first, second = (torch.as_tensor(result).detach().cpu() for result in results)
    except (TypeError, ValueError, RuntimeError):
        return Verdict(f"Not yet: expected a tensor, got {type(results[0]).__name__}.")
    if _same(first, right):
        return Verdict("Correct.")
    for message, wrongs in mistakes.items():
        if any(_same(first, w) for w in (wrongs if isinstance(wrongs, list) else [wrongs])):
            return Verdict(f"Not yet: this looks like {message}.")
    if first.shape != right.shape:
        got, wanted = tuple(first.shape), tuple(right.shape)
        return Verdict(f"Not yet: the shape is {got}, it should be {wanted}.")
    if not first.isfinite().all():
        return Verdict("Not yet: the result holds NaN or inf.")
    if not _same(first, second):
        return Verdict("Not yet: this looks like noise of your own: use only what is passed in.")
    off = (first.double() - right.double()).abs().max().item()
    return Verdict(f"Not yet: the right shape, but values are off by up to {off:.3g}.")


def draw(*shapes: tuple[int, ...]) -> list[Tensor]:
    """Return a small case: tensors of N(0, 1) of these shapes, the same in every run."""
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def compare_training(answer: Callable, ours: Callable, make: Callable, mistakes: dict) -> Verdict:
    """Compare what is left by `answer`, a training loop, and by `ours`, which makes a mistake on
    request: `mistakes` maps what to say to those options, beside those of every loop."""
    mistakes = mistakes | {
        "gradients that add up: call `zero_grad` in every step": {"zero": False},
        "a loss that grows: its sign is turned": {"sign": -1},
        "a single epoch, whatever `epochs` is": {"once": True},
    }
    wrong = {"no training: not one weight has changed": _weights_after(lambda *_: None, make)}
    wrong |= {says: _weights_after(ours, make, **how) for says, how in mistakes.items()}
    return compare(lambda: _weights_after(answer, make), (), _weights_after(ours, make), wrong)


def descend(
    weights: list,
    loss: Callable,
    images: Tensor,
    epochs: int,
    batch_size: int,
    lr: float,
    generator: torch.Generator,
    sign: int = 1,
    zero: bool = True,
    once: bool = False,
) -> None:
    """Train by Adam on loss(x) of one batch after the other; the last three are common mistakes."""
    optimizer = torch.optim.Adam(weights, lr=lr, fused=True)
    few = len(images) < 100  # a check's: no bar
    for _ in trange(1 if once else epochs, leave=False, disable=few):
        order = torch.randperm(len(images), generator=generator, device=images.device)
        for index in order.split(batch_size):
            value = sign * loss(to_float(images[index]))
            if zero:
                optimizer.zero_grad()
            value.backward()
            optimizer.step()


def _weights_after(train: Callable, make: Callable, **how) -> Tensor:
    """Return all weights of the modules that `make` makes, after a small training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        modules = make()
    generator = torch.Generator().manual_seed(7)
    images = torch.randint(0, 256, (20, 2, 2), generator=generator).byte()
    train(*modules, images, 2, 8, 0.01, generator, **how)
    return torch.cat([w.detach().flatten() for module in modules for w in module.parameters()])


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or (a.dtype == torch.bool) != (b.dtype == torch.bool):
        return False
    return torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-5, equal_nan=False)
