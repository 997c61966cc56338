"""Who may write in a run folder, when it is refused, and what is deleted."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from edited_run import with_fingerprint

from reconverge.envs.errors import DamagedFile, RunFolderError
from reconverge.envs.plain_json import read_json
from reconverge.launch import run_lock
from reconverge.launch.config import RunConfig
from reconverge.launch.run_folder import RunFolder, holds_run
from reconverge.launch.run_lock import RunLock, wait_until_free
from reconverge.launch.seal import broken_seals

HERE = socket.gethostname()
CONFIG = RunConfig(curriculum="point-reach:3")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder that holds a run nobody is working on."""
    with RunFolder.create(tmp_path / "run", CONFIG, "reconverge train --seed 0") as folder:
        return folder.path


def owner(pid: int, host: str, start: str | None = None) -> str:
    return json.dumps({"pid": pid, "host": host, "process_start": start, "token": "t"})


def leave_lock(folder: Path, content: str, number: int = 1) -> Path:
    lock = folder / f".lock-{number}"
    lock.mkdir(parents=True)
    (lock / "owner.json").write_text(content)
    return lock


def test_a_new_run_says_what_it_is(run: Path) -> None:
    folder = RunFolder.open(run)
    assert folder.config == CONFIG
    assert folder.command_txt.read_text() == "reconverge train --seed 0\n"
    fingerprint = json.loads(folder.fingerprint_json.read_text())
    assert {"versions", "git_commit", "simulator", "machine", "python"} <= set(fingerprint)
    assert fingerprint["versions"]["mujoco"] == "3.3.0"
    assert folder.version_changes() == []


def test_the_policy_joins_the_fingerprint(run: Path) -> None:
    folder = RunFolder.open(run)
    folder.describe_policy(850_000, "residual-mlp")
    fingerprint = json.loads(folder.fingerprint_json.read_text())
    assert (fingerprint["parameters"], fingerprint["denoiser"]) == (850_000, "residual-mlp")
    assert "versions" in fingerprint


def test_another_version_is_noticed(run: Path) -> None:
    folder = RunFolder.open(run)
    with_fingerprint(run, versions={**folder.read_fingerprint()["versions"], "numpy": "1.0.0"})
    assert [change.split(" -> ")[0] for change in folder.version_changes()] == ["numpy 1.0.0"]


def test_a_folder_that_holds_a_run_is_refused_naming_both_ways_out(run: Path) -> None:
    with pytest.raises(RunFolderError, match=r"--resume.*--overwrite"):
        RunFolder.create(run, CONFIG, "again")


def test_overwrite_leaves_nothing_of_the_earlier_run(run: Path) -> None:
    (run / "episodes.csv").write_text("old")
    (run / "checkpoints" / "stage-01").mkdir(parents=True)
    with RunFolder.create(run, dataclasses.replace(CONFIG, seed=7), "again", overwrite=True) as folder:
        assert folder.config.seed == 7
        assert not folder.episodes_csv.exists() and not folder.checkpoints.exists()


def test_overwrite_follows_no_link(run: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "precious"
    elsewhere.mkdir()
    (elsewhere / "data").write_text("kept")
    (run / "link").symlink_to(elsewhere)
    RunFolder.create(run, CONFIG, "again", overwrite=True).close()
    assert (elsewhere / "data").read_text() == "kept"


@pytest.mark.parametrize("name", ["notes.txt", "config.yaml"])
def test_what_is_not_a_run_is_never_deleted(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("seed: 0\n")
    with pytest.raises(RunFolderError, match="nothing there is touched"):
        RunFolder.create(tmp_path, CONFIG, "x", overwrite=True)
    assert (tmp_path / name).read_text() == "seed: 0\n"


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(RunFolderError, match="is a file"):
        RunFolder.create(tmp_path / "run", CONFIG, "x")


def test_a_start_that_was_cut_short_can_be_repeated(run: Path) -> None:
    (run / "config.yaml").unlink()  # written last
    (run / "files.json").unlink()  # written on leaving
    RunFolder.create(run, CONFIG, "again").close()
    assert holds_run(run)


def test_resume_refuses_another_configuration_naming_the_keys_and_values(run: Path) -> None:
    other = dataclasses.replace(CONFIG, seed=3, train=dataclasses.replace(CONFIG.train, updates=9))
    with pytest.raises(RunFolderError, match=r"seed was 0 and is now 3; train\.updates was 2000 and is now 9"):
        RunFolder.resume(run, other)


def test_resume_may_change_the_number_of_workers(run: Path) -> None:
    RunFolder.resume(run, dataclasses.replace(CONFIG, evaluation=dataclasses.replace(CONFIG.evaluation, workers=4))).close()


@pytest.mark.parametrize("method", [RunFolder.open, RunFolder.resume])
def test_a_folder_without_a_run_cannot_be_opened(method: object, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="holds no run"):
        method(tmp_path)  # type: ignore[operator]


def test_one_at_a_time(run: Path) -> None:
    with RunFolder.resume(run), pytest.raises(RunFolderError, match=f"in use by process {os.getpid()}"):
        RunFolder.resume(run)
    RunFolder.resume(run).close()
    assert not [entry for entry in run.iterdir() if entry.name.startswith(".")]


def test_the_lock_of_a_dead_process_is_reclaimed(run: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    leave_lock(run, owner(dead.pid, HERE))
    RunFolder.resume(run).close()


def test_a_process_number_that_was_given_away_again_does_not_hold_the_lock(run: Path) -> None:
    leave_lock(run, owner(os.getpid(), HERE, "not the start of this process"))
    RunFolder.resume(run).close()


def test_another_host_holds_the_lock_while_its_heart_beats(run: Path) -> None:
    lock = leave_lock(run, owner(1, "elsewhere"))
    with pytest.raises(RunFolderError, match="process 1 on elsewhere"):
        RunFolder.resume(run)
    silent_since = time.time() - run_lock.STALE_AFTER_S - 60
    os.utime(lock / "owner.json", (silent_since, silent_since))
    RunFolder.resume(run).close()


def test_a_container_of_the_same_host_name_has_processes_of_its_own(run: Path) -> None:
    """What has this number here is another process, or none."""
    inside = json.dumps({**json.loads(owner(1, HERE)), "process_numbers": "pid:[1]"})
    lock = leave_lock(run, inside)
    with pytest.raises(RunFolderError, match=f"process 1 on {HERE}"):
        RunFolder.resume(run)
    silent_since = time.time() - run_lock.STALE_AFTER_S - 60
    os.utime(lock / "owner.json", (silent_since, silent_since))
    RunFolder.resume(run).close()


@pytest.mark.parametrize("content", ["", "[1]", '{"pid": -1}', '{"pid": "x", "host": null}', owner(-1, HERE), owner(10**30, HERE)])
def test_a_damaged_lock_is_no_lock(content: str, run: Path) -> None:
    leave_lock(run, content)
    RunFolder.resume(run).close()


def test_a_lock_that_cannot_be_read_now_is_not_taken_for_a_stale_one(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_answer(path: Path) -> object:
        raise OSError(errno.EIO, "Input/output error")

    with RunFolder.resume(run) as first:
        with monkeypatch.context() as patched:
            patched.setattr(run_lock, "read_json", no_answer)
            with pytest.raises(RunFolderError, match=r"whether .* is in use cannot be told now .*Input/output error"):
                RunFolder.resume(run)
            standing = run_lock.standing_lock(run)
            assert standing is not None and standing[1]
        assert first.is_held


def test_the_heart_beats(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "HEARTBEAT_S", 0.01)
    lock = RunLock(run)
    os.utime(lock.path / "owner.json", (1, 1))
    deadline_s = time.monotonic() + 5
    while (lock.path / "owner.json").stat().st_mtime < 2 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert (lock.path / "owner.json").stat().st_mtime > 2
    lock.release()
    lock.release()


def test_a_heart_beats_on_after_a_failure_of_the_file_system(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [errno.EIO, errno.ESTALE]
    touch = os.utime

    def utime(path: Path) -> None:
        if failures:
            raise OSError(failures.pop(), "no answer")
        touch(path)

    monkeypatch.setattr(run_lock, "HEARTBEAT_S", 0.01)
    lock = RunLock(run)
    os.utime(lock.path / "owner.json", (1, 1))
    monkeypatch.setattr(os, "utime", utime)
    deadline_s = time.monotonic() + 5
    while (lock.path / "owner.json").stat().st_mtime < 2 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert not failures and (lock.path / "owner.json").stat().st_mtime > 2 and not lock.is_lost()
    lock.release()


def outbid(run: Path, own: Path) -> Path:
    return leave_lock(run, owner(1, "elsewhere"), number=2)


def outbid_and_gone(run: Path, own: Path) -> Path:
    """Whoever took over has finished, and a third process works there by now."""
    shutil.rmtree(own)
    return leave_lock(run, owner(1, "elsewhere"))


@pytest.mark.parametrize("taken", [outbid, outbid_and_gone])
def test_a_process_that_was_outbid_writes_nothing_more(taken: Callable[[Path, Path], Path], run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "HEARTBEAT_S", 0.01)
    before = (run / "fingerprint.json").read_bytes()
    with pytest.raises(RunFolderError, match="another one has taken it over"), RunFolder.resume(run) as folder:
        assert folder.lock is not None and folder._lock is not None
        theirs = taken(run, folder.lock)
        beaten = (theirs / "owner.json").stat().st_mtime_ns
        with pytest.raises(RunFolderError, match="no longer held by this process"):
            folder.check_held()
        with pytest.raises(RunFolderError):
            folder.describe_policy(1, "x")
        folder._lock._heart.join(timeout=5)
        assert not folder._lock._heart.is_alive() and (theirs / "owner.json").stat().st_mtime_ns == beaten
    assert (run / "fingerprint.json").read_bytes() == before and not (run / "files.json").exists() and theirs.is_dir()


def test_the_error_that_ends_a_process_is_not_hidden_by_a_lost_lock(run: Path) -> None:
    with pytest.raises(ZeroDivisionError), RunFolder.resume(run):
        leave_lock(run, owner(1, "elsewhere"), number=2)
        raise ZeroDivisionError
    assert not (run / "files.json").exists()


@pytest.mark.parametrize("stale", [False, True])
def test_of_eight_at_once_exactly_one_proceeds(stale: bool, tmp_path: Path) -> None:
    for round_number in range(25):
        folder = tmp_path / str(round_number)
        folder.mkdir()
        if stale:
            leave_lock(folder, owner(-1, HERE))
        barrier, winners = threading.Barrier(8), []

        def contend(folder: Path = folder, barrier: threading.Barrier = barrier, winners: list[RunLock] = winners) -> None:
            barrier.wait()
            with contextlib.suppress(RunFolderError):
                winners.append(RunLock(folder))

        threads = [threading.Thread(target=contend) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(winners) == 1
        winners[0].release()
        assert not list(folder.iterdir())


def test_a_killed_run_can_be_resumed_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from reconverge.launch.run_folder import RunFolder; from reconverge.launch.config import RunConfig\n"
        "folder = RunFolder.create(Path(sys.argv[1]), RunConfig(curriculum='point-reach:3'), 'x')\n"
        "print('ready', flush=True); import time; time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        with pytest.raises(RunFolderError, match=f"in use by process {process.pid}"):
            RunFolder.resume(tmp_path / "run")
        process.kill()
    RunFolder.resume(tmp_path / "run", CONFIG).close()


def test_a_seal_does_not_vouch_for_what_was_damaged_meanwhile(run: Path) -> None:
    untouched = run / "rollouts" / "stage-01" / "a.safetensors"
    untouched.parent.mkdir(parents=True)
    untouched.write_bytes(b"states")
    with RunFolder.resume(run):
        pass
    when = untouched.stat().st_mtime_ns
    untouched.write_bytes(b"stateS")
    os.utime(untouched, ns=(when, when))
    with RunFolder.resume(run) as folder:
        folder.command_txt.write_text("written by this one\n")
    assert broken_seals(run, read_json(run / "files.json")["files"]) == ["rollouts/stage-01/a.safetensors does not match its hash"]


def test_facts_of_a_run_are_kept_and_other_ones_refused_by_name(run: Path) -> None:
    with RunFolder.resume(run) as folder:
        folder.keep_facts("demonstrations", {"a": "1", "b": "2"})
        folder.keep_facts("demonstrations", {"a": "1"})
        folder.keep_facts("demonstrations", {"c": "3"})
        with pytest.raises(RunFolderError, match=r"began with other demonstrations than are here now \(b\)"):
            folder.keep_facts("demonstrations", {"a": "1", "b": "3"})
    assert read_json(run / "fingerprint.json")["demonstrations"] == {"a": "1", "b": "2", "c": "3"}


def test_what_is_told_of_a_run_is_told_once(run: Path) -> None:
    with RunFolder.resume(run) as folder:
        for _ in range(2):
            folder.note_in_fingerprint("resumed_with", ["torch 2.12.0 -> 2.13.0"])
        assert folder.lines_of("resumed_with") == ["torch 2.12.0 -> 2.13.0"]
        with_fingerprint(run, simulators=["a"])
        with pytest.raises(DamagedFile, match="'simulators' must be a mapping"):
            folder.keep_facts("simulators", {"a": "1"})


def test_a_deleted_folder_ends_the_heartbeat_quietly(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "HEARTBEAT_S", 0.01)
    lock = RunLock(run)
    shutil.rmtree(run)
    lock._heart.join(timeout=5)
    assert not lock._heart.is_alive()
    lock.release()


def test_a_job_that_is_started_again_waits_for_the_attempt_before_it(tmp_path: Path) -> None:
    lock, begun_s = RunLock(tmp_path), time.monotonic()
    wait_until_free(tmp_path, limit_s=0.3, poll_s=0.05)
    assert time.monotonic() - begun_s >= 0.3  # held: no longer than asked
    releasing = threading.Timer(0.2, lock.release)
    releasing.start()
    wait_until_free(tmp_path, limit_s=60.0, poll_s=0.05)
    assert not list(tmp_path.glob(".lock-*")) and time.monotonic() - begun_s < 30
    wait_until_free(tmp_path / "not there yet")
    releasing.join()
