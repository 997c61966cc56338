"""The heavier half of the kill matrix: workers killed in the middle of Meta-World episodes, whose tables must not change."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest
from beset_workers import Beset, assert_same

from reconverge.envs.curriculum import CW10
from reconverge.envs.simulators import Simulators
from reconverge.envs.tasks import find_task
from reconverge.eval.rollout import Rollouts, evaluation_starts, rollout
from reconverge.policy.config import PolicyConfig, ResidualMLPConfig
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.normalizer import Normalizer

pytestmark = [pytest.mark.mujoco, pytest.mark.faults]
TASKS = [find_task(name) for name in CW10]


def evaluated(pool: Simulators) -> Rollouts:
    """Two whole episodes of each of the ten tasks, three of them recorded."""
    config = PolicyConfig(mlp=ResidualMLPConfig(16, 1, 8), timesteps=10, sampling_steps=2)
    policy = DiffusionPolicy(config, [task.name for task in TASKS], 39, 4, Normalizer.for_task(TASKS[0]), seed=0)
    starts = evaluation_starts(TASKS, 2)
    return rollout(policy, starts, pool, record=starts[3:6], trace=True)


@pytest.fixture(scope="module")
def undisturbed() -> Rollouts:
    with Simulators(1) as pool:
        return evaluated(pool)


def test_twenty_kills_one_after_the_other(undisturbed: Rollouts) -> None:
    """At seeded moments within requests, which take some 30 ms here."""
    random = np.random.default_rng(11)
    moments = random.choice(np.arange(0, 25), 20, replace=False).tolist()
    with Beset(2, 60.0) as pool:
        pool.beset_by({moment: [(int(random.integers(2)), signal.SIGKILL, float(random.uniform(0, 0.05)))] for moment in moments})
        found = evaluated(pool)
        pool.blows = {}
        assert 18 <= pool.replaced <= 20, "all but those that came before the first worker or after the last request"
    assert_same(found, undisturbed)


def test_a_fresh_worker_that_is_killed_while_it_replays(undisturbed: Rollouts) -> None:
    class TwiceBeset(Beset):
        """Kills the first successor of every worker as soon as it was asked to repeat."""

        def _replace(self, part, request):  # type: ignore[no-untyped-def]
            super()._replace(part, request)
            if part not in self.struck:
                self.struck.add(part)
                os.kill(self._sides[part].process.pid, signal.SIGKILL)  # type: ignore[attr-defined]

    with TwiceBeset(2, 60.0) as pool:
        pool.struck = set()
        pool.beset_by({12: [(0, signal.SIGKILL, 0.0)], 20: [(1, signal.SIGKILL, 0.01)]})
        assert_same(evaluated(pool), undisturbed)
        assert pool.replaced == 4


def test_a_stopped_worker_is_replaced_within_twice_the_timeout(undisturbed: Rollouts) -> None:
    timeout_s = 20.0  # a fresh worker compiles ten models first: 11 s at a load of 6 on two cores
    with Beset(2, timeout_s) as pool:
        evaluated(pool)
        began = time.monotonic()
        evaluated(pool)
        healthy_s = time.monotonic() - began
        pool.beset_by({12: [(0, signal.SIGSTOP, 0.005)]})
        began = time.monotonic()
        assert_same(evaluated(pool), undisturbed)
        assert pool.replaced == 1
    assert time.monotonic() - began < healthy_s + 2 * timeout_s
