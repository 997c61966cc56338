"""Where things are relative to each other, at the length scales at which control happens.

A hand that must close on a peg to the centimetre is, in an observation scaled by the size of the table, a difference of two
numbers in its second decimal; a small network learns such differences late. So every pair of positions that the task
declares is shown as a difference too, squashed at each of a few length scales s:

    tanh((p_i - p_j) / s)        s = 5 cm: on which side, how far to go       s = 1 cm: there or not

Worked example: a hand at 0.60 m and a peg at 0.57 m give tanh(0.6) = 0.54 at 5 cm and tanh(3) = 0.995 at 1 cm.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

POSITION_SIZE = 3


def relative_positions(observations: Tensor, starts: Sequence[int], scales_m: Sequence[float]) -> Tensor:
    """(..., Do) observations in metres -> (..., F) in [-1, 1], F = `relative_size(starts, scales_m)`; `starts` are where the positions begin."""
    places = [observations[..., start : start + POSITION_SIZE] for start in starts]
    apart = torch.cat([first - second for first, second in combinations(places, 2)], dim=-1)
    return torch.cat([torch.tanh(apart / scale) for scale in scales_m], dim=-1)


def relative_size(starts: Sequence[int], scales_m: Sequence[float]) -> int:
    """Numbers that `relative_positions` makes of one observation."""
    pairs = len(starts) * (len(starts) - 1) // 2
    return POSITION_SIZE * pairs * len(scales_m)
