"""What the writers of foreign data sets share: a folder of their own, and actions in the simulator's own units."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from reconverge.envs.artifact import written_whole
from reconverge.envs.errors import RunFolderError
from reconverge.envs.task import Task


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A draft of `folder`, which appears whole. Raises RunFolderError, before and after the writing, where `folder` holds something."""
    refuse_filled(folder)
    with written_whole(folder) as draft:
        yield draft
        refuse_filled(folder)


def refuse_filled(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise RunFolderError(f"{folder} is there and not empty; nothing there is touched, choose another --output-dir")


def own_actions(task: Task, actions: np.ndarray) -> np.ndarray:
    """Actions (T, Da) in [-1, 1] -> in the simulator's own units, float32."""
    if task.action_bounds is None:
        return actions.astype(np.float32)
    low, high = (np.asarray(bound) for bound in task.action_bounds)
    return (low + (actions.astype(np.float64) + 1) / 2 * (high - low)).astype(np.float32)
