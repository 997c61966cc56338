"""One picture of a run to show around: its success matrix beside the last frames of its videos, both with stages down and tasks across.

                      hammer  push-wall  faucet-close               hammer       push-wall     faucet-close
    untrained           0         0           0
    1 · hammer        100         0                     after 1    [ solved ]    [ failed ]    not learned yet
    2 · push-wall     100        96           0         after 2    [ solved ]    [ solved ]    [ failed ]
    3 · faucet-close  100       100         100         after 3    [ solved ]    [ solved ]    [ solved ]

Of many tasks a few are shown in frames, evenly spaced from the first to the last, after the stages in which these were learned.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from reconverge.envs.artifact import write_file
from reconverge.envs.gym_name import short_name
from reconverge.eval import plots
from reconverge.eval.run_results import RunResults, read_run
from reconverge.eval.video_grid import read_grid

WIDTH = 1900
"""Pixels of the whole picture: twice what a README shows."""
SHOWN_TASKS = 4
CELL, FRAME = (0.62, 0.44), (1.6, 1.32)
"""Inches of a cell of the matrix, and of one of the frames with its caption: in 900 pixels the numbers of ten tasks can still be read."""

KEY = ", ".join(part.replace(" ", "\N{NO-BREAK SPACE}") for part in ("framed: just learned", "pale: before it was learned", "small: 95 % interval"))


def write_summary_picture(run_folder: Path) -> Path:
    """Write RUN/summary.png; without videos it holds the matrix alone. Raises DamagedFile for a run or a poster that cannot be read."""
    run = read_run(run_folder)
    figure = summary_figure(run, read_grid(run_folder / "videos", run.stages))
    picture = Image.open(io.BytesIO(plots.png(figure, round(WIDTH / figure.get_figwidth())))).convert("RGB")
    data = io.BytesIO()
    picture.save(data, "PNG", optimize=True)
    path = run_folder / "summary.png"
    write_file(path, data.getvalue())
    return path


@mpl.rc_context(plots.STYLE)
def summary_figure(run: RunResults, frames: Mapping[tuple[int, str], Image.Image]) -> Figure:
    """The success matrix and, where there are any, the last frames of (stage, task)."""
    rows = plots.matrix_rows(run)
    width, height = 1.7 + CELL[0] * len(run.tasks), 1.0 + CELL[1] * rows
    tasks = evenly_spaced([task for task in run.tasks if any(task == of for _, of in frames)])
    stages = [stage for stage in range(1, run.stages_done + 1) if any((stage, task) in frames for task in tasks)]
    if len(stages) > SHOWN_TASKS:
        stages = sorted({run.own_stage[run.tasks.index(task)] for task in tasks} & set(stages) | {stages[-1]})
    beside = 0.6 + FRAME[0] * len(tasks) if tasks else 0.0
    height = max(height, 1.2 + FRAME[1] * len(stages) if tasks else 0.0)
    figure = Figure(figsize=(width + beside, height), layout="constrained")
    ratios = [CELL[0] * len(run.tasks), FRAME[0] * len(tasks)] if tasks else None
    left, *right = figure.subplots(1, 1 + bool(tasks), squeeze=False, width_ratios=ratios)[0]
    plots.draw_matrix(left, run)
    left.set_title("Success after each stage, %", pad=12)
    left.set_xlabel(textwrap.fill("" if run.method == "joint" else KEY, round(14 * width)), fontsize=8)
    for axes in right:
        _draw_frames(axes, run, frames, stages, tasks)
        axes.set_title("Last frame of the same episode under each stage's policy", pad=12)
        axes.set_xlabel("green: solved, red: not solved", fontsize=8)
    return figure


def evenly_spaced(tasks: list[str]) -> list[str]:
    """At most SHOWN_TASKS of them, the first and the last among them."""
    if len(tasks) <= SHOWN_TASKS:
        return tasks
    return [tasks[round(place)] for place in np.linspace(0, len(tasks) - 1, SHOWN_TASKS)]


def _draw_frames(axes: Axes, run: RunResults, frames: Mapping[tuple[int, str], Image.Image], stages: list[int], tasks: list[str]) -> None:
    for row, stage in enumerate(stages):
        for column, task in enumerate(tasks):
            if (stage, task) in frames:
                axes.imshow(np.asarray(frames[stage, task]), extent=(column - 0.49, column + 0.49, row + 0.49, row - 0.49), aspect="auto")
            elif stage < run.own_stage[run.tasks.index(task)]:
                axes.text(column, row, "not learned yet", ha="center", va="center", color=plots.MUTED, fontsize=8)
    axes.set(xlim=(-0.5, len(tasks) - 0.5), ylim=(len(stages) - 0.5, -0.5), box_aspect=len(stages) * FRAME[1] / (len(tasks) * FRAME[0]))
    axes.set_yticks(range(len(stages)), [f"after {stage}" for stage in stages])
    axes.set_xticks(range(len(tasks)), [short_name(task) for task in tasks])
    axes.tick_params(labelcolor=plots.INK, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
