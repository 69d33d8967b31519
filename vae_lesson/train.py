"""One plain training loop, `fit`, and its history. `python -m vae_lesson.train --help` runs it."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from vae_lesson import devices, losses
from vae_lesson.data import BINARISATIONS, batches, to_float
from vae_lesson.devices import pick_device
from vae_lesson.graphs import GraphedStep
from vae_lesson.models import VAE, Autoencoder
from vae_lesson.saving import load_checkpoint, save_checkpoint

SCHEDULES = ("constant", "one-cycle", "linear")
# What a model is trained on: (model, x, generator) -> recon (B,), kl (B,)
Terms = Callable[[nn.Module, Tensor, torch.Generator | None], tuple[Tensor, Tensor]]


def elbo_terms(model: VAE, x: Tensor, generator: torch.Generator | None = None):
    """Return the two terms of the ELBO for Bernoulli pixels, with one sample of z an image.

    recon = -log p(x|z) and kl = KL(q(z|x) ‖ N(0, I)), each `(B,)`, in nats per image.
    Source: Kingma & Welling 2014, eq. 10.
    """
    x_logits, mu, log_var = model(x, generator=generator)
    return losses.bernoulli_nll(x_logits, x), losses.kl_standard_normal(mu, log_var)


def squared_error_terms(model: Autoencoder, x: Tensor, generator: torch.Generator | None = None):
    """Return an autoencoder's squared error `(B,)`, and zeros: it has no second term."""
    x_hat, _ = model(x)
    recon = losses.squared_error(x_hat, x)
    return recon, torch.zeros_like(recon)


def terms_of(model: nn.Module) -> Terms:
    """Return the terms that a model of this kind is trained on by default."""
    return elbo_terms if isinstance(model, VAE) else squared_error_terms


@dataclass
class History:
    """What happened in a training, one entry an epoch; nats per image, but for an autoencoder.

    `recon` and `kl` are means over the epoch's training images while the model changed; `test_*`
    are means over the test images at the epoch's end, and empty if there were none. `seconds` is
    the training time since the start, evaluation left out. `stopped` says where an interrupt came.
    """

    recon: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    test_recon: list[float] = field(default_factory=list)
    test_kl: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    stopped: str | None = None

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

    def append(self, recon: float, kl: float, seconds: float, test: tuple | None) -> None:
        """Add a whole epoch; `test` is (recon, kl) over the test images."""
        self.recon.append(recon)
        self.kl.append(kl)
        self.seconds.append(seconds)
        if test is not None:
            self.test_recon.append(test[0])
            self.test_kl.append(test[1])

    def plot(self):
        """Draw the curves; see `plots.history`."""
        from vae_lesson import plots  # here: training needs no matplotlib

        return plots.history(self)


class Diverged(FloatingPointError):
    """A term of the loss became NaN or infinite. `history` holds the epochs before it."""

    def __init__(self, message: str, history: History) -> None:
        super().__init__(message)
        self.history = history


def fit(
    model: nn.Module,
    images: Tensor,
    *,
    epochs: int = 3,
    batch_size: int = 128,
    lr: float = 1e-2,
    schedule: str = "linear",
    warm_start: bool = True,
    beta: float | Callable[[float], float] = 1.0,
    binarisation: str = "grey",
    terms: Terms | None = None,
    test_images: Tensor | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
    checkpoint: str | Path | None = None,
    resume: bool = False,
) -> History:
    """Train `model` in place by Adam on the batch mean of recon + beta · kl; return its history.

    The defaults are the fast recipe: on MNIST, three epochs to 104.91 to 105.27 nats (five seeds),
    where the article's ten at a constant 1e-3 end with 105.4 to 105.9.

    images, test_images: uint8 `(N, ...)`, moved to `device` once (see `pick_device`).
    schedule: "constant"; or, with `lr` as its peak, "linear", which rises over the first 15% of
    the steps and falls to 0, or "one-cycle" (Smith & Topin 2018), which does it along cosines and
    moves Adam's first beta the other way (but on a CUDA device, whose graph would keep one beta).
    warm_start: let a fresh VAE start from the mean image (`start_from_the_mean`).
    beta: the weight of the KL; or a function of the progress, which goes from 0 at the first step
    to 1 at the last, for a warm-up.
    terms: what to minimise; by default the ELBO for a VAE, squared error for an autoencoder.
    seed: fixes the order of the images and the noise; the model's first weights are the caller's.
    checkpoint: a file that is written after every epoch; with `resume` the training goes on from
    it, if it is there, to the same result as an unbroken one.

    Under torchrun each process takes its share of every batch, and all end with the same weights.
    On a CUDA device the steps run as one CUDA graph, and numbers are read at an epoch's end.

    An interrupt (Ctrl-C, the stop button) ends the training, keeps the model and the history so
    far, and says where it stopped.

    Raises: ValueError for a bad argument, before any training; Diverged at the first NaN or inf.
    """
    _check_arguments(images, test_images, epochs, batch_size, lr, schedule, beta, binarisation)
    device = pick_device(device)
    rank, size = devices.world()
    terms = terms or terms_of(model)
    model.to(device).train()
    images = images.to(device)
    if warm_start and terms is elbo_terms:
        start_from_the_mean(model, images)
    parallel = devices.parallel(_TermsOf(model, terms))
    if test_images is not None:
        test_images = test_images.to(device)
    order = torch.Generator(device).manual_seed(seed)
    # Alone, one generator gives order and noise; together the order is common, the noise is not.
    noise = order if size == 1 else torch.Generator(device)
    steps = -(-len(images) // batch_size)  # an epoch's, the last batch may be smaller
    optimizer, scheduler = _optimizer(model, lr, schedule, epochs * steps, device)

    parts = {"weights": model, "optimizer": optimizer, "scheduler": scheduler}
    history = History()
    if checkpoint is not None:
        options = {  # what a training has in common with the checkpoint that it goes on from
            "network": str(model),
            "images": [*images.shape, int(images.sum())],
            "test_images": 0 if test_images is None else len(test_images),
            "epochs": None if schedule == "constant" and not callable(beta) else epochs,
            "batch_size": batch_size,
            "lr": lr,
            "schedule": schedule,
            "warm_start": warm_start,
            "beta": [float(beta(i / 10)) for i in range(11)] if callable(beta) else float(beta),
            "binarisation": binarisation,
            "seed": seed,
            "device": device.type,
        }
        if resume and Path(checkpoint).is_file():
            history = _go_on(checkpoint, options, parts, order)
        elif rank == 0:  # what is there is another training's: no restart may go on from it
            Path(checkpoint).unlink(missing_ok=True)
    whole = devices.add_up(torch.tensor(len(history), device=device)).item()
    if whole != size * len(history):
        raise ValueError(f"not every process finds {checkpoint}: its folder must be shared")

    beta_now = torch.zeros((), device=device) if callable(beta) else beta  # a graph reads a tensor

    def train_on(index: Tensor) -> Tensor:
        """Take one step; return the sums of recon and kl over this process's images, (2,)."""
        x = to_float(images[index[rank::size]], binarisation, noise)
        recon, kl = parallel(x, noise)
        sums = torch.stack([recon.detach().sum(), kl.detach().sum()])
        if device.type == "cpu":  # before the weights are spoilt; on a GPU to look is to wait
            _check_finite(sums[None], epoch, step, history, lr)
        optimizer.zero_grad(set_to_none=True)
        loss = losses.neg_elbo(recon, kl, beta_now)
        if size == 1:
            loss.mean().backward()
        else:  # shares may differ in size; the processes' gradients are averaged
            (loss.sum() * (size / len(index))).backward()
        optimizer.step()
        return sums

    take_step = GraphedStep(train_on, noise) if device.type == "cuda" and size == 1 else train_on
    # A convolution's sums depend on the number of threads, and the same seed must give the same.
    convolves = any(isinstance(module, nn.Conv2d) for module in model.modules())
    adapts = device.type == "cpu" and size == 1 and not convolves
    threads = devices.Threads() if adapts else None
    seconds = history.seconds[-1] if history.seconds else 0.0
    epoch = step = 0
    bar = tqdm(
        desc="epoch 1",
        total=epochs * steps,
        initial=len(history) * steps,
        disable=not progress or rank > 0,
        unit="step",
    )
    try:
        for epoch in range(len(history) + 1, epochs + 1):
            bar.set_description(f"epoch {epoch}/{epochs}", refresh=False)
            if size > 1:
                noise.manual_seed((seed * 100_000 + epoch) * 10_000 + rank)
            sums = torch.zeros((steps, 2), device=device)  # of recon and kl, a row a step
            start = time.perf_counter()
            permutation = torch.randperm(len(images), generator=order, device=device)
            for step, index in enumerate(permutation.split(batch_size)):
                if callable(beta):
                    done = (epoch - 1) * steps + step
                    beta_now.fill_(beta(done / max(epochs * steps - 1, 1)))
                sums[step] = take_step(index)
                scheduler.step()
                if threads is not None:
                    threads.adapt()
                if bar.update() and device.type == "cpu":  # the bar was redrawn
                    mean = sums[step] * size / len(index)
                    bar.set_postfix_str(_postfix(*mean.tolist()), refresh=False)
            _check_finite(sums, epoch, 0, history, lr)  # waits for the device
            recon, kl = (devices.add_up(sums.sum(dim=0)) / len(images)).tolist()
            seconds += time.perf_counter() - start
            test = None
            if test_images is not None:
                model.eval()
                test = mean_terms(model, test_images, terms, seed, binarisation)
                model.train()
                _check_finite(torch.tensor([test]), epoch, None, history, lr)
                bar.set_postfix_str("test " + _postfix(*test), refresh=False)
            history.append(recon, kl, seconds, test)
            if checkpoint is not None and rank == 0:
                state = {name: part.state_dict() for name, part in parts.items()}
                state |= {"order": order.get_state(), "history": asdict(history)}
                save_checkpoint(checkpoint, options, **state)
        if not all(parameter.isfinite().all() for parameter in model.parameters()):
            raise Diverged("the weights are not finite after the last step: lower lr", history)
    except KeyboardInterrupt:
        where = f"epoch {epoch} of {epochs}, step {step + 1} of {steps}"
        history.stopped = f"interrupted in {where}"
        print(f"Training {history.stopped}: the model is kept. Whole epochs: {len(history)}.")
    finally:
        bar.close()
        model.eval()
        if threads is not None:
            threads.restore()
    return history


@torch.no_grad()
def start_from_the_mean(model: VAE, images: Tensor) -> None:
    """Set the output bias of a fresh VAE to the logits of the mean image.

    Else the first steps go into learning that the border is black. A bias that has left the range
    it was made in has been trained, and is left alone; so is a decoder whose last layer is not
    Linear, which has no bias for each pixel.
    """
    last = model.decoder if isinstance(model.decoder, nn.Linear) else model.decoder[-1]
    if not isinstance(last, nn.Linear) or last.bias.abs().max() > last.in_features**-0.5:
        return
    # A part at a time: 60,000 images as int64 are 380 MB.
    parts = images.flatten(1).split(5000)
    mean = sum(part.sum(dim=0, dtype=torch.int64) for part in parts) / (255 * len(images))
    last.bias.copy_(torch.logit(mean, eps=1e-3))


def _optimizer(model: nn.Module, lr: float, schedule: str, steps: int, device: torch.device):
    """Return Adam and its schedule of learning rates over so many steps."""
    on_gpu = device.type == "cuda"
    optimizer = torch.optim.Adam(
        model.parameters(),
        lr=torch.tensor(lr, device=device) if on_gpu else lr,  # a graph reads it at every step
        fused=device.type != "mps",
        capturable=on_gpu,
    )
    if schedule == "constant" or steps == 0:
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    options = {"cycle_momentum": not on_gpu}  # a graph would keep that of the recorded step
    if schedule == "linear":
        options = {"pct_start": 0.15, "anneal_strategy": "linear", "cycle_momentum": False}
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, **options)


class _TermsOf(nn.Module):
    """Terms as a module's forward: what several processes share has to be called as one."""

    def __init__(self, model: nn.Module, terms: Terms) -> None:
        super().__init__()
        self.model, self.terms = model, terms

    def forward(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self.terms(self.model, x, generator)


def _go_on(checkpoint, options: dict, parts: dict, order: torch.Generator) -> History:
    """Put the checkpoint's state into the parts and the generator; return its history."""
    state = load_checkpoint(checkpoint, options)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    order.set_state(state["order"])
    for group in parts["optimizer"].param_groups:  # a tensor comes back on the CPU
        if isinstance(group["lr"], Tensor):
            group["lr"] = group["lr"].to(order.device)
    return History(**state["history"])


@torch.no_grad()
def terms_per_image(
    model: nn.Module,
    images: Tensor,
    terms: Terms | None = None,
    seed: int = 0,
    binarisation: str = "grey",
) -> tuple[Tensor, Tensor]:
    """Return recon and kl of each of `images` (uint8), each `(N,)`, with the noise of this seed."""
    terms = terms or terms_of(model)
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    parts = batches(images.to(device), 1000, generator, binarisation, shuffle=False)
    recon, kl = zip(*(terms(model, x, generator) for x in parts))
    return torch.cat(recon), torch.cat(kl)


def mean_terms(model, images, terms=None, seed=0, binarisation="grey") -> tuple[float, float]:
    """Return the means of recon and kl over `images`: see `terms_per_image`."""
    recon, kl = terms_per_image(model, images, terms, seed, binarisation)
    return recon.mean().item(), kl.mean().item()


def fit_classifier(images: Tensor, labels: Tensor, epochs: int = 3, seed: int = 0) -> nn.Sequential:
    """Train a small classifier 784-128-10 on uint8 images: the instrument of `evaluate.generation`.

    Reads MNIST's test digits with about 96% accuracy after three seconds. Its weights come from
    `seed` alone, and the global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the weights are made on the CPU
        classifier = nn.Sequential(
            nn.Linear(images[0].numel(), 128), nn.ReLU(), nn.Linear(128, int(labels.max()) + 1)
        ).to(images.device)
    generator = torch.Generator(images.device).manual_seed(seed)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-3)
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator, device=images.device)
        for index in order.split(128):
            logits = classifier(to_float(images[index]))
            loss = nn.functional.cross_entropy(logits, labels[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return classifier.eval()


# --- small parts ----------------------------------------------------------------------------------


def check_numbers(
    epochs: int, batch_size: int, lr: float, beta: float | Callable[[float], float]
) -> None:
    """Raise a ValueError that names the first of these that `fit` could not train with."""
    if not isinstance(epochs, int) or epochs < 0:
        raise ValueError(f"epochs must be a whole number, 0 or more, got {epochs}")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number, 1 or more, got {batch_size}")
    if not 0 < lr < float("inf"):
        raise ValueError(f"lr must be over 0 and finite, got {lr}")
    for value in [beta(i / 10) for i in range(11)] if callable(beta) else [beta]:
        if not math.isfinite(value):
            raise ValueError(f"beta must be finite, got {value}")


def _check_arguments(
    images, test_images, epochs, batch_size, lr, schedule, beta, binarisation
) -> None:
    check_numbers(epochs, batch_size, lr, beta)
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {schedule!r}")
    for name, some in [("images", images), ("test_images", test_images)]:
        if some is not None and (some.dtype != torch.uint8 or len(some) == 0):
            raise ValueError(
                f"{name} must be at least one uint8 image, got {tuple(some.shape)} of {some.dtype}"
            )
    if test_images is not None and test_images[0].numel() != images[0].numel():
        raise ValueError(
            f"images have {images[0].numel()} pixels, test_images {test_images[0].numel()}"
        )
    if binarisation not in BINARISATIONS:
        known = ", ".join(BINARISATIONS)
        raise ValueError(f"unknown binarisation {binarisation!r}: choose one of {known}")


def _check_finite(sums: Tensor, epoch: int, first: int | None, history: History, lr: float) -> None:
    """Raise Diverged with the first step and term of `sums` (steps, 2) that is not finite.

    first: the number of steps before these in the epoch; None for the test images after it.
    """
    if torch.isfinite(sums).all():
        return
    row, column = (~torch.isfinite(sums)).nonzero()[0].tolist()
    term = ("recon", "kl")[column]
    where = "on the test images" if first is None else f"step {first + row + 1}"
    if epoch == 1 and where == "step 1":
        cause = "the model gives no finite loss before any step: look at its weights, or at `terms`"
    elif lr > 1e-2:
        cause = f"a learning rate of {lr:g} is too high for Adam here: try 1e-3"
    elif term == "kl":
        cause = "exp(log_var) overflows above log_var = 88: lower the learning rate"
    else:
        cause = "the decoder's output is no longer finite: lower the learning rate"
    raise Diverged(
        f"training stopped in epoch {epoch}, {where}: {term} is "
        f"{sums[row, column].item()}. Likely cause: {cause}.",
        history,
    )


def _postfix(recon: float, kl: float) -> str:
    if kl == 0:  # an autoencoder
        return f"squared error {recon:.1f}"
    return f"recon {recon:.1f} + KL {kl:.1f} = −ELBO {recon + kl:.1f} nats"


if __name__ == "__main__":
    from vae_lesson.command import main

    main()
