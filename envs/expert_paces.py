"""Where Meta-World's scripts are hasty: paces at which a script fails more often than it does more slowly.

The script of push-back, say, sets off for the goal as soon as the hand is close to the object, and at its own pace the fingers have not closed
by then: two of three starts succeed, at half the pace nearly all. Demonstrations of both paces side by side teach a policy to set off at either
moment, and it misses the object (docs/results.md). Measured by docs/expert_paces.py, for all 50 tasks, in results/expert_paces.csv.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MARGIN = 0.1
"""A pace is dependable where the script succeeds as often as at its best one, or less often by no more than this."""

DEPENDABLE: Mapping[str, float] = {
    "push-back-v3": 0.5,
}
"""The fastest dependable pace of every task that has a faster one which is not."""


def unhurried(task_name: str, paces: Sequence[float]) -> tuple[float, ...]:
    """The paces at which the script of the task is not hasty, in their order; the slowest where it is at each."""
    limit = DEPENDABLE.get(task_name, max(paces))
    return tuple(pace for pace in paces if pace <= limit) or (min(paces),)


def fastest_dependable(rates: Mapping[float, float]) -> float:
    """Of pace -> success in [0, 1], the fastest pace within `MARGIN` of the best success."""
    return max(pace for pace, rate in rates.items() if rate >= max(rates.values()) - MARGIN)
