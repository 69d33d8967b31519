"""devices: which one is taken, and what is said of one that is not there."""

import pytest
import torch

from vae_lesson.running import devices

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def machine(monkeypatch):
    """Pretend to have these devices."""

    def set_up(n_cuda=0, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n_cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n_cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return set_up


def test_images_that_would_take_half_of_a_gpus_room_stay_where_they_are(monkeypatch):
    images = torch.zeros(100, dtype=torch.uint8)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (200, 1000))
    assert devices.moved(images, torch.device("cuda")) is images
    assert devices.moved(images, torch.device("meta")).device.type == "meta"  # no GPU: always


@pytest.mark.parametrize(
    "n_cuda, mps, best",
    [(0, False, "cpu"), (0, True, "mps"), (2, False, "cuda"), (1, True, "cuda")],
)
def test_pick_device_takes_the_best_there_is(machine, n_cuda, mps, best):
    machine(n_cuda, mps)
    assert devices.pick_device() == devices.pick_device("auto") == torch.device(best)
    assert devices.pick_device("cpu") == torch.device("cpu")
    assert devices.pick_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize(
    "device, n_cuda, there",
    [
        ("cuda", 0, "auto, cpu"),
        ("mps", 0, "auto, cpu"),
        ("gpu", 0, "auto, cpu"),
        ("cuda:2", 2, "auto, cuda, cuda:0, cuda:1, cpu"),
        ("", 1, "auto, cuda, cuda:0, cpu"),
    ],
)
def test_an_absent_device_is_refused_with_those_there_are(machine, device, n_cuda, there):
    machine(n_cuda)
    with pytest.raises(ValueError) as error:
        devices.pick_device(device)
    assert str(error.value) == f"device {device!r} is not there: choose one of {there}"


def test_one_gpu_of_several_can_be_chosen(machine):
    machine(n_cuda=2)
    assert devices.pick_device("cuda:1") == torch.device("cuda", 1)
