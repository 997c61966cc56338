"""A curve in one row of a terminal, oldest on the left.

    values          8  8  4  4  2  2  1  1        in four characters, on a logarithmic scale
    means of pairs  8     4     2     1
    shown           █     ▆     ▃     ▁           the lowest and the highest are the first and the last level
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

BLOCKS, LETTERS = "▁▂▃▄▅▆▇█", "_.-=+*#"
"""Levels from low to high; the second for a terminal that knows few letters."""


def sparkline(values: Iterable[float | None], width: int, levels: str = BLOCKS) -> str:
    """At most `width` characters for positive values, averaged where there are more; what is not positive and finite is left out."""
    logs = [math.log(value) for value in values if value is not None and 0 < value < math.inf]
    if not logs or width < 1:
        return ""
    means = np.array([part.mean() for part in np.array_split(np.array(logs), min(width, len(logs)))])
    low, span = means.min(), means.max() - means.min()
    shares = (means - low) / span if span > 0 else np.full_like(means, 0.5)
    return "".join(levels[round(share * (len(levels) - 1))] for share in shares.tolist())
