"""This process's end of one simulator worker: hand it a message, wait for the reply, notice that it fails.

    raised      the worker sends `Failed` instead of a reply
    died        the pipe ends
    hangs       no sign of life in the notice for `timeout_s`: an endless loop, a stopped process

A thread per worker does the talking, for a worker that is stopped in the middle of a message would block whoever reads
or writes the pipe, and the waiting process must stay awake.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from reconverge.envs.simulator_worker import NOBODY, Failed, Message, Notice, Worker, serve

CLOSE_TIMEOUT_S = 2.0
BOOT_TIMEOUT_S = 60.0
"""At least this long is waited for a new process's first sign of life: it has to import everything, perhaps on a busy machine."""


class WorkerFault(Exception):
    """A worker raised, died or hung. `error` says so in a line, `row` is the episode it was busy with, None = none of them."""

    def __init__(self, error: str, row: int | None) -> None:
        super().__init__(error)
        self.error, self.row = error, row


class Side:
    """What the two kinds of workers have in common: at most one message under way, whose reply comes with `future`."""

    future: Future[Any]

    def __init__(self, notice: Notice) -> None:
        self._notice = notice

    def ask(self, message: Message) -> None:
        """Hand over the message; `future` is done when there is an answer, or none can come any more."""
        raise NotImplementedError

    def watch(self, waited_s: float, timeout_s: float) -> None:
        """Tell that `waited_s` more have passed without an answer; raises WorkerFault if that is too long."""

    def reply(self) -> Any:
        """The reply to the message; raises WorkerFault where there is none."""
        reply = self.future.result()
        if isinstance(reply, Failed):
            raise WorkerFault(reply.error, self._busy_row())
        return reply

    def _busy_row(self) -> int | None:
        row = self._notice[0]
        return None if row == NOBODY else row


class LocalSide(Side):
    """A worker in this process, for tests and debuggers. It can raise, but neither die nor be ended."""

    def __init__(self) -> None:
        super().__init__([NOBODY, 0])
        self._worker = Worker(self._notice)

    def ask(self, message: Message) -> None:
        self.future = Future()
        try:
            self.future.set_result(self._worker.answer(message))
        except Exception as error:
            self.future.set_result(Failed.by(error))

    def close(self) -> None:
        self._worker.close()


class ProcessSide(Side):
    """A worker process, and the thread that talks to it."""

    def __init__(self, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        super().__init__(context.RawArray("q", [NOBODY, 0]))
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, self._notice), name=f"simulator-{number}", daemon=True)
        self.process.start()
        theirs.close()
        self._talker = ThreadPoolExecutor(1, thread_name_prefix=self.process.name)
        self._signs, self._quiet_s = 0, 0.0

    def ask(self, message: Message) -> None:
        self._signs, self._quiet_s = self._notice[1], 0.0
        self.future = self._talker.submit(self._exchange, message)

    def watch(self, waited_s: float, timeout_s: float) -> None:
        signs = self._notice[1]
        self._quiet_s = self._quiet_s + waited_s if signs == self._signs else 0.0
        self._signs = signs
        if self._quiet_s > (timeout_s if signs else max(timeout_s, BOOT_TIMEOUT_S)):
            raise WorkerFault(f"{self.process.name} showed no sign of life for {timeout_s:.0f} s and was killed", self._busy_row())

    def _exchange(self, message: Message) -> Any:
        """In the talking thread."""
        try:
            self._pipe.send(message)
            return self._pipe.recv()
        except (EOFError, OSError):  # OSError also where it died in the middle of a message
            self.process.join(CLOSE_TIMEOUT_S)
            code, booted = self.process.exitcode, self._notice[1] > 0
            script = "; a script that starts simulators must do so under `if __name__ == '__main__':`"
            return Failed(f"{self.process.name} died (exit code {code}{'; out of memory?' if code == -9 else ''}){'' if booted else script}")


def close(sides: Sequence[Side], grace_s: float = CLOSE_TIMEOUT_S) -> None:
    """End workers, within `grace_s` and a second whatever state they are in and however many they are; 0 = at once."""
    for side in sides:
        if isinstance(side, LocalSide):
            side.close()
    remote = [side for side in sides if isinstance(side, ProcessSide)]
    if grace_s:
        for side in remote:
            with contextlib.suppress(OSError):
                side._pipe.send(None)
        _join(remote, grace_s)
    for side in remote:
        if side.process.is_alive():
            side.process.kill()  # KILL rather than TERM: a stopped process would not see TERM
    _join(remote, 1.0)
    for side in remote:
        ended = not side.process.is_alive()
        side._talker.shutdown(wait=ended)  # its pipe has come to an end, and may be closed only when nobody reads it
        if ended:
            side._pipe.close()


def _join(sides: Sequence[ProcessSide], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    for side in sides:
        side.process.join(max(0.0, deadline - time.monotonic()))
