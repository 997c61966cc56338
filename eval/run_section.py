"""The report's section about one run: what `report_template.html` lays out for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reconverge.eval import headlines, plots, wording
from reconverge.eval.cost import by_phase
from reconverge.eval.diagnostics_section import diagnostics_section
from reconverge.eval.embedded_videos import embedded_videos
from reconverge.eval.learning_curve import area_under, learning_curves
from reconverge.eval.page_template import inline
from reconverge.eval.plasticity import change
from reconverge.eval.published_results import published_recovery, same_tasks_in_order
from reconverge.eval.run_groups import flat_settings
from reconverge.eval.run_results import Recovery, RunResults
from reconverge.eval.task_failures import failure_sentences
from reconverge.eval.wording import bounds, percent, points

PUBLISHED_METHODS = ("trust-region", "replay")
"""Published methods shown beside a run's own recovery."""
LOW_SPLIT_HALF_COSINE = 0.3
"""Below this the two halves of the draws hardly agree on the direction that the Fisher protects."""


@dataclass(frozen=True)
class Headline:
    """One figure of the summary: its text, its interval's text, and one sentence on what it is."""

    title: str
    value: str
    interval: str
    sentence: str


@dataclass(frozen=True)
class ShownRecovery:
    """Updates at one threshold: from the bottom of the dip, whether there was one at all, the first time as published counts
    where that differs, and the published figures."""

    after_dip: str
    steady: bool
    first: str
    published: tuple[str, ...]


@dataclass(frozen=True)
class RecoveryRow:
    stage: int
    new_task: str
    task: str
    reference: float
    cells: tuple[ShownRecovery, ...]
    dip: float
    dip_area: float
    learned: bool


@dataclass(frozen=True)
class LedgerStage:
    """What is kept after a stage: bytes per item of the ledger, in all, and of past tasks' data."""

    stage: int
    sizes: tuple[int, ...]
    total: int
    past: int


def run_section(run: RunResults, number: int, video_limit_bytes: int) -> dict[str, Any]:
    """Everything the template shows about one run."""
    figures = {
        "matrix": plots.success_matrix(run),
        "curves": plots.task_curves(run),
        "strips": plots.retained_strips(run),
        "dips": plots.recovery_dips(run),
        "probe_dips": plots.recovery_dips(run, kind="probe"),
        "loss": plots.training_loss(run),
        "cost": plots.cost_bar(run.cost.get("phases") or {}),
    }
    return {
        "id": f"run-{number}",
        "run": run,
        "progress": f"{run.stages_done} of {len(run.stages)} stages",
        "headlines": _headlines(run),
        "figures": {name: None if figure is None else inline(figure) for name, figure in figures.items()},
        "recovery": {kind: _recovery_table(run, kind) for kind in ("online", "probe")},
        "thresholds": {kind: _thresholds(run, kind) for kind in ("online", "probe")},
        "published_methods": PUBLISHED_METHODS if same_tasks_in_order(run.stages) else (),
        "ledger": _ledger(run),
        "ledger_items": _ledger_items(run),
        "past_data": max((stage.past for stage in _ledger(run)), default=0),
        "cost": _cost(run),
        "videos": embedded_videos(run, video_limit_bytes),
        "settings": [(key, str(value)) for key, value in flat_settings(run.config).items()],
        "low_cosine": LOW_SPLIT_HALF_COSINE,
        "diagnostics": diagnostics_section(run),
        "areas": [(run.stages[stage - 1], stage, area_under(curve)) for stage, curve in learning_curves(run).items()],
        "episodes": _episode_note(run),
        "failures": failure_sentences(run),
    }


def _headlines(run: RunResults) -> list[Headline]:
    success, lost = headlines.final_success(run), headlines.forgetting(run)
    backward, forward, plastic = headlines.backward_transfer(run), headlines.forward_transfer(run), change(run)
    return [
        Headline("Final success", percent(success.mean), bounds(success), "Mean over the tasks learned so far, after the last finished stage."),
        Headline(
            "Forgetting", points(lost.mean), bounds(lost, points),
            "Success just after learning a task minus success at the end, mean over tasks.",
        ),
        Headline(
            "Backward transfer", points(backward.mean), bounds(backward, points),
            "Change of the earlier tasks since each was learned; above zero, later tasks helped.",
        ),
        Headline(
            "Forward transfer", points(forward.mean), bounds(forward, points),
            "Success on a task just before it is learned, above the untrained policy's.",
        ),
        Headline(
            "Plasticity", points(plastic.mean), bounds(plastic, points),
            "Success just after learning, mean over the last third of the tasks minus that over the first third; tasks are not equally hard.",
        ),
        _recovery_figure(headlines.recovery_headline(run)),
    ]  # fmt: skip


def _recovery_figure(back: headlines.RecoveryHeadline) -> Headline:
    left_out = f"; {back.without_curve} left out, curve missing" if back.without_curve else ""
    if not back.pairs:
        return Headline("Recovery", "–", f"not measured{left_out}", "Updates until an earlier task is back after the curriculum moved on.")
    dipped = back.dipped
    counts = f"{dipped.size} of {back.pairs} dipped" + (f", {dipped.never} never back" if dipped.size else "") + left_out
    sentence = (
        f"Median updates until an earlier task that fell below {back.threshold} % of its own success is back there after the bottom of its dip. "
        f"As published, of all pairs and the first time at or above: {wording.median_of_all(back.first, dipped.size)}."
    )
    return Headline("Recovery", wording.median(dipped) if dipped.size else "no dip", counts, sentence)


def _episode_note(run: RunResults) -> str:
    """How many episodes stand behind the matrix, in words."""
    counts = sorted({cell.episodes for cell in run.cells})
    if not counts:
        return "nothing has been evaluated yet"
    per_cell = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    invalid = sum(row.invalid for row in run.episodes)
    played = [cell for cell in run.cells if headlines.played_at(run.method, run.stages, cell.stage, cell.task) == cell.stage]
    note = f"{per_cell} episodes per cell, {sum(cell.episodes for cell in played):,} in all"
    return f"{note}; {invalid} more were invalid and left out" if invalid else note


def _thresholds(run: RunResults, kind: str) -> list[int]:
    return sorted({row.threshold for row in run.recoveries if row.kind == kind}, reverse=True)


def _recovery_table(run: RunResults, kind: str) -> list[RecoveryRow]:
    """One row per (transition, old task) in that order."""
    found = {(row.stage, row.task, row.threshold): row for row in run.recoveries if row.kind == kind}
    places = sorted({(stage, task) for stage, task, _ in found}, key=lambda place: (place[0], _rank(run, place[1])))
    return [_recovery_row(run, [found.get((stage, task, threshold)) for threshold in _thresholds(run, kind)]) for stage, task in places]


def _recovery_row(run: RunResults, rows: Sequence[Recovery | None]) -> RecoveryRow:
    any_row = next(row for row in rows if row is not None)
    in_curriculum = 1 <= any_row.stage <= len(run.stages)
    return RecoveryRow(
        stage=any_row.stage,
        new_task=run.stages[any_row.stage - 1] if in_curriculum else "",
        task=any_row.task,
        reference=any_row.reference_rate,
        cells=tuple(shown_recovery(run, row) if row else ShownRecovery("·", False, "", ()) for row in rows),
        dip=any_row.dip,
        dip_area=any_row.dip_area,
        learned=any_row.reference_rate > 0,
    )


def shown_recovery(run: RunResults, row: Recovery) -> ShownRecovery:
    after_dip = headlines.after_dip_of(run, row)
    first = wording.updates(row.updates) if row.updates is not None and after_dip != row.updates else ""
    published = tuple(_published(run, row, method) for method in PUBLISHED_METHODS) if same_tasks_in_order(run.stages) else ()
    return ShownRecovery(wording.updates(after_dip), headlines.is_steady(run, row), first, published)


def _published(run: RunResults, row: Recovery, method: str) -> str:
    key = (method, _rank(run, row.task) + 1, row.stage, row.threshold)
    table = published_recovery()
    return wording.updates(table[key]) if row.kind == "online" and key in table else "·"


def _rank(run: RunResults, task: str) -> int:
    return run.tasks.index(task) if task in run.tasks else len(run.tasks)


def _ledger(run: RunResults) -> list[LedgerStage]:
    """One row per stage with a size for each of `_ledger_items`."""
    stages = []
    for stage in sorted({entry.stage for entry in run.ledger}):
        kept = [entry for entry in run.ledger if entry.stage == stage]
        sizes = tuple(sum(entry.bytes for entry in kept if entry.item == item) for item in _ledger_items(run))
        stages.append(LedgerStage(stage, sizes, sum(sizes), sum(entry.bytes for entry in kept if entry.past_task_data)))
    return stages


def _ledger_items(run: RunResults) -> list[str]:
    return list(dict.fromkeys(entry.item for entry in run.ledger))


def _cost(run: RunResults) -> dict[str, Any]:
    phases = {str(phase): float(seconds) for phase, seconds in (run.cost.get("phases") or {}).items()}
    total, updates = sum(phases.values()), run.stage_starts[run.stages_done]
    return {
        "rows": [cost for cost in by_phase(phases) if cost.seconds > 0],
        "total_s": total,
        "episodes": run.cost.get("episodes_evaluated"),
        "flops": run.cost.get("flops") or {},
        "update_ms": 1000 * phases["update"] / updates if updates and phases.get("update") else None,
    }
