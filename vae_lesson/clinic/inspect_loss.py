"""A loss by itself: how it changes with the output, mu and log_var, which are chosen here."""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor

from vae_lesson.clinic import findings
from vae_lesson.clinic.findings import Report
from vae_lesson.data import exact
from vae_lesson.words import N_, _

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
AS_THE_NOISE = N_("what the noise takes it for")
A_SIGMA_A_PIXEL = N_("Gaussian with a σ a pixel")
# A reconstruction loss's derivative by the output o is c · (mean − target) / scale of these two.
LIKELIHOODS = {
    N_("Bernoulli on logits"): lambda o: (o.sigmoid(), 1),
    N_("Bernoulli on probabilities"): lambda o: (o, o * (1 - o)),
    "Gaussian": lambda o: (o, 1),
    A_SIGMA_A_PIXEL: lambda o: (o, 1),
    N_("Gaussian on logits"): lambda o: (o.sigmoid(), 1 / (o.sigmoid() * (-o).sigmoid())),
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
    by_own: dict[int, float]  # weights that it has itself, by id: the largest


def inspect_loss(report: Report, loss: Callable, output, x, mu, as_the_noise) -> Slopes:
    """Report what is wrong and right with a loss, and return its `Slopes`.

    `loss(output, x, mu, log_var)` is tried at values chosen here, whatever the model makes; x is
    brought to [0, 1] for that, if the loss lets it. `as_the_noise(log_var, slope)` returns what a
    KL of this derivative takes log_var for. Shapes: output, x, mu `(B, ...)`.
    Raises: ValueError if the loss has no derivative, or falls as the output leaves x.
    """
    low, size = (0, 1) if x.min() >= 0 and x.max() <= 1 else (x.min(), x.max() - x.min())
    # Outputs of all kinds may lie in (0, 1). At such mu the KL is beyond free bits and any
    # capacity. What is called log_var may be a σ, over 0; the loss may clamp it: stay below 1.
    o, v = spread(output, 0.05, 0.95), spread(mu, 0.2, 0.9)
    mu = spread(mu, 50, 80) * (2 * torch.randint_like(v, 2) - 1)
    try:
        near = _try(loss, o, images := (x - low) / size, mu, v)
    except Exception:  # a likelihood of counts refuses fractions
        near = _try(loss, o, images := x, mu, v)

    def at(mu=mu, v=v, output=o, seed=0) -> Trial:
        return _try(loss, output, images, mu, v, seed)

    again, other = at(seed=1), at(output=torch.where(o < 0.5, o + 0.2, o - 0.45))
    if not near.by[0].any():  # the reconstruction, if any, comes by way of mu and log_var
        if near.value == again.value != other.value:
            report.find(findings.GRADIENT_CUT, _("The loss gives the output no gradient."))
        report.skip(N_("the loss"), _("it leaves the output aside"))
        return Slopes()
    likelihood, recon, target = _likelihood(near, other)
    limits, towards = None, recon or _towards(near, other)
    if recon and recon < 0:
        raise ValueError("the loss falls as output leaves x: give what is minimised, not the ELBO")
    if likelihood:
        report.right(N_("likelihood"), _(likelihood))
        with suppress(Exception):  # a cross-entropy refuses x out of [0, 1]
            given = _try(loss, o, x, mu, v)
            if given.value == near.value and torch.equal(given.by[0], near.by[0]):
                x = images  # to which the loss brings x by itself
        limits = _inspect_target(report, target, exact(images), exact(x))
        if near.by_own and limits and likelihood in ("Gaussian", "Laplace", A_SIGMA_A_PIXEL):
            fits = at(output=target.reshape(o.shape).to(o)).by_own
            if any(fits[own] < 1e-3 * by for own, by in near.by_own.items()):
                said = _("Where the output is x, a weight of the loss has no gradient.")
                report.find(findings.LOG_FORGOTTEN, said)
    else:
        what = N_("likelihood, range and beta")
        report.skip(what, _("the likelihood is not known here"))
        by_x = exact(near.by[0]).flatten()[exact(images).flatten().argsort()].nan_to_num()
        falls = by_x[0] > by_x[-1] and by_x.diff().max() <= 1e-4 * by_x.abs().max()
        if falls and torch.allclose(near.by[0], other.by[0], rtol=1e-3, atol=0):
            said = _("The loss is linear in the output and falls with x.")
            report.find(findings.SWAPPED, said)
    beta, reading = _inspect_kl(report, at, near, again, as_the_noise)
    if beta and not towards:
        why = _("whether the loss falls as the output nears x is not clear")
        report.skip(N_("the KL's sign"), why)
    elif beta and beta < 0 < towards:
        said = _("By mu the derivative is {beta:.3g}·mu.").format(beta=beta)
        report.find(findings.WRONG_SIGN, said)
    if recon and all(finding.fault != findings.BROADCAST for finding in report):
        _inspect_reduction(report, loss, at(1e4 * mu), beta, recon, likelihood, limits)
    return Slopes(likelihood, limits, reading)


def _likelihood(near: Trial, other: Trial) -> tuple:
    """Return (likelihood, c, target), or three None; c is None where it is not one number.

    The derivatives at two outputs are two equations a pixel: for the target, and for c, which must
    be the same all over, or the target x.
    """
    o, other_o, slope, other_slope = map(exact, (near.at[0], other.at[0], near.by[0], other.by[0]))
    x = exact(near.at[1]).reshape(o.shape)
    for name, parts in LIKELIHOODS.items():
        (mean, scale), (other_mean, other_scale) = parts(o), parts(other_o)
        each = (slope * scale - other_slope * other_scale) / (mean - other_mean)
        if name == A_SIGMA_A_PIXEL:
            if each.min() > 0 and (o - slope / each - x).abs().max() < 1e-4:
                return name, None, x
        elif c := _constant(each):
            return name, c, mean - slope * scale / c
    c = _constant(torch.stack([slope / (o - x).sign(), other_slope / (other_o - x).sign()]))
    return ("Laplace", c, x) if c else (None, None, None)


def _towards(*trials: Trial) -> int | None:
    """Return 1 if the loss falls wherever the output, or its sigmoid, nears x, −1 if it rises."""
    for mean in (lambda o: o, torch.sigmoid):
        rises = [t.by[0] * (mean(t.at[0]) - t.at[1].reshape(t.at[0].shape)) for t in trials]
        for sign in (1, -1):
            if all((sign * each >= 0).all() for each in rises):
                return sign


def _inspect_target(report: Report, target, x, given) -> tuple | None:
    """Find what the output is compared with, if not with its own image; return its limits."""
    x, target = x.flatten(1), target.flatten(1)
    slope = ((x - x.mean()) * target).sum() / (x - x.mean()).square().sum()
    offset = target.mean() - slope * x.mean()
    least = 1e-2 / (given.max() - given.min())  # images from 0 to 255 may be divided by 255
    if (offset + slope * x - target).abs().max() < 1e-2 * slope.abs().clamp_min(least):
        if slope.abs() <= least:
            said = _("The target is {value:.3g} at every pixel.").format(value=offset)
            return report.find(findings.WRONG_TARGET, said)
        low, high = (round((slope * x + offset).item(), 4) + 0.0 for x in given.aminmax())
        said = _("each image, from {low:.3g} to {high:.3g}").format(low=low, high=high)
        report.right(N_("target"), said)
        return low, high
    if len(x) > 1 and (target - x.mean(dim=0)).abs().max() < 1e-2:
        said = _("Each output is compared with every image: its target is their mean.")
        return report.find(findings.BROADCAST, said)
    n_others = ((target - x).norm(dim=1) > 0.1).sum()
    if n_others > 0 and torch.cdist(target, x).min(dim=1).values.max() < 1e-2:
        said = _("{n_others} targets are the images of others.").format(n_others=n_others)
        return report.find(findings.WRONG_TARGET, said)
    report.skip("target", _("it is not the image: made of it, or drawn"))


def _inspect_kl(report: Report, at: Callable, near: Trial, again: Trial, as_the_noise) -> tuple:
    """Inspect the KL; return beta and the reading of log_var, None for what is not known."""
    large, far = near.at[2], at(1e4 * near.at[2])
    mu, v, by_mu, by_v = (exact(each).flatten(1) for each in (*near.at[2:], *near.by[1:]))
    if not (by_mu.isfinite().all() and by_v.isfinite().all()):
        report.skip(N_("formula of the KL"), _("its derivatives are not finite"))
    elif any(_differ(a, b) for a, b in zip(near.by[1:], again.by[1:])):
        # Beside so large a mu the noise of one sample's KL is nothing.
        grows = _constant(exact(again.by[1]).flatten(1) / by_mu)
        said = _("its weight changes from call to call"), _("it is that of one sample of z")
        report.skip("formula of the KL", said[not grows])
        return (None if grows else _constant(_per_image(far))), None
    elif near.by[1].norm() == near.by[2].norm() == 0:  # some may be too small to be squared
        one = 1e-3 * large  # but for one dimension
        one.flatten(1)[0, 0] = 60
        # σ is 1, as log σ or as σ
        firsts = [at(one, torch.full_like(one, v)).by[1].flatten(1)[0] for v in (1e-3, 1.001)]
        if near.value == again.value != far.value and not far.by[1].any():
            report.find(findings.KL_WITHOUT_GRADIENT, _("The loss changes with mu all the same."))
        elif any(first[0] == 0 and first[1:].any() for first in firsts):
            said = _("Over a limit a dimension's KL has no gradient, under it it has.")
            report.find(findings.BITS_TURNED, said)
        else:
            why = _("where mu is large, the loss does not change with it")
            report.skip("formula of the KL", why)
    else:
        betas = _per_image(near)
        by_beta = by_v / betas[:, None]
        known = _reading(by_beta, v)
        if reading := known[0] if known else as_the_noise(near.at[3], by_beta):
            said = _("to N(0, I), log_var read as {reading}").format(reading=_(reading))
            report.right("formula of the KL", said)
            # A square or a capacity of the KL makes a beta of its own at every mu: no judgement.
            beta = _constant(betas := torch.cat([betas, _per_image(far)]))
            of_1 = {"σ": 1, "σ²": 1, "2σ": 2}.get(reading, 0) + 1e-3
            small = _per_image(at(1e-3 * large, torch.full_like(near.at[3], of_1)))
            if not _constant(torch.cat([betas, small])):
                why = _("it changes with the KL: free bits, a capacity or a limit")
                report.skip("beta", why)
            return (None if beta and (small * beta < 0).any() else beta), reading
        of_mu, of_by = mu - mu.mean(dim=0), by_mu - by_mu.mean(dim=0)
        a = (of_mu * of_by).sum(dim=0) / of_mu.square().sum(dim=0)
        linear = len(mu) > 2 and (a > 0).all() and not _differ(of_by, a * of_mu)
        if linear and (prior := _reading(by_v, v, None, a)):
            means, sigmas = ((mu - by_mu / a).mean(dim=0), (prior[1] / a).sqrt())
            why = _(
                "it is not N(0, I), but a Gaussian with means from {low:.2g} to {high:.2g} and σ "
                "from {least:.2g} to {most:.2g}"
            )
            why = why.format(
                low=means.min(), high=means.max(), least=sigmas.min(), most=sigmas.max()
            )
            report.skip(N_("the prior"), why)
            return prior[::-1]
        moved = torch.cat([-0.5 * large[:1], large[1:]])
        if any(_differ(a[1:], b[1:]) for a, b in zip(near.by[1:], at(moved).by[1:])):
            why = _("codes of a batch are compared, as in DIP-VAE")
            report.skip("formula of the KL", why)
        else:
            said = _(
                "The loss's derivatives by mu and log_var are those of no beta · KL: the prior is "
                "taken to be N(0, I), and penalties on mu or log_var count as part of it."
            )
            report.find(findings.KL_FORMULA, said)
    return None, None


def _reading(by_v, v, beta=1.0, a=1.0) -> tuple | None:
    """Return (reading, beta) if a KL has this derivative by v: ½ a·(σ²)' − beta·(log σ)'.

    With a prior N(m, s²) a dimension a is beta / s², and the KL's derivative by mu is a·(mu − m).
    """
    for name, sigma in READINGS.items():
        with torch.enable_grad():
            leaf = v.clone().requires_grad_()
            of_log = torch.autograd.grad(sigma(leaf).log().sum(), leaf)[0]
        of_square = 2 * sigma(v).square() * of_log
        if beta is None and (found := _constant((0.5 * a * of_square - by_v) / of_log)):
            return (name, found) if found > 0 else None
        if beta and not _differ(0.5 * a * of_square - beta * of_log, by_v, 0.01):
            return name, beta


def _inspect_reduction(report: Report, loss, trial: Trial, beta, c, likelihood, limits) -> None:
    """Find a mean on one side and a sum on the other, and a beta far from 1."""
    output, x, mu = trial.at[:3]
    n_images, n_pixels, n_latents = len(x), output[0].numel(), mu[0].numel()
    recon, kl, pixels, latents = _reductions(loss, trial)
    if recon == "product":
        said = _("Of {n_images} images twice, each output's gradient is twice as large.")
        report.find(findings.BROADCAST, said.format(n_images=n_images))
    if not beta:
        return
    # ½ squared error and squared error are both at home: beta may be twice what is measured.
    true, free = abs(beta) / c, not likelihood.startswith("Bernoulli")
    betas = (true, 2 * true) if "Gaussian" in likelihood else (true,)
    measured, fixed = {}, {}  # what is said, and by how much it multiplies beta
    numbers = {"n_pixels": n_pixels, "n_latents": n_latents, "n_images": n_images}
    if pixels == "mean":
        measured[_("the reconstruction is a mean over {n_pixels} pixels")] = n_pixels
    elif n_pixels >= 400:  # divisors that stay as they are, of sizes that nobody takes for beta
        fixed[_("the reconstruction is as if divided by {n_pixels} pixels")] = n_pixels
        fixed[_("the KL is as if divided by {n_pixels} pixels")] = 1 / n_pixels
        said = _("the KL is as if divided by {n_pixels} pixels and {n_images} images")
        fixed[said] = 1 / n_pixels / n_images
    if latents == "mean":
        measured[_("the KL is a mean over {n_latents} latent dimensions")] = 1 / n_latents
    elif (recon, kl) == ("sum", "mean"):
        fixed[_("the KL is as if divided by {n_latents} latent dimensions")] = 1 / n_latents
    ways = [measured]
    if recon and kl and recon != kl:
        # A fixed number may stand for the batch size, so that it may as well be no fault.
        said = _(
            "the reconstruction is a {recon} over the {n_images} images of the batch and the KL a "
            "{kl}"
        )
        numbers |= {"recon": _(recon), "kl": _(kl)}
        by = n_images if recon == "mean" else 1 / n_images
        ways.append(measured | {said: by})
    ways += [way | {said: by} for way in ways for said, by in fixed.items()]
    # A way that leaves a weight of 1 explains the loss; without one, what is measured is certain.
    cases = [(way, beta, beta / math.prod(way.values())) for way in ways for beta in betas]
    sure = [case for case in cases if abs(case[-1] - 1) < 1e-3]
    way, beta, weight = (sure or cases)[0]
    # Another weight may be there to make up for it. Beside a mean over many pixels 4 does not.
    uncorrected = pixels == "mean" and n_pixels >= 100 and weight > n_pixels**-0.25
    uncorrected |= pixels != "mean" and latents == "mean" and weight < n_latents**0.25
    # Of a Gaussian it is the variance too: σ is between the images' range and a grey level.
    size = (limits[1] - limits[0]) ** 2 if free and limits else 1
    least, most = size / 30 / 256**2 if free else 1 / 30, 30 * size
    scales = _("1, if the scale is {size:.3g}"), _("1, if the variance is {size:.3g}")
    true = scales["Gaussian" in likelihood].format(size=true) if free else f"{true:.3g}"
    if (sure or uncorrected) and not 1 / 1.5 < math.prod(way.values()) < 1.5:
        said = _("Here {way}. beta is in truth {beta:.3g}, and looks like {weight:.3g}.")
        way = _("; ").join(way).format(**numbers)
        report.find(findings.MEAN_FOR_SUM, said.format(way=way, beta=beta, weight=weight))
    elif "beta" not in report.not_examined and (max(betas) <= least or min(betas) >= most):
        said = _("; ").join([_("beta is {beta}").format(beta=true), *measured])
        report.find(findings.FAR_BETA, _("{said}.").format(said=said.format(**numbers)))
    elif "beta" not in report.not_examined:
        report.right("beta", true)


def _reductions(loss, trial: Trial) -> list[str | None]:
    """Return whether recon and KL are a "sum" or a "mean" over images, recon over pixels, KL over
    latent dimensions; None for what cannot be told.

    With all of these twice a sum's derivatives stay as they are, and a mean's are halved; those of
    a sum over pairs of images are doubled.
    """
    as_output, found = (trial.at[0], trial.at[1].reshape(trial.at[0].shape), *trial.at[2:]), []
    for of, at, dim, doubled in [(0, trial.at, 0, "oxmv"), (1, trial.at, 0, "oxmv"),
                                 (0, as_output, -1, "ox"), (1, trial.at, 1, "mv")]:  # fmt: skip
        twice = [torch.cat([t, t], dim) if one in doubled else t for t, one in zip(at, "oxmv")]
        found.append(None)
        with suppress(Exception):  # the loss may take this shape only
            by = _try(loss, *twice).by[of]
            ratio = (exact(by).norm() / exact(trial.by[of]).norm()).item() / math.sqrt(2)
            found[-1] = {1.0: N_("sum"), 0.5: N_("mean"), 2.0: N_("product")}.get(round(ratio, 2))
    return found


def _try(loss, output, x, mu, log_var, seed: int = 0) -> Trial:
    """Try a loss at one point, with the noise of this seed; no .grad is written."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (output, mu, log_var)]
    reseed(x.device, seed)
    with torch.enable_grad(), warnings.catch_warnings(action="ignore"):  # of shapes that differ
        value = loss(leaves[0], x, *leaves[1:]).sum()
        if not value.requires_grad:
            raise ValueError("the loss does not depend on output, mu or log_var, or detaches them")
        own = [w for w in leaves_of(value) if all(w is not leaf for leaf in leaves)]
        by = torch.autograd.grad(value, [*leaves, *own], materialize_grads=True)
    by_own = {id(weight): each.abs().max().item() for weight, each in zip(own, by[3:])}
    return Trial((output, x, mu, log_var), value.item(), by[:3], by_own)


def _constant(values: Tensor) -> float | None:
    """Return c if all values are c to a thousandth, else None."""
    c = values.mean().item()
    same = c != 0 and math.isfinite(c) and (values - c).abs().max() < 1e-3 * abs(c)
    return c if same else None


def _per_image(trial: Trial) -> Tensor:
    """Return beta `(B,)`, where the derivative by mu is beta · mu, NaN where it is not."""
    a, b = exact(trial.by[1]).flatten(1), exact(trial.at[2]).flatten(1)
    c = (a * b).sum(dim=1) / b.square().sum(dim=1)
    fits = (a - c[:, None] * b).norm(dim=1) < 1e-3 * a.norm(dim=1)
    return c.where(fits, math.nan)


def _differ(a: Tensor, b: Tensor, by: float = 1e-3) -> bool:
    return not (a - b).norm() <= by * a.norm()


def spread(like: Tensor, low: float, high: float) -> Tensor:
    """Return values evenly from low to high, in random order, in a tensor like this one."""
    values = torch.linspace(low, high, like.numel())[torch.randperm(like.numel())]
    return values.to(wide(like)).reshape(like.shape)


def leaves_of(values: Tensor) -> Iterator[Tensor]:
    """Yield the tensors with a gradient that these values are made of, the nearest first."""
    nodes = [values.grad_fn] if values.grad_fn else []
    for node in nodes:  # which grow
        if hasattr(node, "variable"):
            yield node.variable
        nodes += [each for each, _ in node.next_functions if each and each not in nodes]


def wide(values: Tensor) -> Tensor:
    """Return half precision, as autocast leaves it, as float32: small differences count."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def reseed(device: torch.device, seed: int) -> None:
    """Start the noise of the CPU, and of this GPU, at a seed."""
    torch.default_generator.manual_seed(seed)
    if device.type == "mps":
        torch.mps.manual_seed(seed)
    elif device.type == "cuda":
        with torch.cuda.device(device):  # of x, which need not be the current one
            torch.cuda.manual_seed(seed)
