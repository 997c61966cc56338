"""Jobs of a sweep, and parts of other works, as tasks of a Ray cluster whose nodes see the same folders and have this package installed.

    sweep ──task──> node: the job's process, as on one machine        Ray chooses the node by the processors and GPUs that a job asks for
          <──code──                                                   files, log and exit code are those of a local job

    a worker or a node dies   its task is started again on another; the job goes on from its last save, a part is done anew
    Ctrl-C                    tasks that wait are withdrawn, those that run end their job, saved

What crosses the wire is an `Errand`, which is words and paths, and a number. How Ray packs these is its own affair; no file of a run takes part.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconverge.envs.errors import BackendUnavailable, ConfigError
from reconverge.envs.optional_library import optional_library
from reconverge.launch.backend import LocalProcess, Need, ProcessOrder, fail, need_of
from reconverge.launch.bounded_check import NoAnswer, in_a_process, one_line
from reconverge.launch.stop_request import REQUEUE

CONNECT_S = 60.0
"""How long a cluster may take to answer."""
RESTARTS = 10
"""How often a job is started again because its worker or its node has died."""
POLL_S = 0.25
PATIENCE_S = 25.0
"""How long an interrupted job may take to save, a little less than the sweep waits for it."""
NOT_SHARED = -1000
"""A node's answer when it does not see the sweep's folders."""
QUIET = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
"""No server for browsers, and only what the sweep says is printed."""


@dataclass(frozen=True)
class Errand:
    """What a node is asked to do: start a process in the working folder of the command."""

    arguments: tuple[str, ...]
    cwd: str
    config_file: str
    log: str


@contextlib.contextmanager
def connected(address: str = "auto", cpus: float | None = None, gpus: float | None = None) -> Iterator[RayBackend]:
    """A back end on the cluster at HOST:PORT; `auto` is the one of $RAY_ADDRESS or of this machine, `local` a new one of this machine alone.

    Raises ConfigError for a bad address and where ray is missing, BackendUnavailable when no cluster answers within `CONNECT_S`.
    """
    ray = _import_ray()
    with _own_signal_handlers():
        if _resolved(address) == "local":
            ray.init(address="local", _node_ip_address="127.0.0.1", **QUIET)
        else:
            _try_to_connect(_resolved(address))
            ray.init(address=_resolved(address), log_to_driver=False, logging_level="ERROR")
    try:
        yield RayBackend(ray, cpus, gpus)
    finally:
        ray.shutdown()


class RayBackend:
    """See `Backend`; made by `connected`."""

    def __init__(self, ray: Any, cpus: float | None, gpus: float | None) -> None:
        self._ray, self._cpus, self._gpus = ray, cpus, gpus

    def asking(self, cpus: float | None = None, gpus: float | None = None) -> RayBackend:
        """The same cluster, asked for other numbers of processors and GPUs."""
        return RayBackend(self._ray, cpus, gpus)

    def need(self, threads: int, device: str) -> Need:
        return need_of(threads, device, self._cpus, self._gpus)

    def room(self, needs: Iterable[Need]) -> int:
        """How many such jobs the whole cluster holds at once, at least 1.

        Raises BackendUnavailable when no node could ever hold one of them: Ray would wait without an end.
        """
        nodes = [Need(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)) for node in self._ray.nodes() if node["Alive"]]
        room = []
        for need in needs:
            room.append(sum(_times(need, node) for node in nodes))
            if not room[-1]:
                largest = "; ".join(str(node) for node in sorted(set(nodes), reverse=True)[:3]) or "none"
                raise BackendUnavailable(
                    f"a job asks for {need}, and no node of the Ray cluster has that; of its {len(nodes)} nodes the largest have {largest}. "
                    "Ask for less with --cpus-per-job and --gpus-per-job, or add a node"
                )
        return min(room, default=1)

    def start(self, order: ProcessOrder) -> RayJob:
        need = self.need(order.threads, order.device)
        task = self._ray.remote(run_errand).options(name=order.name, num_cpus=need.cpus, num_gpus=need.gpus, max_retries=RESTARTS)
        errand = Errand(tuple(order.cluster_words[1:]), str(Path.cwd()), str(order.config_file), str(order.log))
        return RayJob(self._ray, task.remote(errand), order)


class RayJob:
    """See `Running`."""

    def __init__(self, ray: Any, answer: Any, order: ProcessOrder) -> None:
        self._ray, self._answer, self._order = ray, answer, order
        self._code: int | None = None

    def exit_code(self) -> int | None:
        if self._code is None and self._ray.wait([self._answer], timeout=0)[0]:
            self._code = self._end()
        return self._code

    def ask_to_end(self) -> None:
        self._ray.cancel(self._answer)

    def kill(self) -> None:
        self._ray.cancel(self._answer, force=True)

    def _end(self) -> int:
        try:
            code = int(self._ray.get(self._answer))
        except self._ray.exceptions.TaskCancelledError:
            return REQUEUE
        except self._ray.exceptions.RayError as error:
            return fail(self._order.log, f"Ray could not run the job: {one_line(error)}; see `ray status`. Every node needs this package")
        if code == NOT_SHARED:
            file = Path.cwd() / self._order.config_file
            return fail(self._order.log, f"a node of the Ray cluster does not see {file}; start the command in a folder that all nodes share")
        return code


def run_errand(errand: Errand) -> int:
    """On the node: run the job's process and return its exit code.

    Ray interrupts this when the sweep is stopped, and ends it in other ways when the node is taken down: the job saves in either case.
    """
    if not Path(errand.cwd).is_dir() or not Path(errand.cwd, errand.config_file).is_file():
        return NOT_SHARED
    log = Path(errand.cwd, errand.log)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as said:
        words, pipe = [sys.executable, *errand.arguments], subprocess.PIPE  # the open pipe tells the job that its worker lives
        process = subprocess.Popen(words, cwd=errand.cwd, stdin=pipe, stdout=said, stderr=said, start_new_session=True)
    job = LocalProcess(process)
    try:
        while (code := job.exit_code()) is None:
            time.sleep(POLL_S)
        return code
    except KeyboardInterrupt:
        return REQUEUE
    finally:
        job.ask_to_end()
        deadline_s = time.monotonic() + PATIENCE_S
        while job.exit_code() is None and time.monotonic() < deadline_s:
            time.sleep(POLL_S)
        if job.exit_code() is None:
            job.kill()


def _import_ray() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns that this will be the default
    return optional_library("ray", "--backend ray", "ray")


def _resolved(address: str) -> str:
    if address == "auto":
        return os.environ.get("RAY_ADDRESS") or "auto"
    if address != "local" and not re.fullmatch(r"[^\s/:]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}", address, re.ASCII):
        raise ConfigError(f"--ray-address is '{address}'; give auto, local or HOST:PORT, the address that `ray start --head` printed")
    return address


def _try_to_connect(address: str) -> None:
    """Raise BackendUnavailable unless a child can connect: Ray itself tries for minutes, and may end the process."""
    arguments = {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
    try:
        in_a_process(f"import ray; ray.init(**{arguments!r})", CONNECT_S)
    except NoAnswer as error:
        name = "this machine" if address == "auto" else address
        raise BackendUnavailable(
            f"no Ray cluster at {name} ({error}). Start one with `ray start --head`, and on every other machine, this one among them, "
            "`ray start --address=HOST:PORT`; or use --ray-address local"
        ) from None


@contextlib.contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Keep the handlers that there are: Ray's own leaves the program at SIGTERM without ending any job."""
    earlier = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # not in the main thread
            for number, handler in earlier.items():
                signal.signal(number, handler)


def _times(need: Need, node: Need) -> int:
    """How many jobs fit on a node at once."""
    each = [int(has / wants + 1e-9) for has, wants in ((node.cpus, need.cpus), (node.gpus, need.gpus)) if wants]
    return min(each, default=1)
