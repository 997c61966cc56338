"""Torch generators that are a pure function of (seed, stage, update, purpose).

Draws are made on the CPU and moved, so that a GPU run sees the same numbers as a CPU run. Of a key torch's CPU generator takes the low 32 bits:
among the 170,000 streams of a CW10 run some five pairs, for purposes that have nothing to do with each other, draw the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from reconverge.envs.seeding import Word, stream_key


def torch_stream(*words: Word) -> torch.Generator:
    """A fresh CPU generator for the given words."""
    return torch.Generator().manual_seed(stream_key(*words))


@contextmanager
def seeded_initialisation(*words: Word) -> Iterator[None]:
    """Make layers inside, on the CPU, with weights that depend on the words only: torch initialises from its global generator alone, whose
    state is put back afterwards. Those of other devices are not touched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_key(*words))
        yield


@dataclass(frozen=True)
class RandomStreams:
    """The streams of one stage of one run."""

    seed: int
    stage: int

    def generator(self, purpose: str, update: int = 0) -> torch.Generator:
        """A fresh CPU generator for a purpose in this stage, at an update (from 1 on; 0: for what is drawn once a stage). The same words give the
        same draws: two purposes that are not to share their noise need two names."""
        return torch_stream("learning", self.seed, self.stage, update, purpose)
