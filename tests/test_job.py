"""What the result of a job depends on, and what a folder holds of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from changed_setting import with_value
from edited_run import with_fingerprint
from toy_sweep import toy, toy_job, write_result

from reconverge.launch import job as jobs_in_folders
from reconverge.launch import run_tables
from reconverge.launch.config import METHODS, RunConfig
from reconverge.launch.config_file import config_text, flat
from reconverge.launch.job import LEFT_OUT, Job, content, look
from reconverge.launch.job_plan import make_job
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.run_tables import write_tables
from reconverge.policy.config import TrainConfig, TrustRegionConfig
from reconverge.policy.method_settings import OWN, READS, SET_ITSELF, is_read
from reconverge.replay.config import ReplayConfig


def another(value: Any) -> Any:
    """Some other value of the same kind; ranges do not matter to an address."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return (*value, 7)
    return f"{value}x" if isinstance(value, str) else (0 if value is None else value) + 1


@pytest.mark.parametrize("key", list(flat(RunConfig())))
def test_the_address_changes_with_every_setting_but_those_that_no_result_depends_on(key: str) -> None:
    job = toy_job()
    changed = with_value(job.config, key.split("."), another(flat(job.config)[key]))
    other = Job(changed, job.curriculum)
    assert (other.address == job.address) == (key in LEFT_OUT or not is_read(key, job.config.method))


def test_every_key_that_is_left_out_exists_and_has_a_reason() -> None:
    assert set(LEFT_OUT) <= set(flat(RunConfig())) and all(LEFT_OUT.values())


def test_a_setting_counts_for_the_methods_that_read_it() -> None:
    assert READS.keys() == METHODS.keys() and all(any(key.startswith(prefix) for key in flat(RunConfig())) for prefix in OWN)
    weak, strong = (TrainConfig(trust_region=TrustRegionConfig(strength)) for strength in (1, 100))
    for method in METHODS:
        same = toy_job(method=method, train=weak).address == toy_job(method=method, train=strong).address
        assert same == (method not in ("ewc", "trust-region", "adaptive-trust-region"))
    assert is_read("train.trust_region.strength", "a-method-of-another-package")
    assert is_read("train.replay_weight", "replay") and not is_read("train.replay_weight", "finetune")


def test_a_setting_that_a_method_sets_itself_makes_no_other_job() -> None:
    assert SET_ITSELF.keys() <= METHODS.keys() and all(key in flat(RunConfig()) for keys in SET_ITSELF.values() for key in keys)
    for method, counts in (("t-dgr", False), ("replay", True)):
        freshest, redrawn = (toy_job(method=method, replay=ReplayConfig(pool=pool)).address for pool in ("freshest", "redrawn"))
        assert (freshest != redrawn) == counts == is_read("replay.pool", method)


def test_the_curriculum_counts_by_its_stages_not_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\ntasks: [point-reach-0, {task: point-reach-1, updates: 10}]\n")
    assert toy_job(curriculum=str(file)).address == toy_job().address
    file.write_text("name: mine\ntasks: [point-reach-0, {task: point-reach-1, updates: 11}]\n")
    assert toy_job(curriculum=str(file)).address != toy_job().address
    assert toy_job(curriculum="point-reach:3").address != toy_job().address


def test_the_simulators_count_in_the_version_that_the_run_had() -> None:
    job = make_job(RunConfig(curriculum="cw10:2"), "quickstart")
    assert content(job.config, job.curriculum, {"metaworld": "3.1.1", "mujoco": "3.3.0"})["simulators"] == ["metaworld 3.1.1, mujoco 3.3.0"]
    assert content(job.config, job.curriculum, {"mujoco": "3.9.9"})["simulators"] == ["metaworld unknown, mujoco 3.9.9"]
    assert toy_job().content["simulators"] == ["point-reach 1"]


def test_what_a_folder_holds(tmp_path: Path) -> None:
    job = toy_job()
    assert look(tmp_path / "run", job).state == "nothing"
    write_result(tmp_path / "run", job.config, stages=1)
    held = look(tmp_path / "run", job)
    assert (held.state, held.stages_done, held.seconds) == ("part", 1, 60.0)
    shutil.rmtree(tmp_path / "run")
    write_result(tmp_path / "run", toy(evaluation=dataclasses.replace(job.config.evaluation, workers=3)))
    assert look(tmp_path / "run", job).state == "result"
    other = look(tmp_path / "run", toy_job(method="replay", seed=1))
    assert other.state == "other" and "method was 'trust-region' and is now 'replay'; seed was 0 and is now 1" in other.reason
    (tmp_path / "run" / "success_matrix.csv").write_text("stage\nx\n")
    assert look(tmp_path / "run", job).state == "unreadable"
    (tmp_path / "run" / "checkpoints").mkdir()
    assert look(tmp_path / "run", job).state == "part"  # its tables are written anew
    assert look(tmp_path / "run", toy_job(method="replay", seed=1)).state == "other"
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.tex").touch()
    assert look(tmp_path / "notes", job).state == "foreign"


def test_a_finished_run_whose_cost_is_no_number_cannot_be_told(tmp_path: Path) -> None:
    write_result(tmp_path / "run", toy())
    for total_s in ("an hour", [1, 2]):
        (tmp_path / "run" / "cost.json").write_text(json.dumps({"total_s": total_s}))
        held = look(tmp_path / "run", toy_job())
        assert held.state == "unreadable" and f"cost.json: total_s is {total_s!r}" in held.reason


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("refuse_foreign", PermissionError(13, "Permission denied")),
        ("stored_content", PermissionError(13, "Permission denied")),
        ("stored_content", ValueError("no")),
        ("stored_content", TypeError("no")),
        ("stored_content", RecursionError("no")),
    ],
)
def test_what_cannot_be_read_is_not_taken_for_another_run(where: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_result(tmp_path / "run", toy())

    def fail(folder: Path) -> None:
        raise error

    monkeypatch.setattr(jobs_in_folders, where, fail)
    held = look(tmp_path / "run", toy_job())
    assert held.state == "unreadable" and str(error) in held.reason


def test_the_table_by_which_a_run_is_finished_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(run_tables, "write_file", lambda path, content: written.append(path.name))
    write_tables(tmp_path, [], [], 1, (99,))
    assert written[-1] == "success_matrix.csv" and len(written) == len(set(written)) == 8


def test_a_resumed_run_says_that_its_code_is_another(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", toy(), "reconverge train") as folder:
        commit = folder.read_fingerprint()["git_commit"]
        with_fingerprint(folder.path, git_commit="0123abc")
        assert folder.version_changes() == [f"git commit 0123abc -> {commit}"]


def test_a_run_that_was_stopped_before_its_report_is_a_part(tmp_path: Path) -> None:
    write_result(tmp_path / "run", toy())
    (tmp_path / "run" / "report.html").unlink()
    assert look(tmp_path / "run", toy_job()).state == "result"  # published tables
    (tmp_path / "run" / "checkpoints").mkdir()
    assert look(tmp_path / "run", toy_job()).state == "part"


@pytest.mark.parametrize("key", list(flat(RunConfig())))
def test_a_setting_that_came_later_does_not_undo_what_is_finished(key: str, tmp_path: Path) -> None:
    """The stored file of a run from before the setting existed, in which it had today's default."""
    config = with_value(toy(), key.split("."), flat(RunConfig())[key]) if key != "curriculum" else toy()
    if key == "policy.sampling_steps" or key == "policy.timesteps":
        config = with_value(with_value(config, ["policy", "timesteps"], 100), ["policy", "sampling_steps"], 4)
    if key.startswith(("evaluation.episodes", "recovery.episodes", "video.episodes")):
        config = with_value(with_value(config, ["recovery", "episodes"], 20), ["evaluation", "episodes"], 50)
    write_result(tmp_path / "run", config)
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    inner = stored
    for section in key.split(".")[:-1]:
        inner = inner[section]
    if key != "curriculum":
        del inner[key.rpartition(".")[2]]
    header = config_text(config).splitlines()[0]
    (tmp_path / "run" / "config.yaml").write_text(f"{header}\n{yaml.safe_dump(stored)}")
    assert look(tmp_path / "run", make_job(config, "smoke")).state == "result"
