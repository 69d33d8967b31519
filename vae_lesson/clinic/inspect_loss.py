"""A loss by itself: how it changes with the output, mu and log_var, which are chosen here."""

import math
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vae_lesson.clinic import findings
from vae_lesson.clinic.findings import Finding

# What a model may call log_var: σ of it. A learner's model may be at home in another reading than
# log σ²; it is healthy if loss and noise read it alike.
READINGS = {
    "log σ²": lambda v: torch.exp(0.5 * v),
    "log σ": torch.exp,
    "σ": torch.abs,
    "σ²": lambda v: v.abs().sqrt(),
    "softplus⁻¹(σ)": F.softplus,
    "2σ": lambda v: v.abs() / 2,
}
# The derivative of a reconstruction loss by the output o is c · (a − b · target): a and b of o.
LIKELIHOODS = {
    "Bernoulli on logits": lambda o: (o.sigmoid(), torch.ones_like(o)),
    "Bernoulli on probabilities": lambda o: (1 / (1 - o), 1 / (o * (1 - o))),
    "Gaussian": lambda o: (o, torch.ones_like(o)),
    "Gaussian on logits": lambda o: (
        o.sigmoid().square() * (-o).sigmoid(),
        o.sigmoid() * (-o).sigmoid(),
    ),
}


class Slopes(NamedTuple):
    """What a loss's derivatives say of it; None for what fits nothing known here."""

    likelihood: str | None = None
    limits: tuple[float, float] | None = None  # of the images, as it compares the output with them
    reading: str | None = None  # of log_var


def inspect_loss(
    loss: Callable, output: Tensor, x: Tensor, mu: Tensor
) -> tuple[list[Finding], Slopes]:
    """Return a loss's faults, a list of `Finding`, and its `Slopes`.

    `loss(output, x, mu, log_var)` is tried at values chosen here, whatever the model makes; x is
    brought to [0, 1] for that. Shapes: output and x `(B, ...)`, mu `(B, latent_size)`.
    Raises: ValueError if the loss has no derivative, or falls as the output leaves x.
    """
    low, size = (0, 1) if x.min() >= 0 and x.max() <= 1 else (x.min(), x.max() - x.min())
    images = (x - low) / size
    # Outputs of all kinds may lie in (0, 1). At such mu the KL is beyond free bits and any
    # capacity. What is called log_var may be a σ, over 0; the loss may clamp it: stay below 1.
    o, v = spread(output, 0.05, 0.95), spread(mu, 0.2, 0.9)
    far = spread(mu, 50, 80) * (2 * torch.randint_like(mu, 2) - 1)
    other = torch.where(o < 0.5, o + 0.45, o - 0.45)
    near, beyond = (o, images, far, v), (other, images, 1e4 * far, v)
    slopes = [_gradients(loss, *near), _gradients(loss, *beyond), _gradients(loss, *near, seed=1)]
    if not slopes[0][0].any():  # the reconstruction, if any, comes by way of mu and log_var
        evidence = "The loss changes with the output, but gives it no gradient."
        cut = _moves(loss, near, (other, *near[1:]))
        return [Finding(findings.GRADIENT_CUT, evidence)] if cut else [], Slopes()
    outputs, by_outputs = [exact(o), exact(other)], [exact(s[0]) for s in slopes[:2]]
    flat = exact(images).reshape(output.shape)
    likelihood, recon, target = _likelihood(outputs, by_outputs, flat)
    if recon and recon < 0:
        raise ValueError("the loss falls as output leaves x: give what is minimised, not the ELBO")
    found, limits = _inspect_target(target, by_outputs, flat, exact(x))
    faults, beta, reading = _inspect_kl(loss, near, beyond, *slopes)
    # Without a known reconstruction the whole loss may be turned round: an ELBO, not −ELBO.
    if recon and beta:
        if beta < 0:
            evidence = f"The loss changes by {beta:.3g}·mu with mu: it falls as the KL grows."
            found.append(Finding(findings.WRONG_SIGN, evidence))
        # ½ squared error and squared error are both at home: beta may be twice what is measured.
        betas = [abs(beta) / recon * n for n in ((1, 2) if "Gaussian" in likelihood else (1,))]
        found += _inspect_reduction(loss, beyond, slopes[1], betas)
    return found + faults, Slopes(likelihood, limits, reading)


def _likelihood(outputs, by_outputs, x) -> tuple:
    """Return (likelihood, c, target) from the derivatives at two outputs, or three None.

    slope = c · (a − b · target) at both: two equations a pixel, for c, which must be the same all
    over, and the target.
    """
    (o, other), (slope, other_slope) = outputs, by_outputs
    for name, parts in LIKELIHOODS.items():
        (a, b), (other_a, other_b) = parts(o), parts(other)
        c = _constant((other_slope * b - slope * other_b) / (other_a * b - a * other_b))
        if c:
            return name, c, (a - slope / c) / b
    c = _constant(torch.stack(by_outputs) / (torch.stack(outputs) - x).sign())
    return ("Laplace", c, x) if c else (None, None, None)


def _inspect_target(target, by_outputs, x, given) -> tuple[list[Finding], tuple | None]:
    """Find what the output is compared with, if not with its own image; return its limits too."""
    if target is None:
        # A cross-entropy whose target is the output is linear in it, and falls with x.
        by_x = by_outputs[0].flatten()[x.flatten().argsort()].nan_to_num()
        falls = by_x[0] > by_x[-1] and by_x.diff().max() <= 1e-4 * by_x.abs().max()
        evidence = "The loss's derivative by the output is the same whatever the output, and falls "
        evidence += "with x: the images are taken for probabilities, the output for the target."
        swapped = falls and torch.allclose(*by_outputs, rtol=1e-3, atol=0)
        return [Finding(findings.SWAPPED, evidence)] if swapped else [], None
    x, target = x.flatten(1), target.flatten(1)
    slope = ((x - x.mean()) * target).sum() / (x - x.mean()).square().sum()
    offset = target.mean() - slope * x.mean()
    least = 1e-2 / (given.max() - given.min())  # images from 0 to 255 may be divided by 255
    if (offset + slope * x - target).abs().max() < 1e-2 * slope.abs().clamp_min(least):
        if slope.abs() > least:
            edges = given.min(), given.max()
            return [], tuple(round((slope * edge + offset).item(), 4) for edge in edges)
        evidence = f"The output is compared with {offset:.3g} at every pixel."
        return [Finding(findings.WRONG_TARGET, evidence)], None
    distance, _ = torch.cdist(target, x).min(dim=1)
    n_others = ((target - x).norm(dim=1) > 0.1).sum()
    evidence = f"Of {len(x)} outputs, {n_others} are compared with the image of another."
    others = n_others > 0 and distance.max() < 1e-2
    return [Finding(findings.WRONG_TARGET, evidence)] if others else [], None


def _inspect_kl(loss, near, beyond, first, second, again) -> tuple:
    """Return the KL's faults, beta (0: there is no KL, None: not known), the reading of log_var."""
    (output, images, mu, v), (by_mu, by_v) = near, first[1:]
    if not all(tensor.isfinite().all() for tensor in (by_mu, by_v)):
        return [], None, None
    farther = _per_image(second[1], beyond[2])
    if any((a - b).norm() > 1e-3 * a.norm() for a, b in zip(first[1:], again[1:])):
        # The KL is that of one sample of z. Beside so large a mu its noise is nothing.
        return [], _constant(farther), None
    if not (by_mu.any() or by_v.any() or second[1].any()):
        evidence = "The loss changes with mu, but gives no gradient to mu and log_var."
        cut = _moves(loss, near, (output, images, beyond[2], v))
        return [Finding(findings.KL_WITHOUT_GRADIENT, evidence)] if cut else [], 0.0, None
    betas = _per_image(by_mu, mu)
    if betas is not None and (reading := _reading(exact(by_v) / betas[:, None], exact(v))):
        # A square or a capacity of the KL makes a beta of its own at every mu: no judgement of it.
        return [], _constant(farther if farther is None else torch.cat([betas, farther])), reading
    by = "mu is not beta·mu" if betas is None else "log_var is not beta·½(exp(log_var) − 1)"
    evidence = (
        f"The loss's derivative by {by}, as it is for beta · KL(N(mu, σ²) ‖ N(0, 1)): the prior is "
        "taken to be N(0, I), and penalties on mu or log_var count as part of the KL."
    )
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


def _inspect_reduction(loss, at, slopes, betas: list[float]) -> Iterator[Finding]:
    """Find a mean on one side and a sum on the other by a second batch, image or code beside."""
    output, x, mu, log_var = at
    n_images, n_pixels, n_latents = len(x), output[0].numel(), mu[0].numel()

    def reduction(by: int, *arguments) -> str | None:
        """Twice as many of them leave a sum's derivative by each as it is, and halve a mean's."""
        try:
            with warnings.catch_warnings(action="ignore"):  # of shapes that differ
                twice = _gradients(loss, *arguments)[by]
        except Exception:  # the loss takes this shape only
            return None
        ratio = (exact(twice).norm() / exact(slopes[by]).norm()).item() / math.sqrt(2)
        return {1.0: "sum", 0.5: "mean"}.get(round(ratio, 2))

    batch = [torch.cat([tensor, tensor]) for tensor in at]
    images = [torch.cat([t, t], dim=-1) for t in (output, x.reshape(output.shape))]
    codes = [torch.cat([t, t], dim=1) for t in (mu, log_var)]
    over_images = recon_over, kl_over = reduction(0, *batch), reduction(1, *batch)
    mean_over_pixels = reduction(0, *images, mu, log_var) == "mean"
    # Ways to put it: what is said, and by how much it multiplies beta.
    way, as_if = {}, "the KL is as if divided by"
    if mean_over_pixels:
        way[f"the reconstruction is a mean over {n_pixels} pixels"] = n_pixels
    if reduction(1, output, x, *codes) == "mean":
        way[f"the KL is a mean over {n_latents} latent dimensions"] = 1 / n_latents
    ways, divided = [way], {}
    if by := {("mean", "sum"): n_images, ("sum", "mean"): 1 / n_images}.get(over_images):
        # A fixed number may stand for the batch size, so that it may as well be no fault.
        said = f"the reconstruction is a {recon_over} over the {n_images} images of the batch"
        ways.append(way | {f"{said} and the KL a {kl_over}": by})
    # Divisors that stay as they are, of sizes which nobody would choose as beta.
    if n_pixels >= 400 and not mean_over_pixels:
        divided[f"the reconstruction is as if divided by {n_pixels} pixels"] = n_pixels
        divided[f"{as_if} {n_pixels} pixels"] = 1 / n_pixels
        divided[f"{as_if} {n_pixels} pixels and {n_images} images"] = 1 / (n_pixels * n_images)
    if over_images == ("sum", "mean"):
        divided[f"{as_if} {n_latents} latent dimensions"] = 1 / n_latents
    plain = [(b / math.prod(way.values()), way) for way in ways for b in betas]
    more = [(w / by, way | {said: by}) for w, way in plain for said, by in divided.items()]
    sure = [(weight, way) for weight, way in plain + more if abs(weight - 1) < 1e-3]
    # Where nothing needs no weight, take what needs the least.
    weight, way = (sure or sorted(plain, key=lambda case: abs(math.log(case[0]))))[0]
    # A weight that makes up for it is no fault, nor is one that may have been chosen to. Beside a
    # mean over many pixels a weight of 4 makes up for nothing; else only a weight of 1 is certain.
    uncorrected = mean_over_pixels and n_pixels >= 100 and weight > n_pixels**-0.25
    factor = math.prod(way.values())
    if abs(math.log(factor)) > math.log(1.5) and (uncorrected or sure):
        evidence = f"Here {'; '.join(way)}. beta is in truth {weight * factor:.3g}, and looks like "
        yield Finding(findings.MEAN_FOR_SUM, f"{evidence}{weight:.3g}.")


def _gradients(loss, output, x, mu, log_var, seed: int = 0) -> list[Tensor]:
    """Return the derivatives of the batch's sum by output, mu and log_var; no .grad is written."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (output, mu, log_var)]
    reseed(x.device, seed)
    with torch.enable_grad():
        value = loss(leaves[0], x, *leaves[1:]).sum()
        if not value.requires_grad:
            raise ValueError("the loss does not depend on output, mu or log_var, or detaches them")
        return list(torch.autograd.grad(value, leaves, materialize_grads=True))


def _moves(loss, *arguments) -> bool:
    """Return whether the loss differs from one of these to the other, with the same noise."""
    values = []
    for at in (*arguments, arguments[0]):  # the first once more: it may differ from call to call
        reseed(at[1].device, 0)
        values.append(loss(*at).sum().item())
    return values[0] != values[1] and values[0] == values[2]


def _constant(values: Tensor | None) -> float | None:
    """Return c if all values are c to a thousandth, else None."""
    if values is None:
        return None
    c = values.mean().item()
    same = c != 0 and math.isfinite(c) and (values - c).abs().max() < 1e-3 * abs(c)
    return c if same else None


def _per_image(measured: Tensor, expected: Tensor) -> Tensor | None:
    """Return c `(B,)` if measured = c · expected to a thousandth in every image, else None."""
    a, b = exact(measured), exact(expected)
    c = (a * b).sum(dim=1) / b.square().sum(dim=1)
    fits = (a - c[:, None] * b).norm(dim=1) < 1e-3 * a.norm(dim=1)
    return c if fits.all() else None


def spread(like: Tensor, low: float, high: float) -> Tensor:
    """Return values evenly from low to high, in random order, in a tensor like this one."""
    values = torch.linspace(low, high, like.numel())[torch.randperm(like.numel())]
    return values.to(like).reshape(like.shape)


def reseed(device: torch.device, seed: int) -> None:
    """Start the noise of the CPU, and of this GPU, at a seed."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):  # of x, which need not be the current one
            torch.cuda.manual_seed(seed)


def exact(values: Tensor) -> Tensor:
    return values.cpu().double()  # first to the CPU: MPS has no float64
