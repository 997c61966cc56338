"""EWC: a quadratic penalty around the optimum of every earlier task, without replay.

With the rank-1 Fisher of diffusion models (arXiv 2509.23593, section 3.3) or the diagonal one of classical EWC
(Kirkpatrick et al. 2017); the rank-1 form also as a constraint (arXiv 2602.02417, equation 6).
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from reconverge.policy.config import TrustRegionConfig
from reconverge.policy.diagonal_trust_region import DiagonalTrustRegion
from reconverge.policy.fisher import DrawLosses, Draws, denoising_draws, denoising_losses, diagonal_fisher, rank1_fisher
from reconverge.policy.hooks import Hook, Method
from reconverge.policy.learner import Learner
from reconverge.policy.saved_arrays import take
from reconverge.policy.trust_region import TrustRegion


class Quadratic(Protocol):
    """A sum of quadratic penalties around earlier optima, in closed form."""

    def __len__(self) -> int: ...
    def add_gradient(self, theta: Tensor, gradient: Tensor) -> Tensor: ...
    @property
    def bytes(self) -> int: ...
    def arrays(self) -> dict[str, np.ndarray]: ...
    def load_arrays(self, arrays: dict[str, np.ndarray]) -> None: ...


class Penalty(Hook):
    """Adds the gradient of a quadratic region and carries it through checkpoints.

    Every stage adds to the region: a task that is learned again is held to each of its optima, the earlier ones also while it is learned.
    """

    name = "trust-region"
    region: Quadratic

    def add_penalty_gradient(self, learner: Learner) -> Tensor | None:
        if len(self.region) == 0:
            return None
        return self.region.add_gradient(learner.parameters.values, learner.parameters.gradient)

    def kept(self) -> dict[str, int]:
        return {"trust region": self.region.bytes}

    def arrays(self) -> dict[str, np.ndarray]:
        return self.region.arrays()

    def load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        self.region.load_arrays(arrays)


class StayNear(Penalty):
    """Keep theta near the optimum of every earlier stage, along that stage's mean gradient."""

    region: TrustRegion

    def __init__(self, config: TrustRegionConfig, size: int, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.region = TrustRegion(config.strength, size, device)

    def on_stage_end(self, learner: Learner) -> None:
        """Estimate the Fisher at the optimum just reached, on the windows that led there."""
        losses, draws = fisher_draws(learner, self.config)
        self.last_fisher = rank1_fisher(losses, learner.parameters.values, draws)
        self.region.add(self.last_fisher, learner.parameters.values)


class StayWithin(StayNear):
    """The same directions as a constraint: after every step theta is put back within the radius."""

    multiplier, travelled = 0.0, 0.0

    def add_penalty_gradient(self, learner: Learner) -> Tensor | None:
        return None

    def adjust_step(self, learner: Learner, before: Tensor) -> None:
        if len(self.region):
            self.multiplier, self.travelled = self.region.project(learner.parameters.values, self.config.radius)

    def figures(self) -> dict[str, float]:
        return {"travelled": self.travelled, "radius": self.config.radius, "multiplier": self.multiplier}


class StayNearByDiagonal(Penalty):
    """Keep every single parameter near its value at the optima of earlier stages, by the diagonal Fisher."""

    region: DiagonalTrustRegion

    def __init__(self, config: TrustRegionConfig, size: int, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.region = DiagonalTrustRegion(config.strength, size, device)

    def on_stage_end(self, learner: Learner) -> None:
        losses, draws = fisher_draws(learner, self.config)
        self.region.add(diagonal_fisher(losses, learner.parameters.values, draws), learner.parameters.values)


class StayNearLast(Penalty):
    """Keep every single parameter near its value at the last optimum, by importances that add up over the stages: L2, MAS, SI."""

    region: DiagonalTrustRegion

    def __init__(self, strength: float, size: int, device: torch.device | str = "cpu") -> None:
        """`strength` is lambda of (lambda / 2) * sum_p Omega_p (theta_p - theta_p*)^2; `size` is P."""
        self.region = DiagonalTrustRegion(strength, size, device)

    def importance(self, learner: Learner) -> Tensor:
        """Omega (P,) of the stage that ends."""
        raise NotImplementedError

    def on_stage_end(self, learner: Learner) -> None:
        self.region.move(self.importance(learner), learner.parameters.values)

    def kept(self) -> dict[str, int]:
        return {"importance and last optimum": self.region.bytes}


def fisher_draws(learner: Learner, config: TrustRegionConfig) -> tuple[DrawLosses, Draws]:
    """The losses, as a function of theta, of draws from the windows of the stage that ends."""
    draws = denoising_draws(learner.policy, learner.windows, config.draws, learner.streams)
    return denoising_losses(learner.policy, learner.parameters), draws


class StayTrue(Hook):
    """Keep what the network *does* on rehearsed windows within a radius of the teacher, wherever its parameters go (ours).

    The replay loss is that distance. Dual ascent on its weight: beta grows by the factor exp(rate * (loss / radius - 1)) an update, by 4 %
    at most, within [0.25, 20]: it rises where the network strays and falls back where there is room.
    """

    name = "functional trust region"
    RATE, LEAST, MOST = 0.02, 0.25, 20.0

    def __init__(self, config: TrustRegionConfig) -> None:
        self.config, self.weight = config, 1.0

    def on_stage_start(self, learner: Learner) -> None:
        self.weight = learner.config.replay_weight
        learner.loss_weights = (1.0, self.weight)

    def adjust_step(self, learner: Learner, before: Tensor) -> None:
        if learner.last_losses.replay is None:
            return
        strayed = float(learner.last_losses.replay.detach()) / self.config.radius - 1
        self.weight = min(self.MOST, max(self.LEAST, self.weight * math.exp(self.RATE * min(strayed, 2.0))))
        learner.loss_weights = (1.0, self.weight)

    def figures(self) -> dict[str, float]:
        return {"radius": self.config.radius, "beta": self.weight}

    def underway(self) -> dict[str, np.ndarray]:
        return {"beta": np.array([self.weight])}

    def load_underway(self, learner: Learner, arrays: dict[str, np.ndarray]) -> None:
        self.weight = float(take(arrays, "beta", (1,), "underway.safetensors"))
        learner.loss_weights = (1.0, self.weight)


def stay_near(config: TrustRegionConfig, size: int, device: torch.device | str = "cpu") -> Hook:
    """The hook that the configuration asks for; `size` is P."""
    if config.fisher == "diagonal":
        return StayNearByDiagonal(config, size, device)
    if config.form == "functional":
        return StayTrue(config)
    return StayWithin(config, size, device) if config.form == "constraint" else StayNear(config, size, device)


def ewc(config: TrustRegionConfig, size: int, device: torch.device | str = "cpu") -> Method:
    """`size` is P, the number of parameters."""
    return Method("ewc", (stay_near(config, size, device),))
