"""`reconverge train`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from reconverge.envs.artifact import write_file
from reconverge.envs.curriculum import Curriculum, load_curriculum
from reconverge.envs.errors import ConfigError, ReconvergeError
from reconverge.envs.experts import check_expert
from reconverge.launch.commands.command import Command, MaybePath, Several, check_device
from reconverge.launch.commands.pages import render_run, report_on
from reconverge.launch.commands.tables import Columns, expert_percent, interval_percent, print_table, success_percent, with_interval
from reconverge.launch.config import RunConfig
from reconverge.launch.config_checks import check
from reconverge.launch.config_file import config_text
from reconverge.launch.live_status import LiveStatus
from reconverge.launch.own_methods import check_method
from reconverge.launch.presets import runs_folder
from reconverge.launch.process_rank import ProcessRank, check_shares, process_rank
from reconverge.launch.progress import Progress
from reconverge.launch.run_folder import RunFolder, holds_run, resume_command
from reconverge.launch.stop_request import Stopped, StopRequest, interruptions_held
from reconverge.launch.trackers import TrackerName, check_trackers

if TYPE_CHECKING:
    from reconverge.launch.data_parallel_run import Lead


@dataclass(frozen=True)
class Train(Command):
    """Train on a curriculum, evaluate after every stage, render the videos and write the report.

    A preset is the base; every setting can be overridden by its dotted name. The defaults below are those of preset quickstart;
    `reconverge train --preset cw10 --help` shows those of cw10. All of them side by side: docs/settings.md.

    Examples:
      reconverge train --preset quickstart
      reconverge train --preset cw10 --method replay --seed 1 --output-dir runs/mine
      reconverge train --curriculum mine.yaml --policy.window 4 --train.updates 1500
      reconverge train --resume runs/cw10/replay/seed-1
      reconverge train --extend runs/quickstart/trust-region/seed-0 --curriculum cw10:5 --output-dir runs/five
      torchrun --standalone --nproc-per-node 4 -m reconverge.launch train --preset cw10-paper      one run on four GPUs
    """

    summary: ClassVar[str] = "train on a curriculum, evaluate, render, report"

    preset: str = "quickstart"
    """Configuration to start from; `reconverge list presets` shows them."""
    output_dir: MaybePath = None
    """Run folder; runs/PRESET/METHOD/seed-N when left out, or runs/PRESET-CURRICULUM/... with another curriculum than the preset's. A run with
    other settings needs one of its own."""
    overwrite: bool = False
    """Delete the run that the folder holds, and start afresh."""
    resume: MaybePath = None
    """Go on with an interrupted run, in its folder and with its configuration."""
    extend: MaybePath = None
    """Go on after the last stage of a finished run, with its configuration, in a folder of its own (--output-dir): --curriculum names a longer one,
    which begins with that run's stages. The run stays as it is."""
    print_config: bool = False
    """Print the resolved configuration and do nothing."""
    quiet: bool = False
    """Show no progress: neither the panel of a terminal nor the lines of a file."""
    track: Several[TrackerName] = ()
    """Also send losses, success and seconds to these trackers. Changes no result; files come first."""
    track_online: bool = False
    """Let wandb and trackio send to their servers; without it everything stays on this machine, in runs/tracking."""
    config: Annotated[RunConfig, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff] = field(default_factory=RunConfig)

    def run(self, command_line: str) -> int:
        check(self.config)
        check_method(self.config.method)
        check_trackers(self.track, self.track_online)
        if self.print_config:
            print(config_text(self.config), end="")
            return 0
        if self.resume is None:  # a resumed run has its curriculum in its folder
            for task in self._curriculum.tasks:
                check_expert(task)
        check_device(self.config.device)
        place = process_rank()
        return self._run(command_line) if place is None else self._shared_run(command_line, place)

    def _shared_run(self, command_line: str, place: ProcessRank) -> int:
        """One of the processes that torchrun started: the first is the run, the others help it."""
        check_shares(self.config, place)
        from reconverge.launch.curriculum_run import device_memory_in_words
        from reconverge.launch.data_parallel_run import Lead, follow, join

        ranks = join(self.config, place)
        if place.rank == 0:
            with Lead(ranks) as lead:
                return self._run(command_line, lead)
        with device_memory_in_words(self.config.device, self._path):
            follow(self.config, self._path, ranks)
        return 0

    def _run(self, command_line: str, lead: Lead | None = None) -> int:
        Path(self.config.demonstrations.folder).mkdir(parents=True, exist_ok=True)  # fails here rather than with a run begun
        try:
            with (
                StopRequest(),  # until the folder is closed
                self._folder(command_line) as folder,
                Progress.in_terminal(self.quiet, panel=True) as progress,
                LiveStatus(folder, progress),
            ):
                if self.resume is None and self.extend is None:  # ahead of what takes long: a resumed run has no other
                    write_file(folder.curriculum_yaml, self._curriculum.to_yaml())
                with StopRequest(progress.say_at_once):
                    self._train(folder, progress, lead)
        except KeyboardInterrupt:
            again = resume_command(self._path) if holds_run(self._path) else command_line
            raise Stopped(f"go on with: {again}") from None
        _print_cost(progress)
        _print_outcome(folder)
        return 0

    def _folder(self, command_line: str) -> RunFolder:
        if self.resume is not None:
            if self.overwrite or self.output_dir is not None or self.extend is not None:
                raise ConfigError("--resume goes on in the run's own folder; leave --overwrite, --output-dir and --extend out")
            return RunFolder.resume(self.resume, self.config)
        if self.extend is not None:
            from reconverge.launch.extension import extend

            note = (lambda words: None) if self.quiet else partial(print, file=sys.stderr)
            return extend(self.extend, self.config, self._path, command_line, self.overwrite, note)
        return RunFolder.create(self._path, self.config, command_line, self.overwrite)

    @cached_property
    def _curriculum(self) -> Curriculum:
        """As the user's own word has it, also on what archives are trusted."""
        return load_curriculum(self.config.curriculum)

    @property
    def _path(self) -> Path:
        if given := self.resume or self.output_dir:
            return given
        if self.extend is not None:
            raise ConfigError(f"--extend leaves {self.extend} as it is; name the folder of the longer run with --output-dir")
        return Path("runs", runs_folder(self.preset, self.config.curriculum), self.config.method, f"seed-{self.config.seed}")

    def _train(self, folder: RunFolder, progress: Progress, lead: Lead | None) -> None:
        from reconverge.launch.tracking import Tracking
        from reconverge.launch.training_panel import live_panel

        progress.note(f"run folder: {folder.path}{'' if self.extend is None else f', which extends {self.extend}'}")
        with live_panel(folder.path, progress), Tracking(folder.path, self.track, progress.note, online=self.track_online):
            self._train_and_report(folder, progress, lead)

    def _train_and_report(self, folder: RunFolder, progress: Progress, lead: Lead | None) -> None:
        with interruptions_held():
            from reconverge.launch.curriculum_run import train
            from reconverge.launch.extension import longer_curriculum
            from reconverge.launch.run_cost import write_cost

        curriculum = self._curriculum if self.resume is None else None
        if self.extend is not None:
            curriculum = longer_curriculum(RunFolder.open(self.extend), self.config)
        train(self.config, folder, progress, lead, curriculum)
        if self.config.video.render and self.config.video.episodes:
            try:
                render_run(folder, progress)
            except (ReconvergeError, OSError) as problem:  # such as a full disk; the run is done: its report is written with or without videos
                progress.note(f"no videos: {problem}; then: reconverge render {folder.path}")
        write_cost(folder, progress)
        report_on([folder], folder.report_html, progress)
        write_cost(folder, progress)


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
    print_table([*rows, {"task": "in all", "seconds": total_s}], columns)
    print()


def _print_outcome(folder: RunFolder) -> None:
    """Success per task at the end, beside what it was just after learning and beside the expert's; then the run in a line."""
    from reconverge.eval import headlines
    from reconverge.eval.run_results import read_run
    from reconverge.eval.task_failures import failure_sentences

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
        "at the\nend %": success_percent,
        "95 %\ninterval": interval_percent,
        "at last\nstep %": lambda row: f"{100 * row['last']:.0f}",
        "expert\n%": expert_percent,
        "episodes": "episodes",
    }
    print_table(rows, columns)
    for sentence in failure_sentences(results):
        print(sentence)
    success, forgetting = headlines.final_success(results), headlines.forgetting(results)
    print(f"mean success {with_interval(success.mean, success.low, success.high)}", end="")
    if results.method != "joint":
        print(f", forgetting {with_interval(forgetting.mean, forgetting.low, forgetting.high, 'points')}", end="")
    print(f"; {success.size} episodes, one seed")
    if (folder.videos / "grid.mp4").exists():
        print(f"videos: {folder.videos / 'grid.mp4'}")
    print(f"report: {folder.report_html}")
