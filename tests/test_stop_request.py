"""SIGTERM, SIGINT and SIGUSR1: what is held is finished first, what is not is broken off, a second signal leaves at once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from forked_run import everything
from small_run import run, tiny, toy_config

from reconverge.eval.config import RecoveryConfig
from reconverge.launch import recovery_probe, run_folder
from reconverge.launch.cli import main
from reconverge.launch.curriculum_run import CurriculumRun, train
from reconverge.launch.progress import Progress
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.stage_evaluation import StageEvaluation
from reconverge.launch.stop_request import REQUEUE, SIGNALS, Stopped, StopRequest, interruptions_held
from reconverge.policy.learner import Learner
from reconverge.replay.trajectory_generator import TrajectoryGenerator


def test_a_closed_terminal_is_a_wish_too() -> None:
    assert set(SIGNALS) == {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1}


@pytest.mark.parametrize("number", SIGNALS)
def test_what_is_held_is_finished_first(number: int) -> None:
    done = []
    with pytest.raises(Stopped), StopRequest() as stop, stop.held():
        os.kill(os.getpid(), number)
        done.append("the update")
        stop.check()
        done.append("another one")
    assert done == ["the update"]
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


def test_a_wish_that_an_inner_one_heard_is_known_to_the_outer_one() -> None:
    with StopRequest() as outer:
        with pytest.raises(Stopped), StopRequest():
            os.kill(os.getpid(), signal.SIGTERM)
        assert outer.wanted
        with outer.held():  # what is cleaned up after a wish was obeyed is not stopped by the same wish
            os.kill(os.getpid(), signal.SIGTERM)


def test_an_error_is_not_hidden_by_a_wish_that_waited() -> None:
    with pytest.raises(OSError, match="disk full"), StopRequest() as stop:
        try:
            with stop.held():
                os.kill(os.getpid(), signal.SIGTERM)
                raise OSError("disk full")
        finally:
            with interruptions_held():
                pass  # such as the line that says how long it took


def test_an_interruption_waits_even_if_another_thread_takes_the_signal() -> None:
    done, taker = [], threading.Thread(target=time.sleep, args=(1.0,))
    taker.start()
    with pytest.raises(Stopped), StopRequest(), interruptions_held():
        signal.pthread_kill(taker.ident or 0, signal.SIGINT)
        time.sleep(0.05)
        done.append("the import")
    assert done == ["the import"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    taker.join()


def test_what_is_not_held_is_broken_off() -> None:
    with pytest.raises(Stopped), StopRequest() as stop, stop.held(), stop.released():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        pytest.fail("it went on")


def test_a_wish_that_came_while_held_is_met_at_the_end_of_the_block_or_on_release() -> None:
    for leave in ("end", "release"):
        done = []
        with pytest.raises(Stopped), StopRequest() as stop:
            with stop.held():
                os.kill(os.getpid(), signal.SIGTERM)
                done.append("held")
                if leave == "release":
                    with stop.released():
                        done.append("released")
            done.append("after")
        assert done == ["held"]


def test_a_second_signal_leaves_at_once(tmp_path: Path) -> None:
    script = """
import time
from reconverge.launch.stop_request import StopRequest
with StopRequest() as stop, stop.held():
    print("ready", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)  # the same one, by another way
    time.sleep(1.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    _, said = process.communicate(timeout=10)
    assert time.monotonic() - began < 1 and process.returncode == 128 + signal.SIGTERM
    assert b"a second signal leaves at once" in said


def strike_in(place: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the signal come from within, at the second time that `place` is reached: in the middle of what happens there."""
    kind, name = {
        "update": (Learner, "_clip_gradient"),
        "recovery": (StageEvaluation, "curve_point"),
        "fisher": (Learner, "end_stage"),
        "generator": (TrajectoryGenerator, "_measure"),
        "evaluate": (CurriculumRun, "evaluate"),
        "finish": (CurriculumRun, "_write_tables"),
    }[place]
    original, reached = getattr(kind, name), []

    def struck(*given: object, **named: object) -> object:
        reached.append(1)
        if len(reached) == 2:
            os.kill(os.getpid(), number)
        return original(*given, **named)

    monkeypatch.setattr(kind, name, struck)


@pytest.mark.parametrize("place", ["update", "recovery", "fisher", "generator", "evaluate", "finish"])
def test_stopped_in_any_loop_it_saves_and_goes_on_to_the_same_bits(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(tmp_path, curriculum="point-reach:2")
    config = replace(config, recovery=replace(config.recovery, grid=(2, 5, config.train.updates)))  # the last is the matrix's, not measured again
    expected = everything(run(tmp_path / "golden", config))
    with monkeypatch.context() as patched, RunFolder.create(tmp_path / "stopped", config, "test") as folder:
        strike_in(place, signal.SIGINT if place == "recovery" else signal.SIGTERM, patched)
        with pytest.raises(Stopped):
            train(config, folder, Progress("quiet"))
    assert (folder.path / "files.json").exists()
    with RunFolder.resume(folder.path) as folder:
        train(config, folder, Progress("quiet"))
    found = everything(folder.path)
    assert [name for name in expected if found.get(name) != expected[name]] == [] and set(found) == set(expected)


def test_a_stopped_command_says_how_to_go_on_and_leaves_with_75(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    strike_in("update", signal.SIGUSR1, monkeypatch)
    in_process = ["--demonstrations.workers", "0", "--evaluation.workers", "0", "--threads", "1"]
    assert main(["train", "--preset", "smoke", *in_process, "--output-dir", "run", "--quiet"]) == REQUEUE
    assert capsys.readouterr().err.endswith("\nreconverge: stopped; go on with: reconverge train --resume run\n")


@pytest.mark.parametrize("place", ["probe", "report"])
def test_a_stopped_recover_goes_on_to_the_same_tables(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    base = toy_config(tmp_path, curriculum="point-reach:2", method="finetune")
    path = run(Path("whole"), replace(base, train=replace(base.train, updates=150), recovery=RecoveryConfig(4, (2, 10), probe_updates=20)))
    shutil.copytree(path, "stopped")
    assert main(["recover", "whole", "--quiet"]) == 0
    with monkeypatch.context() as patched:
        original, reached = recovery_probe._Probe._measure, []

        def struck(*given: Any) -> Any:
            reached.append(1)
            if len(reached) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(*given)

        if place == "probe":
            patched.setattr(recovery_probe._Probe, "_measure", struck)
        else:
            patched.setattr("reconverge.launch.commands.measure.report_on", lambda *given: os.kill(os.getpid(), signal.SIGINT))
        capsys.readouterr()
        assert main(["recover", "stopped", "--quiet"]) == REQUEUE
    assert capsys.readouterr().err.endswith("\nreconverge: stopped; go on with the same command: reconverge recover stopped --quiet\n")
    assert main(["recover", "stopped", "--quiet"]) == 0
    for name in ("probes.json", "recovery.csv", "recovery_curves.csv"):
        assert Path("stopped", name).read_bytes() == Path("whole", name).read_bytes()


def test_a_second_signal_while_the_process_winds_up_does_not_change_its_code(tmp_path: Path) -> None:
    """The interpreter takes a while to end: what comes then, by another way, would be met as if nobody had listened."""
    script = """
import atexit, os, signal
from reconverge.launch.stop_request import REQUEUE, leave
atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))
leave(REQUEUE)
"""
    assert subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=False).returncode == REQUEUE


def test_a_signal_while_the_folder_is_closed_does_not_change_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    strike_in("update", signal.SIGTERM, monkeypatch)
    original = run_folder.seal
    monkeypatch.setattr(run_folder, "seal", lambda *given: (os.kill(os.getpid(), signal.SIGTERM), original(*given)))
    in_process = ["--demonstrations.workers", "0", "--evaluation.workers", "0", "--threads", "1"]
    assert main(["train", "--preset", "smoke", *in_process, "--output-dir", "run", "--quiet"]) == REQUEUE
    assert (tmp_path / "run" / "files.json").exists()


def test_stopped_before_there_is_a_run_it_says_to_give_the_command_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(RunFolder, "create", lambda *given: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["train", "--preset", "smoke", "--output-dir", "run", "--quiet"]) == REQUEUE
    assert capsys.readouterr().err.endswith("\nreconverge: stopped; go on with: reconverge train --preset smoke --output-dir run --quiet\n")
