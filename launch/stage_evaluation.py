"""Episodes of the policy as it is: the rows of the success matrix, and the points of the curves within a stage.

    purpose     tasks                          episodes              where
    matrix      learned so far, and the next   evaluation.episodes   after a stage; the first ones are recorded for the videos
    recovery    learned before                 recovery.episodes     updates of recovery.grid
    learning    the stage's own                recovery.episodes     updates of evaluation.learning_grid

The points are played on the first episodes of the matrix, and end at the first success.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors.numpy import save as save_arrays

from reconverge.envs.artifact import write_file
from reconverge.envs.task import Task
from reconverge.envs.task_files import task_file
from reconverge.eval.flops import flops_of_query, queries
from reconverge.eval.rollout import Recording, Rollouts, evaluation_starts, planned_steps, rollout
from reconverge.launch.run_tables import StageRecord
from reconverge.launch.workplace import Workplace
from reconverge.policy.learner import Learner


class StageEvaluation:
    """Has the learner's policy act, and writes what came of it into a stage's record."""

    def __init__(self, place: Workplace, learner: Learner) -> None:
        self.place, self.learner = place, learner

    def matrix_row(self, record: StageRecord, tasks: Sequence[Task]) -> None:
        """The cells of `tasks` after a stage; the first episodes of every cell are recorded."""
        settings, folder = self.place.config.evaluation, self.place.folder
        starts = evaluation_starts(tasks, settings.episodes, settings.split)
        recorded = evaluation_starts(tasks, self.place.config.video.episodes, settings.split) if record.stage > 0 else []
        with self.place.progress.phase("evaluate", planned_steps(starts)) as tick:
            policy, timer = self.learner.acting_policy(), self.place.progress.part
            done = rollout(policy, starts, self.place.simulators, record=recorded, tick=tick, timer=timer)
            record.add_rollouts("matrix", record.updates, done)
            self._count_queries(record, "evaluate", done)
            folder.check_held()
            for task in tasks if recorded else []:
                recordings = {start.seed: recording for start, recording in done.recordings.items() if start.task == task}
                _write_recordings(folder.stage_rollouts(record.stage) / f"{task_file(task.name)}.safetensors", recordings)

    def curve_point(self, purpose: str, record: StageRecord, update: int, tasks: Sequence[Task]) -> None:
        """A point within a stage: `recovery` of the earlier tasks, `learning` of its own."""
        config = self.place.config
        starts = evaluation_starts(tasks, config.recovery.episodes, config.evaluation.split)
        policy, timer = self.learner.acting_policy(), self.place.progress.part
        with self.place.stop.released(), self.place.progress.phase(purpose, planned_steps(starts)) as tick:
            done = rollout(policy, starts, self.place.simulators, stop_at_success=True, tick=tick, timer=timer)
        record.add_rollouts(purpose, update, done)
        self._count_queries(record, purpose, done)

    @cached_property
    def flops_of_query(self) -> int:
        """Of one asking of the policy for actions."""
        return flops_of_query(self.learner.policy)

    def _count_queries(self, record: StageRecord, phase: str, done: Rollouts) -> None:
        asked = queries(done.results, self.place.config.policy.executed)
        record.flops[phase] = record.flops.get(phase, 0) + asked * self.flops_of_query


def _write_recordings(path: Path, recordings: dict[int, Recording]) -> None:
    arrays = {}
    for seed, recording in recordings.items():
        arrays[f"{seed}.states"], arrays[f"{seed}.success"] = np.ascontiguousarray(recording.states), recording.success.astype("uint8")
    if arrays:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, save_arrays(arrays))
