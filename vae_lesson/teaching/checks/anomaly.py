"""The checks on a detector of anomalies: where it draws the line, and how good it is."""

from collections.abc import Callable

import torch
from torch import Tensor

from vae_lesson import evaluate
from vae_lesson.teaching.checks.verdict import Verdict, compare


def threshold(answer: Callable[[Tensor, float], Tensor]) -> Verdict:
    """Check answer(scores, false_alarms) -> the score that this share of the scores exceed."""
    # Counted or interpolated, it is the same: the four around the right one are nearly equal.
    ordered = torch.cat([torch.linspace(10, 40, 33), torch.tensor([50, 50.001, 50.002, 50.003])])
    ordered = torch.cat([ordered, torch.tensor([60.0, 80, 120])])
    scores = ordered[torch.arange(0, 40 * 7, 7) % 40]  # out of order
    false_alarms = 0.1
    right = our_threshold(scores, false_alarms)
    all_but = [torch.quantile(scores, false_alarms), *ordered[3:5]]
    of_largest = [0.9 * ordered[-1], ordered[0] + 0.9 * (ordered[-1] - ordered[0])]
    of_bell = [scores.mean() + k * scores.std() for k in (1, 1.2816, 1.6449, 2, 3)]
    places = [torch.tensor(4.0), torch.tensor(36.0)]
    mistakes = {
        "the threshold that flags all but this share": all_but,
        "a part of the largest score: count images, not nats": of_largest,
        "the largest score, which flags nobody": ordered[-1],
        "a rule for the bell curve, which scores need not follow: count": of_bell,
        "a place in the sorted scores: return the score there": places,
        "the flags: return the threshold, one number": [scores > right, scores >= right],
    }
    return compare(answer, (scores, false_alarms), right, mistakes)


def our_threshold(scores: Tensor, false_alarms: float) -> Tensor:
    """Return the score that a share `false_alarms` of the scores exceed."""
    return torch.quantile(scores, 1 - false_alarms)


def roc_area(answer: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(normal, strange) -> the chance that a strange score is over a normal one."""
    # As many of both, so that a comparison without pairs is named and not a shape that fails.
    normal = torch.tensor([3.0, 3, 4, 1, 3, 3])
    strange = torch.tensor([3.0, 6, 3, 6, 6, 3])
    higher, ties = strange[:, None] > normal, strange[:, None] == normal
    pairs, right = higher + 0.5 * ties, torch.tensor(our_roc_area(normal, strange))
    one_each = [strange > normal, strange >= normal, pairs.diagonal()]
    of_means = [torch.tensor(1.0), torch.tensor(True), strange.mean() - normal.mean()]
    mistakes = {
        "the chance that a normal image has the higher score": 1 - right,
        "ties counted as lost: two equal scores count ½": higher.float().mean(),
        "ties counted as won: two equal scores count ½": (higher | ties).float().mean(),
        "one normal image for each strange one: compare all pairs": [
            won.float().mean() for won in one_each
        ],
        "the number of pairs: divide by how many there are": [pairs.sum(), higher.sum()],
        "the table of all pairs: take its mean": [pairs, pairs.T, higher, higher.T],
        "one number an image: take the mean over all pairs": [pairs.mean(dim=d) for d in (0, 1)],
        "a comparison of two means: count pairs": of_means,
    }
    return compare(answer, (normal, strange), right, mistakes)


def our_roc_area(normal: Tensor, strange: Tensor) -> float:
    """Return the area under the ROC curve of these scores."""
    return evaluate.roc(normal, strange)[2]
