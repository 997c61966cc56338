"""An experiment: methods x seeds on one curriculum, from the finished runs to every table of its page. Pure aggregation.

    run folders -> RunResults -> groups of equal settings -> methods     what is left, what was forgotten, beside the published values
                                                             tasks       what is left, task by task
                                                             stages      average success on the way there, stage by stage
                                                             paired      the same as differences to a reference method, seed by seed
                                                             orders      the same over several orders of the tasks, where there are any
                                                             plasticity  is the last third of the tasks learned as well as the first?
                                                             learning    how fast tasks are learned, where learning curves were measured
                                                             recovery    all (earlier task, transition) cells, summarised and one by one
                                                             wins        who came back sooner, cell by cell
                                                             costs       minutes, bytes and FLOPs

An interval over seeds is Student's t and speaks of the method; a single seed has only the binomial interval of its episodes, which speaks
of that one trained policy. `Estimate.over` says which it is. Plasticity and transfer stand beside `single`, where runs of it have the same
settings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from reconverge.envs.curriculum import CW10
from reconverge.envs.errors import UnknownName
from reconverge.eval import headlines
from reconverge.eval.comparison import kept_bytes, unlike
from reconverge.eval.cost import by_phase
from reconverge.eval.estimate import Estimate, estimate
from reconverge.eval.interquartile_mean import bootstrap_interval
from reconverge.eval.intervals import Interval
from reconverge.eval.learning_curve import LearningRow, learning_row
from reconverge.eval.paired_comparison import PairedRow, paired_row, success_per_task
from reconverge.eval.plasticity import PlasticityRow, plasticity_row
from reconverge.eval.published_results import PublishedSuccess, published_success, same_tasks_in_order
from reconverge.eval.recovery_comparison import RecoveryCell, RecoverySummary, WinsRow, compare_recovery, recovery_cells, recovery_summaries
from reconverge.eval.run_groups import RunGroup, differing, group_runs, settings_of, worded
from reconverge.eval.run_results import RunResults
from reconverge.eval.task_failures import failure_sentences
from reconverge.eval.task_orders import OrdersRow, orders_rows
from reconverge.policy.method_settings import is_read

DEFAULT_REFERENCE = "replay"
FLOPS = ("one query", "one update", "in all")
"""Of the FLOPs in a cost.json, those that are compared."""
FURTHER: dict[str, Callable[[RunResults], Interval]] = {
    "peak forgetting": headlines.peak_forgetting,
    "backward transfer": headlines.backward_transfer,
    "forward transfer": headlines.forward_transfer,
}
"""What else is said of what became of the tasks; shown where any method has it."""


@dataclass(frozen=True)
class MethodRow:
    """Rates in [0, 1]; `episodes` is how many stand behind `success`, all `seeds` that count in it together.

    `success_iqm` is the interquartile mean over seeds x tasks, with its bootstrap interval over whole runs; `further` are the figures of `FURTHER`.
    """

    label: str
    seeds: tuple[int, ...]
    success: Estimate
    forgetting: Estimate
    just_learned: Estimate
    success_iqm: Interval
    further: dict[str, Estimate]
    episodes: int
    published: PublishedSuccess | None


@dataclass(frozen=True)
class SuccessRow:
    """Success of a method on one task at the end, or after one stage on all tasks learned so far; `seeds` measured it.

    `stage` is the one after which it was measured; of a row about one task None. `expert` is how often the task's expert succeeds; NaN where
    that is not known, or of a row about a stage.
    """

    label: str
    stage: int | None
    task: str
    seeds: int
    success: Estimate
    expert: float = math.nan


@dataclass(frozen=True)
class CostRow:
    """Wall-clock minutes: mean over seeds with the shortest and longest run, and the mean of every phase; bytes after the last stage.

    FLOPs of one acting query, of one update of the last stage and of a whole run, each the mean of the runs that counted them; else NaN.
    """

    label: str
    seeds: int
    minutes: float
    shortest: float
    longest: float
    phases: dict[str, float]
    kept_bytes: float
    past_data_bytes: float
    query_flops: float
    update_flops: float
    run_flops: float


@dataclass(frozen=True)
class Experiment:
    """Everything the page and the tables show.

    `warnings` say what is not like for like, `failures` which tasks failed in their simulators, `notes` what was left out.
    """

    reference: str
    groups: tuple[RunGroup, ...]
    methods: tuple[MethodRow, ...]
    tasks: tuple[SuccessRow, ...]
    stages: tuple[SuccessRow, ...]
    paired: tuple[PairedRow, ...]
    orders: tuple[OrdersRow, ...]
    plasticity: tuple[PlasticityRow, ...]
    learning: tuple[LearningRow, ...]
    recovery: tuple[RecoverySummary, ...]
    cells: tuple[RecoveryCell, ...]
    wins: tuple[WinsRow, ...]
    costs: tuple[CostRow, ...]
    warnings: tuple[str, ...]
    failures: tuple[str, ...]
    notes: tuple[str, ...]


def summarise(runs: Sequence[RunResults], reference: str | None = None) -> Experiment:
    """Every table from the runs. `reference` is a label or a method; UnknownName when no group has it.

    Runs that are not finished count only where none is.
    """
    finished = [run for run in runs if run.finished]
    used = finished or list(runs)
    groups = group_runs(used)
    base = find_reference(groups, reference)
    others = [group for group in groups if group is not base]
    alone = {id(group): single_beside(group, groups) for group in groups}
    as_published = all(same_tasks_in_order(run.stages) for run in used)
    methods = tuple(method_row(group) for group in groups)
    return Experiment(
        reference=base.label,
        groups=tuple(groups),
        methods=methods,
        tasks=tuple(row for group in groups for row in task_rows(group)),
        stages=tuple(row for group in groups for row in stage_rows(group)),
        paired=tuple(row for group in others if (row := paired_row(group, base)) is not None),
        orders=tuple(orders_rows(groups, base)),
        plasticity=tuple(plastic for group in groups if (plastic := plasticity_row(group, alone[id(group)])) is not None),
        learning=tuple(learned for group in groups if (learned := learning_row(group, alone[id(group)])) is not None),
        recovery=tuple(row for group in groups for row in recovery_summaries(group, as_published)),
        cells=tuple(row for group in groups for row in recovery_cells(group, as_published)),
        wins=tuple(row for group in others for row in compare_recovery(group, base, as_published)),
        costs=tuple(cost_row(group) for group in groups),
        warnings=tuple(unlike(used)),
        failures=tuple(f"{run_name(run, groups)}: {sentence}" for run in runs for sentence in failure_sentences(run)),
        notes=tuple(_notes(runs, used, groups, methods, base)),
    )


def find_reference(groups: Sequence[RunGroup], name: str | None = None) -> RunGroup:
    """The group with this label, else that of this method with the most seeds; without a name `replay`, else the first of all."""
    wanted = name or DEFAULT_REFERENCE
    found = [group for group in groups if group.label == wanted] or [group for group in groups if group.method == wanted]
    if found:
        return max(found, key=lambda group: len(group.runs))
    if name is not None:
        raise UnknownName("reference", name, list(dict.fromkeys([*(group.label for group in groups), *(group.method for group in groups)])))
    return groups[0]


def single_beside(group: RunGroup, groups: Sequence[RunGroup]) -> RunGroup | None:
    """The group of `single` with the same settings, stages and updates among them, as far as `single` reads them; None without one.

    Its recovery is not followed, so that a recovery grid is nothing to it.
    """

    def matter(run: RunResults) -> dict[str, Any]:
        return {key: value for key, value in settings_of(run).items() if is_read(key, "single") and not key.startswith("recovery.")}

    own = matter(group.runs[0])
    return next((other for other in groups if other.method == "single" and matter(other.runs[0]) == own), None)


def method_row(group: RunGroup) -> MethodRow:
    success, whole_cw10 = estimate(group, headlines.final_success), all(run.stages == CW10 and run.finished for run in group.runs)
    return MethodRow(
        label=group.label,
        seeds=success.seeds,
        success=success,
        forgetting=estimate(group, headlines.forgetting),
        just_learned=estimate(group, headlines.just_learned),
        success_iqm=bootstrap_interval(final_table(group)),
        further={name: estimate(group, figure) for name, figure in FURTHER.items()},
        episodes=sum(headlines.final_success(run).size for run in group.runs if run.seed in success.seeds),
        published=published_success().get(group.published_as) if whole_cw10 else None,
    )


def best_first(rows: Sequence[MethodRow]) -> list[MethodRow]:
    """By success at the end; those of which none was measured come last."""
    return sorted(rows, key=lambda row: -1.0 if math.isnan(row.success.interval.mean) else row.success.interval.mean, reverse=True)


def task_rows(group: RunGroup) -> list[SuccessRow]:
    """One per task that was measured at the end, in the order in which they are learned."""
    experts = expert_rates(group)
    found = [(task, estimate(group, partial(headlines.task_success, task=task))) for task in group.runs[0].tasks]
    return [SuccessRow(group.label, None, task, len(rate.seeds), rate, experts.get(task, math.nan)) for task, rate in found if rate.seeds]


def stage_rows(group: RunGroup) -> list[SuccessRow]:
    """One per stage after which any task was measured; `task` is the one that it learned."""
    stages = enumerate(group.stages, start=1)
    found = [(stage, task, estimate(group, partial(headlines.success_after, stage=stage))) for stage, task in stages]
    return [SuccessRow(group.label, stage, task, len(rate.seeds), rate) for stage, task, rate in found if rate.seeds]


def expert_rates(group: RunGroup) -> dict[str, float]:
    """task -> how often its expert succeeds, in [0, 1]."""
    return {ceiling.task: ceiling.rate for run in group.runs for ceiling in run.ceilings}


def cost_row(group: RunGroup) -> CostRow:
    """Runs without a cost.json or a ledger are left out of the means; NaN where none has one."""
    timed = [run.cost for run in group.runs if run.cost.get("phases") or run.cost.get("total_s")]
    phases = [{cost.phase: cost.seconds / 60 for cost in by_phase(entry.get("phases") or {})} for entry in timed]
    minutes = [float(entry.get("total_s") or 60 * sum(spent.values())) / 60 for entry, spent in zip(timed, phases, strict=True)]
    names = dict.fromkeys(name for spent in phases for name in spent)
    kept = [entry for run in group.runs if (entry := kept_bytes(run)) is not None]
    flops = {name: _mean([float(counts[name]) for run in group.runs if name in (counts := run.cost.get("flops") or {})]) for name in FLOPS}
    return CostRow(
        label=group.label, seeds=len(timed), minutes=_mean(minutes), shortest=min(minutes, default=math.nan),
        longest=max(minutes, default=math.nan), phases={name: _mean([spent.get(name, 0.0) for spent in phases]) for name in names},
        kept_bytes=_mean([entry[0] for entry in kept]), past_data_bytes=_mean([entry[1] for entry in kept]),
        query_flops=flops["one query"], update_flops=flops["one update"], run_flops=flops["in all"],
    )  # fmt: skip


def final_table(group: RunGroup) -> np.ndarray:
    """(seeds, tasks) success at the end of the tasks learned so far, in [0, 1]; NaN = not measured."""
    return np.array([success_per_task(run) for run in group.runs])


def final_rates(group: RunGroup) -> dict[str, float]:
    """task -> success at the end in [0, 1] of the tasks learned so far, mean over the seeds that measured it."""
    return {row.task: row.success.interval.mean for row in task_rows(group)}


def run_name(run: RunResults, groups: Sequence[RunGroup]) -> str:
    """A run by the label of its group and its seed; one that is in no group by its method."""
    labels = [group.label for group in groups if any(run is member for member in group.runs)]
    return f"{labels[0]}, seed {run.seed}" if labels else run.name


def measured_further(rows: Sequence[MethodRow] | Sequence[PairedRow]) -> list[str]:
    """The names in `FURTHER` of which any row has a figure."""
    figures = [(name, found.interval if isinstance(found, Estimate) else found) for row in rows for name, found in row.further.items()]
    return [name for name in FURTHER if any(name == own and not math.isnan(interval.mean) for own, interval in figures)]


def caveats(experiment: Experiment) -> list[str]:
    """What must be said wherever the figures are shown, a sentence each."""
    unlike_runs = [f"Not like for like: these runs differ in {', '.join(experiment.warnings)}."] if experiment.warnings else []
    failed = [f"Left out of all figures: {sentence}" for sentence in experiment.failures]
    return [*unlike_runs, *failed, *experiment.notes]


def _is_partial(run: RunResults, row: MethodRow) -> bool:
    """Whether a run measured some tasks at the end, and other seeds of its method more."""
    return run.seed not in row.seeds and not math.isnan(headlines.final_success(run).mean)


def _notes(
    runs: Sequence[RunResults], used: Sequence[RunResults], groups: Sequence[RunGroup], rows: Sequence[MethodRow], base: RunGroup
) -> list[str]:
    notes = []
    if len(used) < len(runs):
        names = ", ".join(f"{run.name} ({run.stages_done} of {len(run.stages)} stages)" for run in runs if not run.finished)
        notes.append(f"Not finished, so left out of the tables: {names}.")
    twice = [run for run in used if not any(run is member for group in groups for member in group.runs)]
    if twice:
        notes.append(f"Same method, seed and settings that matter as another run, so counted once: {', '.join(str(run.folder) for run in twice)}.")
    elsewhere = [group.label for group in groups if group.stages != base.stages]
    if elsewhere:
        notes.append(f"Other stages than those of {base.label}, so not compared with it: {', '.join(elsewhere)}.")
    fewer = [f"{row.label}, seed {run.seed}" for group, row in zip(groups, rows, strict=True) for run in group.runs if _is_partial(run, row)]
    if fewer:
        notes.append(f"Fewer tasks were measured at the end than with another seed, so left out of the means over tasks: {'; '.join(fewer)}.")
    if len({run.stages_done for run in used}) > 1:
        notes.append("Runs have got to different stages: only pairs that got equally far are compared, and with published values finished runs.")
    lacking = sum(headlines.recovery_headline(run).without_curve for group in groups for run in group.runs)
    if lacking:
        notes.append(f"Recovery without its curve in recovery_curves.csv, so left out: {lacking} pairs of earlier task and transition.")
    settings = {key: values for key, values in differing([group.runs[0] for group in groups]).items() if key != "curriculum"}
    if settings:
        listed = "; ".join(f"{key} ({', '.join(map(worded, values))})" for key, values in settings.items())
        notes.append(f"Settings that are not the same in all groups: {listed}.")
    return notes


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else math.nan
