"""The headless trainer: `python -m vae_lesson --help`, alone or under torchrun."""

import argparse
import contextlib
import csv
import functools
import inspect
import os
import sys
from pathlib import Path

import torch

from vae_lesson import data, sources
from vae_lesson.arguments import check_whole
from vae_lesson.likelihood.pixels import fitted_logistic_nll
from vae_lesson.losses import elbo_terms
from vae_lesson.models import NETWORKS, VAE
from vae_lesson.running import machine, processes, saving
from vae_lesson.running.training import Diverged, History, say
from vae_lesson.train import fit_fast, settings_of

# The options that are arguments of `fit_fast` or of `VAE`, whose defaults they have.
ARGUMENTS = {
    "epochs": "passes over the training images",
    "batch_size": "images in a step, of all processes together",
    "schedule": "of the learning rate: constant or linear",
    "beta": "weight of the KL",
    "binarisation": f"of the pixels: {', '.join(data.BINARISATIONS)}",
    "seed": "of the weights, the order and the noise",
    "latent_size": "numbers in a code",
    "hidden_size": "units in the hidden layer",
    "network": f"of encoder and decoder: {', '.join(NETWORKS)}",
}
ENDS = (".checkpoint", ".pt", "_history.csv", "_generated.png")  # of the names of its files
CONV = (2.5e-3, 1e-2)  # learning rates; the fast recipe's are too high for convolutions
DEFAULTS = {
    name: parameter.default
    for call in (VAE, fit_fast)
    for name, parameter in inspect.signature(call).parameters.items()
}


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m vae_lesson",
        description="Train a VAE and leave the model, its history and 64 new images in a folder.",
        epilog="In several processes: torchrun --nproc-per-node=N -m vae_lesson ...",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(side=None, out=None, resume=None)
    add = parser.add_argument
    for name, text in ARGUMENTS.items():
        default = DEFAULTS[name]
        add(f"--{name.replace('_', '-')}", type=type(default), default=default, help=text)
    rates = "Adam's learning rate, or its peak: one, or the encoder's and the others' (default: "
    rates += f"{' '.join(map(str, DEFAULTS['lr']))}, of convolutions {' '.join(map(str, CONV))})"
    add("--lr", type=float, nargs="+", default=argparse.SUPPRESS, help=rates)
    names = ", ".join(sources.NAMES)
    add("--data", default="mnist", help=f"a folder of pictures, or one of {names}")
    side = "pixels along a side of a folder's pictures (default: 32)"
    add("--side", type=int, default=argparse.SUPPRESS, help=side)
    cold = "do not start from the mean image; networks of convolutions cannot"
    add("--cold-start", dest="from_mean", action="store_false", help=cold)
    add("--device", default="auto", help="auto, cuda, mps or cpu")
    add("--name", default="trained", help="what the files' names begin with")
    out = "the folder to write to (default: $VAE_LESSON_RESULTS, else results/)"
    add("--out", type=Path, default=argparse.SUPPRESS, help=out)
    again = parser.add_mutually_exclusive_group()
    add_again = functools.partial(again.add_argument, dest="resume", default=argparse.SUPPRESS)
    go_on = "go on from the last whole epoch, if there is one"
    add_again("--resume", action="store_true", help=go_on)
    add_again("--restart", action="store_false", help="start anew, whatever checkpoint is there")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Train by `fit_fast` as the options say.

    Ends with exit code 2 and a message for a wrong option, 1 where the training fails, 130 where it
    is interrupted: then its checkpoint is left, and what finished trainings leave is not touched.
    """
    machine.prepare()
    options = parser()
    chosen = options.parse_args(arguments)
    try:
        files, training = _checked(chosen)
        training["device"] = processes.start(training["device"])
    except (ValueError, OSError) as error:
        options.error(str(error))
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # not every encoding has a minus sign
    rank, size = processes.world()
    try:
        with contextlib.redirect_stdout(None) if rank else contextlib.nullcontext():
            # What was asked for, or nothing; `fit` moves them to the device.
            images = sources.load_images(chosen.data, side=chosen.side, fall_back=False)
            say(f"{images}{f' in {size} processes' if size > 1 else ''}")
            torch.manual_seed(chosen.seed)
            model = _model(chosen, images.shape)
            terms = elbo_terms
            if images.shape[0] == 3:
                # Greys may pass for probabilities of black and white; colours are 256 levels.
                if chosen.binarisation != "grey":
                    raise ValueError("--binarisation is of grey images: leave it out in colour")
                terms = functools.partial(elbo_terms, nll=fitted_logistic_nll)
            if training["resume"]:
                name, there = files[0].name, files[0].is_file()
                say(f"Going on from {name}." if there else f"No {name}: from the start.")
            history = fit_fast(model, images.train, terms=terms, test=images.test, **training)
            if history.stopped is not None:
                options.exit(130)
            if rank == 0:
                _leave(model, images, history, files[1:])
    except (ValueError, OSError, Diverged) as error:
        options.exit(1, f"{options.prog}: {error}\n")
    except KeyboardInterrupt:
        options.exit(130)
    finally:
        processes.stop()


def _checked(chosen: argparse.Namespace) -> tuple[list[Path], dict]:
    """Return the files that the command leaves, the checkpoint first, and the arguments of `fit`;
    ValueError or OSError for an option that cannot be used."""
    lr = getattr(chosen, "lr", CONV if chosen.network == "conv" else DEFAULTS["lr"])
    chosen.lr = lr[0] if len(lr) == 1 else tuple(lr)
    chosen.from_mean = chosen.from_mean and chosen.network in ("mlp", "deep")
    training = {name: getattr(chosen, name) for name in inspect.signature(settings_of).parameters}
    settings_of(**training)
    if chosen.data not in sources.NAMES:
        sources.own_path(chosen.data)
    if chosen.side is not None:
        check_whole("--side", chosen.side, most=1024)
        if chosen.data in sources.MNIST_LIKE:
            raise ValueError(f"--side is for your own pictures, and {chosen.data} has its own")
    if Path(chosen.name).name != chosen.name or not chosen.name.strip("."):
        raise ValueError(f"--name must be a plain name, got {chosen.name!r}")
    device = machine.pick_device(chosen.device)
    _model(chosen, (1, 28, 28))  # what cannot be made says so before anything is loaded
    folder = (chosen.out or saving.results_path("")).expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{folder} cannot be written: choose another folder with --out")
    files = [folder / f"{chosen.name}{end}" for end in ENDS]
    # torchrun starts every process anew when one of them dies: then going on is what is meant.
    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0
    resume = True if restarted else chosen.resume
    saving.check_checkpoint(files[0], resume)
    training |= {"device": device, "progress": not chosen.quiet}
    return files, training | {"checkpoint": files[0], "resume": resume}


def _model(chosen: argparse.Namespace, shape: tuple[int, int, int]) -> VAE:
    try:
        return VAE(chosen.latent_size, chosen.hidden_size, shape, chosen.network)
    except (RuntimeError, MemoryError):
        sizes = f"--latent-size {chosen.latent_size} and --hidden-size {chosen.hidden_size}"
        raise ValueError(f"{sizes} do not fit into memory: choose smaller ones") from None


def _leave(model: VAE, images: data.Images, history: History, files: list[Path]) -> None:
    """Write the model, its history and 64 new images, and then say how it went."""
    from torchvision.utils import save_image

    saving.save_model(model, files[0], dataset=images.name, **history.settings)
    with saving.written_whole(files[1]) as part:
        write_history(history, part)
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(history.settings["seed"])
    samples = model.sample(64, generator).view(-1, *images.shape)
    with saving.written_whole(files[2]) as part:
        save_image(samples, part, nrow=8)
    for i, total in enumerate(history.test_total):
        recon, kl = history.test["recon"][i], history.test["kl"][i]
        say(f"epoch {i + 1}: test recon {recon:.2f} + KL {kl:.2f} = −ELBO {total:.2f} nats")
    for seconds in history.seconds[-1:]:
        say(f"{seconds:.1f} seconds of training on {device}")
    say(f"Saved {files[0].name}, its history and its 64 images in {files[0].parent}.")


def write_history(history: History, path: Path) -> None:
    """Write the history as CSV, a row an epoch under a header."""
    columns = history.train | {f"test_{name}": values for name, values in history.test.items()}
    columns |= {"seconds": history.seconds}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", *columns])
        writer.writerows([i, *row] for i, row in enumerate(zip(*columns.values()), 1))


if __name__ == "__main__":
    main()
