"""The meta-gradients against autograd written out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_policy import random_windows
from test_learner import SMALL, Source, learner_of

from reconverge.policy.config import MetaConfig, OptimizerConfig
from reconverge.policy.learner import Learner
from reconverge.policy.methods.meta_learning import VarianceReducedMeta, add_meta_gradient, batch_loss, ftml, vr_mcl


def started(method: str, inner: float = 0.05, momentum: float = 0.15, stage: int = 1) -> Learner:
    config = replace(SMALL, meta=MetaConfig(inner, momentum))
    learner = learner_of({"ftml": ftml, "vr-mcl": vr_mcl}[method](Source(), config), config)
    learner.begin_stage(stage, random_windows(task=1, seed=1), 10)
    learner.update_index = 1
    learner.parameters.gradient.zero_()
    return learner


def gradient_at(learner: Learner, theta: torch.Tensor, loss) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """The gradient of a batch's loss at other parameters, leaving the learner as it was."""
    values = learner.parameters.values.clone()
    learner.parameters.values.copy_(theta)
    learner.parameters.gradient.zero_()
    learner.weighted(loss()).backward()
    gradient = learner.parameters.gradient.clone()
    learner.parameters.values.copy_(values)
    learner.parameters.gradient.zero_()
    return gradient


def test_the_query_gradient_is_taken_after_a_step_on_the_support() -> None:
    learner = started("ftml")
    theta = learner.parameters.values.clone()
    support, query = (batch_loss(learner, random_windows(seed=seed).all(), None, "batch") for seed in (3, 4))
    inner = theta - 0.05 * gradient_at(learner, theta, support)
    expected = gradient_at(learner, inner, query)
    add_meta_gradient(learner, support, query, 0.05)
    assert torch.allclose(learner.parameters.gradient, expected, atol=1e-6)
    assert torch.equal(learner.parameters.values, theta)
    assert not torch.allclose(expected, gradient_at(learner, theta, query), atol=1e-4)


@pytest.mark.parametrize("method", ["ftml", "vr-mcl"])
def test_half_precision_sees_the_weights_that_were_moved(method: str) -> None:
    """Both take gradients at two places within an update; a cast that was kept from the first would stand in for the second."""
    ran = {}
    for precision in ("float32", "bfloat16"):
        config = replace(SMALL, meta=MetaConfig(inner_learning_rate=1.0), optimizer=OptimizerConfig(learning_rate=0.03), precision=precision)
        learner = learner_of({"ftml": ftml, "vr-mcl": vr_mcl}[method](Source(), config), config)
        learner.begin_stage(1, random_windows(task=1, seed=1), 10)
        start = learner.parameters.values.clone()
        for _ in range(2):
            learner.parameters.values.copy_(start + 0.1 * (learner.update_index > 0))  # the same places, whatever the first step was
            learner.update()
        ran[precision] = learner.parameters.gradient.clone()
    assert float((ran["bfloat16"] - ran["float32"]).norm() / ran["float32"].norm()) < 0.1


def test_follow_the_meta_leader_draws_every_task_seen() -> None:
    learner = started("ftml", stage=2)
    kinds = set()
    for update in range(1, 30):
        learner.update_index = update
        learner.parameters.gradient.zero_()
        losses = learner.method.hooks[0].objective_gradient(learner)
        assert losses is not None
        kinds.add(losses.replay is None)
    assert kinds == {True, False}


def test_variance_reduction_adds_the_momentum_of_the_same_batches_at_the_earlier_parameters() -> None:
    reduced, plain = started("vr-mcl"), started("vr-mcl", momentum=0.0)
    hooks = [learner.method.hooks[0] for learner in (reduced, plain)]
    directions = []
    for hook, learner in zip(hooks, (reduced, plain), strict=True):
        hook.objective_gradient(learner)
        directions.append(learner.parameters.gradient.clone())
    assert torch.equal(*directions)  # the first update has no momentum
    earlier = reduced.parameters.values.clone()
    for learner in (reduced, plain):
        learner.parameters.values.add_(0.01)
        learner.update_index = 2
        learner.parameters.gradient.zero_()
    for hook, learner in zip(hooks, (reduced, plain), strict=True):
        hook.objective_gradient(learner)

    at_earlier = started("vr-mcl", momentum=0.0)
    at_earlier.parameters.values.copy_(earlier)
    at_earlier.update_index = 2
    at_earlier.method.hooks[0].objective_gradient(at_earlier)
    expected = plain.parameters.gradient + 0.15 * (directions[0] - at_earlier.parameters.gradient)
    assert torch.allclose(reduced.parameters.gradient, expected, atol=1e-6)
    hook = reduced.method.hooks[0]
    assert isinstance(hook, VarianceReducedMeta) and hook.before is not None
    assert torch.equal(hook.before[1], reduced.parameters.gradient)  # what is carried on is d, not h


def test_as_published_the_target_is_the_added_noise_and_a_setting_makes_it_the_teachers() -> None:
    assert started("ftml").replay_target == "noise" == started("vr-mcl").replay_target
    config = replace(SMALL, distillation="teacher")
    assert learner_of(ftml(Source(), config), config).replay_target == "teacher"
