"""Where the jobs of a sweep run.

    local    processes of this machine                               here
    ray      tasks of a Ray cluster whose nodes share the folders    `ray_backend`
    slurm    batch jobs of a queue, requeued at their time limit     `slurm_backend`

Another one is a class with `start`; a job needs nothing but the files that its order names.
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

from reconverge.envs.errors import ConfigError


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
        threads, device: those of its configuration, from which what it asks of a machine follows.
    """

    config_file: Path
    curriculum_file: Path
    folder: Path
    log: Path
    command: str
    overwrite: bool = False
    threads: int = 1
    device: str = "cpu"

    @property
    def words(self) -> list[str]:
        """The program to start, with its arguments."""
        own = [str(self.config_file), str(self.curriculum_file), str(self.folder), self.command, *(["--overwrite"] if self.overwrite else [])]
        return [sys.executable, "-m", "reconverge.launch.job_process", *own]

    def fail(self, error: str) -> int:
        """Say in the log why the job could not be run, as a job itself would; its exit code."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "a") as log:
            print(f"reconverge: {' '.join(error.split())}", file=log)
        return 2


@dataclass(frozen=True, order=True)
class Need:
    """What a job asks of the machine that it runs on: processors and GPUs, of which a fraction is shared with other jobs."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.cpus:g} CPU{'s' if self.cpus != 1 else ''} and {self.gpus:g} GPU{'s' if self.gpus != 1 else ''}"


def need_of(threads: int, device: str, cpus: float | None = None, gpus: float | None = None) -> Need:
    """A processor per thread, and a GPU where the device is one, unless other numbers are given.

    Raises ConfigError for `cuda:1`: which GPU a job gets is the cluster's choice, and the job sees no other one.
    """
    if ":" in device:
        raise ConfigError(f"device is '{device}'; on a cluster a job sees only the GPUs that it was given: use --device {device.partition(':')[0]}")
    return Need(threads if cpus is None else cpus, float(device == "cuda") if gpus is None else gpus)


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
