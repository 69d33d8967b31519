"""One plain training loop, `fit`. `python -m vae_lesson --help` runs it from the shell."""

import functools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vae_lesson.arguments import check_one_of, check_over_0, check_whole
from vae_lesson.data import BINARISATIONS, to_float
from vae_lesson.evaluate import mean_terms
from vae_lesson.losses import Terms, default_terms, elbo_terms, neg_elbo
from vae_lesson.models import VAE, convolves
from vae_lesson.running import processes
from vae_lesson.running.devices import moved, pick_device
from vae_lesson.running.graphs import graphed
from vae_lesson.running.run import History, Run

SCHEDULES = ("constant", "linear")


def fit(
    model: nn.Module,
    images: Tensor,
    *,
    epochs: int = 2,
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
    resume: bool | None = None,
) -> History:
    """Train `model` in place by Adam on the batch mean of recon + beta · kl; return its history.

    The defaults are the fast recipe: on MNIST, two epochs to 104.95 to 105.10 nats (five seeds),
    where the article's ten at a constant 1e-3 end with 105.4 to 105.9.

    images, test_images: uint8 `(N, ...)`, moved to `device` once if there is room (`moved`).
    schedule: "constant"; or "linear", which rises over the first 15% of the steps, for the encoder
    to half of `lr`, for the decoder to twice as much (see `rates`), and falls to 0.
    warm_start: let a fresh VAE start from the mean image (`start_from_the_mean`).
    beta: the weight of the KL; or a function of the progress, which goes from 0 at the first step
    to 1 at the last, for a warm-up.
    terms: what to minimise; by default the ELBO for a VAE, squared error for an autoencoder.
    seed: fixes the order of the images and the noise; the model's first weights are the caller's.
    checkpoint: a file that is written after every epoch. resume: True goes on from it, if it is
    there, to the same result as an unbroken training; False starts anew; None refuses to choose.

    Under torchrun each process takes its share of every batch, and all end with the same weights.
    On a CUDA device the steps run as one CUDA graph, and numbers are read at an epoch's end.
    An interrupt (Ctrl-C, the stop button) ends the training, keeps model and history, and says so.

    Raises: ValueError for a bad argument, before any training; Diverged at the first NaN or inf.
    """
    settings = settings_of(epochs, batch_size, lr, schedule, warm_start, beta, binarisation, seed)
    terms = terms or default_terms(model)
    device = pick_device(device)
    images = moved(as_images("images", images, model), device)
    model.to(device).train()
    if warm_start and terms is elbo_terms:
        start_from_the_mean(model, images)
    order, noise = processes.generators(seed, device)
    batch_terms = processes.shared(model, terms)
    optimizer, scheduler = adam(model, lr, schedule, epochs * math.ceil(len(images) / batch_size))
    beta_now = torch.zeros((), device=device)  # a tensor, because a CUDA graph reads it anew
    beta_at = beta if callable(beta) else lambda progress: beta
    test = None
    if test_images is not None:
        test_images = moved(as_images("test_images", test_images, model), device)
        test = functools.partial(mean_terms, model, test_images, terms, seed, binarisation)
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    run = Run(parts, (order, noise), settings, images, test, progress, checkpoint, resume)

    def step(batch: Tensor) -> Tensor:
        """Train on these uint8 images; return the sums of recon and kl over them, `(2,)`."""
        x = to_float(batch, binarisation, noise)  # (B, pixels)
        recon, kl = batch_terms(x, noise)  # (B,) each, in nats per image
        sums = run.check(recon, kl)  # a NaN ends the training here, before it reaches the weights
        optimizer.zero_grad(set_to_none=True)
        neg_elbo(recon, kl, beta_now).mean().backward()
        optimizer.step()
        return sums

    take_step = graphed(step, noise)
    with run:
        for _ in run.epochs():
            permutation = torch.randperm(len(images), generator=order, device=device)
            for index in permutation.split(batch_size):
                beta_now.fill_(beta_at(run.progress))
                batch = images.index_select(0, index.to(images.device)).to(device)
                run.watch(take_step(batch), len(batch))
                scheduler.step()
            run.end_epoch()
    return run.history


@torch.no_grad()
def start_from_the_mean(model: VAE, images: Tensor) -> None:
    """Set the output bias of a fresh VAE to the logits of the mean image.

    Else the first steps go into learning that the border is black. A bias that has left the range
    it was made in has been trained, and is left alone; so is a decoder whose last layer is not
    Linear, which has no bias for each pixel, and a network of your own (`adapter`).
    """
    last = model.decoder[-1] if isinstance(model.decoder, nn.Sequential) else model.decoder
    if not isinstance(last, nn.Linear) or last.bias.abs().max() > last.in_features**-0.5:
        return
    # A part at a time: 60,000 images as int64 are 380 MB.
    parts = images.flatten(1).split(500)
    mean = sum(part.sum(dim=0, dtype=torch.int64) for part in parts) / (255 * len(images))
    last.bias.copy_(torch.logit(mean, eps=1e-3))


def adam(model: nn.Module, lr: float, schedule: str, n_steps: int):
    """Return Adam and its schedule of learning rates over so many steps."""
    device = next(model.parameters()).device
    on_gpu = device.type == "cuda"
    groups = rates(model, lr, schedule)
    peaks = [group["lr"] for group in groups]
    if on_gpu:  # a graph reads each group's rate at every step
        groups = [group | {"lr": torch.tensor(group["lr"], device=device)} for group in groups]
    optimizer = torch.optim.Adam(groups, fused=device.type != "mps", capturable=on_gpu)
    if schedule == "constant" or n_steps == 0:
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    options = {"pct_start": 0.15, "anneal_strategy": "linear", "cycle_momentum": False}
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, n_steps, **options)


def rates(model: nn.Module, lr: float, schedule: str) -> list[dict]:
    """Return Adam's groups: for "linear", the encoder at half of lr, the decoder at twice.

    At one rate a step can move the encoder's units by 2 to 12 times as much of their spread as the
    decoder's (lesson 02 measures it). Convolutions without a norm ended higher with two.
    """
    normed = any(isinstance(part, nn.GroupNorm) for part in model.modules())
    two = schedule == "linear" and (normed or not convolves(model))
    factors = {"encoder": 0.5, "decoder": 2.0} if two else {}  # of lr; what is in neither has lr
    groups = {}
    for name, weight in model.named_parameters():
        groups.setdefault(factors.get(name.split(".")[0], 1.0), []).append(weight)
    return [{"params": weights, "lr": f * lr, "factor": f} for f, weights in groups.items()]


# --- what can be trained with ---------------------------------------------------------------------


def settings_of(epochs, batch_size, lr, schedule, warm_start, beta, binarisation, seed) -> dict:
    """Return these by name, a beta that is a function as its values at eleven points.

    Raises: a ValueError that names the first of them that `fit` could not train with.
    """
    check_whole("epochs", epochs, least=0)
    check_whole("batch_size", batch_size)
    check_over_0("lr", lr)
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
        **{"epochs": epochs, "batch_size": batch_size, "lr": lr, "schedule": schedule},
        **{"warm_start": bool(warm_start), "beta": betas if callable(beta) else betas[0]},
        **{"binarisation": binarisation, "seed": seed},
    }


def as_images(name: str, given, model: nn.Module) -> Tensor:
    """Return what is given as a tensor of uint8 images for this model, or a ValueError that says
    what to give."""
    if isinstance(given, np.ndarray) or (isinstance(given, (list, tuple)) and len(given) > 0):
        given = torch.as_tensor(np.stack(given))
    if not isinstance(given, Tensor):
        raise ValueError(
            f"{name} must be one tensor or array of uint8 images (N, ...), such as "
            f"load_images().train, got {type(given).__name__}"
        )
    if given.dtype != torch.uint8 or given.ndim < 2 or len(given) == 0:
        hint = ": use (255 * x).round().byte()" if given.is_floating_point() else ""
        raise ValueError(
            f"{name} must be at least one uint8 image, got {tuple(given.shape)} of "
            f"{given.dtype}{hint}"
        )
    wanted, got = getattr(model, "input_size", None), given[0].numel()
    if wanted not in (None, got):
        raise ValueError(
            f"{name} have {got} values, this model takes {wanted}: make one with shape=images.shape"
        )
    return given
