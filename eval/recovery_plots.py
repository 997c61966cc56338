"""All (earlier task, transition) cells of a group: how many updates until the earlier task is back, own and published.

    rows    here, after the dip      from the bottom of the dip on: the count used here
            here, first time         from the switch on: the count that was published, so that the two can be compared
            published, first time    where the paper has the method
    columns a threshold each; within a panel earlier tasks down, transitions to the right
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from reconverge.envs.gym_name import short_name
from reconverge.eval.plots import INK, MUTED, PAPER, STYLE, WARM
from reconverge.eval.published_results import PUBLISHED_UPDATES
from reconverge.eval.recovery_comparison import RecoveryCell, StagePair

WAIT = LinearSegmentedColormap.from_list("updates", ["#e3eef2", "#86bacb", "#34839f", "#0f4c5c"])
SCALE = LogNorm(2, PUBLISHED_UPDATES)
NO_DIP: dict[str, Any] = {"facecolor": "#f4f7f9", "edgecolor": PAPER}
NEVER: dict[str, Any] = {"facecolor": WARM, "edgecolor": PAPER}
NAME_INCHES = 0.08
"""Room for each letter of a task's name."""
UNPUBLISHED: dict[str, Any] = {"facecolor": PAPER, "edgecolor": "#b6c0c9", "hatch": "////"}


class _Shown(NamedTuple):
    """What a cell says, and how it is filled."""

    text: str
    fill: Mapping[str, Any]
    dark: bool = False


@mpl.rc_context(STYLE)
def recovery_triangles(cells: Sequence[RecoveryCell]) -> Figure:
    """Updates to recovery of one group, whose cells these are: a triangle per count and threshold, medians over seeds.

    A row of published figures stands below the two own ones where any of the cells was published.
    """
    thresholds = sorted({cell.threshold for cell in cells}, reverse=True)
    rows = ["after_dip", "first", *(["published"] if any(cell.is_published for cell in cells) else [])]
    last, names = max(cell.cell[1] for cell in cells), dict(sorted((cell.cell[0], short_name(cell.old_task)) for cell in cells))
    size = (9 + NAME_INCHES * max(map(len, names.values())), 1.0 + len(rows) * (0.3 + 0.55 * 9 / len(thresholds)))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(rows), len(thresholds), sharex=True, sharey=True, squeeze=False)
    for row, count in zip(panels, rows, strict=True):
        for axes, threshold in zip(row, thresholds, strict=True):
            chosen = [cell for cell in cells if cell.threshold == threshold]
            _triangle(axes, {cell.cell: _shown(cell, count) for cell in chosen}, last)
            axes.set_title(textwrap.fill(_title(chosen, count), 156 // len(thresholds)), fontsize=7.5)
    for axes in panels[-1]:
        axes.set_xlabel("while learning task", fontsize=7.5)
    for axes in panels[:, 0]:
        axes.set_ylabel("earlier task", fontsize=7.5)
        axes.set_yticks(list(names), [f"{name}  {stage}" for stage, name in names.items()])
    seeds = max(cell.seeds for cell in cells)
    heading = f"{cells[0].label}: updates until an earlier task is back, {f'median over {seeds} seeds' if seeds > 1 else 'one seed'}"
    figure.suptitle(textwrap.fill(heading, 100), x=0.01, ha="left", fontsize=10)
    _key(figure, panels, rows)
    return figure


# Parts of the figure -----------------------------------------------------------------------------------------------------------


def _shown(cell: RecoveryCell, count: str) -> _Shown:
    if count == "published":
        return _waited(cell.published) if cell.is_published else _Shown("", UNPUBLISHED)
    if count == "first":
        return _waited(cell.first.median)
    return _Shown("·", NO_DIP) if 2 * cell.steady_seeds >= cell.seeds else _waited(cell.after_dip.median)


def _waited(updates: float | None) -> _Shown:
    if updates is None:
        return _Shown("never", NEVER, dark=True)
    text = f"{updates:.0f}" if updates < 1000 else f"{updates / 1000:.3g}k"
    return _Shown(text, {"facecolor": WAIT(SCALE(updates)), "edgecolor": PAPER}, dark=bool(SCALE(updates) > 0.45))


def _title(cells: Sequence[RecoveryCell], count: str) -> str:
    """Whose figures, which count, which threshold, and for how long one looked."""
    threshold, last = cells[0].threshold, PUBLISHED_UPDATES if count == "published" else max(cell.first.last for cell in cells)
    counted = {"first": "here, first time", "published": "published, first time", "after_dip": "here, after the dip"}[count]
    return f"{counted} at {threshold} %, within {last:,} updates"


def _triangle(axes: Axes, shown: Mapping[StagePair, _Shown], last: int) -> None:
    for (old, new), cell in shown.items():
        axes.add_patch(Rectangle((new - 0.5, old - 0.5), 1, 1, linewidth=1.2 if "hatch" not in cell.fill else 0, **cell.fill))
        size = 5 if len(cell.text) > 4 else 6
        axes.text(new, old, cell.text, ha="center", va="center", color=PAPER if cell.dark else INK, fontsize=size)
    axes.set(xlim=(1.4, last + 0.6), ylim=(last - 0.4, 0.4))
    axes.set_xticks(range(2, last + 1))
    axes.set_yticks(range(1, last))
    axes.tick_params(labelsize=7)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _key(figure: Figure, panels: np.ndarray, rows: Sequence[str]) -> None:
    bar = figure.colorbar(ScalarMappable(SCALE, WAIT), ax=panels, location="bottom", shrink=0.4, aspect=45, anchor=(0.0, 0.5), pad=0.02)
    bar.set_ticks([2, 10, 100, 1000, 10_000, PUBLISHED_UPDATES], labels=["2", "10", "100", "1k", "10k", "50k"])
    bar.ax.tick_params(labelsize=7)
    bar.set_label("updates", fontsize=7.5)
    bar.outline.set_visible(False)
    entries = [Patch(**NEVER, label="never"), Patch(**{**NO_DIP, "edgecolor": MUTED}, linewidth=0.4, label="· no dip")]
    entries += [Patch(**UNPUBLISHED, label="not published")] if "published" in rows else []
    figure.legend(handles=entries, loc="lower right", ncols=3, fontsize=7.5, bbox_to_anchor=(1.0, 0.01))
