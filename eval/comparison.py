"""Several runs side by side: the figures of each, and what makes them not like for like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reconverge.eval import headlines, metrics
from reconverge.eval.intervals import Interval
from reconverge.eval.mixed_fingerprints import mixed_fingerprints
from reconverge.eval.run_results import RunResults


@dataclass(frozen=True)
class RunRow:
    """One run's figures: rates in [0, 1], bytes, seconds; `kept` and `past_data` are None without a ledger."""

    run: RunResults
    success: Interval
    forgetting: float
    peak: float
    backward: float
    forward: float
    recovery: headlines.RecoveryHeadline
    kept: int | None
    past_data: int | None
    total_s: float


def run_row(run: RunResults) -> RunRow:
    kept = kept_bytes(run)
    return RunRow(
        run=run,
        success=headlines.final_success(run),
        forgetting=headlines.forgetting(run).mean,
        peak=metrics.forgetting_peak(run.by_stage),
        backward=metrics.backward_transfer(run.by_stage),
        forward=metrics.forward_transfer(run.matrix, run.own_stage),
        recovery=headlines.recovery_headline(run),
        kept=kept[0] if kept else None,
        past_data=kept[1] if kept else None,
        total_s=float(run.cost.get("total_s") or 0),
    )


def kept_bytes(run: RunResults) -> tuple[int, int] | None:
    """Bytes kept after the last stage of the ledger, and how many are data of past tasks."""
    if not run.ledger:
        return None
    last = [entry for entry in run.ledger if entry.stage == run.ledger[-1].stage]
    return sum(entry.bytes for entry in last), sum(entry.bytes for entry in last if entry.past_task_data)


def unlike(runs: Sequence[RunResults]) -> list[str]:
    """What makes the runs not like for like; simulators and library versions that differ are named with the runs that have them."""
    aspects: dict[str, set[Any]] = {
        "curricula": {run.stages for run in runs},
        "updates per stage": {run.stage_updates for run in runs},
        "stages after which more tasks were given": {tuple(run.extended_after) for run in runs},
        "progress": {run.stages_done for run in runs},
        "numbers of parameters": {run.fingerprint.get("parameters") for run in runs},
        "episodes per cell": {tuple(sorted({cell.episodes for cell in run.cells})) for run in runs},
        "points and episodes of the recovery curves": {_recovery_points(run) for run in runs if run.curve_points},
    }
    commits = code_commits(runs)
    counted = [f"commits of the code ({len(commits)})"] if len(commits) > 1 else []
    return [*(aspect for aspect, values in aspects.items() if len(values) > 1), *counted, *mixed_fingerprints(runs)]


def code_commits(runs: Sequence[RunResults]) -> list[str]:
    """The distinct commits of the code by which the runs were made, shortened; `unknown` where a run does not say."""
    return sorted({_short(run.fingerprint.get("git_commit") or "unknown") for run in runs})


def torch_versions(runs: Sequence[RunResults]) -> list[str]:
    """The distinct versions of torch, `unknown` where a run does not say."""
    return sorted({str((run.fingerprint.get("versions") or {}).get("torch", "unknown")) for run in runs})


def _short(commit: str) -> str:
    """Twelve digits of a commit and, where files differed from it, `+changes`."""
    digits, plus, changes = str(commit).partition("+")
    return digits[:12] + plus + changes


def _recovery_points(run: RunResults) -> tuple[tuple[int, int], ...]:
    """Every (update, episodes) at which an online recovery curve was measured."""
    return tuple(sorted({(point.update, point.episodes) for point in run.curve_points if point.kind == "online"}))
