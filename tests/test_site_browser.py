"""The site's pages in a real browser: explorers that live without a kernel, and without a network.

Needs Debian's `chromium` (apt-get install chromium); without it these tests skip.
"""

import functools
import http.server
import re
import threading

import labs
import numpy as np
import pages
import pytest
import torch
from lessons import read
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from test_site import LEVELS, a_model, shown

from vae_lesson import data, explore, models
from vae_lesson.explore.base import Decoder
from vae_lesson.priors.discrete import VQVAE

if labs.CHROMIUM is None:
    pytest.skip("no chromium here: apt-get install chromium", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.lessons

FRAME = 1000 / 60  # milliseconds
WIDE, PHONE = {"width": 1200, "height": 900}, {"width": 390, "height": 844}
COMMITTED = "08_conditional"  # a lesson with much code, tables and formulas
HOSTILE = "<img src=x onerror=alert(1)></script>"
KINDS = ["latent_sliders", "compare", "direction_sliders", "latent_map", "morph", "draw_digit"]
STILL = "change_tokens"  # of which the page has a picture alone


@pytest.fixture(scope="module")
def vae():
    return a_model(latent_size=20, hidden_size=400)


@pytest.fixture(scope="module")
def site(tmp_path_factory, vae):
    """Return a folder with lesson.html, which has an explorer of each kind below its name."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (40, 28, 28), dtype=torch.uint8, generator=generator)
    labels = torch.arange(40) % 10
    images = data.Images("noise", noise, labels, noise, labels, tuple("0123456789"))
    flat = {
        "AE": a_model(models.Autoencoder, latent_size=2),
        HOSTILE: a_model(latent_size=2, hidden_size=20),
    }
    z = 0.8 * torch.randn(20, generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAE_LESSON_SITE", "1")
        explorers = [
            explore.latent_sliders(vae, z, images.test),
            explore.compare(flat, images),
            explore.direction_sliders(vae, z, {HOSTILE: (torch.ones(20) / 4, (-1, 7))}),
            explore.latent_map(flat[HOSTILE], images),
            explore.morph(vae, images.test[0], images.test[1], images.test),
            explore.draw_digit(vae, images),
            explore.change_tokens(VQVAE().eval(), images.test[0]),
        ]
        cells = [new_markdown_cell(r"# A lesson" "\n\n" r"$$\frac12 \sum_j \mu_j^2$$")]
        for name, explorer in zip([*KINDS, STILL], explorers):
            cells += [
                new_markdown_cell(f"## {name}"),
                new_code_cell(f"explore.{name}", outputs=[shown(explorer)]),
            ]
    folder = tmp_path_factory.mktemp("site")
    html = pages.lesson_page(new_notebook(cells=cells), "<nav></nav>")
    (folder / "lesson.html").write_text(html, encoding="utf-8")
    index = pages.index_page((pages.PROJECT / "README.md").read_text(encoding="utf-8"))
    (folder / "index.html").write_text(index, encoding="utf-8")
    html = pages.lesson_page(read(COMMITTED), "<nav></nav>")
    (folder / f"{COMMITTED}.html").write_text(html, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def address(site):
    """Return the site's address over http."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with labs.chromium() as browser:
        yield browser


@pytest.fixture
def opened(browser):
    """Return opened(address, **options): a page that may ask for nothing but itself; what else it
    asks for and what it complains of fails the test in the end."""
    contexts, faults = [], []

    def open_page(address: str, **options):
        context = browser.new_context(viewport=options.pop("viewport", WIDE), **options)
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()

        def route(route):
            if route.request.url == address:
                route.continue_()
            else:
                faults.append(route.request.url)
                route.abort()

        page.route("**/*", route)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture
def lesson(opened, site):
    """Return lesson(**options): the page as a file, its explorers alive."""

    def open_lesson(**options):
        page = opened((site / "lesson.html").as_uri(), **options)
        sync_api.expect(page.locator(".alive")).to_have_count(len(KINDS))
        return page

    return open_lesson


def explorer(page, kind: str):
    """Return the figure below a heading."""
    figure = page.locator(f"section:has(h2#{kind}) ~ .output figure").first
    figure.scroll_into_view_if_needed()
    return figure


def pixels(canvas) -> np.ndarray:
    """Return a canvas's pixels, grey, `(height, width)`."""
    values = canvas.evaluate(
        """canvas => [canvas.width, ...canvas.getContext('2d')
            .getImageData(0, 0, canvas.width, canvas.height).data.filter((_, i) => i % 4 === 0)]"""
    )
    return np.array(values[1:]).reshape(-1, values[0])


def dimension(figure, row: int) -> int:
    """Return the i of z[i], which the slider in this row moves."""
    return int(figure.locator("label").nth(row).inner_text()[2:-1])


class Changes:
    """Whether canvases change by what is done between `with` and its end."""

    def __init__(self, *canvases) -> None:
        self.canvases = canvases

    def __enter__(self):
        self.before = [pixels(canvas) for canvas in self.canvases]

    def __exit__(self, kind, *_):
        if kind is None:
            for canvas, before in zip(self.canvases, self.before):
                now = pixels(canvas)
                assert now.shape != before.shape or (now != before).any(), "it did not change"


@pytest.mark.parametrize("how", ["file", "http"])
@pytest.mark.parametrize("name", ["lesson.html", "index.html"])
def test_a_page_asks_for_nothing_and_complains_of_nothing(how, name, opened, site, address):
    page = opened((site / name).as_uri() if how == "file" else f"{address}/{name}")
    if name == "lesson.html":
        sync_api.expect(page.locator(".alive")).to_have_count(len(KINDS))
    page.wait_for_timeout(500)
    assert page.evaluate("performance.getEntriesByType('resource').length") == 0


def test_without_javascript_the_still_pictures_stay(opened, site):
    page = opened((site / "lesson.html").as_uri(), java_script_enabled=False)
    for kind in [*KINDS, STILL]:
        sync_api.expect(explorer(page, kind).locator("img")).to_be_visible()
        assert explorer(page, kind).locator("noscript").count() == (kind in KINDS)
    sync_api.expect(page.locator("noscript").first).to_be_visible()


def test_the_still_picture_goes_once_the_explorer_lives(lesson):
    page = lesson()
    for kind in KINDS:
        sync_api.expect(explorer(page, kind).locator(".still")).to_be_hidden()
    sync_api.expect(explorer(page, STILL).locator("img")).to_be_visible()


def test_the_page_shows_what_the_notebook_shows(lesson, vae, site):
    page = lesson()
    figure = explorer(page, "latent_sliders")
    z = np.array(figure.locator("script").evaluate("s => JSON.parse(s.textContent).z"))
    canvas = figure.get_by_role("img", name="decoded image")

    def check() -> None:
        wanted = Decoder(vae).images(z[None].astype(np.float32))[0]
        assert np.abs(pixels(canvas) - wanted.astype(int)).max() <= LEVELS

    check()
    slider, i = figure.get_by_role("slider").first, dimension(figure, 0)
    slider.focus()
    with Changes(canvas):
        for _ in range(30):
            page.keyboard.press("ArrowRight")
    z[i] = float(slider.input_value())
    check()


def test_sliders_move_by_keyboard_mouse_and_button(lesson):
    page = lesson()
    figure = explorer(page, "latent_sliders")
    canvas = figure.get_by_role("img", name="decoded image")
    strip = figure.get_by_role("img", name=f"what z[{dimension(figure, 1)}] does from")
    page.wait_for_timeout(1000)  # the filmstrips are drawn
    with Changes(canvas, strip):
        figure.get_by_role("slider").first.focus()
        for _ in range(20):
            page.keyboard.press("ArrowLeft")
        page.wait_for_timeout(1000)
    box = figure.get_by_role("slider").first.bounding_box()
    with Changes(canvas):
        page.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + box["height"] / 2)
    original = figure.get_by_role("img", name="the test image")
    for name, visible in [("Random draw", False), ("Encode a test image", True), ("Reset", False)]:
        with Changes(canvas):
            figure.get_by_role("button", name=name).click()
        sync_api.expect(original).to_be_visible(visible=visible)


def test_reset_goes_back_to_the_first_picture(lesson):
    page = lesson()
    for kind in ("latent_sliders", "direction_sliders", "latent_map"):
        figure = explorer(page, kind)
        canvas = figure.get_by_role("img", name="decoded image")
        before = pixels(canvas)
        for name in ("Random draw", "Random draw", "Reset"):
            figure.get_by_role("button", name=name).click()
        assert (pixels(canvas) == before).all()


def test_a_map_moves_by_click_drag_finger_and_arrow_keys(lesson):
    page = lesson(has_touch=True)
    figure = explorer(page, "latent_map")
    canvas = figure.get_by_role("img", name="decoded image")
    plane = figure.get_by_role("application")
    box = plane.bounding_box()

    def at(x: float, y: float) -> tuple[float, float]:
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    with Changes(canvas):
        page.mouse.click(*at(0.2, 0.3))
    with Changes(canvas):
        page.touchscreen.tap(*at(0.8, 0.3))
    with Changes(canvas):
        page.mouse.move(*at(0.3, 0.5))
        page.mouse.down()
        page.mouse.move(*at(0.7, 0.8), steps=6)
        page.mouse.up()
    before = figure.locator("output").inner_text()
    with Changes(canvas):
        page.keyboard.press("Shift+ArrowLeft")
    assert figure.locator("output").inner_text() != before
    background = plane.locator("img")
    source = background.get_attribute("src")
    figure.get_by_role("radio", name="decoded").check()
    sync_api.expect(background).not_to_have_attribute("src", source)
    assert labs.pixels(page, background)  # it can be decoded


def test_compared_maps_move_together(lesson):
    page = lesson()
    figure = explorer(page, "compare")
    box = figure.get_by_role("application").last.bounding_box()
    with Changes(*figure.locator("canvas.decoded").all()):
        page.mouse.click(box["x"] + 0.8 * box["width"], box["y"] + 0.2 * box["height"])
    one, two = figure.locator("output").all_inner_texts()
    assert one == two != "z = (0.00, 0.00)"


def test_a_morph_goes_from_one_image_to_the_other(lesson):
    page = lesson()
    figure = explorer(page, "morph")
    canvas = figure.get_by_role("img", name="decoded image")
    film = figure.get_by_role("img", name="the whole path")
    figure.get_by_role("slider", name="from start to end").focus()
    with Changes(canvas):
        for _ in range(10):
            page.keyboard.press("ArrowRight")
    with Changes(canvas, film):
        figure.get_by_role("radio", name="slerp").check()
    with Changes(canvas, film, figure.get_by_role("img", name="the image at the start")):
        figure.get_by_role("button", name="Another pair").click()


VERDICT = re.compile(r"^−ELBO .* of 40 test images. (Ordinary|Strange|Too easy)\.$")


def drawn(page) -> tuple:
    """Return the drawing pad's figure, its pad, and what the page makes of what is on it."""
    figure = explorer(page, "draw_digit")
    made = [
        figure.get_by_role("img", name=name, exact=True)
        for name in ("the drawing as the network sees it", "decoded image", "reconstructions")
    ]
    return figure, figure.get_by_role("application"), made


def test_a_digit_is_drawn_by_mouse_finger_and_keyboard(lesson):
    page = lesson(has_touch=True)
    figure, pad, made = drawn(page)
    verdict, code = figure.locator("p"), figure.locator(".bars")
    says, words = verdict.inner_text(), code.get_attribute("aria-label")
    assert VERDICT.match(says) and words.startswith("code: z[")

    def check_news() -> None:
        """The verdict follows the picture."""
        nonlocal says, words
        page.wait_for_timeout(500)
        assert verdict.inner_text() != says and VERDICT.match(verdict.inner_text())
        assert code.get_attribute("aria-label") != words
        says, words = verdict.inner_text(), code.get_attribute("aria-label")

    figure.get_by_role("button", name="Clear").click()
    sync_api.expect(verdict).to_have_text("Draw a digit on the black pad.")
    assert code.get_attribute("aria-label") == "no code yet"
    assert pixels(made[0]).max() == 0 and pixels(made[1]).min() == 240
    box = pad.bounding_box()
    with Changes(made[0], made[1], pad.locator("canvas").first):
        page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.2 * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.8 * box["height"], steps=8)
        page.mouse.up()
    check_news()
    with Changes(*made):
        page.touchscreen.tap(box["x"] + 0.9 * box["width"], box["y"] + 0.2 * box["height"])
        check_news()
    with Changes(*made):
        for key in (" ", *5 * ["ArrowLeft"], *3 * ["ArrowUp"], " "):
            page.keyboard.press(key)
        check_news()
    with Changes(*made):
        figure.get_by_role("button", name="Put a test image on it").click()
        check_news()


def test_the_page_shows_of_a_drawing_what_the_notebook_shows(lesson, vae):
    _, _, (seen, decoded, _) = drawn(lesson())
    image = torch.from_numpy(pixels(seen).astype(np.uint8))
    (wanted,) = Decoder(vae).images(vae.encode(data.to_float(image[None]))[0].numpy())
    assert np.abs(pixels(decoded) - wanted.astype(int)).max() <= LEVELS


def test_clear_ends_a_stroke(lesson):
    page = lesson()
    figure, pad, _ = drawn(page)
    pad.focus()
    page.keyboard.press(" ")
    figure.get_by_role("button", name="Clear").evaluate("button => button.click()")
    page.keyboard.press("ArrowRight")
    columns = np.flatnonzero(pixels(pad.locator("canvas").first).any(axis=0))
    assert 0 < len(columns) < 7 and columns.min() > 10  # what came after it alone


def test_the_keyboard_alone_reaches_every_part(lesson):
    page = lesson()
    parts = ".alive :is(input, button, [role=application])"
    seen = set()
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    for _ in range(200):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate(
                f"[...document.querySelectorAll({parts!r})].indexOf(document.activeElement)"
            )
        )
    radios = page.locator(".alive input[type=radio]:not(:checked)")  # by the arrow keys of theirs
    assert len(seen - {-1}) == page.locator(parts).count() - radios.count()


def test_every_part_has_a_name(lesson):
    page = lesson()
    for role in ("slider", "button", "radio", "application", "img"):
        for part in page.get_by_role(role).all():
            name = part.evaluate(
                "e => e.ariaLabel || e.alt || e.labels?.[0]?.textContent || e.textContent"
            )
            assert len(name.strip()) > 1, role
    figure = explorer(page, "latent_sliders")
    assert figure.get_by_role("slider", name="z[0]", exact=True).get_attribute("aria-valuetext")


def test_a_key_changes_the_picture_within_a_frame(lesson):
    page = lesson()
    page.wait_for_timeout(2000)  # the filmstrips are drawn
    figure = explorer(page, "latent_sliders")
    figure.get_by_role("slider").first.focus()
    labs.watch_canvas(figure.locator("canvas.decoded"))
    times = [labs.key_to_picture(page, "ArrowRight") for _ in range(20)]
    assert np.median(times) < FRAME


def test_a_move_of_the_pen_changes_the_picture_within_a_frame(lesson):
    _, pad, _ = drawn(lesson())
    times = pad.evaluate(
        """pad => {
            const press = (key) => {
                const before = performance.now();
                pad.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
                return performance.now() - before; // it has drawn at once
            };
            press(' ');
            return Array.from({length: 40}, (_, i) => press(i % 20 < 10 ? 'ArrowUp' : 'ArrowLeft'));
        }"""
    )
    print(f"a move of the pen to the picture: {np.median(times):.1f} ms, at most {max(times):.1f}")
    assert np.median(times) < FRAME


def test_a_phone_has_room_for_everything(lesson):
    page = lesson(viewport=PHONE, is_mobile=True, has_touch=True)
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    figure = explorer(page, "latent_sliders")
    box = figure.get_by_role("slider").first.bounding_box()
    with Changes(figure.get_by_role("img", name="decoded image")):
        page.touchscreen.tap(box["x"] + 0.9 * box["width"], box["y"] + box["height"] / 2)


def test_a_text_is_shown_as_it_is_written(lesson):
    page = lesson()
    sync_api.expect(explorer(page, "compare").get_by_text(HOSTILE).first).to_be_visible()
    sync_api.expect(explorer(page, "direction_sliders").get_by_text(HOSTILE)).to_be_visible()
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["lesson.html", "index.html", f"{COMMITTED}.html"])
def test_axe_finds_no_violation(name, scheme, opened, site):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = opened((site / name).as_uri(), color_scheme=scheme)
    page.wait_for_timeout(1500)
    levels = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
    found = axe.Axe().run(page, options={"runOnly": {"type": "tag", "values": levels}})
    violations = [
        (violation["id"], [node["html"][:200] for node in violation["nodes"]])
        for violation in found.response["violations"]
    ]
    assert violations == []
