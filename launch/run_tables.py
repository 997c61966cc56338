"""The tables of a run. Only what happened is recorded; rates, curves and recovery are derived from it.

    recorded per stage      episodes, tasks that failed, training figures, Fisher health, ledger, FLOPs
    derived                 success_matrix.csv   from the episodes of purpose `matrix`
                            recovery_curves.csv  from those of purpose `recovery` and `learning`, and the matrix at both ends of a stage
                            recovery.csv         from the curves

What was not measured, because a task failed or all of its episodes were invalid, has no row in any of them: never a rate of 0.
Each stage's records lie in its checkpoint, and the files at the top of the run folder are written anew from all of
them: a run that was killed and resumed cannot have a row twice or half a row.
"""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from reconverge.envs.artifact import write_file
from reconverge.envs.errors import DamagedFile
from reconverge.envs.plain_json import LARGEST_RECORD, read_json
from reconverge.eval.intervals import wilson
from reconverge.eval.recovery import Curve, dip, dip_area, recovery_updates
from reconverge.eval.rollout import EpisodeResult, Rollouts
from reconverge.eval.run_results import Ceiling, Cell, CurvePoint, EpisodeRow, FailureRow, FisherHealth, LedgerItem, Recovery
from reconverge.eval.table_rows import columns_of

Row = dict[str, Any]

PROBES = "probes.json"
"""File of the curves that `recover` measured, from which the tables are written anew."""

CEILING_COLUMNS, EPISODE_COLUMNS, FAILURE_COLUMNS = columns_of(Ceiling), columns_of(EpisodeRow), columns_of(FailureRow)
MATRIX_COLUMNS, CURVE_COLUMNS, RECOVERY_COLUMNS = columns_of(Cell), columns_of(CurvePoint), columns_of(Recovery)
LEDGER_COLUMNS, FISHER_COLUMNS = columns_of(LedgerItem), columns_of(FisherHealth)


@dataclass
class StageRecord:
    """What happened in one stage; plain JSON values only. Stage 0 is the untrained policy."""

    stage: int
    tasks: list[str]
    updates: int
    episodes: list[Row] = field(default_factory=list)
    training: list[Row] = field(default_factory=list)
    fisher: list[Row] = field(default_factory=list)
    ledger: list[Row] = field(default_factory=list)
    failures: list[Row] = field(default_factory=list)
    flops: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> StageRecord:
        """From the JSON of a record. Raises TypeError unless it is one."""
        record = cls(**content)
        numbers, names = (record.stage, record.updates), record.tasks
        tables = (record.episodes, record.training, record.fisher, record.ledger, record.failures)
        fits = all(type(number) is int for number in numbers) and isinstance(names, list) and all(isinstance(name, str) for name in names)
        counts = record.flops
        fits = fits and isinstance(counts, dict) and all(isinstance(name, str) and type(count) is int for name, count in counts.items())
        if not (fits and all(isinstance(table, list) and all(isinstance(row, dict) for row in table) for table in tables)):
            raise TypeError("a value of another type than a stage's record has")
        return record

    def add_rollouts(self, purpose: str, update: int, done: Rollouts) -> None:
        """Its episodes, and the tasks that failed in it."""
        self.add_episodes(purpose, update, done.results)
        for failure in done.failures:
            self.failures.append({"stage": self.stage, "purpose": purpose, "update": update, **asdict(failure)})

    def add_episodes(self, purpose: str, update: int, results: Iterable[EpisodeResult]) -> None:
        for result in results:
            self.episodes.append({"purpose": purpose, "stage": self.stage, "update": update, **asdict(result)})


def read_probes(run: Path) -> list[Row]:
    """Curve rows that `recover` measured, kept as JSON; none where it has not been run. Raises DamagedFile."""
    path = run / PROBES
    try:
        rows = list(read_json(path, LARGEST_RECORD)) if path.exists() else []
        if all(isinstance(row, dict) and row.keys() >= {*CURVE_COLUMNS, "reference_rate", "settings"} for row in rows):
            return rows
    except (TypeError, DamagedFile):
        pass
    raise DamagedFile(f"{path} cannot be read; delete it and run `reconverge recover {run}` again")


def success_rates(episodes: Iterable[Mapping[str, Any]]) -> list[Row]:
    """The success matrix: one row per (stage, task), over valid episodes of purpose `matrix`."""
    cells: dict[tuple[int, str], list[bool]] = defaultdict(list)
    for row in episodes:
        if row["purpose"] == "matrix" and not row["invalid"]:
            cells[row["stage"], row["task"]].append(bool(row["success_any"]))
    return [{"stage": stage, "task": task, **rate_columns(sum(flags), len(flags))} for (stage, task), flags in cells.items()]


def rate_columns(successes: int, episodes: int) -> Row:
    low, high = wilson(successes, episodes)
    rate = successes / episodes if episodes else float("nan")
    return {"episodes": episodes, "successes": successes, "rate": rate, "wilson_low": low, "wilson_high": high}


def ceiling_row(task: str, successes: int, attempts: int) -> Row:
    """How often a task's expert succeeded while its demonstrations were collected."""
    columns = rate_columns(successes, attempts)
    return {"task": task, "attempts": columns.pop("episodes"), **columns}


def online_curve_rows(records: Sequence[StageRecord], episodes_per_point: int) -> list[Row]:
    """Success of every earlier task after each switch, on the same episodes at every point.

    The point at update 0 is the value before the switch, the last one that at the stage's end; both come from the
    matrix, cut to the episodes of a recovery point.
    """
    rows: list[Row] = []
    for before, record in pairwise(records):
        rows += _curve_rows("online", "recovery", record, before, episodes_per_point)
    return rows


def learning_curve_rows(records: Sequence[StageRecord], episodes_per_point: int) -> list[Row]:
    """Success of every stage's own task while it is learned, on the same episodes at every point; the last one is the matrix at the stage's end."""
    return [row for record in records for row in _curve_rows("learning", "learning", record, None, episodes_per_point)]


def _curve_rows(kind: str, purpose: str, record: StageRecord, before: StageRecord | None, episodes_per_point: int) -> list[Row]:
    """The curves of a stage's episodes of one purpose, task by task; with the stage `before` as their point at update 0."""
    rows: list[Row] = []
    points = [row for row in record.episodes if row["purpose"] == purpose]
    for task in dict.fromkeys(row["task"] for row in points):
        of_task = [row for row in points if row["task"] == task]
        by_update = {} if before is None else {0: first_episodes(before, task, episodes_per_point)}
        by_update |= {update: [row for row in of_task if row["update"] == update] for update in sorted({row["update"] for row in of_task})}
        by_update[record.updates] = first_episodes(record, task, episodes_per_point)
        rows += [_curve_row(kind, record.stage, task, update, at) for update, at in sorted(by_update.items())]
    return rows


def first_episodes(record: StageRecord, task: str, count: int) -> list[Row]:
    """The first `count` matrix episodes of a task at the end of a stage: those a recovery point uses."""
    return [row for row in record.episodes if row["purpose"] == "matrix" and row["task"] == task][:count]


def _curve_row(kind: str, stage: int, task: str, update: int, episodes: Sequence[Row]) -> Row:
    valid = [bool(row["success_any"]) for row in episodes if not row["invalid"]]
    return {"kind": kind, "stage": stage, "task": task, "update": update, "episodes": len(valid), "successes": sum(valid)}


def probe_curve_row(stage: int, task: str, update: int, results: Sequence[EpisodeResult], reference: float) -> Row:
    """A probe brings its reference along, over as many episodes as its points have."""
    return {**_curve_row("probe", stage, task, update, [asdict(result) for result in results]), "reference_rate": reference}


def recoveries(curves: Sequence[Row], references: Mapping[tuple[int, str], float], thresholds: Sequence[int]) -> list[Row]:
    """One row per (kind, stage, task, threshold); `references` holds each task's rate just after it was learned, by (stage, task)."""
    grouped: dict[tuple[str, int, str], list[Row]] = defaultdict(list)
    for row in curves:
        if row["episodes"]:
            grouped[row["kind"], row["stage"], row["task"]].append(row)
    rows = []
    for (kind, stage, task), points in grouped.items():
        reference = points[0].get("reference_rate", references.get((stage, task)))
        if points[0]["update"] != 0 or reference is None:  # before the switch, or just after it was learned, the task has no valid episode
            continue
        curve = Curve([point["update"] for point in points], [point["successes"] / point["episodes"] for point in points])
        fell = {"dip": dip(curve, reference), "dip_area": dip_area(curve, reference), "reference_rate": reference}
        for threshold in thresholds:
            updates = recovery_updates(curve, reference, threshold) if reference > 0 else None  # never learned: nothing to recover
            rows.append({"kind": kind, "stage": stage, "task": task, "threshold": threshold, "updates": updates, **fell})
    return rows


def reference_rates(records: Sequence[StageRecord], episodes_per_point: int) -> dict[tuple[int, str], float]:
    """(stage, earlier task) -> success just after the task was last learned before that stage, which learns another.

    Nothing where no episode was valid then.
    """
    references: dict[tuple[int, str], float] = {}
    learned: dict[str, float] = {}
    for record in records:
        references |= {(record.stage, task): rate for task, rate in learned.items() if task not in record.tasks}
        for task in record.tasks:
            valid = [bool(row["success_any"]) for row in first_episodes(record, task, episodes_per_point) if not row["invalid"]]
            learned.pop(task, None)
            if valid:
                learned[task] = sum(valid) / len(valid)
    return references


def write_tables(folder: Path, records: Sequence[StageRecord], probes: Sequence[Row], episodes_per_point: int, thresholds: Sequence[int]) -> None:
    """Write every table of the run folder that follows from the stages so far and the probe curves."""
    for name, text in table_texts(records, probes, episodes_per_point, thresholds).items():
        write_file(folder / name, text)


def table_texts(records: Sequence[StageRecord], probes: Sequence[Row], episodes_per_point: int, thresholds: Sequence[int]) -> dict[str, str]:
    """File name -> text of each of those tables.

    The success matrix comes last: by its stages a run counts as finished, with which all other tables must be there.
    """
    episodes = [row for record in records for row in record.episodes]
    curves = [*online_curve_rows(records, episodes_per_point), *learning_curve_rows(records, episodes_per_point), *probes]
    recovered = recoveries(curves, reference_rates(records, episodes_per_point), thresholds)
    return {
        "episodes.csv": csv_text(EPISODE_COLUMNS, episodes),
        "failures.csv": csv_text(FAILURE_COLUMNS, [row for record in records for row in record.failures]),
        "recovery_curves.csv": csv_text(CURVE_COLUMNS, curves),
        "recovery.csv": csv_text(RECOVERY_COLUMNS, recovered),
        "ledger.csv": csv_text(LEDGER_COLUMNS, [row for record in records for row in record.ledger]),
        "fisher.csv": csv_text(FISHER_COLUMNS, [row for record in records for row in record.fisher]),
        "metrics.jsonl": "".join(json.dumps(row) + "\n" for record in records for row in record.training),
        "success_matrix.csv": csv_text(MATRIX_COLUMNS, success_rates(episodes)),
    }


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    write_file(path, csv_text(columns, rows))


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return "" if value is None else value
