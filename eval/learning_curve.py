"""How fast the task of a stage is learned: the area under its success curve, and forward transfer as Continual World measures it.

    AUC_i  =  1/U  integral from 0 to U of p_i(u) du           p_i: success on task i after u of the U updates of its own stage
    FT_i   =  (AUC_i - AUC_i^single) / (1 - AUC_i^single)      single: the same task learned by a policy of its own, from scratch
    FT     =  mean over all tasks i of FT_i

Wolczyk et al. 2021 (arXiv 2105.10919), section 4. Above zero: what was learned before helps; below zero: it is in the way; 1: success from
the first update on. Theirs is a curve over environment steps, evaluated at equal distances; ours is one over updates at the points
of `evaluation.learning_grid`, joined by straight lines. A worked trace of U = 100 updates, three points between:

    updates            0     10     25     50    100
    success rate     0.00   0.20   0.60   0.80   0.80

    AUC   (10*0.1 + 15*0.4 + 25*0.7 + 50*0.8) / 100 = 0.645           FT beside a single-task AUC of 0.5:  0.145 / 0.5 = 0.29

`metrics.forward_transfer` is another quantity: success just before a task is learned, above that of the untrained policy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reconverge.eval.intervals import Interval, mean_interval
from reconverge.eval.recovery import Curve
from reconverge.eval.run_groups import RunGroup
from reconverge.eval.run_results import RunResults


@dataclass(frozen=True)
class LearningRow:
    """A method's learning curves: mean area in [0, 1] and forward transfer up to 1, each per seed, with Student's t over seeds.

    `transfer` is NaN for `single` itself, without runs of it beside, and where no task was evaluated at the same updates in both; `tasks` is
    how many went into it.
    """

    label: str
    seeds: int
    area: Interval
    transfer: Interval
    tasks: int


def area_under(curve: Curve | tuple[Sequence[int], Sequence[float]]) -> float:
    """Mean height in [0, 1] of a curve from its first to its last update: trapezoids over the distance between them."""
    updates, rates = np.asarray(curve[0], dtype=float), np.asarray(curve[1], dtype=float)
    if updates.ndim != 1 or updates.shape != rates.shape or len(updates) < 2:
        raise ValueError(f"an area needs as many updates as rates, at least two; got shapes {updates.shape} and {rates.shape}")
    if (np.diff(updates) <= 0).any():
        raise ValueError(f"updates of a curve ascend, got {updates.tolist()}")
    return float(np.trapezoid(rates, updates) / (updates[-1] - updates[0]))


def transfer(area: float, single: float) -> float:
    """FT_i of the areas of one task, at most 1; NaN where the single-task area is 1, so that nothing could be gained."""
    return (area - single) / (1 - single) if single < 1 else math.nan


def learning_curves(run: RunResults) -> dict[str, Curve]:
    """task -> its success curve over its own stage, the first in which it is learned; where both ends of the curve were measured."""
    curves = {}
    for task, own in zip(run.tasks, run.own_stage, strict=True):
        curve = run.curves.get(("learning", own, task))
        if curve is not None and (curve.updates[0], curve.updates[-1]) == (0, run.stage_updates[own - 1]):
            curves[task] = curve
    return curves


def learning_row(group: RunGroup, single: RunGroup | None) -> LearningRow | None:
    """The areas of a group, and its transfer beside the mean areas of the runs of `single`; None without a learning curve."""
    curves = [learning_curves(run) for run in group.runs]
    if not any(curves):
        return None
    areas = [_mean([area_under(curve) for curve in of_run.values()]) for of_run in curves]
    beside = {} if single is None or single is group else _mean_areas(single)
    gains = [
        [transfer(area_under(curve), beside[task, curve.updates]) for task, curve in of_run.items() if (task, curve.updates) in beside]
        for of_run in curves
    ]
    tasks = max(sum(not math.isnan(gain) for gain in of_run) for of_run in gains)
    return LearningRow(group.label, sum(map(bool, curves)), mean_interval(areas), mean_interval(list(map(_mean, gains))), tasks)


def _mean_areas(single: RunGroup) -> dict[tuple[str, Sequence[int]], float]:
    """(task, updates at which it was evaluated) -> mean area over the seeds: only curves of the same points are compared."""
    found: dict[tuple[str, Sequence[int]], list[float]] = {}
    for run in single.runs:
        for task, curve in learning_curves(run).items():
            found.setdefault((task, curve.updates), []).append(area_under(curve))
    return {key: _mean(areas) for key, areas in found.items()}


def _mean(values: Sequence[float]) -> float:
    """Of what is a number; NaN of none."""
    measured = [value for value in values if not math.isnan(value)]
    return float(np.mean(measured)) if measured else math.nan
