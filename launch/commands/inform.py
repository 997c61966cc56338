"""`reconverge list` and `doctor`: what there is, and whether it works here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro

from reconverge.envs.curriculum import CURRICULA
from reconverge.envs.tasks import find_task, task_names
from reconverge.launch.commands.command import Command
from reconverge.launch.config import METHODS
from reconverge.launch.presets import PRESETS


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
            return list(METHODS.items())
        return [(name, preset.description) for name, preset in PRESETS.items()]


@dataclass(frozen=True)
class Doctor(Command):
    """Check versions, off-screen rendering and speed on this machine, and print the exact fix of what is wrong.

    Examples:
      reconverge doctor
    """

    summary: ClassVar[str] = "versions, rendering, speed; prints the exact fix"

    def run(self, command_line: str) -> int:
        from reconverge.launch.doctor import examine

        findings = examine()
        for finding in findings:
            print(finding)
        return 0 if all(finding.fine for finding in findings) else 2
