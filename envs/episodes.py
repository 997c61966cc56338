"""Episodes and their store.

    step          0    1    2   ...  T-1   T
    observation   o0   o1   o2       ...   oT      one more than actions
    action        a0   a1   a2  ...  aT-1
    success            s0   s1       ...   sT-1    success[t] is reported by the step that took actions[t]

A store holds the episodes of one task end to end in three arrays, beside an index of their seeds and lengths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reconverge.envs.artifact import Artifact, write_artifact
from reconverge.envs.errors import DamagedFile, shown
from reconverge.envs.seeding import Word, stream_key

ARRAYS, INDEX = "episodes.safetensors", "episodes.json"


@dataclass(frozen=True)
class Episode:
    """What happened in one episode of T steps.

    Attributes:
        task: name of the task.
        seed: episode seed; with the actions it determines everything else.
        observations: (T + 1, Do) float32.
        actions: (T, Da) float32, in [-1, 1].
        success: (T,) bool.
    """

    task: str
    seed: int
    observations: np.ndarray
    actions: np.ndarray
    success: np.ndarray


def episode_seed(*words: Word) -> int:
    """An episode seed for the given words, in [0, 2^31): small enough for every simulator's own seeding."""
    return stream_key(*words) >> 32


class EpisodeStore:
    """A folder that holds episodes of one task and whatever facts about them the caller adds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, episodes: Sequence[Episode], facts: Mapping[str, Any]) -> None:
        """Write all episodes and facts (JSON values) in one atomic replacement."""
        index = {"facts": dict(facts), "episodes": [{"task": e.task, "seed": e.seed, "steps": len(e.actions)} for e in episodes]}
        write_artifact(self.folder, {ARRAYS: _stacked(episodes), INDEX: index})

    def read(self) -> tuple[list[Episode], dict[str, Any]]:
        """The episodes and the facts; raises DamagedFile unless every byte is as it was written, and the episodes are some."""
        artifact = Artifact(self.folder)
        arrays, index = artifact.arrays(ARRAYS), artifact.json(INDEX)
        try:
            rows, facts = list(index["episodes"]), dict(index["facts"])
            _check(arrays, rows)
            return _split(arrays, rows), facts
        except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
            raise DamagedFile(f"{self.folder} does not hold episodes ({str(error)[:200]}); delete the folder and collect again") from error


def _stacked(episodes: Sequence[Episode]) -> dict[str, np.ndarray]:
    if not episodes:
        return {}
    return {
        "observations": np.concatenate([e.observations for e in episodes]),
        "actions": np.concatenate([e.actions for e in episodes]),
        "success": np.concatenate([e.success for e in episodes]).astype(np.uint8),
    }


def _check(arrays: Mapping[str, np.ndarray], rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise ValueError or KeyError unless the arrays hold exactly the episodes that the index lists, in finite numbers."""
    for row in rows:
        sound = isinstance(row["task"], str) and type(row["seed"]) is int and type(row["steps"]) is int
        if not sound or row["steps"] < 1 or not 0 <= row["seed"] < 2**63:
            raise ValueError(f"an episode is {shown(row)}")
    if not rows and not arrays:
        return
    observations, actions, success = (arrays[name] for name in ("observations", "actions", "success"))
    steps = sum(row["steps"] for row in rows)
    if (observations.ndim, actions.ndim, success.shape) != (2, 2, (steps,)) or len(actions) != steps or len(observations) != steps + len(rows):
        raise ValueError(f"{len(rows)} episodes of {steps} steps are listed; the arrays have other lengths")
    if observations.dtype.kind != "f" or actions.dtype.kind != "f" or not (np.isfinite(observations).all() and np.isfinite(actions).all()):
        raise ValueError("an observation or an action is not a finite number")


def _split(arrays: Mapping[str, np.ndarray], rows: Sequence[Mapping[str, Any]]) -> list[Episode]:
    episodes, start = [], 0
    for number, row in enumerate(rows):
        stop, first = start + row["steps"], start + number
        observations = arrays["observations"][first : stop + number + 1]
        episodes.append(Episode(row["task"], row["seed"], observations, arrays["actions"][start:stop], arrays["success"][start:stop].astype(bool)))
        start = stop
    return episodes
