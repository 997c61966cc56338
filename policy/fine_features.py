"""What an observation says in its second decimal, shown to the network at the scale at which control happens.

A hand that must close on a peg to the centimetre is, in an observation scaled by the size of the table, a difference of two
numbers in their second decimal, and a gripper that holds something is one that closed a little less than it could. A small network
learns such things late. From what a task declares in its layout, three kinds of numbers are added beside the raw ones:

    apart      tanh((p_i - p_j) / s), s = 5 cm and 1 cm, for every pair of positions: on which side, how far to go; there or not
    motion     tanh((frame - previous frame) / 0.01): which way things move
    opening    sin and cos of (1, 2, 4, 8) pi g for every opening g in [0, 1]: how far a gripper is closed, finely

Worked example: a hand at 0.60 m and a peg at 0.57 m give tanh(0.6) = 0.54 at 5 cm and tanh(3) = 0.995 at 1 cm.
"""

from __future__ import annotations

import math
from itertools import combinations

import torch
from torch import Tensor

from reconverge.envs.task import ObservationLayout

APART_SCALES_M = (0.05, 0.01)
MOTION_SCALE = 0.01  # in the observation's units, per control step
OPENING_FREQUENCIES = (1, 2, 4, 8)
POSITION_SIZE = 3


def fine_features(observations: Tensor, layout: ObservationLayout) -> Tensor:
    """(..., Do) observations in the task's units -> (..., F) in [-1, 1], F = `fine_size(layout)`."""
    parts = []
    places = [observations[..., start : start + POSITION_SIZE] for start in layout.positions]
    for first, second in combinations(places, 2):
        parts += [torch.tanh((first - second) / scale) for scale in APART_SCALES_M]
    if layout.previous:
        parts.append(torch.tanh((observations[..., slice(*layout.frame)] - observations[..., slice(*layout.previous)]) / MOTION_SCALE))
    for entry in layout.openings:
        angles = math.pi * observations[..., entry : entry + 1] * observations.new_tensor(OPENING_FREQUENCIES)
        parts += [angles.sin(), angles.cos()]
    return torch.cat(parts, dim=-1) if parts else observations[..., :0]


def fine_size(layout: ObservationLayout) -> int:
    """Numbers that `fine_features` adds to one observation."""
    pairs = math.comb(len(layout.positions), 2)
    moving = layout.frame[1] - layout.frame[0] if layout.previous else 0
    return pairs * POSITION_SIZE * len(APART_SCALES_M) + moving + 2 * len(OPENING_FREQUENCIES) * len(layout.openings)
