"""Many simulators in lock-step, in worker processes.

    start      episode i lives on worker i % W from now on
    step       every active episode advances by up to k actions (a chunk), all workers at once
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
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

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


@dataclass(frozen=True)
class StepResult:
    """What a chunk did. Axes: n episodes, k steps, Do observation.

    Attributes:
        observations: (n, k, Do) float64; rows after an episode's end repeat its last observation.
        success: (n, k) bool, per executed step; False where nothing was executed.
        steps: (n,) int, how many of the k actions were executed.
        invalid: (n,) bool, the physics broke down at some step of the episode so far.
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
        self._task: Task | None = None
        self._seeds: list[int] = []

    def __enter__(self) -> Simulators:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def start(self, task: Task, episode_seeds: Sequence[int], record: Collection[int] = (), stop_at_success: bool = False) -> np.ndarray:
        """Begin one episode per seed and return the first observations, (n, Do) float64.

        `record` lists the seeds whose physics states are kept; `stop_at_success` ends an episode with its first success.
        """
        self._task, self._seeds = task, [int(seed) for seed in episode_seeds]
        if not self._seeds:
            return np.empty((0, task.observation_size))
        shares = [_Start(task, seeds, frozenset(record), stop_at_success) for seeds in self._shared_out(self._seeds)]
        return self._gathered([reply["observations"] for reply in self._ask(shares)])

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        """Advance every active episode by up to k steps: to its horizon, or its success if so started.

        actions: (n, k, Da) in [-1, 1], of which inactive rows are not read; active: (n,) bool.
        """
        assert self._task is not None, "call start() first"
        expected = (len(self._seeds), actions.shape[1], self._task.action_size)
        assert actions.shape == expected and active.shape == (len(self._seeds),), (actions.shape, active.shape)
        if not self._seeds:
            return _no_episodes(*expected[:2], self._task.observation_size)
        shares = [_Step(a, on) for a, on in zip(self._shared_out(actions), self._shared_out(active), strict=True)]
        replies = self._ask(shares)
        return StepResult(**{key: self._gathered([reply[key] for reply in replies]) for key in ("observations", "success", "steps", "invalid")})

    def recorded(self) -> dict[int, np.ndarray]:
        """Physics states so far of the recorded episodes: seed -> (T + 1, S) float64, T executed steps."""
        return {seed: states for reply in self._ask([_Recorded()] * self._parts) for seed, states in reply.items()} if self._seeds else {}

    def run_expert(self, task: Task, episode_seeds: Sequence[int], hold_steps: int) -> list[Episode | None]:
        """One whole episode of the task's own expert per seed, None where it failed; ends what was started before."""
        self._task, self._seeds = task, [int(seed) for seed in episode_seeds]
        replies = self._ask([_RunExpert(task, seeds, hold_steps) for seeds in self._shared_out(self._seeds)])
        runs = [replies[i % self._parts][i // self._parts] for i in range(len(self._seeds))]
        self._seeds = []
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

    def _shared_out(self, rows: Any) -> list[Any]:
        return [rows[part :: self._parts] for part in range(self._parts)]

    def _gathered(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        rows = np.empty((len(self._seeds), *parts[0].shape[1:]), parts[0].dtype)
        for number, part in enumerate(parts):
            rows[number :: self._parts] = part
        return rows

    def _ask(self, requests: Sequence[Any]) -> list[Any]:
        """One request per worker, all at work at once. After any failure the pool is closed, so that no stale reply is left."""
        assert self._task is not None
        if not self._sides:
            self._sides = [_ProcessSide(number) for number in range(self.workers)] if self.workers else [_LocalSide()]
        try:
            for side, request in zip(self._sides, requests, strict=True):
                side.send(request)
            return [side.receive(self.timeout_s, self._task) for side in self._sides]
        except BaseException:
            for side in self._sides:
                side.kill()
            self._sides = []
            raise


@dataclass(frozen=True)
class _Start:
    task: Task
    seeds: Sequence[int]
    record: frozenset[int]
    stop_at_success: bool


@dataclass(frozen=True)
class _Step:
    actions: np.ndarray
    active: np.ndarray


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
        self._observation_size = 0

    def answer(self, request: Any) -> Any:
        match request:
            case _Start():
                return self._start(request)
            case _Step():
                return self._step(request)
            case _Recorded():
                return {e.seed: np.stack(e.states) for e in self._running if e.states is not None}
            case _RunExpert():
                return self._run_expert(request)
        raise TypeError(f"unknown request {request!r}")

    def _start(self, request: _Start) -> dict[str, np.ndarray]:
        self._running, self._observation_size = [], request.task.observation_size
        for env, seed in zip(self._environments(request.task, len(request.seeds)), request.seeds, strict=True):
            self.doing = f"starting task '{request.task.name}', episode seed {seed}"
            self._running.append(_Running(env, seed, seed in request.record, request.stop_at_success))
        return {"observations": np.array([e.observation for e in self._running]).reshape(-1, self._observation_size)}

    def _step(self, request: _Step) -> dict[str, np.ndarray]:
        n, k, _ = request.actions.shape
        result = _no_episodes(n, k, self._observation_size)
        for i, episode in enumerate(self._running):
            self.doing = f"stepping task '{episode.env.task.name}', episode seed {episode.seed}"
            for t in range(k):
                if request.active[i] and not episode.ended:
                    result.success[i, t] = episode.step(request.actions[i, t])
                    result.steps[i] += 1
                result.observations[i, t] = episode.observation
            result.invalid[i] = episode.invalid
        return vars(result)

    def _run_expert(self, request: _RunExpert) -> list[Episode | None]:
        env, expert = self._environments(request.task, 1)[0], expert_for(request.task)
        self._running, runs = [], []
        for seed in request.seeds:
            self.doing = f"demonstrating task '{request.task.name}', episode seed {seed}"
            runs.append(run_expert(env, expert, seed, request.hold_steps))
        return runs

    def _environments(self, task: Task, count: int) -> list[TaskEnv]:
        """`count` environments of the task, made as needed; drops the tasks used longest ago."""
        self.doing = f"making task '{task.name}'"
        kept = self._kept.setdefault(task, [])
        self._kept.move_to_end(task)
        kept.extend(make_env(task) for _ in range(count - len(kept)))
        while len(self._kept) > 1 and sum(map(len, self._kept.values())) > KEPT_ENVIRONMENTS:
            for env in self._kept.popitem(last=False)[1]:
                env.close()
        return kept[:count]

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

    def receive(self, timeout_s: float, task: Task) -> Any:
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

    def receive(self, timeout_s: float, task: Task) -> Any:
        try:
            if not self._pipe.poll(timeout_s):
                raise SimulatorFailure(f"{self._process.name} has not answered for {timeout_s:.0f} s in task '{task.name}'; it was killed")
            reply = self._pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            self._process.join(CLOSE_TIMEOUT_S)
            code = self._process.exitcode
            likely = "out of memory?" if code == -9 else "a script that starts simulators must do so under `if __name__ == '__main__':`"
            raise SimulatorFailure(f"{self._process.name} died (exit code {code}) in task '{task.name}'; {likely}") from error
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


def _no_episodes(n: int, k: int, observation_size: int) -> StepResult:
    """A result in which nothing has happened yet."""
    return StepResult(np.zeros((n, k, observation_size)), np.zeros((n, k), bool), np.zeros(n, np.int64), np.zeros(n, bool))
