"""`reconverge COMMAND ...`: finds the command, reads its flags, and turns errors into one or two lines.

Exit codes: 0 done, 2 something the user can mend, 75 stopped and to be taken up again (`train`, `sweep` and `recover`; a queue may requeue
it), 130 interrupted, 141 its reader went away. Anything else is a bug and keeps its traceback; `sweep` answers 1 where a job ended so.
Neither torch nor a simulator is imported before a command runs, so help is there at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import inspect
import io
import itertools
import os
import re
import shlex
import signal
import sys
import typing
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import tyro

from reconverge.envs.errors import ConfigError, ReconvergeError, UnknownName
from reconverge.launch.commands import COMMANDS, Collect, Command, ExportDemonstrations, Sweep, Train
from reconverge.launch.config_file import flat
from reconverge.launch.presets import PRESETS, find_preset
from reconverge.launch.process_rank import process_rank
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.stop_request import REQUEUE, Stopped, leave

INTERRUPTED, UNHEARD = 130, 141
"""Exit codes of who was ended by SIGINT and SIGPIPE: the latter where the reader went away, so that nobody takes it for a success."""
_AGAIN = "then give the same command again (train: with --resume); what was saved before is intact"
_ADVICE = {
    "choose another folder or file": (
        errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP,
    ),
    f"make room, {_AGAIN}": (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    f"look whether its disk or network answers, {_AGAIN}": (errno.EIO, errno.ESTALE, errno.ETIMEDOUT),
    "allow more open files with `ulimit -n 4096`": (errno.EMFILE, errno.ENFILE),
}  # fmt: skip
"""What to do about a file that the system refuses."""


def enter() -> NoReturn:
    """What `reconverge` on the command line calls."""
    leave(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `argv` is without the program's name."""
    words = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _dispatch(words))


def guarded(work: Callable[[], int]) -> int:
    """The exit code of `work`, whose errors become one or two lines on standard error."""
    try:
        with _termination_as_interrupt():
            return work()
    except ReconvergeError as error:
        print(f"reconverge: {error}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(f"\nreconverge: stopped{f'; {stopped}' if str(stopped) else ''}", file=sys.stderr)
        return REQUEUE
    except KeyboardInterrupt as interrupt:
        print(f"\nreconverge: interrupted{f'; {interrupt}' if str(interrupt) else ''}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNHEARD
    except OSError as error:
        advice = next((words for words, numbers in _ADVICE.items() if error.errno in numbers), None)
        if advice is None:
            raise
        print(f"reconverge: {error.filename or 'a file'} cannot be used ({error.strerror}); {advice}", file=sys.stderr)
        return 2


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if words[0] == "--version":
        print(f"reconverge {version('reconverge')}")
        return 0
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        raise UnknownName("command", name, COMMANDS)
    if name != "train" and (place := process_rank()) is not None:
        raise ConfigError(f"torchrun started {place.count} processes, each of which would {name} all by itself; only `train` shares its work")
    command = parse(COMMANDS[name], rest, f"reconverge {name}")
    return 0 if command is None else command.run(shlex.join(["reconverge", *words]))


def parse(kind: type[Command], words: Sequence[str], program: str) -> Command | None:
    """The command that the flags describe; None when they asked for help, which is printed then.

    Raises UnknownName for an unknown flag or choice, ConfigError for a value that does not fit.
    """
    if not {"-h", "--help"} & set(words):
        _refuse_unknown_flags(kind, words)
    # What tyro says on standard error is kept back, and shortened when it is an error after all.
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                kind,
                args=list(words),
                prog=program,
                description=inspect.getdoc(kind),
                default=_base(kind, words),
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as end:
        if not end.code:
            return None
        raise _shortened(said.getvalue(), program) from None


def _base(kind: type[Command], words: Sequence[str]) -> Command | None:
    """What the flags override: the preset, or of it the demonstrations, or the configuration of the run that `train` goes on with."""
    if not issubclass(kind, (Train, Sweep, Collect, ExportDemonstrations)):
        return tyro.MISSING_NONPROP
    preset, begun = _value_of("--preset", words), _value_of("--resume", words) or _value_of("--extend", words)
    if kind is Train and begun and not preset:
        return Train(config=RunFolder.open(Path(begun)).config)
    found = find_preset(preset or kind.preset)
    if kind is Train:
        return Train(config=found)
    if kind is Sweep:
        # The number of threads changes last digits: were it left to --jobs, the results of a sweep would depend on that.
        return Sweep(config=dataclasses.replace(found, threads=1))
    if kind is Collect:
        return Collect(tyro.MISSING, demonstrations=found.demonstrations)
    return ExportDemonstrations(tyro.MISSING, tyro.MISSING, tyro.MISSING, demonstrations=found.demonstrations)


def _value_of(flag: str, words: Sequence[str]) -> str | None:
    """The value given to a flag, in either form, before the flags are parsed; the last one counts."""
    value = None
    for index, word in enumerate(words):
        if word.startswith(f"{flag}="):
            value = word.partition("=")[2]
        elif word == flag and index + 1 < len(words):
            value = words[index + 1]
    return value


def _refuse_unknown_flags(kind: type[Command], words: Sequence[str]) -> None:
    known = _flags(kind)
    for word in words:
        flag = word.partition("=")[0].replace("_", "-")
        if flag.startswith("--") and flag not in known:
            raise UnknownName("option", word.partition("=")[0], known)


def _flags(kind: type[Command]) -> set[str]:
    """Every long flag of a command; those of a nested configuration carry its dotted keys."""
    hints = typing.get_type_hints(kind)
    names: set[str] = {"help"}
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            names.update(flat(hints[field.name]()))
        else:
            names.add(field.name)
    return {f"--{name.replace('_', '-')}" for name in names}


def _shortened(said: str, program: str) -> ReconvergeError:
    """tyro's boxed message as one line: what stands between title and first rule, and the nearest choice where there is one.

    The box is drawn with lines, or with blanks where the terminal is not UTF-8.
    """
    rows = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip("│ ") for line in said.splitlines()[1:]]
    start = 1 if rows and not rows[0].strip("─-") else 0
    text = " ".join(itertools.takewhile(lambda row: row.strip("─-"), rows[start:]))
    choice = re.match(r"invalid choice '(.*)' for argument '(?:--)?(\S+)'\. Expected one of \((.*)\)", text)
    if choice:
        return UnknownName(choice[2], choice[1], re.findall(r"'([^']*)'", choice[3]))
    if missing := re.match(r"Missing from [^:]*: (\S+) (.*?)\.? \(required\)$", text):
        text = f"{program.split()[-1]} needs {missing[1]} ({missing[2]})"
    return ConfigError(f"{text.rstrip('.')}; see {program} --help")


@contextlib.contextmanager
def _termination_as_interrupt() -> typing.Iterator[None]:
    """Let SIGTERM and SIGUSR1 end a command as Ctrl-C does: workers are closed and the folder is given back."""
    try:
        earlier = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGUSR1)}
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        for number, handler in earlier.items():
            if signal.getsignal(number) is signal.default_int_handler:
                signal.signal(number, handler)


def _overview() -> str:
    width = max(map(len, COMMANDS)) + 2
    commands = "\n".join(f"  {name:<{width}}{kind.summary}" for name, kind in COMMANDS.items())
    presets = "\n".join(f"  {name:<14}{preset.description}" for name, preset in PRESETS.items())
    return f"""usage: reconverge COMMAND [OPTIONS]

Train one robot policy on a curriculum of tasks, watch what it forgets, and measure how fast it comes back.

commands:
{commands}

presets of `train`:
{presets}

examples:
  reconverge train --preset quickstart
  reconverge train --preset cw10 --method replay --seed 1 --train.updates 3000
  reconverge sweep --preset cw10 --methods finetune replay trust-region --seeds 0..4 --jobs 2
  reconverge report runs/sweep/cw10

`reconverge COMMAND --help` lists a command's options; every setting has one, such as --policy.window."""
