"""L2: a penalty around the last optimum in which every parameter is as important as any other.

    penalty(theta) = (lambda / 2) * t ||theta - theta_t*||^2          after t stages

The baseline of Kirkpatrick et al. (2017, figure 2) in the form of Continual World (Wolczyk et al. 2021): importance 1, added up
over the stages. Published strength: 1e5 ||.||^2 under the actor loss of SAC, which reaches 10 / (1 - 0.99) = 1000, the reward of a step
over one minus the discount; the denoising loss reaches 1, hence lambda = 2 * 1e5 / 1000 = 200.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from reconverge.policy.config import L2Config
from reconverge.policy.hooks import Method
from reconverge.policy.learner import Learner
from reconverge.policy.methods.importance_penalty import ImportancePenalty


class UniformImportance(ImportancePenalty):
    """Importance 1."""

    def importance(self, learner: Learner) -> Tensor:
        return torch.ones_like(learner.parameters.values)

    def load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        """Also of weights that are new, since the run has been given more tasks since: every one is as important as the others."""
        super().load_arrays(arrays)
        self.region.curvature.fill_(self.region.count)


def l2(config: L2Config, size: int, device: torch.device | str = "cpu") -> Method:
    """`size` is P, the number of parameters."""
    return Method("l2", (UniformImportance(config.strength, size, device),))
