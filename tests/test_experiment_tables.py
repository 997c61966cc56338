"""The files of an experiment: which there are, what stands in them, and that they are the same every time."""

from __future__ import annotations

from pathlib import Path

import pytest
from csv_rows import rows_of
from edited_run import keep_lines
from hand_run import A, B, C, hand_run
from synthetic_run import write_run

from reconverge.envs.curriculum import CW10
from reconverge.eval.experiment_tables import csv_text, write_tables


def test_success_task_by_task_and_stage_by_stage(tmp_path: Path) -> None:
    """Of 8, then 8 and 9, then 6 or 8, 9, 10 of ten each; a task that one seed did not measure rests on the other, and so do means over tasks."""
    folders = [hand_run(tmp_path / str(seed), "replay", seed, final).folder for seed, final in ((0, (6, 9, 10)), (1, (8, 9, 10)))]
    keep_lines(folders[1] / "success_matrix.csv", lambda line: not line.startswith(f"3,{B},"))
    write_tables(folders, tmp_path / "tables")
    tasks, stages = (rows_of(tmp_path / "tables" / f"{name}.csv") for name in ("tasks", "stages"))
    assert [(row["task"], row["seeds"], float(row["success"])) for row in tasks] == [(A, "2", 0.7), (B, "1", 0.9), (C, "2", 1.0)]
    assert tasks[0]["expert"] == f"{118 / 120:.6g}" and tasks[0]["interval_over"] == "seeds"
    assert [(row["stage"], row["new_task"]) for row in stages] == [("1", A), ("2", B), ("3", C)]
    assert [float(row["average_success"]) for row in stages] == pytest.approx([0.8, 0.85, 25 / 30], abs=1e-6)
    assert [row["seeds"] for row in stages] == ["2", "2", "1"] and stages[2]["interval_over"] == "episodes"
    (first,) = rows_of(tmp_path / "tables" / "table1.csv")
    assert (first["seeds"], first["episodes"], float(first["success"])) == ("1", "30", pytest.approx(25 / 30, abs=1e-6))
    assert "left out of the means over tasks: replay, seed 1." in (tmp_path / "tables" / "tables.md").read_text()


def test_tables_and_figures_are_files(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"{method}-{seed}", CW10, method, seed) for method in ("replay", "trust-region") for seed in (0, 1)]
    write_tables(folders, tmp_path / "tables")
    names = {path.name for path in (tmp_path / "tables").iterdir()}
    tables = {f"{name}.csv" for name in ("table1", "tasks", "stages", "paired", "plasticity", "recovery_summary", "recovery_cells", "wins", "cost")}
    recovery = ("recovery-replay", "recovery-trust-region")
    figures = {f"{name}.{kind}" for name in ("methods", "stages", "tasks", "plasticity", *recovery) for kind in ("png", "svg")}
    assert names == tables | figures | {"table1.tex", "recovery.tex", "tables.md"}
    (tmp_path / "tables" / "recovery-notes.txt").write_text("mine")
    (tmp_path / "tables" / "recovery-1.png").write_bytes(b"of an earlier version")
    write_tables(folders[:2], tmp_path / "tables")  # of one method: what the other one had is gone, what is not ours stays
    gone = {"recovery-trust-region.png", "recovery-trust-region.svg"}
    assert {path.name for path in (tmp_path / "tables").iterdir()} == names - gone | {"recovery-notes.txt"}
    write_tables([write_run(tmp_path / "joint", CW10, "joint", 0)], tmp_path / "tables")  # which has no stages to be plastic in
    assert {"plasticity.png", "plasticity.svg"}.isdisjoint(path.name for path in (tmp_path / "tables").iterdir())
    write_tables(folders, tmp_path / "tables")
    first = rows_of(tmp_path / "tables" / "table1.csv")
    assert [row["method"] for row in first] == ["replay", "trust-region"]
    assert first[1]["published_success"] == "0.883" and first[0]["interval_over"] == "seeds"
    assert len(rows_of(tmp_path / "tables" / "recovery_cells.csv")) == 2 * 3 * 45
    published = [row for row in rows_of(tmp_path / "tables" / "wins.csv") if row["count"] == "published" and row["threshold"] == "99"]
    assert [(row["wins"], row["ties"], row["losses"]) for row in published] == [("16", "15", "14")]


def test_the_same_runs_give_the_same_files(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / method, method=method) for method in ("replay", "ewc")]
    one, two = (write_tables(folders, tmp_path / name) for name in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_rows_of_a_table_have_the_same_columns() -> None:
    """As of two groups with other numbers of tasks."""
    assert csv_text([{"a": 1, "task_1": 0.5}, {"a": 2, "task_1": 0.25, "task_2": 1.0}]) == "a,task_1,task_2\n1,0.5,\n2,0.25,1\n"


def test_csv_leaves_out_what_is_not_there() -> None:
    assert csv_text([{"a": float("nan"), "b": None, "c": 0.1234567}, {"a": 1, "b": "x, y", "c": 2.0}]) == 'a,b,c\n,,0.123457\n1,"x, y",2\n'
    assert csv_text([]) == ""
