"""Rollouts: a policy acts in seeded episodes of one or many tasks, all in lock-step.

    chunk              1                    2
    sample     [n x (H, Da)]        [n' x (H, Da)]         one batch through the sampler, whatever the tasks
    step        Ha steps of n        Ha steps of n'        in the worker processes; finished episodes leave

The episodes of a task are a fixed list for each split (`evaluation_seeds`), the same for every method, stage and worker count, and
the sampler's noise is a pure function of the episode: two policies meet the same situations.

An episode does not depend on its company either. Row b of a matrix product depends on row b alone, but a BLAS (MKL, here)
rounds differently when there are only a few rows, so a batch never has fewer than `SMALLEST_BATCH`: short ones are
filled up with copies of the first row. Evaluating one task again gives the figures that it had among ten.

An episode whose physics break is invalid, and a task that its simulators give up, or of which all episodes are invalid, has failed: neither is
ever a result.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch

from reconverge.envs.episodes import Episode, episode_seed
from reconverge.envs.simulators import EpisodeStart, SimulatorFailure, Simulators, TaskFailure
from reconverge.envs.task import Task
from reconverge.eval.config import Split
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.random_streams import torch_stream

SMALLEST_BATCH = 32
AT_ONCE = 512
"""Episodes in flight together; more are run one group after the other. Bounds the simulators' memory, not the result."""

LARGEST_SEEN = float(np.finfo(np.float32).max)
"""The policy reads observations in float32: what is beyond, or NaN, it cannot act on."""

PURPOSE: dict[Split, str] = {"test": "evaluation", "validation": "validation"}
"""What the episode seeds of a split are drawn for."""

Timer = Callable[[str], AbstractContextManager[object]]


@dataclass(frozen=True)
class EpisodeResult:
    """How one episode ended.

    Attributes:
        success_any: success at any step within the horizon, the headline definition.
        success_final: success at the last step; equal to `success_any` where episodes end at their first success.
        first_success_step: 1-based step of the first success; None = never.
        steps: steps taken.
        invalid: the physics broke down; such an episode counts neither as success nor as failure.
    """

    task: str
    episode_seed: int
    success_any: bool
    success_final: bool
    first_success_step: int | None
    steps: int
    invalid: bool


@dataclass(frozen=True)
class Recording:
    """Physics states (T + 1, S) and success flags (T,) of one episode, from which it can be drawn."""

    states: np.ndarray
    success: np.ndarray


@dataclass(frozen=True)
class Rollouts:
    """Results in the order of the starts, and what was asked for: recordings to be drawn, traces to be learned from.

    `failures` are the tasks that the simulators gave up, or whose physics broke in every episode: none of their episodes is among the rest.
    """

    results: list[EpisodeResult]
    recordings: dict[EpisodeStart, Recording]
    traces: list[Episode]
    failures: list[TaskFailure] = field(default_factory=list)

    def of(self, task: Task) -> list[EpisodeResult]:
        return [result for result in self.results if result.task == task.name]

    def failed(self, task: Task) -> bool:
        return any(failure.task == task.name for failure in self.failures)

    def require_all(self) -> Rollouts:
        """Itself; raises SimulatorFailure if a task failed, for those who cannot go on without it."""
        if self.failures:
            raise SimulatorFailure("; ".join(map(str, self.failures)))
        return self


def evaluation_seeds(task: Task, episodes: int, split: Split = "test") -> list[int]:
    """The first `episodes` episode seeds of a split of the task's; a longer list begins with a shorter one."""
    return [episode_seed(PURPOSE[split], task.name, number) for number in range(episodes)]


def evaluation_starts(tasks: Sequence[Task], episodes: int, split: Split = "test") -> list[EpisodeStart]:
    """The first `episodes` evaluation episodes of every task."""
    return [EpisodeStart(task, seed) for task in tasks for seed in evaluation_seeds(task, episodes, split)]


def planned_steps(starts: Sequence[EpisodeStart]) -> int:
    """Steps of the episodes if none ends early: what `rollout` counts up to."""
    return sum(start.task.horizon for start in starts)


def rollout(
    policy: DiffusionPolicy,
    starts: Sequence[EpisodeStart],
    simulators: Simulators,
    *,
    record: Collection[EpisodeStart] = (),
    trace: bool = False,
    stop_at_success: bool = False,
    tick: Callable[[int], None] = lambda steps: None,
    timer: Timer = lambda name: nullcontext(),
) -> Rollouts:
    """Run every episode of `starts`.

    `record` lists the episodes whose physics states are returned; `trace` returns what was observed and done in the valid ones.
    `tick` counts steps, up to `planned_steps`; `timer("sample")` and `timer("simulate")` are entered around the two halves of the work.
    Raises NotFiniteAction, before a simulator is given one, if the policy makes NaN or infinity of an episode that is valid so far.
    """
    done = Rollouts([], {}, [])
    for first in range(0, len(starts), AT_ONCE):
        planned = starts[first : first + AT_ONCE]
        left = [start for start in planned if not done.failed(start.task)]
        if len(left) < len(planned):
            tick(planned_steps(planned) - planned_steps(left))
        if not left:
            continue
        group = _Group(policy, left, simulators, stop_at_success, timer)
        group.run(record, tick, trace)
        done.results.extend(group.results())
        done.traces.extend(group.traces())
        done.recordings.update(group.recordings() if record else {})
        done.failures.extend(simulators.failures)
    done.failures.extend(_broken(done))
    return _without_failed(done)


class _Group:
    """Episodes in lock-step. Axes: n episodes, Th the longest horizon, To observations of a window.

    success (n, Th), steps (n,), invalid (n,) and active (n,) say how far each episode is, history (n, To, Do) what it has seen.
    """

    def __init__(self, policy: DiffusionPolicy, starts: Sequence[EpisodeStart], simulators: Simulators, stop_at_success: bool, timer: Timer) -> None:
        self.policy, self.starts, self.simulators, self.stop_at_success, self.timer = policy, starts, simulators, stop_at_success, timer
        self.labels = torch.tensor([policy.task_index(start.task) for start in starts])
        self.horizons = np.array([start.task.horizon for start in starts])
        self.planned = self.horizons.copy()
        self.success = np.zeros((len(starts), self.horizons.max()), dtype=bool)
        self.steps = np.zeros(len(starts), dtype=int)
        self.invalid, self.active = np.zeros(len(starts), dtype=bool), np.ones(len(starts), dtype=bool)
        self.seen: list[list[np.ndarray]] = []
        self.done: list[list[np.ndarray]] = []

    def run(self, record: Collection[EpisodeStart], tick: Callable[[int], None], trace: bool) -> None:
        window = self.policy.config.window
        with self.timer("simulate"):
            first = self.simulators.start(self.starts, record, self.stop_at_success)
        if trace:
            self.seen, self.done = [[observation[None]] for observation in first], [[] for _ in self.starts]
        self.history = np.repeat(first[:, None], window, axis=1)
        self.invalid = ~_readable(first)
        self.active = ~self.invalid
        self._leave_failed_out()
        if not self.active.all():
            tick(self._progressed(np.arange(len(self.starts)), 0))
        chunk = 0
        while self.active.any():
            rows = np.flatnonzero(self.active)
            with self.timer("sample"):
                actions = self._sample(rows, chunk)
            with self.timer("simulate"):
                self._step(rows, actions)
                self._leave_failed_out()
            tick(self._progressed(rows, actions.shape[1]))
            chunk += 1

    def _sample(self, rows: np.ndarray, chunk: int) -> np.ndarray:
        """The next executed actions of the episodes `rows` (m,): (m, Ha, Da) in [-1, 1]."""
        filled = np.concatenate([rows, np.repeat(rows[:1], max(0, SMALLEST_BATCH - len(rows)))])
        streams = [torch_stream("evaluation noise", self.starts[row].task.name, self.starts[row].seed, chunk) for row in filled]
        seen = torch.from_numpy(self.history[filled]).float().to(self.policy.device)
        predicted = self.policy.sample_chunk(seen, self.labels[filled].to(self.policy.device), streams)
        return self.policy.executed(predicted)[: len(rows)].cpu().numpy().astype(np.float64)

    def _leave_failed_out(self) -> None:
        """Let the episodes of the tasks that the simulators gave up end here."""
        if self.simulators.failures:
            failed = {failure.task for failure in self.simulators.failures}
            self.active &= np.array([start.task.name not in failed for start in self.starts])

    def _step(self, rows: np.ndarray, actions: np.ndarray) -> None:
        result = self.simulators.step(rows, actions)
        for row, flags, taken in zip(rows, result.success, result.steps, strict=True):
            self.success[row, self.steps[row] : self.steps[row] + taken] = flags[:taken]
        for index, row in enumerate(rows if self.seen else ()):
            self.seen[row].append(result.observations[index, : result.steps[index]])
            self.done[row].append(actions[index, : result.steps[index]])
        self.steps[rows] += result.steps
        self.invalid[rows] = result.invalid | ~_readable(result.observations)
        self.history[rows] = np.concatenate([self.history[rows], result.observations], axis=1)[:, -self.history.shape[1] :]
        ended = self.invalid[rows] | (result.steps < actions.shape[1]) | (self.steps[rows] >= self.horizons[rows])
        if self.stop_at_success:
            ended |= self.success[rows].any(1)
        self.active[rows] = ~ended

    def _progressed(self, rows: np.ndarray, taken: int) -> int:
        """Steps by which the episodes `rows` have come closer to their horizons; those that ended early have gone all the way."""
        before = np.minimum(self.planned[rows], taken)
        self.planned[rows] -= before
        left = self.planned[rows[~self.active[rows]]]
        self.planned[rows[~self.active[rows]]] = 0
        return int(before.sum() + left.sum())

    def results(self) -> list[EpisodeResult]:
        return [
            _result(start, self.success[row, : self.steps[row]], bool(self.invalid[row]))
            for row, start in enumerate(self.starts)
        ]

    def traces(self) -> list[Episode]:
        """The valid episodes as they went; empty unless they were traced."""
        valid = [row for row in range(len(self.seen)) if self.done[row] and not self.invalid[row]]
        return [
            Episode(
                self.starts[row].task.name,
                self.starts[row].seed,
                np.concatenate(self.seen[row]).astype(np.float32),
                np.concatenate(self.done[row]).astype(np.float32),
                self.success[row, : self.steps[row]],
            )
            for row in valid
        ]

    def recordings(self) -> dict[EpisodeStart, Recording]:
        states, row_of = self.simulators.recorded(), {start: row for row, start in enumerate(self.starts)}
        return {start: Recording(found, self.success[row_of[start], : self.steps[row_of[start]]]) for start, found in states.items()}


def _readable(observations: np.ndarray) -> np.ndarray:
    """Whether a policy can act on each row's observations, (m, ..., Do) -> (m,) bool."""
    return np.asarray((np.abs(observations) <= LARGEST_SEEN).all(axis=tuple(range(1, observations.ndim))))


def _broken(done: Rollouts) -> list[TaskFailure]:
    """The tasks that have not failed and whose physics broke in every episode: nothing is known of them."""
    of_task: dict[str, list[EpisodeResult]] = {}
    for result in done.results:
        of_task.setdefault(result.task, []).append(result)
    return [
        TaskFailure(task, results[-1].episode_seed, len(results), "the physics broke in every episode")
        for task, results in of_task.items()
        if all(result.invalid for result in results) and not any(failure.task == task for failure in done.failures)
    ]


def _without_failed(done: Rollouts) -> Rollouts:
    """Nothing of a task that failed, also of episodes that had ended before it did."""
    failed = {failure.task for failure in done.failures}
    return Rollouts(
        [result for result in done.results if result.task not in failed],
        {start: recording for start, recording in done.recordings.items() if start.task.name not in failed},
        [episode for episode in done.traces if episode.task not in failed],
        done.failures,
    )


def _result(start: EpisodeStart, success: np.ndarray, invalid: bool) -> EpisodeResult:
    reached = np.flatnonzero(success)
    return EpisodeResult(
        task=start.task.name,
        episode_seed=start.seed,
        success_any=bool(len(reached)),
        success_final=bool(len(success) and success[-1]),
        first_success_step=int(reached[0]) + 1 if len(reached) else None,
        steps=len(success),
        invalid=invalid,
    )
