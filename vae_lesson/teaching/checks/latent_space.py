"""The checks on a latent space: the line between two codes, a traversal, sliders, a direction."""

import io
from collections.abc import Callable

import ipywidgets as widgets
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vae_lesson import latent
from vae_lesson.teaching.checks.verdict import Verdict, compare, draw, ours


@ours(latent.lerp)
def lerp(answer: Callable[[Tensor, Tensor, float], Tensor]) -> Verdict:
    """Check answer(z0, z1, t), the straight line from z0 at t = 0 to z1 at t = 1."""
    (z0, z1), t = draw((4,), (4,)), 0.3
    mistakes = {
        "the way from z1 to z0: at t = 0 you must be at z0": latent.lerp(z1, z0, t),
        "z0 + t·z1: at t = 1 that is z0 + z1, not z1": z0 + t * z1,
    }
    return compare(answer, (z0, z1, t), latent.lerp(z0, z1, t), mistakes)


@ours(latent.traversal)
def traversal(answer: Callable[[Tensor, int, Tensor], Tensor]) -> Verdict:
    """Check answer(z, j, values) -> `(n, L)`, copies of z `(L,)` with dimension j set to values."""
    (z, values), j = draw((4,), (3,)), 2
    right, axis, column = latent.traversal(z, j, values), torch.eye(4)[j], values[:, None]
    mistakes = {
        "the values added to what is there: set dimension j to them": z + column * axis,
        "every dimension set to the value: set only dimension j": column.expand(3, 4),
        "zeros in the other dimensions: keep what z has there": column * axis,
        "the last code n times: a code changed in a loop needs a clone": right[-1:].expand(3, 4),
    }
    return compare(answer, (z, j, values), right, mistakes)


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
        got = f"this holds {len(images)} and {len(moved)}"
        return Verdict(f"Not yet: return a widget that holds 1 Image and 3 FloatSliders, {got}.")
    starts, wanted = [slider.value for slider in moved], z[dimensions].tolist()
    if starts != wanted:
        why = "without min and max a FloatSlider goes from 0 to 100"
        return Verdict(f"Not yet: the sliders start at {starts}, z has {wanted} ({why}).")
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
    """Check answer(codes, has_it) -> mean code of those that have it less that of the others."""
    (codes,) = draw((7, 3))
    has_it = torch.tensor([True, False, True, False, False, False, True])
    mean, others = codes[has_it].mean(dim=0), codes[~has_it].mean(dim=0)
    right = mean - others
    from_all, unit = mean - codes.mean(dim=0), right / right.norm()
    mistakes = {
        "the opposite direction: from without to with": -right,
        "the mean code of those that have it: subtract that of the others": mean,
        "the difference from the mean of all, which contains the group itself": from_all,
        "a unit vector: keep its length, which is how far the two groups are apart": unit,
    }
    return compare(answer, (codes, has_it), right, mistakes)
