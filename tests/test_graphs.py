"""graphs: when a step is taken eagerly, recorded and replayed. The GPU's own tests: test_train."""

import contextlib

import pytest
import torch

from vae_lesson.running import graphs


class Stream:
    def wait_stream(self, stream):
        pass


class FakeGraph:
    """Stands for a CUDA graph: it runs again, at the same addresses, what was recorded."""

    def __init__(self):
        self.generators, self.replays = [], 0

    def register_generator_state(self, generator):
        self.generators.append(generator)

    def replay(self):
        self.replays += 1
        self.recorded()


class Step:
    """A step that doubles an index and counts: how it was called, and what it did."""

    def __init__(self):
        self.events, self.done, self.graphs, self.recording = [], [], [], None
        self.fails = None  # what recording raises

    def __call__(self, index):
        if self.recording is None:
            self.events.append("eager")
            self.done.append(index.tolist())
            return 2 * index
        self.events.append("record")
        if self.fails:
            raise self.fails
        numbers = torch.full_like(index, -1)  # a recording runs nothing

        def recorded():
            self.events.append("replay")
            self.done.append(index.tolist())
            numbers.copy_(2 * index)

        self.recording.recorded = recorded
        return numbers


@pytest.fixture
def step(monkeypatch):
    """Return a step, and pretend to have a GPU that can record it."""
    step = Step()

    @contextlib.contextmanager
    def record(graph):
        step.recording = graph
        try:
            yield
        finally:
            step.recording = None

    def make():
        step.graphs.append(FakeGraph())
        return step.graphs[-1]

    monkeypatch.setattr(torch.cuda, "CUDAGraph", make)
    monkeypatch.setattr(torch.cuda, "graph", record)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    return step


def batch(i, size=4):
    return torch.arange(size) + 10 * i


def test_eager_first_then_recorded_once_then_replayed(step):
    generator = torch.Generator()
    graphed = graphs.GraphedStep(step, generator)
    batches = [batch(i) for i in range(7)]
    for index in batches:
        assert torch.equal(graphed(index), 2 * index)  # also that of the recording's own call
    assert step.events == ["eager"] * graphs.WARM_UP + ["record"] + ["replay"] * 4
    # Each batch once and in order: what was recorded was not stepped as well.
    assert step.done == [index.tolist() for index in batches]
    (graph,) = step.graphs
    assert graph.generators == [generator] and graph.replays == 4


def test_a_batch_of_another_size_is_stepped_without_the_graph(step):
    graphed = graphs.GraphedStep(step, torch.Generator())
    sizes = [4, 4, 1, 4, 4, 1, 4]  # two epochs, as it were
    for i, size in enumerate(sizes):
        assert torch.equal(graphed(batch(i, size)), 2 * batch(i, size))
    # The small batches do not count as warm-up, and are no reason to record again.
    assert step.events == ["eager"] * 4 + ["record", "replay", "eager", "replay"]
    assert step.done == [batch(i, size).tolist() for i, size in enumerate(sizes)]


def test_a_failed_recording_is_told_once_and_never_tried_again(step, capsys):
    step.fails = RuntimeError("operation not permitted\nwhen stream is capturing")
    graphed = graphs.GraphedStep(step, torch.Generator())
    sizes = [4, 4, 4, 4, 1, 4, 4]
    for i, size in enumerate(sizes):
        assert torch.equal(graphed(batch(i, size)), 2 * batch(i, size))
    assert step.events == ["eager"] * 3 + ["record"] + ["eager"] * 4
    assert step.done == [batch(i, size).tolist() for i, size in enumerate(sizes)]
    printed = capsys.readouterr().out
    assert printed == (
        "No CUDA graph, so a step costs more than it could: operation not permitted\n"
    )


def test_what_is_no_fault_of_the_recording_is_raised(step):
    step.fails = KeyboardInterrupt()
    graphed = graphs.GraphedStep(step, torch.Generator())
    for i in range(graphs.WARM_UP):
        graphed(batch(i))
    with pytest.raises(KeyboardInterrupt):
        graphed(batch(3))


def test_the_callers_batch_is_not_kept(step):
    graphed = graphs.GraphedStep(step, torch.Generator())
    index = batch(0)
    graphed(index)
    graphed(batch(1))
    assert torch.equal(index, batch(0))
