"""A finished run that is given more stages: `train --extend RUN --curriculum LONGER`.

    runs/three     hammer  push-wall  faucet-close
    runs/five      hammer  push-wall  faucet-close   push  shelf-place
                   taken over from runs/three        learned now

The new folder is that of a run of the longer curriculum which was stopped after the last stage of the shorter one, and goes on like any stopped run.
Networks are told their task as a one-hot vector, so in every checkpoint they are given a column of zeros for each new task (policy/more_tasks.py):
on the tasks that it has learned the policy acts as before, and the trust region, the average squares and the generator say the same of them.

A run that knew all tasks from its start would have had random numbers in these columns: its figures are like these, its bits are not.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reconverge.envs.artifact import write_file
from reconverge.envs.curriculum import Curriculum, Stage, load_curriculum
from reconverge.envs.errors import ConfigError, CurriculumError, RunFolderError
from reconverge.launch.assembly import Assembly, assemble
from reconverge.launch.checkpoint import finished_stages, read_record, save_checkpoint
from reconverge.launch.config import RunConfig
from reconverge.launch.restored_learner import restore_learner
from reconverge.launch.run_folder import FREE_ON_RESUME, RunFolder
from reconverge.launch.stage_plan import plan_stages, run_curriculum
from reconverge.policy.more_tasks import laid_out, places_of

FREE_ON_EXTENSION = (*FREE_ON_RESUME, "curriculum", "train.updates", "demonstrations.episodes")
"""Settings in which the longer run may differ from the shorter one: budgets are those of the stages that are added."""


def extend(run: Path, config: RunConfig, path: Path, command: str, overwrite: bool = False) -> RunFolder:
    """A folder in which the longer run has come as far as `run`, which stays as it is; `train` goes on with it.

    Raises RunFolderError for a run that is not finished or was made with other settings, CurriculumError for a curriculum that does not go on where
    the run ended, and what `RunFolder.create` raises.
    """
    earlier = RunFolder.open(run)
    if path.resolve() == run.resolve():
        raise ConfigError(f"{run} stays as it is; choose another --output-dir for the longer run")
    curriculum, stages = longer_curriculum(earlier, config), finished_stages(earlier.checkpoints)
    folder = RunFolder.create(path, config, command, overwrite, told=_handed_on(earlier, stages[-1]))
    try:
        for stage in stages:
            _take_over(earlier, folder, stage, curriculum)
        write_file(folder.curriculum_yaml, curriculum.to_yaml())
    except BaseException:
        folder.close()
        raise
    return folder


def longer_curriculum(earlier: RunFolder, config: RunConfig) -> Curriculum:
    """The curriculum of `config`, whose first stages are those of the run, with the budgets that they had."""
    before, given = run_curriculum(earlier, earlier.config), load_curriculum(config.curriculum)
    earlier.refuse_other_settings(config, FREE_ON_EXTENSION, "leave these out to extend it, or start afresh without --extend")
    if config.method == "joint":
        raise ConfigError("`joint` learns all its tasks in one stage, after which none can be added; start afresh without --extend")
    planned = [plan.number for plan in plan_stages(earlier.config, before)]
    if finished_stages(earlier.checkpoints) != [0, *planned]:
        raise RunFolderError(f"{earlier.path} is not finished; finish it first: reconverge train --resume {earlier.path}")
    for old, new in zip(before.stages, given.stages, strict=False):
        if (there := _other_stage(old, new)) is not None:
            raise CurriculumError(
                f"curriculum '{config.curriculum}', stage {new.number}: {there[1]}, where {earlier.path} has {there[0]}; "
                "give one that begins with the stages of that run"
            )
    if len(given.stages) <= len(before.stages):
        raise CurriculumError(
            f"curriculum '{config.curriculum}' has {len(given.stages)} stages, and {earlier.path} has learned {len(before.stages)}; "
            "name a longer one with --curriculum"
        )
    budgets = [replace(new, updates=old.updates, demonstrations=old.demonstrations) for old, new in zip(before.stages, given.stages, strict=False)]
    return Curriculum(given.name, (*budgets, *given.stages[len(budgets) :]))


def _other_stage(old: Stage, new: Stage) -> tuple[str, str] | None:
    """In what a stage of the longer curriculum differs from that of the run, as (the run's, the curriculum's); None where it goes on with it."""
    experts = [None if stage.task.expert is None else stage.task.expert.identity for stage in (old, new)]
    if old.task.name != new.task.name:
        return old.task.name, new.task.name
    if experts[0] != experts[1]:
        return f"the expert {experts[0]}", f"the expert {experts[1]}"
    for budget in ("updates", "demonstrations"):
        had, wanted = getattr(old, budget), getattr(new, budget)
        if wanted not in (None, had):
            return f"{had} {budget}", f"{wanted} {budget}"
    return None


def _handed_on(earlier: RunFolder, stage: int) -> dict[str, Any]:
    """What is told of a run that extends another after `stage`: data and simulators must stay those that it began with."""
    begun = earlier.read_fingerprint()
    told: dict[str, Any] = {name: begun[name] for name in ("simulators", "demonstrations", "begun_again") if name in begun}
    if resumed_with := [*begun.get("resumed_with", []), *earlier.version_changes()]:
        told["resumed_with"] = resumed_with
    return {**told, "extends": str(earlier.path), "extended_after": [*earlier.extended_after, stage]}


def _take_over(earlier: RunFolder, folder: RunFolder, stage: int, curriculum: Curriculum) -> None:
    """A stage's checkpoint, for networks that know the tasks of the longer curriculum, and what was recorded of its episodes."""
    record, seconds = read_record(earlier.checkpoint(stage))
    narrow = restore_learner(earlier.config, earlier, stage)
    wide = assemble(folder.config, curriculum.tasks)
    widen(narrow, wide, stage)
    save_checkpoint(folder.checkpoint(stage), wide, record, seconds)
    if earlier.stage_rollouts(stage).is_dir():
        shutil.copytree(earlier.stage_rollouts(stage), folder.stage_rollouts(stage))


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
