"""What a watcher is shown of runs, as plain JSON values: one line of the list, one run's page, several runs compared.

Pure functions of what a run folder says and of its process's liveness. Rates are in [0, 1]; what was not measured is None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reconverge.envs.gym_name import short_name
from reconverge.eval import headlines, metrics
from reconverge.eval.comparison import run_row, unlike
from reconverge.eval.cost import by_phase
from reconverge.eval.intervals import Interval
from reconverge.eval.run_results import RunResults
from reconverge.eval.task_failures import failure_sentences
from reconverge.launch.live_status import Liveness
from reconverge.launch.remaining_time import remaining

Plain = dict[str, Any]

SPARKLINE_POINTS, CURVE_POINTS = 80, 600
MOST_VIDEOS = 400


def state(run: RunResults | None, live: Liveness) -> str:
    """`running`, `finished`, `failed`, or, of what `--resume` goes on with, `stopped` in good order or `killed`."""
    if live.alive:
        return "running"
    if run is not None and run.finished:
        return "finished"
    if live.failure:
        return "failed"
    return "killed" if live.locked else "stopped"


def line(path: str, run: RunResults, live: Liveness) -> Plain:
    """A run in the list."""
    left = remaining(run, live.where) if live.alive else None
    success = headlines.final_success(run)
    where = _where(run, live)
    return {
        "path": path, "method": run.method, "seed": run.seed, "curriculum": run.curriculum,
        "state": state(run, live), "error": live.failure, **where,
        "stages": len(run.stages), "stages_done": run.stages_done, "share": _share(run, where),
        "success": _interval(success), "forgetting": _number(headlines.forgetting(run).mean),
        "tasks": [_task(run, task, own) for task, own in zip(run.tasks, run.own_stage, strict=True)],
        "loss": loss_curve(run, "loss", SPARKLINE_POINTS),
        "left_s": None if left is None else round(left.seconds), "left_is_whole": left is None or left.whole,
        "spent_s": _number(_spent(run, live)),
    }  # fmt: skip


def unreadable(path: str, error: str, live: Liveness) -> Plain:
    """In place of a line: a run that is only beginning, or whose files are damaged."""
    begun = live.alive and "curriculum.yaml is missing" in error
    return {"path": path, "state": "running" if live.alive else "failed", "starting": begun, "error": live.failure or ("" if begun else error)}


def page(path: str, run: RunResults, live: Liveness) -> Plain:
    """All that is shown of one run."""
    return {
        **line(path, run, live),
        "command": run.command, "folder": str(run.folder.resolve()),
        "cells": [_cell(run, stage, task) for stage in range(run.stages_done + 1) for task in run.tasks if (stage, task) in run.cell_at],
        "experts": {ceiling.task: ceiling.rate for ceiling in run.ceilings if ceiling.attempts},
        "columns": list(run.tasks),
        "stage_tasks": [short_name(task) for task in run.stages], "stage_starts": list(run.stage_starts),
        "curves": {name: loss_curve(run, key, CURVE_POINTS) for name, key in (("loss", "loss"), ("replay loss", "replay_loss"))},
        "phases": phases(run, live), "failures": failure_sentences(run), "headlines": _headlines(run), **files(run.folder),
    }  # fmt: skip


def comparison(runs: Sequence[tuple[str, RunResults]]) -> Plain:
    """Several runs side by side, and what makes them not like for like."""
    rows = []
    for path, run in runs:
        row = run_row(run)
        over_stages = metrics.average_success_over_stages(run.matrix, run.own_stage) if run.stages_done else np.array([])
        rows.append({
            "path": path, "name": run.name, "curriculum": run.curriculum, "stages_done": run.stages_done, "stages": len(run.stages),
            "success": _interval(row.success), "forgetting": _interval(headlines.forgetting(run)),
            "just_learned": _number(headlines.just_learned(run).mean), "episodes": row.success.size,
            "over_stages": [[stage, _number(rate)] for stage, rate in enumerate(over_stages, 1) if not math.isnan(rate)],
            "tasks": [_task(run, task, own) for task, own in zip(run.tasks, run.own_stage, strict=True)],
            "total_s": row.total_s or None, "phases": phases(run, Liveness(False, False)),
            "kept_bytes": row.kept, "past_data_bytes": row.past_data,
        })  # fmt: skip
    return {"runs": rows, "unlike": unlike([run for _, run in runs]) if len(runs) > 1 else []}


def loss_curve(run: RunResults, key: str, points: int) -> list[list[float]]:
    """[updates in all, loss] of a column of metrics.jsonl, averaged to at most `points` of them; what is not finite is left out."""
    rows = [
        (run.updates_before(stage) + row["update"], float(row[key]))
        for row in run.training
        if 0 < (stage := row.get("stage", 0)) <= len(run.stages) and row.get("update") is not None and _number(row.get(key)) is not None
    ]
    if not rows:
        return []
    parts = np.array_split(np.array(rows, dtype=float), min(points, len(rows)))
    with np.errstate(over="ignore"):
        means = [(round(float(part[-1, 0])), float(part[:, 1].mean())) for part in parts]
    return [[update, float(f"{mean:.4g}")] for update, mean in means if math.isfinite(mean)]


def phases(run: RunResults, live: Liveness) -> list[Plain]:
    """Seconds per phase so far, the longest first."""
    return [{"phase": cost.phase, "seconds": round(cost.seconds, 1)} for cost in by_phase(_seconds(run, live))]


def files(folder: Path) -> Plain:
    """What there is to open: names below the run folder."""
    videos = sorted(path.name for path in folder.glob("videos/*.mp4"))[-MOST_VIDEOS:]
    tables = sorted(path.name for pattern in ("*.csv", "*.jsonl", "*.json", "*.yaml", "*.txt") for path in folder.glob(pattern))
    shown = [name for name in ("report.html", "summary.png") if (folder / name).is_file()]
    return {
        "report": "report.html" in shown, "summary": "summary.png" in shown, "tables": [name for name in tables if not name.startswith(".")],
        "videos": [{"name": name, "poster": (folder / "videos" / name).with_suffix(".png").is_file()} for name in videos],
    }  # fmt: skip


def _where(run: RunResults, live: Liveness) -> Plain:
    """Stage, task, update and phase; of a run that tells nothing, as far as its training figures say."""
    last = run.training[-1] if run.training else {}
    told = live.where
    stage = told.get("stage", last.get("stage", run.stages_done))
    stage = stage if 0 <= stage <= len(run.stages) else run.stages_done
    update = told.get("update", last.get("update") if last.get("stage") == stage and stage > run.stages_done else None)
    of = run.updates_of(stage) if stage else 0
    phase = {key: told.get(key) for key in ("phase", "done", "total", "rate")}
    task = told.get("task") or (run.stages[stage - 1] if stage else "")
    return {"stage": stage, "task": short_name(task), "update": update, "updates": of, **phase}


def _share(run: RunResults, where: Plain) -> float:
    """Of all updates, those that are done; in [0, 1]."""
    whole, done = sum(run.stage_updates) or 1, run.stage_starts[run.stages_done]
    if where["stage"] > run.stages_done and where["update"] is not None:
        done = run.updates_before(where["stage"]) + where["update"]
    elif where["stage"] > run.stages_done and where["phase"] in ("fisher", "generator", "replay", "evaluate", "checkpoint"):
        done = run.stage_starts[where["stage"]]
    return min(1.0, done / whole)


def _task(run: RunResults, task: str, own: int) -> Plain:
    """Success on a task after the last finished stage, and just after it was learned."""
    now, learned = run.cell_at.get((run.stages_done, task)), run.cell_at.get((own, task))
    return {
        "task": short_name(task), "learned": own <= run.stages_done,
        "now": now.rate if now is not None and now.episodes else None, "then": learned.rate if learned is not None and learned.episodes else None,
    }  # fmt: skip


def _cell(run: RunResults, stage: int, task: str) -> Plain:
    cell = run.cell_at[stage, task]
    return {
        "stage": stage, "task": task, "own": stage in run.stages_of(task), "episodes": cell.episodes, "successes": cell.successes,
        "rate": _number(cell.rate) if cell.episodes else None, "low": _number(cell.wilson_low), "high": _number(cell.wilson_high),
    }  # fmt: skip


def _headlines(run: RunResults) -> Plain:
    recovery = headlines.recovery_headline(run)
    return {
        "success": _interval(headlines.final_success(run)), "forgetting": _interval(headlines.forgetting(run)),
        "forward": _interval(headlines.forward_transfer(run)),
        "recovery": {
            "threshold": recovery.threshold, "pairs": recovery.pairs,
            "dipped": recovery.dipped.size, "median": recovery.dipped.median, "never": recovery.dipped.never,
        },
    }  # fmt: skip


def _seconds(run: RunResults, live: Liveness) -> dict[str, float]:
    return dict(live.where.get("seconds") or run.cost.get("phases") or {})


def _spent(run: RunResults, live: Liveness) -> float:
    return sum(_seconds(run, live).values()) or math.nan


def _interval(found: Interval) -> Plain:
    return {"mean": _number(found.mean), "low": _number(found.low), "high": _number(found.high)}


def _number(value: Any) -> float | None:
    """None for what is no finite number, which JSON has no word for."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
