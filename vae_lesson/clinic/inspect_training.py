"""When a training breaks: its first NaN, or what runs away, where it was, and what helps."""

import copy
import linecache
import math
import sys
from contextlib import nullcontext
from functools import partial
from itertools import islice
from typing import NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from vae_lesson.clinic.findings import Report
from vae_lesson.clinic.inspect_loss import reseed

LIMITS = {"output": 1000, "mu": 100, "log_var": 10}  # the output's: times the largest pixel
CURES = {  # by how the note of what was first not finite begins
    "log ": "log(0) is infinite: take logits, or log σ² as a layer gives it.",
    "exp ": "exp overflows above 88 (float16: 11): let log_var begin near 0, or clamp it.",
    "div ": "Add 1e-6 to what it divides by.",
    "back": "Roots, logs and quotients have no finite slope at 0: add 1e-8 inside.",
    "x it": "Look at how the images are read.",
}


class Trouble(NamedTuple):
    """What went wrong at a step (from 1), where, and what to do; it prints as a sentence."""

    step: int
    what: str
    todo: str = ""

    def __str__(self) -> str:
        return f"Step {self.step}: {self.what}. {self.todo}".strip()


def inspect_training(model, loss, batches, optimizer=None, n_steps: int = 12) -> Report:
    """Return what breaks or runs away in a training's first steps, and which change helps.

    Copies are trained, by a copy of `optimizer` or Adam at 1e-3: weights, gradients, modes and
    random state stay. A KL that first rises is healthy. `.steps` has each step's numbers: loss, KL,
    the largest |output| / largest pixel, |mu| and log_var, and each weight's gradient, by its norm.
    Shapes: `model(x)` returns output `(B, ...)`, mu and log_var `(B, latent_size)`; `loss(output,
    x, mu, log_var)` is `()`, or `(B,)` to be averaged; batches hold x `(B, ...)` or (x, labels).
    Raises: ValueError for a tensor as `batches`; what model or loss raise of finite numbers.
    Source: the troubles of AntixK/PyTorch-VAE #92, NVIDIA/apex #812 and sinhasam/vaal #10.
    """
    if torch.is_tensor(batches):
        raise ValueError("batches must be a list of batches or a DataLoader: give [x], not x")
    like = next(model.parameters())
    gpus = [like.device] if like.device.type != "cpu" else []
    with torch.random.fork_rng(gpus, device_type=like.device.type), torch.enable_grad():
        reseed(like.device, 0)
        xs = [b[0] if isinstance(b, (tuple, list)) else b for b in islice(batches, n_steps)]
        xs = [x.to(like) if x.is_floating_point() else x.to(like.device) for x in xs]
        report, top = _train((model, loss, optimizer), xs, n_steps), max(x.max().item() for x in xs)
        n, steps = report[-1].step if report else 0, report.steps
        tries = {f"images divided by {top:.3g}": {"xs": [x / top for x in xs]}} if top > 10 else {}
        tries |= {"float32": {"full": True}} if report.half else {}
        if report and report[0].step == 1:  # before any training
            tries["first weights ten times smaller"] = {"shrink": 0.1}
        elif n > len(steps) or any(trouble.what.startswith("loss") for trouble in report):
            tries["a hundredth of the rate"] = {"rate": 0.01, "n_steps": 10 * n}
        elif report:
            said = "The loss does not grow, so that it asks for this: see what inspect_vae says."
            report[-1] = report[-1]._replace(todo=said)
        for name, change in tries.items() if report else ():
            again = _train((model, loss, optimizer), **{"xs": xs, "n_steps": n} | change)
            failed = again.broke if report.broke else bool(again)
            todo = f"{report[-1].todo} Tried: {name} {'does not help' if failed else 'helps'}."
            report[-1] = report[-1]._replace(todo=todo.strip())
    if names := ("loss", "KL", *LIMITS) if steps else ():
        said = [f"{name} {steps[0][name]:.3g} → {steps[-1][name]:.3g}" for name in names]
        report.examined[f"{len(steps)} steps"] = ", ".join(said)
    return report


def _train(start, xs, n_steps, rate=1.0, full=False, shrink=1.0) -> Report:
    """Train a copy up to the first NaN, beside a copy that stays as it is."""
    cached = [t for m in start[0].modules() for t in vars(m).values() if torch.is_tensor(t)]
    memo = {id(t): t.detach() for t in cached if t.grad_fn}  # such as self.kl: not to be copied
    (model, loss, optimizer), first = (copy.deepcopy(start, dict(memo)) for _ in range(2))
    for each in (model.train(), first[0].train()):
        for w in each.to(torch.float32 if full else None).parameters():
            w.data.mul_(shrink)
    weights = {name: w for name, w in model.named_parameters() if w.requires_grad}
    optimizer = optimizer or torch.optim.Adam(weights.values(), lr=1e-3)
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * rate
    watch, report, top = _Watch(), Report(), max(1, *(x.max().item() for x in xs))
    watch.layers = {_key(w): name.rpartition(".")[0] for name, w in weights.items()}
    watch.full, watch.device, watch.half = full, xs[0].device.type, False
    report.steps, report.broke = [], False

    def call(model, loss):
        reseed(x.device, step)
        output, mu, log_var = model(x)
        return output, mu, log_var, loss(output, x, mu, log_var).mean()

    def note(what, first=""):
        if all(what.split()[0] != trouble.what.split()[0] for trouble in report):
            report.append(Trouble(step, what, CURES.get(first[:4], "")))

    for step in range(1, n_steps + 1):
        x = xs[(step - 1) % len(xs)].to(torch.float32 if full else None)
        where, bad = "the model", True
        watch.first = "" if x.isfinite().all() else "x itself"
        try:
            with watch:
                output, mu, log_var, value = call(model, loss)
            zeros = [torch.zeros_like(part) + 1e-3 for part in (mu, log_var)]  # not 0: maybe a σ
            rest = copy.deepcopy(loss, {id(model): model})(output, x, *zeros).mean().item()
            row = {"loss": value.item(), "KL": value.item() - rest, "mu": mu.abs().max().item()}
            row |= {"output": output.abs().max().item() / top, "log_var": log_var.max().item()}
            for name, part in {"output": output, "mu": mu, "log_var": log_var}.items():
                if row[name] > LIMITS[name]:
                    layer = watch.layers.get(_key(part)) or "?"
                    note(f"{name} reaches {row[name]:.3g}, from layer {layer}")
            if all(part.isfinite().all() for part in (output, mu, log_var)):
                where = f"the loss's {'KL' if math.isfinite(rest) else 'reconstruction'}"
            if value.isfinite():
                slopes = torch.autograd.grad(value, [*weights.values()], allow_unused=True)
                norms = row["gradients"] = {}
                for (name, w), w.grad in zip(weights.items(), slopes):
                    norms[name] = 0.0 if w.grad is None else w.grad.double().norm().item()
                bad = [name for name, norm in norms.items() if not math.isfinite(norm)]
                where = f"the slope by {bad[-1]}" if bad else "the optimizer's step"
                optimizer.step()
                bad = bad or not all(w.isfinite().all() for w in weights.values())
        except (ValueError, RuntimeError) as error:  # of a likelihood that refuses NaN
            if not (watch.first or "invalid values" in str(error)):
                raise
            watch.first = watch.first or str(error).partition(" (")[0]
        report.half = watch.half
        if bad:
            report.broke = True
            note(
                f"NaN or infinity in {where}{watch.first and f', first in {watch.first}'}",
                watch.first,
            )
            break
        before = call(*first[:2])[-1].item()
        if value > before + 2 * abs(before):
            note(f"loss {value:.3g}, KL {row['KL']:.3g}; on the first weights {before:.3g}")
        report.steps.append(row)
    return report


class _Watch(TorchFunctionMode):
    """Note the first operation whose result, or slope by it, is not finite, and its layer."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if self.full:
            args = [a.float() if getattr(a, "dtype", 0) == torch.float16 else a for a in args]
        with torch.autocast(self.device, enabled=False) if self.full else nullcontext():
            out = func(*args, **(kwargs or {}))
        if torch.is_tensor(out) and out.is_floating_point() and "empty" not in func.__name__:
            self.half |= out.dtype == torch.float16
            given = [a.detach() for a in args if torch.is_tensor(a) and a.numel()]
            layer = next(filter(None, (self.layers.get(_key(a)) for a in given[::-1])), "")
            self.layers[_key(out)] = layer
            frame = sys._getframe(1)
            while frame.f_code.co_filename.startswith((*torch.__path__, __file__)):
                frame = frame.f_back
            line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
            said = f"{func.__name__.strip('_')} in `{line}`{layer and f', after layer {layer}'}"
            meant = any(isinstance(a, float) and math.isinf(a) for a in args)  # as in a mask
            if not (self.first or meant or out.detach().isfinite().all()):
                of = " and ".join(f"{a.min():.3g}…{a.max():.3g}" for a in given)
                self.first = f"{said}, {out.dtype} of {of}".replace("torch.", "")
            if out.requires_grad:
                out.register_hook(partial(self._slope, f"backward of {said}"))
        return out

    def _slope(self, said, slope) -> None:
        if not (self.first or slope.isfinite().all()):
            self.first = said


def _key(tensor) -> int:
    return tensor.untyped_storage().data_ptr()
