"""What a training leaves: the trained model, and the checkpoint from which it can go on.

A file gets its name only when it is complete: an interrupt, or a full disk, leaves the old one. No
code in a file that is read is run.
"""

import io
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from vae_lesson.models import VAE, Autoencoder
from vae_lesson.places import place
from vae_lesson.running.machine import pick_device

KINDS = {kind.__name__: kind for kind in (VAE, Autoencoder)}


def results_path(filename: str) -> Path:
    """Return where a lesson's result goes: in `$VAE_LESSON_RESULTS`, else `results/` here."""
    return place("VAE_LESSON_RESULTS", "results") / filename


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Give another name to write to, and then the file its own; its folder is made if missing.

    Raises: OSError with the path, which Python's own lacks where the disk is full.
    """
    path = Path(path)
    part = path.with_name(f"{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def save_model(model: nn.Module, path: str | Path, **info: str | int | float) -> None:
    """Save a model's kind, configuration and weights, and `info`: how it was trained, on what.

    Raises: ValueError for a model that `load_model` would not know.
    """
    check_kind(model)
    content = {
        "kind": type(model).__name__,
        "config": model.config,
        "state": model.state_dict(),
        # NumPy's numbers would make a file that weights_only refuses to load.
        "info": {k: v.item() if hasattr(v, "item") else v for k, v in info.items()},
    }
    _write(content, path)


def check_kind(model: nn.Module) -> None:
    """Raise ValueError for a model that `load_model` could not make again."""
    if type(model) not in KINDS.values():
        raise ValueError(
            f"a {type(model).__name__} cannot be saved here, only {' and '.join(KINDS)}: keep a "
            "network of your own by torch.save(network.state_dict(), path), and load it by "
            "network.load_state_dict(torch.load(path))"
        )


def load_model(
    path: str | Path, device: str | torch.device | None = None
) -> tuple[nn.Module, dict]:
    """Return (model, info) from a file of `save_model`, on `device` (see `pick_device`).

    Raises: FileNotFoundError; ValueError for a file that is damaged or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no model at {path}")
    device = pick_device(device)
    with _read(
        path, "no model of this version of the course: remove it and train again"
    ) as content:
        model, info = KINDS[content["kind"]](**content["config"]), dict(content["info"])
        model.load_state_dict(content["state"])
        if not all(weight.isfinite().all() for weight in model.parameters()):
            raise ValueError("some weights are NaN or infinite")
    return model.to(device).eval(), info


def save_checkpoint(path: Path, settings: dict, **state) -> None:
    """Save what a training needs to go on, and the settings that it must go on with."""
    _write({"settings": settings, **state}, path)


def load_checkpoint(path: Path, settings: dict) -> dict:
    """Return the state in a file of `save_checkpoint`, on the CPU.

    Raises: ValueError for a damaged file, and for a training with other settings: it names them.
    """
    state = _read_checkpoint(path)
    there = state["settings"]
    # Such a training may just go on for longer; a schedule depends on where it ends.
    longer = settings["schedule"] == "constant" and isinstance(settings["beta"], float)
    differing = [
        f"{name} {there.get(name)!r} there, {wanted!r} here"
        for name, wanted in settings.items()
        if there.get(name) != wanted and not (longer and name == "epochs")
    ]
    if differing:
        raise ValueError(f"{path} is of another training: {'; '.join(differing)}")
    return state


def check_checkpoint(path: Path, resume: bool | None) -> None:
    """Raise ValueError if `path` is a folder; or holds a training, and `resume` does not say
    whether to go on from it (True) or to start anew (False)."""
    if path.is_dir():
        raise ValueError(f"the checkpoint {path} is a folder: give the name of a file")
    if resume is None and path.is_file():
        state = _read_checkpoint(path)
        done, of = len(state["history"]["seconds"]), state["settings"]["epochs"]
        raise ValueError(
            f"{path} holds {done} of {of} epochs of a training: go on from it (--resume, "
            "resume=True), start anew (--restart, resume=False), or choose another file"
        )


def _read_checkpoint(path: Path) -> dict:
    with _read(path, "no checkpoint: remove it and start anew") as state:
        dict(state["settings"])
    return state


def _write(content: dict, path: str | Path) -> None:
    # Through memory: torch's own writer says "unexpected pos" of a disk that is full.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with written_whole(path) as part:
        part.write_bytes(buffer.getbuffer())


@contextmanager
def _read(path: Path, otherwise: str) -> Iterator[dict]:
    """Give what a file of `_write` holds, to be looked through in the `with`.

    Raises: ValueError with the path and the cause, whatever a damaged file makes the readers raise.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load itself does not look at checksums
            if broken := archive.testzip():
                raise ValueError(f"wrong checksum of {broken}")
        yield torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} is damaged or {otherwise} ({type(error).__name__}: {error})"
        ) from error
