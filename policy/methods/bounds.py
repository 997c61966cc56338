"""The bounds of continual learning: `finetune` keeps nothing, `joint` has everything at once, `single` shares nothing."""

from __future__ import annotations

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

    def on_stage_start(self, learner: Learner) -> None:
        learner.parameters.values.copy_(learner.initial)
        learner.averaged.copy_(learner.initial)


def single() -> Method:
    """One policy per task from scratch. Each task's own policy is the one that is evaluated, so nothing can be forgotten."""
    return Method("single", (StartAfresh(),))
