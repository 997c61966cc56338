"""Data-free replay: windows from the trajectory generator, labelled with actions by the frozen teacher.

At the end of a stage the generator learns the stage's windows and makes a pool of windows for the task, which the
policy that has just learned the task labels. Two rules for the older tasks:

    freshest    a task's pool is made once, by the generator and the teacher that have just learned it, and stays;
                the generator moves on to the next task
    redrawn     the generator learns a new task beside what it generates of the old ones, and every pool is made
                again at every stage, by the newest generator and teacher

Redrawn pools are copies of copies; a freshest pool never drifts. Neither keeps an observation or an action of a past task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from reconverge.envs.errors import DamagedFile
from reconverge.envs.seeding import Word
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.matrix_products import large_products
from reconverge.policy.random_streams import RandomStreams, torch_stream
from reconverge.policy.windows import WindowBatch, WindowTable
from reconverge.replay.config import ReplayConfig
from reconverge.replay.source import KeptItem, PooledSource, WindowPools

LABELLED_AT_ONCE = 4096  # windows per pass through the teacher's sampler; bounds the memory


class ObservationGenerator(Protocol):
    """What makes the observations, which the teacher then labels: the trajectory generator, where there are any."""

    def learn(
        self,
        task: int,
        observations: Tensor,
        times: Tensor,
        earlier: Sequence[tuple[int, Tensor, Tensor]],
        streams: RandomStreams,
        tick: Callable[[int], None],
    ) -> None: ...

    def generate(self, task: int, count: int, *words: Word) -> tuple[Tensor, Tensor]: ...
    @property
    def bytes(self) -> int: ...
    def arrays(self) -> dict[str, np.ndarray]: ...
    def arrays_knowing(self, tasks: int) -> dict[str, np.ndarray]: ...
    def load_arrays(self, arrays: dict[str, np.ndarray]) -> None: ...


class GeneratedWindows(PooledSource):
    """The `generator` replay source."""

    def __init__(self, config: ReplayConfig, generator: ObservationGenerator) -> None:
        super().__init__(config)
        self.generator = generator

    def learn(self, task: int, windows: WindowTable, streams: RandomStreams, tick: Callable[[int], None]) -> None:
        earlier = [(each, self.pools[each].all().observations, self.pools[each].times) for each in self.redrawn(task)]
        self.generator.learn(task, windows.all().observations, windows.times, earlier, streams, tick)

    def refill(self, task: int, windows: WindowTable, teacher: DiffusionPolicy, streams: RandomStreams) -> None:
        self.pools.put({each: self._make_pool(each, teacher, streams) for each in [*self.redrawn(task), task]})

    @large_products()
    def _make_pool(self, task: int, teacher: DiffusionPolicy, streams: RandomStreams) -> WindowTable:
        count = self.config.windows_per_task
        observations, times = self.generator.generate(task, count, streams.seed, streams.stage)
        labels = torch.full((count,), task, device=observations.device)
        teacher = teacher.acting_with(temperature=self.config.label_temperature)  # not its own: rehearsal may need more than its likeliest actions
        noise = [torch_stream("label", streams.seed, streams.stage, task, window) for window in range(count)]
        parts = [slice(start, start + LABELLED_AT_ONCE) for start in range(0, count, LABELLED_AT_ONCE)]
        actions = torch.cat([teacher.sample_chunk(observations[part], labels[part], noise[part]) for part in parts])
        return WindowTable(WindowBatch(observations, actions, labels), times)

    def ledger(self) -> list[KeptItem]:
        return [
            KeptItem("trajectory generator", self.generator.bytes, past_task_data=False),
            KeptItem("generated windows", self.pools.bytes, past_task_data=False),
        ]

    def arrays(self) -> dict[str, np.ndarray]:
        return self._with_pools(self.generator.arrays())

    def arrays_knowing(self, tasks: int) -> dict[str, np.ndarray]:
        return self._with_pools(self.generator.arrays_knowing(tasks))

    def _with_pools(self, generator: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        weights = {f"generator.{name}": array for name, array in generator.items()}
        return weights | {f"pool.{name}": array for name, array in self.pools.arrays().items()}

    def load_arrays(self, arrays: dict[str, np.ndarray], policy: DiffusionPolicy) -> None:
        parts: dict[str, dict[str, np.ndarray]] = {"generator": {}, "pool": {}}
        for name, array in arrays.items():
            part, _, key = name.partition(".")
            if part not in parts:
                raise DamagedFile(f"source.safetensors holds '{name[:80]}', which is no part of a generator; go back to an earlier checkpoint")
            parts[part][key] = array
        pools = WindowPools.of(parts["pool"], policy)
        self.generator.load_arrays(parts["generator"])
        self.pools = pools
