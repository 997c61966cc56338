"""Invalid, never a result: whatever breaks the physics, the episode is marked, counts neither way and leaves no file behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from reconverge.envs import simulator_worker
from reconverge.envs.curriculum import CW10
from reconverge.envs.point_reach import PointReachEnv
from reconverge.envs.simulators import EpisodeStart, Simulators
from reconverge.envs.tasks import find_task, make_env

pytestmark = pytest.mark.mujoco

BROKEN = {"success": False, "invalid": True}


def write(field: str, value: float) -> Callable[[Any], None]:
    def inject(env: Any) -> None:
        getattr(env._stock.data, field).flat[0] = value

    return inject


INJECTIONS: dict[str, Callable[[Any], None]] = {
    "qpos": write("qpos", np.nan),
    "qvel": write("qvel", np.nan),
    "qacc_warmstart": write("qacc_warmstart", np.nan),
    "ctrl": lambda env: env._physics.act(0.0, 0.0, 0.0, np.nan),  # as if an action had got past the environment, which refuses it
    "mocap_pos": write("mocap_pos", np.nan),
    "huge velocity": write("qvel", 1e30),
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    yield
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", CW10)
def test_every_injection_into_metaworld_makes_the_episode_invalid(name: str) -> None:
    env = make_env(find_task(name))
    for injection, inject in INJECTIONS.items():
        env.reset(seed=3)
        assert env.step(np.zeros(4))[4]["invalid"] is False
        inject(env)
        flags = [env.step(np.zeros(4))[4] for _ in range(4)]
        assert flags == [BROKEN] * 4, injection
    env.reset(seed=3)
    assert env.step(np.zeros(4))[4]["invalid"] is False, "the next episode is sound again"


@pytest.mark.parametrize("name", CW10)
def test_a_huge_action_is_cut_before_the_physics_and_breaks_nothing(name: str) -> None:
    huge, full = make_env(find_task(name)), make_env(find_task(name))
    huge.reset(seed=1), full.reset(seed=1)
    for sign in (1, -1, 1):
        one, other = huge.step(np.full(4, sign * 1e300)), full.step(np.full(4, float(sign)))
        np.testing.assert_array_equal(one[0], other[0])
        assert one[4] == other[4] == {"success": False, "invalid": False}


class Near(gymnasium.Wrapper):
    """Reports success, which MuJoCo environments of Gymnasium do not: always, so that a broken episode would count."""

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, {**info, "success": True}


@pytest.fixture(scope="module", params=["Reacher-v5", "InvertedPendulum-v5"])
def reporting(request: pytest.FixtureRequest) -> Any:
    gymnasium.register(f"Near{request.param}", lambda **options: Near(gymnasium.make(request.param, **options)), max_episode_steps=50)
    yield f"gym:Near{request.param}"
    del gymnasium.registry[f"Near{request.param}"]


@pytest.mark.parametrize(("field", "value"), [("qpos", np.nan), ("qpos", np.inf), ("qvel", np.nan), ("qvel", 1e30), ("ctrl", np.nan)])
def test_every_injection_into_a_mujoco_environment_of_gymnasium_too(reporting: str, field: str, value: float) -> None:
    env: Any = make_env(find_task(reporting))
    middle = np.zeros(env.task.action_size)
    env.reset(seed=3)
    assert env.step(middle)[4] == {"success": True, "invalid": False}
    if field == "ctrl":  # as if an action had got past the environment
        env._env.unwrapped.do_simulation(np.full(env.task.action_size, value), 1)
    else:
        getattr(env._env.unwrapped.data, field).flat[0] = value
    flags = [env.step(middle)[4] for _ in range(4)]
    assert flags == [BROKEN] * 4
    env.reset(seed=3)
    assert env.step(middle)[4] == {"success": True, "invalid": False}


def test_an_invalid_episode_is_over_and_does_not_see_the_rest_of_its_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaks(PointReachEnv):
        def step(self, action):
            assert not np.isnan(self._position).any(), "an environment of somebody's own that checks its state"
            if self._steps == 1:
                self._position[:] = np.nan
            observation, reward, terminated, truncated, info = super().step(action)
            return observation, reward, terminated, truncated, {**info, "invalid": bool(np.isnan(observation).any())}

    monkeypatch.setattr(simulator_worker, "make_env", Breaks)
    pool = Simulators(0)
    pool.start([EpisodeStart(find_task("point-reach-0"), seed) for seed in (1, 2)])
    result = pool.step(np.arange(2), np.zeros((2, 5, 2)))
    assert result.steps.tolist() == [2, 2] and result.invalid.all() and not pool.failures


def test_an_environment_that_steps_its_clock_back_is_invalid(reporting: str) -> None:
    env: Any = make_env(find_task(reporting))
    env.reset(seed=3)
    env.step(np.zeros(env.task.action_size))
    env._env.unwrapped.data.time = -1.0
    assert env.step(np.zeros(env.task.action_size))[4] == BROKEN
