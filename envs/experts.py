"""Who demonstrates: a scripted expert per family of tasks, or the expert that the task's stage names.

What is the user's own (a function, an archive) speaks the environment's own units of action; it is put into [-1, 1] here:

    own       -2 ........ 0 ........ 2        the bounds of Pusher's action space
    unit      -1 ........ 0 ........ 1        what every task here takes
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from reconverge.envs.actor_network import ActorNetwork
from reconverge.envs.episodes import Episode
from reconverge.envs.errors import UnsupportedEnvironment, shown
from reconverge.envs.expert_source import MissingExpert
from reconverge.envs.point_reach import PointReachExpert
from reconverge.envs.seeding import numpy_stream
from reconverge.envs.task import Task
from reconverge.envs.tasks import TaskEnv


class Expert(Protocol):
    """Acts on one observation at a time, without memory of the earlier ones."""

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Action, (Da,) in [-1, 1], for an observation, (Do,)."""


def check_expert(task: Task) -> None:
    """Raise a ReconvergeError where nobody can demonstrate the task. Imports no simulator, but the module of a function of the user's."""
    if task.expert is None:
        if task.family not in _EXPERTS:
            raise UnsupportedEnvironment(
                f"task '{task.name}' has no scripted expert to learn from; name one in its stage, such as expert: \"python:my_experts:reach\", "
                "or train one with reconverge train-expert and write expert: \"sb3:FOLDER\" (docs/own_task.md)"
            )
    elif not task.expert.recorded:
        task.expert.require_unchanged()
        if task.expert.is_archive:
            task.expert.require_trusted()
        elif task.expert.kind == "sb3":
            _actor(task)
        else:
            _function(task)


def expert_for(task: Task, pace: float = 1.0) -> Expert:
    """The expert that the task names, or the scripted one of its family, at a pace. Raises a ReconvergeError where it cannot act."""
    check_expert(task)
    if task.expert is None:
        return _EXPERTS[task.family](task, pace)
    if task.expert.recorded:
        raise UnsupportedEnvironment(f"'{task.expert}' holds recorded episodes, which cannot act in '{task.name}'")
    if task.expert.is_archive:
        return OwnUnits(task, _archive(task))
    return _actor(task) if task.expert.kind == "sb3" else OwnUnits(task, _function(task))


def to_unit(actions: np.ndarray, task: Task) -> np.ndarray:
    """Actions (..., Da) in the environment's own units as float64 in [-1, 1]; what exceeds its bounds is clipped, as the environment would."""
    own = np.asarray(actions, np.float64)
    if task.action_bounds is not None:
        low, high = (np.array(bound) for bound in task.action_bounds)
        free = high > low  # one that can have a single value is 0
        own = np.where(free, 2.0 * (own - low) / np.where(free, high - low, 1.0) - 1.0, 0.0)
    return np.clip(own, -1.0, 1.0)


class OwnUnits:
    """A function of the user's, observation (Do,) -> action (Da,) in the environment's own units, as an expert."""

    def __init__(self, task: Task, function: Callable[[np.ndarray], Any]) -> None:
        self._task, self._function = task, function

    def act(self, observation: np.ndarray) -> np.ndarray:
        given = self._function(observation.copy())
        try:
            action = np.asarray(given, np.float64)
        except (TypeError, ValueError) as error:
            raise UnsupportedEnvironment(f"expert '{self._task.expert}' answered {shown(given)}; an action is expected") from error
        if action.shape != (self._task.action_size,) or not np.isfinite(action).all():
            raise UnsupportedEnvironment(
                f"expert '{self._task.expert}' answered with an action of shape {action.shape}{'' if np.isfinite(action).all() else ', not finite'}; "
                f"'{self._task.name}' takes {self._task.action_size} finite numbers"
            )
        return to_unit(action, self._task)


def _function(task: Task) -> Callable[[np.ndarray], Any]:
    """The function `MODULE:NAME`, imported by name like any code of the user's."""
    source = task.expert
    assert source is not None
    module, _, name = source.place.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        fix = "correct the name, or put its folder on PYTHONPATH"
        raise MissingExpert(f"expert '{source}' of '{task.name}' cannot be imported ({error}); {fix}") from error
    if not callable(found):
        raise MissingExpert(f"expert '{source}' of '{task.name}' is {shown(found)}; a function from observation to action was expected")
    function: Callable[[np.ndarray], Any] = found
    return function


def _actor(task: Task) -> ActorNetwork:
    source = task.expert
    assert source is not None
    actor = ActorNetwork.load(Path(source.place))
    if (actor.observation_size, actor.action_size) != (task.observation_size, task.action_size):
        raise UnsupportedEnvironment(
            f"expert '{source}' has {actor.observation_size} observations and {actor.action_size} actions, '{task.name}' has "
            f"{task.observation_size} and {task.action_size}; train one for this environment"
        )
    return actor


def _archive(task: Task) -> Callable[[np.ndarray], Any]:
    """A policy from an archive of stable-baselines3, which is unpickled: only where the stage says that it is trusted."""
    source = task.expert
    assert source is not None
    source.require_trusted()
    # By name: nothing in this folder imports torch unless a stage asks for an archive.
    algorithms = importlib.import_module("stable_baselines3")
    saved, _, _ = importlib.import_module("stable_baselines3.common.save_util").load_from_zip_file(source.place, device="cpu")
    # The archive does not name its algorithm; its settings tell.
    marks = {"target_entropy": "SAC", "target_policy_noise": "TD3", "n_epochs": "PPO", "gae_lambda": "A2C"}
    name = next((name for mark, name in marks.items() if mark in (saved or {})), None)
    if name is None:
        known = ", ".join(marks.values())
        raise UnsupportedEnvironment(f"'{source}' is of none of the algorithms {known}; wrap it in a function: python:MODULE:FUNCTION")
    model = getattr(algorithms, name).load(source.place, device="cpu")
    return lambda observation: model.predict(observation.astype(np.float32), deterministic=True)[0]


class MetaworldExpert:
    """Meta-World's scripted policy of the task; its raw actions, the motion times `pace`, reach far beyond 1 and are clipped."""

    def __init__(self, task: Task, pace: float = 1.0) -> None:
        from metaworld.policies import ENV_POLICY_MAP

        self._gains = np.array([pace, pace, pace, 1.0])  # of the hand's motion and the gripper's effort
        self._policy: Any = ENV_POLICY_MAP[task.name]()  # type: ignore[abstract]  # annotated as the base class

    def act(self, observation: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it warns of the raw actions that are clipped here
            action = self._policy.get_action(observation)
        return np.clip(self._gains * np.asarray(action, np.float64), -1.0, 1.0)


_EXPERTS: dict[str, Callable[[Task, float], Expert]] = {"point-reach": PointReachExpert, "metaworld": MetaworldExpert}
"""Task family -> its scripted expert, for a task and a pace."""


class Sb3Expert:
    """A trained stable-baselines3 model whose action space is [-1, 1], acting deterministically."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def act(self, observation: np.ndarray) -> np.ndarray:
        action, _ = self._model.predict(observation.astype(np.float32), deterministic=True)
        return np.clip(np.asarray(action, np.float64), -1.0, 1.0)


def run_expert(
    env: TaskEnv, expert: Expert, seed: int, hold_steps: int, action_noise: float = 0.0, alive: Callable[[], None] = lambda: None
) -> Episode | None:
    """A demonstration of one episode, ended `hold_steps` after its first success; None if it fails or the physics break.

    The last steps show that the goal is held: without them a learner sees the goal only in final observations,
    from which no action follows.

    With `action_noise`, a standard deviation, noise is added to what acts and not to what is recorded (DART, Laskey et al. 2017): the expert
    shows how it corrects what it did not want. The stored actions do not replay such an episode.

    `alive` is called before every action: an expert that plans for a second a step does not hang.
    """
    noise = numpy_stream("action noise", env.task.name, seed)
    observation, _ = env.reset(seed=seed)
    observations: list[np.ndarray] = [observation]
    actions: list[np.ndarray] = []
    success: list[bool] = []
    truncated, last = False, env.task.horizon
    while not truncated and len(actions) < last:
        alive()
        # The action is rounded before it acts, so that the stored float32 actions replay the episode exactly.
        action = np.clip(np.asarray(expert.act(observation), np.float32), -1.0, 1.0)
        observation, _, _, truncated, info = env.step(_executed(action.astype(np.float64), action_noise, noise))
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


def run_until_success(
    env: TaskEnv, experts: Iterable[Expert], seed: int, hold_steps: int, action_noise: float = 0.0, alive: Callable[[], None] = lambda: None
) -> Episode | None:
    """The demonstration of the first of `experts` that succeeds on this episode, see `run_expert`; None if none does."""
    runs = (run_expert(env, expert, seed, hold_steps, action_noise, alive) for expert in experts)
    return next((run for run in runs if run is not None), None)


def _executed(action: np.ndarray, deviation: float, noise: np.random.Generator) -> np.ndarray:
    return action if deviation == 0 else np.clip(action + deviation * noise.standard_normal(action.shape), -1.0, 1.0)
