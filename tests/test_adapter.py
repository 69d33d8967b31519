"""adapter: networks as public code writes them, each through what the package has for a VAE.

`vaes.Foreign` is the model of PyTorch's example; the others are written here.
"""

import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal
from vaes import Conv, Foreign, foreign_loss

from vae_lesson import data, evaluate, explore, losses, train
from vae_lesson.adapter import AdaptedVAE, adapt
from vae_lesson.clinic import broken, findings
from vae_lesson.clinic.inspector import inspect_vae
from vae_lesson.data import to_float
from vae_lesson.likelihood.importance import log_likelihood
from vae_lesson.models import VAE
from vae_lesson.running.saving import load_model, save_model
from vae_lesson.sources import load_images
from vae_lesson.teaching import lesson

GREY, COLOUR = (1, 28, 28), (3, 32, 32)
L = 3  # latent dimensions
QUIET = {"progress": False, "device": "cpu"}


class TanhConv(Conv):
    """As PyTorch-VAE: a list from `encode`, four things from `forward`, images in [-1, 1]."""

    def __init__(self):
        super().__init__(L, channels=3, side=32, end=nn.Tanh)

    def forward(self, input):
        output, mu, log_var = super().forward(input)
        return [output, input, mu, log_var]


class GivesNormal(Foreign):
    """As Pyro's users write it: q(z|x) is a distribution."""

    def encode(self, x):
        loc, log_var = super().encode(x.flatten(1))
        return Normal(loc, torch.exp(log_var / 2))


class Halved(nn.Module):
    """As in many notebooks: one Sequential each way, mu and log_var in one, logits out."""

    def __init__(self, n_pixels=784, latent_size=L):
        super().__init__()
        layers = nn.Linear(n_pixels, 32), nn.ReLU(), nn.Linear(32, 2 * latent_size)
        self.encoder = nn.Sequential(nn.Flatten(), *layers)
        layers = nn.Linear(latent_size, 32), nn.ReLU(), nn.Linear(32, n_pixels)
        self.decoder = nn.Sequential(*layers)

    def encode(self, x):
        return self.encoder(x).chunk(2, dim=1)

    def decode(self, z):
        return self.decoder(z)


STYLES = {  # how it is made, and what adapt must be told of it
    "PyTorch's example": (lambda: Foreign(L), GREY, {"output": "means"}),
    "PyTorch-VAE": (TanhConv, COLOUR, {"output": "means", "pixels": (-1, 1)}),
    "a distribution": (lambda: GivesNormal(L), GREY, {"output": "means"}),
    "one Sequential": (Halved, GREY, {}),
}
every_style = pytest.mark.parametrize("style", STYLES)


def new(make, *arguments, **options):
    torch.manual_seed(0)
    return make(*arguments, **options)


def adapted(style) -> AdaptedVAE:
    make, shape, options = STYLES[style]
    return adapt(new(make), shape, **options)


def colours(n):
    """Return images of one of eight colours each, and some noise: uint8 `(n, 3, 32, 32)`."""
    generator = torch.Generator().manual_seed(0)
    colour = torch.randint(2, (n, 3, 1, 1), generator=generator)
    noise = 0.1 * torch.rand((n, *COLOUR), generator=generator)
    return (255 * (0.9 * colour + noise)).byte()


@pytest.fixture(scope="module")
def images():
    """Grey digits, 28×28."""
    digits = load_images("digits")
    train, labels = digits.train[:256], digits.train_labels[:256]
    test, test_labels = digits.test[:20], digits.test_labels[:20]
    return data.Images("digits", train, labels, test, test_labels, digits.class_names)


def images_of(style, grey) -> torch.Tensor:
    return grey.train if STYLES[style][1] == GREY else colours(256)


# --- each network, through the whole package ------------------------------------------------------


@every_style
def test_it_trains_and_its_loss_falls(style, images):
    vae, x = adapted(style), images_of(style, images)
    before = evaluate.mean_terms(vae, x).neg_elbo
    history = train.fit(vae, x, epochs=2, batch_size=32, lr=5e-3, test=x[:20], **QUIET)
    assert history.total[1] < history.total[0]
    assert evaluate.mean_terms(vae, x).neg_elbo < 0.97 * before
    assert not vae.training and not vae.model.training
    _, shape, options = STYLES[style]
    assert adapt(vae.model, shape, **options).latent_size == L  # a trained one is taken too


@every_style
def test_its_numbers_are_those_of_its_own_encode_and_decode(style, images):
    vae, x = adapted(style), images_of(style, images)[:20]
    _, shape, options = STYLES[style]
    low, high = options.get("pixels", (0, 1))
    own = low + (high - low) * to_float(x)
    own = own if isinstance(vae.model, Foreign) else own.reshape(20, *shape)
    with torch.no_grad():
        code = vae.model.encode(own)
        code = (code.mean, code.variance.log()) if isinstance(code, Normal) else code
        output = vae.model.decode(code[0]).reshape(20, -1)
    for ours, theirs in zip(evaluate.posteriors(vae, x), code):
        torch.testing.assert_close(ours, theirs)
    means = torch.sigmoid(output) if style == "one Sequential" else (output - low) / (high - low)
    torch.testing.assert_close(vae.decode_mean(code[0]), means)
    error = (means - to_float(x)).square().sum(dim=1).mean().item()
    assert evaluate.reconstruction_error(vae, x) == pytest.approx(error, rel=1e-4)


@every_style
def test_elbo_and_likelihood_are_measured(style, images):
    vae, x = adapted(style), images_of(style, images)[:20]
    bound = -evaluate.mean_terms(vae, x).neg_elbo
    assert bound == pytest.approx(-evaluate.mean_terms(vae, x).neg_elbo, rel=1e-5)
    (estimate,) = log_likelihood(vae, x, (50,))
    assert bound < estimate.mean < 0  # the bound is tighter
    assert evaluate.mean_kl_per_dimension(vae, x).shape == (L,)
    assert vae.sample(4).shape == (4, x[0].numel()) and vae.sample(4).min() >= 0


def test_the_loss_of_pytorchs_example_is_the_packages(images):
    vae, x = adapted("PyTorch's example"), to_float(images.test)
    mu, log_var = vae.model.encode(x)
    theirs = foreign_loss(vae.model.decode(mu), x, mu, log_var)
    x_logits, *code = vae(x, eps=torch.zeros_like(mu))
    ours = (losses.bernoulli_nll(x_logits, x) + losses.kl_standard_normal(*code)).sum()
    torch.testing.assert_close(ours, theirs)
    of_both = [torch.autograd.grad(loss, vae.parameters()) for loss in (ours, theirs)]
    torch.testing.assert_close(*of_both, rtol=1e-3, atol=1e-3)


@every_style
def test_the_inspector_finds_nothing_and_finds_what_is_wrong(style, images):
    vae = adapted(style)
    x = to_float(images_of(style, images)[:16])
    assert inspect_vae(vae, broken.healthy_loss, x) == []
    (finding,) = inspect_vae(vae, broken.wrong_sign, x)
    assert finding.fault == findings.WRONG_SIGN


def test_the_explorers_take_it(images):
    vae, z = adapted("PyTorch's example"), torch.zeros(L)
    assert len(explore.latent_sliders(vae, test_images=images.test).state["sliders"]) == L
    one = explore.direction_sliders(vae, z, {"one": (torch.eye(L)[0], 2.0)})
    assert len(one.state["sliders"]) == 1
    film = explore.morph(vae, images.test[0], images.test[1])
    first = evaluate.codes(vae, images.test[:1])[0]
    torch.testing.assert_close(torch.from_numpy(film.ends[0]), first)
    both = explore.compare({"theirs": vae, "ours": new(VAE, L, 8)}, images)
    assert len(both.state["sliders"]) == L
    pad = explore.draw_digit(vae, images)
    prepared = data.centre_digit(images.test[0])[None]
    torch.testing.assert_close(torch.from_numpy(pad.z), evaluate.codes(vae, prepared)[0])
    flat = adapt(new(Halved, latent_size=2), GREY)
    assert explore.latent_map(flat, images).z.shape == (2,)


# --- it is the learner's model, and nothing else --------------------------------------------------


FAST = {"lr": (8e-3, 3.2e-2), "schedule": "linear", "from_mean": True}


PAIR = {"lr": (2e-3, 8e-3)}


@pytest.mark.parametrize(
    "network, how",
    [("mlp", {}), ("mlp", PAIR), ("mlp", FAST), ("deep", FAST), ("conv", {}), ("conv", PAIR)],
)
def test_the_packages_own_vae_trains_to_the_same_bits(network, how):
    shape = (1, 4, 4)
    ours, twin = (new(VAE, 2, 8, shape, network) for _ in range(2))
    model = Halved()
    model.encoder, model.decoder = twin.encoder, twin.decoder
    theirs = adapt(model, shape)
    of_both = [train.fit(vae, tiny.IMAGES, epochs=2, **how, **QUIET) for vae in (ours, theirs)]
    assert of_both[0].train == of_both[1].train
    assert tiny.same_weights(tiny.weights(ours), tiny.weights(twin))
    one, other = (evaluate.terms_per_image(vae, tiny.TEST) for vae in (ours, theirs))
    assert tiny.same_weights(one, other)


def test_its_weights_are_the_models():
    model = new(Halved)
    vae = adapt(model, GREY)
    assert [id(p) for p in vae.parameters()] == [id(p) for p in model.parameters()]
    assert list(vae.children()) == [model]
    vae.train()
    assert model.training and model.encoder.training
    vae.double()
    assert next(model.parameters()).dtype == torch.float64
    other = adapt(Halved(), GREY)
    other.load_state_dict(vae.state_dict())
    assert torch.equal(other.model.decoder[2].weight, model.decoder[2].weight.float())


class Tied(nn.Module):
    """A decoder that is the encoder's matrix turned round, and other names than are usual."""

    def __init__(self):
        super().__init__()
        self.W, self.spread = (nn.Parameter(torch.randn(784, L) / 28) for _ in range(2))
        self.lift = nn.Parameter(torch.zeros(784))

    def encode(self, x):
        return x @ self.W, x @ self.spread

    def decode(self, z):
        return z @ self.W.T + self.lift


class NoGrad(Halved):
    encode = torch.no_grad()(Halved.encode)


@pytest.mark.parametrize(
    "make, frozen, of_encoder",
    [
        (lambda: Foreign(L), (), ("fc1.", "fc21.", "fc22.")),
        (lambda: GivesNormal(L), (), ("fc1.", "fc21.", "fc22.")),
        (Tied, (), ("W", "spread")),
        (Halved, ("encoder.1.",), ("encoder.3.",)),
        (Halved, ("encoder.",), ()),
        (Halved, ("encoder.", "decoder."), ()),
        (NoGrad, (), ()),
    ],
)
def test_its_encoder_s_weights_are_those_that_encode_uses_and_trains(make, frozen, of_encoder):
    model = make()
    for name, weight in model.named_parameters():
        weight.requires_grad_(not name.startswith(frozen))
    vae = adapt(model, GREY, "means" if isinstance(model, Foreign) else "logits")
    names = {id(weight): name for name, weight in model.named_parameters()}
    found = [names[id(weight)] for weight in vae.encoder_weights]
    assert found == [name for name in names.values() if name.startswith(of_encoder)]


def test_trying_it_leaves_no_trace_but_eval_mode():
    model = new(TanhConv).train()
    before, random = tiny.weights(model), torch.get_rng_state()
    vae = adapt(model, COLOUR, "means", (-1, 1))
    assert tiny.same_weights(before, tiny.weights(model))
    assert all(weight.grad is None for weight in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module.training for module in vae.modules())


def test_images_of_another_size_are_refused_as_always(images):
    vae = adapted("PyTorch's example")
    with pytest.raises(ValueError, match="this model takes images of 784 pixels, got 100"):
        vae.encode(torch.rand(2, 100))
    with pytest.raises(ValueError, match="images must be floats"):
        vae.encode(images.test)
    with pytest.raises(ValueError, match="this model's codes have shape"):
        vae.decode(torch.zeros(2, L + 1))
    with pytest.raises(ValueError, match="images have 16 values, this model takes 784"):
        train.fit(vae, tiny.IMAGES, progress=False)


def test_means_of_0_and_1_keep_the_loss_finite():
    vae = adapt(decoding(lambda x: torch.sigmoid(200 * x)), GREY, "means")
    recon = losses.elbo_terms(vae, torch.rand(4, 784))["recon"]
    assert recon.isfinite().all()
    x_logits = vae.decode(torch.randn(4, L))
    assert x_logits.abs().max().item() == pytest.approx(13.8, abs=0.1)
    recon.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in vae.model.decoder.parameters())


@every_style
def test_it_is_saved_and_its_class_makes_it_again(style, tmp_path):
    vae, path = adapted(style), tmp_path / "model.pt"
    with torch.no_grad():
        for weight in vae.parameters():
            weight += 0.01
    save_model(vae, path, epochs=3)
    torch.manual_seed(7)
    network = STYLES[style][0]()
    loaded, info = load_model(path, network=network)
    assert type(loaded) is AdaptedVAE and loaded.model is network and info == {"epochs": 3}
    assert loaded.config == vae.config and not network.training
    assert tiny.same_weights(tiny.weights(loaded), tiny.weights(vae))
    x = torch.rand(3, vae.input_size)
    assert torch.equal(loaded.encode(x)[0], vae.encode(x)[0])
    assert torch.equal(loaded.decode_mean(x[:, :L]), vae.decode_mean(x[:, :L]))
    plain = STYLES[style][0]()
    plain.load_state_dict(torch.load(path, weights_only=True)["state"])  # without this package


def test_a_lesson_s_model_is_of_the_package(tmp_path, images):
    with pytest.raises(ValueError, match=r"not the Halved .* load_model\(path, network=...\)"):
        lesson.trained("model.pt", adapted("one Sequential"), images)


# --- what is refused, and in which words ----------------------------------------------------------


def mine(**methods):
    """Return the network of one Sequential, with these methods in the place of its own."""
    return new(type("Mine", (Halved,), methods))


def encoding(change):
    return mine(encode=lambda self, x: change(*Halved.encode(self, x)))


def decoding(change):
    return mine(decode=lambda self, z: change(Halved.decode(self, z)))


def norm_of_the_batch(x):
    return F.batch_norm(x, None, None, training=True) if len(x) > 1 else x


def unregistered():
    model = nn.Module()
    model.parts, model.encode, model.decode = [Halved()], None, None
    return model


ENCODE = {  # what adapt says: what has become of mu and log_var
    r"just \(mu, log_var\), two of \(5, latent_size\) for 5 images, got \(5, 3\); "
    r".*self.fc_mu\(h\), self.fc_var\(h\)": lambda mu, v: mu,
    r"just \(mu, log_var\).*got \[\(5, 3\), \(5, 3\), \(5, 3\)\]$": lambda mu, v: (mu, mu, v),
    r"got \[\(5, 3\), \(5, 2\)\]": lambda mu, v: (mu, v[:, :2]),
    r"got \[\(5, 3, 2, 2\), \(5, 3, 2, 2\)\]; flatten such a code: return mu.flatten\(1\), "
    r"log_var.flatten\(1\), and .* z = z.unflatten\(1, \(3, 2, 2\)\)": lambda mu, v: (
        2 * (mu[:, :, None, None].expand(-1, -1, 2, 2),)
    ),
    r"\(1, latent_size\) for 1 image, got \[\(3,\), \(3,\)\]": lambda mu, v: (
        mu.squeeze(),
        v.squeeze(),
    ),
    "got MultivariateNormal": lambda mu, v: MultivariateNormal(mu, torch.eye(L)),
    "encode gives NaN or inf": lambda mu, v: (mu, v / 0),
    "encode gives something else for one of 5 than for the same one alone": lambda mu, v: (
        mu + torch.randn_like(mu),
        v,
    ),
}
DECODE = {  # what adapt says: what has become of the logits
    r"must return \(5, 1, 28, 28\) or \(5, 784\) for 5 codes, .* got \(5, 9\), 9$": lambda x: x[
        :, :9
    ],
    r"must return \(1, 1, 28, 28\) .* for 1 code, .*got \(28, 28\)": (
        lambda x: x.view(-1, 1, 28, 28).squeeze()
    ),
    r"one tensor, the images, got \[\(5, 784\), \(5, 784\)\]: return the means alone; the noise "
    "is the likelihood's, as of partial": lambda x: (x, x),
    r"got \(5, 1568\), 1568: are half of them variances\? Return the means alone; the noise": (
        lambda x: torch.cat([x, x], dim=1)
    ),
    "encode or decode fails on random numbers: IndexError": lambda x: x[:, :, 0],
    "decode gives NaN or inf": lambda x: x * torch.nan,
    "decode gives .* drop nothing out, and not look at the batch": norm_of_the_batch,
    "from 0 to 1, as probabilities are: say output='means'": torch.sigmoid,
    r"as of a tanh: say output='means' and pixels=\(-1, 1\)": torch.tanh,
}
REFUSED = {
    "model must be an nn.Module with weights, got function": lambda z: z,
    "a wrapper keeps its network as self.network = network": unregistered(),
    r"Linear has no encode and no decode: .*def encode\(self, x\):": nn.Linear(784, L),
    r"encode fails on images of shape \(5, 1, 28, 28\) \(RuntimeError: .*\) and of shape "
    r"\(5, 784\) \(RuntimeError: ": new(Halved, 100),
    "encode fails on images.*'y'": mine(encode=lambda self, x, y: x),
    **{words: encoding(change) for words, change in ENCODE.items()},
    **{words: decoding(change) for words, change in DECODE.items()},
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_model_that_does_otherwise_is_refused(words):
    with pytest.raises(ValueError, match=f"(?s){words}"):
        adapt(REFUSED[words], GREY)


@pytest.mark.parametrize(
    "change, pixels, words",
    [
        (lambda x: x, (0, 1), r"from -.* to .*, and means lie within pixels=\(0, 1\): end it"),
        (torch.tanh, (0, 1), r"from -1 to 1, and means lie within .* a tanh for \(-1, 1\)"),
        (torch.sigmoid, (-1, 1), r"from 0 to 1, and pixels=\(-1, 1\) go below 0: so must it"),
    ],
)
def test_means_out_of_the_pixels_range_are_refused(change, pixels, words):
    with pytest.raises(ValueError, match=f"decode gives values {words}"):
        adapt(decoding(change), GREY, "means", pixels)


def test_channels_last_would_scramble_the_image_and_are_refused():
    model = new(TanhConv)
    model.decoder.append(nn.Flatten()).append(nn.Unflatten(1, (32, 32, 3)))
    with pytest.raises(ValueError, match=r"got \(5, 32, 32, 3\), 3072"):
        adapt(model, COLOUR, "means", (-1, 1))


@pytest.mark.parametrize(
    "options, words",
    [
        ({"shape": (28, 28)}, r"shape must be \(channels, height, width\), got \(28, 28\)"),
        ({"output": "x"}, "unknown output 'x': choose one of logits, means"),
        ({"pixels": (1, 0)}, r"pixels must be \(lowest, highest\).* got \(1, 0\)"),
        ({"pixels": 255}, r"pixels must be \(lowest, highest\).* got 255"),
    ],
)
def test_arguments_that_say_nothing_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        adapt(Halved(), **{"shape": GREY, **options})


def test_an_independent_normal_is_taken():
    normal = encoding(lambda mu, v: Independent(Normal(mu, torch.exp(v / 2)), 1))
    x = torch.rand(4, 784)
    torch.testing.assert_close(adapt(normal, GREY).encode(x), Halved.encode(normal, x))


def test_logits_go_with_any_range_of_images():
    pixels = (-0.1307 / 0.3081, (1 - 0.1307) / 0.3081)  # MNIST's mean and deviation taken out
    model, x = new(Halved), torch.rand(4, 784)
    vae = adapt(model, GREY, pixels=pixels)
    torch.testing.assert_close(vae.encode(x), model.encode((x - 0.1307) / 0.3081))
    assert torch.equal(vae.decode_mean(x[:, :L]), torch.sigmoid(model.decode(x[:, :L])))


# --- what a network that was not adapted is told --------------------------------------------------


class NoGenerator(VAE):
    def forward(self, x):
        return x


class Wrong(VAE):
    def forward(self, x, eps=None, generator=None):
        return len(1)


def test_a_forward_without_a_generator_is_told_what_to_write():
    words = r"forward of NoGenerator takes no generator .* forward\(self, x, eps=None, generator"
    with pytest.raises(ValueError, match=f"{words}.*adapter.adapt"):
        losses.elbo_terms(NoGenerator(L, 8), torch.rand(2, 784))
    with pytest.raises(TypeError, match="object of type 'int' has no len"):  # left as it is
        losses.elbo_terms(Wrong(L, 8), torch.rand(2, 784))


def test_training_and_explorers_name_the_adapter(images):
    model = new(Foreign, L)
    for raw in (
        lambda: train.fit(model, images.train, progress=False),
        lambda: evaluate.mean_terms(model, images.test),
        lambda: explore.latent_sliders(model),
        lambda: explore.draw_digit(model, images),
    ):
        with pytest.raises(ValueError, match=r"adapter\.adapt"):
            raw()
