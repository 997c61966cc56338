"""The process of one job of a sweep: it trains, goes on with what is there, and refuses what is not its job."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from toy_sweep import toy, toy_job, write_result

from reconverge.envs.errors import RunFolderError
from reconverge.launch.job_plan import make_job, with_settings
from reconverge.launch.job_process import run_job
from reconverge.launch.sweep_plan import Places, examine


def test_a_job_process_trains_and_goes_on_with_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = with_settings(toy(method="finetune"), {"demonstrations.folder": str(tmp_path / "demonstrations")})
    job, places = make_job(config, "smoke"), Places(tmp_path)
    assert run_job(job, places.folder(job)) == 0
    assert examine(job, places, False).todo == "nothing"
    shutil.rmtree(places.folder(job) / "checkpoints" / "stage-02")
    (places.folder(job) / "report.html").unlink()
    assert examine(job, places, False).todo == "resume"
    with_workers = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, workers=1))
    assert run_job(make_job(with_workers, "smoke"), places.folder(job), overwrite=True) == 0
    assert examine(job, places, False).todo == "nothing"
    assert "resumed after stage 1 of 2" in capsys.readouterr().err


def test_a_job_process_refuses_what_is_not_its_job(tmp_path: Path) -> None:
    """All of it before anything is trained."""
    file, folder = tmp_path / "mine.yaml", tmp_path / "run"
    file.write_text("tasks: [point-reach-0, point-reach-1]\n")
    job = make_job(toy(curriculum=str(file)), "smoke")
    file.write_text("tasks: [point-reach-0, {task: point-reach-2, updates: 11}]\n")
    changed = "stage 2 was 'point-reach-1, 10 updates, 5 demonstrations' and is now 'point-reach-2, 11 updates, 5 demonstrations'"
    with pytest.raises(RunFolderError, match=f"mine.yaml has changed since the sweep began: {changed}"):
        run_job(job, folder)
    assert not folder.exists()

    write_result(folder, toy(method="ewc"), stages=1)
    with pytest.raises(RunFolderError, match="method was 'ewc' and is now 'trust-region'"):
        run_job(job, folder)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.tex").touch()
    with pytest.raises(RunFolderError, match="not a run's"):
        run_job(job, tmp_path / "notes", overwrite=True)


def test_a_job_process_never_deletes_what_is_finished(tmp_path: Path) -> None:
    write_result(tmp_path / "run", toy(), successes=3)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert run_job(toy_job(), tmp_path / "run", overwrite=True) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
