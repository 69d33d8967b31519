"""Sliders that move a code: one a latent dimension, or one a direction with a meaning."""

import numpy as np
import torch
from torch import Tensor, nn

from vae_lesson import evaluate, words
from vae_lesson.arguments import check_same_shape
from vae_lesson.explore.decoder import Decoder
from vae_lesson.explore.explorer import Explorer
from vae_lesson.explore.pictures import below, beside, captioned, film
from vae_lesson.fonts import _
from vae_lesson.models import VAE
from vae_lesson.words import N_

IN_STILL = 6  # sliders in the still picture
FRAMES, FRAME = 11, 28  # pictures in a filmstrip of it, and the pixels of a side
REACH = 3.0  # how far a dimension's slider goes either way: 3σ of a VAE's prior
# Of a slider: to both sides of 0; its two ends; or these and the step between its values.
Limit = float | tuple[float, float] | tuple[float, float, float]
UNUSED = 0.01  # nats: a dimension with less KL than this does nothing


class SliderExplorer(Explorer):
    """Sliders that move a code along directions, z = origin + Σ_i slider_i · direction_i.

    directions: {name: (direction, limit)}. The origin is what the sliders do not express of a code
    that you set: with `shows_z` only what is beyond their limits, otherwise all of it. Beside each
    a filmstrip shows what it does over its range, the others as they are.
    """

    _title, _keeps_controls = N_("Sliders"), False  # they follow z

    def __init__(
        self,
        decoders: dict[str, Decoder],
        directions: dict[str, tuple[Tensor, Limit]],
        z: Tensor | None,
        shows_z: bool,
        n_folded: int = 0,
        test_images: Tensor | None = None,
    ) -> None:
        sliders = []
        for name, (direction, limit) in directions.items():
            low, high, *step = limit if isinstance(limit, tuple) else (-limit, limit)
            ends = {"low": low, "high": high, "step": step[0] if step else (high - low) / 120}
            sliders.append({"name": name, "direction": direction.cpu().tolist()} | ends)
        folded = words._("{n} unused dimensions (KL under {least} nats)")
        folded = folded.format(n=n_folded, least=UNUSED)
        own = {"sliders": sliders, "shows_z": shows_z, "n_folded": n_folded, "folded": folded}
        own["examples"] = next(iter(decoders.values())).examples(test_images)
        super().__init__(decoders, z, kind="sliders", **own)

    def values(self) -> list[float]:
        """Return where the sliders stand."""
        if values := self.shown["controls"].get("values"):
            return values
        along = [float(self.z @ np.float32(s["direction"])) for s in self.state["sliders"]]
        ends = [(s["low"], s["high"]) for s in self.state["sliders"]]
        shows_z = self.state["shows_z"]
        return [min(max(x, low), high) * shows_z for x, (low, high) in zip(along, ends)]

    def _still(self) -> np.ndarray:
        rows = []
        for slider, value in zip(self.state["sliders"][:IN_STILL], self.values()):
            low, high = slider["low"], slider["high"]
            n = round((high - low) / slider["step"])
            steps = np.round(np.linspace(0, n, n + 1 if n < 16 else FRAMES))  # as the page's
            moves = np.float32(low + steps * slider["step"] - value)
            codes = self.z + moves[:, None] * np.float32(slider["direction"])
            films = [film(d.images(codes, FRAME), FRAME) for d in self._decoders.values()]
            says = _("{name} = {value:z.2f}, from {low:z.4g} to {high:z.4g}")
            says = says.format(name=slider["name"], value=value, low=low, high=high)
            rows.append(captioned(says, below(*map(captioned, self._decoders, films), gap=0)))
        return beside(super()._still(), below(*rows, gap=4))

    def _words(self) -> str:
        names = [slider["name"] for slider in self.state["sliders"][:IN_STILL]]
        shown = ", ".join(f"{name} = {value:z.2f}" for name, value in zip(names, self.values()))
        says = _("{decoded}, and what each slider does over its range: {sliders}")
        return says.format(decoded=super()._words(), sliders=shown)


def latent_sliders(
    model: nn.Module, z: Tensor | None = None, test_images: Tensor | None = None
) -> SliderExplorer:
    """Return one slider for each latent dimension, from -3 to 3: ±3σ of a VAE's prior.

    model: a model of this course, or any function from codes `(n, latent_size)` to square images,
    grey or in colour; then z says the latent size. z: the code to start from, default 0.
    test_images: uint8, for the button that encodes one; of a VAE they also say how much each
    dimension is used (the mean KL): the most used comes first, unused ones are folded away.

    Raises: ValueError for what is no decoder of square images, and for a z of another size.
    """
    decoder = Decoder(model, None if z is None else len(z))
    kl = None
    if test_images is not None and isinstance(model, VAE):
        kl = evaluate.mean_kl_per_dimension(model, test_images)
    return dimension_sliders({"": decoder}, kl, z, test_images)


def dimension_sliders(
    decoders: dict[str, Decoder],
    kl: Tensor | None,
    z: Tensor | None = None,
    test_images: Tensor | None = None,
) -> SliderExplorer:
    """Return `latent_sliders` for one decoder or several that take the same codes."""
    latent_size = next(iter(decoders.values())).latent_size
    order = range(latent_size) if kl is None else kl.argsort(descending=True).tolist()
    # With several decoders a dimension that one does not use is not unused.
    n_folded = 0 if kl is None or len(decoders) > 1 else int((kl < UNUSED).sum())
    unit = torch.eye(latent_size)
    directions = {f"z[{j}]": (unit[j], REACH) for j in order}
    return SliderExplorer(decoders, directions, z, True, n_folded, test_images)


def direction_sliders(
    model: nn.Module, z: Tensor, directions: dict[str, tuple[Tensor, Limit]]
) -> SliderExplorer:
    """Return one slider for each named direction {name: (direction, limit)}, starting at code z.

    A slider's value is the number of steps along its direction from z, from -limit to limit, or
    from low to high for a limit (low, high), with 0 between them; in a limit (low, high, step) it
    goes by whole steps.

    Raises: ValueError if there is no direction, or one has another size than z.
    """
    if not directions:
        raise ValueError("direction_sliders needs at least one direction")
    for name, (direction, _limit) in directions.items():
        check_same_shape(**{"z": z, f"direction {name!r}": direction})
    return SliderExplorer({"": Decoder(model, len(z))}, directions, z, shows_z=False)
