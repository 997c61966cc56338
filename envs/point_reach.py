"""Point reach: a family of toy tasks on which a policy learns, forgets and recovers within seconds.

    observation   [ position 0:2 | shown goal 2:4 ]      action   displacement, in units of 0.1

               x  target of task 1               The goal that is shown is turned about the origin by an angle
                                                 of the task's own (72 degrees times its number): the point
           o---------+  shown goal               must go to the *target*, so no two tasks agree on what to do
        point           = target of task 0       from the same observation, and learning one unlearns another.

Lengths have no unit; the arena is about two wide. Everything is closed form: no simulator is needed.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from reconverge.envs.seeding import next_episode, numpy_stream
from reconverge.envs.task import ObservationLayout, Task

VERSION = "point-reach 1"
TASK_COUNT = 5
STEP_LENGTH = 0.1
SUCCESS_RADIUS = 0.12
GOAL_RADIUS = (0.7, 0.95)
START_RANGE = 0.1
ARENA = 1.5

PAPER, INK, TARGET, GOAL = (250, 249, 245), (40, 70, 160), (214, 69, 65), (190, 190, 185)


def point_reach_tasks() -> list[Task]:
    return [_task(number) for number in range(TASK_COUNT)]


def _task(number: int) -> Task:
    return Task(
        name=f"point-reach-{number}",
        family="point-reach",
        observation_size=4,
        action_size=2,
        horizon=30,
        control_dt_s=0.05,
        success=f"point within {SUCCESS_RADIUS} of the shown goal turned by {_degrees(number)} degrees",
        layout=ObservationLayout(frame=(0, 2), constant=(2, 4)),
        observation_centre=(0.0,) * 4,
        observation_scale=(1.0,) * 4,
    )


def target_of(task: Task, goal: np.ndarray) -> np.ndarray:
    """Where the point must go, (2,), given the goal that is shown, (2,)."""
    angle = math.radians(_degrees(int(task.name.rsplit("-", 1)[1])))
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([cosine * goal[0] - sine * goal[1], sine * goal[0] + cosine * goal[1]])


class PointReachEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One task of the family; an episode is a pure function of (task, episode seed, actions)."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.observation_space = Box(-ARENA, ARENA, (4,), np.float64)
        self.action_space = Box(-1.0, 1.0, (2,), np.float64)
        self._position, self._goal, self._target = np.zeros(2), np.zeros(2), np.zeros(2)
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start the episode of `seed`; without one, the next of those that follow from the last seed that was given.

        `options={"observation": (4,)}` starts exactly there, whatever the seed.
        """
        super().reset(seed=seed)
        stream = numpy_stream("point-reach", self.task.name, next_episode(self.np_random) if seed is None else seed)
        radius, angle = stream.uniform(*GOAL_RADIUS), stream.uniform(0.0, 2.0 * math.pi)
        self._goal = radius * np.array([math.cos(angle), math.sin(angle)])
        self._position = stream.uniform(-START_RANGE, START_RANGE, size=2)
        if options and "observation" in options:
            self._position, self._goal = np.split(np.array(options["observation"], np.float64), [2])
        self._target = target_of(self.task, self._goal)
        self._steps = 0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move by `action`, (2,), clipped to [-1, 1]; the reward is always 0."""
        if not np.isfinite(action).all():
            raise ValueError(f"action {action} is not finite")
        self._position = np.clip(self._position + STEP_LENGTH * np.clip(action, -1.0, 1.0), -ARENA, ARENA)
        self._steps += 1
        success = bool(np.linalg.norm(self._position - self._target) <= SUCCESS_RADIUS)
        return self._observation(), 0.0, False, self._steps >= self.task.horizon, {"success": success, "invalid": False}

    def physics_state(self) -> np.ndarray:
        """The position, (2,) float64; the goal follows from the episode seed."""
        return self._position.copy()

    def draw(self, state: np.ndarray, width: int, height: int) -> np.ndarray:
        """A picture of `state` in the episode that was reset last, uint8 (height, width, 3), y upwards."""
        scale = min(width, height) / 2.6
        rows, columns = np.mgrid[0:height, 0:width]
        x, y = (columns + 0.5 - width / 2) / scale, (height / 2 - rows - 0.5) / scale
        picture = np.empty((height, width, 3), np.uint8)
        picture[:] = PAPER
        for centre, radius, colour in ((self._goal, 0.06, GOAL), (self._target, SUCCESS_RADIUS, TARGET), (state, 0.07, INK)):
            picture[np.hypot(x - centre[0], y - centre[1]) <= radius] = colour
        return picture

    def _observation(self) -> np.ndarray:
        return np.concatenate([self._position, self._goal])


class PointReachExpert:
    """Straight to the target, slowing down on the last stretch."""

    def __init__(self, task: Task, pace: float = 1.0) -> None:
        self.task, self.pace = task, pace

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Action, (2,) in [-1, 1], for an observation, (4,)."""
        wanted = (target_of(self.task, observation[2:4]) - observation[:2]) / (3.0 * STEP_LENGTH)
        return self.pace * wanted / max(1.0, float(np.abs(wanted).max()))


def _degrees(number: int) -> int:
    return 360 * number // TASK_COUNT
