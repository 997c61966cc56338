"""The commands: their options as frozen data, and what each one does.

Heavy imports stand inside the functions, so that help and lists answer without torch or a simulator.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro
from rich.console import Console
from rich.table import Table

from reconverge.envs.curriculum import CURRICULA, load_curriculum
from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.envs.errors import ConfigError, ReconvergeError
from reconverge.envs.experts import check_expert
from reconverge.envs.tasks import find_task, task_names
from reconverge.launch.config import METHODS, MethodName, RunConfig, check
from reconverge.launch.config_file import config_text
from reconverge.launch.presets import PRESETS, find_preset
from reconverge.launch.progress import Progress
from reconverge.launch.run_folder import RunFolder, holds_run
from reconverge.policy.config import SamplerName

if TYPE_CHECKING:
    from reconverge.launch.job import Job
    from reconverge.launch.sweep import Entry, Outcome, Places

Columns = Mapping[str, str | Callable[[Mapping[str, Any]], str]]
Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
WIDEST_TABLE = 1000
"""Characters: more than any row has, so that the terminal breaks a long one and nothing is cut off."""


@dataclass(frozen=True)
class Command:
    """What every command has: a line for the overview, and `run`, which returns the exit code."""

    summary: ClassVar[str] = ""

    def run(self, command_line: str) -> int:
        """`command_line` is what the user typed, shell-quoted; a run folder keeps it."""
        raise NotImplementedError


@dataclass(frozen=True)
class Train(Command):
    """Train on a curriculum, evaluate after every stage, render the videos and write the report.

    A preset is the base; every setting can be overridden by its dotted name.

    Examples:
      reconverge train --preset quickstart
      reconverge train --preset cw10 --method replay --seed 1 --output-dir runs/mine
      reconverge train --curriculum mine.yaml --policy.window 4 --train.updates 1500
      reconverge train --resume runs/cw10/replay/seed-1
    """

    summary: ClassVar[str] = "train on a curriculum, evaluate, render, report"

    preset: str = "quickstart"
    """Configuration to start from; `reconverge list presets` shows them."""
    output_dir: Path | None = None
    """Run folder; runs/PRESET/METHOD/seed-N when left out."""
    overwrite: bool = False
    """Delete the run that the folder holds, and start afresh."""
    resume: Path | None = None
    """Go on with an interrupted run, in its folder and with its configuration."""
    print_config: bool = False
    """Print the resolved configuration and do nothing."""
    quiet: bool = False
    """Show no progress."""
    config: Annotated[RunConfig, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff] = field(default_factory=RunConfig)

    def run(self, command_line: str) -> int:
        check(self.config)
        if self.print_config:
            print(config_text(self.config), end="")
            return 0
        if self.resume is None:  # a resumed run has its curriculum in its folder
            for task in load_curriculum(self.config.curriculum).tasks:
                check_expert(task)
        _check_device(self.config.device)
        Path(self.config.demonstrations.folder).mkdir(parents=True, exist_ok=True)  # fails here rather than with a run begun
        with self._folder(command_line) as folder, Progress.in_terminal(self.quiet) as progress:
            try:
                self._train(folder, progress)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(f"go on with: reconverge train --resume {folder.path}") from None
        _print_cost(progress)
        _print_outcome(folder)
        return 0

    def _folder(self, command_line: str) -> RunFolder:
        if self.resume is not None:
            if self.overwrite or self.output_dir is not None:
                raise ConfigError("--resume goes on in the run's own folder; leave --overwrite and --output-dir out")
            return RunFolder.resume(self.resume, self.config)
        path = self.output_dir or Path("runs", self.preset, self.config.method, f"seed-{self.config.seed}")
        return RunFolder.create(path, self.config, command_line, self.overwrite)

    def _train(self, folder: RunFolder, progress: Progress) -> None:
        from reconverge.launch.curriculum_run import train, write_cost

        for change in folder.version_changes() if self.resume is not None else []:
            progress.note(f"resuming with {change}: results may differ in the last digits")
        progress.note(f"run folder: {folder.path}")
        train(self.config, folder, progress)
        if self.config.video.render and self.config.video.episodes:
            try:
                _render(folder, progress)
            except ReconvergeError as problem:  # the run is done: its report is written with or without videos
                progress.note(f"no videos: {problem}; then: reconverge render {folder.path}")
        write_cost(folder, progress)
        _report([folder], folder.report_html, progress)
        write_cost(folder, progress)


@dataclass(frozen=True)
class Sweep(Command):
    """Train every method with every seed, several runs at a time, and tabulate them; go on where an earlier sweep stopped.

    A job is a method, a seed and one combination of the varied settings; its run lies in OUTPUT_DIR/METHOD[/VARIATION]/seed-N. Jobs whose
    results are there are not run again, here or in --results-dir; interrupted ones are resumed; a folder that holds a run with other
    settings is refused. A preset is the base, on one thread; every setting can be overridden by its dotted name.

    Examples:
      reconverge sweep --preset cw10 --methods finetune replay trust-region --seeds 0..4 --jobs 2 --results-dir results/cw10
      reconverge sweep --preset cw10 --methods replay --seeds 0..2 7 --vary replay.source=stored,generator --vary train.updates=1000,2000
      reconverge sweep --preset quickstart --curriculum mine.yaml --train.updates 500 --methods replay ewc --dry-run
    """

    summary: ClassVar[str] = "methods x seeds, several runs at a time; resumable"

    preset: str = "quickstart"
    """Configuration to start from; `reconverge list presets` shows them."""
    methods: tuple[MethodName, ...] = ()
    """Methods; that of the configuration when left out."""
    seeds: tuple[str, ...] = ()
    """Seeds: numbers and ranges such as `0..4 7`, both ends meant; that of the configuration when left out."""
    vary: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="KEY=VALUE,...")] = ()
    """Values of a setting, each a set of runs of its own, such as `train.updates=1000,2000`; several of these are combined."""
    jobs: int = 1
    """Runs at a time. No result depends on it."""
    output_dir: Path | None = None
    """Folder of the runs; runs/sweep/PRESET when left out."""
    results_dir: Path | None = None
    """Folder to which the small tables of every finished run are copied; what is finished there counts as done."""
    overwrite: bool = False
    """Delete runs with other settings that are in the way, and redo them. Finished jobs stay."""
    dry_run: bool = False
    """Show what is done, what would run and what it would cost, and do nothing."""
    quiet: bool = False
    """Show no progress."""
    config: Annotated[RunConfig, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff] = field(default_factory=RunConfig)

    def run(self, command_line: str) -> int:
        _at_least("--jobs", self.jobs, 1)
        from reconverge.launch import sweep

        places = self._places()
        entries = [sweep.examine(job, places, self.overwrite) for job in self._planned()]
        cost = sweep.learned_cost(entries)
        if self.dry_run:
            columns: Columns = {"job": "job", "would": "would", "updates": "updates", "minutes": "minutes"}
            _print_table(sweep.plan_rows(entries, cost), columns, left=("job", "would"))
            print(sweep.plan_in_words(entries, cost, self.jobs))
        sweep.refuse(entries)
        if self.dry_run:
            return 0
        for device in {entry.job.config.device for entry in entries} - {"cpu"}:
            _check_device(device)
        try:
            outcomes = sweep.run_here(entries, places, self.jobs, cost, self.quiet)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"go on with the same command: {command_line}") from None
        return self._conclude(entries, outcomes, places)

    def _planned(self) -> list[Job]:
        from reconverge.launch.job_plan import parse_seeds, parse_variations, plan_jobs

        base = find_preset(self.preset)
        for flag, own, given, chosen in (
            ("method", base.method, self.config.method, self.methods),
            ("seed", base.seed, self.config.seed, self.seeds),
        ):
            if chosen and given != own:
                raise ConfigError(f"--{flag} {given} beside --{flag}s contradicts it; leave --{flag} out")
        methods = tuple(dict.fromkeys(self.methods or (self.config.method,)))
        seeds = parse_seeds(self.seeds or (str(self.config.seed),))
        return plan_jobs(self.config, self.preset, methods, seeds, parse_variations(self.vary, self.config))

    def _places(self) -> Places:
        from reconverge.launch.sweep import Places

        output = self.output_dir or Path("runs", "sweep", self.preset)
        if self.results_dir is not None and self.results_dir.resolve() == output.resolve():
            raise ConfigError(f"--results-dir and --output-dir are both {output}; copies need a folder of their own")
        return Places(output, self.results_dir)

    def _conclude(self, entries: Sequence[Entry], outcomes: Sequence[Outcome], places: Places) -> int:
        """Print what was found and what failed. Exit code 0: all done, 2: every failure can be mended, 1: one is a bug or was killed."""
        from reconverge.launch.sweep import summary_rows

        failed = [outcome for outcome in outcomes if outcome.exit_code]
        done = {entry.job for entry in entries} - {outcome.job for outcome in failed}
        columns: Columns = {"method": "method", "seeds\ndone": "seeds", "mean\nsuccess %": "success", "forgetting,\npoints": "forgetting"}
        _print_table(summary_rows(entries, places, done), {**columns, "minutes\nper run": "minutes"}, left=("method",))
        if done:
            print(f"in brackets: 95 % interval over seeds\nreconverge report {shlex.quote(str(places.results or places.output))}")
        if not failed:
            return 0
        print(f"\n{len(failed)} of {len(entries)} jobs failed; the same command tries them again")
        rows = [{"job": str(one.job.path), "code": one.exit_code, "error": one.error, "log": places.log(one.job)} for one in failed]
        _print_table(rows, {"failed": "job", "exit code": "code", "last line": "error", "log": "log"}, left=("job", "error", "log"))
        return 2 if all(outcome.exit_code == 2 for outcome in failed) else 1


@dataclass(frozen=True)
class Evaluate(Command):
    """Measure the success of a run's checkpoint again, for instance on more episodes. Prints a table; the run stays as it is.

    Examples:
      reconverge evaluate runs/cw10/replay/seed-0
      reconverge evaluate runs/cw10/replay/seed-0 --stage 3 --tasks hammer push --episodes 100
      reconverge evaluate runs/cw10/replay/seed-0 --samplers ddim dpm-solver++ --sampling-steps 1 2 4 8 16 --output steps.csv
    """

    summary: ClassVar[str] = "success of a checkpoint, per task"

    path: Run
    """Run folder."""
    stage: int | None = None
    """Checkpoint of this stage; the last one when left out."""
    tasks: tuple[str, ...] = ()
    """Tasks; all of the run's when left out."""
    episodes: int | None = None
    """Episodes per task; as in the run's configuration when left out."""
    samplers: tuple[SamplerName, ...] = ()
    """Samplers to act with, each in turn; the run's own when left out."""
    sampling_steps: tuple[int, ...] = ()
    """Denoising steps to act with, each in turn; the run's own when left out."""
    output: Path | None = None
    """Also write the rows to this CSV file."""
    device: str | None = None
    """Torch device; the run's own when left out."""
    quiet: bool = False
    """Show no progress."""

    def run(self, command_line: str) -> int:
        _at_least("--stage", self.stage, 0)
        _at_least("--episodes", self.episodes, 1)
        tasks = [find_task(name).name for name in self.tasks]
        folder = RunFolder.open(self.path)
        from reconverge.launch.checkpoint_evaluation import evaluate, pooled
        from reconverge.launch.run_tables import write_csv

        with Progress.in_terminal(self.quiet) as progress:
            _check_device(self.device or folder.config.device)
            rows = evaluate(
                folder,
                progress,
                stage=self.stage,
                tasks=tasks,
                episodes=self.episodes,
                samplers=self.samplers,
                sampling_steps=self.sampling_steps,
                device=self.device,
            )
        if self.output is not None:
            write_csv(self.output, list(rows[0]), rows)
        success: Columns = {"success %": _success, "95 % interval": _interval}
        settings = pooled(rows)
        if len(settings) == 1:
            _print_table(rows, {"stage": "stage", "task": "task", **success, "expert %": _expert, "episodes": "episodes"})
        else:
            _print_table(settings, {"sampler": "sampler", "steps": "steps", **success, "episodes": "episodes"})
        return 0


@dataclass(frozen=True)
class Recover(Command):
    """Train a copy of each stage's checkpoint on the earlier tasks, and count the updates until they are back.

    Examples:
      reconverge recover runs/cw10/replay/seed-0 --updates 200
    """

    summary: ClassVar[str] = "how fast earlier tasks come back, from each checkpoint"

    path: Run
    """Run folder."""
    updates: int | None = None
    """Longest probe in updates; as in the run's configuration when left out."""
    episodes: int | None = None
    """Episodes per point of a curve; as in the run's configuration when left out."""
    quiet: bool = False
    """Show no progress."""

    def run(self, command_line: str) -> int:
        _at_least("--updates", self.updates, 1)
        _at_least("--episodes", self.episodes, 1)
        with RunFolder.resume(self.path) as folder, Progress.in_terminal(self.quiet) as progress:
            from reconverge.launch.recovery_probe import recover

            rows = recover(folder, progress, self.updates, self.episodes)
            _report([folder], folder.report_html, progress)
        columns: Columns = {"stage": "stage", "task": "task", "threshold %": "threshold", "updates": _updates, "dip, points": _dip}
        _print_table(rows, columns)
        print(f"{self.episodes or folder.config.recovery.episodes} episodes a point of each curve, one seed")
        print(f"report: {folder.report_html}")
        return 0


@dataclass(frozen=True)
class Diagnose(Command):
    """Measure what a method rests on, from a run's checkpoints: the shape of the Fisher, the old-task updates beside the exact
    meta-gradient, the distance between optima, and how real the replayed windows are. Adds to the report; the run stays as it is.

    Examples:
      reconverge diagnose runs/cw10/trust-region/seed-0
      reconverge diagnose runs/cw10/trust-region/seed-0 --stages 2 10 --draws 512
    """

    summary: ClassVar[str] = "is the Fisher rank one, the update a meta-learner's, replay real?"

    path: Run
    """Run folder."""
    stages: tuple[int, ...] = ()
    """Only these stages' checkpoints."""
    draws: int = 256
    """Draws whose gradients are compared, over all timesteps and in every band of them."""
    bands: int = 5
    """Bands of timesteps."""
    batch: int = 4096
    """Windows from which each gradient of the comparison with the meta-gradient is taken."""
    alpha: float = 1e-4
    """Inner step of the meta-gradient."""
    windows: int = 512
    """Replayed windows of each task that are compared with real ones."""
    device: str | None = None
    """Torch device; the run's own when left out."""
    quiet: bool = False
    """Show no progress."""

    def run(self, command_line: str) -> int:
        for flag, value, low in (("--draws", self.draws, 4), ("--bands", self.bands, 1), ("--batch", self.batch, 1), ("--windows", self.windows, 1)):
            _at_least(flag, value, low)
        with RunFolder.resume(self.path) as folder, Progress.in_terminal(self.quiet) as progress:
            _check_device(self.device or folder.config.device)
            from reconverge.eval.diagnostics_results import read_diagnostics, summary_tables
            from reconverge.launch.diagnosis import diagnose
            from reconverge.launch.stage_diagnosis import DiagnosisSettings

            settings = DiagnosisSettings(self.draws, self.bands, self.batch, self.alpha, self.windows)
            diagnose(folder, progress, settings, self.stages, self.device)
            _report([folder], folder.report_html, progress)
        found = read_diagnostics(folder.path)
        for title, rows in summary_tables(found) if found is not None else []:
            print(title)
            _print_table(rows, {heading: heading for heading in rows[0]})
            print()
        print(f"tables: {folder.path / 'diagnostics'}\nreport: {folder.report_html}")
        return 0


@dataclass(frozen=True)
class Render(Command):
    """Render the recorded rollouts of a run: a video per stage and task, and the grid of all.

    Examples:
      reconverge render runs/cw10/replay/seed-0
      reconverge render runs/cw10/replay/seed-0 --tasks hammer --stages 1 5 10
    """

    summary: ClassVar[str] = "rollout videos and the task x stage grid"

    path: Run
    """Run folder."""
    tasks: tuple[str, ...] = ()
    """Only these tasks."""
    stages: tuple[int, ...] = ()
    """Only these stages."""
    quiet: bool = False
    """Show no progress."""

    def run(self, command_line: str) -> int:
        with RunFolder.resume(self.path) as folder, Progress.in_terminal(self.quiet) as progress:
            _render(folder, progress, [find_task(name).name for name in self.tasks], self.stages)
            _report([folder], folder.report_html, progress)
        print(f"videos: {folder.videos}\nreport: {folder.report_html}")
        return 0


@dataclass(frozen=True)
class Report(Command):
    """Write one self-contained HTML page about a run, or about an experiment: several methods and seeds compared.

    A folder may be a run or hold runs at any depth. Runs that differ in their seed only are averaged; intervals are over seeds.

    Examples:
      reconverge report runs/cw10/replay/seed-0
      reconverge report results/cw10 --output runs/methods.html
      reconverge report results/cw10 --reference finetune --tables results/cw10/tables
    """

    summary: ClassVar[str] = "one self-contained HTML page; several runs are compared"

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER...")]
    """Run folders, or folders that hold them."""
    output: Path | None = None
    """The page; RUN/report.html for one run, runs/comparison.html for several, when left out."""
    tables: Path | None = None
    """Also write the tables as CSV and the figures as PNG into this folder."""
    reference: str | None = None
    """Method, or label of a group on the page, that the others are compared with; replay, or else the first, when left out."""

    def run(self, command_line: str) -> int:
        if not self.runs:
            raise ConfigError("report needs at least one run folder, such as runs/quickstart/trust-region/seed-0")
        folders = _runs_within(self.runs)
        output = self.output or (folders[0].report_html if len(folders) == 1 else Path("runs", "comparison.html"))
        output.parent.mkdir(parents=True, exist_ok=True)
        _report(folders, output, Progress("quiet"), self.reference)
        print(f"report: {output}")
        if self.tables is not None:
            from reconverge.eval.experiment_tables import write_tables

            write_tables([folder.path for folder in folders], self.tables, self.reference)
            print(f"tables: {self.tables}")
        return 0


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
    """Name of a curriculum, a prefix such as `cw10:3`, or a YAML file."""
    episodes: int = DemonstrationConfig.episodes
    """Successful episodes per task, unless the curriculum gives its own."""
    hold_steps: int = DemonstrationConfig.hold_steps
    """Steps kept after the first success."""
    seed: int = DemonstrationConfig.seed
    """Seed of the expert's episodes."""
    workers: int = DemonstrationConfig.workers
    """Simulator processes. The demonstrations do not depend on it."""
    output_dir: Path = Path(DemonstrationConfig.folder)
    """Folder of the demonstrations."""
    overwrite: bool = False
    """Collect again what the folder already holds."""
    quiet: bool = False
    """Show no progress."""

    def run(self, command_line: str) -> int:
        config = DemonstrationConfig(self.episodes, self.hold_steps, self.seed, self.workers, str(self.output_dir))
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
        columns: Columns = {"task": "task", "kept": "kept", "attempts": "attempts", "expert's success %": _success, "95 % interval": _interval}
        _print_table(rows, columns)
        return 0


@dataclass(frozen=True)
class List(Command):
    """List what can be named on the command line.

    Examples:
      reconverge list tasks
      reconverge list presets
    """

    summary: ClassVar[str] = "tasks, curricula, methods or presets"

    kind: Annotated[Literal["tasks", "curricula", "methods", "presets"], tyro.conf.Positional]
    """Which list."""

    def run(self, command_line: str) -> int:
        for name, description in self._entries():
            print(f"{name:<29} {description}".rstrip())
        return 0

    def _entries(self) -> Iterable[tuple[str, str]]:
        if self.kind == "tasks":
            return [(name, find_task(name).success) for name in task_names()]
        if self.kind == "curricula":
            return [(name, f"{len(tasks)} stages: {' '.join(tasks)}") for name, tasks in CURRICULA.items()]
        if self.kind == "methods":
            return list(METHODS.items())
        return [(name, preset.description) for name, preset in PRESETS.items()]


@dataclass(frozen=True)
class Doctor(Command):
    """Check versions, off-screen rendering and speed on this machine, and print the exact fix of what is wrong.

    Examples:
      reconverge doctor
    """

    summary: ClassVar[str] = "versions, rendering, speed; prints the exact fix"

    def run(self, command_line: str) -> int:
        from reconverge.launch.doctor import examine

        findings = examine()
        for finding in findings:
            print(finding)
        return 0 if all(finding.fine for finding in findings) else 2


COMMANDS: dict[str, type[Command]] = {
    "train": Train,
    "sweep": Sweep,
    "evaluate": Evaluate,
    "recover": Recover,
    "diagnose": Diagnose,
    "render": Render,
    "report": Report,
    "collect": Collect,
    "list": List,
    "doctor": Doctor,
}


def _render(folder: RunFolder, progress: Progress, tasks: Collection[str] = (), stages: Collection[int] = ()) -> None:
    from reconverge.eval.video import render_videos

    config = folder.config
    with progress.phase("render") as tick:
        render_videos(folder.path, config.video, tasks or None, stages or None, config.evaluation.workers, tick.at)


def _report(folders: list[RunFolder], output: Path, progress: Progress, reference: str | None = None) -> None:
    from reconverge.eval.report import write_report
    from reconverge.eval.summary_picture import write_summary_picture

    with progress.phase("report"):
        if len(folders) == 1:
            write_report([folders[0].path], output)
            write_summary_picture(folders[0].path)
        else:
            write_report([folder.path for folder in folders], output, reference=reference)


def _runs_within(paths: Iterable[Path]) -> list[RunFolder]:
    """The runs that the paths are or hold at any depth, in order of the paths and then of names, each once; RunFolderError where is none."""
    found: dict[Path, RunFolder] = {}
    for path in paths:
        within = [] if holds_run(path) else [config.parent for config in path.rglob("config.yaml") if holds_run(config.parent)]
        for folder in sorted(within, key=_in_numbers) or [path]:
            found.setdefault(folder.resolve(), RunFolder.open(folder))
    return list(found.values())


def _in_numbers(path: Path) -> list[tuple[str, int]]:
    """A sorting key under which seed-2 comes before seed-10."""
    return [(word, int(digits or -1)) for word, digits in re.findall(r"(\D*)(\d*)", str(path))]


def _check_device(device: str) -> None:
    """Refuse a device that this machine lacks before anything is collected or written."""
    import torch

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[device.partition(":")[0]]:
        raise ConfigError(f"device '{device}' is not available to torch {torch.__version__} on this machine; use --device cpu")


def _print_cost(progress: Progress) -> None:
    """Where the time went, phase by phase with its parts, largest first; the phases add up to the total."""
    from reconverge.eval.cost import by_phase

    total_s, rows = progress.total_s, []
    for cost in by_phase(progress.seconds):
        rows.append({"task": cost.phase, "seconds": cost.seconds})
        rows += [{"task": f"  {part}", "seconds": seconds} for part, seconds in cost.parts.items()]
    columns: Columns = {
        "where the time went": "task",
        "seconds": lambda row: f"{row['seconds']:.1f}",
        "share %": lambda row: f"{100 * row['seconds'] / total_s:.0f}",
    }
    _print_table([*rows, {"task": "in all", "seconds": total_s}], columns)
    print()


def _print_outcome(folder: RunFolder) -> None:
    """Success per task at the end, beside what it was just after learning and beside the expert's; then the run in a line."""
    from reconverge.eval import headlines
    from reconverge.eval.run_results import read_run

    results = read_run(folder.path)
    ceilings = {ceiling.task: ceiling.rate for ceiling in results.ceilings}
    rows = []
    for task, own in zip(results.tasks, results.own_stage, strict=True):
        learned, final = results.cell_at.get((own, task)), results.cell_at.get((results.stages_done, task))
        if final is not None and own <= results.stages_done:
            beside = {"learned": "-" if learned is None else f"{100 * learned.rate:.0f}", "expert": ceilings.get(task)}
            rows.append({**vars(final), **beside, "last": results.success_at_last_step(results.stages_done, task)})
    columns: Columns = {
        "task": "task",
        "just\nlearned %": "learned",
        "at the\nend %": _success,
        "95 %\ninterval": _interval,
        "at last\nstep %": lambda row: f"{100 * row['last']:.0f}",
        "expert\n%": _expert,
        "episodes": "episodes",
    }
    _print_table(rows, columns)
    success, forgetting = headlines.final_success(results), headlines.forgetting(results)
    print(f"mean success {100 * success.mean:.1f} % ({100 * success.low:.1f} to {100 * success.high:.1f})", end="")
    if results.method != "joint":
        print(f", forgetting {100 * forgetting.mean:.1f} points ({100 * forgetting.low:.1f} to {100 * forgetting.high:.1f})", end="")
    print(f"; {success.size} episodes, one seed")
    if (folder.videos / "grid.mp4").exists():
        print(f"videos: {folder.videos / 'grid.mp4'}")
    print(f"report: {folder.report_html}")


def _print_table(rows: Iterable[Mapping[str, Any]], columns: Columns, left: Collection[str] = ("task",)) -> None:
    """Print rows under headings; a column is a key of the row or a function of it, and stands to the right unless its key is in `left`."""
    table = Table(box=None, pad_edge=False)
    for heading, column in columns.items():
        table.add_column(heading, justify="left" if column in left else "right", no_wrap=True, vertical="bottom")
    for row in rows:
        table.add_row(*(str(row[column]) if isinstance(column, str) else column(row) for column in columns.values()))
    Console(highlight=False, soft_wrap=True, width=WIDEST_TABLE).print(table)


def _success(row: Mapping[str, Any]) -> str:
    return f"{100 * row['rate']:.0f}"


def _expert(row: Mapping[str, Any]) -> str:
    return "-" if row.get("expert") is None else f"{100 * row['expert']:.0f}"


def _interval(row: Mapping[str, Any]) -> str:
    return f"{100 * row['wilson_low']:.0f} to {100 * row['wilson_high']:.0f}"


def _updates(row: Mapping[str, Any]) -> str:
    if row["reference_rate"] == 0:
        return "not learned"
    return "never" if row["updates"] in (None, "") else str(row["updates"])


def _dip(row: Mapping[str, Any]) -> str:
    return f"{100 * row['dip']:.0f}"


def _at_least(flag: str, value: int | None, low: int) -> None:
    if value is not None and value < low:
        raise ConfigError(f"{flag} is {value}; it must be at least {low}")
