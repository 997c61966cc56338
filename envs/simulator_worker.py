"""What runs in a simulator's worker process: episodes of many tasks, advanced as they are asked to.

    message     [Start, Step, Step]      requests, answered one after the other; the reply is the last one's
    notice      [row, signs of life]     memory shared with the parent: the episode at work, and a count that grows with every one

The notice is how the parent tells a slow worker from one that hangs, and whose episode a dead one was busy with.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys
import traceback
from collections import Counter, OrderedDict
from collections.abc import Iterator, MutableSequence, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reconverge.envs.episodes import Episode
from reconverge.envs.experts import expert_for, run_until_success
from reconverge.envs.task import Task
from reconverge.envs.tasks import TaskEnv, make_env

KEPT_ENVIRONMENTS = 1000
"""Environments a worker keeps over all tasks, at about 1.2 MB each; beyond that the task used longest ago is dropped."""
NOBODY = -1
"""The row in the notice while no episode is at work."""
LONGEST_ERROR = 400
"""Characters of an error's one line."""

Notice = MutableSequence[int]


class EpisodeStart(NamedTuple):
    """What fixes an episode but for its actions."""

    task: Task
    seed: int


@dataclass(frozen=True)
class StepResult:
    """What a chunk did. Axes: m episodes that were stepped, k steps, Do observation.

    Attributes:
        observations: (m, k, Do) float64; rows after an episode's end repeat its last observation.
        success: (m, k) bool, per executed step; False where nothing was executed.
        steps: (m,) int, how many of the k actions were executed.
        invalid: (m,) bool, the physics broke down at some step of the episode, which ended there.
    """

    observations: np.ndarray
    success: np.ndarray
    steps: np.ndarray
    invalid: np.ndarray

    @classmethod
    def empty(cls, m: int, k: int, observation_size: int) -> StepResult:
        """A result in which nothing has happened yet."""
        return cls(np.zeros((m, k, observation_size)), np.zeros((m, k), bool), np.zeros(m, np.int64), np.zeros(m, bool))


# What a worker can be asked ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """Begin episodes; they are rows 0, 1, ... from now on. The reply is their first observations, (n, Do)."""

    starts: Sequence[EpisodeStart]
    record: Sequence[bool]
    stop_at_success: bool


@dataclass(frozen=True)
class Step:
    """Advance the episodes `rows` (m,) by `actions` (m, k, Da). The reply is a StepResult."""

    rows: np.ndarray
    actions: np.ndarray


@dataclass(frozen=True)
class RunExpert:
    """Whole episodes of the task's expert at the first of `paces` that succeeds; they are rows 0, 1, ... The reply is an Episode or None per seed."""

    task: Task
    seeds: Sequence[int]
    hold_steps: int
    action_noise: float = 0.0
    paces: Sequence[float] = (1.0,)


class Recorded:
    """The physics states so far, (T + 1, S) per recorded row; the reply has none of rows whose states changed their size."""


Request = Start | Step | RunExpert | Recorded


@dataclass(frozen=True)
class Message:
    """Requests to be answered in order, of which only the last one's reply is wanted; episodes of the tasks `without` are left out."""

    requests: Sequence[Request]
    without: frozenset[Task]


@dataclass(frozen=True)
class Failed:
    """What a worker sends instead of a reply: the error in a line, with the place that raised it."""

    error: str

    @classmethod
    def by(cls, error: Exception) -> Failed:
        said = " ".join("".join(traceback.format_exception_only(error)).split())
        said = said if len(said) <= LONGEST_ERROR else f"{said[:LONGEST_ERROR]}..."
        places = traceback.extract_tb(error.__traceback__)
        place = f" ({Path(places[-1].filename).name}, line {places[-1].lineno})" if places else ""
        return cls(said + place)


# The worker --------------------------------------------------------------------------------------------------------------------


def serve(pipe: Connection, notice: Notice) -> None:
    """Body of a worker process: answer until told to stop, or until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what happens
    _end_with_parent()
    worker = Worker(notice)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while (message := pipe.recv()) is not None:
            try:
                reply = worker.answer(message)
            except Exception as error:
                reply = Failed.by(error)
            pipe.send(reply)
    worker.close()


def _end_with_parent() -> None:
    """Have the kernel kill this process when the parent dies, however: one that hangs or is stopped would never see the pipe's end.

    Linux only, and the parent is the thread that started the worker; elsewhere a worker ends when it next reads its pipe.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, int(signal.SIGKILL))


class Worker:
    """The episodes of one worker, and the environments it keeps per task."""

    def __init__(self, notice: Notice) -> None:
        self._notice = notice
        self._kept: OrderedDict[Task, list[TaskEnv]] = OrderedDict()
        self._running: list[_Running | None] = []
        self._observation_size = 0
        self._busy_with(NOBODY)

    def answer(self, message: Message) -> Any:
        """The reply to the last request."""
        reply = None
        for request in message.requests:
            reply = self._answer(request, message.without)
        self._busy_with(NOBODY)
        return reply

    def close(self) -> None:
        for kept in self._kept.values():
            for env in kept:
                env.close()

    def _answer(self, request: Request, without: frozenset[Task]) -> Any:
        match request:
            case Start():
                return self._start(request, without)
            case Step():
                return self._step(request)
            case RunExpert():
                return self._run_expert(request)
            case Recorded():
                return self._recorded()

    def _start(self, request: Start, without: frozenset[Task]) -> np.ndarray:
        self._running = [None] * len(request.starts)
        rows = {row: start for row, start in enumerate(request.starts) if start.task not in without}
        wanted = Counter(start.task for start in rows.values())
        self._drop_unused(wanted)
        free = {task: self._environments(task) for task in wanted}
        self._observation_size = request.starts[0].task.observation_size if request.starts else 0
        observations = np.zeros((len(request.starts), self._observation_size))
        for row, start in rows.items():
            self._busy_with(row)
            episode = _Running(next(free[start.task]), start.seed, request.record[row], request.stop_at_success)
            self._running[row], observations[row] = episode, episode.observation
        return observations

    def _step(self, request: Step) -> StepResult:
        m, k, _ = request.actions.shape
        result = StepResult.empty(m, k, self._observation_size)
        for i, (row, actions) in enumerate(zip(request.rows.tolist(), request.actions, strict=True)):
            episode = self._running[row]
            if episode is None:
                continue
            self._busy_with(row)
            for t, action in enumerate(actions):
                if not episode.ended:
                    result.success[i, t] = episode.step(action)
                    result.steps[i] += 1
                result.observations[i, t] = episode.observation
            result.invalid[i] = episode.invalid
        return result

    def _recorded(self) -> dict[int, np.ndarray]:
        states = {}
        for row, episode in enumerate(self._running):
            if episode is not None and episode.states is not None:
                self._busy_with(row)
                states[row] = np.stack(episode.states)
        return states

    def _run_expert(self, request: RunExpert) -> list[Episode | None]:
        self._running, runs = [], []
        if not request.seeds:
            return []
        self._busy_with(0)
        env, experts = next(self._environments(request.task)), [expert_for(request.task, pace) for pace in request.paces]
        for row, seed in enumerate(request.seeds):
            self._busy_with(row)
            runs.append(run_until_success(env, experts, seed, request.hold_steps, request.action_noise, partial(self._busy_with, row)))
        return runs

    def _environments(self, task: Task) -> Iterator[TaskEnv]:
        """Environments of the task without end, made as needed."""
        kept = self._kept.setdefault(task, [])
        self._kept.move_to_end(task)
        yield from kept
        while True:
            kept.append(make_env(task))
            yield kept[-1]

    def _drop_unused(self, wanted: Counter[Task]) -> None:
        """Close the environments of the tasks used longest ago, while there are or will be too many."""
        missing = sum(max(0, count - len(self._kept.get(task, ()))) for task, count in wanted.items())
        for task in [task for task in self._kept if task not in wanted]:
            if sum(map(len, self._kept.values())) + missing > KEPT_ENVIRONMENTS:
                for env in self._kept.pop(task):
                    env.close()

    def _busy_with(self, row: int) -> None:
        self._notice[0] = row
        self._notice[1] += 1


class _Running:
    """One running episode and its simulator."""

    def __init__(self, env: TaskEnv, seed: int, recorded: bool, stop_at_success: bool) -> None:
        self.env, self.seed, self.stop_at_success = env, seed, stop_at_success
        self.observation, _ = env.reset(seed=seed)
        self.ended = self.invalid = False
        self.states = [env.physics_state()] if recorded else None

    def step(self, action: np.ndarray) -> bool:
        """Take one step and say whether it succeeded."""
        self.observation, _, _, truncated, info = self.env.step(action)
        self.invalid |= info["invalid"]
        self.ended = truncated or self.invalid or (self.stop_at_success and info["success"])
        if self.states is not None:
            self._record(self.states)
        return bool(info["success"])

    def _record(self, states: list[np.ndarray]) -> None:
        """Keep the present state. Episodes of an environment whose states change their size in mid-episode cannot be drawn, and are not recorded."""
        state = self.env.physics_state()
        if state.shape == states[0].shape:
            states.append(state)
        else:
            self.states = None
