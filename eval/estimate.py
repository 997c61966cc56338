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
    """A figure with its 95 % bounds.

    Attributes:
        over: where they come from: several seeds, or one seed's episodes.
        seeds: those that count; none where no seed measured it.
    """

    interval: Interval
    over: Literal["seeds", "episodes"]
    seeds: tuple[int, ...]


def estimate(group: RunGroup, figure: Callable[[RunResults], Interval]) -> Estimate:
    """The mean of a run's figure over the seeds of a group that measured it, by Student's t; of a single one the figure's own interval.

    A seed that measured fewer tasks than another does not count: without its hard task, which failed in the simulator, its mean would be higher.
    """
    values = {run.seed: figure(run) for run in group.runs}
    measured = {seed: value for seed, value in values.items() if not math.isnan(value.mean)}
    most = max((value.of for value in measured.values()), default=0)
    whole = {seed: value for seed, value in measured.items() if value.of == most}
    if len(whole) > 1:
        return Estimate(mean_interval([value.mean for value in whole.values()]), "seeds", tuple(whole))
    return Estimate(next(iter(whole.values() or values.values())), "episodes", tuple(whole))
