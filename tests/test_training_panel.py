"""The panel below the lines of `reconverge train`: what it shows, in how much room, and that it leaves no trace and stops no run."""

from __future__ import annotations

import fcntl
import io
import itertools
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hand_clock import Clock
from rich.console import Console
from rich.text import Text
from synthetic_run import POINT_REACH, write_run

from reconverge.envs.curriculum import CURRICULA
from reconverge.launch import training_panel
from reconverge.launch.progress import Mode, Progress
from reconverge.launch.sparkline import sparkline
from reconverge.launch.stop_request import STOPPING, Stopped, StopRequest
from reconverge.launch.training_panel import TrainingPanel, live_panel, output_kept

FIGURES = [{"loss": 0.9 * 0.99**update + 0.03, "gradient_norm": 2 * 0.998**update} for update in range(0, 500, 25)]


class TerminalText(io.StringIO):
    """What a terminal that is never full shows of what is written to it."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        lines, row, column = [""], 0, 0
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", self.getvalue()):
            if part == "\n":
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            elif part == "\r":
                column = 0
            elif part == "\x1b[1A":
                row -= 1
                assert row >= 0, "above the top"
            elif part == "\x1b[2K":
                lines[row] = ""
            elif not part.startswith("\x1b"):
                lines[row] = lines[row].ljust(column)[:column] + part + lines[row][column + len(part) :]
                column += len(part)
        return "\n".join(line.rstrip() for line in lines).rstrip().split("\n")


@contextmanager
def second_stage(folder: Path, mode: Mode = "panel", **settings: Any) -> Iterator[tuple[Progress, Path, TerminalText]]:
    """A run whose first stages are done, at update 100 of 500 of the next one, 10 of them a second; inside it, an evaluation has begun."""
    stages, done, evaluating = settings.pop("stages", POINT_REACH), settings.pop("done", 1), settings.pop("evaluating", True)
    run, stream, clock = write_run(folder, stages=stages, done=done, **settings), TerminalText(), Clock()
    progress = Progress(mode, stream, clock)
    progress.console._force_terminal, progress.console._width, progress.console._height = True, 80, 24
    progress.seconds.update({"update": 50.0, "fisher": 2.0, "evaluate": 5.0, "recovery": 1.0})
    progress.figures += FIGURES
    progress.stage(done + 1, len(stages), stages[done])
    with progress.phase("update", 500) as tick:
        clock.now_s = 10
        tick(100)
        if not evaluating:
            yield progress, run, stream
            return
        with progress.phase("recovery", 90) as inner:
            clock.now_s = 11
            inner(30)
            yield progress, run, stream


def drawn(progress: Progress, run: Path, width: int = 80, height: int = 24, encoding: str = "utf-8") -> list[str]:
    """The lines of one drawing, without colours."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="\n", write_through=True)
    Console(file=stream, force_terminal=True, width=width, height=height, color_system=None).print(TrainingPanel(run, progress))
    return raw.getvalue().decode(encoding).splitlines()


# What is shown -------------------------------------------------------------------------------------------------------------------


def test_the_panel_shows_tasks_matrix_curves_and_time_left(tmp_path: Path) -> None:
    with second_stage(tmp_path / "run") as (progress, run, _):
        lines = drawn(progress, run)
    text = "\n".join(lines)
    assert "trust-region, seed 0: 0:00 so far" in lines[0] and lines[1].split()[1:8] == ["%", "after", "stage", "1", "2", "3", "│"]
    assert [line.split()[1:3] for line in lines[2:5]] == [["✓", "point-reach-0"], ["▶", "point-reach-1"], ["·", "point-reach-2"]]
    assert lines[2].split()[3] == "100" and lines[3].split()[3] == "5"  # the synthetic run's successes on both after stage 1
    assert "update 100/500 › recovery 30/90 ━━" in text and "30.0/s  eta 0:02" in text
    assert re.search(r"loss 0.0376 █[▁-█]+▁  .*gradient norm 0.773  █[▁-█]+▁", text)
    assert "left: stage 0:46, run 1:44 " in text  # 400 updates of 0.1 s and 6 s for the rest; then 500 and 8 s, 3 for 16 points of recovery
    assert all(len(line) <= 77 for line in lines) and len(lines) == 9


def test_the_speed_of_updates_and_the_memory_stand_beside_the_time_left(tmp_path: Path) -> None:
    with second_stage(tmp_path / "run", evaluating=False) as (progress, run, _):
        line = drawn(progress, run)[-2]
        assert re.search(r"left: .*  10\.0 updates/s  \d+\.\d GB, \d+ GB free", line), line


def test_time_left_is_a_lower_bound_while_a_phase_was_not_seen(tmp_path: Path) -> None:
    with second_stage(tmp_path / "run", done=0, evaluating=False) as (progress, run, _):
        assert re.search(r"left: stage at least 0:\d\d, run at least \d:\d\d  10.0 updates/s", drawn(progress, run)[-2])


def test_a_cell_is_coloured_by_its_rate_from_warm_to_cold(tmp_path: Path) -> None:
    with second_stage(tmp_path / "run") as (progress, run, _):
        stream = io.StringIO()
        Console(file=stream, force_terminal=True, width=80, height=24, color_system="truecolor").print(TrainingPanel(run, progress))
    assert "48;2;31;111;139m100 " in stream.getvalue()  # WARM, of a success of 100 %


def test_a_failed_cell_is_no_zero(tmp_path: Path) -> None:
    with second_stage(tmp_path / "run") as (progress, run, _):
        kept = [line for line in (run / "success_matrix.csv").read_text().splitlines(True) if not line.startswith("1,point-reach-0")]
        (run / "success_matrix.csv").write_text("".join(kept))
        (run / "failures.csv").write_text("stage,purpose,update,task,episode_seed,attempts,error\n1,matrix,500,point-reach-0,3,3,it fell over\n")
        assert drawn(progress, run)[2].split()[2:4] == ["point-reach-0", "x"]


def test_all_tasks_of_a_joint_run_are_learned_at_once(tmp_path: Path) -> None:
    with second_stage(tmp_path / "run", method="joint", done=0) as (progress, run, _):
        progress.stage(3, 3, "all 3 tasks")
        lines = drawn(progress, run)
    assert lines[1].split()[4:6] == ["3", "│"] and [line.split()[1] for line in lines[2:5]] == ["▶"] * 3


def test_before_there_is_a_run_to_read_the_phase_is_shown(tmp_path: Path) -> None:
    progress = Progress("panel", io.StringIO())
    with progress.phase("demonstrations", 60) as tick:
        tick(30)
        assert "demonstrations 30/60 ━━" in "\n".join(drawn(progress, tmp_path / "absent"))


def test_a_finished_stage_is_read_from_the_folder_when_its_table_changes(tmp_path: Path) -> None:
    with second_stage(tmp_path / "run") as (progress, run, _):
        panel, console = TrainingPanel(run, progress), Console(file=io.StringIO(), force_terminal=True, width=80, height=24, color_system=None)
        console.print(panel)
        later = write_run(tmp_path / "later", done=2)
        (run / "success_matrix.csv").write_bytes((later / "success_matrix.csv").read_bytes())
        os.utime(run / "success_matrix.csv", ns=(1, 1))
        console.print(panel)
    first, second = console.file.getvalue().split("╰")[:2]  # type: ignore[attr-defined]
    assert "▶ point-reach-1" in first and "✓ point-reach-1" in second


# In how much room ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [200, 80, 60, 53, 40, 20, 5])
@pytest.mark.parametrize("height", [60, 24, 16, 11, 5])
def test_it_fits_any_terminal(tmp_path: Path, width: int, height: int) -> None:
    with second_stage(tmp_path / "run", stages=CURRICULA["cw20"], done=12) as (progress, run, _):
        lines = drawn(progress, run, width, height)
        assert all(len(line) <= min(100, max(1, width - 3)) for line in lines)
        assert len(lines) <= max(1, height - 3) and "no panel" not in "".join(lines)
        assert ("push-wall" in "".join(lines)) == (width > 52 and height > 11)  # near the task of stage 13
        assert len(lines) == 1 or "▶ faucet-close" in "\n".join(lines)


def test_many_stages_are_bars_and_few_are_numbers(tmp_path: Path) -> None:
    with second_stage(tmp_path / "run", stages=CURRICULA["cw20"], done=12) as (progress, run, _):
        hammer = next(line for line in drawn(progress, run) if "✓ hammer" in line)
        assert re.search(r"hammer {12}([▁-█] ){12} ", hammer), hammer


def test_a_terminal_of_few_letters_gets_those(tmp_path: Path) -> None:
    with second_stage(tmp_path / "run") as (progress, run, _):
        text = "\n".join(drawn(progress, run, encoding="latin-1"))
    assert text.isascii() and "> point-reach-1" in text and "update 100/500 > recovery 30/90 ==" in text


# What it leaves ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [None, ValueError, KeyboardInterrupt])
def test_only_the_lines_stay_however_it_ends(tmp_path: Path, end: type[BaseException] | None) -> None:
    def work(progress: Progress, stream: TerminalText) -> None:
        progress.note("first")
        assert any("▶ point-reach-1" in line for line in stream.screen())
        print("from a library", file=sys.stderr)
        progress.note("second")
        if end is not None:
            raise end

    with second_stage(tmp_path / "run") as (progress, run, stream):
        with pytest.raises(end) if end else contextmanager(lambda: iter([None]))(), live_panel(run, progress):
            work(progress, stream)
        assert stream.screen() == ["stage 2/3 point-reach-1", "first", "from a library", "second"]
        assert "\x1b[?25l" not in stream.getvalue()  # the cursor was never hidden: nobody could show it again after a kill
        assert sys.stderr.__class__.__name__ != "FileProxy"


@pytest.mark.parametrize("line", ["first", "second"])
def test_only_the_lines_stay_where_a_signal_arrives_as_one_is_written(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(stream: TerminalText, text: str) -> int:
        written = io.StringIO.write(stream, text)
        if line in text and not stop.wanted:
            signal.raise_signal(signal.SIGTERM)
        return written

    with second_stage(tmp_path / "run") as (progress, run, stream):
        monkeypatch.setattr(TerminalText, "write", write)
        with pytest.raises(Stopped), StopRequest(progress.say_at_once) as stop, live_panel(run, progress):
            progress.note("first")
            progress.note("second")
        assert stream.screen() == ["stage 2/3 point-reach-1", "first", "second"][: 2 if line == "first" else 3]


def test_only_the_lines_stay_where_they_come_while_a_panel_that_grows_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heights = itertools.cycle([1, 6, 3, 5])

    def slowly(*_: object) -> list[Text]:
        time.sleep(0.01)
        return [Text("a row")] * next(heights)

    monkeypatch.setattr(training_panel, "matrix_lines", slowly)
    monkeypatch.setattr(training_panel, "REFRESHES_PER_S", 200)
    lines = [f"line {number}" for number in range(20)]
    with second_stage(tmp_path / "run") as (progress, run, stream):
        with live_panel(run, progress):
            for line in lines:
                progress.note(line)
                time.sleep(0.003)
        assert stream.screen() == ["stage 2/3 point-reach-1", *lines]


@pytest.mark.parametrize("kept", [True, False])
def test_ctrl_c_throws_away_no_output_that_waits(kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, its = pty.openpty()
    with open(its, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setattr(os, "tcgetpgrp", lambda _: os.getpgrp())
        with output_kept() if kept else nullcontext():
            os.write(its, b"x" * 10_000)  # more than a terminal takes at once
            os.write(ours, b"\x03")
            time.sleep(0.2)
            said = b""
            while select.select([ours], [], [], 0.2)[0]:
                said += os.read(ours, 65536)
    os.close(ours)
    assert (said.count(b"x") == 10_000) == kept  # what a terminal does by itself is the other case


def test_what_goes_wrong_in_a_drawing_is_drawn_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(training_panel, "matrix_lines", broken)
    with second_stage(tmp_path / "run") as (progress, run, stream), live_panel(run, progress):
        progress.note("the run goes on")
        assert "no panel: ZeroDivisionError: a bug" in stream.screen()


@pytest.mark.parametrize("mode", ["plain", "quiet"])
def test_no_panel_where_nobody_watches(tmp_path: Path, mode: Mode) -> None:
    with second_stage(tmp_path / "run", mode) as (progress, run, stream), live_panel(run, progress):
        progress.note("a line")
        assert stream.screen() == (["stage 2/3 point-reach-1", "stage 2/3 point-reach-1  update 100/500  10.0/s  eta 0:40", "a line"]
                                   if mode == "plain" else [""])  # fmt: skip


def test_a_wish_to_stop_is_said_in_the_panel_and_elsewhere_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with second_stage(tmp_path / "run") as (progress, run, _):
        progress.say_at_once(STOPPING)
        assert "a second signal leaves" in drawn(progress, run, width=100)[-1] and capfd.readouterr().err == ""
    Progress("plain", io.StringIO()).say_at_once(STOPPING)
    assert capfd.readouterr().err == f"\n{STOPPING}\n"


# The curve -----------------------------------------------------------------------------------------------------------------------


def test_the_curve_of_the_worked_example() -> None:
    assert sparkline([8, 8, 4, 4, 2, 2, 1, 1], 4) == "█▆▃▁"
    assert sparkline([3, 3], 10) == "▅▅" and sparkline([], 10) == sparkline([None, 0.0, float("nan"), float("inf")], 10) == ""
    assert len(sparkline(range(1, 1000), 18)) == 18


# A run in a terminal -------------------------------------------------------------------------------------------------------------

TINY = shlex.split(
    "train --preset smoke --curriculum point-reach:2 --train.updates 60 --replay.generator.updates 20 --train.trust-region.draws 64 "
    "--evaluation.workers 0 --demonstrations.episodes 5 --evaluation.episodes 4 --recovery.episodes 2 --recovery.grid 2 --video.render False "
    "--output-dir run"
)


def in_terminal(folder: Path, interrupt_at: bytes | None = None, **environment: str) -> tuple[int, str]:
    """Exit code and output of a run in a terminal of 80 columns, where Ctrl-C is pressed once something was shown."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "CI")}
    process = subprocess.Popen(
        [sys.executable, "-m", "reconverge.launch", *TINY], cwd=folder, env={**kept, "TERM": "xterm-256color", **environment},
        preexec_fn=partial(os.login_tty, its),
    )  # fmt: skip
    os.close(its)
    modes = termios.tcgetattr(ours)
    said, pressed, deadline_s = b"", False, time.monotonic() + 120
    while time.monotonic() < deadline_s:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                said += os.read(ours, 65536)
            except OSError:  # it has ended
                break
        if interrupt_at is not None and not pressed and interrupt_at in said:
            pressed = bool(os.write(ours, b"\x03"))
    assert termios.tcgetattr(ours) == modes
    os.close(ours)
    return process.wait(10), said.decode()


def screen(said: str) -> list[str]:
    text = TerminalText()
    text.write(said.replace("\r\n", "\n"))
    return text.screen()


@pytest.mark.slow
def test_a_run_in_a_terminal_shows_the_panel_and_leaves_its_lines(tmp_path: Path) -> None:
    code, said = in_terminal(tmp_path)
    assert code == 0 and "╭─ point-reach:2, trust-region, seed 0" in re.sub(r"\x1b\[[0-9;]*m", "", said)
    left = screen(said)
    assert left[0] == "run folder: run" and left[-1] == "report: run/report.html" and not any(mark in "".join(left) for mark in "╭│╰")


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_leaves_its_lines(tmp_path: Path) -> None:
    code, said = in_terminal(tmp_path, interrupt_at="╭".encode())
    left = screen(said)
    assert code == 75 and "stopped; go on with: reconverge train --resume run" in left[-1], said
    assert left[0] == "run folder: run" and not any(mark in "".join(left) for mark in "╭│╰"), said


@pytest.mark.slow
def test_without_colours_a_run_in_a_terminal_prints_plain_lines(tmp_path: Path) -> None:
    code, said = in_terminal(tmp_path, NO_COLOR="1")
    assert code == 0 and "\x1b[2K" not in said and "stage 2/2 point-reach-1" in said
