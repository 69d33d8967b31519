"""The checks on discrete codes: the gradient through a choice, perplexity, the bound, sampling."""

from collections.abc import Callable

import torch
from torch import Tensor

from vae_lesson.priors import discrete
from vae_lesson.teaching.checks.verdict import Verdict, compare, draw, ours


@ours(discrete.straight_through)
def through(answer: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(z, e): the value of e, and of the gradients all for z, none for e."""
    z, e, slope = draw((2, 3), (2, 3), (2, 3))
    verdict = compare(answer, (z, e), e, {"z itself: the decoder must see e": z})
    if not verdict.ok:
        return verdict

    def gradients(z: Tensor, e: Tensor) -> Tensor:
        z.requires_grad_(), e.requires_grad_()
        loss = (answer(z, e) * slope).sum() + 0 * (z + e).sum()  # so that both have a gradient
        return torch.stack(torch.autograd.grad(loss, (z, e)))

    none = torch.zeros_like(slope)
    for_z, for_e, for_both = map(torch.stack, ([slope, none], [none, slope], [slope, slope]))
    mistakes = {
        "no gradient at all: detach the difference alone, not the sum": torch.stack([none, none]),
        "e, and all of its own gradient: z gets none, and the encoder learns nothing": for_e,
        "only a z detached: e keeps its gradient as well": for_both,
    }
    return compare(gradients, (z, e), for_z, mistakes)


@ours(discrete.perplexity)
def perplexity(answer: Callable[[Tensor, int], float]) -> Verdict:
    """Check answer(tokens, n_codes) -> the perplexity of all these tokens, one number."""
    # Three images of four tokens; entry 3 is never used.
    tokens = torch.tensor([[0, 0, 0, 1], [2, 2, 2, 2], [0, 1, 4, 4]])
    right = torch.tensor(discrete.perplexity(tokens, 5))
    of_images = torch.tensor([discrete.perplexity(row, 5) for row in tokens])
    nats, bits = right.log(), right.log2()
    mistakes = {
        "the mean over images: count the tokens of all of them together": of_images.mean(),
        "the entropy: perplexity is its exponential": [nats, bits],
        "the sign forgotten: −Σ p log p is over 0": 1 / right,
        "bits in exp: log2 goes with 2**, log with exp": [bits.exp(), 2**nats],
    }
    return compare(answer, (tokens, 5), right, mistakes)


@ours(discrete.code_bound)
def bound_in_nats(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(recon, logits, tokens) -> `(B,)`, recon − log p(tokens) in nats per image."""
    recon, logits = draw((3,), (3, 4, 5))
    recon, tokens = recon.exp(), torch.tensor([[0, 3, 3, 1], [4, 2, 0, 0], [1, 1, 1, 1]])
    right = discrete.code_bound(recon, logits, tokens)
    price = right - recon
    raw = logits.gather(2, tokens[:, :, None]).sum(dim=(1, 2))
    of_all = logits.log_softmax(dim=2).sum(dim=(1, 2))
    mistakes = {
        "a mean over tokens: their nats add up": recon + price / 4,
        "the wrong sign: log p is negative, and a cost is not": recon - price,
        "the logits themselves: log_softmax makes them log p": recon - raw,
        "all entries' log p: only the chosen token is paid for": recon - of_all,
    }
    return compare(answer, (recon, logits, tokens), right, mistakes, per_image=True)


@ours(discrete.draw_token)
def next_token(answer: Callable[[Tensor, float, torch.Generator], Tensor]) -> Verdict:
    """Check answer(logits, temperature, generator) -> a drawn token for each row, `(B, 1)`.

    It is judged by how often each comes in 20,000 draws, so that any way to draw will do.
    """
    logits, n, temperature = torch.tensor([2.0, 1.0, 0.0, -3.0]), 20_000, 0.5
    right, plain, times = (torch.softmax(by * logits, dim=0) for by in (2, 1, 0.5))
    mistakes = {
        "argmax: always the likeliest is no draw": torch.tensor([1.0, 0, 0, 0]),
        "the temperature without effect: divide the logits by it, before the softmax": plain,
        "multiplied by the temperature: divide the logits by it": times,
    }

    def frequencies() -> Tensor | None:
        generator = torch.Generator().manual_seed(7)
        drawn = answer(logits.repeat(n, 1), temperature, generator)
        if not isinstance(drawn, Tensor):
            return drawn
        if drawn.shape != (n, 1):
            got = tuple(drawn.shape)
            says = "Not yet: of {n_rows} rows the shape is {got}, it should be ({n_rows}, 1)."
            return Verdict(says, n_rows=n, got=got)
        found = torch.bincount(drawn.flatten().long(), minlength=4) / n
        near = [case for case in [right, *mistakes.values()] if (found - case).abs().max() < 0.02]
        return near[0] if near else found

    return compare(frequencies, (), right, mistakes)
