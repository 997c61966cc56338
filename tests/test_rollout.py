from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from reconverge.envs.episodes import episode_seed
from reconverge.envs.point_reach import PointReachEnv
from reconverge.envs.simulators import Simulators
from reconverge.envs.tasks import find_task
from reconverge.eval.rollout import SMALLEST_BATCH, evaluation_seeds, evaluation_starts, planned_steps, rollout
from reconverge.policy.config import PolicyConfig, ResidualMLPConfig
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.normalizer import Normalizer

TASK, OTHER = find_task("point-reach-0"), find_task("point-reach-1")


class GoesToTheGoal(DiffusionPolicy):
    """Knows the task: heads for the goal that it sees."""

    def sample_chunk(self, observations: torch.Tensor, task: torch.Tensor, streams: Sequence[torch.Generator]) -> torch.Tensor:
        away = observations[:, -1, 2:] - observations[:, -1, :2]
        first = (away / 0.1).clamp(-1, 1)
        return torch.stack([first, torch.zeros_like(first)], dim=1)


def policy_of(kind: type[DiffusionPolicy]) -> DiffusionPolicy:
    config = PolicyConfig(horizon=2, executed=2, mlp=ResidualMLPConfig(8, 1, 8), timesteps=10, sampling_steps=2)
    return kind(config, [TASK.name, OTHER.name], 4, 2, Normalizer.for_task(TASK), seed=0)


def test_a_policy_that_solves_the_task_is_seen_to() -> None:
    with Simulators(0) as simulators:
        results = rollout(policy_of(GoesToTheGoal), evaluation_starts([TASK], 6), simulators).results
    assert all(result.success_any and result.success_final and result.steps == TASK.horizon for result in results)
    assert all(result.first_success_step is not None and 5 <= result.first_success_step <= 25 for result in results)


def test_stopping_at_success_changes_the_length_only() -> None:
    with Simulators(0) as simulators:
        starts = evaluation_starts([TASK], 6)
        full = rollout(policy_of(GoesToTheGoal), starts, simulators).results
        short = rollout(policy_of(GoesToTheGoal), starts, simulators, stop_at_success=True).results
    assert [result.first_success_step for result in full] == [result.first_success_step for result in short]
    assert [result.steps for result in short] == [result.first_success_step for result in short]


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_change_nothing(workers: int) -> None:
    starts = evaluation_starts([TASK, OTHER], 5)
    outcomes = []
    for count in (0, workers):
        with Simulators(count) as simulators:
            outcomes.append(rollout(policy_of(DiffusionPolicy), starts, simulators, record=starts[4:6]))
    first, second = outcomes
    assert first.results == second.results and [result.episode_seed for result in first.results] == [start.seed for start in starts]
    assert set(first.recordings) == set(starts[4:6])
    assert all(np.array_equal(first.recordings[start].states, second.recordings[start].states) for start in starts[4:6])
    assert all(len(recording.states) == len(recording.success) + 1 for recording in first.recordings.values())


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="another BLAS may round a row by its place in the batch")
@pytest.mark.parametrize("at_once", [512, 3])
def test_an_episode_does_not_depend_on_its_company(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, among its task's, and among many of two tasks: the same physics states, to the last bit (where BLAS is MKL)."""
    monkeypatch.setattr("reconverge.eval.rollout.AT_ONCE", at_once)
    policy = DiffusionPolicy(PolicyConfig(timesteps=10, sampling_steps=2), [TASK.name, OTHER.name], 4, 2, Normalizer.for_task(TASK), seed=0)
    starts = evaluation_starts([TASK, OTHER], SMALLEST_BATCH)
    watched = starts[3]
    states = []
    for company in (starts, starts[:5], [watched]):
        with Simulators(0) as simulators:
            states.append(rollout(policy, company, simulators, record=[watched]).recordings[watched].states)
    assert np.array_equal(states[0], states[1]) and np.array_equal(states[0], states[2])


def test_the_two_halves_of_the_work_are_timed_and_steps_counted() -> None:
    entered, stepped = Counter[str](), []

    @contextmanager
    def timer(name: str) -> Iterator[None]:
        entered[name] += 1
        yield

    with Simulators(0) as simulators:
        rollout(policy_of(DiffusionPolicy), evaluation_starts([TASK], 4), simulators, tick=stepped.append, timer=timer)
    assert entered == {"sample": 15, "simulate": 16} and stepped == [8] * 15


def test_steps_that_a_success_makes_needless_count_as_done() -> None:
    stepped: list[int] = []
    starts = evaluation_starts([TASK], 6)
    with Simulators(0) as simulators:
        rollout(policy_of(GoesToTheGoal), starts, simulators, stop_at_success=True, tick=stepped.append)
    assert sum(stepped) == planned_steps(starts) == 180 and len(stepped) < 15


def test_the_episode_list_is_fixed_and_a_longer_one_begins_with_a_shorter() -> None:
    assert evaluation_seeds(TASK, 9)[:4] == evaluation_seeds(TASK, 4)
    assert len(set(evaluation_seeds(TASK, 100))) == 100
    assert not set(evaluation_seeds(TASK, 50)) & set(evaluation_seeds(find_task("point-reach-1"), 50))


def test_what_settings_are_chosen_on_is_not_what_is_reported() -> None:
    test, validation = evaluation_starts([TASK], 100), evaluation_starts([TASK], 100, "validation")
    assert test == evaluation_starts([TASK], 100, "test") and not set(test) & set(validation)
    assert test[0].seed == episode_seed("evaluation", TASK.name, 0)  # as in all runs from before there were two


def test_a_task_whose_physics_break_in_every_episode_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another one the sound episodes count."""

    def breaking(self: PointReachEnv, action: np.ndarray) -> tuple[Any, ...]:
        observation, *rest, info = sound_step(self, action)
        return observation, *rest, {**info, "invalid": self.task == TASK or self._goal[0] > 0}

    sound_step = PointReachEnv.step
    monkeypatch.setattr(PointReachEnv, "step", breaking)
    starts = evaluation_starts([TASK, OTHER], 8)
    with Simulators(0) as simulators:
        done = rollout(policy_of(DiffusionPolicy), starts, simulators)
    (failure,) = done.failures
    assert (failure.task, failure.episode_seed, failure.attempts) == (TASK.name, starts[7].seed, 8) and "broke in every episode" in failure.error
    assert not done.of(TASK) and 0 < sum(result.invalid for result in done.of(OTHER)) < 8
