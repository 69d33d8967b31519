"""A model by itself: what it makes of a mu and a log_var that are chosen here."""

from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vae_lesson.clinic import findings
from vae_lesson.clinic.findings import Finding
from vae_lesson.clinic.inspect_loss import READINGS, Slopes, reseed, spread
from vae_lesson.data import exact


def inspect_model(model: nn.Module, x: Tensor, slopes: Slopes) -> list[Finding]:
    """Return what is wrong with a model in training mode, beside a loss of these slopes.

    `model(x)` returns (output, mu, log_var), all finite; x and output `(B, ...)`, mu and log_var
    `(B, latent_size)`. mu and log_var are chosen here, if `forward` takes them from `encode`.
    """
    output, mu, log_var = model(x)
    found = [
        _inspect_code(mu, log_var, slopes.reading),
        _inspect_range(model, x, output, mu, slopes) if slopes.likelihood else None,
        _inspect_noise(model, x, mu, slopes.reading),
        _inspect_gradient(model, x, mu),
    ]
    return [finding for finding in found if finding]


def _inspect_code(mu, log_var, reading: str | None) -> Finding | None:
    """Find what the encoder makes of log_var."""
    n_zero, n = (log_var == 0).sum(), log_var.numel()
    if mu.std() > 1e-6 and torch.allclose(mu, log_var):
        return Finding(findings.LOG_VAR_IS_MU, "encode returns the same numbers twice.")
    if reading == "log σ²" and log_var.min() == 0 and 0.1 * n < n_zero < n:
        return Finding(findings.WRONG_RANGE, f"{n_zero} of {n} log_var are 0, and none is below.")


def _inspect_range(model, x, output, mu, slopes: Slopes) -> Finding | None:
    """Find images and outputs that the loss is not made for."""
    distribution, _, of = slopes.likelihood.partition(" on ")
    low, high = slopes.limits or (0.0, 1.0)
    if distribution == "Bernoulli" and (low < -0.01 or high > 1.01):
        return Finding(findings.WRONG_RANGE, f"The target goes from {low:.3g} to {high:.3g}.")
    bottom, top = output.aminmax()
    if of == "probabilities" and (bottom < -1e-6 or top > 1 + 1e-6):
        evidence = f"The loss takes probabilities, the output goes from {bottom:.3g} to {top:.3g}."
        return Finding(findings.WRONG_RANGE, evidence)
    # Untrained outputs may lie in any range by chance; those of codes far out do not.
    passes = [_pass(model, x, 1000 * torch.randn_like(mu), 0.2 + 0 * mu) for _ in range(4)]
    outputs = [each.output.flatten() for each in passes]
    if not passes[0].chosen:
        with suppress(Exception):  # decode may take more than z
            outputs.append(model.decode(1000 * torch.randn_like(mu)).flatten())
    bottom, top = torch.cat(outputs).aminmax()
    reach = f"For codes of length 1000 a dimension the outputs go from {bottom:.3f} to {top:.3f}"
    least, most = (0, 1) if of == "logits" else (0.5, 0.73106)  # what one sigmoid or two can reach
    if top - bottom < 1e-6:  # the decoder leaves z aside
        return None
    if least - 1e-6 < bottom and top < most + 1e-6:
        return Finding(findings.SIGMOID_TWICE, f"{reach}: there is a second sigmoid.")
    floor = 0 if bottom > -0.99 else -1  # of a sigmoid, or of tanh
    saturated = floor - 1e-6 < bottom < floor + 0.01 and 0.99 < top < 1 + 1e-6
    if saturated and (of == "logits" or low < floor - 0.1 or high > 1.1):
        wanted = "logits" if of == "logits" else f"images from {low:.3g} to {high:.3g}"
        return Finding(findings.WRONG_RANGE, f"{reach}, and the loss takes {wanted}.")


def _inspect_noise(model, x, mu, reading: str | None) -> Finding | None:
    """Compare z − mu with σ · eps, eps ~ N(0, I), over many passes with one mu and log_var."""
    # mu and log_var differ from element to element; what is called log_var may be a σ, over 0.
    chosen = spread(mu, -2, 2), spread(mu, -2.0 if reading == "log σ²" else 0.2, 2)
    passes = [_pass(model, x, *chosen) for _ in range(min(max(64, 4096 // mu.numel()), 256))]
    if any(each.z is None for each in passes):
        return None
    mu, v = exact(passes[0].mu), exact(passes[0].log_var)
    noise = torch.stack([exact(each.z) for each in passes]) - mu  # (passes, B, latent_size)
    mean, sigma = noise.mean(dim=0), noise.std(dim=0).clamp_min(1e-12)
    tiny = 1e-4 * READINGS["log σ²"](v)
    if tiny.max() < 1e-7:  # not to be seen beside mu and rounding
        return None
    if (sigma < tiny).all():
        if (mean.abs() < tiny).all():
            return Finding(findings.NO_NOISE, "In training mode z = mu in every run.")
        return Finding(findings.NOT_STANDARD_NORMAL, "z − mu is the same in every run.")
    eps = (noise - mean) / sigma
    for dim, what in [(1, "images of the batch"), (2, "latent dimensions")]:
        # The variance of a mean of n is 1/n of theirs if they are independent, theirs if equal.
        n = eps.shape[dim]
        if n > 1 and n * eps.mean(dim=dim).square().mean() > 1 + 0.75 * (n - 1):
            return Finding(findings.NOT_STANDARD_NORMAL, f"eps is the same for all {n} {what}.")
    return _inspect_mean_and_sigma(mean, sigma, eps, mu, v, reading)


def _inspect_mean_and_sigma(mean, sigma, eps, mu, v, reading: str | None) -> Finding | None:
    """Compare the mean of z − mu with 0, its σ with what log_var says, and eps with N(0, 1)."""
    expected = {name: of(v) for name, of in READINGS.items()}
    off = {name: _rms((sigma / of).log()) for name, of in expected.items()}
    nearest = min(off, key=off.get)
    right = reading or nearest  # if the loss does not say, all of them may be right
    enough = v.numel() > 15  # fewer could fit anything
    if _rms(mean / sigma) > 0.5:  # more than chance
        (a, b, c), rest = _fit(mean, mu, expected[right], v)
        # A flow, say, turns z into something else, which is no sum of these with mu once or never.
        fits = rest < 0.2 * _rms(sigma) and min(abs(a), abs(a + 1)) < 0.1
        evidence = f"z has the mean {1 + a:.2f}·mu + {b:.2f}·σ + {c:.2f}·log_var."
        wrong = enough and fits and max(abs(b), abs(c)) > 0.3
        return Finding(findings.NOT_STANDARD_NORMAL, evidence) if wrong else None
    if off[right] < 0.35:  # exp(0.35) is 1.4: no more than chance
        fourth = eps.pow(4).mean()
        evidence = f"eps has the fourth moment {fourth:.2f}, N(0, 1) 3, rand 1.8."
        return Finding(findings.NOT_STANDARD_NORMAL, evidence) if fourth < 2.3 else None
    at = v.argmin()
    low, has, wanted = (values.take(at) for values in (v, sigma, expected[right]))
    evidence = f"Where log_var is {low:.3g}, z has σ = {has:.3g}; as {right} it says {wanted:.3g}"
    if sigma.log().std() < 0.15 and v.std() > 0.3:
        return Finding(findings.LOG_VAR_IGNORED, f"{evidence}. σ is the same everywhere.")
    if off[nearest] < 0.2:  # it must fit, or it is something else again
        fault = findings.VARIANCE_AS_SIGMA if nearest == "log σ" else findings.LOG_VAR_AS_SIGMA
        fault = fault if right == "log σ²" else findings.KL_FORMULA
        return Finding(fault, f"{evidence}, as {nearest} {expected[nearest].take(at):.3g}.")
    (*_, of_mu), rest = _fit(sigma.log(), torch.ones_like(v), v, v**2, mu**2)
    if reading and enough and rest < 0.13 and abs(of_mu) < 0.05:  # σ comes from log_var alone
        return Finding(findings.NOT_STANDARD_NORMAL, f"{evidence}.")


def _fit(values: Tensor, *parts: Tensor) -> tuple[list[float], float]:
    """Return how much of each of these parts is in values, and how far that is from them."""
    A, b = torch.stack([part.flatten() for part in parts], dim=1), values.flatten()
    weights = torch.linalg.lstsq(A, b).solution
    return weights.tolist(), _rms(A @ weights - b)


def _rms(values: Tensor) -> float:
    return values.square().mean().sqrt().item()


def _inspect_gradient(model, x, mu) -> Finding | None:
    """Find what keeps the output from mu and log_var, or takes it past them."""
    chosen = {name: spread(mu, 0.2, 2).requires_grad_() for name in ("mu", "log_var")}
    with torch.enable_grad():
        own = dict(zip(chosen, model(x)[1:]))
        first = _pass(model, x, **chosen)
        constant = torch.zeros((), device=x.device, requires_grad=True)
        total = first.output.sum() + constant  # has a gradient, whatever the output is made of
    all_learn = all(parameter.requires_grad for parameter in model.parameters())  # else by choice
    for name, part in own.items():
        # One that is the same for all images need not come from the encoder.
        if all_learn and not part.requires_grad and (part != part[:1]).any():
            return Finding(findings.GRADIENT_CUT, f"{name} is cut off from the encoder's weights.")
    if not first.chosen:
        return None

    def output(images=x, **other) -> Tensor:
        reseed(x.device, 0)
        return _pass(model, images, **(chosen | other)).output.flatten(1)

    before = output()
    slopes = dict(zip(chosen, torch.autograd.grad(total, chosen.values(), allow_unused=True)))
    for name, slope in slopes.items():
        moves = not torch.allclose(before, output(**{name: chosen[name] + 0.5}))
        if moves and (slope is None or not slope.any()):  # torch.normal gives derivatives of 0
            return Finding(findings.GRADIENT_CUT, f"The output gives {name} no gradient.")
    if slopes["mu"] is None:
        return Finding(findings.Z_UNUSED, "The output is the same whatever mu is.")
    # One pixel of each image changes. An autoregressive decoder uses it too, for later pixels.
    pixels = torch.arange(len(x)), torch.randint(before.shape[1], (len(x),))
    other = x.flatten(1).clone()
    other[pixels] += 0.5 - (other[pixels] > 0.5).to(x)
    if not torch.allclose(before[pixels], output(other.reshape(x.shape))[pixels], 1e-3, 1e-5):
        return Finding(findings.PAST_Z, "With z held, the output's pixels change with those of x.")


class Pass(NamedTuple):
    """One forward pass of a model, and whether its mu and log_var are the chosen ones."""

    output: Tensor  # (B, ...)
    mu: Tensor
    log_var: Tensor
    z: Tensor | None  # (B, latent_size), as `decode` gets it; None if it is not called once
    chosen: bool


def _pass(model, x, mu, log_var) -> Pass:
    """Call a model with this mu and log_var in the place of what `encode` returns.

    This needs an `encode` that returns just two tensors (B, latent_size); what it returns else is
    let through: a named tuple, for one, may be used by its names.
    """
    encode, decode, codes, chosen = model.encode, model.decode, [], []

    def encode_as_chosen(*arguments, **options):
        code = encode(*arguments, **options)
        if type(code) not in (tuple, list) or [getattr(t, "ndim", 0) for t in code] != [2, 2]:
            return code
        chosen.append(True)
        return mu.clone(), log_var.clone()  # forward may work in place

    def decode_and_tell(z, *arguments, **options):
        codes.append(z.clone())
        return decode(z, *arguments, **options)

    # Before the class and the submodules in Python's order of look-up; the caller mends it.
    vars(model).update(encode=encode_as_chosen, decode=decode_and_tell)
    try:
        output, *code = model(x)
    finally:
        vars(model).update(encode=encode, decode=decode)
    seen = len(codes) == 1 and codes[0].numel() == code[0].numel()
    z = codes[0].reshape(code[0].shape) if seen else None
    return Pass(output, *code, z, bool(chosen))
