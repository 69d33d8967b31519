"""discrete: the codebook, the gradient through a choice, the bound and the prior over tokens."""

import itertools
import math

import pytest
import torch
from tiny import fit

from vae_lesson import evaluate, losses
from vae_lesson.priors import discrete
from vae_lesson.priors.discrete import VQVAE, TokenPrior


def model(n_codes=5, code_size=3, **options):
    torch.manual_seed(0)
    return VQVAE(n_codes, code_size, **options)


def prior(n_codes=3, size=8, **options):
    torch.manual_seed(0)
    return TokenPrior(n_codes, size, **options).eval()


X = torch.rand((4, 784), generator=torch.Generator().manual_seed(0))
CELLS = torch.randint(2, (64, 7, 7), generator=torch.Generator().manual_seed(0))
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
    recon, _ = discrete.vq_terms(vq, X)
    recon.sum().backward()
    assert vq.encoder[1].weight.grad.abs().max() > 0
    assert vq.codebook.grad is None


def test_each_cell_gets_its_nearest_entry():
    vq, z = model(), torch.randn(2, 3, 7, 7)
    tokens = vq.numbers(z)
    distance = (
        (z[:, None] - vq.codebook[None, :, :, None, None]).square().sum(dim=2)
    )  # (2, K, 7, 7)
    assert torch.equal(tokens, distance.argmin(dim=1).flatten(1))
    assert torch.equal(vq.entries(tokens)[1, :, 2, 3], vq.codebook[tokens[1, 2 * 7 + 3]])


def test_averages_find_the_mean_of_what_chose_them():
    vq = model(n_codes=2, revive=False)
    near = torch.tensor([[2.0, 0.0, 0.0], [-2.0, 0.0, 1.0]])
    vq.codebook.data.copy_(near)
    z = torch.cat([near.expand(49, 2, 3).mT + 0.1, near.expand(49, 2, 3).mT + 0.3], dim=2)
    z = z.permute(2, 1, 0).unflatten(2, (7, 7))  # (4, 3, 7, 7): 98 cells for either entry
    for _ in range(200):
        vq.update(z, vq.numbers(z))
    torch.testing.assert_close(vq.codebook.data, near + 0.2, rtol=0, atol=1e-4)
    torch.testing.assert_close(vq.use, torch.tensor([98.0, 98.0]), rtol=0, atol=1e-3)


def test_an_entry_that_nobody_chooses_is_revived_at_a_code_of_the_batch():
    z = torch.randn((4, 3, 7, 7), generator=torch.Generator().manual_seed(1))
    for revive in (False, True):
        vq = model(revive=revive)
        vq.codebook.data[2] = 100.0
        for _ in range(60):
            vq.update(z, vq.numbers(z), torch.Generator().manual_seed(2))
        far = bool((vq.codebook[2] > 50).any())
        assert far is not revive
        assert (vq.numbers(z) == 2).any().item() is revive


def test_the_codebook_moves_in_a_training_step_only():
    vq = model()
    before = vq.codebook.clone()
    with torch.no_grad():
        discrete.vq_terms(vq, X)
    assert torch.equal(vq.codebook, before) and vq.use.eq(1).all()
    discrete.vq_terms(vq, X)
    assert not torch.equal(vq.codebook, before)


def test_fit_trains_it():
    vq = model()
    before = evaluate.mean_terms(vq, IMAGES, discrete.vq_terms).recon
    fit(vq, IMAGES, epochs=5, beta=0.25, terms=discrete.vq_terms, batch_size=16, lr=1e-2)
    assert evaluate.mean_terms(vq, IMAGES, discrete.vq_terms).recon < before / 2
    # What it reports is what decoding its tokens costs.
    x = IMAGES.flatten(1) / 255
    logits = vq.decoder(vq.entries(vq.tokens(IMAGES)))
    recon, _ = evaluate.terms_per_image(vq, IMAGES, discrete.vq_terms)
    torch.testing.assert_close(losses.bernoulli_nll(logits, x), recon)


def test_perplexity():
    even = torch.arange(6).repeat(4, 2)
    assert discrete.perplexity(even, 9) == pytest.approx(6)
    assert discrete.perplexity(torch.zeros(4, 12), 9) == pytest.approx(1)
    thirds = torch.tensor([[0, 0], [0, 0], [1, 1]])
    entropy = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    assert discrete.perplexity(thirds, 2) == pytest.approx(math.exp(entropy))


def all_codes(n_codes, length):
    return torch.tensor(list(itertools.product(range(n_codes), repeat=length)))


def logits_of(p, codes):
    before = torch.cat([torch.full((len(codes), 1), p.n_codes), codes[:, :-1]], dim=1)
    with torch.no_grad():
        return p(before)


def test_the_bound_of_every_code_lies_over_the_sum_over_all_of_them():
    # Three tokens of three kinds, six pixels: 27 codes can be counted out.
    codes, p = all_codes(3, 3), prior()
    none, logits = torch.zeros(27), logits_of(p, codes)
    log_p = -discrete.code_bound(none, logits, codes)
    torch.testing.assert_close(log_p.exp().sum(), torch.tensor(1.0))  # it is a distribution
    decoder = torch.randn((27, 6), generator=torch.Generator().manual_seed(3))
    x = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    recon = losses.bernoulli_nll(decoder, x.expand(27, 6))
    exact = -torch.logsumexp(log_p - recon, dim=0)
    bounds = discrete.code_bound(recon, logits, codes)
    assert (bounds > exact).all()
    # A code that alone explains the image leaves no gap.
    only = torch.where(torch.arange(27) == 5, recon, 1e4)
    bound = discrete.code_bound(only, logits, codes)[5]
    torch.testing.assert_close(bound, -torch.logsumexp(log_p - only, dim=0))


def test_a_token_depends_on_those_before_it_alone():
    p = prior()
    before = torch.randint(3, (1, 49), generator=torch.Generator().manual_seed(0))
    other = before.clone()
    other[0, 20] = (before[0, 20] + 1) % 3
    changed = (p(before) != p(other)).any(dim=2)[0]
    assert not changed[:20].any() and changed[20:].all()


def test_drawing_one_by_one_uses_the_logits_of_the_whole_row():
    p, y, seen = prior(n_classes=4), torch.eye(4)[[3, 1]], []

    def draw(logits, temperature, generator):
        seen.append(logits)
        return discrete.draw_token(logits, temperature, generator)

    tokens = p.sample(2, y, generator=torch.Generator().manual_seed(0), draw=draw).long()
    before = torch.cat([torch.full((2, 1), 3), tokens[:, :-1]], dim=1)
    torch.testing.assert_close(torch.stack(seen, dim=1), p(before, y))
    assert not torch.allclose(p(before, y), p(before, y.flip(0)))


def test_the_temperature_sharpens():
    logits = torch.tensor([[1.0, 0.0]]).expand(20_000, 2)
    for temperature in (0.5, 1.0, 2.0):
        drawn = discrete.draw_token(logits, temperature, torch.Generator().manual_seed(0))
        share = 1 / (1 + math.exp(-1 / temperature))
        assert (drawn == 0).float().mean().item() == pytest.approx(share, abs=0.02)
    with pytest.raises(ValueError, match="temperature must be a number over 0"):
        prior().sample(1, temperature=0)


@pytest.mark.parametrize("n_classes", [0, 10])
def test_every_token_comes_through_fit_as_it_is(n_classes):
    # All 256 of them, as uint8 "images": to_float divides by 255, the terms multiply.
    p, seen = prior(256, n_classes=n_classes), []
    given = torch.arange(256).repeat(49)[: 49 * 256].view(256, 49)
    y = torch.eye(10)[torch.arange(256) % 10]
    rows = torch.cat([given, 255 * y], dim=1) if n_classes else given
    forward = p.forward
    p.forward = lambda before, y: seen.append((before, y)) or forward(before, y)
    nll, _ = evaluate.terms_per_image(p, rows.byte(), discrete.token_terms)
    ((before, shown),) = seen
    assert torch.equal(before[:, 1:], given[:, :-1]) and (before[:, 0] == 256).all()
    assert shown is None if not n_classes else torch.equal(shown, y)
    assert nll.mean().item() == pytest.approx(49 * math.log(256), rel=0.05)  # untrained


def test_fit_trains_the_prior():
    p, row = prior(5), torch.arange(49) % 5
    rows = ((row + torch.arange(40)[:, None]) % 5).byte()  # the first token tells the others
    fit(p, rows, epochs=20, terms=discrete.token_terms, batch_size=8, lr=1e-2)
    nll = evaluate.mean_terms(p, rows, discrete.token_terms).recon
    assert math.log(5) - 0.1 < nll < math.log(5) + 2
    drawn = p.eval().sample(20, generator=torch.Generator().manual_seed(0)).long()
    assert ((drawn[:, 1:] - drawn[:, :-1]) % 5 == 1).float().mean() > 0.95
