"""A wish to stop: SIGTERM, SIGINT (Ctrl-C), SIGHUP (a terminal that was closed) and SIGUSR1, which queues send ahead of their time limit.

    held          an update, a file that is being written: the wish waits until `check`, between two updates
    not held      nothing can be lost: the work is broken off where it is

    first signal       what there is of a stage is saved, and the process leaves with exit code 75 (EX_TEMPFAIL, "try again")
    second signal      leaves at once; the folder stays as the last save left it. One within a second of the first counts as the
                       same: wrappers send theirs to the process and to its group

The handler itself saves nothing: it runs between any two instructions, in the middle of a write too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

REQUEUE = 75
STOPPING = "reconverge: stopping; what there is is saved first, a second signal leaves at once"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
SAME_S = 1.0


class Stopped(KeyboardInterrupt):
    """The work was broken off on request and can be taken up again; the message says how."""


def past_all_buffers(text: str) -> None:
    """Write a line to standard error from within a signal handler, where a buffer may be in use."""
    with contextlib.suppress(OSError):  # nobody may be reading any more
        os.write(2, f"\n{text}\n".encode())


class StopRequest:
    """Listens while it is entered, in the main thread; elsewhere it does nothing.

    `say` is called within the handler, so it must wait for nothing; by default the words go straight to standard error. One that is
    entered within another listens in its place, and what it heard counts as heard by both.
    """

    def __init__(self, say: Callable[[str], None] = past_all_buffers) -> None:
        self.wanted = False
        self._say = say
        self._wanted_since_s = 0.0
        self._holds = 0
        self._earlier: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        try:
            for number in SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):  # ignored by who started this, or taken by a library
                    self._earlier[number] = signal.signal(number, self._heard)
        except ValueError:  # not in the main thread
            self._earlier.clear()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._earlier.items():
            if signal.getsignal(number) == self._heard:  # nobody else has come to listen, or to ignore it
                signal.signal(number, handler)
        outer = listening()
        if outer is not None and self.wanted:
            outer.wanted, outer._wanted_since_s = True, self._wanted_since_s

    def check(self) -> None:
        """Raise Stopped if it was asked for."""
        if self.wanted:
            raise Stopped

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let a wish wait until `check`, or until the end of this block."""
        ending = self.wanted and not self._holds  # Stopped, or the error of what was held, is on its way
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
        if not self._holds and not ending:
            self.check()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Within `held`, a part that may be broken off anywhere."""
        holds, self._holds = self._holds, 0
        try:
            self.check()
            yield
        finally:
            self._holds = holds

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self.wanted:
            if time.monotonic() - self._wanted_since_s > SAME_S:
                past_all_buffers("")  # what comes next begins a line
                os._exit(128 + number)
            return
        self.wanted, self._wanted_since_s = True, time.monotonic()
        self._say(STOPPING)
        if not self._holds:
            raise Stopped


def leave(code: int) -> NoReturn:
    """End the process. Who asked it to stop may ask again, by another way, while the interpreter winds up: that must not change the code."""
    if code == REQUEUE:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


def listening() -> StopRequest | None:
    """The one that hears this thread's signals: they arrive in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        return None
    listeners = (getattr(signal.getsignal(number), "__self__", None) for number in SIGNALS)
    return next((each for each in listeners if isinstance(each, StopRequest)), None)


@contextmanager
def interruptions_held() -> Iterator[None]:
    """A wish to stop, where one is listened for, waits until this is left: for what must not be broken off and has no StopRequest at hand.

    An import is such a thing: broken off in a compiled module it ends in an ImportError, and within the `exec` of a dataclass Python
    remembers the interruption and ends by SIGINT whatever the exit code was to be. Signals that are blocked would not do: another
    thread may take one, and its handler still runs in the main thread.
    """
    stop = listening()
    with contextlib.nullcontext() if stop is None else stop.held():
        yield
