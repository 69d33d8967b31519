"""A learner runs a lesson, saves, shuts down and comes back: a real browser, JupyterLab and, where
it is installed, Notebook 7.

Needs Debian's `chromium` (apt-get install chromium); without it these tests skip.
"""

import json

import labs
import nbformat
import pytest

from vae_lesson.teaching.reopen import STILL, VIEW

if labs.CHROMIUM is None:
    pytest.skip("no chromium here: apt-get install chromium", allow_module_level=True)
expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = pytest.mark.lessons

NAME = "lesson.ipynb"
# What a learner's copy can hold: an explorer, progress bars, and a widget of the learner's own.
CELLS = [
    "import ipywidgets\nfrom tqdm.auto import tqdm\nfrom vae_lesson import explore, models",
    "explore.latent_sliders(models.VAE(5, 16))",
    "for _ in tqdm(range(3), desc='stays'): pass\nfor _ in tqdm(range(3), leave=False): pass",
    "ipywidgets.VBox([ipywidgets.IntSlider()])",
]


@pytest.fixture
def file(tmp_path):
    """Return a learner's copy of a lesson."""
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    kernel = {"name": "python3", "display_name": "Python 3"}
    metadata = {"kernelspec": kernel, "vae_lesson": {"made_from": "0"}}
    file = tmp_path / NAME
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), file)
    return file


class Page:
    """The learner's copy, open in a browser."""

    def __init__(self, browser, address: str, app: str, file) -> None:
        self.page = page = browser.new_page(viewport={"width": 1400, "height": 1000})
        self.file = file
        if app == "jupyterlab":
            labs.open_notebook(page, address, NAME)
        else:
            page.goto(f"{address}/notebooks/{NAME}")
            page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.content")
            page.wait_for_selector(".jp-NotebookPanel .jp-Cell")
        kernel = f"{labs.PANEL}.sessionContext?.session?.kernel"
        page.wait_for_function(f"() => {kernel}?.status === 'idle'", timeout=60_000)
        self.kernel = page.evaluate(f"{kernel}.id")

    def run(self) -> None:
        labs.run_all(self.page)
        expect(self.page.get_by_text("3/3")).to_be_visible()

    def move(self) -> None:
        """Move the explorer, and see the kernel's answer."""
        explorer = self.page.locator(".vae-explorer")
        canvas = explorer.get_by_role("img", name="decoded image")
        before = labs.pixels(canvas).tolist()
        explorer.get_by_role("button", name="Random draw").click()
        labs.eventually(lambda: labs.pixels(canvas).tolist() != before)

    def save(self, note: str) -> None:
        """Note something in the notebook and save it, without being asked anything."""
        self.page.evaluate(
            f"""note => {{
                {labs.PANEL}.context.model.sharedModel.setMetadata('note', note);
                window.saved = false;
                window.jupyterapp.commands.execute('docmanager:save')
                    .then(() => {{ window.saved = true; }});
            }}""",
            note,
        )
        self.page.wait_for_function("() => window.saved || document.querySelector('.jp-Dialog')")
        assert self.page.locator(".jp-Dialog").count() == 0
        text = self.file.read_text(encoding="utf-8")
        assert json.loads(text)["metadata"]["note"] == note
        assert VIEW not in text and STILL in text

    def shows_stills(self) -> None:
        """Look: the picture, the text of the learner's own slider, and nothing else."""
        outputs = self.page.locator(".jp-OutputArea-output")
        expect(outputs.locator("img")).to_be_visible()
        expect(outputs).to_have_text(["", "VBox(children=(IntSlider(value=0),))"])


@pytest.mark.parametrize("app, version", [("jupyterlab", "4"), ("notebook", "7")])
def test_what_is_saved_reopens_as_stills_and_the_open_page_lives_on(app, version, file):
    pytest.importorskip(app, minversion=version)
    with labs.jupyterlab(file.parent, app) as address, labs.chromium() as browser:
        first = Page(browser, address, app, file)
        first.run()
        first.move()
        for note in "once", "twice":
            first.save(note)
            first.move()
        first.page.evaluate(f"{labs.PANEL}.sessionContext.shutdown()")
        first.page.close()

        second = Page(browser, address, app, file)
        assert second.kernel != first.kernel
        second.shows_stills()
        second.run()
        second.move()
        second.save("again")
        second.move()
        second.page.close()

        third = Page(browser, address, app, file)
        assert third.kernel == second.kernel
        third.shows_stills()
