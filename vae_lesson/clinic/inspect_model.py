"""A model by itself: what it makes of a mu and a log_var that are chosen here."""

from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vae_lesson.arguments import shapes_of
from vae_lesson.clinic import findings
from vae_lesson.clinic.findings import Finding
from vae_lesson.clinic.inspect_loss import AS_THE_NOISE, READINGS, Slopes, reseed, spread
from vae_lesson.data import exact


def inspect_model(model: nn.Module, x: Tensor, slopes: Slopes) -> list[Finding]:
    """Return what is wrong with a model in training mode, beside a loss of these slopes.

    `model(x)` returns (output, mu, log_var), all finite; x and output `(B, ...)`, mu and log_var
    `(B, latent_size)`. mu and log_var are chosen here, if `forward` takes them from `encode`.
    """
    output, mu, log_var = model(x)
    found = [
        _inspect_code(model, x, mu, log_var, slopes.reading),
        _inspect_range(model, x, output, mu, slopes) if slopes.likelihood else None,
        _inspect_noise(model, x, mu, slopes.reading),
        _inspect_gradient(model, x, mu),
    ]
    return [finding for finding in found if finding]


def as_the_noise(model: nn.Module, x: Tensor, v: Tensor, by_v: Tensor) -> str | None:
    """Return AS_THE_NOISE if a KL of this derivative takes log_var for what the noise does, or if
    σ is not learned.

    Whatever σ is of log_var, the KL's derivative is (σ² − 1)·(log σ)', and that of log |z − mu| is
    (log σ)': together they give the KL's σ. Shapes: v, log_var, and by_v `(B, latent_size)`.
    """
    if not by_v.isfinite().all():
        return None
    with torch.enable_grad():
        if not by_v.any() and not model(x)[2].requires_grad:
            return AS_THE_NOISE  # σ is not learned: its part of the KL is a constant
        chosen = {"mu": spread(v, -2, 2), "log_var": v.clone().requires_grad_()}
        one = _pass(model, x, **chosen)
        if not one.chosen or one.z is None or not one.z.requires_grad:
            return None
        log_noise = (one.z - chosen["mu"]).abs().log().sum()
        (slope,) = torch.autograd.grad(log_noise, chosen["log_var"], allow_unused=True)
    if slope is None:  # a σ that is a weight
        return None
    sigma = (1 + by_v / exact(slope)).sqrt()
    passes = _passes(model, x, *chosen.values(), n_values=16384)
    squares = (_noise(passes) / sigma).square().mean(dim=0)
    there = squares.isfinite()  # not where σ is clamped, and both derivatives are 0
    halves = squares[there][exact(v)[there].argsort()].chunk(2)
    # Of few squares the mean is off by chance: 5 standard errors.
    off = [max(0.07, 5 * (2 / (len(passes) * max(len(half), 1))) ** 0.5) for half in halves]
    fits = all(abs(half.mean() - 1) < limit for half, limit in zip(halves, off))
    return AS_THE_NOISE if fits else None


def _inspect_code(model, x, mu, log_var, reading: str | None) -> Finding | None:
    """Find what the encoder makes of log_var."""
    if mu.std() > 1e-6 and torch.allclose(mu, log_var):
        return Finding(findings.LOG_VAR_IS_MU, "encode returns the same numbers twice.")
    if reading not in ("log σ²", "log σ"):
        return None
    # Untrained ones may all be over 0 by chance; those of images far out are not.
    with suppress(Exception):  # decode may not take what comes of such images
        images = x, -x, torch.randn_like(x)
        far = torch.cat([log_var, *(model(1000 * some)[2] for some in images)])
        lowest = far.min()
        n_lowest = (far < lowest + 1e-3).sum()
        if lowest > -1e-6 and 0.1 * far.numel() < n_lowest < far.numel():
            evidence = f"log_var ends at {lowest:.2f}, so σ at {READINGS[reading](lowest):.2f}."
            return Finding(findings.WRONG_RANGE, evidence)


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
    beyond = saturated and (of == "logits" or low < floor - 0.1 or high > 1.1)
    # ReLU, softplus, exp and logsigmoid have one end, at 0.
    middle = 0.5 if of == "logits" else 0.0  # what an output of 0 means
    one_end = (bottom > -1e-6 and low < middle - 0.1) or (top < 1e-6 and high > middle + 0.1)
    if beyond or one_end:
        wanted = "logits" if of == "logits" else f"images from {low:.3g} to {high:.3g}"
        return Finding(findings.WRONG_RANGE, f"{reach}, and the loss takes {wanted}.")


def _inspect_noise(model, x, mu, reading: str | None) -> Finding | None:
    """Compare z − mu with σ · eps, eps ~ N(0, I), over many passes with one mu and log_var."""
    # mu and log_var differ from element to element; what is called log_var may be a σ, over 0.
    chosen = spread(mu, -2, 2), spread(mu, -2.0 if reading == "log σ²" else 0.2, 2)
    passes = _passes(model, x, *chosen, n_values=4096)
    codes = [torch.cat([each.mu, each.log_var], dim=1) for each in passes]
    if passes[0].chosen and any(not torch.equal(code, codes[0]) for code in codes):
        evidence = "With mu and log_var held in encode, forward returns others in every run."
        return Finding(findings.OTHER_CODE, evidence)
    if any(each.z is None for each in passes):
        return None
    mu, v, noise = exact(passes[0].mu), exact(passes[0].log_var), _noise(passes)
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
    if reading == AS_THE_NOISE:
        expected[reading] = sigma
    off = {name: _rms((sigma / of).log()) for name, of in expected.items()}
    nearest = min(off, key=off.get)
    right = reading or nearest  # if the loss does not say, all of them may be right
    enough = v.numel() > 15  # fewer could fit anything
    ratio, fourth = (mean / sigma).abs(), eps.pow(4).mean()
    if enough and ratio.mean() > 0.5 and ratio.std() < 0.25 * ratio.mean():  # whatever σ is
        evidence = f"z − mu has a mean, of {ratio.mean():.2f} σ (with rand it is 1.73)."
        return Finding(findings.NOT_STANDARD_NORMAL, evidence)
    if _rms(mean / sigma) > 0.5:  # more than chance
        (a, b, c, d), rest = _fit(mean, mu, expected[right], v, torch.ones_like(v))
        # A flow, say, turns z into something else, which is no sum of these with mu once or never.
        fits = rest < 0.2 * _rms(sigma) and min(abs(a), abs(a + 1)) < 0.1
        evidence = f"z has the mean {1 + a:.2f}·mu + {b:.2f}·σ + {c:.2f}·log_var + {d:.2f}."
        wrong = enough and fits and (b * expected[right] + c * v).std() > 0.3
        return Finding(findings.NOT_STANDARD_NORMAL, evidence) if wrong else None
    shape = min((sigma / of).log().std() for of in expected.values())  # off by more than a factor
    if fourth < 2.3 and min(off[right], shape) < 0.35:
        evidence = f"eps has the fourth moment {fourth:.2f}, N(0, 1) 3, rand 1.8."
        return Finding(findings.NOT_STANDARD_NORMAL, evidence)
    if off[right] < 0.35:  # exp(0.35) is 1.4: no more than chance
        return None
    at = v.argmin()
    low, has, wanted = (values.take(at) for values in (v, sigma, expected[right]))
    evidence = f"Where log_var is {low:.3g}, z has σ = {has:.3g}; as {right} it says {wanted:.3g}"
    if sigma.log().std() < 0.15 and v.std() > 0.3:
        return Finding(findings.LOG_VAR_IGNORED, f"{evidence}. σ is the same everywhere.")
    if off[nearest] < 0.2:  # it must fit, or it is something else again
        fault = findings.VARIANCE_AS_SIGMA if nearest == "log σ" else findings.LOG_VAR_AS_SIGMA
        fault = fault if right == "log σ²" else findings.KL_FORMULA
        return Finding(fault, f"{evidence}, as {nearest} {expected[nearest].take(at):.3g}.")
    # σ comes from log_var alone?
    (*_, of_mu), rest = _fit(sigma.log(), torch.ones_like(v), v, v**2, mu**2)
    if reading and enough and (shape < 0.13 or (rest < 0.13 and abs(of_mu) < 0.05)):
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


def _passes(model, x, mu, log_var, n_values: int) -> list[Pass]:
    """Return so many passes that some n_values numbers of z are drawn, but at least 64 and at most
    n_values / 16."""
    n = min(max(64, n_values // mu.numel()), n_values // 16)
    return [_pass(model, x, mu, log_var) for _ in range(n)]


def _noise(passes: list[Pass]) -> Tensor:
    """Return z − mu of each pass, `(passes, B, latent_size)`."""
    return torch.stack([exact(each.z) - exact(each.mu) for each in passes])


def _pass(model, x, mu, log_var) -> Pass:
    """Call a model with this mu and log_var in the place of what `encode` returns.

    This needs an `encode` that returns just two tensors (B, latent_size); what it returns else is
    let through: a named tuple, for one, may be used by its names.
    """
    encode, decode, codes, chosen = model.encode, model.decode, [], []

    def encode_as_chosen(*arguments, **options):
        code = encode(*arguments, **options)
        if type(code) not in (tuple, list) or shapes_of(code) != 2 * [tuple(mu.shape)]:
            return code
        if codes:  # of what was decoded: another code
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
