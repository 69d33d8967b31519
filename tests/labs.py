"""JupyterLab in a real browser, for the tests and for tools/benchmark.py.

Needs Debian's `chromium` (apt-get install chromium).
"""

import ast
import contextlib
import functools
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PANEL = "window.jupyterapp.shell.currentWidget"
KERNEL = f"{PANEL}.sessionContext.session.kernel"


@contextlib.contextmanager
def jupyterlab(folder: Path, app: str = "jupyterlab"):
    """Run JupyterLab, or Notebook 7 ("notebook"), on a folder, with settings and results of its
    own; give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as home, open(Path(home) / "lab.log", "w") as log:
        options = (
            f"--no-browser --expose-app-in-browser --allow-root --notebook-dir={folder} "
            f"--port={port} --ServerApp.port_retries=0 --IdentityProvider.token= --LabApp.news_url="
        )
        own = {
            "JUPYTER_CONFIG_DIR": home,
            "JUPYTERLAB_SETTINGS_DIR": f"{home}/settings",
            "JUPYTERLAB_WORKSPACES_DIR": f"{home}/workspaces",
            "VAE_LESSON_RESULTS": f"{home}/results",
        }
        command = [sys.executable, "-m", app, *options.split()]
        process = subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=log)
        # Not urlopen, which remembers the proxies of its first call, another test's perhaps.
        ask = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

        def answers() -> bool:
            text = (Path(home) / "lab.log").read_text()
            if process.poll() is not None:
                raise RuntimeError(f"JupyterLab did not start: {text[-2000:]}")
            with contextlib.suppress(OSError):
                return bool(ask(f"{address}/api", timeout=60))
            return False

        try:
            eventually(answers)
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
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=60_000)  # as in `eventually`
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


@contextlib.contextmanager
def served(folder: Path):
    """Serve a folder's files over http; give the address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def faults(page) -> list[str]:
    """Return a list that gets what the page's own code fails at or complains of, as it happens."""
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    return faults


def violations(page, within: str | None = None) -> list:
    """Return what axe finds against the WCAG on a page, or in the elements of a selector alone."""
    from axe_playwright_python.sync_playwright import Axe

    levels = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
    context = within and {"include": [[within]]}
    # Chromium (from 130) and Firefox focus what scrolls, and only that; axe wants a tabindex too.
    rules = {"scrollable-region-focusable": {"enabled": False}}
    options = {"runOnly": {"type": "tag", "values": levels}, "rules": rules}
    found = Axe().run(page, context, options)
    return [
        (violation["id"], [node["html"][:200] for node in violation["nodes"]])
        for violation in found.response["violations"]
    ]


def open_notebook(page, lab: str, path: str) -> None:
    page.goto(f"{lab}/lab?reset")
    page.wait_for_function("() => window.jupyterapp && window.jupyterapp.shell", timeout=60_000)
    page.evaluate(
        """async path => {
            const app = window.jupyterapp;
            await app.restored;
            const panel = await app.commands.execute(
                'docmanager:open', {path, factory: 'Notebook'});
            await panel.context.ready;
        }""",
        path,
    )
    page.wait_for_function(  # cells come one after the other
        f"""path => {PANEL}.context?.path === path
            && {PANEL}.content.widgets.length === {PANEL}.content.model.cells.length""",
        arg=path,
        timeout=60_000,
    )


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


def run_in_kernel(page, code: str) -> None:
    """Start code in the page's kernel, as a cell does."""
    page.evaluate(f"code => {{ {KERNEL}.requestExecute({{code}}); }}", code)


def in_kernel(page, expression: str) -> object:
    """Return the value of an expression in the page's kernel."""
    asked = f"{KERNEL}.requestExecute({{code: '', user_expressions: {{value}}}})"
    done = page.evaluate(f"async value => (await {asked}.done).content", expression)
    return ast.literal_eval(done["user_expressions"]["value"]["data"]["text/plain"])


def pixels(canvas) -> np.ndarray:
    """Return a canvas's pixels, grey, `(height, width)`."""
    values = canvas.evaluate(
        """canvas => [canvas.width, ...canvas.getContext('2d')
            .getImageData(0, 0, canvas.width, canvas.height).data.filter((_, i) => i % 4 === 0)]"""
    )
    return np.array(values[1:]).reshape(-1, values[0])


def on(element, x: float, y: float) -> tuple[int, int]:
    """Return the pixel of the screen at a place on an element, (0, 0) to (1, 1)."""
    box = element.bounding_box()
    return round(box["x"] + x * box["width"]), round(box["y"] + y * box["height"])


def touch(element, *places: tuple[float, float], finger: bool = False) -> None:
    """Drag over places on an element, or click or tap on one, with the mouse or a finger."""
    page, (first, *others) = element.page, [on(element, *place) for place in places]
    if finger:
        send = page.context.new_cdp_session(page).send
        for step, at in [("Start", [first]), *(("Move", [each]) for each in others), ("End", [])]:
            points = [{"x": x, "y": y} for x, y in at]
            send("Input.dispatchTouchEvent", {"type": f"touch{step}", "touchPoints": points})
        return
    page.mouse.move(*first)
    page.mouse.down()
    for place in others:
        page.mouse.move(*place, steps=6)
    page.mouse.up()


def eventually(check) -> None:
    """Wait until a check neither fails nor is False: on a busy machine that takes its time."""
    deadline = time.monotonic() + 60
    while True:
        try:
            assert check() in (None, True)
            return
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def show(page, text: str) -> None:
    """Scroll to the cell that holds `text`, which makes JupyterLab render it."""
    page.evaluate(
        """async text => {
            const notebook = window.jupyterapp.shell.currentWidget.content;
            const index = notebook.widgets.findIndex(
                cell => cell.model.sharedModel.getSource().includes(text));
            if (index < 0) throw new Error(`no cell has ${text}`);
            notebook.activeCellIndex = index;
            await notebook.scrollToItem(index, 'start');
        }""",
        text,
    )


def watch(canvas) -> None:
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
    page.wait_for_function("() => window.changes.length > 0")
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
