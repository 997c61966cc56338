"""The five places at which a continual-learning method may act. A method is a tuple of hooks.

      begin_stage            update, many times                                end_stage
           |      ______________________|_____________________________             |
    on_stage_start   replay_batch   add_penalty_gradient   adjust_gradients  on_stage_end

A hook overrides what it needs. `arrays` and `load_arrays` carry what it remembers through a checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from reconverge.policy.fisher import Rank1Fisher
from reconverge.policy.windows import WindowBatch

if TYPE_CHECKING:
    from reconverge.policy.learner import Learner


class Hook:
    """Does nothing; the base of every hook."""

    name = "hook"
    last_fisher: Rank1Fisher | None = None

    def on_stage_start(self, learner: Learner) -> None:
        """The new stage's windows are in place, the optimizer is fresh."""

    def replay_batch(self, learner: Learner, count: int, generator: torch.Generator) -> WindowBatch | None:
        """Up to `count` windows of earlier tasks to learn beside the current ones, or None."""
        return None

    def add_penalty_gradient(self, learner: Learner) -> Tensor | None:
        """Add the gradient of a penalty on the parameters to `learner.parameters.gradient` (P,) and return the penalty (), or None."""
        return None

    def adjust_gradients(self, learner: Learner) -> None:
        """Change `learner.parameters.gradient` (P,) in place, before clipping."""

    def on_stage_end(self, learner: Learner) -> None:
        """The parameters are the stage's optimum; the current windows are still there."""

    def kept(self) -> dict[str, int]:
        """What the hook keeps after a stage: item -> bytes."""
        return {}

    def arrays(self) -> dict[str, np.ndarray]:
        return {}

    def load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        pass


@dataclass(frozen=True)
class Method:
    """A continual-learning method: hooks, called in order."""

    name: str
    hooks: Sequence[Hook] = ()

    def fishers(self) -> list[Rank1Fisher]:
        """Estimates made at the end of the last stage, for the log."""
        return [hook.last_fisher for hook in self.hooks if hook.last_fisher is not None]
