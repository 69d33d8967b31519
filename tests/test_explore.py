"""The explorers without a browser: their state, callbacks, stills, errors, and what they leave."""

import asyncio
import base64
import dataclasses
import gc
import inspect
import io
import itertools
import random
import re
import sys
import weakref
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import ipywidgets as widgets
import numpy as np
import pytest
import torch
import traitlets
from IPython.core.formatters import DisplayFormatter
from jupyter_client.manager import start_new_kernel
from PIL import Image, ImageDraw

from vae_lesson import data, evaluate, explore, latent, models
from vae_lesson.data import SIDE
from vae_lesson.explore import base, drawing, maps, morphs, parts, sliders
from vae_lesson.explore.parts import GAP, PICTURE, Pad, Picture, Plane, enlarged
from vae_lesson.priors import discrete

N_TRAIN, N_TEST = 60, 40
DARK = -4.0  # a decoder's bias that makes most pixels black, as in a trained one


def strokes(n: int, seed: int) -> torch.Tensor:
    """Return n images of a few random strokes, uint8 `(n, 28, 28)`."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        frame = Image.new("L", (SIDE, SIDE))
        points = [tuple(point) for point in rng.uniform(5, 23, (4, 2)).tolist()]
        ImageDraw.Draw(frame).line(points, fill=255, width=int(rng.integers(1, 5)))
        frames.append(np.asarray(frame))
    return torch.from_numpy(np.stack(frames))


@pytest.fixture(scope="module")
def images():
    """Sixty training and forty test images of strokes, the labels in turn."""
    names = tuple(f"kind {i} & more" for i in range(10))
    return data.Images(
        "strokes",
        strokes(N_TRAIN, 0),
        torch.arange(N_TRAIN) % 10,
        strokes(N_TEST, 1),
        torch.arange(N_TEST) % 10,
        names,
    )


def a_model(cls=models.VAE, latent_size: int = 5, **options):
    """Return a network that looks trained: dark where nothing is drawn, codes of about 1."""
    torch.manual_seed(0)
    model = cls(latent_size=latent_size, hidden_size=16, **options).eval()
    with torch.no_grad():
        model.decoder[-1].weight *= 4
        model.decoder[-1].bias += DARK
        model.encoder[-1].weight[:latent_size] *= 20
    return model.requires_grad_(False)


def with_kl(model, kl):
    """Return the VAE with each dimension's KL set to this, whatever the image."""
    with torch.no_grad():
        model.encoder[-1].weight.zero_()
        model.encoder[-1].bias.zero_()
        model.encoder[-1].bias[: len(kl)] = (2 * torch.as_tensor(kl)).sqrt()  # ½ mu² is the KL
    return model


@pytest.fixture
def vae():
    return a_model()


@pytest.fixture
def vae_2d():
    return a_model(latent_size=2)


@pytest.fixture
def autoencoder():
    return a_model(models.Autoencoder)


WEIGHTS = torch.randn((3, 64), generator=torch.Generator().manual_seed(1))


def function(z: torch.Tensor) -> torch.Tensor:
    """Decode codes `(n, 2)` or `(n, 3)` to 8×8 images: any decoder, with no model around it."""
    return torch.sigmoid(6 * (z @ WEIGHTS[: z.shape[1]])).reshape(-1, 8, 8)


def opened(value: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(value)))


def still_of(explorer) -> np.ndarray:
    bundle, _ = explorer._repr_mimebundle_()
    return opened(base64.b64decode(bundle["image/png"]))


def walk(widget) -> list:
    """Return all widgets inside this one."""
    inside = list(getattr(widget, "children", ()))
    return inside + [w for child in inside for w in walk(child)]


def visible(widget) -> list:
    """Return all widgets inside this one that a learner sees."""
    inside = [w for w in getattr(widget, "children", ()) if w.layout.display != "none"]
    return inside + [w for child in inside for w in visible(child)]


def find(explorer, kind, **starts: str) -> list:
    """Return the parts of one kind whose texts begin so: find(explorer, Picture, alt="code")."""
    return [
        w
        for w in walk(explorer)
        if isinstance(w, kind) and all(getattr(w, t).startswith(s) for t, s in starts.items())
    ]


def picture(explorer, alt: str) -> Picture:
    (found,) = find(explorer, Picture, alt=alt)
    return found


def decoded(decoder, z) -> np.ndarray:
    """Return what one code decodes to, without the explorer: uint8 `(side, side)`."""
    z = torch.as_tensor(np.asarray(z), dtype=torch.float32)[None]
    with torch.no_grad():
        x = getattr(decoder, "decode_mean", decoder)(z).flatten()
    side = round(len(x) ** 0.5)
    return (255 * x).round().byte().numpy().reshape(side, side)


def assert_same(image: np.ndarray, expected: np.ndarray) -> None:
    """Two uint8 images are the same; a batch of another size may round a pixel otherwise."""
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected.astype(int)).max() <= 1


def assert_shows(explorer, model) -> None:
    """The picture in the widget and `image` are what z decodes to, each pixel a square."""
    expected = enlarged(decoded(model, explorer.z))
    assert_same(opened(explorer.image), expected)
    assert_same(opened(picture(explorer, "decoded image").value), expected)


def button(explorer, text: str) -> widgets.Button:
    (found,) = find(explorer, widgets.Button, description=text)
    return found


def notice(explorer) -> str:
    return explorer.children[-1].value


def warning(explorer) -> str:
    shown = [w.value for w in visible(explorer) if isinstance(w, widgets.HTML)]
    return "".join(value for value in shown if "trained?" in value)


def n_widgets() -> int:
    return len(widgets.Widget.get_manager_state()["state"])


def numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(r"[\d,]+(?:\.\d+)?", text)]


# --- sliders --------------------------------------------------------------------------------------


def test_a_slider_moves_z_and_the_picture(vae):
    explorer = explore.latent_sliders(vae)
    before = explorer.image
    explorer.sliders[3].value = 2.1
    np.testing.assert_allclose(explorer.z, [0, 0, 0, 2.1, 0])
    assert explorer.sliders[3].value == 2.1  # float32 does not come back to it
    assert explorer.image != before
    assert_shows(explorer, vae)


def test_setting_z_moves_the_sliders_and_keeps_what_they_cannot_show(vae):
    explorer = explore.latent_sliders(vae)
    explorer.z = np.array([0.5, 1.0, 0.0, 0.0, -9.0])
    assert [s.value for s in explorer.sliders] == [0.5, 1.0, 0.0, 0.0, -3.0]  # -9 is out of range
    np.testing.assert_allclose(explorer.z, [0.5, 1, 0, 0, -9])
    assert_shows(explorer, vae)
    explorer.sliders[1].value = 2.0
    np.testing.assert_allclose(explorer.z, [0.5, 2, 0, 0, -9])


def test_sliders_are_ordered_by_kl_and_unused_ones_folded(vae, images):
    vae = with_kl(vae, [0.2, 0.001, 3.0, 0.0, 1.0])
    explorer = explore.latent_sliders(vae, test_images=images.test)
    assert [s.description for s in explorer.sliders] == ["z[2]", "z[4]", "z[0]", "z[1]", "z[3]"]
    (folded,) = find(explorer, widgets.Accordion)
    assert folded.selected_index is None
    assert folded.get_title(0) == "2 unused dimensions (KL under 0.01 nats)"
    assert explorer.sliders[3] in walk(folded) and explorer.sliders[2] not in walk(folded)
    explorer.sliders[3].value = 1.0  # folded away, but alive
    assert explorer.z[1] == 1.0


def test_every_dimension_can_be_unused(vae, images):
    explorer = explore.latent_sliders(with_kl(vae, [0.0] * 5), test_images=images.test)
    (folded,) = find(explorer, widgets.Accordion)
    assert all(slider in walk(folded) for slider in explorer.sliders)
    assert still_of(explorer).shape[0] >= PICTURE


def test_a_vaes_kl_is_computed_from_its_test_images(vae, autoencoder, images):
    mu, log_var = vae.encode(data.to_float(images.test))
    kl = 0.5 * (mu**2 + log_var.exp() - 1 - log_var).mean(dim=0)
    order = sorted(range(5), key=lambda j: -kl[j])
    assert order != list(range(5))
    explorer = explore.latent_sliders(vae, test_images=images.test)
    assert [s.description for s in explorer.sliders] == [f"z[{j}]" for j in order]
    # An autoencoder has no KL, and without images nobody knows it.
    for other in (
        explore.latent_sliders(autoencoder, test_images=images.test),
        explore.latent_sliders(vae),
    ):
        assert [s.description for s in other.sliders] == [f"z[{j}]" for j in range(5)]
        assert find(other, widgets.Accordion) == []


def test_sixty_four_dimensions_work(images):
    model = with_kl(a_model(latent_size=64), torch.linspace(0, 1, 64))
    explorer = explore.latent_sliders(model, test_images=images.test)
    assert len(explorer.sliders) == len(find(explorer, Picture, alt="what z[")) == 64
    assert explorer.sliders[0].description == "z[63]"
    explorer.sliders[63].value = 2.5
    assert explorer.z[0] == 2.5 and not explorer.z[1:].any()
    explorer.z = np.linspace(-2, 2, 64)
    np.testing.assert_allclose([s.value for s in explorer.sliders], np.linspace(2, -2, 64), 1e-6)
    assert_shows(explorer, model)


def test_filmstrips_show_what_a_slider_does_from_here(vae, images):
    vae = with_kl(vae, [1.0, 5.0, 2.0, 3.0, 4.0])  # so that the order matters
    explorer = explore.latent_sliders(vae, torch.ones(5), images.test)
    strip = opened(find(explorer, Picture, alt="what z[")[0].value)
    assert strip.shape == (28, 28 * sliders.FRAMES)
    for frame, value in [(0, -3.0), (5, 0.0), (10, 3.0)]:
        z = np.ones(5)
        z[1] = value
        assert_same(strip[:, 28 * frame : 28 * (frame + 1)], decoded(vae, z))


def test_filmstrips_follow_once_the_sliders_rest(vae):
    async def move():
        explorer = explore.latent_sliders(vae)
        strip = picture(explorer, "what z[1] does from -3 to 3")
        before = strip.value
        for value in (0.5, 1.0, 1.5):
            explorer.sliders[0].value = value
            await asyncio.sleep(base.PAUSE / 2)
            assert strip.value == before  # not while it moves
        await asyncio.sleep(1.5 * base.PAUSE)
        return strip.value, before

    after, before = asyncio.run(move())
    assert after != before
    assert_same(opened(after)[:, :28], decoded(vae, [1.5, -3, 0, 0, 0]))


@pytest.mark.parametrize("cls", [models.VAE, models.Autoencoder])
def test_the_encode_button_goes_to_a_random_test_image_and_shows_it(cls, images):
    model = a_model(cls)
    explorer = explore.latent_sliders(model, test_images=images.test)
    original = picture(explorer, "the test image")
    assert original not in visible(explorer)
    codes = evaluate.codes(model, images.test).numpy()
    random.seed(0)
    taken = set()
    for _ in range(8):
        button(explorer, "Encode a test image").click()
        distance = np.abs(codes - explorer.z).max(axis=1)
        assert distance.min() < 1e-4
        index = int(distance.argmin())
        taken.add(index)
        assert_shows(explorer, model)  # the reconstruction, beside the original
        assert original in visible(explorer)
        np.testing.assert_array_equal(opened(original.value), enlarged(images.test[index].numpy()))
    assert len(taken) > 4
    for text in ("Random draw", "Reset"):  # the code moves on
        button(explorer, text).click()
        assert original not in visible(explorer)
        button(explorer, "Encode a test image").click()
    without = explore.latent_sliders(model)
    assert find(without, widgets.Button, description="Encode") == []


def test_a_random_draw_is_standard_normal(vae):
    explorer = explore.latent_sliders(vae)
    random.seed(0)
    drawn = []
    for _ in range(300):
        button(explorer, "Random draw").click()
        drawn.append(explorer.z)
    drawn = np.stack(drawn)
    # Five standard errors; uniform over ±3 would have a standard deviation of 1.73.
    np.testing.assert_allclose(drawn.mean(axis=0), 0, atol=5 / 300**0.5)
    np.testing.assert_allclose(drawn.std(axis=0), 1, atol=5 / 600**0.5)
    assert np.abs(np.corrcoef(drawn.T) - np.eye(5)).max() < 5 / 300**0.5
    inside = np.clip(explorer.z, -3, 3)
    np.testing.assert_allclose([s.value for s in explorer.sliders], inside, atol=1e-6)
    assert_shows(explorer, vae)


def test_a_random_draw_of_directions_is_uniform_over_their_reach(vae):
    start, direction = torch.arange(5.0), torch.tensor([0.0, 2.0, 0.0, 0.0, 0.0])
    explorer = explore.direction_sliders(vae, start, {"tilt": (direction, 1.5)})
    random.seed(0)
    drawn = []
    for _ in range(200):
        button(explorer, "Random draw").click()
        drawn.append(explorer.z - start.numpy())
    drawn = np.stack(drawn)
    np.testing.assert_allclose(drawn[:, [0, 2, 3, 4]], 0, atol=1e-6)
    place = (drawn[:, 1] + 3) / 6  # 1.5 steps of 2 either way
    assert place.min() > -1e-5 and place.max() < 1 + 1e-5
    np.testing.assert_allclose(place.mean(), 0.5, atol=5 / (12 * 200) ** 0.5)
    assert place.min() < 0.05 and place.max() > 0.95


def test_a_limit_may_be_two_ends(vae):
    direction = torch.tensor([0.0, 2.0, 0.0, 0.0, 0.0])
    explorer = explore.direction_sliders(vae, torch.zeros(5), {"label": (direction, (-1, 9))})
    (slider,) = explorer.sliders
    assert (slider.min, slider.max, slider.value) == (-1, 9, 0)
    slider.value = 9
    np.testing.assert_allclose(explorer.z, [0, 18, 0, 0, 0])
    assert any("what label does from -1 to 9" in w.alt for w in find(explorer, Picture))


def test_reset_goes_back_to_the_first_code(vae):
    explorer = explore.latent_sliders(vae, z=torch.ones(5))
    first = explorer.image
    explorer.draw()
    assert not np.allclose(explorer.z, 1.0) and explorer.image != first
    button(explorer, "Reset").click()
    np.testing.assert_array_equal(explorer.z, np.ones(5))
    assert [s.value for s in explorer.sliders] == [1.0] * 5
    assert explorer.image == first


def test_directions_start_at_z_and_add_up(vae):
    start = torch.arange(5.0)
    tilt, width = torch.ones(5), torch.eye(5)[2]
    explorer = explore.direction_sliders(vae, start, {"tilt": (tilt, 2.0), "width": (width, 1.0)})
    assert [(s.description, s.min, s.max) for s in explorer.sliders] == [
        ("tilt", -2.0, 2.0),
        ("width", -1.0, 1.0),
    ]
    np.testing.assert_array_equal(explorer.z, start)
    explorer.sliders[0].value, explorer.sliders[1].value = 0.5, -1.0
    np.testing.assert_allclose(explorer.z, (start + 0.5 * tilt - width).numpy())
    assert [s.value for s in explorer.sliders] == [0.5, -1.0]
    assert_shows(explorer, vae)
    explorer.reset()
    np.testing.assert_array_equal(explorer.z, start)
    assert [s.value for s in explorer.sliders] == [0.0, 0.0]


# --- the latent map -------------------------------------------------------------------------------


def test_a_click_on_the_plane_moves_z_and_the_picture(vae_2d, images):
    explorer = explore.latent_map(vae_2d, images)
    before = explorer.image
    explorer.planes[0].set_state({"point": [1.25, -2.5]})  # as the page does
    np.testing.assert_allclose(explorer.z, [1.25, -2.5])
    assert explorer.image != before
    assert_shows(explorer, vae_2d)


def test_setting_z_moves_the_point_of_every_plane(vae_2d, images):
    other = a_model(models.Autoencoder, latent_size=2)
    explorer = explore.compare({"a": vae_2d, "b": other}, images)
    explorer.z = np.array([0.5, 1.5])
    assert [plane.point for plane in explorer.planes] == [[0.5, 1.5]] * 2
    explorer.planes[1].point = [-1.0, 2.0]
    assert explorer.planes[0].point == [-1.0, 2.0]
    np.testing.assert_allclose(explorer.z, [-1.0, 2.0])


def test_a_place_that_float32_cannot_hold_is_not_sent_back(vae_2d, images):
    # An echo in other digits would make the mark under a moving pointer jump.
    explorer = explore.latent_map(vae_2d, images)
    explorer.planes[0].point = [0.1, 1 / 3]
    assert explorer.planes[0].point == [0.1, 1 / 3]
    np.testing.assert_allclose(explorer.z, [0.1, 1 / 3], rtol=1e-6)


def test_the_map_goes_to_random_codes_and_back(vae_2d, images):
    explorer = explore.latent_map(vae_2d, images, z=torch.tensor([1.0, -1.0]))
    assert explorer.planes[0].point == [1.0, -1.0]
    torch.manual_seed(0)
    drawn = []
    for _ in range(300):
        button(explorer, "Random draw").click()
        drawn.append(explorer.z)
    np.testing.assert_allclose(np.mean(drawn, axis=0), 0, atol=5 / 300**0.5)
    np.testing.assert_allclose(np.std(drawn, axis=0), 1, atol=5 / 600**0.5)
    button(explorer, "Reset").click()
    np.testing.assert_array_equal(explorer.z, [1.0, -1.0])
    assert explorer.planes[0].point == [1.0, -1.0]


def test_the_switch_changes_the_background_and_back(vae_2d, images):
    explorer = explore.latent_map(vae_2d, images)
    assert explorer.view.options == ("codes", "decoded") and explorer.view.value == "codes"
    assert explorer.view in visible(explorer)
    codes = explorer.planes[0].background
    explorer.view.value = "decoded"
    manifold = explorer.planes[0].background
    assert manifold != codes
    explorer.view.value = "codes"
    assert explorer.planes[0].background == codes
    # Both are square, as the plane is, so that nothing is distorted.
    assert all(opened(png).shape[0] == opened(png).shape[1] for png in (codes, manifold))
    assert opened(manifold).shape == (28 * maps.TILES, 28 * maps.TILES)


@pytest.mark.parametrize("text", ["Reset", "Random draw"])
def test_a_move_from_before_a_reset_is_dropped_and_one_after_it_counts(text, vae_2d, images):
    other = a_model(models.Autoencoder, latent_size=2)
    explorer = explore.compare({"a": vae_2d, "b": other}, images)
    one, two = explorer.planes
    one.set_state({"point": [1.0, 1.0], "number": one.number + 1})
    late = {"point": [2.0, -2.0], "number": one.number + 30}  # the page lags behind no further
    button(explorer, text).click()
    z = explorer.z
    assert one.number == two.number  # the other one may be what has been dragged
    one.set_state(late)
    np.testing.assert_array_equal(explorer.z, z)
    assert one.point == two.point == z.tolist()
    two.set_state({"point": [0.5, 0.5], "number": two.number + 1})
    assert one.point == [0.5, 0.5]


def test_a_reset_that_the_kernel_comes_to_late_leaves_what_came_after_it(vae_2d, images):
    # Kernels with subshells run a button after the drag that followed it.
    other = a_model(models.Autoencoder, latent_size=2)
    explorer = explore.compare({"a": vae_2d, "b": other}, images)
    one, two = explorer.planes
    one.set_state({"point": [1.0, 1.0], "number": 1})
    one.set_state({"point": [2.0, -2.0], "number": parts.ROUND + 3})  # Reset, and dragged on
    button(explorer, "Reset").click()
    assert explorer.z.tolist() == one.point == two.point == [2.0, -2.0]
    button(explorer, "Reset").click()
    assert explorer.z.tolist() == one.point == two.point == [0.0, 0.0]


def test_a_reset_is_sent_though_it_is_no_news_to_the_kernel(vae_2d, images, monkeypatch):
    # The page may have been dragged meanwhile.
    explorer = explore.latent_map(vae_2d, images)
    (plane,), sent = explorer.planes, []
    monkeypatch.setattr(plane, "_send", lambda message, **_: sent.append(message["state"]))
    button(explorer, "Reset").click()
    assert sent[0] == {"point": [0.0, 0.0], "number": plane.number}


def test_the_range_is_three_sigma_where_the_codes_are_within(vae_2d, images):
    with torch.no_grad():
        vae_2d.encoder[-1].weight *= 0.01
    (plane,) = explore.latent_map(vae_2d, images).planes
    assert plane.low == [-3.0, -3.0] and plane.high == [3.0, 3.0]


def test_the_range_is_square_and_reaches_the_codes(vae_2d, images):
    with torch.no_grad():
        vae_2d.encoder[-1].weight *= 4
        vae_2d.encoder[-1].bias[:2] = torch.tensor([12.0, -1.0])
    (plane,) = explore.latent_map(vae_2d, images).planes
    low, high = np.array(plane.low), np.array(plane.high)
    np.testing.assert_allclose(high[0] - low[0], high[1] - low[1], rtol=1e-5)
    assert (low <= -3).all() and (high >= 3).all()
    codes = evaluate.codes(vae_2d, images.test).numpy()
    assert codes[:, 0].max() > 10
    inside = ((codes >= low - 0.1) & (codes <= high + 0.1)).all(axis=1)
    assert inside.mean() >= 0.9  # of 40; the outermost may be cut
    assert high[0] - low[0] < 2 * np.ptp(np.r_[codes[:, 0], -3, 3])  # and not much further


def test_the_decoded_background_is_what_decodes_there(vae_2d, images):
    with torch.no_grad():
        vae_2d.encoder[-1].bias[0] = 8.0  # so that the range is not symmetric
    explorer = explore.latent_map(vae_2d, images)
    explorer.view.value = "decoded"
    (plane,) = explorer.planes
    background, n = opened(plane.background), maps.TILES
    low, high = np.array(plane.low), np.array(plane.high)
    for row, column in [(0, 0), (0, n - 1), (n - 1, 0), (3, 11)]:
        x, y = (column + 0.5) / n, 1 - (row + 0.5) / n  # rows count from the top
        z = low + np.array([x, y]) * (high - low)
        tile = background[28 * row : 28 * (row + 1), 28 * column : 28 * (column + 1)]
        assert_same(tile, decoded(vae_2d, z))


def test_the_codes_lie_where_a_click_would_find_them(vae_2d, images):
    # Outside the 2σ circle; the class's name is written where the second one is.
    places = torch.tensor([[2.5, -2.2], [-2.5, 2.5], [-2.6, 2.6]])
    vae_2d.encode = lambda x: (places, torch.zeros(3, 2))
    labels = torch.zeros(3, dtype=torch.long)
    three = dataclasses.replace(images, test=images.test[:3], test_labels=labels)
    (plane,) = explore.latent_map(vae_2d, three).planes
    background = opened(plane.background)[..., :3].astype(int)
    coloured = np.argwhere(np.ptp(background, axis=2) > 40)
    x, y = (places[0].numpy() + 3) / 6
    distance = np.abs(coloured - np.array([1 - y, x]) * len(background)).max(axis=1)
    assert distance.min() < 0.003 * len(background)
    assert (distance < 0.01 * len(background)).sum() > 4  # the dot, and not the end of something


# --- drawing --------------------------------------------------------------------------------------


def a_drawing(seed: int = 5) -> np.ndarray:
    return strokes(1, seed)[0].numpy()


@pytest.fixture
def draw(vae, images):
    return explore.draw_digit(vae, images)


def said_of(explorer, start: str) -> str:
    """Return the words of a drawing's explorer that begin so."""
    (found,) = find(explorer, widgets.HTML, value=start)
    return found.value


def verdict(explorer) -> str:
    return said_of(explorer, "−ELBO")


def test_a_drawing_on_the_pad_is_shown_in_every_part(vae, draw):
    parts = ["the drawing as", "code: ", "reconstructions", "nearest training", "decoded image"]
    shown = [picture(draw, alt) for alt in parts]
    before = [part.value for part in shown]
    said, image = verdict(draw), draw.image
    drawing = a_drawing()
    draw.pad.set_state({"pixels": memoryview(drawing.tobytes())})  # as the page does
    np.testing.assert_array_equal(draw.drawing, drawing)
    prepared = data.centre_digit(torch.from_numpy(drawing.copy()))
    np.testing.assert_array_equal(opened(shown[0].value), enlarged(prepared.numpy()))
    mu, _ = vae.encode(prepared.flatten()[None] / 255)
    np.testing.assert_allclose(draw.z, mu[0].numpy(), atol=1e-5)
    assert_shows(draw, vae)
    assert draw.image != image and verdict(draw) != said
    assert all(part.value != old for part, old in zip(shown, before))


@pytest.mark.parametrize("turn", [np.copy, np.fliplr, np.transpose], ids=lambda f: f.__name__)
def test_a_drawing_or_a_view_of_one_can_be_set(draw, turn):
    z = draw.z
    draw.drawing = turn(a_drawing())
    assert draw.pad.pixels == turn(a_drawing()).tobytes()
    assert not np.allclose(draw.z, z) and notice(draw) == "" and "nats" in verdict(draw)


def test_it_begins_with_the_first_test_image_or_the_one_given(vae, images, draw):
    np.testing.assert_array_equal(draw.drawing, images.test[0].numpy())
    given = explore.draw_digit(vae, images, images.test[3])
    np.testing.assert_array_equal(given.drawing, images.test[3].numpy())
    assert given.pad.pixels == images.test[3].numpy().tobytes()


def test_the_neg_elbo_is_in_nats_and_adds_up(vae, draw):
    draw.drawing = a_drawing()
    score, recon, kl, *_ = numbers(verdict(draw))
    assert abs(score - recon - kl) < 0.11
    x = data.centre_digit(torch.tensor(draw.drawing)).double().flatten() / 255
    vae = vae.double()
    mu, log_var = (part[0] for part in vae.encode(x[None]))
    exact = 0.5 * (mu**2 + log_var.exp() - 1 - log_var).sum().item()
    assert abs(kl - exact) < 0.051
    generator = torch.Generator().manual_seed(7)
    eps = torch.randn((4000, 5), generator=generator, dtype=torch.float64)
    p = vae.decode_mean(mu + eps * (0.5 * log_var).exp())
    nll = -(x * p.log() + (1 - x) * (1 - p).log()).sum(dim=1)
    # The explorer's is the mean over 32 draws of its own.
    assert abs(recon - nll.mean()) < 5 * nll.std() / drawing.SAMPLES**0.5 + 0.05


def test_the_percentage_is_the_rank_among_the_test_images(vae, images, draw):
    scores = evaluate.neg_elbo_per_image(vae, images.test)
    seen = set()
    for index in range(5):
        draw.drawing = images.test[index].numpy()
        score, _, _, percentage, n = numbers(verdict(draw))
        assert n == N_TEST
        below = [100 * (scores < score + slack).float().mean().item() for slack in (-0.06, 0.06)]
        assert below[0] - 0.06 <= percentage <= below[1] + 0.06
        seen.add(percentage)
    assert len(seen) > 2


def test_much_ink_is_strange_and_next_to_none_too_easy(draw):
    # To this decoder, which is dark everywhere, ink is what costs.
    draw.drawing = np.full((28, 28), 255, np.uint8)
    assert "100.0%" in verdict(draw) and "Strange." in verdict(draw)
    thin = np.zeros((28, 28), np.uint8)
    thin[4:24, 14] = 60
    draw.drawing = thin
    assert "<b>0.0%</b>" in verdict(draw) and "Too easy." in verdict(draw)


def test_the_same_drawing_has_the_same_score_each_time(vae, images, draw):
    draw.drawing = a_drawing()
    said = verdict(draw)
    draw.clear()
    draw.drawing = a_drawing()
    assert verdict(draw) == said
    assert verdict(explore.draw_digit(vae, images, torch.tensor(a_drawing()))) == said


def test_nearest_images_are_the_nearest_by_code(vae, images, draw):
    draw.drawing = a_drawing()
    codes = vae.encode(images.train.flatten(1).float() / 255)[0].double().numpy()
    nearest = np.linalg.norm(codes - draw.z, axis=1).argsort()[: drawing.SHOWN]
    row = opened(picture(draw, "nearest training images").value)
    for place, index in enumerate(nearest):
        tile = row[:, 29 * place : 29 * place + 28]
        np.testing.assert_array_equal(tile, images.train[index].numpy())
    names = said_of(draw, "nearest training images").split(": ")[1].split(", ")
    assert names == [f"kind {index % 10} &amp; more" for index in nearest]  # escaped, for HTML


def test_reconstructions_are_draws_around_the_code(vae, draw):
    draw.drawing = a_drawing()
    samples = picture(draw, "reconstructions")
    row = opened(samples.value)
    tiles = [row[:, 29 * i : 29 * i + 28].astype(int) for i in range(drawing.SHOWN)]
    assert all((tile != tiles[0]).any() for tile in tiles[1:])
    with torch.no_grad():
        vae.encoder[-1].bias[5:] = -40.0  # σ = 0: each draw is μ
    draw.drawing = a_drawing(6)
    row = opened(samples.value)
    for i in range(drawing.SHOWN):
        assert_same(row[:, 29 * i : 29 * i + 28], decoded(vae, draw.z))


def test_bars_show_the_code():
    image = drawing.code_bars(np.array([2.0, -3.0]), np.array([0.1, 0.1])).astype(int)
    height, width = image.shape[:2]
    assert width / height == pytest.approx(drawing.BARS[0] / drawing.BARS[1])
    blue = (image == (0x6F, 0xA8, 0xDC)).all(axis=2)
    axis = 56  # where the numbers are
    left, right = blue[:, : (width + axis) // 2], blue[:, (width + axis) // 2 :]
    above, below = (np.flatnonzero(half.any(axis=1)) for half in (left, right))
    assert above.max() <= below.min() + 3  # up from 0, and down from 0
    # To scale: -3 is half as long again as 2.
    assert np.ptp(below) / np.ptp(above) == pytest.approx(1.5, abs=0.05)


def test_clear_blanks_the_pad_and_all_that_was_said(draw):
    alts = ["decoded image", "reconstructions", "nearest training images", "code: z["]
    parts = [picture(draw, alt) for alt in alts]
    button(draw, "Clear").click()
    assert draw.pad.pixels == bytes(784) and not draw.drawing.any()
    assert not opened(picture(draw, "the drawing as").value).any()
    assert said_of(draw, "<b>Draw a digit</b> on the black pad.")
    assert find(draw, widgets.HTML, value="−ELBO") == []
    assert "kind" not in said_of(draw, "nearest training images")
    for part in parts:
        assert len(np.unique(opened(part.value))) == 1
    assert parts[-1].alt == "no code yet"  # a screen reader would read the last drawing's


def test_what_was_drawn_before_clear_is_dropped_and_after_it_counts(draw, monkeypatch):
    def from_page(seed: int, number: int) -> None:
        draw.pad.set_state({"pixels": memoryview(a_drawing(seed).tobytes()), "number": number})

    number, sent = draw.pad.number, []
    from_page(5, number + 1)
    monkeypatch.setattr(draw.pad, "_send", lambda message, **_: sent.append(message))
    button(draw, "Clear").click()
    assert sent[0]["state"] == {"number": draw.pad.number}  # its pixels beside it, as bytes
    assert sent[0]["buffer_paths"] == [["pixels"]]
    from_page(6, number + 30)  # it went on: the kernel was late
    assert not draw.drawing.any() and said_of(draw, "<b>Draw a digit</b>")
    from_page(7, draw.pad.number + 1)
    np.testing.assert_array_equal(draw.drawing, a_drawing(7))
    assert "nats" in verdict(draw) and notice(draw) == ""
    from_page(8, draw.pad.number + parts.ROUND)  # cleared and drawn on: now the button comes late
    button(draw, "Clear").click()
    np.testing.assert_array_equal(draw.drawing, a_drawing(8))
    button(draw, "Put a test image on it").click()
    assert (draw.drawing != a_drawing(8)).any()


@pytest.mark.parametrize("latent_size", [1, 5])
def test_the_same_drawing_after_clear_is_shown_again(images, latent_size):
    model = a_model(latent_size=latent_size)
    explorer = explore.draw_digit(model, images)
    explorer.clear()
    explorer.drawing = images.test[0].numpy()
    assert_shows(explorer, model)


def test_a_random_test_image_can_be_put_on_the_pad(images, draw):
    random.seed(0)
    before = draw.pad.pixels
    button(draw, "Put a test image on it").click()
    assert draw.pad.pixels == draw.drawing.tobytes() != before
    assert (images.test.numpy() == draw.drawing).all(axis=(1, 2)).any()


def test_drawing_leaves_the_images_as_they_are(vae, images):
    train, test = images.train.clone(), images.test.clone()
    explorer = explore.draw_digit(vae, images)
    explorer.pad.pixels = a_drawing().tobytes()
    explorer.clear()
    assert torch.equal(images.train, train) and torch.equal(images.test, test)


# --- morphs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["lerp", "slerp"])
def test_a_morph_follows_its_path(vae, path):
    start, end = torch.tensor([2.0, 0, 0, 1, 0]), torch.tensor([0.0, 1, 0, 0, -3])
    explorer = explore.morph(vae, start, end)
    explorer.path.value = path
    for t in (0.0, 0.25, 0.5, 0.9, 1.0):
        explorer.slider.value = t
        expected = getattr(latent, path)(start, end, t)
        np.testing.assert_allclose(explorer.z, expected.numpy(), atol=1e-5)
        assert_shows(explorer, vae)
    frames = opened(picture(explorer, "the whole path").value)
    for i in (0, 3, morphs.FRAMES - 1):
        z = getattr(latent, path)(start, end, i / (morphs.FRAMES - 1))
        assert_same(frames[:, 29 * i : 29 * i + 28], decoded(vae, z))


def test_a_morph_opens_in_the_middle_and_the_switch_moves_it(vae):
    start, end = torch.tensor([2.0, 0, 0, 1, 0]), torch.tensor([0.0, 1, 0, 0, -3])
    explorer = explore.morph(vae, start, end)
    np.testing.assert_allclose(explorer.z, latent.lerp(start, end, 0.5).numpy(), atol=1e-6)
    film = picture(explorer, "the whole path")
    first = film.value
    explorer.path.value = "slerp"
    np.testing.assert_allclose(explorer.z, latent.slerp(start, end, 0.5).numpy(), atol=1e-6)
    assert film.value != first
    explorer.path.value = "lerp"
    assert film.value == first


def test_a_morph_from_image_to_image_goes_between_their_codes(vae, autoencoder, images):
    for model in (vae, autoencoder):
        explorer = explore.morph(model, images.test[0], images.test[1])
        codes = evaluate.codes(model, images.test[:2]).numpy()
        np.testing.assert_allclose(np.stack(explorer.ends), codes, atol=1e-5)
        explorer.slider.value = 1.0
        np.testing.assert_allclose(explorer.z, codes[1], atol=1e-5)
        for end, image in zip(find(explorer, Picture, alt="the image at"), images.test):
            np.testing.assert_array_equal(opened(end.value), enlarged(image.numpy()))


def test_a_morph_from_an_image_to_a_code(vae, images):
    explorer = explore.morph(vae, images.test[0], torch.ones(5, dtype=torch.float64))
    explorer.slider.value = 1.0
    np.testing.assert_allclose(explorer.z, np.ones(5), atol=1e-6)
    end = picture(explorer, "the image at the end")
    assert_same(opened(end.value), enlarged(decoded(vae, np.ones(5))))


def test_another_pair_takes_two_test_images(vae, images):
    explorer = explore.morph(vae, torch.zeros(5), torch.ones(5), test_images=images.test)
    explorer.slider.value = 0.25
    film, image = picture(explorer, "the whole path").value, explorer.image
    random.seed(0)
    button(explorer, "Another pair").click()
    codes = evaluate.codes(vae, images.test).numpy()
    distance = np.abs(codes - np.stack(explorer.ends)[:, None]).max(axis=2)
    first, second = distance.argmin(axis=1)
    assert first != second and distance.min(axis=1).max() < 1e-4
    for end, index in zip(find(explorer, Picture, alt="the image at"), (first, second)):
        original = enlarged(images.test[index].numpy())
        np.testing.assert_array_equal(opened(end.value), original)
    expected = latent.lerp(*(torch.from_numpy(end) for end in explorer.ends), 0.25)
    np.testing.assert_allclose(explorer.z, expected.numpy(), atol=1e-5)
    assert picture(explorer, "the whole path").value != film and explorer.image != image
    explorer.reset()  # to the middle of the new path
    np.testing.assert_allclose(explorer.z, np.mean(explorer.ends, axis=0), atol=1e-5)
    without = explore.morph(vae, torch.zeros(5), torch.ones(5))
    assert find(without, widgets.Button) == []


# --- comparing models -----------------------------------------------------------------------------


@pytest.fixture
def wide():
    """An autoencoder whose codes are far from N(0, 1)."""
    model = a_model(models.Autoencoder)
    with torch.no_grad():
        model.encoder[-1].bias += torch.tensor([5.0, -3.0, 0.0, 1.0, 9.0])
    return model


def assert_side_by_side(explorer, expected: list[np.ndarray]) -> None:
    image, pictures = opened(explorer.image), find(explorer, Picture, alt="decoded image")
    for i, (part, each) in enumerate(zip(expected, pictures, strict=True)):
        left = i * (PICTURE + 8)
        assert_same(image[:, left : left + PICTURE], enlarged(part))
        assert_same(opened(each.value), enlarged(part))
    assert image.shape[:2] == (PICTURE, len(expected) * (PICTURE + 8) - 8)


def own_units(model, images, u) -> torch.Tensor:
    """Return the code that lies u standard deviations from the mean of a model's test codes."""
    codes = model.encode(images.test.flatten(1).float() / 255)
    return codes.mean(dim=0) + codes.std(dim=0) * torch.as_tensor(u)


def test_each_model_is_moved_in_units_of_its_own_codes(vae, wide, images):
    explorer = explore.compare({"wide": wide, "vae": vae}, images)
    for u in (torch.zeros(5), torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0])):
        explorer.z = u.numpy()
        expected = [decoded(wide, own_units(wide, images, u)), decoded(vae, u)]
        assert (decoded(wide, u) != expected[0]).any()
        assert_side_by_side(explorer, expected)


def test_compared_sliders_have_a_filmstrip_row_for_each_model(vae, wide, images):
    vae = with_kl(vae, [0.0, 2.0, 0.0, 1.0, 3.0])
    explorer = explore.compare({"wide": wide, "vae": vae}, images)
    assert all(s.min == -3 and s.max == 3 for s in explorer.sliders)
    # In the order of the VAE's KL; what it does not use, the other one may.
    assert [s.description for s in explorer.sliders[:3]] == ["z[4]", "z[1]", "z[3]"]
    assert find(explorer, widgets.Accordion) == []
    strip = opened(picture(explorer, "what z[4] does").value)
    assert strip.shape == (2 * 28, 28 * sliders.FRAMES)
    z = [0.0, 0.0, 0.0, 0.0, -3.0]
    assert_same(strip[:28, :28], decoded(wide, own_units(wide, images, z)))
    assert_same(strip[28:, :28], decoded(vae, z))


@pytest.mark.parametrize("latent_size", [2, 5])
def test_a_dimension_that_never_varies_is_no_obstacle(latent_size, images):
    model, still = a_model(latent_size=latent_size), a_model(models.Autoencoder, latent_size)
    with torch.no_grad():
        still.encoder[-1].weight[1] = 0.0
    explorer = explore.compare({"still": still, "vae": model}, images)
    explorer.z = np.full(latent_size, 3.0)
    assert notice(explorer) == "" and still_of(explorer).size


def test_two_numbers_give_maps_and_others_sliders(vae, vae_2d, wide, images):
    flat = a_model(models.Autoencoder, latent_size=2)
    compared = explore.compare({"ae": flat, "vae": vae_2d}, images)
    assert isinstance(compared, maps.MapExplorer) and len(compared.planes) == 2
    assert isinstance(explore.compare({"a": vae, "b": wide}, images), sliders.SliderExplorer)


def test_compared_maps_are_in_units_of_their_own_codes(vae_2d, images):
    flat = a_model(models.Autoencoder, latent_size=2)
    with torch.no_grad():
        flat.encoder[-1].bias += 20.0
    explorer = explore.compare({"ae": flat, "vae": vae_2d}, images)
    assert max(explorer.planes[0].high) < 12  # not 20: the codes are counted from their mean
    u = [1.0, -1.0]
    explorer.planes[0].point = u
    own = own_units(flat, images, u)
    assert_side_by_side(explorer, [decoded(flat, own), decoded(vae_2d, u)])
    explorer.view.value = "decoded"
    low, high = np.array(explorer.planes[0].low), np.array(explorer.planes[0].high)
    corner = low + np.array([0.5, maps.TILES - 0.5]) / maps.TILES * (high - low)
    own = own_units(flat, images, corner)
    assert_same(opened(explorer.planes[0].background)[:28, :28], decoded(flat, own))


# --- in colour, and of another size ---------------------------------------------------------------


class Place:
    """A model whose code is the place of a dot: of two numbers or more, (row, column) from the
    middle of a black image; in colour the dot is red."""

    def __init__(self, shape, latent_size=2):
        self.shape, self.latent_size = shape, latent_size

    def decode_mean(self, z):
        x = torch.zeros(len(z), *self.shape)
        rows, columns = self.places(z.numpy())
        x[torch.arange(len(z)), 0, rows, columns] = 1
        return x.flatten(1)

    def places(self, z):
        side = self.shape[1]
        return (np.round(z[:, :2]).astype(int) + side // 2).clip(0, side - 1).T

    def encode(self, x):
        side = self.shape[1]
        brightest = x.reshape(-1, *self.shape)[:, 0].flatten(1).argmax(dim=1)
        z = torch.zeros(len(x), self.latent_size)
        z[:, 0], z[:, 1] = brightest // side - side // 2, brightest % side - side // 2
        return z, torch.zeros_like(z)

    def drawn(self, *z):
        """Return what the code decodes to, made another way: uint8 `(side, side)`, or with 3."""
        ((row,), (column,)) = self.places(np.array([z]))
        image = np.zeros(self.shape[1:] + (3,) * (self.shape[0] == 3), np.uint8)
        image[row, column] = 255 if self.shape[0] == 1 else (255, 0, 0)
        return image


def place_images(shape):
    model = Place(shape)
    codes = torch.cartesian_prod(torch.arange(-3.0, 4), torch.arange(-3.0, 4))
    test = (255 * model.decode_mean(codes)).byte().reshape(-1, *shape).squeeze(1)
    labels = torch.arange(len(test)) % 2
    return data.Images("places", test, labels, test, labels, ("even", "odd"))


def as_rgb(image):
    return np.asarray(Image.fromarray(image).convert("RGB"))


both_kinds = pytest.mark.parametrize("shape", [(1, 12, 12), (3, 12, 12)], ids=["grey", "colour"])


@both_kinds
def test_sliders_show_images_in_their_colour(shape):
    model, images = Place(shape), place_images(shape)
    explorer = explore.latent_sliders(model, torch.tensor([1.0, -2.0]), images.test)
    shown = enlarged(model.drawn(1, -2))
    assert shown.shape[:2] == (PICTURE, PICTURE)
    np.testing.assert_array_equal(opened(explorer.image), shown)
    np.testing.assert_array_equal(opened(picture(explorer, "decoded image").value), shown)
    np.testing.assert_array_equal(still_of(explorer)[:PICTURE, :PICTURE], as_rgb(shown))
    # 7.5 pixels down and 4.5 to the right, of 12: the middle of the dot.
    dot = [255, 255, 255] if shape[0] == 1 else [255, 0, 0]
    assert still_of(explorer)[140, 84].tolist() == dot
    strip = opened(picture(explorer, "what z[0] does").value)
    assert strip.shape[:2] == (12, 12 * sliders.FRAMES)
    for i, row in [(0, -3), (5, 0), (10, 3)]:
        np.testing.assert_array_equal(strip[:, 12 * i : 12 * i + 12], model.drawn(row, -2))
    button(explorer, "Encode a test image").click()
    np.testing.assert_array_equal(
        opened(picture(explorer, "the test image").value), enlarged(model.drawn(*explorer.z))
    )
    assert notice(explorer) == ""


@both_kinds
def test_directions_show_images_in_their_colour(shape):
    model = Place(shape)
    explorer = explore.direction_sliders(model, torch.ones(2), {"down": (torch.eye(2)[0], 2.0)})
    explorer.sliders[0].value = 2.0
    np.testing.assert_array_equal(opened(explorer.image), enlarged(model.drawn(3, 1)))
    strip = opened(picture(explorer, "what down does").value)
    np.testing.assert_array_equal(strip[:, :12], model.drawn(-1, 1))


@both_kinds
def test_a_map_shows_images_in_their_colour(shape):
    model = Place(shape)
    explorer = explore.latent_map(model, place_images(shape), torch.tensor([2.0, 1.0]))
    np.testing.assert_array_equal(opened(explorer.image), enlarged(model.drawn(2, 1)))
    explorer.view.value = "decoded"
    background, n = opened(explorer.planes[0].background), maps.TILES
    assert background.shape[:2] == (12 * n, 12 * n)
    for row, column in [(0, 0), (0, n - 1), (n - 1, 0), (3, 11)]:
        x, y = 6 * (column + 0.5) / n - 3, 3 - 6 * (row + 0.5) / n
        tile = background[12 * row : 12 * row + 12, 12 * column : 12 * column + 12]
        np.testing.assert_array_equal(tile, model.drawn(x, y))


@both_kinds
def test_a_morph_shows_images_in_their_colour(shape):
    model, images = Place(shape), place_images(shape)
    start, end = (torch.from_numpy(model.drawn(*z)) for z in [(-3, 2), (3, -2)])
    if shape[0] == 3:  # images have their channels first
        start, end = start.movedim(2, 0), end.movedim(2, 0)
    explorer = explore.morph(model, start, end, images.test)
    np.testing.assert_array_equal(explorer.ends, [[-3, 2], [3, -2]])
    film = opened(picture(explorer, "the whole path").value)
    assert film.shape[:2] == (12, 13 * morphs.FRAMES - 1)
    np.testing.assert_array_equal(film[:, :12], model.drawn(-3, 2))
    np.testing.assert_array_equal(film[:, 13 * 10 :], model.drawn(3, -2))
    assert (film[:, 12] == 255).all()
    ends = [opened(end.value) for end in find(explorer, Picture, alt="the image at")]
    for i, (z, shown) in enumerate([((-3, 2), ends[0]), ((0, 0), None), ((3, -2), ends[1])]):
        expected = enlarged(model.drawn(*z))
        if shown is not None:
            np.testing.assert_array_equal(shown, expected)
        left = i * (PICTURE + GAP)
        part = still_of(explorer)[:PICTURE, left : left + PICTURE]
        np.testing.assert_array_equal(part, as_rgb(expected))
    button(explorer, "Another pair").click()
    assert notice(explorer) == ""


@both_kinds
@pytest.mark.parametrize("latent_size", [2, 3])
def test_compared_models_show_images_in_their_colour(shape, latent_size):
    images = place_images(shape)
    both = {name: Place(shape, latent_size) for name in "ab"}
    explorer = explore.compare(both, images)
    explorer.z = np.float32([1, -2, 0][:latent_size])
    assert_side_by_side(explorer, [both["a"].drawn(1, -2)] * 2)
    if latent_size == 3:
        strip = opened(picture(explorer, "what z[1] does").value)
        np.testing.assert_array_equal(strip[12:, -12:], both["b"].drawn(0, 3))


@pytest.mark.parametrize("shape", [(192,), (3, 8, 8), (8, 8, 3)])
def test_pictures_in_colour_come_in_three_shapes(shape):
    model = Place((3, 8, 8))

    def decode(z):
        x = model.decode_mean(z).reshape(-1, 3, 8, 8)
        return (x.movedim(1, 3) if shape[-1] == 3 else x).reshape(-1, *shape)

    explorer = explore.latent_sliders(decode, z=torch.tensor([-2.0, 1.0]))
    np.testing.assert_array_equal(opened(explorer.image), enlarged(model.drawn(-2, 1)))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_large_picture_is_made_smaller_without_leaving_out_pixels(channels):
    # Lines that are one pixel wide: every other one would be all black or all white.
    lines = torch.zeros(channels, 448, 448)
    lines[0, :, ::2] = 1

    class Lines:
        latent_size = 2

        def decode_mean(self, z):
            return lines.flatten().expand(len(z), -1)

        def encode(self, x):
            return torch.zeros(len(x), 2)

    test = (255 * lines).byte().squeeze(0).expand(4, *lines.squeeze(0).shape)
    images = data.Images("lines", test, torch.zeros(4), test, torch.zeros(4).long(), ("line",))
    explorer = explore.latent_sliders(Lines(), test_images=test)
    button(explorer, "Encode a test image").click()
    a_map = explore.latent_map(Lines(), images)
    a_map.view.value = "decoded"
    a_morph = explore.morph(Lines(), test[0], torch.ones(2))
    for value, height in [
        (explorer.image, PICTURE),
        (picture(explorer, "the test image").value, PICTURE),
        (picture(explorer, "what z[0] does").value, 28),
        (a_map.planes[0].background, 2 * a_map.planes[0].size),
        (picture(a_morph, "the image at the start").value, PICTURE),
        (picture(a_morph, "the whole path").value, morphs.WIDTH // morphs.FRAMES),
    ]:
        shown = opened(value)
        assert abs(len(shown) - height) <= maps.TILES
        if channels == 3:
            assert not shown[5:20, 5:20, 1:].any()
            shown = shown[..., 0]
        assert np.abs(shown[5:20, 5:20].astype(int) - 128).max() <= 5


# --- linking --------------------------------------------------------------------------------------


def test_one_explorer_can_follow_another(vae):
    one, two = explore.latent_sliders(vae), explore.latent_sliders(vae)
    traitlets.dlink((one, "z"), (two, "z"))
    one.sliders[0].value = 1.5
    assert two.sliders[0].value == 1.5 and two.image == one.image
    two.sliders[0].value = -1.0  # one way only
    assert one.sliders[0].value == 1.5


def test_two_explorers_can_be_linked_both_ways(vae_2d, images):
    one, two = explore.latent_sliders(vae_2d), explore.latent_map(vae_2d, images)
    for source, target in [(one, two), (two, one)]:
        traitlets.dlink((source, "z"), (target, "z"))
    one.sliders[0].value = 1.5
    assert notice(one) == notice(two) == ""
    assert two.planes[0].point == [1.5, 0.0] and two.image == one.image
    two.planes[0].point = [-1.0, 2.0]
    assert notice(one) == notice(two) == ""
    assert [s.value for s in one.sliders] == [-1.0, 2.0] and two.image == one.image
    one.z = np.array([0.5, 0.5])
    assert two.planes[0].point == [0.5, 0.5]


def test_sliders_can_go_on_from_a_drawing(vae, draw):
    explorer = explore.latent_sliders(vae)
    traitlets.dlink((draw, "z"), (explorer, "z"))
    draw.pad.pixels = a_drawing().tobytes()
    np.testing.assert_array_equal(explorer.z, draw.z)
    inside = np.clip(draw.z, -3, 3)
    np.testing.assert_allclose([s.value for s in explorer.sliders], inside, rtol=1e-6)
    assert explorer.image == draw.image


# --- any decoder ----------------------------------------------------------------------------------


def test_any_function_from_codes_to_images_will_do():
    explorer = explore.latent_sliders(function, z=torch.tensor([1.0, 0.0, -1.0]))
    assert len(explorer.sliders) == 3
    explorer.sliders[1].value = 0.5
    assert_shows(explorer, function)
    start = torch.tensor([0.0, 1.0, 0.0])
    explorer = explore.direction_sliders(function, start, {"all": (torch.ones(3), 1.0)})
    explorer.sliders[0].value = -1.0
    np.testing.assert_allclose(explorer.z, [-1, 0, -1], atol=1e-6)
    assert_shows(explorer, function)
    explorer = explore.morph(function, torch.zeros(3), torch.ones(3))
    explorer.slider.value = 0.75
    np.testing.assert_allclose(explorer.z, np.full(3, 0.75), atol=1e-6)
    assert_shows(explorer, function)


def test_a_module_that_is_no_model_of_this_course_will_do():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 64), torch.nn.Sigmoid())
    explorer = explore.latent_sliders(module, z=torch.zeros(3))
    explorer.sliders[0].value = 2.0
    assert_shows(explorer, module)
    assert explorer.image != explore.latent_sliders(module, z=torch.zeros(3)).image


class OwnVAE(torch.nn.Module):
    """A VAE of the learner's own: its forward does not decode, and nothing is called as ours."""

    def __init__(self, vae, pair=tuple, scale=torch.sigmoid):
        super().__init__()
        self.vae, self.pair, self.scale = vae, pair, scale
        self.latent_size = vae.latent_size

    def encode(self, x):
        return self.pair(self.vae.encode(x))

    def decode(self, z):
        return self.scale(self.vae.decode(z))

    def forward(self, x):
        mu, log_var = self.encode(x)
        return self.decode(models.reparameterize(mu, log_var)), mu, log_var


@pytest.mark.parametrize(
    "pair", [tuple, list, lambda given: given[0], lambda given: given[0].numpy()]
)
def test_a_whole_vae_of_ones_own_will_do(pair, vae, vae_2d, images):
    own, codes = OwnVAE(vae, pair), evaluate.codes(vae, images.test).numpy()
    explorer = explore.latent_sliders(own, test_images=images.test)
    button(explorer, "Encode a test image").click()
    assert np.abs(codes - explorer.z).max(axis=1).min() < 1e-5 and notice(explorer) == ""
    assert_shows(explorer, vae)
    explorer = explore.morph(own, images.test[0], images.test[1])
    np.testing.assert_allclose(np.stack(explorer.ends), codes[:2], atol=1e-5)
    explorer = explore.latent_map(OwnVAE(vae_2d, pair), images)
    assert_shows(explorer, vae_2d)
    assert explorer.planes[0].background == explore.latent_map(vae_2d, images).planes[0].background


def test_a_vae_of_ones_own_is_compared_in_units_of_its_prior(vae, wide, images):
    z = np.array([1.0, -2.0, 0.5, 0.0, 3.0])
    explorer = explore.compare({"own": OwnVAE(vae, list), "vae": vae}, images)
    explorer.z = z
    assert_side_by_side(explorer, [decoded(vae, z)] * 2)
    # What encodes to a code alone has no prior, as an autoencoder of the course.
    explorer = explore.compare({"own": OwnVAE(vae, lambda given: given[0]), "ae": wide}, images)
    explorer.z = z
    mean = vae.encode(data.to_float(images.test))[0]
    own = mean.mean(dim=0) + mean.std(dim=0) * torch.tensor(z)
    assert_side_by_side(explorer, [decoded(vae, own), decoded(wide, own_units(wide, images, z))])


@pytest.mark.parametrize("given", [lambda x: {"mu": x}, lambda x: x[:, :4], lambda x: (x, x)])
def test_an_encoder_that_gives_no_codes_is_told_what_to_give(given, vae, images):
    vae.encode = given
    own = OwnVAE(vae, pair=lambda codes: codes)
    explorer = explore.latent_sliders(own, test_images=images.test)
    button(explorer, "Encode a test image").click()
    says = "encode must give codes (n, 5), or (mu, log_var)"
    assert notice(explorer) == f"<b>ValueError</b>: {says}"
    with pytest.raises(ValueError, match=re.escape(says)):
        explore.compare({"own": own, "vae": a_model()}, images)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_decoder_may_give_an_array(dtype):
    def decode(z):
        return function(z).numpy().astype(dtype)[:, ::-1]  # a view, which torch would refuse

    explorer = explore.latent_sliders(decode, z=torch.zeros(3))
    explorer.sliders[0].value = 2.0
    expected = decoded(function, [2.0, 0, 0])[::-1]
    assert_same(opened(explorer.image), enlarged(expected))


@pytest.mark.parametrize("shape", [(64,), (8, 8), (1, 8, 8), (8, 8, 1)])
def test_grey_pictures_come_in_four_shapes(shape):
    explorer = explore.latent_sliders(lambda z: function(z).reshape(-1, *shape), z=torch.ones(3))
    assert_shows(explorer, function)


@pytest.mark.parametrize(
    "code",
    [
        torch.tensor([0.5, -1.0, 2.0, 0.0, 1.0], requires_grad=True),
        torch.tensor([0.5, -1.0, 2.0, 0.0, 1.0], dtype=torch.bfloat16),
        [0.5, -1, 2.0, 0, 1],
        np.array([0.5, -1, 2, 0, 1]),
    ],
    ids=["gradient", "bfloat16", "list", "array"],
)
def test_a_code_may_be_a_tensor_or_a_list(vae, code):
    explorer = explore.latent_sliders(vae)
    explorer.z = code
    assert isinstance(explorer.z, np.ndarray) and explorer.z.dtype == np.float32
    assert explorer.z.tolist() == [s.value for s in explorer.sliders] == [0.5, -1, 2, 0, 1]
    assert_shows(explorer, vae)


def scale_notice(explorer) -> str:
    shown = [w.value for w in visible(explorer) if isinstance(w, widgets.HTML)]
    return "".join(value for value in shown if "shown is" in value)


def test_logits_are_shown_through_a_sigmoid_which_is_said(vae, images):
    own = OwnVAE(vae, scale=lambda x: x)
    x = own.decode(torch.from_numpy(np.float32(base.Decoder(own).random_codes)))
    explorer = explore.latent_sliders(own)
    assert scale_notice(explorer) == (
        "<b>Does this model give logits?</b> Random codes decode to values from "
        f"{x.min():.3g} to {x.max():.3g}: shown is their sigmoid."
    )
    assert_shows(explorer, vae)
    explorer = explore.compare({"own & mine": own, "vae": vae}, images)
    assert scale_notice(explorer).startswith("<b>Does own &amp; mine give logits?</b>")
    assert_side_by_side(explorer, [decoded(vae, np.zeros(5))] * 2)


def test_values_from_minus_one_to_one_are_shown_as_intensities_which_is_said():
    explorer = explore.latent_sliders(lambda z: 2 * function(z) - 1, z=torch.ones(3))
    assert "<b>Does this model give [-1, 1]?</b>" in scale_notice(explorer)
    assert "shown is (x + 1) / 2." in scale_notice(explorer)
    assert_shows(explorer, function)
    assert still_of(explorer).shape[0] > PICTURE  # the still picture says it too


@pytest.mark.parametrize("network", ["mlp", "linear"])
def test_an_autoencoder_of_the_course_is_never_taken_for_another_scale(network, images):
    torch.manual_seed(0)
    model = models.Autoencoder(5, network=network).requires_grad_(False)
    for weight in model.decoder.parameters():
        weight *= 20
    x = base.Decoder(model).values(np.ones((1, 5)))
    assert (x.min() < -0.05 and x.max() > 1.05) == (network == "linear")
    explorer = explore.latent_sliders(model)
    assert scale_notice(explorer) == ""
    assert_same(opened(explorer.image), enlarged(base.Decoder(model).images(np.zeros((1, 5)))[0]))
    assert scale_notice(explore.compare({"one": model, "vae": a_model()}, images)) == ""


def test_intensities_a_little_outside_are_no_logits():
    explorer = explore.latent_sliders(lambda z: 1.08 * function(z) - 0.04, z=torch.ones(3))
    assert scale_notice(explorer) == ""


# --- every explorer, made and acted on ------------------------------------------------------------


def set_by_step(widget, trait: str, value):
    """Return move(step), which sets a trait to value(0.1 to 2), twenty of them in turn."""
    return lambda step: setattr(widget, trait, value(0.1 * (step % 20) + 0.1))


def moved_by_slider(explorer):
    return set_by_step(explorer.sliders[0], "value", float)


def moved_on(plane):
    return set_by_step(plane, "point", lambda x: [x, -1.0])


def sliders_of(images):
    model = a_model()
    explorer = explore.latent_sliders(model, test_images=images.test)
    return explorer, model, moved_by_slider(explorer)


def directions_of(images):
    model = a_model()
    directions = {"one": (torch.ones(5), 2.0), "two": (torch.eye(5)[0], 2.0)}
    explorer = explore.direction_sliders(model, torch.zeros(5), directions)
    return explorer, model, moved_by_slider(explorer)


def map_of(images):
    model = a_model(latent_size=2)
    explorer = explore.latent_map(model, images)
    return explorer, model, moved_on(explorer.planes[0])


def drawing_of(images):
    model = a_model()
    explorer = explore.draw_digit(model, images)

    def move(step: int) -> None:
        pixels = images.train[step % 20].numpy().copy()
        pixels[0, 0] = step % 2  # another drawing even where the image is the same
        explorer.pad.pixels = pixels.tobytes()

    return explorer, model, move


def morph_of(images):
    model = a_model()
    explorer = explore.morph(model, images.test[0], images.test[1], test_images=images.test)
    return explorer, model, set_by_step(explorer.slider, "value", lambda x: 0.4 * x)


def compared_sliders_of(images):
    model = a_model()
    explorer = explore.compare({"ae": a_model(models.Autoencoder), "vae": model}, images)
    return explorer, model, moved_by_slider(explorer)


def compared_maps_of(images):
    model = a_model(latent_size=2)
    flat = a_model(models.Autoencoder, latent_size=2)
    explorer = explore.compare({"ae": flat, "vae": model}, images)
    return explorer, model, moved_on(explorer.planes[1])


EVERY = [
    sliders_of,
    directions_of,
    map_of,
    drawing_of,
    morph_of,
    compared_sliders_of,
    compared_maps_of,
]
every = pytest.mark.parametrize("make", EVERY, ids=lambda make: make.__name__[:-3])


@every
def test_beside_the_widget_is_a_picture_that_follows_it(make, images):
    explorer, _, move = make(images)
    bundle, _ = explorer._repr_mimebundle_()
    view = bundle[base.WIDGET]
    assert view["model_id"] == explorer.model_id
    before = still_of(explorer)
    move(5)
    assert (still_of(explorer) != before).any()
    assert before.shape[1] <= 700  # it fits a page


@pytest.mark.parametrize(
    "make, says",
    [
        (sliders_of, r"Sliders: the image decoded at z = \(.*\), and what .*: z\[\d\] = 0\.60, .*"),
        (directions_of, r"Sliders: .*: one = 0\.60, two = 0\.00"),
        (map_of, r"Latent map: where the test images lie, and .* decoded at z = \(0\.60, -1\.00\)"),
        (drawing_of, r"Drawing pad: a drawing .*\. −ELBO [\d.]+ nats .*: more than .*\."),
        (morph_of, r"Morph: .*, 0\.24 of the way from start to end on a straight line, .*"),
        (compared_sliders_of, r"Sliders of ae and vae: the image decoded at z = .*"),
        (compared_maps_of, r"Latent map of ae and vae: .* decoded at z = \(0\.60, -1\.00\)"),
    ],
)
def test_the_picture_is_described_with_the_explorers_state(make, says, images):
    explorer, _, move = make(images)
    move(5)
    _, metadata = explorer._repr_mimebundle_()
    alt = metadata["image/png"]["alt"]
    assert re.fullmatch(says, alt)
    assert "<" not in alt and "-0.00" not in alt


def test_a_long_code_is_told_by_its_first_numbers():
    explorer = explore.latent_sliders(a_model(latent_size=20))
    explorer.z = -1e-9 * torch.ones(20)
    _, metadata = explorer._repr_mimebundle_()
    says = "the image decoded at z = (0.00, 0.00, 0.00, 0.00, 0.00, 0.00, …)"
    assert says in metadata["image/png"]["alt"]
    assert metadata["image/png"]["alt"].count("z[") == 6  # as many sliders as the still shows


@every
def test_an_error_in_a_callback_is_shown_until_the_next_good_action(make, images):
    explorer, model, move = make(images)
    bias = model.decoder[-1].bias.clone()
    model.decoder[-1].bias.fill_(torch.nan)
    move(7)
    assert notice(explorer).startswith("<b>ValueError</b>: the decoder gives NaN or inf")
    model.decoder[-1].bias.copy_(bias)
    move(9)
    assert notice(explorer) == ""
    assert still_of(explorer).size  # and all is well again


@every
def test_an_error_behind_a_button_is_shown_too(make, images):
    explorer, model, _ = make(images)
    for each in find(explorer, widgets.Button):
        if each.description == "Clear":  # needs no model
            continue
        for layer in (model.decoder[-1], model.encoder[-1]):
            layer.bias += torch.nan
        each.click()
        assert "<b>" in notice(explorer) and "NaN" in notice(explorer), each.description
        for layer in (model.decoder[-1], model.encoder[-1]):
            layer.bias.zero_()
        each.click()
        assert notice(explorer) == "", each.description


@every
def test_no_warning_of_a_model_with_contrast(make, images):
    explorer, _, _ = make(images)
    assert warning(explorer) == ""


@every
def test_every_part_has_words(make, images):
    explorer, _, _ = make(images)
    pictures = find(explorer, Picture)
    assert pictures and all(w.alt.strip() for w in pictures)
    for part in find(explorer, Plane | Pad):
        assert part.label.strip() and " :" not in part.label
    for part in find(explorer, widgets.FloatSlider | widgets.Button):
        assert part.description.strip()


def test_a_blank_pad_has_words_too(vae, images):
    explorer = explore.draw_digit(vae, images, torch.zeros(28, 28, dtype=torch.uint8))
    assert all(w.alt.strip() for w in find(explorer, Picture))


@every
def test_closing_leaves_no_widget(make, images):
    count = n_widgets()
    explorer, _, move = make(images)
    move(3)
    still_of(explorer)
    assert n_widgets() > count
    explorer.close()
    assert n_widgets() == count


@every
def test_a_closed_explorer_still_takes_a_linked_code(make, images):
    # A link from another cell outlives it.
    explorer, _, move = make(images)
    explorer.close()
    count = n_widgets()
    explorer.z = np.ones_like(explorer.z)
    move(4)
    assert n_widgets() == count


@pytest.mark.parametrize(
    "make, n_moves", [(sliders_of, 1000), (map_of, 1000), (drawing_of, 100), (morph_of, 100)]
)
def test_moves_leave_no_widget_behind(make, n_moves, images):
    explorer, _, move = make(images)
    move(0)
    count, image = n_widgets(), explorer.image
    for step in range(1, n_moves + 1):
        move(step)
    assert n_widgets() == count
    assert notice(explorer) == ""
    move(3)
    assert explorer.image != image  # they were moves


# --- tokens ---------------------------------------------------------------------------------------


@pytest.fixture
def tokens(images):
    torch.manual_seed(0)
    vq = discrete.VQVAE(n_codes=9).eval()
    with torch.no_grad():
        vq.decoder[-2].weight *= 20  # contrast, as after a training
    return explore.change_tokens(vq, images.test[0]), vq


def test_tokens_begin_with_those_of_the_image(tokens, images):
    explorer, vq = tokens
    assert explorer.z.tolist() == vq.tokens(images.test[:1])[0].tolist()
    assert explorer.slider.value == explorer.z[24] == explorer.z[explorer.cell]  # in the middle
    assert warning(explorer) == ""


def test_a_click_chooses_a_cell_and_the_slider_changes_it_alone(tokens):
    explorer, vq = tokens
    before, image = explorer.z.copy(), explorer.image
    for point, cell in [([0.5, 6.5], 0), ([6.9, 6.1], 6), ([7.0, 0.0], 48), ([2.5, 1.5], 37)]:
        explorer.plane.point = point
        assert explorer.cell == cell and explorer.slider.value == before[cell]
        np.testing.assert_array_equal(explorer.z, before)
    explorer.slider.value = (before[37] + 4) % 9
    assert np.flatnonzero(explorer.z != before).tolist() == [37]
    assert explorer.image != image and notice(explorer) == ""
    wanted = (255 * vq.decode_mean(torch.from_numpy(explorer.z)[None])).round().byte()
    np.testing.assert_array_equal(
        explorer._decoders[""].images(explorer.z[None])[0].ravel(), wanted[0]
    )
    _, metadata = explorer._repr_mimebundle_()
    assert f"entry {explorer.z[37]:.0f} at row 6, column 3" in metadata["image/png"]["alt"]
    next(b for b in find(explorer, widgets.Button) if b.description == "Reset").click()
    np.testing.assert_array_equal(explorer.z, before)
    assert explorer.slider.value == before[37]


def test_tokens_are_still_the_plane_and_leave_no_widget(images):
    count = n_widgets()
    vq = discrete.VQVAE(n_codes=9).eval()
    explorer = explore.change_tokens(vq, images.test[0])
    before = still_of(explorer)
    explorer.plane.point = [0.5, 0.5]
    assert (still_of(explorer) != before).any() and before.shape[1] <= 800
    assert explorer.plane.label.strip() and all(w.alt.strip() for w in find(explorer, Picture))
    explorer.close()
    assert n_widgets() == count


# --- the still pictures ---------------------------------------------------------------------------

LINE = 18 + GAP  # pixels from the top of one line of words to what is below it


def test_sliders_are_still_the_picture_and_six_filmstrips():
    vae = a_model(latent_size=20)
    explorer = explore.latent_sliders(vae, z=torch.ones(20))
    explorer.sliders[1].value = -2.0
    still, z = still_of(explorer), explorer.z.copy()
    assert_same(still[:PICTURE, :PICTURE, 0], enlarged(decoded(vae, z)))
    # The filmstrips are of this code, though the explorer has not come to rest.
    strips = still[:, -28 * sliders.FRAMES :, 0]
    for i in range(6):
        first = z.copy()
        first[i] = -3.0
        top = i * (28 + GAP)
        assert_same(strips[top : top + 28, :28], decoded(vae, first))
    assert (still[6 * (28 + GAP) :, PICTURE:] == 255).all()  # no seventh


def test_a_map_is_still_the_plane_with_its_point(vae_2d, images):
    explorer = explore.latent_map(vae_2d, images)
    explorer.z = np.array([2.0, -2.5])
    still, (plane,) = still_of(explorer), explorer.planes
    low, high = np.array(plane.low), np.array(plane.high)
    x, y = (explorer.z - low) / (high - low) * plane.size
    yellow = np.argwhere((still == (0xFF, 0xD4, 0x00)).all(axis=2))
    np.testing.assert_allclose(yellow.mean(axis=0), [plane.size - y, x], atol=1)
    left = plane.size + GAP  # to the right of the plane is the whole picture
    whole = still[:PICTURE, left : left + PICTURE, 0]
    assert_same(whole, enlarged(decoded(vae_2d, explorer.z)))
    explorer.view.value = "decoded"
    changed = (still_of(explorer)[:, : plane.size] != still[:, : plane.size]).any(axis=2)
    assert changed.mean() > 0.5  # the background is the plane's own


def test_a_drawing_is_still_the_drawing_and_its_reconstruction(vae, draw):
    draw.drawing = a_drawing()
    still, left, side = still_of(draw)[LINE:, :, 0], 280 + GAP, 2 * drawing.ROW
    np.testing.assert_array_equal(still[:280, :280], np.kron(draw.drawing, np.ones((10, 10))))

    def small(image: np.ndarray) -> np.ndarray:
        square = Image.fromarray(enlarged(image))
        return np.asarray(square.resize((side, side), Image.Resampling.BOX))

    prepared = data.centre_digit(torch.tensor(draw.drawing)).numpy()
    np.testing.assert_array_equal(still[:side, left : left + side], small(prepared))
    expected, rest = small(decoded(vae, draw.z)), still[:side, left + side :].astype(int)
    views = (rest[:, x : x + side] for x in range(rest.shape[1] - side))
    assert any(np.abs(view - expected).max() <= 1 for view in views)


def test_a_blank_pad_is_still_without_an_older_reconstruction(draw):
    draw.clear()
    still, left = still_of(draw)[LINE:, :, 0], 280 + GAP + 2 * drawing.ROW + GAP
    assert set(np.unique(still[: 2 * drawing.ROW, left:])) == {240, 255}  # as in the widget


def test_a_morph_is_still_the_image_between_its_ends(vae):
    start, end = torch.zeros(5), torch.ones(5)
    explorer = explore.morph(vae, start, end)
    explorer.slider.value = 0.75
    still = still_of(explorer)[:PICTURE, :, 0]
    for i, z in enumerate((start, explorer.z, end)):
        left = i * (PICTURE + GAP)
        assert_same(still[:, left : left + PICTURE], enlarged(decoded(vae, z)))


def test_compared_sliders_are_still_a_picture_for_each(images):
    explorer, model, move = compared_sliders_of(images)
    move(12)
    still, image = still_of(explorer)[..., 0], opened(explorer.image)
    first, second = LINE, LINE + PICTURE + GAP + LINE
    assert_same(still[first : first + PICTURE, :PICTURE], image[:, :PICTURE])
    assert_same(still[second : second + PICTURE, :PICTURE], enlarged(decoded(model, explorer.z)))


def test_compared_maps_are_still_a_plane_and_a_picture_for_each(images):
    explorer, model, move = compared_maps_of(images)
    move(12)
    size = explorer.planes[0].size
    still, image = still_of(explorer)[:, size + GAP :, 0], opened(explorer.image)
    first, second = LINE, size + GAP + LINE  # below the names
    assert_same(still[first : first + PICTURE], image[:, :PICTURE])
    assert_same(still[second : second + PICTURE], enlarged(decoded(model, explorer.z)))


def test_a_still_picture_has_all_words_that_show_and_no_more():
    def still(*children):
        return parts.still(base.column(*children))

    words = still("a word")
    assert (words != 255).any()
    hidden = widgets.HTML("hidden", layout={"display": "none"})
    np.testing.assert_array_equal(still(hidden, "a <b>word</b>", widgets.Button(), ""), words)
    assert still("many words " * 20).shape[1] < 450  # in several lines
    choice = widgets.ToggleButtons(options=["a", "b"], tooltips=["one", "two"], value="b")
    np.testing.assert_array_equal(still(choice), still("b: two"))
    slider = widgets.FloatSlider(description="tilt", value=0.5)
    np.testing.assert_array_equal(still(slider), still("tilt = 0.50"))


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model", ["vae.pt", 3, None, function], ids=["word", "number", "None", "function"]
)
def test_what_is_no_decoder_is_refused(model):
    with pytest.raises(ValueError, match="is no decoder: give a model with latent_size"):
        explore.latent_sliders(model)


@pytest.mark.parametrize(
    "decoder",
    [
        lambda z: torch.zeros(len(z), 783),
        lambda z: torch.zeros(len(z), 28, 27),
        lambda z: torch.zeros(len(z), 3, 28, 27),
        lambda z: torch.zeros(len(z), 4, 32, 32),  # 64² numbers
        lambda z: torch.zeros(len(z), 28, 3, 28),
        lambda z: torch.zeros(len(z), 1, 1, 28, 28),
    ],
    ids=["flat", "oblong", "oblong in colour", "four channels", "channel between", "five"],
)
def test_images_that_are_not_square_are_refused(decoder):
    shape = re.escape(str(tuple(decoder(torch.zeros(1, 3)).shape[1:])))
    for make in (
        lambda: explore.latent_sliders(decoder, z=torch.zeros(3)),
        lambda: explore.direction_sliders(decoder, torch.zeros(3), {"a": (torch.ones(3), 1.0)}),
        lambda: explore.morph(decoder, torch.zeros(3), torch.ones(3)),
    ):
        with pytest.raises(ValueError, match=f"images of shape {shape}: no square image, "):
            make()


@pytest.mark.parametrize(
    "decoder",
    [
        lambda z: np.zeros(784),
        lambda z: torch.zeros(784),
        lambda z: torch.zeros(1, 784).expand(3, 784),
        lambda z: None,
    ],
    ids=["numpy", "no batch", "another number", "nothing"],
)
def test_what_gives_no_batch_of_images_is_refused(decoder):
    with pytest.raises(ValueError, match="decoder"):
        explore.latent_sliders(decoder, z=torch.zeros(5))


def calls(model, flat, images) -> dict:
    """Return a call of every explorer, on a VAE with codes of five numbers or one with two."""
    zeros, ones = torch.zeros(5), torch.ones(5)
    return {
        "sliders": lambda: explore.latent_sliders(model),
        "directions": lambda: explore.direction_sliders(model, zeros, {"a": (ones, 1.0)}),
        "map": lambda: explore.latent_map(flat, images),
        "draw": lambda: explore.draw_digit(model, images),
        "morph": lambda: explore.morph(model, zeros, ones),
        "compare": lambda: explore.compare({"good": a_model(), "this": model}, images),
    }


def test_weights_that_are_nan_are_refused(vae, vae_2d, images):
    for model in (vae, vae_2d):
        model.decoder[-1].bias[3] = torch.nan
    for name, call in calls(vae, vae_2d, images).items():
        with pytest.raises(ValueError, match="NaN or inf: has its training diverged"):
            call()
            pytest.fail(name)


def test_an_encoder_with_nan_is_noticed(vae, images):
    vae.encoder[-1].bias[0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        explore.draw_digit(vae, images)
    with pytest.raises(ValueError, match="NaN"):
        explore.morph(vae, images.test[0], images.test[1])
    explorer = explore.latent_sliders(vae, test_images=images.test)
    button(explorer, "Encode a test image").click()
    assert "NaN" in notice(explorer) and np.all(explorer.z == 0)


@pytest.mark.parametrize(
    "z, says", [(np.zeros(4), r"shape \(5,\), got \(4,\)"), (np.full(5, np.nan), "NaN or inf")]
)
def test_a_bad_code_is_refused_and_nothing_changes(vae, z, says):
    explorer = explore.latent_sliders(vae)
    before = explorer.image
    with pytest.raises(ValueError, match=says):
        explorer.z = z
    assert explorer.image == before and np.all(explorer.z == 0)
    assert [s.value for s in explorer.sliders] == [0.0] * 5


def test_a_first_code_of_another_size_is_refused(vae, vae_2d, images):
    for call in (
        lambda: explore.latent_sliders(vae, z=torch.zeros(4)),
        lambda: explore.latent_map(vae_2d, images, z=torch.zeros(5)),
        lambda: explore.direction_sliders(vae, torch.zeros(4), {"a": (torch.ones(4), 1.0)}),
    ):
        with pytest.raises(ValueError, match="z must have shape"):
            call()


def test_directions_must_fit_the_code(vae):
    for directions, says in [
        ({}, "at least one direction"),
        (
            {"tilt": (torch.ones(4), 1.0)},
            r"z and direction 'tilt' must have the same shape, got \(5,\) and \(4,\)",
        ),
        (
            {"a": (torch.ones(5), 1.0), "b": (torch.ones(1, 5), 1.0)},
            "direction 'b' must have the same shape",
        ),
    ]:
        with pytest.raises(ValueError, match=says):
            explore.direction_sliders(vae, torch.zeros(5), directions)


@pytest.mark.parametrize("model, got", [(a_model(latent_size=20), 20), (function, None)])
def test_a_map_needs_a_model_of_two_numbers(images, model, got):
    says = rf"latent_size 2, got {got}: use explore\.latent_sliders"
    with pytest.raises(ValueError, match=says):
        explore.latent_map(model, images)


def test_a_drawing_needs_a_vae_of_its_size(autoencoder, images):
    small, colour = a_model(shape=(1, 8, 8)), a_model(shape=(3, 28, 28))
    for model, got in [
        (autoencoder, "Autoencoder of input_size 784"),
        (small, "VAE of input_size 64"),
        (colour, "VAE of input_size 2352"),
        (function, "function of input_size unknown"),
    ]:
        with pytest.raises(ValueError, match=f"a VAE of 28×28 images in grey, .*: got {got}"):
            explore.draw_digit(model, images)


def test_tokens_are_of_images_of_the_models_size():
    vq = discrete.VQVAE(n_codes=9)
    with pytest.raises(ValueError, match=r"an image of 784 pixels, got shape \(3, 28, 28\)"):
        explore.change_tokens(vq, torch.zeros(3, 28, 28, dtype=torch.uint8))


@pytest.mark.parametrize(
    "value", [np.zeros((28, 27), np.uint8), np.zeros((28, 28), np.float32), np.zeros(784, np.uint8)]
)
def test_a_drawing_of_another_kind_is_refused(draw, value):
    before, said = draw.pad.pixels, verdict(draw)
    with pytest.raises(ValueError, match=r"drawing must be uint8 \(28, 28\)"):
        draw.drawing = value
    assert draw.pad.pixels == before and verdict(draw) == said


def test_pixels_of_another_number_are_noticed(draw):
    draw.pad.pixels = bytes(100)
    assert "size 100 into shape (28,28)" in notice(draw)
    draw.pad.pixels = a_drawing().tobytes()
    assert notice(draw) == ""


@pytest.mark.parametrize(
    "end",
    [
        torch.zeros(4),
        torch.zeros(5, dtype=torch.long),
        torch.zeros(28, 28),
        torch.zeros(1, 28, 28, dtype=torch.uint8),
        torch.zeros(28, 28, 3, dtype=torch.uint8),
        torch.zeros(784, dtype=torch.uint8),
    ],
    ids=["4 numbers", "whole numbers", "float image", "batch", "channels last", "flat image"],
)
def test_the_ends_of_a_morph_are_images_or_codes(vae, end):
    for name, ends in [("end", (torch.zeros(5), end)), ("start", (end, torch.zeros(5)))]:
        with pytest.raises(ValueError, match=f"{name} must be a uint8 image"):
            explore.morph(vae, *ends)


def test_a_morph_of_images_needs_their_size_and_an_encoder(vae, images):
    with pytest.raises(ValueError, match="images of 784 pixels, got 64"):
        explore.morph(vae, images.test[0, :8, :8], torch.zeros(5))
    with pytest.raises(ValueError, match="images of 784 pixels, got 2352"):
        explore.morph(vae, images.test[:3], torch.zeros(5))  # three, or one in colour
    with pytest.raises(ValueError, match="a decoder alone cannot encode an image"):
        explore.morph(function, torch.zeros(3), images.test[0])
    with pytest.raises(ValueError, match="decoder"):
        explore.morph(function, images.test[0], images.test[1])
    explorer = explore.morph(function, torch.zeros(3), torch.ones(3), test_images=images.test)
    button(explorer, "Another pair").click()
    assert "a decoder alone cannot encode an image" in notice(explorer)
    np.testing.assert_array_equal(explorer.ends[1], np.ones(3))


def test_a_comparison_needs_two_models_of_one_size(vae, vae_2d, images):
    functions = {"one": function, "two": function}
    for compared in ({}, {"vae": vae}, {"vae": vae, "flat": vae_2d}, functions):
        with pytest.raises(ValueError, match="compare needs two models with codes of one size"):
            explore.compare(compared, images)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)], ids=["grey", "colour"])
@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("cls", [models.VAE, models.Autoencoder])
@pytest.mark.parametrize("latent_size", [2, 20])
def test_an_untrained_model_is_called_so(cls, network, latent_size, shape):
    torch.manual_seed(0)
    explorer = explore.latent_sliders(cls(latent_size, shape=shape, network=network))
    assert "Is this model trained?" in warning(explorer)


def test_an_untrained_model_is_called_so_everywhere(images):
    torch.manual_seed(0)
    flat, fresh = (models.VAE(n, 32, network="conv") for n in (2, 5))
    for name, call in calls(fresh, flat, images).items():
        assert "trained?</b>" in warning(call()), name


def test_a_decoder_in_black_and_white_is_not_called_untrained():
    # Black and white halves, the edge between them where z says.
    def halves(z):
        return (torch.arange(8.0) > 4 + z[:, :1]).float()[:, None, :].expand(-1, 8, 8)

    explorer = explore.latent_sliders(halves, z=torch.zeros(2))
    assert warning(explorer) == ""


HOSTILE = "<img src=x onerror=alert(1)>"


class Html(HTMLParser):
    """What a browser makes of the HTML that an explorer shows: its tags and its text."""

    def __init__(self, explorer):
        super().__init__()
        self.tags, self.text = set(), ""
        for part in visible(explorer):
            if isinstance(part, widgets.HTML):
                self.feed(part.value)

    def handle_starttag(self, tag, attrs):
        self.tags.add((tag, *attrs))

    def handle_data(self, data):
        self.text += data


def hostile(images) -> dict:
    """Return a call of every explorer that puts a learner's text, as bad as can be, into it."""
    torch.manual_seed(0)
    fresh, flat = models.VAE(5, 16), a_model(latent_size=2)
    named = dataclasses.replace(images, class_names=10 * (HOSTILE,))

    def fails(z):
        if z[0, 0] == 1:
            raise type(HOSTILE, (Exception,), {})(HOSTILE)
        return function(z)

    def failed():
        explorer = explore.latent_sliders(fails, z=torch.zeros(2))
        explorer.sliders[0].value = 1.0
        return explorer

    zeros, ones = torch.zeros(5), torch.ones(5)
    logits = OwnVAE(a_model(), scale=lambda x: x)
    return {
        "an error": failed,
        "untrained": lambda: explore.compare({HOSTILE: fresh, "b": a_model()}, images),
        "logits": lambda: explore.compare({HOSTILE: logits, "b": a_model()}, images),
        "maps": lambda: explore.compare({HOSTILE: flat, "b": flat}, images),
        "map": lambda: explore.latent_map(flat, named),
        "directions": lambda: explore.direction_sliders(fresh, zeros, {HOSTILE: (ones, 1.0)}),
        "drawing": lambda: explore.draw_digit(a_model(), named),
    }


@pytest.mark.parametrize(
    "name, times",
    [
        ("an error", 2),
        ("untrained", 2),
        ("logits", 2),
        ("maps", 1),
        ("map", 0),
        ("directions", 0),
        ("drawing", drawing.SHOWN),
    ],
)
def test_a_learners_text_is_not_taken_for_html(name, times, images):
    explorer = hostile(images)[name]()
    html = Html(explorer)
    assert html.tags <= {("b",)} and html.text.count(HOSTILE) == times
    assert not any(getattr(w, "description_allow_html", False) for w in walk(explorer))
    assert still_of(explorer).size
    if name == "directions":
        assert explorer.sliders[0].description == HOSTILE  # which ipywidgets takes for plain text


def test_an_error_in_what_is_drawn_later_is_shown(vae):
    async def move():
        explorer = explore.latent_sliders(vae)
        explorer.sliders[0].value = 1.0
        vae.decoder[-1].bias.fill_(torch.nan)
        await asyncio.sleep(1.5 * base.PAUSE)
        return explorer

    assert "NaN or inf" in notice(asyncio.run(move()))


# --- what explorers leave behind ------------------------------------------------------------------


def test_what_is_refused_leaves_nothing_behind(vae, images, monkeypatch):
    ignored = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    count = n_widgets()
    with pytest.raises(ValueError):
        explore.latent_sliders(vae, z=torch.zeros(4))
    vae.decoder[-1].bias[0] = torch.nan
    with pytest.raises(ValueError):
        explore.draw_digit(vae, images)
    gc.collect()
    # An "Exception ignored in ..." would stand in the notebook above the real message.
    assert [str(each.exc_value) for each in ignored] == []
    assert n_widgets() == count


def test_a_closed_explorer_draws_nothing_later(vae):
    async def move():
        explorer = explore.latent_sliders(vae)
        strip = picture(explorer, "what z[1] does")
        before = strip.value
        explorer.sliders[0].value = 1.0
        explorer.close()
        await asyncio.sleep(1.5 * base.PAUSE)
        return strip.value == before

    assert asyncio.run(move())


RUNS = itertools.count()


@pytest.fixture
def run_cell(monkeypatch, request):
    """Run a function as if it were a cell of this test, and return what it returns."""
    message = {}
    shell = SimpleNamespace(get_parent=lambda: message)
    monkeypatch.setattr(base, "get_ipython", lambda: shell)

    def run(cell, code=None, cell_id=None):
        message["header"] = {"msg_id": f"message {next(RUNS)}"}
        for part, name, text in [("metadata", "cellId", cell_id), ("content", "code", code)]:
            message[part] = {} if text is None else {name: f"{request.node.name}: {text}"}
        return cell()

    return run


def is_open(explorer) -> bool:
    return all(w.comm is not None for w in [explorer, *walk(explorer)])


def test_a_cell_run_again_and_again_leaves_one_runs_widgets(vae_2d, images, run_cell):
    def cell():
        return explore.latent_map(vae_2d, images), explore.latent_sliders(vae_2d)

    count = n_widgets()
    first = run_cell(cell, "same", "a")
    once = n_widgets()
    assert once > count
    for _ in range(19):
        last = run_cell(cell, "same", "a")
    assert n_widgets() == once
    assert all(is_open(explorer) for explorer in last)
    assert not any(w.comm for explorer in first for w in walk(explorer))


def test_all_explorers_of_one_run_live(vae, run_cell):
    def cell():
        return explore.latent_sliders(vae), explore.latent_sliders(vae)

    one, two = run_cell(cell, "a")
    assert is_open(one) and is_open(two)
    run_cell(cell, "a")
    assert not is_open(one) and not is_open(two)


@pytest.mark.parametrize(
    "cells, live",
    [
        ([("same", "a"), ("same", "b"), ("same", "a")], [False, True, True]),
        ([("before", "a"), ("after", "a")], [False, True]),
        ([("one", None), ("two", None), ("one", None)], [False, True, True]),
    ],
    ids=["another cell", "an edited cell is the same", "without its name the code tells it"],
)
def test_only_what_the_same_cell_made_is_closed(vae, run_cell, cells, live):
    made = [run_cell(lambda: explore.latent_sliders(vae), *cell) for cell in cells]
    assert [is_open(explorer) for explorer in made] == live


def test_what_a_sliders_message_makes_closes_nothing(vae, run_cell):
    one = run_cell(lambda: explore.latent_sliders(vae), "one")
    made = [weakref.ref(run_cell(lambda: explore.latent_sliders(vae))) for _ in range(2)]
    assert is_open(one) and all(is_open(explorer()) for explorer in made)
    for explorer in made:
        explorer().close()
    gc.collect()
    assert [explorer() for explorer in made] == [None, None]  # nothing has kept them


SETUP = f"""
import gc, torch, ipywidgets as widgets
from vae_lesson import explore, models
from vae_lesson.explore.base import Explorer
torch.manual_seed(0)
model = models.VAE(latent_size=3, hidden_size=16).eval()
def explorers():
    gc.collect()
    return sum(isinstance(o, Explorer) for o in gc.get_objects())
{inspect.getsource(n_widgets)}
{inspect.getsource(walk)}
"""
CELL = "explorer = explore.latent_sliders(model); explorer.sliders[0].value = 1.0"


@pytest.fixture(scope="module")
def kernel():
    manager, client = start_new_kernel()
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def execute(kernel, code: str, cell_id: str | None = None, **expressions: str) -> list[str]:
    """Run a cell in the kernel; return the expressions' values after it, as text."""
    content = {"code": code, "user_expressions": expressions, "silent": False}
    message = kernel.session.msg("execute_request", content)
    if cell_id is not None:
        message["metadata"]["cellId"] = cell_id  # as JupyterLab does
    kernel.shell_channel.send(message)
    while True:
        reply = kernel.get_shell_msg(timeout=60)
        if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
            break
    assert reply["content"]["status"] == "ok", reply["content"]
    values = reply["content"]["user_expressions"].values()
    return [value["data"]["text/plain"] for value in values]


def test_in_a_kernel_a_cell_run_again_and_again_leaves_nothing(kernel):
    execute(kernel, SETUP)
    counts = {"widgets": "n_widgets()", "explorers": "explorers()"}
    once = execute(kernel, CELL, **counts)
    for _ in range(18):
        execute(kernel, CELL)
    again = execute(kernel, CELL, **counts)
    assert again == once and once[1] == "1"
    # JupyterLab names its cells: the same one after an edit, then another one.
    named = execute(kernel, CELL, "a", **counts)
    assert execute(kernel, CELL + "  # edited", "a", **counts) == named
    (more,) = execute(kernel, CELL, "b", widgets=counts["widgets"])
    assert int(more) > int(named[0])


def test_in_a_kernel_a_moved_slider_is_followed_by_its_filmstrips(kernel):
    execute(kernel, SETUP)
    code = """explorer = explore.latent_sliders(model)
(strip,) = (w for w in walk(explorer) if "what z[1] does" in getattr(w, "alt", ""))
before = strip.value"""
    (model_id,) = execute(kernel, code, id="explorer.sliders[0].model_id")
    update = {"method": "update", "state": {"value": 2.0}, "buffer_paths": []}
    message = {"comm_id": model_id.strip("'"), "data": update}
    kernel.shell_channel.send(kernel.session.msg("comm_msg", message))
    wait = "import asyncio; await asyncio.sleep(0.5)"  # longer than the explorer's pause
    assert execute(
        kernel,
        wait,
        z="explorer.z.tolist()",
        follows="strip.value != before",
        notice="explorer.children[-1].value",
    ) == ["[2.0, 0.0, 0.0]", "True", "''"]


def test_no_interact_and_no_output_widget():
    # Now and then they hang a headless run for good.
    files = sorted(Path(explore.__file__).parent.iterdir())
    texts = [path.read_text() for path in files if path.is_file()]
    assert len(texts) >= 10
    assert not any("Output(" in text or "interact(" in text for text in texts)


@pytest.mark.parametrize("allow_stdin", [True, False])
def test_a_headless_run_leaves_the_picture_and_no_widget(vae, monkeypatch, allow_stdin):
    request = {"content": {"code": "x", "allow_stdin": allow_stdin}, "header": {"msg_id": "1"}}
    shell = SimpleNamespace(get_parent=lambda: request)
    monkeypatch.setattr(base, "get_ipython", lambda: shell)
    explorer = explore.latent_sliders(vae)
    data, _ = explorer._repr_mimebundle_()
    assert (base.WIDGET in data) == allow_stdin
    assert "image/png" in data
    explorer.close()


@every
def test_ipython_shows_the_bundle_and_colab_is_told_what_draws_the_widget(
    make, images, monkeypatch
):
    # Colab puts the address beside what is displayed, but not beside what a cell's last line gives.
    output = SimpleNamespace(
        enable_custom_widget_manager=lambda: None,
        _widgets=SimpleNamespace(_installed_url="address"),
    )
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    explorer, _, _ = make(images)
    data, metadata = DisplayFormatter().format(explorer)
    assert data[base.WIDGET]["model_id"] == explorer.model_id and "image/png" in data
    assert metadata[base.WIDGET] == {"colab": {"custom_widget_manager": {"url": "address"}}}
    assert metadata["image/png"]["alt"]
