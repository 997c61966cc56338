"""A training run in a child process, which a test may kill where it likes: at a moment, or ahead of its n-th change of the disk."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from run_files import TABLES

from reconverge.launch.config import RunConfig
from reconverge.launch.curriculum_run import train
from reconverge.launch.progress import Progress
from reconverge.launch.run_folder import RunFolder

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
"""Audit events of changes of the disk, beside writing and flushing a file."""


def everything(path: Path) -> dict[str, bytes]:
    """Every table and every array of every checkpoint of a run, by name; the seconds that it took are left out."""
    files = [path / name for name in TABLES] + sorted((path / "checkpoints").rglob("*.safetensors"))
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def forked(work: Callable[[], object], after_s: float | None = None) -> int:
    """Do `work` in a child, killed `after_s` seconds later if it still runs: 0 done, -9 killed, 1 failed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of the test runner, which hold nothing that a run needs
        child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    began_s = time.monotonic()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if after_s is not None and time.monotonic() - began_s >= after_s:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)


def start_or_resume(path: Path, config: RunConfig) -> None:
    """Train as a user would after a crash: resume where there is a run, start where there is none."""
    begun = (path / "config.yaml").exists()
    with RunFolder.resume(path, config) if begun else RunFolder.create(path, config, "reconverge train") as folder:
        train(config, folder, Progress("quiet"))


def before_change(number: int, act: Callable[[], object]) -> Callable[[], int]:
    """Have `act` called ahead of the `number`-th change of the disk in this process; returns the count so far."""
    count = 0

    def changed() -> None:
        nonlocal count
        count += 1
        if count == number:
            act()

    def audit(event: str, given: tuple[object, ...]) -> None:
        writing = event == "open" and isinstance(given[1], str) and set(given[1]) & set("wax+")
        if event in CHANGES or writing:
            changed()

    flush = os.fsync

    def fsync(handle: int) -> None:
        changed()
        flush(handle)

    os.fsync = fsync
    sys.addaudithook(audit)
    return lambda: count


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def lose_power_before(number: int, root: Path) -> Callable[[], int]:
    """Ahead of the `number`-th change of the disk, every file below `root` goes back to what was last flushed of it, and the process ends.

    What lies there now counts as flushed; renames keep their order. Returns the count of changes so far.
    """
    flushed = {path.stat().st_ino: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    flush = os.fsync

    def fsync(handle: int) -> None:
        flush(handle)
        file = Path(f"/proc/self/fd/{handle}")
        if not file.is_dir():
            flushed[os.fstat(handle).st_ino] = file.read_bytes()

    def lose() -> None:
        for path in root.rglob("*"):
            if path.is_file():
                path.write_bytes(flushed.get(path.stat().st_ino, b""))
        os._exit(9)

    os.fsync = fsync
    return before_change(number, lose)
