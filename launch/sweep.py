"""A sweep: the jobs that are not done yet are run, a few at a time, and the tables of each are kept.

    look      what do RESULTS_DIR and OUTPUT_DIR hold of every job?      done | resume | start | refused, see `Todo`
    run       at most `limit` at once, each in its own run folder        a failure does not stop the others
    publish   the small tables of a finished run go to RESULTS_DIR       from which alone a sweep can go on elsewhere

Nothing but the folders is remembered, so a sweep that was killed is simply started again.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from reconverge.envs.artifact import write_file, written_whole
from reconverge.envs.errors import RunFolderError
from reconverge.eval import headlines
from reconverge.eval.intervals import mean_interval
from reconverge.eval.run_results import RunResults, read_run
from reconverge.launch.backend import Backend, Order, Running, end_all, last_words, log_size
from reconverge.launch.config_file import config_text
from reconverge.launch.job import Holding, Job, look
from reconverge.launch.seal import seal
from reconverge.launch.sweep_cost import CostModel, makespan
from reconverge.launch.sweep_view import JobClock, SweepView

PUBLISHED = (
    "curriculum.yaml", "command.txt", "fingerprint.json", "success_matrix.csv", "recovery.csv", "recovery_curves.csv", "ledger.csv",
    "fisher.csv", "ceilings.csv", "failures.csv", "cost.json", "config.yaml",
)  # fmt: skip
"""Files of a run that go to the results folder: all that figures are made of, some ten kilobytes."""
POLL_S = 0.25

Todo = Literal["nothing", "publish", "resume", "start", "overwrite", "refuse"]


@dataclass(frozen=True)
class Places:
    """Where a sweep's jobs lie; both folders have METHOD[/VARIATION]/seed-N below them."""

    output: Path
    results: Path | None = None

    def folder(self, job: Job) -> Path:
        return self.output / job.path

    def log(self, job: Job) -> Path:
        folder = self.folder(job)
        return folder.with_name(f"{folder.name}.log")

    def config_file(self, job: Job) -> Path:
        return self.output / ".sweep" / f"{_file_name(job)}.yaml"

    def curriculum_file(self, job: Job) -> Path:
        return self.output / ".sweep" / f"{_file_name(job)}.curriculum.yaml"

    def published(self, job: Job) -> Path | None:
        return None if self.results is None else self.results / job.path

    def tables(self, job: Job) -> Path:
        """The folder with a finished job's tables."""
        published = self.published(job)
        return published if published is not None and published.is_dir() else self.folder(job)

    def make(self) -> None:
        """Create both folders. Raises RunFolderError when one cannot be written, which is better known before the first job than after."""
        for flag, folder in (("--output-dir", self.output), ("--results-dir", self.results)):
            try:
                if folder is not None:
                    folder.mkdir(parents=True, exist_ok=True)
                    tempfile.TemporaryFile(dir=folder).close()
            except OSError as error:
                raise RunFolderError(f"{flag} {folder} cannot be written ({error.strerror}); choose another") from error


def _file_name(job: Job) -> str:
    """Of a job's own files. Its address alone would not do: variations of what a method does not read share it, each in a folder of its own."""
    return hashlib.sha256(f"{job.address} {job.path}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Entry:
    """A job and what is left to do for it; `held` is what was found, `where` names the folder of what is refused."""

    job: Job
    todo: Todo
    held: Holding
    where: Path

    @property
    def refusal(self) -> str:
        """Why a job that is refused is: the folder and what it holds."""
        return f"{self.where}: {self.held.reason or 'holds a part of the results'}"


@dataclass(frozen=True)
class Outcome:
    """How a job ended: exit code 0 and no error, or what it said last."""

    job: Job
    exit_code: int = 0
    error: str = ""


# look ------------------------------------------------------------------------------------------------------------------------------


def examine(job: Job, places: Places, overwrite: bool) -> Entry:
    """What is left to do for a job. Results that were published count as done, whatever the output folder holds."""
    folder, published = places.folder(job), places.published(job)
    own, public = look(folder, job), Holding("nothing") if published is None else look(published, job)
    if public.state == "result":
        return Entry(job, "nothing", public, published or folder)
    for held, where in ((public, published), (own, folder)):
        in_the_way = held.state == "other" or (held is public and held.state == "part")
        if where is not None and (held.state == "foreign" or (in_the_way and not overwrite)):
            return Entry(job, "refuse", held, where)
    if own.state == "result":
        return Entry(job, "nothing" if published is None else "publish", own, folder)
    todo: dict[str, Todo] = {"nothing": "start", "part": "resume", "other": "overwrite"}
    return Entry(job, todo[own.state], own, folder)


def refuse(entries: Iterable[Entry], places: Places, limit: int = 3) -> None:
    """Raise RunFolderError when a folder holds something else than its job, naming the first few, what differs, and what to do.

    Published tables may have taken days: that they be overwritten is never what is advised.
    """
    refused = [entry for entry in entries if entry.todo == "refuse"]
    if refused:
        named = "; ".join(entry.refusal for entry in refused[:limit])
        more = f"; and {len(refused) - limit} more folders" if len(refused) > limit else ""
        raise RunFolderError(f"other runs are in the way of this sweep: {named}{more}. {_advice(refused, places)}")


def _advice(refused: Sequence[Entry], places: Places) -> str:
    published = {entry.where == places.published(entry.job) for entry in refused}
    folders = " or ".join(flag for flag, here in (("--results-dir", True), ("--output-dir", False)) if here in published)
    advice = f"choose another {folders}"
    flags = {entry.held.flags for entry in refused}
    if len(flags) == 1 and (as_they_were := flags.pop()):
        advice = f"to go on with what lies there, give {as_they_were}; else {advice}"
    if published == {False} and all(entry.held.state == "other" for entry in refused):
        advice += ", or redo these with --overwrite"
    return advice[0].upper() + advice[1:]


def learned_cost(entries: Iterable[Entry]) -> CostModel:
    """A cost model that knows what the finished jobs took."""
    cost = CostModel()
    for entry in entries:
        if entry.held.state == "result" and entry.held.seconds is not None:
            cost.learn(entry.job, entry.held.seconds)
    return cost


def plan_rows(entries: Sequence[Entry], cost: CostModel) -> list[dict[str, str]]:
    """A row per job for `--dry-run`: path, what would happen, gradient updates, minutes measured or estimated."""
    return [
        {
            "job": str(entry.job.path),
            "would": _intention(entry),
            "updates": f"{entry.job.updates:,}",
            "minutes": _minutes(entry.held.seconds if entry.held.state == "result" else _seconds_left(entry, cost), entry.held.state != "result"),
        }
        for entry in entries
    ]


def plan_in_words(entries: Sequence[Entry], cost: CostModel, lanes: int) -> str:
    """Such as `3 of 10 done, 7 to run: about 84 minutes with --jobs 2`."""
    left = [entry for entry in entries if entry.todo in ("resume", "start", "overwrite")]
    done = sum(entry.held.state == "result" for entry in entries)
    words = f"{done} of {len(entries)} done, {len(left)} to run"
    if not left:
        return words
    seconds = [_seconds_left(entry, cost) for entry in left]
    known = [value for value in seconds if value is not None]
    if len(known) < len(seconds):
        updates = sum(entry.job.updates for entry in left)
        return f"{words}: {updates:,} gradient updates; minutes are estimated once a job is done"
    return f"{words}: about {_minutes(makespan(known, lanes), False)} minutes with --jobs {lanes}, judged from the jobs done"


def _intention(entry: Entry) -> str:
    if entry.todo == "resume":
        return f"resume after stage {entry.held.stages_done} of {len(entry.job.curriculum.stages)}"
    words = {"nothing": "done", "publish": "done, copy the tables", "start": "start", "overwrite": "delete and start", "refuse": "be refused"}
    return words[entry.todo]


def _seconds_left(entry: Entry, cost: CostModel) -> float | None:
    stages = len(entry.job.curriculum.stages)
    return cost.seconds(entry.job, 1 - entry.held.stages_done / stages if entry.todo == "resume" else 1.0)


def _minutes(seconds: float | None, estimated: bool) -> str:
    return "-" if seconds is None else f"{'~' if estimated else ''}{seconds / 60:.{1 if seconds < 600 else 0}f}"


# run -------------------------------------------------------------------------------------------------------------------------------


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
        self.waiting = [entry for entry in entries if entry.todo in ("resume", "start", "overwrite")]
        self.to_publish = [entry.job for entry in entries if entry.todo == "publish"]
        self.running: dict[Job, Started] = {}
        self.outcomes: list[Outcome] = []

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
        if entry.todo in ("nothing", "publish", "refuse"):
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
                publish(self.places.folder(job), published)
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
        return any(_demonstrations(other) == _demonstrations(job) for other in collecting)

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


def publish(run: Path, target: Path) -> None:
    """Copy the tables of a finished run; `target` appears whole, in one rename, and what was there steps aside first."""
    with written_whole(target) as draft:
        for name in PUBLISHED:
            if (run / name).exists():
                write_file(draft / name, (run / name).read_bytes())
        seal(draft)


def _demonstrations(job: Job) -> tuple[object, ...]:
    """All that a job's demonstrations depend on, and where they are kept."""
    wanted = frozenset((stage.task.name, stage.demonstrations) for stage in job.curriculum.stages)
    return replace(job.config.demonstrations, workers=0), wanted  # which the number of workers is not


# summary ---------------------------------------------------------------------------------------------------------------------------


def summary_rows(entries: Sequence[Entry], places: Places, done: Iterable[Job]) -> list[dict[str, str]]:
    """A row per method and variation over the seeds that are done: success and forgetting with their interval over seeds, minutes."""
    finished, rows = set(done), []
    for group in dict.fromkeys(entry.job.group for entry in entries):
        of_group = [entry.job for entry in entries if entry.job.group == group]
        runs = [read_run(places.tables(job)) for job in of_group if job in finished]
        rows.append({
            "method": group,
            "seeds": f"{len(runs)} of {len(of_group)}",
            "success": _over_seeds([headlines.final_success(run).mean for run in runs], lowest=0.0),
            "forgetting": _over_seeds([headlines.forgetting(run).mean for run in runs], lowest=-100.0),
            "minutes": _mean_minutes(runs),
        })  # fmt: skip
    return rows


def _over_seeds(shares: Sequence[float], lowest: float) -> str:
    """A mean in percent with its interval, cut to what can be: from `lowest` to 100; one value, or values that agree, have none."""
    found = mean_interval([100 * share for share in shares])
    if found.size == 0:
        return "-"
    if math.isnan(found.low):
        return f"{found.mean:.1f}"
    return f"{found.mean:.1f} ({max(lowest, found.low):.1f} to {min(100.0, found.high):.1f})"


def _mean_minutes(runs: Sequence[RunResults]) -> str:
    seconds = [float(run.cost["total_s"]) for run in runs if run.cost.get("total_s")]
    return f"{sum(seconds) / len(seconds) / 60:.1f}" if seconds else "-"
