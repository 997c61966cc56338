"""Libraries that only some commands need, each installed by an extra of this package.

    optional_library("h5py", "--format hdf5", "hdf5")     the module, or: --format hdf5 needs h5py; install it with: pip install -e '.[hdf5]' ...
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from reconverge.envs.errors import MissingLibrary


def optional_library(module: str, asked_by: str, extra: str) -> Any:
    """An optional module. Raises MissingLibrary, which names who asked, what is missing (perhaps a library that it needs itself) and the extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingLibrary(asked_by, [(error.name or module).partition(".")[0]], extra) from error


def need_libraries(names: Sequence[str], asked_by: str, extra: str) -> None:
    """Raise MissingLibrary unless all of them are there; nothing is imported."""
    if missing := [name for name in names if find_spec(name) is None]:
        raise MissingLibrary(asked_by, missing, extra)
