"""A quadratic penalty around the last optimum alone, by an importance of every parameter that adds up: the base of L2, MAS and SI."""

from __future__ import annotations

import torch
from torch import Tensor

from reconverge.policy.diagonal_trust_region import DiagonalTrustRegion
from reconverge.policy.learner import Learner
from reconverge.policy.methods.quadratic_penalty import QuadraticPenalty


class ImportancePenalty(QuadraticPenalty):
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
