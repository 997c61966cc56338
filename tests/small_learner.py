"""A small learner, what it trains on, and sources of replayed windows that need no simulator."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from typing import Literal

import torch
from small_policy import random_windows, small_policy

from reconverge.policy.config import TrainConfig, TrustRegionConfig
from reconverge.policy.hooks import Method
from reconverge.policy.learner import Learner
from reconverge.policy.windows import WindowBatch

SMALL = TrainConfig(updates=5, batch_size=16, trust_region=TrustRegionConfig(draws=32))
SIZE = small_policy().parameter_count


class Source:
    """Windows of task 0, seen or not."""

    tasks = (0,)

    def draw(self, count: int, generator: torch.Generator, without: Collection[int] = ()) -> WindowBatch:
        return random_windows(task=0, seed=9).draw(count, generator)


class Asked:
    """Windows of the first of some tasks that is not left out; it keeps what it was asked for, (count, tasks left out)."""

    def __init__(self, tasks: Collection[int] = (0,)) -> None:
        self.tasks = tasks
        self.asked: list[tuple[int, set[int]]] = []

    def draw(self, count: int, generator: torch.Generator, without: Collection[int] = ()) -> WindowBatch | None:
        self.asked.append((count, set(without)))
        left = [task for task in self.tasks if task not in without]
        return random_windows(task=left[0], seed=9).draw(count, generator) if left else None


class ByTask:
    """Windows of some tasks, each of its own."""

    def __init__(self, tasks: Collection[int] = (0, 1)) -> None:
        self.tasks = tasks

    def draw(self, count: int, generator: torch.Generator, without: Collection[int] = ()) -> WindowBatch:
        left = [task for task in self.tasks if task not in without]
        share = math.ceil(count / len(left))
        return WindowBatch.concatenate([random_windows(task=task, seed=task).draw(share, generator) for task in left])[:count]


def learner_of(method: Method, config: TrainConfig = SMALL, seed: int = 0) -> Learner:
    return Learner(small_policy(seed=seed), method, config, seed)


def train(learner: Learner, stages: int = 2, updates: int = 5) -> Learner:
    for stage in range(1, stages + 1):
        learner.begin_stage(stage, random_windows(task=stage - 1, seed=stage), updates)
        for _ in range(updates):
            learner.update()
        learner.end_stage()
    return learner


def region(form: Literal["constraint", "functional"], radius: float = TrustRegionConfig.radius) -> TrainConfig:
    return replace(SMALL, trust_region=replace(SMALL.trust_region, form=form, radius=radius))
