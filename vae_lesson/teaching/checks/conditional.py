"""The checks on choosing the digit: a network that is told the label, fair nats, a classifier."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vae_lesson.teaching.checks.verdict import ONE_NUMBER, Verdict, attempt, compare, draw


def conditional_network(answer: Callable[[int, int, int], nn.Module]) -> Verdict:
    """Check answer(latent_size, hidden_size, n_classes), a module whose `encode(x, y)` gives
    (mu, log_var) and whose `decode(z, y)` gives logits, y being one-hot."""
    with torch.random.fork_rng(devices=[]):
        model = attempt(answer, 3, 5, 4)
    if isinstance(model, Verdict):
        return model
    if not isinstance(model, nn.Module) or not any(True for _ in model.parameters()):
        return Verdict("Not yet: write the encoder and the decoder.")
    nets = [getattr(model, name, None) for name in ("encoder", "decoder")]
    if not all(isinstance(net, nn.Sequential) for net in nets):
        return Verdict("Not yet: `self.encoder` and `self.decoder` are to be nn.Sequential.")
    sizes = [next((w.shape[-1] for w in net.parameters()), 0) for net in nets]  # what goes in
    x, z, many = draw((4, 784), (4, 3), (500, 3))
    y, other = torch.eye(4), torch.eye(4).roll(1, dims=0)
    results = []
    for label in (y, other):
        coded = attempt(lambda y: torch.cat([*model.encode(x.sigmoid(), y)], dim=1), label)
        decoded = attempt(lambda y: model.decode(z, y) + 0 * model.n_classes, label)
        results += [coded, decoded]
    coded, decoded, coded_other, decoded_other = results
    for result, shape, name in ((coded, (4, 6), "encode"), (decoded, (4, 784), "decode")):
        if isinstance(result, Verdict):
            return Verdict(f"{result} ({name})")
        if not isinstance(result, Tensor) or result.shape != shape:
            got = tuple(getattr(result, "shape", ()))
            return Verdict(f"Not yet: the shape is {got}, it should be {shape}. ({name})")
    hears = not torch.equal(coded, coded_other), not torch.equal(decoded, decoded_other)
    says = {
        (False, False): "a plain VAE: neither network is told the label",
        (False, True): "the label in the decoder only: the encoder is to leave it out of z, so "
        "tell it what it is",
        (True, False): "the label in the encoder only: you could not ask the decoder for a digit",
    }.get(hears)
    if says is None and sizes == [785, 4]:
        says = "the label as a single number: that 3 lies between 2 and 4 says nothing about them"
    elif says is None and sizes != [788, 7]:
        return Verdict(f"Not yet: the networks take {sizes} numbers, it should be [788, 7].")
    elif says is None and model.decode(9 * many, y[:1].expand(500, -1)).min() >= 0:
        says = "pixels: leave the sigmoid to the loss"
    return Verdict(f"Not yet: this looks like {says}." if says else "Correct.")


def joint(answer: Callable[[Tensor, int], Tensor]) -> Verdict:
    """Check answer(neg_elbo, n_classes) -> `(B,)`: the nats of image and label together."""
    neg_elbo = torch.tensor([2.5, 0.75, 4.0])  # small, so that what is added shows
    n, log_n = 6, math.log(6)
    mistakes = {
        "subtracting: the label is told for free until you add what it costs": neg_elbo - log_n,
        "bits: take the natural logarithm": neg_elbo + math.log2(n),
        "the number of classes as it stands: its logarithm counts": neg_elbo + n,
        "a probability, 1/n: take −log of it": [neg_elbo + 1 / n, neg_elbo - 1 / n],
        "the image alone: the label has to be paid for too": neg_elbo,
        "the label paid for in every pixel: it is one choice an image": neg_elbo + 784 * log_n,
        "a product: −log turns p(x|y) · p(y) into a sum": neg_elbo * log_n,
        ONE_NUMBER: [(neg_elbo + log_n).mean(), (neg_elbo + log_n).sum()],
    }
    return compare(answer, (neg_elbo, n), our_joint(neg_elbo, n), mistakes)


def our_joint(neg_elbo: Tensor, n_classes: int) -> Tensor:
    """Return -log p(x|y) - log p(y) = -log p(x|y) + log n_classes, all labels equally probable."""
    return neg_elbo + math.log(n_classes)


def classify(answer: Callable[[Callable, Tensor, int, int], Tensor]) -> Verdict:
    """Check answer(neg_elbo, x, n_classes, seed) -> `(B,)`, the label of the least −ELBO."""
    x, n, seed = torch.linspace(0.1, 3.9, 9)[:, None], 5, 3

    def neg_elbo(x: Tensor, labels: Tensor, seed: int) -> Tensor:
        # It is least for the label next to x; the noise is the image's, and larger than that.
        noise = torch.randn(len(x), generator=torch.Generator().manual_seed(int(seed)))
        return 50 + (x.flatten() - labels).square() + 4 * noise

    def table(seeds: list[int]) -> Tensor:
        each = [neg_elbo(x, torch.full((len(x),), c), s) for c, s in enumerate(seeds)]
        return torch.stack(each)  # (n, B)

    fair = table(n * [seed])
    other = [table(seeds).argmin(0) for seeds in (range(n), range(seed, seed + n))]
    mistakes = {
        "other noise for each label: chance decides, so pass the same seed": other,
        "the label of the largest −ELBO: it is a cost, take the smallest": fair.argmax(dim=0),
        "the smallest −ELBO itself: return which label has it": fair.min(dim=0).values,
        "the best image for each label: compare the labels of each image": fair.argmin(dim=1),
        "the table of all −ELBO: return the label of the smallest": [fair, fair.T],
        "one label for the whole batch": [fair.argmin(), fair.sum(dim=1).argmin()],
    }
    return compare(answer, (neg_elbo, x, n, seed), our_classify(neg_elbo, x, n, seed), mistakes)


def our_classify(neg_elbo: Callable, x: Tensor, n_classes: int, seed: int) -> Tensor:
    """Return argmin_y of neg_elbo(x, y, seed), the same noise for every label: `(B,)`."""
    labels = [torch.full((len(x),), c, device=x.device) for c in range(n_classes)]
    return torch.stack([neg_elbo(x, y, seed) for y in labels]).argmin(dim=0)
