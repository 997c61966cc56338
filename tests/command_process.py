"""A command in a process of its own, and waiting for what it does."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


def start_command(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a command in a folder so that it heeds Ctrl-C; what it prints is kept for `communicate`."""
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed_interrupts)


def heed_interrupts() -> None:
    """A test run in the background has SIGINT ignored, and hands that on to the processes it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(there: Callable[[], bool], limit_s: float = 120, process: subprocess.Popen[str] | None = None) -> None:
    """Until it is there; a process that ends without it is waited for no longer, and what it said is told."""
    deadline_s = time.monotonic() + limit_s
    while not there():
        assert time.monotonic() < deadline_s
        assert process is None or process.poll() is None or there(), process.communicate()
        time.sleep(0.02)


def finished(process: subprocess.Popen[str]) -> str:
    """All that a process that ends well has said."""
    shown, said = process.communicate(timeout=240)
    assert process.returncode == 0, shown + said
    return shown + said


def alive(pid: int | str) -> bool:
    """Whether the process is there and more than an entry that nobody has collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
