"""Every method on the toy world, two conflicting tasks: does it do there what it claims?"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from small_run import run, toy_config
from torch import Tensor

from reconverge.envs.errors import RunFolderError
from reconverge.eval.run_results import RunResults, read_run
from reconverge.launch.checkpoint_evaluation import Asked, evaluate
from reconverge.launch.presets import find_preset
from reconverge.launch.progress import Progress
from reconverge.launch.recovery_probe import recover
from reconverge.launch.restored_learner import restore_learner
from reconverge.launch.run_folder import RunFolder
from reconverge.policy.config import L2Config, MASConfig, SIConfig, TrustRegionConfig, UpdateBudgetConfig
from reconverge.policy.learner import Learner
from reconverge.policy.methods.ewc import Rank1Penalty
from reconverge.policy.trust_region import TrustRegion
from reconverge.policy.update_budget import modules_of

SMOKE = find_preset("smoke")
TRAIN = SMOKE.train
REPLAY = replace(SMOKE.replay, generator=replace(SMOKE.replay.generator, updates=150))  # fewer than the preset's, which here is enough


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def free(world: Path) -> RunResults:
    """Nothing holds the first task."""
    return results_of(world, "finetune", method="finetune")


@pytest.fixture(scope="module")
def replayed(world: Path) -> RunResults:
    """Replay from the generator alone holds it."""
    return results_of(world, "replay", method="replay")


def results_of(world: Path, name: str, **changes: object) -> RunResults:
    return read_run(run(world / name, toy_config(world, **{"curriculum": "point-reach:2", "replay": REPLAY, **changes})))


def with_region(world: Path, name: str, method: str, settings: TrustRegionConfig) -> RunResults:
    return results_of(world, name, method=method, train=replace(TRAIN, trust_region=replace(settings, draws=1024)))


def learned_and_kept(results: RunResults) -> tuple[float, float, float]:
    """Success on the first task after its own stage and at the end, and on the second at the end."""
    return results.matrix[1][0], results.matrix[2][0], results.matrix[2][1]


def second_stage(results: RunResults, figure: str) -> list[float]:
    """What was logged of a figure in the second stage."""
    return [row[figure] for row in results.training if row["stage"] == 2 and row[figure] is not None]


def replay_loss(results: RunResults) -> float:
    """The replay loss in the second stage, over its last rows."""
    last = second_stage(results, "replay_loss")[-10:]
    return sum(last) / len(last)


def learner_after(results: RunResults, stage: int) -> Learner:
    folder = RunFolder.open(results.folder)
    return restore_learner(folder.config, folder, stage).learner


def weights(results: RunResults, stage: int) -> Tensor:
    return learner_after(results, stage).parameters.values


def move(results: RunResults) -> Tensor:
    """What the second stage did to the weights."""
    return weights(results, 2) - weights(results, 1)


def moved(results: RunResults) -> float:
    return float(move(results).norm())


def region_of(results: RunResults) -> TrustRegion:
    """What protects the first task, as the run's checkpoint holds it."""
    (region,) = (hook.region for hook in learner_after(results, 1).method.hooks if isinstance(hook, Rank1Penalty))
    return region


def travelled(region: TrustRegion, results: RunResults) -> float:
    """How far the second stage went along the protected direction."""
    return region.travelled(weights(results, 2))


# Replay


@pytest.mark.parametrize(
    ("name", "distilled", "changes"),
    [
        ("t-dgr", False, {"method": "t-dgr"}),
        ("ftml", False, {"method": "ftml"}),
        ("ftml, distilled", True, {"method": "ftml", "train": replace(TRAIN, distillation="teacher")}),
        ("vr-mcl", False, {"method": "vr-mcl"}),
        ("vr-mcl, distilled", True, {"method": "vr-mcl", "train": replace(TRAIN, distillation="teacher")}),
        ("teacher", True, {"method": "replay", "replay": replace(REPLAY, source="teacher-rollouts", successes_only=True, pool="redrawn")}),
        ("stored", True, {"method": "replay", "replay": replace(REPLAY, source="stored", stored_megabytes=0.02)}),
    ],
)
def test_methods_that_replay_keep_the_first_task_and_learn_the_second(
    world: Path, free: RunResults, name: str, distilled: bool, changes: dict[str, object]
) -> None:
    """A teacher can be matched; of the noise that was added much cannot be foreseen."""
    results = results_of(world, name, **changes)
    assert_kept_and_learned(results, free)
    assert replay_loss(results) < 0.03 if distilled else replay_loss(results) > 0.05


def test_replay_from_the_generator_keeps_the_first_task_and_learns_the_second(replayed: RunResults, free: RunResults) -> None:
    assert_kept_and_learned(replayed, free)
    assert replay_loss(replayed) < 0.03


def assert_kept_and_learned(results: RunResults, free: RunResults) -> None:
    learned, kept, second = learned_and_kept(results)
    assert learned >= 0.9 and kept >= 0.8 and second >= 0.7
    assert free.matrix[1][0] >= 0.9 and free.matrix[2][0] <= 0.2  # there is something to forget


# Penalties


@pytest.mark.parametrize(("method", "settings"), [("l2", L2Config(200.0)), ("mas", MASConfig(200.0, 1024)), ("si", SIConfig(200.0))])
def test_a_penalty_around_the_last_optimum_holds_the_first_task_at_the_cost_of_the_second(
    world: Path, free: RunResults, method: str, settings: object
) -> None:
    """The tasks conflict, and what holds the first one is stiffness."""
    results = results_of(world, method, method=method, train=replace(TRAIN, **{method: settings}))  # type: ignore
    assert_held_at_the_cost_of_the_second(results, free)


def test_a_strong_diagonal_fisher_holds_the_first_task_where_the_weights_matter_to_it(world: Path, free: RunResults) -> None:
    """At the cost of the second again, but the network as a whole is free to move."""
    results = with_region(world, "diagonal", "ewc", TrustRegionConfig(5e4, fisher="diagonal"))
    assert_held_at_the_cost_of_the_second(results, free)
    assert moved(results) > 0.4 * moved(free)


def test_the_rank_1_fisher_holds_one_direction_and_the_first_task_only_where_nothing_moves(world: Path, free: RunResults) -> None:
    usual, strong = (with_region(world, f"rank-1-{strength:g}", "ewc", TrustRegionConfig(strength)) for strength in (12.0, 1e6))
    region = region_of(usual)
    assert weights(usual, 1).equal(weights(free, 1))
    assert travelled(region, usual) < 0.01 * travelled(region, free)
    assert moved(usual) > 0.8 * moved(free) and usual.matrix[2][0] <= 0.2 and usual.matrix[2][1] >= 0.9
    assert moved(strong) < 0.2 * moved(free)
    assert_held_at_the_cost_of_the_second(strong, free)


def assert_held_at_the_cost_of_the_second(results: RunResults, free: RunResults) -> None:
    learned, kept, second = learned_and_kept(results)
    assert learned >= 0.9 and kept >= 0.8
    assert free.matrix[2][0] <= 0.2 and free.matrix[2][1] >= second + 0.2


# Trust region


@pytest.mark.parametrize("method", ["trust-region", "adaptive-trust-region"])
def test_the_penalty_holds_the_weights_along_mu_where_replay_alone_lets_them_travel(
    world: Path, free: RunResults, replayed: RunResults, method: str
) -> None:
    results = with_region(world, method, method, TRAIN.trust_region)
    assert_kept_and_learned(results, free)
    region = region_of(results)
    assert weights(results, 1).equal(weights(replayed, 1))
    assert travelled(region, results) < 0.01 * travelled(region, replayed)


def test_the_constraint_keeps_the_weights_within_the_radius_that_replay_alone_leaves(
    world: Path, free: RunResults, replayed: RunResults
) -> None:
    radius = 1e-5
    results = with_region(world, "constraint", "trust-region", TrustRegionConfig(form="constraint", radius=radius))
    assert_kept_and_learned(results, free)
    assert max(second_stage(results, "travelled")) <= radius * 1.01  # to the rounding of float32 weights
    assert max(second_stage(results, "multiplier")) > 0
    region = region_of(results)
    assert travelled(region, results) <= radius < travelled(region, replayed)


def test_the_functional_form_brings_the_network_within_a_radius_of_its_teacher_where_replay_alone_does_not(
    world: Path, free: RunResults, replayed: RunResults
) -> None:
    radius = 0.003
    results = with_region(world, "functional", "trust-region", TrustRegionConfig(form="functional", radius=radius))
    assert_kept_and_learned(results, free)
    assert replay_loss(results) <= radius < replay_loss(replayed)
    weight = second_stage(results, "beta")
    assert max(weight) >= 10 * TRAIN.replay_weight and weight[-1] < max(weight) / 2  # raised, and lowered again where there is room


# A policy per task


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


# Update budgets


@pytest.mark.parametrize(("method", "form"), [("adaptive", "soft"), ("adaptive", "hard"), ("adaptive-trust-region", "soft")])
def test_a_smaller_update_budget_moves_less(world: Path, method: str, form: str) -> None:
    settings = UpdateBudgetConfig(form=form, control="constant", sharpness=0.0)  # type: ignore[arg-type]
    small, whole = (budgeted(world, method, replace(settings, least=least), updates=60) for least in (0.0, 1.0))
    assert moved(small) < 0.95 * moved(whole)


def test_a_task_that_undoes_the_last_one_is_given_a_larger_budget_and_by_the_opposite_rule_a_smaller_one(world: Path) -> None:
    """In every module: rho = 0.2 + 0.8 sigmoid(-10 s), its opposite 0.2 + 0.8 sigmoid(10 s); together 1.2, whatever the alignment s is."""
    usual, opposite = (budgeted(world, "adaptive", UpdateBudgetConfig(control=control), updates=200) for control in ("none", "opposite"))  # type: ignore
    far, near, alignments = move(usual), move(opposite), []
    for module, part in modules_of(learner_after(usual, 2).parameters).items():
        larger, smaller = (second_stage(results, f"budget.{module}")[-1] for results in (usual, opposite))
        assert larger > 0.6 > smaller and larger + smaller == pytest.approx(1.2)
        assert far[part].norm() > near[part].norm()
        alignments.append(math.log((1 - larger) / (larger - 0.2)) / 10)
    logged = second_stage(usual, "alignment")[-1]
    assert logged < 0 and logged == pytest.approx(sum(alignments) / len(alignments), abs=1e-4)


def budgeted(world: Path, method: str, budget: UpdateBudgetConfig, updates: int) -> RunResults:
    """A run whose steps are limited by the budget."""
    name = f"{method}-{budget.form}-{budget.control}-{budget.least:g}"
    train = replace(TRAIN, updates=updates, update_budget=replace(budget, draws=256))
    return results_of(world, name, method=method, train=train, replay=replace(REPLAY, generator=replace(REPLAY.generator, updates=updates)))
