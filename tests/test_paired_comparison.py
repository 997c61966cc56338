"""Differences between two groups are over seeds that both have, of the same tasks and stages."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from hand_run import B, hand_run
from synthetic_run import POINT_REACH, write_run

from reconverge.eval.experiment import summarise
from reconverge.eval.paired_comparison import paired_row
from reconverge.eval.recovery_comparison import compare_recovery
from reconverge.eval.report import write_report
from reconverge.eval.run_groups import RunGroup, group_runs
from reconverge.eval.run_results import FailureRow, read_run


def test_pairs_share_seeds(tmp_path: Path) -> None:
    replay = RunGroup("replay", "replay", tuple(hand_run(tmp_path / f"r{seed}", "replay", seed, (6, 9, 10)) for seed in (0, 1)))
    finetune = RunGroup("finetune", "finetune", tuple(hand_run(tmp_path / f"f{seed}", "finetune", seed, (0, 3, 10)) for seed in (1, 2)))
    row = paired_row(finetune, replay)
    assert row is not None and row.seeds == (1,)
    assert row.success.mean == pytest.approx((13 - 25) / 30) and row.forgetting.mean == pytest.approx(12 / 30)
    assert row.further["backward transfer"].mean == pytest.approx(-12 / 20) and row.further["peak forgetting"].mean == pytest.approx(12 / 20)
    assert math.isnan(row.success.low)


def test_other_stages_are_not_compared(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / "replay", method="replay"), write_run(tmp_path / "ewc", POINT_REACH[::-1], "ewc")]
    groups = group_runs([read_run(folder) for folder in folders])
    assert paired_row(groups[1], groups[0]) is None and compare_recovery(groups[1], groups[0], published=False) == []
    experiment = summarise([read_run(folder) for folder in folders])
    assert experiment.paired == experiment.wins == ()
    assert "Other stages than those of replay, so not compared with it: ewc." in experiment.notes
    page = write_report(folders, tmp_path / "page.html").read_text()
    assert "not compared with it: ewc" in page and "No other method learned the same stages" in page


def test_pairs_are_of_the_same_tasks_and_stages(tmp_path: Path) -> None:
    """Without the cell of its worst task a method must not seem better; nor one that has not got as far."""
    reference = RunGroup("replay", "replay", tuple(hand_run(tmp_path / f"r{seed}", "replay", seed, (8, 2 + seed, 10)) for seed in (0, 1)))
    runs = tuple(hand_run(tmp_path / f"e{seed}", "ewc", seed, (8, 2 + seed, 9 - seed)) for seed in (0, 1))
    (row,) = [paired_row(RunGroup("ewc", "ewc", runs), reference)]
    assert row is not None and row.success.mean == pytest.approx(-0.5 / 10) and row.forgetting.mean == pytest.approx(0.0)

    matrix = runs[1].folder / "success_matrix.csv"
    matrix.write_text("".join(line for line in matrix.read_text().splitlines(True) if not line.startswith(f"3,{B},")))
    lacking = paired_row(RunGroup("ewc", "ewc", (runs[0], read_run(runs[1].folder))), reference)
    assert lacking is not None and lacking.success.mean == pytest.approx((-0.1 / 3 + -0.2 / 2) / 2)

    matrix.write_text("".join(line for line in matrix.read_text().splitlines(True) if not line.startswith("3,")))
    behind = paired_row(RunGroup("ewc", "ewc", (runs[0], read_run(runs[1].folder))), reference)
    assert behind is not None and behind.seeds == (0,)
    experiment = summarise([*reference.runs[:1], read_run(runs[1].folder)])
    assert any("Not finished" in note for note in experiment.notes)


def test_a_pair_that_measured_nothing_at_the_end_is_none(tmp_path: Path) -> None:
    sure, other = (hand_run(tmp_path / f"e{seed}", "ewc", seed, (7, 9, 10)) for seed in (0, 1))
    reference = tuple(hand_run(tmp_path / f"r{seed}", "replay", seed, (8, 9, 10)) for seed in (0, 1))
    failures = tuple(FailureRow(3, "matrix", 50, task, 1, 3, "it hangs") for task in other.tasks)
    lacking = dataclasses.replace(other, cells=tuple(cell for cell in other.cells if cell.stage < 3), failures=failures)
    row = paired_row(RunGroup("ewc", "ewc", (sure, lacking)), RunGroup("replay", "replay", reference))
    assert row is not None and row.seeds == (0,) and row.success.size == 1
