"""Adaptive training (arXiv 2602.20796): how far the network may move in a stage follows from how related its task is.

`policy/update_budget.py` says which part is published and which is ours. Alone it bounds how much fine-tuning overwrites;
on top of the trust region it scales the steps that replay and penalty leave.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from reconverge.policy.config import TrainConfig, UpdateBudgetConfig
from reconverge.policy.fisher import denoising_draws, denoising_losses, diagonal_fisher, mean_gradient
from reconverge.policy.hooks import Hook, Method
from reconverge.policy.learner import Learner
from reconverge.policy.methods.replay import WindowSource
from reconverge.policy.methods.trust_region import trust_region
from reconverge.policy.saved_arrays import take
from reconverge.policy.update_budget import alignment, hard_budget, module_gains, modules_of, soft_budget


@dataclass(frozen=True)
class StageBudget:
    """What limits the steps of a stage.

    Attributes:
        modules: (M,) step multiplier of every module. parameters: (P,) the same, of every parameter.
        decided_by: (M,) alignments by which the soft form decided; () that of all parameters together, by which the hard form did.
        reliability: the cosine between g_new of two halves of the draws; near 0, the alignments are noise.
    """

    modules: Tensor
    parameters: Tensor
    decided_by: Tensor
    reliability: float


class UpdateBudget(Hook):
    """Scale or freeze modules for the length of a stage.

    Attributes:
        budget: of this stage; None where nothing limits it.
    """

    name = "update budget"

    def __init__(self, config: UpdateBudgetConfig) -> None:
        self.config = config
        self.budget: StageBudget | None = None
        self.move: Tensor | None = None  # (P,) what the last stage did to the parameters
        self.curvature: Tensor | None = None  # (M,) sum over earlier tasks of E||g_m||^2, which only the hard form asks for

    def on_stage_start(self, learner: Learner) -> None:
        self.start = learner.parameters.values.clone()
        self.modules = modules_of(learner.parameters)
        self.budget = None if self.move is None else self._budget(learner, self.move.to(self.start))

    def _budget(self, learner: Learner, move: Tensor) -> StageBudget:
        parts, generator = list(self.modules.values()), learner.streams.generator("update budget")
        gradient, reliability = self._gradient(learner)
        if self.config.form == "soft":
            decided_by = alignment(gradient, move, parts)
            budget = soft_budget(decided_by, self.config, generator)
        else:
            assert self.curvature is not None
            decided_by = cosine_similarity(gradient, -move, dim=0)
            budget = hard_budget(decided_by, module_gains(gradient, self.curvature.to(move), parts), self.config, generator)
        sizes = torch.tensor([part.stop - part.start for part in parts], device=budget.device)
        return StageBudget(budget, budget.repeat_interleave(sizes), decided_by, reliability)

    def _gradient(self, learner: Learner) -> tuple[Tensor, float]:
        """(P,) of the new task's loss at the start, and how far its two halves agree."""
        draws = denoising_draws(learner.policy, learner.windows, self.config.draws, learner.streams, "budget")
        losses = denoising_losses(learner.policy, learner.parameters)
        half = self.config.draws // 2
        first, second = (mean_gradient(losses, self.start, tuple(part[rows] for part in draws)) for rows in (slice(half), slice(half, None)))
        return (first + second) / 2, float(cosine_similarity(first, second, dim=0))

    def adjust_step(self, learner: Learner, before: Tensor) -> None:
        if self.budget is not None:
            learner.parameters.values.sub_(before).mul_(self.budget.parameters).add_(before)

    def on_stage_end(self, learner: Learner) -> None:
        self.move = learner.parameters.values - self.start
        if self.config.form == "hard":
            curvature = self._curvature(learner)
            self.curvature = curvature if self.curvature is None else self.curvature.to(curvature) + curvature

    def _curvature(self, learner: Learner) -> Tensor:
        """(M,) E||g_m||^2 of the stage that ends, per module."""
        draws = denoising_draws(learner.policy, learner.windows, self.config.draws, learner.streams, "budget")
        diagonal = diagonal_fisher(denoising_losses(learner.policy, learner.parameters), learner.parameters.values, draws)
        return torch.stack([diagonal[part].sum() for part in self.modules.values()])

    def figures(self) -> dict[str, float]:
        if self.budget is None:
            return {}
        budgets = {f"budget.{name}": float(value) for name, value in zip(self.modules, self.budget.modules, strict=True)}
        return budgets | {"alignment": float(self.budget.decided_by.mean()), "alignment_reliability": self.budget.reliability}

    def kept(self) -> dict[str, int]:
        return {"last stage's move, curvature per module": sum(part.nbytes for part in self.arrays().values())}

    def arrays(self) -> dict[str, np.ndarray]:
        kept = {"move": self.move, "curvature": self.curvature}
        return {name: vector.cpu().numpy() for name, vector in kept.items() if vector is not None}

    def load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        wanted = ("move", "curvature") if self.config.form == "hard" else ("move",)
        found = {name: take(arrays, name, (None,), "learner.safetensors") for name in (wanted if arrays else ())}
        self.move, self.curvature = found.get("move"), found.get("curvature")


def adaptive(config: TrainConfig) -> Method:
    """The budget alone, as published: no replay, no penalty."""
    return Method("adaptive", (UpdateBudget(config.update_budget),))


def adaptive_trust_region(source: WindowSource, config: TrainConfig, size: int, device: torch.device | str = "cpu") -> Method:
    """The budget on top of replay and trust region; `size` is P."""
    below = trust_region(source, config, size, device)
    rehearse, region = below.hooks
    # The budget scales the step before a radius is enforced: the radius is the harder promise.
    return replace(below, name="adaptive-trust-region", hooks=(rehearse, UpdateBudget(config.update_budget), region))
