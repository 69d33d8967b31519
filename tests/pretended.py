"""A pretended "cuda" or "mps" on the CPU, which raises where a real one would.

Its tensors hold their values on the CPU and say that they are on the device. Refused are: tensors
of two devices in one operation, NumPy, a generator of another device, what MPS lacks, and whatever
waits for the device while a CUDA graph is recorded. Noise without a generator is of the device's
own, which only its own `manual_seed` sets. Not pretended: other numbers, and a speed.
"""

import contextlib
import warnings
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vae_lesson.running import graphs

# Those that are written for the CPU and CUDA, and in no way for MPS: PyTorch's
# native_functions.yaml, which torchgen brings, of 2.14.
MPS_LACKS = {"mode", "take", "put_", "frexp", "heaviside", "logspace", "eig", "eigvals", "rrelu"}
MPS_LACKS |= {"pdist", "log_ndtr", "ndtri", "ormqr", "channel_shuffle", "adaptive_max_pool3d"}
NUMPY = {"numpy", "__array__", "__dlpack__"}
# The host must know the values, or how many there are.
WAITS = {"item", "tolist", "__bool__", "__int__", "__float__", "__index__", "__contains__"}
WAITS |= {"__format__", "nonzero", "argwhere", "unique", "unique_consecutive", "masked_select"}
WAITS |= {"equal", "allclose", "bincount", "histc", "tensor", "as_tensor", "new_tensor"}
DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "dropout"}
DRAWS |= {"rand_like", "randn_like", "randint_like", "poisson", "_standard_gamma", "random_"}
DRAWS |= {"normal_", "bernoulli_", "uniform_", "exponential_", "cauchy_", "geometric_"}
# What may have tensors of two devices.
MIXES = {"copy_", "__setitem__", "type_as", "backward", "as_subclass", "can_cast", "result_type"}
MIXES |= {"tensor", "as_tensor", "new_tensor", "_has_compatible_shallow_copy_type", "__set__"}
# And where not even a single number may be of another.
JOINS = {"cat", "concat", "hstack", "stack", "vstack"}


class OnDevice(Tensor):
    """A tensor that is on the pretended device."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # the mode does it all


class Generator(torch.Generator):
    """A generator that knows for which device it is; all draw on the CPU."""

    device = property(lambda self: self.on)

    def __new__(cls, device="cpu"):
        self, kind = super().__new__(cls), torch.device(device).type
        self.on = torch.device("cpu") if kind == "cpu" else torch.device(kind, 0)
        return self


def is_on(given) -> bool:
    return isinstance(given, OnDevice)


def leaves(given) -> list:
    """Return the tensors and generators in nested arguments."""
    if isinstance(given, (Tensor, torch.Generator)):
        return [given]
    if isinstance(given, dict):
        given = list(given.values())
    return [x for part in given for x in leaves(part)] if isinstance(given, (list, tuple)) else []


def on_device(given):
    """Return what an operation gave, its tensors on the device."""
    if isinstance(given, Tensor):
        return given if is_on(given) else given.as_subclass(OnDevice)
    if isinstance(given, (list, tuple)):  # of max(dim), too
        return type(given)([on_device(part) for part in given])
    return given


def on_cpu(given):
    """Return the same, its tensors on the CPU, as a file holds them."""
    if is_on(given):
        return given.detach().as_subclass(Tensor)
    if isinstance(given, dict):
        return type(given)({name: on_cpu(part) for name, part in given.items()})
    return type(given)(map(on_cpu, given)) if type(given) in (list, tuple) else given


class Device(TorchFunctionMode):
    """Everything that is asked of torch while the device is pretended."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.device = kind, torch.device(kind, 0)
        self.rng = torch.Generator().manual_seed(0).get_state()  # of the device's own noise
        self.recording, self.n_recorded, self.sync_debug_mode = False, 0, "default"

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if name == "__get__":
            return self._attribute(func, args)
        if name in ("to", "cpu", "cuda", "mps"):
            return self._moved(func, name, args, kwargs)
        wanted = self._named(kwargs["device"]) if kwargs.get("device") is not None else None
        if wanted:
            kwargs["device"] = "cpu"
        given = leaves([args, kwargs])
        here = any(map(is_on, given))
        if not (here or wanted or any(isinstance(each, Generator) for each in given)):
            return func(*args, **kwargs)
        if name == "__deepcopy__" and here:
            return self._copied(*args)
        if name in ("__repr__", "__str__", "__format__") and here:
            self._look(name)
            return func(on_cpu(args[0]), *args[1:], **kwargs)
        if name == "_has_compatible_shallow_copy_type":
            return is_on(args[0]) == is_on(args[1])  # whether Module.to may keep its parameters
        self._refuse(name, args, given, here, here if wanted is None else wanted)
        draws = name in DRAWS and not any(isinstance(each, Generator) for each in given)
        with self.own_noise() if draws else contextlib.nullcontext():
            result = func(*args, **kwargs)
        return self._checked(on_device(result)) if wanted or (wanted is None and here) else result

    def _named(self, device) -> bool:
        """Say whether this is the pretended device."""
        if isinstance(device, int):
            return self.kind == "cuda"
        return torch.device(device).type == self.kind

    def _attribute(self, func, args):
        attribute, here = getattr(func.__self__, "__name__", ""), is_on(args[0])
        if here and attribute == "device":
            return self.device
        if here and attribute in ("is_cpu", "is_cuda", "is_mps"):
            return attribute == f"is_{self.kind}"
        result = func(*args)
        return on_device(result) if here and isinstance(result, Tensor) else result

    def _moved(self, func, name, args, kwargs):
        """Return what `to`, `cpu`, `cuda` and `mps` do."""
        tensor, *rest = args
        here = target = is_on(tensor)
        if name != "to":
            target, rest = name == self.kind, []
        for i, each in enumerate(rest):
            if isinstance(each, Tensor):
                target, rest[i] = is_on(each), on_cpu(each)
            elif isinstance(each, (str, int, torch.device)) and not isinstance(each, bool):
                target, rest[i] = self._named(each), "cpu"
        if kwargs.get("device") is not None:
            target, kwargs["device"] = self._named(kwargs["device"]), "cpu"
        moved = func(tensor, *rest, **kwargs) if name == "to" else tensor
        if target == here:
            return self._checked(on_device(moved)) if here else moved
        self._look(f"a copy from the {'device' if here else 'CPU'}")
        if moved.data_ptr() == tensor.data_ptr():
            moved = moved.clone()
        return self._checked(on_device(moved)) if target else moved.as_subclass(Tensor)

    def _copied(self, tensor, memo):
        copied = on_device(on_cpu(tensor).clone()).requires_grad_(tensor.requires_grad)
        if getattr(tensor, "_is_param", False):
            copied._is_param = True
        memo[id(tensor)] = copied
        return copied

    def _refuse(self, name, args, given, here, there) -> None:
        """Raise what the device would; here: it has some of the tensors, there: the result is."""
        if name in NUMPY and here:
            raise TypeError(f"can't convert {self.device} device type tensor to numpy")
        if self.kind == "mps" and name in MPS_LACKS:
            raise NotImplementedError(f"The operator 'aten::{name}' is not implemented for MPS")
        tensors = [each for each in given if isinstance(each, Tensor)]
        others = [each for each in tensors if not is_on(each) and (each.dim() or name in JOINS)]
        index = leaves(args[1:2]) if name in ("__getitem__", "__setitem__", "index_put_") else []
        if index and is_on(args[0]):
            others = []
            if any(not is_on(each) and each.dim() for each in index):
                self._look("an index from the CPU")
        if here and others and name not in MIXES:
            words = f"on the same device, but {name} found {self.device} and cpu!"
            raise RuntimeError(f"Expected all tensors to be {words}")
        for each in given:
            if isinstance(each, torch.Generator) and self._named(each.device) != there:
                raise RuntimeError(f"{name} found a generator of another device, {each.device}")
        masks = any(each.dtype in (torch.bool, torch.uint8) and each.dim() for each in index)
        counts = name == "repeat_interleave" and len(tensors) > 1
        if name in WAITS or counts or (masks and name == "__getitem__"):
            self._look(name)

    def _look(self, name) -> None:
        """Have the host wait for the device."""
        if self.recording:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        if self.sync_debug_mode == "warn":
            warnings.warn(f"called a synchronizing CUDA operation ({name})", stacklevel=4)

    def _checked(self, given):
        if self.kind == "mps":
            for each in leaves(given):
                if isinstance(each, Tensor) and each.dtype in (torch.float64, torch.complex128):
                    raise TypeError("MPS has no float64: use float32 instead")
        return given

    @contextlib.contextmanager
    def own_noise(self):
        """Draw what is drawn from the device's own generator."""
        cpu = torch.get_rng_state()
        torch.set_rng_state(self.rng)
        try:
            yield
        finally:
            self.rng = torch.get_rng_state()
            torch.set_rng_state(cpu)

    def seed(self, seed: int) -> None:
        self.rng = torch.Generator().manual_seed(int(seed)).get_state()

    def set_rng_state(self, state: Tensor, device=None) -> None:
        self.rng = state

    @contextlib.contextmanager
    def record(self, graph, stream):
        """Stand for torch.cuda.graph: takes the step for once, in which nothing may wait."""
        self.recording = True
        try:
            yield
            self.n_recorded += 1
        finally:
            self.recording = False


class GraphedStep(graphs.GraphedStep):
    """The real one, but for the replay: nothing was recorded, so the step is taken again."""

    def __call__(self, *batch):
        recorded = self._graph is not None
        sums = super().__call__(*batch)
        return self._step(*batch) if recorded and len(batch[0]) == len(self._batch[0]) else sums


@contextlib.contextmanager
def pretended(kind: str):
    """Pretend to have one "cuda" or "mps"."""
    device, patch = Device(kind), pytest.MonkeyPatch()
    own = {"manual_seed": device.seed}
    own |= {"get_rng_state": lambda *_: device.rng.clone(), "set_rng_state": device.set_rng_state}
    cuda = {"is_available": lambda: True, "device_count": lambda: 1, "manual_seed_all": device.seed}
    cuda |= {"mem_get_info": lambda _: (1 << 34, 1 << 34), "default_generators": [MagicMock()]}
    cuda |= {"device": contextlib.nullcontext, "stream": contextlib.nullcontext}
    cuda |= {"current_stream": MagicMock(), "CUDAGraph": MagicMock(), "graph": device.record}
    cuda |= {"get_sync_debug_mode": lambda: device.sync_debug_mode}
    cuda |= {"set_sync_debug_mode": lambda mode: setattr(device, "sync_debug_mode", mode)}
    for name, value in (own | cuda if kind == "cuda" else own).items():
        patch.setattr(getattr(torch, kind), name, value)
    patch.setattr(torch.backends.mps, "is_available", lambda: kind == "mps")
    patch.setattr(torch, "Generator", Generator)
    patch.setattr(graphs, "GraphedStep", GraphedStep)
    patch.setattr(graphs, "side_stream", MagicMock())
    # In C++, where no tensor is asked for its device.
    optimizer, save = torch.optim.Optimizer, torch.save
    grouped = optimizer._group_tensors_by_device_and_dtype

    def group(lists, with_indices=False):
        here = any(map(is_on, leaves(lists)))
        groups = grouped(lists, with_indices).items()
        return {(device.device if here else on, dtype): each for (on, dtype), each in groups}

    patch.setattr(optimizer, "_group_tensors_by_device_and_dtype", staticmethod(group))
    for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):
        patch.setattr(optimizer, name, lambda self: None, raising=False)
    patch.setattr(torch, "save", lambda what, *args, **how: save(on_cpu(what), *args, **how))
    try:
        with device:
            yield device
    finally:
        patch.undo()
