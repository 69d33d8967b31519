"""The checks on a detector of anomalies: where it draws the line, and how good it is."""

from collections.abc import Callable

import torch
from torch import Tensor

from vae_lesson import evaluate
from vae_lesson.teaching.checks.verdict import Verdict, compare, ours


@ours(lambda scores, false_alarms: torch.quantile(scores, 1 - false_alarms))
def threshold(answer: Callable[[Tensor, float], Tensor]) -> Verdict:
    """Check answer(scores, false_alarms) -> the score that this share of the scores exceed."""
    # Counted or interpolated, it is the same: the four around the right one are nearly equal.
    parts = torch.linspace(10, 40, 34), torch.linspace(50, 50.003, 4), torch.tensor([80.0, 120])
    ordered, false_alarms = torch.cat(parts), 0.1
    scores = ordered[torch.arange(0, 40 * 7, 7) % 40]  # out of order
    right = threshold.ours(scores, false_alarms)
    of_bell = [scores.mean() + k * scores.std() for k in (1, 1.2816, 1.6449, 2, 3)]
    mistakes = {
        "the threshold that flags all but this share": [scores.quantile(0.1), *ordered[3:5]],
        "a part of the largest score: count images, not nats": 0.9 * scores.max(),
        "a rule for the bell curve, which scores need not follow: count": of_bell,
        "the flags: return the threshold, one number": scores > right,
    }
    return compare(answer, (scores, false_alarms), right, mistakes)


@ours(lambda normal, strange: evaluate.roc(normal, strange)[2])
def roc_area(answer: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(normal, strange) -> the chance that a strange score is over a normal one."""
    # As many of both, so that a comparison without pairs is named and not a shape that fails.
    normal = torch.tensor([3.0, 3, 4, 1, 3, 3])
    strange = torch.tensor([3.0, 6, 3, 6, 6, 3])
    higher, ties = strange[:, None] > normal, strange[:, None] == normal
    one_each = (strange > normal).float().mean()
    pairs, right = higher + 0.5 * ties, torch.tensor(roc_area.ours(normal, strange))
    mistakes = {
        "the chance that a normal image has the higher score": 1 - right,
        "ties counted as lost: two equal scores count ½": higher.float().mean(),
        "ties counted as won: two equal scores count ½": (higher | ties).float().mean(),
        "one normal image for each strange one: compare all pairs": one_each,
        "the number of pairs: divide by how many there are": [pairs.sum(), higher.sum()],
    }
    return compare(answer, (normal, strange), right, mistakes)
