"""The bounds of continual learning: `finetune` keeps nothing, `joint` has everything at once, `single` shares nothing."""

from __future__ import annotations

import torch

from reconverge.policy.hooks import Hook, Method
from reconverge.policy.learner import Learner


def finetune() -> Method:
    """Learn each task with nothing to hold the earlier ones: the lower bound."""
    return Method("finetune")


def joint() -> Method:
    """The upper bound. It needs no hook: the curriculum loop gives it all tasks as one stage."""
    return Method("joint")


class StartAfresh(Hook):
    """Every stage begins with the initial weights again."""

    name = "start afresh"

    bytes_of_earlier = 0

    def on_stage_start(self, learner: Learner) -> None:
        initial = learner.policy.untrained(learner.seed).denoiser.parameters()
        learner.parameters.values.copy_(torch.cat([parameter.detach().reshape(-1) for parameter in initial]))
        learner.averaged.copy_(learner.parameters.values)

    def on_stage_end(self, learner: Learner) -> None:
        self.bytes_of_earlier = (learner.stage - 1) * learner.averaged.numel() * learner.averaged.element_size()

    def kept(self) -> dict[str, int]:
        return {"policies of earlier stages": self.bytes_of_earlier}


def single() -> Method:
    """One policy per task from scratch. Each task's own policy is the one that is evaluated, so nothing can be forgotten."""
    return Method("single", (StartAfresh(),))
