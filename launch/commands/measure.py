"""`reconverge evaluate`, `recover` and `diagnose`: measurements on the checkpoints of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from reconverge.envs.errors import ConfigError
from reconverge.envs.tasks import find_task
from reconverge.eval.config import DiagnosisConfig, Split
from reconverge.launch.commands.cluster import Cluster, check_owners
from reconverge.launch.commands.command import Command, MaybeInt, MaybeName, MaybePath, Run, Several, at_least, check_device
from reconverge.launch.commands.pages import report_on
from reconverge.launch.commands.tables import Columns, expert_percent, interval_percent, print_table, success_percent, with_interval
from reconverge.launch.machine_limits import try_to_write
from reconverge.launch.progress import Progress
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.stop_request import Stopped
from reconverge.policy.config import SamplerName

if TYPE_CHECKING:
    from reconverge.launch.checkpoint_evaluation import Asked

CELLS = Path("runs", "evaluations")


@dataclass(frozen=True)
class Evaluate(Command):
    """Measure the success of a run's checkpoint again, for instance on more episodes. Prints a table; the run stays as it is.

    On Ray a task is one cell: a task of the run with one way of acting. Finished cells are kept in --cells-dir, so the same
    command goes on where it was stopped. The machines must share that folder and the run's, and have this package in the same place.

    Examples:
      reconverge evaluate runs/cw10/replay/seed-0
      reconverge evaluate runs/cw10/replay/seed-0 --stage 3 --tasks hammer push --episodes 100 --episodes-output episodes.csv
      reconverge evaluate runs/cw10/replay/seed-0 --split validation
      reconverge evaluate runs/cw10/replay/seed-0 --temperatures 0 0.5 1
      reconverge evaluate results/cw10/replay/seed-0 --expert
      reconverge train --preset cw10 --method replay --policy.trained-timesteps all --output-dir runs/all-timesteps
      reconverge evaluate runs/all-timesteps --samplers ddim dpm-solver++ --sampling-steps 1 2 4 8 16 --output steps.csv
      reconverge evaluate runs/cw10/replay/seed-0 --episodes 500 --backend ray --ray-address 10.0.0.7:6379
    """

    summary: ClassVar[str] = "success of a checkpoint, per task"

    path: Run
    """Run folder."""
    stage: MaybeInt = None
    """Checkpoint of this stage; the last one when left out."""
    tasks: Several[str] = ()
    """Tasks; all of the run's when left out (of a `single` run, whose policies know one task each, the stage's own)."""
    episodes: MaybeInt = None
    """Episodes per task; as in the run's configuration when left out."""
    expert: bool = False
    """Let every task's expert act in place of the policy: what there is to be reached on these episodes. Needs no checkpoint."""
    split: Annotated[Split | None, tyro.conf.arg(metavar="{test,validation}", help_behavior_hint="")] = None
    """List of episodes: `test`, or `validation`, on which settings are chosen; the run's own when left out."""
    samplers: Several[SamplerName] = ()
    """Samplers to act with, each in turn; the run's own when left out. Others need a policy trained with
    `--policy.trained-timesteps all`, which `cw10` and `quickstart` do not do."""
    sampling_steps: Several[int] = ()
    """Denoising steps to act with, each in turn; the run's own when left out. Others need the same."""
    temperatures: Several[float] = ()
    """Temperatures to act with, 0 to 1, each in turn; the run's own when left out."""
    output: MaybePath = None
    """Also write the rows to this CSV file: success per task and way of acting."""
    episodes_output: MaybePath = None
    """Also write every episode to this CSV file, in the columns of a run's `episodes.csv`, to pair by task and episode_seed. Not on Ray."""
    device: MaybeName = None
    """Torch device; the run's own when left out."""
    quiet: bool = False
    """Show no progress."""
    cells_dir: Path = CELLS
    """On Ray: folder of the finished cells. Named by all that they depend on; delete it to measure anew."""
    cluster: Annotated[Cluster, tyro.conf.arg(name="")] = field(default_factory=Cluster)

    def run(self, command_line: str) -> int:
        at_least("--stage", self.stage, 0)
        at_least("--episodes", self.episodes, 1)
        self.cluster.check({"--cells-dir": self.cells_dir != CELLS})
        check_owners(self.cluster.backend, {"--episodes-output": (self.episodes_output is not None, ("local",))})  # a cell keeps its counts alone
        tasks = [find_task(name).name for name in self.tasks]
        folder = RunFolder.open(self.path)
        from reconverge.launch.checkpoint_evaluation import EACH_COLUMNS, Asked, pooled
        from reconverge.launch.run_tables import write_csv

        for path in (self.output, self.episodes_output):
            if path is not None:
                _make_room_for(path)
        if self.expert:
            return self._of_experts(folder, tasks)
        how = self.samplers, self.sampling_steps, self.temperatures
        asked, each = Asked(self.stage, tasks, self.episodes, self.split, *how, self.device), list[dict[str, Any]]()
        with Progress.in_terminal(self.quiet) as progress:
            rows = self._rows_on_ray(folder, asked, progress) if self.cluster.backend == "ray" else self._rows(folder, asked, progress, each)
        success: Columns = {"success %": success_percent, "95 % interval": interval_percent}
        settings = pooled(rows)
        if len(settings) == 1:
            print_table(rows, {"stage": "stage", "task": "task", **success, "expert %": expert_percent, "episodes": "episodes"})
            if len(rows) > 1:
                (mean,) = settings
                rate = with_interval(mean["rate"], mean["wilson_low"], mean["wilson_high"]) if mean["episodes"] else "not measured"
                print(f"mean success {rate}; {mean['episodes']} episodes, one policy")
        else:
            print_table(settings, {"sampler": "sampler", "steps": "steps", "temperature": "temperature", **success, "episodes": "episodes"})
        if self.output is not None:
            write_csv(self.output, list(rows[0]), rows)
        if self.episodes_output is not None:
            write_csv(self.episodes_output, EACH_COLUMNS, each)
        return 0

    def _of_experts(self, folder: RunFolder, tasks: Sequence[str]) -> int:
        """The table of the experts, in place of that of the policy."""
        of_policies = {
            "--stage": self.stage is not None, "--samplers": self.samplers, "--sampling-steps": self.sampling_steps, "--device": self.device,
            "--temperatures": self.temperatures, "--episodes-output": self.episodes_output, "--backend": self.cluster.backend != "local",
        }  # fmt: skip
        if given := [flag for flag, is_given in of_policies.items() if is_given]:
            raise ConfigError(f"{given[0]} is of policies, and --expert lets the experts act; leave one of them out")
        from reconverge.launch.expert_evaluation import evaluate_experts
        from reconverge.launch.run_tables import write_csv

        with Progress.in_terminal(self.quiet) as progress:
            rows = evaluate_experts(folder, progress, tasks, self.episodes, self.split)
        print_table(rows, {"task": "task", "expert %": success_percent, "95 % interval": interval_percent, "episodes": "episodes"}, left=("task",))
        if self.output is not None:
            write_csv(self.output, list(rows[0]), rows)
        return 0

    def _rows(self, folder: RunFolder, asked: Asked, progress: Progress, episodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The table, and on the way a row per episode into `episodes`."""
        from reconverge.launch.checkpoint_evaluation import evaluate

        check_device(self.device or folder.config.device)
        return evaluate(folder, progress, asked, episodes.append)

    def _rows_on_ray(self, folder: RunFolder, asked: Asked, progress: Progress) -> list[dict[str, Any]]:
        """The same from cells; the cluster is asked only for those that are missing."""
        from reconverge.launch.evaluation_cells import measure_cells, missing_cells, plan_cells, table_rows

        cells = plan_cells(folder, self.cells_dir, asked)
        if missing := missing_cells(cells):
            with self.cluster.connected(folder.config.threads, self.device or folder.config.device) as (ray, limit):
                measure_cells(ray.start, missing, limit, progress)
        return table_rows(cells, progress)


def _make_room_for(file: Path) -> None:
    """Make the folder of a file and see that it can be written there: better now than with everything measured."""
    if file.is_dir():
        raise ConfigError(f"{file} is a folder; give the name of a file")
    file.parent.mkdir(parents=True, exist_ok=True)
    try_to_write(file.parent)


@dataclass(frozen=True)
class Recover(Command):
    """Train a copy of each stage's checkpoint on the earlier tasks, and count the updates until they are back.

    Examples:
      reconverge recover runs/cw10/replay/seed-0 --updates 200
      reconverge recover runs/cw10/replay/seed-0 --stages 10 --tasks hammer push-back
    """

    summary: ClassVar[str] = "how fast earlier tasks come back, from each checkpoint"

    path: Run
    """Run folder."""
    updates: MaybeInt = None
    """Longest probe in updates; as in the run's configuration when left out. Probes of another length are replaced."""
    stages: Several[int] = ()
    """Only from these stages' checkpoints."""
    tasks: Several[str] = ()
    """Only these tasks."""
    episodes: MaybeInt = None
    """Episodes per point of a curve; as in the run's configuration when left out."""
    device: MaybeName = None
    """Torch device; the run's own when left out."""
    quiet: bool = False
    """Show no progress."""

    def run(self, command_line: str) -> int:
        at_least("--updates", self.updates, 1)
        at_least("--episodes", self.episodes, 1)
        tasks = [find_task(name).name for name in self.tasks]
        try:
            with RunFolder.resume(self.path) as folder, Progress.in_terminal(self.quiet) as progress:
                check_device(self.device or folder.config.device)
                from reconverge.launch.recovery_probe import recover

                rows = recover(folder, progress, self.updates, self.episodes, stages=self.stages, tasks=tasks, device=self.device)
                report_on([folder], folder.report_html, progress)
        except KeyboardInterrupt:  # what was probed is kept, so that whatever came next can be taken up again
            raise Stopped(f"go on with the same command: {command_line}") from None
        columns: Columns = {"stage": "stage", "task": "task", "threshold %": "threshold", "updates": _updates, "dip, points": _dip}
        print_table(rows, columns)
        print(f"{self.episodes or folder.config.recovery.episodes} episodes a point of each curve, one seed")
        print(f"report: {folder.report_html}")
        return 0


@dataclass(frozen=True)
class Diagnose(Command):
    """Measure what a method rests on, from a run's checkpoints: the shape of the Fisher, the old-task updates beside the exact
    meta-gradient, the distance between optima, and how real the replayed windows are, also when acted from. Adds to the report; the run
    stays as it is. Each call replaces the tables of the one before.

    Examples:
      reconverge diagnose runs/cw10/trust-region/seed-0
      reconverge diagnose runs/cw10/trust-region/seed-0 --stages 2 10 --draws 512
    """

    summary: ClassVar[str] = "what methods assume, measured: Fisher, updates, replay"

    path: Run
    """Run folder."""
    stages: Several[int] = ()
    """Only these stages' checkpoints."""
    device: MaybeName = None
    """Torch device; the run's own when left out."""
    quiet: bool = False
    """Show no progress."""
    settings: Annotated[DiagnosisConfig, tyro.conf.arg(name="")] = field(default_factory=DiagnosisConfig)

    def run(self, command_line: str) -> int:
        for name, low in (("draws", 4), ("bands", 1), ("batch", 1), ("windows", 1), ("starts", 0)):
            at_least(f"--{name}", getattr(self.settings, name), low)
        with RunFolder.resume(self.path) as folder, Progress.in_terminal(self.quiet) as progress:
            check_device(self.device or folder.config.device)
            from reconverge.eval.diagnostics_results import read_diagnostics, summary_tables
            from reconverge.launch.diagnosis import diagnose

            diagnose(folder, progress, self.settings, self.stages, self.device)
            report_on([folder], folder.report_html, progress)
        found = read_diagnostics(folder.path)
        for title, rows in summary_tables(found) if found is not None else []:
            print(title)
            print_table(rows, {heading: heading for heading in rows[0]})
            print()
        print(f"tables: {folder.path / 'diagnostics'}\nreport: {folder.report_html}")
        return 0


def _updates(row: Mapping[str, Any]) -> str:
    if row["reference_rate"] == 0:
        return "not learned"
    return "never" if row["updates"] in (None, "") else str(row["updates"])


def _dip(row: Mapping[str, Any]) -> str:
    return f"{100 * row['dip']:.0f}"
