"""A training step as one CUDA graph.

At this size the GPU is done with a kernel before Python has launched the next. A graph launches all
kernels of a step at once; it is recorded once, with fixed addresses, and replayed.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vae_lesson.running import processes

WARM_UP = 3  # steps before the recording: what is set up at first use must be set up by then


def graphed(step: Callable[..., Tensor], generator: torch.Generator) -> Callable[..., Tensor]:
    """Return the step as a CUDA graph where one pays, on a GPU in a single process; else itself."""
    on_gpu = generator.device.type == "cuda"
    return GraphedStep(step, generator) if on_gpu and processes.world()[1] == 1 else step


class GraphedStep:
    """Calls step(*batch) -> sums, from the fourth call on as a graph, with the same result.

    `step` must work on the device alone, and draw its noise from `generator`. Batches of another
    size than the first are stepped without the graph, and so is everything if recording fails.
    The sums that are returned are overwritten by the next call.
    """

    def __init__(self, step: Callable[..., Tensor], generator: torch.Generator) -> None:
        self._step, self._generator = step, generator
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
        if self._calls <= WARM_UP:
            return self._on_a_side_stream()
        if self._graph is None:
            self._record()
            if self._failed:
                return self._step(*batch)
        self._graph.replay()
        return self._sums

    def _on_a_side_stream(self) -> Tensor:
        """Step without a graph, on a stream of its own, as recording will."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            sums = self._step(*self._batch)
        torch.cuda.current_stream().wait_stream(stream)
        return sums

    def _record(self) -> None:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        try:
            with torch.cuda.graph(graph):  # records, and runs nothing
                self._sums = self._step(*self._batch)
            self._graph = graph
        except RuntimeError as error:
            self._failed = True
            reason = str(error).splitlines()[0]
            print(f"No CUDA graph, so a step costs more than it could: {reason}")
