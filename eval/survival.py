"""Median updates to recovery where some never recovered while one looked (Kaplan & Meier 1958).

A worked trace: seven recoveries observed up to update 1000, two of which did not come about.

    updates to recovery        2     2     6    10    50   1000+  1000+        + = not yet: censored there
    still unrecovered after    2: 5/7 = 0.714    6: 0.571    10: 0.429    50: 0.286
    median                     10, the first update after which at most half are unrecovered

Leaving out the two would give 6 and make a method that rarely recovers look fast. When more than half are unrecovered wherever one
has looked there is no median: `None`, read as "never within the last point". With one common last point this is the ordinary lower
median with "never" as infinity.

The interval inverts the log-log interval of the curve (Brookmeyer & Crowley 1982): all updates at which one half lies within it.
Of fewer than six entries it has no lower end: that all are unrecovered until the first is back says too little of one half.
It takes its entries as independent, which the cells of one seed are not quite: with few seeds it is narrower than it should be.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import CensoredData, ecdf

from reconverge.eval.recovery import TOLERANCE


class MedianUpdates(NamedTuple):
    """A median number of updates with its confidence bounds; None = not reached within `last`, or of a lower bound: too few entries for one.

    Attributes:
        size: entries that went into it. never: how many of them are censored.
        last: the largest update at which anything was observed; 0 without entries.
    """

    median: float | None
    low: float | None
    high: float | None
    size: int
    never: int
    last: int


def median_updates(updates: Sequence[int | None], last_points: Sequence[int], confidence: float = 0.95) -> MedianUpdates:
    """Kaplan-Meier median of `updates`, where None is censored at the entry of `last_points`.

    >>> median_updates([2, 2, 6, 10, 50, None, None], [1000] * 7)[:3]
    (10.0, 2.0, None)
    """
    if len(updates) != len(last_points):
        raise ValueError(f"one last point per recovery, got {len(last_points)} for {len(updates)}")
    if not updates:
        return MedianUpdates(None, None, None, 0, 0, 0)
    never = np.array([update is None for update in updates])
    times = np.array([last if update is None else update for update, last in zip(updates, last_points, strict=True)], dtype=float)
    unrecovered = ecdf(CensoredData.right_censored(times, never)).sf
    low, high = _bounds(unrecovered, times, never, confidence)
    median, first, last = (_first_at_half(unrecovered.quantiles, curve) for curve in (unrecovered.probabilities, low, high))
    if _none_of(len(times), confidence) <= 0.5:  # so few that the median may lie before the first that is back
        first = None
    return MedianUpdates(median, first, last, len(times), int(never.sum()), int(max(times.max(), *last_points)))


def _bounds(unrecovered: object, times: np.ndarray, never: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bound of the curve at its own updates; where it is 0 or 1, the exact binomial bound over those that were looked at so far."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # the formula is undefined at 0 and 1, which is handled here
        interval = unrecovered.confidence_interval(confidence, method="log-log")  # type: ignore[attr-defined]
    share = unrecovered.probabilities  # type: ignore[attr-defined]
    looked_at = len(times) - (times[never] < unrecovered.quantiles[:, None]).sum(axis=1)  # type: ignore[attr-defined]
    low = np.where(share >= 1, _none_of(len(times), confidence), np.where(share <= 0, 0.0, interval.low.probabilities))
    high = np.where(share >= 1, 1.0, np.where(share <= 0, 1 - _none_of(looked_at, confidence), interval.high.probabilities))
    return low, high


def _none_of(size: int | np.ndarray, confidence: float) -> float | np.ndarray:
    """The least share of a population of which none among `size` draws lacks (Clopper & Pearson 1934); 0.48 for 5, 0.54 for 6."""
    return ((1 - confidence) / 2) ** (1 / size)


def _first_at_half(updates: np.ndarray, share: np.ndarray) -> float | None:
    reached = np.flatnonzero(share <= 0.5 + TOLERANCE)
    return float(updates[reached[0]]) if len(reached) else None
