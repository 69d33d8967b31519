"""graphs: which batches a graph gets, and what is done without one. A GPU's tests: test_train."""

import contextlib

import pytest
import torch

from vae_lesson.running import graphs


class FakeGraph:
    """Stands for a CUDA graph: it runs again, at the same addresses, what was recorded."""

    def register_generator_state(self, generator):
        pass

    def replay(self):
        self.run()


class Step:
    """A step that adds up a batch; it can be recorded, unless it `fails`."""

    def __init__(self):
        self.how, self.graph, self.fails = [], None, None

    def __call__(self, *batch):
        if self.graph is None:
            self.how.append("step")
            return sum(batch)
        if self.fails:
            raise self.fails
        sums = torch.full_like(batch[0], -1)  # a recording runs nothing

        def run():
            self.how.append("replay")
            sums.copy_(sum(batch))

        self.graph.run = run
        return sums


@pytest.fixture
def step(monkeypatch):
    """Return a step, and pretend to have a GPU that can record it."""
    step = Step()

    @contextlib.contextmanager
    def record(graph):
        step.graph = graph
        try:
            yield
        finally:
            step.graph = None

    class Stream:
        def wait_stream(self, stream):
            pass

    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", record)
    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    return step


SIZES = [4, 4, 1, 4, 4, 1, 4]  # of two epochs, as it were


def sums_are_right(step, sizes):
    """Take a step with batches of two tensors, of these sizes, each of other numbers."""
    graphed = graphs.GraphedStep(step, torch.Generator())
    batches = [(torch.arange(size) + i, 100 * torch.arange(size)) for i, size in enumerate(sizes)]
    sums = [sum(batch) for batch in batches]
    assert all(torch.equal(graphed(*batch), right) for batch, right in zip(batches, sums))
    # The caller's own tensors are not written to.
    assert all(torch.equal(sum(batch), right) for batch, right in zip(batches, sums))


def test_every_batch_is_stepped_once_those_of_another_size_without_the_graph(step):
    sums_are_right(step, SIZES)
    # The small ones do not count as warm-up, and the recording is no step.
    assert step.how == ["step"] * 4 + ["replay", "step", "replay"]


def test_where_recording_fails_all_steps_are_taken_without_a_graph_and_a_line_says_why(
    step, capsys
):
    step.fails = RuntimeError("operation not permitted\nwhen stream is capturing")
    sums_are_right(step, SIZES)
    assert step.how == ["step"] * 7
    assert capsys.readouterr().out == (
        "No CUDA graph, so a step costs more than it could: operation not permitted\n"
    )
