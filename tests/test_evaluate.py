"""evaluate: each measure against a case whose answer is known or computed another way."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from vae_lesson import evaluate, losses
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


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_images_in_colour_are_measured_with_all_their_channels(network):
    torch.manual_seed(0)
    model = VAE(3, 8, (3, 6, 6), network)
    images = torch.randint(256, (20, 3, 6, 6), generator=torch.Generator().manual_seed(0)).byte()
    x, (mu, log_var) = floats(images), model.encode(images.float() / 255)
    torch.testing.assert_close(evaluate.codes(model, images), mu.detach())
    error = (model.decode_mean(mu) - x).square().sum(dim=1).mean().item()
    assert evaluate.reconstruction_error(model, images) == pytest.approx(error)
    z = reparameterize(mu, log_var, generator=torch.Generator().manual_seed(0))
    nll = -torch.distributions.Bernoulli(logits=model.decode(z), validate_args=False).log_prob(x)
    assert evaluate.mean_terms(model, images).recon == pytest.approx(nll.sum(dim=1).mean().item())


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
    found = evaluate.pca_errors(PCA().fit(floats(train_images)), test_images, sizes)
    x_train, x_test = floats(train_images).numpy(), floats(test_images).numpy()
    for size, error in zip(sizes, found):
        pca = PCA(size, svd_solver="full").fit(x_train)
        x_hat = pca.inverse_transform(pca.transform(x_test))
        expected = np.square(x_hat - x_test).sum(axis=1).mean()
        assert error == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert found[-1] < 1e-4 < found[-2]  # all 16 components miss nothing


# --- how the image changes ------------------------------------------------------------------------


# --- terms ----------------------------------------------------------------------------------------


def test_terms_per_image_are_in_order_and_by_seed():
    images = random_images(2300)  # more than two parts of 1000
    model = new()
    recon, kl = evaluate.terms_per_image(model, images, seed=4)
    x = images.flatten(1).float() / 255
    mu, log_var = model.encode(x)
    torch.testing.assert_close(kl, losses.kl_standard_normal(mu, log_var).detach())
    generator = torch.Generator().manual_seed(4)
    eps = torch.cat([torch.randn(n, 3, generator=generator) for n in (1000, 1000, 300)])
    x_logits, _, _ = model(x, eps=eps)
    torch.testing.assert_close(recon, losses.bernoulli_nll(x_logits, x).detach())
    assert evaluate.mean_terms(model, images, seed=4)[:2] == (recon.mean().item(), kl.mean().item())


def test_each_kind_of_model_has_its_terms():
    with pytest.raises(
        ValueError, match="what a Linear is trained on is not known here: give terms"
    ):
        losses.default_terms(torch.nn.Linear(2, 2))
    assert losses.default_terms(new()) is losses.elbo_terms
    assert losses.default_terms(new(Autoencoder)) is losses.squared_error_terms
    x = torch.rand(3, 16)
    model = new(Autoencoder)
    recon, kl = losses.squared_error_terms(model, x)
    torch.testing.assert_close(recon, (model(x)[0] - x).square().sum(dim=1))
    assert torch.equal(kl, torch.zeros(3))


# --- the ELBO and the latent dimensions -----------------------------------------------------------


def test_elbo_adds_up_and_has_a_seed():
    model, images = new(), random_images()
    result = evaluate.mean_terms(model, images, seed=2)
    recon, kl = (part.mean().item() for part in evaluate.terms_per_image(model, images, seed=2))
    assert result == (recon, kl, recon + kl)
    assert evaluate.mean_terms(model, images, seed=3).recon != result.recon
    assert evaluate.mean_terms(model, images, seed=3).kl == result.kl


def test_elbo_binarises_if_asked():
    model, images = new(), random_images()
    binary = (images > 127).byte() * 255
    expected = evaluate.mean_terms(model, binary)
    assert evaluate.mean_terms(model, images, binarisation="threshold") == pytest.approx(expected)
    assert evaluate.mean_terms(model, images) != pytest.approx(expected, rel=1e-3)


def test_neg_elbo_per_image_is_the_elbos():
    model, images = new(), random_images()
    per_image = evaluate.neg_elbo_per_image(model, images, seed=4)
    assert per_image.shape == (50,)
    expected = evaluate.mean_terms(model, images, seed=4).neg_elbo
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
        evaluate.mean_terms(model, images).kl, rel=1e-5
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
