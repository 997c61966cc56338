"""Recovery over the seeds of a group, beside another group and beside the published tables: hand-worked 3 x 3 runs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from edited_run import add_lines, keep_lines
from hand_run import STAY, A, B, C, group_of, hand_run
from synthetic_run import POINT_REACH, write_run

from reconverge.envs.curriculum import CW10
from reconverge.eval.experiment import summarise
from reconverge.eval.experiment_tables import experiment_rows
from reconverge.eval.intervals import mean_interval
from reconverge.eval.published_results import published_recovery
from reconverge.eval.recovery_comparison import Wins, compare_recovery, count_wins, published_wins, recovery_cells, recovery_summaries
from reconverge.eval.report import write_report
from reconverge.eval.run_groups import RunGroup
from reconverge.eval.run_results import read_run
from reconverge.eval.wording import bounds_of_all, median_of_all


def test_recovery_by_hand(tmp_path: Path) -> None:
    # Thresholds 0.72, 0.72, 0.81. Seed 0: no dip; dips at 2 and is back at 50; first at 2, then a dip from which it is not back.
    # Seed 1: no dip twice; the last is back at 10.
    one = hand_run(tmp_path / "0", "replay", 0, (8, 9, 10), ((8, 8, 9, 8), (8, 3, 5, 8), (9, 9, 2, 4)))
    two = hand_run(tmp_path / "1", "replay", 1, (8, 9, 10), ((8, 8, 8, 8), (9, 8, 8, 8), (9, 4, 9, 9)))
    group = RunGroup("replay", "replay", (one, two))
    (row,) = recovery_summaries(group, published=False)
    assert (row.threshold, row.pairs, row.unlearned) == (90, 6, 0)
    assert row.steady.mean == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert (row.after_dip.median, row.after_dip.never) == (2, 1)  # 2, 2, 2, 10, 50, never
    assert (row.first.median, row.first.never) == (2, 0)
    assert row.dipped[:2] == (50, None) and (row.dipped.size, row.dipped.never) == (3, 1)  # 10, 50, never; too few for a lower bound
    assert (row.began_below, row.ended_below) == (0, 1)
    assert (median_of_all(row.after_dip, 3), bounds_of_all(row.after_dip, 3), median_of_all(row.after_dip, 4)) == ("no dip", "from 2", "2")
    assert row.dip.mean == pytest.approx(((0 + 0.5 + 0.7) / 3 + (0 + 0 + 0.5) / 3) / 2)
    cells = {cell.cell: cell for cell in recovery_cells(group, published=False)}
    assert list(cells) == [(1, 2), (1, 3), (2, 3)]
    assert (cells[2, 3].after_dip.median, cells[2, 3].after_dip.never, cells[2, 3].steady_seeds) == (10, 1, 0)
    assert cells[2, 3].dip == pytest.approx(0.6) and (cells[2, 3].old_task, cells[2, 3].new_task) == (B, C)


def test_a_task_that_falls_back_less_far_was_back_and_ends_below(tmp_path: Path) -> None:
    """90 % of 0.8 is 0.72. A is lowest at 10, back at 50, and ends at 0.7; B stands at 0.6 of 0.9 before the switch already."""
    run = hand_run(tmp_path / "0", "replay", 0, (8, 9, 10), ((8, 5, 8, 7), (8, 8, 8, 8), (6, 9, 9, 9)))
    (row,) = recovery_summaries(group_of(run), published=False)
    assert (row.dipped.size, row.dipped.never, row.began_below, row.ended_below) == (2, 0, 1, 1)


def test_a_task_never_learned_is_no_recovery(tmp_path: Path) -> None:
    run = hand_run(tmp_path / "0", "replay", 0, (8, 9, 10))
    (tmp_path / "0" / "recovery.csv").write_text((tmp_path / "0" / "recovery.csv").read_text().replace(",0.8\n", ",0.0\n"))
    (row,) = recovery_summaries(RunGroup("replay", "replay", (read_run(run.folder),)), published=False)
    assert (row.pairs, row.unlearned) == (1, 2)


def test_what_failed_before_the_switch_or_throughout_is_counted_as_not_measured(tmp_path: Path) -> None:
    """A has no row while C is learned, since its point before the switch is missing; B has neither row nor curve, but failures."""
    folder = hand_run(tmp_path / "0", "replay", 0, (8, 9, 10)).folder
    keep_lines(folder / "recovery.csv", lambda line: not line.startswith("online,3"))
    keep_lines(folder / "recovery_curves.csv", lambda line: not line.startswith((f"online,3,{A},0", f"online,3,{B}")))
    (folder / "failures.csv").write_text(f"stage,purpose,update,task,episode_seed,attempts,error\n3,recovery,2,{B},7,3,it fell\n")
    (row,) = recovery_summaries(group_of(read_run(folder)), published=False)
    assert (row.pairs, row.unlearned, row.unmeasured) == (1, 0, 2)
    assert experiment_rows(summarise([read_run(folder)]))["recovery_summary"][0]["unmeasured_pairs"] == 2
    assert "2 pairs not measured" in write_report([folder, hand_run(tmp_path / "1", "ewc", 0, (8, 9, 10)).folder], tmp_path / "page.html").read_text()


def test_a_curve_that_does_not_reach_the_end_of_its_stage_has_no_area(tmp_path: Path) -> None:
    folder = hand_run(tmp_path / "0", "replay", 0, (8, 9, 10)).folder
    (folder / "recovery.csv").write_text((folder / "recovery.csv").read_text().replace(f"online,3,{B},90,2,0,1.0", f"online,3,{B},90,2,0,31.0"))
    (whole,) = recovery_summaries(group_of(read_run(folder)), published=False)
    keep_lines(folder / "recovery_curves.csv", lambda line: not line.startswith(f"online,3,{B},50"))
    group = group_of(read_run(folder))
    (short,) = recovery_summaries(group, published=False)
    assert (whole.dip_area.mean, short.dip_area.mean, short.pairs) == (11.0, 1.0, 3)
    assert math.isnan(recovery_cells(group, published=False)[2].dip_area)
    assert ">nan" not in write_report([folder, hand_run(tmp_path / "1", "ewc", 0, (8, 9, 10)).folder], tmp_path / "page.html").read_text()


def test_a_task_that_is_learned_twice_recovers_to_what_it_could_do_last(tmp_path: Path) -> None:
    group = group_of(read_run(write_run(tmp_path / "run", (A, B, A, B, C), "replay")))
    cells = {(cell.cell, cell.old_task) for cell in recovery_cells(group, published=False) if cell.threshold == 90 and cell.cell[1] in (2, 5)}
    assert cells == {((1, 2), A), ((3, 5), A), ((4, 5), B)}


def test_a_task_learned_badly_was_learned(tmp_path: Path) -> None:
    folder = hand_run(tmp_path / "0", "replay", 0, (8, 9, 10)).folder
    (folder / "recovery.csv").write_text((folder / "recovery.csv").read_text().replace(",0.8\n", ",0.3\n"))
    (row,) = recovery_summaries(group_of(read_run(folder)), published=False)
    assert (row.pairs, row.unlearned) == (3, 0)


def test_thresholds_are_apart_and_probes_are_no_pairs(tmp_path: Path) -> None:
    """A second threshold, 80, and a recovery that was measured off line."""
    folder = hand_run(tmp_path / "0", "replay", 0, (8, 9, 10)).folder
    rows = [line.split(",") for line in (folder / "recovery.csv").read_text().splitlines()[1:]]
    add_lines(folder / "recovery.csv", *(",".join([*row[:3], "80", *row[4:]]) for row in rows), f"probe,3,{A},90,2,0.6,0.6,0.8")
    add_lines(folder / "recovery_curves.csv", f"probe,3,{A},0,10,2", f"probe,3,{A},2,10,8")
    group = group_of(read_run(folder))
    assert [(row.threshold, row.pairs, row.unlearned) for row in recovery_summaries(group, published=False)] == [(90, 3, 0), (80, 3, 0)]
    assert [cell.threshold for cell in recovery_cells(group, published=False)] == [90] * 3 + [80] * 3
    assert [row.threshold for row in compare_recovery(group, group, published=False)] == [90, 80]


def test_cells_are_in_order_of_the_new_stage(tmp_path: Path) -> None:
    group = group_of(read_run(write_run(tmp_path / "run", CW10[:4], "replay")))
    cells = [cell.cell for cell in recovery_cells(group, published=False) if cell.threshold == 90]
    assert cells == [(1, 2), (1, 3), (2, 3), (1, 4), (2, 4), (3, 4)]


def test_areas_are_means_over_cells_and_then_over_seeds(tmp_path: Path) -> None:
    folder = hand_run(tmp_path / "0", "replay", 0, (8, 9, 10)).folder
    heading, *lines = (folder / "recovery.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines]
    areas = [",".join([*row[:6], area, row[7]]) for row, area in zip(rows, ("3.0", "6.0", "12.0"), strict=True)]
    (folder / "recovery.csv").write_text("\n".join([heading, *areas]) + "\n")
    group = group_of(read_run(folder), hand_run(tmp_path / "1", "replay", 1, (8, 9, 10)))  # areas of 1
    (row,) = recovery_summaries(group, published=False)
    assert row.dip_area.mean == pytest.approx((7.0 + 1.0) / 2)
    assert [cell.dip_area for cell in recovery_cells(group, published=False)] == pytest.approx([2.0, 3.5, 6.5])


def test_a_seed_with_fewer_cells_counts_as_much_as_another(tmp_path: Path) -> None:
    """One of three cells is steady in one seed, the only one in the other."""
    one = hand_run(tmp_path / "0", "replay", 0, (8, 9, 10), (STAY, (8, 3, 8, 8), (9, 4, 4, 9)))
    folder = hand_run(tmp_path / "1", "replay", 1, (8, 9, 10)).folder
    keep_lines(folder / "recovery.csv", lambda line: not line.startswith("online,3"))
    (row,) = recovery_summaries(group_of(one, read_run(folder)), published=False)
    assert row.steady.mean == pytest.approx((1 / 3 + 1) / 2) and (row.steady.size, row.pairs) == (2, 4)


def test_the_published_cells_stand_beside_those_of_a_run(tmp_path: Path) -> None:
    """The paper's replay at 90 %: 10, 50 and 21 updates in the first three cells."""
    group = group_of(read_run(write_run(tmp_path / "run", CW10[:3], "replay")))
    cells = {cell.cell: (cell.is_published, cell.published) for cell in recovery_cells(group, published=True) if cell.threshold == 90}
    assert cells == {(1, 2): (True, 10), (1, 3): (True, 50), (2, 3): (True, 21)}
    (beside,) = (row.published for row in recovery_summaries(group, published=True) if row.threshold == 90)
    assert beside is not None and beside.at_floor == 0
    assert (beside.median.median, beside.median.size, beside.median.never, beside.median.last) == (21, 3, 0, 50_000)
    assert not any(cell.is_published or cell.published for cell in recovery_cells(group, published=False))


def test_a_method_that_was_not_published_has_no_published_cells(tmp_path: Path) -> None:
    group = group_of(read_run(write_run(tmp_path / "run", CW10[:3], "mas")))
    assert not any(cell.is_published for cell in recovery_cells(group, published=True))
    assert all(row.published is None for row in recovery_summaries(group, published=True))


def test_published_cells_at_the_floor_of_the_grid_are_counted(tmp_path: Path) -> None:
    found = [updates for (method, _, _, threshold), updates in published_recovery().items() if (method, threshold) == ("replay", 80)]
    group = group_of(read_run(write_run(tmp_path / "run", CW10, "replay")))
    (beside,) = (row.published for row in recovery_summaries(group, published=True) if row.threshold == 80)
    assert beside is not None and beside.median.size == len(found) == 45
    assert beside.at_floor == found.count(2) < 45


def test_one_run_of_other_tasks_takes_the_published_cells_away(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / "a", CW10[:3], "replay")), read_run(write_run(tmp_path / "b", POINT_REACH, "replay", 1))]
    assert all(row.published is None for row in summarise(runs).recovery)
    assert all(row.published is not None for row in summarise(runs[:1]).recovery)


def test_wins_by_hand(tmp_path: Path) -> None:
    assert count_wins([(2, 2), (50, 100), (None, 700), (None, None)]) == Wins(wins=1, ties=2, losses=1)
    own = hand_run(tmp_path / "a", "ewc", 0, (8, 9, 10), (STAY, (8, 3, 8, 8), (9, 4, 4, 4)))
    other = hand_run(tmp_path / "b", "replay", 0, (8, 9, 10), (STAY, (8, 3, 3, 8), (9, 4, 4, 9)))
    (row,) = compare_recovery(RunGroup("ewc", "ewc", (own,)), RunGroup("replay", "replay", (other,)), published=True)
    assert row.after_dip == row.first == Wins(1, 1, 1) and row.threshold == 90 and row.seeds == 1
    assert row.published == published_wins("ewc", "replay", 90, [(1, 2), (1, 3), (2, 3)])


def test_wins_are_over_every_seed(tmp_path: Path) -> None:
    own = group_of(*(hand_run(tmp_path / f"a{seed}", "ewc", seed, (8, 9, 10)) for seed in (0, 1)))
    last = ((9, 9, 9, 9), (9, 4, 4, 9))
    other = group_of(*(hand_run(tmp_path / f"b{seed}", "replay", seed, (8, 9, 10), (STAY, STAY, last[seed])) for seed in (0, 1)))
    (row,) = compare_recovery(own, other, published=False)
    assert row.seeds == 2 and row.after_dip == Wins(1, 5, 0)
    assert row.no_dip_difference == mean_interval([0.0, 1 / 3])  # one of three cells of the second seed
    published = replace(row, published=Wins(1, 0, 0))
    entries = experiment_rows(replace(summarise([*own.runs, *other.runs]), wins=(published,)))["wins"]
    assert [entry["no_dip_difference"] for entry in entries] == [pytest.approx(1 / 6), pytest.approx(1 / 6), None]
    assert len({tuple(entry) for entry in entries}) == 1  # the same columns in every row


def test_cells_that_one_side_observed_for_longer_are_not_compared(tmp_path: Path) -> None:
    own, other = (hand_run(tmp_path / name, "replay", 0, (8, 9, 10), (STAY, STAY, (9, 4, 4, 4))) for name in "ab")
    points = (tmp_path / "b" / "recovery_curves.csv").read_text().splitlines(True)
    (tmp_path / "b" / "recovery_curves.csv").write_text("".join(line for line in points if f"online,3,{B},50," not in line))
    (row,) = compare_recovery(RunGroup("ewc", "ewc", (own,)), RunGroup("replay", "replay", (read_run(other.folder),)), published=False)
    assert row.after_dip == Wins(0, 2, 0)  # of three cells


def test_cells_that_were_looked_at_in_other_places_are_not_compared(tmp_path: Path) -> None:
    """A run against itself without its first point: where nothing dips it would seem to come back later."""
    own, other = (hand_run(tmp_path / name, "replay", 0, (8, 9, 10)) for name in "ab")
    points = (tmp_path / "b" / "recovery_curves.csv").read_text().splitlines(True)
    (tmp_path / "b" / "recovery_curves.csv").write_text("".join(line for line in points if f"online,3,{A},2," not in line))
    (row,) = compare_recovery(RunGroup("ewc", "ewc", (own,)), RunGroup("replay", "replay", (read_run(other.folder),)), published=False)
    assert row.after_dip == row.first == Wins(0, 2, 0)


def test_the_published_tables_are_read_honestly() -> None:
    assert published_wins("trust-region", "replay", 99) == Wins(wins=16, ties=15, losses=14)
    assert published_wins("replay", "trust-region", 99) == Wins(wins=14, ties=15, losses=16)
    assert published_wins("joint", "replay", 99) is None and published_wins("replay", "replay", 99) is None
