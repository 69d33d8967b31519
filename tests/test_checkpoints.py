"""Checkpoints: a broken training goes on to the same result, and nothing else is gone on from."""

import contextlib
import itertools
import pickle
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from damage import DAMAGES, GOOD, Code, flipped_bit
from tiny import (
    IMAGES,
    TEST,
    fit,
    interrupt,
    new,
    same_weights,
    terms_with,
    weights,
)

from vae_lesson import losses
from vae_lesson.models import Autoencoder

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def all_but_seconds(history):
    return {name: values for name, values in asdict(history).items() if name != "seconds"}


def crash(recon, kl):
    raise OSError("the power is gone")


def never(model, x, generator):
    raise AssertionError("this trains")


@pytest.mark.parametrize("action", [interrupt, crash])
@pytest.mark.parametrize("binarisation", ["grey", "dynamic"])
@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_a_broken_training_goes_on_to_the_same_result(tmp_path, schedule, binarisation, action):
    options = {
        **{"epochs": 4, "batch_size": 13, "lr": 4e-3, "seed": 3, "test_images": TEST},
        **{"schedule": schedule, "binarisation": binarisation},
    }
    whole = new()
    whole_history = fit(whole, IMAGES, **options)

    options["checkpoint"] = tmp_path / "it.checkpoint"
    terms = terms_with(action, call=2 * 6 + 3)  # 5 steps and an evaluation an epoch
    with pytest.raises(OSError) if action is crash else contextlib.nullcontext():
        fit(new(), IMAGES, **options, terms=terms)

    resumed = new(seed=9)  # other weights, and another random state
    calls = []

    def counted(model, x, generator):
        calls.append(len(x))
        return losses.elbo_terms(model, x, generator)

    history = fit(resumed, IMAGES, **options, terms=counted, resume=True)
    assert len(calls) == 2 * 6  # two epochs, not four
    assert same_weights(weights(resumed), weights(whole))
    assert all_but_seconds(history) == all_but_seconds(whole_history)
    assert len(history.seconds) == 4 and history.seconds == sorted(set(history.seconds))
    assert not resumed.training


def test_a_checkpoint_changes_nothing_and_may_be_left_at_any_epoch(tmp_path):
    options = {"epochs": 3, "batch_size": 16, "binarisation": "dynamic"}
    plain, watched = new(), new()
    plain_history = fit(plain, IMAGES, **options)
    history = fit(watched, IMAGES, **options, checkpoint=str(tmp_path / "it.checkpoint"))
    assert same_weights(weights(plain), weights(watched))
    assert all_but_seconds(history) == all_but_seconds(plain_history)
    assert [path.name for path in tmp_path.iterdir()] == ["it.checkpoint"]
    # At a constant learning rate a finished training may go on further.
    longer, further = new(), new(seed=1)
    fit(longer, IMAGES, **{**options, "epochs": 5})
    more = {**options, "epochs": 5, "checkpoint": str(tmp_path / "it.checkpoint")}
    assert len(fit(further, IMAGES, **more, resume=True)) == 5
    assert same_weights(weights(longer), weights(further))


def test_a_finished_training_resumed_trains_nothing(tmp_path):
    options = {"epochs": 2, "batch_size": 16, "checkpoint": tmp_path / "it.checkpoint"}
    model, again = new(), new(seed=1)
    history = fit(model, IMAGES, **options, test_images=TEST)
    file = options["checkpoint"].read_bytes()
    assert fit(again, IMAGES, **options, test_images=TEST, terms=never, resume=True) == history
    assert same_weights(weights(model), weights(again))
    assert options["checkpoint"].read_bytes() == file


def test_resuming_without_a_file_starts_anew(tmp_path):
    plain, model = new(), new()
    history = fit(plain, IMAGES, epochs=2)
    path = tmp_path / "it.checkpoint"
    again = fit(model, IMAGES, epochs=2, checkpoint=path, resume=True)
    assert all_but_seconds(again) == all_but_seconds(history)
    assert same_weights(weights(model), weights(plain)) and path.is_file()


def test_a_file_is_neither_gone_on_from_nor_destroyed_unless_that_is_asked(tmp_path):
    path = tmp_path / "it.checkpoint"
    plain, model = new(), new()
    fit(plain, IMAGES, epochs=1)
    path.write_bytes(b"anything")
    with pytest.raises(ValueError, match="damaged or no checkpoint"):
        fit(model, IMAGES, epochs=1, checkpoint=path, terms=never)
    assert path.read_bytes() == b"anything"
    assert len(fit(model, IMAGES, epochs=1, checkpoint=path, resume=False)) == 1
    assert same_weights(weights(model), weights(plain))
    with pytest.raises(ValueError, match=r"holds 1 of 1 epochs of a training: .*resume=True"):
        fit(model, IMAGES, epochs=1, checkpoint=path, terms=never)
    assert len(fit(new(seed=1), IMAGES, epochs=1, checkpoint=path, resume=True, terms=never)) == 1


def test_a_folder_is_no_checkpoint(tmp_path):
    for resume in (None, True, False):
        with pytest.raises(ValueError, match="is a folder: give the name of a file"):
            fit(new(), IMAGES, epochs=1, checkpoint=tmp_path, resume=resume)


ONE_WHITE = IMAGES.clone()
ONE_WHITE[5] = 255


@pytest.mark.parametrize(
    "name, there, here, change",
    [
        ("lr", "0.001", "0.002", {"lr": 2e-3}),
        ("batch_size", "16", "32", {"batch_size": 32}),
        ("seed", "0", "1", {"seed": 1}),
        ("schedule", "'linear'", "'constant'", {"schedule": "constant"}),
        ("epochs", "2", "3", {"epochs": 3}),
        ("beta", "1.0", "0.5", {"beta": 0.5}),
        ("binarisation", "'grey'", "'dynamic'", {"binarisation": "dynamic"}),
        ("network", "out_features=8", "out_features=9", {"model": new(hidden_size=9)}),
        ("network", "VAE", "Autoencoder", {"model": new(Autoencoder)}),
        ("images", "[64, 4, 4,", "[63, 4, 4,", {"images": IMAGES[:-1]}),
        ("images", "[64, 4, 4,", "[64, 4, 4,", {"images": ONE_WHITE}),
    ],
)
def test_a_checkpoint_of_other_options_is_refused(tmp_path, name, there, here, change):
    path = tmp_path / "it.checkpoint"
    options = {"epochs": 2, "batch_size": 16, "schedule": "linear", "checkpoint": path}
    fit(new(), IMAGES, **options)
    file = path.read_bytes()
    names = [name]
    other = {"model": new(seed=1), "images": IMAGES, **options, **change}
    before = weights(other["model"])
    with pytest.raises(ValueError) as error:
        fit(**other, resume=True, terms=never)
    message = str(error.value)
    assert message.startswith(f"{path} is of another training: {names[0]} ")
    for each in names:
        assert f"{each} " in message
    assert message.count(" there, ") == message.count(" here") == len(names)
    left, right = message.split(f"{name} ")[-1].split(" there, ")
    assert there in left and here in right and left != right.removesuffix(" here")
    assert same_weights(weights(other["model"]), before)
    assert path.read_bytes() == file


@pytest.mark.parametrize("schedule", ["linear", "constant"])
def test_a_checkpoint_from_before_there_were_two_rates(tmp_path, schedule):
    path = tmp_path / "it.checkpoint"
    options = {"epochs": 3, "batch_size": 16, "schedule": schedule, "checkpoint": path}
    fit(new(), IMAGES, **options, terms=terms_with(interrupt, call=6))  # after one epoch
    old = torch.load(path)
    old["settings"].pop("factors of lr", None)
    for group in old["optimizer"]["param_groups"]:
        del group["factor"]
    torch.save(old, path)
    if schedule == "linear":
        with pytest.raises(ValueError, match=r"factors of lr None there, \[0.5, 2.0\] here"):
            fit(new(), IMAGES, **options, resume=True)
    else:  # nothing has changed for plain Adam
        assert len(fit(new(), IMAGES, **options, resume=True)) == 3


def checkpoint_of_first_weights(path):
    fit(new(), IMAGES, epochs=1, lr=1e-30, checkpoint=path)  # too little to move a weight


def test_the_damaged_checkpoints_are_good_but_for_the_damage(tmp_path):
    path = tmp_path / "it.checkpoint"
    checkpoint_of_first_weights(path)
    flipped_bit(path.read_bytes())  # finds the weights
    fit(new(), IMAGES, epochs=1, lr=1e-30, checkpoint=path, resume=True, terms=never)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_checkpoint_is_refused_with_its_name_and_left(tmp_path, damage):
    path = tmp_path / "it.checkpoint"
    checkpoint_of_first_weights(path)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    model = new(seed=1)
    before = weights(model)
    with pytest.raises(ValueError, match=r"damaged or no checkpoint: remove it") as error:
        fit(model, IMAGES, epochs=1, lr=1e-30, checkpoint=path, resume=True, terms=never)
    assert str(path) in str(error.value)
    assert path.read_bytes() == damaged and list(tmp_path.iterdir()) == [path]
    assert same_weights(weights(model), before)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param([1, 2], id="a list"),
        pytest.param(torch.ones(3), id="a tensor"),
        pytest.param(new().state_dict(), id="weights alone"),
        pytest.param({**GOOD, "state": new().state_dict()}, id="a model"),
        pytest.param({"options": [1, 2]}, id="a list of options"),
    ],
)
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
def test_another_file_is_no_checkpoint(tmp_path, content):
    path = tmp_path / "it.checkpoint"
    torch.save(content, path)
    file = path.read_bytes()
    with pytest.raises(ValueError, match=r"damaged or no checkpoint: remove it") as error:
        fit(new(), IMAGES, epochs=1, checkpoint=path, resume=True, terms=never)
    assert str(path) in str(error.value)
    assert path.read_bytes() == file


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_checkpoint_is_not_run(tmp_path, how):
    path, trap = tmp_path / "it.checkpoint", tmp_path / "trap"
    with open(path, "wb") as file:
        content = {"options": Code(trap)}
        torch.save(content, file) if how == "torch" else pickle.dump(content, file, protocol=2)
    with pytest.raises(ValueError, match="damaged or no checkpoint"):
        fit(new(), IMAGES, epochs=1, checkpoint=path, resume=True, terms=never)
    assert not trap.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("no space left")])
def test_a_broken_write_leaves_the_checkpoint_before_it(tmp_path, monkeypatch, error):
    path = tmp_path / "it.checkpoint"
    options = {"epochs": 4, "batch_size": 16, "checkpoint": path}
    write_bytes, calls = Path.write_bytes, itertools.count(1)

    def third_breaks(where, content):
        if next(calls) < 3:
            return write_bytes(where, content)
        write_bytes(where, b"half")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", third_breaks)
        with pytest.raises(OSError) if isinstance(error, OSError) else contextlib.nullcontext():
            fit(new(), IMAGES, **options)
    assert list(tmp_path.iterdir()) == [path]
    whole, resumed = new(), new(seed=1)
    fit(whole, IMAGES, epochs=4, batch_size=16)
    history = fit(resumed, IMAGES, **options, resume=True)
    assert len(history) == 4 and same_weights(weights(resumed), weights(whole))
