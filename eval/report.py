"""One self-contained page about one run or several: no network, no script, videos inside.

`write_report` reads the folders, turns each into the plain records that `report_template.html` lays out, and writes the page
atomically. All judgement is in `metrics`, `headlines` and `recovery`; here is only arranging and wording.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from reconverge.envs.artifact import write_file
from reconverge.envs.errors import RunFolderError
from reconverge.envs.gym_name import short_name
from reconverge.eval import experiment_plots, headlines, plots, wording
from reconverge.eval.comparison import code_commits, run_row, torch_versions
from reconverge.eval.cost import by_phase
from reconverge.eval.diagnostics_section import diagnostics_section
from reconverge.eval.experiment import CostRow, Experiment, measured_further, run_name, summarise
from reconverge.eval.learning_curve import area_under, learning_curves
from reconverge.eval.plain_picture import read_picture
from reconverge.eval.plasticity import change
from reconverge.eval.published_results import published_recovery, published_success, same_tasks_in_order
from reconverge.eval.recovery_plots import recovery_triangles
from reconverge.eval.run_groups import flat_settings
from reconverge.eval.run_results import Recovery, RunResults, read_run
from reconverge.eval.task_failures import failure_sentences
from reconverge.eval.wording import bounds, duration, flops, percent, points, size

PUBLISHED_METHODS = ("trust-region", "replay")
"""Published methods shown beside a run's own recovery."""
VIDEO_LIMIT_BYTES = 24_000_000
SINGLE_RUNS = 6
"""A page about more runs than this leaves out what is said about each of them alone."""
LONGEST_LABEL = 100
"""Letters of a group's label in the name of a file."""
SHOWN_PHASES = 6
"""Phases of the cost with a column of their own on the page about several runs; the others are added up."""
LOW_SPLIT_HALF_COSINE = 0.3
"""Below this the two halves of the draws hardly agree on the direction that the Fisher protects."""
SENTENCES = {
    "success": "Mean over the tasks learned so far, after the last finished stage.",
    "forgetting": "Success just after learning a task minus success at the end, mean over tasks.",
    "backward": "Change of the earlier tasks since each was learned; above zero, later tasks helped.",
    "forward": "Success on a task just before it is learned, above the untrained policy's.",
    "plasticity": "Success just after learning, mean over the last third of the tasks minus that over the first third; tasks are not equally hard.",
}


@dataclass(frozen=True)
class Headline:
    """One figure of the summary: its text, its interval's text, and one sentence on what it is."""

    title: str
    value: str
    interval: str
    sentence: str


@dataclass(frozen=True)
class RecoveryCell:
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
    cells: tuple[RecoveryCell, ...]
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


@dataclass(frozen=True)
class Video:
    title: str
    source: str
    poster: str = ""


def write_report(runs: Sequence[Path], output: Path, video_limit_bytes: int = VIDEO_LIMIT_BYTES, reference: str | None = None) -> Path:
    """Write the page about `runs` to `output` and return it.

    Args:
        runs: run folders; more than one are an experiment: grouped by method and settings, and compared.
        output: the HTML file; its folder is created.
        video_limit_bytes: videos beyond this size in all are named instead of embedded.
        reference: the method, or the label of a group, that the others are compared with; see `experiment.find_reference`.

    Raises DamagedFile for a folder or file that cannot be read, RunFolderError without any run, UnknownName for the reference.
    """
    if not runs:
        raise RunFolderError("a report needs at least one run folder; `reconverge report RUN...`")
    results = [read_run(Path(folder)) for folder in runs]
    single = results if len(results) <= SINGLE_RUNS else []
    page = page_template().render(
        title=_title(results),
        sections=[_section(run, index, video_limit_bytes // len(results)) for index, run in enumerate(single, start=1)],
        experiment=_experiment(results, reference) if len(results) > 1 else None,
        published=published_success() if all(same_tasks_in_order(run.stages) for run in results) else {},
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    write_file(output, page)
    return output


# Several runs ------------------------------------------------------------------------------------------------------------------


def _experiment(runs: Sequence[RunResults], reference: str | None) -> dict[str, Any]:
    """Everything the template shows about an experiment, beside the figures of every run."""
    experiment = summarise(runs, reference)
    measured = any(run.stages_done for run in runs)
    phases = _shown_phases(experiment.costs)
    figures = {name: _inline(figure) for name, figure in experiment_figures(experiment).items()} if measured else {}
    names = recovery_names([group.label for group in experiment.groups])
    return {
        "tables": experiment,
        "figures": figures,
        "recovery": _by_label(experiment, experiment.recovery),
        "cells": [(label, rows, figures.get(names[label])) for label, rows in _by_label(experiment, experiment.cells)],
        "wins": _by_label(experiment, experiment.wins),
        "phases": phases,
        "single": any(group.method == "single" for group in experiment.groups),
        "flops": any(not math.isnan(row.query_flops) for row in experiment.costs),
        "rest": {row.label: sum(minutes for phase, minutes in row.phases.items() if phase not in phases) for row in experiment.costs},
        "published": any(row.published for row in experiment.recovery),
        "further": {"methods": measured_further(experiment.methods), "paired": measured_further(experiment.paired)},
        "commits": code_commits(runs),
        "torch": torch_versions(runs),
        "machines": sorted({str(run.fingerprint["machine"]) for run in runs if run.fingerprint.get("machine")}),
        "rows": [(run_name(run, experiment.groups), run_row(run)) for run in runs],
    }


def experiment_figures(experiment: Experiment) -> dict[str, Figure]:
    """The figures of an experiment by the name of their files."""
    figures = {
        "methods": experiment_plots.method_dots(experiment),
        "stages": experiment_plots.average_over_stages(experiment.groups),
        "tasks": experiment_plots.final_success(experiment),
    }
    if experiment.plasticity:
        figures["plasticity"] = experiment_plots.plasticity(experiment.plasticity, experiment.groups)
    names = recovery_names([group.label for group in experiment.groups])
    figures |= {names[label]: recovery_triangles(cells) for label, cells in _by_label(experiment, experiment.cells) if cells}
    return figures


def recovery_names(labels: Sequence[str]) -> dict[str, str]:
    """label of a group -> name of its figure of recovery, which every file system takes.

    >>> recovery_names(["ewc", "ewc, fisher=diagonal"])
    {'ewc': 'recovery-ewc', 'ewc, fisher=diagonal': 'recovery-ewc-fisher-diagonal'}
    """
    names: dict[str, str] = {}
    for label in labels:
        plain = "recovery-" + re.sub(r"[^A-Za-z0-9._]+", "-", label).strip("-.")[:LONGEST_LABEL]
        names[label] = plain if plain not in names.values() else f"{plain}-{len(names) + 1}"
    return names


def _by_label(experiment: Experiment, rows: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """(label, its rows) of every group, in the order of the groups."""
    return [(group.label, [row for row in rows if row.label == group.label]) for group in experiment.groups]


def _shown_phases(costs: Sequence[CostRow]) -> list[str]:
    """The phases that took longest over all groups."""
    spent: dict[str, float] = {}
    for row in costs:
        for phase, minutes in row.phases.items():
            spent[phase] = spent.get(phase, 0.0) + minutes
    return sorted(spent, key=lambda phase: -spent[phase])[:SHOWN_PHASES]


# One run -----------------------------------------------------------------------------------------------------------------------


def _section(run: RunResults, number: int, video_limit_bytes: int) -> dict[str, Any]:
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
        "figures": {name: None if figure is None else _inline(figure) for name, figure in figures.items()},
        "recovery": {kind: _recovery_table(run, kind) for kind in ("online", "probe")},
        "thresholds": {kind: _thresholds(run, kind) for kind in ("online", "probe")},
        "published_methods": PUBLISHED_METHODS if same_tasks_in_order(run.stages) else (),
        "ledger": _ledger(run),
        "ledger_items": _ledger_items(run),
        "past_data": max((stage.past for stage in _ledger(run)), default=0),
        "cost": _cost(run),
        "videos": _videos(run, video_limit_bytes),
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
        Headline("Final success", percent(success.mean), bounds(success), SENTENCES["success"]),
        Headline("Forgetting", points(lost.mean), bounds(lost, points), SENTENCES["forgetting"]),
        Headline("Backward transfer", points(backward.mean), bounds(backward, points), SENTENCES["backward"]),
        Headline("Forward transfer", points(forward.mean), bounds(forward, points), SENTENCES["forward"]),
        Headline("Plasticity", points(plastic.mean), bounds(plastic, points), SENTENCES["plasticity"]),
        _recovery_figure(headlines.recovery_headline(run)),
    ]


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
        cells=tuple(_recovery_cell(run, row) if row else RecoveryCell("·", False, "", ()) for row in rows),
        dip=any_row.dip,
        dip_area=any_row.dip_area,
        learned=any_row.reference_rate > 0,
    )


def _recovery_cell(run: RunResults, row: Recovery) -> RecoveryCell:
    after_dip = headlines.after_dip_of(run, row)
    first = wording.updates(row.updates) if row.updates is not None and after_dip != row.updates else ""
    published = tuple(_published(run, row, method) for method in PUBLISHED_METHODS) if same_tasks_in_order(run.stages) else ()
    return RecoveryCell(wording.updates(after_dip), headlines.is_steady(run, row), first, published)


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


# Videos ------------------------------------------------------------------------------------------------------------------------


def _videos(run: RunResults, limit_bytes: int) -> dict[str, Any]:
    """The grid and then the single cells, latest stage first, as data URIs until the limit is reached; the rest by name."""
    folder, cells, left_out, room = run.folder / "videos", [], [], limit_bytes
    grid = None
    paths = [folder / "grid.mp4", *sorted(folder.glob("stage-*.mp4"), reverse=True)]
    for path in (path for path in paths if path.is_file()):
        size = path.stat().st_size * 4 // 3
        if size > room:
            left_out.append(path.name)
            continue
        room -= size
        video = Video(path.stem.replace("stage-", "stage ").replace("-v3", ""), _data_uri(path.read_bytes(), "video/mp4"), _poster(path))
        if path.name == "grid.mp4":
            grid = video
        else:
            cells.append(video)
    return {"grid": grid, "cells": cells, "left_out": left_out, "folder": str(folder)}


def _poster(video: Path) -> str:
    picture = video.with_suffix(".png")
    if not picture.is_file():
        return ""
    stream = io.BytesIO()
    read_picture(picture).save(stream, "JPEG", quality=82)
    return _data_uri(stream.getvalue(), "image/jpeg")


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


# The page ----------------------------------------------------------------------------------------------------------------------


def _title(runs: Sequence[RunResults]) -> str:
    curricula = ", ".join(dict.fromkeys(run.curriculum for run in runs))
    return f"{curricula}: {runs[0].name}" if len(runs) == 1 else f"{curricula}: {len(runs)} runs compared"


def _inline(figure: Figure) -> Markup:
    return Markup(plots.svg(figure))


def page_template(name: str = "report_template.html") -> jinja2.Template:
    """A template of this package, with what figures and rates are worded by."""
    loader = jinja2.FunctionLoader(lambda name: (files("reconverge.eval") / name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters.update(percent=percent, points=points, size=size, duration=duration, short=short_name, flops=flops)
    environment.filters.update(updates=wording.updates, median=wording.median, median_bounds=wording.median_bounds, signed=wording.signed)
    environment.filters.update(median_of_all=wording.median_of_all, bounds_of_all=wording.bounds_of_all, left_out=wording.left_out)
    environment.filters["interval"] = bounds
    environment.filters["points_interval"] = lambda interval: bounds(interval, points)
    return environment.get_template(name)
