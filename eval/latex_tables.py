"""The tables of an experiment in LaTeX, for \\input in a paper; they need the package booktabs.

    table1.tex      success at the end, just learned, forgetting, transfer per method with 95 % intervals and seeds; published values beside them
    recovery.tex    per method and threshold: cells without a dip and with one, never back, dip, median updates until a task is back

What an interval is over (seeds, or one seed's episodes) stands in the caption, as it does on the page. What is not like for like, which tasks
failed and what was left out stands above each table as comments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from reconverge.eval import wording
from reconverge.eval.experiment import Estimate, Experiment, MethodRow, caveats, measured_further
from reconverge.eval.intervals import Interval
from reconverge.eval.recovery_comparison import RecoverySummary
from reconverge.eval.survival import MedianUpdates
from reconverge.eval.wording import median, median_bounds, with_bounds

ABSENT = "--"
"""What was not measured."""
_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "\n": " ", "\r": " ", '"': r"\textquotedbl{}",
}  # fmt: skip


def latex_tables(experiment: Experiment) -> dict[str, str]:
    """File name -> text."""
    remarks = "".join(f"% {' '.join(sentence.split())}\n" for sentence in caveats(experiment))
    return {"table1.tex": remarks + _methods(experiment.methods), "recovery.tex": remarks + _recovery(experiment.recovery)}


def escaped(text: str) -> str:
    """Text that LaTeX sets as it is, whatever a method or a label is called."""
    return "".join(_ESCAPES.get(letter, letter) for letter in text)


def _methods(rows: Sequence[MethodRow]) -> str:
    """One row per method; the column of published values only where one of them has any."""
    published = any(row.published for row in rows)
    further = measured_further(rows)
    heading = ["Method", "Seeds", r"Success, \%", r"Just learned, \%", "Forgetting, points", *(f"{name.capitalize()}, points" for name in further)]
    heading += ["Published"] if published else []
    lines = [
        [
            escaped(row.label), f"{len(row.seeds)}{'' if row.success.over == 'seeds' else '$^{*}$'}",
            _estimate(row.success), _estimate(row.just_learned), _estimate(row.forgetting, signed=True),
            *(_estimate(row.further[name], signed=True) for name in further),
            *([_published(row)] if published else []),
        ]
        for row in rows
    ]  # fmt: skip
    single = any(row.success.over == "episodes" for row in rows)
    episodes = sorted({row.episodes for row in rows})
    counted = f"{episodes[0]:,}" if len(episodes) == 1 else f"{episodes[0]:,} to {episodes[-1]:,}" if episodes else "0"
    named = "".join(f", {name}" for name in further)
    caption = rf"Success at the end, success just after learning, forgetting{named}; {counted} episodes per method, "
    caption += r"95\,\% intervals over seeds (Student's t)."
    caption += r" $^{*}$One seed: the interval is over its episodes (binomial)." if single else ""
    caption += r" Published: success and forgetting with their standard errors." if published else ""
    return _table("lr" + "c" * (len(heading) - 2), heading, lines, caption, "tab:methods")


def _recovery(rows: Sequence[RecoverySummary]) -> str:
    """One row per method and threshold, with a rule between methods."""
    heading = ["Method", r"Back at, \%", "Cells", r"No dip, \%", "Dipped", "Never back", "Median updates", "Dip, points", "Median of all cells"]
    lines: list[list[str]] = []
    for before, row in zip([None, *rows], rows, strict=False):
        name = escaped(row.label) if before is None or before.label != row.label else ""
        left_out, fell = wording.left_out(row.unlearned, row.unmeasured, noun=""), row.dipped
        name += f" ({left_out})" if name and left_out else ""
        dipped = [rf"{fell.size:,} ({100 * fell.size / row.pairs:.1f}\,\%)", f"{fell.never:,}", _median(fell, median(fell), median_bounds(fell))]
        of_all = _median(row.after_dip, wording.median_of_all(row.after_dip, fell.size), wording.bounds_of_all(row.after_dip, fell.size))
        lines.append([name, str(row.threshold), f"{row.pairs:,}", _percent(row.steady), *dipped, _percent(row.dip), of_all])
    caption = (
        r"Recovery over all (earlier task, transition) cells $\times$ seeds, with 95\,\% intervals: the share without a dip below the threshold; "
        "how many dipped, how many of those never came back, and their Kaplan--Meier median of updates until a task is back, after the dip's bottom; "
        "the depth of the dip; and the same median of all cells, in which one without a dip counts the first point of the grid: where that is the "
        "case of at least half of them, the table says so. Intervals of medians are over cells, taken as independent; the others over seeds."
    )
    if any(row.unlearned for row in rows):
        caption += " Pairs whose earlier task had never been learned have nothing to recover; they are left out."
    if any(row.unmeasured for row in rows):
        caption += " Pairs that could not be measured, because a simulator failed, are left out."
    return _table("lrrcrrccc", heading, lines, caption, "tab:recovery", rule_before=lambda number: number > 0 and bool(lines[number][0]))


def _table(
    columns: str, heading: Sequence[str], lines: Iterable[Sequence[str]], caption: str, label: str,
    rule_before: Callable[[int], bool] = lambda number: False,
) -> str:  # fmt: skip
    body: list[str] = []
    for number, line in enumerate(lines):
        body += [r"\midrule"] if rule_before(number) else []
        body.append(f"{' & '.join(line)} \\\\")
    parts = [
        "% written by reconverge report; needs \\usepackage{booktabs}",
        r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", rf"\label{{{label}}}",
        rf"\begin{{tabular}}{{{columns}}}", r"\toprule", f"{' & '.join(heading)} \\\\", r"\midrule",
        *body, r"\bottomrule", r"\end{tabular}", r"\end{table}",
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def _estimate(found: Estimate, signed: bool = False) -> str:
    return _percent(found.interval, signed)


def _percent(interval: Interval, signed: bool = False) -> str:
    """Such as `92.1 (90.6 to 93.6)` of a rate with its bounds, cut to what it can be; the minus signs are those of mathematics."""
    return with_bounds(interval, lambda rate: _number(100 * rate, signed), signed, ABSENT)


def _number(value: float, signed: bool = False) -> str:
    text = f"{value:+.1f}" if signed else f"{value:.1f}"
    if text in ("+0.0", "-0.0"):
        return "0.0"
    return f"${text}$" if text[0] in "+-" else text


def _published(row: MethodRow) -> str:
    found = row.published
    if found is None:
        return ABSENT
    parts = ((found.success, found.success_se), (found.forgetting, found.forgetting_se))
    shown = [f"${100 * value:.1f} \\pm {100 * error:.1f}$" for value, error in parts if value is not None and error is not None]
    return ", ".join(shown) or ABSENT


def _median(found: MedianUpdates, words: str, bounds: str) -> str:
    if not found.size:
        return ABSENT
    return f"{words} ({bounds})" if bounds else words
