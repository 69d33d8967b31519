"""The checks on an autoencoder: its error, its two networks, and the training loop."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from tqdm.auto import trange

from vae_lesson import losses
from vae_lesson.data import to_float
from vae_lesson.models import Autoencoder
from vae_lesson.teaching.checks.verdict import Verdict, attempt, compare, draw


def squared_error(answer: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(x_hat, x) -> `(B,)`, the squared error summed over pixels."""
    x_hat, x = draw((3, 8), (3, 8))
    error = x - x_hat
    square, total = error.square(), error.sum(dim=1)
    right = square.sum(dim=1)
    whole = [square.sum(), square.mean(), right.mean()]
    mistakes = {
        "the mean over pixels instead of the sum": square.mean(dim=1),
        "one number for the whole batch: sum over pixels only, and keep one value an image": whole,
        "the sum over images instead of over pixels": square.sum(dim=0),
        "the absolute difference: square it": error.abs().sum(dim=1),
        "the distance: leave out the square root": right.sqrt(),
        "the difference without a square: errors of opposite sign cancel": [total, -total],
        "the squares before the sum over pixels": square,
    }
    return compare(answer, (x_hat, x), right, mistakes)


def networks(answer: Callable[[int, int], tuple[nn.Module, nn.Module]]) -> Verdict:
    """Check answer(latent_size, hidden_size) -> (encoder, decoder), layer by layer."""
    with torch.random.fork_rng(devices=[]):
        pair, ours = attempt(answer, 3, 5), our_networks(3, 5)
    if isinstance(pair, Verdict):
        return pair
    try:
        encoder, decoder = ([*network] for network in pair)
    except (TypeError, ValueError):
        return Verdict("Not yet: return two nn.Sequential, the encoder and the decoder.")
    wanted = [[*network] for network in ours]
    for name, got, right in zip(("encoder", "decoder"), (encoder, decoder), wanted):
        got, right = [*map(repr, got)], [*map(repr, right)]
        if got == right:
            continue
        if got == [*right, "ReLU()"] or got == [*right, "Sigmoid()"]:
            return Verdict(f"Not yet: the {name} ends in {got[-1]}: a code may be any number.")
        if name == "decoder" and got == right[:-1]:
            return Verdict("Not yet: the decoder's end lacks the Sigmoid: pixels are in [0, 1].")
        if [layer for layer in got if "ReLU" not in layer] == [x for x in right if "ReLU" not in x]:
            return Verdict(f"Not yet: one ReLU in the {name}, between its two Linear layers.")
        return Verdict(f"Not yet: the {name} is {', '.join(got)}; wanted {', '.join(right)}.")
    return Verdict("Correct.")


def our_networks(latent_size: int, hidden_size: int) -> tuple[nn.Module, nn.Module]:
    """Return the package's (encoder, decoder), the sigmoid as the decoder's last layer."""
    model = Autoencoder(latent_size, hidden_size)
    return model.encoder, nn.Sequential(*model.decoder, nn.Sigmoid())


def training(answer: Callable) -> Verdict:
    """Check answer(encoder, decoder, images, epochs, batch_size, lr, generator), which trains."""
    mistakes = {
        "no training: not one weight has changed": _after(lambda *_: None),
        "gradients that add up: call `zero_grad` in every step": _after(_loop, zero=False),
        "an error that grows: its sign is turned": _after(_loop, sign=-1),
        "a single epoch, whatever `epochs` is": _after(_loop, once=True),
    }
    return compare(partial(_after, answer), (), _after(our_training), mistakes)


def our_training(encoder, decoder, images, epochs, batch_size, lr, generator) -> None:
    """Train an autoencoder's two networks: what `fit` does, without what surrounds it."""
    _loop(encoder, decoder, images, epochs, batch_size, lr, generator)


def _loop(
    encoder, decoder, images, epochs, batch_size, lr, generator, sign=1, zero=True, once=False
) -> None:
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr, fused=True)
    few = len(images) < 100  # a check's: no bar
    for _ in trange(1 if once else epochs, leave=False, disable=few):
        order = torch.randperm(len(images), generator=generator, device=images.device)
        for index in order.split(batch_size):
            x = to_float(images[index])
            error = sign * losses.squared_error(decoder(encoder(x)), x).mean()
            if zero:
                optimizer.zero_grad()
            error.backward()
            optimizer.step()


def _after(train: Callable, **options) -> Tensor:
    """Return all weights of two small networks after this training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        networks = nn.Sequential(nn.Linear(4, 2)), nn.Sequential(nn.Linear(2, 4), nn.Sigmoid())
    generator = torch.Generator().manual_seed(7)
    images = torch.randint(0, 256, (20, 2, 2), generator=generator).byte()
    train(*networks, images, 2, 8, 0.01, generator, **options)
    return torch.cat([w.detach().flatten() for part in networks for w in part.parameters()])
