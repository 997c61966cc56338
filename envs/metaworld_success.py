"""When a Meta-World task counts as solved at a step, without its reward.

Stock's `evaluate_state` computes the reward, which costs up to half a step, and its success flag on the way. Of that a
flag needs one distance or one joint. The table below states every task's rule:

    o     observation, (39,): 3 gripper, 4:7 first object, 11:14 second object
    goal  (3,), the task's `_target_pos`

Why it is exact: each rule compares the number that `evaluate_state` compares, computed by the same float64 operations
in the same order, with the same constant. Where stock writes the norm of a single number, which is the root of its
square, `abs` gives the same bits: radix-2 rounding takes the root of a square back to the number. No flag depends on what
an earlier reward has left behind.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi
from typing import Any

import numpy as np

from reconverge.envs.metaworld_observation import length

Test = Callable[[np.ndarray, np.ndarray], bool]
"""(observation, goal) -> solved at this step."""
Rule = Callable[[Any], Test]
"""Stock environment -> its test; names are looked up here, once."""

X, Y, Z = 0, 1, 2


def success_test(task_name: str, stock: Any) -> Test:
    """The test of one environment of the task."""
    return SUCCESS[task_name.removesuffix("-v3")](stock)


def _within(radius: float) -> Rule:
    """The first object is this close to the goal."""
    return lambda stock: lambda o, goal: length(o[4:7] - goal) <= radius


def _along(axis: int, radius: float) -> Rule:
    """The first object is this close to the goal along one axis."""
    return lambda stock: lambda o, goal: bool(abs(goal[axis] - o[4 + axis]) <= radius)


def _hand_within(radius: float) -> Rule:
    """The middle between the two finger tips is this close to the goal (`tcp_center`)."""

    def bind(stock: Any) -> Test:
        right, left = stock.data.site("rightEndEffector").xpos, stock.data.site("leftEndEffector").xpos
        return lambda o, goal: length((right + left) / 2.0 - goal) <= radius

    return bind


def _scaled_within(radius: float, scale: tuple[float, float, float], site: str = "", goal_height: float | None = None) -> Rule:
    """As `_within`, the axes weighted; the object's site `site`, if named; the goal at a fixed height, if given."""
    weights = np.array(scale)

    def bind(stock: Any) -> Test:
        position = stock.data.site(site).xpos if site else None

        def test(o: np.ndarray, goal: np.ndarray) -> bool:
            if goal_height is not None:
                goal = np.array([goal[X], goal[Y], goal_height])
            return length(((o[4:7] if position is None else position) - goal) * weights) <= radius

        return test

    return bind


def _joint(name: str, solved: Callable[[float], bool]) -> Rule:
    """A joint is where it has to be."""

    def bind(stock: Any) -> Test:
        angle = stock.data.joint(name).qpos
        return lambda o, goal: solved(angle.item())

    return bind


def _faucet_open(stock: Any) -> Test:
    """The handle's end, beside the point that is observed, is close to the goal."""
    end = np.array([-0.04, 0.0, 0.03])
    return lambda o, goal: length(o[4:7] + end - goal) <= 0.07


def _nut_on_peg(stock: Any) -> Test:
    """The nut's centre is over the peg and below its top (`_reward_pos` of assembly)."""
    nut = stock.data.site("RoundNut").xpos

    def test(o: np.ndarray, goal: np.ndarray) -> bool:
        error = goal - nut
        return bool(length(error[:2]) < 0.02 and error[Z] > 0.0)

    return test


def _swept_into(stock: Any) -> Test:
    """As `_within`, height left out."""
    return lambda o, goal: length(o[4:7] - np.array([goal[X], goal[Y], o[6]])) <= 0.05


def _stick_pulled(stock: Any) -> Test:
    """The thermos is at the goal and the stick through its handle (`_stick_is_inserted`)."""
    end = stock.data.site("stick_end").xpos

    def test(o: np.ndarray, goal: np.ndarray) -> bool:
        handle = o[11:14]
        inserted = end[X] >= handle[X] and abs(end[Y] - handle[Y]) <= 0.040 and abs(end[Z] - handle[Z]) <= 0.060
        return bool(length(handle - goal) <= 0.12 and inserted)

    return test


def _stick_pushed(stock: Any) -> Test:
    """The thermos is at the goal and the stick held up in the gripper; contacts are looked at last, they cost most."""

    def test(o: np.ndarray, goal: np.ndarray) -> bool:
        held = o[3] > 0 and o[6] - 0.01 > stock.stick_init_pos[Z]
        return bool(length(o[11:14] - goal) <= 0.12 and held and stock.touching_main_object)

    return test


SUCCESS: dict[str, Rule] = {
    "assembly": _nut_on_peg,
    "basketball": _scaled_within(0.08, (1.0, 1.0, 2.0), goal_height=0.3),
    "bin-picking": _within(0.05),
    "box-close": lambda stock: lambda o, goal: length(o[4:7] - goal) < 0.08,
    "button-press-topdown": _along(Z, 0.024),
    "button-press-topdown-wall": _along(Z, 0.024),
    "button-press": _along(Y, 0.02),
    "button-press-wall": _along(Y, 0.03),
    "coffee-button": _along(Y, 0.02),
    "coffee-pull": _within(0.07),
    "coffee-push": _within(0.07),
    "dial-turn": _within(0.07),
    "disassemble": lambda stock: lambda o, goal: bool(o[6] > goal[Z]),
    "door-close": _within(0.08),
    "door-lock": _along(Z, 0.02),
    "door-open": _along(X, 0.08),
    "door-unlock": _along(X, 0.02),
    "hand-insert": _within(0.05),
    "drawer-close": _within(0.05 + 0.015),
    "drawer-open": _within(0.03),
    "faucet-open": _faucet_open,
    "faucet-close": _within(0.07),
    "hammer": _joint("NailSlideJoint", lambda depth: depth > 0.09),
    "handle-press-side": _along(Z, 0.02),
    "handle-press": _along(Z, 0.02),
    "handle-pull-side": _within(0.08),
    "handle-pull": _along(Z, 0.05),
    "lever-pull": _joint("LeverAxis", lambda angle: abs(-angle - pi / 2.0) <= pi / 24),
    "pick-place-wall": _within(0.07),
    "pick-out-of-hole": _within(0.07),
    "pick-place": _within(0.07),
    "plate-slide": _within(0.07),
    "plate-slide-side": _within(0.07),
    "plate-slide-back": _within(0.07),
    "plate-slide-back-side": _within(0.07),
    "peg-insert-side": _scaled_within(0.07, (1.0, 2.0, 2.0), site="pegHead"),
    "peg-unplug-side": _within(0.07),
    "soccer": _within(0.07),
    "stick-push": _stick_pushed,
    "stick-pull": _stick_pulled,
    "push": _within(0.05),
    "push-wall": _within(0.07),
    "push-back": _within(0.07),
    "reach": _hand_within(0.05),
    "reach-wall": _hand_within(0.05),
    "shelf-place": _within(0.07),
    "sweep-into": _swept_into,
    "sweep": _within(0.05),
    "window-open": _along(X, 0.05),
    "window-close": _along(X, 0.05),
}
"""Task without its version -> its rule; radii in m, angles in rad."""
