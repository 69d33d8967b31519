"""The explorers without a browser: their state, callbacks, twins and errors."""

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
    explorer = explore.latent_sliders(vae, order=[4, 0], limits=[(-3, 3), (-3, 3)])
    explorer.z = np.array([0.5, 7.0, 0.0, 0.0, -9.0])
    assert [s.value for s in explorer.sliders] == [-3.0, 0.5]  # -9 is out of the slider's range
    np.testing.assert_allclose(explorer.z, [0.5, 7, 0, 0, -9])
    explorer.sliders[1].value = 1.0
    np.testing.assert_allclose(explorer.z, [1, 7, 0, 0, -9])


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
