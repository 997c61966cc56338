"""Where windows of earlier tasks come from.

A source is asked for windows during a stage (`draw`) and, at a stage's end, learns what the stage was about (`learn`) and fills
the pools that the next stages draw from (`refill`).
`ledger` states what it keeps, in bytes, and whether any of it is data of a past task.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import numpy as np
import torch

from reconverge.envs.errors import DamagedFile
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.methods.replay import WindowSource
from reconverge.policy.random_streams import RandomStreams
from reconverge.policy.saved_arrays import take
from reconverge.policy.windows import WindowBatch, WindowTable
from reconverge.replay.config import ReplayConfig

POOL_PARTS = ("observations", "actions", "times")


@dataclass(frozen=True)
class KeptItem:
    """Something kept after a stage. `past_task_data` is true for real observations or actions of an earlier task."""

    item: str
    bytes: int
    past_task_data: bool


class ReplaySource(WindowSource, Protocol):
    """See the module's first lines."""

    def learn(self, task: int, windows: WindowTable, streams: RandomStreams, tick: Callable[[int], None]) -> None:
        """Take in the windows of the stage that ends, which are dropped afterwards; `tick` counts updates."""

    def refill(self, task: int, windows: WindowTable, teacher: DiffusionPolicy, streams: RandomStreams) -> None:
        """Fill the pool of the task, with the policy that has learned it as its teacher."""

    def ledger(self) -> list[KeptItem]: ...

    def arrays(self) -> dict[str, np.ndarray]: ...

    def arrays_knowing(self, tasks: int) -> dict[str, np.ndarray]:
        """`arrays` of a source for so many `tasks`, which begin with this one's, and that has learned what this one has."""

    def load_arrays(self, arrays: dict[str, np.ndarray], policy: DiffusionPolicy) -> None:
        """Take what `arrays` gave for the tasks and windows of this `policy`. Raises DamagedFile for anything else."""


class WindowPools(Mapping[int, WindowTable]):
    """One pool of windows per earlier task, by its index, drawn from in equal shares however large each is. All lie in one table."""

    def __init__(self) -> None:
        self._pools: dict[int, WindowTable] = {}

    @property
    def tasks(self) -> Collection[int]:
        return self.keys()

    def __getitem__(self, task: int) -> WindowTable:
        return self._pools[task]

    def __iter__(self) -> Iterator[int]:
        return iter(self._pools)

    def __len__(self) -> int:
        return len(self._pools)

    def put(self, pools: Mapping[int, WindowTable]) -> None:
        """Take the pools of these tasks, in place of those that they had."""
        held = {**self._pools, **pools}
        if not held:
            return
        self._all = WindowTable.union(list(held.values()))
        ends = list(accumulate(map(len, held.values())))
        self._pools = {task: self._all.part(slice(end - len(pool), end)) for (task, pool), end in zip(held.items(), ends, strict=True)}

    def draw(self, count: int, generator: torch.Generator, without: Collection[int] = ()) -> WindowBatch | None:
        """`count` windows, each of a task drawn uniformly from those that have a pool and are not in `without`; None where none is left."""
        sizes = torch.tensor([len(pool) for pool in self.values()])
        first = sizes.cumsum(0) - sizes
        allowed = torch.tensor([row for row, task in enumerate(self) if task not in without], dtype=torch.int64)
        if len(allowed) == 0:
            return None
        chosen = allowed[torch.randint(len(allowed), (count,), generator=generator)]
        within = (torch.rand(count, generator=generator) * sizes[chosen]).long()
        return self._all.gather(first[chosen] + within)

    @property
    def bytes(self) -> int:
        return sum(part.nbytes for pool in self.values() for part in _parts(pool).values())

    def arrays(self) -> dict[str, np.ndarray]:
        return {f"{task}.{name}": part.cpu().numpy() for task, pool in self.items() for name, part in _parts(pool).items()}

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray], policy: DiffusionPolicy) -> WindowPools:
        """The pools that `arrays` gave. Raises DamagedFile where they are not windows of the policy's tasks."""
        pools = cls()
        pools.put({task: _pool(arrays, task, policy) for task in sorted({_task_of(name) for name in arrays})})
        return pools


def _parts(pool: WindowTable) -> dict[str, torch.Tensor]:
    """What is kept of a pool; its task is in the name."""
    windows = pool.all()
    return dict(zip(POOL_PARTS, (windows.observations, windows.actions, pool.times), strict=True))


def _task_of(name: str) -> int:
    """The task of an array called `3.times`."""
    task, _, part = name.partition(".")
    if part not in POOL_PARTS or not re.fullmatch(r"\d{1,6}", task, re.ASCII):
        raise DamagedFile(f"source.safetensors holds '{name[:80]}', which is no part of a pool of windows; go back to an earlier checkpoint")
    return int(task)


def _pool(arrays: dict[str, np.ndarray], task: int, policy: DiffusionPolicy) -> WindowTable:
    place, config = "source.safetensors", policy.config
    if task >= len(policy.tasks):
        raise DamagedFile(f"{place} holds windows of task {task}, and the policy knows {len(policy.tasks)} tasks; go back to an earlier checkpoint")
    times = take(arrays, f"{task}.times", (None,), place)
    if len(times) == 0:
        raise DamagedFile(f"{place} holds a pool of task {task} without windows; go back to an earlier checkpoint")
    observations = take(arrays, f"{task}.observations", (len(times), config.window, policy.observation_size), place)
    actions = take(arrays, f"{task}.actions", (len(times), config.horizon, policy.action_size), place)
    return WindowTable(WindowBatch(observations, actions, torch.full((len(times),), task)), times).to(policy.device)


class PooledSource:
    """A source that draws from pools; what fills them is the difference between sources."""

    def __init__(self, config: ReplayConfig) -> None:
        self.config, self.pools = config, WindowPools()

    @property
    def tasks(self) -> Collection[int]:
        return self.pools.tasks

    def draw(self, count: int, generator: torch.Generator, without: Collection[int] = ()) -> WindowBatch | None:
        return self.pools.draw(count, generator, without)

    def redrawn(self, task: int) -> list[int]:
        """The earlier tasks whose pools are made again when `task` has been learned."""
        return [each for each in self.tasks if each != task and self.config.pool == "redrawn"]

    def learn(self, task: int, windows: WindowTable, streams: RandomStreams, tick: Callable[[int], None]) -> None:
        """Nothing to learn: what is kept is windows."""

    def keep_some(self, task: int, windows: WindowTable, generator: torch.Generator) -> None:
        """Make the pool of `task` from up to `windows_per_task` of these windows, in random order, so that a smaller share of them is a prefix."""
        self.pools.put({task: windows.subset(torch.randperm(len(windows), generator=generator)[: self.config.windows_per_task])})

    def arrays(self) -> dict[str, np.ndarray]:
        return self.pools.arrays()

    def arrays_knowing(self, tasks: int) -> dict[str, np.ndarray]:
        """The same: windows are those of one task each."""
        return self.arrays()

    def load_arrays(self, arrays: dict[str, np.ndarray], policy: DiffusionPolicy) -> None:
        self.pools = WindowPools.of(arrays, policy)
