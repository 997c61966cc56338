"""Rollouts: a policy acts in n seeded episodes of one task, all in lock-step.

    chunk              1                    2
    sample     [n x (H, Da)]        [n' x (H, Da)]         one batch through the sampler
    step        Ha steps of n        Ha steps of n'        in the worker processes; finished episodes leave

The episodes of a task are one fixed list (`evaluation_seeds`), the same for every method, stage and worker
count, and the sampler's noise is a pure function of the episode: two policies meet the same situations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from reconverge.envs.episodes import episode_seed
from reconverge.envs.simulators import Simulators
from reconverge.envs.task import Task
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.random_streams import torch_stream


@dataclass(frozen=True)
class EpisodeResult:
    """How one episode ended.

    Attributes:
        success_any: success at any step within the horizon, the headline definition.
        success_final: success at the last step; equal to `success_any` where episodes end at their first success.
        first_success_step: 1-based step of the first success; None = never.
        steps: steps taken.
        invalid: the physics broke down; such an episode counts neither as success nor as failure.
    """

    task: str
    episode_seed: int
    success_any: bool
    success_final: bool
    first_success_step: int | None
    steps: int
    invalid: bool


@dataclass(frozen=True)
class Recording:
    """Physics states (T + 1, S) and success flags (T,) of one episode, from which it can be drawn."""

    states: np.ndarray
    success: np.ndarray


def evaluation_seeds(task: Task, episodes: int) -> list[int]:
    """The first `episodes` episode seeds of the task's evaluation list; a longer list begins with a shorter one."""
    return [episode_seed("evaluation", task.name, number) for number in range(episodes)]


def rollout(
    policy: DiffusionPolicy,
    task: Task,
    seeds: Sequence[int],
    simulators: Simulators,
    *,
    record: Collection[int] = (),
    stop_at_success: bool = False,
    tick: Callable[[int], None] = lambda episodes: None,
) -> tuple[list[EpisodeResult], dict[int, Recording]]:
    """Run one episode per seed. `record` lists the seeds whose physics states are returned; `tick` counts finished episodes."""
    config, label = policy.config, policy.task_index(task)
    chunks = math.ceil(task.horizon / config.executed)
    history = np.repeat(simulators.start(task, seeds, record, stop_at_success)[:, None], config.window, axis=1)
    success, steps = np.zeros((len(seeds), task.horizon), dtype=bool), np.zeros(len(seeds), dtype=int)
    invalid, active = np.zeros(len(seeds), dtype=bool), np.ones(len(seeds), dtype=bool)

    for chunk in range(chunks):
        rows = np.flatnonzero(active).tolist()
        if not rows:
            break
        seen = torch.from_numpy(history[rows]).float().to(policy.device)
        labels = torch.full((len(rows),), label, device=policy.device)
        predicted = policy.sample_chunk(seen, labels, [torch_stream("evaluation noise", task.name, seeds[row], chunk) for row in rows])
        actions = np.zeros((len(seeds), config.executed, task.action_size))
        actions[rows] = policy.executed(predicted).cpu().numpy()

        taken = min(config.executed, task.horizon - chunk * config.executed)
        result = simulators.step(actions[:, :taken], active)
        for row in rows:
            done = result.steps[row]
            success[row, steps[row] : steps[row] + done] = result.success[row, :done]
            steps[row] += done
        invalid |= result.invalid
        history = np.concatenate([history, result.observations], axis=1)[:, -config.window :]
        ended = active & (invalid | (result.steps < taken) | (steps >= task.horizon) | (stop_at_success & success.any(1)))
        active &= ~ended
        tick(int(ended.sum()))

    results = [_result(task, seed, success[row, : steps[row]], bool(invalid[row])) for row, seed in enumerate(seeds)]
    states = simulators.recorded() if record else {}
    recordings = {seed: Recording(states[seed], success[row, : steps[row]]) for row, seed in enumerate(seeds) if seed in states}
    return results, recordings


def _result(task: Task, seed: int, success: np.ndarray, invalid: bool) -> EpisodeResult:
    reached = np.flatnonzero(success)
    return EpisodeResult(
        task=task.name,
        episode_seed=seed,
        success_any=bool(len(reached)),
        success_final=bool(len(success) and success[-1]),
        first_success_step=int(reached[0]) + 1 if len(reached) else None,
        steps=len(success),
        invalid=invalid,
    )
