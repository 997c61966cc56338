"""Any Gymnasium environment with Box observations and bounded Box actions as a task, named `gym:<env-id>`.

The id may name the module that registers it (`gym:my_package.tasks:Reach-v0`), which worker processes
need. Success is what the environment reports as `info["success"]` or `info["is_success"]`, or what the rule in the task's
name says of its other reports; options of the environment stand in the name too (`gym_name.py`).

An episode is invalid from the first observation on that is not finite. In one that runs on MuJoCo that would come too late, for
MuJoCo answers a NaN by silently starting over in mid-episode: there a warning of its, or a clock that does not advance, tells.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from reconverge.envs.errors import RenderingUnavailable, UnknownName, UnsupportedEnvironment, shown
from reconverge.envs.gym_name import GymName, read_gym_name
from reconverge.envs.rendering import find_renderer
from reconverge.envs.seeding import next_episode
from reconverge.envs.success_rule import RETURN, SUCCESS_KEYS, SuccessRule
from reconverge.envs.task import ObservationLayout, Task

DEFAULT_HORIZON = 200


@lru_cache(maxsize=256)
def gym_task(name: str) -> Task:
    """The task `gym:<env-id>`; makes the environment once to see its spaces, horizon and success report."""
    made_of = read_gym_name(name)
    env = _made(made_of)
    try:
        observation_size, action_size = _sizes(env, name)
        horizon = (env.spec.max_episode_steps if env.spec else None) or DEFAULT_HORIZON
        _check_reports_success(env, made_of, horizon)
        seconds = float(getattr(env.unwrapped, "dt", 0.0) or 0.0)
        bounds = _bounds(env)
    finally:
        env.close()
    success = "the environment's own success flag" if made_of.success is None else made_of.success.in_words
    layout = ObservationLayout(frame=(0, observation_size))
    return Task(str(made_of), "gym", observation_size, action_size, horizon, seconds, success, layout, action_bounds=bounds)


class GymEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One task; actions in [-1, 1] are stretched to the environment's own bounds. Ends where the environment ends."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._made_of = read_gym_name(task.name)
        self._env = _made(self._made_of)
        own = self._env.action_space
        assert isinstance(own, Box)
        self._low, self._high = own.low.astype(np.float64), own.high.astype(np.float64)
        self._action_type = own.dtype
        self._steps, self._return, self._invalid, self._time = 0, 0.0, False, 0.0
        self._seed, self._drawn_seed = 0, -1
        self._drawing: gymnasium.Env[Any, Any] | None = None
        self.observation_space = Box(-np.inf, np.inf, (task.observation_size,), np.float64)
        self.action_space = Box(-1.0, 1.0, (task.action_size,), np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start the episode of `seed`; without one, the next of those that follow from the last seed that was given."""
        super().reset(seed=seed)
        if (data := _mujoco_data(self._env)) is not None:
            data.warning.number[:] = 0  # not every environment's reset clears those of the episode before
        self._seed = next_episode(self.np_random) if seed is None else seed
        observation, _ = self._env.reset(seed=self._seed)
        self._steps, self._return, self._time = 0, 0.0, -np.inf
        self._invalid = not self._sound(observation)
        return np.array(observation, np.float64), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Act, (Da,) in [-1, 1]; `truncated` also when the environment terminates."""
        if not np.isfinite(action).all():
            raise ValueError(f"action {action} is not finite")
        share = (np.clip(action, -1.0, 1.0) + 1.0) / 2.0
        observation, reward, terminated, truncated, info = self._env.step((self._low + share * (self._high - self._low)).astype(self._action_type))
        self._steps += 1
        self._return += float(reward)
        self._invalid |= not self._sound(observation)
        ended = bool(terminated or truncated or self._steps >= self.task.horizon)
        success = reports_success(self._made_of.success, info, self._return, ended) and not self._invalid
        return np.array(observation, np.float64), float(reward), False, ended, {"success": success, "invalid": self._invalid}

    def _sound(self, observation: np.ndarray) -> bool:
        """Whether the observation is finite and MuJoCo, where it runs, has warned of nothing and let time pass since the last look."""
        sound = bool(np.isfinite(observation).all())
        if (data := _mujoco_data(self._env)) is not None:
            before, self._time = self._time, data.time
            sound = sound and self._time > before and not data.warning.number.any()
        return sound

    def physics_state(self) -> np.ndarray:
        """Joint positions and velocities of a MuJoCo environment, `state` of a classic one, otherwise nothing: (S,) float64."""
        inner: Any = self._env.unwrapped
        if _has_mujoco_state(self._env):
            return np.concatenate([inner.data.qpos, inner.data.qvel])
        state = getattr(inner, "state", None)
        try:
            return np.empty(0) if state is None else np.array(state, np.float64).ravel()
        except (TypeError, ValueError):  # a state that is no array of numbers
            return np.empty(0)

    def draw(self, state: np.ndarray, width: int, height: int) -> np.ndarray:
        """A picture of the episode that was reset last, uint8 (height, width, 3), by the environment's own `rgb_array` rendering.

        Raises RenderingUnavailable without OpenGL, and for an environment that does not draw.
        """
        if not len(state):
            raise RenderingUnavailable(f"'{self.task.name}' shows no physics state that could be drawn later; set video.render to false")
        try:
            picture = np.asarray(self._picture(state))
        except RenderingUnavailable:
            raise
        except Exception as error:  # whatever somebody's own environment raises
            raise RenderingUnavailable(f"'{self.task.name}' was not drawn: {type(error).__name__}: {error}; set video.render to false") from error
        if picture.ndim != 3 or picture.shape[2] < 3:
            raise RenderingUnavailable(f"'{self.task.name}' drew an array of shape {picture.shape}, no picture; set video.render to false")
        return _resized(picture, width, height)

    def _picture(self, state: np.ndarray) -> Any:
        if self._drawing is None:
            if _mujoco_data(self._env) is not None:
                os.environ.setdefault("MUJOCO_GL", find_renderer())  # Gymnasium's own choice may load a driver that draws nothing
            self._drawing = _made(self._made_of, render_mode="rgb_array")
        if self._drawn_seed != self._seed:  # what the reset placed and is in no state, such as a goal
            self._drawing.reset(seed=self._seed)
            self._drawn_seed = self._seed
        inner: Any = self._drawing.unwrapped
        if _has_mujoco_state(self._drawing):
            inner.set_state(state[: inner.model.nq], state[inner.model.nq :])
        else:
            inner.state = state.copy()
        return self._drawing.render()

    def close(self) -> None:
        self._env.close()
        if self._drawing is not None:
            self._drawing.close()


def reports_success(rule: SuccessRule | None, info: Mapping[str, Any], episode_return: float, ended: bool) -> bool:
    """Whether a step succeeds by the rule, or without one by the environment's own flag."""
    if rule is None:
        return any(bool(info.get(key, False)) for key in SUCCESS_KEYS)
    return rule.holds(info, episode_return, ended)


def _made(name: GymName, **options: Any) -> gymnasium.Env[Any, Any]:
    # What an environment makes of options that it does not know or cannot use is its own affair.
    refusals = (Exception,) if name.options else (gymnasium.error.Error, ImportError)
    try:
        env = gymnasium.make(name.environment, disable_env_checker=True, **name.arguments, **options)
        if _mujoco_data(env) is not None:
            # Without a handler of one's own MuJoCo appends its warnings to a file in the working directory.
            sys.modules["mujoco"].set_mju_user_warning(_heard)
        return env
    except gymnasium.error.UnregisteredEnv as error:
        raise UnknownName("Gymnasium environment", name.environment, gymnasium.registry) from error
    except refusals as error:
        raise UnsupportedEnvironment(f"'{name}' cannot be made: {error}") from error


def _mujoco_data(env: gymnasium.Env[Any, Any]) -> Any | None:
    """The physics of an environment that runs on MuJoCo, which is imported then; None for any other."""
    mujoco: Any = sys.modules.get("mujoco")
    data = getattr(env.unwrapped, "data", None)
    return data if mujoco is not None and isinstance(data, mujoco.MjData) else None


def _has_mujoco_state(env: gymnasium.Env[Any, Any]) -> bool:
    return _mujoco_data(env) is not None and hasattr(env.unwrapped, "set_state")


def _heard(warning: str) -> None:
    """MuJoCo counts its warnings itself."""


def _sizes(env: gymnasium.Env[Any, Any], name: str) -> tuple[int, int]:
    seen, acted = env.observation_space, env.action_space
    if not (isinstance(seen, Box) and len(seen.shape) == 1):
        raise UnsupportedEnvironment(f"'{name}' observes {seen}; a task needs a one-dimensional Box (see gymnasium.wrappers.FlattenObservation)")
    if not (isinstance(acted, Box) and len(acted.shape) == 1 and acted.is_bounded()):
        raise UnsupportedEnvironment(f"'{name}' acts in {acted}; a task needs a one-dimensional Box with finite bounds")
    return seen.shape[0], acted.shape[0]


def _bounds(env: gymnasium.Env[Any, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    space = env.action_space
    assert isinstance(space, Box)
    return tuple(float(value) for value in space.low), tuple(float(value) for value in space.high)


def _check_reports_success(env: gymnasium.Env[Any, Any], name: GymName, horizon: int) -> None:
    """Act in the middle of the action range until what decides on success is seen; some environments report it only at the end."""
    space, rule = env.action_space, name.success
    assert isinstance(space, Box)
    if rule is not None and rule.quantity == RETURN:
        return
    wanted = SUCCESS_KEYS if rule is None else (rule.quantity,)
    seen: set[str] = set()
    env.reset(seed=0)
    for _ in range(horizon):
        _, _, terminated, truncated, info = env.step(((space.low + space.high) / 2).astype(space.dtype))
        seen |= {str(key) for key in info}
        if found := [key for key in wanted if key in info]:
            _check_number(name, info[found[0]])
            return
        if terminated or truncated:
            break
    reported = f"it reports {', '.join(sorted(seen))}" if seen else "its info is empty"
    if rule is not None:
        raise UnsupportedEnvironment(f"'{name}' reports no info['{rule.quantity}'], which its rule of success needs; {reported}")
    raise UnsupportedEnvironment(
        f"'{name}' reports neither info['success'] nor info['is_success']; say in its stage what success is, such as "
        f"success: {{info: KEY, at_least: X}} or success: {{return_at_least: X}}; {reported}"
    )


def _check_number(name: GymName, value: Any) -> None:
    if name.success is None or not name.success.relation:
        return
    try:
        float(value)
    except (TypeError, ValueError) as error:
        raise UnsupportedEnvironment(f"'{name}': info['{name.success.quantity}'] is {shown(value)}, which no bound can be set to") from error


def _resized(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Nearest neighbour, uint8 (height, width, 3)."""
    rows = np.arange(height) * picture.shape[0] // height
    columns = np.arange(width) * picture.shape[1] // width
    return np.ascontiguousarray(picture[rows][:, columns, :3].astype(np.uint8))
