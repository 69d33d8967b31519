"""The checks on discrete codes: the gradient through a choice, perplexity, the bound, sampling."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vae_lesson.priors.discrete import code_bound
from vae_lesson.priors.discrete import perplexity as our_perplexity
from vae_lesson.teaching.checks.verdict import ONE_NUMBER, Verdict, compare, draw


def through(answer: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(z, e): the value of e, and of the gradients all for z, none for e."""
    z, e, slope = draw((2, 3), (2, 3), (2, 3))
    zero = torch.zeros(2, 3)

    def value_and_gradients(z: Tensor, e: Tensor) -> Tensor | None:
        z.requires_grad_(), e.requires_grad_()
        out = answer(z, e)
        if not isinstance(out, Tensor):
            return out
        if out.shape != (2, 3):
            return Verdict(f"Not yet: the shape is {tuple(out.shape)}, it should be (2, 3).")
        loss = (out * slope).sum()
        of = torch.autograd.grad(loss, (z, e), allow_unused=True) if loss.requires_grad else ()
        of = [zero if g is None else g for g in of] or [zero, zero]
        return torch.stack([out.detach(), *of])

    def case(value: Tensor, of_z: Tensor, of_e: Tensor) -> Tensor:
        return torch.stack([value, of_z, of_e])

    mistakes = {
        "no gradient at all: detach the difference alone, not the sum": case(e, zero, zero),
        "e, and all of its own gradient: z gets none, and the encoder learns nothing": case(
            e, zero, slope
        ),
        "z itself: the decoder must see e": case(z, slope, zero),
        "z detached: its gradient comes back with the opposite sign": case(e, -slope, slope),
        "only a z detached: e keeps its gradient as well": case(e, slope, slope),
        "z and e exchanged: the value should be e, the gradient that of z": case(z, zero, slope),
    }
    return compare(value_and_gradients, (z, e), case(e, slope, zero), mistakes)


def perplexity(answer: Callable[[Tensor, int], float]) -> Verdict:
    """Check answer(tokens, n_codes) -> the perplexity of all these tokens, one number."""
    # Three images of four tokens; entry 3 is never used.
    tokens = torch.tensor([[0, 0, 0, 1], [2, 2, 2, 2], [0, 1, 4, 4]]).byte()
    right = torch.tensor(our_perplexity(tokens, 5))
    of_images, of_places = (
        torch.tensor([our_perplexity(row, 5) for row in rows]) for rows in (tokens, tokens.T)
    )
    shares = torch.bincount(tokens.flatten(), minlength=5) / 12
    nats = right.log()
    mistakes = {
        "the mean over images: count the tokens of all of them together": [
            *(of_images.mean(), of_images.log().mean().exp(), of_images.log().mean(), of_images)
        ],
        "the mean over places: count the tokens of all of them together": [
            *(of_places.mean(), of_places.log().mean().exp(), of_places.log().mean(), of_places)
        ],
        "the entropy: perplexity is its exponential": [nats, nats / torch.tensor(2.0).log()],
        "the sign forgotten: −Σ p log p is over 0": [1 / right, -nats],
        "bits in exp: log2 goes with 2**, log with exp": [
            (nats / torch.tensor(2.0).log()).exp(),
            2**nats,
        ],
        "the number of entries in use: a rare one counts less": torch.tensor(4.0),
        "1 / Σ p²: take the entropy": 1 / shares.square().sum(),
        "a share of K: do not divide by it": right / 5,
    }
    return compare(answer, (tokens, 5), right, mistakes)


def bound_in_nats(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(recon, logits, tokens) -> `(B,)`, recon − log p(tokens) in nats per image."""
    (recon, logits), tokens = (
        draw((3,), (3, 4, 5)),
        torch.tensor([[0, 3, 3, 1], [4, 2, 0, 0], [1] * 4]).byte(),
    )
    recon = recon.exp()
    right = code_bound(recon, logits, tokens)
    log_p = logits.log_softmax(dim=2)
    chosen = log_p.gather(2, tokens.long()[:, :, None])[:, :, 0]
    raw = logits.gather(2, tokens.long()[:, :, None])[:, :, 0]
    prior = -chosen.sum(dim=1)
    log_k = torch.tensor(5.0).log()
    mistakes = {
        "T · log K: that is the price under a uniform prior, this one is learned": recon
        + 4 * log_k,
        "a mean over tokens: their nats add up": recon + prior / 4,
        "the wrong sign: log p is negative, and a cost is not": [recon - prior, -recon - prior],
        "recon alone: the tokens cost too": recon,
        "the tokens alone: recon is missing": prior,
        "the logits themselves: log_softmax makes them log p": recon - raw.sum(dim=1),
        "all entries' log p: only the chosen token is paid for": recon - log_p.sum(dim=(1, 2)),
        "probabilities: take their logarithm": [
            recon + chosen.exp().sum(dim=1),
            recon - chosen.exp().sum(dim=1),
        ],
        "bits: recon is in nats, so is log": recon + prior / torch.tensor(2.0).log(),
        ONE_NUMBER: [right.mean(), right.sum()],
    }
    return compare(answer, (recon, logits, tokens), right, mistakes)


def next_token(answer: Callable[[Tensor, float, torch.Generator], Tensor]) -> Verdict:
    """Check answer(logits, temperature, generator) -> a drawn token for each row, `(B, 1)`.

    It is judged by how often each comes in 20,000 draws, so that any way to draw will do.
    """
    logits, n, temperature = torch.tensor([2.0, 1.0, 0.0, -3.0]), 20_000, 0.5

    def shares(by: float) -> Tensor:
        return torch.softmax(logits * by, dim=0)

    first = F.one_hot(logits.argmax(), 4).float()
    right = shares(1 / temperature)
    mistakes = {
        "argmax: always the likeliest is no draw": first,
        "the temperature without effect: divide the logits by it, before the softmax": shares(1),
        "multiplied by the temperature: divide the logits by it": shares(temperature),
        "all tokens equally often: use the logits": torch.full((4,), 0.25),
    }

    def frequencies() -> Tensor | None:
        generator = torch.Generator().manual_seed(7)
        drawn = answer(logits.repeat(n, 1), temperature, generator)
        if not isinstance(drawn, Tensor):
            return drawn
        if drawn.shape != (n, 1):
            got = tuple(drawn.shape)
            return Verdict(f"Not yet: of {n} rows the shape is {got}, it should be ({n}, 1).")
        found = torch.bincount(drawn.flatten().long(), minlength=4) / n
        near = [case for case in [right, *mistakes.values()] if (found - case).abs().max() < 0.02]
        return near[0] if near else found

    return compare(frequencies, (), right, mistakes)
