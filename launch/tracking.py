"""Sending what run folders say to trackers: the files come first, a tracker gets what they hold.

    metrics.jsonl         train/loss, train/replay_loss, ...                at every logged update
    success_matrix.csv    success/TASK, success/mean, forgetting            after every stage
    cost.json             seconds/PHASE, so far                             after every stage, and at the end

A run is followed by reading its folder again and again and sending what was not sent yet, so a finished run and a live one are the same,
and training knows nothing of it. The horizontal axis is the number of updates in all.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from reconverge.envs.errors import DamagedFile
from reconverge.envs.gym_name import short_name
from reconverge.eval import metrics
from reconverge.eval.cost import by_phase
from reconverge.eval.run_groups import flat_settings
from reconverge.eval.run_results import RunResults
from reconverge.launch.run_catalogue import Catalogue
from reconverge.launch.trackers import Tracker, TrackerName, check_trackers, open_tracker

INTERVAL_S = 10.0
PATIENCE_S = 15.0
"""How long trackers may take to finish before they are left behind: a run that was asked to stop is not given much more."""


class Point(NamedTuple):
    """Figures at a number of updates in all; two points with the same key are the same measurement."""

    step: int
    key: tuple[Any, ...]
    values: dict[str, float]


def points(run: RunResults) -> list[Point]:
    """All that is known of a run so far, in order of steps."""
    found = [
        Point(run.updates_before(row["stage"]) + row["update"], ("train", row["stage"], row["update"], row.get("loss")), _figures(row))
        for row in run.training
        if 0 < row.get("stage", 0) <= len(run.stages) and "update" in row
    ]
    for stage in sorted({cell.stage for cell in run.cells}):
        found.append(Point(run.stage_starts[stage], ("success", stage), _success(run, stage)))
    seconds = {f"seconds/{cost.phase}": round(cost.seconds, 2) for cost in by_phase(run.cost.get("phases") or {})}
    if seconds:
        found.append(Point(run.stage_starts[run.stages_done], ("seconds", *seconds.values()), seconds))
    return sorted((point for point in found if point.values), key=lambda point: point.step)


def _figures(row: dict[str, Any]) -> dict[str, float]:
    return {f"train/{key}": float(value) for key, value in row.items() if key not in ("stage", "update") and _finite(value)}


def _success(run: RunResults, stage: int) -> dict[str, float]:
    """Of one stage: each task that was measured, the mean over those learned, and what was forgotten of them, as of then."""
    rates = run.matrix[: stage + 1]
    values = {f"success/{short_name(task)}": rate for task, rate in zip(run.tasks, rates[-1], strict=True)}
    if stage:
        values["success/mean"] = metrics.average_success(rates, run.own_stage)
        if run.method != "joint":
            values["forgetting"] = metrics.forgetting_end_of_own_task(run.by_stage[: stage + 1])
    return {key: float(value) for key, value in values.items() if _finite(value)}


class Tracking:
    """Follows every run at or below a folder, in a thread of its own, while it is entered.

    A tracker that fails is told of once and left out from then on; nothing that happens here reaches the run.

    with Tracking(folder.path, ("tensorboard",), progress.note):
        train(config, folder, progress)
    """

    def __init__(
        self, root: Path, kinds: Sequence[TrackerName], note: Callable[[str], None], folder: Path = Path("runs", "tracking"), online: bool = False
    ) -> None:
        check_trackers(kinds, online)
        self._catalogue, self._note, self._folder, self._online = Catalogue(root), note, folder, online
        self._working = list(kinds)
        self._open: dict[tuple[str, TrackerName], Tracker] = {}
        self._sent: dict[tuple[str, TrackerName], set[tuple[Any, ...]]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="tracking", daemon=True)

    def __enter__(self) -> Tracking:
        if self._working:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(PATIENCE_S)
            if self._thread.is_alive():
                self._note(f"tracking has not finished within {PATIENCE_S:.0f} s and is left behind; send again with `reconverge track`")

    def catch_up(self) -> dict[Path, str]:
        """Send what was not sent yet of every run. Returns their folders, each with the reason why it was skipped, empty where it was not."""
        skipped: dict[Path, str] = {}
        for path in sorted(self._catalogue.paths()):
            folder = self._catalogue.root / path
            try:
                run = self._catalogue.read(path)
            except DamagedFile as error:  # only beginning, or damaged
                skipped[folder] = str(error)
                continue
            skipped[folder] = ""
            for kind in list(self._working):
                self._guarded(kind, partial(self._send, run, path, kind))
        return skipped

    def close(self) -> None:
        for (_, kind), tracker in self._open.items():
            self._guarded(kind, tracker.close)
        self._open.clear()

    @property
    def working(self) -> tuple[TrackerName, ...]:
        """The trackers that have not failed."""
        return tuple(self._working)

    def _follow(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            self.catch_up()
        self.catch_up()
        self.close()

    def _send(self, run: RunResults, path: str, kind: TrackerName) -> None:
        sent = self._sent.setdefault((path, kind), set())
        for point in points(run):
            if point.key not in sent:
                if (path, kind) not in self._open:
                    self._open[path, kind] = open_tracker(kind, run_name(self._catalogue.root / path), _settings(run), self._folder, self._online)
                self._open[path, kind].log(point.step, point.values)
                sent.add(point.key)

    def _guarded(self, kind: TrackerName, work: Callable[[], None]) -> None:
        if kind in self._working:
            try:
                work()
            except Exception as error:  # whatever a foreign library raises
                self._working.remove(kind)
                self._note(f"warning: {kind} failed and gets nothing more ({type(error).__name__}: {str(error)[:300]}); the run goes on")


def run_name(folder: Path) -> str:
    """What a tracker calls the run in a folder: its path below `runs`, or else the last three parts of it."""
    parts = folder.absolute().parts[1:]
    below = parts[len(parts) - parts[::-1].index("runs") :] if "runs" in parts else ()
    return "/".join(below or parts[-3:])


def _settings(run: RunResults) -> dict[str, Any]:
    return {**flat_settings(run.config), "tasks": list(run.stages)}


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
