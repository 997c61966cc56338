"""A quadratic penalty around the optima of earlier stages, as a hook: what EWC, the trust region, L2, MAS and SI share."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from torch import Tensor

from reconverge.policy.config import TrustRegionConfig
from reconverge.policy.fisher import DrawLosses, Draws, denoising_draws, denoising_losses
from reconverge.policy.hooks import Hook
from reconverge.policy.learner import Learner


class Quadratic(Protocol):
    """A sum of quadratic penalties around earlier optima, in closed form."""

    def __len__(self) -> int: ...
    def add_gradient(self, theta: Tensor, gradient: Tensor) -> Tensor: ...
    @property
    def bytes(self) -> int: ...
    def arrays(self) -> dict[str, np.ndarray]: ...
    def load_arrays(self, arrays: dict[str, np.ndarray]) -> None: ...


class QuadraticPenalty(Hook):
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


def fisher_draws(learner: Learner, config: TrustRegionConfig) -> tuple[DrawLosses, Draws]:
    """The losses, as a function of theta, of draws from the windows of the stage that ends."""
    draws = denoising_draws(learner.policy, learner.windows, config.draws, learner.streams)
    return denoising_losses(learner.policy, learner.parameters), draws
