"""The simulator: metaworld 3.1.1's own environments against `make_env`, over the ten tasks of Continual World.

    step        100 actions after a reset (the expert's, then random ones), per step: like for like with stock's reward, and with
                observation and success alone, which is all that evaluation and demonstrations need; stock always computes a reward
    reset       of an episode seed that it has not reset before, and of one that it has, whose start ours keeps
    creation    the first environment of a task in this process, and a further one, with which ours shares the compiled model

A line is the geometric mean over the tasks. EnvPool 1.2.5 plays Meta-World with physics of its own, in a process of its own:
its rate is printed beside, without a ratio.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import count, cycle
from typing import Any

import numpy as np

from benchmarks.harness import Bench, Equality, Kind, Peer, Side, Timing, identical, installed
from benchmarks.stock_metaworld import make_stock, reset_stock
from reconverge.envs.curriculum import CW10
from reconverge.envs.experts import expert_for
from reconverge.envs.metaworld_env import MetaworldEnv
from reconverge.envs.task import Task
from reconverge.envs.tasks import TaskEnv, find_task, make_env

METAWORLD = Peer.of("metaworld", "metaworld")
SEEDS = (5, 1_987_654_321)
SEEN = tuple(range(100, 108))
NEW = 1_000_000
STEPS = 100
ENVPOOL_TIMEOUT_S = 300


def run(bench: Bench) -> None:
    tasks = [find_task(name) for name in bench.pick(CW10, CW10[:3], CW10[:1])]
    creation = _created(bench, tasks)
    equality = bench.gate("episodes", lambda: _same_episodes(tasks))
    bench.record("creation, first of its task", METAWORLD, creation["first"], equality, unit="ms", kind="same maths")
    bench.record("creation, further of its task", METAWORLD, creation["further"], equality, unit="ms", kind="cached")
    for benchmark, (kind, sides) in MEASURED.items():
        timings = [_measured(bench, benchmark, task, sides, share=4 / len(tasks)) for task in tasks]
        bench.record(f"{benchmark}, mean over {len(tasks)} tasks", METAWORLD, Timing.geometric_mean(timings), equality, unit="us", kind=kind)
    _envpool(bench, tasks)


def _measured(bench: Bench, benchmark: str, task: Task, sides: Sides, share: float) -> Timing:
    timing = bench.measure(*sides(task), share)
    bench.show(f"{benchmark}, {task.name}: ours {1e6 * np.median(timing.ours):.1f} us, theirs {1e6 * np.median(timing.theirs):.1f} us")
    return timing


# What is timed -----------------------------------------------------------------------------------------------------------------


def _steps(task: Task) -> tuple[Side, Side]:
    return _steps_of(make_env(task), task)


def _steps_with_reward(task: Task) -> tuple[Side, Side]:
    return _steps_of(MetaworldEnv(task, rewards=True), task)


def _steps_of(ours: TaskEnv, task: Task) -> tuple[Side, Side]:
    theirs, actions = make_stock(task.name), actions_for(task, SEEDS[0], STEPS)
    mine = Side(lambda: [ours.step(action) for action in actions], STEPS, lambda: ours.reset(seed=SEEDS[0]))
    return mine, Side(lambda: [theirs.step(action) for action in actions], STEPS, lambda: reset_stock(theirs, SEEDS[0]))


def _resets_of_seen(task: Task) -> tuple[Side, Side]:
    return _resets(task, cycle(SEEN), cycle(SEEN))


def _resets_of_new(task: Task) -> tuple[Side, Side]:
    return _resets(task, count(NEW), count(NEW))


def _resets(task: Task, seeds: Iterator[int], their_seeds: Iterator[int]) -> tuple[Side, Side]:
    ours, theirs = make_env(task), make_stock(task.name)
    for seed in SEEN:
        ours.reset(seed=seed), reset_stock(theirs, seed)
    return Side(lambda: ours.reset(seed=next(seeds))), Side(lambda: reset_stock(theirs, next(their_seeds)))


Sides = Callable[[Task], tuple[Side, Side]]
MEASURED: dict[str, tuple[Kind, Sides]] = {
    "step with reward": ("exact rewrite", _steps_with_reward),
    "step, success only": ("fewer outputs", _steps),
    "reset, new seed": ("exact rewrite", _resets_of_new),
    "reset, seed seen before": ("cached", _resets_of_seen),
}


def _created(bench: Bench, tasks: list[Task]) -> dict[str, Timing]:
    """Once per task and side, in turns; before anything else has made an environment in this process."""
    seconds: dict[str, tuple[list[float], list[float]]] = {"first": ([], []), "further": ([], [])}
    kept = []
    for number, task in enumerate(tasks):
        for sides in seconds.values():
            for side in (0, 1) if number % 2 else (1, 0):
                started = bench.clock()
                kept.append(make_stock(task.name) if side else make_env(task))
                sides[side].append(bench.clock() - started)
    return {which: Timing(np.array(ours), np.array(theirs)) for which, (ours, theirs) in seconds.items()}


# Equality ----------------------------------------------------------------------------------------------------------------------


def _same_episodes(tasks: list[Task]) -> Equality:
    """Each seed on a stock environment made for it alone; ours plays every seed twice, all in one environment with a history."""
    ours, with_rewards, theirs = [], [], []
    for task in tasks:
        env, env_with_rewards = make_env(task), MetaworldEnv(task, rewards=True)
        actions = {seed: actions_for(task, seed) for seed in SEEDS}
        stock = {seed: played_stock(task, seed, actions[seed]) for seed in SEEDS}
        for seed in (*SEEDS, *SEEDS):
            ours.append(played(env, seed, actions[seed]))
            with_rewards.append(played(env_with_rewards, seed, actions[seed]))
            theirs.append(stock[seed])
    observations, success, rewards = _joined(theirs)
    equality = identical("observations", _joined(ours)[0], observations) & identical("success flags", _joined(ours)[1], success)
    return equality & Equality(f"{int(success.sum())} of them true") & identical("rewards, where asked for,", _joined(with_rewards)[2], rewards)


def _joined(episodes: Sequence[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
    return [np.concatenate(part) for part in zip(*episodes, strict=True)]


def actions_for(task: Task, seed: int, steps: int = 135) -> np.ndarray:
    """The expert's actions, so that objects are touched, then 15 random ones: (steps, Da)."""
    env, expert = make_env(task), expert_for(task)
    observation, actions = env.reset(seed=seed)[0], []
    for _ in range(steps - 15):
        actions.append(expert.act(observation))
        observation = env.step(actions[-1])[0]
    return np.array([*actions, *np.random.default_rng(seed).uniform(-1, 1, (15, task.action_size))])


def played(env: TaskEnv, seed: int, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observations, success flags and rewards of an episode."""
    first, steps = env.reset(seed=seed)[0], [env.step(action) for action in actions]
    return _episode(first, steps)


def played_stock(task: Task, seed: int, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    env = make_stock(task.name)
    return _episode(reset_stock(env, seed), [env.step(action) for action in actions])


def _episode(first: np.ndarray, steps: list[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    observations = np.stack([first, *(step[0] for step in steps)])
    return observations, np.array([bool(step[4]["success"]) for step in steps]), np.array([float(step[1]) for step in steps])


# EnvPool -----------------------------------------------------------------------------------------------------------------------


def _envpool(bench: Bench, tasks: list[Task]) -> None:
    """Its steps per second with one environment and one thread; see envpool_rate.py."""
    benchmark = f"steps per second of one environment, mean over {len(tasks)} tasks"
    if not installed("envpool"):
        return bench.skip(benchmark, "envpool is not installed here (`make bench` installs it)")
    command = [sys.executable, "-m", "benchmarks.envpool_rate", str(bench.pick(2000, 500, 50)), *(task.name for task in tasks)]
    answer = subprocess.run(
        command, capture_output=True, text=True, timeout=ENVPOOL_TIMEOUT_S, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    if answer.returncode:
        return bench.skip(benchmark, f"envpool failed: {(answer.stderr.strip() or 'no message').splitlines()[-1]}")
    rates = json.loads(answer.stdout.splitlines()[-1])
    mine = next(row for row in bench.rows if row.benchmark.startswith("step with reward"))
    assert mine.ours is not None
    mean = float(np.exp(np.mean(np.log(rates))))
    bench.inform(
        benchmark,
        Peer.of("envpool", "EnvPool, in its own process"),
        "steps/s",
        1e6 / mine.ours,
        mean,
        "none: a different simulator",
        "different simulator",
    )
    return None
