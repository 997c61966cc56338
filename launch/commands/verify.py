"""`reconverge verify`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from reconverge.envs.errors import ConfigError
from reconverge.launch.commands.command import Command
from reconverge.launch.commands.pages import runs_within


@dataclass(frozen=True)
class Verify(Command):
    """Check that run folders still say what was measured: hashes of every file, and every table made anew from what it follows from.

    Nothing is written. A folder may hold runs at any depth; published tables are checked as far as they reach.
    Exit code 0 when nothing differs, 2 otherwise.

    Examples:
      reconverge verify runs/quickstart/trust-region/seed-0
      reconverge verify results/cw10 runs/quickstart
    """

    summary: ClassVar[str] = "hashes of a run's files, and its tables made anew from its episodes"

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER...", help_behavior_hint="")]
    """Run folders, folders with the tables of one, or folders that hold them."""

    def run(self, command_line: str) -> int:
        if not self.runs:
            raise ConfigError("verify needs at least one run folder, such as runs/quickstart/trust-region/seed-0")
        folders = list(dict.fromkeys(folder for path in self.runs for folder in _folders(path)))
        from reconverge.launch.verification import verify

        differ = 0
        for path in folders:
            started_s, outcomes = time.perf_counter(), []
            print(path)
            for check in verify(path):
                outcomes.append(check.outcome)
                print(f"  {check}", flush=True)
            took_s, wrong = time.perf_counter() - started_s, outcomes.count("DIFFERS")
            differ += wrong > 0
            summary = f"{outcomes.count('ok')} checks ok, {wrong} differ, {outcomes.count('not checked')} could not be made"
            print(f"  {summary}; {took_s:.1f} s")
        if len(folders) > 1:
            print(f"{len(folders) - differ} of {len(folders)} runs without a difference")
        return 2 if differ else 0


def _folders(path: Path) -> list[Path]:
    """The folder itself where it is a run's, whole or damaged, else the runs below it; RunFolderError where there is none."""
    damaged_or_published = any((path / name).exists() for name in ("files.json", "success_matrix.csv"))
    return [path] if damaged_or_published else [folder.path for folder in runs_within([path])]
