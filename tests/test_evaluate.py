"""evaluate: each measure against a case whose answer is known or computed another way."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.decomposition import PCA
from torch import nn

from vae_lesson import evaluate, losses, train
from vae_lesson.models import VAE, Autoencoder, reparameterize


def random_images(n=50, side=4, seed=0):
    """Make uint8 images with pixels that are correlated, so that PCA has something to find."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(0, 20, (side * side, side * side))
    images = 128 + rng.normal(size=(n, side * side)) @ mix
    return torch.from_numpy(images.clip(0, 255).astype(np.uint8)).view(n, side, side)


def floats(images):
    return images.flatten(1).float() / 255


def new(kind=VAE, latent_size=3, input_size=16, network="mlp", seed=0):
    torch.manual_seed(seed)
    return kind(latent_size, 8, input_size, network)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def identity_autoencoder(n_pixels=4):
    """Return a model whose code is the image, and whose image is the code."""
    model = Autoencoder(n_pixels, input_size=n_pixels, network="linear")
    with torch.no_grad():
        for layer in (model.encoder, model.decoder):
            layer.weight.copy_(torch.eye(n_pixels))
            layer.bias.zero_()
    return model


# --- codes and reconstructions --------------------------------------------------------------------


def test_codes_and_posteriors_keep_the_order_of_many_images():
    images = random_images(2100)  # more than two parts of 1000
    vae, autoencoder = new(), new(Autoencoder)
    mu, log_var = vae.encode(floats(images))
    for found, expected in zip(evaluate.posteriors(vae, images), (mu, log_var)):
        torch.testing.assert_close(found, expected.detach())
    torch.testing.assert_close(evaluate.codes(vae, images), mu.detach())
    z = autoencoder.encode(floats(images)).detach()
    torch.testing.assert_close(evaluate.codes(autoencoder, images), z)
    assert not evaluate.codes(autoencoder, images).requires_grad


@pytest.mark.parametrize("kind", [VAE, Autoencoder])
def test_reconstruction_error_is_without_noise(kind):
    model, images = new(kind), random_images()
    x = floats(images)
    z = model.encode(x)[0] if kind is VAE else model.encode(x)
    expected = (model.decode_mean(z) - x).square().sum(dim=1).mean().item()
    assert evaluate.reconstruction_error(model, images) == pytest.approx(expected, rel=1e-5)


def test_decoder_inputs_are_draws_for_a_vae_and_codes_for_an_autoencoder():
    vae, autoencoder, images = new(), new(Autoencoder), random_images()
    z = evaluate.decoder_inputs(autoencoder, images)
    assert torch.equal(z, evaluate.codes(autoencoder, images))
    generator = torch.Generator().manual_seed(5)
    expected = reparameterize(*evaluate.posteriors(vae, images), generator=generator)
    assert torch.equal(evaluate.decoder_inputs(vae, images, seed=5), expected)


# --- PCA ------------------------------------------------------------------------------------------


def test_pca_errors_are_those_of_explicit_reconstructions():
    train_images, test_images = random_images(200), random_images(60, seed=1)
    sizes = [1, 2, 7, 15, 16]
    found = evaluate.pca_errors(evaluate.fit_pca(train_images), test_images, sizes)
    x_train, x_test = floats(train_images).numpy(), floats(test_images).numpy()
    for size, error in zip(sizes, found):
        pca = PCA(size, svd_solver="full").fit(x_train)
        x_hat = pca.inverse_transform(pca.transform(x_test))
        expected = np.square(x_hat - x_test).sum(axis=1).mean()
        assert error == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert found[-1] < 1e-4 < found[-2]  # all 16 components miss nothing


def plane(degrees):
    """Two directions in 3-D: the first axis, and one turned out of the second by an angle."""
    angle = math.radians(degrees)
    return torch.tensor([[1.0, 0.0, 0.0], [0.0, math.cos(angle), math.sin(angle)]])


@pytest.mark.parametrize("degrees", [0, 30, 60, 90])
def test_largest_principal_angle_of_turned_planes(degrees):
    a, b = plane(0), plane(degrees)
    assert evaluate.largest_principal_angle(a, b) == pytest.approx(degrees, abs=1e-4)
    # It is a matter of the subspace, not of the vectors that span it.
    mixed = torch.tensor([[1.0, 2.0], [-3.0, 0.5]]) @ b
    assert evaluate.largest_principal_angle(mixed, a) == pytest.approx(degrees, abs=1e-4)


def test_largest_principal_angle_takes_a_models_weights():
    weight = nn.Linear(2, 5).weight.T  # has a gradient, is not contiguous
    assert evaluate.largest_principal_angle(weight, 3 * weight) == pytest.approx(0, abs=1e-4)


# --- nearest neighbours ---------------------------------------------------------------------------


def test_knn_reads_labels_of_separate_clusters():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    labels = torch.arange(90) % 3
    points = centres[labels] + normal(90, 2)
    knn = evaluate.fit_knn(points[:60], labels[:60])
    assert evaluate.knn_accuracy(knn, points[60:], labels[60:]) == 1.0
    wrong = labels[60:].clone()
    wrong[:6] = (wrong[:6] + 1) % 3
    assert evaluate.knn_accuracy(knn, points[60:], wrong) == pytest.approx(24 / 30)


def brute_force_distance(points, cloud):
    return (points.double()[:, None] - cloud.double()[None]).norm(dim=2).amin(dim=1).float()


@pytest.mark.parametrize("n", [1, 3, 1100])  # 500 at a time
def test_nearest_distance_is_that_of_brute_force(n):
    points, cloud = normal(n, 3), normal(40, 3, seed=1)
    found = evaluate.nearest_distance(points, cloud)
    assert found.shape == (n,)
    torch.testing.assert_close(found, brute_force_distance(points, cloud), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shift", [30.0, 100.0])
def test_nearest_distance_is_exact_far_from_the_origin(shift):
    # The codes of a plain autoencoder are where they like.
    points, cloud = normal(50, 2) + shift, normal(2000, 2, seed=1) + shift
    expected = brute_force_distance(points, cloud)
    torch.testing.assert_close(
        evaluate.nearest_distance(points, cloud), expected, rtol=0.01, atol=1e-4
    )


# --- Fréchet distance -----------------------------------------------------------------------------


def test_frechet_distance_of_a_set_to_itself_is_zero():
    a = normal(300, 5)
    assert evaluate.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert evaluate.frechet_distance(a, a[torch.randperm(300)]) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_of_a_shifted_and_scaled_set_is_analytic():
    a = normal(300, 5).double()
    shift = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0], dtype=torch.float64)
    assert evaluate.frechet_distance(a, a + shift) == pytest.approx(shift.square().sum().item())
    # (s - 1)² tr C, with the centre kept.
    centre = a.mean(dim=0)
    scaled = centre + 3 * (a - centre)
    expected = 4 * torch.cov(a.T).trace().item()
    assert evaluate.frechet_distance(a, scaled) == pytest.approx(expected)


def test_frechet_distance_of_gaussians_is_about_that_of_their_parameters():
    n = 50_000
    a = normal(n, 2) * torch.tensor([1.0, 2.0])
    b = normal(n, 2, seed=1) * torch.tensor([3.0, 0.5]) + torch.tensor([1.0, 0.0])
    # |m|² + sum of (σ_a - σ_b)², where the covariances commute
    assert evaluate.frechet_distance(a, b) == pytest.approx(1 + 4 + 2.25, rel=0.03)


def test_frechet_distance_where_covariances_do_not_commute():
    a, b = normal(200, 4) @ normal(4, 4, seed=1), normal(200, 4, seed=2) @ normal(4, 4, seed=3)
    cov_a, cov_b = np.cov(a.double().numpy().T), np.cov(b.double().numpy().T)
    expected = (a.double().mean(dim=0) - b.double().mean(dim=0)).square().sum().item()
    expected += np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert evaluate.frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert evaluate.frechet_distance(b, a) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_of_features_that_depend_on_each_other():
    # Dead ReLUs and copies make the covariances singular, and some eigenvalues less than 0.
    a, b = normal(300, 3), normal(300, 3, seed=1) + 1
    plain = evaluate.frechet_distance(a, b)
    turn = torch.linalg.qr(normal(40, 3, seed=2).double())[0].T  # an isometry into 40 features
    turned = [x.double() @ turn for x in (a, b)]
    assert evaluate.frechet_distance(*turned) == pytest.approx(plain, rel=1e-4)
    padded = [torch.cat([x, torch.zeros(300, 2)], dim=1) for x in (a, b)]
    assert evaluate.frechet_distance(*padded) == pytest.approx(plain, rel=1e-6)


def test_frechet_distance_of_one_feature():
    a = normal(300, 1)
    assert evaluate.frechet_distance(a, a + 2) == pytest.approx(4, rel=1e-4)


# --- generation -----------------------------------------------------------------------------------


def test_judge_and_generation_where_codes_are_pixels():
    model = identity_autoencoder()
    train_images, test_images = random_images(400, side=2), random_images(300, side=2, seed=1)
    classifier = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 10))
    with torch.no_grad():
        classifier[0].weight.copy_(torch.eye(4))
        classifier[0].bias.zero_()
        classifier[2].weight.zero_()
        classifier[2].bias.copy_(torch.tensor([0.5, *[0.5 / 9] * 9]).log())

    x_train, x_test = floats(train_images), floats(test_images)
    judge = evaluate.judge(model, train_images, test_images, classifier)
    torch.testing.assert_close(judge.cloud, x_train)
    torch.testing.assert_close(judge.real, x_test)
    near = brute_force_distance(x_test, x_train)
    assert judge.radius == pytest.approx(torch.quantile(near, 0.95).item(), rel=1e-2)
    assert judge.spread == pytest.approx(x_train.var(dim=0, correction=0).sum().sqrt().item())

    real = evaluate.generation(model, x_test, judge)
    assert real.frechet == pytest.approx(0, abs=1e-5)  # these are the test images
    assert real.confidence == pytest.approx(0.5)
    assert real.round_trip == pytest.approx(0, abs=1e-6)
    assert real.empty == pytest.approx(0.05, abs=0.01)

    far = evaluate.generation(model, x_test + 7, judge)
    assert far.frechet == pytest.approx(4 * 7**2, rel=1e-4)  # all features are moved by 7
    assert far.empty == 1.0


def test_round_trip_is_the_median_distance_over_the_spread():
    model = identity_autoencoder()
    with torch.no_grad():
        model.encoder.bias.copy_(torch.tensor([3.0, 4.0, 0.0, 0.0]))  # back comes z, moved by 5
    images = random_images(100, side=2)
    classifier = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 10))
    judge = evaluate.judge(model, images, images, classifier)
    z = evaluate.codes(model, images)
    result = evaluate.generation(model, z, judge)
    assert result.round_trip == pytest.approx(5 / judge.spread, rel=1e-4)


def test_generation_takes_a_vae():
    model, images = new(), random_images(200)
    classifier = nn.Sequential(nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 10))
    judge = evaluate.judge(model, images, images, classifier)
    z = normal(100, 3)
    back, _ = model.encode(model.decode_mean(z))
    expected = (back - z).norm(dim=1).median().item() / evaluate.spread(judge.cloud)
    assert evaluate.generation(model, z, judge).round_trip == pytest.approx(expected, rel=1e-5)


def test_image_change_of_a_linear_decoder_is_exact():
    model = new(Autoencoder, network="linear")
    with torch.no_grad():  # orthogonal columns of length 3: every unit step changes the image by 3
        model.decoder.weight.copy_(3 * torch.linalg.qr(normal(16, 3))[0])
    z = normal(20, 3, seed=1)
    change = evaluate.image_change(model, z, step=0.5)
    torch.testing.assert_close(change, torch.full((20,), 1.5))


def test_image_change_draws_its_directions_by_seed():
    model, z = new(), normal(20, 3)
    first = evaluate.image_change(model, z, 1.0, seed=0)
    assert torch.equal(first, evaluate.image_change(model, z, 1.0, seed=0))
    assert not torch.equal(first, evaluate.image_change(model, z, 1.0, seed=1))
    assert (evaluate.image_change(model, z, 0.0) == 0).all()


# --- the ELBO and the latent dimensions -----------------------------------------------------------


def test_elbo_adds_up_and_has_a_seed():
    model, images = new(), random_images()
    result = evaluate.neg_elbo(model, images, seed=2)
    recon, kl = train.mean_terms(model, images, seed=2)
    assert result == (recon, kl, recon + kl)
    assert evaluate.neg_elbo(model, images, seed=3).recon != recon
    assert evaluate.neg_elbo(model, images, seed=3).kl == kl


def test_elbo_binarises_if_asked():
    model, images = new(), random_images()
    binary = (images > 127).byte() * 255
    expected = evaluate.neg_elbo(model, binary)
    assert evaluate.neg_elbo(model, images, binarisation="threshold") == pytest.approx(expected)
    assert evaluate.neg_elbo(model, images) != pytest.approx(expected, rel=1e-3)


def test_neg_elbo_per_image_is_the_elbos():
    model, images = new(), random_images()
    per_image = evaluate.neg_elbo_per_image(model, images, seed=4)
    assert per_image.shape == (50,)
    expected = evaluate.neg_elbo(model, images, seed=4).neg_elbo
    assert per_image.mean().item() == pytest.approx(expected, rel=1e-5)


def test_neg_elbo_per_image_takes_the_mean_over_samples():
    model, images = new(), random_images(10)
    one_by_one = [evaluate.neg_elbo_per_image(model, images, seed=seed) for seed in range(4)]
    torch.testing.assert_close(
        evaluate.neg_elbo_per_image(model, images, n_samples=4), torch.stack(one_by_one).mean(dim=0)
    )

    def spread(n_samples):
        runs = [
            evaluate.neg_elbo_per_image(model, images, n_samples, seed=100 * run)
            for run in range(60)
        ]
        return torch.stack(runs).std(dim=0).mean().item()

    assert spread(1) / spread(16) == pytest.approx(4, rel=0.25)  # √16


def test_mean_kl_per_dimension_adds_up_to_the_kl():
    model, images = new(), random_images()
    per_dimension = evaluate.mean_kl_per_dimension(model, images)
    assert per_dimension.shape == (3,)
    assert per_dimension.sum().item() == pytest.approx(
        evaluate.neg_elbo(model, images).kl, rel=1e-5
    )
    mu, log_var = evaluate.posteriors(model, images)
    first = losses.kl_standard_normal(mu[:, :1], log_var[:, :1]).mean()
    assert per_dimension[0].item() == pytest.approx(first.item(), rel=1e-5)


def test_active_units_are_those_whose_mean_moves():
    noise = normal(500, 4)
    noise = (noise - noise.mean(dim=0)) / noise.std(dim=0)
    # σ: of 0.09 and 0.11 the variances lie on both sides of 0.01; a constant 5 is not active.
    mu = noise * torch.tensor([1.0, 0.09, 0.11, 0.0]) + torch.tensor([0.0, 0.0, 0.0, 5.0])
    assert evaluate.active_units(mu).tolist() == [True, False, True, False]
    assert evaluate.active_units(mu, threshold=0.02).tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    "normal_scores, anomalous_scores, area",
    [
        ([1.0, 2.0, 3.0], [4.0, 5.0], 1.0),
        ([4.0, 5.0], [1.0, 2.0, 3.0], 0.0),
        ([1.0, 2.0], [1.0, 2.0], 0.5),
        ([7.0, 7.0, 7.0], [7.0], 0.5),
        ([1.0, 3.0], [2.0, 4.0], 0.75),  # of four pairs, three in order
    ],
)
def test_roc_area_is_the_fraction_of_pairs_in_order(normal_scores, anomalous_scores, area):
    false_positive, true_positive, found = evaluate.roc(
        torch.tensor(normal_scores), torch.tensor(anomalous_scores)
    )
    assert found == pytest.approx(area)
    assert (false_positive[0], true_positive[0]) == (0, 0)
    assert (false_positive[-1], true_positive[-1]) == (1, 1)
    assert np.trapezoid(true_positive, false_positive) == pytest.approx(area)


def test_sharpness_falls_with_blur_and_reads_both_kinds_of_images():
    generator = torch.Generator().manual_seed(0)
    images = (torch.rand((5, 12, 12), generator=generator) * 255).byte()
    blurred = torch.nn.functional.avg_pool2d(images[:, None].float() / 255, 3, 1, 1)
    assert evaluate.sharpness(blurred) < 0.2 * evaluate.sharpness(images)
    assert evaluate.sharpness(images) == pytest.approx(evaluate.sharpness(images / 255))
    # A ramp has no edges; a checkerboard of 0 and 1 has -4 and +4 everywhere, variance 16.
    ramp = torch.linspace(0, 1, 12).expand(1, 12, 12)
    assert evaluate.sharpness(ramp) == pytest.approx(0, abs=1e-8)
    board = (torch.arange(12)[:, None] + torch.arange(12)) % 2.0
    assert evaluate.sharpness(board[None]) == pytest.approx(16, rel=0.02)
