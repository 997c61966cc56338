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


class Interval(NamedTuple):
    """A mean with its confidence bounds, all in the unit of the values; `size` values went into it."""

    mean: float
    low: float
    high: float
    size: int


def wilson(successes: int, episodes: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a success rate: (low, high), each in [0, 1].

        centre = (p + z^2 / 2n) / (1 + z^2 / n),   half width = z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2 / n)

    Unlike p +- z sqrt(p(1-p)/n) it stays inside [0, 1] and keeps a width at p = 0 and p = 1. No episodes at all give (0, 1).
    """
    if not 0 <= successes <= episodes:
        raise ValueError(f"successes must lie in 0..episodes, got {successes} of {episodes}")
    if episodes == 0:
        return 0.0, 1.0
    z2, rate = _normal_quantile(confidence) ** 2, successes / episodes
    centre = rate + z2 / (2 * episodes)
    half_width = math.sqrt(z2 * (rate * (1 - rate) / episodes + z2 / (4 * episodes**2)))
    shrink = 1 + z2 / episodes
    low = 0.0 if successes == 0 else (centre - half_width) / shrink
    high = 1.0 if successes == episodes else (centre + half_width) / shrink
    return max(0.0, low), min(1.0, high)


def combined_rates(weights: Sequence[float], successes: Sequence[int], episodes: Sequence[int], confidence: float = 0.95) -> Interval:
    """Interval of sum w_k p_k over independent success rates, from their Wilson bounds (Newcombe's square-and-add).

        low = sum w p - sqrt(sum d^2),   d_k = w_k (p_k - l_k) where w_k > 0, w_k (p_k - u_k) where w_k < 0;   high likewise

    It carries a mean over tasks or a drop between two stages from the episodes to the headline. Cells that share their episodes
    are positively correlated, which makes it too wide for a drop rather than too narrow. Rates without episodes are an error.
    """
    if not len(weights) == len(successes) == len(episodes):
        raise ValueError(f"one weight, success count and episode count per rate, got {len(weights)}, {len(successes)}, {len(episodes)}")
    if min(episodes, default=1) < 1:
        raise ValueError("a rate without episodes cannot be combined; leave it out")
    below = above = mean = 0.0
    for weight, won, played in zip(weights, successes, episodes, strict=True):
        rate, (low, high) = won / played, wilson(won, played, confidence)
        towards, away = (low, high) if weight > 0 else (high, low)
        mean += weight * rate
        below += (weight * (rate - towards)) ** 2
        above += (weight * (away - rate)) ** 2
    return Interval(mean, mean - math.sqrt(below), mean + math.sqrt(above), sum(episodes))


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Student-t interval of the mean over independent values, such as one figure of every seed.

        mean +- t(n - 1) s / sqrt(n),   s^2 with n - 1 in the denominator

    Values that are NaN were not measured and are left out. One value has no interval: its bounds are NaN. None at all: all NaN.
    """
    _check_confidence(confidence)
    kept = np.asarray(values, dtype=float).ravel()
    kept = kept[~np.isnan(kept)]
    count = len(kept)
    if count < 2:
        return Interval(float(kept[0]) if count else math.nan, math.nan, math.nan, count)
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


def _normal_quantile(confidence: float) -> float:
    _check_confidence(confidence)
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence}")
