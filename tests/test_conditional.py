"""conditional: the label goes where it should, and both terms are those of log p(x|y)."""

import pytest
import torch
import torch.nn.functional as F
from draws import floats, grey_images, normal, seeded, uniform
from torch.distributions import Bernoulli, Normal, kl_divergence

from vae_lesson import evaluate, train
from vae_lesson.likelihood import importance
from vae_lesson.priors.conditional import (
    ConditionalVAE,
    Given,
    LabelMoved,
    conditional_terms,
    decode_mean,
    decoder_inputs,
    draw_codes,
    fit_priors,
    one_hot,
)

IMAGES, LABELS = grey_images(20, 3, 3), torch.arange(20) % 4


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ConditionalVAE(latent_size=3, hidden_size=8, n_classes=4, n_pixels=9)


def test_the_terms_are_those_of_the_image_given_its_label(model):
    x, y = floats(IMAGES), F.one_hot(LABELS, 4).float()
    terms = conditional_terms(model, x, LABELS, generator=seeded(5))
    assert list(terms) == ["recon", "kl"]

    mu, log_var = model.encoder(torch.cat([x, y], dim=1)).chunk(2, dim=1)
    q = Normal(mu, (0.5 * log_var).exp())
    z = q.loc + q.scale * normal(20, 3, seed=5)
    p = Bernoulli(logits=model.decoder(torch.cat([z, y], dim=1)), validate_args=False)
    torch.testing.assert_close(terms["recon"], -p.log_prob(x).sum(dim=1))
    torch.testing.assert_close(terms["kl"], kl_divergence(q, Normal(0.0, 1.0)).sum(dim=1))


def test_both_networks_hear_the_label(model):
    x, z = uniform(1, 9), torch.zeros(1, 3)
    one, other = one_hot(torch.tensor([0, 1]), 4).split(1)
    assert not torch.allclose(model.encode(x, one)[0], model.encode(x, other)[0])
    assert not torch.allclose(model.decode(z, one), model.decode(z, other))


def test_every_label_meets_the_same_noise(model):
    # With no weight on the label all labels cost the same, to the last bit.
    with torch.no_grad():
        model.encoder[0].weight[:, 9:] = 0
        model.decoder[0].weight[:, 3:] = 0
    first, *others = (
        evaluate.terms_per_image(
            model, IMAGES, torch.full((20,), label), terms=conditional_terms, seed=2
        )
        for label in range(4)
    )
    for other in others:
        assert all(torch.equal(other[name], first[name]) for name in first)


def test_codes_are_draws_of_the_clouds_and_decode_with_a_label(model):
    x, y = floats(IMAGES), one_hot(LABELS, 4)
    mu, log_var = model.encode(x, y)
    z = decoder_inputs(model, IMAGES, LABELS, seed=5)
    torch.testing.assert_close(z, mu + (0.5 * log_var).exp() * normal(20, 3, seed=5))
    assert not torch.equal(z, decoder_inputs(model, IMAGES, LABELS, seed=6))
    expected = Bernoulli(logits=model.decode(z, y)).mean
    torch.testing.assert_close(decode_mean(model, z, LABELS), expected)
    assert not z.requires_grad and not decode_mean(model, z, LABELS).requires_grad


def test_given_the_labels_it_is_a_vae_for_importance_sampling(model):
    x, y = floats(IMAGES), one_hot(LABELS, 4)
    given, (mu, log_var) = Given(model, LABELS), model.encode(x, y)
    log_w = importance.posterior_log_weights(given, x, 6, seeded(1))
    q = Normal(mu, (0.5 * log_var).exp())
    z = q.loc + q.scale * normal(6, 20, 3, seed=1)
    for k in range(6):  # sample by sample
        p = Bernoulli(logits=model.decode(z[k], y), validate_args=False)
        log_joint = p.log_prob(x).sum(dim=1) + Normal(0.0, 1.0).log_prob(z[k]).sum(dim=1)
        torch.testing.assert_close(log_w[k], log_joint - q.log_prob(z[k]).sum(dim=1))


def test_each_class_has_a_prior_of_its_own_that_draws_its_codes_in_turn():
    labels = torch.arange(600) % 3
    side = 1 - 2.0 * (torch.arange(600) < 300)  # two clouds in each class
    z = torch.stack([10.0 * labels, 4 * side], dim=1) + 0.3 * normal(600, 2)
    priors = fit_priors(z, labels, 2)
    assert [prior.n_components for prior in priors] == [2, 2, 2]
    drawn = draw_codes(priors, 50)
    assert drawn.shape == (150, 2) and torch.equal(drawn, draw_codes(priors, 50))
    assert torch.equal((drawn[:, 0] / 10).round(), torch.arange(150.0) % 3)
    ends = [part[:, 1].sign().mean() for part in drawn.split(75)]
    assert max(map(abs, ends)) < 0.5  # both clouds from the beginning to the end
    assert fit_priors(z[:6], labels[:6], 3)[0].n_components == 2


def test_a_code_may_move_the_label_on(model):
    z = normal(2, 3)
    codes = torch.cat([z, torch.tensor([[0.0], [2.0]])], dim=1)
    expected = torch.sigmoid(model.decode(z, one_hot(torch.tensor([3, 1]), 4)))
    torch.testing.assert_close(LabelMoved(model, 3).decode_mean(codes), expected)


def test_fit_learns_to_draw_what_is_asked_for():
    # Two classes, white above or below: without its label an image cannot be told from z = 0.
    labels = torch.arange(512) % 2
    images = torch.zeros(512, 4, 4).byte()
    images[labels == 0, :2], images[labels == 1, 2:] = 255, 255
    torch.manual_seed(0)
    model = ConditionalVAE(latent_size=2, hidden_size=16, n_classes=2, n_pixels=16)
    how = {"epochs": 20, "batch_size": 32, "lr": 5e-3, "progress": False, "device": "cpu"}
    train.fit(model, images, labels, terms=conditional_terms, **how)
    with torch.no_grad():
        drawn = model.decode(torch.zeros(2, 2), torch.eye(2)).sigmoid().view(2, 2, 8)
    assert drawn[0, 0].min() > 0.9 > 0.1 > drawn[0, 1].max()
    assert drawn[1, 1].min() > 0.9 > 0.1 > drawn[1, 0].max()
    with pytest.raises(ValueError, match="is not known here: give terms"):
        train.fit(model, images, labels, epochs=1)  # it is no plain VAE
