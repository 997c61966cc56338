"""`reconverge sweep`."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from reconverge.envs.errors import ConfigError
from reconverge.launch.commands.cluster import RayAddress, check_needs, check_owners
from reconverge.launch.commands.command import Command, MaybeFloat, MaybeInt, MaybeName, MaybePath, Several, at_least, check_device
from reconverge.launch.commands.tables import Columns, print_table
from reconverge.launch.config import METHOD_CHOICES, RunConfig
from reconverge.launch.presets import find_preset, runs_folder
from reconverge.launch.progress import Progress
from reconverge.launch.stop_request import Stopped
from reconverge.launch.trackers import TrackerName, check_trackers

if TYPE_CHECKING:
    from reconverge.launch.backend import Backend
    from reconverge.launch.job import Job
    from reconverge.launch.ray_backend import RayBackend
    from reconverge.launch.sweep import Outcome
    from reconverge.launch.sweep_plan import Entry, Places


@dataclass(frozen=True)
class Sweep(Command):
    """Train every method with every seed, several runs at a time, and tabulate them; go on where an earlier sweep stopped.

    A job is a method, a seed and one combination of the varied settings, with one or none of the changes to ablate; its run lies in
    OUTPUT_DIR/METHOD[/VARIATION]/seed-N. Jobs whose results are there are not run again, here or in --results-dir; interrupted ones are
    resumed; a folder that holds a run with other settings is refused. A preset is the base, on one thread; every setting can be overridden by
    its dotted name.

    The runs are processes of this machine, tasks of a Ray cluster, or jobs of a Slurm queue, with the same files and results. The machines of
    a cluster must share the folder in which the sweep is started, and have this package in the same place. On Ray the demonstrations are
    collected first, by all nodes.

    Examples:
      reconverge sweep --preset cw10 --methods finetune replay trust-region --seeds 0..4 --jobs 2 --evaluation.episodes 100 --results-dir results/cw10
      reconverge sweep --preset cw10 --methods replay --seeds 0..2 7 --vary replay.source=stored,generator --vary train.updates=1000,2000
      reconverge sweep --preset cw10 --curriculum cw10:6 --methods replay --seeds 0..2 --ablate train.replay_weight=1,3 --ablate policy.window=1
      reconverge sweep --preset quickstart --curriculum mine.yaml --train.updates 500 --methods replay ewc --dry-run
      reconverge sweep --preset cw10-paper --methods replay trust-region --seeds 0..4 --device cuda --backend ray --cpus-per-job 4
      reconverge sweep --preset cw10 --methods replay --seeds 0..19 --backend ray --ray-address 10.0.0.7:6379
      reconverge sweep --preset cw10 --methods replay --seeds 0..19 --backend slurm --slurm-partition cpu --slurm-minutes 60
      reconverge sweep --preset cw10 --methods replay --seeds 0..4 --backend slurm --slurm-options mem=4G account=robots
    """

    summary: ClassVar[str] = "methods x seeds, several runs at a time; resumable"

    preset: str = "quickstart"
    """Configuration to start from; `reconverge list presets` shows them."""
    methods: Annotated[tuple[str, ...], tyro.conf.arg(metavar=f"[{METHOD_CHOICES} ...]", help_behavior_hint="")] = ()
    """Methods; that of the configuration when left out."""
    seeds: Several[str] = ()
    """Seeds: numbers and ranges such as `0..4 7`, both ends meant; that of the configuration when left out."""
    vary: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="KEY=VALUE,...")] = ()
    """Values of a setting, each a set of runs of its own, such as `train.updates=1000,2000`; several of these are combined.
    A method that does not read it has the same run for all values."""
    ablate: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="KEY=VALUE,...")] = ()
    """Changes of a setting that are made one at a time, beside the runs without any, such as `policy.window=1`; of methods that read it."""
    jobs: MaybeInt = None
    """Runs at a time; when left out 1 on this machine, as many as the nodes hold on Ray, all of them in a Slurm queue. No result depends on it."""
    backend: Literal["local", "ray", "slurm"] = "local"
    """Where the runs are: processes of this machine, tasks of a Ray cluster, or jobs of a Slurm queue, requeued at their time limit."""
    cpus_per_job: MaybeFloat = None
    """Processors that a run asks of a cluster, on Ray also a fraction; its threads when left out."""
    gpus_per_job: MaybeFloat = None
    """GPUs that a run asks of a cluster; on Ray 0.25 lets four runs share one. 1 with --device cuda when left out, else 0."""
    ray_address: RayAddress = "auto"
    """The Ray cluster: HOST:PORT; `auto`: that of $RAY_ADDRESS or of this machine; `local`: a new one of this machine, for this sweep alone."""
    slurm_partition: MaybeName = None
    """Partition of the Slurm jobs; the queue's default when left out."""
    slurm_minutes: MaybeInt = None
    """Time limit of a Slurm job; two minutes ahead of it the run is saved and requeued. That of the partition when left out."""
    slurm_options: Several[str] = ()
    """Further options for sbatch, without their dashes: `mem=8G account=robots`."""
    output_dir: MaybePath = None
    """Folder of the runs; runs/sweep/PRESET when left out, or runs/sweep/PRESET-CURRICULUM with another curriculum than the preset's."""
    results_dir: MaybePath = None
    """Folder to which the small tables of every finished run are copied; what is finished there counts as done."""
    overwrite: bool = False
    """Delete runs with other settings that are in the way, their tables in --results-dir too, and redo them. Finished jobs stay."""
    dry_run: bool = False
    """Show what is done, what would run and what it would cost, and do nothing."""
    quiet: bool = False
    """Show no progress."""
    track: Several[TrackerName] = ()
    """Also send losses, success and seconds of every run to these trackers. Changes no result; files come first."""
    track_online: bool = False
    """Let wandb and trackio send to their servers; without it everything stays on this machine, in runs/tracking."""
    config: Annotated[RunConfig, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff] = field(default_factory=RunConfig)

    def run(self, command_line: str) -> int:
        self._check_backend()
        check_trackers(self.track, self.track_online)
        from reconverge.launch import sweep, sweep_plan
        from reconverge.launch.tracking import Tracking

        places = self._places()
        entries = [sweep_plan.examine(job, places, self.overwrite) for job in self._planned()]
        cost = sweep_plan.learned_cost(entries)
        if self.dry_run:
            columns: Columns = {"job": "job", "would": "would", "updates": "updates", "minutes": "minutes"}
            print_table(sweep_plan.plan_rows(entries, cost), columns, left=("job", "would"))
            print(sweep_plan.plan_in_words(entries, cost, self.jobs or (1 if self.backend == "local" else len(entries))))
        sweep_plan.refuse(entries, places)
        if self.dry_run:
            return 0
        try:
            with (
                self._backend([entry.job for entry in entries if entry.is_to_run]) as (backend, limit),
                Tracking(places.output, self.track, lambda text: print(text, file=sys.stderr), online=self.track_online),
            ):
                outcomes = sweep.run_on(backend, entries, places, limit, cost, self.overwrite, self.quiet)
        except KeyboardInterrupt:
            raise Stopped(f"go on with the same command: {command_line}") from None
        return self._conclude(entries, outcomes, places)

    def _check_backend(self) -> None:
        """Raise ConfigError for numbers that make no sense, and for options of another back end than the chosen one."""
        at_least("--slurm-minutes", self.slurm_minutes, 1)
        check_needs(self.backend, self.jobs, self.cpus_per_job, self.gpus_per_job)
        check_owners(self.backend, {
            "--cpus-per-job": (self.cpus_per_job is not None, ("ray", "slurm")),
            "--gpus-per-job": (self.gpus_per_job is not None, ("ray", "slurm")),
            "--ray-address": (self.ray_address != "auto", ("ray",)),
            "--slurm-partition": (self.slurm_partition is not None, ("slurm",)),
            "--slurm-minutes": (self.slurm_minutes is not None, ("slurm",)),
            "--slurm-options": (bool(self.slurm_options), ("slurm",)),
        })  # fmt: skip

    @contextlib.contextmanager
    def _backend(self, jobs: Sequence[Job]) -> Iterator[tuple[Backend, int]]:
        """Where the jobs run, and how many at once. Whether there is a device is known here for this machine, and by the jobs elsewhere."""
        settings = {(job.config.threads, job.config.device) for job in jobs}
        if self.backend == "ray" and jobs:
            from reconverge.launch import ray_backend

            with ray_backend.connected(self.ray_address, self.cpus_per_job, self.gpus_per_job) as ray:
                limit = self.jobs or ray.room({ray.need(*setting) for setting in settings})
                self._collect(ray, jobs)
                yield ray, limit
        elif self.backend == "slurm" and jobs:
            from reconverge.launch.slurm_backend import SlurmBackend, SlurmOptions

            options = SlurmOptions(self.slurm_partition, self.slurm_minutes, self.cpus_per_job, self.gpus_per_job, self.slurm_options)
            for setting in settings:
                options.need(*setting)
            yield SlurmBackend(options), self.jobs or len(jobs)
        else:
            from reconverge.launch.backend import LocalBackend

            for _, device in settings:
                check_device(device)
            yield LocalBackend(), self.jobs or 1

    def _collect(self, ray: RayBackend, jobs: Sequence[Job]) -> None:
        """Have all nodes collect the demonstrations that the jobs need. What fails here fails again in its jobs, which then say why."""
        from reconverge.launch.demonstration_shards import make_shards, wanted_by

        plain = ray.asking()  # a shard needs no GPU, whatever a run needs
        limit = self.jobs or plain.room([plain.need(1, "cpu")])
        with Progress.in_terminal(self.quiet) as progress:
            for failure in make_shards(plain.start, wanted_by(jobs), limit, progress):
                progress.note(f"demonstrations: {failure}")

    def _planned(self) -> list[Job]:
        from reconverge.launch.job_plan import parse_changes, parse_seeds, parse_variations, plan_jobs

        base = find_preset(self.preset)
        for flag, own, given, chosen in (
            ("method", base.method, self.config.method, self.methods),
            ("seed", base.seed, self.config.seed, self.seeds),
        ):
            if chosen and given != own:
                raise ConfigError(f"--{flag} {given} beside --{flag}s contradicts it; leave --{flag} out")
        methods = tuple(dict.fromkeys(self.methods or (self.config.method,)))
        seeds = parse_seeds(self.seeds or (str(self.config.seed),))
        variations = parse_variations(self.vary, self.config)
        return plan_jobs(self.config, self.preset, methods, seeds, variations, parse_changes(self.ablate, self.config, variations[0]))

    def _places(self) -> Places:
        from reconverge.launch.run_folder import nested
        from reconverge.launch.sweep_plan import Places

        output = self.output_dir or Path("runs", "sweep", runs_folder(self.preset, self.config.curriculum))
        if self.results_dir is not None and nested(self.results_dir, output):
            raise ConfigError(
                f"--results-dir {self.results_dir} and --output-dir {output} lie one within the other, so that a report would count every run "
                "twice; copies need a folder of their own"
            )
        return Places(output, self.results_dir)

    def _conclude(self, entries: Sequence[Entry], outcomes: Sequence[Outcome], places: Places) -> int:
        """Print what was found and what failed. Exit code 0: all done, 2: every failure can be mended, 1: one is a bug or was killed."""
        from reconverge.launch.sweep_summary import summary_rows

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
