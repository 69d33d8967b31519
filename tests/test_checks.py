"""checks: the right answer, no answer, and each common mistake told from the others.

The wrong answers below are written as a learner would write them, without the checks' own tensors.
"""

import math

import pytest
import torch
import torch.nn.functional as F

from vae_lesson import checks

# --- right answers --------------------------------------------------------------------------------


def kl(mu, log_var):
    return -0.5 * torch.sum(1 + log_var - mu**2 - torch.exp(log_var), dim=1)


def bce(x_logits, x):
    return F.binary_cross_entropy_with_logits(x_logits, x, reduction="none")


def slerp(z0, z1, t):
    omega = torch.acos(torch.sum(z0 * z1) / (torch.norm(z0) * torch.norm(z1)))
    return torch.sin((1 - t) * omega) / torch.sin(omega) * z0 + (
        torch.sin(t * omega) / torch.sin(omega) * z1
    )


RIGHT = {
    "squared_error": lambda x_hat, x: ((x_hat - x) ** 2).sum(dim=1),
    "pca_reconstruct": lambda x, mean, components: mean + (x - mean) @ components.T @ components,
    "lerp": lambda z0, z1, t: (1 - t) * z0 + t * z1,
    "reparameterize": lambda mu, log_var, eps: mu + eps * torch.exp(log_var / 2),
    "kl_divergence": kl,
    "neg_elbo": lambda x_logits, x, mu, log_var: bce(x_logits, x).sum(dim=1) + kl(mu, log_var),
    "slerp": slerp,
    "active_units": lambda mu: (mu.var(dim=0) > 0.01).sum(),
    "attribute_direction": lambda codes, has_it: codes[has_it].mean(0) - codes[~has_it].mean(0),
}

# --- wrong answers: a part of the message, and how to earn it -------------------------------------


def kl_of_sigma(mu, sigma):
    return 0.5 * torch.sum(mu**2 + sigma**2 - 1 - torch.log(sigma**2), dim=1)


def slerp_of_omega(omega, z0, z1, t):
    return (torch.sin((1 - t) * omega) * z0 + torch.sin(t * omega) * z1) / torch.sin(omega)


WRONG = [
    # squared_error(x_hat, x)
    ("squared_error", "the mean over pixels", lambda a, x: ((a - x) ** 2).mean(dim=1)),
    ("squared_error", "one number for the whole batch", lambda a, x: ((a - x) ** 2).sum()),
    ("squared_error", "one number for the whole batch", lambda a, x: F.mse_loss(a, x)),
    (
        "squared_error",
        "one number for the whole batch",
        lambda a, x: F.mse_loss(a, x, reduction="sum") / len(x),
    ),
    ("squared_error", "the sum over images", lambda a, x: ((a - x) ** 2).sum(dim=0)),
    ("squared_error", "the absolute difference", lambda a, x: (a - x).abs().sum(dim=1)),
    ("squared_error", "leave out the square root", lambda a, x: torch.norm(a - x, dim=1)),
    ("squared_error", "difference without a square", lambda a, x: (a - x).sum(dim=1)),
    ("squared_error", "difference without a square", lambda a, x: (x - a).sum(dim=1)),
    ("squared_error", "before the sum over pixels", lambda a, x: (a - x) ** 2),
    # pca_reconstruct(x, mean, components)
    ("pca_reconstruct", "add the mean back", lambda x, m, c: (x - m) @ c.T @ c),
    ("pca_reconstruct", "subtract the mean before", lambda x, m, c: x @ c.T @ c + m),
    ("pca_reconstruct", "subtract the mean before", lambda x, m, c: x @ c.T @ c),
    ("pca_reconstruct", "to get back to pixels", lambda x, m, c: (x - m) @ c.T),
    # lerp(z0, z1, t)
    ("lerp", "from z1 to z0", lambda z0, z1, t: t * z0 + (1 - t) * z1),
    ("lerp", "the midpoint", lambda z0, z1, t: 0.5 * z0 + 0.5 * z1),
    ("lerp", "at t = 1 that is z0 + z1", lambda z0, z1, t: z0 + t * z1),
    # reparameterize(mu, log_var, eps)
    ("reparameterize", "log σ² used as σ", lambda m, v, e: m + v * e),
    ("reparameterize", "the variance used as σ", lambda m, v, e: m + v.exp() * e),
    ("reparameterize", "halved but not exponentiated", lambda m, v, e: m + v / 2 * e),
    ("reparameterize", "which is 1/σ", lambda m, v, e: m + e * torch.exp(-v / 2)),
    ("reparameterize", "the noise is forgotten", lambda m, v, e: m),
    (
        "reparameterize",
        "noise of your own",
        lambda m, v, e: m + torch.exp(v / 2) * torch.randn_like(m),
    ),
    # kl_divergence(mu, log_var)
    (
        "kl_divergence",
        "the mean over latent dimensions",
        lambda m, v: -0.5 * torch.mean(1 + v - m**2 - v.exp(), dim=1),
    ),
    (
        "kl_divergence",
        "σ where σ² belongs",
        lambda m, v: -0.5 * (1 + v - m**2 - torch.exp(v / 2)).sum(dim=1),
    ),
    ("kl_divergence", "the factor ½", lambda m, v: -torch.sum(1 + v - m**2 - v.exp(), dim=1)),
    ("kl_divergence", "the wrong sign", lambda m, v: 0.5 * (1 + v - m**2 - v.exp()).sum(dim=1)),
    ("kl_divergence", "the wrong sign", lambda m, v: 0.5 * (1 + v - m**2 - v.exp()).sum()),
    ("kl_divergence", "one number for", lambda m, v: -0.5 * (1 + v - m**2 - v.exp()).sum()),
    ("kl_divergence", "one number for", lambda m, v: kl(m, v).mean()),
    ("kl_divergence", "one number for", lambda m, v: -0.5 * (1 + v - m**2 - v.exp()).mean()),
    ("kl_divergence", "before the sum", lambda m, v: -0.5 * (1 + v - m**2 - v.exp())),
    ("kl_divergence", "log σ² used as σ", lambda m, v: kl_of_sigma(m, v)),
    ("kl_divergence", "where exp(log_var)", lambda m, v: -0.5 * (1 + v - m**2 - v).sum(dim=1)),
    ("kl_divergence", "mu where mu²", lambda m, v: -0.5 * (1 + v - m - v.exp()).sum(dim=1)),
    # neg_elbo(x_logits, x, mu, log_var)
    ("neg_elbo", "mean over pixels", lambda a, x, m, v: bce(a, x).mean(dim=1) + kl(m, v)),
    (
        "neg_elbo",
        "mean over pixels",
        lambda a, x, m, v: F.binary_cross_entropy_with_logits(a, x) + kl(m, v),
    ),
    (
        "neg_elbo",
        "mean over pixels",
        lambda a, x, m, v: F.binary_cross_entropy_with_logits(a, x) + kl(m, v).mean(),
    ),
    ("neg_elbo", "KL subtracted", lambda a, x, m, v: bce(a, x).sum(dim=1) - kl(m, v)),
    ("neg_elbo", "the ELBO itself", lambda a, x, m, v: -bce(a, x).sum(dim=1) - kl(m, v)),
    (
        "neg_elbo",
        "one number for",
        lambda a, x, m, v: (
            F.binary_cross_entropy_with_logits(a, x, reduction="sum") + kl(m, v).sum()
        ),
    ),
    (
        "neg_elbo",
        "one number for",
        lambda a, x, m, v: (bce(a, x).sum(dim=1) + kl(m, v)).mean(),
    ),
    ("neg_elbo", "the KL is missing", lambda a, x, m, v: bce(a, x).sum(dim=1)),
    (
        "neg_elbo",
        "a sigmoid applied twice",
        lambda a, x, m, v: bce(torch.sigmoid(a), x).sum(dim=1) + kl(m, v),
    ),
    (
        "neg_elbo",
        "the mean of the KL over latent dimensions",
        lambda a, x, m, v: bce(a, x).sum(dim=1) + kl(m, v) / m.shape[1],
    ),
    # slerp(z0, z1, t)
    ("slerp", "the straight line", lambda z0, z1, t: torch.lerp(z0, z1, t)),
    ("slerp", "from z1 to z0", lambda z0, z1, t: slerp(z0, z1, 1 - t)),
    (
        "slerp",
        "missing the division by sin ω",
        lambda z0, z1, t: slerp(z0, z1, t) * torch.sin(torch.acos(F.cosine_similarity(z0, z1, 0))),
    ),
    pytest.param(
        "slerp",
        "without dividing by the two norms",
        lambda z0, z1, t: slerp_of_omega(torch.acos(z0 @ z1), z0, z1, t),
    ),
    ("slerp", "a unit vector", lambda z0, z1, t: F.normalize(slerp(z0, z1, t), dim=0)),
    pytest.param(
        "slerp",
        "a unit vector",
        lambda z0, z1, t: slerp(z0 / z0.norm(), z1 / z1.norm(), t),
    ),
    # active_units(mu)
    ("active_units", "the standard deviation", lambda m: (m.std(dim=0) > 0.01).sum()),
    ("active_units", "the number of images", lambda m: (m.var(dim=1) > 0.01).sum()),
    ("active_units", "the size of mu", lambda m: (m.abs().mean(dim=0) > 0.01).sum()),
    ("active_units", "the size of mu", lambda m: (m.mean(dim=0).abs() > 0.01).sum()),
    pytest.param(
        "active_units",
        "the size of mu",
        lambda m: ((m**2).mean(dim=0) > 0.01).sum(),
    ),
    ("active_units", "a mask", lambda m: m.var(dim=0) > 0.01),
    # attribute_direction(codes, has_it)
    ("attribute_direction", "the opposite", lambda c, h: c[~h].mean(dim=0) - c[h].mean(dim=0)),
    ("attribute_direction", "subtract that of the others", lambda c, h: c[h].mean(dim=0)),
    ("attribute_direction", "sums", lambda c, h: c[h].sum(dim=0) - c[~h].sum(dim=0)),
    ("attribute_direction", "the mean of all", lambda c, h: c[h].mean(dim=0) - c.mean(dim=0)),
    (
        "attribute_direction",
        "keep its length",
        lambda c, h: F.normalize(RIGHT["attribute_direction"](c, h), dim=0),
    ),
]

every_check = pytest.mark.parametrize("name", RIGHT)


def run(name, answer):
    verdict = getattr(checks, name)(answer)
    assert repr(verdict) == str(verdict)  # a notebook shows it without quotes
    return verdict


def test_every_check_is_tested():
    public = {
        name
        for name, value in vars(checks).items()
        if callable(value) and value.__module__ == checks.__name__ and name[0].islower()
    }
    assert public == set(RIGHT)


# --- right ----------------------------------------------------------------------------------------


@every_check
def test_the_right_answer_is_correct(name):
    verdict = run(name, RIGHT[name])
    assert verdict == "Correct." and verdict.ok is True


@every_check
def test_arrays_and_other_precisions_and_gradients_are_no_mistake(name):
    def of(convert):
        return lambda *arguments: convert(RIGHT[name](*arguments))

    assert run(name, of(lambda result: result.numpy())).ok
    assert run(name, of(lambda result: result.tolist())).ok
    assert run(name, of(lambda result: result.double())).ok
    assert run(name, of(lambda result: result.double().requires_grad_())).ok


@every_check
def test_changing_the_arguments_in_place_cannot_break_the_check(name):
    def spoilt(*arguments):
        result = RIGHT[name](*arguments).clone()
        for argument in arguments:
            if isinstance(argument, torch.Tensor):
                argument.zero_()
        return result

    assert run(name, spoilt).ok
    assert run(name, RIGHT[name]).ok  # nor the next one


def test_an_answer_made_in_place_is_correct():
    assert run("reparameterize", lambda mu, v, eps: v.div_(2).exp_().mul_(eps).add_(mu)).ok


@every_check
def test_a_check_leaves_the_global_random_state(name):
    state = torch.get_rng_state()
    run(name, RIGHT[name])
    assert torch.equal(torch.get_rng_state(), state)


# --- not yet --------------------------------------------------------------------------------------


def unwritten(*_):
    raise NotImplementedError


def broken(*_):
    raise ZeroDivisionError("division by zero")


@every_check
@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda *_: None, "returns nothing"),
        (lambda *_: ..., "expected a tensor, got ellipsis"),
        (lambda *_: "text", "expected a tensor, got str"),
        (lambda *_: (torch.zeros(2), torch.zeros(2)), "expected a tensor, got tuple"),
        (unwritten, "write the function"),
        (broken, "raised ZeroDivisionError: division by zero"),
        (lambda: 1, "raised TypeError"),  # takes no argument
        (lambda *arguments: arguments[0] @ torch.zeros(99, 99), "raised RuntimeError"),
    ],
)
def test_what_is_no_answer_is_not_yet_one_and_raises_nothing(name, answer, says):
    verdict = run(name, answer)
    assert verdict.startswith("Not yet: ") and says in verdict
    assert verdict.ok is False


@every_check
def test_the_stub_as_it_stands_is_not_yet_an_answer(name):
    def stub(*_): ...

    assert "returns nothing" in run(name, stub)


@every_check
def test_shape_inf_and_off_values_have_their_messages(name):
    right = RIGHT[name]

    verdict = run(name, lambda *arguments: right(*arguments)[None])
    assert not verdict.ok and "the shape is (1," in verdict and "it should be (" in verdict

    verdict = run(name, lambda *arguments: right(*arguments) + math.inf)
    assert not verdict.ok and "holds NaN or inf" in verdict

    verdict = run(name, lambda *arguments: right(*arguments) + 0.125)
    assert not verdict.ok and "the right shape, but values are off by up to 0.125" in verdict


def all_but(name, reason):
    """Return all checks, of which this one is known to fail."""
    return [pytest.param(n) if n == name else n for n in RIGHT]


@pytest.mark.parametrize(
    "name", all_but("reparameterize", "NaN differs from NaN: it is taken for noise of your own")
)
def test_nan_has_its_message(name):
    verdict = run(name, lambda *arguments: RIGHT[name](*arguments) * math.nan)
    assert not verdict.ok and "holds NaN or inf" in verdict


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, says, answer", WRONG)
def test_a_common_mistake_is_named(name, says, answer):
    verdict = run(name, answer)
    assert verdict.startswith("Not yet: this looks like ") and says in verdict
    assert verdict.ok is False


def listed(name, monkeypatch):
    """Return a check's right result and its {message: [wrong results]}."""
    found = {}

    def compare(answer, arguments, right, mistakes):
        found.update(right=right, mistakes=mistakes)
        return checks.Verdict("")

    with monkeypatch.context() as patch:
        patch.setattr(checks, "_compare", compare)
        getattr(checks, name)(None)
    mistakes = {
        message: wrongs if isinstance(wrongs, list) else [wrongs]
        for message, wrongs in found["mistakes"].items()
    }
    return found["right"], mistakes


def same(a, b):
    """Say whether a check could take a for b, with a hundred times its tolerance."""
    if a is None or b is None or a.shape != b.shape:
        return False
    if (a.dtype == torch.bool) != (b.dtype == torch.bool):
        return False
    return torch.allclose(a.double(), b.double(), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    "name", all_but("active_units", "the mean square of mu gives 4, like the standard deviation")
)
def test_the_mistakes_of_a_check_differ_from_each_other_and_from_the_right_answer(
    name, monkeypatch
):
    right, mistakes = listed(name, monkeypatch)
    for message, wrongs in mistakes.items():
        for result in wrongs:
            assert not same(result, right), message
            assert result is None or torch.isfinite(result.double()).all(), message
            for other, other_wrongs in mistakes.items():
                if other != message:
                    assert not any(same(result, r) for r in other_wrongs), (message, other)


@every_check
def test_every_listed_mistake_is_tested_here_and_no_part_fits_two(name, monkeypatch):
    _, mistakes = listed(name, monkeypatch)
    cases = [case.values if hasattr(case, "values") else case for case in WRONG]
    parts = {says for check, says, _ in cases if check == name}
    for part in parts:
        assert sum(part in message for message in mistakes) == 1, part
    for message in mistakes:
        assert any(part in message for part in parts), message
