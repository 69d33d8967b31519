"""What makes a notebook a lesson: checked parameters, shown source, bands, a closing table."""

import html
import inspect
import json
import math
import textwrap
from collections.abc import Callable

import torch
from torch import nn

from vae_lesson.arguments import check_one_of, check_over_0, check_whole
from vae_lesson.data import Images
from vae_lesson.running.devices import pick_device
from vae_lesson.running.run import History
from vae_lesson.running.saving import load_model, results_path, save_model
from vae_lesson.sources import NAMES
from vae_lesson.train import fit

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
    wrong = []
    for check, *arguments in checks:
        try:
            check(*arguments)
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("wrong parameters: " + "; ".join(wrong))
    return pick_device(device)


def trained(
    filename: str, model: nn.Module, images: Images, epochs: int, **options
) -> tuple[nn.Module, History | None]:
    """Return (model, history): the one that an earlier lesson saved, or this one, trained now.

    The file in results/ is used if it is of the same kind, configuration, data set and seed and
    had at least as many epochs; then there is no history. Otherwise `fit(model, images.train,
    epochs=epochs, **options)` runs and the result is saved for the next lesson, unless it was
    interrupted. One line says which it was.
    """
    path = results_path(filename)
    try:
        saved, info = load_model(path, options.get("device"))
        found = (type(saved), saved.config, info.get("dataset"), info.get("seed"))
        wanted = (type(model), model.config, images.name, options.get("seed", 0))
        if found == wanted and info.get("epochs", 0) >= epochs:
            print(
                f"Using {path.name}: {images.name}, {info['epochs']} epochs, seed {info['seed']}."
            )
            return saved, None
        reason = f"{path.name} is of another data set, size or seed, or had fewer epochs"
    except FileNotFoundError:
        reason = f"there is no {path.name} yet"
    except ValueError as error:
        reason = str(error)
    print(f"Training now, because {reason}.")
    history = fit(model, images.train, epochs=epochs, **options)
    if history.stopped is None:
        seed = options.get("seed", 0)
        save_model(model, path, dataset=images.name, epochs=epochs, seed=seed)
    return model, history


class Text(str):
    """A string that a notebook shows as it is, without quotes."""

    def __repr__(self) -> str:
        return str(self)


def check_band(dataset: str, neg_elbo: float, default_parameters: bool = True) -> Text:
    """Say whether a run's test −ELBO lies in the healthy band of its data set."""
    said = f"−ELBO {neg_elbo:.2f} nats"
    if dataset not in BANDS:
        return Text(f"{said}. '{dataset}' has no measured band to compare with.")
    low, high = BANDS[dataset]
    if not math.isfinite(neg_elbo):
        return Text(f"{said}: the model is broken. The healthy band is {low} to {high}.")
    if not default_parameters:
        band = f"The band {low} to {high} is for the default parameters, which you changed."
        return Text(f"{said}. {band}")
    if neg_elbo > high:
        place, cause = "over", "Something is wrong in the model, the loss or the data."
    elif neg_elbo < low:
        place, cause = "under", "Too good: are all pixels and all latent dimensions summed?"
    else:
        return Text(f"{said}: inside the healthy band {low} to {high}.")
    return Text(f"{said}: {place} the healthy band {low} to {high}. {cause}")


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
        columns = zip(*rows) if rows else [[]] * len(header)
        self._left = [all(isinstance(value, str) for value in column) for column in columns]

    def __repr__(self) -> str:
        lines = [self.header, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if left else cell.rjust(width)
                for cell, width, left in zip(line, widths, self._left)
            ).rstrip()
            for line in lines
        )

    def _repr_html_(self) -> str:
        def line(cells: list[str], tag: str) -> str:
            sides = ["left" if left else "right" for left in self._left]
            return "".join(
                f'<{tag} style="text-align:{side}">{html.escape(cell)}</{tag}>'
                for cell, side in zip(cells, sides)
            )

        body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in self.rows)
        return (
            f"<table><thead><tr>{line(self.header, 'th')}</tr></thead><tbody>{body}</tbody></table>"
        )


def _cell(value) -> str:
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        return f"{value:#.3g}" if abs(value) < 10 else f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def summary(lesson: str, numbers: dict[str, tuple[float, str]]) -> Table:
    """Return a lesson's closing table of {what: (number, unit)}, and save it as JSON in results/.

    The file, `<lesson>.json`, is what a headless run leaves for a teacher to read by program.
    """
    numbers = {
        name: (value.item() if isinstance(value, torch.Tensor) else value, unit)
        for name, (value, unit) in numbers.items()
    }
    plain = {
        name: {"value": value if math.isfinite(value) else None, "unit": unit}
        for name, (value, unit) in numbers.items()
    }
    text = json.dumps(plain, indent=1, ensure_ascii=False) + "\n"
    results_path(f"{lesson}.json").write_text(text, encoding="utf-8")
    return Table(
        ["what", "number", "unit"],
        [[name, value, unit] for name, (value, unit) in numbers.items()],
    )
