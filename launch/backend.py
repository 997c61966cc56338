"""Where the jobs of a sweep run.

    local    processes of this machine                               here
    ray      tasks of a Ray cluster whose nodes share the folders    `ray_backend`
    slurm    batch jobs of a queue, requeued at their time limit     `slurm_backend`

Another one is a class with `start`; a job needs nothing but the files that its order names. The first two also run the parts of other
works, see `parts`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reconverge.envs.errors import ConfigError
from reconverge.launch.bounded_check import signal_name

WAIT = "--wait"
"""To a job: wait for an earlier attempt that may still hold the folder."""
ERROR = "reconverge: "
"""How the line of an error begins that the user can mend; see `cli.guarded`."""
POLL_S = 0.25
PATIENCE_S = 30.0
"""How long an interrupted process may take to close its workers before it is killed."""


class ProcessOrder(Protocol):
    """What a back end must know to start a process: a job of a sweep (`Order`), or a part of another work (`PartOrder`).

    Attributes:
        config_file: what it reads first; a machine that does not see this file cannot run it.
        log: file to which what it says is appended.
        name: how a cluster lists it.
        words, cluster_words: the program to start with its arguments, on this machine, and where an earlier attempt may still be running.
        threads, device: from which what it asks of a machine follows.
    """

    @property
    def config_file(self) -> Path: ...
    @property
    def log(self) -> Path: ...
    @property
    def name(self) -> str: ...
    @property
    def words(self) -> list[str]: ...
    @property
    def cluster_words(self) -> list[str]: ...
    @property
    def threads(self) -> int: ...
    @property
    def device(self) -> str: ...


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

    @property
    def cluster_words(self) -> list[str]:
        return [*self.words, WAIT]

    @property
    def name(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"


def fail(log: Path, error: str) -> int:
    """Say in the log why a process could not be run, as the process itself would; its exit code."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a") as said:
        print(f"{ERROR}{' '.join(error.split())}", file=said)
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

    def start(self, order: ProcessOrder) -> Running:
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


def end_all(running: Collection[Running]) -> None:
    """Interrupt all that runs, and kill what has not ended in time or when interrupted again."""
    try:
        for process in running:
            process.ask_to_end()
        deadline_s = time.monotonic() + PATIENCE_S
        while any(process.exit_code() is None for process in running) and time.monotonic() < deadline_s:
            time.sleep(POLL_S)
    finally:
        for process in running:
            if process.exit_code() is None:
                process.kill()


def log_size(log: Path) -> int:
    """How long a log is before a process is started, in bytes: what comes after is its own."""
    return log.stat().st_size if log.exists() else 0


def last_words(code: int, log: Path, start: int = 0) -> str:
    """Why a process failed: the signal that ended it, its error, or the last line that it said; of its log from byte `start` on.

    Workers and simulators write into the log too, so an error that can be mended (exit code 2) is known by how its line begins.
    """
    if code < 0:
        return f"ended by {signal_name(-code)}{'; is there enough memory?' if -code == signal.SIGKILL else ''}"
    try:
        with open(log, "rb") as file:
            file.seek(start)
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    said = [line for line in lines if line.startswith(ERROR)] if code == 2 else lines
    return said[-1].removeprefix(ERROR) if said else f"exit code {code}"
