"""Where a training runs: the device, and which of several processes this one is.

Without torchrun `world()` is (0, 1), and what is here for several processes does nothing.
"""

import os
import platform
import time
from pathlib import Path

import psutil
import torch
import torch.distributed as dist
from torch import Tensor, nn


def _fix_intel_sums() -> None:
    """Have Intel's MKL give the same bits for any number of threads; no other maker's CPU needs it.

    MKL reads this at its first product, so it is set when this module is imported. It costs nothing
    that we could measure. "STRICT" is what covers matrix products.
    """
    cpu_info = Path("/proc/cpuinfo")
    if "GenuineIntel" in (cpu_info.read_text() if cpu_info.exists() else platform.processor()):
        os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")


_fix_intel_sums()


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """Return the device asked for; without one ("auto" or None) CUDA, else Apple's MPS, else CPU.

    Raises: ValueError if that device is not there, with those that are.
    """
    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there[:0] = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if device in (None, "auto"):
        device = there[0]
    if str(device) not in there:
        raise ValueError(
            f"device {str(device)!r} is not there: choose one of auto, {', '.join(there)}"
        )
    return torch.device(device)


class Threads:
    """As many threads as there are cores that nobody else uses.

    Two trainings at once, each with a thread for every core, wait for each other's threads at every
    operation: on two cores that takes 44 times as long. `adapt`, called at every step, looks
    four times a second how busy other processes keep the machine, and sets torch's threads. The
    course's MLPs train to the same bits with any number; convolutions do not. It counts the cores
    of the machine: where a container may use only some of them, it sees more room than there is.
    """

    SECONDS = 0.25  # between two looks

    def __init__(self) -> None:
        self._most = torch.get_num_threads()
        self._mark()

    def _mark(self) -> None:
        self._wall, self._own, self._busy = time.perf_counter(), time.process_time(), _busy()

    def adapt(self) -> None:
        """Set the number of threads to that of the free cores, at least 1."""
        wall = time.perf_counter() - self._wall
        if self._most == 1 or wall < self.SECONDS:
            return
        others = (_busy() - self._busy - (time.process_time() - self._own)) / wall  # in cores
        self._mark()
        # Rounded: a browser's quarter of a core is no reason to give up a thread.
        free = round(os.cpu_count() - others)
        torch.set_num_threads(min(max(free, 1), self._most))

    def restore(self) -> None:
        """Go back to the number of threads that there was."""
        torch.set_num_threads(self._most)


def _busy() -> float:
    """Return the seconds that all cores together have worked since the machine started."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)


# --- several processes, started by torchrun -------------------------------------------------------


def start(device: torch.device) -> torch.device:
    """Join the processes that torchrun has started, if it has, and return this one's device.

    gloo connects CPUs, nccl GPUs, of which each process of a machine takes its own.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    store = None
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        # torchrun's store outlives a restart, and holds the addresses of the processes that died.
        where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
        store = dist.PrefixStore(f"attempt {attempt}", dist.TCPStore(*where, is_master=False))
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )
    return device


def stop() -> None:
    """Leave the other processes in good order."""
    if dist.is_initialized():
        dist.destroy_process_group()


def world() -> tuple[int, int]:
    """Return (rank, size): which process this is, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def parallel(model: nn.Module) -> nn.Module:
    """Return the model as one whose backward averages the gradients of all processes."""
    if world()[1] == 1:
        return model
    # It also copies rank 0's first weights to all.
    return nn.parallel.DistributedDataParallel(model)


def add_up(values: Tensor) -> Tensor:
    """Return the sum of `values` over all processes."""
    if world()[1] > 1:
        dist.all_reduce(values)
    return values
