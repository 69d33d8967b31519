"""models: shapes, the article's network, the reparameterisation, and what is refused."""

import pytest
import torch
from draws import normal, seeded, uniform
from torch import nn

from vae_lesson.models import VAE, Autoencoder, reparameterize


def new(kind, *args, **kwargs):
    torch.manual_seed(0)
    return kind(*args, **kwargs)


kinds = pytest.mark.parametrize("kind", [Autoencoder, VAE])

# --- shapes ---------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize(
    "network, latent_size, hidden_size, side",
    [
        ("linear", 1, 400, 5),
        ("mlp", 2, 16, 28),
        ("deep", 50, 5, 4),
        *[("conv", 3, 8, side) for side in (1, 2, 7, 8, 28, 33)],
        ("conv", 1, 1, 9),
    ],
)
def test_shapes(kind, network, latent_size, hidden_size, side):
    model = kind(latent_size, hidden_size, (1, side, side), network)
    x = uniform(3, side, side)
    output, *code = model(x)
    assert output.shape == (3, side * side)
    assert [part.shape for part in code] == [(3, latent_size)] * (2 if kind is VAE else 1)
    assert model.decode_mean(code[0]).shape == (3, side * side)
    # Square and flat images are the same images.
    torch.testing.assert_close(model(x.flatten(1))[1], code[0])


@kinds
@pytest.mark.parametrize("network", ["linear", "mlp", "deep", "conv"])
def test_every_weight_gets_a_gradient(kind, network):
    model = new(kind, 3, 32, (1, 8, 8), network)
    model(uniform(20, 64))[0].square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@kinds
def test_config_rebuilds_the_model(kind):
    model = kind(3, 8, (1, 7, 7), "conv")
    assert kind(**model.config).load_state_dict(model.state_dict())


# --- the networks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model, encoder, decoder, activation",
    [
        # The article's; 40 = one matrix for both mu and log_var.
        (VAE(), [(784, 400), (400, 40)], [(20, 400), (400, 784)], nn.ReLU),
        (
            VAE(50, 200, network="deep"),  # Burda et al.
            [(784, 200), (200, 200), (200, 100)],
            [(50, 200), (200, 200), (200, 784)],
            nn.Tanh,
        ),
        (VAE(3, network="linear"), [(784, 6)], [(3, 784)], nn.ReLU),
        (Autoencoder(3, network="linear"), [(784, 3)], [(3, 784)], nn.ReLU),
    ],
    ids=["article", "deep", "linear", "linear autoencoder"],
)
def test_a_network_has_these_layers_and_an_activation_between_two(
    model, encoder, decoder, activation
):
    for part, sizes in ((model.encoder, encoder), (model.decoder, decoder)):
        layers = [layer for layer in part.modules() if not isinstance(layer, nn.Sequential)]
        assert [(layer.in_features, layer.out_features) for layer in layers[::2]] == sizes
        assert all(type(layer) is activation for layer in layers[1::2])
        assert len(layers) == 2 * len(sizes) - 1


def test_vae_forward_is_encode_reparameterize_decode():
    model = new(VAE, 3, 8, (1, 4, 4))
    x, eps = uniform(5, 16), normal(5, 3)
    x_logits, mu, log_var = model(x, eps=eps)
    both = model.encoder(x)
    assert torch.equal(mu, both[:, :3]) and torch.equal(log_var, both[:, 3:])
    assert torch.equal(x_logits, model.decode(reparameterize(mu, log_var, eps)))
    # Without eps, the noise is the generator's.
    assert torch.equal(model(x, generator=seeded())[0], x_logits)


@kinds
@pytest.mark.parametrize("network", ["linear", "mlp", "conv"])
def test_decode_gives_logits_and_decode_mean_their_sigmoid(kind, network):
    model, z = new(kind, 2, 8, (1, 4, 4), network), 10 * normal(4, 2)
    x_logits = model.decode(z)
    affine = kind is Autoencoder and network == "linear"
    assert torch.equal(model.decode_mean(z), x_logits if affine else torch.sigmoid(x_logits))


def test_the_logits_of_a_vae_are_those_of_its_codes_alone():
    model, z = new(VAE, 2, 8, (1, 4, 4)), normal(4, 2)
    assert torch.equal(model.logits(z, uniform(4, 16)), model.decode(z))


# --- reparameterize and sample --------------------------------------------------------------------


def test_reparameterize_is_exact_and_lets_gradients_through():
    mu, log_var, eps = (normal(3, 2, seed=seed, dtype=torch.float64) for seed in range(3))
    z = reparameterize(mu.requires_grad_(), log_var.requires_grad_(), eps)
    sigma = torch.sqrt(torch.exp(log_var))
    torch.testing.assert_close(z, mu + eps * sigma)
    z.sum().backward()
    torch.testing.assert_close(mu.grad, torch.ones_like(mu))
    torch.testing.assert_close(log_var.grad, eps * sigma.detach() / 2)


def test_reparameterize_draws_standard_normal_noise_by_seed():
    mu, log_var = torch.full((3, 2), 5.0), torch.zeros(3, 2)
    assert torch.equal(reparameterize(mu, log_var, generator=seeded(4)), 5 + normal(3, 2, seed=4))


def test_sample_decodes_standard_normal_codes_by_seed():
    model = new(VAE, 2, 8, (1, 4, 4))
    images = model.sample(50, seeded(3))
    torch.testing.assert_close(images, model.decode_mean(normal(50, 2, seed=3)))
    assert images.shape == (50, 16) and not images.requires_grad


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, says",
    [
        ({"latent_size": 0}, "latent_size must be a whole number of at least 1, got 0"),
        ({"latent_size": 2.0}, "latent_size must be a whole number of at least 1, got 2.0"),
        ({"hidden_size": -1}, "hidden_size must be a whole number of at least 1, got -1"),
        ({"shape": (1, 0, 4)}, "each number of shape must be a whole number of at least 1, got 0"),
        ({"network": "transformer"}, "unknown network 'transformer': choose one of linear, mlp"),
        ({"shape": (4, 5)}, "shape must be (channels, height, width), got (4, 5)"),
    ],
)
def test_bad_sizes_and_networks_are_refused(options, says):
    with pytest.raises(ValueError) as error:
        VAE(**options)
    assert says in str(error.value)


@kinds
def test_bad_images_and_codes_are_refused(kind):
    model = kind(2, 8, (1, 4, 4))
    with pytest.raises(ValueError, match=r"floats in \[0, 1\], got torch.uint8: use data.to_float"):
        model.encode(torch.zeros(3, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"images of 16 pixels, got 25 \(shape \(3, 5, 5\)\)"):
        model(torch.zeros(3, 5, 5))
    with pytest.raises(ValueError, match=r"images come in batches, \(B, ...\): got shape \(16,\)"):
        model.encode(torch.zeros(16))
    with pytest.raises(ValueError, match=r"codes have shape \(B, 2\), got \(3, 4\)"):
        model.decode(torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"codes have shape \(B, 2\), got \(2,\)"):
        model.decode_mean(torch.zeros(2))


def test_sample_refuses_no_images():
    with pytest.raises(ValueError, match="n must be a whole number of at least 1, got 0"):
        VAE(2, 8, (1, 4, 4)).sample(0)


def test_reparameterize_names_the_shapes():
    with pytest.raises(ValueError, match=r"got \(3, 2\), \(3, 1\) and \(3, 2\)"):
        reparameterize(torch.zeros(3, 2), torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"got \(3, 2\), \(3, 2\) and \(1, 2\)"):
        reparameterize(torch.zeros(3, 2), torch.zeros(3, 2), eps=torch.zeros(1, 2))
