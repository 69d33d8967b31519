"""conditional: the label goes where it should, and both terms are those of log p(x|y)."""

import pytest
import torch
import torch.nn.functional as F

from vae_lesson import evaluate, train
from vae_lesson.priors.conditional import ConditionalVAE, conditional_terms, labelled, one_hot


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ConditionalVAE(latent_size=3, hidden_size=8, n_classes=4, n_pixels=9)


@pytest.fixture
def images():
    return torch.randint(0, 256, (20, 3, 3), generator=torch.Generator().manual_seed(1)).byte()


@pytest.fixture
def labels():
    return torch.arange(20) % 4


def test_a_label_is_one_white_pixel_behind_its_image(images, labels):
    both = labelled(images, labels, 4)
    assert both.dtype == torch.uint8 and both.shape == (20, 13)
    assert torch.equal(both[:, :9], images.flatten(1))
    assert torch.equal(both[:, 9:].argmax(dim=1), labels)
    assert torch.equal(both[:, 9:].sum(dim=1), torch.full((20,), 255))
    assert torch.equal(both[:, 9:] / 255, one_hot(labels, 4))


@pytest.mark.parametrize(
    "labels, says",
    [
        (torch.zeros(19).long(), "20 images but labels of shape"),
        (torch.full((20,), 4), "labels must be 0 to 3, got 4 to 4"),
        (torch.full((20,), -1), "labels must be 0 to 3, got -1 to -1"),
    ],
)
def test_wrong_labels_are_refused(images, labels, says):
    with pytest.raises(ValueError, match=says):
        labelled(images, labels, 4)


def test_the_terms_are_those_of_the_image_given_its_label(model, images, labels):
    x, y = images.flatten(1) / 255, F.one_hot(labels, 4).float()
    recon, kl = conditional_terms(model, torch.cat([x, y], 1), torch.Generator().manual_seed(5))

    mu, log_var = model.encoder(torch.cat([x, y], dim=1)).chunk(2, dim=1)
    q = torch.distributions.Normal(mu, (0.5 * log_var).exp())
    eps = torch.randn(mu.shape, generator=torch.Generator().manual_seed(5))
    p = torch.distributions.Bernoulli(
        logits=model.decoder(torch.cat([q.loc + q.scale * eps, y], 1))
    )
    wanted = F.binary_cross_entropy(p.probs, x, reduction="none").sum(dim=1)
    torch.testing.assert_close(recon, wanted)  # the nine pixels; the label costs nothing
    prior = torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(kl, torch.distributions.kl_divergence(q, prior).sum(dim=1))


def test_both_networks_hear_the_label(model, images):
    x, z = images.flatten(1) / 255, torch.zeros(20, 3)
    one, other = one_hot(torch.zeros(20).long(), 4), one_hot(torch.ones(20).long(), 4)
    assert not torch.allclose(model.encode(x, one)[0], model.encode(x, other)[0])
    assert not torch.allclose(model.decode(z, one), model.decode(z, other))


def test_every_label_meets_the_same_noise(model, images):
    # With no weight on the label all labels cost the same, to the last bit.
    with torch.no_grad():
        model.encoder[0].weight[:, 9:] = 0
        model.decoder[0].weight[:, 3:] = 0
    costs = []
    for label in range(4):
        both = labelled(images, torch.full((20,), label), 4)
        costs.append(sum(evaluate.terms_per_image(model, both, conditional_terms, seed=2)))
    assert all(torch.equal(cost, costs[0]) for cost in costs)


def test_fit_learns_to_draw_what_is_asked_for():
    # Two classes, white above or below: without its label an image cannot be told from z = 0.
    labels = torch.arange(512) % 2
    images = torch.zeros(512, 4, 4).byte()
    images[labels == 0, :2], images[labels == 1, 2:] = 255, 255
    torch.manual_seed(0)
    model = ConditionalVAE(latent_size=2, hidden_size=16, n_classes=2, n_pixels=16)
    both = labelled(images, labels, 2)
    train.fit(model, both, terms=conditional_terms, epochs=20, batch_size=32, progress=False)
    with torch.no_grad():
        drawn = model.decode(torch.zeros(2, 2), torch.eye(2)).sigmoid().view(2, 2, 8)
    assert drawn[0, 0].min() > 0.9 > 0.1 > drawn[0, 1].max()
    assert drawn[1, 1].min() > 0.9 > 0.1 > drawn[1, 0].max()
    with pytest.raises(ValueError, match="is not known here: give terms"):
        train.fit(model, both, epochs=1)  # it is no plain VAE
