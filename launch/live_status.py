"""What a run tells those who watch its folder, beside its results: where it is now, and why it failed.

    .lock-1/progress.json   {"stage": 2, "of": 3, "task": "push-wall-v3", "phase": "evaluate", "done": 700, "total": 9000, "seconds": {...}}
    .failure.json           {"error": "TrainingDiverged: ..."}     until the run is taken up again

A thread writes the first every two seconds into the lock, with which it goes; a killed run leaves it, and it says where that was.
Both are hidden, so neither is a result: no seal and no table knows of them. The training loop writes nothing and waits for nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from reconverge.envs.errors import DamagedFile
from reconverge.envs.plain_json import read_json_object
from reconverge.launch.progress import Progress
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.run_lock import standing_lock

INTERVAL_S = 2.0
PROGRESS, FAILURE = "progress.json", ".failure.json"
LONGEST_ERROR = 2000
KINDS: dict[str, Any] = {
    "stage": int, "of": int, "task": str, "update": int, "phase": str, "done": int, "total": int, "rate": (int, float), "eta_s": (int, float),
}  # fmt: skip
"""What may be told, beside the seconds per phase."""


class LiveStatus:
    """Tells where a run is while it is entered, and of the error that ends it.

    with LiveStatus(folder, progress):
        train(config, folder, progress)
    """

    def __init__(self, folder: RunFolder, progress: Progress) -> None:
        self._folder, self._progress = folder, progress
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="live-status", daemon=True)

    def __enter__(self) -> LiveStatus:
        with contextlib.suppress(OSError):
            (self._folder.path / FAILURE).unlink(missing_ok=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        if isinstance(error, Exception) and self._folder.is_held:  # a request to stop is no error, and another process's run has not failed
            _write(self._folder.path / FAILURE, {"error": f"{type(error).__name__}: {error}"[:LONGEST_ERROR]})

    def _tell(self) -> None:
        lock = self._folder.lock
        while lock is not None and not self._ended.wait(INTERVAL_S):
            _write(lock / PROGRESS, self._progress.where())


@dataclass(frozen=True)
class Liveness:
    """What a watcher can know of a run's process.

    Attributes:
        locked: a lock stands in the folder; where its process does not live, that was killed.
        where: what the run last told, as `Progress.where` gives it; empty when it told nothing.
        failure: the error that ended it; empty where there was none.
    """

    locked: bool
    alive: bool
    where: dict[str, Any] = field(default_factory=dict)
    failure: str = ""


def read_liveness(path: Path) -> Liveness:
    """Of the run in a folder, without touching anything there."""
    standing = standing_lock(path)
    failure = str(_read(path / FAILURE).get("error", ""))
    if standing is None:
        return Liveness(False, False, failure=failure)
    return Liveness(True, standing[1], _numbered(_read(standing[0] / PROGRESS)), failure)


def _numbered(found: dict[str, Any]) -> dict[str, Any]:
    """Without what is not of its kind, whoever wrote it."""
    plain = {key: found[key] for key, kind in KINDS.items() if isinstance(found.get(key), kind)}
    seconds = found.get("seconds")
    numbers = {key: spent for key, spent in seconds.items() if isinstance(spent, (int, float))} if isinstance(seconds, dict) else {}
    return {**plain, "seconds": numbers} if plain or numbers else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path)
    except (OSError, DamagedFile):
        return {}


def _write(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all, but not flushed to the disk: it is of no use after a crash of the machine. Failing is nobody's concern."""
    draft = path.with_name(f".{path.name.lstrip('.')}.draft")
    with contextlib.suppress(OSError):
        draft.write_text(json.dumps(content))
        os.replace(draft, path)
