"""Windows: what the policy sees and does around one step k of an episode.

    To = 2, H = 4, past_actions = 0, an episode of 6 observations o0..o5 and 5 actions a0..a4

      step        0   1   2   3   4   5
      k = 0   [o0  o0]                       the first observation is repeated before the start
               a0  a1  a2  a3
      k = 3           [o2  o3]
                           a3  a4  a4  a4    the last action is repeated after the end

With past_actions = 1 the actions of k = 3 start one step earlier: a2 a3 a4 a4.

All windows of a task are made at once and lie in one tensor on the device; a batch is a gather by index, so an update
needs no data loader. An observation is there To times and an action H times: the windows of `cw10-paper` (To = 6, H = 8) take 6.2 times the
memory of its episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reconverge.envs.episodes import Episode


@dataclass(frozen=True)
class WindowBatch:
    """observations (B, To, Do) in the task's units; actions (B, H, Da) in [-1, 1]; task (B,) index in the curriculum."""

    observations: Tensor
    actions: Tensor
    task: Tensor

    def __len__(self) -> int:
        return len(self.task)

    def __getitem__(self, rows: slice | Tensor) -> WindowBatch:
        return WindowBatch(self.observations[rows], self.actions[rows], self.task[rows])

    def to(self, device: torch.device) -> WindowBatch:
        return WindowBatch(self.observations.to(device), self.actions.to(device), self.task.to(device))

    @staticmethod
    def concatenate(batches: Sequence[WindowBatch]) -> WindowBatch:
        return WindowBatch(
            torch.cat([batch.observations for batch in batches]),
            torch.cat([batch.actions for batch in batches]),
            torch.cat([batch.task for batch in batches]),
        )


class WindowTable:
    """Every window of some episodes, W of them. Tables are not changed, so they may share memory.

    Attributes:
        times: (W,) in [0, 1], the step k of each window as a share of the task's horizon.
    """

    def __init__(self, windows: WindowBatch, times: Tensor) -> None:
        self._windows, self.times = windows, times

    @classmethod
    def from_episodes(
        cls, episodes: Sequence[Episode], task: int, *, window: int, horizon: int, past_actions: int, episode_horizon: int
    ) -> WindowTable:
        """All windows of the episodes, one per action step; `episode_horizon` is the task's, for the times."""
        parts = [_episode_windows(episode, window, horizon, past_actions) for episode in episodes]
        observations, actions, steps = (torch.cat(column) for column in zip(*parts, strict=True))
        labels = torch.full((len(steps),), task, dtype=torch.int64)
        return cls(WindowBatch(observations, actions, labels), steps.float() / episode_horizon)

    @classmethod
    def union(cls, tables: Sequence[WindowTable]) -> WindowTable:
        """The windows (W, ...) of all tables, which must have one shape and lie on one device, one table after the other; of one table, itself."""
        if len(tables) == 1:
            return tables[0]
        return cls(WindowBatch.concatenate([table.all() for table in tables]), torch.cat([table.times for table in tables]))

    def __len__(self) -> int:
        return len(self._windows)

    def all(self) -> WindowBatch:
        """All W windows, in order; not a copy."""
        return self._windows

    def gather(self, index: Tensor) -> WindowBatch:
        """The windows at `index` (B,)."""
        return self._windows[index.to(self._windows.task.device)]

    def subset(self, index: Tensor) -> WindowTable:
        """A table of the windows at `index` (B,) alone, in that order; a copy."""
        return WindowTable(self.gather(index), self.times[index.to(self.times.device)])

    def part(self, rows: slice) -> WindowTable:
        """A table of consecutive windows; not a copy."""
        return WindowTable(self._windows[rows], self.times[rows])

    def draw(self, count: int, generator: torch.Generator) -> WindowBatch:
        """`count` windows drawn uniformly with replacement."""
        return self.gather(torch.randint(len(self), (count,), generator=generator))

    def to(self, device: torch.device) -> WindowTable:
        return WindowTable(self._windows.to(device), self.times.to(device))


def _episode_windows(episode: Episode, window: int, horizon: int, past_actions: int) -> tuple[Tensor, Tensor, Tensor]:
    observations, actions = torch.from_numpy(episode.observations).float(), torch.from_numpy(episode.actions).float()
    steps = torch.arange(len(actions))
    seen = (steps[:, None] + torch.arange(1 - window, 1)).clamp_min(0)
    done = (steps[:, None] + torch.arange(-past_actions, horizon - past_actions)).clamp(0, len(actions) - 1)
    return observations[seen], actions[done], steps
