"""use: a picture to its code and back in another program, and both halves as exported files."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import IMAGES, coloured_folder, new, same_weights, weights
from torch import nn

from vae_lesson import data, evaluate, use
from vae_lesson.adapter import adapt
from vae_lesson.models import VAE, Autoencoder
from vae_lesson.running.saving import load_model, save_model
from vae_lesson.sources import load_images

SHAPE, L = (3, 16, 16), 4


class Own(nn.Module):
    """A learner's network: it convolves, normalises by the batch, and ends in a tanh."""

    def __init__(self):
        super().__init__()
        layers = nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(), nn.Flatten()
        self.body, self.heads = nn.Sequential(*layers), nn.Linear(6 * 64, 2 * L)
        layers = nn.Linear(L, 6 * 64), nn.Unflatten(1, (6, 8, 8)), nn.Upsample(scale_factor=2)
        self.back = nn.Sequential(*layers, nn.Conv2d(6, 3, 3, padding=1), nn.Tanh())

    def encode(self, x):
        return self.heads(self.body(x)).chunk(2, dim=1)

    def decode(self, z):
        return self.back(z)


def made(kind):
    torch.manual_seed(0)
    if kind == "adapted":
        return adapt(Own(), SHAPE, "means", (-1, 1))
    return VAE(L, 32, SHAPE, kind).eval()


def saved(path, images, **options):
    """Return the model and info that a training on these images would have left."""
    torch.manual_seed(0)
    save_model(VAE(L, 8, images.shape, "conv"), path, images, **options)
    return load_model(path, "cpu")


# --- one picture ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_file_has_the_code_that_its_picture_had_in_training(tmp_path, mode):
    folder = tmp_path / "all"
    coloured_folder(folder, n=30, side=120, mode=mode)
    for path in [*folder.iterdir()]:  # a JPEG is read at a part of its size
        Image.open(path).rotate(20).crop((0, 0, 120, 90)).save(path.with_suffix(".jpg"))
        path.unlink()
    images = load_images(folder, side=12)
    model, info = saved(tmp_path / "model.pt", images)
    mu, log_var = evaluate.posteriors(model, images.train)
    for i, name in enumerate(images.train_files[:4]):
        code = use.encode_picture(model, info, folder / name)
        assert [part.shape for part in code] == [(L,), (L,)]
        torch.testing.assert_close(code, (mu[i], log_var[i]))
    code = use.encode_picture(model, info, str(folder / images.test_files[0]))[0]
    torch.testing.assert_close(code, evaluate.codes(model, images.test)[0])


def test_numbers_of_another_kind_are_scaled_as_those_in_training(tmp_path):
    rng, scans = np.random.default_rng(0), tmp_path / "scans"
    scans.mkdir()
    for i in range(30):  # 10 of 16 bits
        pixels = (rng.integers(100, 1024, (20, 20)) // (1 + i % 3)).astype(np.uint16)
        Image.fromarray(pixels).save(scans / f"{i}.png")
    images = load_images(scans, side=20)
    model, info = saved(tmp_path / "model.pt", images)
    assert info["scales"]["16 bits"] == (0, 1023) and info["shape"] == (1, 20, 20)
    path = scans / images.train_files[0]
    wanted = evaluate.codes(model, images.train[:1])[0]
    pixels = np.asarray(Image.open(path))
    for picture in (path, Image.open(path), pixels, torch.from_numpy(pixels.astype(np.int32))):
        if isinstance(picture, torch.Tensor):
            info["scales"]["integers"] = info["scales"]["16 bits"]
        torch.testing.assert_close(use.encode_picture(model, info, picture)[0], wanted)
    usual = use.encode_picture(model, info | {"scales": data.USUAL}, path)[0]
    assert (usual - wanted).abs().max() > 1e-3


def test_a_picture_becomes_grey_or_coloured_as_the_model_has_it(tmp_path):
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (12, 12, 3), np.uint8)
    for n_channels in (1, 3):
        torch.manual_seed(0)
        model, info = VAE(L, 8, (n_channels, 12, 12)), {"shape": (n_channels, 12, 12)}
        info["scales"] = data.USUAL
        for picture in (Image.fromarray(colour), Image.fromarray(colour).convert("L")):
            same = picture.convert("RGB" if n_channels == 3 else "L")
            given = use.encode_picture(model, info, picture)[0]
            torch.testing.assert_close(given, use.encode_picture(model, info, same)[0])
            flat = torch.from_numpy(np.array(same)).reshape(144, n_channels).T.reshape(1, -1)
            torch.testing.assert_close(given, model.encode(flat / 255)[0][0])
            assert use.decode_picture(model, given).mode == same.mode


@pytest.mark.parametrize("kind", ["mlp", "conv", "adapted"])
def test_a_code_becomes_a_picture(kind):
    model, z = made(kind), torch.randn(L)
    picture = use.decode_picture(model, z)
    assert (picture.size, picture.mode) == ((16, 16), "RGB")
    with torch.no_grad():
        x = model.decode_mean(z[None]).reshape(SHAPE)
    wanted = (255 * x).round().byte().movedim(0, 2).numpy()
    for given in (z, z[None], z.double(), z.numpy(), z.tolist()):
        np.testing.assert_array_equal(np.asarray(use.decode_picture(model, given)), wanted)


def test_what_is_no_picture_is_refused(tmp_path):
    model, info = new(), {"shape": (1, 4, 4), "scales": data.USUAL}
    (tmp_path / "odd.jpg").write_text("I am no picture.")
    with pytest.raises(FileNotFoundError, match=r"there is no picture at .*gone\.jpg"):
        use.encode_picture(model, info, tmp_path / "gone.jpg")
    with pytest.raises(FileNotFoundError, match="there is no picture at"):
        use.encode_picture(model, info, tmp_path)
    with pytest.raises(ValueError, match=r"odd\.jpg cannot be read: cannot identify image file"):
        use.encode_picture(model, info, tmp_path / "odd.jpg")
    for given, says in [(IMAGES[:5], r"must be \(h, w\).* got \(5, 4, 4\)"), (None, "NoneType")]:
        with pytest.raises(ValueError, match=f"the picture cannot be read: .*{says}"):
            use.encode_picture(model, info, given)


def test_a_model_without_its_images_is_refused(tmp_path):
    save_model(new(), tmp_path / "model.pt", epochs=2)
    with pytest.raises(ValueError, match=r"save_model\(model, path, images\), and give the info"):
        use.encode_picture(*load_model(tmp_path / "model.pt"), IMAGES[0])


@pytest.mark.parametrize(
    "z, got",
    [
        (torch.zeros(3), r"shape \(3,\)"),
        (torch.zeros(5, 2), r"shape \(5, 2\)"),
        ([0.0], r"shape \(1,\)"),
        (torch.tensor([0, torch.nan]), r"shape \(2,\)"),
        ((torch.zeros(2), torch.zeros(2)), "tuple"),  # all that encode_picture returns
        ("0", "str"),
    ],
)
def test_what_is_no_code_is_refused(z, got):
    with pytest.raises(ValueError, match=f"model is 2 finite numbers, z of one picture: {got}"):
        use.decode_picture(new(), z)


def test_what_is_no_vae_is_refused(tmp_path):
    for call in (
        lambda model: use.encode_picture(model, {}, IMAGES[0]),
        lambda model: use.decode_picture(model, [0.0, 0.0]),
        lambda model: use.export(model, tmp_path / "out"),
    ):
        with pytest.raises(ValueError, match=r"takes a VAE, as load_model or adapter.adapt .* Own"):
            call(Own())
        with pytest.raises(ValueError, match="got a Autoencoder"):
            call(new(Autoencoder))
    assert [*tmp_path.iterdir()] == []


# --- exported files -------------------------------------------------------------------------------

KINDS = ("mlp", "conv", "adapted")
SIZES = (1, 7)
onnxruntime_is_there = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in (*use.ONNX, "onnxruntime")),
    reason="needs onnx, onnxscript and onnxruntime",
)
ELSEWHERE = """
import sys
sys.modules["vae_lesson"] = None  # to import it is an error
import torch
for kind in sys.argv[1:]:
    given, results = torch.load(f"{kind}/given.pt"), []
    for half, batches in given.items():
        program = torch.export.load(f"{kind}/{half}.pt2").module()
        results.append([program(batch) for batch in batches])
    torch.save(results, f"{kind}/results.pt")
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return a folder with each kind's files, and {kind: what its model gives}."""
    folder, wanted = tmp_path_factory.mktemp("exported"), {}
    for kind in KINDS:
        model = made(kind)
        use.export(model.train(), folder / kind)  # in whichever mode
        model.eval()
        generator = torch.Generator().manual_seed(0)
        x = [torch.rand((n, model.input_size), generator=generator) for n in SIZES]
        z = [3 * torch.randn((n, L), generator=generator) for n in SIZES]
        torch.save({"encode": x, "decode": z}, folder / kind / "given.pt")
        with torch.no_grad():
            wanted[kind] = [[*map(model.encode, x)], [*map(model.decode_mean, z)]]
    return folder, wanted


def test_another_process_without_the_package_gets_the_same_numbers(exported):
    folder, wanted = exported
    subprocess.run([sys.executable, "-c", ELSEWHERE, *KINDS], cwd=folder, check=True)
    for kind in KINDS:
        got = torch.load(folder / kind / "results.pt")
        torch.testing.assert_close(got, wanted[kind])


@onnxruntime_is_there
@pytest.mark.parametrize("kind", KINDS)
def test_onnxruntime_gets_the_same_numbers(exported, kind):
    import onnxruntime

    folder, wanted = exported
    given = torch.load(folder / kind / "given.pt")
    names = {"encode": ("x", ["mu", "log_var"]), "decode": ("z", ["x_mean"])}
    for (half, batches), of_half in zip(given.items(), wanted[kind]):
        session = onnxruntime.InferenceSession(folder / kind / f"{half}.onnx")
        name, returned = names[half]
        assert [each.name for each in session.get_outputs()] == returned
        for batch, of_batch in zip(batches, of_half):
            got = session.run(None, {name: batch.numpy()})
            of_batch = of_batch if half == "encode" else [of_batch]
            for one, other in zip(got, of_batch, strict=True):
                torch.testing.assert_close(torch.from_numpy(one), other, rtol=1e-4, atol=1e-5)


@onnxruntime_is_there
def test_four_files_and_the_model_as_it_was(tmp_path, capsys):
    model = made("mlp").double().train()
    before = weights(model)
    paths = use.export(model, tmp_path / "a" / "b")
    names = ["encode.pt2", "encode.onnx", "decode.pt2", "decode.onnx"]
    assert paths == [tmp_path / "a" / "b" / name for name in names]
    assert sorted(paths) == sorted((tmp_path / "a" / "b").iterdir())
    assert same_weights(weights(model), before) and model.training
    assert capsys.readouterr().out == ""


def test_without_onnx_a_line_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(use, "ONNX", ("onnx_of_nobody", "torch"))
    paths = use.export(new(), tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(paths) and len(paths) == 2
    said = "No encode.onnx and decode.onnx: for them, pip install onnx_of_nobody.\n"
    assert capsys.readouterr().out == said


class Looks(Own):
    def encode(self, x):
        return super().encode(x / 255 if x.max() > 1 else x)


class Counts(Own):
    def encode(self, x):
        return self.heads(self.body(x).reshape(len(x), -1)).chunk(2, dim=1)


@pytest.mark.parametrize("network", [Looks, Counts])
def test_a_network_that_cannot_be_followed_is_told_why(tmp_path, network):
    vae = adapt(network(), SHAPE, "means", (-1, 1))
    words = f"cannot follow encode of {network.__name__}: .*len.x., for which x.shape.0. will do"
    with pytest.raises(ValueError, match=words):
        use.export(vae, tmp_path / "out")
    assert [*tmp_path.iterdir()] == []
