"""The experts of a run's tasks on the very episodes on which its policies are evaluated: what there is to be reached there.

The ceilings of a run count its attempts at demonstrations, which start elsewhere. Here the expert plays the evaluation's list, with the
run's settings: tried at several paces it has solved an episode that it solves at one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconverge.envs.demonstrations import paces_of
from reconverge.envs.episodes import Episode
from reconverge.envs.errors import UnknownName, UnsupportedEnvironment
from reconverge.envs.experts import check_expert
from reconverge.envs.simulators import SimulatorFailure, Simulators
from reconverge.eval.config import Split
from reconverge.eval.rollout import evaluation_seeds
from reconverge.launch.progress import Progress
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.run_tables import rate_columns
from reconverge.launch.stage_plan import run_curriculum

AT_ONCE = 20


def evaluate_experts(
    folder: RunFolder, progress: Progress, tasks: Sequence[str] = (), episodes: int | None = None, split: Split | None = None
) -> list[dict[str, Any]]:
    """One row per task: the success of its expert. What is left out is as in the run.

    A task that fails in its simulator is noted and has no episodes, its rate is NaN. Raises UnknownName for a task that is none of the run's,
    UnsupportedEnvironment for an expert that is recorded episodes.
    """
    config = folder.config
    own = {task.name: task for task in run_curriculum(folder, config).tasks}
    for name in tasks:
        if name not in own:
            raise UnknownName("task", name, list(own), str(folder.path))
    chosen = [task for task in own.values() if not tasks or task.name in tasks]
    for task in chosen:
        if task.expert is not None and task.expert.recorded:
            raise UnsupportedEnvironment(f"the expert of '{task.name}', {task.expert}, is recorded episodes, which cannot play others")
        check_expert(task)
    count, played, rows = episodes or config.evaluation.episodes, split or config.evaluation.split, []
    with Simulators(config.evaluation.workers) as simulators, progress.phase("evaluate", count * len(chosen)) as tick:
        for task in chosen:
            seeds, runs = evaluation_seeds(task, count, played), list[Episode | None]()
            try:
                for first in range(0, count, AT_ONCE):
                    part = seeds[first : first + AT_ONCE]
                    runs += simulators.run_expert(task, part, 0, config.demonstrations.action_noise, paces_of(task, config.demonstrations))
                    tick(len(part))
            except SimulatorFailure as failure:
                progress.note(f"not evaluated: {failure}")
                runs = []
            rows.append({"task": task.name, "split": played, **rate_columns(sum(run is not None for run in runs), len(runs))})
    return rows
