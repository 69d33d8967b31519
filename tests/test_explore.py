"""The explorers without a browser: their state, callbacks, twins and errors."""

import asyncio
import base64
import inspect
import io

import ipywidgets as widgets
import numpy as np
import pytest
import torch
import traitlets
from PIL import Image

from vae_lesson import explore, models


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return models.VAE(latent_size=5, hidden_size=16).eval()


def picture(explorer) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(explorer.image)))


def walk(widget) -> list:
    """Return all widgets inside this one."""
    inside = list(getattr(widget, "children", ()))
    return inside + [w for child in inside for w in walk(child)]


def decoded(model, z) -> np.ndarray:
    with torch.no_grad():
        x = model.decode_mean(torch.as_tensor(z, dtype=torch.float32)[None])
    return (255 * x).round().byte().numpy().reshape(28, 28)


def test_a_slider_moves_z_and_the_picture(vae):
    explorer = explore.latent_sliders(vae)
    before = explorer.image
    explorer.sliders[3].value = 2.0
    np.testing.assert_allclose(explorer.z, [0, 0, 0, 2, 0])
    assert explorer.image != before
    # The picture is the decoded image, each pixel a square of 8 × 8.
    np.testing.assert_array_equal(picture(explorer)[4::8, 4::8], decoded(vae, explorer.z))


def test_setting_z_moves_the_sliders_and_keeps_what_they_cannot_show(vae):
    explorer = explore.latent_sliders(vae)
    explorer.z = np.array([0.5, 1.0, 0.0, 0.0, -9.0])
    assert [s.value for s in explorer.sliders] == [0.5, 1.0, 0.0, 0.0, -3.0]  # -9 is out of range
    np.testing.assert_allclose(explorer.z, [0.5, 1, 0, 0, -9])
    explorer.sliders[1].value = 2.0
    np.testing.assert_allclose(explorer.z, [0.5, 2, 0, 0, -9])


def test_sliders_are_ordered_by_kl_and_unused_ones_folded(vae):
    kl = torch.tensor([0.2, 0.001, 3.0, 0.0, 1.0])
    explorer = explore.latent_sliders(vae, kl=kl, limits=[(-j - 1, j + 1) for j in range(5)])
    assert [s.description for s in explorer.sliders] == ["z[2]", "z[4]", "z[0]", "z[1]", "z[3]"]
    assert [s.max for s in explorer.sliders] == [3, 5, 1, 2, 4]
    (folded,) = (w for w in walk(explorer) if isinstance(w, widgets.Accordion))
    assert folded.selected_index is None
    assert folded.get_title(0) == "2 unused dimensions (KL under 0.01 nats)"
    assert explorer.sliders[3] in walk(folded) and explorer.sliders[2] not in walk(folded)
    explorer.sliders[3].value = 1.0  # folded away, but alive
    assert explorer.z[1] == 1.0


def test_filmstrips_show_what_a_slider_does_from_here(vae):
    explorer = explore.latent_sliders(vae, z=torch.ones(5))
    strip = np.asarray(Image.open(io.BytesIO(explorer._strips[2].value)))
    assert strip.shape == (28, 28 * explore.FRAMES)
    z = np.ones(5)
    z[2] = -3.0  # the first frame is at the slider's lower end
    np.testing.assert_array_equal(strip[:, :28], decoded(vae, z))


def test_filmstrips_follow_once_the_sliders_rest(vae):
    async def move():
        explorer = explore.latent_sliders(vae)
        before = explorer._strips[1].value
        for value in (0.5, 1.0, 1.5):
            explorer.sliders[0].value = value
            assert explorer._strips[1].value == before  # not while it moves
        await asyncio.sleep(2 * explore.STRIP_PAUSE)
        return explorer, before

    explorer, before = asyncio.run(move())
    assert explorer._strips[1].value != before
    strip = np.asarray(Image.open(io.BytesIO(explorer._strips[1].value)))
    np.testing.assert_array_equal(strip[:, :28], decoded(vae, [1.5, -3, 0, 0, 0]))


def test_encoding_a_test_image_goes_to_its_code_and_shows_it(vae):
    test_images = torch.arange(2 * 784).reshape(2, 28, 28).remainder(256).byte()
    explorer = explore.latent_sliders(vae, test_images=test_images)
    explorer.encode(1)
    with torch.no_grad():
        mu, _ = vae.encode(test_images[1:].flatten(1).float() / 255)
    np.testing.assert_allclose(explorer.z, mu[0].numpy(), atol=1e-6)
    shown = [w for w in walk(explorer) if w is explorer._original]
    assert len(shown) == 1
    original = np.asarray(Image.open(io.BytesIO(shown[0].value)))
    np.testing.assert_array_equal(original[4::8, 4::8], test_images[1].numpy())


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


def test_random_draw_and_reset(vae):
    explorer = explore.latent_sliders(vae, z=torch.ones(5))
    explorer.draw()
    assert not np.allclose(explorer.z, 1.0)
    np.testing.assert_allclose([s.value for s in explorer.sliders], explorer.z, atol=1e-6)
    explorer.reset()
    np.testing.assert_array_equal(explorer.z, np.ones(5))


def test_two_explorers_can_be_linked(vae):
    one, two = explore.latent_sliders(vae), explore.latent_sliders(vae)
    traitlets.dlink((one, "z"), (two, "z"))
    one.sliders[0].value = 1.5
    assert two.sliders[0].value == 1.5 and two.image == one.image


@pytest.mark.parametrize(
    "z, says", [(np.zeros(4), r"shape \(5,\), got \(4,\)"), (np.full(5, np.nan), "NaN or inf")]
)
def test_a_bad_code_is_refused_and_nothing_changes(vae, z, says):
    explorer = explore.latent_sliders(vae)
    before = explorer.image
    with pytest.raises(traitlets.TraitError, match=says):
        explorer.z = z
    assert explorer.image == before and np.all(explorer.z == 0)


def test_an_error_in_a_callback_is_shown(vae, monkeypatch):
    explorer = explore.latent_sliders(vae)
    notice = explorer.children[-1]

    def broken(z):
        raise RuntimeError("the decoder is broken")

    monkeypatch.setattr(vae, "decode_mean", broken)
    explorer.sliders[0].value = 1.0
    assert "RuntimeError" in notice.value and "the decoder is broken" in notice.value
    monkeypatch.undo()
    explorer.sliders[0].value = 2.0
    assert notice.value == ""


def test_the_static_twin_is_beside_the_widget(vae):
    explorer = explore.latent_sliders(vae, z=torch.ones(5))
    bundle = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    twin = np.asarray(Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))))
    size = explore.PICTURE
    np.testing.assert_array_equal(twin[:size, :size], picture(explorer))
    assert twin.shape[1] > size + 28 * explore.FRAMES  # and filmstrips to its right


def test_a_thousand_moves_leave_no_widget_behind(vae):
    explorer = explore.latent_sliders(vae)
    count = len(widgets.widget._instances)
    for i in range(1000):
        explorer.sliders[0].value = (i % 50) / 10 - 2.5
    assert len(widgets.widget._instances) == count


def test_no_interact_and_no_output_widget():
    # Now and then they hang a headless run for good.
    source = inspect.getsource(explore)
    assert "Output(" not in source and "interact(" not in source
