"""AdamW on the flat parameter vector, with a learning rate that is a function of the update: it rises and falls within a stage."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from reconverge.envs.errors import DamagedFile
from reconverge.policy.config import OptimizerConfig
from reconverge.policy.flat_parameters import FlatParameters
from reconverge.policy.saved_arrays import take

MOMENTS = ("exp_avg", "exp_avg_sq")


class SecondMoment(NamedTuple):
    """What AdamW carries over a switch: the average square (P,) of the gradients, and of how many."""

    average: Tensor
    steps: int

    def arrays(self) -> dict[str, np.ndarray]:
        return {"exp_avg_sq": self.average.cpu().numpy(), "steps": np.array([self.steps], np.float64)}

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray], like: Tensor, file: str) -> SecondMoment:
        """Back from `arrays`, as `like` (P,) is. Raises DamagedFile, which names the `file`, unless they are a second moment of that size."""
        average = take(arrays, "exp_avg_sq", tuple(like.shape), file).to(like)
        return cls(average, int(take(arrays, "steps", (1,), file).item()))


class StageOptimizer:
    """The optimizer of one stage of `updates` updates; the gradient is read from `parameters.gradient`.

    It is fresh at its start, but for the second moment where one is `carried` over from the stage before. Then also the count of steps goes
    on: by it AdamW corrects averages that began at zero, which the carried one did not. The first moment does, and is no longer corrected:
    under a steady gradient g and a carried average v its k-th step is (1 - 0.9^k) g / sqrt(v) of the learning rate. A weight that has never had
    a gradient, such as what tells a task that is new, has no average of its own and is given the mean of all.

    Attributes:
        done: updates so far.
    """

    def __init__(self, parameters: FlatParameters, config: OptimizerConfig, updates: int, carried: SecondMoment | None = None) -> None:
        self.config, self.updates, self.done = config, updates, 0
        self._theta = torch.nn.Parameter(parameters.values)
        self._theta.grad = parameters.gradient
        self._steps_before = 0 if carried is None else carried.steps
        self._adamw = torch.optim.AdamW([self._theta], lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
        if carried is not None:
            known = torch.where(carried.average > 0, carried.average, carried.average.mean())
            self._set_state(torch.zeros_like(known), known)

    @property
    def learning_rate(self) -> float:
        """Of the next update."""
        if self.config.schedule == "constant":
            return self.config.learning_rate
        return self.config.learning_rate * one_cycle(self.done, self.updates, self.config.warmup_fraction)

    def step(self, finite: Tensor | None = None) -> None:
        """One update. Where `finite`, () bool on the parameters' device, is false, nothing changes; it is not waited for."""
        self._adamw.param_groups[0]["lr"] = self.learning_rate
        if finite is not None:
            self._adamw.found_inf = (~finite).float()  # type: ignore[attr-defined]  # read by the fused kernel, as a GradScaler sets it
        self._adamw.step()
        self.done += 1

    def arrays(self) -> dict[str, np.ndarray]:
        """Both moments (P,) and the number of updates, from which `load_arrays` goes on exactly."""
        state = self._adamw.state[self._theta]
        moments = {name: state[name].cpu().numpy() for name in MOMENTS if name in state}
        return {**moments, "done": np.array([self.done])}

    def load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        done = arrays.get("done", np.empty(0))
        if done.shape != (1,) or done.dtype.kind != "i" or not 0 <= done[0] <= self.updates:
            raise DamagedFile(f"underway.safetensors counts {done.tolist()} updates of {self.updates}; delete the folder and redo the stage")
        self.done = int(done[0])
        if self.done:
            size = tuple(self._theta.shape)
            self._set_state(*(take(arrays, name, size, "underway.safetensors").to(self._theta.device) for name in MOMENTS))

    def second_moment(self) -> SecondMoment:
        """After at least one step: for the next stage to begin with."""
        return SecondMoment(self._adamw.state[self._theta]["exp_avg_sq"], self._steps_before + self.done)

    def _set_state(self, first: Tensor, second: Tensor) -> None:
        step = torch.tensor(float(self._steps_before + self.done), device=self._theta.device)
        self._adamw.state[self._theta] = {"step": step, **dict(zip(MOMENTS, (first, second), strict=True))}


def one_cycle(update: int, updates: int, warmup_fraction: float) -> float:
    """Share of the peak learning rate before 0-based `update`: half a cosine up from 1/25, half a cosine down to 0."""
    warmup = warmup_fraction * updates
    if update < warmup:
        return 1 - (1 - 1 / 25) * (1 + math.cos(math.pi * update / warmup)) / 2
    return (1 + math.cos(math.pi * min(1.0, (update - warmup) / max(updates - warmup, 1)))) / 2
