"""Shared by all tests: results go to a temporary folder, never over the user's own, and no old
model gets in; and a lesson that nbval has run is judged by the numbers that it leaves there."""

import os
import tempfile
from pathlib import Path

import pytest

# The first Adam imports this, which fails while a test has torch.cuda patched: so import it now.
import torch._dynamo

# Models as small as the tests' only wait for a second thread. Before the package is imported, so
# that it takes no more; the notebooks' kernels take as many as there are.
torch.set_num_threads(1)

# Several workers: each kernel has its share of the cores, since convolutions wait for each other.
if (n_workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))) > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, os.cpu_count() // n_workers)))

if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit it: lessons go on from each other
    RESULTS = tempfile.TemporaryDirectory(prefix="vae_lesson_results_")
    os.environ["VAE_LESSON_RESULTS"] = RESULTS.name


@pytest.fixture(scope="module")
def browser():
    """Give Chromium, for the tests that skip where it is not."""
    import labs

    with labs.chromium() as browser:
        yield browser


@pytest.fixture(autouse=True)
def cpu_by_default(monkeypatch):
    """Without a device a test computes on the CPU, also where there is a better one."""
    from vae_lesson.running import machine

    devices = machine.devices
    monkeypatch.setattr(machine, "devices", lambda: devices()[::-1])


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path, parent: pytest.Collector):
    """Let a lesson's numbers follow its cells."""
    collected = yield
    if file_path.suffix == ".ipynb":
        collected.append(Lesson.from_parent(parent, path=file_path, name=f"{file_path.name} left"))
    return collected


class Lesson(pytest.File):
    def collect(self):
        yield Numbers.from_parent(self, name="numbers")


class Numbers(pytest.Item):
    """A lesson's closing table, of the run just made, lies in the bands of its data set."""

    def runtest(self) -> None:
        from bands import outside

        wrong = outside(self.path.stem, Path(os.environ["VAE_LESSON_RESULTS"]))
        if wrong:
            raise AssertionError("\n".join(wrong))

    def reportinfo(self):
        return self.path, None, f"{self.path.stem}: numbers"

    def repr_failure(self, excinfo):
        return str(excinfo.value)
