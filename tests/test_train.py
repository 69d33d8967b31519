"""train: the loop, its history, interrupts and divergence, on the CPU and on a GPU."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA
from tiny import (
    IMAGES,
    TEST,
    fit,
    interrupt,
    new,
    patterned_images,
    same_weights,
    spoilt,
    terms_with,
    weights,
)
from torch import nn

from vae_lesson import evaluate, losses, train
from vae_lesson.adapter import adapt
from vae_lesson.data import Images, to_float
from vae_lesson.models import VAE, Autoencoder, reparameterize
from vae_lesson.priors.conditional import ConditionalVAE, one_hot
from vae_lesson.running import training

LABELS = torch.arange(len(IMAGES)) % 3

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Own(nn.Module):
    """A learner's network, as lesson 11's readers bring them."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(16, 8), nn.ReLU())
        self.heads = nn.Linear(8, 4)
        self.decoder = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 16))

    def encode(self, x):
        return self.heads(self.encoder(x)).chunk(2, dim=1)

    def decode(self, z):
        return self.decoder(z)


def own():
    torch.manual_seed(0)
    return Own()


def adapted():
    return adapt(own(), (1, 4, 4), pixels=(-1, 1))


def conditional():
    torch.manual_seed(0)
    return ConditionalVAE(2, 8, n_classes=3, n_pixels=16)


def seeing(shift):
    """Return a VAE's terms whose encoder sees the images less `shift`; labels may come with them,
    as pixels behind them."""

    def terms(model, x, *labels, generator):
        told = [one_hot(labels[0], 3)] if labels else []
        mu, log_var = model.encode(x - shift, *told)
        x_logits = model.decode(reparameterize(mu, log_var, generator=generator), *told)
        kl = losses.kl_standard_normal(mu, log_var)
        return {"recon": losses.bernoulli_nll(x_logits, x), "kl": kl}

    return terms


# --- fit ------------------------------------------------------------------------------------------


def test_fit_is_the_nine_lines_of_a_notebook_bit_for_bit():
    ours, model = new(), new()
    fit(ours, IMAGES, epochs=3, batch_size=13)

    x, generator = to_float(IMAGES), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    for _ in range(3):
        for index in torch.randperm(len(x), generator=generator).split(13):
            terms = losses.elbo_terms(model, x[index], generator)
            loss = (terms["recon"] + terms["kl"]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    assert same_weights(weights(ours), weights(model))


def test_fit_is_bit_identical_for_a_seed_and_leaves_the_global_random_state():
    model, again, other = new(), new(), new()
    state = torch.get_rng_state()
    how = {"epochs": 3, "batch_size": 16, "binarisation": "dynamic", "test": TEST}
    history = fit(model, IMAGES, **how, seed=1)
    assert fit(again, IMAGES, **how, seed=1).test == history.test
    assert same_weights(weights(again), weights(model))
    assert fit(other, IMAGES, **how, seed=2).train != history.train
    assert not same_weights(weights(other), weights(model))
    assert torch.equal(torch.get_rng_state(), state)


def test_every_epoch_takes_every_image_once_with_its_label_in_a_new_order():
    numbers, tokens = torch.arange(64), torch.arange(128).view(64, 2)
    seen = {True: [], False: []}  # in training, in the evaluation

    def terms(model, x, number, token, generator):
        assert torch.equal(x, to_float(IMAGES[number])) and torch.equal(token, tokens[number])
        seen[model.training].extend(number.tolist())
        return losses.elbo_terms(model, x, generator)

    test = IMAGES[:5], numbers[:5], tokens[:5]
    fit(new(), IMAGES, numbers, tokens, epochs=2, batch_size=16, terms=terms, test=test)
    first, second = seen[True][:64], seen[True][64:]
    assert sorted(first) == sorted(second) == numbers.tolist()
    assert first != second and numbers.tolist() not in (first, second)
    assert seen[False] == 2 * [0, 1, 2, 3, 4]


def test_history_is_the_mean_over_images_also_with_a_small_last_batch():
    model = new(Autoencoder)
    x = to_float(IMAGES)
    expected = (x - model(x)[0]).square().sum(dim=1).mean().item()
    # 64 images in batches of 60: a mean of batch means would weigh the last four 15 times. With
    # this learning rate the model does not move.
    history = fit(model, IMAGES, epochs=1, batch_size=60, lr=1e-30)
    assert history.train == {"squared error": [pytest.approx(expected, rel=1e-5)]}


def test_history_has_the_terms_their_sums_and_the_seconds():
    model = new()
    history = fit(model, IMAGES, epochs=3, test=TEST, seed=3)
    assert history.total == [a + b for a, b in zip(history.train["recon"], history.train["kl"])]
    means = evaluate.mean_terms(model, TEST, seed=3)  # at the last epoch's end
    assert (history.test["recon"][-1], history.test["kl"][-1]) == (means.recon, means.kl)
    assert history.test_total[-1] == means.neg_elbo and len(history.test_total) == 3
    assert 0 < history.seconds[0] < history.seconds[1] < history.seconds[2]
    assert history.stopped is None
    assert fit(new(), IMAGES, epochs=2).test == {}


def three_terms(model, x, generator):
    named = losses.elbo_terms(model, x, generator)
    return {"size of z": model.encode(x)[0].square().sum(dim=1), **named}


def test_terms_go_by_their_own_names_in_history_bar_and_checkpoint(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # else tqdm cuts its line, as in a narrow terminal
    options = {"epochs": 2, "test": TEST, "terms": three_terms}
    options |= {"checkpoint": tmp_path / "it.checkpoint", "progress": True}
    history = fit(new(), IMAGES, **options)
    assert list(history.train) == list(history.test) == ["size of z", "recon", "kl"]
    for part, total in ((history.train, history.total), (history.test, history.test_total)):
        assert total == pytest.approx(np.sum([*part.values()], axis=0))
    named = " + ".join(f"{name} {values[-1]:.1f}" for name, values in history.test.items())
    shown = capsys.readouterr().err
    assert "epoch 2/2" in shown and f"test {named} = {history.test_total[-1]:.1f}]" in shown
    assert fit(new(seed=1), IMAGES, **options, resume=True) == history


def test_one_term_is_shown_without_a_sum_and_the_bar_can_be_turned_off(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    history = fit(new(Autoencoder), IMAGES, epochs=1, test=TEST, progress=True)
    shown = capsys.readouterr().err
    assert f"test squared error {history.test_total[0]:.1f}]" in shown
    fit(new(), IMAGES, epochs=1)
    assert capsys.readouterr() == ("", "")


def test_beta_weighs_what_is_called_kl_and_nothing_else():
    def ends(name, beta):
        def terms(model, x, generator):
            recon, kl = losses.elbo_terms(model, x, generator).values()
            return {"recon": recon, name: kl}

        how = {"epochs": 60, "batch_size": 16, "lr": 5e-3, "beta": beta, "terms": terms}
        return fit(new(), IMAGES, **how).train[name][-1]

    free, plain, pressed = (ends("kl", beta) for beta in (0.0, 1.0, 20.0))
    assert free > 2 * plain > 4 * pressed
    assert ends("divergence", 20.0) == plain


@pytest.mark.parametrize(
    "given, got",
    [
        (lambda terms: (terms["recon"], terms["kl"]), r"\[\(13,\), \(13,\)\]"),
        (lambda terms: terms["recon"], r"\(13,\)"),
        (lambda terms: terms | {"kl": terms["kl"].mean()}, r"{'recon': \(13,\), 'kl': \(\)}"),
        (lambda terms: {"kl": terms["kl"][:, None]}, r"{'kl': \(13, 1\)}"),
        (lambda terms: {"kl": 0.0}, "{'kl': 'float'}"),
        (lambda terms: {}, "dict"),
    ],
    ids=["tuple", "tensor", "mean", "column", "number", "nothing"],
)
def test_terms_that_are_not_a_value_an_image_are_refused_before_any_step(given, got):
    model = new()
    before = weights(model)
    with pytest.raises(ValueError, match=rf"return {{name: \(13,\)}} for 13 images, .* got {got}$"):
        fit(model, IMAGES, batch_size=13, terms=terms_with(given, call=1))
    assert same_weights(weights(model), before)


def test_binarisation_reaches_training_and_test():
    seen = set()

    def terms(model, x, generator):
        seen.update(x.unique().tolist())
        return losses.elbo_terms(model, x, generator)

    for binarisation in ("dynamic", "threshold"):
        fit(new(), IMAGES, epochs=1, binarisation=binarisation, terms=terms, test=TEST)
        assert seen == {0.0, 1.0}
    fit(new(), IMAGES, epochs=1, terms=terms)
    assert len(seen) > 10


def test_zero_epochs_leave_the_model_as_it_is():
    model = new()
    before = weights(model)
    history = fit(model, IMAGES, epochs=0, schedule="linear", test=TEST)
    assert len(history) == 0 and history.total == history.test_total == []
    assert same_weights(weights(model), before)


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_a_batch_may_be_larger_than_the_data(schedule):
    model = new()
    before = weights(model)
    assert len(fit(model, IMAGES[:1], epochs=1, batch_size=500, schedule=schedule)) == 1
    assert not same_weights(weights(model), before)


DIGITS = Images("digits", IMAGES, LABELS, TEST, LABELS[:20], ("0",))


@pytest.mark.parametrize(
    "options, says",
    [
        ({"epochs": -1}, "epochs must be a whole number of at least 0, got -1"),
        ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1, got 2.5"),
        ({"lr": 0.0}, "lr must be a number over 0 and finite, got 0.0"),
        ({"lr": math.nan}, "lr must be a number over 0 and finite, got nan"),
        ({"lr": (1e-3, math.inf)}, "lr must be a number over 0 and finite, got inf"),
        ({"lr": (1e-3, 1e-3, 1e-3)}, "lr must be a number over 0 and finite, got .0.001, 0.001"),
        ({"beta": None}, "beta must be a number, or a function that gives one: None"),
        ({"beta": -1}, "beta must be 0 or more and finite, got -1.0"),
        ({"beta": lambda t: math.inf if t > 0.9 else 1.0}, "beta must be .* finite, got inf"),
        ({"seed": -1}, "seed must be a whole number from 0 to"),
        ({"schedule": "cosine"}, "unknown schedule 'cosine': choose one of constant, linear"),
        ({"binarisation": "dither", "epochs": 0}, "unknown binarisation 'dither': .* of grey"),
        ({"images": DIGITS}, "images must be one tensor .* load_images.*train, got Images"),
        ({"test": TEST.float() / 255}, r"test must be .* got \(20, 4, 4\) of torch.float32"),
        ({"device": "abacus"}, "'abacus' is not there: choose one of auto, .*cpu"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_bad_argument_is_refused_before_any_training(options, says):
    model = new()
    before = weights(model)
    options = {"images": IMAGES, "epochs": 1, **options}
    with pytest.raises(ValueError, match=says):
        fit(model, options.pop("images"), **options)
    assert same_weights(weights(model), before)


def test_beta_may_be_a_function_of_the_progress():
    seen = []

    def beta(progress):
        seen.append(progress)
        return 0.5

    scheduled, constant = new(), new()
    fit(scheduled, IMAGES, epochs=3, batch_size=16, beta=beta)
    fit(constant, IMAGES, epochs=3, batch_size=16, beta=0.5)
    assert same_weights(weights(scheduled), weights(constant))
    steps = seen[-12:]  # before, it is looked at for numbers that are not finite
    assert steps == [i / 11 for i in range(12)]


def test_a_linear_autoencoder_becomes_pca():
    images = patterned_images(512, side=6)
    model = new(Autoencoder, 3, input_size=36, network="linear")
    fit(model, images, epochs=150, batch_size=64, lr=0.1, schedule="linear")
    pca = PCA().fit(images.flatten(1) / 255)
    (best,) = evaluate.pca_errors(pca, images, [3])
    error = evaluate.reconstruction_error(model, images)
    assert best * 0.9999 < error < best * 1.01
    weight = model.decoder.weight.detach().numpy()
    assert np.rad2deg(subspace_angles(weight, pca.components_[:3].T).max()) < 1


# --- interrupts and divergence --------------------------------------------------------------------


def test_an_interrupt_keeps_model_and_history_and_says_where(capsys):
    two, model = new(), new()
    two_epochs = fit(two, IMAGES, epochs=2, batch_size=16)  # 4 steps an epoch
    history = fit(model, IMAGES, epochs=5, batch_size=16, terms=terms_with(interrupt, call=9))
    # The ninth step never came to be: the model is that of two whole epochs.
    assert same_weights(weights(model), weights(two))
    assert history.train == two_epochs.train and len(history.seconds) == 2
    assert history.stopped == "interrupted in epoch 3 of 5, step 1 of 4"
    printed = capsys.readouterr().out
    assert history.stopped in printed and "Whole epochs: 2" in printed
    assert not model.training


def test_an_interrupt_in_the_evaluation_leaves_whole_epochs():
    terms = terms_with(interrupt, call=10)  # 4 steps and an evaluation an epoch
    history = fit(new(), IMAGES, epochs=5, batch_size=16, terms=terms, test=TEST)
    assert history.stopped.startswith("interrupted in epoch 2 of 5")
    assert len(history.test_total) == len(history.total) == len(history.seconds) == 1


@pytest.mark.parametrize(
    "step, name, value, lr, cause",
    [
        (2, "recon", math.nan, 1e-3, "the model's output is no longer finite"),
        (4, "kl", math.inf, 1e-3, "exp(log_var) overflows above log_var = 88"),
        (3, "kl", math.nan, 0.05, "a learning rate of 0.05 is too high for Adam here"),
        (1, "recon", math.inf, (1e-3, 0.06), "a learning rate of 0.06 is too high for Adam here"),
    ],
)
def test_diverging_names_epoch_step_term_and_cause(step, name, value, lr, cause):
    model = new()
    terms = terms_with(spoilt(name, value), call=4 + step)
    with pytest.raises(training.Diverged) as error:
        fit(model, IMAGES, epochs=3, batch_size=16, lr=lr, terms=terms)
    assert f"in epoch 2, step {step}: {name} is {value}" in str(error.value)
    assert cause in str(error.value)
    assert len(error.value.history) == 1
    assert not model.training
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def test_diverging_in_the_first_step_is_not_the_learning_rates_fault():
    model = new()
    nn.init.constant_(model.decoder[-1].weight, math.nan)
    with pytest.raises(training.Diverged, match="before any step: look at the model's") as error:
        fit(model, IMAGES, lr=0.5, terms=three_terms)
    assert "in epoch 1, step 1: recon is nan" in str(error.value)
    assert len(error.value.history) == 0


def test_weights_that_are_lost_in_the_last_step_are_noticed():
    def infinite_gradient(model, x, generator):
        return {"slope": (0 * model(x)[0]).sum(dim=1).sqrt()}  # 0, and its slope is not finite

    model, how = new(Autoencoder), {"epochs": 1, "batch_size": 64, "terms": infinite_gradient}
    with pytest.raises(training.Diverged, match="not finite after the last step") as error:
        fit(model, IMAGES, **how)
    assert len(error.value.history) == 1
    with pytest.raises(training.Diverged, match="in epoch 1, on the test images: slope is nan"):
        fit(new(Autoencoder), IMAGES, **how, test=TEST)


# --- two learning rates ---------------------------------------------------------------------------


class WithAScale(VAE):
    """A VAE with a parameter that is in neither of its networks."""

    def __init__(self) -> None:
        super().__init__(3, 8, (1, 4, 4))
        self.log_scale = nn.Parameter(torch.zeros(()))

    def decode(self, z):
        return super().decode(z) * self.log_scale.exp()


def rates_of_each_step(monkeypatch, model, **options):
    """Return {a parameter's name: its learning rate in each step}, of 4 epochs of 5 steps."""
    rates = {name: [] for name, _ in model.named_parameters()}
    name_of = {id(weight): name for name, weight in model.named_parameters()}

    class Adam(torch.optim.Adam):
        def step(self, closure=None):
            for group in self.param_groups:
                for weight in group["params"]:
                    rates[name_of[id(weight)]].append(float(group["lr"]))
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "Adam", Adam)
    fit(model, IMAGES, epochs=4, batch_size=13, terms=seeing(0.0), **options)
    return rates


@pytest.mark.parametrize(
    "make, of_encoder",
    [
        (WithAScale, ("encoder.",)),
        (own, ("encoder.",)),  # what its attribute `encoder` has
        (adapted, ("model.encoder.", "model.heads.")),  # all that its codes depend on
    ],
    ids=["ours", "own", "adapted"],
)
@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_two_rates_are_of_the_encoder_and_of_all_others(monkeypatch, make, of_encoder, schedule):
    rates = rates_of_each_step(monkeypatch, make(), lr=(2e-3, 8e-3), schedule=schedule)
    for name, steps in rates.items():
        peak = 2e-3 if name.startswith(of_encoder) else 8e-3
        assert len(steps) == 20 and max(steps) == pytest.approx(peak)
        if schedule == "constant":
            assert min(steps) == max(steps)
            continue
        assert max(steps) == steps[2]  # after 15% of the steps
        assert steps[0] < peak / 10 and steps[-1] < peak / 10
        differences = np.diff(steps[3:])
        assert (differences < 0).all() and differences == pytest.approx(differences[0])


def test_one_rate_is_of_all_weights(monkeypatch):
    first, *others = rates_of_each_step(monkeypatch, WithAScale(), lr=4e-3).values()
    assert first == pytest.approx(20 * [4e-3]) and all(steps == first for steps in others)


def test_two_rates_need_an_encoder():
    class Alone(nn.Linear):
        pass

    def terms(model, x, generator):
        return {"squared error": losses.squared_error(model(x), x)}

    with pytest.raises(ValueError, match="two learning rates, and a Alone has no `encoder`"):
        fit(Alone(16, 16), IMAGES, lr=(1e-3, 1e-2), terms=terms)


# --- from the mean image --------------------------------------------------------------------------

MEAN = to_float(IMAGES).mean(dim=0)


# A model; what is drawn with the images; its first and its last layer; what takes the mean out of
# its input; and what that changes in its first layer's input.
CENTRED = pytest.mark.parametrize(
    "make, labels, ends, shift, seen",
    [
        (new, [], ("encoder.0", "decoder.2"), MEAN, MEAN),
        (conditional, [LABELS], ("encoder.0", "decoder.2"), MEAN, MEAN),
        # It sees 2 x - 1 of an image x, which is 2 (x - m) of x - m + ½.
        (adapted, [], ("model.encoder.0", "model.decoder.2"), MEAN - 0.5, 2 * MEAN - 1),
    ],
    ids=["ours", "conditional", "adapted"],
)


@CENTRED
def test_from_the_mean_is_the_training_of_an_encoder_that_sees_x_less_m(
    make, labels, ends, shift, seen
):
    how = {"epochs": 3, "batch_size": 13, "lr": (5e-3, 2e-2)}
    model, told, plain = make(), make(), make()
    fit(model, IMAGES, *labels, **how, terms=seeing(0.0), from_mean=True)

    first, last = map(told.get_submodule, ends)
    with torch.no_grad():
        first.bias += first.weight[:, :16] @ seen
        last.bias.copy_(torch.logit(MEAN))
    fit(told, IMAGES, *labels, **how, terms=seeing(shift))
    with torch.no_grad():
        first.bias -= first.weight[:, :16] @ seen

    expected = weights(told)
    for name, tensor in weights(model).items():
        torch.testing.assert_close(tensor, expected[name], atol=2e-5, rtol=1e-4)
    fit(plain, IMAGES, *labels, **how, terms=seeing(0.0))
    assert (plain.get_submodule(ends[0]).weight - first.weight).abs().max() > 1e-2


@CENTRED
def test_a_trained_model_computes_the_same_while_it_starts_from_the_mean_and_after(
    make, labels, ends, shift, seen
):
    model = make()
    with torch.no_grad():
        model.get_submodule(ends[1]).bias[3] = 2.0  # no fresh one lies so far out
    before = weights(model)

    def computed():
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            return seeing(0.0)(model, to_float(IMAGES), *labels, generator=generator)

    at_first = computed()
    with train.starting_from_the_mean(model, IMAGES):
        within = computed()
        assert not same_weights(weights(model), before)
    for named in (within, computed()):
        for name, values in named.items():
            torch.testing.assert_close(values, at_first[name], atol=1e-4, rtol=1e-5)
    for name, tensor in weights(model).items():
        torch.testing.assert_close(tensor, before[name], atol=1e-6, rtol=0)
    assert torch.equal(weights(model)[f"{ends[1]}.bias"], before[f"{ends[1]}.bias"])


@pytest.mark.parametrize("action", [interrupt, spoilt("kl", math.nan)])
def test_a_training_that_breaks_off_gives_the_encoder_its_own_images_back(action):
    model, before = new(), weights(new())
    how = {"from_mean": True, "terms": terms_with(action, call=1)}
    if action is interrupt:
        assert fit(model, IMAGES, **how).stopped
    else:
        with pytest.raises(training.Diverged):
            fit(model, IMAGES, **how)
    after = weights(model)
    for name in before:
        if name.startswith("encoder"):
            torch.testing.assert_close(after[name], before[name], atol=1e-6, rtol=0)
    assert not model.encoder[0]._forward_pre_hooks


@pytest.mark.parametrize("kind, network", [(VAE, "conv"), (Autoencoder, "linear")])
def test_a_model_without_the_layers_is_not_started_from_the_mean(kind, network):
    model = new(kind, network=network, hidden_size=16)  # a hidden layer as wide as an image
    before = weights(model)
    with pytest.raises(ValueError, match=r"take and give all 16 pixels, and this .*: leave it out"):
        fit(model, IMAGES, from_mean=True)
    assert same_weights(weights(model), before)


def test_a_border_that_is_always_black_starts_from_finite_logits():
    images, model = IMAGES.clone(), new()
    images[:, 0] = 0
    with train.starting_from_the_mean(model, images):
        assert model.decoder[-1].bias[:4].tolist() == pytest.approx(4 * [math.log(1e-3 / 0.999)])


def test_the_fast_recipe_learns_more_in_two_epochs_than_the_article_does():
    images, test = patterned_images(2000), patterned_images(500, seed=1)
    fast = train.fit_fast(new(), images, test=test, device="cpu", progress=False)
    article = fit(new(), images, test=test, epochs=2)
    assert len(fast) == 2 and fast.test_total[-1] < article.test_total[-1]


# --- on a GPU -------------------------------------------------------------------------------------


@needs_cuda
def test_fit_on_a_gpu_gives_about_the_cpus_numbers():
    images, test = patterned_images(2000), patterned_images(1000, seed=1)
    ends = []
    for device in ("cpu", "cuda"):
        model = new()
        history = fit(model, images, epochs=5, lr=3e-3, test=test, device=device)
        assert next(model.parameters()).device.type == device
        ends.append(history.test_total[-1])
    assert ends[1] == pytest.approx(ends[0], rel=0.01)  # another order of images, other noise


@needs_cuda
def test_diverging_on_a_gpu_names_the_step():
    # A replayed graph calls no Python: the data must do it. The terms are looked at after the
    # epoch, and yet the first bad step is named.
    white = 40
    images = IMAGES.clone()
    images[white] = 255

    def terms(model, x, generator):
        named = losses.elbo_terms(model, x, generator)
        return named | {"kl": named["kl"].masked_fill(x.mean(dim=1) > 0.99, math.inf)}

    generator = torch.Generator("cuda").manual_seed(0)  # the first thing drawn is the order
    order = torch.randperm(len(images), generator=generator, device="cuda").tolist()
    step = order.index(white) + 1
    with pytest.raises(training.Diverged, match=rf"in epoch 1, step {step}: kl is inf"):
        fit(new(), images, epochs=3, batch_size=1, terms=terms, device="cuda")


def fit_on_gpu(model=None, **options):
    """Train 7 steps an epoch, the last one smaller, by two rates and from the mean image; return
    the weights and the history."""
    model = model or new()
    settings = {"epochs": 3, "batch_size": 10, "binarisation": "dynamic", "test": TEST}
    settings |= {"lr": (1e-3, 4e-3), "schedule": "linear", "from_mean": True, "device": "cuda"}
    history = fit(model, IMAGES, **settings | options)
    return {name: tensor.cpu() for name, tensor in model.state_dict().items()}, history


def assert_about_the_same(a, b):
    (a_weights, a_history), (b_weights, b_history) = a, b
    for name in a_weights:
        torch.testing.assert_close(a_weights[name], b_weights[name], atol=1e-4, rtol=0)
    assert a_history.test_total == pytest.approx(b_history.test_total, rel=1e-4)
    assert a_history.total == pytest.approx(b_history.total, rel=1e-4)


@needs_cuda
@pytest.mark.parametrize("options", [{}, {"schedule": "constant", "lr": 1e-3, "from_mean": False}])
def test_a_graphed_training_is_the_plain_one(capsys, options):
    graphed = fit_on_gpu(**options)
    assert "No CUDA graph" not in capsys.readouterr().out
    assert_about_the_same(graphed, fit_on_gpu(**options, graph=False))


@needs_cuda
@pytest.mark.parametrize("graph, n_calls", [(True, 4), (False, 12)])
def test_python_in_the_terms_is_frozen_by_a_graph_and_runs_at_every_step_without(graph, n_calls):
    sizes = []

    def terms(model, x, generator):
        sizes.append(len(x))
        return losses.elbo_terms(model, x, generator)

    fit_on_gpu(terms=terms, graph=graph, epochs=2, test=())
    assert sizes.count(10) == n_calls  # the last batch of an epoch is smaller, and no graph's


@needs_cuda
def test_a_step_that_cannot_be_recorded_is_taken_without_a_graph(capsys):
    def waiting(model, x, generator):
        named = losses.elbo_terms(model, x, generator)
        assert named["recon"].sum().item() > 0  # to look is to wait, which a recording must not
        return named

    plain = fit_on_gpu(terms=waiting)
    assert capsys.readouterr().out.count("No CUDA graph, so a step costs more") == 1
    assert_about_the_same(plain, fit_on_gpu())


@needs_cuda
@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_a_broken_training_on_a_gpu_goes_on_to_the_same_result(tmp_path, monkeypatch, schedule):
    options = {"schedule": schedule, "checkpoint": tmp_path / "it.checkpoint"}
    save_checkpoint, calls = training.save_checkpoint, itertools.count(1)

    def broken_after_the_first(*arguments, **state):
        save_checkpoint(*arguments, **state)
        if next(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "save_checkpoint", broken_after_the_first)
    assert len(fit_on_gpu(**options)[1]) == 1
    resumed = fit_on_gpu(new(seed=9), **options, resume=True)
    assert_about_the_same(resumed, fit_on_gpu(schedule=schedule))
