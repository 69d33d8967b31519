"""Every figure of the course. A function draws what it is given and returns the figure.

The same thing has the same colour, line and marker in all lessons, and each pair can be told apart
in grey too. Figures are closed before they are returned, so that a notebook shows each one once,
as the last value of its cell, and none stays in memory. `alt` is one sentence that says what the
figure shows, for those who cannot see it: the notebook keeps it beside the picture.
"""

import math
import re
from collections.abc import Sequence
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse, FancyArrowPatch
from matplotlib.patheffects import withStroke
from torch import Tensor

from vae_lesson.data import SIDE, channels_last, square_shape
from vae_lesson.fonts import _
from vae_lesson.words import N_

WIDTH = 8.5  # inches: the width of a notebook's cell
# Dark to light as well as hue, for readers and printers without colour.
BLUE, ORANGE, GREY, PALE = "#0b5394", "#d55e00", "#7f7f7f", "#bbbbbb"
STYLES = {
    "PCA": {"color": GREY, "linestyle": ":", "marker": "s"},
    N_("autoencoder"): {"color": ORANGE, "linestyle": "--", "marker": "^"},
    "VAE": {"color": BLUE, "linestyle": "-", "marker": "o"},
    N_("prior"): {"color": "black", "linestyle": "-"},
    N_("exact"): {"color": "black", "linestyle": (0, (6, 3)), "linewidth": 1},
}
LINES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))]
CLASS_COLOURS = plt.get_cmap("tab10").colors
OUTLINE = [withStroke(linewidth=3, foreground="white")]  # words that can be read on any colour
OUTLINED = {"histtype": "step", "color": "black", "linewidth": 0.8}  # a histogram, as a line


# --- images ---------------------------------------------------------------------------------------


def image_grid(images: Tensor, n_columns: int = 8, title: str = "", *, alt: str = "") -> Figure:
    """Draw images `(N, ...)`, uint8 or floats in [0, 1], in a grid."""
    n_rows = math.ceil(len(images) / n_columns)
    size = min(WIDTH / n_columns, 0.7)
    fig, (ax,) = _panels((size * n_columns, size * n_rows + 0.3 * bool(title)), alt)
    _show_apart(ax, images, n_columns)
    ax.set_axis_off()
    ax.set_title(title)
    return fig


def image_rows(
    rows: dict[str, Tensor], columns: Sequence[str] = (), title: str = "", *, alt: str = ""
) -> Figure:
    """Draw one labelled row of images for each entry; `columns` are captions over the first row.

    A caption with empty ones after it is a group's, and the group is set off by a gap.
    """
    n_columns = max(len(images) for images in rows.values())
    size = min((WIDTH - 1.7) / n_columns, 0.75)
    height = size * len(rows) + 0.25 * bool(columns) + 0.35 * bool(title) + 0.1
    fig, axes = _panels((size * n_columns + 1.7, height), alt, n_rows=len(rows))
    extent = (-0.5, n_columns - 0.5, 0, 1)  # an image is one unit wide, its centre at its number
    for ax, (name, images) in zip(axes, rows.items()):
        _show_apart(ax, images, n_columns, extent=extent)
        ax.set(xticks=[], yticks=[], frame_on=False)
        ax.set_ylabel(unsigned_zeros(name), rotation=0, ha="right", va="center")
        for i, caption in enumerate(columns):
            if i and caption and "" in columns:
                ax.axvline(i - 0.5, color="white", linewidth=7)  # over the images' borders
    axes[0].set_xticks(range(len(columns)), map(unsigned_zeros, columns), fontsize=8)
    axes[0].xaxis.tick_top()
    axes[0].tick_params(length=0)
    axes[0].set_title(title)
    return fig


def manifolds(grids: dict[str, tuple[Tensor, tuple | None]], *, alt: str = "") -> Figure:
    """Draw n × n grids of decoded images, {title: (images, extent)}, as pictures of their planes.

    extent = (left, right, bottom, top) in z; None if they are at the quantiles of N(0, 1): equal
    steps are equal shares of it, and the numbers on the axes stand closer towards the ends.
    """
    size = min(WIDTH / len(grids), 6.0)
    fig, axes = _panels((size * len(grids), size + 0.2), alt, n_columns=len(grids))
    marks = {"−2": -2, "−1": -1, "−½": -0.5, "0": 0, "½": 0.5, "1": 1, "2": 2}
    places = torch.special.ndtr(torch.tensor([*marks.values()])).tolist()
    for ax, (title, (images, extent)) in zip(axes, grids.items()):
        _show(ax, images, math.isqrt(len(images)), extent=extent or (0, 1, 0, 1), aspect="auto")
        ax.set(title=title, xlabel="z₁", ylabel="z₂")
        if extent is None:
            ax.set_xticks(places, marks)
            ax.set_yticks(places, marks)
    return fig


def tile(images: Tensor, n_columns: int, gap: int = 0) -> np.ndarray:
    """Return images `(N, ...)` side by side as one array in [0, 1], missing ones white, and `gap`
    white pixels after each. Shapes: `(rows, columns)` of pixels, in colour `(rows, columns, 3)`.
    """
    images = channels_last(torch.as_tensor(images).detach().cpu())
    images = images.float() / 255 if images.dtype == torch.uint8 else images.float().clamp(0, 1)
    n_rows, side = math.ceil(len(images) / n_columns), images.shape[1]
    cells = torch.ones(n_rows * n_columns, side + gap, side + gap, *images.shape[3:])
    cells[: len(images), :side, :side] = images
    rows = cells.unflatten(0, (n_rows, n_columns)).transpose(1, 2)  # of pixels, then of images
    return rows.flatten(0, 1).flatten(1, 2).numpy()


# --- curves ---------------------------------------------------------------------------------------


def lines(
    curves: dict[str, tuple], xlabel: str, ylabel: str, log: str = "", *, alt: str = ""
) -> Figure:
    """Draw {name: (x, y)}; `log` names the logarithmic axes: "x", "y" or "xy"."""
    fig, (ax,) = _panels((WIDTH * 0.75, 3.6), alt)
    for i, (name, (x, y)) in enumerate(curves.items()):
        style = {"marker": "." if len(x) < 30 else None, "linestyle": LINES[i % len(LINES)]}
        ax.plot(x, y, label=_(name), **STYLES.get(name, style))
    if "x" in log:
        ax.set_xscale("log", base=2)
        ax.set_xticks(x, [f"{value:g}" for value in x])
        ax.minorticks_off()
    else:
        ax.locator_params("x", integer=True, min_n_ticks=3)
    ax.set_yscale("log" if "y" in log else "linear")
    if log == "x":  # a few points, and room for their values
        ax.margins(0.1)
        for x, y in curves.values():
            for place in zip(x, y):
                ax.annotate(f"{place[1]:.1f}", place, (4, 4), textcoords="offset points")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend()
    ax.grid(alpha=0.3)
    return fig


def histograms(
    groups: dict[str, Tensor],
    xlabel: str,
    mark: tuple[str, float],
    upto: float,
    *,
    alt: str = "",
) -> Figure:
    """Draw how a number is distributed in several groups, a row each over one axis.

    mark: (name, place) of a dashed line in every row; the first group's outline is in each too.
    upto: where the axis ends; words say how much of a row lies beyond.
    """
    fig, axes = _panels((WIDTH * 0.8, 0.7 * len(groups) + 0.9), alt, n_rows=len(groups))
    groups = {name: values.cpu() for name, values in groups.items()}
    bins = np.linspace(min(values.min().item() for values in groups.values()), upto, 81)
    outlined, first = next(iter(groups.items()))
    for ax, (name, values) in zip(axes, groups.items()):
        for part, style in ((values, {"color": BLUE, "alpha": 0.6}), (first, OUTLINED)):
            weights = np.full(len(part), 1 / len(part))
            bars = ax.hist(part, bins=bins, weights=weights, label=outlined, **style)[2]
        line = ax.axvline(mark[1], color=ORANGE, linestyle="--", label=mark[0])
        if beyond := (values > upto).float().mean():
            says = _("{share:.1%} beyond, up to {most:,.0f} →")
            says = says.format(share=beyond, most=values.max())
            style = {"ha": "right", "va": "top", "fontsize": 8, "path_effects": OUTLINE}
            ax.annotate(says, (0.99, 0.92), xycoords="axes fraction", **style)
        ax.set(xlabel=xlabel, xlim=(bins[0], upto), yticks=[])
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
        ax.label_outer()
    fig.legend(handles=[bars[0], line], loc="outside upper right", ncols=2, frameon=False)
    return fig


def rate_distortion(points: dict[float, tuple[float, float]], *, alt: str = "") -> Figure:
    """Draw {beta: (rate, distortion)}, a line through them, and lines of equal −ELBO.

    The dashed one is the lowest −ELBO of the points.
    """
    fig, (ax,) = _panels((WIDTH * 0.75, 4.4), alt)
    rates, distortions = zip(*(points[beta] for beta in sorted(points)))
    margin = 0.1 * (max(distortions) - min(distortions))
    right, bottom, top = max(rates) * 1.16, min(distortions) - margin, max(distortions) + margin
    for total in np.arange(bottom // 20 * 20, right + top, 20):  # rate + distortion = total
        ax.axline((0, total), slope=-1, color=PALE, linewidth=0.8, zorder=0)
        if bottom < total - right < top - margin:
            offset = {"xytext": (-4, 4), "textcoords": "offset points", "ha": "right"}
            ax.annotate(f"−ELBO {total:zg}", (right, total - right), fontsize=7, **offset)
    lowest = min(map(sum, points.values()))
    label = _("−ELBO {lowest:z.1f}, the lowest").format(lowest=lowest)
    ax.axline((0, lowest), slope=-1, color=ORANGE, linestyle="--", linewidth=1, label=label)
    ax.plot(rates, distortions, color=BLUE, marker="o")
    for beta, point in points.items():
        ax.annotate(f"β = {beta:g}", point, (7, 6), textcoords="offset points", fontsize=9)
    ax.legend()
    ax.set(xlabel=_("rate: KL, nats per image"), ylabel=_("distortion: recon, nats per image"))
    ax.axis((0, right, bottom, top))
    return fig


# --- latent spaces --------------------------------------------------------------------------------


def code_maps(
    maps: dict[str, Tensor], labels: Tensor, class_names: Sequence[str], *, alt: str = ""
) -> Figure:
    """Draw 2-D codes coloured by class, a panel an entry."""
    size = min(WIDTH / len(maps), 6.0)
    fig, axes = _panels((size * len(maps), size + 0.1), alt, n_columns=len(maps))
    for ax, (title, points) in zip(axes, maps.items()):
        _scatter_classes(ax, points, labels, class_names)
        ax.set_title(title)
    return _as_planes(fig, _("first coordinate"), _("second coordinate"))


def posterior_ellipses(
    mu: Tensor, log_var: Tensor, labels: Tensor, class_names: Sequence[str], *, alt: str = ""
) -> Figure:
    """Draw each q(z|x) of 2-D codes as its 2σ ellipse, over the prior's 1σ and 2σ circles."""
    fig, (ax,) = _panels((6.2, 6.2), alt)
    mu, sigma, labels = mu.cpu(), torch.exp(0.5 * log_var).cpu(), labels.cpu()
    for m, s, label in zip(mu.tolist(), sigma.tolist(), labels.tolist()):
        colour = CLASS_COLOURS[label % 10]
        ax.add_patch(Ellipse(m, 4 * s[0], 4 * s[1], fc=(colour, 0.1), ec=(colour, 0.7)))
    _prior_circles(ax)
    for label in labels.unique().tolist():  # for grey: a digit's centre is the digit itself
        as_name = len(class_names[label]) == 1
        style = {"marker": f"${class_names[label]}$", "s": 34, "lw": 0} if as_name else {"s": 2}
        ax.scatter(*mu[labels == label].T, color="black", **style)
    _name_classes(ax, mu, labels, class_names)
    return _as_planes(fig, "z₁", "z₂")


def paths(way: Tensor, points: Tensor, *, alt: str = "") -> Figure:
    """Draw a few paths in the plane, `(steps, n, 2)`, from a ring to an arrow's head, over codes.

    A cross marks the mean of the codes.
    """
    fig, (ax,) = _panels((6.2, 6.2), alt)
    ax.scatter(*points.T.cpu(), s=4, color=PALE, linewidths=0)
    _prior_circles(ax)
    style = {"color": BLUE, "mutation_scale": 22, "shrinkA": 0, "shrinkB": 0, "zorder": 3}
    for path in way.cpu().transpose(0, 1):
        ax.plot(*path.T, color=BLUE, linewidth=2.5)
        ax.add_patch(FancyArrowPatch(*path[-2:].tolist(), arrowstyle="-|>", **style))
    ax.scatter(*way[0].T.cpu(), s=60, facecolors="white", edgecolors=BLUE, linewidths=2, zorder=3)
    ax.scatter(*points.mean(dim=0).tolist(), s=120, marker="x", color="black", zorder=3)
    return _as_planes(fig, "z[0]", "z[1]")


def paths_in_time(ways: dict[str, Tensor], *, alt: str = "") -> Figure:
    """Draw points that move on a line, {title: `(steps, n)`}, over t from 0 to 1, a panel an entry.

    Those that end above 0 are solid, the others dashed.
    """
    fig, axes = _panels((WIDTH, 3.4), alt, n_columns=len(ways))
    for ax, (title, way) in zip(axes, ways.items()):
        t = torch.linspace(0, 1, len(way))
        for z in way.cpu().T:
            ax.plot(t, z, **({"color": BLUE} if z[-1] > 0 else {"color": ORANGE, "ls": "--"}))
        ax.set(title=title, xlabel="t", ylabel="z")
        ax.grid(alpha=0.3)
        ax.label_outer()
    return fig


def aggregate_posterior(z: Tensor, *, alt: str = "") -> Figure:
    """Draw draws of q(z|x) over many images `(N, L)` against N(0, 1): pooled, and a dimension."""
    z = z.cpu()
    fig, (left, right) = _panels((WIDTH, 3.2), alt, n_columns=2)
    style = {"color": "#9fc5e8", "label": _("clouds")}
    left.hist(z.flatten(), bins=120, range=(-4, 4), density=True, **style)
    x = torch.linspace(-4, 4, 200)
    density = torch.exp(-0.5 * x.square()) / math.sqrt(2 * math.pi)
    left.plot(x, density, label=_("prior N(0, 1)"), **STYLES["prior"])
    left.set(xlabel=_("z, all dimensions pooled"), ylabel=_("density"))
    left.legend(fontsize=8)
    right.errorbar(range(z.shape[1]), z.mean(0), z.std(0), fmt="o", color=BLUE, capsize=2)
    right.hlines([-1, 0, 1], -1, z.shape[1], "black", linestyles=["-", ":", "-"], linewidth=0.8)
    right.set(xlabel=_("latent dimension"), ylabel=_("mean ± standard deviation"), ylim=(-2, 2))
    right.locator_params("x", integer=True, min_n_ticks=3)
    return fig


def kl_bars(kl: Tensor, active: Tensor, *, alt: str = "") -> Figure:
    """Draw the KL of each latent dimension, sorted, unused ones hatched."""
    order = kl.argsort(descending=True).tolist()
    fig, (ax,) = _panels((WIDTH * 0.85, 2.8), alt)
    colours, hatches = zip(*((BLUE, "") if active[j] else ("white", "///") for j in order))
    ax.bar(range(len(order)), kl[order].tolist(), color=colours, hatch=hatches, edgecolor=BLUE)
    ax.set_xticks(range(len(order)), order, fontsize=8 if len(order) <= 32 else 4)
    ax.set(xlabel=_("latent dimension, most used first"), ylabel=_("KL (nats per image)"))
    return fig


# --- small parts ----------------------------------------------------------------------------------


def unsigned_zeros(text: object) -> str:
    """Return a text in which each number that was rounded to zero has lost its minus sign."""
    return re.sub(r"(?<![\w.])[-−](?=0(\.0+)?(?![\w.]))", "", str(text))


def _panels(
    size: tuple[float, float], alt: str, n_rows: int = 1, n_columns: int = 1
) -> tuple[Figure, list]:
    """Make a figure without overlap and its axes, and close it: only the caller holds it."""
    fig, axes = plt.subplots(n_rows, n_columns, figsize=size, layout="constrained", squeeze=False)
    plt.close(fig)
    # IPython asks this for what goes with a picture; the picture itself it gets from matplotlib.
    fig._repr_mimebundle_ = lambda **_: ({}, {"image/png": {"alt": alt}} if alt else {})
    return fig, list(axes.flat)


def _show(ax: Axes, images: Tensor, n_columns: int, gap: int = 0, **options) -> None:
    ax.imshow(tile(images, n_columns, gap), cmap="gray", vmin=0, vmax=1, **options)


def _show_apart(ax: Axes, images: Tensor, n_columns: int, **options) -> None:
    """Show images that are no neighbours: but for MNIST's black borders, one would run into the
    next."""
    channels, side, _ = square_shape(images[0].numel())
    edges = tile(images, len(images))[[0, -1]]  # the rows at the top and the bottom
    as_mnist = (channels, side) == (1, SIDE) and edges.mean() < 0.1
    gap = 0 if as_mnist else math.ceil(side / 32)
    crisp = "nearest" if side <= 40 else None  # a larger one has more pixels than are drawn of it
    _show(ax, images, n_columns, gap, interpolation=crisp, **options)


def _scatter_classes(ax: Axes, points: Tensor, labels: Tensor, class_names: Sequence[str]) -> None:
    points, labels = points.cpu(), labels.cpu()
    ax.scatter(*points.T, s=3, alpha=0.5, c=labels % 10, cmap="tab10", vmin=0, vmax=9, lw=0)
    for label in labels.unique().tolist():
        if len(class_names[label]) == 1:  # as digits are: some points as themselves, for grey
            some = points[labels == label][:50]
            style = {"marker": f"${class_names[label]}$", "color": CLASS_COLOURS[label % 10]}
            ax.scatter(*some.T, s=28, lw=0.3, **style)
    _name_classes(ax, points, labels, class_names)


def _name_classes(ax: Axes, points: Tensor, labels: Tensor, class_names: Sequence[str]) -> None:
    """Write each class's name at its centre, framed in its colour: readable in grey too."""
    style = {"ha": "center", "va": "center", "fontsize": 9, "fontweight": "bold"}
    most = min(20, len(labels.unique()))  # of more, not even the names would fit
    for label in labels.bincount().topk(most).indices.sort().values.tolist():
        centre = points[labels == label].median(dim=0).values.tolist()
        box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": CLASS_COLOURS[label % 10]}
        ax.annotate(class_names[label], centre, **style, bbox=box | {"alpha": 0.85})


def _prior_circles(ax: Axes) -> None:
    style = {"ha": "center", "va": "bottom", "fontsize": 9, "path_effects": OUTLINE}
    for radius, line in ((1, "--"), (2, "-")):
        ax.add_patch(Circle((0, 0), radius, fill=False, linestyle=line, linewidth=1.2))
        ax.annotate(f"{radius}σ", (0, radius), **style)


def _as_planes(fig: Figure, xlabel: str, ylabel: str) -> Figure:
    """Label the axes of each panel, in one scale, and move what is written in it apart until
    nothing covers another, with a line from what had to go far to its place."""
    for ax in fig.axes:
        ax.set(xlabel=xlabel, ylabel=ylabel)
        ax.set_aspect("equal", adjustable="datalim")
    fig.draw_without_rendering()  # from now on a place in a panel is a place in the picture
    for ax in fig.axes:
        boxes = np.array([text.get_window_extent().get_points() for text in ax.texts])
        places, sizes = boxes.mean(axis=1), np.ptp(boxes, axis=1) + 6  # pixels
        starts, (low, high) = places.copy(), ax.bbox.get_points()
        for _round in range(100):
            for i, j in combinations(range(len(places)), 2):
                apart = places[i] - places[j]
                overlap = (sizes[i] + sizes[j]) / 2 - np.abs(apart)
                if (overlap > 0).all():
                    side = overlap.argmin()  # the shorter way out
                    step = math.copysign(overlap[side] / 2, apart[side])
                    places[[i, j], side] += (step, -step)
            places = places.clip(low + sizes / 2, high - sizes / 2)
        to_data = ax.transData.inverted().transform
        for text, start, place, size in zip(ax.texts, starts, places, sizes):
            x, y = to_data(ax.transData.transform(text.get_position()) + place - start)
            text.set_position((x, y))
            if (np.abs(place - start) > size / 2).any():
                line = np.transpose(to_data([start, place]))
                ax.plot(*line, color="black", linewidth=0.8, scalex=False, scaley=False)
    return fig
