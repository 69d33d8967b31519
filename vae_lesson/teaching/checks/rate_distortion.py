"""The checks on rate and distortion: the effective beta, free bits, and what ails a VAE."""

from collections.abc import Callable

import torch
from torch import Tensor

from vae_lesson.clinic import inspector
from vae_lesson.teaching.checks.verdict import Verdict, attempt, compare

PATIENTS = {
    "A": inspector.LOG_VAR_AS_SIGMA,
    "B": inspector.SIGMOID_TWICE,
    "C": inspector.MEAN_FOR_SUM,
    "D": inspector.WRONG_SIGN,
    "E": inspector.NO_NOISE,
}
SYMPTOMS = {
    inspector.WRONG_SIGN: "the KL grows without end and takes the loss far below zero",
    inspector.MEAN_FOR_SUM: "the KL of every dimension falls to 0, and all images become one",
    inspector.LOG_VAR_AS_SIGMA: "log_var settles at 0, where σ should be 1, and yet two runs on "
    "the same image hardly differ; but they do differ",
    inspector.NO_NOISE: "two runs on the same image agree to the last digit",
    inspector.SIGMOID_TWICE: "no pixel of any image is under 0.50 or over 0.73",
    inspector.VARIANCE_AS_SIGMA: "the curves, the KL and the images all look nearly healthy",
    inspector.KL_FORMULA: "a silent dimension settles at another mu and log_var than 0 and 0",
    inspector.NOT_FINITE: "the loss is NaN or infinite at the first step",
}
# The words, after those of its name, by which each fault is known as well.
ALSO_KNOWN_AS = {
    inspector.WRONG_SIGN: "negative minus kld subtracted flipped",
    inspector.MEAN_FOR_SUM: "instead over pixels average reduction beta 784",
    inspector.LOG_VAR_AS_SIGMA: "log_sigma2 std",
    inspector.NO_NOISE: "without sampling sample forgotten missing z mu eps deterministic",
    inspector.SIGMOID_TWICE: "double two sigmoids applied logits probabilities",
    inspector.VARIANCE_AS_SIGMA: "exp sigma2 std half missing",
    inspector.KL_FORMULA: "kld wrong",
    inspector.NOT_FINITE: "nan inf infinite infinity",
}


def effective_beta(answer: Callable[[str, str, float, int, int], float]) -> Verdict:
    """Check answer(pixels, latents, kl_weight, n_pixels, latent_size) -> the effective beta.

    It is asked for all four ways to write "sum" or "mean", and its four numbers are compared.
    """

    def table(by_pixels: float, by_latents: float, weight: float = 0.5) -> Tensor:
        return torch.tensor([weight * b * a for b in (1, by_pixels) for a in (1, by_latents)])

    def all_cases():
        betas = [answer(p, j, 0.5, 100, 4) for p in ("sum", "mean") for j in ("sum", "mean")]
        no_numbers = [beta for beta in betas if not hasattr(beta, "__float__")]
        if no_numbers:
            return no_numbers[0]  # None, or a word: `compare` says which
        return torch.stack([torch.as_tensor(beta).double() for beta in betas], dim=-1)

    right, inverse = table(100, 1 / 4), [table(1 / 100, 4), table(1 / 100, 4, 2.0)]
    small, large = table(1 / 100, 1 / 4), table(100, 4)
    always = [torch.full((4,), 0.5 * factor) for factor in (100 / 4, 4 / 100)]
    only_both = torch.tensor([0.5, 0.5, 0.5, 0.5 * 100 / 4])
    mistakes = {
        "the inverse: a mean makes its term small, and beta is how much the KL counts beside "
        "recon": inverse,
        "a mean over pixels counted the wrong way: it makes recon small, and so beta large": small,
        "a mean over latents counted the wrong way: it makes the KL small, and so beta": large,
        "sum and mean exchanged: it is the mean that divides": right.flip(0),
        "n_pixels and latent_size exchanged: recon has n_pixels terms": table(4, 1 / 100),
        "the same factor for sum and for mean: a sum divides by nothing": always,
        "a factor only where both are means: each mean counts by itself": only_both,
        "the weight alone: the reductions count too": table(1, 1),
        "the reductions without the weight: multiply by kl_weight": table(100, 1 / 4, 1.0),
        "the reductions divided by the weight: multiply by kl_weight": table(100, 1 / 4, 2.0),
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
    limited, of_sum = mean.clamp_min(least), kl_j.sum(dim=0).clamp_min(least)
    of_image, by_image = kl_j.clamp_min(least).sum(dim=1), kl_j.mean(dim=1).clamp_min(least)
    too_early, wrong_dim = ([v, v.mean(), v.sum()] for v in (of_image, by_image))
    over = [(mean - least).clamp_min(0).sum(), mean[mean > least].sum(), mean.sum() - least]
    at_end = [mean.sum(), mean.sum().clamp_min(4 * least)]
    at_end += [kl.clamp_min(limit).mean() for limit in (least, 4 * least)]
    right = limited.sum()
    mistakes = {
        "the limit on every image: take the mean over the batch first, then the limit": too_early,
        "no limit, or one on the whole KL: every dimension has its own": at_end,
        "an upper limit: `least` is the least that a dimension counts, so take the "
        "larger": mean.clamp_max(least).sum(),
        "only what is over the limit: a dimension under it counts as `least`, not as 0": over,
        "the sum over the batch: take the mean, then the limit": of_sum.sum(),
        "the mean over dimensions instead of over the batch: the images are dim=0": wrong_dim,
        "the mean over dimensions, after the limit: sum them": limited.mean(),
        "the dimensions before their sum: return one number": limited,
        "the same number for every image: return it once": right.expand(3),
    }
    return compare(answer, (kl_j, least), right, mistakes)


def diagnose(answers: dict[str, str] | Callable[[], dict[str, str]]) -> Verdict:
    """Check {"A": the fault of patient A, ...}, or a function that returns it, patient by patient.

    A fault is one of `inspector.FAULTS`, in any words that fit no other of them.
    """
    answers = attempt(answers) if callable(answers) else answers
    if isinstance(answers, Verdict):
        return answers
    if not isinstance(answers, dict):
        got = type(answers).__name__
        return Verdict(f'Not yet: expected a dict, {{"A": "...", ...}}, got {got}.')
    answers = {str(letter).strip().upper(): said for letter, said in answers.items()}
    replies = {a: _reply(answers.pop(a, None), fault) for a, fault in PATIENTS.items()}
    n_right = sum(reply.startswith("right") for reply in replies.values())
    all_right = n_right == len(PATIENTS)
    lines = ["Correct." if all_right else f"Not yet: {n_right} of {len(PATIENTS)} are right."]
    lines += [f"{letter}: {reply}" for letter, reply in replies.items()]
    lines += [f"There is no patient {letter}." for letter in answers]
    return Verdict("\n".join(lines))


def _reply(said: object, fault: str) -> str:
    if not isinstance(said, str) or not said.strip(" .?"):
        return "not yet."
    named = fault_named(said)
    if named is None:
        return f"{said!r} names none or several of the faults: {', '.join(inspector.FAULTS)}."
    if named != fault:
        return f"not {named!r}: with it {SYMPTOMS[named]}. Look again."
    return f"right, {named}."


def fault_named(words: str) -> str | None:
    """Return the one of FAULTS that `words` describe, in any spelling; None if none or several."""
    text = str(words).lower().replace("²", "2").replace("σ", "sigma").replace("log var", "log_var")
    text = text.replace("logvar", "log_var").replace("log sigma2", "log_sigma2")
    said = "".join(c if c.isalnum() or c == "_" else " " for c in text).split()
    said = set(said) - {"the", "of", "a", "an", "is", "as", "used", "for", "no", "not"}
    known = {fault: f"{fault} {more}".lower().split() for fault, more in ALSO_KNOWN_AS.items()}
    fits = [fault for fault in known if said and said <= set(known[fault])]
    return fits[0] if len(fits) == 1 else None
