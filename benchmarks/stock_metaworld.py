"""Meta-World's own environment, set up to play the same episodes: goal visible, drawn from the episode's seed."""

from __future__ import annotations

from typing import Any

import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

StockEnv = Any


def make_stock(name: str) -> StockEnv:
    env = ALL_V3_ENVIRONMENTS[name]()
    env._freeze_rand_vec, env.seeded_rand_vec, env._partially_observable, env._set_task_called = False, True, False, True
    env.__dict__.pop("sawyer_observation_space", None)  # cached for a hidden goal, it would clip the goal to 0
    return env


def reset_stock(env: StockEnv, seed: int) -> np.ndarray:
    """Start the episode of `seed` and return its first observation, (Do,) float64."""
    env.seed(seed)
    return np.array(env.reset()[0], np.float64)
