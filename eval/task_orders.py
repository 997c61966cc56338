"""A method over several orders of the same tasks: is what it keeps a matter of the order in which it learns?

    replay  cw10             seeds 0, 1     0.98  0.97    ->  0.975 |
    replay  cw10:shuffle-1   seeds 0, 1     0.95  0.97    ->  0.960 |  mean over orders 0.960, with Student's interval over the three
    replay  cw10:shuffle-2   seeds 0, 1     0.94  0.95    ->  0.945 |

The runs of one order have the order in common, so an order counts once, however many seeds it was learned with. A difference to the reference
is taken seed by seed within every order, and then over the orders that both have learned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reconverge.eval import headlines
from reconverge.eval.estimate import estimate
from reconverge.eval.intervals import Interval, mean_interval
from reconverge.eval.paired_comparison import PairedRow, paired_row
from reconverge.eval.recovery_comparison import compare_recovery, recovery_summaries
from reconverge.eval.run_groups import RunGroup, kind_of


@dataclass(frozen=True)
class OrdersRow:
    """A method over at least two orders of the same tasks; rates in [0, 1], differences in [-1, 1], intervals over orders.

    Attributes:
        label: the method and what it varies but the order. orders: name of every curriculum; seeds: how many runs learned it.
        lowest, highest: mean success of the order with which it was least, or most.
        threshold, no_dip: the highest threshold of recovery, in %, 0 without any, and the share of cells that never fell below it.
        reference, compared: the method of the differences, and over how many orders they are; 0 for the reference itself.
    """

    label: str
    orders: tuple[str, ...]
    seeds: tuple[int, ...]
    success: Interval
    lowest: float
    highest: float
    forgetting: Interval
    threshold: int
    no_dip: Interval
    reference: str
    compared: int
    success_difference: Interval
    forgetting_difference: Interval
    no_dip_difference: Interval


def orders_rows(groups: Sequence[RunGroup], reference: RunGroup) -> list[OrdersRow]:
    """A row for every method, with its settings, that has learned the same tasks in several orders. The reference is that of the same tasks."""
    families: dict[str, list[RunGroup]] = {}
    for group in groups:
        families.setdefault(_kind_but_the_order(group), []).append(group)
    several = [members for members in families.values() if len({group.stages for group in members}) > 1]
    return [_row(members, _references(members, several, reference)) for members in several]


def _row(members: Sequence[RunGroup], references: Sequence[RunGroup]) -> OrdersRow:
    success = [estimate(group, headlines.final_success).interval.mean for group in members]
    forgetting = [estimate(group, headlines.forgetting).interval.mean for group in members]
    measured = [rate for rate in success if not math.isnan(rate)]
    pairs = [pair for group in members for other in references if (pair := _pair(group, other)) is not None]
    summaries = [found[0] for group in members if (found := recovery_summaries(group, published=False))]
    wins = [rows[0] for group in members for other in references if (rows := compare_recovery(group, other, published=False))]
    return OrdersRow(
        label=_label(members),
        orders=tuple(group.runs[0].curriculum for group in members),
        seeds=tuple(len(group.runs) for group in members),
        success=mean_interval(success),
        lowest=min(measured, default=math.nan),
        highest=max(measured, default=math.nan),
        forgetting=mean_interval(forgetting),
        threshold=summaries[0].threshold if summaries else 0,
        no_dip=mean_interval([summary.steady.mean for summary in summaries]),
        reference=_label(references) if references else "",
        compared=len(pairs),
        success_difference=mean_interval([pair.success.mean for pair in pairs]),
        forgetting_difference=mean_interval([pair.forgetting.mean for pair in pairs]),
        no_dip_difference=mean_interval([row.no_dip_difference.mean for row in wins]),
    )


def _label(members: Sequence[RunGroup]) -> str:
    """What the labels of all members have in common: not the name of the curriculum, nor budgets of tasks in the order of each."""
    common = [words for words in members[0].variation if all(words in group.variation for group in members)]
    return ", ".join([members[0].method, *(words for words in common if not words.startswith("curriculum="))])


def _kind_but_the_order(group: RunGroup) -> str:
    """The same for groups with the same settings whose tasks, each with its budgets, are the same."""
    run = group.runs[0]
    stages = sorted(zip(run.stages, run.stage_updates, map(str, run.stage_demonstrations), strict=True))
    return kind_of(run, **{"curriculum": stages, "train.updates": None, "demonstrations.episodes": None})


def _references(members: Sequence[RunGroup], families: Sequence[Sequence[RunGroup]], reference: RunGroup) -> Sequence[RunGroup]:
    """The family of the reference's method and variation that has learned the tasks of `members`; none for itself."""
    tasks = sorted(members[0].stages)
    label = _label(next((family for family in families if any(group is reference for group in family)), [reference]))
    found = [family for family in families if _label(family) == label and sorted(family[0].stages) == tasks]
    return found[0] if found and found[0] is not members else ()


def _pair(group: RunGroup, other: RunGroup) -> PairedRow | None:
    found = paired_row(group, other)
    return found if found is not None and found.seeds else None
