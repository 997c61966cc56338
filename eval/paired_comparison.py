"""A method minus another over the seeds that both have, which share weights at the start, demonstrations and evaluation episodes.

What the two have in common cancels in every pair, so this tells them apart sooner than their two means do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reconverge.eval import metrics
from reconverge.eval.intervals import Interval, mean_interval
from reconverge.eval.metrics import mean_measured
from reconverge.eval.run_groups import RunGroup
from reconverge.eval.run_results import RunResults


@dataclass(frozen=True)
class PairedRow:
    """label - reference over the `seeds` in which both measured success at the end of a task, rates in [-1, 1]; no seeds: NaN."""

    label: str
    reference: str
    seeds: tuple[int, ...]
    success: Interval
    forgetting: Interval
    further: dict[str, Interval]


def paired_row(group: RunGroup, reference: RunGroup) -> PairedRow | None:
    """Differences over common seeds; None for other stages.

    A seed counts where both runs have got equally far, and in it the tasks that both measured: a hard task that failed in one of two simulators
    must not raise a mean on one side only.
    """
    if group.stages != reference.stages:
        return None
    other = {run.seed: run for run in reference.runs}
    pairs = [(run, other[run.seed]) for run in group.runs if run.seed in other and run.stages_done == other[run.seed].stages_done]
    success, lost, peak, backward = (
        mean_interval([mean_measured(figure(one) - figure(two)) for one, two in pairs])
        for figure in (success_per_task, _forgetting_per_stage, _peak_per_stage, _backward_per_stage)
    )
    further = {"peak forgetting": peak, "backward transfer": backward}
    compared = tuple(one.seed for one, two in pairs if not np.isnan(success_per_task(one) - success_per_task(two)).all())
    return PairedRow(group.label, reference.label, compared, success, lost, further)


def success_per_task(run: RunResults) -> np.ndarray:
    """(T,) success at the end of the tasks learned so far; NaN = not measured."""
    return np.where(np.array(run.own_stage) <= run.stages_done, run.matrix[-1], np.nan)


def _forgetting_per_stage(run: RunResults) -> np.ndarray:
    """(N,) `metrics.forgetting_per_task` of the stages so far; all NaN for `joint`, as `headlines.forgetting`."""
    lost = metrics.forgetting_per_task(run.by_stage)
    return np.full_like(lost, np.nan) if run.method == "joint" else lost


def _peak_per_stage(run: RunResults) -> np.ndarray:
    return metrics.forgetting_peak_per_task(run.by_stage)


def _backward_per_stage(run: RunResults) -> np.ndarray:
    return metrics.backward_transfer_per_task(run.by_stage)
