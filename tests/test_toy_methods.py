"""Every method on the toy world, two conflicting tasks: does it do there what it claims?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_run import run, toy_config

from reconverge.envs.errors import RunFolderError
from reconverge.eval.run_results import RunResults, read_run
from reconverge.launch.checkpoint_evaluation import Asked, evaluate
from reconverge.launch.presets import find_preset
from reconverge.launch.progress import Progress
from reconverge.launch.recovery_probe import recover
from reconverge.launch.run_folder import RunFolder
from reconverge.policy.config import L2Config, MASConfig, SIConfig, TrustRegionConfig, UpdateBudgetConfig
from reconverge.policy.diffusion_policy import DiffusionPolicy

SMOKE = find_preset("smoke")
TRAIN = SMOKE.train


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def free(world: Path) -> RunResults:
    """Nothing holds the first task."""
    return results_of(world, "finetune", method="finetune")


def results_of(world: Path, name: str, **changes: object) -> RunResults:
    return read_run(run(world / name, toy_config(world, curriculum="point-reach:2", **changes)))


def learned_and_kept(results: RunResults) -> tuple[float, float, float]:
    """Success on the first task after its own stage and at the end, and on the second at the end."""
    return results.matrix[1][0], results.matrix[2][0], results.matrix[2][1]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("t-dgr", {"method": "t-dgr"}),
        ("ftml", {"method": "ftml"}),
        ("vr-mcl", {"method": "vr-mcl"}),
        ("adaptive-trust-region", {"method": "adaptive-trust-region"}),
        ("teacher", {"method": "replay", "replay": replace(SMOKE.replay, source="teacher-rollouts", successes_only=True, pool="redrawn")}),
        ("stored", {"method": "replay", "replay": replace(SMOKE.replay, source="stored", stored_megabytes=0.02)}),
    ],
)
def test_methods_that_replay_keep_the_first_task_and_learn_the_second(world: Path, name: str, changes: dict[str, object]) -> None:
    learned, kept, second = learned_and_kept(results_of(world, name, **changes))
    assert learned >= 0.9 and kept >= 0.8 and second >= 0.7


@pytest.mark.parametrize("fisher", ["rank-1", "diagonal"])
def test_a_strong_fisher_penalty_trades_the_second_task_for_the_first(world: Path, fisher: str) -> None:
    """Without replay nothing else holds the first task: what the penalty buys is stiffness."""
    weak, strong = (
        results_of(world, f"{fisher}-{strength:g}", method="ewc", train=replace(TRAIN, trust_region=TrustRegionConfig(strength, 1024, fisher)))
        for strength in (0.0, 1e4)
    )
    assert weak.matrix[2][1] >= 0.9
    assert strong.matrix[2][1] < weak.matrix[2][1] - 0.2
    assert strong.matrix[2][0] >= weak.matrix[2][0]


@pytest.mark.parametrize(("method", "settings"), [("l2", L2Config(200.0)), ("mas", MASConfig(200.0, 1024)), ("si", SIConfig(200.0))])
def test_a_penalty_around_the_last_optimum_holds_the_first_task_at_the_cost_of_the_second(
    world: Path, free: RunResults, method: str, settings: object
) -> None:
    """The tasks conflict, and what holds the first one is stiffness again."""
    learned, kept, second = learned_and_kept(results_of(world, method, method=method, train=replace(TRAIN, **{method: settings})))  # type: ignore
    assert learned >= 0.9 and kept >= 0.8
    assert free.matrix[2][0] <= 0.2 and free.matrix[2][1] >= second + 0.2


def test_a_policy_per_task_forgets_nothing_and_is_measured_again_where_a_task_comes_again(world: Path) -> None:
    curriculum = world / "aba.yaml"
    curriculum.write_text("name: aba\ntasks: [point-reach-0, point-reach-1, point-reach-0]\n")
    sampling = replace(SMOKE.policy, temperature=1.0)  # at 0 both policies solve every episode in the same steps
    results = read_run(run(world / "single", toy_config(world, curriculum=str(curriculum), method="single", policy=sampling)))
    assert results.matrix[2][0] == results.matrix[1][0] >= 0.9 and results.matrix[3][1] == results.matrix[2][1] >= 0.9
    assert not results.curves
    again = [row for row in results.episodes if row.stage == 3 and row.task == "point-reach-0"]
    before = [row for row in results.episodes if row.stage == 1 and row.task == "point-reach-0"]
    assert [row.first_success_step for row in again] != [row.first_success_step for row in before]  # another policy, same episodes
    rows = evaluate(RunFolder.open(results.folder), Progress("quiet"), Asked(stage=2))
    assert [(row["task"], row["rate"]) for row in rows] == [("point-reach-1", results.matrix[2][1])]
    with pytest.raises(RunFolderError, match="a policy of its own"):
        recover(RunFolder.open(results.folder), Progress("quiet"))


def test_the_log_says_how_far_was_travelled_within_the_radius(world: Path) -> None:
    settings = TrustRegionConfig(draws=1024, form="constraint", radius=1e-4)
    results = results_of(world, "small radius", method="ewc", train=replace(TRAIN, updates=60, trust_region=settings))
    travelled = [row["travelled"] for row in results.training if row["stage"] == 2]
    assert 0 < max(travelled) <= 1e-4 * 1.001
    assert any(row["multiplier"] > 0 for row in results.training)


@pytest.mark.parametrize("form", ["soft", "hard"])
def test_a_smaller_update_budget_moves_less(world: Path, form: str) -> None:
    moved = []
    for least in (0.0, 1.0):
        budget = UpdateBudgetConfig(form=form, control="constant", least=least, sharpness=0.0, draws=256)  # type: ignore[arg-type]
        run = results_of(world, f"{form}-{least:g}", method="adaptive", train=replace(TRAIN, updates=60, update_budget=budget)).folder
        first, second = (DiffusionPolicy.load(run / "checkpoints" / f"stage-0{stage}").state_dict() for stage in (1, 2))
        moved.append(sum(float((second[name] - first[name]).square().sum()) for name in first) ** 0.5)
    assert moved[0] < 0.95 * moved[1]
