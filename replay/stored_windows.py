"""Stored replay: real windows of every earlier task are kept. The oracle against which generated replay is measured."""

from __future__ import annotations

import torch

from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.random_streams import RandomStreams
from reconverge.policy.windows import WindowTable
from reconverge.replay.source import KeptItem, PooledSource


class StoredWindows(PooledSource):
    """The `stored` replay source: up to `windows_per_task` of each task's windows, drawn without replacement."""

    def refill(self, task: int, windows: WindowTable, teacher: DiffusionPolicy, streams: RandomStreams) -> None:
        self.keep_some(task, windows, streams.generator("stored windows"))
        if self.config.stored_megabytes > 0:
            self._shrink(self.config.stored_megabytes * 1e6 / len(self.pools))

    def _shrink(self, bytes_per_task: float) -> None:
        bytes_of_one = self.pools.bytes / sum(len(pool) for pool in self.pools.values())
        share = torch.arange(max(1, int(bytes_per_task / bytes_of_one)))
        self.pools.put({task: pool.subset(share[: len(pool)]) for task, pool in self.pools.items()})  # copies: parts would keep all alive

    def ledger(self) -> list[KeptItem]:
        return [KeptItem("stored windows", self.pools.bytes, past_task_data=bool(self.pools))]
