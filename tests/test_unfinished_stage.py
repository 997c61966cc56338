"""A run that is broken off (within a stage, ahead of any change of the disk, by a full disk) goes on to the same bits."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edited_run import with_fingerprint
from forked_run import before_change, die, everything, forked, lose_power_before, start_or_resume
from small_run import run, tiny

from reconverge.envs.artifact import Artifact, write_artifact, write_file
from reconverge.envs.errors import DamagedFile, OutOfDeviceMemory, RunFolderError
from reconverge.envs.seeding import numpy_stream
from reconverge.launch.config import METHODS, RunConfig
from reconverge.launch.curriculum_run import CurriculumRun
from reconverge.launch.stage_plan import StagePlan
from reconverge.launch.verification import verify
from reconverge.policy.config import MASConfig
from reconverge.policy.learner import Learner


class World:
    """A tiny configuration, whose demonstrations lie there, and what an uninterrupted run of it ends with."""

    def __init__(self, folder: Path) -> None:
        config = tiny(folder, curriculum="point-reach:2", save_minutes=0.0)
        # Saved after every one of few updates: how often does not depend on the clock, so every run changes the disk in the same order.
        self.folder, self.config = folder, replace(config, train=replace(config.train, updates=8))
        self.expected = everything(run(folder / "golden", self.config))
        self.changes = self._changes_of_a_run()

    def _changes_of_a_run(self) -> int:
        """How often a whole run changes the disk: files opened, flushed, renamed, removed."""

        def count() -> None:
            changes = before_change(-1, die)
            start_or_resume(self.folder / "counted", self.config)
            (self.folder / "changes").write_text(str(changes()))

        assert forked(count) == 0
        return int((self.folder / "changes").read_text())

    def break_off(self, name: str, work: Callable[[], object], after_s: float | None = None) -> int:
        """Run in a child that `work` may bring to its end; then go on, and compare."""
        path = self.folder / name

        def child() -> None:
            work()
            start_or_resume(path, self.config)

        code = forked(child, after_s)
        assert code != 0 or self.expected.items() <= everything(path).items()  # what ends well is finished, whatever still lies beside it
        if (path / "config.yaml").exists():
            assert [str(check) for check in verify(path) if check.outcome == "DIFFERS"] == []
        start_or_resume(path, self.config)
        found = everything(path)
        assert {key for key in {**found, **self.expected} if found.get(key) != self.expected.get(key)} == set()
        assert [path.name for path in path.rglob("*") if ".writing-" in path.name] == []
        return code


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_on_from_any_update(method: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved after every update, broken off ahead of one of them."""
    form = "functional" if method == "trust-region" else "penalty"
    config: RunConfig = tiny(tmp_path, method=method, curriculum="point-reach:2", save_minutes=0.0)
    settings = {"trust_region": replace(config.train.trust_region, form=form), "mas": MASConfig(draws=64)}
    config = replace(config, train=replace(config.train, **settings))  # type: ignore[arg-type]
    expected = everything(run(tmp_path / "golden", config))
    original, broken_off_at = Learner.update, int(numpy_stream("broken off", method).integers(3, 20))

    def update(learner: Learner) -> object:
        if (learner.stage, learner.update_index) == (2, broken_off_at):
            raise RuntimeError("broken off")
        return original(learner)

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="broken off"):
        patched.setattr(Learner, "update", update)
        run(tmp_path / "run", config)
    saved = Artifact(tmp_path / "run" / "checkpoints" / "stage-02.learning").arrays("underway.safetensors")
    assert saved["optimizer.done"].item() == broken_off_at
    start_or_resume(tmp_path / "run", config)
    assert everything(tmp_path / "run") == expected


@pytest.mark.parametrize("moment", ["update", "end_stage", "acting_policy"])
def test_a_run_that_was_taken_over_changes_no_file(moment: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process outbids its lock within stage 2: in an update, ahead of the consolidation, ahead of the evaluation."""
    path, original, left = tmp_path / "run", getattr(Learner, moment), {}

    def files() -> dict[Path, bytes]:
        """All but the log that is written while it learns, which no later process reads."""
        return {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != "metrics.jsonl"}

    def taken_over(learner: Learner) -> object:
        if learner.stage == 2 and learner.update_index == (3 if moment == "update" else 8) and not left:
            lock = path / ".lock-2"
            lock.mkdir()
            (lock / "owner.json").write_text("another")
            left.update(files())
        return original(learner)

    monkeypatch.setattr(Learner, moment, taken_over)
    with pytest.raises(RunFolderError, match="no longer held by this process"):
        run(path, replace(world.config, save_minutes=0.0 if moment == "update" else 60.0))
    assert left and {file: content for file, content in files().items() if ".lock-1" not in str(file)} == {
        file: content for file, content in left.items() if ".lock-1" not in str(file)
    }


# killed


def test_killed_ahead_of_a_change_of_the_disk(world: World) -> None:
    """Six changes, drawn among all that a run makes: files opened, flushed, renamed, removed."""
    for number in sorted(numpy_stream("changes").choice(world.changes, 6, replace=False) + 1):
        assert world.break_off(f"change-{number}", lambda number=number: before_change(number, die)) == -9


@pytest.mark.faults
def test_killed_ahead_of_every_change_of_the_disk(world: World) -> None:
    for number in range(1, world.changes + 1):
        assert world.break_off("every-change", lambda number=number: before_change(number, die)) == -9
        shutil.rmtree(world.folder / "every-change")
    print(f"killed ahead of each of {world.changes} changes of the disk: {world.changes} of {world.changes} runs ended with the same bits")


@pytest.mark.parametrize("count", [2, pytest.param(50, marks=pytest.mark.faults)])
def test_killed_at_random_moments(count: int, world: World, tmp_path: Path) -> None:
    import time

    began = time.monotonic()
    start_or_resume(tmp_path / "timed", world.config)
    lasts_s = time.monotonic() - began
    moments = numpy_stream("moments", count).uniform(0, lasts_s, count)
    codes = [world.break_off(f"moment-{count}-{index}", lambda: None, float(moment)) for index, moment in enumerate(moments)]
    print(f"killed at {codes.count(-9)} random moments: {count} of {count} runs ended with the same bits")
    assert set(codes) <= {0, -9} and -9 in codes


def test_killed_again_and_again(world: World) -> None:
    """Every attempt dies after 120 changes of the disk; it arrives all the same, for each gets further."""
    path = world.folder / "again"
    attempts = 0
    while forked(lambda: (before_change(120, die), start_or_resume(path, world.config))) == -9:
        attempts += 1
        assert attempts < 60
    assert everything(path) == world.expected and attempts > 1


# a disk that fails


@pytest.mark.parametrize("count", [4, pytest.param(None, marks=pytest.mark.faults)])
def test_a_disk_that_takes_nothing_more_ends_the_run_and_loses_nothing(count: int | None, world: World) -> None:
    """From some change on, every one fails as on a full disk; then there is room again. Where nothing is left to be done but to delete a save,
    seal the folder and let go of its lock, the run ends well."""
    numbers = range(1, world.changes + 1) if count is None else sorted(numpy_stream("full").choice(world.changes, count, replace=False) + 1)
    for number in numbers:

        def fill(number: int = number) -> None:
            def refuse() -> None:
                before_change(1, refuse)  # the next one too
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            before_change(number, refuse)

        assert world.break_off("full", fill) in (0, 1)
        shutil.rmtree(world.folder / "full")
    print(f"a disk that takes nothing from one of {len(numbers)} changes on: {len(numbers)} of {len(numbers)} runs ended with the same bits")


@pytest.mark.parametrize("old", [False, True])
def test_a_power_cut_leaves_the_old_or_the_new(old: bool, tmp_path: Path) -> None:
    """At every change of the disk, what was not flushed is lost: no name may lead to a file without its content."""
    before, after = {"a.json": {"n": 1}, "b.txt": "old"}, {"a.json": {"n": 2}, "b.txt": "new"}
    place, file = tmp_path / "disk" / "artifact", tmp_path / "disk" / "table.csv"
    if old:
        write_artifact(place, before)
        write_file(file, "old")

    def cut(number: int) -> None:
        """In a child: write, and lose the power ahead of the change."""
        lose_power_before(number, tmp_path / "disk")
        write_artifact(place, after)
        write_file(file, "new")

    number = 0
    while True:
        number += 1
        code = forked(lambda number=number: cut(number))
        if place.exists():
            found = Artifact(place).json("a.json")["n"], Artifact(place).text("b.txt")
            assert found in {(1, "old"), (2, "new")}
        else:
            assert not old or list(place.parent.glob(".artifact.writing-*-old"))
        assert not file.exists() or file.read_text() in ("old", "new")
        if code == 0:
            break
    assert number > 8


@pytest.mark.parametrize("count", [4, pytest.param(None, marks=pytest.mark.faults)])
def test_a_power_cut_in_a_run_loses_nothing(count: int | None, world: World) -> None:
    """Ahead of some change, all that was not flushed is gone; then the run goes on."""
    numbers = range(1, world.changes + 1) if count is None else sorted(numpy_stream("power").choice(world.changes, count, replace=False) + 1)
    for number in numbers:
        place = world.folder / "power"
        assert world.break_off("power", lambda number=number, place=place: lose_power_before(number, place)) == 9
        shutil.rmtree(place)
    print(f"the power cut ahead of {len(numbers)} changes of the disk: {len(numbers)} of {len(numbers)} runs ended with the same bits")


def test_memory_that_runs_out_ends_the_run_in_words_and_loses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raised as a GPU does; there is none here."""
    path, original = world.folder / "memory", Learner.update

    def update(learner: Learner) -> object:
        if (learner.stage, learner.update_index) == (2, 5):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")
        return original(learner)

    with monkeypatch.context() as patched, pytest.raises(OutOfDeviceMemory, match=r"ran out \(CUDA out of memory\); the last save is intact"):
        patched.setattr(Learner, "update", update)
        start_or_resume(path, world.config)
    start_or_resume(path, world.config)
    assert everything(path) == world.expected


# damage


def damage(file: Path) -> None:
    data = np.frombuffer(file.read_bytes(), np.uint8).copy()
    data[len(data) // 2] ^= 1
    file.write_bytes(data.tobytes())


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_damaged_checkpoint_is_told_and_the_run_goes_on_from_the_one_before(stage: int, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    from reconverge.launch.curriculum_run import train
    from reconverge.launch.progress import Progress
    from reconverge.launch.run_folder import RunFolder

    path = world.folder / f"damaged-{stage}"
    shutil.copytree(world.folder / "golden", path)
    damage(path / "checkpoints" / f"stage-{stage:02d}" / "policy.safetensors")
    with pytest.raises(DamagedFile):
        Artifact(path / "checkpoints" / f"stage-{stage:02d}")
    with RunFolder.resume(path) as folder:
        train(world.config, folder, Progress("plain"))
    damaged = path / "checkpoints" / f"stage-{stage:02d}" / "policy.safetensors"
    assert f"going back to the stage before: {damaged} does not match its hash" in capsys.readouterr().err
    assert everything(path) == world.expected


def test_a_missing_checkpoint_costs_none_of_those_after_it(world: World) -> None:
    """No crash brings it about: who has put it elsewhere can put it back, and who wants to learn again from there on says so."""
    path = world.folder / "gap"
    shutil.copytree(world.folder / "golden", path)
    shutil.move(path / "checkpoints" / "stage-01", path.with_name("kept"))
    before = everything(path)
    with pytest.raises(RunFolderError, match="lacks stage 1 and has 2; put it back"):
        start_or_resume(path, world.config)
    assert everything(path) == before
    shutil.move(path.with_name("kept"), path / "checkpoints" / "stage-01")
    start_or_resume(path, world.config)
    assert everything(path) == world.expected
    for stage in ("stage-01", "stage-02"):
        shutil.rmtree(path / "checkpoints" / stage)
    start_or_resume(path, world.config)
    assert everything(path) == world.expected


def test_checkpoints_of_another_version_are_no_damaged_ones(world: World) -> None:
    path = world.folder / "another-version"
    shutil.copytree(world.folder / "golden", path)
    for stage in (0, 1, 2):
        folder = path / "checkpoints" / f"stage-{stage:02d}"
        found = Artifact(folder)
        record = found.json("record.json")
        record["record"]["of_a_later_version"] = []
        arrays = {name: found.arrays(name) for name in found.names if name.endswith(".safetensors")}
        write_artifact(folder, {**arrays, "policy.json": found.json("policy.json"), "record.json": record})
    before = everything(path)
    with pytest.raises(RunFolderError, match="written by another version of reconverge"):
        start_or_resume(path, world.config)
    assert everything(path) == before


def test_a_checkpoint_that_stepped_aside_for_a_new_one_comes_back(world: World) -> None:
    """As where a run that was extended was killed between the two renames by which a checkpoint is replaced."""
    path = world.folder / "stepped-aside"
    shutil.copytree(world.folder / "golden", path)
    os.rename(path / "checkpoints" / "stage-01", path / "checkpoints" / ".stage-01.writing-1-0-old")
    (path / "videos").mkdir(exist_ok=True)
    (path / "videos" / ".grid.mp4.writing-1-0.mp4").touch()
    with_fingerprint(path, extended_after=[1])
    start_or_resume(path, world.config)
    assert everything(path) == world.expected and [found for found in path.rglob("*") if ".writing-" in found.name] == []


def test_a_damaged_cost_is_no_obstacle(world: World) -> None:
    path = world.folder / "cost"
    shutil.copytree(world.folder / "golden", path)
    (path / "cost.json").write_text("{")
    start_or_resume(path, world.config)
    assert json.loads((path / "cost.json").read_text())["episodes_evaluated"] > 0


@pytest.mark.parametrize("content", ["{", "3", '[{"stage": 1}]', '[["stage"]]'])
def test_damaged_probes_are_told(content: str, world: World) -> None:
    path = world.folder / "probes"
    if not path.exists():
        shutil.copytree(world.folder / "golden", path)
    (path / "probes.json").write_text(content)
    with pytest.raises(DamagedFile, match=r"probes.json cannot be read; delete it and run `reconverge recover"):
        start_or_resume(path, world.config)


def test_what_went_on_from_a_stage_that_is_made_again_is_never_taken_up(world: World) -> None:
    """Killed right after stage 1 was made again, perhaps to other bits, it must not find the old stage 2 finished."""
    path = world.folder / "made-again"
    shutil.copytree(world.folder / "golden", path)
    damage(path / "checkpoints" / "stage-01" / "policy.safetensors")

    def die_after_the_first_stage() -> None:
        original = CurriculumRun.run_stage

        def run_stage(run: CurriculumRun, plan: StagePlan) -> None:
            return die() if plan.number == 2 else original(run, plan)

        CurriculumRun.run_stage = run_stage  # type: ignore[method-assign]
        start_or_resume(path, world.config)

    assert forked(die_after_the_first_stage) == -9
    assert sorted(found.name for found in (path / "checkpoints").iterdir()) == ["stage-00", "stage-01"]
    start_or_resume(path, world.config)
    assert everything(path) == world.expected


def test_a_damaged_save_within_a_stage_is_passed_over(world: World) -> None:
    path = world.folder / "damaged-save"
    saved = path / "checkpoints" / "stage-01.learning" / "underway.safetensors"

    def die_after_the_first_save() -> None:
        original = Learner.update

        def update(learner: Learner) -> object:
            return die() if learner.update_index == 6 else original(learner)

        Learner.update = update  # type: ignore[method-assign,assignment]
        start_or_resume(path, world.config)

    assert forked(die_after_the_first_save) == -9
    damage(saved)
    start_or_resume(path, world.config)
    assert everything(path) == world.expected
