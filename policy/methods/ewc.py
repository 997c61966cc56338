"""EWC: a quadratic penalty around the optimum of every earlier task, without replay.

With the rank-1 Fisher of diffusion models (arXiv 2509.23593, section 3.3) or the diagonal one of classical EWC
(Kirkpatrick et al. 2017); the rank-1 form also as a constraint (arXiv 2602.02417, equation 6).
"""

from __future__ import annotations

from math import fsum

import torch
from torch import Tensor

from reconverge.policy.config import TrustRegionConfig
from reconverge.policy.diagonal_trust_region import DiagonalTrustRegion
from reconverge.policy.fisher import diagonal_fisher, rank1_fisher
from reconverge.policy.hooks import Hook, Method
from reconverge.policy.learner import Learner
from reconverge.policy.methods.functional_trust_region import FunctionalTrustRegion
from reconverge.policy.methods.quadratic_penalty import QuadraticPenalty, fisher_draws
from reconverge.policy.trust_region import TrustRegion


class Rank1Penalty(QuadraticPenalty):
    """Keep theta near the optimum of every earlier stage, along that stage's mean gradient.

    Logged is how far theta has travelled (equation 6's sum), and how far from the optimum of every stage, by the stage's number.
    """

    region: TrustRegion

    def __init__(self, config: TrustRegionConfig, size: int, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.region = TrustRegion(config.strength, size, device)
        self.last_figures: dict[str, float] | None = None

    def on_stage_start(self, learner: Learner) -> None:
        self.theta = learner.parameters.values

    def on_stage_end(self, learner: Learner) -> None:
        """Estimate the Fisher at the optimum just reached, on the windows that led there."""
        losses, draws = fisher_draws(learner, self.config)
        fisher = rank1_fisher(losses, learner.parameters.values, draws)
        self.last_figures = fisher.figures()
        self.region.add(fisher, learner.parameters.values)

    def fisher_figures(self) -> dict[str, float] | None:
        return self.last_figures

    def figures(self) -> dict[str, float]:
        terms = self.region.travelled_from_each(self.theta).tolist()
        return {"travelled": fsum(terms), **{f"travelled.{stage}": term for stage, term in enumerate(terms, start=1)}}


class RadiusConstraint(Rank1Penalty):
    """The same directions as a constraint: after every step theta is put back within the radius."""

    multiplier = 0.0

    def add_penalty_gradient(self, learner: Learner) -> Tensor | None:
        return None

    def adjust_step(self, learner: Learner, before: Tensor) -> None:
        if len(self.region):
            self.multiplier = self.region.project(learner.parameters.values, self.config.radius).multiplier

    def figures(self) -> dict[str, float]:
        return {**super().figures(), "radius": self.config.radius, "multiplier": self.multiplier}


class DiagonalPenalty(QuadraticPenalty):
    """Keep every single parameter near its value at the optima of earlier stages, by the diagonal Fisher."""

    region: DiagonalTrustRegion

    def __init__(self, config: TrustRegionConfig, size: int, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.region = DiagonalTrustRegion(config.strength, size, device)

    def on_stage_end(self, learner: Learner) -> None:
        losses, draws = fisher_draws(learner, self.config)
        self.region.add(diagonal_fisher(losses, learner.parameters.values, draws), learner.parameters.values)


def trust_region_hook(config: TrustRegionConfig, size: int, device: torch.device | str = "cpu") -> Hook:
    """The hook that the configuration asks for; `size` is P."""
    if config.fisher == "diagonal":
        return DiagonalPenalty(config, size, device)
    if config.form == "functional":
        return FunctionalTrustRegion(config)
    return RadiusConstraint(config, size, device) if config.form == "constraint" else Rank1Penalty(config, size, device)


def ewc(config: TrustRegionConfig, size: int, device: torch.device | str = "cpu") -> Method:
    """`size` is P, the number of parameters."""
    return Method("ewc", (trust_region_hook(config, size, device),))
