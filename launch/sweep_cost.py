"""How long the jobs of a sweep take, judged from those that are done.

    seconds of a job  =  its gradient updates  x  mean seconds per update of done jobs of its method, or else of all methods

Evaluation and replay are in the seconds, so the figure fits jobs that share everything but method, seed and updates.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from reconverge.launch.job import Job


class CostModel:
    """Learns from finished jobs; `seconds` estimates the others."""

    def __init__(self) -> None:
        self._rates: dict[str, list[float]] = defaultdict(list)

    def learn(self, job: Job, seconds: float) -> None:
        """A job took so many seconds."""
        self._rates[job.config.method].append(seconds / job.updates)

    def seconds(self, job: Job, share_left: float = 1.0) -> float | None:
        """Seconds that a job takes, or what is left of it (a share in [0, 1]); None before any job was finished."""
        rates = self._rates.get(job.config.method) or [rate for own in self._rates.values() for rate in own]
        return fmean(rates) * job.updates * share_left if rates else None


def makespan(seconds: Sequence[float], lanes: int, busy: Sequence[float] = ()) -> float:
    """Seconds until jobs of these lengths are done, each taken by the first of `lanes` that is free.

    `busy`: seconds that lanes are occupied still. Two lanes and jobs of 3, 2 and 2 seconds take 4: 3 | 2 2.
    """
    free_at = [*busy, *([0.0] * (lanes - len(busy)))]
    heapq.heapify(free_at)
    for job in seconds:
        heapq.heapreplace(free_at, free_at[0] + job)
    return max(free_at)
