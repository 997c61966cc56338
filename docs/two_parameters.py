"""The smallest model in which a trust region can be watched: two parameters, a line through noisy points.

    draw (x, y)     y = x . theta_task + noise         loss (1/2) (x . theta - y)^2         gradient (x . theta - y) x

Two old tasks. In `one_direction` every x lies along one direction u, so all gradients do, and the Fisher is of rank one exactly. In
`two_directions` x varies along both: at the optimum the mean gradient is zero but for sampling noise, and so is the direction of mu.
The Fisher, the penalty and the projection are those of `reconverge.policy`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reconverge.policy.fisher import Draws, Rank1Fisher, mean_gradient, rank1_fisher
from reconverge.policy.random_streams import torch_stream
from reconverge.policy.trust_region import TrustRegion

OLD_OPTIMUM, NEW_OPTIMUM = torch.tensor([0.0, 0.0]).double(), torch.tensor([2.0, 1.2]).double()
NOISE = 0.5
DRAWS = 1024
RATE, STEPS = 0.08, 300
STRENGTH, RADIUS = 40.0, 0.02


@dataclass(frozen=True)
class Path:
    """Parameters (STEPS + 1, 2) of a descent on the new task, and both losses at its end."""

    points: np.ndarray
    old_loss: float
    new_loss: float


def losses(theta: Tensor, draws: Draws) -> Tensor:
    """(n,) losses of draws x (n, 2), y (n,)."""
    x, y = draws
    return 0.5 * (x @ theta - y).square()


def one_direction() -> Draws:
    direction = torch.tensor([0.8, -0.6]).double()
    return _draws("one direction", OLD_OPTIMUM, torch.outer(direction, direction))


def two_directions(sample: int = 0) -> Draws:
    """Another `sample` of draws has another mu."""
    return _draws(f"two directions {sample}", OLD_OPTIMUM, torch.tensor([[0.9, -0.2], [-0.2, 0.7]]).double())


def new_task() -> Draws:
    return _draws("new task", NEW_OPTIMUM, torch.tensor([[0.8, 0.1], [0.1, 0.6]]).double())


def _draws(purpose: str, optimum: Tensor, mixing: Tensor) -> Draws:
    generator = torch_stream("two parameters", purpose)
    x = torch.randn(DRAWS, 2, generator=generator, dtype=torch.float64) @ mixing
    return x, x @ optimum + NOISE * torch.randn(DRAWS, generator=generator, dtype=torch.float64)


def fisher_at_optimum(old: Draws) -> Rank1Fisher:
    return rank1_fisher(losses, OLD_OPTIMUM, old)


def descend(old: Draws, strength: float = 0.0, radius: float | None = None) -> Path:
    """Gradient descent on the new task from the old optimum: alone, with the penalty of `strength`, or projected into `radius`."""
    region = TrustRegion(strength, 2, dtype=torch.float64)
    region.add(fisher_at_optimum(old), OLD_OPTIMUM)
    new, theta, points = new_task(), OLD_OPTIMUM.clone(), [OLD_OPTIMUM.numpy().copy()]
    for _ in range(STEPS):
        gradient = mean_gradient(losses, theta, new)
        region.add_gradient(theta, gradient)
        theta -= RATE * gradient
        if radius is not None:
            region.project(theta, radius)
        points.append(theta.numpy().copy())
    return Path(np.array(points), mean_loss(theta, old), mean_loss(theta, new))


def mean_loss(theta: Tensor, draws: Draws) -> float:
    return float(losses(theta, draws).mean())


def best_fit(draws: Draws) -> Tensor:
    """(2,) where the mean loss is least."""
    return torch.linalg.lstsq(draws[0], draws[1]).solution
