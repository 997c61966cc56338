"""A number that is not finite stops a run before a weight changes, and is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_policy import random_windows, small_policy

from reconverge.envs.errors import DamagedFile, TrainingDiverged
from reconverge.policy.config import OptimizerConfig, TrainConfig, TrustRegionConfig
from reconverge.policy.flat_parameters import FlatParameters
from reconverge.policy.learner import Learner
from reconverge.policy.methods.ewc import StayNear, ewc
from reconverge.policy.optimizer import StageOptimizer

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
    assert isinstance(region, StayNear)
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
    diverging._on_gpu = True
    poison_windows(diverging)
    before = diverging.parameters.values.clone()
    diverging.update()
    assert torch.equal(diverging.parameters.values, before)
    with pytest.raises(TrainingDiverged):
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

