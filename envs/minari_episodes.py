"""The episodes of a Minari data set, read from its HDF5 file. Needs h5py: pip install 'reconverge[minari]'.

    FOLDER/data/metadata.json     {"data_format": "hdf5", "total_episodes": 25, ...}
    FOLDER/data/main_data.hdf5    episode_0/observations (T+1, Do)  actions (T, Da)  rewards (T,)  infos/success (T+1,) or (T,)

Read without Minari itself, which would make the environment that the data set names, and with it import whatever module it names.
Nothing is downloaded: `minari download ID` does that.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from reconverge.envs.errors import DamagedFile, UnsupportedEnvironment
from reconverge.envs.expert_source import MissingExpert, minari_folder
from reconverge.envs.gym_name import GYM_PREFIX, read_gym_name
from reconverge.envs.plain_json import read_json_object
from reconverge.envs.recording import Recording
from reconverge.envs.success_rule import RETURN, SuccessRule
from reconverge.envs.task import Task

SUCCESS_KEYS = ("success", "is_success")


def minari_episodes(place: str, task: Task) -> Iterator[Recording]:
    """The data set's episodes in order. Raises UnsupportedEnvironment, MissingExpert or DamagedFile, naming the place."""
    try:
        h5py: Any = importlib.import_module("h5py")
    except ImportError as error:
        raise UnsupportedEnvironment(f"'minari:{place}' needs h5py, which is not installed: pip install 'reconverge[minari]'") from error
    folder = _data_folder(place)
    rule = read_gym_name(task.name).success if task.name.startswith(GYM_PREFIX) else None
    try:
        with h5py.File(folder / "main_data.hdf5", "r") as file:
            numbers = sorted(int(found[1]) for name in file if (found := re.fullmatch(r"episode_(\d{1,9})", name, re.ASCII)))
            for number in numbers:
                yield _recording(file[f"episode_{number}"], number, rule, place)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise DamagedFile(f"'minari:{place}' cannot be read ({str(error)[:200]}); download it again: minari download ID") from error


def _data_folder(place: str) -> Path:
    """The folder that holds the files, with or without `data` below the one that was given."""
    folder = minari_folder(place)
    folder = folder / "data" if (folder / "data").is_dir() else folder
    try:
        kind = read_json_object(folder / "metadata.json").get("data_format")
    except OSError as error:
        raise MissingExpert(f"'minari:{place}': {folder} holds no metadata.json; download the data set first: minari download ID") from error
    if kind != "hdf5":
        raise UnsupportedEnvironment(f"'minari:{place}' is kept as {str(kind)[:40]!r}; only hdf5 is read here")
    return folder


def _recording(episode: Any, number: int, rule: SuccessRule | None, place: str) -> Recording:
    for name in ("observations", "actions"):
        if not hasattr(episode[name], "dtype"):
            raise UnsupportedEnvironment(f"'minari:{place}', episode {number}: its {name} are a mapping of several; a plain array is needed")
    observations, actions = (np.asarray(episode[name], np.float64) for name in ("observations", "actions"))
    return Recording(number, observations, actions, _success(episode, len(actions), rule))


def _success(episode: Any, steps: int, rule: SuccessRule | None) -> np.ndarray | None:
    """Per step, (T,) bool, by the rule of the task or by the flag that was recorded; None where the data do not say."""
    if rule is not None and rule.quantity == RETURN:
        total = np.cumsum(np.asarray(episode["rewards"], np.float64))
        return np.array([rule.holds({}, total[step], step == steps - 1) for step in range(steps)])
    infos = episode.get("infos", {})
    wanted = SUCCESS_KEYS if rule is None else (rule.quantity,)
    key = next((key for key in wanted if key in infos), None)
    if key is None:
        return None
    values = np.asarray(infos[key]).reshape(-1)[-steps:]  # the first of T + 1 is the reset's
    judge = rule or SuccessRule(key)
    return np.array([judge.holds({key: value}, 0.0, False) for value in values])
