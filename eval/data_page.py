"""One self-contained page about collections of demonstrations, as `reconverge inspect` writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reconverge.envs.artifact import write_file
from reconverge.eval import plots
from reconverge.eval.data_statistics import DataStatistics, in_ranges
from reconverge.eval.page_template import page_template

NAMES = {"varies": "vary", "goal": "are constant within an episode", "constant": "are constant", "repeats": "repeat an earlier entry"}


@dataclass(frozen=True)
class Collection:
    """What is shown of one collection.

    Attributes:
        facts: label -> text.
        positions: entries of the observation at which a position in metres begins; empty where none is declared.
    """

    path: Path
    statistics: DataStatistics
    facts: Mapping[str, str]
    positions: tuple[int, ...] = ()


def write_data_page(collections: Sequence[Collection], output: Path) -> Path:
    """Write the page to `output`, whose folder is created, and return it."""
    sections = [
        {"collection": one, "figure": Markup(plots.svg(collection_figure(one))), "entries": entries_in_words(one.statistics)} for one in collections
    ]
    output.parent.mkdir(parents=True, exist_ok=True)
    write_file(output, page_template("data_page.html").render(sections=sections))
    return output


def entries_in_words(statistics: DataStatistics) -> list[tuple[str, str]]:
    """(what they do, which entries of the observation do it)."""
    found = {kind: [number for number, entry in enumerate(statistics.observations) if entry.kind == kind] for kind in NAMES}
    return [(NAMES[kind], in_ranges(numbers)) for kind, numbers in found.items() if numbers]


@mpl.rc_context(plots.STYLE)
def collection_figure(collection: Collection) -> Figure:
    """Lengths of the episodes, ranges of actions, ranges of what varies in the observations, and where episodes start."""
    statistics = collection.statistics
    figure = Figure(figsize=(11, 2.9), layout="constrained")
    lengths, actions, observations, starts = figure.subplots(1, 4, width_ratios=(1, 1, 1.6, 1.1))
    least, most = int(statistics.steps.min()), int(statistics.steps.max())
    every = max(1, (most - least) // 20 + 1)  # whole steps, or bars would stand where no length can be
    lengths.hist(statistics.steps, bins=np.arange(least - 0.5, most + every + 0.5, every).tolist(), color=plots.ACCENT)
    lengths.set(title="steps of an episode", ylabel="episodes")
    _ranges(actions, [(str(number), entry.low, entry.high, entry.mean, entry.spread) for number, entry in enumerate(statistics.actions)])
    actions.set(title="actions", xlim=(-1.05, 1.05), ylabel="entry")
    varying = [(number, entry) for number, entry in enumerate(statistics.observations) if entry.kind in ("varies", "goal")]
    _ranges(observations, [(str(number), entry.low, entry.high, entry.mean, entry.spread) for number, entry in varying])
    observations.set(title="observations that vary or are a goal", ylabel="entry")
    _starts(starts, collection)
    return figure


def _ranges(axes: Axes, rows: Sequence[tuple[str, float, float, float, float]]) -> None:
    """A line from lowest to highest, a bar of a standard deviation to both sides of the mean."""
    for place, (_, low, high, mean, spread) in enumerate(rows):
        axes.plot([low, high], [place, place], color=plots.MUTED, linewidth=0.8)
        left, right = max(low, mean - spread), min(high, mean + spread)
        axes.barh(place, right - left, left=left, height=0.6, color=plots.ACCENT_LIGHT, edgecolor=plots.ACCENT, linewidth=0.6)
    every = max(1, len(rows) // 12)
    axes.set_yticks(range(0, len(rows), every), [name for name, *_ in rows][::every])
    axes.invert_yaxis()


def _starts(axes: Axes, collection: Collection) -> None:
    """Where episodes start: every declared position seen from above, else the two entries that vary most."""
    starts, entries = collection.statistics.starts, collection.statistics.observations
    used = [first for first in collection.positions if any(entry.low or entry.high for entry in entries[first : first + 3])]
    if used:
        for first, colour in zip(used, plots.SERIES, strict=False):
            axes.plot(starts[:, first], starts[:, first + 1], ".", color=colour, markersize=3, label=f"{first}-{first + 2}")
        axes.set(title="positions at the start, m", xlabel="x", ylabel="y", aspect="equal")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7, handletextpad=0.1, title="entries", title_fontsize=7)
        return
    spread = starts.std(axis=0)
    one, other = np.sort(np.argsort(-spread)[:2]) if len(spread) > 1 else (0, 0)
    axes.plot(starts[:, one], starts[:, other], ".", color=plots.ACCENT, markersize=3)
    axes.set(title="starts", xlabel=f"entry {one}", ylabel=f"entry {other}")


def table_row(collection: Collection) -> dict[str, Any]:
    """The collection as a row in the terminal."""
    found = collection.statistics
    return {
        "task": found.task,
        "episodes": len(found.steps),
        "steps": f"{found.steps.mean():.0f} ({found.steps.min()} to {found.steps.max()})",
        "at_bounds": f"{100 * np.mean([entry.at_bounds for entry in found.actions]):.0f}",
        "varies": found.count("varies") + found.count("goal"),
        "observation": len(found.observations),
        "megabytes": f"{found.bytes / 1e6:.1f}",
        **collection.facts,
    }
