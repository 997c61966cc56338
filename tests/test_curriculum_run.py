"""Curricula of one's own through the real loop: repeats, budgets per stage, a file that changes later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from csv_rows import rows_of
from forked_run import everything
from small_run import run, tiny

from reconverge.envs.curriculum import load_curriculum
from reconverge.envs.episodes import Episode
from reconverge.envs.errors import ConfigError, RunFolderError, TrainingDiverged
from reconverge.envs.simulators import Simulators
from reconverge.envs.task import Task
from reconverge.envs.tasks import find_task
from reconverge.eval import run_section
from reconverge.eval.config import EvaluationConfig, VideoConfig
from reconverge.eval.headlines import backward_transfer, forgetting
from reconverge.eval.rollout import EpisodeResult, Rollouts, evaluation_seeds, rollout
from reconverge.eval.run_results import read_run
from reconverge.launch import curriculum_run, stage_evaluation
from reconverge.launch.assembly import Assembly, assemble
from reconverge.launch.checkpoint_evaluation import Asked, evaluate, pooled
from reconverge.launch.cli import main
from reconverge.launch.config import RunConfig
from reconverge.launch.curriculum_run import train
from reconverge.launch.progress import Progress
from reconverge.launch.recovery_probe import recover
from reconverge.launch.remaining_time import planned_work
from reconverge.launch.run_cost import write_cost
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.stage_plan import plan_stages
from reconverge.launch.verification import verify
from reconverge.policy.config import OptimizerConfig

MINE = """
name: mine
tasks: [point-reach-0, {task: point-reach-1, updates: 9, demonstrations: 3}, point-reach-0]
updates: 12
demonstrations: 5
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(MINE)
    return file


@pytest.mark.parametrize(("decay", "told"), [(0.99, True), (0.8, False)])
def test_an_average_that_is_too_slow_for_a_stage_is_told(decay: float, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """0.99^20 = 0.82 of the start; 0.8^20 = 0.01."""
    notes: list[str] = []
    monkeypatch.setattr(Progress, "note", lambda progress, text: notes.append(text))
    config = tiny(tmp_path, curriculum="point-reach:1")
    run(tmp_path / "run", replace(config, policy=replace(config.policy, ema_decay=decay)))
    assert any("82 % of the weights that a stage hands over" in note for note in notes) == told


def test_the_first_stage_is_scaled_by_its_own_demonstrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first task comes again with more of them: what a later stage is shown changes no earlier one."""
    shown: list[int] = []

    def kept(config: RunConfig, tasks: list[Task], first: Sequence[Episode] = (), simulators: Simulators | None = None) -> Assembly:
        shown.append(len(first))
        return assemble(config, tasks, first, simulators)

    monkeypatch.setattr(curriculum_run, "assemble", kept)
    file = tmp_path / "again.yaml"
    file.write_text("name: again\ntasks: [{task: point-reach-0, demonstrations: 5}, point-reach-1, {task: point-reach-0, demonstrations: 9}]\n")
    run(tmp_path / "run", tiny(tmp_path, curriculum=str(file), method="finetune"))
    assert shown == [5]


def test_budgets_come_from_the_file_first(mine: Path, tmp_path: Path) -> None:
    plans = plan_stages(tiny(tmp_path), load_curriculum(str(mine)))
    assert [(plan.updates, plan.demonstrations) for plan in plans] == [(12, (5,)), (9, (3,)), (12, (5,))]
    (joint,) = plan_stages(tiny(tmp_path, method="joint"), load_curriculum(str(mine)))
    assert (joint.number, joint.updates, joint.demonstrations) == (3, 33, (5, 3))


def test_a_task_may_come_back(mine: Path, tmp_path: Path) -> None:
    path = run(tmp_path / "run", tiny(tmp_path, curriculum=str(mine)))
    results = read_run(path)
    assert results.stages == ("point-reach-0", "point-reach-1", "point-reach-0") and results.finished
    assert results.stage_updates == (12, 9, 12)
    assert set(results.curves) == {("online", 2, "point-reach-0"), ("online", 3, "point-reach-1")}


def test_a_run_keeps_its_curriculum_when_the_file_changes(mine: Path, tmp_path: Path) -> None:
    config = tiny(tmp_path, curriculum=str(mine))
    path = run(tmp_path / "run", config)
    before = (path / "curriculum.yaml").read_text(), (path / "episodes.csv").read_bytes()
    mine.unlink()
    with RunFolder.resume(path) as folder:
        train(config, folder, Progress("quiet"))
    assert ((path / "curriculum.yaml").read_text(), (path / "episodes.csv").read_bytes()) == before


def cells(path: Path) -> dict[int, list[str]]:
    """Stage -> the tasks of its row of the success matrix, as digits."""
    rows: dict[int, list[str]] = {}
    for cell in read_run(path).cells:
        rows.setdefault(cell.stage, []).append(cell.task[-1])
    return rows


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {0: "012", 1: "01", 2: "012", 3: "012"}),
        ({"later_tasks": True}, {0: "012", 1: "012", 2: "012", 3: "012"}),
        ({"later_tasks": True, "next_task": False}, {0: "012", 1: "012", 2: "012", 3: "012"}),
        ({"next_task": False}, {1: "0", 2: "01", 3: "012"}),
    ],
)
def test_tasks_that_are_still_to_come_are_evaluated_as_far_as_one_asks(
    settings: dict[str, bool], expected: dict[int, str], tmp_path: Path
) -> None:
    config = tiny(tmp_path, curriculum="point-reach:3", method="finetune")
    path = run(tmp_path / "run", replace(config, evaluation=EvaluationConfig(episodes=3, workers=0, **settings)))
    assert cells(path) == {stage: list(tasks) for stage, tasks in expected.items()}
    work = planned_work(read_run(path))
    assert [stage["evaluate"] for stage in work] == [len(expected.get(stage, "")) for stage in range(4)]


def test_later_tasks_add_cells_and_change_none(tmp_path: Path) -> None:
    config = tiny(tmp_path, curriculum="point-reach:3", method="single")
    usual = run(tmp_path / "usual", config)
    whole = run(tmp_path / "whole", replace(config, evaluation=EvaluationConfig(episodes=3, workers=0, later_tasks=True)))
    found, rows = ((path / "episodes.csv").read_text().splitlines() for path in (whole, usual))
    assert [row for row in found if row in set(rows)] == rows
    assert {row.split(",")[1] + row.split(",")[3][-1] for row in set(found) - set(rows)} == {"12"}  # after stage 1, on task 2


def test_episodes_that_single_copies_count_once_and_say_nothing_of_forgetting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[EpisodeResult] = []

    def kept(*given: Any, **named: Any) -> Rollouts:
        done = rollout(*given, **named)
        played.extend(done.results)
        return done

    monkeypatch.setattr(stage_evaluation, "rollout", kept)
    path = run(tmp_path / "run", tiny(tmp_path, curriculum="point-reach:3", method="single"))
    results = read_run(path)
    assert results.cost["episodes_evaluated"] == len(played) == 24 < len(results.episodes)
    assert run_section._episode_note(results) == "3 episodes per cell, 24 in all"
    assert forgetting(results)[:3] == backward_transfer(results)[:3] == (0, 0, 0)
    with RunFolder.resume(path) as folder:
        write_cost(folder, Progress("quiet"))  # as after rendering
    assert read_run(path).cost["episodes_evaluated"] == 24
    assert "cost.json" not in [check.subject for check in verify(path)]
    (path / "cost.json").write_text('{"episodes_evaluated": 25}')
    assert "episodes_evaluated: found 25, expected 24" in [check.detail for check in verify(path)]


@pytest.mark.parametrize("method", ["finetune", "ewc", "replay", "trust-region", "joint"])
def test_every_method_runs_the_whole_loop(method: str, tmp_path: Path) -> None:
    results = read_run(run(tmp_path / method, tiny(tmp_path, method=method, curriculum="point-reach:2")))
    assert results.finished and len(results.ledger) > 0
    keeps_data = {item.past_task_data for item in results.ledger}
    assert (True in keeps_data) == (method == "joint")


def test_stored_replay_is_in_the_ledger_as_past_data(tmp_path: Path) -> None:
    config = tiny(tmp_path, method="replay", curriculum="point-reach:2")
    results = read_run(run(tmp_path / "run", replace(config, replay=replace(config.replay, source="stored"))))
    assert any(item.past_task_data for item in results.ledger)


def test_a_carried_second_moment_is_in_the_ledger(tmp_path: Path) -> None:
    config = tiny(tmp_path, method="finetune", curriculum="point-reach:2")
    config = replace(config, train=replace(config.train, optimizer=OptimizerConfig(carry_second_moment=True)))
    ledger = {item.item: item.bytes for item in read_run(run(tmp_path / "run", config)).ledger}
    assert ledger["second moment of the optimizer"] == ledger["policy, which is also the next teacher"]


def test_every_sampler_gives_the_same_run_twice(tmp_path: Path) -> None:
    for sampler in ("ddpm", "ddim", "dpm-solver++"):
        config = tiny(tmp_path, curriculum="point-reach:2")
        config = replace(config, policy=replace(config.policy, sampler=sampler, temperature=1.0))
        paths = [run(tmp_path / f"{sampler}-{turn}", config) for turn in (0, 1)]
        weights = [(path / "checkpoints" / "stage-02" / "policy.safetensors").read_bytes() for path in paths]
        assert weights[0] == weights[1]


def test_a_missing_stage_is_answered_with_those_there_are(tmp_path: Path) -> None:
    folder = RunFolder.open(run(tmp_path / "run", tiny(tmp_path, curriculum="point-reach:1")))
    with pytest.raises(RunFolderError, match="has no checkpoint of stage 7; it has stages 0, 1"):
        evaluate(folder, Progress("quiet"), Asked(stage=7))
    with pytest.raises(RunFolderError, match="there is nothing to recover"):
        recover(folder, Progress("quiet"))


def test_a_run_on_validation_episodes_meets_those_alone(tmp_path: Path) -> None:
    config = tiny(tmp_path, method="replay", curriculum="point-reach:2")
    path = run(tmp_path / "run", replace(config, evaluation=replace(config.evaluation, split="validation")))
    played = [(row["purpose"], row["task"], int(row["episode_seed"])) for row in rows_of(path / "episodes.csv")]
    assert {purpose for purpose, _, _ in played} == {"matrix", "recovery"}
    for task in ("point-reach-0", "point-reach-1"):
        assert {seed for _, name, seed in played if name == task} == set(evaluation_seeds(find_task(task), 3, "validation"))
    assert {check.outcome for check in verify(path) if check.subject == "episodes.csv"} == {"ok"}
    (of_run, of_test) = (evaluate(RunFolder.open(path), Progress("quiet"), Asked(split=split)) for split in (None, "test"))
    assert [row["split"] for row in [*of_run, *of_test]] == ["validation", "validation", "test", "test"]
    matrix = read_run(path).cell_at
    assert [row["rate"] for row in of_run] == [matrix[2, row["task"]].rate for row in of_run]


def test_a_checkpoint_is_evaluated_again_with_other_samplers(tmp_path: Path) -> None:
    path = run(tmp_path / "run", tiny(tmp_path, curriculum="point-reach:2"))
    rows = evaluate(RunFolder.open(path), Progress("quiet"), Asked(samplers=("ddim", "dpm-solver++"), sampling_steps=(1, 5), tasks=["point-reach-1"]))
    assert [(row["sampler"], row["steps"]) for row in rows] == list(product(("ddim", "dpm-solver++"), (1, 5)))
    assert [row["episodes"] for row in pooled(rows)] == [3] * 4
    matrix = read_run(path).cell_at[2, "point-reach-1"]
    assert rows[1]["rate"] == matrix.rate  # the run's own sampler: alone, a task gives what it gave among others
    with pytest.raises(ConfigError, match=r"51: dpm-solver\+\+ takes 1 to 49"):
        evaluate(RunFolder.open(path), Progress("quiet"), Asked(sampling_steps=(51,)))
    rows = evaluate(RunFolder.open(path), Progress("quiet"), Asked(temperatures=(0.0, 1.0)))
    assert [row["temperature"] for row in pooled(rows)] == [0.0, 1.0]
    asked = Asked(tasks=["point-reach-1", "point-reach-1"], temperatures=(0.0, 0.0))
    assert [(row["task"], row["episodes"]) for row in evaluate(RunFolder.open(path), Progress("quiet"), asked)] == [("point-reach-1", 3)]  # once
    with pytest.raises(ConfigError, match=r"--temperatures 1\.5 .* from 0 to 1"):
        evaluate(RunFolder.open(path), Progress("quiet"), Asked(temperatures=(1.5,)))


def test_episodes_of_an_evaluation_are_those_of_the_run_with_how_the_policy_acted(tmp_path: Path) -> None:
    path, output = run(tmp_path / "run", tiny(tmp_path, curriculum="point-reach:2")), tmp_path / "new" / "episodes.csv"
    assert main(["evaluate", str(path), "--temperatures", "0", "1", "--episodes-output", str(output), "--quiet"]) == 0
    in_run = [row for row in rows_of(path / "episodes.csv") if (row["purpose"], row["stage"]) == ("matrix", "2")]
    rows = rows_of(output)
    way = {"split": "test", "sampler": "dpm-solver++", "sampling_steps": "5", "temperature": "0.0", "purpose": "evaluate"}
    assert rows[: len(in_run)] == [{**row, **way} for row in in_run] and [row["temperature"] for row in rows[len(in_run) :]] == ["1.0"] * len(in_run)


def test_where_the_time_went_adds_up_and_is_told_by_phase(tmp_path: Path) -> None:
    path = tmp_path / "run"
    config = tiny(tmp_path, curriculum="point-reach:2")
    with RunFolder.create(path, config, "test") as folder:
        progress = Progress("quiet")
        train(config, folder, progress)
        started = progress.total_s
    cost = read_run(path).cost
    assert {"demonstrations", "update", "fisher", "generator", "replay", "checkpoint", "other"} <= set(cost["phases"])
    assert {f"{phase}/{part}" for phase in ("evaluate", "recovery") for part in ("simulate", "sample")} <= set(cost["phases"])
    assert sum(cost["phases"].values()) == pytest.approx(cost["total_s"], abs=0.1) and cost["total_s"] <= started + 0.1


def test_a_diverged_run_stops_with_advice_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    config = tiny(tmp_path, curriculum="point-reach:1")
    optimizer = replace(config.train.optimizer, learning_rate=1e30, max_gradient_norm=0.0, warmup_fraction=0.0)
    with pytest.raises(TrainingDiverged, match="the last checkpoint is intact"):
        run(tmp_path / "run", replace(config, train=replace(config.train, optimizer=optimizer)))
    assert (tmp_path / "run" / "checkpoints" / "stage-00" / "manifest.json").exists()


def test_recording_for_videos_changes_no_figure(tmp_path: Path) -> None:
    with_videos, without = (
        everything(run(tmp_path / f"videos-{count}", tiny(tmp_path, curriculum="point-reach:2", video=VideoConfig(episodes=count, render=False))))
        for count in (2, 0)
    )
    assert with_videos == without
    assert list((tmp_path / "videos-2" / "rollouts").rglob("*.safetensors")) and not (tmp_path / "videos-0" / "rollouts").exists()
