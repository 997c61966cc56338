"""The demonstrations in an HDF5 file of robomimic's layout. Needs h5py: pip install -e '.[hdf5]'.

    data/demo_0/obs/KEY (T, d) or (T,)    next_obs/KEY    actions (T, Da)    rewards (T,)    dones (T,)    success (T,)
    data/demo_1/...

An observation is the KEYs that the stage names, end to end in that order; a file of one key needs no name. Where `next_obs` holds them too it
gives the last observation; without it the last action of every demonstration is left out (`recorded_episodes.py`).

`success` is what this package writes; robomimic's own files have none, and every demonstration counts as a success then. `dones` does not tell:
it is 1 at a success in some files, at the end in others, at either in most. Nor do `rewards`, unless the task's rule is about their sum.

The file may be anybody's, and is read as such (`hdf5_group.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from reconverge.envs.errors import UnsupportedEnvironment
from reconverge.envs.expert_source import file_and_keys
from reconverge.envs.gym_name import rule_of
from reconverge.envs.hdf5_group import GuardedGroup, opened
from reconverge.envs.recording import Recording
from reconverge.envs.success_rule import RETURN, SuccessRule
from reconverge.envs.task import Task


def hdf5_episodes(place: str, task: Task) -> Iterator[Recording]:
    """The file's demonstrations in order of their numbers. Raises UnsupportedEnvironment or DamagedFile, naming file and demonstration."""
    path, keys = file_and_keys(place)
    rule = rule_of(task.name)
    with opened(path, f"hdf5:{place}", "restore the file") as file:
        data = file.group("data")
        numbers = sorted(int(found[1]) for name in data.names if (found := re.fullmatch(r"demo_(\d{1,9})", name, re.ASCII)))
        if not numbers:
            raise UnsupportedEnvironment(f"{data.place} holds no demo_0, demo_1, ...; a file in robomimic's layout is needed")
        for number in numbers:
            yield _recording(data.group(f"demo_{number}"), number, keys, rule)


def _recording(demo: GuardedGroup, number: int, keys: tuple[str, ...], rule: SuccessRule | None) -> Recording:
    actions = demo.numbers("actions")
    steps, seen = len(actions), demo.group("obs")
    if not keys and len(seen.names) != 1:
        raise UnsupportedEnvironment(f"{seen.place} holds {', '.join(sorted(seen.names)[:12])}; say which to put end to end: hdf5:FILE#KEY,KEY")
    wanted = keys or tuple(seen.names)
    observations = np.concatenate([seen.numbers(key, steps) for key in wanted], axis=1)
    if "next_obs" in demo.names and steps:
        following = demo.group("next_obs")
        if set(wanted) <= set(following.names):
            last = np.concatenate([following.numbers(key, steps)[-1:] for key in wanted], axis=1)
            observations = np.concatenate([observations, last])
    if "dones" in demo.names:
        demo.numbers("dones", steps)  # read for its length alone
    return Recording(number, observations, actions, _success(demo, steps, rule))


def _success(demo: GuardedGroup, steps: int, rule: SuccessRule | None) -> np.ndarray | None:
    """Per step, (T,) bool: by the task's rule where what it judges was recorded, else as `success` says; None where the data do not say."""
    if rule is not None and rule.quantity == RETURN:
        return rule.over_rewards(demo.numbers("rewards", steps)[:, 0])
    if rule is not None and rule.quantity in demo:  # also in a group of its own, as to/goal
        values = demo.numbers(rule.quantity, steps)[:, 0]
        return np.array([rule.holds({rule.quantity: value}, 0.0, False) for value in values], bool)
    return demo.numbers("success", steps)[:, 0] > 0 if "success" in demo.names else None
