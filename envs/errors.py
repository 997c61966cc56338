"""Errors a user can mend: each message names the value, the place and the fix.

The command line prints them as one or two lines and exits with code 2. Anything else that
escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable
from typing import Any

LONGEST_SHOWN = 80


class ReconvergeError(Exception):
    """Base of every error that bad input can cause. A copy of one that came from another process says the same."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.args, vars(self))


class UnknownName(ReconvergeError, KeyError):
    """A task, curriculum, method, preset or config key that does not exist."""

    def __init__(self, kind: str, name: str, known: Iterable[str], place: str = "") -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        nearest = difflib.get_close_matches(name[:LONGEST_SHOWN], self.known, n=1, cutoff=0.5)
        hint = f"did you mean '{nearest[0]}'?" if nearest else f"known: {_abridged(self.known)}"
        self.message = f"unknown {kind} '{_readable(name)}'{f' in {place}' if place else ''}; {hint}"
        super().__init__(self.message)

    def __str__(self) -> str:  # KeyError would print the repr
        return self.message


class CurriculumError(ReconvergeError, ValueError):
    """A curriculum that cannot be run as written."""


class ConfigError(ReconvergeError, ValueError):
    """A configuration value outside its range, or two values that contradict each other."""


class RunFolderError(ReconvergeError):
    """A run folder that is in use, incomplete, or belongs to another configuration."""


class DamagedFile(ReconvergeError):
    """A file that is missing, truncated or whose hash does not match its manifest."""


class UnsupportedEnvironment(ReconvergeError, TypeError):
    """An environment whose spaces are not Box observations and bounded Box actions."""


class MissingLibrary(ReconvergeError, ImportError):
    """Libraries that were asked for and that an extra of this package would install."""

    def __init__(self, asked_by: str, libraries: Iterable[str], extra: str) -> None:
        super().__init__(f"{asked_by} needs {', '.join(libraries)}; install it with: pip install -e '.[{extra}]' in the clone of reconverge")


class NoSuchStart(ReconvergeError, ValueError):
    """A start that no episode of a task has."""


class TrainingDiverged(ReconvergeError, ArithmeticError):
    """A loss, a gradient, a penalty or an estimate is no longer finite; `found` says which, and where."""

    def __init__(self, found: str) -> None:
        self.found = found
        super().__init__(
            f"{found}; the last checkpoint is intact. "
            "Start anew with a lower --train.optimizer.learning-rate or --train.trust-region.strength"
        )


class LossLeapt(TrainingDiverged):
    """A loss or gradient is finite and far beyond anything before."""


class OutOfDeviceMemory(ReconvergeError, MemoryError):
    """The memory of the policy's device ran out."""


class ProcessLost(ReconvergeError):
    """Another process of the same run ended, or does not answer."""

    def __init__(self, found: str) -> None:
        super().__init__(f"{found}; the last save is intact, go on with --resume, with as many processes as you like")


class ProcessesDiffer(ReconvergeError):
    """The processes of a run, which make the same steps, hold different weights."""


class BackendUnavailable(ReconvergeError):
    """A cluster or queue that cannot be reached, or that has nowhere the resources that a job asks for."""


class PartFailed(ReconvergeError):
    """Parts of a divided work ended with an error; those that are done are kept."""


class RenderingUnavailable(ReconvergeError):
    """No off-screen OpenGL was found; the message gives the line that installs one."""


def _again(kind: type[ReconvergeError], args: tuple[Any, ...], attributes: dict[str, Any]) -> ReconvergeError:
    """The error with this message; its `__init__`, which makes the message out of something else, is not called."""
    error = kind.__new__(kind, *args)
    vars(error).update(attributes)
    return error


def shown(value: object) -> str:
    """A value as a message may show it: short, whatever it is, and made in no time. Of what is nested, only the outside is looked at."""
    if isinstance(value, (dict, list, tuple)):
        inside = ", ".join(shown(item) if not isinstance(item, (dict, list, tuple)) else "..." for item in itertools.islice(value, 3))
        more = ", ..." if len(value) > 3 else ""
        return f"{{{inside}{more}}}" if isinstance(value, dict) else f"[{inside}{more}]" if isinstance(value, list) else f"({inside}{more})"
    if isinstance(value, int) and abs(value) >= 10**LONGEST_SHOWN:  # Python refuses to write the longest
        return f"a whole number of {value.bit_length()} bits"
    text = repr(value[:LONGEST_SHOWN]) if isinstance(value, (str, bytes)) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _readable(name: str) -> str:
    """Without the letters that a terminal would obey instead of showing them, and not endless."""
    cut = name if len(name) <= LONGEST_SHOWN else f"{name[:LONGEST_SHOWN]}..."
    return cut if cut.isprintable() else ascii(cut)[1:-1]


def _abridged(names: list[str], limit: int = 12) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown}, ... ({len(names)} in all)"
