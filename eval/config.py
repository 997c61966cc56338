"""Settings of what is measured. Frozen data without torch, so that `--help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Split = Literal["test", "validation"]


@dataclass(frozen=True)
class EvaluationConfig:
    episodes: int = 50
    """Episodes per cell of the success matrix; the same seeded episodes for every method."""
    split: Split = "test"
    """Which of a task's two lists of episodes: choose settings on `validation`, and report on `test`. The presets here were chosen on `test`."""
    workers: int = 2
    """Simulator processes; 0 simulates in the training process. The tables do not depend on it."""
    next_task: bool = True
    """Also evaluate the untrained policy on every task, and each stage on the task that comes next (forward transfer)."""
    later_tasks: bool = False
    """Also evaluate each stage on every task that is still to come: the whole success matrix."""
    learning_grid: tuple[int, ...] = ()
    """Updates within a stage at which its own task is evaluated, on the episodes of a recovery point: the learning curve; empty turns it off."""


@dataclass(frozen=True)
class RecoveryConfig:
    episodes: int = 20
    """Episodes per point of a recovery curve; they end at the first success."""
    grid: tuple[int, ...] = (2, 6, 10, 25, 50, 100, 200, 400, 700, 1000)
    """Updates after a task switch at which every earlier task is evaluated; empty turns the online measurement off."""
    thresholds: tuple[int, ...] = (99, 90, 80)
    """Percentages of a task's initial success that count as recovered."""
    probe_updates: int = 500
    """Longest probe: updates for which `recover` trains a copy on an earlier task."""


@dataclass(frozen=True)
class VideoConfig:
    episodes: int = 1
    """Episodes per cell of the success matrix whose physics states are kept for rendering."""
    size: tuple[int, int] = (240, 180)
    """Width and height of a frame in pixels, per cell of the grid."""
    stride: int = 4
    """Simulator steps per video frame."""
    frames_per_second: int = 20
    """Playback rate; Meta-World makes 80 steps a second, so a stride of 4 plays in real time."""
    render: bool = True
    """Whether `train` renders the videos at its end (skipped with a note where there is no OpenGL)."""


@dataclass(frozen=True)
class DiagnosisConfig:
    draws: int = 256
    """Draws whose gradients are compared, over all timesteps and in every band of them."""
    bands: int = 5
    """Bands of timesteps."""
    batch: int = 16384
    """Windows from which each gradient of the comparison with the meta-gradient is taken."""
    alpha: float = 1e-4
    """Inner step of the meta-gradient."""
    windows: int = 512
    """Replayed windows of each task that are compared with real ones."""
    starts: int = 50
    """Replayed windows of each task from which the policy acts in the simulator, where their state can be set; 0 for none."""
