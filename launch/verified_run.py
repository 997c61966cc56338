"""A run folder that is being verified: what several checks need of it, and how a finding is told."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from reconverge.envs.bounded_file import read_bounded
from reconverge.envs.errors import DamagedFile, ReconvergeError
from reconverge.eval.headlines import played_at
from reconverge.eval.table_rows import LARGEST_TABLE
from reconverge.launch.checkpoint import finished_stages, read_record
from reconverge.launch.config import RunConfig
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.run_tables import PROBES, StageRecord, read_probes, table_texts
from reconverge.launch.seal import SEAL
from reconverge.launch.stage_plan import StagePlan, plan_stages, run_curriculum
from reconverge.launch.table_differences import table_differences

SHOWN = 3
"""Differences of one table that are printed; of more only the number is given."""

Row = dict[str, Any]
Verdict = Literal["ok", "DIFFERS", "not checked"]


@dataclass(frozen=True)
class Check:
    """What was checked and how it came out, in a line."""

    subject: str
    outcome: Verdict
    detail: str

    def __str__(self) -> str:
        return f"{self.outcome:<11} {self.subject:<22} {self.detail}"


class VerifiedRun:
    """A folder and what several checks need of it, read once."""

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, RunFolder(path)

    @cached_property
    def config(self) -> RunConfig | None:
        """None where it cannot be read, which `check_settings` reports."""
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
        if self.has(PROBES):
            return read_probes(self.path)
        reference = {(row["stage"], row["task"]): float(row["reference_rate"]) for row in self.rows("recovery.csv") if row["kind"] == "probe"}
        points = [row for row in self.rows("recovery_curves.csv") if row["kind"] == "probe"]
        return [{**numbered(row), "reference_rate": reference.get((row["stage"], row["task"]), 0.0)} for row in points]


def compared(run: VerifiedRun, name: str, expected: str, source: str) -> Check:
    """One line about a table that must be `expected`, which follows from `source`, to the last byte."""
    found = run.text(name)
    if found == expected:
        return Check(name, "ok", f"{max(0, len(found.splitlines()) - name.endswith('.csv'))} rows, as {source} give them")
    wrong = table_differences(found, expected, name.endswith(".csv"))
    rest = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return Check(name, "DIFFERS", f"{'; '.join(wrong[:SHOWN])}{rest}, by {source}")


def listed(subject: str, wrong: Sequence[str]) -> Iterator[Check]:
    """A line for each of what is wrong with a subject, up to SHOWN, and one that counts the rest."""
    for words in wrong[:SHOWN]:
        yield Check(subject, "DIFFERS", words)
    if len(wrong) > SHOWN:
        yield Check(subject, "DIFFERS", f"and {len(wrong) - SHOWN} more of this kind")


def numbered(row: dict[str, str]) -> Row:
    """A row of recovery_curves.csv with its numbers."""
    return {**row, **{key: int(row[key]) for key in ("stage", "update", "episodes", "successes")}}


def _ran_ahead(name: str, text: str | None, told: str) -> bool:
    """Of metrics.jsonl, to which a stage that is learned adds its lines: it holds a beginning of what the records tell."""
    return name == "metrics.jsonl" and text is not None and told.startswith(text)
