"""Tiny images and models, for tests of what trains."""

import functools
import itertools
import math

import numpy as np
import torch
from PIL import Image

from vae_lesson import losses, train
from vae_lesson.models import VAE

fit = functools.partial(train.fit, progress=False, device="cpu")


def patterned_images(n=64, side=4, seed=0):
    """Make uint8 images that are mixtures of three fixed patterns, and some noise."""
    rng = np.random.default_rng(seed)
    pixel = np.arange(side * side)
    patterns = (pixel % 3 == np.arange(3)[:, None]) * (80 + 60 * (pixel % 2))  # (3, pixels)
    images = rng.uniform(0, 1, (n, 3)) @ patterns + rng.normal(60, 12, (n, side * side))
    return torch.from_numpy(images.clip(0, 255).round().astype(np.uint8)).view(n, side, side)


def coloured_folder(folder, n=300, side=40, mode="RGB"):
    """Write pictures whose left half is of one colour and whose right half of another."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i, halves in enumerate(rng.integers(0, 256, (n, 2, 3), np.uint8)):
        pixels = np.repeat(halves[None], side, axis=0).repeat(side // 2, axis=1)
        Image.fromarray(pixels).convert(mode).save(folder / f"{i}.png")


def new(kind=VAE, latent_size=2, hidden_size=8, input_size=16, network="mlp", seed=0):
    torch.manual_seed(seed)
    side = math.isqrt(input_size)
    return kind(latent_size, hidden_size, (1, side, side), network)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_weights(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


IMAGES = patterned_images()
TEST = patterned_images(n=20, seed=1)


def terms_with(action, call):
    """Return the ELBO's terms, passed through `action` at this call (the first is 1)."""
    calls = itertools.count(1)

    @functools.wraps(losses.elbo_terms)  # so a checkpoint takes it for these
    def terms(model, x, generator):
        named = losses.elbo_terms(model, x, generator)
        return action(named) if next(calls) == call else named

    return terms


def interrupt(named):
    raise KeyboardInterrupt


def spoilt(name, value):
    def action(named):
        last = torch.arange(len(named[name])) == len(named[name]) - 1  # one image is enough
        return named | {name: named[name].masked_fill(last, value)}

    return action
