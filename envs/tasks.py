"""The tasks by name, and their simulators.

Names are looked up in static tables, so that listing and checking a curriculum needs no simulator;
`make_env` imports the one it needs.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Protocol

import numpy as np

from reconverge.envs.errors import UnknownName
from reconverge.envs.gym_name import GYM_PREFIX
from reconverge.envs.point_reach import VERSION as POINT_REACH_VERSION
from reconverge.envs.point_reach import PointReachEnv, point_reach_tasks
from reconverge.envs.task import ObservationLayout, Task

METAWORLD_SUCCESS = {
    "assembly": "nut over the peg, within 0.02 m of its axis, and below its top",
    "basketball": "ball within 0.08 m of a point 0.3 m up at the hoop, its height counted twice",
    "bin-picking": "object within 0.05 m of the goal in the other bin",
    "box-close": "lid within 0.08 m of its place on the box",
    "button-press-topdown": "button within 0.024 m of its pressed height",
    "button-press-topdown-wall": "button within 0.024 m of its pressed height",
    "button-press": "button within 0.02 m of its pressed position",
    "button-press-wall": "button within 0.03 m of its pressed position",
    "coffee-button": "button within 0.02 m of its pressed position",
    "coffee-pull": "mug within 0.07 m of the goal",
    "coffee-push": "mug within 0.07 m of the goal",
    "dial-turn": "point on the dial within 0.07 m of where it shall be turned to",
    "disassemble": "nut higher than the goal",
    "door-close": "door handle within 0.08 m of its closed position",
    "door-lock": "lock within 0.02 m of its locked height",
    "door-open": "door handle within 0.08 m of its open position, along x",
    "door-unlock": "lock within 0.02 m of its unlocked position, along x",
    "hand-insert": "object within 0.05 m of the goal in the hole",
    "drawer-close": "drawer handle within 0.065 m of its closed position",
    "drawer-open": "drawer handle within 0.03 m of its open position",
    "faucet-open": "faucet handle within 0.07 m of its open position",
    "faucet-close": "faucet handle within 0.07 m of its closed position",
    "hammer": "nail driven more than 0.09 m deep",
    "handle-press-side": "handle within 0.02 m of its pressed height",
    "handle-press": "handle within 0.02 m of its pressed height",
    "handle-pull-side": "handle within 0.08 m of its raised position",
    "handle-pull": "handle within 0.05 m of its raised height",
    "lever-pull": "lever within 7.5 degrees of upright",
    "pick-place-wall": "object within 0.07 m of the goal behind the wall",
    "pick-out-of-hole": "object within 0.07 m of the goal outside the hole",
    "pick-place": "object within 0.07 m of the goal",
    "plate-slide": "plate within 0.07 m of the goal",
    "plate-slide-side": "plate within 0.07 m of the goal",
    "plate-slide-back": "plate within 0.07 m of the goal",
    "plate-slide-back-side": "plate within 0.07 m of the goal",
    "peg-insert-side": "peg's head within 0.07 m of the goal in the box, across the hole counted twice",
    "peg-unplug-side": "peg within 0.07 m of the goal beside the box",
    "soccer": "ball within 0.07 m of the goal",
    "stick-push": "thermos within 0.12 m of the goal, and the stick held up in the gripper",
    "stick-pull": "stick inserted and thermos handle within 0.12 m of the goal",
    "push": "object within 0.05 m of the goal",
    "push-wall": "object within 0.07 m of the goal behind the wall",
    "push-back": "object within 0.07 m of the goal",
    "reach": "hand within 0.05 m of the goal",
    "reach-wall": "hand within 0.05 m of the goal",
    "shelf-place": "object within 0.07 m of the goal on the shelf",
    "sweep-into": "object within 0.05 m of the goal in the hole, height left out",
    "sweep": "object within 0.05 m of the goal",
    "window-open": "window handle within 0.05 m of its open position",
    "window-close": "window handle within 0.05 m of its closed position",
}
"""In words what `metaworld_success.SUCCESS` tests."""
METAWORLD_NAMES = tuple(METAWORLD_SUCCESS)


class TaskEnv(Protocol):
    """What a simulator of a task offers; every adapter in this folder is also a `gymnasium.Env`.

    Shapes: Do observation size, Da action size, S size of a physics state (the simulator's own).
    """

    task: Task

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """First observation, float64 (Do,): a pure function of (task, seed)."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Act, (Da,) in [-1, 1]. Never terminates; truncated at the horizon; info has `success` and `invalid`, bools."""

    def physics_state(self) -> np.ndarray:
        """Enough, float64 (S,), to draw this moment again after `reset` with the episode's seed."""

    def draw(self, state: np.ndarray, width: int, height: int) -> np.ndarray:
        """An upright picture, uint8 (height, width, 3), of a state of the episode that was reset last."""

    def close(self) -> None:
        """Release what the simulator holds."""


def task_names() -> list[str]:
    """Every built-in task; `gym:<env-id>` names any Gymnasium environment beside these."""
    return list(_TASKS)


def find_task(name: str) -> Task:
    """The task of an official name; `hammer` stands for `hammer-v3`.

    Raises UnknownName with the nearest match; for a `gym:` name CurriculumError where its options or its rule of success cannot be read,
    UnsupportedEnvironment where its spaces do not fit or it does not say what success is.
    """
    if name.startswith(GYM_PREFIX):
        from reconverge.envs.gym_env import gym_task

        return gym_task(name)
    for candidate in (name, f"{name}-v3"):
        if candidate in _TASKS:
            return _TASKS[candidate]
    raise UnknownName("task", name, _TASKS)


def make_env(task: Task) -> TaskEnv:
    """A simulator of the task. Several of one task in one process share memory: step them from one thread."""
    if task.family == "point-reach":
        return PointReachEnv(task)
    if task.family == "metaworld":
        from reconverge.envs.metaworld_env import MetaworldEnv

        return MetaworldEnv(task)
    if task.family == "gym":
        from reconverge.envs.gym_env import GymEnv

        return GymEnv(task)
    raise UnknownName("task family", task.family, ("metaworld", "point-reach", "gym"))


def simulator_version(task: Task) -> str:
    """What an episode's numbers depend on beside this project's own code."""
    if task.family == "point-reach":
        return POINT_REACH_VERSION
    packages = ("metaworld", "mujoco") if task.family == "metaworld" else ("gymnasium",)
    return ", ".join(f"{package} {version(package)}" for package in packages)


def _metaworld_task(name: str) -> Task:
    """A Meta-World v3 task. One frame is hand 3, gripper 1, two objects of position 3 and quaternion 4 each."""
    hand, gripper, quaternion = (0.0, 0.6, 0.15), (0.5,), (0.0,) * 4
    centre = hand + gripper + (hand + quaternion) * 2
    scale = (0.15,) * 3 + (0.5,) + ((0.15,) * 3 + (0.5,) * 4) * 2
    return Task(
        name=f"{name}-v3",
        family="metaworld",
        observation_size=39,
        action_size=4,
        horizon=200,
        control_dt_s=0.0125,
        success=METAWORLD_SUCCESS[name],
        layout=ObservationLayout(frame=(0, 18), previous=(18, 36), constant=(36, 39), positions=(0, 4, 11, 36)),
        observation_centre=centre * 2 + hand,
        observation_scale=scale * 2 + (0.15,) * 3,
    )


_TASKS = {task.name: task for task in [*map(_metaworld_task, METAWORLD_NAMES), *point_reach_tasks()]}
