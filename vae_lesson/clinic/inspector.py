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


class Finding(NamedTuple):
    """One thing that is wrong: its name (one of FAULTS), what was measured, and what to do."""

    fault: str
    evidence: str
    cure: str

    def __str__(self) -> str:
        return f"{self.fault}. {self.evidence} {self.cure}"


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
        findings = _inspect_finite(loss, output, x, mu, log_var)
        of_loss, likelihood, reading = _inspect_loss(loss, output, x, mu)
        findings += of_loss
        if all(tensor.isfinite().all() for tensor in (output, mu, log_var)):
            findings += _inspect_noise(model, x, reading)
            if likelihood is not None:
                findings += _inspect_output(model, x, likelihood)
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
    kl: float | None  # by mu
    reading: str | None  # of log_var, from the derivative by it


def _inspect_finite(loss, output, x, mu, log_var) -> list[Finding]:
    """Say what is NaN or infinite, the first of what the model returns and of the loss."""
    parts = {"mu": mu, "log_var": log_var, "the output": output}
    if all(tensor.isfinite().all() for tensor in parts.values()):  # else a loss may refuse them
        parts["the loss"] = _value(loss, output, x, mu, log_var)
    cure = (
        "Look at the images and the weights; the logarithm of a probability of 0 is "
        "infinite (compute from logits), and exp(log_var) overflows above 88."
    )
    for name, tensor in parts.items():
        if n_bad := int((~tensor.isfinite()).sum()):
            evidence = f"Of {tensor.numel()} values of {name}, {n_bad} are NaN or infinite."
            return [Finding(NOT_FINITE, evidence, cure)]
    return []


def _inspect_loss(loss, output, x, mu) -> tuple[list[Finding], str | None, str | None]:
    """Return (findings, likelihood, reading of log_var) from the loss's derivatives alone."""
    # Outputs in (0, 1) may be logits, probabilities or pixels. The KL is large at such mu, beyond
    # free bits and any capacity. The loss may clamp log_var: stay below 1.
    output = _uniform(output.shape, 0.05, 0.95, x)
    mu = _signs(mu.shape, x) * _uniform(mu.shape, 60, 100, x)
    size = _uniform(mu.shape, 0.2, 0.9, x)
    at = (output, x, mu, _signs(mu.shape, x) * size)
    try:
        found = _slopes(loss, *at)
    except ValueError:
        found = None
    if found is None or found.reading is None:  # what is called log_var may be a σ, over 0 only
        at = (output, x, mu, size)
        found = _slopes(loss, *at)
    if found is None:
        return [], None, None
    likelihood, recon, kl, reading = found
    if recon is not None and recon < 0:
        raise ValueError(
            "the loss falls as the output moves away from x: "
            "give what is minimised, recon + beta · kl, not the ELBO"
        )
    findings = []
    # Without a known reconstruction the whole loss may be turned round: an ELBO, not −ELBO.
    if recon is not None and kl is not None and kl < 0:
        evidence = (
            f"The loss changes by {kl:.3g}·mu with mu, and with beta · KL it would by beta·mu: "
            "it falls as the KL grows."
        )
        cure = "Add the KL to the reconstruction: KL = −½ sum(1 + log_var − mu² − exp(log_var))."
        findings.append(Finding(WRONG_SIGN, evidence, cure))
    if kl is None or (kl != 0 and reading is None):
        by = "mu is not beta·mu" if kl is None else "log_var is not beta·½(exp(log_var) − 1)"
        evidence = (
            f"The loss's derivative by {by}, as it is for beta · KL(N(mu, σ²) ‖ N(0, 1)): the "
            "prior is taken to be N(0, I), and penalties on mu or log_var count as part of the KL."
        )
        cure = "Compare the KL term by term with ½ (mu² + exp(log_var) − 1 − log_var)."
        findings.append(Finding(KL_FORMULA, evidence, cure))
    if recon and kl:
        findings += _inspect_reduction(loss, at, found)
    return findings, likelihood, reading


def _inspect_reduction(loss, at, found: Slopes) -> list[Finding]:
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
        known = {"sum": 1.0, "mean": 0.5}.items()
        return next((how for how, wanted in known if abs(ratio / wanted - 1) < 0.01), None)

    batch = [torch.cat([tensor, tensor]) for tensor in at]
    images = [torch.cat([t, t], dim=-1) for t in (output, x.reshape(output.shape))]
    codes = [torch.cat([t, t], dim=1) for t in (mu, log_var)]
    over_pixels = reduction("recon", *images, mu, log_var)
    over_latents = reduction("kl", output, x, *codes)
    over_images = reduction("recon", *batch), reduction("kl", *batch)

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
    factor = by_pixels * by_latents * by_images
    said = []
    if by_pixels != 1:
        how = "a mean over" if over_pixels == "mean" else "as if divided by"
        said.append(f"the reconstruction is {how} {n_pixels} pixels")
    if by_latents != 1:
        said.append(f"the KL is a mean over {n_latents} latent dimensions")
    if by_images != 1:
        one, other = over_images
        where = f"over the {n_images} images of the batch"
        said.append(f"the reconstruction is a {one} {where} and the KL a {other}")
    # A weight that makes up for it is no fault, nor is one that may have been chosen to. Beside a
    # mean over many pixels a weight of 4 makes up for nothing; else only a weight of 1 is certain.
    weight = beta / factor
    uncorrected = by_pixels >= 100 and weight > n_pixels**-0.25
    if abs(math.log(factor)) < math.log(1.5) or not (uncorrected or abs(weight - 1) < 0.01):
        return []
    evidence = f"{'; '.join(said)}. beta is in truth {beta:.3g}, and looks like {weight:.3g}."
    cure = (
        "Sum over pixels and over latent dimensions, then take the same mean over images of both."
    )
    return [Finding(MEAN_FOR_SUM, evidence[0].upper() + evidence[1:], cure)]


def _slopes(loss, output, x, mu, log_var) -> Slopes | None:
    """Measure the loss's derivatives here; None if it draws noise or leaves the output aside."""
    by_output, by_mu, by_log_var = first = _gradients(loss, output, x, mu, log_var)
    second = _gradients(loss, output, x, mu, log_var)
    if not all(torch.allclose(a, b, rtol=1e-3, atol=1e-7) for a, b in zip(first, second)):
        return None
    if not by_output.any():  # the reconstruction, if any, comes by way of mu and log_var
        return None
    x = x.reshape(output.shape)
    scales = {name: _multiple(by_output, slope(output, x)) for name, slope in RECON_SLOPES.items()}
    likelihood = next((name for name, scale in scales.items() if scale is not None), None)
    # 0: no KL at all, or beta = 0.
    kl = _multiple(by_mu, mu) if by_mu.any() or by_log_var.any() else 0.0
    reading = None
    for name, (_, slope) in READINGS.items():
        scale = _multiple(by_log_var, slope(log_var))
        if kl and scale is not None and abs(scale / kl - 1) < 0.01:
            reading = name
    return Slopes(likelihood, scales.get(likelihood), kl, reading)


def _gradients(loss, output, x, mu, log_var) -> list[Tensor]:
    """Return the derivatives of the batch's sum by output, mu and log_var; no .grad is written."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (output, mu, log_var)]
    with torch.enable_grad():
        value = _value(loss, leaves[0], x, *leaves[1:]).sum()
        if not value.requires_grad:
            raise ValueError(
                "the loss does not depend on output, mu or log_var, or detaches them: "
                "it cannot be trained on"
            )
        gradients = torch.autograd.grad(value, leaves, allow_unused=True)
    return [torch.zeros_like(a) if g is None else g for a, g in zip(leaves, gradients)]


def _multiple(measured: Tensor, expected: Tensor) -> float | None:
    """Return c if measured = c · expected to a thousandth, else None."""
    a, b = (tensor.cpu().double().flatten() for tensor in (measured, expected))  # MPS has no double
    c = (a @ b / (b @ b)).item()
    fits = c != 0 and math.isfinite(c) and (a - c * b).norm() < 1e-3 * a.norm()
    return c if fits else None


# --- the model: what it makes of a chosen mu and log_var ------------------------------------------


def _inspect_noise(model, x, reading: str | None) -> list[Finding]:
    """Compare the σ of z with what log_var should make of it, at several log_var."""
    chosen = [_log_sigmas(model, x, level) for level in (0.2, 2.0)]
    if None in chosen:  # encode is not called, or is no pair: take log_var as it comes
        chosen = [_log_sigmas(model, x, None)]
    if None in chosen:
        return []
    measured, expected = zip(*chosen)
    if all(sigma == -math.inf for sigma in measured):
        evidence = (
            "In training mode the decoder gets the same z = mu in every run, whatever log_var is."
        )
        cure = "Draw z = mu + exp(½ log_var)·eps with fresh eps ~ N(0, I) at every step."
        return [Finding(NO_NOISE, evidence, cure)]
    off = {
        name: math.sqrt(sum((m - e[name]) ** 2 for m, e in zip(measured, expected)) / len(measured))
        for name in expected[0]
    }
    right = reading or "log σ²"
    nearest = min(off, key=off.get)
    # exp(0.35) is 1.4: more than chance. The nearest must fit, or it is something else again.
    if off[right] < 0.35 or off[nearest] > 0.15:
        return []
    first = measured[0], expected[0][right], expected[0][nearest]
    sigma, wanted, near = (f"{math.exp(value):.3g}" for value in first)
    evidence = (
        f"The noise in z has σ = {sigma} where log_var, read as {right}, says {wanted}, "
        f"and read as {nearest} {near}."
    )
    if right != "log σ²":
        cure = f"The loss takes log_var for {right}, the noise for {nearest}: choose one for both."
        return [Finding(KL_FORMULA, evidence, cure)]
    fault = VARIANCE_AS_SIGMA if nearest == "log σ" else LOG_VAR_AS_SIGMA
    return [Finding(fault, evidence, "σ is exp(½ log_var): z = mu + exp(½ log_var)·eps.")]


def _log_sigmas(model, x, level: float | None) -> tuple[float, dict[str, float]] | None:
    """Return log σ of the noise in z, and what it should be for each reading of log_var.

    `level` is the log_var that forward gets to see, at mu = 0; None leaves both as they are. The
    result is None where that cannot be had. z is caught on its way into `model.decode`; if it does
    not come by, the σ are those of the outputs, beside outputs decoded from a z of each reading.
    """
    decode, asked, codes = model.decode, [], []

    def decode_and_tell(z, *arguments, **options):
        codes.append(z.clone())
        return decode(z, *arguments, **options)

    chosen = {} if level is None else {"encode": _encode_as(model, x, 0, level, asked)}
    with _replaced(model, decode=decode_and_tell, **chosen):
        _, mu, log_var = _run(model, x)
        if chosen and not asked:
            return None
        codes.clear()
        n_runs = min(max(1024 // mu.numel(), 4), 128)
        outputs = torch.stack([_run(model, x)[0] for _ in range(n_runs)])
    sigmas = {name: sigma(log_var) for name, (sigma, _) in READINGS.items()}
    if len(codes) == n_runs and all(z.shape == mu.shape for z in codes):
        measured = _log_rms(torch.stack(codes) - mu)
        expected = {name: _log_rms(sigma) for name, sigma in sigmas.items()}
    elif not codes:
        decoded = {
            name: torch.stack([decode(mu + sigma * torch.randn_like(mu)) for _ in outputs])
            for name, sigma in sigmas.items()
        }
        # Logits from one and probabilities from the other have nothing to compare.
        if _within(decoded["log σ²"], 0, 1) != _within(outputs, 0, 1):
            return None
        measured = _log_rms(outputs.std(dim=0))
        expected = {name: _log_rms(drawn.std(dim=0)) for name, drawn in decoded.items()}
    else:
        return None
    # What forward makes of log_var must leave a σ that can be seen beside mu and rounding.
    if not all(map(math.isfinite, expected.values())) or expected["log σ²"] < math.log(1e-3):
        return None
    if measured < expected["log σ²"] - math.log(1e4):
        measured = -math.inf
    return measured, expected


def _inspect_output(model, x, likelihood: str) -> list[Finding]:
    """Find outputs that never leave the range of a sigmoid, however far out the code is.

    Untrained logits may by chance lie in [0, 1] too; those of codes far out do not.
    """
    asked, outputs = [], []
    for size in (1.0, 1000.0):
        with _replaced(model, encode=_encode_as(model, x, size, 0.2, asked)):
            output, mu, _ = _run(model, x)
        outputs.append(output)
        if not asked:
            outputs.append(model.decode(size * torch.randn_like(mu)).reshape(output.shape))
    outputs = torch.stack(outputs)
    if not outputs.isfinite().all() or outputs.max() - outputs.min() < 1e-6:
        return []
    takes_logits = likelihood.endswith("logits")
    low, high = (0.0, 1.0) if takes_logits else (0.5, torch.sigmoid(torch.tensor(1.0)).item())
    if not _within(outputs, low, high):
        return []
    seen = (
        f"outputs go from {outputs.min().item():.3f} to {outputs.max().item():.3f} even for codes "
        "of length 1000 a dimension"
    )
    if takes_logits:
        evidence = (
            f"The loss has a sigmoid of its own (it takes logits), but the {seen}: "
            "they have been through one."
        )
        cure = "Take one of the two away: let decode return logits, without a sigmoid at its end."
    else:
        evidence = f"The {seen}: a sigmoid of a sigmoid lies in [0.5, {high:.3f}]."
        cure = "Take one of the two sigmoids at the decoder's end away."
    return [Finding(SIGMOID_TWICE, evidence, cure)]


# --- small parts ----------------------------------------------------------------------------------


def _check(model, x) -> None:
    halves = [getattr(model, half, None) for half in ("encode", "decode")]
    if not isinstance(model, nn.Module) or not all(map(callable, halves)):
        raise ValueError(
            "model must be an nn.Module with encode(x) -> (mu, log_var) and decode(z) -> output, "
            f"got {type(model).__name__}"
        )
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 2 or x.numel() == 0:
        got = f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x must be a batch of float images (B, ...), got {got}")
    for name, tensor in [("x", x), *model.named_parameters()]:
        if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                "x and the model must be float32 or float64, the others are too coarse to measure "
                f"slopes with: {name} is {tensor.dtype}; call x.float() and model.float()"
            )


def _run(model, x) -> tuple[Tensor, Tensor, Tensor]:
    """Return model(x), with its shapes checked."""
    contract = "model(x) must return (output, mu, log_var)"
    try:
        result = model(x)
    except Exception as error:
        raise ValueError(f"{contract}, it raised {type(error).__name__}: {error}") from error
    several = isinstance(result, (tuple, list)) and all(isinstance(t, Tensor) for t in result)
    if not several or len(result) != 3:
        got = len(result) if several else type(result).__name__
        raise ValueError(f"{contract}, three tensors, got {got}")
    output, mu, log_var = result
    if output.ndim < 2 or len(output) != len(x) or output.numel() != x.numel():
        raise ValueError(
            f"{contract}, with an output for every pixel of x {tuple(x.shape)}, "
            f"got {tuple(output.shape)}"
        )
    if mu.shape != log_var.shape or mu.ndim < 2 or len(mu) != len(x):
        raise ValueError(
            f"{contract}, mu and log_var ({len(x)}, latent_size), "
            f"got {tuple(mu.shape)} and {tuple(log_var.shape)}"
        )
    return output, mu, log_var


def _value(loss, output, x, mu, log_var) -> Tensor:
    """Return the loss, with its shape checked."""
    contract = "loss(output, x, mu, log_var) must return (B,) or one number"
    try:
        value = loss(output, x, mu, log_var)
    except Exception as error:
        raise ValueError(f"{contract}, it raised {type(error).__name__}: {error}") from error
    if not isinstance(value, Tensor) or tuple(value.shape) not in [(), (len(x),)]:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{contract}, a tensor of shape () or ({len(x)},), got {got}")
    return value


@contextmanager
def _undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Run the model in training mode, with noise of a fixed seed, and leave no trace."""
    modes = [(module, module.training) for module in model.modules()]
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
            for module, mode in modes:
                module.training = mode
            for buffer, before in buffers:
                buffer.copy_(before)


@contextmanager
def _replaced(model: nn.Module, **methods: Callable) -> Iterator[None]:
    """Put other methods in the place of this one model's own."""
    attributes = vars(model)  # before the class and the submodules in Python's order of look-up
    before = {name: attributes[name] for name in methods if name in attributes}
    attributes.update(methods)
    try:
        yield
    finally:
        for name in methods:
            del attributes[name]
        attributes.update(before)


def _encode_as(model, x, size: float, level: float, asked: list) -> Callable:
    """Return a model.encode of which mu is of this size and log_var at this level; note its calls.

    What is not exactly two tensors (B, latent_size) is let through: a named tuple, for one, may be
    used by its names.
    """
    encode = model.encode

    def encode_as_chosen(*arguments, **options):
        code = encode(*arguments, **options)
        if type(code) not in (tuple, list) or [isinstance(t, Tensor) for t in code] != [True, True]:
            return code
        mu, log_var = code
        if mu.ndim != 2 or mu.shape != log_var.shape or len(mu) != len(x):
            return code
        asked.append(True)
        mu = size * torch.randn_like(mu) if size else torch.zeros_like(mu)
        return mu, torch.full_like(log_var, level)

    return encode_as_chosen


def _within(values: Tensor, low: float, high: float) -> bool:
    return values.min().item() >= low - 1e-6 and values.max().item() <= high + 1e-6


def _log_rms(values: Tensor) -> float:
    mean = values.cpu().double().square().mean().item()
    return 0.5 * math.log(mean) if mean > 0 else -math.inf


def _signs(shape, like: Tensor) -> Tensor:
    return torch.where(_uniform(shape, -1, 1, like) < 0, -1.0, 1.0).to(like.dtype)


def _uniform(shape, low: float, high: float, like: Tensor) -> Tensor:
    """Return numbers in [low, high), by the forked random state of the CPU."""
    values = low + (high - low) * torch.rand(shape, dtype=torch.float64)
    return values.to(like.dtype).to(like.device)
