"""Demonstrations as Minari data sets, one per task. Needs Minari: pip install -e '.[minari]'.

    FOLDER/reconverge/hammer-v3-expert-v0/data/    set MINARI_DATASETS_PATH=FOLDER, then minari.load_dataset("reconverge/hammer-v3-expert-v0")

An episode's reward is 1 in a step that reports success and 0 in any other; `infos["success"]` has the reset's entry in front, as Minari wants it.
Where the task succeeds by its return, which such rewards do not add up to, the same flags stand under the rule too: `infos["return>=90.0"]`.
"""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reconverge.envs.demonstrations import Demonstrations
from reconverge.envs.episodes import Episode
from reconverge.envs.gym_name import rule_of
from reconverge.envs.optional_library import optional_library
from reconverge.envs.success_rule import RETURN
from reconverge.envs.task import Task
from reconverge.envs.task_files import task_file
from reconverge.launch.demonstration_folder import new_folder, own_actions


def write_minari(found: Sequence[Demonstrations], folder: Path) -> list[str]:
    """The ids of the data sets. Raises MissingLibrary without Minari, RunFolderError where `folder` holds something."""
    minari = optional_library("minari", "--format minari", "minari")
    buffer = optional_library("minari.data_collector", "--format minari", "minari").EpisodeBuffer
    ids = [minari_id(of_task.task) for of_task in found]
    with new_folder(folder) as draft, _datasets_in(draft), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the environment, author and scores that are not named
        for name, of_task in zip(ids, found, strict=True):
            episodes = [buffer(id=number, **_contents(of_task.task, episode)) for number, episode in enumerate(of_task.episodes)]
            minari.create_dataset_from_buffers(
                name, episodes, action_space=_action_space(of_task.task), observation_space=_observation_space(of_task.task),
                algorithm_name="expert", data_format="hdf5",
                description=f"{of_task.task.name}: {of_task.task.success}. The {of_task.successes} successes of {of_task.attempts} attempts.",
            )  # fmt: skip
    return ids


def minari_id(task: Task) -> str:
    """The data set of a task. Minari's names have letters, digits, `-` and `_` only, so `_` stands for the `%` of `task_file`: `gym_3AReach-v0`."""
    marked = re.sub("[_.~]", lambda mark: f"%{ord(mark[0]):02X}", task_file(task.name))
    return f"reconverge/{marked.replace('%', '_')}-expert-v0"


def _contents(task: Task, episode: Episode) -> dict[str, Any]:
    steps = len(episode.actions)
    last = [step == steps - 1 for step in range(steps)]
    rule = rule_of(task.name)
    names = ("success", str(rule)) if rule is not None and rule.quantity == RETURN else ("success",)
    return {
        "seed": episode.seed, "observations": episode.observations.astype(np.float32), "actions": own_actions(task, episode.actions),
        "rewards": episode.success.astype(float).tolist(), "terminations": [False] * steps, "truncations": last,
        "infos": {name: np.concatenate([[False], episode.success.astype(bool)]) for name in names},
    }  # fmt: skip


def _observation_space(task: Task) -> Any:
    from gymnasium.spaces import Box

    return Box(-np.inf, np.inf, (task.observation_size,), np.float32)


def _action_space(task: Task) -> Any:
    from gymnasium.spaces import Box

    low, high = task.action_bounds or ((-1.0,) * task.action_size, (1.0,) * task.action_size)
    return Box(np.asarray(low, np.float32), np.asarray(high, np.float32), dtype=np.float32)


@contextlib.contextmanager
def _datasets_in(folder: Path) -> Iterator[None]:
    """Minari takes the place of its data sets from the environment only."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(folder.resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before
