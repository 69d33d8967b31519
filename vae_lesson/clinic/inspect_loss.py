"""A loss by itself: how it changes with the output, mu and log_var, which are chosen here."""

import math
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor

from vae_lesson.clinic import findings
from vae_lesson.clinic.findings import Finding
from vae_lesson.data import exact

# What a model may call log_var: σ of it. A learner's model may be at home in another reading than
# log σ²; it is healthy if loss and noise read it alike.
READINGS = {
    "log σ²": lambda v: torch.exp(0.5 * v),
    "log σ": torch.exp,
    "σ": torch.abs,
    "σ²": lambda v: v.abs().sqrt(),
    "2σ": lambda v: v.abs() / 2,
}
# Any other σ of log_var, such as elu(v) + 1, that loss and model share.
AS_THE_NOISE = "what the noise takes it for"
# A reconstruction loss's derivative by the output o is c · (mean − target) / scale of these two.
LIKELIHOODS = {
    "Bernoulli on logits": lambda o: (o.sigmoid(), 1),
    "Bernoulli on probabilities": lambda o: (o, o * (1 - o)),
    "Gaussian": lambda o: (o, 1),
    "Gaussian on logits": lambda o: (o.sigmoid(), 1 / (o.sigmoid() * (-o).sigmoid())),
}


class Slopes(NamedTuple):
    """What a loss's derivatives say of it; None for what fits nothing known here."""

    likelihood: str | None = None
    limits: tuple[float, float] | None = None  # of the images, as it compares the output with them
    reading: str | None = None  # of log_var: one of READINGS, or AS_THE_NOISE


class Trial(NamedTuple):
    """A loss at one point, and its derivatives there."""

    at: tuple[Tensor, ...]  # output, x, mu, log_var
    value: float  # the batch's sum
    by: tuple[Tensor, ...]  # output, mu, log_var


def inspect_loss(loss: Callable, output, x, mu, as_the_noise) -> tuple[list[Finding], Slopes]:
    """Return a loss's faults, a list of `Finding`, and its `Slopes`.

    `loss(output, x, mu, log_var)` is tried at values chosen here, whatever the model makes; x is
    brought to [0, 1] for that, if the loss lets it. `as_the_noise(log_var, slope)` returns what a
    KL of this derivative takes log_var for. Shapes: output, x `(B, ...)`, mu `(B, latent_size)`.
    Raises: ValueError if the loss has no derivative, or falls as the output leaves x.
    """
    low, size = (0, 1) if x.min() >= 0 and x.max() <= 1 else (x.min(), x.max() - x.min())
    # Outputs of all kinds may lie in (0, 1). At such mu the KL is beyond free bits and any
    # capacity. What is called log_var may be a σ, over 0; the loss may clamp it: stay below 1.
    o, v = spread(output, 0.05, 0.95), spread(mu, 0.2, 0.9)
    mu = spread(mu, 50, 80) * (2 * torch.randint_like(mu, 2) - 1)
    try:
        near = _try(loss, o, images := (x - low) / size, mu, v)
    except Exception:  # a likelihood of counts refuses fractions
        near = _try(loss, o, images := x, mu, v)
    again = _try(loss, o, images, mu, v, seed=1)
    other = _try(loss, torch.where(o < 0.5, o + 0.45, o - 0.45), images, mu, v)
    far = _try(loss, o, images, 1e4 * mu, v)
    if not near.by[0].any():  # the reconstruction, if any, comes by way of mu and log_var
        cut = Finding(findings.GRADIENT_CUT, "The loss gives the output no gradient.")
        return [cut] if near.value == again.value != other.value else [], Slopes()
    likelihood, recon, target = _likelihood(near, other)
    if recon and recon < 0:
        raise ValueError("the loss falls as output leaves x: give what is minimised, not the ELBO")
    if likelihood:
        with suppress(Exception):  # a cross-entropy refuses x out of [0, 1]
            given = _try(loss, o, x, mu, v)
            if given.value == near.value and torch.equal(given.by[0], near.by[0]):
                x = images  # to which the loss brings x by itself
        found, limits = _inspect_target(target, exact(images), exact(x))
    else:
        found, limits = _inspect_order(near, other), None
    faults, beta, reading = _inspect_kl(near, again, far, as_the_noise)
    # Without a known reconstruction the whole loss may be turned round: an ELBO, not −ELBO.
    if recon and beta:
        if beta < 0:
            found.append(Finding(findings.WRONG_SIGN, f"By mu the derivative is {beta:.3g}·mu."))
        # ½ squared error and squared error are both at home: beta may be twice what is measured.
        betas = [abs(beta) / recon * n for n in ((1, 2) if "Gaussian" in likelihood else (1,))]
        found += _inspect_reduction(loss, far, betas)
    return found + faults, Slopes(likelihood, limits, reading)


def _likelihood(near: Trial, other: Trial) -> tuple:
    """Return (likelihood, c, target), or three None.

    The derivatives at two outputs are two equations a pixel: for the target, and for c, which must
    be the same all over.
    """
    o, other_o, slope, other_slope = map(exact, (near.at[0], other.at[0], near.by[0], other.by[0]))
    for name, parts in LIKELIHOODS.items():
        (mean, scale), (other_mean, other_scale) = parts(o), parts(other_o)
        c = _constant((slope * scale - other_slope * other_scale) / (mean - other_mean))
        if c:
            return name, c, mean - slope * scale / c
    x = exact(near.at[1]).reshape(o.shape)
    c = _constant(torch.stack([slope / (o - x).sign(), other_slope / (other_o - x).sign()]))
    return ("Laplace", c, x) if c else (None, None, None)


def _inspect_target(target, x, given) -> tuple[list[Finding], tuple | None]:
    """Find what the output is compared with, if not with its own image; return its limits too."""
    x, target = x.flatten(1), target.flatten(1)
    slope = ((x - x.mean()) * target).sum() / (x - x.mean()).square().sum()
    offset = target.mean() - slope * x.mean()
    least = 1e-2 / (given.max() - given.min())  # images from 0 to 255 may be divided by 255
    if (offset + slope * x - target).abs().max() < 1e-2 * slope.abs().clamp_min(least):
        if slope.abs() > least:
            return [], tuple(round((slope * x + offset).item(), 4) for x in given.aminmax())
        return [Finding(findings.WRONG_TARGET, f"The target is {offset:.3g} at every pixel.")], None
    n_others = ((target - x).norm(dim=1) > 0.1).sum()
    others = Finding(findings.WRONG_TARGET, f"{n_others} targets are the images of others.")
    nearest = torch.cdist(target, x).min(dim=1).values
    return [others] if n_others > 0 and nearest.max() < 1e-2 else [], None


def _inspect_order(near: Trial, other: Trial) -> list[Finding]:
    """Find a cross-entropy whose target is the output: it is linear in it, and falls with x."""
    by_x = exact(near.by[0]).flatten()[exact(near.at[1]).flatten().argsort()].nan_to_num()
    falls = by_x[0] > by_x[-1] and by_x.diff().max() <= 1e-4 * by_x.abs().max()
    linear = torch.allclose(near.by[0], other.by[0], rtol=1e-3, atol=0)
    evidence = "The loss is linear in the output and falls with x: the output is its target."
    return [Finding(findings.SWAPPED, evidence)] if falls and linear else []


def _inspect_kl(near: Trial, again: Trial, far: Trial, as_the_noise: Callable) -> tuple:
    """Return the KL's faults, beta (None: not known), the reading of log_var."""
    (_, by_mu, by_v), (_, _, mu, v) = near.by, near.at
    if not (by_mu.isfinite().all() and by_v.isfinite().all()):
        return [], None, None
    betas, far_betas = _per_image(by_mu, mu), _per_image(far.by[1], far.at[2])
    if any((a - b).norm() > 1e-3 * a.norm() for a, b in zip(near.by[1:], again.by[1:])):
        # The KL is that of one sample of z. Beside so large a mu its noise is nothing.
        return [], _constant(far_betas), None
    if by_mu.norm() == by_v.norm() == 0:  # some may be too small to be squared
        cut = Finding(findings.KL_WITHOUT_GRADIENT, "The loss changes with mu all the same.")
        moves = near.value == again.value != far.value and not far.by[1].any()
        return [cut] if moves else [], None, None
    by_v = exact(by_v) / betas[:, None]
    if reading := _reading(by_v, exact(v)) or as_the_noise(v, by_v):
        # A square or a capacity of the KL makes a beta of its own at every mu: no judgement of it.
        return [], _constant(torch.cat([betas, far_betas])), reading
    evidence = "The loss's derivatives by mu and log_var are those of no beta · KL: the prior is "
    evidence += "taken to be N(0, I), and penalties on mu or log_var count as part of the KL."
    return [Finding(findings.KL_FORMULA, evidence)], None, None


def _reading(slope: Tensor, v: Tensor) -> str | None:
    """Return what a KL with this derivative by v takes v for, or None."""
    for name, sigma in READINGS.items():
        with torch.enable_grad():
            leaf = v.clone().requires_grad_()
            kl = 0.5 * sigma(leaf).square() - sigma(leaf).log()
            expected = torch.autograd.grad(kl.sum(), leaf)[0]
        if (expected - slope).norm() < 0.01 * expected.norm():
            return name
    return None


def _inspect_reduction(loss, trial: Trial, betas: list[float]) -> list[Finding]:
    """Find a mean on one side and a sum on the other, behind one of these betas."""
    output, x, mu, _ = trial.at
    n_images, n_pixels, n_latents = len(x), output[0].numel(), mu[0].numel()
    recon, kl, pixels, latents = _reductions(loss, trial)
    measured, fixed = {}, {}  # what is said, and by how much it multiplies beta
    if pixels == "mean":
        measured[f"the reconstruction is a mean over {n_pixels} pixels"] = n_pixels
    elif n_pixels >= 400:  # divisors that stay as they are, of sizes that nobody takes for beta
        as_if = f"is as if divided by {n_pixels} pixels"
        fixed[f"the reconstruction {as_if}"] = n_pixels
        fixed[f"the KL {as_if}"] = 1 / n_pixels
        fixed[f"the KL {as_if} and {n_images} images"] = 1 / n_pixels / n_images
    if latents == "mean":
        measured[f"the KL is a mean over {n_latents} latent dimensions"] = 1 / n_latents
    elif (recon, kl) == ("sum", "mean"):
        fixed[f"the KL is as if divided by {n_latents} latent dimensions"] = 1 / n_latents
    ways = [measured]
    if recon and kl and recon != kl:
        # A fixed number may stand for the batch size, so that it may as well be no fault.
        said = f"the reconstruction is a {recon} over the {n_images} images of the batch"
        by = n_images if recon == "mean" else 1 / n_images
        ways.append(measured | {f"{said} and the KL a {kl}": by})
    ways += [way | {said: by} for way in ways for said, by in fixed.items()]
    # A way that leaves a weight of 1 explains the loss; without one, what is measured is certain.
    cases = [(way, beta, beta / math.prod(way.values())) for way in ways for beta in betas]
    sure = [case for case in cases if abs(case[-1] - 1) < 1e-3]
    way, beta, weight = (sure or cases)[0]
    # Another weight may be there to make up for it. Beside a mean over many pixels 4 does not.
    uncorrected = pixels == "mean" and n_pixels >= 100 and weight > n_pixels**-0.25
    uncorrected |= pixels != "mean" and latents == "mean" and weight < n_latents**0.25
    if not (sure or uncorrected) or 1 / 1.5 < math.prod(way.values()) < 1.5:
        return []
    evidence = f"Here {'; '.join(way)}. beta is in truth {beta:.3g}, and looks like {weight:.3g}."
    return [Finding(findings.MEAN_FOR_SUM, evidence)]


def _reductions(loss, trial: Trial) -> list[str | None]:
    """Return whether recon and KL are a "sum" or a "mean" over images, recon over pixels, KL over
    latent dimensions; None for what cannot be told.

    With a second batch, image or code beside the first, a sum's derivatives stay as they are, and
    a mean's are halved.
    """
    output, x, mu, log_var = trial.at

    def twice(dim: int, *tensors) -> list[Tensor]:
        return [torch.cat([tensor, tensor], dim) for tensor in tensors]

    def reduction(of: int, *arguments) -> str | None:
        try:
            with warnings.catch_warnings(action="ignore"):  # of shapes that differ
                by = _try(loss, *arguments).by[of]
        except Exception:  # the loss takes this shape only
            return None
        ratio = (exact(by).norm() / exact(trial.by[of]).norm()).item() / math.sqrt(2)
        return {1.0: "sum", 0.5: "mean"}.get(round(ratio, 2))

    return [
        reduction(0, *twice(0, *trial.at)),
        reduction(1, *twice(0, *trial.at)),
        reduction(0, *twice(-1, output, x.reshape(output.shape)), mu, log_var),
        reduction(1, output, x, *twice(1, mu, log_var)),
    ]


def _try(loss, output, x, mu, log_var, seed: int = 0) -> Trial:
    """Try a loss at one point, with the noise of this seed; no .grad is written."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (output, mu, log_var)]
    reseed(x.device, seed)
    with torch.enable_grad():
        value = loss(leaves[0], x, *leaves[1:]).sum()
        if not value.requires_grad:
            raise ValueError("the loss does not depend on output, mu or log_var, or detaches them")
        by = torch.autograd.grad(value, leaves, materialize_grads=True)
    return Trial((output, x, mu, log_var), value.item(), by)


def _constant(values: Tensor) -> float | None:
    """Return c if all values are c to a thousandth, else None."""
    c = values.mean().item()
    same = c != 0 and math.isfinite(c) and (values - c).abs().max() < 1e-3 * abs(c)
    return c if same else None


def _per_image(measured: Tensor, expected: Tensor) -> Tensor:
    """Return c `(B,)`, where measured = c · expected to a thousandth, NaN where it is not."""
    a, b = exact(measured), exact(expected)
    c = (a * b).sum(dim=1) / b.square().sum(dim=1)
    fits = (a - c[:, None] * b).norm(dim=1) < 1e-3 * a.norm(dim=1)
    return c.where(fits, math.nan)


def spread(like: Tensor, low: float, high: float) -> Tensor:
    """Return values evenly from low to high, in random order, in a tensor like this one."""
    values = torch.linspace(low, high, like.numel())[torch.randperm(like.numel())]
    return values.to(like).reshape(like.shape)


def reseed(device: torch.device, seed: int) -> None:
    """Start the noise of the CPU, and of this GPU, at a seed."""
    torch.default_generator.manual_seed(seed)
    if device.type == "mps":
        torch.mps.manual_seed(seed)
    elif device.type == "cuda":
        with torch.cuda.device(device):  # of x, which need not be the current one
            torch.cuda.manual_seed(seed)
