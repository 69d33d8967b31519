"""The checks on a diagnosis: the true beta, what ails a VAE, an inspector, bits a pixel."""

import re
from collections.abc import Callable

import torch
from torch import Tensor

from vae_lesson.clinic import findings, translate
from vae_lesson.clinic.broken import WARD, patient
from vae_lesson.clinic.inspector import inspect_vae
from vae_lesson.losses import bernoulli_nll, kl_standard_normal
from vae_lesson.models import VAE
from vae_lesson.teaching.checks.verdict import ONE_NUMBER, Verdict, attempt, compare, draw

SYMPTOMS = {  # of the patients A to E
    findings.LOG_VAR_AS_SIGMA: "log_var settles at 0, where σ should be 1, and yet two runs on "
    "the same image hardly differ; but they do differ",
    findings.SIGMOID_TWICE: "no pixel of any image is under 0.50 or over 0.73",
    findings.MEAN_FOR_SUM: "the KL of every dimension falls to 0, and all images become one",
    findings.WRONG_SIGN: "the KL grows without end and takes the loss far below zero",
    findings.NO_NOISE: "two runs on the same image agree to the last digit",
}
PATIENTS = dict(zip("ABCDE", SYMPTOMS))


def effective_beta(answer: Callable[[str, str, float, int, int], float]) -> Verdict:
    """Check answer(pixels, latents, kl_weight, n_pixels, latent_size) -> the effective beta.

    It is asked for all four ways to write "sum" or "mean", and its four numbers are compared.
    """

    def table(by_pixels: float, by_latents: float, weight: float = 0.5) -> Tensor:
        return torch.tensor([weight * b * a for b in (1, by_pixels) for a in (1, by_latents)])

    def all_cases():
        betas = [answer(p, j, 0.5, 100, 4) for p in ("sum", "mean") for j in ("sum", "mean")]
        if no_numbers := [beta for beta in betas if not hasattr(beta, "__float__")]:
            return no_numbers[0]  # None, or a word: `compare` says which
        return torch.stack([torch.as_tensor(beta).double() for beta in betas], dim=-1)

    right, inverse = table(100, 1 / 4), [table(1 / 100, 4), table(1 / 100, 4, 2.0)]
    small, large = table(1 / 100, 1 / 4), table(100, 4)
    unweighted = [table(100, 1 / 4, weight) for weight in (1.0, 2.0)]
    mistakes = {
        "the inverse: beta is how much the KL counts beside recon": inverse,
        "a mean over pixels counted the wrong way: it makes recon small, and so beta large": small,
        "a mean over latents counted the wrong way: it makes the KL small, and so beta": large,
        "sum and mean exchanged: it is the mean that divides": right.flip(0),
        "n_pixels and latent_size exchanged: recon has n_pixels terms": table(4, 1 / 100),
        "the weight alone: the reductions count too": table(1, 1),
        "the reductions without the weight: multiply by kl_weight": unweighted,
        "the pixels alone: a mean over latents divides the KL": table(100, 1),
        "the latents alone: a mean over pixels divides recon": table(1, 1 / 4),
    }
    return compare(all_cases, (), right, mistakes)


def our_effective_beta(
    pixels: str, latents: str, kl_weight: float, n_pixels: int, latent_size: int
) -> float:
    """Return the effective beta of a loss with these reductions, by the translator."""
    sizes = {"n_pixels": n_pixels, "latent_size": latent_size}
    loss = translate.Loss(pixels=pixels, latents=latents, kl_weight=kl_weight, **sizes)
    return translate.effective_beta(loss)


def diagnose(answers: dict[str, str] | Callable[[], dict[str, str]]) -> Verdict:
    """Check {"A": the fault of patient A, ...}, or a function that returns it, patient by patient.

    A fault is one of the five, or words of its name that fit no other of them.
    """
    answers = attempt(answers) if callable(answers) else answers
    if isinstance(answers, Verdict):
        return answers
    if not isinstance(answers, dict):
        return Verdict(f"Not yet: expected a dict, got {type(answers).__name__}.")
    replies = {letter: _reply(answers.get(letter), fault) for letter, fault in PATIENTS.items()}
    n_right = sum(reply.startswith("right") for reply in replies.values())
    all_right = n_right == len(PATIENTS)
    lines = ["Correct." if all_right else f"Not yet: {n_right} of {len(PATIENTS)} are right."]
    lines += [f"{letter}: {reply}" for letter, reply in replies.items()]
    lines += [f"There is no patient {letter}." for letter in answers if letter not in PATIENTS]
    return Verdict("\n".join(lines))


def _reply(said: object, fault: str) -> str:
    if not isinstance(said, str) or not said.strip(" .?"):
        return "not yet."
    named = fault_named(said)
    if named is None:
        return f"{said!r} names none or several of the faults: {', '.join(sorted(SYMPTOMS))}."
    if named != fault:
        return f"not {named!r}: with it {SYMPTOMS[named]}. Look again."
    return f"right, {named}."


def fault_named(words: str) -> str | None:
    """Return the patients' fault whose name has these words, in any order, if it is just one."""
    text = re.sub(r"log[ _]?(var|σ²)", "log_var", words.lower()).replace("σ", "sigma")
    said = set(re.findall(r"\w+", text)) - {"the", "of", "a", "an", "is", "as", "for", "no", "not"}
    fits = [f for f in SYMPTOMS if said and said <= set(f.lower().split())]
    return fits[0] if len(fits) == 1 else None


def factors(answer: Callable[..., Tensor]) -> Verdict:
    """Check answer(loss, output, x, mu, log_var) -> `(3,)`, the slopes over those of −ELBO."""
    output, x, mu, log_var = draw((6, 9), (6, 9), (6, 2), (6, 2))
    x = x.sigmoid()

    def loss(output, x, mu, log_var):  # three factors that differ: 2, 3 and 5
        of_log_var = kl_standard_normal(torch.zeros_like(mu), log_var)
        return 2 * bernoulli_nll(output, x) + 3 * kl_standard_normal(mu, log_var) + 2 * of_log_var

    def over(*expected):
        return _medians(found, expected)

    found = _slopes(loss, output, x, mu, log_var)
    recon, log_var_slope = output.sigmoid() - x, 0.5 * log_var.expm1()
    right = our_factors(loss, output, x, mu, log_var)
    themselves = [torch.stack([f.median() for f in found]), torch.cat([f.flatten() for f in found])]
    mistakes = {
        "the mean of the loss: its sum has each image's own slope": right / 6,
        "the inverse: divide what is measured by what it should be": 1 / right,
        "the derivatives themselves: divide each by what it should be": themselves,
        "σ² − 1 without its ½": over(recon, mu, log_var.expm1()),
        "logits where probabilities belong: sigmoid(o) − x": over(output - x, mu, log_var_slope),
        "x − sigmoid(o): it is sigmoid(o) − x": over(-recon, mu, log_var_slope),
    }
    return compare(lambda *a: answer(loss, *a), (output, x, mu, log_var), right, mistakes)


def our_factors(loss: Callable, output: Tensor, x: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
    """Return the slopes by output, mu and log_var over those of −ELBO, their medians, `(3,)`."""
    right = output.sigmoid() - x, mu, 0.5 * log_var.expm1()
    return _medians(_slopes(loss, output, x, mu, log_var), right)


def _slopes(loss: Callable, output: Tensor, x: Tensor, mu: Tensor, log_var: Tensor) -> tuple:
    leaves = [value.clone().requires_grad_() for value in (output, mu, log_var)]
    return torch.autograd.grad(loss(leaves[0], x, *leaves[1:]).sum(), leaves)


def _medians(found: tuple, right: tuple) -> Tensor:
    return torch.stack([(a / b).median() for a, b in zip(found, right)])


class _Noisy(VAE):
    """A VAE whose noise is known: eps is what it was given."""

    def forward(self, x, eps=None, generator=None):
        return super().forward(x, self.eps, generator)


def noise(answer: Callable[[VAE, Tensor], Tensor]) -> Verdict:
    """Check answer(model, x) -> `(B, L)`, the noise eps = (z − mu) / σ of one run."""
    x, eps = draw((4, 9), (4, 3))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = _Noisy(3, 8, (1, 3, 3))
    model.encoder[-1].bias.data[3:] += 1.0  # σ is not near 1
    model.eps = eps
    x = x.sigmoid()
    with torch.no_grad():
        mu, log_var = model.encode(x)
    sigma = (0.5 * log_var).exp()
    z = mu + sigma * eps
    mistakes = {
        "z itself: take mu away and divide by σ": z,
        "z − mu: divide by σ": z - mu,
        "z / σ: take mu away first": z / sigma,
        "σ² for σ: σ is exp(½ log_var)": (z - mu) / log_var.exp(),
        "log_var for σ: σ is exp(½ log_var)": (z - mu) / log_var,
        "the opposite sign: z − mu, not mu − z": -eps,
        "noise times σ: divide by it": (z - mu) * sigma,
    }
    verdict = compare(answer, (model, x), eps, mistakes)
    if verdict.ok and "decode" in vars(model):
        return Verdict("Not yet: right, but model.decode is still yours: put the old one back.")
    return verdict


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


def inspector(answer: Callable[[VAE, Callable, Tensor], list[str]]) -> Verdict:
    """Check answer(model, loss, x) -> the names of what is wrong, patient by patient.

    The healthy are one with beta 1, and one with beta 4.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        x = torch.rand(16, 784)
        cases = {name: patient(name, latent_size=4, hidden_size=16) for name in WARD}
        model, _ = cases["healthy"]
        cases["healthy, beta 4"] = (
            model,
            lambda o, x, m, v: bernoulli_nll(o, x) + 4 * kl_standard_normal(m, v),
        )
        for name, (model, loss) in cases.items():
            said = attempt(answer, model, loss, x)
            if isinstance(said, Verdict):
                return said
            if not isinstance(said, list) or not all(isinstance(word, str) for word in said):
                return Verdict("Not yet: return a list of names, [] if nothing is wrong.")
            wanted = [PATIENTS[name]] if name in PATIENTS else []
            if [fault_named(word) for word in said] != wanted:
                found, right = (", ".join(names) or "nothing" for names in (said, wanted))
                return Verdict(f"Not yet: of {name!r} it says: {found}. Right is: {right}.")
    return Verdict("Correct.")


def our_inspector(model: VAE, loss: Callable, x: Tensor) -> list[str]:
    """Return the names of what is wrong with a model and its loss, as the package finds them."""
    return [finding.fault for finding in inspect_vae(model, loss, x)]


def bits_per_dimension(answer: Callable[[Tensor, int], Tensor]) -> Verdict:
    """Check answer(nats, n_pixels) -> bits a pixel of 256 levels, from a density on [0, 1]."""
    # Few pixels, so that 8 bits an image show; near 0 bits, so that 255 levels for 256 show.
    nats, n_pixels = torch.tensor([-88.0, 40.0]), 16
    log_2, log_255, log_256 = torch.tensor([2.0, 255.0, 256.0]).log()
    a_pixel = nats / n_pixels
    in_bits = a_pixel / log_2
    right = in_bits + 8
    density = [in_bits, in_bits - 8, in_bits + 8 / n_pixels]
    mixed = [in_bits + log_256, (a_pixel + 8) / log_2]
    inverse = [a_pixel * log_2 + 8, a_pixel * log_2, (a_pixel + log_256) * log_2]
    of_image = [right * n_pixels, nats / log_2 + 8, nats / log_2]
    mistakes = {
        "bits of the density: a level is 1/256 wide, so every pixel costs 8 bits more": density,
        "255 levels: from 0 to 255 there are 256": (a_pixel + log_255) / log_2,
        "nats: divide by log 2": [a_pixel, a_pixel + log_256, a_pixel + 8],
        "nats and bits added up: a level costs 8 bits, which are log 256 = 5.5 nats": mixed,
        "multiplying by log 2: one bit is 0.69 nats, so there are more bits than nats": inverse,
        "bits of the whole image: divide by the number of pixels": of_image,
        "the wrong sign: nats is −log p already, more nats are more bits": [8 - in_bits, -right],
        ONE_NUMBER: right.mean(),
    }
    return compare(answer, (nats, n_pixels), right, mistakes)


def our_bits_per_dimension(nats: Tensor, n_pixels: int) -> Tensor:
    """Return bits per pixel from the nats per image of a density on [0, 1], 256 levels."""
    return nats / n_pixels / torch.tensor(2.0).log() + 8
