"""The tokens of an image: point at a cell of it, give it another entry, and see what that does."""

import math

import numpy as np
from torch import Tensor, nn

from vae_lesson.explore.decoder import Decoder
from vae_lesson.explore.explorer import Explorer
from vae_lesson.explore.pictures import below, beside, enlarged, written
from vae_lesson.fonts import _
from vae_lesson.words import N_

CELL = 48  # pixels, the side of a cell in the still picture


class TokensExplorer(Explorer):
    """The decoded image under a grid of cells, and a slider for the entry of the chosen one.

    `z` holds the tokens, whole numbers, row by row.
    """

    _title = N_("Tokens")

    def __init__(self, model: nn.Module, image: Tensor) -> None:
        tokens = model.tokens(image[None])[0]
        side = math.isqrt(len(tokens))

        def decode(z: Tensor) -> Tensor:
            nearest = z.to(tokens.device).round().long()
            return model.decode_mean(nearest.clamp(0, model.n_codes - 1))

        decoder = Decoder(decode, len(tokens))
        decoder.model = model  # what a page computes
        super().__init__({"": decoder}, tokens, kind="tokens", side=side, n_codes=model.n_codes)

    def _still(self) -> np.ndarray:
        """Return the image under a grid; if a token was exchanged, to the right of what it was."""
        images = [self._decoded[0][0]]
        if (self.z != self._start).any():
            images.insert(0, self._decoders[""].images(self._start[None])[0])
        picture = beside(*(self._under_a_grid(image) for image in images))
        return below(picture, written(self._words(), picture.shape[1]))

    def _under_a_grid(self, image: np.ndarray) -> np.ndarray:
        grid = enlarged(image, CELL * self.state["side"]).copy()
        grid[::CELL], grid[:, ::CELL] = 128, 128
        return grid

    def _words(self) -> str:
        side = self.state["side"]
        cell = self.shown["controls"].get("cell", (side + 1) * (side // 2))  # the chosen one
        i, j = divmod(cell, side)
        own, now = self._start[cell], self.z[cell]
        says = _("the image of the tokens, with entry {now:.0f} at row {row}, column {column}")
        if own != now:
            says = _(
                "the image of the tokens, with entry {now:.0f} instead of {own:.0f} at row {row}, "
                "column {column}"
            )
        return says.format(now=now, own=own, row=i + 1, column=j + 1)


def change_tokens(model: nn.Module, image: Tensor) -> TokensExplorer:
    """Return an image (uint8) as the tokens of a `VQVAE`, of which each can be exchanged.

    Click on a cell or walk there with the arrow keys; the slider chooses among the entries.

    Raises: ValueError for an image of another size than the model's.
    """
    if image.numel() != model.input_size:
        wanted = f"an image of {model.input_size} pixels"
        raise ValueError(f"change_tokens needs {wanted}, got shape {tuple(image.shape)}")
    return TokensExplorer(model, image)
