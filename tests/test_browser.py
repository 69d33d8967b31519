"""The lessons as a learner sees them in a real browser: in JupyterLab, and as pages of the site.
What explorers do there is in test_explorers_browser.py.

Needs Debian's `chromium` (apt-get install chromium); without it these tests skip.
"""

import io
import re
import shutil

import labs
import nbformat
import numpy as np
import pages
import pytest
from lessons import LESSONS, NAMES, read, with_few_images
from PIL import Image

if labs.CHROMIUM is None:
    pytest.skip("no chromium here: apt-get install chromium", allow_module_level=True)
expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = pytest.mark.lessons

# The lessons with most explorers, small and offline: what is tested is the page, not the training.
RUN = ["01_autoencoder", "02_vae", "03_latent_space", "04_anomaly"]
WITHOUT_EXPLORER = ["05_likelihood", "07_diagnosis"]
SMALL = "\ndataset, epochs, hidden_size = 'digits', 4, 64"


# --- JupyterLab -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Start JupyterLab on a small copy of each lesson in RUN, and the committed ones in committed/;
    return its address."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "committed").mkdir()
    for path in LESSONS:
        shutil.copy(path, folder / "committed")
    for name in RUN:
        notebook = with_few_images(name)
        for cell in notebook.cells:
            if "parameters" in cell.metadata.get("tags", []):
                cell.source += SMALL
        nbformat.write(notebook, folder / f"{name}.ipynb")
    with labs.jupyterlab(folder) as address:
        yield address


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    faults = labs.faults(page)
    yield page
    page.close()
    assert faults == []


def explorers(page, name: str):
    """Give the outputs of each cell of a lesson that shows an explorer, in view."""
    lines = [line for cell in read(name).cells for line in cell.source.splitlines()]
    calls = [line for line in lines if re.match(r"(\w+ = )?explore\.", line)]
    assert calls
    for call in calls:
        labs.show(page, call)
        yield page.locator(".jp-CodeCell", has_text=call).first.locator(".jp-OutputArea-output")


@pytest.mark.parametrize("name", RUN)
def test_lesson_runs_without_an_error_and_its_explorers_are_alive(name, page, lab):
    labs.open_notebook(page, lab, f"{name}.ipynb")
    labs.run_all(page)
    for outputs in explorers(page, name):
        explorer = outputs.locator(".vae-explorer")
        expect(explorer.get_by_role("img").first).to_be_visible()
        expect(explorer.get_by_role("alert")).to_be_hidden()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITHOUT_EXPLORER])
def test_committed_lesson_shows_its_explorers_without_a_kernel(name, page, lab):
    labs.open_notebook(page, lab, f"committed/{name}.ipynb")
    for outputs in explorers(page, name):
        picture = outputs.locator("img").first
        picture.wait_for(timeout=20_000)
        assert picture.evaluate("img => img.naturalWidth") > 200
    assert page.get_by_text("model not found").count() == 0


# --- the site -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return a folder with the index, and a committed lesson of much code, tables and formulas."""
    folder = tmp_path_factory.mktemp("site")
    pages.write(folder, "lesson.html", *pages.lesson_page(read("02_vae"), "<nav></nav>"))
    readme = (pages.PROJECT / "README.md").read_text(encoding="utf-8")
    index = pages.index_page(readme, {name: pages.questions(read(name)) for name in NAMES})
    pages.write(folder, "index.html", index, {})
    return folder


@pytest.mark.parametrize("width", [1200, 390], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["index.html", "lesson.html"])
def test_a_page_asks_for_nothing_has_room_and_is_for_everybody(name, scheme, width, browser, site):
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 844})
    faults, asked = labs.faults(page), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((site / name).as_uri())
    page.wait_for_load_state("networkidle")
    outside = {url for url in asked if not url.startswith(("data:", "blob:"))}
    assert outside == {page.url} and faults == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert labs.violations(page) == []
    # What is clipped would be scrolled: a formula a pixel or two higher than its box.
    higher = "all => all.filter((e) => e.scrollHeight > e.clientHeight).map((e) => e.textContent)"
    assert page.locator(".scrolls, pre").evaluate_all(higher) == []
    page.close()


def test_code_and_diagrams_are_not_broken_on_a_phone_and_the_keyboard_scrolls_them(browser, site):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto((site / "lesson.html").as_uri())
    diagram = page.locator("pre", has_text="blocked:")
    assert diagram.bounding_box()["height"] < 60  # two lines
    for _ in range(100):
        page.keyboard.press("Tab")
        if diagram.evaluate("e => e === document.activeElement"):
            break
    expect(diagram).to_be_focused()
    page.keyboard.press("ArrowRight")
    labs.eventually(lambda: diagram.evaluate("e => e.scrollLeft") > 0)
    page.close()


def test_a_brace_is_as_long_as_what_it_is_under_without_a_font_for_mathematics(browser, tmp_path):
    body = pages.markdown(r"$$\underbrace{aaaaaaaaaa}_{b}$$")
    alone = "math { font-family: Stretchy, serif; }\n</style>"
    html = pages.page("", body, "", {}).replace("</style>", alone)
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    formula = page.locator("munder munder")

    def is_long() -> bool:
        grey = Image.open(io.BytesIO(formula.screenshot())).convert("L")
        return bool((np.asarray(grey)[-6:] < 160).any(axis=0).mean() > 0.9)

    labs.eventually(is_long)
    page.close()
