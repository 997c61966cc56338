"""The figures of an experiment, for its page and for files of their own, by the names of those files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from reconverge.eval import experiment_plots
from reconverge.eval.experiment import Experiment
from reconverge.eval.recovery_plots import recovery_triangles

LONGEST_LABEL = 100
"""Letters of a group's label in the name of a file."""


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
    figures |= {names[label]: recovery_triangles(cells) for label, cells in by_label(experiment, experiment.cells) if cells}
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


def by_label(experiment: Experiment, rows: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """(label, its rows) of every group, in the order of the groups."""
    return [(group.label, [row for row in rows if row.label == group.label]) for group in experiment.groups]
