"""What every comparison goes through: an equality gate, interleaved blocks, a ratio with an interval, a line in a table.

    block 1   A B B A        A ours, B theirs; a letter is a leg: as many runs as fill `leg_s`
    block 2   A B B A        ratio of a block = (B + B) / (A + A), so that a drift within a block cancels
      ...                    reported: median ratio; interval: bootstrap over blocks

A ratio above 1 means that ours is faster (or smaller). `Bench.record` takes an `Equality`, which only a gate that
passed can give: there is no ratio without one.
"""

from __future__ import annotations

import csv
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from reconverge.envs.seeding import numpy_stream
from reconverge.launch.fingerprint import git_commit, machine

Kind = Literal[
    "same maths",  # the same operations, arranged better
    "exact rewrite",  # other operations, the same result
    "cached",  # the same result, computed before and kept, which the peer does not do
    "fewer outputs",  # what ours gives is the same, the peer also computes something that is not asked for
    "fewer steps",
    "lower precision",
    "fewer effects",
    "memory",
    "overhead",
    "different simulator",
    "information",
]
Size = Literal["full", "quick", "tiny"]
Clock = Callable[[], float]
T = TypeVar("T")

UNITS: dict[str, Callable[[float], float]] = {
    "s": lambda seconds: seconds,
    "ms": lambda seconds: 1e3 * seconds,
    "us": lambda seconds: 1e6 * seconds,
    "steps/s": lambda seconds: 1 / seconds,
    "windows/s": lambda seconds: 1 / seconds,
    "frames/s": lambda seconds: 1 / seconds,
    "episodes/h": lambda seconds: 3600 / seconds,
}
"""How seconds per item are shown."""

RESAMPLES = 2000


# The gate ----------------------------------------------------------------------------------------------------------------------


class GateFailed(AssertionError):
    """The two sides of a comparison do not compute the same; says what differed."""


@dataclass(frozen=True)
class Equality:
    """What was found equal, in words. Made by the functions below, which raise GateFailed otherwise."""

    words: str

    def __and__(self, other: Equality) -> Equality:
        return Equality(f"{self.words}; {other.words}")


def identical(what: str, ours: Any, theirs: Any) -> Equality:
    """Both arrays (or tensors) are equal bit for bit."""
    a, b = _arrays(what, ours, theirs)
    if not np.array_equal(a, b):
        raise GateFailed(f"{what} must be identical; {int((a != b).sum())} of {a.size} numbers differ, {_largest(a, b)}")
    return Equality(f"{what} identical ({a.size} numbers)")


def close(what: str, ours: Any, theirs: Any, bound: float) -> Equality:
    """No number differs by more than `bound`."""
    a, b = _arrays(what, ours, theirs)
    difference = float(np.abs(a - b).max(initial=0.0))
    if not difference <= bound:
        raise GateFailed(f"{what} may differ by {bound:g}; {_largest(a, b)}")
    return Equality(f"{what} max difference {difference:.1e} (bound {bound:g})")


def relatively_close(what: str, ours: Any, theirs: Any, bound: float) -> Equality:
    """The norm of the difference is at most `bound` times the norm of theirs."""
    a, b = _arrays(what, ours, theirs)
    difference = float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-300))
    if not difference <= bound:
        raise GateFailed(f"{what} may differ by {bound:g} of its norm, but differs by {difference:.2e}; {_largest(a, b)}")
    return Equality(f"{what} relative difference {difference:.1e} (bound {bound:g})")


def _arrays(what: str, ours: Any, theirs: Any) -> tuple[np.ndarray, np.ndarray]:
    a, b = (np.asarray(side.detach().cpu() if isinstance(side, torch.Tensor) else side, np.float64) for side in (ours, theirs))
    if a.shape != b.shape:
        raise GateFailed(f"{what} has the shape {a.shape} here and {b.shape} there")
    return a, b


def _largest(a: np.ndarray, b: np.ndarray) -> str:
    difference = np.nan_to_num(np.abs(a - b), nan=np.inf)
    where = tuple(int(axis) for axis in np.unravel_index(difference.argmax(), difference.shape))
    return f"largest difference {difference[where]:.3e} at {where}: ours {a[where]!r}, theirs {b[where]!r}"


# Time --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """One contestant. `run` is timed, `prepare` before each run is not; a run does `items` of whatever is counted."""

    run: Callable[[], object]
    items: float = 1
    prepare: Callable[[], object] | None = None


@dataclass(frozen=True)
class Effort:
    """How long to measure: blocks until `seconds` are spent, but `fewest` to `most` of them, in legs of at least `leg_s`."""

    seconds: float
    fewest: int
    most: int
    leg_s: float


EFFORTS: dict[Size, Effort] = {
    "full": Effort(seconds=8.0, fewest=5, most=40, leg_s=0.05),
    "quick": Effort(seconds=1.0, fewest=2, most=10, leg_s=0.02),
    "tiny": Effort(seconds=0.0, fewest=1, most=1, leg_s=0.0),
}


@dataclass(frozen=True)
class Timing:
    """Seconds per item of each block, (blocks,) for either side."""

    ours: np.ndarray
    theirs: np.ndarray

    @property
    def ratios(self) -> np.ndarray:
        return self.theirs / self.ours

    @property
    def interval(self) -> tuple[float, float, float]:
        """Low end, median and high end of the ratio."""
        low, high = median_interval(self.ratios)
        return low, float(np.median(self.ratios)), high

    @staticmethod
    def geometric_mean(timings: Sequence[Timing]) -> Timing:
        """Over several subjects, block by block; as many blocks as every subject has."""
        blocks = min(len(timing.ours) for timing in timings)

        def mean(sides: Sequence[np.ndarray]) -> np.ndarray:
            return np.exp(np.mean([np.log(side[:blocks]) for side in sides], axis=0))

        return Timing(mean([timing.ours for timing in timings]), mean([timing.theirs for timing in timings]))


def measure(ours: Side, theirs: Side, effort: Effort, clock: Clock = time.perf_counter) -> Timing:
    """Interleaved blocks; see the module's first lines. The first runs warm up and are not counted."""
    a, b = (_runs_per_leg(side, effort.leg_s, clock) for side in (ours, theirs))
    seconds: list[tuple[float, float]] = []
    started = clock()
    while len(seconds) < effort.fewest or (len(seconds) < effort.most and clock() - started < effort.seconds):
        first, second, third, fourth = _leg(ours, a, clock), _leg(theirs, b, clock), _leg(theirs, b, clock), _leg(ours, a, clock)
        seconds.append(((first + fourth) / (2 * a * ours.items), (second + third) / (2 * b * theirs.items)))
    mine, other = np.array(seconds).T
    return Timing(mine, other)


def _runs_per_leg(side: Side, leg_s: float, clock: Clock) -> int:
    took = _leg(side, 1, clock)  # the first run may compile, fill caches or start workers
    if took < leg_s:
        took = _leg(side, 1, clock)
    return max(1, min(10_000, math.ceil(leg_s / max(took, 1e-9))))


def _leg(side: Side, runs: int, clock: Clock) -> float:
    """Seconds of `runs` runs."""
    seconds = 0.0
    for _ in range(runs):
        if side.prepare is not None:
            side.prepare()
        started = clock()
        side.run()
        seconds += clock() - started
    return seconds


def median_interval(values: np.ndarray) -> tuple[float, float]:
    """Bootstrap 95 % interval of the median; the same values give the same interval."""
    chosen = numpy_stream("bootstrap of a benchmark", len(values)).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(np.median(values[chosen], axis=1), [0.025, 0.975])
    return float(low), float(high)


# The table ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Peer:
    """Who is compared with. `name` says so where it is re-created from a description."""

    name: str
    version: str

    @classmethod
    def of(cls, package: str, what: str) -> Peer:
        """`what` runs the installed `package`."""
        return cls(what, f"{package} {installed(package)}")

    @classmethod
    def recreated(cls, what: str, package: str) -> Peer:
        """`what`, written anew from its description on top of the installed `package`."""
        return cls(f"{what} (re-created from its published description)", f"on {package} {installed(package)}")


def installed(package: str) -> str:
    """The installed version, or `` if there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


@dataclass(frozen=True)
class Row:
    """A line of a cost centre's table. `ours` and `theirs` are medians in `unit`; `ratio` is how many times faster or smaller ours is."""

    benchmark: str
    peer: str
    peer_version: str
    unit: str
    ours: float | None
    theirs: float | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    blocks: int
    kind: Kind
    equality: str
    threads: int
    commit: str
    machine: str
    date: str


class Bench:
    """One cost centre while it is measured: `size` says how thoroughly, `record` prints and keeps its lines."""

    def __init__(
        self,
        centre: str,
        size: Size = "full",
        run: Path | None = None,
        show: Callable[[str], None] = lambda line: None,
        clock: Clock = time.perf_counter,
    ) -> None:
        """`run` is a run folder whose checkpoint or cost is used; `show` gets every line of progress."""
        self.centre, self.size, self.run, self.show, self.clock = centre, size, run, show, clock
        self.rows: list[Row] = []
        self.tables: dict[str, list[dict[str, Any]]] = {}  # file name -> rows, beside the cost centre's own table
        self.skipped: list[str] = []

    def pick(self, full: T, quick: T, tiny: T) -> T:
        """The choice for this size."""
        return {"full": full, "quick": quick, "tiny": tiny}[self.size]

    def compare(
        self, benchmark: str, peer: Peer, gate: Callable[[], Equality], ours: Side, theirs: Side, *, unit: str, kind: Kind, share: float = 1.0
    ) -> Row:
        """Gate, measure, record. `share` scales the time that is spent."""
        equality = self.gate(benchmark, gate)
        return self.record(benchmark, peer, self.measure(ours, theirs, share), equality, unit=unit, kind=kind)

    def gate(self, benchmark: str, check: Callable[[], Equality]) -> Equality:
        self.show(f"{benchmark}: are both sides equal?")
        try:
            return check()
        except GateFailed as error:
            raise GateFailed(f"{benchmark}: {error}") from error

    def measure(self, ours: Side, theirs: Side, share: float = 1.0) -> Timing:
        effort = EFFORTS[self.size]
        return measure(ours, theirs, replace(effort, seconds=share * effort.seconds), self.clock)

    def record(self, benchmark: str, peer: Peer, timing: Timing, equality: Equality, *, unit: str, kind: Kind) -> Row:
        shown = UNITS[unit]
        return self._keep(
            benchmark, peer, shown(float(np.median(timing.ours))), shown(float(np.median(timing.theirs))), timing.ratios, equality.words, unit, kind
        )

    def record_sizes(self, benchmark: str, peer: Peer, ours: float, theirs: float, equality: Equality, *, unit: str, kind: Kind) -> Row:
        """Two amounts, such as bytes, that do not vary."""
        return self._keep(benchmark, peer, ours, theirs, np.array([theirs / ours]), equality.words, unit, kind)

    def inform(self, benchmark: str, peer: Peer, unit: str, ours: float | None, theirs: float | None, words: str, kind: Kind = "information") -> Row:
        """A line without a ratio, because the two sides are not shown to compute the same."""
        return self._keep(benchmark, peer, ours, theirs, np.empty(0), words, unit, kind)

    def skip(self, benchmark: str, reason: str) -> None:
        self.skipped.append(f"{benchmark}: {reason}")
        self.show(f"skipped {benchmark}: {reason}")

    def write(self, folder: Path) -> list[Path]:
        """The cost centre's CSV file, and those of its further tables."""
        own = write_rows(folder / f"{self.centre}.csv", [asdict(row) for row in self.rows], [field.name for field in fields(Row)])
        return [own, *(write_rows(folder / f"{name}.csv", rows, list(rows[0])) for name, rows in self.tables.items())]

    def _keep(
        self, benchmark: str, peer: Peer, ours: float | None, theirs: float | None, ratios: np.ndarray, equality: str, unit: str, kind: Kind
    ) -> Row:
        ratio = float(np.median(ratios)) if len(ratios) else None
        low, high = median_interval(ratios) if len(ratios) else (None, None)
        row = Row(benchmark, peer.name, peer.version, unit, ours, theirs, ratio, low, high, len(ratios), kind, equality, **circumstances())
        self.rows.append(row)
        self.show(line_of(row))
        return row


def line_of(row: Row) -> str:
    """A row in words."""
    amounts = ", ".join(f"{who} {amount:.4g} {row.unit}" for who, amount in (("ours", row.ours), ("theirs", row.theirs)) if amount is not None)
    ratio = "" if row.ratio is None else f"  ratio {row.ratio:.3g} ({row.ratio_low:.3g} to {row.ratio_high:.3g})"
    return f"{row.benchmark} vs {row.peer}: {amounts}{ratio}"


def write_rows(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> Path:
    """A CSV file, replaced when whole; numbers with four digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.writing")
    with draft.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: f"{value:.4g}" if isinstance(value, float) else value for key, value in row.items()} for row in rows)
    os.replace(draft, path)
    return path


def circumstances() -> dict[str, Any]:
    """Under what a line was measured; neither host name nor paths."""
    return {"threads": torch.get_num_threads(), "commit": _commit(), "machine": _machine(), "date": datetime.now(UTC).strftime("%Y-%m-%d")}


@cache
def _commit() -> str:
    """Asked for once: writing the tables changes the checkout."""
    commit = git_commit() or "no checkout"
    return commit[:10] + ("+changes" if commit.endswith("+changes") else "")


@cache
def _machine() -> str:
    packages = ", ".join(f"{package} {installed(package)}" for package in ("torch", "mujoco", "metaworld"))
    return f"{machine()}, Python {platform.python_version()}, {packages}"
