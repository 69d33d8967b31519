"""A model by itself: what it makes of a mu and a log_var that are chosen here."""

from contextlib import suppress
from typing import NamedTuple

import torch
import torch.distributions as D
from torch import Tensor, nn

from vae_lesson.arguments import shapes_of
from vae_lesson.clinic import findings
from vae_lesson.clinic.findings import Report
from vae_lesson.clinic.inspect_loss import AS_THE_NOISE, READINGS, Slopes, reseed, spread, wide
from vae_lesson.data import exact
from vae_lesson.words import N_, _


def inspect_model(report: Report, model: nn.Module, x: Tensor, slopes: Slopes) -> None:
    """Report what is wrong and right with a model in training mode, beside a loss of these slopes.

    `model(x)` returns (output, mu, log_var), all finite; x and output `(B, ...)`, mu and log_var
    `(B, ...)`. mu and log_var are chosen here, if `forward` takes them from `encode`.
    """
    output, mu, log_var = model(x)
    _inspect_code(report, model, x, mu, log_var, slopes.reading)
    if slopes.likelihood:
        _inspect_range(report, model, x, output, mu, slopes)
    _inspect_noise(report, model, x, mu, slopes.reading)
    _inspect_gradient(report, model, x, mu)
    _inspect_images(report, model, x)


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
        log_noise = (one.z[0] - chosen["mu"]).abs().log().sum()
        (slope,) = torch.autograd.grad(log_noise, chosen["log_var"], allow_unused=True)
    if slope is None:  # a σ that is a weight
        return None
    sigma = (1 + by_v / exact(slope).flatten(1)).sqrt()
    _, noise = _draws(model, x, *chosen.values(), n_values=16384)
    squares = (noise / sigma).square().mean(dim=0)
    there = squares.isfinite()  # not where σ is clamped, and both derivatives are 0
    halves = squares[there][exact(v).flatten(1)[there].argsort()].chunk(2)
    # Of few squares the mean is off by chance: 5 standard errors.
    off = [max(0.07, 5 * (2 / (len(noise) * max(len(half), 1))) ** 0.5) for half in halves]
    if all(abs(half.mean() - 1) < limit for half, limit in zip(halves, off)):
        return AS_THE_NOISE


def _inspect_code(report, model, x, mu, log_var, reading: str | None) -> None:
    """Find what the encoder makes of mu and log_var."""
    if mu.std() > 1e-6 and torch.allclose(mu, log_var):
        return report.find(findings.LOG_VAR_IS_MU, _("encode returns the same numbers twice."))
    # Untrained ones may all be over 0 by chance; those of images far out are not.
    with suppress(Exception):  # decode may not take what comes of such images
        far = [model(1000 * some)[1:] for some in (x, -x, torch.randn_like(x))]
        for name, *values in zip(("mu", "log_var"), (mu, log_var), *far):
            values = torch.cat(values)
            lowest = values.min()
            n_lowest = (values < lowest + 1e-3).sum()
            ends = lowest > -1e-6 and 0.1 * values.numel() < n_lowest < values.numel()
            if ends and (name == "mu" or reading in ("log σ²", "log σ")):
                said = _("{name} ends at {lowest:.2f}.").format(name=name, lowest=lowest)
                if name == "log_var":
                    said = _("log_var ends at {lowest:.2f}, so σ at {sigma:.2f}.")
                    said = said.format(lowest=lowest, sigma=READINGS[reading](lowest))
                report.find(findings.WRONG_RANGE, said)


def _inspect_range(report, model, x, output, mu, slopes: Slopes) -> None:
    """Find images and outputs that the loss is not made for."""
    distribution, _on, of = slopes.likelihood.partition(" on ")
    low, high = slopes.limits or (0.0, 1.0)
    if distribution == "Bernoulli" and (low < -0.01 or high > 1.01):
        said = _("The target goes from {low:.3g} to {high:.3g}.").format(low=low, high=high)
        return report.find(findings.WRONG_RANGE, said)
    bottom, top = output.aminmax()
    if of == "probabilities" and (bottom < -1e-6 or top > 1 + 1e-6):
        said = _("The loss takes probabilities, the output goes from {low:.3g} to {high:.3g}.")
        return report.find(findings.WRONG_RANGE, said.format(low=bottom, high=top))
    # Untrained outputs may lie in any range by chance; those of codes far out do not.
    passes = [_pass(model, x, 1000 * torch.randn_like(mu), 0.2 + 0 * mu) for _ in range(4)]
    outputs = [each.output.flatten() for each in passes]
    if not passes[0].chosen:
        with suppress(Exception):  # decode may take more than z
            outputs.append(model.decode(1000 * torch.randn_like(mu)).flatten())
    bottom, top = torch.cat(outputs).aminmax()
    reach = _("For codes of length 1000 a dimension the outputs go from {low:.3f} to {high:.3f}")
    reach = reach.format(low=bottom, high=top)
    least, most = (0, 1) if of == "logits" else (0.5, 0.73106)  # what one sigmoid or two can reach
    if top - bottom < 1e-6:
        return report.skip(N_("range"), _("the decoder leaves z aside"))
    sums = torch.cat([each.output.flatten(1).sum(dim=1) for each in passes])
    if (sums - 1).abs().max() < 1e-3 < (x.flatten(1).sum(dim=1) - 1).abs().max():
        said = _("Each image's outputs sum to 1, as of a softmax.")
        return report.find(findings.WRONG_RANGE, said)
    if least - 1e-6 < bottom and top < most + 1e-6:
        said = _("{reach}: there is a second sigmoid.").format(reach=reach)
        return report.find(findings.SIGMOID_TWICE, said)
    floor = 0 if bottom > -0.99 else -1  # of a sigmoid, or of tanh
    saturated = floor - 1e-6 < bottom < floor + 0.01 and 0.99 < top < 1 + 1e-6
    beyond = saturated and (of == "logits" or low < floor - 0.1 or high > 1.1)
    # ReLU, softplus, exp and logsigmoid have one end, at 0.
    middle = 0.5 if of == "logits" else 0.0  # what an output of 0 means
    one_end = (bottom > -1e-6 and low < middle - 0.1) or (top < 1e-6 and high > middle + 0.1)
    if beyond or one_end:
        said = _("{reach}, and the loss takes images from {low:.3g} to {high:.3g}.")
        said = _("{reach}, and the loss takes logits.") if of == "logits" else said
        return report.find(findings.WRONG_RANGE, said.format(reach=reach, low=low, high=high))
    said = _("outputs reach from {low:.3g} to {high:.3g}").format(low=bottom, high=top)
    report.right("range", said)


def _inspect_noise(report, model, x, mu, reading: str | None) -> None:
    """Compare z − mu with σ · eps, eps ~ N(0, I), over many passes with one mu and log_var."""
    # mu and log_var differ from element to element; what is called log_var may be a σ, over 0.
    chosen = spread(mu, -2, 2), spread(mu, -2.0 if reading == "log σ²" else 0.2, 2)
    passes, noise = _draws(model, x, *chosen, n_values=4096)
    first = passes[0]
    same = all(torch.equal(a, b) for each in passes for a, b in zip(each[1:3], first[1:3]))
    if first.chosen and not same:
        said = _("With mu and log_var held in encode, forward returns others in every run.")
        return report.find(findings.OTHER_CODE, said)
    if noise is None:
        return report.skip(N_("noise"), first.unseen)
    mu, v = exact(first.mu).flatten(1), exact(first.log_var).flatten(1)
    mean, sigma = noise.mean(dim=0), noise.std(dim=0).clamp_min(1e-12)
    tiny = 1e-4 * READINGS["log σ²"](v)
    if tiny.max() < 1e-7:
        return report.skip("noise", _("it is too small beside mu"))
    if (sigma < tiny).all():
        if (mean.abs() > tiny).any():
            return report.find(findings.NOT_STANDARD_NORMAL, _("z − mu is the same in every run."))
        if not same:
            said = _("forward returns z for mu, so others each run.")
            return report.find(findings.OTHER_CODE, said)
        return report.find(findings.NO_NOISE, _("In training mode z = mu in every run."))
    eps = (noise - mean) / sigma
    for dim, what in [(1, _("images of the batch")), (2, _("latent dimensions"))]:
        # The variance of a mean of n is 1/n of theirs if they are independent, theirs if equal.
        n = eps.shape[dim]
        if n > 1 and n * eps.mean(dim=dim).square().mean() > 1 + 0.75 * (n - 1):
            said = _("eps is one for all {n} {what}.").format(n=n, what=what)
            return report.find(findings.NOT_STANDARD_NORMAL, said)
    _inspect_mean_and_sigma(report, mean, sigma, eps, mu, v, reading)


def _inspect_mean_and_sigma(report, mean, sigma, eps, mu, v, reading: str | None) -> None:
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
        said = _("z − mu has a mean, of {mean:.2f} σ (with rand it is 1.73).")
        return report.find(findings.NOT_STANDARD_NORMAL, said.format(mean=ratio.mean()))
    if _rms(mean / sigma) > 0.5:  # more than chance
        (a, b, c, d), rest = _fit(mean, mu, expected[right], v, torch.ones_like(v))
        # A flow, say, turns z into something else, which is no sum of these with mu once or never.
        fits = rest < 0.2 * _rms(sigma) and min(abs(a), abs(a + 1)) < 0.1
        if not (enough and fits and (b * expected[right] + c * v).std() > 0.3):
            why = _("z is made of mu and log_var in a way not known here, as by a flow")
            return report.skip("noise", why)
        said = _("z has the mean {mean}.")
        said = said.format(mean=f"{1 + a:.2f}·mu + {b:.2f}·σ + {c:.2f}·log_var + {d:.2f}")
        return report.find(findings.NOT_STANDARD_NORMAL, said)
    shape = min((sigma / of).log().std() for of in expected.values())  # off by more than a factor
    if fourth < 2.3 and min(off[right], shape) < 0.35:
        said = _("eps has the fourth moment {fourth:.2f}, N(0, 1) 3, rand 1.8.")
        return report.find(findings.NOT_STANDARD_NORMAL, said.format(fourth=fourth))
    if off[right] < 0.35:  # exp(0.35) is 1.4: no more than chance
        said = _("z is mu + σ·eps, log_var read as {reading}").format(reading=_(right))
        return report.right("noise", said)
    at = v.argmin()
    low, has, wanted = (values.take(at) for values in (v, sigma, expected[right]))
    said = _("Where log_var is {low:.3g}, z has σ = {has:.3g}; as {reading} it says {wanted:.3g}")
    said = said.format(low=low, has=has, reading=_(right), wanted=wanted)
    if sigma.log().std() < 0.15 and v.std() > 0.3:
        said = _("{said}. σ is the same everywhere.").format(said=said)
        return report.find(findings.LOG_VAR_IGNORED, said)
    if off[nearest] < 0.2:  # it must fit, or it is something else again
        fault = findings.VARIANCE_AS_SIGMA if nearest == "log σ" else findings.LOG_VAR_AS_SIGMA
        fault = fault if right == "log σ²" else findings.KL_FORMULA
        other = {"reading": _(nearest), "says": expected[nearest].take(at)}
        said = _("{said}, as {reading} {says:.3g}.").format(said=said, **other)
        return report.find(fault, said)
    # σ comes from log_var alone?
    of, rest = _fit(sigma.log(), torch.ones_like(v), v, v**2, mu**2)
    if reading and enough and (shape < 0.13 or (rest < 0.13 and abs(of[-1]) < 0.05)):
        return report.find(findings.NOT_STANDARD_NORMAL, _("{said}.").format(said=said))
    why = _("its σ is made of mu and log_var in a way not known here, as by a flow")
    report.skip("noise", why)


def _fit(values: Tensor, *parts: Tensor) -> tuple[list[float], float]:
    """Return how much of each of these parts is in values, and how far that is from them."""
    A, b = torch.stack([part.flatten() for part in parts], dim=1), values.flatten()
    weights = torch.linalg.lstsq(A, b).solution
    return weights.tolist(), _rms(A @ weights - b)


def _rms(values: Tensor) -> float:
    return values.square().mean().sqrt().item()


def _inspect_gradient(report, model, x, mu) -> None:
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
            said = _("{name} is cut off from the encoder.").format(name=name)
            return report.find(findings.GRADIENT_CUT, said)
    if not first.chosen:
        why = _("forward does not take mu and log_var from encode")
        return report.skip(N_("gradient by mu"), why)

    def run(images=x, seed=0, hold=(), **other) -> Pass:
        reseed(x.device, seed)
        return _pass(model, images, **(chosen | other), hold=hold)

    before = run()
    output = before.output.flatten(1)
    slopes = dict(zip(chosen, torch.autograd.grad(total, chosen.values(), allow_unused=True)))
    for name, slope in slopes.items():
        moves = not torch.allclose(output, run(**{name: chosen[name] + 0.5}).output.flatten(1))
        if moves and (slope is None or not slope.any()):  # torch.normal gives derivatives of 0
            said = _("The output gives {name} no gradient.").format(name=name)
            return report.find(findings.GRADIENT_CUT, said)
    if slopes["mu"] is None:
        return report.find(findings.Z_UNUSED, _("The output is the same whatever mu is."))
    report.right(N_("gradient"), _("it comes from the output to mu and log_var"))
    # One pixel of each image changes. An autoregressive decoder uses it too, for later pixels.
    pixels = torch.arange(len(x)), torch.randint(output.shape[1], (len(x),))
    other = x.flatten(1).clone()
    other[pixels] += 0.5 - (other[pixels] > 0.5).to(x)
    changed = run(other.reshape(x.shape))

    def moved(one: Pass, another: Pass) -> bool:
        a, b = (each.output.flatten(1)[pixels] for each in (one, another))
        return not torch.allclose(a, b, 1e-4, 1e-6)

    if not moved(before, changed):
        return report.right("past z", _("an output does not change with its pixel"))
    # What is drawn is a code, if of a second level; what is not is a way past z.
    held, drawn = (run(seed=seed, hold=before.codes) for seed in (0, 1))
    codes = zip(before.codes, run(seed=1).codes, changed.codes)
    if not any(((a == b) & (a != c)).any() for a, b, c in codes) and (
        before.z is None or moved(held, drawn)
    ):
        why = _("z held, the output varies: of a second code no KL is seen")
        return report.skip("past z", why)
    report.find(findings.PAST_Z, _("With z held, the output's pixels change with those of x."))


def _inspect_images(report, model, x) -> None:
    """Find whether the output of the first image, or of the last, changes with others."""
    leaf = x.clone().requires_grad_()
    reseed(x.device, 0)
    with torch.enable_grad():
        output = model(leaf.clone())[0].flatten(1) + 0 * leaf.sum()
        sums = (output * torch.linspace(1, 2, output.shape[1]).to(output)).sum(dim=1).unbind()
    for i, own in [(0, slice(1)), (-1, slice(-1, None))]:
        rows = torch.autograd.grad(sums[i], leaf, retain_graph=True)[0].flatten(1).abs().sum(dim=1)
        size, rows[own] = rows.max(), 0
        if others := (rows > 1e-6 * size).sum():
            said = _("The output of image {number} changes with {n_others} other images.")
            said = said.format(number=i % len(x), n_others=others)
            return report.find(findings.MIXED, said)
    if size > 0 and len(x) > 1:
        return report.right(N_("images"), _("each has its own output"))
    why = _("no gradient reaches them") if len(x) > 1 else _("there is but one")
    report.skip("images", why)


class Pass(NamedTuple):
    """One forward pass of a model, and whether its mu and log_var are the chosen ones."""

    output: Tensor  # (B, ...)
    mu: Tensor
    log_var: Tensor
    z: Tensor | None  # (draws, *mu.shape), as `decode` gets it for the output
    chosen: bool
    codes: tuple[Tensor, ...]  # of each call of `decode`
    unseen: str  # why z is None


def _draws(model, x, mu, log_var, n_values: int) -> tuple[list[Pass], Tensor | None]:
    """Return passes that draw some n_values numbers of z, 64 to n_values / 16, and z − mu of each
    draw, `(draws, B, latent_size)`, None if z is not seen."""
    n = min(max(64, n_values // mu.numel()), n_values // 16)
    passes = [_pass(model, x, mu, log_var) for _ in range(n)]
    if any(each.z is None for each in passes):
        return passes, None
    return passes, torch.cat([exact(each.z) - exact(each.mu) for each in passes]).flatten(2)


def _pass(model, x, mu, log_var, hold=()) -> Pass:
    """Call a model with this mu and log_var in the place of what `encode` returns, or a normal
    distribution of them, and with these codes held, if any, in the place of what `decode` gets.

    What `encode` returns else is let through: a named tuple, for one, may be used by its names.
    """
    encode, decode, codes, made, chosen = model.encode, model.decode, [], [], []

    def encode_as_chosen(*arguments, **options):
        code = encode(*arguments, **options)
        normal = code.base_dist if type(code) is D.Independent else code
        if codes:  # of what was decoded: another code
            return code
        if type(normal) is D.Normal and normal.mean.shape == mu.shape:
            chosen.append(True)
            ours = D.Normal(mu.clone(), log_var.exp())
            return ours if normal is code else D.Independent(ours, len(code.event_shape))
        if type(code) not in (tuple, list) or shapes_of(code) != 2 * [tuple(mu.shape)]:
            return code
        chosen.append(True)
        return mu.clone(), log_var.clone()  # forward may work in place

    def decode_and_tell(z, *arguments, **options):
        codes.append((hold[len(codes)] if hold else z).clone())
        made.append(decode(codes[-1].clone(), *arguments, **options))
        return made[-1]

    # Before the class and the submodules in Python's order of look-up; the caller mends it.
    vars(model).update(encode=encode_as_chosen, decode=decode_and_tell)
    try:
        output, *code = model(x)
    finally:
        vars(model).update(encode=encode, decode=decode)
    output = wide(output)
    z, unseen = _code_of(output, code[0], codes, made)
    return Pass(output, *code, z, bool(chosen), tuple(codes), unseen)


def _code_of(output: Tensor, mu: Tensor, codes: list, made: list) -> tuple[Tensor | None, str]:
    """Return the z `(draws, *mu.shape)` of this output, or None and why it is not seen."""
    if not codes:
        return None, _("forward does not call decode")
    if len(codes) > 1:  # some may be of another image, or of the prior
        alike = [isinstance(each, Tensor) and each.numel() == output.numel() for each in made]
        o = output.flatten()  # it rises with what was made: its sigmoid, say
        own = [(o[y.flatten().argsort()].diff() >= 0).all() for y, fits in zip(made, alike) if fits]
        own = [z for z, fits in zip(codes, own) if fits] if all(alike) else []
        if not own and all(alike) and len({each.shape for each in made}) == 1:
            mean = torch.stack([wide(each) for each in made]).mean(dim=0)
            own = codes if torch.allclose(mean.reshape(output.shape), output, atol=1e-4) else []
        if not own or len({z.shape for z in own}) > 1:
            why = _("of {n_calls} calls of decode none is clearly the output's")
            return None, why.format(n_calls=len(codes))
        codes = own
    if codes[0].numel() % mu.numel():
        why = _("decode gets {n_numbers} numbers an image, mu has {n_mu}")
        return None, why.format(n_numbers=codes[0][0].numel(), n_mu=mu[0].numel())
    # Several draws may come before the images, or after them.
    before = torch.cat([z.reshape(-1, *mu.shape) for z in codes])
    after = torch.cat([z.reshape(len(mu), -1, *mu.shape[1:]).transpose(0, 1) for z in codes])
    return min(before, after, key=lambda z: (z - mu).norm().item()), ""
