"""What makes a notebook a lesson: checked parameters, shown source, bands, tables, its results."""

import ast
import contextlib
import difflib
import html
import inspect
import json
import math
import os
import re
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from IPython import get_ipython
from IPython.display import Code
from torch import Tensor, nn

from vae_lesson import train
from vae_lesson.arguments import check_over_0, check_whole
from vae_lesson.data import Images, square_shape
from vae_lesson.running.machine import pick_device, prepare
from vae_lesson.running.saving import (
    check_kind,
    load_model,
    results_path,
    save_model,
    written_whole,
)
from vae_lesson.running.training import History
from vae_lesson.sources import MNIST_LIKE, load_images, own_path
from vae_lesson.teaching.plots import unsigned_zeros
from vae_lesson.words import N_, _, speak

# The −ELBO on the test images, one sample of z, in which a healthy run of the article's network
# and hyperparameters ends. MNIST: three seeds gave 105.39 to 105.89, the article's script 106.27.
# digits: four seeds gave 99.66 to 99.82. photos: lesson 11's network and 6 epochs, three seeds gave
# 13,089 to 13,140. A data set that was not measured is not in here.
BANDS = {"mnist": (104.5, 106.5), "digits": (98.5, 101.0), "photos": (12_950.0, 13_300.0)}


def begin(
    dataset: str,
    device: str,
    seed: int,
    language: str,
    latent_size: int,
    lr: float | None = None,
    own_pictures: bool = False,
    **counts: int,
) -> torch.device:
    """Begin a lesson: check its parameters before any work, prepare the machine, return the device.
    From here on the course speaks the lesson's language.

    What papermill was given is checked too: a name that the lesson does not have, a value that did
    not get here, a data set that cannot be had, for which another would be no answer. And a line
    says if the results cannot be saved. From here on the lesson shares the cores with other
    processes, see `machine.prepare`.

    latent_size: at least 2, because the lessons draw maps. lr: over 0, if the lesson has one.
    own_pictures: whether the data set is a folder or "photos", and not one of 28×28 greys.
    counts: all the rest, whole numbers of at least 1.

    Raises: one ValueError that names every wrong parameter and what would be right; OSError for a
    data set that papermill was given and that is neither on disk nor to be downloaded.
    """
    checks = [
        (_check_data_set, dataset, own_pictures),
        (pick_device, device),
        (check_whole, "seed", seed, 0, 2**32 - 1),
        (check_whole, "latent_size", latent_size, 2),
        *((check_whole, name, count) for name, count in counts.items()),
    ]
    values = {"dataset": dataset, "device": device, "seed": seed, "latent_size": latent_size}
    values |= counts | {"language": language}
    if lr is not None:
        checks.append((check_over_0, "lr", lr))
        values["lr"] = lr
    asked = _asked()
    wrong = _not_as_asked(asked, values)
    for check, *arguments in checks:
        try:
            check(*arguments)
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("wrong parameters: " + "; ".join(wrong))
    if "dataset" in asked and not own_pictures and dataset != "digits":
        load_images(dataset, fall_back=False)  # the lesson itself would go on with the digits
    if not speak(language):
        print(f"There are no words in {language!r} here: checks and explorers speak English.")
    folder = results_path("")
    if not os.access(next(f for f in (folder, *folder.parents) if f.exists()), os.W_OK):
        print(
            Text(
                "{folder} cannot be written, so nothing is saved: set VAE_LESSON_RESULTS.",
                folder=folder,
            )
        )
    prepare()
    return pick_device(device)


def _check_data_set(dataset: str, own_pictures: bool) -> None:
    if own_pictures and dataset != "photos":
        if dataset in MNIST_LIKE:
            raise ValueError(f"dataset must be 'photos' or the path of a folder, got {dataset!r}")
        own_path(dataset, ("photos",))
    elif not own_pictures and dataset not in MNIST_LIKE:
        names = ", ".join(MNIST_LIKE)
        raise ValueError(
            f"unknown data set {dataset!r}: choose one of {names} (this lesson needs 28×28 pixels "
            "in grey, lesson 11 takes a folder of pictures)"
        )


def _asked() -> dict[str, object]:
    """Return the parameters that papermill was given.

    It puts them into a cell of their own, which begins with the comment "# Parameters".
    """
    cells = getattr(get_ipython(), "user_ns", {}).get("In", [])
    injected = "\n".join(cell for cell in cells if cell.startswith("# Parameters\n"))
    asked = {}
    for name, value in re.findall(r"^(\w+) = (.*)", injected, re.M):
        asked[name] = ...
        with contextlib.suppress(ValueError, SyntaxError):  # float("nan"), refused elsewhere
            asked[name] = ast.literal_eval(value)
    return asked


def _not_as_asked(asked: dict[str, object], values: dict[str, object]) -> list[str]:
    """Say which names are no parameters, with the nearest that is, and which values are lost."""
    misspelt, lost = [], []
    for name, value in asked.items():
        if name not in values:
            near = difflib.get_close_matches(name, values, n=1, cutoff=0)[0]
            misspelt.append(f"there is no parameter {name!r}: did you mean {near!r}?")
        elif value not in (..., values[name]):
            lost.append(f"{name} is {values[name]!r}, but {value!r} was asked for")
    if lost:
        lost.append(
            'is the lesson\'s own cell of parameters without its tag "parameters", or was it run '
            "again after papermill's?"
        )
    return misspelt + lost


def trained(
    filename: str, model: nn.Module, images: Images, fit: Callable = train.fit, **options
) -> tuple[nn.Module, History | None]:
    """Return (model, history): the one that an earlier lesson saved, or this one, trained now.

    The file in results/ is used if it is the model that this training would give, or one of more
    epochs; then there is no history. Otherwise fit(model, images.train, **options) runs and the
    result is saved for the next lesson. One line says which, and why. fit: `train.fit`, or that
    with some of its arguments given.
    """
    check_kind(model)
    path, names = results_path(filename), inspect.signature(train.settings_of).parameters
    call = inspect.signature(fit).bind(model, images.train, **options)
    call.apply_defaults()
    wanted = {"kind": type(model).__name__, **model.config, "dataset": images.name}
    wanted |= train.settings_of(**{name: call.arguments[name] for name in names})
    try:
        saved, info = load_model(path, call.arguments["device"])
        info = {"kind": type(saved).__name__, **saved.config, **info}
        wanted["epochs"] = max(wanted["epochs"], info.get("epochs") or 0)
        other = [name for name in wanted if info.get(name) != wanted[name]]
        if not other:
            made = {"file": path.name, "dataset": images.name, "seed": info["seed"]}
            made["n_epochs"] = info["epochs"]
            print(Text("Using {file}: {dataset}, {n_epochs} epochs, seed {seed}.", **made))
            return saved, None
        differs = _(", ").join(
            Text("{name} {got}, not {wanted}", name=name, got=info.get(name), wanted=wanted[name])
            for name in other
        )
        reason = Text("{file} was made with {differs}", file=path.name, differs=differs)
    except FileNotFoundError:
        reason = Text("there is no {file} yet", file=path.name)
    except ValueError as error:
        reason = str(error)
    print(Text("Training now, because {reason}.", reason=reason))
    history = fit(model, images.train, **options)
    save(model, filename, images, history)
    return model, history


def save(
    model: nn.Module, filename: str, images: Images, history: History, epochs: int | None = None
) -> None:
    """Save a trained model in results/, with all that it was trained with, for a later lesson.

    epochs: of a loop of the learner's own, which else does what the history's training did.
    """
    info = {"dataset": images.name, **history.settings, "epochs": epochs or len(history)}
    if history.stopped is None:
        write_result(filename, lambda part: save_model(model, part, **info))


def save_pictures(images: Tensor, filename: str) -> None:
    """Save flat images `(N, pixels)` in [0, 1] in results/, as one picture of eight columns."""
    from torchvision.utils import save_image

    pictures = images.view(-1, *square_shape(images.shape[1]))
    write_result(filename, lambda part: save_image(pictures, part))


def write_result(filename: str, write: Callable[[Path], None]) -> None:
    """Have a result written into results/, whole or not at all; a lesson goes on without it."""
    path = results_path(filename)
    try:
        with written_whole(path) as part:
            write(part)
    except OSError as error:
        values = {"file": path, "error": error.strerror}
        print(Text("{file} was not saved: {error}. Is VAE_LESSON_RESULTS what you want?", **values))


def yours(check: Callable, mine: Callable) -> Callable:
    """Return the learner's function if the check finds it right, else the package's; say which."""
    verdict = check(mine)
    used, ours = N_("{verdict} It is used from here on."), N_("{verdict} Until then ours is used.")
    print(Text(used if verdict.ok else ours, verdict=verdict))
    return mine if verdict.ok else check.ours


def is_yours(function: Callable) -> bool:
    """Say whether `yours` returned the learner's own function: ours are of the package."""
    return not function.__module__.startswith("vae_lesson.")


def compare_weights(mine: Iterable[Tensor], ours: Iterable[Tensor], made_by: list) -> "Text":
    """Say how far two trained networks' weights are apart, if the first is the learner's own work.

    made_by: the functions that it was made by, as `yours` returned them.
    """
    if ours_used := [each.__name__ for each in made_by if not is_yours(each)]:
        names = ", ".join(ours_used)
        return Text("Nothing of yours to compare yet: ours stands in for {names}.", names=names)
    apart = max((a - b).abs().max().item() for a, b in zip(mine, ours, strict=True))
    if apart == 0:
        return Text("Your weights and the package's are the same, bit for bit.")
    return Text(
        "Your weights and the package's differ by at most {apart:.1g}. Your functions have passed "
        "their checks: then it is rounding that has grown step by step, as of sums in another "
        "order, of an Adam without fused=True, or on a GPU.",
        apart=apart,
    )


def answer(guess, measured: float, what: str) -> "Text":
    """Say what was measured beside what the learner had guessed; `...` is no guess yet."""
    measured = _cell(measured if isinstance(measured, int) else float(measured))
    text = Text("{what}: {measured}.", what=what, measured=measured)
    if guess is ... or guess is None:
        return text
    try:
        number = math.nan if isinstance(guess, bool) else float(guess)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        number = math.nan
    if math.isfinite(number):
        return Text("{answer} You guessed {number:.7g}.", answer=text, number=number)
    return Text(
        "{answer} Your guess {guess!r} is no number: write it like 0.3, with a point.",
        answer=text,
        guess=guess,
    )


class Text(str):
    """A string that a notebook shows as it is, without quotes: in the language of the lesson, with
    the values in place of its braces."""

    def __new__(cls, text: str, **values: object) -> "Text":
        said = _(text)
        return super().__new__(cls, said.format(**values) if values else said)

    def __repr__(self) -> str:
        return str(self)


def check_band(dataset: str, neg_elbo: float, default_parameters: bool = True) -> Text:
    """Say whether a run's test −ELBO lies in the healthy band of its data set."""
    low, high = BANDS.get(dataset, (math.nan, math.nan))
    if dataset not in BANDS:
        said = N_("−ELBO {neg_elbo:.2f} nats. '{dataset}' has no measured band to compare with.")
    elif not math.isfinite(neg_elbo):
        said = N_(
            "−ELBO {neg_elbo:.2f} nats: the model is broken. The healthy band is {low} to {high}."
        )
    elif not default_parameters:
        said = N_(
            "−ELBO {neg_elbo:.2f} nats. The band {low} to {high} is for the default parameters, "
            "which you changed."
        )
    elif neg_elbo > high:
        said = N_(
            "−ELBO {neg_elbo:.2f} nats: over the healthy band {low} to {high}. Something is wrong "
            "in the model, the loss or the data."
        )
    elif neg_elbo < low:
        said = N_(
            "−ELBO {neg_elbo:.2f} nats: under the healthy band {low} to {high}. Too good: are all "
            "pixels and all latent dimensions summed?"
        )
    else:
        said = N_("−ELBO {neg_elbo:.2f} nats: inside the healthy band {low} to {high}.")
    return Text(said, neg_elbo=neg_elbo, dataset=dataset, low=low, high=high)


class Source(Code):
    """Python that looks as a notebook's other code does, in a page made of it too."""

    def _repr_html_(self) -> str:
        # nbconvert's page would show it in the letters of its text.
        style = "font-family: var(--jp-code-font-family, monospace)"
        return super()._repr_html_().replace("<pre>", f'<pre style="{style}">', 1)


def show_source(*functions: Callable) -> Source:
    """Show the package's own source of these functions: the code that is read is the code run."""
    sources = (textwrap.dedent(inspect.getsource(function)).rstrip() for function in functions)
    return Source("\n\n\n".join(sources), language="python")


class Table:
    """Rows under a header, shown as HTML in a notebook and as aligned text elsewhere.

    rows: lists of cells; or {first cell: the other, or a tuple of the others}.
    """

    def __init__(self, header: list[str], rows: list[list] | dict) -> None:
        if isinstance(rows, dict):
            rows = [[k, *(v if isinstance(v, tuple) else [v])] for k, v in rows.items()]
        self.header = [unsigned_zeros(name) for name in header]
        self.rows = [[_cell(value) for value in row] for row in rows]
        columns = zip(header, *rows, strict=True)  # text to the left, numbers to the right
        text = (all(isinstance(value, str) for value in column) for column in columns)
        self._sides = ["left" if of_text else "right" for of_text in text]

    def __repr__(self) -> str:
        columns = []
        for side, *cells in zip(self._sides, self.header, *self.rows):
            width = max(map(len, cells))
            columns.append([c.ljust(width) if side == "left" else c.rjust(width) for c in cells])
        return "\n".join("  ".join(line).rstrip() for line in zip(*columns))

    def _repr_html_(self) -> str:
        lines = []
        for tag, row in [("th", self.header), *(("td", row) for row in self.rows)]:
            cells = zip(self._sides, map(html.escape, row))
            lines.append("".join(f'<{tag} style="text-align:{s}">{c}</{tag}>' for s, c in cells))
        return "<table><tr>" + "</tr><tr>".join(lines) + "</tr></table>"


def _cell(value) -> str:
    if isinstance(value, float):
        return f"{value:z#.3g}" if abs(value) < 10 else f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else unsigned_zeros(value)


def summary(
    lesson: str,
    dataset: str,
    numbers: dict[str, tuple[float, str]],
    exercises: Iterable[Callable] = (),
) -> Table:
    """Return a lesson's closing table of {what: (number, unit)}, and save it as JSON in results/.

    The file, `<lesson>.json`, is what a headless run leaves for a teacher to read by program. Its
    first entry is the data set that the numbers are of. exercises: what `yours` returned for each:
    a line counts those that are the learner's.
    """
    rows, plain = [], {"dataset": dataset}
    for name, (value, unit) in numbers.items():
        value = value.item() if isinstance(value, Tensor) else value
        rows.append([name, value, unit])
        plain[name] = {"value": value if math.isfinite(value) else None, "unit": unit}
    text = json.dumps(plain, indent=1, ensure_ascii=False) + "\n"
    write_result(f"{lesson}.json", lambda part: part.write_text(text, encoding="utf-8"))
    if exercises := list(exercises):
        n_yours = sum(map(is_yours, exercises))
        counts = {"n_yours": n_yours, "n_exercises": len(exercises)}
        print(Text("Exercises: {n_yours} of {n_exercises} yours, the rest ours.", **counts))
    return Table([_("what"), _("number"), _("unit")], rows)
