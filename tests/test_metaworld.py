"""Meta-World: episodes repeat bit for bit and equal the stock simulator's; broken physics are noticed."""

import os
from pathlib import Path

import mujoco
import numpy as np
import pytest

from benchmarks.stock_metaworld import make_stock, reset_stock
from reconverge.envs.demonstrations import collect
from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.envs.errors import RenderingUnavailable
from reconverge.envs.experts import expert_for, run_expert, run_until_success
from reconverge.envs.rendering import find_renderer
from reconverge.envs.simulators import EpisodeStart, Simulators
from reconverge.envs.tasks import find_task, make_env

pytestmark = pytest.mark.mujoco
SOME = ["hammer-v3", "push-wall-v3", "window-close-v3"]
SEEDS = [5, 1_987_654_321]


def actions_for(name: str, seed: int, steps: int = 60) -> np.ndarray:
    """The expert's actions, so that objects are touched, then random ones: (steps, 4)."""
    task = find_task(name)
    env, expert = make_env(task), expert_for(task)
    observation, actions = env.reset(seed=seed)[0], []
    for _ in range(steps - 15):
        actions.append(expert.act(observation))
        observation = env.step(actions[-1])[0]
    return np.array([*actions, *np.random.default_rng(seed).uniform(-1, 1, (15, 4))])


def played(env, seed: int, actions: np.ndarray) -> tuple[np.ndarray, list[bool]]:
    first, results = env.reset(seed=seed)[0], [env.step(action) for action in actions]
    return np.array([first, *(r[0] for r in results)]), [r[4]["success"] for r in results]


def stock(name: str, seed: int, actions: np.ndarray) -> tuple[np.ndarray, list[bool]]:
    """The same episode on Meta-World's own environment, made for it alone."""
    env = make_stock(name)
    first, results = reset_stock(env, seed), [env.step(action) for action in actions]
    return np.array([first, *(r[0] for r in results)]), [bool(r[4]["success"]) for r in results]


@pytest.mark.parametrize("name", SOME)
def test_an_episode_is_a_pure_function_of_task_seed_and_actions(name: str) -> None:
    used, other = make_env(find_task(name)), make_env(find_task(name))
    for seed in SEEDS:
        actions = actions_for(name, seed)
        expected = stock(name, seed, actions)
        assert_same(expected, played(used, seed, actions))
        # In turns with another episode on the same shared model, in environments that have a history.
        other.reset(seed=seed + 1)
        observations = [used.reset(seed=seed)[0]]
        for action in actions:
            other.step(-action)
            observations.append(used.step(action)[0])
        np.testing.assert_array_equal(expected[0], observations)
        assert_same(expected, played(other, seed, actions))
        assert_same(expected, played(make_env(find_task(name)), seed, actions))


def test_numpys_global_generator_has_no_part_in_it() -> None:
    env = make_env(find_task("push"))
    np.random.seed(0)  # noqa: NPY002
    first = env.reset(seed=3)[0]
    state = np.random.get_state()[1]  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    np.testing.assert_array_equal(first, env.reset(seed=3)[0])
    np.random.seed(0)  # noqa: NPY002
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("name", SOME)
def test_the_goal_is_shown_fresh_and_constant(name: str) -> None:
    env = make_env(find_task(name))
    observations = {seed: played(env, seed, np.zeros((3, 4)))[0] for seed in range(5)}
    for rows in observations.values():
        assert np.ptp(rows[:, 36:39], axis=0).max() == 0.0 and np.abs(rows[0, 36:39]).max() > 0
        np.testing.assert_array_equal(rows[0, 18:36], rows[0, :18])
        np.testing.assert_array_equal(rows[1:, 18:36], rows[:-1, :18])
    assert len({rows[0].tobytes() for rows in observations.values()}) == 5


def test_the_horizon_truncates_and_a_later_step_does_not_raise() -> None:
    task = find_task("faucet-close")
    env = make_env(task)
    env.reset(seed=0)
    ended = [env.step(np.zeros(4))[3] for _ in range(task.horizon + 1)]
    assert ended == [False] * (task.horizon - 1) + [True, True]


@pytest.mark.parametrize("field", ["qpos", "qvel", "mocap_pos"])
def test_a_nan_in_the_physics_makes_the_episode_invalid(field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    env = make_env(find_task("push"))
    env.reset(seed=0)
    assert env.step(np.zeros(4))[4] == {"success": False, "invalid": False}
    getattr(env._stock.data, field).flat[0] = np.nan  # type: ignore[attr-defined]
    flags = [env.step(np.zeros(4))[4] for _ in range(3)]
    assert flags == [{"success": False, "invalid": True}] * 3
    assert os.listdir(tmp_path) == []
    env.reset(seed=0)
    assert not env.step(np.zeros(4))[4]["invalid"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_action_that_is_not_finite_does_not_reach_the_simulator(value: float) -> None:
    env = make_env(find_task("push"))
    env.reset(seed=0)
    state = env.physics_state()
    with pytest.raises(ValueError, match="not finite"):
        env.step(np.array([0.0, value, 0.0, 0.0]))
    np.testing.assert_array_equal(state, env.physics_state())


def test_environments_share_the_model_and_free_it() -> None:
    from reconverge.envs import metaworld_model

    task = find_task("soccer")
    first, second = make_env(task), make_env(task)
    assert first._stock.model is second._stock.model and first._stock.data is not second._stock.data  # type: ignore[attr-defined]
    del first, second
    assert task.name not in metaworld_model._models


def test_the_expert_demonstrates_and_its_float32_actions_replay() -> None:
    task = find_task("handle-press-side")
    env = make_env(task)
    episode = run_expert(env, expert_for(task), 3, hold_steps=5)
    assert episode is not None and np.abs(episode.actions).max() <= 1.0
    assert episode.success.argmax() + 6 == len(episode.actions)
    observations, success = played(env, 3, episode.actions.astype(np.float64))
    np.testing.assert_array_equal(np.float32(observations), episode.observations)
    assert success == episode.success.tolist()


def test_an_expert_that_fails_succeeds_more_slowly() -> None:
    task = find_task("push-back")
    env, experts = make_env(task), [expert_for(task, pace) for pace in (1.0, 0.7)]
    swift, slow = (run_expert(env, expert, 5, hold_steps=5) for expert in experts)
    found = run_until_success(env, experts, 5, hold_steps=5)
    assert swift is None and slow is not None and found is not None and np.array_equal(found.actions, slow.actions)


def test_workers_and_this_process_agree(tmp_path: Path) -> None:
    task = find_task("window-close")
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 4, 4))
    results = []
    with Simulators(0) as here, Simulators(2) as there:
        for pool in (here, there):
            starts = [EpisodeStart(task, seed) for seed in (1, 2, 3)]
            first = pool.start(starts, record=starts[1:2])
            result = pool.step(np.arange(3), actions)
            demonstrations = collect(task, DemonstrationConfig(), 2, simulators=pool)
            results.append([first, *vars(result).values(), *(e.observations for e in demonstrations.episodes)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def renderer() -> str:
    try:
        return find_renderer()
    except RenderingUnavailable as error:
        pytest.skip(str(error))


def test_drawing_shows_the_scene_upright_and_leaves_the_episode_alone(renderer: str) -> None:
    drawn, plain = make_env(find_task("push")), make_env(find_task("push"))
    drawn.reset(seed=1), plain.reset(seed=1)
    for _ in range(5):
        picture = drawn.draw(drawn.physics_state(), 96, 64)
        np.testing.assert_array_equal(drawn.step(np.ones(4))[0], plain.step(np.ones(4))[0])
    assert picture.shape == (64, 96, 3) and picture.dtype == np.uint8
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    assert ((green > 150) & (red < 120) & (blue < 120)).any(), "no goal in view"
    arm = np.argwhere((red > 90) & (green < 60) & (blue < 60))
    assert len(arm) > 100 and arm[:, 0].mean() < 32, "the arm reaches down from the upper half"


def test_a_stored_state_is_drawn_the_same_later(renderer: str) -> None:
    env = make_env(find_task("window-close"))
    env.reset(seed=4)
    for _ in range(20):
        env.step(np.ones(4))
    state = env.physics_state()
    picture = env.draw(state, 64, 48)
    later = make_env(find_task("window-close"))
    later.reset(seed=99)
    later.reset(seed=4)
    np.testing.assert_array_equal(picture, later.draw(state, 64, 48))
    assert (picture != later.draw(later.physics_state(), 64, 48)).any()


def test_no_renderer_is_answered_with_the_line_that_installs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setattr("reconverge.envs.rendering._draws", lambda back_end: False)
    with pytest.raises(RenderingUnavailable, match=r"MUJOCO_GL=osmesa.*apt-get install -y libegl1"):
        find_renderer.__wrapped__()


def test_the_pinned_pair_is_installed() -> None:
    assert mujoco.__version__ == "3.3.0"


def assert_same(first: tuple[np.ndarray, list[bool]], second: tuple[np.ndarray, list[bool]]) -> None:
    np.testing.assert_array_equal(first[0], second[0])
    assert first[1] == second[1]
