"""One control step of Meta-World's physics, and whether it can be trusted.

Stock evaluates the forward dynamics six times per action; p is the position stage (where everything is, what touches
what: half of the cost), d the rest (velocities, forces, solver).

    stock    sub-step 1  2  3  4  5   mj_forward     the action enters before sub-step 1
             pd          pd pd pd pd  pd
    here      d          pd pd pd pd  pd

The sixth evaluation cannot go: it sets the solver warm start of the next step. But the next sub-step 1 begins where it
ended: no joint has moved, and its position stage would find again what the data already hold. Only the hand's target has
moved, a mocap body without joints, children or colliding geoms. It enters through the weld that pulls the hand: its pose
and the constraints are computed again.

Why it is exact: `mj_step` is `mj_checkPos`, `mj_checkVel`, `mj_forward`, `mj_checkAcc`, `mj_Euler`; `mj_forward` is the
position stage, then what `mj_forwardSkip(mjSTAGE_POS)` does. Called here are the same functions in the same order, less
those whose inputs have the values of the call before. An episode's first step, before which there was no `mj_forward` of
this kind, is stock's. Stock's `mj_rnePostConstraint` after the sub-steps is left out: no later computation reads its
results (contact forces on bodies); so are the goal sites that stock moves before an `mj_forward` that moves them back.
"""

from __future__ import annotations

from math import isfinite

import mujoco
import numpy as np

SUB_STEPS, HAND_STEP_M = 5, 1.0 / 100
"""Physics steps of 2.5 ms per action; how far a full action moves the hand's target."""
HAND_DOWN = np.array([1.0, 0.0, 1.0, 0.0])
"""The target's fixed orientation, as stock writes it; MuJoCo normalises it."""
STATE = int(mujoco.mjtState.mjSTATE_FULLPHYSICS | mujoco.mjtState.mjSTATE_MOCAP_POS | mujoco.mjtState.mjSTATE_MOCAP_QUAT)
_POSITIONS_KNOWN = int(mujoco.mjtStage.mjSTAGE_POS)


class Physics:
    """The physics of one environment, moved by actions.

    The arrays are views of MuJoCo's, kept because looking one up takes as long as using it.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, lowest: np.ndarray, highest: np.ndarray) -> None:
        self._model, self._data = model, data
        self._target, self._target_quaternion, self._controls = data.mocap_pos[0], data.mocap_quat[0], data.ctrl
        self._lowest, self._highest = lowest.tolist(), highest.tolist()
        self._warnings, self._no_warnings = data.warning.number, bytes(data.warning.number.nbytes)
        self._reusable = _can_reuse_positions(model)
        self._positions_known, self._time = False, 0.0

    def begin(self) -> None:
        """Start an episode from the state that the data hold."""
        self._positions_known, self._time = False, self._data.time

    def act(self, x: float, y: float, z: float, grip: float) -> None:
        """Move the hand's target, set the gripper, and let 12.5 ms pass (`set_xyz_action`, `do_simulation`, `mj_forward`)."""
        model, data, target, lowest, highest = self._model, self._data, self._target, self._lowest, self._highest
        old_x, old_y, old_z = target.tolist()
        target[0] = min(max(old_x + x * HAND_STEP_M, lowest[0]), highest[0])
        target[1] = min(max(old_y + y * HAND_STEP_M, lowest[1]), highest[1])
        target[2] = min(max(old_z + z * HAND_STEP_M, lowest[2]), highest[2])
        self._target_quaternion[:] = HAND_DOWN
        self._controls[0], self._controls[1] = grip, -grip
        if self._positions_known:
            _sub_step_in_place(model, data)
            mujoco.mj_step(model, data, nstep=SUB_STEPS - 1)
        else:
            mujoco.mj_step(model, data, nstep=SUB_STEPS)
        mujoco.mj_forward(model, data)
        self._positions_known = self._reusable

    def sound(self, observation: np.ndarray) -> bool:
        """Whether this step gave no warning, the clock advanced and the observation holds no NaN or infinity.

        The sum of squares is finite only if every number is; where it is not, the numbers decide, for squares overflow.
        """
        before, self._time = self._time, self._data.time
        return (
            self._time > before
            and self._warnings.tobytes() == self._no_warnings
            and (isfinite(observation.dot(observation)) or bool(np.isfinite(observation).all()))
        )

    def state(self) -> np.ndarray:
        """Time, joint positions and velocities, and the pose that the hand is pulled to: (S,) float64."""
        state = np.empty(mujoco.mj_stateSize(self._model, STATE))
        mujoco.mj_getState(self._model, self._data, state, STATE)
        return state


def _sub_step_in_place(model: mujoco.MjModel, data: mujoco.MjData) -> None:
    """`mj_step` where no joint has moved since the last `mj_forward`: half of its position stage is known."""
    mujoco.mj_checkPos(model, data)
    mujoco.mj_checkVel(model, data)
    mujoco.mj_kinematics(model, data)  # the target's pose
    mujoco.mj_makeConstraint(model, data)  # the weld to it
    mujoco.mj_island(model, data)
    mujoco.mj_projectConstraint(model, data)
    mujoco.mj_forwardSkip(model, data, _POSITIONS_KNOWN, 0)
    mujoco.mj_checkAcc(model, data)
    mujoco.mj_Euler(model, data)


def _can_reuse_positions(model: mujoco.MjModel) -> bool:
    """Whether the model is as `_sub_step_in_place` takes it to be; all 50 tasks' are."""
    mocap = np.flatnonzero(model.body_mocapid >= 0)
    on_mocap = np.isin(model.geom_bodyid, mocap)
    collides = (model.geom_contype[on_mocap] | model.geom_conaffinity[on_mocap]).any()
    plain = model.opt.integrator == mujoco.mjtIntegrator.mjINT_EULER and model.nsensor == 0 and model.ntendon == 0 and model.nflex == 0
    return bool(plain and not collides and not np.isin(model.body_parentid, mocap).any())
