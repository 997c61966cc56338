"""`reconverge sweep`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from reconverge.envs.errors import ConfigError
from reconverge.launch.commands.command import Command, at_least, check_device
from reconverge.launch.commands.tables import Columns, print_table
from reconverge.launch.config import METHOD_CHOICES, RunConfig
from reconverge.launch.presets import find_preset
from reconverge.launch.stop_request import Stopped
from reconverge.launch.trackers import TrackerName, check_trackers

if TYPE_CHECKING:
    from reconverge.launch.job import Job
    from reconverge.launch.sweep import Entry, Outcome, Places


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
    methods: Annotated[tuple[str, ...], tyro.conf.arg(metavar=f"[{METHOD_CHOICES} ...]")] = ()
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
    track: tuple[TrackerName, ...] = ()
    """Also send losses, success and seconds of every run to these trackers. Changes no result; files come first."""
    track_online: bool = False
    """Let wandb and trackio send to their servers; without it everything stays on this machine, in runs/tracking."""
    config: Annotated[RunConfig, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff] = field(default_factory=RunConfig)

    def run(self, command_line: str) -> int:
        at_least("--jobs", self.jobs, 1)
        check_trackers(self.track, self.track_online)
        from reconverge.launch import sweep
        from reconverge.launch.tracking import Tracking

        places = self._places()
        entries = [sweep.examine(job, places, self.overwrite) for job in self._planned()]
        cost = sweep.learned_cost(entries)
        if self.dry_run:
            columns: Columns = {"job": "job", "would": "would", "updates": "updates", "minutes": "minutes"}
            print_table(sweep.plan_rows(entries, cost), columns, left=("job", "would"))
            print(sweep.plan_in_words(entries, cost, self.jobs))
        sweep.refuse(entries)
        if self.dry_run:
            return 0
        for device in {entry.job.config.device for entry in entries} - {"cpu"}:
            check_device(device)
        try:
            with Tracking(places.output, self.track, lambda text: print(text, file=sys.stderr), online=self.track_online):
                outcomes = sweep.run_here(entries, places, self.jobs, cost, self.overwrite, self.quiet)
        except KeyboardInterrupt:
            raise Stopped(f"go on with the same command: {command_line}") from None
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
        print_table(summary_rows(entries, places, done), {**columns, "minutes\nper run": "minutes"}, left=("method",))
        if done:
            print(f"in brackets: 95 % interval over seeds\nreconverge report {shlex.quote(str(places.results or places.output))}")
        if not failed:
            return 0
        print(f"\n{len(failed)} of {len(entries)} jobs failed; the same command tries them again")
        rows = [{"job": str(one.job.path), "code": one.exit_code, "error": one.error, "log": places.log(one.job)} for one in failed]
        print_table(rows, {"failed": "job", "exit code": "code", "last line": "error", "log": "log"}, left=("job", "error", "log"))
        return 2 if all(outcome.exit_code == 2 for outcome in failed) else 1
