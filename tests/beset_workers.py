"""Simulators whose workers are struck by signals, and whether what came out of them is the same."""

from __future__ import annotations

import contextlib
import os
import threading

import numpy as np

from reconverge.envs.simulators import Simulators
from reconverge.eval.rollout import Rollouts


def assert_same(found: Rollouts, expected: Rollouts) -> None:
    """Every result, every recorded state and every traced step, to the last bit."""
    assert found.results == expected.results
    assert found.recordings.keys() == expected.recordings.keys()
    for start, recording in expected.recordings.items():
        np.testing.assert_array_equal(found.recordings[start].states, recording.states)
        np.testing.assert_array_equal(found.recordings[start].success, recording.success)
    for ours, theirs in zip(found.traces, expected.traces, strict=True):
        for name in ("task", "seed", "observations", "actions", "success"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


class Beset(Simulators):
    """Signals workers at given requests from now on: {number of the request: [(worker, signal, seconds after it was sent)]}."""

    def __init__(self, workers: int, timeout_s: float) -> None:
        super().__init__(workers, timeout_s)
        self.beset_by({})

    def beset_by(self, blows: dict[int, list[tuple[int, int, float]]]) -> None:
        self.blows, self.asked, self.replaced = blows, 0, 0

    def _ask(self, requests):  # type: ignore[no-untyped-def]
        due = [threading.Timer(delay_s, self._strike, (worker, number)) for worker, number, delay_s in self.blows.get(self.asked, ())]
        self.asked += 1
        for blow in due:
            blow.start()
        try:
            return super()._ask(requests)
        finally:
            for blow in due:
                blow.join()

    def _strike(self, worker: int, number: int) -> None:
        with contextlib.suppress(IndexError, ProcessLookupError):
            os.kill(self._sides[worker].process.pid, number)  # type: ignore[attr-defined]
