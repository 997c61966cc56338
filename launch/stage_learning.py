"""All updates of one stage, and what is logged, measured and saved between them.

    update     0   1   2 ...... 25 ...... 50 ...... 100 ...... 2000
    logged                       x         x          x          x     every train.log_every updates, and after the last
    measured           x         x         x          x                earlier tasks on recovery.grid; the new one on evaluation.learning_grid
    saved                          x              x              x     every save_minutes, when asked to stop, and after the last

The last update is not measured here: the row of the success matrix that follows has those episodes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from reconverge.envs.errors import LossLeapt
from reconverge.envs.task import Task
from reconverge.eval.flops import ONE_UPDATE, counted
from reconverge.launch.assembly import Assembly
from reconverge.launch.run_tables import StageRecord
from reconverge.launch.stage_evaluation import StageEvaluation
from reconverge.launch.stage_plan import StagePlan
from reconverge.launch.stop_request import Stopped
from reconverge.launch.unfinished_stage import save_learning
from reconverge.launch.workplace import Workplace
from reconverge.policy.divergence import leap
from reconverge.policy.learner import UpdateFigures
from reconverge.policy.windows import WindowTable


class Curve(NamedTuple):
    """What is measured within a stage: episodes of `tasks` after some of its updates."""

    purpose: str
    tasks: Sequence[Task]
    updates: set[int]


class StageLearning:
    """Has the learner make the updates of a stage; what it finds stands in the stage's record."""

    def __init__(self, place: Workplace, assembly: Assembly, evaluation: StageEvaluation) -> None:
        self.place, self.assembly, self.learner, self.evaluation = place, assembly, assembly.learner, evaluation

    def run(
        self,
        plan: StagePlan,
        windows: WindowTable,
        earlier: Sequence[Task],
        record: StageRecord,
        underway: dict[str, np.ndarray] | None = None,
    ) -> None:
        """The updates of `plan`, or those left where the arrays of a save are given as `underway`.

        Raises Stopped, with what there is saved; LossLeapt where the loss of the current task has leapt.
        """
        self._begin(plan, windows, underway)
        config, curves = self.place.config, self._curves(plan, earlier, record)
        start, saved_s = self.learner.update_index, time.monotonic()
        with (
            self.place.stop.held(),
            self._saved_when_stopped(record),
            self._live_log(record) as log,
            self.place.progress.phase("update", plan.updates, start) as tick,
        ):
            self._measure(curves, record, start)
            for update in range(start + 1, plan.updates + 1):
                figures = self._update(record)
                if update % config.train.log_every == 0 or update == plan.updates:
                    log({"stage": plan.number, "update": update, **self.learner.log_row(figures)})
                    if (found := leap(record.training)) is not None:
                        raise LossLeapt(f"{found} at stage {plan.number}, update {update}")
                self._measure(curves, record, update)
                if time.monotonic() - saved_s > 60 * config.save_minutes:
                    self._save(record)
                    saved_s = time.monotonic()
                tick()
                self.place.stop.check()
            self._save(record)

    def _begin(self, plan: StagePlan, windows: WindowTable, underway: dict[str, np.ndarray] | None) -> None:
        lead = self.place.lead
        if lead is not None:
            with self.place.stop.held():
                lead.begin_stage(self.assembly, plan.number, plan.updates, windows, underway)
        self.learner.begin_stage(plan.number, windows, plan.updates)
        if underway is not None:
            self.learner.load_underway(underway)
        if lead is not None:
            self.learner.ranks = lead.ranks

    def _curves(self, plan: StagePlan, earlier: Sequence[Task], record: StageRecord) -> list[Curve]:
        """What is left to measure: a stage that goes on was measured at its first points before."""
        config, measured = self.place.config, {(row["purpose"], row["update"]) for row in [*record.episodes, *record.failures]}
        learning = (0, *config.evaluation.learning_grid) if config.evaluation.learning_grid and config.method != "joint" else ()
        grids = (("recovery", earlier, config.recovery.grid if earlier else ()), ("learning", plan.tasks, learning))
        return [Curve(name, tasks, {at for at in grid if at < plan.updates and (name, at) not in measured}) for name, tasks, grid in grids]

    def _measure(self, curves: Sequence[Curve], record: StageRecord, update: int) -> None:
        for curve in curves:
            if update in curve.updates:
                self.evaluation.curve_point(curve.purpose, record, update, curve.tasks)

    def _update(self, record: StageRecord) -> UpdateFigures:
        """One update, which the other processes, if there are any, make too."""
        lead = self.place.lead
        if lead is None:
            return self._counted_update(record)
        lead.update()
        figures = self.learner.update()
        if self.learner.update_index == 1:  # what sets processes apart does so at once
            lead.check(self.learner.parameters.values, f"update 1 of stage {self.learner.stage}")
        return figures

    def _counted_update(self, record: StageRecord) -> UpdateFigures:
        """One update; the FLOPs of the second of a stage are counted, or those of the next where a run that did not count goes on."""
        if ONE_UPDATE in record.flops or self.learner.update_index + 1 < min(2, record.updates):
            return self.learner.update()
        figures, flops = counted(self.learner.update)
        record.flops |= {ONE_UPDATE: flops, "update": flops * record.updates}
        return figures

    @contextmanager
    def _saved_when_stopped(self, record: StageRecord) -> Iterator[None]:
        try:
            yield
        except Stopped:
            self._save(record)
            raise

    def _save(self, record: StageRecord) -> None:
        learner, lead = self.learner, self.place.lead
        learner.check_finite()
        if lead is not None:
            lead.check(learner.parameters.values, f"update {learner.update_index} of stage {learner.stage}")
        with self.place.progress.phase("checkpoint"):
            save_learning(self.place.folder, learner, record, self.place.progress.seconds)

    @contextmanager
    def _live_log(self, record: StageRecord) -> Iterator[Callable[[dict[str, Any]], None]]:
        """Gives the function that adds a row of training figures to the record, and to metrics.jsonl and the terminal for who watches."""
        figures = self.place.progress.figures
        figures.clear()
        with open(self.place.folder.metrics_jsonl, "a") as live:

            def show(row: dict[str, Any]) -> None:
                live.write(json.dumps(row) + "\n")
                live.flush()
                figures.append(row)

            def log(row: dict[str, Any]) -> None:
                record.training.append(row)
                show(row)

            for row in record.training:  # of before the stage was broken off
                show(row)
            yield log
