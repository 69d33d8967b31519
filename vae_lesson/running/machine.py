"""What is asked of the machine: a device, as many threads as there are free cores, the same bits.

Two processes that compute with a thread for every core wait for each other's threads at every
operation, and both take many times as long. After `prepare`, before each cell of a notebook and at
the steps of any optimizer, at most four times a second, it is looked how busy other processes keep
the cores, and the threads of torch, OpenMP and BLAS are set. The course's MLPs train to the same
bits with any number of threads, convolutions do not: for them `threads.all()` keeps all.
"""

import functools
import math
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch
from threadpoolctl import threadpool_limits
from torch.optim.optimizer import register_optimizer_step_post_hook

SECONDS = 0.25  # between two looks
CGROUP = Path("/sys/fs/cgroup")  # where Linux keeps a container's quota


@functools.cache
def prepare() -> None:
    """Share the cores with other processes, and have MKL give the same bits for any number of
    threads. Lessons (by `lesson.begin`) and the command call it, importing does nothing.

    MKL reads its wish at its first product. Without it, on Intel every product, and on AMD those
    with a side of a few numbers, such as 2-D codes, depend on how busy the machine is.
    """
    if platform.machine() in ("x86_64", "AMD64"):
        os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
    threads.sharing = True
    register_optimizer_step_post_hook(threads.adapt)
    if shell := getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)():
        shell.events.register("pre_run_cell", threads.adapt)


def to_device(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return the images on the device, or as they are if they would take half of a GPU's room."""
    room = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf
    return images.to(device) if images.nbytes < room / 2 else images


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """Return the device asked for; without one ("auto" or None) the best there is.

    Raises: ValueError if that device is not there, with those that are.
    """
    there = devices()
    if device in (None, "auto"):
        device = there[0]
    if str(device) not in there:
        raise ValueError(
            f"device {str(device)!r} is not there: choose one of auto, {', '.join(there)}"
        )
    return torch.device(device)


def devices() -> list[str]:
    """Return the names of the devices there are, the best first: CUDA, Apple's MPS, the CPU."""
    there = []
    if torch.cuda.is_available():
        there += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        there += ["mps", "mps:0"]
    return [*there, "cpu"]


class Threads:
    """The threads of this process, and what it last saw of the others."""

    def __init__(self) -> None:
        self._cores = min(len(_allowed()), _quota() or math.inf)
        self.most = max(1, min(torch.get_num_threads(), int(self._cores)))
        self.sharing = self._all = False
        self._look()

    def _look(self) -> None:
        self._wall, self._own, self._busy = time.perf_counter(), time.process_time(), _busy()

    def adapt(self, *_) -> None:
        """Take as many threads as there are free cores, at least 1."""
        wall = time.perf_counter() - self._wall
        if wall < SECONDS or self.most == 1 or self._all:
            return
        others = (_busy() - self._busy - (time.process_time() - self._own)) / wall  # in cores
        self._look()
        # Rounded: a browser's quarter of a core is no reason to give up a thread.
        self._set(min(max(round(self._cores - others), 1), self.most))

    def _set(self, n: int) -> None:
        # A library that is loaded later starts with all cores: say it again until all are free.
        if n < self.most or n != torch.get_num_threads():
            torch.set_num_threads(n)
            threadpool_limits(limits=n)

    @contextmanager
    def all(self) -> Iterator[None]:
        """Keep all threads, whatever other processes do, until the end of the `with`."""
        before, self._all = self._all, True
        if self.sharing:
            self._set(self.most)
        try:
            yield
        finally:
            self._all = before


def _quota() -> float | None:
    """Return how many cores a container may use at once, None without a limit."""
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _allowed() -> list[int]:
    """Return the numbers of the cores that this process may run on: all where it cannot be had."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _busy() -> float:
    """Return the seconds that these cores have worked, for all processes: of the container's own
    where it has a quota."""
    if _quota() is not None:
        return int((CGROUP / "cpu.stat").read_text().split()[1]) / 1e6  # usage_usec
    every = psutil.cpu_times(percpu=True)
    return sum(
        sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
        for times in (every[i] for i in _allowed() if i < len(every))
    )


threads = Threads()
