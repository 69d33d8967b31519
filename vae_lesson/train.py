"""One plain training loop, `fit`, for every model. `python -m vae_lesson --help` runs it."""

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae_lesson.arguments import check_one_of, check_over_0, check_whole
from vae_lesson.data import BINARISATIONS, as_inputs, as_tensors
from vae_lesson.losses import Terms, default_terms, objective
from vae_lesson.models import convolves
from vae_lesson.running import processes
from vae_lesson.running.graphs import graphed
from vae_lesson.running.machine import pick_device
from vae_lesson.running.training import History, Training

SCHEDULES = ("constant", "linear")


def fit(
    model: nn.Module,
    *tensors: Tensor,
    terms: Terms | None = None,
    epochs: int = 10,
    batch_size: int = 128,
    lr: float | tuple[float, float] = 1e-3,
    schedule: str = "constant",
    from_mean: bool = False,
    beta: float | Callable[[float], float] = 1.0,
    binarisation: str = "grey",
    test: Tensor | tuple[Tensor, ...] = (),
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
    checkpoint: str | Path | None = None,
    resume: bool | None = None,
    graph: bool = True,
) -> History:
    """Train `model` in place by Adam, on the batch mean of the sum of its terms.

    The defaults train as the article does; `fit_fast` is the same in two epochs instead of ten.

    tensors: of equal length, drawn together: images, or images and labels, or tokens. uint8 are
    pixels, which `terms` gets as floats in [0, 1], flat; all others it gets as they are. test: what
    `terms` is also measured on after each epoch, like `tensors`.
    terms: (model, *batch, generator=...) -> what to minimise, {name: (B,)}; by default the ELBO for
    a VAE, squared error for an autoencoder. beta: the weight of the one that is called kl; or a
    function of the progress, which goes from 0 at the first step to 1 at the last, for a warm-up.
    lr: Adam's learning rate, or two: for the weights of `model.encoder`, and for all others.
    schedule: "constant"; or "linear", which rises over the first 15% of the steps to `lr`, and
    falls to 0. from_mean: see `starting_from_the_mean`.
    seed: fixes the order and the noise; the model's first weights are the caller's. On a CPU
    the result is the same bit for bit, on a GPU not quite: convolutions add up in any order.
    checkpoint: a file that is written after every epoch. resume: True goes on from it, if it is
    there, to the same result as an unbroken training, and refuses one with other arguments, also
    other `terms` by their name; False starts anew; None refuses to choose.
    graph: on a CUDA device a step is recorded as one CUDA graph, so that Python in `terms` (a
    counter, a number of outside) runs in the first steps, then only in an epoch's smaller last
    batch and on `test`. False runs it at every step.

    Under torchrun each process takes its share of every batch, and all end with the same weights.
    On a GPU numbers are read at an epoch's end.
    An interrupt (Ctrl-C, the stop button) ends the training, keeps model and history, and says so.

    Raises: ValueError for a bad argument, before any training; Diverged at the first NaN or inf.
    """
    settings = settings_of(epochs, batch_size, lr, schedule, from_mean, beta, binarisation, seed)
    terms = terms or default_terms(model)
    if not tensors:
        raise ValueError("give fit the images too: fit(model, images.train)")
    tensors, test = as_tensors(model, tensors), as_tensors(model, test, "test")
    device = pick_device(device)
    model.to(device).train()
    order, noise = processes.generators(seed, device)
    batch_terms = processes.shared(model, terms)
    optimizer, scheduler = adam(
        model, lr, schedule, epochs * math.ceil(len(tensors[0]) / batch_size)
    )
    beta_now = torch.zeros((), device=device)  # a tensor, because a CUDA graph reads it anew
    beta_at = beta if callable(beta) else lambda progress: beta

    def step(*batch: Tensor) -> Tensor:
        """Train on this batch; return the sum of each term over it."""
        inputs = as_inputs(batch, binarisation, noise)  # pixels: (B, D) floats
        named = batch_terms(*inputs, generator=noise)  # {name: (B,)}, as recon and kl in nats
        sums = training.check(named)  # a NaN ends the training here, before it reaches the weights
        optimizer.zero_grad(set_to_none=True)
        objective(named, beta_now).mean().backward()
        processes.add_up(*(weight.grad for weight in model.parameters()))
        optimizer.step()
        return sums

    start = starting_from_the_mean(model, tensors[0]) if from_mean else nullcontext()
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    training = Training(
        parts, tensors, test, terms, settings, order, noise, progress, checkpoint, resume
    )
    take_step = graphed(step, noise) if graph else step
    with start, training:
        for batch in training.batches():
            beta_now.fill_(beta_at(training.progress))
            training.watch(take_step(*batch), len(batch[0]))
            scheduler.step()
    return training.history


# The fast recipe: on MNIST two epochs end lower than the article's ten (docs/measurements.md).
fit_fast = functools.partial(
    fit, epochs=2, batch_size=256, lr=(8e-3, 3.2e-2), schedule="linear", from_mean=True
)


@contextmanager
def starting_from_the_mean(model: nn.Module, images: Tensor) -> Iterator[None]:
    """Let a fresh model begin with the mean image m, and its encoder see x - m while it trains.

    The bias of the last layer becomes the logits of m: else the first steps go into learning that
    the border is black. A first layer that sees x - m with the bias b + W m computes what it did of
    x with b, but learns better: for its gradients the images are no longer all alike. Afterwards
    it sees x again. Both are Linear layers, found by their sizes: the first that takes all pixels
    (and may be told a label behind them), the last that gives them. The bias of one that has been
    trained before, and has left the range it was made in, stays.

    Raises: ValueError for a model without them, or whose output is no logits.
    """
    n_pixels = images[0].numel()
    takes = (n_pixels, n_pixels + getattr(model, "n_classes", 0))
    decoder = model.decoder if isinstance(getattr(model, "decoder", None), nn.Module) else model
    first = [layer for layer in linear_layers(model) if layer.in_features in takes]
    last = [layer for layer in linear_layers(decoder) if layer.out_features == n_pixels]
    is_linear = getattr(model, "network", None) == "linear"  # its output may be no logits
    if not (first and last) or is_linear or convolves(model):
        raise ValueError(
            f"from_mean is for logits from Linear layers that take and give all {n_pixels} "
            "pixels, and this model has none: leave it out"
        )
    first, last = first[0], last[-1]
    # A part at a time: 60,000 images as int64 are 380 MB.
    parts = images.flatten(1).split(500)
    mean = sum(part.sum(dim=0, dtype=torch.int64) for part in parts) / (255 * len(images))
    low, high = getattr(model, "pixels", (0.0, 1.0))  # of an adapted model's own images
    mean = mean.to(first.weight.device)
    seen = F.pad(low + (high - low) * mean, (0, first.in_features - n_pixels))  # labels come last
    with torch.no_grad():
        is_fresh = last.bias.abs().max() <= last.in_features**-0.5
        if is_fresh and getattr(model, "output", "logits") == "logits":  # an adapted model says
            last.bias.copy_(torch.logit(mean, eps=1e-3))
        first.bias += first.weight @ seen
    hook = first.register_forward_pre_hook(lambda _, arguments: arguments[0] - seen)
    try:
        yield
    finally:
        hook.remove()
        with torch.no_grad():
            first.bias -= first.weight @ seen


def linear_layers(network: nn.Module) -> list[nn.Linear]:
    """Return the Linear layers with a bias, in order."""
    linear = [part for part in network.modules() if isinstance(part, nn.Linear)]
    return [layer for layer in linear if layer.bias is not None]


def adam(model: nn.Module, lr: float | tuple[float, float], schedule: str, n_steps: int):
    """Return Adam and its schedule of learning rates over so many steps."""
    device = next(model.parameters()).device
    on_gpu = device.type == "cuda"
    groups = rates(model, lr)
    peaks = [group["lr"] for group in groups]
    if on_gpu:  # a graph reads each group's rate at every step
        groups = [group | {"lr": torch.tensor(group["lr"], device=device)} for group in groups]
    optimizer = torch.optim.Adam(groups, fused=True, capturable=on_gpu)
    if schedule == "constant" or n_steps == 0:
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    options = {"pct_start": 0.15, "anneal_strategy": "linear", "cycle_momentum": False}
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, n_steps, **options)


def rates(model: nn.Module, lr: float | tuple[float, float]) -> list[dict]:
    """Return Adam's groups: all weights at one rate, or the encoder's at one and the others' at
    another. At one rate a step moves the encoder's units by 2 to 12 times as much of their spread
    as the decoder's (docs/measurements.md)."""
    if not isinstance(lr, tuple):
        return [{"params": list(model.parameters()), "lr": lr}]
    encoder = getattr(model, "encoder", None)
    if isinstance(encoder, nn.Module):
        of_encoder = list(encoder.parameters())
    elif not (of_encoder := getattr(model, "encoder_weights", [])):
        kind = type(model).__name__
        raise ValueError(f"two learning rates, and a {kind} has no `encoder`: give one, lr=1e-3")
    known = {id(weight) for weight in of_encoder}
    others = [weight for weight in model.parameters() if id(weight) not in known]
    return [{"params": of_encoder, "lr": lr[0]}, {"params": others, "lr": lr[1]}]


def settings_of(epochs, batch_size, lr, schedule, from_mean, beta, binarisation, seed) -> dict:
    """Return these by name, a beta that is a function as its values at eleven points.

    Raises: a ValueError that names the first of them that `fit` could not train with.
    """
    check_whole("epochs", epochs, least=0)
    check_whole("batch_size", batch_size)
    pair = isinstance(lr, tuple) and len(lr) == 2
    for rate in lr if pair else [lr]:
        check_over_0("lr", rate)
    check_one_of("schedule", schedule, SCHEDULES)
    check_one_of("binarisation", binarisation, BINARISATIONS)
    check_whole("seed", seed, 0, 2**32 - 1)
    try:
        betas = [float(beta(i / 10)) for i in range(11)] if callable(beta) else [float(beta)]
    except (TypeError, ValueError):
        raise ValueError(f"beta must be a number, or a function that gives one: {beta!r}") from None
    for value in betas:
        if not 0 <= value < math.inf:
            raise ValueError(f"beta must be 0 or more and finite, got {value}")
    return {
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "schedule": schedule,
        "from_mean": bool(from_mean),
        "beta": betas if callable(beta) else betas[0],
        "binarisation": binarisation,
        "seed": seed,
    }
