"""Paired timings, `make bench`: each figure beside what it is compared with, in one run.

    python tests/benchmark.py [sliders] [browser]

Timings differ from run to run and machine to machine: the ratios are what counts.
"""

import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import labs
import nbformat
import torch
from jupyter_client.manager import start_new_kernel

from vae_lesson.lesson import Table

# --- one slider move, in the kernel ---------------------------------------------------------------

# Runs in a kernel, where widgets have a front end to talk to. The moves of the two ways alternate
# in blocks, so that a slow moment of the machine meets both.
SLIDER_MOVES = """
%matplotlib inline
import json, time
import ipywidgets as widgets
import matplotlib.pyplot as plt
import torch
from vae_lesson import explore
from vae_lesson.models import VAE

torch.manual_seed(0)
vae = VAE(20).eval()

def draw(**z):
    with torch.no_grad():
        image = vae.decode_mean(torch.tensor([list(z.values())])).reshape(28, 28)
    plt.figure(figsize=(2.24, 2.24), dpi=100)  # 224 pixels
    plt.imshow(image, cmap="gray", vmin=0, vmax=1)
    plt.axis("off")
    plt.show()

usual = widgets.interactive(
    draw, **{f"z{j}": widgets.FloatSlider(min=-3, max=3, step=0.05) for j in range(20)}
)
ours = explore.latent_sliders(vae)
display(usual, ours)

def move(slider, n, start):
    times = []
    for i in range(start, start + n):
        begin = time.perf_counter()
        slider.value = (i % 100) / 20 - 2.5
        times.append(1000 * (time.perf_counter() - begin))
    return times

times = {"usual": [], "ours": []}
for block in range(6):  # the first block is the warm-up
    for name, slider in [("usual", usual.children[0]), ("ours", ours.sliders[0])]:
        taken = move(slider, 40, 40 * block + 1)
        if block:
            times[name] += taken
begin = time.perf_counter()
ours._draw_strips()
times["strips"] = [1000 * (time.perf_counter() - begin)]
print("RESULT" + json.dumps(times))
"""


def slider_moves() -> Table:
    """Time one slider move in the kernel: interact with matplotlib, and ours."""
    times = _in_a_kernel(SLIDER_MOVES)
    usual, ours = (statistics.median(times[name]) for name in ("usual", "ours"))
    return Table(
        ["one slider move in the kernel, 20 latents, 224 px", "median ms", "10% to 90%", "ratio"],
        [
            ["interact, matplotlib", usual, _spread(times["usual"]), 1.0],
            ["explore.latent_sliders", ours, _spread(times["ours"]), usual / ours],
            ["its 20 filmstrips, once the slider rests", times["strips"][0], "", "left out above"],
        ],
    )


def _in_a_kernel(code: str) -> dict:
    import json

    manager, client = start_new_kernel(
        kernel_name="python3", cwd=str(Path(__file__).parent), stderr=subprocess.DEVNULL
    )
    printed = []

    def keep(message) -> None:
        content = message["content"]
        if message["msg_type"] == "stream":
            printed.append(content["text"])
        elif message["msg_type"] == "error":
            raise RuntimeError("\n".join(content["traceback"]))

    try:
        client.execute_interactive(textwrap.dedent(code), timeout=120, output_hook=keep)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    (line,) = [x for x in "".join(printed).splitlines() if x.startswith("RESULT")]
    return json.loads(line.removeprefix("RESULT"))


# --- in a real browser ----------------------------------------------------------------------------

EXPLORERS = """
import torch
from vae_lesson import explore
from vae_lesson.models import VAE

torch.manual_seed(0)
vae, vae_2d = VAE(20).eval(), VAE(2).eval()
"""


def in_the_browser() -> Table | str:
    """Time what a learner sees: from the press of a key to the changed picture, and dragging."""
    if labs.CHROMIUM is None:
        return "In the browser: left out, there is no chromium here (apt-get install chromium)."
    cells = [EXPLORERS, "explore.latent_sliders(vae)", "explore.latent_map(vae_2d)"]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(notebook, Path(folder) / "explorers.ipynb")
        with labs.jupyterlab(Path(folder)) as address, labs.chromium() as browser:
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            labs.open_notebook(page, address, "explorers.ipynb")
            labs.run_all(page)
            for call, handle, track in [
                (cells[1], ".noUi-handle", ".noUi-target"),
                (cells[2], ".vae-plane", ".vae-plane"),
            ]:
                labs.show(page, call)
                cell = page.locator(".jp-CodeCell", has_text=call)
                cell.locator(".vae-picture img").wait_for()
                labs.watch(cell.locator(".vae-picture img"))
                cell.locator(handle).first.focus()
                keys = (["ArrowRight"] * 10 + ["ArrowLeft"] * 10) * 2
                times = [labs.key_to_picture(page, key) for key in keys]
                box = cell.locator(track).first.bounding_box()
                updates = labs.updates_while_dragging(page, box)
                rows.append([call, statistics.median(times), _spread(times), updates])
    return Table(
        [
            "in JupyterLab, Chromium",
            "key to picture, median ms",
            "10% to 90%",
            "pictures a second while dragging",
        ],
        rows,
    )


# --------------------------------------------------------------------------------------------------


def _spread(times: list[float]) -> str:
    tenths = statistics.quantiles(times, n=10)
    return f"{tenths[0]:.2f} to {tenths[-1]:.2f}"


def machine() -> str:
    """Say what this is measured on."""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("torch", "ipywidgets", "anywidget", "jupyterlab")
    )
    cpu = platform.processor() or platform.machine()
    if sys.platform == "linux":
        listed = subprocess.run(["lscpu"], capture_output=True, text=True).stdout.splitlines()
        cpu = next((x.split(":", 1)[1].strip() for x in listed if x.startswith("Model name")), cpu)
    return (
        f"{os.cpu_count()} cores of {cpu}, {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, {versions}"
    )


PARTS = {"sliders": slider_moves, "browser": in_the_browser}


def main(names: list[str]) -> None:
    if unknown := set(names) - set(PARTS):
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    print(machine(), "\n")
    for name in names or PARTS:
        print(PARTS[name](), "\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
