"""Everything a run folder says about its results, read once into frozen records.

Only `config.yaml` and `curriculum.yaml` must be there. A run that is still going lacks later files, later rows and perhaps
the second half of a line that is being written: what is there is read. A file that is there but cannot be understood is a
`DamagedFile` naming the line and the fix.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
import yaml

from reconverge.envs.errors import DamagedFile
from reconverge.eval import metrics
from reconverge.eval.recovery import Curve

Row = TypeVar("Row")


@dataclass(frozen=True)
class Ceiling:
    """How often the expert itself succeeds on a task; no student of its demonstrations is expected above it."""

    task: str
    attempts: int
    successes: int
    rate: float
    wilson_low: float
    wilson_high: float


@dataclass(frozen=True)
class Cell:
    """One cell of the success matrix: `rate` in [0, 1] after `stage` (0 = untrained) with its Wilson bounds."""

    stage: int
    task: str
    episodes: int
    successes: int
    rate: float
    wilson_low: float
    wilson_high: float


@dataclass(frozen=True)
class CurvePoint:
    """Success on an earlier task `update` updates into a stage (kind online) or into a probe from its checkpoint (kind probe)."""

    kind: str
    stage: int
    task: str
    update: int
    episodes: int
    successes: int


@dataclass(frozen=True)
class Recovery:
    """Updates until `threshold` percent of `reference_rate` was back (None = never), dip depth in [0, 1], its area in success x updates."""

    kind: str
    stage: int
    task: str
    threshold: int
    updates: int | None
    dip: float
    dip_area: float
    reference_rate: float


@dataclass(frozen=True)
class LedgerItem:
    """Something kept after a stage, its bytes, and whether it is data of past tasks."""

    stage: int
    item: str
    bytes: int
    past_task_data: bool


@dataclass(frozen=True)
class FisherHealth:
    """Health of the rank-1 Fisher of one task; a low split-half cosine means that it protects a random direction."""

    stage: int
    task: str
    draws: int
    mu_norm: float | None
    curvature: float | None
    split_half_cosine: float | None
    collinearity: float | None
    spectral_ratio: float | None


@dataclass(frozen=True)
class EpisodeRow:
    """One evaluated episode; `first_success_step` None = no success."""

    purpose: str
    stage: int
    update: int
    task: str
    episode_seed: int
    success_any: bool
    success_final: bool
    first_success_step: int | None
    steps: int
    invalid: bool


@dataclass(frozen=True)
class RunResults:
    """A run folder, read.

    Attributes:
        config: the resolved configuration as nested mappings.
        stages: (K,) task of every stage, official names in curriculum order.
        stage_updates: (K,) gradient updates of every stage.
        stage_demonstrations: (K,) demonstrations of the task of every stage; None where the file does not say.
        training: one mapping per line of metrics.jsonl.
    """

    folder: Path
    config: dict[str, Any]
    curriculum: str
    stages: tuple[str, ...]
    stage_updates: tuple[int, ...]
    stage_demonstrations: tuple[int | None, ...]
    command: str
    fingerprint: dict[str, Any]
    ceilings: tuple[Ceiling, ...]
    cells: tuple[Cell, ...]
    curve_points: tuple[CurvePoint, ...]
    recoveries: tuple[Recovery, ...]
    ledger: tuple[LedgerItem, ...]
    fisher: tuple[FisherHealth, ...]
    episodes: tuple[EpisodeRow, ...] = field(repr=False)
    training: tuple[dict[str, Any], ...] = field(repr=False)
    cost: dict[str, Any]

    @property
    def method(self) -> str:
        return str(self.config.get("method", "unknown"))

    @property
    def seed(self) -> int:
        return int(self.config.get("seed", 0))

    @property
    def name(self) -> str:
        """Short name of the run for headings: method and seed."""
        return f"{self.method}, seed {self.seed}"

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """Distinct tasks in order of first appearance: the columns of the matrix."""
        return tuple(metrics.own_stages(self.stages))

    @cached_property
    def own_stage(self) -> tuple[int, ...]:
        """(T,) the 1-based stage at which each task was first learned."""
        return tuple(metrics.own_stages(self.stages).values())

    @property
    def stages_done(self) -> int:
        """The last stage with a row in the success matrix; 0 before the first."""
        return max((cell.stage for cell in self.cells), default=0)

    @property
    def finished(self) -> bool:
        return self.stages_done == len(self.stages)

    @cached_property
    def cell_at(self) -> dict[tuple[int, str], Cell]:
        return {(cell.stage, cell.task): cell for cell in self.cells}

    def success_at_last_step(self, stage: int, task: str) -> float:
        """Share of a cell's valid episodes whose last step was a success, in [0, 1]; NaN without episodes."""
        rows = [row for row in self.episodes if (row.purpose, row.stage, row.task) == ("matrix", stage, task) and not row.invalid]
        return sum(row.success_final for row in rows) / len(rows) if rows else float("nan")

    @property
    def matrix(self) -> np.ndarray:
        """(stages done + 1, T) success rates for `metrics`; NaN = not measured."""
        rates = np.full((self.stages_done + 1, len(self.tasks)), np.nan)
        for (stage, task), cell in self.cell_at.items():
            if task in self.tasks and cell.episodes:
                rates[stage, self.tasks.index(task)] = cell.rate
        return rates

    @cached_property
    def curves(self) -> dict[tuple[str, int, str], Curve]:
        """(kind, stage, task) -> recovery curve in order of updates; points without episodes are left out."""
        points: dict[tuple[str, int, str], dict[int, float]] = {}
        for point in self.curve_points:
            if point.episodes:
                points.setdefault((point.kind, point.stage, point.task), {})[point.update] = point.successes / point.episodes
        return {key: Curve(tuple(sorted(rates)), tuple(rates[update] for update in sorted(rates))) for key, rates in points.items()}

    @property
    def stage_starts(self) -> tuple[int, ...]:
        """(K+1,) updates done in all before each stage, and at the end."""
        return tuple(int(total) for total in np.cumsum([0, *self.stage_updates]))


def read_run(folder: Path) -> RunResults:
    """Read a run folder; `DamagedFile` when it is none, or when one of its files cannot be understood."""
    config, curriculum = _mapping(folder / "config.yaml"), _mapping(folder / "curriculum.yaml")
    stages = _stages(curriculum, folder / "curriculum.yaml")
    return RunResults(
        folder=folder,
        config=config,
        curriculum=str(curriculum.get("name", "unnamed")),
        stages=tuple(stage["task"] for stage in stages),
        stage_updates=tuple(stage["updates"] for stage in stages),
        stage_demonstrations=tuple(stage.get("demonstrations") for stage in stages),
        command=_text(folder / "command.txt").strip(),
        fingerprint=_json(folder / "fingerprint.json"),
        ceilings=read_table(folder / "ceilings.csv", Ceiling),
        cells=read_table(folder / "success_matrix.csv", Cell),
        curve_points=read_table(folder / "recovery_curves.csv", CurvePoint),
        recoveries=read_table(folder / "recovery.csv", Recovery),
        ledger=read_table(folder / "ledger.csv", LedgerItem),
        fisher=read_table(folder / "fisher.csv", FisherHealth),
        episodes=read_table(folder / "episodes.csv", EpisodeRow),
        training=_json_lines(folder / "metrics.jsonl"),
        cost=_json(folder / "cost.json"),
    )


# Reading one file --------------------------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from error


def _mapping(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DamagedFile(f"{path} is missing, so {path.parent} is not a run folder; name the folder that `reconverge train` wrote")
    try:
        content = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        raise _damaged(path, f"not YAML: {error}") from error
    if not isinstance(content, dict):
        raise _damaged(path, f"expected a mapping, found {type(content).__name__}")
    return content


def _json(path: Path) -> dict[str, Any]:
    text = _text(path)
    if not text:
        return {}
    try:
        content = json.loads(text)
    except ValueError as error:
        raise _damaged(path, f"not JSON: {error}") from error
    if not isinstance(content, dict):
        raise _damaged(path, f"expected an object, found {type(content).__name__}")
    return content


def _json_lines(path: Path) -> tuple[dict[str, Any], ...]:
    records = []
    for number, line, being_written in _lines(_text(path)):
        try:
            records.append(dict(json.loads(line)))
        except (ValueError, TypeError) as error:
            if not being_written:
                raise _damaged(path, f"line {number} is not a JSON object") from error
    return tuple(records)


def read_table(path: Path, row_type: type[Row]) -> tuple[Row, ...]:
    """Rows of a CSV file whose header names the fields of `row_type` in any order; further columns are ignored."""
    lines = _lines(_text(path))
    if not lines:
        return ()
    header = _cells(lines[0][1])
    missing = [name.name for name in fields(row_type) if name.name not in header]  # type: ignore[arg-type]
    if missing:
        raise _damaged(path, f"its header lacks {', '.join(missing)}")
    rows, hints = [], get_type_hints(row_type)
    for number, line, being_written in lines[1:]:
        try:
            entries = dict(zip(header, _cells(line), strict=True))
            rows.append(row_type(**{name: _CONVERTERS[hint](entries[name]) for name, hint in hints.items()}))
        except ValueError as error:
            if not being_written:
                raise _damaged(path, f"line {number} '{line}' does not fit the columns {','.join(header)} ({error})") from error
    return tuple(rows)


def _cells(line: str) -> list[str]:
    return next(csv.reader(io.StringIO(line)))


def _lines(text: str) -> list[tuple[int, str, bool]]:
    """(line number, line, whether it may still be in the middle of being written) of every line that is not empty."""
    lines = text.split("\n")
    last_is_open = len(lines) - 1 if lines[-1] else -1
    return [(index + 1, line.rstrip("\r"), index == last_is_open) for index, line in enumerate(lines) if line.strip()]


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(f"'{text}' is not 0 or 1")
    return text == "1"


_CONVERTERS: dict[Any, Callable[[str], Any]] = {
    str: str,
    int: int,
    float: float,
    bool: _flag,
    int | None: lambda text: int(text) if text else None,
    float | None: lambda text: float(text) if text else None,
}


def _stages(curriculum: dict[str, Any], path: Path) -> tuple[dict[str, Any], ...]:
    """The resolved stages: mappings of task, updates and demonstrations."""
    stages = curriculum.get("tasks")
    fine = isinstance(stages, list) and stages and all(
        isinstance(stage, dict) and isinstance(stage.get("task"), str) and isinstance(stage.get("updates"), int) for stage in stages
    )
    if not fine:
        raise _damaged(path, "expected `tasks`: a list of mappings with `task` and `updates`")
    return tuple(curriculum["tasks"])


def _damaged(path: Path, what: str) -> DamagedFile:
    return DamagedFile(f"{path} is damaged: {what}; restore it, or redo the run with `reconverge train --overwrite`")
