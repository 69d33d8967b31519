"""Foreign VAEs and losses, as public code writes them, without the package: tables for the tests.

HEALTHY: name -> (model, loss). BROKEN: name -> (model, loss, fault). MISSED: name -> (model, loss,
why the inspector cannot tell). A model takes `n_latents`; images are `(B, 1, 28, 28)` in [0, 1].
"""

import math

import torch
import torch.distributions as D
import torch.nn.functional as F
from torch import nn

# --- the model of PyTorch's example, and what may be changed in it --------------------------------


class Foreign(nn.Module):
    def __init__(self, n_latents=20, n_pixels=784):
        super().__init__()
        self.n_pixels = n_pixels
        self.fc1 = nn.Linear(n_pixels, 40)
        self.fc21 = nn.Linear(40, n_latents)
        self.fc22 = nn.Linear(40, n_latents)
        self.fc3 = nn.Linear(n_latents, 40)
        self.fc4 = nn.Linear(40, n_pixels)

    def encode(self, x):
        h1 = F.relu(self.fc1(x))
        return self.fc21(h1), self.fc22(h1)

    def reparameterize(self, mu, logvar):
        std = torch.exp(0.5 * logvar)
        return mu + torch.randn_like(std) * std

    def decode(self, z):
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z))))

    def forward(self, x):
        mu, logvar = self.encode(x.view(-1, self.n_pixels))
        return self.decode(self.reparameterize(mu, logvar)), mu, logvar


def with_methods(**methods):
    """Return the foreign class with these methods in the place of its own."""
    return type("Changed", (Foreign,), methods)


def drawing(z_of):
    """Return the class that draws z_of(mu, log_var)."""
    return with_methods(reparameterize=lambda self, mu, v: z_of(mu, v))


def std_of(function):
    return drawing(lambda mu, v: mu + torch.randn_like(mu) * function(v))


def encoding_log_var(function):
    """Return the class whose encoder makes this of the second layer's output."""

    def encode(self, x):
        mu, v = Foreign.encode(self, x)
        return mu, function(v)

    return with_methods(encode=encode)


def logits(self, z):
    return self.fc4(F.relu(self.fc3(z)))


def decoding(function):
    """Return the class whose decoder ends in this instead of a sigmoid."""
    return with_methods(decode=lambda self, z: function(logits(self, z)))


Logits = with_methods(decode=logits)


def inline_forward(std=lambda v: torch.exp(0.5 * v), calls_encode=False, calls_decode=False):
    def forward(self, x):
        x = x.view(-1, 784)
        h1 = F.relu(self.fc1(x))
        mu, v = self.encode(x) if calls_encode else (self.fc21(h1), self.fc22(h1))
        z = mu + torch.randn_like(mu) * std(v)
        return self.decode(z) if calls_decode else Foreign.decode(self, z), mu, v

    return with_methods(forward=forward)


class Sampler(nn.Module):
    def forward(self, mu, logvar):
        return mu + torch.randn_like(mu) * torch.exp(0.5 * logvar) if self.training else mu


class WithSampler(Foreign):
    """Samples in training mode only, in a submodule; has dropout and batch normalisation."""

    def __init__(self, **options):
        super().__init__(**options)
        self.reparameterize = Sampler()
        self.normalise, self.drop = nn.BatchNorm1d(40), nn.Dropout(0.5)

    def encode(self, x):
        h1 = self.drop(self.normalise(F.relu(self.fc1(x))))
        return self.fc21(h1), self.fc22(h1).clamp(-10, 10)


class Conv(nn.Module):
    """Strided convolutions with batch normalisation and leaky ReLU; outputs (B, 1, 28, 28)."""

    def __init__(self, n_latents=20):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.LeakyReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.LeakyReLU(),
            nn.Flatten(),
        )
        self.fc_mu, self.fc_var = nn.Linear(784, n_latents), nn.Linear(784, n_latents)
        self.decoder_input = nn.Linear(n_latents, 784)
        self.decoder = nn.Sequential(
            nn.Unflatten(1, (16, 7, 7)),
            nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1, output_padding=1),
            nn.BatchNorm2d(8),
            nn.LeakyReLU(),
            nn.ConvTranspose2d(8, 1, 3, stride=2, padding=1, output_padding=1),
            nn.Sigmoid(),
        )

    def encode(self, x):
        h = self.encoder(x)
        return [self.fc_mu(h), self.fc_var(h)]

    def sample(self, mu, log_var):
        return mu + torch.randn_like(mu) * (0.5 * log_var).exp()

    def decode(self, z):
        return self.decoder(self.decoder_input(z))

    def forward(self, x):
        mu, log_var = self.encode(x)
        return self.decode(self.sample(mu, log_var)), mu, log_var


class SquareCodes(Conv):
    """z goes into the decoder as an image of one pixel."""

    def decode(self, z):
        return super().decode(z.flatten(1))

    def forward(self, x):
        mu, log_var = self.encode(x)
        return self.decode(self.sample(mu, log_var)[:, :, None, None]), mu, log_var


class ConvUNet(Conv):
    """The decoder's output has the encoder's first features added to it."""

    def forward(self, x):
        mu, log_var = self.encode(x)
        image = self.decode(self.sample(mu, log_var))
        return (
            0.5 * image
            + 0.5
            * torch.sigmoid(
                self.encoder[0](x)
                .mean(1, keepdim=True)
                .repeat_interleave(2, 2)
                .repeat_interleave(2, 3)
            ),
            mu,
            log_var,
        )


class Distributions(Foreign):
    """q is a distribution, and z its rsample."""

    def forward(self, x):
        mu, logvar = self.encode(x.flatten(1))
        z = D.Normal(mu, torch.exp(logvar / 2)).rsample()
        return self.decode(z), mu, logvar


class FixedNoise(Foreign):
    def __init__(self, n_latents=20):
        super().__init__(n_latents)
        self.register_buffer("eps", torch.randn(n_latents))

    def reparameterize(self, mu, logvar):
        return mu + self.eps * torch.exp(0.5 * logvar)


class FrozenEncoder(Foreign):
    """An encoder that was trained before."""

    def __init__(self, **options):
        super().__init__(**options)
        for layer in (self.fc1, self.fc21, self.fc22):
            layer.requires_grad_(False)


class OfHidden(Foreign):
    """The decoder is fed with the encoder's hidden layer."""

    def forward(self, x):
        h1 = F.relu(self.fc1(x.flatten(1)))
        mu, logvar = self.encode(x.flatten(1))
        self.reparameterize(mu, logvar)
        return torch.sigmoid(self.fc4(h1)), mu, logvar


class Flow(Foreign):
    """Planar flows turn z before it is decoded."""

    def __init__(self, n_latents=20):
        super().__init__(n_latents)
        self.u, self.w = (nn.Parameter(0.3 * torch.randn(n_latents)) for _ in range(2))

    def reparameterize(self, mu, logvar):
        z = super().reparameterize(mu, logvar)
        for _ in range(3):
            z = z + self.u * torch.tanh(z @ self.w)[:, None]
        return z


def zero_start(**options):
    model = Logits(**options)
    nn.init.zeros_(model.fc4.weight)
    nn.init.zeros_(model.fc4.bias)
    return model


def no_grad_encoder(self, x):
    with torch.no_grad():
        return Foreign.encode(self, x)


# --- losses ---------------------------------------------------------------------------------------


def kld(mu, logvar):
    return -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())


def bce(recon_x, x):
    return F.binary_cross_entropy(recon_x, x.view(-1, 784), reduction="sum")


def bce_mean(o, x):
    return F.binary_cross_entropy(o, x.view(-1, 784))


def foreign_loss(recon_x, x, mu, logvar):
    return bce(recon_x, x) + kld(mu, logvar)


def bce_logits(o, x, m, v):
    return F.binary_cross_entropy_with_logits(o, x.flatten(1), reduction="sum") + kld(m, v)


def target(change):
    """Return the loss beside change(x)."""
    return lambda o, x, m, v: foreign_loss(o, change(x), m, v)


def with_kl(kl):
    return lambda o, x, m, v: bce(o, x) + kl(m, v)


def per_image(o, x, m, v):
    each = F.binary_cross_entropy(o.clamp(1e-6, 1 - 1e-6), x.flatten(1), reduction="none")
    return each.sum(dim=1) - 0.5 * (1 + v - m**2 - v.exp()).sum(dim=1)


def free_bits(o, x, m, v):
    each = -0.5 * (1 + v - m**2 - v.exp())
    return bce_mean(o, x) * 784 + each.mean(0).clamp(min=0.5).sum()


def log_normal_sample_kl(o, x, m, v):
    """Estimate the KL with noise of its own: its derivatives differ from call to call."""
    z = m + torch.exp(0.5 * v) * torch.randn_like(m)
    return bce(o, x) + 0.5 * (z**2 - v).sum()


def one_sample(sign=1, weight=0.1, std=lambda v: torch.exp(v / 2)):
    """Return a loss whose KL is a difference of log probabilities at a sample of its own."""

    def loss(o, x, m, v):
        p, q = D.Normal(torch.zeros_like(m), torch.ones_like(m)), D.Normal(m, std(v))
        z = q.rsample()
        kl = (q.log_prob(z) - p.log_prob(z)).sum(-1).mean()
        recon = F.mse_loss(o, x.flatten(1), reduction="none").sum(-1).mean()
        return recon + sign * weight * kl

    return loss


def of_distributions(likelihood):
    """Return -log likelihood(output) of the pixels + KL, both from torch.distributions."""

    def loss(o, x, m, v):
        q, p = D.Normal(m, (0.5 * v).exp()), D.Normal(torch.zeros_like(m), torch.ones_like(v))
        log_likelihood = likelihood(o).log_prob(x.flatten(1)).sum(dim=1)
        return (D.kl_divergence(q, p).sum(dim=1) - log_likelihood).mean()

    return loss


def of_sigma(sigma):
    """Return the loss whose KL takes sigma(second output of the encoder) for σ."""

    def loss(o, x, m, raw):
        kl = D.kl_divergence(D.Normal(m, sigma(raw)), D.Normal(0.0, 1.0)).sum()
        return bce(o, x) + kl

    return loss


def optimal_sigma(o, x, m, v):
    """A Gaussian whose σ is the root mean square error of the batch."""
    log_sigma = (o - x.flatten(1)).square().mean().sqrt().log()
    recon = 0.5 * ((o - x.flatten(1)) / log_sigma.exp()) ** 2 + log_sigma
    return recon.sum() + kld(m, v)


def total_correlation(o, x, m, v):
    """The KL in three parts, each estimated from the batch's own samples."""
    q = D.Normal(m[None], (0.5 * v).exp()[None])
    z = m + torch.randn_like(m) * (0.5 * v).exp()
    log_q = q.log_prob(z[:, None])  # of each z under each image's q
    log_q_zx = log_q.diagonal().sum(dim=0)
    log_q_z = log_q.sum(2).logsumexp(1) - math.log(len(m) * 60000)
    log_q_zj = (log_q.logsumexp(1) - math.log(len(m) * 60000)).sum(1)
    log_p = D.Normal(0.0, 1.0).log_prob(z).sum(1)
    parts = (log_q_zx - log_q_z) + 6 * (log_q_z - log_q_zj) + (log_q_zj - log_p)
    return bce(o, x) / len(x) + parts.mean()


class WarmUp:
    """The KL's weight grows from call to call."""

    def __init__(self):
        self.calls = 0

    def __call__(self, o, x, m, v):
        self.calls += 1
        return bce(o, x) + min(1.0, self.calls / 1000) * kld(m, v)


class LearnedScale(nn.Module):
    """A Gaussian whose log σ is learned, the same for all pixels."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor([-0.7]))

    def forward(self, o, x, m, v):
        log_prob = D.Normal(o, self.log_scale.exp()).log_prob(x.flatten(1))
        return -log_prob.sum(dim=1).mean() + kld(m, v) / len(x)


def mmd(o, x, m, v):
    """A Wasserstein autoencoder's penalty, with samples of z and of the prior."""
    z = m + torch.randn_like(m) * torch.exp(0.5 * v)
    prior = torch.randn_like(z)

    def kernel(a, b):
        return torch.exp(-torch.cdist(a, b).square() / a.shape[1]).mean()

    penalty = kernel(z, z) + kernel(prior, prior) - 2 * kernel(z, prior)
    return F.mse_loss(o, x.flatten(1)) + 10 * penalty


def conv_loss(o, x, m, v):
    """Means over pixels and over images, and a small weight."""
    kld_loss = torch.mean(-0.5 * torch.sum(1 + v - m**2 - v.exp(), dim=1), dim=0)
    return F.mse_loss(o, x) + 0.00025 * kld_loss


def keras(o, x, m, v):
    each = F.binary_cross_entropy(o, x, reduction="none")
    recon = each.sum(dim=(1, 2, 3)).mean()
    return recon + (-0.5 * (1 + v - m.square() - v.exp())).sum(dim=1).mean()


def softplus_sigma(raw):
    return F.softplus(raw) + 1e-6


HEALTHY = {
    "the example": (Foreign, foreign_loss),
    "scalar, mean over the batch": (Foreign, lambda o, x, m, v: foreign_loss(o, x, m, v) / len(x)),
    "one value an image": (Foreign, per_image),
    "one value an image, as a column": (Foreign, lambda *a: per_image(*a)[:, None]),
    "one value in a list": (Foreign, lambda *a: foreign_loss(*a)[None]),
    "ELBO less a constant": (Foreign, lambda *a: foreign_loss(*a) - 1e5),
    "mean over pixels, KL divided by as many": (
        Foreign,
        lambda o, x, m, v: bce_mean(o, x) + kld(m, v) / (16 * 784),
    ),
    "mean squared error with a small weight": (
        Foreign,
        lambda o, x, m, v: F.mse_loss(o, x.flatten(1)) + 0.0025 * kld(m, v) / len(x),
    ),
    "beta 20 and latent size 20, batch 16": (Foreign, with_kl(lambda m, v: 20 * kld(m, v))),
    "beta 1e-5": (Foreign, with_kl(lambda m, v: 1e-5 * kld(m, v))),
    "beta 0.001": (Foreign, with_kl(lambda m, v: 0.001 * kld(m, v))),
    "half squared error": (
        Foreign,
        lambda o, x, m, v: 0.5 * ((o - x.flatten(1)) ** 2).sum() + kld(m, v),
    ),
    "free bits": (Foreign, free_bits),
    "capacity": (Foreign, with_kl(lambda m, v: 100 * (kld(m, v) / len(m) - 25).abs())),
    "capacity of 1000": (Foreign, with_kl(lambda m, v: 100 * (kld(m, v) / len(m) - 1000).abs())),
    "capacity not yet reached": (Foreign, with_kl(lambda m, v: 30 * (kld(m, v) - 1e7).abs())),
    "capacity, squared": (Foreign, with_kl(lambda m, v: 5 * (kld(m, v) / len(m) - 25) ** 2)),
    "capacity, an image at a time": (
        Foreign,
        with_kl(lambda m, v: ((m**2 + v.exp() - 1 - v).sum(1) / 2 - 25).square().sum()),
    ),
    "capacity never reached, absolute error": (
        Foreign,
        lambda o, x, m, v: (o - x.flatten(1)).abs().sum() + 10 * (kld(m, v) - 1e9).abs(),
    ),
    "ELBO of an unknown likelihood": (
        Foreign,
        lambda o, x, m, v: D.StudentT(4.0, o, 0.1).log_prob(x.flatten(1)).sum() - kld(m, v),
    ),
    "log_var clamped in the KL": (Foreign, with_kl(lambda m, v: kld(m, v.clamp(-10, 1)))),
    "a KL with noise": (Foreign, log_normal_sample_kl),
    "samples in training only": (WithSampler, foreign_loss),
    "log σ all through": (
        std_of(torch.exp),
        with_kl(lambda m, v: 0.5 * (m**2 + (2 * v).exp() - 1 - 2 * v).sum()),
    ),
    "σ all through": (
        type(
            "OfSigma",
            (encoding_log_var(F.softplus),),
            {"reparameterize": lambda self, mu, s: D.Normal(mu, s).rsample()},
        ),
        with_kl(lambda m, s: 0.5 * (m**2 + s**2 - 1 - torch.log(s**2)).sum()),
    ),
    "forward in one piece": (inline_forward(), foreign_loss),
    "forward calls encode only": (inline_forward(calls_encode=True), foreign_loss),
    "forward calls decode only": (inline_forward(calls_decode=True), foreign_loss),
    "decode returns logits, forward probabilities": (
        with_methods(
            decode=logits,
            forward=lambda self, x: (
                torch.sigmoid(logits(self, self.reparameterize(*self.encode(x.flatten(1))))),
                *self.encode(x.flatten(1)),
            ),
        ),
        foreign_loss,
    ),
    "logits that are all 0": (zero_start, bce_logits),
    # as public code writes them
    "convolutions, means and 0.00025": (Conv, conv_loss),
    "convolutions, sums over all but the batch": (Conv, keras),
    "z as an image of one pixel": (SquareCodes, keras),
    "cross-entropy times 784": (
        Foreign,
        lambda o, x, m, v: (784 * bce_mean(o, x) + kld(m, v) / len(x)).mean(),
    ),
    "one sample's log probabilities": (Distributions, one_sample()),
    "one sample's log probabilities, with log σ": (
        std_of(torch.exp),
        one_sample(weight=1, std=torch.exp),
    ),
    "softplus in the encoder, distributions": (
        type(
            "Softplus",
            (encoding_log_var(softplus_sigma),),
            {"reparameterize": lambda self, mu, s: D.Independent(D.Normal(mu, s), 1).rsample()},
        ),
        of_sigma(lambda s: s),
    ),
    "softplus in model and loss": (std_of(softplus_sigma), of_sigma(softplus_sigma)),
    "σ² all through": (
        type("Variance", (encoding_log_var(softplus_sigma), std_of(torch.sqrt)), {}),
        of_sigma(torch.sqrt),
    ),
    "a learned scale": (Foreign, LearnedScale()),
    "Laplace": (Logits, of_distributions(lambda o: D.Laplace(o, 0.3))),
    "Student's t": (Logits, of_distributions(lambda o: D.StudentT(3.0, o, 0.2))),
    "continuous Bernoulli": (Logits, of_distributions(lambda o: D.ContinuousBernoulli(logits=o))),
    "Gaussian with a fixed scale": (Logits, of_distributions(lambda o: D.Normal(o, 0.1))),
    "smooth absolute error": (
        Foreign,
        lambda o, x, m, v: F.smooth_l1_loss(o, x.flatten(1), reduction="sum") + kld(m, v),
    ),
    "Charbonnier's error": (
        Foreign,
        lambda o, x, m, v: ((o - x.flatten(1)) ** 2 + 1e-2).sqrt().sum() + kld(m, v),
    ),
    "cosine similarity": (
        Foreign,
        lambda o, x, m, v: (1 - F.cosine_similarity(o, x.flatten(1))).sum() + 0.01 * kld(m, v),
    ),
    "cross-entropy of weighted pixels": (
        Logits,
        lambda o, x, m, v: (
            F.binary_cross_entropy_with_logits(
                o, x.flatten(1), reduction="sum", pos_weight=torch.tensor(3.0)
            )
            + kld(m, v)
        ),
    ),
    "tanh, and images brought to [-1, 1]": (
        decoding(torch.tanh),
        lambda o, x, m, v: F.mse_loss(o, 2 * x.flatten(1) - 1, reduction="sum") + kld(m, v),
    ),
    "images drawn black and white": (Foreign, target(torch.bernoulli)),
    "images cut to black and white": (Foreign, target(lambda x: (x > 0.5).float())),
    "KL warm-up": (Foreign, WarmUp()),
    "KL warm-up at its start": (Foreign, with_kl(lambda m, v: 0 * kld(m, v))),
    "a penalty on samples, no KL": (Foreign, mmd),
    "a frozen encoder": (FrozenEncoder, foreign_loss),
    "a variance that is fixed": (encoding_log_var(torch.zeros_like), foreign_loss),
    "one variance for all dimensions": (
        encoding_log_var(lambda v: v[:, :1].expand_as(v)),
        foreign_loss,
    ),
    "log_var clamped in the encoder": (encoding_log_var(lambda v: v.clamp(-6, 2)), foreign_loss),
    "z turned by a flow": (Flow, foreign_loss),
    "z on a sphere": (
        with_methods(decode=lambda self, z: Foreign.decode(self, F.normalize(z))),
        foreign_loss,
    ),
    "z on a sphere before it is decoded": (
        drawing(lambda mu, v: F.normalize(mu + torch.randn_like(mu) * torch.exp(0.5 * v))),
        foreign_loss,
    ),
    "dropout on z": (
        drawing(lambda mu, v: F.dropout(mu + torch.randn_like(mu) * torch.exp(0.5 * v), 0.2)),
        foreign_loss,
    ),
    "the best σ for the batch": (Foreign, optimal_sigma),
    "total correlation": (Foreign, total_correlation),
    "a KL over a limit only": (
        Foreign,
        with_kl(lambda m, v: 1000 * F.relu(kld(m, v) / len(m) - 10)),
    ),
    "sums divided by 128": (Foreign, lambda *a: foreign_loss(*a) / 128),
    "the reconstruction divided by 128, the KL a mean": (
        Foreign,
        lambda o, x, m, v: bce(o, x) / 128 + kld(m, v) / len(x),
    ),
    "in place, on copies": (
        drawing(lambda mu, v: torch.randn_like(mu).mul_(v.mul(0.5).exp_()).add_(mu)),
        foreign_loss,
    ),
    "noise on the images that go in": (
        with_methods(
            encode=lambda self, x: Foreign.encode(self, x + 0.2 * torch.randn_like(x)),
        ),
        foreign_loss,
    ),
}


def constant_kl(o, x, m, v):
    return bce(o, x) + kld(m, v).item()


def no_grad_kl(o, x, m, v):
    with torch.no_grad():
        kl = kld(m, v)
    return bce(o, x) + kl


NOISE, FORMULA = "noise that is not N(0, I)", "KL formula"
BROKEN = {
    "KL subtracted": (
        Foreign,
        lambda o, x, m, v: 2 * bce_mean(o, x) * 784 - kld(m, v) / 16,
        "wrong sign of the KL",
    ),
    "KL with a plus": (
        Foreign,
        with_kl(lambda m, v: 0.5 * torch.sum(1 + v - m.pow(2) - v.exp())),
        "wrong sign of the KL",
    ),
    "one sample's log probabilities turned round": (
        Distributions,
        one_sample(sign=-1, weight=1),
        "wrong sign of the KL",
    ),
    # mean for sum
    "mean over pixels, sum over all": (
        Foreign,
        lambda o, x, m, v: bce_mean(o, x) + kld(m, v),
        "mean for sum",
    ),
    "mean over pixels, beta 4": (
        Foreign,
        lambda o, x, m, v: F.binary_cross_entropy(o, x.flatten(1)) + 4 * kld(m, v) / 16,
        "mean for sum",
    ),
    "mean squared error, sum over all": (
        Foreign,
        lambda o, x, m, v: F.mse_loss(o, x.view(-1, 784)) + kld(m, v),
        "mean for sum",
    ),
    "mean squared error, mean over images": (
        Foreign,
        lambda o, x, m, v: F.mse_loss(o, x.flatten(1)) + kld(m, v) / 16,
        "mean for sum",
    ),
    "mean of both": (
        Foreign,
        lambda o, x, m, v: bce_mean(o, x) - 0.5 * torch.mean(1 + v - m**2 - v.exp()),
        "mean for sum",
    ),
    "mean over latents": (
        Foreign,
        with_kl(lambda m, v: -0.5 * torch.mean(1 + v - m**2 - v.exp()) * 16),
        "mean for sum",
    ),
    "mean over latents and images, convolutions": (
        Conv,
        lambda o, x, m, v: (
            F.binary_cross_entropy(o, x, reduction="none").sum(dim=(1, 2, 3)).mean()
            - 0.5 * torch.mean(1 + v - m**2 - v.exp())
        ),
        "mean for sum",
    ),
    "mean absolute error": (
        Foreign,
        lambda o, x, m, v: (o - x.flatten(1)).abs().mean() + kld(m, v),
        "mean for sum",
    ),
    "mean absolute error, convolutions": (
        Conv,
        lambda o, x, m, v: F.l1_loss(o, x) + kld(m, v) / len(x),
        "mean for sum",
    ),
    "KL divided by batch times latents": (
        Foreign,
        lambda o, x, m, v: bce(o, x) + kld(m, v) / m.numel(),
        "mean for sum",
    ),
    "KL divided by batch times pixels": (
        Foreign,
        lambda o, x, m, v: bce(o, x) + kld(m, v) / (len(x) * 784),
        "mean for sum",
    ),
    "KL divided by the numbers of batch times pixels": (
        Foreign,
        with_kl(lambda m, v: kld(m, v) / (16 * 784)),
        "mean for sum",
    ),
    "KL divided by the number of pixels": (
        Logits,
        lambda o, x, m, v: (
            F.binary_cross_entropy_with_logits(o, x.flatten(1), reduction="none").sum(1).mean()
            + kld(m, v) / len(x) / 784
        ),
        "mean for sum",
    ),
    # the KL
    "mu not squared": (Foreign, with_kl(lambda m, v: kld(0 * m, v) + m.sum()), FORMULA),
    "exp(½ log_var)": (
        Foreign,
        with_kl(lambda m, v: -0.5 * torch.sum(1 + v - m**2 - torch.exp(v / 2))),
        FORMULA,
    ),
    "the loss takes log_var for σ, the noise does not": (
        Foreign,
        with_kl(lambda m, v: 0.5 * torch.sum(m**2 + v**2 - 1 - torch.log(v**2))),
        FORMULA,
    ),
    "mu² without its ½": (
        Foreign,
        with_kl(lambda m, v: (m**2).sum() + 0.5 * (v.exp() - 1 - v).sum()),
        FORMULA,
    ),
    "the sign of mu²": (
        Foreign,
        lambda o, x, m, v: (
            F.mse_loss(o, x.flatten(1), reduction="sum")
            - 0.5 * torch.sum(1 + v + m.pow(2) - v.exp())
        ),
        FORMULA,
    ),
    "the sign of log_var": (
        Foreign,
        with_kl(lambda m, v: -0.5 * torch.sum(1 - v - m**2 - v.exp())),
        FORMULA,
    ),
    "KL the wrong way round": (
        Foreign,
        with_kl(
            lambda m, v: D.kl_divergence(
                D.Normal(0 * m, 1 + 0 * m), D.Normal(m, (v / 2).exp())
            ).sum()
        ),
        FORMULA,
    ),
    "item()": (Foreign, constant_kl, "KL without gradient"),
    "KL under no_grad": (Foreign, no_grad_kl, "KL without gradient"),
    # the reconstruction
    "cross-entropy the wrong way round": (
        Foreign,
        lambda o, x, m, v: F.binary_cross_entropy(x.flatten(1), o, reduction="sum") + kld(m, v),
        "swapped arguments",
    ),
    "cross-entropy the wrong way round, convolutions": (
        Conv,
        lambda o, x, m, v: (
            -(o * torch.log(x + 1e-8) + (1 - o) * torch.log(1 - x + 1e-8)).sum(dim=(1, 2, 3)).mean()
            + kld(m, v) / len(x)
        ),
        "swapped arguments",
    ),
    "cross-entropy of logits the wrong way round": (
        Logits,
        lambda o, x, m, v: (
            F.binary_cross_entropy_with_logits(x.flatten(1), o, reduction="sum") + kld(m, v)
        ),
        "swapped arguments",
    ),
    "images shuffled": (Foreign, target(lambda x: x[torch.randperm(len(x))]), "wrong target"),
    "another image": (Foreign, target(lambda x: x.roll(1, 0)), "wrong target"),
    "another image, squared error": (
        Conv,
        lambda o, x, m, v: F.mse_loss(o, x.flip(0), reduction="sum") + kld(m, v),
        "wrong target",
    ),
    "zeros": (Foreign, target(torch.zeros_like), "wrong target"),
    # the range
    "logits, where the loss takes probabilities": (Logits, foreign_loss, "wrong range"),
    "logits, clamped": (
        Logits,
        lambda o, x, m, v: foreign_loss(o.clamp(1e-6, 1 - 1e-6), x, m, v),
        "wrong range",
    ),
    "tanh, where the loss takes probabilities": (decoding(torch.tanh), foreign_loss, "wrong range"),
    "tanh, where the loss takes logits": (decoding(torch.tanh), bce_logits, "wrong range"),
    "images brought to [-1, 1] beside a sigmoid": (
        Foreign,
        lambda o, x, m, v: F.mse_loss(o, 2 * x.flatten(1) - 1, reduction="sum") + kld(m, v),
        "wrong range",
    ),
    "images standardised beside a cross-entropy": (
        Logits,
        lambda o, x, m, v: bce_logits(o, (x - 0.1307) / 0.3081, m, v),
        "wrong range",
    ),
    "ReLU on log_var in the encoder": (encoding_log_var(F.relu), foreign_loss, "wrong range"),
    "a sigmoid in decode and one in decode": (
        decoding(lambda o: o.sigmoid().sigmoid()),
        foreign_loss,
        "sigmoid twice",
    ),
    "a sigmoid in decode and one in the loss": (Foreign, bce_logits, "sigmoid twice"),
    "a sigmoid in decode and one in the squared error": (
        Foreign,
        lambda o, x, m, v: F.mse_loss(o.sigmoid(), x.flatten(1), reduction="sum") + kld(m, v),
        "sigmoid twice",
    ),
    "KL with mu and log_var exchanged": (
        Foreign,
        with_kl(lambda m, v: kld(v, m)),
        FORMULA,
    ),
    "the output detached": (
        Foreign,
        lambda o, x, m, v: foreign_loss(o.detach(), x, m, v),
        "gradient cut",
    ),
    # the noise
    "log_var as σ": (std_of(lambda v: v), foreign_loss, "log_var used as sigma"),
    "½ log_var as σ": (std_of(lambda v: 0.5 * v), foreign_loss, "log_var used as sigma"),
    "|log_var|^½ as σ": (
        std_of(lambda v: v.abs().sqrt()),
        foreign_loss,
        "log_var used as sigma",
    ),
    "the variance as σ": (std_of(torch.exp), foreign_loss, "variance used as sigma"),
    "the variance as a distribution's scale": (
        drawing(lambda mu, v: D.Normal(mu, v.exp()).rsample()),
        of_distributions(lambda o: D.Normal(o, 1.0)),
        "variance used as sigma",
    ),
    "exp(½·) twice": (std_of(lambda v: torch.exp(0.5 * torch.exp(0.5 * v))), foreign_loss, NOISE),
    "ReLU on log_var": (std_of(lambda v: torch.exp(0.5 * F.relu(v))), foreign_loss, NOISE),
    "noise of a tenth": (std_of(lambda v: 0.1 * torch.exp(0.5 * v)), foreign_loss, NOISE),
    "rand for randn": (
        drawing(lambda mu, v: mu + torch.rand_like(v) * torch.exp(0.5 * v)),
        foreign_loss,
        NOISE,
    ),
    "rand from -1 to 1": (
        drawing(lambda mu, v: mu + (2 * torch.rand_like(v) - 1) * torch.exp(0.5 * v)),
        foreign_loss,
        NOISE,
    ),
    "rand of variance 1": (
        drawing(lambda mu, v: mu + 3**0.5 * (2 * torch.rand_like(v) - 1) * torch.exp(0.5 * v)),
        foreign_loss,
        NOISE,
    ),
    "one eps for the batch": (
        drawing(lambda mu, v: mu + torch.randn(mu.shape[1]) * torch.exp(0.5 * v)),
        foreign_loss,
        NOISE,
    ),
    "one eps for all dimensions": (
        drawing(lambda mu, v: mu + torch.randn(len(mu), 1) * torch.exp(0.5 * v)),
        foreign_loss,
        NOISE,
    ),
    "one number for all": (
        drawing(lambda mu, v: mu + torch.randn(()) * torch.exp(0.5 * v)),
        foreign_loss,
        NOISE,
    ),
    "eps fixed for ever": (FixedNoise, foreign_loss, NOISE),
    "eps of a seed": (
        drawing(
            lambda mu, v: (
                mu
                + torch.randn(mu.shape, generator=torch.Generator().manual_seed(1)) * (v / 2).exp()
            )
        ),
        foreign_loss,
        NOISE,
    ),
    "mu + σ": (drawing(lambda mu, v: mu + torch.exp(0.5 * v)), foreign_loss, NOISE),
    "mu + eps": (std_of(torch.ones_like), foreign_loss, "log_var ignored"),
    "mu + eps + σ": (
        drawing(lambda mu, v: mu + torch.randn_like(mu) + torch.exp(0.5 * v)),
        foreign_loss,
        NOISE,
    ),
    "mu · eps + σ": (
        drawing(lambda mu, v: mu * torch.randn_like(mu) + torch.exp(0.5 * v)),
        foreign_loss,
        NOISE,
    ),
    "|eps|": (
        drawing(lambda mu, v: mu + torch.randn_like(mu).abs() * torch.exp(0.5 * v)),
        foreign_loss,
        NOISE,
    ),
    "mu and log_var exchanged": (
        drawing(lambda mu, v: v + torch.randn_like(mu) * torch.exp(0.5 * mu)),
        foreign_loss,
        NOISE,
    ),
    "forward returns them exchanged": (
        with_methods(
            forward=lambda self, x: (
                Foreign.forward(self, x)[0],
                *reversed(self.encode(x.flatten(1))),
            )
        ),
        foreign_loss,
        NOISE,
    ),
    "no noise": (drawing(lambda mu, v: mu), foreign_loss, "no noise"),
    "the mean of the distribution": (
        drawing(lambda mu, v: D.Normal(mu, torch.exp(v / 2)).mean),
        foreign_loss,
        "no noise",
    ),
    "the same layer twice": (
        with_methods(encode=lambda self, x: 2 * (Foreign.encode(self, x)[0],)),
        foreign_loss,
        "log_var is mu",
    ),
    # what reaches what
    "z detached": (
        drawing(lambda mu, v: (mu + torch.randn_like(v) * torch.exp(0.5 * v)).detach()),
        foreign_loss,
        "gradient cut",
    ),
    "mu.data": (
        drawing(lambda mu, v: mu.data + torch.randn_like(v) * torch.exp(0.5 * v)),
        foreign_loss,
        "gradient cut",
    ),
    "σ detached": (
        drawing(lambda mu, v: mu + torch.randn_like(v) * torch.exp(0.5 * v).detach()),
        foreign_loss,
        "gradient cut",
    ),
    "sample for rsample": (
        drawing(lambda mu, v: D.Normal(mu, torch.exp(0.5 * v)).sample()),
        foreign_loss,
        "gradient cut",
    ),
    "torch.normal": (
        drawing(lambda mu, v: torch.normal(mu, torch.exp(0.5 * v))),
        foreign_loss,
        "gradient cut",
    ),
    "encoder under no_grad": (with_methods(encode=no_grad_encoder), foreign_loss, "gradient cut"),
    "the decoder takes the hidden layer": (OfHidden, foreign_loss, "z unused"),
    "the decoder's z is multiplied by 0": (
        with_methods(decode=lambda self, z: Foreign.decode(self, torch.zeros_like(z))),
        foreign_loss,
        "z unused",
    ),
    "x added to the output": (ConvUNet, keras, "past z"),
    "x averaged with the output": (
        with_methods(
            forward=lambda self, x: (
                0.9 * Foreign.forward(self, x)[0] + 0.1 * x.flatten(1),
                *self.encode(x.flatten(1)),
            )
        ),
        foreign_loss,
        "past z",
    ),
}

MISSED = {
    "a decoder that is never called, in a forward of one piece": (
        with_methods(
            forward=lambda self, x: (
                torch.sigmoid(self.fc4(F.relu(self.fc1(x.flatten(1))))),
                *(f(F.relu(self.fc1(x.flatten(1)))) for f in (self.fc21, self.fc22)),
            )
        ),
        foreign_loss,
        "a forward that calls neither half: no z is seen",
    ),
    "log_var as σ, in a forward of one piece": (
        inline_forward(lambda v: v),
        foreign_loss,
        "a forward that does not call decode: no z is seen",
    ),
    "KL without its ½": (
        Foreign,
        with_kl(lambda m, v: 2 * kld(m, v)),
        "it is beta = 2, in value and derivative",
    ),
    "KL divided by the number of latents": (
        Foreign,
        lambda o, x, m, v: (bce(o, x) + kld(m, v) / 20) / len(x),
        "a fixed 20 is beta = 0.05",
    ),
    "mean over pixels and beta 4, in a loss that takes 784 pixels only": (
        Foreign,
        lambda o, x, m, v: bce_mean(o, x) + 4 * kld(m, v) / 16,
        "whether it is a mean over pixels is seen by a second image beside the first",
    ),
    "one sample's log probabilities with the variance as σ": (
        Distributions,
        one_sample(weight=1, std=torch.exp),
        "by log_var the KL of one sample has derivatives that are all noise",
    ),
    "KL subtracted from an unknown likelihood": (
        Foreign,
        lambda o, x, m, v: -D.StudentT(3.0, o, 0.2).log_prob(x.flatten(1)).sum() - kld(m, v),
        "whether the whole loss is turned round cannot be told without the likelihood",
    ),
    "softplus on log_var in the encoder": (
        encoding_log_var(F.softplus),
        foreign_loss,
        "a log_var that happens to be over 0 looks like this too",
    ),
    "mu · eps · σ": (
        drawing(lambda mu, v: mu * torch.randn_like(mu) * torch.exp(0.5 * v)),
        foreign_loss,
        "z may have been turned or scaled: what it is made of fits nothing known",
    ),
    "new noise for the target": (
        Foreign,
        target(torch.rand_like),
        "a target that is drawn, as images in black and white are",
    ),
    "images upside down": (
        Foreign,
        target(lambda x: x.flip(2)),
        "a target made of the image is not known to be wrong",
    ),
    "negatives of the images": (
        Foreign,
        target(lambda x: 1 - x),
        "a target made of the image is not known to be wrong",
    ),
    "the encoder's hidden layer detached": (
        with_methods(
            encode=lambda self, x: [f(F.relu(self.fc1(x)).detach()) for f in (self.fc21, self.fc22)]
        ),
        foreign_loss,
        "mu and log_var have gradients, and a frozen layer is a choice",
    ),
}
