"""inspector and broken: each fault is found by its own name, and what is healthy is not accused.

What is written as a learner would write it, without the package, is in `vaes`.
"""

import itertools
import math
from unittest.mock import MagicMock

import pytest
import torch
import torch.distributions as D
import torch.nn.functional as F
from torch import nn
from vaes import (
    BROKEN,
    HEALTHY,
    MISSED,
    WRAPPED,
    Foreign,
    Logits,
    WithSampler,
    alike,
    bce_logits,
    decoding,
    foreign_loss,
    mae,
    mmd,
    mse,
    of_likelihood,
    of_sigma,
    target,
    with_methods,
    with_recon,
)

from vae_lesson import data, losses, train
from vae_lesson.clinic import broken, inspector
from vae_lesson.clinic.findings import FAULTS, Finding
from vae_lesson.clinic.inspector import inspect_vae
from vae_lesson.likelihood import linear
from vae_lesson.likelihood.autoregressive import AutoregressiveVAE
from vae_lesson.likelihood.pixels import gaussian_nll
from vae_lesson.models import NETWORKS, VAE
from vae_lesson.sources import load_images

CAUSES = {
    "A": "log_var used as sigma",
    "B": "sigmoid twice",
    "C": "mean for sum",
    "D": "wrong sign of the KL",
    "E": "no noise",
}
PIXELS_16 = {"latent_size": 2, "hidden_size": 8, "shape": (1, 4, 4)}
nll, kl = losses.bernoulli_nll, losses.kl_standard_normal
every_patient = pytest.mark.parametrize("letter", broken.PATIENTS)


@pytest.fixture(autouse=True)
def distributions_that_validate(monkeypatch):
    """Compiling a model switches the checks of torch.distributions off for good."""
    validates = torch.distributions.Distribution._validate_args
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", validates)


def grey(*shape, seed=0):
    """Make images of which half the pixels are black, as in MNIST."""
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return (noise / 2).clamp(0, 1)


def new(kind=VAE, seed=0, **options):
    torch.manual_seed(seed)
    return kind(**options)


def found(model, loss, x=None):
    x = grey(16, 784) if x is None else x
    return [finding.fault for finding in inspect_vae(model, loss, x)]


def elbo(beta):
    return lambda o, x, m, v: nll(o, x) + beta * kl(m, v)


# --- the patients ---------------------------------------------------------------------------------


@every_patient
@pytest.mark.parametrize("network", NETWORKS)
def test_each_patient_is_found_untrained(letter, network):
    sizes = [(2, 16), (20, 16)] if network == "conv" else [(2, 128), (20, 16), (20, 128)]
    for seed, (latent_size, n) in enumerate(sizes):
        torch.manual_seed(seed)
        options = {"latent_size": latent_size, "network": network, "hidden_size": 100}
        model, loss = broken.patient(letter, **options)
        assert found(model, loss, grey(n, 784, seed=seed)) == [CAUSES[letter]]


@pytest.mark.parametrize("latent_size", [2, 20])
def test_each_patient_is_found_trained_and_the_healthy_are_not_accused(latent_size):
    images = load_images("digits").train[:2000]
    x = data.to_float(images[:64])
    for letter in broken.WARD:
        torch.manual_seed(0)
        model, loss = broken.patient(letter, latent_size=latent_size)
        terms = broken.terms_of_loss(loss)
        history = train.fit(model, images, epochs=2, terms=terms, progress=False, device="cpu")
        assert history.train["loss"][1] < history.train["loss"][0]
        assert found(model, loss, x) == ([CAUSES[letter]] if letter in CAUSES else [])
        for beta in (0.1, 4, 10) if letter == "healthy" else ():
            assert found(model, elbo(beta), x) == []


@every_patient
def test_a_patient_takes_noise_as_a_vae_does(letter):
    model, _ = broken.patient(letter, latent_size=3, shape=(1, 4, 4), hidden_size=8)
    x, eps = grey(5, 16), torch.ones(5, 3)
    first, mu, log_var = model(x, generator=torch.Generator().manual_seed(1))
    again = model(x, generator=torch.Generator().manual_seed(1))[0]
    other = model(x, generator=torch.Generator().manual_seed(2))[0]
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (letter == "E")
    z = {"A": mu + log_var, "E": mu}.get(letter, mu + torch.exp(0.5 * log_var))
    torch.testing.assert_close(model(x, eps=eps)[0], model.decode(z))
    assert isinstance(model, VAE) and model.sample(2).shape == (2, 16)


def test_the_losses_of_the_patients():
    o, x, mu, log_var = (torch.randn(4, n) for n in (9, 9, 2, 2))
    x = x.sigmoid()
    recon = F.binary_cross_entropy_with_logits(o, x, reduction="none").sum(dim=1)
    right = recon + kl(mu, log_var)
    expected = {"C": recon / 9 + kl(mu, log_var), "D": recon - kl(mu, log_var)}
    for letter in broken.PATIENTS:
        _, loss = broken.patient(letter, shape=(1, 3, 3))
        torch.testing.assert_close(loss(o, x, mu, log_var), expected.get(letter, right))


def test_terms_of_a_loss_give_the_whole_loss():
    model, loss = broken.patient("C", **PIXELS_16)
    x, generator = grey(5, 16), torch.Generator()
    terms = broken.terms_of_loss(loss)(model, x, generator.manual_seed(1))
    output, mu, log_var = model(x, generator=generator.manual_seed(1))
    assert list(terms) == ["loss"] and torch.equal(terms["loss"], loss(output, x, mu, log_var))


def test_there_are_five_patients():
    assert set(CAUSES.values()) <= set(FAULTS) and tuple(CAUSES) == tuple(broken.PATIENTS)
    words = "unknown patient 'F': choose one of healthy, A, B, C, D, E"
    with pytest.raises(ValueError, match=words):
        broken.patient("F")


# --- what is healthy: our models ------------------------------------------------------------------


def gaussian(variance):
    return lambda o, x, m, v: gaussian_nll(o, x, math.log(variance)) + kl(m, v)


OURS = {
    **{f"Bernoulli, beta {beta}": elbo(beta) for beta in (0.1, 0.5, 1, 4, 10, 20)},
    **{f"Gaussian, variance {v}": gaussian(v) for v in (0.01, 0.5, 1)},
    "squared error": lambda o, x, m, v: losses.squared_error(o, x) + kl(m, v),
    "squared error of the sigmoid": lambda o, x, m, v: (
        losses.squared_error(o.sigmoid(), x) + kl(m, v)
    ),
    "no KL": lambda o, x, m, v: nll(o, x),
}
FORMS = [lambda value: value, lambda value: value.sum(), lambda value: value.mean()]


OF_EACH_NETWORK = ["Bernoulli, beta 1", "Gaussian, variance 0.5", "squared error of the sigmoid"]


@pytest.mark.parametrize(
    "network, name",
    [("mlp", name) for name in OURS]
    + [*itertools.product(["linear", "deep", "conv"], OF_EACH_NETWORK)],
)
def test_a_healthy_model_and_loss_are_not_accused(network, name):
    # 2, 10 and 16 are where 1 / latent_size, or 1 / B, is a beta of the list.
    for seed, (latent_size, n) in enumerate([(2, 16), (20, 10), (10, 4)]):
        model = new(latent_size=latent_size, hidden_size=100, network=network, seed=seed)
        for form in FORMS if network == "mlp" else FORMS[seed : seed + 1]:

            def loss(*arguments, form=form):
                return form(OURS[name](*arguments))

            assert inspect_vae(model, loss, grey(n, 784, seed=seed)) == []


def test_a_healthy_autoregressive_vae_is_not_accused():
    for seed, latent_size in enumerate([2, 20]):
        model = new(AutoregressiveVAE, seed, latent_size=latent_size, hidden_size=40)
        assert found(model, broken.healthy_loss) == []
        nn.init.normal_(model.from_context.weight, std=0.1)  # as if it had been trained
        assert found(model, broken.healthy_loss) == []


@pytest.mark.parametrize("noise_log_var", [0.0, -3.0])
def test_a_healthy_linear_vae_is_not_accused(noise_log_var):
    model = new(linear.LinearVAE, latent_size=5)
    nn.init.constant_(model.noise_log_var, noise_log_var)

    def sampled(o, x, m, v):
        return gaussian_nll(o, x, model.noise_log_var) + kl(m, v)

    def exact(o, x, m, v):
        """linear.exact_terms: the reconstruction comes from mu and log_var, o is not used."""
        of_noise = 0.5 * (v.exp() @ model.decoder.weight.square().sum(dim=0))
        of_noise = of_noise * torch.exp(-model.noise_log_var)
        return sampled(model.decode(m), x, m, v) + of_noise

    x = grey(16, 784)
    mu, log_var = model.encode(x)
    torch.testing.assert_close(
        exact(None, x, mu, log_var), losses.objective(linear.exact_terms(model, x))
    )
    assert found(model, sampled, x) == found(model, exact, x) == []


# --- foreign models and losses --------------------------------------------------------------------


def foreign_images(n=16, seed=0):
    return grey(n, 1, 28, 28, seed=seed)


def on_several(kind):
    """Return models and images of several latent sizes and seeds."""
    for seed, (n_latents, n) in enumerate([(2, 16), (20, 16), (12, 16)]):
        yield new(kind, n_latents=n_latents, seed=seed), foreign_images(n, seed)


def named(rows):
    """Parametrise by rows of (fault, name, model, loss)."""
    return pytest.mark.parametrize(
        "fault, kind, loss",
        [pytest.param(fault, *pair, id=f"{fault}: {name}") for fault, name, *pair in rows],
    )


@named(BROKEN)
def test_a_foreign_model_s_fault_is_found(fault, kind, loss):
    assert [found(model, loss, x) for model, x in on_several(kind)] == 3 * [[fault]]


@named(MISSED)
def test_what_cannot_be_told_is_not_accused(fault, kind, loss):
    for model, x in on_several(kind):
        assert inspect_vae(model, loss, x) == []


@named(WRAPPED)
def test_a_wrapped_model_is_seen_through(fault, kind, loss):
    for model, x in on_several(kind):
        assert found(model, loss, x) == [fault] * (fault is not None)


def test_a_half_precision_model_and_its_images_are_left_as_they_were():
    model, x = new(Foreign).half(), foreign_images().half()
    assert found(model, foreign_loss, x) == []
    assert {p.dtype for p in model.parameters()} == {x.dtype} == {torch.float16}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_foreign_model_is_not_accused(name):
    kind, loss = HEALTHY[name]
    for model, x in on_several(kind):
        assert inspect_vae(model, loss, x) == []
    assert inspect_vae(model.eval(), loss, x) == []


def brought(low, high):
    return lambda x: low + (high - low) * x


squared = with_recon(mse)


def standardised(x):
    return (x - 0.1307) / 0.3081


def by_its_extremes(x):
    return (x - x.min()) / (x.max() - x.min())


def counts(x):
    return (8 * x).round()


def poisson(o):
    return D.Poisson(o + 1e-4)  # refuses what is no count


def plus_or_minus(o, x):
    return -D.Bernoulli(logits=o).log_prob((x.flatten(1) + 1) / 2).sum()  # refuses all but -1 and 1


@pytest.mark.parametrize(
    "images, kind, loss, faults",
    [
        (brought(0, 255), Logits, bce_logits, ["wrong range"]),
        (brought(0, 255), Foreign, foreign_loss, ["wrong range"]),
        (brought(0, 255), Foreign, squared, ["wrong range"]),
        (brought(0, 255), Logits, squared, []),
        (brought(0, 255), Foreign, lambda o, x, m, v: foreign_loss(o, x / 255, m, v), []),
        (brought(-1, 1), Foreign, foreign_loss, ["wrong range"]),
        (brought(-1, 1), Foreign, squared, ["wrong range"]),
        (brought(-1, 1), decoding(torch.tanh), squared, []),
        (standardised, Logits, bce_logits, ["wrong range"]),
        (standardised, Foreign, squared, ["wrong range"]),
        (standardised, Logits, squared, []),
        (standardised, decoding(F.relu), squared, ["wrong range"]),
        (standardised, decoding(F.softplus), squared, ["wrong range"]),
        (standardised, decoding(torch.exp), with_recon(mae), ["wrong range"]),
        (standardised, decoding(F.elu), squared, []),
        (brought(0, 1), decoding(F.relu), squared, []),
        (brought(0, 255), Foreign, target(by_its_extremes), []),
        (brought(0, 255), Foreign, with_recon(lambda o, x: mae(o, by_its_extremes(x))), []),
        (lambda x: 255 * x.round(), Foreign, with_recon(mae), ["wrong range"]),
        (counts, decoding(F.softplus), of_likelihood(poisson), []),
        (lambda x: 2 * x.round() - 1, Logits, with_recon(plus_or_minus), []),
    ],
)
def test_images_out_of_the_loss_s_range_are_found(images, kind, loss, faults):
    for model, x in on_several(kind):
        assert found(model, loss, images(x)) == faults


def test_a_penalty_on_samples_is_in_peace_where_its_derivatives_are_all_but_zero():
    assert found(new(n_latents=8, kind=Foreign), mmd, foreign_images(64)) == []


def encoding(pack, unpack, std=lambda v: torch.exp(0.5 * v)):
    """Return a class whose encode returns pack(mu, log_var), of which forward makes them again."""

    def forward(self, x):
        mu, v = unpack(self.encode(x.flatten(1)))
        return self.decode(mu + torch.randn_like(mu) * std(v)), mu, v

    return with_methods(encode=lambda self, x: pack(*Foreign.encode(self, x)), forward=forward)


class Code(tuple):
    mu, log_var = property(lambda self: self[0]), property(lambda self: self[1])


ENCODINGS = {
    "list": (lambda m, v: [m, v], lambda code: code),
    "z too": (lambda m, v: (m + 0, m, v), lambda code: code[1:]),
    "one tensor": (lambda m, v: torch.cat([m, v], dim=1), lambda code: code.chunk(2, dim=1)),
    "a distribution": (
        lambda m, v: D.Normal(m, torch.exp(0.5 * v)),
        lambda code: (code.mean, 2 * code.stddev.log()),
    ),
    "by names": (lambda m, v: Code((m, v)), lambda code: (code.mu, code.log_var)),
    "with a third dimension": (
        lambda m, v: (m[..., None], v[..., None]),
        lambda code: [part[..., 0] for part in code],
    ),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_encode_may_return_something_else(name):
    for n in (2, 16):  # a batch of 2 would unpack into two rows
        x = foreign_images(n)
        assert found(new(encoding(*ENCODINGS[name])), foreign_loss, x) == []
        silent = new(encoding(*ENCODINGS[name], std=torch.zeros_like))
        assert found(silent, foreign_loss, x) == ["no noise"]
        twice = new(encoding(*ENCODINGS[name]))
        assert found(twice, bce_logits, x) == ["sigmoid twice"]


def test_positive_logits_by_chance_are_no_sigmoid():
    model = new(**PIXELS_16)
    with torch.no_grad():
        model.decoder[-1].bias.fill_(0.5)
        model.decoder[-1].weight.mul_(0.1)
    x = grey(16, 16)
    output = model(x)[0]
    assert output.min() > 0 and output.max() < 1
    assert found(model, broken.healthy_loss, x) == []


def test_a_beta_of_as_few_pixels_is_a_choice():
    model, x = new(**PIXELS_16), grey(4, 16)
    assert found(model, elbo(16), x) == []
    assert found(model, broken.mean_for_sum, x) == ["mean for sum"]


def test_a_beta_of_the_number_of_pixels_is_a_mean_only_if_measured_or_large():
    for n_pixels, fault in [(25, None), (144, "beta far from 1"), (400, "mean for sum")]:
        model, x = new(latent_size=2, hidden_size=8, shape=(1, 1, n_pixels)), grey(4, n_pixels)
        findings = inspect_vae(model, elbo(n_pixels), x)
        assert [f.fault for f in findings] == [fault] * (fault is not None)
        for finding in findings if fault == "mean for sum" else []:
            assert "as if divided by 400 pixels" in finding.evidence
            assert "mean over" not in finding.evidence
        (finding,) = inspect_vae(model, broken.mean_for_sum, x)
        assert f"a mean over {n_pixels} pixels" in finding.evidence


def test_a_sigma_that_is_a_weight_beside_an_unknown_kl_is_no_reason_to_stop():
    def drawn(self, mu, log_var):
        return mu + self.fc3.weight.std() * torch.randn_like(mu)

    kind = with_methods(reparameterize=drawn)
    loss = of_sigma(lambda v: F.elu(v) + 1.1)
    assert found(kind(), loss, torch.rand(16, 1, 28, 28)) == ["KL formula", "log_var ignored"]


def test_a_single_image_of_few_latents_is_not_accused_by_chance():
    kind, loss = alike(lambda v: F.elu(v) + 1.1)
    for seed in range(6):
        torch.manual_seed(seed)
        assert found(kind(n_latents=2), loss, torch.rand(1, 1, 28, 28)) == []


def test_a_collapsed_decoder_that_ignores_z_is_not_accused():
    model = new(**PIXELS_16)
    with torch.no_grad():
        model.decoder[0].weight.zero_()
    assert found(model, broken.healthy_loss, grey(16, 16)) == []


def test_two_faults_are_two_findings():
    _, wrong_sign = broken.patient("D")
    assert found(new(broken.NoNoise), wrong_sign) == ["wrong sign of the KL", "no noise"]


# --- what a finding says --------------------------------------------------------------------------


def test_a_finding_has_its_numbers():
    model, x = new(), grey(4, 784)

    def evidence(loss):
        (finding,) = inspect_vae(model, loss, x)
        assert isinstance(finding, Finding)
        assert str(finding).startswith(f"{finding.fault}. {finding.evidence} ")
        return finding.evidence

    of_pixels = evidence(broken.mean_for_sum)
    assert "mean over 784 pixels" in of_pixels
    assert "beta is in truth 784, and looks like 1." in of_pixels
    of_latents = evidence(lambda o, x, m, v: nll(o, x) + losses.kl_per_dimension(m, v).mean(dim=1))
    assert "the KL is a mean over 20 latent dimensions" in of_latents
    assert "beta is in truth 0.05, " in of_latents
    of_images = evidence(lambda o, x, m, v: nll(o, x).mean() + kl(m, v).sum())
    assert "mean over the 4 images of the batch and the KL a sum" in of_images
    assert "beta is in truth 4," in of_images
    assert "-4·mu" in evidence(elbo(-4))
    (finding,) = inspect_vae(*broken.patient("A"), grey(64, 784))
    assert "it says 0.368" in finding.evidence  # 1/e


def test_a_kl_finding_says_what_is_taken_for_granted():
    (finding,) = inspect_vae(new(), lambda o, x, m, v: nll(o, x) + kl(m**2, v), grey(4, 784))
    assert finding.fault == "KL formula"
    for said in ("prior is taken to be N(0, I)", "penalties on mu or log_var count as part"):
        assert said in finding.evidence
        assert said in " ".join(inspect_vae.__doc__.split())


def test_what_is_not_finite_is_a_finding():
    model, x = new(**PIXELS_16), grey(4, 16)
    (finding,) = inspect_vae(model, lambda *a: broken.healthy_loss(*a) * math.nan, x)
    assert finding.fault == "not finite" and "Of 4 values of the loss, 4" in finding.evidence
    with torch.no_grad():
        model.decoder[-1].bias[3] = math.inf
    findings = inspect_vae(model, elbo(-1), x)
    assert [f.fault for f in findings] == ["wrong sign of the KL", "not finite"]
    assert "Of 64 values of the output, 4" in findings[1].evidence


def test_images_that_are_not_finite_are_not_blamed_on_the_model():
    x = grey(4, 16)
    x[1, 2] = math.nan
    (finding,) = inspect_vae(new(**PIXELS_16), broken.healthy_loss, x)
    assert finding.fault == "not finite" and "Of 64 values of x, 1" in finding.evidence


def test_a_report_says_what_is_right_and_what_was_not_examined():
    report = inspect_vae(new(), elbo(4), grey(16, 784))
    assert report == [] and not report and len(report) == 0
    assert report.examined["likelihood"] == "Bernoulli on logits"
    assert report.examined["beta"] == "4" and report.not_examined == {}
    assert report.examined["noise"] == "z is mu + σ·eps, log_var read as log σ²"
    assert {"target", "formula of the KL", "range", "gradient", "past z"} < set(report.examined)
    assert str(report) == repr(report)
    first, second = str(report).split("\n")
    assert first == "Nothing found." and second.startswith(
        "Right: likelihood (Bernoulli on logits)"
    )
    broken_one = inspect_vae(*broken.patient("E"), grey(16, 784))
    first, second = str(broken_one).split("\n")
    assert first == str(broken_one[0]) and second.startswith("Right: ")
    assert "noise" not in broken_one.examined


SILENT = {  # what the report says of what could not be examined: loss or model, what, why
    "one sample's log probabilities": ("formula of the KL", "one sample of z"),
    "KL warm-up": ("formula of the KL", "weight changes from call to call"),
    "KL warm-up at its start": ("formula of the KL", "does not change"),
    "total correlation": ("formula of the KL", "one sample of z"),
    "capacity of 1000": ("beta", "it changes with the KL"),
    "free bits": ("beta", "it changes with the KL"),
    "DIP-VAE-I": ("formula of the KL", "codes of a batch are compared"),
    "a learned prior": ("the prior", "means from 0.3 to 0.3 and σ from 1.2 to 1.2"),
    "ELBO of an unknown likelihood": ("likelihood, range and beta", "not known here"),
    "images drawn black and white": ("target", "made of it, or drawn"),
    "forward in one piece": ("noise", "forward does not call decode"),
    "forward calls decode only": ("gradient by mu", "does not take mu and log_var from encode"),
    "z turned by a flow": ("noise", "as by a flow"),
    "two levels, the second drawn in decode": ("past z", "of a second code"),
    "two levels, both codes in one": ("past z", "of a second code"),
}


@pytest.mark.parametrize("name", SILENT)
def test_what_was_not_examined_is_said(name):
    kind, loss = HEALTHY[name]
    what, why = SILENT[name]
    report = inspect_vae(new(kind, n_latents=20), loss, foreign_images())
    assert report == [] and why in report.not_examined[what] and what not in report.examined


@pytest.mark.parametrize(
    "kind, loss, beta",
    [
        (Foreign, foreign_loss, "1"),
        (Logits, of_likelihood(lambda o: D.Normal(o, 0.1)), "1, if the variance is 0.01"),
        (Logits, of_likelihood(lambda o: D.Laplace(o, 0.3)), "1, if the scale is 0.3"),
        (Foreign, with_recon(mse), "1, if the variance is 0.5"),
    ],
)
def test_the_beta_that_was_measured_is_said(kind, loss, beta):
    assert inspect_vae(new(kind), loss, foreign_images()).examined["beta"] == beta


# --- nothing is changed ---------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training):
    model, x = new(WithSampler, n_latents=3), foreign_images()
    foreign_loss(*model(x)[:1], x, *model(x)[1:]).backward()
    model.train(training)
    model.drop.train(not training)
    model.encode = encode = model.encode  # an instance may have one of its own
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    modes, random = [m.training for m in model.modules()], torch.get_rng_state()
    attributes = set(vars(model))
    first = inspect_vae(model, foreign_loss, x)
    assert torch.equal(torch.get_rng_state(), random)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients))
    assert all(p.requires_grad for p in model.parameters())
    assert set(vars(model)) == attributes and model.encode is encode
    assert torch.is_grad_enabled()
    assert inspect_vae(model, foreign_loss, x) == first


def test_the_model_is_left_as_it_was_by_an_error():
    model, random = new(Foreign).eval(), torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):  # as the learner's own code raises it
        inspect_vae(model, lambda *a: 1 / 0, foreign_images())
    assert not model.training and torch.equal(torch.get_rng_state(), random)
    assert "encode" not in vars(model) and "decode" not in vars(model)


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_the_random_state_is_that_of_x_s_own_gpu(monkeypatch, kind):
    # Another one than torch's current device, which a bare `manual_seed` would take.
    gpu, module, fork = torch.device(kind, int(kind == "cuda")), MagicMock(), MagicMock()
    monkeypatch.setattr(torch, kind, module)
    monkeypatch.setattr(torch.random, "fork_rng", fork)
    random = torch.get_rng_state()
    with inspector._undisturbed(new(Foreign), gpu):
        pass
    torch.set_rng_state(random)
    fork.assert_called_once_with([gpu], device_type=kind)
    assert module.device.call_args_list == [((gpu,),)] * (kind == "cuda")
    module.manual_seed.assert_called_once_with(0)


def test_float64_is_made_on_the_cpu():
    on_mps = MagicMock(spec=["cpu", "is_floating_point"])  # Apple's GPU has no float64
    assert data.exact(on_mps) is on_mps.cpu().double()


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model, loss, x, says",
    [
        (nn.Linear(784, 2), foreign_loss, grey(4, 784), "nn.Module with encode"),
        (foreign_loss, foreign_loss, grey(4, 784), "got function"),
        (Foreign(), foreign_loss, grey(784), "batch of float images"),
        (Foreign(), foreign_loss, (255 * grey(4, 784)).byte(), "x is torch.uint8"),
        (Foreign(), foreign_loss, torch.ones(4, 9).long(), "int64: use float32 .*token ids"),
        (Foreign(), foreign_loss, [0.0], r"got \['float'\]"),
        (Foreign(), foreign_loss, (1j * grey(4, 784)), "x is torch.complex64: use float32 or"),
        (with_methods(decode=lambda s, z: z)(), foreign_loss, grey(4, 784), "every pixel"),
        (VAE(2, 8, (1, 3, 3)), foreign_loss, grey(4, 784), "this model takes images"),
        (with_methods(forward=lambda s, x: x)(), foreign_loss, grey(4, 784), r"got \(4, 784\)"),
        (with_methods(forward=lambda s, x: (x, x))(), foreign_loss, grey(4, 784), r"got \[\("),
        (with_methods(forward=lambda s, x: (x, x, x[0]))(), foreign_loss, grey(4, 784), "mu and"),
        (Foreign(), lambda o, x, m, v: o.sum(dim=0), grey(4, 784), r"\(4,\), got \(784,\)"),
        (Foreign(), lambda o, x, m, v: {"loss": o.sum()}, grey(4, 784), "got dict"),
        (Foreign(), lambda o, x, m, v: o.sum().detach(), grey(4, 784), "does not depend on"),
        (Foreign(), lambda *a: -foreign_loss(*a), grey(4, 784), "what is minimised"),
        (Foreign(), lambda o, x, m, v: -(o - x).abs().sum(), grey(4, 784), "what is minimised"),
    ],
)  # fmt: skip
def test_what_breaks_the_contract_is_refused(model, loss, x, says):
    with pytest.raises(ValueError, match=says):
        inspect_vae(model, loss, x)
