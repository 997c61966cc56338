"""What trackers get is what the run folder holds, once each, finished or live; a tracker that fails stops nothing."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from small_run import tiny
from synthetic_run import write_run

from reconverge.envs import optional_library
from reconverge.envs.errors import ConfigError, MissingLibrary
from reconverge.eval import headlines
from reconverge.eval.run_results import read_run
from reconverge.launch import trackers, tracking
from reconverge.launch.cli import main
from reconverge.launch.commands import Train
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.tracking import Tracking, points, run_name


class Recorder:
    """A tracker that remembers, and fails at its `fails_at`-th call."""

    def __init__(self, fails_at: int = -1) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.fails_at, self.closed = fails_at, False

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if len(self.logged) == self.fails_at:
            raise OSError("no room")
        self.logged.append((step, dict(values)))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    monkeypatch.setattr(tracking, "open_tracker", lambda *given, **named: made)
    monkeypatch.setattr(tracking, "check_trackers", lambda *given: None)
    return made


def test_points_are_the_tables_in_order_of_updates(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", method="finetune"))
    found = points(run)
    assert [point.step for point in found] == sorted(point.step for point in found)
    assert len({point.key for point in found}) == len(found)
    last = next(point for point in found if point.key == ("success", 3))
    assert last.step == 1500 and last.values["success/mean"] == pytest.approx(headlines.final_success(run).mean)
    assert last.values["forgetting"] == pytest.approx(headlines.forgetting(run).mean)
    losses = [point for point in found if point.key[0] == "train"]
    assert len(losses) == len(run.training) and losses[-1].values["train/loss"] == run.training[-1]["loss"]
    assert any(point.values.get("seconds/update") for point in found)


def test_following_sends_everything_once_as_it_comes(tmp_path: Path, recorder: Recorder) -> None:
    folder = write_run(tmp_path / "run", done=1)
    follow = Tracking(tmp_path, ("tensorboard",), print)
    follow.catch_up()
    follow.catch_up()
    first = len(recorder.logged)
    assert first == len(points(read_run(folder)))
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"stage": 2, "update": 10, "loss": 0.5}\n{"stage": 2, "upd')
    follow.catch_up()
    assert recorder.logged[first:] == [(510, {"train/loss": 0.5})]
    follow.close()
    assert recorder.closed


def test_a_tracker_that_fails_is_told_of_once_and_the_run_goes_on(tmp_path: Path, recorder: Recorder) -> None:
    recorder.fails_at = 3
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", seed=1)
    said: list[str] = []
    with Tracking(tmp_path, ("tensorboard",), said.append) as follow:
        pass
    assert len(said) == 1 and "tensorboard failed" in said[0] and "no room" in said[0]
    assert len(recorder.logged) == 3 and follow.working == ()


def test_runs_that_were_not_sent_are_named_and_the_others_sent(
    tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("reconverge.launch.commands.track.check_trackers", lambda *given: None)
    sent = len(points(read_run(write_run(tmp_path / "a"))))
    assert main(["track", str(tmp_path)]) == 0
    assert "1 runs sent to tensorboard" in capsys.readouterr().out and len(recorder.logged) == sent
    (write_run(tmp_path / "b", seed=1) / "cost.json").write_bytes(b"\xff")
    deep = write_run(tmp_path.joinpath(*map(str, range(20))), seed=2)
    assert main(["track", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "1 of 3 runs sent to tensorboard; left out: " in said.err and said.out == ""
    assert f"{tmp_path / 'b' / 'cost.json'} is damaged" in said.err and f"{deep} is not found where runs are followed" in said.err
    assert len(recorder.logged) == 2 * sent


def test_what_is_missing_is_named_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optional_library, "find_spec", lambda name: None)
    with pytest.raises(MissingLibrary, match=r"--track wandb needs wandb; install it with: pip install -e '\.\[wandb\]'"):
        trackers.check_trackers(("wandb",))
    trackers.check_trackers(())
    with pytest.raises(ConfigError, match="--track-online"):
        trackers.check_trackers((), online=True)


def test_a_run_is_named_by_its_place(tmp_path: Path) -> None:
    assert run_name(Path("runs/cw10/replay/seed-0")) == "cw10/replay/seed-0"
    assert run_name(Path("/data/mine/cw10/replay/seed-0")) == "cw10/replay/seed-0"
    assert run_name(Path("/data/runs/x/runs/y")) == "y"


@pytest.mark.slow
def test_a_tracked_run_has_the_results_of_an_untracked_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking, "INTERVAL_S", 0.05)
    monkeypatch.setattr("reconverge.launch.commands.train.check_trackers", lambda *given: None)
    config = replace(tiny(tmp_path), video=replace(tiny(tmp_path).video, render=False))
    Train(output_dir=Path("plain"), quiet=True, config=config).run("reconverge train")
    Train(output_dir=Path("tracked"), quiet=True, config=config, track=("tensorboard",)).run("reconverge train")
    for table in ("config.yaml", "metrics.jsonl", "episodes.csv", "success_matrix.csv", "recovery.csv"):
        assert Path("plain", table).read_bytes() == Path("tracked", table).read_bytes(), table
    sent = [values["train/loss"] for _, values in recorder.logged if "train/loss" in values]
    assert sent == [row["loss"] for row in read_run(Path("tracked")).training] and recorder.closed
    RunFolder.resume(Path("tracked"), config).close()


# The libraries themselves --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_holds_what_the_folder_holds_and_a_second_time_replaces_it(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = write_run(tmp_path / "runs" / "toy" / "seed-0")
    for _ in range(2):
        with Tracking(folder, ("tensorboard",), print, tmp_path / "out"):
            pass
    place = tmp_path / "out" / "tensorboard" / "toy" / "seed-0"
    assert len(list(place.iterdir())) == 1
    found = accumulator.EventAccumulator(str(place), size_guidance={"scalars": 0})
    found.Reload()
    run = read_run(folder)
    assert [(event.step, event.value) for event in found.Scalars("train/loss")] == [
        (point.step, pytest.approx(point.values["train/loss"])) for point in points(run) if "train/loss" in point.values
    ]
    assert found.Scalars("success/mean")[-1].value == pytest.approx(headlines.final_success(run).mean)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Addresses outside this machine that this process tried to reach."""
    tried: list[Any] = []
    connect = socket.socket.connect

    def watched(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            tried.append(address)
            raise OSError("no network in tests")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", watched)
    return tried


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["wandb", "trackio"])
def test_offline_trackers_take_two_runs_at_once_and_ask_nobody(
    kind: trackers.TrackerName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    if find_spec(kind) is None:  # not imported here: Trackio decides on its folder when it is
        pytest.skip(f"no {kind} here")
    monkeypatch.setenv("TRACKIO_SPACE_ID", "somebody/space")
    monkeypatch.setenv("TRACKIO_DIR", "put back afterwards")
    folders = [write_run(tmp_path / "runs" / "toy" / f"seed-{seed}", seed=seed) for seed in (0, 1)]
    said: list[str] = []
    follow = Tracking(tmp_path / "runs", (kind,), said.append, tmp_path / "out")
    follow.catch_up()
    follow.close()
    assert said == [] and no_network == [] and capsys.readouterr().out == ""
    if kind == "wandb":
        files = list((tmp_path / "out").rglob("*.wandb"))
        assert len(files) == 2 and all(b"train/loss" in file.read_bytes() for file in files)
    else:
        with sqlite3.connect(tmp_path / "out" / "trackio" / "reconverge.db") as stored:
            rows = stored.execute("select run_name, count(*) from metrics group by run_name").fetchall()
        assert dict(rows) == {f"toy/seed-{run.seed}": len(points(run)) for run in map(read_run, folders)}
