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
from PIL import Image, ImageCms
from pretended import pretended
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder

from vae_lesson import data, sources
from vae_lesson.sources import load_images, pictures, reading, split

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


def test_what_holds_no_picture_is_no_class(forty, capsys):
    for name in ("__MACOSX", "broken"):
        (forty / name).mkdir()
        (forty / name / "0.png").write_bytes(b"Mac OS X")
    images = load(forty)
    assert images.class_names == ("mine",) and set(images.train_labels.tolist()) == {0}
    assert "Left out, since they cannot be read (1): broken/0.png." in capsys.readouterr().out


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
    assert "Left out, since they cannot be read (1): locked." in capsys.readouterr().out


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
        "Left out, since they cannot be read (6): a bomb.png (over 100 pixels), a cut.png, "
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
    why = (
        r"mine has 19 .* of at least 20. Left out, since they .* broken.png. Left out, .* names: 1"
    )
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


def test_sides_and_order_are_those_of_earlier_versions():
    images = load(FIRST)
    assert numbers(images.train)[:10] == [11, 27, 4, 24, 2, 3, 34, 18, 1, 10]
    assert numbers(images.test) == [23]
    assert numbers(load(FIRST, seed=1).test) == [18, 2, 1, 27, 22, 7]


def test_another_side_parts_them_alike(tmp_path):
    folder = fill(tmp_path / "mine", 60)
    for number in range(60):  # two JPEGs of the same pixels, in draft mode or not
        noise(number, 64).save(folder / f"{number}.jpg")
    small, large = load_images(folder, side=4), load_images(folder, side=48)
    assert small.test_files == large.test_files and small.train_files == large.train_files
    many = coloured(60, side=16)
    test = [load_images(many, side=side).test for side in (2, 16)]
    assert len(test[0]) == len(test[1])
    expected = pictures.prepare(test[1][0], 2)[0]
    assert np.abs(test[0][0].numpy() - expected.astype(int)).max() <= 1


# --- a split of one's own -------------------------------------------------------------------------


def parted(folder: Path, **parts: int) -> Path:
    """Pictures in subfolders: `Train__cat=20` makes Train/cat with 20."""
    n = 0
    for name, many in parts.items():
        fill(folder / name.replace("__", "/"), many, first=n)
        n += many
    return folder


@pytest.mark.parametrize(
    ("train", "test"),
    [("train", "val"), ("Train", "VALID"), ("training", "Validation"), ("TRAINING", "testing")],
)
def test_folders_train_and_test_are_a_split_with_the_classes_inside(train, test, tmp_path, capsys):
    parts = {f"{train}__cat": 30, f"{train}__dog": 20, f"{test}__cat": 7, f"{test}__dog": 3}
    for folder in (tmp_path / "mine", tmp_path / "packed" / "mine"):
        parted(folder, **parts)
        for _ in range(2):  # the second time from the cache
            images = load(folder if folder.parent == tmp_path else folder.parent)
            assert images.class_names == ("cat", "dog")
            assert sorted(numbers(images.train, 60)) == [*range(50)]
            assert sorted(numbers(images.test, 60)) == [*range(50, 60)]
            labels = [number >= 57 for number in numbers(images.test, 60)]
            assert images.test_labels.tolist() == labels
            said = capsys.readouterr().out
            line = [f"{test}/ is for testing (10)", f"{train}/ is for training (50)"]
            assert f"Your split is kept: {' and '.join(sorted(line))}.\n" in said
    assert load(tmp_path / "mine", seed=3).test.shape == images.test.shape


def test_without_classes_a_split_has_one(tmp_path):
    assert load(parted(tmp_path / "mine", train=20, test=5)).class_names == ("mine",)
    images = load(parted(tmp_path / "kaggle", train__cat=10, train__dog=10, test=5))
    assert images.class_names == ("cat", "dog", "unlabelled")
    assert images.test_labels.tolist() == 5 * [2]


def test_beside_test_pictures_those_of_validation_are_left_out(tmp_path, capsys):
    images = load(parted(tmp_path / "mine", train=20, val=4, test=5))
    assert (len(images.train), len(images.test)) == (20, 5)
    line = "test/ is for testing (5), train/ is for training (20) and val/ is left out (4)."
    assert f"Your split is kept: {line}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("parts", "question"),
    [
        (
            {"train": 20, "val": 5, "cats": 9},
            "mine has train/ and val/. Are they a split? Then cats/ must go elsewhere, or into one "
            "of them. Are they classes? Then give them other names.",
        ),
        ({"train": 20, "val": 5, ".": 9}, "Then what is in none must go elsewhere, or into one of"),
        (
            {"val": 20, "test": 5},
            "mine has test/ and val/. Are they a split? Then what to train on",
        ),
        ({"train": 20, "training": 5}, "Then what to test on is missing."),
        (
            {"cat__train": 20, "cat__val": 5, "dog__train": 2},
            "has train/ and val/ inside other fol",
        ),
    ],
)
def test_what_may_be_a_split_is_a_question(parts, question, tmp_path):
    with pytest.raises(ValueError, match=re.escape(question)):
        load(parted(tmp_path / "mine", **parts))


@pytest.mark.parametrize(
    ("parts", "classes", "line"),
    [
        (
            {"train": 20},
            ("train",),
            "train/ has no other part beside it: 1 in 10 is taken for test",
        ),
        ({"train__cat": 20, "train__dog": 9}, ("cat", "dog"), "train/ has no other part beside it"),
        ({"train": 20, "bus": 9}, ("bus", "train"), "train/ is taken for a class."),
        (
            {"train__cat": 20, "train__dog": 9, "val__cat": 3, "val__Dog": 3},
            ("Dog", "cat", "dog"),
            "There is no test picture of dog.\nThere is no training picture of Dog.",
        ),
        ({"cats": 20, "dogs": 9}, ("cats", "dogs"), ""),
    ],
)
def test_what_is_no_whole_split_is_said(parts, classes, line, tmp_path, capsys):
    assert load(parted(tmp_path / "mine", **parts)).class_names == classes
    said = capsys.readouterr().out
    assert line in said and ("train/" in said) == ("train/" in line or "no test" in line)


def test_a_part_without_a_picture_is_refused(tmp_path):
    folder = parted(tmp_path / "mine", train=20, val=1)
    (folder / "val" / "20.png").write_bytes(b"")
    with pytest.raises(ValueError, match="no picture that can be read in one part of its sp"):
        load(folder)


def test_a_split_of_arrays_is_kept(tmp_path, capsys):
    grey, labels = coloured()[..., 0], np.arange(40)[:, None] % 3
    parts = {"train": slice(20), "val": slice(20, 25), "test": slice(25, 40)}
    medmnist = {f"{part}_images": grey[places] for part, places in parts.items()}
    medmnist |= {f"{part}_labels": labels[places] for part, places in parts.items()}
    np.savez(tmp_path / "medmnist.npz", **medmnist)
    images = load_images(tmp_path / "medmnist.npz")
    assert contents(images.train) == set(map(np.ndarray.tobytes, grey[:20]))
    assert contents(images.test) == set(map(np.ndarray.tobytes, grey[25:]))
    line = "test is for testing (15), train is for training (20) and val is left out (5)."
    assert f"Your split is kept: {line}" in capsys.readouterr().out
    lists = {f"{name}_train": [*grey[:30]] if name == "x" else [*range(30)] for name in "xy"}
    with pytest.raises(ValueError, match=r"Are they a split\? Then what to train on is missing"):
        load({"x_test": grey[:20], "x_val": grey[20:]})
    assert len(load(lists | {"x_test": [*grey[30:]], "y_test": [*range(10)]}).test) == 10


# --- copies ---------------------------------------------------------------------------------------


def test_exact_copies_are_counted_and_stay_on_one_side(forty, capsys):
    load(forty)
    assert "copies" not in capsys.readouterr().out
    for number in (1, 2, 4):
        (forty / f"copy{number}.png").write_bytes((forty / f"{number}.png").read_bytes())
    images = load(forty)
    assert not contents(images.train) & contents(images.test)
    said = capsys.readouterr().out
    assert "Exact copies of other pictures, on the same side: 3.\n" in said
    load(np.concatenate([FIRST, FIRST[:2]]))
    assert "Exact copies of other pictures, on the same side: 2" in capsys.readouterr().out


def test_copies_on_both_sides_of_a_split_are_told(tmp_path, capsys):
    folder = parted(tmp_path / "mine", train=30, val=10)
    for number in (31, 32):
        content = (folder / "val" / f"{number}.png").read_bytes()
        (folder / "train" / f"again{number}.png").write_bytes(content)
    load(folder)
    said = capsys.readouterr().out
    assert "Exact copies of other pictures: 2." in said
    pair = re.search(
        r"Test pictures that are training pictures too: 2, such as (.*) and (.*)\.", said
    )
    assert pair[1][:6] == "val/3." or pair[2] == f"train/again{pair[1][4:]}"
    assert "look like" not in said


def scene(number: int) -> Image.Image:
    """A scene that is like no other, smooth as photographs are."""
    return noise(number, 6).resize((96, 96), Image.BICUBIC)


def test_near_copies_across_a_split_are_told_with_an_example(tmp_path, capsys):
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
    for number in range(60):
        scene(number).save(tmp_path / "train" / f"{number}.png")
    for number in range(60, 80):
        scene(number).save(tmp_path / "val" / f"{number}.png")
    load_images(tmp_path)
    assert "look like" not in capsys.readouterr().out
    scene(5).resize((80, 80)).save(tmp_path / "val" / "again.jpg", quality=60)
    scene(6).crop((1, 0, 96, 95)).save(tmp_path / "val" / "burst.jpg")
    for _ in range(2):  # the second time from the cache
        load_images(tmp_path)
        said = capsys.readouterr().out
        assert "Test pictures that look like a training picture: 2, such as val/" in said
        assert "val/again.jpg and train/5.png. Of a burst, or saved again? " in said or (
            "val/burst.jpg and train/6.png. Of a burst, or saved again? " in said
        )


def test_flat_pictures_are_no_near_copies_of_each_other():
    generator = np.random.default_rng(0)
    flat = [np.full((32, 32), grey) + generator.integers(0, 9, (32, 32)) for grey in (40, 90, 200)]
    looks = [split.look(each.astype(np.uint8)) for each in flat]
    assert split.near_copies(looks, looks) == [None, None, None]
    ramp = split.look(np.repeat(np.arange(32, dtype=np.uint8)[None] * 8, 32, 0))
    assert split.near_copies([*looks, ramp], [ramp, looks[0]]) == [3, None]


# --- names, scales, mirrors -----------------------------------------------------------------------


@pytest.mark.parametrize("many", [1, 500])
def test_images_know_their_files(many, forty, monkeypatch):
    monkeypatch.setattr(reading, "MANY", many)
    (forty / "cats").mkdir()
    for number in range(10):
        (forty / f"{number}.png").rename(forty / "cats" / f"{number}.png")
    (forty / "broken.png").write_bytes(b"")
    for _ in range(2):  # with a cache, the second time from it
        images = load(forty)
        for part, files in [(images.train, images.train_files), (images.test, images.test_files)]:
            assert isinstance(files, tuple)
            for number, file in zip(numbers(part), files, strict=True):
                assert file == os.path.join("cats" * (number < 10), f"{number}.png")


def test_paths_in_a_list_are_files_and_arrays_have_none(forty):
    paths = [forty / f"{number}.png" for number in range(40)]
    for given in (paths, [*map(str, paths)], [(path, 0) for path in paths]):
        images = load(given)
        assert [int(Path(file).stem) for file in images.test_files] == numbers(images.test)
        assert len(images.train_files) == len(images.train)
    assert len(load(ImageFolder(fill(forty / "a", 40).parent)).train_files) > 30
    for given in (FIRST, FORMS["pictures"], FORMS["data set"]):
        images = load(given)
        assert images.train_files == images.test_files == ()


def test_images_know_what_was_black_and_white(tmp_path):
    for i in range(30):
        ramp = np.linspace(0, 100 * i, 64).reshape(8, 8).astype(np.uint16)
        Image.fromarray(ramp).save(tmp_path / f"{i}.tif")
    for _ in range(2):  # the second time from the cache
        images = load(tmp_path)
        assert images.scales["16 bits"] == (0, 4095) and images.scales["8 bits"] == (0, 255)
        for image, file in zip(images.test, images.test_files):
            again = pictures.read(tmp_path / file, 8, images.scales)[0]
            assert np.array_equal(again, image)
    assert load(FIRST).scales == data.Images("", *4 * [torch.zeros(1, 4)], ("",)).scales


def test_a_picture_with_a_profile_is_shown_in_its_own_colours():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    table = profile[:300].replace(b"rXYZ", b"?").replace(b"gXYZ", b"rXYZ").replace(b"?", b"gXYZ")
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    red.info["icc_profile"] = table + profile[300:]
    assert square(red)[1].min() > 200 and square(red)[0].max() < 60  # its red is our green
    red.info["icc_profile"] = b"broken"
    assert square(red)[0].min() == 255 and square(red)[1].max() == 0


def test_heic_and_raw_are_named_with_what_to_do(forty, capsys):
    pictures.know_heic()
    if ".heic" in Image.registered_extensions():
        pytest.skip("pillow-heif is installed")
    for i, name in enumerate(("a.heic", "b.HEIC", "c.cr2", "d.NEF", "notes.txt")):
        (forty / name).write_bytes(bytes([i]))
    line = (
        "Left out: 1 .cr2, 2 .heic and 1 .nef. To have them: pip install pillow-heif and export "
        ".cr2 and .nef as JPEG.\nLeft out, since Pillow opens no such names: 1."
    )
    for _ in range(2):
        load(forty)
        assert line in capsys.readouterr().out
    (forty / "e.cr2").write_bytes(b"")
    load(forty)
    assert "2 .cr2, 2 .heic and 1 .nef" in capsys.readouterr().out


def test_heic_is_read_where_something_can(forty, monkeypatch, capsys):
    pictures.know_heic()
    monkeypatch.setattr(Image, "EXTENSION", dict(Image.registered_extensions()))
    if ".heic" not in Image.EXTENSION:  # else the real one
        known = {"register_heif_opener": lambda: Image.register_extension("PNG", ".heic")}
        monkeypatch.setitem(sys.modules, "pillow_heif", Mock(**known))
        pictures.know_heic.cache_clear()
        (forty / "0.png").rename(forty / "0.HEIC")
    else:
        noise(0).save(forty / "0.heic")
        (forty / "0.png").unlink()
    images = load(forty)
    assert n_all(images) == 40 and "left out" not in capsys.readouterr().out
    assert any("0.heic" in file.lower() for file in images.train_files + images.test_files)


def test_mirrored_training_pictures_come_after_the_split(forty):
    for images in (load(forty), load(forty, colour=False)):
        both, n = data.with_mirrored(images), len(images.train)
        assert torch.equal(both.train[:n], images.train)
        assert torch.equal(both.train[n:], images.train[..., range(7, -1, -1)])
        assert torch.equal(both.train_labels, torch.cat(2 * [images.train_labels]))
        assert both.train_files == images.train_files + images.train_files
        assert torch.equal(both.test, images.test) and both.test_files == images.test_files
        assert both.shape == images.shape
    arrays = data.with_mirrored(load(FIRST))
    assert arrays.train_files == () and len(arrays.train_labels) == len(arrays.train)


@pytest.mark.parametrize("room", [1, 1 << 34])
def test_what_would_fill_a_gpu_stays_on_the_cpu(room, forty, monkeypatch, capsys):
    with pretended("cuda"), monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "mem_get_info", lambda _: (room * 1000, room * 1000))
        images = load(forty, device="cuda")
        kind = "cpu" if room == 1 else "cuda"
        for part in (images.train, images.train_labels, images.test, images.test_labels):
            assert part.device.type == kind
    line = "mine/ would take half of what is free on cuda: the images stay on the CPU, and `fit` "
    assert (line in capsys.readouterr().out) == (room == 1)


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
def test_all_forms_give_the_same_images(form):
    expected, images = load(FIRST), load(FORMS[form])
    assert images.shape == (3, 8, 8)
    assert images.class_names == ("cat", "dog") or len(images.class_names) == 1
    both = contents(images.train) | contents(images.test)
    assert both == contents(expected.train) | contents(expected.test)
    # Other numbers are parted otherwise, and Keras's two are parted already.
    if form not in ("floats", "floats from -1 to 1", "loader", "Keras's two"):
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
    ):
        images = load_images(name)
        assert images.name == name and same(images, expected)
    keras = load_images("keras.npz")
    assert keras.class_names == ("0", "1", "2", "unlabelled") and len(keras.train) == 30
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
    assert f"Left out, since they cannot be read (2): {forty}/cats/cut.png (image file is t" in said
    assert f"{forty}/cats/empty.png (cannot identify image file" in said
    load([*sorted((forty / "cats").iterdir())])
    assert "cats/cut.png (image file is truncated" in capsys.readouterr().out


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
