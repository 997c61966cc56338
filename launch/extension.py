"""A finished run that is given more stages: `train --extend RUN --curriculum LONGER`.

    runs/three     hammer  push-wall  faucet-close
    runs/five      hammer  push-wall  faucet-close   push  shelf-place
                   taken over from runs/three        learned now

The new folder is that of a run of the longer curriculum which was stopped after the last stage of the shorter one, and goes on like any stopped run.
Networks are told their task as a one-hot vector, so in every checkpoint they are given a column of zeros for each new task (policy/more_tasks.py):
on the tasks that it has learned the policy acts as before, but for the last digits, and the trust region, the average squares and the generator say
the same of them.

A run that knew all tasks from its start would have had random numbers in these columns: its figures are like these, its bits are not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reconverge.envs.artifact import write_file
from reconverge.envs.curriculum import Curriculum, Stage, load_curriculum
from reconverge.envs.errors import ConfigError, CurriculumError, RunFolderError
from reconverge.envs.task import Task
from reconverge.launch.assembly import Assembly, assemble
from reconverge.launch.checkpoint import checkpoint_of, finished_stages, read_record, save_checkpoint
from reconverge.launch.config import RunConfig
from reconverge.launch.restored_learner import restore_learner
from reconverge.launch.run_folder import FREE_ON_RESUME, RunFolder, nested, resume_command
from reconverge.launch.run_tables import StageRecord
from reconverge.launch.stage_plan import StagePlan, demonstration_budgets, plan_stages, run_curriculum
from reconverge.policy.more_tasks import laid_out, places_of

FREE_ON_EXTENSION = (*FREE_ON_RESUME, "curriculum", "train.updates", "demonstrations.episodes")
"""Settings in which the longer run may differ from the shorter one: budgets are those of the stages that are added."""


def extend(
    run: Path, config: RunConfig, path: Path, command: str, overwrite: bool = False, note: Callable[[str], None] = lambda words: None
) -> RunFolder:
    """A folder in which the longer run has come as far as `run`, which stays as it is; `train` goes on with it. `note` is told of every stage.

    Raises RunFolderError for a run that is not finished or was made with other settings, ConfigError for one that cannot be extended,
    CurriculumError for a curriculum that does not go on where the run ended, DamagedFile for a checkpoint that is not as it was written, and what
    `load_curriculum` and `RunFolder.create` raise. Nothing is written or deleted ahead of these.
    """
    earlier = RunFolder.open(run)
    _refuse_nested(run, path)
    _check_run(earlier, config)
    curriculum = longer_curriculum(earlier, config)
    records = {stage: read_record(earlier.checkpoint(stage)) for stage in finished_stages(earlier.checkpoints)}
    folder = RunFolder.create(path, config, command, overwrite, told=_handed_on(earlier, config, curriculum))
    try:
        write_file(folder.curriculum_yaml, curriculum.to_yaml())
        for stage, (record, seconds) in records.items():
            note(f"stage {stage} of {len(records) - 1} is taken over from {run}")
            _take_over(earlier, folder, config, curriculum.tasks, record, seconds)
    except KeyboardInterrupt:
        folder.close()
        raise KeyboardInterrupt("give the same command again, with --overwrite") from None
    except BaseException:
        folder.close()
        raise
    return folder


def longer_curriculum(earlier: RunFolder, config: RunConfig) -> Curriculum:
    """The curriculum of `config`, whose first stages are those of the run, with the budgets that they had."""
    own_word = config.curriculum != earlier.config.curriculum  # on what archives are trusted; not the run's
    before, given = run_curriculum(earlier, earlier.config).stages, load_curriculum(config.curriculum, trusting=own_word)
    for old, new in zip(before, given.stages, strict=False):
        if problem := _in_what_it_differs(old, new, earlier.path):
            raise CurriculumError(f"curriculum '{config.curriculum}', stage {new.number}: {problem}")
    if len(given.stages) <= len(before):
        raise CurriculumError(
            f"curriculum '{config.curriculum}' has {len(given.stages)} stages, and {earlier.path} has learned {len(before)}; "
            "name a longer one with --curriculum"
        )
    kept = [replace(new, updates=old.updates, demonstrations=old.demonstrations) for old, new in zip(before, given.stages, strict=False)]
    return Curriculum(given.name, (*kept, *given.stages[len(kept) :]))


def widen(narrow: Assembly, wide: Assembly, stage: int) -> None:
    """Bring `wide`, which knows more tasks, to where `narrow` is at the end of `stage`."""
    before, learner = narrow.learner, wide.learner
    places = places_of(before.parameters.shapes, learner.parameters.shapes)

    def wider(array: np.ndarray) -> np.ndarray:
        return laid_out(array, places) if array.ndim and array.shape[-1] == len(before.parameters) else array

    learner.policy.normalizer.load_state_dict(before.policy.normalizer.state_dict())
    learner.parameters.values.copy_(torch.from_numpy(wider(before.parameters.values.cpu().numpy())))
    if wide.source is not None and narrow.source is not None and stage > 0:
        wide.source.load_arrays(narrow.source.arrays_knowing(len(learner.policy.tasks)), learner.policy)
    learner.load_arrays(stage, {name: wider(array) for name, array in before.arrays().items()})


def _take_over(
    earlier: RunFolder, folder: RunFolder, config: RunConfig, tasks: list[Task], record: StageRecord, seconds: dict[str, float]
) -> None:
    """What was recorded of a stage's episodes and, last, since it stands for all, its checkpoint for networks that know these tasks."""
    stage = record.stage
    for recorded in sorted(earlier.stage_rollouts(stage).glob("*")):
        folder.stage_rollouts(stage).mkdir(parents=True, exist_ok=True)
        write_file(folder.stage_rollouts(stage) / recorded.name, recorded.read_bytes())
    wide = assemble(config, tasks)
    widen(restore_learner(earlier.config, earlier, stage), wide, stage)
    save_checkpoint(folder.checkpoint(stage), wide, record, seconds)


def _handed_on(earlier: RunFolder, config: RunConfig, curriculum: Curriculum) -> dict[str, Any]:
    """What is told of a run that extends another: data and simulators must stay those that it began with."""
    begun, plans = earlier.read_fingerprint(), plan_stages(earlier.config, run_curriculum(earlier, earlier.config))
    told: dict[str, Any] = {name: begun[name] for name in ("simulators", "processes", "begun_again") if name in begun}
    had, wanted = _demonstrations(plans), _demonstrations(plan_stages(config, curriculum))
    # Of a task that comes again with more demonstrations, those that were there are the first ones of a larger set, which has another digest.
    told["demonstrations"] = {task: digest for task, digest in begun.get("demonstrations", {}).items() if wanted.get(task) == had.get(task)}
    if resumed_with := [*earlier.lines_of("resumed_with"), *earlier.version_changes()]:
        told["resumed_with"] = resumed_with
    command = earlier.command_txt.read_text(encoding="utf-8").strip()
    return {**told, "extends": f"{earlier.path} ({command})", "extended_after": [*earlier.extended_after, plans[-1].number]}


def _demonstrations(plans: list[StagePlan]) -> dict[str, int]:
    return {task.name: count for task, count in demonstration_budgets(plans).items()}


# Refusals ----------------------------------------------------------------------------------------------------------------------


def _refuse_nested(run: Path, path: Path) -> None:
    """Neither may lie in the other: --overwrite empties the folder, and a run stays as it is."""
    if path.resolve() == run.resolve():
        raise ConfigError(f"{run} stays as it is; choose another --output-dir for the longer run")
    if nested(path, run):
        raise ConfigError(f"{path} and {run} lie one within the other; choose another --output-dir for the longer run")


def _check_run(earlier: RunFolder, config: RunConfig) -> None:
    earlier.refuse_other_settings(config, FREE_ON_EXTENSION, "leave these out to extend it, or start afresh without --extend")
    if config.method == "joint":
        raise ConfigError("`joint` learns all its tasks in one stage, after which none can be added; start afresh without --extend")
    checkpoint_of(earlier, None)
    planned = [plan.number for plan in plan_stages(earlier.config, run_curriculum(earlier, earlier.config))]
    if finished_stages(earlier.checkpoints) != [0, *planned]:
        raise RunFolderError(f"{earlier.path} is not finished; finish it first: {resume_command(earlier.path)}")


def _in_what_it_differs(old: Stage, new: Stage, run: Path) -> str:
    """What a stage of the longer curriculum has that the run's had not, and what to do; empty where it goes on with it."""
    begin = "give a curriculum that begins with the stages of that run"
    if old.task.name != new.task.name:
        return f"{new.task.name}, where {run} has {old.task.name}; {begin}"
    had, has = ("no expert of its own" if stage.task.expert is None else stage.task.expert.identity for stage in (old, new))
    if had != has:
        return f"{has}, where {run} has {had}; put back what it learned from, and let what demonstrates a new task lie in a file of its own"
    for budget in ("updates", "demonstrations"):
        before, wanted = getattr(old, budget), getattr(new, budget)
        if wanted not in (None, before):
            return f"{wanted} {budget}, where {run} has {before} {budget}; {begin}"
    return ""
