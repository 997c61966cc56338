"""Random streams that are a pure function of what they are for.

    key = BLAKE2b-64 of the words, e.g. ("episode", "hammer-v3", 1017)

Nothing in the project draws from a global generator: resuming, re-ordering or distributing the work
cannot change a single draw, and two methods with the same seed that draw batches of the same sizes meet the same ones.
"""

from __future__ import annotations

import hashlib
import operator

import numpy as np

Word = str | int


def stream_key(*words: Word) -> int:
    """A 63-bit key for the given words; the type and the boundaries of the words count.

    >>> stream_key("noise", 1, 23) == stream_key("noise", 12, 3)
    False
    """
    digest = hashlib.blake2b(digest_size=8)
    for word in words:
        if not isinstance(word, (str, int)):
            word = operator.index(word)  # NumPy's 3 is 3
        digest.update(f"{type(word).__name__}:{word}\x1f".encode())
    return int.from_bytes(digest.digest(), "little") >> 1


def next_episode(generator: np.random.Generator) -> int:
    """The seed of one more episode for who resets without naming one, as training loops for Gymnasium do: a draw in [0, 2^31)."""
    return int(generator.integers(2**31))


def numpy_stream(*words: Word) -> np.random.Generator:
    """A fresh NumPy generator for the given words."""
    return np.random.Generator(np.random.Philox(key=stream_key(*words)))
