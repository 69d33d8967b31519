"""When a training breaks: its first NaN, or what runs away, and where it was."""

import copy
import linecache
import math
import sys
from functools import partial
from itertools import cycle, islice

import torch
from torch.overrides import TorchFunctionMode

from vae_lesson.clinic.findings import LOSS_GROWS, NOT_FINITE, RUNS_AWAY, Report
from vae_lesson.clinic.inspect_loss import leaves_of, reseed
from vae_lesson.words import N_, _

# In 117 healthy trainings of 12 steps these stay under 7, 4 and 4; trained models lie higher.
LIMITS = {N_("output"): 1000, "mu": 100, "log_var": 10}  # the output's: times the largest pixel
GROWTH = 3  # of a batch's loss over that on the first weights: in those trainings at most 1.3


def inspect_training(model, loss, batches, optimizer=None, n_steps: int = 12) -> Report:
    """Return what breaks or runs away in a training's first steps, and whether a low rate helps.

    Copies are trained, by a copy of `optimizer` or Adam at 1e-3: weights, gradients, modes and
    random state stay. A KL that first rises is healthy. `.steps` has each step's numbers: loss, KL
    (an image's, log_var being log σ²), the largest |output| / largest pixel, |mu| and log_var, and
    each weight's gradient, by its norm.
    Shapes: `model(x)` returns output `(B, ...)`, mu and log_var `(B, latent_size)`; `loss(output,
    x, mu, log_var)` is `()`, or `(B,)` to be averaged; batches hold x `(B, ...)` or (x, labels).
    Raises: ValueError for a tensor as `batches`; what model or loss raise of finite numbers.
    Source: the troubles of AntixK/PyTorch-VAE #92, NVIDIA/apex #812 and sinhasam/vaal #10.
    """
    if torch.is_tensor(batches):
        raise ValueError("batches must be a list of batches or a DataLoader: give [x], not x")
    device = next(model.parameters()).device
    gpus = [device] if device.type != "cpu" else []
    with torch.random.fork_rng(gpus, device_type=device.type), torch.enable_grad():
        reseed(device, 0)
        xs = [b[0] if isinstance(b, (tuple, list)) else b for b in islice(batches, n_steps)]
        inspect = partial(_inspect, (model, loss, optimizer), [x.to(device) for x in xs])
        report = inspect(n_steps)
        n = len(report.steps)  # those without a NaN
        if report and n and report[-1].fault != RUNS_AWAY:  # which the loss may ask for
            tried = _("{evidence} Tried: a hundredth of the rate helps.")
            if inspect(10 * n, rate=0.01):
                tried = _("{evidence} Tried: a hundredth of the rate does not help.")
            tried = tried.format(evidence=report[-1].evidence)
            report[-1] = report[-1]._replace(evidence=tried)
    if report.steps:
        names, ends = (N_("loss"), "KL", *LIMITS), (report.steps[0], report.steps[-1])
        said = [f"{_(name)} {' → '.join(f'{row[name]:.3g}' for row in ends)}" for name in names]
        report.right(_("{n} steps").format(n=n), _(", ").join(said))
    return report


def _inspect(start, xs, n_steps, rate=1.0) -> Report:
    """Train a copy, and one at a rate of 0, which says what each batch costs without training."""
    report, still = (_train(start, xs, n_steps, each) for each in (rate, 0.0))
    for step, (row, first) in enumerate(zip(report.steps, still.steps), 1):
        if row["loss"] - first["loss"] > (GROWTH - 1) * abs(first["loss"]):
            said = _("Step {step}: loss {loss:.3g}, KL {KL:.3g}; on the first weights {first:.3g}.")
            said = said.format(step=step, loss=row["loss"], KL=row["KL"], first=first["loss"])
            report.find(LOSS_GROWS, said)
            break
    return report


def _train(start, xs, n_steps, rate) -> Report:
    """Train a copy of (model, loss, optimizer) up to its first NaN; note what runs away."""
    kept = [t for m in start[0].modules() for t in vars(m).values() if torch.is_tensor(t)]
    memo = {id(t): t.detach() for t in kept if t.grad_fn}  # such as self.kl: not to be copied
    model, loss, optimizer = copy.deepcopy(start, memo)
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=1e-3)
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * rate
    weights = {name: w for name, w in model.train().named_parameters() if w.requires_grad}
    report, watch, top = Report(), _Watch(weights), max(1, *(x.max().item() for x in xs))
    report.steps, far = [], set()
    for step, x in zip(range(1, n_steps + 1), cycle(xs)):
        watch.note(_("x itself"), x)
        reseed(x.device, step)
        try:
            with watch:
                output, mu, log_var = model(x)
                value = loss(output, x, mu, log_var).mean()
        except (ValueError, RuntimeError) as error:  # of a likelihood that refuses NaN
            if not (watch.first or "invalid values" in str(error)):
                raise
            said = _("Step {step}: in the model, first in {place}.")
            report.find(NOT_FINITE, said.format(step=step, place=watch.first or error))
            break
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        slopes = {name: w.grad for name, w in weights.items() if w.grad is not None}
        kl = 0.5 * (mu.square() + log_var.exp() - 1 - log_var).sum().item() / len(x)
        row = {"loss": value.item(), "KL": kl, "output": output.abs().max().item() / top}
        row |= {"mu": mu.abs().max().item(), "log_var": log_var.max().item()}
        row["gradients"] = {name: slope.double().norm().item() for name, slope in slopes.items()}
        for name, part in zip(LIMITS, (output, mu, log_var)):
            if row[name] > LIMITS[name] and name not in far:
                far.add(name)
                said = _("Step {step}: {name} reaches {size:.3g}, behind {layer}.")
                place = {"name": _(name), "layer": watch.layer(part)}
                report.find(RUNS_AWAY, said.format(step=step, size=row[name], **place))
        made = {_("the model"): (output, mu, log_var), (of_loss := _("the loss")): (value,)}
        by = _("the slope by {what}")
        made |= {by.format(what=name): (slope,) for name, slope in reversed(slopes.items())}
        said = _("the optimizer's step, of weights in {dtype}").format(dtype=value.dtype)
        made[said] = weights.values()
        if bad := next((name for name, values in made.items() if not _finite(*values)), ""):
            if bad == of_loss:  # with the KL of almost nothing; not of 0, which may be a σ
                rest = loss(output, x, 0 * mu + 1e-3, 0 * log_var + 1e-3)
                bad = _("the loss's KL") if _finite(rest) else _("the loss's reconstruction")
            said = _("Step {step}: in {what}.")
            said = _("Step {step}: in {what}, first in {place}.") if watch.first else said
            report.find(NOT_FINITE, said.format(step=step, what=bad, place=watch.first))
            break
        report.steps.append(row)
    return report


class _Watch(TorchFunctionMode):
    """Note the first operation whose result, or slope by it, is not finite, and its layer."""

    def __init__(self, weights):
        super().__init__()
        self.names = {id(w): name.rpartition(".")[0] for name, w in weights.items()}
        self.first = ""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        meant = any(isinstance(a, float) and math.isinf(a) for a in args)  # as in a mask
        if torch.is_tensor(out) and out.is_floating_point() and not meant:
            frame = sys._getframe(1)
            while frame.f_code.co_filename.startswith((*torch.__path__, __file__)):
                frame = frame.f_back
            line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
            said = _("{operation} in `{line}`, behind {layer}, {dtype}").format(
                operation=func.__name__.strip("_"),
                line=line,
                layer=self.layer(out),
                dtype=out.dtype,
            )
            self.note(said, out)
            if out.requires_grad:
                by = _("the slope by {what}").format(what=said)
                out.register_hook(partial(self.note, by))
        return out

    def note(self, said, values) -> None:
        self.first = self.first or ("" if _finite(values) else said)

    def layer(self, values) -> str:
        """Return the layer whose weights are nearest behind these values."""
        names = (self.names.get(id(leaf)) for leaf in leaves_of(values))
        name = next(filter(None, names), None)
        return _("layer {name}").format(name=name) if name else _("no layer")


def _finite(*tensors) -> bool:
    return all(tensor.detach().isfinite().all() for tensor in tensors)
