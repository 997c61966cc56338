"""Replay: windows of earlier tasks beside the current ones, distilled from the frozen teacher."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import torch

from reconverge.policy.hooks import Hook, Method
from reconverge.policy.learner import Learner
from reconverge.policy.windows import WindowBatch


class WindowSource(Protocol):
    """Anything that can draw windows of earlier tasks."""

    def draw(self, count: int, generator: torch.Generator, without: Collection[int] = ()) -> WindowBatch | None: ...


class Rehearse(Hook):
    """Rehearse the earlier tasks with windows from `source`.

    A task that is learned again is not rehearsed meanwhile: its demonstrations are there, and its old teacher is not to hold it back.
    """

    name = "rehearse"

    def __init__(self, source: WindowSource) -> None:
        self.source = source

    def replay_batch(self, learner: Learner, count: int, generator: torch.Generator) -> WindowBatch | None:
        return self.source.draw(count, generator, without=learner.current_tasks)


def replay(source: WindowSource) -> Method:
    """Generative distillation alone (the `replay` row of arXiv 2602.02417, table 1)."""
    return Method("replay", (Rehearse(source),))
