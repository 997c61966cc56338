from collections.abc import Sequence

import numpy as np
import pytest
import torch

from reconverge.envs.simulators import Simulators
from reconverge.envs.tasks import find_task
from reconverge.eval.rollout import evaluation_seeds, rollout
from reconverge.policy.config import PolicyConfig, ResidualMLPConfig
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.normalizer import Normalizer

TASK = find_task("point-reach-0")


class GoesToTheGoal(DiffusionPolicy):
    """Knows the task: heads for the goal that it sees."""

    def sample_chunk(self, observations: torch.Tensor, task: torch.Tensor, streams: Sequence[torch.Generator]) -> torch.Tensor:
        away = observations[:, -1, 2:] - observations[:, -1, :2]
        first = (away / 0.1).clamp(-1, 1)
        return torch.stack([first, torch.zeros_like(first)], dim=1)


def policy_of(kind: type[DiffusionPolicy]) -> DiffusionPolicy:
    config = PolicyConfig(horizon=2, executed=2, mlp=ResidualMLPConfig(8, 1, 8), timesteps=10, sampling_steps=2)
    return kind(config, [TASK.name], 4, 2, Normalizer.for_task(TASK), seed=0)


def test_a_policy_that_solves_the_task_is_seen_to() -> None:
    with Simulators(0) as simulators:
        results, _ = rollout(policy_of(GoesToTheGoal), TASK, evaluation_seeds(TASK, 6), simulators)
    assert all(result.success_any and result.success_final and result.steps == TASK.horizon for result in results)
    assert all(result.first_success_step is not None and 5 <= result.first_success_step <= 25 for result in results)


def test_stopping_at_success_changes_the_length_only() -> None:
    with Simulators(0) as simulators:
        seeds = evaluation_seeds(TASK, 6)
        full, _ = rollout(policy_of(GoesToTheGoal), TASK, seeds, simulators)
        short, _ = rollout(policy_of(GoesToTheGoal), TASK, seeds, simulators, stop_at_success=True)
    assert [result.first_success_step for result in full] == [result.first_success_step for result in short]
    assert [result.steps for result in short] == [result.first_success_step for result in short]


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_change_nothing(workers: int) -> None:
    seeds = evaluation_seeds(TASK, 5)
    outcomes = []
    for count in (0, workers):
        with Simulators(count) as simulators:
            outcomes.append(rollout(policy_of(DiffusionPolicy), TASK, seeds, simulators, record=seeds[:2]))
    (first, first_recorded), (second, second_recorded) = outcomes
    assert first == second
    assert set(first_recorded) == set(seeds[:2])
    assert all(np.array_equal(first_recorded[seed].states, second_recorded[seed].states) for seed in first_recorded)
    assert all(len(recording.states) == len(recording.success) + 1 for recording in first_recorded.values())


def test_the_episode_list_is_fixed_and_a_longer_one_begins_with_a_shorter() -> None:
    assert evaluation_seeds(TASK, 9)[:4] == evaluation_seeds(TASK, 4)
    assert len(set(evaluation_seeds(TASK, 100))) == 100
    assert not set(evaluation_seeds(TASK, 50)) & set(evaluation_seeds(find_task("point-reach-1"), 50))
