"""One episode as a data set holds it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Recording:
    """An episode of T actions.

    Attributes:
        number: of the episode in its data set; stands where an episode seed stands otherwise.
        observations: (T + 1, Do), or (T, Do) where the last one was not kept, in the environment's units.
        actions: (T, Da), in the environment's own units.
        success: (T,) bool; None where the data say nothing of it.
    """

    number: int
    observations: np.ndarray
    actions: np.ndarray
    success: np.ndarray | None
