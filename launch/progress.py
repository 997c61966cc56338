"""What is going on and for how long still: bars in a terminal, plain lines elsewhere, and a count of the seconds.

    stage 2/3 push-wall-v3  update 500/2000  38.1/s  eta 0:40

`train` has a panel in the place of the bars (training_panel.py), which looks here for what it shows.

The seconds of each phase go to cost.json. A phase inside another one stops the outer one's clock, so the
phases add up to the time they took together:

    update    0 ....... 10            20 ..... 25      update 15 s
    evaluate            10 .......... 20               evaluate 10 s

Phases have parts, booked as `evaluate/simulate`, and what is in no phase is booked as `other`: the seconds add up to the
time from the first to the last booking.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from reconverge.launch.stop_request import interruptions_held, past_all_buffers

Mode = Literal["panel", "bars", "plain", "quiet"]
PLAIN_INTERVAL_S = 5.0


class Tick:
    """Counts what a phase has done; `tick()` after each piece, `tick(n)` after n of them."""

    def __init__(self, phase: str, total: int | None, done: int, changed: Callable[[Tick], None], clock: Callable[[], float]) -> None:
        self.phase, self.total, self.done = phase, total, done
        self._first, self._started_s = done, clock()
        self._changed, self._clock = changed, clock
        self.bar: TaskID | None = None

    def __call__(self, n: int = 1) -> None:
        self.at(self.done + n)

    def at(self, done: int, total: int | None = None) -> None:
        """Set the count itself; fits callbacks of the form (done, total)."""
        self.done, self.total = done, self.total if total is None else total
        self._changed(self)

    def pause(self, seconds: float) -> None:
        """Leave out what an inner phase took, so that the rate is this phase's own."""
        self._started_s += seconds

    @property
    def elapsed_s(self) -> float:
        """Seconds since the phase began, without those of the phases inside it."""
        return self._clock() - self._started_s

    @property
    def rate(self) -> float | None:
        """Pieces per second since the phase began; None until one is done."""
        return (self.done - self._first) / self.elapsed_s if self.done > self._first and self.elapsed_s > 0 else None

    @property
    def eta_s(self) -> float | None:
        """Seconds left at the present rate."""
        return (self.total - self.done) / self.rate if self.total is not None and self.rate else None

    def __str__(self) -> str:
        parts = [f"{self.phase} {self.done}" if self.total is None else f"{self.phase} {self.done}/{self.total}"]
        if self.rate is not None:
            parts += [f"{self.rate:.1f}/s"]
        if self.eta_s is not None and self.done < (self.total or 0):
            parts += [f"eta {clock_text(self.eta_s)}"]
        return "  ".join(parts)


class Unfailing:
    """A stream whose reader may go away, or know few letters: what cannot be shown is shown to nobody, and the run goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                self._stream.write(text.encode(self._stream.encoding, "replace").decode(self._stream.encoding))
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Interruptible(Console):
    """A console that a signal may reach at any time.

    It never hides the cursor: a process that is killed could not give it back. A wish to stop waits until a line is printed: of one that
    was broken off rich does not know that it has been written, and writes it again, with the panel that it is part of.

    Attributes:
        drawing: lock of whoever draws below the lines. A line wipes away the drawing that was there when it began; without the lock, another
            thread may have drawn a higher one by the time that it is written.
    """

    drawing: AbstractContextManager[Any] = contextlib.nullcontext()

    def show_cursor(self, show: bool = True) -> bool:
        return False

    def print(self, *objects: Any, **options: Any) -> None:
        with interruptions_held(), self.drawing:
            super().print(*objects, **options)


class Progress:
    """Where a run is. Stages are announced, phases are entered, notes are printed between.

    with Progress.in_terminal() as progress:
        progress.stage(2, 3, "push-wall-v3")
        with progress.phase("update", 2000) as tick:
            ...
            tick()

    Attributes:
        seconds: seconds spent per phase so far; a resumed run may put the earlier ones in.
        phases: those that are open, the innermost last.
        figures: rows of training figures of the stage under way, for those who look on.
        urgent: what was said last from within a signal handler.
    """

    def __init__(self, mode: Mode = "plain", stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.mode = mode
        self.seconds: dict[str, float] = {}
        self.phases: list[Tick] = []
        self.figures: list[dict[str, Any]] = []
        self.urgent = ""
        self.console = _Interruptible(file=cast("TextIO", Unfailing(stream or sys.stderr)), highlight=False, soft_wrap=True)
        self._clock = clock
        self._stage = ""
        self._place: dict[str, Any] = {}
        self._part = ""
        self._resumed_s = self._printed_s = clock()
        self._bars = self._make_bars() if mode == "bars" else None
        if self._bars is not None:
            self.console.drawing = self._bars.live._lock

    @classmethod
    def in_terminal(cls, quiet: bool = False, panel: bool = False) -> Progress:
        """Bars, or room for a panel, where somebody watches standard error; plain lines where it is a file or a pipe."""
        shown: Mode = "panel" if panel else "bars"
        return cls("quiet" if quiet else shown if watched(sys.stderr, os.environ) else "plain")

    def __enter__(self) -> Progress:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def stage(self, number: int, of: int, task: str) -> None:
        """Announce the stage that begins; 1 is the first."""
        self._stage = f"stage {number}/{of} {task}"
        self._place = {"stage": number, "of": of, "task": task}
        self.note(self._stage)

    @contextmanager
    def phase(self, name: str, total: int | None = None, done: int = 0) -> Iterator[Tick]:
        """Time a phase and show its progress; `done` of `total` may be behind it already when a run is resumed."""
        self._settle()
        tick = Tick(name, total, done, self._show, self._clock)
        if self._bars is not None:
            tick.bar = self._bars.add_task(self._label(tick), total=total, completed=done, speed="")
        self.phases.append(tick)
        try:
            yield tick
        finally:
            self._settle()
            self.phases.pop()
            for outer in self.phases:
                outer.pause(tick.elapsed_s)
            self._end(tick)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Book what happens inside as a part of the phase that is open."""
        self._settle()
        self._part = f"/{name}"
        try:
            yield
        finally:
            self._settle()
            self._part = ""

    def note(self, text: str) -> None:
        """Print one line, above the bars when there are any."""
        if self.mode != "quiet":
            (self._bars.console if self._bars is not None else self.console).print(Text(text))

    def say_at_once(self, text: str) -> None:
        """Say something from within a signal handler, where nothing may be locked: past all buffers, or in the panel when it is drawn next."""
        self.urgent = text
        if self.mode != "panel":
            past_all_buffers(text)

    def where(self) -> dict[str, Any]:
        """Stage, innermost open phase and seconds per phase, as plain JSON values; another thread may ask."""
        found: dict[str, Any] = {**self._place, "seconds": dict(self.seconds)}
        phases = list(self.phases)
        found |= {tick.phase: tick.done for tick in phases if tick.phase == "update"}  # also while a phase inside it is open
        for tick in phases[-1:]:
            found |= {"phase": tick.phase, "done": tick.done, "total": tick.total, "rate": tick.rate, "eta_s": tick.eta_s}
        return found

    @property
    def total_s(self) -> float:
        """Seconds from the beginning, those of earlier parts of a resumed run included."""
        self._settle()
        return sum(self.seconds.values())

    def _settle(self) -> None:
        """Book the time since the last booking on the innermost open phase, or its part."""
        now = self._clock()
        name = f"{self.phases[-1].phase}{self._part}" if self.phases else "other"
        if now > self._resumed_s:
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._resumed_s
        self._resumed_s = now

    def _show(self, tick: Tick) -> None:
        if self._bars is not None and tick.bar is not None:
            speed = "" if tick.rate is None else f"{tick.rate:.1f}/s  eta {clock_text(tick.eta_s)}"
            self._bars.update(tick.bar, completed=tick.done, total=tick.total, speed=speed)
        elif self.mode == "plain" and self._clock() - self._printed_s >= PLAIN_INTERVAL_S:
            self._print(tick)

    def _end(self, tick: Tick) -> None:
        if self._bars is not None and tick.bar is not None:
            self._bars.remove_task(tick.bar)
        if tick.elapsed_s >= PLAIN_INTERVAL_S:
            count = (f" {tick.done}" if tick.done else "") if tick.total is None else f" {tick.done}/{tick.total}"
            self.note(f"{self._label(tick)}{count} in {clock_text(tick.elapsed_s)}")
            self._printed_s = self._clock()

    def _print(self, tick: Tick) -> None:
        self._printed_s = self._clock()
        self.note(f"{self._stage}  {tick}".strip())

    def _label(self, tick: Tick) -> str:
        return f"{self._stage}  {tick.phase}".strip()

    def _make_bars(self) -> Bars:
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"))
        return Bars(*columns, console=self.console, transient=True)


def watched(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether a stream is a terminal that can redraw and may be coloured, and no log of an automatic build."""
    able = environment.get("TERM", "") not in ("", "dumb", "unknown") and not environment.get("NO_COLOR")
    return able and stream.isatty() and environment.get("CI", "").lower() in ("", "0", "false")


def clock_text(seconds: float | None) -> str:
    """Seconds as 0:40, 12:05 or 1:02:03; `-` when unknown."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
