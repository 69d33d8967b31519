"""A map of a 2-D latent space: click, drag or use the arrow keys, and see what decodes there."""

import io

import ipywidgets as widgets
import numpy as np
import torch
from torch import Tensor, nn

from vae_lesson import evaluate, latent, plots
from vae_lesson.data import Images
from vae_lesson.explore.base import Decoder, Explorer
from vae_lesson.explore.parts import PICTURE, Plane, Sheet, png

TILES = 16  # decoded images along a side of the manifold
VIEWS = ("codes", "decoded")


class MapExplorer(Explorer):
    """A plane for each decoder, all with the same point z on them, and what each decodes there.

    codes: {name: (codes `(N, 2)`, labels)} of the planes that can show test images; `view` switches
    between these and the decoded manifold.
    """

    def __init__(
        self,
        decoders: dict[str, Decoder],
        codes: dict[str, tuple[Tensor, Tensor]],
        class_names: tuple[str, ...],
        low: list[float],
        high: list[float],
        z: Tensor | None,
    ) -> None:
        super().__init__(decoders, z)
        size = 400 if len(decoders) == 1 else 320
        how = ": click, drag, or press the arrow keys (with Shift in larger steps)"
        self.planes = [
            Plane(low=low, high=high, size=size, label=f"Latent map {name}".strip() + how)
            for name in decoders
        ]
        for plane in self.planes:
            self._on(plane, "point", lambda plane=plane: self._follow(plane))
        self._class_names, self._codes = class_names, codes
        self._backgrounds = {}  # what has been drawn: (name, view) -> PNG
        views = VIEWS if codes else VIEWS[1:]
        self.view = widgets.ToggleButtons(
            options=views,
            tooltips=["the test images' codes", "what each place decodes to"][-len(views) :],
            style={"button_width": "auto"},
        )
        self.view.layout.display = None if codes else "none"
        self._on(self.view, "value", self._show_view)
        self._show_view()
        self._open(self._layout())

    def _layout(self) -> widgets.Widget:
        buttons = widgets.HBox(
            [
                self.view,
                self._button("Random draw", "Go to a random code z ~ N(0, I)", self.draw),
                self._button("Reset", "Go back to the code it started from", self.reset),
            ],
            layout={"align_items": "center"},
        )
        fixed = {"flex": "0 0 auto", "margin": "0 16px 0 0"}
        if len(self.planes) == 1:
            right = widgets.VBox([self._pictures[0], buttons], layout=fixed)
            return widgets.HBox(
                [widgets.VBox(self.planes, layout=fixed), right],
                layout={"align_items": "flex-start"},
            )
        columns = [
            widgets.VBox([widgets.HTML(f"<b>{name}</b>"), plane, picture], layout=fixed)
            for name, plane, picture in zip(self._decoders, self.planes, self._pictures)
        ]
        return widgets.VBox([widgets.HBox(columns), buttons])

    def draw(self) -> None:
        """Go to a random code z ~ N(0, I)."""
        self.z = torch.randn(2).numpy()

    def _follow(self, plane: Plane) -> None:
        if not np.allclose(plane.point, self.z, atol=1e-6):  # float32 comes back as it went
            self.z = np.float32(plane.point)

    def _show_z(self, change) -> None:
        point = [float(value) for value in self.z]
        for plane in self.planes:
            if not np.allclose(plane.point, point, atol=1e-6):
                plane.point = point
        super()._show_z(change)

    def _show_view(self) -> None:
        for name, plane in zip(self._decoders, self.planes):
            plane.background = self._background(name, self.view.value)

    def _background(self, name: str, view: str) -> bytes:
        if (name, view) not in self._backgrounds:
            plane = self.planes[list(self._decoders).index(name)]
            if view == "codes" and name in self._codes:
                figure = plots.plane(*self._codes[name], self._class_names, plane.low, plane.high)
                buffer = io.BytesIO()
                figure.savefig(buffer, dpi=2 * plane.size / figure.get_figwidth())
                drawn = buffer.getvalue()
            else:
                grid = latent.box_grid(torch.tensor(plane.low), torch.tensor(plane.high), TILES)
                tiles = torch.from_numpy(self._decoders[name].images(grid.numpy()))
                drawn = png((255 * plots.tile(tiles, TILES)).astype(np.uint8))
            self._backgrounds[name, view] = drawn
        return self._backgrounds[name, view]

    def _twin(self) -> np.ndarray:
        """Return each plane with its point, and what decodes there."""
        gap, top = 14, 22 if len(self.planes) > 1 else 0
        side = PICTURE if top else self.planes[0].size
        each = side + PICTURE + 2 * gap
        sheet = Sheet(each * len(self.planes), side + top)
        for i, (name, plane) in enumerate(zip(self._decoders, self.planes)):
            left = i * each
            sheet.text(name, left, 2)
            sheet.png(plane.background, left, top, side)
            low, high = np.array(plane.low), np.array(plane.high)
            x, y = (np.array(plane.point) - low) / (high - low) * side
            sheet.cross(left + x, top + side - y)
            picture = self._decoders[name].images(self.z[None])[0]
            sheet.picture(picture, left + side + gap, top, PICTURE)
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
    decoder = Decoder.of(model, 2)
    _check_plane(decoder)
    if images is not None and decoder.encode is None:
        raise ValueError("a decoder alone cannot encode the test images: leave `images` out")
    codes = {"": evaluate.codes(model, images.test)} if images is not None else {}
    return plane_maps({"": decoder}, codes, images, z)


def _check_plane(decoder: Decoder) -> None:
    if decoder.latent_size != 2:
        raise ValueError(
            f"a map needs codes of 2 numbers, these have {decoder.latent_size}: "
            "use explore.latent_sliders"
        )


def plane_maps(
    decoders: dict[str, Decoder],
    codes: dict[str, Tensor],
    images: Images | None,
    z: Tensor | None = None,
) -> MapExplorer:
    """Return `latent_map` for one decoder or several that take the same codes `(N, 2)`."""
    low, high = [-3.0, -3.0], [3.0, 3.0]
    if codes:
        every = torch.cat(list(codes.values())).cpu()
        # The outermost 1 in 500 would make the rest small.
        first = torch.quantile(every, 0.002, dim=0).clamp_max(-3)
        last = torch.quantile(every, 0.998, dim=0).clamp_min(3)
        # Square, so that the prior's circles are circles.
        middle, half = (first + last) / 2, (last - first).max() / 2
        low, high = (middle - half).tolist(), (middle + half).tolist()
    labelled = {name: (points, images.test_labels) for name, points in codes.items()}
    names = images.class_names if images is not None else ()
    return MapExplorer(decoders, labelled, names, low, high, z)
