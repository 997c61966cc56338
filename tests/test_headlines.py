"""A run's headlines: their intervals, tasks that are learned twice, recoveries, and which policy of single plays a task."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from edited_run import add_lines, keep_lines
from hand_run import A, B, hand_run
from synthetic_run import POINT_REACH, write_csv, write_run

from reconverge.eval import headlines, metrics
from reconverge.eval.experiment import summarise
from reconverge.eval.headlines import is_steady, played_at, recovery_headline
from reconverge.eval.recovery_comparison import observations, recovery_summaries
from reconverge.eval.report import write_report
from reconverge.eval.run_groups import RunGroup
from reconverge.eval.run_results import read_run


def test_what_is_learned_twice_is_forgotten_per_stage(tmp_path: Path) -> None:
    """A B A B, as `cw20` in small. A: 0.5, 0.2, 0.9, 0.6 after the four stages; B: 0.5 after stage 2, 0.9 at the end. Per stage (Continual World):
    ((0.5 - 0.6) + (0.5 - 0.9) + (0.9 - 0.6) + (0.9 - 0.9)) / 4 = -0.05; by the first learning alone it would be (-0.1 - 0.4) / 2.
    """
    first, second = POINT_REACH[:2]
    write_run(tmp_path / "run", (first, second, first, second), "replay")
    cells = [(1, first, 5), (2, first, 2), (2, second, 5), (3, first, 9), (3, second, 5), (4, first, 6), (4, second, 9)]
    rows = [(stage, task, 10, count, count / 10, 0, 1) for stage, task, count in cells]
    write_csv(tmp_path / "run" / "success_matrix.csv", "stage,task,episodes,successes,rate,wilson_low,wilson_high", rows)
    results = read_run(tmp_path / "run")
    assert headlines.final_success(results).mean == pytest.approx(0.75)
    assert headlines.just_learned(results).mean == pytest.approx((0.5 + 0.5 + 0.9 + 0.9) / 4)
    for found in (headlines.forgetting(results).mean, metrics.forgetting_end_of_own_task(results.by_stage)):
        assert found == pytest.approx(-0.05)
    for found in (headlines.backward_transfer(results).mean, metrics.backward_transfer(results.by_stage)):
        assert found == pytest.approx(0.2 / 3)


def test_headlines_are_the_metrics_with_an_interval_around_them(tmp_path: Path) -> None:
    results = read_run(write_run(tmp_path / "run"))
    rates, own = results.matrix, results.own_stage
    pairs = [
        (headlines.final_success(results), metrics.average_success(rates, own)),
        (headlines.forgetting(results), metrics.forgetting_end_of_own_task(rates, own)),
        (headlines.backward_transfer(results), metrics.backward_transfer(rates, own)),
        (headlines.forward_transfer(results), metrics.forward_transfer(rates, own)),
    ]
    for interval, value in pairs:
        assert interval.mean == pytest.approx(value)
        assert interval.low < value < interval.high


def test_single_plays_a_task_with_the_latest_policy_that_learned_it() -> None:
    assert [played_at("single", "aba", stage, "a") for stage in (0, 1, 2, 3)] == [0, 1, 1, 3]
    assert played_at("replay", "aba", 2, "a") == 2


def test_a_recovery_without_its_curve_is_left_out_and_counted(tmp_path: Path) -> None:
    curves = ((8, 8, 8, 8), (8, 3, 8, 8), (9, 4, 4, 4))  # at once, after 10, never
    folder = hand_run(tmp_path / "0", "replay", 0, (8, 9, 10), curves).folder
    kept = [line for line in (folder / "recovery_curves.csv").read_text().splitlines() if f"3,{B}" not in line]
    (folder / "recovery_curves.csv").write_text("\n".join(kept) + "\n")
    run = read_run(folder)
    found = recovery_headline(run)
    assert (found.pairs, found.dipped.size, found.dipped.never, found.dipped.median, found.without_curve) == (2, 1, 0, 10, 1)
    assert (found.first.size, found.first.median) == (2, 2)
    (row,) = recovery_summaries(RunGroup("replay", "replay", (run,)), published=False)
    assert (row.pairs, row.unlearned, row.after_dip.never) == (2, 0, 0)
    assert any("so left out: 1 pairs" in note for note in summarise([run]).notes)
    assert "1 left out, curve missing" in write_report([folder], tmp_path / "page.html").read_text()


def test_the_headline_is_of_the_nearest_threshold(tmp_path: Path) -> None:
    folder = hand_run(tmp_path / "0", "replay", 0, (8, 9, 10)).folder
    path = folder / "recovery.csv"
    rows = path.read_text().splitlines()[1:]
    path.write_text(path.read_text().replace(",90,", ",80,"))
    add_lines(path, *(row.replace(",90,", ",99,") for row in rows))
    assert [recovery_headline(read_run(folder), asked).threshold for asked in (85, 95)] == [80, 99]


def test_a_curve_without_its_first_point_is_none(tmp_path: Path) -> None:
    """At 90 % of 0.8 lies 0.72: a task that was never lower has no dip, told from the curve or from the row alone."""
    folder = hand_run(tmp_path / "0", "replay", 0, (8, 9, 10), ((8, 8, 8, 8), (8, 3, 8, 8), (9, 4, 4, 4))).folder
    keep_lines(folder / "recovery_curves.csv", lambda line: not line.startswith(f"online,2,{A},0,"))
    run = read_run(folder)
    assert recovery_headline(run).without_curve == 1 and len(observations(run)) == 2
    (row,) = [row for row in run.recoveries if (row.stage, row.task) == (2, A)]
    assert is_steady(run, dataclasses.replace(row, dip=0.8 - 0.72))
