"""The tokens of an image: point at a cell of it, give it another entry, and see what that does."""

import math

import ipywidgets as widgets
import numpy as np
from torch import Tensor, nn

from vae_lesson.explore.base import Decoder, Explorer, column, row
from vae_lesson.explore.parts import Plane, png

CELL = 48  # pixels, the side of a cell on the plane


class TokensExplorer(Explorer):
    """The decoded image under a grid of cells, and a slider for the entry of the chosen one.

    `z` holds the tokens, whole numbers, row by row.
    """

    _title = "Tokens"

    def __init__(self, model: nn.Module, image: Tensor) -> None:
        tokens = model.tokens(image[None])[0]
        last, self.side = model.n_codes - 1, math.isqrt(len(tokens))

        def decode(z: Tensor) -> Tensor:
            return model.decode_mean(z.to(tokens.device).round().clamp(0, last))

        super().__init__({"": Decoder(decode, len(tokens))}, tokens)
        middle, high = [self.side / 2] * 2, [float(self.side)] * 2
        says = "Cells of the image: click, or press the arrow keys; then move the slider"
        self.plane = Plane(
            low=[0.0, 0.0], high=high, point=middle, cells=self.side, size=CELL * self.side
        )
        self.plane.label = says
        self.slider = widgets.FloatSlider(max=last, step=1, description="entry")
        self.slider.readout_format = "d"
        self._moving = False  # True while the slider follows the cell
        self._on(self.plane, "point", self._follow_cell)
        self._on(self.slider, "value", self._change)
        reset = self._button("Reset", self.reset)
        right = column(says + ":", self.slider, reset, *self._named_pictures())
        self._open(row(self.plane, right))

    @property
    def cell(self) -> int:
        """The number of the cell that the point lies in, row by row."""
        x, y = np.clip(np.floor(self.plane.point), 0, self.side - 1).astype(int)
        return int((self.side - 1 - y) * self.side + x)

    def _follow_cell(self) -> None:
        self._moving = True
        try:
            self.slider.value = float(self.z[self.cell])
        finally:
            self._moving = False

    def _change(self) -> None:
        if not self._moving:
            z = self.z.copy()
            z[self.cell] = self.slider.value
            self.z = z

    def _show_z(self, change) -> None:
        super()._show_z(change)
        (image,) = self._decoders[""].images(self.z[None])
        pixels = CELL * self.side // len(image)  # on the plane, to one of the image
        grid = image.repeat(pixels, axis=0).repeat(pixels, axis=1)
        grid[::CELL], grid[:, ::CELL] = 128, 128
        self.plane.background = png(grid)
        self._follow_cell()

    def _state(self) -> str:
        i, j = divmod(self.cell, self.side)
        where = f"row {i + 1}, column {j + 1}"
        return f"the image of the tokens, with entry {self.z[self.cell]:.0f} at {where}"


def change_tokens(model: nn.Module, image: Tensor) -> TokensExplorer:
    """Return an image (uint8) as the tokens of a `VQVAE`, of which each can be exchanged.

    Click on a cell or walk there with the arrow keys; the slider chooses among the entries.

    Raises: ValueError for an image of another size than the model's.
    """
    if image.numel() != model.input_size:
        wanted = f"an image of {model.input_size} pixels"
        raise ValueError(f"change_tokens needs {wanted}, got shape {tuple(image.shape)}")
    return TokensExplorer(model, image)
