"""Nothing is ordered by the wall clock, which may jump, and no result depends on a file's time."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest
from forked_run import before_change, die, everything, forked, start_or_resume
from small_run import run, tiny
from source_files import FILES

from reconverge.envs.seeding import numpy_stream

LOOKED_AT = "run_lock.py"
"""Here a lock that is only looked at is called old by this machine's clock; nothing is decided by it."""
WALL_CLOCK = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "today"), ("date", "today")}


@pytest.mark.parametrize("path", [path for path in FILES if path.name != LOOKED_AT], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_nobody_asks_for_the_time_of_day(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    asked = {(node.value.id, node.attr) for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}
    asked |= {(node.module, name.name) for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "time" for name in node.names}
    assert not WALL_CLOCK & asked


def test_a_run_goes_on_though_the_clock_has_jumped(tmp_path: Path) -> None:
    """Every file was last written at some time between 1980 and 2080, in no order."""
    config = tiny(tmp_path, curriculum="point-reach:2", save_minutes=0.0)
    expected = everything(run(tmp_path / "golden", config))
    path, draws = tmp_path / "jumped", numpy_stream("clock")
    assert forked(lambda: (before_change(400, die), start_or_resume(path, config))) == -9
    for file in sorted(tmp_path.rglob("*")):
        moment_s = float(draws.uniform(10, 110)) * 365 * 86400
        os.utime(file, (moment_s, moment_s))
    start_or_resume(path, config)
    assert everything(path) == expected
