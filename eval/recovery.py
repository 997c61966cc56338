"""How fast an earlier task comes back after the curriculum moved on.

Training switches to a new task; an earlier task is evaluated after 0, 2, 6, ... updates. Its reference is its success just
after it was learned. A worked trace, reference 0.80:

    updates            0     2     6    10    25    50   100
    success rate     0.80  0.70  0.40  0.20  0.60  0.72  0.80

    threshold 99 %    0.792   first reached after 100 updates
    threshold 90 %    0.720   first reached after  50
    threshold 80 %    0.640   first reached after   2    (before the bottom of the dip: see below)
    dip               0.80 - 0.20                                                        = 0.60
    dip area          0.05*2 + 0.25*4 + 0.5*4 + 0.4*15 + 0.14*25 + 0.04*50 (trapezoids)  = 14.6  success x updates
    after the dip, 80 %   first reached at or after the bottom (10): after 50

`recovery_updates` is the figure of arXiv 2602.02417, Table 2: the *first* grid point after 0 at or above the threshold. A task
that has not begun to fall at the first grid point counts as recovered there, whatever happens later, and with no dip
at all the figure is the floor of the grid. So `updates_after_dip`, the dip and its area belong beside it. `None` means that the
threshold was never reached: censored at the last point of the curve, not infinite.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# A rate is a ratio of small integers, the threshold a product of two: 63/70 and 90 % of 1.0 must compare equal.
TOLERANCE = 1e-9


class Curve(NamedTuple):
    """Success of one task while something else is trained.

    Attributes:
        updates: (n,) ascending, beginning with 0.
        rates: (n,) success rate in [0, 1] after so many updates.
    """

    updates: Sequence[int]
    rates: Sequence[float]


def paper_grid(updates: int) -> tuple[int, ...]:
    """Evaluation points up to `updates`: 2, 4, 6, 8, 10, every 5 to 100, every 50 to 1,000, then every 1,000 (arXiv 2602.02417)."""
    points = [*range(2, 10, 2), *range(10, 100, 5), *range(100, 1000, 50), *range(1000, updates + 1, 1000)]
    return tuple(point for point in points if point <= updates)


def recovery_updates(curve: Curve | tuple[Sequence[int], Sequence[float]], reference: float, threshold: float) -> int | None:
    """First grid point after 0 at which the rate is at least `threshold` percent of `reference`; None = never on this curve.

    A reference of 0 is met everywhere: a task that was never learned has nothing to recover, and the reader must be told so.
    """
    updates, rates = _checked(curve)
    reached = np.flatnonzero(_meets(rates[1:], reference, threshold))
    return int(updates[1 + reached[0]]) if len(reached) else None


def updates_after_dip(curve: Curve | tuple[Sequence[int], Sequence[float]], reference: float, threshold: float) -> int | None:
    """First grid point after 0, not before the lowest point of the curve, at which the threshold is met; None = never.

    Where several points are equally low, as rates of few episodes often are, the last of them counts: a task that falls back there has not recovered.
    One that falls back less far has, though it may end below the threshold.
    Where the curve never falls below the threshold there is nothing to wait for: the first grid point, as `recovery_updates`.
    """
    updates, rates = _checked(curve)
    meets = _meets(rates, reference, threshold)
    bottom = 0 if meets.all() else int(np.flatnonzero(rates == rates.min())[-1])
    reached = [int(updates[k]) for k in range(max(1, bottom), len(updates)) if meets[k]]
    return reached[0] if reached else None


def dip(curve: Curve | tuple[Sequence[int], Sequence[float]], reference: float) -> float:
    """max(0, reference - lowest rate on the curve), in [0, 1]."""
    return max(0.0, reference - float(_checked(curve)[1].min()))


def dip_area(curve: Curve | tuple[Sequence[int], Sequence[float]], reference: float) -> float:
    """Area between the reference and the curve where the curve is lower: trapezoids of max(reference - rate, 0); success x updates."""
    updates, rates = _checked(curve)
    return float(np.trapezoid(np.maximum(reference - rates, 0.0), updates))


def no_dip(curve: Curve | tuple[Sequence[int], Sequence[float]], reference: float, threshold: float) -> bool:
    """Whether no point of the curve lies below `threshold` percent of `reference`, so that there was nothing to recover from."""
    return bool(_meets(_checked(curve)[1], reference, threshold).all())


def ends_below(curve: Curve | tuple[Sequence[int], Sequence[float]], reference: float, threshold: float) -> tuple[bool, bool]:
    """Whether the first and the last point of the curve lie below `threshold` percent of `reference`."""
    meets = _meets(_checked(curve)[1], reference, threshold)
    return not meets[0], not meets[-1]


def _meets(rates: np.ndarray, reference: float, threshold: float) -> np.ndarray:
    return rates >= threshold / 100 * reference - TOLERANCE


def _checked(curve: Curve | tuple[Sequence[int], Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    updates, rates = np.asarray(curve[0], dtype=float), np.asarray(curve[1], dtype=float)
    if updates.ndim != 1 or updates.shape != rates.shape or len(updates) == 0:
        raise ValueError(f"a curve has as many updates as rates, at least one; got shapes {updates.shape} and {rates.shape}")
    if updates[0] != 0 or (np.diff(updates) <= 0).any():
        raise ValueError(f"updates of a curve ascend from 0, got {updates.tolist()}")
    if np.isnan(rates).any():
        raise ValueError("a curve holds measured rates only; leave out the points that were not measured")
    return updates, rates
