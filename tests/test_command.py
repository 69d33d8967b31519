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
from tiny import coloured_folder

from vae_lesson import __main__ as command
from vae_lesson import data, evaluate, losses, sources, train
from vae_lesson.likelihood import importance, pixels
from vae_lesson.models import VAE
from vae_lesson.running import saving
from vae_lesson.running.run import History

COLUMNS = ["recon", "kl", "test_recon", "test_kl", "seconds"]
FILES = {"trained.checkpoint", "trained.pt", "trained_history.csv", "trained_generated.png"}


def main(arguments):
    command.main(train.fit, train.settings_of, arguments)


def small_images(device="cpu"):
    """Make 150 images of 28×28 pixels: bright squares at random places."""
    rng = np.random.default_rng(0)
    images = np.zeros((150, 28, 28), np.uint8)
    for image, (top, left) in zip(images, rng.integers(0, 20, (150, 2))):
        image[top : top + 8, left : left + 8] = rng.integers(100, 256)
    images = torch.from_numpy(images).to(device)
    labels = torch.zeros(150, dtype=torch.long, device=device)
    return data.Images(
        "digits", images[:100], labels[:100], images[100:], labels[100:], ("square",)
    )


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return run(*options): the command in this process, on small images, into tmp_path/out."""
    monkeypatch.setenv("VAE_LESSON_RESULTS", str(tmp_path / "elsewhere"))  # restored afterwards
    monkeypatch.setattr(sources, "load_images", lambda name, side: small_images())
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def execute(*options, out=tmp_path / "out"):
        small = ["--hidden-size", "16", "--batch-size", "30", "--epochs", "2", "--device", "cpu"]
        main([*small, "--quiet", "--out", str(out), *options])
        return out

    yield execute
    torch.set_num_threads(n_threads)


SMALL = "--data digits --hidden-size 16 --epochs 1 --batch-size 1000 --device cpu --quiet"


def trainer(out, *options, encoding="utf-8"):
    """Run the command as a user does: a process of its own, on the real offline digits."""
    return subprocess.run(
        [sys.executable, "-m", "vae_lesson.train", *SMALL.split(), "--out", str(out), *options],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding=encoding,
        timeout=120,
    )


def names(folder):
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    return header, [[float(value) for value in row] for row in rows]


def assert_same_result(a, b):
    """Weights and history are those of the other, but for the seconds."""
    one, other = saving.load_model(a / "trained.pt")[0], saving.load_model(b / "trained.pt")[0]
    assert one.config == other.config
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
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
    assert isinstance(model, VAE) and model.config["latent_size"] == 3
    assert model.config["hidden_size"] == 16 and model.config["network"] == "mlp"
    assert info == {
        **{"dataset": "digits", "epochs": 1, "seed": 4, "batch_size": 1000, "lr": 0.01},
        **{"schedule": "linear", "warm_start": True, "beta": 1.0, "binarisation": "grey"},
    }
    header, ((epoch, recon, kl, test_recon, test_kl, seconds),) = read_csv(
        out / "trained_history.csv"
    )
    assert header == ["epoch", *COLUMNS]
    assert epoch == 1 and recon > test_recon > 0 and kl > 0 and seconds > 0
    assert "digits: 60,000 training" in done.stdout and "seconds of training on cpu" in done.stdout
    assert f"epoch 1: test recon {test_recon:.2f} + KL {test_kl:.2f} = −ELBO" in done.stdout
    # 8 × 8 images with 2 pixels around each, and they are the model's own.
    picture = np.asarray(Image.open(out / "trained_generated.png"))[..., 0]
    assert picture.shape == (8 * 30 + 2, 8 * 30 + 2)
    sample = model.sample(64, torch.Generator().manual_seed(4)).view(64, 28, 28).numpy()
    for i, (row, column) in enumerate(itertools.product(range(8), range(8))):
        top, left = 2 + 30 * row, 2 + 30 * column
        tile = picture[top : top + 28, left : left + 28]
        np.testing.assert_allclose(tile / 255, sample[i], atol=0.01)


def test_a_folder_in_colour_is_trained_by_a_likelihood_of_colours(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_LESSON_DATA", str(tmp_path / "data"))
    coloured_folder(tmp_path / "mine")
    options = ["--data", str(tmp_path / "mine"), "--side", "12", "--network", "conv"]
    done = trainer(tmp_path / "out", *options, "--epochs", "15", "--batch-size", "15")
    assert done.returncode == 0, done.stderr
    assert "of 12×12 pixels in colour, 1 class" in done.stdout
    model, info = saving.load_model(tmp_path / "out" / "trained.pt")
    assert model.config["shape"] == (3, 12, 12) and info["dataset"] == "mine/"
    images = sources.load_images(tmp_path / "mine", side=12)
    terms = importance.elbo_terms_with(pixels.fitted_logistic_nll)
    neg_elbo = evaluate.mean_terms(model, images.test, terms).neg_elbo
    assert f"= −ELBO {neg_elbo:.2f} nats" in done.stdout
    assert neg_elbo < 3 * 12 * 12 * 7.8 * math.log(2)  # 8 bits a value is knowing nothing
    picture = np.asarray(Image.open(tmp_path / "out" / "trained_generated.png"))
    assert picture.shape == (8 * 14 + 2, 8 * 14 + 2, 3)
    assert np.ptp(picture[2:-2, 2:-2].astype(int), axis=2).max() > 20  # not grey


def test_the_history_is_the_trainings(run):
    out = run()
    header, rows = read_csv(out / "trained_history.csv")
    assert header == ["epoch", *COLUMNS] and [row[0] for row in rows] == [1, 2]
    model = saving.load_model(out / "trained.pt")[0]
    recon, kl, _ = evaluate.mean_terms(model, small_images().test)
    assert rows[-1][3:5] == [recon, kl]


def test_the_history_keeps_every_digit(tmp_path):
    history = History([1 / 3], [1e-9], [2 / 3], [12345.678901234567], [0.1])
    command.write_history(history, tmp_path / "it.csv")
    header, (row,) = read_csv(tmp_path / "it.csv")
    assert header == ["epoch", *COLUMNS]
    assert row == [1, 1 / 3, 1e-9, 2 / 3, 12345.678901234567, 0.1]


def test_no_epochs_leave_a_model_and_a_header(run):
    out = run("--epochs", "0")
    assert names(out) == FILES - {"trained.checkpoint"}
    assert read_csv(out / "trained_history.csv") == (["epoch", *COLUMNS], [])


def test_the_options_reach_the_training(run, monkeypatch):
    seen = {}

    def fit(model, images, **options):
        seen.update(options, model=model)
        return History(settings={"seed": 7})

    monkeypatch.setattr(train, "fit", functools.wraps(train.fit)(fit))  # with its defaults
    out = run(
        *("--lr", "0.02", "--schedule", "linear", "--beta", "3", "--network", "conv"),
        *("--binarisation", "threshold", "--seed", "7", "--latent-size", "5", "--name", "mine"),
    )
    expected = {"epochs": 2, "batch_size": 30, "lr": 0.02, "schedule": "linear", "beta": 3.0}
    expected |= {"binarisation": "threshold", "seed": 7, "progress": False, "resume": None}
    expected |= {"device": torch.device("cpu"), "checkpoint": out / "mine.checkpoint"}
    for name, value in expected.items():
        assert seen[name] == value, name
    torch.manual_seed(7)
    again = VAE(5, 16, network="conv")
    for name, tensor in seen["model"].state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert names(out) == {"mine.pt", "mine_history.csv", "mine_generated.png"}


def test_without_out_it_writes_where_the_lessons_do(tmp_path, run, monkeypatch):
    monkeypatch.setenv("VAE_LESSON_RESULTS", str(tmp_path / "theirs"))
    small = "--hidden-size 16 --batch-size 50 --epochs 1 --device cpu --quiet"
    main(small.split())
    assert names(tmp_path / "theirs") == FILES


def test_the_same_seed_gives_the_same_result_and_another_another(run, tmp_path):
    a, b, c = (run("--seed", seed, out=tmp_path / name) for seed, name in zip("112", "abc"))
    assert_same_result(a, b)
    assert (
        read_csv(a / "trained_history.csv")[1][0][1] != read_csv(c / "trained_history.csv")[1][0][1]
    )


# --- options --------------------------------------------------------------------------------------


def test_help_names_every_option_and_says_what_it_is():
    parser = command.parser(train.fit)
    text = parser.format_help()
    wanted = "data epochs batch-size lr schedule beta binarisation network latent-size hidden-size"
    wanted += " seed device name out resume restart quiet"
    options = {string: action for action in parser._actions for string in action.option_strings}
    assert {f"--{name}" for name in wanted.split()} <= set(options)
    for string, action in options.items():
        assert string in text and len(action.help) > 5, string
    assert "torchrun" in text and "default: mnist" in text
    assert "default: None" not in text  # what the default is, the text says


@pytest.mark.parametrize(
    "options, says",
    [
        ("--data cifar", "unknown data set 'cifar': choose one of mnist"),
        ("--epochs -1", "epochs must be a whole number of at least 0, got -1"),
        ("--epochs 1.5", "--epochs: invalid int value: '1.5'"),
        ("--batch-size 0", "batch_size must be a whole number of at least 1, got 0"),
        ("--batch-size many", "--batch-size: invalid int value: 'many'"),
        ("--lr 0", "lr must be a number over 0 and finite, got 0.0"),
        ("--lr nan", "lr must be a number over 0 and finite, got nan"),
        ("--lr fast", "--lr: invalid float value: 'fast'"),
        ("--beta inf", "beta must be 0 or more and finite, got inf"),
        ("--beta -1", "beta must be 0 or more and finite, got -1.0"),
        (
            "--schedule cosine",
            "unknown schedule 'cosine': choose one of constant, linear",
        ),
        ("--binarisation dither", "unknown binarisation 'dither': choose one of grey, dynamic"),
        ("--network gan", "unknown network 'gan': choose one of linear, mlp, deep, conv"),
        ("--latent-size 0", "latent_size must be a whole number of at least 1, got 0"),
        ("--latent-size 1000000000", "do not fit into memory: choose smaller ones"),
        ("--hidden-size -3", "hidden_size must be a whole number of at least 1, got -3"),
        ("--seed -1", "seed must be a whole number from 0 to 4,294,967,295, got -1"),
        (
            "--seed 4294967296",
            "seed must be a whole number from 0 to 4,294,967,295, got 4294967296",
        ),
        ("--device abacus", "device 'abacus' is not there: choose one of auto"),
        ("--name ../mine", "--name must be a plain name, got '../mine'"),
        ("--name=", "--name must be a plain name, got ''"),
        ("--name ..", "--name must be a plain name, got '..'"),
        ("--resume --restart", "--restart: not allowed with argument --resume"),
        ("--dropout 0.5", "unrecognized arguments: --dropout 0.5"),
    ],
)
def test_a_bad_option_is_named_and_leaves_nothing(run, tmp_path, capsys, options, says):
    with pytest.raises(SystemExit) as end:
        run(*options.split())
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert says in message and message.startswith("usage: python -m vae_lesson.train")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_file_where_the_folder_should_be_is_refused(run, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SystemExit) as end:
            run(out=out)
        assert end.value.code == 2 and str(tmp_path / "file") in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine" and names(tmp_path) == {"file"}


# --- bad ends, and going on -----------------------------------------------------------------------


def test_a_diverging_run_says_so_and_exits_with_1(tmp_path):
    done = trainer(tmp_path, "--lr", "1e30")
    assert done.returncode == 1
    assert done.stderr.startswith("python -m vae_lesson.train: training stopped in epoch 1, step 2")
    assert "a learning rate of 1e+30 is too high" in done.stderr
    assert "Traceback" not in done.stderr
    assert names(tmp_path) == set()


def interrupting(monkeypatch, call):
    """Let the terms raise KeyboardInterrupt at this call: 4 steps and an evaluation an epoch."""
    elbo_terms, calls = losses.elbo_terms, itertools.count(1)

    def terms(model, x, generator=None):
        if next(calls) == call:
            raise KeyboardInterrupt
        return elbo_terms(model, x, generator)

    for module in (losses, train):
        monkeypatch.setattr(module, "elbo_terms", terms)


def test_an_interrupt_keeps_the_checkpoint_and_the_last_finished_model(
    run, tmp_path, monkeypatch, capsys
):
    options = ("--epochs", "4", "--schedule", "linear", "--binarisation", "dynamic")
    whole = run(*options, out=tmp_path / "whole")
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
    assert_same_result(whole, earlier)
    assert names(earlier) == FILES


def test_a_repeated_command_does_not_destroy_a_checkpoint(run, capsys):
    out = run("--epochs", "3")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(SystemExit) as end:
        run("--epochs", "3")
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "trained.checkpoint holds 3 of 3 epochs of a training" in said
    assert "--resume" in said and "--restart" in said
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    run("--epochs", "1", "--restart")
    assert len(read_csv(out / "trained_history.csv")[1]) == 1


def test_a_folder_in_the_checkpoints_place_is_refused(run, tmp_path, capsys):
    (tmp_path / "out" / "trained.checkpoint").mkdir(parents=True)
    for options in ([], ["--resume"], ["--restart"]):
        with pytest.raises(SystemExit) as end:
            run(*options)
        assert end.value.code == 2
        assert "trained.checkpoint is a folder" in capsys.readouterr().err


def test_an_output_without_a_minus_sign_costs_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    done = trainer(tmp_path, encoding="cp1252")
    assert done.returncode == 0, done.stderr
    assert names(tmp_path) == FILES and "ELBO" in done.stdout


def test_a_closed_pipe_costs_nothing(tmp_path):
    command = [sys.executable, "-m", "vae_lesson.train", *SMALL.split(), "--out", str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert (process.stderr.read(), process.wait(120)) == ("", 0)
    assert names(tmp_path) == FILES


def test_a_folder_that_cannot_be_written_is_refused(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(SystemExit) as end:
        run()
    assert end.value.code == 2
    assert f"{tmp_path / 'out'} cannot be written" in capsys.readouterr().err


def test_resume_without_a_checkpoint_says_so_and_starts(run, tmp_path, capsys):
    plain = run(out=tmp_path / "plain")
    capsys.readouterr()
    resumed = run("--resume")
    assert "No trained.checkpoint: from the start." in capsys.readouterr().out
    assert_same_result(plain, resumed)


def test_resuming_another_training_is_refused_and_leaves_its_files(run, capsys):
    out = run()
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for options, says in [
        (["--lr", "0.1"], "trained.checkpoint is of another training: lr 0.01 there, 0.1 here"),
        (["--latent-size", "3"], "trained.checkpoint is of another training: network"),
    ]:
        with pytest.raises(SystemExit) as end:
            run("--resume", *options)
        assert end.value.code == 1 and says in capsys.readouterr().err
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before


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
