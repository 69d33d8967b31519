"""From one image, or code, to another: one slider."""

import numpy as np
import torch
from torch import Tensor, nn

from vae_lesson import latent, words
from vae_lesson.explore.decoder import Decoder, packed
from vae_lesson.explore.explorer import Explorer
from vae_lesson.explore.pictures import as_pictures, below, beside, captioned, enlarged, film
from vae_lesson.fonts import _
from vae_lesson.words import N_

FRAMES, FRAME = 11, 62  # pictures of the whole path, and the pixels of a side
PATHS = {"lerp": N_("a straight line"), "slerp": N_("a great arc around the origin")}


class MorphExplorer(Explorer):
    """A slider from `ends[0]` (0) to `ends[1]` (1) on a straight line or a great arc.

    Setting `z` from code shows that code; the slider stays where it is, and the next move of it
    comes back to the path.
    """

    _title = N_("Morph")

    def __init__(self, decoder: Decoder, ends: list[tuple], test_images: Tensor | None) -> None:
        codes, images = zip(*ends)
        middle = latent.lerp(*map(torch.from_numpy, codes), 0.5)
        own = {"ends": np.stack(codes).tolist(), "end_images": packed([np.stack(images)])}
        named = words._("{name}: {path}")
        paths = {name: named.format(name=name, path=words._(path)) for name, path in PATHS.items()}
        own |= {"paths": paths, "examples": decoder.examples(test_images)}
        super().__init__({"": decoder}, middle, kind="morph", **own)

    def _where(self) -> dict:
        """Return t, the name of the path, and which two examples are at its ends, if any."""
        return {"t": 0.5, "path": "lerp", "pair": None} | self.shown["controls"]

    @property
    def ends(self) -> list[np.ndarray]:
        """The codes at its ends, now."""
        pair = self._where()["pair"]
        codes = [self.state["examples"]["codes"][i] for i in pair] if pair else self.state["ends"]
        return [np.float32(code) for code in codes]

    def _still(self) -> np.ndarray:
        path, pair = self._where()["path"], self._where()["pair"]
        given = self.state["examples" if pair else "end_images"]
        images = np.frombuffer(given["buffers"][0], np.uint8).reshape(given["shapes"][0])
        start, end = (enlarged(images[i]) for i in pair or (0, 1))
        t = torch.linspace(0, 1, FRAMES)[:, None]
        way = getattr(latent, path)(*map(torch.from_numpy, self.ends), t).numpy()
        frames = film(self._decoders[""].images(way, FRAME), FRAME)
        row = beside(start, enlarged(self._decoded[0][0]), end)
        return below(row, captioned(_("{path}:").format(path=_(PATHS[path])), frames))

    def _words(self) -> str:
        t, path = self._where()["t"], self._where()["path"]
        says = _(
            "{shown}, {t:.2f} of the way from start to end on {path}, between the images at "
            "its ends"
        )
        return says.format(shown=super()._words(), t=t, path=_(PATHS[path]))


def morph(
    model: nn.Module, start: Tensor, end: Tensor, test_images: Tensor | None = None
) -> MorphExplorer:
    """Return one slider from `start` to `end`, on a straight line (lerp) or a great arc (slerp).

    start and end: two uint8 images `(side, side)`, in colour `(3, side, side)`, or two codes
    `(latent_size,)` as floats. test_images: uint8, for a button that takes two of them for the
    ends.

    Raises: ValueError if they are neither, or an image is given and the model cannot encode.
    """
    decoder = Decoder(model, None if start.dtype == torch.uint8 else len(start))
    ends = [_end(decoder, name, given) for name, given in [("start", start), ("end", end)]]
    return MorphExplorer(decoder, ends, test_images)


def _end(decoder: Decoder, name: str, given: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the code of one end, and its image."""
    if given.dtype == torch.uint8 and (given.ndim == 2 or given.shape[:-2] == (3,)):
        (code,), _ = decoder.encode(given[None])
        return code.cpu().numpy(), as_pictures(given[None])[0]
    if given.is_floating_point() and given.shape == (decoder.latent_size,):
        code = given.detach().cpu().float().numpy()
        return code, decoder.images(code[None])[0]
    raise ValueError(
        f"{name} must be a uint8 image, (side, side) or (3, side, side), or a code of floats "
        f"({decoder.latent_size},), got {given.dtype} of shape {tuple(given.shape)}"
    )
