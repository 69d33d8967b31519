"""models: shapes, the article's network, the reparameterisation, and what is refused."""

import math

import pytest
import torch
from torch import nn

from vae_lesson.models import VAE, Autoencoder, reparameterize


def rand(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def seeded(kind, *args, seed=0, **kwargs):
    torch.manual_seed(seed)
    return kind(*args, **kwargs)


# --- shapes ---------------------------------------------------------------------------------------

# network, latent_size, hidden_size, side
SIZES = [
    ("linear", 1, 400, 5),
    ("linear", 20, 400, 28),
    ("mlp", 1, 3, 8),
    ("mlp", 2, 16, 28),
    ("mlp", 50, 7, 3),
    ("deep", 2, 5, 4),
    ("deep", 50, 200, 28),
    *[("conv", 3, 8, side) for side in (1, 2, 7, 8, 28, 33)],
    ("conv", 1, 1, 9),
    ("conv", 30, 5, 6),
]
sizes = pytest.mark.parametrize("network, latent_size, hidden_size, side", SIZES)


@sizes
def test_autoencoder_shapes(network, latent_size, hidden_size, side):
    model = Autoencoder(latent_size, hidden_size, (1, side, side), network)
    x = rand(3, side, side)
    x_hat, z = model(x)
    assert x_hat.shape == (3, side * side)
    assert z.shape == (3, latent_size)
    assert model.decode(z).shape == (3, side * side)
    # Square and flat images are the same images.
    torch.testing.assert_close(model(x.flatten(1))[0], x_hat)


@sizes
def test_vae_shapes(network, latent_size, hidden_size, side):
    model = VAE(latent_size, hidden_size, (1, side, side), network)
    x = rand(3, side, side)
    x_logits, mu, log_var = model(x)
    assert x_logits.shape == (3, side * side)
    assert mu.shape == log_var.shape == (3, latent_size)
    assert model.decode_mean(mu).shape == (3, side * side)
    assert model.sample(2).shape == (2, side * side)
    torch.testing.assert_close(model.encode(x.flatten(1))[0], mu)


@pytest.mark.parametrize("kind", [Autoencoder, VAE])
@pytest.mark.parametrize("network", ["linear", "mlp", "deep", "conv"])
def test_every_weight_gets_a_gradient(kind, network):
    model = seeded(kind, 3, 32, (1, 8, 8), network)
    model(rand(20, 64))[0].square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", [Autoencoder, VAE])
def test_config_rebuilds_the_model(kind):
    model = kind(3, 8, (1, 7, 7), "conv")
    assert kind(**model.config).load_state_dict(model.state_dict())


# --- the article's network ------------------------------------------------------------------------


def test_vae_default_is_the_articles_network():
    model = VAE()

    def layers(part):
        return [
            (layer.in_features, layer.out_features) if isinstance(layer, nn.Linear) else type(layer)
            for layer in part
        ]

    # 40 = one matrix for both mu and log_var.
    assert layers(model.encoder) == [(784, 400), nn.ReLU, (400, 40)]
    assert layers(model.decoder) == [(20, 400), nn.ReLU, (400, 784)]
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert n_parameters == 784 * 400 + 400 + 400 * 40 + 40 + 20 * 400 + 400 + 400 * 784 + 784


def test_vae_forward_is_encode_reparameterize_decode():
    model = seeded(VAE, 3, 8, (1, 4, 4))
    x, eps = rand(5, 16), torch.randn(5, 3)
    x_logits, mu, log_var = model(x, eps=eps)
    both = model.encoder(x)
    assert torch.equal(mu, both[:, :3]) and torch.equal(log_var, both[:, 3:])
    assert torch.equal(x_logits, model.decode(reparameterize(mu, log_var, eps)))
    # Without eps, the noise is the generator's, and it matters.
    first, again, other = (
        model(x, generator=torch.Generator().manual_seed(seed))[0] for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("kind", [Autoencoder, VAE])
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_decode_gives_logits_and_decode_mean_their_sigmoid(kind, network):
    model = seeded(kind, 2, 8, (1, 4, 4), network)
    z = 10 * torch.randn(4, 2)
    assert torch.equal(model.decode_mean(z), torch.sigmoid(model.decode(z)))


def test_linear_autoencoder_is_affine_without_sigmoid():
    model = seeded(Autoencoder, 3, shape=(1, 4, 4), network="linear")
    assert [type(m) for m in model.modules() if m is not model] == [nn.Linear, nn.Linear]
    for f, size in [(model.encode, 16), (model.decode_mean, 3)]:
        a, b = 5 * rand(4, size), 5 * rand(4, size, seed=1)
        torch.testing.assert_close(f(a + b) + f(torch.zeros(4, size)), f(a) + f(b))
    z = 100 * torch.randn(4, 3)
    x_hat = model.decode_mean(z)
    assert torch.equal(x_hat, model.decode(z))
    assert x_hat.min() < 0 and x_hat.max() > 1


def test_mlp_autoencoder_is_not_affine():
    model = seeded(Autoencoder, 3, 8, (1, 4, 4))
    a, b = 5 * rand(4, 16), 5 * rand(4, 16, seed=1)
    off = model.encode(a + b) + model.encode(torch.zeros(4, 16)) - model.encode(a) - model.encode(b)
    assert off.abs().max() > 1e-3


def test_linear_vae_has_one_matrix_each_way_and_bernoulli_pixels():
    model = seeded(VAE, 3, shape=(1, 4, 4), network="linear")
    assert (model.encoder.out_features, model.decoder.in_features) == (6, 3)
    x_hat = model.decode_mean(10 * torch.randn(4, 3))
    assert x_hat.min() >= 0 and x_hat.max() <= 1


# --- reparameterize and sample --------------------------------------------------------------------


def test_reparameterize_is_exact_with_given_noise():
    mu, log_var, eps = (torch.randn(3, 2, dtype=torch.float64) for _ in range(3))
    z = reparameterize(mu, log_var, eps)
    torch.testing.assert_close(z, mu + eps * torch.sqrt(torch.exp(log_var)))


def test_reparameterize_has_the_right_mean_and_variance():
    n = 100_000
    mu = torch.tensor([-1.0, 0.0, 3.0]).repeat(n, 1)
    log_var = torch.tensor([-2.0, 0.0, 1.0]).repeat(n, 1)
    z = reparameterize(mu, log_var, generator=torch.Generator().manual_seed(0))
    variance = log_var[0].exp()
    assert ((z.mean(dim=0) - mu[0]).abs() < 4 * torch.sqrt(variance / n)).all()
    # The variance of a Gaussian's sample variance is 2 σ⁴ / n.
    assert ((z.var(dim=0) - variance).abs() < 4 * variance * math.sqrt(2 / n)).all()
    # Each dimension has noise of its own.
    assert torch.corrcoef(z.T).fill_diagonal_(0).abs().max() < 4 / math.sqrt(n)


def test_reparameterize_lets_gradients_through():
    mu, log_var, eps = (torch.randn(3, 2, dtype=torch.float64) for _ in range(3))
    mu.requires_grad_()
    log_var.requires_grad_()
    reparameterize(mu, log_var, eps).sum().backward()
    torch.testing.assert_close(mu.grad, torch.ones_like(mu))
    sigma = torch.exp(0.5 * log_var.detach())
    torch.testing.assert_close(log_var.grad, eps * sigma / 2)


def test_reparameterize_has_a_seed():
    mu, log_var = torch.zeros(3, 2), torch.zeros(3, 2)
    first, again, other = (
        reparameterize(mu, log_var, generator=torch.Generator().manual_seed(seed))
        for seed in (5, 5, 6)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("network", ["linear", "mlp", "deep", "conv"])
def test_sample_decodes_standard_normal_codes_by_seed(network):
    model = seeded(VAE, 2, 8, (1, 4, 4), network)
    images = model.sample(50, torch.Generator().manual_seed(3))
    z = torch.randn((50, 2), generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(images, model.decode_mean(z))
    assert images.shape == (50, 16) and images.min() >= 0 and images.max() <= 1
    assert not images.requires_grad
    assert not torch.equal(images, model.sample(50, torch.Generator().manual_seed(4)))


def test_sample_does_not_use_the_encoder():
    model = VAE(2, 8, (1, 4, 4))
    for parameter in model.encoder.parameters():
        nn.init.constant_(parameter, math.nan)
    assert torch.isfinite(model.sample(5)).all()
    assert torch.isnan(model.encode(rand(5, 16))[0]).all()  # the weights are spoilt indeed


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Autoencoder, VAE])
@pytest.mark.parametrize(
    "options, says",
    [
        ({"latent_size": 0}, "latent_size must be a whole number of at least 1, got 0"),
        ({"latent_size": 2.0}, "latent_size must be a whole number of at least 1, got 2.0"),
        ({"hidden_size": -1}, "hidden_size must be a whole number of at least 1, got -1"),
        ({"shape": (1, 0, 4)}, "each number of shape must be a whole number of at least 1, got 0"),
        ({"network": "transformer"}, "unknown network 'transformer': choose one of linear, mlp"),
        (
            {"network": "conv", "shape": (4, 5)},
            "shape must be (channels, height, width), got (4, 5)",
        ),
    ],
)
def test_bad_sizes_and_networks_are_refused(kind, options, says):
    with pytest.raises(ValueError) as error:
        kind(**options)
    assert says in str(error.value)


@pytest.mark.parametrize("kind", [Autoencoder, VAE])
@pytest.mark.parametrize("network", ["linear", "mlp", "deep", "conv"])
def test_bad_images_and_codes_are_refused(kind, network):
    model = kind(2, 8, (1, 4, 4), network)
    with pytest.raises(ValueError, match=r"floats in \[0, 1\], got torch.uint8: use data.to_float"):
        model.encode(torch.zeros(3, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"images of 16 pixels, got 25 \(shape \(3, 5, 5\)\)"):
        model(torch.zeros(3, 5, 5))
    with pytest.raises(ValueError, match=r"codes have shape \(B, 2\), got \(3, 4\)"):
        model.decode(torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"codes have shape \(B, 2\), got \(2,\)"):
        model.decode_mean(torch.zeros(2))


def test_one_flat_image_without_a_batch_is_refused():
    with pytest.raises(ValueError, match=r"\(16,\)"):
        VAE(2, 8, (1, 4, 4)).encode(torch.zeros(16))


@pytest.mark.parametrize("n", [0, -3])
def test_sample_refuses_no_images(n):
    with pytest.raises(ValueError, match=f"at least 1, got {n}"):
        VAE(2, 8, (1, 4, 4)).sample(n)


def test_reparameterize_names_the_shapes():
    with pytest.raises(ValueError, match=r"got \(3, 2\), \(3, 1\) and \(3, 2\)"):
        reparameterize(torch.zeros(3, 2), torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"got \(3, 2\), \(3, 2\) and \(1, 2\)"):
        reparameterize(torch.zeros(3, 2), torch.zeros(3, 2), eps=torch.zeros(1, 2))


def test_the_deep_network_is_that_of_burda_et_al():
    model = VAE(50, 200, (1, 28, 28), "deep")
    sizes = [(784, 200), (200, 200), (200, 100)], [(50, 200), (200, 200), (200, 784)]
    for part, expected in zip((model.encoder, model.decoder), sizes):
        layers = [layer for layer in part if isinstance(layer, nn.Linear)]
        assert [(layer.in_features, layer.out_features) for layer in layers] == expected
        assert [type(layer) for layer in part][1::2] == [nn.Tanh, nn.Tanh]
