"""Checks that need neither checkpoints nor episodes, so that published tables can be verified too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from reconverge.launch.run_tables import CEILING_COLUMNS, MATRIX_COLUMNS, RECOVERY_COLUMNS, csv_text, rate_columns, recoveries
from reconverge.launch.verified_run import Check, VerifiedRun, compared, listed, numbered


def check_counts(run: VerifiedRun) -> Iterator[Check]:
    """Rates and intervals from the counts beside them, recovery from its curves; all that can be done with published tables."""
    for name, columns, whole in (("success_matrix.csv", MATRIX_COLUMNS, "episodes"), ("ceilings.csv", CEILING_COLUMNS, "attempts")):
        if run.has(name):
            rows = [{**row, **rate_columns(int(row["successes"]), int(row[whole]))} for row in run.rows(name)]
            yield compared(run, name, csv_text(columns, rows), "its own counts")
    if not (run.has("recovery.csv") and run.has("recovery_curves.csv")):
        yield Check("recovery.csv", "not checked", "it or recovery_curves.csv is not here")
        return
    found = run.rows("recovery.csv")
    reference = {(row["kind"], row["stage"], row["task"]): float(row["reference_rate"]) for row in found}
    yield from listed("recovery.csv", list(_other_references(run, found)))
    yield from listed("recovery_curves.csv", list(_torn_curves(run)))
    curves = [
        {**numbered(row), "reference_rate": reference[row["kind"], row["stage"], row["task"]]}
        for row in run.rows("recovery_curves.csv")
        if (row["kind"], row["stage"], row["task"]) in reference
    ]
    thresholds = list(dict.fromkeys(int(row["threshold"]) for row in found)) if run.config is None else list(run.config.recovery.thresholds)
    yield compared(run, "recovery.csv", csv_text(RECOVERY_COLUMNS, recoveries(curves, {}, thresholds)), "its curves")


def _other_references(run: VerifiedRun, found: Sequence[dict[str, str]]) -> Iterator[str]:
    """A task's reference is where its curve of the stage after it was last learned begins: both are the same episodes."""
    starts = {stage_and_task: points[0] for stage_and_task, points in _online_points(run).items() if points[0].update == 0}
    for number, row in enumerate(found, 1):
        stage, task = int(row["stage"]), row["task"]
        after = 1 + max((plan.number for plan in run.plans if plan.number < stage and task in [one.name for one in plan.tasks]), default=-1)
        point = starts.get((after, task))
        if row["kind"] == "online" and point is not None and point.episodes and point.rate != float(row["reference_rate"]):
            place = f"where its curve of stage {after} begins"
            yield f"row {number}, column reference_rate: found {row['reference_rate']}, expected {point.rate}, {place}"


def _torn_curves(run: VerifiedRun) -> Iterator[str]:
    """A curve goes on where that of the stage before ended, and both ends are among the episodes of the success matrix."""
    points, updates = _online_points(run), {plan.number: plan.updates for plan in run.plans}
    starts = {place: curve[0] for place, curve in points.items() if curve[0].update == 0}
    ends = {place: curve[-1] for place, curve in points.items() if curve[-1].update == updates.get(place[0])}
    for (stage, task), start in starts.items():
        before = ends.get((stage - 1, task))
        if before is not None and before.counts != start.counts:
            yield f"{task}, stage {stage}: begins with {start}, the stage before ended with {before}"
    cells = {(int(row["stage"]), row["task"]): row for row in run.rows("success_matrix.csv")}
    for shift, side in ((1, starts), (0, ends)):
        for (stage, task), point in side.items():
            at = stage - shift
            cell = cells.get((at, task))
            if cell is not None and not 0 <= int(cell["successes"]) - point.successes <= int(cell["episodes"]) - point.episodes:
                yield f"{task}, stage {stage}, update {point.update}: {point} cannot be among {cell['successes']} of {cell['episodes']} of the matrix"


class _Point(NamedTuple):
    update: int
    episodes: int
    successes: int

    @property
    def rate(self) -> float:
        return self.successes / self.episodes

    @property
    def counts(self) -> tuple[int, int]:
        return self.episodes, self.successes

    def __str__(self) -> str:
        return f"{self.successes} of {self.episodes}"


def _online_points(run: VerifiedRun) -> dict[tuple[int, str], list[_Point]]:
    """(stage, task) -> the points of its online curve, in order of updates."""
    found: dict[tuple[int, str], list[_Point]] = {}
    for row in run.rows("recovery_curves.csv"):
        if row["kind"] == "online":
            found.setdefault((int(row["stage"]), row["task"]), []).append(_Point(*(int(row[name]) for name in _Point._fields)))
    return {place: sorted(points) for place, points in found.items()}
