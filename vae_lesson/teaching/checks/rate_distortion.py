"""The checks on rate and distortion: the effective beta, free bits, and what ails a VAE."""

import re
from collections.abc import Callable

import torch
from torch import Tensor

from vae_lesson.clinic import findings
from vae_lesson.teaching.checks.verdict import Verdict, attempt, compare

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


def free_bits(answer: Callable[[Tensor, float], Tensor]) -> Verdict:
    """Check answer(kl_j, least) -> sum_j max(least, mean over the batch of KL_j), one number."""
    # Each mistake gives a number of its own: two dimensions under the limit, one image under it.
    kl_j = torch.tensor([[0.1, 1.2, 0.0, 0.8], [0.7, 0.5, 0.2, 1.2], [0.1, 0.1, 0.1, 0.1]])
    least = 0.5
    mean, kl = kl_j.mean(dim=0), kl_j.sum(dim=1)  # 0.3, 0.6, 0.1, 0.7; 2.1, 2.6, 0.4
    limited, of_sum = mean.clamp_min(least), kl_j.sum(dim=0).clamp_min(least).sum()
    of_image, by_image = kl_j.clamp_min(least).sum(dim=1), kl_j.mean(dim=1).clamp_min(least)
    too_early, wrong_dim = ([v, v.mean(), v.sum()] for v in (of_image, by_image))
    over = [(mean - least).clamp_min(0).sum(), mean[mean > least].sum(), mean.sum() - least]
    at_end = [mean.sum(), kl.clamp_min(least).mean()]
    right = limited.sum()
    not_summed = [limited, limited.mean(), right.expand(3)]
    mistakes = {
        "the limit on every image: take the mean over the batch first, then the limit": too_early,
        "no limit, or one on the whole KL: every dimension has its own": at_end,
        "an upper limit: take the larger of the two": mean.clamp_max(least).sum(),
        "only what is over the limit: a dimension under it counts as `least`, not as 0": over,
        "the sum over the batch: take the mean, then the limit": of_sum,
        "the mean over dimensions instead of over the batch: the images are dim=0": wrong_dim,
        "no sum over dimensions: return it, one number for all images": not_summed,
    }
    return compare(answer, (kl_j, least), right, mistakes)


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
