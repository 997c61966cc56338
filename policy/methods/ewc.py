"""EWC with the rank-1 Fisher of diffusion models (arXiv 2509.23593): the penalty alone, without replay."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from reconverge.policy.config import TrustRegionConfig
from reconverge.policy.fisher import denoising_draws, denoising_losses, rank1_fisher
from reconverge.policy.hooks import Hook, Method
from reconverge.policy.learner import Learner
from reconverge.policy.trust_region import TrustRegion


class StayNear(Hook):
    """Keep theta near the optimum of every earlier stage, along that stage's mean gradient."""

    name = "trust-region"

    def __init__(self, config: TrustRegionConfig, size: int, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.region = TrustRegion(config.strength, size, device)

    def add_penalty_gradient(self, learner: Learner) -> Tensor | None:
        if len(self.region) == 0:
            return None
        return self.region.add_gradient(learner.parameters.values, learner.parameters.gradient)

    def on_stage_end(self, learner: Learner) -> None:
        """Estimate the Fisher at the optimum just reached, on the windows that led there."""
        draws = denoising_draws(learner.policy, learner.windows, self.config.draws, learner.streams)
        losses = denoising_losses(learner.policy, learner.parameters)
        self.last_fisher = rank1_fisher(losses, learner.parameters.values, draws)
        self.region.add(self.last_fisher, learner.parameters.values)

    def kept(self) -> dict[str, int]:
        return {"trust region (mu, c, b per stage)": self.region.bytes}

    def arrays(self) -> dict[str, np.ndarray]:
        return self.region.arrays()

    def load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        self.region.load_arrays(arrays)


def ewc(config: TrustRegionConfig, size: int, device: torch.device | str = "cpu") -> Method:
    """`size` is P, the number of parameters."""
    return Method("ewc", (StayNear(config, size, device),))
