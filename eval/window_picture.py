"""Replayed windows beside real ones, to look at: every window is a short stroke from its first observation to its newest, a dot.

    Meta-World      hand x, z   and   object x, y       in m
    point-reach     point x, y  and   shown goal x, y
    others          the two principal components of the task's real observations

Without torch: `diagnose` writes the strokes as a table, the report draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from reconverge.envs.gym_name import short_name
from reconverge.envs.task import Task
from reconverge.eval import plots

TIME = mpl.colormaps["viridis"]
MOST_TASKS = 20
"""Rows of the picture; the earliest tasks are shown."""
_AXES = {
    "metaworld": (("hand", (0, 2), ("x, m", "z, m")), ("object", (4, 5), ("x, m", "y, m"))),
    "point-reach": (("point", (0, 1), ("x", "y")), ("shown goal", (2, 3), ("x", "y"))),
}
Panel = tuple[str, tuple[str, str], Callable[[np.ndarray], np.ndarray]]
_COMPONENTS = ("principal components", ("1st", "2nd"))


@dataclass(frozen=True)
class Stroke:
    """A window of `task` in a `panel`, `replayed` or real; `time` in [0, 1] is its newest observation's, as a share of the horizon."""

    stage: int
    task: str
    panel: str
    horizontal: str
    vertical: str
    replayed: bool
    time: float
    x_first: float
    y_first: float
    x: float
    y: float


def strokes(stage: int, task: Task, real: np.ndarray, real_times: np.ndarray, replayed: np.ndarray, times: np.ndarray) -> list[Stroke]:
    """Of windows (W, To, Do) of one task with their times (W,)."""
    found = []
    for panel, (horizontal, vertical), project in _panels(task, real):
        for kind, windows, at in ((False, real, real_times), (True, replayed, times)):
            for first, newest, time in zip(project(windows[:, 0]), project(windows[:, -1]), at, strict=True):
                figures = [round(float(value), 5) for value in (time, *first, *newest)]
                found.append(Stroke(stage, task.name, panel, horizontal, vertical, kind, *figures))
    return found


@mpl.rc_context(plots.STYLE)
def window_picture(found: Sequence[Stroke]) -> Figure | None:
    """A row per task: real and replayed side by side, on the same axes, coloured by time; None without any."""
    tasks = list(dict.fromkeys(stroke.task for stroke in found))[:MOST_TASKS]
    if not tasks:
        return None
    panels = {task: list(dict.fromkeys(stroke.panel for stroke in found if stroke.task == task)) for task in tasks}
    columns = 2 * max(map(len, panels.values()))
    figure = Figure(figsize=(2.4 * columns, 0.7 + 2.2 * len(tasks)), layout="constrained")
    grid = figure.subplots(len(tasks), columns, squeeze=False)
    scale = Normalize(0, max(stroke.time for stroke in found) or 1)
    for task, row in zip(tasks, grid, strict=True):
        for axes in row[2 * len(panels[task]) :]:
            axes.set_axis_off()
        for number, panel in enumerate(panels[task]):
            of_panel = [stroke for stroke in found if (stroke.task, stroke.panel) == (task, panel)]
            for axes, replayed in zip(row[2 * number : 2 * number + 2], (False, True), strict=True):
                _draw(axes, [stroke for stroke in of_panel if stroke.replayed == replayed], of_panel, scale)
                axes.set(title=f"{panel}, {'replayed' if replayed else 'real'}", xlabel=of_panel[0].horizontal)
            named = f"{short_name(task)}\n\n" if number == 0 else ""
            row[2 * number].set_ylabel(f"{named}{of_panel[0].vertical}")
    bar = figure.colorbar(ScalarMappable(scale, TIME), ax=grid, location="bottom", shrink=0.3, aspect=50, pad=0.02)
    bar.set_label("time of the window, as a share of the task's horizon")
    return figure


def _draw(axes: Axes, shown: Sequence[Stroke], all_of_panel: Sequence[Stroke], scale: Normalize) -> None:
    lines = [[(stroke.x_first, stroke.y_first), (stroke.x, stroke.y)] for stroke in shown]
    times = np.array([stroke.time for stroke in shown])
    axes.add_collection(LineCollection(lines, array=times, cmap=TIME, norm=scale, linewidths=0.9, alpha=0.8))
    axes.scatter([stroke.x for stroke in shown], [stroke.y for stroke in shown], c=times, cmap=TIME, norm=scale, s=5, linewidths=0)
    for values, setting in (([s.x for s in all_of_panel], axes.set_xlim), ([s.y for s in all_of_panel], axes.set_ylim)):
        slack = 0.06 * (max(values) - min(values)) + 1e-3
        setting(min(values) - slack, max(values) + slack)


def _panels(task: Task, real: np.ndarray) -> list[Panel]:
    """(name, labels, observations (n, Do) -> (n, 2)) of each panel."""
    if task.family in _AXES:
        return [(name, labels, _taking(columns)) for name, columns, labels in _AXES[task.family]]
    centre = real[:, -1].mean(0)
    directions = np.linalg.svd(real[:, -1] - centre, full_matrices=False)[2][:2]
    name, labels = _COMPONENTS
    return [(name, labels, lambda rows: _two_columns((rows - centre) @ directions.T))]


def _taking(columns: tuple[int, int]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda rows: rows[:, list(columns)]


def _two_columns(rows: np.ndarray) -> np.ndarray:
    """Of an observation of one number there is one component only."""
    return rows if rows.shape[1] == 2 else np.concatenate([rows, np.zeros_like(rows)], axis=1)
