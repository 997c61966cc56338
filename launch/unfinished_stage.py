"""What is kept of a stage that is not finished, so that a killed run loses minutes and not the stage.

    checkpoints/stage-03.learning/       underway.safetensors   weights, average, moments, what the hooks have gathered
                                         record.json            the stage's rows so far, seconds per phase
    checkpoints/stage-03.consolidated/   as a checkpoint, with all but the stage's own row of the success matrix

    learn ------- learn ------- | consolidate | evaluate | finish
           save         save   save          save       checkpoint; these two are deleted

Randomness is a pure function of (seed, stage, update), so going on from a save gives the bits of a run that never stopped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reconverge.envs.artifact import Artifact, draft_of, write_artifact
from reconverge.envs.errors import DamagedFile
from reconverge.launch.assembly import Assembly
from reconverge.launch.checkpoint import record_in, save_checkpoint
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.run_tables import StageRecord
from reconverge.policy.learner import Learner


@dataclass(frozen=True)
class UnfinishedStage:
    """A stage as it was saved.

    Attributes:
        record: its rows so far.
        seconds: per phase of the whole run, up to then.
        underway: the learner's arrays where the stage was still learned; None where only its evaluation is missing.
        folder: where it lies.
    """

    record: StageRecord
    seconds: dict[str, float]
    underway: dict[str, np.ndarray] | None
    folder: Path


def save_learning(folder: RunFolder, learner: Learner, record: StageRecord, seconds: dict[str, float]) -> None:
    """Between two updates of a stage."""
    folder.check_held()
    content: dict[str, Any] = {"record": asdict(record), "seconds": seconds}
    write_artifact(folder.learning(record.stage), {"underway.safetensors": learner.underway(), "record.json": content})


def save_consolidated(folder: RunFolder, assembly: Assembly, record: StageRecord, seconds: dict[str, float]) -> None:
    """After consolidation, ahead of the evaluation."""
    folder.check_held()
    save_checkpoint(folder.consolidated(record.stage), assembly, record, seconds)
    drop(folder.learning(record.stage))


def read_unfinished(folder: RunFolder, stage: int, note: Callable[[str], None]) -> UnfinishedStage | None:
    """The furthest save of a stage, or None. A damaged one is passed over, and `note` is told."""
    for path in (folder.consolidated(stage), folder.learning(stage)):
        if path.exists():
            try:
                artifact = Artifact(path)
                record, seconds = record_in(artifact)
                if record.stage != stage:
                    raise DamagedFile(f"{path} holds a record of stage {record.stage}; delete the folder")
                underway = artifact.arrays("underway.safetensors") if "underway.safetensors" in artifact else None
                return UnfinishedStage(record, seconds, underway, path)
            except DamagedFile as damage:
                note(f"a save within stage {stage} is passed over: {damage}")
    return None


def drop_unfinished(folder: RunFolder, stage: int) -> None:
    """Delete what was kept of a stage that is finished now."""
    for path in (folder.consolidated(stage), folder.learning(stage)):
        drop(path)


def drop_stage(folder: RunFolder, stage: int) -> None:
    """Delete all that is kept of a stage: the one before it is made again, perhaps to another end."""
    drop(folder.checkpoint(stage))
    drop_unfinished(folder, stage)


def drop(path: Path) -> None:
    """Delete a save: first out of sight, so that nobody meets half of it."""
    if path.exists():
        gone = draft_of(path)
        os.rename(path, gone)
        shutil.rmtree(gone, ignore_errors=True)
