"""What is wrong with a VAE and its loss, found without training: our own models and a learner's.

`inspect_vae` measures how the loss changes with the output, mu and log_var, and what the model
makes of a chosen mu and log_var; it does not read code. Where this fits nothing that it knows, it
says nothing.
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from vae_lesson.arguments import shapes_of
from vae_lesson.clinic.findings import FAULTS, NOT_FINITE, WRONG_RANGE, Report
from vae_lesson.clinic.inspect_loss import inspect_loss, reseed, wide
from vae_lesson.clinic.inspect_model import as_the_noise, inspect_model
from vae_lesson.words import N_, _


def inspect_vae(model: nn.Module, loss: Callable, x: Tensor) -> Report:
    """Return what is wrong with a VAE and its loss, as far as it can be measured; [] if nothing is.

    A `Report` is a list of `Finding`; printed, it also says what was examined and is right, and
    what was not examined, and why.

    `model(x)` returns (output, mu, log_var); `model.encode` and `model.decode` are the two halves.
    `loss(output, x, mu, log_var)` returns one number, the sum or the mean of the batch, or one an
    image. The output may be logits, probabilities or pixels: the loss's derivative tells which.
    What is called log_var may be log σ, σ or anything else of σ, if loss and model agree on it.

    The prior is taken to be N(0, I), and penalties on mu or log_var count as part of the KL; that
    of another Gaussian prior is known, and not judged. Another beta than 1 is a choice, and so are
    a Gaussian's variance and a limit to the KL: none is a fault, so that a KL without its ½ passes
    as beta = 2. Beyond 30 or 1/30 a beta is named all the same.
    It needs no training, and leaves the weights, their gradients, the modes and the random state.
    Of a compiled or parallel model it takes the model itself, of half precision a float32 copy.

    Shapes: x `(B, ...)`; output as many values as x; mu and log_var alike, `(B, latent_size)`, say;
    the loss `()`, `(1,)`, `(B,)` or `(B, 1)`.
    Raises: ValueError if model, loss or x do not honour this; what model or loss raise themselves.
    """
    model = _unwrapped(model)
    _check(model, x)
    if any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in (x, *model.parameters())):
        model, x = copy.deepcopy(model).float(), x.float()
    value, report = partial(_value, loss), Report()
    with _undisturbed(model, x.device), torch.autocast(x.device.type, enabled=False):
        output, mu, log_var = _outputs(model, x)
        slopes = inspect_loss(report, value, output, x, mu, partial(as_the_noise, model, x))
        parts = {"x": x, "mu": mu, "log_var": log_var, N_("the output"): output}
        if not all(tensor.isfinite().all() for tensor in parts.values()):
            report.skip(N_("the model"), _("not all that it makes is finite"))
        else:
            inspect_model(report, model, x, slopes)
            if all(finding.fault != WRONG_RANGE for finding in report):  # a loss may refuse those
                parts["the loss"] = value(output, x, mu, log_var)
    for name, tensor in parts.items():
        if n_bad := int((~tensor.isfinite()).sum()):
            said = _("Of {n_values} values of {name}, {n_bad} are NaN or infinite.")
            said = said.format(n_values=tensor.numel(), name=_(name), n_bad=n_bad)
            report.find(NOT_FINITE, said)
            break  # what comes of it is so too
    report.sort(key=lambda finding: FAULTS.index(finding.fault))
    return report


@contextmanager
def _undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Run the model in training mode, with noise of a fixed seed, and leave no trace."""
    attributes = [(module, dict(vars(module))) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    gpus = [device] if device.type != "cpu" else []
    with torch.random.fork_rng(gpus, device_type=device.type), torch.no_grad():
        reseed(device, 0)
        try:
            # Some models draw z in training mode only. Dropout is another noise: leave it out.
            other_noise = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)
            for module in model.modules():
                module.training = not isinstance(module, other_noise)
                module._compiled_call_impl = None  # compiled in place, it would not be looked into
            yield
        finally:
            for module, before in attributes:
                module.__dict__ = before
            for buffer, before in buffers:
                buffer.copy_(before)


# --- what is asked of model, loss and x -----------------------------------------------------------


def _unwrapped(model):
    """Return the model in a compiled or a parallel one."""
    inner = getattr(model, "_orig_mod", None)
    if inner is None and not hasattr(model, "encode"):
        inner = getattr(model, "module", None)
    return _unwrapped(inner) if isinstance(inner, nn.Module) else model


def _check(model, x) -> None:
    halves = [getattr(model, half, None) for half in ("encode", "decode")]
    if not isinstance(model, nn.Module) or not all(map(callable, halves)):
        raise ValueError(f"model: an nn.Module with encode and decode, got {shapes_of(model)}")
    if not isinstance(x, Tensor) or x.ndim < 2 or x.numel() == 0:
        raise ValueError(f"x must be a batch of float images (B, ...), got {shapes_of(x)}")
    ids = "; token ids are not inspected, since the output is compared with x, number by number"
    for name, tensor in [("x", x), *model.named_parameters()]:
        if wide(tensor).dtype not in (torch.float32, torch.float64):
            hint = ids if tensor.dtype in (torch.int32, torch.int64) else ""
            raise ValueError(f"{name} is {tensor.dtype}: use float32 or float64{hint}")


def _outputs(model, x) -> tuple[Tensor, Tensor, Tensor]:
    """Return model(x), with its shapes checked."""
    returned = model(x)
    match shapes := shapes_of(returned):
        case [(n, _, *_) as output, (m, _, *_) as mu, log_var]:
            if n == m == len(x) and math.prod(output) == x.numel() and mu == log_var:
                return returned
    raise ValueError(
        "model(x) must return (output, mu, log_var), with an output for every pixel of x "
        f"{tuple(x.shape)}, and mu and log_var ({len(x)}, latent_size), got {shapes}"
    )


def _value(loss, output, x, mu, log_var) -> Tensor:
    """Return the loss, with its shape checked."""
    value, n = loss(output, x, mu, log_var), len(x)
    if (shape := shapes_of(value)) not in [(), (1,), (n,), (n, 1)]:
        raise ValueError(f"loss must return a tensor of shape () or ({n},), got {shape}")
    return value
