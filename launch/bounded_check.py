"""Running something that may hang or crash: in a thread that is left behind, or in a process that is killed.

    thread      file systems that do not answer        after the time limit it is forgotten; it ends with the program
    process     drivers, native libraries              after the time limit it is killed; a crash of it is a number
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

Answer = TypeVar("Answer")


class NoAnswer(Exception):
    """A check that hung, crashed or failed; the message says which, in one line."""


class TooSlow(NoAnswer):
    """A check that gave no answer in its time: it hangs, or the machine is busy."""


def in_a_thread(check: Callable[[], Answer], limit_s: float) -> Answer:
    """What `check` returns. Raises NoAnswer when it takes longer than `limit_s` or raises anything."""
    answers: list[Answer] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            answers.append(check())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(limit_s)
    if errors:
        raise NoAnswer(one_line(errors[0])) from errors[0]
    if not answers:
        raise TooSlow(f"no answer within {limit_s:g} s")
    return answers[0]


def in_a_process(code: str, limit_s: float, environment: Mapping[str, str] | None = None) -> str:
    """What Python code prints, run in a child. Raises NoAnswer when it takes longer than `limit_s`, crashes or fails."""
    settings = {**os.environ, **(environment or {})}
    pipe = subprocess.PIPE
    child = subprocess.Popen(
        [sys.executable, "-c", code], env=settings, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, errors="replace",
        start_new_session=True,
    )  # fmt: skip
    try:
        said, complained = child.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise TooSlow(f"no answer within {limit_s:g} s") from None
    finally:
        _end(child)
    if child.returncode < 0:
        raise NoAnswer(f"crashed ({signal_name(-child.returncode)})")
    if child.returncode:
        raise NoAnswer(_last_line(complained) or f"ended with code {child.returncode}")
    return said


def one_line(error: BaseException) -> str:
    """The kind and the message of an error, shortened to a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def _end(child: subprocess.Popen[str]) -> None:
    """Kill the child and whatever it has started; one that the kernel does not let go is left behind."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(2.0)
    for stream in (child.stdout, child.stderr):
        if stream is not None:
            stream.close()


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
