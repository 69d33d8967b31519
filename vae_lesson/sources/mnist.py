"""MNIST, Fashion-MNIST and KMNIST: torchvision's files, checked, and downloaded within a time."""

import gzip
import http.client
import os
import queue
import struct
import threading
import time
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import torch
from filelock import FileLock

from vae_lesson.data import SIDE, Images

N_TRAIN, N_TEST = 60_000, 10_000  # in all three

STALL_SECONDS = 10.0  # a server silent for this long is given up


def load_mnist_like(name: str, root: Path, device: torch.device | str, time_limit: float) -> Images:
    """Return one of the three data sets; OSError if it is not there and cannot be had in time."""
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
