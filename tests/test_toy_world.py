"""The toy world must be learned, forgotten without protection, kept with it, and recovered; all through the real loop."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from small_run import run, toy_config

from reconverge.envs.artifact import Artifact
from reconverge.envs.errors import ConfigError
from reconverge.envs.tasks import find_task
from reconverge.eval.config import EvaluationConfig, RecoveryConfig
from reconverge.eval.rollout import evaluation_seeds
from reconverge.eval.run_results import read_run
from reconverge.launch.checkpoint_evaluation import Asked, evaluate
from reconverge.launch.presets import find_preset
from reconverge.launch.progress import Progress
from reconverge.launch.recovery_probe import recover
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.verification import verify
from reconverge.policy.diffusion_policy import DiffusionPolicy

Tasks = list[str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def finetuned(world: Path) -> Path:
    return run(world / "finetune", toy_config(world, method="finetune", curriculum="point-reach:2"))


@pytest.fixture(scope="module")
def protected(world: Path) -> Path:
    return run(world / "trust-region", toy_config(world, method="trust-region", curriculum="point-reach:2"))


def rates(path: Path, stage: int) -> list[float]:
    return list(read_run(path).matrix[stage])


def test_both_learn_each_task_and_the_untrained_policy_does_not(finetuned: Path, protected: Path) -> None:
    for path in (finetuned, protected):
        assert max(rates(path, 0)) < 0.3
        assert rates(path, 1)[0] >= 0.9 and rates(path, 2)[1] >= 0.9


def test_finetuning_forgets_and_the_trust_region_with_the_generator_keeps(finetuned: Path, protected: Path) -> None:
    assert rates(finetuned, 1)[0] - rates(finetuned, 2)[0] > 0.5
    assert rates(protected, 1)[0] - rates(protected, 2)[0] <= 0.1


def test_nothing_of_the_past_is_kept(protected: Path) -> None:
    ledger = read_run(protected).ledger
    assert {item.item for item in ledger} >= {"trajectory generator", "generated windows"}
    assert not any(item.past_task_data for item in ledger)


def test_a_forgotten_task_comes_back_in_a_probe_and_the_count_is_finite(finetuned: Path) -> None:
    before = Artifact(finetuned / "checkpoints" / "stage-02").bytes("policy.safetensors")
    with RunFolder.resume(finetuned) as folder:
        rows = recover(folder, Progress("quiet"))
    assert [row["threshold"] for row in rows] == [99, 90, 80]
    assert all(row["updates"] is not None and 2 <= row["updates"] <= 400 for row in rows)
    assert all(row["dip"] > 0.5 for row in rows)
    assert before == Artifact(finetuned / "checkpoints" / "stage-02").bytes("policy.safetensors")  # the probe trains a copy
    assert recover(RunFolder.open(finetuned), Progress("quiet")) == rows  # measured once, not again
    assert recover(RunFolder.open(finetuned), Progress("quiet"), stages=[2], tasks=["point-reach-0"], device="cpu") == rows
    with pytest.raises(ConfigError, match=r"no earlier task to probe; there are point-reach-0 after stage 2$"):
        recover(RunFolder.open(finetuned), Progress("quiet"), tasks=["point-reach-1"])

    with open(finetuned / "recovery.csv") as file:
        kinds = {row["kind"] for row in csv.DictReader(file)}
    assert kinds == {"online", "probe"}


def test_tables_that_a_broken_off_measurement_left_behind_are_written_by_the_next(finetuned: Path, tmp_path: Path) -> None:
    path = shutil.copytree(finetuned, tmp_path / "run")
    with RunFolder.resume(path) as folder:
        (path / "command.txt").write_text("reconverge train\n")  # as `verify` expects it
        rows = recover(folder, Progress("quiet"))
        for name in ("recovery_curves.csv", "recovery.csv"):
            lines = (path / name).read_text().splitlines(True)
            (path / name).write_text("".join(line for line in lines if not line.startswith("probe,")))
    with RunFolder.resume(path) as folder:
        assert recover(folder, Progress("quiet")) == rows
    assert [check for check in verify(path) if check.outcome == "DIFFERS"] == []


def test_online_recovery_has_a_curve_from_the_switch_to_the_end_of_the_stage(protected: Path) -> None:
    (curve,) = read_run(protected).curves.values()
    assert list(curve.updates) == [0, 2, 50, 300, 500]


def test_a_checkpoint_is_a_policy_that_can_be_evaluated_again(protected: Path) -> None:
    policy = DiffusionPolicy.load(protected / "checkpoints" / "stage-02")
    assert policy.tasks == ("point-reach-0", "point-reach-1")
    (row,) = evaluate(RunFolder.open(protected), Progress("quiet"), Asked(stage=2, tasks=["point-reach-1"]))
    assert row["rate"] == rates(protected, 2)[1]


def test_every_method_meets_the_same_episodes(finetuned: Path, protected: Path) -> None:
    seeds = [{(row.task, row.episode_seed) for row in read_run(path).episodes} for path in (finetuned, protected)]
    assert seeds[0] == seeds[1]
    assert {seed for task, seed in seeds[0] if task == "point-reach-0"} == set(evaluation_seeds(find_task("point-reach-0"), 20))


def test_the_fisher_figures_are_finite_and_there_is_one_row_a_stage(protected: Path) -> None:
    health = read_run(protected).fisher
    assert [row.stage for row in health] == [1, 2]
    assert all(row.mu_norm > 0 and row.curvature > 0 and -1 <= row.split_half_cosine <= 1 for row in health)


def test_the_cost_adds_up(protected: Path) -> None:
    cost = json.loads((protected / "cost.json").read_text())
    assert sum(cost["phases"].values()) == pytest.approx(cost["total_s"], abs=0.1)


def test_joint_learns_all_tasks_in_one_stage(world: Path) -> None:
    results = read_run(run(world / "joint", toy_config(world, method="joint", curriculum="point-reach:2")))
    assert results.finished and min(results.matrix[2]) >= 0.9
    assert [row["stage"] for row in results.training] == [2] * len(results.training)


def test_results_do_not_depend_on_the_number_of_workers(world: Path) -> None:
    tables = []
    for workers in (0, 3):
        base = find_preset("smoke")
        config = toy_config(
            world,
            curriculum="point-reach:2",
            evaluation=EvaluationConfig(episodes=7, workers=workers),
            recovery=RecoveryConfig(episodes=5, grid=(2,)),
            train=replace(base.train, updates=20),
            replay=replace(base.replay, generator=replace(base.replay.generator, updates=5)),
        )
        path = run(world / f"workers-{workers}", config)
        tables.append([(path / name).read_bytes() for name in ("episodes.csv", "recovery_curves.csv", "metrics.jsonl")])
    assert tables[0] == tables[1]
