"""L2, MAS and SI: the importance of every parameter against worked examples, and where the penalty lies."""

from __future__ import annotations

import pytest
import torch
from small_learner import SIZE, learner_of, train
from small_policy import random_windows
from torch import Tensor

from reconverge.policy.config import L2Config, MASConfig, OptimizerConfig, SIConfig, TrainConfig
from reconverge.policy.diagonal_trust_region import DiagonalTrustRegion
from reconverge.policy.fisher import Draws, denoising_draws
from reconverge.policy.hooks import Hook
from reconverge.policy.learner import Learner
from reconverge.policy.methods.l2 import l2
from reconverge.policy.methods.mas import mas, sensitivity, squared_outputs
from reconverge.policy.methods.si import PathIntegral, si

PLAIN = TrainConfig(updates=5, batch_size=16, optimizer=OptimizerConfig(schedule="constant", weight_decay=0.0))


def region_of(learner: Learner) -> DiagonalTrustRegion:
    return learner.method.hooks[0].region  # type: ignore[attr-defined,no-any-return]


def test_all_curvature_lies_around_the_last_optimum() -> None:
    """D = 1 around 0, then D = 3 around 2: A = 4, b = 2, and 4 / 2 * 2 * (1 - 2)^2 = 4 at theta = 1 with lambda = 2."""
    region = DiagonalTrustRegion(2.0, 1)
    region.move(torch.tensor([1.0]), torch.tensor([0.0]))
    region.move(torch.tensor([3.0]), torch.tensor([2.0]))
    assert (float(region.curvature), float(region.centre), region.rest, len(region)) == (4.0, 2.0, 0.0, 2)
    gradient = torch.zeros(1)
    assert float(region.add_gradient(torch.tensor([1.0]), gradient)) == 4.0 == float(region.penalty(torch.tensor([1.0])))
    assert gradient.tolist() == [-8.0]  # lambda A (theta - b)
    region.move(torch.tensor([-5.0]), torch.tensor([2.0]))
    assert region.curvature.tolist() == [0.0]


def test_l2_counts_the_tasks() -> None:
    learner = train(learner_of(l2(L2Config(strength=3.0), SIZE), PLAIN), stages=2)
    region = region_of(learner)
    assert region.curvature.unique().tolist() == [2.0] and torch.equal(region.centre, learner.parameters.values)
    assert learner.method.hooks[0].kept() == {"importance and last optimum": 2 * 4 * SIZE}
    theta = learner.parameters.values + 0.1
    assert float(region.penalty(theta)) == pytest.approx(3.0 / 2 * 2 * 0.01 * SIZE, rel=1e-4)


def test_the_sensitivity_in_the_modules_first_lines() -> None:
    """F = theta . x at theta = (1, 2): the absolute value is taken per draw, so (2, 1) and not (0, 1)."""

    def squared(theta: Tensor, draws: Draws) -> Tensor:
        return (draws[0] @ theta).square()

    inputs = torch.tensor([[1.0, 0.0], [1.0, -1.0]])
    assert sensitivity(squared, torch.tensor([1.0, 2.0]), (inputs,)).tolist() == [2.0, 1.0]


def test_mas_agrees_with_autograd_draw_by_draw() -> None:
    learner = train(learner_of(mas(MASConfig(draws=32), SIZE), PLAIN), stages=1)
    draws = denoising_draws(learner.policy, learner.windows, 32, learner.streams, "sensitivity")
    total = torch.zeros(SIZE)
    for row in range(32):
        clean, condition, timestep, noise = (part[row : row + 1] for part in draws)
        predicted = learner.policy.predict_noise(learner.policy.diffusion.add_noise(clean, noise, timestep), timestep, condition)
        gradients = torch.autograd.grad(predicted.square().mean(), list(learner.policy.denoiser.parameters()))
        total += torch.cat([gradient.reshape(-1) for gradient in gradients]).abs()
    assert torch.allclose(region_of(learner).curvature, total / 32, rtol=1e-4, atol=1e-7)
    norms = squared_outputs(learner.policy, learner.parameters)(learner.parameters.values, draws)
    assert norms.shape == (32,) and bool((norms > 0).all())


class OneWeight:
    """Stands in for a learner of one parameter, which is moved by hand."""

    def __init__(self) -> None:
        self.parameters = type("Flat", (), {"values": torch.zeros(1), "gradient": torch.zeros(1)})()

    def step(self, hook: Hook, gradient: float, by: float) -> None:
        self.parameters.gradient.fill_(gradient)
        hook.add_penalty_gradient(self)  # type: ignore[arg-type]
        before = self.parameters.values.clone()
        self.parameters.values.add_(by)
        hook.adjust_step(self, before)  # type: ignore[arg-type]


def test_the_path_integral_in_the_modules_first_lines() -> None:
    hook, learner = PathIntegral(SIConfig(damping=0.5), 1), OneWeight()
    hook.on_stage_start(learner)  # type: ignore[arg-type]
    learner.step(hook, gradient=-4.0, by=1.0)
    learner.step(hook, gradient=-2.0, by=0.5)
    assert hook.path.tolist() == [5.0]
    hook.on_stage_end(learner)  # type: ignore[arg-type]
    assert float(hook.region.curvature) == pytest.approx(5 / 2.75) and float(hook.region.centre) == 1.5

    hook.on_stage_start(learner)  # type: ignore[arg-type]
    learner.step(hook, gradient=0.5, by=-1.0)  # the penalty's own gradient is no part of the path
    assert hook.path.tolist() == [0.5] and learner.parameters.gradient.tolist() == [0.5]  # theta was at the optimum still
    learner.step(hook, gradient=0.5, by=0.0)
    assert hook.path.tolist() == [0.5] and float(learner.parameters.gradient) == pytest.approx(0.5 - 2.0 * 5 / 2.75)


def test_the_path_integral_is_the_drop_of_the_loss_on_small_steps() -> None:
    """All omega together are L(start) - L(end) of one fixed batch, to first order."""

    class FixedBatch(Hook):
        name = "fixed batch"

        def objective_gradient(self, learner: Learner):  # type: ignore[no-untyped-def]
            losses = learner.losses(learner.windows.all(), None, learner.streams.generator("fixed"))
            learner.weighted(losses).backward()
            return losses

    method = si(SIConfig(), SIZE)
    config = TrainConfig(updates=200, batch_size=16, optimizer=OptimizerConfig(2e-5, 0.0, "constant", max_gradient_norm=1e-3))
    learner = learner_of(type(method)("si", (FixedBatch(), *method.hooks)), config)
    learner.begin_stage(1, random_windows(), 200)
    losses = [float(figures.loss) for _ in range(200) if (figures := learner.update()).loss is not None]
    drop = float(method.hooks[0].path.sum())  # type: ignore[attr-defined]
    assert losses[0] - losses[-1] > 0 and drop == pytest.approx(losses[0] - losses[-1], rel=0.02)
