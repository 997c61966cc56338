"""A trust region of what the network does, not of its parameters (ours): a radius for the distance to the teacher on rehearsed windows."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from reconverge.policy.config import TrustRegionConfig
from reconverge.policy.hooks import Hook
from reconverge.policy.learner import Learner
from reconverge.policy.saved_arrays import take


class FunctionalTrustRegion(Hook):
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
