"""JupyterLab in a real browser, for tests/test_browser.py and tests/benchmark.py.

Needs Debian's `chromium` (apt-get install chromium).
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PANEL = "window.jupyterapp.shell.currentWidget"


@contextlib.contextmanager
def jupyterlab(folder: Path):
    """Run JupyterLab on a folder, with settings and results of its own; give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as home, open(Path(home) / "lab.log", "w") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser"),
                *(f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token="),
                *("--allow-root", f"--notebook-dir={folder}", "--LabApp.news_url="),
            ],
            env=os.environ
            | {
                "JUPYTER_CONFIG_DIR": home,
                "JUPYTERLAB_SETTINGS_DIR": f"{home}/settings",
                "JUPYTERLAB_WORKSPACES_DIR": f"{home}/workspaces",
                "VAE_LESSON_RESULTS": f"{home}/results",
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            for _ in range(120):
                try:
                    urllib.request.urlopen(f"{address}/api", timeout=1)
                    break
                except OSError:
                    time.sleep(0.5)
            else:
                text = (Path(home) / "lab.log").read_text()
                raise RuntimeError(f"JupyterLab did not start: {text[-2000:]}")
            yield address
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def chromium():
    """Run a browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


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
    page.wait_for_function(
        f"() => {PANEL}.sessionContext?.session?.kernel?.status === 'idle'", timeout=60_000
    )
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function(
        f"""() => {{
            const cells = [...{PANEL}.content.model.cells].filter(c => c.type === 'code');
            const idle = {PANEL}.sessionContext.session.kernel.status === 'idle';
            const bad = cells.some(c => c.toJSON().outputs.some(o => o.output_type === 'error'));
            return idle && (bad || cells.every(c => c.executionCount !== null));
        }}""",
        timeout=1000 * seconds,
    )
    outputs = page.evaluate(
        f"""() => [...{PANEL}.content.model.cells].filter(c => c.type === 'code')
            .flatMap(c => c.toJSON().outputs)"""
    )
    errors = [output for output in outputs if output["output_type"] == "error"]
    assert not errors, json.dumps(errors)[:2000]
    return outputs


def pixels(page, picture) -> str:
    """Return a digest of the picture's decoded pixels (blob addresses change without a reason)."""
    return picture.evaluate(
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
            const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
            const digest = await crypto.subtle.digest('SHA-256', data);
            return new Uint8Array(digest).toString();
        }"""
    )


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


def watch(picture) -> None:
    """Note in the page when each new state of a picture is there, decoded: `window.changes`."""
    picture.evaluate(
        """img => {
            window.changes = [];
            const note = () => img.decode().then(
                () => window.changes.push(performance.now()), () => {});  // replaced meanwhile
            new MutationObserver(note).observe(img, {attributes: true, attributeFilter: ['src']});
        }"""
    )


def watch_canvas(canvas) -> None:
    """Note in the page when a canvas has been painted: `window.changes`."""
    canvas.evaluate(
        """canvas => {
            window.changes = [];
            const context = canvas.getContext('2d');
            const put = context.putImageData;
            context.putImageData = (...given) => {
                put.apply(context, given);
                window.changes.push(performance.now());
            };
        }"""
    )


def key_to_picture(page, key: str) -> float:
    """Press a key and return the milliseconds until the watched picture has changed."""
    page.evaluate(
        """() => {
            window.changes.length = 0;
            const note = () => { window.pressed = performance.now(); };
            document.addEventListener('keydown', note, {capture: true, once: true});
        }"""
    )
    page.keyboard.press(key)
    page.wait_for_function("() => window.changes.length > 0", timeout=5000)
    page.wait_for_timeout(250)  # rest: the filmstrips are drawn again
    return page.evaluate("() => window.changes[0] - window.pressed")


def updates_while_dragging(page, box: dict, seconds: float = 2.0) -> float:
    """Drag to and fro over a box and return the watched picture's changes a second."""
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    page.evaluate("() => { window.changes.length = 0; }")
    start, step = time.monotonic(), 0
    while time.monotonic() - start < seconds:
        step += 1
        across = abs(step % 80 - 40) / 40  # to and fro
        page.mouse.move(box["x"] + box["width"] * (0.1 + 0.8 * across), middle)
    elapsed = time.monotonic() - start
    n = page.evaluate("() => window.changes.length")
    page.mouse.up()
    return n / elapsed
