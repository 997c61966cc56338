"""Tables from episodes, worked by hand."""

from __future__ import annotations

from pathlib import Path

from reconverge.envs.simulators import TaskFailure
from reconverge.eval.rollout import EpisodeResult, Rollouts
from reconverge.eval.run_results import FailureRow
from reconverge.eval.table_rows import read_table
from reconverge.launch.run_tables import StageRecord, online_curve_rows, recoveries, reference_rates, success_rates, write_tables


def episodes(task: str, flags: str) -> list[EpisodeResult]:
    """One episode per letter: 1 success, 0 failure, x invalid."""
    return [EpisodeResult(task, seed, flag == "1", False, 5 if flag == "1" else None, 10, flag == "x") for seed, flag in enumerate(flags)]


def records() -> list[StageRecord]:
    untrained, first, second = StageRecord(0, [], 0), StageRecord(1, ["a"], 100), StageRecord(2, ["b"], 100)
    untrained.add_episodes("matrix", 0, [*episodes("a", "0000"), *episodes("b", "0000")])
    first.add_episodes("matrix", 100, episodes("a", "1110"))
    second.add_episodes("recovery", 2, episodes("a", "10"))
    second.add_episodes("recovery", 50, episodes("a", "00"))
    second.add_episodes("matrix", 100, [*episodes("a", "1x00"), *episodes("b", "1111")])
    return [untrained, first, second]


def test_the_success_matrix_leaves_invalid_episodes_out() -> None:
    rows = success_rates([row for record in records() for row in record.episodes])
    cells = {(row["stage"], row["task"]): (row["successes"], row["episodes"]) for row in rows}
    assert cells == {(0, "a"): (0, 4), (0, "b"): (0, 4), (1, "a"): (3, 4), (2, "a"): (1, 3), (2, "b"): (4, 4)}


def test_a_recovery_curve_uses_the_same_episodes_at_every_point() -> None:
    """Two episodes a point: before the switch both succeed (of 1110, the first two); at the end one is invalid."""
    curve = [(row["update"], row["successes"], row["episodes"]) for row in online_curve_rows(records(), 2)]
    assert curve == [(0, 2, 2), (2, 1, 2), (50, 0, 2), (100, 1, 1)]


def test_recovery_rows() -> None:
    references = reference_rates(records(), 2)
    assert references == {(2, "a"): 1.0}
    rows = recoveries(online_curve_rows(records(), 2), references, (99, 50))
    assert [(row["threshold"], row["updates"], row["dip"], row["dip_area"]) for row in rows] == [(99, 100, 1.0, 0.5 + 36 + 25), (50, 2, 1.0, 61.5)]


def test_a_revisited_task_is_measured_against_its_latest_visit() -> None:
    again = StageRecord(3, ["a"], 100)
    again.add_episodes("matrix", 100, episodes("a", "1111"))
    last = StageRecord(4, ["b"], 100)
    assert reference_rates([*records(), again, last], 4)[4, "a"] == 1.0
    assert (3, "a") not in reference_rates([*records(), again, last], 4)  # while it is learned again it is no earlier task
    assert reference_rates([*records(), again, last], 4)[3, "b"] == 1.0


def failing(*names: str) -> list[TaskFailure]:
    return [TaskFailure(name, 17, 3, 'RuntimeError: the arm, "it" fell off (arm.py, line 3)') for name in names]


def test_a_task_that_failed_is_in_failures_and_nowhere_else(tmp_path: Path) -> None:
    """Task a fails after stage 1, where it was learned: it has no reference, so that nothing is said of its recovery."""
    untrained, first, second = records()
    first.episodes = []
    first.add_rollouts("matrix", 100, Rollouts(episodes("b", "0011"), {}, [], failing("a")))
    second.add_rollouts("recovery", 50, Rollouts([], {}, [], failing("a")))
    assert (2, "a") not in reference_rates([untrained, first, second], 2)
    write_tables(tmp_path, [untrained, first, second], [], 4, (99,))
    matrix = {tuple(row.split(",")[:2]): row for row in (tmp_path / "success_matrix.csv").read_text().splitlines()[1:]}
    assert ("1", "a") not in matrix and matrix["1", "b"].startswith("1,b,4,2,")
    assert (tmp_path / "recovery.csv").read_text().count("\n") == 1
    rows = read_table(tmp_path / "failures.csv", FailureRow)
    assert [(row.stage, row.purpose, row.update, row.task, row.episode_seed, row.attempts) for row in rows] == [
        (1, "matrix", 100, "a", 17, 3),
        (2, "recovery", 50, "a", 17, 3),
    ]
    assert rows[0].error == failing("a")[0].error


def test_without_failures_their_table_is_there_and_empty(tmp_path: Path) -> None:
    write_tables(tmp_path, records(), [], 4, (99,))
    assert (tmp_path / "failures.csv").read_text() == "stage,purpose,update,task,episode_seed,attempts,error\n"


def test_written_tables_say_never_with_an_empty_cell(tmp_path: Path) -> None:
    write_tables(tmp_path, records(), [], 4, (99,))
    line = (tmp_path / "recovery.csv").read_text().splitlines()[1].split(",")
    assert line[:5] == ["online", "2", "a", "99", ""]
    assert (tmp_path / "episodes.csv").read_text().splitlines()[1] == "matrix,0,0,a,0,0,0,,10,0"
