"""The recovery probe: how many updates a copy of the learner needs to bring an earlier task back.

From the checkpoint of every stage, a copy revisits each earlier task with that task's demonstrations, its method's
replay and trust region in place, until the task is back at 99 % of its initial success or the budget is spent. The
run itself is not changed.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from reconverge.envs.artifact import write_file
from reconverge.envs.curriculum import load_curriculum
from reconverge.envs.errors import RunFolderError
from reconverge.envs.simulators import Simulators
from reconverge.envs.task import Task
from reconverge.eval.recovery import Curve, recovery_updates
from reconverge.eval.rollout import evaluation_seeds, rollout
from reconverge.launch.assembly import make_windows
from reconverge.launch.checkpoint import finished_stages, read_record
from reconverge.launch.config import RunConfig
from reconverge.launch.curriculum_run import collect_task, plan_stages, restore_learner
from reconverge.launch.progress import Progress
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.run_tables import probe_curve_row, recoveries, reference_rates, write_tables
from reconverge.policy.windows import WindowTable

Row = dict[str, Any]


def recover(folder: RunFolder, progress: Progress, updates: int | None = None, episodes: int | None = None) -> list[Row]:
    """Measure every (stage, earlier task) of a run, add the curves to its tables and return the recovery rows."""
    config = folder.config
    torch.set_num_threads(config.threads)
    stages = finished_stages(folder.checkpoints)
    records = [read_record(folder.checkpoint(stage))[0] for stage in stages]
    count = episodes or config.recovery.episodes
    references = reference_rates(records, count)
    if not references:
        raise RunFolderError(f"{folder.path} has finished no stage with an earlier task yet; let it finish two stages, then run recover again")

    curves: list[Row] = []
    tasks = {task.name: task for task in load_curriculum(config.curriculum).tasks}
    with Simulators(config.evaluation.workers) as simulators, progress.phase("probe", len(references)) as tick:
        for stage, name in references:
            probe = _Probe(config, folder, tasks[name], stage, simulators)
            curves += probe.run(references[stage, name], config.recovery.probe_updates if updates is None else updates, count)
            progress.note(f"probe after stage {stage}, {name}: {_summary(curves[-1], references[stage, name])}")
            tick()
    write_file(folder.path / "probes.json", json.dumps(curves))
    write_tables(folder.path, records, curves, config.recovery.episodes, config.recovery.thresholds)
    return recoveries(curves, references, config.recovery.thresholds)


class _Probe:
    """One copy of the learner revisiting one task."""

    def __init__(self, config: RunConfig, folder: RunFolder, task: Task, stage: int, simulators: Simulators) -> None:
        self.config, self.task, self.stage, self.simulators = config, task, stage, simulators
        curriculum = load_curriculum(config.curriculum)
        budget = max(
            count for plan in plan_stages(config, curriculum) for each, count in zip(plan.tasks, plan.demonstrations, strict=True) if each == task
        )
        demonstrations = collect_task(task, budget, config, simulators)
        first = demonstrations if task == curriculum.tasks[0] else collect_task(curriculum.tasks[0], _first_budget(config), config, simulators)
        self.learner = restore_learner(config, folder, stage, first).learner
        self.windows: WindowTable = make_windows(demonstrations, self.learner.policy.task_index(task), config.policy)

    def run(self, reference: float, updates: int, episodes: int) -> list[Row]:
        """Curve rows at 0 and on the grid, up to the first point at 99 % of the reference."""
        grid = [*(point for point in self.config.recovery.grid if point < updates), updates]
        self.learner.begin_stage(_probe_stage(self.stage, self.learner.policy.task_index(self.task)), self.windows, updates)
        rows = [self._measure(0, episodes)]
        for update in range(1, updates + 1):
            self.learner.update()
            if update in grid:
                rows.append(self._measure(update, episodes))
                curve = Curve([row["update"] for row in rows], [row["successes"] / max(row["episodes"], 1) for row in rows])
                if recovery_updates(curve, reference, 99) is not None:
                    break
        return rows

    def _measure(self, update: int, episodes: int) -> Row:
        seeds = evaluation_seeds(self.task, episodes)
        results, _ = rollout(self.learner.acting_policy(), self.task, seeds, self.simulators, stop_at_success=True)
        return probe_curve_row(self.stage, self.task.name, update, results)


def _probe_stage(stage: int, task: int) -> int:
    """A stage number of its own for the random streams, which no stage of a curriculum has."""
    return 1_000_000 + 1000 * stage + task


def _first_budget(config: RunConfig) -> int:
    return plan_stages(config, load_curriculum(config.curriculum))[0].demonstrations[0]


def _summary(last: Row, reference: float) -> str:
    rate = last["successes"] / max(last["episodes"], 1)
    return f"{100 * rate:.0f} % after {last['update']} updates (initially {100 * reference:.0f} %)"
