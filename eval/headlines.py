"""The handful of figures by which a run is judged, each with the noise of its finite number of evaluation episodes.

The value of each is that of `metrics`; the interval follows from the Wilson bounds of the cells it is made of. It says how far
the *same trained policy* could score elsewhere by luck of the episodes. What other seeds would give is a matter of several
runs: see `intervals.mean_interval`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from reconverge.eval import metrics, recovery
from reconverge.eval.intervals import Interval, combined_rates
from reconverge.eval.run_results import Recovery, RunResults
from reconverge.eval.survival import MedianUpdates, median_updates

Term = tuple[float, int, str]
"""(weight, stage, task) of a cell in a linear figure."""


@dataclass(frozen=True)
class RecoveryHeadline:
    """Recovery at one threshold over all (old task, transition) pairs of a run whose old task had been learned at all.

    Attributes:
        dipped: the pairs that fell below the threshold, and their Kaplan-Meier median of updates until they were back after the bottom.
        first: the published count, the first time at or above the threshold, of all pairs; of one without a dip that is the floor of the grid.
        without_curve: pairs beside these that are left out, because their curve is not in the folder.
    """

    threshold: int
    pairs: int
    dipped: MedianUpdates
    first: MedianUpdates
    without_curve: int


def final_success(run: RunResults) -> Interval:
    """`metrics.average_success`: mean over the tasks learned so far, after the last finished stage."""
    return success_after(run, run.stages_done)


def success_after(run: RunResults, stage: int) -> Interval:
    """An entry of `metrics.average_success_over_stages`: mean over the tasks learned up to a stage, after it."""
    return _linear(run, ([(1.0, stage, task)] for task, own in zip(run.tasks, run.own_stage, strict=True) if own <= stage))


def task_success(run: RunResults, task: str) -> Interval:
    """Success on one task after the last finished stage; NaN for one that is still to be learned."""
    return _linear(run, ([(1.0, run.stages_done, learned)] for learned in _tasks_learned(run) if learned == task))


def forgetting(run: RunResults) -> Interval:
    """`metrics.forgetting_end_of_own_task`; not defined for `joint`, which has no task of its own at any stage."""
    if run.method == "joint":
        return Interval(math.nan, math.nan, math.nan, 0)
    return _linear(run, ([(1.0, stage, task), (-1.0, run.stages_done, task)] for stage, task in _learned(run)))


def just_learned(run: RunResults) -> Interval:
    """Mean over stages of success on the task that each had just learned; not defined for `joint`, like `forgetting`, which it is the start of."""
    if run.method == "joint":
        return Interval(math.nan, math.nan, math.nan, 0)
    return _linear(run, ([(1.0, stage, task)] for stage, task in _learned(run)))


def backward_transfer(run: RunResults) -> Interval:
    """`metrics.backward_transfer`."""
    return _linear(run, ([(1.0, run.stages_done, task), (-1.0, stage, task)] for stage, task in _learned(run) if stage < run.stages_done))


def peak_forgetting(run: RunResults) -> Interval:
    """`metrics.forgetting_peak`, without bounds: that of a maximum over noisy rates has no closed form."""
    lost = metrics.forgetting_peak_per_task(run.by_stage)
    return Interval(metrics.mean_measured(lost), math.nan, math.nan, 0, of=int((~np.isnan(lost)).sum()))


def forward_transfer(run: RunResults) -> Interval:
    """`metrics.forward_transfer`."""
    pairs = zip(run.tasks, run.own_stage, strict=True)
    return _linear(run, ([(1.0, own - 1, task), (-1.0, 0, task)] for task, own in pairs if 1 < own <= run.stages_done + 1))


def played_at(method: str, stages: Sequence[str], stage: int, task: str) -> int:
    """The stage whose policy played a cell of the matrix: `stage`, but for `single`, which copies the row of the stage that last learned the task."""
    if method != "single":
        return stage
    return max((number for number, learned in enumerate(stages[:stage], start=1) if learned == task), default=stage)


def recovery_headline(run: RunResults, threshold: int = 90) -> RecoveryHeadline:
    """Online recovery of a run at `threshold` percent, or at the measured threshold nearest to it."""
    measured = sorted({row.threshold for row in run.recoveries if row.kind == "online"}, key=lambda found: abs(found - threshold))
    nearest = measured[0] if measured else threshold
    learned = [row for row in run.recoveries if row.kind == "online" and row.threshold == nearest and row.reference_rate > 0]
    rows = [row for row in learned if has_curve(run, row)]
    dipped = [row for row in rows if not is_steady(run, row)]
    return RecoveryHeadline(
        threshold=nearest,
        pairs=len(rows),
        dipped=median_updates([after_dip_of(run, row) for row in dipped], [points_of(run, row)[-1] for row in dipped]),
        first=median_updates([row.updates for row in rows], [points_of(run, row)[-1] for row in rows]),
        without_curve=len(learned) - len(rows),
    )


def has_curve(run: RunResults, row: Recovery) -> bool:
    """Whether a recovery's curve, from the switch on, is in the folder; without it nobody knows when a "never" was last looked for."""
    curve = run.curves.get((row.kind, row.stage, row.task))
    return curve is not None and curve.updates[0] == 0


def points_of(run: RunResults, row: Recovery) -> tuple[int, ...]:
    """The updates at which a recovery that has its curve was looked for."""
    return tuple(map(int, _curve(run, row).updates))


def after_dip_of(run: RunResults, row: Recovery) -> int | None:
    """Updates to recovery after the bottom of the dip; the row's own count where its curve is not in the folder."""
    if not has_curve(run, row):
        return row.updates
    return recovery.updates_after_dip(_curve(run, row), row.reference_rate, row.threshold)


def is_steady(run: RunResults, row: Recovery) -> bool:
    """Whether the task never fell below the threshold, so that its `updates` is the floor of the grid and not a recovery."""
    if not has_curve(run, row):
        return row.dip <= (1 - row.threshold / 100) * row.reference_rate + recovery.TOLERANCE
    return recovery.no_dip(_curve(run, row), row.reference_rate, row.threshold)


def ends_below(run: RunResults, row: Recovery) -> tuple[bool, bool]:
    """Whether the first and the last point of a recovery that has its curve lie below the threshold."""
    return recovery.ends_below(_curve(run, row), row.reference_rate, row.threshold)


def _curve(run: RunResults, row: Recovery) -> recovery.Curve:
    return run.curves[row.kind, row.stage, row.task]


def _learned(run: RunResults) -> list[tuple[int, str]]:
    """(stage, its task) of the stages so far."""
    return list(enumerate(run.stages[: run.stages_done], start=1))


def _tasks_learned(run: RunResults) -> list[str]:
    return [task for task, own in zip(run.tasks, run.own_stage, strict=True) if own <= run.stages_done]


def _linear(run: RunResults, contributions: Iterable[list[Term]]) -> Interval:
    """Mean over tasks, or stages, of a signed sum of cells; those that lack a cell are left out, nothing at all is NaN."""
    places = ([(weight, played_at(run.method, run.stages, stage, task), task) for weight, stage, task in terms] for terms in contributions)
    measured = [terms for terms in places if all(_has(run, stage, task) for _, stage, task in terms)]
    if not measured:
        return Interval(math.nan, math.nan, math.nan, 0)
    weights: dict[tuple[int, str], float] = defaultdict(float)
    for terms in measured:
        for weight, stage, task in terms:
            weights[stage, task] += weight / len(measured)  # a cell that is subtracted from itself, or from a copy, cancels
    cells = [run.cell_at[place] for place in weights]
    figure = combined_rates(list(weights.values()), [cell.successes for cell in cells], [cell.episodes for cell in cells])
    return figure._replace(of=len(measured))


def _has(run: RunResults, stage: int, task: str) -> bool:
    cell = run.cell_at.get((stage, task))
    return cell is not None and cell.episodes > 0
