"""The jobs of a sweep as batch jobs of a Slurm queue, which are requeued at their time limit and go on within their stage.

    sbatch        a script of a dozen lines, which starts the job's process and waits for it
    ... USR1      two minutes ahead of the time limit, to the script, which hands it on
    exit code 75  the run is saved: `scontrol requeue`, and the same script goes on in the same folder
    other codes   done or failed: the code goes into a file, where the sweep finds it

The sweep polls `squeue` and those files. It may be gone meanwhile: jobs that are in the queue when it is started again are waited for, not
submitted twice. Ctrl-C ends them, saved.

submitit, which does the same for Python functions, is not used: it hands functions and results over as pickles, and here no file of a job
is ever unpickled. What a job needs is in plain files already, and the script can be read.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reconverge.envs.artifact import write_file
from reconverge.envs.bounded_file import KIB, read_bounded
from reconverge.envs.errors import BackendUnavailable, ConfigError, DamagedFile
from reconverge.launch.backend import Need, Order, Running, fail, need_of
from reconverge.launch.stop_request import REQUEUE

WARNING_S = 120
"""How long ahead of the time limit a job is told to save."""
MOST_REQUEUES = 1000
"""A job that never gets anywhere within its time limit ends after so many."""
POLL_S = 10.0
"""Between two looks at the queue; the machine that runs it is shared by all its users."""
GRACE_S = 60.0
"""How long the file with an exit code may take to be seen from another machine after its job has left the queue."""
ANSWER_S = 60.0
"""How long a command of the queue may take."""
OWN = (
    "array", "clusters", "cpus-per-task", "error", "gres", "job-name", "no-requeue", "output", "parsable", "partition", "requeue", "signal", "time",
    "wait", "wrap",
)  # fmt: skip
"""Options of sbatch that this module gives itself, or that would change what it relies on."""

SCRIPT = """#!/bin/bash
# One job of a sweep, as `reconverge sweep --backend slurm` submits it.
exec >>{log} 2>&1 </dev/null
cd {cwd} || exit 2
finish() {{ echo "$1" >{exit}.part && mv {exit}.part {exit}; exit "$1"; }}

# Set ahead of the start: on a busy machine the signal may come before the line after it.
child=
warned=
trap 'signalled=1; warned=1; [ -z "$child" ] || kill -TERM "$child"' USR1 TERM
{command} &
child=$!
[ -z "$warned" ] || kill -TERM "$child"
signalled=1
while [ -n "$signalled" ]; do
  signalled=
  wait "$child"  # a signal ends the waiting, not the child
  code=$?
done

# Ahead of its training, and while it waits for the folder, a job that is told to save has nothing to save and ends at once.
if [ -n "$warned" ] && {{ [ "$code" -eq 130 ] || [ "$code" -eq 143 ]; }}; then code={requeue}; fi
if [ "$code" -eq {requeue} ] && [ ! -e {stop} ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {most} ]; then
  echo "reconverge: saved; requeued as Slurm job $SLURM_JOB_ID"
  scontrol requeue "$SLURM_JOB_ID" && exit 0
fi
finish "$code"
"""


@dataclass(frozen=True)
class SlurmOptions:
    """What is asked of the queue for every job.

    Attributes:
        partition: the queue's default when None.
        minutes: time limit of one attempt; a run may take many. The partition's default when None.
        cpus, gpus: per job, whole numbers; from the configuration when None.
        others: further options of sbatch without their dashes, such as `mem=8G`.
    """

    partition: str | None = None
    minutes: int | None = None
    cpus: float | None = None
    gpus: float | None = None
    others: tuple[str, ...] = ()

    def need(self, threads: int, device: str) -> Need:
        """Raises ConfigError for fractions, which Slurm does not give."""
        need = need_of(threads, device, self.cpus, self.gpus)
        for flag, value in (("--cpus-per-job", need.cpus), ("--gpus-per-job", need.gpus)):
            if value != int(value):
                raise ConfigError(f"{flag} is {value:g}; Slurm gives whole ones")
        return need

    def words(self, need: Need) -> list[str]:
        """Options for sbatch; each is one word of an argument list that no shell reads."""
        words = [f"--cpus-per-task={need.cpus:.0f}", *([f"--gres=gpu:{need.gpus:.0f}"] if need.gpus else [])]
        words += [] if self.partition is None else [f"--partition={self.partition}"]
        words += [] if self.minutes is None else [f"--time={self.minutes}"]
        return [*words, *(f"--{option}" for option in self.others)]


class SlurmBackend:
    """See `Backend`. Raises BackendUnavailable where a command of Slurm is missing, ConfigError for options that cannot be."""

    def __init__(self, options: SlurmOptions) -> None:
        check(options)
        missing = [name for name in ("sbatch", "squeue", "scancel") if shutil.which(name) is None]
        if missing:
            raise BackendUnavailable(
                f"--backend slurm needs {', '.join(missing)}, not found on PATH; start the sweep where `sbatch` works, or use --backend local"
            )
        self.options = options
        self._queue = Queue()

    def start(self, order: Order) -> Running:
        """Submit the job, or take up the one that an earlier sweep has left in the queue; one that was told to stop is submitted anew once it has.

        One that the queue refuses has ended at once, with the reason in its log: it may be the last of many that a user may have there.
        """
        files = JobFiles(order)
        number = files.number()
        if number is not None and files.exit_code() is None and self._queue.surely_holds(number):
            found = SlurmJob(number, files, self._queue)
            return LeavingJob(found, lambda: self._new_job(order, files)) if files.stop.exists() else found
        return self._new_job(order, files)

    def _new_job(self, order: Order, files: JobFiles) -> SlurmJob:
        files.prepare()
        try:
            number = self._submit(order, files)
        except BackendUnavailable as error:
            return SlurmJob(0, files, self._queue, code=fail(order.log, str(error)))
        write_file(files.job, f"{number}\n")
        self._queue.joined(number)
        return SlurmJob(number, files, self._queue)

    def _submit(self, order: Order, files: JobFiles) -> int:
        name = f"--job-name=reconverge {order.folder.parent.name} {order.folder.name}"
        fixed = ["--parsable", "--requeue", f"--signal=B:USR1@{WARNING_S}", name]
        fixed += ["--output=/dev/null"]  # the script opens the log itself: here % has a meaning
        words = self.options.words(self.options.need(order.threads, order.device))
        said = _ask("sbatch", *fixed, *words, str(files.script.resolve()))
        number = re.match(r"(\d{1,18})(;|\s|$)", said, re.ASCII)
        if number is None:
            raise BackendUnavailable(f"sbatch answered {said[:80]!r}; the number of a job was expected")
        return int(number[1])


class SlurmJob:
    """See `Running`."""

    def __init__(self, number: int, files: JobFiles, queue: Queue, code: int | None = None) -> None:
        self.number = number
        self._files, self._queue, self._code = files, queue, code
        self._asked = False
        self._missed_since_s: float | None = None

    def exit_code(self) -> int | None:
        if self._code is None and self._queue.is_due(self.number):
            self._code = self._look()
        return self._code

    def is_leaving(self) -> None:
        """It was asked to end: when it has left the queue it has saved, whether it wrote its code or not."""
        self._asked = True

    def ask_to_end(self) -> None:
        self.is_leaving()
        self._files.stop.touch()
        self._signal("--state=PENDING")  # one that waits has nothing to save
        self._signal("--batch", "--signal=TERM")

    def kill(self) -> None:
        self._signal()
        self._code = -signal.SIGKILL

    def _look(self) -> int | None:
        code = self._files.exit_code()
        if code is not None:
            return code
        if self._queue.holds(self.number):
            self._missed_since_s = None
            return None
        if self._asked:
            return REQUEUE
        now_s = time.monotonic()
        self._missed_since_s = self._missed_since_s or now_s
        if now_s - self._missed_since_s < GRACE_S:
            return None
        left = f"Slurm job {self.number} has left the queue ({state_of(self.number)})"
        fail(self._files.order.log, f"{left}; started again, it goes on from its last save")
        return 1

    def _signal(self, *how: str) -> None:
        with contextlib.suppress(BackendUnavailable):  # it has ended meanwhile
            _ask("scancel", *how, str(self.number))


class LeavingJob:
    """See `Running`: a job that is about to end, as an earlier sweep has told it to; `again` starts the one that takes its place.

    One that is still there after `WARNING_S` is told once more, since the queue may have lost the signal; sooner that would be a second one, by
    which it leaves without saving.
    """

    def __init__(self, job: SlurmJob, again: Callable[[], SlurmJob]) -> None:
        job.is_leaving()
        self._job, self._again = job, again
        self._taken_up = False
        self._remind_s = time.monotonic() + WARNING_S

    @property
    def number(self) -> int:
        return self._job.number

    def exit_code(self) -> int | None:
        code = self._job.exit_code()
        if self._taken_up:
            return code
        if code is not None:
            self._job, self._taken_up = self._again(), True
        elif time.monotonic() > self._remind_s:
            self._job.ask_to_end()
            self._remind_s = math.inf
        return None

    def ask_to_end(self) -> None:
        if self._taken_up:
            self._job.ask_to_end()
        self._taken_up = True  # it was told already, and nothing takes its place

    def kill(self) -> None:
        self._job.kill()


class JobFiles:
    """The files beside a job's configuration by which script and sweep know of each other."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.script, self.job, self.exit, self.stop = (order.config_file.with_suffix(f".{kind}") for kind in ("sbatch", "job", "exit", "stop"))

    def prepare(self) -> None:
        """Write the script, and forget what an earlier submission left."""
        for old in (self.job, self.exit, self.stop):
            old.unlink(missing_ok=True)
        self.order.log.parent.mkdir(parents=True, exist_ok=True)
        write_file(self.script, script(self.order))

    def number(self) -> int | None:
        """Of the job in the queue, as far as one was submitted."""
        return _number_in(self.job)

    def exit_code(self) -> int | None:
        """None until the script has ended for good."""
        return _number_in(self.exit)


class Queue:
    """The user's jobs that wait or run, looked up every `POLL_S`; one that was just submitted counts until the next look."""

    def __init__(self) -> None:
        self._there: set[int] = set()
        self._looked_s = float("-inf")
        self._round = 0
        self._answered = False
        self._seen: dict[int, int] = {}

    def joined(self, number: int) -> None:
        self._there.add(number)

    def holds(self, number: int) -> bool:
        self._refresh()
        return number in self._there

    def surely_holds(self, number: int) -> bool:
        """The same of a job that another sweep has submitted. Raises BackendUnavailable until the queue has answered once."""
        if not self._answered:
            self._look()
        return self.holds(number)

    def is_due(self, number: int) -> bool:
        """Whether there was a look at the queue since this was last asked for the job: so its files are looked for no more often either."""
        self._refresh()
        due = self._seen.get(number) != self._round
        self._seen[number] = self._round
        return due

    def _refresh(self) -> None:
        if time.monotonic() - self._looked_s < POLL_S:
            return
        with contextlib.suppress(BackendUnavailable):  # a queue that is restarted answers later; until then nothing has left it
            self._look()
        self._looked_s = time.monotonic()
        self._round += 1

    def _look(self) -> None:
        said = _ask("squeue", "--noheader", "--format=%A", f"--user={os.getuid()}")
        self._there = {int(word) for word in said.split() if word.isdecimal()}
        self._answered = True


def check(options: SlurmOptions) -> None:
    """Raise ConfigError for options of which sbatch could make something else than was meant."""
    if options.minutes is not None and options.minutes * 60 <= 2 * WARNING_S:
        raise ConfigError(f"--slurm-minutes is {options.minutes}; give more than {2 * WARNING_S // 60}: a job is told to save {WARNING_S} s ahead")
    for option in options.others:
        name = option.partition("=")[0]
        if not re.fullmatch(r"[a-z][a-z-]*", name, re.ASCII):
            raise ConfigError(f"--slurm-options holds '{option}'; give options of sbatch without their dashes, such as mem=8G account=robots")
        if any(own.startswith(name) for own in OWN):  # sbatch takes any beginning that is clear
            raise ConfigError(f"--slurm-options holds '{option}', which the sweep sets itself; leave it out")
    if any(not word.isprintable() for word in (options.partition or "", *options.others)):
        raise ConfigError("--slurm-partition and --slurm-options hold letters that cannot be printed; leave them out")


def script(order: Order) -> str:
    """What sbatch runs: paths and the command quoted, everything else fixed."""
    files = JobFiles(order)
    quoted = {"log": order.log.resolve(), "cwd": Path.cwd(), "exit": files.exit.resolve(), "stop": files.stop.resolve()}
    paths = {name: shlex.quote(str(path)) for name, path in quoted.items()}
    return SCRIPT.format(**paths, command=shlex.join(order.cluster_words), requeue=REQUEUE, most=MOST_REQUEUES)


def state_of(number: int) -> str:
    """How a job ended according to Slurm's accounts, such as TIMEOUT or OUT_OF_MEMORY, where they are kept."""
    try:
        said = _ask("sacct", "-X", "--noheader", "--parsable2", "--format=State", f"--jobs={number}")
    except BackendUnavailable:
        said = ""
    return said.split("\n")[0].strip() or "why is not known, the queue keeps no accounts"


def _ask(*words: str) -> str:
    """What a command of the queue prints. Raises BackendUnavailable where it is missing, fails or does not answer."""
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=ANSWER_S)
    except FileNotFoundError:
        raise BackendUnavailable(f"{words[0]} was not found on PATH") from None
    except subprocess.TimeoutExpired:
        raise BackendUnavailable(f"{words[0]} did not answer within {ANSWER_S:g} s") from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise BackendUnavailable(f"{words[0]} refused: {said[:300]}")
    return done.stdout.strip()


def _number_in(path: Path) -> int | None:
    """The number in a small file; None while there is no such file, or something else in it."""
    try:
        return int(read_bounded(path, KIB))
    except (OSError, ValueError, DamagedFile):
        return None
