"""The meta-gradients against autograd written out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from small_learner import SMALL, Asked, Source, learner_of, train
from small_policy import random_windows, small_policy

from reconverge.policy.config import MetaConfig, OptimizerConfig, TrainConfig
from reconverge.policy.hooks import Losses
from reconverge.policy.learner import Learner
from reconverge.policy.methods import meta_learning
from reconverge.policy.methods.meta_learning import Loss, VarianceReducedMeta, add_meta_gradient, batch_loss, ftml, vr_mcl
from reconverge.policy.windows import WindowBatch


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


def asking(method: str, source: Asked, config: TrainConfig = SMALL, stage: int = 1, task: int = 0) -> Learner:
    """A learner of three tasks at the start of a stage."""
    learner = Learner(small_policy(("a", "b", "c")), {"ftml": ftml, "vr-mcl": vr_mcl}[method](source, config), config, 0)
    learner.begin_stage(stage, random_windows(task=task, seed=1), 300)
    return learner


def batches_of_an_update(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> list[tuple[WindowBatch | None, WindowBatch | None]]:
    """(current, replayed) of the support and of the query."""
    batches = []

    def kept(learner: Learner, current: WindowBatch | None, replayed: WindowBatch | None, purpose: str) -> Loss:
        batches.append((current, replayed))
        return batch_loss(learner, current, replayed, purpose)

    monkeypatch.setattr(meta_learning, "batch_loss", kept)
    learner.update()
    return batches


def test_follow_the_meta_leader_draws_each_task_seen_alone_half_a_batch_at_a_time() -> None:
    source = Asked((0, 1))
    learner = asking("ftml", source, replace(SMALL, replay_weight=0.25), stage=3, task=2)
    assert learner.loss_weights == (1.0, 1.0)  # every task counts alike, whatever the replay weight
    drawn = []
    for _ in range(60):
        source.asked.clear()
        figures = learner.update()
        if figures.replay_loss is None:
            assert source.asked == []
            drawn.append(2)
        else:
            support, query = source.asked
            assert figures.loss is None and support == query and support[0] == 8 and len(support[1]) == 1
            drawn.append(({0, 1} - support[1]).pop())
    counts = Counter(drawn)
    assert set(counts) == {0, 1, 2} and min(counts.values()) > 10  # a third of 60 each
    assert any(one == other for one, other in pairwise(drawn))  # not in turns


def test_support_and_query_are_two_batches_with_noise_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = asking("ftml", Asked(()))
    batch = random_windows(seed=3).all()
    one, other = (batch_loss(learner, batch, None, purpose)().current for purpose in ("support", "query"))
    assert one is not None and other is not None and one.item() != other.item()
    (support, _), (query, _) = batches_of_an_update(learner, monkeypatch)
    assert support is not None and query is not None and len(support) == len(query) == 8
    assert not torch.equal(support.actions, query.actions)


def test_variance_reduction_supports_with_the_current_task_and_queries_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Asked((0, 1))
    (support, nothing), (query, replayed) = batches_of_an_update(asking("vr-mcl", source, stage=2, task=1), monkeypatch)
    assert support is not None and nothing is None and query is not None and replayed is not None
    assert [len(part) for part in (support, query, replayed)] == [8, 8, 8]
    assert source.asked == [(8, {1})] and replayed.task.unique().tolist() == [0]
    assert not torch.equal(support.actions, query.actions)


def test_a_stage_begins_without_momentum() -> None:
    learner = train(learner_of(vr_mcl(Source(), SMALL)), stages=1)
    (hook,) = learner.method.hooks
    assert isinstance(hook, VarianceReducedMeta) and hook.before is not None
    learner.begin_stage(2, random_windows(task=1), 5)
    assert hook.before is None


@pytest.mark.parametrize("method", ["ftml", "vr-mcl"])
def test_the_inner_rate_is_the_one_of_the_settings(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []

    def kept(learner: Learner, support: Loss, query: Loss, rate: float) -> Losses:
        rates.append(rate)
        return add_meta_gradient(learner, support, query, rate)

    monkeypatch.setattr(meta_learning, "add_meta_gradient", kept)
    asking(method, Asked(), replace(SMALL, meta=MetaConfig(0.007)), task=1).update()
    assert rates == [0.007]


@pytest.mark.parametrize("method", ["ftml", "vr-mcl"])
def test_no_two_draws_of_an_update_share_a_stream(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, stream = [], Learner.stream

    def kept(learner: Learner, purpose: str) -> torch.Generator:
        asked.append(purpose)
        return stream(learner, purpose)

    monkeypatch.setattr(Learner, "stream", kept)
    asking(method, Asked(())).update()
    assert len(asked) == len(set(asked)) == 5  # two batches, their noise, and the task or the replayed windows
