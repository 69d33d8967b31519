"""Every lesson, and the inspector, on a pretended GPU and a pretended Mac: see `pretended`."""

import copy
import functools

import numpy as np
import pytest
import torch
from draws import seeded
from lessons import NAMES, exercises, read
from play import Play, code_cells, few_images, offline
from pretended import pretended
from tiny import IMAGES, TEST, fit, new
from vaes import BROKEN, HEALTHY

from vae_lesson import sources
from vae_lesson.clinic.inspector import inspect_vae
from vae_lesson.explore.explorer import Explorer
from vae_lesson.priors.discrete import VQVAE
from vae_lesson.running import graphs

every_kind = pytest.mark.parametrize("kind", ["cuda", "mps"])
OFFLINE = {  # made once
    name: functools.cache(getattr(sources, name)) for name in ("offline_digits", "offline_photos")
}


class Touched(Play):
    """A lesson whose explorers are used."""

    def show(self, value) -> None:
        super().show(value)
        if isinstance(value, Explorer):
            touch(value)


def touch(explorer: Explorer) -> None:
    """Ask what its page asks, and show it as a picture, and to a page without a kernel."""
    said = []
    explorer.send = lambda content, buffers=None: said.append(content)
    codes = np.full((2, explorer.z.size), 0.5, np.float32)
    given = codes[0] if explorer._given == "z" else np.eye(28, dtype=np.uint8)
    explorer._answer(None, {"do": "move", "id": 1, "controls": {}}, [given.tobytes()])
    explorer._answer(None, {"do": "decode", "id": 2, "side": 28}, [codes.tobytes()])
    assert not [content for content in said if "error" in content]
    explorer._repr_mimebundle_()


ON = torch.arange(6.0)  # moved to the device before it is asked for
REFUSED = [
    ("cuda", lambda x: x.numpy(), TypeError, "numpy"),
    ("mps", lambda x: np.asarray(x), TypeError, "numpy"),
    ("cuda", lambda x: x + torch.ones(6), RuntimeError, "same device"),
    ("mps", lambda x: torch.stack([x.sum(), torch.ones(())]), RuntimeError, "same device"),
    ("cuda", lambda x: torch.ones(6)[x.long()], RuntimeError, "same device"),
    (
        "cuda",
        lambda x: torch.rand(2, device=x.device, generator=seeded()),
        RuntimeError,
        "generator",
    ),
    (
        "mps",
        lambda x: torch.rand(2, generator=torch.Generator(x.device)),
        RuntimeError,
        "generator",
    ),
    ("mps", lambda x: x.double(), TypeError, "float64"),
    ("mps", lambda x: torch.zeros(2, dtype=torch.float64, device="mps"), TypeError, "float64"),
    ("mps", lambda x: x.mode(), NotImplementedError, "mode"),
]


@pytest.mark.parametrize("kind, ask, error, words", REFUSED)
def test_the_pretended_device_refuses_what_a_real_one_does(kind, ask, error, words):
    with pretended(kind), pytest.raises(error, match=words):
        ask(ON.to(kind))


@every_kind
def test_fit_ends_there_with_the_weights_of_the_cpu(kind):
    ends = []
    for device in (kind, "cpu"):
        with pretended(kind):
            model = new()
            how = {"lr": (1e-3, 4e-3), "schedule": "linear", "from_mean": True, "device": device}
            fit(model, IMAGES, test=TEST, epochs=2, batch_size=10, binarisation="dynamic", **how)
            assert next(model.parameters()).device.type == device
            ends.append(torch.cat([weight.flatten() for weight in model.parameters()]).cpu())
    torch.testing.assert_close(*ends)  # on a GPU the rates are tensors of float32


@every_kind
def test_a_vq_vae_takes_images_from_the_cpu_for_their_tokens(kind):
    with pretended(kind):
        tokens = VQVAE().to(kind).tokens(torch.zeros((2, 28, 28), dtype=torch.uint8))
        assert tokens.device.type == kind


@pytest.mark.lessons
@every_kind
@pytest.mark.parametrize("name", NAMES)
def test_every_cell_runs_as_it_stands_and_with_its_solution(name, kind, monkeypatch, tmp_path):
    offline(monkeypatch, tmp_path)
    for each, images in OFFLINE.items():
        monkeypatch.setattr(sources, each, images)
    # 600: two whole batches also of `fit_fast`, of which the second is recorded.
    few_images(monkeypatch, 600, 10_000 if name < "05" else 500)
    monkeypatch.setattr(graphs, "WARM_UP", 1)
    solutions = {cell: parts for cell, *parts in exercises(read(name))}
    play, said = Touched(name, kind, **{"n_images": 600} if name > "06" else {}), ""
    with pretended(kind) as device:
        for cell in code_cells(name):
            said += play.run(cell)
            if cell.id in solutions:
                _, check, use, solution = solutions[cell.id]
                exec(solution, play.names)
                verdict = eval(check, play.names)
                assert verdict.ok, verdict
                exec(use, play.names)
    assert device.n_recorded > 0 or kind == "mps"
    # The constructor of lesson 02's Normal looks at its arguments, and so waits for the GPU.
    assert said.count("No CUDA graph") == (kind == "cuda" and name == "02_vae")


@pytest.mark.lessons
@every_kind
def test_the_inspector_says_there_what_it_says_on_the_cpu(kind):
    healthy = [("healthy", name, *pair) for name, pair in HEALTHY.items()]
    wrong = []
    for fault, name, model, loss in healthy + BROKEN:
        torch.manual_seed(0)
        x = (torch.randn(16, 1, 28, 28) / 2).clamp(0, 1)
        with pretended(kind):
            if isinstance(loss, torch.nn.Module):  # with weights of its own
                loss = copy.deepcopy(loss).to(kind)
            found = inspect_vae(model(n_latents=20).to(kind), loss, x.to(kind))
        if [finding.fault for finding in found] != [fault] * (fault != "healthy"):
            wrong.append((fault, name, found))
    assert wrong == []
