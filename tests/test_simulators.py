"""Simulators in lock-step: the same numbers for any number of workers, and faults that say what happened."""

import numpy as np
import pytest

from reconverge.envs import simulator_worker
from reconverge.envs.point_reach import PointReachEnv
from reconverge.envs.simulator_worker import Worker
from reconverge.envs.simulators import EpisodeStart, NotFiniteAction, SimulatorFailure, Simulators, TaskFailure
from reconverge.envs.tasks import find_task, make_env

TASK = find_task("point-reach-1")
STARTS = [EpisodeStart(TASK, seed) for seed in (101, 202, 303, 404, 505)]
ALL = np.arange(5)


@pytest.fixture(scope="module")
def two_workers():
    with Simulators(2) as pool:
        yield pool


def chunks(count: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).uniform(-1, 1, (count, len(STARTS), 4, 2)))


def rollout(pool: Simulators, starts: list[EpisodeStart], count: int = 3) -> list[np.ndarray]:
    everything = [pool.start(starts, record=starts[:2])]
    for actions in chunks(count):
        result = pool.step(np.arange(len(starts)), actions[: len(starts)])
        everything += [result.observations, result.success, result.steps, result.invalid]
    return everything + [pool.recorded()[start] for start in starts[:2]]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_number_of_workers_changes_nothing(two_workers: Simulators, count: int) -> None:
    for here, there in zip(rollout(Simulators(0), STARTS[:count]), rollout(two_workers, STARTS[:count]), strict=True):
        np.testing.assert_array_equal(here, there)
        assert here.dtype == there.dtype


def test_a_chunk_equals_single_steps_of_one_environment() -> None:
    pool, env = Simulators(0), make_env(TASK)
    first = pool.start(STARTS)
    actions = chunks(1)[0]
    result = pool.step(ALL, actions)
    for i, start in enumerate(STARTS):
        np.testing.assert_array_equal(first[i], env.reset(seed=start.seed)[0])
        for t in range(4):
            np.testing.assert_array_equal(result.observations[i, t], env.step(actions[i, t])[0])


def test_an_episode_that_is_not_stepped_waits() -> None:
    pool = Simulators(0)
    pool.start(STARTS, record=STARTS[1:2])
    others, actions = np.array([4, 0, 2, 3]), chunks(1)[0]
    result = pool.step(others, actions[others])
    assert result.steps.tolist() == [4, 4, 4, 4]
    assert pool.recorded()[STARTS[1]].shape == (1, 2)
    everyone = Simulators(0)
    everyone.start(STARTS)
    np.testing.assert_array_equal(result.observations, everyone.step(ALL, actions).observations[others])


def test_an_episode_stops_at_the_horizon_and_repeats_its_last_observation() -> None:
    pool = Simulators(0)
    pool.start(STARTS)
    results = [pool.step(ALL, actions) for actions in chunks(9)]
    assert sum(result.steps for result in results).tolist() == [30] * 5
    assert results[7].steps.tolist() == [2] * 5 and results[8].steps.tolist() == [0] * 5
    np.testing.assert_array_equal(results[7].observations[:, 2:], results[7].observations[:, 1:3])
    assert not results[8].success.any()


def test_stop_at_success_ends_with_the_first_success() -> None:
    from reconverge.envs.experts import expert_for

    pool, expert = Simulators(0), expert_for(TASK)
    observations = pool.start(STARTS, stop_at_success=True)
    total, hits = np.zeros(5, int), np.zeros(5, int)
    for _ in range(30):
        result = pool.step(ALL, np.array([[expert.act(o)] for o in observations]))
        observations, total, hits = result.observations[:, -1], total + result.steps, hits + result.success.sum(1)
    assert hits.tolist() == [1] * 5 and total.max() < 15


def test_no_episodes_are_no_problem(two_workers: Simulators) -> None:
    assert len(two_workers.start([])) == 0
    assert two_workers.step(ALL[:0], np.zeros((0, 4, 2))).observations.shape[:2] == (0, 4)
    assert two_workers.recorded() == {}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_action_that_is_not_finite_is_refused_before_any_simulator(value: float) -> None:
    pool = Simulators(0)
    pool.start(STARTS, record=STARTS)
    actions = chunks(1)[0]
    actions[2, 1, 0] = value
    with pytest.raises(NotFiniteAction, match="task 'point-reach-1', episode seed 303, is not finite"):
        pool.step(ALL, actions)
    assert [len(states) for states in pool.recorded().values()] == [1] * 5
    assert pool.step(ALL, chunks(1)[0]).steps.tolist() == [4] * 5


def test_the_seed_that_is_named_is_that_of_the_row_that_was_asked() -> None:
    pool = Simulators(0)
    pool.start(STARTS)
    with pytest.raises(NotFiniteAction, match="episode seed 505"):
        pool.step(np.array([4, 0]), np.full((2, 4, 2), np.nan))


def test_failures_are_those_since_the_last_start() -> None:
    pool = Simulators(0)
    pool.failures.append(TaskFailure("point-reach-0", 17, 3, "of before"))
    pool.start(STARTS)
    assert pool.failures == []


def test_states_that_change_their_size_are_not_recorded_and_fail_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(PointReachEnv):
        def physics_state(self) -> np.ndarray:
            return super().physics_state()[: self._steps + 1]

    odd = find_task("point-reach-2")
    monkeypatch.setattr(simulator_worker, "make_env", lambda task: Odd(task) if task == odd else PointReachEnv(task))
    starts = [EpisodeStart(odd, 1), STARTS[0]]
    pool = Simulators(0)
    pool.start(starts, record=starts)
    pool.step(np.arange(2), np.zeros((2, 3, 2)))
    assert {start: states.shape for start, states in pool.recorded().items()} == {STARTS[0]: (4, 2)} and not pool.failures


def test_failures_that_go_on_without_their_task_end_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Worker) -> None:
        self._busy_with(0)
        raise RuntimeError("not its fault")

    pool = Simulators(0)
    pool.start(STARTS, record=STARTS)
    monkeypatch.setattr(Worker, "_recorded", broken)
    with pytest.raises(SimulatorFailure, match="went on failing when task 'point-reach-1' was left out: RuntimeError: not its fault"):
        pool.recorded()


def test_the_task_used_longest_ago_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconverge.envs.simulator_worker.KEPT_ENVIRONMENTS", 10)
    pool = Simulators(0)
    for number in (0, 1, 0, 2):
        pool.start([EpisodeStart(find_task(f"point-reach-{number}"), seed) for seed in range(5)])
    kept = pool._sides[0]._worker._kept  # type: ignore[union-attr]
    assert [(task.name, len(envs)) for task, envs in kept.items()] == [("point-reach-0", 5), ("point-reach-2", 5)]


def test_closing_twice_and_without_starting_is_fine() -> None:
    pool = Simulators(2)
    pool.close()
    pool.close()


def test_tasks_run_side_by_side_as_they_do_alone() -> None:
    others = [EpisodeStart(find_task("point-reach-3"), seed) for seed in (7, 8)]
    mixed = [STARTS[0], others[0], STARTS[1], others[1]]
    actions = chunks(1)[0][:4]
    together, apart = Simulators(2), Simulators(0)
    with together:
        first, result = together.start(mixed), together.step(np.arange(4), actions)
    for rows, starts in (([0, 2], STARTS[:2]), ([1, 3], others)):
        np.testing.assert_array_equal(first[rows], apart.start(starts))
        np.testing.assert_array_equal(result.observations[rows], apart.step(np.arange(2), actions[rows]).observations)


def test_tasks_of_the_same_start_are_never_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconverge.envs.simulator_worker.KEPT_ENVIRONMENTS", 3)
    pool = Simulators(0)
    mixed = [EpisodeStart(find_task(f"point-reach-{number}"), seed) for number in (0, 1) for seed in (1, 2)]
    pool.start(mixed)
    assert pool.step(np.arange(4), chunks(1)[0][:4]).steps.tolist() == [4] * 4
