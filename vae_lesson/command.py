"""The headless trainer: `python -m vae_lesson.train --help`, alone or under torchrun."""

import argparse
import contextlib
import csv
import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from vae_lesson import data, devices, saving, train
from vae_lesson.models import NETWORKS, VAE


def parser() -> argparse.ArgumentParser:
    """Return the command's options; the defaults are those of `train.fit`, the fast recipe."""
    parser = argparse.ArgumentParser(
        prog="python -m vae_lesson.train",
        description="Train a VAE and leave the model, its history and 64 new images in a folder.",
        epilog="In several processes: torchrun --nproc-per-node=N -m vae_lesson.train ...",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", default="mnist", help=f"one of {', '.join(data.NAMES)}; without a network digits")
    add("--epochs", type=int, default=3, help="passes over the training images")
    add("--batch-size", type=int, default=128, help="images in a step, of all processes together")
    add("--lr", type=float, default=1e-2, help="Adam's learning rate, or its peak")
    add("--schedule", default="linear", choices=train.SCHEDULES, help="of the learning rate")
    add("--cold-start", action="store_true", help="do not start from the mean image")
    add("--beta", type=float, default=1.0, help="weight of the KL")
    add("--binarisation", default="grey", choices=data.BINARISATIONS, help="of the pixels")
    add("--network", default="mlp", choices=NETWORKS, help="of encoder and decoder")
    add("--latent-size", type=int, default=20, help="numbers in a code")
    add("--hidden-size", type=int, default=400, help="units in the hidden layer")
    add("--seed", type=int, default=0, help="of the weights, the order and the noise")
    add("--device", default="auto", help="auto, cuda, mps or cpu")
    add("--name", default="trained", help="what the files' names begin with")
    add("--history", default="csv", choices=["csv", "json"], help="the history's format")
    add(
        "--out",
        type=Path,
        default=argparse.SUPPRESS,
        help="the folder to write to (default: $VAE_LESSON_RESULTS, else results/)",
    )
    add("--resume", action="store_true", help="go on from the last whole epoch, if there is one")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Train as the options say. A wrong one ends with a message and exit code 2."""
    options = parser()
    chosen = options.parse_args(arguments)
    if chosen.seed < 0 or chosen.seed >= 2**32:
        options.error(f"--seed must be from 0 to 2**32 - 1, got {chosen.seed}")
    if not chosen.name or Path(chosen.name).name != chosen.name:
        options.error(f"--name must be a plain name, got {chosen.name!r}")
    try:
        data.check_name(chosen.data)
        train.check_numbers(chosen.epochs, chosen.batch_size, chosen.lr, chosen.beta)
        device = devices.pick_device(chosen.device)
        torch.manual_seed(chosen.seed)
        model = VAE(chosen.latent_size, chosen.hidden_size, network=chosen.network)
        if "out" in chosen:
            os.environ["VAE_LESSON_RESULTS"] = str(chosen.out)
        saving.results_path("")  # makes the folder
    except (ValueError, OSError) as error:
        options.error(str(error))
    device = devices.start(device)
    rank, size = devices.world()
    # torchrun starts every process anew when one of them dies: then going on is what is meant.
    resume = chosen.resume or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0
    try:
        with contextlib.redirect_stdout(None) if rank else contextlib.nullcontext():
            run(chosen, model, device, resume, rank, size)
    except (ValueError, train.Diverged) as error:
        options.exit(1, f"{options.prog}: {error}\n")
    finally:
        devices.stop()


def run(chosen, model: nn.Module, device: torch.device, resume: bool, rank: int, size: int) -> None:
    """Train, and let one process write what is left."""
    images = data.load_images(chosen.data, device=device)
    checkpoint = saving.results_path(f"{chosen.name}.checkpoint")
    processes = f" in {size} processes" if size > 1 else ""
    print(f"{images}{processes}")
    if resume:
        there = checkpoint.is_file()
        print(
            f"Going on from {checkpoint.name}."
            if there
            else f"No {checkpoint.name}: from the start."
        )
    history = train.fit(
        model,
        images.train,
        epochs=chosen.epochs,
        batch_size=chosen.batch_size,
        lr=chosen.lr,
        schedule=chosen.schedule,
        warm_start=not chosen.cold_start,
        beta=chosen.beta,
        binarisation=chosen.binarisation,
        test_images=images.test,
        seed=chosen.seed,
        device=device,
        progress=not chosen.quiet,
        checkpoint=checkpoint,
        resume=resume,
    )
    if rank:
        return
    for epoch, (recon, kl) in enumerate(zip(history.test_recon, history.test_kl), 1):
        print(f"epoch {epoch}: test recon {recon:.2f} + KL {kl:.2f} = −ELBO {recon + kl:.2f} nats")
    if history.seconds:
        print(f"{history.seconds[-1]:.1f} seconds of training on {device}{processes}")
    info = {"dataset": images.name, "epochs": len(history), "seed": chosen.seed}
    saving.save_model(model, saving.results_path(f"{chosen.name}.pt"), **info)
    write_history(history, saving.results_path(f"{chosen.name}_history.{chosen.history}"))
    from torchvision.utils import save_image

    generator = torch.Generator(device).manual_seed(chosen.seed)
    samples = model.sample(64, generator).view(-1, 1, *images.train.shape[1:])
    save_image(samples, saving.results_path(f"{chosen.name}_generated.png"), nrow=8)
    print(f"Saved {chosen.name}.pt, its history and its 64 images in {checkpoint.parent}.")


def write_history(history: train.History, path: Path) -> None:
    """Write the history, one entry an epoch: as CSV with a header, or as JSON by column."""
    columns = {name: values for name, values in asdict(history).items() if name != "stopped"}
    with path.open("w", newline="", encoding="utf-8") as file:
        if path.suffix == ".json":
            json.dump(columns, file, indent=1)
            return
        writer = csv.writer(file)
        writer.writerow(["epoch", *columns])
        writer.writerows([i, *row] for i, row in enumerate(zip(*columns.values()), 1))
