"""adapter: networks as public code writes them, each through what the package has for a VAE.

`vaes.Foreign` is the model of PyTorch's example; the others are written here, in the style of the
libraries that their docstrings name.
"""

from types import SimpleNamespace

import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal
from vaes import Foreign, bce, kld

from vae_lesson import data, evaluate, explore, generation, losses, train
from vae_lesson.adapter import AdaptedVAE, adapt
from vae_lesson.clinic import findings
from vae_lesson.clinic.inspector import inspect_vae
from vae_lesson.data import to_float
from vae_lesson.likelihood.importance import elbo_terms_with, log_likelihood
from vae_lesson.likelihood.pixels import gaussian_nll
from vae_lesson.models import VAE
from vae_lesson.running.saving import save_model
from vae_lesson.sources import load_images
from vae_lesson.teaching import lesson

GREY, COLOUR = (1, 28, 28), (3, 32, 32)
L = 3  # latent dimensions


class TanhConv(nn.Module):
    """As PyTorch-VAE: a list from `encode`, four things from `forward`, images in [-1, 1]."""

    def __init__(self, latent_dim=L):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 8, 3, 2, padding=1), nn.BatchNorm2d(8), nn.LeakyReLU()),
            nn.Sequential(nn.Conv2d(8, 16, 3, 2, padding=1), nn.BatchNorm2d(16), nn.LeakyReLU()),
        )
        self.fc_mu = nn.Linear(16 * 8 * 8, latent_dim)
        self.fc_var = nn.Linear(16 * 8 * 8, latent_dim)
        self.decoder_input = nn.Linear(latent_dim, 16 * 8 * 8)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(16, 8, 3, 2, padding=1, output_padding=1),
            nn.BatchNorm2d(8),
            nn.LeakyReLU(),
            nn.ConvTranspose2d(8, 3, 3, 2, padding=1, output_padding=1),
            nn.Tanh(),
        )

    def encode(self, input):
        result = torch.flatten(self.encoder(input), start_dim=1)
        return [self.fc_mu(result), self.fc_var(result)]

    def decode(self, z):
        return self.decoder(self.decoder_input(z).view(-1, 16, 8, 8))

    def forward(self, input):
        mu, log_var = self.encode(input)
        z = torch.randn_like(mu) * torch.exp(0.5 * log_var) + mu
        return [self.decode(z), input, mu, log_var]


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU())
        self.embedding, self.log_var = nn.Linear(32, L), nn.Linear(32, L)

    def forward(self, x):
        h = self.layers(x)
        return SimpleNamespace(embedding=self.embedding(h), log_covariance=self.log_var(h))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(L, 32), nn.ReLU(), nn.Linear(32, 784), nn.Sigmoid())

    def forward(self, z):
        return SimpleNamespace(reconstruction=self.layers(z).reshape(-1, 1, 28, 28))


class Library(nn.Module):
    """As pythae: the parts are called as modules, and give objects with names."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()


class Wrapped(nn.Module):
    """What the learner has to write for it."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def encode(self, x):
        code = self.network.encoder(x)
        return code.embedding, code.log_covariance

    def decode(self, z):
        return self.network.decoder(z).reconstruction


class GivesNormal(Foreign):
    """As Pyro's users write it: q(z|x) is a distribution."""

    def encode(self, x):
        loc, log_var = super().encode(x.flatten(1))
        return Normal(loc, torch.exp(log_var / 2))


class Halved(nn.Module):
    """As in many notebooks: one Sequential each way, mu and log_var in one, logits out."""

    def __init__(self, n_pixels=784, hidden=32, latent_size=L):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(n_pixels, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent_size)
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_size, hidden), nn.ReLU(), nn.Linear(hidden, n_pixels)
        )

    def encode(self, x):
        return self.encoder(x).chunk(2, dim=1)

    def decode(self, z):
        return self.decoder(z)


STYLES = {  # how it is made, and what adapt must be told of it
    "PyTorch's example": (lambda: Foreign(L), GREY, {"output": "means"}),
    "PyTorch-VAE": (TanhConv, COLOUR, {"output": "means", "pixels": (-1, 1)}),
    "pythae": (lambda: Wrapped(Library()), GREY, {"output": "means"}),
    "a distribution": (lambda: GivesNormal(L), GREY, {"output": "means"}),
    "one Sequential": (Halved, GREY, {}),
}
every_style = pytest.mark.parametrize("style", STYLES)
every_grey_style = pytest.mark.parametrize(
    "style", [style for style, (_, shape, _) in STYLES.items() if shape == GREY]
)


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
    parts = [
        digits.train[:256],
        digits.train_labels[:256],
        digits.test[:20],
        digits.test_labels[:20],
    ]
    return data.Images("digits", *parts, digits.class_names)


def images_of(style, grey) -> torch.Tensor:
    return grey.train if STYLES[style][1] == GREY else colours(256)


# --- each network, through the whole package ------------------------------------------------------


@every_style
def test_it_trains_and_its_loss_falls(style, images):
    vae, x = adapted(style), images_of(style, images)
    before = evaluate.mean_terms(vae, x).neg_elbo
    history = train.fit(
        vae, x, epochs=2, batch_size=32, progress=False, device="cpu", test_images=x[:20]
    )
    assert history.neg_elbo[1] < history.neg_elbo[0]
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
    scores = evaluate.neg_elbo_per_image(vae, x)
    assert scores.shape == (20,) and scores.mean().item() == pytest.approx(
        evaluate.mean_terms(vae, x).neg_elbo, rel=1e-5
    )
    (estimate,) = log_likelihood(vae, x, (50,))
    assert -scores.mean().item() < estimate.mean < 0  # the bound is tighter
    assert evaluate.mean_kl_per_dimension(vae, x).shape == (L,)
    assert vae.sample(4).shape == (4, x[0].numel()) and vae.sample(4).min() >= 0


def test_the_loss_of_pytorchs_example_is_the_packages(images):
    vae, x = adapted("PyTorch's example"), to_float(images.test)
    mu, log_var = vae.model.encode(x)
    theirs = bce(vae.model.decode(mu), x) + kld(mu, log_var)
    x_logits, *code = vae(x, eps=torch.zeros_like(mu))
    ours = (losses.bernoulli_nll(x_logits, x) + losses.kl_standard_normal(*code)).sum()
    torch.testing.assert_close(ours, theirs)
    for parameter, one, other in zip(
        vae.parameters(),
        torch.autograd.grad(theirs, vae.parameters(), retain_graph=True),
        torch.autograd.grad(ours, vae.parameters()),
    ):
        assert parameter.requires_grad
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@every_style
def test_the_inspector_finds_nothing_and_finds_what_is_wrong(style, images):
    vae = adapted(style)
    x = to_float(images_of(style, images)[:16])

    def loss(x_logits, x, mu, log_var):
        return losses.bernoulli_nll(x_logits, x) + losses.kl_standard_normal(mu, log_var)

    def wrong(x_logits, x, mu, log_var):
        return losses.bernoulli_nll(x_logits, x) - losses.kl_standard_normal(mu, log_var)

    assert inspect_vae(vae, loss, x) == []
    assert [finding.fault for finding in inspect_vae(vae, wrong, x)] == [findings.WRONG_SIGN]


@every_grey_style
def test_the_explorers_take_it(style, images):
    vae = adapted(style)
    z = torch.zeros(L)
    assert len(explore.latent_sliders(vae, test_images=images.test).state["sliders"]) == L
    one = explore.direction_sliders(vae, z, {"one": (torch.eye(L)[0], 2.0)})
    assert len(one.state["sliders"]) == 1
    film = explore.morph(vae, images.test[0], images.test[1])
    torch.testing.assert_close(
        torch.from_numpy(film.ends[0]), evaluate.codes(vae, images.test[:1])[0]
    )
    both = explore.compare({"theirs": vae, "ours": new(VAE, L, 8)}, images)
    assert len(both.state["sliders"]) == L
    pad = explore.draw_digit(vae, images)
    prepared = data.centre_digit(images.test[0])[None]
    torch.testing.assert_close(torch.from_numpy(pad.z), evaluate.codes(vae, prepared)[0])


def test_a_map_takes_a_code_of_two_numbers(images):
    vae = adapt(new(Halved, latent_size=2), GREY)
    assert explore.latent_map(vae, images).z.shape == (2,)
    assert explore.compare({"theirs": vae, "ours": new(VAE, 2, 8)}, images).z.shape == (2,)


def test_generated_images_are_measured(images):
    vae = adapted("one Sequential")
    classifier = generation.fit_classifier(images.train, images.train_labels)
    reference = generation.make_reference(vae, images.train, images.test, classifier)
    assert generation.measure(vae, torch.randn(50, L), reference).frechet > 0


def test_a_decoder_alone_needs_no_adapter():
    decode = new(Decoder).layers
    z, end = torch.zeros(L), torch.ones(L)
    assert len(explore.latent_sliders(decode, z).state["sliders"]) == L
    one = explore.direction_sliders(decode, z, {"one": (end, 2.0)})
    assert len(one.state["sliders"]) == 1
    assert explore.morph(decode, z, end).ends[1].tolist() == end.tolist()


def test_other_terms_train_it(images):
    vae = adapted("PyTorch's example")

    def gaussian(x_logits, x):
        return gaussian_nll(torch.sigmoid(x_logits), x, torch.tensor(0.0))

    terms = elbo_terms_with(gaussian)
    before = evaluate.mean_terms(vae, images.train, terms).neg_elbo
    train.fit(vae, images.train, epochs=2, lr=3e-3, terms=terms, progress=False, device="cpu")
    assert evaluate.mean_terms(vae, images.train, terms).neg_elbo < before


# --- it is the learner's model, and nothing else --------------------------------------------------


class Thin(nn.Module):
    """The package's own VAE, as a learner's network."""

    def __init__(self, vae):
        super().__init__()
        self.encoder, self.decoder = vae.encoder, vae.decoder

    def encode(self, x):
        return self.encoder(x).chunk(2, dim=1)

    def decode(self, z):
        return self.decoder(z)


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_the_packages_own_vae_trains_to_the_same_bits(network):
    shape = (1, 4, 4)
    ours, twin = (new(VAE, 2, 8, shape, network) for _ in range(2))
    theirs = adapt(Thin(twin), shape)
    of_both = [tiny.fit(model, tiny.IMAGES, epochs=3) for model in (ours, theirs)]
    assert of_both[0].recon == of_both[1].recon and of_both[0].kl == of_both[1].kl
    assert tiny.same_weights(tiny.weights(ours), tiny.weights(twin))
    one, other = (evaluate.terms_per_image(model, tiny.TEST) for model in (ours, theirs))
    assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


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


def test_trying_it_leaves_no_trace_but_eval_mode():
    model = new(TanhConv).train()
    model.encoder[0].eval()
    modes = [module.training for module in model.modules()]
    before, random = tiny.weights(model), torch.get_rng_state()
    vae = adapt(model, COLOUR, "means", (-1, 1))
    assert tiny.same_weights(before, tiny.weights(model))
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module.training for module in vae.modules())
    model.train()
    model.encoder[0].eval()
    with pytest.raises(ValueError):
        adapt(model, COLOUR, "logits")
    assert [module.training for module in model.modules()] == modes


def test_fit_neither_starts_it_from_the_mean_nor_has_two_rates(images):
    model = new(Halved)
    vae, before = adapt(model, GREY), tiny.weights(model)
    train.fit(vae, images.train, epochs=0, progress=False, device="cpu")
    assert tiny.same_weights(before, tiny.weights(model))
    assert [group["lr"] for group in train.rates(vae, 1e-3, "linear")] == [1e-3]


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
    class Saturated(Halved):
        def decode(self, z):
            return torch.sigmoid(200 * super().decode(z))

    vae, x = adapt(new(Saturated), GREY, "means"), torch.rand(4, 784)
    recon, _ = losses.elbo_terms(vae, x, torch.Generator().manual_seed(0))
    assert recon.isfinite().all()
    x_logits = vae.decode(torch.randn(4, L))
    assert x_logits.abs().max().item() == pytest.approx(13.8, abs=0.1)
    recon.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in vae.parameters())


def test_it_is_saved_by_the_learner(tmp_path, images, monkeypatch):
    vae, words = adapted("one Sequential"), r"torch.save\(network.state_dict\(\), path\)"
    with pytest.raises(ValueError, match=words):
        save_model(vae, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=words):
        lesson.trained("model.pt", vae, images)
    assert list(tmp_path.iterdir()) == []


# --- what is refused, and in which words ----------------------------------------------------------


def halved(**methods):
    """Return the network of one Sequential, with these methods in the place of its own."""
    return new(type("Mine", (Halved,), methods))


def encoding(change):
    return halved(encode=lambda self, x: change(self, *Halved.encode(self, x)))


def decoding(change):
    return halved(decode=lambda self, z: change(Halved.decode(self, z)))


def with_batch_norm():
    norm = nn.BatchNorm1d(784, track_running_stats=False)
    return decoding(lambda x: norm(x) if len(x) > 1 else x)


def unregistered():
    class Holder(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.parts = [network]

        encode = decode = None

    return Holder(Halved())


MODEL = [  # name, model, what adapt says
    ("a function", lambda z: z, "model must be an nn.Module with weights, got function"),
    ("in a list", unregistered(), "a wrapper keeps its network as self.network = network"),
    ("only parts", Library(), r"Library has no encode and no decode: .*def encode\(self, x\):"),
    (
        "hidden features",
        halved(encode=lambda self, x: self.encoder[:2](x)),
        r"just \(mu, log_var\), two of \(5, latent_size\) for 5 images, got \(5, 32\); "
        r".*self.fc_mu\(h\), self.fc_var\(h\)",
    ),
    (
        "z, mu and log_var",
        encoding(lambda self, mu, v: (mu, mu, v)),
        r"just \(mu, log_var\).*got \[\(5, 3\), \(5, 3\), \(5, 3\)\]",
    ),
    ("an object", halved(encode=lambda self, x: SimpleNamespace()), "got SimpleNamespace"),
    (
        "another distribution",
        encoding(lambda self, mu, v: MultivariateNormal(mu, torch.eye(L))),
        "got MultivariateNormal",
    ),
    (
        "codes as images",
        encoding(lambda self, mu, v: (mu[..., None, None], v[..., None, None])),
        r"got \[\(5, 3, 1, 1\), \(5, 3, 1, 1\)\]",
    ),
    ("two sizes", encoding(lambda self, mu, v: (mu, v[:, :2])), r"got \[\(5, 3\), \(5, 2\)\]"),
    (
        "squeezed codes",
        encoding(lambda self, mu, v: (mu.squeeze(), v.squeeze())),
        r"\(1, latent_size\) for 1 image, got \[\(3,\), \(3,\)\]",
    ),
    (
        "another image size",
        new(Halved, 100),
        r"encode fails on images of shape \(5, 1, 28, 28\) \(RuntimeError: .*\) and of shape "
        r"\(5, 784\) \(RuntimeError: ",
    ),
    ("a label too", halved(encode=lambda self, x, y: x), r"fails on images.*'y'"),
    ("NaN in encode", encoding(lambda self, mu, v: (mu, v / 0)), "encode gives NaN or inf"),
    ("NaN in decode", decoding(lambda x: x * torch.nan), "decode gives NaN or inf"),
    (
        "noise in the code",
        encoding(lambda self, mu, v: (mu + torch.randn_like(mu), v)),
        "encode gives something else for one of 5 than for the same one alone",
    ),
    (
        "dropout in eval mode",
        decoding(F.dropout),
        "decode gives something else .* drop nothing out",
    ),
    ("the batch's norm", with_batch_norm(), "decode gives .* and not look at the batch"),
    (
        "too few pixels",
        decoding(lambda x: x[:, :100]),
        r"decode must return \(5, 1, 28, 28\) or \(5, 784\) for 5 codes, 784 values an image, got "
        r"\(5, 100\), 100",
    ),
    (
        "squeezed images",
        decoding(lambda x: x.view(-1, 1, 28, 28).squeeze()),
        r"decode must return \(1, 1, 28, 28\) .* for 1 code, .*got \(28, 28\)",
    ),
    (
        "a mean and a variance",
        decoding(lambda x: (x, x)),
        r"decode must return one tensor, the images, got \[\(5, 784\), \(5, 784\)\]",
    ),
    (
        "codes as images wanted",
        halved(decode=lambda self, z: self.decoder(z[:, :, 0, 0])),
        "encode or decode fails on random numbers: IndexError",
    ),
    (
        "probabilities",
        decoding(torch.sigmoid),
        "decode gives values from 0 to 1, as probabilities are: say output='means'",
    ),
    ("a tanh", decoding(torch.tanh), r"as of a tanh: say output='means' and pixels=\(-1, 1\)"),
]


@pytest.mark.parametrize("model, words", [pytest.param(m, w, id=n) for n, m, w in MODEL])
def test_a_model_that_does_otherwise_is_refused(model, words):
    with pytest.raises(ValueError, match=f"(?s){words}"):
        adapt(model, GREY)


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
    class Last(TanhConv):
        def decode(self, z):
            return super().decode(z).movedim(1, 3)

    with pytest.raises(ValueError, match=r"got \(5, 32, 32, 3\), 3072"):
        adapt(Last(), COLOUR, "means", (-1, 1))


@pytest.mark.parametrize(
    "options, words",
    [
        ({"shape": (28, 28)}, r"shape must be \(channels, height, width\), got \(28, 28\)"),
        (
            {"output": "probabilities"},
            "unknown output 'probabilities': choose one of logits, means",
        ),
        ({"pixels": (1, 0)}, r"pixels must be \(lowest, highest\).* got \(1, 0\)"),
        ({"pixels": 255}, r"pixels must be \(lowest, highest\).* got 255"),
    ],
)
def test_arguments_that_say_nothing_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        adapt(Halved(), **{"shape": GREY, **options})


def test_an_independent_normal_is_taken():
    normal = encoding(lambda self, mu, v: Independent(Normal(mu, torch.exp(v / 2)), 1))
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
        mu, log_var = self.encode(x)
        return self.decode(mu), mu, log_var


def test_a_forward_without_a_generator_is_told_what_to_write():
    model = new(NoGenerator, 2, 8, (1, 4, 4))
    words = r"forward of NoGenerator takes no generator .* forward\(self, x, eps=None, generator"
    with pytest.raises(ValueError, match=words):
        tiny.fit(model, tiny.IMAGES)
    with pytest.raises(ValueError, match=r"forward of Foreign takes no generator .*adapter.adapt"):
        elbo_terms_with(losses.bernoulli_nll)(new(Foreign), torch.rand(2, 784))


def test_another_type_error_in_forward_is_left_as_it_is():
    class Wrong(VAE):
        def forward(self, x, eps=None, generator=None):
            return len(1)

    with pytest.raises(TypeError, match="object of type 'int' has no len"):
        losses.elbo_terms(new(Wrong, 2, 8, (1, 4, 4)), torch.rand(2, 16))


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
