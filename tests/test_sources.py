"""sources: what is on disk, the download and all that can go wrong in it, the offline default.

No test leaves this machine: a small HTTP server on 127.0.0.1 stands for torchvision's mirrors.
"""

import contextlib
import errno
import gc
import gzip
import hashlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests  # noqa: F401  now, and not within a time limit
import sklearn.datasets
import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor
from torchvision.datasets import KMNIST, MNIST, FashionMNIST

from vae_lesson import data, sources
from vae_lesson.sources import load_images, mnist

N_TRAIN, N_TEST = 60_000, 10_000
TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
FILENAMES = [TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS]
ARCHIVE_NAMES = [filename + ".gz" for filename in FILENAMES]

REFUSED = f"[Errno {errno.ECONNREFUSED:d}] {os.strerror(errno.ECONNREFUSED)}"
INSTEAD = "Using the offline default, 'digits', instead."
SOON = 5.0  # seconds: far more than our limits need, far less than the servers below go on for
REAL_DATA = os.environ.get("VAE_LESSON_DATA")  # as it is outside these tests
REAL_CHECKSUMS = dict(mnist.MD5)


# --- a small MNIST, and a mirror of it ------------------------------------------------------------


def pattern(n: int, offset: int) -> tuple[Tensor, Tensor]:
    """Images and labels that tell an image from its neighbours, train from test, rows from columns,
    and still compress to next to nothing."""
    index = torch.arange(n) + offset
    images = index.remainder(256).byte()[:, None, None].repeat(1, 28, 28)
    images[:, 0] = 255
    return images, index.remainder(10)


def check_pattern(images: data.Images) -> None:
    """What was loaded is what the mirror has, image for image and label for label."""
    for x, labels, n, offset in [
        (images.train, images.train_labels, N_TRAIN, 0),
        (images.test, images.test_labels, N_TEST, 3),
    ]:
        expected, expected_labels = pattern(n, offset)
        assert x.dtype == torch.uint8 and torch.equal(x, expected)
        assert labels.dtype == torch.int64 and torch.equal(labels, expected_labels)


@pytest.fixture(scope="module")
def archives():
    """The four archives, by name."""
    train, train_labels = pattern(N_TRAIN, 0)
    test, test_labels = pattern(N_TEST, 3)
    contents = [
        struct.pack(">iiii", 0x803, N_TRAIN, 28, 28) + train.numpy().tobytes(),
        struct.pack(">ii", 0x801, N_TRAIN) + train_labels.byte().numpy().tobytes(),
        struct.pack(">iiii", 0x803, N_TEST, 28, 28) + test.numpy().tobytes(),
        struct.pack(">ii", 0x801, N_TEST) + test_labels.byte().numpy().tobytes(),
    ]
    return {name: gzip.compress(content) for name, content in zip(ARCHIVE_NAMES, contents)}


@pytest.fixture(scope="module")
def extracted(archives, tmp_path_factory):
    """A folder with the four extracted files, to be copied."""
    folder = tmp_path_factory.mktemp("extracted")
    for name, archive in archives.items():
        (folder / name.removesuffix(".gz")).write_bytes(gzip.decompress(archive))
    yield folder
    shutil.rmtree(folder)  # pytest keeps what three runs leave behind, and this is 55 MB


@pytest.fixture(scope="module")
def checksums(extracted):
    """The MD5 of each extracted file, by name."""
    return {name: hashlib.md5((extracted / name).read_bytes()).hexdigest() for name in FILENAMES}


@pytest.fixture(scope="module")
def digits():
    return load_images("digits")


@pytest.fixture(scope="module")
def closed_address():
    """The address of a port that is ours, so that nobody else listens on it, and that is closed."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{unused.getsockname()[1]}/"


@pytest.fixture(autouse=True)
def only_this_machine(monkeypatch, archives, checksums, closed_address, tmp_path):
    """Every data set is ours and, until a test says otherwise, its one mirror is down."""
    resources = [(name, hashlib.md5(archive).hexdigest()) for name, archive in archives.items()]
    for cls in (MNIST, FashionMNIST, KMNIST):
        monkeypatch.setattr(cls, "resources", resources)
        monkeypatch.setattr(cls, "mirrors", [closed_address])
        monkeypatch.setitem(mnist.MD5, cls.__name__, checksums)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("VAE_LESSON_DATA", str(tmp_path / "unused"))  # never the user's own


@pytest.fixture
def root(tmp_path):
    yield tmp_path / "data"
    shutil.rmtree(tmp_path / "data", ignore_errors=True)


@pytest.fixture
def offline(monkeypatch, digits):
    """The offline default, made once for all the tests that end in it: it takes two seconds."""
    monkeypatch.setattr(sources, "offline_digits", lambda device: digits)
    return digits


@contextlib.contextmanager
def mirror(answer):
    """Serve `answer(request, name)` while in the block; yield the address and the names asked for.

    `request.server.closing` is set at the end, so that no slow answer outlives its test.
    """
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path[1:])
            with contextlib.suppress(ConnectionError):  # the client may well have given up
                answer(self, self.path[1:])

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.closing = threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", asked
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def send(request, body: bytes, length: int | str | None = None) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(body) if length is None else length))
    request.end_headers()
    request.wfile.write(body)


def serving(archives):
    """The answer of a mirror that has `archives` and nothing else."""

    def answer(request, name):
        if name in archives:
            send(request, archives[name])
        else:
            request.send_error(404)

    return answer


def drip(request, content: bytes, seconds: float) -> None:
    """Send a byte every 20 ms, so that a reader who waits for the next one never waits long."""
    for i in range(int(seconds / 0.02)):
        if request.server.closing.wait(0.02):
            return
        request.wfile.write(content[i : i + 1])


def fill(root: Path, extracted: Path, archives=None, dataset: str = "MNIST") -> Path:
    """Lay whole files, and archives beside them if given, under `root`; return their folder."""
    raw = root / dataset / "raw"
    shutil.copytree(extracted, raw)
    for name, archive in (archives or {}).items():
        (raw / name).write_bytes(archive)
    return raw


def files(root: Path) -> set[str]:
    """The names of the files under `root`, but for the lock."""
    return {path.name for path in root.rglob("*") if path.is_file() and path.name != ".lock"}


def printed(capsys) -> str:
    """What was printed since the last call, on one line."""
    return " ".join(capsys.readouterr().out.split())


def fell_back(reason: str) -> str:
    return f"'mnist' is not on disk and could not be downloaded ({reason}). {INSTEAD}"


# --- the offline default --------------------------------------------------------------------------


def test_digits_are_shaped_like_mnist(digits):
    assert digits.name == "digits"
    assert digits.class_names == tuple("0123456789")
    for x, labels, n in [
        (digits.train, digits.train_labels, N_TRAIN),
        (digits.test, digits.test_labels, N_TEST),
    ]:
        assert x.shape == (n, 28, 28) and x.dtype == torch.uint8
        assert labels.shape == (n,) and labels.dtype == torch.int64
        share = labels.bincount() / n
        assert len(share) == 10 and share.min() > 0.08 and share.max() < 0.12
    assert repr(digits) == (
        "digits: 60,000 training and 10,000 test images of 28×28 pixels, 10 classes, on cpu"
    )


def test_digits_look_like_mnist(digits):
    for x in (digits.train, digits.test):
        assert x.min() == 0 and x.max() == 255
        assert x.flatten().bincount().min() > 0  # every grey value occurs
        assert 0.1 < x.float().mean() / 255 < 0.2  # MNIST: 0.13
        assert ((x < 26) | (x > 229)).float().mean() > 0.8  # most pixels are black or white


def test_digits_are_the_same_each_time_whatever_the_global_seed(digits):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    again = load_images("digits")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(again.train, digits.train)
    assert torch.equal(again.train_labels, digits.train_labels)
    assert torch.equal(again.test, digits.test)
    assert torch.equal(again.test_labels, digits.test_labels)


def mean_images(x: Tensor, labels: Tensor) -> Tensor:
    """The mean of the images of each label."""
    count = labels.bincount()
    return torch.zeros(len(count), x.shape[1]).index_add_(0, labels, x) / count[:, None]


def test_digits_of_train_and_test_come_from_different_originals(monkeypatch):
    # Give each original its own number for a label: the labels then say what was made of what.
    originals = sklearn.datasets.load_digits().images
    numbered = SimpleNamespace(images=originals, target=torch.arange(len(originals)).numpy())
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: numbered)
    images = load_images("digits")

    train, test = images.train_labels.unique(), images.test_labels.unique()
    assert len(train) == 1500 and len(test) == 297
    assert not set(train.tolist()) & set(test.tolist())

    # An image shows the original that its label names: the mean image of each original's variants
    # is more like that original than like any of the 1,796 others.
    flat = torch.cat([images.train, images.test]).flatten(1).float()
    labels = torch.cat([images.train_labels, images.test_labels])
    means = mean_images(flat, labels)
    small = torch.from_numpy(originals).float()[:, None]
    large = F.pad(F.interpolate(small, size=(20, 20), mode="bicubic"), (4, 4, 4, 4)).flatten(1)
    means, large = (F.normalize(x - x.mean(1, keepdim=True)) for x in (means, large))
    found = (means @ large.T).argmax(1)
    assert (found == torch.arange(len(originals))).float().mean() > 0.9

    # The variants of one original differ from each other.
    variants = images.train[images.train_labels == 0]
    assert len(variants) == 40 and len(variants.unique(dim=0)) == 40


def test_digits_labels_match_the_images(digits):
    # The nearest class mean is a poor classifier (0.70), yet far from the 0.10 of wrong labels.
    means = mean_images(digits.train.flatten(1).float(), digits.train_labels)
    found = torch.cdist(digits.test.flatten(1).float(), means).argmin(1)
    assert (found == digits.test_labels).float().mean() > 0.6


# --- the offline default in colour ----------------------------------------------------------------


def test_photos_are_windows_onto_two_photographs():
    images = load_images("photos")
    assert images.train.shape == (10_000, 3, 32, 32) and images.test.shape == (1000, 3, 32, 32)
    assert images.shape == (3, 32, 32) and images.train.dtype == torch.uint8
    assert images.class_names == ("temple", "flower")
    assert images.train_labels.bincount().tolist() == [5000, 5000]
    # The dahlia is orange before dark green, and the sky over the temple is pale.
    red, _, blue = (images.train[:, c].float().mean(dim=(1, 2)) for c in range(3))
    flower = images.train_labels == 1
    assert (red - blue)[flower].quantile(0.9) > 100 > (red - blue)[~flower].quantile(0.9)
    assert torch.equal(load_images("photos").test, images.test)


def test_photos_have_the_side_that_is_asked_for_and_no_window_is_another():
    images = load_images("photos", side=8)
    assert images.shape == (3, 8, 8)
    every = torch.cat([images.train, images.test]).flatten(1)
    assert len(every.unique(dim=0)) > 0.99 * len(every)  # small and dark ones may coincide
    with pytest.raises(ValueError, match="side must be a whole number from 1 to 1,024, got 0"):
        load_images("photos", side=0)
    with pytest.raises(ValueError, match="side and colour are for your own pictures"):
        load_images("photos", colour=False)


# --- what is on disk ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cifar", "MNIST", ""])
def test_unknown_name(name):
    with pytest.raises(ValueError) as error:
        load_images(name)
    assert str(error.value).startswith(
        f"unknown data set {name!r}: choose one of mnist, fashion, kmnist, digits, photos, "
        "or the path of a folder of pictures"
    )


@pytest.mark.parametrize(
    ("name", "dataset", "first_class", "last_class"),
    [
        ("mnist", "MNIST", "0", "9"),
        ("fashion", "FashionMNIST", "T-shirt/top", "Ankle boot"),
        ("kmnist", "KMNIST", "o", "wo"),
    ],
)
def test_each_data_set_loads_from_its_own_folder(
    name, dataset, first_class, last_class, root, extracted, capsys
):
    fill(root, extracted, dataset=dataset)
    images = load_images(name, root)
    check_pattern(images)
    assert images.name == name
    assert len(images.class_names) == 10
    assert (images.class_names[0], images.class_names[-1]) == (first_class, last_class)
    assert printed(capsys) == ""


def test_device_is_honoured(root, extracted):
    fill(root, extracted)
    images = load_images("mnist", str(root), device="meta")
    for x in (images.train, images.train_labels, images.test, images.test_labels):
        assert x.device.type == "meta"


def test_whole_files_are_only_read(root, extracted, archives):
    fill(root, extracted, archives)
    paths = [root, *root.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)

    def state():  # root writes in spite of the mode; a folder's mtime betrays files come and gone
        return {
            path: (path.stat().st_ino, path.stat().st_size, path.stat().st_mtime_ns)
            for path in [root, *root.rglob("*")]
        }

    before = state()
    try:
        check_pattern(load_images("mnist", root))
        assert state() == before
    finally:
        for path in paths:
            path.chmod(0o755)


def test_data_folder_from_the_environment(root, extracted, monkeypatch):
    fill(root, extracted)
    monkeypatch.setenv("VAE_LESSON_DATA", str(root))
    assert sources.data_root() == root
    check_pattern(load_images("mnist"))


def test_root_goes_before_the_environment(root, extracted, monkeypatch, tmp_path):
    fill(root, extracted)
    monkeypatch.setenv("VAE_LESSON_DATA", str(tmp_path / "elsewhere"))
    check_pattern(load_images("mnist", root))
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("value", [None, ""])
def test_data_folder_by_default_is_in_the_project(value, monkeypatch):
    monkeypatch.delenv("VAE_LESSON_DATA")
    if value is not None:
        monkeypatch.setenv("VAE_LESSON_DATA", value)
    assert sources.data_root() == Path(__file__).parents[1] / "data"


# --- the download ---------------------------------------------------------------------------------


def test_download_then_disk(root, archives, extracted, monkeypatch, capsys):
    with mirror(serving(archives)) as (address, asked):
        monkeypatch.setattr(MNIST, "mirrors", [address])
        images = load_images("mnist", root)
        assert asked == ARCHIVE_NAMES
    assert images.name == "mnist"
    check_pattern(images)
    assert files(root) == {*FILENAMES, *ARCHIVE_NAMES}
    raw = root / "MNIST" / "raw"
    for name, archive in archives.items():
        filename = name.removesuffix(".gz")
        assert (raw / name).read_bytes() == archive
        assert (raw / filename).read_bytes() == (extracted / filename).read_bytes()

    check_pattern(load_images("mnist", root))  # the server is gone
    assert printed(capsys) == ""


def test_second_mirror_when_the_first_lacks_the_file(root, archives, monkeypatch, capsys):
    with (
        mirror(serving({})) as (empty, asked_first),
        mirror(serving(archives)) as (whole, asked_second),
    ):
        monkeypatch.setattr(MNIST, "mirrors", [empty, whole])
        check_pattern(load_images("mnist", root))
    assert asked_first == asked_second == ARCHIVE_NAMES
    assert printed(capsys) == ""


def test_second_mirror_when_the_first_is_corrupt_or_stalls(root, archives, monkeypatch):
    def bad(request, name):
        if name == ARCHIVE_NAMES[0]:
            send(request, b"<html>Please log in to the network</html>")
        else:
            send(request, b"", length=1000)
            request.server.closing.wait(20)

    monkeypatch.setattr(mnist, "STALL_SECONDS", 0.2)
    with mirror(bad) as (first, _), mirror(serving(archives)) as (second, asked):
        monkeypatch.setattr(MNIST, "mirrors", [first, second])
        check_pattern(load_images("mnist", root))
    assert asked == ARCHIVE_NAMES


def test_every_failure_is_named(root, offline, monkeypatch, closed_address, capsys):
    with mirror(serving({})) as (empty, _):
        monkeypatch.setattr(MNIST, "mirrors", [empty, closed_address])
        assert load_images("mnist", root) is offline
    archive = ARCHIVE_NAMES[0]
    assert printed(capsys) == fell_back(
        f"{empty}{archive}: 404 Client Error: Not Found for url: {empty}{archive}; "
        f"{closed_address}{archive}: {REFUSED}"
    )


def test_unreachable_server_means_the_offline_default(root, closed_address, capsys):
    # The real offline default, once; on another device, to see that it is honoured here too.
    images = load_images("mnist", root, device="meta")
    assert images.name == "digits"
    assert images.train.shape == (N_TRAIN, 28, 28) and images.train.device.type == "meta"
    assert printed(capsys) == fell_back(f"{closed_address}{ARCHIVE_NAMES[0]}: {REFUSED}")


@pytest.mark.parametrize("existing", [[], ["MNIST"], ["MNIST", "raw"]])
def test_looking_for_files_makes_no_folder(existing, root, offline):
    if existing:
        root.joinpath(*existing).mkdir(parents=True)
    before = list(root.parent.rglob("*"))
    assert load_images("mnist", root) is offline
    assert [path for path in root.parent.rglob("*") if path.name != ".lock"] == before


def test_the_offline_default_is_announced_in_one_line(root, offline, capsys):
    assert load_images("mnist", root) is offline
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_folder_that_cannot_be_made_means_the_offline_default(tmp_path, offline, capsys):
    (tmp_path / "file").touch()
    assert load_images("mnist", tmp_path / "file") is offline
    out = printed(capsys)
    assert out.startswith("'mnist' is not on disk") and "file/MNIST" in out
    assert out.endswith(INSTEAD)


def test_only_what_is_missing_is_downloaded(root, archives, offline, monkeypatch):
    with mirror(serving({name: archives[name] for name in ARCHIVE_NAMES[:3]})) as (address, _):
        monkeypatch.setattr(MNIST, "mirrors", [address])
        assert load_images("mnist", root) is offline
    assert files(root) == {*FILENAMES[:3], *ARCHIVE_NAMES[:3]}
    with mirror(serving(archives)) as (address, asked):
        monkeypatch.setattr(MNIST, "mirrors", [address])
        check_pattern(load_images("mnist", root))
    assert asked == ARCHIVE_NAMES[3:]


# --- damage on disk -------------------------------------------------------------------------------


def truncated(content: bytes) -> bytes:
    return content[:-1]


def other_header(content: bytes) -> bytes:
    return struct.pack(">i", 0x802) + content[4:]


def label_ten(content: bytes) -> bytes:
    return content[:-1] + b"\x0a"


def one_bit(content: bytes) -> bytes:  # still a label from 0 to 9
    return content[:-1] + bytes([content[-1] ^ 1])


DAMAGES = [
    (TRAIN_IMAGES, truncated),
    (TEST_LABELS, truncated),
    (TEST_IMAGES, other_header),
    (TRAIN_LABELS, label_ten),
    (TRAIN_LABELS, one_bit),
    (TEST_IMAGES, one_bit),
]


def is_named(path: Path) -> str:
    return f"{path} is damaged (wrong checksum): removed, to be fetched again.\n"


@pytest.mark.parametrize(("filename", "damage"), DAMAGES)
def test_damaged_file_is_named_and_fetched_again(
    filename, damage, root, archives, extracted, monkeypatch, capsys
):
    path = fill(root, extracted) / filename
    path.write_bytes(damage(path.read_bytes()))
    with mirror(serving(archives)) as (address, asked):
        monkeypatch.setattr(MNIST, "mirrors", [address])
        check_pattern(load_images("mnist", root))
    assert asked == [filename + ".gz"]  # the others are whole and left alone
    assert capsys.readouterr().out == is_named(path)


@pytest.mark.parametrize(("filename", "damage"), DAMAGES)
def test_damaged_file_is_removed_when_the_mirror_is_gone(
    filename, damage, root, extracted, offline, capsys, closed_address
):
    path = fill(root, extracted) / filename
    path.write_bytes(damage(path.read_bytes()))
    assert load_images("mnist", root) is offline
    refused = f"{closed_address}{filename}.gz: {REFUSED}"
    assert capsys.readouterr().out == f"{is_named(path)}{fell_back(refused)}\n"
    assert files(root) == set(FILENAMES) - {filename}


@pytest.mark.parametrize(("filename", "damage"), DAMAGES)
def test_damaged_file_is_made_again_from_the_archive_beside_it(
    filename, damage, root, archives, extracted, capsys
):
    path = fill(root, extracted, archives) / filename
    path.write_bytes(damage(path.read_bytes()))
    check_pattern(load_images("mnist", root))  # the archive is whole, so no mirror is needed
    assert capsys.readouterr().out == is_named(path)


@pytest.mark.parametrize("state", ["damaged", "missing"])
def test_a_folder_that_cannot_be_written_is_named_with_its_file(state, extracted, offline, capsys):
    with tempfile.TemporaryDirectory() as folder:  # not pytest's, which only its owner may enter
        raw = fill(Path(folder), extracted)
        path = raw / TEST_LABELS
        path.write_bytes(path.read_bytes()[:-1])
        if state == "missing":
            path.unlink()
        for place in (Path(folder), raw.parent, raw):
            place.chmod(0o555)
        is_root = os.geteuid() == 0
        try:
            if is_root:  # who may write everywhere: be nobody for once
                os.setresuid(65534, 65534, 0)
            assert load_images("mnist", folder) is offline
        finally:
            if is_root:
                os.setresuid(0, 0, 0)
            raw.chmod(0o755)
    assert printed(capsys) == fell_back(f"{path} is {state}, and its folder cannot be written")


@pytest.mark.parametrize("dataset", ["MNIST", "FashionMNIST", "KMNIST"])
def test_the_checksums_are_those_of_the_real_files(dataset):
    assert sorted(REAL_CHECKSUMS[dataset]) == sorted(FILENAMES)
    raw = Path(REAL_DATA or "", dataset, "raw")
    if not REAL_DATA or not (raw / TRAIN_IMAGES).is_file():
        pytest.skip(f"VAE_LESSON_DATA names no folder with the real {dataset}")
    for filename, checksum in REAL_CHECKSUMS[dataset].items():
        assert hashlib.md5((raw / filename).read_bytes()).hexdigest() == checksum


def test_missing_file_is_extracted_from_the_archive_beside_it(root, archives, extracted, capsys):
    (fill(root, extracted, archives) / TRAIN_LABELS).unlink()
    check_pattern(load_images("mnist", root))
    assert printed(capsys) == ""


def test_damaged_archive_beside_a_whole_file_costs_nothing(root, archives, extracted, offline):
    raw = fill(root, extracted, archives)
    (raw / ARCHIVE_NAMES[0]).write_bytes(archives[ARCHIVE_NAMES[0]][:-100])
    images = load_images("mnist", root)
    assert (raw / TRAIN_IMAGES).is_file()
    check_pattern(images)


def test_files_of_torchvisions_old_layout_do_not_pass_unchecked(root, extracted):
    fill(root, extracted)
    processed = root / "MNIST" / "processed"
    processed.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(3, 28, 28).byte(), torch.zeros(3).long()), processed / name)
    check_pattern(load_images("mnist", root))


def test_half_finished_download_does_not_pass(root, archives, offline, monkeypatch):
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / ARCHIVE_NAMES[0]).write_bytes(archives[ARCHIVE_NAMES[0]][:-100])
    (raw / (ARCHIVE_NAMES[1] + ".part")).write_bytes(archives[ARCHIVE_NAMES[1]][:100])
    (raw / (TRAIN_IMAGES + ".part")).write_bytes(b"half an image")
    assert load_images("mnist", root) is offline
    assert not files(root) & {*FILENAMES, *ARCHIVE_NAMES}

    (raw / ARCHIVE_NAMES[0]).write_bytes(archives[ARCHIVE_NAMES[0]][:-100])
    with mirror(serving(archives)) as (address, asked):
        monkeypatch.setattr(MNIST, "mirrors", [address])
        check_pattern(load_images("mnist", root))
    assert asked == ARCHIVE_NAMES
    assert files(root) == {*FILENAMES, *ARCHIVE_NAMES}  # no .part is left
    for name, archive in archives.items():
        assert (raw / name).read_bytes() == archive


# --- a bad mirror ---------------------------------------------------------------------------------


def one_bit_wrong(request, archive):
    send(request, archive[:-1] + bytes([archive[-1] ^ 1]))


def cut_short(request, archive):
    send(request, archive[: len(archive) // 2], length=len(archive))


def login_page(request, archive):
    send(request, b"<html>Please log in to the network</html>")


def nothing(request, archive):
    send(request, b"")


OTHER_CHECKSUM = f"{ARCHIVE_NAMES[0]} came with another checksum"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (one_bit_wrong, OTHER_CHECKSUM),
        (cut_short, "IncompleteRead"),
        (login_page, OTHER_CHECKSUM),
        (nothing, OTHER_CHECKSUM),
    ],
)
def test_corrupt_archive_never_passes(answer, reason, root, archives, offline, monkeypatch, capsys):
    with mirror(lambda request, name: answer(request, archives[name])) as (address, _):
        monkeypatch.setattr(MNIST, "mirrors", [address])
        assert load_images("mnist", root) is offline
    assert f"({address}{ARCHIVE_NAMES[0]}: {reason}" in printed(capsys)
    assert not root.exists()


def test_archive_of_something_else_never_passes(root, archives, offline, monkeypatch, capsys):
    # The right checksum, but not MNIST: no header, no images.
    other = {**archives, ARCHIVE_NAMES[0]: gzip.compress(b"something else")}
    resources = [(name, hashlib.md5(archive).hexdigest()) for name, archive in other.items()]
    monkeypatch.setattr(MNIST, "resources", resources)
    with mirror(serving(other)) as (address, _):
        monkeypatch.setattr(MNIST, "mirrors", [address])
        assert load_images("mnist", root) is offline
    assert printed(capsys) == fell_back(f"{TRAIN_IMAGES} came with another checksum")
    assert files(root) == {ARCHIVE_NAMES[0]}


def silent(request, archive):
    request.server.closing.wait(20)


def stall(request, archive):
    send(request, archive[:1000], length=len(archive))
    request.server.closing.wait(20)


def trickle(request, archive):
    send(request, b"", length=len(archive))
    drip(request, archive, seconds=20)


@pytest.fixture
def give_up(root, archives, offline, monkeypatch, capsys):
    """Check that a mirror that answers so is given up soon, that the reason is named and that
    nothing is kept of what it sent; return the seconds that it took."""

    def load(answer, **limit) -> float:
        with mirror(lambda request, name: answer(request, archives[name])) as (address, asked):
            monkeypatch.setattr(MNIST, "mirrors", [address])
            start = time.monotonic()
            assert load_images("mnist", root, **limit) is offline
            seconds = time.monotonic() - start
        assert seconds < SOON
        assert asked == ARCHIVE_NAMES[:1]
        assert printed(capsys) == fell_back(f"{address}{ARCHIVE_NAMES[0]}: timed out")
        assert not root.exists()
        return seconds

    return load


@pytest.mark.parametrize("answer", [silent, stall])
def test_a_server_that_stalls_is_given_up(answer, give_up, monkeypatch):
    monkeypatch.setattr(mnist, "STALL_SECONDS", 0.5)
    assert give_up(answer) >= 0.5


def test_a_stall_ends_with_the_time_limit(give_up):
    give_up(stall, time_limit=0.5)


def test_a_server_that_trickles_is_given_up(give_up):
    assert give_up(trickle, time_limit=0.5) >= 0.5


def test_a_look_up_that_hangs_is_given_up(root, offline, monkeypatch, capsys):
    enough = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: enough.wait(20))
    monkeypatch.setattr(mnist, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(MNIST, "mirrors", ["http://nowhere.invalid/"])
    start = time.monotonic()
    assert load_images("mnist", root) is offline
    enough.set()
    assert 0.5 <= time.monotonic() - start < SOON
    assert printed(capsys) == fell_back(f"http://nowhere.invalid/{ARCHIVE_NAMES[0]}: timed out")
    assert not root.exists()


def test_a_download_that_is_given_up_stops(root, offline, monkeypatch):
    stopped = threading.Event()

    def endless(request, name):
        send(request, b"", length=1 << 40)
        try:
            while not request.server.closing.wait(0.02):
                request.wfile.write(bytes(1 << 16))
        except ConnectionError:
            stopped.set()

    with mirror(endless) as (address, _):
        monkeypatch.setattr(MNIST, "mirrors", [address])
        assert load_images("mnist", root, time_limit=0.5) is offline
        end = time.monotonic() + SOON
        while not stopped.wait(0.1) and time.monotonic() < end:
            gc.collect()  # the connection closes with the error that its thread ended in
        assert stopped.is_set()
    assert not root.exists()


def test_a_mirror_whose_length_is_no_number_is_passed_over(root, archives, monkeypatch):
    def answer(request, name):
        send(request, archives[name], length="unknown")

    with mirror(answer) as (odd, _), mirror(serving(archives)) as (whole, _):
        monkeypatch.setattr(MNIST, "mirrors", [odd, whole])
        check_pattern(load_images("mnist", root))


def test_an_archive_is_kept_as_it_is_whatever_the_server_calls_it(root, archives, monkeypatch):
    def answer(request, name):
        request.send_response(200)
        request.send_header("Content-Encoding", "x-gzip")  # as Apache does with AddEncoding
        request.send_header("Content-Length", str(len(archives[name])))
        request.end_headers()
        request.wfile.write(archives[name])

    with mirror(answer) as (address, _):
        monkeypatch.setattr(MNIST, "mirrors", [address])
        check_pattern(load_images("mnist", root))


# --- two processes --------------------------------------------------------------------------------

# Imports first, then waits for the word, so that both processes start their download at once.
CHILD = """
import json, sys
from torchvision.datasets import MNIST
from vae_lesson.sources import load_images, mnist
root, MNIST.mirrors, MNIST.resources, mnist.MD5["MNIST"] = json.loads(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
images = load_images("mnist", root)
print(images.name, images.train.sum().item(), images.test_labels.sum().item())
"""


def test_of_two_processes_one_downloads(root, archives, monkeypatch):
    def slow(request, name):  # slow enough that the other process is there before this one is done
        time.sleep(0.5 if name == ARCHIVE_NAMES[0] else 0)
        send(request, archives[name])

    with mirror(slow) as (address, asked):
        monkeypatch.setattr(MNIST, "mirrors", [address])
        given = [str(root), [address], MNIST.resources, mnist.MD5["MNIST"]]
        other = subprocess.Popen(
            [sys.executable, "-c", CHILD, json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert other.stdout.readline() == "ready\n"
            other.stdin.write("go\n")
            other.stdin.flush()
            images = load_images("mnist", root)
            output, _ = other.communicate(timeout=60)
        finally:
            other.kill()
            other.communicate()
    check_pattern(images)
    assert output == f"mnist {images.train.sum().item()} {images.test_labels.sum().item()}\n"
    assert sorted(asked) == sorted(ARCHIVE_NAMES)  # each archive once
    assert files(root) == {*FILENAMES, *ARCHIVE_NAMES}


def test_waiting_for_another_process_ends_with_the_time_limit(root, offline, capsys):
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    held, enough = threading.Event(), threading.Event()

    def hold():  # in a thread: filelock refuses two locks on one file in the same thread
        with FileLock(raw / ".lock"):
            held.set()
            enough.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(20)
        start = time.monotonic()
        assert load_images("mnist", root, time_limit=0.3) is offline
        assert 0.3 <= time.monotonic() - start < SOON
    finally:
        enough.set()
        thread.join()
    out = printed(capsys)
    assert out.startswith("'mnist' is not on disk") and ".lock" in out and out.endswith(INSTEAD)
