"""A model by itself: what it makes of a mu and a log_var that are chosen here."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vae_lesson.clinic import findings
from vae_lesson.clinic.findings import Finding
from vae_lesson.clinic.inspect_loss import READINGS, Slopes, exact, reseed, spread


def inspect_model(model: nn.Module, x: Tensor, slopes: Slopes) -> Iterator[Finding]:
    """Find what is wrong with a model, beside a loss of these slopes.

    `model(x)` returns (output, mu, log_var), all finite; x and output `(B, ...)`, mu and log_var
    `(B, latent_size)`. It is run as it is, but for `encode` and `decode` in the instance.
    """
    output, mu, log_var = model(x)
    if mu.std() > 1e-6 and torch.allclose(mu, log_var):
        yield Finding(findings.LOG_VAR_IS_MU, "encode returns the same numbers twice.")
    elif slopes.reading == "log σ²" and log_var.min() == 0 and log_var.max() > 0:
        n_zero = (log_var == 0).sum()
        if n_zero > 0.1 * log_var.numel():
            evidence = f"Of {log_var.numel()} values of log_var, {n_zero} are 0 and none is below."
            yield Finding(findings.WRONG_RANGE, evidence)
    yield from _inspect_range(model, x, output, mu, slopes)
    yield from _inspect_noise(model, x, mu, slopes.reading)
    yield from _inspect_gradient(model, x, mu, log_var)


def _inspect_range(model, x, output, mu, slopes: Slopes) -> Iterator[Finding]:
    """Find images and outputs that the loss is not made for."""
    if slopes.likelihood is None:
        return
    distribution, _, of = slopes.likelihood.partition(" on ")
    low, high = slopes.limits or (0.0, 1.0)
    targets = f"from {low:.3g} to {high:.3g}"
    if distribution == "Bernoulli" and not (low > -0.01 and high < 1.01):
        evidence = f"The loss's target goes {targets}, and it is a cross-entropy, of [0, 1]."
        yield Finding(findings.WRONG_RANGE, evidence)
        return
    if of == "probabilities" and not _within(output, 0, 1):
        evidence = f"The loss takes probabilities, and the output goes {_from_to(output)}."
        yield Finding(findings.WRONG_RANGE, evidence)
        return
    # Untrained logits may by chance lie in [0, 1] too; those of codes far out do not.
    runs = [_run(model, x, 1000 * torch.randn_like(mu), 0.2 + 0 * mu) for _ in range(4)]
    outputs = [run.output for run in runs]
    if not runs[0].chosen:  # forward does not take what encode returns
        outputs.append(model.decode(1000 * torch.randn_like(mu)).reshape(output.shape))
    outputs = torch.stack(outputs)
    bottom, top = outputs.min().item(), outputs.max().item()
    reach = f"The outputs go {_from_to(outputs)} even for codes of length 1000 a dimension"
    floor = -1 if bottom < -0.99 else 0
    saturated = _within(outputs, floor, 1) and top > 0.99 and bottom < floor + 0.01
    # If they hardly differ, the decoder leaves z aside.
    if top - bottom < 1e-6:
        return
    if of == "logits" and _within(outputs, 0, 1):
        evidence = f"{reach}: the loss, which takes logits, has a sigmoid of its own."
        yield Finding(findings.SIGMOID_TWICE, evidence)
    elif of != "logits" and _within(outputs, 0.5, 0.731059):
        evidence = f"{reach}: a sigmoid of a sigmoid lies in [0.5, 0.731]."
        yield Finding(findings.SIGMOID_TWICE, evidence)
    elif saturated and (of == "logits" or low < floor - 0.1 or high > 1.1):
        what = (
            "the loss takes logits, of all sizes" if of == "logits" else f"the images go {targets}"
        )
        yield Finding(findings.WRONG_RANGE, f"{reach}, and {what}.")


def _inspect_noise(model, x, mu, reading: str | None) -> Iterator[Finding]:
    """Compare z − mu with σ · eps, eps ~ N(0, I), over many runs of one mu and log_var."""
    # mu and log_var differ from element to element; what is called log_var may be a σ, over 0.
    chosen = spread(mu, -2, 2), spread(mu, -2.0 if reading == "log σ²" else 0.2, 2)
    runs = [_run(model, x, *chosen) for _ in range(min(max(64, 4096 // mu.numel()), 256))]
    if any(run.z is None for run in runs):
        return
    mu, v = exact(runs[0].mu), exact(runs[0].log_var)
    noise = torch.stack([exact(run.z) for run in runs]) - mu  # (runs, B, latent_size)
    mean, sigma = noise.mean(dim=0), noise.std(dim=0)
    expected = {name: of(v) for name, of in READINGS.items()}
    tiny = 1e-4 * expected["log σ²"]
    if tiny.max() < 1e-7:  # not to be seen beside mu and rounding
        return
    if (sigma < tiny).all():
        if (mean.abs() < tiny).all():
            evidence = "In training mode z = mu in every run, whatever log_var is."
            yield Finding(findings.NO_NOISE, evidence)
        else:
            evidence = f"In every run z − mu is the same, of size {_rms(mean):.2g}."
            yield Finding(findings.NOT_STANDARD_NORMAL, evidence)
        return
    sigma = sigma.clamp_min(1e-12)
    if seen := "; ".join(_unlike_normal((noise - mean) / sigma, mean / sigma)):
        yield Finding(findings.NOT_STANDARD_NORMAL, f"(z − mu) / σ {seen}.")
        return
    off = {name: _rms((sigma / of).log()) for name, of in expected.items()}
    nearest = min(off, key=off.get)
    right = reading or nearest  # if the loss does not say, all of them may be right
    # exp(0.35) is 1.4: more than chance. The nearest must fit, or it is something else again.
    if off[right] < 0.35:
        return
    worst = max(
        v.argmax(), v.argmin(), key=(sigma / expected[right]).log().abs().flatten().__getitem__
    )
    at, is_, should, near = (
        f"{t.flatten()[worst]:.3g}" for t in (v, sigma, expected[right], expected[nearest])
    )
    evidence = f"Where log_var is {at}, z has σ = {is_}; read as {right}, log_var says {should}"
    if sigma.log().std() < 0.15 and v.std() > 0.3:
        evidence += ", but σ is the same whatever log_var is."
        yield Finding(findings.LOG_VAR_IGNORED, evidence)
    elif off[nearest] < 0.2:
        fault = findings.LOG_VAR_AS_SIGMA
        if nearest == "log σ":
            fault = findings.VARIANCE_AS_SIGMA
        evidence += f", read as {nearest} {near}."
        yield Finding(fault if right == "log σ²" else findings.KL_FORMULA, evidence)
    elif reading and v.std() > 0.3 and _rank_correlation(sigma, v) > 0.7:
        yield Finding(findings.NOT_STANDARD_NORMAL, f"{evidence}.")


def _unlike_normal(eps: Tensor, mean: Tensor) -> Iterator[str]:
    """Say how noise `(runs, B, latent_size)`, of mean 0 and variance 1 over runs, is no N(0, I).

    `mean` `(B, latent_size)` is what its mean was, in units of its standard deviation.
    """
    for dim, what in [(1, "images of the batch"), (2, "latent dimensions")]:
        # The variance of a mean of n is 1/n of theirs if they are independent, theirs if equal.
        n = eps.shape[dim]
        if n > 1 and n * eps.mean(dim=dim).square().mean() > 1 + 0.75 * (n - 1):
            yield f"is the same for all {n} {what}"
    if _rms(mean) > 0.5:
        yield f"has means as far from 0 as {_rms(mean):.2f} of its standard deviation"
    if (fourth := eps.pow(4).mean()) < 2.3:
        yield f"has a fourth moment of {fourth:.2f}, as if drawn evenly from an interval, not 3"


def _inspect_gradient(model, x, mu, log_var) -> Iterator[Finding]:
    """Find what keeps the output from mu and log_var, or takes it past them."""
    names = ["mu", "log_var"]
    if all(parameter.requires_grad for parameter in model.parameters()):  # else it is a choice
        with torch.enable_grad():
            code = model(x)[1:]
        # One that is the same for all images need not come from the encoder.
        cut = [n for n, t in zip(names, code) if not t.requires_grad and (t != t[:1]).any()]
        if cut:
            evidence = f"The model returns {' and '.join(cut)} cut off from the encoder's weights."
            yield Finding(findings.GRADIENT_CUT, evidence)
            return
    chosen = [spread(mu, -2, 2).requires_grad_(), spread(mu, 0.2, 2).requires_grad_()]
    with torch.enable_grad():
        run = _run(model, x, *chosen)
        total = run.output.sum() + torch.zeros((), device=x.device, requires_grad=True)
    if not run.chosen:
        return
    slopes = torch.autograd.grad(total, chosen, allow_unused=True)

    def output_of(images, *code) -> Tensor:
        reseed(x.device, 0)
        return _run(model, images, *code).output.flatten(1)

    before = output_of(x, *chosen)
    changes = [
        not torch.allclose(before, output_of(x, *code))
        for code in [(spread(mu, -2, 2), chosen[1]), (chosen[0], spread(mu, 0.2, 2))]
    ]
    # torch.normal gives derivatives, of 0.
    flat = [slope is None or not slope.any() for slope in slopes]
    cut = [name for name, is_flat, by in zip(names, flat, changes) if is_flat and by]
    # One pixel in each image changes. An autoregressive decoder sees it too, but for later pixels.
    pixels = torch.arange(len(x)), torch.randint(before.shape[1], (len(x),))
    other = x.flatten(1).clone()
    other[pixels] += 0.5 - (other[pixels] > 0.5).to(x)
    after = output_of(other.reshape(x.shape), *chosen)
    if cut:
        evidence = f"The output changes with {' and '.join(cut)}, but gives no gradient to it."
        yield Finding(findings.GRADIENT_CUT, evidence)
    elif slopes[0] is None:
        called = "" if run.z is not None else ": decode is never called with z"
        evidence = f"The output is the same whatever mu and log_var are{called}."
        yield Finding(findings.Z_UNUSED, evidence)
    elif not torch.allclose(before[pixels], after[pixels], rtol=1e-3, atol=1e-5):
        evidence = "With z held, pixels of the output still change with the same pixels of x."
        yield Finding(findings.PAST_Z, evidence)


class Run(NamedTuple):
    """One run of a model, and whether its mu and log_var are the chosen ones."""

    output: Tensor  # (B, ...)
    z: Tensor | None  # (B, latent_size), as the decoder gets it
    mu: Tensor
    log_var: Tensor
    chosen: bool


def _run(model, x, mu, log_var) -> Run:
    """Run a model with this mu and log_var in the place of what `encode` returns.

    This needs an `encode` that returns just two tensors (B, latent_size); what it returns else is
    let through: a named tuple, for one, may be used by its names. If `decode` is not called, z is
    what alone goes into submodules with as many numbers.
    """
    encode, decode, decoded, heard, chosen = model.encode, model.decode, [], [], []

    def encode_as_chosen(*arguments, **options):
        code = encode(*arguments, **options)
        if type(code) not in (tuple, list) or [getattr(t, "ndim", 0) for t in code] != [2, 2]:
            return code
        chosen.append(True)
        return mu.clone(), log_var.clone()  # forward may work in place

    def decode_and_tell(z, *arguments, **options):
        decoded.append(z.clone())
        return decode(z, *arguments, **options)

    def hear(module, inputs):
        heard.extend(inputs[:1])

    # Before the class and the submodules in Python's order of look-up; the caller mends it.
    vars(model).update(encode=encode_as_chosen, decode=decode_and_tell)
    hook = nn.modules.module.register_module_forward_pre_hook(hear)
    try:
        output, *code = model(x)
    finally:
        hook.remove()
        vars(model).update(encode=encode, decode=decode)
    codes = [
        z.reshape(code[0].shape)
        for z in decoded or heard
        if isinstance(z, Tensor) and len(z) == len(x) and z.numel() == code[0].numel()
    ]
    single = bool(codes) and all(torch.equal(z, codes[0]) for z in codes)
    return Run(output, codes[0].clone() if single else None, *code, bool(chosen))


def _within(values: Tensor, low: float, high: float) -> bool:
    return values.min().item() >= low - 1e-6 and values.max().item() <= high + 1e-6


def _from_to(values: Tensor) -> str:
    return f"from {values.min().item():.3f} to {values.max().item():.3f}"


def _rms(values: Tensor) -> float:
    return values.square().mean().sqrt().item()


def _rank_correlation(a: Tensor, b: Tensor) -> float:
    ranks = [t.flatten().argsort().argsort().double() for t in (a, b)]
    return torch.corrcoef(torch.stack(ranks))[0, 1].item()
