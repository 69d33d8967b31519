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
    recon: float | None = None  # c of LIKELIHOODS
    target: Tensor | None = None  # what it takes for the images
    kl: float | None = None  # beta: the derivative by mu is beta · mu
    reading: str | None = None  # of log_var, from the derivative by it


def inspect_loss(loss: Callable, output: Tensor, x: Tensor, mu: Tensor):
    """Return a loss's faults, a list, and its `Slopes`, with the range of target for this x.

    `loss(output, x, mu, log_var)` is tried at values chosen here, whatever the model makes; x is
    brought to [0, 1] for that. `output` `(B, ...)` and `mu` `(B, latent_size)` give the shapes.
    Raises: ValueError if the loss has no derivative, or falls as the output leaves x.
    """
    low, size = (0, 1) if x.min() >= 0 and x.max() <= 1 else (x.min(), x.max() - x.min())
    images = (x - low) / size
    # Outputs of all kinds may lie in (0, 1). At such mu the KL is beyond free bits and any
    # capacity. What is called log_var may be a σ, over 0; the loss may clamp it: stay below 1.
    o, v = spread(output, 0.05, 0.95), spread(mu, 0.2, 0.9)
    far = spread(mu, 60, 100) * (2 * torch.randint_like(mu, 2) - 1)
    near = o, images, far, v
    beyond = torch.where(o < 0.5, o + 0.45, o - 0.45), images, 1e4 * far, v
    first, second = _gradients(loss, *near), _gradients(loss, *beyond)
    if not first[0].any():  # the reconstruction, if any, comes by way of mu and log_var
        return [], Slopes()
    flat = images.reshape(output.shape)
    slopes = Slopes(*_likelihood(o, beyond[0], first[0], second[0], flat))
    if slopes.recon and slopes.recon < 0:
        raise ValueError("the loss falls as output leaves x: give what is minimised, not the ELBO")
    found = list(_inspect_target(slopes, first[0], second[0], flat))
    faults, kl, reading = _inspect_kl(loss, near, beyond, first, second)
    found += faults
    # Without a known reconstruction the whole loss may be turned round: an ELBO, not −ELBO.
    if slopes.recon and kl:
        if kl < 0:
            evidence = f"The loss changes by {kl:.3g}·mu with mu: it falls as the KL grows."
            found.append(Finding(findings.WRONG_SIGN, evidence))
        beta = abs(kl) / slopes.recon
        found += _inspect_reduction(loss, beyond, second, beta, slopes.likelihood)
    return found, slopes._replace(kl=kl, reading=reading, target=_limits(slopes.target, flat, x))


def _likelihood(o, other, slope, other_slope, x) -> tuple:
    """Return (likelihood, c, target) from the derivatives at two outputs, or three None.

    slope = c · (a − b · target) at both: two equations a pixel, for c, which must be the same all
    over, and the target.
    """
    o, other, slope, other_slope, x = map(exact, (o, other, slope, other_slope, x))
    for name, parts in LIKELIHOODS.items():
        (a, b), (other_a, other_b) = parts(o), parts(other)
        scales = (other_slope * b - slope * other_b) / (other_a * b - a * other_b)
        if scale := _constant(scales):
            return name, scale, (a - slope / scale) / b
    scales = torch.stack([slope / (o - x).sign(), other_slope / (other - x).sign()])
    scale = _constant(scales)
    return ("Laplace", scale, x) if scale else (None, None, None)


def _inspect_target(slopes, slope, other_slope, x) -> Iterator[Finding]:
    """Find what the loss compares the output with, if it is not its own image."""
    x = exact(x).flatten(1)
    if slopes.target is None:
        # A cross-entropy whose target is the output is linear in it, and falls with x.
        by_x = slope.flatten()[x.flatten().argsort()].nan_to_num()
        falls = by_x[0] > by_x[-1] and (by_x.diff() <= 1e-4 * by_x.abs().max()).all()
        if falls and torch.allclose(slope, other_slope, rtol=1e-3, atol=0):
            evidence = (
                "The loss's derivative by the output is the same whatever the output: there the "
                "images are taken for the probabilities, and the output for the target."
            )
            yield Finding(findings.SWAPPED, evidence)
        return
    target = slopes.target.flatten(1)
    if x.std() > 0.01 > 100 * (target - target.mean()).abs().max():
        evidence = f"The output is compared with {target.mean():.3g} at every pixel."
        yield Finding(findings.WRONG_TARGET, evidence)
    nearest = torch.cdist(target, x).min(dim=1)
    others = (nearest.values < 1e-2) & ((target - x).norm(dim=1) > 1e-1)
    if others.any() and (nearest.values < 1e-2).all():
        evidence = f"Of {len(x)} outputs, {others.sum()} are compared with another's image."
        yield Finding(findings.WRONG_TARGET, evidence)


def _limits(target: Tensor | None, x: Tensor, given: Tensor) -> tuple[float, float] | None:
    """Return the range of what the loss makes of the images as given, if it is linear in them."""
    if target is None or x.std() == 0:
        return None
    target, x = exact(target).flatten(), exact(x).flatten()
    slope = ((x - x.mean()) @ target / (x - x.mean()).square().sum()).item()
    offset = (target.mean() - slope * x.mean()).item()
    if (slope * x + offset - target).abs().max() > 1e-2 * abs(slope):
        return None
    return slope * given.min().item() + offset, slope * given.max().item() + offset


def _inspect_kl(loss, near, beyond, first, second) -> tuple:
    """Return the KL's faults, beta (0: there is no KL, None: not known), the reading of log_var."""
    (_, images, mu, v), (by_mu, by_v), by_farther_mu = near, first[1:], second[1]
    again = _gradients(loss, *near, seed=1)
    if not all(tensor.isfinite().all() for tensor in (by_mu, by_v, by_farther_mu)):
        return [], None, None
    farther = _per_image(by_farther_mu, 1e4 * mu)
    if any((a - b).norm() > 1e-3 * a.norm() for a, b in zip(first[1:], again[1:])):
        # The KL is that of one sample of z. Beside so large a mu its noise is nothing.
        return [], None if farther is None else _constant(farther), None
    if not by_mu.any() and not by_v.any():
        reseed(images.device, 0)
        value = loss(near[0], images, mu, v).sum()
        reseed(images.device, 0)
        other = loss(near[0], images, 1e4 * mu, v).sum()
        evidence = "The loss's value changes with mu, but its derivatives by mu and log_var are 0."
        fault = Finding(findings.KL_WITHOUT_GRADIENT, evidence)
        return [fault] if value != other else [], 0.0, None
    betas, reading = _per_image(by_mu, mu), None
    if betas is not None:
        for name, sigma in READINGS.items():
            with torch.enable_grad():
                leaf = exact(v).requires_grad_()
                kl = 0.5 * sigma(leaf).square() - sigma(leaf).log()
                expected = betas[:, None] * torch.autograd.grad(kl.sum(), leaf)[0]
            if (expected - exact(by_v)).norm() < 0.01 * expected.norm():
                reading = name
                break
    if reading is None:
        by = "mu is not beta·mu" if betas is None else "log_var is not beta·½(exp(log_var) − 1)"
        evidence = (
            f"The loss's derivative by {by}, as it is for beta · KL(N(mu, σ²) ‖ N(0, 1)): the "
            "prior is taken to be N(0, I), and penalties on mu or log_var count as part of the KL."
        )
        return [Finding(findings.KL_FORMULA, evidence)], None, None
    # A square or a capacity of the KL makes a beta of its own at every mu: no judgement of it.
    beta = None if farther is None else _constant(torch.cat([betas, farther]))
    return [], beta, reading


def _inspect_reduction(loss, at, slopes, beta: float, likelihood: str) -> Iterator[Finding]:
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
    over_pixels, over_latents = reduction(0, *images, mu, log_var), reduction(1, output, x, *codes)
    over_images = recon_over, kl_over = reduction(0, *batch), reduction(1, *batch)
    # By how much each of these multiplies beta.
    way, ratio = {}, {("mean", "sum"): n_images, ("sum", "mean"): 1 / n_images}.get(over_images)
    if over_pixels == "mean":
        way[f"the reconstruction is a mean over {n_pixels} pixels"] = n_pixels
    if over_latents == "mean":
        way[f"the KL is a mean over {n_latents} latent dimensions"] = 1 / n_latents
    ways, divisors = [way], {}
    if ratio:  # a fixed number may stand for the batch size, so that it may as well be no fault
        of_batch = f"the reconstruction is a {recon_over} over the {n_images} images of the batch"
        ways.append(way | {f"{of_batch} and the KL a {kl_over}": ratio})
    # Divisors that stay as they are, of sizes which nobody would choose as beta.
    if n_pixels >= 400 and over_pixels != "mean":
        divisors[f"the reconstruction is as if divided by {n_pixels} pixels"] = n_pixels
        divisors[f"the KL is as if divided by {n_pixels} pixels"] = 1 / n_pixels
        by_both = f"the KL is as if divided by {n_pixels} pixels times {n_images} images"
        divisors[by_both] = 1 / (n_pixels * n_images)
    if over_images == ("sum", "mean"):
        divisors[f"the KL is as if divided by {n_latents} latent dimensions"] = 1 / n_latents
    divided = [w | {said: by} for w in ways for said, by in divisors.items()]
    # ½ squared error and squared error are both at home: take the one that needs no weight.
    betas = [beta, 2 * beta] if likelihood.startswith("Gaussian") else [beta]

    def distance(b: float, way: dict[str, float]) -> float:
        return round(abs(math.log(b / math.prod(way.values()))), 4)

    cases = [(b, w) for w in [*ways, *divided] for b in betas]
    sure = [case for case in cases if distance(*case) < 1e-3]
    beta, way = [*sure, min(cases[: len(ways) * len(betas)], key=lambda case: distance(*case))][0]
    # A weight that makes up for it is no fault, nor is one that may have been chosen to. Beside a
    # mean over many pixels a weight of 4 makes up for nothing; else only a weight of 1 is certain.
    factor = math.prod(way.values())
    weight = beta / factor
    uncorrected = over_pixels == "mean" and n_pixels >= 100 and weight > n_pixels**-0.25
    if abs(math.log(factor)) > math.log(1.5) and (uncorrected or sure):
        said = "; ".join(way)
        evidence = f"Here {said}. beta is in truth {beta:.3g}, and looks like {weight:.3g}."
        yield Finding(findings.MEAN_FOR_SUM, evidence)


def _gradients(loss, output, x, mu, log_var, seed: int = 0) -> list[Tensor]:
    """Return the derivatives of the batch's sum by output, mu and log_var; no .grad is written."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (output, mu, log_var)]
    reseed(x.device, seed)
    with torch.enable_grad():
        value = loss(leaves[0], x, *leaves[1:]).sum()
        if not value.requires_grad:
            raise ValueError("the loss does not depend on output, mu or log_var, or detaches them")
        return list(torch.autograd.grad(value, leaves, materialize_grads=True))


def _constant(values: Tensor) -> float | None:
    """Return c if all values are c to a thousandth, else None."""
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
