"""The explorers without a browser: what Python answers a page, their state, stills, and errors."""

import base64
import dataclasses
import gc
import gettext
import inspect
import io
import itertools
import re
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import ipywidgets as widgets
import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from jupyter_client.manager import start_new_kernel
from PIL import Image, ImageDraw
from test_playground import in_node, run_in_node

from vae_lesson import data, evaluate, explore, fonts, latent, models, words
from vae_lesson.explore import drawing, explorer, maps, morphs, page
from vae_lesson.explore.decoder import Decoder
from vae_lesson.explore.pictures import GAP, PICTURE, as_pictures, enlarged, written
from vae_lesson.explore.tokens import CELL as TOKEN
from vae_lesson.explore.toy import toy_terms
from vae_lesson.priors import discrete
from vae_lesson.teaching import reopen

# A warning would stand in the notebook: as of arrays that cannot be written, which bytes make.
pytestmark = pytest.mark.filterwarnings("error")

ZEROS, ONES, EYE = torch.zeros(5), torch.ones(5), torch.eye(5)


def strokes(n: int, seed: int) -> torch.Tensor:
    """Return n images of a few random strokes, uint8 `(n, 28, 28)`."""
    rng = np.random.default_rng(seed)
    frames = [Image.new("L", (28, 28)) for _ in range(n)]
    for frame in frames:
        points, width = rng.uniform(5, 23, 8).tolist(), int(rng.integers(1, 5))
        ImageDraw.Draw(frame).line(points, fill=255, width=width)
    return torch.from_numpy(np.stack(frames))


def a_drawing(seed: int = 5) -> np.ndarray:
    return strokes(1, seed)[0].numpy()


@pytest.fixture(scope="module")
def images():
    """Sixty training and forty test images of strokes, the labels in turn."""
    names = tuple(f"kind {i} & more" for i in range(10))
    parts = (strokes(60, 0), torch.arange(60) % 10, strokes(40, 1), torch.arange(40) % 10)
    return data.Images("strokes", *parts, names)


def a_model(cls=models.VAE, latent_size: int = 5, **options):
    """Return a network that looks trained: dark where nothing is drawn, codes of about 1."""
    torch.manual_seed(0)
    model = cls(latent_size=latent_size, hidden_size=16, **options).eval().requires_grad_(False)
    model.decoder[-1].weight *= 4
    model.decoder[-1].bias -= 4
    model.encoder[-1].weight[:latent_size] *= 20
    return model


def with_kl(kl):
    """Return a VAE with each dimension's KL set to this, whatever the image."""
    model = a_model(latent_size=len(kl))
    model.encoder[-1].weight.zero_()
    model.encoder[-1].bias.zero_()
    model.encoder[-1].bias[: len(kl)] = (2 * torch.as_tensor(kl)).sqrt()  # ½ mu² is the KL
    return model


def tokens_model():
    torch.manual_seed(0)
    model = discrete.VQVAE(n_codes=9).eval().requires_grad_(False)
    last_layer(model.decoder).weight *= 20  # contrast, as after a training
    return model


def last_layer(part):
    return next(layer for layer in reversed(part) if hasattr(layer, "bias"))


@pytest.fixture
def vae():
    return a_model()


@pytest.fixture
def wide():
    """An autoencoder whose codes are far from N(0, 1)."""
    model = a_model(models.Autoencoder)
    model.encoder[-1].bias += torch.tensor([5.0, -3.0, 0.0, 1.0, 9.0])
    return model


@pytest.fixture
def pad(vae, images):
    return explore.draw_digit(vae, images)


WEIGHTS = torch.randn((3, 64), generator=torch.Generator().manual_seed(1))


def function(z: torch.Tensor) -> torch.Tensor:
    """Decode codes `(n, 2)` or `(n, 3)` to 8×8 images: any decoder, with no model around it."""
    return torch.sigmoid(6 * (z @ WEIGHTS[: z.shape[1]])).reshape(-1, 8, 8)


class Page:
    """What a page does with an explorer: it asks by messages, and keeps what it is sent."""

    def __init__(self, shown):
        self.shown, self.heard = shown, []
        shown.send = lambda content, buffers=None: self.heard.append((content, buffers))

    def ask(self, what: dict, given) -> None:
        given = np.asarray(given)
        given = given if given.dtype == np.uint8 else given.astype(np.float32)
        self.shown._answer(self.shown, what, [memoryview(given.tobytes())])

    def move(self, given, id="a", **controls):
        self.ask({"do": "move", "id": id, "controls": controls}, given)

    def decode(self, codes, side=PICTURE) -> list[np.ndarray]:
        self.ask({"do": "decode", "id": "b", "side": side}, codes)
        ((answer, buffers),), self.heard = self.heard, []
        assert answer.keys() == {"id", "shapes"} and answer["id"] == "b"
        return pictures({**answer, "buffers": buffers})

    def told(self) -> str:
        """Return the error that it has heard of, and nothing else."""
        ((content, _),), self.heard = self.heard, []
        assert content == {"id": "a", "error": content["error"]}
        return content["error"]


def pictures(answer: dict) -> list[np.ndarray]:
    """Return what a page paints of an answer or of a part of the state: a batch each."""
    pairs = zip(answer["buffers"], answer["shapes"], strict=True)
    return [np.frombuffer(buffer, np.uint8).reshape(shape) for buffer, shape in pairs]


def opened(value: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(value)))


def still_of(shown) -> np.ndarray:
    return opened(base64.b64decode(shown._repr_mimebundle_()[0]["image/png"]))


def alt_of(shown) -> str:
    return shown._repr_mimebundle_()[1]["image/png"]["alt"]


def decoded(decoder, z) -> np.ndarray:
    """Return what one code decodes to, without the explorer: uint8 `(side, side)`."""
    z = torch.as_tensor(np.asarray(z), dtype=torch.float32)[None]
    with torch.no_grad():
        x = getattr(decoder, "decode_mean", decoder)(z).flatten()
    side = round(len(x) ** 0.5)
    return (255 * x).round().byte().numpy().reshape(side, side)


def in_own_units(model, images):
    """Return the decoder of codes that are u standard deviations from a model's mean test code."""
    codes = model.encode(images.test.flatten(1).float() / 255)
    return lambda u: model.decode_mean(codes.mean(dim=0) + codes.std(dim=0) * u)


def assert_same(image: np.ndarray, expected: np.ndarray) -> None:
    """Two uint8 images are the same; a batch of another size may round a pixel otherwise."""
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected.astype(int)).max() <= 1


def assert_pictures(shown, *expected: np.ndarray) -> None:
    """The page's pictures of all decoders, and those side by side in `image`, are these."""
    image = np.asarray(Image.open(io.BytesIO(shown.image)).convert("RGB"))
    assert image.shape == (PICTURE, len(expected) * (PICTURE + GAP) - GAP, 3)
    for i, (each, given) in enumerate(zip(expected, pictures(shown.shown), strict=True)):
        assert_same(given, each[None])
        large = np.asarray(Image.fromarray(enlarged(each)).convert("RGB"))
        assert_same(image[:, i * (PICTURE + GAP) :][:, :PICTURE], large)


def assert_shows(shown, *decoders) -> None:
    """What is shown is what z decodes to."""
    assert np.frombuffer(shown.shown["z"], np.float32).tolist() == shown.z.tolist()
    assert_pictures(shown, *(decoded(decoder, shown.z) for decoder in decoders))


def n_widgets() -> int:
    return len(widgets.Widget.get_manager_state()["state"])


# --- every explorer, and what moves it ------------------------------------------------------------

BY_CODE = ["sliders", "directions", "map", "morph", "tokens", "two sliders", "two maps"]
by_code = pytest.mark.parametrize("kind", BY_CODE)
every = pytest.mark.parametrize("kind", [*BY_CODE, "drawing"])


def made(kind: str, images, change=lambda model: None):
    """Return an explorer, the last model in it, and its decoders as plain functions."""
    model = tokens_model() if kind == "tokens" else a_model(latent_size=2 if "map" in kind else 5)
    change(model)
    match kind:
        case "sliders":
            shown = explore.latent_sliders(model, test_images=images.test)
        case "directions":
            directions = {"one": (ONES, 2.0), "two": (EYE[0], (-1, 2))}
            shown = explore.direction_sliders(model, ZEROS, directions)
        case "map":
            shown = explore.latent_map(model, images)
        case "morph":
            shown = explore.morph(model, *images.test[:2], images.test)
        case "tokens":
            shown = explore.change_tokens(model, images.test[0])
            return shown, model, [lambda z: model.decode_mean(z.long())]
        case "drawing":
            shown = explore.draw_digit(model, images)
        case _:
            other = a_model(models.Autoencoder, model.latent_size)
            shown = explore.compare({"ae": other, "vae": model}, images)
            return shown, model, [in_own_units(other, images), model]
    return shown, model, [model]


def place(shown, step: int) -> np.ndarray:
    """Return what a page may move an explorer to: whole numbers, which are tokens too."""
    if shown.state["kind"] == "drawing":
        return a_drawing(step)
    return np.float32((np.arange(shown.z.size) + step) % 3)


@by_code
def test_what_is_shown_is_of_the_pages_move_or_of_nobodys(kind, images):
    count = n_widgets()
    shown, _, decoders = made(kind, images)
    page, first, seen = Page(shown), shown.image, []
    assert shown.state["start"] == shown.z.tolist()
    assert (shown.shown["id"], shown.shown["controls"]) == (None, {})
    assert_shows(shown, *decoders)
    shown.observe(lambda change: seen.append((change.new.tolist(), shown.image)), "z")
    for id, step in [("7-1", 1), ("7-2", 2), (None, 1)]:
        code = place(shown, step)
        controls = {"where": [step, "two"]} if id else shown.shown["controls"]  # they stay
        if shown.state["kind"] == "sliders" and not id:
            controls = {}  # they follow z
        if id:
            page.move(code, id, **controls)
        else:
            shown.z = code
        assert shown.z.tolist() == code.tolist()
        assert (shown.shown["id"], shown.shown["controls"]) == (id, controls)
        assert_shows(shown, *decoders)
        assert seen.pop() == (code.tolist(), shown.image) and not seen
    assert page.heard == [] and shown.image != first  # `shown` is the answer
    assert not {"z", "image"} & set(shown.keys)  # its pixels go to the page once
    before, codes = (shown.z.tolist(), shown.shown), [place(shown, step) for step in range(3)]
    for decoder, batch in zip(decoders, page.decode(codes), strict=True):
        assert_same(batch, np.stack([decoded(decoder, code) for code in codes]))
    assert [x.shape for x in page.decode(codes, side=14)] == [(3, 14, 14)] * len(decoders)
    assert (shown.z.tolist(), shown.shown) == before
    assert n_widgets() > count
    shown.close()
    shown.z = codes[0]  # a link from another cell outlives it
    assert n_widgets() == count


@pytest.mark.parametrize("error", [KeyError("no"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_whatever_a_decoder_raises_is_answered(error):
    def fails(z):
        if z[0, 0] == 1:
            raise error
        return function(z)

    shown = explore.latent_sliders(fails, z=torch.zeros(2))
    page, before = Page(shown), (shown.z.tolist(), shown.shown, shown.image)
    page.move([1, 0], where=1)
    assert page.told() == f"{type(error).__name__}: {error}"
    page.ask({"do": "decode", "id": "a", "side": 9}, [[1, 0]])
    assert page.told() == f"{type(error).__name__}: {error}"
    assert (shown.z.tolist(), shown.shown, shown.image) == before
    shown.z = [0, 1]
    assert shown.shown["id"] is None and shown.shown["controls"] == {}  # forgotten


def test_a_bad_code_is_refused_and_nothing_changes(vae):
    shown = explore.latent_sliders(vae, ONES)
    page, before = Page(shown), (shown.shown, shown.image)
    for given, says in [
        (np.zeros(4), "z must have shape (5,), got (4,)"),
        (np.full(5, np.nan), "z holds NaN or inf"),
        (np.zeros(7, np.uint8), "buffer size must be a multiple of element size"),
    ]:
        page.move(given)
        assert page.told() == f"ValueError: {says}"
        page.ask({"do": "decode", "id": "a", "side": 9}, given[:4])
        assert page.told().startswith("ValueError: ")
        with pytest.raises(ValueError, match=r"z must have shape \(5,\)|z holds NaN or inf"):
            shown.z = given
        assert (shown.shown, shown.image) == before and shown.z.tolist() == [1.0] * 5


def test_a_code_may_be_a_tensor_or_a_list(vae):
    shown, code = explore.latent_sliders(vae), [0.5, -1, 2.0, 0, 1]
    tensors = torch.tensor(code, requires_grad=True), torch.tensor(code, dtype=torch.bfloat16)
    for given in (*tensors, code, np.array(code)):
        shown.z = ZEROS
        shown.z = given
        assert isinstance(shown.z, np.ndarray) and shown.z.dtype == np.float32
        assert shown.z.tolist() == shown.values() == code
        assert_shows(shown, vae)


# --- what the page is given: sliders and maps -----------------------------------------------------


def names_of(shown) -> list[str]:
    return [slider["name"] for slider in shown.state["sliders"]]


def test_sliders_stand_where_the_code_or_the_page_says(vae):
    shown = explore.latent_sliders(vae, ONES)
    shown.z = [0.5, 1.0, 0.0, 0.0, -9.0]
    assert shown.values() == [0.5, 1.0, 0.0, 0.0, -3.0]  # -9 is out of range
    Page(shown).move([0, 2.1, 0, 0, -9], values=[0, 2.1, 0, 0, -3])
    assert shown.values() == [0, 2.1, 0, 0, -3]  # float32 does not come back to 2.1
    directions = {"tilt": (ONES, 2.0), "width": (EYE[2], 1.0)}
    shown = explore.direction_sliders(vae, torch.arange(5.0), directions)
    Page(shown).move([0.5, 1.5, 1.5, 3.5, 4.5], values=[0.5, -1])
    assert shown.values() == [0.5, -1]
    shown.z = ONES  # they begin anew from there
    assert shown.values() == [0.0, 0.0]


def test_sliders_are_ordered_by_kl_and_unused_ones_folded(wide, images):
    model = with_kl([0.2, 0.001, 3.0, 0.0, 1.0])
    shown = explore.latent_sliders(model, test_images=images.test)
    assert names_of(shown) == ["z[2]", "z[4]", "z[0]", "z[1]", "z[3]"]
    directions = [slider["direction"] for slider in shown.state["sliders"]]
    np.testing.assert_array_equal(directions, np.eye(5)[[2, 4, 0, 1, 3]])
    assert shown.state["n_folded"] == 2
    assert shown.state["folded"] == "2 unused dimensions (KL under 0.01 nats)"
    shown.z = np.arange(5) / 2
    assert shown.values() == [1.0, 2.0, 0.0, 0.5, 1.5]
    shown = explore.latent_sliders(with_kl([0.0] * 5), test_images=images.test)
    assert shown.state["n_folded"] == 5 and still_of(shown).shape[0] >= PICTURE
    shown = explore.compare({"wide": wide, "vae": model}, images)
    assert names_of(shown)[:3] == ["z[2]", "z[4]", "z[0]"]
    assert shown.state["n_folded"] == 0  # what it does not use, the other one may
    # An autoencoder has no KL, and without images nobody knows it.
    for other in explore.latent_sliders(wide, None, images.test), explore.latent_sliders(model):
        assert names_of(other) == [f"z[{j}]" for j in range(5)] and other.state["n_folded"] == 0


@pytest.mark.parametrize(
    "limit, low, high, step",
    [(1.5, -1.5, 1.5, 0.025), ((-1, 9), -1, 9, 1 / 12), ((0, 7, 1), 0, 7, 1), (3, -3, 3, 0.05)],
)
def test_a_limit_is_a_number_two_ends_or_these_and_a_step(vae, limit, low, high, step):
    direction = torch.tensor([0.0, 2.0, 0.0, 0.0, 0.0])
    shown = explore.direction_sliders(vae, ONES, {"label": (direction, limit)})
    ends = {"low": low, "high": high, "step": pytest.approx(step)}
    slider = {"name": "label", "direction": direction.tolist(), **ends}
    assert shown.state["sliders"] == [slider] and shown.state["start"] == [1.0] * 5


@pytest.mark.parametrize("n, every_nth", [(24, 1), (7, 1), (25, 2)])
def test_examples_are_test_images_from_all_over_and_their_codes(n, every_nth, vae, wide, images):
    test = strokes(n, 3)
    for shown, model in [
        (explore.latent_sliders(vae, test_images=test), vae),
        (explore.morph(wide, ZEROS, ONES, test), wide),
        (explore.draw_digit(vae, dataclasses.replace(images, test=test)), vae),
    ]:
        np.testing.assert_array_equal(pictures(shown.state["examples"])[0], test[::every_nth])
        codes = evaluate.codes(model, test[::every_nth])
        np.testing.assert_allclose(shown.state["examples"]["codes"], codes, atol=1e-5)
    assert explore.morph(wide, ZEROS, ONES).state["examples"] is None


def test_a_map_is_square_and_reaches_the_codes(images):
    model = a_model(latent_size=2)
    model.encoder[-1].weight *= 0.01
    state = explore.latent_map(model, images).state
    assert (state["low"], state["high"]) == ([-3.0, -3.0], [3.0, 3.0])
    model.encoder[-1].weight *= 400
    model.encoder[-1].bias[:2] = torch.tensor([12.0, -1.0])
    state = explore.latent_map(model, images).state
    low, high = np.array(state["low"]), np.array(state["high"])
    np.testing.assert_allclose(high[0] - low[0], high[1] - low[1], rtol=1e-5)
    codes = evaluate.codes(model, images.test).numpy()
    assert codes[:, 0].max() > 10 and (low <= -3).all() and (high >= 3).all()
    inside = ((codes >= low - 0.1) & (codes <= high + 0.1)).all(axis=1)
    assert inside.mean() >= 0.9  # of 40; the outermost may be cut
    assert high[0] - low[0] < 2 * np.ptp(np.r_[codes[:, 0], -3, 3])  # and not much further


def test_the_codes_lie_where_a_click_would_find_them(images):
    # Outside the 2σ circle; the class's name is written where the second one is.
    model, places = a_model(latent_size=2), torch.tensor([[2.5, -2.2], [-2.5, 2.5], [-2.6, 2.6]])
    model.encode = lambda x: (places, torch.zeros(3, 2))
    labels = torch.zeros(3, dtype=torch.long)
    three = dataclasses.replace(images, test=images.test[:3], test_labels=labels)
    state = explore.latent_map(model, three).state
    (background,) = state["backgrounds"]
    drawn = opened(background).astype(int)
    assert drawn.shape == (2 * maps.PLANE, 2 * maps.PLANE, 4)
    assert 0 < drawn[..., 3].mean() < 128  # the page may be dark
    coloured = np.argwhere((np.ptp(drawn[..., :3], axis=2) > 40) & (drawn[..., 3] > 40))
    x, y = (places[0].numpy() + 3) / 6
    distance = np.abs(coloured - np.array([1 - y, x]) * len(drawn)).max(axis=1)
    assert (distance < 0.01 * len(drawn)).sum() > 4  # the dot, and not the end of something


def test_the_circles_of_the_prior_are_on_maps_in_plain_z_alone(images):
    model = a_model(latent_size=2)
    model.encoder[-1].weight *= 0.01  # no code near the circle
    both = {"ae": a_model(models.Autoencoder, 2), "vae": model}
    state, angle = explore.compare(both, images).state, torch.linspace(0, 2 * torch.pi, 200)
    low, high = state["low"][0], state["high"][0]
    x, y = ((2 * f(angle) - low) / (high - low) for f in (torch.cos, torch.sin))
    column, row = (2 * maps.PLANE * torch.stack([x, 1 - y])).long()
    own, plain = (opened(png)[row, column, 3] > 99 for png in state["backgrounds"])
    assert own.mean() < 0.35 < 0.5 < plain.mean()  # dashes over half of it


# --- drawing --------------------------------------------------------------------------------------


def score_of(shown) -> tuple[float, float, float]:
    """Return recon, kl, and the place among the test images."""
    return tuple(shown.shown["score"][name] for name in ("recon", "kl", "place"))


def test_a_drawing_is_shown_in_every_part(vae, pad):
    page, drawn = Page(pad), a_drawing()
    page.move(drawn, "7-1")
    np.testing.assert_array_equal(pad.drawing, drawn)
    assert pad.shown["id"] == "7-1" and page.heard == []
    assert pad.shown["drawing"] == drawn.tobytes()
    prepared = data.centre_digit(torch.from_numpy(drawn))
    mu, log_var = (part[0].numpy() for part in vae.encode(prepared.flatten()[None] / 255))
    for given in (pad.z, pad.shown["mu"]):
        np.testing.assert_allclose(given, mu, atol=1e-5)
    np.testing.assert_allclose(pad.shown["sigma"], np.exp(log_var / 2), rtol=1e-5)
    seen, mean, samples, nearest = pictures(pad.shown)
    np.testing.assert_array_equal(seen, prepared[None])
    assert_same(mean, decoded(vae, mu)[None])
    assert_same(opened(pad.image), enlarged(decoded(vae, mu)))
    assert samples.shape == nearest.shape == (drawing.SHOWN, 28, 28)


def test_the_neg_elbo_is_in_nats_and_adds_up(vae, pad):
    pad.drawing = a_drawing()
    recon, kl, _ = score_of(pad)
    x = data.centre_digit(torch.tensor(pad.drawing)).double().flatten() / 255
    vae = vae.double()
    mu, log_var = (part[0] for part in vae.encode(x[None]))
    exact = 0.5 * (mu**2 + log_var.exp() - 1 - log_var).sum().item()
    assert kl == pytest.approx(exact, abs=0.01)
    eps = torch.randn((4000, 5), generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    p = vae.decode_mean(mu + eps * (0.5 * log_var).exp())
    nll = -(x * p.log() + (1 - x) * (1 - p).log()).sum(dim=1)
    # The explorer's is the mean over 32 draws of its own.
    assert abs(recon - nll.mean()) < 5 * nll.std() / drawing.SAMPLES**0.5
    assert f"−ELBO {recon + kl:.1f} nats (recon {recon:.1f} + KL {kl:.1f})" in alt_of(pad)


def test_its_place_is_the_rank_among_the_test_images(vae, images, pad):
    scores = sum(evaluate.terms_per_image(vae, images.test).values())
    for index in range(5):
        pad.drawing = images.test[index].numpy()
        recon, kl, where = score_of(pad)
        assert where == pytest.approx((scores < recon + kl).float().mean().item())
    # To this decoder, which is dark everywhere, ink is what costs.
    pad.drawing = np.full((28, 28), 255, np.uint8)
    assert score_of(pad)[2] == 1 and "100.0% of 40 test images: strange" in alt_of(pad)
    thin = np.zeros((28, 28), np.uint8)
    thin[4:24, 14] = 60
    pad.drawing = thin
    assert score_of(pad)[2] == 0 and "0.0% of 40 test images: too easy" in alt_of(pad)


def test_beside_it_are_its_neighbours_by_code_and_draws_around_the_code(vae, images, pad):
    pad.drawing = a_drawing()
    codes = vae.encode(images.train.flatten(1).float() / 255)[0].double().numpy()
    nearest = np.linalg.norm(codes - pad.z, axis=1).argsort()[: drawing.SHOWN]
    *_, samples, neighbours = pictures(pad.shown)
    np.testing.assert_array_equal(neighbours, images.train[nearest])
    assert pad.shown["neighbours"] == [f"kind {index % 10} & more" for index in nearest]
    assert all((sample != samples[0]).any() for sample in samples[1:])
    vae.encoder[-1].bias[5:] = -40.0  # σ = 0: each draw is μ
    pad.drawing = a_drawing(6)
    for sample in pictures(pad.shown)[2]:
        assert_same(sample, decoded(vae, pad.z))


def test_it_begins_with_the_first_test_image_the_one_given_or_none(vae, images, pad):
    np.testing.assert_array_equal(pad.drawing, images.test[0])
    given = explore.draw_digit(vae, images, images.test[3])
    assert given.shown["drawing"] == images.test[3].numpy().tobytes()
    z, image = pad.z.tolist(), pad.image
    pad.clear()
    nothing = {"drawing": bytes(784), "shapes": [(1, 28, 28)], "buffers": [bytes(784)]}
    assert pad.shown == {"id": None, "controls": {}, **nothing}
    assert pad.z.tolist() == z and pad.image == image  # the last one's
    assert alt_of(pad) == "Drawing pad: an empty pad"
    empty = explore.draw_digit(vae, images, torch.zeros(28, 28, dtype=torch.uint8))
    assert empty.shown == pad.shown and (still_of(empty) == still_of(pad)).all()


def test_the_same_drawing_is_shown_again_and_has_the_same_draws(vae, images, pad):
    first, test = pad.shown, images.test.clone()
    pad.clear()
    for id in ("again", "and again"):
        Page(pad).move(test[0], id)
        assert pad.shown == {**first, "id": id}
    assert explore.draw_digit(vae, images).shown == first
    pad.drawing[:] = 7
    assert torch.equal(images.test, test)


def test_a_bad_drawing_is_refused_and_nothing_changes(vae, pad):
    page, z, before = Page(pad), pad.z.tolist(), pad.shown
    for kind in (((28, 27), np.uint8), ((28, 28), np.float32), (784, np.uint8)):
        with pytest.raises(ValueError, match=r"drawing must be uint8 \(28, 28\)"):
            pad.drawing = np.zeros(*kind)
    page.move(np.zeros(100, np.uint8))
    assert "size 100 into shape (28,28)" in page.told()
    assert pad.drawing.tobytes() == before["drawing"]
    vae.encoder[-1].bias[0] = torch.nan
    page.move(a_drawing())
    assert page.told() == "ValueError: the encoder gives NaN or inf: has its training diverged?"
    assert pad.z.tolist() == z and pad.shown == before
    vae.encoder[-1].bias[0] = 0
    page.move(a_drawing(), "good")
    assert page.heard == [] and pad.shown["id"] == "good"


# --- morphs, tokens, several models ---------------------------------------------------------------


def test_a_morph_goes_from_image_or_code_to_another(vae, wide, images):
    start, end = torch.tensor([2.0, 0, 0, 1, 0]), torch.tensor([0.0, 1, 0, 0, -3])
    shown = explore.morph(vae, start, end.double())
    assert shown.z.tolist() == shown.state["start"] == [1, 0.5, 0, 0.5, -1.5]
    assert shown.state["ends"] == [start.tolist(), end.tolist()]
    for image, z in zip(*pictures(shown.state["end_images"]), (start, end), strict=True):
        assert_same(image, decoded(vae, z))
    shown = explore.morph(wide, *images.test[:2])
    codes = evaluate.codes(wide, images.test[:2]).numpy()
    np.testing.assert_allclose(shown.ends, codes, atol=1e-5)
    np.testing.assert_allclose(shown.z, codes.mean(axis=0), atol=1e-5)
    np.testing.assert_array_equal(pictures(shown.state["end_images"])[0], images.test[:2])


def test_a_pair_of_examples_takes_the_place_of_the_ends(vae, images):
    shown = explore.morph(vae, ZEROS, ONES, images.test)
    ends = evaluate.codes(vae, images.test[::2])[[3, 7]]
    Page(shown).move(latent.slerp(*ends, 0.25), t=0.25, path="slerp", pair=[3, 7])
    np.testing.assert_allclose(shown.ends, ends, atol=1e-5)
    still = still_of(shown)[..., 0]
    for i, image in enumerate([images.test[6], decoded(vae, shown.z), images.test[14]]):
        part = still[:PICTURE, i * (PICTURE + GAP) :][:, :PICTURE]
        assert_same(part, enlarged(np.asarray(image)))
    for i in (0, 3, morphs.FRAMES - 1):
        frame = still[-morphs.FRAME :, i * morphs.FRAME : (i + 1) * morphs.FRAME]
        image = decoded(vae, latent.slerp(*ends, i / (morphs.FRAMES - 1)))
        assert_same(frame, enlarged(image, morphs.FRAME))
    assert "0.25 of the way from start to end on a great arc around the origin" in alt_of(shown)
    shown.z = ONES  # on no path, which stays
    np.testing.assert_allclose(shown.ends, ends, atol=1e-5)


def test_tokens_begin_with_those_of_the_image(images):
    model = tokens_model()
    shown = explore.change_tokens(model, images.test[0])
    assert shown.z.tolist() == model.tokens(images.test[:1])[0].tolist()
    before, own = shown._still(), shown.z[37]
    z, seen = (shown.z + 4) % 9, []
    Page(shown).move(z, cell=37)
    assert f"entry {z[37]:.0f} instead of {own:.0f} at row 6, column 3" in alt_of(shown)
    size, both = 7 * TOKEN, shown._still()  # what it was and what it is, side by side
    np.testing.assert_array_equal(both[:size, :size, 0], before[:size, :size, 0])
    assert (both[:size, size + GAP :][:, :size] != both[:size, :size]).any()
    for entry in (8, 7.6, 99, 0, -1):
        shown.z = np.full(49, entry)
        seen.append(shown.image)
    assert seen[0] == seen[1] == seen[2] != seen[3] == seen[4]  # the nearest that there are


def test_each_model_is_moved_in_units_of_its_own_codes(vae, wide, images):
    shown, own = explore.compare({"wide": wide, "vae": vae}, images), in_own_units(wide, images)
    for u in (ZEROS, torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0])):
        shown.z = u
        assert (decoded(wide, u) != decoded(own, u)).any()
        assert_shows(shown, own, vae)
    flat = a_model(models.Autoencoder, 2)
    flat.encoder[-1].bias += 20.0
    flat.encoder[-1].weight[1] = 0.0  # a dimension that never varies
    shown = explore.compare({"ae": flat, "vae": a_model(latent_size=2)}, images)
    assert len({*shown.state["backgrounds"]}) == 2
    assert max(shown.state["high"]) < 12  # not 20: the codes are counted from their mean
    Page(shown).move([1.0, -1.0])
    assert_shows(shown, in_own_units(flat, images), a_model(latent_size=2))


# --- any decoder, in colour or grey ---------------------------------------------------------------


def red_dots(z: torch.Tensor) -> torch.Tensor:
    """Decode codes to 8×8 images that are black but for a red pixel where z[0] and z[1] say."""
    x = torch.zeros(len(z), 3, 8, 8)
    rows, columns = (z[:, :2].round().long() + 4).clamp(0, 7).T
    x[torch.arange(len(z)), 0, rows, columns] = 1
    return x


def a_red_dot(row: int, column: int) -> np.ndarray:
    image = np.zeros((8, 8, 3), np.uint8)
    image[row + 4, column + 4] = (255, 0, 0)
    return image


class Dots:
    """`red_dots` as a model of the learner's own, which finds the dot again."""

    def __init__(self, latent_size):
        self.latent_size, self.decode = latent_size, red_dots

    def encode(self, x):
        index, z = x.reshape(-1, 3, 64)[:, 0].argmax(dim=1), torch.zeros(len(x), self.latent_size)
        z[:, 0], z[:, 1] = index // 8 - 4, index % 8 - 4
        return z, torch.zeros_like(z)


@pytest.mark.parametrize("latent_size", [2, 3])
def test_images_are_shown_in_their_colour(latent_size):
    model, code = Dots(latent_size), torch.tensor([1.0, -2.0, 0.0][:latent_size])
    places = torch.cartesian_prod(torch.arange(-3.0, 4), torch.arange(-3.0, 4))
    test, labels = (255 * red_dots(places)).byte(), torch.zeros(49, dtype=torch.long)
    shown = explore.latent_sliders(model, code, test)
    assert_pictures(shown, a_red_dot(1, -2))
    (given,), codes = pictures(shown.state["examples"]), shown.state["examples"]["codes"]
    np.testing.assert_array_equal(given, [a_red_dot(*map(int, z[:2])) for z in codes])
    # 5.5 pixels down and 2.5 to the right, of 8
    assert still_of(shown)[154, 70].tolist() == [255, 0, 0]
    shown, ends = explore.morph(model, test[0], test[-1]), [a_red_dot(-3, -3), a_red_dot(3, 3)]
    np.testing.assert_array_equal(pictures(shown.state["end_images"])[0], ends)
    np.testing.assert_array_equal(still_of(shown)[:PICTURE, -PICTURE:], enlarged(ends[1]))
    images = data.Images("dots", test, labels, test, labels, ("dot",))
    shown = explore.compare({"a": model, "b": model}, images)
    shown.z = code
    assert_pictures(shown, a_red_dot(1, -2), a_red_dot(1, -2))
    assert still_of(shown).size


@pytest.mark.parametrize(
    "shape", [(192,), (3, 8, 8), (8, 8, 3), (64,), (8, 8), (1, 8, 8), (8, 8, 1)]
)
def test_pictures_come_in_these_shapes(shape):
    in_colour = np.prod(shape) == 192

    def decode(z):
        x = red_dots(z) if in_colour else function(z)
        return (x.movedim(1, 3) if shape[-1] == 3 else x).reshape(-1, *shape)

    shown = explore.latent_sliders(decode, torch.tensor([-2.0, 1]))
    assert_pictures(shown, a_red_dot(-2, 1) if in_colour else decoded(function, [-2.0, 1]))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_large_picture_is_made_smaller_without_leaving_out_pixels(channels):
    # Lines that are one pixel wide: every other one would be all black or all white.
    lines = torch.zeros(channels, 448, 448)
    lines[0, :, ::2] = 1
    model = SimpleNamespace(latent_size=2, decode_mean=lambda z: lines.expand(len(z), -1, -1, -1))
    model.encode = lambda x: torch.zeros(len(x), 2)
    test = (255 * lines).byte().squeeze(0).expand(4, *lines.squeeze(0).shape)
    shown = explore.latent_sliders(model, test_images=test)
    for (batch,), side in [
        (pictures(shown.shown), PICTURE),
        (pictures(shown.state["examples"]), PICTURE),
        (pictures(explore.morph(model, test[0], torch.ones(2)).state["end_images"]), PICTURE),
        (Page(shown).decode(np.zeros((3, 2)), side=64), 64),
    ]:
        assert batch.shape[1:] == (side, side) + (3,) * (channels == 3)
        grey = batch[..., 0] if channels == 3 else batch
        assert np.abs(grey[:, 2:-2, 2:-2].astype(int) - 128).max() <= 5
        assert channels == 1 or not batch[..., 1:].any()


def test_any_function_or_module_from_codes_to_images_will_do():
    module = torch.nn.Sequential(torch.nn.Linear(3, 64, bias=False), torch.nn.Sigmoid())
    module[0].weight.data = 6 * WEIGHTS.T
    start, end, code = torch.tensor([0.0, 1.0, 0.0]), torch.ones(3), [0.5, -1, 2]
    for decoder in (function, module, lambda z: function(z).double().numpy()[:, ::-1]):
        image = decoded(function, code)[:: 1 if decoder in (function, module) else -1]
        for shown in (
            explore.latent_sliders(decoder, z=start),
            explore.direction_sliders(decoder, start, {"all": (end, 1.0)}),
            explore.morph(decoder, start, end),
        ):
            Page(shown).move(code)
            assert_pictures(shown, image)


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
        return self.decode(self.encode(x)[0]), *self.encode(x)


@pytest.mark.parametrize("pair", [tuple, list, lambda pair: pair[0], lambda pair: pair[0].numpy()])
def test_a_whole_vae_of_ones_own_will_do(pair, vae, images):
    own, codes = OwnVAE(vae, pair), evaluate.codes(vae, images.test).numpy()
    shown = explore.latent_sliders(own, test_images=images.test)
    np.testing.assert_allclose(shown.state["examples"]["codes"], codes[::2], atol=1e-5)
    assert_shows(shown, vae)
    np.testing.assert_allclose(explore.morph(own, *images.test[:2]).ends, codes[:2], atol=1e-5)
    flat = a_model(latent_size=2)
    one, two = (explore.latent_map(model, images) for model in (OwnVAE(flat, pair), flat))
    assert one.state["backgrounds"] == two.state["backgrounds"] and one.shown == two.shown


def test_a_vae_of_ones_own_is_compared_in_units_of_its_prior(vae, wide, images):
    shown = explore.compare({"own": OwnVAE(vae, list), "vae": vae}, images)
    shown.z = z = [1.0, -2.0, 0.5, 0.0, 3.0]
    assert_shows(shown, vae, vae)
    # What encodes to a code alone has no prior, as an autoencoder of the course.
    shown = explore.compare({"own": OwnVAE(vae, lambda pair: pair[0]), "ae": wide}, images)
    shown.z = z
    mean = SimpleNamespace(encode=lambda x: vae.encode(x)[0], decode_mean=vae.decode_mean)
    assert_shows(shown, in_own_units(mean, images), in_own_units(wide, images))


def test_pictures_may_be_on_a_gpu(monkeypatch):
    fetched = []
    monkeypatch.setattr(torch.Tensor, "cpu", lambda x: fetched.append(x) or x)
    assert (as_pictures(torch.full((1, 8, 8), 7, dtype=torch.uint8)) == 7).all()
    assert len(fetched) == 1  # NumPy can have no other tensor


# --- warnings -------------------------------------------------------------------------------------

HOSTILE = "<img src=x onerror=alert(1)> {name}"
GREY = "Is {} trained? Random codes decode to nearly the same grey all over."


def warnings_of(shown) -> str:
    return "\n".join(shown.state["warnings"])


def test_logits_are_shown_through_a_sigmoid_which_is_said(vae, images):
    own = OwnVAE(vae, scale=lambda x: x)
    x = own.decode(torch.from_numpy(np.float32(Decoder(own).random_codes)))
    shown = explore.latent_sliders(own)
    says = f"Random codes decode to values from {x.min():.3g} to {x.max():.3g}: shown is"
    assert warnings_of(shown) == f"Does this model give logits? {says} their sigmoid."
    assert_shows(shown, vae)
    shown = explore.compare({HOSTILE: own, "vae": vae}, images)
    # As it is written: the page takes it for text.
    assert warnings_of(shown) == f"Does {HOSTILE} give logits? {says} their sigmoid."
    assert_shows(shown, vae, vae)
    assert alt_of(shown).startswith(f"Sliders of {HOSTILE} and vae: ")


def test_values_from_minus_one_to_one_are_shown_as_intensities_which_is_said():
    shown = explore.latent_sliders(lambda z: 2 * function(z) - 1, torch.ones(3))
    says = r"Does this model give \[-1, 1\]\? Random codes .*: shown is \(x \+ 1\) / 2\."
    assert re.fullmatch(says, warnings_of(shown))
    assert_shows(shown, function)
    shown = explore.latent_sliders(lambda z: 1.08 * function(z) - 0.04, torch.ones(3))
    assert shown.state["warnings"] == []  # a little outside is no other scale


def test_an_autoencoder_of_the_course_is_never_taken_for_another_scale(images):
    torch.manual_seed(0)
    model = models.Autoencoder(5, network="linear").requires_grad_(False)
    for weight in model.decoder.parameters():
        weight *= 20
    x = model.decode_mean(torch.stack([ZEROS, ONES]))
    assert x.min() < -0.05 and x.max() > 1.05
    shown = explore.latent_sliders(model, ONES)
    expected = (255 * x[1].clamp(0, 1)).round().byte().numpy().reshape(28, 28)
    assert_same(pictures(shown.shown)[0][0], expected)
    both = explore.compare({"one": model, "vae": a_model()}, images)
    assert "shown is" not in warnings_of(shown) + warnings_of(both)


@pytest.mark.parametrize("network, shape", [("mlp", (1, 28, 28)), ("conv", (3, 32, 32))])
def test_an_untrained_model_is_called_so(network, shape):
    for cls, size in itertools.product((models.VAE, models.Autoencoder), (2, 20)):
        torch.manual_seed(0)
        fresh = cls(size, shape=shape, network=network)
        assert warnings_of(explore.latent_sliders(fresh)) == GREY.format("this model")


@every
def test_an_untrained_model_is_called_so_everywhere(kind, images):
    assert made(kind, images)[0].state["warnings"] == []  # it has contrast

    def spoil(model):
        last_layer(model.decoder).weight.zero_()
        last_layer(model.decoder).bias.zero_()

    name = "vae" if "two" in kind else "this model"
    assert warnings_of(made(kind, images, spoil)[0]) == GREY.format(name)


# --- what is refused ------------------------------------------------------------------------------


def assert_refused(says: str, call, *given) -> None:
    with pytest.raises(ValueError, match=says):
        call(*given)


def test_what_is_no_decoder_of_square_images_is_refused():
    for model in ("vae.pt", 3, None, function):
        assert_refused(
            "is no decoder: give a model with latent_size", explore.latent_sliders, model
        )
    for shape in [(783,), (28, 27), (3, 28, 27), (4, 32, 32), (28, 3, 28), (1, 1, 28, 28)]:
        says = re.escape(f"images of shape {shape}: no square image, ")
        given = torch.zeros(16, *shape)  # of as many random codes
        assert_refused(says, explore.latent_sliders, lambda z, given=given: given, ZEROS)
    for given in (np.zeros(784), torch.zeros(784), torch.zeros(3, 784), None):
        says = "must give .*array with one image for each code"
        assert_refused(says, explore.latent_sliders, lambda z, given=given: given, ZEROS)


@pytest.mark.parametrize("given", [lambda x: {"mu": x}, lambda x: x[:, :4], lambda x: (x, x)])
def test_an_encoder_that_gives_no_codes_is_told_what_to_give(given, vae, images):
    vae.encode = given
    own = OwnVAE(vae, pair=lambda codes: codes)
    says = re.escape("encode must give codes (n, 5), or (mu, log_var)")
    assert_refused(says, explore.latent_sliders, own, None, images.test)


@every
@pytest.mark.parametrize("part", ["decoder", "encoder"])
def test_weights_that_are_nan_are_refused(kind, part, images):
    def spoil(model):
        last_layer(getattr(model, part)).bias[0] = torch.nan

    if part == "decoder" or kind not in ("directions", "tokens", "two sliders"):  # which encode not
        assert_refused("NaN", made, kind, images, spoil)


def test_codes_directions_and_models_must_fit(vae, wide, images):
    four, batch, flat = torch.ones(4), torch.ones(1, 5), a_model(latent_size=2)
    colour, directions = torch.zeros(3, 28, 28, dtype=torch.uint8), explore.direction_sliders
    pad, needs = explore.draw_digit, "a VAE of 28×28 images in grey, .*: got "
    for says, call, *given in [
        (r"z must have shape \(5,\)", explore.latent_sliders, vae, four),
        (r"z must have shape \(2,\)", explore.latent_map, flat, images, ZEROS),
        (r"z must have shape \(5,\)", directions, vae, four, {"a": (four, 1.0)}),
        ("at least one direction", directions, vae, ZEROS, {}),
        (r"z and direction 'a' .*\(4,\)", directions, vae, ZEROS, {"a": (four, 1.0)}),
        ("'b' must", directions, vae, ZEROS, {"a": (ONES, 1.0), "b": (batch, 1.0)}),
        (r"latent_size 2, got 5: use explore\.latent_sliders", explore.latent_map, vae, images),
        ("latent_size 2, got None: use", explore.latent_map, function, images),
        (needs + "Autoencoder of input_size 784", pad, wide, images),
        (needs + "VAE of input_size 2352", pad, a_model(shape=(3, 28, 28)), images),
        (needs + "function of input_size unknown", pad, function, images),
        (r"784 pixels, got shape \(3, 28, 28\)", explore.change_tokens, tokens_model(), colour),
    ]:
        assert_refused(says, call, *given)
    for second in ({}, {"flat": flat}, {"two": function}):
        says = "compare needs two models with codes of one size"
        assert_refused(says, explore.compare, {"vae": vae} | second, images)


def test_the_ends_of_a_morph_are_images_that_it_can_encode_or_codes(vae, images):
    codes, test = torch.eye(3)[:2], images.test
    others = [torch.zeros(4), torch.zeros(5, dtype=torch.long), torch.zeros(28, 28), test[:1]]
    for other in (*others, torch.zeros(28, 28, 3, dtype=torch.uint8), test[0].flatten()):
        assert_refused("end must be a uint8", explore.morph, vae, ZEROS, other)
        assert_refused("start must be a uint8", explore.morph, vae, other, ZEROS)
    for says, *given in [
        ("images of 784 pixels, got 64", vae, test[0, :8, :8], ZEROS),
        ("images of 784 pixels, got 2352", vae, test[:3], ZEROS),  # three, or one in colour
        ("a decoder alone cannot encode an image", function, codes[0], test[0]),
        ("function is no decoder", function, *test[:2]),
        ("a decoder alone cannot encode an image", function, *codes, test),
    ]:
        assert_refused(says, explore.morph, *given)


# --- the still pictures ---------------------------------------------------------------------------

LINE = 18 + 2  # pixels from the top of one line of words to the picture below it


@pytest.mark.parametrize(
    "kind, says",
    [
        ("sliders", r"Sliders: the image decoded at z = \(2.00, .*\), and what .*: z\[\d\] = .*"),
        ("directions", r"Sliders: .*, and what each .* range: one = 0\.00, two = 0\.00"),
        ("map", r"Latent map: where the test images lie, and .* decoded at z = \(2\.00, 0\.00\)"),
        ("morph", r"Morph: .*, 0\.50 of the way from start to end on a straight line, .*"),
        ("tokens", r"Tokens: .* tokens, with entry 2 instead of \d at row 4, column 4"),
        ("drawing", r"Drawing pad: a drawing of −ELBO [\d.]+ nats .*, more than .*: [a-z ]+"),
        ("two sliders", r"Sliders of ae and vae: the image decoded at z = .*"),
        ("two maps", r"Latent map of ae and vae: .* decoded at z = \(2\.00, 0\.00\)"),
    ],
)
def test_beside_the_widget_is_a_picture_that_follows_it_and_its_words(kind, says, images):
    shown, *_ = made(kind, images)
    before = still_of(shown)
    Page(shown).move(place(shown, 2))
    assert re.fullmatch(says, alt_of(shown))
    assert not np.array_equal(still_of(shown), before)
    assert before.shape[1] <= (968 if kind == "two maps" else 700)  # it fits a page


def test_sliders_are_still_the_picture_and_six_filmstrips():
    vae, z = a_model(latent_size=20), np.ones(20)
    z[1], z[7] = -2.0, -1e-9
    shown = explore.latent_sliders(vae, z)
    still = still_of(shown)[..., 0]
    assert_same(still[:PICTURE, :PICTURE], enlarged(decoded(vae, z)))
    for i, (frame, value) in itertools.product(range(6), [(0, -3.0), (5, 0.0), (10, 3.0)]):
        code, top, left = z.copy(), LINE + i * (LINE + 28 + 4), PICTURE + GAP + 28 * frame
        code[i] = value
        assert_same(still[top : top + 28, left : left + 28], decoded(vae, code))
    assert len(still) == 6 * (LINE + 28 + 4) - 4  # no seventh
    shown.z = -1e-9 * torch.ones(20)
    assert "decoded at z = (0.00, 0.00, 0.00, 0.00, 0.00, 0.00, …)" in alt_of(shown)
    assert alt_of(shown).count("z[") == 6 and "-0.00" not in alt_of(shown)


def test_a_filmstrip_of_few_steps_shows_each_once():
    vae, directions = a_model(), {"digit": (torch.eye(5)[0], (0, 9, 1))}
    still = still_of(explore.direction_sliders(vae, torch.zeros(5), directions))[..., 0]
    strip = still[LINE : LINE + 28, PICTURE + GAP :]
    assert strip.shape[1] == 28 * 10
    for i in range(10):
        code = np.eye(5)[0] * i
        assert_same(strip[:, 28 * i : 28 * (i + 1)], decoded(vae, code))


def test_a_map_is_still_the_plane_with_its_point(images):
    model = a_model(latent_size=2)
    shown = explore.latent_map(model, images, torch.tensor([2.0, -2.5]))
    still, low, high = still_of(shown), np.array(shown.state["low"]), np.array(shown.state["high"])
    x, y = (shown.z - low) / (high - low) * maps.PLANE
    yellow = np.argwhere((still == (0xFF, 0xD4, 0x00)).all(axis=2))
    np.testing.assert_allclose(yellow.mean(axis=0), [maps.PLANE - y, x], atol=1)
    assert_same(still[:PICTURE, maps.PLANE + GAP :, 0], enlarged(decoded(model, shown.z)))


def test_a_drawing_is_still_the_drawing_and_its_reconstruction(vae, pad):
    pad.drawing = a_drawing()
    still, side = still_of(pad)[..., 0], 2 * drawing.SMALL
    drawn, right = still[LINE : LINE + 280, :280], still[LINE : LINE + side, 280 + GAP :]
    np.testing.assert_array_equal(drawn, np.kron(pad.drawing, np.ones((10, 10))))
    views = np.lib.stride_tricks.sliding_window_view(right, (side, side))
    prepared = data.centre_digit(torch.tensor(pad.drawing)).numpy()
    for image in (prepared, decoded(vae, pad.z)):
        wanted = enlarged(image, side).astype(int)
        assert np.abs(views - wanted).max(axis=(2, 3)).min() <= 1


def test_what_a_filmstrip_cannot_show_hides_no_explorer():
    # At one end it is inf.
    def overflows(z):
        return function(z) / (z[:, :1, None] < 2.5)

    shown = explore.direction_sliders(overflows, torch.zeros(3), {"a": (torch.eye(3)[0], 3.0)})
    bundle, _ = shown._repr_mimebundle_()
    assert explorer.WIDGET in bundle and "image/png" in bundle


# --- figures that move without a decoder ---------------------------------------------------------


def integrated(mu: float, sigma: float) -> list[float]:
    """Return recon, KL, -ELBO, -log p(x) and KL(q ‖ p(z|x)), as integrals over a wide grid."""
    z = torch.linspace(-20, 20, 400_001, dtype=torch.float64)
    normal, step = torch.distributions.Normal, z[1] - z[0]
    log_prior, log_q = normal(0.0, 1.0).log_prob(z), normal(mu, sigma).log_prob(z)
    log_x = normal(2 * torch.tanh(2 * z), 0.5).log_prob(torch.tensor(1.2))
    log_p = ((log_prior + log_x).exp().sum() * step).log()
    log_posterior = log_prior + log_x - log_p

    def mean(values: torch.Tensor) -> float:
        return (log_q.exp() @ values * step).item()

    recon, kl, gap = mean(-log_x), mean(log_q - log_prior), mean(log_q - log_posterior)
    return [recon, kl, recon + kl, -log_p.item(), gap]


@pytest.mark.parametrize("sigma", [0.05, 0.26, 1.0])
@pytest.mark.parametrize("mu", [-1.0, 0.0, 0.52, 2.0])
def test_the_nats_of_the_toy_are_integrals(mu, sigma):
    np.testing.assert_allclose([*toy_terms(mu, sigma).values()], integrated(mu, sigma), atol=1e-6)


def test_the_smallest_gap_of_the_toy_is_what_lesson_02_says():
    grid = itertools.product(np.arange(0.3, 0.8, 0.02), np.arange(0.1, 0.5, 0.02))
    gaps = {(mu, sigma): toy_terms(mu, sigma)["gap"] for mu, sigma in grid}
    best = min(gaps, key=gaps.get)
    assert best == pytest.approx((0.52, 0.26)) and gaps[best] == pytest.approx(0.23, abs=0.005)


@pytest.mark.parametrize(
    "make, says",
    [
        (
            explore.toy,
            "Toy: prior, posterior, and q with μ = 0, σ = 1; in nats: recon 8.19, KL 0.00, "
            "−ELBO 8.19, −log p(x) 1.60, gap 6.59",
        ),
        (
            explore.playground,
            "Playground: a VAE of 8×8 digits after some training: its codes on a plane, a cloud "
            "for each image within the circles of N(0, I); curves of recon, KL and −ELBO; test "
            "images, what is rebuilt of them, and twenty draws",
        ),
    ],
)
@pytest.mark.parametrize("is_headless", [False, True])
def test_a_figure_has_a_still_picture_and_what_a_page_needs(make, says, is_headless, monkeypatch):
    count, figure = n_widgets(), make()
    content = {"content": {"allow_stdin": not is_headless}}
    monkeypatch.setattr(explorer, "_request", lambda: content)
    bundle, _ = figure._repr_mimebundle_()
    assert alt_of(figure) == says and bundle["text/plain"] == explorer.STILL
    assert bundle.keys() - {explorer.WIDGET} == {"image/png", "text/plain"}
    assert (explorer.WIDGET in bundle) != is_headless
    height, width, _ = still_of(figure).shape
    assert height < 550 and width <= 860
    monkeypatch.setenv("VAE_LESSON_SITE", "1")
    left = figure._repr_mimebundle_()[0][page.MIME]
    own = getattr(figure, "for_page", {})
    assert left["state"].keys() == figure.state.keys() | own and left["state"]["warnings"] == []
    assert left["networks"] == [] and left["weights"] == {}
    assert n_widgets() > count
    figure.close()
    assert n_widgets() == count


# --- in other languages ---------------------------------------------------------------------------


class InMarks(gettext.NullTranslations):
    """A language in which all is as in English, in «»."""

    def __init__(self):
        super().__init__()
        page = {f"{words.PAGE}Start": "«Start»"}
        self._catalog = {"": "header", "Reset": "«Reset»", ("a", 1): "«a»"} | page

    def gettext(self, text: str) -> str:
        return f"«{text}»"


def texts(value: object) -> list[str]:
    """Return what a page is given to show: texts of more than a word, in dicts and lists."""
    if isinstance(value, dict):
        value = [each for name, each in value.items() if name not in ("class_names", "words")]
    if isinstance(value, (list, tuple)):
        return [text for each in value for text in texts(each)]
    says = isinstance(value, str) and re.search(r"[A-Za-z]{2}.* | .*[A-Za-z]{2}", value)
    return [value] if says else []


def grey_function(z: torch.Tensor) -> torch.Tensor:
    return 0 * function(z) + 0.5


DOUBTFUL = {"grey": grey_function, "signs": lambda z: 2 * function(z) - 1}
DOUBTFUL |= {"logits": lambda z: 20 * function(z) - 9}
FIGURES = {"toy": explore.toy, "playground": explore.playground}


@pytest.mark.parametrize("kind", [*BY_CODE, "drawing", "empty pad", *DOUBTFUL, *FIGURES])
def test_what_an_explorer_says_is_in_the_language_of_the_lesson(kind, images, monkeypatch):
    def shown():
        if kind in FIGURES:
            return FIGURES[kind]()
        if kind in DOUBTFUL:
            return explore.latent_sliders(DOUBTFUL[kind], torch.zeros(3))
        moved, *_ = made("drawing" if kind == "empty pad" else kind, images)
        if kind == "empty pad":
            moved.clear()
        else:
            Page(moved).move(place(moved, 2))
        return moved

    english = shown()
    says_in_english = alt_of(english)
    monkeypatch.setattr(words, "_said", InMarks())
    marked = shown()
    assert "words" not in english.state and marked.state["words"] == {"Start": "«Start»"}
    some = texts(marked.state)
    assert [re.sub("[«»]", "", text) for text in some] == texts(english.state)
    assert all(text[0] == "«" and text[-1] == "»" for text in some)
    assert len(marked.state["warnings"]) == (kind in DOUBTFUL)
    says = alt_of(marked)
    assert says.startswith("««") and says.endswith("»")
    assert re.sub("[«»]", "", says) == says_in_english
    assert (still_of(marked) != 255).any()


def test_a_still_is_in_english_where_no_font_has_what_it_would_say(monkeypatch):
    chinese = {"Sliders": "滑桿", "this model": "這個模型"}
    monkeypatch.setattr(
        words, "_said", SimpleNamespace(gettext=lambda text: chinese.get(text, text))
    )
    shown = explore.latent_sliders(grey_function, torch.zeros(3))
    for families, name in [([], "Sliders"), (["DejaVu Sans"], "滑桿")]:
        monkeypatch.setattr(fonts, "CHINESE", families)
        assert alt_of(shown).startswith(f"{name}: the image decoded at")
        height = len(still_of(shown))
        assert (height > len(shown._still())) == bool(families)  # with the warning above it
    assert shown.state["warnings"][0].startswith("Is 這個模型 trained?")


def test_words_in_chinese_keep_to_their_width():
    for text in ("這張影像的編碼" * 9, "the code of this image, " * 9, "編碼 code " * 20):
        assert 100 < written(text, 200).shape[1] <= 205


@in_node
def test_a_page_says_it_in_its_language_with_values_in_their_places():
    code = """
        const says = () => [
          say("{n} of {all} outside", { n: 0, all: "{n} $&" }), say("Reset"), say("{later}"),
        ];
        const result = [says()];
        for (const words of [given, undefined]) {
          speak(words);
          result.push(says());
        }"""
    english = ["0 of {n} $& outside", "Reset", "{later}"]
    there = ["of {n} $&: 0", "Reset", "{later}"]
    assert run_in_node(code, {"{n} of {all} outside": "of {all}: {n}"}) == [english, there, english]


LITERAL = re.compile(r'"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`')
# What no reader sees, or needs no translation.
UNTRANSLATED = {
    *("Home", "Enter", "row ${row}", "strips ${i}"),  # keys, and names of requests
    *("(prefers-reduced-motion: reduce)", "20px system-ui, sans-serif", "M${SHOWN_Z.map((z) => "),
    *("recon ${fixed(recon, 1)}", " + KL ${fixed(kl, 1)} = −ELBO ${fixed(recon + kl, 1)}", " nats"),
    *("KL ${fixed(kl ?? 0, 2)} nats", "−log p(x)"),
}


@pytest.mark.parametrize("path", sorted(explorer.FRONT.glob("*.js")), ids=lambda path: path.name)
def test_what_a_reader_sees_of_a_page_stands_within_say(path):
    source = re.sub(r"(^|\s)//.*$", "", explorer.script(path), flags=re.M)
    called = re.findall(r"(?<!function )\bsay\((.)", re.sub(r"\(\s+", "(", source))
    assert {*called} <= {'"'}, "the tool that collects texts finds literals alone"
    literals = LITERAL.findall(re.sub(r'\bsay\(\s*(?:"[^"]*"[\s+]*)+', "say(", source))
    assert not any(each[0] == "`" and "say(" in each for each in literals), "nor in templates"
    for text in (each[1:-1] for each in literals):
        shown = re.sub(r"\$\{[^}]*\}", "", text)
        if re.search(r"[A-Za-z]{2}.* | .*[A-Za-z]{2}|^[A-Z][a-z]+$", shown):
            is_code = text.startswith(("vae-", "<", "viewBox", "onmessage", "1f77b4"))
            assert is_code or text in UNTRANSLATED, text


# --- what explorers leave behind ------------------------------------------------------------------


def test_what_is_refused_leaves_nothing_behind(vae, images, monkeypatch):
    ignored = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    count = n_widgets()
    assert_refused("z must have shape", explore.latent_sliders, vae, torch.zeros(4))
    for layer, i in [(vae.encoder[-1], -1), (vae.encoder[-1], 0), (vae.decoder[-1], 0)]:
        layer.bias[i] = torch.nan
        assert_refused("NaN", explore.draw_digit, vae, images)
    gc.collect()
    # An "Exception ignored in ..." would stand in the notebook above the real message.
    assert [str(each.exc_value) for each in ignored] == []
    assert n_widgets() == count


def test_what_no_cell_makes_closes_nothing_and_is_kept_by_nobody(vae):
    several = [weakref.ref(explore.latent_sliders(vae)) for _ in range(2)]
    assert all(each().comm is not None for each in several)
    for each in several:
        each().close()
    gc.collect()
    # Nothing has kept them, and with them the model: anywidget would, with a path for `_css`.
    assert [each() for each in several] == [None, None]


SETUP = f"""
import gc, torch, ipywidgets as widgets
from vae_lesson import explore, models
from vae_lesson.explore.explorer import Explorer
torch.manual_seed(0)
model = models.VAE(latent_size=3, hidden_size=16).eval()
def explorers():
    gc.collect()
    return sum(isinstance(o, Explorer) for o in gc.get_objects())
{inspect.getsource(n_widgets)}
"""
CELL = "both = explore.latent_sliders(model), explore.latent_sliders(model); both[0].z = [1, 1, 1]"


def test_in_a_kernel_a_cell_run_again_and_again_leaves_its_last_run_alone():
    manager, client = start_new_kernel()

    def execute(code: str, **metadata: str) -> tuple[int, int]:
        """Run a cell in the kernel; return how many explorers and widgets there are then."""
        counts = {"explorers": "explorers()", "widgets": "n_widgets()"}
        content = {"code": code, "user_expressions": counts, "silent": False}
        message = client.session.msg("execute_request", content, metadata=metadata)
        client.shell_channel.send(message)
        reply = client.get_shell_msg(timeout=600)
        while reply["parent_header"].get("msg_id") != message["header"]["msg_id"]:
            reply = client.get_shell_msg(timeout=600)
        assert reply["content"]["status"] == "ok", reply["content"]
        values = reply["content"]["user_expressions"].values()
        return tuple(int(value["data"]["text/plain"]) for value in values)

    execute(SETUP)
    once = execute(CELL)
    assert [execute(CELL) for _ in range(9)] == 9 * [once] and once[0] == 2
    # JupyterLab names its cells: another one, the same after an edit, and a third; in between, and
    # elsewhere, the code tells them apart.
    named = execute(CELL, cellId="a")
    assert named[0] == 4 and execute(CELL + "  # edited", cellId="a") == named
    assert execute(CELL, cellId="b")[0] == 6 == execute(CELL)[0]
    assert execute(CELL + "  # another")[0] == 8
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("allow_stdin", [True, False])
def test_a_headless_run_leaves_the_picture_and_no_widget(vae, monkeypatch, allow_stdin):
    monkeypatch.setattr(explorer, "_request", lambda: {"content": {"allow_stdin": allow_stdin}})
    bundle, _ = explore.latent_sliders(vae)._repr_mimebundle_()
    assert (explorer.WIDGET in bundle) == allow_stdin and "image/png" in bundle


def test_ipython_shows_the_bundle_and_colab_is_told_what_draws_it(vae, monkeypatch):
    # Colab puts the address beside what is displayed, but not beside what a cell's last line gives.
    address = SimpleNamespace(_installed_url="address")
    output = SimpleNamespace(enable_custom_widget_manager=lambda: None, _widgets=address)
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    shown = explore.latent_sliders(vae)
    bundle, metadata = DisplayFormatter().format(shown)
    assert bundle.keys() == {explorer.WIDGET, "image/png", "text/plain"}
    assert bundle[explorer.WIDGET]["model_id"] == shown.model_id
    assert metadata[explorer.WIDGET] == {"colab": {"custom_widget_manager": {"url": "address"}}}
    # What a save knows it by.
    assert bundle["text/plain"] == explorer.STILL == reopen.STILL
    assert explorer.WIDGET == reopen.VIEW


def test_no_interact_and_no_output_widget():
    # Now and then they hang a headless run for good.
    texts = [path.read_text() for path in Path(explore.__file__).parent.rglob("*.py")]
    assert len(texts) >= 10
    assert not any("Output(" in text or "interact(" in text for text in texts)
