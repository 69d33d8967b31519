"""CPU or GPU, and the same bits on Intel's CPUs for any number of threads."""

import os
import platform
from pathlib import Path

import torch


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
