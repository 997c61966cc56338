"""`reconverge track`, and the flags by which `train` and `sweep` do the same while they run."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from reconverge.envs.errors import ConfigError, ReconvergeError
from reconverge.launch.commands.command import Command
from reconverge.launch.commands.pages import runs_within
from reconverge.launch.trackers import TrackerName, check_trackers

UNREACHED = "is not found where runs are followed: it lies too deep, or under a name that cannot be printed; give its own folder"
MOST_NAMED = 3


@dataclass(frozen=True)
class Track(Command):
    """Send the losses, success, forgetting and seconds of runs to a tracker, from their folders: finished ones, or live ones with --follow.

    Nothing is written in a run folder. `train` and `sweep` do the same while they run, with --track. What TensorBoard gets is shown by
    `tensorboard --logdir runs/tracking/tensorboard`.

    Examples:
      reconverge track runs/cw10 --to tensorboard
      reconverge track runs/sweep/cw10 --to wandb --follow
    """

    summary: ClassVar[str] = "runs into TensorBoard, Weights & Biases or Trackio"

    runs: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Run folder, or a folder that holds runs at any depth."""
    to: tuple[TrackerName, ...] = ("tensorboard",)
    """Trackers."""
    online: bool = False
    """Let wandb and trackio send to their servers; without it everything stays on this machine."""
    track_dir: Path = Path("runs", "tracking")
    """Folder of what the trackers write."""
    follow: bool = False
    """Go on with what the runs write, and with runs that begin, until interrupted."""

    def run(self, command_line: str) -> int:
        if not self.to:
            raise ConfigError("--to names no tracker; give tensorboard, wandb or trackio")
        check_trackers(self.to, self.online)
        from reconverge.launch.tracking import INTERVAL_S, Tracking

        found = [] if self.follow else runs_within([self.runs])
        tracking = Tracking(self.runs, self.to, lambda text: print(text, file=sys.stderr), self.track_dir, self.online)
        try:
            skipped = tracking.catch_up()
            while self.follow and tracking.working:
                time.sleep(INTERVAL_S)
                tracking.catch_up()
        except KeyboardInterrupt:
            if not self.follow:
                raise
            print(file=sys.stderr)
        finally:
            tracking.close()
        if set(self.to) - set(tracking.working):
            raise ReconvergeError("not every tracker took what was sent; the runs are untouched")
        missed = [reason for folder in found if (reason := skipped.get(folder.path, f"{folder.path} {UNREACHED}"))]
        if missed:
            more = f"; and {len(missed) - MOST_NAMED} more" if len(missed) > MOST_NAMED else ""
            sent = f"{len(found) - len(missed)} of {len(found)} runs sent to {', '.join(self.to)}"
            raise ReconvergeError(f"{sent}; left out: {'; '.join(missed[:MOST_NAMED])}{more}")
        print(f"{len(found) or 'all'} runs sent to {', '.join(self.to)}: {self.track_dir}")
        return 0
