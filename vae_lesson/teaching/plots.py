"""Every figure of the course. A function draws what it is given and returns the figure.

The same thing has the same colour, line and marker in all lessons, and each pair can be told apart
in grey too. Figures are closed before they are returned, so that a notebook shows each one once,
as the last value of its cell, and none stays in memory.
"""

import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse
from torch import Tensor

from vae_lesson.running.run import History

WIDTH = 8.5  # inches: the width of a notebook's cell
# Dark to light as well as hue, for readers and printers without colour.
STYLES = {
    "PCA": {"color": "#7f7f7f", "linestyle": ":", "marker": "s"},
    "autoencoder": {"color": "#d55e00", "linestyle": "--", "marker": "^"},
    "VAE": {"color": "#0b5394", "linestyle": "-", "marker": "o"},
    "prior": {"color": "#000000", "linestyle": "-", "marker": None},
    "lerp": {"color": "#d55e00", "linestyle": "--", "marker": "^"},
    "slerp": {"color": "#0b5394", "linestyle": "-", "marker": "o"},
    "exact": {"color": "#000000", "linestyle": (0, (6, 3)), "marker": None, "linewidth": 1},
}
LINES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))]
CLASS_COLOURS = plt.get_cmap("tab10").colors


# --- images ---------------------------------------------------------------------------------------


def image_grid(images: Tensor, n_columns: int = 8, title: str = "") -> Figure:
    """Draw images `(N, ...)`, uint8 or floats in [0, 1], in a grid."""
    n_rows = math.ceil(len(images) / n_columns)
    size = min(WIDTH / n_columns, 0.7)
    fig, ax = _subplots(size=(size * n_columns, size * n_rows + 0.3 * bool(title)))
    ax.imshow(tile(images, n_columns), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_axis_off()
    ax.set_title(title, fontsize=11)
    return fig


def image_rows(
    rows: dict[str, Tensor], columns: list[str] | None = None, title: str = ""
) -> Figure:
    """Draw one labelled row of images for each entry; `columns` are captions over the first row."""
    n_columns = max(len(images) for images in rows.values())
    size = min((WIDTH - 1.7) / n_columns, 0.75)
    height = size * len(rows) + 0.25 * bool(columns) + 0.35 * bool(title) + 0.1
    fig, axes = _subplots(len(rows), 1, size=(size * n_columns + 1.7, height), squeeze=False)
    for ax, (name, images) in zip(axes[:, 0], rows.items()):
        strip = tile(images, n_columns)
        ax.imshow(strip, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
        ax.spines[:].set_visible(False)
    if columns:
        side = strip.shape[0]
        ax = axes[0, 0]
        ax.set_xticks([(i + 0.5) * side for i in range(len(columns))], columns, fontsize=8)
        ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    if title:
        fig.suptitle(title, fontsize=11)
    return fig


def manifold(images: Tensor, extent: tuple | None = None, title: str = "") -> Figure:
    """Draw an n × n grid of decoded images as one picture of the plane they were decoded from."""
    return manifolds({title: (images, extent)}, size=6.0)


def manifolds(grids: dict[str, tuple[Tensor, tuple | None]], size: float = WIDTH / 2) -> Figure:
    """Draw {title: (images, extent)} side by side; extent = (left, right, bottom, top) in z."""
    fig, axes = _subplots(1, len(grids), size=(size * len(grids), size + 0.2), squeeze=False)
    for ax, (title, (images, extent)) in zip(axes[0], grids.items()):
        grid = tile(images, math.isqrt(len(images)))
        ax.imshow(grid, cmap="gray", vmin=0, vmax=1, extent=extent, aspect="auto")
        ax.set_title(title, fontsize=11)
        if extent is None:  # Gaussian quantiles: the axes are no even scale
            ax.set(xticks=[], yticks=[])
        ax.set(xlabel="z₁", ylabel="z₂")
    return fig


def tile(images: Tensor, n_columns: int) -> np.ndarray:
    """Return images `(N, ...)` side by side as one array in [0, 1], missing ones white."""
    images = torch.as_tensor(images).detach().cpu()
    images = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    side = math.isqrt(images[0].numel())
    n_rows = math.ceil(len(images) / n_columns)
    cells = torch.ones(n_rows * n_columns, side, side)
    cells[: len(images)] = images.reshape(-1, side, side)
    cells = cells.reshape(n_rows, n_columns, side, side).permute(0, 2, 1, 3)
    return cells.reshape(n_rows * side, n_columns * side).numpy()


# --- curves ---------------------------------------------------------------------------------------


def lines(
    curves: dict[str, tuple[list, list]], xlabel: str, ylabel: str, log: str = "", title: str = ""
) -> Figure:
    """Draw {name: (x, y)}; `log` names the logarithmic axes ("x", "y" or "xy")."""
    fig, ax = _subplots(size=(WIDTH * 0.75, 3.6))
    for i, (name, (x, y)) in enumerate(curves.items()):
        style = {"marker": "." if len(x) < 30 else None, "linestyle": LINES[i % len(LINES)]}
        style = STYLES.get(name, style)
        ax.plot(x, y, label=name, **style)
    if "x" in log:
        ax.set_xscale("log", base=2)
        ax.set_xticks(next(iter(curves.values()))[0])
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_locator(plt.NullLocator())
    elif all(float(value).is_integer() for x, _ in curves.values() for value in x):
        ax.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
    if "y" in log:
        ax.set_yscale("log")
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    ax.legend()
    ax.grid(alpha=0.3)
    return fig


def training_curves(history: History) -> Figure:
    """Draw the two terms and their sum, training and test, over the epochs."""
    has_kl = any(history.kl)
    panels = [("recon", "recon" if has_kl else "squared error")]
    panels += [("kl", "KL"), ("neg_elbo", "−ELBO = recon + KL")] if has_kl else []
    fig, axes = _subplots(1, len(panels), size=(WIDTH if has_kl else WIDTH / 2, 2.9), squeeze=False)
    for ax, (name, title) in zip(axes[0], panels):
        for values, label, style in [
            (getattr(history, name), "train", {"color": "#7f7f7f", "linestyle": "--"}),
            (getattr(history, f"test_{name}"), "test", {"color": "#0b5394", "marker": "."}),
        ]:
            if values:
                ax.plot(range(1, len(values) + 1), values, label=label, **style)
        ax.set(xlabel="epoch", title=title)
        ax.grid(alpha=0.3)
        ax.xaxis.set_major_locator(plt.MaxNLocator(integer=True, nbins=6))
    axes[0, 0].set_ylabel("nats per image" if has_kl else "squared intensity per image")
    if len(history):
        axes[0, 0].legend()
    return fig


def estimators(estimates: dict[str, Tensor], truth: float) -> Figure:
    """Draw histograms of several estimators of one number, on one axis, with the truth marked."""
    fig, axes = _subplots(len(estimates), 1, size=(WIDTH * 0.75, 1.5 * len(estimates)), sharex=True)
    span = max(np.abs(np.asarray(values) - truth).max() for values in estimates.values())
    bins = np.linspace(truth - span, truth + span, 121)
    for ax, (name, values) in zip(np.atleast_1d(axes), estimates.items()):
        ax.hist(np.asarray(values), bins=bins, color="#0b5394")
        ax.axvline(truth, color="#d55e00", linestyle="--", label=f"true gradient {truth:g}")
        ax.set_title(f"{name}: standard deviation {values.std().item():.3g}", fontsize=10)
        ax.set_yticks([])
    ax.set_xlabel("estimate of the gradient from one sample")
    np.atleast_1d(axes)[0].legend()
    return fig


def kl_surface(mu: Tensor, sigma: Tensor, kl: Tensor) -> Figure:
    """Draw KL `(len(sigma), len(mu))` of N(mu, σ²) from N(0, 1) as contours over mu and σ."""
    fig, ax = _subplots(size=(WIDTH * 0.7, 3.8))
    levels = [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 4, 5]
    filled = ax.contourf(mu, sigma, kl, levels=[0, *levels], cmap="Blues", extend="max")
    contours = ax.contour(mu, sigma, kl, levels=levels, colors="black", linewidths=0.6)
    ax.clabel(contours, fontsize=8)
    ax.plot(0, 1, "o", color="#d55e00")
    ax.annotate(
        "the prior: KL = 0",
        (0, 1),
        (1.2, 2.55),
        fontsize=9,
        arrowprops={"arrowstyle": "-", "color": "#d55e00"},
        bbox={"facecolor": "white", "lw": 0},
    )
    fig.colorbar(filled, label="KL (nats)")
    ax.set(xlabel="μ", ylabel="σ")
    return fig


def rate_distortion(
    points: dict[float, tuple[float, float]], own: tuple[float, float] | None = None
) -> Figure:
    """Draw {beta: (rate, distortion)}, a line through them, and the lines of equal −ELBO.

    `own` is the (rate, distortion) of one more run, marked with a star.
    """
    fig, ax = _subplots(size=(WIDTH * 0.75, 4.4))
    rates, distortions = zip(*(points[beta] for beta in sorted(points)))
    span = max(distortions) - min(distortions)
    limits = (0, max(rates) * 1.16, min(distortions) - 0.1 * span, max(distortions) + 0.1 * span)
    for total in np.arange(0, 2 * limits[3], 20):  # rate + distortion = total
        ax.plot([0, total], [total, 0], color="#bbbbbb", linewidth=0.8, zorder=0)
        if limits[2] < total < limits[3]:
            place = {"xytext": (4, 3), "textcoords": "offset points"}
            ax.annotate(f"−ELBO {total:g}", (0, total), **place, fontsize=7, color="#666666")
    ax.plot(rates, distortions, color="#0b5394", marker="o")
    for beta, (rate, distortion) in points.items():
        ax.annotate(
            f"β = {beta:g}", (rate, distortion), (7, 6), textcoords="offset points", fontsize=9
        )
    if own is not None:
        ax.plot(*own, "*", markersize=15, color="#d55e00", label="your run of lesson 02")
        ax.legend()
    ax.set(xlabel="rate: KL, nats per image", ylabel="distortion: recon, nats per image")
    ax.axis(limits)
    return fig


def roc(curves: dict[str, tuple[np.ndarray, np.ndarray, float]]) -> Figure:
    """Draw {name: (false positive rate, true positive rate, area)}."""
    fig, ax = _subplots(size=(5.2, 4.2))
    for i, (name, (false_positive, true_positive, area)) in enumerate(curves.items()):
        style = {"linestyle": LINES[i % len(LINES)], "color": CLASS_COLOURS[i % 10]}
        ax.plot(false_positive, true_positive, label=f"{name}: area {area:.3f}", **style)
    ax.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1, zorder=0)
    ax.set(xlabel="false alarms: normal images flagged", ylabel="anomalies flagged", aspect="equal")
    ax.legend(loc="lower right", fontsize=8)
    return fig


def score_histograms(scores: dict[str, Tensor], xlabel: str) -> Figure:
    """Draw the distribution of a score for several groups of images on one logarithmic axis."""
    fig, ax = _subplots(size=(WIDTH * 0.8, 3.4))
    pooled = torch.cat(list(scores.values())).clamp_min(1).log10()
    bins = np.logspace(pooled.min().item(), pooled.max().item(), 70)
    for i, (name, values) in enumerate(scores.items()):
        style = {"histtype": "stepfilled", "color": "#bbbbbb"}
        if i > 0:  # the others as in `roc`
            line = LINES[(i - 1) % len(LINES)]
            style = {"histtype": "step", "color": CLASS_COLOURS[(i - 1) % 10], "linestyle": line}
        ax.hist(values.cpu(), bins=bins, density=True, label=name, linewidth=1.5, **style)
    ax.set_xscale("log")
    ax.set(xlabel=xlabel, ylabel="density", yticks=[])
    ax.legend(fontsize=9)
    return fig


# --- latent spaces --------------------------------------------------------------------------------


def code_maps(
    maps: dict[str, Tensor],
    labels: Tensor,
    class_names: tuple[str, ...],
    circles: bool = False,
    axes_names: tuple[str, str] = ("z₁", "z₂"),
) -> Figure:
    """Draw 2-D codes coloured by class, a panel an entry; `circles` adds the prior's 1σ and 2σ."""
    width = WIDTH if len(maps) > 1 else 6.2
    size = width / len(maps)
    fig, axes = _subplots(1, len(maps), size=(width + 1.0, size + 0.1), squeeze=False)
    for ax, (title, points) in zip(axes[0], maps.items()):
        _scatter_classes(ax, points, labels, class_names)
        if circles:
            _prior_circles(ax)
        ax.set(xlabel=axes_names[0], ylabel=axes_names[1])
        ax.set_title(title, fontsize=11)
    _class_legend(axes[0, -1], class_names)
    return fig


def plane(
    points: Tensor,
    labels: Tensor,
    class_names: tuple[str, ...],
    low: list[float],
    high: list[float],
) -> Figure:
    """Draw 2-D codes coloured by class over the prior's 1σ and 2σ circles, edge to edge.

    The axes fill the figure, so that a place in the picture is a place in the plane: low at the
    bottom left, high at the top right. The numbers along them are inside.
    """
    fig = Figure(figsize=(5, 5))
    ax = fig.add_axes((0, 0, 1, 1))
    _scatter_classes(ax, points, labels, class_names)
    _prior_circles(ax)
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    ax.tick_params(direction="in", labelsize=9, pad=-4)
    for axis, (start, end) in [(ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())]:
        margin = (end - start) / 20  # a number at a corner would be cut
        axis.set_ticks([t for t in axis.get_ticklocs() if start + margin < t < end - margin])
    for label in ax.get_xticklabels():
        label.set_verticalalignment("bottom")
    for label in ax.get_yticklabels():
        label.set_horizontalalignment("left")
    return fig


def posterior_ellipses(
    mu: Tensor, log_var: Tensor, labels: Tensor, class_names: tuple[str, ...]
) -> Figure:
    """Draw each q(z|x) of 2-D codes as its 2σ ellipse, over the prior's 1σ and 2σ circles."""
    fig, ax = _subplots(size=(7.2, 6.2))
    mu, sigma, labels = mu.cpu(), torch.exp(0.5 * log_var).cpu(), labels.cpu()
    for m, s, label in zip(mu.tolist(), sigma.tolist(), labels.tolist()):
        ax.add_patch(Ellipse(m, 4 * s[0], 4 * s[1], alpha=0.5, color=CLASS_COLOURS[label % 10]))
    _prior_circles(ax)
    ax.scatter(*mu.T, s=2, color="black")
    limit = max(2.3, mu.abs().max().item() + 0.4)
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xlabel="z₁", ylabel="z₂")
    _class_legend(ax, class_names)
    return fig


def aggregate_posterior(z: Tensor) -> Figure:
    """Draw draws of q(z|x) over many images `(N, L)` against N(0, 1): pooled, and a dimension."""
    z = z.cpu()
    fig, (left, right) = _subplots(1, 2, size=(WIDTH, 3.2))
    left.hist(z.flatten(), bins=120, range=(-4, 4), density=True, color="#9fc5e8", label="encoded")
    x = torch.linspace(-4, 4, 200)
    density = torch.exp(-0.5 * x.square()) / math.sqrt(2 * math.pi)
    left.plot(x, density, label="prior N(0, 1)", **STYLES["prior"])
    left.set(xlabel="z, all dimensions pooled", ylabel="density")
    left.legend(fontsize=8)
    dimension = range(z.shape[1])
    right.errorbar(dimension, z.mean(0), z.std(0), fmt="o", color="#0b5394", capsize=2)
    for level in (-1, 0, 1):
        right.axhline(level, color="black", linewidth=0.8, linestyle="-" if level else ":")
    right.set(xlabel="latent dimension", ylabel="mean ± standard deviation", ylim=(-2, 2))
    right.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
    return fig


def kl_bars(kl: Tensor, active: Tensor) -> Figure:
    """Draw the KL of each latent dimension, sorted, unused ones hatched."""
    order = kl.argsort(descending=True).tolist()
    fig, ax = _subplots(size=(WIDTH * 0.85, 2.8))
    for place, j in enumerate(order):
        style = {"color": "#0b5394"} if active[j] else {"color": "white", "hatch": "///"}
        ax.bar(place, kl[j].item(), edgecolor="#0b5394", **style)
    ax.set_xticks(range(len(order)), order, fontsize=8 if len(order) <= 32 else 4)
    ax.set(xlabel="latent dimension, most used first", ylabel="KL (nats per image)")
    return fig


def attribute_response(t: Tensor, responses: dict[str, Tensor], ylabel: str) -> Figure:
    """Draw what a measured attribute does as codes move along its direction: median, quartiles."""
    fig, ax = _subplots(size=(WIDTH * 0.6, 3.0))
    for i, (name, values) in enumerate(responses.items()):
        low, middle, high = (torch.quantile(values, q, dim=0).cpu() for q in (0.25, 0.5, 0.75))
        (line,) = ax.plot(t.cpu(), middle, linestyle=LINES[i % len(LINES)], label=name)
        ax.fill_between(t.cpu(), low, high, alpha=0.2, color=line.get_color())
    ax.set(xlabel="asked for: steps along the direction, in units of the attribute", ylabel=ylabel)
    ax.legend(fontsize=9)
    ax.grid(alpha=0.3)
    return fig


# --- small parts ----------------------------------------------------------------------------------


def _subplots(*shape: int, size: tuple[float, float], **options):
    """plt.subplots, laid out without overlap and closed: only the caller holds the figure."""
    fig, axes = plt.subplots(*shape, figsize=size, layout="constrained", **options)
    plt.close(fig)
    return fig, axes


def _scatter_classes(ax, points: Tensor, labels: Tensor, class_names: tuple[str, ...]) -> None:
    points, labels = points.cpu(), labels.cpu()
    for label in range(len(class_names)):
        ax.scatter(
            *points[labels == label].T,
            s=3,
            alpha=0.5,
            color=CLASS_COLOURS[label % 10],
            linewidths=0,
        )
        if (labels == label).any():  # the name at the centre: readable without colour
            centre = points[labels == label].median(dim=0).values.tolist()
            ax.annotate(
                class_names[label],
                centre,
                ha="center",
                va="center",
                fontsize=9,
                fontweight="bold",
                bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.75, "lw": 0},
            )


def _class_legend(ax, class_names: tuple[str, ...]) -> None:
    handles = [
        plt.Line2D([], [], marker="o", linestyle="", color=CLASS_COLOURS[i % 10], label=name)
        for i, name in enumerate(class_names)
    ]
    ax.legend(
        handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False
    )


def _prior_circles(ax) -> None:
    for radius, style in ((1, "--"), (2, "-")):
        ax.add_patch(Circle((0, 0), radius, fill=False, linestyle=style, linewidth=1.2))
        ax.annotate(f"{radius}σ", (0, radius), fontsize=9, ha="center", va="bottom")
