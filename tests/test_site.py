"""The site without a browser: what explorers leave for it, the decoder in JavaScript, the pages.

What the pages do is in test_site_browser.py. JavaScript runs in node; without it those tests skip.
"""

import base64
import gzip
import json
import math
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import address
import nbformat
import numpy as np
import pages
import pytest
import torch
from lessons import LESSONS, NAMES, read
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image, ImageDraw
from refresh import STILL, cleaned

from vae_lesson import data, explore, latent, losses, models
from vae_lesson.explore import living
from vae_lesson.explore.base import Decoder

NODE = shutil.which("node")
in_node = pytest.mark.skipif(NODE is None, reason="there is no node here")
LEVELS = 10  # of 255: what a pixel of the page may be off by


def a_model(cls=models.VAE, latent_size=5, hidden_size=16, **options):
    """Return a network that looks trained: dark where nothing is drawn, with contrast."""
    torch.manual_seed(0)
    model = cls(latent_size=latent_size, hidden_size=hidden_size, **options).eval()
    with torch.no_grad():
        model.decoder[-1].weight *= 8
        model.decoder[-1].bias -= 2
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (20, 28, 28), dtype=torch.uint8, generator=generator)
    labels = torch.arange(20) % 10
    return data.Images("noise", noise, labels, noise, labels, tuple("0123456789"))


@pytest.fixture
def for_the_site(monkeypatch):
    monkeypatch.setenv("VAE_LESSON_SITE", "1")


def state_of(explorer) -> dict | None:
    """Return what an explorer leaves for its page, as JSON would carry it."""
    bundle, _ = explorer._repr_mimebundle_()
    return json.loads(json.dumps(bundle.get(living.MIME)))


def unpacked(packed: dict) -> list[np.ndarray]:
    """Return (weights, bias) of the layer in floats, (bias, steps, weights) of the one in steps."""
    n_in, n_out, n_steps_in, n_steps_out = packed["sizes"]
    raw = gzip.decompress(base64.b64decode(packed["data"]))
    shapes = [(n_out, n_in), (n_out,), (n_steps_out,), (n_steps_out, 1)]
    parts, place = [], 0
    for shape in shapes:
        parts.append(np.frombuffer(raw, np.float32, math.prod(shape), place).reshape(shape))
        place += parts[-1].nbytes
    return [*parts, np.frombuffer(raw, np.int8, offset=place).reshape(n_steps_out, n_steps_in)]


def run_in_node(code: str, given: object) -> object:
    """Return what JavaScript prints, as JSON, that has the modules without a page in it; it gets
    `given`."""
    modules = [pages.inlined(pages.HERE / name) for name in ("decode.js", "drawing.js")]
    whole = "\n".join(modules) + f"\nconst given = {json.dumps(given)};\n{code}"
    done = subprocess.run(
        [NODE, "--input-type=module", "-"], input=whole, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def decoded_in_node(packed: dict, z: np.ndarray) -> np.ndarray:
    """Return the pixels that the page shows for codes `(n, latent_size)`, `(n, pixels)`."""
    code = """
        const { decode } = await unpack(given.packed);
        console.log(JSON.stringify(given.z.map((z) => [...decode(z)])));"""
    return np.array(run_in_node(code, {"packed": packed, "z": z.tolist()}))


# --- the weights ----------------------------------------------------------------------------------


def test_weights_are_steps_of_each_pixel_and_the_rest_is_exact():
    model = a_model()
    packed = living.weights(model)
    assert packed["sizes"] == [5, 16, 16, 784]
    first_weights, first_bias, last_bias, steps, whole = unpacked(packed)
    first, _, last = model.decoder
    np.testing.assert_array_equal(first_weights, first.weight)
    np.testing.assert_array_equal(first_bias, first.bias)
    np.testing.assert_array_equal(last_bias, last.bias)
    assert np.abs(whole).max() in living.LEVELS
    assert np.abs(whole * steps - last.weight.numpy()).max() < 5 * steps.max()


def test_rounding_makes_its_errors_good_where_hidden_units_go_together():
    generator = torch.Generator().manual_seed(0)
    h = torch.relu(
        torch.randn((500, 2), generator=generator) @ torch.randn((2, 40), generator=generator)
    )
    w = torch.randn((30, 40), generator=generator)
    whole, steps = living._rounded(w, h, levels=15)
    assert (whole == whole.round()).all() and whole.abs().max() == 15
    off, plain = (h @ (w - steps * q).T for q in (whole, (w / steps).round()))
    assert off.abs().mean() < 0.5 * plain.abs().mean()


def test_weights_have_as_few_levels_as_will_do(monkeypatch):
    def levels() -> int:
        return np.abs(unpacked(living.weights(a_model()))[-1]).max()

    fine = levels()
    monkeypatch.setattr(living, "TOLERANCE", 0.5)
    assert levels() == living.LEVELS[0] < fine


def test_a_decoder_that_cannot_be_rounded_well_has_no_weights():
    model = a_model(latent_size=20, hidden_size=100)
    model.decoder[-1].weight *= 3000
    assert living.weights(model) is None


def test_a_decoder_whose_hidden_layer_is_dead_has_weights():
    model = a_model()
    model.decoder[0].bias -= 100
    assert living.weights(model)["sizes"][0] == 5


def test_weights_are_the_same_each_time_and_of_no_other_network():
    assert living.weights(a_model()) == living.weights(a_model())

    class Mine(models.VAE):
        """Its decode could be anything."""

    for model in [
        a_model(network="deep"),
        models.VAE(2, 8, network="conv"),
        models.VAE(2, 8, network="linear"),
        models.VAE(2, 8, (3, 8, 8)),
        Mine(2, 8),
        lambda z: z,
    ]:
        assert living.weights(model) is None


@in_node
@pytest.mark.parametrize("units", [None, (torch.full((5,), 0.5), torch.full((5,), 2.0))])
def test_the_page_decodes_as_torch_does(units):
    decoder = Decoder(a_model(hidden_size=400))
    z = np.random.default_rng(0).standard_normal((50, 5)).astype(np.float32)
    own = z if units is None else units[0].numpy() + units[1].numpy() * z
    shown = decoded_in_node(living.weights(decoder.model, units), z)
    wanted = decoder.images(own).reshape(50, 784).astype(int)
    assert wanted.std() > 50  # it is no grey all over
    off = np.abs(shown - wanted)
    assert off.max() <= LEVELS and off.mean() < 0.5


@in_node
def test_a_decoder_that_is_too_steep_for_int8_has_wider_weights():
    decoder = Decoder(a_model(latent_size=20, hidden_size=100))
    with torch.no_grad():
        decoder.model.decoder[-1].weight *= 8
    z = np.random.default_rng(0).standard_normal((50, 20)).astype(np.float32)
    packed = living.weights(decoder.model)
    floats = 4 * (100 * 20 + 100 + 2 * 784)
    assert len(gzip.decompress(base64.b64decode(packed["data"]))) == floats + 2 * 784 * 100
    shown = decoded_in_node(packed, z)
    off = np.abs(shown - decoder.images(z).reshape(50, 784).astype(int))
    assert off.max() <= LEVELS


@in_node
@pytest.mark.parametrize("path", ["lerp", "slerp"])
def test_the_page_walks_as_torch_does(path):
    ends = torch.randn((2, 5), generator=torch.Generator().manual_seed(0))
    t = [0.0, 0.25, 1.0]
    code = f"console.log(JSON.stringify(given.t.map((t) => {path}(...given.ends, t))));"
    for pair in (ends, torch.stack([ends[0], 2 * ends[0]]), 0 * ends):
        walked = run_in_node(code, {"ends": pair.tolist(), "t": t})
        wanted = getattr(latent, path)(*pair, torch.tensor(t)[:, None])
        walked = torch.tensor(walked, dtype=torch.float32)  # JSON has 0 for 0.0
        torch.testing.assert_close(walked, wanted, atol=1e-5, rtol=0)


@in_node
def test_the_pages_script_is_one_module():
    done = subprocess.run(
        [NODE, "--input-type=module", "--check", "-"],
        input=pages.script(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not re.search(r"^\s*(import|export) ", pages.script(), re.M)  # it needs no file beside


# --- the explorers' state -------------------------------------------------------------------------


def test_nothing_is_left_for_a_page_unless_it_is_asked_for(monkeypatch):
    monkeypatch.delenv("VAE_LESSON_SITE", raising=False)
    assert state_of(explore.latent_sliders(a_model())) is None


def test_sliders_leave_their_state(for_the_site, images):
    explorer = explore.latent_sliders(a_model(), torch.ones(5), images.test)
    state = state_of(explorer)
    assert state["kind"] == "sliders" and state["sliders_show_z"] and state["z"] == [1.0] * 5
    names = [slider["name"] for slider in state["sliders"]]
    assert names == [slider.description for slider in explorer.sliders]
    np.testing.assert_array_equal(
        [slider["direction"] for slider in state["sliders"]], explorer._directions
    )
    assert {(slider["low"], slider["high"]) for slider in state["sliders"]} == {(-3.0, 3.0)}
    assert len(state["test_codes"]) == len(state["test_images"]) == living.EXAMPLES
    first = np.frombuffer(base64.b64decode(state["test_images"][0]), np.uint8)
    np.testing.assert_array_equal(first, images.test[0].flatten())
    codes, _ = explorer._decoders[""].encode(images.test[:1])
    np.testing.assert_allclose(state["test_codes"][0], codes[0], atol=1e-6)


def test_directions_leave_their_state(for_the_site):
    directions = {"slant": (torch.ones(5), 30.0), "label": (torch.eye(5)[0], (0, 9))}
    state = state_of(explore.direction_sliders(a_model(), torch.ones(5), directions))
    assert not state["sliders_show_z"] and "test_codes" not in state
    ends = [(slider["name"], slider["low"], slider["high"]) for slider in state["sliders"]]
    assert ends == [("slant", -30.0, 30.0), ("label", 0.0, 9.0)]


@pytest.mark.parametrize("latent_size, kind", [(2, "map"), (5, "sliders")])
def test_compared_models_leave_a_decoder_each_in_their_own_units(
    for_the_site, images, latent_size, kind
):
    both = {"AE": a_model(models.Autoencoder, latent_size), "VAE": a_model(models.VAE, latent_size)}
    explorer = explore.compare(both, images)
    state = state_of(explorer)
    assert state["kind"] == kind
    assert [decoder["name"] for decoder in state["decoders"]] == ["AE", "VAE"]
    (first_weights, first_bias, *_), _ = (
        unpacked(state["weights"][decoder["weights"]]) for decoder in state["decoders"]
    )
    centre, spread = explorer._decoders["AE"].units
    first = both["AE"].decoder[0]
    np.testing.assert_allclose(first_weights, first.weight * spread, rtol=1e-6)
    np.testing.assert_allclose(first_bias, first.bias + first.weight @ centre, atol=1e-5)


def test_a_map_leaves_its_plane(for_the_site, images):
    explorer = explore.latent_map(a_model(latent_size=2), images, torch.tensor([0.5, -1.0]))
    explorer.view.value = "decoded"  # the page draws that itself
    state = state_of(explorer)
    assert state["z"] == [0.5, -1.0] and state["views"] == explore.maps.VIEWS
    assert (state["low"], state["high"]) == (explorer.planes[0].low, explorer.planes[0].high)
    explorer.view.value = "codes"
    assert base64.b64decode(state["backgrounds"][0]) == explorer.planes[0].background


def test_a_morph_leaves_its_ends(for_the_site, images):
    explorer = explore.morph(a_model(), images.test[0], images.test[1], images.test)
    explorer.path.value, explorer.slider.value = "slerp", 0.25
    state = state_of(explorer)
    assert (state["path"], state["t"]) == ("slerp", 0.25)
    np.testing.assert_allclose(state["ends"], explorer.ends, atol=1e-6)
    shown = [np.frombuffer(base64.b64decode(image), np.uint8) for image in state["end_images"]]
    np.testing.assert_array_equal(shown, images.test[:2].flatten(1))


def test_explorers_of_one_model_share_its_weights(for_the_site, images):
    vae = a_model()
    states = [
        state_of(explore.latent_sliders(vae)),
        state_of(explore.morph(vae, images.test[0], images.test[1])),
    ]
    one, other = ([d["weights"] for d in state["decoders"]] for state in states)
    assert one == other


def test_what_cannot_live_leaves_nothing(for_the_site, images):
    sliders = {"a": (torch.ones(5), 1.0)}
    for explorer in [
        explore.direction_sliders(lambda z: a_model().decode_mean(z), torch.zeros(5), sliders),
        explore.latent_sliders(a_model(network="deep")),
        explore.draw_digit(a_model(network="deep"), images),
    ]:
        assert state_of(explorer) is None


# --- the drawing pad ------------------------------------------------------------------------------


def drawings(seed: int) -> np.ndarray:
    """Return drawings, uint8 `(n, 28, 28)`: none, lines of many sizes, squares and one dot."""
    generator = np.random.default_rng(seed)
    drawn = [np.zeros((28, 28), np.uint8)]
    for width in (1, 3, 6):
        for reach in range(2, 27, 4):
            image = Image.new("L", (28, 28))
            points = generator.uniform(1, 1 + reach, (3, 2)).flatten().tolist()
            ImageDraw.Draw(image).line(points, fill=255, width=width)
            drawn.append(np.asarray(image) // np.uint8(generator.integers(1, 3)))
    for height, width in [(8, 1), (1, 8), (20, 20), (28, 28), (1, 1), (28, 3)]:
        drawn.append(np.zeros((28, 28), np.uint8))
        drawn[-1][-height:, :width] = 255
    return np.array(drawn)


def of_the_page(state: dict, drawn: np.ndarray) -> list[dict]:
    """Return what the page makes of drawings: the image, the decoded one, the words and so on."""
    code = """
        const { state } = given;
        const encode = await unpackEncoder(state.weights[state.encoder]);
        const { decode, logits } = await unpack(state.weights[state.decoders[0].weights]);
        console.log(JSON.stringify(given.drawings.map((drawn) => {
          const image = [...centred(Uint8Array.from(drawn))];
          const x = image.map((grey) => grey / 255);
          const code = { x, ...encode(x) };
          const outputs = state.eps.map((noise) => {
            return logits(code.mu.map((m, j) => m + noise[j] * code.sigma[j]));
          });
          const terms = score(code, outputs);
          const decoded = [...decode(code.mu)];
          return { image, decoded, ...terms, words: words(state, terms) };
        })));"""
    return run_in_node(code, {"state": state, "drawings": drawn.reshape(len(drawn), -1).tolist()})


@in_node
def test_the_page_makes_of_a_drawing_what_the_notebook_does(for_the_site):
    model = a_model(hidden_size=400, latent_size=20)
    model.encoder[-1].weight *= 4  # codes as far apart as a trained network's
    some = [drawings(seed)[1:] for seed in range(1, 9)]
    some = torch.stack([data.centre_digit(torch.from_numpy(each)) for each in np.concatenate(some)])
    labels = torch.zeros(len(some), dtype=torch.int64)
    images = data.Images("drawings", some, labels, some, labels, ("drawing",))
    explorer = explore.draw_digit(model, images)
    made, pictures = of_the_page(state_of(explorer), drawings(0)), []
    assert not any(made[0]["image"])
    for drawn, page in zip(drawings(0)[1:], made[1:]):
        image = data.centre_digit(torch.from_numpy(drawn))
        assert np.abs(image.flatten().int().numpy() - page["image"]).max() <= 1
        x = data.to_float(torch.tensor(page["image"], dtype=torch.uint8)[None])
        mu, log_var = model.encode(x)
        decoded = 255 * model.decode_mean(mu)[0].numpy()
        assert np.abs(decoded - page["decoded"]).max() <= LEVELS
        pictures.append(decoded)
        z = mu + explorer._eps * (0.5 * log_var).exp()
        recon = losses.bernoulli_nll(model.decode(z), x.expand(len(z), -1)).mean().item()
        kl = losses.kl_standard_normal(mu, log_var).item()
        assert page["recon"] + page["kl"] == pytest.approx(recon + kl, abs=0.5)
    assert np.ptp(pictures, axis=0).max() > 100  # they are not all the same


@in_node
def test_the_page_has_the_words_of_the_notebook(for_the_site, images):
    explorer = explore.draw_digit(a_model(), images)
    explorer._test_scores = torch.linspace(50, 450, 10_000)
    state = explorer._living()
    terms = [
        {"recon": recon, "kl": 10.04} for recon in (30.0, 43.5, 44.5, 90.26, 435.0, 437.0, 600)
    ]
    made = run_in_node(
        "console.log(JSON.stringify(given.terms.map((each) => words(given.state, each))));",
        {"state": state, "terms": terms},
    )
    kinds = [re.search(r"images. <b>(.*)\.</b>", words)[1] for words in made]
    assert kinds == [*2 * ["Too easy"], *3 * ["Ordinary"], *2 * ["Strange"]]
    for each, words in zip(terms, made):
        assert words == explorer._words(**each)


def test_a_drawing_leaves_its_state(for_the_site, images):
    explorer = explore.draw_digit(a_model(), images, images.test[3])
    state = state_of(explorer)
    assert state["kind"] == "drawing" and state["encoder"] in state["weights"]
    assert base64.b64decode(state["drawing"]) == images.test[3].numpy().tobytes()
    assert len(state["test_images"]) == living.EXAMPLES
    assert (state["scores"][0], state["scores"][-1]) == pytest.approx(
        (explorer._test_scores[0].item(), explorer._test_scores[-1].item())
    )
    weights, bias, *_, whole = unpacked(state["weights"][state["encoder"]])
    np.testing.assert_array_equal(weights, explorer._model.encoder[-1].weight)
    np.testing.assert_array_equal(bias, explorer._model.encoder[-1].bias)
    assert np.abs(whole).max() == living.ENCODER_LEVELS


# --- the pages ------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a page has: the tags with their attributes, and the text outside of scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.text, self.skips = [], "", False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.skips = tag in ("script", "style")

    def handle_endtag(self, tag):
        self.skips = False

    def handle_data(self, data):
        self.text += "" if self.skips else data

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


FOLDED = """<details>
<summary>Solution</summary>

```python
x = 1
```

</details>"""


def check_page(html: str) -> Page:
    """Return a page that asks for nothing, has words for its pictures, and is small enough."""
    page = Page(html)
    sources = [value for _, attributes in page.tags for value in [attributes.get("src")] if value]
    assert all(source.startswith("data:") for source in sources)
    assert page.all("link") == [{"rel": "icon", "href": "data:,"}]  # else a browser asks for one
    assert "@import" not in html and "url(" not in html
    assert all(len(image["alt"]) > 3 for image in page.all("img"))
    assert len(page.all("h1")) == 1 and page.all("html")[0]["lang"] == "en"
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert len(html.encode()) < pages.LARGEST
    assert len(gzip.compress(html.encode())) < pages.LARGEST_ZIPPED
    return page


def shown(explorer) -> nbformat.NotebookNode:
    """Return an explorer's output, as a headless run leaves it."""
    bundle, metadata = explorer._repr_mimebundle_()
    return new_output("execute_result", bundle, metadata=metadata, execution_count=1)


@pytest.mark.parametrize("path", LESSONS, ids=NAMES)
def test_a_committed_lesson_is_a_page(path):
    notebook = read(path)
    html = pages.lesson_page(notebook, pages.ways(0, ["a", "b"], ["1", "2"]))
    page = check_page(html)
    assert address.ADDRESS not in page.text  # the cell that fetches the package is not shown
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(page.all("img")) == len(pictures)
    stills = [o for o in pictures if o.data.get("text/plain") == STILL]
    assert page.text.count("A still picture: this explorer needs") == len(stills)
    tables = [o for o in outputs if "<table" in o.get("data", {}).get("text/html", "")]
    assert len(page.all("table")) >= len(tables)
    folded = [c for c in notebook.cells if c.cell_type == "markdown" and "<details>" in c.source]
    assert len(page.all("details")) >= len(folded)
    assert "$$" not in page.text and "\\frac" not in page.text
    leads_to = [a["href"] for a in page.all("a") if a["href"].endswith(".ipynb")]
    assert leads_to == 2 * [address.colab("1"), address.kaggle("1")]  # above and below


@pytest.mark.parametrize("path", LESSONS, ids=NAMES)
def test_every_formula_of_a_lesson_becomes_mathml(path):
    for cell in read(path).cells:
        if cell.cell_type != "markdown":
            continue
        without_code = re.sub(r"```.*?```|`[^`\n]*`", "", cell.source, flags=re.S)
        for block, inline in re.findall(r"\$\$(.+?)\$\$|\$([^$]+)\$", without_code, re.S):
            math = pages.mathml(block or inline, "block" if block else "inline")
            assert math.startswith("<math") and "\\" not in math, block or inline
            assert "mathvariant" not in math, "a letter that pages.LETTERS does not know"


def test_a_fraction_of_two_digits_is_two_numbers():
    half = Page(pages.mathml(r"\tfrac12 x", "inline"))
    assert half.text.split() == ["1", "2", "x"] or half.text == "12x"
    assert len(half.all("mn")) == 2 and half.all("mfrac")


def test_a_lesson_becomes_a_page(for_the_site, images):
    vae = a_model()
    outputs = [
        shown(explore.latent_sliders(vae, test_images=images.test)),
        shown(explore.morph(vae, images.test[0], images.test[1])),
        shown(explore.draw_digit(vae, images)),
        shown(explore.latent_sliders(a_model(network="deep"))),
        new_output("stream", text="a < b\n"),
        new_output("display_data", {"text/html": "<style>i {}</style><table></table>"}),
    ]
    cells = [
        new_markdown_cell("# 01 · A <i>title</i>\n\nSee $x < y$ and [that](02_vae.ipynb#there)."),
        new_code_cell("1 + 1", outputs=outputs),
        new_markdown_cell(FOLDED),
    ]
    html = pages.lesson_page(new_notebook(cells=cells), pages.ways(0, ["a", "b"], ["1", "2"]))
    page = check_page(html)
    figures = page.all("figure")
    assert [figure.get("class") for figure in figures] == [*3 * ["explorer"], None]
    assert html.count('id="weights-') == 2  # the decoder once, though three explorers use it
    assert len(page.all("img")) == len(page.all("noscript")) + 1 == 4
    assert "a < b" in page.text and "i {}" not in html
    assert page.all("details") and page.all("math")
    assert {"href": "02_vae.html#there"} in page.all("a")
    assert len([a for a in page.all("a") if a.get("rel") == "next"]) == 2  # above and below
    states = re.findall(r'<script type="application/json">(.*?)</script>', html, re.S)
    assert [json.loads(state)["kind"] for state in states] == ["sliders", "morph", "drawing"]


def test_a_text_cannot_end_the_script_that_it_is_in():
    text = {"name": "</script><b>"}
    written = pages.in_script(text)
    assert "<" not in written and json.loads(written) == text


def test_a_page_of_still_explorers_has_no_script():
    html = pages.lesson_page(new_notebook(cells=[new_markdown_cell("# 1")]), "")
    assert "<script" not in html


def test_the_index_leads_to_every_lesson():
    page = check_page(pages.index_page((pages.PROJECT / "README.md").read_text(encoding="utf-8")))
    leads_to = [a["href"] for a in page.all("a")]
    assert all(f"{name}.html" in leads_to for name in NAMES)
    assert all(host(name) in leads_to for host in (address.colab, address.kaggle) for name in NAMES)
    assert len(page.all("img")) == 1 and "make lab" in page.text and "papermill" not in page.text


def test_each_page_leads_to_those_around_it():
    titles, names = ["a", "b & c", "d"], ["1", "2", "3"]
    first, middle, last = (Page(pages.ways(i, titles, names)) for i in range(3))
    local = [[a["href"] for a in each.all("a")[:-2]] for each in (first, middle, last)]
    assert local == [
        ["index.html", "2.html"],
        ["1.html", "index.html", "3.html"],
        ["2.html", "index.html"],
    ]
    assert [a["href"] for a in middle.all("a")[-2:]] == [address.colab("2"), address.kaggle("2")]
    assert "b & c →" in first.text


def test_pages_only_needs_an_earlier_run(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_LESSON_RESULTS", str(tmp_path))
    with pytest.raises(SystemExit, match=r"lacks 01_autoencoder.ipynb.*without PAGES=only"):
        pages.main(only=True)


def test_pages_only_takes_the_last_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VAE_LESSON_RESULTS", str(tmp_path))
    monkeypatch.setattr(pages, "LESSONS", LESSONS[6:8])
    (tmp_path / "site_run").mkdir()
    for path in LESSONS[6:8]:
        shutil.copy(path, tmp_path / "site_run")
    pages.main(only=True)
    written = {path.name for path in (tmp_path / "site").iterdir()}
    assert written == {"index.html", "07_diagnosis.html", "08_conditional.html"}
    assert "07_diagnosis.html: 0." in capsys.readouterr().out


def test_what_is_no_value_of_pages_is_named():
    done = subprocess.run(
        [sys.executable, pages.HERE / "pages.py", "onyl"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{pages.PROJECT / 'tests'}:{pages.PROJECT}"},
    )
    assert done.returncode == 1 and "PAGES can be `only`, or nothing: got onyl" in done.stderr


def test_a_page_that_is_too_large_ends_it_all(tmp_path):
    with pytest.raises(SystemExit, match="a page has at most 2,000,000 bytes"):
        pages.write(tmp_path / "x.html", "x" * 2_000_001)


def test_cleaning_keeps_what_a_page_needs(for_the_site):
    cell = new_code_cell("x", outputs=[shown(explore.latent_sliders(a_model()))])
    (output,) = cleaned(new_notebook(cells=[cell])).cells[0].outputs
    assert set(output.data) == {"image/png", "text/plain", living.MIME}
    assert output.data["text/plain"] == STILL


@pytest.mark.parametrize("path", LESSONS, ids=NAMES)
def test_a_committed_lesson_holds_nothing_for_the_site(path):
    assert living.MIME not in path.read_text(encoding="utf-8")
