"""The policies, windows and checkpoints that several cost centres measure with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from reconverge.envs.curriculum import CW10
from reconverge.envs.demonstrations import collect
from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.envs.task import Task
from reconverge.envs.tasks import find_task
from reconverge.launch.presets import find_preset
from reconverge.policy.config import PolicyConfig, TrainConfig
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.learner import Learner
from reconverge.policy.methods.bounds import finetune
from reconverge.policy.normalizer import Normalizer
from reconverge.policy.windows import WindowBatch, WindowTable

PAPER = find_preset("cw10-paper").policy


def untrained(config: PolicyConfig, tasks: Sequence[str] = CW10) -> DiffusionPolicy:
    """A policy of Continual World's tasks with its first weights."""
    first = find_task(CW10[0])
    normalizer, positions = Normalizer.for_task(first), first.layout.positions
    return DiffusionPolicy(config, tasks, first.observation_size, first.action_size, normalizer, seed=0, positions=positions)


def random_windows(config: PolicyConfig, count: int, task: int, seed: int = 0) -> WindowTable:
    """Windows in the range of Continual World's observations, with random actions."""
    described = find_task(CW10[0])
    assert described.observation_centre is not None and described.observation_scale is not None
    generator = torch.Generator().manual_seed(seed)
    spread = torch.randn(count, config.window, described.observation_size, generator=generator)
    observations = torch.tensor(described.observation_centre) + torch.tensor(described.observation_scale) * spread
    actions = torch.rand(count, config.horizon, described.action_size, generator=generator) * 2 - 1
    return WindowTable(WindowBatch(observations, actions, torch.full((count,), task)), torch.linspace(0, 1, count))


def last_checkpoint(run: Path) -> DiffusionPolicy:
    """The policy of a run folder's last stage."""
    stages = sorted(path for path in (run / "checkpoints").glob("stage-*") if (path / "policy.json").exists())
    if not stages:
        raise SystemExit(f"{run} holds no checkpoint; train one with: reconverge train --preset quickstart")
    return DiffusionPolicy.load(stages[-1])


def quickly_trained(tasks: Sequence[Task], episodes: int, updates: int) -> DiffusionPolicy:
    """A policy that has seen `episodes` demonstrations of each task at once; good enough to succeed now and then."""
    policy = untrained(PolicyConfig(), [task.name for task in tasks])
    config = policy.config
    tables = [
        WindowTable.from_episodes(
            collect(task, DemonstrationConfig(), episodes).episodes,
            label,
            window=config.window,
            horizon=config.horizon,
            past_actions=config.past_actions,
            episode_horizon=task.horizon,
        )
        for label, task in enumerate(tasks)
    ]
    learner = Learner(policy, finetune(), TrainConfig(), seed=0)
    learner.begin_stage(1, WindowTable.union(tables), updates)
    for _ in range(updates):
        learner.update()
    return learner.acting_policy()
