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
from reconverge.eval.wording import median, median_of_all, points

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
    assert list(tables) == ["Summary", "Success", "Transfer", "Tasks", "Differences", "Recovery", "Wins", "Just learned", "Cost"]
    assert all(len({len(row) for row in table}) == 1 for table in tables.values())


def test_the_summary_has_the_best_method_first_and_its_figures_from_the_other_tables(experiment: Experiment) -> None:
    tables = tables_of(markdown_tables(experiment))
    assert tables["Summary"][0][2:] == ["forgetting, points", "never below 99 %, % of pairs", "below it at the stage's end, % of pairs", "seeds"]
    means = [float(row[1].partition(" ")[0]) for row in tables["Summary"][1:]]
    assert means == sorted(means, reverse=True) and len(means) == 3
    beside = {row[0]: row for row in tables["Success"][1:]}
    strictest = {row[0]: row for row in tables["Recovery"][1:] if row[1] == "99 %"}
    for method, success, forgetting, steady, below, seeds in tables["Summary"][1:]:
        assert [seeds, success, forgetting] == [beside[method][1], beside[method][3], beside[method][6].partition(" ")[0]]
        assert [steady, below] == [strictest[method][3].partition(" ")[0], f"{100 * int(strictest[method][6]) / int(strictest[method][2]):.1f}"]


def test_the_figures_are_those_of_the_experiment_with_seeds_and_intervals(experiment: Experiment) -> None:
    tables = tables_of(markdown_tables(experiment))
    assert [row[:2] for row in tables["Success"][1:]] == [["replay", "2"], [r"my\|method", "2"], ["finetune", "1, over episodes"]]
    for row, method in zip(tables["Success"][1:], experiment.methods, strict=True):
        found = method.success.interval
        assert row[3] == f"{100 * found.mean:.1f} ({max(0, 100 * found.low):.1f} to {min(100, 100 * found.high):.1f})"
    assert [row[0] for row in tables["Differences"][1:]] == [r"my\|method − replay", "finetune − replay"]
    for row, found_back in zip(tables["Recovery"][1:], experiment.recovery, strict=True):
        fell = found_back.dipped
        assert row[1:3] == [f"{found_back.threshold} %", str(found_back.pairs)]
        assert row[4] == f"{fell.size} ({100 * fell.size / found_back.pairs:.1f} %)"
        assert row[5:8] == [str(found_back.began_below), str(found_back.ended_below), str(fell.never)]
        assert row[8].startswith(median(fell)) and row[11].startswith(median_of_all(found_back.after_dip, fell.size))
        assert [float(cell.replace(",", "")) for cell in row[9:11]] == [round(100 * found_back.dip.mean, 1), round(found_back.dip_area.mean)]
    for row, won in zip(tables["Wins"][1:], experiment.wins, strict=True):
        assert row[3:5] == ["–".join(map(str, won.after_dip)), "–".join(map(str, won.first))]
        assert row[-1].split()[0] == points(won.no_dip_difference.mean)


def test_different_experts_have_a_row_each(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, method=name) for name in ("replay", "finetune", "ewc")]
    runs = [read_run(folder) for folder in folders]
    assert [row[0] for row in tables_of(markdown_tables(summarise(runs)))["Tasks"]][-1] == "the expert itself"
    runs[1] = replace(runs[1], ceilings=tuple(replace(ceiling, rate=0.5) for ceiling in runs[1].ceilings))
    experts = tables_of(markdown_tables(summarise(runs)))["Tasks"][-2:]
    assert [row[0] for row in experts] == ["the expert of replay and 1 other", "the expert of finetune"] and set(experts[1][1:]) == {"50"}


def test_pairs_that_were_never_learned_are_counted_apart(experiment: Experiment) -> None:
    counted = {"finetune": {"unlearned": 3}, "replay": {"unlearned": 1, "unmeasured": 2}}
    summaries = tuple(replace(row, **counted.get(row.label, {})) for row in experiment.recovery)
    changed = replace(experiment, recovery=summaries)
    named = {row[0] for row in tables_of(markdown_tables(changed))["Recovery"][1:]}
    assert named == {"replay (1 pairs never learned, 2 pairs not measured)", r"my\|method", "finetune (3 pairs never learned)"}
    text = latex_tables(changed)["recovery.tex"]
    assert "finetune (3 never learned)" in text and "nothing to recover" in text
    assert "replay (1 never learned, 2 not measured)" in text and "could not be measured" in text
    assert "nothing to recover" not in latex_tables(experiment)["recovery.tex"]


def test_what_failed_and_what_is_not_like_for_like_is_said_below_the_tables_and_above_those_in_latex(experiment: Experiment) -> None:
    assert "Notes" not in tables_of(markdown_tables(experiment)) and latex_tables(experiment)["table1.tex"].startswith("% written by")
    changed = replace(experiment, warnings=("progress",), failures=("my|method, seed 0: task 'a' FAILED:\nit fell",), notes=("One was left out.",))
    *_, notes = markdown_tables(changed).partition("## Notes\n\n")
    assert notes.splitlines() == [
        "* Not like for like: these runs differ in progress.",
        "* Left out of all figures: my\\|method, seed 0: task 'a' FAILED: it fell",
        "* One was left out.",
    ]
    for text in latex_tables(changed).values():
        assert "% Left out of all figures: my|method, seed 0: task 'a' FAILED: it fell\n" in text and "% One was left out.\n" in text


def test_the_report_writes_them_beside_the_csv(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", method="finetune")
    folder = tmp_path / "tables"
    assert folder / "tables.md" in write_tables([run], folder)
    assert "Differences" not in tables_of((folder / "tables.md").read_text())
