"""Memory Aware Synapses (Aljundi et al. 2018, arXiv 1711.09601, section 4): important is what the output is sensitive to.

    Omega_p = mean_n | d ||F(x_n; theta*)||^2 / d theta_p |                 for outputs of several numbers; adds up over the tasks
    penalty(theta) = (lambda / 2) * sum_p Omega_p (theta_p - theta_p*)^2    around the last optimum

No target is needed: only the network's output. That is the predicted noise here, at draws (window, timestep, noise) of the stage's own
windows, and its squared norm is taken as the mean over the H Da numbers, as the loss is, so that both scale alike. Published strength: 1,
without the half, hence lambda = 2. (Continual World uses 1e4 without the half, under the loss of SAC.)

Worked example, F = theta . x with theta = (1, 2): x = (1, 0) has the gradient 2 F x = (2, 0), x = (1, -1) has F = -1 and (-2, 2).
Omega = ((2 + 2) / 2, (0 + 2) / 2) = (2, 1), where the mean gradient would be (0, 1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from reconverge.policy.config import MASConfig
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.fisher import DrawLosses, Draws, denoising_draws, mean_over_gradients, predicted_noise
from reconverge.policy.flat_parameters import FlatParameters
from reconverge.policy.hooks import Method
from reconverge.policy.learner import Learner
from reconverge.policy.methods.importance_penalty import ImportancePenalty


class OutputSensitivity(ImportancePenalty):
    """Importance: mean absolute gradient of the output's squared norm."""

    def __init__(self, config: MASConfig, size: int, device: torch.device | str = "cpu") -> None:
        super().__init__(config.strength, size, device)
        self.draws = config.draws

    def importance(self, learner: Learner) -> Tensor:
        draws = denoising_draws(learner.policy, learner.windows, self.draws, learner.streams, "sensitivity")
        return sensitivity(squared_outputs(learner.policy, learner.parameters), learner.parameters.values, draws)


def sensitivity(squared_norms: DrawLosses, theta: Tensor, draws: Draws) -> Tensor:
    """(P,) mean over the draws of the absolute gradient of their squared norms; the absolute value is taken per draw."""
    return mean_over_gradients(Tensor.abs_, squared_norms, theta, draws)


def squared_outputs(policy: DiffusionPolicy, parameters: FlatParameters) -> DrawLosses:
    """The mean square of the predicted noise per draw, (n,), as a function of theta; draws are those of `denoising_draws`."""
    predict = predicted_noise(policy, parameters)
    return lambda theta, draws: predict(theta, draws).square().flatten(1).mean(1)


def mas(config: MASConfig, size: int, device: torch.device | str = "cpu") -> Method:
    """`size` is P, the number of parameters."""
    return Method("mas", (OutputSensitivity(config, size, device),))
