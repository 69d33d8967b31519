"""What a save leaves of widgets, and that every Jupyter server of the environment sees to it."""

import asyncio
import copy
import json
import subprocess
import sys
from types import SimpleNamespace

import environment
import nbformat
import pytest
from jupyter_server.services.contents.filemanager import FileContentsManager

from vae_lesson.teaching import reopen
from vae_lesson.teaching.reopen import STATE, STILL, VIEW, as_stills

OWN = {"vae_lesson": {"made_from": "0"}}
BARS = [
    "epoch 1:   0%|          | 0.00/5.00 [00:00<?, ?step/s]",
    "0it [00:00, ?it/s]",  # of unknown length
    " 50%|█████     | 5/10 [1:00:00<1:00:00, 720.00s/it]",
]
SLIDER = "VBox(children=(IntSlider(value=0),))"


def shown(text: str | list[str], view: bool = True, **pictures: str) -> dict:
    """Return an output as Jupyter keeps it, with or without a widget view."""
    data = {"text/plain": text} | {f"image/{kind}": pixels for kind, pixels in pictures.items()}
    if view:
        data[VIEW] = {"model_id": "one", "version_major": 2, "version_minor": 0}
    return {"output_type": "display_data", "data": data, "metadata": {"image/png": {"alt": "a 7"}}}


def saved(*outputs: dict, **metadata) -> list[dict]:
    """Return what is left of a cell's outputs; nothing else, nor what was given, has changed."""
    code = nbformat.v4.new_code_cell("1", outputs=list(outputs))
    cells = [nbformat.v4.new_markdown_cell("# A title"), code]
    content = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    before = copy.deepcopy(content)
    after = as_stills(content)
    assert content == before
    left = after["cells"][1]["outputs"]
    assert after == {**before, "cells": [cells[0], {**code, "outputs": left}]}
    nbformat.validate(nbformat.from_dict(after))
    return left


@pytest.mark.parametrize("metadata", [{}, OWN])
def test_an_explorer_becomes_its_picture_in_every_notebook(metadata):
    for text in STILL, [STILL]:  # lines, as in a file
        assert saved(shown(text, png="iVBO"), **metadata) == [shown(text, view=False, png="iVBO")]


@pytest.mark.parametrize("bar", BARS)
def test_a_bar_goes_from_a_learners_copy(bar):
    figure = shown("<Figure>", view=False, png="iVBO")
    assert saved(shown(bar), figure, **OWN) == [figure]


def test_of_a_learners_own_widget_its_text_or_picture_stays():
    assert saved(shown(SLIDER), **OWN) == [shown(SLIDER, view=False)]
    assert saved(shown(BARS[0], png="iVBO"), **OWN) == [shown(BARS[0], view=False, png="iVBO")]


@pytest.mark.parametrize("output", [shown(BARS[0]), shown(SLIDER), shown("Map()", png="iVBO")])
def test_the_widgets_of_other_notebooks_are_left_alone(output):
    assert saved(output) == [output]


@pytest.mark.parametrize("output", [shown(BARS[0]), shown(STILL, png="iVBO")])
def test_a_widget_whose_state_is_saved_is_left_alone(output):
    widgets = {STATE: {"version_major": 2, "version_minor": 0, "state": {"one": {}}}}
    assert saved(output, widgets=widgets, **OWN) == [output]
    widgets[STATE]["state"] = {"another": {}}
    assert saved(output, widgets=widgets, **OWN) != [output]


def test_other_outputs_are_left_alone():
    stream = {"output_type": "stream", "name": "stdout", "text": BARS[0]}
    error = {"output_type": "error", "ename": "E", "evalue": "", "traceback": []}
    others = [stream, error, shown("7", view=False)]
    assert saved(*others, **OWN) == others


class Connection:
    async def connect(self) -> str:
        return "connected"


def loaded(manager: FileContentsManager) -> type:
    """Load the extension into a server with this manager; return what it connects kernels by."""
    settings = {"kernel_websocket_connection_class": Connection}
    app = SimpleNamespace(settings=settings)
    reopen._load_jupyter_server_extension(SimpleNamespace(contents_manager=manager, web_app=app))
    return settings["kernel_websocket_connection_class"]


def test_small_messages_are_sent_at_once():
    heard, connection = [], loaded(FileContentsManager())()
    connection.websocket_handler = SimpleNamespace(set_nodelay=heard.append)
    assert asyncio.run(connection.connect()) == "connected" and heard == [True]


def test_a_save_runs_it_beside_the_hooks_of_others(tmp_path):
    manager, seen = FileContentsManager(root_dir=str(tmp_path)), []
    manager.pre_save_hook = lambda model, path, **_: seen.append(path)
    loaded(manager)
    manager.register_pre_save_hook(lambda model, path, **_: seen.append(path))
    explorer, trusted = shown(STILL, png="iVBO"), {"trusted": True}
    cell = nbformat.v4.new_code_cell("1", outputs=[explorer], metadata=trusted)
    content = nbformat.v4.new_notebook(cells=[cell])
    manager.save({"type": "notebook", "content": content}, "one.ipynb")
    manager.save({"type": "file", "format": "text", "content": VIEW}, "two.txt")
    assert seen == 2 * ["one.ipynb"] + 2 * ["two.txt"]
    assert VIEW not in (tmp_path / "one.ipynb").read_text()
    assert (tmp_path / "two.txt").read_text() == VIEW
    # What was trusted is trusted when it is opened again.
    (cell,) = manager.get("one.ipynb")["content"].cells
    assert cell.metadata.trusted and cell.outputs[0].data["image/png"] == "iVBO"


def test_every_server_of_this_environment_loads_it():
    (name,) = json.loads(environment.SERVER.read_text())["ServerApp"]["jpserver_extensions"]
    assert reopen._jupyter_server_extension_points() == [{"module": name}]
    heavy = "import sys, " + name + "; print(*{'torch', 'numpy', 'IPython'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
