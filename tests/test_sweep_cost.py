"""What the jobs of a sweep cost, where they are, and how that is shown."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from toy_sweep import toy, toy_job

from reconverge.launch.job_plan import make_job, with_settings
from reconverge.launch.sweep_cost import CostModel, makespan
from reconverge.launch.sweep_view import JobClock, Position, SweepView, position


def test_makespan() -> None:
    assert makespan([3, 2, 2], 2) == 4
    assert makespan([], 2) == 0
    assert makespan([1], 2, busy=[5.0, 2.0]) == 5


def test_the_cost_of_a_job_follows_its_method_and_updates() -> None:
    cost = CostModel()
    assert cost.seconds(toy_job()) is None
    cost.learn(toy_job(method="replay"), 40.0)  # 20 updates
    cost.learn(toy_job(method="finetune"), 20.0)
    longer = make_job(with_settings(toy(method="replay"), {"train.updates": 20}), "smoke")
    assert cost.seconds(longer) == 80.0 and cost.seconds(longer, 0.5) == 40.0
    assert cost.seconds(toy_job(method="ewc")) == 30.0  # the mean of all


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Position(0, 0.0)),
        ('{"stage": 1, "update": 5}\n', Position(1, 0.25)),
        ('{"stage": 1, "update": 10}\n{"stage": 2, "update": 5}\n{"stage": 2, "upd', Position(2, 0.75)),
        ("no json\n", Position(0, 0.0)),
    ],
)
def test_the_position_of_a_job_is_read_from_its_rows(text: str, expected: Position, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(text)
    assert position(tmp_path / "metrics.jsonl", toy_job()) == expected
    assert position(tmp_path / "none", toy_job()) == Position(0, 0.0)


def test_joint_training_has_one_stage_with_all_updates(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"stage": 2, "update": 5}\n')
    assert position(tmp_path / "metrics.jsonl", toy_job(method="joint")) == Position(2, 0.25)


def test_time_left_counts_from_where_a_job_was_taken_up(tmp_path: Path) -> None:
    file, now = tmp_path / "metrics.jsonl", [0.0]
    file.write_text('{"stage": 2, "update": 5}\n')  # as an interrupted run left it
    clock = JobClock(toy_job(), file, lambda: now[0])
    now[0] = 10.0
    file.write_text('{"stage": 1, "update": 10}\n')  # its checkpoint is at the end of stage 1
    clock.look()
    assert clock.eta_s is None and str(clock) == "stage 1/2"
    now[0] = 20.0
    file.write_text('{"stage": 2, "update": 5}\n')
    clock.look()
    assert clock.eta_s == 10.0 and str(clock) == "stage 2/2  eta 0:10"


def test_a_terminal_has_a_bar_per_job_and_one_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    stream, job = io.StringIO(), toy_job()
    (tmp_path / "metrics.jsonl").write_text('{"stage": 1, "update": 5}\n')
    clock = JobClock(job, tmp_path / "metrics.jsonl")
    with SweepView(4, 1, 2, CostModel(), stream=stream) as view:
        view.started(job, "start it")
        view.refresh([clock], [])
        view.ended(job, "done it", [], [job])
    shown = stream.getvalue()
    assert "trust-region/seed-0" in shown and "25 %" in shown and "stage 1/2" in shown and "done it  [2/4 ended]" in shown
