"""`reconverge collect`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from reconverge.envs.curriculum import Curriculum, load_curriculum
from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.envs.errors import PartFailed
from reconverge.launch.commands.cluster import Cluster
from reconverge.launch.commands.command import Command
from reconverge.launch.commands.tables import Columns, interval_percent, print_table, success_percent
from reconverge.launch.config import RunConfig
from reconverge.launch.config_checks import check
from reconverge.launch.progress import Progress


@dataclass(frozen=True)
class Collect(Command):
    """Collect the expert's demonstrations of every task of a curriculum ahead of training, and show the expert's own success.

    Training finds them in the default folder, with the same preset or the same settings of the demonstrations. An interrupted
    collection goes on where it stopped. On Ray a task is a batch of 20 attempts; the machines must share the folder in which the command
    is started, and have this package in the same place.

    Examples:
      reconverge collect cw10 --preset cw10
      reconverge collect mine.yaml --workers 8
      reconverge collect cw10:3 --episodes 50 --paces 0.7 --folder runs/slow
      reconverge collect cw10 --backend ray --ray-address 10.0.0.7:6379
    """

    summary: ClassVar[str] = "expert demonstrations of a curriculum, ahead of training"

    curriculum: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CURRICULUM")]
    """Name of a curriculum, a prefix such as `cw10:3`, a random order such as `cw10:shuffle-7`, or a YAML file."""
    preset: str = "quickstart"
    """Where the settings of the demonstrations come from; training with this preset finds them. `reconverge list presets` shows them all."""
    demonstrations: Annotated[DemonstrationConfig, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff] = field(default_factory=DemonstrationConfig)
    overwrite: bool = False
    """Collect again what the folder already holds."""
    quiet: bool = False
    """Show no progress."""
    cluster: Annotated[Cluster, tyro.conf.arg(name="")] = field(default_factory=Cluster)

    def run(self, command_line: str) -> int:
        config, folder = self.demonstrations, Path(self.demonstrations.folder)
        check(RunConfig(demonstrations=config))
        self.cluster.check()
        curriculum = load_curriculum(self.curriculum)
        from reconverge.envs.demonstrations import collect, collection_name
        from reconverge.eval.intervals import wilson

        rows, made = [], {collection_name(stage.task, config, stage.demonstrations or config.episodes) for stage in curriculum.stages}
        for name in made if self.overwrite and self.cluster.backend == "local" else ():
            shutil.rmtree(folder / name, ignore_errors=True)
        with Progress.in_terminal(self.quiet) as progress:
            if self.cluster.backend == "ray":
                self._collect_on_ray(curriculum, config, progress)
            for number, stage in enumerate(curriculum.stages, 1):
                progress.stage(number, len(curriculum.stages), stage.task.name)
                episodes = stage.demonstrations or config.episodes
                with progress.phase("demonstrations", episodes) as tick:
                    found = collect(stage.task, config, episodes, folder, tick.at)
                low, high = wilson(found.successes, found.attempts)
                row = {"task": stage.task.name, "kept": len(found.episodes), "attempts": found.attempts, "episodes": found.attempts}
                rows.append({**row, "rate": found.ceiling, "wilson_low": low, "wilson_high": high})
        rates: Columns = {"expert's success %": success_percent, "95 % interval": interval_percent}
        columns: Columns = {"task": "task", "kept": "kept", "attempts": "attempts", **rates}
        print_table(rows, columns)
        return 0

    def _collect_on_ray(self, curriculum: Curriculum, config: DemonstrationConfig, progress: Progress) -> None:
        """Have a cluster make every batch that is missing, so that collecting only has to put them together."""
        from reconverge.launch.demonstration_shards import Wanted, make_shards

        counts = {(stage.task, stage.demonstrations or config.episodes): None for stage in curriculum.stages}
        wanted = [Wanted(task, replace(config, episodes=episodes), episodes) for task, episodes in counts]
        if not self.overwrite and not any(want.missing() for want in wanted):
            return
        with self.cluster.connected(1, "cpu") as (ray, limit):
            for want in wanted if self.overwrite else []:
                shutil.rmtree(want.collection, ignore_errors=True)
            failures = make_shards(ray.start, wanted, limit, progress)
        if failures:
            raise PartFailed(f"not everything was collected; the same command goes on: {'; '.join(failures[:3])}")
