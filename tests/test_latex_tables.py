"""The tables for LaTeX: escapes, columns, and the same figures as on the page."""

from __future__ import annotations

import re
import xml.etree.ElementTree
from pathlib import Path

import pytest
from synthetic_run import write_run

from reconverge.eval.experiment import summarise
from reconverge.eval.experiment_tables import write_tables
from reconverge.eval.latex_tables import escaped, latex_tables
from reconverge.eval.run_results import read_run

SPECIAL = re.compile(r"(?<!\\)[&%$#_{}~^<>|]")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a_b", r"a\_b"), ("50 %", r"50 \%"), ("\\input{x}", r"\textbackslash{}input\{x\}"), ("a^b~", r"a\textasciicircum{}b\textasciitilde{}")],
)
def test_whatever_a_label_holds_is_set_as_it_is(text: str, expected: str) -> None:
    assert escaped(text) == expected


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    found = [write_run(tmp_path / f"{method}-{seed}", method=method, seed=seed) for method in ("replay", "my_method&co") for seed in (0, 1)]
    return [*found, write_run(tmp_path / "finetune", method="finetune")]


def rows_of(text: str) -> list[list[str]]:
    """Cells of every row that ends with a double backslash."""
    return [re.split(r"(?<!\\) & ", line.removesuffix(r" \\")) for line in text.splitlines() if line.endswith(r"\\")]


def test_rows_have_as_many_cells_as_there_are_columns(folders: list[Path]) -> None:
    for text in latex_tables(summarise([read_run(folder) for folder in folders])).values():
        columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)
        assert columns is not None
        assert {len(row) for row in rows_of(text)} == {len(columns[1])}
        assert text.count("{") == text.count("}") and text.count("$") % 2 == 0
        assert [text.count(rule) for rule in (r"\toprule", r"\bottomrule", r"\begin{table}", r"\end{table}")] == [1, 1, 1, 1]


def test_the_figures_are_those_of_the_experiment_with_seeds_and_intervals(folders: list[Path]) -> None:
    experiment = summarise([read_run(folder) for folder in folders])
    tables = latex_tables(experiment)
    heading, *rows = rows_of(tables["table1.tex"])
    assert heading[:2] == ["Method", "Seeds"]
    assert [row[0] for row in rows] == ["replay", r"my\_method\&co", "finetune"]
    assert [row[1] for row in rows] == ["2", "2", "1$^{*}$"] and "over its episodes" in tables["table1.tex"]
    for row, method in zip(rows, experiment.methods, strict=True):
        found = method.success.interval
        assert row[2].startswith(f"{100 * found.mean:.1f} (") and row[2].endswith(f"to {min(100, 100 * found.high):.1f})")
    assert all(not SPECIAL.search(row[0].replace("{}", "")) for row in rows)
    recovery = rows_of(tables["recovery.tex"])[1:]
    assert [row[0] for row in recovery if row[0]] == ["replay", r"my\_method\&co", "finetune"]
    assert len(recovery) == len(experiment.recovery)


def test_the_report_writes_them_beside_the_csv_and_every_figure_twice(folders: list[Path], tmp_path: Path) -> None:
    written = {path.name for path in write_tables(folders, tmp_path / "tables")}
    assert {"table1.csv", "table1.tex", "recovery.tex"} <= written
    figures = {name.removesuffix(".png") for name in written if name.endswith(".png")}
    assert figures and {f"{name}.svg" for name in figures} <= written
    for name in figures:
        assert xml.etree.ElementTree.parse(tmp_path / "tables" / f"{name}.svg").getroot().tag.endswith("svg")
