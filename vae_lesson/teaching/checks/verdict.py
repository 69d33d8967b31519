"""How a check works: run the learner's function on a small case and name what comes back.

A check never raises: an unsolved exercise says "Not yet" and the notebook runs on. Each one
compares the answer with the right result and with the wrong ones that people often give. Tell two
wrong results apart by a case in which they differ. What training goes through is asked for its
gradient too: with the right values and a blocked gradient a model does not learn.
"""

import os
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from vae_lesson.teaching.lesson import Text
from vae_lesson.words import N_, _


class Verdict(Text):
    """What a check says; its first sign, and `ok`, tell whether the answer was right."""

    @property
    def ok(self) -> bool:
        return self.startswith("✓")


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
    except (Exception, SystemExit) as error:  # whatever a learner's code raises, the lesson goes on
        kind, line, said = type(error).__name__, _line(error), str(error).rstrip(".")
        if "bitwise_xor" in said or "for ^" in said:
            return Verdict("Not yet: ^ is no power in Python, ** is{in_line}.", in_line=line)
        says = "Not yet: your function raised {kind}{in_line}: {error}."
        return Verdict(says, kind=kind, in_line=line, error=said)
    return Verdict("Not yet: your function returns nothing.") if result is None else result


def _line(error: BaseException) -> str:
    """Say in which line of the learner's cell it was raised: a cell is no file, a library is."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f"{f.lineno} (`{f.line}`)" for f in frames if not os.path.exists(f.filename)]
    return _(" in line {line}").format(line=lines[-1]) if lines else ""


def compare(
    answer: Callable,
    arguments: tuple,
    right: Tensor,
    mistakes: dict,
    per_image: bool = False,
    learn: dict[str, Tensor] | None = None,
    values: str = N_("values"),
) -> Verdict:
    """Run `answer` on `arguments` and name the result: `right`, or one of `mistakes`.

    `mistakes` maps what to say to the wrong result, or a list of them; per_image: `right` is
    `(B,)`, one value an image, and a single number is a mistake too. learn: what the result's
    gradient must reach, by name. values: what the numbers are, in words.
    """
    plain = [a.detach() if isinstance(a, Tensor) else a for a in arguments]
    results = []
    while len(results) < 2:
        results.append(attempt(answer, *plain))
        if isinstance(results[-1], Verdict):
            return results[-1]
    try:
        first, second = (torch.as_tensor(result).detach().cpu() for result in results)
    except (TypeError, ValueError, RuntimeError):
        got = type(results[0]).__name__
        return Verdict("Not yet: expected a tensor, got {got}.", got=got)
    if _same(first, right):
        return _judge_gradient(answer, arguments, right, learn) if learn else Verdict("✓ Correct.")
    for message, wrongs in mistakes.items():
        if any(_same(first, w) for w in (wrongs if isinstance(wrongs, list) else [wrongs])):
            return Verdict("Not yet: this looks like {mistake}.", mistake=_(message))
    if per_image and first.ndim == 0:
        message = "one number for the whole batch: keep one value an image"
        return Verdict("Not yet: this looks like {mistake}.", mistake=_(message))
    if first.shape != right.shape:
        got, wanted = tuple(first.shape), tuple(right.shape)
        says = "Not yet: the shape is {got}, it should be {wanted}."
        return Verdict(says, got=got, wanted=wanted)
    if not first.isfinite().all():
        return Verdict("Not yet: the result holds NaN or inf.")
    if not _same(first, second):
        return Verdict(
            "Not yet: this looks like noise of your own: draw only from the generator that is "
            "passed in, or use only what is."
        )
    off = (first.double() - right.double()).abs().max().item()
    says = "Not yet: the right shape, but {values} are off by up to {off:.3g}."
    return Verdict(says, values=_(values), off=off)


def _judge_gradient(
    answer: Callable, arguments: tuple, right: Tensor, learn: dict[str, Tensor]
) -> Verdict:
    """Compare the gradient of an answer whose values are right with that of `right`."""

    def gradient(result: Tensor) -> tuple[Tensor, ...]:
        loss = result.sum() + 0 * sum(leaf.sum() for leaf in learn.values())  # so that each has one
        return torch.autograd.grad(loss, [*learn.values()])

    with warnings.catch_warnings(action="ignore"):  # torch's, of what the verdict says better
        found = attempt(lambda *a: gradient(torch.as_tensor(answer(*a))), *arguments)
    if isinstance(found, Verdict):  # even asking for it fails, as behind NumPy
        return blocked([*learn])
    ours = gradient(right)
    wrong = [name for name, mine, wanted in zip(learn, found, ours) if not _same(mine, wanted)]
    return blocked(wrong) if wrong else Verdict("✓ Correct.")


def learns(*results: object) -> Verdict:
    """Return the verdict on right results of a network: its weights must learn from each."""
    reached = all(getattr(result, "requires_grad", False) for result in results)
    return Verdict("✓ Correct.") if reached else blocked(["the weights"])


def blocked(names: list[str]) -> Verdict:
    """Return the verdict on right values whose gradient does not reach what is named."""
    return Verdict(
        "Not yet: the values are right, but not the gradient with respect to "
        "{names}: no_grad, detach, .data, NumPy and changes in place block it.",
        names=_(", ").join(map(_, names)),
    )


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or (a.dtype == torch.bool) != (b.dtype == torch.bool):
        return False
    return torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-5, equal_nan=False)


# --- small cases, the same in every run -----------------------------------------------------------


def draw(*shapes: tuple[int, ...], learn: bool = False) -> list[Tensor]:
    """Return tensors of N(0, 1) of these shapes; learn: their gradient will be asked for."""
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(shape, generator=generator, requires_grad=learn) for shape in shapes]


@contextmanager
def seeded() -> Iterator[None]:
    """Draw what is made here, as a network's first weights, and put the global state back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        yield
