"""The runs below a folder, and what each says, read again only when one of its files has changed.

    runs/                       entered, unless hidden or a symbolic link
      cw10/replay/seed-0/       a run: nothing below it is looked at
      tracking/                 entered, no run

Made for looking on while the runs are written: nothing is locked or written, and a run may vanish at any moment.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from pathlib import Path

from reconverge.envs.errors import DamagedFile
from reconverge.eval.run_results import RunResults, read_run
from reconverge.launch.run_folder import holds_run

DEEPEST, MOST_FOLDERS = 12, 20_000
"""Of the search: folders of data may lie beside runs."""
READ_FILES = (
    "config.yaml", "curriculum.yaml", "command.txt", "fingerprint.json", "ceilings.csv", "success_matrix.csv", "recovery_curves.csv",
    "recovery.csv", "ledger.csv", "fisher.csv", "failures.csv", "metrics.jsonl", "cost.json",
)  # fmt: skip
"""What `read_run` reads of a run, but its episodes."""

Signature = tuple[tuple[int, int, int] | None, ...]


class Catalogue:
    """Runs by their path below `root`, such as `cw10/replay/seed-0`; `.` where the root itself is one. Any thread may ask."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._kept: dict[str, tuple[Signature, RunResults | DamagedFile]] = {}
        self._lock = threading.Lock()

    def paths(self) -> list[str]:
        """Every run that is there now, unordered."""
        return [str(path.relative_to(self.root)) for path in find_runs(self.root)]

    def __contains__(self, path: str) -> bool:
        parts = () if path == "." else Path(path).parts
        if any(hidden(part) for part in parts) or not holds_run(self.root / path):  # first, since most of what is asked for is not there
            return False
        try:
            return not any(self.root.joinpath(*parts[: number + 1]).is_symlink() for number in range(len(parts)))
        except OSError:  # it vanished, or is not ours to look at
            return False

    def read(self, path: str) -> RunResults:
        """The run's results without its single episodes.

        Raises DamagedFile where a file cannot be understood, is a symbolic link, or is not there yet.
        """
        folder = self.root / path
        with self._lock:
            found = _signature(folder)
            before, kept = self._kept.get(path, (None, None))
            if kept is None or before != found:
                kept = _read(folder)
                self._kept[path] = found, kept
        if isinstance(kept, DamagedFile):
            raise kept
        return kept


def find_runs(root: Path) -> list[Path]:
    """Folders at or below `root` that hold a run; links are not followed, hidden folders not entered."""
    found, level, seen = [], [root], 0
    for _ in range(DEEPEST):
        entered = []
        for folder in level:
            seen += 1
            if holds_run(folder):
                found.append(folder)
            elif seen < MOST_FOLDERS:
                entered += _folders_in(folder)
        level = entered
    return found


def in_numbers(path: str) -> list[tuple[str, int]]:
    """A sorting key under which seed-2 comes before seed-10."""
    return [(word, int(digits[:18] or -1)) for word, digits in re.findall(r"(\D*)(\d*)", path)]


def hidden(part: str) -> bool:
    return part.startswith(".")


def _folders_in(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            named = [entry for entry in entries if not hidden(entry.name) and entry.name.isprintable()]  # others cannot be written in an address
            return [Path(entry.path) for entry in named if entry.is_dir(follow_symlinks=False)]
    except OSError:  # it vanished, or is not ours to read
        return []


def _read(folder: Path) -> RunResults | DamagedFile:
    try:
        linked = [name for name in READ_FILES if (folder / name).is_symlink()]
        if linked:
            return DamagedFile(f"{folder / linked[0]} is a symbolic link; it is not followed, put the file itself there")
        return read_run(folder, episodes=False)
    except DamagedFile as damage:
        return damage


def _signature(folder: Path) -> Signature:
    """What changes when one of the files does."""
    return tuple(_of_file(folder / name) for name in READ_FILES)


def _of_file(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino if stat.S_ISREG(found.st_mode) else -1
