"""What is wrong with a VAE and its loss, found without training: our own models and a learner's.

`inspect_vae` measures how the loss changes with the output, mu and log_var, and what the model
makes of a chosen mu and log_var; it does not read code. Where this fits nothing that it knows, it
says nothing.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

FAULTS = (
    WRONG_SIGN := "wrong sign of the KL",
    MEAN_FOR_SUM := "mean for sum",
    LOG_VAR_AS_SIGMA := "log_var used as sigma",
    NO_NOISE := "no noise",
    SIGMOID_TWICE := "sigmoid twice",
    VARIANCE_AS_SIGMA := "variance used as sigma",
    KL_FORMULA := "KL formula",
    NOT_FINITE := "not finite",
)
CURES = {
    WRONG_SIGN: "Add the KL to the reconstruction: KL = −½ sum(1 + log_var − mu² − exp(log_var)).",
    MEAN_FOR_SUM: "Sum over pixels and over latent dimensions, then take the same mean over images "
    "of both.",
    LOG_VAR_AS_SIGMA: "σ is exp(½ log_var): z = mu + exp(½ log_var)·eps.",
    NO_NOISE: "Draw z = mu + exp(½ log_var)·eps with fresh eps ~ N(0, I) at every step.",
    SIGMOID_TWICE: "Take one of the two away: where the loss takes logits, let decode return them.",
    VARIANCE_AS_SIGMA: "σ is exp(½ log_var): z = mu + exp(½ log_var)·eps.",
    KL_FORMULA: "Compare the KL term by term with ½ (mu² + exp(log_var) − 1 − log_var), and the σ "
    "in it with that of the noise.",
    NOT_FINITE: "Look at the images and the weights; the logarithm of a probability of 0 is "
    "infinite (compute from logits), and exp(log_var) overflows above 88.",
}


class Finding(NamedTuple):
    """One thing that is wrong: its name (one of FAULTS), and what was measured."""

    fault: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.fault}. {self.evidence} {CURES[self.fault]}"


def inspect_vae(model: nn.Module, loss: Callable, x: Tensor) -> list[Finding]:
    """Return what is wrong with a VAE and its loss, as far as it can be measured; [] if nothing is.

    `model(x)` returns (output, mu, log_var); `model.encode` and `model.decode` are the two halves.
    `loss(output, x, mu, log_var)` returns `(B,)` or one number, the sum or the mean of the batch.
    The output may be logits, probabilities or pixels: the loss's derivative tells which it takes.

    The prior is taken to be N(0, I), and penalties on mu or log_var count as part of the KL.
    Another beta than 1 is a choice, and so is a Gaussian's variance: neither is a fault. A loss
    that draws noise of its own or leaves the output aside is not judged, nor is the KL's sign or
    the reduction beside a likelihood not known here.
    It needs no training, and leaves the weights, their gradients, the modes and the random state.

    Shapes: x `(B, ...)`, float32 or float64, as the weights; output as many values as x; mu and
    log_var `(B, latent_size)`.
    Raises: ValueError if model, loss or x do not honour this.
    """
    _check(model, x)
    with _undisturbed(model, x.device):
        output, mu, log_var = _run(model, x)
        findings = list(_inspect_finite(loss, output, x, mu, log_var))
        # Outputs of all kinds may lie in (0, 1). At such mu the KL is beyond free bits and any
        # capacity. What is called log_var may be a σ, over 0; the loss may clamp it: stay below 1.
        far = mu.clone().uniform_(60, 100) * mu.clone().uniform_(-1, 1).sign()
        at = output.clone().uniform_(0.05, 0.95), x, far, mu.clone().uniform_(0.2, 0.9)
        slopes = _slopes(loss, *at)
        findings += _inspect_loss(loss, at, slopes)
        if all(tensor.isfinite().all() for tensor in (output, mu, log_var)):
            findings += _inspect_noise(model, x, slopes.reading or "log σ²")
            if slopes.likelihood:
                findings += _inspect_output(model, x, slopes.likelihood)
    return sorted(findings, key=lambda finding: FAULTS.index(finding.fault))


# --- the loss: how it changes with the output, mu and log_var -------------------------------------

# What a model may call log_var: σ of it, and the derivative of the KL by it. A learner's model may
# be at home in another reading than log σ²; it is healthy if loss and noise read it alike.
READINGS = {
    "log σ²": (lambda v: torch.exp(0.5 * v), lambda v: 0.5 * (torch.exp(v) - 1)),
    "log σ": (torch.exp, lambda v: torch.exp(2 * v) - 1),
    "σ": (torch.abs, lambda v: v - 1 / v),
    "σ²": (lambda v: v.abs().sqrt(), lambda v: 0.5 * (1 - 1 / v)),
    "2σ": (lambda v: v.abs() / 2, lambda v: v / 4 - 1 / v),
}
# The derivative of a reconstruction loss by the output o, for each likelihood known here.
RECON_SLOPES = {
    "Bernoulli on logits": lambda o, x: o.sigmoid() - x,
    "Bernoulli on probabilities": lambda o, x: (o - x) / (o * (1 - o)),
    "Gaussian": lambda o, x: o - x,
    "Gaussian on logits": lambda o, x: (o.sigmoid() - x) * o.sigmoid() * (-o).sigmoid(),
}


class Slopes(NamedTuple):
    """A loss's derivatives, as multiples of the right ones; None for what fits nothing known."""

    likelihood: str | None
    recon: float | None
    kl: float | None  # by mu; 0: no KL at all, or beta = 0
    reading: str | None  # of log_var, from the derivative by it


def _inspect_finite(loss, output, x, mu, log_var) -> Iterator[Finding]:
    """Say what is NaN or infinite, the first of what the model returns and of the loss."""
    parts = {"mu": mu, "log_var": log_var, "the output": output}
    if all(tensor.isfinite().all() for tensor in parts.values()):  # else a loss may refuse them
        parts["the loss"] = _value(loss, output, x, mu, log_var)
    for name, tensor in parts.items():
        if n_bad := int((~tensor.isfinite()).sum()):
            evidence = f"Of {tensor.numel()} values of {name}, {n_bad} are NaN or infinite."
            yield Finding(NOT_FINITE, evidence)
            return


def _inspect_loss(loss, at, slopes: Slopes) -> Iterator[Finding]:
    """Judge a loss by its derivatives alone."""
    _, recon, kl, reading = slopes
    if recon is not None and recon < 0:
        raise ValueError("the loss falls as output leaves x: give what is minimised, not the ELBO")
    # Without a known reconstruction the whole loss may be turned round: an ELBO, not −ELBO.
    if recon and kl and kl < 0:
        evidence = f"The loss changes by {kl:.3g}·mu with mu: it falls as the KL grows."
        yield Finding(WRONG_SIGN, evidence)
    if kl is None or (kl and reading is None):
        by = "mu is not beta·mu" if kl is None else "log_var is not beta·½(exp(log_var) − 1)"
        evidence = (
            f"The loss's derivative by {by}, as it is for beta · KL(N(mu, σ²) ‖ N(0, 1)): the "
            "prior is taken to be N(0, I), and penalties on mu or log_var count as part of the KL."
        )
        yield Finding(KL_FORMULA, evidence)
    if recon and kl:
        yield from _inspect_reduction(loss, at, slopes)


def _inspect_reduction(loss, at, found: Slopes) -> Iterator[Finding]:
    """Find a mean on one side and a sum on the other by a second batch, image or code beside."""
    output, x, mu, log_var = at
    n_images, n_pixels, n_latents = len(x), output[0].numel(), mu[0].numel()

    def reduction(of: str, *arguments) -> str | None:
        """Twice as many of them leave a sum's derivative by each as it is, and halve a mean's."""
        try:
            with warnings.catch_warnings(action="ignore"):  # of shapes that differ
                ratio = getattr(_slopes(loss, *arguments), of) / getattr(found, of)
        except Exception:  # the loss takes this shape only, or is not known any more
            return None
        return {1.0: "sum", 0.5: "mean"}.get(round(ratio, 2))

    batch = [torch.cat([tensor, tensor]) for tensor in at]
    images = [torch.cat([t, t], dim=-1) for t in (output, x.reshape(output.shape))]
    codes = [torch.cat([t, t], dim=1) for t in (mu, log_var)]
    over_pixels = reduction("recon", *images, mu, log_var)
    over_latents = reduction("kl", output, x, *codes)
    over_images = recon_over, kl_over = reduction("recon", *batch), reduction("kl", *batch)

    # ½ squared error and squared error are both at home: take the one that needs no weight.
    beta = abs(found.kl) / found.recon
    betas = [beta, 2 * beta] if found.likelihood.startswith("Gaussian") else [beta]
    # By how much each of these multiplies beta. A fixed number may stand for the batch size, so
    # that a mean over images beside a sum says nothing by itself: take what is nearer to beta.
    by_latents = 1 / n_latents if over_latents == "mean" else 1.0
    by_images = {("mean", "sum"): n_images, ("sum", "mean"): 1 / n_images}.get(over_images, 1.0)
    by_pixels = n_pixels if over_pixels == "mean" else 1.0
    pairs = [(b, by_batch) for b in betas for by_batch in (1.0, by_images)]
    if n_pixels >= 400 and any(abs(b / (by_latents * n * n_pixels) - 1) < 0.01 for b, n in pairs):
        by_pixels = n_pixels  # by a fixed number, which nobody would choose as beta
    beta, by_images = min(
        pairs, key=lambda pair: abs(math.log(pair[0] / (by_pixels * by_latents * pair[1])))
    )
    how = "a mean over" if over_pixels == "mean" else "as if divided by"
    factors = {
        f"the reconstruction is {how} {n_pixels} pixels": by_pixels,
        f"the KL is a mean over {n_latents} latent dimensions": by_latents,
        f"the reconstruction is a {recon_over} over the {n_images} images of the batch and the KL "
        f"a {kl_over}": by_images,
    }
    factor = math.prod(factors.values())
    # A weight that makes up for it is no fault, nor is one that may have been chosen to. Beside a
    # mean over many pixels a weight of 4 makes up for nothing; else only a weight of 1 is certain.
    weight = beta / factor
    uncorrected = by_pixels >= 100 and weight > n_pixels**-0.25
    if abs(math.log(factor)) > math.log(1.5) and (uncorrected or abs(weight - 1) < 0.01):
        said = "; ".join(what for what, by in factors.items() if by != 1)
        evidence = f"Here {said}. beta is in truth {beta:.3g}, and looks like {weight:.3g}."
        yield Finding(MEAN_FOR_SUM, evidence)


def _slopes(loss, output, x, mu, log_var) -> Slopes:
    """Measure the loss's derivatives here."""
    by_output, by_mu, by_log_var = first = _gradients(loss, output, x, mu, log_var)
    second = _gradients(loss, output, x, mu, log_var)
    steady = all(torch.allclose(a, b, rtol=1e-3, atol=1e-7) for a, b in zip(first, second))
    # It draws noise, or the reconstruction, if any, comes by way of mu and log_var: no judgement.
    if not steady or not by_output.any():
        return Slopes(None, None, 0.0, None)
    x = x.reshape(output.shape)
    scales = {name: _multiple(by_output, slope(output, x)) for name, slope in RECON_SLOPES.items()}
    likelihood = next((name for name, scale in scales.items() if scale), None)
    kl = _multiple(by_mu, mu) if by_mu.any() or by_log_var.any() else 0.0
    readings = [
        name
        for name, (_, slope) in READINGS.items()
        if kl and torch.allclose(by_log_var, kl * slope(log_var), rtol=0.01, atol=0)
    ]
    return Slopes(likelihood, scales.get(likelihood), kl, next(iter(readings), None))


def _gradients(loss, output, x, mu, log_var) -> tuple[Tensor, ...]:
    """Return the derivatives of the batch's sum by output, mu and log_var; no .grad is written."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (output, mu, log_var)]
    with torch.enable_grad():
        value = _value(loss, leaves[0], x, *leaves[1:]).sum()
        if not value.requires_grad:
            raise ValueError("the loss does not depend on output, mu or log_var, or detaches them")
        return torch.autograd.grad(value, leaves, materialize_grads=True)


def _multiple(measured: Tensor, expected: Tensor) -> float | None:
    """Return c if measured = c · expected to a thousandth, else None."""
    a, b = (tensor.cpu().double().flatten() for tensor in (measured, expected))  # MPS has no double
    c = (a @ b / (b @ b)).item()
    fits = c != 0 and math.isfinite(c) and (a - c * b).norm() < 1e-3 * a.norm()
    return c if fits else None


# --- the model: what it makes of a chosen mu and log_var ------------------------------------------


def _inspect_noise(model, x, right: str) -> Iterator[Finding]:
    """Compare the σ of z with what log_var, in the right reading, should make of it."""
    pairs = [_log_sigmas(model, x, log_var) for log_var in (0.2, 2.0)]
    if None in pairs:
        return
    if all(measured < expected["log σ²"] - math.log(1e4) for measured, expected in pairs):
        yield Finding(NO_NOISE, "In training mode z = mu in every run, whatever log_var is.")
        return
    off = {name: math.sqrt(sum((m - e[name]) ** 2 for m, e in pairs) / 2) for name in READINGS}
    nearest = min(off, key=off.get)
    # exp(0.35) is 1.4: more than chance. The nearest must fit, or it is something else again.
    if off[right] > 0.35 and off[nearest] < 0.15:
        measured, expected = pairs[0]
        numbers = measured, expected[right], expected[nearest]
        sigma, wanted, near = (f"{math.exp(log_sigma):.3g}" for log_sigma in numbers)
        evidence = (
            f"The noise in z has σ = {sigma} where log_var, read as {right}, says {wanted}, "
            f"and read as {nearest} {near}."
        )
        fault = VARIANCE_AS_SIGMA if nearest == "log σ" else LOG_VAR_AS_SIGMA
        yield Finding(fault if right == "log σ²" else KL_FORMULA, evidence)


def _log_sigmas(model, x, log_var: float) -> tuple[float, dict[str, float]] | None:
    """Return log σ of the noise in z, and what it should be for each reading of log_var, or None.

    If z does not come by `model.decode`, the σ are those of the outputs, beside outputs decoded
    from a z of each reading.
    """
    outputs, codes, mu, log_var = _forward(model, x, 0, log_var)
    sigmas = {name: sigma(log_var) for name, (sigma, _) in READINGS.items()}
    if not codes:
        decoded = {
            name: torch.stack([model.decode(mu + s * torch.randn_like(mu)) for _ in outputs])
            for name, s in sigmas.items()
        }
        # Logits from one and probabilities from the other have nothing to compare.
        if _within(decoded["log σ²"], 0, 1) != _within(outputs, 0, 1):
            return None
        measured = _log_rms(outputs.std(dim=0))
        expected = {name: _log_rms(drawn.std(dim=0)) for name, drawn in decoded.items()}
    elif len(codes) == len(outputs) and all(z.shape == mu.shape for z in codes):
        measured = _log_rms(torch.stack(codes) - mu)
        expected = {name: _log_rms(sigma) for name, sigma in sigmas.items()}
    else:
        return None
    # What forward makes of log_var must leave a σ that can be seen beside mu and rounding.
    if not all(map(math.isfinite, expected.values())) or expected["log σ²"] < math.log(1e-3):
        return None
    return measured, expected


def _inspect_output(model, x, likelihood: str) -> Iterator[Finding]:
    """Find outputs that never leave the range of a sigmoid, however far out the code is.

    Untrained logits may by chance lie in [0, 1] too; those of codes far out do not.
    """
    outputs, _, mu, log_var = _forward(model, x, 1000.0, 0.2)
    if (log_var != 0.2).any():  # forward does not take what encode returns
        decoded = model.decode(1000.0 * torch.randn_like(mu)).reshape(outputs[:1].shape)
        outputs = torch.cat([outputs, decoded])
    low, high, why = 0.0, 1.0, "the loss, which takes logits, has a sigmoid of its own"
    if not likelihood.endswith("logits"):
        low, high, why = 0.5, 0.731059, "a sigmoid of a sigmoid lies in [0.5, 0.731]"
    # If they hardly differ, the decoder leaves z aside.
    if _within(outputs, low, high) and outputs.max() - outputs.min() > 1e-6:
        evidence = (
            f"The outputs go from {outputs.min().item():.3f} to {outputs.max().item():.3f} even "
            f"for codes of length 1000 a dimension: {why}."
        )
        yield Finding(SIGMOID_TWICE, evidence)


def _forward(model, x, size: float, level: float) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    """Run a model with mu of this size and log_var at this level, several times.

    Returns the outputs `(n, B, ...)`, each z on its way into `decode`, mu and log_var. They are as
    chosen if `encode` returns just two tensors (B, latent_size); what it returns else is let
    through: a named tuple, for one, may be used by its names.
    """
    encode, decode, codes = model.encode, model.decode, []

    def encode_as_chosen(*arguments, **options):
        code = encode(*arguments, **options)
        if type(code) not in (tuple, list) or [getattr(t, "ndim", 0) for t in code] != [2, 2]:
            return code
        mu, log_var = code
        return size * torch.randn_like(mu), torch.full_like(log_var, level)

    def decode_and_tell(z, *arguments, **options):
        codes.append(z.clone())
        return decode(z, *arguments, **options)

    # Before the class and the submodules in Python's order of look-up; _undisturbed mends it.
    vars(model).update(encode=encode_as_chosen, decode=decode_and_tell)
    runs = []
    while len(runs) < 8 or len(runs) * runs[0][1].numel() < 1024:
        runs.append(_run(model, x))
    vars(model).update(encode=encode, decode=decode)
    return torch.stack([output for output, _, _ in runs]), codes, *runs[0][1:]


def _within(values: Tensor, low: float, high: float) -> bool:
    return values.min().item() >= low - 1e-6 and values.max().item() <= high + 1e-6


def _log_rms(values: Tensor) -> float:
    mean = values.cpu().double().square().mean().item()
    return 0.5 * math.log(mean) if mean > 0 else -math.inf


@contextmanager
def _undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Run the model in training mode, with noise of a fixed seed, and leave no trace."""
    attributes = [(module, dict(vars(module))) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []), torch.no_grad():
        torch.default_generator.manual_seed(0)
        if on_gpu:
            with torch.cuda.device(device):  # of x, which need not be the current one
                torch.cuda.manual_seed(0)
        try:
            # Some models draw z in training mode only. Dropout is another noise: leave it out.
            other_noise = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)
            for module in model.modules():
                module.training = not isinstance(module, other_noise)
            yield
        finally:
            for module, before in attributes:
                module.__dict__ = before
            for buffer, before in buffers:
                buffer.copy_(before)


# --- what is asked of model, loss and x -----------------------------------------------------------


def _check(model, x) -> None:
    halves = [getattr(model, half, None) for half in ("encode", "decode")]
    if not isinstance(model, nn.Module) or not all(map(callable, halves)):
        raise ValueError(f"model must be an nn.Module with encode and decode, got {_kind(model)}")
    if not isinstance(x, Tensor) or x.ndim < 2 or x.numel() == 0:
        got = _kind(x) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x must be a batch of float images (B, ...), got {got}")
    for name, tensor in [("x", x), *model.named_parameters()]:
        if tensor.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"{name} is {tensor.dtype}, too coarse for slopes: use float32 or float64"
            )


def _run(model, x) -> tuple[Tensor, Tensor, Tensor]:
    """Return model(x), with its shapes checked."""

    def fits(kind) -> bool:
        match kind:
            case [(n, _, *_) as output, (m, _, *_) as mu, log_var]:
                return n == m == len(x) and math.prod(output) == x.numel() and mu == log_var
        return False

    contract = (
        "model(x) must return (output, mu, log_var), with an output for every pixel of x "
        f"{tuple(x.shape)}, and mu and log_var ({len(x)}, latent_size)"
    )
    return _call(contract, fits, model, x)


def _value(loss, output, x, mu, log_var) -> Tensor:
    """Return the loss, with its shape checked."""
    contract = f"loss(output, x, mu, log_var) must return a tensor of shape () or ({len(x)},)"
    return _call(contract, lambda kind: kind in [(), (len(x),)], loss, output, x, mu, log_var)


def _call(contract: str, fits: Callable, function: Callable, *arguments):
    """Return what a learner's function makes of these; ValueError if its kind does not fit."""
    try:
        result = function(*arguments)
    except Exception as error:
        raise ValueError(f"{contract}, it raised {type(error).__name__}: {error}") from error
    if not fits(_kind(result)):
        raise ValueError(f"{contract}, got {_kind(result)}")
    return result


def _kind(value):
    """Return a tensor's shape, a list of the kinds in a tuple or list, else the type's name."""
    if isinstance(value, (tuple, list)):
        return [_kind(part) for part in value]
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
