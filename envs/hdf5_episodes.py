"""The demonstrations in an HDF5 file of robomimic's layout. Needs h5py: pip install 'reconverge[hdf5]'.

    data/demo_0/obs/KEY (T, d) or (T,)    next_obs/KEY    actions (T, Da)    rewards (T,)    dones (T,)    success (T,)
    data/demo_1/...

An observation is the KEYs that the stage names, end to end in that order; a file of one key needs no name. Where `next_obs` holds them too it
gives the last observation; without it the last action of every demonstration is left out (`recorded_episodes.py`).

`success` is what this package writes; robomimic's own files have none, and every demonstration counts as a success then. `dones` does not tell:
it is 1 at a success in some files, at the end in others, at either in most. Nor do `rewards`, unless the task's rule is about their sum.

The file may be anybody's: what it links to outside itself, and arrays beyond MOST_NUMBERS, are not opened.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from reconverge.envs.errors import DamagedFile, ReconvergeError, UnsupportedEnvironment, shown
from reconverge.envs.expert_source import file_and_keys
from reconverge.envs.gym_name import GYM_PREFIX, read_gym_name
from reconverge.envs.recording import Recording
from reconverge.envs.success_rule import RETURN, SuccessRule
from reconverge.envs.task import Task

MOST_NUMBERS = 2**27
"""Of one array of a demonstration: a gigabyte in float64. A small compressed file can claim any size."""


def hdf5_episodes(place: str, task: Task) -> Iterator[Recording]:
    """The file's demonstrations in order of their numbers. Raises UnsupportedEnvironment or DamagedFile, naming file and demonstration."""
    try:
        h5py: Any = importlib.import_module("h5py")
    except ImportError as error:
        raise UnsupportedEnvironment(f"'hdf5:{place}' needs h5py, which is not installed: pip install 'reconverge[hdf5]'") from error
    path, keys = file_and_keys(place)
    rule = read_gym_name(task.name).success if task.name.startswith(GYM_PREFIX) else None
    try:
        with h5py.File(path, "r") as file:
            data = _Group(h5py, file, str(path)).group("data")
            numbers = sorted(int(found[1]) for name in data.names if (found := re.fullmatch(r"demo_(\d{1,9})", name, re.ASCII)))
            if not numbers:
                raise UnsupportedEnvironment(f"{data.place} holds no demo_0, demo_1, ...; a file in robomimic's layout is needed")
            for number in numbers:
                yield _recording(data.group(f"demo_{number}"), number, keys, rule)
    # h5py's own errors are of all these kinds.
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        if isinstance(error, ReconvergeError):
            raise
        raise DamagedFile(f"'hdf5:{place}' cannot be read ({str(error)[:200]}); restore the file") from error


class _Group:
    """A group of a file, whose members are looked at before they are opened."""

    def __init__(self, h5py: Any, group: Any, place: str) -> None:
        self._h5py, self._group, self.place = h5py, group, place
        self.names = list(group)

    def group(self, name: str) -> _Group:
        found = self._member(name)
        if not isinstance(found, self._h5py.Group):
            raise DamagedFile(f"{self.place}/{name} is no group; a file in robomimic's layout is needed")
        return _Group(self._h5py, found, f"{self.place}/{name}")

    def numbers(self, name: str, rows: int | None = None) -> np.ndarray:
        """An array as float64, (T, d); a column of (T,) numbers is (T, 1)."""
        found, where = self._member(name), f"{self.place}/{name}"
        if not isinstance(found, self._h5py.Dataset) or found.dtype.kind not in "fiub":
            raise UnsupportedEnvironment(f"{where} is no array of numbers; name another key")
        if found.ndim not in (1, 2):
            raise UnsupportedEnvironment(f"{where} has the shape {found.shape}; (steps, numbers) is needed: images and point clouds are not read")
        if found.is_virtual or found.external or found.size > MOST_NUMBERS:
            raise DamagedFile(f"{where} claims {found.size} numbers, or keeps them in other files; such arrays are not read")
        if rows is not None and len(found) != rows:
            raise DamagedFile(f"{where} has {len(found)} rows, and the demonstration has {rows} actions; restore the file")
        values = np.asarray(found[()], np.float64)
        return values[:, None] if values.ndim == 1 else values

    def _member(self, name: str) -> Any:
        if name not in self.names:
            known = ", ".join(sorted(self.names)[:12])
            raise UnsupportedEnvironment(f"{self.place} has no {shown(name)}; it holds {known or 'nothing'}")
        if not isinstance(self._group.get(name, getlink=True), self._h5py.HardLink):
            raise DamagedFile(f"{self.place}/{name} is a link to elsewhere; copy the array into the file")
        return self._group[name]


def _recording(demo: _Group, number: int, keys: tuple[str, ...], rule: SuccessRule | None) -> Recording:
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


def _success(demo: _Group, steps: int, rule: SuccessRule | None) -> np.ndarray | None:
    """Per step, (T,) bool: by the task's rule where what it judges was recorded, else as `success` says; None where the data do not say."""
    if rule is not None and rule.quantity == RETURN:
        total = np.cumsum(demo.numbers("rewards", steps)[:, 0])
        return np.array([rule.holds({}, total[step], step == steps - 1) for step in range(steps)], bool)
    if rule is not None and rule.quantity in demo.names:
        values = demo.numbers(rule.quantity, steps)[:, 0]
        return np.array([rule.holds({rule.quantity: value}, 0.0, False) for value in values], bool)
    return demo.numbers("success", steps)[:, 0] > 0 if "success" in demo.names else None
