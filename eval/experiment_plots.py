"""Figures of an experiment, in the style of `plots`: one colour and one marker per group of runs, the published values hollow.

Axes are in percent although all arguments are rates in [0, 1].
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from reconverge.envs.gym_name import short_name
from reconverge.eval import headlines, metrics
from reconverge.eval.experiment import Experiment, MethodRow, final_rates
from reconverge.eval.intervals import Interval
from reconverge.eval.plasticity import PlasticityRow
from reconverge.eval.plots import HEAT, INK, MUTED, PAPER, STYLE, WARM, line_look
from reconverge.eval.recovery_comparison import Cell, RecoveryCell
from reconverge.eval.run_groups import RunGroup

WAIT = LinearSegmentedColormap.from_list("updates", ["#e3eef2", "#86bacb", "#34839f", "#0f4c5c"])
STEADY = "#f4f7f9"
"""Fill of a cell without a dip, where the number of updates says nothing."""
LONGEST_WAIT = 50_000
_OF_ONE_SEED = (":", PAPER)
"""Line and filling of a dot that stands for one seed."""


@mpl.rc_context(STYLE)
def method_dots(experiment: Experiment) -> Figure:
    """Success at the end and forgetting per group: mean and 95 % interval, every seed small; published value +- s.e.

    A single seed, whose interval is over its episodes and so says nothing of the method, is drawn hollow and dashed.
    """
    rows, groups = experiment.methods, experiment.groups
    labels = [_wrapped(row.label) for row in rows]
    figure = Figure(figsize=(9, 0.95 + _row_height(labels, 0.42) * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for place, (row, group) in enumerate(zip(rows, groups, strict=True)):
        published = row.published
        seeds = [headlines.final_success(run).mean for run in group.runs]
        _dot(left, place, row.success.interval, seeds, (published.success, published.success_se) if published else None)
        seeds = [headlines.forgetting(run).mean for run in group.runs]
        _dot(right, place, row.forgetting.interval, seeds, (published.forgetting, published.forgetting_se) if published else None)
    left.set_yticks(range(len(rows)), labels)
    left.set(ylim=(len(rows) - 0.45, -0.55), xlim=(-2, 102), title="Success at the end, %")
    right.set(title="Forgetting, points (less is better)")
    right.axvline(0, color=MUTED, linewidth=0.8)
    for axes in (left, right):
        axes.tick_params(axis="y", labelcolor=INK)
        axes.grid(visible=False, axis="y")
    _dot_legend(figure, right, rows)
    return figure


@mpl.rc_context(STYLE)
def average_over_stages(groups: Sequence[RunGroup]) -> Figure:
    """Average success on the tasks learned so far, over stages: mean of a group's seeds in a band from its lowest to its highest."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for index, group in enumerate(groups):
        curves = [metrics.average_success_over_stages(run.matrix, run.own_stage) for run in group.runs]
        shared = 100 * np.array([curve[: min(map(len, curves))] for curve in curves])
        stages = np.arange(1, shared.shape[1] + 1)
        colour, marker = line_look(index)
        axes.fill_between(stages, shared.min(axis=0), shared.max(axis=0), color=colour, alpha=0.14, linewidth=0)
        label = f"{group.label} ({len(curves)})"
        axes.plot(stages, shared.mean(axis=0), color=colour, marker=marker, markersize=4, linewidth=1.8, label=label, clip_on=False, zorder=3)
    axes.set(ylim=(0, 102), xlabel="after stage", ylabel="average success, %")
    axes.set_xticks(range(1, max(len(run.stages) for group in groups for run in group.runs) + 1))
    figure.legend(loc="outside lower left", ncols=4 if max(len(group.label) for group in groups) < 22 else 2)
    return figure


@mpl.rc_context(STYLE)
def plasticity(rows: Sequence[PlasticityRow], labels: Sequence[str]) -> Figure:
    """Success just after each task was learned, in the order of learning: the mean over the seeds of a method.

    `labels` are those of all groups, by whose order each has the colour and marker that it has in the other figures.
    """
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for row in rows:
        index = labels.index(row.label)
        afresh = row.label.partition(",")[0] == "single"
        rates, (colour, marker) = [100 * rate for rate in row.stages], line_look(index)
        label, line = f"{row.label} ({row.seeds})", "--" if afresh else "-"
        axes.plot(range(1, len(rates) + 1), rates, line, color=MUTED if afresh else colour, marker=marker, markersize=4, label=label, clip_on=False)
    axes.set(ylim=(0, 103), xlabel="task, in the order of learning", ylabel="just learned, %")
    axes.set_xticks(range(1, max(len(row.stages) for row in rows) + 1))
    figure.legend(loc="outside lower left", ncols=4 if max(len(row.label) for row in rows) < 22 else 2)
    return figure


@mpl.rc_context(STYLE)
def final_success(groups: Sequence[RunGroup]) -> Figure:
    """Task x group: success at the end in percent, mean over seeds; the last column is the mean over tasks."""
    tasks = list(dict.fromkeys(task for group in groups for run in group.runs for task in run.tasks))
    labels = [_wrapped(group.label) for group in groups]
    figure = Figure(figsize=(1.9 + 0.72 * (len(tasks) + 1), 0.75 + _row_height(labels, 0.4) * len(groups)), layout="constrained")
    axes = figure.add_subplot()
    for row, group in enumerate(groups):
        rates = final_rates(group)
        for column, task in enumerate(tasks):
            if task in rates:
                _filled(axes, column, row, HEAT(rates[task]), f"{100 * rates[task]:.0f}", dark=rates[task] > 0.55)
        if rates:
            mean = float(np.mean([rates[task] for task in rates]))
            _filled(axes, len(tasks) + 0.2, row, HEAT(mean), f"{100 * mean:.1f}", dark=mean > 0.55)
    axes.set(xlim=(-0.55, len(tasks) + 0.75), ylim=(len(groups) - 0.45, -0.55))
    axes.set_yticks(range(len(groups)), labels)
    names = [short_name(task).replace("-", "\n", 1) for task in tasks]
    axes.set_xticks([*range(len(tasks)), len(tasks) + 0.2], [*names, "mean"], fontsize=8)
    _bare(axes)
    return figure


@mpl.rc_context(STYLE)
def recovery_triangles(cells: Sequence[RecoveryCell]) -> Figure:
    """Updates to recovery of one group: a triangle per threshold, earlier tasks down, transitions to the right; below, as published.

    Own cells hold the median over seeds from the bottom of the dip, published ones the first time at or above the threshold.
    """
    thresholds = sorted({cell.threshold for cell in cells}, reverse=True)
    published = any(cell.is_published for cell in cells)
    last = max(cell.cell[1] for cell in cells)
    side = 9 / len(thresholds)
    height = 0.35 + 0.62 * side * (1 + published)
    figure = Figure(figsize=(9, height), layout="constrained")
    panels = figure.subplots(1 + published, len(thresholds), sharex=True, sharey=True, squeeze=False)
    for column, threshold in enumerate(thresholds):
        chosen = {cell.cell: cell for cell in cells if cell.threshold == threshold}
        _triangle(panels[0, column], {place: _own_text(cell) for place, cell in chosen.items()}, last, f"here, {threshold} %")
        if published:
            texts = {place: _published_text(cell) for place, cell in chosen.items() if cell.is_published}
            _triangle(panels[1, column], texts, last, f"published, {threshold} %")
    figure.supxlabel("while learning task", fontsize=8, color=MUTED)
    figure.supylabel("earlier task", fontsize=8, color=MUTED)
    return figure


# Parts of figures --------------------------------------------------------------------------------------------------------------


def _dot(axes: Axes, place: float, interval: Interval, seeds: Sequence[float], published: tuple[float, float] | None) -> None:
    if published:
        value, error = published
        axes.errorbar(100 * value, place + 0.2, xerr=100 * error, color=WARM, marker="D", markersize=4.5, markerfacecolor=PAPER, linewidth=1)
    if np.isnan(interval.mean):
        axes.text(0.5, place, "not defined", transform=axes.get_yaxis_transform(), ha="center", va="center", color=MUTED, fontsize=8)
        return
    colour, _ = line_look(int(place))
    if len(seeds) > 1:
        axes.plot([100 * seed for seed in seeds], [place - 0.24] * len(seeds), "|", color=colour, markersize=5, alpha=0.8)
    line, filling = _OF_ONE_SEED if len(seeds) == 1 else ("-", colour)
    if not np.isnan(interval.low):
        axes.plot([100 * interval.low, 100 * interval.high], [place - 0.04] * 2, line, color=colour, linewidth=1.8, solid_capstyle="butt")
    axes.plot(100 * interval.mean, place - 0.04, "o", color=colour, markerfacecolor=filling, markersize=6, zorder=4)


def _dot_legend(figure: Figure, axes: Axes, rows: Sequence[MethodRow]) -> None:
    entries, counts = [], [len(row.seeds) for row in rows]
    if max(counts) > 1:
        entries.append((axes.plot([], [], "o-", color=MUTED, markersize=6, linewidth=1.8)[0], "mean over seeds, 95 % interval"))
        entries.append((axes.plot([], [], "|", color=MUTED, markersize=5)[0], "a seed"))
    if min(counts) == 1:
        line, filling = _OF_ONE_SEED
        only = axes.plot([], [], f"o{line}", color=MUTED, markerfacecolor=filling, markersize=6, linewidth=1.8)[0]
        entries.append((only, "only one seed, interval of its episodes"))
    if any(row.published for row in rows):
        entries.append((axes.plot([], [], "D-", color=WARM, markersize=4.5, markerfacecolor=PAPER, linewidth=1)[0], "published ± s.e."))
    figure.legend(*zip(*entries, strict=True), loc="outside lower left", ncols=4)


def _own_text(cell: RecoveryCell) -> tuple[str, float | None]:
    """What a cell says, and the updates that colour it: None = never, NaN = no dip in most seeds."""
    if 2 * cell.steady_seeds > cell.seeds:
        return "·", np.nan
    return _wait_text(cell.after_dip.median), cell.after_dip.median


def _published_text(cell: RecoveryCell) -> tuple[str, float | None]:
    return _wait_text(cell.published), np.nan if cell.published == 2 else cell.published


def _wait_text(updates: float | None) -> str:
    if updates is None:
        return "never"
    return f"{updates:.0f}" if updates < 1000 else f"{updates / 1000:.3g}k"


def _triangle(axes: Axes, texts: Mapping[Cell, tuple[str, float | None]], last: int, title: str) -> None:
    norm = LogNorm(2, LONGEST_WAIT)
    for (old, new), (text, updates) in texts.items():
        colour = WARM if updates is None else STEADY if np.isnan(updates) else WAIT(norm(updates))
        dark = updates is None or (not np.isnan(updates) and norm(updates) > 0.45)
        _filled(axes, new, old, colour, text, dark, fontsize=5 if len(text) > 4 else 6)
    axes.set(xlim=(1.4, last + 0.6), ylim=(last - 0.4, 0.4))
    axes.set_title(title, fontsize=8)
    axes.set_xticks(range(2, last + 1))
    axes.set_yticks(range(1, last))
    axes.tick_params(labelsize=7)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _filled(axes: Axes, column: float, row: float, colour: Any, text: str, dark: bool, fontsize: float = 9.5) -> None:
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, edgecolor=PAPER, linewidth=1.2))
    axes.text(column, row, text, ha="center", va="center", color=PAPER if dark else INK, fontsize=fontsize)


def _bare(axes: Axes) -> None:
    axes.tick_params(labelcolor=INK, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _wrapped(label: str) -> str:
    return textwrap.fill(label, 26, break_long_words=False)


def _row_height(labels: Sequence[str], least: float) -> float:
    """Inches of a row in which the label with the most lines has room."""
    return max([least, *(0.19 * (1 + label.count("\n")) for label in labels)])
