"""When learning goes wrong: a number that is not finite is named before a weight changes, a loss that leaps is noticed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from reconverge.envs.errors import DamagedFile, TrainingDiverged
from reconverge.policy.windows import WindowTable

if TYPE_CHECKING:
    from reconverge.policy.learner import Learner

WATCHED = ("loss", "replay_loss", "largest_gradient_norm")
MEMORY, FEWEST = 20, 8
"""Rows of the log that a new one is compared with, and how many of its stage there must be."""
LEAP, SPREAD = 10.0, 0.3
"""A robust z-score, of logarithms, that no healthy row reaches; and what is added to their spread, which may be nearly zero."""
ABSURD = 1e4
"""A loss, where predicting nothing costs 1, that is none whatever came before."""


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


class GradientWatch:
    """The norms of a stage's gradients: the largest of them, and the first update whose gradient is not finite.

    A CPU's figures are there at once. A GPU is not waited for: the optimizer gets a flag that stays on the device, and `check` raises later.

    Attributes:
        largest: (1,) norm since the last `take_largest`.
    """

    def __init__(self, device: torch.device) -> None:
        self.waits = device.type == "cpu"
        self.largest = torch.zeros(1, device=device)
        self._first_broken = torch.zeros((), dtype=torch.int64, device=device)  # the update; 0: none

    def see(self, norm: Tensor, learner: Learner, penalty: Tensor | None) -> Tensor | None:
        """Whether the `norm` () of an update's gradient is finite, () bool on its device; None where it is known to be.

        Raises TrainingDiverged where it is known not to be.
        """
        finite = norm.isfinite()
        torch.maximum(self.largest, norm, out=self.largest)
        if not self.waits:
            self._first_broken = torch.where(finite | (self._first_broken > 0), self._first_broken, learner.update_index)
            return finite
        if not finite:
            raise diverged(learner, penalty)
        return None

    def check(self, stage: int) -> None:
        """Raise TrainingDiverged when a gradient of this `stage` was not finite; waits for the device."""
        if update := int(self._first_broken):
            raise TrainingDiverged(f"the gradient is not finite at stage {stage}, update {update}; no weight was changed by it")

    def take_largest(self) -> float:
        """The largest norm since this was called before; waits for the device."""
        largest = float(self.largest)
        self.largest.zero_()
        return largest


def diverged(learner: Learner, penalty: Tensor | None) -> TrainingDiverged:
    """The error for an update whose gradient is not finite; what came first in the computation is named."""
    found = next(_broken(learner, penalty), "the gradient is not finite")
    return TrainingDiverged(f"{found} at stage {learner.stage}, update {learner.update_index}; no weight was changed by it")


def leap(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """What leaps in the last of a stage's rows of training figures, as a sentence's beginning; None for a healthy one.

    Of each of `WATCHED`, the logarithm x is compared with those of the last `MEMORY` rows: (x - median) / (1.4826 MAD + `SPREAD`).
    """
    *before, last = rows
    for name in WATCHED:
        value = last.get(name)
        if value is None or not value > 0:  # an own method's objective may have any sign
            continue
        words = f"the {name.replace('_', ' ')} is {value:.3g}"
        if "loss" in name and value > ABSURD:
            return f"{words}, where predicting nothing costs 1,"
        known = [math.log(row[name]) for row in before[-MEMORY:] if (row.get(name) or 0) > 0]
        if len(known) >= FEWEST:
            median = statistics.median(known)
            spread = 1.4826 * statistics.median(abs(one - median) for one in known) + SPREAD
            if math.log(value) - median > LEAP * spread:
                return f"{words} after {math.exp(median):.3g}"
    return None


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
