"""Who demonstrates: a scripted expert per task, or a trained stable-baselines3 policy."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from reconverge.envs.episodes import Episode
from reconverge.envs.errors import UnsupportedEnvironment
from reconverge.envs.point_reach import PointReachExpert
from reconverge.envs.task import Task
from reconverge.envs.tasks import TaskEnv


class Expert(Protocol):
    """Acts on one observation at a time, without memory of the earlier ones."""

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Action, (Da,) in [-1, 1], for an observation, (Do,)."""


def check_expert(task: Task) -> None:
    """Raise UnsupportedEnvironment where there is no scripted expert; imports no simulator."""
    if task.family not in _EXPERTS:
        raise UnsupportedEnvironment(
            f"task '{task.name}' has no scripted expert to learn from; "
            "collect_from(Sb3Expert(model), ...) collects from a policy of your own in Python"
        )


def expert_for(task: Task) -> Expert:
    """The scripted expert of a task; raises UnsupportedEnvironment where there is none."""
    check_expert(task)
    return _EXPERTS[task.family](task)


class MetaworldExpert:
    """Meta-World's scripted policy of the task; its raw actions reach far beyond 1 and are clipped."""

    def __init__(self, task: Task) -> None:
        from metaworld.policies import ENV_POLICY_MAP

        self._policy: Any = ENV_POLICY_MAP[task.name]()  # type: ignore[abstract]  # annotated as the base class

    def act(self, observation: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it warns of the raw actions that are clipped here
            action = self._policy.get_action(observation)
        return np.clip(np.asarray(action, np.float64), -1.0, 1.0)


_EXPERTS: dict[str, Callable[[Task], Expert]] = {"point-reach": PointReachExpert, "metaworld": MetaworldExpert}
"""Task family -> its scripted expert."""


class Sb3Expert:
    """A trained stable-baselines3 model whose action space is [-1, 1], acting deterministically."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def act(self, observation: np.ndarray) -> np.ndarray:
        action, _ = self._model.predict(observation.astype(np.float32), deterministic=True)
        return np.clip(np.asarray(action, np.float64), -1.0, 1.0)


def run_expert(env: TaskEnv, expert: Expert, seed: int, hold_steps: int) -> Episode | None:
    """A demonstration of one episode, ended `hold_steps` after its first success; None if it fails or the physics break.

    The last steps show that the goal is held: without them a learner sees the goal only in final observations,
    from which no action follows.
    """
    observation, _ = env.reset(seed=seed)
    observations: list[np.ndarray] = [observation]
    actions: list[np.ndarray] = []
    success: list[bool] = []
    truncated, last = False, env.task.horizon
    while not truncated and len(actions) < last:
        # The action is rounded before it acts, so that the stored float32 actions replay the episode exactly.
        action = np.asarray(expert.act(observation), np.float32)
        observation, _, _, truncated, info = env.step(action.astype(np.float64))
        if info["invalid"]:
            return None
        if info["success"] and not any(success):
            last = len(actions) + 1 + hold_steps
        observations.append(observation)
        actions.append(action)
        success.append(info["success"])
    if not any(success):
        return None
    return Episode(env.task.name, seed, np.array(observations, np.float32), np.array(actions), np.array(success))
