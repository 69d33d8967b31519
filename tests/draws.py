"""Random tensors that a seed alone decides, for tests."""

import torch


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=seeded(seed), dtype=dtype)


def uniform(*shape, seed=0, dtype=torch.float32):
    return torch.rand(shape, generator=seeded(seed), dtype=dtype)


def grey_images(*shape, seed=0):
    """Make uint8 images of noise."""
    return torch.randint(256, shape, generator=seeded(seed)).byte()


def floats(images):
    return images.flatten(1).float() / 255
