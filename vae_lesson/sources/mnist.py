"""MNIST, Fashion-MNIST and KMNIST: torchvision's files, checked, and downloaded within a time."""

import contextlib
import gzip
import os
import threading
import time
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path

import torch
from filelock import FileLock
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from vae_lesson.data import Images

STALL_SECONDS = 10.0  # a server silent for this long is given up

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


def load_mnist_like(name: str, root: Path, device: torch.device | str, time_limit: float) -> Images:
    """Return one of the three data sets; OSError if it is not there and cannot be had in time."""
    cls = {"mnist": datasets.MNIST, "fashion": datasets.FashionMNIST, "kmnist": datasets.KMNIST}
    cls = cls[name]
    raw = root / cls.__name__ / "raw"  # torchvision's own layout
    # Whole files are only read: the data folder may be read-only, or shared by a class.
    for filename, md5 in MD5[cls.__name__].items():
        if not check_integrity(raw / filename, md5):
            _fetch_damaged(cls, raw, raw / filename, time_limit)
            break
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


def _fetch_damaged(cls, raw: Path, first: Path, time_limit: float) -> None:
    """Fetch what is not whole, from `first` on; no folder is left that nothing came into."""
    deadline = time.monotonic() + time_limit
    made = [folder for folder in (raw, *raw.parents) if not folder.exists()]
    raw.mkdir(parents=True, exist_ok=True)
    if not os.access(raw, os.W_OK):
        state = "damaged" if first.exists() else "missing"
        raise PermissionError(f"{first} is {state}, and its folder cannot be written")
    lock = FileLock(raw / ".lock", timeout=time_limit)  # of two processes, one downloads
    try:
        with lock:
            for archive_name, archive_md5 in cls.resources:
                archive = raw / archive_name
                path = archive.with_suffix("")
                md5 = MD5[cls.__name__][path.name]
                if check_integrity(path, md5):
                    continue
                if path.exists():
                    print(f"{path} is damaged (wrong checksum): removed, to be fetched again.")
                    path.unlink()
                if not check_integrity(archive, archive_md5):
                    archive.unlink(missing_ok=True)
                    _download(cls.mirrors, archive, archive_md5, deadline)
                with _named_when_whole(path, md5) as part:
                    part.write_bytes(gzip.decompress(archive.read_bytes()))
    finally:
        with contextlib.suppress(OSError):  # another process may be there by now
            if made and set(os.listdir(raw)) <= {".lock"}:
                (raw / ".lock").unlink(missing_ok=True)
                for folder in made:
                    folder.rmdir()


@contextlib.contextmanager
def _named_when_whole(path: Path, md5: str) -> Iterator[Path]:
    """Give a file to be written; it becomes `path` if it has this MD5, and goes if not."""
    part = path.with_name(path.name + ".part")
    try:
        yield part
        if not check_integrity(part, md5):
            raise OSError(f"{path.name} came with another checksum")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)  # a full disk leaves a piece of it


def _download(mirrors: list[str], path: Path, md5: str, deadline: float) -> None:
    """Download `path` from the first mirror that has it with this MD5, or raise OSError."""
    failures = []
    for url in [mirror + path.name for mirror in mirrors]:
        try:
            with _named_when_whole(path, md5) as part:
                _download_one(url, part, deadline)
            return
        except OSError as error:
            failures.append(f"{url}: {error}")
    raise OSError("; ".join(failures))


def _download_one(url: str, path: Path, deadline: float) -> None:
    """Write what `url` gives to `path` before the deadline, or raise OSError.

    In a thread of its own, because requests' timeout is for one address and one read: it ends
    neither a trickle nor the look-up of a name, which a firewall that swallows packets can hold
    for minutes. A thread that is given up finds its file closed, and so disturbs nobody.
    """
    import pooch

    patience = min(STALL_SECONDS, deadline - time.monotonic())
    if patience <= 0:
        raise TimeoutError("timed out")
    answered = threading.Event()

    def at_answer(reply, **_) -> None:
        reply.raw.headers.discard("Content-Encoding")  # else requests might unpack the archive
        answered.set()

    download = pooch.HTTPDownloader(
        progressbar=True, chunk_size=1 << 16, timeout=patience, hooks={"response": at_answer}
    )
    errors = []
    with open(path, "wb") as file, ThreadPool(1) as thread:
        done = thread.apply_async(download, (url, file, None), error_callback=errors.append)
        done.wait(patience)
        if answered.is_set():
            done.wait(deadline - time.monotonic())
        if not done.ready():
            raise TimeoutError("timed out")
    for error in errors:
        while error.__context__:  # the cause, without the layers that requests and urllib3 add
            error = error.__context__
        raise OSError(error)
