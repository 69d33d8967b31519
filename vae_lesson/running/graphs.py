"""A training step as one CUDA graph.

At this size the GPU is done with a kernel before Python has launched the next. A graph launches all
kernels of a step at once; it is recorded once, with fixed addresses, and replayed.
"""

import functools
import linecache
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from vae_lesson.running import processes
from vae_lesson.words import _

WARM_UP = 3  # steps before the recording: what is set up at first use must be set up by then


def graphed(step: Callable[..., Tensor], generator: torch.Generator) -> Callable[..., Tensor]:
    """Return the step as a CUDA graph where one pays, on a GPU in a single process; else itself."""
    on_gpu = generator.device.type == "cuda"
    return GraphedStep(step, generator) if on_gpu and processes.world()[1] == 1 else step


class GraphedStep:
    """Calls step(*batch) -> sums, from the fourth call on as a graph, with the same result.

    `step` draws its noise from `generator`. Batches of another size than the first are stepped
    without the graph, and so is everything if a step waits for the GPU, which a recording must not,
    or if recording fails: one line says why.
    The sums that are returned are overwritten by the next call.
    """

    def __init__(self, step: Callable[..., Tensor], generator: torch.Generator) -> None:
        self._step, self._generator, self._device = step, generator, generator.device
        self._calls = 0
        self._batch = self._sums = self._graph = None
        self._failed = False

    def __call__(self, *batch: Tensor) -> Tensor:
        if self._batch is None:
            self._batch = [part.clone() for part in batch]
        if self._failed or len(batch[0]) != len(self._batch[0]):
            return self._step(*batch)
        for recorded, part in zip(self._batch, batch):
            recorded.copy_(part)
        self._calls += 1
        with torch.cuda.device(self._device):  # not every GPU is the current one
            if self._calls < WARM_UP:
                return self._on_the_side()
            if self._calls == WARM_UP:
                with noting_waits() as waits:
                    sums = self._on_the_side()
                if waits:
                    waits_at = _("a step waits for the GPU {place}").format(place=waits[0])
                    self._go_without(waits_at)
                return sums
            if self._graph is None:
                self._record()
            if self._failed:
                return self._step(*batch)
            self._graph.replay()
        return self._sums

    def _on_the_side(self) -> Tensor:
        """Step without a graph, on the stream that will record."""
        stream = side_stream(self._device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            sums = self._step(*self._batch)
        torch.cuda.current_stream().wait_stream(stream)
        return sums

    def _record(self) -> None:
        graph, stream = torch.cuda.CUDAGraph(), side_stream(self._device)
        try:
            if torch.__version__ < (2, 14):  # later ones find the generators themselves
                graph.register_generator_state(self._generator)
            # The outer `with` restores the current stream, which a failed recording does not.
            with torch.cuda.stream(stream), torch.cuda.graph(graph, stream=stream):
                self._sums = self._step(*self._batch)  # records, and runs nothing
            self._graph = graph
        except RuntimeError as error:
            cause = error.__context__ or error  # the recording's own end only says that it failed
            self._go_without(f"{type(cause).__name__}: {cause}")
            # Before torch 2.13 these go on to believe that they are recorded; a copy does not.
            for generator in (self._generator, torch.cuda.default_generators[self._device.index]):
                generator.graphsafe_set_state(generator.clone_state())

    def _go_without(self, reason: str) -> None:
        self._failed = True
        line = reason.splitlines()[0]
        print(_("No CUDA graph, so a step costs more than it could: {why}").format(why=line))


@functools.cache
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of this GPU for what is recorded: one, as cuBLAS keeps 8 to 32 MB each."""
    return torch.cuda.Stream(device)


@contextmanager
def noting_waits() -> Iterator[list[str]]:
    """Give a list of the places where what is done in the `with` waits for the GPU."""
    places, before = [], torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            torch.cuda.set_sync_debug_mode(before)
    for warning in caught:
        if "synchronizing CUDA operation" in str(warning.message):
            source = linecache.getline(warning.filename, warning.lineno).strip()
            where = _("at `{source}` ({file}, line {line})")
            values = {"file": Path(warning.filename).name, "line": warning.lineno}
            places.append(where.format(source=source, **values))
