"""Observation scaling, saved inside the policy and never changed after it is made.

A statistic of the data would move whenever a stage brings new data, and with it the meaning of every
weight learned before. So the scale comes from the task's declared range or, where a task declares none,
from the first stage's demonstrations, and stays.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reconverge.envs.task import Task

BOUND = 6.0  # normalised observations are clipped here: far outside the declared range a value says "far", not how far
LEAST_SPREAD = 1e-3  # of a number that moves by less than this, noise would be what the policy sees


class Normalizer(nn.Module):
    """normalised = clip((observation - centre) / scale, -6, 6), for observations (..., Do)."""

    centre: Tensor
    scale: Tensor

    def __init__(self, centre: Tensor, scale: Tensor) -> None:
        super().__init__()
        if not bool((scale > 0).all()):
            raise ValueError(f"scale must be positive everywhere, smallest is {float(scale.min())}")
        self.register_buffer("centre", centre.float())
        self.register_buffer("scale", scale.float())

    @classmethod
    def for_task(cls, task: Task, observations: Tensor | None = None) -> Normalizer:
        """From the task's declared range, else from the first stage's `observations` (M, Do)."""
        if task.observation_centre is not None and task.observation_scale is not None:
            return cls(torch.tensor(task.observation_centre), torch.tensor(task.observation_scale))
        if observations is None:
            raise ValueError(f"task '{task.name}' declares no observation range, so the first stage's observations are needed")
        # What never moves in the first stage may move in a later one: in its own units, rather than a thousand times enlarged and clipped.
        moves = observations.amax(0) > observations.amin(0)  # the deviation of equal numbers is not 0 but rounding
        return cls(observations.mean(0), torch.where(moves, observations.std(0).clamp_min(LEAST_SPREAD), 1.0))

    def forward(self, observations: Tensor) -> Tensor:
        return ((observations - self.centre) / self.scale).clamp(-BOUND, BOUND)
