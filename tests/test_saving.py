"""saving: models as files, complete or not at all, and no code from a hostile one."""

import contextlib
import errno
import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import DAMAGES, GOOD, Code
from tiny import IMAGES, TEST, new, same_weights, weights
from torch import nn

from vae_lesson import places
from vae_lesson.adapter import adapt
from vae_lesson.data import Images
from vae_lesson.models import VAE, Autoencoder
from vae_lesson.running import saving


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pt"


@pytest.mark.parametrize("kind", [VAE, Autoencoder])
@pytest.mark.parametrize("network", ["linear", "mlp", "deep", "conv"])
def test_save_and_load_give_the_same_model(path, kind, network):
    model = new(kind, 3, 8, 49, network)
    # np.float64 is a float: this is what a mean of a NumPy array gives.
    info = {"dataset": "mnist", "epochs": 3, "lr": (1e-3, 4e-3), "neg_elbo": np.float64(105.5)}
    saving.save_model(model, path, **info)
    torch.manual_seed(77)
    loaded, loaded_info = saving.load_model(path)
    assert type(loaded) is kind and loaded.config == model.config
    assert same_weights(weights(loaded), weights(model))
    assert loaded_info == info
    assert not loaded.training
    x = torch.rand(2, 49)
    assert torch.equal(loaded.encode(x)[0], model.encode(x)[0])
    assert [*path.parent.iterdir()] == [path]


def test_paths_may_be_strings_and_info_may_be_missing(path):
    saving.save_model(new(), str(path))
    assert saving.load_model(str(path))[1] == {}


def test_loading_what_is_not_there_names_the_path(tmp_path, path):
    for absent in (path, tmp_path):
        with pytest.raises(FileNotFoundError) as error:
            saving.load_model(absent)
        assert str(absent) in str(error.value)


# --- what comes with a model ----------------------------------------------------------------------

LABELS = torch.zeros(64, dtype=torch.int64)
SCALES = {"16 bits": (0, np.int64(1023))}
PICTURES = Images("scans/", IMAGES, LABELS, TEST, LABELS[:20], ("a", "b"), scales=SCALES)


def test_images_leave_what_a_picture_needs(path):
    saving.save_model(new(), path, PICTURES, epochs=2, log_scale=torch.tensor(-2.5))
    assert saving.load_model(path)[1] == {
        "dataset": "scans/",
        "shape": (1, 4, 4),
        "class_names": ("a", "b"),
        "scales": {"16 bits": (0, 1023)},
        "epochs": 2,
        "log_scale": -2.5,
    }
    saving.save_model(new(), path, PICTURES, dataset="of mine")
    assert saving.load_model(path)[1]["dataset"] == "of mine"


def test_images_of_another_size_are_refused(path):
    words = "images have 16 values, this model takes 49: give those that it was trained on"
    with pytest.raises(ValueError, match=words):
        saving.save_model(new(input_size=49), path, PICTURES)
    assert not path.exists()


def test_info_is_numbers_words_and_tensors_at_any_depth(path):
    given = {"a": [np.float32(0.5), (np.True_, None)], "b": {"c": np.arange(2)}}
    saving.save_model(new(), path, **given, of_channel=nn.Parameter(torch.ones(3)))
    info = saving.load_model(path)[1]
    assert torch.equal(info.pop("of_channel"), torch.ones(3))
    assert info == {"a": [0.5, (True, None)], "b": {"c": [0, 1]}}
    before = path.read_bytes()
    with pytest.raises(ValueError, match="with numbers, words and tensors, not Linear"):
        saving.save_model(new(), path, layer=nn.Linear(1, 1))
    assert path.read_bytes() == before


# --- networks of one's own ------------------------------------------------------------------------


class Mine(nn.Module):
    def __init__(self, n=16, latent_size=3, extra=False):
        super().__init__()
        self.there, self.back = nn.Linear(n, 2 * latent_size), nn.Linear(latent_size, n)
        self.extra = nn.Linear(1, 1) if extra else None

    def encode(self, x):
        return self.there(x.flatten(1)).chunk(2, dim=1)

    def decode(self, z):
        return self.back(z)


class Yours(Mine):
    pass


@pytest.fixture
def adapted_path(path):
    saving.save_model(adapt(Mine(), (1, 4, 4)), path)
    return path


@pytest.mark.parametrize(
    "network, says",
    [
        (None, "holds the weights of a network of your own, test_saving.Mine, and not its code: "),
        (Yours(), "holds a test_saving.Mine, and network is a Yours: "),
        (Mine, "holds a test_saving.Mine, and network is the class itself: "),
        (Mine(latent_size=2), "other weights than .*there.weight (4, 16) here, (6, 16) there; "),
        (Mine(25), "back.weight (25, 3) here, (16, 3) there; back.bias (25,) here, (16,) there. "),
        (Mine(extra=True), "extra.weight (1, 1) here, missing there; extra.bias (1,) here, "),
    ],
    ids=["none", "another", "class", "code", "pixels", "more"],
)
def test_another_network_is_told_what_to_write(adapted_path, network, says):
    with pytest.raises(ValueError) as error:
        saving.load_model(adapted_path, network=network)
    for part in says.split(".*"):
        assert part in str(error.value)
    write = f"write load_model({str(adapted_path)!r}, network=Mine(...)), made as it was, "
    assert f"{write}for codes of 3 numbers and images of shape (1, 4, 4)" in str(error.value)


def test_a_class_may_move_to_another_module(adapted_path):
    class Mine(globals()["Mine"]):
        __module__ = "elsewhere"

    assert isinstance(saving.load_model(adapted_path, network=Mine())[0].model, Mine)


def test_a_model_of_the_package_takes_no_network(path):
    saving.save_model(new(), path)
    with pytest.raises(ValueError, match="holds a VAE of this package: leave network out"):
        saving.load_model(path, network=Mine())


def test_a_network_that_was_not_adapted_is_told_how(path):
    with pytest.raises(ValueError, match=r"a Mine .* save_model\(adapt\(network, shape\)"):
        saving.save_model(Mine(), path)
    assert not path.exists()


def test_an_adapted_networks_weights_that_are_not_finite_are_damage(path):
    vae = adapt(Mine(), (1, 4, 4))
    nn.init.constant_(vae.model.back.bias, math.nan)
    saving.save_model(vae, path)
    with pytest.raises(ValueError, match=r"damaged .*some weights are NaN or infinite"):
        saving.load_model(path, network=Mine())


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_file_is_not_run(tmp_path, path, how):
    trap = tmp_path / "trap"
    content = {"kind": "VAE", "config": {}, "state": {}, "info": Code(trap)}
    with open(path, "wb") as file:
        torch.save(content, file) if how == "torch" else pickle.dump(content, file, protocol=2)
    with pytest.raises(ValueError, match="damaged or no model of this version of the course"):
        saving.load_model(path)
    assert not trap.exists()
    with contextlib.suppress(RuntimeError):  # a bare pickle is no file of torch.save
        torch.load(path, weights_only=False)  # the trap does work
    assert trap.exists()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_file_is_refused_with_its_name(path, damage):
    saving.save_model(new(), path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"damaged .* remove it and train again") as error:
        saving.load_model(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        torch.ones(3),
        new().state_dict(),
        GOOD | {"kind": "GAN"},
        GOOD | {"config": {"depth": 3}},
        GOOD | {"config": {"latent_size": 0}},
        GOOD | {"config": {"latent_size": 3}},  # the weights are of another size
        GOOD | {"state": None},
        GOOD | {"info": None},
        GOOD | {"kind": "AdaptedVAE"},  # of which class?
    ],
)
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
def test_another_files_content_is_refused_with_its_name(path, content):
    torch.save(GOOD, path)
    saving.load_model(path)
    torch.save(content, path)
    with pytest.raises(ValueError, match="remove it and train again") as error:
        saving.load_model(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_damage(path, value):
    model = new()
    with torch.no_grad():
        model.decoder[-1].bias[0] = value
    saving.save_model(model, path)
    with pytest.raises(ValueError, match=r"damaged .*some weights are NaN or infinite"):
        saving.load_model(path)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))]
)
def test_a_save_that_breaks_leaves_the_old_file_and_is_not_in_the_next_ones_way(
    path, monkeypatch, error
):
    old, first = new(), path.with_name("first.pt")
    saving.save_model(old, path, number=1)
    write_bytes = Path.write_bytes

    def half_a_save(where, content):
        write_bytes(where, content[: len(content) // 2])
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half_a_save)
        for target in (path, first):
            with pytest.raises(type(error)) as raised:
                saving.save_model(new(seed=1), target, number=2)
            if isinstance(error, OSError):  # Python's own has no path
                assert f"No space left on device: '{target}'" in str(raised.value)
    loaded, info = saving.load_model(path)
    assert same_weights(weights(loaded), weights(old)) and info == {"number": 1}
    assert [*path.parent.iterdir()] == [path]
    saving.save_model(new(seed=1), path, number=3)
    assert saving.load_model(path)[1] == {"number": 3}


def test_results_path_is_in_the_folder_of_the_environment_and_makes_none(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_LESSON_RESULTS", str(tmp_path / "a" / "b"))
    assert saving.results_path("x.json") == tmp_path / "a" / "b" / "x.json"
    assert not (tmp_path / "a").exists()
    saving.save_model(new(), saving.results_path("model.pt"))
    assert (tmp_path / "a" / "b" / "model.pt").is_file()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VAE_LESSON_RESULTS", "~/mine")
    assert saving.results_path("x") == tmp_path / "mine" / "x"


@pytest.mark.parametrize("value, wanted", [(None, "results"), ("", "results"), ("mine", "mine")])
def test_relative_places_start_from_the_project(tmp_path, monkeypatch, value, wanted):
    project = tmp_path / "project"
    (project / "notebooks").mkdir(parents=True)
    (project / "pyproject.toml").touch()  # site-packages may have one too
    monkeypatch.setattr(places, "PROJECT", project)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VAE_LESSON_RESULTS", value or "")
    if value is None:
        monkeypatch.delenv("VAE_LESSON_RESULTS")
    # Installed without the project, as from a wheel: never into site-packages.
    assert saving.results_path("x") == tmp_path / wanted / "x"
    (project / "notebooks" / "01_autoencoder.ipynb").touch()
    assert saving.results_path("x") == project / wanted / "x"
