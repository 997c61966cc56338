"""What is seen of a sweep while it runs: a bar per running job and one of all in a terminal, a line per start and end elsewhere.

    sweep             ━━━━━━━━━━━━━━━━━━━━━━━━   30 %   3/10 ended  eta 1:02:03
    finetune/seed-0   ━━━━━━━━━━━━━━━━━━━━━━━━   62 %   stage 7/10  eta 5:10
    replay/seed-0     ━━━━━━━━━━━━━━━━━━━━━━━━   18 %   stage 2/10  eta 16:02

Where a job is, is read from the metrics.jsonl that grows in its folder, so it does not matter where it runs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from reconverge.envs.errors import DamagedFile
from reconverge.envs.plain_json import parse_json
from reconverge.launch.job import Job
from reconverge.launch.progress import Unfailing, clock_text
from reconverge.launch.sweep_cost import CostModel, makespan

TAIL_BYTES = 8192
"""Room for the last rows of metrics.jsonl."""


@dataclass(frozen=True)
class Position:
    """Where a job is: the stage that it trains (0 before the first) and the share of its updates that are done, in [0, 1]."""

    stage: int
    share: float


def position(metrics_jsonl: Path, job: Job) -> Position:
    """Where the job is whose rows grow in this file; (0, 0) while it holds none."""
    row = _last_row(metrics_jsonl)
    if row is None:
        return Position(0, 0.0)
    stage, update = row
    done = sum(plan.updates for plan in job.plans if plan.number < stage) + update
    return Position(stage, min(1.0, done / job.updates))


class JobClock:
    """Time left of a running job, from its pace since it was started, or went back to the checkpoint from which it goes on."""

    def __init__(self, job: Job, metrics_jsonl: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.job = job
        self._file, self._clock = metrics_jsonl, clock
        self._began_s, self._first = clock(), position(metrics_jsonl, job)
        self.at = self._first

    def look(self) -> None:
        self.at = position(self._file, self.job)
        if self.at.share < self._first.share:
            self._began_s, self._first = self._clock(), self.at

    @property
    def eta_s(self) -> float | None:
        """Seconds left; None until it has moved."""
        moved = self.at.share - self._first.share
        return (self._clock() - self._began_s) / moved * (1 - self.at.share) if moved > 0 else None

    def __str__(self) -> str:
        stage = f"stage {self.at.stage}/{len(self.job.curriculum.stages)}" if self.at.stage else "getting ready"
        return stage if self.eta_s is None else f"{stage}  eta {clock_text(self.eta_s)}"


class SweepView:
    """Told of every start and end, and a few times a second of what runs and what waits."""

    def __init__(self, total: int, done: int, lanes: int, cost: CostModel, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.total, self.done, self.lanes, self.cost = total, done, lanes, cost
        self._quiet = quiet
        self._console = Console(file=cast("TextIO", Unfailing(stream or sys.stderr)), highlight=False, soft_wrap=True)
        self._bars = self._make_bars() if self._console.is_terminal and not quiet else None
        self._rows: dict[Job, TaskID] = {}
        self._whole = self._bars.add_task("sweep", total=total, completed=done, where="") if self._bars is not None else None

    def __enter__(self) -> SweepView:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def note(self, text: str) -> None:
        """Print one line, above the bars when there are any."""
        if not self._quiet:
            (self._bars.console if self._bars is not None else self._console).print(Text(text))

    def started(self, job: Job, text: str) -> None:
        self.note(text)
        if self._bars is not None:
            self._rows[job] = self._bars.add_task(str(job.path), total=1.0, where="")

    def ended(self, job: Job, text: str, running: Sequence[JobClock], waiting: Sequence[Job]) -> None:
        """A job is done or has failed; either way it is behind us."""
        self.done += 1
        self.note(f"{text}  [{self._count(running, waiting)}]")
        if self._bars is not None:
            self._bars.remove_task(self._rows.pop(job))

    def refresh(self, running: Sequence[JobClock], waiting: Sequence[Job]) -> None:
        """Look where the running jobs are; costs nothing where there are no bars."""
        if self._bars is None or self._whole is None:
            return
        for clock in running:
            clock.look()
            self._bars.update(self._rows[clock.job], completed=clock.at.share, where=str(clock))
        self._bars.update(self._whole, completed=self.done, where=self._count(running, waiting))
        self._bars.refresh()

    def _count(self, running: Sequence[JobClock], waiting: Sequence[Job]) -> str:
        eta_s = self._eta_s(running, waiting)
        return f"{self.done}/{self.total} ended" + ("" if eta_s is None else f"  eta {clock_text(eta_s)}")

    def _eta_s(self, running: Sequence[JobClock], waiting: Sequence[Job]) -> float | None:
        """Seconds until every job has ended; None while one of them cannot be estimated, and when there is none."""
        for clock in running:
            clock.look()
        busy = [clock.eta_s if clock.eta_s is not None else self.cost.seconds(clock.job, 1 - clock.at.share) for clock in running]
        ahead = [self.cost.seconds(job) for job in waiting]
        known_busy, known_ahead = [s for s in busy if s is not None], [s for s in ahead if s is not None]
        if not busy + ahead or len(known_busy) < len(busy) or len(known_ahead) < len(ahead):
            return None
        return makespan(known_ahead, max(self.lanes, len(busy)), known_busy)

    def _make_bars(self) -> Bars:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[where]}"),
        )
        return Bars(*columns, console=self._console, transient=True, auto_refresh=False)


def _last_row(path: Path) -> tuple[int, int] | None:
    """(stage, update) of the last whole line; None without one."""
    try:
        if not path.is_file():  # opening a pipe would wait
            return None
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return None
    try:
        row = parse_json(lines[-1], str(path), TAIL_BYTES, unmeasured=True)
        return int(row["stage"]), int(row["update"])
    except (IndexError, ValueError, TypeError, KeyError, OverflowError, DamagedFile):
        return None
