"""Success when starts are executed: the simulator is put where a window says that it is, and the policy acts from there.

    point-reach     any window: the observation is the state
    Meta-World      windows of an episode's first step only: later states cannot be seen (`envs/metaworld_start.py`)
    others          none: there is no general way to set a state that is seen

Real windows go through the same procedure, so what it loses is lost on both sides. A policy starts with a fresh history: the window's
newest observation, repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import Tensor

from reconverge.envs.errors import NoSuchStart
from reconverge.envs.task import Task
from reconverge.envs.tasks import TaskEnv, make_env
from reconverge.policy.diffusion_policy import DiffusionPolicy


@dataclass(frozen=True)
class Executed:
    """What came of some starts.

    Attributes:
        starts: how many were asked for.
        executed: how many the task can have, and whose physics held: the episodes of the rate.
        off: median over these of the largest difference between a position shown and the position set, in the task's units; None without any.
    """

    starts: int
    executed: int
    successes: int
    off: float | None


def executable(task: Task, times: Tensor) -> Tensor:
    """Which windows, by their times (W,), can be executed: (W,) bool."""
    if task.family == "point-reach":
        return torch.ones_like(times, dtype=torch.bool)
    return times * task.horizon < 1 if task.family == "metaworld" else torch.zeros_like(times, dtype=torch.bool)


def nearest_in_time(times: Tensor, real_times: Tensor) -> Tensor:
    """For each of `times` (M,) in turn the real window nearest in time that no earlier one has taken: rows of `real_times` (R,), at most R."""
    left, taken = real_times.clone(), []
    for time in times[: len(real_times)]:
        taken.append(int((left - time).abs().argmin()))
        left[taken[-1]] = torch.inf
    return torch.tensor(taken, dtype=torch.int64)


def execute(policy: DiffusionPolicy, task: Task, shown: np.ndarray, seed: int) -> Executed:
    """Act from every observation of `shown` (n, Do) to the task's horizon or the first success, all in lock-step; noise by `seed`."""
    envs: list[TaskEnv] = []
    first, off = [], []
    for observation in shown:
        env = make_env(task)
        try:
            first.append(env.reset(options={"observation": observation})[0])
        except NoSuchStart:
            env.close()
            continue
        envs.append(env)
        off.append(_largest_difference(task, observation, first[-1]))
    success, invalid = _act(policy, task, envs, first, seed)
    for env in envs:
        env.close()
    return Executed(len(shown), int((~invalid).sum()), int((success & ~invalid).sum()), median(off) if off else None)


def _act(policy: DiffusionPolicy, task: Task, envs: list[TaskEnv], first: list[np.ndarray], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Success at any step, and whether the physics broke: (n,) bool each."""
    success, invalid = np.zeros(len(envs), bool), np.zeros(len(envs), bool)
    if not envs:
        return success, invalid
    policy.reset()
    observations, running = np.array(first), np.ones(len(envs), bool)
    for _ in range(task.horizon):
        actions = policy.select_action(observations, task, seed)
        for row in np.flatnonzero(running):
            seen, _, _, _, info = envs[row].step(actions[row])
            success[row], invalid[row] = info["success"], info["invalid"]
            if not invalid[row]:  # else it may be NaN, on which the policy refuses to act, and with it in all the others
                observations[row] = seen
        running = ~(success | invalid)
        if not running.any():
            break
    policy.reset()
    return success, invalid


def _largest_difference(task: Task, wanted: np.ndarray, found: np.ndarray) -> float:
    """Over the positions that an observation shows, or over all its numbers where the layout names none."""
    columns = [start + axis for start in task.layout.positions for axis in range(3)] or slice(None)
    return float(np.abs(wanted - found)[columns].max())
