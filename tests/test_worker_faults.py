"""Workers die, runs don't: whatever happens to a worker, the same table comes out; a task that always fails is given up alone."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from beset_workers import Beset, assert_same
from command_process import alive, wait_for
from faulty_reach import FAULTY

from reconverge.envs.errors import ReconvergeError
from reconverge.envs.simulator_process import ProcessSide
from reconverge.envs.simulator_worker import Failed, Message, Step
from reconverge.envs.simulators import EpisodeStart, NotFiniteAction, SimulatorFailure, Simulators
from reconverge.envs.task import Task
from reconverge.envs.tasks import find_task
from reconverge.eval.rollout import Rollouts, evaluation_starts, planned_steps, rollout
from reconverge.policy.config import PolicyConfig, ResidualMLPConfig
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.normalizer import Normalizer

SOUND = [find_task("point-reach-0"), find_task("point-reach-1")]
TIMEOUT_S = 1.0


@cache
def policy(*tasks: Task) -> DiffusionPolicy:
    config = PolicyConfig(horizon=2, executed=1, mlp=ResidualMLPConfig(8, 1, 8), timesteps=10, sampling_steps=2)
    return DiffusionPolicy(config, [task.name for task in tasks], 4, 2, Normalizer.for_task(SOUND[0]), seed=0)


def evaluated(pool: Simulators, *tasks: Task) -> Rollouts:
    """Four episodes of every task under a policy whose weights do not depend on the fault; three are recorded, all traced."""
    starts = evaluation_starts(tasks, 4)
    return rollout(policy(*SOUND, FAULTY), starts, pool, record=starts[2:5], trace=True)


@cache
def undisturbed(*tasks: Task) -> Rollouts:
    with Simulators(0) as pool:
        return evaluated(pool, *tasks)


@pytest.fixture(scope="module")
def shared() -> Iterator[Beset]:
    """Two workers for the whole module, for starting one is what takes the time here."""
    with Beset(2, TIMEOUT_S) as pool:
        yield pool


@pytest.fixture
def pool(shared: Beset) -> Beset:
    shared.beset_by({})
    return shared


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where `faulty_reach` looks for what is to go wrong: in workers that run already too."""
    with pytest.MonkeyPatch.context() as patch:
        found = tmp_path_factory.mktemp("faults")
        patch.setenv("FAULTS", str(found))
        yield found


@pytest.fixture
def plan(folder: Path, shared: Beset) -> Iterator[Callable[[str], None]]:
    yield lambda fault: (folder / "plan").write_text(fault) and None
    for path in folder.iterdir():
        path.unlink()


pytestmark = pytest.mark.usefixtures("folder")


def test_twenty_kills_change_nothing(pool: Beset) -> None:
    """At seeded moments of an evaluation of 32 requests: before, during and after a worker's answer, of both workers at once."""
    random = np.random.default_rng(5)
    moments = random.choice(np.arange(1, 30, 2), 10, replace=False).tolist()
    pool.beset_by({moment: [(worker, signal.SIGKILL, float(random.uniform(0, 0.002))) for worker in (0, 1)] for moment in moments})
    assert_same(evaluated(pool, *SOUND), undisturbed(*SOUND))
    assert pool.replaced == 20


def test_a_stopped_worker_is_replaced(pool: Beset) -> None:
    began = time.monotonic()
    pool.beset_by({9: [(1, signal.SIGSTOP, 0.0)]})
    assert_same(evaluated(pool, *SOUND), undisturbed(*SOUND))
    assert pool.replaced == 1
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("fault", ["constructor raise", "reset raise", "step raise", "step loop", "step die"])
def test_a_fault_that_happens_once_changes_nothing(fault: str, pool: Beset, plan: Callable[[str], None]) -> None:
    expected = undisturbed(*SOUND, FAULTY)
    plan(f"{fault} 1")
    assert_same(evaluated(pool, *SOUND, FAULTY), expected)
    assert pool.replaced == 1


def test_a_task_that_always_fails_is_given_up_alone(plan: Callable[[str], None]) -> None:
    plan("constructor raise 99")
    ticks: list[int] = []
    starts = evaluation_starts([SOUND[0], FAULTY, SOUND[1]], 4)
    with Simulators(0) as pool:
        found = rollout(policy(*SOUND, FAULTY), starts, pool, record=starts[:1], trace=True, tick=ticks.append)
        (failure,) = found.failures
        assert (failure.task, failure.attempts, failure.episode_seed) == (FAULTY.name, 3, starts[4].seed)
        assert re.search(r"RuntimeError: the arm fell off \(faulty_reach.py, line \d+\)", failure.error)
        assert found.failed(FAULTY) and found.of(FAULTY) == []
        with pytest.raises(SimulatorFailure, match=r"FaultyReach-v0.*3 times in a row"):
            found.require_all()
        assert sum(ticks) == planned_steps(starts)
        assert evaluated(pool, *SOUND).results == found.results, "the pool goes on"
    assert found.results == undisturbed(*SOUND).results
    assert {episode.task for episode in found.traces} == {task.name for task in SOUND}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_task_that_is_alone_is_given_up_too(workers: int, pool: Beset, plan: Callable[[str], None]) -> None:
    plan("step raise 99")
    found = evaluated(pool if workers else Simulators(0), FAULTY)
    assert [failure.task for failure in found.failures] == [FAULTY.name] and found.results == []


def test_two_workers_that_die_of_the_same_task_give_it_up_once(pool: Beset, plan: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    plan("step die 99")
    monkeypatch.setattr("reconverge.eval.rollout.AT_ONCE", 6)  # the second group has nothing of the task left to do
    found = evaluated(pool, SOUND[0], FAULTY, SOUND[1])
    (failure,) = found.failures
    assert failure.task == FAULTY.name and "died (exit code 3)" in failure.error
    assert found.results == undisturbed(*SOUND).results


@pytest.mark.parametrize("times", [1, 99])
def test_an_expert_is_asked_again_and_its_task_cannot_be_given_up(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Simulators):
        def _new_side(self, part: int):  # type: ignore[no-untyped-def]
            side = super()._new_side(part)
            if self.replaced < times:
                monkeypatch.setattr(side._worker, "_run_expert", self._stumble(side._worker))  # type: ignore[attr-defined]
            return side

        @staticmethod
        def _stumble(worker) -> Callable[[object], object]:  # type: ignore[no-untyped-def]
            def run(request: object) -> object:
                worker._busy_with(1)
                raise RuntimeError("the arm fell off")

            return run

    pool = Failing(0)
    if times == 1:
        runs, expected = pool.run_expert(SOUND[0], [1, 2, 3], 5), Simulators(0).run_expert(SOUND[0], [1, 2, 3], 5)
        assert [run.actions.tobytes() for run in runs if run] == [run.actions.tobytes() for run in expected if run] and pool.replaced == 1
    else:
        with pytest.raises(ReconvergeError, match=r"'point-reach-0' made its simulator fail 3 times.* seed 2.*Mend") as error:
            pool.run_expert(SOUND[0], [1, 2, 3], 5)
        assert "\n" not in str(error.value)
        assert pool.start([EpisodeStart(SOUND[0], 1)]).shape == (1, 4)


def test_workers_that_never_get_to_an_episode_are_no_tasks_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconverge.envs.simulator_process.serve", os._exit)  # a script without `if __name__ == '__main__':` ends like this
    with Simulators(1, TIMEOUT_S) as pool, pytest.raises(SimulatorFailure, match=r"before they began an episode.*__main__"):
        pool.start([EpisodeStart(SOUND[0], 1)])


def test_an_interruption_ends_the_wait_at_once_and_the_pool_can_start_again(pool: Beset) -> None:
    pool.start([EpisodeStart(SOUND[0], seed) for seed in range(2)])
    process = pool._sides[0].process  # type: ignore[attr-defined]
    os.kill(process.pid, signal.SIGSTOP)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        pool.step(np.arange(2), np.zeros((2, 4, 2)))
    assert time.monotonic() - began < 2 and not process.is_alive()
    assert pool.start([EpisodeStart(SOUND[0], 1)]).shape == (1, 4)


def test_ctrl_c_reaches_the_whole_group_and_a_worker_lets_its_parent_decide(pool: Beset) -> None:
    pool.start([EpisodeStart(SOUND[0], seed) for seed in range(2)])
    processes = [side.process for side in pool._sides]  # type: ignore[attr-defined]
    for process in processes:
        os.kill(process.pid, signal.SIGINT)
    pool.step(np.arange(2), np.zeros((2, 4, 2)))
    assert [side.process for side in pool._sides] == processes and all(process.is_alive() for process in processes)  # type: ignore[attr-defined]


def test_closing_is_bounded_whatever_state_workers_are_in(pool: Beset) -> None:
    pool.start([EpisodeStart(SOUND[0], seed) for seed in range(2)])
    processes = [side.process for side in pool._sides]  # type: ignore[attr-defined]
    os.kill(processes[0].pid, signal.SIGSTOP)
    os.kill(processes[1].pid, signal.SIGKILL)
    began = time.monotonic()
    pool.close()
    assert time.monotonic() - began < 5.0
    assert not any(process.is_alive() for process in processes)


LONELY = """
import os, signal, sys
from reconverge.envs.simulators import EpisodeStart, Simulators
from faulty_reach import FAULTY

class Told(Simulators):
    def _replies(self, requests):
        print(*[side.process.pid for side in self._sides], flush=True)
        return super()._replies(requests)

if __name__ == "__main__":
    Told(2).start([EpisodeStart(FAULTY, seed) for seed in range(2)])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process that is stuck")
def test_nothing_is_left_when_the_parent_is_killed(tmp_path: Path) -> None:
    """One worker is stopped and the other loops for ever: neither would ever read the end of its pipe."""
    script = tmp_path / "lonely.py"
    script.write_text(LONELY)
    (tmp_path / "plan").write_text("reset loop 9")
    environment = {**os.environ, "FAULTS": str(tmp_path), "PYTHONPATH": str(Path(__file__).parent)}
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    try:
        children = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(children) == 2
        wait_for(lambda: len(list(tmp_path.glob("fault-*"))) == 2, 20)
        os.kill(children[0], signal.SIGSTOP)
    finally:
        parent.kill()
        parent.communicate()
    wait_for(lambda: not any(map(alive, children)), 20)


def test_a_worker_that_dies_in_the_middle_of_an_answer_has_died(pool: Beset) -> None:
    """The head of a message promises 1,000 bytes, and 4 come."""
    pool.start([EpisodeStart(SOUND[0], 1)])
    side = pool._sides[0]
    assert isinstance(side, ProcessSide)
    side.process.kill()
    side._pipe.close()
    side._pipe, torn = multiprocessing.Pipe()
    with socket.socket(fileno=torn.fileno()) as end:
        end.sendall(struct.pack("!i", 1000) + b"half")
        end.shutdown(socket.SHUT_WR)
        found = side._exchange(Message([], frozenset()))
        assert isinstance(found, Failed) and "simulator-0 died (exit code -9" in found.error
    torn._handle = None  # type: ignore[attr-defined]  # closed by the socket
    assert_same(evaluated(pool, *SOUND), undisturbed(*SOUND))
    assert pool.replaced == 1


def test_a_policy_of_nan_is_named_and_no_simulator_is_asked() -> None:
    broken = policy(*SOUND, FAULTY).clone()
    with torch.no_grad():
        next(iter(broken.denoiser.parameters())).fill_(float("nan"))
    asked: list[object] = []

    class Counted(Simulators):
        def _ask(self, requests):  # type: ignore[no-untyped-def]
            asked.extend(request for request in requests if isinstance(request, Step))
            return super()._ask(requests)

    with pytest.raises(NotFiniteAction, match=r"the policy's action for task 'point-reach-0'.*its weights hold NaN"):
        rollout(broken, evaluation_starts(SOUND, 2), Counted(0))
    assert asked == []
