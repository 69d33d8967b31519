"""command: the headless trainer, its options, what it leaves, and how it ends."""

import csv
import functools
import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import coloured_folder, same_weights, weights

from vae_lesson import __main__ as command
from vae_lesson import data, evaluate, losses, sources
from vae_lesson.likelihood import pixels
from vae_lesson.models import VAE
from vae_lesson.running import saving
from vae_lesson.running.training import History
from vae_lesson.sources import mnist

COLUMNS = ["epoch", "recon", "kl", "test_recon", "test_kl", "seconds"]
FILES = {"trained.checkpoint", "trained.pt", "trained_history.csv", "trained_generated.png"}


def small_images():
    """Make 150 images of 28×28 pixels: bright squares at random places."""
    rng = np.random.default_rng(0)
    images = np.zeros((150, 28, 28), np.uint8)
    for image, (top, left) in zip(images, rng.integers(0, 20, (150, 2))):
        image[top : top + 8, left : left + 8] = rng.integers(100, 256)
    images, labels = torch.from_numpy(images), torch.zeros(150, dtype=torch.long)
    some = images[:100], labels[:100], images[100:], labels[100:]
    return data.Images("digits", *some, class_names=("square",))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return run(*options): the command in this process, on small images, into tmp_path/out."""
    monkeypatch.setenv("VAE_LESSON_RESULTS", str(tmp_path / "elsewhere"))  # restored afterwards
    monkeypatch.setattr(sources, "load_images", lambda name, **_: small_images())
    monkeypatch.setattr(command.machine, "prepare", lambda: None)

    def execute(*options, out=tmp_path / "out"):
        small = ["--hidden-size", "16", "--batch-size", "30", "--epochs", "2", "--device", "cpu"]
        where = [] if out is None else ["--out", str(out)]
        command.main([*small, "--quiet", *where, *options])
        return out

    return execute


@pytest.fixture
def refused(run, capsys):
    """Return refused(*options, code=2): what the command says when it ends with this exit code."""

    def execute(*options, code=2, **where):
        with pytest.raises(SystemExit) as end:
            run(*options, **where)
        assert end.value.code == code
        return capsys.readouterr().err

    return execute


SMALL = "--data digits --hidden-size 16 --epochs 1 --batch-size 1000 --device cpu --quiet"
TRAINER = [sys.executable, "-m", "vae_lesson", *SMALL.split()]


def trainer(out, *options):
    """Run the command as a user does: a process of its own, on the real offline digits."""
    return subprocess.run(
        [*TRAINER, "--out", str(out), *options],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=600,
    )


def names(folder):
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    return header, [[float(value) for value in row] for row in rows]


def assert_same_result(a, b):
    """Weights and history are those of the other, but for the seconds."""
    one, other = saving.load_model(a / "trained.pt")[0], saving.load_model(b / "trained.pt")[0]
    assert one.config == other.config and same_weights(weights(one), weights(other))
    (header, rows), (other_header, other_rows) = (
        read_csv(folder / "trained_history.csv") for folder in (a, b)
    )
    assert header == other_header
    assert [row[:-1] for row in rows] == [row[:-1] for row in other_rows]
    assert (a / "trained_generated.png").read_bytes() == (b / "trained_generated.png").read_bytes()


# --- what it leaves -------------------------------------------------------------------------------


def test_a_run_leaves_model_history_and_images(tmp_path):
    done = trainer(tmp_path / "new" / "folder", "--latent-size", "3", "--seed", "4")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # --quiet; nor has Python a warning for -m
    out = tmp_path / "new" / "folder"
    assert names(out) == FILES
    model, info = saving.load_model(out / "trained.pt")
    sizes = {"latent_size": 3, "hidden_size": 16, "shape": (1, 28, 28), "network": "mlp"}
    assert isinstance(model, VAE) and model.config == sizes
    fast = {"lr": (8e-3, 3.2e-2), "schedule": "linear", "from_mean": True}
    other = {"dataset": "digits", "epochs": 1, "batch_size": 1000, "seed": 4}
    assert info == {**fast, **other, "beta": 1.0, "binarisation": "grey"}
    header, (row,) = read_csv(out / "trained_history.csv")
    epoch, recon, kl, test_recon, test_kl, seconds = row
    assert header == COLUMNS
    assert epoch == 1 and recon > test_recon > 0 and kl > 0 and seconds > 0
    assert "digits: 60,000 training" in done.stdout and "seconds of training on cpu" in done.stdout
    assert (
        f"epoch 1: test recon {test_recon:.2f} + KL {test_kl:.2f} = −ELBO "
        f"{test_recon + test_kl:.2f} nats"
    ) in done.stdout
    # 8 × 8 images with 2 pixels around each, and they are the model's own.
    picture = np.asarray(Image.open(out / "trained_generated.png"))[..., 0]
    assert picture.shape == (8 * 30 + 2, 8 * 30 + 2)
    sample = model.sample(64, torch.Generator().manual_seed(4)).view(64, 28, 28).numpy()
    for i, (row, column) in enumerate(itertools.product(range(8), range(8))):
        top, left = 2 + 30 * row, 2 + 30 * column
        tile = picture[top : top + 28, left : left + 28]
        np.testing.assert_allclose(tile / 255, sample[i], atol=0.01)


def test_a_data_set_that_cannot_be_had_is_not_replaced_by_another(tmp_path, monkeypatch, capsys):
    def unreachable(*_):
        raise OSError("timed out")

    monkeypatch.setattr(mnist, "load_mnist_like", unreachable)
    monkeypatch.setattr(command.machine, "prepare", lambda: None)
    with pytest.raises(SystemExit) as end:
        command.main(["--data", "fashion", "--device", "cpu", "--quiet", "--out", str(tmp_path)])
    said = capsys.readouterr().err
    assert end.value.code == 1 and names(tmp_path) == set()
    assert "'fashion' is not on disk" in said and "'digits' needs no network" in said


def test_a_folder_in_colour_is_trained_by_a_likelihood_of_colours(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_LESSON_DATA", str(tmp_path / "data"))
    coloured_folder(tmp_path / "mine")
    options = (
        f"--data {tmp_path / 'mine'} --side 12 --network conv --hidden-size 64 --lr 2.5e-3 1e-2"
    )
    done = trainer(tmp_path / "out", *options.split(), "--epochs", "15", "--batch-size", "15")
    assert done.returncode == 0, done.stderr
    assert "of 12×12 pixels in colour, 1 class" in done.stdout
    model, info = saving.load_model(tmp_path / "out" / "trained.pt")
    assert model.config["shape"] == (3, 12, 12) and info["dataset"] == "mine/"
    assert info["from_mean"] is False  # which its convolutions cannot
    images = sources.load_images(tmp_path / "mine", side=12)

    def terms(model, x, generator):
        return losses.elbo_terms(model, x, generator, nll=pixels.fitted_logistic_nll)

    neg_elbo = evaluate.mean_terms(model, images.test, terms=terms).neg_elbo
    assert f"= −ELBO {neg_elbo:.2f} nats" in done.stdout
    assert neg_elbo < 3 * 12 * 12 * 7.8 * math.log(2)  # 8 bits a value is knowing nothing
    picture = np.asarray(Image.open(tmp_path / "out" / "trained_generated.png"))
    assert picture.shape == (8 * 14 + 2, 8 * 14 + 2, 3)
    assert np.ptp(picture[2:-2, 2:-2].astype(int), axis=2).max() > 20  # not grey


def test_the_history_is_the_trainings_with_every_digit(run, tmp_path):
    out = run()
    header, rows = read_csv(out / "trained_history.csv")
    assert header == COLUMNS and [row[0] for row in rows] == [1, 2]
    model = saving.load_model(out / "trained.pt")[0]
    means = evaluate.means_of_terms(model, small_images().test)
    assert rows[-1][3:5] == [means["recon"], means["kl"]]

    terms = {"pull": [1 / 3], "recon": [12345.678901234567]}
    history = History(train=terms, test={"pull": [2 / 3]}, seconds=[0.1])
    command.write_history(history, tmp_path / "it.csv")
    header, (row,) = read_csv(tmp_path / "it.csv")
    assert header == ["epoch", "pull", "recon", "test_pull", "seconds"]
    assert row == [1, 1 / 3, 12345.678901234567, 2 / 3, 0.1]


def test_no_epochs_leave_a_model_and_a_history_without_rows(run):
    out = run("--epochs", "0")
    assert names(out) == FILES - {"trained.checkpoint"}
    assert read_csv(out / "trained_history.csv")[1] == []


@pytest.mark.parametrize(
    "options, expected",
    [
        ("--lr 0.02", {"lr": 0.02, "schedule": "linear", "from_mean": True}),
        ("--lr 0.02 0.03 --cold-start", {"lr": (0.02, 0.03), "from_mean": False}),
        (
            "--schedule constant --beta 3 --network conv --binarisation threshold --seed 7",
            {"schedule": "constant", "beta": 3.0, "binarisation": "threshold", "seed": 7},
        ),
    ],
)
def test_the_options_reach_the_training(run, monkeypatch, options, expected):
    seen, prepared = {}, []

    def fit(model, images, **options):
        seen.update(options, model=model)
        return History(settings={"seed": 7})

    monkeypatch.setattr(command, "fit_fast", fit)
    monkeypatch.setattr(command.machine, "prepare", lambda: prepared.append(True))
    out = run(*options.split(), "--latent-size", "5", "--name", "mine")
    assert prepared == [True]
    expected |= {"epochs": 2, "batch_size": 30, "progress": False, "resume": None}
    expected |= {"device": torch.device("cpu"), "checkpoint": out / "mine.checkpoint"}
    assert {name: seen[name] for name in expected} == expected
    torch.manual_seed(expected.get("seed", 0))
    again = VAE(5, 16, network="conv" if "conv" in options else "mlp")
    assert same_weights(weights(seen["model"]), weights(again))
    assert names(out) == {"mine.pt", "mine_history.csv", "mine_generated.png"}


def test_without_out_it_writes_where_the_lessons_do(tmp_path, run):
    run(out=None)
    assert names(tmp_path / "elsewhere") == FILES


# --- options --------------------------------------------------------------------------------------


def test_help_names_every_option_and_says_what_it_is():
    parser = command.parser()
    text = parser.format_help()
    wanted = "data epochs batch-size lr schedule beta binarisation network latent-size hidden-size"
    wanted += " seed side cold-start device name out resume restart quiet"
    options = {string: action for action in parser._actions for string in action.option_strings}
    assert {f"--{name}" for name in wanted.split()} <= set(options)
    for string, action in options.items():
        assert string in text and len(action.help) > 5, string
    text = " ".join(text.split())
    assert "torchrun" in text and "default: mnist" in text
    assert "(default: 0.008 0.032, of convolutions 0.0025 0.01)" in text
    assert "default: None" not in text  # what the default is, the text says


@pytest.mark.parametrize(
    "options, says",
    [
        ("--data cifar", "unknown data set 'cifar': choose one of mnist"),
        ("--side 12", "--side is for your own pictures, and mnist has its own"),
        ("--data photos --side 0", "--side must be a whole number from 1 to 1,024, got 0"),
        ("--epochs 1.5", "--epochs: invalid int value: '1.5'"),
        ("--batch-size 0", "batch_size must be a whole number of at least 1, got 0"),
        ("--lr 1e-3 0", "lr must be a number over 0 and finite, got 0.0"),
        ("--lr fast", "--lr: invalid float value: 'fast'"),
        ("--network gan", "unknown network 'gan': choose one of linear, mlp, deep, conv"),
        ("--latent-size 0", "latent_size must be a whole number of at least 1, got 0"),
        ("--latent-size 1000000000", "do not fit into memory: choose smaller ones"),
        ("--device abacus", "device 'abacus' is not there: choose one of auto"),
        ("--name ../mine", "--name must be a plain name, got '../mine'"),
        ("--name=", "--name must be a plain name, got ''"),
        ("--name ..", "--name must be a plain name, got '..'"),
        ("--resume --restart", "--restart: not allowed with argument --resume"),
        ("--dropout 0.5", "unrecognized arguments: --dropout 0.5"),
    ],
)
def test_a_bad_option_is_named_and_leaves_nothing(refused, tmp_path, options, says):
    message = refused(*options.split())
    assert says in message and message.startswith("usage: python -m vae_lesson")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_that_cannot_be_made_or_written_is_refused(refused, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert str(tmp_path / "file") in refused(out=out)
    assert (tmp_path / "file").read_text() == "mine" and names(tmp_path) == {"file"}
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    assert f"{tmp_path / 'out'} cannot be written" in refused()


# --- bad ends, and going on -----------------------------------------------------------------------


def test_a_diverging_run_says_so_and_exits_with_1(refused, tmp_path):
    said = refused("--lr", "1e30", code=1)
    assert said.startswith("python -m vae_lesson: training stopped in epoch 1, step 2")
    assert "a learning rate of 1e+30 is too high" in said
    assert names(tmp_path / "out") == set()


def interrupting(monkeypatch, call):
    """Let the terms raise KeyboardInterrupt at this call: 4 steps and an evaluation an epoch."""
    calls = itertools.count(1)

    @functools.wraps(losses.elbo_terms)  # so a checkpoint takes it for these
    def terms(model, x, generator=None):
        if next(calls) == call:
            raise KeyboardInterrupt
        return losses.elbo_terms(model, x, generator)

    monkeypatch.setattr(command, "elbo_terms", terms)


def test_an_interrupt_keeps_the_checkpoint_and_the_last_finished_model(
    run, refused, tmp_path, monkeypatch, capsys
):
    options = ("--epochs", "4", "--binarisation", "dynamic")
    unbroken = run(*options, out=tmp_path / "unbroken")
    earlier = run("--seed", "5")
    finished = (earlier / "trained.pt").read_bytes()
    with monkeypatch.context() as patch:
        interrupting(patch, call=2 * 5 + 3)
        with pytest.raises(SystemExit) as end:
            run(*options, "--restart")
    assert end.value.code == 130
    assert "interrupted in epoch 3 of 4, step 3 of 4" in capsys.readouterr().out
    assert (earlier / "trained.pt").read_bytes() == finished  # not the half-trained one
    run(*options, "--resume")
    assert "Going on from trained.checkpoint." in capsys.readouterr().out
    assert_same_result(unbroken, earlier)
    assert names(earlier) == FILES


def test_a_repeated_command_does_not_destroy_a_checkpoint(run, refused):
    out = run("--epochs", "3")
    before = contents(out)
    said = refused("--epochs", "3")
    assert "trained.checkpoint holds 3 of 3 epochs of a training" in said
    assert "--resume" in said and "--restart" in said
    assert contents(out) == before
    run("--epochs", "1", "--restart")
    assert len(read_csv(out / "trained_history.csv")[1]) == 1


def test_a_folder_in_the_checkpoints_place_is_refused(refused, tmp_path):
    (tmp_path / "out" / "trained.checkpoint").mkdir(parents=True)
    for options in ([], ["--resume"], ["--restart"]):
        assert "trained.checkpoint is a folder" in refused(*options)


def test_a_closed_pipe_of_an_encoding_without_a_minus_sign_costs_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "cp1252"}
    with subprocess.Popen([*TRAINER, "--out", str(tmp_path)], **pipes) as process:
        assert "28×28" in process.stdout.readline()
        process.stdout.close()
        assert (process.stderr.read(), process.wait(600)) == ("", 0)
    assert names(tmp_path) == FILES


def test_resume_without_a_checkpoint_says_so_and_starts(run, tmp_path, capsys):
    plain = run(out=tmp_path / "plain")
    resumed = run("--resume")
    assert "No trained.checkpoint: from the start." in capsys.readouterr().out
    assert_same_result(plain, resumed)


def test_resuming_another_training_is_refused_and_leaves_its_files(run, refused):
    out = run()
    before = contents(out)
    for options, says in [
        (("--lr", "0.1"), "is of another training: lr (0.008, 0.032) there, 0.1 here"),
        (("--latent-size", "3"), "is of another training: network"),
    ]:
        assert f"trained.checkpoint {says}" in refused("--resume", *options, code=1)
        assert contents(out) == before


def test_a_restart_does_not_take_the_checkpoint_of_a_training_before(run, tmp_path, monkeypatch):
    # torchrun's restart means going on; but what died in its first epoch left nothing to go on
    # from, and a checkpoint in that folder is of an earlier training with other options.
    fresh = run("--lr", "0.002", out=tmp_path / "fresh")
    run()
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        interrupting(patch, call=2)
        run("--lr", "0.002", "--restart")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert_same_result(fresh, run("--lr", "0.002", "--restart"))
