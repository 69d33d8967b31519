"""The site's pages in a real browser: the index, and a committed lesson.

Explorers that live without a kernel are in test_explorers_browser.py. Needs Debian's `chromium`
(apt-get install chromium); without it these tests skip.
"""

import labs
import pages
import pytest
from lessons import read

if labs.CHROMIUM is None:
    pytest.skip("no chromium here: apt-get install chromium", allow_module_level=True)
pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.lessons

WIDTHS = {"wide": 1200, "phone": 390}
LESSON = "08_conditional"  # much code, tables and formulas


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return a folder with the index, and a lesson as it is committed."""
    folder = tmp_path_factory.mktemp("site")
    pages.write(folder, "lesson.html", *pages.lesson_page(read(LESSON), "<nav></nav>"))
    index = pages.index_page((pages.PROJECT / "README.md").read_text(encoding="utf-8"))
    pages.write(folder, "index.html", index, {})
    return folder


@pytest.fixture(scope="module")
def browser():
    with labs.chromium() as browser:
        yield browser


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["index.html", "lesson.html"])
def test_a_page_asks_for_nothing_has_room_and_is_for_everybody(name, scheme, width, browser, site):
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 844})
    faults, asked = labs.faults(page), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((site / name).as_uri())
    page.wait_for_load_state("networkidle")
    assert {url for url in asked if not url.startswith("data:")} == {page.url} and faults == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert labs.violations(page) == []
    page.close()
