"""Several processes under torchrun: their gradients, their result, and the death of one."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shares
import torch
from tiny import coloured_folder, same_weights, weights

from vae_lesson.models import VAE
from vae_lesson.running import saving

pytestmark = pytest.mark.lessons


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def torchrun(script, *arguments, n, max_restarts=0):
    """Run a script in n processes and return what they printed."""
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={n}"]
    launcher += [f"--master-port={free_port()}", f"--max-restarts={max_restarts}", str(script)]
    tests = Path(__file__).parent
    process = subprocess.Popen(
        [*launcher, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{tests.parent}:{tests}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    try:
        printed, errors = process.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the workers too: they hold the pipes
        raise
    assert process.returncode == 0, errors
    return printed


# --- gradients and results ------------------------------------------------------------------------


def in_processes(folder, n, *seeds):
    """Return what each of n processes has left."""
    # A server that has imported torch forks the processes: each would take seconds to import it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["shares"])
    port = free_port()
    started = [
        context.Process(target=shares.work, args=(rank, n, port, seeds, folder))
        for rank in range(n)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
        assert process.exitcode == 0
    return [torch.load(folder / f"left{rank}", weights_only=True) for rank in range(n)]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return in_processes(tmp_path_factory.mktemp("two"), 2, 0, 1)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    return in_processes(tmp_path_factory.mktemp("three"), 3)


@pytest.mark.parametrize("n, batch_size", shares.CASES)
@pytest.mark.parametrize("n_processes", [2, 3])
def test_gradients_are_those_of_one_process(request, n_processes, n, batch_size):
    left = request.getfixturevalue({2: "two", 3: "three"}[n_processes])
    expected, expected_terms = shares.last_gradients(n, batch_size)
    parts = [each[f"gradients {n} {batch_size}"] for each in left]
    for gradients, terms in parts:
        # Not bit by bit: each process adds up its own images, and their sums are added then, while
        # one process adds all in one matrix product; floating-point sums depend on the order.
        for name, gradient in expected.items():
            scale = gradient.abs().max().item()
            torch.testing.assert_close(gradients[name], gradient, rtol=1e-6, atol=2e-6 * scale)
            assert torch.equal(gradients[name], parts[0][0][name])
        assert terms == pytest.approx(expected_terms, rel=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_two_processes_train_as_well_as_one(two, seed):
    parts = [each[f"trained {seed}"] for each in two]
    (state, test, _), (other_state, other_test, _) = parts
    assert same_weights(state, other_state) and test == other_test
    _, alone, _ = shares.trained(seed, model_seed=seed)
    assert alone[-1] < 0.6 * alone[0]  # it has learned something
    # With other noise: over eight seeds one process ends between 2.1 and 2.5, two 2.0 and 2.8.
    assert test[-1] == pytest.approx(alone[-1], rel=0.3)


def test_no_thread_of_gloo_outlives_the_training(two):
    for each in two:
        assert not [name for name in each["threads"] if "gloo" in name]


def test_each_process_has_noise_of_its_own_and_each_epoch_too(two):
    first, second = (set(each["trained 0"][2]) for each in two)
    assert len(first) == len(second) == 40 and not first & second
    assert not first & set(two[0]["trained 1"][2])  # nor has another seed the same


# --- the command ----------------------------------------------------------------------------------

# The command on small images; it notes which process writes; with a marker that is not there yet,
# the second process makes it and dies in the third epoch, at its second step.
HOOKED = """
import os
import signal
import sys
from pathlib import Path

import shares
import torch

from vae_lesson import __main__ as command
from vae_lesson import data, losses, sources

folder, marker = Path(sys.argv[1]), sys.argv[2]
rank = int(os.environ["RANK"])
images, labels = shares.noisy(130), torch.zeros(130).long()
sources.load_images = lambda name, **how: data.Images(
    "digits", images[:100], labels[:100], images[100:], labels[100:], ("noise",)
)
save, calls = torch.save, 0


def noted_save(content, path):
    with (folder / "writers").open("a") as file:
        file.write(f"{rank}\\n")
    save(content, path)


def mortal_terms(model, x, generator):
    global calls
    calls += 1  # 3 steps and an evaluation an epoch
    if marker != "none" and rank == 1 and calls == 2 * 4 + 2 and not (folder / marker).exists():
        (folder / marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return losses.elbo_terms(model, x, generator)


torch.save, command.elbo_terms = noted_save, mortal_terms
command.main(
    "--hidden-size 16 --epochs 4 --batch-size 40 --binarisation dynamic --device cpu --quiet "
    f"--out {folder / 'out'}".split()
)
"""


def run_hooked(folder, marker="none", **options):
    (folder / "hooked.py").write_text(HOOKED, encoding="utf-8")
    printed = torchrun(folder / "hooked.py", folder, marker, n=2, **options)
    return printed, (folder / "writers").read_text().split()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    return folder / "out", *run_hooked(folder)


def test_one_of_two_processes_prints_and_writes(unbroken):
    out, printed, writers = unbroken
    lines = printed.strip().splitlines()
    assert len(lines) == 1 + 4 + 1 + 1, printed  # the data, each epoch, the time, the files
    assert "digits: 100 training" in lines[0] and "in 2 processes" in lines[0]
    assert lines[-1].startswith("Saved trained.pt") and "No trained.checkpoint" not in printed
    files = {"trained.checkpoint", "trained.pt", "trained_history.csv", "trained_generated.png"}
    assert {path.name for path in out.iterdir()} == files
    assert writers == ["0"] * (4 + 1)  # a checkpoint an epoch, and the model
    assert isinstance(saving.load_model(out / "trained.pt")[0], VAE)


def test_a_process_that_dies_is_started_again_and_goes_on(unbroken, tmp_path):
    out, _, _ = unbroken
    printed, writers = run_hooked(tmp_path, "died", max_restarts=1)
    assert (tmp_path / "died").exists()
    assert "Going on from trained.checkpoint." in printed
    assert writers == ["0"] * (4 + 1)  # 2 epochs before and 2 after
    (model, info), (other, other_info) = (
        saving.load_model(folder / "trained.pt") for folder in (out, tmp_path / "out")
    )
    assert info == other_info and same_weights(weights(model), weights(other))
    rows, other_rows = (
        np.loadtxt(folder / "trained_history.csv", delimiter=",", skiprows=1)[:, :-1]
        for folder in (out, tmp_path / "out")
    )
    assert rows.shape == (4, 5) and np.array_equal(rows, other_rows)
    images = [(folder / "trained_generated.png").read_bytes() for folder in (out, tmp_path / "out")]
    assert images[0] == images[1]


def test_two_processes_train_on_one_reading_of_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_LESSON_DATA", str(tmp_path / "data"))
    coloured_folder(tmp_path / "mine", n=600)
    options = f"--data {tmp_path / 'mine'} --side 12 --hidden-size 32 --epochs 8 --batch-size 20"
    options += f" --lr 5e-3 2e-2 --device cpu --quiet --out {tmp_path}"
    assert torchrun("-m", "vae_lesson", *options.split(), n=2).count("600 pictures are few") == 1
    assert len(list((tmp_path / "data" / "pictures").glob("*.pixels"))) == 1
    history = np.loadtxt(tmp_path / "trained_history.csv", delimiter=",", skiprows=1)
    neg_elbo = history[:, 3] + history[:, 4]
    assert neg_elbo[-1] < 0.97 * neg_elbo[0]  # it has learned something
