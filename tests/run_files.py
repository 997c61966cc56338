"""The tables of a run, and in which of them two runs differ."""

from __future__ import annotations

from pathlib import Path

TABLES = ("episodes.csv", "success_matrix.csv", "recovery_curves.csv", "recovery.csv", "ledger.csv", "fisher.csv", "metrics.jsonl", "ceilings.csv")
"""Of every run with a Fisher matrix; how long it took is in none of them."""


def differing_tables(a: Path, b: Path) -> list[str]:
    """The tables whose bytes are not the same in two runs, of those that either has."""
    compared = [name for name in (*TABLES, "failures.csv") if (a / name).exists() or (b / name).exists()]
    assert {"episodes.csv", "success_matrix.csv", "recovery.csv", "ledger.csv"} <= set(compared)
    return [name for name in compared if (a / name).read_bytes() != (b / name).read_bytes()]
