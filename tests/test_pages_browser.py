"""What a reader guesses on the lessons' pages, in a real browser: it waits, is answered, kept and
forgotten.

Needs Debian's `chromium` (apt-get install chromium); without it these tests skip.
"""

import re

import labs
import languages
import pages
import pytest
from lessons import read, read_in
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from vae_lesson import explore, models

if labs.CHROMIUM is None:
    pytest.skip("no chromium here: apt-get install chromium", allow_module_level=True)
expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = pytest.mark.lessons

LESSON, OTHER = "02_vae", "03_latent_space"
LANGUAGE = "zh-TW"
FIRST = "naive"  # the cell of the lesson's first guess
MEASURED = "9.82e-06"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return a folder with the index and two lessons, one of them in another language too."""
    folder, asked = tmp_path_factory.mktemp("site"), {}
    (folder / LANGUAGE).mkdir()
    for name in (LESSON, OTHER):
        pages.write(folder, f"{name}.html", *pages.lesson_page(read(name), "<nav></nav>"))
        asked[name] = pages.questions(read(name))
    readme = (pages.PROJECT / "README.md").read_text(encoding="utf-8")
    pages.write(folder, "index.html", pages.index_page(readme, asked), {})
    languages.speak(LANGUAGE)
    html, _ = pages.lesson_page(read_in(LANGUAGE, LESSON), "<nav></nav>")
    pages.write(folder, f"{LANGUAGE}/{LESSON}.html", html, {})
    languages.speak(languages.ENGLISH)
    return folder


@pytest.fixture
def visit(browser, site):
    """Return visit(name, **options): open a page; without options in the same window, which keeps
    what was done. No page may have a fault."""
    windows, faults = [], []

    def opened(name: str = LESSON, before: str = "", place: str = "", **options):
        if options or not windows:
            windows.append(browser.new_context(**options))
            windows[-1].add_init_script(before)
        page = windows[-1].new_page()
        faults.append(labs.faults(page))
        page.goto((site / f"{name}.html").as_uri() + place)
        return page

    yield opened
    for window in windows:
        window.close()
    assert [fault for some in faults for fault in some] == []


def guess_of(page, question: str = FIRST):
    """Return the parts of a guess: its field, buttons, what is said, and what waits for it."""
    form = page.locator(f"form[data-question={question}]")
    field, show = form.get_by_role("textbox"), form.get_by_role("button", name="Show")
    return field, show, form.get_by_role("status"), page.locator(f"[data-waits={question}]")


def check_waits(parts, waits: bool) -> None:
    assert parts.count() > 1  # the output, and what the text says of it
    for part in parts.all():
        inside = part.locator("> *").first
        expect(inside).to_be_visible(visible=not waits)


def test_a_guess_stands_beside_what_was_measured_and_is_kept_until_it_is_forgotten(visit):
    page = visit()
    field, _, said, waiting = guess_of(page)
    check_waits(waiting, True)
    page.get_by_label("Your guess: the KL after one epoch, in nats").press_sequentially("3,5")
    page.keyboard.press("Enter")
    expect(said).to_have_text(f"You guessed 3.5; measured {MEASURED}.")
    expect(said).to_be_focused()
    expect(field).to_be_hidden()
    check_waits(waiting, False)
    expect(page.locator("#kept")).to_contain_text("1 of 5 questions answered here.")
    check_waits(guess_of(page, "betas")[3], True)

    again = visit()
    expect(guess_of(again)[2]).to_have_text(f"You guessed 3.5; measured {MEASURED}.")
    check_waits(guess_of(again)[3], False)
    index = visit("index")
    row = index.get_by_role("row", name="02 · The VAE")
    expect(row).to_contain_text("1 of 5 questions")
    forget = index.get_by_role("button", name="Forget")
    index.once("dialog", lambda asked: asked.dismiss())
    forget.click()
    expect(row).to_contain_text("1 of 5 questions")
    index.once("dialog", lambda asked: asked.accept())
    forget.click()
    expect(index.locator(".done").first).to_be_hidden()
    expect(index.get_by_text("Forgotten.")).to_be_visible()
    check_waits(guess_of(visit())[3], True)


def test_what_is_guessed_in_one_language_counts_in_the_other(visit):
    page, said = visit(), languages.said_in(LANGUAGE)
    field, _, _, _ = guess_of(page)
    field.fill("3")
    field.press("Enter")
    other = visit(f"{LANGUAGE}/{LESSON}")
    form = other.locator(f"form[data-question={FIRST}]")
    told = said["You guessed {guess}; measured {measured}."]
    expect(form.get_by_role("status")).to_have_text(told.format(guess=3, measured=MEASURED))
    check_waits(other.locator(f"[data-waits={FIRST}]"), False)
    counted = said["{n} of {all} questions answered here."]
    expect(other.locator("#kept")).to_contain_text(counted.format(n=1, all=5))
    form = other.locator("form[data-question=betas]")
    form.get_by_role("textbox").fill("x")
    form.get_by_role("textbox").press("Enter")
    wrong = said["“{typed}” is no number: write it like 0.3."].format(typed="x")
    expect(form.get_by_role("status")).to_have_text(wrong)
    form.get_by_role("button", name=said["Show"]).click()
    expect(form.get_by_role("status")).to_have_text(
        re.compile(re.escape(said["Measured {measured}."]).replace(r"\{measured\}", ".+"))
    )
    expect(visit().locator("#kept")).to_contain_text("2 of 5 questions")


TYPED = {
    **{"3": "3", "-0.5": "-0.5", "−0,5": "-0.5", "+1e-7": "1e-7", ".5": "0.5", "5.": "5"},
    **{"1,000": "1000", "12,345.5": "12345.5", "1,5": "1.5", "0,125": "0.125", "1,0000": "1"},
    **{"81%": "0.81", "81 %": "0.81", " 3 ": "3", "1e3": "1000"},
}
NONE = ["abc", "1,5,3", "0x10", "1 000", "3 nats", "Infinity", "1e999", "-", "NaN", "<b>"]


def test_numbers_are_understood_as_people_write_them(visit):
    page = visit()
    field, _, said, waiting = guess_of(page)
    for typed in NONE:
        field.fill(typed)
        field.press("Enter")
        expect(said).to_have_text(f"“{typed}” is no number: write it like 0.3.")
        expect(field).to_be_focused()
    field.fill(" ")
    page.get_by_role("button", name="Guess").first.click()
    expect(said).to_have_text("Type a number, or press Show.")
    check_waits(waiting, True)
    page.on("dialog", lambda asked: asked.accept())
    for typed, number in TYPED.items():
        field.fill(typed)
        field.press("Enter")
        expect(said).to_have_text(f"You guessed {number}; measured {MEASURED}.")
        page.get_by_role("button", name="Forget").click()
        expect(field).to_have_value("")
        expect(said).to_have_text("")


def test_what_is_shown_or_unfolded_counts_and_a_lesson_can_be_done(visit):
    page = visit(OTHER)
    count = page.locator("#kept")
    _, show, said, waiting = guess_of(page, "clouds")
    show.focus()
    page.keyboard.press("Enter")
    expect(said).to_have_text("Measured 0.269.")
    expect(said).to_be_focused()
    check_waits(waiting, False)
    answers = page.locator("details[data-question]")
    answers.nth(1).locator("summary").click()
    expect(count).to_contain_text("2 of 9 questions")
    page.reload()
    expect(answers.nth(1)).to_have_attribute("open", "")
    expect(answers.nth(0)).not_to_have_attribute("open", "")
    page.get_by_role("button", name="Show all").click()
    expect(count).to_contain_text("9 of 9 questions")
    expect(count.locator("span")).to_be_focused()
    expect(page.get_by_role("button", name="Show all")).to_be_hidden()
    for part in page.locator("[data-waits]").all():
        expect(part).to_be_visible()
    index = visit("index")
    expect(index.get_by_role("row", name="03 · ")).to_contain_text("✓ all 9 questions")
    expect(index.get_by_role("row", name="02 · ").locator(".done")).to_be_hidden()
    page.once("dialog", lambda asked: asked.accept())
    page.get_by_role("button", name="Forget").click()
    expect(count).to_contain_text("0 of 9 questions")
    expect(answers.nth(1)).not_to_have_attribute("open", "")
    check_waits(waiting, True)


def test_without_javascript_and_in_print_all_is_there(visit):
    bare, printed = visit(java_script_enabled=False), visit(viewport={"width": 700, "height": 900})
    printed.emulate_media(media="print")
    for page in (bare, printed):
        assert page.locator("[data-waits]").count() == 9
        for part in page.locator("[data-waits] > *").all():
            expect(part).to_be_visible()
        expect(page.locator(".guess").first).to_be_hidden()
        expect(page.locator("#kept")).to_be_hidden()


def test_what_is_looked_for_in_hidden_text_is_shown(visit):
    page = visit(place="#:~:text=told%20only%20to%20look")
    check_waits(guess_of(page)[3], False)
    expect(guess_of(page)[2]).to_have_text(f"Measured {MEASURED}.")


def test_an_explorer_that_waited_lives(visit, site, monkeypatch):
    monkeypatch.setenv("VAE_LESSON_SITE", "1")
    explorer = explore.latent_sliders(models.VAE(latent_size=2, hidden_size=16).eval())
    bundle, more = explorer._repr_mimebundle_()
    said = [new_output("stream", text="a: 1.\n")]
    cells = [
        new_markdown_cell("# A lesson"),
        new_code_cell("guess = ...  # your guess: a\nlesson.answer(guess, 1, 'a')", outputs=said),
        new_code_cell(outputs=[new_output("display_data", bundle, metadata=more)]),
    ]
    html, weights = pages.lesson_page(new_notebook(cells=cells), "<nav></nav>")
    pages.write(site, "explorer.html", html, weights)
    page = visit("explorer")
    explorer, show = page.locator(".vae-explorer"), page.get_by_role("button", name="Show").nth(1)
    expect(explorer.locator("canvas").first).to_be_hidden()
    show.click()
    canvas = explorer.locator("canvas").first
    expect(canvas).to_be_visible()
    before = labs.pixels(canvas)
    explorer.get_by_role("slider").first.focus()
    page.keyboard.press("End")
    labs.eventually(lambda: (labs.pixels(canvas) != before).any())


REFUSED = "Object.defineProperty(window, 'localStorage', {get() { throw new Error('no'); }});"


@pytest.mark.parametrize("spoilt", ["[3", "null", "7", '"x"', "[]", '{"02_vae": "x"}'])
def test_where_the_storage_is_spoilt_a_page_begins_anew(visit, spoilt):
    kept = f"localStorage['vae-lesson'] ??= {spoilt!r};"
    for name in ("index", LESSON):
        page = visit(name, before=kept, locale="en") if name == "index" else visit(name)
        expect(page.locator(".guess, table").first).to_be_visible()
    check_waits(guess_of(page)[3], True)


def test_where_the_storage_is_refused_a_page_works(visit):
    page = visit(before=REFUSED, locale="en")
    field, _, said, waiting = guess_of(page)
    field.fill("3")
    field.press("Enter")
    expect(said).to_have_text(f"You guessed 3; measured {MEASURED}.")
    check_waits(waiting, False)
    check_waits(guess_of(visit())[3], True)
    expect(visit("index").locator(".done").first).to_be_hidden()


@pytest.mark.parametrize("width", [1280, 390], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_guesses_are_for_everybody(visit, scheme, width):
    page = visit(color_scheme=scheme, viewport={"width": width, "height": 844})
    field, *_ = guess_of(page)
    field.fill("a")
    field.press("Enter")
    other, *_ = guess_of(page, "train")
    other.fill("25")
    other.press("Enter")
    assert labs.violations(page) == []
    for target in page.locator(":is(.guess, #kept) :is(input, button):visible").all():
        box = target.bounding_box()
        assert box["height"] >= 24 and box["width"] >= 24
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    index = visit("index")
    assert labs.violations(index, "table") == labs.violations(index, "#kept") == []
    assert index.evaluate("document.documentElement.scrollWidth") <= width
