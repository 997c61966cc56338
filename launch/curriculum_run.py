"""The curriculum loop.

    stage        0            1                     2                            K
    learn     untrained   hammer [update ...]   push-wall [update ...]          ...
    online                                      . .  .   .     .   earlier tasks, while the new one is trained
    matrix       x            x                     x                            x
    checkpoint   x            x                     x                            x
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import save as save_arrays

from reconverge.envs.artifact import sweep_drafts, write_file
from reconverge.envs.demonstrations import Demonstrations, collect
from reconverge.envs.errors import DamagedFile, TrainingDiverged
from reconverge.envs.simulators import Simulators
from reconverge.envs.task import Task
from reconverge.eval.rollout import Recording, evaluation_starts, planned_steps, rollout
from reconverge.launch.assembly import Assembly, assemble, make_windows
from reconverge.launch.checkpoint import finished_stages, load_checkpoint, read_record, save_checkpoint
from reconverge.launch.config import RunConfig
from reconverge.launch.progress import Progress
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.run_tables import CEILING_COLUMNS, FISHER_COLUMNS, StageRecord, rate_columns, write_csv, write_tables
from reconverge.launch.stage_plan import StagePlan, demonstration_budgets, plan_stages, run_curriculum
from reconverge.policy.random_streams import RandomStreams
from reconverge.policy.windows import WindowTable


def train(config: RunConfig, folder: RunFolder, progress: Progress) -> None:
    """Train on the curriculum, from the folder's last checkpoint where there is one, and write every table."""
    torch.set_num_threads(config.threads)
    with Simulators(config.evaluation.workers) as simulators:
        CurriculumRun(config, folder, progress, simulators).run()


class CurriculumRun:
    """One run: what it knows (plans, demonstrations, learner, records) and the verbs of a stage."""

    def __init__(self, config: RunConfig, folder: RunFolder, progress: Progress, simulators: Simulators) -> None:
        self.config, self.folder, self.progress, self.simulators = config, folder, progress, simulators
        self.curriculum = run_curriculum(folder, config)
        self.plans = plan_stages(config, self.curriculum)
        self.tasks = self.curriculum.tasks
        self.records: list[StageRecord] = []

    def run(self) -> None:
        self._write_curriculum()
        self.demonstrations = self.collect_demonstrations()
        self.assembly = assemble(self.config, self.tasks, self.demonstrations[self.tasks[0]], self.simulators)
        policy = self.assembly.learner.policy
        self.folder.describe_policy(policy.parameter_count, self.config.policy.denoiser)
        self.progress.note(f"policy: {self.config.policy.denoiser}, {policy.parameter_count / 1e6:.2f} M parameters")
        self._restore()
        if not self.records:
            self.begin()
        for plan in self.plans:
            if plan.number > self.records[-1].stage:
                self.run_stage(plan)

    # the verbs

    def collect_demonstrations(self) -> dict[Task, Demonstrations]:
        """Every task's demonstrations, from earlier runs where they are the same, and the expert's success rates."""
        wanted, collected = demonstration_budgets(self.plans), {}
        with self.progress.phase("demonstrations", sum(wanted.values())) as tick:
            for task, count in wanted.items():
                before = tick.done

                def show(done: int, of: int, before: int = before) -> None:
                    tick.at(before + done)

                collected[task] = collect_task(task, count, self.config, self.simulators, show)
                tick.at(before + count)
        rows = [{"task": task.name, **_ceiling(found)} for task, found in collected.items()]
        write_csv(self.folder.ceilings_csv, CEILING_COLUMNS, rows)
        return collected

    def begin(self) -> None:
        """Stage 0: the untrained policy, as the baseline of forward transfer."""
        record = StageRecord(0, [], 0)
        if self.config.evaluation.next_task:
            self.evaluate(record, self.tasks)
        self.finish(record)

    def run_stage(self, plan: StagePlan) -> None:
        """Train one stage, consolidate, evaluate, keep."""
        self.progress.stage(plan.number, len(self.curriculum.stages), plan.title)
        record = StageRecord(plan.number, [task.name for task in plan.tasks], plan.updates)
        windows = self._windows(plan)
        self.learn(plan, windows, record)
        self.consolidate(plan, windows, record)
        self.evaluate(record, self._tasks_to_evaluate(plan))
        self.finish(record)

    def learn(self, plan: StagePlan, windows: WindowTable, record: StageRecord) -> None:
        """All updates of a stage, with the earlier tasks evaluated on the recovery grid."""
        learner, config = self.assembly.learner, self.config
        earlier = [] if config.method == "single" else [task for task in self._seen_before(plan) if task not in plan.tasks]
        grid = {update for update in config.recovery.grid if update < plan.updates} if earlier else set()
        learner.begin_stage(plan.number, windows, plan.updates)
        with self.progress.phase("update", plan.updates) as tick, open(self.folder.metrics_jsonl, "a") as live:
            for update in range(1, plan.updates + 1):
                figures = learner.update()
                if update % config.train.log_every == 0 or update == plan.updates:
                    record.training.append({"stage": plan.number, "update": update, **figures.row(), **learner.method.figures()})
                    _stop_if_diverged(record.training[-1])
                    live.write(json.dumps(record.training[-1]) + "\n")
                    live.flush()
                if update in grid:
                    self._measure_recovery(record, update, earlier)
                tick()

    def consolidate(self, plan: StagePlan, windows: WindowTable, record: StageRecord) -> None:
        """Fix the optimum, estimate its Fisher, freeze the teacher, teach the generator, and note what is kept."""
        learner, source = self.assembly.learner, self.assembly.source
        with self.progress.phase("fisher"):
            learner.end_stage()
        for fisher in learner.method.fishers():
            figures = {name: getattr(fisher, name) for name in FISHER_COLUMNS if name not in ("stage", "task")}
            record.fisher.append({"stage": plan.number, "task": plan.title, **figures})
        if source is not None:
            assert learner.teacher is not None
            label, streams = learner.policy.task_index(plan.tasks[0]), RandomStreams(self.config.seed, plan.number)
            windows = windows.to(learner.policy.device)
            with self.progress.phase("generator", self.config.replay.generator.updates) as tick:
                source.learn(label, windows, streams, tick)
            with self.progress.phase("replay"):
                source.refill(label, windows, learner.teacher, streams)
        record.ledger = self._ledger(plan)

    def evaluate(self, record: StageRecord, tasks: Sequence[Task]) -> None:
        """One row of the success matrix; the first episodes of every cell are recorded for the videos."""
        policy, settings = self.assembly.learner.acting_policy(), self.config.evaluation
        if self.config.method == "single":
            tasks = self._keep_own_results(record, tasks)
        starts = evaluation_starts(tasks, settings.episodes)
        recorded = evaluation_starts(tasks, self.config.video.episodes) if record.stage > 0 else []
        with self.progress.phase("evaluate", planned_steps(starts)) as tick:
            done = rollout(policy, starts, self.simulators, record=recorded, tick=tick, timer=self.progress.part)
            record.add_episodes("matrix", record.updates, done.results)
            for task in tasks if recorded else []:
                recordings = {start.seed: recording for start, recording in done.recordings.items() if start.task == task}
                _write_recordings(self.folder.stage_rollouts(record.stage) / f"{task.name}.safetensors", recordings)

    def finish(self, record: StageRecord) -> None:
        """Checkpoint, then the tables: what the tables say is always covered by a checkpoint."""
        self.records.append(record)
        with self.progress.phase("checkpoint"):
            save_checkpoint(self.folder.checkpoint(record.stage), self.assembly, record, self.progress.seconds)
            self._write_tables()

    # parts

    def _restore(self) -> None:
        sweep_drafts(self.folder.path)
        if self.folder.checkpoints.exists():
            sweep_drafts(self.folder.checkpoints)
        stages = finished_stages(self.folder.checkpoints)
        for stage in stages:
            record, seconds = read_record(self.folder.checkpoint(stage))
            self.records.append(record)
        if stages:
            load_checkpoint(self.folder.checkpoint(stages[-1]), self.assembly, stages[-1])
            for name, spent in seconds.items():
                self.progress.seconds[name] = self.progress.seconds.get(name, 0.0) + spent
            self._write_tables()
            finished = stages[-1] == self.plans[-1].number
            self.progress.note("this run is finished already" if finished else f"resumed after stage {stages[-1]} of {self.plans[-1].number}")

    def _windows(self, plan: StagePlan) -> WindowTable:
        policy = self.assembly.learner.policy
        tables = []
        for task, count in zip(plan.tasks, plan.demonstrations, strict=True):
            found = self.demonstrations[task]
            chosen = Demonstrations(task, found.episodes[:count], found.attempts, found.successes)
            tables.append(make_windows(chosen, policy.task_index(task), self.config.policy))
        return WindowTable.union(tables)

    def _measure_recovery(self, record: StageRecord, update: int, earlier: Sequence[Task]) -> None:
        policy, starts = self.assembly.learner.acting_policy(), evaluation_starts(earlier, self.config.recovery.episodes)
        with self.progress.phase("recovery", planned_steps(starts)) as tick:
            done = rollout(policy, starts, self.simulators, stop_at_success=True, tick=tick, timer=self.progress.part)
            record.add_episodes("recovery", update, done.results)

    def _seen_before(self, plan: StagePlan) -> list[Task]:
        return list(dict.fromkeys(task for other in self.plans if other.number < plan.number for task in other.tasks))

    def _keep_own_results(self, record: StageRecord, tasks: Sequence[Task]) -> list[Task]:
        """Where every task has a policy of its own, an earlier one's episodes are those of its own stage: copy them, return the other tasks."""
        before = self.records[-1].episodes if self.records else []
        learned = {name for earlier in self.records for name in earlier.tasks} - set(record.tasks)
        kept = [row for row in before if row["purpose"] == "matrix" and row["task"] in learned]
        record.episodes += [{**row, "stage": record.stage, "update": record.updates} for row in kept]
        return [task for task in tasks if task.name not in learned]

    def _tasks_to_evaluate(self, plan: StagePlan) -> list[Task]:
        tasks = [*self._seen_before(plan), *plan.tasks]
        if self.config.evaluation.next_task and plan.number < len(self.curriculum.stages):
            tasks.append(self.curriculum.stages[plan.number].task)
        return [task for task in self.tasks if task in tasks]

    def _ledger(self, plan: StagePlan) -> list[dict[str, Any]]:
        learner, source = self.assembly.learner, self.assembly.source
        policy_bytes = learner.parameters.values.numel() * learner.parameters.values.element_size()
        kept: list[tuple[str, int, bool]] = [("policy, which is also the next teacher", policy_bytes, False)]
        kept += [(item, size, False) for hook in learner.method.hooks for item, size in hook.kept().items()]
        if self.config.method == "joint":
            size = sum(part.nbytes for task in self.demonstrations.values() for e in task.episodes for part in (e.observations, e.actions))
            kept.append(("all demonstrations", size, True))
        kept += [(entry.item, entry.bytes, entry.past_task_data) for entry in (source.ledger() if source is not None else [])]
        return [{"stage": plan.number, "item": item, "bytes": size, "past_task_data": past} for item, size, past in kept]

    def _write_curriculum(self) -> None:
        resolved = self.curriculum.resolved(self.config.train.updates, self.config.demonstrations.episodes)
        write_file(self.folder.curriculum_yaml, resolved.to_yaml())

    def _write_tables(self) -> None:
        write_tables(self.folder.path, self.records, read_probes(self.folder), self.config.recovery.episodes, self.config.recovery.thresholds)
        write_cost(self.folder, self.progress)


def collect_task(
    task: Task, count: int, config: RunConfig, simulators: Simulators, progress: Callable[[int, int], None] | None = None
) -> Demonstrations:
    return collect(task, config.demonstrations, count, Path(config.demonstrations.folder), progress, simulators)


def write_cost(folder: RunFolder, progress: Progress) -> None:
    """Write the seconds of every phase so far; call it again when another phase has ended."""
    total_s = round(progress.total_s, 2)
    phases = {name: round(seconds, 2) for name, seconds in progress.seconds.items()}
    table = folder.episodes_csv
    episodes = len(table.read_text().splitlines()) - 1 if table.exists() else 0
    content = {"phases": phases, "total_s": total_s, "episodes_evaluated": episodes}
    write_file(folder.cost_json, json.dumps(content, indent=1) + "\n")


def read_probes(folder: RunFolder) -> list[dict[str, Any]]:
    """Curve rows that `recover` measured."""
    path = folder.path / "probes.json"
    try:
        return list(json.loads(path.read_text())) if path.exists() else []
    except (OSError, ValueError, TypeError) as error:
        raise DamagedFile(f"{path} cannot be read; delete it and run `reconverge recover {folder.path}` again") from error


def restore_learner(config: RunConfig, folder: RunFolder, stage: int) -> Assembly:
    """A learner as it was at the end of `stage`."""
    assembly = assemble(config, run_curriculum(folder, config).tasks, None)
    load_checkpoint(folder.checkpoint(stage), assembly, stage)
    return assembly


def _ceiling(found: Demonstrations) -> dict[str, Any]:
    columns = rate_columns(found.successes, found.attempts)
    return {"attempts": columns.pop("episodes"), **columns}


def _write_recordings(path: Path, recordings: dict[int, Recording]) -> None:
    arrays = {}
    for seed, recording in recordings.items():
        arrays[f"{seed}.states"], arrays[f"{seed}.success"] = recording.states, recording.success.astype("uint8")
    if arrays:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, save_arrays(arrays))


def _stop_if_diverged(row: dict[str, Any]) -> None:
    figures = {name: row[name] for name in ("loss", "replay_loss", "penalty", "gradient_norm") if row[name] is not None}
    for name, value in figures.items():
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"{name} is {value} at stage {row['stage']}, update {row['update']}; the last checkpoint is intact. "
                "Start anew with a lower --train.optimizer.learning-rate or --train.trust-region.strength"
            )
