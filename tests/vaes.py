"""Foreign VAEs and losses, as public code writes them, without the package: tables for the tests.

HEALTHY: name -> (model, loss). BROKEN: rows (fault, name, model, loss). MISSED: likewise, with why
the inspector cannot tell in the place of the fault. WRAPPED: likewise, None being no fault.
A model takes `n_latents`, a loss (output, x, mu, log_var); images are 16, `(16, 1, 28, 28)`, in
[0, 1].
"""

import math

import torch
import torch.distributions as D
import torch.nn.functional as F
from torch import nn, randn_like

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


def std(v):
    return torch.exp(0.5 * v)


def softplus(v):
    return F.softplus(v) + 1e-6


def std_of(function):
    return drawing(lambda m, v: m + randn_like(m) * function(v))


def encoding_log_var(function):
    """Return the class whose encoder makes this of the second layer's output."""

    def encode(self, x):
        mu, v = Foreign.encode(self, x)
        return mu, function(v)

    return with_methods(encode=encode)


def encoding_sigma(z_of):
    """Return the class whose encoder gives (mu, σ), and which draws z_of(mu, σ)."""
    return type("OfSigma", (drawing(z_of), encoding_log_var(softplus)), {})


def logits(self, z):
    return self.fc4(F.relu(self.fc3(z)))


def decoding(function):
    """Return the class whose decoder ends in this instead of a sigmoid."""
    return with_methods(decode=lambda self, z: function(logits(self, z)))


def sending(function):
    """Return the class whose decoder is given function(z)."""
    return with_methods(decode=lambda self, z: Foreign.decode(self, function(z)))


Logits = with_methods(decode=logits)


def inline_forward(std=std, calls_encode=False, calls_decode=False):
    """Return the class whose forward holds all but what it is said to call."""

    def forward(self, x):
        x = x.view(-1, 784)
        mu, v = self.encode(x) if calls_encode else Foreign.encode(self, x)
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


def halved(n_in, n_out):
    convolution = nn.Conv2d(n_in, n_out, 3, stride=2, padding=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(n_out), nn.LeakyReLU())


def doubled(n_in, n_out):
    return nn.ConvTranspose2d(n_in, n_out, 3, stride=2, padding=1, output_padding=1)


class Conv(nn.Module):
    """Strided convolutions with batch normalisation and leaky ReLU, (B, channels, side, side)."""

    def __init__(self, n_latents=20, channels=1, side=28, end=nn.Sigmoid):
        super().__init__()
        shape, n_features = (16, side // 4, side // 4), side**2
        self.encoder = nn.Sequential(halved(channels, 8), halved(8, 16), nn.Flatten())
        self.fc_mu, self.fc_var = (nn.Linear(n_features, n_latents) for _ in range(2))
        self.decoder_input = nn.Linear(n_latents, n_features)
        up = nn.Sequential(doubled(16, 8), nn.BatchNorm2d(8), nn.LeakyReLU())
        self.decoder = nn.Sequential(nn.Unflatten(1, shape), up, doubled(8, channels), end())

    def encode(self, x):
        h = self.encoder(x)
        return [self.fc_mu(h), self.fc_var(h)]

    def sample(self, mu, log_var):
        return mu + torch.randn_like(mu) * std(log_var)

    def decode(self, z):
        return self.decoder(self.decoder_input(z))

    def forward(self, x):
        mu, log_var = self.encode(x)
        return self.decode(self.sample(mu, log_var)), mu, log_var


class SquareCodes(Conv):
    """z goes into the decoder as an image of one pixel."""

    def decode(self, z):
        return super().decode(z.flatten(1))

    def sample(self, mu, log_var):
        return super().sample(mu, log_var)[:, :, None, None]


class UNet(Conv):
    """The decoder's output is averaged with the encoder's first features."""

    def forward(self, x):
        image, mu, log_var = super().forward(x)
        features = self.encoder[0](x).mean(dim=1, keepdim=True)
        return (image + F.interpolate(features, scale_factor=2).sigmoid()) / 2, mu, log_var


def frozen_encoder(**options):
    """Make a model whose encoder was trained before."""
    model = Foreign(**options)
    for layer in (model.fc1, model.fc21, model.fc22):
        layer.requires_grad_(False)
    return model


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


def logits_in_decode(self, x):
    mu, v = self.encode(x.flatten(1))
    return torch.sigmoid(self.decode(self.reparameterize(mu, v))), mu, v


class DecoderHeads(Foreign):
    """mu and log_var come from the decoder's hidden layer."""

    def __init__(self, n_latents=20):
        super().__init__(n_latents)
        self.fc_mu, self.fc_var = nn.Linear(40, n_latents), nn.Linear(40, n_latents)

    def forward(self, x):
        z = self.reparameterize(*self.encode(x.flatten(1)))
        h3 = F.relu(self.fc3(z))
        return self.decode(z), self.fc_mu(h3), self.fc_var(h3)


class EncodesHidden(Foreign):
    """encode gives two tensors, but no code yet."""

    def encode(self, x):
        h1 = F.relu(self.fc1(x))
        return h1, h1

    def forward(self, x):
        h_mu, h_var = self.encode(x.flatten(1))
        mu, logvar = self.fc21(h_mu), self.fc22(h_var)
        return self.decode(self.reparameterize(mu, logvar)), mu, logvar


def output_encoded(self, x):
    output, _, _ = Foreign.forward(self, x)
    return output, *self.encode(output)


def output_encoded_too(self, x):
    """Encode the output for another term of the loss."""
    output, mu, logvar = Foreign.forward(self, x)
    self.cycle = self.encode(output)
    return output, mu, logvar


def noisy_encoded_first(self, x):
    """Encode a second view of the images for another term of the loss."""
    self.view = self.encode(x.flatten(1) + 0.1 * randn_like(x.flatten(1)))
    return Foreign.forward(self, x)


def code_of_others(self, x):
    """Return mu and log_var of other layers than those of z."""
    output, _, _ = Foreign.forward(self, x)
    h1 = F.relu(self.fc1(x.flatten(1))).flip(1)
    return output, self.fc21(h1), self.fc22(h1)


def exchanged(self, x):
    output, mu, v = Foreign.forward(self, x)
    return output, v, mu


def of_hidden(self, x):
    """Decode the encoder's hidden layer."""
    mu, v = self.encode(x.flatten(1))
    return torch.sigmoid(self.fc4(F.relu(self.fc1(x.flatten(1))))), mu, v


def hidden_detached(self, x):
    h1 = F.relu(self.fc1(x)).detach()
    return self.fc21(h1), self.fc22(h1)


# --- halves, priors and draws of other kinds ------------------------------------------------------


class Mixed(Foreign):
    """A reshape for a transpose brings features to other images."""

    def decode(self, z):
        h3 = F.relu(self.fc3(z)).t().reshape(len(z), -1)
        return torch.sigmoid(self.fc4(h3))


class Attention(Foreign):
    """The hidden layer as 5 tokens of 8: without batch_first the images are taken for tokens."""

    batch_first = True

    def __init__(self, n_latents=20):
        super().__init__(n_latents)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=self.batch_first)

    def decode(self, z):
        h = F.relu(self.fc3(z)).unflatten(1, (5, 8))
        h = h + self.attend(h, h, h, need_weights=False)[0]
        return torch.sigmoid(self.fc4(h.flatten(1)))


class Normed(Foreign):
    def __init__(self, n_latents=20):
        super().__init__(n_latents)
        self.norm, self.group = nn.LayerNorm(40), nn.GroupNorm(4, 40)

    def decode(self, z):
        return torch.sigmoid(self.fc4(self.group(F.relu(self.norm(self.fc3(z))))))


def over_the_batch(self, x):
    h1 = F.relu(self.fc1(x)).softmax(dim=0)
    return self.fc21(h1), self.fc22(h1)


def relu_on_mu(self, x):
    mu, v = Foreign.encode(self, x)
    return F.relu(mu), v


def returning_z(self, x):
    mu, v = self.encode(x.flatten(1))
    z = self.reparameterize(mu, v)
    return self.decode(z), z, v


def returning_z_in_one_piece(self, x):
    h1 = F.relu(self.fc1(x.flatten(1)))
    z = self.reparameterize(self.fc21(h1), self.fc22(h1))
    return self.decode(z), z, self.fc22(h1)


def right(mu, v):
    return mu + randn_like(mu) * std(v)


def of_variance(mu, v):
    return mu + randn_like(mu) * v.exp()


def decoding_twice(z_of, other, first=False):
    """Return the class that decodes other(mu, z) too, for another term of the loss."""

    def forward(self, x):
        mu, v = self.encode(x.flatten(1))
        z = z_of(mu, v)
        images = [self.decode(each) for each in ([other(mu, z), z] if first else [z, other(mu, z)])]
        self.preview = images[not first]
        return images[first], mu, v

    return with_methods(forward=forward)


def drawing_several(z_of, how):
    """Return the class that draws four z an image."""

    def forward(self, x):
        mu, v = self.encode(x.flatten(1))
        if how == "(draws, images, latents)":
            output = self.decode(z_of(mu.expand(4, -1, -1), v.expand(4, -1, -1))).mean(dim=0)
        elif how == "draws before images":
            output = self.decode(z_of(mu.repeat(4, 1), v.repeat(4, 1)))[: len(x)]
        elif how == "draws after images":
            z = z_of(mu.repeat_interleave(4, 0), v.repeat_interleave(4, 0))
            output = self.decode(z).unflatten(0, (-1, 4)).mean(dim=1)
        else:
            output = sum(self.decode(z_of(mu, v)) for _ in range(4)) / 4
        return output, mu, v

    return with_methods(forward=forward)


WAYS = ["(draws, images, latents)", "draws before images", "draws after images", "in a loop"]


class Spatial(nn.Module):
    """mu, log_var and z are images, (B, n_latents, 7, 7)."""

    draw = staticmethod(right)

    def __init__(self, n_latents=4):
        super().__init__()
        self.down = nn.Sequential(halved(1, 8), halved(8, 16), nn.Conv2d(16, 2 * n_latents, 1))
        up = [nn.Conv2d(n_latents, 16, 1), nn.ReLU(), doubled(16, 8), nn.ReLU(), doubled(8, 1)]
        self.decode = nn.Sequential(*up, nn.Sigmoid())

    def encode(self, x):
        return self.down(x).chunk(2, dim=1)

    def forward(self, x):
        mu, v = self.encode(x)
        return self.decode(self.draw(mu, v)), mu, v


def spatial(z_of):
    return type("Drawn", (Spatial,), {"draw": staticmethod(z_of)})


def encoding_normal(sigma, log_var_of, wrapped=lambda q: q):
    """Return the class whose encode gives a distribution, and whose forward returns this of it."""

    def encode(self, x):
        mu, v = Foreign.encode(self, x)
        return wrapped(D.Normal(mu, sigma(v)))

    def forward(self, x):
        q = self.encode(x.flatten(1))
        return self.decode(q.rsample()), q.mean, log_var_of(q)

    return with_methods(encode=encode, forward=forward)


class TwoLevel(Foreign):
    """A second code is drawn in forward; its KL is kept for the loop."""

    def __init__(self, n_latents=20, n_more=6, n_beside=0):
        super().__init__(n_latents)
        self.second, self.up = nn.Linear(40, 2 * n_more), nn.Linear(n_more, 40)
        self.fc3 = nn.Linear(n_latents + n_beside, 40)

    def draw_second(self, h1):
        mu, v = self.second(h1).chunk(2, dim=1)
        self.second_kl = kld(mu, v)
        return right(mu, v)

    def decode(self, z, second):
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z) + self.up(second))))

    def forward(self, x):
        h1 = F.relu(self.fc1(x.flatten(1)))
        mu, v = self.encode(x.flatten(1))
        return self.decode(self.reparameterize(mu, v), self.draw_second(h1)), mu, v


class SecondInDecode(TwoLevel):
    forward = Foreign.forward

    def encode(self, x):
        self.h1 = F.relu(self.fc1(x))
        return super().encode(x)

    def decode(self, z):
        return super().decode(z, self.draw_second(self.h1))


class SecondBeside(TwoLevel):
    """Both codes go into the decoder as one."""

    def __init__(self, n_latents=20):
        super().__init__(n_latents, n_beside=6)

    def decode(self, z, second):
        return Foreign.decode(self, torch.cat([z, second], dim=1))


class FeaturesBeside(SecondBeside):
    def draw_second(self, h1):
        return self.second(h1)[:, :6]


class SkipHidden(Foreign):
    """A hidden layer is kept by encode, and added in decode."""

    def encode(self, x):
        self.h1 = F.relu(self.fc1(x))
        return self.fc21(self.h1), self.fc22(self.h1)

    def decode(self, z):
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z)) + self.h1))


def under_autocast(kind):
    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return kind.forward(self, x)

    return type("Autocast", (kind,), {"forward": forward})


def compiled(kind):
    return lambda **options: torch.compile(kind(**options), backend="eager")


def compiled_in_place(kind):
    def make(**options):
        model = kind(**options)
        model.compile(backend="eager")
        return model

    return make


def parallel(kind):
    return lambda **options: nn.DataParallel(kind(**options))


# --- losses ---------------------------------------------------------------------------------------


def kld(mu, logvar):
    return -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())


def kld_mean(mu, logvar):
    return -0.5 * torch.mean(1 + logvar - mu.pow(2) - logvar.exp())


def kld_of_image(mu, logvar):
    return kld(mu, logvar) / len(mu)


def bce(recon_x, x, reduction="sum"):
    """For 784 pixels only, as in the example."""
    return F.binary_cross_entropy(recon_x, x.view(-1, 784), reduction=reduction)


def bce_mean(o, x):
    return bce(o, x, "mean")


def bce_per_image(o, x):
    return F.binary_cross_entropy(o, x.reshape(o.shape), reduction="none").flatten(1).sum(dim=1)


def bce_of_image(o, x):
    return bce_per_image(o, x).mean()


def mse(o, x, reduction="sum"):
    return F.mse_loss(o, x.reshape(o.shape), reduction=reduction)


def mse_mean(o, x):
    return mse(o, x, "mean")


def mae(o, x, reduction="sum"):
    return F.l1_loss(o, x.reshape(o.shape), reduction=reduction)


def sum_of(recon, kl, weight=1.0):
    return lambda o, x, m, v: recon(o, x) + weight * kl(m, v)


def foreign_loss(recon_x, x, mu, logvar):
    return bce(recon_x, x) + kld(mu, logvar)


def bce_logits(o, x, m, v):
    return F.binary_cross_entropy_with_logits(o, x.flatten(1), reduction="sum") + kld(m, v)


def target(change):
    """Return the loss beside change(x)."""
    return lambda o, x, m, v: foreign_loss(o, change(x), m, v)


def with_kl(kl, weight=1.0):
    return sum_of(bce, kl, weight)


def with_recon(recon):
    return sum_of(recon, kld)


def capacity(limit, weight):
    return with_kl(lambda m, v: (kld_of_image(m, v) - limit).abs(), weight)


def per_image(o, x, m, v):
    kl = -0.5 * (1 + v - m**2 - v.exp()).sum(dim=1)
    return bce_per_image(o.clamp(1e-6, 1 - 1e-6), x) + kl


def free_bits(o, x, m, v):
    each = -0.5 * (1 + v - m**2 - v.exp())
    return bce_mean(o, x) * 784 + each.mean(0).clamp(min=0.5).sum()


def one_sample(sign=1, weight=0.1, std=std):
    """Return a loss whose KL, and its derivatives, are those of a sample of its own."""

    def loss(o, x, m, v):
        p, q = D.Normal(torch.zeros_like(m), torch.ones_like(m)), D.Normal(m, std(v))
        z = q.rsample()
        kl = (q.log_prob(z) - p.log_prob(z)).sum(-1).mean()
        return mse(o, x) / len(x) + sign * weight * kl

    return loss


def of_likelihood(p, weight=1.0):
    """Return -log p(x) of the pixels + KL, p(output) being a distribution."""
    return sum_of(lambda o, x: -p(o).log_prob(x.flatten(1)).sum(), kld, weight)


def of_sigma(sigma=lambda s: s):
    """Return the loss whose KL takes sigma(second output of the encoder) for σ."""
    return with_kl(lambda m, s: D.kl_divergence(D.Normal(m, sigma(s)), D.Normal(0.0, 1.0)).sum())


def alike(sigma):
    """Return a model and a loss that take what is called log_var for σ = sigma(log_var)."""
    return std_of(sigma), of_sigma(sigma)


def half_mu_squared(mu, log_var):
    return 0.5 * mu.square().sum()


def optimal_sigma(o, x):
    """A Gaussian whose σ is the root mean square error of the batch."""
    log_sigma = mse(o, x, "mean").sqrt().log()
    return (0.5 * ((o - x.flatten(1)) / log_sigma.exp()) ** 2 + log_sigma).sum()


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

    calls = 0

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
    return mse(o, x, "mean") + 10 * penalty


def weighted_pixels(o, x):
    how = {"reduction": "sum", "pos_weight": torch.tensor(3.0)}
    return F.binary_cross_entropy_with_logits(o, x.flatten(1), **how)


def brought_to_tanh(o, x):
    return mse(o, 2 * x - 1)


def kl_each(mu, log_var):
    return 0.5 * (mu**2 + log_var.exp() - 1 - log_var)


def bce_broadcast(o, x):
    o, x = o.clamp(1e-6, 1 - 1e-6), x.flatten(2)
    return -(x * o.log() + (1 - x) * (1 - o).log()).sum() / len(x)


def beside_a_column(o, x, m, v):
    """(B,) beside (B, 1) makes (B, B)."""
    return (bce_per_image(o, x) + kl_each(m, v).sum(dim=1, keepdim=True)).sum()


def dip(o, x, m, v, of_sigma=0):
    """The KL and penalties on the covariance of the batch's codes, DIP-VAE-I's or II's."""
    covariance = torch.cov(m.t()) + of_sigma * torch.diag(v.exp().mean(dim=0))
    own = covariance.diagonal()
    others = covariance - torch.diag(own)
    penalty = 10 * others.square().sum() + 5 * (own - 1).square().sum()
    return bce_of_image(o, x) + kld_of_image(m, v) + penalty


def beside_prior(mean, scale, sigma=std):
    """Return the KL to N(mean, scale²)."""
    return lambda m, v: D.kl_divergence(D.Normal(m, sigma(v)), D.Normal(mean, scale)).sum()


def prior_of_dimensions(m, v):
    along = torch.linspace(-1, 1, m.shape[1]).to(m)
    return beside_prior(0.5 * along, (0.4 * along).exp())(m, v)


class LearnedPrior(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean, self.log_scale = (nn.Parameter(torch.tensor(at)) for at in (0.3, 0.2))

    def forward(self, o, x, m, v):
        return bce(o, x) + beside_prior(self.mean, self.log_scale.exp())(m, v)


class LearnedBeta(nn.Module):
    def __init__(self):
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(1.5))

    def forward(self, o, x, m, v):
        return bce(o, x) + self.beta * kld(m, v)


class OwnSigma(nn.Module):
    """A Gaussian with a σ of its own, one or one a pixel; its log may be left out."""

    def __init__(self, n=784, log=True, kl_weight=1):
        super().__init__()
        self.log, self.kl_weight = log, kl_weight
        self.log_scale = nn.Parameter(torch.linspace(-1, -0.3, n))

    def forward(self, o, x, m, v):
        each = 0.5 * ((o - x.flatten(1)) / self.log_scale.exp()) ** 2 + self.log * self.log_scale
        return each.sum(dim=1).mean() + self.kl_weight * kld_of_image(m, v)


def to_a_mixture(o, x, m, v):
    """The KL to a mixture of normals, of one sample."""
    q = D.Normal(m, std(v))
    z = q.rsample()
    means = torch.linspace(-2, 2, 5).to(z)
    log_p = D.Normal(means, torch.ones_like(means)).log_prob(z[..., None]).logsumexp(dim=-1)
    return bce(o, x) + (q.log_prob(z) - log_p).sum()


# --- healthy --------------------------------------------------------------------------------------

LOSSES = {  # beside the example's model
    "the example": foreign_loss,
    "scalar, mean over the batch": lambda o, x, m, v: foreign_loss(o, x, m, v) / len(x),
    "one value an image": per_image,
    "one value an image, as a column": lambda *a: per_image(*a)[:, None],
    "one value in a list": lambda *a: foreign_loss(*a)[None],
    "ELBO less a constant": lambda *a: foreign_loss(*a) - 1e5,
    "sum divided by 128, the KL a mean": sum_of(lambda o, x: bce(o, x) / 128, kld_of_image),
    "mean over pixels, KL divided by as many": sum_of(bce_mean, kld, 1 / (16 * 784)),
    "cross-entropy times 784": sum_of(lambda o, x: 784 * bce_mean(o, x), kld_of_image),
    "mean squared error with a small weight": sum_of(mse_mean, kld_of_image, 0.0025),
    "beta 20 and latent size 20, batch 16": with_kl(kld, 20),
    "beta 1/25": with_kl(kld, 1 / 25),
    "half squared error": with_recon(lambda o, x: 0.5 * mse(o, x)),
    "free bits": free_bits,
    "capacity of 1000": capacity(1000, weight=100),
    "capacity not yet reached": capacity(1e6, weight=30),
    "capacity, squared": with_kl(lambda m, v: (kld_of_image(m, v) - 25) ** 2, 5),
    "capacity, an image at a time": with_kl(
        lambda m, v: ((m**2 + v.exp() - 1 - v).sum(1) / 2 - 25).square().sum()
    ),
    "capacity never reached, absolute error": sum_of(mae, lambda m, v: (kld(m, v) - 1e9).abs(), 10),
    "a KL over a limit only": with_kl(lambda m, v: F.relu(kld_of_image(m, v) - 10), 1000),
    "log_var clamped in the KL": with_kl(lambda m, v: kld(m, v.clamp(-10, 1))),
    "one sample's log probabilities": one_sample(),
    "total correlation": total_correlation,
    "KL warm-up": WarmUp(),
    "KL warm-up at its start": with_kl(kld, 0),
    "a penalty on samples, no KL": mmd,
    "ELBO of an unknown likelihood": lambda *a: (
        -of_likelihood(lambda o: D.StudentT(4.0, o, 0.1))(*a)
    ),
    "a learned scale": LearnedScale(),
    "the best σ for the batch": with_recon(optimal_sigma),
    "(B,) beside (B, 1), over B": lambda o, x, m, v: beside_a_column(o, x, m, v) / len(x),
    "DIP-VAE-I": dip,
    "DIP-VAE-II": lambda *a: dip(*a, of_sigma=1),
    "a learned prior": LearnedPrior(),
    "N(1, 1) as prior": with_kl(lambda m, v: kld(m - 1, v)),
    "N(0, 4) as prior": with_kl(beside_prior(0.0, 2.0)),
    "a prior a dimension": with_kl(prior_of_dimensions),
    "a mixture as prior, one sample": to_a_mixture,
    "a learned beta": LearnedBeta(),
    "beta 25, squared error": sum_of(mse, kld, 25),
    "free bits of each image's dimensions": with_kl(
        lambda m, v: kl_each(m, v).clamp(min=0.1).sum()
    ),
    "free bits of each image": with_kl(lambda m, v: kl_each(m, v).sum(dim=1).clamp(min=8).sum()),
    "images drawn black and white": target(torch.bernoulli),
    "images cut to black and white": target(torch.round),
}
MODELS = {  # beside the example's loss
    "samples in training only": WithSampler,
    "forward in one piece": inline_forward(),
    "forward calls encode only": inline_forward(calls_encode=True),
    "forward calls decode only": inline_forward(calls_decode=True),
    "decode returns logits, forward probabilities": with_methods(
        decode=logits, forward=logits_in_decode
    ),
    "q is a distribution": drawing(lambda m, v: D.Normal(m, torch.exp(v / 2)).rsample()),
    "a frozen encoder": frozen_encoder,
    "a variance that is fixed": encoding_log_var(torch.zeros_like),
    "one variance for all dimensions": encoding_log_var(lambda v: v[:, :1].expand_as(v)),
    "log_var clamped in the encoder": encoding_log_var(lambda v: v.clamp(-6, 2)),
    "z turned by a flow": Flow,
    "z on a sphere": sending(F.normalize),
    "z on a sphere before it is decoded": drawing(
        lambda m, v: F.normalize(m + randn_like(m) * std(v))
    ),
    "z moved by 1": drawing(lambda m, v: m + 1 + randn_like(m) * std(v)),
    "the output is encoded too": with_methods(forward=output_encoded_too),
    "a second view is encoded first": with_methods(forward=noisy_encoded_first),
    "encode gives hidden layers": EncodesHidden,
    "dropout on z": drawing(lambda m, v: F.dropout(m + randn_like(m) * std(v), 0.2)),
    "layer and group norms": Normed,
    "attention within an image": Attention,
    "two levels, the second drawn in forward": TwoLevel,
    "two levels, the second drawn in decode": SecondInDecode,
    "two levels, both codes in one": SecondBeside,
    "decode called for mu too": decoding_twice(right, lambda m, z: m),
    "decode called for mu first": decoding_twice(right, lambda m, z: m, first=True),
    "decode called for the prior first": decoding_twice(right, lambda m, z: z * 0 + 1, first=True),
    **{f"several draws, {how}": drawing_several(right, how) for how in WAYS},
    "encode gives a Normal": encoding_normal(std, lambda q: q.variance.log()),
    "encode gives an Independent": encoding_normal(
        std, lambda q: q.variance.log(), lambda q: D.Independent(q, 1)
    ),
    "in place, on copies": drawing(lambda m, v: randn_like(m).mul_(v.mul(0.5).exp_()).add_(m)),
    "noise on the images that go in": with_methods(
        encode=lambda self, x: Foreign.encode(self, x + 0.2 * randn_like(x))
    ),
}
HEALTHY = {
    **{name: (Foreign, loss) for name, loss in LOSSES.items()},
    **{name: (model, foreign_loss) for name, model in MODELS.items()},
    # what is called log_var is something else, for model and loss alike
    "log σ all through": (std_of(torch.exp), with_kl(lambda m, v: kld(m, 2 * v))),
    "one sample's KL, with log σ": (std_of(torch.exp), one_sample(weight=1, std=torch.exp)),
    "σ all through": (
        encoding_sigma(lambda m, s: D.Independent(D.Normal(m, s), 1).rsample()),
        of_sigma(),
    ),
    "σ² all through": (
        encoding_sigma(lambda m, v: m + randn_like(m) * v.sqrt()),
        of_sigma(torch.sqrt),
    ),
    "softplus all through": alike(softplus),
    "softplus + 0.1 all through": alike(lambda v: F.softplus(v) + 0.1),
    "elu + 1 all through": alike(lambda v: F.elu(v) + 1),
    "2·sigmoid all through": alike(lambda v: 2 * v.sigmoid()),
    "the precision's logarithm all through": alike(lambda v: torch.exp(-v / 2)),
    "σ clamped all through": alike(lambda v: std(v).clamp(0.5, 1.2)),
    "a σ that is fixed and left out of the KL": (
        encoding_log_var(lambda v: torch.full_like(v, -3)),
        with_kl(half_mu_squared),
    ),
    # convolutions, as public code writes them
    "convolutions, means and 0.00025": (Conv, sum_of(mse_mean, kld_of_image, 0.00025)),
    "convolutions, sums over all but the batch": (Conv, sum_of(bce_of_image, kld_of_image)),
    "z as an image of one pixel": (SquareCodes, with_recon(mse)),
    "capacity 25, means, 1000 · 0.005": (
        Conv,
        sum_of(mse_mean, lambda m, v: (kld_of_image(m, v) - 25).abs(), 1000 * 0.005),
    ),
    "means and 1e-6, as before a diffusion": (Conv, sum_of(mse_mean, kld_of_image, 1e-6)),
    "spatial latents": (Spatial, with_recon(mse)),
    "N(0, 4) as prior, log σ all through": (
        std_of(torch.exp),
        with_kl(beside_prior(0.0, 2.0, torch.exp)),
    ),
    # outputs that are no probabilities
    "a learned σ a pixel": (Logits, OwnSigma()),
    "Gaussian with a scale of 0.02": (Logits, of_likelihood(lambda o: D.Normal(o, 0.02))),
    "a learned σ": (Logits, OwnSigma(1)),
    "logits that are all 0": (zero_start, bce_logits),
    "Laplace": (Logits, of_likelihood(lambda o: D.Laplace(o, 0.3))),
    "Student's t": (Logits, of_likelihood(lambda o: D.StudentT(3.0, o, 0.2))),
    "continuous Bernoulli": (Logits, of_likelihood(lambda o: D.ContinuousBernoulli(logits=o))),
    "Gaussian with a fixed scale": (Logits, of_likelihood(lambda o: D.Normal(o, 0.1))),
    "cross-entropy of weighted pixels": (Logits, with_recon(weighted_pixels)),
    "tanh, and images brought to [-1, 1]": (decoding(torch.tanh), with_recon(brought_to_tanh)),
}

# --- broken ---------------------------------------------------------------------------------------

BROKEN_LOSSES = {  # beside the example's model
    "wrong sign of the KL": {
        "KL subtracted": sum_of(lambda o, x: 2 * bce_mean(o, x) * 784, kld_of_image, -1),
        "one sample's log probabilities turned round": one_sample(sign=-1, weight=1),
    },
    "mean for sum": {
        "mean over pixels, sum over all": with_recon(bce_mean),
        "KL times 28²": with_kl(kld, 784),
        "mean over pixels, beta 4": sum_of(
            lambda o, x: F.binary_cross_entropy(o, x.flatten(1)), kld, 4 / 16
        ),
        "mean squared error, sum over all": with_recon(
            lambda o, x: F.mse_loss(o, x.view(-1, 784))  # refuses any other number of pixels
        ),
        "mean squared error, mean over images": sum_of(mse_mean, kld, 1 / 16),
        "mean absolute error": with_recon(lambda o, x: mae(o, x, "mean")),
        "mean of both": sum_of(bce_mean, kld_mean),
        "mean over latents": with_kl(kld_mean, 16),
        "mean over latents, beta ½": with_kl(kld_mean, 16 / 2),
        "KL divided by batch times latents": with_kl(lambda m, v: kld(m, v) / m.numel()),
        "KL divided by batch times pixels": with_kl(kld_of_image, 1 / 784),
        "KL divided by the numbers of batch times pixels": with_kl(kld, 1 / (16 * 784)),
        "KL divided by the number of pixels": sum_of(bce_of_image, kld_of_image, 1 / 784),
    },
    "KL formula": {
        "mu not squared": with_kl(lambda m, v: kld(0 * m, v) + m.sum()),
        "mu² without its ½": with_kl(lambda m, v: (m**2).sum() + kld(0 * m, v)),
        "the sign of mu²": with_kl(lambda m, v: -0.5 * torch.sum(1 + v + m**2 - v.exp())),
        "the sign of log_var": with_kl(lambda m, v: -0.5 * torch.sum(1 - v - m**2 - v.exp())),
        "exp(½ log_var)": with_kl(lambda m, v: -0.5 * torch.sum(1 + v - m**2 - std(v))),
        "the loss takes log_var for σ, the noise does not": with_kl(
            lambda m, v: 0.5 * torch.sum(m**2 + v**2 - 1 - torch.log(v**2))
        ),
        "mu and log_var exchanged": with_kl(lambda m, v: kld(v, m)),
        "log_var left out": with_kl(half_mu_squared),
        "log_var detached": with_kl(lambda m, v: kld(m, v.detach())),
        "|mu| for mu²": with_kl(lambda m, v: m.abs().sum() + kld(0 * m, v)),
        "elu + 1 for σ, which the noise does not have": of_sigma(lambda v: F.elu(v) + 1),
        "KL the wrong way round": with_kl(
            lambda m, v: D.kl_divergence(D.Normal(0 * m, 1 + 0 * m), D.Normal(m, std(v))).sum()
        ),
    },
    "KL without gradient": {
        "item()": with_kl(lambda m, v: kld(m, v).item()),
        "KL under no_grad": with_kl(torch.no_grad()(kld)),
    },
    "swapped arguments": {
        "cross-entropy the wrong way round": with_recon(
            lambda o, x: F.binary_cross_entropy(x.flatten(1), o, reduction="sum")
        ),
    },
    "wrong target": {
        "images shuffled": target(lambda x: x[torch.randperm(len(x))]),
        "zeros": target(torch.zeros_like),
        "the first image": target(lambda x: x[:1].expand_as(x)),
    },
    "wrong range": {
        "images brought to [-1, 1] beside a sigmoid": with_recon(brought_to_tanh),
    },
    "sigmoid twice": {
        "a sigmoid in decode and one in the loss": bce_logits,
        "a sigmoid in decode and one in the squared error": with_recon(
            lambda o, x: mse(o.sigmoid(), x)
        ),
    },
    "gradient cut": {"the output detached": with_recon(lambda o, x: bce(o.detach(), x))},
    "shapes broadcast": {
        "(B, 784) beside (B, 1, 784)": with_recon(
            lambda o, x: F.mse_loss(o, x.flatten(2), reduction="sum")
        ),
        "the mean of it": sum_of(lambda o, x: 784 * F.mse_loss(o, x.flatten(2)), kld_of_image),
        "cross-entropy by hand": sum_of(bce_broadcast, kld_of_image),
        "(B,) beside (B, 1), summed": beside_a_column,
    },
    "free bits turned round": {
        "of the batch": sum_of(
            bce_of_image, lambda m, v: kl_each(m, v).mean(0).clamp(max=0.5).sum()
        ),
        "of each image": with_kl(lambda m, v: kl_each(m, v).clamp(max=0.25).sum()),
    },
    "beta far from 1": {
        "100": with_kl(kld, 100),
        "1e-5": with_kl(kld, 1e-5),
        "the KL over 60,000 images": sum_of(bce_of_image, kld_of_image, 1 / 60000),
        "a mean over pixels and a tenth": sum_of(
            lambda o, x: F.binary_cross_entropy(o, x.flatten(1)), kld_of_image, 0.1
        ),
        "a mean over pixels and a tenth, of 784 only": sum_of(bce_mean, kld_of_image, 0.1),
        "a mean over pixels and beta 4": sum_of(bce_mean, kld, 4 / 16),
    },
}
BROKEN_DRAWS = {  # how z is drawn, beside the example's loss
    "log_var used as sigma": {
        "log_var as σ": lambda m, v: m + randn_like(m) * v,
        "½ log_var as σ": lambda m, v: m + randn_like(m) * 0.5 * v,
        "|log_var|^½ as σ": lambda m, v: m + randn_like(m) * v.abs().sqrt(),
    },
    "variance used as sigma": {
        "the variance as σ": lambda m, v: m + randn_like(m) * v.exp(),
    },
    "log_var ignored": {"mu + eps": lambda m, v: m + randn_like(m)},
    "no noise": {"mu alone": lambda m, v: m},
    "noise that is not N(0, I)": {
        "exp(½·) twice": lambda m, v: m + randn_like(m) * std(std(v)),
        "ReLU on log_var": lambda m, v: m + randn_like(m) * std(F.relu(v)),
        "noise of a tenth": lambda m, v: m + randn_like(m) * 0.1 * std(v),
        "rand for randn": lambda m, v: m + torch.rand_like(v) * std(v),
        "rand from -1 to 1": lambda m, v: m + (2 * torch.rand_like(v) - 1) * std(v),
        "rand of variance 1": lambda m, v: m + 12**0.5 * (torch.rand_like(v) - 0.5) * std(v),
        "rand, and the variance as σ": lambda m, v: m + torch.rand_like(v) * v.exp(),
        "rand, and log_var ignored": lambda m, v: m + torch.rand_like(v),
        "|eps|, and |log_var|^½ as σ": lambda m, v: m + randn_like(m).abs() * v.abs().sqrt(),
        "±1 for randn, and the variance as σ": lambda m, v: m + randn_like(m).sign() * v.exp(),
        "a tenth of |log_var|^½": lambda m, v: m + randn_like(m) * 0.1 * v.abs().sqrt(),
        "|eps|": lambda m, v: m + randn_like(m).abs() * std(v),
        "one eps for the batch": lambda m, v: m + randn_like(m[0]) * std(v),
        "one number of eps": lambda m, v: m + randn_like(m[0, 0]) * std(v),
        "one eps for all dimensions": lambda m, v: m + randn_like(m[:, :1]) * std(v),
        "eps of a seed": lambda m, v: (
            m + torch.randn(m.shape, generator=torch.Generator().manual_seed(1)).to(m) * std(v)
        ),
        "mu + σ": lambda m, v: m + std(v),
        "mu + eps + σ²": lambda m, v: m + randn_like(m) + v.exp(),
        "mu + eps + σ": lambda m, v: m + randn_like(m) + std(v),
        "mu · eps + σ": lambda m, v: m * randn_like(m) + std(v),
        "mu and log_var exchanged when z is drawn": lambda m, v: v + randn_like(m) * std(m),
    },
    "gradient cut": {
        "mu.data": lambda m, v: m.data + randn_like(v) * std(v),
        "σ detached": lambda m, v: m + randn_like(v) * std(v).detach(),
        "under no_grad": torch.no_grad()(right),
        "sample for rsample": lambda m, v: D.Normal(m, std(v)).sample(),
        "torch.normal": lambda m, v: torch.normal(m, std(v)),
    },
}
BROKEN_MODELS = {  # the rest of the model, beside the example's loss
    "log_var used as sigma": {
        "in a forward that calls decode only": inline_forward(lambda v: v, calls_decode=True),
    },
    "no noise": {
        "in a forward that calls decode only": inline_forward(torch.zeros_like, calls_decode=True),
    },
    "noise that is not N(0, I)": {
        "forward returns mu and log_var exchanged": with_methods(forward=exchanged),
    },
    "wrong range": {
        "logits, where the loss takes probabilities": Logits,
        "tanh, where the loss takes probabilities": decoding(torch.tanh),
        "ReLU on log_var in the encoder": encoding_log_var(F.relu),
        "softplus on log_var in the encoder": encoding_log_var(F.softplus),
        "a sigmoid on log_var in the encoder": encoding_log_var(torch.sigmoid),
        "the variance called log_var": encoding_log_var(torch.exp),
        "ReLU on mu": with_methods(encode=relu_on_mu),
        "a softmax over pixels": decoding(lambda o: o.softmax(dim=1)),
        "log_var clamped at 0.3": encoding_log_var(lambda v: v.clamp(0.3, 5)),
    },
    "KL of another code": {
        "heads of the decoder": DecoderHeads,
        "the output is encoded": with_methods(forward=output_encoded),
        "z returned for mu": with_methods(forward=returning_z),
        "z returned for mu, in one piece": with_methods(forward=returning_z_in_one_piece),
    },
    "images mixed": {
        "a reshape for a transpose": Mixed,
        "attention without batch_first": type("Turned", (Attention,), {"batch_first": False}),
        "codes rolled by one": sending(lambda z: z.roll(1, 0)),
        "codes added up along the batch": sending(lambda z: z.cumsum(0) / 2),
        "z taken for (latents, images)": sending(lambda z: z.reshape(z.shape[::-1]).t()),
        "a softmax over the batch in the encoder": with_methods(encode=over_the_batch),
    },
    "past z": {"a hidden layer kept and added": SkipHidden, "features beside z": FeaturesBeside},
    "variance used as sigma": {
        "decode called for mu too": decoding_twice(of_variance, lambda m, z: m),
        "decode called for mu first": decoding_twice(of_variance, lambda m, z: m, first=True),
        "decode called for the prior too": decoding_twice(of_variance, lambda m, z: randn_like(z)),
        **{f"several draws, {how}": drawing_several(of_variance, how) for how in WAYS},
        "encode gives a Normal": encoding_normal(torch.exp, lambda q: q.scale.log()),
        "encode gives an Independent": encoding_normal(
            torch.exp, lambda q: q.base_dist.scale.log(), lambda q: D.Independent(q, 1)
        ),
    },
    "sigmoid twice": {"two sigmoids in decode": decoding(lambda o: o.sigmoid().sigmoid())},
    "log_var is mu": {
        "the same layer twice": with_methods(
            encode=lambda self, x: 2 * (Foreign.encode(self, x)[0],)
        ),
    },
    "gradient cut": {
        "encoder under no_grad": with_methods(encode=torch.no_grad()(Foreign.encode)),
    },
    "z unused": {
        "the decoder takes the hidden layer": with_methods(forward=of_hidden),
        "the decoder's z is multiplied by 0": sending(torch.zeros_like),
    },
}
BROKEN_PAIRS = {
    "shapes broadcast": {
        "(B, 28, 28) beside (B, 1, 28, 28)": (
            decoding(lambda o: o.sigmoid().unflatten(1, (28, 28))),
            with_recon(lambda o, x: (o - x).square().sum()),
        ),
    },
    "log σ forgotten": {
        "of one σ": (Logits, OwnSigma(1, log=False)),
        "of a σ a pixel": (Logits, OwnSigma(log=False)),
    },
    "wrong sign of the KL": {
        "beside a σ a pixel": (Logits, OwnSigma(kl_weight=-1)),
        "beside Student's t": (
            Logits,
            of_likelihood(lambda o: D.StudentT(3.0, o, 0.2), weight=-1),
        ),
    },
    "no noise": {"spatial latents": (spatial(lambda m, v: m), with_recon(mse))},
    "noise that is not N(0, I)": {
        "one eps for the batch, spatial latents": (
            spatial(lambda m, v: m + randn_like(m[:1]) * std(v)),
            with_recon(mse),
        ),
    },
    "mean for sum": {
        "mean over latents and images, convolutions": (Conv, sum_of(bce_of_image, kld_mean)),
    },
    "swapped arguments": {
        "cross-entropy the wrong way round, convolutions": (
            Conv,
            with_recon(
                lambda o, x: -(o * torch.log(x + 1e-8) + (1 - o) * torch.log(1 - x + 1e-8)).sum()
            ),
        ),
        "cross-entropy of logits the wrong way round": (
            Logits,
            with_recon(
                lambda o, x: F.binary_cross_entropy_with_logits(x.flatten(1), o, reduction="sum")
            ),
        ),
    },
    "wrong target": {
        "another image, squared error": (Conv, with_recon(lambda o, x: mse(o, x.flip(0)))),
    },
    "wrong range": {
        "logits, clamped": (Logits, with_recon(lambda o, x: bce(o.clamp(1e-6, 1 - 1e-6), x))),
        "tanh, where the loss takes logits": (decoding(torch.tanh), bce_logits),
        "ReLU, where the loss takes logits": (decoding(F.relu), bce_logits),
        "log-probabilities, where the loss takes logits": (decoding(F.logsigmoid), bce_logits),
        "ReLU on log σ in the encoder": (
            type("OfLogSigma", (std_of(torch.exp), encoding_log_var(F.relu)), {}),
            with_kl(lambda m, v: kld(m, 2 * v)),
        ),
        "images standardised beside a cross-entropy": (
            Logits,
            lambda o, x, m, v: bce_logits(o, (x - 0.1307) / 0.3081, m, v),
        ),
    },
    "variance used as sigma": {
        "spatial latents": (spatial(of_variance), with_recon(mse)),
        "the variance as a distribution's scale": (
            drawing(lambda mu, v: D.Normal(mu, v.exp()).rsample()),
            of_likelihood(lambda o: D.Normal(o, 1.0)),
        ),
    },
    "past z": {
        "the encoder's features in the output": (UNet, sum_of(bce_of_image, kld_of_image)),
    },
}


def rows(table, pair):
    """Return (fault, name, model, loss) of each case, pair(case) being its model and loss."""
    return [
        (fault, name, *pair(case)) for fault, cases in table.items() for name, case in cases.items()
    ]


BROKEN = [
    *rows(BROKEN_LOSSES, lambda loss: (Foreign, loss)),
    *rows(BROKEN_DRAWS, lambda z_of: (drawing(z_of), foreign_loss)),
    *rows(BROKEN_MODELS, lambda model: (model, foreign_loss)),
    *rows(BROKEN_PAIRS, lambda pair: pair),
]

# --- what cannot be told --------------------------------------------------------------------------

MISSED_PAIRS = {
    "of a forward that calls neither half no z is seen": {
        "a decoder that is never called": (
            with_methods(
                forward=lambda self, x: (
                    torch.sigmoid(self.fc4(F.relu(self.fc1(x.flatten(1))))),
                    *Foreign.encode(self, x.flatten(1)),
                )
            ),
            foreign_loss,
        ),
        "log_var as σ": (inline_forward(lambda v: v), foreign_loss),
    },
    "it is another beta, in value and derivative": {
        "KL without its ½": (Foreign, with_kl(kld, 2)),
        "KL divided by the number of latents, 20": (
            Foreign,
            sum_of(lambda o, x: bce(o, x) / len(x), kld_of_image, 1 / 20),
        ),
    },
    "by log_var the KL of one sample has derivatives that are all noise": {
        "the variance as σ": (Foreign, one_sample(weight=1, std=torch.exp)),
    },
    "of weighted logits it is not clear whether the loss falls as they near the image": {
        "KL subtracted": (Logits, sum_of(weighted_pixels, kld, -1)),
    },
    "an end that log_var seldom comes to is not seen": {
        "|log_var|": (encoding_log_var(torch.abs), foreign_loss),
    },
    "mu may be what encode gave, if it is the same in every run": {
        "mu and log_var of other layers": (with_methods(forward=code_of_others), foreign_loss),
    },
    "a limit to the KL is a choice, as free bits are": {
        "no gradient over 1000": (Foreign, with_kl(lambda m, v: kld(m, v).clamp(max=1000))),
    },
    "it is another likelihood, which is not known here": {
        "the root of the squared error": (Foreign, with_recon(lambda o, x: mse(o, x).sqrt())),
    },
    "z may have been turned or scaled: what it is made of fits nothing known": {
        "mu · eps · σ": (drawing(lambda m, v: m * randn_like(m) * std(v)), foreign_loss),
    },
    "a target made of the image, or drawn, is not known to be wrong": {
        "new noise": (Foreign, target(torch.rand_like)),
        "upside down": (Foreign, target(lambda x: x.flip(2))),
        "negatives": (Foreign, target(lambda x: 1 - x)),
    },
    "mu and log_var have gradients, and a frozen layer is a choice": {
        "the hidden layer detached": (with_methods(encode=hidden_detached), foreign_loss),
    },
}
MISSED = rows(MISSED_PAIRS, lambda pair: pair)

# --- wrapped --------------------------------------------------------------------------------------


def of_float32(recon, kl_weight=1):
    """Return the loss of (output, x), and the KL, of float32."""
    return lambda *a: sum_of(recon, kld, kl_weight)(*(each.float() for each in a))


VarianceDrawn = drawing(of_variance)
WRAPPED = [
    (fault, f"{name}, {fault or 'healthy'}", wrap(kind), foreign_loss)
    for name, wrap in {
        "compiled": compiled,
        "compiled in place": compiled_in_place,
        "parallel": parallel,
        "parallel and compiled": lambda kind: compiled(parallel(kind)),
        "half": lambda kind: lambda **options: kind(**options).half(),
        "bfloat16": lambda kind: lambda **options: kind(**options).bfloat16(),
    }.items()
    for fault, kind in [(None, Foreign), ("variance used as sigma", VarianceDrawn)]
] + [
    (None, "autocast", under_autocast(Logits), bce_logits),
    (None, "autocast, the loss of float32", under_autocast(Foreign), of_float32(bce)),
    ("wrong sign of the KL", "autocast", under_autocast(Foreign), of_float32(bce, -1)),
    ("mean for sum", "autocast", under_autocast(Logits), of_float32(lambda o, x: mse(o, x) / 784)),
]
