"""A figure of a method: over the seeds of a group of runs, or over the episodes of its only one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from reconverge.eval.intervals import Interval, mean_interval
from reconverge.eval.run_groups import RunGroup
from reconverge.eval.run_results import RunResults


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % bounds; `over` says where they come from: several seeds, or one seed's episodes."""

    interval: Interval
    over: Literal["seeds", "episodes"]


def estimate(group: RunGroup, figure: Callable[[RunResults], Interval]) -> Estimate:
    """The mean of a run's figure over the seeds of a group that measured it, by Student's t; of a single one the figure's own interval."""
    values = [figure(run) for run in group.runs]
    measured = [value for value in values if not math.isnan(value.mean)] or values[:1]
    return Estimate(measured[0], "episodes") if len(measured) == 1 else Estimate(mean_interval([value.mean for value in measured]), "seeds")
