"""What is saved reopens as still pictures: an extension of the Jupyter server.

Without its kernel a widget reads "model not found", even with its picture beside it. So the file
gets the picture alone, however it is saved, and the page that is open keeps what it has.
`vae_lesson.json`, beside this file, has every Jupyter server of the environment load it.
It also hastens what explorers are answered by.
"""

import re

VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
STILL = "the explorer, as a still picture"  # an explorer as plain text
BAR = re.compile(r"\[\d+:\d\d")  # tqdm's, as plain text: "  0%|          | 0/10 [00:00<?, ?it/s]"


def as_stills(content: dict) -> dict:
    """Return a notebook without the widgets that nothing will draw once their kernel is gone.

    Explorers become pictures in every notebook. In the learner's copy of a lesson bars go too, and
    of the learner's own widgets their text or picture stays.
    """
    metadata = content.get("metadata", {})
    own = "vae_lesson" in metadata  # see vae_lesson.teaching.copies
    drawn = metadata.get("widgets", {}).get(STATE, {}).get("state", {})

    def kept(output: dict) -> dict | None:
        data = output.get("data", {})
        # Lines or one string: both are notebooks.
        text, picture = "".join(data.get("text/plain", "")), "image/png" in data
        if VIEW not in data or data[VIEW].get("model_id") in drawn:
            return output
        if own and not picture and BAR.search(text):
            return None
        if own or (picture and text == STILL):
            return {**output, "data": {name: data[name] for name in data if name != VIEW}}
        return output

    def still(cell: dict) -> dict:
        outputs = map(kept, cell.get("outputs", []))
        return {**cell, "outputs": [output for output in outputs if output is not None]}

    cells = [still(cell) if "outputs" in cell else cell for cell in content.get("cells", [])]
    return {**content, "cells": cells}


def before_saving(model: dict, **_) -> None:
    """Make stills of what a contents manager is about to write."""
    if model["type"] == "notebook" and model.get("content"):
        model["content"] = as_stills(model["content"])


def _jupyter_server_extension_points() -> list[dict]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(server) -> None:
    server.contents_manager.register_pre_save_hook(before_saving)
    settings = server.web_app.settings

    class AtOnce(settings["kernel_websocket_connection_class"]):
        """Small messages are sent at once: else a slider's picture waits up to 40 ms for the
        browser's acknowledgement of the message before it (Nagle's algorithm)."""

        async def connect(self):
            self.websocket_handler.set_nodelay(True)
            return await super().connect()

    settings["kernel_websocket_connection_class"] = AtOnce
