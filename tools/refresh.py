"""Run lessons in place and clean them: `python tools/refresh.py notebooks/*.ipynb`.

What is committed keeps its outputs (GitHub shows them), and nothing that is dead without a kernel
or belongs to one machine: see `cleaned`.
"""

import base64
import copy
import io
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
import numpy as np
from nbclient import NotebookClient
from PIL import Image
from traitlets.config import Config

from vae_lesson.teaching.reopen import STILL, VIEW

# For a kernel that is run headless: it warns of a connection that is not encrypted.
ENCRYPTED = Config({"KernelManager": {"transport_encryption": "auto"}})


def cleaned(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a copy without widget views and state, frozen bars, or traces of the run's machine.

    A widget with a static twin keeps the picture; one without (a progress bar) goes. Of what an
    output says about itself, the alternative text of its picture stays.
    """
    notebook = copy.deepcopy(notebook)
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    # By its extension `jupyter nbconvert --to script` names what it writes.
    language = {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"}
    notebook.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": language})
    for cell in notebook.cells:
        tags, folded = cell.metadata.get("tags"), cell.metadata.get("jupyter", {})
        folded = {"jupyter": {"source_hidden": True}} if folded.get("source_hidden") else {}
        cell.metadata = nbformat.from_dict(({"tags": tags} if tags else {}) | folded)
        if cell.cell_type != "code":
            continue
        kept = []
        for output in cell.outputs:
            if output.output_type in ("display_data", "execute_result"):
                if VIEW in output.data:
                    if "image/png" not in output.data:
                        continue
                    del output.data[VIEW]
                    output.data["text/plain"] = STILL
                if "image/png" in output.data:
                    output.data["image/png"] = smaller(output.data["image/png"])
                alt = output.metadata.get("image/png", {}).get("alt")
                output.metadata = nbformat.from_dict({"image/png": {"alt": alt}} if alt else {})
            elif output.output_type == "stream" and re.search(r"\d+%\|", output.text):
                continue  # a bar in plain text
            kept.append(output)
        cell.outputs = kept
    return notebook


def smaller(encoded: str) -> str:
    """Return the same pixels, in base64, without an alpha channel that says nothing, and grey ones
    as grey: half the bytes of most figures."""
    image = Image.open(io.BytesIO(base64.b64decode(encoded)))
    mode, pixels = image.mode, np.asarray(image)
    if mode == "RGBA" and (pixels[..., 3] == 255).all():
        mode = "RGB"
    if mode == "RGB" and (pixels[..., :1] == pixels[..., 1:3]).all():
        mode = "L"
    if mode == image.mode:
        return encoded
    image = image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def main(paths: list[str]) -> None:
    """Run and clean each lesson, in order, with results of their own: no old model gets in."""
    with tempfile.TemporaryDirectory() as results:
        os.environ["VAE_LESSON_RESULTS"] = results
        for path in map(Path, paths):
            refresh(path)


def executed(path: Path) -> nbformat.NotebookNode:
    """Run a lesson and return it."""
    print(path, flush=True)
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        store_widget_state=False,
        config=ENCRYPTED,
    )
    client.execute()
    return notebook


def refresh(path: Path) -> None:
    notebook = executed(path)
    printed = "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", []))
    if "Using the offline default" in printed:
        sys.exit(f"{path}: the data set could not be had. Nothing was written.")
    part = path.with_suffix(".part")
    nbformat.write(cleaned(notebook), part)
    part.replace(path)  # a failed run above leaves the committed file as it was
    for cell in notebook.cells:
        if "picture" in cell.metadata.get("tags", []):  # the one that the README shows
            png = next(
                o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})
            )
            path.with_name("picture.png").write_bytes(base64.b64decode(png))


if __name__ == "__main__":
    main(sys.argv[1:])
