"""Windows from the teacher's own episodes, and the budget of stored ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_policy import random_windows, small_policy

from reconverge.envs.episodes import Episode, episode_seed
from reconverge.envs.tasks import find_task
from reconverge.policy.random_streams import RandomStreams
from reconverge.policy.windows import WindowTable
from reconverge.replay.config import ReplayConfig
from reconverge.replay.stored_windows import StoredWindows
from reconverge.replay.teacher_rollouts import TeacherRollouts

HOLD_STEPS = 7
TASKS = [find_task("point-reach-0"), find_task("point-reach-1")]


class Acted:
    """Stands in for the simulators: every other episode succeeds at its third step."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def __call__(self, policy, starts):  # type: ignore[no-untyped-def]
        self.asked += [(start.task.name, start.seed) for start in starts]
        return [self.episode(start.task.name, start.seed, success=number % 2 == 0) for number, start in enumerate(starts)]

    @staticmethod
    def episode(task: str, seed: int, success: bool) -> Episode:
        flags = np.zeros(20, dtype=bool)
        flags[2:] = success
        return Episode(task, seed, np.full((21, 4), float(success), np.float32), np.zeros((20, 2), np.float32), flags)


def windows_of(episodes, task) -> WindowTable:  # type: ignore[no-untyped-def]
    return WindowTable.from_episodes(episodes, TASKS.index(task), window=2, horizon=4, past_actions=0, episode_horizon=task.horizon)


def source(**settings: object) -> tuple[TeacherRollouts, Acted]:
    acted = Acted()
    config = ReplayConfig(source="teacher-rollouts", rollouts_per_task=4, **settings)  # type: ignore[arg-type]
    return TeacherRollouts(config, TASKS, HOLD_STEPS, acted, windows_of), acted


def test_an_episode_is_cut_where_the_goal_has_been_held() -> None:
    replay, _ = source(successes_only=True)
    replay.refill(0, random_windows(), small_policy(), RandomStreams(0, 1))
    assert len(replay.pools[0]) == 2 * (3 + HOLD_STEPS)
    assert bool((replay.pools[0].all().observations == 1).all())  # failures are not taught


def test_an_episode_that_is_cut_keeps_the_observation_after_its_last_action() -> None:
    cut: list[Episode] = []

    def kept(episodes, task) -> WindowTable:  # type: ignore[no-untyped-def]
        cut.extend(episodes)
        return windows_of(episodes, task)

    config = ReplayConfig(source="teacher-rollouts", rollouts_per_task=1)
    TeacherRollouts(config, TASKS, HOLD_STEPS, Acted(), kept).refill(0, random_windows(), small_policy(), RandomStreams(0, 1))
    (episode,) = cut
    steps = 3 + HOLD_STEPS
    assert (len(episode.observations), len(episode.actions), len(episode.success)) == (steps + 1, steps, steps)


def test_a_pool_holds_no_more_windows_than_one_asks_for() -> None:
    replay, _ = source(windows_per_task=11)
    replay.refill(0, random_windows(), small_policy(), RandomStreams(0, 1))
    assert len(replay.pools[0]) == len(replay.pools[0].times) == 11


def test_the_windows_of_a_pool_keep_their_times() -> None:
    table = random_windows()  # whatever was acted
    config = ReplayConfig(source="teacher-rollouts", rollouts_per_task=1, windows_per_task=16)
    replay = TeacherRollouts(config, TASKS, HOLD_STEPS, Acted(), lambda episodes, task: table)
    replay.refill(0, random_windows(), small_policy(), RandomStreams(0, 1))
    rows = [int((table.all().observations == window).all(dim=(1, 2)).nonzero()) for window in replay.pools[0].all().observations]
    assert torch.equal(replay.pools[0].times, table.times[rows]) and rows != sorted(rows)


def test_the_teacher_acts_in_other_episodes_at_every_stage() -> None:
    replay, acted = source(pool="redrawn")
    for stage in (1, 2):
        replay.refill(0, random_windows(), small_policy(), RandomStreams(7, stage))
    seeds = [episode_seed("teacher rollout", 7, stage, TASKS[0].name, number) for stage in (1, 2) for number in range(4)]
    assert [seed for _, seed in acted.asked] == seeds and len(set(seeds)) == 8


def test_failures_are_kept_unless_told_otherwise_and_a_teacher_that_always_fails_still_teaches() -> None:
    replay, acted = source()
    replay.refill(0, random_windows(), small_policy(), RandomStreams(0, 1))
    assert len(replay.pools[0]) == 2 * (3 + HOLD_STEPS) + 2 * 20
    never, acted = source(successes_only=True)
    acted.episode = lambda task, seed, success: Acted.episode(task, seed, False)  # type: ignore[method-assign]
    never.refill(0, random_windows(), small_policy(), RandomStreams(0, 1))
    assert len(never.pools[0]) == 4 * 20


@pytest.mark.parametrize(("pool", "acted_in"), [("freshest", ["point-reach-1"]), ("redrawn", ["point-reach-0", "point-reach-1"])])
def test_which_tasks_are_acted_again(pool: str, acted_in: list[str]) -> None:
    replay, acted = source(pool=pool)
    replay.refill(0, random_windows(), small_policy(), RandomStreams(0, 1))
    acted.asked.clear()
    replay.refill(1, random_windows(), small_policy(), RandomStreams(0, 2))
    assert list(dict.fromkeys(task for task, _ in acted.asked)) == acted_in
    assert len({seed for _, seed in acted.asked}) == len(acted.asked)
    assert set(replay.tasks) == {0, 1} and replay.ledger()[0].past_task_data


def test_a_budget_in_megabytes_is_shared_by_the_tasks_and_shrinks_older_pools() -> None:
    stored = StoredWindows(ReplayConfig(source="stored", stored_megabytes=0.004))
    sizes = []
    for task in (0, 1):
        stored.refill(task, random_windows(task=task), small_policy(), RandomStreams(0, task + 1))
        sizes.append(len(stored.pools[0]))
        assert stored.pools.bytes <= 0.004e6
        held = stored.pools._all.all().observations
        assert held.untyped_storage().nbytes() == held.nbytes  # nothing that was dropped stays alive
    assert sizes[1] == sizes[0] // 2 > 0


def test_the_budget_in_megabytes_by_hand() -> None:
    """A window takes 4 * (2 * 5 + 4 * 2 + 1) = 76 bytes: 0.0038 MB are 50 windows, for two tasks 25 each; a budget of nothing leaves one."""
    stored = StoredWindows(ReplayConfig(source="stored", stored_megabytes=0.0038))
    for task, sizes in ((0, [50]), (1, [25, 25])):
        stored.refill(task, random_windows(task=task), small_policy(), RandomStreams(0, task + 1))
        assert [len(pool) for pool in stored.pools.values()] == sizes
    tiny = StoredWindows(ReplayConfig(source="stored", stored_megabytes=1e-6))
    tiny.refill(0, random_windows(), small_policy(), RandomStreams(0, 1))
    assert len(tiny.pools[0]) == 1
