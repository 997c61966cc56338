"""An experiment's tables: hand-worked 3 x 3 runs, grouping, the published tables, the files and the page."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from csv_rows import rows_of
from edited_run import add_lines, keep_lines, with_demonstrations, with_settings, with_updates
from hand_run import STAY, A, B, C, group_of, hand_run
from synthetic_run import POINT_REACH, write_run

from reconverge.envs.curriculum import CW10
from reconverge.envs.errors import RunFolderError, UnknownName
from reconverge.eval.comparison import unlike
from reconverge.eval.config import RecoveryConfig
from reconverge.eval.experiment import cost_row, final_rates, find_reference, measured_further, method_row, paired_row, single_beside, summarise
from reconverge.eval.experiment_tables import csv_text, experiment_rows, write_tables
from reconverge.eval.headlines import played_at, recovery_headline
from reconverge.eval.intervals import mean_interval
from reconverge.eval.published_results import published_recovery
from reconverge.eval.recovery_comparison import Wins, compare_recovery, count_wins, published_wins, recovery_cells, recovery_summaries
from reconverge.eval.report import write_report
from reconverge.eval.run_groups import RunGroup, default_settings, group_runs, settings_of, worded
from reconverge.eval.run_results import read_run
from reconverge.eval.wording import bounds_of_all, median_of_all
from reconverge.launch.commands import Report
from reconverge.launch.config import RunConfig
from reconverge.launch.config_file import flat

# Grouping ----------------------------------------------------------------------------------------------------------------------


def test_seeds_are_one_group_and_settings_that_matter_are_named(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"replay-{seed}", method="replay", seed=seed) for seed in (1, 0)]
    folders += [with_settings(write_run(tmp_path / "stored", method="replay"), replay={"source": "stored", "generator": {"width": 7}})]
    folders += [write_run(tmp_path / "finetune", method="finetune")]
    groups = group_runs([read_run(folder) for folder in folders])
    assert [(group.label, group.seeds) for group in groups] == [
        ("replay", (0, 1)),
        ("replay, source=stored, generator.width=7", (0,)),
        ("finetune", (0,)),
    ]


@pytest.mark.parametrize("ablated", [1, 3])
def test_what_an_ablation_changes_is_named_and_not_what_its_base_has(ablated: int, tmp_path: Path) -> None:
    """Also where the base is not at the default, which is 1, and an ablation is."""
    folders = [with_settings(write_run(tmp_path / "replay" / "seed-0", method="replay"), train={"replay_weight": 10.0})]
    for change in [{"replay_weight": 1.0}, {"replay_weight": 10.0, "replay_ratio": 2.0}, {"replay_weight": 3.0}][:ablated]:
        folders += [with_settings(write_run(tmp_path / "replay" / str(change) / "seed-0", method="replay"), train=change)]
    found = summarise([read_run(folder) for folder in folders])
    changed = ["replay_weight=1.0", "replay_ratio=2.0", "replay_weight=3.0"][:ablated]
    assert found.reference == "replay" and [row.label for row in found.methods] == ["replay", *(f"replay, {each}" for each in changed)]
    assert [row.reference for row in found.paired] == ["replay"] * ablated


def test_settings_without_effect_and_absent_defaults_do_not_divide(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", seed=0)
    second = with_settings(write_run(tmp_path / "b", seed=1), threads=7, device="cuda", video={"stride": 9}, replay={"source": "generator"})
    second = with_settings(second, evaluation={"episodes": 20, "workers": 9}, demonstrations={"workers": 3, "folder": "x"})
    groups = group_runs([read_run(first), read_run(second)])
    assert [(group.label, group.seeds) for group in groups] == [("trust-region", (0, 1))]


def test_every_setting_has_its_default_here() -> None:
    elsewhere = {"curriculum", "method", "seed", "device", "threads", "save_minutes"}
    absent = {key for key in flat(RunConfig()) if key not in default_settings() and not key.startswith("video.")}
    assert absent == elsewhere


def test_the_updates_are_those_the_stages_had(tmp_path: Path) -> None:
    run = read_run(with_settings(write_run(tmp_path / "a"), train={"updates": 99}))
    assert settings_of(run)["train.updates"] == 500


def test_demonstrations_of_the_stages_divide_whichever_file_said_so(tmp_path: Path) -> None:
    counts = ((100, 100, 100), (100, 100, 100), (9, 9, 9), (9, 20, 9))
    runs = [read_run(with_demonstrations(write_run(tmp_path / str(seed), seed=seed), stages)) for seed, stages in enumerate(counts)]
    assert runs[3].stage_demonstrations == (9, 20, 9)
    assert [(group.label, group.seeds) for group in group_runs(runs)] == [
        ("trust-region", (0, 1)),
        ("trust-region, demonstrations.episodes=9", (2,)),
        ("trust-region, demonstrations.episodes=[9, 20, 9]", (3,)),
    ]
    silent = with_settings(with_demonstrations(write_run(tmp_path / "silent"), (None,) * 3), demonstrations={"episodes": 7})
    assert settings_of(read_run(silent))["demonstrations.episodes"] == 7


def test_how_often_one_saves_and_logs_does_not_divide(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", seed=0)
    second = with_settings(write_run(tmp_path / "b", seed=1), save_minutes=9.0, train={"updates": 500, "batch": 256, "log_every": 7})
    assert [group.seeds for group in group_runs([read_run(first), read_run(second)])] == [(0, 1)]


def test_a_method_begins_with_the_group_that_bears_its_name_alone(tmp_path: Path) -> None:
    stored = with_settings(write_run(tmp_path / "a", method="replay"), replay={"source": "stored"})
    folders = [stored, write_run(tmp_path / "b", method="finetune"), write_run(tmp_path / "c", method="replay")]
    assert [group.label for group in group_runs([read_run(folder) for folder in folders])] == ["replay", "replay, source=stored", "finetune"]


def test_a_setting_that_the_method_does_not_read_does_not_divide(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", method="finetune", seed=0)
    second = with_settings(write_run(tmp_path / "b", method="finetune", seed=1), replay={"source": "stored"})
    assert [(group.label, group.seeds) for group in group_runs([read_run(first), read_run(second)])] == [("finetune", (0, 1))]


def test_a_default_written_as_a_list_is_the_default(tmp_path: Path) -> None:
    written = with_settings(write_run(tmp_path / "a", seed=0), recovery={"grid": list(RecoveryConfig().grid)})
    assert len(group_runs([read_run(written), read_run(write_run(tmp_path / "b", seed=1))])) == 1


def test_long_lists_are_not_written_out_but_labels_differ(tmp_path: Path) -> None:
    assert worded([1, 2, 3, 4]) == "[1, 2, 3, 4]" and worded([1, 2, 3, 4, 5]) == "5 entries"
    grids = ([1, 2, 3, 4, 5], [1, 2, 3, 4, 6])
    runs = [read_run(with_settings(write_run(tmp_path / str(number)), recovery={"grid": grid})) for number, grid in enumerate(grids)]
    label = "trust-region, grid=5 entries"
    assert [group.label for group in group_runs(runs)] == [label, f"{label} (#2)"]


def test_another_order_of_the_stages_is_another_curriculum_which_the_notes_name_once(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / str(number), stages)) for number, stages in enumerate((POINT_REACH, POINT_REACH[::-1]))]
    label = "trust-region, curriculum=synthetic"
    assert [group.label for group in group_runs(runs)] == [label, f"{label} (#2)"]
    notes = summarise(runs).notes
    assert any("Other stages than those of" in note for note in notes)
    assert not any("Settings that are not the same" in note for note in notes)


def test_where_no_run_is_finished_all_count(tmp_path: Path) -> None:
    found = summarise([read_run(write_run(tmp_path / "a", method="replay", done=2))])
    assert [row.label for row in found.methods] == ["replay"] and not any("Not finished" in note for note in found.notes)


def test_warnings_are_about_the_runs_that_count(tmp_path: Path) -> None:
    finished = write_run(tmp_path / "a", method="replay")
    unfinished = write_run(tmp_path / "b", method="replay", seed=1, done=1)
    found = json.loads((unfinished / "fingerprint.json").read_text())
    (unfinished / "fingerprint.json").write_text(json.dumps({**found, "git_commit": "f" * 40}))
    assert summarise([read_run(finished), read_run(unfinished)]).warnings == ()


def test_a_run_given_twice_counts_once_and_an_unfinished_one_not_at_all(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / name, seed=seed, done=done)) for name, seed, done in (("a", 0, 3), ("b", 0, 3), ("c", 1, 2))]
    experiment = summarise(runs)
    assert experiment.methods[0].seeds == (0,)
    assert any("counted once" in note and "b" in note for note in experiment.notes)
    assert any("Not finished" in note and "2 of 3 stages" in note for note in experiment.notes)


# Tables ------------------------------------------------------------------------------------------------------------------------


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


def test_success_task_by_task_and_stage_by_stage(tmp_path: Path) -> None:
    """Of 8, then 8 and 9, then 6 or 8, 9, 10 of ten each; a task that one seed did not measure rests on the other."""
    folders = [hand_run(tmp_path / str(seed), "replay", seed, final).folder for seed, final in ((0, (6, 9, 10)), (1, (8, 9, 10)))]
    keep_lines(folders[1] / "success_matrix.csv", lambda line: not line.startswith(f"3,{B},"))
    write_tables(folders, tmp_path / "tables")
    tasks, stages = (rows_of(tmp_path / "tables" / f"{name}.csv") for name in ("tasks", "stages"))
    assert [(row["task"], row["seeds"], float(row["success"])) for row in tasks] == [(A, "2", 0.7), (B, "1", 0.9), (C, "2", 1.0)]
    assert tasks[0]["expert"] == f"{118 / 120:.6g}" and tasks[0]["interval_over"] == "seeds"
    assert [(row["stage"], row["new_task"]) for row in stages] == [("1", A), ("2", B), ("3", C)]
    assert [float(row["average_success"]) for row in stages] == pytest.approx([0.8, 0.85, (25 / 30 + 0.9) / 2], abs=1e-6)
    assert float(stages[2]["average_success_high"]) == pytest.approx(mean_interval([25 / 30, 0.9]).high, abs=1e-5)


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


def test_another_form_has_no_published_figures_beside_it(tmp_path: Path) -> None:
    functional = with_settings(write_run(tmp_path / "functional"), train={"trust_region": {"form": "functional"}})
    folders = [write_run(tmp_path / "penalty"), functional]
    assert [group.published_as for group in group_runs([read_run(folder) for folder in folders])] == ["trust-region", ""]


@pytest.mark.parametrize(
    "settings", [{"train": {"trust_region": {"fisher": "diagonal"}}}, {"train": {"distillation": "noise"}}, {"replay": {"source": "stored"}}]
)
def test_another_fisher_target_or_source_has_no_published_figures_beside_it(settings: dict[str, object], tmp_path: Path) -> None:
    (group,) = group_runs([read_run(with_settings(write_run(tmp_path / "a"), **settings))])
    assert group.published_as == ""


def test_joint_has_no_forgetting(tmp_path: Path) -> None:
    row = method_row(RunGroup("joint", "joint", (read_run(write_run(tmp_path / "a", method="joint")),)))
    assert math.isnan(row.forgetting.interval.mean) and math.isnan(row.just_learned.interval.mean)


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


def test_the_page_names_commits_and_versions_of_torch(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / str(seed), seed=seed) for seed in range(3)]
    assert unlike([read_run(folder) for folder in folders]) == []
    for folder, commit, torch in ((folders[1], "f" * 40 + "+changes", "2.9.0"), (folders[2], None, "2.10.0")):
        found = json.loads((folder / "fingerprint.json").read_text())
        (folder / "fingerprint.json").write_text(json.dumps({**found, "git_commit": commit, "versions": {"torch": torch}}))
    torch_by_run = f"the version of torch (2.9.0: {folders[0]}, {folders[1]}; 2.10.0: {folders[2]})"
    assert unlike([read_run(folder) for folder in folders]) == ["commits of the code (3)", torch_by_run]
    page = write_report(folders, tmp_path / "page.html").read_text()
    assert "Commit of the code: 0123456789ab, ffffffffffff+changes, unknown; torch 2.10.0, 2.9.0." in page


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
    assert row.dipped[:2] == (50, 10) and (row.dipped.size, row.dipped.never) == (3, 1)  # 10, 50, never
    assert (median_of_all(row.after_dip, 3), bounds_of_all(row.after_dip, 3), median_of_all(row.after_dip, 4)) == ("no dip", "from 2", "2")
    assert row.dip.mean == pytest.approx(((0 + 0.5 + 0.7) / 3 + (0 + 0 + 0.5) / 3) / 2)
    cells = {cell.cell: cell for cell in recovery_cells(group, published=False)}
    assert list(cells) == [(1, 2), (1, 3), (2, 3)]
    assert (cells[2, 3].after_dip.median, cells[2, 3].after_dip.never, cells[2, 3].steady_seeds) == (10, 1, 0)
    assert cells[2, 3].dip == pytest.approx(0.6) and (cells[2, 3].old_task, cells[2, 3].new_task) == (B, C)


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


def test_the_headline_is_of_the_nearest_threshold(tmp_path: Path) -> None:
    folder = hand_run(tmp_path / "0", "replay", 0, (8, 9, 10)).folder
    path = folder / "recovery.csv"
    rows = path.read_text().splitlines()[1:]
    path.write_text(path.read_text().replace(",90,", ",80,"))
    add_lines(path, *(row.replace(",90,", ",99,") for row in rows))
    assert [recovery_headline(read_run(folder), asked).threshold for asked in (85, 95)] == [80, 99]


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


def test_a_group_is_not_compared_with_itself(tmp_path: Path) -> None:
    runs = [hand_run(tmp_path / method, method, 0, (8, 9, 10)) for method in ("replay", "ewc")]
    assert {row.label for row in summarise(runs).wins} == {"ewc"}


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


def test_the_reference_is_the_group_with_the_most_seeds(tmp_path: Path) -> None:
    runs = [with_settings(write_run(tmp_path / "odd", method="replay"), demonstrations={"paces": [0.5]})]
    runs += [with_settings(write_run(tmp_path / str(seed), method="replay", seed=seed), demonstrations={"paces": [0.7]}) for seed in (0, 1)]
    groups = group_runs([read_run(folder) for folder in runs])
    assert find_reference(groups).seeds == find_reference(groups, "replay").seeds == (0, 1)
    assert find_reference(groups, groups[0].label).seeds == (0,)


def test_the_published_tables_are_read_honestly() -> None:
    assert published_wins("trust-region", "replay", 99) == Wins(wins=16, ties=15, losses=14)
    assert published_wins("replay", "trust-region", 99) == Wins(wins=14, ties=15, losses=16)
    assert published_wins("joint", "replay", 99) is None and published_wins("replay", "replay", 99) is None


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


# Files and page ----------------------------------------------------------------------------------------------------------------


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


def test_csv_leaves_out_what_is_not_there() -> None:
    assert csv_text([{"a": float("nan"), "b": None, "c": 0.1234567}, {"a": 1, "b": "x, y", "c": 2.0}]) == 'a,b,c\n,,0.123457\n1,"x, y",2\n'
    assert csv_text([]) == ""


def test_the_page_of_an_experiment_says_what_it_rests_on(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"replay-{seed}", CW10, "replay", seed) for seed in (0, 1)]
    folders += [write_run(tmp_path / "trust-region", CW10, "trust-region", 0)]
    page = write_report(folders, tmp_path / "page.html").read_text()
    one_seed = "one seed, so the interval is the binomial one"
    for text in ("Differences from replay", "Who came back sooner", "88.3\N{NARROW NO-BREAK SPACE}% ± 0.4", one_seed):
        assert text in page
    assert page.count("<summary>All cells of") == 2 and ">nan" not in page


def test_the_page_says_no_dip_where_the_median_is_the_floor_and_cuts_bounds_to_what_can_be(tmp_path: Path) -> None:
    """Dips of 0.8, 0.8, 0.9 in one seed and 0.4 thrice in the other: a mean of 0.62, whose interval reaches beyond both ends."""
    falls = (((8, 0, 0, 0), (8, 0, 0, 0), (9, 0, 0, 0)), ((8, 8, 4, 8), (8, 8, 4, 8), (9, 9, 5, 9)))
    runs = [hand_run(tmp_path / f"r{seed}", "replay", seed, (8, 9, 10)) for seed in (0, 1)]
    runs += [hand_run(tmp_path / f"f{seed}", "finetune", seed, (0, 0, 10), curves) for seed, curves in enumerate(falls)]
    page = write_report([run.folder for run in runs], tmp_path / "page.html").read_text()
    assert len(re.findall(r">\s*no dip\s*</td>", page)) == 2 and "61.7<br><small>0.0 to 100.0</small>" in page
    assert "peak forgetting, points" in page and "backward transfer, points" in page and "forward transfer, points" not in page


def test_the_page_of_many_runs_leaves_out_the_single_ones(tmp_path: Path) -> None:
    page = write_report([write_run(tmp_path / f"{seed}", seed=seed) for seed in range(7)], tmp_path / "page.html").read_text()
    assert "There is one method only" in page and '<section id="run-' not in page
    assert ">published" not in page and "s.e." not in page


def test_an_experiment_without_a_single_result_has_a_page(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / method, method=method, done=0) for method in ("replay", "ewc")]
    for folder in folders:
        for name in ("cost.json", "ledger.csv", "success_matrix.csv"):
            (folder / name).unlink()
    page = write_report(folders, tmp_path / "page.html").read_text()
    assert "No online recovery was measured" in page and ">nan" not in page


def test_the_command_finds_runs_at_any_depth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for method, seed in (("replay", 10), ("replay", 2), ("ewc", 2)):
        with_settings(write_run(tmp_path / "results" / method / f"seed-{seed}", method=method, seed=seed))
    output, tables = tmp_path / "page.html", tmp_path / "tables"
    arguments = (tmp_path / "results", tmp_path / "results" / "ewc")
    assert Report(arguments, output=output, tables=tables, reference="ewc").run("") == 0
    assert "3 runs compared" in output.read_text() and "Differences from ewc" in output.read_text()
    assert output.read_text().index("replay, seed 2") < output.read_text().index("replay, seed 10")
    assert rows_of(tables / "paired.csv")[0]["method"] == "replay"
    assert str(tables) in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunFolderError, match="holds no run"):
        Report((tmp_path / "empty",)).run("")
