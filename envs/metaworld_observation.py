"""What a Meta-World observation shows, read from MuJoCo's own arrays.

      0:3   hand, body `hand`                         18:36  the same 18 numbers one step earlier
      3     gripper opening, 0 to 1                   36:39  goal
      4:11  first object: position 3, quaternion 4    all clipped to the task's bounds, the earlier
     11:18  second object, or zeros                   18 numbers from what they were before clipping

Stock finds every object by name at every step (`SawyerXYZEnv._get_curr_obs_combined_no_goal`, and each task's
`_get_pos_objects` and `_get_quat_objects`). The table below says what those methods look at; an `Observer` looks
the names up once and keeps the arrays, which stay where they are for as long as the `MjData` lives.

Why it is exact: numbers are copied, or go through the same float64 operations in the same order: sums of two, NumPy's
own `sin`, `cos` and `dot` (`np.linalg.norm` of a vector is the root of `x.dot(x)`), and `scipy_quaternion`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import mujoco
import numpy as np
from gymnasium.spaces import Box

from reconverge.envs.metaworld_quaternion import scipy_quaternion

FRAME, GOAL = 18, 36
"""Size of one frame; where the goal begins."""
OPEN_M = 0.1
"""Distance of the fingers that counts as fully open."""
DIAL_RADIUS_M = 0.05


@dataclass(frozen=True)
class Seen:
    """An object as the observation shows it.

    Attributes:
        at: whose position: `body`, `geom` or `site`, and the name.
        matrix: whose rotation matrix is shown as SciPy's quaternion, w last; in the same notation.
        quaternion: else, the body whose quaternion is shown as MuJoCo keeps it, w first; or four fixed numbers.
        shift: added to the position, in m.
        dial: a joint: the position is the point of the dial's rim that it has turned to.
    """

    at: str
    matrix: str = ""
    quaternion: str | tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    shift: tuple[float, float, float] | None = None
    dial: str = ""


_BLOCK = (Seen("body obj", matrix="geom objGeom"),)
_BLOCK_GEOM = (Seen("geom objGeom", matrix="geom objGeom"),)
_PUCK = (Seen("geom puck", matrix="geom puck"),)
_MUG = (Seen("body obj", matrix="geom mug"),)
_DOOR = (Seen("geom handle", matrix="geom handle"),)
_NUT = (Seen("site RoundNut-8", quaternion="RoundNut"),)
_BUTTON_ABOVE = (Seen("body button", quaternion="button", shift=(0.0, 0.0, 0.193)),)
_BUTTON_AHEAD = (Seen("body button", quaternion="button", shift=(0.0, -0.193, 0.0)),)

OBSERVED: dict[str, tuple[Seen, ...]] = {
    "assembly": _NUT,
    "basketball": (Seen("body bsktball", quaternion="bsktball"),),
    "bin-picking": (Seen("body obj", quaternion="obj"),),
    "box-close": (Seen("body top_link", quaternion="top_link"),),
    "button-press-topdown": _BUTTON_ABOVE,
    "button-press-topdown-wall": _BUTTON_ABOVE,
    "button-press": _BUTTON_AHEAD,
    "button-press-wall": _BUTTON_AHEAD,
    "coffee-button": (Seen("site buttonStart", quaternion=(1.0, 0.0, 0.0, 0.0)),),
    "coffee-pull": _MUG,
    "coffee-push": _MUG,
    "dial-turn": (Seen("body dial", quaternion="dial", dial="knob_Joint_1"),),
    "disassemble": _NUT,
    "door-close": _DOOR,
    "door-lock": (Seen("site lockStartLock", quaternion="door_link"),),
    "door-open": _DOOR,
    "door-unlock": (Seen("site lockStartUnlock", quaternion="door_link"),),
    "hand-insert": (Seen("body obj", quaternion="obj"),),
    "drawer-close": (Seen("body drawer_link", shift=(0.0, -0.16, 0.05)),),
    "drawer-open": (Seen("body drawer_link", quaternion="drawer_link", shift=(0.0, -0.16, 0.0)),),
    "faucet-open": (Seen("site handleStartOpen", quaternion="faucetBase", shift=(0.0, 0.0, -0.01)),),
    "faucet-close": (Seen("site handleStartClose", quaternion="faucetBase", shift=(0.0, 0.0, -0.01)),),
    "hammer": (Seen("body hammer", quaternion="hammer"), Seen("body nail_link", quaternion="nail_link")),
    "handle-press-side": (Seen("site handleStart"),),
    "handle-press": (Seen("site handleStart"),),
    "handle-pull-side": (Seen("site handleCenter"),),
    "handle-pull": (Seen("site handleRight"),),
    "lever-pull": (Seen("site leverStart", matrix="geom objGeom"),),
    "pick-place-wall": _BLOCK_GEOM,
    "pick-out-of-hole": (Seen("body obj", quaternion="obj"),),
    "pick-place": _BLOCK,
    "plate-slide": _PUCK,
    "plate-slide-side": _PUCK,
    "plate-slide-back": _PUCK,
    "plate-slide-back-side": _PUCK,
    "peg-insert-side": (Seen("site pegGrasp", matrix="site pegGrasp"),),
    "peg-unplug-side": (Seen("site pegEnd", quaternion="plug1"),),
    "soccer": (Seen("body soccer_ball", matrix="body soccer_ball"),),
    "stick-push": (Seen("body stick", matrix="body stick"), Seen("site insertion", shift=(0.0, 0.09, 0.0))),
    "stick-pull": (Seen("body stick", matrix="body stick"), Seen("site insertion")),
    "push": _BLOCK,
    "push-wall": _BLOCK_GEOM,
    "push-back": _BLOCK_GEOM,
    "reach": _BLOCK,
    "reach-wall": _BLOCK,
    "shelf-place": _BLOCK,
    "sweep-into": _BLOCK,
    "sweep": (Seen("body obj", quaternion="obj"),),
    "window-open": (Seen("site handleOpenStart"),),
    "window-close": (Seen("site handleCloseStart"),),
}
"""Task without its version -> the one or two objects that it shows."""


def length(vector: np.ndarray) -> float:
    """`np.linalg.norm` of a vector, without its wrapper."""
    return sqrt(vector.dot(vector))


class Observer:
    """Reads the observations of one environment; keeps the last frame, which the next one repeats."""

    def __init__(self, task_name: str, data: mujoco.MjData, bounds: Box) -> None:
        self._low, self._high = bounds.low, bounds.high
        self._row = row = np.zeros(bounds.shape)
        self._frame, self._previous, self._shown_goal = row[:FRAME], row[FRAME:GOAL], row[GOAL:]
        self._goal: np.ndarray = self._shown_goal
        self._right_finger, self._left_finger = data.body("rightclaw").xpos, data.body("leftclaw").xpos
        self._copied = [(row[:3], data.body("hand").xpos)]
        self._shifted: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._rotated: list[tuple[int, np.ndarray]] = []
        self._dials: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for number, seen in enumerate(OBSERVED[task_name.removesuffix("-v3")]):
            self._look_at(seen, data, 4 + 7 * number)

    def begin(self, observation: np.ndarray, goal: np.ndarray) -> None:
        """Start an episode. The goal array is read at every step: a few tasks' goals are positions inside the simulator."""
        self._row[:], self._goal = observation, goal

    def observe(self) -> np.ndarray:
        """The observation of this moment, float64 (39,)."""
        row = self._row
        self._previous[:] = self._frame
        for shown, source in self._copied:
            shown[:] = source
        row[3] = min(max(length(self._right_finger - self._left_finger) / OPEN_M, 0.0), 1.0)
        for shown, source, shift in self._shifted:
            np.add(source, shift, out=shown)
        for place, matrix in self._rotated:
            row[place], row[place + 1], row[place + 2], row[place + 3] = scipy_quaternion(matrix.tolist())
        for shown, centre, angle in self._dials:
            shown[:] = centre + np.array([np.sin(angle).item(), -np.cos(angle).item(), 0.0]) * DIAL_RADIUS_M
        self._shown_goal[:] = self._goal
        observation = np.maximum(row, self._low)
        return np.minimum(observation, self._high, out=observation)

    def _look_at(self, seen: Seen, data: Any, place: int) -> None:
        position, quaternion = self._row[place : place + 3], self._row[place + 3 : place + 7]
        source = _named(data, seen.at).xpos
        if seen.dial:
            self._dials.append((position, source, data.joint(seen.dial).qpos))
        elif seen.shift is not None:
            self._shifted.append((position, source, np.array(seen.shift)))
        else:
            self._copied.append((position, source))
        if seen.matrix:
            self._rotated.append((place + 3, _named(data, seen.matrix).xmat))
        elif isinstance(seen.quaternion, str):
            self._copied.append((quaternion, data.body(seen.quaternion).xquat))
        # Fixed numbers come with the first observation and stay.


def _named(data: Any, what: str) -> Any:
    kind, name = what.split(" ")
    return getattr(data, kind)(name)
