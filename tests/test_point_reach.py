"""The toy tasks: episodes repeat, the expert solves them, and they contradict each other."""

import numpy as np
import pytest

from reconverge.envs.experts import expert_for, run_expert
from reconverge.envs.point_reach import GOAL_RADIUS, SUCCESS_RADIUS, PointReachExpert, point_reach_tasks, target_of
from reconverge.envs.tasks import find_task, make_env

TASKS = point_reach_tasks()


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_expert_always_succeeds(task) -> None:
    env, expert = make_env(task), expert_for(task)
    runs = [run_expert(env, expert, seed, hold_steps=5) for seed in range(50)]
    assert all(run is not None and 10 <= len(run.actions) <= 20 for run in runs)


@pytest.mark.parametrize("acting", TASKS, ids=lambda task: task.name)
def test_another_tasks_expert_always_fails(acting) -> None:
    """This is why learning one task unlearns another: from one observation they ask for opposite things."""
    for task in TASKS:
        if task is not acting:
            assert all(run_expert(make_env(task), PointReachExpert(acting), seed, 5) is None for seed in range(20))


def test_targets_are_apart_by_more_than_two_success_radii() -> None:
    goal = np.array([GOAL_RADIUS[0], 0.0])
    targets = np.array([target_of(task, goal) for task in TASKS])
    distances = np.linalg.norm(targets[:, None] - targets[None], axis=-1) + 9.0 * np.eye(len(TASKS))
    assert distances.min() > 2 * SUCCESS_RADIUS


def test_task_0_goes_to_the_goal_that_is_shown() -> None:
    np.testing.assert_array_equal(target_of(TASKS[0], np.array([0.3, -0.8])), [0.3, -0.8])


def test_an_episode_repeats_whatever_came_before() -> None:
    task = find_task("point-reach-2")
    env, other = make_env(task), make_env(task)
    actions = np.random.default_rng(0).uniform(-2, 2, (30, 2))
    first = [env.reset(seed=11)[0], *(env.step(a)[0] for a in actions)]
    other.reset(seed=12)
    other.step(actions[3])
    again = [other.reset(seed=11)[0], *(other.step(a)[0] for a in actions)]
    np.testing.assert_array_equal(first, again)


def test_an_episode_ends_at_the_horizon_and_refuses_nan() -> None:
    env = make_env(TASKS[0])
    env.reset(seed=0)
    assert [env.step(np.zeros(2))[3] for _ in range(30)] == [False] * 29 + [True]
    with pytest.raises(ValueError, match="not finite"):
        env.step(np.array([np.nan, 0.0]))


def test_the_picture_is_upright() -> None:
    env = make_env(TASKS[0])
    env.reset(seed=0)
    picture = env.draw(np.array([0.0, 1.2]), 60, 40)
    assert picture.shape == (40, 60, 3) and picture.dtype == np.uint8
    rows, columns = np.nonzero((picture == (40, 70, 160)).all(axis=-1))
    assert rows.mean() < 5 and abs(columns.mean() - 29.5) < 1
