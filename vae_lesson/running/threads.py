"""As many threads as there are cores that no other process uses.

Two processes that compute with a thread for every core wait for each other's threads at every
operation, and both take many times as long. So before each cell of a notebook and at the steps of
any optimizer, at most four times a second, `adapt` looks how busy other processes keep the cores,
and sets the threads of torch, OpenMP and BLAS. Importing this module turns it on.

The course's MLPs train to the same bits with any number of threads, convolutions do not: for them
`held` keeps all.
"""

import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch
from threadpoolctl import threadpool_limits
from torch.optim.optimizer import register_optimizer_step_post_hook

SECONDS = 0.25  # between two looks
CGROUP = Path("/sys/fs/cgroup")  # where Linux keeps a container's quota


class Threads:
    """The threads of this process, and what it last saw of the others."""

    def __init__(self) -> None:
        self._cores = _cores()
        self.most = max(1, min(torch.get_num_threads(), int(self._cores)))
        self._held = False
        self._mark()

    def _mark(self) -> None:
        self._wall, self._own, self._busy = time.perf_counter(), time.process_time(), _busy()

    def adapt(self, *_) -> None:
        """Take as many threads as there are free cores, at least 1."""
        wall = time.perf_counter() - self._wall
        if wall < SECONDS or self.most == 1 or self._held:
            return
        others = (_busy() - self._busy - (time.process_time() - self._own)) / wall  # in cores
        self._mark()
        # Rounded: a browser's quarter of a core is no reason to give up a thread.
        self._set(min(max(round(self._cores - others), 1), self.most))

    def _set(self, n: int) -> None:
        # A library that is loaded later starts with all cores: say it again until all are free.
        if n < self.most or n != torch.get_num_threads():
            torch.set_num_threads(n)
            threadpool_limits(limits=n)

    @contextmanager
    def held(self, hold: bool = True):
        """Keep all threads, whatever other processes do, until the end of the `with`."""
        before, self._held = self._held, self._held or hold
        if self._held:
            self._set(self.most)
        try:
            yield
        finally:
            self._held = before


def _quota() -> float | None:
    """Return how many cores a container may use at once, None without a limit."""
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _allowed() -> list[int] | None:
    """Return the numbers of the cores that this process may run on, None where it cannot be had."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _cores() -> float:
    """Return how many cores this process may use."""
    allowed = _allowed()
    cores = len(allowed) if allowed else os.cpu_count()
    return min(cores, _quota() or cores)


def _busy() -> float:
    """Return the seconds that these cores have worked, for all processes: of the container's own
    where it has a quota."""
    if _quota() is not None:
        return int((CGROUP / "cpu.stat").read_text().split()[1]) / 1e6  # usage_usec
    every, allowed = psutil.cpu_times(percpu=True), _allowed()
    return sum(
        sum(t) - t.idle - getattr(t, "iowait", 0.0) - getattr(t, "guest", 0.0)
        for t in (every if allowed is None else [every[i] for i in allowed if i < len(every)])
    )


threads = Threads()
register_optimizer_step_post_hook(threads.adapt)
if shell := getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)():
    shell.events.register("pre_run_cell", threads.adapt)
