"""The offline default: MNIST-shaped images made from scikit-learn's real handwritten digits."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vae_lesson.data import SIDE, Images

N_TRAIN, N_TEST = 60_000, 10_000  # as many as MNIST has


def offline_digits(device: torch.device | str = "cpu") -> Images:
    """Make 70,000 images from 1,797 originals of 8×8 pixels.

    Resized to 20×20 in a 28×28 frame, like MNIST; each of 1,500 originals gives 40 training images
    by small rotations, shears, scalings and shifts; the other 297 give the test images, so that no
    test image is a variant of a training image.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = torch.from_numpy(digits.images).float()[:, None] / 16
    large = F.interpolate(small, size=(20, 20), mode="bicubic", align_corners=False)
    large = F.pad(large, (4, 4, 4, 4)).clamp(0, 1)  # (1797, 1, 28, 28)
    labels = torch.from_numpy(digits.target).long()
    generator = torch.Generator().manual_seed(0)
    n_originals = 1500
    train = torch.arange(N_TRAIN) % n_originals
    test = n_originals + torch.arange(N_TEST) % (len(labels) - n_originals)
    parts = []
    for index in (train, test):
        parts += [_augmented(large, index, generator).to(device), labels[index].to(device)]
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
