"""The recovery probe: how many updates a copy of the learner needs to bring an earlier task back.

From the checkpoint of every stage, a copy revisits each earlier task with that task's demonstrations, its method's
replay of the other tasks and its trust region in place, until the task is back at the highest threshold or the budget is
spent. The learning rate follows the schedule of a whole stage, so a larger budget looks further and changes nothing
before. The run itself is not changed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from reconverge.envs.artifact import write_file
from reconverge.envs.demonstrations import data_digest
from reconverge.envs.errors import ConfigError, RunFolderError
from reconverge.envs.simulator_fingerprint import simulator_fingerprints
from reconverge.envs.simulators import SimulatorFailure, Simulators
from reconverge.eval.recovery import Curve, recovery_updates
from reconverge.eval.rollout import evaluation_starts, rollout
from reconverge.launch.assembly import make_windows
from reconverge.launch.checkpoint import checkpoint_of, read_record, stages_in_order
from reconverge.launch.config import RunConfig
from reconverge.launch.progress import Progress
from reconverge.launch.restored_learner import restore_learner
from reconverge.launch.run_demonstrations import collect_task
from reconverge.launch.run_folder import RunFolder, resume_command
from reconverge.launch.run_tables import PROBES, StageRecord, probe_curve_row, read_probes, recoveries, reference_rates, write_tables
from reconverge.launch.stage_plan import demonstration_budgets, plan_stages, run_curriculum
from reconverge.launch.stop_request import StopRequest, interruptions_held
from reconverge.policy.exact_arithmetic import set_arithmetic

Row = dict[str, Any]


def recover(
    folder: RunFolder,
    progress: Progress,
    updates: int | None = None,
    episodes: int | None = None,
    *,
    stages: Sequence[int] = (),
    tasks: Sequence[str] = (),
    device: str | None = None,
) -> list[Row]:
    """Measure every (stage, earlier task) of a run, or those of some stages and tasks, add the curves to its tables and return the recovery rows.

    Probes that were measured before with the same budget and episodes are not repeated, on whatever device, so an interrupted measurement goes on.
    Raises RunFolderError for a stage without a checkpoint, ConfigError where stages and tasks leave nothing to measure.
    A task that fails in its simulator is noted and not probed again here; SimulatorFailure when all others are done, to say so once more.
    """
    config = folder.config if device is None else replace(folder.config, device=device)
    set_arithmetic(config.threads)
    budget = config.recovery.probe_updates if updates is None else updates
    count = episodes or config.recovery.episodes
    _check_run(folder, config, count, stages)
    records = [read_record(folder.checkpoint(stage))[0] for stage in stages_in_order(folder, plan_stages(config, run_curriculum(folder, config)))]
    references = {cell: rate for cell, rate in reference_rates(records, count).items() if rate > 0}
    _refuse_nothing_to_probe(folder, records, references)
    asked = _asked(references, stages, tasks)

    probes = _KeptProbes(folder, config, records, [budget, count])
    failed: dict[str, SimulatorFailure] = {}
    with (
        StopRequest(progress.say_at_once),
        Simulators(config.evaluation.workers) as simulators,
        progress.phase("probe", len(asked), len(asked.keys() & probes.curves.keys())) as tick,
    ):
        for (stage, name), reference in asked.items():
            if (stage, name) in probes.curves:
                continue
            if name not in failed:
                try:
                    rows = _Probe(config, folder, stage, name, simulators).run(reference, budget, count)
                except SimulatorFailure as failure:
                    failed[name] = failure
                    progress.note(f"no probe of {name} from stage {stage} on: {failure}")
                else:
                    probes.keep(stage, name, rows)
                    progress.note(f"probe after stage {stage}, {name}: {_summary(rows[-1])}")
            tick()
    if failed:
        others = f"; the other {len(probes.curves)} probes are in {folder.path}" if probes.curves else ""
        raise SimulatorFailure(f"not probed: {'; '.join(map(str, failed.values()))}{others}. The same command measures what is missing")
    return recoveries([row for cell in asked for row in probes.curves[cell]], {}, config.recovery.thresholds)


class _KeptProbes:
    """The curves of a run's probes with these `settings`, by (stage, task); every new one is written into the run at once, with all tables."""

    def __init__(self, folder: RunFolder, config: RunConfig, records: Sequence[StageRecord], settings: list[int]) -> None:
        self.folder, self.recovery, self.records, self.settings = folder, config.recovery, records, settings
        before = read_probes(folder.path)
        if before:  # a measurement that was broken off may have left the tables behind them
            self._write_tables(before)
        self.curves = {cell: rows for cell, rows in _by_probe(before).items() if rows[0]["settings"] == settings}

    def keep(self, stage: int, task: str, rows: Sequence[Row]) -> None:
        self.curves[stage, task] = [{**row, "settings": self.settings} for row in rows]
        measured = [row for curve in self.curves.values() for row in curve]
        self.folder.check_held()
        with interruptions_held():
            write_file(self.folder.path / PROBES, json.dumps(measured))
            self._write_tables(measured)

    def _write_tables(self, probes: Sequence[Row]) -> None:
        write_tables(self.folder.path, self.records, probes, self.recovery.episodes, self.recovery.thresholds)


class _Probe:
    """One copy of the learner revisiting one task."""

    def __init__(self, config: RunConfig, folder: RunFolder, stage: int, name: str, simulators: Simulators) -> None:
        self.config, self.stage, self.simulators = config, stage, simulators
        plans = plan_stages(config, run_curriculum(folder, config))
        self.task = next(task for plan in plans for task in plan.tasks if task.name == name)
        self.schedule = next(plan.updates for plan in plans if self.task in plan.tasks)
        self.learner = restore_learner(config, folder, stage).learner
        demonstrations = collect_task(self.task, demonstration_budgets(plans)[self.task], config, simulators)
        folder.keep_facts("demonstrations", {name: data_digest(demonstrations)})
        self.windows = make_windows(demonstrations.episodes, self.task, self.learner.policy.task_index(self.task), config.policy)

    def run(self, reference: float, updates: int, episodes: int) -> list[Row]:
        """Curve rows at 0 and on the grid, up to the first point at the highest threshold of the reference."""
        grid = {*(point for point in self.config.recovery.grid if point < updates), updates}
        self.learner.begin_stage(_probe_stage(self.stage, self.learner.policy.task_index(self.task)), self.windows, max(self.schedule, updates))
        rows = [self._measure(0, episodes, reference)]
        for update in range(1, updates + 1):
            self.learner.update()
            if update in grid:
                rows.append(self._measure(update, episodes, reference))
                curve = Curve([row["update"] for row in rows], [row["successes"] / row["episodes"] for row in rows])
                if recovery_updates(curve, reference, max(self.config.recovery.thresholds)) is not None:
                    break
        return rows

    def _measure(self, update: int, episodes: int, reference: float) -> Row:
        self.learner.check_finite()
        starts = evaluation_starts([self.task], episodes, self.config.evaluation.split)
        done = rollout(self.learner.acting_policy(), starts, self.simulators, stop_at_success=True).require_all()
        return probe_curve_row(self.stage, self.task.name, update, done.results, reference)


def _check_run(folder: RunFolder, config: RunConfig, episodes: int, stages: Sequence[int]) -> None:
    """Whether these stages of the run can be probed here, against references over so many episodes."""
    if episodes > config.evaluation.episodes:
        raise ConfigError(f"{episodes} episodes exceed the run's evaluation.episodes {config.evaluation.episodes}, which the reference is made of")
    for stage in (None, *stages):
        checkpoint_of(folder, stage)
    if config.method == "single":
        raise RunFolderError(f"{folder.path} has a policy of its own for every task; nothing is forgotten, so there is nothing to recover")
    folder.keep_facts("simulators", simulator_fingerprints(run_curriculum(folder, config).tasks))


def _refuse_nothing_to_probe(folder: RunFolder, records: list[StageRecord], references: dict[tuple[int, str], float]) -> None:
    if references:
        return
    last_planned = plan_stages(folder.config, run_curriculum(folder, folder.config))[-1].number
    if records[-1].stage >= last_planned:
        raise RunFolderError(f"{folder.path} is finished and no stage of it has an earlier task that was learned at all; there is nothing to recover")
    raise RunFolderError(f"{folder.path} has finished no stage with an earlier task yet; go on with: {resume_command(folder.path)}")


def _asked(references: dict[tuple[int, str], float], stages: Sequence[int], tasks: Sequence[str]) -> dict[tuple[int, str], float]:
    asked = {(stage, task): rate for (stage, task), rate in references.items() if stage in (stages or (stage,)) and task in (tasks or (task,))}
    if not asked:
        there = ", ".join(f"{task} after stage {stage}" for stage, task in list(references)[:5])
        raise ConfigError(f"--stages and --tasks leave no earlier task to probe; there are {there}{' and more' if len(references) > 5 else ''}")
    return asked


def _by_probe(rows: Sequence[Row]) -> dict[tuple[int, str], list[Row]]:
    probes: dict[tuple[int, str], list[Row]] = {}
    for row in rows:
        probes.setdefault((row["stage"], row["task"]), []).append(row)
    return probes


def _probe_stage(stage: int, task: int) -> int:
    """A stage number of its own for the random streams, which no stage of a curriculum has."""
    return 1_000_000 + 1000 * stage + task


def _summary(last: Row) -> str:
    rate = last["successes"] / max(last["episodes"], 1)
    return f"{100 * rate:.0f} % after {last['update']} updates (initially {100 * last['reference_rate']:.0f} %)"
