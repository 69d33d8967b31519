"""The checks on the learned prior: two steps along a velocity, its loss, guidance."""

from collections.abc import Callable

import torch
from torch import Tensor

from vae_lesson.priors import flow
from vae_lesson.teaching.checks.verdict import Verdict, compare, draw, ours


def _velocity(z: Tensor, t: Tensor) -> Tensor:
    """Return a velocity that bends: on a straight one Heun's step is the midpoint rule's."""
    return torch.sin(2 * z.flip(1)) - 0.4 * z + 3 * t.square() - 0.3


@ours(flow.matching_loss)
def matching_loss(answer: Callable[[Callable, Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(velocity, z1, z0, t) -> `(B,)`, |v(z_t, t) - (z1 - z0)|²."""
    z1, z0 = draw((5, 3), (5, 3))
    weight = torch.ones((), requires_grad=True)  # the velocity's: what trains it
    t = torch.tensor([[0.1], [0.8], [0.35], [0.6], [0.95]])

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        return weight * _velocity(z, t)

    def loss(start: Tensor, end: Tensor, target: Tensor) -> Tensor:
        return (velocity(start + t * (end - start), t) - target).square().sum(dim=1)

    right = loss(z0, z1, z1 - z0)
    turned = [loss(z1, z0, z1 - z0), loss(z0, z1, z0 - z1), loss(z1, z0, z0 - z1)]
    mistakes = {
        "time turned round: t = 0 is noise and t = 1 is the code, so z_t = (1 − t) z0 + t z1, and "
        "the velocity goes from z0 to z1": turned,
        "the code as the target: v is a direction, z1 − z0": loss(z0, z1, z1),
        "the mean over latent dimensions: sum them": right / 3,
        "the root: return the square": right.sqrt(),
    }
    arguments, learn = (velocity, z1, z0, t), {"the velocity": weight}
    return compare(answer, arguments, right, mistakes, per_image=True, learn=learn)


@ours(flow.euler)
def euler(answer: Callable[[Callable, Tensor, Tensor, float], Tensor]) -> Verdict:
    """Check answer(velocity, z, t, dt) -> `(B, latent_size)`, one of Euler's steps."""
    (z,) = draw((4, 3))
    t, dt = torch.full((4, 1), 0.3), 0.25
    v = _velocity(z, t)
    ends = [z + dt * _velocity(z + dt * v, t + dt), z + dt * _velocity(z, t + dt)]
    mistakes = {
        "a step of length 1: it goes dt · v": z + v,
        "t for dt: a step goes dt · v": z + t * v,
        "the way alone: the step ends at z + dt · v": dt * v,
        "backwards: from z it goes dt · v, with a plus": z - dt * v,
        "the velocity where the step ends: take v(z, t), where it begins": ends,
    }
    return compare(lambda z, t: answer(_velocity, z, t, dt), (z, t), z + dt * v, mistakes)


@ours(flow.heun)
def heun(answer: Callable[[Callable, Tensor, Tensor, float], Tensor]) -> Verdict:
    """Check answer(velocity, z, t, dt) -> `(B, latent_size)`, one of Heun's steps."""
    (z,) = draw((4, 3))
    t, dt = torch.full((4, 1), 0.3), 0.25
    v = _velocity(z, t)

    def average(to_z: float, to_t: float) -> Tensor:
        return z + dt / 2 * (v + _velocity(z + to_z * v, t + to_t))

    right, middle = average(dt, dt), z + dt * _velocity(z + dt / 2 * v, t + dt / 2)
    mistakes = {
        "Euler's step: average v with the velocity where it ends": z + dt * v,
        "the sum of the two velocities: take their mean": 2 * right - z,
        "the second velocity at t: it is the one at t + dt": average(dt, 0),
        "the second velocity at z: it is the one at z + dt · v": average(0, dt),
        "the midpoint rule: as good, but Heun takes the mean of both ends": middle,
    }
    return compare(lambda z, t: answer(_velocity, z, t, dt), (z, t), right, mistakes)


@ours(flow.guide)
def guide(answer: Callable[[Tensor, Tensor, float], Tensor]) -> Verdict:
    """Check answer(free, asked, w) -> `(B, latent_size)`, free + w (asked - free)."""
    free, asked = draw((4, 3), (4, 3))
    w, way = 2.5, asked - free
    turned = [free - w * way, asked - w * way]
    mistakes = {
        "the paper's w, which is 0 without guidance: here w = 1 is that": asked + w * way,
        "the difference turned round: from free to asked it is asked − free": turned,
        "w times one of the two: w multiplies their difference": free + w * asked,
        "only the difference: it is added to the free velocity": w * way,
    }
    return compare(lambda *v: answer(*v, w), (free, asked), free + w * way, mistakes)
