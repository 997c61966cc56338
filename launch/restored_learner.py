"""A learner as a checkpoint holds it, for what is measured after a run."""

from __future__ import annotations

from reconverge.launch.assembly import Assembly, assemble
from reconverge.launch.checkpoint import load_checkpoint
from reconverge.launch.config import RunConfig
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.stage_plan import run_curriculum


def restore_learner(config: RunConfig, folder: RunFolder, stage: int) -> Assembly:
    """A learner as it was at the end of `stage`. Raises DamagedFile."""
    assembly = assemble(config, run_curriculum(folder, config).tasks)
    load_checkpoint(folder.checkpoint(stage), assembly, stage)
    return assembly
