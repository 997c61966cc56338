"""Replay: windows of earlier tasks beside the current ones, distilled from the frozen teacher."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import torch

from reconverge.policy.config import Weighting
from reconverge.policy.hooks import Hook, Method
from reconverge.policy.learner import Learner
from reconverge.policy.windows import WindowBatch


class WindowSource(Protocol):
    """Anything that can draw windows of earlier tasks."""

    @property
    def tasks(self) -> Collection[int]:
        """The tasks of which it has windows, by their index in the policy."""

    def draw(self, count: int, generator: torch.Generator, without: Collection[int] = ()) -> WindowBatch | None: ...


class Rehearse(Hook):
    """Rehearse the earlier tasks with windows from `source`.

    A task that is learned again is not rehearsed meanwhile: its demonstrations are there, and its old teacher is not to hold it back.
    """

    name = "rehearse"

    def __init__(self, source: WindowSource, weighting: Weighting = "fixed") -> None:
        self.source, self.weighting = source, weighting

    def on_stage_start(self, learner: Learner) -> None:
        seen = len(learner.current_tasks.union(self.source.tasks))
        if self.weighting == "tasks-seen" and seen > 1:
            learner.loss_weights = (1 / seen, (seen - 1) / seen)

    def replay_batch(self, learner: Learner, count: int, generator: torch.Generator) -> WindowBatch | None:
        return self.source.draw(count, generator, without=learner.current_tasks)


def replay(source: WindowSource, weighting: Weighting = "fixed") -> Method:
    """Generative distillation alone (the `replay` row of arXiv 2602.02417, table 1)."""
    return Method("replay", (Rehearse(source, weighting),))
