"""Whether a policy still learns as well as it did: success just after each task was first learned, task by task.

    L[j] = R[first stage of task j, j]                  just-learned success, in the order in which tasks are learned
    change        =  mean of the last third of L  -  mean of the first third          below zero: plasticity was lost
    beside single =  mean over tasks of L[j] - L_single[j]                            `single` learns each task from scratch

A worked example, six tasks (a third is two of them; of T tasks it is T // 3, at least one):

    task             1     2     3     4     5     6
    this method    0.90  0.80  0.80  0.70  0.60  0.60         change   0.60 - 0.85 = -0.25
    single         0.90  0.90  0.80  0.80  0.80  0.90         change   0.85 - 0.90 = -0.05         beside single   -0.70 / 6 = -0.1167

Tasks are not equally hard, so a change may be that of the tasks: `single`, which shares nothing between stages, shows how much of it is.
Intransigence (Chaudhry et al. 2018, arXiv 1801.10112) is the last line with its sign turned and joint training in place of `single`. A stage that
learns a task again, as in `cw20`, does not count: it asks how much was kept, not how well something new is learned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from reconverge.eval.estimate import Estimate, estimate
from reconverge.eval.intervals import Interval, combined_rates, mean_interval
from reconverge.eval.metrics import mean_measured
from reconverge.eval.run_groups import RunGroup
from reconverge.eval.run_results import RunResults

NOT_DEFINED = Interval(math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True)
class PlasticityRow:
    """Just-learned success of a method, rates in [0, 1] and differences in [-1, 1].

    Attributes:
        stages: (T,) of every task at the first stage that learned it, mean over seeds; NaN = not measured.
        first: mean of the first third of them, per seed; `last` of the last third; `change` is last - first.
        beside_single: mean over tasks of this method - single, over common seeds; NaN without them.
        common_seeds: those behind `beside_single`.
    """

    label: str
    seeds: int
    stages: tuple[float, ...]
    first: Estimate
    last: Estimate
    change: Estimate
    beside_single: Interval
    common_seeds: int


def just_learned_rates(run: RunResults) -> np.ndarray:
    """(T,) success on each task just after it was first learned; NaN = not measured, and all of `joint`."""
    return np.array([math.nan if place is None else run.cell_at[place].rate for place in _places(run)])


def thirds(run: RunResults) -> tuple[list[int], list[int]]:
    """The first and the last third of the tasks, counted from 0, over the whole curriculum."""
    count = len(run.tasks)
    size = max(1, count // 3)
    return (list(range(size)), list(range(count - size, count))) if count > 1 else ([], [])


def first_third(run: RunResults) -> Interval:
    """Mean just-learned success of the first third with the interval of its episodes."""
    return _weighted(run, {place: 1.0 for place in thirds(run)[0]})


def last_third(run: RunResults) -> Interval:
    """The same of the last third; NaN until one of its tasks was learned."""
    return _weighted(run, {place: 1.0 for place in thirds(run)[1]})


def change(run: RunResults) -> Interval:
    """Last third - first third, in [-1, 1]."""
    first, last = thirds(run)
    return _weighted(run, {**{place: -1.0 for place in first}, **{place: 1.0 for place in last}})


def plasticity_row(group: RunGroup, single: RunGroup | None) -> PlasticityRow | None:
    """None for a group without any just-learned success, such as `joint`; `single` must have learned the same stages."""
    learned = {run.seed: just_learned_rates(run) for run in group.runs}
    if all(np.isnan(rates).all() for rates in learned.values()):
        return None
    beside = {} if single is None or single is group else {run.seed: just_learned_rates(run) for run in single.runs}
    common = [seed for seed in learned if seed in beside]
    differences = [mean_measured(learned[seed] - beside[seed]) for seed in common]
    beside_single = mean_interval(differences)
    return PlasticityRow(
        label=group.label,
        seeds=len(learned),
        stages=tuple(map(mean_measured, np.array(list(learned.values())).T)),
        first=estimate(group, first_third),
        last=estimate(group, last_third),
        change=estimate(group, change),
        beside_single=beside_single,
        common_seeds=beside_single.size,
    )


def _places(run: RunResults) -> list[tuple[int, str] | None]:
    """The cell of the success matrix of each task just after the first stage that learned it; None where there is none."""
    places = zip(run.own_stage, run.tasks, strict=True)
    return [place if run.method != "joint" and place in run.cell_at and run.cell_at[place].episodes else None for place in places]


def _weighted(run: RunResults, signs: dict[int, float]) -> Interval:
    """Sum of sign x mean over the tasks of that sign that were measured; not defined where a sign has none."""
    places = _places(run)
    measured = {task: sign for task, sign in signs.items() if places[task] is not None}
    if not measured or set(measured.values()) != set(signs.values()):
        return NOT_DEFINED
    counts = {sign: list(measured.values()).count(sign) for sign in measured.values()}
    cells = [run.cell_at[place] for task in measured if (place := places[task]) is not None]
    weights = [sign / counts[sign] for sign in measured.values()]
    return combined_rates(weights, [cell.successes for cell in cells], [cell.episodes for cell in cells])._replace(of=len(measured))
