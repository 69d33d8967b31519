"""threads: as many as the cores that other processes leave."""

import math
import subprocess
import sys

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from tiny import IMAGES, fit, new, patterned_images, same_weights, weights

from vae_lesson import generation
from vae_lesson.models import VAE
from vae_lesson.running import threads
from vae_lesson.running.threads import Threads


class Machine:
    """Four pretended cores: `pass_time` lets us use some of them and others some."""

    def __init__(self, monkeypatch, tmp_path) -> None:
        self.wall = self.own = self.busy = 0.0
        self.n, self.cgroup = 4, tmp_path
        monkeypatch.setattr(threads.time, "perf_counter", lambda: self.wall)
        monkeypatch.setattr(threads.time, "process_time", lambda: self.own)
        monkeypatch.setattr(threads.os, "cpu_count", lambda: 4)
        monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
        monkeypatch.setattr(threads.psutil, "cpu_times", lambda percpu: 4 * [self.core()])
        monkeypatch.setattr(threads, "CGROUP", tmp_path)
        monkeypatch.setattr(torch, "get_num_threads", lambda: self.n)
        monkeypatch.setattr(torch, "set_num_threads", self.set)
        self.limits = []  # of OpenMP and BLAS
        monkeypatch.setattr(threads, "threadpool_limits", lambda limits: self.limits.append(limits))

    def core(self):
        """Return one core's share of all work, and of the time that none did anything."""
        times = type("Times", (tuple,), {"idle": 10.0, "iowait": 1.0})
        return times((self.busy / 4, 10.0, 1.0))

    def set(self, n: int) -> None:
        self.n = n

    def pass_time(self, seconds: float, own: float, others: float) -> None:
        self.wall += seconds
        self.own += own * seconds
        self.busy += (own + others) * seconds
        (self.cgroup / "cpu.stat").write_text(f"usage_usec {int(1e6 * self.busy)}\nuser_usec 0\n")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    return Machine(monkeypatch, tmp_path)


def test_threads_are_the_cores_that_others_leave(machine):
    ours = Threads()

    def after(*how) -> int:
        machine.pass_time(*how)
        ours.adapt()
        return machine.n

    assert after(0.3, 4, 0) == 4 and machine.limits == []  # alone it costs nothing
    assert after(0.3, 2, 2) == 2 and machine.limits == [2]  # of OpenMP and BLAS too
    assert after(0.3, 1, 3.9) == 1  # at least one
    assert after(0.3, 1, 0.2) == 4  # a browser's fifth of a core is no reason
    assert after(0.1, 1, 3) == 4  # too soon to look again
    assert machine.limits == [2, 1, 4]


def test_a_library_that_is_loaded_later_gets_the_limit_too(machine):
    ours = Threads()
    for _ in range(2):
        machine.pass_time(0.3, 2, 2)
        ours.adapt()
    assert machine.limits == [2, 2]


def test_a_containers_quota_counts_and_so_do_its_own_processes_only(machine):
    (machine.cgroup / "cpu.max").write_text("200000 100000\n")  # two of the four cores
    machine.pass_time(0, 0, 0)
    ours = Threads()
    machine.pass_time(0.3, 2, 0)
    ours.adapt()
    assert machine.n == 2  # torch itself takes one for each core that it sees
    machine.pass_time(0.3, 1, 1)
    ours.adapt()
    assert machine.n == 1
    machine.pass_time(0.3, 1, 0)
    ours.adapt()
    assert machine.n == 2
    (machine.cgroup / "cpu.max").write_text("max 100000\n")  # no quota
    unlimited = Threads()
    machine.n = 4
    machine.pass_time(0.3, 1, 2)
    unlimited.adapt()
    assert machine.n == 2


def test_what_must_not_change_keeps_all_threads(machine):
    ours = Threads()
    machine.pass_time(0.3, 2, 2)
    ours.adapt()
    with ours.held():
        assert machine.n == 4
        machine.pass_time(0.3, 2, 2)
        ours.adapt()
        assert machine.n == 4
    machine.pass_time(0.3, 2, 2)
    ours.adapt()
    assert machine.n == 2


def test_every_loop_with_an_optimizer_and_every_cell_looks(monkeypatch):
    looks = []
    monkeypatch.setattr(threads, "SECONDS", 0.0)
    monkeypatch.setattr(threads, "_busy", lambda: looks.append(1) or 0.0)
    monkeypatch.setattr(threads.threads, "most", 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    weight.sum().backward()
    optimizer.step()
    assert len(looks) > 0


def test_a_notebooks_cells_look_however_the_kernel_was_started():
    code = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
from vae_lesson.running.threads import threads
assert threads.adapt in shell.events.callbacks["pre_run_cell"]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert not InteractiveShell.initialized()  # here there is no notebook, and none is made


def vae_of(latent_size):
    def train(images):
        torch.manual_seed(0)
        model = VAE(latent_size, 400)
        fit(model, images, epochs=1)
        return model

    return train


def classifier(images):
    return generation.fit_classifier(images, torch.arange(len(images)) % 10, epochs=1)


@pytest.mark.parametrize("train", [vae_of(20), vae_of(2), classifier], ids=["20", "2", "classes"])
def test_the_number_of_threads_does_not_change_the_result(train):
    images = patterned_images(2000, side=28)
    before, results = torch.get_num_threads(), []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            results.append(weights(train(images)))
    finally:
        torch.set_num_threads(before)
    assert same_weights(*results)


def test_a_convolution_is_trained_on_all_threads(monkeypatch):
    seen = []
    monkeypatch.setattr(threads, "SECONDS", math.inf)  # no look at the others meanwhile
    monkeypatch.setattr(threads.threads, "most", 7)
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    fit(new(), IMAGES, epochs=1)
    assert seen == []
    fit(new(network="conv"), IMAGES, epochs=1)
    assert seen == [7]
