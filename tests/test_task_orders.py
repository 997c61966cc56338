"""A method over several orders of the same tasks: an order counts once, differences are taken within orders."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from csv_rows import rows_of
from edited_run import keep_lines
from synthetic_run import POINT_REACH, UPDATES, write_csv, write_run

from reconverge.eval.experiment import summarise
from reconverge.eval.experiment_tables import write_tables
from reconverge.eval.intervals import mean_interval, wilson
from reconverge.eval.report import write_report
from reconverge.eval.run_results import read_run

A, B, C = POINT_REACH
LEFT = {  # (method, order, seed) -> successes of ten at the end, task by task; ten just after each was learned
    ("replay", "forth", 0): (10, 10, 10), ("replay", "forth", 1): (10, 9, 8),     # 30 and 27 of 30, together 57 of 60
    ("replay", "back", 0): (7, 10, 10), ("replay", "back", 1): (8, 8, 8),         # 27 and 24: 51 of 60
    ("ewc", "forth", 0): (4, 10, 10), ("ewc", "forth", 1): (1, 10, 10),           # 24 and 21: 45 of 60
    ("ewc", "back", 0): (1, 1, 10),                                               # 12 of 30; seed 0 of replay has 27
}  # fmt: skip
ORDERS = {"forth": (A, B, C), "back": (C, B, A)}
STEADY = dict(zip(LEFT, (3, 2, 2, 1, 1, 0, 2), strict=True))
"""Of the three (earlier task, transition) cells of each run: those without a dip below 90 %."""


def ordered_run(folder: Path, method: str, order: str, seed: int, left: Sequence[int]) -> Path:
    """Three tasks in an order, ten episodes a cell: all ten while learning goes on, `left` at the end."""
    stages = ORDERS[order]
    write_run(folder, stages, method, seed)
    cells = [(stage, task, 10) for stage in (1, 2) for task in stages[:stage]] + [(3, task, count) for task, count in zip(stages, left, strict=True)]
    rows = [(stage, task, 10, count, count / 10, *wilson(count, 10)) for stage, task, count in cells]
    write_csv(folder / "success_matrix.csv", "stage,task,episodes,successes,rate,wilson_low,wilson_high", rows)
    write_recovery(folder, stages, STEADY[method, order, seed])
    curriculum = yaml.safe_load((folder / "curriculum.yaml").read_text())
    (folder / "curriculum.yaml").write_text(yaml.safe_dump({**curriculum, "name": order}))
    return folder


def write_recovery(folder: Path, stages: Sequence[str], steady: int) -> None:
    """Curves of three points and ten episodes each: in all but `steady` of the cells the task is lost at update 2 and back at the end."""
    points, figures = [], []
    for number, (stage, task) in enumerate([(2, stages[0]), (3, stages[0]), (3, stages[1])]):
        lowest = 10 if number < steady else 0
        points += [("online", stage, task, update, 10, count) for update, count in ((0, 10), (2, lowest), (UPDATES, 10))]
        figures.append(("online", stage, task, 90, 2 if lowest else UPDATES, 1 - lowest / 10, 0 if lowest else UPDATES / 2, 1.0))
    write_csv(folder / "recovery_curves.csv", "kind,stage,task,update,episodes,successes", points)
    write_csv(folder / "recovery.csv", "kind,stage,task,threshold,updates,dip,dip_area,reference_rate", figures)


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [ordered_run(tmp_path / "-".join(map(str, key)), *key, left) for key, left in LEFT.items()]


def test_an_order_counts_once_and_is_compared_with_itself(folders: list[Path]) -> None:
    found = summarise([read_run(folder) for folder in folders])
    assert [row.label for row in found.methods] == [f"{method}, curriculum={order}" for method in ("replay", "ewc") for order in ORDERS]
    replay, ewc = found.orders
    assert (replay.label, replay.orders, replay.seeds, replay.reference, replay.compared) == ("replay", ("forth", "back"), (2, 2), "", 0)
    assert replay.success == pytest.approx(mean_interval([57 / 60, 51 / 60])) and (replay.lowest, replay.highest) == pytest.approx((51 / 60, 57 / 60))
    assert replay.forgetting == pytest.approx(mean_interval([1 / 60, 7 / 60]))  # of the last task nothing is forgotten yet
    assert (ewc.label, ewc.seeds, ewc.reference, ewc.compared) == ("ewc", (2, 1), "replay", 2)
    assert ewc.success == pytest.approx(mean_interval([45 / 60, 12 / 30]))
    assert ewc.success_difference == pytest.approx(mean_interval([((24 - 30) + (21 - 27)) / 60, (12 - 27) / 30]))
    assert ewc.forgetting_difference == pytest.approx(mean_interval([14 / 60, 15 / 30]))


def test_a_seed_without_a_figure_leaves_its_order_to_the_other(folders: list[Path]) -> None:
    """Of order forth the last row of seed 0 failed: the order counts with seed 1 alone, 27 of 30."""
    failed = next(folder for folder in folders if folder.name == "replay-forth-0")
    keep_lines(failed / "success_matrix.csv", lambda line: not line.startswith("3,"))
    (failed / "failures.csv").write_text(
        "stage,purpose,update,task,episode_seed,attempts,error\n" + "".join(f"3,matrix,{UPDATES},{task},7,3,it fell\n" for task in (A, B, C))
    )
    replay, _ = summarise([read_run(folder) for folder in folders]).orders
    assert replay.success == pytest.approx(mean_interval([27 / 30, 51 / 60])) and (replay.lowest, replay.highest) == pytest.approx((51 / 60, 27 / 30))


def test_the_share_of_cells_without_a_dip_is_averaged_in_the_same_way(folders: list[Path], tmp_path: Path) -> None:
    replay, ewc = summarise([read_run(folder) for folder in folders]).orders
    assert (replay.threshold, ewc.threshold) == (90, 90)
    assert replay.no_dip == pytest.approx(mean_interval([(3 + 2) / 6, (2 + 1) / 6]))
    assert ewc.no_dip == pytest.approx(mean_interval([(1 + 0) / 6, 2 / 3]))
    assert ewc.no_dip_difference == pytest.approx(mean_interval([((1 - 3) + (0 - 2)) / 6, (2 - 2) / 3]))
    write_tables(folders, tmp_path / "tables")
    assert "no dip at 90 %, % of cells" in (tmp_path / "tables" / "tables.md").read_text()


def test_one_order_and_other_tasks_make_no_row(folders: list[Path], tmp_path: Path) -> None:
    one = [folder for folder in folders if "forth" in folder.name]
    assert summarise([read_run(folder) for folder in one]).orders == ()
    short = write_run(tmp_path / "short", (A, B), "replay")
    assert summarise([read_run(folder) for folder in [*one, short]]).orders == ()


def test_only_common_seeds_of_an_order_are_compared(folders: list[Path]) -> None:
    kept = [folder for folder in folders if folder.name != "replay-back-0"]
    ewc = summarise([read_run(folder) for folder in kept]).orders[1]
    assert ewc.compared == 1 and ewc.success_difference.mean == pytest.approx(-12 / 60)


def test_the_orders_stand_in_tables_and_page(folders: list[Path], tmp_path: Path) -> None:
    write_tables(folders, tmp_path / "tables")
    rows = rows_of(tmp_path / "tables" / "orders.csv")
    assert [(row["method"], row["orders"], row["runs"]) for row in rows] == [("replay", "forth back", "4"), ("ewc", "forth back", "3")]
    assert rows[1]["success_lowest_order"] == "0.4" and float(rows[1]["success_difference"]) == pytest.approx((-0.2 - 0.5) / 2)
    text = (tmp_path / "tables" / "tables.md").read_text()
    lines = dict(itertools.pairwise(text.splitlines()))
    assert lines["## Orders"] == "" and "| replay | 2 | 4 | 90.0 (26.5 to 100.0) | 85.0 | 95.0 |" in text
    page = write_report(folders, tmp_path / "page.html").read_text()
    assert "Over several orders of the tasks" in page and "success − that of replay, points" in page
    write_tables(folders[:2], tmp_path / "tables")
    assert not (tmp_path / "tables" / "orders.csv").exists()


def test_budgets_go_with_their_tasks_into_another_order(folders: list[Path]) -> None:
    """A task with more updates than the others has them wherever it stands."""
    for folder in folders:
        curriculum = yaml.safe_load((folder / "curriculum.yaml").read_text())
        for stage in curriculum["tasks"]:
            stage["updates"] = UPDATES if stage["task"] != C else 2 * UPDATES
        (folder / "curriculum.yaml").write_text(yaml.safe_dump(curriculum))
    found = summarise([read_run(folder) for folder in folders])
    assert [(row.label, row.orders, row.compared) for row in found.orders] == [("replay", ("forth", "back"), 0), ("ewc", ("forth", "back"), 2)]
