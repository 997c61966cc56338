"""Recorded episodes as demonstrations: what every reader of a data set gives, and how it becomes an episode here.

    recorded     o0  a0  o1  a1 ... o[T-1]  a[T-1]  (oT)        actions in the environment's own units
    success          s0      s1             s[T-1]              where the data say; the task's rule judges what they report
    kept         up to `hold_steps` after the first success, like an expert's own demonstration

Where the data say nothing of success every episode is taken for one, with success at its last step: it was recorded to be imitated.
Where the last observation is missing (LeRobot keeps as many observations as actions) the last action, whose outcome is unknown, is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from reconverge.envs.episodes import Episode
from reconverge.envs.errors import DamagedFile, UnsupportedEnvironment
from reconverge.envs.expert_source import ExpertSource
from reconverge.envs.experts import to_unit
from reconverge.envs.hdf5_episodes import hdf5_episodes
from reconverge.envs.lerobot_episodes import lerobot_episodes
from reconverge.envs.minari_episodes import minari_episodes
from reconverge.envs.recording import Recording
from reconverge.envs.task import Task


def recorded_batches(task: Task, hold_steps: int, size: int) -> Iterator[list[Episode | None]]:
    """The episodes of the task's data set in order, `size` at a time; None for one that does not succeed.

    Raises MissingExpert for a data set that was changed, UnsupportedEnvironment for one of another environment, DamagedFile for one that
    cannot be read.
    """
    source = task.expert
    assert source is not None and source.recorded
    source.require_unchanged()
    recordings = _recordings(source, task)
    while batch := [as_episode(recording, task, hold_steps) for recording in islice(recordings, size)]:
        yield batch


def _recordings(source: ExpertSource, task: Task) -> Iterator[Recording]:
    if source.kind == "minari":
        return minari_episodes(source.place, task)
    return lerobot_episodes(source.place, task.name) if source.kind == "lerobot" else hdf5_episodes(source.place, task)


def as_episode(recording: Recording, task: Task, hold_steps: int) -> Episode | None:
    """The demonstration that a recording gives; None where it does not succeed."""
    _check(recording, task)
    steps = min(len(recording.actions), len(recording.observations) - 1)
    if steps < 1:
        return None
    success = np.zeros(steps, bool)
    if recording.success is None:
        success[-1] = True
    else:
        success[:] = recording.success[:steps]
        success[-1] |= bool(recording.success[steps:].any())
    if not success.any():
        return None
    if recording.success is not None:
        steps = min(steps, int(success.argmax()) + 1 + hold_steps)
    actions = to_unit(recording.actions[:steps], task).astype(np.float32)
    observations = np.asarray(recording.observations[: steps + 1], np.float32)
    return Episode(task.name, recording.number, observations, actions, success[:steps])


def _check(recording: Recording, task: Task) -> None:
    sizes = tuple(array.shape[1] if array.ndim == 2 else -1 for array in (recording.observations, recording.actions))
    if sizes != (task.observation_size, task.action_size):
        raise UnsupportedEnvironment(
            f"expert '{task.expert}', episode {recording.number}, has observations of shape {recording.observations.shape} and actions of shape "
            f"{recording.actions.shape}; '{task.name}' has {task.observation_size} observations and {task.action_size} actions"
        )
    if not (np.isfinite(recording.observations).all() and np.isfinite(recording.actions).all()):
        raise DamagedFile(f"expert '{task.expert}', episode {recording.number}, holds a number that is not finite; take the episode out")
