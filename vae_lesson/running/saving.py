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

import numpy as np
import torch
from torch import Tensor, nn

from vae_lesson.adapter import AdaptedVAE, adapt
from vae_lesson.data import Images
from vae_lesson.models import VAE, Autoencoder
from vae_lesson.places import place
from vae_lesson.running.machine import pick_device

KINDS = {kind.__name__: kind for kind in (VAE, Autoencoder)}
NO_MODEL = "no model of this version of the course: remove it and train again"


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


def save_model(
    model: nn.Module, path: str | Path, images: Images | None = None, **info: object
) -> None:
    """Save a model's kind, configuration and weights, and `info`: numbers, words, small tensors.

    images: what it was trained on. Their `dataset`, `shape`, `class_names` and `scales` (see
    `sources.pictures.prepare`) come into info, unless it names others: `use.encode_picture` needs
    them. Of an adapted network the class's name and the weights are saved, not its code.

    Raises: ValueError for a model that `load_model` would not know, or that takes other images.
    """
    content, network = {"kind": type(model).__name__}, model
    if type(model) is AdaptedVAE:
        network, kind = model.model, type(model.model)
        content["network"] = f"{kind.__module__}.{kind.__qualname__}"
        content["latent_size"] = model.latent_size
    else:
        check_kind(model)
    if images is not None:
        if images.train[0].numel() != model.input_size:
            raise ValueError(
                f"images have {images.train[0].numel()} values, this model takes "
                f"{model.input_size}: give those that it was trained on"
            )
        of_images = {"dataset": images.name, "shape": images.shape}
        of_images |= {"class_names": images.class_names, "scales": images.scales}
        info = of_images | info
    content |= {"config": _plain(model.config), "info": _plain(info)}
    content["state"] = network.state_dict()  # by its own names: they do without this package
    _write(content, path)


def check_kind(model: nn.Module) -> None:
    """Raise ValueError for a model that `load_model` could not make again by itself."""
    if isinstance(model, AdaptedVAE):
        raise ValueError(
            f"only {' and '.join(KINDS)} can be made again by themselves, not the "
            f"{type(model.model).__name__} that this adapts: train it by fit, keep it by "
            "save_model(model, path), and load it by load_model(path, network=...)"
        )
    if type(model) not in KINDS.values():
        raise ValueError(
            f"a {type(model).__name__} cannot be saved here, only {' and '.join(KINDS)}, and "
            "networks of your own that encode and decode: save_model(adapt(network, shape), path). "
            "Or keep any by torch.save(network.state_dict(), path), and load it by "
            "network.load_state_dict(torch.load(path))"
        )


def load_model(
    path: str | Path,
    device: str | torch.device | None = None,
    network: nn.Module | None = None,
) -> tuple[nn.Module, dict]:
    """Return (model, info) from a file of `save_model`, on `device` (see `pick_device`).

    network: where the model is a network of your own, an instance of its class. It gets the saved
    weights, and is adapted as it was. The class may have moved to another module since.

    Raises: FileNotFoundError; ValueError for a file that is damaged or holds something else, and
    for a network that is not the one in it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no model at {path}")
    device = pick_device(device)
    with _read(path, NO_MODEL) as content:
        config, state, info = (dict(content[part]) for part in ("config", "state", "info"))
        kind, shapes = content["kind"], _shapes(state)
        if adapted := kind == AdaptedVAE.__name__:
            name, of_shape = str(content["network"]), f"images of shape {tuple(config['shape'])}"
            sizes = f"codes of {content['latent_size']} numbers and {of_shape}"
        else:
            model = KINDS[kind](**config)
    if adapted:
        _check_network(network, name, shapes, path, sizes)
        model = adapt(network, **config)
    elif network is not None:
        raise ValueError(f"{path} holds a {kind} of this package: leave network out")
    with _explained(path, NO_MODEL):
        (network if adapted else model).load_state_dict(state)
        if not all(weight.isfinite().all() for weight in model.parameters()):
            raise ValueError("some weights are NaN or infinite")
    return model.to(device).eval(), info


def _check_network(
    network: nn.Module | None, name: str, shapes: dict, path: Path, sizes: str
) -> None:
    """Raise ValueError unless `network` is of the class that was saved, and takes its weights."""
    kind = name.rpartition(".")[2]
    write = f"write load_model({str(path)!r}, network={kind}(...)), made as it was, for {sizes}"
    if network is None:
        raise ValueError(
            f"{path} holds the weights of a network of your own, {name}, and not its code: {write}"
        )
    if not isinstance(network, nn.Module) or type(network).__name__ != kind:
        got = "the class itself" if isinstance(network, type) else f"a {type(network).__name__}"
        raise ValueError(f"{path} holds a {name}, and network is {got}: {write}")
    here = _shapes(network.state_dict())
    differing = [
        f"{each} {here.get(each, 'missing')} here, {shapes.get(each, 'missing')} there"
        for each in {**here, **shapes}
        if here.get(each) != shapes.get(each)
    ]
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise ValueError(
            f"this {kind} has other weights than the one in {path}: "
            f"{'; '.join(differing[:3])}{more}. So {write}"
        )


def _shapes(state: dict) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in state.items()}


def _plain(value: object) -> object:
    """Return a value as weights_only loads it again: NumPy's numbers, say, it refuses."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        each = map(_plain, value)
        return [*each] if isinstance(value, list) else tuple(each)
    if isinstance(value, Tensor) and value.ndim:
        return value.detach().cpu()
    if isinstance(value, (Tensor, np.generic, np.ndarray)):
        return value.tolist()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f"a model is saved with numbers, words and tensors, not {value!r}")


def save_checkpoint(path: Path, settings: dict, **state) -> None:
    """Save what a training needs to go on, and the settings that it must go on with."""
    _write({"settings": settings, **state}, path)


def load_checkpoint(path: Path, settings: dict) -> dict:
    """Return the state in a file of `save_checkpoint`, on the CPU.

    Raises: ValueError for a damaged file, and for a training with other settings: it names them.
    """
    state = _read_checkpoint(path)
    there = state["settings"]
    # A file from before `terms` were kept says nothing of them: it is believed to have had these.
    there.setdefault("terms", settings["terms"])
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
    """Give what a file of `_write` holds, to be looked through in the `with`; see `_explained`."""
    with _explained(path, otherwise):
        with zipfile.ZipFile(path) as archive:  # torch.load itself does not look at checksums
            if broken := archive.testzip():
                raise ValueError(f"wrong checksum of {broken}")
        yield torch.load(path, map_location="cpu", weights_only=True)


@contextmanager
def _explained(path: Path, otherwise: str) -> Iterator[None]:
    """Raise ValueError with the path and the cause, whatever a damaged file makes raise here."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"{path} is damaged or {otherwise} ({type(error).__name__}: {error})"
        ) from error
