"""The offline default in colour: windows onto scikit-learn's two photographs."""

import numpy as np
import torch

from vae_lesson.data import Images
from vae_lesson.sources.pictures import SIDE, check_choices

N_TRAIN, N_TEST = 10_000, 1_000
SMALLEST = 128  # pixels of the photograph along a window's side; the largest are as high as it is


def offline_photos(device: torch.device | str = "cpu", side: int | None = None) -> Images:
    """Look through 11,000 square windows at a temple and at a flower, half of them at each.

    A window lies anywhere on its photograph and has any size, evenly in its logarithm. Test windows
    are others, on the same two photographs: a low loss on them says that these are known, and
    nothing of a third. Raises: ValueError for a side that no folder's pictures could have.
    """
    side = SIDE if side is None else side
    check_choices(side)
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(photograph) for photograph in load_sample_images().images]
    random = np.random.default_rng(0)
    labels = np.arange(N_TRAIN + N_TEST) % len(photographs)
    images = np.empty((len(labels), 3, side, side), np.uint8)
    for image, label in zip(images, labels):
        width, height = photographs[label].size
        length = np.exp(random.uniform(np.log(SMALLEST), np.log(height)))
        left, top = random.uniform(0, (width - length, height - length))
        box = (left, top, left + length, top + length)
        # Averages before it filters, which is five times as fast and looks the same.
        window = photographs[label].resize((side, side), Image.LANCZOS, box, reducing_gap=2.0)
        image[:] = np.moveaxis(np.asarray(window), 2, 0)
    images, labels = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
    parts = [images[:N_TRAIN], labels[:N_TRAIN], images[N_TRAIN:], labels[N_TRAIN:]]
    return Images("photos", *parts, ("temple", "flower"))
