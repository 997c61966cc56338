"""`reconverge collect`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from reconverge.envs.curriculum import load_curriculum
from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.launch.commands.command import Command
from reconverge.launch.commands.tables import Columns, interval_percent, print_table, success_percent
from reconverge.launch.config import RunConfig, check
from reconverge.launch.progress import Progress


@dataclass(frozen=True)
class Collect(Command):
    """Collect the expert's demonstrations of every task of a curriculum ahead of training, and show the expert's own success.

    Training finds them in the default folder. An interrupted collection goes on where it stopped.

    Examples:
      reconverge collect cw10 --episodes 100
      reconverge collect mine.yaml --workers 8
    """

    summary: ClassVar[str] = "expert demonstrations of a curriculum, ahead of training"

    curriculum: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CURRICULUM")]
    """Name of a curriculum, a prefix such as `cw10:3`, a random order such as `cw10:shuffle-7`, or a YAML file."""
    episodes: int = DemonstrationConfig.episodes
    """Successful episodes per task, unless the curriculum gives its own."""
    hold_steps: int = DemonstrationConfig.hold_steps
    """Steps kept after the first success."""
    seed: int = DemonstrationConfig.seed
    """Seed of the expert's episodes."""
    action_noise: float = DemonstrationConfig.action_noise
    """Standard deviation of Gaussian noise on the actions that are executed, in [-1, 1] units; the clean ones are recorded."""
    workers: int = DemonstrationConfig.workers
    """Simulator processes. The demonstrations do not depend on it."""
    output_dir: Path = Path(DemonstrationConfig.folder)
    """Folder of the demonstrations."""
    overwrite: bool = False
    """Collect again what the folder already holds."""
    quiet: bool = False
    """Show no progress."""

    def run(self, command_line: str) -> int:
        config = DemonstrationConfig(self.episodes, self.hold_steps, self.seed, self.workers, str(self.output_dir), self.action_noise)
        check(RunConfig(demonstrations=config))
        curriculum = load_curriculum(self.curriculum)
        from reconverge.envs.demonstrations import collect, collection_name
        from reconverge.eval.intervals import wilson

        rows = []
        with Progress.in_terminal(self.quiet) as progress:
            for number, stage in enumerate(curriculum.stages, 1):
                progress.stage(number, len(curriculum.stages), stage.task.name)
                episodes = stage.demonstrations or self.episodes
                if self.overwrite:
                    shutil.rmtree(self.output_dir / collection_name(stage.task, config, episodes), ignore_errors=True)
                with progress.phase("demonstrations", episodes) as tick:
                    found = collect(stage.task, config, episodes, self.output_dir, tick.at)
                low, high = wilson(found.successes, found.attempts)
                row = {"task": stage.task.name, "kept": len(found.episodes), "attempts": found.attempts}
                rows.append({**row, "rate": found.ceiling, "wilson_low": low, "wilson_high": high})
        rates: Columns = {"expert's success %": success_percent, "95 % interval": interval_percent}
        columns: Columns = {"task": "task", "kept": "kept", "attempts": "attempts", **rates}
        print_table(rows, columns)
        return 0
