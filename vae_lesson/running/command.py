"""The headless trainer: `python -m vae_lesson.train --help`, alone or under torchrun."""

import argparse
import contextlib
import csv
import inspect
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from vae_lesson import data, sources
from vae_lesson.arguments import check_one_of, check_whole
from vae_lesson.models import NETWORKS, VAE
from vae_lesson.running import devices, processes, saving
from vae_lesson.running.run import Diverged, History

# The options that are arguments of `fit` or of `VAE`, whose defaults they have, and what they mean.
ARGUMENTS = {
    "epochs": "passes over the training images",
    "batch_size": "images in a step, of all processes together",
    "lr": "Adam's learning rate, or its peak",
    "schedule": "of the learning rate: constant, one-cycle or linear",
    "beta": "weight of the KL",
    "binarisation": f"of the pixels: {', '.join(data.BINARISATIONS)}",
    "seed": "of the weights, the order and the noise",
    "latent_size": "numbers in a code",
    "hidden_size": "units in the hidden layer",
    "network": f"of encoder and decoder: {', '.join(NETWORKS)}",
}


def parser(fit: Callable) -> argparse.ArgumentParser:
    """Return the command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m vae_lesson.train",
        description="Train a VAE and leave the model, its history and 64 new images in a folder.",
        epilog="In several processes: torchrun --nproc-per-node=N -m vae_lesson.train ...",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    known = {**inspect.signature(VAE).parameters, **inspect.signature(fit).parameters}
    for name, text in ARGUMENTS.items():
        default = known[name].default
        add(f"--{name.replace('_', '-')}", type=type(default), default=default, help=text)
    names = ", ".join(sources.NAMES)
    add("--data", default="mnist", help=f"one of {names}; without a network digits")
    add("--cold-start", action="store_true", help="do not start from the mean image")
    add("--device", default="auto", help="auto, cuda, mps or cpu")
    add("--name", default="trained", help="what the files' names begin with")
    out = "the folder to write to (default: $VAE_LESSON_RESULTS, else results/)"
    add("--out", type=Path, default=argparse.SUPPRESS, help=out)
    add("--resume", action="store_true", help="go on from the last whole epoch, if there is one")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


def main(fit: Callable, check_settings: Callable, arguments: list[str] | None = None) -> None:
    """Train by `fit` as the options say. A wrong one ends with a message and exit code 2."""
    options = parser(fit)
    chosen = options.parse_args(arguments)
    settings = inspect.signature(check_settings).parameters
    training = {name: getattr(chosen, name) for name in settings}
    try:
        check_settings(**training)
        check_whole("seed", chosen.seed, 0, 2**32 - 1)
        check_one_of("data set", chosen.data, sources.NAMES)
        if not chosen.name or Path(chosen.name).name != chosen.name:
            raise ValueError(f"--name must be a plain name, got {chosen.name!r}")
        device = devices.pick_device(chosen.device)
        torch.manual_seed(chosen.seed)
        model = VAE(chosen.latent_size, chosen.hidden_size, network=chosen.network)
        if "out" in chosen:
            os.environ["VAE_LESSON_RESULTS"] = str(chosen.out)
        saving.results_path("")  # makes the folder
    except (ValueError, OSError) as error:
        options.error(str(error))
    device = processes.start(device)
    # torchrun starts every process anew when one of them dies: then going on is what is meant.
    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0
    training |= {"seed": chosen.seed, "warm_start": not chosen.cold_start, "device": device}
    training |= {"progress": not chosen.quiet, "resume": chosen.resume or restarted}
    rank, _ = processes.world()
    try:
        with contextlib.redirect_stdout(None) if rank else contextlib.nullcontext():
            images = sources.load_images(chosen.data, device=device)
            history = _train(fit, model, images, chosen.name, training)
            if rank == 0:
                _leave(model, images, history, chosen.name, chosen.seed)
    except (ValueError, Diverged) as error:
        options.exit(1, f"{options.prog}: {error}\n")
    finally:
        processes.stop()


def _train(fit: Callable, model: VAE, images: data.Images, name: str, training: dict) -> History:
    size = processes.world()[1]
    in_processes = f" in {size} processes" if size > 1 else ""
    print(f"{images}{in_processes}")
    checkpoint = saving.results_path(f"{name}.checkpoint")
    if training["resume"] and checkpoint.is_file():
        print(f"Going on from {checkpoint.name}.")
    elif training["resume"]:
        print(f"No {checkpoint.name}: from the start.")
    history = fit(model, images.train, **training, test_images=images.test, checkpoint=checkpoint)
    for epoch, (recon, kl) in enumerate(zip(history.test_recon, history.test_kl), 1):
        print(f"epoch {epoch}: test recon {recon:.2f} + KL {kl:.2f} = −ELBO {recon + kl:.2f} nats")
    if history.seconds:
        device = training["device"]
        print(f"{history.seconds[-1]:.1f} seconds of training on {device}{in_processes}")
    return history


def _leave(model: VAE, images: data.Images, history: History, name: str, seed: int) -> None:
    """Write the model, its history and 64 new images."""
    from torchvision.utils import save_image

    path = saving.results_path(f"{name}.pt")
    saving.save_model(model, path, dataset=images.name, epochs=len(history), seed=seed)
    write_history(history, saving.results_path(f"{name}_history.csv"))
    generator = torch.Generator(images.train.device).manual_seed(seed)
    samples = model.sample(64, generator).view(-1, 1, *images.train.shape[1:])
    save_image(samples, saving.results_path(f"{name}_generated.png"), nrow=8)
    print(f"Saved {name}.pt, its history and its 64 images in {path.parent}.")


def write_history(history: History, path: Path) -> None:
    """Write the history as CSV, a row an epoch under a header."""
    columns = {name: values for name, values in asdict(history).items() if name != "stopped"}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", *columns])
        writer.writerows([i, *row] for i, row in enumerate(zip(*columns.values()), 1))
