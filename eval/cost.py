"""Where the time of a run went, from the seconds per phase in its cost.json.

    evaluate/simulate 68, evaluate/sample 10, evaluate 0.2, update 485      ->      update 485
                                                                                    evaluate 78.2  (simulate 68, sample 10)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class PhaseCost(NamedTuple):
    """Seconds of a phase, those of its named parts included."""

    phase: str
    seconds: float
    parts: dict[str, float]


def by_phase(seconds: Mapping[str, float]) -> list[PhaseCost]:
    """One entry per phase, the longest first; together they have all the seconds."""
    spent: dict[str, dict[str, float]] = {}
    for name, value in seconds.items():
        phase, _, part = name.partition("/")
        spent.setdefault(phase, {})[part] = float(value)
    costs = [PhaseCost(phase, sum(own.values()), {part: value for part, value in own.items() if part}) for phase, own in spent.items()]
    return sorted(costs, key=lambda cost: -cost.seconds)
