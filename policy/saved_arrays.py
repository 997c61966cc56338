"""Arrays that come from a file, checked before they become parameters: names, shapes, type of number, and that each is a number.

A file that is whole may still belong to another network, or hold the weights of a run that diverged; torch would say the first
in a traceback of a page, and the second never.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from reconverge.envs.errors import DamagedFile

Shape = tuple[int | None, ...]
"""None stands for any length."""


def take(arrays: Mapping[str, np.ndarray], name: str, shape: Shape, place: str) -> Tensor:
    """The finite floating-point array `name`; `place` says in messages where it was read.

    Raises DamagedFile where it is missing, has another shape or type, or holds a number that is not finite.
    """
    if name not in arrays:
        raise DamagedFile(f"{place} lacks the array '{name}'; it was written for another network or method, redo it")
    array = arrays[name]
    _check(name, array, shape, place)
    if array.dtype.kind != "f":
        raise DamagedFile(f"{place}: '{name}' holds {array.dtype} numbers; floating-point ones were expected, redo it")
    return torch.from_numpy(array)


def fill(module: nn.Module, arrays: Mapping[str, np.ndarray], place: str) -> None:
    """Set all parameters and buffers of a module. Raises DamagedFile, before any changes, unless the arrays are exactly those."""
    check_fit(arrays, {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in module.state_dict().items()}, place)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})


def check_fit(arrays: Mapping[str, np.ndarray], expected: Mapping[str, tuple[Shape, torch.dtype]], place: str) -> None:
    """Raise DamagedFile unless the arrays have exactly the expected names, shapes and types, and are finite."""
    if missing := expected.keys() - arrays.keys():
        raise DamagedFile(f"{place} lacks {_named(missing)}; it was written for another network, redo it")
    if extra := arrays.keys() - expected.keys():
        raise DamagedFile(f"{place} holds {_named(extra)}, which no part of the network takes; it was written for another one, redo it")
    for name, (shape, dtype) in expected.items():
        _check(name, arrays[name], shape, place)
        if str(arrays[name].dtype) != str(dtype).removeprefix("torch."):
            raise DamagedFile(f"{place}: '{name}' holds {arrays[name].dtype} numbers; {str(dtype).removeprefix('torch.')} was expected, redo it")


def _check(name: str, array: np.ndarray, shape: Shape, place: str) -> None:
    fits = len(shape) == array.ndim and all(wanted in (None, found) for wanted, found in zip(shape, array.shape, strict=True))
    if not fits:
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise DamagedFile(f"{place}: '{name}' has the shape {array.shape}; ({wanted}) was expected. It was written for another network, redo it")
    if not np.isfinite(array).all():
        raise DamagedFile(f"{place}: '{name}' holds a number that is not finite; the run diverged, go back to an earlier checkpoint")


def _named(names: Collection[str], limit: int = 3) -> str:
    shown = ", ".join(f"'{name[:80]}'" for name in sorted(names)[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
