"""Demonstrations as HDF5 files in robomimic's layout, one per task. Needs h5py: pip install -e '.[hdf5]'.

    FOLDER/hammer-v3.hdf5    data (total, env_args)    demo_0 (num_samples, seed)    obs/state (T, Do)    next_obs/state (T, Do)
                                                                                     actions (T, Da)      rewards, dones, success (T,)

Actions are in the simulator's own units. A reward is 1 in a step that reports success and 0 in any other; `dones` is 1 at those and at the last
step. `success` and `seed` are not robomimic's: they bring the episodes back whole (`envs/hdf5_episodes.py`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reconverge.envs.demonstrations import Demonstrations
from reconverge.envs.episodes import Episode
from reconverge.envs.optional_library import optional_library
from reconverge.envs.task import Task
from reconverge.envs.task_files import task_file
from reconverge.launch.demonstration_folder import new_folder, own_actions

OBSERVATION = "state"
GYM_TYPE = 2
"""What robomimic calls an environment that is made by gym."""


def write_hdf5(found: Sequence[Demonstrations], folder: Path) -> list[Path]:
    """The files. Raises MissingLibrary without h5py, RunFolderError where `folder` holds something."""
    h5py = optional_library("h5py", "--format hdf5", "hdf5")
    names = [f"{task_file(of_task.task.name)}.hdf5" for of_task in found]
    with new_folder(folder) as draft:
        for name, of_task in zip(names, found, strict=True):
            with h5py.File(draft / name, "w") as file:
                data = file.create_group("data")
                data.attrs["total"] = sum(len(episode.actions) for episode in of_task.episodes)
                data.attrs["env_args"] = json.dumps({"env_name": of_task.task.name, "env_type": GYM_TYPE, "env_kwargs": {}})
                for number, episode in enumerate(of_task.episodes):
                    _write(data.create_group(f"demo_{number}"), of_task.task, episode)
    return [folder / name for name in names]


def _write(demo: Any, task: Task, episode: Episode) -> None:
    steps = len(episode.actions)
    demo.attrs["num_samples"], demo.attrs["seed"] = steps, episode.seed
    demo[f"obs/{OBSERVATION}"] = episode.observations[:-1].astype(np.float32)
    demo[f"next_obs/{OBSERVATION}"] = episode.observations[1:].astype(np.float32)
    demo["actions"] = own_actions(task, episode.actions)
    demo["rewards"] = episode.success.astype(np.float64)
    demo["dones"] = (episode.success | (np.arange(steps) == steps - 1)).astype(np.int64)
    demo["success"] = episode.success.astype(np.uint8)
