"""A Meta-World v3 task with fresh goals and episodes that repeat bit for bit.

What is done to the simulator, and why:

    goal       visible in the observation (three last numbers), continuous, drawn from the episode seed
               (stock: hidden, or one of 50; drawn from NumPy's global generator)
    reset      restores everything an earlier episode has touched: the model's edited positions, the physics
               with its solver warm start, every attribute of the environment object
    horizon    the task's own; stock raises an error after 500 steps
    physics    MuJoCo answers a NaN by silently starting over in mid-episode: its warnings and a clock that
               does not advance make the episode invalid

Environments of one task share one compiled model of about 20 MB. Episodes edit only `body_pos` and `site_pos`
in it (checked for all 50 tasks); each environment keeps its own and puts them back when its turn comes.
"""

from __future__ import annotations

import copy
import weakref
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.spaces import Box
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

from reconverge.envs.rendering import Painter
from reconverge.envs.task import Task

STATE = int(mujoco.mjtState.mjSTATE_FULLPHYSICS | mujoco.mjtState.mjSTATE_MOCAP_POS | mujoco.mjtState.mjSTATE_MOCAP_QUAT)
NEVER = 2**31
"""Stock path length: out of reach, the horizon is counted here."""
CAMERA: dict[str, Any] = {"at": (0.0, 0.66, 0.12), "distance": 1.1, "azimuth": 136.0, "elevation": -36.0}

Edits = tuple[np.ndarray, np.ndarray]


class MetaworldEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One task; an episode is a pure function of (task, episode seed, actions)."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._shared = _shared_model(task.name)
        self._stock = self._shared.clone()
        self._edits = self._shared.pristine_edits
        self._steps, self._time, self._invalid = 0, 0.0, False
        self._drawn: mujoco.MjData | None = None
        self.observation_space = Box(-np.inf, np.inf, (task.observation_size,), np.float64)
        self.action_space = Box(-1.0, 1.0, (task.action_size,), np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start the episode of `seed`, which fixes goal and object placement; without one, episode 0."""
        self._shared.restore(self._stock)
        self._stock.seed(seed or 0)
        observation, _ = self._stock.reset()
        self._edits = self._shared.taken_edits(self)
        self._steps, self._time, self._invalid = 0, self._stock.data.time, False
        return np.array(observation, np.float64), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Act for 12.5 ms: hand displacement 3, gripper 1, each in [-1, 1]."""
        action = np.asarray(action, np.float64)
        if not np.isfinite(action).all():
            raise ValueError(f"action {action} is not finite")
        self._shared.give_turn(self, self._edits)
        observation, reward, _, _, info = self._stock.step(np.clip(action, -1.0, 1.0))
        self._watch_physics(observation)
        self._steps += 1
        success = bool(info["success"]) and not self._invalid
        return observation, float(reward), False, self._steps >= self.task.horizon, {"success": success, "invalid": self._invalid}

    def physics_state(self) -> np.ndarray:
        """Time, joint positions and velocities, and the pose that the hand is pulled to: (S,) float64."""
        data = self._stock.data
        state = np.empty(mujoco.mj_stateSize(self._shared.model, STATE))
        mujoco.mj_getState(self._shared.model, data, state, STATE)
        return state

    def draw(self, state: np.ndarray, width: int, height: int) -> np.ndarray:
        """A picture, uint8 (height, width, 3), of a state of the episode that was reset last; the episode goes on undisturbed."""
        self._shared.give_turn(self, self._edits)
        painter = self._shared.painter(width, height)
        if self._drawn is None:
            self._drawn = mujoco.MjData(self._shared.model)
        mujoco.mj_setState(self._shared.model, self._drawn, state, STATE)
        mujoco.mj_forward(self._shared.model, self._drawn)
        return painter.draw(self._drawn, [position[:3] for _, position in self._stock._target_site_config])

    def _watch_physics(self, observation: np.ndarray) -> None:
        data = self._stock.data
        broken = data.time <= self._time or data.warning.number.any() or not np.isfinite(observation).all()
        self._invalid = bool(self._invalid or broken)
        self._time = data.time


class _SharedModel:
    """The compiled model of one task, and the freshly constructed environment that the others are copied from."""

    def __init__(self, name: str) -> None:
        # Without a handler of one's own MuJoCo appends its warnings to a file in the working directory.
        mujoco.set_mju_user_warning(_heard)
        stock = ALL_V3_ENVIRONMENTS[name]()
        stock._partially_observable, stock._freeze_rand_vec, stock.seeded_rand_vec = False, False, True
        stock._set_task_called, stock.max_path_length = True, NEVER
        stock.__dict__.pop("sawyer_observation_space", None)  # cached for a hidden goal, it would clip the goal to 0
        self.model: mujoco.MjModel = stock.model
        self.pristine_edits: Edits = (self.model.body_pos.copy(), self.model.site_pos.copy())
        self._kind = type(stock)
        self._attributes = {key: value for key, value in vars(stock).items() if key not in _OWN}
        self._turn: weakref.ref[MetaworldEnv] | None = None
        self._painter: Painter | None = None

    def clone(self) -> Any:
        """An environment as if newly constructed, on the shared model with physics of its own."""
        stock: Any = self._kind.__new__(self._kind)
        stock.model, stock.data, stock.mujoco_renderer = self.model, mujoco.MjData(self.model), None
        self._restore_attributes(stock)
        return stock

    def restore(self, stock: Any) -> None:
        """Put back everything that an episode can have changed."""
        self._turn = None
        self._load(self.pristine_edits)
        for key in set(vars(stock)) - _OWN:
            delattr(stock, key)
        self._restore_attributes(stock)
        mujoco.mj_resetData(self.model, stock.data)
        mujoco.mj_forward(self.model, stock.data)

    def give_turn(self, env: MetaworldEnv, edits: Edits) -> None:
        """Make the model that of `env`, unless it is already."""
        if self._turn is None or self._turn() is not env:
            self._load(edits)
            self._turn = weakref.ref(env)

    def taken_edits(self, env: MetaworldEnv) -> Edits:
        """The model's edits as `env` has just made them."""
        self._turn = weakref.ref(env)
        return self.model.body_pos.copy(), self.model.site_pos.copy()

    def painter(self, width: int, height: int) -> Painter:
        if self._painter is None or self._painter.size != (width, height):
            if self._painter is not None:
                self._painter.close()
            self._painter = Painter(self.model, width, height)
            self._painter.look(**CAMERA)
        return self._painter

    def _load(self, edits: Edits) -> None:
        self.model.body_pos[:], self.model.site_pos[:] = edits

    def _restore_attributes(self, stock: Any) -> None:
        vars(stock).update(copy.deepcopy(self._attributes))
        # The constructor leaves two views of the physics here; a copy must look into its own.
        stock.init_left_pad, stock.init_right_pad = stock.get_body_com("leftpad"), stock.get_body_com("rightpad")


_OWN = {"model", "data", "mujoco_renderer"}
_models: weakref.WeakValueDictionary[str, _SharedModel] = weakref.WeakValueDictionary()


def _shared_model(name: str) -> _SharedModel:
    """The shared model of a task, compiled when first needed and freed with its last environment."""
    shared = _models.get(name)
    if shared is None:
        shared = _models[name] = _SharedModel(name)
    return shared


def _heard(message: str) -> None:
    """MuJoCo's warnings are counted in `data.warning`, where `step` looks."""
