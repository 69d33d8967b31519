"""The site without a browser: what explorers leave for it, its networks in JavaScript, the pages.

What the pages do is in test_browser.py and test_explorers_browser.py; only how the cheat sheet is
printed is here. JavaScript runs in node; without it those tests skip.
"""

import base64
import functools
import json
import os
import re
import shutil
import subprocess
import sys

import address
import labs
import languages
import nbformat
import numpy as np
import pages
import pytest
import torch
import translations
from bs4 import BeautifulSoup
from languages import ENGLISH
from lessons import LESSONS, NAMES, read, read_in, sheet_in
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image, ImageDraw
from refresh import STILL, cleaned
from test_prose import claims, repeats, written
from test_prose import shown as shown_numbers
from torch import nn
from vaes import Foreign

from vae_lesson import data, explore, models
from vae_lesson.adapter import adapt
from vae_lesson.explore.page import MIME, network
from vae_lesson.priors.conditional import ConditionalVAE, LabelMoved
from vae_lesson.priors.discrete import VQVAE
from vae_lesson.priors.flow import Stopped, VelocityField
from vae_lesson.priors.spatial import spatial_autoencoder

NODE = shutil.which("node")
in_node = pytest.mark.skipif(NODE is None, reason="there is no node here")
LEVELS = 2  # of 255: what a pixel of the page may be off by
HOSTILE = "</script><b>"


def last_layer(model: nn.Module) -> nn.Module:
    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    return [part for part in model.modules() if isinstance(part, kinds)][-1]


def a_model(cls=models.VAE, latent_size=5, hidden_size=16, **options):
    """Return a network that looks trained: dark where nothing is drawn, with contrast."""
    torch.manual_seed(0)
    model = cls(latent_size=latent_size, hidden_size=hidden_size, **options).eval()
    with torch.no_grad():
        last_layer(model).weight *= 8
        last_layer(model).bias -= 2
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (20, 28, 28), dtype=torch.uint8, generator=generator)
    labels = torch.arange(20) % 10
    return data.Images("noise", noise, labels, noise, labels, tuple("0123456789"))


@pytest.fixture
def published(monkeypatch):
    """Give the course an address."""
    monkeypatch.setattr(address, "ADDRESS", "https://github.com/someone/vae-lesson")


@pytest.fixture
def for_the_site(monkeypatch):
    monkeypatch.setenv("VAE_LESSON_SITE", "1")


def left_by(explorer) -> dict | None:
    """Return what an explorer leaves for its page, as JSON carries it."""
    return json.loads(json.dumps(explorer._repr_mimebundle_()[0].get(MIME)))


def run_in_node(code: str, given: object, script: str = pages.SCRIPT) -> object:
    """Return what JavaScript prints, as JSON, on a page that has no figure; it gets `given`."""
    before = f"globalThis.document = {{ querySelectorAll: () => [] }};\n{script}"
    whole = f"{before}\n{{ const given = {json.dumps(given)};\n{code} }}"
    node = [NODE, "--input-type=module", "-"]
    done = subprocess.run(node, input=whole, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- the networks ---------------------------------------------------------------------------------

SHAPES = [(1, 32, 32), (1, 37, 37), (3, 32, 32), (3, 37, 37)]
NETWORKS = {
    "MLP": models.VAE,
    "autoencoder": models.Autoencoder,
    "linear VAE": functools.partial(models.VAE, network="linear"),
    "linear autoencoder": functools.partial(models.Autoencoder, network="linear"),
    "deep": functools.partial(models.VAE, network="deep"),
    **{f"conv {s}": functools.partial(models.VAE, shape=s, network="conv") for s in SHAPES},
    "label": lambda: LabelMoved(ConditionalVAE(), label=7),
    "flow": lambda: Stopped(VelocityField(20, 10), models.VAE(), torch.randn((1, 20))),
    "tokens": VQVAE,
    "spatial": lambda: spatial_autoencoder(channels=4),
}


@torch.no_grad()
def a_network(name: str, spread: float = 2) -> tuple[nn.Module, torch.Tensor]:
    """Return a model, and codes whose logits have this standard deviation, with minus it added."""
    torch.manual_seed(0)
    model = NETWORKS[name]().eval().requires_grad_(False)
    codes = torch.randn((10, getattr(model, "latent_size", 49)))
    if name == "label":
        codes[:, -1] = 2 * torch.arange(10) - 14
    elif name == "tokens":
        codes = torch.randint(model.n_codes, (10, 49))
    elif name == "flow":  # steps left out, w - 1, label
        model.field.leave[-1].weight *= 10  # velocities of about 1
        codes = torch.tensor([[n, w, y] for n in (0, 7, 20) for w in (-1, 0, 2) for y in (0.0, -3)])
    elif name == "linear autoencoder":
        spread /= 2  # it gives intensities, without a sigmoid
    outputs, last = [], last_layer(model)
    hook = last.register_forward_hook(lambda *given: outputs.append(given[2]))
    model.decode_mean(codes)
    hook.remove()
    last.weight *= spread / outputs[0].std()
    last.bias -= spread
    return model, codes


def by_the_page(packed: dict, codes: torch.Tensor) -> tuple[np.ndarray, float]:
    """Return the decoded intensities, times 255, `(n, pixels)`, and the fewest milliseconds that
    the page took for one."""
    code = """
        const decode = await network(given.packed);
        const taken = [...given.codes, ...given.codes, ...given.codes].map((code) => {
          const start = performance.now();
          decode(code);
          return performance.now() - start;
        });
        const decoded = given.codes.map((code) => [...decode(code)]);
        console.log(JSON.stringify([decoded, Math.min(...taken)]));"""
    decoded, taken = run_in_node(code, {"packed": packed, "codes": codes.tolist()})
    return 255 * np.clip(np.float32(decoded), 0, 1), taken


@in_node
@pytest.mark.parametrize("spread", [2, 8], ids=["trained", "steep"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_page_computes_what_torch_does_and_in_time(name, spread):
    model, codes = a_network(name, spread)
    wanted = 255 * model.decode_mean(codes).clamp(0, 1).numpy()
    decoded, taken = by_the_page(network(model), codes)
    assert wanted.max() > 200 and wanted.std(axis=0).max() > 20  # each code has its own picture
    assert spread < 8 or ((wanted < 3) | (wanted > 252)).mean() > 0.5  # saturated
    off = np.abs(decoded - wanted)
    print(f"{name}: off by {off.max():.2f} of 255, in the mean {off.mean():.3f}; {taken:.1f} ms")
    assert off.max() < (LEVELS if spread < 8 else 6) and off.mean() < 0.2
    assert taken < 60  # a frame has 16, which an idle machine should keep


def subclass_of(cls: type, *given) -> nn.Module:
    """Return one of a subclass, whose methods could do anything."""
    return type("Mine", (cls,), {})(*given)


FIELD, ONE = subclass_of(VelocityField, 20, 10), torch.ones((1, 20))
UNKNOWN = [
    *(torch.sigmoid, subclass_of(models.VAE), adapt(Foreign(), (1, 28, 28), "means")),
    *(subclass_of(VQVAE), LabelMoved(subclass_of(ConditionalVAE), 0), subclass_of(nn.Sequential)),
    *(nn.Dropout(), nn.BatchNorm2d(2), nn.LeakyReLU(), nn.Linear(5, 5, bias=False)),
    *(nn.Conv2d(2, 4, 2, stride=2), nn.Conv2d(2, 2, 1, groups=2), nn.Conv2d(2, 2, (3, 1))),
    *(nn.Conv2d(2, 2, 3, dilation=2), nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")),
    *(nn.Upsample(scale_factor=2), nn.Upsample(28), nn.Upsample((9, 9), mode="bilinear")),
    *(nn.ConvTranspose2d(2, 2, 4, 2, bias=False), nn.ConvTranspose2d(2, 2, 3, 2, 0, 1)),
    *(nn.GroupNorm(1, 2, affine=False), nn.GroupNorm(1, 2, eps=1e-3)),
    Stopped(FIELD, models.VAE(), ONE),
]


@pytest.mark.parametrize("part", UNKNOWN, ids=lambda part: type(part).__name__)
def test_what_a_page_does_not_know_has_no_network(part):
    is_function = not isinstance(part, nn.Module)
    assert network(part if is_function else nn.Sequential(nn.Linear(5, 2), part)) is None


def test_an_explorer_of_what_a_page_does_not_know_leaves_nothing(for_the_site, images):
    _, mine, adapted, *_ = UNKNOWN
    assert left_by(explore.morph(a_model().decode_mean, torch.ones(5), torch.zeros(5))) is None
    assert left_by(explore.compare({"one": models.VAE(), "other": mine}, images)) is None
    conv = a_model(network="conv")
    assert left_by(explore.latent_sliders(conv)) and not left_by(explore.draw_digit(conv, images))
    assert left_by(explore.draw_digit(adapted, images)) is None


# --- what explorers leave -------------------------------------------------------------------------


LINES = {HOSTILE: (torch.ones(5), (-1, 7))}
LEFT_OUT = {"steps left out": (torch.eye(3)[0], (0, 20, 1))}
EXPLORERS = {
    "sliders": lambda x: explore.latent_sliders(a_model(), torch.ones(5), x.test),
    "directions": lambda x: explore.direction_sliders(a_model(), torch.ones(5), LINES),
    "flow": lambda x: explore.direction_sliders(a_network("flow")[0], torch.ones(3), LEFT_OUT),
    "map": lambda x: explore.latent_map(a_model(latent_size=2), x, torch.tensor([0.5, -1])),
    "compare": lambda x: explore.compare({"AE": a_model(models.Autoencoder), "VAE": a_model()}, x),
    "morph": lambda x: explore.morph(a_model(), x.test[0], x.test[1], x.test),
    "tokens": lambda x: explore.change_tokens(a_network("tokens")[0], x.test[0]),
    "drawing": lambda x: explore.draw_digit(a_model(), x, x.test[3]),
}


@pytest.mark.parametrize("name", EXPLORERS)
def test_an_explorer_leaves_its_state_and_networks_if_it_is_asked(name, monkeypatch, images):
    explorer = EXPLORERS[name](images)
    monkeypatch.delenv("VAE_LESSON_SITE", raising=False)
    assert left_by(explorer) is None
    monkeypatch.setenv("VAE_LESSON_SITE", "1")
    left = left_by(explorer)
    assert left["state"].items() >= {"kind": explorer.state["kind"], "warnings": []}.items()
    buffers = [base64.b64decode(each["base64"]) for each in left["shown"]["buffers"]]
    assert buffers == explorer.shown["buffers"]
    assert any(left["units"]) == (name == "compare")  # the autoencoder's
    assert len(left["networks"]) == 1 + (name in ("compare", "drawing"))
    assert left["weights"].keys() == {*left["networks"]}
    if name == "drawing":
        assert left["state"]["class_names"] is None  # the training images are not there


# --- the drawing pad ------------------------------------------------------------------------------


def drawings(seeds: range) -> np.ndarray:
    """Return drawings, uint8 `(n, 28, 28)`, 27 a seed: lines of many sizes, squares and one dot."""
    drawn = []
    for generator in map(np.random.default_rng, seeds):
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


def apart(a: list, b: np.ndarray) -> int:
    return np.abs(np.reshape(a, b.shape) - b.astype(int)).max()


@in_node
def test_the_page_makes_of_a_drawing_what_the_notebook_does(for_the_site):
    model = a_model(hidden_size=400, latent_size=20)
    model.encoder[-1].weight *= 4  # codes as far apart as a trained network's
    some = [data.centre_digit(torch.tensor(one)) for one in drawings(range(20, 60))]
    some, labels = torch.stack(some), torch.zeros(len(some), dtype=torch.int64)
    explorer = explore.draw_digit(model, data.Images("", some, labels, some, labels, ("drawing",)))
    code = """
        globalThis.vaeWeights = given.left.weights;
        const host = await pageHost(given.left);
        const plain = ({ buffers, ...rest }) => ({ ...rest, buffers: buffers.map((b) => [...b]) });
        const answers = given.drawn.map((one) => host.move(Uint8Array.from(one), {}));
        console.log(JSON.stringify((await Promise.all(answers)).map(plain)));"""
    drawn = np.concatenate([drawings(range(12)), np.zeros((1, 28, 28), np.uint8)])
    given = {"left": left_by(explorer), "drawn": drawn.reshape(-1, 784).tolist()}
    *made, empty = run_in_node(code, given)
    assert empty["shapes"] == [[1, 28, 28]] and not np.any(empty["buffers"]) and "mu" not in empty
    centring, off = [], []
    for one, page in zip(drawn, made):
        explorer.drawing = one
        shown = explorer.shown
        seen, *pictures = (np.frombuffer(each, np.uint8) for each in shown["buffers"])
        assert page["shapes"] == [[1, 28, 28], [1, 28, 28], [6, 28, 28]]  # no neighbours
        centring.append(apart(page["buffers"][0], seen))
        if centring[-1] == 0:
            assert max(map(apart, page["buffers"][1:], pictures)) <= LEVELS
            for name in ("mu", "sigma"):
                np.testing.assert_allclose(page[name], shown[name], atol=0.01)
            scores = [[*answer["score"].values()] for answer in (page, shown)]
            off.append(np.abs(np.subtract(*scores)))
    recon, kl, place = np.max(off, axis=0)
    n, n_off, n_shifted = (sum(x > by for x in centring) for by in (-1, 0, 1))
    print(f"{n} drawings, centred by a grey level otherwise {n_off}, by a pixel {n_shifted}; else")
    print(f"off by {recon:.3f} + {kl:.3f} nats, {place:.4f} in place")
    # A pixel: rounding decides where the middle of mass lies between two.
    assert n_off < 0.2 * n and n_shifted < 0.01 * n
    assert recon + kl < 1 and place < 0.005


# --- the pages ------------------------------------------------------------------------------------


def read_page(html: str) -> BeautifulSoup:
    return BeautifulSoup(html, "html.parser")


def check_page(html: str, weights: dict | None = None) -> BeautifulSoup:
    """Return a page that asks for nothing but its weights, before its module; that has words for
    its pictures, and is small enough."""
    page = read_page(html)
    assert all(each["src"].startswith("data:") for each in page(src=True) if each.name != "script")
    assert [each["src"] for each in page("script", src=True)] == [
        f"{key}.js" for key in weights or {}
    ]
    assert ("pageHost(" in page("script")[-1].text) == bool(page("figure", class_="explorer"))
    assert [each["href"][:19] for each in page("link", rel="icon")] == ["data:image/svg+xml,"]
    about = [
        page.find("meta", {"name": "description"}),
        page.find("meta", property="og:description"),
    ]
    assert len({each["content"] for each in about}) == 1 and len(about[0]["content"]) > 9
    assert page.find("meta", property="og:title")["content"] == page.title.text
    shared = page.find("meta", property="og:image")  # its address must be whole
    assert bool(shared) == bool(address.ADDRESS)
    assert not shared or shared["content"] == f"{address.pages()}{pages.SHARE}"
    assert "@import" not in html and not re.search(r'url\((?!"data:)', html)
    assert all(len(image["alt"]) > 3 for image in page("img"))
    assert len(page("h1")) == 1 and page.html["lang"] == languages.spoken
    ids = [each["id"] for each in page(id=True)]
    assert len(ids) == len(set(ids))
    assert len(html.encode()) < pages.LARGEST
    return page


def shown(explorer) -> nbformat.NotebookNode:
    """Return an explorer's output, as a headless run leaves it."""
    bundle, metadata = explorer._repr_mimebundle_()
    return new_output("execute_result", bundle, metadata=metadata, execution_count=1)


@pytest.mark.parametrize("path", LESSONS, ids=NAMES)
def test_a_committed_lesson_is_a_page(path):
    notebook = read(path)
    html, weights = pages.lesson_page(notebook, pages.ways(0, ["a", "b"], ["1", "2"]))
    page = check_page(html)
    assert weights == {} and MIME not in path.read_text(encoding="utf-8")
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(page("img")) == len(pictures)
    stills = [o for o in pictures if o.data.get("text/plain") == STILL]
    assert page.text.count("A still picture: this explorer needs") == len(stills)
    tables = [o for o in outputs if "<table" in o.get("data", {}).get("text/html", "")]
    assert len(page("table")) >= len(tables)
    folded = [c for c in notebook.cells if c.cell_type == "markdown" and "<details>" in c.source]
    assert len(page("details")) >= len(folded)
    assert "$$" not in page.text and "\\frac" not in page.text
    assert "finished run" in page.header.text and not page.select("th:empty")
    sections = [a["href"] for a in page.select(".contents a")]
    assert sections == [f"#{heading['id']}" for heading in page("h2")] != []


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
    half = read_page(pages.mathml(r"\tfrac12 x", "inline"))
    assert [each.text for each in half.mfrac("mn")] == ["1", "2"]


def test_no_line_begins_with_what_ends_a_sentence_after_a_formula():
    html = read_page(pages.markdown("Of $x$ and $y$; then ($z$). $$w$$"))
    assert [joined.text for joined in html(class_="joined")] == ["y;", "z)."]


def test_a_lesson_becomes_a_page_with_its_weights_beside(for_the_site, images, tmp_path):
    outputs = [
        *(shown(EXPLORERS[name](images)) for name in ("directions", "map", "morph", "drawing")),
        shown(explore.latent_sliders(UNKNOWN[1])),
        new_output("stream", text="a < b\n"),
        new_output("display_data", {"text/html": "<style>i {}</style><table></table>"}),
    ]
    cells = [
        new_markdown_cell("# 01 · A <i>title</i>\n\nSee $x < y$ and [that](02_vae.ipynb#there)."),
        new_code_cell("1 + 1", outputs=outputs),
        new_markdown_cell("<details>\n<summary>S</summary>\n\n```python\nx = 1\n```\n\n</details>"),
    ]
    notebook = new_notebook(cells=cells)
    output = cleaned(notebook).cells[1].outputs[0].data  # as it is kept for the page
    assert set(output) == {"image/png", "text/plain", MIME} and output["text/plain"] == STILL
    html, weights = pages.lesson_page(notebook, pages.ways(0, ["a", "b"], ["1", "2"]))
    page = check_page(html, weights)
    assert [figure.get("class") for figure in page("figure")] == [*4 * [["explorer"]], None]
    assert len(page("img")) == len(page.select("figure noscript")) + 1 == 5
    assert "a < b" in page.text and "i {}" not in html
    assert page.details and page.math and page("a", href="02_vae.html#there")
    assert len(page("a", rel="next")) == 2  # above and below
    left = [json.loads(each.string) for each in page("script", type="application/json")]
    assert [each["state"]["kind"] for each in left] == ["sliders", "map", "morph", "drawing"]
    assert left[0]["state"]["sliders"][0]["name"] == HOSTILE and HOSTILE not in html
    (drawn,) = left[1]["state"]["backgrounds"]
    assert base64.b64decode(drawn["base64"]).startswith(b"RIFF")  # as WebP
    # Three explorers share a decoder; no network is in the page itself.
    assert len(weights) == 3 and set(weights) == {key for each in left for key in each["networks"]}
    assert not any(each["data"] in html for each in weights.values())
    pages.write(tmp_path, "lesson.html", html, weights)
    files = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert files.pop("lesson.html") == html and files.keys() == {f"{key}.js" for key in weights}
    if NODE:
        code = "console.log(JSON.stringify(vaeWeights));"
        assert run_in_node(code, None, "\n".join(files.values())) == weights


def index_html() -> str:
    readme = (pages.PROJECT / "README.md").read_text(encoding="utf-8")
    return pages.index_page(readme, {name: ["a"] for name in NAMES}, live=[NAMES[1]])


def test_the_index_leads_to_every_lesson():
    page = check_page(index_html())
    leads_to = {a["href"] for a in page("a") if not a["href"].startswith(("#", "https:"))}
    assert leads_to == {SHEET, "playground.html", *(f"{name}.html" for name in NAMES)}
    assert "make lab" in page.text and "papermill" not in page.text
    still, drawn = page("img")
    assert page("figure") == [still.find_parent("figure")] and "mixture" in drawn["alt"]
    # What moves comes first, then the lessons, then how they are installed.
    order = [page.figure, page.table, page.find(id="Start")]
    assert order == sorted(order, key=[*page.descendants].index)
    buttons = {a.text: a["href"] for a in page.select(".buttons a")}
    assert buttons == {"Read lesson 01": f"{NAMES[0]}.html", "Install it": "#Start"}
    assert [mark.find_parent("tr").a.text[:2] for mark in page(class_="live")] == ["02"]
    assert [mark["data-lesson"] for mark in page(class_="done")] == NAMES


def test_the_index_leads_to_the_cloud_if_there_is_an_address(published):
    buttons = check_page(index_html()).select(".buttons a")
    assert buttons[-1]["href"] == address.colab(NAMES[0]) and len(buttons) == 3
    assert pages.share_picture().size == (1200, 630)  # as the head says


def test_the_figure_of_the_index_has_a_page_of_its_own():
    page = check_page(pages.playground_page())
    assert len(page("figure")) == 1 and page.h1.text.startswith("See a VAE learn")
    assert [a["href"] for a in page.nav("a")] == ["index.html", f"{NAMES[0]}.html"]


def test_the_index_names_the_minutes_of_work_that_each_lesson_does():
    words = {"an hour": "60"}
    for name, row in zip(NAMES, read_page(index_html()).table.tbody("tr")):
        says = re.search(r"and (an hour|\d+)( minutes)? of work", read(name).cells[0].source)[1]
        assert row("td")[2].text == words.get(says, says), name


# --- guesses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", LESSONS, ids=NAMES)
def test_every_guess_has_a_field_and_its_number_and_what_says_it_waits(path):
    html, _ = pages.lesson_page(read(path), "")
    cells, page = read(path).cells, read_page(html)
    asked = [i for i, c in enumerate(cells) if c.cell_type == "code" and "guess = " in c.source]
    assert len(asked) == len(page("form")) == str(cells).count("lesson.answer(") > 3
    for i, form in zip(asked, page("form")):
        cell, label = cells[i], form.label
        assert form["data-question"] == cell.id and form.has_attr("hidden")
        assert label["for"] == form.input["id"] and f"# y{label.text[1:]}" in cell.source
        waiting = page.select(f'[data-waits="{cell.id}"]')
        said = "\n".join(pre.text for each in waiting for pre in each("pre"))
        assert pages.MEASURED.findall(said) == [form["data-measured"]]
        # All outputs until the next text or guess wait, and a paragraph of that text.
        until = next(k for k in range(i + 1, len(cells)) if k in asked or "outputs" not in cells[k])
        n_outputs = sum(len(each.outputs) for each in cells[i:until])
        assert sum(len(each(class_="output")) for each in waiting) == n_outputs
        assert [each.parent.name for each in waiting].count("section") == 1
    answers = page("details", attrs={"data-question": True})
    assert [each.summary.text[:6] for each in answers] == len(answers) * ["Answer"]
    ids = [each["data-question"] for each in page(attrs={"data-question": True})]
    assert ids == pages.questions(read(path)) and len(ids) == len(set(ids))


def test_a_guess_whose_number_is_not_found_has_no_field():
    code = "guess = ...  # your guess: a\nlesson.answer(guess, m, 'a')"
    said = [new_output("stream", text="a: nan.\n")]
    cells = [new_markdown_cell("# A"), new_code_cell(code, outputs=said), new_markdown_cell("It")]
    html, _ = pages.lesson_page(new_notebook(cells=cells), "")
    assert "<form" not in html and pages.GUESSES not in html and "a: nan." in html


# --- other languages ------------------------------------------------------------------------------

OTHERS = languages.KNOWN[1:]


@pytest.fixture
def spoken(monkeypatch):
    """Give what makes pages speak a language, for a test."""
    monkeypatch.setattr(languages, "built", [*languages.KNOWN])
    yield languages.speak
    languages.speak(ENGLISH)


def test_there_is_another_language():
    assert "zh-TW" in OTHERS
    wrong = {path.name for path in translations.languages()} ^ {n.replace("-", "_") for n in OTHERS}
    assert wrong == set()


@pytest.mark.parametrize("language", OTHERS)
def test_all_that_pages_say_is_translated(language):
    said = languages.said_in(language)
    asked = [m.id for m in translations.of_the_pages() if m.context == "site"]
    assert {*asked} - said.keys() == set() and len(asked) > 50
    for text in asked:
        of_both = [sorted(re.findall(r"\{\w+\}|<[^>]+>", each)) for each in (text, said[text])]
        assert of_both[0] == of_both[1], text


BLOCKS = ["p", "li", "tr", "td", "th", "pre", "img", "form", "details", "div", "blockquote"]


def parts_of(page: BeautifulSoup) -> dict[str, list]:
    """Return what is the same on a page in every language: its places, links and questions."""
    fields = ("data-question", "data-measured", "data-waits", "data-asked", "aria-describedby")
    return {
        "ids": [each["id"] for each in page(id=True)],
        "headings": [(each.name, each["id"]) for each in page(["h1", "h2", "h3", "h4"])],
        "links": [a["href"] for a in page.main("a")],
        "contents": [a["href"] for a in page.select(".contents a")],
        "ways": [a["href"] for a in page.header("a") if not a.get("hreflang")],
        **{name: [each[name] for each in page(attrs={name: True})] for name in fields},
        "blocks": [each.name for each in page.main(BLOCKS)],
    }


LIKE_WORDS = r"[A-Za-z]{2,} [a-z]{2,} [a-z]{2,}"  # a sentence of English


@pytest.mark.parametrize("language", OTHERS)
@pytest.mark.parametrize("path", LESSONS, ids=NAMES)
def test_a_lesson_has_the_same_places_and_questions_in_every_language(path, language, spoken):
    ways, name = pages.ways(0, ["a", "b"], NAMES[:2]), f"{path.stem}.html"
    english = check_page(pages.lesson_page(read(path), ways, name)[0])
    questions = pages.questions(read(path))
    spoken(language)
    ways = pages.ways(0, ["a", "b"], NAMES[:2])
    lesson = read_in(language, path)
    page = check_page(pages.lesson_page(lesson, ways, name)[0])
    assert pages.questions(lesson) == questions != []
    wanted, got = parts_of(english), parts_of(page)
    for part in wanted:
        assert got[part] == wanted[part], part
    assert len(page("form")) == str(lesson.cells).count("lesson.answer(") > 3
    for form, other in zip(page("form"), english("form")):
        assert form.label.text != other.label.text
    frames = [page.header.text, page.footer.text, *(form.text for form in page("form"))]
    assert not re.search(LIKE_WORDS, " ".join(frames))
    about = [p.find("meta", {"name": "description"})["content"] for p in (page, english)]
    assert about[0] != about[1] and "**" not in about[0]


def test_the_end_of_a_line_is_no_space_between_chinese_sentences():
    text = pages.markdown("一行。\n**二**行\n三 x\ny 四：\n$z$，五\n\n- 六。\n- 七")
    plain = read_page(text)
    assert plain.p.text.startswith("一行。二行三 x\ny 四：") and len(plain("li")) == 2
    assert plain.find(class_="joined").text == "z，"
    assert "one\ntwo" in pages.markdown("one\ntwo")
    stressed = read_page(pages.markdown("*重音*、*A title*、*a*"))("em")
    assert [each.get("class") for each in stressed] == [["stressed"], None, None]


def test_every_language_has_its_networks_from_one_folder(spoken, for_the_site, tmp_path):
    cells = [
        new_markdown_cell("# A"),
        new_code_cell(outputs=[shown(explore.latent_sliders(a_model()))]),
    ]
    spoken(OTHERS[0])
    html, weights = pages.lesson_page(new_notebook(cells=cells), "")
    (source,) = [each["src"] for each in read_page(html)("script", src=True)]
    folder = tmp_path / languages.place(OTHERS[0])
    folder.mkdir()
    pages.write(tmp_path, f"{folder.name}/lesson.html", html, weights)
    assert len(weights) == 1 and (folder / source).resolve().parent == tmp_path.resolve()
    assert (folder / source).exists()


def test_a_page_whose_headings_are_others_is_refused(spoken):
    pages.page("t", pages.markdown("# a\n\n## b"), "", {}, about="x", name="refused.html")
    spoken(OTHERS[0])
    with pytest.raises(ValueError, match=f"refused.html: 1 headings in {OTHERS[0]}, 2 in English"):
        pages.page("t", pages.markdown("# a"), "", {}, about="x", name="refused.html")


@pytest.mark.parametrize("where", [None, "https://github.com/someone/vae-lesson"])
def test_a_site_in_every_language(where, tmp_path, monkeypatch, spoken):
    monkeypatch.setenv("VAE_LESSON_RESULTS", str(tmp_path))
    monkeypatch.setattr(address, "ADDRESS", where)
    monkeypatch.setattr(pages, "LESSONS", LESSONS[6:8])
    for language in languages.KNOWN:
        folder = tmp_path / "site_run" / languages.place(language)
        folder.mkdir(parents=True)
        for path in LESSONS[6:8]:
            lesson = read(path) if language == ENGLISH else read_in(language, path)
            nbformat.write(lesson, folder / path.name)
    pages.main(only=True)
    site = tmp_path / "site"
    names = sorted(f"{n}.html" for n in ("index", "playground", "cheatsheet", *NAMES[6:8]))
    for language in languages.KNOWN:
        folder = site / languages.place(language)
        spoken(language)
        assert sorted(path.name for path in folder.glob("*.html")) == names
        for name in names:
            page = check_page((folder / name).read_text(encoding="utf-8"))
            assert page.html["lang"] == language
            english = read_page((site / name).read_text(encoding="utf-8"))
            assert parts_of(page)["headings"] == parts_of(english)["headings"]
            others = page.header("a", hreflang=True)
            assert [a["hreflang"] for a in others] == [n for n in languages.KNOWN if n != language]
            for other in others:
                there = (folder / other["href"]).resolve()
                assert there == (site / languages.place(other["hreflang"]) / name).resolve()
                assert other["lang"] == other["hreflang"] and there.exists()
                assert other.text == languages.said_in(other["lang"]).get("English", "English")
            heads = {each["hreflang"]: each["href"] for each in page.head("link", hreflang=True)}
            assert heads.keys() == {*languages.KNOWN}
            for code, href in heads.items():
                whole = where and "https://someone.github.io/vae-lesson/"
                assert href.startswith(whole) if where else (folder / href).exists()
                assert href.endswith(f"{languages.place(code)}{name}" if where else name)
            if language != ENGLISH:
                frames = [page.header.text, page.footer.text, page.title.text]
                assert not re.search(LIKE_WORDS, " ".join(frames))
        copy = nbformat.read(folder / LESSONS[6].name, as_version=4)
        assert f'language: str = "{language}"' in str(copy.cells[1].source)


# --- the cheat sheet ------------------------------------------------------------------------------


SHEET = "cheatsheet.html"


def sheet_html() -> str:
    return pages.sheet_page(pages.SHEET.read_text(encoding="utf-8"))


def test_the_cheat_sheet_is_a_page_between_index_and_lessons():
    page = check_page(sheet_html())
    assert page.main["class"] == ["sheet"]
    parts = [section["class"] for section in page.main("section")]
    assert parts == [["symbols"], ["formulas"], ["healthy"], ["symptoms"]]
    assert "finished run" not in page.text and "to read" not in page.text
    leads_to = {a["href"] for a in page("a") if not a["href"].startswith(("#", "https:"))}
    assert leads_to <= {f"{name}.html" for name in [*NAMES, "index"]} and len(leads_to) > 6
    assert [a["href"] for a in page("a", string="All lessons")] == 2 * ["index.html"]
    assert "$" not in page.text and "\\" not in page.text and len(page("math")) > 6


@pytest.mark.parametrize("path", LESSONS, ids=NAMES)
def test_a_lesson_leads_to_pages_of_the_site_and_at_its_end_to_the_cheat_sheet(path):
    *texts, last = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    assert "](../docs/cheatsheet.md)" in last and last.index("At hand:") < last.index("Next:")
    leads_to = {a["href"] for a in read_page(pages.markdown("\n\n".join([*texts, last])))("a")}
    assert "cheatsheet.html" in leads_to
    outside = [link for link in leads_to if not link.startswith(("#", "https:"))]
    assert {link.split("#")[0] for link in outside} <= {*(f"{n}.html" for n in NAMES), SHEET}


# Numbers of the cheat sheet that no lesson's output shows, and why that is right.
NOT_SHOWN = {"20,000": "the setting n_images", "255": "white, in bytes"}


def test_the_cheat_sheets_numbers_are_those_of_the_lessons_that_its_rows_name():
    text, rows, wrong = pages.SHEET.read_text(encoding="utf-8"), 0, []
    for line in text[text.index("## Healthy") :].splitlines():
        row, _, named = line.strip("| ").rpartition("|")
        lessons = re.findall(r"notebooks/(\w+)\.ipynb", named)
        pools = [shown_numbers(read(name).cells) for name in lessons]
        rows += bool(lessons)
        for *_, claim in claims([new_markdown_cell(row)] if line.startswith("|") else []):
            shown_there = set().union(
                *(pool["%" if claim["unit"] == "%" else ""] for pool in pools)
            )
            if written(claim) not in NOT_SHOWN and not any(repeats(claim, n) for n in shown_there):
                wrong.append((written(claim), line))
    assert wrong == [] and rows > 15


PAPERS = {"A4": (210, 297), "Letter": (216, 279)}  # mm
MARGIN = 9  # mm, left and right, see style.css


@pytest.mark.lessons
@pytest.mark.skipif(labs.CHROMIUM is None, reason="no chromium here: apt-get install chromium")
@pytest.mark.parametrize("language", languages.KNOWN)
def test_the_cheat_sheet_is_one_printed_page_and_has_room_on_a_phone(language, tmp_path, spoken):
    pytest.importorskip("playwright.sync_api")
    html = sheet_html()
    if language != ENGLISH:
        spoken(language)
        html = pages.sheet_page(sheet_in(language))
    (tmp_path / "sheet.html").write_text(html, encoding="utf-8")
    # The same without its rules, to see that pages are counted.
    (tmp_path / "plain.html").write_text(html.replace('class="sheet"', ""), "utf-8")

    def n_printed(page, paper: str) -> int:
        return len(re.findall(rb"/Type\s*/Page\b", page.pdf(format=paper)))

    with labs.chromium() as browser:
        page = browser.new_page()
        page.goto((tmp_path / "plain.html").as_uri())
        assert n_printed(page, "A4") > 1
        page.goto((tmp_path / "sheet.html").as_uri())
        assert [n_printed(page, paper) for paper in PAPERS] == [1, 1]
        page.emulate_media(media="print")
        for width, _ in PAPERS.values():
            wide = int((width - 2 * MARGIN) / 25.4 * 96)
            page.set_viewport_size({"width": wide, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= wide
        for scheme in ("light", "dark"):
            for wide in (390, 1100):
                page = browser.new_page(
                    color_scheme=scheme, viewport={"width": wide, "height": 844}
                )
                page.goto((tmp_path / "sheet.html").as_uri())
                assert page.evaluate("document.documentElement.scrollWidth") <= wide
                assert labs.violations(page) == []
                higher = "all => all.filter((e) => e.scrollHeight > e.clientHeight).length"
                assert page.locator(".scrolls").evaluate_all(higher) == 0


def test_each_page_leads_to_those_around_it(monkeypatch):
    titles, names = ["a", "b & c", "d"], ["1", "2", "3"]
    monkeypatch.setattr(address, "ADDRESS", None)
    found = [read_page(pages.ways(i, titles, names))("a") for i in range(3)]
    local = [" ".join(a["href"] for a in each[:-2]) for each in found]
    assert local == ["index.html 2.html", "1.html index.html 3.html", "2.html index.html"]
    assert found[0][1].text == "b & c →"
    assert [a["href"] for a in found[0][-2:]] == ["1.ipynb", "index.html#Start"]


def test_a_page_leads_to_where_its_lesson_can_be_run_if_there_is_an_address(published):
    lesson = address.with_install(read(NAMES[0]))
    page = check_page(pages.lesson_page(lesson, pages.ways(0, ["a", "b"], ["1", "2"]))[0])
    leads_to = [a["href"] for a in page("a") if a["href"].endswith(".ipynb")]
    assert leads_to == 2 * ["1.ipynb", address.colab("1"), address.kaggle("1")]  # above and below
    assert "archive/refs" not in page.text  # the cell that fetches the package is not shown


def test_pages_only_takes_the_last_run_for_a_small_site(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VAE_LESSON_RESULTS", str(tmp_path))
    with pytest.raises(SystemExit, match=r"lacks 01_autoencoder.ipynb.*without PAGES=only"):
        pages.main(only=True)
    monkeypatch.setattr(pages, "LESSONS", LESSONS[6:8])
    for path in LESSONS[6:8]:
        shutil.copy(path, tmp_path / "site_run")
    (tmp_path / "site/0123456789ab.js").write_text("an earlier network", encoding="utf-8")
    pages.main(only=True)
    made = {path.name for path in (tmp_path / "site").iterdir()}
    lessons = {f"{name}.{kind}" for name in NAMES[6:8] for kind in ("html", "ipynb")}
    assert made == {*lessons, "index.html", "playground.html", SHEET}
    assert "hreflang" not in (tmp_path / "site/index.html").read_text(encoding="utf-8")
    copy = nbformat.read(tmp_path / "site" / LESSONS[6].name, as_version=4)
    assert not any(cell.get("outputs") for cell in copy.cells)
    says = capsys.readouterr().out
    assert "07_diagnosis.html: 0." in says and " MB in all: open " in says
    for language in OTHERS:
        assert f"{language} is left out: {tmp_path / 'site_run' / language} lacks 07_di" in says
    monkeypatch.setattr(pages, "LARGEST_SITE", 100_000)
    with pytest.raises(SystemExit, match="bytes, and a site has at most 100,000"):
        pages.main(only=True)


def test_a_page_that_is_too_large_ends_it_all(tmp_path):
    pages.write(tmp_path, "x.html", "x" * pages.LARGEST, {"0": {"data": "x" * 3_000_000}})
    with pytest.raises(SystemExit, match="a page has at most 2,000,000 bytes"):
        pages.write(tmp_path, "x.html", "x" * (pages.LARGEST + 1), {})


def test_what_is_no_value_of_pages_is_named():
    makefile = (pages.PROJECT / "Makefile").read_text()
    paths = {"PYTHONPATH": re.search(r"PYTHONPATH=(\S+) .*site/pages.py", makefile)[1]}
    call = {"cwd": pages.PROJECT, "env": os.environ | paths, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "site/pages.py", "onyl"], **call)
    assert done.returncode == 1 and "PAGES can be `only`, or nothing: got onyl" in done.stderr
