"""The tables of an experiment in LaTeX, for \\input in a paper; they need the package booktabs.

    table1.tex      success at the end, just learned, forgetting per method with 95 % intervals and numbers of seeds; published values beside them
    recovery.tex    per method and threshold: cells without a dip, never back, dip, median updates until a task is back

What an interval is over (seeds, or one seed's episodes) stands in the caption, as it does on the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from reconverge.eval.experiment import Estimate, Experiment, MethodRow
from reconverge.eval.intervals import Interval
from reconverge.eval.recovery_comparison import RecoverySummary
from reconverge.eval.survival import MedianUpdates
from reconverge.eval.wording import with_bounds

ABSENT = "--"
"""What was not measured."""
_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "\n": " ", "\r": " ", '"': r"\textquotedbl{}",
}  # fmt: skip


def latex_tables(experiment: Experiment) -> dict[str, str]:
    """File name -> text."""
    return {"table1.tex": _methods(experiment.methods), "recovery.tex": _recovery(experiment.recovery)}


def escaped(text: str) -> str:
    """Text that LaTeX sets as it is, whatever a method or a label is called."""
    return "".join(_ESCAPES.get(letter, letter) for letter in text)


def _methods(rows: Sequence[MethodRow]) -> str:
    """One row per method; the column of published values only where one of them has any."""
    published = any(row.published for row in rows)
    heading = ["Method", "Seeds", r"Success, \%", r"Just learned, \%", "Forgetting, points", *(["Published"] if published else [])]
    lines = [
        [
            escaped(row.label), f"{len(row.seeds)}{'' if row.success.over == 'seeds' else '$^{*}$'}",
            _estimate(row.success), _estimate(row.just_learned), _estimate(row.forgetting, signed=True),
            *([_published(row)] if published else []),
        ]
        for row in rows
    ]  # fmt: skip
    single = any(row.success.over == "episodes" for row in rows)
    episodes = sorted({row.episodes for row in rows})
    counted = f"{episodes[0]:,}" if len(episodes) == 1 else f"{episodes[0]:,} to {episodes[-1]:,}" if episodes else "0"
    caption = rf"Success at the end, just after learning, and forgetting; {counted} episodes per method, 95\,\% intervals over seeds (Student's t)."
    caption += r" $^{*}$One seed: the interval is over its episodes (binomial)." if single else ""
    caption += r" Published: success and forgetting with their standard errors." if published else ""
    return _table("lr" + "c" * (len(heading) - 2), heading, lines, caption, "tab:methods")


def _recovery(rows: Sequence[RecoverySummary]) -> str:
    """One row per method and threshold, with a rule between methods."""
    heading = ["Method", r"Back at, \%", "Cells", r"No dip, \%", "Never back", "Dip, points", "Median updates"]
    lines: list[list[str]] = []
    for before, row in zip([None, *rows], rows, strict=False):
        name = escaped(row.label) if before is None or before.label != row.label else ""
        name += rf" ({row.unlearned:,} never learned)" if name and row.unlearned else ""
        lines.append([
            name, str(row.threshold), f"{row.pairs:,}", _percent(row.steady), f"{row.after_dip.never:,}", _percent(row.dip), _median(row.after_dip),
        ])  # fmt: skip
    caption = (
        r"Recovery over all (earlier task, transition) cells $\times$ seeds, with 95\,\% intervals: the share without a dip below the threshold, "
        "how many never came back, the depth of the dip, and the Kaplan--Meier median of updates until a task is back, after the dip's bottom."
    )
    if any(row.unlearned for row in rows):
        caption += " Pairs whose earlier task had never been learned have nothing to recover; they are left out."
    return _table("lrrcrcc", heading, lines, caption, "tab:recovery", rule_before=lambda number: number > 0 and bool(lines[number][0]))


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


def _median(found: MedianUpdates) -> str:
    if not found.size:
        return ABSENT
    if found.median is None:
        return f"never within {found.last:,}"
    low = "?" if found.low is None else f"{found.low:,.0f}"
    high = "never" if found.high is None else f"{found.high:,.0f}"
    return f"{found.median:,.0f} ({low} to {high})"
