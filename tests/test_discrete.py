"""discrete: the codebook, the gradient through a choice, the bound and the prior over tokens."""

import math

import pytest
import torch
from draws import normal, seeded, uniform

from vae_lesson import evaluate, losses
from vae_lesson.priors import discrete
from vae_lesson.priors.discrete import VQVAE, TokenPrior
from vae_lesson.train import fit


def model(n_codes=5, code_size=3, **options):
    torch.manual_seed(0)
    return VQVAE(n_codes, code_size, **options)


def prior(n_codes=3, size=8, **options):
    torch.manual_seed(0)
    return TokenPrior(n_codes, size, **options).eval()


X = uniform(4, 784)
CELLS = torch.randint(2, (64, 7, 7), generator=seeded())
IMAGES = 255 * CELLS.repeat_interleave(4, 1).repeat_interleave(4, 2).byte()


def test_the_value_is_that_of_e_and_the_gradient_that_of_z():
    z, e, slope = (torch.randn(2, 3, requires_grad=needs) for needs in (True, True, False))
    out = discrete.straight_through(z, e)
    torch.testing.assert_close(out, e)
    (out * slope).sum().backward()
    assert torch.equal(z.grad, slope) and e.grad is None


@pytest.mark.parametrize("codebook", ["averages", "gradient"])
def test_the_encoder_learns_from_recon_and_the_codebook_does_not(codebook):
    vq = model(codebook=codebook)
    discrete.vq_terms(vq, X)["recon"].sum().backward()
    assert vq.encoder[1].weight.grad.abs().max() > 0
    assert vq.codebook.grad is None


def test_each_cell_gets_its_nearest_entry():
    vq, z = model(), normal(2, 3, 7, 7)
    tokens = vq.nearest(z)
    distance = torch.cdist(z.flatten(2).mT, vq.codebook)  # (2, 49, K)
    assert torch.equal(tokens, distance.argmin(dim=2))
    assert torch.equal(vq.entries(tokens)[1, :, 2, 3], vq.codebook[tokens[1, 2 * 7 + 3]])


def test_averages_find_the_mean_of_what_chose_them():
    vq = model(n_codes=2, revive=False)
    near = torch.tensor([[2.0, 0.0, 0.0], [-2.0, 0.0, 1.0]])
    vq.codebook.data.copy_(near)
    z = torch.cat([near.expand(49, 2, 3).mT + 0.1, near.expand(49, 2, 3).mT + 0.3], dim=2)
    z = z.permute(2, 1, 0).unflatten(2, (7, 7))  # (4, 3, 7, 7): 98 cells for either entry
    for _ in range(200):
        vq.update(z, vq.nearest(z))
    torch.testing.assert_close(vq.codebook.data, near + 0.2, rtol=0, atol=1e-4)
    torch.testing.assert_close(vq.use, torch.tensor([98.0, 98.0]), rtol=0, atol=1e-3)


def test_an_entry_that_nobody_chooses_is_revived_at_a_code_of_the_batch():
    z = normal(4, 3, 7, 7, seed=1)
    for revive in (False, True):
        vq = model(revive=revive)
        vq.codebook.data[2] = 100.0
        for _ in range(60):
            vq.update(z, vq.nearest(z), seeded(2))
        far = bool((vq.codebook[2] > 50).any())
        assert far is not revive
        assert (vq.nearest(z) == 2).any().item() is revive


def test_the_codebook_moves_in_a_training_step_only():
    vq = model()
    before = vq.codebook.clone()
    with torch.no_grad():
        discrete.vq_terms(vq, X)
    assert torch.equal(vq.codebook, before) and vq.use.eq(1).all()
    discrete.vq_terms(vq, X)
    assert not torch.equal(vq.codebook, before)


def test_the_commitment_is_a_quarter_of_the_squared_distance_and_no_kl():
    vq = model()
    with torch.no_grad():
        terms, z = discrete.vq_terms(vq, X), vq.encoder(X)
    assert list(terms) == ["recon", "commitment"]
    distance = (z - vq.entries(vq.nearest(z))).square().flatten(1).sum(dim=1)
    torch.testing.assert_close(terms["commitment"], 0.25 * distance)


def test_fit_trains_it():
    vq, options = model(), {"terms": discrete.vq_terms}
    before = evaluate.means_of_terms(vq, IMAGES, **options)["recon"]
    fit(vq, IMAGES, epochs=5, batch_size=16, lr=1e-2, progress=False, device="cpu", **options)
    recon = evaluate.terms_per_image(vq, IMAGES, **options)["recon"]
    assert recon.mean() < before / 2
    # What it reports is what decoding its tokens costs.
    logits = vq.decoder(vq.entries(vq.tokens(IMAGES)))
    torch.testing.assert_close(losses.bernoulli_nll(logits, IMAGES.flatten(1) / 255), recon)


def test_perplexity():
    even = torch.arange(6).repeat(4, 2)
    assert discrete.perplexity(even, 9) == pytest.approx(6)
    assert discrete.perplexity(torch.zeros(4, 12).long(), 9) == pytest.approx(1)
    thirds = torch.tensor([[0, 0], [0, 0], [1, 1]])
    entropy = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    assert discrete.perplexity(thirds, 2) == pytest.approx(math.exp(entropy))


def test_the_bound_of_every_code_lies_over_the_sum_over_all_of_them():
    # Three tokens of three kinds, six pixels: 27 codes can be counted out.
    codes = torch.cartesian_prod(*[torch.arange(3)] * 3)
    with torch.no_grad():
        logits = prior()(torch.cat([torch.full((27, 1), 3), codes[:, :-1]], dim=1))
    log_p = -discrete.code_bound(torch.zeros(27), logits, codes)
    torch.testing.assert_close(log_p.exp().sum(), torch.tensor(1.0))  # it is a distribution
    x = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    recon = losses.bernoulli_nll(normal(27, 6, seed=3), x.expand(27, 6))
    exact = -torch.logsumexp(log_p - recon, dim=0)
    assert (discrete.code_bound(recon, logits, codes) > exact).all()
    # A code that alone explains the image leaves no gap.
    only = torch.where(torch.arange(27) == 5, recon, 1e4)
    bound = discrete.code_bound(only, logits, codes)[5]
    torch.testing.assert_close(bound, -torch.logsumexp(log_p - only, dim=0))


def test_a_token_depends_on_those_before_it_alone():
    p = prior()
    before = torch.randint(3, (1, 49), generator=seeded())
    other = before.clone()
    other[0, 20] = (before[0, 20] + 1) % 3
    changed = (p(before) != p(other)).any(dim=2)[0]
    assert not changed[:20].any() and changed[20:].all()


def test_drawing_one_by_one_uses_the_logits_of_the_whole_row():
    p, labels, seen = prior(n_classes=4), torch.tensor([3, 1]), []

    def draw(logits, temperature, generator):
        seen.append(logits)
        return discrete.draw_token(logits, temperature, generator)

    tokens = p.sample(2, labels, generator=seeded(), draw=draw)
    before = torch.cat([torch.full((2, 1), 3), tokens[:, :-1]], dim=1)
    torch.testing.assert_close(torch.stack(seen, dim=1), p(before, labels))
    assert not torch.allclose(p(before, labels), p(before, labels.flip(0)))


def test_the_temperature_sharpens():
    logits = torch.tensor([[1.0, 0.0]]).expand(20_000, 2)
    for temperature in (0.5, 1.0, 2.0):
        drawn = discrete.draw_token(logits, temperature, seeded())
        share = 1 / (1 + math.exp(-1 / temperature))
        assert (drawn == 0).float().mean().item() == pytest.approx(share, abs=0.02)
    with pytest.raises(ValueError, match="temperature must be a number over 0"):
        prior().sample(1, temperature=0)


@pytest.mark.parametrize("with_labels", [False, True])
def test_the_terms_are_minus_the_log_probability_of_the_tokens(with_labels):
    p = prior(n_classes=4)
    tokens, labels = torch.randint(3, (5, 49), generator=seeded()), torch.arange(5) % 4
    found = discrete.token_terms(p, tokens, *[labels] * with_labels, generator=seeded())
    assert list(found) == ["tokens"]
    before = torch.cat([torch.full((5, 1), 3), tokens[:, :-1]], dim=1)
    log_p = p(before, labels if with_labels else None).log_softmax(dim=2)
    expected = -log_p.gather(2, tokens[:, :, None]).flatten(1).sum(dim=1)
    torch.testing.assert_close(found["tokens"], expected)


def test_fit_trains_the_prior_on_tokens_and_labels():
    p, place, labels = prior(5, n_classes=2), torch.arange(49), torch.arange(40) % 2
    first = torch.arange(40)[:, None] // 2
    step = 1 + labels[:, None]  # the label tells by how much a token is over the last
    tokens = (first + step * place) % 5
    how = {"epochs": 20, "batch_size": 8, "lr": 1e-2, "progress": False, "device": "cpu"}
    fit(p, tokens, labels, terms=discrete.token_terms, **how)
    nll = evaluate.means_of_terms(p, tokens, labels, terms=discrete.token_terms)["tokens"]
    assert math.log(5) - 0.1 < nll < math.log(5) + 2  # the first token is any of five
    for label in (0, 1):
        drawn = p.eval().sample(20, torch.tensor([label] * 20), generator=seeded())
        steps = (drawn[:, 1:] - drawn[:, :-1]) % 5
        assert (steps == 1 + label).float().mean() > 0.95
