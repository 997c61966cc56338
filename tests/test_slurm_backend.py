"""A sweep in a Slurm queue, which stand-ins on PATH play: requeued at the time limit, cancelled, taken up again, refused."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import fake_slurm
import pytest
from command_process import finished, start_command, wait_for
from run_files import differing_tables
from toy_sweep import TOY

from reconverge.envs.errors import BackendUnavailable, ConfigError
from reconverge.launch import slurm_backend
from reconverge.launch.backend import Order
from reconverge.launch.cli import main
from reconverge.launch.slurm_backend import SlurmBackend, SlurmOptions

HOSTILE = "it's $(touch canary); `touch canary` & %j \"x\""
"""A folder's name with all that a shell or Slurm's patterns could take amiss."""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the stand-ins keep their jobs; they are first on PATH."""
    queue = tmp_path / "queue"
    queue.mkdir()
    fake_slurm.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(queue))
    monkeypatch.setattr(slurm_backend, "POLL_S", 0.05)
    monkeypatch.setattr(slurm_backend, "GRACE_S", 0.2)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return queue


def order(folder: Path, log: str = "log") -> Order:
    return Order(folder / "a.yaml", folder / "a.curriculum.yaml", folder / "run", folder / log, "reconverge train")


def calls(slurm: Path, name: str) -> list[str]:
    return [line for line in (slurm / "calls").read_text().splitlines() if line.startswith(name)]


def with_command(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """Let jobs run something quick instead of training."""
    monkeypatch.setattr(Order, "words", property(lambda self: [*words]))


def test_the_exit_code_and_the_words_of_a_job_come_back_from_any_folder(slurm: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / HOSTILE
    folder.mkdir()
    monkeypatch.chdir(folder)
    with_command(monkeypatch, sys.executable, "-c", "import os; print('in', os.getcwd()); raise SystemExit(3)", HOSTILE)
    job = SlurmBackend(SlurmOptions(partition=HOSTILE, minutes=30, gpus=1, others=("mem=8G",))).start(order(folder, "a log"))
    wait_for(lambda: job.exit_code() is not None, 20)
    assert job.exit_code() == 3 and (folder / "a log").read_text() == f"in {folder}\n"
    given = json.loads((slurm / "1" / "arguments").read_text())
    assert {f"--partition={HOSTILE}", "--time=30", "--gres=gpu:1", "--mem=8G", "--requeue", "--signal=B:USR1@120"} <= set(given)
    assert not list(tmp_path.rglob("canary"))


def test_a_job_that_leaves_without_a_code_says_how_it_ended(slurm: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with_command(monkeypatch, sys.executable, "-c", "import time; time.sleep(60)")
    job = SlurmBackend(SlurmOptions()).start(order(tmp_path))
    assert job.exit_code() is None
    os.killpg(int((slurm / "1" / "pid").read_text()), signal.SIGKILL)
    wait_for(lambda: job.exit_code() is not None, 20)
    assert job.exit_code() == 1 and "Slurm job 1 has left the queue (OUT_OF_MEMORY)" in (tmp_path / "log").read_text()


def test_a_job_that_is_in_the_queue_is_not_submitted_again(slurm: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with_command(monkeypatch, sys.executable, "-c", "import time; time.sleep(1.5)")
    first = SlurmBackend(SlurmOptions()).start(order(tmp_path))
    second = SlurmBackend(SlurmOptions()).start(order(tmp_path))  # of a sweep that was started anew
    assert first.number == second.number and len(calls(slurm, "sbatch")) == 1
    wait_for(lambda: second.exit_code() == 0, 20)
    third = SlurmBackend(SlurmOptions()).start(order(tmp_path))
    assert third.number == 2


@pytest.mark.parametrize("busy", ["child=$!", "sleep 0.3; child=$!"])
def test_a_job_that_is_told_to_save_before_it_trains_is_requeued_too(
    slurm: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, busy: str
) -> None:
    """While it imports or waits for the folder there is nothing to save: it ends with 130. The script may be slow to look after its start."""
    monkeypatch.setattr(slurm_backend, "SCRIPT", slurm_backend.SCRIPT.replace("child=$!", busy))
    monkeypatch.chdir(tmp_path)
    waits = "test -e began && exit 0; trap 'exit 130' TERM; touch began; while :; do sleep 0.05; done"
    with_command(monkeypatch, "bash", "-c", waits)
    job = SlurmBackend(SlurmOptions()).start(order(tmp_path))
    wait_for((tmp_path / "began").exists, 20)
    os.kill(int((slurm / "1" / "pid").read_text()), signal.SIGUSR1)
    wait_for(lambda: job.exit_code() is not None, 20)
    assert job.exit_code() == 0 and calls(slurm, "scontrol") == ["scontrol requeue 1"]


def test_a_queue_that_does_not_answer_submits_nothing_twice(slurm: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with_command(monkeypatch, "bash", "-c", "while [ ! -e enough ]; do sleep 0.05; done")
    first = SlurmBackend(SlurmOptions()).start(order(tmp_path))
    squeue = tmp_path / "bin" / "squeue"
    answering = squeue.read_text()
    squeue.write_text("#!/bin/sh\necho busy >&2; exit 1\n")
    with pytest.raises(BackendUnavailable, match="squeue refused: busy"):
        SlurmBackend(SlurmOptions()).start(order(tmp_path))
    squeue.write_text(answering)
    assert SlurmBackend(SlurmOptions()).start(order(tmp_path)).number == first.number and len(calls(slurm, "sbatch")) == 1
    (tmp_path / "enough").touch()
    wait_for(lambda: first.exit_code() == 0, 20)


def test_a_queue_that_stops_answering_is_not_taken_for_an_empty_one(slurm: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also when a look at it has failed before: that is no answer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm_backend, "POLL_S", 0.0)
    with_command(monkeypatch, "bash", "-c", "while [ ! -e enough ]; do sleep 0.05; done")
    first = SlurmBackend(SlurmOptions()).start(order(tmp_path))
    squeue = tmp_path / "bin" / "squeue"
    answering = squeue.read_text()
    squeue.write_text("#!/bin/sh\necho busy >&2; exit 1\n")
    later = SlurmBackend(SlurmOptions())
    assert not later._queue.holds(first.number)
    with pytest.raises(BackendUnavailable, match="squeue refused: busy"):
        later.start(order(tmp_path))
    squeue.write_text(answering)
    assert later.start(order(tmp_path)).number == first.number and len(calls(slurm, "sbatch")) == 1
    (tmp_path / "enough").touch()
    wait_for(lambda: first.exit_code() == 0, 20)


def test_a_job_that_was_told_to_stop_is_waited_for_and_submitted_anew(slurm: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm_backend, "POLL_S", 0.05)
    saves = "trap 'while [ ! -e enough ]; do sleep 0.05; done; touch saved; exit 75' TERM; touch began; while :; do sleep 0.05; done"
    saves = f"[ -e saved ] && exit 0; {saves}"
    with_command(monkeypatch, "bash", "-c", saves)
    first = SlurmBackend(SlurmOptions()).start(order(tmp_path))
    wait_for((tmp_path / "began").exists, 20)
    first.ask_to_end()
    second = SlurmBackend(SlurmOptions()).start(order(tmp_path))  # of a sweep that was started anew at once, and is not held up
    assert not (tmp_path / "saved").exists() and len(calls(slurm, "sbatch")) == 1
    (tmp_path / "enough").touch()
    wait_for(lambda: second.exit_code() == 0, 20)
    assert second.number == 2 and (tmp_path / "saved").exists() and len(calls(slurm, "scancel")) == 2  # by the first alone


def test_a_sweep_that_is_stopped_while_it_waits_submits_nothing(slurm: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    saves = "trap 'while [ ! -e enough ]; do sleep 0.05; done; exit 75' TERM; touch began; while :; do sleep 0.05; done"
    with_command(monkeypatch, "bash", "-c", saves)
    first = SlurmBackend(SlurmOptions()).start(order(tmp_path))
    wait_for((tmp_path / "began").exists, 20)
    first.ask_to_end()
    second = SlurmBackend(SlurmOptions()).start(order(tmp_path))
    assert second.exit_code() is None
    second.ask_to_end()
    (tmp_path / "enough").touch()
    wait_for(lambda: second.exit_code() == 75, 20)
    assert len(calls(slurm, "sbatch")) == 1


def test_a_job_that_does_not_leave_is_reminded_once(slurm: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with_command(monkeypatch, "bash", "-c", "trap '[ -e told ] && exit 75; touch told' TERM; touch began; while :; do sleep 0.05; done")
    first = SlurmBackend(SlurmOptions()).start(order(tmp_path))
    wait_for((tmp_path / "began").exists, 20)
    first.ask_to_end()
    wait_for((tmp_path / "told").exists, 20)
    monkeypatch.setattr(slurm_backend, "WARNING_S", 0.2)
    second = SlurmBackend(SlurmOptions()).start(order(tmp_path))
    wait_for(lambda: second.exit_code() is not None or len(calls(slurm, "sbatch")) == 2, 20)
    assert len(calls(slurm, "scancel")) == 4
    second.kill()


@pytest.mark.slow
def test_a_job_that_always_asks_for_more_time_ends_some_day(slurm: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm_backend, "MOST_REQUEUES", 2)
    with_command(monkeypatch, sys.executable, "-c", "raise SystemExit(75)")
    job = SlurmBackend(SlurmOptions()).start(order(tmp_path))
    wait_for(lambda: job.exit_code() == 75, 20)
    assert calls(slurm, "scontrol") == ["scontrol requeue 1"] * 2


def test_what_the_queue_refuses_is_the_failure_of_that_job(
    slurm: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *TOY.split(), "--backend", "slurm", "--slurm-partition", "nowhere"]) == 2
    assert "sbatch refused: sbatch: error: invalid partition specified: nowhere" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("--backend slurm --cpus-per-job 0.5", "Slurm gives whole ones"),
        ("--backend slurm --slurm-minutes 3", "give more than 4"),
        ("--backend slurm --slurm-options --mem=8G", "unknown option '--mem'"),
        ("--backend slurm --slurm-options signal=B:USR1", "the sweep sets itself"),
        ("--backend slurm --slurm-options clusters=b", "the sweep sets itself"),
        ("--backend slurm --slurm-options arr=0-3", "the sweep sets itself"),
        ("--backend slurm --slurm-options 8G", "without their dashes"),
        ("--backend slurm --device cuda:1", "use --device cuda"),
        ("--backend local --slurm-minutes 30", "goes with --backend slurm"),
        ("--backend slurm --ray-address local", "goes with --backend ray"),
        ("--gpus-per-job 1", "goes with --backend ray or slurm"),
        ("--backend ray --cpus-per-job 0", "must be at least 0.01"),
        ("--backend ray --gpus-per-job nan", "must be at least 0"),
        ("--backend ray --gpus-per-job 1.5", "fractions of one GPU only"),
        ("--backend slum", "did you mean 'slurm'?"),
        ("--jobs 0", "must be at least 1"),
    ],
)
def test_options_that_cannot_be_are_refused(
    words: str, hint: str, slurm: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *TOY.split(), *words.split()]) == 2
    assert hint in capsys.readouterr().err and not (slurm / "calls").exists()


def test_a_machine_without_slurm_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendUnavailable, match="needs sbatch, squeue, scancel, not found on PATH"):
        SlurmBackend(SlurmOptions())
    with pytest.raises(ConfigError):
        SlurmBackend(SlurmOptions(others=("wrap=x",)))


# with real runs --------------------------------------------------------------------------------------------------------------------

LONGER = "--methods replay --seeds 0 --train.updates 150 --train.log-every 1"


def sweep(folder: Path, words: str) -> subprocess.Popen[str]:
    """The command in a process of its own that heeds Ctrl-C, with a short poll."""
    code = "import sys; from reconverge.launch import slurm_backend, cli; slurm_backend.POLL_S = 0.1; sys.exit(cli.main(sys.argv[1:]))"
    folder.mkdir(exist_ok=True)
    return start_command([sys.executable, "-c", code, "sweep", *TOY.split(), *words.split()], folder)


def updates(run: Path) -> list[tuple[int, int]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["stage"], row["update"]) for row in rows]


@pytest.mark.slow
def test_a_run_that_meets_its_time_limit_is_requeued_once_and_ends_with_the_same_tables(slurm: Path, tmp_path: Path) -> None:
    there = Path("runs/sweep/smoke-point-reach-2/replay/seed-0")
    finished(sweep(tmp_path / "local", LONGER))
    process = sweep(tmp_path / "in a queue", f"{LONGER} --backend slurm --slurm-minutes 10")
    run = tmp_path / "in a queue" / there
    wait_for(lambda: (run / "metrics.jsonl").exists() and len((run / "metrics.jsonl").read_bytes().splitlines()) > 20)
    os.kill(int((slurm / "1" / "pid").read_text()), signal.SIGUSR1)  # as Slurm does with --signal=B:USR1@120
    finished(process)
    assert calls(slurm, "scontrol") == ["scontrol requeue 1"] and len(calls(slurm, "sbatch")) == 1
    log = run.with_name("seed-0.log").read_text()
    assert "saved; requeued as Slurm job 1" in log and re.search(r"resumed after stage 0 of 2, at update \d+ of stage 1", log)
    local = tmp_path / "local" / there
    assert updates(run) == updates(local) and len(updates(run)) == 300
    assert differing_tables(run, local) == []
    assert "1 of 1" in finished(sweep(tmp_path / "in a queue", f"{LONGER} --backend slurm")) and len(calls(slurm, "sbatch")) == 1


@pytest.mark.slow
def test_ctrl_c_ends_the_job_saved_and_without_requeueing(slurm: Path, tmp_path: Path) -> None:
    process = sweep(tmp_path / "queue's", f"{LONGER} --backend slurm --save-minutes 0")
    run = tmp_path / "queue's/runs/sweep/smoke-point-reach-2/replay/seed-0"
    wait_for(lambda: (run / "metrics.jsonl").exists())
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75 and "go on with the same command" in said
    assert calls(slurm, "scontrol") == [] and (run / "checkpoints").is_dir() and not list(run.glob(".lock-*"))
    assert not fake_slurm.runs(slurm / "1")
