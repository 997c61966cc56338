"""A small policy, windows and config that several tests share."""

from __future__ import annotations

import torch

from reconverge.policy.config import PolicyConfig, ResidualMLPConfig
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.normalizer import Normalizer
from reconverge.policy.windows import WindowBatch, WindowTable

DO, DA = 5, 2


def small_policy(tasks: tuple[str, ...] = ("a", "b"), seed: int = 0, **settings: object) -> DiffusionPolicy:
    small = {"mlp": ResidualMLPConfig(width=16, blocks=1, timestep_features=8), "timesteps": 20, "sampler": "ddim", "sampling_steps": 4}
    config = PolicyConfig(**{**small, **settings})  # type: ignore[arg-type]
    return DiffusionPolicy(config, tasks, DO, DA, Normalizer(torch.zeros(DO), torch.ones(DO)), seed)


def random_windows(count: int = 64, task: int = 0, seed: int = 0, window: int = 2, horizon: int = 4) -> WindowTable:
    generator = torch.Generator().manual_seed(seed)
    observations = torch.randn(count, window, DO, generator=generator)
    actions = torch.rand(count, horizon, DA, generator=generator) * 2 - 1
    times = torch.linspace(0, 1, count)
    return WindowTable(WindowBatch(observations, actions, torch.full((count,), task)), times)
