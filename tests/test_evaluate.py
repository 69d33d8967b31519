"""evaluate: each measure against a case whose answer is known or computed another way."""

import numpy as np
import pytest
import torch
from draws import floats, grey_images, normal, seeded
from sklearn.decomposition import PCA
from tiny import new, patterned_images

from vae_lesson import evaluate, losses
from vae_lesson.models import VAE, Autoencoder, reparameterize

IMAGES = patterned_images()

# --- codes and reconstructions --------------------------------------------------------------------


def test_codes_and_posteriors_keep_the_order_of_many_images():
    images = grey_images(2100, 4, 4)  # more than two parts of 1000
    vae, autoencoder = new(), new(Autoencoder)
    for found, expected in zip(evaluate.posteriors(vae, images), vae.encode(floats(images))):
        torch.testing.assert_close(found, expected.detach())
    assert torch.equal(evaluate.codes(vae, images), evaluate.posteriors(vae, images)[0])
    z = autoencoder.encode(floats(images)).detach()
    torch.testing.assert_close(evaluate.codes(autoencoder, images), z)


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_images_in_colour_are_measured_with_all_their_channels(network):
    torch.manual_seed(0)
    model, images = VAE(3, 8, (3, 6, 6), network), grey_images(20, 3, 6, 6)
    x, (mu, log_var) = floats(images), model.encode(images / 255)
    torch.testing.assert_close(evaluate.codes(model, images), mu.detach())
    z = reparameterize(mu, log_var, generator=seeded())
    nll = -torch.distributions.Bernoulli(logits=model.decode(z), validate_args=False).log_prob(x)
    assert evaluate.mean_terms(model, images).recon == pytest.approx(nll.sum(dim=1).mean().item())


@pytest.mark.parametrize("kind", [VAE, Autoencoder])
def test_reconstruction_error_is_without_noise(kind):
    model, x = new(kind), floats(IMAGES)
    z = model.encode(x)[0] if kind is VAE else model.encode(x)
    expected = (model.decode_mean(z) - x).square().sum(dim=1).mean().item()
    assert evaluate.reconstruction_error(model, IMAGES) == pytest.approx(expected, rel=1e-5)


def test_decoder_inputs_are_draws_for_a_vae_and_codes_for_an_autoencoder():
    vae, autoencoder = new(), new(Autoencoder)
    z = evaluate.decoder_inputs(autoencoder, IMAGES)
    assert torch.equal(z, evaluate.codes(autoencoder, IMAGES))
    expected = reparameterize(*evaluate.posteriors(vae, IMAGES), generator=seeded(5))
    assert torch.equal(evaluate.decoder_inputs(vae, IMAGES, seed=5), expected)


def test_pca_errors_are_those_of_explicit_reconstructions():
    train_images, test_images = patterned_images(200), patterned_images(60, seed=1)
    sizes = [1, 2, 7, 16]
    found = evaluate.pca_errors(PCA().fit(floats(train_images)), test_images, sizes)
    x_train, x_test = floats(train_images).numpy(), floats(test_images).numpy()
    for size, error in zip(sizes, found):
        pca = PCA(size, svd_solver="full").fit(x_train)
        x_hat = pca.inverse_transform(pca.transform(x_test))
        expected = np.square(x_hat - x_test).sum(axis=1).mean()
        assert error == pytest.approx(expected, rel=1e-4, abs=1e-5)


# --- terms ----------------------------------------------------------------------------------------


def test_terms_per_image_are_in_order_and_by_seed():
    model, images = new(), grey_images(2300, 4, 4)  # more than two parts of 1000
    terms = evaluate.terms_per_image(model, images, seed=4)
    assert list(terms) == ["recon", "kl"]
    x = floats(images)
    torch.testing.assert_close(terms["kl"], losses.kl_standard_normal(*model.encode(x)).detach())
    generator = seeded(4)
    eps = torch.cat([torch.randn(n, 2, generator=generator) for n in (1000, 1000, 300)])
    torch.testing.assert_close(
        terms["recon"], losses.bernoulli_nll(model(x, eps=eps)[0], x).detach()
    )


def test_what_goes_with_the_images_arrives_as_it_is_and_with_its_image():
    images, labels = grey_images(2300, 2, 2), torch.arange(2300)
    codes = normal(2300, 3)

    def terms(model, x, labels, codes, generator):
        assert x.shape[1:] == (4,) and labels.dtype == torch.int64
        return {"pixel": x[:, 0], "label": labels, "code": codes[:, 1]}

    found = evaluate.terms_per_image(new(), images, labels, codes, terms=terms)
    assert torch.equal(found["pixel"], floats(images)[:, 0])
    assert torch.equal(found["label"], labels) and torch.equal(found["code"], codes[:, 1])


def test_means_of_terms_go_by_the_names_of_any_terms():
    def terms(model, x, generator):
        return {"first": x[:, 0], "constant": torch.full((len(x),), 2.0)}

    found = evaluate.means_of_terms(new(), IMAGES, terms=terms)
    assert found == {"first": pytest.approx(floats(IMAGES)[:, 0].mean().item()), "constant": 2.0}


def test_mean_terms_are_those_of_each_image_and_add_up():
    model = new()
    result = evaluate.mean_terms(model, IMAGES, seed=2)
    each = evaluate.terms_per_image(model, IMAGES, seed=2)
    recon, kl = each["recon"].mean().item(), each["kl"].mean().item()
    assert result == (recon, kl, recon + kl)
    assert evaluate.mean_terms(model, IMAGES, seed=3).recon != recon
    per_dimension = evaluate.mean_kl_per_dimension(model, IMAGES)
    assert per_dimension.shape == (2,) and per_dimension.sum().item() == pytest.approx(kl, rel=1e-5)


def test_terms_binarise_if_asked():
    model = new()
    expected = evaluate.mean_terms(model, (IMAGES > 127).byte() * 255)
    assert evaluate.mean_terms(model, IMAGES, binarisation="threshold") == pytest.approx(expected)
    assert evaluate.mean_terms(model, IMAGES) != pytest.approx(expected, rel=1e-3)


# --- the latent dimensions, and scores ------------------------------------------------------------


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
        ([7.0, 7.0, 7.0], [7.0], 0.5),
        ([1.0, 3.0], [2.0, 4.0], 0.75),  # of four pairs, three in order
    ],
)
def test_roc_area_is_the_fraction_of_pairs_in_order(normal_scores, anomalous_scores, area):
    false_positive, true_positive, found = evaluate.roc(
        torch.tensor(normal_scores), torch.tensor(anomalous_scores)
    )
    assert found == pytest.approx(area)
    assert np.trapezoid(true_positive, false_positive) == pytest.approx(area)


def test_terms_that_are_no_dictionary_of_one_value_an_image_are_refused():
    for terms in (lambda m, x, generator: (x.sum(1), x.sum(1)), lambda m, x, generator: {"a": x}):
        with pytest.raises(ValueError, match=r"terms must return \{name: \(\d+,\)\}"):
            evaluate.terms_per_image(new(), IMAGES, terms=terms)
