"""Figures of a run, all in one style: light, one accent colour, safe for colour-blind readers.

Every function returns a matplotlib `Figure` that never touches pyplot; `svg` and `png` turn it into text or bytes. The same
numbers give the same bytes. Axes are in percent although all arguments are rates in [0, 1].
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from reconverge.envs.gym_name import short_name
from reconverge.eval.cost import by_phase
from reconverge.eval.recovery import Curve
from reconverge.eval.run_results import RunResults

INK, MUTED, LINE, PAPER = "#1f2933", "#6b7785", "#dfe5ea", "#ffffff"
ACCENT, ACCENT_LIGHT, WARM = "#1f6f8b", "#cfe3ea", "#c8553d"
HEAT = LinearSegmentedColormap.from_list("success", ["#f4f7f9", "#cfe3ea", "#86bacb", "#34839f", "#0f4c5c"])
# Paul Tol's "muted" scheme, told apart by colour-blind readers; markers repeat the distinction in shape.
SERIES = ("#332288", "#cc6677", "#117733", "#88ccee", "#882255", "#ddaa33", "#44aa99", "#999933", "#aa4499", "#5b6570")
MARKERS = "osD^vPX<>p"
BEFORE: dict[str, Any] = {"color": MUTED, "linewidth": 0.8, "alpha": 0.6}
AFTER: dict[str, Any] = {"color": ACCENT, "linewidth": 1.3}
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.titlesize": 9,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "reconverge",
}


def line_look(index: int, colours: Sequence[str] = SERIES) -> tuple[str, str]:
    """Colour and marker of the line number `index`, from 0: in every further round of colours other markers, so that a hundred lines differ."""
    around, colour = divmod(index, len(colours))
    return colours[colour], MARKERS[(colour + around) % len(MARKERS)]


def svg(figure: Figure) -> str:
    """The figure as an <svg> element to be put into a page; text stays text."""
    stream = io.StringIO()
    with mpl.rc_context(STYLE):
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def svg_file(figure: Figure) -> str:
    """The figure as the text of an SVG file."""
    return f'<?xml version="1.0" encoding="utf-8"?>\n{svg(figure)}'


def png(figure: Figure, dots_per_inch: int = 144) -> bytes:
    """The figure as the bytes of a PNG file."""
    stream = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.set_dpi(dots_per_inch)
        FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})
    return stream.getvalue()


@mpl.rc_context(STYLE)
def success_matrix(run: RunResults) -> Figure:
    """Stage x task: success in %, its 95 % Wilson interval below, own-task cells outlined; last row = the expert's ceiling.

    A cell whose task failed in its simulator is hatched and says so. `joint` has one row for its one stage, and no own-task cells.
    """
    figure = Figure(figsize=(1.5 + 0.82 * len(run.tasks), 0.9 + 0.46 * matrix_rows(run)), layout="constrained")
    draw_matrix(figure.add_subplot(), run)
    return figure


def draw_matrix(axes: Axes, run: RunResults) -> None:
    """`success_matrix` into axes of a figure."""
    ceilings = {ceiling.task: ceiling for ceiling in run.ceilings}
    stages, rows = _matrix_stages(run), matrix_rows(run)
    for column, task in enumerate(run.tasks):
        for row, stage in enumerate(stages):
            if cell := run.cell_at.get((stage, task)):
                _heat_cell(axes, column, row, cell.rate, (cell.wilson_low, cell.wilson_high), learned=stage >= run.own_stage[column])
            elif (stage, task) in run.failed_at:
                _failed_cell(axes, column, row)
        for stage in (stage for stage in run.stages_of(task) if stage <= run.stages_done):
            axes.add_patch(_box(column, stage, fill=False, edgecolor=WARM, linewidth=1.8, zorder=3))
        if task in ceilings:
            ceiling = ceilings[task]
            _heat_cell(axes, column, rows - 0.85, ceiling.rate, (ceiling.wilson_low, ceiling.wilson_high))
    _matrix_axes(axes, run, with_ceiling=bool(ceilings))


def matrix_rows(run: RunResults) -> int:
    """Rows of its success matrix, the expert's among them."""
    return len(_matrix_stages(run)) + bool(run.ceilings)


@mpl.rc_context(STYLE)
def task_curves(run: RunResults) -> Figure:
    """One strip per task: success over all updates. Its own stages are shaded; the dashed line is the expert's ceiling."""
    figure = Figure(figsize=(9, 0.5 + 0.72 * len(run.tasks)), layout="constrained")
    grid = figure.subplots(len(run.tasks), 1, sharex=True, squeeze=False)[:, 0]
    ceilings = {ceiling.task: ceiling.rate for ceiling in run.ceilings}
    for axes, task in zip(grid, run.tasks, strict=True):
        for own in run.stages_of(task):
            axes.axvspan(run.stage_starts[own - 1], run.stage_starts[own], color=ACCENT_LIGHT, alpha=0.55, linewidth=0)
        if task in ceilings:
            axes.axhline(100 * ceilings[task], color=MUTED, linewidth=0.8, dashes=(4, 3))
        _success_over_updates(axes, run, task)
        _stage_boundaries(axes, run)
        axes.set(ylim=(-6, 106), yticks=(0, 100), xlim=(0, run.stage_starts[-1] or 1))
        axes.set_ylabel(short_name(task), rotation=0, ha="right", va="center", color=INK, labelpad=8)
        axes.grid(visible=False, axis="x")
    grid[-1].set_xlabel("gradient updates in all")
    return figure


@mpl.rc_context(STYLE)
def recovery_dips(run: RunResults, kind: str = "online") -> Figure | None:
    """One panel per task switch: success of every earlier task over the updates since, in % of its reference; None without data."""
    stages = sorted({stage for found, stage, _ in run.curves if found == kind})
    if not stages:
        return None
    columns = min(3, len(stages))
    lines = -(-len(stages) // columns)
    figure = Figure(figsize=(9, 0.75 + 2.05 * lines), layout="constrained")
    panels = list(figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat)
    references = {(row.stage, row.task): row.reference_rate for row in run.recoveries if row.kind == kind}
    for panel, stage in zip(panels, stages, strict=False):
        _dip_panel(panel, run, kind, stage, references)
    for empty in panels[len(stages) :]:
        empty.set_axis_off()
    figure.supxlabel("updates since the switch" if kind == "online" else "updates of the probe", fontsize=9, color=MUTED)
    figure.supylabel("% of reference", fontsize=9, color=MUTED)
    _task_legend(figure, run, panels, kind)
    return figure


@mpl.rc_context(STYLE)
def retained_strips(run: RunResults) -> Figure:
    """One ribbon per task from its own stage on, as thick as its success: forgetting is a ribbon that thins out."""
    figure = Figure(figsize=(9, 0.75 + 0.44 * len(run.tasks)), layout="constrained")
    axes = figure.add_subplot()
    for row, (task, own) in enumerate(zip(run.tasks, run.own_stage, strict=True)):
        cells = [run.cell_at[stage, task] for stage in range(own, run.stages_done + 1) if (stage, task) in run.cell_at]
        stages, rates = [cell.stage for cell in cells], np.array([cell.rate for cell in cells])
        axes.fill_between([own, len(run.stages)], row - 0.42, row + 0.42, color="#f1f4f6", linewidth=0)
        axes.fill_between(stages, row - 0.42 * rates, row + 0.42 * rates, color=ACCENT, alpha=0.85, linewidth=0)
        for stage, rate in zip(stages, rates, strict=True):
            axes.plot([stage, stage], [row - 0.42 * rate, row + 0.42 * rate], color=INK, linewidth=1.1)
        if cells:
            axes.annotate(f"{100 * rates[-1]:.0f}", (stages[-1], row), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set(ylim=(len(run.tasks) - 0.4, -0.6), xlim=(0.8, len(run.stages) + 0.35), xlabel="after stage")
    axes.set_yticks(range(len(run.tasks)), [short_name(task) for task in run.tasks])
    axes.set_xticks(range(1, len(run.stages) + 1))
    axes.tick_params(axis="y", labelcolor=INK)
    axes.grid(visible=False, axis="y")
    return figure


@mpl.rc_context(STYLE)
def cost_bar(phases: Mapping[str, float]) -> Figure | None:
    """Where the wall-clock went: one bar, the longest phase first, what is below 1 % together at its end; None when nothing was timed."""
    total = sum(phases.values())
    if total <= 0:
        return None
    spent = {cost.phase: cost.seconds for cost in by_phase(phases) if cost.seconds >= total / 100}
    if (rest := total - sum(spent.values())) > 0:
        spent["rest"] = rest
    figure = Figure(figsize=(9, 0.75 + 0.2 * -(-len(spent) // 4)), layout="constrained")
    axes, left = figure.add_subplot(), 0.0
    for colour, (phase, seconds) in zip(_cycle(SERIES, len(spent)), spent.items(), strict=True):
        axes.barh(0, seconds / total, left=left, height=0.6, color=colour, label=f"{phase} {100 * seconds / total:.0f} %", edgecolor=PAPER)
        left += seconds / total
    axes.set(xlim=(0, 1))
    axes.set_axis_off()
    figure.legend(loc="outside lower left", ncols=min(4, len(spent)), handlelength=0.9, handleheight=0.9)
    return figure


@mpl.rc_context(STYLE)
def training_loss(run: RunResults) -> Figure | None:
    """Denoising loss on the current task and distillation loss on replay over all updates, logarithmic; None when not logged."""
    if not run.training:
        return None
    figure = Figure(figsize=(9, 2.0), layout="constrained")
    axes = figure.add_subplot()
    for key, label, colour in (("loss", "current task", ACCENT), ("replay_loss", "replay", WARM)):
        for stage, points in _logged(run, key).items():
            axes.plot(*zip(*points, strict=True), color=colour, label=label if stage == min(_logged(run, key)) else None, linewidth=1.1)
    _stage_boundaries(axes, run)
    axes.set(yscale="log", xlabel="gradient updates in all", ylabel="loss", xlim=(0, run.stage_starts[-1] or 1))
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


# Parts of figures --------------------------------------------------------------------------------------------------------------


def _heat_cell(axes: Axes, column: float, row: float, rate: float, bounds: tuple[float, float], learned: bool = True) -> None:
    axes.add_patch(_box(column, row, facecolor=HEAT(rate), edgecolor=PAPER, linewidth=1.5, alpha=1 if learned else 0.55))
    colour = PAPER if rate > 0.55 and learned else INK
    axes.text(column, row - 0.1, f"{100 * rate:.0f}", ha="center", va="center", color=colour, fontsize=9.5)
    axes.text(column, row + 0.27, f"{100 * bounds[0]:.0f}–{100 * bounds[1]:.0f}", ha="center", va="center", color=colour, fontsize=6, alpha=0.85)


def _failed_cell(axes: Axes, column: float, row: float) -> None:
    axes.add_patch(_box(column, row, facecolor=PAPER, edgecolor=WARM, hatch="////", linewidth=0, alpha=0.5))
    plate: dict[str, Any] = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.5}
    axes.text(column, row, "failed", ha="center", va="center", color=WARM, fontsize=8, fontweight="bold", bbox=plate)


def _box(column: float, row: float, **style: Any) -> Rectangle:
    return Rectangle((column - 0.5, row - 0.5), 1, 1, **style)


def _matrix_stages(run: RunResults) -> list[int]:
    """The stages with a row: all that are done; of `joint` the untrained policy and the one stage, which is numbered as the last."""
    return sorted({0, run.stages_done}) if run.method == "joint" else list(range(run.stages_done + 1))


def _matrix_axes(axes: Axes, run: RunResults, with_ceiling: bool) -> None:
    stages = _matrix_stages(run)
    rows = len(stages) + with_ceiling
    learned = ["all tasks"] if run.method == "joint" else [f"{stage} · {short_name(task)}" for stage, task in enumerate(run.stages, start=1)]
    names = ["untrained", *learned[: len(stages) - 1]]
    places = [float(row) for row in range(len(stages))]
    if with_ceiling:
        names.append("expert")
        places.append(rows - 0.85)
    axes.set(xlim=(-0.55, len(run.tasks) - 0.45), ylim=(rows - 0.3, -0.55))
    axes.set_yticks(places, names)
    axes.set_xticks(range(len(run.tasks)), [short_name(task).replace("-", "\n", 1) for task in run.tasks], fontsize=8)
    axes.tick_params(labelcolor=INK, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _success_over_updates(axes: Axes, run: RunResults, task: str) -> None:
    cells = [cell for cell in run.cells if cell.task == task and cell.stage <= len(run.stages) and cell.episodes]
    between = [
        (run.stage_starts[stage - 1] + update, 100 * rate)
        for (kind, stage, curve_task), curve in run.curves.items()
        if kind in ("online", "learning") and curve_task == task
        for update, rate in zip(*curve, strict=True)
        if update > 0
    ]
    ends = [(run.stage_starts[cell.stage], 100 * cell.rate) for cell in cells]
    line = sorted({**dict(between), **dict(ends)}.items())
    learned = run.stage_starts[run.own_stage[run.tasks.index(task)]]
    for part, style in (([p for p in line if p[0] <= learned], BEFORE), ([p for p in line if p[0] >= learned], AFTER)):
        if part:
            axes.plot(*zip(*part, strict=True), **style)
    if between:
        axes.plot(*zip(*between, strict=True), ".", color=ACCENT, markersize=2.6)
    for cell in cells:
        place = run.stage_starts[cell.stage]
        axes.plot([place, place], [100 * cell.wilson_low, 100 * cell.wilson_high], color=INK, linewidth=1, clip_on=False)
        axes.plot(place, 100 * cell.rate, "o", color=INK, markersize=3.4, clip_on=False, zorder=4)


def _logged(run: RunResults, key: str) -> dict[int, list[tuple[int, float]]]:
    """stage -> (updates in all, value) of a logged figure; a logarithmic axis has no place for what is not positive."""
    points: dict[int, list[tuple[int, float]]] = {}
    for line in run.training:
        stage, value = int(line.get("stage", 0)), line.get(key)
        if value is not None and value > 0 and 1 <= stage <= len(run.stages):
            points.setdefault(stage, []).append((run.updates_before(stage) + int(line.get("update", 0)), value))
    return points


def _stage_boundaries(axes: Axes, run: RunResults) -> None:
    for start in run.stage_starts[1:-1]:
        axes.axvline(start, color=MUTED, linewidth=0.6, alpha=0.55)


def _dip_panel(axes: Axes, run: RunResults, kind: str, stage: int, references: Mapping[tuple[int, str], float]) -> None:
    for task in run.tasks:
        curve = run.curves.get((kind, stage, task))
        if curve is None:
            continue
        reference = references.get((stage, task), curve.rates[0])
        if reference > 0:
            _dip_line(axes, run.tasks.index(task), curve, reference)
    axes.axhline(100, color=MUTED, linewidth=0.8, dashes=(4, 3))
    axes.set_xscale("symlog", linthresh=2)
    axes.set(ylim=(-5, 135), yticks=(0, 50, 100))
    ticks = [tick for tick in (0, 10, 100, 1000, 10_000) if tick <= max(max(run.stage_updates), 10)]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    verb = "learning" if kind == "online" else "after learning"
    axes.set_title(f"{stage} · {verb} {short_name(run.stages[stage - 1])}" if 1 <= stage <= len(run.stages) else f"stage {stage}")


def _dip_line(axes: Axes, index: int, curve: Curve, reference: float) -> None:
    rates = [100 * rate / reference for rate in curve.rates]
    colour, marker = line_look(index)
    axes.plot(curve.updates, rates, color=colour, marker=marker, markersize=2.8, linewidth=1.2)


def _task_legend(figure: Figure, run: RunResults, panels: Sequence[Axes], kind: str) -> None:
    shown = [task for task in run.tasks if any((kind, task) == (found, of) for found, _, of in run.curves)]
    handles = [
        panels[0].plot([], [], color=colour, marker=marker, markersize=4)[0]
        for colour, marker in (line_look(run.tasks.index(task)) for task in shown)
    ]
    figure.legend(handles, [short_name(task) for task in shown], loc="outside upper left", ncols=min(5, len(shown)))


def _cycle(colours: Sequence[str], count: int) -> list[str]:
    return [colours[index % len(colours)] for index in range(count)]
