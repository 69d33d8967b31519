"""The checks on a diagnosis: the true beta, what ails a VAE, an inspector, bits a pixel."""

import functools
import math
import re
from collections.abc import Callable

import torch
from torch import Tensor

from vae_lesson.clinic import findings, translate
from vae_lesson.clinic.broken import WARD, patient
from vae_lesson.clinic.inspector import inspect_vae
from vae_lesson.losses import bernoulli_nll, kl_standard_normal
from vae_lesson.models import VAE
from vae_lesson.teaching.checks.verdict import Verdict, attempt, compare, draw, ours, seeded
from vae_lesson.words import _

SYMPTOMS = {  # of the patients A to E
    findings.LOG_VAR_AS_SIGMA: "log_var settles at 0, where σ should be 1, and yet two runs on "
    "the same image hardly differ; but they do differ",
    findings.SIGMOID_TWICE: "no pixel of any image is under 0.50 or over 0.73",
    findings.MEAN_FOR_SUM: "the KL of every dimension falls to 0, and all images become one",
    findings.WRONG_SIGN: "the KL grows without end and takes the loss far below zero",
    findings.NO_NOISE: "two runs on the same image agree to the last digit",
}
PATIENTS = dict(zip("ABCDE", SYMPTOMS))


def our_effective_beta(pixels, latents, kl_weight, n_pixels, latent_size) -> float:
    """Return the effective beta of a loss with these reductions, by the translator."""
    sizes = {"n_pixels": n_pixels, "latent_size": latent_size}
    loss = translate.Loss(pixels=pixels, latents=latents, kl_weight=kl_weight, **sizes)
    return translate.effective_beta(loss)


@ours(our_effective_beta)
def effective_beta(answer: Callable[[str, str, float, int, int], float]) -> Verdict:
    """Check answer(pixels, latents, kl_weight, n_pixels, latent_size) -> the effective beta.

    It is asked for all four ways to write "sum" or "mean", and its four numbers are compared.
    """

    def all_cases():
        betas = [answer(p, j, 0.5, 100, 4) for p in ("sum", "mean") for j in ("sum", "mean")]
        if no_numbers := [beta for beta in betas if not hasattr(beta, "__float__")]:
            return no_numbers[0]  # None, or a word: `compare` says which
        return torch.stack([torch.as_tensor(beta).double() for beta in betas], dim=-1)

    def table(by_pixels: float, by_latents: float) -> Tensor:
        return torch.tensor([0.5 * b * a for b in (1, by_pixels) for a in (1, by_latents)])

    right, small, large = table(100, 1 / 4), table(1 / 100, 1 / 4), table(100, 4)
    mistakes = {
        "the inverse: beta is how much the KL counts beside recon": [1 / right, table(0.01, 4)],
        "a mean over pixels counted the wrong way: it makes recon small, and so beta large": small,
        "a mean over latents counted the wrong way: it makes the KL small, and so beta": large,
        "sum and mean exchanged: it is the mean that divides": right.flip(0),
        "the reductions without the weight: multiply by kl_weight": 2 * right,
        "the pixels alone: a mean over latents divides the KL": table(100, 1),
        "the latents alone: a mean over pixels divides recon": table(1, 1 / 4),
    }
    return compare(all_cases, (), right, mistakes)


def diagnose(answers: dict[str, str] | Callable[[], dict[str, str]]) -> Verdict:
    """Check {"A": the fault of patient A, ...}, or a function that returns it, patient by patient.

    A fault is one of the five, or words of its name that fit no other of them.
    """
    answers = attempt(answers) if callable(answers) else answers
    if isinstance(answers, Verdict):
        return answers
    if not isinstance(answers, dict):
        return Verdict("Not yet: expected a dict, got {got}.", got=type(answers).__name__)
    replies = {letter: _reply(answers.get(letter), fault) for letter, fault in PATIENTS.items()}
    right = {letter: _reply(fault, fault) for letter, fault in PATIENTS.items()}
    n, n_right = len(right), sum(replies[letter] == right[letter] for letter in right)
    not_all = Verdict("Not yet: {n_right} of {n} are right.", n_right=n_right, n=n)
    lines = [Verdict("✓ Correct.") if replies == right else not_all]
    lines += [f"{letter}: {reply}" for letter, reply in replies.items()]
    unknown = [letter for letter in answers if letter not in PATIENTS]
    lines += [_("There is no patient {letter}.").format(letter=letter) for letter in unknown]
    said = "\n".join(lines)
    return Verdict(said)


def _reply(said: object, fault: str) -> str:
    if not isinstance(said, str) or not said.strip(" .?"):
        return _("not yet.")
    named = fault_named(said)
    if named is None:
        says = _("{said!r} names none or several of the faults: {faults}.")
        return says.format(said=said, faults=", ".join(sorted(SYMPTOMS)))
    if named != fault:
        says = _("not {fault!r}: with it {symptom}. Look again.")
        return says.format(fault=named, symptom=_(SYMPTOMS[named]))
    return _("right, {fault}.").format(fault=fault)


def fault_named(words: str) -> str | None:
    """Return the patients' fault whose name has these words, in any order, if it is just one."""
    text = re.sub(r"log[ _]?(var|σ²)", "log_var", words.lower()).replace("σ", "sigma")
    said = set(re.findall(r"\w+", text)) - {"the", "of", "a", "an", "is", "as", "for", "no", "not"}
    fits = [f for f in SYMPTOMS if said and said <= set(f.lower().split())]
    return fits[0] if len(fits) == 1 else None


def our_factors(loss: Callable, output: Tensor, x: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
    """Return the slopes by output, mu and log_var over those of −ELBO, their medians, `(3,)`."""
    leaves = [value.clone().requires_grad_() for value in (output, mu, log_var)]
    found = torch.autograd.grad(loss(leaves[0], x, *leaves[1:]).sum(), leaves)
    of_neg_elbo = output.sigmoid() - x, mu, 0.5 * log_var.expm1()
    return torch.stack([(a / b).median() for a, b in zip(found, of_neg_elbo)])


@ours(our_factors)
def factors(answer: Callable[..., Tensor]) -> Verdict:
    """Check answer(loss, output, x, mu, log_var) -> `(3,)`, the slopes over those of −ELBO."""
    output, x, mu, log_var = draw((6, 9), (6, 9), (6, 2), (6, 2))
    x, right = x.sigmoid(), torch.tensor([2.0, 3.0, 5.0])

    def loss(output, x, mu, log_var):  # with these three factors
        of_log_var = kl_standard_normal(torch.zeros_like(mu), log_var)
        return 2 * bernoulli_nll(output, x) + 3 * kl_standard_normal(mu, log_var) + 2 * of_log_var

    slopes = output.sigmoid() - x, mu, 0.5 * log_var.expm1()
    themselves = right * torch.stack([slope.median() for slope in slopes])
    mistakes = {
        "the mean of the loss: its sum has each image's own slope": right / 6,
        "the derivatives themselves: divide each by what it should be": themselves,
        "σ² − 1 without its ½": right * torch.tensor([1, 1, 0.5]),
        "x − sigmoid(o): it is sigmoid(o) − x": right * torch.tensor([-1, 1, 1]),
    }
    return compare(lambda *a: answer(loss, *a), (output, x, mu, log_var), right, mistakes)


def our_noise(model: VAE, x: Tensor) -> Tensor:
    """Return the noise eps = (z − mu) / σ of one run of model(x), `(B, L)`."""
    seen, decode = [], model.decode
    model.decode = lambda z: seen.append(z) or decode(z)
    try:
        with torch.no_grad():
            _, mu, log_var = model(x)
    finally:
        del model.decode
    return (seen[0] - mu) / (0.5 * log_var).exp()


@ours(our_noise)
def noise(answer: Callable[[VAE, Tensor], Tensor]) -> Verdict:
    """Check answer(model, x) -> `(B, L)`, the noise eps = (z − mu) / σ of one run."""
    x, eps = draw((4, 9), (4, 3))
    with seeded():
        model = VAE(3, 8, (1, 3, 3)).requires_grad_(False)
    model.encoder[-1].bias[3:] += 1.0  # σ is not near 1
    model.forward = functools.partial(model.forward, eps=eps)  # its noise is known
    x = x.sigmoid()
    _, log_var = model.encode(x)
    sigma = (0.5 * log_var).exp()
    mistakes = {
        "z − mu: divide by σ": sigma * eps,
        "σ² for σ: σ is exp(½ log_var)": eps / sigma,
        "log_var for σ: σ is exp(½ log_var)": sigma * eps / log_var,
        "the opposite sign: z − mu, not mu − z": -eps,
    }
    verdict = compare(answer, (model, x), eps, mistakes)
    if verdict.ok and "decode" in vars(model):
        return Verdict("Not yet: right, but model.decode is still yours: put the old one back.")
    return verdict


@ours(lambda model, loss, x: [finding.fault for finding in inspect_vae(model, loss, x)])
def inspector(answer: Callable[[VAE, Callable, Tensor], list[str]]) -> Verdict:
    """Check answer(model, loss, x) -> the names of what is wrong, patient by patient.

    The healthy are one with beta 1, and one with beta 4.
    """

    def beta_4(output, x, mu, log_var):
        return bernoulli_nll(output, x) + 4 * kl_standard_normal(mu, log_var)

    with seeded():
        x = torch.rand(16, 784)
        cases = {name: patient(name, latent_size=4, hidden_size=16) for name in WARD}
        cases["healthy, beta 4"] = (VAE(4, 16), beta_4)
        for name, (model, loss) in cases.items():
            said = attempt(answer, model, loss, x)
            if isinstance(said, Verdict):
                return said
            if not isinstance(said, list) or not all(isinstance(word, str) for word in said):
                return Verdict("Not yet: return a list of names, [] if nothing is wrong.")
            wanted = [PATIENTS[name]] if name in PATIENTS else []
            if [fault_named(word) for word in said] != wanted:
                got, right = (", ".join(names) or _("nothing") for names in (said, wanted))
                says = "Not yet: of {name!r} it says: {got}. Right is: {wanted}."
                return Verdict(says, name=_(name), got=got, wanted=right)
    return Verdict("✓ Correct.")


@ours(lambda nats, n_pixels: nats / n_pixels / math.log(2) + 8)
def bits_per_dimension(answer: Callable[[Tensor, int], Tensor]) -> Verdict:
    """Check answer(nats, n_pixels) -> bits a pixel of 256 levels, from a density on [0, 1]."""
    # Few pixels, so that 8 bits an image show; near 0 bits, so that 255 levels for 256 show.
    nats, n_pixels = torch.tensor([-88.0, 40.0]), 16
    log_2, log_255, log_256 = (math.log(n) for n in (2, 255, 256))
    a_pixel = nats / n_pixels
    in_bits = a_pixel / log_2
    right = in_bits + 8
    mixed, inverse = [in_bits + log_256, (a_pixel + 8) / log_2], a_pixel * log_2 + 8
    mistakes = {
        "bits of the density: a level is 1/256 wide, so every pixel costs 8 bits more": in_bits,
        "255 levels: from 0 to 255 there are 256": (a_pixel + log_255) / log_2,
        "nats: divide by log 2": [a_pixel, a_pixel + log_256],
        "nats and bits added up: a level costs 8 bits, which are log 256 = 5.5 nats": mixed,
        "multiplying by log 2: one bit is 0.69 nats, so there are more bits than nats": inverse,
        "bits of the whole image: divide by the number of pixels": right * n_pixels,
    }
    return compare(answer, (nats, n_pixels), right, mistakes, per_image=True)
