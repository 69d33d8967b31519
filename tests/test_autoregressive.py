"""collapse: what free bits push on, and that a strong decoder is a density with the right order."""

import pytest
import torch
from torch import nn

from vae_lesson import losses
from vae_lesson.likelihood.autoregressive import AutoregressiveVAE
from vae_lesson.models import VAE


def rand(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


# --- free bits ------------------------------------------------------------------------------------


def test_free_bits_counts_a_dimension_under_the_limit_as_the_limit():
    kl_j = torch.tensor([[0.1, 2.0, 0.0], [0.3, 4.0, 0.0]], requires_grad=True)
    kl = losses.free_bits(kl_j, 0.5)
    torch.testing.assert_close(kl, torch.tensor([0.5 + 3.0 + 0.5] * 2))
    kl.mean().backward()  # only the dimension over the limit is pushed
    assert kl_j.grad.tolist() == [[0, 0.5, 0], [0, 0.5, 0]]
    torch.testing.assert_close(losses.free_bits(kl_j, 0.0).sum(), kl_j.sum())


# --- the strong decoder ---------------------------------------------------------------------------


def strong(seed=0):
    """Make a small one whose context says something."""
    torch.manual_seed(seed)
    model = AutoregressiveVAE(2, 8, (1, 4, 4), context_size=11)
    nn.init.normal_(model.from_context.weight)
    return model


def test_a_fresh_strong_decoder_is_a_plain_vae():
    torch.manual_seed(0)
    model = AutoregressiveVAE(2, 8, (1, 4, 4))
    x, eps = rand(3, 16), torch.zeros(3, 2)
    torch.testing.assert_close(model(x, eps)[0], VAE.forward(model, x, eps)[0])


def test_each_pixel_sees_those_before_it_and_no_other():
    model = strong()
    jacobian = torch.autograd.functional.jacobian(lambda x: model.context(x[None])[0], rand(16))
    assert (jacobian.triu() == 0).all()  # not itself, nor a later one
    assert (jacobian.abs().sum(dim=1)[1:] > 0).sum() >= 14


def test_its_probabilities_of_all_images_add_up_to_1():
    torch.manual_seed(0)
    model = AutoregressiveVAE(2, 8, (1, 3, 3), context_size=5)
    nn.init.normal_(model.from_context.weight)
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 9)  # (512, 9)
    logits = model.decode(torch.ones(1, 2)) + model.context(every)
    log_p = -torch.nn.functional.binary_cross_entropy_with_logits(logits, every, reduction="none")
    assert log_p.sum(dim=1).exp().sum().item() == pytest.approx(1, abs=1e-5)
    # And `generate` draws from just these.
    drawn = model.generate(torch.ones(20_000, 2), torch.Generator().manual_seed(0))
    codes = (drawn @ (2.0 ** torch.arange(8, -1, -1))).long()
    shares = torch.bincount(codes, minlength=512) / len(drawn)
    assert (shares - log_p.sum(dim=1).exp()).abs().max() < 0.015


def test_it_samples_black_and_white_images_with_a_seed():
    model = strong()
    a, b = (model.sample(3, torch.Generator().manual_seed(1)) for _ in range(2))
    assert a.shape == (3, 16) and torch.equal(a, b)
    assert ((a == 0) | (a == 1)).all()
    with pytest.raises(ValueError, match="n must be a whole number"):
        model.sample(0)
