"""How far a measured number can be trusted.

    success of one policy on one task      n episodes, 0 or 1 each     wilson
    a weighted sum of such rates           one n per rate              combined_rates
    a figure over seeds                    n runs, one number each     mean_interval
    method A against method B              n seeds run with both       paired_difference

All are closed forms, so the same numbers always give the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

SAME = 1e-12
"""Values that lie no further apart are the same number, rounded differently."""


class Interval(NamedTuple):
    """A mean with its confidence bounds, all in the unit of the values.

    Attributes:
        size: how many runs, or episodes, stand behind it.
        of: of a run's figure that is a mean over its tasks, or stages, over how many; 0 of another one.
    """

    mean: float
    low: float
    high: float
    size: int
    of: int = 0


def wilson(successes: int, episodes: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a success rate: (low, high), each in [0, 1].

        centre = (p + z^2 / 2n) / (1 + z^2 / n),   half width = z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2 / n)

    Unlike p +- z sqrt(p(1-p)/n) it stays inside [0, 1] and keeps a width at p = 0 and p = 1. No episodes at all give (0, 1).
    """
    if not 0 <= successes <= episodes:
        raise ValueError(f"successes must lie in 0..episodes, got {successes} of {episodes}")
    return (0.0, 1.0) if episodes == 0 else _score_bounds(successes / episodes, episodes, confidence)


def combined_rates(weights: Sequence[float], successes: Sequence[int], episodes: Sequence[int], confidence: float = 0.95) -> Interval:
    """Interval of sum w_k p_k over independent success rates.

        what is added        W = sum w_k,  p = sum w_k p_k / W,  n = W^2 / sum (w_k^2 / n_k):  Wilson's bounds of p over n episodes, times W
        what is subtracted   the same over the negative weights
        both                 Newcombe's square-and-add of the two

    One rate gives Wilson's interval, a mean of equally many episodes of each task Wilson's of all of them, a difference of two rates
    Newcombe's. Rates that differ vary less than equal ones of the same mean, so with equally many episodes of each the interval of a mean over
    unlike tasks is too wide rather than too narrow; it may be too narrow where a rate near one half has far fewer episodes than rates near 0 or 1.
    That of a drop between cells that share their episodes is too wide. Rates without episodes are an error.
    """
    if not len(weights) == len(successes) == len(episodes):
        raise ValueError(f"one weight, success count and episode count per rate, got {len(weights)}, {len(successes)}, {len(episodes)}")
    if min(episodes, default=1) < 1:
        raise ValueError("a rate without episodes cannot be combined; leave it out")
    rates = [(weight, won / played, played) for weight, won, played in zip(weights, successes, episodes, strict=True)]
    added = _pooled([rate for rate in rates if rate[0] > 0], confidence)
    taken = _pooled([(-weight, rate, played) for weight, rate, played in rates if weight < 0], confidence)
    mean = added.mean - taken.mean
    below, above = math.hypot(added.mean - added.low, taken.high - taken.mean), math.hypot(added.high - added.mean, taken.mean - taken.low)
    return Interval(mean, mean - below, mean + above, sum(episodes))


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Student-t interval of the mean over independent values, such as one figure of every seed.

        mean +- t(n - 1) s / sqrt(n),   s^2 with n - 1 in the denominator

    Values that are NaN were not measured and are left out. One value has no interval, and neither have values that are all the same (two
    seeds at 100 % do not make it certain): the bounds are NaN. No values at all: all NaN.
    """
    _check_confidence(confidence)
    kept = np.asarray(values, dtype=float).ravel()
    kept = kept[~np.isnan(kept)]
    count = len(kept)
    if count < 2 or float(np.ptp(kept)) < SAME:
        return Interval(float(kept.mean()) if count else math.nan, math.nan, math.nan, count)
    half_width = float(stdtrit(count - 1, (1 + confidence) / 2) * kept.std(ddof=1) / math.sqrt(count))
    mean = float(kept.mean())
    return Interval(mean, mean - half_width, mean + half_width, count)


def paired_difference(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Interval:
    """Student-t interval of first - second where entry k of both comes from the same seed.

    Two methods with one seed share data order, noise and evaluation episodes, so the pairs cancel what they have in common.
    Pairs with a NaN are left out.
    """
    if len(first) != len(second):
        raise ValueError(f"pairs need equally many values, got {len(first)} and {len(second)}")
    return mean_interval(np.asarray(first, dtype=float) - np.asarray(second, dtype=float), confidence)


def _pooled(rates: Sequence[tuple[float, float, int]], confidence: float) -> Interval:
    """Sum of w_k p_k over (w_k > 0, p_k, n_k), bounded as one rate of as many episodes as give it the same variance; 0 of none."""
    weight = sum(share for share, _, _ in rates)
    if not weight:
        return Interval(0.0, 0.0, 0.0, 0)
    rate = sum(share * own for share, own, _ in rates) / weight
    episodes = weight**2 / sum(share**2 / played for share, _, played in rates)
    low, high = _score_bounds(rate, episodes, confidence)
    return Interval(weight * rate, weight * low, weight * high, 0)


def _score_bounds(rate: float, episodes: float, confidence: float) -> tuple[float, float]:
    """Wilson's bounds of a rate over a number of episodes > 0 that need not be whole."""
    z2 = _normal_quantile(confidence) ** 2
    centre = rate + z2 / (2 * episodes)
    half_width = math.sqrt(z2 * (max(0.0, rate * (1 - rate)) / episodes + z2 / (4 * episodes**2)))
    shrink = 1 + z2 / episodes
    low = 0.0 if rate <= 0 else (centre - half_width) / shrink
    high = 1.0 if rate >= 1 else (centre + half_width) / shrink
    return max(0.0, low), min(1.0, high)


def _normal_quantile(confidence: float) -> float:
    _check_confidence(confidence)
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence}")
