"""The physics states that evaluation kept of its first episodes, in RUN/rollouts/stage-SS/TASK.safetensors."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reconverge.envs.bounded_file import MIB, read_bounded
from reconverge.envs.errors import DamagedFile
from reconverge.envs.plain_arrays import parse_arrays
from reconverge.envs.task_files import task_of_file

LARGEST_ROLLOUTS = 512 * MIB
"""Of one cell; a thousand episodes of Meta-World take 130 MB."""


@dataclass(frozen=True)
class Rollout:
    """One stored episode: physics states, (T+1, S) float64, and the success flag of each step, (T,)."""

    stage: int
    task: str
    episode_seed: int
    states: np.ndarray
    success: np.ndarray


def read_rollouts(run_folder: Path, tasks: Collection[str] | None = None, stages: Collection[int] | None = None) -> list[Rollout]:
    """The stored episodes of the chosen tasks and stages, by stage, task and episode seed; DamagedFile for a file that holds none."""
    rollouts = []
    for path in sorted((run_folder / "rollouts").glob("stage-*/*.safetensors")):
        stage, task = _stage_of(path), task_of_file(path.stem)
        if (tasks is None or task in tasks) and (stages is None or stage in stages):
            rollouts += _read_rollout_file(path, stage, task)
    return rollouts


def _read_rollout_file(path: Path, stage: int, task: str) -> list[Rollout]:
    try:
        arrays = parse_arrays(read_bounded(path, LARGEST_ROLLOUTS), str(path))
        seeds = sorted(int(key.removesuffix(".states")) for key in arrays if key.endswith(".states"))
        return [_checked(Rollout(stage, task, seed, arrays[f"{seed}.states"], arrays[f"{seed}.success"])) for seed in seeds]
    except (OSError, KeyError, ValueError, DamagedFile) as error:
        raise DamagedFile(f"{path} is not a whole rollout file ({str(error)[:200]}); delete it and render the others") from error


def _checked(rollout: Rollout) -> Rollout:
    """Raise ValueError unless there is a state before each step and after the last. Those of a simulator that broke may be NaN."""
    states, success = rollout.states, rollout.success
    if states.ndim != 2 or success.ndim != 1 or len(states) != len(success) + 1 or not 0 <= rollout.episode_seed < 2**63:
        raise ValueError(f"episode {rollout.episode_seed} has states of shape {states.shape} and flags of shape {success.shape}")
    if states.dtype.kind != "f":
        raise ValueError(f"the states of episode {rollout.episode_seed} are {states.dtype}")
    return rollout


def _stage_of(path: Path) -> int:
    digits = path.parent.name.removeprefix("stage-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise DamagedFile(f"{path.parent} is no stage's folder; delete it")
    return int(digits)
