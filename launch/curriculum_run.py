"""The curriculum loop.

    stage        0            1                     2                            K
    learn     untrained   hammer [update ...]   push-wall [update ...]          ...
    online                                      . .  .   .     .   earlier tasks, while the new one is trained
    learning                 .   .   .   .      .   .   .   .      the new task itself, where evaluation.learning_grid says so
    matrix       x            x                     x                            x
    checkpoint   x            x                     x                            x
    saved        . within a stage: every few minutes, at the end of learning, after consolidation, and when asked to stop
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from reconverge.envs.artifact import write_file
from reconverge.envs.curriculum import Curriculum
from reconverge.envs.demonstrations import data_digest
from reconverge.envs.episodes import Episode
from reconverge.envs.errors import DamagedFile, LossLeapt, OutOfDeviceMemory, RunFolderError
from reconverge.envs.gym_name import short_name
from reconverge.envs.simulator_fingerprint import simulator_fingerprints
from reconverge.envs.simulators import Simulators
from reconverge.envs.task import Task
from reconverge.eval.flops import ONE_QUERY, SecondPiece, counted, flops_of_run
from reconverge.eval.headlines import played_at
from reconverge.eval.run_results import read_run
from reconverge.launch.assembly import assemble, make_windows
from reconverge.launch.checkpoint import load_checkpoint, read_record, save_checkpoint, stages_in_order
from reconverge.launch.config import RunConfig
from reconverge.launch.progress import Progress, clock_text
from reconverge.launch.remaining_time import remaining
from reconverge.launch.run_cost import write_cost
from reconverge.launch.run_demonstrations import collect_all
from reconverge.launch.run_folder import RunFolder, resume_command
from reconverge.launch.run_tables import (
    CEILING_COLUMNS,
    StageRecord,
    ceiling_row,
    read_probes,
    success_rates,
    write_csv,
    write_tables,
)
from reconverge.launch.stage_evaluation import StageEvaluation
from reconverge.launch.stage_learning import StageLearning
from reconverge.launch.stage_plan import StagePlan, plan_stages, run_curriculum
from reconverge.launch.stop_request import StopRequest
from reconverge.launch.unfinished_stage import UnfinishedStage, drop_stage, drop_unfinished, read_unfinished, save_consolidated
from reconverge.launch.workplace import Workplace
from reconverge.policy.exact_arithmetic import set_arithmetic
from reconverge.policy.random_streams import RandomStreams
from reconverge.policy.windows import WindowTable

if TYPE_CHECKING:
    from reconverge.launch.data_parallel_run import Lead


LARGEST_SHARE_OF_THE_START = 0.05
"""Of the weights at a stage's start in those at its end, beyond which a run says so."""


def train(config: RunConfig, folder: RunFolder, progress: Progress, lead: Lead | None = None, curriculum: Curriculum | None = None) -> None:
    """Train on the curriculum, from the folder's last save where there is one, and write every table. `lead` has other processes share the updates.

    The curriculum is the folder's own, or that of the configuration where a run begins. Neither has archives trusted: a `curriculum` is given
    where the user's own word does.

    Raises Stopped on SIGTERM, SIGINT, SIGHUP or SIGUSR1, with what there is saved; OutOfDeviceMemory, with the last save as it was.
    """
    set_arithmetic(config.threads)
    with (
        StopRequest(progress.say_at_once) as stop,
        Simulators(config.evaluation.workers) as simulators,
        device_memory_in_words(config.device, folder.path),
    ):
        CurriculumRun(Workplace(config, folder, progress, simulators, stop, lead), curriculum).run()


@contextmanager
def device_memory_in_words(device: str, folder: Path) -> Iterator[None]:
    """Raise OutOfDeviceMemory in place of torch's own error."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfDeviceMemory(
            f"the memory of {device} ran out ({str(error).split('. ')[0]}); the last save is intact. Go on with "
            f"`{resume_command(folder)}` where there is more memory or nobody else uses it, or start anew with "
            "a smaller --train.batch-size, --replay.generator.batch-size or --train.trust-region.draws"
        ) from error


class CurriculumRun:
    """One run: what it knows (plans, demonstrations, learner, records) and the verbs of a stage."""

    def __init__(self, place: Workplace, curriculum: Curriculum | None = None) -> None:
        self.place, self.config, self.folder, self.progress = place, place.config, place.folder, place.progress
        self.curriculum = curriculum or run_curriculum(self.folder, self.config)
        self.plans = plan_stages(self.config, self.curriculum)
        self.tasks = self.curriculum.tasks
        self.records: list[StageRecord] = []
        self.unfinished: UnfinishedStage | None = None

    def run(self) -> None:
        self._refuse_torn_extension()
        self._write_curriculum()
        self.folder.keep_facts("simulators", simulator_fingerprints(self.tasks))
        self.demonstrations = collect_all(self.plans, self.config, self.place.simulators, self.progress)
        self.folder.keep_facts("demonstrations", {task.name: data_digest(found) for task, found in self.demonstrations.items()})
        self._write_ceilings()
        self.assembly = assemble(self.config, self.tasks, self._episodes_of(self.plans[0])[0], self.place.simulators)
        self.evaluation = StageEvaluation(self.place, self.assembly.learner)
        self.learning = StageLearning(self.place, self.assembly, self.evaluation)
        policy = self.assembly.learner.policy
        self.folder.describe_policy(policy.parameter_count, self.config.policy.denoiser)
        self.progress.note(f"policy: {self.config.policy.denoiser}, {policy.parameter_count / 1e6:.2f} M parameters")
        self._note_a_slow_average()
        self.processes = 1 if self.place.lead is None else self.place.lead.ranks.count
        if self.processes > 1:
            self.progress.note(f"{self.processes} processes share every batch")
        self._restore()
        if not self.records:
            self.folder.keep_processes(self.processes)
            self.begin()
        for plan in self.plans:
            if plan.number > self.records[-1].stage:
                self.run_stage(plan)

    # the verbs

    def begin(self) -> None:
        """Stage 0: the untrained policy, as the baseline of forward transfer."""
        record = StageRecord(0, [], 0)
        if tasks := self._tasks_to_evaluate(record.stage):
            self.evaluate(record, tasks)
        self.finish(record)

    def run_stage(self, plan: StagePlan) -> None:
        """Train one stage, consolidate, evaluate, keep; or go on where the stage was broken off."""
        self.progress.stage(plan.number, len(self.curriculum.stages), plan.title)
        found, self.unfinished = self.unfinished, None
        record = _empty_record(plan) if found is None else found.record
        if found is None or found.underway is not None:
            windows, earlier = self._windows(plan), self._earlier_tasks(plan)
            try:
                self.learning.run(plan, windows, earlier, record, None if found is None else found.underway)
            except LossLeapt as leapt:
                record = self._begin_again(plan, leapt)
                self.learning.run(plan, windows, earlier, record)
            self.consolidate(plan, windows, record)
            with self.place.stop.held(), self.progress.phase("checkpoint"):
                save_consolidated(self.folder, self.assembly, record, self.progress.seconds)
        self.evaluate(record, self._tasks_to_evaluate(plan.number))
        self.finish(record)

    def consolidate(self, plan: StagePlan, windows: WindowTable, record: StageRecord) -> None:
        """Fix the optimum, estimate its Fisher, freeze the teacher, teach the generator, and note what is kept."""
        learner, source = self.assembly.learner, self.assembly.source
        with self.progress.phase("fisher"):
            learner.end_stage()
        for figures in learner.method.fisher_figures():
            record.fisher.append({"stage": plan.number, "task": plan.title, **figures})
        if source is not None:
            assert learner.teacher is not None
            label, streams = learner.policy.task_index(plan.tasks[0]), RandomStreams(self.config.seed, plan.number)
            windows = windows.to(learner.policy.device)
            updates, teacher = self.config.replay.generator.updates, learner.teacher
            with self.progress.phase("generator", updates) as tick, SecondPiece(tick, updates) as piece:
                source.learn(label, windows, streams, piece)
            record.flops["generator"] = piece.flops * piece.done
            with self.progress.phase("replay"):
                _, record.flops["replay"] = counted(partial(source.refill, label, windows, teacher, streams))
        record.ledger = self._ledger(plan)

    def evaluate(self, record: StageRecord, tasks: Sequence[Task]) -> None:
        """One row of the success matrix."""
        if self.config.method == "single":
            tasks = self._keep_own_results(record, tasks)
        self.evaluation.matrix_row(record, tasks)

    def finish(self, record: StageRecord) -> None:
        """Checkpoint, then the tables: what the tables say is always covered by a checkpoint."""
        record.flops[ONE_QUERY] = self.evaluation.flops_of_query
        self.records.append(record)
        with self.place.stop.held(), self.progress.phase("checkpoint"):
            self.folder.check_held()
            for later in (plan.number for plan in self.plans if plan.number > record.stage):
                drop_stage(self.folder, later)
            save_checkpoint(self.folder.checkpoint(record.stage), self.assembly, record, self.progress.seconds)
            self._write_tables()
            drop_unfinished(self.folder, record.stage)
        if 0 < record.stage < self.plans[-1].number:
            self.progress.note(self._so_far(record))

    # parts

    def _note_a_slow_average(self) -> None:
        """The averaged weights act, teach and are handed over: where a stage is too short for them, it is partly thrown away."""
        decay, shortest = self.config.policy.ema_decay, min(plan.updates for plan in self.plans)
        if (share := decay**shortest) > LARGEST_SHARE_OF_THE_START:
            self.progress.note(
                f"policy.ema_decay {decay:g} is slow for {shortest} updates: {100 * share:.0f} % of the weights that a stage hands over are those "
                "that it began with; lower it, or raise train.updates"
            )

    def _so_far(self, record: StageRecord) -> str:
        """Success of the tasks learned so far, and how long the rest will take."""
        learned = {name for earlier in self.records for name in earlier.tasks}
        rates = {row["task"]: row["rate"] for row in success_rates(record.episodes) if row["task"] in learned}
        words = [f"{short_name(task)} {100 * rate:.0f}" for task, rate in rates.items()]
        words += [f"mean {100 * sum(rates.values()) / len(rates):.0f}"] if len(rates) > 1 else []
        done = {"stage": record.stage, "phase": "evaluate", "done": 1, "total": 1, "seconds": self.progress.seconds}
        left = remaining(read_run(self.folder.path, episodes=False), done)
        time_left = f"; {'about' if left.whole else 'at least'} {clock_text(left.seconds)} left" if left else ""
        return f"  success in %: {', '.join(words) or 'none was measured'}{time_left}"

    def _refuse_torn_extension(self) -> None:
        """Raise RunFolderError where the folder is that of a run that extends another, and was stopped while it took that over."""
        taken_over = max(self.folder.extended_after, default=-1)
        missing = next((stage for stage in range(taken_over + 1) if not self.folder.checkpoint(stage).is_dir()), None)
        if missing is not None:
            raise RunFolderError(
                f"{self.folder.path} lacks stage {missing} of the {taken_over} that it takes over from another run; "
                f"give the command in {self.folder.command_txt} again, with --overwrite"
            )

    def _restore(self) -> None:
        """Take up the run after the last stage whose checkpoint, like those of all stages before it, is as it was written."""
        seconds: dict[str, float] = {}
        for stage in stages_in_order(self.folder, self.plans):
            try:
                record, seconds = read_record(self.folder.checkpoint(stage))
            except DamagedFile as damage:
                self.progress.note(f"going back to the stage before: {damage}")
                break
            self.records.append(record)
            drop_unfinished(self.folder, stage)  # a crash may have come between the checkpoint and this
        else:
            self._refuse_gap()
        if self.records:
            last, final = self.records[-1].stage, self.plans[-1].number
            following = next((plan.number for plan in self.plans if plan.number > last), None)
            if following is not None:
                self.unfinished = read_unfinished(self.folder, following, self.progress.note)
            if self.unfinished is not None:
                seconds = self.unfinished.seconds
            for name, spent in seconds.items():
                self.progress.seconds[name] = self.progress.seconds.get(name, 0.0) + spent
            self._write_tables()
            self._measure_added_tasks()
            load_checkpoint(self.folder.checkpoint(last), self.assembly, last)
            if self.unfinished is not None and self.unfinished.underway is None:
                load_checkpoint(self.unfinished.folder, self.assembly, self.unfinished.record.stage)
            if following is not None:
                self._note_versions()
            self.progress.note("this run is finished already" if following is None else self._resumed_at(last, final))

    def _refuse_gap(self) -> None:
        """Raise RunFolderError where a checkpoint is missing ahead of others, which no crash brings about and going back would delete."""
        done = len(self.records)
        planned = [0, *(plan.number for plan in self.plans)]
        later = [stage for stage in planned[done:] if self.folder.checkpoint(stage).is_dir()]
        if later:
            raise RunFolderError(
                f"{self.folder.checkpoints} lacks stage {planned[done]} and has {', '.join(map(str, later))}; put it back, or, to learn again from "
                "there on, delete those too"
            )

    def _measure_added_tasks(self) -> None:
        """Of a run that was extended: the cells of the success matrix that only the longer curriculum has, after the stages that were taken over."""
        taken_over = max(self.folder.extended_after, default=-1)
        for record in self.records[: taken_over + 1]:
            measured = {row["task"] for row in (*record.episodes, *record.failures) if row["purpose"] == "matrix"}
            if added := [task for task in self._tasks_to_evaluate(record.stage) if task.name not in measured]:
                self.progress.note(f"stage {record.stage}, as taken over, on what is new: {', '.join(short_name(task.name) for task in added)}")
                checkpoint = self.folder.checkpoint(record.stage)
                load_checkpoint(checkpoint, self.assembly, record.stage)
                self.evaluation.matrix_row(record, added)
                with self.place.stop.held():
                    save_checkpoint(checkpoint, self.assembly, record, self.progress.seconds)
                    self._write_tables()

    def _begin_again(self, plan: StagePlan, leapt: LossLeapt) -> StageRecord:
        """Back to the end of the stage before: a fault of the machine is undone to the last bit; what the settings cause comes again, and stops."""
        self.progress.note(f"{leapt.found}: the stage is begun again, once")
        self.folder.note_in_fingerprint("begun_again", [leapt.found])
        drop_unfinished(self.folder, plan.number)
        self._write_tables()  # metrics.jsonl without the rows that are given up
        before = self.records[-1].stage
        load_checkpoint(self.folder.checkpoint(before), self.assembly, before)
        return _empty_record(plan)

    def _note_versions(self) -> None:
        if changes := self.folder.version_changes() + self.folder.keep_processes(self.processes):
            self.progress.note(f"going on with {', '.join(changes)}: results may differ from those of an uninterrupted run")
            self.folder.note_in_fingerprint("resumed_with", changes)

    def _resumed_at(self, last: int, final: int) -> str:
        after = f"resumed after stage {last} of {final}"
        if self.unfinished is None:
            return after
        if self.unfinished.underway is None:
            return f"{after}, with stage {self.unfinished.record.stage} trained and to be evaluated"
        return f"{after}, at update {self.unfinished.underway['optimizer.done'].item()} of stage {self.unfinished.record.stage}"

    def _windows(self, plan: StagePlan) -> WindowTable:
        policy = self.assembly.learner.policy
        of_tasks = zip(plan.tasks, self._episodes_of(plan), strict=True)
        return WindowTable.union([make_windows(episodes, task, policy.task_index(task), self.config.policy) for task, episodes in of_tasks])

    def _episodes_of(self, plan: StagePlan) -> list[list[Episode]]:
        """Demonstrations of the tasks of a stage, as many as it is to learn from: another stage of the same task may have more."""
        return [self.demonstrations[task].episodes[:count] for task, count in zip(plan.tasks, plan.demonstrations, strict=True)]

    def _seen_before(self, plan: StagePlan) -> list[Task]:
        return list(dict.fromkeys(task for other in self.plans if other.number < plan.number for task in other.tasks))

    def _earlier_tasks(self, plan: StagePlan) -> list[Task]:
        """Those whose recovery is followed in a stage: `single` has a policy of its own for each, so that none can be lost."""
        return [] if self.config.method == "single" else [task for task in self._seen_before(plan) if task not in plan.tasks]

    def _keep_own_results(self, record: StageRecord, tasks: Sequence[Task]) -> list[Task]:
        """Where every task has a policy of its own, an earlier one's episodes are those of its own stage: copy them, return the other tasks."""
        before = self.records[-1] if self.records else StageRecord(0, [], 0)
        learned = {name for earlier in self.records for name in earlier.tasks} - set(record.tasks)
        for rows, earlier_rows in ((record.episodes, before.episodes), (record.failures, before.failures)):
            kept = [row for row in earlier_rows if row["purpose"] == "matrix" and row["task"] in learned]
            rows += [{**row, "stage": record.stage, "update": record.updates} for row in kept]
        return [task for task in tasks if task.name not in learned]

    def _tasks_to_evaluate(self, stage: int) -> list[Task]:
        """A row of the success matrix: what was learned up to a stage, and what is shown of what comes; of the untrained policy all or none."""
        settings, ahead = self.config.evaluation, self.curriculum.stages[stage:]
        if stage == 0:
            return self.tasks if settings.next_task or settings.later_tasks else []
        tasks = [task for plan in self.plans if plan.number <= stage for task in plan.tasks]
        shown = ahead if settings.later_tasks else ahead[:1] if settings.next_task else ()
        tasks += [coming.task for coming in shown]
        return [task for task in self.tasks if task in tasks]

    def _ledger(self, plan: StagePlan) -> list[dict[str, Any]]:
        learner, source = self.assembly.learner, self.assembly.source
        policy_bytes = learner.parameters.values.numel() * learner.parameters.values.element_size()
        kept: list[tuple[str, int, bool]] = [("policy, which is also the next teacher", policy_bytes, False)]
        if learner.second_moment is not None:
            kept.append(("second moment of the optimizer", policy_bytes, False))
        kept += [(item, size, False) for hook in learner.method.hooks for item, size in hook.kept().items()]
        if self.config.method == "joint":
            size = sum(part.nbytes for task in self.demonstrations.values() for e in task.episodes for part in (e.observations, e.actions))
            kept.append(("all demonstrations", size, True))
        kept += [(entry.item, entry.bytes, entry.past_task_data) for entry in (source.ledger() if source is not None else [])]
        return [{"stage": plan.number, "item": item, "bytes": size, "past_task_data": past} for item, size, past in kept]

    def _write_ceilings(self) -> None:
        rows = [ceiling_row(task.name, found.successes, found.attempts) for task, found in self.demonstrations.items()]
        write_csv(self.folder.ceilings_csv, CEILING_COLUMNS, rows)

    def _write_curriculum(self) -> None:
        resolved = self.curriculum.resolved(self.config.train.updates, self.config.demonstrations.episodes)
        write_file(self.folder.curriculum_yaml, resolved.to_yaml())

    def _write_tables(self) -> None:
        self.folder.check_held()
        write_tables(self.folder.path, self.records, read_probes(self.folder.path), self.config.recovery.episodes, self.config.recovery.thresholds)
        write_cost(self.folder, self.progress, self._episodes_played(), flops_of_run([record.flops for record in self.records]))

    def _episodes_played(self) -> int:
        """All that were evaluated so far; those that `single` copies into later rows of the matrix count once."""
        method, stages = self.config.method, [stage.task.name for stage in self.curriculum.stages]
        rows = [row for record in self.records for row in record.episodes]
        return sum(row["purpose"] != "matrix" or played_at(method, stages, row["stage"], row["task"]) == row["stage"] for row in rows)


def _empty_record(plan: StagePlan) -> StageRecord:
    return StageRecord(plan.number, [task.name for task in plan.tasks], plan.updates)
