"""The tables of an experiment as CSV files and its figures as PNG and SVG, to be committed or put into a paper.

    table1.csv               success at the end, just learned, forgetting, transfer per method; beside the published values
    tasks.csv                success at the end per method, task by task, and how often the task's expert succeeds
    stages.csv               average success per method on the tasks learned so far, stage by stage
    paired.csv               differences to the reference over common seeds
    orders.csv               per method over several orders of the same tasks, where there are any
    plasticity.csv           just-learned success per method: first and last third of the tasks, beside single, and task by task
    learning.csv             area under the learning curves and forward transfer, where they were measured
    recovery_summary.csv     per method and threshold over all cells x seeds
    recovery_cells.csv       per method, threshold and (earlier task, transition) over seeds
    wins.csv                 wins, ties, losses against the reference per threshold and count
    cost.csv                 minutes, bytes and FLOPs per method
    table1.tex  recovery.tex table1 and recovery_summary for LaTeX
    tables.md                the tables for a README, an issue or a page of documentation
    methods.png  stages.png  tasks.png  plasticity.png
    recovery-METHOD.png      all cells of a method; every figure also as .svg

Rates, shares and differences are in [-1, 1]; bounds over seeds are Student's, which may lie outside; updates and bytes are counts.
An empty entry was not measured, does not exist or, for a number of updates whose `..._never` or `size` is above zero, was not reached.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reconverge.envs.artifact import write_file
from reconverge.eval import plots
from reconverge.eval.experiment import CostRow, Experiment, MethodRow, SuccessRow, measured_further, summarise
from reconverge.eval.experiment_figures import experiment_figures
from reconverge.eval.intervals import Interval
from reconverge.eval.latex_tables import latex_tables
from reconverge.eval.learning_curve import LearningRow
from reconverge.eval.markdown_tables import markdown_tables
from reconverge.eval.paired_comparison import PairedRow
from reconverge.eval.plasticity import PlasticityRow
from reconverge.eval.recovery_comparison import RecoveryCell, RecoverySummary, WinsRow
from reconverge.eval.run_results import read_run
from reconverge.eval.survival import MedianUpdates
from reconverge.eval.task_orders import OrdersRow

Entries = Mapping[str, Any]
OPTIONAL = ("orders", "learning")
"""Tables that are left out where they would have no rows."""
OURS = re.compile(rf"(recovery-.+|methods|stages|tasks|plasticity)\.(png|svg)|({'|'.join(OPTIONAL)})\.csv")
"""Names of files that depend on what an experiment holds."""


def write_tables(runs: Sequence[Path], folder: Path, reference: str | None = None) -> list[Path]:
    """Write every table and figure of the experiment that `runs` are into `folder`; returns what was written.

    What an earlier report has left there under these names and this one does not hold, such as figures of more groups, is removed.
    """
    experiment = summarise([read_run(Path(run)) for run in runs], reference)
    rows = experiment_rows(experiment)
    contents: dict[str, str | bytes] = {f"{name}.csv": csv_text(rows[name]) for name in rows if rows[name] or name not in OPTIONAL}
    contents |= latex_tables(experiment) | {"tables.md": markdown_tables(experiment)}
    if any(run.stages_done for group in experiment.groups for run in group.runs):
        for name, figure in experiment_figures(experiment).items():
            contents |= {f"{name}.svg": plots.svg_file(figure), f"{name}.png": plots.png(figure)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_file(folder / name, content)
    for path in folder.iterdir():
        if path.name not in contents and OURS.fullmatch(path.name):
            path.unlink()
    return [folder / name for name in contents]


def experiment_rows(experiment: Experiment) -> dict[str, list[Entries]]:
    """Name of a table -> its rows, each a mapping of column to value."""
    return {
        "table1": [_method(row, measured_further(experiment.methods)) for row in experiment.methods],
        "tasks": [_task(row) for row in experiment.tasks],
        "stages": [_stage(row) for row in experiment.stages],
        "paired": [_paired(row, measured_further(experiment.paired)) for row in experiment.paired],
        "orders": [_orders(row) for row in experiment.orders],
        "plasticity": [_plasticity(row) for row in experiment.plasticity],
        "learning": [_learning(row) for row in experiment.learning],
        "recovery_summary": [_summary(row) for row in experiment.recovery],
        "recovery_cells": [_cell(row) for row in experiment.cells],
        "wins": [entry for row in experiment.wins for entry in _wins(row)],
        "cost": _costs(experiment.costs),
    }


def csv_text(rows: Sequence[Entries]) -> str:
    """Rows as CSV with the columns of all; floats to six digits, None, NaN and what a row lacks empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if rows:
        writer.writerow(columns)
        writer.writerows([_entry(row.get(column)) for column in columns] for row in rows)
    return stream.getvalue()


def _entry(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _method(row: MethodRow, further: Sequence[str]) -> Entries:
    found = row.published
    return {
        "method": row.label, "seeds": len(row.seeds), "interval_over": row.success.over, "episodes": row.episodes,
        **_interval("success", row.success.interval),
        **_interval("just_learned", row.just_learned.interval),
        **_interval("forgetting", row.forgetting.interval),
        **_interval("success_iqm", row.success_iqm),
        **_further({name: row.further[name].interval for name in further}),
        "published_success": found.success if found else None, "published_success_se": found.success_se if found else None,
        "published_forgetting": found.forgetting if found else None, "published_forgetting_se": found.forgetting_se if found else None,
    }  # fmt: skip


def _task(row: SuccessRow) -> Entries:
    head = {"method": row.label, "task": row.task, "seeds": row.seeds, "interval_over": row.success.over}
    return {**head, **_interval("success", row.success.interval), "expert": row.expert}


def _stage(row: SuccessRow) -> Entries:
    head = {"method": row.label, "stage": row.stage, "new_task": row.task, "seeds": row.seeds, "interval_over": row.success.over}
    return {**head, **_interval("average_success", row.success.interval)}


def _paired(row: PairedRow, further: Sequence[str]) -> Entries:
    head = {"method": row.label, "reference": row.reference, "seeds": len(row.seeds)}
    beside = _further({name: row.further[name] for name in further})
    return {**head, **_interval("success", row.success), **_interval("forgetting", row.forgetting), **beside}


def _orders(row: OrdersRow) -> Entries:
    return {
        "method": row.label, "orders": " ".join(row.orders), "runs": sum(row.seeds), **_interval("success", row.success),
        "success_lowest_order": row.lowest, "success_highest_order": row.highest, **_interval("forgetting", row.forgetting),
        "threshold": row.threshold or None, **_interval("no_dip", row.no_dip),
        "reference": row.reference, "orders_compared": row.compared,
        **_interval("success_difference", row.success_difference), **_interval("forgetting_difference", row.forgetting_difference),
        **_interval("no_dip_difference", row.no_dip_difference),
    }  # fmt: skip


def _plasticity(row: PlasticityRow) -> Entries:
    return {
        "method": row.label, "seeds": row.seeds, "interval_over": row.change.over,
        **_interval("first_third", row.first.interval), **_interval("last_third", row.last.interval), **_interval("change", row.change.interval),
        **_interval("beside_single", row.beside_single), "common_seeds": row.common_seeds,
        **{f"task_{number}": rate for number, rate in enumerate(row.stages, start=1)},
    }  # fmt: skip


def _learning(row: LearningRow) -> Entries:
    return {
        "method": row.label, "seeds": row.seeds, **_interval("area", row.area), **_interval("forward_transfer", row.transfer),
        "common_seeds": row.common_seeds, "transfer_tasks": row.tasks,
    }  # fmt: skip


def _summary(row: RecoverySummary) -> Entries:
    spread = row.published
    return {
        "method": row.label, "threshold": row.threshold, "pairs": row.pairs, "unlearned_pairs": row.unlearned,
        "unmeasured_pairs": row.unmeasured,
        **_interval("no_dip", row.steady), **_interval("dip", row.dip), **_interval("dip_area", row.dip_area),
        **_median("after_dip", row.after_dip), **_median("first", row.first), "observed_until": row.after_dip.last,
        "dipped_pairs": row.dipped.size, "dipped_share": row.dipped.size / row.pairs, **_median("dipped", row.dipped),
        "below_at_switch": row.began_below, "below_at_end": row.ended_below,
        "published_median": spread.median.median if spread else None, "published_never": spread.median.never if spread else None,
        "published_at_floor": spread.at_floor if spread else None, "published_cells": spread.median.size if spread else None,
    }  # fmt: skip


def _cell(row: RecoveryCell) -> Entries:
    return {
        "method": row.label, "threshold": row.threshold, "old_stage": row.cell[0], "new_stage": row.cell[1],
        "old_task": row.old_task, "new_task": row.new_task, "seeds": row.seeds, "no_dip_seeds": row.steady_seeds,
        "after_dip": row.after_dip.median, "after_dip_never": row.after_dip.never,
        "first": row.first.median, "first_never": row.first.never, "dip": row.dip, "dip_area": row.dip_area,
        "published": ("never" if row.published is None else row.published) if row.is_published else None,
    }  # fmt: skip


def _wins(row: WinsRow) -> Iterable[Entries]:
    """One entry per count: after the dip, the first time, and the first time as published."""
    difference = _interval("no_dip_difference", row.no_dip_difference)
    for count, found in (("after_dip", row.after_dip), ("first", row.first), ("published", row.published)):
        if found is not None:
            head = {"method": row.label, "reference": row.reference, "threshold": row.threshold, "count": count}
            seeds, shown = (None, dict.fromkeys(difference)) if count == "published" else (row.seeds, difference)
            yield {**head, "seeds": seeds, "pairs": found.pairs, **found._asdict(), **shown}


def _costs(rows: Sequence[CostRow]) -> list[Entries]:
    phases = dict.fromkeys(phase for row in rows for phase in row.phases)
    counted = any(not math.isnan(row.query_flops) for row in rows)
    return [
        {
            "method": row.label, "runs": row.seeds, "minutes": row.minutes, "shortest_minutes": row.shortest, "longest_minutes": row.longest,
            "kept_bytes": row.kept_bytes, "past_data_bytes": row.past_data_bytes,
            **{f"{phase}_minutes": row.phases.get(phase, 0.0) if row.seeds else None for phase in phases},
            **({"query_flops": row.query_flops, "update_flops": row.update_flops, "run_flops": row.run_flops} if counted else {}),
        }
        for row in rows
    ]  # fmt: skip


def _interval(name: str, interval: Interval) -> Entries:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _further(found: Mapping[str, Interval]) -> Entries:
    return {key: value for name, interval in found.items() for key, value in _interval(name.replace(" ", "_"), interval).items()}


def _median(name: str, found: MedianUpdates) -> Entries:
    return {f"{name}_median": found.median, f"{name}_low": found.low, f"{name}_high": found.high, f"{name}_never": found.never}
