"""Where the jobs of a sweep run. One way is built in: processes of this machine.

Another one (a cluster's queue, a pool of machines that share the folders) is a class with `start`; a job needs nothing but
the files that its order names.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Order:
    """One job to run.

    Attributes:
        config_file: its configuration, written.
        curriculum_file: its curriculum with every budget filled in, as the sweep read it, written.
        folder: its run folder.
        log: file to which what it says is appended.
        command: the line that the run folder keeps.
        overwrite: delete another run that the folder holds.
    """

    config_file: Path
    curriculum_file: Path
    folder: Path
    log: Path
    command: str
    overwrite: bool = False

    @property
    def words(self) -> list[str]:
        """The program to start, with its arguments."""
        own = [str(self.config_file), str(self.curriculum_file), str(self.folder), self.command, *(["--overwrite"] if self.overwrite else [])]
        return [sys.executable, "-m", "reconverge.launch.job_process", *own]


class Running(Protocol):
    """A job that was started."""

    def exit_code(self) -> int | None:
        """None while it runs; a negative number is the signal that ended it."""

    def ask_to_end(self) -> None:
        """Interrupt it; it closes its workers and gives its folder back. Does not wait."""

    def kill(self) -> None:
        """End it and its workers at once."""


class Backend(Protocol):
    def start(self, order: Order) -> Running:
        """Start a job and return at once."""


class LocalBackend:
    """Each job is a process of this machine, in a session of its own: a Ctrl-C reaches the sweep alone, which ends them in order."""

    def start(self, order: Order) -> Running:
        order.log.parent.mkdir(parents=True, exist_ok=True)
        with open(order.log, "ab") as log:
            return LocalProcess(subprocess.Popen(order.words, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True))


class LocalProcess:
    """See `Running`. Standard input stays open as long as the sweep lives, by which the job knows that it does."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def exit_code(self) -> int | None:
        code = self._process.poll()
        if code is not None and self._process.stdin is not None:
            self._process.stdin.close()
        return code

    def ask_to_end(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.exit_code()
