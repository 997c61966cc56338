"""Tasks by name: the table is complete, nearest matches are offered, and looking up needs no simulator."""

import subprocess
import sys
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
import slider_world
from gymnasium.spaces import Box
from gymnasium.utils.env_checker import check_env

from reconverge.envs.errors import UnknownName, UnsupportedEnvironment
from reconverge.envs.tasks import find_task, make_env, simulator_version, task_names


def test_short_names_are_accepted() -> None:
    assert find_task("hammer") is find_task("hammer-v3")
    assert find_task("point-reach-0").family == "point-reach"


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'hammer-v3'"):
        find_task("hamer-v3")


def test_all_fifty_meta_world_tasks_are_listed() -> None:
    names = [name for name in task_names() if find_task(name).family == "metaworld"]
    assert len(names) == len(set(names)) == 50


@pytest.mark.parametrize("name", task_names())
def test_a_task_describes_its_observation(name: str) -> None:
    task = find_task(name)
    assert task.observation_centre is not None and task.observation_scale is not None
    assert len(task.observation_centre) == len(task.observation_scale) == task.observation_size
    assert min(task.observation_scale) > 0
    parts = [part for part in (task.layout.frame, task.layout.previous, task.layout.constant) if part]
    assert sorted(i for part in parts for i in range(*part)) == list(range(task.observation_size))


def test_looking_up_imports_no_simulator() -> None:
    code = """
import sys
from reconverge.envs.curriculum import load_curriculum
from reconverge.envs.tasks import find_task, simulator_version
load_curriculum("cw10"); simulator_version(find_task("hammer"))
assert not {"torch", "mujoco", "metaworld"} & set(sys.modules), set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_simulator_version_names_the_physics() -> None:
    assert "metaworld 3." in simulator_version(find_task("hammer")) and "mujoco 3." in simulator_version(find_task("hammer"))


class Slider(slider_world.Slider):
    """It reports success, and its actions may be without bound."""

    def __init__(self, largest: float = 6.0) -> None:
        super().__init__()
        self.action_space = Box(np.float32([-2.0]), np.float32([largest]))

    def _info(self):
        return {**super()._info(), "is_success": self.state > 1}


@pytest.fixture(autouse=True, scope="module")
def _registered():
    gymnasium.register("ReconvergeSlider-v0", Slider, max_episode_steps=25)
    gymnasium.register("ReconvergeMute-v0", slider_world.Slider, max_episode_steps=25)
    gymnasium.register("ReconvergeUnbounded-v0", lambda: Slider(np.inf), max_episode_steps=25)
    yield
    for name in ("Slider", "Mute", "Unbounded"):
        del gymnasium.registry[f"Reconverge{name}-v0"]


def test_a_gymnasium_environment_is_a_task() -> None:
    task = find_task("gym:ReconvergeSlider-v0")
    assert (task.observation_size, task.action_size, task.horizon) == (1, 1, 25)
    env = make_env(task)
    first, _ = env.reset(seed=4)
    again, _ = env.reset(seed=4)
    np.testing.assert_array_equal(first, again)
    results = [env.step(np.array([1.0])) for _ in range(25)]
    assert results[-1][3] and not results[-2][3]
    assert results[-1][4] == {"success": True, "invalid": False}
    assert first.dtype == np.float64


@pytest.mark.parametrize("name", ["point-reach-0", "gym:ReconvergeSlider-v0", pytest.param("hammer", marks=pytest.mark.mujoco)])
def test_every_adapter_is_an_environment_for_other_libraries_too(name: str) -> None:
    """Gymnasium's own check; and who resets without a seed, as training loops do, gets another episode each time, the same ones in the same order."""
    env: Any = make_env(find_task(name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on the ranges of spaces
        check_env(env, skip_render_check=True)
    twice = [(env.reset(seed=4), [env.reset()[0] for _ in range(2)])[1] for _ in range(2)]
    np.testing.assert_array_equal(*twice)
    assert not np.array_equal(*twice[0])


@pytest.mark.parametrize(("given", "own"), [(-1.0, -2.0), (0.0, 2.0), (1.0, 6.0), (9.0, 6.0)])
def test_actions_are_stretched_to_the_environments_bounds(given: float, own: float) -> None:
    env = make_env(find_task("gym:ReconvergeSlider-v0"))
    env.reset(seed=0)
    env.step(np.array([given]))
    assert env._env.unwrapped.last_action == pytest.approx(own)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["CartPole-v1", "ReconvergeMute-v0", "ReconvergeUnbounded-v0"])
def test_environments_that_do_not_fit_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedEnvironment, match=name):
        find_task(f"gym:{name}")


def test_an_unregistered_environment_is_an_unknown_name() -> None:
    with pytest.raises(UnknownName, match="ReconvergeSlider-v0"):
        find_task("gym:ReconvergeSlidr-v0")
