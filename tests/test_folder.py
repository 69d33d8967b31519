"""Your own pictures: what is found in a folder, what becomes of each, and what is kept of it."""

import errno
import os
import re
import sys
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder

from vae_lesson import sources
from vae_lesson.sources import load_images, pictures, reading

PROJECT = Path(sources.__file__).parents[2]


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
    """The cache of these tests, and never the user's own; for few pictures too, in one process."""
    monkeypatch.setenv("VAE_LESSON_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(reading, "MANY", 1)
    monkeypatch.setattr(reading, "N_READERS", 0)
    return tmp_path / "data"


def noise(number: int, side: int = 8, colour: bool = True) -> Image.Image:
    """A picture that is like no other."""
    shape = (side, side, 3) if colour else (side, side)
    pixels = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(pixels)


def fill(folder: Path, n: int, first: int = 0, colour: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + n):
        noise(number, colour=colour).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def forty(tmp_path):
    """Forty pictures in colour, of 8×8 pixels."""
    return fill(tmp_path / "mine", 40)


load = partial(load_images, side=8)


def contents(part: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in part}


def n_all(images) -> int:
    return len(images.train) + len(images.test)


def numbers(part: torch.Tensor, n: int = 40) -> list[int]:
    """The numbers of the pictures in colour that a part shows."""
    known = {np.asarray(noise(i)).transpose(2, 0, 1).tobytes(): i for i in range(n)}
    return [known[image.numpy().tobytes()] for image in part]


def same(one, other) -> bool:
    parts = ("train", "train_labels", "test", "test_labels")
    return all(torch.equal(getattr(one, part), getattr(other, part)) for part in parts)


def square(picture: Image.Image, side: int = 8) -> np.ndarray:
    return pictures.prepare(picture, side)[0].astype(int)


def from_file(path: Path, side: int = 8) -> np.ndarray:
    """What becomes of one file, read as a folder is."""
    folder = pictures.Folder(path.parent, side)
    return folder[folder.paths.index(path.name)][0].astype(int)


@pytest.fixture
def prepare(monkeypatch):
    """What prepares a picture, and knows of which ones."""
    monkeypatch.setattr(pictures, "prepare", Mock(wraps=pictures.prepare))
    return pictures.prepare


# --- what is found --------------------------------------------------------------------------------


def test_a_folder_is_a_data_set(forty):
    images = load(str(forty))
    assert images.name == "mine/" and images.class_names == ("mine",)
    assert images.train.dtype == images.test.dtype == torch.uint8
    assert images.train_labels.dtype == images.test_labels.dtype == torch.int64
    assert len(images.train) == len(images.train_labels)
    assert sorted([*numbers(images.train), *numbers(images.test)]) == [*range(40)]
    assert load_images(forty).shape == (3, 32, 32)


def test_subfolders_are_classes_and_what_lies_deeper_is_theirs(tmp_path):
    fill(tmp_path / "animals" / "cats", 60)
    fill(tmp_path / "animals" / "ants" / "red" / "small", 60, first=60)
    fill(tmp_path / "animals", 60, first=120)
    (tmp_path / "animals" / "no pictures").mkdir()
    images = load(tmp_path / "animals")
    assert images.class_names == ("animals", "ants", "cats")
    for part, labels in [(images.train, images.train_labels), (images.test, images.test_labels)]:
        assert labels.tolist() == [(2, 1, 0)[number // 60] for number in numbers(part, 180)]
        assert len(labels[:9].unique()) > 1  # classes are mixed


def test_what_is_packed_twice_over_has_its_classes_below(tmp_path):
    for name in ("cat", "dog"):
        fill(tmp_path / "pets" / "PetImages" / "PetImages" / name, 20)
    assert load(tmp_path / "pets").class_names == ("cat", "dog")
    assert load(tmp_path / "pets" / "PetImages" / "PetImages" / "cat").class_names == ("cat",)


def test_folders_of_a_split_are_said_to_be_taken_for_classes(tmp_path, capsys):
    for i, part in enumerate(("train", "test")):
        fill(tmp_path / part / "cat", 10, first=10 * i)
    assert load(tmp_path).class_names == ("test", "train")
    assert "The folders test and train are taken for classes." in capsys.readouterr().out


def test_what_holds_no_picture_is_no_class(forty, capsys):
    for name in ("__MACOSX", "broken"):
        (forty / name).mkdir()
        (forty / name / "0.png").write_bytes(b"Mac OS X")
    images = load(forty)
    assert images.class_names == ("mine",) and set(images.train_labels.tolist()) == {0}
    assert "1 could not be read and are left out: broken/0.png." in capsys.readouterr().out


def test_names_hidden_files_and_other_files(tmp_path):
    folder = fill(tmp_path / "näme with space", 20)
    noise(50).save(folder / ".hidden.png")
    fill(folder / ".hidden", 1, first=51)
    noise(52).save(folder / "GROSS.JPG", quality=95)
    (folder / "0.png").rename(folder / "été 日本.PNG")
    (folder / "notes.txt").write_text("no picture")
    images = load(folder)
    assert n_all(images) == 21
    assert images.name == "näme with space/"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems know only Unicode")
def test_a_name_can_be_printed_whatever_bytes_it_has(tmp_path, capsys):
    folder = fill(tmp_path / "mine", 20)
    broken = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9 \x1b[2J.png"))
    broken.write_bytes(b"")
    fill(folder / "a\nb", 1, first=20)
    assert load(folder).class_names == ("a\ufffdb", "mine")
    load(folder)
    assert capsys.readouterr().out.encode().count("caf\ufffd \ufffd[2J.png".encode()) == 2


def test_links_in_a_circle_end(tmp_path):
    folder = tmp_path / "mine"
    fill(folder / "a", 10)
    fill(folder / "b", 10, first=10)
    (folder / "a" / "up").symlink_to(folder)
    (folder / "a" / "x").symlink_to(folder / "b")
    (folder / "b" / "y").symlink_to(folder / "a")
    images = load(folder)
    assert images.class_names == ("a", "b")
    assert n_all(images) == 40  # each is reached by two ways


def test_a_subfolder_that_cannot_be_read_is_named(forty, monkeypatch, capsys):
    (forty / "locked").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert len(load(forty).test) > 0
    assert "1 could not be read and are left out: locked." in capsys.readouterr().out


def test_broken_files_are_counted_and_named(tmp_path, monkeypatch, capsys, recwarn):
    folder = fill(tmp_path / "mine", 20)
    whole = (folder / "0.png").read_bytes()
    (folder / "a cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "b empty.jpg").write_bytes(b"")
    (folder / "c text.gif").write_text("no picture")
    (folder / "d gone.png").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "e pipe.png")
    Image.new("L", (100, 100)).save(folder / "a bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # over 50 Pillow warns, over 100 it refuses
    line = (
        "6 could not be read and are left out: a bomb.png (over 100 pixels), a cut.png, "
        "b empty.jpg, c text.gif, d gone.png and 1 more."
    )
    for _ in range(2):  # the second time from the cache
        assert n_all(load(folder)) == 20
        assert line in capsys.readouterr().out
    assert not recwarn.list


def test_few_pictures_are_said_to_be_few_and_too_few_refused(tmp_path, capsys):
    folder = fill(tmp_path / "mine", 19)
    (folder / "broken.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no picture")
    why = r"mine has 19 .* of at least 20. 1 could not .* broken.png. 1 other files are left out"
    with pytest.raises(ValueError, match=why):
        load(folder)
    fill(folder, 1, first=19)
    load(folder)
    assert "20 pictures are few: a model learns them by heart." in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has 0 pictures"):
        load(tmp_path / "empty")


# --- what becomes of each -------------------------------------------------------------------------


def test_the_middle_is_cut_out_and_resized_without_aliasing():
    stripes = np.zeros((64, 128, 3), np.uint8)
    stripes[:, 32:96:2] = 255  # finer than the small picture can show: they become grey
    small = square(Image.fromarray(stripes))
    assert small.shape == (8, 8)
    assert np.abs(small[:, 1:-1] - 127.5).max() < 8


@pytest.mark.parametrize("form", ["folder", "array", "tensor"])
@pytest.mark.parametrize(
    ("kind", "low", "high", "black", "white"),
    [
        (np.float32, 0, 0.2, 0, 1),
        (np.float32, -0.01, 1.01, 0, 1),  # an overshoot, as resampling makes it
        (np.float32, 0, 255, 0, 255),
        (np.float32, 0, 16, 0, 16),
        (np.float32, -1, 1, -1, 1),
        (np.int32, 0, 200, 0, 255),
        (np.int32, 0, 400, 0, 400),
        (np.int32, -1024, 3071, -1024, 3071),
        (np.uint16, 0, 60_000, 0, 65_535),
        (np.uint16, 0, 4000, 0, 4095),
        (np.uint8, 0, 100, 0, 255),
        (np.uint8, 0, 7, 0, 7),  # a mask's numbers
    ],
)
def test_black_and_white_are_decided_for_all_pictures_together(
    form, kind, low, high, black, white, tmp_path, capsys
):
    ramp = np.repeat(np.linspace(low, high, 8)[None], 8, axis=0)
    some = np.stack([ramp * brightness for brightness in np.linspace(0.1, 1, 30)]).astype(kind)
    if form == "folder":
        for i, each in enumerate(some):
            Image.fromarray(each).save(tmp_path / f"{i}.tif")
    images = load({"folder": tmp_path, "array": some, "tensor": torch.from_numpy(some)}[form])
    expected = (255 * (some.astype(float) - black) / (white - black)).clip(0, 255).round()
    assert contents(images.train) | contents(images.test) == set(
        map(np.ndarray.tobytes, expected.astype(np.uint8))
    )
    usual = {"float32": (0, 1), "uint16": (0, 65_535)}.get(kind.__name__, (0, 255))
    said = f"in all of them {black} is black and {white} white."
    assert (said in capsys.readouterr().out) == ((black, white) != usual)


def test_no_number_is_black():
    picture = np.full((8, 8), 0.5, np.float32)
    picture[0] = np.nan
    assert [row[0] for row in square(Image.fromarray(picture))[:2]] == [0, 128]


def test_a_photo_stands_as_the_camera_stood(tmp_path):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8] = 255, 0, 0  # red above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° to the right
    Image.fromarray(pixels).save(tmp_path / "photo.jpg", exif=exif, quality=95)
    red = from_file(tmp_path / "photo.jpg")[0]
    assert red[:, :3].max() < 50 and red[:, -3:].min() > 200


@pytest.mark.parametrize(("ink", "ground"), [(0, 255), (128, 255), (255, 0), (220, 0)])
def test_transparent_pictures_are_put_on_what_shows_them(ink, ground, tmp_path, capsys):
    for i in range(20):
        pixels = np.full((8, 8, 4), ink, np.uint8)
        pixels[..., 3] = 255 * (np.asarray(noise(i, colour=False)) > 128)
        picture = Image.fromarray(pixels)
        # Those of a palette too
        (picture.quantize() if i % 2 else picture).save(tmp_path / f"{i}.png")
    images = load(tmp_path)
    assert set(images.train.flatten().tolist()) == {ink, ground}
    assert ("20 transparent pictures are light" in capsys.readouterr().out) == (ground == 0)


def test_what_is_opaque_or_empty_stays_as_it_is():
    for alpha in (0, 255):
        light = Image.new("RGBA", (8, 8), (240, 240, 240, alpha))
        assert square(light).min() == (240 if alpha else 255)


def test_cmyk_palettes_and_black_and_white():
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    for mode in ("CMYK", "P", "YCbCr", "HSV"):
        small = square(red.convert(mode))
        assert np.abs(small[:, 4, 4] - [255, 0, 0]).max() <= 3
    assert square(Image.new("1", (8, 8), 1)).min() == 255


def test_a_large_jpeg_is_read_as_small_as_it_is_needed(tmp_path, prepare):
    noise(0, side=4).resize((1024, 1024)).save(tmp_path / "large.jpg")
    small = from_file(tmp_path / "large.jpg", side=32)
    assert prepare.call_args.args[0].size == (128, 128)
    with Image.open(tmp_path / "large.jpg") as picture:
        assert np.abs(small - square(picture, 32)).max() < 8


# --- grey or colour -------------------------------------------------------------------------------


def test_grey_pictures_stay_grey_whatever_their_format(tmp_path):
    folder = fill(tmp_path / "mine", 20, colour=False)
    for number in range(20, 30):
        noise(number, colour=False).convert("RGB").save(folder / f"{number}.webp")
    assert load(folder).shape == (1, 8, 8)
    assert load(folder, colour=True).shape == (3, 8, 8)


def test_one_in_colour_makes_all_coloured(tmp_path):
    folder = fill(tmp_path / "mine", 20, colour=False)
    noise(20).save(folder / "coloured.png")
    images = load(folder)
    assert images.shape == (3, 8, 8)
    assert (images.train == images.train[:, :1]).all((1, 2, 3)).sum() >= len(images.train) - 1


def test_grey_can_be_asked_for_and_changes_no_side(forty, capsys):
    coloured, grey = load(forty), load(forty, colour=False)
    assert grey.shape == (1, 8, 8)
    for part in ("train", "test"):
        images = getattr(grey, part).numpy().astype(int)
        assert len(images) == len(getattr(coloured, part))
        for number in numbers(getattr(coloured, part)):
            expected = np.asarray(noise(number).convert("L"))
            assert np.abs(images - expected).max((1, 2)).min() <= 1  # one of them is this picture
    assert "made grey" not in capsys.readouterr().out


def test_colour_found_late_is_made_grey_and_said(tmp_path, capsys):
    folder = fill(tmp_path / "mine", 150, colour=False)
    noise(200).save(folder / "10.png")  # the third by name of 150, of which 100 are looked at
    assert load(folder).shape == (1, 8, 8)
    said = capsys.readouterr().out
    assert "1 of 150 pictures are in colour" in said and "colour=True keeps their colour" in said


# --- training and test ----------------------------------------------------------------------------


def test_one_in_ten_is_for_testing(tmp_path):
    images = load(fill(tmp_path / "mine", 400))
    assert 20 <= len(images.test) <= 65
    assert not contents(images.train) & contents(images.test)


def test_a_picture_stays_on_its_side(tmp_path):
    folder = fill(tmp_path / "mine", 100)
    before = load(folder)
    for number in range(100):
        (folder / f"{number}.png").rename(folder / f"other{number}.png")
        noise(number).save(folder / f"copy{number}.png")
    fill(folder, 100, first=100)
    after = load(folder)
    assert n_all(after) == 300
    assert contents(before.train) <= contents(after.train)
    assert contents(before.test) <= contents(after.test)


def test_no_side_is_empty(tmp_path):
    folder = fill(tmp_path / "mine", 20)
    for seed in range(20):  # by chance alone, 1 in 8 of them would have no test picture
        images = load(folder, seed=seed)
        assert len(images.test) >= 1 and len(images.train) >= 10
        assert not contents(images.train) & contents(images.test)


def test_two_pictures_many_times_are_parted_and_one_is_refused(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for number in range(30):
        noise(0).save(folder / f"{number}.png")
    with pytest.raises(ValueError, match="the same picture 30 times"):
        load(folder)
    noise(1).save(folder / "other.png")
    images = load(folder)
    assert len(contents(images.train)) == len(contents(images.test)) == 1


def test_sides_and_order_are_those_of_earlier_versions(forty):
    images = load(forty)
    assert numbers(images.train)[:10] == [19, 33, 12, 30, 3, 10, 25, 1, 18, 29]
    assert numbers(images.test) == [15, 4, 11]
    assert numbers(load(forty, seed=1).test) == [25, 36, 21, 12, 37, 11, 0]


# --- what is kept ---------------------------------------------------------------------------------


def test_the_second_time_no_picture_is_read(forty, prepare):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = load(forty)
    before = prepare.call_count
    assert before > 0 and torch.equal(torch.get_rng_state(), state)
    again = load(forty)
    assert same(again, first) and prepare.call_count == before
    again.train.zero_()  # reaches neither the cache nor what else is mapped from it
    assert same(load(forty), first)


CHANGES = {"added": 41, "removed": 39, "changed": 40}  # and how many pictures there are then


@pytest.mark.parametrize("change", [*CHANGES, {"side": 16}, {"colour": False}, {"seed": 1}])
def test_other_files_or_choices_are_read_anew(change, forty, prepare):
    load(forty)
    before, choices = prepare.call_count, change if isinstance(change, dict) else {}
    if change == "added":
        fill(forty, 1, first=40)
    elif change == "removed":
        (forty / "0.png").unlink()
    elif change == "changed":
        noise(50).save(forty / "0.png")
    images = load(forty, **choices)
    assert prepare.call_count > before and n_all(images) == (40 if choices else CHANGES[change])


def test_few_pictures_are_read_each_time_and_leave_no_cache(forty, data_folder, monkeypatch):
    monkeypatch.setattr(reading, "MANY", 500)
    assert same(load(forty), load(forty))
    assert not data_folder.exists()


def test_the_old_cache_is_replaced(forty, data_folder):
    load(forty)
    before = {path.name for path in (data_folder / "pictures").iterdir()}
    fill(forty, 1, first=40)
    load(forty)
    assert {path.name for path in (data_folder / "pictures").iterdir()} == before
    assert {path.split(".")[1] for path in before} == {"json", "pixels", "lock"}


@pytest.mark.parametrize("ending", ["json", "pixels"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_cache_is_made_anew(ending, damage, forty, data_folder):
    pixels = load(forty).train.clone()
    (path,) = (data_folder / "pictures").glob(f"*.{ending}")
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:100])
    assert torch.equal(load(forty).train, pixels)


def test_an_interrupt_leaves_nothing_half(forty, data_folder, monkeypatch):
    whole, pixels = load(forty), np.zeros((3, 8, 8), np.uint8)
    fill(forty, 60, first=40)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pictures, "prepare", Mock(side_effect=[*60 * [pixels], KeyboardInterrupt]))
        load(forty)
    assert not list((data_folder / "pictures").glob("*.part"))
    images = load(forty)
    assert n_all(images) == 100
    assert contents(whole.train) <= contents(images.train)


@pytest.mark.parametrize("trouble", ["no folder", "full disk"])
def test_without_a_cache_the_pictures_are_read_into_memory(
    trouble, forty, tmp_path, monkeypatch, capsys
):
    expected = load(forty)
    monkeypatch.setenv("VAE_LESSON_DATA", str(tmp_path / "other"))
    if trouble == "no folder":
        (tmp_path / "other").write_text("")
    else:
        full = open("/dev/full", "wb")  # noqa: SIM115  the package closes it
        monkeypatch.setattr(reading, "open", lambda *args: full, raising=False)
    capsys.readouterr()
    images = load(forty)
    assert same(images, expected)
    said = capsys.readouterr().out
    assert "cannot be written" in said and "into memory" in said
    images.train.zero_()  # is its own


def test_pictures_larger_than_memory_can_be_read(forty, monkeypatch, recwarn):
    expected, modes, memmap = load(forty), [], np.memmap

    def short_of_memory(path, mode, **options):
        modes.append(mode)
        if mode == "c":
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return memmap(path, mode=mode, **options)

    monkeypatch.setattr(np, "memmap", short_of_memory)
    assert same(load(forty), expected)
    assert modes == ["c", "r"] and not recwarn.list


def test_many_pictures_are_read_by_several_processes(forty, tmp_path, monkeypatch):
    few = load(forty)
    monkeypatch.setattr(reading, "N_READERS", 2)
    monkeypatch.setenv("VAE_LESSON_DATA", str(tmp_path / "other"))
    monkeypatch.setattr(reading, "DataLoader", Mock(wraps=reading.DataLoader))
    assert same(load(forty), few)
    assert reading.DataLoader.call_args.kwargs["num_workers"] == 2


def test_of_two_at_once_one_reads(forty, prepare):
    with ThreadPool(2) as threads:
        one, other = threads.map(load, [forty, forty])
    assert same(one, other)
    assert prepare.call_count == 41  # the first one for its colour too


# --- tensors, arrays and data sets ----------------------------------------------------------------


def coloured(n: int = 40, side: int = 8) -> np.ndarray:
    return np.stack([np.asarray(noise(i, side)) for i in range(n)])


class Items(Dataset):
    def __init__(self, items, classes=None):
        self.items = items
        if classes is not None:
            self.classes = classes

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class HuggingFaces:
    """A data set that is none of torch's, its items dictionaries."""

    def __init__(self):
        self.features = {"image": None, "label": Mock(names=["cat", "dog"])}

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return {"image_id": 7, "image": noise(index), "label": index % 2}


FIRST = np.ascontiguousarray(coloured().transpose(0, 3, 1, 2))
FORMS = {
    "tensor": torch.from_numpy(FIRST),
    "array": FIRST,
    "channels last": coloured(),
    "whole numbers of any kind": FIRST.astype(np.int64),
    "floats": torch.from_numpy(FIRST) / 255,
    "floats from -1 to 1": torch.from_numpy(FIRST) / 127.5 - 1,
    "floats to 255": FIRST.astype(np.float16),
    "data set": TensorDataset(torch.from_numpy(FIRST)),
    "data set of pictures": Items([noise(i) for i in range(40)]),
    "loader": DataLoader(TensorDataset(torch.from_numpy(FIRST) / 255), batch_size=8),
    "pictures": [noise(i) for i in range(40)],
    "pictures and labels": (FIRST, np.zeros(40)),
    "Keras's two": ((FIRST[:30], np.zeros(30)), (FIRST[30:], np.zeros(10))),
    "columns": {"image": [noise(i) for i in range(40)], "label": 40 * [3]},
    "Hugging Face": HuggingFaces(),
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_give_the_same_images(form, forty):
    expected, images = load(forty), load(FORMS[form])
    assert images.shape == (3, 8, 8)
    assert images.class_names == ("cat", "dog") or len(images.class_names) == 1
    assert contents(images.train) == contents(expected.train)
    assert contents(images.test) == contents(expected.test)


def test_paths_and_yes_or_no(forty):
    assert same(load(sorted(forty.iterdir())), load([*map(str, sorted(forty.iterdir()))]))
    grey = coloured()[..., 0]
    assert same(load(grey > 99), load(np.uint8(255) * (grey > 99)))


def test_files_of_arrays_and_of_numbers(tmp_path, monkeypatch):
    grey, labels = coloured()[..., 0], np.arange(40)[:, None] % 3
    rows = np.hstack([labels, grey.reshape(40, -1)])
    header = ",".join(["label", *(f"pixel{i}" for i in range(64))])
    save = partial(np.savetxt, fmt="%d", delimiter=",", comments="")
    save(tmp_path / "kaggle.csv", rows, header=header)
    save(tmp_path / "no header.csv", rows)
    marked = b"\xef\xbb\xbf" + (tmp_path / "no header.csv").read_bytes()
    (tmp_path / "mark.csv").write_bytes(marked)
    save(tmp_path / "label last.CSV", np.roll(rows, -1, axis=1), header=f"{header[6:]},label")
    np.savez(tmp_path / "two.npz", grey, labels)
    parts = {"train": slice(20), "val": slice(20, 25), "test": slice(25, 40)}
    medmnist = {f"{part}_images": grey[places] for part, places in parts.items()}
    medmnist |= {f"{part}_labels": labels[places] for part, places in parts.items()}
    np.savez(tmp_path / "medmnist.npz", **medmnist)
    np.savez(tmp_path / "keras.npz", x_train=grey[:30], x_test=grey[30:], y_test=labels[30:])
    monkeypatch.chdir(tmp_path)
    expected = load_images((grey, labels))
    assert expected.class_names == ("0", "1", "2") and expected.shape == (1, 8, 8)
    for name in (
        "kaggle.csv",
        "no header.csv",
        "mark.csv",
        "label last.CSV",
        "two.npz",
        "medmnist.npz",
    ):
        images = load_images(name)
        assert images.name == name and same(images, expected)
    assert load_images("keras.npz").class_names == ("0", "1", "2", "unlabelled")
    np.save(tmp_path / "plain.npy", grey)
    save(tmp_path / "pixels only.csv", rows[:, 1:], header=header[6:])
    for name in ("plain.npy", "pixels only.csv"):
        images = load_images(Path(name))
        assert images.class_names == (name,) and torch.equal(images.test, expected.test)


def test_an_array_keeps_its_side_unless_another_is_asked_for():
    grey = torch.from_numpy(coloured(30, side=12)[..., 0].copy())
    assert load_images(grey).shape == (1, 12, 12)
    assert load_images(grey[:, None]).shape == (1, 12, 12)
    assert load_images(grey, side=np.int64(6), colour=True).shape == (3, 6, 6)


def test_a_data_set_brings_its_labels_and_classes():
    items = [(noise(i, colour=False), torch.tensor(i % 3)) for i in range(40)]
    named = load(Items(items, classes=["a", "b", "c", "d"]))
    assert named.name == "Items" and named.class_names == ("a", "b", "c", "d")
    numbered = load(Items([(picture, np.array([5 * label])) for picture, label in items]))
    assert numbered.class_names == ("0", "5", "10") and same(named, numbered)
    spoken = load(Items([(picture, "abc"[label]) for picture, label in items]))
    assert spoken.class_names == ("a", "b", "c") and same(named, spoken)
    part = load(Subset(Items(items, classes=["a", "b", "c"]), range(30)))
    assert part.class_names == ("a", "b", "c") and n_all(part) == 30
    for image, label in zip(named.train, named.train_labels):
        number = next(i for i in range(40) if np.array_equal(image, items[i][0]))
        assert label == number % 3


def test_what_has_no_label_is_a_class_of_its_own():
    for nothing in (-1, None):
        items = [(noise(i), i % 3 if i % 2 else nothing) for i in range(40)]
        for classes in (["0", "1", "2"], None):
            images = load(Items(items, classes))
            assert images.class_names == ("0", "1", "2", "unlabelled")
            labels = torch.cat([images.train_labels, images.test_labels])
            assert (labels == 3).sum() == 20
        assert load(Items([(noise(i), nothing) for i in range(40)])).class_names == ("Items",)


def test_a_broken_file_in_a_data_set_is_named_and_left_out(forty, capsys):
    (forty / "a" / "x").mkdir(parents=True)
    fill(forty / "cats", 20)
    for name, content in {"cut": (forty / "0.png").read_bytes()[:99], "empty": b""}.items():
        (forty / "cats" / f"{name}.png").write_bytes(content)
    (forty / "a" / "x.png").write_bytes((forty / "0.png").read_bytes())
    images = load(ImageFolder(forty))
    assert n_all(images) == 21 and images.class_names == ("a", "cats")
    said = capsys.readouterr().out
    assert f"2 could not be read and are left out: {forty}/cats/cut.png (image file is t" in said
    assert f"{forty}/cats/empty.png (cannot identify image file" in said
    load([*sorted((forty / "cats").iterdir())])
    assert "left out: number 20 (image file is truncated" in capsys.readouterr().out


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(30, 8, 9), (30, 3, 8, 9), (30, 8, 8, 4), (64,), (0, 8, 8), ()])
def test_arrays_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"must be \((N, side|h, w).* got "):
        load_images(torch.zeros(shape, dtype=torch.uint8))


def test_data_sets_that_cannot_be_used():
    items = [(noise(i), {"box": 1}) for i in range(30)]
    with pytest.raises(ValueError, match=r"a label must be a whole number.* got \{'box': 1\}"):
        load(Items(items))
    with pytest.raises(ValueError, match=r"a label must be a whole number or a name, got 0\.5"):
        load(Items([(noise(i), i + 0.5) for i in range(30)]))
    with pytest.raises(ValueError, match=r"must be called image, img.* got box, picture"):
        load(Items([{"box": 1, "picture": noise(i)} for i in range(30)]))
    with pytest.raises(ValueError, match=r"Pillow's, or a tensor or array of numbers, got object"):
        load(coloured().astype(object))
    with pytest.raises(ValueError, match="has names and numbers as labels: use one of them"):
        load(Items([(noise(i), "a" if i % 2 else 1) for i in range(30)]))
    with pytest.raises(ValueError, match="has 1 classes, but labels from 0 to 2"):
        load(Items([(noise(i), i % 3) for i in range(30)], classes=["a"]))
    for empty in (Items([]), Dataset()):
        with pytest.raises(ValueError, match="with a length over 0"):
            load(empty)


def test_neither_a_name_nor_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as error:
        load_images("flowers")
    assert str(error.value) == (
        "unknown data set 'flowers': choose one of mnist, fashion, kmnist, digits, photos, "
        "or the path of a folder of pictures or of a file .npz, .npy, .csv "
        f"(there is no folder {tmp_path / 'flowers'} or {PROJECT / 'flowers'})"
    )
    for nothing in (None, {1, 2}):
        with pytest.raises(ValueError, match="or give a tensor, an array, a list of pictures or a"):
            load_images(nothing)
    (tmp_path / "mine.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"mine.zip is another file: an archive must be unpacked"):
        load_images("mine.zip")
    columns = {"a.csv": "id,name,age\n1,2,3\n", "one.csv": "1\n2\n", "empty.csv": ""}
    for name, content in {**columns, "b.npz": "", "c.npy": "no"}.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=f"{re.escape(name)} cannot be read: "):
            load_images(name)


def test_a_number_is_the_name_of_a_folder(tmp_path, monkeypatch):
    fill(tmp_path / "2024", 20)
    monkeypatch.chdir(tmp_path)
    assert load(2024).name == "2024/"
    with pytest.raises(ValueError, match=r"unknown data set '2025'.*there is no folder"):
        load(2025)


def test_a_folder_is_looked_for_here_and_then_in_the_project(tmp_path, monkeypatch):
    fill(tmp_path / "project" / "mine", 20)
    (tmp_path / "work").mkdir()
    monkeypatch.setattr(sources, "project", lambda: tmp_path / "project")
    monkeypatch.chdir(tmp_path / "work")
    assert n_all(load("mine")) == 20
    fill(tmp_path / "work" / "mine", 30)
    assert n_all(load("mine")) == 30


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"side": 0}, "side must be a whole number"),
        ({"side": 2000}, "side must be a whole number"),
        ({"colour": "grey"}, "colour must be True, False or None, got 'grey'"),
        ({"seed": -1}, "seed must be a whole number"),
    ],
)
def test_choices_that_make_no_sense(choices, message):
    with pytest.raises(ValueError, match=message):
        load_images(coloured(), **choices)


@pytest.mark.parametrize("choices", [{"side": 32}, {"colour": True}])
def test_the_known_data_sets_have_their_own_side_and_colour(choices):
    for name in ("digits", "mnist", *["photos"] * ("colour" in choices)):
        with pytest.raises(ValueError, match="side and colour are for your own pictures"):
            load_images(name, **choices)
