"""Every Meta-World task against stock, to the last bit: observations, success flags and rewards.

A small size by default; `RECONVERGE_IDENTITY_SEEDS=10 pytest tests/test_metaworld_identity.py` runs, for every task, ten
seeds of 200 steps of the expert's actions and 200 random ones.
"""

import os

import numpy as np
import pytest

from benchmarks.stock_metaworld import make_stock, reset_stock
from reconverge.envs.experts import expert_for
from reconverge.envs.metaworld_env import MetaworldEnv
from reconverge.envs.tasks import METAWORLD_NAMES, find_task

pytestmark = [pytest.mark.mujoco, pytest.mark.slow]
SEEDS = int(os.environ.get("RECONVERGE_IDENTITY_SEEDS", "0"))
PLANS = [(seed, plan) for seed in range(SEEDS) for plan in ((200, 0), (0, 200))] or [(9, (100, 20))]
"""(episode seed, (steps of the expert's actions, steps of random ones))."""


@pytest.mark.parametrize("name", METAWORLD_NAMES)
def test_every_task_equals_stock_to_the_last_bit(name: str) -> None:
    task = find_task(name)
    rewarding, plain, expert = MetaworldEnv(task, rewards=True), MetaworldEnv(task), expert_for(task)
    assert plain._physics._reusable, "the model allows the fast sub-step"
    plain.reset(seed=8)
    plain.step(np.ones(4))  # a history
    for seed, (led, wild) in PLANS:
        stock, random = make_stock(task.name), np.random.default_rng(seed)
        seen: list[tuple[np.ndarray, bytes]] = []
        observation = reset_stock(stock, seed)
        for env in (rewarding, plain):
            assert env.reset(seed=seed)[0].tobytes() == observation.tobytes(), (seed, "reset")
        for step in range(led + wild):
            action = expert.act(observation) if step < led else random.uniform(-1, 1, 4)
            observation, reward, _, _, info = stock.step(action)
            seen.append((action, observation.tobytes()))
            expected = observation.tobytes(), {"success": bool(info["success"]), "invalid": False}
            for env, its_reward in ((rewarding, float(reward)), (plain, 0.0)):
                result = env.step(action)
                assert (result[0].tobytes(), result[4]) == expected, (seed, step)
                assert result[1] == its_reward, (seed, step)
        for field in ("qpos", "qvel", "qacc_warmstart", "xpos", "site_xpos"):
            assert getattr(plain._stock.data, field).tobytes() == getattr(stock.data, field).tobytes(), (seed, field)
        rewarding.reset(seed=seed)  # from the start that was kept
        assert [rewarding.step(action)[0].tobytes() for action, _ in seen] == [shown for _, shown in seen], seed
