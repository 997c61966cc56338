"""What `reconverge train` shows in a terminal, below its lines, while it runs.

    ╭─ cw10:3, trust-region, seed 0: 2:04 so far ───────────────────────────╮
    │ % after stage    1   2   3                                            │    success; a bar for each where there are many stages
    │ ✓ hammer        96  94                                                │    learned
    │ ▶ push-wall      2                                                    │    being learned
    │ · faucet-close                                                        │    ahead
    │ update 500/1500 ━━━━━━━━━━╸──────────────────────  38.1/s  eta 0:26   │    and the phase inside it, such as an evaluation
    │ loss 0.0312 █▆▅▄▃▃▂▂▁▁▁   gradient norm 0.41 █▅▄▃▃▂▂▁▁▁               │    of this stage, logarithmic
    │ left: stage 0:31, run 1:50  38.1 updates/s  0.6 GB, 5 GB free         │
    ╰─────────────────────────────────────── Ctrl-C saves, --resume goes on ╯

It is drawn twice a second by a thread of rich.live.Live, from what `Progress` holds and, when a stage has ended, from the run folder.
The training loop waits for nothing, and whatever goes wrong in a drawing is drawn in its place.
"""

from __future__ import annotations

import os
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from reconverge.envs.errors import DamagedFile
from reconverge.envs.gym_name import short_name
from reconverge.eval.run_results import RunResults, read_run
from reconverge.launch.machine_limits import free_memory, used_memory
from reconverge.launch.progress import Progress, Tick, clock_text
from reconverge.launch.remaining_time import Remaining, remaining
from reconverge.launch.sparkline import BLOCKS, LETTERS, sparkline
from reconverge.launch.stop_request import interruptions_held

REFRESHES_PER_S = 2.0
WIDEST, NARROWEST = 100, 50
"""Columns of the panel; in a narrower terminal one line stands for it."""
ECHO = 3
"""Columns that stay free on the right: a terminal writes ^C there, and a line that broke would leave traces when the panel is redrawn."""
OTHER_LINES = 10
"""Of the terminal that the tasks do not get: the rest of the panel, and four lines that scroll."""
LONGEST_NAME = 24
HEADING = "% after stage"
LOCAL = 3
"""Index of the local modes in what `termios.tcgetattr` gives."""
MOST_ROWS = 1000
"""Of the training figures that a curve is drawn from; of more, as many at even distances."""
COLD, WARM = (0x9C, 0x4A, 0x35), (0x1F, 0x6F, 0x8B)
"""Colours of success 0 and 1: forgotten and kept, told apart by colour-blind readers."""


class Glyphs(NamedTuple):
    learned: str
    current: str
    ahead: str
    bar: str
    rest: str
    cut: str
    within: str
    levels: str
    box: box.Box


FULL = Glyphs("✓", "▶", "·", "━", "─", "…", "›", BLOCKS, box.ROUNDED)
PLAIN = Glyphs("+", ">", ".", "=", "-", "~", ">", LETTERS, box.ASCII)
"""For a terminal whose encoding has no more letters than these."""


@contextmanager
def live_panel(folder: Path, progress: Progress) -> Iterator[None]:
    """Show the run in `folder` while this is entered, where `progress` has room for a panel; leave the terminal as it was."""
    if progress.mode != "panel":
        yield
        return
    live = Live(
        TrainingPanel(folder, progress), console=progress.console, refresh_per_second=REFRESHES_PER_S, transient=True, vertical_overflow="crop",
        redirect_stdout=sys.stdout.isatty(),
    )  # fmt: skip
    progress.console.drawing = live._lock
    with output_kept():
        try:
            with interruptions_held():  # broken off in the middle, rich would not know what it has to wipe away
                live.start()
            yield
        finally:
            with interruptions_held():
                live.stop()


@contextmanager
def output_kept() -> Iterator[None]:
    """Have Ctrl-C throw nothing away that was written and is not on the screen yet, which is what terminals do with half a drawing too."""
    try:
        terminal = sys.stderr.fileno()
        modes = termios.tcgetattr(terminal)
    except (OSError, termios.error):  # no terminal at all
        yield
        return
    kept = [*modes]
    kept[LOCAL] |= termios.NOFLSH
    _set_modes(terminal, kept)
    try:
        yield
    finally:
        _set_modes(terminal, modes)


def _set_modes(terminal: int, modes: list[Any]) -> None:
    """Unless this runs in the background, where a process that sets its terminal's modes is stopped."""
    with suppress(OSError, termios.error):
        if os.tcgetpgrp(terminal) == os.getpgrp():
            termios.tcsetattr(terminal, termios.TCSANOW, modes)


class TrainingPanel:
    """Draws itself anew from the run's present state each time that rich asks."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self._folder, self._progress = folder, progress
        self._began_s = time.monotonic()
        self._run: RunResults | None = None
        self._read: object = None
        self._updates_per_s: float | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        try:
            yield from list(console.render(self._drawn(options), options))
        except Exception as error:  # of whatever kind: a picture is no reason for a run to fail
            yield Text(f"no panel: {type(error).__name__}: {error}"[: max(1, options.max_width - ECHO)], no_wrap=True)

    def _drawn(self, options: ConsoleOptions) -> RenderableType:
        self._look()
        width, glyphs = min(options.max_width - ECHO, WIDEST), PLAIN if options.ascii_only else FULL
        where, phases = self._progress.where(), list(self._progress.phases)
        if width < NARROWEST or options.size.height <= OTHER_LINES + 1:
            return _fitted(_activity(phases, width, glyphs), max(1, width), glyphs)
        inner = width - 4
        lines = [] if self._run is None else matrix_lines(self._run, where, inner, options.size.height - OTHER_LINES, glyphs)
        lines += [_activity(phases, inner, glyphs), self._figures(inner, glyphs), self._outlook(where, phases, inner)]
        text = Text("\n").join(_fitted(line, inner, glyphs) for line in lines)
        hint = Text(self._progress.urgent, "bold") if self._progress.urgent else Text("Ctrl-C saves, --resume goes on", "dim")
        return Panel(
            text, title=_fitted(Text(self._title()), inner - 2, glyphs), title_align="left", subtitle=_fitted(hint, inner - 2, glyphs),
            subtitle_align="right", box=glyphs.box, width=width, border_style="dim",
        )  # fmt: skip

    def _look(self) -> None:
        """Read the run folder again when a stage has ended; what cannot be read at this moment may be at the next."""
        found = [_changed(self._folder / name) for name in ("curriculum.yaml", "success_matrix.csv")]
        if found[0] is None or found == self._read:
            return
        with suppress(DamagedFile):
            self._run, self._read = read_run(self._folder, episodes=False), found

    def _title(self) -> str:
        so_far = f"{clock_text(time.monotonic() - self._began_s)} so far"
        return so_far if self._run is None else f"{self._run.config.get('curriculum')}, {self._run.name}: {so_far}"

    def _figures(self, width: int, glyphs: Glyphs) -> Text:
        """Loss and gradient norm of the stage, as numbers and as curves."""
        rows, line = list(self._progress.figures), Text(no_wrap=True)
        for name, key in (("loss", "loss"), ("gradient norm", "gradient_norm")):
            values = [row.get(key) for row in rows[:: len(rows) // MOST_ROWS + 1]]
            last = rows[-1].get(key) if rows else None
            line.append(f"{'   ' if line else ''}{name} ", "dim").append("-" if last is None else f"{last:<6.3g}").append(" ")
            line.append(sparkline(values, (width - 36) // 2, glyphs.levels), "cyan")
        return line

    def _outlook(self, where: dict[str, Any], phases: Sequence[Tick], width: int) -> Text:
        """Time left, speed, memory: as much of it as there is room for."""
        stage, run = (None if self._run is None else remaining(self._run, where, stage_only) for stage_only in (True, False))
        if phases and phases[-1].phase == "update" and phases[-1].rate is not None:
            self._updates_per_s = phases[-1].rate
        words = f"left: stage {_time_left(stage)}, run {_time_left(run)}"
        speed = "" if self._updates_per_s is None else f"  {self._updates_per_s:.1f} updates/s"
        for more in (speed, f"  {_memory()}", f", {free_memory() / 1e9:.0f} GB free"):
            words += more if len(words) + len(more) <= width else ""
        return Text(words)


# Success ---------------------------------------------------------------------------------------------------------------------------------


def matrix_lines(run: RunResults, where: dict[str, Any], width: int, most: int, glyphs: Glyphs) -> list[Text]:
    """Tasks from top to bottom with what became of them after every stage from left to right; at most `most` tasks, those around the present."""
    stage = int(where.get("stage") or 0)
    current = set() if stage <= run.stages_done else set(run.tasks if run.method == "joint" else run.stages[stage - 1 : stage])
    names = {task: _cut(short_name(task), LONGEST_NAME, glyphs) for task in run.tasks}
    left = 3 + max(len(HEADING), *map(len, names.values()))
    columns, cell = _columns(run, stage, width - left)
    shown = _rows(run, current, most)

    labels = [f"{number:>3} " if cell > 2 else f"{number if number % 5 == 0 else '':<2}" for number in columns]
    lines = [Text(f"{HEADING:<{left}}{''.join(labels)}", "dim")]
    for task in shown:
        learned = run.own_stage[run.tasks.index(task)] <= run.stages_done
        mark, style = (glyphs.current, "bold") if task in current else (glyphs.learned, "") if learned else (glyphs.ahead, "dim")
        line = Text(f"{mark} {names[task]:<{left - 2}}", style)
        for number in columns:
            line.append_text(_cell(run, number, task, cell, glyphs))
        lines.append(line)
    if hidden := len(run.tasks) - len(shown):
        before = run.tasks.index(shown[0])
        lines.append(Text(f"  not shown: {before} before, {hidden - before} after these", "dim"))
    return lines


def _columns(run: RunResults, stage: int, width: int) -> tuple[list[int], int]:
    """Stages that are shown, and the width of their cells: four with a number, two with a bar; the last ones where not all fit."""
    numbers = [len(run.stages)] if run.method == "joint" else list(range(1, len(run.stages) + 1))
    cell = 4 if 4 * len(numbers) <= width else 2
    fit = max(1, width // cell)
    return numbers[max(0, min(max(stage, fit), len(numbers)) - fit) :][:fit], cell


def _rows(run: RunResults, current: set[str], most: int) -> list[str]:
    tasks = list(run.tasks)
    if len(tasks) <= most:
        return tasks
    room = max(1, most - 1)  # one line says how many are left out
    middle = max((tasks.index(task) for task in current), default=min(run.stages_done, len(tasks) - 1))
    first = max(0, min(middle - room // 2, len(tasks) - room))
    return tasks[first : first + room]


def _cell(run: RunResults, stage: int, task: str, width: int, glyphs: Glyphs) -> Text:
    found = run.cell_at.get((stage, task))
    if found is None or not found.episodes:
        return Text(("x" if (stage, task) in run.failed_at else "" if found is None else "?").center(width))
    colour = f"rgb({','.join(str(round(low + (high - low) * found.rate)) for low, high in zip(COLD, WARM, strict=True))})"
    if width > 2:
        return Text(f"{100 * found.rate:>{width - 1}.0f} ", f"white on {colour}")
    return Text(f"{glyphs.levels[round(found.rate * (len(glyphs.levels) - 1))]} ", colour)


# Lines -----------------------------------------------------------------------------------------------------------------------------------


def _activity(phases: Sequence[Tick], width: int, glyphs: Glyphs) -> Text:
    """What is done at this moment: the open phases, a bar of the innermost one, its rate and the time it needs."""
    if not phases:
        return Text("preparing", "dim")
    now = phases[-1]
    words = f" {glyphs.within} ".join(tick.phase if tick.total is None else f"{tick.phase} {tick.done}/{tick.total}" for tick in phases)
    rate = "" if now.rate is None else f"  {_speed(now.rate)}"
    eta = "" if now.eta_s is None else f"  eta {clock_text(now.eta_s)}"
    beside = next((each for each in (rate + eta, eta) if len(words) + len(each) < width), "")
    line, room = Text(f"{words} ", no_wrap=True), width - len(words) - len(beside) - 1
    if now.total and room >= 8:
        done = round(room * min(1.0, now.done / now.total))
        line.append(glyphs.bar * done, "cyan").append(glyphs.rest * (room - done), "dim")
    return line.append(beside)


def _speed(rate: float) -> str:
    return f"{rate:.1f}/s" if rate < 1000 else f"{rate / 1000:.1f}k/s"


def _time_left(left: Remaining | None) -> str:
    return "-" if left is None else f"{'' if left.whole else 'at least '}{clock_text(left.seconds)}"


def _memory() -> str:
    """Of this process, and of its GPU when it has one."""
    gpu = _gpu_memory()
    return f"{used_memory() / 1e9:.1f} GB" + (f", {gpu / 1e9:.1f} GB on the GPU" if gpu else "")


def _gpu_memory() -> float:
    """Bytes that torch holds on the current GPU; 0 while it uses none."""
    torch = sys.modules.get("torch")
    return float(torch.cuda.memory_reserved()) if torch is not None and torch.cuda.is_initialized() else 0.0


def _changed(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _fitted(line: Text, width: int, glyphs: Glyphs) -> Text:
    if line.cell_len > width:
        line = line[: width - 1].append(glyphs.cut)
    line.no_wrap = True
    return line


def _cut(name: str, width: int, glyphs: Glyphs) -> str:
    return name if len(name) <= width else f"{name[: width - 1]}{glyphs.cut}"
