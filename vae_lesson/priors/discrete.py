"""Discrete codes: a vector-quantized VAE, and a prior over its tokens that is learned afterwards.

An image becomes 7×7 tokens, each the number of one of K (`n_codes`) entries of a codebook: int64
`(N, 49)`, row by row. `train.fit` trains both models, by `vq_terms` and `token_terms`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae_lesson.arguments import check_one_of, check_over_0, check_whole
from vae_lesson.data import batches
from vae_lesson.losses import bernoulli_nll, per_image
from vae_lesson.priors.spatial import SIDE, spatial_networks

N_TOKENS = SIDE * SIDE


def straight_through(z: Tensor, e: Tensor) -> Tensor:
    """Return e with the gradient of z: z + (e - z), the bracket taken as a constant.

    Source: Bengio et al. 2013; for a codebook van den Oord et al. 2017, section 3.2.
    """
    return z + (e - z).detach()


def perplexity(tokens: Tensor, n_codes: int) -> float:
    """Return exp(-sum_k p_k log p_k), with p_k the share of entry k among all these tokens.

    It is K if all are used equally often, 1 if only one is. Of a data set: take all its tokens.
    """
    p = torch.bincount(tokens.flatten(), minlength=n_codes) / tokens.numel()
    return torch.special.entr(p).sum().exp().item()


class VQVAE(nn.Module):
    """x -> z -> for each cell the nearest entry e of the codebook -> p(x|e), Bernoulli pixels.

    codebook: "averages" moves an entry towards the mean of the z that chose it, in training steps;
    "gradient" leaves it to Adam. revive: an entry that few choose is put on a z of the batch.
    Source: van den Oord et al. 2017, averages from its appendix A.1; revival Dhariwal et al. 2020.
    """

    input_size = 16 * N_TOKENS

    def __init__(
        self,
        n_codes: int = 64,
        code_size: int = 16,
        codebook: str = "averages",
        revive: bool = True,
    ) -> None:
        super().__init__()
        check_whole("n_codes", n_codes, 2)
        check_one_of("codebook", codebook, ("averages", "gradient"))
        self.n_codes, self.averages, self.revive = n_codes, codebook == "averages", revive
        self.encoder, self.decoder = spatial_networks(code_size)
        entries = torch.randn(n_codes, code_size)
        self.codebook = nn.Parameter(entries, requires_grad=not self.averages)
        self.register_buffer("use", torch.ones(n_codes))  # a moving average: choices in a batch

    def nearest(self, z: Tensor) -> Tensor:
        """Return the number of the entry nearest to each cell: z -> tokens `(B, 49)`."""
        cells = z.flatten(2).transpose(1, 2)  # (B, 49, code_size)
        norms = self.codebook.square().sum(dim=1)
        return (norms - 2 * cells @ self.codebook.T).argmin(dim=2)  # ‖z‖² is the same for all

    def entries(self, tokens: Tensor) -> Tensor:
        """Return the entries with these numbers: `(B, 49)` -> `(B, code_size, 7, 7)`."""
        return F.embedding(tokens, self.codebook).mT.unflatten(2, (SIDE, SIDE))

    @torch.no_grad()
    def tokens(self, images: Tensor) -> Tensor:
        """Return the tokens of uint8 images, `(N, 49)`."""
        given = batches(images, device=self.codebook.device)
        return torch.cat([self.nearest(self.encoder(x)) for x in given])

    @torch.no_grad()
    def decode_mean(self, tokens: Tensor) -> Tensor:
        """Return E[x|tokens]: `(N, 49)` -> images `(N, 784)`."""
        parts = tokens.split(1000)
        return torch.cat([torch.sigmoid(self.decoder(self.entries(part))) for part in parts])

    @torch.no_grad()
    def update(self, z: Tensor, tokens: Tensor, generator: torch.Generator | None = None) -> None:
        """Move the codebook by one batch: z as encoded, and the tokens that it chose."""
        cells = z.flatten(2).mT.flatten(0, 1)  # (B · 49, code_size)
        chosen = F.one_hot(tokens.flatten(), self.n_codes).to(cells)  # (B · 49, K)
        count = chosen.sum(dim=0)
        self.use.lerp_(count, 0.1)
        if self.averages:
            # 0.1 of the way to the batch's mean for an entry that is used as always.
            off = chosen.T @ cells - count[:, None] * self.codebook
            self.codebook += 0.1 * off / self.use.clamp_min(1e-5)[:, None]
        if self.revive:
            # No branch on what is dead: a CUDA graph has none.
            share = self.use.mean()
            dead = self.use < 0.2 * share
            at = torch.randint(len(cells), (self.n_codes,), generator=generator, device=z.device)
            self.codebook.copy_(torch.where(dead[:, None], cells[at], self.codebook))
            self.use.copy_(torch.where(dead, share, self.use))


def vq_terms(
    model: VQVAE,
    x: Tensor,
    generator: torch.Generator | None = None,
    through: Callable[[Tensor, Tensor], Tensor] = straight_through,
    weight: float = 0.25,
) -> dict[str, Tensor]:
    """Return recon = -log p(x|e) in nats, and the commitment, weight · |z - e|², `(B,)` each.

    The second, summed over cells and their numbers, is no KL and has no nats: it keeps z near the
    codebook, and a codebook that is trained by gradient near z. What the tokens cost is not in
    here: `token_terms`. In a training step the codebook moves too.
    Source: van den Oord et al. 2017, eq. 3.
    """
    z = model.encoder(x)
    tokens = model.nearest(z)
    e = model.entries(tokens)
    recon = bernoulli_nll(model.decoder(through(z, e)), x)
    if torch.is_grad_enabled():
        model.update(z.detach(), tokens, generator)
    return {"recon": recon, "commitment": weight * per_image((z - e).square())}


def code_bound(recon: Tensor, logits: Tensor, tokens: Tensor) -> Tensor:
    """Return recon - sum_t log p(c_t | c_1 … c_{t-1}), which bounds -log p(x) from above.

    p(x) = sum_c p(c) p(x|c), over all K^49 codes, is at least the one term of the encoder's c.

    Shapes: recon = -log p(x|c) `(B,)`, a prior's logits `(B, T, K)`, tokens `(B, T)` -> `(B,)`.
    Units: nats per image.
    """
    nll = F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")
    return recon + nll.sum(dim=1)


# --- the prior ------------------------------------------------------------------------------------


def draw_token(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    """Draw a token for each row, k with p_k ∝ exp(logit_k / temperature): `(B, K)` -> `(B, 1)`."""
    p = torch.softmax(logits / temperature, dim=1)
    return torch.multinomial(p, 1, generator=generator)


class Block(nn.Module):
    """What a transformer is made of: each place looks at those up to it, then thinks for itself."""

    def __init__(self, size: int, n_heads: int = 4) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.think = nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size))
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(2))

    def forward(self, x: Tensor, past: list[Tensor]) -> Tensor:
        """x `(B, T, size)` -> the same; past: keys and values of earlier places, or empty."""
        q, k, v = self.qkv(self.norms[0](x)).unflatten(2, (3, self.n_heads, -1)).unbind(2)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))  # (B, heads, T, size / heads)
        if past:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=not past)
        past[:] = k, v
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.think(self.norms[1](x))


class TokenPrior(nn.Module):
    """p(c) = prod_t p(c_t | c_1 … c_{t-1}), tokens row by row: a small transformer.

    n_classes: with it p(c | label), the label shown at every token, or (`every=False`) at the first
    alone.
    Source: Radford et al. 2018; over the tokens of images Esser et al. 2021.
    """

    def __init__(
        self, n_codes: int = 64, size: int = 64, n_classes: int = 0, every: bool = True
    ) -> None:
        super().__init__()
        check_whole("n_codes", n_codes, 2)
        self.n_codes, self.n_classes = n_codes, n_classes
        self.before = nn.Embedding(n_codes + 1, size)  # the last stands for: there is none
        self.place = nn.Parameter(0.1 * torch.randn(N_TOKENS, size))
        self.label = nn.Parameter(0.1 * torch.randn(n_classes, size))
        nn.init.normal_(self.before.weight, std=0.1)
        self.blocks = nn.ModuleList(Block(size) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(size), nn.Linear(size, n_codes)
        shown = torch.ones(N_TOKENS, 1) if every else torch.eye(N_TOKENS)[:, :1]
        self.register_buffer("shown", shown, persistent=False)

    def forward(
        self, before: Tensor, labels: Tensor | None = None, t: int = 0, past=None
    ) -> Tensor:
        """Return the logits of T tokens from place t on, `(B, T, K)`.

        before: the token before each, `(B, T)`; labels `(B,)`; past: what the blocks remember of
        the places before t.
        """
        past = [[] for _ in self.blocks] if past is None else past
        places = slice(t, t + before.shape[1])
        x = self.before(before) + self.place[places]
        if labels is not None:
            x = x + F.embedding(labels, self.label)[:, None] * self.shown[places]
        for block, memory in zip(self.blocks, past):
            x = block(x, memory)
        return self.head(self.norm(x))

    @torch.no_grad()
    def sample(
        self,
        n: int,
        labels: Tensor | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        draw: Callable = draw_token,
    ) -> Tensor:
        """Draw n times 49 tokens, one after the other: `(n, 49)`; labels `(n,)`, if it has any."""
        check_over_0("temperature", temperature)
        drawn = [torch.full((n, 1), self.n_codes, device=self.place.device)]
        past = [[] for _ in self.blocks]
        for t in range(N_TOKENS):
            logits = self(drawn[-1], labels, t, past)[:, 0]
            drawn.append(draw(logits, temperature, generator))
        return torch.cat(drawn[1:], dim=1)


def token_terms(
    model: TokenPrior, tokens: Tensor, labels: Tensor | None = None, generator=None
) -> dict[str, Tensor]:
    """Return -log p(tokens), or with labels -log p(tokens | labels), `(B,)`, in nats per image."""
    before = F.pad(tokens[:, :-1], (1, 0), value=model.n_codes)
    return {"tokens": code_bound(0.0, model(before, labels), tokens)}
