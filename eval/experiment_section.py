"""The report's section about several runs: what `report_template.html` lays out beside the figures of every run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from reconverge.eval.comparison import code_commits, run_row, torch_versions
from reconverge.eval.experiment import CostRow, measured_further, run_name, summarise
from reconverge.eval.experiment_figures import by_label, experiment_figures, recovery_names
from reconverge.eval.page_template import inline
from reconverge.eval.run_results import RunResults

SHOWN_PHASES = 6
"""Phases of the cost with a column of their own on the page about several runs; the others are added up."""


def experiment_section(runs: Sequence[RunResults], reference: str | None) -> dict[str, Any]:
    """Everything the template shows about an experiment, beside the figures of every run."""
    experiment = summarise(runs, reference)
    measured = any(run.stages_done for run in runs)
    phases = _shown_phases(experiment.costs)
    figures = {name: inline(figure) for name, figure in experiment_figures(experiment).items()} if measured else {}
    names = recovery_names([group.label for group in experiment.groups])
    return {
        "tables": experiment,
        "figures": figures,
        "recovery": by_label(experiment, experiment.recovery),
        "cells": [(label, rows, figures.get(names[label])) for label, rows in by_label(experiment, experiment.cells)],
        "wins": by_label(experiment, experiment.wins),
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


def _shown_phases(costs: Sequence[CostRow]) -> list[str]:
    """The phases that took longest over all groups."""
    spent: dict[str, float] = {}
    for row in costs:
        for phase, minutes in row.phases.items():
            spent[phase] = spent.get(phase, 0.0) + minutes
    return sorted(spent, key=lambda phase: -spent[phase])[:SHOWN_PHASES]
