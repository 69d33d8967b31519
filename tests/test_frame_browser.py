"""What a page of the site has around its text, in a real browser: its colours, its contents, the
way to other languages, and buttons that copy code.

Needs Debian's `chromium` (apt-get install chromium); without it these tests skip.
"""

import labs
import languages
import pages
import pytest
from lessons import read, read_in, sheet_in

if labs.CHROMIUM is None:
    pytest.skip("no chromium here: apt-get install chromium", allow_module_level=True)
expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = pytest.mark.lessons

LIGHT, DARK = "rgb(255, 255, 255)", "rgb(22, 24, 27)"  # the page's, in style.css
OTHER, ITSELF = "zh-TW", "繁體中文"  # a language, and its name in itself
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 1200, "height": 800}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Serve a lesson of many sections and the cheat sheet, in two languages; give the address."""
    folder = tmp_path_factory.mktemp("site")
    (folder / OTHER).mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(languages, "built", [languages.ENGLISH, OTHER])
        for language in languages.built:
            languages.speak(language)
            lesson, sheet = read("02_vae"), pages.SHEET.read_text(encoding="utf-8")
            if language == OTHER:
                lesson, sheet = read_in(OTHER, "02_vae"), sheet_in(OTHER)
            ways = pages.ways(1, list("abc"), list("123"))
            html, _ = pages.lesson_page(lesson, ways, "lesson.html")
            pages.write(folder, f"{languages.place(language)}lesson.html", html, {})
            sheet = pages.sheet_page(sheet).replace("cheatsheet.html", "sheet.html")
            pages.write(folder, f"{languages.place(language)}sheet.html", sheet, {})
        languages.speak(languages.ENGLISH)
    with labs.served(folder) as address:
        yield address


@pytest.fixture
def context(browser):
    """Give what opens pages that share their storage, and see that they have nothing to complain
    of."""
    context, faults = browser.new_context(color_scheme="dark", viewport=WIDE), []
    context.on("weberror", lambda error: faults.append(str(error.error)))
    yield context
    context.close()
    assert faults == []


def background(page) -> str:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_colours_are_the_systems_until_they_are_chosen_and_then_on_every_page(context, site):
    page, other = context.new_page(), context.new_page()
    for each in (page, other):
        each.goto(f"{site}/lesson.html")
    button = page.locator("#colours")
    seen = [(button.inner_text(), background(page))]
    for _ in range(3):
        button.click()
        seen.append((button.inner_text(), background(page)))
    system = ("◐ system colours", DARK)
    # The first press is seen.
    assert seen == [system, ("○ light", LIGHT), ("● dark", DARK), system]
    button.press("Enter")
    labs.eventually(lambda: background(other) == LIGHT)  # also where a page is open already
    code = "getComputedStyle(document.querySelector('.highlight .k, .highlight .kn')).color"
    image = "getComputedStyle(document.querySelector('img')).filter"
    assert (page.evaluate(code), page.evaluate(image)) == ("rgb(0, 128, 0)", "none")
    page.goto(f"{site}/sheet.html")
    assert (page.locator("#colours").inner_text(), background(page)) == ("○ light", LIGHT)
    page.locator("#colours").click()
    page.go_back()
    labs.eventually(
        lambda: (page.locator("#colours").inner_text(), background(page)) == ("● dark", DARK)
    )
    assert (page.evaluate(code), page.evaluate(image)) == ("rgb(255, 123, 114)", "brightness(0.85)")
    page.emulate_media(media="print")
    assert (page.evaluate(code), page.evaluate(image)) == ("rgb(0, 128, 0)", "none")
    expect(page.locator("#colours")).to_be_hidden()


def test_a_page_is_never_painted_in_other_colours_than_the_chosen_ones(context, site):
    page = context.new_page()
    page.goto(f"{site}/sheet.html")
    page.locator("#colours").click()
    # The style comes behind it in the head; nothing is painted before that.
    early = "document.addEventListener('readystatechange', () => (window.early ??= "
    early += "getComputedStyle(document.documentElement).colorScheme))"
    page.add_init_script(early)
    page.goto(f"{site}/sheet.html")
    assert page.evaluate("window.early") == "light"


@pytest.mark.parametrize("scheme, shown", [("light", LIGHT), ("dark", DARK)])
def test_without_javascript_the_colours_are_the_systems(scheme, shown, browser, site):
    page = browser.new_page(color_scheme=scheme, java_script_enabled=False)
    page.goto(f"{site}/sheet.html")
    assert background(page) == shown
    expect(page.locator("#colours")).to_be_hidden()
    page.close()


def test_colours_can_be_chosen_where_nothing_is_kept(context, site):
    page = context.new_page()
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no'); } })"
    )
    page.goto(f"{site}/sheet.html")
    page.locator("#colours").click()
    assert background(page) == LIGHT


def test_the_contents_stand_beside_a_wide_lesson_and_mark_where_one_is(context, site):
    page = context.new_page()
    page.goto(f"{site}/lesson.html")
    contents, main = page.locator(".contents"), page.locator("main")
    links, marked = contents.locator("a"), contents.locator("[aria-current]")
    expect(marked).to_have_count(0)
    before = main.bounding_box()
    assert contents.bounding_box()["x"] + contents.bounding_box()["width"] <= before["x"]
    for i in (2, 5, 1):
        links.nth(i).press("Enter")
        expect(marked).to_have_text(links.nth(i).inner_text())
        assert contents.bounding_box()["y"] == 0  # in view
    page.evaluate("scrollTo(0, 1e9)")
    expect(marked).to_have_text(links.last.inner_text())
    page.evaluate("scrollTo(0, 0)")
    expect(marked).to_have_count(0)
    page.set_viewport_size(NARROW)
    expect(links.first).to_be_hidden()
    assert (
        contents.bounding_box()["y"] + contents.bounding_box()["height"] <= main.bounding_box()["y"]
    )
    contents.locator("summary").press("Enter")
    expect(links.first).to_be_visible()
    page.emulate_media(media="print")
    expect(contents).to_be_hidden()


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_a_page_does_not_move_while_it_loads(size, context, site):
    page = context.new_page()
    page.set_viewport_size(size)
    page.goto(f"{site}/lesson.html")
    page.wait_for_load_state("networkidle")
    shifts = """() => new Promise((resolve) => new PerformanceObserver((list) => resolve(
        list.getEntries().reduce((sum, shift) => sum + shift.value, 0)
    )).observe({ type: "layout-shift", buffered: true }))"""
    none = "() => new Promise((resolve) => setTimeout(resolve, 500, 0))"
    assert page.evaluate(f"() => Promise.race([({shifts})(), ({none})()])") < 0.02


def test_code_is_copied_by_the_pointer_and_the_keyboard(context, site):
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(f"{site}/lesson.html")
    code = page.locator(".highlight").first
    copy = code.get_by_role("button")
    for press in (lambda: copy.press("Enter"), copy.click):
        page.evaluate("navigator.clipboard.writeText('')")
        press()
        expect(copy).to_have_text("Copied")
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == code.locator("pre").inner_text().rstrip() != ""
        expect(copy).to_have_text("Copy")
    assert labs.violations(page) == []


def test_the_switch_leads_to_the_same_place_in_the_other_language(context, site):
    page = context.new_page()
    page.goto(f"{site}/lesson.html")
    ids = page.locator("h2[id], h3[id]").evaluate_all("all => all.map((each) => each.id)")
    place = ids[len(ids) // 2]
    page.goto(f"{site}/lesson.html#{place}")
    page.get_by_role("link", name=ITSELF).press("Enter")
    page.wait_for_url(f"{site}/{OTHER}/lesson.html#{place}")
    assert page.evaluate("document.documentElement.lang") == OTHER
    heading = page.locator(f"[id='{place}']")
    labs.eventually(lambda: -1 < heading.bounding_box()["y"] < 200)
    page.locator("#colours").click()  # what is chosen holds in both
    page.evaluate("location.hash = ''")
    page.locator(".contents a").nth(1).click()
    there = page.evaluate("location.hash")
    assert there == "#" + page.locator("h2").nth(1).get_attribute("id")
    with context.expect_page() as opened:
        page.get_by_role("link", name="English").click(button="middle")
    opened.value.wait_for_url(f"{site}/lesson.html{there}")
    assert background(opened.value) == LIGHT
    page.goto(f"{site}/{OTHER}/sheet.html")
    page.get_by_role("link", name="English").click()
    page.wait_for_url(f"{site}/sheet.html")


def test_the_buttons_speak_the_language_of_the_page(context, site):
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(f"{site}/{OTHER}/lesson.html")
    said = languages.said_in(OTHER)
    colours = page.locator("#colours")
    for text in ("○ light", "● dark", "◐ system colours"):
        colours.click()
        assert colours.inner_text() == said[text]
    copy = page.locator(".highlight .copy").first
    assert copy.text_content() == said["Copy"]
    copy.press("Enter")
    expect(copy).to_have_text(said["Copied"])
    expect(page.locator("#kept")).to_contain_text(said["Show all"])


@pytest.mark.parametrize("name", ["lesson", "sheet"])
@pytest.mark.parametrize("width", [1280, 390], ids=["wide", "phone"])
def test_another_language_has_room(width, name, context, site):
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 844})
    for folder in ("", f"{OTHER}/"):
        page.goto(f"{site}/{folder}{name}.html")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        # Each on one line, and none on another.
        around = page.locator("header > nav > a, header > .language, #colours").all()
        boxes = [each.bounding_box() for each in around]
        for i, one in enumerate(boxes):
            assert 20 < one["height"] < 40
            for other in boxes[:i]:
                apart = [
                    one[x] >= other[x] + other[size] or other[x] >= one[x] + one[size]
                    for x, size in (("x", "width"), ("y", "height"))
                ]
                assert any(apart)
    assert labs.violations(page) == []
