"""generation: the measures of sampling where codes are pixels, and against known distances."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from tiny import same_weights, weights
from torch import nn

from vae_lesson import generation
from vae_lesson.models import VAE, Autoencoder


def random_images(n=50, side=4, seed=0):
    """Make uint8 images with pixels that are correlated, so that PCA has something to find."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(0, 20, (side * side, side * side))
    images = 128 + rng.normal(size=(n, side * side)) @ mix
    return torch.from_numpy(images.clip(0, 255).astype(np.uint8)).view(n, side, side)


def floats(images):
    return images.flatten(1).float() / 255


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def new(kind=VAE, latent_size=3, input_size=16, network="mlp", seed=0):
    torch.manual_seed(seed)
    return kind(latent_size, 8, (1, 1, input_size), network)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def identity_autoencoder(n_pixels=4):
    """Return a model whose code is the image, and whose image is the code."""
    model = Autoencoder(n_pixels, shape=(1, 1, n_pixels), network="linear")
    with torch.no_grad():
        for layer in (model.encoder, model.decoder):
            layer.weight.copy_(torch.eye(n_pixels))
            layer.bias.zero_()
    return model


# --- Fréchet distance -----------------------------------------------------------------------------


def test_frechet_distance_of_a_set_to_itself_is_zero():
    a = normal(300, 5)
    assert generation.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert generation.frechet_distance(a, a[torch.randperm(300)]) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_of_a_shifted_and_scaled_set_is_analytic():
    a = normal(300, 5).double()
    shift = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0], dtype=torch.float64)
    assert generation.frechet_distance(a, a + shift) == pytest.approx(shift.square().sum().item())
    # (s - 1)² tr C, with the centre kept.
    centre = a.mean(dim=0)
    scaled = centre + 3 * (a - centre)
    expected = 4 * torch.cov(a.T).trace().item()
    assert generation.frechet_distance(a, scaled) == pytest.approx(expected)


def test_frechet_distance_of_gaussians_is_about_that_of_their_parameters():
    n = 50_000
    a = normal(n, 2) * torch.tensor([1.0, 2.0])
    b = normal(n, 2, seed=1) * torch.tensor([3.0, 0.5]) + torch.tensor([1.0, 0.0])
    # |m|² + sum of (σ_a - σ_b)², where the covariances commute
    assert generation.frechet_distance(a, b) == pytest.approx(1 + 4 + 2.25, rel=0.03)


def test_frechet_distance_where_covariances_do_not_commute():
    a, b = normal(200, 4) @ normal(4, 4, seed=1), normal(200, 4, seed=2) @ normal(4, 4, seed=3)
    cov_a, cov_b = np.cov(a.double().numpy().T), np.cov(b.double().numpy().T)
    expected = (a.double().mean(dim=0) - b.double().mean(dim=0)).square().sum().item()
    expected += np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert generation.frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert generation.frechet_distance(b, a) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_of_features_that_depend_on_each_other():
    # Dead ReLUs and copies make the covariances singular, and some eigenvalues less than 0.
    a, b = normal(300, 3), normal(300, 3, seed=1) + 1
    plain = generation.frechet_distance(a, b)
    turn = torch.linalg.qr(normal(40, 3, seed=2).double())[0].T  # an isometry into 40 features
    turned = [x.double() @ turn for x in (a, b)]
    assert generation.frechet_distance(*turned) == pytest.approx(plain, rel=1e-4)
    padded = [torch.cat([x, torch.zeros(300, 2)], dim=1) for x in (a, b)]
    assert generation.frechet_distance(*padded) == pytest.approx(plain, rel=1e-6)


def test_frechet_distance_of_one_feature():
    a = normal(300, 1)
    assert generation.frechet_distance(a, a + 2) == pytest.approx(4, rel=1e-4)


# --- near in a cloud ------------------------------------------------------------------------------


def brute_force_distance(points, cloud):
    return (points.double()[:, None] - cloud.double()[None]).norm(dim=2).amin(dim=1).float()


@pytest.mark.parametrize("n", [1, 3, 1100])  # 500 at a time
def test_nearest_distance_is_that_of_brute_force(n):
    points, cloud = normal(n, 3), normal(40, 3, seed=1)
    found = generation.nearest_distance(points, cloud)
    assert found.shape == (n,)
    torch.testing.assert_close(found, brute_force_distance(points, cloud), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shift", [30.0, 100.0])
def test_nearest_distance_is_exact_far_from_the_origin(shift):
    # The codes of a plain autoencoder are where they like.
    points, cloud = normal(50, 2) + shift, normal(2000, 2, seed=1) + shift
    expected = brute_force_distance(points, cloud)
    torch.testing.assert_close(
        generation.nearest_distance(points, cloud), expected, rtol=0.01, atol=1e-4
    )


# --- generation -----------------------------------------------------------------------------------


def test_generation_is_measured_where_codes_are_pixels():
    model = identity_autoencoder()
    train_images, test_images = random_images(400, side=2), random_images(300, side=2, seed=1)
    classifier = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 10))
    with torch.no_grad():
        classifier[0].weight.copy_(torch.eye(4))
        classifier[0].bias.zero_()
        classifier[2].weight.zero_()
        classifier[2].bias.copy_(torch.tensor([0.5, *[0.5 / 9] * 9]).log())

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
    assert far.frechet == pytest.approx(4 * 7**2, rel=1e-4)  # all features are moved by 7
    assert far.empty == 1.0


def test_generation_takes_a_vae():
    model, images = new(), random_images(200)
    classifier = nn.Sequential(nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 10))
    reference = generation.make_reference(model, images, images, classifier)
    z = normal(100, 3)
    with torch.no_grad():
        drawn = classifier[:-1](model.decode_mean(z))
    result = generation.measure(model, z, reference)
    assert result.frechet == pytest.approx(generation.frechet_distance(drawn, reference.real))
    assert 0 <= result.empty <= 1


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
    classifier = generation.fit_classifier(images, labels, epochs=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert not classifier.training

    test, test_labels = labelled_images(300, 1)
    logits = classifier(test.flatten(1).float() / 255)
    assert logits.shape == (300, 3)
    assert (logits.argmax(dim=1) == test_labels).float().mean() > 0.95

    torch.manual_seed(321)
    again = generation.fit_classifier(images, labels, epochs=5)
    assert same_weights(weights(again), weights(classifier))
    # The seed is that of the first weights, and of the order of the images too.
    first, other = (
        generation.fit_classifier(images, labels, epochs=0, seed=seed) for seed in (0, 1)
    )
    assert not same_weights(weights(first), weights(other))


def test_sampling_is_measured_in_colour_too():
    def coloured(n, seed):  # the class is the bright channel
        labels = torch.arange(n) % 3
        noise = torch.randint(100, (n, 3, 4, 4), generator=torch.Generator().manual_seed(seed))
        noise[torch.arange(n), labels] += 100
        return noise.byte(), labels

    (train, labels), (test, test_labels) = coloured(600, 0), coloured(300, 1)
    classifier = generation.fit_classifier(train, labels, epochs=5)
    assert (classifier(floats(test)).argmax(dim=1) == test_labels).float().mean() > 0.95
    model = identity_autoencoder(48)  # its codes are the pixels
    reference = generation.make_reference(model, train, test, classifier)
    real = generation.measure(model, floats(test), reference)
    red = generation.measure(model, floats(test[test_labels == 0]), reference)
    assert real.frechet == pytest.approx(0, abs=1e-4) and red.frechet > 1


@needs_cuda
def test_fit_classifier_leaves_the_gpus_random_state():
    torch.cuda.manual_seed(123)
    state = torch.cuda.get_rng_state()
    generation.fit_classifier(*labelled_images(20, 0), epochs=1)
    assert torch.equal(torch.cuda.get_rng_state(), state)
