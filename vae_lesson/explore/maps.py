"""A map of a 2-D latent space: click, drag or use the arrow keys, and see what decodes there."""

import io

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor, nn

from vae_lesson import words
from vae_lesson.data import Images
from vae_lesson.explore.decoder import Decoder
from vae_lesson.explore.explorer import Explorer
from vae_lesson.explore.pictures import PICTURE, beside, captioned, enlarged
from vae_lesson.fonts import _
from vae_lesson.words import N_

PLANE = 360  # pixels, the side of a plane
VIEWS = {
    "codes": N_("codes: where the test images lie"),
    "decoded": N_("decoded: what each place decodes to"),
}


class MapExplorer(Explorer):
    """A plane for each decoder, all with the same point z on them, and what each decodes there.

    codes: {name: codes `(N, 2)` of the test images}, which the planes show at first.
    """

    _title = N_("Latent map")

    def __init__(
        self,
        decoders: dict[str, Decoder],
        codes: dict[str, Tensor],
        images: Images,
        z: Tensor | None = None,
    ) -> None:
        low, high = _reach(codes)
        drawn = [
            _codes_drawn(each, images, low, high, in_z=decoders[name].units is None)
            for name, each in codes.items()
        ]
        views = {name: words._(text) for name, text in VIEWS.items()}
        plane = {"low": low, "high": high, "views": views, "backgrounds": drawn}
        super().__init__(decoders, z, kind="map", **plane)

    def _still(self) -> np.ndarray:
        low, high, backgrounds = (self.state[name] for name in ("low", "high", "backgrounds"))
        x, y = PLANE * np.subtract(self.z, low) / np.subtract(high, low)
        parts, side = [], PICTURE // len(self._decoded)
        for name, background, (image,) in zip(self._decoders, backgrounds, self._decoded):
            plane = Image.new("RGB", (PLANE, PLANE), "white")
            codes = Image.open(io.BytesIO(background)).resize(plane.size, Image.Resampling.BOX)
            plane.paste(codes, mask=codes)
            ImageDraw.Draw(plane).circle((x, PLANE - y), 7, "#ffd400", "black", width=2)
            parts.append(captioned(name, beside(np.asarray(plane), enlarged(image, side))))
        return beside(*parts)

    def _words(self) -> str:
        return _("where the test images lie, and {shown}").format(shown=super()._words())


def latent_map(model: nn.Module, images: Images, z: Tensor | None = None) -> MapExplorer:
    """Return a map of a 2-D latent space, on which a click or a drag decodes that point.

    It shows the codes of the test images, coloured by class, over the prior's 1σ and 2σ circles, or
    what each place decodes to. It reaches over ±3, and further where codes do.

    Raises: ValueError if the codes have not two dimensions.
    """
    size = getattr(model, "latent_size", None)
    if size != 2:
        raise ValueError(
            f"a map needs a model with latent_size 2, got {size}: use explore.latent_sliders"
        )
    decoder = Decoder(model)
    codes, _ = decoder.encode(images.test)
    return MapExplorer({"": decoder}, {"": codes}, images, z)


def _reach(codes: dict[str, Tensor]) -> tuple[list[float], list[float]]:
    """Return the corners (low, high) of a square plane that has ±3 and nearly all codes in it."""
    every = torch.cat([*codes.values()]).cpu()
    # The outermost 1 in 500 would make the rest small.
    first = torch.quantile(every, 0.002, dim=0).clamp_max(-3)
    last = torch.quantile(every, 0.998, dim=0).clamp_min(3)
    # Square, so that the prior's circles are circles.
    middle, half = (first + last) / 2, (last - first).max() / 2
    return (middle - half).tolist(), (middle + half).tolist()


def _codes_drawn(
    points: Tensor, images: Images, low: list[float], high: list[float], in_z: bool
) -> bytes:
    """Return a PNG of 2-D codes coloured by class over the prior's 1σ and 2σ circles, edge to edge,
    and clear where nothing is drawn: the page may be dark.

    in_z: False if they are counted in standard deviations of the codes, where N(0, I) is not."""
    points, labels = points.cpu().numpy(), images.test_labels.cpu().numpy()
    figure = Figure(figsize=(4, 4))
    ax = figure.add_axes((0, 0, 1, 1))
    colours = {"cmap": "tab10", "vmin": 0, "vmax": 9}
    ax.scatter(*points.T, c=labels % 10, s=4, alpha=0.5, lw=0, **colours)
    initials = [name[:1] for name in images.class_names]
    apart = len({*initials}) == len(initials) and "".join(initials).isalnum()
    for label in np.unique(labels) if apart else ():
        if (initial := initials[label]).isascii():  # some as letters or digits, for grey
            some = points[labels == label][:50]
            as_name = {"marker": f"${initial}$", "s": 24, "lw": 0.3}
            ax.scatter(*some.T, c=np.full(len(some), label % 10), **as_name, **colours)
    grey, angle = {"color": "#808080", "clip_on": True}, np.linspace(0, 2 * np.pi, 200)
    for radius in (1, 2) if in_z else ():
        ax.plot(radius * np.cos(angle), radius * np.sin(angle), "--", lw=1.5, **grey)
    taken, size = [np.full(2, np.inf)], 0.045 * (high[0] - low[0])
    for label in np.unique(labels):
        place = np.median(points[labels == label], axis=0)
        while np.abs(place - taken).max(axis=1).min() < size:
            place[1] += size / 4  # on its own
        taken.append(place)
        white = {"fc": (1, 1, 1, 0.8), "ec": "none", "pad": 1}
        ax.text(*place, images.class_names[label], ha="center", va="center", bbox=white)
    for value in ax.xaxis.get_major_locator().tick_values(low[0], high[0])[1:-1]:
        ax.axvline(value, alpha=0.3, lw=0.8, **grey)
        ax.text(value, low[1], f" {value:g}".replace("-", "−"), va="bottom", **grey)
    for value in ax.yaxis.get_major_locator().tick_values(low[1], high[1])[1:-1]:
        ax.axhline(value, alpha=0.3, lw=0.8, **grey)
        if value - low[1] > size:  # not on the numbers along the bottom
            ax.text(low[0], value, f" {value:g}".replace("-", "−"), va="bottom", **grey)
    unit = "{axis}" if in_z else _("{axis}, in σ of its codes")
    right, up = (unit.format(axis=axis) for axis in ("z₁", "z₂"))
    ax.text(0.98, 0.06, f"{right} →", ha="right", transform=ax.transAxes, weight="bold", **grey)
    ax.text(0.1, 0.95, f"{up} ↑", transform=ax.transAxes, weight="bold", **grey)
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    ax.axis("off")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=2 * PLANE / figure.get_figwidth(), transparent=True)
    return buffer.getvalue()
