"""The seconds of each phase, and what is printed about them."""

from __future__ import annotations

import errno
import io

import pytest
from hand_clock import Clock

from reconverge.launch import progress as progress_module
from reconverge.launch.progress import Mode, Progress, clock_text, watched


class Gone(io.StringIO):
    """A stream whose reader has gone away: the end of a pipe, or a terminal that was closed."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(errno.EIO, "the terminal is closed")])
def test_a_reader_that_goes_away_does_not_end_the_run(error: OSError) -> None:
    progress = Progress("plain", Gone(error))
    for _ in range(3):
        progress.note("to nobody")


def test_letters_that_a_stream_does_not_know_do_not_end_the_run() -> None:
    found = io.BytesIO()
    progress = Progress("plain", io.TextIOWrapper(found, encoding="latin-1", write_through=True))
    progress.note("Fréchet → 3")
    assert found.getvalue() == "Fréchet ? 3\n".encode("latin-1")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "expected"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"TERM": "xterm", "CI": "false", "NO_COLOR": ""}, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "xterm", "CI": "true"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (Terminal(), {}, False),
        (io.StringIO(), {"TERM": "xterm", "FORCE_COLOR": "1"}, False),
    ],
)
def test_only_a_terminal_that_somebody_watches_is_redrawn(stream: io.StringIO, environment: dict[str, str], expected: bool) -> None:
    assert watched(stream, environment) is expected


def make(mode: Mode = "plain") -> tuple[Progress, Clock, io.StringIO]:
    clock, stream = Clock(), io.StringIO()
    return Progress(mode, stream, clock), clock, stream


def test_a_phase_inside_another_is_not_counted_twice() -> None:
    """The numbers of the module's picture."""
    progress, clock, _ = make()
    with progress.phase("update", 25):
        clock.now_s = 10
        with progress.phase("evaluate", 1):
            clock.now_s = 20
        clock.now_s = 25
    assert progress.seconds == {"update": 15, "evaluate": 10}
    assert progress.total_s == 25


def test_the_rate_of_a_phase_leaves_out_the_phases_inside_it() -> None:
    """10 of 20 pieces in 10 s of its own, whatever came between: 1 a second, 10 s left."""
    progress, clock, _ = make()
    with progress.phase("update", 20) as tick:
        clock.now_s = 5
        with progress.phase("recovery"):
            clock.now_s = 45
            with progress.phase("deeper"):
                clock.now_s = 95
        clock.now_s = 100
        tick(10)
        assert (tick.rate, tick.eta_s) == (1.0, 10.0)


def test_time_between_phases_is_booked_as_other_and_all_add_up() -> None:
    progress, clock, _ = make()
    progress.seconds["update"] = 100.0  # of an earlier part of a resumed run
    for _ in range(2):
        clock.now_s += 3
        with progress.phase("update"):
            clock.now_s += 5
    assert progress.seconds == {"update": 110, "other": 6}
    assert progress.total_s == 116


def test_parts_of_a_phase_are_booked_beside_what_is_left_of_it() -> None:
    progress, clock, _ = make()
    with progress.phase("evaluate"):
        clock.now_s = 1
        for _ in range(2):
            with progress.part("simulate"):
                clock.now_s += 3
        with progress.part("sample"):
            clock.now_s += 2
        clock.now_s += 1
    assert progress.seconds == {"evaluate": 2, "evaluate/simulate": 6, "evaluate/sample": 2}


def test_total_counts_a_phase_that_is_still_open() -> None:
    progress, clock, _ = make()
    with progress.phase("update"):
        clock.now_s = 4
        assert progress.total_s == 4


def test_an_error_closes_the_phase() -> None:
    progress, clock, _ = make()
    with pytest.raises(ValueError), progress.phase("update"):
        clock.now_s = 2
        raise ValueError
    clock.now_s = 50
    assert progress.seconds == {"update": 2} and progress.total_s == 50


def test_the_plain_line() -> None:
    progress, clock, stream = make()
    progress.stage(2, 3, "push-wall-v3")
    with progress.phase("update", 2000) as tick:
        clock.now_s = 1
        tick(10)  # too early for a line
        clock.now_s = 12.5
        tick(490)
    lines = stream.getvalue().splitlines()
    assert lines == [
        "stage 2/3 push-wall-v3",
        "stage 2/3 push-wall-v3  update 500/2000  40.0/s  eta 0:38",
        "stage 2/3 push-wall-v3  update 500/2000 in 0:12",
    ]


def test_plain_output_has_no_control_characters_and_is_not_wrapped() -> None:
    progress, _, stream = make()
    progress.note("a [bold]note[/bold] " + "x" * 300)
    assert stream.getvalue() == "a [bold]note[/bold] " + "x" * 300 + "\n"


def test_lines_are_seconds_apart() -> None:
    progress, clock, stream = make()
    with progress.phase("update", 1000) as tick:
        for _ in range(1000):
            clock.now_s += 0.1
            tick()
    assert len(stream.getvalue().splitlines()) <= 100 / progress_module.PLAIN_INTERVAL_S + 2


def test_the_rate_of_a_resumed_phase_counts_only_new_pieces() -> None:
    progress, clock, _ = make()
    with progress.phase("update", 2000, done=1000) as tick:
        clock.now_s = 10
        tick(100)
        assert (tick.done, tick.rate, tick.eta_s) == (1100, 10.0, 90.0)


def test_a_callback_of_done_and_total_fits() -> None:
    progress, _, _ = make()
    with progress.phase("demonstrations") as tick:
        tick.at(3, 20)
        assert str(tick) == "demonstrations 3/20"


def test_quiet_prints_nothing_and_still_counts() -> None:
    progress, clock, stream = make("quiet")
    progress.stage(1, 3, "hammer-v3")
    with progress.phase("update", 10) as tick:
        clock.now_s = 60
        tick(10)
    assert stream.getvalue() == "" and progress.seconds == {"update": 60}


def test_bars_come_and_go_and_notes_stay() -> None:
    progress, _, stream = make("bars")
    with progress:
        progress.stage(1, 3, "hammer-v3")
        with progress.phase("update", 10) as tick:
            tick(5)
            with progress.phase("evaluate", 3) as inner:
                inner(3)
        assert progress._bars is not None and progress._bars.task_ids == []
    assert "stage 1/3 hammer-v3" in stream.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (40.4, "0:40"), (59.6, "1:00"), (725, "12:05"), (3723, "1:02:03"), (None, "-")])
def test_clock_text(seconds: float | None, text: str) -> None:
    assert clock_text(seconds) == text
