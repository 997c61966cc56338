"""Stored replay: real windows of every earlier task are kept. The oracle against which generated replay is measured."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.random_streams import RandomStreams
from reconverge.policy.windows import WindowTable
from reconverge.replay.config import ReplayConfig
from reconverge.replay.source import LedgerItem, PooledSource


class StoredWindows(PooledSource):
    """The `stored` replay source: up to `windows_per_task` of each task's windows, drawn without replacement."""

    def __init__(self, config: ReplayConfig, device: torch.device) -> None:
        super().__init__()
        self.config, self.device = config, device

    def learn(self, task: int, windows: WindowTable, streams: RandomStreams, tick: Callable[[int], None]) -> None:
        """Nothing to learn: windows are kept as they are."""

    def refill(self, task: int, windows: WindowTable, teacher: DiffusionPolicy, streams: RandomStreams) -> None:
        """Keep some of the windows in random order, so that a smaller share of them is a prefix."""
        kept = torch.randperm(len(windows), generator=streams.generator("stored windows"))[: self.config.windows_per_task]
        self.pools[task] = windows.gather(kept), windows.times[kept.to(windows.times.device)]
        if self.config.stored_megabytes > 0:
            self._shrink(self.config.stored_megabytes * 1e6 / len(self.pools.pools))

    def _shrink(self, bytes_per_task: float) -> None:
        for task, pool in list(self.pools.pools.items()):
            share = max(1, int(bytes_per_task / (self.pools.bytes_of(task) / len(pool))))
            self.pools[task] = pool[:share].clone(), self.pools.times[task][:share].clone()

    def ledger(self) -> list[LedgerItem]:
        return [LedgerItem("stored windows", self.pools.bytes, past_task_data=bool(self.pools.pools))]

    def arrays(self) -> dict[str, np.ndarray]:
        return self.pools.arrays()

    def load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        self.pools.load_arrays(arrays, self.device)
