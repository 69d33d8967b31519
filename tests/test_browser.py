"""The lessons as a learner sees them: JupyterLab in a real browser.

Needs Debian's `chromium` (apt-get install chromium); without it these tests skip.
"""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("no chromium here: apt-get install chromium", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api")

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
# Small and offline: what is tested is the page, not the training.
SMALL = "\ndataset, epochs, hidden_size = 'digits', 8, 64"
LOAD = "images = data.load_images(dataset, device=device)"
FEWER = """
import dataclasses
images = dataclasses.replace(
    images, train=images.train[:5000], train_labels=images.train_labels[:5000]
)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a small copy of each lesson, and the committed ones in committed/."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "committed").mkdir()
    for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")):
        shutil.copy(path, folder / "committed")
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if "parameters" in cell.metadata.get("tags", []):
                cell.source += SMALL
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
                cell.source = cell.source.replace(LOAD, LOAD + FEWER)
        assert any(FEWER in cell.source for cell in notebook.cells), "the loading line has changed"
        nbformat.write(notebook, folder / path.name)
    return folder


@pytest.fixture(scope="module")
def lab(folder, tmp_path_factory):
    """Start JupyterLab on the folder and return its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("home")
    log = (home / "lab.log").open("w")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser"),
            *(f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token="),
            *("--allow-root", f"--notebook-dir={folder}", "--LabApp.news_url="),
        ],
        env=os.environ
        | {
            "JUPYTER_CONFIG_DIR": str(home),
            "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
            "VAE_LESSON_RESULTS": str(home / "results"),
            # The browser needs the cores too: torch's waiting threads sleep instead of spinning.
            "OMP_WAIT_POLICY": "PASSIVE",
        },
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/api", timeout=1)
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail(f"JupyterLab did not start: {(home / 'lab.log').read_text()[-2000:]}")
        yield address
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, lab):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    yield page
    page.close()


def open_notebook(page, lab: str, path: str) -> None:
    page.goto(f"{lab}/lab?reset")
    page.wait_for_function("() => window.jupyterapp && window.jupyterapp.shell", timeout=60_000)
    page.evaluate(
        """async path => {
            const app = window.jupyterapp;
            await app.restored;
            await app.commands.execute('docmanager:open', {path, factory: 'Notebook'});
        }""",
        path,
    )
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=60_000)


def run_all(page, seconds: int = 300) -> list[dict]:
    """Run all cells and return the outputs' types and texts, from the document's own model."""
    panel = "window.jupyterapp.shell.currentWidget"
    page.wait_for_function(
        f"() => {panel}.sessionContext?.session?.kernel?.status === 'idle'", timeout=60_000
    )
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function(
        f"""() => {{
            const cells = [...{panel}.content.model.cells].filter(c => c.type === 'code');
            const idle = {panel}.sessionContext.session.kernel.status === 'idle';
            const bad = cells.some(c => c.toJSON().outputs.some(o => o.output_type === 'error'));
            return idle && (bad || cells.every(c => c.executionCount !== null));
        }}""",
        timeout=1000 * seconds,
    )
    outputs = page.evaluate(
        f"""() => [...{panel}.content.model.cells].filter(c => c.type === 'code')
            .flatMap(c => c.toJSON().outputs)"""
    )
    errors = [output for output in outputs if output["output_type"] == "error"]
    assert not errors, json.dumps(errors)[:2000]
    return outputs


def pixels(page, picture) -> str:
    """Return a digest of the picture's decoded pixels (blob addresses change without a reason)."""
    data = picture.evaluate(
        """async img => {
            // A picture that is replaced while it is read cannot be decoded: read the next one.
            for (let tries = 0; ; tries++) {
                try { await img.decode(); break; }
                catch (error) { if (tries === 20) throw error; }
                await new Promise(resolve => setTimeout(resolve, 20));
            }
            const canvas = document.createElement('canvas');
            [canvas.width, canvas.height] = [img.naturalWidth, img.naturalHeight];
            const context = canvas.getContext('2d');
            context.drawImage(img, 0, 0);
            return Array.from(context.getImageData(0, 0, canvas.width, canvas.height).data);
        }"""
    )
    return hashlib.sha256(bytes(data)).hexdigest()


def changed(page, picture, before: str, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if pixels(page, picture) != before:
            return True
        time.sleep(0.02)
    return False


def show(page, text: str) -> None:
    """Scroll to the cell that holds `text`, which makes JupyterLab render it."""
    page.evaluate(
        """async text => {
            const notebook = window.jupyterapp.shell.currentWidget.content;
            const index = notebook.widgets.findIndex(
                cell => cell.model.sharedModel.getSource().includes(text));
            notebook.activeCellIndex = index;
            await notebook.scrollToItem(index, 'start');
        }""",
        text,
    )


@pytest.mark.parametrize("name", ["01_autoencoder", "02_vae", "03_latent_space"])
def test_lesson_runs_and_its_sliders_move_the_picture(page, lab, name):
    open_notebook(page, lab, f"{name}.ipynb")
    run_all(page)
    if name == "02_vae":  # it has no sliders
        return
    show(page, "explore.latent_sliders")
    picture = page.locator(".vae-picture:visible").first
    picture.wait_for(timeout=20_000)
    picture.scroll_into_view_if_needed()
    handle = page.locator(".widget-slider .noUi-handle:visible").first
    before, value = pixels(page, picture), handle.get_attribute("aria-valuenow")
    handle.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    sync_api.expect(handle).not_to_have_attribute("aria-valuenow", value)
    assert changed(page, picture, before), "the keyboard does not move the picture"

    before = pixels(page, picture)
    box = page.locator(".widget-slider .noUi-target:visible").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    assert changed(page, picture, before), "the mouse does not move the picture"

    before = pixels(page, picture)
    page.get_by_role("button", name="Random draw").first.click()
    assert changed(page, picture, before), "a random draw does not move the picture"


@pytest.mark.parametrize("name", ["01_autoencoder", "03_latent_space"])
def test_committed_lesson_shows_pictures_without_a_kernel(page, lab, name):
    open_notebook(page, lab, f"committed/{name}.ipynb")
    show(page, "explore.latent_sliders")
    cell = page.locator(".jp-CodeCell", has_text="explore.latent_sliders").first
    picture = cell.locator(".jp-OutputArea-output img").first
    picture.wait_for(timeout=20_000)
    assert picture.evaluate("img => img.naturalWidth") > 200
    assert page.get_by_text("model not found").count() == 0
