"""Settings of what is remembered. Frozen data without torch, so that `--help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class GeneratorConfig:
    width: int = 192
    """Units of the residual stream."""
    blocks: int = 3
    """Residual blocks."""
    timesteps: int = 100
    """Diffusion timesteps in training."""
    sampling_steps: int = 25
    """DDIM steps when windows are generated."""
    updates: int = 1500
    """Gradient updates per stage."""
    batch_size: int = 192
    """Windows per update."""
    learning_rate: float = 5e-3
    """Peak learning rate of AdamW (one-cycle)."""
    touch_scale_m: float = 0.0
    """Distance in metres within which it is told finely where hand, objects and goal are to each other; 0: each where it is in the room."""


@dataclass(frozen=True)
class ReplayConfig:
    source: Literal["generator", "teacher-rollouts", "stored"] = "generator"
    """Where windows of earlier tasks come from: the trajectory generator (data-free), the frozen teacher acting in their simulators, or
    stored real windows (experience replay)."""
    pool: Literal["freshest", "redrawn"] = "freshest"
    """Whether each task's windows are made once by its freshest generator and teacher, or again before every stage by the newest
    (`t-dgr` always does that)."""
    windows_per_task: int = 4096
    """Windows in the pool of each earlier task."""
    label_temperature: float = 1.0
    """Temperature at which the teacher gives the windows of the `generator` source their actions; 1 rehearses all that it has learned."""
    stored_megabytes: float = 0.0
    """Budget of the `stored` source for all tasks together, in shares that shrink as tasks are added, each at most `windows_per_task`;
    0: no budget."""
    rollouts_per_task: int = 50
    """Episodes that the teacher acts for each pool of the `teacher-rollouts` source."""
    successes_only: bool = False
    """Whether the `teacher-rollouts` source keeps successful episodes only, where there are any."""
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    """Used by the `generator` source."""
