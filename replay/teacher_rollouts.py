"""Teacher rollouts: the frozen policy acts in the simulators of earlier tasks, and what it saw and did is rehearsed.

No demonstration is kept, but the earlier tasks' simulators must still be there (the likeliest reading of the "2,500 rollouts" of
arXiv 2602.02417). With `successes_only` every hand-over is a step of self-improvement: what failed is not taught again.

    freshest    a task is acted once, by the policy that has just learned it, and its windows stay
    redrawn     every earlier task is acted again before every stage, by the newest policy
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from reconverge.envs.episodes import Episode, episode_seed
from reconverge.envs.simulators import EpisodeStart
from reconverge.envs.task import Task
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.random_streams import RandomStreams
from reconverge.policy.windows import WindowTable
from reconverge.replay.config import ReplayConfig
from reconverge.replay.source import KeptItem, PooledSource

Act = Callable[[DiffusionPolicy, Sequence[EpisodeStart]], list[Episode]]
"""Runs a policy in the given episodes and returns those whose physics held."""
MakeWindows = Callable[[Sequence[Episode], Task], WindowTable]


class TeacherRollouts(PooledSource):
    """The `teacher-rollouts` replay source."""

    def __init__(self, config: ReplayConfig, tasks: Sequence[Task], hold_steps: int, act: Act, make_windows: MakeWindows) -> None:
        """`tasks` are the policy's, in its order; `hold_steps` are kept after an episode's first success, as in its demonstrations."""
        super().__init__(config)
        self.all_tasks, self.hold_steps, self.act, self.make_windows = tasks, hold_steps, act, make_windows

    def refill(self, task: int, windows: WindowTable, teacher: DiffusionPolicy, streams: RandomStreams) -> None:
        for each in [*self.redrawn(task), task]:
            self._act(each, teacher, streams)

    def _act(self, task: int, teacher: DiffusionPolicy, streams: RandomStreams) -> None:
        name = self.all_tasks[task].name
        seeds = [episode_seed("teacher rollout", streams.seed, streams.stage, name, number) for number in range(self.config.rollouts_per_task)]
        episodes = self.act(teacher, [EpisodeStart(self.all_tasks[task], seed) for seed in seeds])
        if self.config.successes_only:
            episodes = [episode for episode in episodes if episode.success.any()] or episodes
        table = self.make_windows([_until_held(episode, self.hold_steps) for episode in episodes], self.all_tasks[task])
        self.keep_some(task, table.to(teacher.device), streams.generator(f"teacher windows {name}"))

    def ledger(self) -> list[KeptItem]:
        return [KeptItem("teacher's windows from earlier simulators", self.pools.bytes, past_task_data=bool(self.pools))]


def _until_held(episode: Episode, hold_steps: int) -> Episode:
    """The episode up to so many steps after its first success."""
    reached = np.flatnonzero(episode.success)
    stop = min(len(episode.actions), int(reached[0]) + 1 + hold_steps) if len(reached) else len(episode.actions)
    return Episode(episode.task, episode.seed, episode.observations[: stop + 1], episode.actions[:stop], episode.success[:stop])
