"""train: the loop, its history, interrupts and divergence, saving and loading, devices."""

import contextlib
import itertools
import math
import os
import pickle
from dataclasses import asdict

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from vae_lesson import devices, evaluate, saving, train
from vae_lesson.models import VAE, Autoencoder

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Train on one thread: models this small only wait for a second one, ten times as long."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def patterned_images(n=64, side=4, seed=0):
    """Make uint8 images that are mixtures of three fixed patterns, and some noise."""
    rng = np.random.default_rng(seed)
    pixel = np.arange(side * side)
    patterns = (pixel % 3 == np.arange(3)[:, None]) * (80 + 60 * (pixel % 2))  # (3, pixels)
    images = rng.uniform(0, 1, (n, 3)) @ patterns + rng.normal(60, 12, (n, side * side))
    return torch.from_numpy(images.clip(0, 255).round().astype(np.uint8)).view(n, side, side)


def new(kind=VAE, latent_size=2, hidden_size=8, input_size=16, network="mlp", seed=0):
    torch.manual_seed(seed)
    return kind(latent_size, hidden_size, input_size, network)


def fit(model, images, **options):
    """Fit as the article does, and not by the fast recipe, where `options` say nothing else."""
    article = {"epochs": 10, "lr": 1e-3, "schedule": "constant", "warm_start": False}
    return train.fit(model, images, **{"progress": False, "device": "cpu", **article, **options})


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_weights(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


FAST = {"lr": 1e-2, "schedule": "linear", "warm_start": True}  # the defaults of fit
IMAGES = patterned_images()
TEST = patterned_images(n=20, seed=1)


# --- fit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["constant", "one-cycle"])
@pytest.mark.parametrize("kind", [VAE, Autoencoder])
def test_fit_reduces_the_loss(kind, schedule):
    model = new(kind)
    before = sum(train.mean_terms(model, TEST))
    history = fit(model, IMAGES, epochs=30, batch_size=16, lr=5e-3, schedule=schedule)
    assert len(history) == 30
    assert history.neg_elbo[-1] < history.neg_elbo[0]
    assert sum(train.mean_terms(model, TEST)) < 0.98 * before
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
        return train.elbo_terms(model, x, generator)

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
    recon, kl = train.mean_terms(model, TEST, seed=3)
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


@pytest.mark.parametrize("schedule", ["constant", "one-cycle"])
def test_schedule_sets_the_learning_rate_of_each_step(monkeypatch, schedule):
    rates = []

    class Adam(torch.optim.Adam):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "Adam", Adam)
    fit(new(), IMAGES, epochs=2, batch_size=13, lr=4e-3, schedule=schedule)  # 5 steps an epoch
    assert len(rates) == 10
    assert max(rates) == pytest.approx(4e-3)
    if schedule == "constant":
        assert min(rates) == pytest.approx(4e-3)
    else:  # up for 30% of the steps, then down to almost nothing
        assert rates.index(max(rates)) == 2
        assert rates[0] < 1e-3 and rates[-1] < 1e-6


def test_binarisation_reaches_training_and_test():
    seen = set()

    def terms(model, x, generator):
        seen.update(x.unique().tolist())
        return train.elbo_terms(model, x, generator)

    for binarisation in ("dynamic", "threshold"):
        fit(new(), IMAGES, epochs=1, binarisation=binarisation, terms=terms, test_images=TEST)
        assert seen == {0.0, 1.0}
    fit(new(), IMAGES, epochs=1, terms=terms)
    assert len(seen) > 10


def test_given_terms_are_what_is_minimised():
    def only_kl(model, x, generator):
        recon, kl = train.elbo_terms(model, x, generator)
        return torch.zeros_like(recon), kl

    history = fit(new(), IMAGES, epochs=60, batch_size=16, lr=1e-2, terms=only_kl, test_images=TEST)
    assert history.recon == history.test_recon == [0.0] * 60
    assert history.kl[-1] < 0.05 * history.kl[0]


def test_zero_epochs_leave_the_model_as_it_is():
    model = new()
    before = weights(model)
    history = fit(model, IMAGES, epochs=0, schedule="one-cycle", test_images=TEST)
    assert len(history) == 0 and history.neg_elbo == history.test_recon == []
    assert same_weights(weights(model), before)


@pytest.mark.parametrize("schedule", ["constant", "one-cycle"])
def test_a_batch_may_be_larger_than_the_data(schedule):
    model = new()
    before = weights(model)
    assert len(fit(model, IMAGES[:1], epochs=1, batch_size=500, schedule=schedule)) == 1
    assert not same_weights(weights(model), before)


def test_progress_shows_the_terms_and_can_be_turned_off(capsys):
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
        ({"epochs": -1}, "epochs must be a whole number, 0 or more, got -1"),
        pytest.param({"epochs": 2.5}, "epochs .* 2.5"),
        ({"batch_size": 0}, "batch_size must be a whole number, 1 or more, got 0"),
        pytest.param({"batch_size": 2.5}, "batch_size .* 2.5"),
        ({"lr": 0.0}, "lr must be over 0 and finite, got 0.0"),
        ({"lr": -1e-3}, "lr must be over 0 and finite, got -0.001"),
        ({"lr": math.nan}, "lr must be over 0 and finite, got nan"),
        pytest.param({"lr": math.inf}, "lr .* inf"),
        pytest.param({"beta": math.nan}, "beta .* nan"),
        ({"schedule": "cosine"}, "constant, one-cycle, linear, got 'cosine'"),
        ({"binarisation": "dither"}, "unknown binarisation 'dither': choose one of grey"),
        pytest.param({"binarisation": "dither", "epochs": 0}, "'dither'"),
        ({"images": IMAGES.float() / 255}, r"uint8 image, got \(64, 4, 4\) of torch.float32"),
        ({"images": IMAGES[:0]}, r"at least one uint8 image, got \(0, 4, 4\)"),
        ({"images": patterned_images(side=5)}, "images of 16 pixels, got 25"),
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
        return train.elbo_terms(model, x, generator)

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
    with pytest.raises(ValueError, match="beta must be finite, got inf"):
        fit(new(), IMAGES, beta=lambda progress: math.inf if progress > 0.9 else 1.0)


# --- interrupts and divergence --------------------------------------------------------------------


def terms_with(action, call):
    """Return the ELBO's terms, passed through `action` at this call (the first is 1)."""
    calls = itertools.count(1)

    def terms(model, x, generator):
        recon, kl = train.elbo_terms(model, x, generator)
        return action(recon, kl) if next(calls) == call else (recon, kl)

    return terms


def interrupt(recon, kl):
    raise KeyboardInterrupt


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


def spoilt(name, value):
    def action(recon, kl):
        recon, kl = recon.clone(), kl.clone()
        {"recon": recon, "kl": kl}[name][-1] = value  # one image is enough
        return recon, kl

    return action


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
    with pytest.raises(train.Diverged) as error:
        fit(model, IMAGES, epochs=3, batch_size=16, lr=lr, terms=terms)
    assert f"in epoch 2, step {step}: {name} is {value}" in str(error.value)
    assert cause in str(error.value)
    assert len(error.value.history) == 1
    assert not model.training
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def test_diverging_in_the_first_step_is_not_the_learning_rates_fault():
    model = new()
    nn.init.constant_(model.decoder[-1].weight, math.nan)
    with pytest.raises(train.Diverged, match="before any step: look at its weights") as error:
        fit(model, IMAGES, lr=0.5)
    assert "in epoch 1, step 1: recon is nan" in str(error.value)
    assert len(error.value.history) == 0


def test_a_huge_learning_rate_diverges_and_is_named():
    with pytest.raises(train.Diverged, match=r"a learning rate of 1e\+06 is too high .* try 1e-3"):
        fit(new(), IMAGES, epochs=3, batch_size=16, lr=1e6)


def test_weights_that_are_lost_in_the_last_step_are_noticed():
    def infinite_gradient(model, x, generator):
        recon = (0 * model(x)[0]).sum(dim=1).sqrt()  # 0, and its slope is not finite
        return recon, torch.zeros_like(recon)

    with pytest.raises(train.Diverged, match="weights are not finite after the last step") as error:
        fit(new(Autoencoder), IMAGES, epochs=1, batch_size=len(IMAGES), terms=infinite_gradient)
    assert len(error.value.history) == 1


def test_diverging_in_the_last_step_shows_in_the_test_terms():
    # One step: what is left is NaN weights, and no later step to find them.
    with pytest.raises(train.Diverged):
        fit(new(), IMAGES, epochs=1, batch_size=64, lr=1e30, test_images=TEST)


# --- a linear autoencoder is PCA ------------------------------------------------------------------


def test_linear_autoencoder_becomes_pca():
    images = patterned_images(512, side=6)
    model = new(Autoencoder, 3, input_size=36, network="linear")
    fit(model, images, epochs=150, batch_size=64, lr=0.1, schedule="one-cycle")
    pca = evaluate.fit_pca(images)
    (best,) = evaluate.pca_errors(pca, images, [3])
    error = evaluate.reconstruction_error(model, images)
    assert best * 0.9999 < error < best * 1.01
    axes = torch.from_numpy(pca.components_[:3])
    assert evaluate.largest_principal_angle(model.decoder.weight.T, axes) < 1


# --- terms ----------------------------------------------------------------------------------------


def test_terms_per_image_are_in_order_and_by_seed():
    images = patterned_images(2300)  # more than two parts of 1000
    model = new()
    recon, kl = train.terms_per_image(model, images, seed=4)
    x = images.flatten(1).float() / 255
    mu, log_var = model.encode(x)
    torch.testing.assert_close(kl, evaluate.losses.kl_standard_normal(mu, log_var).detach())
    generator = torch.Generator().manual_seed(4)
    eps = torch.cat([torch.randn(n, 2, generator=generator) for n in (1000, 1000, 300)])
    x_logits, _, _ = model(x, eps=eps)
    torch.testing.assert_close(recon, evaluate.losses.bernoulli_nll(x_logits, x).detach())
    assert train.mean_terms(model, images, seed=4) == (recon.mean().item(), kl.mean().item())


def test_each_kind_of_model_has_its_terms():
    assert train.terms_of(new()) is train.elbo_terms
    assert train.terms_of(new(Autoencoder)) is train.squared_error_terms
    x = torch.rand(3, 16)
    model = new(Autoencoder)
    recon, kl = train.squared_error_terms(model, x)
    torch.testing.assert_close(recon, (model(x)[0] - x).square().sum(dim=1))
    assert torch.equal(kl, torch.zeros(3))


# --- the classifier -------------------------------------------------------------------------------


def labelled_images(n, seed):
    """Make 6×6 images of three classes: the bright row is the class, under noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    images = rng.integers(0, 100, (n, 6, 6))
    images[np.arange(n), 2 * labels] += 100
    return torch.from_numpy(images.astype(np.uint8)), torch.from_numpy(labels)


def test_fit_classifier_learns_from_its_seed_alone():
    images, labels = labelled_images(600, 0)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    classifier = train.fit_classifier(images, labels, epochs=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert not classifier.training

    test, test_labels = labelled_images(300, 1)
    logits = classifier(test.flatten(1).float() / 255)
    assert logits.shape == (300, 3)
    assert (logits.argmax(dim=1) == test_labels).float().mean() > 0.95

    torch.manual_seed(321)
    again = train.fit_classifier(images, labels, epochs=5)
    assert same_weights(weights(again), weights(classifier))
    # The seed is that of the first weights, and of the order of the images too.
    first, other = (train.fit_classifier(images, labels, epochs=0, seed=seed) for seed in (0, 1))
    assert not same_weights(weights(first), weights(other))


@needs_cuda
def test_fit_classifier_leaves_the_gpus_random_state():
    torch.cuda.manual_seed(123)
    state = torch.cuda.get_rng_state()
    train.fit_classifier(*labelled_images(20, 0), epochs=1)
    assert torch.equal(torch.cuda.get_rng_state(), state)


# --- saving and loading ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [VAE, Autoencoder])
@pytest.mark.parametrize("network", ["linear", "mlp", "deep", "conv"])
def test_save_and_load_give_the_same_model(tmp_path, kind, network):
    model = new(kind, 3, 8, 49, network)
    saving.save_model(model, tmp_path / "model.pt", dataset="mnist", epochs=3, neg_elbo=105.5)
    torch.manual_seed(77)
    loaded, info = saving.load_model(tmp_path / "model.pt")
    assert type(loaded) is kind and loaded.config == model.config
    assert same_weights(weights(loaded), weights(model))
    assert info == {"dataset": "mnist", "epochs": 3, "neg_elbo": 105.5}
    assert not loaded.training
    x = torch.rand(2, 49)
    assert torch.equal(loaded.encode(x)[0], model.encode(x)[0])
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_paths_may_be_strings_and_info_may_be_missing(tmp_path):
    saving.save_model(new(), str(tmp_path / "model.pt"))
    assert saving.load_model(str(tmp_path / "model.pt"))[1] == {}


def test_info_may_be_a_numpy_float(tmp_path):
    # np.float64 is a float: this is what a mean of a NumPy array gives.
    saving.save_model(new(), tmp_path / "model.pt", neg_elbo=np.float64(105.5))
    assert saving.load_model(tmp_path / "model.pt")[1] == {"neg_elbo": 105.5}


def test_loading_what_is_not_there_names_the_path(tmp_path):
    for path in (tmp_path / "absent.pt", tmp_path):
        with pytest.raises(FileNotFoundError) as error:
            saving.load_model(path)
        assert str(path) in str(error.value)


class Code:
    """Unpickling this makes a folder: a stand-in for anything worse."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_file_is_not_run(tmp_path, how):
    path, trap = tmp_path / "model.pt", tmp_path / "trap"
    content = {"kind": "VAE", "config": {}, "state": {}, "info": Code(trap)}
    with open(path, "wb") as file:
        torch.save(content, file) if how == "torch" else pickle.dump(content, file, protocol=2)
    with pytest.raises(ValueError, match="damaged or no model of this course"):
        saving.load_model(path)
    assert not trap.exists()
    with contextlib.suppress(RuntimeError):  # a bare pickle is no file of torch.save
        torch.load(path, weights_only=False)  # the trap does work
    assert trap.exists()


def flipped_bit(whole):
    """Flip a bit of the first weight, which lies aligned after its entry's header."""
    model = new()
    where = whole.index(model.encoder[0].weight.detach().numpy().tobytes())
    return whole[:where] + bytes([whole[where] ^ 0x40]) + whole[where + 1 :]


DAMAGES = [
    pytest.param(lambda whole: b"", id="empty"),
    pytest.param(lambda whole: whole[: len(whole) // 2], id="half"),
    pytest.param(lambda whole: whole[:-1], id="all but a byte"),
    pytest.param(lambda whole: whole[:100], id="the beginning"),
    *[
        pytest.param(lambda whole, i=i: np.random.default_rng(i).bytes(300), id=f"random {i}")
        for i in range(5)
    ],
    pytest.param(lambda whole: b"<html>404</html>", id="html"),
    pytest.param(lambda whole: b".", id="pickle stop"),
    pytest.param(
        lambda whole: b"X\x01\x00\x00\x00\xff.",
        id="not UTF-8",
    ),
    pytest.param(flipped_bit, id="a flipped bit"),
]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_file_is_refused_with_its_name(tmp_path, damage):
    path = tmp_path / "model.pt"
    saving.save_model(new(), path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"damaged .* remove it and train again") as error:
        saving.load_model(path)
    assert str(path) in str(error.value)


GOOD = {"kind": "VAE", "config": {}, "state": {}, "info": {}}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param([1, 2], id="a list"),
        pytest.param("model", id="a string"),
        pytest.param(new().state_dict(), id="weights alone"),
        pytest.param({**GOOD, "kind": "GAN"}, id="unknown kind"),
        pytest.param(torch.ones(3), id="a tensor"),
        pytest.param({**GOOD, "config": {"depth": 3}}, id="unknown size"),
        pytest.param({**GOOD, "config": None}, id="no sizes"),
        pytest.param({**GOOD, "state": None}, id="no weights"),
        pytest.param(
            {**GOOD, "config": {"latent_size": 0}},
            id="bad size",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
def test_another_files_content_is_refused_with_its_name(tmp_path, content):
    path = tmp_path / "model.pt"
    torch.save(content, path)
    with pytest.raises(ValueError, match="remove it and train again") as error:
        saving.load_model(path)
    assert str(path) in str(error.value)


def test_weights_of_another_shape_are_refused(tmp_path):
    model = new(latent_size=2)
    model.config["latent_size"] = 3
    saving.save_model(model, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"do not fit its configuration .*'latent_size': 3"):
        saving.load_model(tmp_path / "model.pt")


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    old, path = new(), tmp_path / "model.pt"
    saving.save_model(old, path, number=1)

    def half_a_save(content, where):
        with open(where, "wb") as file:
            file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half_a_save)
        for target in (path, tmp_path / "first.pt"):
            with pytest.raises(KeyboardInterrupt):
                saving.save_model(new(seed=1), target, number=2)
    loaded, info = saving.load_model(path)
    assert same_weights(weights(loaded), weights(old)) and info == {"number": 1}
    assert not (tmp_path / "first.pt").exists()
    # What an interrupted save left behind is not in the way of the next one.
    saving.save_model(new(seed=1), path, number=3)
    assert saving.load_model(path)[1] == {"number": 3}


# --- checkpoints ----------------------------------------------------------------------------------


def all_but_seconds(history):
    return {name: values for name, values in asdict(history).items() if name != "seconds"}


def crash(recon, kl):
    raise OSError("the power is gone")


def never(model, x, generator):
    raise AssertionError("this trains")


@pytest.mark.parametrize("action", [interrupt, crash])
@pytest.mark.parametrize("binarisation", ["grey", "dynamic"])
@pytest.mark.parametrize("schedule", ["constant", "one-cycle"])
def test_a_broken_training_goes_on_to_the_same_result(tmp_path, schedule, binarisation, action):
    options = {
        **{"epochs": 4, "batch_size": 13, "lr": 4e-3, "seed": 3, "test_images": TEST},
        **{"schedule": schedule, "binarisation": binarisation},
    }
    whole = new()
    whole_history = fit(whole, IMAGES, **options)

    options["checkpoint"] = tmp_path / "it.checkpoint"
    terms = terms_with(action, call=2 * 6 + 3)  # 5 steps and an evaluation an epoch
    with pytest.raises(OSError) if action is crash else contextlib.nullcontext():
        fit(new(), IMAGES, **options, terms=terms)

    resumed = new(seed=9)  # other weights, and another random state
    calls = []

    def counted(model, x, generator):
        calls.append(len(x))
        return train.elbo_terms(model, x, generator)

    history = fit(resumed, IMAGES, **options, terms=counted, resume=True)
    assert len(calls) == 2 * 6  # two epochs, not four
    assert same_weights(weights(resumed), weights(whole))
    assert all_but_seconds(history) == all_but_seconds(whole_history)
    assert len(history.seconds) == 4 and history.seconds == sorted(set(history.seconds))
    assert not resumed.training


def test_a_checkpoint_changes_nothing_and_may_be_left_at_any_epoch(tmp_path):
    options = {"epochs": 3, "batch_size": 16, "binarisation": "dynamic"}
    plain, watched = new(), new()
    plain_history = fit(plain, IMAGES, **options)
    history = fit(watched, IMAGES, **options, checkpoint=str(tmp_path / "it.checkpoint"))
    assert same_weights(weights(plain), weights(watched))
    assert all_but_seconds(history) == all_but_seconds(plain_history)
    assert [path.name for path in tmp_path.iterdir()] == ["it.checkpoint"]
    # At a constant learning rate a finished training may go on further.
    longer, further = new(), new(seed=1)
    fit(longer, IMAGES, **{**options, "epochs": 5})
    more = {**options, "epochs": 5, "checkpoint": str(tmp_path / "it.checkpoint")}
    assert len(fit(further, IMAGES, **more, resume=True)) == 5
    assert same_weights(weights(longer), weights(further))


def test_a_finished_training_resumed_trains_nothing(tmp_path):
    options = {"epochs": 2, "batch_size": 16, "checkpoint": tmp_path / "it.checkpoint"}
    model, again = new(), new(seed=1)
    history = fit(model, IMAGES, **options, test_images=TEST)
    file = options["checkpoint"].read_bytes()
    assert fit(again, IMAGES, **options, test_images=TEST, terms=never, resume=True) == history
    assert same_weights(weights(model), weights(again))
    assert options["checkpoint"].read_bytes() == file


def test_resuming_without_a_file_starts_anew(tmp_path):
    plain, model = new(), new()
    history = fit(plain, IMAGES, epochs=2)
    path = tmp_path / "it.checkpoint"
    again = fit(model, IMAGES, epochs=2, checkpoint=path, resume=True)
    assert all_but_seconds(again) == all_but_seconds(history)
    assert same_weights(weights(model), weights(plain)) and path.is_file()


def test_a_file_is_not_gone_on_from_unless_that_is_asked(tmp_path):
    path = tmp_path / "it.checkpoint"
    plain, model = new(), new()
    fit(plain, IMAGES, epochs=1)
    path.write_bytes(b"anything")
    assert len(fit(model, IMAGES, epochs=1, checkpoint=path)) == 1
    assert same_weights(weights(model), weights(plain))
    assert len(fit(new(seed=1), IMAGES, epochs=1, checkpoint=path, resume=True, terms=never)) == 1


ONE_WHITE = IMAGES.clone()
ONE_WHITE[5] = 255


@pytest.mark.parametrize(
    "name, there, here, change",
    [
        ("lr", "0.001", "0.002", {"lr": 2e-3}),
        ("batch_size", "16", "32", {"batch_size": 32}),
        ("seed", "0", "1", {"seed": 1}),
        ("schedule", "'one-cycle'", "'constant'", {"schedule": "constant"}),
        ("epochs", "2", "3", {"epochs": 3}),
        ("beta", "1.0", "0.5", {"beta": 0.5}),
        ("binarisation", "'grey'", "'dynamic'", {"binarisation": "dynamic"}),
        ("network", "out_features=8", "out_features=9", {"model": new(hidden_size=9)}),
        ("network", "VAE", "Autoencoder", {"model": new(Autoencoder)}),
        ("images", "[64, 4, 4,", "[63, 4, 4,", {"images": IMAGES[:-1]}),
        ("images", "[64, 4, 4,", "[64, 4, 4,", {"images": ONE_WHITE}),
    ],
)
def test_a_checkpoint_of_other_options_is_refused(tmp_path, name, there, here, change):
    path = tmp_path / "it.checkpoint"
    options = {"epochs": 2, "batch_size": 16, "schedule": "one-cycle", "checkpoint": path}
    fit(new(), IMAGES, **options)
    file = path.read_bytes()
    # The number of epochs matters to one-cycle alone: without it, it differs too.
    names = ["epochs", "schedule"] if name == "schedule" else [name]
    other = {"model": new(seed=1), "images": IMAGES, **options, **change}
    before = weights(other["model"])
    with pytest.raises(ValueError) as error:
        fit(**other, resume=True, terms=never)
    message = str(error.value)
    assert message.startswith(f"{path} is of another training: {names[0]} ")
    for each in names:
        assert f"{each} " in message
    assert message.count(" there, ") == message.count(" here") == len(names)
    left, right = message.split(f"{name} ")[-1].split(" there, ")
    assert there in left and here in right and left != right.removesuffix(" here")
    assert same_weights(weights(other["model"]), before)
    assert path.read_bytes() == file


def checkpoint_of_first_weights(path):
    fit(new(), IMAGES, epochs=1, lr=1e-30, checkpoint=path)  # too little to move a weight


def test_the_damaged_checkpoints_are_good_but_for_the_damage(tmp_path):
    path = tmp_path / "it.checkpoint"
    checkpoint_of_first_weights(path)
    flipped_bit(path.read_bytes())  # finds the weights
    fit(new(), IMAGES, epochs=1, lr=1e-30, checkpoint=path, resume=True, terms=never)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_checkpoint_is_refused_with_its_name_and_left(tmp_path, damage):
    path = tmp_path / "it.checkpoint"
    checkpoint_of_first_weights(path)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    model = new(seed=1)
    before = weights(model)
    with pytest.raises(ValueError, match=r"damaged or no checkpoint: remove it") as error:
        fit(model, IMAGES, epochs=1, lr=1e-30, checkpoint=path, resume=True, terms=never)
    assert str(path) in str(error.value)
    assert path.read_bytes() == damaged and list(tmp_path.iterdir()) == [path]
    assert same_weights(weights(model), before)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param([1, 2], id="a list"),
        pytest.param(torch.ones(3), id="a tensor"),
        pytest.param(new().state_dict(), id="weights alone"),
        pytest.param({**GOOD, "state": new().state_dict()}, id="a model"),
        pytest.param({"options": [1, 2]}, id="a list of options"),
    ],
)
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
def test_another_file_is_no_checkpoint(tmp_path, content):
    path = tmp_path / "it.checkpoint"
    torch.save(content, path)
    file = path.read_bytes()
    with pytest.raises(ValueError, match=r"damaged or no checkpoint: remove it") as error:
        fit(new(), IMAGES, epochs=1, checkpoint=path, resume=True, terms=never)
    assert str(path) in str(error.value)
    assert path.read_bytes() == file


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_checkpoint_is_not_run(tmp_path, how):
    path, trap = tmp_path / "it.checkpoint", tmp_path / "trap"
    with open(path, "wb") as file:
        content = {"options": Code(trap)}
        torch.save(content, file) if how == "torch" else pickle.dump(content, file, protocol=2)
    with pytest.raises(ValueError, match="damaged or no checkpoint"):
        fit(new(), IMAGES, epochs=1, checkpoint=path, resume=True, terms=never)
    assert not trap.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("no space left")])
def test_a_broken_write_leaves_the_checkpoint_before_it(tmp_path, monkeypatch, error):
    path = tmp_path / "it.checkpoint"
    options = {"epochs": 4, "batch_size": 16, "checkpoint": path}
    save, calls = torch.save, itertools.count(1)

    def third_breaks(content, where):
        if next(calls) < 3:
            return save(content, where)
        with open(where, "wb") as file:
            file.write(b"half")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", third_breaks)
        with pytest.raises(OSError) if isinstance(error, OSError) else contextlib.nullcontext():
            fit(new(), IMAGES, **options)
    assert list(tmp_path.iterdir()) == [path]
    whole, resumed = new(), new(seed=1)
    fit(whole, IMAGES, epochs=4, batch_size=16)
    history = fit(resumed, IMAGES, **options, resume=True)
    assert len(history) == 4 and same_weights(weights(resumed), weights(whole))


# --- devices and folders --------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch):
    """Pretend to have these devices."""

    def set_up(n_cuda=0, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n_cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n_cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return set_up


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


def test_results_path_is_in_the_folder_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_LESSON_RESULTS", str(tmp_path / "a" / "b"))
    assert saving.results_path("x.json") == tmp_path / "a" / "b" / "x.json"
    assert (tmp_path / "a" / "b").is_dir()
    # Without it, or empty: results/ in the project, here a pretended one.
    monkeypatch.setattr(saving, "__file__", str(tmp_path / "project" / "vae_lesson" / "saving.py"))
    for clear in (lambda: monkeypatch.setenv("VAE_LESSON_RESULTS", ""),
                  lambda: monkeypatch.delenv("VAE_LESSON_RESULTS")):  # fmt: skip
        clear()
        assert saving.results_path("x.json") == tmp_path / "project" / "results" / "x.json"


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
        recon, kl = train.elbo_terms(model, x, generator)
        return recon, kl.masked_fill(x.mean(dim=1) > 0.99, math.inf)

    generator = torch.Generator("cuda").manual_seed(0)  # the first thing drawn is the order
    order = torch.randperm(len(images), generator=generator, device="cuda").tolist()
    step = order.index(white) + 1
    with pytest.raises(train.Diverged, match=rf"in epoch 1, step {step}: kl is inf"):
        fit(new(), images, epochs=3, batch_size=1, terms=terms, device="cuda")


def fit_on_gpu(schedule="one-cycle", model=None, **options):
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
@pytest.mark.parametrize("schedule", ["constant", "one-cycle"])
def test_a_graphed_training_is_the_plain_one(monkeypatch, capsys, schedule):
    graphed = fit_on_gpu(schedule)
    assert "No CUDA graph" not in capsys.readouterr().out
    monkeypatch.setattr(train, "GraphedStep", lambda step, generator: step)
    assert_about_the_same(graphed, fit_on_gpu(schedule))


@needs_cuda
def test_a_step_that_cannot_be_recorded_is_taken_without_a_graph(capsys):
    def waiting(model, x, generator):
        recon, kl = train.elbo_terms(model, x, generator)
        assert recon.sum().item() > 0  # to look is to wait, which a recording must not
        return recon, kl

    plain = fit_on_gpu(terms=waiting)
    assert capsys.readouterr().out.count("No CUDA graph, so a step costs more") == 1
    assert_about_the_same(plain, fit_on_gpu())


@needs_cuda
@pytest.mark.parametrize("schedule", ["constant", "one-cycle"])
def test_a_broken_training_on_a_gpu_goes_on_to_the_same_result(tmp_path, monkeypatch, schedule):
    path = tmp_path / "it.checkpoint"
    save_checkpoint, calls = train.save_checkpoint, itertools.count(1)

    def broken_after_the_first(*arguments, **state):
        save_checkpoint(*arguments, **state)
        if next(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(train, "save_checkpoint", broken_after_the_first)
    assert len(fit_on_gpu(schedule, checkpoint=path)[1]) == 1
    resumed = fit_on_gpu(schedule, new(seed=9), checkpoint=path, resume=True)
    assert_about_the_same(resumed, fit_on_gpu(schedule))


# --- the curves -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, n_panels", [(VAE, 3), (Autoencoder, 1)])
def test_history_draws_its_curves(kind, n_panels):
    history = fit(new(kind), IMAGES, epochs=3, test_images=TEST)
    figure = history.plot()
    assert isinstance(figure, Figure) and len(figure.axes) == n_panels
    train_curve, test_curve = figure.axes[0].lines
    assert train_curve.get_ydata().tolist() == history.recon
    assert test_curve.get_ydata().tolist() == history.test_recon


def test_history_of_nothing_can_be_drawn():
    assert isinstance(train.History().plot(), Figure)
    with contextlib.suppress(KeyboardInterrupt):
        history = fit(new(), IMAGES, epochs=2, terms=terms_with(interrupt, call=1))
    assert isinstance(history.plot(), Figure)


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
    model = VAE(3, 16, 16, **options)
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


# --- threads --------------------------------------------------------------------------------------


@pytest.fixture
def threads(monkeypatch):
    """Return (Threads on four pretended cores, pass_(seconds, own, others) on them)."""
    clock = {"wall": 0.0, "own": 0.0, "busy": 0.0}
    monkeypatch.setattr(devices.time, "perf_counter", lambda: clock["wall"])
    monkeypatch.setattr(devices.time, "process_time", lambda: clock["own"])
    monkeypatch.setattr(devices, "_busy", lambda: clock["busy"])
    monkeypatch.setattr(devices.os, "cpu_count", lambda: 4)
    n = {"now": 4}
    monkeypatch.setattr(torch, "get_num_threads", lambda: n["now"])
    monkeypatch.setattr(torch, "set_num_threads", lambda k: n.update(now=k))
    threads = devices.Threads()

    def after(seconds: float, own: float, others: float) -> int:
        """Let time pass in which we used `own` cores, others `others`; return our threads."""
        clock["wall"] += seconds
        clock["own"] += own * seconds
        clock["busy"] += (own + others) * seconds
        threads.adapt()
        return n["now"]

    yield threads, after


def test_threads_are_the_cores_that_others_leave(threads):
    threads, after = threads
    assert after(0.3, own=4, others=0) == 4
    assert after(0.3, own=2, others=2) == 2
    assert after(0.3, own=1, others=3.9) == 1  # at least one
    assert after(0.3, own=1, others=0.2) == 4  # a browser's fifth of a core is no reason
    assert after(0.1, own=1, others=3) == 4  # too soon to look again
    threads.restore()
    assert torch.get_num_threads() == 4


def test_fit_gives_its_threads_back():
    before = torch.get_num_threads()
    fit(new(), IMAGES, epochs=1)
    assert torch.get_num_threads() == before
    with pytest.raises(train.Diverged):
        fit(new(), IMAGES, terms=terms_with(spoilt("kl", math.inf), call=1))
    assert torch.get_num_threads() == before


def test_the_number_of_threads_does_not_change_the_result():
    images = patterned_images(2000, side=28)
    before, results = torch.get_num_threads(), []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            torch.manual_seed(0)
            model = VAE(20, 400)
            fit(model, images, epochs=1)
            results.append(weights(model))
    finally:
        torch.set_num_threads(before)
    assert same_weights(*results)
