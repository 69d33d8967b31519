"""graphs: which batches a graph gets, and what is done without one. A GPU's tests: test_train."""

import contextlib
import warnings

import pytest
import torch
from pretended import pretended
from tiny import IMAGES, new

from vae_lesson import losses, train
from vae_lesson.running import graphs

SECOND = torch.device("cuda", 1)


class Graph:
    """Stands for a CUDA graph: it runs again, at the same addresses, what was recorded."""

    def register_generator_state(self, generator):
        pass

    def replay(self):
        assert torch.cuda.current == SECOND
        self.run()


class Generator(torch.Generator):
    """One of the second GPU, that knows whether it is spoilt by a recording."""

    device, spoilt = SECOND, False

    def clone_state(self):
        return Generator()

    def graphsafe_set_state(self, other):
        self.spoilt = other.spoilt


class Stream:
    """A stream of a GPU, and what it waited for."""

    def __init__(self, device=None):
        self.device = device

    def wait_stream(self, stream):
        pass


class Cuda:
    """Stands for torch.cuda on a machine with two GPUs, of which the first is the current one."""

    CUDAGraph, Stream = Graph, Stream

    def __init__(self):
        self.current, self.stream_now, self.mode = torch.device("cuda", 0), Stream(), 0
        self.default_generators = [Generator(), Generator()]

    @contextlib.contextmanager
    def device(self, device):
        before, self.current = self.current, device
        yield
        self.current = before

    @contextlib.contextmanager
    def stream(self, stream):
        before, self.stream_now = self.stream_now, stream
        try:
            yield
        finally:
            self.stream_now = before

    def current_stream(self):
        return self.stream_now

    def get_sync_debug_mode(self):
        return self.mode

    def set_sync_debug_mode(self, mode):
        self.mode = mode


class Step:
    """A step that adds up a batch; it can be recorded, unless it `fails` or `waits`."""

    def __init__(self):
        self.how, self.graph, self.fails, self.waits = [], None, None, False

    def __call__(self, *batch):
        if self.waits and torch.cuda.mode == "warn":
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
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
    step, cuda = Step(), Cuda()

    @contextlib.contextmanager
    def record(graph, stream):
        """As torch does: after an error it ends badly, and leaves its stream and generators."""
        assert cuda.current == SECOND and stream is cuda.stream_now and stream.device == SECOND
        step.graph = graph
        try:
            yield
        except BaseException:
            generators = cuda.default_generators[1], step.generator
            cuda.stream_now, generators[0].spoilt, generators[1].spoilt = Stream(), True, True
            raise RuntimeError("operation failed due to a previous error during capture") from None
        finally:
            step.graph = None

    cuda.graph = record
    monkeypatch.setattr(torch, "cuda", cuda)
    yield step
    graphs.side_stream.cache_clear()


SIZES = [4, 4, 1, 4, 4, 1, 4]  # of two epochs, as it were


def sums_are_right(step, sizes=SIZES):
    """Take a step with batches of two tensors, of these sizes, each of other numbers."""
    step.generator = Generator()
    graphed = graphs.GraphedStep(step, step.generator)
    batches = [(torch.arange(size) + i, 100 * torch.arange(size)) for i, size in enumerate(sizes)]
    sums = [sum(batch) for batch in batches]
    before = torch.cuda.stream_now
    assert all(torch.equal(graphed(*batch), right) for batch, right in zip(batches, sums))
    # The caller's own tensors are not written to.
    assert all(torch.equal(sum(batch), right) for batch, right in zip(batches, sums))
    assert torch.cuda.stream_now is before and torch.cuda.mode == 0
    assert not step.generator.spoilt and not torch.cuda.default_generators[1].spoilt


def test_every_batch_is_stepped_once_those_of_another_size_without_the_graph(step):
    sums_are_right(step)
    # The small ones do not count as warm-up, and the recording is no step.
    assert step.how == ["step"] * 4 + ["replay", "step", "replay"]


def test_where_recording_fails_all_steps_are_taken_without_a_graph_and_a_line_says_why(
    step, capsys
):
    step.fails = RuntimeError("operation not permitted\nwhen stream is capturing")
    sums_are_right(step)
    assert step.how == ["step"] * 7
    assert capsys.readouterr().out == (
        "No CUDA graph, so a step costs more than it could: RuntimeError: operation not permitted\n"
    )


def test_a_step_that_waits_is_not_recorded_and_a_line_says_where_it_waits(step, capsys):
    step.waits, step.fails = True, AssertionError("recorded")
    with warnings.catch_warnings(action="error"):
        sums_are_right(step)
    assert step.how == ["step"] * 7
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "a step waits for the GPU at `warnings.warn(" in said and "(test_graphs.py, line" in said


def test_all_trainings_on_a_gpu_share_one_stream(step):
    assert graphs.side_stream(SECOND) is graphs.side_stream(torch.device("cuda:1"))


# --- in a training, on a pretended GPU ------------------------------------------------------------


@pytest.mark.parametrize("graph", [True, False])
def test_steps_are_recorded_unless_that_is_not_wanted(graph, capsys):
    with pretended("cuda") as gpu:
        how = {"epochs": 2, "batch_size": 8, "device": "cuda", "progress": False}
        train.fit(new(), IMAGES, **how, graph=graph)
        assert gpu.n_recorded == graph
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "look",
    [
        lambda recon: recon.sum().item() > 0,
        lambda recon: torch.distributions.Normal(recon, 1.0),  # looks at its arguments
        lambda recon: recon[recon > 0],
        lambda recon: recon + torch.zeros(1).to(recon),
    ],
)
def test_terms_that_wait_for_a_gpu_are_trained_without_a_graph(look, capsys):
    def terms(model, x, generator):
        named = losses.elbo_terms(model, x, generator)
        look(named["recon"])
        return named

    weights = []
    with pretended("cuda") as gpu:
        for each in (terms, losses.elbo_terms):
            model = new()
            train.fit(model, IMAGES, epochs=1, batch_size=8, terms=each, device="cuda")
            weights.append(torch.cat([weight.flatten() for weight in model.parameters()]).cpu())
        assert gpu.n_recorded == 1
    assert torch.equal(*weights)
    assert capsys.readouterr().out.count("No CUDA graph") == 1
