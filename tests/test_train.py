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
from torch.utils.data import DataLoader

from vae_lesson import evaluate, losses, train
from vae_lesson.data import Images
from vae_lesson.models import VAE, Autoencoder
from vae_lesson.running import graphs, run

LABELS = torch.zeros(len(IMAGES)).long()
DIGITS = Images("digits", IMAGES, LABELS, TEST, LABELS[:20], ("0",))

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


# --- fit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["constant", "linear"])
@pytest.mark.parametrize("kind", [VAE, Autoencoder])
def test_fit_reduces_the_loss(kind, schedule):
    model = new(kind)
    before = evaluate.mean_terms(model, TEST).neg_elbo
    history = fit(model, IMAGES, epochs=30, batch_size=16, lr=5e-3, schedule=schedule)
    assert len(history) == 30
    assert history.neg_elbo[-1] < history.neg_elbo[0]
    assert evaluate.mean_terms(model, TEST).neg_elbo < 0.98 * before
    assert not model.training


def test_fit_is_bit_identical_for_a_seed():
    def run(seed):
        model = new()
        history = fit(model, IMAGES, epochs=3, batch_size=16, seed=seed, test_images=TEST)
        return weights(model), (history.recon, history.kl, history.test_recon, history.test_kl)

    (w, h), (w_again, h_again), (w_other, h_other) = run(0), run(0), run(1)
    assert same_weights(w, w_again) and h == h_again
    assert not same_weights(w, w_other) and h != h_other


def test_every_epoch_takes_every_image_once_in_a_new_order():
    seen = []

    def terms(model, x, generator):
        seen.extend((255 * x).round().byte().tolist())
        return losses.elbo_terms(model, x, generator)

    fit(new(), IMAGES, epochs=2, batch_size=16, terms=terms)
    rows = IMAGES.flatten(1).tolist()
    first, second = seen[:64], seen[64:]
    assert sorted(first) == sorted(second) == sorted(rows)
    assert first != second and rows not in (first, second)


def test_fit_leaves_the_global_random_state():
    model = new()
    state = torch.get_rng_state()
    fit(model, IMAGES, epochs=1, binarisation="dynamic", test_images=TEST)
    assert torch.equal(torch.get_rng_state(), state)


def test_history_is_the_mean_over_images_also_with_a_small_last_batch():
    model = new(Autoencoder)
    x = IMAGES.flatten(1).float() / 255
    expected = (x - model(x)[0]).square().sum(dim=1).mean().item()
    # 64 images in batches of 60: a mean of batch means would weigh the last four 15 times. With
    # this learning rate the model does not move.
    history = fit(model, IMAGES, epochs=1, batch_size=60, lr=1e-30)
    assert history.recon == [pytest.approx(expected, rel=1e-5)]
    assert history.kl == [0.0]


def test_test_terms_are_those_at_the_epochs_end():
    model = new()
    history = fit(model, IMAGES, epochs=2, test_images=TEST, seed=3)
    recon, kl, _ = evaluate.mean_terms(model, TEST, seed=3)
    assert (history.test_recon[-1], history.test_kl[-1]) == (recon, kl)
    assert len(history.test_recon) == len(history.test_kl) == 2
    assert history.test_neg_elbo[-1] == pytest.approx(recon + kl)
    assert fit(new(), IMAGES, epochs=2).test_recon == []


def test_history_adds_its_terms_and_counts_the_seconds():
    history = fit(new(), IMAGES, epochs=3)
    assert history.neg_elbo == [a + b for a, b in zip(history.recon, history.kl)]
    assert 0 < history.seconds[0] < history.seconds[1] < history.seconds[2]
    assert history.stopped is None


def test_beta_weighs_the_kl():
    kl = {
        beta: fit(new(), IMAGES, epochs=60, batch_size=16, lr=5e-3, beta=beta).kl[-1]
        for beta in (0.0, 1.0, 20.0)
    }
    assert kl[0.0] > 2 * kl[1.0] > 4 * kl[20.0]


class WithAScale(VAE):
    """A VAE with a parameter that is in neither of its networks."""

    def __init__(self) -> None:
        super().__init__(3, 8, (1, 4, 4))
        self.log_scale = nn.Parameter(torch.zeros(()))

    def decode(self, z):
        return super().decode(z) * self.log_scale.exp()


class WithoutNorms(VAE):
    def __init__(self):
        super().__init__(3, 8, (1, 4, 4), "conv")
        for name in ("encoder", "decoder"):
            parts = [p for p in getattr(self, name) if not isinstance(p, nn.GroupNorm)]
            setattr(self, name, nn.Sequential(*parts))


def rates_of_each_step(monkeypatch, model, **options):
    """Return {a parameter's name: its learning rate in each step}."""
    rates = {name: [] for name, _ in model.named_parameters()}
    name_of = {id(weight): name for name, weight in model.named_parameters()}

    class Adam(torch.optim.Adam):
        def step(self, closure=None):
            for group in self.param_groups:
                for weight in group["params"]:
                    rates[name_of[id(weight)]].append(float(group["lr"]))
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "Adam", Adam)
    fit(model, IMAGES, epochs=4, batch_size=13, lr=4e-3, **options)  # 5 steps an epoch
    return rates


def test_the_linear_schedule_has_a_rate_for_each_network_and_one_for_what_is_in_neither(
    monkeypatch,
):
    model = WithAScale()
    rates = rates_of_each_step(monkeypatch, model, schedule="linear")
    for name, steps in rates.items():
        peak = {"encoder": 2e-3, "decoder": 8e-3}.get(name.split(".")[0], 4e-3)
        assert len(steps) == 20
        assert max(steps) == steps[2] == pytest.approx(peak)  # 15% of the steps
        assert steps[0] < peak / 10 and steps[-1] < peak / 10
        differences = np.diff(steps[3:])
        assert (differences < 0).all() and differences == pytest.approx(differences[0])
    assert model.log_scale != 0


@pytest.mark.parametrize(
    "model, options",
    [
        (WithAScale(), {"schedule": "constant"}),
        (WithoutNorms(), {"schedule": "linear"}),
    ],
    ids=["constant", "convolutions"],
)
def test_plain_adam_and_convolutions_without_a_norm_have_one_rate(monkeypatch, model, options):
    first, *others = rates_of_each_step(monkeypatch, model, **options).values()
    assert max(first) == pytest.approx(4e-3)
    assert all(steps == first for steps in others)
    assert (min(first) == max(first)) == (options["schedule"] == "constant")


def test_convolutions_with_a_norm_have_two_rates(monkeypatch):
    model = VAE(3, 8, (1, 4, 4), "conv")
    rates = rates_of_each_step(monkeypatch, model, schedule="linear")
    assert {max(steps) for steps in rates.values()} == {2e-3, 8e-3}


def test_binarisation_reaches_training_and_test():
    seen = set()

    def terms(model, x, generator):
        seen.update(x.unique().tolist())
        return losses.elbo_terms(model, x, generator)

    for binarisation in ("dynamic", "threshold"):
        fit(new(), IMAGES, epochs=1, binarisation=binarisation, terms=terms, test_images=TEST)
        assert seen == {0.0, 1.0}
    fit(new(), IMAGES, epochs=1, terms=terms)
    assert len(seen) > 10


def test_given_terms_are_what_is_minimised():
    def only_kl(model, x, generator):
        recon, kl = losses.elbo_terms(model, x, generator)
        return torch.zeros_like(recon), kl

    history = fit(new(), IMAGES, epochs=60, batch_size=16, lr=1e-2, terms=only_kl, test_images=TEST)
    assert history.recon == history.test_recon == [0.0] * 60
    assert history.kl[-1] < 0.05 * history.kl[0]


def test_zero_epochs_leave_the_model_as_it_is():
    model = new()
    before = weights(model)
    history = fit(model, IMAGES, epochs=0, schedule="linear", test_images=TEST)
    assert len(history) == 0 and history.neg_elbo == history.test_recon == []
    assert same_weights(weights(model), before)


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_a_batch_may_be_larger_than_the_data(schedule):
    model = new()
    before = weights(model)
    assert len(fit(model, IMAGES[:1], epochs=1, batch_size=500, schedule=schedule)) == 1
    assert not same_weights(weights(model), before)


def test_progress_shows_the_terms_and_can_be_turned_off(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # else tqdm cuts its line, as in a narrow terminal
    fit(new(), IMAGES, epochs=2, test_images=TEST, progress=True)
    shown = capsys.readouterr().err
    assert "epoch 2/2" in shown and "−ELBO" in shown and "nats" in shown
    fit(new(Autoencoder), IMAGES, epochs=1, test_images=TEST, progress=True)
    shown = capsys.readouterr().err
    assert "squared error" in shown and "ELBO" not in shown
    fit(new(), IMAGES, epochs=1)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "options, says",
    [
        ({"epochs": -1}, "epochs must be a whole number of at least 0, got -1"),
        pytest.param({"epochs": 2.5}, "epochs .* 2.5"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        pytest.param({"batch_size": 2.5}, "batch_size .* 2.5"),
        ({"lr": 0.0}, "lr must be a number over 0 and finite, got 0.0"),
        ({"lr": -1e-3}, "lr must be a number over 0 and finite, got -0.001"),
        ({"lr": math.nan}, "lr must be a number over 0 and finite, got nan"),
        pytest.param({"lr": math.inf}, "lr .* inf"),
        pytest.param({"beta": math.nan}, "beta .* nan"),
        ({"beta": None}, "beta must be a number, or a function that gives one: None"),
        ({"beta": -1}, "beta must be 0 or more and finite, got -1.0"),
        ({"seed": -1}, "seed must be a whole number from 0 to"),
        (
            {"schedule": "cosine"},
            "unknown schedule 'cosine': choose one of constant, linear",
        ),
        ({"binarisation": "dither"}, "unknown binarisation 'dither': choose one of grey"),
        pytest.param({"binarisation": "dither", "epochs": 0}, "'dither'"),
        ({"images": IMAGES.float() / 255}, r"uint8 image, got \(64, 4, 4\) of torch.float32"),
        (
            {"images": IMAGES.numpy() / 255},
            r"of torch.float64: use \(255 \* x\).round\(\).byte\(\)",
        ),
        ({"images": DataLoader(IMAGES)}, "images must be one tensor or array .* got DataLoader"),
        (
            {"images": DIGITS},
            "images must be one tensor or array .* load_images.*train, got Images",
        ),
        ({"images": IMAGES[:0]}, r"at least one uint8 image, got \(0, 4, 4\)"),
        (
            {"images": patterned_images(side=5)},
            "images have 25 values, this model takes 16: make one with shape=images.shape",
        ),
        pytest.param({"test_images": TEST.float() / 255}, "float32"),
        pytest.param({"test_images": TEST[:0]}, "at least one"),
        pytest.param({"test_images": patterned_images(side=5)}, "25"),
        ({"device": "abacus"}, "'abacus' is not there: choose one of auto, .*cpu"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_bad_argument_is_refused_before_any_training(options, says):
    model = new()
    before = weights(model)
    with pytest.raises(ValueError, match=says):
        fit(model, **{"images": IMAGES, "epochs": 1, **options})
    assert same_weights(weights(model), before)


@pytest.mark.parametrize("understood", [IMAGES.numpy(), list(IMAGES), list(IMAGES.numpy())])
def test_arrays_and_lists_are_images_too(understood):
    model, same = new(), new()
    fit(model, IMAGES, epochs=1)
    fit(same, understood, epochs=1, test_images=understood)
    assert same_weights(weights(model), weights(same))


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
    # And it is used: a large one presses the KL down.
    pressed, let_be = (
        fit(
            new(),
            IMAGES,
            epochs=30,
            batch_size=16,
            lr=1e-2,
            beta=lambda progress, most=most: most * progress,
        )
        for most in (50, 0)
    )
    assert pressed.kl[-1] < 0.1 * let_be.kl[-1]


def test_a_scheduled_beta_goes_on_from_a_checkpoint_and_another_one_is_refused(tmp_path):
    path = tmp_path / "it.checkpoint"
    options = {"epochs": 3, "batch_size": 16, "checkpoint": path, "beta": lambda t: t}
    whole = new()
    fit(whole, IMAGES, **{**options, "checkpoint": None})

    def stop(model, x, generator):
        if path.is_file():
            raise KeyboardInterrupt
        return losses.elbo_terms(model, x, generator)

    fit(new(), IMAGES, **options, terms=stop)
    resumed = new()
    assert len(fit(resumed, IMAGES, **options, resume=True)) == 3
    assert same_weights(weights(resumed), weights(whole))
    with pytest.raises(ValueError, match="another training: beta"):
        fit(new(), IMAGES, **{**options, "beta": lambda t: t * t}, resume=True)


def test_numbers_of_numpy_in_a_beta_leave_a_checkpoint_that_can_be_read(tmp_path):
    options = {"epochs": 2, "checkpoint": tmp_path / "it.checkpoint"}
    options["beta"] = lambda t: np.interp(t, [0, 0.5], [0, 1])
    fit(new(), IMAGES, **options)
    assert len(fit(new(), IMAGES, **options, resume=True)) == 2


def test_a_beta_that_becomes_infinite_is_refused_before_any_training():
    with pytest.raises(ValueError, match="beta must be 0 or more and finite, got inf"):
        fit(new(), IMAGES, beta=lambda progress: math.inf if progress > 0.9 else 1.0)


# --- interrupts and divergence --------------------------------------------------------------------


def test_an_interrupt_keeps_model_and_history_and_says_where(capsys):
    whole = new()
    whole_history = fit(whole, IMAGES, epochs=2, batch_size=16)  # 4 steps an epoch
    capsys.readouterr()

    model = new()
    history = fit(model, IMAGES, epochs=5, batch_size=16, terms=terms_with(interrupt, call=9))
    # The ninth step never came to be: the model is that of two whole epochs.
    assert same_weights(weights(model), weights(whole))
    assert history.recon == whole_history.recon and len(history.seconds) == 2
    assert history.stopped == "interrupted in epoch 3 of 5, step 1 of 4"
    printed = capsys.readouterr().out
    assert history.stopped in printed and "Whole epochs: 2" in printed
    assert not model.training


def test_an_interrupt_in_the_first_step(capsys):
    model = new()
    before = weights(model)
    history = fit(model, IMAGES, epochs=5, batch_size=16, terms=terms_with(interrupt, call=1))
    assert same_weights(weights(model), before)
    assert len(history) == 0
    assert history.stopped == "interrupted in epoch 1 of 5, step 1 of 4"


def test_an_interrupt_in_the_evaluation_leaves_whole_epochs():
    terms = terms_with(interrupt, call=10)  # 4 steps and an evaluation an epoch
    history = fit(new(), IMAGES, epochs=5, batch_size=16, terms=terms, test_images=TEST)
    assert history.stopped.startswith("interrupted in epoch 2 of 5")
    assert len(history.test_recon) == len(history.recon) == len(history.seconds)


@pytest.mark.parametrize(
    "step, name, value, lr, cause",
    [
        (2, "recon", math.nan, 1e-3, "the decoder's output is no longer finite"),
        (1, "recon", math.inf, 1e-3, "the decoder's output is no longer finite"),
        (4, "kl", math.inf, 1e-3, "exp(log_var) overflows above log_var = 88"),
        (3, "kl", math.nan, 0.05, "a learning rate of 0.05 is too high for Adam here"),
    ],
)
def test_diverging_names_epoch_step_term_and_cause(step, name, value, lr, cause):
    model = new()
    terms = terms_with(spoilt(name, value), call=4 + step)
    with pytest.raises(run.Diverged) as error:
        fit(model, IMAGES, epochs=3, batch_size=16, lr=lr, terms=terms)
    assert f"in epoch 2, step {step}: {name} is {value}" in str(error.value)
    assert cause in str(error.value)
    assert len(error.value.history) == 1
    assert not model.training
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def test_diverging_in_the_first_step_is_not_the_learning_rates_fault():
    model = new()
    nn.init.constant_(model.decoder[-1].weight, math.nan)
    with pytest.raises(run.Diverged, match="before any step: look at the model's weights") as error:
        fit(model, IMAGES, lr=0.5)
    assert "in epoch 1, step 1: recon is nan" in str(error.value)
    assert len(error.value.history) == 0


def test_a_huge_learning_rate_diverges_and_is_named():
    with pytest.raises(run.Diverged, match=r"a learning rate of 1e\+06 is too high .* try 1e-3"):
        fit(new(), IMAGES, epochs=3, batch_size=16, lr=1e6)


def test_weights_that_are_lost_in_the_last_step_are_noticed():
    def infinite_gradient(model, x, generator):
        recon = (0 * model(x)[0]).sum(dim=1).sqrt()  # 0, and its slope is not finite
        return recon, torch.zeros_like(recon)

    with pytest.raises(run.Diverged, match="weights are not finite after the last step") as error:
        fit(new(Autoencoder), IMAGES, epochs=1, batch_size=len(IMAGES), terms=infinite_gradient)
    assert len(error.value.history) == 1


def test_diverging_in_the_last_step_shows_in_the_test_terms():
    # One step: what is left is NaN weights, and no later step to find them.
    with pytest.raises(run.Diverged):
        fit(new(), IMAGES, epochs=1, batch_size=64, lr=1e30, test_images=TEST)


# --- a linear autoencoder is PCA ------------------------------------------------------------------


def test_linear_autoencoder_becomes_pca():
    images = patterned_images(512, side=6)
    model = new(Autoencoder, 3, input_size=36, network="linear")
    fit(model, images, epochs=150, batch_size=64, lr=0.1, schedule="linear")
    pca = PCA().fit(images.flatten(1) / 255)
    (best,) = evaluate.pca_errors(pca, images, [3])
    error = evaluate.reconstruction_error(model, images)
    assert best * 0.9999 < error < best * 1.01
    weight = model.decoder.weight.detach().numpy()
    assert np.rad2deg(subspace_angles(weight, pca.components_[:3].T).max()) < 1


FAST = {"lr": 1e-2, "schedule": "linear", "warm_start": True}  # the defaults of fit


# --- the fast recipe ------------------------------------------------------------------------------


def test_a_fresh_vae_starts_from_the_mean_image():
    model = new()
    train.start_from_the_mean(model, IMAGES)
    with torch.no_grad():
        model.decoder[-1].weight.zero_()
        decoded = model.decode_mean(torch.zeros(1, model.latent_size))[0]
    mean = (IMAGES.flatten(1).float() / 255).mean(dim=0)
    torch.testing.assert_close(decoded, mean.clamp(1e-3, 1 - 1e-3), atol=1e-5, rtol=0)


def test_a_trained_vae_keeps_its_bias():
    model = new()
    with torch.no_grad():
        model.decoder[-1].bias[3] = 2.0
    before = weights(model)
    train.start_from_the_mean(model, IMAGES)
    assert same_weights(weights(model), before)


@pytest.mark.parametrize("options", [{"network": "linear"}, {"network": "conv"}])
def test_other_networks_start_too_or_are_left_alone(options):
    model = VAE(3, 16, (1, 4, 4), **options)
    before = weights(model)
    train.start_from_the_mean(model, IMAGES)
    assert same_weights(weights(model), before) == (options["network"] == "conv")


@pytest.mark.parametrize("warm_start", [True, False])
def test_fit_starts_from_the_mean_only_if_asked(warm_start, monkeypatch):
    started = []
    monkeypatch.setattr(train, "start_from_the_mean", lambda *_: started.append(1))
    fit(new(), IMAGES, epochs=1, warm_start=warm_start)
    fit(new(Autoencoder), IMAGES, epochs=1, warm_start=warm_start)  # has no logits of a mean
    assert len(started) == warm_start


def test_the_defaults_learn_faster_than_the_article_does():
    images, test = patterned_images(2000), patterned_images(500, seed=1)
    ends = {}
    for name, options in [("article", {}), ("fast", FAST)]:
        model = new()
        ends[name] = fit(model, images, test_images=test, **{**options, "epochs": 3})
    assert ends["fast"].test_neg_elbo[-1] < ends["article"].test_neg_elbo[-1]


# --- on a GPU -------------------------------------------------------------------------------------


@needs_cuda
def test_fit_on_a_gpu_gives_about_the_cpus_numbers():
    images, test = patterned_images(2000), patterned_images(1000, seed=1)
    ends = []
    for device in ("cpu", "cuda"):
        model = new()
        history = fit(model, images, epochs=5, lr=3e-3, test_images=test, device=device)
        assert next(model.parameters()).device.type == device
        ends.append(history.test_neg_elbo[-1])
    assert ends[1] == pytest.approx(ends[0], rel=0.01)  # another order of images, other noise


@needs_cuda
def test_diverging_on_a_gpu_names_the_step():
    # A replayed graph calls no Python: the data must do it. The terms are looked at after the
    # epoch, and yet the first bad step is named.
    white = 40
    images = IMAGES.clone()
    images[white] = 255

    def terms(model, x, generator):
        recon, kl = losses.elbo_terms(model, x, generator)
        return recon, kl.masked_fill(x.mean(dim=1) > 0.99, math.inf)

    generator = torch.Generator("cuda").manual_seed(0)  # the first thing drawn is the order
    order = torch.randperm(len(images), generator=generator, device="cuda").tolist()
    step = order.index(white) + 1
    with pytest.raises(run.Diverged, match=rf"in epoch 1, step {step}: kl is inf"):
        fit(new(), images, epochs=3, batch_size=1, terms=terms, device="cuda")


def fit_on_gpu(schedule="linear", model=None, **options):
    """Train 7 steps an epoch, the last one smaller; return the weights and the history."""
    model = model or new()
    settings = {"epochs": 3, "batch_size": 10, "binarisation": "dynamic", "test_images": TEST}
    settings |= {"schedule": schedule, "device": "cuda"} | options
    history = fit(model, IMAGES, **settings)
    return {name: tensor.cpu() for name, tensor in model.state_dict().items()}, history


def assert_about_the_same(a, b):
    (a_weights, a_history), (b_weights, b_history) = a, b
    for name in a_weights:
        torch.testing.assert_close(a_weights[name], b_weights[name], atol=1e-4, rtol=0)
    assert a_history.test_neg_elbo == pytest.approx(b_history.test_neg_elbo, rel=1e-4)
    assert a_history.neg_elbo == pytest.approx(b_history.neg_elbo, rel=1e-4)


@needs_cuda
@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_a_graphed_training_is_the_plain_one(monkeypatch, capsys, schedule):
    graphed = fit_on_gpu(schedule)
    assert "No CUDA graph" not in capsys.readouterr().out
    monkeypatch.setattr(graphs, "GraphedStep", lambda step, generator: step)
    assert_about_the_same(graphed, fit_on_gpu(schedule))


@needs_cuda
def test_a_step_that_cannot_be_recorded_is_taken_without_a_graph(capsys):
    def waiting(model, x, generator):
        recon, kl = losses.elbo_terms(model, x, generator)
        assert recon.sum().item() > 0  # to look is to wait, which a recording must not
        return recon, kl

    plain = fit_on_gpu(terms=waiting)
    assert capsys.readouterr().out.count("No CUDA graph, so a step costs more") == 1
    assert_about_the_same(plain, fit_on_gpu())


@needs_cuda
@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_a_broken_training_on_a_gpu_goes_on_to_the_same_result(tmp_path, monkeypatch, schedule):
    path = tmp_path / "it.checkpoint"
    save_checkpoint, calls = run.save_checkpoint, itertools.count(1)

    def broken_after_the_first(*arguments, **state):
        save_checkpoint(*arguments, **state)
        if next(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(run, "save_checkpoint", broken_after_the_first)
    assert len(fit_on_gpu(schedule, checkpoint=path)[1]) == 1
    resumed = fit_on_gpu(schedule, new(seed=9), checkpoint=path, resume=True)
    assert_about_the_same(resumed, fit_on_gpu(schedule))
