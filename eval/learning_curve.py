"""How fast the task of a stage is learned: the area under its success curve, and forward transfer as Continual World measures it.

    AUC_i  =  1/U  integral from 0 to U of p_i(u) du           p_i: success on task i after u of the U updates of its own stage
    FT_i   =  (AUC_i - AUC_i^single) / (1 - AUC_i^single)      single: the same task learned by a policy of its own, from scratch
    FT     =  mean over all stages i of FT_i                          both of the same seed

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
from reconverge.eval.metrics import mean_measured
from reconverge.eval.recovery import Curve
from reconverge.eval.run_groups import RunGroup
from reconverge.eval.run_results import RunResults


@dataclass(frozen=True)
class LearningRow:
    """A method's learning curves: mean area in [0, 1] and forward transfer up to 1, each per seed, with Student's t over seeds.

    `transfer` is NaN for `single` itself, without runs of it beside, and where no task was evaluated at the same updates in both; `tasks` is
    how many stages went into it, `common_seeds` how many seeds that `single` has too.
    """

    label: str
    seeds: int
    area: Interval
    transfer: Interval
    common_seeds: int
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


def learning_curves(run: RunResults) -> dict[int, Curve]:
    """Stage, counted from 1 -> the success curve of its task; where both ends of the curve were measured.

    A task that is learned twice has two. The second begins with what is left of the first.
    """
    curves = {}
    for stage, task in enumerate(run.stages, start=1):
        curve = run.curves.get(("learning", stage, task))
        if curve is not None and (curve.updates[0], curve.updates[-1]) == (0, run.stage_updates[stage - 1]):
            curves[stage] = curve
    return curves


def learning_row(group: RunGroup, single: RunGroup | None) -> LearningRow | None:
    """The areas of a group, and its transfer beside `single` over the seeds that both have; None without a learning curve.

    Seed by seed, so that the interval of the transfer holds the noise of `single` too.
    """
    curves = {run.seed: learning_curves(run) for run in group.runs}
    if not any(curves.values()):
        return None
    areas = [mean_measured([area_under(curve) for curve in of_run.values()]) for of_run in curves.values()]
    beside = {} if single is None or single is group else {run.seed: learning_curves(run) for run in single.runs}
    gains = [_gains(of_run, beside[seed]) for seed, of_run in curves.items() if seed in beside]
    gained = mean_interval(list(map(mean_measured, gains)))
    tasks = max((len(of_seed) for of_seed in gains), default=0)
    return LearningRow(group.label, sum(map(bool, curves.values())), mean_interval(areas), gained, gained.size, tasks)


def _gains(own: dict[int, Curve], single: dict[int, Curve]) -> list[float]:
    """The transfer of every stage whose two curves have the same points, where it is defined."""
    common = [stage for stage in own if stage in single and own[stage].updates == single[stage].updates]
    gains = [transfer(area_under(own[stage]), area_under(single[stage])) for stage in common]
    return [gain for gain in gains if not math.isnan(gain)]
