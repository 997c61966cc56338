from itertools import pairwise

import pytest
import torch
from small_policy import random_windows, small_policy

from reconverge.policy.config import TrainConfig, UpdateBudgetConfig
from reconverge.policy.flat_parameters import FlatParameters
from reconverge.policy.learner import Learner
from reconverge.policy.methods.adaptive import UpdateBudget, adaptive
from reconverge.policy.update_budget import alignment, hard_budget, module_gains, modules_of, soft_budget

PARTS = [slice(0, 2), slice(2, 4)]


def stream() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_example_in_the_modules_first_lines() -> None:
    budget = soft_budget(torch.tensor([0.1, -0.1]), UpdateBudgetConfig(least=0.2, sharpness=10.0, threshold=0.0), stream())
    assert torch.allclose(budget, torch.tensor([0.4152, 0.7848]), atol=1e-4)


def test_a_gradient_that_goes_on_where_the_last_stage_went_is_related() -> None:
    """Descent moves along minus the gradient, so a gradient opposed to the last move wants more of the same."""
    move = torch.tensor([1.0, 0.0, 0.0, 2.0])
    scores = alignment(torch.tensor([-3.0, 0.0, 0.0, 1.0]), move, PARTS)
    assert torch.allclose(scores, torch.tensor([1.0, -1.0]))


def test_controls() -> None:
    scores = torch.tensor([0.3, -0.3, 0.0, 0.1, -0.1])
    plain, opposite, constant, shuffled = (
        soft_budget(scores, UpdateBudgetConfig(control=control), stream())  # type: ignore[arg-type]
        for control in ("none", "opposite", "constant", "random")
    )
    assert torch.allclose(opposite, soft_budget(-scores, UpdateBudgetConfig(), stream()))
    assert len(set(constant.tolist())) == 1
    assert sorted(shuffled.tolist()) == sorted(plain.tolist()) and shuffled.tolist() != plain.tolist()


def test_the_hard_form_trains_the_modules_with_most_gradient_per_curvature() -> None:
    gains = module_gains(torch.tensor([3.0, 4.0, 1.0, 0.0]), torch.tensor([100.0, 0.1]), PARTS)
    assert torch.allclose(gains, torch.tensor([0.25, 10.0]))
    related = UpdateBudgetConfig(form="hard", least=0.0, sharpness=100.0)
    assert hard_budget(torch.tensor(0.5), gains, related, stream()).tolist() == [0.0, 1.0]
    assert hard_budget(torch.tensor(-0.5), gains, related, stream()).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("settings", [{}, {"denoiser": "unet"}])
def test_modules_cover_every_parameter_once(settings: dict[str, object]) -> None:
    if settings:
        from reconverge.policy.config import UnetConfig

        settings = settings | {"unet": UnetConfig(channels=(8, 16), groups=4, timestep_features=8, attention_heads=2)}
    parameters = FlatParameters(small_policy(**settings).denoiser)
    modules = modules_of(parameters)
    slices = list(modules.values())
    assert settings or list(modules) == ["read", "blocks.0", "write"]
    assert slices[0].start == 0 and slices[-1].stop == len(parameters) and len(slices) > 2
    assert all(first.stop == second.start for first, second in pairwise(slices))


def test_a_frozen_module_does_not_move_and_a_scaled_one_moves_by_its_share() -> None:
    config = TrainConfig(batch_size=16, update_budget=UpdateBudgetConfig(draws=32))
    learner = Learner(small_policy(), adaptive(config), config, seed=0)
    for stage in (1, 2):
        learner.begin_stage(stage, random_windows(task=stage - 1, seed=stage), 3)
        if stage == 1:
            learner.update()
            learner.end_stage()
    hook = learner.method.hooks[0]
    assert isinstance(hook, UpdateBudget) and hook.budget is not None
    free = Learner(small_policy(), adaptive(config), config, seed=0)
    free.parameters.values.copy_(learner.parameters.values)
    free.begin_stage(2, random_windows(task=1, seed=2), 3)
    hook.multipliers = torch.where(torch.arange(len(learner.parameters)) < 100, 0.0, 0.25)
    before = learner.parameters.values.clone()
    learner.update()
    free.update()
    step, free_step = learner.parameters.values - before, free.parameters.values - before
    assert torch.equal(step[:100], torch.zeros(100))
    assert torch.allclose(step[100:], 0.25 * free_step[100:], atol=1e-7) and float(step.abs().max()) > 0


def test_what_it_remembers_goes_through_arrays() -> None:
    config = TrainConfig(batch_size=16, update_budget=UpdateBudgetConfig(draws=32))
    learner = Learner(small_policy(), adaptive(config), config, seed=0)
    learner.begin_stage(1, random_windows(), 3)
    learner.update()
    learner.end_stage()
    other = Learner(small_policy(), adaptive(config), config, seed=0)
    other.parameters.values.copy_(learner.parameters.values)
    other.load_arrays(1, learner.arrays())
    for each in (learner, other):
        each.begin_stage(2, random_windows(task=1, seed=2), 3)
    first, second = learner.method.hooks[0], other.method.hooks[0]
    assert isinstance(first, UpdateBudget) and isinstance(second, UpdateBudget) and first.budget is not None and second.budget is not None
    assert torch.equal(first.budget, second.budget)
