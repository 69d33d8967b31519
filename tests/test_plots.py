"""plots: what the figures hold, and say of themselves. How they look is for eyes."""

import inspect
from itertools import combinations
from types import SimpleNamespace

import nbformat
import pytest
import torch
from bs4 import BeautifulSoup
from IPython.core.formatters import DisplayFormatter
from IPython.core.pylabtools import select_figure_formats
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from nbconvert import HTMLExporter
from refresh import cleaned

from vae_lesson.teaching import plots

ALT = """Bars: <z> has "3" nats & more."""


def test_rate_distortion_holds_every_point_and_the_lowest_elbo():
    for shift in (0, -800):  # a density's distortion is negative
        points = {1.0: (25.0, 80.0 + shift), 4.0: (11.0, 109.0 + shift), 0.1: (50.0, 69.0 + shift)}
        (ax,) = plots.rate_distortion(points).axes
        *_, lowest, line = ax.lines
        assert line.get_xdata().tolist() == [50.0, 25.0, 11.0]  # in the order of beta
        assert lowest.get_slope() == -1 and lowest.get_xy1() == (0, 105 + shift)
        low, high = ax.get_ylim()
        assert low < 69 + shift and high > 109 + shift
        assert {"β = 0.1", "β = 1", "β = 4"} <= {text.get_text() for text in ax.texts}


def test_lines_are_told_apart_without_colour_and_whole_numbers_stay_whole():
    curves = {name: (range(1, 6), [1, 2, 3, 4, 5]) for name in "abc"}
    (ax,) = plots.lines(curves, "x", "y").axes
    assert len({line.get_linestyle() for line in ax.lines}) == 3
    assert all(float(tick).is_integer() for tick in ax.get_xticks())


def test_what_lies_beyond_the_axis_of_histograms_is_said():
    groups = {"near": torch.tensor([10.0, 20, 30]), "far": torch.tensor([20.0, 1500])}
    figure = plots.histograms(groups, "nats", mark=("threshold", 25), upto=40)
    near, far = figure.axes
    assert near.get_xlim() == far.get_xlim() == (10, 40)
    assert [text.get_text() for text in near.texts] == []
    assert [text.get_text() for text in far.texts] == ["50.0% beyond, up to 1,500 →"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["near", "threshold"]


def test_a_caption_of_several_columns_is_set_off_by_a_gap():
    rows = {"a": torch.zeros(4, 4), "b": torch.zeros(2, 4)}
    for columns, gaps in [(["rebuilt", "", "drawn", ""], [1.5]), (["w", "x", "y", "z"], [])]:
        for ax in plots.image_rows(rows, columns).axes:
            assert [line.get_xdata()[0] for line in ax.lines] == gaps


RED, WHITE = (1, 0, 0), (1, 1, 1)


def dots(shape, places):
    """Return floats `(n, *shape)`, black with one pixel that is red, in grey white, at (i, j)."""
    images = torch.zeros(len(places), *shape)
    for image, (i, j) in zip(images, places):
        image[0, i, j] = 1
    return images


def shown_at(array, i, j):
    """Return the pixel of a picture, of a grey one too, as (red, green, blue)."""
    return tuple(array[i, j]) if array.ndim == 3 else 3 * (array[i, j],)


both_kinds = pytest.mark.parametrize("shape", [(1, 12, 12), (3, 12, 12)], ids=["grey", "colour"])


@both_kinds
def test_tiles_keep_every_pixel_in_its_place_and_colour(shape):
    places = [(2, 3), (5, 11), (0, 7)]
    images, dot = dots(shape, places), WHITE if shape[0] == 1 else RED
    for given in (images, images.flatten(1), (255 * images).byte().squeeze(1)):
        tiled = plots.tile(given, 2)
        assert tiled.shape[:2] == (24, 24)
        for (top, left), (i, j) in zip([(0, 0), (0, 12), (12, 0)], places):
            assert shown_at(tiled, top + i, left + j) == dot
            tiled[top + i, left + j] = 0
        assert not tiled[:12].any() and not tiled[12:, :12].any()  # black but for the dots
        assert (tiled[12:, 12:] == 1).all()  # no image
    apart = plots.tile(images, 2, gap=1)
    assert apart.shape[:2] == (26, 26) and shown_at(apart, 5, 13 + 11) == dot
    assert (apart[12] == 1).all() and (apart[:, 12] == 1).all()


@both_kinds
def test_figures_of_images_are_tiles_in_their_colour(shape):
    images = dots(shape, [(2, 3), (5, 11), (0, 7), (4, 4)])
    for figure, number, tiled in [
        (plots.image_grid(images, 2), 0, plots.tile(images, 2, gap=1)),
        (plots.image_rows({"a": images[:2], "b": images[2:]}), 1, plots.tile(images[2:], 2, gap=1)),
        (plots.manifolds({"a": (images, (-3, 3, -3, 3))}), 0, plots.tile(images, 2)),  # one plane
    ]:
        (picture,) = figure.axes[number].images
        assert (picture.get_array() == tiled).all()
        figure.draw_without_rendering()


def test_the_black_borders_of_mnist_need_no_gap_and_noise_does():
    black, bright = torch.zeros(4, 28, 28), torch.full((4, 784), 0.5)
    for images, size in ((black, 56), (bright, 58), ((255 * bright).byte(), 58)):
        (picture,) = plots.image_grid(images, 2).axes[0].images
        assert picture.get_array().shape == (size, size)


def test_colours_a_little_outside_are_drawn_without_a_warning(caplog):
    plots.image_grid(torch.full((2, 27), 1.2)).draw_without_rendering()  # a linear decoder's
    assert caplog.records == []


def test_images_that_are_not_square_are_not_drawn():
    for draw in (plots.image_grid, lambda x: plots.image_rows({"a": x})):
        with pytest.raises(ValueError, match="24 values are no square image, grey or in colour"):
            draw(torch.zeros(3, 24))


# --- what is said of a picture --------------------------------------------------------------------


def shown(figure: Figure) -> nbformat.NotebookNode:
    """Return the output that a notebook keeps of a figure."""
    formatter = DisplayFormatter()
    select_figure_formats(SimpleNamespace(display_formatter=formatter), {"png"})
    bundle, metadata = formatter.format(figure)
    return nbformat.v4.new_output("display_data", bundle, metadata=metadata)


def test_every_figure_can_be_described():
    public = [f for name, f in inspect.getmembers(plots, inspect.isfunction) if name[0] != "_"]
    signatures = map(inspect.signature, public)
    drawn = [signature for signature in signatures if signature.return_annotation is Figure]
    assert len(drawn) == 12
    for alt in (signature.parameters["alt"] for signature in drawn):
        assert (alt.kind, alt.default) == (alt.KEYWORD_ONLY, "")


def test_a_description_is_in_the_committed_lesson_and_in_the_page_made_of_it():
    output = shown(plots.kl_bars(torch.tensor([3.0, 0.0]), torch.tensor([True, False]), alt=ALT))
    output.metadata.filenames = {"image/png": "of-one-machine.png"}
    cell = nbformat.v4.new_code_cell("plots.kl_bars(...)", outputs=[output])
    notebook = cleaned(nbformat.v4.new_notebook(cells=[cell]))
    assert notebook.cells[0].outputs[0].metadata == {"image/png": {"alt": ALT}}
    # nbconvert's default template, "lab", has forgotten `alt` (7.17).
    page, _ = HTMLExporter(template_name="classic").from_notebook_node(notebook)
    assert [image["alt"] for image in BeautifulSoup(page, "html.parser").select("img")] == [ALT]
    assert "No description has been provided" not in page


def test_a_figure_that_is_not_described_says_nothing_of_itself():
    output = shown(plots.image_grid(torch.zeros(3, 4)))
    assert "image/png" in output.data and output.metadata == {}


# --- words in a picture ---------------------------------------------------------------------------


@pytest.mark.parametrize("draw", ["code_maps", "posterior_ellipses"])
def test_no_name_of_a_class_covers_another_and_circles_are_circles(draw):
    labels = torch.arange(200) % 10
    points = 1e-3 * torch.randn((200, 2), generator=torch.Generator().manual_seed(0))
    points[0, 0] = 30  # a wide plane
    names = [f"Kind {i}" for i in range(10)]
    if draw == "code_maps":
        figure = plots.code_maps({"a": points, "b": points}, labels, names)
    else:
        figure = plots.posterior_ellipses(points, points.new_full((200, 2), -3.0), labels, names)
    figure.draw_without_rendering()
    for ax in figure.axes:
        assert len(ax.texts) == (10 if draw == "code_maps" else 12)  # with 1σ and 2σ
        boxes = [text.get_window_extent() for text in ax.texts]
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
        for box in boxes:
            assert ax.bbox.contains(box.x0, box.y0) and ax.bbox.contains(box.x1, box.y1)
        (x0, y0), (x1, y1) = ax.transData.transform([(0, 0), (1, 1)])
        assert x1 - x0 == pytest.approx(y1 - y0)


def test_paths_go_from_rings_to_heads_over_one_grey():
    way = torch.tensor([[[0.0, 0.0], [1, 1]], [[0.5, 0], [1, 2]], [[0.5, 1], [0, 2]]])
    (ax,) = plots.paths(way, torch.tensor([[3.0, 0.0], [1.0, 2.0]])).axes
    drawn = torch.stack([torch.as_tensor(line.get_xydata()) for line in ax.lines], dim=1)
    torch.testing.assert_close(drawn.float(), way)
    cloud, rings, mean = (part.get_offsets().tolist() for part in ax.collections)
    assert len(cloud) == 2 and rings == way[0].tolist() and mean == [[2.0, 1.0]]
    heads = [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]
    for head, end in zip(heads, way[-1].double(), strict=True):
        outline = torch.as_tensor(head.get_path().vertices)
        assert (outline - end).norm(dim=1).min() < 0.03  # a pen's width before it


def test_points_that_end_below_zero_can_be_told_in_grey():
    way = torch.tensor([[1.0, 0.5], [0.5, -0.5], [1.0, -1.0]])
    left, right = plots.paths_in_time({"a": way, "b": way.flip(0)}).axes
    assert [line.get_linestyle() for line in left.lines] == ["-", "--"]
    assert [line.get_linestyle() for line in right.lines] == ["-", "-"]
    assert left.lines[1].get_xydata().tolist() == [[0, 0.5], [0.5, -0.5], [1, -1]]


def test_names_of_classes_that_lie_apart_stay_where_the_classes_are():
    labels = torch.arange(3)
    points = torch.tensor([[0.0, 0.0], [5.0, 1.0], [1.0, 5.0]])
    (ax,) = plots.code_maps({"a": points}, labels, "abc").axes
    places = torch.tensor([text.get_position() for text in ax.texts])
    torch.testing.assert_close(places.float(), points)
    assert not ax.lines  # nothing had to be moved


def test_a_zero_has_no_sign():
    for text, shown in [("−0.00", "0.00"), ("-0", "0"), ("-0.0 ± 0.1, -0.00°", "0.0 ± 0.1, 0.00°")]:
        assert plots.unsigned_zeros(text) == shown
    for text in ("-0.01", "-0.5", "1-0", "x-0.0", "784-400-20"):
        assert plots.unsigned_zeros(text) == text


def test_no_caption_says_minus_zero():
    caption = f"{-1e-9:.1f}"
    top, _ = plots.image_rows({caption: torch.zeros(2, 4), "b": torch.zeros(2, 4)}, [caption]).axes
    assert top.get_ylabel() == "0.0"
    assert [tick.get_text() for tick in top.get_xticklabels()] == ["0.0"]
