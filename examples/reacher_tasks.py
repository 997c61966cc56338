"""A changed-dynamics variant of Gymnasium's Reacher, and a scripted expert for both: what a module of your own may look like.

    gym:Reacher-v5                              Gymnasium's own
    gym:reacher_tasks:CrossedReacher-v0         its torques act the other way round: what went left goes right

Name the module before the id, so that every process that needs the environment registers it by importing this file.
"""

from __future__ import annotations

import gymnasium
import numpy as np
from gymnasium.envs.mujoco.reacher_v5 import ReacherEnv

ENDS = (0.1, 0.11)
"""Length of the two links, in metres."""
STIFFNESS, DAMPING = 80.0, 0.05


class CrossedReacher(ReacherEnv):
    """Reacher whose torques act in the opposite direction."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        return super().step(-action)


gymnasium.register("CrossedReacher-v0", CrossedReacher, max_episode_steps=50)


def reach(observation: np.ndarray) -> np.ndarray:
    """Torques, (2,), in Reacher's own units, that pull the fingertip to the target: a spring across the arm, and friction."""
    cosines, sines, speeds, to_target = observation[0:2], observation[2:4], observation[6:8], -observation[8:10]
    first = np.arctan2(sines[0], cosines[0])
    whole = first + np.arctan2(sines[1], cosines[1])
    outer = ENDS[1] * np.array([-np.sin(whole), np.cos(whole)])
    inner = ENDS[0] * np.array([-np.sin(first), np.cos(first)])
    return np.clip(STIFFNESS * np.array([(inner + outer) @ to_target, outer @ to_target]) - DAMPING * speeds, -1.0, 1.0)


def reach_crossed(observation: np.ndarray) -> np.ndarray:
    """The same for CrossedReacher."""
    return -reach(observation)
