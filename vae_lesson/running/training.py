"""What surrounds the steps of a training: batches, bar, history, checkpoint, interrupt, NaNs."""

import contextlib
import functools
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from vae_lesson.evaluate import means_of_terms
from vae_lesson.losses import Terms
from vae_lesson.models import convolves
from vae_lesson.running import processes
from vae_lesson.running.machine import threads, to_device
from vae_lesson.running.saving import check_checkpoint, load_checkpoint, save_checkpoint
from vae_lesson.words import _


@dataclass
class History:
    """What happened in a training, one entry an epoch; units are those of the terms.

    `train` has the mean of each term by its name over the epoch's batches, while the model changed;
    `test` its mean over the test tensors at the epoch's end, and is empty if there were none.
    `seconds` is the training time since the start, evaluation left out. `stopped` says where an
    interrupt came. `settings` are the arguments of `fit`, as far as they change its result.
    """

    train: dict[str, list[float]] = field(default_factory=dict)
    test: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    stopped: str | None = None
    settings: dict = field(default_factory=dict)

    @property
    def total(self) -> list[float]:
        """The sum of each epoch's terms in `train`: -ELBO, if they are recon and kl."""
        return [sum(terms) for terms in zip(*self.train.values())]

    @property
    def test_total(self) -> list[float]:
        """The same in `test`."""
        return [sum(terms) for terms in zip(*self.test.values())]

    def __len__(self) -> int:
        return len(self.seconds)


class Diverged(FloatingPointError):
    """A term of the loss became NaN or infinite. `history` holds the epochs before it."""

    def __init__(self, message: str, history: History) -> None:
        super().__init__(message)
        self.history = history


class Training:
    """One training as its loop sees it: `batches`, `check` and `watch` in each step.

    Making one checks the checkpoint and changes nothing; a `with` begins it. There an interrupt
    (Ctrl-C, the stop button) ends it, keeps the model and the history so far, and says where.
    """

    def __init__(
        self,
        parts: dict,  # what has a state: the model, the optimizer, the scheduler
        tensors: list[Tensor],  # images, and what is drawn with them
        test: list[Tensor],
        terms: Terms,
        settings: dict,  # what the history, and a training that goes on, must know of this one
        order: torch.Generator,
        noise: torch.Generator,
        progress: bool,
        checkpoint: str | Path | None,
        resume: bool | None,
    ) -> None:
        self._parts, self._terms, self._settings = parts, terms, settings
        self._order, self._noise, self._device = order, noise, order.device
        self._tensors = [to_device(tensor, self._device) for tensor in tensors]
        self._test = [to_device(tensor, self._device) for tensor in test]
        self._n, self._n_epochs = len(tensors[0]), settings["epochs"]
        self._n_steps = math.ceil(self._n / settings["batch_size"])  # in an epoch
        self._rank = processes.world()[0]
        self._names: list[str] = []  # of the terms, known from the first step on
        self.history = History(settings=settings)
        self._epoch = self._step = 0  # the epoch that runs, from 1, and its steps so far
        self._checkpoint = None if checkpoint is None else Path(checkpoint)
        self._state = None  # of the checkpoint that this goes on from
        if self._checkpoint is not None:
            # A part at a time: the sum of all would first make eight bytes of each.
            sums = [[*t.shape, sum(int(part.sum()) for part in t.split(500))] for t in tensors]
            self._common = settings | {"network": str(parts["model"]), "images": sums}
            self._common |= {"test": bool(test), "device": self._device.type}
            self._common["terms"] = described(terms)
            self._look_for_a_checkpoint(resume)
        self._show = progress and self._rank == 0

    @property
    def progress(self) -> float:
        """How far the training is: 0 at the first step, 1 at the last."""
        done = (self._epoch - 1) * self._n_steps + self._step
        return done / max(self._n_epochs * self._n_steps - 1, 1)

    def batches(self) -> Iterator[list[Tensor]]:
        """Yield the batches of each epoch that is to be trained, in an order that is drawn."""
        for epoch in range(len(self.history) + 1, self._n_epochs + 1):
            self._epoch, self._step, self._sums = epoch, 0, []
            at = _("epoch {epoch}/{n_epochs}").format(epoch=epoch, n_epochs=self._n_epochs)
            self._bar.set_description(at, refresh=False)
            processes.seed_noise(self._noise, self._settings["seed"], epoch)
            self._started = time.perf_counter()
            permutation = torch.randperm(self._n, generator=self._order, device=self._device)
            for index in permutation.split(self._settings["batch_size"]):
                yield [
                    tensor.index_select(0, index.to(tensor.device)).to(self._device)
                    for tensor in self._tensors
                ]
            self._end_epoch()
        if not all(weight.isfinite().all() for weight in self._parts["model"].parameters()):
            message = "the weights are not finite after the last step: lower lr"
            raise Diverged(message, self.history)

    def check(self, named: dict[str, Tensor]) -> Tensor:
        """Return the sum of each term over the batch; raise Diverged if one is not finite.

        On a CPU at once, before the weights are spoilt. To read a GPU's number is to wait for it:
        there the end of the epoch looks at all of its sums.
        """
        self._names = list(named)
        sums = torch.stack([values.detach().sum() for values in named.values()])
        if self._device.type == "cpu":
            self._refuse_nan(sums[None], self._names, [f"step {self._step + 1}"])
        return sums

    def watch(self, sums: Tensor, n: int) -> None:
        """Note a step's sums over its n images, and show their mean when the bar is redrawn."""
        self._sums.append(sums.clone())  # a CUDA graph writes over its own
        self._step += 1
        if self._bar.update() and self._device.type == "cpu":
            means = dict(zip(self._names, (sums / n).tolist()))
            self._bar.set_postfix_str(said(means), refresh=False)

    def _end_epoch(self) -> None:
        """Add the epoch to the history, with the test tensors' terms, and write the checkpoint."""
        sums = torch.stack(self._sums)  # (steps, terms)
        steps = [f"step {i + 1}" for i in range(len(sums))]
        self._refuse_nan(sums, self._names, steps)  # waits for the device
        totals = sums.sum(dim=0)
        processes.add_up(totals)
        means = (totals / self._n).tolist()
        seconds = time.perf_counter() - self._started + sum(self.history.seconds[-1:])
        test_means = self._evaluate()
        for name, mean in zip(self._names, means):
            self.history.train.setdefault(name, []).append(mean)
        for name, mean in test_means.items():
            self.history.test.setdefault(name, []).append(mean)
        self.history.seconds.append(seconds)
        if self._checkpoint is not None and self._rank == 0:
            state = {name: part.state_dict() for name, part in self._parts.items()}
            state |= {"order": self._order.get_state(), "history": asdict(self.history)}
            save_checkpoint(self._checkpoint, self._common, **state)

    def _evaluate(self) -> dict[str, float]:
        if not self._test:
            return {}
        options = {"seed": self._settings["seed"], "binarisation": self._settings["binarisation"]}
        self._parts["model"].eval()
        means = means_of_terms(self._parts["model"], *self._test, terms=self._terms, **options)
        self._parts["model"].train()
        self._refuse_nan(torch.tensor([[*means.values()]]), list(means), ["on the test images"])
        on_test = _("test {terms}").format(terms=said(means))
        self._bar.set_postfix_str(on_test, refresh=False)
        return means

    def __enter__(self) -> "Training":
        model = self._parts["model"]
        self._at_the_end = contextlib.ExitStack()
        self._at_the_end.callback(model.eval)
        if convolves(model):  # the same seed must give the same numbers: theirs depend on threads
            self._at_the_end.enter_context(threads.all())
        if self._state is not None:
            self._go_on()
        elif self._checkpoint is not None and self._rank == 0:
            # Should this training break off, a restart must not go on from another one.
            self._checkpoint.unlink(missing_ok=True)
        self._bar = tqdm(
            total=self._n_epochs * self._n_steps,
            initial=len(self.history) * self._n_steps,
            disable=not self._show,
            unit=_("step"),
        )
        self._at_the_end.callback(self._bar.close)
        return self

    def __exit__(self, kind, *error) -> bool:
        self._at_the_end.close()
        if kind is not KeyboardInterrupt:
            return False
        step = min(self._step + 1, self._n_steps)
        stopped = _("interrupted in epoch {epoch} of {n_epochs}, step {step} of {n_steps}").format(
            epoch=self._epoch, n_epochs=self._n_epochs, step=step, n_steps=self._n_steps
        )
        self.history.stopped = stopped
        kept = _("Training {stopped}: the model is kept. Whole epochs: {n_done}.")
        say(kept.format(stopped=stopped, n_done=len(self.history)))
        return True

    def _look_for_a_checkpoint(self, resume: bool | None) -> None:
        """Read the checkpoint that is to be gone on from, if it is there; ValueError if `resume`
        leaves open whether it is."""
        path = self._checkpoint
        check_checkpoint(path, resume)
        if resume and path.is_file():
            self._state = load_checkpoint(path, self._common)
            self.history = History(**self._state["history"] | {"settings": self._settings})
        done = torch.tensor(len(self.history), device=self._device)
        processes.add_up(done)
        if done.item() != processes.world()[1] * len(self.history):
            raise ValueError(f"not every process finds {path}: its folder must be shared")

    def _go_on(self) -> None:
        for name, part in self._parts.items():
            part.load_state_dict(self._state[name])
        self._order.set_state(self._state["order"])
        for group in self._parts["optimizer"].param_groups:  # a tensor comes back on the CPU
            if isinstance(group["lr"], Tensor):
                group["lr"] = group["lr"].to(self._device)

    def _refuse_nan(self, values: Tensor, names: list[str], places: list[str]) -> None:
        """Raise Diverged with the first of `values` (places, names) that is not finite."""
        if torch.isfinite(values).all():
            return
        row, column = (~torch.isfinite(values)).nonzero()[0].tolist()
        place, term, lr = places[row], names[column], self._settings["lr"]
        lr = max(lr) if isinstance(lr, tuple) else lr
        if self._epoch == 1 and place == "step 1":
            cause = "no loss is finite before any step: look at the model's weights, or at `terms`"
        elif lr > 4e-2:
            cause = f"a learning rate of {lr:g} is too high for Adam here: try 1e-3"
        elif term == "kl":
            cause = "exp(log_var) overflows above log_var = 88: lower the learning rate"
        else:
            cause = "the model's output is no longer finite: lower the learning rate"
        raise Diverged(
            f"training stopped in epoch {self._epoch}, {place}: {term} is "
            f"{values[row, column].item()}. Likely cause: {cause}.",
            self.history,
        )


def described(value: object) -> str:
    """Return what tells a function from another: its name; of a partial also those that it was
    given, and numbers: "elbo_terms(nll=fitted_logistic_nll)". Not the module: a notebook's
    `__main__` may have become one. Two lambdas of one function have the same name."""
    if isinstance(value, functools.partial):
        named = [f"{name}={described(each)}" for name, each in sorted(value.keywords.items())]
        return f"{described(value.func)}({', '.join([*map(described, value.args), *named])})"
    if isinstance(value, Tensor) and value.numel() == 1 and not value.requires_grad:
        return repr(value.item())  # not of one that is learned: it changes
    if isinstance(value, (bool, int, float, str, type(None))):
        return repr(value)
    return getattr(value, "__qualname__", type(value).__qualname__)


def said(means: dict[str, float]) -> str:
    """Return terms and their sum in words: "recon 80.7 + kl 25.1 = 105.8"."""
    terms = " + ".join(f"{name} {mean:.1f}" for name, mean in means.items())
    return terms if len(means) == 1 else f"{terms} = {sum(means.values()):.1f}"


def say(text: str) -> None:
    """Print, whatever becomes of it: no training is lost because nobody listens any more."""
    try:
        print(text, flush=True)
    except OSError:  # a closed pipe: nor may Python complain of it at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
