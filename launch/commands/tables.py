"""Tables in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

Columns = Mapping[str, str | Callable[[Mapping[str, Any]], str]]
WIDEST_TABLE = 1000
"""Characters: more than any row has, so that the terminal breaks a long one and nothing is cut off."""


class _Plain(Console):
    """A console whose reader may go away like that of any other output: rich itself would end the process as if it had failed."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def print_table(rows: Iterable[Mapping[str, Any]], columns: Columns, left: Collection[str] = ("task",)) -> None:
    """Print rows under headings; a column is a key of the row or a function of it, and stands to the right unless its key is in `left`."""
    table = Table(box=None, pad_edge=False)
    for heading, column in columns.items():
        table.add_column(heading, justify="left" if column in left else "right", no_wrap=True, vertical="bottom")
    for row in rows:
        table.add_row(*(str(row[column]) if isinstance(column, str) else column(row) for column in columns.values()))
    _Plain(highlight=False, soft_wrap=True, width=WIDEST_TABLE).print(table)


def success_percent(row: Mapping[str, Any]) -> str:
    """Rate of valid episodes; a task whose simulator failed has none."""
    return f"{100 * row['rate']:.0f}" if row["episodes"] else "failed"


def with_interval(mean: float, low: float, high: float, unit: str = "%") -> str:
    """Such as `98.2 % (97.1 to 98.9)`, from fractions."""
    return f"{100 * mean:.1f} {unit} ({100 * low:.1f} to {100 * high:.1f})"


def expert_percent(row: Mapping[str, Any]) -> str:
    return "-" if row.get("expert") is None else f"{100 * row['expert']:.0f}"


def interval_percent(row: Mapping[str, Any]) -> str:
    return "-" if not row["episodes"] else f"{100 * row['wilson_low']:.0f} to {100 * row['wilson_high']:.0f}"
