"""A sweep: which of its jobs count as done, and how they are run, resumed and tabulated."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from command_process import start_command, wait_for
from source_files import ROOT
from toy_sweep import TOY, toy, toy_job, write_result

from reconverge.envs import artifact
from reconverge.launch import backend as local_backend
from reconverge.launch import job as jobs_in_folders
from reconverge.launch import sweep
from reconverge.launch.backend import Order
from reconverge.launch.cli import main, parse
from reconverge.launch.commands import Sweep
from reconverge.launch.commands.pages import runs_within
from reconverge.launch.config import RunConfig
from reconverge.launch.config_file import read_config
from reconverge.launch.demonstration_shards import wanted_by
from reconverge.launch.job import look
from reconverge.launch.job_plan import make_job, with_settings
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.sweep import copy_tables
from reconverge.launch.sweep_summary import _over_seeds


class Finished:
    """A job that has ended with an exit code, after being asked a few times."""

    def __init__(self, code: int, polls: int = 0, ended: Callable[[], None] = lambda: None) -> None:
        self.code, self.polls, self.ended, self.asked, self.killed = code, polls, ended, False, False

    def exit_code(self) -> int | None:
        if self.asked or self.killed:
            return -15
        self.polls -= 1
        if self.polls >= 0:
            return None
        self.ended()
        self.ended = lambda: None
        return self.code

    def ask_to_end(self) -> None:
        self.asked = True

    def kill(self) -> None:
        self.killed = True


class Scripted:
    """A backend that writes results instead of training. `behave` may end a job otherwise."""

    def __init__(self, behave: Callable[[Order], Finished | None] = lambda order: None) -> None:
        self.behave = behave
        self.orders: list[Order] = []

    def start(self, order: Order) -> Finished:
        self.orders.append(order)
        other = self.behave(order)
        if other is None:
            self.train(order)
        return other or Finished(0)

    @staticmethod
    def train(order: Order) -> None:
        if order.overwrite or order.folder.exists():
            shutil.rmtree(order.folder)
        write_result(order.folder, read_config(order.config_file), order.command, successes=read_config(order.config_file).seed % 3 + 7)

    @property
    def started(self) -> list[str]:
        return [str(Path(*order.folder.parts[-2:])) for order in self.orders]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Scripted]:
    """Replace the processes of `reconverge sweep`, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "POLL_S", 0.0)
    scripted = Scripted()
    monkeypatch.setattr(local_backend, "LocalBackend", lambda: scripted)
    yield scripted


def run(words: str) -> int:
    return main(["sweep", *TOY.split(), *shlex.split(words)])


# running them ----------------------------------------------------------------------------------------------------------------------


def test_all_jobs_are_run_once_and_tabulated(backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--methods finetune replay --seeds 0..1") == 0
    assert backend.started == ["finetune/seed-0", "replay/seed-0", "finetune/seed-1", "replay/seed-1"]
    said = capsys.readouterr()
    assert re.search(r"finetune +2 of 2 +75\.0 \(11\.5 to 100\.0\) +0\.0 +1\.0\n", said.out)  # what agrees has no interval
    assert "reconverge report runs/sweep/smoke-point-reach-2\n" in said.out
    lines = said.err.splitlines()
    assert len(lines) == 8 and lines[0].startswith("start  finetune/seed-0  (log: runs/sweep/smoke-point-reach-2/finetune/seed-0.log)")
    assert lines[1].startswith("done   finetune/seed-0: success 70.0 %, 1.0 minutes  [1/4 ended  eta 3:00]")
    assert RunFolder.open(Path("runs/sweep/smoke-point-reach-2/replay/seed-1")).command_txt.read_text().startswith("reconverge train --preset smoke")

    assert run("--methods finetune replay --seeds 0..2") == 0
    assert backend.started[4:] == ["finetune/seed-2", "replay/seed-2"]


def test_variations_of_what_a_method_does_not_read_are_one_run(backend: Scripted) -> None:
    assert run("--methods finetune replay --vary replay.source=stored,generator --vary train.updates=5") == 0
    assert [order.folder.parent.as_posix().removeprefix("runs/sweep/smoke-point-reach-2/") for order in backend.orders] == [
        "finetune/train.updates=5",
        "replay/replay.source=stored,train.updates=5",
        "replay/replay.source=generator,train.updates=5",
    ]


def test_published_results_alone_suffice_elsewhere(backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--methods replay --seeds 0 1 --results-dir results/toy"
    assert run(words) == 0
    published = Path("results/toy/replay/seed-1")
    assert {path.name for path in published.iterdir()} <= {*sweep.PUBLISHED, "files.json"} and not (published / "episodes.csv").exists()
    shutil.rmtree("runs")
    capsys.readouterr()
    assert run(words) == 0
    assert len(backend.orders) == 2
    said = capsys.readouterr().out
    assert "2 of 2" in said and "reconverge report results/toy" in said


def test_what_was_done_before_results_were_wanted_is_copied(backend: Scripted) -> None:
    assert run("--methods replay") == 0
    assert run("--methods replay --results-dir results") == 0
    assert len(backend.orders) == 1 and look(Path("results/replay/seed-0"), toy_job(method="replay")).state == "result"


def test_a_part_is_resumed_and_another_run_refused_or_redone(backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("runs/sweep/smoke-point-reach-2/replay/seed-0")
    write_result(folder, toy(method="replay"), stages=1)
    assert run("--methods replay --train.updates 20") == 2
    said = capsys.readouterr()
    assert f"{folder}: train.updates was 10 and is now 20" in said.err and "--overwrite" in said.err and len(said.err.splitlines()) <= 2
    assert backend.orders == []

    backend.behave = lambda order: Finished(0)  # as if the resumed run had ended too early
    assert run("--methods replay") == 1
    assert not backend.orders[-1].overwrite and "ended after stage 1" in capsys.readouterr().out

    backend.behave = lambda order: None
    assert run("--methods replay --train.updates 20 --overwrite") == 0
    assert backend.orders[-1].overwrite
    assert run("--methods replay --train.updates 20 --overwrite") == 0
    assert len(backend.orders) == 2


def test_results_of_another_run_are_not_replaced_unasked(backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    write_result(Path("results/replay/seed-0"), toy(method="replay", device="cuda"))
    words = "--methods replay --results-dir results"
    assert run(words) == 2
    said = capsys.readouterr().err
    assert "device was 'cuda' and is now 'cpu'. To go on with what lies there, give --device cuda; else choose another --results-dir\n" in said
    assert run(f"{words} --overwrite") == 0
    assert read_config(Path("results/replay/seed-0/config.yaml")).device == "cpu"


def test_settings_that_are_all_that_differs_are_advised_as_they_were(backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    def advice(config: RunConfig, words: str = "") -> str:
        write_result(Path("results/replay/seed-0"), config)
        assert run(f"--methods replay --results-dir results {words}") == 2
        shutil.rmtree("results")
        return capsys.readouterr().err.rpartition(". ")[2]

    trained_longer = toy(method="replay", train=dataclasses.replace(toy().train, updates=30))
    said = advice(trained_longer)
    assert said.startswith("To go on with what lies there, give --train.updates 30; else")
    write_result(Path("results/replay/seed-0"), trained_longer)
    assert run(f"--methods replay --results-dir results {said.partition('give ')[2].partition(';')[0]}") == 0 and backend.orders == []
    shutil.rmtree("results")
    assert "--policy.relative-scales-m 0.5 0.1 --recovery.grid 2 5;" in advice(
        with_settings(toy(method="replay"), {"policy.relative_scales_m": [0.5, 0.1], "recovery.grid": [2, 5]})
    )
    for other in (toy(method="replay", curriculum="point-reach:3"), toy(method="ewc"), toy(method="replay", seed=1)):
        assert advice(other) == "Choose another --results-dir\n"


def test_the_first_example_goes_on_with_the_tables_of_this_repository() -> None:
    words = re.findall(r"^ *reconverge sweep (.*)$", Sweep.__doc__ or "", re.MULTILINE)[0].split()
    command = parse(Sweep, words, "reconverge sweep")
    assert isinstance(command, Sweep) and command.results_dir is not None
    for job in command._planned()[:3]:
        assert look(ROOT / command.results_dir / job.path, job).state == "result"


@pytest.mark.parametrize("flags", ["", "--results-dir results", "--overwrite"])
def test_a_job_that_was_done_meanwhile_is_left(flags: str, backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    second = Path("runs/sweep/smoke-point-reach-2/replay/seed-1")
    if flags == "--overwrite":
        write_result(second, toy(method="ewc"))

    def behave(order: Order) -> None:
        shutil.rmtree(second, ignore_errors=True)
        write_result(second, toy(method="replay", seed=1), successes=3)

    backend.behave = behave
    assert run(f"--methods replay --seeds 0..2 {flags}") == 0
    assert backend.started == ["replay/seed-0", "replay/seed-2"]
    said = capsys.readouterr()
    assert "3 of 3" in said.out and "leave  replay/seed-1  (it was done meanwhile)\ndone   replay/seed-1: success 30.0 %" in said.err
    if "results" in flags:
        assert look(Path("results/replay/seed-1"), toy_job(method="replay", seed=1)).state == "result"


def test_a_folder_that_was_taken_meanwhile_fails_its_job_alone(backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    taken = Path("results/replay/seed-1")
    backend.behave = lambda order: None if taken.exists() else write_result(taken, toy(method="ewc", seed=1))
    assert run("--methods replay --seeds 0..2 --results-dir results") == 2
    assert backend.started == ["replay/seed-0", "replay/seed-2"]
    shown = capsys.readouterr().out
    assert "2 of 3" in shown and "results/replay/seed-1: method was 'ewc' and is now 'replay'" in shown
    assert read_config(taken / "config.yaml").method == "ewc"


def test_a_results_folder_that_cannot_be_written_is_noticed_first(backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    assert run("--methods replay --results-dir file/results") == 2
    assert backend.orders == [] and "--results-dir file/results cannot be written (Not a directory)" in capsys.readouterr().err


@pytest.mark.parametrize("other_was_faster", [False, True])
def test_tables_that_cannot_be_copied_fail_their_job_alone(
    other_was_faster: bool, backend: Scripted, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    swap_into_place = artifact.swap_into_place

    def swap(draft: Path, folder: Path) -> None:
        if folder.name == "seed-0":
            if other_was_faster:
                write_result(folder, toy(method="replay"))
            raise OSError(39, "Directory not empty")
        swap_into_place(draft, folder)

    monkeypatch.setattr(artifact, "swap_into_place", swap)
    for _ in range(2):  # the second time all are trained
        assert run("--methods replay --seeds 0..1 --results-dir results") == (0 if other_was_faster else 2)
        assert len(backend.orders) == 2 and look(Path("results/replay/seed-1"), toy_job(method="replay", seed=1)).state == "result"
        assert ("cannot be copied to results/replay/seed-0 (Directory not empty)" in capsys.readouterr().out) != other_was_faster
        assert not list(Path("results").rglob(".*"))


def test_a_copy_that_is_killed_leaves_the_old_or_the_new_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, target = tmp_path / "run", tmp_path / "results" / "seed-0"
    write_result(run, toy())
    write_result(target, toy(method="ewc"))

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(artifact, "swap_into_place", killed)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            copy_tables(run, target)
    assert look(target, toy_job(method="ewc")).state == "result"
    assert [folder.path for folder in runs_within([tmp_path / "results"])] == [target]  # not the draft

    monkeypatch.setattr(artifact, "ABANDONED_S", 0.0)
    copy_tables(run, target)
    assert look(target, toy_job()).state == "result" and list(target.parent.iterdir()) == [target]


def test_files_that_are_no_run_are_never_touched(backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("results", "runs/sweep/smoke-point-reach-2"):
        notes = Path(folder, "replay/seed-0/notes.txt")
        notes.parent.mkdir(parents=True)
        notes.touch()
        assert run("--methods replay --results-dir results --overwrite") == 2
        assert notes.exists() and "not a run's" in capsys.readouterr().err
        shutil.rmtree(notes.parent)


def test_the_copies_need_a_folder_of_their_own(backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ("--output-dir out --results-dir ./out", "--output-dir out --results-dir out/results", "--output-dir out/runs --results-dir out"):
        assert run(words) == 2
        assert "a folder of their own" in capsys.readouterr().err


def test_a_dry_run_shows_and_does_nothing(backend: Scripted, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run("--methods replay --seeds 0..1 --dry-run") == 0
    assert "0 of 2 done, 2 to run: 40 gradient updates; minutes are estimated once a job is done" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [] and backend.orders == []
    write_result(Path("runs/sweep/smoke-point-reach-2/replay/seed-0"), toy(method="replay"))
    write_result(Path("runs/sweep/smoke-point-reach-2/replay/seed-1"), toy(method="replay", seed=1), stages=1)
    assert run("--methods replay --seeds 0..2 --dry-run") == 0
    shown = capsys.readouterr().out
    assert re.search(r"replay/seed-0 +done +20 +1\.0\n.*resume after stage 1 of 2 +20 +~0\.5\n.*start +20 +~1\.0\n", shown)
    assert "1 of 3 done, 2 to run: about 1.5 minutes with --jobs 1" in shown


def test_a_failure_does_not_stop_the_others(backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    def behave(order: Order) -> Finished | None:
        code = {"seed-0": 2, "seed-1": 1, "seed-2": -signal.SIGKILL}.get(order.folder.name, 0)
        order.log.parent.mkdir(parents=True, exist_ok=True)
        order.log.write_text("stage 1/2\nreconverge: the loss is nan; lower it\n" if code == 2 else "Traceback\nZeroDivisionError: bug\n\n")
        return Finished(code) if code else None

    backend.behave = behave
    assert run("--methods replay --seeds 0..3") == 1
    shown = capsys.readouterr().out
    assert "replay  1 of 4" in shown and "3 of 4 jobs failed" in shown
    assert re.search(r"replay/seed-0 +2 +the loss is nan; lower it +runs/sweep/smoke-point-reach-2/replay/seed-0\.log", shown)
    assert "ZeroDivisionError: bug" in shown and "ended by SIGKILL; is there enough memory?" in shown
    assert run("--methods replay --seeds 0") == 2  # all that failed can be mended


def test_the_words_of_an_earlier_attempt_are_not_this_ones(backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    log = Path("runs/sweep/smoke-point-reach-2/replay/seed-0.log")
    log.parent.mkdir(parents=True)
    log.write_text("reconverge: an earlier error\n")

    def behave(order: Order) -> Finished:
        with open(log, "a") as file:
            file.write("stage 1/2\n")
        return Finished(2)

    backend.behave = behave
    assert run("--methods replay") == 2
    shown = capsys.readouterr().out
    assert "exit code 2" in shown and "earlier" not in shown


def test_an_interval_ends_where_rates_do() -> None:
    assert _over_seeds([0.9, 1.0], lowest=0.0) == "95.0 (31.5 to 100.0)"
    assert _over_seeds([0.0, 0.2], lowest=0.0) == "10.0 (0.0 to 100.0)"
    assert _over_seeds([-0.9, 0.9], lowest=-100.0) == "0.0 (-100.0 to 100.0)"


def test_no_more_than_jobs_run_at_once(backend: Scripted) -> None:
    running: list[str] = []
    most: list[int] = []

    def behave(order: Order) -> Finished:
        running.append(order.folder.name)
        most.append(len(running))
        Scripted.train(order)
        return Finished(0, polls=3, ended=lambda: running.remove(order.folder.name))

    backend.behave = behave
    assert run("--methods replay --seeds 0..6 --jobs 3") == 0
    assert max(most) == 3 and len(most) == 7


@pytest.mark.parametrize("there", [False, True], ids=["to be collected", "there"])
def test_a_job_waits_while_another_collects_its_demonstrations(there: bool, backend: Scripted) -> None:
    starts: list[tuple[str, bool]] = []

    def behave(order: Order) -> Finished:
        first = Path("runs/sweep/smoke-point-reach-2/replay/seed-0/ceilings.csv")
        starts.append((order.folder.name, first.exists()))
        return Finished(0, polls=4, ended=lambda: Scripted.train(order))

    backend.behave = behave
    for wanted in wanted_by([toy_job(method="replay")]):
        if there:
            wanted.collection.mkdir(parents=True)
    assert run("--methods replay --seeds 0..1 --jobs 2") == 0
    assert starts == [("seed-0", False), ("seed-1", not there)]


def test_what_cannot_be_read_is_never_deleted(backend: Scripted, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("--methods replay") == 0
    assert backend.started == ["replay/seed-0"]

    def no_answer(folder: Path) -> NoReturn:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(jobs_in_folders, "stored_content", no_answer)
    assert run("--methods replay --overwrite") == 2
    said = capsys.readouterr().err
    assert "Stale file handle" in said and "what cannot be read is never overwritten" in said and "redo these" not in said
    assert backend.started == ["replay/seed-0"] and Path("runs/sweep/smoke-point-reach-2/replay/seed-0/success_matrix.csv").exists()


def test_an_interrupted_sweep_ends_its_jobs_and_says_how_to_go_on(backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = []

    def behave(order: Order) -> Finished:
        if order.folder.name == "seed-1":
            raise KeyboardInterrupt
        (order.folder / ".lock-1").mkdir(parents=True)
        (order.folder / "ceilings.csv").touch()
        jobs.append(Finished(0, polls=10**9))
        return jobs[-1]

    backend.behave = behave
    assert run("--methods replay --seeds 0..1 --jobs 2") == 75
    assert jobs[0].asked and not jobs[0].killed
    assert "go on with the same command: reconverge sweep --preset smoke" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["--methods replay --method ewc", "--seeds 1 --seed 5"])
def test_one_of_a_thing_beside_several_is_refused(words: str, backend: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    assert "contradicts" in capsys.readouterr().err


def test_a_single_method_and_seed_may_be_given_in_the_singular(backend: Scripted) -> None:
    assert run("--method ewc --seed 5") == 0
    assert backend.started == ["ewc/seed-5"]


# with real runs --------------------------------------------------------------------------------------------------------------------


def start(folder: Path, words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "reconverge.launch", "sweep", *TOY.split(), *words.split()]
    return start_command(command, folder, {**os.environ, "OMP_NUM_THREADS": "1"})


LONG = "--methods finetune --seeds 0 --train.updates 30000 --train.log-every 1"


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_that_is_stopped_leaves_no_process_and_its_job_resumes(blow: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "runs/sweep/smoke-point-reach-2/finetune/seed-0"
    process = start(tmp_path, LONG)
    wait_for((folder / "metrics.jsonl").exists, process=process)
    process.send_signal(blow)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (-9 if blow == signal.SIGKILL else 75)
    assert blow == signal.SIGKILL or "go on with the same command: reconverge sweep" in said
    wait_for_release(folder)
    held = look(folder, make_job(read_config(folder / "config.yaml"), "smoke"))
    assert (held.state, held.stages_done) == ("part", 0)


def wait_for_release(folder: Path) -> None:
    """Until no living process holds the folder, which `resume` would refuse otherwise."""
    deadline = time.monotonic() + 30
    while list(folder.glob(".lock-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    with RunFolder.resume(folder):
        pass


def test_a_killed_job_is_resumed_and_a_failing_one_reported_beside_it(tmp_path: Path) -> None:
    variations = "--vary train.optimizer.learning_rate=1e-3,1e30"
    steady, diverging = (f"train.optimizer.learning_rate={rate}" for rate in ("0.001", "1e+30"))
    with RunFolder.create(tmp_path / "out/finetune" / steady / "seed-0", toy(method="finetune"), "as a run that was killed at once"):
        pass
    process = start(tmp_path, f"--methods finetune {variations} --output-dir out --jobs 2 --results-dir results")
    shown, said = process.communicate(timeout=240)
    assert process.returncode == 2, shown + said
    assert f"resume  finetune/{steady}/seed-0" in said and f"start  finetune/{diverging}/seed-0" in said
    assert re.search(rf"finetune/{re.escape(diverging)}/seed-0 +2 +the [a-z ]+ (is|are) (nan|inf|not finite) at stage 1", shown)
    assert re.search(rf"finetune/{steady} +1 of 1", shown)
    assert look(tmp_path / "results/finetune" / steady / "seed-0", toy_job(method="finetune")).state == "result"
    assert not (tmp_path / "results/finetune" / diverging).exists()
