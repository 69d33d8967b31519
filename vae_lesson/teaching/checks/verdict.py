"""How a check works: run the learner's function on a small case and name what comes back.

A check never raises: an unsolved exercise says "Not yet" and the notebook runs on. Each one
compares the answer with the right result and with the wrong ones that people often give. Tell two
wrong results apart by a case in which they differ.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from vae_lesson.teaching.lesson import Text


class Verdict(Text):
    """What a check says; its first word, and `ok`, tell whether the answer was right."""

    @property
    def ok(self) -> bool:
        return self.startswith("Correct.")


def ours(answer: Callable) -> Callable:
    """Give a check the package's own answer, `check.ours`: a lesson goes on with it till then."""

    def with_answer(check: Callable) -> Callable:
        check.ours = answer
        return check

    return with_answer


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


def compare(
    answer: Callable, arguments: tuple, right: Tensor, mistakes: dict, per_image: bool = False
) -> Verdict:
    """Run `answer` on `arguments` and name the result: `right`, or one of `mistakes`.

    `mistakes` maps what to say to the wrong result, or a list of them; per_image: `right` is
    `(B,)`, one value an image, and a single number is a mistake too.
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
    if per_image and first.ndim == 0:
        message = "one number for the whole batch: keep one value an image"
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


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or (a.dtype == torch.bool) != (b.dtype == torch.bool):
        return False
    return torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-5, equal_nan=False)


# --- small cases, the same in every run -----------------------------------------------------------


def draw(*shapes: tuple[int, ...]) -> list[Tensor]:
    """Return tensors of N(0, 1) of these shapes."""
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(shape, generator=generator) for shape in shapes]


@contextmanager
def seeded() -> Iterator[None]:
    """Draw what is made here, as a network's first weights, and put the global state back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        yield
