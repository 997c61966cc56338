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


@dataclass(frozen=True)
class ReplayConfig:
    source: Literal["generator", "stored"] = "generator"
    """Where windows of earlier tasks come from: the trajectory generator (data-free) or stored real windows (oracle)."""
    pool: Literal["freshest", "redrawn"] = "freshest"
    """Whether each task's generated windows are drawn once by its freshest generator and teacher, or again before every stage."""
    windows_per_task: int = 4096
    """Windows in the pool of each earlier task."""
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    """Used by the `generator` source."""
