"""A map of a 2-D latent space: click, drag or use the arrow keys, and see what decodes there."""

import base64
import io

import numpy as np
import torch
from torch import Tensor, nn

from vae_lesson import latent
from vae_lesson.data import Images
from vae_lesson.explore import living
from vae_lesson.explore.base import Decoder, Explorer, row
from vae_lesson.explore.parts import ROUND, Plane, png
from vae_lesson.teaching import plots

TILES = 16  # decoded images along a side of the manifold
VIEWS = {"codes": "where the test images lie", "decoded": "what each place decodes to"}


class MapExplorer(Explorer):
    """A plane for each decoder, all with the same point z on them, and what each decodes there.

    codes: {name: codes `(N, 2)` of the test images}; `view` switches between these and the decoded
    manifold.
    """

    _title = "Latent map"

    def __init__(
        self,
        decoders: dict[str, Decoder],
        codes: dict[str, Tensor],
        images: Images,
        z: Tensor | None = None,
    ) -> None:
        super().__init__(decoders, z)
        how = ": click, drag, or press the arrow keys (with Shift in larger steps)"
        low, high = _reach(codes)
        self.planes = [
            Plane(low=low, high=high, label=f"Latent map {name}".strip() + how) for name in decoders
        ]
        for plane in self.planes:
            self._on(plane, "point", lambda plane=plane: self._follow(plane))
        self._codes, self._images = codes, images
        self.view = self._switch(VIEWS, self._show_view)
        self._show_view()
        draw, reset = self._button("Random draw", self.draw), self._button("Reset", self.reset)
        rows = [row(*pair) for pair in zip(self.planes, self._named_pictures())]
        self._open(*rows, row(self.view, draw, reset))

    def draw(self) -> None:
        """Go to a random code z ~ N(0, I)."""
        self._go_to(torch.randn(2).numpy())

    def reset(self) -> None:
        """Go back to the code it started from."""
        self._go_to(self._start)

    def _go_to(self, z: np.ndarray) -> None:
        for plane in self.planes:
            plane.begin_round("point", z.tolist())  # which z follows

    def _follow(self, plane: Plane) -> None:
        for other in self.planes:
            other.number = max(other.number, plane.number // ROUND * ROUND)
        if (np.float32(plane.point) != self.z).any():
            self.z = np.float32(plane.point)

    def _show_z(self, change) -> None:
        for plane in self.planes:
            if (np.float32(plane.point) != self.z).any():  # float32 comes back as it went
                plane.point = self.z.tolist()
        super()._show_z(change)

    def _state(self) -> str:
        return f"{VIEWS[self.view.value]}, and {super()._state()}"

    def _living(self) -> dict:
        drawn = [self._codes_drawn(*pair) for pair in zip(self._decoders, self.planes)]
        return {
            "kind": "map",
            "z": living.numbers(self.z),
            "low": self.planes[0].low,
            "high": self.planes[0].high,
            "labels": [plane.label for plane in self.planes],
            "views": VIEWS,
            "backgrounds": [base64.b64encode(value).decode() for value in drawn],
        }

    def _show_view(self) -> None:
        draw = self._codes_drawn if self.view.value == "codes" else self._manifold
        for name, plane in zip(self._decoders, self.planes):
            plane.background = draw(name, plane)

    def _codes_drawn(self, name: str, plane: Plane) -> bytes:
        labels, class_names = self._images.test_labels, self._images.class_names
        figure = plots.plane(self._codes[name], labels, class_names, plane.low, plane.high)
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=2 * plane.size / figure.get_figwidth())
        return buffer.getvalue()

    def _manifold(self, name: str, plane: Plane) -> bytes:
        grid = latent.box_grid(torch.tensor(plane.low), torch.tensor(plane.high), TILES)
        side = 2 * plane.size // TILES  # as large as a page with two pixels for one can show
        tiles = (self._decoders[name].images(z.numpy(), side) for z in grid.split(TILES))
        return png(np.vstack([np.hstack(images) for images in tiles]))


def latent_map(model: nn.Module, images: Images, z: Tensor | None = None) -> MapExplorer:
    """Return a map of a 2-D latent space, on which a click or a drag decodes that point.

    It shows the codes of the test images, coloured by class, over the prior's 1σ and 2σ circles, or
    the decoded manifold. It reaches over ±3, and further where codes do.

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
    every = torch.cat(list(codes.values())).cpu()
    # The outermost 1 in 500 would make the rest small.
    first = torch.quantile(every, 0.002, dim=0).clamp_max(-3)
    last = torch.quantile(every, 0.998, dim=0).clamp_min(3)
    # Square, so that the prior's circles are circles.
    middle, half = (first + last) / 2, (last - first).max() / 2
    return (middle - half).tolist(), (middle + half).tolist()
