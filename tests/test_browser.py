"""The lessons as a learner sees them: JupyterLab in a real browser.

Needs Debian's `chromium` (apt-get install chromium); without it these tests skip.
"""

import ast
import contextlib
import re
import shutil

import labs
import nbformat
import pytest
from lessons import LESSONS, NAMES, read, with_few_images

if labs.CHROMIUM is None:
    pytest.skip("no chromium here: apt-get install chromium", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.lessons

# The lessons with most explorers, small and offline: what is tested is the page, not the training.
RUN = ["01_autoencoder", "02_vae", "03_latent_space", "04_anomaly"]
WITHOUT_EXPLORER = ["05_likelihood", "07_diagnosis"]
SMALL = "\ndataset, epochs, hidden_size = 'digits', 4, 64"

# What no lesson has: names that are HTML, explorers that the kernel is asked about by name, and
# models that wait while there is a file `model`.
HOSTILE = "<img src=x onerror=alert(1)>"
OWN = [
    f"""import pathlib, time, torch
from vae_lesson import data, explore, models
torch.manual_seed(0)
one, two, flat = models.VAE(5, 16), models.VAE(5, 16), models.VAE(2, 16)
noise, labels = torch.randint(256, (20, 28, 28), dtype=torch.uint8), torch.arange(20) % 10
images = data.Images("noise", noise, labels, noise, labels, 10 * ({HOSTILE!r},))
def wait_for(name):
    for _ in range(3000):
        if not pathlib.Path(name).exists():
            return
        time.sleep(0.01)
for model in one, flat:
    model.decode = lambda z, decode=model.decode: wait_for('model') or decode(z)""",
    f"explore.compare({{{HOSTILE!r}: one, 'b': two}}, images)",
    f"explore.direction_sliders(one, torch.zeros(5), {{{HOSTILE!r}: (torch.ones(5), 1.0)}})",
    "drawn = explore.draw_digit(one, images)\ndrawn",
    "mapped = explore.latent_map(flat, images)\nmapped",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a small copy of each lesson, and the committed ones in committed/."""
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
    own = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in OWN])
    own.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(own, folder / "own.ipynb")
    return folder


@pytest.fixture(scope="module")
def lab(folder):
    """Start JupyterLab on the folder and return its address."""
    with labs.jupyterlab(folder) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with labs.chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def lesson(browser, lab):
    """Return lesson(name): a page with that small lesson open, all of its cells run, no error."""
    pages = {}

    def run(name: str):
        if name not in pages:
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.faults = []  # what the page's own code failed at
            page.on("pageerror", lambda error: page.faults.append(str(error)))
            labs.open_notebook(page, lab, f"{name}.ipynb")
            labs.run_all(page)
            pages[name] = page
        return pages[name]

    yield run
    for name, page in pages.items():
        assert page.faults == [], name  # nor in anything that the tests did with it
        page.close()


@pytest.fixture
def explorer(lesson):
    """Return explorer(name, call): (page, the explorer's part of it, in view)."""

    def find(name: str, call: str):
        page = lesson(name)
        labs.show(page, call)
        output = page.locator(".jp-CodeCell", has_text=call).locator(".jp-OutputArea-output").first
        output.locator("img").first.wait_for(timeout=20_000)
        output.scroll_into_view_if_needed()
        return page, output

    return find


class Changes:
    """Whether pictures change by what is done between `with` and its end."""

    def __init__(self, page, *pictures) -> None:
        self.page, self.pictures = page, pictures

    def __enter__(self):
        self.before = [labs.pixels(self.page, picture) for picture in self.pictures]

    def __exit__(self, kind, *_):
        if kind is None:
            for picture, before in zip(self.pictures, self.before):
                assert labs.changed(self.page, picture, before), "the picture did not change"


@pytest.mark.parametrize("name", RUN)
def test_lesson_runs_without_an_error(name, lesson):
    page = lesson(name)
    assert page.faults == []


def test_sliders_move_by_keyboard_mouse_and_button(explorer):
    page, output = explorer("03_latent_space", "explore.latent_sliders")
    picture = output.locator(".vae-picture img").first
    handle = output.get_by_role("slider").first
    value = handle.get_attribute("aria-valuenow")
    handle.focus()
    with Changes(page, picture):
        for _ in range(5):
            page.keyboard.press("ArrowRight")
    sync_api.expect(handle).not_to_have_attribute("aria-valuenow", value)

    box = output.locator(".noUi-target").first.bounding_box()
    with Changes(page, picture, output.locator(".vae-strip img").nth(1)):
        page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2, steps=5)
        page.mouse.up()

    original = output.get_by_alt_text("the test image")
    # The test image is shown beside its own reconstruction, and goes when the code moves on.
    for button, shown in [("Random draw", 0), ("Encode a test image", 1), ("Reset", 0)]:
        with Changes(page, picture):
            output.get_by_role("button", name=button).click()
        sync_api.expect(original).to_be_visible(visible=bool(shown))


def test_compared_sliders_move_both_pictures(explorer):
    page, output = explorer("02_vae", 'explore.compare({"autoencoder": autoencoder,')
    output.get_by_role("slider").first.focus()
    with Changes(page, *output.locator(".vae-picture img").all()):
        for _ in range(10):
            page.keyboard.press("ArrowRight")
    assert output.locator(".vae-picture img").count() == 2


def test_map_moves_by_click_drag_and_arrow_keys(explorer):
    page, output = explorer("01_autoencoder", "explore.latent_map")
    picture = output.locator(".vae-picture img")
    plane = output.get_by_role("application")
    box = plane.bounding_box()
    active = page.evaluate(f"{labs.PANEL}.content.activeCellIndex")

    def at(x: float, y: float) -> tuple[float, float]:
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def point() -> list[float]:
        text = output.locator("output").inner_text()
        return [float(part) for part in text.removeprefix("z = (").rstrip(")").split(",")]

    with Changes(page, picture):
        page.mouse.click(*at(0.25, 0.25))
    with Changes(page, picture):
        page.mouse.move(*at(0.3, 0.5))
        page.mouse.down()
        page.mouse.move(*at(0.8, 0.6), steps=8)
        page.mouse.up()
    before = point()
    with Changes(page, picture):
        page.keyboard.press("Shift+ArrowLeft")  # the click has given it the focus
        page.keyboard.press("ArrowUp")
    after = point()
    assert after[0] < before[0] and after[1] > before[1]
    # JupyterLab has not taken the keys to move to another cell.
    assert page.evaluate(f"{labs.PANEL}.content.activeCellIndex") == active
    with Changes(page, plane.locator("img")):
        output.get_by_role("button", name="decoded").click()
    with Changes(page, picture):
        output.get_by_role("button", name="Reset").click()


def test_compared_maps_move_together(explorer):
    page, output = explorer("03_latent_space", "explore.compare")
    box = output.get_by_role("application").first.bounding_box()
    with Changes(page, *output.locator(".vae-picture img").all()):
        page.mouse.click(box["x"] + 0.7 * box["width"], box["y"] + 0.3 * box["height"])
    one, two = output.locator("output").all_inner_texts()
    assert one == two != "z = (0.00, 0.00)"


def test_pad_is_drawn_on_with_the_mouse_and_the_keyboard(explorer):
    page, output = explorer("04_anomaly", "explore.draw_digit")
    pad = output.get_by_role("application")
    seen = output.get_by_alt_text("the drawing as the network sees it")
    decoded = output.locator(".vae-picture img")
    bars = output.locator(".vae-bars img")
    clear = output.get_by_role("button", name="Clear")
    ink = """canvas => canvas.getContext('2d').getImageData(0, 0, 28, 28).data
        .filter((value, i) => i % 4 === 0 && value > 0).length"""
    with Changes(page, seen, decoded):
        clear.click()
    assert pad.locator("canvas").first.evaluate(ink) == 0
    box = pad.bounding_box()
    with Changes(page, seen, decoded, bars):
        page.mouse.move(box["x"] + 60, box["y"] + 60)
        page.mouse.down()
        for x, y in [(200, 60), (120, 220)]:
            page.mouse.move(box["x"] + x, box["y"] + y, steps=8)
        page.mouse.up()
    verdict = output.get_by_text("−ELBO")
    sync_api.expect(verdict).to_contain_text("nats")
    said = verdict.inner_text()
    assert pad.locator("canvas").first.evaluate(ink) > 30

    clear.click()
    sync_api.expect(output.get_by_text("Draw a digit")).to_be_visible()
    pad.focus()
    with Changes(page, seen, decoded):
        page.keyboard.press("Space")
        for key in 8 * ["ArrowUp"] + 4 * ["ArrowLeft"]:
            page.keyboard.press(key)
        page.keyboard.press("Space")
    assert "pen up, column 10, row 6" in output.locator("output").inner_text()
    assert verdict.inner_text() != said
    with Changes(page, seen, decoded, bars):
        output.get_by_role("button", name="Put a test image on it").click()
    sync_api.expect(bars).to_have_attribute("alt", re.compile(r"code: z\[\d+\] "))


@pytest.mark.parametrize(
    "call, place",
    [
        ("explore.compare", "b"),  # above its picture
        ("explore.direction_sliders", "label"),  # of the slider
        ("explore.draw_digit", ".widget-html-content"),  # the nearest images' classes
    ],
)
def test_a_learners_text_is_shown_as_it_is_written(call, place, explorer):
    _, output = explorer("own", call)
    sync_api.expect(output.locator(place, has_text=HOSTILE).first).to_be_visible()
    assert output.locator("img[src=x]").count() == 0


@pytest.fixture(params=["cell", "model"])
def lagging(request, folder):
    """Return lagging(page): while it is open a cell or the model takes its time, and after it the
    kernel has caught up."""
    kernel = f"{labs.PANEL}.sessionContext.session.kernel"

    @contextlib.contextmanager
    def lag(page):
        page.wait_for_timeout(300)  # what was done before is answered
        (folder / request.param).touch()
        if request.param == "cell":
            page.evaluate(f"() => {{ {kernel}.requestExecute({{code: 'wait_for(\"cell\")'}}) }}")
        try:
            yield
        finally:
            (folder / request.param).unlink()
        page.wait_for_timeout(700)  # what the page had kept back is sent
        page.wait_for_function(f"() => {kernel}.status === 'idle'")

    return lag


def in_kernel(page, expression: str) -> list:
    """Return the value of an expression in the page's kernel."""
    text = page.evaluate(
        f"""async value => (await {labs.PANEL}.sessionContext.session.kernel.requestExecute(
            {{code: '', user_expressions: {{value}}}}).done
        ).content.user_expressions.value.data['text/plain']""",
        expression,
    )
    return ast.literal_eval(text)


@pytest.mark.parametrize("goes_on", [False, True])
def test_clear_holds_though_the_kernel_lags_behind(goes_on, explorer, lagging):
    page, output = explorer("own", "explore.draw_digit")
    pad, clear = output.get_by_role("application"), output.get_by_role("button", name="Clear")
    box = pad.bounding_box()
    ink = """canvas => [...canvas.getContext('2d').getImageData(0, 0, 28, 28).data
        .filter((value, i) => i % 4 === 0)]"""

    def stroke(x: float) -> None:
        page.mouse.move(box["x"] + x, box["y"] + 60)
        page.mouse.down()
        page.mouse.move(box["x"] + x, box["y"] + 220, steps=12)
        page.mouse.up()

    clear.click()
    with lagging(page):
        stroke(60)
        clear.click()
        if goes_on:
            stroke(220)
    pixels = pad.locator("canvas").first.evaluate(ink)
    assert pixels == in_kernel(page, "drawn.drawing.flatten().tolist()")
    assert any(pixels) == goes_on
    assert not any(grey for i, grey in enumerate(pixels) if i % 28 < 14)  # the stroke before
    sync_api.expect(output.get_by_text("−ELBO" if goes_on else "Draw a digit")).to_be_visible()
    stroke(140)
    sync_api.expect(output.get_by_text("−ELBO")).to_be_visible()


@pytest.mark.parametrize("goes_on", [False, True])
def test_reset_holds_though_the_kernel_lags_behind(goes_on, explorer, lagging):
    page, output = explorer("own", "explore.latent_map")
    box = output.get_by_role("application").bounding_box()

    def drag(x: float) -> None:
        page.mouse.move(box["x"] + x * box["width"], box["y"] + 0.5 * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + x * box["width"], box["y"] + 0.75 * box["height"], steps=12)
        page.mouse.up()

    with lagging(page):
        drag(0.25)
        output.get_by_role("button", name="Reset").click()
        if goes_on:
            drag(0.75)
    x, y = in_kernel(page, "mapped.z.tolist()")
    assert (x > 0.5 and y < -0.5) if goes_on else (x == y == 0)
    sync_api.expect(output.locator("output")).to_have_text(f"z = ({x:.2f}, {y:.2f})")


def test_morph_goes_from_one_image_to_the_other(explorer):
    page, output = explorer("03_latent_space", "explore.morph")
    picture = output.locator(".vae-picture img")
    output.get_by_role("slider").focus()
    with Changes(page, picture):
        for _ in range(10):
            page.keyboard.press("ArrowRight")
    with Changes(page, picture, output.get_by_alt_text("the whole path")):
        output.get_by_role("button", name="slerp").click()
    with Changes(page, picture, output.get_by_alt_text("the image at the start")):
        output.get_by_role("button", name="Another pair").click()


@pytest.mark.parametrize(
    "name, call, names",
    [
        ("03_latent_space", "explore.latent_sliders", ["slider z[", "img decoded image"]),
        ("01_autoencoder", "explore.latent_map", ["application Latent map", "img decoded image"]),
        (
            "04_anomaly",
            "explore.draw_digit",
            ["application Pad", "img code: z[", "img nearest training"],
        ),
        ("03_latent_space", "explore.morph", ["slider from start to end", "img the whole path"]),
        (
            "02_vae",
            'explore.compare({"autoencoder": autoencoder,',
            ["img decoded image autoencoder", "img decoded image VAE"],
        ),
    ],
)
def test_a_screen_reader_has_words_for_every_part(name, call, names, explorer):
    page, output = explorer(name, call)
    page.wait_for_timeout(1200)  # the sliders get their names a moment after they are drawn
    said = output.evaluate(
        """output => [...output.querySelectorAll('img, [role=application], [role=slider]')]
            .filter(part => !part.parentElement.closest('[role=application]'))
            .map(part => `${part.getAttribute('role') || 'img'} `
                + (part.alt || part.getAttribute('aria-label') || ''))"""
    )
    assert all(len(words.split(" ", 1)[1]) > 3 for words in said), said
    for start in names:
        assert any(words.startswith(start) for words in said), (start, said)


def test_a_cell_run_again_and_again_leaves_nothing_behind(explorer):
    page, _ = explorer("01_autoencoder", "explore.latent_map")
    comms = f"() => {labs.PANEL}.sessionContext.session.kernel._comms.size"

    def run_cell() -> int:
        page.evaluate("window.jupyterapp.commands.execute('notebook:run-cell')")
        page.wait_for_function(
            f"() => {labs.PANEL}.sessionContext.session.kernel.status === 'idle'"
        )
        page.wait_for_timeout(300)
        return page.evaluate(comms)

    first = run_cell()
    assert first > 0
    assert [run_cell() for _ in range(6)] == 6 * [first]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITHOUT_EXPLORER])
def test_committed_lesson_shows_its_explorers_without_a_kernel(name, browser, lab):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    labs.open_notebook(page, lab, f"committed/{name}.ipynb")
    notebook = read(name)
    lines = [line for cell in notebook.cells for line in cell.source.splitlines()]
    calls = [line for line in lines if line.startswith("explore.")]
    assert calls
    for call in calls:
        first_line = call.split("\n")[0]
        labs.show(page, first_line)
        cell = page.locator(".jp-CodeCell", has_text=first_line).first
        picture = cell.locator(".jp-OutputArea-output img").first
        picture.wait_for(timeout=20_000)
        assert picture.evaluate("img => img.naturalWidth") > 200
    assert page.get_by_text("model not found").count() == 0
    page.close()
