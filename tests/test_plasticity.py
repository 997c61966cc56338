"""Just-learned success over the stages: the module's example through real files, and what is left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from csv_rows import rows_of
from synthetic_run import write_csv, write_run

from reconverge.eval import plasticity
from reconverge.eval.experiment import summarise
from reconverge.eval.experiment_tables import write_tables
from reconverge.eval.intervals import wilson
from reconverge.eval.plasticity import change, first_third, just_learned_rates, last_third, plasticity_row
from reconverge.eval.report import write_report
from reconverge.eval.run_groups import RunGroup
from reconverge.eval.run_results import RunResults, read_run

TASKS = tuple(f"point-reach-{number}" for number in range(6))
OWN, SINGLE = (18, 16, 16, 14, 12, 12), (18, 18, 16, 16, 16, 18)  # of 20: the module's example


def learned_run(folder: Path, method: str, counts: Sequence[int | None], seed: int = 0, tasks: Sequence[str] = TASKS) -> RunResults:
    """A run whose tasks succeed in `counts` of 20 episodes just after each was learned, and in none at the end of any other stage."""
    write_run(folder, tasks, method, seed)
    cells = [(stage, task, count) for stage, (task, count) in enumerate(zip(tasks, counts, strict=False), start=1) if count is not None]
    rows = [(stage, task, 20, count, count / 20, *wilson(count, 20)) for stage, task, count in cells]
    write_csv(folder / "success_matrix.csv", "stage,task,episodes,successes,rate,wilson_low,wilson_high", rows)
    return read_run(folder)


def test_the_example_of_the_modules_first_lines(tmp_path: Path) -> None:
    own, single = learned_run(tmp_path / "own", "replay", OWN), learned_run(tmp_path / "single", "single", SINGLE)
    assert just_learned_rates(own) == pytest.approx([0.9, 0.8, 0.8, 0.7, 0.6, 0.6])
    assert (first_third(own).mean, last_third(own).mean) == pytest.approx((0.85, 0.6))
    assert (change(own).mean, change(single).mean) == pytest.approx((-0.25, -0.05))
    row = plasticity_row(RunGroup("replay", "replay", (own,)), RunGroup("single", "single", (single,)))
    assert row is not None and row.beside_single.mean == pytest.approx(-0.7 / 6)
    assert row.change.over == "episodes" and row.change.interval.low < -0.25 < row.change.interval.high


def test_over_seeds_each_seed_is_beside_its_own_single(tmp_path: Path) -> None:
    own = [learned_run(tmp_path / f"own-{seed}", "replay", counts, seed) for seed, counts in enumerate((OWN, (20,) * 6, (10,) * 6))]
    alone = [learned_run(tmp_path / f"single-{seed}", "single", (18,) * 6, seed) for seed in (1, 2)]
    row = plasticity_row(RunGroup("replay", "replay", tuple(own)), RunGroup("single", "single", tuple(alone)))
    assert row is not None and row.seeds == 3 and row.stages[0] == pytest.approx((0.9 + 1.0 + 0.5) / 3)
    assert row.beside_single.mean == pytest.approx((0.1 - 0.4) / 2) and row.common_seeds == 2
    assert row.change.over == "seeds" and row.change.interval.mean == pytest.approx(-0.25 / 3)


def test_the_thirds_never_overlap(tmp_path: Path) -> None:
    for count in range(1, 7):
        run = read_run(write_run(tmp_path / str(count), TASKS[:count]))
        first, last = plasticity.thirds(run)
        assert not set(first) & set(last) and len(first) == len(last) == (0 if count == 1 else max(1, count // 3))
    assert math.isnan(change(read_run(tmp_path / "1")).mean)


def test_what_was_not_learned_yet_or_not_measured_is_left_out(tmp_path: Path) -> None:
    half = learned_run(tmp_path / "half", "replay", OWN[:3])
    assert first_third(half).mean == pytest.approx(0.85) and math.isnan(last_third(half).mean) and math.isnan(change(half).mean)
    lacking = learned_run(tmp_path / "lacking", "replay", (18, None, 16, 14, None, 12))
    assert change(lacking).mean == pytest.approx(0.6 - 0.9) and np.isnan(just_learned_rates(lacking)).sum() == 2


def test_a_task_that_comes_back_is_no_new_one(tmp_path: Path) -> None:
    """Both come back, one of them worse than it was and one better: how well new tasks are learned does not depend on it."""
    counts, tasks = (18, 16, 2, 20), (TASKS[0], TASKS[1], TASKS[0], TASKS[1])
    run, alone = (learned_run(tmp_path / method, method, counts, tasks=tasks) for method, counts in (("replay", counts), ("single", (18,) * 4)))
    assert just_learned_rates(run) == pytest.approx([0.9, 0.8]) and change(run).mean == pytest.approx(-0.1)
    row = plasticity_row(RunGroup("replay", "replay", (run,)), RunGroup("single", "single", (alone,)))
    assert row is not None and row.stages == pytest.approx((0.9, 0.8)) and row.beside_single.mean == pytest.approx(-0.05)


def test_joint_learns_nothing_after_anything_else(tmp_path: Path) -> None:
    joint = learned_run(tmp_path / "joint", "joint", OWN)
    assert math.isnan(change(joint).mean) and plasticity_row(RunGroup("joint", "joint", (joint,)), None) is None


def test_tables_and_page_have_it(tmp_path: Path) -> None:
    learned_run(tmp_path / "own", "replay", OWN), learned_run(tmp_path / "single", "single", SINGLE)
    folders = [tmp_path / "own", tmp_path / "single"]
    write_tables(folders, tmp_path / "tables")
    own, single = rows_of(tmp_path / "tables" / "plasticity.csv")
    assert (own["change"], own["beside_single"], own["task_6"]) == ("-0.25", "-0.116667", "0.6") and single["beside_single"] == ""
    assert (own["common_seeds"], single["common_seeds"]) == ("1", "0")
    written = (tmp_path / "tables" / "tables.md").read_text()
    assert "| replay | 1, over episodes | 85.0" in written and "| 1 | −11.7 |" in written and "| 0 | – |" in written
    assert (tmp_path / "tables" / "plasticity.png").read_bytes().startswith(b"\x89PNG")
    page = write_report(folders, tmp_path / "page.html").read_text()
    assert "Learning new tasks" in page and "Single learns every task from scratch." in page and "−25.0" in page and ">nan" not in page
    assert summarise([read_run(folder) for folder in folders]).plasticity[0].label == "replay"
