"""The experts on the episodes on which policies are evaluated: the same list, whoever acts, and no checkpoint is needed."""

from __future__ import annotations

from pathlib import Path

import pytest
from csv_rows import rows_of
from toy_sweep import toy, write_result

from reconverge.envs.simulators import Simulators
from reconverge.envs.task import Task
from reconverge.envs.tasks import find_task
from reconverge.eval.rollout import evaluation_seeds
from reconverge.launch.cli import main
from reconverge.launch.expert_evaluation import evaluate_experts
from reconverge.launch.progress import Progress
from reconverge.launch.run_folder import RunFolder

A, B = "point-reach-0", "point-reach-1"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_result(tmp_path / "run", toy(method="replay"))
    return tmp_path / "run"


def test_the_experts_play_the_list_of_the_policies(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def losing_the_first(self: Simulators, task: Task, seeds: list[int], hold_steps: int, noise: float, paces: tuple[float, ...]) -> list[object]:
        asked.extend((task.name, seed) for seed in seeds)
        return [None, *(object() for _ in seeds[1:])]

    monkeypatch.setattr(Simulators, "run_expert", losing_the_first)
    rows = evaluate_experts(RunFolder.open(run), Progress("quiet"), episodes=25, split="validation")
    assert asked == [(name, seed) for name in (A, B) for seed in evaluation_seeds(find_task(name), 25, "validation")]
    assert [(row["task"], row["episodes"], row["split"]) for row in rows] == [(A, 25, "validation"), (B, 25, "validation")]
    assert [row["successes"] for row in rows] == [23, 23]  # asked in parts of 20 and 5


def test_its_table_and_file(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--expert", "--tasks", B, "--output", str(tmp_path / "new" / "experts.csv"), "--quiet"]) == 0
    assert capsys.readouterr().out.split() == ["task", "expert", "%", "95", "%", "interval", "episodes", B, "100", "34", "to", "100", "2"]
    (row,) = rows_of(tmp_path / "new" / "experts.csv")
    assert (row["task"], row["split"], row["episodes"], row["rate"]) == (B, "test", "2", "1.0")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--tasks", "point-reach-4"], "unknown task 'point-reach-4' in"),
        (["--stage", "1"], "--stage is of policies"),
        (["--temperatures", "0"], "--temperatures is of policies"),
    ],
)
def test_what_makes_no_sense_of_an_expert(run: Path, words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--expert", *words]) == 2
    assert hint in capsys.readouterr().err
