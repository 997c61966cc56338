"""Arrays from bytes that may be hostile: a safetensors file, whose header is bounded before the library sees it.

    [ 8 bytes: length of the header | header: JSON of names, types, shapes, places | numbers ]

The library checks that the places tile the numbers without gap or overlap; what it is spared here is a header that claims 2^63
bytes, or lists a million tensors. There is no code in such a file, whatever its name: a pickle is not one.
"""

from __future__ import annotations

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from reconverge.envs.bounded_file import MIB
from reconverge.envs.errors import DamagedFile

LARGEST_HEADER = 2 * MIB
"""About 20,000 tensors; the largest checkpoint has a few hundred."""


def parse_arrays(data: bytes, place: str) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file by name; `place` says in messages where it was read. Raises DamagedFile for anything else."""
    header = int.from_bytes(data[:8], "little")
    if len(data) < 8 or header > len(data) - 8:
        raise DamagedFile(f"{place} is not a safetensors file, or a truncated one; delete it and redo it")
    if header > LARGEST_HEADER:
        raise DamagedFile(f"{place} has a header of {header} bytes, more than any file of ours; delete it and redo it")
    try:
        return dict(load(data))
    # KeyError: a type of number that NumPy does not have. The others: shapes that NumPy cannot hold.
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise DamagedFile(f"{place} is not a safetensors file that can be read ({str(error)[:200]}); delete it and redo it") from error
