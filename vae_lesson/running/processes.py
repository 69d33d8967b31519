"""One training in several processes, started by torchrun.

Without torchrun `world()` is (0, 1), and all of this does nothing.
"""

import importlib
import os
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vae_lesson.losses import check_terms


def start(device: torch.device) -> torch.device:
    """Join the processes that torchrun has started, if it has, and return this one's device.

    gloo connects CPUs, nccl GPUs, of which each process of a machine takes its own; nothing
    connects MPS, so on a Mac the processes compute on the CPU.

    Raises: ValueError if there are more processes on this machine than GPUs.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return device
    if device.type == "mps":
        device = torch.device("cpu")
    elif device.type == "cuda":
        local, n_gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= n_gpus:
            raise ValueError(
                f"torchrun started {os.environ['LOCAL_WORLD_SIZE']} processes here, a GPU each, "
                f"and there are {n_gpus}: use --nproc-per-node={n_gpus}, or --device cpu"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    store = None
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        # torchrun's store outlives a restart, and holds the addresses of the processes that died.
        where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
        store = dist.PrefixStore(f"attempt {attempt}", dist.TCPStore(*where, is_master=False))
    # Its functions take the group of the moment of their import as a default. Imported later, as by
    # an optimizer's first step, they would keep the group alive after `stop`.
    importlib.import_module("torch.distributed.nn")
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )
    return device


def stop() -> None:
    """Leave the other processes in good order.

    This ends gloo's threads only if nothing else holds the group; one that lets go of a tensor
    while Python shuts down aborts a process that had succeeded, and torchrun reports a failure.
    """
    if dist.is_initialized():
        dist.destroy_process_group()


def world() -> tuple[int, int]:
    """Return (rank, size): which process this is, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def generators(seed: int, device: torch.device) -> tuple[torch.Generator, torch.Generator]:
    """Return (order, noise): the order of the images is common to all processes, the noise is each
    one's own (see `seed_noise`). Alone, one generator gives both."""
    order = torch.Generator(device).manual_seed(seed)
    return order, order if world()[1] == 1 else torch.Generator(device)


def seed_noise(noise: torch.Generator, seed: int, epoch: int) -> None:
    """Give this process's noise a seed for the epoch; alone, the one generator just goes on."""
    rank, size = world()
    if size > 1:
        noise.manual_seed((seed * 100_000 + epoch) * 10_000 + rank)


def shared(model: nn.Module, terms: Callable) -> Callable:
    """Return (*batch, generator=...) -> the terms of a batch, of which each process computes its
    share: for the other processes' images they are 0 here, so that `add_up` makes them whole.

    The first process's weights are copied to all. DistributedDataParallel would do it too, and keep
    the group alive (see `stop`).
    """
    rank, size = world()
    if size > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, src=0)

    def terms_of_share(*batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        share = [part[rank::size] for part in batch]
        named = terms(model, *share, generator=generator)
        check_terms(named, len(share[0]))
        if size == 1:
            return named
        of_batch = {}
        for name, values in named.items():
            of_batch[name] = values.new_zeros(len(batch[0]))
            of_batch[name][rank::size] = values
        return of_batch

    return terms_of_share


def add_up(*values: Tensor | None) -> None:
    """Replace each tensor, as a gradient, by its sum over all processes."""
    if world()[1] > 1:
        for value in values:
            if value is not None:
                dist.all_reduce(value)
