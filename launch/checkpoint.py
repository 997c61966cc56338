"""A checkpoint: everything a run needs to go on after a stage as if it had never stopped.

    checkpoints/stage-03/
      policy.safetensors  policy.json     the acting policy; `DiffusionPolicy.load` reads this folder
      learner.safetensors                 what the method's hooks remember
      source.safetensors                  the generator and its windows, or the stored windows
      record.json                         the stage's rows of every table, seconds per phase

Randomness is a pure function of (seed, stage, update), so a run that goes on from here arrives at the same weights bit for bit;
`unfinished_stage` says what is kept within a stage.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reconverge.envs.artifact import Artifact, write_artifact
from reconverge.envs.errors import DamagedFile, RunFolderError
from reconverge.envs.plain_json import LARGEST_RECORD
from reconverge.launch.assembly import Assembly
from reconverge.launch.run_folder import RunFolder, resume_command
from reconverge.launch.run_tables import StageRecord
from reconverge.launch.stage_plan import StagePlan
from reconverge.policy.diffusion_policy import arrays_of
from reconverge.policy.saved_arrays import fill


def save_checkpoint(folder: Path, assembly: Assembly, record: StageRecord, seconds: dict[str, float]) -> None:
    learner = assembly.learner
    files: dict[str, Any] = {
        "policy.safetensors": arrays_of(learner.policy.state_dict()),
        "policy.json": learner.policy.description(),
        "learner.safetensors": learner.arrays(),
        "record.json": {"record": asdict(record), "seconds": seconds},
    }
    if assembly.source is not None:
        files["source.safetensors"] = assembly.source.arrays()
    write_artifact(folder, files)


def load_checkpoint(folder: Path, assembly: Assembly, stage: int) -> None:
    """Bring a freshly assembled learner and source to the end of `stage`. Raises DamagedFile when the files belong to other ones."""
    artifact = Artifact(folder)
    try:
        fill(assembly.learner.policy, artifact.arrays("policy.safetensors"), "policy.safetensors")
        if assembly.source is not None and stage > 0:
            assembly.source.load_arrays(artifact.arrays("source.safetensors"), assembly.learner.policy)
        assembly.learner.load_arrays(stage, artifact.arrays("learner.safetensors"))
    except DamagedFile as error:
        raise DamagedFile(f"{folder}: {error}") from error


def read_record(folder: Path) -> tuple[StageRecord, dict[str, float]]:
    """A stage's rows and the seconds spent per phase up to its end."""
    return record_in(Artifact(folder))


def record_in(artifact: Artifact) -> tuple[StageRecord, dict[str, float]]:
    """The same of an artifact that is open already."""
    content = artifact.json("record.json", LARGEST_RECORD)
    try:
        seconds = {str(phase): float(spent) for phase, spent in content["seconds"].items()}
        return StageRecord.of(content["record"]), seconds
    except (TypeError, KeyError, ValueError, AttributeError) as error:  # its hash is right: no damage, by which a run would go back and delete it
        place = artifact.folder / "record.json"
        raise RunFolderError(
            f"{place} was written by another version of reconverge ({error}); go on with that version, or start afresh in another --output-dir"
        ) from error


def finished_stages(checkpoints: Path) -> list[int]:
    """Stages with a checkpoint, in order."""
    found = (re.fullmatch(r"stage-(\d+)", path.name) for path in checkpoints.glob("stage-*"))
    return sorted(int(match[1]) for match in found if match)


def stages_in_order(folder: RunFolder, plans: Sequence[StagePlan]) -> list[int]:
    """The stages from which a run can be told without a gap: the untrained policy and the planned stages, up to the first without a checkpoint."""
    planned = (0, *(plan.number for plan in plans))
    return list(itertools.takewhile(lambda stage: folder.checkpoint(stage).is_dir(), planned))


def checkpoint_of(folder: RunFolder, stage: int | None) -> Path:
    """The checkpoint of a stage, or the last one; RunFolderError names the stages that there are, or says that tables alone were published."""
    stages = finished_stages(folder.checkpoints)
    if not stages and folder.success_matrix_csv.exists():
        raise RunFolderError(
            f"{folder.path} holds the tables of a run alone, without its checkpoints; make the run again with the command in {folder.command_txt}"
        )
    if not stages:
        raise RunFolderError(f"{folder.path} has no checkpoint yet; let it finish a stage: {resume_command(folder.path)}")
    if stage is not None and stage not in stages:
        raise RunFolderError(f"{folder.path} has no checkpoint of stage {stage}; it has stages {', '.join(map(str, stages))}")
    return folder.checkpoint(stages[-1] if stage is None else stage)
