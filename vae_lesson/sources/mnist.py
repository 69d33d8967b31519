"""MNIST, Fashion-MNIST and KMNIST: torchvision's files, checked, and downloaded within a time."""

import contextlib
import os
import shutil
import tempfile
from multiprocessing.pool import ThreadPool
from pathlib import Path

from torchvision import datasets
from torchvision.datasets.utils import check_integrity, download_url, extract_archive

from vae_lesson.data import Images
from vae_lesson.words import _

CLASSES = {"mnist": datasets.MNIST, "fashion": datasets.FashionMNIST, "kmnist": datasets.KMNIST}
ANSWER_SECONDS = 10.0  # where nobody answers for so long, there is no network

# torchvision knows the MD5 of each archive; these are of the files that come out of them. MNIST's
# were computed from the files, the others are from public indices of them, KMNIST's from one.
MD5 = {
    "MNIST": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "FashionMNIST": {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
    "KMNIST": {
        "train-images-idx3-ubyte": "92be26ec9822e900ac425d0a0aa84ced",
        "train-labels-idx1-ubyte": "949e75301f8813e0dc5800dcc320fc52",
        "t10k-images-idx3-ubyte": "bf305b8cd328700fbc17f5acbc2856d2",
        "t10k-labels-idx1-ubyte": "9f55f451c0988b028eccdf7d5cc265ab",
    },
}


def load_mnist_like(name: str, root: Path, time_limit: float) -> Images:
    """Return one of the three data sets; OSError if it is not there and cannot be had in time."""
    cls = CLASSES[name]
    raw = root / cls.__name__ / "raw"  # torchvision's own layout
    # Whole files are only read: the data folder may be read-only, or shared by a class.
    checksums = MD5[cls.__name__].items()
    wanted = [file for file, md5 in checksums if not check_integrity(raw / file, md5)]
    if wanted:
        _fetch(cls, raw, wanted, time_limit)
    # torchvision's readers, and not its class, which prefers files of an older layout, unchecked.
    return Images(
        name,
        datasets.mnist.read_image_file(raw / "train-images-idx3-ubyte"),
        datasets.mnist.read_label_file(raw / "train-labels-idx1-ubyte"),
        datasets.mnist.read_image_file(raw / "t10k-images-idx3-ubyte"),
        datasets.mnist.read_label_file(raw / "t10k-labels-idx1-ubyte"),
        tuple(each.split(" - ")[0] for each in cls.classes),  # MNIST's are "0 - zero" and so on
    )


def _fetch(cls, raw: Path, wanted: list[str], time_limit: float) -> None:
    """Download files into a folder of their own, and move into `raw` those that are whole, so that
    nothing else is left, and two processes do not meet; OSError if one cannot be had."""
    made = [folder for folder in (raw, *raw.parents) if not folder.exists()]
    raw.mkdir(parents=True, exist_ok=True)
    if not os.access(raw, os.W_OK):
        state = "damaged" if (raw / wanted[0]).exists() else "missing"
        raise PermissionError(f"{raw / wanted[0]} is {state}, and its folder cannot be written")
    for file in wanted:
        if (raw / file).exists():
            said = _("{file} is damaged (wrong checksum): it is fetched again.")
            print(said.format(file=raw / file))
    try:
        with (
            tempfile.TemporaryDirectory(prefix=".", dir=raw, ignore_cleanup_errors=True) as folder,
            ThreadPool(1) as thread,  # can be given up: a look-up or a trickle may take for ever
        ):
            download = thread.apply_async(_download, (cls, raw, wanted, Path(folder)))
            download.wait(min(ANSWER_SECONDS, time_limit))
            if os.listdir(folder):
                download.wait(time_limit - ANSWER_SECONDS)
            for file in wanted:
                if check_integrity(Path(folder, file), MD5[cls.__name__][file]):
                    os.replace(Path(folder, file), raw / file)
            if not download.ready():
                raise TimeoutError("timed out")
            download.get()  # raises what went wrong
    finally:
        for empty in made:
            with contextlib.suppress(OSError):  # it is not empty
                empty.rmdir()


def _download(cls, raw: Path, wanted: list[str], folder: Path) -> None:
    """Unpack files into a folder, each from its archive in `raw` or else from the first mirror that
    has it whole; OSError if none has."""
    for archive, md5 in cls.resources:
        file, failures = archive.removesuffix(".gz"), []
        if file not in wanted:
            continue
        if (raw / archive).exists():
            shutil.copy(raw / archive, folder)  # then `download_url` only checks it
        for url in [mirror + archive for mirror in cls.mirrors]:
            if not folder.exists():
                return  # given up
            try:
                download_url(url, folder, archive, md5)
                extract_archive(folder / archive, folder)
                break
            except Exception as error:  # of mirrors and login pages anything can come
                failures.append(f"{url}: {error}")
        else:
            raise OSError("; ".join(failures))
