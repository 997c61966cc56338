"""Areas under learning curves and forward transfer: the module's example, groups by hand, and the real loop on the toy world."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from csv_rows import rows_of
from small_run import run, tiny
from synthetic_run import POINT_REACH, write_run

from reconverge.envs.errors import ConfigError
from reconverge.eval.config import EvaluationConfig, RecoveryConfig
from reconverge.eval.experiment import summarise
from reconverge.eval.experiment_tables import write_tables
from reconverge.eval.intervals import mean_interval
from reconverge.eval.learning_curve import area_under, learning_curves, learning_row, transfer
from reconverge.eval.report import write_report
from reconverge.eval.run_groups import RunGroup
from reconverge.eval.run_results import RunResults, read_run
from reconverge.launch.config_checks import check
from reconverge.launch.remaining_time import planned_work
from reconverge.launch.run_tables import StageRecord, learning_curve_rows, recoveries, reference_rates
from reconverge.launch.verification import verify

EXAMPLE = ((0, 10, 25, 50, 100), (0.0, 0.2, 0.6, 0.8, 0.8))


def with_curves(
    folder: Path, method: str, seed: int, *counts: tuple[int, ...], grid: tuple[int, ...] = (0, 100, 500), stages: Sequence[str] = POINT_REACH
) -> RunResults:
    """A run over three stages of 500 updates with learning curves: successes of 20 at the points of the grid, a tuple per stage."""
    path = write_run(folder, stages, method, seed) / "recovery_curves.csv"
    rows = [
        f"learning,{stage},{task},{update},20,{count}\n"
        for stage, (task, of_task) in enumerate(zip(stages, counts, strict=False), start=1)
        for update, count in zip(grid, of_task, strict=True)
    ]
    path.write_text(path.read_text() + "".join(rows))
    return read_run(folder)


def test_the_example_of_the_modules_first_lines() -> None:
    assert area_under(EXAMPLE) == pytest.approx(0.645)
    assert transfer(0.645, 0.5) == pytest.approx(0.29)


def test_areas_and_transfer_in_closed_form() -> None:
    assert area_under(((0, 1), (0.4, 0.4))) == pytest.approx(0.4) and area_under(((0, 7, 100), (1.0, 1.0, 1.0))) == 1.0
    assert area_under(((0, 50, 100), (0.0, 0.5, 1.0))) == pytest.approx(0.5) == area_under(((0, 100), (0.0, 1.0)))
    assert transfer(0.5, 0.5) == 0.0 and transfer(1.0, 0.2) == 1.0 and transfer(0.0, 0.5) == -1.0
    assert math.isnan(transfer(0.9, 1.0))
    for wrong in (((0,), (0.1,)), ((0, 5, 5), (0, 0, 0)), ((0, 1), (0.0, 0.5, 1.0))):
        with pytest.raises(ValueError, match=r"area needs|ascend"):
            area_under(wrong)


def test_transfer_stands_beside_the_area_of_single_task_by_task_and_seed_by_seed(tmp_path: Path) -> None:
    """Areas: (0, 10, 20) of 20 at 0, 100, 500 -> (100*0.25 + 400*0.75)/500 = 0.65; (0, 0, 20) -> 0.4; (20, 20, 20) -> 1."""
    one = with_curves(tmp_path / "0", "replay", 0, (0, 10, 20), (0, 0, 20))
    two = with_curves(tmp_path / "1", "replay", 1, (0, 10, 20), (0, 10, 20))
    alone = [with_curves(tmp_path / f"single-{seed}", "single", seed, first, (0, 0, 20)) for seed, first in enumerate(((0, 0, 20), (0, 10, 20)))]
    single = RunGroup("single", "single", tuple(alone))
    row = learning_row(RunGroup("replay", "replay", (one, two)), single)
    assert row is not None and row.area.mean == pytest.approx((0.525 + 0.65) / 2) and row.tasks == 2
    of_seeds = [(0.25 / 0.6 + 0) / 2, (0 + 0.25 / 0.6) / 2]  # the first task gains in the first seed, the second in the other
    assert row.transfer.mean == pytest.approx(sum(of_seeds) / 2) and row.common_seeds == 2
    more = learning_row(RunGroup("replay", "replay", (one, two, with_curves(tmp_path / "2", "replay", 2, (20, 20, 20)))), single)
    assert more is not None and (more.seeds, more.common_seeds) == (3, 2) and more.transfer == row.transfer
    itself, without = learning_row(single, single), learning_row(RunGroup("replay", "replay", (one,)), None)
    assert itself is not None and math.isnan(itself.transfer.mean) and without is not None and math.isnan(without.transfer.mean)


def test_the_noise_of_single_is_in_the_interval(tmp_path: Path) -> None:
    """A method whose seeds agree and a control whose seeds do not: 0.65 beside 0.4 and 0.65."""
    own = tuple(with_curves(tmp_path / f"own-{seed}", "replay", seed, (0, 10, 20)) for seed in (0, 1))
    alone = tuple(with_curves(tmp_path / f"single-{seed}", "single", seed, first) for seed, first in enumerate(((0, 0, 20), (0, 10, 20))))
    row = learning_row(RunGroup("replay", "replay", own), RunGroup("single", "single", alone))
    assert row is not None and row.transfer == mean_interval([0.25 / 0.6, 0.0])


def test_a_task_that_is_learned_twice_has_two_curves(tmp_path: Path) -> None:
    """A B A: areas 0.4, 0.4, 1.0 beside those of single, 0.4, 0.4, 0.65."""
    stages = (POINT_REACH[0], POINT_REACH[1], POINT_REACH[0])
    own, alone = (
        with_curves(tmp_path / method, method, 0, (0, 0, 20), (0, 0, 20), third, stages=stages)
        for method, third in (("replay", (20, 20, 20)), ("single", (0, 10, 20)))
    )
    assert [area_under(curve) for curve in learning_curves(own).values()] == pytest.approx([0.4, 0.4, 1.0]) and set(learning_curves(own)) == {1, 2, 3}
    row = learning_row(RunGroup("replay", "replay", (own,)), RunGroup("single", "single", (alone,)))
    assert row is not None and row.transfer.mean == pytest.approx(1 / 3) and row.tasks == 3


def test_only_curves_of_the_same_points_are_compared(tmp_path: Path) -> None:
    own = RunGroup("replay", "replay", (with_curves(tmp_path / "a", "replay", 0, (0, 10, 20)),))
    other = RunGroup("single", "single", (with_curves(tmp_path / "b", "single", 0, (0, 0, 20), grid=(0, 200, 500)),))
    row = learning_row(own, other)
    assert row is not None and math.isnan(row.transfer.mean) and row.tasks == 0
    broken_off = with_curves(tmp_path / "c", "replay", 0, (0, 10), grid=(0, 100))
    assert learning_curves(broken_off) == {}
    assert learning_row(RunGroup("replay", "replay", (broken_off,)), None) is None


def test_tables_and_page_have_it_where_it_was_measured(tmp_path: Path) -> None:
    for method, first in (("replay", (0, 10, 20)), ("single", (0, 0, 20))):
        with_curves(tmp_path / method, method, 0, first)
    folders = [tmp_path / "replay", tmp_path / "single"]
    write_tables(folders, tmp_path / "tables")
    replayed, alone = rows_of(tmp_path / "tables" / "learning.csv")
    assert float(replayed["area"]) == 0.65 and float(replayed["forward_transfer"]) == pytest.approx(0.25 / 0.6, abs=1e-6)
    assert alone["forward_transfer"] == ""
    page = write_report(folders, tmp_path / "page.html").read_text()
    assert "Forward transfer as in Continual World" in page and ">0.417" in page and ">nan" not in page
    assert not summarise([read_run(write_run(tmp_path / "plain"))]).learning


# Measured ------------------------------------------------------------------------------------------------------------------------


def test_a_curve_ends_with_the_matrix_and_is_no_recovery() -> None:
    def episode(purpose: str, stage: int, update: int, task: str, flag: bool) -> dict[str, object]:
        return {"purpose": purpose, "stage": stage, "update": update, "task": task, "success_any": flag, "invalid": False}

    first, second = StageRecord(1, ["a"], 100), StageRecord(2, ["b"], 100)
    first.episodes = [episode("learning", 1, 0, "a", False), episode("learning", 1, 50, "a", True)]
    first.episodes += [episode("matrix", 1, 100, "a", True), episode("matrix", 1, 100, "a", False)]
    rows = learning_curve_rows([StageRecord(0, [], 0), first, second], 1)
    assert [(row["kind"], row["stage"], row["task"], row["update"], row["successes"]) for row in rows] == [
        ("learning", 1, "a", 0, 0), ("learning", 1, "a", 50, 1), ("learning", 1, "a", 100, 1),
    ]  # fmt: skip
    assert recoveries(rows, reference_rates([first, second], 1), (99,)) == []


def test_the_loop_measures_it_beside_everything_else_and_changes_nothing(tmp_path: Path) -> None:
    """Off, the tables are those of before; on, they only gain rows. Single and finetune begin alike, so the first task has no transfer."""
    config = tiny(tmp_path, curriculum="point-reach:2", method="finetune")
    asked = replace(config, evaluation=EvaluationConfig(episodes=3, workers=0, learning_grid=(5, 10, 50)))
    plain, measured = run(tmp_path / "plain", config), run(tmp_path / "measured", asked)
    for name in ("success_matrix.csv", "recovery.csv", "metrics.jsonl", "fisher.csv", "ledger.csv"):
        assert (plain / name).read_bytes() == (measured / name).read_bytes()
    for name in ("episodes.csv", "recovery_curves.csv"):
        kept = [line for line in (measured / name).read_text().splitlines() if not line.startswith("learning")]
        assert kept == (plain / name).read_text().splitlines()
    last = Path("checkpoints", "stage-02", "policy.safetensors")
    assert (plain / last).read_bytes() == (measured / last).read_bytes()

    results, alone = read_run(measured), read_run(run(tmp_path / "single", replace(asked, method="single")))
    for found in (results, alone):
        assert {stage: curve.updates for stage, curve in learning_curves(found).items()} == dict.fromkeys((1, 2), (0, 5, 10, 20))
        assert "learning/simulate" in found.cost["phases"] and found.cost["flops"]["learning"] > 0
    assert results.curves["learning", 1, POINT_REACH[0]] == alone.curves["learning", 1, POINT_REACH[0]]
    assert [work["learning"] for work in planned_work(results)] == [0, 3, 3]
    assert [str(check) for check in verify(measured) if check.outcome == "DIFFERS" and check.subject != "command.txt"] == []


def test_joint_has_no_stage_of_its_own(tmp_path: Path) -> None:
    config = tiny(tmp_path, curriculum="point-reach:2", method="joint")
    results = read_run(run(tmp_path / "run", replace(config, evaluation=EvaluationConfig(episodes=3, workers=0, learning_grid=(5,)))))
    assert learning_curves(results) == {} and "learning" not in {row.purpose for row in results.episodes}


def test_a_grid_that_does_not_ascend_is_refused(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    for grid in ((5, 5), (0, 5), (9, 3)):
        with pytest.raises(ConfigError, match=r"evaluation\.learning_grid is"):
            check(replace(config, evaluation=EvaluationConfig(episodes=3, learning_grid=grid)))
    with pytest.raises(ConfigError, match=r"recovery\.grid is"):
        check(replace(config, recovery=RecoveryConfig(episodes=3, grid=(5, 5))))
