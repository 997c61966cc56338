"""A finished run that is given more stages."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from csv_rows import rows_of
from edited_run import with_fingerprint
from forked_run import everything, forked, lose_power_before
from small_run import run, tiny, toy_config

from reconverge.envs.errors import ConfigError, CurriculumError, DamagedFile, ReconvergeError, RunFolderError
from reconverge.envs.plain_json import read_json_object
from reconverge.eval.run_groups import group_runs
from reconverge.eval.run_results import read_run
from reconverge.launch.assembly import assemble
from reconverge.launch.cli import main
from reconverge.launch.config import METHODS, RunConfig
from reconverge.launch.curriculum_run import train
from reconverge.launch.extension import extend, widen
from reconverge.launch.job import look
from reconverge.launch.job_plan import make_job
from reconverge.launch.progress import Progress
from reconverge.launch.restored_learner import restore_learner
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.stage_evaluation import StageEvaluation
from reconverge.launch.stage_plan import run_curriculum
from reconverge.launch.verification import verify
from reconverge.policy.methods.l2 import UniformImportance
from reconverge.policy.methods.quadratic_penalty import QuadraticPenalty
from reconverge.replay.generated_windows import GeneratedWindows


def longer(config: RunConfig, curriculum: str = "point-reach:4") -> RunConfig:
    return replace(config, curriculum=curriculum)


def extended(before: Path, path: Path, config: RunConfig) -> Path:
    with extend(before, config, path, "reconverge train --extend") as folder:
        train(config, folder, Progress("quiet"))
    return path


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunConfig]:
    """A run of two toy tasks, by trust-region with the generator."""
    folder = tmp_path_factory.mktemp("two")
    config = tiny(folder, curriculum="point-reach:2")
    return run(folder / "two", config), config


@pytest.fixture(scope="module")
def four(two: tuple[Path, RunConfig]) -> Path:
    """It, with two tasks more."""
    before, config = two
    return extended(before, before.parent / "four", longer(config))


def test_a_policy_that_is_not_told_its_task_ends_with_the_bits_of_a_run_that_knew_all_from_the_start(tmp_path: Path) -> None:
    """Nothing is as wide as there are tasks then, where windows are stored."""
    base = tiny(tmp_path)
    agnostic = replace(base, policy=replace(base.policy, task_conditioned=False), replay=replace(base.replay, source="stored"))
    two = run(tmp_path / "two", replace(agnostic, curriculum="point-reach:2"))
    at_once, in_two = run(tmp_path / "at-once", longer(agnostic)), extended(two, tmp_path / "in-two", longer(agnostic))
    expected, found = everything(at_once), everything(in_two)
    assert found.keys() == expected.keys() and len(found) > 15
    assert [name for name in expected if found[name] != expected[name]] == []


def test_what_was_measured_before_stays_and_the_new_tasks_have_all_their_cells(two: tuple[Path, RunConfig], four: Path) -> None:
    def cells(path: Path) -> dict[tuple[str, str], str]:
        return {(row["stage"], row["task"]): row["successes"] for row in rows_of(path / "success_matrix.csv")}

    before, after = cells(two[0]), cells(four)
    assert {place: after[place] for place in before} == before
    # 0: untrained, all four; 2: the two, and the next, which the shorter run did not know; 3: three and the next; 4: four
    assert {stage: sum(place[0] == stage for place in after) for stage in "01234"} == {"0": 4, "1": 2, "2": 3, "3": 4, "4": 4}
    assert [check for check in verify(four) if check.outcome == "DIFFERS"] == []
    assert (four / "rollouts" / "stage-01").is_dir()


def test_a_longer_run_counts_the_time_of_the_one_that_it_extends(two: tuple[Path, RunConfig], four: Path) -> None:
    spent = [json.loads((path / "cost.json").read_text())["phases"]["update"] for path in (two[0], four)]
    assert spent[1] > spent[0] > 0


def test_on_the_tasks_so_far_policy_penalty_and_generator_are_those_of_the_shorter_run(two: tuple[Path, RunConfig]) -> None:
    before, config = two
    narrow = restore_learner(config, RunFolder.open(before), 2)
    tasks = run_curriculum(RunFolder(Path("nowhere")), longer(config)).tasks
    wide = assemble(longer(config), tasks)
    widen(narrow, wide, 2)

    observations, task = torch.zeros(3, config.policy.window, tasks[0].observation_size), torch.ones(3, dtype=torch.int64)
    streams = [[torch.Generator().manual_seed(row) for row in range(3)] for _ in range(2)]
    chunks = [each.learner.policy.sample_chunk(observations, task, noise) for each, noise in zip((narrow, wide), streams, strict=True)]
    assert torch.allclose(*chunks, atol=1e-5)

    penalties = []
    for each in (narrow, wide):
        (hook,) = [hook for hook in each.learner.method.hooks if isinstance(hook, QuadraticPenalty)]
        each.learner.parameters.values.mul_(1.5)
        each.learner.parameters.gradient.zero_()
        penalty = hook.add_penalty_gradient(each.learner)
        assert penalty is not None
        penalties.append(torch.stack([penalty, each.learner.parameters.gradient.norm()]))
    assert penalties[0].min() > 0 and torch.allclose(*penalties, rtol=1e-3)

    sources = [each.source for each in (narrow, wide)]
    assert all(isinstance(source, GeneratedWindows) for source in sources)
    windows = [source.generator.generate(1, 5, "test")[0] for source in sources if isinstance(source, GeneratedWindows)]
    assert windows[0].abs().max() > 0 and torch.allclose(*windows, atol=1e-5)


@pytest.mark.parametrize("method", [method for method in METHODS if method not in ("joint", "trust-region")])
def test_every_method_can_be_given_another_task(method: str, tmp_path: Path) -> None:
    config = tiny(tmp_path, curriculum="point-reach:1", method=method)
    one = run(tmp_path / "one", config)
    path = extended(one, tmp_path / "two", longer(config, "point-reach:2"))
    assert read_run(path).finished and [check for check in verify(path) if check.outcome == "DIFFERS"] == []


def test_l2_holds_what_tells_the_new_task_as_much_as_any_other_weight(tmp_path: Path) -> None:
    """Its importance is 1 for every weight, not what an untrained one would have measured."""
    config = tiny(tmp_path, curriculum="point-reach:1", method="l2")
    one = run(tmp_path / "one", config)
    narrow = restore_learner(config, RunFolder.open(one), 1)
    wide = assemble(longer(config, "point-reach:3"), run_curriculum(RunFolder(Path("nowhere")), longer(config, "point-reach:3")).tasks)
    widen(narrow, wide, 1)
    (hook,) = wide.learner.method.hooks
    assert isinstance(hook, UniformImportance) and hook.region.curvature.unique().tolist() == [1.0]


def test_a_task_that_comes_again_needs_no_new_column(two: tuple[Path, RunConfig], tmp_path: Path) -> None:
    before, config = two
    (tmp_path / "again.yaml").write_text("tasks: [point-reach-0, point-reach-1, {task: point-reach-0, updates: 7, demonstrations: 5}]")
    path = extended(before, tmp_path / "again", longer(config, str(tmp_path / "again.yaml")))
    found = read_run(path)
    assert found.stages == ("point-reach-0", "point-reach-1", "point-reach-0") and found.stage_updates == (20, 20, 7)
    assert len({file.stat().st_size for file in (before / "checkpoints").glob("*/policy.safetensors")} | {
        file.stat().st_size for file in (path / "checkpoints").glob("*/policy.safetensors")}) == 1


def test_a_run_can_be_extended_twice(four: Path, two: tuple[Path, RunConfig], tmp_path: Path) -> None:
    path = extended(four, tmp_path / "five", longer(two[1], "point-reach:5"))
    assert RunFolder.open(path).extended_after == (2, 4)
    assert read_run(path).finished and [check for check in verify(path) if check.outcome == "DIFFERS"] == []


def test_it_is_another_kind_of_run_than_one_that_knew_all_its_tasks(two: tuple[Path, RunConfig], four: Path, tmp_path: Path) -> None:
    """A sweep does not take it for its own, and a report does not average over the two."""
    config = longer(two[1])
    holding = look(four, make_job(config, "smoke"))
    assert holding.state == "other" and "extended after" in holding.reason
    at_once = run(tmp_path / "at-once", config)
    labels = [group.label for group in group_runs([read_run(at_once), read_run(four)])]
    assert labels == ["trust-region", "trust-region, extended_after=[2]"]


def test_broken_off_while_it_takes_over_it_goes_on_or_says_what_it_lacks(two: tuple[Path, RunConfig], tmp_path: Path) -> None:
    """Ahead of every sixth change of the disk the power fails; afterwards the folder holds no run, lacks a stage by name, or is whole."""
    before, config = two
    told, whole = everything(before), longer(config)
    finished, outcomes = everything(extended(before, tmp_path / "through", whole)), []
    for change in range(1, 400, 6):
        path = tmp_path / str(change)
        path.mkdir()
        if forked(partial(_power_fails, change, before, whole, path)) == 0:
            break
        if not (path / "config.yaml").exists():
            outcomes.append("nothing")
            continue
        with RunFolder.resume(path) as folder:
            try:
                train(folder.config, folder, Progress("quiet"))
            except RunFolderError as refusal:
                assert "--overwrite" in str(refusal)
                outcomes.append("torn")
            else:
                assert everything(path) == finished
                outcomes.append("whole")
    assert set(outcomes) >= {"nothing", "torn"} and outcomes == sorted(outcomes), outcomes
    assert everything(before) == told
    torn = tmp_path / str(1 + 6 * outcomes.index("torn"))
    with extend(before, whole, torn, "reconverge train", overwrite=True) as folder:
        assert sorted(place.name for place in folder.checkpoints.iterdir()) == ["stage-00", "stage-01", "stage-02"]


def _power_fails(change: int, before: Path, config: RunConfig, path: Path) -> None:
    lose_power_before(change, path)
    extend(before, config, path, "reconverge train").close()


def test_a_damaged_run_is_found_out_before_anything_is_deleted(two: tuple[Path, RunConfig], four: Path, tmp_path: Path) -> None:
    before, config = two
    damaged, kept = tmp_path / "damaged", tmp_path / "kept"
    shutil.copytree(before, damaged)
    shutil.copytree(four, kept)
    weights = damaged / "checkpoints" / "stage-01" / "policy.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    told = everything(kept)
    with pytest.raises(DamagedFile, match="stage-01"):
        extend(damaged, longer(config), kept, "reconverge train", overwrite=True)
    assert everything(kept) == told


@pytest.mark.parametrize(("run_at", "path"), [("outer/inner", "outer"), ("outer", "outer/inner"), ("outer", "link/inner")])
def test_neither_run_may_lie_within_the_other(run_at: str, path: str, two: tuple[Path, RunConfig], tmp_path: Path) -> None:
    shutil.copytree(two[0], tmp_path / run_at)
    (tmp_path / "link").symlink_to(tmp_path / "outer")
    with pytest.raises(ConfigError, match="one within the other"):
        extend(tmp_path / run_at, longer(two[1]), tmp_path / path, "reconverge train", overwrite=True)
    assert everything(tmp_path / run_at) == everything(two[0])


def test_a_task_that_comes_again_with_more_demonstrations_brings_them(two: tuple[Path, RunConfig], tmp_path: Path) -> None:
    before, config = two
    (tmp_path / "more.yaml").write_text("tasks: [point-reach-0, point-reach-1, {task: point-reach-0, demonstrations: 65}]")
    path = extended(before, tmp_path / "more", longer(config, str(tmp_path / "more.yaml")))
    assert read_run(path).stage_demonstrations == (60, 60, 65)
    begun = [read_json_object(folder / "fingerprint.json")["demonstrations"] for folder in (before, path)]
    assert begun[0]["point-reach-1"] == begun[1]["point-reach-1"] and begun[0]["point-reach-0"] != begun[1]["point-reach-0"]


def test_what_is_told_of_a_run_is_told_of_the_one_that_extends_it(two: tuple[Path, RunConfig], tmp_path: Path) -> None:
    told, more = read_json_object(two[0] / "fingerprint.json"), {"processes": 2, "begun_again": ["the loss leapt"], "resumed_with": ["torch 1 -> 2"]}
    before = with_fingerprint(shutil.copytree(two[0], tmp_path / "before"), **more)
    with extend(before, longer(two[1]), tmp_path / "four", "reconverge train") as folder:
        found = folder.read_fingerprint()
    assert {name: found[name] for name in more} == more
    assert found["extends"] == f"{before} (test)" and found["extended_after"] == [2] and found["simulators"] == told["simulators"]


@pytest.mark.parametrize(("name", "value"), [("resumed_with", 5), *(("extended_after", value) for value in (5, "2", {}, [True], [-3]))])
def test_a_fingerprint_that_says_something_else_is_damaged(name: str, value: object, two: tuple[Path, RunConfig], tmp_path: Path) -> None:
    with_fingerprint(shutil.copytree(two[0], tmp_path / "odd"), **{name: value})
    with pytest.raises(DamagedFile, match=f"'{name}' must be a list"):
        extend(tmp_path / "odd", longer(two[1]), tmp_path / "longer", "reconverge train")
    assert not (tmp_path / "longer").exists()


def test_tables_are_there_while_the_new_tasks_are_measured(two: tuple[Path, RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped then, the folder verifies, and goes on to the tables of one that was not."""
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    before, config = two
    monkeypatch.setattr(StageEvaluation, "matrix_row", stopped)
    with pytest.raises(KeyboardInterrupt):
        extended(before, tmp_path / "stopped", longer(config))
    monkeypatch.undo()
    assert [check for check in verify(tmp_path / "stopped") if check.outcome == "DIFFERS"] == []
    with RunFolder.resume(tmp_path / "stopped") as folder:
        train(folder.config, folder, Progress("quiet"))
    assert everything(tmp_path / "stopped") == everything(extended(before, tmp_path / "through", longer(config)))


def refused(before: Path, config: RunConfig, kind: type[ReconvergeError], words: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=words):
        extend(before, config, tmp_path / "refused", "reconverge train")
    assert not (tmp_path / "refused").exists()


def test_a_curriculum_that_does_not_go_on_where_the_run_ended_is_refused(two: tuple[Path, RunConfig], tmp_path: Path) -> None:
    before, config = two
    refused(before, config, CurriculumError, "has 2 stages, .* has learned 2; name a longer one", tmp_path)
    refused(before, longer(config, "point-reach:1"), CurriculumError, "name a longer one", tmp_path)
    for tasks, words in (
        ("point-reach-0, point-reach-2, point-reach-1", "stage 2: point-reach-2, where .* has point-reach-1"),
        ("{task: point-reach-0, updates: 9}, point-reach-1, point-reach-2", "stage 1: 9 updates, where .* has 20 updates"),
    ):
        (tmp_path / "other.yaml").write_text(f"tasks: [{tasks}]")
        refused(before, longer(config, str(tmp_path / "other.yaml")), CurriculumError, words, tmp_path)


def test_other_settings_are_refused_and_budgets_of_the_new_stages_are_not(two: tuple[Path, RunConfig], tmp_path: Path) -> None:
    before, config = two
    other = replace(longer(config), policy=replace(config.policy, window=3))
    refused(before, other, RunFolderError, "policy.window was 2 and is now 3; leave these out to extend it", tmp_path)
    shorter = replace(longer(config), train=replace(config.train, updates=5))
    with extend(before, shorter, tmp_path / "budgets", "reconverge train") as folder:
        assert [stage.updates for stage in run_curriculum(folder, shorter).stages] == [20, 20, None, None]


def test_what_cannot_be_extended_says_why(tmp_path: Path) -> None:
    config = tiny(tmp_path, curriculum="point-reach:2", method="joint")
    refused(run(tmp_path / "joint", config), longer(config), ConfigError, "`joint` learns all its tasks in one stage", tmp_path)
    config = tiny(tmp_path, curriculum="point-reach:2", method="finetune")
    unfinished = run(tmp_path / "finetune", config)
    (unfinished / "checkpoints" / "stage-02").rename(tmp_path / "away")
    refused(unfinished, longer(config), RunFolderError, "is not finished; finish it first: reconverge train --resume", tmp_path)


def test_from_the_command_line(two: tuple[Path, RunConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = two[0]
    words = ["train", "--extend", str(before), "--curriculum", "point-reach:3"]
    assert main([*words, "--quiet"]) == 2 and "name the folder of the longer run with --output-dir" in capsys.readouterr().err
    assert main([*words, "--output-dir", str(before)]) == 2 and "stays as it is" in capsys.readouterr().err
    assert main([*words, "--resume", str(before)]) == 2 and "leave --overwrite, --output-dir and --extend out" in capsys.readouterr().err
    assert main([*words, "--output-dir", str(tmp_path / "three"), "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "point-reach-2" in said and (tmp_path / "three" / "report.html").exists()
    assert main(["verify", str(tmp_path / "three")]) == 0
    assert f"it extends '{before}"[:40] in capsys.readouterr().out


@pytest.mark.slow
def test_the_toy_world_learned_in_two_runs_is_kept_as_in_one(tmp_path: Path) -> None:
    config = toy_config(tmp_path, method="trust-region", curriculum="point-reach:2")
    found = read_run(extended(run(tmp_path / "two", config), tmp_path / "three", longer(config, "point-reach:3")))
    final = [found.cell_at[3, task].rate for task in found.tasks]
    assert min(final) >= 0.8, final
