"""Checkpoints: a broken training goes on to the same result, and nothing else is gone on from."""

import contextlib
import functools
import itertools
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import GOOD, flipped_bit, half
from tiny import IMAGES, TEST, fit, interrupt, new, same_weights, terms_with, weights

from vae_lesson import losses
from vae_lesson.likelihood.pixels import gaussian_nll
from vae_lesson.models import Autoencoder
from vae_lesson.running.training import described


@pytest.fixture
def path(tmp_path):
    return tmp_path / "it.checkpoint"


def all_but_seconds(history):
    return {name: values for name, values in asdict(history).items() if name != "seconds"}


def crash(named):
    raise OSError("the power is gone")


@functools.wraps(losses.elbo_terms)  # so a checkpoint takes it for these
def never(model, x, generator):
    raise AssertionError("this trains")


@pytest.mark.parametrize("action", [interrupt, crash])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"binarisation": "dynamic", "beta": lambda progress: np.interp(progress, [0, 0.5], [0, 1])},
        {"schedule": "linear", "lr": (4e-3, 1e-2), "from_mean": True},
    ],
    ids=["plain", "tosses and a warm-up", "fast"],
)
def test_a_broken_training_goes_on_to_the_same_result(path, options, action):
    options = {"epochs": 4, "batch_size": 13, "seed": 3, "test": TEST, **options}
    unbroken = new()
    unbroken_history = fit(unbroken, IMAGES, **options)

    options["checkpoint"] = path
    terms = terms_with(action, call=2 * 6 + 3)  # 5 steps and an evaluation an epoch
    with pytest.raises(OSError) if action is crash else contextlib.nullcontext():
        fit(new(), IMAGES, **options, terms=terms)

    resumed, calls = new(seed=9), []  # other weights, and another random state

    @functools.wraps(losses.elbo_terms)
    def counted(model, x, generator):
        calls.append(len(x))
        return losses.elbo_terms(model, x, generator)

    history = fit(resumed, IMAGES, **options, terms=counted, resume=True)
    assert len(calls) == 2 * 6  # two epochs, not four
    assert same_weights(weights(resumed), weights(unbroken))
    assert all_but_seconds(history) == all_but_seconds(unbroken_history)
    assert len(history.seconds) == 4 and history.seconds == sorted(set(history.seconds))
    assert not resumed.training


def test_a_checkpoint_changes_nothing_and_a_plain_training_may_go_on_further(path):
    options = {"epochs": 3, "batch_size": 16, "binarisation": "dynamic"}
    plain, watched = new(), new()
    plain_history = fit(plain, IMAGES, **options)
    history = fit(watched, IMAGES, **options, checkpoint=str(path))
    assert same_weights(weights(plain), weights(watched))
    assert all_but_seconds(history) == all_but_seconds(plain_history)
    assert [*path.parent.iterdir()] == [path]
    longer, further = new(), new(seed=1)
    options |= {"epochs": 5}
    fit(longer, IMAGES, **options)
    history = fit(further, IMAGES, **options, checkpoint=path, resume=True)
    assert len(history) == history.settings["epochs"] == 5
    assert same_weights(weights(longer), weights(further))


def test_a_finished_training_resumed_trains_nothing(path):
    options = {"epochs": 2, "batch_size": 16, "checkpoint": path, "test": TEST, "from_mean": True}
    model, again = new(), new(seed=1)
    history = fit(model, IMAGES, **options)
    file = path.read_bytes()
    assert fit(again, IMAGES, **options, terms=never, resume=True) == history
    assert same_weights(weights(model), weights(again))
    assert path.read_bytes() == file


def test_resuming_without_a_file_starts_anew(path):
    plain, model = new(), new()
    history = fit(plain, IMAGES, epochs=2)
    again = fit(model, IMAGES, epochs=2, checkpoint=path, resume=True)
    assert all_but_seconds(again) == all_but_seconds(history)
    assert same_weights(weights(model), weights(plain)) and path.is_file()


def test_a_file_is_neither_gone_on_from_nor_destroyed_unless_that_is_asked(path):
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
GAUSSIAN = functools.partial(losses.elbo_terms, nll=gaussian_nll)


@pytest.mark.parametrize(
    "name, there, here, change",
    [
        ("lr", "(0.001, 0.004)", "0.001", {"lr": 1e-3}),
        ("batch_size", "16", "32", {"batch_size": 32}),
        ("seed", "0", "1", {"seed": 1}),
        ("schedule", "'linear'", "'constant'", {"schedule": "constant"}),
        ("epochs", "2", "3", {"epochs": 3}),
        ("beta", "[0.0, 0.1", "[0.0, 0.01", {"beta": lambda progress: progress**2}),
        ("from_mean", "False", "True", {"from_mean": True}),
        ("binarisation", "'grey'", "'dynamic'", {"binarisation": "dynamic"}),
        ("network", "out_features=8", "out_features=9", {"model": new(hidden_size=9)}),
        ("network", "VAE", "Autoencoder", {"model": new(Autoencoder)}),
        ("terms", "'elbo_terms'", "'elbo_terms(nll=gaussian_nll)'", {"terms": GAUSSIAN}),
        ("images", "[64, 4, 4,", "[63, 4, 4,", {"images": IMAGES[:-1]}),
        ("images", "[64, 4, 4,", "[64, 4, 4,", {"images": ONE_WHITE}),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(path, name, there, here, change):
    options = {"epochs": 2, "batch_size": 16, "lr": (1e-3, 4e-3), "schedule": "linear"}
    options |= {"beta": lambda progress: progress, "checkpoint": path}
    fit(new(), IMAGES, **options)
    file = path.read_bytes()
    options |= {"model": new(seed=1), "images": IMAGES, "terms": never} | change
    with pytest.raises(ValueError) as error:
        fit(options.pop("model"), options.pop("images"), **options, resume=True)
    message = str(error.value).removeprefix(f"{path} is of another training: {name} ")
    left, right = message.removesuffix(" here").split(" there, ")
    assert there in left and here in right and left != right
    assert path.read_bytes() == file


def a_loss(scale):
    return lambda model, x, generator: losses.elbo_terms(model, x, generator)


@pytest.mark.parametrize(
    "terms, said",
    [
        (losses.elbo_terms, "elbo_terms"),
        (GAUSSIAN, "elbo_terms(nll=gaussian_nll)"),
        (
            functools.partial(GAUSSIAN, nll=functools.partial(gaussian_nll, log_var=-2.0)),
            "elbo_terms(nll=gaussian_nll(log_var=-2.0))",
        ),
        (functools.partial(gaussian_nll, log_var=torch.tensor(0.5)), "gaussian_nll(log_var=0.5)"),
        # One that is learned changes, and a table is no name.
        (
            functools.partial(
                gaussian_nll, torch.ones(3), log_var=torch.nn.Parameter(torch.ones(()))
            ),
            "gaussian_nll(Tensor, log_var=Parameter)",
        ),
        (a_loss(1), "a_loss.<locals>.<lambda>"),
        (torch.nn.BCELoss(), "BCELoss"),
    ],
)
def test_terms_are_known_by_their_names_and_those_of_what_they_were_given(terms, said):
    assert described(terms) == said


def test_a_checkpoint_that_does_not_know_its_terms_is_gone_on_from(path):
    fit(new(), IMAGES, epochs=1, checkpoint=path)
    old = torch.load(path, weights_only=True)
    del old["settings"]["terms"]
    torch.save(old, path)
    assert len(fit(new(), IMAGES, epochs=2, checkpoint=path, resume=True, terms=GAUSSIAN)) == 2


def checkpoint_of_first_weights(path):
    fit(new(), IMAGES, epochs=1, lr=1e-30, checkpoint=path)  # too little to move a weight


def test_the_damaged_checkpoints_are_good_but_for_the_damage(path):
    checkpoint_of_first_weights(path)
    flipped_bit(path.read_bytes())  # finds the weights
    fit(new(), IMAGES, epochs=1, lr=1e-30, checkpoint=path, resume=True, terms=never)


@pytest.mark.parametrize("damage", [half, flipped_bit])  # of all the others: test_saving
def test_a_damaged_checkpoint_is_refused_with_its_name_and_left(path, damage):
    checkpoint_of_first_weights(path)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    model = new(seed=1)
    before = weights(model)
    with pytest.raises(ValueError, match=r"damaged or no checkpoint: remove it") as error:
        fit(model, IMAGES, epochs=1, lr=1e-30, checkpoint=path, resume=True, terms=never)
    assert str(path) in str(error.value)
    assert path.read_bytes() == damaged and [*path.parent.iterdir()] == [path]
    assert same_weights(weights(model), before)


@pytest.mark.parametrize("content", [[1, 2], torch.ones(3), GOOD, {"settings": [1, 2]}])
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
def test_another_file_is_no_checkpoint(path, content):
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"damaged or no checkpoint: remove it"):
        fit(new(), IMAGES, epochs=1, checkpoint=path, resume=True, terms=never)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("no space left")])
def test_a_broken_write_leaves_the_checkpoint_before_it(path, monkeypatch, error):
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
    assert [*path.parent.iterdir()] == [path]
    unbroken, resumed = new(), new(seed=1)
    fit(unbroken, IMAGES, epochs=4, batch_size=16)
    history = fit(resumed, IMAGES, **options, resume=True)
    assert len(history) == 4 and same_weights(weights(resumed), weights(unbroken))


def test_a_refused_training_leaves_model_and_checkpoint_as_they_were(path):
    options = {"epochs": 1, "checkpoint": path, "from_mean": True}
    fit(new(), IMAGES, **options)
    model = new()
    before = weights(model)
    with pytest.raises(ValueError, match="holds 1 of 1 epochs"):
        fit(model, IMAGES, **options)
    assert same_weights(weights(model), before)
    with pytest.raises(ValueError, match="leave it out"):
        fit(new(network="conv"), IMAGES, **options, resume=False)
    assert path.is_file()
