"""What doctor finds: a tampered table, another simulator, a driver that hangs or crashes, a machine with less than it seems."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconverge.envs import golden_episodes
from reconverge.envs.errors import DamagedFile
from reconverge.envs.golden_episodes import CW10, GoldenEpisode, GoldenTable, compare, golden_text, parse_golden, play, read_golden
from reconverge.launch import doctor
from reconverge.launch.bounded_check import NoAnswer, TooSlow, in_a_process, in_a_thread
from reconverge.launch.cli import main
from reconverge.launch.doctor import Finding, examine
from reconverge.launch.machine_limits import existing, free_memory, granted_cores

# golden episodes -----------------------------------------------------------------------------------------------------------------------------


def test_the_table_that_is_shipped_covers_the_ten_tasks_and_names_the_pins() -> None:
    table = read_golden()
    assert [episode.task for episode in table.episodes] == [task for task in CW10 for _ in range(3)]
    assert table.versions == {"mujoco": "3.3.0", "metaworld": "3.1.1"} and "metaworld 3.1.1, mujoco 3.3.0, models" in table.simulator
    assert parse_golden(golden_text(table)) == table


FACTS = "# mujoco: 3\n# metaworld: 3\n# simulator: s\n# machine: m\n"


@pytest.mark.parametrize("damage", ["", "task,seed\n1,2\n", "# mujoco: 3\n", f"{FACTS}task,seed\nx,y\n"])
def test_a_damaged_table_is_refused(damage: str) -> None:
    with pytest.raises(DamagedFile, match="install reconverge again"):
        parse_golden(damage)


def recorded() -> tuple[GoldenEpisode, ...]:
    return (GoldenEpisode("hammer-v3", 1, 70, 75, "a" * 64, 0.25), GoldenEpisode("push-v3", 2, 55, 60, "b" * 64, 0.19))


@pytest.mark.parametrize(
    ("changed", "place", "verdict"),
    [
        ({}, 0, "identical"),
        ({"observations_sha256": "c" * 64, "mean": 0.25 + 1e-12}, 0, "last bits"),
        ({"observations_sha256": "c" * 64, "mean": 0.25 + 1e-6}, 0, "different"),
        ({"observations_sha256": "c" * 64, "success_step": 71, "steps": 76}, 0, "different"),
        ({"observations_sha256": "c" * 64, "success_step": 57, "steps": 62, "mean": 0.191}, 1, "last bits"),
        ({"observations_sha256": "c" * 64, "success_step": None, "steps": 200}, 1, "different"),
    ],
)
def test_how_episodes_are_judged(changed: dict[str, Any], place: int, verdict: str) -> None:
    played = list(recorded())
    played[place] = replace(played[place], **changed)
    found = compare(recorded(), played)
    assert found.verdict == verdict
    assert (found.tasks == (played[place].task,)) == bool(changed)


@pytest.mark.mujoco
def test_the_simulator_here_is_the_one_of_the_results_and_a_changed_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from reconverge.envs import metaworld_model

    table, tasks = read_golden().episodes, ("window-close-v3",)
    assert compare(table, list(play(tasks, 1))).verdict in ("identical", "last bits")
    tampered = [replace(episode, success_step=3) for episode in table]
    assert compare(tampered, list(play(tasks, 1))).verdict == "different"

    made = metaworld_model.SharedModel.__init__

    def with_change(change: Callable[[Any], None]) -> None:
        def changed(self: Any, name: str) -> None:
            made(self, name)
            change(self.model)

        monkeypatch.setattr(metaworld_model.SharedModel, "__init__", changed)

    def weaker(model: Any) -> None:
        model.opt.gravity[:] *= 0.99

    def slower(model: Any) -> None:
        model.opt.timestep *= 1.001

    for change in (weaker, slower):
        with_change(change)
        found = compare(table, list(play(tasks, 1)))
        assert found.verdict == "different" and found.tasks == tasks


def verdict(monkeypatch: pytest.MonkeyPatch, **answer: Any) -> list[Finding]:
    whole = {"verdict": "identical", "episodes": 30, "tasks": [], "worst": "", "seconds": 2.0, "steps": 2000, **answer}
    monkeypatch.setattr(doctor, "_tried", lambda *_: whole)
    return doctor._simulator()


def test_what_doctor_says_of_the_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    same, speed = verdict(monkeypatch)
    assert same.fine and not same.note and "identical" in same.found and "1000 simulator steps/s" in speed.found
    rounded, _ = verdict(monkeypatch, verdict="last bits")
    assert rounded.fine and rounded.note and "last bits differ" in rounded.found
    other, _ = verdict(monkeypatch, verdict="different", tasks=["push-v3"], worst="push-v3, seed 2: no success here")
    assert "push-v3" in other.found and other.fix.endswith("-m pip install --force-reinstall --no-deps mujoco==3.3.0 metaworld==3.1.1")


def test_what_takes_too_long_is_tried_again_before_anything_is_installed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(*_: Any) -> Any:
        raise TooSlow("no answer within 30 s")

    monkeypatch.setattr(doctor, "_tried", wait)
    (simulator,), (torch,) = doctor._simulator(), doctor._torch()
    for finding in (simulator, torch):
        assert finding.fix.startswith("run it again when the machine is idle; if it stays: ") and "--force-reinstall" in finding.fix


def test_a_simulator_that_crashes_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: Any) -> Any:
        raise NoAnswer("crashed (SIGSEGV)")

    monkeypatch.setattr(doctor, "_tried", crash)
    (simulator,), (rendering,), (torch,) = doctor._simulator(), doctor._rendering(), doctor._torch()
    assert "crashed (SIGSEGV)" in simulator.found and "mujoco==3.3.0" in simulator.fix
    assert rendering.fix == "apt-get install -y libegl1 libgl1-mesa-dri" and "egl does not" in rendering.found
    assert "torch" in torch.fix


def test_another_version_or_another_file_of_the_pinned_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    table = read_golden()
    monkeypatch.setattr(golden_episodes, "read_golden", lambda: replace(table, versions={**table.versions, "mujoco": "3.4.0"}))
    (version,) = doctor._pinned()
    assert "results are made with mujoco 3.4.0" in version.found and "mujoco==3.4.0" in version.fix
    monkeypatch.setattr(golden_episodes, "read_golden", lambda: GoldenTable(table.versions, "models 0", "m", table.episodes))
    (files,) = doctor._pinned()
    assert "files of it were changed" in files.found and "--force-reinstall" in files.fix


# nothing takes doctor down -------------------------------------------------------------------------------------------------------------------


def test_a_child_that_hangs_crashes_or_fails_gives_no_answer() -> None:
    assert in_a_process("print('here')", 20).strip() == "here"
    started_s = time.perf_counter()
    with pytest.raises(NoAnswer, match=r"no answer within 0\.5 s"):
        in_a_process("import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)", 0.5)
    assert time.perf_counter() - started_s < 5
    with pytest.raises(NoAnswer, match=r"crashed \(SIGSEGV\)"):
        in_a_process("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 20)
    with pytest.raises(NoAnswer, match="ValueError: such"):
        in_a_process("raise ValueError('such')", 20)


def test_a_check_that_hangs_or_raises_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoAnswer, match="no answer within"):
        in_a_thread(lambda: time.sleep(30), 0.05)

    def raises() -> list[Finding]:
        raise OSError("stale file handle")

    monkeypatch.setattr(doctor, "QUICK", {"room": raises})
    (finding,) = examine(quick=True)
    assert "this check failed: OSError: stale file handle" in finding.found and not finding.fine


# the machine ---------------------------------------------------------------------------------------------------------------------------------


def test_a_container_grants_less_than_the_machine_has(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text("1000000000\n")
    (tmp_path / "memory.current").write_text("400000000\n")
    assert granted_cores(tmp_path) == 0.5 and free_memory(tmp_path) == 6e8
    (tmp_path / "memory.stat").write_text("anon 150000000\ninactive_file 250000000\nactive_file 1\n")  # what was read and can be dropped
    assert free_memory(tmp_path) == 8.5e8
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert granted_cores(tmp_path) >= 1 and free_memory(tmp_path) > 0
    assert math.isinf(free_memory(tmp_path, tmp_path / "none"))
    (tmp_path / "cpu.max").write_text("nonsense")
    assert granted_cores(tmp_path) >= 1
    first = tmp_path / "first" / "memory"
    first.mkdir(parents=True)
    for name, text in (("limit_in_bytes", "1000000000"), ("usage_in_bytes", "400000000")):
        (first / f"memory.{name}").write_text(f"{text}\n")
    assert free_memory(first.parent) == 6e8
    (first / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 250000000\n")
    assert free_memory(first.parent) == 8.5e8


@pytest.mark.parametrize(
    ("patched", "value", "check", "found", "fix"),
    [
        ("free_memory", lambda: 5e8, "memory", "0.5 GB can be had; a run needs 1 GB", "end other programs"),
        ("free_bytes", lambda folder: 5e7, "room", "a run needs 200 MB", "--output-dir"),
        ("open_file_limits", lambda: (64.0, 1e6), "open files", "at most 64", "ulimit -n 4096"),
        ("open_file_limits", lambda: (64.0, 64.0), "open files", "at most 64", "administrator"),
        ("can_start_threads", lambda count: False, "threads", "fewer than 32 more threads", "ulimit -u"),
    ],
)
def test_too_little_is_named_with_its_fix(
    patched: str, value: Any, check: str, found: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(doctor, patched, value)
    first = doctor.QUICK[check]()[0]
    assert found in first.found and fix in first.fix


def test_more_threads_than_cores_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "granted_cores", lambda: 2.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert doctor._threads()[0].fix == "export OMP_NUM_THREADS=2"
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(doctor, "usable_cores", lambda: 64)
    assert doctor._threads()[0].fix == "export OMP_NUM_THREADS=2"


def test_a_place_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor, "try_to_write", refuse)
    assert all("cannot be written (Permission denied)" in finding.found and finding.fix for finding in doctor._writing())


def test_a_requirement_that_is_not_met_gives_the_line_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requires", lambda name: ["numpy>=99.0", "mujoco==3.3.0", "pytest>=99; extra == 'dev'"])
    (finding,) = doctor._packages()
    assert "(numpy>=99.0 is required)" in finding.found and finding.fix.endswith("-m pip install 'numpy>=99.0'")


def test_the_chosen_back_end_must_draw() -> None:
    told = doctor._rendering_verdict("osmesa", {"egl": "llvmpipe"}, {"osmesa": "not here"})
    assert told.fix == "unset MUJOCO_GL, or export MUJOCO_GL=egl"
    assert doctor._rendering_verdict("", {"egl": "llvmpipe"}, {"osmesa": "not here"}).fine


def test_the_folder_above_stands_for_one_that_is_not_there(tmp_path: Path) -> None:
    assert existing(tmp_path / "a" / "b") == tmp_path


def test_quick_leaves_the_trials_out_and_only_a_fix_changes_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "QUICK", {"python": lambda: [Finding("python", "here", note=True)]})
    assert main(["doctor", "--quick"]) == 0
    shown = capsys.readouterr().out
    assert shown == "note python       here\nnothing needs a fix\n"
    monkeypatch.setattr(doctor, "QUICK", {"python": lambda: [Finding("python", "old", "use another")]})
    assert main(["doctor"]) == 2
    shown = capsys.readouterr().out
    assert "not tried: mend the installation first" in shown and "1 thing needs a fix" in shown
