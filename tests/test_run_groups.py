"""Which runs are seeds of one group, and what a group is called."""

from __future__ import annotations

from pathlib import Path

import pytest
from edited_run import with_demonstrations, with_settings
from synthetic_run import POINT_REACH, write_run

from reconverge.eval.config import RecoveryConfig
from reconverge.eval.experiment import summarise
from reconverge.eval.run_groups import default_settings, group_runs, settings_of, worded
from reconverge.eval.run_results import read_run
from reconverge.launch.config import RunConfig
from reconverge.launch.config_file import flat


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


@pytest.mark.parametrize("ablated", [1, 3, 4])
def test_what_an_ablation_changes_is_named_and_not_what_its_base_has(ablated: int, tmp_path: Path) -> None:
    """Also where the base is not at the default, which is 1, and an ablation is; and where one changes two settings."""
    folders = [with_settings(write_run(tmp_path / "replay" / "seed-0", method="replay"), train={"replay_weight": 10.0})]
    single = [{"replay_weight": 1.0}, {"replay_weight": 10.0, "replay_ratio": 2.0}, {"replay_weight": 3.0}]
    for change in [*single, {"replay_weight": 5.0, "replay_ratio": 3.0}][:ablated]:
        folders += [with_settings(write_run(tmp_path / "replay" / str(change) / "seed-0", method="replay"), train=change)]
    found = summarise([read_run(folder) for folder in folders])
    changed = ["replay_weight=1.0", "replay_ratio=2.0", "replay_weight=3.0", "replay_ratio=3.0, replay_weight=5.0"][:ablated]
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
