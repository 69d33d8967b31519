"""Images as uint8 tensors on the device, and what a model sees of them: floats, flat, in [0, 1].

Where they come from is the business of `sources`.
"""

import dataclasses
import math
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vae_lesson.arguments import check_one_of
from vae_lesson.words import N_, _

BINARISATIONS = ("grey", "dynamic", "threshold")
SIDE = 28  # pixels, of MNIST and its like
# What is black and white in numbers of each kind, unless the pictures say otherwise.
ON_BLACK = N_("8 bits on black")  # light on a transparent ground
USUAL = {
    N_("8 bits"): (0, 255),
    ON_BLACK: (0, 255),
    N_("16 bits"): (0, 65_535),
    N_("integers"): (0, 255),
    N_("floats"): (0, 1),
}


@dataclass(frozen=True, repr=False)
class Images:
    """A data set: uint8 images and int64 labels `(N,)`, all on one device.

    Images are square: grey `(N, side, side)`, in colour `(N, 3, side, side)`.

    `name` is what was loaded: "digits" when the data set asked for could not be had. Of your own
    pictures there are the names of the files, from their folder on, in the order of the images, if
    they have any; and `scales`, what was black and white in them, by kind of numbers: with it
    `sources.pictures.read` makes of a new picture what was made of these.
    """

    name: str
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]
    train_files: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()
    scales: dict[str, tuple[float, float]] = field(default_factory=USUAL.copy)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, side, side) of an image, as the models take it."""
        return square_shape(self.train[0].numel())

    def __repr__(self) -> str:
        channels, side = self.shape[:2]
        n_classes = len(self.class_names)
        said = _(
            "{name}: {n_train:,} training and {n_test:,} test images of {side}×{side} pixels"
            "{in_colour}, {classes}, on {device}"
        )
        classes = _("1 class") if n_classes == 1 else _("{n} classes").format(n=n_classes)
        return said.format(
            name=self.name,
            n_train=len(self.train),
            n_test=len(self.test),
            side=side,
            in_colour=_(" in colour") if channels == 3 else "",
            classes=classes,
            device=self.train.device,
        )


def with_mirrored(images: Images) -> Images:
    """Return images whose training pictures come twice, the second time with left and right
    changed, with their labels and files. The test pictures stay as they are.

    For photographs, and not for what has a right way round, as digits and letters have. It takes
    twice the memory, also of pictures that are mapped from the disk.
    """
    return dataclasses.replace(
        images,
        train=torch.cat([images.train, images.train.flip(-1)]),
        train_labels=images.train_labels.repeat(2),
        train_files=2 * images.train_files,
    )


def square_shape(n_values: int) -> tuple[int, int, int]:
    """Return (channels, side, side) of a square image of so many values, grey or in colour.

    Nothing is both: a square is never three times another. Raises: ValueError for neither.
    """
    for channels in (1, 3):
        side = math.isqrt(n_values // channels)
        if channels * side * side == n_values > 0:
            return channels, side, side
    raise ValueError(f"{n_values} values are no square image, grey or in colour")


def channels_last(images: Tensor) -> Tensor:
    """Return images `(N, ...)`, flat or not, as they are drawn: `(N, side, side)`, in colour
    `(N, side, side, 3)`. Raises: ValueError if they are not square."""
    channels, side, _ = square_shape(images[0].numel())
    pictures = images.reshape(-1, channels, side, side)
    return pictures[:, 0] if channels == 1 else pictures.movedim(1, 3)


def to_float(
    images: Tensor, binarisation: str = "grey", generator: torch.Generator | None = None
) -> Tensor:
    """Turn uint8 images into what a model takes: floats in [0, 1], flat, `(B, pixels)`.

    "grey" divides by 255; "dynamic" draws each pixel from Bernoulli(grey value), anew at each call
    (Salakhutdinov & Murray 2008); "threshold" is 1 where the grey value is over ½.

    Raises: ValueError for another binarisation, or images that are not uint8.
    """
    check_one_of("binarisation", binarisation, BINARISATIONS)
    kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
    if kind != torch.uint8:
        raise ValueError(f"to_float takes a tensor of uint8 images, got {kind}")
    x = images.flatten(start_dim=1).float().div_(255)
    if binarisation == "dynamic":
        return torch.bernoulli(x, generator=generator)
    return (x > 0.5).float() if binarisation == "threshold" else x


def exact(values: Tensor) -> Tensor:
    """Return floats in float64, on the CPU: where small differences of large numbers count."""
    if not values.is_floating_point():
        raise ValueError(f"closed forms take floats, got {values.dtype}: use data.to_float")
    return values.cpu().double()  # first to the CPU: MPS has no float64


def as_inputs(
    tensors, binarisation: str = "grey", generator: torch.Generator | None = None
) -> list[Tensor]:
    """Return what `terms` get of a batch: of uint8 pixels floats, `to_float`; all else as it is."""
    return [
        to_float(tensor, binarisation, generator) if tensor.dtype == torch.uint8 else tensor
        for tensor in tensors
    ]


def as_tensors(model, given, name: str = "images") -> list[Tensor]:
    """Return tensors of equal length, of which uint8 ones are images for this model; ValueError
    for what is none, and says what to give. One tensor alone need not be in a tuple."""
    tensors = []
    for i, part in enumerate(given if isinstance(given, tuple) else (given,)):
        if isinstance(part, np.ndarray) or (isinstance(part, list) and part):
            part = torch.as_tensor(np.stack(part))
        if not isinstance(part, Tensor):
            raise ValueError(
                f"{name} must be one tensor or array of uint8 images (N, ...), such as "
                f"load_images().train, got {type(part).__name__}"
            )
        if (i == 0 and part.is_floating_point()) or part.ndim == 0 or len(part) == 0:
            hint = ": floats in [0, 1] become so by torch.as_tensor(255 * x).round().byte()"
            hint = hint if part.is_floating_point() else ""
            raise ValueError(
                f"{name} must be at least one uint8 image, got {tuple(part.shape)} of "
                f"{part.dtype}{hint}"
            )
        wanted = getattr(model, "input_size", None)
        if part.dtype == torch.uint8 and wanted not in (None, part[0].numel()):
            raise ValueError(
                f"{name} have {part[0].numel()} values, this model takes {wanted}: make one with "
                "shape=images.shape"
            )
        tensors.append(part)
    if len({len(part) for part in tensors}) > 1:
        raise ValueError(f"{name} and what goes with them differ in number: {[*map(len, tensors)]}")
    return tensors


def rows_at_once(images: Tensor) -> int:
    """Return how many of them to measure at once: 1,000, fewer of images larger than MNIST's."""
    return min(1000, max(1, 784_000 // images[0].numel()))


def batches(
    images: Tensor,
    batch_size: int | None = None,
    binarisation: str = "grey",
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
):
    """Yield the images in their order, as float batches `(B, pixels)` on `device`, by default their
    own; the last may be smaller. By default 1,000, and fewer of images larger than MNIST's."""
    for part in images.split(batch_size or rows_at_once(images)):
        yield to_float(part.to(device or images.device), binarisation, generator)


def centre_digit(drawing: Tensor) -> Tensor:
    """Prepare a drawing as MNIST's images were: fitted into 20×20 pixels, its centre of mass in the
    middle of 28×28.

    The box around the ink is scaled, in its proportions, until its longer side is 20; then whole
    pixels shift it until the centre of mass is within half a pixel of row and column 14, counted
    from 0, or the box meets the edge. An empty drawing stays empty.

    Shapes: uint8 `(h, w)` -> uint8 `(28, 28)`. Raises: ValueError for anything else.
    Source: LeCun et al. 1998, section III.A.
    """
    if drawing.dtype != torch.uint8 or drawing.ndim != 2:
        raise ValueError(
            f"centre_digit takes one uint8 image (h, w), got {drawing.dtype} {tuple(drawing.shape)}"
        )
    frame = torch.zeros((SIDE, SIDE), dtype=torch.uint8, device=drawing.device)
    inked = drawing > 0
    if not inked.any():
        return frame
    rows, columns = (torch.where(inked.any(dim=d))[0] for d in (1, 0))
    ink = drawing[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].float()
    scale = 20 / max(ink.shape)
    size = [max(1, round(length * scale)) for length in ink.shape]
    if size != list(ink.shape):
        # Antialiased, as MNIST was; it is also where MNIST's greys come from.
        ink = F.interpolate(ink[None, None], size, mode="bicubic", antialias=True)[0, 0]
        ink = ink.round().clamp(0, 255)
    total = ink.sum().clamp_min(1)
    corner = []  # of the box in the frame
    for dim in (0, 1):
        position = torch.arange(ink.shape[dim], device=ink.device)
        centre = (ink.sum(dim=1 - dim) * position).sum() / total
        first = math.ceil(SIDE / 2 - 0.5 - centre.item())
        corner.append(min(max(first, 0), SIDE - ink.shape[dim]))
    (top, left), (height, width) = corner, ink.shape
    frame[top : top + height, left : left + width] = ink.byte()
    return frame
