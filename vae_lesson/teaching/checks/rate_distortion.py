"""The checks on rate and distortion: the floor of a score, and free bits."""

from collections.abc import Callable

import torch
from torch import Tensor

from vae_lesson.teaching.checks.verdict import ONE_NUMBER, Verdict, compare


def entropy(answer: Callable[[Tensor], Tensor]) -> Verdict:
    """Check answer(x) -> `(B,)`, the entropy of each image's coins in nats."""
    x = torch.tensor([[0.0, 0.3, 1.0, 0.9], [0.2, 0.0, 0.6, 0.0], [1.0, 0.7, 0.0, 0.05]])
    right = our_entropy(x)
    white, black = torch.special.entr(x).sum(dim=1), torch.special.entr(1 - x).sum(dim=1)
    mistakes = {
        "one side of the coin: black, with 1 − x, costs too": [white, black],
        "the wrong sign: x log x is negative, and a cost is not": -right,
        "the mean over pixels: their entropies add up": right / 4,
        "bits: take the natural logarithm": right / torch.tensor(2.0).log(),
        "a sum over images: keep one value an image": torch.special.entr(x).sum(dim=0)
        + torch.special.entr(1 - x).sum(dim=0),
        ONE_NUMBER: [right.sum(), right.mean(), right.sum() / 12],
    }
    return compare(answer, (x,), right, mistakes)


def our_entropy(x: Tensor) -> Tensor:
    """Return −sum_i [x_i log x_i + (1 − x_i) log(1 − x_i)] of each image: `(B, D)` -> `(B,)`."""
    return (torch.special.entr(x) + torch.special.entr(1 - x)).sum(dim=1)


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
