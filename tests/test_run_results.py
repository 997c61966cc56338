"""Reading run folders: whole, half-done and damaged ones; and the published tables in the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from synthetic_run import EPISODES, POINT_REACH, UPDATES, write_run

from reconverge.envs.curriculum import CW10
from reconverge.envs.errors import DamagedFile
from reconverge.eval import metrics, published_results
from reconverge.eval.run_results import read_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def test_a_finished_run_reads_back(folder: Path) -> None:
    run = read_run(folder)
    assert (run.method, run.seed, run.curriculum, run.finished) == ("trust-region", 0, "synthetic", True)
    assert run.tasks == POINT_REACH and run.own_stage == (1, 2, 3)
    assert run.stage_starts == (0, UPDATES, 2 * UPDATES, 3 * UPDATES)
    assert run.matrix.shape == (4, 3)
    assert run.matrix[3, 0] == run.cell_at[3, "point-reach-0"].successes / EPISODES
    assert 0 <= metrics.average_success(run.matrix, run.own_stage) <= 1
    assert run.curves["online", 2, "point-reach-0"].updates[:3] == (0, 2, 6)
    assert any(row.first_success_step is None for row in run.episodes)


def test_a_run_that_is_still_going_reads_as_far_as_it_is(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", done=1))
    assert (run.stages_done, run.finished, run.recoveries) == (1, False, ())
    assert np.isnan(run.matrix[1, 2])
    (run.folder / "fisher.csv").unlink()
    (run.folder / "cost.json").unlink()
    assert read_run(run.folder).fisher == ()


def test_half_a_line_at_the_end_is_work_in_progress(folder: Path) -> None:
    for name, part in (("episodes.csv", "matrix,3,15"), ("metrics.jsonl", '{"stage": 3, "upd')):
        before = read_run(folder)
        with open(folder / name, "a") as file:
            file.write(part)
        assert read_run(folder) == before


def test_a_repeated_task_has_one_column(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", stages=("point-reach-0", "point-reach-1", "point-reach-0")))
    assert run.tasks == ("point-reach-0", "point-reach-1") and run.own_stage == (1, 2)
    assert run.matrix.shape == (4, 2)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("success_matrix.csv", "stage,task\n1,a\n", "header lacks episodes"),
        ("success_matrix.csv", "stage,task,episodes,successes,rate,wilson_low,wilson_high\none,a,1,1,1,1,1\n", "line 2"),
        ("ledger.csv", "stage,item,bytes,past_task_data\n1,policy,10,yes\n", "not 0 or 1"),
        ("metrics.jsonl", "nonsense\n{}\n", "line 1"),
        ("cost.json", "[1]", "expected an object"),
        ("curriculum.yaml", "tasks: hammer-v3\n", "list of mappings"),
        ("config.yaml", "a: [", "not YAML"),
    ],
)
def test_damage_names_the_file_and_the_fix(folder: Path, name: str, content: str, message: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(DamagedFile, match=message) as error:
        read_run(folder)
    assert str(folder / name) in str(error.value) and "reconverge train" in str(error.value)


def test_a_folder_that_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match="not a run folder"):
        read_run(tmp_path)


def test_the_published_tables_are_in_the_package() -> None:
    success = published_results.published_success()
    assert success["trust-region"].success == pytest.approx(0.883)
    cells = published_results.published_recovery()
    # Counted over the 45 (old task, transition) cells at 99 %: trust region beats replay in 16, loses in 14, ties in 15.
    never = float("inf")
    pairs = [
        tuple(never if cells[method, old, new, 99] is None else cells[method, old, new, 99] for method in ("trust-region", "replay"))
        for new in range(2, 11) for old in range(1, new)
    ]  # fmt: skip
    assert [sum(a < b for a, b in pairs), sum(a > b for a, b in pairs), sum(a == b for a, b in pairs)] == [16, 14, 15]
    assert published_results.same_tasks_in_order(CW10[:3])
    assert not published_results.same_tasks_in_order(("push-v3", "hammer-v3"))
