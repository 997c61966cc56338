"""The tables of an experiment in Markdown, for a README, an issue or a page of documentation: one file, one heading a table.

    ## Summary        a line per method, best first: success at the end, forgetting, pairs that never dipped, and that end below
    ## Success        success at the end, just learned, forgetting, transfer per method with 95 % intervals; published values beside them
    ## Tasks          success at the end task by task, and how often the expert itself succeeds
    ## Differences    each method minus the reference over common seeds
    ## Orders         each method over several orders of the same tasks, where there are any
    ## Recovery       per method and threshold: pairs without a dip and with one, never back, dip, median updates until a task is back
    ## Wins           who came back sooner than the reference, cell by cell; the difference in cells without a dip
    ## Just learned   success just after learning: first and last third of the tasks, and beside single
    ## Cost           minutes, bytes and FLOPs
    ## Notes          what is not like for like, which tasks failed, what was left out

The figures are those of the page that `reconverge report` writes; a table without rows is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from reconverge.envs.gym_name import short_name
from reconverge.eval import wording
from reconverge.eval.estimate import Estimate
from reconverge.eval.experiment import CostRow, Experiment, MethodRow, best_first, caveats, expert_rates, final_rates, measured_further
from reconverge.eval.intervals import Interval
from reconverge.eval.paired_comparison import PairedRow
from reconverge.eval.plasticity import PlasticityRow
from reconverge.eval.published_results import PublishedSuccess
from reconverge.eval.recovery_comparison import PublishedSpread, RecoverySummary, WinsRow
from reconverge.eval.task_orders import OrdersRow
from reconverge.eval.wording import flops, median, median_bounds, points, size, with_bounds

ABSENT = "–"
HEAD = (
    "Written by reconverge report. In brackets: 95 % intervals, over seeds; over the episodes of the only seed where the row says so; "
    "those of median updates over pairs, taken as independent. Minutes: the shortest and the longest run."
)
_MARKED = re.compile(r"[\\`*\[\]<>|&]|(?<!\w)_|_(?!\w)")

Lines = list[list[str]]
"""The heading of a table and its rows."""


def markdown_tables(experiment: Experiment) -> str:
    """All tables, each under a heading of the second level that names it."""
    tables = {
        "Summary": _summary(experiment),
        "Success": _methods(experiment.methods),
        "Transfer": _transfer(experiment.methods),
        "Tasks": _tasks(experiment),
        "Differences": _paired(experiment.paired),
        "Orders": _orders(experiment.orders),
        "Recovery": _recovery(experiment.recovery),
        "Wins": _wins(experiment.wins),
        "Just learned": _plasticity(experiment.plasticity),
        "Cost": _costs(experiment.costs),
    }
    parts = [f"## {name}\n\n{_table(lines)}" for name, lines in tables.items() if len(lines) > 1]
    notes = [f"* {escaped(sentence)}\n" for sentence in caveats(experiment)]
    parts += [f"## Notes\n\n{''.join(notes)}"] if notes else []
    return f"<!-- {HEAD} -->\n\n" + "\n".join(parts)


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, within a cell of a table."""
    return _MARKED.sub(lambda letter: f"\\{letter[0]}", " ".join(text.split()))


def _table(lines: Lines) -> str:
    """Words to the left, figures to the right."""
    heading, *rows = lines
    rule = ["---", *["--:"] * (len(heading) - 1)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (heading, rule, *rows))


def _methods(rows: Sequence[MethodRow]) -> Lines:
    """The columns of published values only where one of the methods has any."""
    published = any(row.published for row in rows)
    heading = ["method", "seeds", "episodes", "success at the end, %", "IQM, %", "just learned, %", "forgetting, points"]
    lines = [[*heading, *(["published success, %", "published forgetting, points"] if published else [])]]
    for row in rows:
        figures = [_estimate(row.success), _rate(row.success_iqm), _estimate(row.just_learned), _difference(row.forgetting.interval)]
        beside = _published(row.published) if published else []
        lines.append([escaped(row.label), _seeds(len(row.seeds), row.success), f"{row.episodes:,}", *figures, *beside])
    return lines


def _summary(experiment: Experiment) -> Lines:
    """Best first; of the recovery only the highest threshold."""
    threshold = max((row.threshold for row in experiment.recovery), default=0)
    recovery = {row.label: row for row in experiment.recovery if row.threshold == threshold}
    beside = [f"never below {threshold} %, % of pairs", "below it at the stage's end, % of pairs"] if recovery else []
    lines = [["method", "success at the end, %", "forgetting, points", *beside, "seeds"]]
    for row in best_first(experiment.methods):
        found = recovery.get(row.label)
        kept = [ABSENT, ABSENT] if found is None else [_number(100 * found.steady.mean), _number(100 * found.ended_below / found.pairs)]
        figures = [_estimate(row.success), points(row.forgetting.interval.mean), *(kept if beside else [])]
        lines.append([escaped(row.label), *figures, _seeds(len(row.seeds), row.success)])
    return lines


def _transfer(rows: Sequence[MethodRow]) -> Lines:
    """No rows where none of it was measured."""
    further = measured_further(rows)
    lines = [["method", "seeds", *(f"{name}, points" for name in further)]]
    for row in rows if further else ():
        lines.append([escaped(row.label), _seeds(len(row.seeds), row.success), *(_difference(row.further[name].interval) for name in further)])
    return lines


def _tasks(experiment: Experiment) -> Lines:
    """Percent, whole; tasks in the order in which the first group learned them, the expert last."""
    rates = {group.label: final_rates(group) for group in experiment.groups}
    tasks = list(dict.fromkeys(task for group in experiment.groups for task in group.runs[0].tasks if task in rates[group.label]))
    lines = [["success at the end, %", *(escaped(short_name(task)) for task in tasks)]]
    lines += [[escaped(label), *(_whole(found.get(task)) for task in tasks)] for label, found in rates.items()]
    return [*lines, *([name, *(_whole(found.get(task)) for task in tasks)] for name, found in _experts(experiment))]


def _experts(experiment: Experiment) -> list[tuple[str, dict[str, float]]]:
    """How often the expert itself succeeds: one row, or one for all groups that were shown the same where they were shown different experts."""
    alike: list[tuple[list[str], dict[str, float]]] = []
    for group in experiment.groups:
        if not (rates := expert_rates(group)):
            continue
        labels, together = next((row for row in alike if all(row[1].get(task, rate) == rate for task, rate in rates.items())), ([], {}))
        if not labels:
            alike.append((labels, together))
        labels.append(escaped(group.label))
        together.update(rates)
    if len(alike) == 1:
        return [("the expert itself", alike[0][1])]
    return [(f"the expert of {_and_others(labels)}", rates) for labels, rates in alike]


def _and_others(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{labels[0]} and {len(labels) - 1} other{'s' if len(labels) > 2 else ''}"


def _paired(rows: Sequence[PairedRow]) -> Lines:
    further = measured_further(rows)
    lines = [["difference", "common seeds", "success at the end, points", "forgetting, points", *(f"{name}, points" for name in further)]]
    for row in rows:
        name = f"{escaped(row.label)} − {escaped(row.reference)}"
        figures = [row.success, row.forgetting, *(row.further[own] for own in further)]
        lines.append([name, str(len(row.seeds)), *map(_difference, figures)])
    return lines


def _orders(rows: Sequence[OrdersRow]) -> Lines:
    beside, threshold = next((row.reference for row in rows if row.reference), ""), max((row.threshold for row in rows), default=0)
    differences = [f"success − that of {escaped(beside)}, points", "forgetting − its, points", "no dip − its, points"] if beside else []
    heading = ["success at the end, %", "worst order, %", "best order, %", "forgetting, points", f"no dip at {threshold} %, % of cells", *differences]
    lines = [["method", "orders", "runs", *heading]]
    for row in rows:
        success = [_rate(row.success), wording.in_percent(row.lowest), wording.in_percent(row.highest)]
        kept = [_difference(row.forgetting), _rate(row.no_dip)]
        apart = [row.success_difference, row.forgetting_difference, row.no_dip_difference] if beside else []
        lines.append([escaped(row.label), str(len(row.orders)), str(sum(row.seeds)), *success, *kept, *map(_difference, apart)])
    return lines


def _recovery(rows: Sequence[RecoverySummary]) -> Lines:
    published = any(row.published for row in rows)
    heading = [
        "method", "back at", "pairs", "no dip, %", "dipped", "below before the switch", "below at the end", "never back, of those that dipped",
        "median updates, of those", "dip, points", "dip area", "median updates, of all pairs",
    ]  # fmt: skip
    lines = [[*heading, *(["published median, first time", "published never"] if published else [])]]
    for row in rows:
        left_out, fell = wording.left_out(row.unlearned, row.unmeasured), row.dipped
        name = escaped(row.label) + (f" ({left_out})" if left_out else "")
        ends = [f"{row.began_below:,}", f"{row.ended_below:,}"]
        dipped = [f"{fell.size:,} ({100 * fell.size / row.pairs:.1f} %)", *ends, f"{fell.never:,}", _within(median(fell), median_bounds(fell))]
        depth = [_number(100 * row.dip.mean), _number(row.dip_area.mean, ",.0f")]
        of_all = _within(wording.median_of_all(row.after_dip, fell.size), wording.bounds_of_all(row.after_dip, fell.size))
        found = [f"{row.threshold} %", f"{row.pairs:,}", _rate(row.steady), *dipped, *depth, of_all]
        lines.append([name, *found, *(_published_median(row.published) if published else [])])
    return lines


def _wins(rows: Sequence[WinsRow]) -> Lines:
    """Wins, ties and losses in one cell, as results of games are written."""
    lines = [["win – tie – loss", "back at", "seeds", "after the dip", "first time", "first time, published", "no dip, difference, points"]]
    for row in rows:
        counts = ["–".join(map(str, found)) if found else ABSENT for found in (row.after_dip, row.first, row.published)]
        name = f"{escaped(row.label)} against {escaped(row.reference)}"
        lines.append([name, f"{row.threshold} %", str(row.seeds), *counts, _difference(row.no_dip_difference)])
    return lines


def _plasticity(rows: Sequence[PlasticityRow]) -> Lines:
    heading = ["success just after learning", "seeds", "first third, %", "last third, %", "change, points", "common seeds", "beside single, points"]
    lines = [heading]
    for row in rows:
        figures = [_estimate(row.first), _estimate(row.last), _difference(row.change.interval)]
        lines.append([escaped(row.label), _seeds(row.seeds, row.change), *figures, str(row.common_seeds), _difference(row.beside_single)])
    return lines


def _costs(rows: Sequence[CostRow]) -> Lines:
    lines = [["method", "runs", "minutes a run", "bytes kept", "of past tasks' data", "FLOPs of one query", "of one update", "of a run"]]
    for row in rows:
        minutes = f"{_number(row.minutes)} ({_number(row.shortest)} to {_number(row.longest)})" if row.seeds > 1 else _number(row.minutes)
        kept = [ABSENT if math.isnan(count) else size(round(count)) for count in (row.kept_bytes, row.past_data_bytes)]
        lines.append([escaped(row.label), str(row.seeds), minutes, *kept, *map(flops, (row.query_flops, row.update_flops, row.run_flops))])
    return lines


def _seeds(count: int, found: Estimate) -> str:
    """How many there are, and that an interval is not over them."""
    return f"{count}" if found.over == "seeds" else f"{count}, over episodes"


def _estimate(found: Estimate) -> str:
    return _rate(found.interval)


def _rate(interval: Interval) -> str:
    return with_bounds(interval, lambda rate: _number(100 * rate), absent=ABSENT)


def _difference(interval: Interval) -> str:
    return with_bounds(interval, points, signed=True, absent=ABSENT)


def _number(value: float, form: str = ".1f") -> str:
    return ABSENT if math.isnan(value) else format(value, form)


def _whole(rate: float | None) -> str:
    return ABSENT if rate is None else _number(100 * rate, ".0f")


def _published(found: PublishedSuccess | None) -> list[str]:
    """Success and forgetting with their standard errors."""
    if found is None:
        return [ABSENT, ABSENT]
    return [f"{100 * found.success:.1f} ± {100 * found.success_se:.1f}", f"{points(found.forgetting)} ± {100 * found.forgetting_se:.1f}"]


def _within(found: str, bounds: str) -> str:
    return f"{found} (95 %: {bounds})" if bounds else found


def _published_median(found: PublishedSpread | None) -> list[str]:
    return [median(found.median), f"{found.median.never} of {found.median.size}"] if found else [ABSENT, ABSENT]
