"""An HDF5 file that may be anybody's: each member is looked at before it is opened. Needs h5py.

    links                            refused: they can lead out of the file
    virtual arrays, external ones    refused: their numbers lie in other files
    beyond MOST_NUMBERS              refused unread: a small compressed file can claim any size
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from reconverge.envs.errors import DamagedFile, ReconvergeError, UnsupportedEnvironment, shown
from reconverge.envs.optional_library import optional_library

MOST_NUMBERS = 2**27
"""Of one array: a gigabyte in float64."""


@contextlib.contextmanager
def opened(path: Path, source: str, fix: str) -> Iterator[GuardedGroup]:
    """The file's outermost group. Raises MissingLibrary without h5py; what h5py raises becomes a DamagedFile that names source and fix."""
    h5py = optional_library("h5py", f"'{source}'", source.partition(":")[0])
    try:
        with h5py.File(path, "r") as file:
            yield GuardedGroup(h5py, file, str(path))
    # h5py's own errors are of all these kinds.
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        if isinstance(error, ReconvergeError):
            raise
        raise DamagedFile(f"'{source}' cannot be read ({str(error)[:200]}); {fix}") from error


class GuardedGroup:
    """A group of a file. A member further inside is named by its path, `reward/forward`."""

    def __init__(self, h5py: Any, group: Any, place: str) -> None:
        self._h5py, self._group, self.place = h5py, group, place
        self.names = frozenset(group)

    def __contains__(self, path: str) -> bool:
        first, _, rest = path.partition("/")
        return first in self.names and (not rest or rest in self.group(first))

    def group(self, path: str) -> GuardedGroup:
        found, where = self._member(path), f"{self.place}/{path}"
        if not isinstance(found, self._h5py.Group):
            raise DamagedFile(f"{where} is no group of arrays, which this layout has there; restore the file")
        return GuardedGroup(self._h5py, found, where)

    def array(self, path: str, rows: int | None = None, one_more: bool = False) -> np.ndarray:
        """An array as float64, (T,) or (T, d), of as many rows as are asked for, or also of one more."""
        found, where = self._member(path), f"{self.place}/{path}"
        if not isinstance(found, self._h5py.Dataset) or found.dtype.kind not in "fiub":
            raise UnsupportedEnvironment(f"{where} is no array of numbers; name another key or data set")
        if found.ndim not in (1, 2):
            raise UnsupportedEnvironment(f"{where} has the shape {found.shape}; (steps, numbers) is needed: images and point clouds are not read")
        if found.is_virtual or found.external or found.size > MOST_NUMBERS:
            raise DamagedFile(f"{where} claims {found.size} numbers, or keeps them in other files; such arrays are not read")
        if rows is not None and len(found) not in (rows, rows + one_more):
            raise DamagedFile(f"{where} has {len(found)} rows, and the demonstration has {rows} actions; restore the file")
        return np.asarray(found[()], np.float64)

    def numbers(self, path: str, rows: int | None = None, one_more: bool = False) -> np.ndarray:
        """The same as (T, d); a column of (T,) numbers is (T, 1)."""
        values = self.array(path, rows, one_more)
        return values[:, None] if values.ndim == 1 else values

    def _member(self, path: str) -> Any:
        first, _, rest = path.partition("/")
        if rest:
            return self.group(first)._member(rest)
        if path not in self.names:
            known = ", ".join(sorted(self.names)[:12])
            raise UnsupportedEnvironment(f"{self.place} has no {shown(path)}; it holds {known or 'nothing'}")
        if not isinstance(self._group.get(path, getlink=True), self._h5py.HardLink):
            raise DamagedFile(f"{self.place}/{path} is a link to elsewhere; copy what it leads to into the file")
        return self._group[path]
