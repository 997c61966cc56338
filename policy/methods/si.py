"""Synaptic Intelligence (Zenke et al. 2017, arXiv 1703.04200): important is what has lowered the loss on its way.

    omega_p = - sum over updates of g_p (theta_p after - theta_p before)        equation 3; g: gradient of the task's loss alone
    Omega_p = sum over tasks of omega_p / ((theta_p* - theta_p at the start)^2 + xi)        equation 5
    penalty(theta) = (lambda / 2) * sum_p Omega_p (theta_p - theta_p*)^2        equation 4

omega is a share of the drop of the loss, so the penalty is in units of the loss, whichever that is, and the published c = 1 without the half
(old and new tasks of equal weight; xi = 1e-3: the paper's split MNIST) is lambda = 2 here. As in the published code, g is the gradient
before the penalty is added and before clipping, and a sum over tasks that is negative counts as 0. Ours: theta* are the averaged weights,
as everywhere; the path is that of the weights in training.

Worked example with xi = 0.5: steps of +1 at g = -4 and of +0.5 at g = -2 give omega = 4 + 1 = 5 over a way of 1.5, and
Omega = 5 / (2.25 + 0.5) = 1.818.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from reconverge.policy.config import SIConfig
from reconverge.policy.hooks import Method
from reconverge.policy.learner import Learner
from reconverge.policy.methods.importance_penalty import ImportancePenalty
from reconverge.policy.saved_arrays import take


class PathIntegral(ImportancePenalty):
    """Importance: the path integral of minus gradient times step over the squared way.

    Attributes:
        path: (P,) omega of the stage so far.
    """

    def __init__(self, config: SIConfig, size: int, device: torch.device | str = "cpu") -> None:
        super().__init__(config.strength, size, device)
        self.damping = config.damping

    def on_stage_start(self, learner: Learner) -> None:
        self.start = learner.parameters.values.clone()
        self.path = torch.zeros_like(self.start)

    def add_penalty_gradient(self, learner: Learner) -> Tensor | None:
        self.gradient = learner.parameters.gradient.clone()  # of the loss alone: nothing has been added yet
        return super().add_penalty_gradient(learner)

    def adjust_step(self, learner: Learner, before: Tensor) -> None:
        self.path.addcmul_(self.gradient, learner.parameters.values - before, value=-1)

    def importance(self, learner: Learner) -> Tensor:
        return self.path / ((learner.parameters.values - self.start).square() + self.damping)

    def underway(self) -> dict[str, np.ndarray]:
        return {"path": self.path.cpu().numpy()}

    def load_underway(self, learner: Learner, arrays: dict[str, np.ndarray]) -> None:
        self.path = take(arrays, "path", tuple(self.start.shape), "underway.safetensors").to(self.start)


def si(config: SIConfig, size: int, device: torch.device | str = "cpu") -> Method:
    """`size` is P, the number of parameters."""
    return Method("si", (PathIntegral(config, size, device),))
