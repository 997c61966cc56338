"""Figures of an experiment, in the style of `plots`: every method in its own colour and with its own marker, the published values hollow.

Axes are in percent although all arguments are rates in [0, 1].
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from reconverge.envs.gym_name import short_name
from reconverge.eval import headlines
from reconverge.eval.estimate import Estimate, estimate
from reconverge.eval.experiment import Experiment, MethodRow, best_first, final_rates
from reconverge.eval.intervals import Interval
from reconverge.eval.method_looks import Look, method_looks
from reconverge.eval.plasticity import PlasticityRow
from reconverge.eval.plots import HEAT, INK, MUTED, PAPER, STYLE, WARM
from reconverge.eval.run_groups import RunGroup
from reconverge.eval.wording import in_percent, possible

HIGH, LOWEST_ENLARGED = 85, 50
"""Lines that end at HIGH % or above are enlarged in a panel of their own, unless one of them has been below the other."""


@mpl.rc_context(STYLE)
def method_dots(experiment: Experiment) -> Figure:
    """Success at the end and forgetting per group, the best first: mean and 95 % interval, every seed small; published value +- s.e.

    A single seed, whose interval is over its episodes and so says nothing of the method, is drawn hollow. Bounds are cut to what can be. Where
    several end at HIGH % or above, that end of the axis is drawn enlarged, beside the whole one unless every mark lies there.
    """
    groups, looks = {group.label: group for group in experiment.groups}, looks_of(experiment.groups)
    rows = best_first(experiment.methods)
    labels, ends = [_wrapped(row.label) for row in rows], [100 * row.success.interval.mean for row in rows]
    high, low = sum(end >= HIGH for end in ends) > 1, any(_lowest(row, groups[row.label]) < HIGH for row in rows)
    whole, enlarged = low or not high, high
    figure = Figure(figsize=(7 + 2 * (whole + enlarged), 0.95 + _row_height(labels, 0.42) * len(rows)), layout="constrained")
    *success, right = figure.subplots(1, 1 + whole + enlarged, sharey=True)
    for place, row in enumerate(rows):
        published, look, runs = row.published, looks[row.label], groups[row.label].runs
        seeds = [headlines.final_success(run).mean for run in runs]
        for axes in success if ends[place] >= HIGH else success[:1]:
            _dot(axes, place, look, row.success, seeds, (published.success, published.success_se) if published else None)
        seeds = [headlines.forgetting(run).mean for run in runs]
        _dot(right, place, look, row.forgetting, seeds, (published.forgetting, published.forgetting_se) if published else None, signed=True)
    success[0].set_yticks(range(len(rows)), labels)
    success[0].set(ylim=(len(rows) - 0.45, -0.55), xlim=(-2, 102), title="Success at the end, %")
    if enlarged:
        success[-1].set(xlim=(HIGH - 0.5, 100.5), title=f"The same from {HIGH} % on" if whole else f"Success at the end, %, from {HIGH} on")
        for line in success[-1].lines:  # an interval that begins lower ends at the border
            line.set_clip_on(True)
    right.set(title="Forgetting, points (less is better)")
    right.axvline(0, color=MUTED, linewidth=0.8)
    for axes in (*success, right):
        axes.tick_params(axis="y", labelcolor=INK)
        axes.grid(visible=False, axis="y")
    _dot_legend(figure, right, rows)
    return figure


def _lowest(row: MethodRow, group: RunGroup) -> float:
    """The lowest success at the end, in percent, that is drawn as a mark of a method: of its seeds, and the published one."""
    shown = [headlines.final_success(run).mean for run in group.runs] + ([row.published.success] if row.published else [])
    return 100 * min((rate for rate in shown if not np.isnan(rate)), default=1.0)


@mpl.rc_context(STYLE)
def average_over_stages(groups: Sequence[RunGroup]) -> Figure:
    """Average success on the tasks learned so far, over stages: mean of the seeds that count, in a band from its lowest to its highest."""
    looks, lines = looks_of(groups), []
    for group in groups:
        stages = range(1, max(run.stages_done for run in group.runs) + 1)
        values, lowest, highest = 100 * np.array([_after_stage(group, stage) for stage in stages]).reshape(-1, 3).T
        lines.append(_Line(f"{_wrapped(group.label)} ({len(group.runs)})", looks[group.label], values, (lowest, highest)))
    return _over_stages(lines, "after stage", "Average success on the tasks learned so far, %")


def _after_stage(group: RunGroup, stage: int) -> tuple[float, float, float]:
    """Average success after a stage, as the tables have it, with the lowest and the highest of its seeds; NaN without any."""
    found = estimate(group, partial(headlines.success_after, stage=stage))
    rates = [headlines.success_after(run, stage).mean for run in group.runs if run.seed in found.seeds]
    return found.interval.mean, min(rates, default=np.nan), max(rates, default=np.nan)


@mpl.rc_context(STYLE)
def plasticity(rows: Sequence[PlasticityRow], groups: Sequence[RunGroup]) -> Figure:
    """Success just after each task was learned, in the order of learning: the mean over the seeds of a method.

    `groups` are all of the experiment, by which each row has the look that it has in the other figures.
    """
    looks = looks_of(groups)
    lines = [_Line(f"{_wrapped(row.label)} ({row.seeds})", looks[row.label], 100 * np.array(row.stages)) for row in rows]
    return _over_stages(lines, "task, in the order of learning", "Success just after learning, %")


@mpl.rc_context(STYLE)
def final_success(experiment: Experiment) -> Figure:
    """Task x group: success at the end in percent, mean over seeds; the last column is the mean over tasks, as the tables have it."""
    groups = experiment.groups
    tasks = list(dict.fromkeys(task for group in groups for run in group.runs for task in run.tasks))
    labels = [_wrapped(group.label) for group in groups]
    figure = Figure(figsize=(1.9 + 0.72 * (len(tasks) + 1), 0.75 + _row_height(labels, 0.4) * len(groups)), layout="constrained")
    axes = figure.add_subplot()
    for row, (group, method) in enumerate(zip(groups, experiment.methods, strict=True)):
        rates, mean = final_rates(group), method.success.interval.mean
        for column, task in enumerate(tasks):
            if task in rates:
                _filled(axes, column, row, HEAT(rates[task]), f"{100 * rates[task]:.0f}", dark=rates[task] > 0.55)
        if rates:
            _filled(axes, len(tasks) + 0.2, row, HEAT(mean), in_percent(mean), dark=mean > 0.55)
    axes.set(xlim=(-0.55, len(tasks) + 0.75), ylim=(len(groups) - 0.45, -0.55))
    axes.set_yticks(range(len(groups)), labels)
    names = [short_name(task).replace("-", "\n", 1) for task in tasks]
    axes.set_xticks([*range(len(tasks)), len(tasks) + 0.2], [*names, "mean"], fontsize=8)
    _bare(axes)
    return figure


def looks_of(groups: Sequence[RunGroup]) -> dict[str, Look]:
    """label -> how it is drawn in every figure of an experiment."""
    return method_looks({group.label: group.method for group in groups})


# Dots --------------------------------------------------------------------------------------------------------------------------


def _dot(
    axes: Axes, place: float, look: Look, found: Estimate, seeds: Sequence[float], published: tuple[float, float] | None, signed: bool = False
) -> None:
    interval = _cut(found.interval, signed)
    if published:
        value, error = published
        axes.plot([100 * (value - error), 100 * (value + error)], [place + 0.2] * 2, "|-", color=WARM, markersize=5, linewidth=1)
        axes.plot(100 * value, place + 0.2, "D", color=WARM, markersize=4.5, markerfacecolor=PAPER)
    if np.isnan(interval.mean):
        axes.text(0.5, place, "not defined", transform=axes.get_yaxis_transform(), ha="center", va="center", color=MUTED, fontsize=8)
        return
    if len(seeds) > 1:
        axes.plot([100 * seed for seed in seeds], [place - 0.28] * len(seeds), "|", color=look.colour, markersize=4, alpha=0.8)
    filling = PAPER if found.over == "episodes" else look.colour
    if not np.isnan(interval.low):
        bounds = [100 * interval.low, 100 * interval.high]
        axes.plot(bounds, [place - 0.04] * 2, "|-", color=look.colour, markersize=8, markeredgewidth=1.2, linewidth=1.2, clip_on=False)
    axes.plot(100 * interval.mean, place - 0.04, look.marker, color=look.colour, markerfacecolor=filling, markersize=6, zorder=4)


def _cut(interval: Interval, signed: bool = False) -> Interval:
    """With bounds that a rate, or a difference of rates, can have."""
    if np.isnan(interval.low):
        return interval
    low, high = possible(interval, signed)
    return interval._replace(low=low, high=high)


def _dot_legend(figure: Figure, axes: Axes, rows: Sequence[MethodRow]) -> None:
    entries, counts = [], [len(row.seeds) for row in rows]
    own: dict[str, Any] = {"color": MUTED, "markersize": 6, "linewidth": 1.2}
    if max(counts) > 1:
        entries.append((axes.plot([], [], "o-", **own)[0], "mean over seeds, 95 % interval"))
        entries.append((axes.plot([], [], "|", color=MUTED, markersize=4)[0], "a seed"))
    if min(counts) == 1:
        entries.append((axes.plot([], [], "o-", markerfacecolor=PAPER, **own)[0], "only one seed, interval of its episodes"))
    if any(row.published for row in rows):
        hollow = axes.plot([], [], "D-", color=WARM, markersize=4.5, markerfacecolor=PAPER, linewidth=1)[0]
        entries.append((hollow, "published ± standard error (a 95 % interval is about twice as wide)"))
    figure.legend(*zip(*entries, strict=True), loc="outside lower left", ncols=4)


# Lines -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Line:
    """Percent per stage from the first on, NaN where nothing was measured, and a band around them; the label holds its line breaks."""

    label: str
    look: Look
    values: np.ndarray
    band: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def end(self) -> tuple[int, float]:
        """The last stage that was measured, counted from 1, and its value."""
        last = int(np.flatnonzero(~np.isnan(self.values))[-1])
        return last + 1, float(self.values[last])


def _over_stages(lines: Sequence[_Line], xlabel: str, title: str) -> Figure:
    """All lines from 0 to 100 %, and beside them the upper end enlarged where several end there; a line is named where it ends."""
    lines = [line for line in lines if not np.isnan(line.values).all()]
    high = [line for line in lines if line.end[1] >= HIGH]
    lowest = 5 * int(min((np.nanmin(line.values) for line in high), default=0) // 5)
    enlarged = len(high) > 1 and LOWEST_ENLARGED <= lowest < 100
    names = sum(1 + line.label.count("\n") for line in lines)
    figure = Figure(figsize=(9, max(3.4, 0.8 + 0.19 * names)), layout="constrained")
    panels, inches = list(figure.subplots(1, 1 + enlarged, squeeze=False)[0]), figure.get_figheight() - 0.8
    for axes, low in zip(panels, (0, lowest), strict=False):
        for line in lines:
            _draw(axes, line)
        axes.set(ylim=(low - (100 - low) / 40, 100 + (100 - low) / 40), xlabel=xlabel)
        axes.set_xticks(range(1, max(len(line.values) for line in lines) + 1))
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    panels[0].set_title(title)
    _end_labels(panels[0], [line for line in lines if not enlarged or line not in high], inches)
    if enlarged:
        panels[1].set_title(f"The same from {lowest} % on")
        _end_labels(panels[1], high, inches)
    return figure


def _draw(axes: Axes, line: _Line) -> None:
    stages = np.arange(1, len(line.values) + 1)
    if line.band is not None:
        axes.fill_between(stages, *line.band, color=line.look.colour, alpha=0.14, linewidth=0)
    axes.plot(stages, line.values, line.look.line, color=line.look.colour, marker=line.look.marker, markersize=4, linewidth=1.5, zorder=3)


def _end_labels(axes: Axes, lines: Sequence[_Line], inches: float) -> None:
    """Names to the right of axes of this height, in the order in which the lines end, each with its marker and a thin line to its end."""
    low, high = axes.get_ylim()
    line_height = 0.16 / inches
    ordered = sorted(lines, key=lambda line: -line.end[1])
    heights = [line_height * (1 + line.label.count("\n")) for line in ordered]
    places = _apart([(line.end[1] - low) / (high - low) for line in ordered], heights)
    for line, place in zip(ordered, places, strict=True):
        colour = line.look.colour
        thin: dict[str, Any] = {"arrowstyle": "-", "color": colour, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", line.end, (1.06, place), textcoords="axes fraction", arrowprops=thin, annotation_clip=False)
        axes.plot(1.06, place, line.look.marker, color=colour, markersize=4.5, transform=axes.transAxes, clip_on=False)
        axes.annotate(line.label, (1.06, place), (6, 0), xycoords="axes fraction", textcoords="offset points", va="center", fontsize=8)


def _apart(wanted: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Middles in [0, 1] for labels of these heights, as near to `wanted`, which falls, as lets none touch another.

    Those that would touch stand in a block: 0.9, 0.5, 0.5 of height 0.1 come to stand at 0.9, 0.55, 0.45.
    """
    blocks: list[tuple[float, list[int]]] = []
    for number in range(len(wanted)):
        middle, members = _middle_of([number], wanted, heights), [number]
        while blocks and blocks[-1][0] - middle < sum(heights[k] for k in blocks[-1][1] + members) / 2 - 1e-9:
            members = blocks.pop()[1] + members
            middle = _middle_of(members, wanted, heights)
        blocks.append((middle, members))
    places = []
    for middle, members in blocks:
        top = middle + sum(heights[k] for k in members) / 2
        places += [top - sum(heights[k] for k in members[:rank]) - heights[number] / 2 for rank, number in enumerate(members)]
    return places


def _middle_of(members: Sequence[int], wanted: Sequence[float], heights: Sequence[float]) -> float:
    """Where a block of labels stands so that its labels are off by nothing in the mean, but for what would leave the axes."""
    whole = sum(heights[k] for k in members)
    offsets = [whole / 2 - sum(heights[k] for k in members[:rank]) - heights[number] / 2 for rank, number in enumerate(members)]
    middle = sum(wanted[number] - offset for number, offset in zip(members, offsets, strict=True)) / len(members)
    return min(max(middle, whole / 2), 1 - whole / 2)


# Tables ------------------------------------------------------------------------------------------------------------------------


def _filled(axes: Axes, column: float, row: float, colour: Any, text: str, dark: bool) -> None:
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, edgecolor=PAPER, linewidth=1.2))
    axes.text(column, row, text, ha="center", va="center", color=PAPER if dark else INK, fontsize=9.5)


def _bare(axes: Axes) -> None:
    axes.tick_params(labelcolor=INK, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _wrapped(label: str) -> str:
    return textwrap.fill(label, 26, break_long_words=False, break_on_hyphens=False)


def _row_height(labels: Sequence[str], least: float) -> float:
    """Inches of a row in which the label with the most lines has room."""
    return max([least, *(0.19 * (1 + label.count("\n")) for label in labels)])
