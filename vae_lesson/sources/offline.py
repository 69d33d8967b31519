"""The offline defaults: images made of what comes with scikit-learn."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vae_lesson.data import SIDE, Images


def offline_digits() -> Images:
    """Make 70,000 images like MNIST's from 1,797 handwritten digits of 8×8 pixels.

    Resized to 20×20 in a 28×28 frame; each of 1,500 originals gives 40 training images by small
    rotations, shears, scalings and shifts; the other 297 give the test images, so that none of
    these is a variant of a training image.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = torch.from_numpy(digits.images).float()[:, None] / 16
    large = F.interpolate(small, size=(20, 20), mode="bicubic", align_corners=False)
    large = F.pad(large, (4, 4, 4, 4)).clamp(0, 1)  # (1797, 1, 28, 28)
    labels = torch.from_numpy(digits.target).long()
    generator = torch.Generator().manual_seed(0)
    n_originals = 1500
    train = torch.arange(60_000) % n_originals
    test = n_originals + torch.arange(10_000) % (len(labels) - n_originals)
    parts = []
    for index in (train, test):
        parts += [_augmented(large, index, generator), labels[index]]
    return Images("digits", *parts, tuple("0123456789"))


def _augmented(originals: Tensor, index: Tensor, generator: torch.Generator) -> Tensor:
    """Return originals[index], each warped by a small random affine map, as uint8 `(N, 28, 28)`."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(index), generator=generator)

    angle = uniform(-12, 12).deg2rad()
    shear, scale = uniform(-0.15, 0.15), uniform(0.9, 1.1)
    right, down = (uniform(-1.5, 1.5) * 2 / SIDE for _ in range(2))
    cos, sin = angle.cos() / scale, angle.sin() / scale
    theta = torch.stack([cos, shear * cos - sin, right, sin, shear * sin + cos, down], dim=1)
    theta = theta.view(-1, 2, 3)
    out = torch.empty((len(index), SIDE, SIDE), dtype=torch.uint8)
    for start in range(0, len(index), 5000):  # a part at a time: 70,000 float grids are 440 MB
        part = slice(start, start + 5000)
        grid = F.affine_grid(theta[part], (len(index[part]), 1, SIDE, SIDE), align_corners=False)
        warped = F.grid_sample(originals[index[part]], grid, align_corners=False)[:, 0]
        # Enlarging blurred the strokes: a logistic curve brings back MNIST's black and white.
        low, high = torch.sigmoid(torch.tensor([-6.0, 6.0]))
        crisp = (torch.sigmoid(12 * (warped - 0.5)) - low) / (high - low)
        out[part] = (255 * crisp).round().clamp(0, 255).byte()
    return out


def offline_photos(side: int) -> Images:
    """Look through 11,000 square windows at a temple and at a flower, half of them at each.

    A window lies anywhere on its photograph, and its side is from 128 pixels to the photograph's
    height, evenly in its logarithm. Test windows are others, on the same two photographs: a low
    loss on them says that these are known, and nothing of a third.
    """
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(photograph) for photograph in load_sample_images().images]
    random = np.random.default_rng(0)
    labels = np.arange(11_000) % len(photographs)
    images = np.empty((len(labels), 3, side, side), np.uint8)
    for image, label in zip(images, labels):
        width, height = photographs[label].size
        length = np.exp(random.uniform(np.log(128), np.log(height)))
        left, top = random.uniform(0, (width - length, height - length))
        box = (left, top, left + length, top + length)
        # Averages before it filters, which is five times as fast and looks the same.
        window = photographs[label].resize((side, side), Image.LANCZOS, box, reducing_gap=2.0)
        image[:] = np.moveaxis(np.asarray(window), 2, 0)
    images, labels = torch.from_numpy(images), torch.from_numpy(labels)
    train, test = slice(10_000), slice(10_000, None)
    return Images(
        "photos", images[train], labels[train], images[test], labels[test], ("temple", "flower")
    )
