"""Episodes that begin from a kept start are those of a first reset; nothing is compiled or simulated twice."""

import gc
from collections.abc import Callable

import mujoco
import numpy as np
import pytest

from reconverge.envs import metaworld_model
from reconverge.envs.metaworld_env import MetaworldEnv
from reconverge.envs.tasks import find_task

pytestmark = pytest.mark.mujoco
TASKS = ["hammer", "stick-push", "basketball", "bin-picking", "door-lock", "window-close"]
"""Contacts, contacts in the success test, and goals and attributes that look into the physics."""
DERIVED = ("qpos", "qvel", "qacc", "qacc_warmstart", "mocap_pos", "xpos", "xquat", "geom_xpos", "site_xpos", "efc_force")


def everything(env: MetaworldEnv) -> tuple[bytes, ...]:
    """What the physics hold after a step, derived data included."""
    data = env._stock.data
    contacts = (data.contact.geom, data.contact.dist, data.contact.pos, data.contact.efc_address)
    return (*(getattr(data, field).tobytes() for field in DERIVED), *(c.tobytes() for c in contacts), data.warning.number.tobytes())


def episode(env: MetaworldEnv, seed: int, actions: np.ndarray, other: MetaworldEnv | None = None) -> list[object]:
    """All that can be seen of an episode, in turns with another one on the same model if given."""
    seen: list[object] = [env.reset(seed=seed)[0].tobytes(), env._stock._target_pos.tobytes()]
    for action in actions:
        if other is not None:
            other.step(-action)
        observation, *_, info = env.step(action)
        seen += [observation.tobytes(), info, env._stock._target_pos.tobytes(), everything(env)]
    return seen


@pytest.mark.parametrize("name", TASKS)
def test_a_kept_start_begins_the_episode_of_a_first_reset(name: str) -> None:
    task, actions = find_task(name), np.random.default_rng(0).uniform(-1, 1, (25, 4))
    first, second, other = (MetaworldEnv(task) for _ in range(3))
    expected = episode(first, 3, actions)
    other.reset(seed=4)
    assert episode(first, 3, actions) == expected
    assert episode(second, 3, actions, other) == expected, "in an environment that never made this reset"
    assert np.shares_memory(first._stock._target_pos, first._stock.data.xpos) == np.shares_memory(second._stock._target_pos, second._stock.data.xpos)


@pytest.mark.parametrize("name", TASKS)
def test_rewards_after_a_kept_start_are_those_of_a_first_reset(name: str) -> None:
    task, actions = find_task(name), np.random.default_rng(1).uniform(-1, 1, (10, 4))
    env, rewards = MetaworldEnv(task, rewards=True), []
    for _ in range(2):
        env.reset(seed=5)
        rewards.append([env.step(action)[1] for action in actions])
        env.reset(seed=6)
    assert rewards[0] == rewards[1] and max(rewards[0]) > 0.0


@pytest.mark.parametrize("name", TASKS)
def test_the_pass_that_is_spared_leaves_the_same_start(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    env = MetaworldEnv(find_task(name))
    for seed in range(3):
        short = env._shared._first_reset(env._stock, seed)
        with monkeypatch.context() as patch:
            patch.setattr(metaworld_model, "_spare_the_first_pass", lambda stock: None)
            long = env._shared._first_reset(env._stock, seed)
        for mine, stocks in zip((short.observation, short.state, *short.edits), (long.observation, long.state, *long.edits), strict=True):
            assert mine.tobytes() == stocks.tobytes()
        assert {key: np.asarray(value).tolist() for key, value in short.attributes.items()} == {
            key: np.asarray(value).tolist() for key, value in long.attributes.items()
        }


def test_a_kept_start_takes_no_physics_step(monkeypatch: pytest.MonkeyPatch) -> None:
    env, called = MetaworldEnv(find_task("push")), []

    def count(name: str, real: Callable[..., None]) -> None:
        monkeypatch.setattr(mujoco, name, lambda *args, **keywords: (called.append(name), real(*args, **keywords)))

    for name in ("mj_step", "mj_forward", "mj_forwardSkip"):
        count(name, getattr(mujoco, name))
    env.reset(seed=1)
    assert called.count("mj_step") == 50, "stock's steps from the hand's home, in the second pass only"
    called.clear()
    env.reset(seed=1)
    assert called == []


def test_no_model_is_compiled_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    compiled, real = [], mujoco.MjModel.from_xml_path
    monkeypatch.setattr(mujoco.MjModel, "from_xml_path", lambda path: (compiled.append(path), real(path))[1])
    task = find_task("drawer-open")
    kept = [MetaworldEnv(task) for _ in range(5)]
    for seed, env in enumerate(kept):
        env.reset(seed=seed)
    assert len(compiled) == 1


def test_starts_are_bounded_and_the_one_used_longest_ago_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metaworld_model, "KEPT_STARTS", 2)
    env = MetaworldEnv(find_task("reach"))
    first = {seed: env.reset(seed=seed)[0] for seed in (1, 2)}
    env.reset(seed=1), env.reset(seed=3)
    assert list(env._shared._starts) == [1, 3]
    np.testing.assert_array_equal(env.reset(seed=2)[0], first[2])


def test_a_start_is_small_and_not_the_callers() -> None:
    env = MetaworldEnv(find_task("hammer"))
    observation = env.reset(seed=1)[0]
    observation[:] = 0.0
    assert env.reset(seed=1)[0].any()
    start = env._shared._starts[1]
    arrays = [start.observation, *start.edits, start.state, *(v for v in start.attributes.values() if isinstance(v, np.ndarray))]
    assert sum(array.nbytes for array in arrays) < 20_000


def test_broken_physics_do_not_outlive_the_episode() -> None:
    env, fresh = MetaworldEnv(find_task("push")), MetaworldEnv(find_task("push"))
    action = np.full(4, 0.5)
    env.reset(seed=1)
    env.step(action)
    env._stock.data.qpos[0] = np.nan
    assert env.step(action)[4]["invalid"]
    env.reset(seed=1), fresh.reset(seed=1)
    for _ in range(3):
        result, expected = env.step(action), fresh.step(action)
        assert result[0].tobytes() == expected[0].tobytes() and result[4] == expected[4] == {"success": False, "invalid": False}
        assert everything(env) == everything(fresh)
