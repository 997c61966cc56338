"""Checks of a run's tables: each by itself, against the records in the checkpoints, and against the single episodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict

from reconverge.envs.errors import DamagedFile
from reconverge.envs.plain_json import parse_json, read_json_object
from reconverge.launch.checkpoint import finished_stages
from reconverge.launch.run_tables import MATRIX_COLUMNS, StageRecord, csv_text, success_rates
from reconverge.launch.seal import SEAL
from reconverge.launch.verified_run import Check, VerifiedRun, compared, listed

KEYS = {
    "ceilings.csv": ("task",),
    "success_matrix.csv": ("stage", "task"),
    "recovery_curves.csv": ("kind", "stage", "task", "update"),
    "recovery.csv": ("kind", "stage", "task", "threshold"),
    "episodes.csv": ("purpose", "stage", "update", "task", "episode_seed"),
    "fisher.csv": ("stage", "task"),
}
"""Columns that tell the rows of a table apart."""
RATES = ("rate", "wilson_low", "wilson_high", "reference_rate", "dip")
FLAGS = ("success_any", "success_final", "invalid", "past_task_data")
FROM_EPISODES = ("success_matrix.csv", "recovery_curves.csv", "recovery.csv")


def check_tables(run: VerifiedRun) -> Iterator[Check]:
    """Every table by itself: no row twice, every rate between 0 and 1, every flag 0 or 1."""
    if run.half_written:
        yield Check("tables", "not checked", "the run was killed while they were written; `reconverge train --resume` writes them anew")
        return
    seen = 0
    for path in sorted(run.path.glob("*.csv")):
        rows, wrong = run.rows(path.name), []
        header = list(rows[0]) if rows else []
        keys = [key for key in KEYS.get(path.name, ()) if key in header] or header
        counts = Counter(tuple(row[key] for key in keys) for row in rows)
        for number, row in enumerate(rows, 1):
            wrong += [f"row {number}, column {column}: {row[column]!r}; {what}" for column, what in _out_of_range(row)]
        wrong += [f"{times} rows for {', '.join(map(str, key))}" for key, times in counts.items() if times > 1]
        yield from listed(path.name, wrong)
        seen += not wrong
    if seen:
        yield Check("tables", "ok", f"{seen} of {len(list(run.path.glob('*.csv')))} without a double row, every rate within [0, 1]")


def _out_of_range(row: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(column, what is wrong with it)."""
    for column in RATES:
        if row.get(column, "nan") != "nan" and not 0.0 <= _number(row[column]) <= 1.0:
            yield column, "a rate lies within [0, 1]"
    for column in FLAGS:
        if row.get(column, "0") not in ("0", "1"):
            yield column, "0 or 1 was expected"
    if "successes" in row and not 0 <= _number(row["successes"]) <= _number(row.get("episodes") or row.get("attempts") or "nan"):
        yield "successes", "more than there are episodes, or no number"


def check_against_records(run: VerifiedRun) -> Iterator[Check]:
    """Every table, written anew from the checkpoints' records and compared byte by byte."""
    if not finished_stages(run.folder.checkpoints):
        return
    if run.damaged or run.config is None:
        yield Check("from records", "not checked", "a checkpoint or the configuration is damaged, so the tables cannot be made from them")
        return
    for name, expected in sorted(run.texts(run.records).items()):
        if not run.has(name):
            empty = len(expected.splitlines()) <= 1
            yield Check(name, "not checked" if empty else "DIFFERS", "it is not there; it would be empty" if empty else "it is missing")
        elif name == "metrics.jsonl":
            yield _live_log(run, expected)
        else:
            yield compared(run, name, expected, "the checkpoints' records")


def _live_log(run: VerifiedRun, expected: str) -> Check:
    """metrics.jsonl runs ahead of the checkpoints while a stage is learned; its last lines may belong to no checkpoint yet."""
    found, last = run.text("metrics.jsonl"), max(record.stage for record in run.records)
    ahead = found[len(expected) :] if found.startswith(expected) else ""
    if ahead and last < run.plans[-1].number and all(_stage_of(line) > last for line in ahead.splitlines()):
        words = f"{len(ahead.splitlines())} lines belong to a stage that is not finished"
        return Check("metrics.jsonl", "ok", f"as the checkpoints' records give it; {words}")
    return compared(run, "metrics.jsonl", expected, "the checkpoints' records")


def check_episodes(run: VerifiedRun) -> Iterator[Check]:
    """Every evaluation is over the first episodes of the task's list in its split, all of them, each once, in order."""
    from dataclasses import replace

    from reconverge.envs.tasks import find_task
    from reconverge.eval.rollout import evaluation_seeds

    if not run.has("episodes.csv"):
        yield Check("episodes.csv", "not checked", "it is not here: single episodes and their seeds cannot be checked")
        return
    played: dict[tuple[str, str, str, str], list[int]] = {}
    for row in run.rows("episodes.csv"):
        played.setdefault((row["purpose"], row["stage"], row["update"], row["task"]), []).append(int(row["episode_seed"]))
    given_up, wrong = {row["task"] for row in run.rows("failures.csv")} if run.has("failures.csv") else set(), []
    split = "test" if run.config is None else run.config.evaluation.split
    anyone = find_task("point-reach-0")  # a seed depends on the task's name alone, and a gym: task may not be installed here
    for (purpose, stage, update, task), seeds in played.items():
        expected = evaluation_seeds(replace(anyone, name=task), len(seeds), split)
        place = f"{purpose} of {task}, stage {stage}, update {update}"
        if seeds != expected:
            first = next(number for number, (one, other) in enumerate(zip(seeds, expected, strict=True)) if one != other)
            wrong.append(f"{place}: episode {first + 1} has seed {seeds[first]}, expected {expected[first]}")
        planned = _episodes_planned(run, purpose)
        if planned is not None and len(seeds) != planned and task not in given_up:
            wrong.append(f"{place}: {len(seeds)} episodes, expected {planned}")
    yield from listed("episodes.csv", wrong)
    if not wrong:
        yield Check("episodes.csv", "ok", f"{sum(map(len, played.values()))} episodes, every seed that of the evaluation list")
    counted = read_json_object(run.folder.cost_json).get("episodes_evaluated") if run.has("cost.json") else None
    whole = sum(map(len, played.values()))  # earlier versions counted copies too
    once = sum(len(seeds) for (purpose, stage, _, task), seeds in played.items() if not run.is_copy(purpose, int(stage), task))
    rows = [row for record in run.records[:-1] for row in record.episodes]
    before = sum(not run.is_copy(row["purpose"], row["stage"], row["task"]) for row in rows)  # cost.json is written after the tables
    if counted not in (None, once, whole) and (run.has(SEAL) or counted not in (before, len(rows))):
        yield Check("cost.json", "DIFFERS", f"episodes_evaluated: found {counted}, expected {once}")


def _episodes_planned(run: VerifiedRun, purpose: str) -> int | None:
    if run.config is None:
        return None
    of_curves = run.config.recovery.episodes
    return {"matrix": run.config.evaluation.episodes, "recovery": of_curves, "learning": of_curves}.get(purpose)


def check_against_episodes(run: VerifiedRun) -> Iterator[Check]:
    """Success matrix and recovery, made from episodes.csv alone."""
    from reconverge.eval.run_results import EpisodeRow
    from reconverge.eval.table_rows import read_table

    if not run.has("episodes.csv"):
        return
    episodes = [asdict(row) for row in read_table(run.path / "episodes.csv", EpisodeRow)]
    if run.config is None:
        yield compared(run, "success_matrix.csv", csv_text(MATRIX_COLUMNS, success_rates(episodes)), "the rows of episodes.csv")
        return
    of_stage = {plan.number: plan for plan in run.plans}
    records = []
    for stage in sorted({row["stage"] for row in episodes}):
        tasks, updates = ([task.name for task in of_stage[stage].tasks], of_stage[stage].updates) if stage in of_stage else ([], 0)
        records.append(StageRecord(stage, tasks, updates, [row for row in episodes if row["stage"] == stage]))
    for name, expected in sorted(run.texts(records).items()):
        if name in FROM_EPISODES and run.has(name):
            yield compared(run, name, expected, "the rows of episodes.csv")


def check_stages(run: VerifiedRun) -> Iterator[Check]:
    """The tables speak of stages that were planned, and of none without a checkpoint."""
    rows = run.rows("success_matrix.csv")
    if not rows or not run.plans:
        yield Check("stages", "not checked", "no success matrix here yet, or the settings cannot be read")
        return
    failed = [row for row in run.rows("failures.csv") if row["purpose"] == "matrix"]  # a stage of which every task failed has no other rows
    shown, planned = sorted({int(row["stage"]) for row in [*rows, *failed]}), [plan.number for plan in run.plans]
    kept = finished_stages(run.folder.checkpoints)
    wrong = [f"success_matrix.csv has stage {stage}, which was not planned" for stage in shown if stage not in (0, *planned)]
    expected = [stage for stage in planned if stage <= shown[-1]]
    wrong += [f"success_matrix.csv lacks stage {stage}" for stage in expected if stage not in shown]
    if kept:
        wrong += [f"stage {stage} has a checkpoint and no row" for stage in kept if stage not in shown and stage in planned]
        wrong += [f"the tables end with stage {shown[-1]}, the checkpoints with stage {kept[-1]}"] if shown[-1] != kept[-1] else []
        wrong += [f"stage {stage} has no checkpoint" for stage in expected if stage not in kept]
    wrong += [
        f"checkpoint {record.stage:02d} is of {', '.join(record.tasks)} with {record.updates} updates, planned was another stage"
        for record in run.records
        for plan in run.plans
        if plan.number == record.stage and ([task.name for task in plan.tasks], plan.updates) != (record.tasks, record.updates)
    ]
    yield from listed("stages", wrong)
    if not wrong:
        yield Check("stages", "ok", f"{shown[-1]} of {planned[-1]}, {'each with its checkpoint' if kept else 'without checkpoints here'}")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _stage_of(line: str) -> int:
    try:
        return int(parse_json(line.encode(), "metrics.jsonl", unmeasured=True)["stage"])
    except (DamagedFile, ValueError, KeyError, TypeError, OverflowError):
        return -1
