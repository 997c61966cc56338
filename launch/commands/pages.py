"""`reconverge render` and `report`: what people look at."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from reconverge.envs.errors import ConfigError
from reconverge.envs.tasks import find_task
from reconverge.launch.commands.command import Command, MaybeName, MaybePath, Run, Several
from reconverge.launch.progress import Progress
from reconverge.launch.run_catalogue import in_numbers
from reconverge.launch.run_folder import RunFolder, holds_run
from reconverge.launch.seal import renew


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
    tasks: Several[str] = ()
    """Only these tasks."""
    stages: Several[int] = ()
    """Only these stages."""
    quiet: bool = False
    """Show no progress."""

    def run(self, command_line: str) -> int:
        with RunFolder.resume(self.path) as folder, Progress.in_terminal(self.quiet) as progress:
            render_run(folder, progress, [find_task(name).name for name in self.tasks], self.stages)
            report_on([folder], folder.report_html, progress)
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

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER...", help_behavior_hint="")]
    """Run folders, or folders that hold them."""
    output: MaybePath = None
    """The page; RUN/report.html, beside a new RUN/summary.png, for one run, runs/comparison.html for a folder of runs, when left out."""
    tables: MaybePath = None
    """Also write the tables as CSV and Markdown (two also as LaTeX) and the figures as PNG and SVG into this folder."""
    reference: MaybeName = None
    """Method, or label of a group on the page, that the others are compared with; replay, or else the first, when left out."""

    def run(self, command_line: str) -> int:
        if not self.runs:
            raise ConfigError("report needs at least one run folder, such as runs/quickstart/trust-region/seed-0")
        folders = runs_within(self.runs)
        if self.reference is not None and len(folders) == 1:
            raise ConfigError(f"--reference {self.reference} has nothing to compare: {folders[0].path} is a single run; name more, or leave it out")
        if len(folders) > 1:
            _warn_of_mixing(folders)
        named = len(folders) == 1 and holds_run(self.runs[0])  # a folder that holds a single run, such as published tables, stays as it is
        output = self.output or (folders[0].report_html if named else Path("runs", "comparison.html"))
        report_on(folders, output, Progress("quiet"), self.reference)
        print(f"report: {output}")
        if self.tables is not None:
            from reconverge.eval.experiment_tables import write_tables

            write_tables([folder.path for folder in folders], self.tables, self.reference)
            print(f"tables: {self.tables}")
        return 0


def _warn_of_mixing(folders: list[RunFolder]) -> None:
    from reconverge.eval.mixed_fingerprints import warning
    from reconverge.eval.run_results import read_run

    if said := warning([read_run(folder.path) for folder in folders]):
        print(said, file=sys.stderr)


def render_run(folder: RunFolder, progress: Progress, tasks: Collection[str] = (), stages: Collection[int] = ()) -> None:
    from reconverge.eval.video import render_videos

    config = folder.config
    with progress.phase("render") as tick:
        render_videos(folder.path, config.video, tasks or None, stages or None, config.evaluation.workers, tick.at)


def report_on(folders: list[RunFolder], output: Path, progress: Progress, reference: str | None = None) -> None:
    from reconverge.eval.report import write_report
    from reconverge.eval.summary_picture import write_summary_picture

    with progress.phase("report"):
        write_report([folder.path for folder in folders], output, reference=reference)
        if len(folders) == 1 and output == folders[0].report_html:
            renew(folders[0].path, [output, write_summary_picture(folders[0].path)])


def runs_within(paths: Iterable[Path]) -> list[RunFolder]:
    """The runs that the paths are or hold at any depth, in order of the paths and then of names, each once; RunFolderError where is none.

    What lies in hidden folders is not meant: drafts that a killed sweep has left.
    """
    found: dict[Path, RunFolder] = {}
    for path in paths:
        within = [] if holds_run(path) else [config.parent for config in path.rglob("config.yaml") if holds_run(config.parent)]
        shown = [folder for folder in within if not any(part.startswith(".") for part in folder.relative_to(path).parts)]
        for folder in sorted(shown, key=lambda folder: in_numbers(str(folder))) or [path]:
            found.setdefault(folder.resolve(), RunFolder.open(folder))
    return list(found.values())
