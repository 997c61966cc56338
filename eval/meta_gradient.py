"""Is the update for an old task that of a meta-learner? (arXiv 2602.02417: trust region and replay as an implicit MAML step)

For an old task i, at the parameters theta that a later stage ended with:

    meta-gradient     d/dtheta L_i(theta - alpha grad L_i(theta; support); query)      exact, second order, on real windows of task i
    old-task update   beta grad L_replay,i(theta)  +  lambda c_i mu_i (mu_i . theta - b_i)

The paper reports their mean cosine, 0.83, and no control. How to read ours: the meta-gradient is (I - alpha H) grad L_i(theta'), so at a
small alpha it is nearly the plain gradient of task i's loss, which `first order` shows; the gradients of different tasks may have
much in common, which another task's replay and the new task's own gradient show; and near an optimum a batch's gradient is mostly
noise, which lowers every cosine. How much shows in `repeat`, between the meta-gradients of two batches, and the noise is taken out
by a second batch of each direction (`noise_free_cosine`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.fisher import CHUNK, DrawLosses, Draws, mean_gradient, predicted_noise
from reconverge.policy.flat_parameters import FlatParameters

Pair = tuple[Tensor | None, Tensor | None]  # two independent estimates of one direction


def meta_gradient(losses: DrawLosses, theta: Tensor, support: Draws, query: Draws, alpha: float) -> Tensor:
    """(P,) gradient at `theta` of the query's mean loss after one gradient step of length `alpha` on the support's.

    Exact, second order: v - alpha H v, with v the query's gradient at theta - alpha grad L(support) and H the support's Hessian at
    theta, applied by differentiating grad L(support) . v. A pass holds the graph of `CHUNK` draws.
    """
    adapted = theta - alpha * mean_gradient(losses, theta, support)
    outer = mean_gradient(losses, adapted, query)
    curved, count = torch.zeros_like(theta), len(support[0])
    for start in range(0, count, CHUNK):
        point = theta.detach().clone().requires_grad_()
        part = tuple(column[start : start + CHUNK] for column in support)
        (inner,) = torch.autograd.grad(losses(point, part).sum() / count, point, create_graph=True)
        curved += torch.autograd.grad(inner @ outer, point)[0]
    return outer - alpha * curved


def distillation_losses(policy: DiffusionPolicy, parameters: FlatParameters, teacher: DiffusionPolicy) -> DrawLosses:
    """Mean squared difference per draw between the noise that theta and the teacher predict.

    Draws are (clean actions, condition, timestep, noise). At the student's own theta it is the gap to its teacher.
    """

    predict = predicted_noise(policy, parameters)

    def losses(theta: Tensor, draws: Draws) -> Tensor:
        clean, condition, timestep, noise = draws
        with torch.no_grad():
            target = teacher.predict_noise(policy.diffusion.add_noise(clean, noise, timestep), timestep, condition)
        return (predict(theta, draws) - target).square().flatten(1).mean(1)

    return losses


def cosine(first: Tensor | None, second: Tensor | None) -> float | None:
    """Cosine of two directions (P,) in float64; None where one is missing or zero."""
    if first is None or second is None:
        return None
    one, two = first.double(), second.double()
    lengths = float(one.norm() * two.norm())
    return float(one @ two) / lengths if lengths > 0 else None


def noise_free_cosine(first: Pair, second: Pair) -> float | None:
    """Cosine of two directions of each of which two independent estimates (P,) are given; None where noise leaves nothing.

    Products of independent estimates are free of the noise's square: the lengths are those of a . a' and b . b'. It estimates a
    cosine and may exceed 1.
    """
    if first[0] is None or first[1] is None or second[0] is None or second[1] is None:
        return None
    one, two = [part.double() for part in first if part is not None], [part.double() for part in second if part is not None]
    lengths = float(one[0] @ one[1]), float(two[0] @ two[1])
    if min(lengths) <= 0:
        return None
    return float((one[0] + one[1]) @ (two[0] + two[1])) / 4 / (lengths[0] * lengths[1]) ** 0.5
