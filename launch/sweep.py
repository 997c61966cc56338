"""A sweep: the jobs that are not done yet are run, a few at a time, and the tables of each are kept.

    look      what do RESULTS_DIR and OUTPUT_DIR hold of every job?      done | resume | start | refused, see `sweep_plan`
    run       at most `limit` at once, each in its own run folder        a failure does not stop the others
    publish   the small tables of a finished run go to RESULTS_DIR       from which alone a sweep can go on elsewhere

Nothing but the folders is remembered, so a sweep that was killed is simply started again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reconverge.envs.artifact import sweep_abandoned, write_file, written_whole
from reconverge.eval import headlines
from reconverge.eval.run_results import read_run
from reconverge.launch.backend import Backend, Order, Running, end_all, last_words, log_size
from reconverge.launch.config_file import config_text
from reconverge.launch.demonstration_shards import wanted_by
from reconverge.launch.job import Holding, Job, look
from reconverge.launch.seal import seal
from reconverge.launch.sweep_cost import CostModel
from reconverge.launch.sweep_plan import Entry, Places, examine
from reconverge.launch.sweep_view import JobClock, SweepView

PUBLISHED = (
    "curriculum.yaml", "command.txt", "fingerprint.json", "success_matrix.csv", "recovery.csv", "recovery_curves.csv", "ledger.csv",
    "fisher.csv", "ceilings.csv", "failures.csv", "cost.json", "config.yaml",
)  # fmt: skip
"""Files of a run that go to the results folder: all that figures are made of, some ten kilobytes."""
POLL_S = 0.25


@dataclass(frozen=True)
class Outcome:
    """How a job ended: exit code 0 and no error, or what it said last."""

    job: Job
    exit_code: int = 0
    error: str = ""


@dataclass(frozen=True)
class Started:
    """A job that runs, its progress, and how long its log was before."""

    running: Running
    clock: JobClock
    log_bytes: int


class SweepRun:
    """Runs what is left of a sweep, at most `limit` jobs at once."""

    def __init__(self, entries: Sequence[Entry], places: Places, backend: Backend, limit: int, view: SweepView, overwrite: bool = False) -> None:
        self.places, self.backend, self.limit, self.view, self.overwrite = places, backend, limit, view, overwrite
        self.waiting = [entry for entry in entries if entry.is_to_run]
        self.to_publish = [entry.job for entry in entries if entry.todo == "publish"]
        self.running: dict[Job, Started] = {}
        self.outcomes: list[Outcome] = []
        self.collections: dict[Job, frozenset[Path]] = {}
        self.made: set[Path] = set()

    def run(self) -> list[Outcome]:
        """The outcome of every job that was run, or whose tables could not be copied, in the order of their ends.

        An interruption ends the running jobs first.
        """
        for job in self.to_publish:
            outcome = self.publish(job)
            if outcome.exit_code:
                self.outcomes.append(outcome)
            self.view.note(self._in_words(outcome) if outcome.exit_code else f"copied the tables of {job.path}, which was done already")
        try:
            while self.waiting or self.running:
                self.start_what_fits()
                self.view.refresh(self._clocks, self._ahead)
                if not self.collect_ended():
                    time.sleep(POLL_S)
        except BaseException:
            end_all([started.running for started in self.running.values()])
            raise
        return self.outcomes

    def start_what_fits(self) -> None:
        for entry in list(self.waiting):
            if len(self.running) >= self.limit:
                return
            if not self._shares_a_collection(entry.job):
                self.waiting.remove(entry)
                self.start(entry.job)

    def start(self, job: Job) -> None:
        """Start a job as its folders ask for now, which may be hours after the sweep began: another one may have done it meanwhile."""
        entry = examine(job, self.places, self.overwrite)
        if not entry.is_to_run:
            self.view.started(job, f"leave  {job.path}  ({'other results came' if entry.todo == 'refuse' else 'it was done'} meanwhile)")
            self.end(self._done(job, entry.held))
            return
        folder, log = self.places.folder(job), self.places.log(job)
        files, config = (self.places.config_file(job), self.places.curriculum_file(job)), job.config
        order = Order(*files, folder, log, job.command, entry.todo == "overwrite", config.threads, config.device)
        order.config_file.parent.mkdir(parents=True, exist_ok=True)
        write_file(order.config_file, config_text(job.config))
        write_file(order.curriculum_file, job.curriculum.to_yaml())
        log_bytes = log_size(log)
        self.running[job] = Started(self.backend.start(order), JobClock(job, folder / "metrics.jsonl"), log_bytes)
        self.view.started(job, f"{'resume' if entry.todo == 'resume' else 'start'}  {job.path}  (log: {log})")

    def collect_ended(self) -> bool:
        """Take in every job that has ended; whether there was one."""
        ended = [(job, code) for job, started in self.running.items() if (code := started.running.exit_code()) is not None]
        for job, code in ended:
            self.end(self._outcome(job, code, self.running.pop(job).log_bytes))
        return bool(ended)

    def end(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.view.ended(outcome.job, self._in_words(outcome), self._clocks, self._ahead)

    def publish(self, job: Job) -> Outcome:
        """Copy a finished job's tables if they are not there yet. What is in the way, or cannot be written, is the failure of this job alone."""
        entry, published = examine(job, self.places, self.overwrite), self.places.published(job)
        if entry.todo not in ("nothing", "publish"):
            return Outcome(job, 2, f"another run is in the way in {entry.refusal}")
        try:
            if published is not None and entry.todo == "publish":
                copy_tables(self.places.folder(job), published)
        except OSError as error:
            if examine(job, self.places, self.overwrite).todo != "nothing":  # else another sweep was faster
                return Outcome(job, 2, f"its tables cannot be copied to {published} ({error.strerror or error})")
        return Outcome(job)

    def _outcome(self, job: Job, code: int, log_bytes: int) -> Outcome:
        held = look(self.places.folder(job), job)
        if code == 0 and held.state == "result":
            return self._done(job, held)
        log = self.places.log(job)
        error = last_words(code, log, log_bytes) if code else held.reason or f"ended after stage {held.stages_done} without an error"
        return Outcome(job, code or 1, error)

    def _done(self, job: Job, held: Holding) -> Outcome:
        """The outcome of a job for which nothing is left to train."""
        if held.state == "result" and held.seconds is not None:
            self.view.cost.learn(job, held.seconds)
        return self.publish(job)

    def _in_words(self, outcome: Outcome) -> str:
        if outcome.exit_code:
            return f"failed {outcome.job.path}: {outcome.error}"
        run = read_run(self.places.tables(outcome.job))
        success, seconds = headlines.final_success(run).mean, float(run.cost.get("total_s") or 0)
        return f"done   {outcome.job.path}: success {100 * success:.1f} %, {seconds / 60:.1f} minutes"

    def _shares_a_collection(self, job: Job) -> bool:
        """Whether a running job still collects the very demonstrations that this one needs; waiting is cheaper than doing it twice."""
        collecting = [other for other in self.running if not (self.places.folder(other) / "ceilings.csv").exists()]
        shared = {collection for other in collecting for collection in self._collections(other)}.intersection(self._collections(job))
        self.made |= {collection for collection in shared - self.made if collection.exists()}
        return bool(shared - self.made)

    def _collections(self, job: Job) -> frozenset[Path]:
        """The collections of demonstrations that a job needs."""
        if job not in self.collections:
            self.collections[job] = frozenset(wanted.collection for wanted in wanted_by([job]))
        return self.collections[job]

    @property
    def _clocks(self) -> list[JobClock]:
        return [started.clock for started in self.running.values()]

    @property
    def _ahead(self) -> list[Job]:
        return [entry.job for entry in self.waiting]


def run_on(
    backend: Backend, entries: Sequence[Entry], places: Places, limit: int, cost: CostModel, overwrite: bool = False, quiet: bool = False
) -> list[Outcome]:
    """Run what is left of a sweep, and show how it goes. `overwrite` as in `examine`, which is asked again before each job."""
    if any(entry.todo != "nothing" for entry in entries):
        places.make()
    done = sum(entry.held.state == "result" for entry in entries)
    with SweepView(len(entries), done, limit, cost, quiet) as view:
        return SweepRun(entries, places, backend, limit, view, overwrite).run()


def copy_tables(run: Path, target: Path) -> None:
    """Copy the tables of a finished run; `target` appears whole, in one rename, and what was there steps aside first."""
    with written_whole(target) as draft:
        for name in PUBLISHED:
            if (run / name).exists():
                write_file(draft / name, (run / name).read_bytes())
        seal(draft)
    sweep_abandoned(target.parent)
