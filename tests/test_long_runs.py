"""What a day of training does thousands of times leaves memory, files, threads and shared memory as they were."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_policy import random_windows, small_policy

from reconverge.envs.artifact import Artifact
from reconverge.envs.simulators import Simulators
from reconverge.envs.tasks import find_task
from reconverge.eval.rollout import evaluation_starts, rollout
from reconverge.policy.config import TrainConfig
from reconverge.policy.learner import Learner
from reconverge.policy.methods.bounds import finetune

PAGE = os.sysconf("SC_PAGE_SIZE")


def holdings() -> dict[str, int]:
    """Resident bytes, open files, threads and files in shared memory of this process."""
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
    return {"bytes": resident, "files": len(os.listdir("/proc/self/fd")), "threads": threading.active_count(), "shared": len(os.listdir("/dev/shm"))}


def stays_flat(work: Callable[[int], object], count: int, most_growth: float) -> None:
    """Do it a tenth of `count` times to warm up, then `count` times: nothing stays open, and memory grows by a share of at most `most_growth`."""
    for number in range(count // 10):
        work(number)
    before = holdings()
    for number in range(count):
        work(number)
    after = holdings()
    growth = after.pop("bytes") / before.pop("bytes") - 1
    print(f"{count} times: memory {100 * growth:+.2f} %, files, threads and shared memory {'as before' if after == before else 'grew'}")
    assert after == before
    assert growth < most_growth


@pytest.mark.parametrize("count", [200, pytest.param(5000, marks=pytest.mark.faults)])
def test_episodes(count: int) -> None:
    task = find_task("point-reach-0")
    policy = small_policy((task.name,), sampling_steps=1)
    policy = type(policy)(policy.config, (task.name,), task.observation_size, task.action_size, policy.normalizer.__class__.for_task(task, None), 0)
    with Simulators(0) as simulators:
        starts = evaluation_starts([task], 5)
        stays_flat(lambda number: rollout(policy, starts, simulators), count // 5, 0.02)


@pytest.mark.parametrize("count", [50, pytest.param(500, marks=pytest.mark.faults)])
def test_saves(count: int, tmp_path: Path) -> None:
    policy = small_policy()

    def save(number: int) -> None:
        policy.save(tmp_path / "policy")
        Artifact(tmp_path / "policy").arrays("policy.safetensors")

    stays_flat(save, count, 0.02)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["manifest.json", "policy", "policy.json", "policy.safetensors"]


@pytest.mark.parametrize("count", [300, pytest.param(10000, marks=pytest.mark.faults)])
def test_updates(count: int) -> None:
    learner = Learner(small_policy(), finetune(), TrainConfig(batch_size=16), seed=0)
    learner.begin_stage(1, random_windows(), 2 * count)
    stays_flat(lambda number: learner.update(), count, 0.02)


@pytest.mark.faults
@pytest.mark.mujoco
def test_simulators_made_and_dropped() -> None:
    def make(number: int) -> None:
        with Simulators(0) as simulators:
            starts = evaluation_starts([find_task("hammer-v3"), find_task("push-v3")], 2)
            simulators.start(starts)
            simulators.step(np.arange(4), np.zeros((4, 4, 4)))

    stays_flat(make, 200, 0.05)


@pytest.mark.faults
@pytest.mark.mujoco
def test_ten_thousand_episodes_begun() -> None:
    task = find_task("push-v3")
    with Simulators(0) as simulators:

        def begin(number: int) -> None:
            simulators.start([start._replace(seed=start.seed + number) for start in evaluation_starts([task], 4)])

        stays_flat(begin, 2500, 0.02)


@pytest.mark.faults
def test_worker_processes_made_and_dropped() -> None:
    def make(number: int) -> None:
        with Simulators(2) as simulators:
            simulators.start(evaluation_starts([find_task("point-reach-0")], 4))

    stays_flat(make, 20, 0.02)
