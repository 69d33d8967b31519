"""What can be wrong with a file: for the tests of models and of checkpoints."""

import os

import numpy as np
import pytest
from tiny import new

# A model's file; each test spoils one entry.
GOOD = {"kind": "VAE", "config": new().config, "state": new().state_dict(), "info": {}}


class Code:
    """Unpickling this makes a folder: a stand-in for anything worse."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def flipped_bit(content):
    """Flip a bit of the first weight, which lies aligned after its entry's header."""
    model = new()
    where = content.index(model.encoder[0].weight.detach().numpy().tobytes())
    return content[:where] + bytes([content[where] ^ 0x40]) + content[where + 1 :]


def half(content):
    return content[: len(content) // 2]


DAMAGES = [
    half,
    flipped_bit,
    pytest.param(lambda content: b"", id="empty"),
    pytest.param(lambda content: content[:-1], id="all but a byte"),
    pytest.param(lambda content: np.random.default_rng(0).bytes(300), id="random"),
    pytest.param(lambda content: b"<html>404</html>", id="html"),
    pytest.param(lambda content: b".", id="pickle stop"),
    pytest.param(lambda content: b"X\x01\x00\x00\x00\xff.", id="not UTF-8"),
]
