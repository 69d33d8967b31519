"""The checks on choosing the digit: a network that is told the label, fair nats, a classifier."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vae_lesson.priors.conditional import ConditionalVAE
from vae_lesson.teaching.checks.vae import side_by_side
from vae_lesson.teaching.checks.verdict import Verdict, attempt, compare, draw, learns, ours, seeded
from vae_lesson.words import _


@ours(ConditionalVAE)
def conditional_network(answer: Callable[[int, int, int], nn.Module]) -> Verdict:
    """Check answer(latent_size, hidden_size, n_classes), a module whose `encode(x, y)` gives
    (mu, log_var) and whose `decode(z, y)` gives logits, y being one-hot."""
    with seeded():
        model = attempt(answer, 3, 5, 4)
    if isinstance(model, Verdict):
        return model
    if not isinstance(model, nn.Module) or not any(True for _ in model.parameters()):
        return Verdict("Not yet: write the encoder and the decoder.")
    nets = [getattr(model, name, None) for name in ("encoder", "decoder")]
    if not all(isinstance(net, nn.Sequential) for net in nets):
        return Verdict("Not yet: `self.encoder` and `self.decoder` are to be nn.Sequential.")

    # What goes in tells who hears the label: 784 pixels or 3 latent numbers, and 4 of the label.
    sizes = tuple(next((w.shape[-1] for w in net.parameters()), 0) for net in nets)
    mistakes = {
        (784, 3): "a plain VAE: neither network is told the label",
        (784, 7): "the label in the decoder only: the encoder is to leave it out of z, so tell it "
        "what it is",
        (788, 3): "the label in the encoder only: you could not ask the decoder for a digit",
        (785, 4): "the label as a single number: that 3 lies between 2 and 4 says nothing about "
        "them",
    }
    if sizes in mistakes:
        return Verdict("Not yet: this looks like {mistake}.", mistake=_(mistakes[sizes]))
    if sizes != (788, 7):
        says = "Not yet: the networks take {got} numbers, it should be [788, 7]."
        return Verdict(says, got=[*sizes])

    (x, z), labels = draw((4, 784), (4, 3)), torch.eye(4)

    def encode(y: Tensor) -> Tensor | Verdict:
        return side_by_side(model.encode(x.sigmoid(), y))

    def decode(y: Tensor) -> Tensor:
        return torch.as_tensor(model.decode(z, y)) + 0 * model.n_classes  # `fit` asks for it

    for method, name, wanted, deaf in [
        (encode, "encode", (4, 6), mistakes[784, 7]),
        (decode, "decode", (4, 784), mistakes[788, 3]),
    ]:
        results = [attempt(method, y) for y in (labels, labels.roll(1, dims=0))]
        for result in results:
            if isinstance(result, Verdict):
                return Verdict("{verdict} ({method})", verdict=result, method=name)
        got = tuple(results[0].shape)
        if got != wanted:
            says = "Not yet: the shape is {got}, it should be {wanted}. ({method})"
            return Verdict(says, got=got, wanted=wanted, method=name)
        if torch.equal(*results):
            return Verdict("Not yet: this looks like {mistake}.", mistake=_(deaf))
    if results[0].min() >= 0:  # some of so many logits are under 0
        return Verdict("Not yet: this looks like pixels: leave the sigmoid to the loss.")
    return learns(*model.encode(x, labels), model.decode(z, labels))


@ours(lambda neg_elbo, n_classes: neg_elbo + math.log(n_classes))
def joint(answer: Callable[[Tensor, int], Tensor]) -> Verdict:
    """Check answer(neg_elbo, n_classes) -> `(B,)`: -log p(x|y) - log p(y) of image and label."""
    neg_elbo = torch.tensor([2.5, 0.75, 4.0])  # small, so that what is added shows
    n, log_n = 6, math.log(6)
    mistakes = {
        "subtracting: the label is told for free until you add what it costs": neg_elbo - log_n,
        "the number of classes as it stands: its logarithm counts": neg_elbo + n,
        "a probability, 1/n: take −log of it": [neg_elbo + 1 / n, neg_elbo - 1 / n],
        "the image alone: the label has to be paid for too": neg_elbo,
    }
    return compare(answer, (neg_elbo, n), neg_elbo + log_n, mistakes, per_image=True)


def our_classify(neg_elbo: Callable, x: Tensor, n_classes: int, seed: int) -> Tensor:
    """Return argmin_y of neg_elbo(x, y, seed), the same noise for every label: `(B,)`."""
    labels = [torch.full((len(x),), c, device=x.device) for c in range(n_classes)]
    return torch.stack([neg_elbo(x, y, seed) for y in labels]).argmin(dim=0)


@ours(our_classify)
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

    fair, unfair = table(n * [seed]), table(range(seed, seed + n))
    mistakes = {
        "other noise for each label: chance decides, so pass the same seed": unfair.argmin(dim=0),
        "the label of the largest −ELBO: it is a cost, take the smallest": fair.argmax(dim=0),
        "the smallest −ELBO itself: return which label has it": fair.amin(dim=0),
        "the best image for each label: compare the labels of each image": fair.argmin(dim=1),
    }
    return compare(answer, (neg_elbo, x, n, seed), our_classify(neg_elbo, x, n, seed), mistakes)
