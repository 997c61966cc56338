"""What a sweep would do: what the folders hold of every job, what is left to do for it, and what that costs.

Nothing is written here but the two folders, by `Places.make`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reconverge.envs.errors import RunFolderError
from reconverge.launch.job import Holding, Job, look
from reconverge.launch.sweep_cost import CostModel, makespan

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
        return self.output / ".sweep" / f"{job.address[:16]}.yaml"

    def curriculum_file(self, job: Job) -> Path:
        return self.output / ".sweep" / f"{job.address[:16]}.curriculum.yaml"

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


@dataclass(frozen=True)
class Entry:
    """A job and what is left to do for it; `held` is what was found, `where` names the folder of what is refused."""

    job: Job
    todo: Todo
    held: Holding
    where: Path

    @property
    def is_to_run(self) -> bool:
        """Whether the job is to be trained, from its start or on from a stage."""
        return self.todo in ("resume", "start", "overwrite")

    @property
    def refusal(self) -> str:
        """Why a job that is refused is: the folder and what it holds."""
        return f"{self.where}: {self.held.reason or 'holds a part of the results'}"


# what is left to do --------------------------------------------------------------------------------------------------------------


def examine(job: Job, places: Places, overwrite: bool) -> Entry:
    """What is left to do for a job. Results that were published count as done, whatever the output folder holds."""
    folder, published = places.folder(job), places.published(job)
    own, public = look(folder, job), Holding("nothing") if published is None else look(published, job)
    if public.state == "result":
        return Entry(job, "nothing", public, published or folder)
    if published is not None and _is_in_the_way(public, ("other", "part"), overwrite):
        return Entry(job, "refuse", public, published)
    if _is_in_the_way(own, ("other",), overwrite):
        return Entry(job, "refuse", own, folder)
    if own.state == "result":
        return Entry(job, "nothing" if published is None else "publish", own, folder)
    todo: dict[str, Todo] = {"nothing": "start", "part": "resume", "other": "overwrite"}
    return Entry(job, todo[own.state], own, folder)


def _is_in_the_way(held: Holding, others: tuple[str, ...], overwrite: bool) -> bool:
    """Whether a folder's content forbids the job: with `overwrite` the `others` do not."""
    return held.state in ("foreign", "unreadable") or (held.state in others and not overwrite)


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
    states = {entry.held.state for entry in refused}
    if published == {False} and states == {"other"}:
        advice += ", or redo these with --overwrite"
    if "unreadable" in states:
        advice += "; what cannot be read is never overwritten: look whether its disk or network answers, else restore or delete it yourself"
    return advice[0].upper() + advice[1:]


# what it costs -------------------------------------------------------------------------------------------------------------------


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
    left = [entry for entry in entries if entry.is_to_run]
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
