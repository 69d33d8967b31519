"""A film: the clouds q(z|x) of VAEs with two-dimensional codes, while they learn."""

from collections.abc import Sequence

import matplotlib.figure
import numpy as np
import torch
from matplotlib.collections import EllipseCollection
from matplotlib.patches import Circle
from torch import Tensor

from vae_lesson.explore.explorer import Figure
from vae_lesson.explore.pictures import drawn

STILLS = 5  # moments in the still picture
INSIDE = 0.9  # of each panel's clouds at every moment, what the axes must reach


class Clouds(Figure):
    """A panel for each VAE, and a slider of training steps above them.

    codes: {name: mu and log_var at each step, `(steps, images, 4)`}.
    """

    _title = "Clouds"

    def __init__(self, codes: dict[str, Tensor], **own: object) -> None:
        self._codes = codes
        far = torch.stack([*codes.values()])[..., :2].abs().amax(dim=3)
        own["reach"] = max(3, int(far.quantile(INSIDE, dim=2).max().ceil()))
        # In thousandths: for a page that is half as much as floats.
        packed = [(1000 * c).round().clamp(-32767, 32767).short() for c in codes.values()]
        packed = [each.numpy().tobytes() for each in packed]
        super().__init__(kind="clouds", names=[*codes], codes=packed, **own)

    def _moments(self) -> dict[int, int]:
        """Return {place: step} of those in the still picture."""
        steps = self.state["steps"]
        places = np.linspace(0, len(steps) - 1, STILLS).round().astype(int).tolist()
        return {k: steps[k] for k in places}

    def _still(self) -> np.ndarray:
        reach, colours = self.state["reach"], [f"C{i % 10}" for i in self.state["labels"]]
        moments = self._moments()
        figure = matplotlib.figure.Figure(
            figsize=(8.4, 1.55 * len(self._codes) + 0.5), layout="constrained"
        )
        panels = figure.subplots(len(self._codes), len(moments), squeeze=False)
        for row, (name, codes) in zip(panels, self._codes.items()):
            for ax, k in zip(row, moments):
                mu, log_var = codes[k].chunk(2, dim=1)
                widths = 4 * torch.exp(0.5 * log_var)
                shape = {"offsets": mu, "offset_transform": ax.transData, "units": "xy"}
                shape |= {"facecolors": "none", "edgecolors": colours, "alpha": 0.6, "lw": 0.8}
                ax.add_collection(EllipseCollection(*widths.T, np.zeros(len(mu)), **shape))
                for radius, line in ((1, "--"), (2, "-")):
                    ax.add_patch(Circle((0, 0), radius, fill=False, ls=line, ec="grey"))
                ax.text(-reach, -reach, f" σ {_typical(codes[k]):.2g}", va="bottom", size=9)
                ends = [-reach, 0, reach]
                ax.set(xlim=ends[::2], ylim=ends[::2], xticks=ends, yticks=ends, aspect="equal")
                ax.set(xlabel="z₁", ylabel=f"{name}\nz₂")
                ax.label_outer()
        for ax, step in zip(panels[0], moments.values()):
            ax.set_title(f"step {step}", size=10)
        return drawn(figure)

    def _words(self) -> str:
        steps = ", ".join(map(str, self._moments().values()))
        ends = ", ".join(f"{_typical(c[-1]):.2g} for {name}" for name, c in self._codes.items())
        return (
            f"2σ ellipses of q(z|x) at training steps {steps}; at the end the typical σ is {ends}"
        )


def _typical(codes: Tensor) -> float:
    return torch.exp(0.5 * codes[:, 2:]).median().item()


def watch_clouds(
    clouds: dict[str, Sequence[tuple[Tensor, Tensor]]], steps: Sequence[int], labels: Tensor
) -> Clouds:
    """Return a slider over training steps, at which each VAE's clouds of some images are drawn.

    clouds: {name: [(mu, log_var) at each of the steps]}, `(N, 2)` each, as `evaluate.posteriors`
    gives them. labels: `(N,)`, the images' classes, a colour each. The axes, the same for all,
    reach nine of ten clouds in every panel; how many lie outside is said.

    Raises: ValueError if there is not one pair for each step, or they are not `(N, 2)`.
    """
    for name, moments in clouds.items():
        shapes = {tuple(part.shape) for pair in moments for part in pair}
        if len(moments) != len(steps) or shapes != {(len(labels), 2)}:
            wanted = f"{len(steps)} pairs (mu, log_var) of shape ({len(labels)}, 2)"
            raise ValueError(f"{name!r} needs {wanted}, got {len(moments)}, of {sorted(shapes)}")
    codes = {
        name: torch.stack([torch.cat(pair, dim=1).detach().cpu() for pair in moments])
        for name, moments in clouds.items()
    }
    return Clouds(codes, steps=list(steps), labels=labels.tolist())
