"""What the writers of foreign data sets share: a folder that is whole or not there, and actions in the simulator's own units."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from reconverge.envs.artifact import swap_into_place
from reconverge.envs.errors import RunFolderError
from reconverge.envs.task import Task


@contextlib.contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A draft beside `folder` to write in, which takes its name when all went well. Raises RunFolderError where `folder` holds something."""
    refuse_filled(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}.writing-{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        yield draft
        refuse_filled(folder)
        swap_into_place(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def refuse_filled(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise RunFolderError(f"{folder} is there and not empty; nothing there is touched, choose another --output-dir")


def own_actions(task: Task, actions: np.ndarray) -> np.ndarray:
    """Actions (T, Da) in [-1, 1] -> in the simulator's own units, float32."""
    if task.action_bounds is None:
        return actions.astype(np.float32)
    low, high = (np.asarray(bound) for bound in task.action_bounds)
    return (low + (actions.astype(np.float64) + 1) / 2 * (high - low)).astype(np.float32)
