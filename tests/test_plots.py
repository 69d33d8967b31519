"""plots: what the figures of the last lessons hold. How they look is for eyes."""

from vae_lesson.teaching import plots


def test_rate_distortion_holds_every_point_and_the_learners_run():
    for shift in (0, -800):  # a density's distortion is negative
        points = {1.0: (25.0, 80.0 + shift), 4.0: (11.0, 109.0 + shift), 0.1: (50.0, 69.0 + shift)}
        (ax,) = plots.rate_distortion(points, own=(24.0, 81.0 + shift)).axes
        *_, line, star = ax.lines
        assert line.get_xdata().tolist() == [50.0, 25.0, 11.0]  # in the order of beta
        assert star.get_xydata().tolist() == [[24.0, 81.0 + shift]]
        low, high = ax.get_ylim()
        assert low < 69 + shift and high > 109 + shift
        assert {"β = 0.1", "β = 1", "β = 4"} <= {text.get_text() for text in ax.texts}


def test_lines_are_told_apart_without_colour_and_whole_numbers_stay_whole():
    curves = {name: (range(1, 6), [1, 2, 3, 4, 5]) for name in "abc"}
    (ax,) = plots.lines(curves, "x", "y").axes
    assert len({line.get_linestyle() for line in ax.lines}) == 3
    assert all(float(tick).is_integer() for tick in ax.get_xticks())
