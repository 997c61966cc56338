"""Everything a run folder says about its results, read once into frozen records.

Only `config.yaml` and `curriculum.yaml` must be there. A run that is still going lacks later files, later rows and perhaps
the second half of a line that is being written: what is there is read. A file that is there but cannot be understood is a
`DamagedFile` naming the line and the fix.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from reconverge.envs.errors import DamagedFile, shown
from reconverge.envs.plain_json import LARGEST_TEXT, parse_json
from reconverge.envs.plain_yaml import LARGEST_FILE, parse_yaml
from reconverge.eval import metrics
from reconverge.eval.recovery import Curve
from reconverge.eval.table_rows import Row, damaged, read_data, read_json_lines, read_table

LARGEST_COUNT = 10**9


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
    """Success on a task `update` updates into a stage: an earlier one (kind online) or its own (kind learning); or into a probe (kind probe)."""

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
class FailureRow:
    """A task that its simulators gave up in one evaluation; it has no episodes there. Purpose `matrix` is a cell of the matrix."""

    stage: int
    purpose: str
    update: int
    task: str
    episode_seed: int
    attempts: int
    error: str


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
    failures: tuple[FailureRow, ...]
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
    def extended_after(self) -> list[int]:
        """The stages after which `train --extend` gave the run more; none of a run that knew all its tasks from the start."""
        stages = self.fingerprint.get("extended_after")
        return [stage for stage in stages if type(stage) is int] if isinstance(stages, list) else []

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

    def stages_of(self, task: str) -> list[int]:
        """The stages that learn a task, be they done or not; none for `joint`, which learns all tasks in one."""
        return [] if self.method == "joint" else [stage for stage, learned in enumerate(self.stages, start=1) if learned == task]

    @cached_property
    def by_stage(self) -> np.ndarray:
        """(K+1, N) the matrix with one column per stage: that of the task that it learned, in the order of the stages."""
        return self.matrix[:, [self.tasks.index(task) for task in self.stages]]

    @property
    def stages_done(self) -> int:
        """The last stage that was evaluated, be it that all its tasks failed; 0 before the first."""
        return max((*(cell.stage for cell in self.cells), *(stage for stage, _ in self.failed_at)), default=0)

    @property
    def finished(self) -> bool:
        return self.stages_done == len(self.stages)

    @cached_property
    def cell_at(self) -> dict[tuple[int, str], Cell]:
        return {(cell.stage, cell.task): cell for cell in self.cells}

    @cached_property
    def failed_at(self) -> dict[tuple[int, str], FailureRow]:
        """(stage, task) -> why that cell of the matrix is missing."""
        found = {(row.stage, row.task): row for row in self.failures if row.purpose == "matrix"}
        return {place: row for place, row in found.items() if place not in self.cell_at}

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
        """(kind, stage, task) -> curve of recovery, or of learning, in order of updates; points without episodes are left out."""
        points: dict[tuple[str, int, str], dict[int, float]] = {}
        for point in self.curve_points:
            if point.episodes:
                points.setdefault((point.kind, point.stage, point.task), {})[point.update] = point.successes / point.episodes
        return {key: Curve(tuple(sorted(rates)), tuple(rates[update] for update in sorted(rates))) for key, rates in points.items()}

    @property
    def stage_starts(self) -> tuple[int, ...]:
        """(K+1,) updates done in all before each stage, and at the end."""
        return tuple(int(total) for total in np.cumsum([0, *self.stage_updates]))

    def updates_before(self, stage: int) -> int:
        """Updates done in all before a stage; `joint` trains its one stage, the last, from update 0."""
        return 0 if self.method == "joint" else self.stage_starts[stage - 1]

    def updates_of(self, stage: int) -> int:
        """Updates of a stage; those of all with `joint`."""
        return self.stage_starts[stage] - self.updates_before(stage)


def read_run(folder: Path, episodes: bool = True) -> RunResults:
    """Read a run folder; `DamagedFile` when it is none, or when one of its files cannot be understood.

    Without `episodes` their table, by far the largest, is left out.
    """
    config, curriculum = _mapping(folder / "config.yaml"), _mapping(folder / "curriculum.yaml")
    stages = _stages(curriculum, folder / "curriculum.yaml")
    _check_config(config, folder / "config.yaml")
    return RunResults(
        folder=folder,
        config=config,
        curriculum=str(curriculum.get("name", "unnamed")),
        stages=tuple(stage["task"] for stage in stages),
        stage_updates=tuple(stage["updates"] for stage in stages),
        stage_demonstrations=tuple(stage.get("demonstrations") for stage in stages),
        command=_text(folder / "command.txt").strip(),
        fingerprint=_fingerprint(folder / "fingerprint.json"),
        ceilings=read_table(folder / "ceilings.csv", Ceiling),
        cells=_by_stage(folder / "success_matrix.csv", Cell, len(stages)),
        curve_points=_by_stage(folder / "recovery_curves.csv", CurvePoint, len(stages)),
        recoveries=_by_stage(folder / "recovery.csv", Recovery, len(stages)),
        ledger=_by_stage(folder / "ledger.csv", LedgerItem, len(stages)),
        fisher=_by_stage(folder / "fisher.csv", FisherHealth, len(stages)),
        failures=_by_stage(folder / "failures.csv", FailureRow, len(stages)),
        episodes=_by_stage(folder / "episodes.csv", EpisodeRow, len(stages)) if episodes else (),
        training=_training(folder / "metrics.jsonl"),
        cost=_cost(folder / "cost.json"),
    )


# Reading one file --------------------------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    try:
        return read_data(path, LARGEST_TEXT).decode("utf-8")
    except UnicodeDecodeError as error:
        raise damaged(path, f"byte {error.start} is not UTF-8") from error


def _mapping(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DamagedFile(f"{path} is missing, so {path.parent} is not a run folder; name the folder that `reconverge train` wrote")
    try:
        content = parse_yaml(read_data(path, LARGEST_FILE), path.name)
    except DamagedFile as error:
        raise damaged(path, f"not YAML: {error}") from error
    if not isinstance(content, dict):
        raise damaged(path, f"expected a mapping, found {type(content).__name__}")
    return content


def _json(path: Path) -> dict[str, Any]:
    data = read_data(path, LARGEST_TEXT)
    if not data:
        return {}
    try:
        content = parse_json(data, path.name)
    except DamagedFile as error:
        raise damaged(path, f"not JSON: {error}") from error
    if not isinstance(content, dict):
        raise damaged(path, f"expected an object, found {type(content).__name__}")
    return content


def _training(path: Path) -> tuple[dict[str, Any], ...]:
    """The rows of metrics.jsonl; what is drawn of them must be numbers."""
    rows = read_json_lines(path)
    for number, row in enumerate(rows, 1):
        counted = all(_is_count(row.get(key, 0)) for key in ("stage", "update"))
        if not counted or not all(isinstance(row.get(key), (int, float, type(None))) for key in ("loss", "replay_loss")):
            raise damaged(path, f"row {number} is {shown(row)}")
    return rows


def _fingerprint(path: Path) -> dict[str, Any]:
    """What pages compare between runs must be names and numbers."""
    found = _json(path)
    versions = found.get("versions") or {}
    plain = all(isinstance(found.get(key), (str, int, float, type(None))) for key in ("git_commit", "parameters", "simulator", "machine", "python"))
    if not plain or not isinstance(versions, dict) or not isinstance(found.get("git_commit") or "", str):
        raise damaged(path, f"it is {shown(found)}")
    return found


def _cost(path: Path) -> dict[str, Any]:
    """Seconds and FLOPs must be numbers."""
    found = _json(path)
    phases, total_s, flops = found.get("phases") or {}, found.get("total_s") or 0, found.get("flops") or {}
    if not isinstance(total_s, (int, float)):
        raise DamagedFile(f"{path}: total_s is {shown(total_s)}; a number of seconds was expected")
    if not isinstance(phases, dict) or not all(isinstance(seconds, (int, float)) for seconds in phases.values()):
        raise damaged(path, f"its phases are {shown(phases)}; seconds were expected")
    if not isinstance(flops, dict) or not all(isinstance(count, (int, float)) for count in flops.values()):
        raise damaged(path, f"its flops are {shown(flops)}; numbers of operations were expected")
    return found


def _by_stage(path: Path, row_type: type[Row], stages: int) -> tuple[Row, ...]:
    """The rows of a table that is laid out by stages: one that the run does not have would need a page, or a matrix, of any size."""
    rows = read_table(path, row_type)
    for row in rows:
        stage = getattr(row, "stage")  # noqa: B009
        if not 0 <= stage <= stages:
            raise damaged(path, f"it has a row of stage {stage}, and the run has {stages} stages")
    return rows


def _stages(curriculum: dict[str, Any], path: Path) -> tuple[dict[str, Any], ...]:
    """The resolved stages: mappings of task, updates and demonstrations."""
    stages = curriculum.get("tasks")
    fine = isinstance(stages, list) and stages and all(
        isinstance(stage, dict) and isinstance(stage.get("task"), str) and _is_count(stage.get("updates"))
        and (stage.get("demonstrations") is None or _is_count(stage["demonstrations"]))
        for stage in stages
    )  # fmt: skip
    if not fine:
        raise damaged(path, "expected `tasks`: a list of mappings with `task` and `updates`")
    return tuple(curriculum["tasks"])


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LARGEST_COUNT


def _check_config(config: dict[str, Any], path: Path) -> None:
    """Of the configuration, the two values that every page names."""
    if type(config.get("seed", 0)) is not int or not isinstance(config.get("method", ""), str):
        raise damaged(path, f"its method is {shown(config.get('method'))} and its seed {shown(config.get('seed'))}")


