"""What the environments of one Meta-World task share: the compiled model, and how episodes begin.

    shared model  (about 20 MB, compiled once)        starts  seed -> how that episode begins (some 5 kB each)
       |  clone: physics of its own, attributes copied
       +-- environment: episode of seed 7    edits of 7   (body_pos, site_pos)
       +-- environment: episode of seed 9    edits of 9

Episodes edit only `body_pos` and `site_pos` of the model (checked for all 50 tasks): whoever steps next loads its own.

A first reset is stock's own, from a restored environment: some 250 physics steps. What it leaves is kept, and later
resets of the same seed put it back without a physics step. Why that is exact: MuJoCo's integration state (positions,
velocities, time, controls, mocap pose, solver warm start) with its warning counters is all that a physics step reads;
everything derived (positions of bodies and sites, contacts, forces) it computes anew before it is looked at. Of the
environment object, `reset_model` replaces attributes and edits none that an episode edits in place; a few are windows
into the derived data (the goal of bin-picking), which are opened again on the new physics, showing the same numbers.
"""

from __future__ import annotations

import copy
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from gymnasium.spaces import Box
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

from reconverge.envs.metaworld_start import ShownStarts, draw_only
from reconverge.envs.rendering import Painter

KEPT_STARTS = 512
"""Beginnings of episodes kept per task; beyond that the one used longest ago is dropped."""
NEVER = 2**31
"""Stock path length: out of reach, the horizon is counted in `MetaworldEnv`."""
CAMERA: dict[str, Any] = {"at": (0.0, 0.66, 0.16), "distance": 1.2, "azimuth": 136.0, "elevation": -36.0}

Edits = tuple[np.ndarray, np.ndarray]
"""The model's `body_pos` and `site_pos`."""

_INTEGRATION = int(mujoco.mjtState.mjSTATE_INTEGRATION)
_OWN = {"model", "data", "mujoco_renderer"}
_WINDOWED = ("xpos", "geom_xpos", "site_xpos")
"""Fields of the physics that attributes of stock environments look into."""


@dataclass(frozen=True)
class _Window:
    """An attribute that is a view of a field of the physics: where, and what it shows after the reset."""

    field: str
    start: int
    shown: np.ndarray


@dataclass(frozen=True)
class Start:
    """How the episode of one seed begins; read only, environments share it."""

    observation: np.ndarray
    edits: Edits
    state: np.ndarray
    warnings: np.ndarray
    attributes: dict[str, Any]
    windows: dict[str, _Window]


class SharedModel:
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
        self.bounds: Box = stock.sawyer_observation_space
        self._kind = type(stock)
        # Windows into this first environment's physics would outlive them.
        self._attributes = {key: value for key, value in vars(stock).items() if key not in _OWN and _window(stock.data, value) is None}
        self._loaded: Edits | None = None
        self._starts: OrderedDict[int, Start] = OrderedDict()
        self._painter: Painter | None = None
        self._shown: ShownStarts | None = None

    def clone(self) -> Any:
        """An environment as if newly constructed, on the shared model with physics of its own; to be started before use."""
        stock: Any = self._kind.__new__(self._kind)
        stock.model, stock.data, stock.mujoco_renderer = self.model, mujoco.MjData(self.model), None
        vars(stock).update(self._attributes)
        return stock

    def start(self, stock: Any, seed: int) -> Start:
        """Reset a clone to the episode of `seed`."""
        start = self._starts.get(seed)
        if start is not None:
            self._starts.move_to_end(seed)
            self._put_back(stock, start)
            return start
        start = self._starts[seed] = self._first_reset(stock, seed)
        if len(self._starts) > KEPT_STARTS:
            self._starts.popitem(last=False)
        return start

    def start_shown(self, stock: Any, observation: np.ndarray) -> Start:
        """Reset a clone to the start whose objects and goal `observation` shows, as near as there is one; NoSuchStart for what is never drawn."""
        if self._shown is None:
            self._shown = ShownStarts(self, stock)
        return self._first_reset(stock, 0, self._shown.drawn(observation))

    def load(self, edits: Edits) -> None:
        """Make the model that of an episode, unless it is already."""
        if self._loaded is not edits:
            self.model.body_pos[:], self.model.site_pos[:] = edits
            self._loaded = edits

    def painter(self, width: int, height: int) -> Painter:
        if self._painter is None or self._painter.size != (width, height):
            if self._painter is not None:
                self._painter.close()
            self._painter = Painter(self.model, width, height)
            self._painter.look(**CAMERA)
        return self._painter

    def _first_reset(self, stock: Any, seed: int, drawn: np.ndarray | None = None) -> Start:
        """`drawn`: what the task is to draw in place of the seed's numbers."""
        self._restore(stock)
        stock.seed(seed)
        _spare_the_first_pass(stock)
        before = dict(vars(stock))
        self._loaded = None  # from here on the model is being edited
        if drawn is not None:
            draw_only(stock, drawn)
        try:
            observation, _ = stock.reset()
        finally:
            vars(stock).pop("_get_state_rand_vec", None)
        edits = self._loaded = (self.model.body_pos.copy(), self.model.site_pos.copy())
        state = np.empty(mujoco.mj_stateSize(self.model, _INTEGRATION))
        mujoco.mj_getState(self.model, stock.data, state, _INTEGRATION)
        attributes, windows = {}, {}
        for key, value in vars(stock).items():
            if (window := _window(stock.data, value)) is not None:
                windows[key] = window
            elif key not in before or before[key] is not value:
                attributes[key] = value
        return Start(np.array(observation, np.float64), edits, state, stock.data.warning.number.copy(), attributes, windows)

    def _restore(self, stock: Any) -> None:
        """Make a clone as if newly constructed, whatever its episodes have changed."""
        self.load(self.pristine_edits)
        self._set_attributes(stock, copy.deepcopy(self._attributes))
        mujoco.mj_resetData(self.model, stock.data)
        mujoco.mj_forward(self.model, stock.data)
        # The constructor leaves these two windows; a copy must look into its own physics.
        stock.init_left_pad, stock.init_right_pad = stock.get_body_com("leftpad"), stock.get_body_com("rightpad")

    def _put_back(self, stock: Any, start: Start) -> None:
        """Make a clone as the first reset of this start has left it; derived data are for the next step to compute."""
        self.load(start.edits)
        self._set_attributes(stock, self._attributes, start.attributes)
        mujoco.mj_resetData(self.model, stock.data)
        mujoco.mj_setState(self.model, stock.data, start.state, _INTEGRATION)
        stock.data.warning.number[:] = start.warnings
        for key, window in start.windows.items():
            view = getattr(stock.data, window.field).reshape(-1)[window.start : window.start + window.shown.size]
            view[:] = window.shown
            setattr(stock, key, view)

    def _set_attributes(self, stock: Any, *attributes: dict[str, Any]) -> None:
        own = {key: vars(stock)[key] for key in _OWN}
        vars(stock).clear()
        for some in (own, *attributes):
            vars(stock).update(some)


def _spare_the_first_pass(stock: Any) -> None:
    """Leave out the hand's way home, 250 physics steps, from the first of the two passes that stock's `reset` makes.

        reset_model      draws from the episode's generator, edits the model, sets attributes
        mj_resetData     forgets the physics
        reset_model      again, with the next draws

    Why the episode is the same: of the first pass remain the generator, the edits and the attributes. How often it draws
    depends on the draws alone; its edits of bodies are draws and poses that no step moves; of its attributes the second
    pass reads only heights that come from the constructor, and sets the others anew.
    """

    def stay(steps: int = 50) -> None:
        del stock._reset_hand  # the second pass finds the method of its class
        stock.init_tcp = stock.tcp_center

    stock._reset_hand = stay


def _window(data: mujoco.MjData, value: Any) -> _Window | None:
    """Where in the physics an attribute looks, if it does."""
    if isinstance(value, np.ndarray) and value.base is not None:
        for field in _WINDOWED:
            whole = getattr(data, field)
            if np.may_share_memory(whole, value):
                start = (value.ctypes.data - whole.ctypes.data) // whole.itemsize
                return _Window(field, start, value.copy())
    return None


_models: weakref.WeakValueDictionary[str, SharedModel] = weakref.WeakValueDictionary()


def shared_model(name: str) -> SharedModel:
    """The shared model of a task, compiled when first needed and freed with its last environment."""
    shared = _models.get(name)
    if shared is None:
        shared = _models[name] = SharedModel(name)
    return shared


def _heard(message: str) -> None:
    """MuJoCo's warnings are counted in `data.warning`, where `MetaworldEnv` looks."""
