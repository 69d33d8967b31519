"""CPU or GPU, and the same bits for any number of threads."""

import math
import os
import platform

import torch

# Have MKL give the same bits for any number of threads; else, on Intel, those of every product, and
# on AMD those with a side of a few numbers, such as 2-D codes, depend on how busy the machine is.
# MKL reads this at its first product; it costs nothing that we could measure.
if platform.machine() in ("x86_64", "AMD64"):
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")


def moved(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return the images on the device, or as they are if they would take half of a GPU's room."""
    room = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf
    return images.to(device) if images.nbytes < room / 2 else images


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
