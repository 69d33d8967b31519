"""The playground's VAE without a browser: its gradients beside torch's, what it collapses of, and
how it takes orders. JavaScript runs in node; without it those tests skip."""

import itertools
import json
import shutil
import subprocess

import numpy as np
import pytest
import torch
from lessons import NAMES
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from vae_lesson.explore.explorer import FRONT, script
from vae_lesson.explore.playground import TOUR, tiny_digits

NODE = shutil.which("node")
in_node = pytest.mark.skipif(NODE is None, reason="there is no node here")
USUAL = {"model": "vae", "beta": 1, "lr": 0.005, "latent_size": 2, "seed": 0, "speed": "full"}
USUAL |= {"blocked": False, "mean": False, "manifold": False, "pause": 100}
N_STEPS, BATCH = 50, 16


def run_in_node(code: str, given: object) -> object:
    """Return what JavaScript gives as `result`, of the playground's modules and of `given`."""
    modules = script(*(FRONT / f"{name}.js" for name in ("parts", "vae", "trainer", "paint")))
    modules += script(*(FRONT / f"{name}.js" for name in ("tour", "playground")))
    modules += f"\nconst given = {json.dumps(given)};\n{code}"
    whole = f"{modules}\nconsole.log(JSON.stringify(result));"
    node = [NODE, "--input-type=module", "-"]
    done = subprocess.run(node, input=whole, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def as_layer(layer: nn.Linear) -> torch.Tensor:
    """Return a layer's weights in the order of vae.js."""
    return torch.cat([layer.weight.flatten(), layer.bias]).detach()


def by_torch(layers: nn.ModuleList, x, eps, case: dict) -> list[list[float]]:
    """Train for a step on each batch by torch's own gradients and Adam; return [recon, kl] each."""
    optimizer = torch.optim.Adam(layers.parameters(), lr=1e-2)
    terms = []
    for batch, noise in zip(x, eps):
        mu, log_var = layers[1](layers[0](batch).relu()).chunk(2, dim=1)
        z = mu if case["autoencoder"] else mu + torch.exp(0.5 * log_var) * noise
        if case["blocked"]:
            z = z.detach()
        logits = layers[3](layers[2](z).relu())
        nll = binary_cross_entropy_with_logits(logits, batch, reduction="none")
        recon, kl = nll.sum(1).mean(), torch.tensor(0.0)
        if not case["autoencoder"]:
            kl = 0.5 * (mu**2 + log_var.exp() - 1 - log_var).sum(1).mean()
        loss = (nll.mean() if case["mean"] else recon) + case["beta"] * kl
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        terms.append([recon.item(), kl.item()])
    return terms


CASES = {
    "VAE": {},
    "8 numbers": {"latent_size": 8},
    "beta 4": {"beta": 4.0},
    "beta 0": {"beta": 0.0},
    "autoencoder": {"autoencoder": True},
    "blocked": {"blocked": True},
    "mean over pixels": {"mean": True},
}


@in_node
@pytest.mark.parametrize("name", CASES)
def test_its_weights_after_fifty_steps_are_torchs(name):
    case = {"latent_size": 2, "beta": 1.0, "autoencoder": False, "blocked": False, "mean": False}
    case |= CASES[name]
    torch.manual_seed(0)
    sizes = [(64, 64), (64, 2 * case["latent_size"]), (case["latent_size"], 64), (64, 64)]
    layers = nn.ModuleList(nn.Linear(*size, dtype=torch.float64) for size in sizes)
    x = torch.rand((N_STEPS, BATCH, 64), dtype=torch.float64)
    eps = torch.randn((N_STEPS, BATCH, case["latent_size"]), dtype=torch.float64)
    given = {"start": [as_layer(layer).tolist() for layer in layers], "case": case}
    given |= {"x": x.flatten(1).tolist(), "eps": eps.flatten(1).tolist()}
    code = """
        const { latent_size: latentSize, beta, autoencoder, blocked, mean } = given.case;
        const vae = vaeByHand();
        const model = vae.newModel({ latentSize });
        given.start.forEach((weights, i) => model.layers[i].weights.set(weights));
        const terms = given.x.map((batch, i) => {
          const eps = autoencoder ? null : Float64Array.from(given.eps[i]);
          const how = { beta, blocked, meanOverPixels: mean };
          const { recon, kl } = vae.gradients(model, Float64Array.from(batch), eps, how);
          vae.adam(model, 1e-2);
          return [recon, kl];
        });
        const result = { terms, weights: model.layers.map(({ weights }) => [...weights]) };"""
    found = run_in_node(code, given)
    terms = by_torch(layers, x, eps, case)
    np.testing.assert_allclose(found["terms"], terms, atol=1e-9)
    for weights, layer in zip(found["weights"], layers):
        np.testing.assert_allclose(weights, as_layer(layer), atol=1e-9)  # 3e-13, November 2026


def trained(*messages: dict) -> list[dict]:
    """Return what the trainer has said last after each message, the arrays as lists. {"settings"}
    is what is not usual; {"steps": n} is "run" until there are so many, then "pause"."""
    images = {name: list(tiny_digits()[name]) for name in ("train", "test")}
    code = """
        const pixels = (levels) => Float64Array.from(levels, (level) => level / 16);
        const images = { train: pixels(given.images.train), test: pixels(given.images.test) };
        const said = {};
        const hear = trainer(vaeByHand(), images, (message) => Object.assign(said, message));
        const result = [];
        for (const message of given.messages) {
          hear(message.steps ? { order: "run" } : message);
          while (said.step < message.steps) await new Promise((resolve) => setTimeout(resolve, 5));
          if (message.steps) hear({ order: "pause" });
          const list = (value) => (value?.length ? [...value] : value);
          result.push(Object.fromEntries(Object.entries(said).map(([k, v]) => [k, list(v)])));
        }"""
    told = [{"settings": USUAL | m["settings"]} if "settings" in m else m for m in messages]
    return run_in_node(code, {"images": images, "messages": told})


@in_node
@pytest.mark.lessons
def test_beta_4_collapses_and_beta_1_does_not_with_five_seeds():
    """Lesson 02 says so, and these numbers."""
    found = {1: [], 4: []}
    for beta, seed in itertools.product(found, range(5)):
        (*_, end) = trained({"settings": {"beta": beta, "seed": seed}}, {"steps": 1000})
        found[beta].append(round(end["kl"], 2))
    assert max(found[4]) < 0.005 and 1.8 < min(found[1]) < max(found[1]) < 2.4, found


@in_node
@pytest.mark.parametrize("stop", TOUR, ids=[stop["title"] for stop in TOUR])
def test_a_stop_of_the_tour_ends_as_it_says(stop):
    """And what there is to do then does what it says."""
    after = {1: {"beta": 1}, 3: {}, 4: {"mean": True, "beta": 0.02}}.get(TOUR.index(stop))
    more = [] if after is None else [{"settings": after}, {"steps": 3000}]
    _, end, *last = trained({"settings": stop["set"]}, {"steps": 600}, *more)
    if stop["set"].get("model") == "autoencoder":
        assert end["kl"] is None and not end["logVar"] and end["spread"] > 2
    elif stop["set"].get("beta") == 0:
        assert end["kl"] > 10
    else:
        assert end["kl"] < 0.05
    assert not last or 1 < last[-1]["kl"] < 3
    right = {"spread": "at least twice as wide", "kl": "2 to 3" if stop.get("until") else "0 nats"}
    assert right[stop["watch"]] == stop["answers"][stop["right"]]
    assert stop["set"].keys() <= USUAL.keys() and stop["lesson"][0] in NAMES


@in_node
def test_the_trainer_takes_orders_and_a_seed_fixes_it():
    start, *first, again = trained(
        {"settings": {}}, {"order": "step"}, {"order": "step"}, {"order": "again"}
    )
    assert [each["step"] for each in (start, *first, again)] == [0, 1, 2, 0]
    assert again == start and first[1]["recon"] != first[0]["recon"]
    assert trained({"settings": {}}, {"order": "step"})[-1] == first[0]
    assert trained({"settings": {"seed": 1}})[-1]["recon"] != start["recon"]
    for size in (2, 8):  # another size begins anew, another beta does not
        *_, beta, there, bigger = trained(
            {"settings": {"latent_size": size}},
            {"order": "step"},
            {"settings": {"latent_size": size, "beta": 2, "manifold": True}},
            {"z": [0.5, -1]},
            {"settings": {"latent_size": 10 - size}},
        )
        assert beta["step"] == 1 and bigger["step"] == 0
        assert len(beta["mu"]) == 179 * size and len(beta["rebuilt"]) == 10 * 64
        assert len(beta["drawn"]) == 20 * 64 and len(there["decoded"]) == 64
        assert there["decoded"] != beta["decoded"]
        assert (beta["manifold"] is None) == (size == 8)  # there is no plane of eight


@in_node
def test_the_first_terms_are_those_of_a_code_that_says_nothing():
    """Untrained, x̂ is about 1/2 everywhere: recon is 64 log 2, less or more by its weights."""
    (start,) = trained({"settings": {}})
    assert start["recon"] == pytest.approx(64 * np.log(2), rel=0.05)
    assert start["kl"] < 0.1 and start["spread"] == pytest.approx(1, abs=0.1)


@in_node
def test_settings_travel_in_the_address_and_nonsense_is_as_usual():
    usual = {name: value for name, value in USUAL.items() if name != "pause"}
    changed = {"model": "autoencoder", "beta": 0.25, "lr": 0.02, "latent_size": 8, "seed": 7}
    changed |= {"speed": "slow", "blocked": True, "mean": True, "manifold": True}
    code = "const result = [toAddress(given), fromAddress(toAddress(given))]"
    assert run_in_node(code, usual) == ["#", usual]
    assert run_in_node(code, changed)[1] == changed
    for address, found in {
        "": {},
        "#the-lessons": {},
        "#beta=4&foo=1": {"beta": 4},
        "#beta=1e9&lr=-1&seed=2.6": {"beta": 8, "lr": 0.0001, "seed": 3},
        "#beta=&latent_size=3&model=gan&blocked=yes&seed=NaN": {},
        "#__proto__=1&constructor=2&toString=3": {},
        "#%E0%A4%A": {},
    }.items():
        assert run_in_node("const result = fromAddress(given)", address) == usual | found, address


def test_a_tenth_of_the_digits_is_held_out_and_begins_with_one_of_each():
    found = tiny_digits()
    train, test = (
        np.frombuffer(found[name], np.uint8).reshape(-1, 64) for name in ("train", "test")
    )
    assert len(train) == 1618 and len(test) == len(found["labels"]) == 179
    assert found["labels"][:10] == [*range(10)]
    assert train.max() == 16 and not {*map(bytes, train)} & {*map(bytes, test)}
