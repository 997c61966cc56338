"""One process at a time in a run folder, also on network file systems, also after a crash.

    .lock-1/owner.json      {"pid": 812, "host": "a", "process_start": "83422", "process_numbers": "pid:[4026531836]", "token": ...}

A lock is a folder that appears with its content by one rename; renaming onto a folder that holds
something fails, so only one process can win. A lock is stale when its process is gone on this host, or
when another host, or a container whose processes have numbers of their own, has not refreshed it for
`STALE_AFTER_S`. A stale lock is not removed but *outbid*: the next number up is taken in the same way, so
two processes that reclaim at once cannot both succeed, and neither can remove the other's fresh lock. The
highest number holds. A process that was silent for so long without being dead finds itself outbid, and
writes nothing more.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from reconverge.envs.artifact import file_system_now_s
from reconverge.envs.errors import DamagedFile, RunFolderError
from reconverge.envs.plain_json import read_json

HEARTBEAT_S = 15.0
STALE_AFTER_S = 180.0
PREFIX = ".lock-"
_NUMBER = re.compile("[0-9]{1,9}")


class RunLock:
    """The right to write in `folder`, held from construction until `release`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._owner = {
            "pid": os.getpid(), "host": socket.gethostname(), "process_start": _process_start(os.getpid()),
            "process_numbers": _process_numbers(), "token": uuid.uuid4().hex,
        }  # fmt: skip
        self._lost = False
        self.path = self._acquire()
        self._released = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="run-lock", daemon=True)
        self._heart.start()

    def release(self) -> None:
        """Give the folder back; calling it again does nothing. What stands there once this lock is lost is another process's."""
        if self._released.is_set():
            return
        self._released.set()
        self._heart.join()
        if self.is_lost():
            return
        for stale in _locks(self._folder)[:-1]:
            if _number(stale) < _number(self.path):
                _vanish(stale)
        _vanish(self.path)

    def is_lost(self) -> bool:
        """Whether another process has outbid this one, or its lock is gone; once lost it stays so."""
        try:
            outbid = any(_number(lock) > _number(self.path) for lock in _locks(self._folder))
            if outbid or (self.path / "owner.json").read_bytes() != json.dumps(self._owner).encode():
                self._lost = True
        except FileNotFoundError:
            self._lost = True
        except OSError:  # A network file system that does not answer now: nothing is known.
            pass
        return self._lost

    def _acquire(self) -> Path:
        while True:
            standing = _locks(self._folder)
            if standing and (owner := self._owner_of(standing[-1])) is not None:
                raise RunFolderError(
                    f"{self._folder} is in use by process {owner['pid']} on {owner['host']}; wait for it, or choose another --output-dir"
                )
            lock = self._folder / f"{PREFIX}{_number(standing[-1]) + 1 if standing else 1}"
            if self._raise_lock(lock):
                # A higher lock was taken since the folder was listed: this one is worth nothing.
                if _locks(self._folder)[-1] == lock:
                    return lock
                _vanish(lock)

    def _owner_of(self, lock: Path) -> dict[str, Any] | None:
        try:
            return _live_owner(lock)
        except OSError as error:
            raise RunFolderError(
                f"whether {self._folder} is in use cannot be told now ({error.strerror or error}); look whether its disk or network answers, "
                "then give the same command again"
            ) from error

    def _raise_lock(self, lock: Path) -> bool:
        draft = self._folder / f".locking-{self._owner['token']}"
        draft.mkdir()
        (draft / "owner.json").write_text(json.dumps(self._owner))
        try:
            os.rename(draft, lock)
        except OSError:
            shutil.rmtree(draft)
            return False
        return True

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_S):
            if self.is_lost():
                return  # The next save will say so.
            with contextlib.suppress(OSError):  # A single failure of a network file system; the next beat may get through.
                os.utime(self.path / "owner.json")


def wait_until_free(folder: Path, limit_s: float = STALE_AFTER_S + 2 * HEARTBEAT_S, poll_s: float = 0.5) -> None:
    """Wait for a process that is about to leave the folder, or for its lock to become stale; at most `limit_s`.

    For a job that is started again where another machine died: nobody took that lock away.
    """
    deadline_s = time.monotonic() + limit_s
    while folder.is_dir() and (standing := _locks(folder)) and _may_live(standing[-1]) and time.monotonic() < deadline_s:
        time.sleep(poll_s)


def standing_lock(folder: Path) -> tuple[Path, bool] | None:
    """The lock that stands in `folder` and whether its process lives; None without one. Writes nothing, so ages go by this machine's clock."""
    standing = _locks(folder)
    return (standing[-1], _may_live(standing[-1], time.time())) if standing else None


def _locks(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob(f"{PREFIX}*") if _NUMBER.fullmatch(path.name[len(PREFIX) :])), key=_number)


def _number(lock: Path) -> int:
    return int(lock.name[len(PREFIX) :])


def _may_live(lock: Path, now_s: float | None = None) -> bool:
    """Whether the owner of a lock lives, as far as can be told: a file system that does not answer says nothing of it."""
    try:
        return _live_owner(lock, now_s) is not None
    except OSError:
        return True


def _live_owner(lock: Path, now_s: float | None = None) -> dict[str, Any] | None:
    """The owner of a lock that still counts, or None when it is stale or gone; `now_s` in place of the file system's own clock.

    Raises OSError where the lock cannot be read now, which is no sign that nobody holds it.
    """
    try:
        owner = read_json(lock / "owner.json")
        age_s = (file_system_now_s(lock.parent) if now_s is None else now_s) - (lock / "owner.json").stat().st_mtime
    except (FileNotFoundError, NotADirectoryError, DamagedFile):
        return None
    if not isinstance(owner, dict) or not isinstance(owner.get("host"), str) or not isinstance(owner.get("pid"), int):
        return None
    if owner["host"] != socket.gethostname() or owner.get("process_numbers", _process_numbers()) != _process_numbers():
        return owner if age_s < STALE_AFTER_S else None
    return owner if _is_running(owner) else None


def _is_running(owner: dict[str, Any]) -> bool:
    pid = owner["pid"]
    if pid < 1:  # to kill(2), a group of processes
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    # A later process may have been given the same number.
    return bool(owner.get("process_start") == _process_start(pid))


def _process_start(pid: int) -> str | None:
    """Clock ticks since boot at which a process started, where Linux tells."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _process_numbers() -> str | None:
    """Whose numbers of processes count here, where Linux tells: containers of one host name may each have their own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _vanish(lock: Path) -> None:
    """Remove a lock in one rename, so that nobody meets half of it."""
    gone = lock.with_name(f".unlocking-{uuid.uuid4().hex}")
    try:
        os.rename(lock, gone)
    except OSError:
        return
    shutil.rmtree(gone, ignore_errors=True)
