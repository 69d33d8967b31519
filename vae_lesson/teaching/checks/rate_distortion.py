"""The checks on rate and distortion: the floor of a score, and free bits."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vae_lesson import losses
from vae_lesson.teaching.checks.verdict import Verdict, compare, ours


@ours(lambda x: (torch.special.entr(x) + torch.special.entr(1 - x)).sum(dim=1))
def entropy(answer: Callable[[Tensor], Tensor]) -> Verdict:
    """Check answer(x) -> `(B,)`, the entropy of each image's coins in nats."""
    x = torch.tensor([[0.0, 0.3, 1.0, 0.9], [0.2, 0.0, 0.6, 0.0], [1.0, 0.7, 0.0, 0.05]])
    right = entropy.ours(x)
    mistakes = {
        "one side of the coin: black, with 1 − x, costs too": torch.special.entr(x).sum(dim=1),
        "the wrong sign: x log x is negative, and a cost is not": -right,
        "the mean over pixels: their entropies add up": right / 4,
        "bits: take the natural logarithm": right / math.log(2),
    }
    return compare(answer, (x,), right, mistakes, per_image=True)


@ours(losses.free_bits)
def free_bits(answer: Callable[[Tensor, float], Tensor]) -> Verdict:
    """Check answer(kl_j, least) -> sum_j max(least, mean over the batch of KL_j), one number."""
    # Each mistake gives a number of its own: two dimensions under the limit, one image under it.
    kl_j = torch.tensor([[0.1, 1.2, 0.0, 0.8], [0.7, 0.5, 0.2, 1.2], [0.1, 0.1, 0.1, 0.1]])
    kl_j, least = kl_j.requires_grad_(), 0.5
    mean, kl = kl_j.mean(dim=0), kl_j.sum(dim=1)  # 0.3, 0.6, 0.1, 0.7; 2.1, 2.6, 0.4
    limited, of_image = mean.clamp_min(least), kl_j.clamp_min(least).sum(dim=1)
    early, over = [of_image, of_image.mean()], (mean - least).clamp_min(0).sum()
    mistakes = {
        "the limit on every image: take the mean over the batch first, then the limit": early,
        "no limit, or one on the whole KL: every dimension has its own": kl.clamp_min(least).mean(),
        "an upper limit: take the larger of the two": mean.clamp_max(least).sum(),
        "only what is over the limit: a dimension under it counts as `least`, not as 0": over,
        "no sum over dimensions: return it, one number for all images": [limited, limited.mean()],
    }
    return compare(answer, (kl_j, least), limited.sum(), mistakes, learn={"kl_j": kl_j})
