"""saving: models as files, whole or not at all, and no code from a hostile one."""

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
from tiny import (
    new,
    same_weights,
    weights,
)

from vae_lesson import places
from vae_lesson.models import VAE, Autoencoder
from vae_lesson.running import saving

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("kind", [VAE, Autoencoder])
@pytest.mark.parametrize("network", ["linear", "mlp", "deep", "conv"])
def test_save_and_load_give_the_same_model(tmp_path, kind, network):
    model = new(kind, 3, 8, 49, network)
    saving.save_model(model, tmp_path / "model.pt", dataset="mnist", epochs=3, neg_elbo=105.5)
    torch.manual_seed(77)
    loaded, info = saving.load_model(tmp_path / "model.pt")
    assert type(loaded) is kind and loaded.config == model.config
    assert same_weights(weights(loaded), weights(model))
    assert info == {"dataset": "mnist", "epochs": 3, "neg_elbo": 105.5}
    assert not loaded.training
    x = torch.rand(2, 49)
    assert torch.equal(loaded.encode(x)[0], model.encode(x)[0])
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_paths_may_be_strings_and_info_may_be_missing(tmp_path):
    saving.save_model(new(), str(tmp_path / "model.pt"))
    assert saving.load_model(str(tmp_path / "model.pt"))[1] == {}


def test_info_may_be_a_numpy_float(tmp_path):
    # np.float64 is a float: this is what a mean of a NumPy array gives.
    saving.save_model(new(), tmp_path / "model.pt", neg_elbo=np.float64(105.5))
    assert saving.load_model(tmp_path / "model.pt")[1] == {"neg_elbo": 105.5}


def test_loading_what_is_not_there_names_the_path(tmp_path):
    for path in (tmp_path / "absent.pt", tmp_path):
        with pytest.raises(FileNotFoundError) as error:
            saving.load_model(path)
        assert str(path) in str(error.value)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_file_is_not_run(tmp_path, how):
    path, trap = tmp_path / "model.pt", tmp_path / "trap"
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
def test_a_damaged_file_is_refused_with_its_name(tmp_path, damage):
    path = tmp_path / "model.pt"
    saving.save_model(new(), path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"damaged .* remove it and train again") as error:
        saving.load_model(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param([1, 2], id="a list"),
        pytest.param("model", id="a string"),
        pytest.param(new().state_dict(), id="weights alone"),
        pytest.param({**GOOD, "kind": "GAN"}, id="unknown kind"),
        pytest.param(torch.ones(3), id="a tensor"),
        pytest.param({**GOOD, "config": {"depth": 3}}, id="unknown size"),
        pytest.param({**GOOD, "config": None}, id="no sizes"),
        pytest.param({**GOOD, "state": None}, id="no weights"),
        pytest.param({**GOOD, "info": None}, id="no info"),
        pytest.param(
            {**GOOD, "config": {"latent_size": 0}},
            id="bad size",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
def test_another_files_content_is_refused_with_its_name(tmp_path, content):
    path = tmp_path / "model.pt"
    torch.save(content, path)
    with pytest.raises(ValueError, match="remove it and train again") as error:
        saving.load_model(path)
    assert str(path) in str(error.value)


def test_weights_of_another_shape_are_refused(tmp_path):
    model = new(latent_size=2)
    model.config["latent_size"] = 3
    saving.save_model(model, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"do not fit its configuration .*'latent_size': 3"):
        saving.load_model(tmp_path / "model.pt")


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    old, path = new(), tmp_path / "model.pt"
    saving.save_model(old, path, number=1)

    write_bytes = Path.write_bytes

    def half_a_save(where, content):
        write_bytes(where, content[: len(content) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half_a_save)
        for target in (path, tmp_path / "first.pt"):
            with pytest.raises(KeyboardInterrupt):
                saving.save_model(new(seed=1), target, number=2)
    loaded, info = saving.load_model(path)
    assert same_weights(weights(loaded), weights(old)) and info == {"number": 1}
    assert not (tmp_path / "first.pt").exists()
    # What an interrupted save left behind is not in the way of the next one.
    saving.save_model(new(seed=1), path, number=3)
    assert saving.load_model(path)[1] == {"number": 3}


def test_results_path_is_in_the_folder_of_the_environment_and_makes_none(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_LESSON_RESULTS", str(tmp_path / "a" / "b"))
    assert saving.results_path("x.json") == tmp_path / "a" / "b" / "x.json"
    with pytest.raises(FileNotFoundError):
        saving.load_model(saving.results_path("model.pt"))
    assert not (tmp_path / "a").exists()
    saving.save_model(new(), saving.results_path("model.pt"))
    assert (tmp_path / "a" / "b" / "model.pt").is_file()


@pytest.mark.parametrize("value, wanted", [(None, "results"), ("", "results"), ("mine", "mine")])
def test_relative_places_start_from_the_project(tmp_path, monkeypatch, value, wanted):
    project = tmp_path / "project"
    (project / "notebooks").mkdir(parents=True)
    (project / "pyproject.toml").touch()  # site-packages may have one too
    monkeypatch.setattr(places, "PROJECT", project)
    monkeypatch.chdir(tmp_path)
    if value is None:
        monkeypatch.delenv("VAE_LESSON_RESULTS")
    else:
        monkeypatch.setenv("VAE_LESSON_RESULTS", value)
    # Installed without the project, as from a wheel: never into site-packages.
    assert saving.results_path("x") == tmp_path / wanted / "x"
    (project / "notebooks" / "01_autoencoder.ipynb").touch()
    assert saving.results_path("x") == project / wanted / "x"


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VAE_LESSON_RESULTS", "~/mine")
    assert saving.results_path("x") == tmp_path / "mine" / "x"


def test_a_full_disk_is_named_with_the_path(tmp_path, monkeypatch):
    old, path = new(), tmp_path / "model.pt"
    saving.save_model(old, path)

    def full(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device") as error:
        saving.save_model(new(seed=1), path)
    assert str(path) in str(error.value)
    assert same_weights(weights(saving.load_model(path)[0]), weights(old))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_damage(tmp_path, value):
    model = new()
    with torch.no_grad():
        model.decoder[-1].bias[0] = value
    saving.save_model(model, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"damaged .*some weights are NaN or infinite"):
        saving.load_model(tmp_path / "model.pt")
