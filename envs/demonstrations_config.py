"""Settings of the demonstrations. Frozen data without mujoco, so that `--help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DemonstrationConfig:
    episodes: int = 100
    """Successful expert episodes per task, unless the curriculum gives its own."""
    hold_steps: int = 5
    """Steps kept after the first success."""
    seed: int = 0
    """Seed of the expert's episodes; all runs share them unless it is changed."""
    paces: tuple[float, ...] = (1.0,)
    """How fast a scripted expert moves, 1 as it was written: gains of its motion, the gripper's aside, that are tried on every start in this
    order until it succeeds. Experts of other kinds have one pace."""
    workers: int = 2
    """Simulator processes of `collect`; `train` uses those of the evaluation. The demonstrations do not depend on it."""
    folder: str = "runs/demonstrations"
    """Where finished demonstrations are kept, for all runs that need the same ones."""
    action_noise: float = 0.0
    """Standard deviation of Gaussian noise on the actions that an expert executes, in the policy's units, [-1, 1]. Its clean actions are what is
    recorded (DART): the noise takes it to states beside its path, and what it teaches is what it wanted to do there."""
    hasty: bool = True
    """Whether a Meta-World script may be tried at paces at which it is hasty, and fails more often than more slowly (envs/expert_paces.py). Where
    it may, demonstrations of a task mix two ways of moving in similar situations, and a policy confuses them. Without, at least the slowest
    of the paces is tried."""
