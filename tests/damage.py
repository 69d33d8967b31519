"""What can be wrong with a file: for the tests of models and of checkpoints."""

import os

import numpy as np
import pytest
from tiny import new

GOOD = {"kind": "VAE", "config": {}, "state": {}, "info": {}}


class Code:
    """Unpickling this makes a folder: a stand-in for anything worse."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def flipped_bit(whole):
    """Flip a bit of the first weight, which lies aligned after its entry's header."""
    model = new()
    where = whole.index(model.encoder[0].weight.detach().numpy().tobytes())
    return whole[:where] + bytes([whole[where] ^ 0x40]) + whole[where + 1 :]


DAMAGES = [
    pytest.param(lambda whole: b"", id="empty"),
    pytest.param(lambda whole: whole[: len(whole) // 2], id="half"),
    pytest.param(lambda whole: whole[:-1], id="all but a byte"),
    pytest.param(lambda whole: whole[:100], id="the beginning"),
    *[
        pytest.param(lambda whole, i=i: np.random.default_rng(i).bytes(300), id=f"random {i}")
        for i in range(5)
    ],
    pytest.param(lambda whole: b"<html>404</html>", id="html"),
    pytest.param(lambda whole: b".", id="pickle stop"),
    pytest.param(
        lambda whole: b"X\x01\x00\x00\x00\xff.",
        id="not UTF-8",
    ),
    pytest.param(flipped_bit, id="a flipped bit"),
]
