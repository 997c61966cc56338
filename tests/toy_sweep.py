"""Jobs of a sweep that take a second, and the tables that such a job leaves."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from reconverge.launch.cli import parse
from reconverge.launch.commands import Sweep
from reconverge.launch.config import RunConfig
from reconverge.launch.job import Job
from reconverge.launch.job_plan import make_job
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.run_tables import MATRIX_COLUMNS, rate_columns, write_csv

TOY = (
    "--preset smoke --curriculum point-reach:2 --train.updates 10 --train.log-every 5 --train.trust-region.draws 16 --replay.generator.updates 5 "
    "--replay.windows-per-task 16 --demonstrations.episodes 5 --demonstrations.workers 0 --evaluation.episodes 2 --evaluation.workers 0 "
    "--recovery.episodes 1 --recovery.grid 2 --video.episodes 0"
)
"""A run that takes a second or two once torch is there."""


def toy(**changes: Any) -> RunConfig:
    command = parse(Sweep, TOY.split(), "reconverge sweep")
    assert isinstance(command, Sweep)
    return dataclasses.replace(command.config, **changes)


def toy_job(**changes: Any) -> Job:
    return make_job(toy(**changes), "smoke")


def write_result(folder: Path, config: RunConfig, command: str = "reconverge train", successes: int = 8, stages: int | None = None) -> None:
    """A run folder as `train` leaves it, finished or up to a stage."""
    with RunFolder.create(folder, config, command) as run:
        fill(run, successes, stages)
        run.report_html.write_text("<html>")


def fill(run: RunFolder, successes: int = 8, stages: int | None = None) -> None:
    """Write the tables of a run, of ten episodes a cell, finished or up to a stage."""
    learned = make_job(run.config, "smoke").curriculum
    run.curriculum_yaml.write_text(learned.to_yaml())
    tasks, last = [stage.task.name for stage in learned.stages], len(learned.stages) if stages is None else stages
    rows = [{"stage": stage, "task": task, **rate_columns(successes, 10)} for stage in range(last + 1) for task in tasks]
    write_csv(run.success_matrix_csv, MATRIX_COLUMNS, rows)
    run.cost_json.write_text(json.dumps({"phases": {"update": 60.0}, "total_s": 60.0}))
    run.ceilings_csv.write_text("task,attempts,successes,rate,wilson_low,wilson_high\n")
    run.episodes_csv.write_text("")
