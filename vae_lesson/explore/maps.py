"""A map of a 2-D latent space: click, drag or use the arrow keys, and see what decodes there."""

import io

import ipywidgets as widgets
import numpy as np
import torch
from torch import Tensor, nn

from vae_lesson import evaluate, latent
from vae_lesson.data import Images
from vae_lesson.explore.base import Decoder, Explorer, column, row
from vae_lesson.explore.parts import PICTURE, Plane, Sheet, png
from vae_lesson.teaching import plots

TILES = 16  # decoded images along a side of the manifold
VIEWS = {"codes": "the test images' codes", "decoded": "what each place decodes to"}


class MapExplorer(Explorer):
    """A plane for each decoder, all with the same point z on them, and what each decodes there.

    codes: {name: codes `(N, 2)` of the test images}, or nothing; `view` switches between these and
    the decoded manifold.
    """

    def __init__(
        self,
        decoders: dict[str, Decoder],
        codes: dict[str, Tensor],
        images: Images | None,
        z: Tensor | None = None,
    ) -> None:
        super().__init__(decoders, z)
        size = 400 if len(decoders) == 1 else 320
        how = ": click, drag, or press the arrow keys (with Shift in larger steps)"
        low, high = _reach(codes)
        self.planes = [
            Plane(low=low, high=high, size=size, label=f"Latent map {name}".strip() + how)
            for name in decoders
        ]
        for plane in self.planes:
            self._on(plane, "point", lambda plane=plane: self._follow(plane))
        self._codes, self._images = codes, images
        self._backgrounds = {}  # what has been drawn: (name, view) -> PNG
        views = VIEWS if codes else {"decoded": VIEWS["decoded"]}
        self.view = self._switch(views, self._show_view)
        self.view.layout.display = None if codes else "none"
        self._show_view()
        self._open(self._layout())

    def _layout(self) -> widgets.Widget:
        buttons = row(
            self.view,
            self._button("Random draw", "Go to a random code z ~ N(0, I)", self.draw),
            self._button("Reset", "Go back to the code it started from", self.reset),
            align_items="center",
        )
        fixed = {"flex": "0 0 auto", "margin": "0 16px 0 0"}
        if len(self.planes) == 1:
            right = column(self._pictures[0], buttons, **fixed)
            return row(column(self.planes[0], **fixed), right, align_items="flex-start")
        models = [
            column(widgets.HTML(f"<b>{name}</b>"), plane, picture, **fixed)
            for name, plane, picture in zip(self._decoders, self.planes, self._pictures)
        ]
        return column(row(*models), buttons)

    def draw(self) -> None:
        """Go to a random code z ~ N(0, I)."""
        self.z = torch.randn(2).numpy()

    def _follow(self, plane: Plane) -> None:
        if not np.allclose(plane.point, self.z, atol=1e-6):  # float32 comes back as it went
            self.z = np.float32(plane.point)

    def _show_z(self, change) -> None:
        for plane in self.planes:
            if not np.allclose(plane.point, self.z, atol=1e-6):
                plane.point = self.z.tolist()
        super()._show_z(change)

    def _show_view(self) -> None:
        draw = self._codes_drawn if self.view.value == "codes" else self._manifold
        for name, plane in zip(self._decoders, self.planes):
            key = name, self.view.value
            if key not in self._backgrounds:
                self._backgrounds[key] = draw(name, plane)
            plane.background = self._backgrounds[key]

    def _codes_drawn(self, name: str, plane: Plane) -> bytes:
        labels, class_names = self._images.test_labels, self._images.class_names
        figure = plots.plane(self._codes[name], labels, class_names, plane.low, plane.high)
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=2 * plane.size / figure.get_figwidth())
        return buffer.getvalue()

    def _manifold(self, name: str, plane: Plane) -> bytes:
        grid = latent.box_grid(torch.tensor(plane.low), torch.tensor(plane.high), TILES)
        tiles = torch.from_numpy(self._decoders[name].images(grid.numpy()))
        return png((255 * plots.tile(tiles, TILES)).astype(np.uint8))

    def _twin(self) -> np.ndarray:
        """Return each plane with its point, and what decodes there."""
        gap, top = 14, 22 if len(self.planes) > 1 else 0
        side = PICTURE if top else self.planes[0].size
        each = side + PICTURE + 2 * gap
        sheet = Sheet(each * len(self.planes), side + top)
        for i, (name, plane, image) in enumerate(zip(self._decoders, self.planes, self._decoded())):
            left = i * each
            sheet.text(name, left, 2)
            sheet.png(plane.background, left, top, side)
            low, high = np.array(plane.low), np.array(plane.high)
            x, y = (np.array(plane.point) - low) / (high - low) * side
            sheet.cross(left + x, top + side - y)
            sheet.picture(image, left + side + gap, top, PICTURE)
        return sheet.array()


def latent_map(
    model: nn.Module, images: Images | None = None, z: Tensor | None = None
) -> MapExplorer:
    """Return a map of a 2-D latent space, on which a click or a drag decodes that point.

    It shows the codes of the test images, coloured by class, over the prior's 1σ and 2σ circles, or
    the decoded manifold; without `images` only the latter. It reaches over ±3, and further where
    codes do. model: of this course, or any function from codes `(n, 2)` to square images.

    Raises: ValueError if the codes have not two dimensions.
    """
    decoder = Decoder(model, 2)
    if decoder.latent_size != 2:
        raise ValueError(
            f"a map needs codes of 2 numbers, these have {decoder.latent_size}: "
            "use explore.latent_sliders"
        )
    if images is not None and decoder.encode is None:
        raise ValueError("a decoder alone cannot encode the test images: leave `images` out")
    codes = {"": evaluate.codes(model, images.test)} if images is not None else {}
    return MapExplorer({"": decoder}, codes, images, z)


def _reach(codes: dict[str, Tensor]) -> tuple[list[float], list[float]]:
    """Return the corners (low, high) of a square plane that has ±3 and nearly all codes in it."""
    if not codes:
        return [-3.0, -3.0], [3.0, 3.0]
    every = torch.cat(list(codes.values())).cpu()
    # The outermost 1 in 500 would make the rest small.
    first = torch.quantile(every, 0.002, dim=0).clamp_max(-3)
    last = torch.quantile(every, 0.998, dim=0).clamp_min(3)
    # Square, so that the prior's circles are circles.
    middle, half = (first + last) / 2, (last - first).max() / 2
    return (middle - half).tolist(), (middle + half).tolist()
