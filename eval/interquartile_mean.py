"""The interquartile mean over seeds x tasks with a stratified bootstrap interval (Agarwal et al. 2021, arXiv 2108.13264).

    rates (N seeds, T tasks)   0.0   0.5   0.6   0.7   0.7   0.8   0.9   1.0       all N T of them, in order
                                |_ _ _|     |_________ mean _________|     |_ _|   a quarter is left out at either end

    interquartile mean   (0.6 + 0.7 + 0.7 + 0.8) / 4 = 0.7         mean   0.65

One task that failed altogether does not move it, as it moves a mean, and it uses half of the data, where a median uses one value
or two. For the interval the seeds are drawn anew, with replacement and for each task by itself (the tasks are the strata: they are given, the
seeds are a sample), and the figure is taken of every such table. The draws are a pure function of how many seeds and tasks there are.
"""

from __future__ import annotations

import math

import numpy as np

from reconverge.envs.seeding import numpy_stream
from reconverge.eval.intervals import Interval

CUT = 0.25
"""Share of the values that is left out at either end."""
RESAMPLES = 10_000


def interquartile_mean(rates: np.ndarray) -> float:
    """Mean of the middle half of all values that were measured, whatever the shape; NaN of none.

    Of n values the floor(n / 4) lowest and highest are left out, as `scipy.stats.trim_mean` does.
    """
    values = np.asarray(rates, dtype=float)
    measured = values[~np.isnan(values)]
    return float(_of_rows(measured[None])[0]) if len(measured) else math.nan


def bootstrap_interval(rates: np.ndarray, confidence: float = 0.95, resamples: int = RESAMPLES) -> Interval:
    """The interquartile mean of rates (N seeds, T tasks) with the percentiles of its stratified bootstrap.

    NaN = not measured, left out of its task. Bounds are NaN where no task has two seeds: a single one drawn again is itself.
    """
    table = np.asarray(rates, dtype=float)
    if table.ndim != 2:
        raise ValueError(f"rates have the axes (seed, task), got shape {table.shape}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence}")
    strata = [column[~np.isnan(column)] for column in table.T]
    size = sum(map(len, strata))
    if max(map(len, strata), default=0) < 2:
        return Interval(interquartile_mean(table), math.nan, math.nan, size)
    random = numpy_stream("stratified bootstrap")
    drawn = np.concatenate([stratum[random.integers(len(stratum), size=(resamples, len(stratum)))] for stratum in strata if len(stratum)], axis=1)
    low, high = np.quantile(_of_rows(drawn), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(interquartile_mean(table), float(low), float(high), size)


def _of_rows(values: np.ndarray) -> np.ndarray:
    """(R, n) -> (R,): of each row the mean without its floor(n / 4) lowest and highest."""
    count = values.shape[1]
    cut = int(CUT * count)
    return np.asarray(np.sort(values, axis=1)[:, cut : count - cut].mean(axis=1))
