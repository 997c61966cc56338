"""Adaptive training (arXiv 2602.20796): how far the network may move in a stage follows from how related its task is.

`policy/update_budget.py` says which part is published and which is ours. Alone it bounds how much fine-tuning overwrites;
on top of the trust region it scales the steps that replay and penalty leave.
"""

from __future__ import annotations

from dataclasses import replace

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


class UpdateBudget(Hook):
    """Scale or freeze modules for the length of a stage.

    Attributes:
        budget: (M,) step multiplier of every module in this stage; None where nothing limits it.
        scores: (M,) alignments by which the soft form decides. overall: () that of all parameters together, by which the hard form does.
        reliability: the cosine between g_new of two halves of the draws; near 0, the alignments are noise.
    """

    name = "update budget"
    budget: Tensor | None = None
    reliability = 0.0

    def __init__(self, config: UpdateBudgetConfig) -> None:
        self.config = config
        self.move: Tensor | None = None  # (P,) what the last stage did to the parameters
        self.curvature: Tensor | None = None  # (M,) sum over earlier tasks of E||g_m||^2, which only the hard form asks for

    def on_stage_start(self, learner: Learner) -> None:
        self.start = learner.parameters.values.clone()
        self.modules = modules_of(learner.parameters)
        self.budget = None
        if self.move is None:
            return
        self.move = self.move.to(self.start)
        parts, generator = list(self.modules.values()), learner.streams.generator("update budget")
        gradient = self._gradient(learner)
        self.scores, self.overall = alignment(gradient, self.move, parts), cosine_similarity(gradient, -self.move, dim=0)
        if self.config.form == "soft":
            self.budget = soft_budget(self.scores, self.config, generator)
        else:
            assert self.curvature is not None
            gains = module_gains(gradient, self.curvature.to(self.start), parts)
            self.budget = hard_budget(self.overall, gains, self.config, generator)
        sizes = torch.tensor([part.stop - part.start for part in parts], device=self.budget.device)
        self.multipliers = self.budget.repeat_interleave(sizes)

    def _gradient(self, learner: Learner) -> Tensor:
        draws = denoising_draws(learner.policy, learner.windows, self.config.draws, learner.streams, "budget")
        losses = denoising_losses(learner.policy, learner.parameters)
        half = self.config.draws // 2
        first, second = (mean_gradient(losses, self.start, tuple(part[rows] for part in draws)) for rows in (slice(half), slice(half, None)))
        self.reliability = float(cosine_similarity(first, second, dim=0))
        return (first + second) / 2

    def adjust_step(self, learner: Learner, before: Tensor) -> None:
        if self.budget is not None:
            learner.parameters.values.sub_(before).mul_(self.multipliers).add_(before)

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
        budgets = {f"budget.{name}": float(value) for name, value in zip(self.modules, self.budget, strict=True)}
        decided_by = self.scores.mean() if self.config.form == "soft" else self.overall
        return budgets | {"alignment": float(decided_by), "alignment_reliability": self.reliability}

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
