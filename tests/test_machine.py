"""machine: the device, as many threads as others leave cores, and nothing by importing."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tiny import IMAGES, fit, new

from vae_lesson.running import machine, processes
from vae_lesson.running.machine import Threads, pick_device

# --- importing does nothing, `prepare` does it once -----------------------------------------------


def run_alone(code):
    """Run this code in a process of its own."""
    where = {"cwd": Path(__file__).parent, "env": os.environ | {"OMP_NUM_THREADS": "2"}}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, **where
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_package_does_nothing_and_preparing_happens_once():
    run_alone("""
import importlib, os, pkgutil
import sklearn, torchvision  # they set variables of their own
from IPython.core.interactiveshell import InteractiveShell
from torch.optim.optimizer import _global_optimizer_post_hooks as hooks

os.environ.pop("MKL_CBWR", None)
cells = InteractiveShell.instance().events.callbacks["pre_run_cell"]

def state():
    return dict(os.environ), list(hooks.values()), list(cells)

import vae_lesson
before = state()
for module in pkgutil.walk_packages(vae_lesson.__path__, "vae_lesson."):
    importlib.import_module(module.name)
assert state() == before

from vae_lesson.running.machine import prepare, threads
for _ in range(2):
    prepare()
    environment, at_steps, at_cells = state()
    assert at_steps == [*before[1], threads.adapt] and at_cells == [*before[2], threads.adapt]
    assert environment == {"MKL_CBWR": "AUTO,STRICT"} | before[0]
""")


def test_after_preparing_the_number_of_threads_does_not_change_what_is_trained():
    run_alone("""
import math
import torch
import torch.distributed as dist
from tiny import fit, new, patterned_images, same_weights, weights
from vae_lesson import generation
from vae_lesson.running import machine, processes

machine.prepare()
machine.SECONDS = math.inf  # no look at the others meanwhile
images = patterned_images(600, side=28)

def trained(latent_size):
    model = new(latent_size=latent_size, hidden_size=400, input_size=784)
    fit(model, images, epochs=1)
    return model

def classifier(n_classes):
    return generation.fit_classifier(images, torch.arange(600) % n_classes, epochs=1)

for train, size in [(trained, 20), (trained, 2), (classifier, 10)]:
    results = []
    for n in (1, 2):
        torch.set_num_threads(n)
        results.append(weights(train(size)))
    assert same_weights(*results), (train.__name__, size)
""")


# --- devices --------------------------------------------------------------------------------------


@pytest.fixture
def cpu_by_default():
    """Not here: what a test gets without a device is the user's."""


@pytest.fixture
def devices(monkeypatch):
    """Pretend to have these devices."""

    def set_up(n_cuda=0, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n_cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n_cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return set_up


def test_images_that_would_take_half_of_a_gpus_room_stay_where_they_are(monkeypatch):
    images = torch.zeros(100, dtype=torch.uint8)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (200, 1000))
    assert machine.to_device(images, torch.device("cuda")) is images
    assert machine.to_device(images, torch.device("meta")).device.type == "meta"  # no GPU: always


@pytest.mark.parametrize(
    "n_cuda, mps, best",
    [(0, False, "cpu"), (0, True, "mps"), (2, False, "cuda"), (1, True, "cuda")],
)
def test_pick_device_takes_the_best_there_is_or_what_is_asked_for(devices, n_cuda, mps, best):
    devices(n_cuda, mps)
    assert pick_device() == pick_device("auto") == torch.device(best)
    assert pick_device("cpu") == pick_device(torch.device("cpu")) == torch.device("cpu")
    if n_cuda == 2:
        assert pick_device("cuda:1") == torch.device("cuda", 1)
    if mps:
        assert pick_device("mps:0") == torch.device("mps", 0)  # as its tensors say


@pytest.mark.parametrize(
    "device, n_cuda, there",
    [
        ("cuda", 0, "auto, cpu"),
        ("gpu", 0, "auto, cpu"),
        ("cuda:2", 2, "auto, cuda, cuda:0, cuda:1, cpu"),
        ("", 1, "auto, cuda, cuda:0, cpu"),
    ],
)
def test_an_absent_device_is_refused_with_those_there_are(devices, device, n_cuda, there):
    devices(n_cuda)
    with pytest.raises(ValueError) as error:
        pick_device(device)
    assert str(error.value) == f"device {device!r} is not there: choose one of {there}"


@pytest.fixture
def started_by_torchrun(monkeypatch):
    """Pretend to be the third of four processes on this machine."""
    variables = {"TORCHELASTIC_RUN_ID": "test", "LOCAL_RANK": 2, "RANK": 2, "LOCAL_WORLD_SIZE": 4}
    for name, value in (variables | {"WORLD_SIZE": 4}).items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(dist, "init_process_group", lambda *given, **how: None)


def test_processes_on_a_mac_compute_on_the_cpu_as_nothing_connects_mps(started_by_torchrun):
    assert processes.start(torch.device("mps")) == torch.device("cpu")


def test_more_processes_than_gpus_are_refused_in_a_line(started_by_torchrun, devices):
    devices(n_cuda=2)
    words = "torchrun started 4 processes here, a GPU each, and there are 2: use --nproc-per-node=2"
    with pytest.raises(ValueError, match=words):
        processes.start(torch.device("cuda"))


# --- threads --------------------------------------------------------------------------------------


class FourCores:
    """Four pretended cores: `after` lets us use some of them and others some."""

    def __init__(self, monkeypatch, tmp_path) -> None:
        self.wall = self.own = self.busy = 0.0
        self.n, self.cgroup = 4, tmp_path
        monkeypatch.setattr(machine.time, "perf_counter", lambda: self.wall)
        monkeypatch.setattr(machine.time, "process_time", lambda: self.own)
        monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
        monkeypatch.setattr(machine.psutil, "cpu_times", lambda percpu: 4 * [self.core()])
        monkeypatch.setattr(machine, "CGROUP", tmp_path)
        monkeypatch.setattr(torch, "get_num_threads", lambda: self.n)
        monkeypatch.setattr(torch, "set_num_threads", self.set)
        self.limits = []  # of OpenMP and BLAS
        monkeypatch.setattr(machine, "threadpool_limits", lambda limits: self.limits.append(limits))
        self.threads = Threads()

    def core(self):
        """Return one core's share of all work, and of the time that none did anything."""
        times = type("Times", (tuple,), {"idle": 10.0, "iowait": 1.0})
        return times((self.busy / 4, 10.0, 1.0))

    def set(self, n: int) -> None:
        self.n = n

    def after(self, seconds: float, own: float, others: float) -> int:
        """Let so many seconds pass, with so many cores busy; return the threads then."""
        self.wall += seconds
        self.own += own * seconds
        self.busy += (own + others) * seconds
        (self.cgroup / "cpu.stat").write_text(f"usage_usec {int(1e6 * self.busy)}\nuser_usec 0\n")
        self.threads.adapt()
        return self.n


@pytest.fixture
def cores(monkeypatch, tmp_path):
    return FourCores(monkeypatch, tmp_path)


def test_threads_are_the_cores_that_others_leave(cores):
    assert cores.after(0.3, 4, 0) == 4 and cores.limits == []  # alone it costs nothing
    assert cores.after(0.3, 2, 2) == 2 and cores.limits == [2]  # of OpenMP and BLAS too
    assert cores.after(0.3, 1, 3.9) == 1  # at least one
    assert cores.after(0.3, 1, 0.2) == 4  # a browser's fifth of a core is no reason
    assert cores.after(0.1, 1, 3) == 4  # too soon to look again
    assert cores.limits == [2, 1, 4]


def test_a_library_that_is_loaded_later_gets_the_limit_too(cores):
    for _ in range(2):
        cores.after(0.3, 2, 2)
    assert cores.limits == [2, 2]


def test_a_containers_quota_counts_and_so_do_its_own_processes_only(cores):
    (cores.cgroup / "cpu.max").write_text("200000 100000\n")  # two of the four cores
    cores.after(0, 0, 0)
    cores.threads = Threads()
    assert cores.after(0.3, 2, 0) == 2  # torch itself takes one for each core that it sees
    assert cores.after(0.3, 1, 1) == 1
    assert cores.after(0.3, 1, 0) == 2
    (cores.cgroup / "cpu.max").write_text("max 100000\n")  # no quota
    cores.n, cores.threads = 4, Threads()
    assert cores.after(0.3, 1, 2) == 2


@pytest.mark.parametrize("sharing", [True, False])
def test_what_must_not_change_keeps_all_threads(cores, sharing):
    cores.threads.sharing = sharing
    assert cores.after(0.3, 2, 2) == 2
    with cores.threads.all():
        # Where nobody has asked to share, the number of threads is the user's own business.
        assert cores.after(0.3, 2, 2) == (4 if sharing else 2)
    assert cores.after(0.3, 0, 4) == 1


def test_a_convolution_is_trained_on_all_threads(monkeypatch):
    seen = []
    monkeypatch.setattr(machine, "SECONDS", math.inf)  # no look at the others meanwhile
    monkeypatch.setattr(machine.threads, "most", 7)
    monkeypatch.setattr(machine.threads, "sharing", True)
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    fit(new(), IMAGES, epochs=1)
    assert seen == []
    fit(new(network="conv"), IMAGES, epochs=1)
    assert seen == [7]
