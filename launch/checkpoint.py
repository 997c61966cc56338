"""A checkpoint: everything a run needs to go on after a stage as if it had never stopped.

    checkpoints/stage-03/
      policy.safetensors  policy.json     the acting policy; `DiffusionPolicy.load` reads this folder
      learner.safetensors                 parameters, and what the method's hooks remember
      source.safetensors                  the generator and its windows, or the stored windows
      record.json                         the stage's rows of every table, seconds per phase

A stage is short and its randomness a pure function of (seed, stage, update), so a killed run starts the broken
stage again from the checkpoint before it, and arrives at the same weights bit for bit.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from reconverge.envs.artifact import Artifact, write_artifact
from reconverge.launch.assembly import Assembly
from reconverge.launch.run_tables import StageRecord
from reconverge.policy.diffusion_policy import arrays_of


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
    """Bring a freshly assembled learner and source to the end of `stage`."""
    artifact = Artifact(folder)
    if assembly.source is not None and stage > 0:
        assembly.source.load_arrays(artifact.arrays("source.safetensors"))
    assembly.learner.load_arrays(stage, artifact.arrays("learner.safetensors"))


def read_record(folder: Path) -> tuple[StageRecord, dict[str, float]]:
    """A stage's rows and the seconds spent per phase up to its end."""
    content = Artifact(folder).json("record.json")
    return StageRecord(**content["record"]), content["seconds"]


def finished_stages(checkpoints: Path) -> list[int]:
    """Stages with a checkpoint, in order."""
    return sorted(int(path.name.removeprefix("stage-")) for path in checkpoints.glob("stage-*"))
