"""The checks on a latent space: sliders, a direction with a meaning, and its gain."""

import io
from collections.abc import Callable

import ipywidgets as widgets
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vae_lesson import latent
from vae_lesson.teaching.checks.verdict import Verdict, compare, draw, ours


def our_sliders(decode: Callable, z: Tensor, dimensions: list[int]) -> widgets.VBox:
    """Return z decoded above a slider for each dimension, from -3 to 3, that moves it."""
    image = widgets.Image(width=224)
    ends = {"min": -3, "max": 3}
    own = [widgets.FloatSlider(z[j].item(), description=f"z[{j}]", **ends) for j in dimensions]

    def show(_=None) -> None:
        code, buffer = z.clone(), io.BytesIO()
        for j, slider in zip(dimensions, own):
            code[j] = slider.value
        pixels = (255 * decode(code[None])).byte().view(28, 28).cpu().numpy()
        Image.fromarray(pixels).resize((224, 224), Image.Resampling.NEAREST).save(buffer, "PNG")
        image.value = buffer.getvalue()

    for slider in own:
        slider.observe(show, "value")
    show()
    return widgets.VBox([image, *own])


@ours(our_sliders)
def sliders(answer: Callable[[Callable, Tensor, list[int]], widgets.Widget]) -> Verdict:
    """Check answer(decode, z, dimensions), a widget with an image of z decoded and a slider for
    each dimension. It is judged by the codes that it decodes, at first and at each move."""
    z, dimensions = torch.tensor([-1.5, 0.5, 2.5, -0.75, -2.0, 1.0]), [4, 1, 2]
    a, b, c = values = [1.75, -0.25, 2.0]  # where the sliders go, one after the other

    def codes(*changes: dict[int, float]) -> Tensor:
        return torch.tensor([[new.get(j, v) for j, v in enumerate(z.tolist())] for new in changes])

    right = codes({}, {4: a}, {4: a, 1: b}, {4: a, 1: b, 2: c})
    unheard = [right * torch.tensor([[1], [0], [0], [last]]) for last in (0, 1)]
    late = [codes({}, {2: a}, {2: b}, {2: c}), codes({}, {}, {}, {2: c})]
    alone = codes({}, {4: a}, {1: b}, {2: c})
    by_place = codes({0: -2.0}, {0: a}, {0: a, 1: b}, {0: a, 1: b, 2: c})
    mistakes = {
        "a slider that nobody hears: let each of them `observe`": unheard,
        "every slider on the last dimension: functions made in a loop see the loop's last j": late,
        "the slider that moved, alone: the others keep their numbers": alone,
        "dimensions 0, 1 and 2: the first slider is for dimensions[0]": by_place,
        "zeros in the other dimensions: keep what z has there": right * (right[-1] != z),
    }
    opened: list[widgets.Widget] = []
    widgets.Widget.on_widget_constructed(opened.append)
    try:
        return compare(lambda: _decoded(answer, z, dimensions, values), (), right, mistakes)
    finally:
        widgets.Widget.on_widget_constructed(None)
        for widget in opened:  # ipywidgets keeps what nobody closes
            widget.close()


def _decoded(answer: Callable, z: Tensor, dimensions: list[int], values: list[float]):
    """Return the code decoded at first and at each move of a slider to its value, `(1 + n, L)`,
    zeros where there was none; or a Verdict on the rest of the widget, None if there is none."""
    seen, given, (weights,) = [], z.clone(), draw((len(z), 784))

    def decode(code: Tensor) -> Tensor:
        seen.append(code.reshape(-1, len(z))[-1].clone())
        return torch.sigmoid(code @ weights)

    made = answer(decode, given, dimensions)
    if made is None:
        return None
    images, moved = (_inside(made, kind) for kind in (widgets.Image, widgets.FloatSlider))
    if (len(images), len(moved)) != (1, len(dimensions)):
        return Verdict(
            "Not yet: return a widget that holds 1 Image and 3 FloatSliders, this holds {n_images} "
            "and {n_sliders}.",
            n_images=len(images),
            n_sliders=len(moved),
        )
    starts, wanted = [slider.value for slider in moved], z[dimensions].tolist()
    if starts != wanted:
        return Verdict(
            "Not yet: the sliders start at {got}, z has {wanted} (without min and max a "
            "FloatSlider goes from 0 to 100).",
            got=starts,
            wanted=wanted,
        )
    if not seen or not images[0].value:
        return Verdict("Not yet: there is no picture before the first move.")
    found = [seen[-1]]
    for slider, value in zip(moved, values):
        before = len(seen)
        slider.value = value
        found.append(seen[-1] if len(seen) > before else 0 * z)
    picture = Image.open(io.BytesIO(images[0].value)).convert("L")
    levels = np.float32(picture.resize((28, 28), Image.Resampling.BOX)).ravel()
    if levels.max() <= 1:
        return Verdict("Not yet: the picture is black: in a PNG white is 255, not 1.")
    if np.abs(levels - 255 * torch.sigmoid(seen[-1] @ weights).numpy()).max() > 1:
        return Verdict("Not yet: the image does not show the code decoded last.")
    before, moved[0].step = len(seen), 0.03
    if len(seen) > before:
        return Verdict('Not yet: you hear more than moves, also a new step: `observe(…, "value")`.')
    if not torch.equal(given, z):
        return Verdict("Not yet: z itself is changed, and the way back is lost: clone it.")
    return torch.stack(found)


def _inside(widget: object, kind: type) -> list:
    """Return all widgets of a kind in a widget, in order."""
    if isinstance(widget, kind):
        return [widget]
    return [found for child in getattr(widget, "children", ()) for found in _inside(child, kind)]


@ours(latent.attribute_direction)
def attribute_direction(answer: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(codes, a) -> `(L,)`, how far the mean code moves when a grows by one."""
    # So many that N and N − 1 in a variance are the same.
    noise, rest = draw((30_000, 3), (30_000,))
    codes = 1 + noise @ torch.tensor([[1.0, 0.6, 0], [0, 1.5, -0.8], [0, 0, 0.7]])
    a = 3 + codes @ torch.tensor([1.2, -0.9, 0.5]) + rest
    z, left = codes - codes.mean(dim=0), a - a.mean()
    cov, var = left @ z / len(z), left.square().mean()
    right, high = cov / var, left > 0
    mistakes = {
        "the opposite direction: from little to much": -right,
        "cov(z, a) alone: divide by the variance of a": cov,
        "cov over the standard deviation of a: divide by its square": cov / var.sqrt(),
        "cov over the variance of z: divide by that of a": cov / z.square().mean(dim=0),
        "the correlation: divide by the variance of a": cov / (var * z.square().mean(dim=0)).sqrt(),
        "the weights that predict a: what moves here is z": torch.linalg.solve(z.T @ z, left @ z),
        "means left in: take a's from a, in cov and in var": [
            a @ codes / len(z) / var,
            a @ codes / a.square().sum(),
            cov / a.square().mean(),
        ],
        "a mean code less another: what is asked is a slope": [
            z[high].mean(dim=0) - z[~high].mean(dim=0),
            codes[high].mean(dim=0) - codes.mean(dim=0),
        ],
        "a unit vector: keep the length, which is the slope": right / right.norm(),
    }
    return compare(answer, (codes, a), right, mistakes)


def our_gain(decode: Callable, measure: Callable, z: Tensor, direction: Tensor, step: float):
    """Return what the median code gets of a property, over what it was asked for: `()`."""
    less, more = (measure(decode(z + s * direction)) for s in (-step, step))
    return ((more - less) / (2 * step)).median()


@ours(our_gain)
def gain(answer: Callable[[Callable, Callable, Tensor, Tensor, float], Tensor]) -> Verdict:
    """Check answer(decode, measure, z, direction, step) -> got over asked for, of the median code
    when it is moved from a step less to a step more."""
    z, weights = draw((7, 3), (3, 9))
    direction, step = torch.tensor([0.6, -1.0, 0.5]), 1.5

    def decode(z: Tensor) -> Tensor:
        return torch.sigmoid(2 * z @ weights)

    def measure(images: Tensor) -> Tensor:
        return images @ torch.linspace(-1, 3, 9)

    def at(steps: float, along: Tensor = direction) -> Tensor:
        return measure(decode(z + steps * along))

    less, here, more = at(-step), at(0), at(step)
    got, asked, unit = more - less, 2 * step, direction / direction.norm()
    right = (got / asked).median()
    mistakes = {
        "one number a code: take their median": got / asked,
        "the mean over the codes: take the median": (got / asked).mean(),
        "two medians: first the difference of each code, then its median": (
            (more.median() - less.median()) / asked
        ),
        "what was got: divide it by what was asked for": got.median(),
        "half of what was asked for: from a step less to a step more are two": [
            (got / step).median(),
            (got / 2).median(),
        ],
        "one side only: go a step less and a step more": [
            (side / n).median() for side in (more - here, here - less) for n in (step, asked)
        ],
        "less and more the wrong way round": (-got / asked).median(),
        "a move without the step: go `step` times along the direction": [
            ((at(1) - at(-1)) / n).median() for n in (asked, 2)
        ],
        "a move along a unit vector: the direction's length counts": (
            (at(step, unit) - at(-step, unit)) / asked
        ).median(),
    }
    return compare(answer, (decode, measure, z, direction, step), right, mistakes)
