"""`reconverge list` and `doctor`: what there is, and whether it works here."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro

from reconverge.envs.curriculum import CURRICULA
from reconverge.envs.tasks import find_task, task_names
from reconverge.launch.commands.command import Command
from reconverge.launch.own_methods import described_methods
from reconverge.launch.presets import PRESETS

CLEAR = "\033[2K"
"""Empties the line of the terminal on which the cursor stands."""


@dataclass(frozen=True)
class List(Command):
    """List what can be named on the command line.

    Examples:
      reconverge list tasks
      reconverge list presets
    """

    summary: ClassVar[str] = "tasks, curricula, methods or presets"

    kind: Annotated[Literal["tasks", "curricula", "methods", "presets"], tyro.conf.Positional]
    """Which list."""

    def run(self, command_line: str) -> int:
        for name, description in self._entries():
            print(f"{name:<29} {description}".rstrip())
        return 0

    def _entries(self) -> Iterable[tuple[str, str]]:
        if self.kind == "tasks":
            return [(name, find_task(name).success) for name in task_names()]
        if self.kind == "curricula":
            return [(name, f"{len(tasks)} stages: {' '.join(tasks)}") for name, tasks in CURRICULA.items()]
        if self.kind == "methods":
            return list(described_methods().items())
        return [(name, preset.description) for name, preset in PRESETS.items()]


@dataclass(frozen=True)
class Doctor(Command):
    """Check installation, simulator, rendering and machine, and print the exact fix of what is wrong.

    Exit code 0 when nothing needs a fix, 2 otherwise.

    Examples:
      reconverge doctor
      reconverge doctor --quick
    """

    summary: ClassVar[str] = "installation, simulator, rendering, machine; prints the exact fix"

    quick: bool = False
    """Leave out what takes seconds: the simulator's golden episodes, rendering and speed."""

    def run(self, command_line: str) -> int:
        from reconverge.launch.doctor import examine

        def begin(subject: str) -> None:
            if sys.stdout.isatty():
                print(f"...  {subject}", end="\r", flush=True)

        wrong = 0
        for finding in examine(self.quick, begin):
            wrong += not finding.fine
            print(f"{CLEAR if sys.stdout.isatty() else ''}{finding}", flush=True)
        print("nothing needs a fix" if not wrong else f"{wrong} {'thing needs' if wrong == 1 else 'things need'} a fix")
        return 2 if wrong else 0
