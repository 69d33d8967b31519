"""The numbers that lessons quote from trainings too long for a lesson, measured again.

    python tools/claims.py [cures] [prices] [ends] [sprites] [gaps] [axes] [paper] [labels] [cells]
        [codes] [writers] [choices]

Without a name all of them, over two hours on two cores; run nothing else meanwhile.
"""

import functools
import math
import sys
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sprites import make_sprites, mutual_information_gap
from torch import Tensor, nn

from vae_lesson import evaluate, generation, losses, train
from vae_lesson.data import to_float
from vae_lesson.likelihood import importance, linear, pixels
from vae_lesson.likelihood.autoregressive import AutoregressiveVAE
from vae_lesson.models import VAE, reparameterize
from vae_lesson.priors import discrete, flow, spatial
from vae_lesson.priors.conditional import ConditionalVAE, conditional_terms, one_hot
from vae_lesson.sources import load_images

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
    """Return recon, KL, −ELBO (of β = 1) and the active units of the test images."""
    terms = evaluate.mean_terms(model, test, binarisation="dynamic")
    active = evaluate.active_units(evaluate.codes(model, test)).sum().item()
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
        for k in (10, 50):
            options = {"reg_covar": 1e-4, "init_params": "k-means++", "max_iter": 100, "tol": 1e-2}
            few = codes[::3].double()
            mixture = GaussianMixture(min(k, len(few) // 2), random_state=seed, **options).fit(few)
            found[f"mixture of {k}"] = torch.from_numpy(mixture.sample(n)[0]).float()
        noise = torch.randn((n, codes.shape[1]), generator=draws)
        each = codes.mean(dim=0), codes.std(dim=0) + 0.05
        scales = {"as they are": (0.0, 1.0), "one factor": (0.0, codes.std()), "each number": each}
        trainings = [(256, 10, name) for name in scales] + [(512, 60, "each number")]
        for hidden_size, epochs, name in trainings:
            mean, std = scales[name]
            torch.manual_seed(seed)
            field = flow.VelocityField(codes.shape[1], hidden_size=hidden_size)
            terms = flow.flow_terms(lambda x, g, net=model, m=mean, s=std: (net.encode(x) - m) / s)
            how = {"epochs": epochs, "batch_size": 512, "lr": 5e-3, "halves": False}
            fit(field, images.train, terms=terms, seed=seed, **how)
            with torch.no_grad():
                z = flow.follow(field, noise, 10)[-1] * std + mean
            found[f"flow, {hidden_size} wide, {epochs} passes, scaled: {name}"] = z
        for name, z in found.items():
            yield seed, name, round(generation.measure(model, z, reference).frechet, 2)


def published(images, some: Tensor, seed: int, **how) -> VAE:
    torch.manual_seed(seed)
    model = with_mean_bias(VAE(50, 200, network="deep"), images.train)
    fit(model, some, lr=3e-3, binarisation="dynamic", seed=seed, **how)
    return model


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
    for kind, epochs in ((ConditionalVAE, 10), (Numbered, 2)):
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


def codes(images) -> Iterator:
    """Lesson 10: what codebooks of all sizes cost, and one without straight-through."""
    for n_codes, seeds in {4: SEEDS, 8: SEEDS, 16: SEEDS, 64: SEEDS, 256: [0]}.items():
        for seed in seeds:
            vq = trained_vq(images.train, seed, n_codes)
            prior = trained_prior(vq, images.train, seed)
            recon, price = recon_of(vq, images), price_of(prior, vq, images)
            frechet, _ = judged(vq, prior, images, seed)
            yield n_codes, seed, recon, price, recon + price, frechet
    for seed in SEEDS:
        vq = trained_vq(images.train[:20_000], seed, through=lambda z, e: e)
        recon, found = recon_of(vq, images), vq.tokens(images.test)
        perplexity = discrete.perplexity(found, vq.n_codes)
        yield "no straight-through", seed, recon, len(found.unique()), perplexity


def recon_of(vq, images) -> float:
    return evaluate.means_of_terms(vq, images.test, terms=discrete.vq_terms)["recon"]


def price_of(prior, vq, images) -> float:
    tokens = vq.tokens(images.test)
    return evaluate.means_of_terms(prior, tokens, terms=discrete.token_terms)["tokens"]


def writers(images) -> Iterator:
    """Lesson 10: labels at no token, at the first and at all; temperatures 1 and 0.8."""
    vq = trained_vq(images.train, 0)
    for name, how in {"none": None, "first": {"every": False}, "all": {"every": True}}.items():
        for seed in SEEDS:
            labels = None if how is None else images.train_labels[:20_000]
            prior = trained_prior(vq, images.train[:20_000], seed, labels, **how or {})
            for temperature in (1.0, 0.8):
                yield name, seed, temperature, *judged(vq, prior, images, seed, temperature)


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


def judged(vq, prior, images, seed: int, temperature: float = 1.0) -> tuple[float, float]:
    """Return the Fréchet distance of 2,000 draws, and the share of them that is as asked for."""
    classifier = generation.fit_classifier(images.train, images.train_labels, seed=0)
    wanted = torch.arange(2000, device=images.train.device) % 10
    y = F.one_hot(wanted, 10).float() if prior.n_classes else None
    generator = torch.Generator(wanted.device).manual_seed(seed)
    x = vq.decode_mean(prior.sample(2000, y, temperature, generator))
    classifier.requires_grad_(False)
    real, drawn = (generation.features(classifier, i) for i in (to_float(images.test), x))
    as_asked = (classifier(x).argmax(dim=1) == wanted).float().mean().item()
    return generation.frechet_distance(drawn, real), as_asked


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
        cells,
        codes,
        writers,
        choices,
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
