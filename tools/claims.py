"""The numbers that lessons quote from trainings too long for a lesson, measured again.

    python tools/claims.py [cures] [prices] [ends] [sprites] [gaps] [axes] [paper] [labels] [won]
        [cells] [reflow] [codes] [starts] [rivals] [writers] [choices] [widths]
        [flips] [sides]

Without a name all of them, over two hours on two cores; run nothing else meanwhile.
"""

import dataclasses
import functools
import math
import sys
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sprites import make_sprites, mutual_information_gap
from torch import Tensor, nn

from vae_lesson import evaluate, generation, losses, train
from vae_lesson.adapter import adapt
from vae_lesson.data import to_float, with_mirrored
from vae_lesson.likelihood import importance, linear, pixels
from vae_lesson.likelihood.autoregressive import AutoregressiveVAE
from vae_lesson.models import VAE, reparameterize
from vae_lesson.priors import discrete, flow, spatial
from vae_lesson.priors.conditional import ConditionalVAE, Given, conditional_terms, one_hot
from vae_lesson.sources import load_images
from vae_lesson.teaching.checks.pictures import OurNetwork

SEEDS = range(3)


def fit(model: nn.Module, *tensors: Tensor, lr: float = 1e-2, halves: bool = True, **how):
    """Train as these numbers were measured: batches of 128, the encoder at half of lr and the
    decoder at twice as much."""
    rates = (lr / 2, 2 * lr) if halves else lr
    train.fit(model, *tensors, lr=rates, schedule="linear", progress=False, **how)


@torch.no_grad()
def with_mean_bias(model: nn.Module, images: Tensor) -> nn.Module:
    """Begin with the mean image, as these numbers do; what the encoder sees stays as it is."""
    model.decoder[-1].bias.copy_(torch.logit(to_float(images).mean(dim=0), eps=1e-3))
    return model


def warm_up(progress: float) -> float:
    return min(1.0, 2 * progress)


def free_bits(model: VAE, x: Tensor, generator: torch.Generator | None = None):
    x_logits, mu, log_var = model(x, generator=generator)
    kl = losses.free_bits(losses.kl_per_dimension(mu, log_var), least=0.5)
    return {"recon": losses.bernoulli_nll(x_logits, x), "kl": kl}


def iwae(k: int):
    """Return terms whose sum is minus the importance-weighted bound, Burda et al. 2016."""

    def terms(model: VAE, x: Tensor, generator: torch.Generator | None = None):
        log_w = importance.posterior_log_weights(model, x, k, generator)
        return {"minus bound": -importance.importance_weighted_bound(log_w)}

    return terms


def on_tosses(make, images: Tensor, test: Tensor, seed: int, **how) -> list:
    """Train nearly as lesson 06 does; return `of_tosses`."""
    torch.manual_seed(seed)
    model = with_mean_bias(make(), images)
    fit(model, images, lr=3e-3, binarisation="dynamic", seed=seed, **how)
    return of_tosses(model, test)


def of_tosses(model, test: Tensor) -> list:
    """Return recon, KL, −ELBO (of β = 1) and active units of tossed test images."""
    terms = evaluate.mean_terms(model, test, binarisation="dynamic")
    x = to_float(test, "dynamic", torch.Generator().manual_seed(0))
    active = evaluate.active_units(model.encode(x)[0]).sum().item()
    return [*(round(value, 2) for value in terms), active]


def cures(images) -> Iterator:
    """Lesson 06: a deep, narrow network at β = 1, without a cure and with two."""
    part, kinds = images.train[:20_000], {"none": {}, "warm-up": {"beta": warm_up}}
    kinds |= {"free bits": {"terms": free_bits}}
    for epochs in (15, 60):
        for name, how in kinds.items():
            for seed in SEEDS:
                found = on_tosses(deep, part, images.test, seed, epochs=epochs, **how)
                yield epochs, name, seed, *found


def deep() -> nn.Module:
    return VAE(20, 100, network="deep")


def prices(images) -> Iterator:
    """Lesson 06: plain and strong decoders, 10 passes at β = 1 and 4; the cures at 4."""
    part = images.train[:20_000]
    how = {"none": {"beta": 4.0}, "warm-up": {"beta": lambda t: 4 * warm_up(t)}}
    how |= {"free bits": {"beta": 4.0, "terms": free_bits}, "β = 1": {"beta": 1.0}}
    for kind in (VAE, AutoregressiveVAE):
        for name, options in how.items():
            for seed in SEEDS:
                found = on_tosses(kind, part, images.test, seed, epochs=10, **options)
                yield kind.__name__, name, seed, *found


def ends(images) -> Iterator:
    """Lesson 06: strong decoders trained as there, two passes at a time: at β = 1 and then at 2,
    and at 4 only; the last number is recon + 2 · KL."""
    part, how = images.train[:20_000], {"epochs": 2, "lr": (1.5e-3, 6e-3), "progress": False}
    how |= {"batch_size": 128, "binarisation": "dynamic"}
    for seed in SEEDS:
        for first, then in ((1.0, 2.0), (4.0, 4.0)):
            torch.manual_seed(seed)
            model = AutoregressiveVAE(20, 400)
            for passes in range(2, 15, 2):
                beta = first if passes == 2 else then
                train.fit_fast(model, part, beta=beta, seed=seed, **how)
                recon, kl, neg_elbo, active = of_tosses(model, images.test)
                yield seed, beta, passes, recon, kl, neg_elbo, active, round(recon + 2 * kl, 2)


def sprites(images) -> Iterator:
    """Lesson 06: the mutual information gap at three β, five seeds, 60 epochs."""
    known = make_sprites()
    for beta in (1.0, 4.0, 12.0):
        for seed in range(5):
            torch.manual_seed(seed)
            model = with_mean_bias(VAE(10, 400), known.images)
            fit(model, known.images, epochs=60, beta=beta, seed=seed)
            codes = evaluate.decoder_inputs(model, known.images, seed)
            gap = mutual_information_gap(codes, known.factors)
            yield beta, seed, round(gap.mean, 3), *(round(v, 3) for v in gap.per_factor.tolist())


def gaps(images) -> Iterator:
    """Lesson 05: −ELBO of the encoder's q, of each image's own diagonal one and of any Gaussian;
    −log p(x) by 1,000 draws of the last."""
    for seed in SEEDS:
        torch.manual_seed(seed)
        model, x = VAE(), to_float(images.test[::100])
        train.fit_fast(model, images.train, seed=seed, progress=False)
        noise = torch.Generator().manual_seed(seed)
        how = (model, x, 200, 0.02, 8, noise)
        qs = model.encode(x), importance.fit_q(*how), importance.fit_q(*how, full=True)
        with torch.no_grad():
            all_log_w = [
                torch.cat([importance.log_weights_of(model, x, q, 100, noise) for _ in range(10)])
                for q in qs
            ]
        bound = importance.importance_weighted_bound(all_log_w[-1])
        yield seed, *(round(-v.mean().item(), 2) for v in (*all_log_w, bound))


def axes(images) -> Iterator:
    """Lesson 05: how far the linear VAE's columns are from the eigenvectors, in degrees."""
    blocks = F.avg_pool2d(images.train[:20_000, None].float(), 4)
    small = blocks.round().byte().flatten(1)
    eigenvectors = linear.principal_axes(to_float(small))[2][:, :5]
    how = {"batch_size": 500, "lr": (2.5e-2, 0.1), "schedule": "linear", "progress": False}
    for epochs in (60, 400):
        for seed in SEEDS:
            torch.manual_seed(seed)
            model = linear.LinearVAE(5, 49)
            train.fit(model, small, terms=linear.exact_terms, epochs=epochs, seed=seed, **how)
            angles = linear.axis_angles(linear.decoder_of(model).W, eigenvectors)
            yield epochs, seed, *(round(v, 1) for v in angles.sort().values.tolist())


def paper(images) -> Iterator:
    """Lesson 05: Burda et al.'s network with k = 1, judged on images from all over the test set."""
    for epochs in (35, 300):
        terms = iwae(1)
        model = published(images, images.train, 0, epochs=epochs, terms=terms)
        for name, some in [("every tenth", images.test[::10]), ("first", images.test[:1000])]:
            (e,) = importance.log_likelihood(model, some, (5000,), 0, "dynamic")
            yield epochs, name, round(-e.mean, 2), round(e.standard_error, 2)


def cells(images) -> Iterator:
    """Lesson 09: Fréchet distances of priors for codes of 4 numbers in 7×7 cells."""
    for seed in SEEDS:
        classifier = generation.fit_classifier(images.train, images.train_labels, seed=seed)
        torch.manual_seed(seed)
        model = spatial.spatial_autoencoder(4, width=16)
        how = {"epochs": 1, "lr": 3e-3, "terms": spatial.bernoulli_terms, "halves": False}
        fit(model, images.train[:30_000], seed=seed, **how)
        reference = generation.make_reference(model, images.train, images.test, classifier)
        codes, draws = reference.cloud, torch.Generator().manual_seed(seed)
        n = min(5000, len(codes))
        found = {"training codes": codes[torch.randperm(len(codes), generator=draws)[:n]]}
        few = codes[::3].double()
        for k, kind in ((10, "full"), (50, "full"), (50, "diag"), (500, "diag")):
            found[f"mixture of {k}, {kind}"] = drawn_from(few, k, seed, n, kind)
        found["mixture of 50 in 32 directions"] = drawn_in_directions(few, 32, 50, seed, n)
        noise = torch.randn((n, codes.shape[1]), generator=draws)
        mean, std = codes.mean(dim=0), codes.std(dim=0) + 0.05
        for hidden_size, epochs in ((256, 10), (512, 60)):
            torch.manual_seed(seed)
            field = flow.VelocityField(codes.shape[1], hidden_size=hidden_size)
            terms = flow.flow_terms(lambda x, g, net=model, m=mean, s=std: (net.encode(x) - m) / s)
            how = {"epochs": epochs, "batch_size": 512, "lr": 5e-3, "halves": False}
            fit(field, images.train, terms=terms, seed=seed, **how)
            with torch.no_grad():
                z = flow.follow(field, noise, 10)[-1] * std + mean
            found[f"flow, {hidden_size} wide, {epochs} passes"] = z
        for name, z in found.items():
            yield seed, name, round(generation.measure(model, z, reference).frechet, 2)


def drawn_from(codes: Tensor, k: int, seed: int, n: int, kind: str = "full") -> Tensor:
    """Draw n codes from a mixture that is fitted to these as lesson 09 does."""
    options = {"reg_covar": 1e-4, "init_params": "k-means++", "max_iter": 100, "tol": 1e-2}
    k = min(k, len(codes) // 2)
    mixture = GaussianMixture(k, covariance_type=kind, random_state=seed, **options).fit(codes)
    return torch.from_numpy(mixture.sample(n)[0]).float()


def drawn_in_directions(codes: Tensor, n_directions: int, k: int, seed: int, n: int) -> Tensor:
    """Draw n codes: from a mixture along their widest directions, from normals along the others."""
    mean, axes = codes.mean(dim=0), torch.linalg.eigh(torch.cov(codes.T)).eigenvectors.flip(1)
    along = (codes - mean) @ axes
    wide = drawn_from(along[:, :n_directions], k, seed, n).double()
    rest = along[:, n_directions:]
    noise = torch.randn((n, rest.shape[1]), generator=torch.Generator().manual_seed(seed))
    return (torch.cat([wide, noise * rest.std(dim=0)], dim=1) @ axes.T + mean).float()


def reflow(images) -> Iterator:
    """Lesson 09: Fréchet distances after 1, 2 and 4 of Euler's steps: of the flow, of a second one
    for its pairs of noise and code, and of one for the same with the codes shuffled."""
    for seed in SEEDS:
        classifier = generation.fit_classifier(images.train, images.train_labels, seed=seed)
        torch.manual_seed(seed)
        vae, n = VAE(), len(images.train)
        train.fit_fast(vae, images.train, epochs=2, seed=seed, progress=False)
        reference = generation.make_reference(vae, images.train, images.test, classifier)
        how = {"epochs": 15, "batch_size": 512, "halves": False, "seed": seed}
        terms = flow.flow_terms(lambda x, g, m=vae: reparameterize(*m.encode(x), generator=g))
        torch.manual_seed(seed)
        first = flow.VelocityField()
        fit(first, images.train, terms=terms, **how)
        z0 = torch.randn((n, 20), generator=torch.Generator().manual_seed(seed + 1))
        with torch.no_grad():
            z1 = torch.cat([flow.follow(first, z, 5)[-1] for z in z0.split(5000)])
        shuffled = z1[torch.randperm(n, generator=torch.Generator().manual_seed(seed))]
        fields = {"first": first}
        for name, codes in {"its pairs": z1, "shuffled": shuffled}.items():
            torch.manual_seed(seed)
            fields[name] = flow.VelocityField()
            terms = functools.partial(of_pairs, z0, codes)
            fit(fields[name], torch.arange(n), terms=terms, **how | {"epochs": 8})
        noise = torch.randn((5000, 20), generator=torch.Generator().manual_seed(seed))
        for name, field in fields.items():
            with torch.no_grad():
                ends = [flow.follow(field, noise, n_steps, flow.euler)[-1] for n_steps in (1, 2, 4)]
            distances = (generation.measure(vae, z, reference).frechet for z in ends)
            yield seed, name, *(round(value, 2) for value in distances)


def of_pairs(z0: Tensor, z1: Tensor, field: nn.Module, i: Tensor, generator: torch.Generator):
    t = torch.rand((len(i), 1), generator=generator)
    return {"matching": flow.matching_loss(field, z1[i], z0[i], t)}


def published(images, some: Tensor, seed: int, **how) -> VAE:
    torch.manual_seed(seed)
    model = with_mean_bias(VAE(50, 200, network="deep"), images.train)
    fit(model, some, lr=3e-3, binarisation="dynamic", seed=seed, **how)
    return model


class DecoderOnly(ConditionalVAE):
    """Its encoder is not told the label."""

    def encode(self, x: Tensor, y: Tensor):
        return super().encode(x, torch.zeros_like(y))


class Numbered(ConditionalVAE):
    """It is told the label as one number."""

    def __init__(self, latent_size: int = 20, hidden_size: int = 400) -> None:
        super().__init__(latent_size, hidden_size, n_classes=1)
        self.n_classes = 10  # of what comes in

    def encode(self, x: Tensor, y: Tensor):
        return super().encode(x, y.argmax(dim=1, keepdim=True).float())

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        return super().decode(z, y.argmax(dim=1, keepdim=True).float())


def labels(images) -> Iterator:
    """Lesson 08: −ELBO, read as asked, Fréchet distance, label read from z by two probes."""
    y, y_test = (images.train_labels[: len(images.train)], images.test_labels[: len(images.test)])
    wanted, part = torch.arange(5000) % 10, slice(20_000)  # as in the lesson
    classifier, judge = (generation.fit_classifier(images.train, y, seed=s) for s in (0, 1))
    for kind, epochs in ((ConditionalVAE, 10), (DecoderOnly, 10), (Numbered, 2)):
        for seed in SEEDS:
            torch.manual_seed(seed)
            model = with_mean_bias(kind(), images.train)
            fit(model, images.train, y, epochs=epochs, terms=conditional_terms, seed=seed)
            found = evaluate.mean_terms(model, images.test, y_test, terms=conditional_terms)
            with torch.no_grad():
                z = torch.randn((5000, 20), generator=torch.Generator().manual_seed(0))
                x = model.decode(z, one_hot(wanted, 10)).sigmoid()
                right = (judge(x).argmax(dim=1) == wanted).float().mean().item()
                real = generation.features(classifier, to_float(images.test))
                distance = generation.frechet_distance(generation.features(classifier, x), real)
                codes = [
                    reparameterize(
                        *model.encode(to_float(some), one_hot(known, 10)),
                        generator=torch.Generator().manual_seed(s),
                    )
                    for s, some, known in ((0, images.train, y), (1, images.test, y_test))
                ]
            read = probed(codes[0][part], y[part], codes[1], y_test)
            yield (
                kind.__name__,
                epochs,
                seed,
                *(round(v, 3) for v in (found.neg_elbo, right, distance, *read)),
            )


def probed(z: Tensor, y: Tensor, z_test: Tensor, y_test: Tensor) -> tuple[float, float]:
    """Return how often a linear classifier and a normal for each class read y from z."""
    normals = [GaussianMixture(1, reg_covar=1e-3).fit(z[y == c].double()) for c in range(10)]
    density = torch.tensor([normal.score_samples(z_test.double()).tolist() for normal in normals])
    linear = LogisticRegression(max_iter=500).fit(z, y).score(z_test, y_test)
    return linear, (density.argmax(dim=0) == y_test).float().mean().item()


def won(images) -> Iterator:
    """Lesson 08: −log p(x) of its plain VAE, −log p(x, y) of the one that is told the label, and
    their difference: 100 test images, 1,000 draws of the best Gaussian q of each."""
    y, y_test = images.train_labels[: len(images.train)], images.test_labels[: len(images.test)]
    x, how = to_float(images.test[::100]), {"epochs": 2, "progress": False}
    for seed in SEEDS:
        torch.manual_seed(seed)
        plain = VAE()
        train.fit_fast(plain, images.train, seed=seed, **how)
        torch.manual_seed(seed)
        told = ConditionalVAE()
        train.fit_fast(told, images.train, y, terms=conditional_terms, seed=seed, **how)
        bounds = [best_bound(model, x, seed) for model in (plain, Given(told, y_test[::100]))]
        less = [bounds[0][0], bounds[1][0] + math.log(10)]
        yield seed, *(round(v, 2) for v in (*less, less[0] - less[1], bounds[0][1], bounds[1][1]))


def best_bound(model, x: Tensor, seed: int) -> tuple[float, float]:
    """Return the mean −log p(x) by 1,000 draws of each image's best q, and the share whose k̂ is
    over 0.7."""
    noise = torch.Generator().manual_seed(seed)
    q = importance.fit_q(model, x, 200, 0.02, 8, noise, full=True)
    with torch.no_grad():
        parts = [importance.log_weights_of(model, x, q, 100, noise) for _ in range(10)]
    log_w = torch.cat(parts)
    bound = importance.importance_weighted_bound(log_w)
    return -bound.mean().item(), (importance.pareto_k(log_w) > 0.7).float().mean().item()


def codes(images) -> Iterator:
    """Lesson 10: what codebooks of all sizes cost, and one without straight-through."""
    classifiers = two_classifiers(images)
    for n_codes, seeds in {4: SEEDS, 8: SEEDS, 16: SEEDS, 64: SEEDS, 256: [0]}.items():
        for seed in seeds:
            vq = trained_vq(images.train, seed, n_codes)
            prior = trained_prior(vq, images.train, seed)
            recon, price = recon_of(vq, images), price_of(prior, vq, images)
            frechet, *_ = judged(vq, prior, images, seed, classifiers)
            yield n_codes, seed, recon, price, recon + price, frechet
    for seed in SEEDS:
        vq = trained_vq(images.train[:20_000], seed, through=lambda z, e: e)
        recon, found = recon_of(vq, images), vq.tokens(images.test)
        perplexity = discrete.perplexity(found, vq.n_codes)
        yield "no straight-through", seed, recon, len(found.unique()), perplexity


def starts(images) -> Iterator:
    """Lesson 10: entries in use, perplexity and recon, by a codebook's start and what moves it."""
    begins = {"normal": None, "a tenth": 0.1, "a hundredth": 0.01, "±1/K": "uniform"}
    runs = [(name, moves, False) for name in begins for moves in ("gradient", "averages")]
    runs += [("normal", "gradient", True), ("normal", "averages", True)]
    for name, moves, revive in runs:
        for seed in SEEDS:
            torch.manual_seed(seed)
            vq = discrete.VQVAE(codebook=moves, revive=revive)
            with torch.no_grad():
                if begins[name] == "uniform":
                    vq.codebook.uniform_(-1 / vq.n_codes, 1 / vq.n_codes)
                elif begins[name]:
                    vq.codebook *= begins[name]
            part, how = images.train[:20_000], {"terms": discrete.vq_terms, "halves": False}
            fit(vq, part, epochs=1, seed=seed, **how)
            found = vq.eval().tokens(images.test)
            perplexity = discrete.perplexity(found, vq.n_codes)
            yield name, moves, revive, seed, len(found.unique()), perplexity, recon_of(vq, images)


def rivals(images) -> Iterator:
    """Lesson 10: VAEs of Gaussian codes, lesson 02's network and the VQ-VAE's own; with each prior
    −ELBO, and of 2,000 draws the Fréchet distance, precision and recall."""
    classifier, _ = two_classifiers(images)
    for seed in SEEDS:
        for kind in ("mlp", 1, 2, 4):
            torch.manual_seed(seed)
            if kind == "mlp":
                model = VAE()
                train.fit_fast(model, images.train, seed=seed, progress=False)
            else:
                model = cell_vae(kind)
                fit(model, images.train, epochs=1, seed=seed, halves=False)
            recon, kl, neg_elbo = evaluate.mean_terms(model.eval(), images.test)
            for name, (saved, z) in priors_of(model, images, seed).items():
                x = model.decode_mean(z).detach()
                yield kind, seed, name, recon, kl, neg_elbo - saved, *looks(x, images, classifier)


def cell_vae(channels: int) -> VAE:
    """Return the VQ-VAE's networks as a VAE, its codes `channels` numbers a cell."""
    model = VAE(channels * discrete.N_TOKENS)
    encoder, _ = spatial.spatial_networks(2 * channels)
    _, decoder = spatial.spatial_networks(channels)
    model.encoder = nn.Sequential(*encoder, nn.Flatten())
    model.decoder = nn.Sequential(nn.Unflatten(1, (channels, 7, 7)), *decoder)
    return model


def priors_of(model: VAE, images, seed: int) -> dict[str, tuple[float, Tensor]]:
    """Return what N(0, I), a mixture of 50 and a flow save of −ELBO, in nats, and their draws."""
    cloud, z_test = (evaluate.decoder_inputs(model, part) for part in (images.train, images.test))
    at_normal = torch.distributions.Normal(0.0, 1.0).log_prob(z_test).sum(dim=1)
    n = 2000
    noise = torch.randn((n, model.latent_size), generator=torch.Generator().manual_seed(seed))
    few, every = cloud[::3].double(), max(1, len(z_test) // 500)
    options = {"reg_covar": 1e-4, "init_params": "k-means++", "max_iter": 100, "tol": 1e-2}
    mixture = GaussianMixture(min(50, len(few) // 2), random_state=seed, **options).fit(few)
    log_p = torch.from_numpy(mixture.score_samples(z_test.double())).float()
    drawn = torch.from_numpy(mixture.sample(n)[0]).float()
    torch.manual_seed(seed)
    field = flow.VelocityField(model.latent_size)
    clouds = torch.cat(evaluate.posteriors(model, images.train), dim=1)
    terms = flow.flow_terms(lambda i, g: reparameterize(*clouds[i].chunk(2, dim=1), generator=g))
    how = {"epochs": 15, "batch_size": 512, "terms": terms, "seed": seed, "halves": False}
    fit(field, torch.arange(len(clouds)), **how)
    by_flow = flow.log_density(field, z_test[::every], 10) - at_normal[::every]
    with torch.no_grad():
        followed = flow.follow(field, noise, 10)[-1]
    return {
        "N(0, I)": (0.0, noise),
        "mixture": ((log_p - at_normal).mean().item(), drawn),
        "flow": (by_flow.mean().item(), followed),
    }


def two_classifiers(images) -> list[nn.Module]:
    """Return one for the Fréchet distance, and a judge of what is drawn."""
    given = images.train, images.train_labels
    return [generation.fit_classifier(*given, seed=seed).requires_grad_(False) for seed in (0, 1)]


def looks(x: Tensor, images, classifier) -> tuple[float, float, float]:
    """Return the Fréchet distance, precision and recall of images x."""
    real, drawn = (generation.features(classifier, i) for i in (to_float(images.test), x))
    n = min(len(x), len(real))
    some = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))[:n]
    both = generation.precision_recall(drawn[:n], real[some])
    return generation.frechet_distance(drawn, real), *both


def recon_of(vq, images) -> float:
    return evaluate.means_of_terms(vq, images.test, terms=discrete.vq_terms)["recon"]


def price_of(prior, vq, images) -> float:
    tokens = vq.tokens(images.test)
    return evaluate.means_of_terms(prior, tokens, terms=discrete.token_terms)["tokens"]


def writers(images) -> Iterator:
    """Lesson 10: labels at no token, at the first and at all; temperatures 1 and 0.8: Fréchet
    distance, precision and recall, read as asked."""
    vq, classifiers = trained_vq(images.train, 0), two_classifiers(images)
    for name, how in {"none": None, "first": {"every": False}, "all": {"every": True}}.items():
        for seed in SEEDS:
            labels = None if how is None else images.train_labels[:20_000]
            prior = trained_prior(vq, images.train[:20_000], seed, labels, **how or {})
            for temperature in (1.0, 0.8):
                found = judged(vq, prior, images, seed, classifiers, temperature)
                yield name, seed, temperature, *found


def trained_vq(part, seed: int, n_codes: int = 64, **how) -> discrete.VQVAE:
    torch.manual_seed(seed)
    vq = discrete.VQVAE(n_codes)
    terms = functools.partial(discrete.vq_terms, **how)
    fit(vq, part, epochs=1, terms=terms, seed=seed, halves=False)
    return vq.eval()


def trained_prior(vq, part, seed: int, labels=None, **options) -> discrete.TokenPrior:
    torch.manual_seed(seed)
    prior = discrete.TokenPrior(vq.n_codes, n_classes=0 if labels is None else 10, **options)
    given = [vq.tokens(part)] if labels is None else [vq.tokens(part), labels[: len(part)]]
    how = {"epochs": 1, "batch_size": 64, "seed": seed, "halves": False}
    fit(prior, *given, terms=discrete.token_terms, **how)
    return prior.eval()


def judged(vq, prior, images, seed: int, classifiers, temperature: float = 1.0):
    """Return of 2,000 draws what `looks` does, and the share that the judge reads as asked for."""
    wanted = torch.arange(2000, device=images.train.device) % 10
    generator = torch.Generator(wanted.device).manual_seed(seed)
    labels = wanted if prior.n_classes else None
    x = vq.decode_mean(prior.sample(2000, labels, temperature, generator))
    first, judge = classifiers
    return *looks(x, images, first), (judge(x).argmax(dim=1) == wanted).float().mean().item()


def choices(_) -> Iterator:
    """Lesson 11: bits per dimension, KL and squared error of networks and likelihoods, and of few
    pictures for as many steps; −ELBO of the lesson's own model."""
    images = load_images("photos")
    nlls = {"cross-entropy": losses.bernoulli_nll, "logistic": pixels.fitted_logistic_nll}
    for epochs in (2, 10):
        for network in ("mlp", "conv"):
            for name, nll in nlls.items():
                for seed in SEEDS:
                    model = trained_on_photos(network, nll, images.train, epochs, seed)
                    error = evaluate.reconstruction_error(model, images.test)
                    found = in_bits(model, images.test)
                    yield epochs, network, name, seed, *found, error
    for n, n_passes in {200: 100, 1000: 20, 10_000: 2}.items():
        for seed in SEEDS:
            some = images.train[:n]
            model = trained_on_photos("conv", nlls["logistic"], some, n_passes, seed)
            yield n, seed, in_bits(model, some[:1000])[0], in_bits(model, images.test)[0]
    for seed in SEEDS:
        model = trained_on_photos("conv", nlls["logistic"], images.train, 6, seed)
        yield "lesson 11", seed, *in_bits(model, images.test)


def trained_on_photos(network: str, nll, part, epochs: int, seed: int) -> VAE:
    torch.manual_seed(seed)
    model = VAE(20, 400, (3, 32, 32), network)
    terms = functools.partial(losses.elbo_terms, nll=nll)
    fit(model, part, epochs=epochs, lr=5e-3, terms=terms, seed=seed)
    return model


def in_bits(model: VAE, part) -> tuple[float, float, float]:
    """Return −ELBO in bits per dimension under the fitted logistic, in nats, and the KL."""
    terms = functools.partial(losses.elbo_terms, nll=pixels.fitted_logistic_nll)
    _, kl, neg_elbo = evaluate.mean_terms(model, part, terms=terms)
    return neg_elbo / (part[0].numel() * math.log(2)), neg_elbo, kl


def widths(_) -> Iterator:
    """Lesson 11: bits per dimension, −ELBO and KL of the exercise's network, and of the course's
    with as many hidden units, and with twice as many."""
    images = load_images("photos")
    terms = functools.partial(losses.elbo_terms, nll=pixels.fitted_logistic_nll)
    makers = {f"mlp, {n} units": functools.partial(VAE, 20, n, images.shape) for n in (400, 200)}
    makers["the exercise's"] = lambda: adapt(OurNetwork(images.shape, 20), images.shape)
    for name, make in makers.items():
        for seed in SEEDS:
            torch.manual_seed(seed)
            model = make()
            fit(model, images.train, epochs=2, lr=5e-3, terms=terms, seed=seed)
            yield name, seed, *in_bits(model, images.test)


def flips(_) -> Iterator:
    """Lesson 11: bits of 100 pictures and of test pictures, after as many steps on those as they
    are, and mirrored too."""
    images = load_images("photos")
    few = dataclasses.replace(images, train=images.train[:100])
    parts = {"as they are": (few, 200), "mirrored too": (with_mirrored(few), 100)}
    for seed in SEEDS:
        for name, (part, n_passes) in parts.items():
            nll = pixels.fitted_logistic_nll
            model = trained_on_photos("conv", nll, part.train, n_passes, seed)
            yield name, seed, in_bits(model, few.train)[0], in_bits(model, images.test)[0]


def sides(_) -> Iterator:
    """Lesson 11: seconds of the processor for a pass over 10,000 pictures of 32 to 128 pixels (by
    512, enlarged), and the most memory in GB that the process has had."""
    import resource  # which Windows has not

    images = load_images("photos")
    terms = functools.partial(losses.elbo_terms, nll=pixels.fitted_logistic_nll)
    for side in (32, 64, 128):
        larger = F.interpolate(images.train[:512].float(), size=(side, side)).byte()
        torch.manual_seed(0)
        model = VAE(20, 400, (3, side, side), "conv")
        fit(model, larger[:128], epochs=1, lr=5e-3, terms=terms)
        start = time.process_time()
        fit(model, larger, epochs=1, lr=5e-3, terms=terms)
        seconds = (time.process_time() - start) * 10_000 / len(larger)
        yield side, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


CLAIMS = {
    f.__name__: f
    for f in (
        cures,
        prices,
        ends,
        sprites,
        gaps,
        axes,
        paper,
        labels,
        won,
        cells,
        reflow,
        codes,
        starts,
        rivals,
        writers,
        choices,
        widths,
        flips,
        sides,
    )
}


def main(names: list[str]) -> None:
    if unknown := set(names) - set(CLAIMS):
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(CLAIMS)}")
    images = load_images("mnist")
    for name in names or CLAIMS:
        print(CLAIMS[name].__doc__)
        for row in CLAIMS[name](images):
            print(*row, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
