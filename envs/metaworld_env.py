"""A Meta-World v3 task with fresh goals and episodes that repeat bit for bit.

What is done to the simulator, and why:

    goal       visible in the observation (three last numbers), continuous, drawn from the episode seed
               (stock: hidden, or one of 50; drawn from NumPy's global generator)
    reset      restores everything an earlier episode has touched: the model's edited positions, the physics
               with its solver warm start, every attribute of the environment object
    horizon    the task's own; stock raises an error after 500 steps
    reward     computed when asked for; success alone is told without it
    physics    MuJoCo answers a NaN by silently starting over in mid-episode: its warnings and a clock that
               does not advance make the episode invalid

`step` gives, to the last bit, what `SawyerXYZEnv.step` gives, at about three times its rate:

    act        mocap target, gripper, 5 sub-steps, mj_forward        metaworld_physics
    observe    39 numbers                                            metaworld_observation
    judge      success; reward if asked for                          metaworld_success
    watch      warnings, clock, NaN                                  metaworld_physics

Each of these files says why it is exact. Environments of one task share one compiled model: step them from one thread.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.spaces import Box

from reconverge.envs.metaworld_model import Edits, shared_model
from reconverge.envs.metaworld_observation import Observer
from reconverge.envs.metaworld_physics import STATE, Physics
from reconverge.envs.metaworld_success import success_test
from reconverge.envs.seeding import next_episode
from reconverge.envs.task import Task


class MetaworldEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One task; an episode is a pure function of (task, episode seed, actions).

    With `rewards` a step also computes stock's own reward, bit for bit, at about half the rate; without, it gives 0.
    """

    def __init__(self, task: Task, rewards: bool = False) -> None:
        self.task, self.rewards = task, rewards
        self._shared = shared_model(task.name)
        self._stock = self._shared.clone()
        self._physics = Physics(self._stock.model, self._stock.data, self._stock.mocap_low, self._stock.mocap_high)
        self._observer = Observer(task.name, self._stock.data, self._shared.bounds)
        self._solved = success_test(task.name, self._stock)
        self._edits: Edits = self._shared.pristine_edits
        self._steps, self._invalid = 0, False
        self._drawn: mujoco.MjData | None = None
        self.observation_space = Box(-np.inf, np.inf, (task.observation_size,), np.float64)
        self.action_space = Box(-1.0, 1.0, (task.action_size,), np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start the episode of `seed`, which fixes goal and object placement; without one, the next of those that follow from the last seed given.

        `options={"observation": (39,)}` starts where objects and goal are as shown there, as near as an episode may start
        (`metaworld_start`); raises NoSuchStart where none does.
        """
        shown = (options or {}).get("observation")
        super().reset(seed=seed)
        if shown is None:
            start = self._shared.start(self._stock, next_episode(self.np_random) if seed is None else seed)
        else:
            start = self._shared.start_shown(self._stock, np.asarray(shown, np.float64))
        self._edits = start.edits
        self._observer.begin(start.observation, self._stock._target_pos)
        self._physics.begin()
        self._steps, self._invalid = 0, False
        return start.observation.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Act for 12.5 ms: hand displacement 3, gripper 1, each in [-1, 1]."""
        numbers = np.asarray(action, np.float64).tolist()
        if not all(map(isfinite, numbers)):
            raise ValueError(f"action {action} is not finite")
        self._shared.load(self._edits)
        self._physics.act(*[min(max(number, -1.0), 1.0) for number in numbers])
        observation = self._observer.observe()
        reward, success = self._judge(observation, action)
        self._invalid = self._invalid or not self._physics.sound(observation)
        self._steps += 1
        info = {"success": success and not self._invalid, "invalid": self._invalid}
        return observation, reward, False, self._steps >= self.task.horizon, info

    def physics_state(self) -> np.ndarray:
        """Time, joint positions and velocities, and the pose that the hand is pulled to: (S,) float64."""
        return self._physics.state()

    def draw(self, state: np.ndarray, width: int, height: int) -> np.ndarray:
        """A picture, uint8 (height, width, 3), of a state of the episode that was reset last; the episode goes on undisturbed."""
        self._shared.load(self._edits)
        painter = self._shared.painter(width, height)
        if self._drawn is None:
            self._drawn = mujoco.MjData(self._shared.model)
        mujoco.mj_setState(self._shared.model, self._drawn, state, STATE)
        mujoco.mj_forward(self._shared.model, self._drawn)
        return painter.draw(self._drawn, [position[:3] for _, position in self._stock._target_site_config])

    def _judge(self, observation: np.ndarray, action: np.ndarray) -> tuple[float, bool]:
        """Reward and success of this step."""
        if not self.rewards:
            return 0.0, self._solved(observation, self._stock._target_pos)
        reward, info = self._stock.evaluate_state(observation, np.clip(np.asarray(action, np.float64), -1.0, 1.0))
        return float(reward), bool(info["success"])
