"""Images as uint8 tensors with labels, on the device, with or without a network.

`load_images` takes what is on disk, else downloads it within a time limit, else makes the offline
default and says so. Files reach their final name only whole and checked, so a half-finished
download never passes for a data set.
"""

import gzip
import http.client
import math
import os
import queue
import struct
import threading
import time
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor

NAMES = ("mnist", "fashion", "kmnist", "digits")
BINARISATIONS = ("grey", "dynamic", "threshold")

N_TRAIN, N_TEST, SIDE = 60_000, 10_000, 28  # the same in all four data sets
STALL_SECONDS = 10.0  # a server silent for this long is given up


@dataclass(frozen=True, repr=False)
class Images:
    """A data set: images `(N, 28, 28)` uint8 and labels `(N,)` int64, all on one device.

    `name` is what was loaded: "digits" when the data set asked for could not be had.
    """

    name: str
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]

    def __repr__(self) -> str:
        side = self.train.shape[1]
        return (
            f"{self.name}: {len(self.train):,} training and {len(self.test):,} test images "
            f"of {side}×{side} pixels, {len(self.class_names)} classes, on {self.train.device}"
        )


def load_images(
    name: str = "mnist",
    root: str | Path | None = None,
    device: torch.device | str = "cpu",
    time_limit: float = 120.0,
    fall_back: bool = True,
) -> Images:
    """Load "mnist", "fashion", "kmnist" or "digits", the last of which needs no network.

    In order: the files under `root` (default: `$VAE_LESSON_DATA`, else `data/` in the project), if
    they are whole; the download, which ends after `time_limit` seconds or 10 s of silence; the
    offline default "digits", with one line that says so.

    Raises: ValueError for an unknown name; OSError instead of the last step if not `fall_back`.
    """
    check_name(name)
    if name != "digits":
        try:
            return _load_torchvision(name, Path(root or data_root()), device, time_limit)
        except OSError as error:  # filelock's Timeout is one too
            if not fall_back:
                raise
            print(
                f"'{name}' is not on disk and could not be downloaded ({error}). "
                "Using the offline default, 'digits', instead."
            )
    return _offline_digits(device)


def check_name(name: str) -> None:
    """Raise ValueError, with the known names, unless `name` is one of them."""
    if name not in NAMES:
        raise ValueError(f"unknown data set {name!r}: choose one of {', '.join(NAMES)}")


def data_root() -> Path:
    """Return the data folder: `$VAE_LESSON_DATA`, else `data/` in the project."""
    return Path(os.environ.get("VAE_LESSON_DATA") or Path(__file__).parents[1] / "data")


def to_float(
    images: Tensor, binarisation: str = "grey", generator: torch.Generator | None = None
) -> Tensor:
    """Turn uint8 images into what a model takes: floats in [0, 1], flat, `(B, pixels)`.

    "grey" divides by 255; "dynamic" draws each pixel from Bernoulli(grey value), anew at each call
    (Salakhutdinov & Murray 2008); "threshold" is 1 where the grey value is over ½.

    Raises: ValueError for another binarisation, or images that are not uint8.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"to_float takes uint8 images, got {images.dtype}")
    x = images.flatten(start_dim=1).float().div_(255)
    if binarisation == "grey":
        return x
    if binarisation == "dynamic":
        return torch.bernoulli(x, generator=generator)
    if binarisation == "threshold":
        return (x > 0.5).float()
    raise ValueError(
        f"unknown binarisation {binarisation!r}: choose one of {', '.join(BINARISATIONS)}"
    )


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


def batches(
    images: Tensor,
    batch_size: int,
    generator: torch.Generator | None = None,
    binarisation: str = "grey",
    shuffle: bool = True,
):
    """Yield every image once, as float batches `(B, pixels)`; the last one may be smaller.

    One permutation, made on the images' device, gives the order; `generator` lives there too.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, got {batch_size}")
    if shuffle:
        order = torch.randperm(len(images), generator=generator, device=images.device)
        parts = (images[index] for index in order.split(batch_size))
    else:
        parts = images.split(batch_size)
    for part in parts:
        yield to_float(part, binarisation, generator)


# --- torchvision's data sets ----------------------------------------------------------------------


def _load_torchvision(name: str, root: Path, device, time_limit: float) -> Images:
    from torchvision import datasets  # here, because it takes a second that "digits" need not pay

    cls = {"mnist": datasets.MNIST, "fashion": datasets.FashionMNIST, "kmnist": datasets.KMNIST}
    cls = cls[name]
    raw = root / cls.__name__ / "raw"  # torchvision's own layout
    # Whole files are only read: the data folder may be read-only, or shared by a class.
    if any(_damage(raw / filename, md5) for filename, md5 in _files(cls)):
        raw.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + time_limit
        with FileLock(raw / ".lock", timeout=time_limit):  # of two processes, one downloads
            _fetch_damaged(cls, raw, deadline)
    # torchvision's readers, and not its class, which prefers files of an older layout, unchecked.
    names = cls.classes if name != "mnist" else [str(digit) for digit in range(10)]
    return Images(
        name,
        datasets.mnist.read_image_file(str(raw / "train-images-idx3-ubyte")).to(device),
        datasets.mnist.read_label_file(str(raw / "train-labels-idx1-ubyte")).to(device),
        datasets.mnist.read_image_file(str(raw / "t10k-images-idx3-ubyte")).to(device),
        datasets.mnist.read_label_file(str(raw / "t10k-labels-idx1-ubyte")).to(device),
        tuple(names),
    )


def _files(cls) -> list[tuple[str, str]]:
    """Return (name of the extracted file, MD5 of its archive) of a torchvision data set."""
    return [(archive.removesuffix(".gz"), md5) for archive, md5 in cls.resources]


def _damage(path: Path, archive_md5: str) -> str | None:
    """Return what is wrong with an idx file, or None. It is checked by shape, by its labels' range
    and, where the archive it came from lies whole beside it, by checksum."""
    from torchvision.datasets.utils import check_integrity

    if not path.is_file():
        return "missing"
    n = N_TRAIN if path.name.startswith("train") else N_TEST
    if "images" in path.name:
        header = struct.pack(">iiii", 0x803, n, SIDE, SIDE)
        size = len(header) + n * SIDE * SIDE
    else:
        header = struct.pack(">ii", 0x801, n)
        size = len(header) + n
    if path.stat().st_size != size:
        return f"{path.stat().st_size:,} bytes instead of {size:,}"
    content = path.read_bytes()
    if not content.startswith(header):
        return "not the header of an idx file of this shape"
    if "labels" in path.name and max(content[len(header) :]) > 9:
        return "labels outside 0 to 9"
    archive = path.with_name(path.name + ".gz")
    if check_integrity(str(archive), archive_md5):
        crc, _ = struct.unpack("<II", archive.read_bytes()[-8:])  # of the content, uncompressed
        if crc != zlib.crc32(content):
            return "not the content of the archive beside it"
    return None


def _fetch_damaged(cls, raw: Path, deadline: float) -> None:
    from torchvision.datasets.utils import check_integrity

    for filename, md5 in _files(cls):
        path, archive = raw / filename, raw / f"{filename}.gz"
        damage = _damage(path, md5)
        if damage is None:
            continue
        if damage != "missing":
            print(f"{path} is damaged ({damage}): removed, to be fetched again.")
            path.unlink()
        if not check_integrity(str(archive), md5):
            archive.unlink(missing_ok=True)
            _download([mirror + archive.name for mirror in cls.mirrors], archive, md5, deadline)
        part = path.with_name(path.name + ".part")
        try:
            part.write_bytes(gzip.decompress(archive.read_bytes()))
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)  # a full disk leaves a piece of it
        if damage := _damage(path, md5):
            path.unlink()
            raise OSError(f"{archive.name} holds something else: {damage}")


def _download(urls: list[str], path: Path, md5: str, deadline: float) -> None:
    """Download the first url that gives a file of this checksum to `path`, or raise OSError.

    torchvision's own download waits for ever on a server that stops sending; this one does not.
    """
    from torchvision.datasets.utils import check_integrity
    from tqdm.auto import tqdm

    part = path.with_name(path.name + ".part")
    failures = []
    for url in urls:
        try:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the time limit is over")
            with (
                _opened(url, min(STALL_SECONDS, left)) as reply,
                open(part, "wb") as file,
                tqdm(
                    desc=path.name,
                    total=reply.length,
                    unit="B",
                    unit_scale=True,
                    leave=False,
                ) as bar,
            ):
                # read1 returns what has come, so that a trickle meets the deadline too
                while chunk := reply.read1(1 << 16):
                    file.write(chunk)
                    bar.update(len(chunk))
                    if time.monotonic() > deadline:
                        raise TimeoutError("the time limit is over")
            if not check_integrity(str(part), md5):
                raise OSError("what came has another checksum")
            os.replace(part, path)
            return
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            failures.append(f"{url}: {reason}")
        finally:
            part.unlink(missing_ok=True)
    raise OSError("; ".join(failures))


def _opened(url: str, seconds: float):
    """Return urlopen(url), or raise TimeoutError when the headers have not come in this time.

    In a thread of its own: urllib's timeout is for one address and one read, and not for the
    look-up of the name, so a firewall that swallows packets could hold it for minutes.
    """
    answers = queue.Queue()

    def connect() -> None:
        try:
            answers.put(urllib.request.urlopen(url, timeout=seconds))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=connect, daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError("timed out") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


# --- the offline default --------------------------------------------------------------------------


def _offline_digits(device) -> Images:
    """Make MNIST-shaped images from scikit-learn's 1,797 real handwritten digits of 8×8 pixels.

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
    index_train = torch.arange(N_TRAIN) % n_originals
    index_test = n_originals + torch.arange(N_TEST) % (len(labels) - n_originals)
    return Images(
        "digits",
        _augmented(large, index_train, generator).to(device),
        labels[index_train].to(device),
        _augmented(large, index_test, generator).to(device),
        labels[index_test].to(device),
        tuple(str(digit) for digit in range(10)),
    )


def _augmented(originals: Tensor, index: Tensor, generator: torch.Generator) -> Tensor:
    """Return originals[index], each warped by a small random affine map, as uint8 `(N, 28, 28)`."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(index), generator=generator)

    angle = uniform(-12, 12).deg2rad()
    shear, scale = uniform(-0.15, 0.15), uniform(0.9, 1.1)
    shift = torch.stack([uniform(-1.5, 1.5), uniform(-1.5, 1.5)], dim=1) * 2 / SIDE
    cos, sin = angle.cos() / scale, angle.sin() / scale
    theta = torch.stack(
        [
            torch.stack([cos, shear * cos - sin, shift[:, 0]], dim=1),
            torch.stack([sin, shear * sin + cos, shift[:, 1]], dim=1),
        ],
        dim=1,
    )  # (N, 2, 3)
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
