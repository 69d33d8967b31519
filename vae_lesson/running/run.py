"""What surrounds the steps of a training: its bar, history, checkpoint, interrupt, and NaNs."""

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from vae_lesson.models import convolves
from vae_lesson.running import processes
from vae_lesson.running.saving import check_checkpoint, load_checkpoint, save_checkpoint
from vae_lesson.running.threads import threads


@dataclass
class History:
    """What happened in a training, one entry an epoch; nats per image, but for an autoencoder.

    `recon` and `kl` are means over the epoch's training images while the model changed; `test_*`
    are means over the test images at the epoch's end, and empty if there were none. `seconds` is
    the training time since the start, evaluation left out. `stopped` says where an interrupt came.
    `settings` are the arguments that `fit` was called with, as far as they change its result.
    """

    recon: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    test_recon: list[float] = field(default_factory=list)
    test_kl: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    stopped: str | None = None
    settings: dict = field(default_factory=dict)

    @property
    def neg_elbo(self) -> list[float]:
        """recon + kl of each epoch, with beta = 1 whatever beta was trained with."""
        return [recon + kl for recon, kl in zip(self.recon, self.kl)]

    @property
    def test_neg_elbo(self) -> list[float]:
        """test_recon + test_kl of each epoch."""
        return [recon + kl for recon, kl in zip(self.test_recon, self.test_kl)]

    def __len__(self) -> int:
        return len(self.recon)


class Diverged(FloatingPointError):
    """A term of the loss became NaN or infinite. `history` holds the epochs before it."""

    def __init__(self, message: str, history: History) -> None:
        super().__init__(message)
        self.history = history


class Run:
    """One training as its loop sees it: `epochs`, `check` and `watch` in each step, `end_epoch`.

    Used in a `with`: an interrupt (Ctrl-C, the stop button) ends it there, keeps the model and the
    history so far, and says where it stopped.
    """

    def __init__(
        self,
        parts: dict,  # what has a state: the model, the optimizer, the scheduler
        generators: tuple[torch.Generator, torch.Generator],  # of the order, of the noise
        settings: dict,  # what the history, and a training that goes on, must know of this one
        images: Tensor,
        test: Callable[[], tuple] | None,  # -> the test images' recon, kl and their sum
        progress: bool,
        checkpoint: str | Path | None,
        resume: bool | None,
    ) -> None:
        self._parts, self._settings, self._test = parts, settings, test
        self._order, self._noise = generators
        self._n_images, self._n_epochs = len(images), settings["epochs"]
        self._n_steps = math.ceil(len(images) / settings["batch_size"])  # in an epoch
        self._device = self._order.device
        self._rank = processes.world()[0]
        self._checkpoint = None if checkpoint is None else Path(checkpoint)
        self.history = History(settings=settings)
        self._epoch = self._step = 0  # the epoch that runs, from 1, and its steps so far
        if self._checkpoint is not None:
            # A part at a time: the sum of all would first make eight bytes of each.
            total = sum(int(part.sum()) for part in images.split(500))
            whole = [*images.shape, total]
            self._common = settings | {"network": str(parts["model"]), "images": whole}
            self._common |= {"test_images": test is not None, "device": self._device.type}
            factors = [group["factor"] for group in parts["optimizer"].param_groups]
            if factors != [1.0]:  # a checkpoint from before there were two has none
                self._common["factors of lr"] = factors
            self._start_or_go_on(resume)
        self._bar = tqdm(
            desc="epoch 1",
            total=self._n_epochs * self._n_steps,
            initial=len(self.history) * self._n_steps,
            disable=not progress or self._rank > 0,
            unit="step",
        )

    @property
    def progress(self) -> float:
        """How far the training is: 0 at the first step, 1 at the last."""
        done = (self._epoch - 1) * self._n_steps + self._step
        return done / max(self._n_epochs * self._n_steps - 1, 1)

    def epochs(self) -> Iterator[int]:
        """Yield the number of each epoch that is to be trained, from 1."""
        for epoch in range(len(self.history) + 1, self._n_epochs + 1):
            self._epoch, self._step = epoch, 0
            self._bar.set_description(f"epoch {epoch}/{self._n_epochs}", refresh=False)
            processes.seed_noise(self._noise, self._settings["seed"], epoch)
            self._sums = torch.zeros((self._n_steps, 2), device=self._device)  # of recon and kl
            self._started = time.perf_counter()
            yield epoch
        if not all(weight.isfinite().all() for weight in self._parts["model"].parameters()):
            message = "the weights are not finite after the last step: lower lr"
            raise Diverged(message, self.history)

    def check(self, recon: Tensor, kl: Tensor) -> Tensor:
        """Return the batch's sums of recon and kl, `(2,)`; raise Diverged if one is not finite.

        On a CPU at once, before the weights are spoilt. To read a GPU's number is to wait for it:
        there `end_epoch` looks at all of the epoch's sums.
        """
        sums = torch.stack([recon.detach().sum(), kl.detach().sum()])
        if self._device.type == "cpu":
            self._refuse_nan(sums[None], [f"step {self._step + 1}"])
        return sums

    def watch(self, sums: Tensor, n: int) -> None:
        """Note a step's sums over its n images, and show their mean when the bar is redrawn."""
        self._sums[self._step] = sums
        self._step += 1
        if self._bar.update() and self._device.type == "cpu":
            self._bar.set_postfix_str(_postfix(*(sums / n).tolist()), refresh=False)

    def end_epoch(self) -> None:
        """Add the epoch to the history, with the test images' terms, and write the checkpoint."""
        steps = [f"step {i + 1}" for i in range(self._n_steps)]
        self._refuse_nan(self._sums, steps)  # waits for the device
        means = (processes.mean(self._sums.sum(dim=0)) / self._n_images).tolist()
        seconds = time.perf_counter() - self._started + sum(self.history.seconds[-1:])
        test_means = self._evaluate() if self._test else []
        history = self.history
        columns = [history.recon, history.kl, history.seconds, history.test_recon, history.test_kl]
        for column, value in zip(columns, [*means, seconds, *test_means]):
            column.append(value)
        if self._checkpoint is not None and self._rank == 0:
            state = {name: part.state_dict() for name, part in self._parts.items()}
            state |= {"order": self._order.get_state(), "history": asdict(history)}
            save_checkpoint(self._checkpoint, self._common, **state)

    def __enter__(self) -> "Run":
        # The same seed must give the same numbers, and a convolution's depend on the threads.
        self._held = threads.held(convolves(self._parts["model"]))
        self._held.__enter__()
        return self

    def __exit__(self, kind, *_) -> bool:
        self._held.__exit__(None, None, None)
        self._bar.close()
        self._parts["model"].eval()
        if kind is not KeyboardInterrupt:
            return False
        step = min(self._step + 1, self._n_steps)
        self.history.stopped = (
            f"interrupted in epoch {self._epoch} of {self._n_epochs}, "
            f"step {step} of {self._n_steps}"
        )
        whole = len(self.history)
        say(f"Training {self.history.stopped}: the model is kept. Whole epochs: {whole}.")
        return True

    def _evaluate(self) -> list[float]:
        self._parts["model"].eval()
        recon, kl, _ = self._test()
        self._parts["model"].train()
        self._refuse_nan(torch.tensor([[recon, kl]]), ["on the test images"])
        self._bar.set_postfix_str("test " + _postfix(recon, kl), refresh=False)
        return [recon, kl]

    def _start_or_go_on(self, resume: bool | None) -> None:
        """Restore the checkpoint's state, or remove it, as asked; ValueError if nothing is."""
        path = self._checkpoint
        check_checkpoint(path, resume)
        if resume and path.is_file():
            state = load_checkpoint(path, self._common)
            for name, part in self._parts.items():
                part.load_state_dict(state[name])
            self._order.set_state(state["order"])
            for group in self._parts["optimizer"].param_groups:  # a tensor comes back on the CPU
                if isinstance(group["lr"], Tensor):
                    group["lr"] = group["lr"].to(self._device)
            self.history = History(**state["history"])
        elif self._rank == 0:  # should this training break off, a restart must not go on from it
            path.unlink(missing_ok=True)
        whole = torch.tensor(float(len(self.history)), device=self._device)
        if processes.mean(whole).item() != len(self.history):
            raise ValueError(f"not every process finds {path}: its folder must be shared")

    def _refuse_nan(self, sums: Tensor, places: list[str]) -> None:
        """Raise Diverged with the first place and term of `sums` (places, 2) that is not finite."""
        if torch.isfinite(sums).all():
            return
        row, column = (~torch.isfinite(sums)).nonzero()[0].tolist()
        place, term, lr = places[row], ("recon", "kl")[column], self._settings["lr"]
        if self._epoch == 1 and place == "step 1":
            cause = "no loss is finite before any step: look at the model's weights, or at `terms`"
        elif lr > 1e-2:
            cause = f"a learning rate of {lr:g} is too high for Adam here: try 1e-3"
        elif term == "kl":
            cause = "exp(log_var) overflows above log_var = 88: lower the learning rate"
        else:
            cause = "the decoder's output is no longer finite: lower the learning rate"
        raise Diverged(
            f"training stopped in epoch {self._epoch}, {place}: {term} is "
            f"{sums[row, column].item()}. Likely cause: {cause}.",
            self.history,
        )


def _postfix(recon: float, kl: float) -> str:
    if kl == 0:  # an autoencoder
        return f"squared error {recon:.1f}"
    return f"recon {recon:.1f} + KL {kl:.1f} = −ELBO {recon + kl:.1f} nats"


def say(text: str) -> None:
    """Print, whatever becomes of it: no training is lost because nobody listens any more."""
    try:
        print(text, flush=True)
    except OSError:  # a closed pipe: nor may Python complain of it at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except UnicodeEncodeError:
        print(text.encode("ascii", "replace").decode(), flush=True)
