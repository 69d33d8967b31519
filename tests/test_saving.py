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
from tiny import new, same_weights, weights

from vae_lesson import places
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
