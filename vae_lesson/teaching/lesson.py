"""What makes a notebook a lesson: checked parameters, shown source, bands, tables, its results."""

import ast
import difflib
import html
import inspect
import json
import math
import os
import textwrap
from collections.abc import Callable
from pathlib import Path

import torch
from IPython import get_ipython
from torch import Tensor, nn

from vae_lesson.arguments import check_one_of, check_over_0, check_whole
from vae_lesson.data import Images
from vae_lesson.running.devices import pick_device
from vae_lesson.running.run import History
from vae_lesson.running.saving import load_model, results_path, save_model, whole
from vae_lesson.sources import NAMES
from vae_lesson.train import fit, settings_of

# The −ELBO on the test images, one sample of z, in which a healthy run of the article's network
# and hyperparameters ends. MNIST: three seeds gave 105.39 to 105.89, the article's script 106.27.
# digits: four seeds gave 99.66 to 99.82. A data set that was not measured is not in here.
BANDS = {"mnist": (104.5, 106.5), "digits": (98.5, 101.0)}


def check_parameters(
    dataset: str,
    device: str,
    seed: int,
    latent_size: int,
    lr: float | None = None,
    **counts: int,
) -> torch.device:
    """Check a lesson's parameters before any work and return its device.

    A name that the lesson does not have is refused too, where papermill was given one; and a line
    says if the results cannot be saved.

    latent_size: at least 2, because the lessons draw maps. lr: over 0, if the lesson has one.
    counts: all others, whole numbers of at least 1.

    Raises: one ValueError that names every wrong parameter and what would be right.
    """
    checks = [
        (check_one_of, "data set", dataset, NAMES),
        (pick_device, device),
        (check_whole, "seed", seed, 0, 2**32 - 1),
        (check_whole, "latent_size", latent_size, 2),
        *((check_whole, name, count) for name, count in counts.items()),
    ]
    if lr is not None:
        checks.append((check_over_0, "lr", lr))
    wrong = _misspelt({"dataset", "device", "seed", "latent_size", "lr", *counts})
    for check, *arguments in checks:
        try:
            check(*arguments)
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("wrong parameters: " + "; ".join(wrong))
    folder = results_path("")
    if not os.access(next(f for f in (folder, *folder.parents) if f.exists()), os.W_OK):
        print(
            f"{folder} cannot be written: this lesson goes on without saving. "
            "Set VAE_LESSON_RESULTS to a folder that can be."
        )
    return pick_device(device)


def _misspelt(known: set[str]) -> list[str]:
    """Say which names papermill was given that are no parameters, each with the nearest that is.

    papermill puts them into a cell of their own, which begins with the comment "# Parameters".
    """
    history = getattr(get_ipython(), "history_manager", None)
    cells = history.input_hist_raw if history else []
    injected = "\n".join(cell for cell in cells if cell.startswith("# Parameters\n"))
    said = []
    for node in ast.parse(injected).body:
        for target in getattr(node, "targets", []):
            if target.id not in known:
                near = difflib.get_close_matches(target.id, known, 1, 0) or sorted(known)
                said.append(f"there is no parameter {target.id!r}: did you mean {near[0]!r}?")
    return said


def trained(
    filename: str, model: nn.Module, images: Images, epochs: int, **options
) -> tuple[nn.Module, History | None]:
    """Return (model, history): the one that an earlier lesson saved, or this one, trained now.

    The file in results/ is used if it is the model that this training would give, or one of more
    epochs; then there is no history. Otherwise `fit(model, images.train, epochs=epochs, **options)`
    runs and the result is saved for the next lesson. One line says which, and why.
    """
    path, defaults = results_path(filename), inspect.signature(fit).parameters
    names = inspect.signature(settings_of).parameters
    options = {"epochs": epochs, **options}
    wanted = {"kind": type(model).__name__, **model.config, "dataset": images.name}
    wanted |= settings_of(**{name: options.get(name, defaults[name].default) for name in names})
    try:
        saved, info = load_model(path, options.get("device"))
        info = {"kind": type(saved).__name__, **saved.config, **info}
        other = {name: info.get(name) for name in wanted if info.get(name) != wanted[name]}
        if (other.get("epochs") or 0) > epochs:
            del other["epochs"]
        if not other:
            made = f"{info['epochs']} epochs, seed {info['seed']}"
            print(f"Using {path.name}: {images.name}, {made}.")
            return saved, None
        differs = ", ".join(f"{name} {value}, not {wanted[name]}" for name, value in other.items())
        reason = f"{path.name} was made with {differs}"
    except FileNotFoundError:
        reason = f"there is no {path.name} yet"
    except ValueError as error:
        reason = str(error)
    print(f"Training now, because {reason}.")
    history = fit(model, images.train, **options)
    save(model, filename, images, history)
    return model, history


def save(model: nn.Module, filename: str, images: Images, history: History) -> None:
    """Save a trained model in results/, with all that it was trained with, for a later lesson."""
    info = {"dataset": images.name, **history.settings, "epochs": len(history)}
    if history.stopped is None:
        keep(filename, lambda part: save_model(model, part, **info))


def save_pictures(images: Tensor, filename: str, n_columns: int = 8) -> None:
    """Save images `(N, side·side)` in [0, 1] in results/, as one picture."""
    from torchvision.utils import save_image

    side = math.isqrt(images.shape[1])
    squares = images.view(-1, 1, side, side)
    keep(filename, lambda part: save_image(squares, part, nrow=n_columns))


def keep(filename: str, write: Callable[[Path], None]) -> None:
    """Have a result written into results/, whole or not at all; a lesson goes on without it."""
    path = results_path(filename)
    try:
        with whole(path) as part:
            write(part)
    except OSError as error:
        print(f"{path} was not saved: {error.strerror}. Is VAE_LESSON_RESULTS what you want?")


class Text(str):
    """A string that a notebook shows as it is, without quotes."""

    def __repr__(self) -> str:
        return str(self)


def check_band(dataset: str, neg_elbo: float, default_parameters: bool = True) -> Text:
    """Say whether a run's test −ELBO lies in the healthy band of its data set."""
    low, high = BANDS.get(dataset, (math.nan, math.nan))
    band = f"healthy band {low} to {high}"
    if dataset not in BANDS:
        place = f". '{dataset}' has no measured band to compare with."
    elif not math.isfinite(neg_elbo):
        place = f": the model is broken. The healthy band is {low} to {high}."
    elif not default_parameters:
        place = f". The band {low} to {high} is for the default parameters, which you changed."
    elif neg_elbo > high:
        place = f": over the {band}. Something is wrong in the model, the loss or the data."
    elif neg_elbo < low:
        place = f": under the {band}. Too good: are all pixels and all latent dimensions summed?"
    else:
        place = f": inside the {band}."
    return Text(f"−ELBO {neg_elbo:.2f} nats{place}")


def show_source(*functions: Callable):
    """Show the package's own source of these functions, so that the code read is the code run."""
    from IPython.display import Code

    sources = (textwrap.dedent(inspect.getsource(f)).rstrip() for f in functions)
    return Code("\n\n\n".join(sources), language="python")


class Table:
    """Rows under a header, shown as HTML in a notebook and as aligned text elsewhere."""

    def __init__(self, header: list[str], rows: list[list]) -> None:
        for row in rows:
            if len(row) != len(header):
                raise ValueError(f"a row has {len(row)} cells, the header {len(header)}: {row}")
        self.header = header
        self.rows = [[_cell(value) for value in row] for row in rows]
        columns = zip(header, *rows)  # text to the left, numbers to the right
        text = (all(isinstance(value, str) for value in column) for column in columns)
        self._sides = ["left" if of_text else "right" for of_text in text]

    def __repr__(self) -> str:
        columns = []
        for side, *cells in zip(self._sides, self.header, *self.rows):
            width = max(map(len, cells))
            columns.append([c.ljust(width) if side == "left" else c.rjust(width) for c in cells])
        return "\n".join("  ".join(line).rstrip() for line in zip(*columns))

    def _repr_html_(self) -> str:
        def line(tag: str, cells: list[str]) -> str:
            styles = [f'{tag} style="text-align:{side}"' for side in self._sides]
            pairs = zip(styles, map(html.escape, cells))
            return "<tr>" + "".join(f"<{style}>{cell}</{tag}>" for style, cell in pairs) + "</tr>"

        body = "".join(line("td", row) for row in self.rows)
        return f"<table><thead>{line('th', self.header)}</thead><tbody>{body}</tbody></table>"


def _cell(value) -> str:
    if isinstance(value, float):
        return f"{value:#.3g}" if abs(value) < 10 else f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def summary(lesson: str, numbers: dict[str, tuple[float, str]]) -> Table:
    """Return a lesson's closing table of {what: (number, unit)}, and save it as JSON in results/.

    The file, `<lesson>.json`, is what a headless run leaves for a teacher to read by program.
    """
    rows = [
        [name, value.item() if isinstance(value, torch.Tensor) else value, unit]
        for name, (value, unit) in numbers.items()
    ]
    plain = {
        name: {"value": value if math.isfinite(value) else None, "unit": unit}
        for name, value, unit in rows
    }
    text = json.dumps(plain, indent=1, ensure_ascii=False) + "\n"
    keep(f"{lesson}.json", lambda part: part.write_text(text, encoding="utf-8"))
    return Table(["what", "number", "unit"], rows)
