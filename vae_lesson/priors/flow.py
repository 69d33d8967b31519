"""A learned prior: a velocity that carries N(0, I) at t = 0 to the codes of images at t = 1.

Codes are `(B, latent_size)`; a time t is `(B, 1)`; y is a one-hot label `(B, n_classes)`, and zeros
for none. Every velocity here is a function v(z, t) of codes and times to `(B, latent_size)`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae_lesson.latent import lerp
from vae_lesson.losses import squared_error

Velocity = Callable[[Tensor, Tensor], Tensor]


class VelocityField(nn.Module):
    """(z, t, y) -> v: which way, and how fast, a code z moves at the time t, if y is wanted."""

    def __init__(self, latent_size: int = 20, n_classes: int = 0, hidden_size: int = 256) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.enter = nn.Linear(latent_size + 4 + n_classes, hidden_size)
        layers = (nn.Linear(hidden_size, hidden_size) for _ in range(3))
        self.blocks = nn.ModuleList(nn.Sequential(nn.GELU(), layer) for layer in layers)
        self.leave = nn.Sequential(nn.GELU(), nn.Linear(hidden_size, latent_size))

    def forward(self, z: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the velocity, `(B, latent_size)`."""
        y = z.new_zeros((len(z), self.n_classes)) if y is None else y
        waves = [f(torch.pi * k * t) for k in (1, 2) for f in (torch.sin, torch.cos)]
        h = self.enter(torch.cat([z, *waves, y], dim=1))  # (B, hidden_size)
        for block in self.blocks:
            h = h + block(h)
        return self.leave(h)


def matching_loss(velocity: Velocity, z1: Tensor, z0: Tensor, t: Tensor) -> Tensor:
    """Return |v(z_t, t) - (z1 - z0)|², z_t = (1 - t) z0 + t z1 on the line from noise to code.

    Its least value is no 0: many lines cross a place, and the best v is their mean direction.

    Shapes: codes z1 and noise z0 `(B, latent_size)`, t `(B, 1)` -> `(B,)`. No unit of information.
    Source: Lipman et al. 2023, eq. 23 with σ_min = 0; Liu et al. 2023, eq. 1.
    """
    return squared_error(velocity(lerp(z0, z1, t), t), z1 - z0)


def flow_terms(encode: Callable, dropped: float = 0.1):
    """Return the terms by which `fit` trains a `VelocityField` on the codes encode(x, generator).

    Labels, where `fit` is given them, are left out for a share `dropped` of the images, so that the
    flow learns both, with and without.
    """

    def terms(flow: VelocityField, x: Tensor, labels: Tensor | None = None, generator=None):
        with torch.no_grad():
            z1 = encode(x, generator)
        noise = {"generator": generator, "device": x.device}
        z0, (t, kept) = torch.randn(z1.shape, **noise), torch.rand((2, len(x), 1), **noise)
        y = None if labels is None else F.one_hot(labels, flow.n_classes) * (kept > dropped).float()
        return {"matching": matching_loss(lambda z, t: flow(z, t, y), z1, z0, t)}

    return terms


def guide(free: Tensor, asked: Tensor, w: float) -> Tensor:
    """Return v(z, t) + w (v(z, t, y) - v(z, t)), from the velocities without and with the label.

    w = 0 ignores the label, w = 1 is the conditional velocity, and more exaggerates the difference.
    Source: Ho & Salimans 2022, eq. 6, whose own w is this one less 1.
    """
    return free + w * (asked - free)


# --- following a velocity -------------------------------------------------------------------------


def euler(velocity: Velocity, z: Tensor, t: Tensor, dt: float) -> Tensor:
    """Return z + dt · v(z, t), a step of Euler's method."""
    return z + dt * velocity(z, t)


def heun(velocity: Velocity, z: Tensor, t: Tensor, dt: float) -> Tensor:
    """Return z + dt · (v + v') / 2, with v' the velocity where Euler's step ends."""
    v = velocity(z, t)
    return z + dt * (v + velocity(z + dt * v, t + dt)) / 2


def follow(velocity: Velocity, z: Tensor, n_steps: int = 20, step=heun, start=0.0, end=1.0):
    """Return the codes on the way from `start` to `end`, `(n_steps + 1, B, latent_size)`."""
    dt, way = (end - start) / n_steps, [z]
    for i in range(n_steps):
        t = z.new_full((len(z), 1), start + i * dt)
        way.append(step(velocity, way[-1], t, dt))
    return torch.stack(way)


class Stopped(nn.Module):
    """What a VAE decodes where a guided flow from one noise `(1, latent_size)` is stopped.

    Its codes are settings, `(B, 3)`: steps of Euler's method that are left out at the end, w - 1 of
    `guide`, and the label.
    """

    latent_size = 3

    def __init__(
        self, field: VelocityField, vae: nn.Module, start: Tensor, n_steps: int = 20
    ) -> None:
        super().__init__()
        self.field, self.vae, self.start, self.n_steps = field, vae, start, n_steps

    def decode_mean(self, settings: Tensor) -> Tensor:
        """Return the image of each row of settings: `(B, 3)` -> `(B, pixels)`."""
        codes = []
        for left_out, more, label in settings.tolist():
            y = torch.zeros((1, self.field.n_classes), device=self.start.device)
            y[0, round(label) % self.field.n_classes] = 1

            def velocity(z: Tensor, t: Tensor, y: Tensor = y, w: float = 1 + more) -> Tensor:
                return guide(self.field(z, t), self.field(z, t, y), w)

            z, n = self.start, self.n_steps - round(left_out)
            codes.append(follow(velocity, z, n, euler, end=n / self.n_steps)[-1] if n else z)
        return self.vae.decode_mean(torch.cat(codes))


def log_density(velocity: Velocity, z: Tensor, n_steps: int = 20) -> Tensor:
    """Return log p(z) = log N(z0; 0, I) - ∫ tr(∂v/∂z) dt, z0 where z comes from at t = 0.

    The trace is exact, from latent_size backward passes. `(B, latent_size)` -> `(B,)`.
    Units: nats. Source: Chen et al. 2018, eq. 8.
    """

    def with_trace(state: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            z = state[:, :-1].detach().requires_grad_()
            v = velocity(z, t)
            # Each image's v_j depends on its own z alone, so one backward pass serves all of them.
            columns = [torch.autograd.grad(v_j.sum(), z, retain_graph=True)[0] for v_j in v.T]
            trace = sum(column[:, j] for j, column in enumerate(columns))
        return torch.cat([v.detach(), trace[:, None]], dim=1)

    state = torch.cat([z, z.new_zeros(len(z), 1)], dim=1)
    state = follow(with_trace, state, n_steps, start=1.0, end=0.0)[-1]
    log_p0 = torch.distributions.Normal(0.0, 1.0).log_prob(state[:, :-1]).sum(dim=1)
    return log_p0 + state[:, -1]  # the integral runs backwards, so it comes with its sign turned
