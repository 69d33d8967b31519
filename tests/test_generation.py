"""generation: the measures of sampling where codes are pixels, and against known distances."""

import numpy as np
import pytest
import torch
from draws import floats, grey_images, normal, seeded
from scipy.linalg import sqrtm
from tiny import same_weights, weights
from torch import nn

from vae_lesson import generation
from vae_lesson.models import Autoencoder

# --- Fréchet distance -----------------------------------------------------------------------------


@pytest.mark.parametrize("n_features", [1, 5])
def test_frechet_distance_of_a_shifted_and_scaled_set_is_analytic(n_features):
    a = normal(300, n_features, dtype=torch.float64)
    shift = normal(n_features, seed=1, dtype=torch.float64)
    expected = shift.square().sum().item()
    assert generation.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert generation.frechet_distance(a, a + shift) == pytest.approx(expected)
    # (s - 1)² tr C, with the centre kept.
    centre = a.mean(dim=0)
    expected = 4 * a.var(dim=0).sum().item()
    assert generation.frechet_distance(a, centre + 3 * (a - centre)) == pytest.approx(expected)


def test_frechet_distance_where_covariances_do_not_commute():
    a, b = normal(200, 4) @ normal(4, 4, seed=1), normal(200, 4, seed=2) @ normal(4, 4, seed=3)
    cov_a, cov_b = np.cov(a.double().numpy().T), np.cov(b.double().numpy().T)
    expected = (a.double().mean(dim=0) - b.double().mean(dim=0)).square().sum().item()
    expected += np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert generation.frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_of_features_that_depend_on_each_other():
    # Copies make the covariances singular, and some eigenvalues less than 0.
    a, b = normal(300, 3), normal(300, 3, seed=1) + 1
    plain = generation.frechet_distance(a, b)
    turn = torch.linalg.qr(normal(40, 3, seed=2).double())[0].T  # an isometry into 40 features
    turned = [x.double() @ turn for x in (a, b)]
    assert generation.frechet_distance(*turned) == pytest.approx(plain, rel=1e-4)


# --- near in a cloud ------------------------------------------------------------------------------


def brute_force_distance(points, cloud):
    return (points.double()[:, None] - cloud.double()[None]).norm(dim=2).amin(dim=1).float()


# More than are taken at a time; and far from the origin, as a plain autoencoder's codes may lie.
@pytest.mark.parametrize("n, shift", [(1, 0.0), (1100, 0.0), (50, 100.0)])
def test_nearest_distance_is_that_of_brute_force(n, shift):
    points, cloud = normal(n, 3) + shift, normal(400, 3, seed=1) + shift
    found = generation.nearest_distance(points, cloud)
    expected = brute_force_distance(points, cloud)
    torch.testing.assert_close(found, expected, rtol=1e-2 if shift else 1e-4, atol=1e-4)


# --- generation -----------------------------------------------------------------------------------


def identity_autoencoder(n_pixels):
    """Return a model whose code is the image, and whose image is the code."""
    model = Autoencoder(n_pixels, shape=(1, 1, n_pixels), network="linear")
    for layer in (model.encoder, model.decoder):
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model


def test_generation_is_measured_where_codes_are_pixels():
    model = identity_autoencoder(12)
    train_images, test_images = grey_images(400, 3, 2, 2), grey_images(300, 3, 2, 2, seed=1)
    classifier = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 10))
    nn.init.eye_(classifier[0].weight)  # its features are the pixels
    nn.init.zeros_(classifier[0].bias)

    x_train, x_test = floats(train_images), floats(test_images)
    reference = generation.make_reference(model, train_images, test_images, classifier)
    torch.testing.assert_close(reference.cloud, x_train)
    torch.testing.assert_close(reference.real, x_test)
    near = brute_force_distance(x_test, x_train)
    assert reference.radius == pytest.approx(torch.quantile(near, 0.95).item(), rel=1e-2)

    real = generation.measure(model, x_test, reference)
    assert real.frechet == pytest.approx(0, abs=1e-5)  # these are the test images
    assert real.empty == pytest.approx(0.05, abs=0.01)
    assert generation.measure(model, x_train[:50], reference).empty == 0  # copies
    far = generation.measure(model, x_test + 7, reference)
    assert far.frechet == pytest.approx(12 * 7**2, rel=1e-4)  # all features are moved by 7
    assert far.empty == 1.0


# --- the classifier -------------------------------------------------------------------------------


def labelled_images(n, seed):
    """Make 3×4×4 images of three classes: the bright channel is the class, under noise."""
    labels = torch.randint(3, (n,), generator=seeded(seed))
    images = torch.randint(100, (n, 3, 4, 4), generator=seeded(seed))
    images[torch.arange(n), labels] += 100
    return images.byte(), labels


def test_fit_classifier_learns_from_its_seed_alone():
    images, labels = labelled_images(600, 0)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    classifier = generation.fit_classifier(images, labels, epochs=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert not classifier.training

    test, test_labels = labelled_images(300, 1)
    logits = classifier(floats(test))
    assert logits.shape == (300, 3)
    assert (logits.argmax(dim=1) == test_labels).float().mean() > 0.95

    torch.manual_seed(321)
    again = generation.fit_classifier(images, labels, epochs=5)
    assert same_weights(weights(again), weights(classifier))
    first, other = (
        generation.fit_classifier(images, labels, epochs=0, seed=seed) for seed in (0, 1)
    )
    assert not same_weights(weights(first), weights(other))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_fit_classifier_leaves_the_gpus_random_state():
    torch.cuda.manual_seed(123)
    state = torch.cuda.get_rng_state()
    generation.fit_classifier(*labelled_images(20, 0), epochs=1)
    assert torch.equal(torch.cuda.get_rng_state(), state)


def test_precision_and_recall_by_hand():
    real = torch.tensor([0.0, 1.0, 3.0, 10.0])[:, None]  # nearest neighbours at 1, 1, 2 and 7
    drawn = torch.tensor([0.5, 2.5, 2.6, -3.0])[:, None]  # at 2, 0.1, 0.1 and 3.5
    # -3 lies in no ball of the real ones; 3 and 10 in none of the drawn ones.
    assert generation.precision_recall(drawn, real, k=1) == (0.75, 0.5)


def test_precision_is_fidelity_and_recall_variety():
    torch.manual_seed(0)
    at = torch.tensor([[0.0, 0.0], [20.0, 0.0]])

    def around(places, n=200):
        return at[torch.tensor(places)[torch.arange(n) % len(places)]] + torch.randn(n, 2)

    real = around([0, 1])
    assert min(generation.precision_recall(around([0, 1]), real)) > 0.9
    precision, recall = generation.precision_recall(around([0]), real)  # one of two kinds
    assert precision > 0.9 and recall < 0.55
    strange = torch.cat([around([0, 1], 100), around([0], 100) + 60])
    precision, recall = generation.precision_recall(strange, real)  # half of it nothing real
    assert 0.4 < precision < 0.55 and recall > 0.85


@pytest.mark.parametrize("n, n_real", [(5, 6), (3, 3)])
def test_precision_and_recall_ask_for_sets_of_equal_size(n, n_real):
    with pytest.raises(ValueError, match=f"over k = 3: got {n} and {n_real}"):
        generation.precision_recall(torch.zeros(n, 2), torch.zeros(n_real, 2))
