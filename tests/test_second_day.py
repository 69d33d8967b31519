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
sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.lessons

NAME = "lesson.ipynb"
# What an explorer is to Jupyter, whatever it looks like: a widget with its picture in one bundle,
# which the kernel answers. And what else a learner's copy can hold.
CELLS = [
    f"""import base64, io, anywidget, ipywidgets, traitlets
from PIL import Image
from tqdm.auto import tqdm

class Explorer(anywidget.AnyWidget):
    _esm = '''export default {{render({{model, el}}) {{
        const button = document.createElement("button");
        const show = () => {{ button.textContent = model.get("answer"); }};
        button.onclick = () => {{
            model.set("asked", model.get("asked") + 1);
            model.save_changes();
        }};
        model.on("change:answer", show);
        show();
        el.append(button);
    }}}}'''
    asked = traitlets.Int(0).tag(sync=True)
    answer = traitlets.Unicode("answer 0").tag(sync=True)

    @traitlets.observe("asked")
    def _reply(self, change):
        self.answer = f"answer {{change.new}}"

    def _repr_mimebundle_(self, **kwargs):
        data, metadata = super()._repr_mimebundle_(**kwargs)
        file = io.BytesIO()
        Image.new("L", (60, 40)).save(file, format="png")
        picture = base64.b64encode(file.getvalue()).decode()
        return data | {{"image/png": picture, "text/plain": {STILL!r}}}, metadata""",
    "Explorer()",
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
        self.file, self.asked = file, 0
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
        self.asked = 0
        sync_api.expect(self.page.get_by_text("3/3")).to_be_visible()

    def press(self) -> None:
        """Ask the kernel something by the widget, and see the answer."""
        self.asked += 1
        self.page.get_by_role("button", name="answer").click()
        sync_api.expect(self.page.get_by_text(f"answer {self.asked}")).to_be_visible()

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
        picture = self.page.locator(".jp-OutputArea-output img")
        sync_api.expect(picture).to_have_js_property("naturalWidth", 60)
        outputs = self.page.locator(".jp-OutputArea-output")
        sync_api.expect(outputs).to_have_text(["", "VBox(children=(IntSlider(value=0),))"])


@pytest.mark.parametrize("app, version", [("jupyterlab", "4"), ("notebook", "7")])
def test_what_is_saved_reopens_as_stills_and_the_open_page_lives_on(app, version, file):
    pytest.importorskip(app, minversion=version)
    with labs.jupyterlab(file.parent, app) as address, labs.chromium() as browser:
        first = Page(browser, address, app, file)
        first.run()
        first.press()
        for note in "once", "twice":
            first.save(note)
            first.press()
        first.page.evaluate(f"{labs.PANEL}.sessionContext.shutdown()")
        first.page.close()

        second = Page(browser, address, app, file)
        assert second.kernel != first.kernel
        second.shows_stills()
        second.run()
        second.press()
        second.save("again")
        second.press()
        second.page.close()

        third = Page(browser, address, app, file)
        assert third.kernel == second.kernel
        third.shows_stills()
