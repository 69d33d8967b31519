"""The checks on the learned prior: the loss of a velocity, two ways to follow it, guidance."""

from collections.abc import Callable

import torch
from torch import Tensor

from vae_lesson.priors import flow
from vae_lesson.teaching.checks.verdict import ONE_NUMBER, Verdict, compare, draw


def _velocity(z: Tensor, t: Tensor) -> Tensor:
    """Return a velocity that bends: on a straight one Heun's step is the midpoint rule's."""
    return torch.sin(2 * z.flip(1)) - 0.4 * z + 3 * t.square() - 0.3


def matching_loss(answer: Callable[[Callable, Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(velocity, z1, z0, t) -> `(B,)`, |v(z_t, t) - (z1 - z0)|²."""
    z1, z0 = draw((5, 3), (5, 3))
    t = torch.tensor([[0.1], [0.8], [0.35], [0.6], [0.95]])

    def loss(start, end, target, t=t):
        return (_velocity(start + t * (end - start), t) - target).square()

    by_time = {  # a time for all: the first, the mean, the last
        "one t for the whole batch: every image has its own": [
            loss(z0, z1, z1 - z0, t=time.expand(5, 1)).sum(dim=1)
            for time in (t[0], t.mean(), t[-1])
        ]
    }
    right = loss(z0, z1, z1 - z0).sum(dim=1)
    turned = [loss(z1, z0, z1 - z0), loss(z0, z1, z0 - z1), loss(z1, z0, z0 - z1)]
    mistakes = by_time | {
        "time turned round: t = 0 is noise and t = 1 is the code, so z_t = (1 − t) z0 + t z1, and "
        "the velocity goes from z0 to z1": [each.sum(dim=1) for each in turned],
        "the code as the target: v is a direction, z1 − z0": loss(z0, z1, z1).sum(dim=1),
        "the velocity of z0 or z1: take it at z_t, between them": [
            (_velocity(z, t) - (z1 - z0)).square().sum(dim=1) for z in (z0, z1)
        ],
        "the mean over latent dimensions: sum them": right / 3,
        "the root: return the square": right.sqrt(),
        ONE_NUMBER: [right.mean(), right.sum(), right.sum() / 15],
    }
    return compare(lambda *z: answer(_velocity, *z), (z1, z0, t), right, mistakes)


def euler(answer: Callable[[Callable, Tensor, int], Tensor]) -> Verdict:
    """Check answer(velocity, z, n_steps) -> `(B, latent_size)`, the codes at t = 1."""
    (z,) = draw((4, 3))

    def walk(n=5, dt=0.2, first=0.0, to_next=0.2, every=False):
        t, codes, way = torch.full((4, 1), first), z, [z]
        for _ in range(n):
            codes, t = codes + dt * _velocity(codes, t), t + to_next
            way.append(codes)
        return torch.stack(way) if every else codes

    mistakes = {
        "a velocity that is taken at t = 0 in every step: t goes on by 1 / n_steps": walk(
            to_next=0
        ),
        "steps of length 1: a step goes dt · v, with dt = 1 / n_steps": [
            walk(dt=1.0),
            walk(dt=1.0, to_next=1.0),
        ],
        "the way back, from t = 1 to 0": [
            walk(dt=-0.2, first=1.0, to_next=-0.2),
            walk(first=1.0, to_next=-0.2),
        ],
        "the velocity where the step ends: take v(z, t) where it begins": walk(first=0.2),
        "a step too few": walk(n=4),
        "a step too many": walk(n=6),
        "all places on the way: return the last": [walk(every=True), walk(every=True)[1:]],
        "no step at all": z,
    }
    return compare(lambda z: answer(_velocity, z, 5), (z,), walk(), mistakes)


def our_euler(velocity: Callable, z: Tensor, n_steps: int) -> Tensor:
    """Return the codes at t = 1, by n_steps steps of Euler's method."""
    return flow.follow(velocity, z, n_steps, flow.euler)[-1]


def heun(answer: Callable[[Callable, Tensor, Tensor, float], Tensor]) -> Verdict:
    """Check answer(velocity, z, t, dt) -> `(B, latent_size)`, one of Heun's steps."""
    (z,) = draw((4, 3))
    t, dt = torch.full((4, 1), 0.3), 0.25
    v = _velocity(z, t)
    after = _velocity(z + dt * v, t + dt)
    middle = _velocity(z + dt / 2 * v, t + dt / 2)
    mistakes = {
        "Euler's step: average v with the velocity where it ends": z + dt * v,
        "the sum of the two velocities: take their mean": z + dt * (v + after),
        "only the velocity at the end: take the mean of both": z + dt * after,
        "the second velocity at t: it is the one at t + dt": z
        + dt / 2 * (v + _velocity(z + dt * v, t)),
        "the second velocity at z: it is the one at z + dt · v": z
        + dt / 2 * (v + _velocity(z, t + dt)),
        "the second velocity at z + v: a step of Euler's is dt · v": z
        + dt / 2 * (v + _velocity(z + v, t + dt)),
        "the midpoint rule: as good, but Heun takes the mean of both ends": z + dt * middle,
        "the mean velocity alone: return z + dt times it": [(v + after) / 2, dt * (v + after) / 2],
    }
    right = flow.heun(_velocity, z, t, dt)
    return compare(lambda z, t: answer(_velocity, z, t, dt), (z, t), right, mistakes)


def guide(answer: Callable[[Tensor, Tensor, float], Tensor]) -> Verdict:
    """Check answer(free, asked, w) -> `(B, latent_size)`, free + w (asked - free)."""
    free, asked = draw((4, 3), (4, 3))
    w = 2.5
    mistakes = {
        "the paper's w, which is 0 without guidance: here w = 1 is that": asked
        + w * (asked - free),
        "the difference turned round: from free to asked it is asked − free": [
            free + w * (free - asked),
            asked + w * (free - asked),
        ],
        "w times one of the two: w multiplies their difference": [w * asked, free + w * asked],
        "only the difference: it is added to the free velocity": w * (asked - free),
    }
    right = flow.guide(free, asked, w)
    return compare(lambda *v: answer(*v, w), (free, asked), right, mistakes)
