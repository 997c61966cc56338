"""The report's section about a diagnosed run: what `diagnostics_section.html` lays out."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reconverge.eval import plots
from reconverge.eval.diagnostics_results import DIRECTIONS, LEAST_REPEAT, PUBLISHED_COSINE, Diagnostics, FisherRow, read_diagnostics
from reconverge.eval.run_results import RunResults
from reconverge.eval.window_picture import window_picture

ERROR_LINES = (
    ("rank1_error_held_out", "c μμᵀ, held out", plots.ACCENT, "-"),
    ("rank1_error_of_noise", "along a direction of noise", plots.MUTED, ":"),
    ("best_rank1_error_held_out", "first eigenvector, held out", plots.SERIES[1], "-"),
    ("best_rank1_error", "first eigenvector, as fitted", plots.SERIES[1], ":"),
    ("diagonal_error_unbiased", "diagonal, unbiased", plots.SERIES[2], "-"),
)
"""Column, label, colour and line of the errors shown by timestep."""


def diagnostics_section(run: RunResults) -> dict[str, Any] | None:
    """Rows and figures for the template; None where the run was not diagnosed."""
    found = read_diagnostics(run.folder)
    if found is None or not found.fisher:
        return None
    figures = {"fisher": fisher_by_timestep(found), "meta": meta_cosines(found), "windows": window_picture(found.strokes)}
    return {
        "fisher": found.over_all_timesteps,
        "meta": [(words, found.typical_cosine(direction)) for direction, words in DIRECTIONS.items() if found.typical_cosine(direction).cells],
        "least_repeat": LEAST_REPEAT,
        "meta_cells": found.meta,
        "directions": DIRECTIONS,
        "published": PUBLISHED_COSINE,
        "fidelity": found.fidelity,
        "spread": found.last_spread,
        "executed": found.executed,
        "distances": {(row.stage, row.other_stage): row for row in found.distances},
        "stages": sorted({row.stage for row in found.fisher}),
        "figures": {name: None if figure is None else Markup(plots.svg(figure)) for name, figure in figures.items()},
    }


@mpl.rc_context(plots.STYLE)
def fisher_by_timestep(found: Diagnostics) -> Figure | None:
    """Collinearity and errors in bands of diffusion timesteps: thick = mean over the stages, thin = one stage; None without bands."""
    whole = {id(row) for row in found.over_all_timesteps}
    bands = [row for row in found.fisher if id(row) not in whole]
    if not bands:
        return None
    figure = Figure(figsize=(9, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    _band_lines(left, bands, "collinearity", "‖E g‖² / E‖g‖²", plots.ACCENT, "-", thin=True)
    _band_lines(left, bands, "collinearity_of_noise", "of noise, 1/n", plots.MUTED, ":")
    left.set(ylim=(0, None), xlabel="diffusion timestep", title="collinearity")
    for column, label, colour, line in ERROR_LINES:
        _band_lines(right, bands, column, label, colour, line)
    right.set(ylim=(0, None), xlabel="diffusion timestep", title="error as a share of ‖F‖")
    left.legend(loc="best")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _band_lines(axes: Axes, rows: list[FisherRow], column: str, label: str, colour: str, line: str, thin: bool = False) -> None:
    edges = sorted({(row.first_timestep, row.last_timestep) for row in rows})
    middles = [(low + high) / 2 for low, high in edges]
    stages = sorted({row.stage for row in rows})
    value = {(row.stage, row.first_timestep): getattr(row, column) for row in rows}
    table = np.array([[value.get((stage, low), np.nan) for low, _ in edges] for stage in stages])
    for values in table if thin else ():
        axes.plot(middles, values, color=colour, linewidth=0.6, alpha=0.35)
    axes.plot(middles, np.nanmean(table, axis=0), color=colour, linestyle=line, marker="o", markersize=3, label=label)


@mpl.rc_context(plots.STYLE)
def meta_cosines(found: Diagnostics) -> Figure | None:
    """One row per direction: a dot per (stage, earlier task) that is used, a bar at their mean or median; None without cells."""
    shown = [direction for direction in DIRECTIONS if found.cosines(direction)]
    if not shown:
        return None
    figure = Figure(figsize=(9, 0.6 + 0.3 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    for place, direction in enumerate(shown):
        values, typical = found.cosines(direction), found.typical_cosine(direction).value
        colour = plots.ACCENT if direction.startswith("update") else plots.MUTED
        axes.scatter(values, [place] * len(values), s=14, color=colour, alpha=0.5, linewidths=0, zorder=3)
        if typical is not None:
            axes.plot([typical, typical], [place - 0.3, place + 0.3], color=plots.INK, linewidth=1.8, zorder=4)
    axes.axvline(0, color=plots.MUTED, linewidth=0.8)
    if "update" in shown:
        axes.plot([PUBLISHED_COSINE] * 2, [-0.5, 0.5], color=plots.WARM, linewidth=1.4, dashes=(3, 2))
        axes.annotate("published", (PUBLISHED_COSINE, -0.5), xytext=(3, 0), textcoords="offset points", fontsize=7.5, color=plots.WARM, va="center")
    axes.set(xlim=(-1.05, 1.2), ylim=(len(shown) - 0.4, -0.8), xlabel="cosine with the meta-gradient")
    axes.set_yticks(range(len(shown)), [DIRECTIONS[direction] for direction in shown])
    axes.tick_params(axis="y", labelcolor=plots.INK)
    axes.grid(visible=False, axis="y")
    return figure
