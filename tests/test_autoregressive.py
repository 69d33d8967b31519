"""autoregressive: a strong decoder is a density, in the right order of the pixels."""

import pytest
import torch
from draws import normal, seeded, uniform
from torch import nn

from vae_lesson.likelihood.autoregressive import AutoregressiveVAE
from vae_lesson.losses import bernoulli_nll
from vae_lesson.models import VAE


def strong(side=4):
    """Make a small one whose context says something."""
    torch.manual_seed(0)
    model = AutoregressiveVAE(2, 8, (1, side, side), context_size=11)
    nn.init.normal_(model.from_context.weight)
    return model


def test_a_fresh_strong_decoder_is_a_plain_vae():
    model = AutoregressiveVAE(2, 8, (1, 4, 4))
    x, eps = uniform(3, 16), torch.zeros(3, 2)
    torch.testing.assert_close(model(x, eps)[0], VAE.forward(model, x, eps)[0])


def test_each_pixel_sees_those_before_it_and_no_other():
    model = strong()
    jacobian = torch.autograd.functional.jacobian(lambda x: model.context(x[None])[0], uniform(16))
    assert (jacobian.triu() == 0).all()  # not itself, nor a later one
    assert (jacobian.abs().sum(dim=1)[1:] > 0).sum() >= 14


def test_its_logits_are_those_of_its_forward_for_several_codes_an_image():
    model, x, eps = strong(), uniform(3, 4, 4), normal(2, 3, 2)
    mu, log_var = model.encode(x)
    z = mu + eps * torch.exp(0.5 * log_var)  # (K, B, L)
    expected = torch.cat([model(x, eps=part)[0] for part in eps])
    torch.testing.assert_close(model.logits(z.flatten(0, 1), x), expected)


def test_its_probabilities_of_all_images_add_up_to_1():
    model = strong(side=3)
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 9)  # (512, 9)
    p = torch.exp(-bernoulli_nll(model.logits(torch.ones(512, 2), every), every))
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    # And `generate` draws from just these.
    drawn = model.generate(torch.ones(20_000, 2), seeded())
    codes = (drawn @ (2.0 ** torch.arange(8, -1, -1))).long()
    shares = torch.bincount(codes, minlength=512) / len(drawn)
    assert (shares - p).abs().max() < 0.015


def test_it_samples_black_and_white_images_with_a_seed():
    a, b = (strong().sample(3, seeded(1)) for _ in range(2))
    assert a.shape == (3, 16) and torch.equal(a, b)
    assert ((a == 0) | (a == 1)).all()
