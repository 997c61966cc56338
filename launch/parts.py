"""A work that falls into parts which need nothing of each other (a bag of tasks): each is a process, a few run at a time, in any order.

A part is an order to start a module of this package with plain words, and leaves its result in a file that appears whole. So a part is done
when its file is there, whoever made it, and the same work goes on where it was stopped.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from reconverge.launch.backend import POLL_S, ProcessOrder, Running, end_all, last_words, log_size

SEEN_WITHIN_S = 30.0
"""So long a network file system may take to show what another machine has written."""


@dataclass(frozen=True)
class PartOrder:
    """One part to do; see `ProcessOrder`.

    Attributes:
        module: of this package, started as `python -m MODULE ARGUMENTS`.
        result: the file or folder that it leaves; where that is there, also because another process was faster, the part has not failed.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    config_file: Path
    log: Path
    result: Path
    threads: int = 1
    device: str = "cpu"

    @property
    def words(self) -> list[str]:
        return [sys.executable, "-m", self.module, *self.arguments]

    @property
    def cluster_words(self) -> list[str]:
        return self.words


@dataclass(frozen=True)
class Failure:
    """A part that ended with an error, and what it said last."""

    part: PartOrder
    error: str

    def __str__(self) -> str:
        return f"{self.part.name}: {self.error} (log: {self.part.log})"


def run_parts(
    start: Callable[[ProcessOrder], Running], parts: Iterable[PartOrder], limit: int, ended: Callable[[], object] = lambda: None
) -> list[Failure]:
    """Run every part, each once and at most `limit` at a time, and say which failed. A failure stops no other; the logs of the rest are removed.

    `start` is that of a back end, `ended` is called after each part. An interruption ends the running parts first.
    """
    waiting, failures = list(dict.fromkeys(parts)), []
    ended_s: dict[PartOrder, float] = {}

    def awaited(part: PartOrder, code: int) -> bool:
        """Whether a part that ended well has a result that this machine may yet come to see."""
        return code == 0 and not part.result.exists() and time.monotonic() - ended_s.setdefault(part, time.monotonic()) < SEEN_WITHIN_S

    running: dict[PartOrder, tuple[Running, int]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < limit:
                part = waiting.pop(0)
                log_bytes = log_size(part.log)
                running[part] = start(part), log_bytes
            codes = {part: code for part, (process, _) in running.items() if (code := process.exit_code()) is not None and not awaited(part, code)}
            for part, code in codes.items():
                _, log_bytes = running.pop(part)
                if not part.result.exists():
                    nothing = f"it ended well, and left no {part.result.absolute()}; do all machines see that folder?"
                    said = last_words(code, part.log, log_bytes) if code else nothing
                    failures.append(Failure(part, said))
                else:
                    part.log.unlink(missing_ok=True)
                ended()
            if not codes:
                time.sleep(POLL_S)
    except BaseException:
        end_all([process for process, _ in running.values()])
        raise
    return failures


def in_words(failures: list[Failure], limit: int = 3) -> str:
    """The first few failures."""
    more = f"; and {len(failures) - limit} more" if len(failures) > limit else ""
    return "; ".join(map(str, failures[:limit])) + more
