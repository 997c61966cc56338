"""The start of a Meta-World episode that an observation shows.

    drawn vector (k,)  --reset-->  observation (39,)      positions of objects and goal are the vector's own numbers, shifted
    observation        --fit--->   drawn vector           hence a straight line back, fitted to the starts of a few seeds

At its start an episode is fixed by what the task draws, which objects and goal show; the hand is always where the reset leaves it. Later
moments are not: joints and velocities are not observed. Numbers of the vector that no observation shows have no effect either.
In `window-open` and `window-close` stock's first observation shows the window where it was before the last draw; their goal tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from reconverge.envs.errors import NoSuchStart

if TYPE_CHECKING:
    from reconverge.envs.metaworld_model import SharedModel

FITTED_TO = 24
"""Starts from which the line is fitted; a task draws at most six numbers."""
SHOWN = [4, 5, 6, 11, 12, 13, 36, 37, 38]
"""Positions of the two objects and the goal, in m."""
STILL_M = 1e-3
"""What moves less over the starts shows nothing."""


class ShownStarts:
    """From an observation to what the task would have drawn."""

    def __init__(self, shared: SharedModel, stock: Any) -> None:
        observed, drawn = [], []
        for seed in range(FITTED_TO):
            observed.append(shared.start(stock, seed).observation[SHOWN])
            drawn.append(np.array(stock._last_rand_vec))
        seen = np.array(observed)
        self._moving = seen.std(0) > STILL_M
        self._line = np.linalg.lstsq(_with_one(seen[:, self._moving]), np.array(drawn), rcond=1e-4)[0]
        self._low, self._high = stock._random_reset_space.low, stock._random_reset_space.high

    def drawn(self, observation: np.ndarray) -> np.ndarray:
        """The vector (k,) whose start shows the objects and the goal of `observation` (39,), or comes closest within what is ever drawn."""
        vector = (_with_one(observation[None, SHOWN][:, self._moving]) @ self._line)[0]
        return np.clip(vector, self._low, self._high)


def draw_only(stock: Any, vector: np.ndarray) -> None:
    """Let the next reset draw `vector`. The reset raises NoSuchStart where the task would not have it (objects on top of each other)."""
    passes = iter(range(2))  # stock's reset draws once in each of its two passes; a task that is not content draws again

    def draw() -> np.ndarray:
        if next(passes, None) is None:
            raise NoSuchStart(f"no episode starts as shown: {np.round(vector, 3).tolist()} is what the task refuses to draw")
        stock._last_rand_vec = vector.copy()
        return stock._last_rand_vec

    stock._get_state_rand_vec = draw


def _with_one(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
