"""What this process may use of the machine, which is less than the machine has in a container, in a queue or under `ulimit`."""

from __future__ import annotations

import math
import os
import resource
import shutil
import tempfile
import threading
from pathlib import Path

from reconverge.launch.fingerprint import usable_cores

CGROUP = Path("/sys/fs/cgroup")


def granted_cores(cgroup: Path = CGROUP) -> float:
    """Cores that the process may keep busy: those it may run on, cut to the share of time that its control group grants."""
    share = math.inf
    second = _numbers(cgroup / "cpu.max")
    first = (_numbers(cgroup / "cpu/cpu.cfs_quota_us")[0], _numbers(cgroup / "cpu/cpu.cfs_period_us")[0])
    for quota, period in (second, first):  # of the two versions of control groups
        if 0 < quota < math.inf and 0 < period < math.inf:
            share = min(share, quota / period)
    return min(float(usable_cores()), share)


def free_memory(cgroup: Path = CGROUP, meminfo: Path = Path("/proc/meminfo")) -> float:
    """Bytes that can still be had: of the machine, or of the control group where that is less; inf where neither says.

    A control group counts the cache of files as used; the inactive part of it is given up as soon as memory is wanted.
    """
    available = math.inf
    for line in meminfo.read_text().splitlines() if meminfo.exists() else ():
        if line.startswith("MemAvailable:"):
            available = 1024.0 * int(line.split()[1])
    second = ("memory.max", "memory.current", "memory.stat", "inactive_file")
    first = ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file")
    for limit, used, statistics, cached in (second, first):
        most, taken = _numbers(cgroup / limit)[0], _numbers(cgroup / used)[0]
        if math.isfinite(most) and math.isfinite(taken):
            needed = max(0.0, taken - _named_number(cgroup / statistics, cached))
            available = min(available, max(0.0, most - needed))
    return available


def used_memory(statm: Path = Path("/proc/self/statm")) -> float:
    """Bytes of memory that this process holds; nan where the system does not say."""
    try:
        return float(statm.read_text().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return math.nan


def open_file_limits() -> tuple[float, float]:
    """The limit in force and the one up to which `ulimit -n` may raise it; inf for none."""
    soft, hard = (math.inf if limit == resource.RLIM_INFINITY else float(limit) for limit in resource.getrlimit(resource.RLIMIT_NOFILE))
    return soft, hard


def can_start_threads(count: int) -> bool:
    """Whether `count` threads can run at once beside those that there are."""
    leave, started = threading.Event(), []
    try:
        for _ in range(count):
            thread = threading.Thread(target=leave.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError:  # can't start new thread
        return False
    finally:
        leave.set()
        for thread in started:
            thread.join()
    return True


def existing(folder: Path) -> Path:
    """The folder itself or the nearest one above it that exists: on its volume the folder would be created."""
    whole = folder.absolute()
    return next(place for place in (whole, *whole.parents) if place.exists())


def free_bytes(folder: Path) -> int:
    """Free bytes on the volume of a folder that may not exist yet."""
    return shutil.disk_usage(existing(folder)).free


def try_to_write(folder: Path) -> None:
    """Write and delete a small file where the folder is or would be created; raises OSError where that fails."""
    with tempfile.NamedTemporaryFile(dir=existing(folder), prefix=".reconverge-doctor-") as file:
        file.write(b"x" * 4096)
        file.flush()
        os.fsync(file.fileno())


def _named_number(path: Path, name: str) -> float:
    """The number after a name in a control group's file, 0 where that is not there."""
    try:
        return next((float(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(f"{name} ")), 0.0)
    except (OSError, ValueError, IndexError):
        return 0.0


def _numbers(path: Path) -> tuple[float, float]:
    """The first two numbers of a control group's file, inf where it says `max` or is not there."""
    try:
        words = [math.inf if word == "max" else float(word) for word in path.read_text().split()]
    except (OSError, ValueError):
        words = []
    first, second = (*words, math.inf, math.inf)[:2]
    return first, second
