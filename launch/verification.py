"""Whether a run folder still says what was measured: every byte against its hash, every figure against what it follows from.

    files.json ---------> every file of the folder            hashes of what was there when the run let go of the folder
    manifest.json ------> checkpoints, demonstrations         hashes of their own
    records ------------> every table                         written anew in another place and compared, byte by byte
    episodes.csv -------> success matrix, recovery            the same, also where there are no checkpoints (published tables)
    counts -------------> rates, intervals, recovery          where there are no episodes either

Nothing in the run folder is written. A check that cannot be made says why; one that breaks is a finding, never a traceback.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from reconverge.envs.artifact import MANIFEST, Artifact
from reconverge.envs.bounded_file import read_bounded
from reconverge.envs.errors import DamagedFile, ReconvergeError
from reconverge.envs.plain_json import LARGEST_RECORD, parse_json, read_json, read_json_object
from reconverge.eval.headlines import played_at
from reconverge.eval.run_results import LARGEST_TABLE
from reconverge.launch.checkpoint import finished_stages, read_record
from reconverge.launch.config import RunConfig
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.run_tables import (
    CEILING_COLUMNS,
    MATRIX_COLUMNS,
    RECOVERY_COLUMNS,
    StageRecord,
    csv_text,
    rate_columns,
    recoveries,
    success_rates,
    table_texts,
)  # fmt: skip
from reconverge.launch.seal import SEAL, broken_seals, sealed_files
from reconverge.launch.stage_plan import StagePlan, demonstration_budgets, plan_stages, run_curriculum
from reconverge.launch.table_differences import table_differences

SHOWN = 3
"""Differences of one table that are printed; of more only the number is given."""
TABLE_SUFFIXES = (".csv", ".json", ".jsonl", ".yaml")
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
FROM_TABLES = ("records", "episodes.csv", "from episodes", "from counts", "stages")
"""Checks that hold one table against another, or against the last checkpoint."""
FROM_EPISODES = ("success_matrix.csv", "recovery_curves.csv", "recovery.csv")

Row = dict[str, Any]
Outcome = Literal["ok", "DIFFERS", "not checked"]


@dataclass(frozen=True)
class Check:
    """What was checked and how it came out, in a line."""

    subject: str
    outcome: Outcome
    detail: str

    def __str__(self) -> str:
        return f"{self.outcome:<11} {self.subject:<22} {self.detail}"


def verify(path: Path) -> Iterator[Check]:
    """All checks of a run folder, or of one with a run's published tables, as they are made. What cannot be read is a finding, no error."""
    run = _Run(path)
    parts: dict[str, Callable[[_Run], Iterable[Check]]] = {
        SEAL: _seal, "config.yaml": _settings, "checkpoints": _checkpoints, "demonstrations": _demonstrations, "tables": _tables,
        "records": _from_records, "episodes.csv": _episodes, "from episodes": _from_episodes, "from counts": _from_counts, "stages": _stages,
    }  # fmt: skip
    for subject, part in parts.items():
        if subject in FROM_TABLES and run.half_written:
            continue
        try:
            yield from part(run)
        except (ReconvergeError, OSError) as error:
            yield Check(subject, "DIFFERS", " ".join(str(error).split())[:500])
        except Exception as error:  # whatever a damaged file can lead to
            yield Check(subject, "DIFFERS", f"it cannot be understood ({type(error).__name__}: {' '.join(str(error).split())[:300]})")


class _Run:
    """A folder and what several checks need of it, read once."""

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, RunFolder(path)

    @cached_property
    def config(self) -> RunConfig | None:
        """None where it cannot be read, which `_settings` reports."""
        try:
            return self.folder.config
        except (ReconvergeError, OSError):
            return None

    @cached_property
    def plans(self) -> list[StagePlan]:
        return [] if self.config is None else plan_stages(self.config, run_curriculum(self.folder, self.config))

    @cached_property
    def records(self) -> list[StageRecord]:
        """Of the sound checkpoints, up to the first that is damaged."""
        found = []
        for stage in finished_stages(self.folder.checkpoints):
            try:
                found.append(read_record(self.folder.checkpoint(stage))[0])
            except ReconvergeError:
                break
        return found

    @cached_property
    def damaged(self) -> bool:
        """Whether a checkpoint is, so that the tables cannot be made from all of them."""
        return len(self.records) < len(finished_stages(self.folder.checkpoints))

    @cached_property
    def half_written(self) -> bool:
        """Whether the run was killed while it wrote its tables: the first ones follow from all checkpoints, the others from all but the last."""
        if self.has(SEAL) or self.damaged or self.config is None or not self.records:
            return False
        now, before = self.texts(self.records), self.texts(self.records[:-1])
        found = [(name, self.text(name) if self.has(name) else None) for name in now]
        left = list(itertools.dropwhile(lambda entry: entry[1] == now[entry[0]], found))
        first = len(self.records) == 1  # no table was written before
        return bool(left) and all(text == before[name] or (text is None and first) or _ran_ahead(name, text, now[name]) for name, text in left)

    def texts(self, records: Sequence[StageRecord]) -> dict[str, str]:
        """File name -> text of every table that follows from the records, by the functions that wrote the run's own, in their order."""
        assert self.config is not None
        return table_texts(records, self.probes(), self.config.recovery.episodes, self.config.recovery.thresholds)

    def is_copy(self, purpose: str, stage: int, task: str) -> bool:
        """Whether these episodes were played in an earlier stage, whose policy `single` keeps for the task."""
        if purpose != "matrix" or self.config is None or self.config.method != "single":
            return False
        return played_at("single", [plan.tasks[0].name for plan in self.plans], stage, task) != stage

    def has(self, name: str) -> bool:
        return (self.path / name).exists()

    def text(self, name: str) -> str:
        try:
            return read_bounded(self.path / name, LARGEST_TABLE).decode("utf-8")
        except UnicodeDecodeError as error:
            raise DamagedFile(f"{name}: byte {error.start} is not UTF-8") from error

    def rows(self, name: str) -> list[dict[str, str]]:
        """The rows of a table as text; none where it is not there."""
        return list(csv.DictReader(io.StringIO(self.text(name)), restval="", restkey="")) if self.has(name) else []

    def probes(self) -> list[Row]:
        """The probes' curves: as `recover` kept them, or as the tables say where only those were published."""
        if self.has("probes.json"):
            return list(read_json(self.path / "probes.json", LARGEST_RECORD))
        reference = {(row["stage"], row["task"]): float(row["reference_rate"]) for row in self.rows("recovery.csv") if row["kind"] == "probe"}
        points = [row for row in self.rows("recovery_curves.csv") if row["kind"] == "probe"]
        return [{**_numbered(row), "reference_rate": reference.get((row["stage"], row["task"]), 0.0)} for row in points]


# Bytes -----------------------------------------------------------------------------------------------------------------------------------------


def _seal(run: _Run) -> Iterator[Check]:
    """Every file that the run listed when it let go of the folder; and no table beside them."""
    if not run.has(SEAL):
        yield Check(SEAL, "not checked", "there is none: the run is going on, was killed, or is older; settings, report and videos have no hashes")
        return
    seal = read_json_object(run.path / SEAL)
    listed = seal.get("files")
    if seal.get("version") != 1 or not isinstance(listed, dict) or not all(_is_entry(entry) for entry in listed.values()):
        raise DamagedFile(f"{SEAL} is damaged: a version or an entry is none that reconverge writes")
    later = {str(path.relative_to(run.path)) for path in sealed_files(run.path)} - set(listed)
    harmless = {f"{name} came later" for name in later if "/" in name or not name.endswith(TABLE_SUFFIXES)}
    changed = [words for words in broken_seals(run.path, listed) if words not in harmless]
    for words in changed:
        yield Check(SEAL, "DIFFERS", words)
    if not changed:
        yield Check(SEAL, "ok", f"{len(listed)} files are as they were when the run ended{f'; {len(harmless)} came later' if harmless else ''}")


def _settings(run: _Run) -> Iterator[Check]:
    """Whether the files that say what was run can be read."""
    config = run.folder.config  # raises what is wrong with it
    run_curriculum(run.folder, config)
    fingerprint = read_json_object(run.folder.fingerprint_json)
    if not isinstance(fingerprint.get("versions"), dict):
        raise DamagedFile("fingerprint.json names no versions")
    if not run.folder.command_txt.read_text().startswith("reconverge "):
        yield Check("command.txt", "DIFFERS", "it does not begin with `reconverge`")
    resumed = fingerprint.get("resumed_with")
    exact = f"; it went on under other versions ({', '.join(map(str, resumed))}), so its figures repeat approximately" if resumed else ""
    yield Check("settings", "ok", f"config.yaml, curriculum.yaml, fingerprint.json and command.txt can be read{exact}")


def _checkpoints(run: _Run) -> Iterator[Check]:
    """Every checkpoint and save against the hashes in its manifest."""
    folders = sorted(path for path in run.folder.checkpoints.glob("stage-*") if path.is_dir())
    if not folders:
        alone = "neither weights nor, without hashes in files.json, ledger.csv, fisher.csv, metrics.jsonl and cost.json can be checked"
        yield Check("checkpoints", "not checked", f"there are none here: {alone}")
    for folder in folders:
        name = f"checkpoint {folder.name.removeprefix('stage-')}"
        try:
            artifact = Artifact(folder)
            _refuse_unlisted(folder)
        except (ReconvergeError, OSError) as error:
            yield Check(name, "DIFFERS", str(error))
        else:
            size = sum(len(artifact.bytes(file)) for file in artifact.names)
            yield Check(name, "ok", f"{len(artifact.names)} files, {size / 1e6:.1f} MB, match their hashes")


def _refuse_unlisted(folder: Path) -> None:
    """Raise DamagedFile unless the manifest of a sound artifact lists all that is there."""
    unlisted = {path.name for path in folder.iterdir()} - {*read_json_object(folder / MANIFEST)["files"], MANIFEST}
    if unlisted:
        raise DamagedFile(f"{folder} holds files that its {MANIFEST} does not list: {', '.join(sorted(unlisted))}")


def _demonstrations(run: _Run) -> Iterator[Check]:
    """The demonstrations that the run names, where they are: hashes, and whether they are those it began with."""
    from reconverge.envs.demonstrations import Demonstrations, collection_name, data_digest
    from reconverge.envs.episodes import EpisodeStore

    if run.config is None or not run.plans:
        yield Check("demonstrations", "not checked", "the settings that name them cannot be read")
        return
    begun = read_json_object(run.folder.fingerprint_json).get("demonstrations") if run.has("fingerprint.json") else None
    root, ceilings, absent = Path(run.config.demonstrations.folder), [], 0
    for task, count in demonstration_budgets(run.plans).items():
        store = EpisodeStore(root / collection_name(task, run.config.demonstrations, count))
        if not store.folder.exists():
            absent += 1
            continue
        try:
            episodes, facts = store.read()
            _refuse_unlisted(store.folder)
        except ReconvergeError as error:
            yield Check("demonstrations", "DIFFERS", str(error))
            continue
        ceilings.append({"task": task.name, **_rated({"successes": len(episodes), "episodes": facts["attempts"]})})
        digest = data_digest(Demonstrations(task, episodes, facts["attempts"], len(episodes)))
        if isinstance(begun, dict) and begun.get(task.name, digest) != digest:
            yield Check("demonstrations", "DIFFERS", f"{store.folder} holds others than the run began with")
        else:
            known = "are those that the run began with" if isinstance(begun, dict) and task.name in begun else "match their hashes"
            yield Check("demonstrations", "ok", f"{task.name}: {len(episodes)} episodes {known}")
    if absent:
        yield Check("demonstrations", "not checked", f"those of {absent} tasks are not below {root}")
    elif ceilings and run.has("ceilings.csv"):
        rows = [{"attempts": row.pop("episodes"), **row} for row in ceilings]
        yield _compared(run, "ceilings.csv", csv_text(CEILING_COLUMNS, rows), "the demonstrations")


# Tables ----------------------------------------------------------------------------------------------------------------------------------------


def _tables(run: _Run) -> Iterator[Check]:
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
        yield from _listed(path.name, wrong)
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


def _from_records(run: _Run) -> Iterator[Check]:
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
            yield _compared(run, name, expected, "the checkpoints' records")


def _live_log(run: _Run, expected: str) -> Check:
    """metrics.jsonl runs ahead of the checkpoints while a stage is learned; its last lines may belong to no checkpoint yet."""
    found, last = run.text("metrics.jsonl"), max(record.stage for record in run.records)
    ahead = found[len(expected) :] if found.startswith(expected) else ""
    if ahead and last < run.plans[-1].number and all(_stage_of(line) > last for line in ahead.splitlines()):
        words = f"{len(ahead.splitlines())} lines belong to a stage that is not finished"
        return Check("metrics.jsonl", "ok", f"as the checkpoints' records give it; {words}")
    return _compared(run, "metrics.jsonl", expected, "the checkpoints' records")


def _ran_ahead(name: str, text: str | None, told: str) -> bool:
    """Of metrics.jsonl, to which a stage that is learned adds its lines: it holds a beginning of what the records tell."""
    return name == "metrics.jsonl" and text is not None and told.startswith(text)


def _episodes(run: _Run) -> Iterator[Check]:
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
    given_up, wrong = run.text("failures.csv") if run.has("failures.csv") else "", []
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
    yield from _listed("episodes.csv", wrong)
    if not wrong:
        yield Check("episodes.csv", "ok", f"{sum(map(len, played.values()))} episodes, every seed that of the evaluation list")
    counted = read_json_object(run.folder.cost_json).get("episodes_evaluated") if run.has("cost.json") else None
    whole = sum(map(len, played.values()))  # earlier versions counted copies too
    once = sum(len(seeds) for (purpose, stage, _, task), seeds in played.items() if not run.is_copy(purpose, int(stage), task))
    rows = [row for record in run.records[:-1] for row in record.episodes]
    before = sum(not run.is_copy(row["purpose"], row["stage"], row["task"]) for row in rows)  # cost.json is written after the tables
    if counted not in (None, once, whole) and (run.has(SEAL) or counted not in (before, len(rows))):
        yield Check("cost.json", "DIFFERS", f"episodes_evaluated: found {counted}, expected {once}")


def _episodes_planned(run: _Run, purpose: str) -> int | None:
    if run.config is None:
        return None
    of_curves = run.config.recovery.episodes
    return {"matrix": run.config.evaluation.episodes, "recovery": of_curves, "learning": of_curves}.get(purpose)


def _from_episodes(run: _Run) -> Iterator[Check]:
    """Success matrix and recovery, made from episodes.csv alone."""
    from reconverge.eval.run_results import EpisodeRow, read_table

    if not run.has("episodes.csv"):
        return
    episodes = [asdict(row) for row in read_table(run.path / "episodes.csv", EpisodeRow)]
    if run.config is None:
        yield _compared(run, "success_matrix.csv", csv_text(MATRIX_COLUMNS, success_rates(episodes)), "the rows of episodes.csv")
        return
    of_stage = {plan.number: plan for plan in run.plans}
    records = []
    for stage in sorted({row["stage"] for row in episodes}):
        tasks, updates = ([task.name for task in of_stage[stage].tasks], of_stage[stage].updates) if stage in of_stage else ([], 0)
        records.append(StageRecord(stage, tasks, updates, [row for row in episodes if row["stage"] == stage]))
    for name, expected in sorted(run.texts(records).items()):
        if name in FROM_EPISODES and run.has(name):
            yield _compared(run, name, expected, "the rows of episodes.csv")


def _from_counts(run: _Run) -> Iterator[Check]:
    """Rates and intervals from the counts beside them, recovery from its curves; all that can be done with published tables."""
    for name, columns, whole in (("success_matrix.csv", MATRIX_COLUMNS, "episodes"), ("ceilings.csv", CEILING_COLUMNS, "attempts")):
        if run.has(name):
            rows = [{**row, **_rated(row, whole)} for row in run.rows(name)]
            yield _compared(run, name, csv_text(columns, rows), "its own counts")
    if not (run.has("recovery.csv") and run.has("recovery_curves.csv")):
        yield Check("recovery.csv", "not checked", "it or recovery_curves.csv is not here")
        return
    found = run.rows("recovery.csv")
    reference = {(row["kind"], row["stage"], row["task"]): float(row["reference_rate"]) for row in found}
    yield from _listed("recovery.csv", list(_other_references(run, found)))
    yield from _listed("recovery_curves.csv", list(_torn_curves(run)))
    curves = [
        {**_numbered(row), "reference_rate": reference[row["kind"], row["stage"], row["task"]]}
        for row in run.rows("recovery_curves.csv")
        if (row["kind"], row["stage"], row["task"]) in reference
    ]
    thresholds = list(dict.fromkeys(int(row["threshold"]) for row in found)) if run.config is None else list(run.config.recovery.thresholds)
    yield _compared(run, "recovery.csv", csv_text(RECOVERY_COLUMNS, recoveries(curves, {}, thresholds)), "its curves")


def _other_references(run: _Run, found: Sequence[dict[str, str]]) -> Iterator[str]:
    """A task's reference is where its curve of the stage after it was last learned begins: both are the same episodes."""
    starts = {stage_and_task: points[0] for stage_and_task, points in _online_points(run).items() if points[0].update == 0}
    for number, row in enumerate(found, 1):
        stage, task = int(row["stage"]), row["task"]
        after = 1 + max((plan.number for plan in run.plans if plan.number < stage and task in [one.name for one in plan.tasks]), default=-1)
        point = starts.get((after, task))
        if row["kind"] == "online" and point is not None and point.episodes and point.rate != float(row["reference_rate"]):
            place = f"where its curve of stage {after} begins"
            yield f"row {number}, column reference_rate: found {row['reference_rate']}, expected {point.rate}, {place}"


def _torn_curves(run: _Run) -> Iterator[str]:
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


def _online_points(run: _Run) -> dict[tuple[int, str], list[_Point]]:
    """(stage, task) -> the points of its online curve, in order of updates."""
    found: dict[tuple[int, str], list[_Point]] = {}
    for row in run.rows("recovery_curves.csv"):
        if row["kind"] == "online":
            found.setdefault((int(row["stage"]), row["task"]), []).append(_Point(*(int(row[name]) for name in _Point._fields)))
    return {place: sorted(points) for place, points in found.items()}


def _stages(run: _Run) -> Iterator[Check]:
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
    yield from _listed("stages", wrong)
    if not wrong:
        yield Check("stages", "ok", f"{shown[-1]} of {planned[-1]}, {'each with its checkpoint' if kept else 'without checkpoints here'}")


# Comparing -------------------------------------------------------------------------------------------------------------------------------------


def _compared(run: _Run, name: str, expected: str, source: str) -> Check:
    """One line about a table that must be `expected`, which follows from `source`, to the last byte."""
    found = run.text(name)
    if found == expected:
        return Check(name, "ok", f"{max(0, len(found.splitlines()) - name.endswith('.csv'))} rows, as {source} give them")
    wrong = table_differences(found, expected, name.endswith(".csv"))
    rest = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return Check(name, "DIFFERS", f"{'; '.join(wrong[:SHOWN])}{rest}, by {source}")


def _listed(subject: str, wrong: Sequence[str]) -> Iterator[Check]:
    for words in wrong[:SHOWN]:
        yield Check(subject, "DIFFERS", words)
    if len(wrong) > SHOWN:
        yield Check(subject, "DIFFERS", f"and {len(wrong) - SHOWN} more of this kind")


def _rated(row: dict[str, Any], whole: str = "episodes") -> Row:
    """Rate and interval of a row from its counts."""
    return {key: value for key, value in rate_columns(int(row["successes"]), int(row[whole])).items() if whole == "episodes" or key != "episodes"}


def _numbered(row: dict[str, str]) -> Row:
    """A row of recovery_curves.csv with its numbers."""
    return {**row, **{key: int(row[key]) for key in ("stage", "update", "episodes", "successes")}}


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


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("bytes"), int) and isinstance(entry.get("sha256"), str)
