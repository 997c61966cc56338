"""Errors a user can mend: each message names the value, the place and the fix.

The command line prints them as one or two lines and exits with code 2. Anything else that
escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ReconvergeError(Exception):
    """Base of every error that bad input can cause."""


class UnknownName(ReconvergeError, KeyError):
    """A task, curriculum, method, preset or config key that does not exist."""

    def __init__(self, kind: str, name: str, known: Iterable[str], place: str = "") -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        nearest = difflib.get_close_matches(name, self.known, n=1, cutoff=0.5)
        hint = f"did you mean '{nearest[0]}'?" if nearest else f"known: {_abridged(self.known)}"
        self.message = f"unknown {kind} '{name}'{f' in {place}' if place else ''}; {hint}"
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


class TrainingDiverged(ReconvergeError, ArithmeticError):
    """A loss or a gradient is no longer finite."""


class RenderingUnavailable(ReconvergeError):
    """No off-screen OpenGL was found; the message gives the line that installs one."""


def _abridged(names: list[str], limit: int = 12) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown}, ... ({len(names)} in all)"
