"""What a collection of demonstrations holds: lengths, ranges, and entries that carry nothing of their own.

    steps                  of every episode, the kept ones after the first success among them
    action      (Da)       range, and the share that lies at the bounds -1 and 1
    observation (Do)       range; constant in all episodes, constant within each (a goal), or the same as an earlier entry
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from reconverge.envs.episodes import Episode

AT_BOUND = 0.999
"""An action at least this large counts as one at the bounds."""
SAME = 1e-6
"""Entries that differ by no more than this share of their range everywhere are the same."""

Kind = Literal["varies", "goal", "constant", "repeats"]


@dataclass(frozen=True)
class Entry:
    """One number of an observation or an action, over all steps of all episodes.

    Attributes:
        kind: `constant` in all episodes, constant within each but not across them (`goal`), the same as an earlier entry (`repeats`), or `varies`.
        repeats: that earlier entry.
        at_bounds: share of the values at -1 or 1; of actions only, 0 for observations.
    """

    low: float
    high: float
    mean: float
    spread: float
    kind: Kind
    repeats: int | None = None
    at_bounds: float = 0.0


@dataclass(frozen=True)
class DataStatistics:
    """Of the episodes of one task.

    Attributes:
        steps: (episodes,) length of each.
        starts: (episodes, Do) first observation of each.
        ends_solved: share whose last step was successful.
        observations, actions: an entry per number, Do and Da.
        twins: episodes whose actions repeat another's exactly; 0 in a sound collection of a task that varies.
        bytes: of observations and actions.
    """

    task: str
    steps: np.ndarray
    starts: np.ndarray
    observations: tuple[Entry, ...]
    actions: tuple[Entry, ...]
    ends_solved: float
    twins: int
    bytes: int

    def count(self, kind: Kind) -> int:
        """Entries of an observation that are of this kind."""
        return sum(entry.kind == kind for entry in self.observations)


def data_statistics(episodes: Sequence[Episode]) -> DataStatistics:
    """Statistics of at least one episode; all of one task."""
    observations = np.concatenate([episode.observations for episode in episodes]).astype(np.float64)
    actions = np.concatenate([episode.actions for episode in episodes]).astype(np.float64)
    moves = np.max([np.ptp(episode.observations, axis=0) for episode in episodes], axis=0)
    distinct = {episode.actions.tobytes() for episode in episodes}
    return DataStatistics(
        task=episodes[0].task,
        steps=np.array([len(episode.actions) for episode in episodes]),
        starts=np.stack([episode.observations[0] for episode in episodes]),
        observations=_observation_entries(observations, moves),
        actions=tuple(_entry(column, at_bounds=float((np.abs(column) >= AT_BOUND).mean())) for column in actions.T),
        ends_solved=float(np.mean([episode.success[-1] for episode in episodes])),
        twins=len(episodes) - len(distinct),
        bytes=sum(part.nbytes for episode in episodes for part in (episode.observations, episode.actions)),
    )


def _observation_entries(values: np.ndarray, moves: np.ndarray) -> tuple[Entry, ...]:
    """`values` (n, Do) of all steps; `moves` (Do,) the largest range within one episode."""
    entries: list[Entry] = []
    for number, column in enumerate(values.T):
        width = float(np.ptp(column))
        twin = next((earlier for earlier in range(number) if entries[earlier].kind == "varies" and _same(values[:, earlier], column)), None)
        if width == 0:
            entries.append(_entry(column, "constant"))
        elif twin is not None:
            entries.append(_entry(column, "repeats", repeats=twin))
        else:
            entries.append(_entry(column, "goal" if moves[number] == 0 else "varies"))
    return tuple(entries)


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.abs(one - other).max() <= SAME * max(float(np.ptp(one)), 1e-30))


def _entry(column: np.ndarray, kind: Kind = "varies", repeats: int | None = None, at_bounds: float = 0.0) -> Entry:
    return Entry(float(column.min()), float(column.max()), float(column.mean()), float(column.std()), kind, repeats, at_bounds)


def in_ranges(numbers: Sequence[int]) -> str:
    """Such as `0-3, 7, 10-12`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else f"{part[0]}" for part in parts)
