"""The episodes of a Minari data set, read from its HDF5 file. Needs h5py: pip install -e '.[minari]'.

    FOLDER/data/metadata.json     {"data_format": "hdf5", "total_episodes": 25, ...}
    FOLDER/data/main_data.hdf5    episode_0/observations (T+1, Do)  actions (T, Da)  rewards (T,)  infos/success (T+1,) or (T,)

`infos` may hold what the task's rule judges, or a flag: the environment's own, or one called like the rule (`return>=90.0`), as this package writes.

Read without Minari itself, which would make the environment that the data set names, and with it import whatever module it names.
Nothing is downloaded: `minari download ID` does that. The file is read as one that may be anybody's (`hdf5_group.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from reconverge.envs.errors import UnsupportedEnvironment
from reconverge.envs.expert_source import MissingExpert, minari_folder
from reconverge.envs.gym_name import rule_of
from reconverge.envs.hdf5_group import GuardedGroup, opened
from reconverge.envs.plain_json import read_json_object
from reconverge.envs.recording import Recording
from reconverge.envs.success_rule import RETURN, SUCCESS_KEYS, SuccessRule
from reconverge.envs.task import Task


def minari_episodes(place: str, task: Task) -> Iterator[Recording]:
    """The data set's episodes in order. Raises UnsupportedEnvironment, MissingExpert or DamagedFile, naming the place."""
    folder = _data_folder(place)
    rule = rule_of(task.name)
    with opened(folder / "main_data.hdf5", f"minari:{place}", "download it again: minari download ID") as file:
        numbers = sorted(int(found[1]) for name in file.names if (found := re.fullmatch(r"episode_(\d{1,9})", name, re.ASCII)))
        for number in numbers:
            yield _recording(file.group(f"episode_{number}"), number, rule)


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


def _recording(episode: GuardedGroup, number: int, rule: SuccessRule | None) -> Recording:
    actions = episode.array("actions")
    steps = len(actions)
    return Recording(number, episode.array("observations", steps, one_more=True), actions, _success(episode, steps, rule))


def _success(episode: GuardedGroup, steps: int, rule: SuccessRule | None) -> np.ndarray | None:
    """Per step, (T,) bool: by the task's rule where what it judges was recorded, else by a recorded flag; None where the data do not say."""
    wanted = SUCCESS_KEYS if rule is None else (str(rule), rule.quantity, *SUCCESS_KEYS)
    key = next((key for key in wanted if f"infos/{key}" in episode), None)
    if rule is not None and rule.quantity == RETURN and key != str(rule):
        return rule.over_rewards(episode.numbers("rewards", steps)[:, 0])
    if key is None:
        return None
    values = episode.numbers(f"infos/{key}", steps, one_more=True)[:, 0]
    judge = rule if rule is not None and key == rule.quantity else SuccessRule(key)
    return np.array([judge.holds({key: value}, 0.0, False) for value in values[len(values) - steps :]], bool)  # the first of T + 1 is the reset's
