"""`reconverge export-demonstrations`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from reconverge.envs.curriculum import load_curriculum
from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.envs.errors import ConfigError
from reconverge.envs.task import Task
from reconverge.envs.tasks import find_task, task_names
from reconverge.launch.commands.command import Command, MaybeInt
from reconverge.launch.config import RunConfig
from reconverge.launch.config_checks import check
from reconverge.launch.progress import Progress
from reconverge.launch.stage_plan import demonstration_budgets, plan_stages


@dataclass(frozen=True)
class ExportDemonstrations(Command):
    """Write demonstrations in the layout of another library: one LeRobot data set of all tasks, or a Minari data set or HDF5 file per task.

    They are collected first where they are not there yet.

    Examples:
      reconverge export-demonstrations cw10:3 --format lerobot --output-dir runs/exports/cw10-3
      reconverge export-demonstrations hammer --format minari --output-dir runs/exports/minari --episodes 50
      reconverge export-demonstrations hammer --format hdf5 --output-dir runs/exports/hdf5
    """

    summary: ClassVar[str] = "demonstrations for LeRobot, Minari or robomimic"

    curriculum: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CURRICULUM_OR_TASK")]
    """Name of a curriculum, a YAML file, or one task."""
    format: Literal["lerobot", "minari", "hdf5"]
    """`lerobot` for its layout v3.0 in Parquet (pip install -e '.[lerobot]'), `minari` for Minari's own HDF5 (pip install
    -e '.[minari]'), `hdf5` for robomimic's (pip install -e '.[hdf5]')."""
    output_dir: Path
    """Folder to write; it must be new or empty."""
    fps: MaybeInt = None
    """Frames per second of a LeRobot data set; by default those of the tasks' steps, rounded, where all tasks agree in them."""
    preset: str = "quickstart"
    """Where the settings of the demonstrations come from; `reconverge list presets` shows them all."""
    demonstrations: Annotated[DemonstrationConfig, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff] = field(default_factory=DemonstrationConfig)
    quiet: bool = False
    """Show no progress."""

    def run(self, command_line: str) -> int:
        config = self.demonstrations
        check(RunConfig(demonstrations=config))
        wanted = self._wanted(RunConfig(demonstrations=config))
        from reconverge.launch.demonstration_folder import refuse_filled

        refuse_filled(self.output_dir)  # before anything is collected
        if self.format == "lerobot":
            from reconverge.launch.lerobot_export import frames_per_second

            frames_per_second(list(wanted), self.fps)
        elif self.fps is not None:
            raise ConfigError("--fps is of --format lerobot only; leave it out")
        from reconverge.envs.demonstrations import collect

        found = []
        with Progress.in_terminal(self.quiet) as progress:
            for number, (task, count) in enumerate(wanted.items(), 1):
                progress.stage(number, len(wanted), task.name)
                with progress.phase("demonstrations", count) as tick:
                    found.append(collect(task, config, count, Path(config.folder), tick.at))
        if self.format == "lerobot":
            from reconverge.launch.lerobot_export import write_lerobot

            write_lerobot(found, self.output_dir, self.fps)
            print(f"LeRobot data set: {self.output_dir}")
        elif self.format == "hdf5":
            from reconverge.launch.hdf5_export import OBSERVATION, write_hdf5

            for path in write_hdf5(found, self.output_dir):
                print(f'HDF5 file: {path}; as a stage\'s expert: "hdf5:{path}#{OBSERVATION}"')
        else:
            from reconverge.launch.minari_export import write_minari

            for name in write_minari(found, self.output_dir):
                print(f'MINARI_DATASETS_PATH={self.output_dir}: minari.load_dataset("{name}")')
        return 0

    def _wanted(self, config: RunConfig) -> dict[Task, int]:
        """Task -> how many of its episodes; of a task that comes back in a curriculum the most that a stage wants."""
        if self.curriculum in task_names() or f"{self.curriculum}-v3" in task_names():
            return {find_task(self.curriculum): self.demonstrations.episodes}
        return demonstration_budgets(plan_stages(config, load_curriculum(self.curriculum)))
