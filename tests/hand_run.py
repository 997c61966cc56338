"""A run of three tasks whose successes are given by hand, and a group of such runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edited_run import with_updates
from synthetic_run import POINT_REACH, write_csv, write_run

from reconverge.eval.intervals import wilson
from reconverge.eval.run_groups import RunGroup
from reconverge.eval.run_results import RunResults, read_run

A, B, C = POINT_REACH
STAY = (10, 10, 10, 10)


def hand_run(folder: Path, method: str, seed: int, final: Sequence[int], curves: Sequence[Sequence[int]] = (STAY, STAY, STAY)) -> RunResults:
    """Three tasks, ten episodes a cell: 8, 9, 10 successes just after each was learned, `final` at the end.

    `curves` are successes of ten after 0, 2, 10, 50 updates for (A while B), (A while C), (B while C), with references 0.8, 0.8, 0.9.
    """
    with_updates(write_run(folder, method=method, seed=seed), 50)
    cells = [(1, A, 8), (2, A, 8), (2, B, 9), *((3, task, count) for task, count in zip(POINT_REACH, final, strict=True))]
    rows = [(stage, task, 10, count, count / 10, *wilson(count, 10)) for stage, task, count in cells]
    write_csv(folder / "success_matrix.csv", "stage,task,episodes,successes,rate,wilson_low,wilson_high", rows)
    points, figures = [], []
    for (stage, task, reference), counts in zip(((2, A, 0.8), (3, A, 0.8), (3, B, 0.9)), curves, strict=True):
        points += [("online", stage, task, update, 10, count) for update, count in zip((0, 2, 10, 50), counts, strict=True)]
        first = next((update for update, count in zip((2, 10, 50), counts[1:], strict=True) if count / 10 >= 0.9 * reference - 1e-9), "")
        figures.append(("online", stage, task, 90, first, max(0, reference - min(counts) / 10), 1.0, reference))
    write_csv(folder / "recovery_curves.csv", "kind,stage,task,update,episodes,successes", points)
    write_csv(folder / "recovery.csv", "kind,stage,task,threshold,updates,dip,dip_area,reference_rate", figures)
    return read_run(folder)


def group_of(*runs: RunResults) -> RunGroup:
    return RunGroup(runs[0].method, runs[0].method, runs)
