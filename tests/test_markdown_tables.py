"""The tables in Markdown: whole rows, the page's figures, and labels that stay within their cell."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_run import write_run

from reconverge.eval.experiment import Experiment, summarise
from reconverge.eval.experiment_tables import write_tables
from reconverge.eval.latex_tables import latex_tables
from reconverge.eval.markdown_tables import escaped, markdown_tables
from reconverge.eval.run_results import read_run
from reconverge.eval.wording import points

CELLS = re.compile(r"(?<!\\)\|")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("train.trust_region", "train.trust_region"), ("_a_", r"\_a\_"), ("a|b", r"a\|b"), ("x\ny", "x y"), ("<b>[1]*`", r"\<b\>\[1\]\*\`")],
)
def test_whatever_a_label_holds_is_shown_as_it_is(text: str, expected: str) -> None:
    assert escaped(text) == expected


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    found = [write_run(tmp_path / f"{method}-{seed}", method=method, seed=seed) for method in ("replay", "my|method") for seed in (0, 1)]
    return summarise([read_run(folder) for folder in [*found, write_run(tmp_path / "finetune", method="finetune")]])


def tables_of(text: str) -> dict[str, list[list[str]]]:
    """Heading -> rows of cells, the rule left out."""
    parts = re.split(r"^## (.+)\n\n", text, flags=re.MULTILINE)[1:]
    rows = [[[cell.strip() for cell in CELLS.split(line)[1:-1]] for line in body.splitlines() if line.startswith("| ")] for body in parts[1::2]]
    return {name: [row for row in table if row[0] != "---"] for name, table in zip(parts[::2], rows, strict=True)}


def test_every_table_is_there_with_whole_rows(experiment: Experiment) -> None:
    tables = tables_of(markdown_tables(experiment))
    assert list(tables) == ["Success", "Tasks", "Differences", "Recovery", "Wins", "Just learned", "Cost"]
    assert all(len({len(row) for row in table}) == 1 for table in tables.values())


def test_the_figures_are_those_of_the_experiment_with_seeds_and_intervals(experiment: Experiment) -> None:
    tables = tables_of(markdown_tables(experiment))
    assert [row[:2] for row in tables["Success"][1:]] == [["replay", "2"], [r"my\|method", "2"], ["finetune", "1, over episodes"]]
    for row, method in zip(tables["Success"][1:], experiment.methods, strict=True):
        found = method.success.interval
        assert row[3] == f"{100 * found.mean:.1f} ({max(0, 100 * found.low):.1f} to {min(100, 100 * found.high):.1f})"
    assert [row[0] for row in tables["Differences"][1:]] == [r"my\|method − replay", "finetune − replay"]
    for row, found_back in zip(tables["Recovery"][1:], experiment.recovery, strict=True):
        assert row[1:3] == [f"{found_back.threshold} %", str(found_back.pairs)] and row[4] == str(found_back.after_dip.never)
        assert [float(cell.replace(",", "")) for cell in row[5:7]] == [round(100 * found_back.dip.mean, 1), round(found_back.dip_area.mean)]
    for row, won in zip(tables["Wins"][1:], experiment.wins, strict=True):
        assert row[3:5] == ["–".join(map(str, won.after_dip)), "–".join(map(str, won.first))]
        assert row[-1].split()[0] == points(won.no_dip_difference.mean)


def test_different_experts_have_a_row_each(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, method=name) for name in ("replay", "finetune")]
    runs = [read_run(folder) for folder in folders]
    assert [row[0] for row in tables_of(markdown_tables(summarise(runs)))["Tasks"]][-1] == "the expert itself"
    runs[1] = replace(runs[1], ceilings=tuple(replace(ceiling, rate=0.5) for ceiling in runs[1].ceilings))
    experts = tables_of(markdown_tables(summarise(runs)))["Tasks"][-2:]
    assert [row[0] for row in experts] == ["the expert of replay", "the expert of finetune"] and set(experts[1][1:]) == {"50"}


def test_pairs_that_were_never_learned_are_counted_apart(experiment: Experiment) -> None:
    summaries = tuple(replace(row, unlearned=3) if row.label == "finetune" else row for row in experiment.recovery)
    changed = replace(experiment, recovery=summaries)
    named = {row[0] for row in tables_of(markdown_tables(changed))["Recovery"][1:]}
    assert named == {"replay", r"my\|method", "finetune (3 pairs never learned)"}
    text = latex_tables(changed)["recovery.tex"]
    assert "finetune (3 never learned)" in text and "nothing to recover" in text
    assert "nothing to recover" not in latex_tables(experiment)["recovery.tex"]


def test_the_report_writes_them_beside_the_csv(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", method="finetune")
    folder = tmp_path / "tables"
    assert folder / "tables.md" in write_tables([run], folder)
    assert "Differences" not in tables_of((folder / "tables.md").read_text())
