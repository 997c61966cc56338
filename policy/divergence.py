"""Which number was the first that is not finite, for the error that stops a run before its weights change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from reconverge.envs.errors import DamagedFile, TrainingDiverged
from reconverge.policy.windows import WindowTable

if TYPE_CHECKING:
    from reconverge.policy.learner import Learner


def check_windows(windows: WindowTable, tasks: tuple[str, ...]) -> None:
    """Raise DamagedFile when a window that is to be learned from holds a NaN or an infinity."""
    batch = windows.all()
    broken = ~(batch.observations.flatten(1).isfinite().all(1) & batch.actions.flatten(1).isfinite().all(1))
    if bool(broken.any()):
        first = int(broken.nonzero()[0])
        raise DamagedFile(
            f"{int(broken.sum())} of {len(broken)} windows of '{tasks[int(batch.task[first])]}' hold a number that is not finite, "
            f"the first at time {float(windows.times[first]):.2f} of its episode; collect its demonstrations anew"
        )


def diverged(learner: Learner, penalty: Tensor | None) -> TrainingDiverged:
    """The error for an update whose gradient is not finite; what came first in the computation is named."""
    found = next(_broken(learner, penalty), "the gradient is not finite")
    return TrainingDiverged(f"{found} at stage {learner.stage}, update {learner.update_index}; no weight was changed by it")


def _broken(learner: Learner, penalty: Tensor | None) -> Iterator[str]:
    """What is not finite among the things that make an update, each as a sentence's beginning."""
    if not bool(learner.parameters.values.isfinite().all()):
        yield "the weights are not finite"
    for hook in learner.method.hooks:
        for name, array in hook.arrays().items():
            if not bool(np.isfinite(array).all()):
                yield f"{name} of the {hook.name} is not finite"
    figures = {"loss": learner.last_losses.current, "replay loss": learner.last_losses.replay, "penalty": penalty}
    for name, value in figures.items():
        if value is not None and not bool(torch.isfinite(value)):
            yield f"the {name} is {float(value.detach())}"
