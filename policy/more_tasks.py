"""What is remembered over a network's weights, laid out for a network that knows more tasks.

A network is told its task as a one-hot vector, so one that knows more tasks has more columns where it reads that:

    two tasks     read.weight    chunk | time | observations | 1 2
    four                         chunk | time | observations | 1 2 0 0

Until a task is trained, its column is multiplied by zero in every window: it has no gradient, hence no moment, no Fisher and no importance.
So a column of zeros is what every vector over the weights has there, and on the tasks that it has learned the wider network computes what
the narrower one did.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Shape = tuple[int, ...]
NEW = -1
"""The place of a number that is new: the last one, where `laid_out` appends a zero."""


def grown(array: np.ndarray, shape: Shape, behind: int = 0, filled: float = 0) -> np.ndarray:
    """`array` with entries `filled` ahead of the last `behind` ones of the axis in which `shape` is longer; as it is where none is."""
    for axis, (length, wanted) in enumerate(zip(array.shape, shape, strict=True)):
        array = np.insert(array, [length - behind] * (wanted - length), filled, axis=axis) if wanted > length else array
    return array


def places_of(narrow: Mapping[str, Shape], wide: Mapping[str, Shape]) -> np.ndarray:
    """(P',) where each number of a flat vector over the `wide` network's weights lies in that (P,) over the `narrow` one's, or NEW.

    Both give the weights' shapes by name, in the order of the vector; new columns are the last ones.
    """
    pieces, begin = [], 0
    for name, shape in narrow.items():
        piece = begin + np.arange(np.prod(shape, dtype=int)).reshape(shape)
        pieces.append(grown(piece, wide[name], filled=NEW).ravel())
        begin += piece.size
    return np.concatenate(pieces)


def laid_out(vectors: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(..., P) over the narrow network's weights -> (..., P') over the wide one's, with zeros where they are new."""
    return np.ascontiguousarray(np.concatenate([vectors, np.zeros_like(vectors[..., :1])], axis=-1)[..., places])
