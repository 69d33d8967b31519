"""Paired timings, `make bench`: each figure beside what it is compared with, in one run.

    make bench PARTS="[training] [seeds] [rates] [cost] [lessons] [others] [gpu] …"

Timings differ from run to run and machine to machine: the ratios are what counts.
"""

import importlib.metadata
import itertools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from unittest import mock

import labs
import nbformat
import pages  # the Makefile puts site/ on the path
import peers
import torch
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient
from refresh import executed
from torch.utils.data import TensorDataset

from vae_lesson import evaluate, train
from vae_lesson.data import to_float
from vae_lesson.models import VAE
from vae_lesson.running import graphs
from vae_lesson.running.machine import pick_device
from vae_lesson.sources import load_images
from vae_lesson.teaching.lesson import Table

# --- training, on the CPU or on a GPU -------------------------------------------------------------

BATCH = peers.BATCH


def ours(images, device, seed: int = 0, fit=train.fit_fast, **options) -> tuple[list, float]:
    """Train by `fit`; return each epoch's seconds and the final test −ELBO."""
    torch.manual_seed(seed)
    model = VAE(peers.SIZES[2], peers.SIZES[1])
    history = fit(model, images.train, seed=seed, device=device, progress=False, **options)
    seconds = [b - a for a, b in itertools.pairwise([0.0, *history.seconds])]
    return seconds, evaluate.mean_terms(model, images.test).neg_elbo


def floor(n_images: int, batch: int, device) -> float:
    """Time the matrix products of one epoch alone, forward and backward, on the same shapes."""
    pixels, hidden, latent = peers.SIZES
    shapes = [(pixels, hidden), (hidden, 2 * latent), (latent, hidden), (hidden, pixels)]
    inputs = [torch.randn(batch, a, device=device) for a, _ in shapes]
    weights = [torch.randn(b, a, device=device) for a, b in shapes]
    outputs = [torch.randn(batch, b, device=device) for _, b in shapes]
    # What Linear does: x Wᵀ forward, gᵀ x for the weights, g W for the input (not of the first).
    products = [(x, w.T) for x, w in zip(inputs, weights)]
    products += [(g.T, x) for g, x in zip(outputs, inputs)]
    products += [(g, w) for g, w in list(zip(outputs, weights))[1:]]
    results = [a @ b for a, b in products]
    start = time.perf_counter()
    for _ in range(-(-n_images // batch)):
        for (a, b), result in zip(products, results):
            torch.mm(a, b, out=result)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def training() -> str:
    """Compare the usual script's training with ours and with the matrix products alone.

    A training's time is its epochs times their median: one disturbed epoch would else decide the
    ratio. All take turns, in five rounds, so that a slow minute of the machine meets each.
    """
    device = pick_device()
    images = load_images("mnist", device=device)
    ours(replace(images, train=images.train[:6000]), device, epochs=1)  # warm-up
    rounds = 5
    usual, article, fast, floors, ends = [], [], [], [], []
    script = peers.usual_script(images, device)
    for seed in range(rounds):
        usual += [next(script) for _ in range(peers.EPOCHS // rounds)]
        article += ours(images, device, seed, train.fit, epochs=2)[0]
        seconds, end = ours(images, device, seed)
        fast += seconds
        ends.append(end)
        floors.append(floor(len(images.train), BATCH, device))
    target, end = next(script), statistics.median(ends)
    epoch = {
        "the usual script (DataLoader, BCE of sigmoids, plain Adam)": usual,
        "fit, as the article trains": article,
        "fit_fast, batch 256": fast,
        "the matrix products alone": floors,
    }
    script_epoch, fast_epoch = statistics.median(usual), statistics.median(fast)
    epochs = Table(
        [f"one epoch of {images.name}, batch {BATCH}, on {device}", "median s", "10% to 90%",
         "ratio"],
        [
            [name, statistics.median(seconds), _spread(seconds),
             script_epoch / statistics.median(seconds)]
            for name, seconds in epoch.items()
        ],
    )  # fmt: skip
    n, n_script = len(fast) // rounds, peers.EPOCHS
    reached = "reached" if end <= target else "NOT reached"
    quality = Table(
        ["to the script's quality", "test −ELBO", "epochs × median s", "ratio"],
        [
            [f"the usual script, {n_script} epochs", target, n_script * script_epoch, 1.0],
            [f"fit_fast, {n} epochs, median of {rounds} seeds: {reached}", end,
             n * fast_epoch, n_script * script_epoch / (n * fast_epoch)],
        ],
    )  # fmt: skip
    return (
        f"{epochs}\n\n{quality}\n\nLeft out of the times: loading the data, evaluation, a "
        "warm-up of an epoch on 6,000 images."
    )


def seeds() -> Table:
    """Say where the fast recipe and the article's ten epochs end, over five seeds."""
    device = pick_device()
    images = load_images("mnist", device=device)
    rows = []
    for name, fit in [("fit_fast", train.fit_fast), ("fit, 10 epochs at 1e-3", train.fit)]:
        runs = [ours(images, device, seed, fit) for seed in range(5)]
        ends = sorted(end for _, end in runs)
        took = statistics.median(sum(seconds) for seconds, _ in runs)
        rows.append([name, f"{ends[0]:.2f}", f"{ends[2]:.2f}", f"{ends[-1]:.2f}", took])
    header = [f"test −ELBO on {images.name}, five seeds", "least", "median", "greatest"]
    return Table([*header, "median s"], rows)


def rates() -> Table:
    """Compare batches and rates where those of `fit_fast` were chosen: on training images that are
    held out, the last sixth."""
    images = load_images("mnist", device="cpu")
    n = len(images.train) * 5 // 6
    held_out = replace(images, train=images.train[:n], test=images.train[n:])
    rows = []
    for batch_size, lr, from_mean in [
        (128, (5e-3, 2e-2), False),
        (128, (5e-3, 2e-2), True),
        (128, (1e-2, 1e-2), True),
        (128, (1e-2, 2e-2), True),
        (192, (6e-3, 2.4e-2), True),
        (256, (5.6e-3, 2.2e-2), True),
        (256, (8e-3, 3.2e-2), True),
        (256, (8e-3, 4.8e-2), True),
        (256, (1.6e-2, 3.2e-2), True),
        (384, (8e-3, 3.2e-2), True),
    ]:
        options = {"batch_size": batch_size, "lr": lr, "from_mean": from_mean}
        ends = [ours(held_out, "cpu", seed, **options)[1] for seed in range(3)]
        name = f"{batch_size}, {lr[0]:g} and {lr[1]:g}{'' if from_mean else ', not from the mean'}"
        rows.append([name, *map("{:.2f}".format, sorted(ends))])
    header = f"batch, encoder's and decoder's rate; −ELBO of {len(held_out.test):,} held-out images"
    return Table([f"{header}, three seeds", "least", "median", "greatest"], rows)


COST = """
import resource, sys, time
import torch
from vae_lesson.models import VAE
from vae_lesson.sources import load_images
from vae_lesson.train import fit_fast

images = load_images("mnist")
torch.manual_seed(0)
fit_fast(VAE(), images.train, epochs=1, progress=False, device="cpu")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""

IMPORT = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


def cost() -> str:
    """Say how an epoch's time grows, how much memory it takes, and what importing costs."""
    device = torch.device("cpu")
    images = load_images("mnist")

    def epoch(n_images: int, hidden: int) -> float:
        torch.manual_seed(0)
        model = VAE(peers.SIZES[2], hidden)
        part = images.train[:n_images]
        history = train.fit_fast(model, part, device=device, progress=False)
        return history.seconds[-1] / len(history)

    rows = [[f"{n:,} images", epoch(n, 400)] for n in (15_000, 30_000, 60_000)]
    rows += [[f"hidden_size {h}", epoch(30_000, h)] for h in (200, 400, 800)]
    table = Table(["one epoch of fit (hidden_size 400, 30,000 images)", "seconds"], rows)
    memory = float(_python(COST).splitlines()[-1])
    modules = "data, losses, models, train, evaluate, generation, latent, explore"
    modules += "; from vae_lesson.teaching import lesson, plots; "
    modules += "from vae_lesson.teaching.checks import vae"
    alone = statistics.median(float(_python(IMPORT.format("import torch"))) for _ in range(5))
    all_modules = IMPORT.format(f"import torch; from vae_lesson import {modules}")
    course = statistics.median(float(_python(all_modules)) for _ in range(5))
    package = IMPORT.format("import torch; from vae_lesson import data, losses, models, train")
    core = statistics.median(float(_python(package)) for _ in range(5))
    imports = Table(
        ["importing", "median s", "over torch"],
        [
            ["torch", alone, 0.0],
            ["and vae_lesson's data, models, losses, train", core, core - alone],
            ["and all of vae_lesson, with plots and widgets", course, course - alone],
        ],
    )
    peak = f"Peak memory of a process that trains on {images.name}: {memory:.0f} MB"
    return f"{table}\n\n{peak}\n\n{imports}"


def lessons() -> Table:
    """Say where a lesson's seconds go: its cells, run headless, by what they do."""
    folder = Path(__file__).parents[1] / "notebooks"
    rows = []
    with tempfile.TemporaryDirectory() as results:
        os.environ["VAE_LESSON_RESULTS"] = results
        for path in sorted(folder.glob("[0-9]*.ipynb")):
            notebook = nbformat.read(path, as_version=4)
            client = NotebookClient(notebook, timeout=900, resources={"metadata": {"path": folder}})
            client.execute()
            seconds = dict.fromkeys(["import and data", "training", "the rest"], 0.0)
            for cell in notebook.cells:
                if cell.cell_type != "code":
                    continue
                timing = cell.metadata["execution"]
                start, end = (
                    datetime.fromisoformat(timing[f"iopub.{what}"])
                    for what in ("execute_input", "status.idle")
                )
                kind = "the rest"
                if "import torch" in cell.source or "load_images(dataset" in cell.source:
                    kind = "import and data"
                elif re.search(
                    r"\bfit(_\w+)?\(|lesson\.trained\(|training\(|article\(", cell.source
                ):
                    kind = "training"
                seconds[kind] += (end - start).total_seconds()
            rows.append([path.stem, *seconds.values()])
    return Table(["seconds of a lesson", *seconds], rows)


def together() -> Table:
    """Say what two lessons at once cost each other: lesson 03 headless, alone and in pairs."""
    lesson = Path(__file__).parents[1] / "notebooks" / "03_latent_space.ipynb"
    with tempfile.TemporaryDirectory() as results:

        def start(i: int) -> subprocess.Popen:
            command = [sys.executable, "-m", "papermill", "--no-progress-bar", "-k", "python3"]
            command += ["--cwd", lesson.parent, lesson, f"{results}/{i}.ipynb"]
            return subprocess.Popen(
                command, stderr=subprocess.DEVNULL, env=os.environ | {"VAE_LESSON_RESULTS": results}
            )

        def seconds(n: int) -> float:
            begin = time.perf_counter()
            if any(process.wait() for process in [start(i) for i in range(n)]):
                raise RuntimeError("a lesson failed")
            return time.perf_counter() - begin

        seconds(1)  # trains what lesson 02 would have left
        alone, both = (statistics.median(seconds(n) for _ in range(3)) for n in (1, 2))
    return Table(
        ["lesson 03 headless, models at hand", "median s", "ratio"],
        [["alone", alone, 1.0], ["two at once, until both are done", both, both / alone]],
    )


def others() -> str:
    """Time an epoch of the usual network in other people's frameworks, on the CPU."""
    try:
        import lightning
        import pythae
    except ImportError as error:
        how = f"{sys.executable} -m pip install lightning pythae"
        return f"Other frameworks: left out, there is no {error.name} here. For them: {how}"
    images = load_images("mnist", device="cpu")
    x = to_float(images.train)
    epochs = 3
    pictures = peers.Pictures(images.train, images.train_labels)
    rows = {
        "fit": ours(images, torch.device("cpu"), fit=train.fit, epochs=epochs)[0],
        "Lightning, tensors in memory": peers.by_lightning(TensorDataset(x), epochs),
        "pythae, tensors in memory": peers.by_pythae(x, images.train_labels, epochs),
        "the usual script": [*itertools.islice(peers.usual_script(images, "cpu"), epochs)],
        "Lightning, torchvision's MNIST": peers.by_lightning(pictures, epochs),
    }
    medians = {name: statistics.median(seconds) for name, seconds in rows.items()}
    table = Table(
        [f"one epoch of {images.name}, batch {BATCH}, on the CPU", "median s", "over fit's"],
        [[name, seconds, seconds / medians["fit"]] for name, seconds in medians.items()],
    )
    versions = (importlib.metadata.version(peer.__name__) for peer in (lightning, pythae))
    return f"{table}\nlightning {next(versions)}, pythae {next(versions)}"


def gpu() -> str:
    """Time the article's training on a GPU, as graph and as plain loop, and the usual script."""
    if not torch.cuda.is_available():
        return "On a GPU: left out, there is none here. With one: make bench PARTS=gpu"
    device = torch.device("cuda")
    images = load_images("mnist", device=device)
    *usual_seconds, target = peers.usual_script(images, device)
    usual = len(usual_seconds) * statistics.median(usual_seconds)
    rows = [["the usual script, 10 epochs", target, usual, 1.0]]
    graphed = graphs.GraphedStep
    for name, step in [("graph", graphed), ("plain loop", lambda step, generator: step)]:
        graphs.GraphedStep = step
        for what, fit in [("10 epochs", train.fit), ("fit_fast", train.fit_fast)]:
            runs = [ours(images, device, seed, fit) for seed in range(5)]
            seconds = statistics.median(sum(seconds) for seconds, _ in runs)
            ends = [end for _, end in runs]
            end = f"{min(ends):.2f} to {max(ends):.2f}"
            rows.append([f"fit, {name}, {what}, 5 seeds", end, seconds, usual / seconds])
    graphs.GraphedStep = graphed
    name = torch.cuda.get_device_name()
    return (
        str(Table([f"on {name}, {images.name}", "test −ELBO", "s of training", "ratio"], rows))
        + "\nThe first seed's time holds warm-up and recording; the median leaves it out."
    )


def processes() -> str:
    """Time an epoch in one process and in several under torchrun, one thread each."""
    name = load_images("mnist").name
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        for n in [n for n in (1, 2, 4, 8) if n <= os.cpu_count()]:
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
                    *(f"--nproc-per-node={n}", "-m", "vae_lesson", "--quiet", "--restart"),
                    *("--data", name, "--epochs", "2", "--device", "cpu", "--out", folder),
                ],
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                check=True,
            )
            seconds[n] = float(re.search(r"([\d.]+) seconds of training", done.stdout)[1]) / 2
    size = sum(weight.numel() for weight in VAE().parameters()) * 4
    rows = [
        [str(n), took, seconds[1] / took, seconds[1] / took / n, f"{2 * (n - 1) / n * size:,.0f}"]
        for n, took in seconds.items()
    ]
    table = Table(
        [
            "processes, a thread each",
            "s an epoch",
            "speed-up",
            "efficiency",
            "bytes sent a step each",
        ],
        rows,
    )
    return (
        f"{table}\nA step's all-reduce adds up {size:,} bytes of gradients; as a ring each of n "
        "processes sends 2 (n - 1) / n of them."
    )


def _python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


# --- one slider move, in the kernel ---------------------------------------------------------------

# Runs in a kernel, where widgets have a front end to talk to. The moves of the two ways alternate
# in blocks, so that a slow moment of the machine meets both.
SLIDER_MOVES = """
%matplotlib inline
import json, time
import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
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

def move_usual(value):
    usual.children[0].value = value

def move_ours(value):  # as the page's message does
    z = np.zeros(20, np.float32)
    z[0] = value
    ours._answer(ours, {"do": "move", "id": "0", "controls": {"values": z.tolist()}}, [z.data])

def moves(move, n, start):
    times = []
    for i in range(start, start + n):
        begin = time.perf_counter()
        move((i % 100) / 20 - 2.5)
        times.append(1000 * (time.perf_counter() - begin))
    return times

times = {"usual": [], "ours": []}
for block in range(6):  # the first block is the warm-up
    for name, move in [("usual", move_usual), ("ours", move_ours)]:
        taken = moves(move, 40, 40 * block + 1)
        if block:
            times[name] += taken
begin = time.perf_counter()
for j in range(7):  # three at once
    codes = np.zeros((33, 20), np.float32)
    ours._answer(ours, {"do": "decode", "id": "0", "side": 64}, [codes.data])
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
from vae_lesson.sources import load_images

torch.manual_seed(0)
vae, vae_2d = VAE(20).eval(), VAE(2).eval()
images = load_images("digits")
"""


def in_the_browser() -> Table | str:
    """Time what a learner sees: from the press of a key to the changed picture, and dragging."""
    if labs.CHROMIUM is None:
        return "In the browser: left out, there is no chromium here (apt-get install chromium)."
    cells = [EXPLORERS, "explore.latent_sliders(vae)", "explore.latent_map(vae_2d, images)"]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    parts, rows = list(zip(cells[1:], ["input[type=range]", ".vae-plane"])), []

    def measure(page, name: str, explorer, part: str) -> None:
        labs.watch(explorer.get_by_role("img", name="decoded image"))
        part = explorer.locator(part).first
        part.scroll_into_view_if_needed()
        part.focus()
        keys = (["ArrowRight"] * 10 + ["ArrowLeft"] * 10) * 2
        times = [labs.key_to_picture(page, key) for key in keys]
        updates = labs.updates_while_dragging(page, part.bounding_box())
        rows.append([name, statistics.median(times), _spread(times), updates])

    with tempfile.TemporaryDirectory() as folder, labs.chromium() as browser:
        path = Path(folder) / "explorers.ipynb"
        nbformat.write(notebook, path)
        with labs.jupyterlab(Path(folder)) as address:
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            labs.open_notebook(page, address, path.name)
            labs.run_all(page)
            for call, part in parts:
                labs.show(page, call)
                measure(page, call, page.locator(".jp-CodeCell", has_text=call), part)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        with mock.patch.dict(os.environ, VAE_LESSON_SITE="1"):
            pages.write(path.parent, "explorers.html", *pages.lesson_page(executed(path), ""))
        page.goto(path.with_suffix(".html").as_uri())
        for i, (call, part) in enumerate(parts):
            figure = page.locator("figure.explorer").nth(i)
            measure(page, f"{call}, on its page of the site", figure, part)
    return Table(
        ["in Chromium", "key to picture, median ms", "10% to 90%", "pictures a second, dragging"],
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
        for name in ("torch", "torchvision", "ipywidgets", "anywidget", "jupyterlab")
    )
    cpu = platform.processor() or platform.machine()
    if sys.platform == "linux":
        listed = subprocess.run(["lscpu"], capture_output=True, text=True).stdout.splitlines()
        cpu = next((x.split(":", 1)[1].strip() for x in listed if x.startswith("Model name")), cpu)
    return (
        f"{os.cpu_count()} cores of {cpu}, {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, {versions}"
    )


PARTS = {
    "training": training,
    "seeds": seeds,
    "rates": rates,
    "cost": cost,
    "processes": processes,
    "lessons": lessons,
    "together": together,
    "others": others,
    "gpu": gpu,
    "sliders": slider_moves,
    "browser": in_the_browser,
}


def main(names: list[str]) -> None:
    if unknown := set(names) - set(PARTS):
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    print(f"{datetime.now():%Y-%m-%d}: {machine()}\n")
    for name in names or PARTS:
        print(PARTS[name](), "\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
