"""Many simulators in lock-step, in worker processes.

    start      episode i, of whatever task, lives on worker i % W from now on
    step       some episodes advance by up to k actions (a chunk), all workers at once
    recorded   physics states of the episodes that were to be recorded

    episode        0   1   2   3   4        The result does not depend on W: an episode is a pure function
    worker (W=2)   A   B   A   B   A        of (task, episode seed, actions), wherever it runs.

Workers are spawned, not forked (a fork would copy locks of torch's threads), start with the first task
and keep the environments they made: making one is slow, resetting one is not.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import traceback
from collections import Counter, OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from reconverge.envs.episodes import Episode
from reconverge.envs.experts import expert_for, run_expert
from reconverge.envs.task import Task
from reconverge.envs.tasks import TaskEnv, make_env

CLOSE_TIMEOUT_S = 2.0
KEPT_ENVIRONMENTS = 1000
"""Environments a worker keeps over all tasks, at about 1.2 MB each; beyond that the task used longest ago is dropped."""


class SimulatorFailure(RuntimeError):
    """A simulator raised, died or hung; names the task and the episode."""


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
        invalid: (m,) bool, the physics broke down at some step of the episode so far.
    """

    observations: np.ndarray
    success: np.ndarray
    steps: np.ndarray
    invalid: np.ndarray


class Simulators:
    """A pool of `workers` processes; with 0 everything runs in this process.

    Use as a context manager. `timeout_s` bounds the wait for one reply: a worker that hangs longer is killed.
    """

    def __init__(self, workers: int, timeout_s: float = 600.0) -> None:
        self.workers, self.timeout_s = workers, timeout_s
        self._sides: list[_LocalSide | _ProcessSide] = []
        self._starts: list[EpisodeStart] = []

    def __enter__(self) -> Simulators:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def start(self, starts: Sequence[EpisodeStart], record: Collection[EpisodeStart] = (), stop_at_success: bool = False) -> np.ndarray:
        """Begin episodes and return their first observations, (n, Do) float64; the tasks share the size Do and that of actions.

        `record` lists the episodes whose physics states are kept; `stop_at_success` ends an episode with its first success.
        """
        self._starts = [EpisodeStart(task, int(seed)) for task, seed in starts]
        if not self._starts:
            return np.empty((0, 0))
        recorded = frozenset(record)
        requests = [_Start(share, [start in recorded for start in share], stop_at_success) for share in self._shares(self._starts)]
        replies = self._ask(requests)
        observations = np.empty((len(self._starts), self._starts[0].task.observation_size))
        for part, reply in enumerate(replies[: len(self._starts)]):
            observations[part :: self._parts] = reply
        return observations

    def step(self, rows: np.ndarray, actions: np.ndarray) -> StepResult:
        """Advance the episodes `rows` (m,), by their position in `start`, by up to k steps: to the horizon, or to success if so started.

        actions: (m, k, Da) in [-1, 1].
        """
        m, k, _ = actions.shape
        assert rows.shape == (m,), (rows.shape, actions.shape)
        if not m:
            return _nothing_done(0, k, 0)
        assert self._starts, "call start() first"
        assert actions.shape[2] == self._starts[0].task.action_size, actions.shape
        worker = rows % self._parts
        replies = self._ask([_Step(rows[worker == part] // self._parts, actions[worker == part]) for part in range(self._parts)])
        result = _nothing_done(m, k, self._starts[0].task.observation_size)
        for part in np.unique(worker):
            for name, values in vars(result).items():
                values[worker == part] = getattr(replies[part], name)
        return result

    def recorded(self) -> dict[EpisodeStart, np.ndarray]:
        """Physics states so far of the recorded episodes, (T + 1, S) float64 each, T executed steps."""
        if not self._starts:
            return {}
        replies = self._ask([_Recorded()] * self._parts)
        return {self._starts[row * self._parts + part]: states for part, reply in enumerate(replies) for row, states in reply.items()}

    def run_expert(self, task: Task, episode_seeds: Sequence[int], hold_steps: int) -> list[Episode | None]:
        """One whole episode of the task's own expert per seed, None where it failed; ends what was started before."""
        self._starts = [EpisodeStart(task, int(seed)) for seed in episode_seeds]
        replies = self._ask([_RunExpert(task, [start.seed for start in share], hold_steps) for share in self._shares(self._starts)])
        runs = [replies[i % self._parts][i // self._parts] for i in range(len(self._starts))]
        self._starts = []
        return runs

    def close(self) -> None:
        """End the workers, within a few seconds whatever state they are in. The pool may be started again."""
        for side in self._sides:
            side.ask_to_stop()
        for side in self._sides:
            side.stop()
        self._sides = []

    @property
    def _parts(self) -> int:
        return max(1, self.workers)

    def _shares(self, starts: Sequence[EpisodeStart]) -> list[Sequence[EpisodeStart]]:
        return [starts[part :: self._parts] for part in range(self._parts)]

    def _ask(self, requests: Sequence[Any]) -> list[Any]:
        """One request per worker, all at work at once. After any failure the pool is closed, so that no stale reply is left."""
        tasks = ", ".join(dict.fromkeys(f"'{start.task.name}'" for start in self._starts))
        if not self._sides:
            self._sides = [_ProcessSide(number) for number in range(self.workers)] if self.workers else [_LocalSide()]
        try:
            for side, request in zip(self._sides, requests, strict=True):
                side.send(request)
            return [side.receive(self.timeout_s, tasks) for side in self._sides]
        except BaseException:
            for side in self._sides:
                side.kill()
            self._sides = []
            raise


@dataclass(frozen=True)
class _Start:
    starts: Sequence[EpisodeStart]
    record: Sequence[bool]
    stop_at_success: bool


@dataclass(frozen=True)
class _Step:
    rows: np.ndarray
    actions: np.ndarray


@dataclass(frozen=True)
class _RunExpert:
    task: Task
    seeds: Sequence[int]
    hold_steps: int


class _Recorded:
    pass


@dataclass(frozen=True)
class _Failed:
    """What a worker sends instead of a reply."""

    doing: str
    trace: str


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
        self.ended = truncated or (self.stop_at_success and info["success"])
        if self.states is not None:
            self.states.append(self.env.physics_state())
        return bool(info["success"])


class _Worker:
    """The episodes of one worker, and the environments it keeps per task."""

    def __init__(self) -> None:
        self.doing = "nothing yet"
        self._kept: OrderedDict[Task, list[TaskEnv]] = OrderedDict()
        self._running: list[_Running] = []

    def answer(self, request: Any) -> Any:
        match request:
            case _Start():
                return self._start(request)
            case _Step():
                return self._step(request)
            case _Recorded():
                return {row: np.stack(episode.states) for row, episode in enumerate(self._running) if episode.states is not None}
            case _RunExpert():
                return self._run_expert(request)
        raise TypeError(f"unknown request {request!r}")

    def _start(self, request: _Start) -> np.ndarray:
        self._running = []
        wanted = Counter(start.task for start in request.starts)
        free = {task: iter(self._environments(task, count)) for task, count in wanted.items()}
        self._drop_unused(wanted)
        for start, record in zip(request.starts, request.record, strict=True):
            self.doing = f"starting task '{start.task.name}', episode seed {start.seed}"
            self._running.append(_Running(next(free[start.task]), start.seed, record, request.stop_at_success))
        return np.array([episode.observation for episode in self._running])

    def _step(self, request: _Step) -> StepResult:
        m, k, _ = request.actions.shape
        result = _nothing_done(m, k, len(self._running[0].observation) if self._running else 0)
        for i, (row, actions) in enumerate(zip(request.rows, request.actions, strict=True)):
            episode = self._running[row]
            self.doing = f"stepping task '{episode.env.task.name}', episode seed {episode.seed}"
            for t, action in enumerate(actions):
                if not episode.ended:
                    result.success[i, t] = episode.step(action)
                    result.steps[i] += 1
                result.observations[i, t] = episode.observation
            result.invalid[i] = episode.invalid
        return result

    def _run_expert(self, request: _RunExpert) -> list[Episode | None]:
        env, expert = self._environments(request.task, 1)[0], expert_for(request.task)
        self._running, runs = [], []
        for seed in request.seeds:
            self.doing = f"demonstrating task '{request.task.name}', episode seed {seed}"
            runs.append(run_expert(env, expert, seed, request.hold_steps))
        return runs

    def _environments(self, task: Task, count: int) -> list[TaskEnv]:
        """`count` environments of the task, made as needed."""
        self.doing = f"making task '{task.name}'"
        kept = self._kept.setdefault(task, [])
        self._kept.move_to_end(task)
        kept.extend(make_env(task) for _ in range(count - len(kept)))
        return kept[:count]

    def _drop_unused(self, wanted: Collection[Task]) -> None:
        """Close the environments of the tasks used longest ago, while there are too many."""
        for task in [task for task in self._kept if task not in wanted]:
            if sum(map(len, self._kept.values())) > KEPT_ENVIRONMENTS:
                for env in self._kept.pop(task):
                    env.close()

    def close(self) -> None:
        for kept in self._kept.values():
            for env in kept:
                env.close()


class _LocalSide:
    """A worker in this process, for tests and debuggers."""

    def __init__(self) -> None:
        self._worker = _Worker()
        self._reply: Any = None

    def send(self, request: Any) -> None:
        try:
            self._reply = self._worker.answer(request)
        except Exception as error:
            raise SimulatorFailure(f"simulator failed while {self._worker.doing}: {error!r}") from error

    def receive(self, timeout_s: float, tasks: str) -> Any:
        return self._reply

    def ask_to_stop(self) -> None:
        self._worker.close()

    def stop(self) -> None: ...

    def kill(self) -> None:
        self._worker.close()


class _ProcessSide:
    """This process's end of one worker."""

    def __init__(self, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), name=f"simulator-{number}", daemon=True)
        self._process.start()
        theirs.close()

    def send(self, request: Any) -> None:
        # A dead worker is reported when its reply is missing.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._pipe.send(request)

    def receive(self, timeout_s: float, tasks: str) -> Any:
        try:
            if not self._pipe.poll(timeout_s):
                raise SimulatorFailure(f"{self._process.name} has not answered for {timeout_s:.0f} s in task {tasks}; it was killed")
            reply = self._pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            self._process.join(CLOSE_TIMEOUT_S)
            code = self._process.exitcode
            likely = "out of memory?" if code == -9 else "a script that starts simulators must do so under `if __name__ == '__main__':`"
            raise SimulatorFailure(f"{self._process.name} died (exit code {code}) in task {tasks}; {likely}") from error
        if isinstance(reply, _Failed):
            raise SimulatorFailure(f"{self._process.name} failed while {reply.doing}\n{reply.trace}")
        return reply

    def ask_to_stop(self) -> None:
        with contextlib.suppress(OSError):
            self._pipe.send(None)

    def stop(self) -> None:
        self._process.join(CLOSE_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """KILL rather than TERM: a stopped process would not see TERM."""
        if self._process.is_alive():
            self._process.kill()
        self._process.join(CLOSE_TIMEOUT_S)
        self._pipe.close()


def _serve(pipe: Connection) -> None:
    """Body of a worker process: answer until told to stop, or until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what happens
    worker = _Worker()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while (request := pipe.recv()) is not None:
            try:
                reply = worker.answer(request)
            except Exception:
                reply = _Failed(worker.doing, traceback.format_exc())
            pipe.send(reply)
    worker.close()


def _nothing_done(m: int, k: int, observation_size: int) -> StepResult:
    """A result in which nothing has happened yet."""
    return StepResult(np.zeros((m, k, observation_size)), np.zeros((m, k), bool), np.zeros(m, np.int64), np.zeros(m, bool))
