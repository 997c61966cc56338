"""The places at which a continual-learning method may act. A method is a tuple of hooks.

    begin_stage       on_stage_start
    update            replay_batch            what is rehearsed beside the current windows
                      objective_gradient      another objective than the paper's (meta-learning)
                      add_penalty_gradient    a penalty on the parameters
                      adjust_gradients        before clipping and the optimizer
                      adjust_step             after the optimizer: projections, budgets
    end_stage         on_stage_end

A hook overrides what it needs. `arrays` and `load_arrays` carry what it remembers through a checkpoint at a stage's end,
`underway` and `load_underway` through one within a stage; `figures` says what the log is to know about an update.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from reconverge.policy.windows import WindowBatch

if TYPE_CHECKING:
    from reconverge.policy.learner import Learner


ReplayTarget = Literal["teacher", "noise"]


class Losses(NamedTuple):
    """The two losses of an update, () each: on the current and on the replayed windows; None where there are none."""

    current: Tensor | None
    replay: Tensor | None


class Hook:
    """Does nothing; the base of every hook."""

    name = "hook"

    def on_stage_start(self, learner: Learner) -> None:
        """The new stage's windows are in place, the optimizer is fresh."""

    def replay_batch(self, learner: Learner, count: int, generator: torch.Generator) -> WindowBatch | None:
        """Up to `count` (>= 1) windows of earlier tasks, on the policy's device, to learn beside the current ones, or None."""
        return None

    def objective_gradient(self, learner: Learner) -> Losses | None:
        """Add the gradient of this method's own objective to `learner.parameters.gradient` (P,), or None for the paper's."""
        return None

    def add_penalty_gradient(self, learner: Learner) -> Tensor | None:
        """Add the gradient of a penalty on the parameters to `learner.parameters.gradient` (P,) and return the penalty (), or None."""
        return None

    def adjust_gradients(self, learner: Learner) -> None:
        """Change `learner.parameters.gradient` (P,) in place, before clipping."""

    def adjust_step(self, learner: Learner, before: Tensor) -> None:
        """Change `learner.parameters.values` (P,) in place after the optimizer's step from `before` (P,), ahead of the average."""

    def on_stage_end(self, learner: Learner) -> None:
        """The parameters are the stage's optimum; the current windows are still there."""

    def figures(self) -> dict[str, float]:
        """What the log should say about the last update, by name."""
        return {}

    def fisher_figures(self) -> dict[str, float] | None:
        """What the log should say about the Fisher that was estimated at the end of the last stage; None without one."""
        return None

    def kept(self) -> dict[str, int]:
        """What the hook keeps after a stage: item -> bytes."""
        return {}

    def arrays(self) -> dict[str, np.ndarray]:
        """What the hook remembers from stage to stage. Vectors over the weights have them along the last axis, and nothing is as long as there are
        tasks, so that a run can be given more of them (`more_tasks.laid_out`)."""
        return {}

    def load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        """Be the hook that gave these in `arrays` at the end of the last stage: called ahead of the next `on_stage_start`, on a new hook or on one
        that other processes of the run are ahead of, with an empty dictionary where nothing was given. What comes from a file may be
        anything: raise DamagedFile (see `saved_arrays.take`) for what does not fit."""

    def underway(self) -> dict[str, np.ndarray]:
        """What the hook has gathered since the stage began and `on_stage_start` would not give again."""
        return {}

    def load_underway(self, learner: Learner, arrays: dict[str, np.ndarray]) -> None:
        """Go on from what `underway` gave: called after `on_stage_start`, when parameters, average and optimizer are back where they were; empty
        and damaged arrays as in `load_arrays`."""


@dataclass(frozen=True)
class Method:
    """A continual-learning method: hooks, called in order.

    Attributes:
        target: what replayed windows are to predict unless the configuration says otherwise: the frozen teacher's noise
            (distillation) or the noise that was added.
    """

    name: str
    hooks: Sequence[Hook] = ()
    target: ReplayTarget = "teacher"

    def figures(self) -> dict[str, float]:
        """What the hooks say of the last update, for the log."""
        return {name: value for hook in self.hooks for name, value in hook.figures().items()}

    def fisher_figures(self) -> list[dict[str, float]]:
        """What the hooks say of the Fishers that were estimated at the end of the last stage, for the log."""
        return [figures for hook in self.hooks if (figures := hook.fisher_figures()) is not None]
