from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from small_learner import SIZE, SMALL, Source
from small_policy import random_windows, small_policy

from reconverge.policy.config import TrainConfig, UpdateBudgetConfig
from reconverge.policy.fisher import Draws, denoising_draws, denoising_losses, diagonal_fisher, mean_gradient
from reconverge.policy.flat_parameters import FlatParameters
from reconverge.policy.learner import Learner
from reconverge.policy.methods import adaptive as adaptive_module
from reconverge.policy.methods.adaptive import StageBudget, UpdateBudget, adaptive, adaptive_trust_region
from reconverge.policy.methods.ewc import Rank1Penalty
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


def test_how_many_modules_are_trained() -> None:
    gains = torch.tensor([3.0, 2.0, 1.0])
    config = UpdateBudgetConfig(form="hard", least=0.2, sharpness=0.0)  # 0.2 + 0.8 / 2 = 0.6 of 3 are 1.8, rounded 2
    assert hard_budget(torch.tensor(0.0), gains, config, stream()).tolist() == [1.0, 1.0, 0.0]
    none = UpdateBudgetConfig(form="hard", least=0.0, sharpness=1000.0)
    assert hard_budget(torch.tensor(1.0), gains, none, stream()).tolist() == [1.0, 0.0, 0.0]  # at least one
    some = UpdateBudgetConfig(form="hard", least=0.45, sharpness=1000.0)  # 1.35 of 3: not fewer than the least share
    assert hard_budget(torch.tensor(1.0), gains, some, stream()).tolist() == [1.0, 1.0, 0.0]
    third = UpdateBudgetConfig(form="hard", least=1 / 3, sharpness=1000.0)
    assert hard_budget(torch.tensor(1.0), gains, third, stream()).tolist() == [1.0, 0.0, 0.0]


def test_the_random_control_of_the_hard_form_trains_as_many_whichever_they_are() -> None:
    config = UpdateBudgetConfig(form="hard", control="random", least=0.0, sharpness=0.0)
    budget = hard_budget(torch.tensor(0.0), torch.arange(20.0), config, stream())
    assert budget.sum() == 10 and budget.tolist() != [0.0] * 10 + [1.0] * 10


def test_a_module_at_the_threshold_has_the_middle_of_the_budget_and_so_has_every_one_of_the_constant_control() -> None:
    config = UpdateBudgetConfig(least=0.2, sharpness=10.0, threshold=0.1)
    budget = soft_budget(torch.tensor([0.1, 0.0]), config, stream())
    assert torch.allclose(budget, torch.tensor([0.6, 0.2 + 0.8 * 0.731059]), atol=1e-4)  # sigmoid(0), sigmoid(1)
    constant = soft_budget(torch.tensor([0.9, -0.9]), replace(config, control="constant"), stream())
    assert torch.allclose(constant, torch.tensor([0.6, 0.6]))


def test_a_small_gradient_has_a_direction_and_one_that_vanishes_gains_nothing() -> None:
    tiny = 1e-6 * torch.tensor([-3.0, 0.0, 0.0, 1.0])
    assert torch.allclose(alignment(tiny, tiny.sign(), PARTS), torch.tensor([-1.0, -1.0]))
    assert module_gains(torch.zeros(4), torch.zeros(2), PARTS).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("settings", [{}, {"denoiser": "unet"}])
def test_modules_cover_every_parameter_once(settings: dict[str, object]) -> None:
    if settings:
        from reconverge.policy.config import UnetConfig

        settings = settings | {"unet": UnetConfig(channels=(8, 16), groups=4, timestep_features=8, attention_heads=2)}
    parameters = FlatParameters(small_policy(**settings).denoiser)
    modules = modules_of(parameters)
    slices = list(modules.values())
    assert list(modules) == (["embed_time", "down.0", "down.1", "middle", "up.0", "write"] if settings else ["read", "blocks.0", "write"])
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
    hook.budget = replace(hook.budget, parameters=torch.where(torch.arange(len(learner.parameters)) < 100, 0.0, 0.25))
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
    assert torch.equal(first.budget.parameters, second.budget.parameters)


def budgeted(form: str = "soft") -> tuple[Learner, UpdateBudget]:
    config = TrainConfig(batch_size=16, update_budget=UpdateBudgetConfig(form=form, draws=32))  # type: ignore[arg-type]
    learner = Learner(small_policy(), adaptive(config), config, seed=0)
    hook = learner.method.hooks[0]
    assert isinstance(hook, UpdateBudget)
    return learner, hook


def run_stage(learner: Learner, stage: int) -> None:
    learner.begin_stage(stage, random_windows(task=stage - 1, seed=stage), 3)
    for _ in range(3):
        learner.update()
    learner.end_stage()


def gradient_of(learner: Learner, draws: Draws) -> torch.Tensor:
    return mean_gradient(denoising_losses(learner.policy, learner.parameters), learner.parameters.values, draws)


def test_a_stage_is_scored_by_its_gradient_against_the_move_of_the_last() -> None:
    learner, hook = budgeted()
    start = learner.parameters.values.clone()
    run_stage(learner, 1)
    move = learner.parameters.values - start
    learner.begin_stage(2, random_windows(task=1, seed=2), 3)
    draws = denoising_draws(learner.policy, learner.windows, 32, learner.streams, "budget")
    assert hook.budget is not None
    assert torch.allclose(hook.budget.decided_by, alignment(gradient_of(learner, draws), move, list(hook.modules.values())), atol=1e-4)
    halves = [gradient_of(learner, tuple(part[rows] for part in draws)) for rows in (slice(16), slice(16, None))]
    assert hook.budget.reliability == pytest.approx(float(torch.nn.functional.cosine_similarity(*halves, dim=0)), abs=1e-5)


def test_only_the_hard_form_measures_curvature() -> None:
    learner, hook = budgeted()
    run_stage(learner, 1)
    assert hook.curvature is None and list(hook.arrays()) == ["move"]


def test_the_curvature_adds_up_over_the_tasks() -> None:
    learner, hook = budgeted(form="hard")
    expected = torch.zeros(3)
    for stage in (1, 2):
        run_stage(learner, stage)
        draws = denoising_draws(learner.policy, learner.windows, 32, learner.streams, "budget")
        diagonal = diagonal_fisher(denoising_losses(learner.policy, learner.parameters), learner.parameters.values, draws)
        expected += torch.stack([diagonal[part].sum() for part in hook.modules.values()])
    assert hook.curvature is not None and torch.allclose(hook.curvature, expected, rtol=1e-5)


def test_the_hard_form_asks_all_parameters_together_and_divides_by_the_curvature(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def kept(score: torch.Tensor, gain: torch.Tensor, config: UpdateBudgetConfig, generator: torch.Generator) -> torch.Tensor:
        asked.append((score, gain))
        return hard_budget(score, gain, config, generator)

    monkeypatch.setattr(adaptive_module, "hard_budget", kept)
    learner, hook = budgeted("hard")
    run_stage(learner, 1)
    learner.begin_stage(2, random_windows(task=1, seed=2), 3)
    gradient = gradient_of(learner, denoising_draws(learner.policy, learner.windows, 32, learner.streams, "budget"))
    ((score, gain),) = asked
    assert hook.move is not None and hook.curvature is not None
    assert float(score) == pytest.approx(float(torch.nn.functional.cosine_similarity(gradient, -hook.move, dim=0)), abs=1e-4)
    assert torch.allclose(gain, module_gains(gradient, hook.curvature, list(hook.modules.values())), rtol=1e-3)
    assert hook.figures()["alignment"] == float(score)  # that by which the form decides


def test_the_figures_are_the_budgets_and_the_mean_alignment() -> None:
    hook = UpdateBudget(UpdateBudgetConfig())
    assert hook.figures() == {}
    hook.modules = {"a": slice(0, 1), "b": slice(1, 2)}
    hook.budget = StageBudget(torch.tensor([0.5, 1.0]), torch.tensor([0.5, 1.0]), torch.tensor([0.2, -0.4]), 0.75)
    assert hook.figures() == {"budget.a": 0.5, "budget.b": 1.0, "alignment": pytest.approx(-0.1), "alignment_reliability": 0.75}


def test_a_radius_has_the_last_word_over_the_budget_and_the_weighting_is_kept() -> None:
    rehearse, *others = adaptive_trust_region(Source(), replace(SMALL, weighting="tasks-seen"), SIZE).hooks
    assert [type(hook) for hook in others] == [UpdateBudget, Rank1Penalty]
    assert rehearse.weighting == "tasks-seen"  # type: ignore[attr-defined]
