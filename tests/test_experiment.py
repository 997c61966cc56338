"""An experiment: which runs count, the rows of its methods by hand (3 x 3 runs), what they are compared with, and their cost."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from csv_rows import rows_of
from edited_run import add_lines, keep_lines, with_fingerprint, with_settings, with_updates
from hand_run import A, B, C, group_of, hand_run
from synthetic_run import POINT_REACH, write_run

from reconverge.envs.errors import UnknownName
from reconverge.eval.experiment import cost_row, final_rates, find_reference, measured_further, method_row, single_beside, summarise
from reconverge.eval.experiment_tables import write_tables
from reconverge.eval.intervals import mean_interval
from reconverge.eval.report import write_report
from reconverge.eval.run_groups import RunGroup, group_runs
from reconverge.eval.run_results import read_run

# Which runs count --------------------------------------------------------------------------------------------------------------


def test_where_no_run_is_finished_all_count(tmp_path: Path) -> None:
    found = summarise([read_run(write_run(tmp_path / "a", method="replay", done=2))])
    assert [row.label for row in found.methods] == ["replay"] and not any("Not finished" in note for note in found.notes)


def test_warnings_are_about_the_runs_that_count(tmp_path: Path) -> None:
    finished = write_run(tmp_path / "a", method="replay")
    unfinished = with_fingerprint(write_run(tmp_path / "b", method="replay", seed=1, done=1), git_commit="f" * 40)
    assert summarise([read_run(finished), read_run(unfinished)]).warnings == ()


def test_a_run_given_twice_counts_once_and_an_unfinished_one_not_at_all(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / name, seed=seed, done=done)) for name, seed, done in (("a", 0, 3), ("b", 0, 3), ("c", 1, 2))]
    experiment = summarise(runs)
    assert experiment.methods[0].seeds == (0,)
    assert any("counted once" in note and "b" in note for note in experiment.notes)
    assert any("Not finished" in note and "2 of 3 stages" in note for note in experiment.notes)


# Rows --------------------------------------------------------------------------------------------------------------------------


def test_success_and_forgetting_by_hand(tmp_path: Path) -> None:
    one, two = (hand_run(tmp_path / str(seed), "replay", seed, final) for seed, final in ((0, (6, 9, 10)), (1, (8, 9, 10))))
    row = method_row(RunGroup("replay", "replay", (one, two)))
    # 25/30 and 27/30: mean 26/30, s = (2/30) / sqrt 2, t(1) = 12.706, so the half width is 12.706 * (1/30).
    assert row.success.interval.mean == pytest.approx(26 / 30)
    assert row.success.interval.high - row.success.interval.mean == pytest.approx(12.7062 / 30, rel=1e-4)
    assert row.forgetting.interval.mean == pytest.approx((2 / 30 + 0) / 2)
    assert row.just_learned.interval.mean == pytest.approx(0.9)
    assert row.success.over == "seeds" and row.episodes == 60 and row.published is None
    further = {name: found.interval for name, found in row.further.items()}
    assert further["backward transfer"] == pytest.approx(mean_interval([-0.1, 0.0])) and further["peak forgetting"].mean == pytest.approx(0.05)
    assert math.isnan(further["forward transfer"].mean) and measured_further([row]) == ["peak forgetting", "backward transfer"]
    assert final_rates(RunGroup("replay", "replay", (one, two))) == {A: pytest.approx(0.7), B: 0.9, C: 1.0}


def test_the_figure_of_the_end_leaves_out_tasks_still_to_be_learned_like_the_table(tmp_path: Path) -> None:
    group = RunGroup("replay", "replay", tuple(read_run(write_run(tmp_path / str(seed), method="replay", seed=seed, done=1)) for seed in (0, 1)))
    assert all((1, B) in run.cell_at for run in group.runs)  # evaluated as the next task
    assert list(final_rates(group)) == [A] and final_rates(group)[A] == pytest.approx(method_row(group).success.interval.mean)


def test_a_cell_without_episodes_is_no_rate(tmp_path: Path) -> None:
    folder = hand_run(tmp_path / "0", "replay", 0, (6, 9, 10)).folder
    keep_lines(folder / "success_matrix.csv", lambda line: not line.startswith(f"3,{B},"))
    add_lines(folder / "success_matrix.csv", f"3,{B},0,0,nan,0.0,1.0")
    assert final_rates(group_of(read_run(folder))) == {A: 0.6, C: 1.0}


def test_the_interquartile_mean_leaves_out_tasks_still_to_be_learned(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", method="replay", done=1))
    assert (1, B) in run.cell_at and method_row(group_of(run)).success_iqm.size == 1


def test_one_seed_has_the_interval_of_its_episodes(tmp_path: Path) -> None:
    row = method_row(RunGroup("replay", "replay", (hand_run(tmp_path / "a", "replay", 0, (6, 9, 10)),)))
    assert row.success.over == "episodes" and row.success.interval.size == 30
    assert row.success.interval.low < 25 / 30 < row.success.interval.high


def test_a_seed_that_measured_nothing_at_the_end_is_not_counted(tmp_path: Path) -> None:
    """Of two seeds one has no row of the last stage, since its simulator failed: the interval is that of the other's episodes."""
    runs = [hand_run(tmp_path / str(seed), "replay", seed, final) for seed, final in enumerate(((8, 9, 10), (5, 5, 5)))]
    keep_lines(runs[1].folder / "success_matrix.csv", lambda line: not line.startswith("3,"))
    (tmp_path / "1" / "failures.csv").write_text("stage,purpose,update,task,episode_seed,attempts,error\n" + "".join(
        f"3,matrix,50,{task},7,3,it fell\n" for task in runs[1].tasks))
    (row,) = summarise([runs[0], read_run(runs[1].folder)]).methods
    assert (row.seeds, row.success.over, row.success.interval.mean) == ((0,), "episodes", pytest.approx(0.9))


def test_joint_has_no_forgetting(tmp_path: Path) -> None:
    row = method_row(RunGroup("joint", "joint", (read_run(write_run(tmp_path / "a", method="joint")),)))
    assert math.isnan(row.forgetting.interval.mean) and math.isnan(row.just_learned.interval.mean)


def test_single_stands_beside_runs_of_the_same_stages_and_updates(tmp_path: Path) -> None:
    def of(name: str, method: str, stages: Sequence[str] = POINT_REACH, updates: int = 500) -> RunGroup:
        return group_of(read_run(with_updates(write_run(tmp_path / name, stages, method), updates)))

    own, same = of("own", "replay"), of("same", "single")
    others = [own, of("turned", "single", POINT_REACH[::-1]), of("longer", "single", updates=900)]
    assert single_beside(own, [*others, same]) is same
    assert single_beside(own, others) is None


def test_single_stands_beside_runs_of_the_settings_that_it_reads(tmp_path: Path) -> None:
    """Of two groups of single the one with the same batch, whichever comes first; how replay is done is no matter of single's."""
    def of(name: str, method: str, **train: object) -> RunGroup:
        return group_of(read_run(with_settings(write_run(tmp_path / name, method=method), train={"updates": 500, **train})))

    small, large = of("small", "single", batch=64), of("large", "single", batch=256)
    own, ablated, other = of("own", "replay", batch=256, replay_ratio=2.0), of("ablated", "replay", batch=64), of("other", "ewc", batch=128)
    groups = [small, large, own, ablated, other]
    assert [single_beside(group, groups) for group in (own, ablated, other)] == [large, small, None]


def test_a_group_is_not_compared_with_itself(tmp_path: Path) -> None:
    runs = [hand_run(tmp_path / method, method, 0, (8, 9, 10)) for method in ("replay", "ewc")]
    assert {row.label for row in summarise(runs).wins} == {"ewc"}


def test_the_reference_is_the_group_with_the_most_seeds(tmp_path: Path) -> None:
    runs = [with_settings(write_run(tmp_path / "odd", method="replay"), demonstrations={"paces": [0.5]})]
    runs += [with_settings(write_run(tmp_path / str(seed), method="replay", seed=seed), demonstrations={"paces": [0.7]}) for seed in (0, 1)]
    groups = group_runs([read_run(folder) for folder in runs])
    assert find_reference(groups).seeds == find_reference(groups, "replay").seeds == (0, 1)
    assert find_reference(groups, groups[0].label).seeds == (0,)


def test_the_interquartile_mean_is_over_seeds_and_tasks(tmp_path: Path) -> None:
    """Of 8, 9, 10, 0, 9, 9 of ten one value is left out at either end: (8 + 9 + 9 + 9) / 40. Fewer than five seeds have no interval."""
    finals = ((8, 9, 10), (0, 9, 9), (7, 9, 10), (9, 6, 10), (8, 10, 5))
    runs = tuple(hand_run(tmp_path / str(seed), "replay", seed, final) for seed, final in enumerate(finals))
    two, alone, five = (method_row(RunGroup("replay", "replay", some)).success_iqm for some in (runs[:2], runs[:1], runs))
    assert two.mean == pytest.approx(0.875) and two.size == 6 and math.isnan(two.low)
    assert alone.mean == pytest.approx(0.9) and math.isnan(alone.low)
    assert five.size == 15 and five.low < five.mean < five.high
    write_tables([run.folder for run in runs], tmp_path / "tables")
    (row,) = rows_of(tmp_path / "tables" / "table1.csv")
    assert [float(row[name]) for name in ("success_iqm", "success_iqm_low")] == pytest.approx(five[:2], abs=1e-6)
    assert "interquartile mean" in write_report([run.folder for run in runs], tmp_path / "page.html").read_text()


def test_cost_by_hand(tmp_path: Path) -> None:
    runs = []
    for seed, total in ((0, 120), (1, 240)):
        folder = write_run(tmp_path / str(seed), method="replay", seed=seed)
        (folder / "cost.json").write_text(f'{{"phases": {{"update": 60, "evaluate/simulate": 30, "evaluate/sample": 30}}, "total_s": {total}}}')
        (folder / "ledger.csv").write_text("stage,item,bytes,past_task_data\n1,policy,5,0\n2,policy,100,0\n2,windows,50,1\n")
        runs.append(read_run(folder))
    row = cost_row(RunGroup("replay", "replay", tuple(runs)))
    assert (row.minutes, row.shortest, row.longest) == (3, 2, 4)
    assert row.phases == {"update": 1, "evaluate": 1}
    assert (row.kept_bytes, row.past_data_bytes) == (150, 50)


def test_costs_that_say_less(tmp_path: Path) -> None:
    """A run without a total has the sum of its phases; one without anything is left out; a phase that a run lacks took it no time."""
    runs = []
    costs: list[dict[str, object]] = [{"phases": {"update": 60, "recovery": 60}}, {"phases": {"update": 180}, "total_s": 240}, {}]
    for seed, cost in enumerate(costs):
        folder = write_run(tmp_path / str(seed), method="replay", seed=seed)
        (folder / "cost.json").write_text(json.dumps(cost))
        runs.append(read_run(folder))
    row = cost_row(group_of(*runs))
    assert (row.seeds, row.minutes, row.shortest, row.longest) == (2, 3.0, 2.0, 4.0)
    assert row.phases == {"update": 2.0, "recovery": 0.5}


def test_the_reference_is_replay_or_the_first_or_the_one_asked_for(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / method, method=method)) for method in ("finetune", "replay", "ewc")]
    assert summarise(runs).reference == "replay"
    assert summarise([runs[0], runs[2]]).reference == "finetune"
    experiment = summarise(runs, "ewc")
    assert [(row.label, row.reference) for row in experiment.paired] == [("finetune", "ewc"), ("replay", "ewc")]
    with pytest.raises(UnknownName, match="replay"):
        summarise(runs, "repaly")
