"""A lesson's cells run in this process, on few images: seconds instead of minutes."""

import ast
import contextlib
import dataclasses
import io
import re
import urllib.request
from pathlib import Path

import matplotlib.pyplot as plt
from lessons import read
from nbformat import NotebookNode

from vae_lesson import sources
from vae_lesson.data import Images

SMALL = {"epochs": 1, "latent_size": 5, "hidden_size": 32}
OWN = {
    "05": {"n_images": 20, "n_samples": 50, "paper_epochs": 1, "paper_k": 5},
    "09": {"flow_epochs": 1},
    "10": {"n_codes": 16},
    "11": {"side": 16},
}


def few(images: Images, n_train: int, n_test: int) -> Images:
    """Return a data set of the first images only."""
    return dataclasses.replace(
        images,
        train=images.train[:n_train],
        train_labels=images.train_labels[:n_train],
        test=images.test[:n_test],
        test_labels=images.test_labels[:n_test],
    )


def code_cells(name: str) -> list[NotebookNode]:
    """Return a lesson's code cells, without the one that installs."""
    cells = [cell for cell in read(name).cells if cell.cell_type == "code"]
    return [cell for cell in cells if "install" not in cell.metadata.get("tags", [])]


class Play:
    """A lesson that is being worked through: `run` a cell, get the text that it shows."""

    def __init__(self, name: str, device: str = "cpu", **parameters) -> None:
        dataset = "photos" if name > "11" else "digits"
        n_images = {"n_images": 300} if "06" <= name < "11" else {}
        self.parameters = SMALL | {"dataset": dataset, "device": device} | n_images
        self.parameters |= OWN.get(name[:2], {}) | parameters
        self.names = {"__name__": "__main__", "display": self.show}

    def show(self, value) -> None:
        if value is not None:
            print(repr(value))

    def run(self, cell: NotebookNode) -> str:
        tree = ast.parse(re.sub("^%.*$", "", cell.source, flags=re.M))
        ends_in_value = tree.body and isinstance(tree.body[-1], ast.Expr)
        last = tree.body.pop() if ends_in_value else None
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(io.StringIO()):
            exec(compile(tree, cell.id, "exec"), self.names)
            if last:
                self.show(eval(compile(ast.Expression(last.value), cell.id, "eval"), self.names))
        if "parameters" in cell.metadata.get("tags", []):
            known = {name: value for name, value in self.parameters.items() if name in self.names}
            self.names |= known
        plt.close("all")
        return shown.getvalue()


def offline(monkeypatch, folder: Path) -> None:
    """Give lessons a folder of their own for data and results, and no network."""
    for variable in ("RESULTS", "DATA", "SITE"):
        monkeypatch.setenv(f"VAE_LESSON_{variable}", str(folder))
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nothing listens: no test downloads
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the proxies


def few_images(monkeypatch, n_train: int, n_test: int) -> None:
    """Have lessons load so many images only."""
    load = sources.load_images
    monkeypatch.setattr(
        sources, "load_images", lambda *given, **how: few(load(*given, **how), n_train, n_test)
    )
