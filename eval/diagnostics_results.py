"""The tables that `reconverge diagnose` wrote, read back, and their figures in a few rows.

What each column measures stands in `fisher_structure`, `meta_gradient`, `optima_distance`, `replay_fidelity`, `action_spread`
and `executed_starts`.
Without torch, like everything that a report is made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

from reconverge.eval.table_rows import read_table
from reconverge.eval.window_picture import Stroke

PUBLISHED_COSINE = 0.83
"""Mean cosine of old-task update and meta-gradient on Continual World 10 in arXiv 2602.02417."""
DIRECTIONS = {
    "update": "old-task update",
    "update_noise_free": "old-task update, noise taken out",
    "replay": "its replay alone",
    "replay_noise_free": "its replay alone, noise taken out",
    "penalty": "its penalty alone",
    "other_replay": "other old tasks' replay",
    "new_task": "the new task's gradient",
    "random": "a random direction",
    "first_order": "plain gradient, same query",
    "repeat": "meta-gradient of another batch",
}
"""What is compared with the meta-gradient, in order: column -> words."""
LEAST_REPEAT = 0.05
"""Cosine of two batches of the meta-gradient below which a cell's noise-free cosines are not used: they are divided by a length whose square is the
product of the two, and where that is next to nothing they can be anything."""


@dataclass(frozen=True)
class FisherRow:
    """Shape of the Fisher at a stage's optimum over some timesteps, both ends included."""

    stage: int
    task: str
    first_timestep: int
    last_timestep: int
    draws: int
    collinearity: float
    collinearity_of_noise: float
    split_half_cosine: float
    split_half_spread: float
    spectral_ratio: float
    rank1_error: float
    rank1_error_of_noise: float
    rank1_error_held_out: float
    best_rank1_error: float
    best_rank1_error_held_out: float
    diagonal_error: float
    diagonal_error_unbiased: float


@dataclass(frozen=True)
class MetaRow:
    """Cosines with the meta-gradient of an earlier task after `stage`; None where there is no such direction."""

    stage: int
    task: str
    alpha: float
    batch: int
    update: float | None
    update_noise_free: float | None
    replay: float | None
    replay_noise_free: float | None
    penalty: float | None
    other_replay: float | None
    new_task: float | None
    random: float | None
    first_order: float | None
    repeat: float | None


@dataclass(frozen=True)
class DistanceRow:
    """Distance between the optima of two stages, and as a share of the length of the first."""

    stage: int
    other_stage: int
    distance: float
    relative: float


@dataclass(frozen=True)
class FidelityRow:
    """Windows of an earlier task that `stage` rehearsed; `_real`: the same of real windows, None without any."""

    stage: int
    task: str
    windows: int
    purity: float
    purity_real: float | None
    outside: float
    outside_real: float | None
    distance: float
    distance_real: float | None
    teacher_gap: float
    teacher_gap_real: float


@dataclass(frozen=True)
class SpreadRow:
    """The policy of `stage` on real windows of a task: `action_spread.ActionSpread`."""

    stage: int
    task: str
    windows: int
    samples: int
    spread: float
    sample_error: float
    mean_error: float
    centre_error: float


@dataclass(frozen=True)
class ExecutedRow:
    """The teacher acting from replayed windows of the task that it has just learned; `_real`: from real ones of the same times."""

    stage: int
    task: str
    first_step_only: bool
    starts: int
    executed: int
    successes: int
    off: float | None
    wilson_low: float
    wilson_high: float
    starts_real: int
    executed_real: int
    successes_real: int
    off_real: float | None
    wilson_low_real: float
    wilson_high_real: float

    @property
    def rate(self) -> float | None:
        return self.successes / self.executed if self.executed else None

    @property
    def rate_real(self) -> float | None:
        return self.successes_real / self.executed_real if self.executed_real else None


class TypicalCosine(NamedTuple):
    """Mean over cells, median where noise is taken out; of how many of the cells that have the direction. None: of no cell."""

    value: float | None
    used: int
    cells: int

    @property
    def count_text(self) -> str:
        return f"{self.used}" if self.used == self.cells else f"{self.used} of {self.cells}"


@dataclass(frozen=True)
class Diagnostics:
    """Everything that was diagnosed in a run; empty tables where there was nothing to measure."""

    fisher: tuple[FisherRow, ...]
    meta: tuple[MetaRow, ...]
    distances: tuple[DistanceRow, ...]
    fidelity: tuple[FidelityRow, ...]
    spread: tuple[SpreadRow, ...] = ()
    executed: tuple[ExecutedRow, ...] = ()
    strokes: tuple[Stroke, ...] = ()

    @property
    def over_all_timesteps(self) -> list[FisherRow]:
        """One row per stage."""
        widest = max((row.last_timestep - row.first_timestep for row in self.fisher), default=0)
        rows = [row for row in self.fisher if row.last_timestep - row.first_timestep == widest]
        return list({row.stage: row for row in reversed(rows)}.values())[::-1]

    @property
    def last_spread(self) -> list[SpreadRow]:
        """Of the last stage diagnosed: one row per task."""
        last = max((row.stage for row in self.spread), default=0)
        return [row for row in self.spread if row.stage == last]

    def cosines(self, direction: str) -> list[float]:
        """One per (stage, earlier task) cell that has the direction and, where noise is taken out, leaves enough of the meta-gradient."""
        rows = [row for row in self.meta if not _noise_free(direction) or (row.repeat is not None and row.repeat >= LEAST_REPEAT)]
        return [value for row in rows if (value := getattr(row, direction)) is not None]

    def typical_cosine(self, direction: str) -> TypicalCosine:
        used, cells = self.cosines(direction), sum(getattr(row, direction) is not None for row in self.meta)
        centre = median if _noise_free(direction) else fmean
        return TypicalCosine(centre(used) if used else None, len(used), cells)


def read_diagnostics(run: Path) -> Diagnostics | None:
    """The diagnostics in a run folder, None where it was not diagnosed; DamagedFile for a table that cannot be understood."""
    folder = run / "diagnostics"
    if not folder.is_dir():
        return None
    return Diagnostics(
        fisher=read_table(folder / "fisher_structure.csv", FisherRow),
        meta=read_table(folder / "meta_gradient.csv", MetaRow),
        distances=read_table(folder / "optima_distance.csv", DistanceRow),
        fidelity=read_table(folder / "replay_fidelity.csv", FidelityRow),
        spread=read_table(folder / "action_spread.csv", SpreadRow),
        executed=read_table(folder / "executed_starts.csv", ExecutedRow),
        strokes=read_table(folder / "window_strokes.csv", Stroke),
    )


def summary_tables(found: Diagnostics) -> list[tuple[str, list[dict[str, str]]]]:
    """(title, rows of heading -> text) of every table that has rows, for a terminal of 80 columns."""
    tables = [
        (f"Fisher, errors held out, as shares of ||F||; {_floor(found)}", [_fisher_texts(row) for row in found.over_all_timesteps]),
        (f"cosine with the meta-gradient: mean, or median without noise; published: {PUBLISHED_COSINE}", _meta_texts(found)),
        ("replayed windows, and in brackets real ones", [_fidelity_texts(row) for row in found.fidelity]),
        ("samples of one situation, rms, actions in [-1, 1]", [_spread_texts(row) for row in found.last_spread]),
        ("the teacher acting from replayed starts, and from real ones of the same times", [_executed_texts(row) for row in found.executed]),
    ]
    return [(title, rows) for title, rows in tables if rows]


def _floor(found: Diagnostics) -> str:
    floors = sorted({row.collinearity_of_noise for row in found.over_all_timesteps})
    return f"collinearity of noise: {', '.join(f'{floor:.4f}' for floor in floors)}"


def _fisher_texts(row: FisherRow) -> dict[str, str]:
    return {
        "stage": str(row.stage),
        "task": row.task,
        "colli-\nnearity": f"{row.collinearity:.4f}",
        "split-half\ncosine": f"{row.split_half_cosine:.2f}",
        "λ₂/λ₁": f"{row.spectral_ratio:.2f}",
        "error of\nc μμᵀ": f"{row.rank1_error_held_out:.2f}",
        "of best\nrank 1": f"{row.best_rank1_error_held_out:.2f}",
        "of dia-\ngonal": f"{row.diagonal_error_unbiased:.2f}",
    }


def _meta_texts(found: Diagnostics) -> list[dict[str, str]]:
    rows = []
    for direction, words in DIRECTIONS.items():
        typical = found.typical_cosine(direction)
        if typical.cells:
            rows.append({"task": words, "cosine": "-" if typical.value is None else f"{typical.value:.3f}", "cells": typical.count_text})
    return rows


def _noise_free(direction: str) -> bool:
    return direction.endswith("_noise_free")


def _fidelity_texts(row: FidelityRow) -> dict[str, str]:
    return {
        "stage": str(row.stage),
        "task": row.task,
        "nearest\nis own, %": _beside(100 * row.purity, _hundredfold(row.purity_real), "{:.0f}"),
        "outside\nrange, %": _beside(100 * row.outside, _hundredfold(row.outside_real), "{:.0f}"),
        "distance": _beside(row.distance, row.distance_real, "{:.3f}"),
        "teacher-\nstudent gap": _beside(row.teacher_gap, row.teacher_gap_real, "{:.4f}"),
    }


def _spread_texts(row: SpreadRow) -> dict[str, str]:
    return {
        "stage": str(row.stage),
        "task": row.task,
        "apart": f"{row.spread:.3f}",
        "from the\nexpert": f"{row.sample_error:.3f}",
        "their\nmean": f"{row.mean_error:.3f}",
        "at tempe-\nrature 0": f"{row.centre_error:.3f}",
    }


def _executed_texts(row: ExecutedRow) -> dict[str, str]:
    return {
        "task": row.task,
        "starts": "first step" if row.first_step_only else "any step",
        "success\nreplayed, %": _rate(row.successes, row.executed, row.starts, row.wilson_low, row.wilson_high),
        "success\nreal, %": _rate(row.successes_real, row.executed_real, row.starts_real, row.wilson_low_real, row.wilson_high_real),
        "set, but\noff by": _beside(row.off, row.off_real, "{:.3f}"),
    }


def _rate(successes: int, executed: int, starts: int, low: float, high: float) -> str:
    if not executed:
        return f"- (0 of {starts})"
    count = f"{executed}" if executed == starts else f"{executed} of {starts}"
    return f"{100 * successes / executed:.0f} ({100 * low:.0f} to {100 * high:.0f}; {count})"


def _beside(value: float | None, control: float | None, form: str) -> str:
    own, real = ("-" if number is None else form.format(number) for number in (value, control))
    return f"{own} ({real})"


def _hundredfold(share: float | None) -> float | None:
    return None if share is None else 100 * share
