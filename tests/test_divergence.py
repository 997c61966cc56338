"""A number that is not finite stops a run before a weight changes, and is named; a loss that leaps has the stage begun again, once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from forked_run import everything, start_or_resume
from small_policy import random_windows, small_policy

from reconverge.envs.errors import DamagedFile, LossLeapt, TrainingDiverged
from reconverge.eval.config import EvaluationConfig, RecoveryConfig, VideoConfig
from reconverge.launch.config import RunConfig
from reconverge.policy.config import OptimizerConfig, ResidualMLPConfig, TrainConfig, TrustRegionConfig
from reconverge.policy.divergence import FEWEST, leap
from reconverge.policy.flat_parameters import FlatParameters
from reconverge.policy.learner import Learner, UpdateFigures
from reconverge.policy.methods.ewc import Rank1Penalty, ewc
from reconverge.policy.optimizer import StageOptimizer
from reconverge.replay.config import GeneratorConfig, ReplayConfig

NAN = float("nan")


def learner() -> Learner:
    """In its second stage, with one Fisher."""
    policy = small_policy()
    method = ewc(TrustRegionConfig(draws=64), policy.parameter_count)
    learner = Learner(policy, method, TrainConfig(batch_size=16), seed=0)
    learner.begin_stage(1, random_windows(), 4)
    for _ in range(4):
        learner.update()
    learner.end_stage()
    learner.begin_stage(2, random_windows(task=1, seed=1), 4)
    learner.update()
    return learner


def poison_mu(learner: Learner) -> None:
    region = learner.method.hooks[0]
    assert isinstance(region, Rank1Penalty)
    region.region.mu[0, 3] = NAN


def poison_windows(learner: Learner) -> None:
    learner.windows.all().observations[:] = NAN


def poison_gradient(learner: Learner) -> None:
    learner.method.hooks[0].adjust_gradients = lambda learner: learner.parameters.gradient.__setitem__(0, NAN)  # type: ignore[method-assign]


def poison_weights(learner: Learner) -> None:
    learner.parameters.values[5] = NAN


@pytest.mark.parametrize(
    ("poison", "found"),
    [
        (poison_mu, "mu of the trust-region is not finite"),
        (poison_windows, "the loss is nan"),
        (poison_gradient, "the gradient is not finite"),
        (poison_weights, "the weights are not finite"),
    ],
)
def test_it_stops_before_a_weight_changes_and_says_what_and_where(poison: Callable[[Learner], None], found: str) -> None:
    diverging = learner()
    poison(diverging)
    before = diverging.parameters.values.clone(), diverging.averaged.clone(), diverging.optimizer.arrays()
    with pytest.raises(TrainingDiverged, match=f"{found} at stage 2, update 2; no weight was changed by it; the last checkpoint is intact"):
        diverging.update()
    assert torch.equal(diverging.parameters.values.nan_to_num(7), before[0].nan_to_num(7))
    assert torch.equal(diverging.averaged, before[1])
    assert all((array == before[2][name]).all() for name, array in diverging.optimizer.arrays().items())


def test_data_with_a_nan_are_refused_with_their_task() -> None:
    refusing, windows = learner(), random_windows(task=1)
    windows.all().actions[7, 0, 0] = float("inf")
    with pytest.raises(DamagedFile, match=r"1 of 64 windows of 'b' hold a number that is not finite, the first at time 0\.11"):
        refusing.begin_stage(3, windows, 4)


def test_on_a_gpu_the_step_is_left_out_without_waiting_and_the_next_log_tells() -> None:
    """The same code path on the CPU: the optimizer is told by a flag that stays on the device."""
    diverging = learner()
    diverging.watch.waits = False
    poison_windows(diverging)
    before = diverging.parameters.values.clone()
    for _ in range(3):
        diverging.update()
    assert torch.equal(diverging.parameters.values, before)
    with pytest.raises(TrainingDiverged, match=r"at stage 2, update 2;"):
        diverging.check_finite()


@pytest.mark.parametrize("schedule", ["constant", "one-cycle"])
def test_an_optimizer_goes_on_exactly_from_its_arrays(schedule: str) -> None:
    def parameters() -> FlatParameters:
        return FlatParameters(small_policy().denoiser)

    def steps(optimizer: StageOptimizer, of: FlatParameters, count: int) -> None:
        for _ in range(count):
            of.gradient.copy_(of.values.sin())
            optimizer.step()

    config = OptimizerConfig(schedule=schedule)  # type: ignore[arg-type]
    whole, first = parameters(), parameters()
    steps(StageOptimizer(whole, config, 9), whole, 9)
    before = StageOptimizer(first, config, 9)
    steps(before, first, 4)
    second = parameters()
    second.values.copy_(first.values)
    after = StageOptimizer(second, config, 9)
    after.load_arrays(before.arrays())
    assert after.learning_rate == before.learning_rate
    steps(after, second, 5)
    assert torch.equal(second.values, whole.values)



# A loss that leaps -------------------------------------------------------------------------------------------------------------------------------


def rows(*losses: float) -> list[dict[str, float | None]]:
    return [{"loss": loss, "replay_loss": None, "largest_gradient_norm": 0.5} for loss in losses]


def test_a_leap_is_told_from_a_fall_and_from_noise() -> None:
    falling = [0.9 * 0.8**step for step in range(20)]
    assert leap(rows(*falling)) is None
    assert leap(rows(*falling, 5 * falling[-1])) is None
    assert leap(rows(*falling[:FEWEST], falling[FEWEST] * 1e6)) is not None
    assert str(leap(rows(*[0.01] * 20, 1.0))).startswith("the loss is 1 after 0.01")
    assert leap(rows(-1.0, *[-2.0] * 20, -1e6)) is None  # no logarithm: an own method's objective
    assert leap(rows(30.0)) is None  # of a stage that begins far outside of what was seen
    assert "predicting nothing costs 1" in str(leap(rows(2e4)))


def rows_of(seed: int, schedule: str, struck: Callable[[Learner], None] = lambda learner: None) -> list[dict[str, float | None]]:
    """A row every five updates of a second stage, up to one that leaps; `struck` is called ahead of its 60th update."""
    policy, config = small_policy(), TrainConfig(batch_size=16, optimizer=OptimizerConfig(schedule=schedule))  # type: ignore[arg-type]
    learner = Learner(policy, ewc(TrustRegionConfig(draws=64), policy.parameter_count), config, seed=seed)
    for stage in (1, 2):
        learner.begin_stage(stage, random_windows(task=stage - 1, seed=stage), 110)
        found: list[dict[str, float | None]] = []
        for update in range(1, 111):
            if (stage, update) == (2, 60):
                struck(learner)
            figures = learner.update()
            if update % 5 == 0:
                found.append(learner.log_row(figures))
                if leap(found) is not None:
                    return found
        learner.end_stage()
    return found


def ten_thousandfold_rate(learner: Learner) -> None:
    learner.optimizer.config = dataclasses.replace(learner.optimizer.config, learning_rate=10.0)


def millionfold_loss(learner: Learner) -> None:
    learner.loss_weights = (1e6, 1e6)


@pytest.mark.parametrize("count", [2, pytest.param(20, marks=pytest.mark.faults)])
def test_no_healthy_run_leaps(count: int) -> None:
    leaping = sum(leap(rows_of(seed, schedule)) is not None for seed in range(count) for schedule in ("constant", "one-cycle"))
    print(f"{2 * count} healthy runs: the guard tripped in {leaping}")
    assert leaping == 0


@pytest.mark.parametrize("schedule", ["constant", "one-cycle"])
@pytest.mark.parametrize("struck", [ten_thousandfold_rate, millionfold_loss])
def test_a_run_that_goes_wild_is_noticed_within_fifty_updates(struck: Callable[[Learner], None], schedule: str) -> None:
    found = rows_of(0, schedule, struck)
    assert leap(found) is not None
    assert 60 <= 5 * len(found) < 60 + 50


def test_a_huge_gradient_between_two_rows_is_seen_though_it_was_clipped() -> None:
    learning = learner()
    learning.begin_stage(2, random_windows(task=1, seed=1), 100)
    seen: list[dict[str, float | None]] = []
    for update in range(1, 61):
        if update == 57:
            learning.method.hooks[0].adjust_gradients = lambda learner: learner.parameters.gradient.mul_(1e6)  # type: ignore[method-assign]
        figures = learning.update()
        learning.method.hooks[0].adjust_gradients = lambda learner: None  # type: ignore[method-assign]
        if update % 5 == 0:
            seen.append(learning.log_row(figures))
    assert leap(seen[:-1]) is None
    assert "largest gradient norm" in str(leap(seen))


SHORT = RunConfig(
    curriculum="point-reach:2",
    method="trust-region",
    threads=1,
    policy=dataclasses.replace(RunConfig().policy, mlp=ResidualMLPConfig(width=32, blocks=1), timesteps=20, sampling_steps=2),
    train=TrainConfig(updates=60, batch_size=32, log_every=3, trust_region=TrustRegionConfig(draws=64)),
    replay=ReplayConfig(windows_per_task=64, generator=GeneratorConfig(width=32, blocks=1, sampling_steps=2, updates=20, batch_size=32)),
    evaluation=EvaluationConfig(episodes=2, workers=0),
    recovery=RecoveryConfig(episodes=2, grid=(2, 30)),
    video=VideoConfig(episodes=0, render=False),
)


def short_run(tmp_path: Path, config: RunConfig, name: str) -> Path:
    demonstrations = dataclasses.replace(config.demonstrations, episodes=4, folder=str(tmp_path / "demonstrations"))
    start_or_resume(tmp_path / name, dataclasses.replace(config, demonstrations=demonstrations))
    return tmp_path / name


def begun_again(run: Path) -> list[str]:
    return list(json.loads((run / "fingerprint.json").read_text()).get("begun_again", []))


def strike(monkeypatch: pytest.MonkeyPatch, stage: int, times: int) -> None:
    """Have all weights grow a thousandfold ahead of the 41st update of a stage, the first `times` times that it comes."""
    sound, struck = Learner.update, []

    def update(self: Learner) -> UpdateFigures:
        if (self.stage, self.update_index) == (stage, 40) and len(struck) < times:
            struck.append(True)
            self.parameters.values *= 1e3
        return sound(self)

    monkeypatch.setattr(Learner, "update", update)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "stage"), [("trust-region", 1), ("trust-region", 2), ("joint", 2), ("vr-mcl", 2)])
def test_what_a_fault_of_the_machine_did_is_undone_to_the_last_bit(
    method: str, stage: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(SHORT, method=method)
    golden = short_run(tmp_path, config, "golden")
    strike(monkeypatch, stage, times=1)
    run = short_run(tmp_path, config, "struck")
    assert everything(run) == everything(golden)
    assert not begun_again(golden)
    (words,) = begun_again(run)
    assert f"at stage {stage}, update 4" in words


@pytest.mark.slow
def test_what_comes_again_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strike(monkeypatch, stage=2, times=2)
    with pytest.raises(LossLeapt, match=r"at stage 2, update 4\d; the last checkpoint is intact. Start anew with a lower"):
        short_run(tmp_path, SHORT, "wild")
    assert len(begun_again(tmp_path / "wild")) == 1
    assert (tmp_path / "wild" / "checkpoints" / "stage-01").is_dir()
