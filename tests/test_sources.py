"""sources: what is on disk, the download and all that can go wrong in it, the offline defaults.

No test leaves this machine: a small HTTP server on 127.0.0.1 stands for torchvision's mirrors.
"""

import contextlib
import errno
import gzip
import hashlib
import os
import socket
import struct
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import pytest
import sklearn.datasets
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.datasets import KMNIST, MNIST, FashionMNIST

from vae_lesson import data, sources
from vae_lesson.sources import load_images, mnist

FILES = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"]
FILES += ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
ARCHIVES = [file + ".gz" for file in FILES]
SOON = 20.0  # seconds: far more than our limits need, less than the servers below go on for
REAL_DATA = os.environ.get("VAE_LESSON_DATA")  # as it is outside these tests
REAL_CHECKSUMS = dict(mnist.MD5)


# --- a small MNIST, and a mirror of it ------------------------------------------------------------


def pattern(n: int, offset: int) -> tuple[Tensor, Tensor]:
    """Images and labels that tell an image from its neighbours and rows from columns."""
    index = torch.arange(n) + offset
    images = index.byte()[:, None, None].repeat(1, 28, 28)
    images[:, 0] = 255
    return images, index.remainder(10)


TRAIN, TEST = pattern(60, 0), pattern(10, 3)


def check_pattern(images: data.Images) -> None:
    """What was loaded is what the mirror has, image for image and label for label."""
    assert torch.equal(images.train, TRAIN[0]) and torch.equal(images.train_labels, TRAIN[1])
    assert torch.equal(images.test, TEST[0]) and torch.equal(images.test_labels, TEST[1])
    assert images.train.dtype == torch.uint8 and images.test_labels.dtype == torch.int64


def contents() -> list[bytes]:
    """What is in the four files."""
    found = []
    for images, labels in (TRAIN, TEST):
        found.append(struct.pack(">iiii", 0x803, *images.shape) + images.numpy().tobytes())
        found.append(struct.pack(">ii", 0x801, len(labels)) + labels.byte().numpy().tobytes())
    return found


WHOLE = dict(zip(FILES, contents()))
PACKED = {f"{file}.gz": gzip.compress(content) for file, content in WHOLE.items()}


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
def only_this_machine(monkeypatch, closed_address):
    """Every data set is ours and, until a test says otherwise, its one mirror is down."""
    resources = [(name, hashlib.md5(archive).hexdigest()) for name, archive in PACKED.items()]
    checksums = {file: hashlib.md5(content).hexdigest() for file, content in WHOLE.items()}
    for cls in (MNIST, FashionMNIST, KMNIST):
        monkeypatch.setattr(cls, "resources", resources)
        monkeypatch.setattr(cls, "mirrors", [closed_address])
        monkeypatch.setitem(mnist.MD5, cls.__name__, checksums)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """The data folder, which is not there yet."""
    monkeypatch.setenv("VAE_LESSON_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def offline(monkeypatch, digits):
    """The offline default, made once for all the tests that end in it: it takes two seconds."""
    monkeypatch.setattr(sources, "offline_digits", lambda: digits)

    def is_loaded(**options) -> bool:
        return load_images("mnist", **options).train is digits.train

    return is_loaded


@contextlib.contextmanager
def mirrors(*answers):
    """Be MNIST's mirrors, each with its `answer(request, name)`; yield the names asked of each.

    `request.server.closing` is set at the end, so that no slow answer outlives its test.
    """
    asked = [[] for _ in answers]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.headers["Method"] == "HEAD":  # so torchvision looks for redirections
                return send(self, b"")
            number, name = self.path[1:].split("/")
            asked[int(number)].append(name)
            with contextlib.suppress(ConnectionError):  # the client may well have given up
                answers[int(number)](self, name)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.closing = threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    addresses = [f"http://127.0.0.1:{server.server_port}/{i}/" for i in range(len(answers))]
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MNIST, "mirrors", addresses)
            yield asked
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def send(request, body: bytes, length: int | None = None) -> None:
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


def fill(root: Path, contents=WHOLE, dataset: str = "MNIST") -> Path:
    """Lay files under `root`; return their folder."""
    raw = root / dataset / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (raw / name).write_bytes(content)
    return raw


def files(root: Path) -> list[str]:
    """The names of all that is under `root`, but for the folders of torchvision's layout."""
    return sorted(path.name for path in root.rglob("*") if path.name not in ("MNIST", "raw"))


def printed(capsys) -> str:
    """What was printed since the last call, on one line."""
    return " ".join(capsys.readouterr().out.split())


def fell_back(reason: str) -> str:
    instead = "Using the offline default, 'digits', instead."
    return f"'mnist' is not on disk and could not be downloaded ({reason}). {instead}"


# --- the offline default --------------------------------------------------------------------------


def test_digits_are_shaped_like_mnist(digits):
    assert digits.name == "digits"
    assert digits.class_names == tuple("0123456789")
    for x, labels, n in [
        (digits.train, digits.train_labels, 60_000),
        (digits.test, digits.test_labels, 10_000),
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
    for part in ("train", "train_labels", "test", "test_labels"):
        assert torch.equal(getattr(again, part), getattr(digits, part))


def mean_images(x: Tensor, labels: Tensor) -> Tensor:
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


# --- what is on disk ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dataset", "first_class", "last_class"),
    [
        ("mnist", "MNIST", "0", "9"),
        ("fashion", "FashionMNIST", "T-shirt/top", "Ankle boot"),
        ("kmnist", "KMNIST", "o", "wo"),
    ],
)
def test_each_data_set_loads_from_its_own_folder(
    name, dataset, first_class, last_class, root, capsys
):
    fill(root, dataset=dataset)
    images = load_images(name)
    check_pattern(images)
    assert images.name == name
    assert len(images.class_names) == 10
    assert (images.class_names[0], images.class_names[-1]) == (first_class, last_class)
    assert printed(capsys) == ""


def test_whole_files_are_only_read(root):
    fill(root)

    def state():  # a folder's time betrays files that come and go
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in root.rglob("*")}

    before = state()
    check_pattern(load_images("mnist"))
    assert state() == before


def test_data_folder_by_default_is_in_the_project(monkeypatch):
    monkeypatch.delenv("VAE_LESSON_DATA")
    assert sources.data_root() == Path(__file__).parents[1] / "data"


@pytest.mark.parametrize("dataset", ["MNIST", "FashionMNIST", "KMNIST"])
def test_the_checksums_are_those_of_the_real_files(dataset):
    assert sorted(REAL_CHECKSUMS[dataset]) == sorted(FILES)
    raw = Path(REAL_DATA or "", dataset, "raw")
    if not REAL_DATA or not (raw / FILES[0]).is_file():
        pytest.skip(f"VAE_LESSON_DATA names no folder with the real {dataset}")
    for file, checksum in REAL_CHECKSUMS[dataset].items():
        assert hashlib.md5((raw / file).read_bytes()).hexdigest() == checksum


def test_files_of_torchvisions_old_layout_do_not_pass_unchecked(root):
    processed = fill(root).parent / "processed"
    processed.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(3, 28, 28).byte(), torch.zeros(3).long()), processed / name)
    check_pattern(load_images("mnist"))


# --- the download ---------------------------------------------------------------------------------


def test_download_then_disk(root, capsys):
    with mirrors(serving(PACKED)) as [asked]:
        images = load_images("mnist")
        assert asked == ARCHIVES
    assert images.name == "mnist"
    check_pattern(images)
    assert files(root) == sorted(FILES)
    for file, content in WHOLE.items():
        assert (root / "MNIST" / "raw" / file).read_bytes() == content
    check_pattern(load_images("mnist"))  # the server is gone
    assert printed(capsys) == ""


def one_bit_wrong(request, name):
    send(request, PACKED[name][:-1] + bytes([PACKED[name][-1] ^ 1]))


def cut_short(request, name):
    send(request, PACKED[name][:-1], length=len(PACKED[name]))


def login_page(request, name):
    send(request, b"<html>Please log in to the network</html>")


@pytest.mark.parametrize("bad", [serving({}), one_bit_wrong, cut_short, login_page])
def test_a_bad_mirror_is_named_and_the_next_one_asked(bad, root, offline, capsys):
    with mirrors(bad):
        assert offline()
        assert f"downloaded ({MNIST.mirrors[0]}{ARCHIVES[0]}: " in printed(capsys)
        assert not root.exists()
    with mirrors(bad, serving(PACKED)) as asked:
        check_pattern(load_images("mnist"))
    assert asked == [ARCHIVES, ARCHIVES] and printed(capsys) == ""


def test_every_failure_is_named_in_one_line(offline, closed_address, capsys):
    with mirrors(serving({})):
        MNIST.mirrors.append(closed_address)
        assert offline()
        refused = f"<urlopen error [Errno {errno.ECONNREFUSED}] {os.strerror(errno.ECONNREFUSED)}>"
        first, second = (mirror + ARCHIVES[0] for mirror in MNIST.mirrors)
        reason = f"{first}: HTTP Error 404: Not Found; {second}: {refused}"
        assert capsys.readouterr().out == fell_back(reason) + "\n"
        with pytest.raises(OSError, match="404"):
            load_images("mnist", fall_back=False)


def test_unreachable_server_means_the_offline_default_on_the_device_asked_for():
    images = load_images("mnist", device="meta")  # not faked, for once
    assert images.name == "digits" and images.train.shape == (60_000, 28, 28)
    for x in (images.train, images.train_labels, images.test, images.test_labels):
        assert x.device.type == "meta"


@pytest.mark.parametrize("existing", [[], ["MNIST"], ["MNIST", "raw"]])
def test_looking_for_files_makes_no_folder(existing, root, offline):
    if existing:
        root.joinpath(*existing).mkdir(parents=True)
    before = list(root.parent.rglob("*"))
    assert offline()
    assert list(root.parent.rglob("*")) == before


def test_a_folder_that_cannot_be_made_means_the_offline_default(
    tmp_path, offline, monkeypatch, capsys
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VAE_LESSON_DATA", str(tmp_path / "file"))
    assert offline()
    out = printed(capsys)
    assert out.startswith("'mnist' is not on disk") and str(tmp_path / "file") in out


def test_what_came_is_kept_and_only_the_rest_is_downloaded(root, offline):
    with mirrors(serving({name: PACKED[name] for name in ARCHIVES[:3]})):
        assert offline()
    assert files(root) == sorted(FILES[:3])
    with mirrors(serving(PACKED)) as [asked]:
        check_pattern(load_images("mnist"))
    assert asked == ARCHIVES[3:]


def test_an_archive_of_something_else_never_passes(root, offline, monkeypatch):
    # The right checksum, but not MNIST: no header, no images.
    other = {**PACKED, ARCHIVES[0]: gzip.compress(b"something else")}
    resources = [(name, hashlib.md5(archive).hexdigest()) for name, archive in other.items()]
    monkeypatch.setattr(MNIST, "resources", resources)
    with mirrors(serving(other)):
        assert offline()
    assert files(root) == sorted(FILES[1:])


def test_two_at_once_do_not_meet(root):
    both = threading.Barrier(2, timeout=20)

    def slow(request, name):  # until the other is there too
        if name == ARCHIVES[0]:
            both.wait()
        send(request, PACKED[name])

    with mirrors(slow), ThreadPool(2) as threads:
        for images in threads.map(load_images, ["mnist", "mnist"]):
            check_pattern(images)
    assert files(root) == sorted(FILES)


# --- damage on disk -------------------------------------------------------------------------------


def is_named(path: Path) -> str:
    return f"{path} is damaged (wrong checksum): it is fetched again."


@pytest.mark.parametrize("damage", ["cut", "one bit"])
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_named_and_fetched_again(file, damage, root, offline, capsys):
    path, content = fill(root) / file, WHOLE[file]
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) * (damage == "one bit"))
    assert offline()  # the mirror is gone: no damaged file is taken
    assert printed(capsys).startswith(f"{is_named(path)} {fell_back('')[:50]}")
    with mirrors(serving(PACKED)) as [asked]:
        check_pattern(load_images("mnist"))
    assert asked == [f"{file}.gz"]  # the others are whole and left alone
    assert printed(capsys) == is_named(path)


@pytest.mark.parametrize("state", ["damaged", "missing"])
def test_a_file_is_made_again_from_the_archive_beside_it(state, root, capsys):
    path = fill(root, WHOLE | PACKED) / FILES[1]
    path.write_bytes(b"half")
    if state == "missing":
        path.unlink()
    check_pattern(load_images("mnist"))  # no mirror is needed
    assert printed(capsys) == (is_named(path) if state == "damaged" else "")


@pytest.mark.parametrize("state", ["damaged", "missing"])
def test_a_folder_that_cannot_be_written_is_named_with_its_file(
    state, offline, monkeypatch, capsys
):
    with tempfile.TemporaryDirectory() as folder:  # not pytest's, which only its owner may enter
        monkeypatch.setenv("VAE_LESSON_DATA", folder)
        raw = fill(Path(folder))
        path = raw / FILES[3]
        path.write_bytes(path.read_bytes()[:-1])
        if state == "missing":
            path.unlink()
        for place in (Path(folder), raw.parent, raw):
            place.chmod(0o555)
        is_root = os.geteuid() == 0
        try:
            if is_root:  # who may write everywhere: be nobody for once
                os.setresuid(65534, 65534, 0)
            assert offline()
        finally:
            if is_root:
                os.setresuid(0, 0, 0)
            raw.chmod(0o755)
    assert printed(capsys) == fell_back(f"{path} is {state}, and its folder cannot be written")


# --- a mirror that takes too long -----------------------------------------------------------------


def silent(request, name):
    request.server.closing.wait(60)


def stall(request, name):
    send(request, PACKED[name][:50], length=len(PACKED[name]))
    request.server.closing.wait(60)


def trickle(request, name):
    """Send a byte every 20 ms, so that a reader who waits for the next one never waits long."""
    send(request, b"", length=1 << 20)
    while not request.server.closing.wait(0.02):
        request.wfile.write(b"0")


@pytest.mark.parametrize(
    ("answer", "patience", "time_limit"),
    [(silent, 0.5, 60), (silent, 60, 0.5), (stall, 1, 1.5), (trickle, 1, 1.5)],
)
def test_a_mirror_that_takes_too_long_is_given_up(
    answer, patience, time_limit, root, offline, monkeypatch, capsys
):
    monkeypatch.setattr(mnist, "ANSWER_SECONDS", patience)
    least = min(patience, time_limit) if answer is silent else time_limit
    with mirrors(answer) as [asked]:
        start = time.monotonic()
        assert offline(time_limit=time_limit)
        assert least <= time.monotonic() - start < SOON
    assert asked == ARCHIVES[:1]
    assert printed(capsys) == fell_back("timed out")
    assert not root.exists()


def test_an_answer_within_patience_may_take_until_the_time_limit(monkeypatch):
    patience_over, list_folder = threading.Event(), os.listdir

    def look(folder):  # which is what follows
        patience_over.set()
        return list_folder(folder)

    def slow(request, name):
        if name != ARCHIVES[0]:
            patience_over.wait(60)
        send(request, PACKED[name])

    monkeypatch.setattr(mnist.os, "listdir", look)
    monkeypatch.setattr(mnist, "ANSWER_SECONDS", 1)
    with mirrors(slow):
        check_pattern(load_images("mnist"))


def test_a_download_that_is_given_up_goes_no_further(root, offline):
    closing = threading.Event()

    def stall(request, name):
        send(request, b"", length=100)
        closing.wait(60)

    with mirrors(stall, serving(PACKED)) as asked:
        assert offline(time_limit=0.5)
        closing.set()  # now it would be the second one's turn
        time.sleep(0.5)
        assert asked[1] == [] and not root.exists()
