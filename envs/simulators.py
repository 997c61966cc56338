"""Many simulators in lock-step, in worker processes that may fail.

    start      episode i, of whatever task, lives on worker i % W from now on
    step       some episodes advance by up to k actions (a chunk), all workers at once
    recorded   physics states of the episodes that were to be recorded

    episode        0   1   2   3   4        The result does not depend on W: an episode is a pure function
    worker (W=2)   A   B   A   B   A        of (task, episode seed, actions), wherever it runs.

Nor does it depend on whether workers live: what each was asked since `start` is kept here (the actions, some 3 MB for 500 episodes
of 200 steps). One that raises, dies or hangs is replaced by a fresh one, which is asked the same again and is then where it was:

    asked        start   step 1   step 2   step 3                              same bits as if nothing had happened
    worker A       o       o        o        x  killed
    fresh one      o       o        o        o      replies to step 3 only

A task whose episodes make a worker fail three times before it can answer once is given up: it is in `failures`, its episodes
do nothing from then on, and those of other tasks go on undisturbed.

Workers are spawned, not forked (a fork would copy locks of torch's threads), start with the first task
and keep the environments they made: making one is slow, resetting one is not.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from reconverge.envs.episodes import Episode
from reconverge.envs.errors import ReconvergeError
from reconverge.envs.simulator_process import LocalSide, ProcessSide, Side, WorkerFault, close
from reconverge.envs.simulator_worker import EpisodeStart, Message, Recorded, Request, RunExpert, Start, Step, StepResult
from reconverge.envs.task import Task

STRIKES = 3
"""So many failures of a worker in a row over the same task are the task's fault."""
AWAKE_S = 0.5
"""While workers are at work, it is looked after them at least this often."""


class SimulatorFailure(ReconvergeError, RuntimeError):
    """Simulators failed again and again, and nothing can come of it; names the task and the episode."""


class NotFiniteAction(ReconvergeError, ValueError):
    """An action of NaN or infinity, which no simulator is given: no task fails for that, it is the policy that is broken."""


@dataclass(frozen=True)
class TaskFailure:
    """A task that was given up: the episode that its worker was busy with, how often the worker failed, the last error in a line."""

    task: str
    episode_seed: int
    attempts: int
    error: str

    def __str__(self) -> str:
        return f"task '{self.task}' made its simulator fail {self.attempts} times in a row, last in episode seed {self.episode_seed}: {self.error}"


class Simulators:
    """A pool of `workers` processes; with 0 everything runs in this process, where a hanging episode cannot be ended.

    Use as a context manager. A worker that shows no sign of life (an episode begun, stepped or demonstrated) for `timeout_s` is
    replaced. An exception while waiting, such as an interruption, ends the workers; the next request starts new ones.

    Attributes:
        failures: tasks given up since the last `start`.
        replaced: workers replaced so far.
    """

    def __init__(self, workers: int, timeout_s: float = 120.0) -> None:
        self.workers, self.timeout_s = workers, timeout_s
        self.failures: list[TaskFailure] = []
        self.replaced = 0
        self._sides: list[Side] = []
        self._starts: list[EpisodeStart] = []
        self._asked: list[list[Request]] = []
        self._given_up: frozenset[Task] = frozenset()
        self._forget()

    def __enter__(self) -> Simulators:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def start(self, starts: Sequence[EpisodeStart], record: Collection[EpisodeStart] = (), stop_at_success: bool = False) -> np.ndarray:
        """Begin episodes and return their first observations, (n, Do) float64; the tasks share the size Do and that of actions.

        `record` lists the episodes whose physics states are kept; `stop_at_success` ends an episode with its first success.
        The observations of `failures` are 0.
        """
        self._forget()
        self.failures = []
        self._starts = [EpisodeStart(task, int(seed)) for task, seed in starts]
        if not self._starts:
            return np.empty((0, 0))
        recorded = frozenset(record)
        requests: list[Request] = [Start(share, [start in recorded for start in share], stop_at_success) for share in self._shares(self._starts)]
        replies = self._ask(requests)
        self._asked = [[request] for request in requests]
        observations = np.empty((len(self._starts), self._starts[0].task.observation_size))
        for part, reply in enumerate(replies[: len(self._starts)]):
            observations[part :: self._parts] = reply
        return observations

    def step(self, rows: np.ndarray, actions: np.ndarray) -> StepResult:
        """Advance the episodes `rows` (m,), by their position in `start`, by up to k steps: to the horizon, or to success if so started.

        actions: (m, k, Da) in [-1, 1]. What is said of the episodes of `failures` means nothing. Raises NotFiniteAction.
        """
        m, k, _ = actions.shape
        assert rows.shape == (m,), (rows.shape, actions.shape)
        if not m:
            return StepResult.empty(0, k, 0)
        assert self._starts, "call start() first"
        assert actions.shape[2] == self._starts[0].task.action_size, actions.shape
        self._refuse_not_finite(rows, actions)
        worker = rows % self._parts
        requests = [Step(rows[worker == part] // self._parts, actions[worker == part]) for part in range(self._parts)]
        replies = self._ask(requests)
        for asked, request in zip(self._asked, requests, strict=True):
            asked.append(request)
        result = StepResult.empty(m, k, self._starts[0].task.observation_size)
        for part in np.unique(worker):
            for name, values in vars(result).items():
                values[worker == part] = getattr(replies[part], name)
        return result

    def recorded(self) -> dict[EpisodeStart, np.ndarray]:
        """Physics states so far of the recorded episodes, (T + 1, S) float64 each, T executed steps; none of one whose states changed their size."""
        if not self._starts:
            return {}
        replies = self._ask([Recorded()] * self._parts)
        return {self._starts[row * self._parts + part]: states for part, reply in enumerate(replies) for row, states in reply.items()}

    def run_expert(
        self, task: Task, episode_seeds: Sequence[int], hold_steps: int, action_noise: float = 0.0, paces: Sequence[float] = (1.0,)
    ) -> list[Episode | None]:
        """One whole episode of the task's own expert per seed, as `experts.run_until_success`, None where it failed; ends what was started before.

        Raises SimulatorFailure where the task makes its worker fail three times in a row.
        """
        self._forget()
        self._starts = [EpisodeStart(task, int(seed)) for seed in episode_seeds]
        shares = [[start.seed for start in share] for share in self._shares(self._starts)]
        replies = self._ask([RunExpert(task, seeds, hold_steps, action_noise, paces) for seeds in shares])
        runs = [replies[i % self._parts][i // self._parts] for i in range(len(self._starts))]
        self._forget()
        return runs

    def close(self) -> None:
        """End the workers, within 5 s whatever state they are in. The pool may be started again."""
        sides, self._sides = self._sides, []
        close(sides)

    # one request of every worker

    def _ask(self, requests: Sequence[Request]) -> list[Any]:
        """The replies to one request per worker, all at work at once. After an error the workers are ended, so that no stale reply is left."""
        try:
            if not self._sides:
                self._sides = [self._new_side(part) for part in range(self._parts)]
            for part, side in enumerate(self._sides):
                side.ask(self._message([requests[part]]))
            return self._replies(requests)
        except BaseException:
            sides, self._sides = self._sides, []
            self._forget()
            close(sides, grace_s=0)
            raise

    def _replies(self, requests: Sequence[Request]) -> list[Any]:
        """Wait for every worker's reply; whoever fails meanwhile is replaced."""
        replies, waiting = [None] * self._parts, set(range(self._parts))
        strikes: list[Counter[Task | None]] = [Counter() for _ in requests]
        while waiting:
            began = time.monotonic()
            wait([self._sides[part].future for part in waiting], AWAKE_S, FIRST_COMPLETED)
            waited_s = min(time.monotonic() - began, AWAKE_S)  # not the time for which this process was itself stopped
            for part in sorted(waiting):
                side = self._sides[part]
                try:
                    if side.future.done():
                        replies[part] = side.reply()
                        waiting.remove(part)
                    else:
                        side.watch(waited_s, self.timeout_s)
                except WorkerFault as fault:
                    self._count(strikes[part], part, requests[part], fault)
                    self._replace(part, requests[part])
        return replies

    def _replace(self, part: int, request: Request) -> None:
        """A fresh worker in place of one that failed: it is asked again what that one was asked since `start`, and then the request."""
        close([self._sides[part]], grace_s=0)
        self.replaced += 1
        self._sides[part] = self._new_side(part)
        self._sides[part].ask(self._message([*self._asked[part], request]))

    def _count(self, strikes: Counter[Task | None], part: int, request: Request, fault: WorkerFault) -> None:
        """Count a failure against the task that the worker was busy with, and give the task up after the last strike."""
        episode = None if fault.row is None else self._starts[fault.row * self._parts + part]
        task = episode.task if episode else None
        strikes[task] += 1
        if strikes[task] < STRIKES:
            return
        if episode is None:
            raise SimulatorFailure(f"simulators failed {STRIKES} times in a row before they began an episode: {fault.error}") from fault
        if strikes[task] > STRIKES:
            raise SimulatorFailure(f"simulators went on failing when task '{episode.task.name}' was left out: {fault.error}") from fault
        failure = TaskFailure(episode.task.name, episode.seed, STRIKES, fault.error)
        if isinstance(request, RunExpert):
            raise SimulatorFailure(
                f"{failure}; it has no demonstrations. Mend its environment or take it out of the curriculum, then give the same command again"
            ) from fault
        if episode.task not in self._given_up:  # another worker may have given it up at the same time
            self._given_up |= {episode.task}
            self.failures.append(failure)

    # parts

    @property
    def _parts(self) -> int:
        return max(1, self.workers)

    def _shares(self, starts: Sequence[EpisodeStart]) -> list[Sequence[EpisodeStart]]:
        return [starts[part :: self._parts] for part in range(self._parts)]

    def _new_side(self, part: int) -> Side:
        return ProcessSide(part) if self.workers else LocalSide()

    def _message(self, requests: Sequence[Request]) -> Message:
        return Message(requests, self._given_up)

    def _forget(self) -> None:
        """No episodes are running, none was asked for, no task is given up."""
        self._starts, self._given_up = [], frozenset()
        self._asked = [[] for _ in range(self._parts)]

    def _refuse_not_finite(self, rows: np.ndarray, actions: np.ndarray) -> None:
        finite = np.isfinite(actions).all(axis=(1, 2))
        if not finite.all():
            task, seed = self._starts[rows[np.argmin(finite)]]
            raise NotFiniteAction(
                f"the policy's action for task '{task.name}', episode seed {seed}, is not finite: its weights hold NaN or infinity; "
                "evaluate the checkpoint of an earlier stage, or train anew with a lower --train.optimizer.learning-rate"
            )
