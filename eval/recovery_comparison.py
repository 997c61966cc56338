"""Recovery of several groups of runs over all (earlier task, transition) cells, and who came back sooner.

One `Observation` is one cell of one run at one threshold; everything else is a summary of observations. Two counts stand side by side:

    after_dip   updates until, from the bottom of the dip on, the threshold was met: the count used here
    first       the first evaluated update at which it was met, dip or not: the count of arXiv 2602.02417

A cell whose task never fell below the threshold counts the first point of the grid in both and is marked `steady`. Where at least half of the
cells are, a median over all of them is that point, the floor, and says nothing of recovery; so the median of those that dipped stands beside it.
A cell whose earlier task had not been learned (reference 0) has nothing to recover and is left out, as is one whose curve is not in the run folder.

    updates at 90 %, seed 0        hammer after 2    hammer after 3    push-wall after 3
    trust-region                         2                 50                never
    replay                               2                100                 700          ->  1 win, 1 tie, 1 loss
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from reconverge.eval import headlines
from reconverge.eval.intervals import Interval, mean_interval
from reconverge.eval.metrics import mean_measured
from reconverge.eval.published_results import PUBLISHED_UPDATES, published_recovery
from reconverge.eval.run_groups import RunGroup
from reconverge.eval.run_results import Recovery, RunResults
from reconverge.eval.survival import MedianUpdates, median_updates

Count = Literal["after_dip", "first"]
COUNTS: tuple[Count, ...] = ("after_dip", "first")
StagePair = tuple[int, int]
"""(old stage, new stage), both 1-based: the task last learned in `old stage`, while the task of `new stage` is learned."""


@dataclass(frozen=True)
class Observation:
    """One cell of one run at one threshold.

    Attributes:
        after_dip, first: updates, None = never up to `last_point`, where observation ended.
        points: the updates at which the task was evaluated.
        steady: never below the threshold. began_below, ended_below: the first point is the one before the switch, the last the stage's end.
        dip, dip_area: depth in [0, 1] and area in success x updates; no area (NaN) of a curve that does not reach the stage's end.
    """

    seed: int
    cell: StagePair
    threshold: int
    after_dip: int | None
    first: int | None
    points: tuple[int, ...]
    steady: bool
    began_below: bool
    ended_below: bool
    dip: float
    dip_area: float

    @property
    def last_point(self) -> int:
        return self.points[-1]

    def updates(self, count: Count) -> int | None:
        return self.after_dip if count == "after_dip" else self.first


@dataclass(frozen=True)
class PublishedSpread:
    """Published recovery over the same cells: their median, how many are never, how many the floor of the grid, 2 updates."""

    median: MedianUpdates
    at_floor: int


@dataclass(frozen=True)
class RecoverySummary:
    """A group at one threshold over cells x seeds.

    Attributes:
        pairs: cells x seeds observed. unlearned: those beside them whose earlier task had never been learned. unmeasured: those beside
            them without a point before the switch, a reference, or any point at all, as after failures of their simulator.
        steady: share of pairs without a dip below the threshold, mean over seeds; dip and dip_area likewise.
        began_below, ended_below: how many pairs were below the threshold before the switch already, and at the last point.
        after_dip, first: medians over all pairs. dipped: `after_dip` over those with a dip alone; those that are never back, that is not at any point
            from the lowest one on, are among those that end below.
    """

    label: str
    threshold: int
    pairs: int
    unlearned: int
    unmeasured: int
    steady: Interval
    began_below: int
    ended_below: int
    after_dip: MedianUpdates
    first: MedianUpdates
    dipped: MedianUpdates
    dip: Interval
    dip_area: Interval
    published: PublishedSpread | None


@dataclass(frozen=True)
class RecoveryCell:
    """One cell of a group at one threshold over its seeds; `published` is None also where `is_published` is false."""

    label: str
    cell: StagePair
    old_task: str
    new_task: str
    threshold: int
    seeds: int
    steady_seeds: int
    after_dip: MedianUpdates
    first: MedianUpdates
    dip: float
    dip_area: float
    is_published: bool
    published: int | None


class Wins(NamedTuple):
    wins: int
    ties: int
    losses: int

    @property
    def pairs(self) -> int:
        return sum(self)


@dataclass(frozen=True)
class WinsRow:
    """How often a group came back sooner than the reference: per count here, and between the published methods of their names.

    `no_dip_difference` is the paired difference in the share of cells without a dip, in [-1, 1]: mean and interval over seeds.
    """

    label: str
    reference: str
    threshold: int
    seeds: int
    after_dip: Wins
    first: Wins
    published: Wins | None
    no_dip_difference: Interval


def observations(run: RunResults) -> list[Observation]:
    """Online recovery of every cell whose earlier task had been learned, in order of the table."""
    found = [row for row in run.recoveries if row.kind == "online" and row.reference_rate > 0 and headlines.has_curve(run, row)]
    return [_observation(run, row) for row in found]


def unmeasured_pairs(run: RunResults, threshold: int) -> int:
    """Earlier tasks x stages in which recovery was looked for that have no row in recovery.csv."""
    looked = {point.stage for point in run.curve_points if point.kind == "online"} | {row.stage for row in run.failures if row.purpose == "recovery"}
    wanted = {(stage, task) for stage in looked for task in run.stages[: stage - 1] if task != run.stages[stage - 1]}
    return len(wanted - {(row.stage, row.task) for row in run.recoveries if row.kind == "online" and row.threshold == threshold})


def recovery_summaries(group: RunGroup, published: bool) -> list[RecoverySummary]:
    """One per threshold, the highest first; `published` says whether the cells are those of the published tables."""
    by_threshold: dict[int, list[Observation]] = {}
    for run in group.runs:
        for seen in observations(run):
            by_threshold.setdefault(seen.threshold, []).append(seen)
    return [_summary(group, threshold, by_threshold[threshold], published) for threshold in sorted(by_threshold, reverse=True)]


def recovery_cells(group: RunGroup, published: bool) -> list[RecoveryCell]:
    """One per threshold and cell: highest threshold first, then by new and old stage."""
    found: dict[tuple[int, StagePair], list[Observation]] = {}
    for run in group.runs:
        for seen in observations(run):
            found.setdefault((seen.threshold, seen.cell), []).append(seen)
    order = sorted(found, key=lambda key: (-key[0], key[1][1], key[1][0]))
    return [_cell(group, threshold, cell, found[threshold, cell], published) for threshold, cell in order]


def compare_recovery(group: RunGroup, reference: RunGroup, published: bool) -> list[WinsRow]:
    """Wins, ties and losses of `group` against `reference` per threshold, over the cells and seeds that both observed at the same updates.

    Nothing where their stages differ, since a cell is then another task, or another transition.
    """
    if group.stages != reference.stages:
        return []
    own, other = ({(seen.seed, seen.cell, seen.threshold): seen for run in side.runs for seen in observations(run)} for side in (group, reference))
    common = [key for key in own if key in other and own[key].points == other[key].points]
    rows = []
    for threshold in sorted({key[2] for key in common}, reverse=True):
        keys = [key for key in common if key[2] == threshold]
        after_dip, first = (count_wins((own[key].updates(count), other[key].updates(count)) for key in keys) for count in COUNTS)
        cells = {key[1] for key in keys}
        beside = published_wins(group.published_as, reference.published_as, threshold, cells) if published else None
        steadier = [[own[key].steady - other[key].steady for key in keys if key[0] == seed] for seed in sorted({key[0] for key in keys})]
        no_dip = mean_interval([sum(of_seed) / len(of_seed) for of_seed in steadier])
        rows.append(WinsRow(group.label, reference.label, threshold, len(steadier), after_dip, first, beside, no_dip))
    return rows


def count_wins(pairs: Iterable[tuple[int | None, int | None]]) -> Wins:
    """Of (own, other) updates: fewer is a win, None = never loses to any number and ties with another never.

    Both sides must have been observed at the same updates, or a never may only say that one stopped looking.
    """
    compared = [(math.inf if own is None else own, math.inf if other is None else other) for own, other in pairs]
    wins, losses = sum(own < other for own, other in compared), sum(own > other for own, other in compared)
    return Wins(wins, len(compared) - wins - losses, losses)


def published_wins(method: str, reference: str, threshold: int, cells: Iterable[StagePair] | None = None) -> Wins | None:
    """The same between two published methods, over `cells` or all 45; None where one of them was not published."""
    table = published_recovery()
    own, other = ({key[1:3]: table[key] for key in table if key[0] == name and key[3] == threshold} for name in (method, reference))
    common = own.keys() & other.keys() & (own.keys() if cells is None else set(cells))
    return count_wins((own[cell], other[cell]) for cell in common) if common and method != reference else None


def _observation(run: RunResults, row: Recovery) -> Observation:
    points = headlines.points_of(run, row)
    area = row.dip_area if points[-1] == run.stage_updates[row.stage - 1] else math.nan
    return Observation(
        run.seed, (_old_stage(run, row), row.stage), row.threshold, headlines.after_dip_of(run, row), row.updates, points,
        headlines.is_steady(run, row), *headlines.ends_below(run, row), row.dip, area,
    )  # fmt: skip


def _old_stage(run: RunResults, row: Recovery) -> int:
    """The last stage before that learned the task: the reference is what it could do then."""
    return max((stage for stage, task in enumerate(run.stages[: row.stage - 1], start=1) if task == row.task), default=0)


def _summary(group: RunGroup, threshold: int, seen: Sequence[Observation], published: bool) -> RecoverySummary:
    of_seed = [[one for one in seen if one.seed == seed] for seed in sorted({one.seed for one in seen})]
    steady, dip, area = (
        mean_interval([mean_measured(values) for values in of_figure])
        for of_figure in (
            [[float(one.steady) for one in own] for own in of_seed],
            [[one.dip for one in own] for own in of_seed],
            [[one.dip_area for one in own] for own in of_seed],
        )
    )
    found = [row for run in group.runs for row in run.recoveries if row.kind == "online" and row.threshold == threshold]
    return RecoverySummary(
        label=group.label, threshold=threshold, pairs=len(seen), unlearned=sum(row.reference_rate <= 0 for row in found),
        unmeasured=sum(unmeasured_pairs(run, threshold) for run in group.runs), steady=steady,
        began_below=sum(one.began_below for one in seen), ended_below=sum(one.ended_below for one in seen),
        after_dip=_median(seen, "after_dip"), first=_median(seen, "first"), dipped=_median([one for one in seen if not one.steady], "after_dip"),
        dip=dip, dip_area=area,
        published=_published_spread(group.published_as, threshold, {one.cell for one in seen}) if published else None,
    )  # fmt: skip


def _cell(group: RunGroup, threshold: int, cell: StagePair, seen: Sequence[Observation], published: bool) -> RecoveryCell:
    stages, key = group.stages, (group.published_as, *cell, threshold)
    names = [stages[stage - 1] if 1 <= stage <= len(stages) else "" for stage in cell]
    return RecoveryCell(
        label=group.label, cell=cell, old_task=names[0], new_task=names[1], threshold=threshold, seeds=len(seen),
        steady_seeds=sum(one.steady for one in seen), after_dip=_median(seen, "after_dip"), first=_median(seen, "first"),
        dip=mean_measured([one.dip for one in seen]), dip_area=mean_measured([one.dip_area for one in seen]),
        is_published=published and key in published_recovery(), published=published_recovery().get(key) if published else None,
    )  # fmt: skip



def _median(seen: Sequence[Observation], count: Count) -> MedianUpdates:
    return median_updates([one.updates(count) for one in seen], [one.last_point for one in seen])


def _published_spread(method: str, threshold: int, cells: set[StagePair]) -> PublishedSpread | None:
    table = published_recovery()
    found = [table[key] for key in table if key[0] == method and key[3] == threshold and key[1:3] in cells]
    if not found:
        return None
    return PublishedSpread(median_updates(found, [PUBLISHED_UPDATES] * len(found)), sum(updates == 2 for updates in found))
