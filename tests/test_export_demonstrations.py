"""Demonstrations for other libraries: written, and read back, by their own readers where these are installed."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_run import run, tiny

from reconverge.envs.demonstrations import Demonstrations, collect
from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.envs.episodes import Episode
from reconverge.envs.errors import ConfigError, MissingLibrary, RunFolderError
from reconverge.envs.expert_source import read_expert
from reconverge.envs.plain_json import read_json
from reconverge.envs.tasks import find_task
from reconverge.eval.run_results import read_run
from reconverge.launch.cli import main
from reconverge.launch.demonstration_folder import own_actions
from reconverge.launch.hdf5_export import write_hdf5
from reconverge.launch.lerobot_export import write_lerobot
from reconverge.launch.minari_export import minari_id, write_minari

TASKS = [find_task("point-reach-0"), find_task("point-reach-1")]


@pytest.fixture
def found() -> list[Demonstrations]:
    """Two tasks, three episodes of 4, 5 and 6 steps each; the last two steps succeed."""
    random = np.random.default_rng(0)

    def episode(name: str, seed: int, steps: int) -> Episode:
        observations = random.normal(size=(steps + 1, 4)).astype(np.float32)
        return Episode(name, seed, observations, random.uniform(-1, 1, (steps, 2)).astype(np.float32), np.arange(steps) >= steps - 2)

    return [Demonstrations(task, [episode(task.name, 10 * number + steps, steps) for steps in (4, 5, 6)], 5, 3) for number, task in enumerate(TASKS)]


def episodes_of(found: list[Demonstrations]) -> list[Episode]:
    return [episode for of_task in found for episode in of_task.episodes]


def test_lerobot_frames_are_those_of_the_episodes(found: list[Demonstrations], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_lerobot(found, tmp_path / "set")
    frames = parquet.read_table(tmp_path / "set" / "data" / "chunk-000" / "file-000.parquet").to_pydict()
    rows = parquet.read_table(tmp_path / "set" / "meta" / "episodes" / "chunk-000" / "file-000.parquet").to_pylist()
    assert frames["index"] == list(range(30)) and [row["seed"] for row in rows] == [4, 5, 6, 14, 15, 16]
    for row, episode in zip(rows, episodes_of(found), strict=True):
        part = slice(row["dataset_from_index"], row["dataset_to_index"])
        assert row["length"] == len(episode.actions) and row["tasks"] == [episode.task]
        assert np.array_equal(np.array(frames["observation.state"][part], np.float32), episode.observations[:-1])
        assert np.array_equal(np.array(frames["action"][part], np.float32), episode.actions)
        assert frames["next.success"][part] == episode.success.tolist()
        assert frames["frame_index"][part] == list(range(row["length"])) and set(frames["episode_index"][part]) == {row["episode_index"]}
        assert np.allclose(row["stats/action/mean"], episode.actions.mean(0)) and row["stats/action/count"] == [row["length"]]
    tasks = parquet.read_table(tmp_path / "set" / "meta" / "tasks.parquet").to_pydict()
    assert tasks == {"task_index": [0, 1], "task": ["point-reach-0", "point-reach-1"]}


def test_lerobot_info_describes_every_column(found: list[Demonstrations], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_lerobot(found, tmp_path / "set")
    info, stats = read_json(tmp_path / "set" / "meta" / "info.json"), read_json(tmp_path / "set" / "meta" / "stats.json")
    columns = set(parquet.read_table(tmp_path / "set" / info["data_path"].format(chunk_index=0, file_index=0)).column_names)
    assert set(info["features"]) == set(stats) == columns
    assert (info["codebase_version"], info["total_episodes"], info["total_frames"], info["total_tasks"]) == ("v3.0", 6, 30, 2)
    assert info["splits"] == {"train": "0:6"} and info["fps"] == round(1 / TASKS[0].control_dt_s)


def test_lerobot_files_are_cut_between_episodes(found: list[Demonstrations], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("reconverge.launch.lerobot_export.MOST_FRAMES", 9)
    write_lerobot(found, tmp_path / "set")
    files = sorted((tmp_path / "set" / "data").rglob("*.parquet"))
    assert [len(parquet.read_table(file)) for file in files] == [9, 6, 9, 6]


def test_the_reader_of_this_package_reads_lerobot_back(found: list[Demonstrations], tmp_path: Path) -> None:
    pytest.importorskip("pyarrow.parquet")
    reader = pytest.importorskip("reconverge.envs.lerobot_episodes")
    write_lerobot(found, tmp_path / "set")
    for number, of_task in enumerate(found):
        back = list(reader.lerobot_episodes(str(tmp_path / "set"), of_task.task.name))
        assert [read.number for read in back] == [3 * number, 3 * number + 1, 3 * number + 2]
        for read, episode in zip(back, of_task.episodes, strict=True):
            steps = len(read.actions)
            assert np.array_equal(read.observations[:steps], episode.observations[:steps]) and np.array_equal(read.actions, episode.actions[:steps])
            assert read.success is not None and read.success.tolist() == episode.success.tolist()[:steps]


def stepping(found: list[Demonstrations], *seconds: float) -> list[Demonstrations]:
    """The same demonstrations of tasks whose steps take so long."""
    return [replace(of_task, task=replace(of_task.task, control_dt_s=each)) for of_task, each in zip(found, seconds, strict=True)]


@pytest.mark.parametrize(("step_s", "asked", "fps"), [(0.05, None, 20), (0.015, None, 67), (0.015, 50, 50), (0.0, 10, 10)])
def test_lerobot_stamps_are_those_of_the_rate_that_is_said(found, step_s: float, asked: int | None, fps: int, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    parquet = pytest.importorskip("pyarrow.parquet")
    write_lerobot(stepping(found, step_s, step_s), tmp_path / "set", asked)
    frames = parquet.read_table(tmp_path / "set" / "data" / "chunk-000" / "file-000.parquet").to_pydict()
    assert read_json(tmp_path / "set" / "meta" / "info.json")["fps"] == fps
    np.testing.assert_array_equal(np.float32(frames["timestamp"]), np.float32(np.array(frames["frame_index"]) / fps))


@pytest.mark.parametrize(
    ("seconds", "asked", "says"),
    [
        ((0.05, 0.0125), None, r"'point-reach-0' takes 0\.05 s, of 'point-reach-1' 0\.0125 s.*export them separately, or say one with --fps"),
        ((0.05, 0.0), None, "'point-reach-1' takes 0 s.*--fps"),
        ((0.05, float("nan")), None, "'point-reach-1' takes nan s.*--fps"),
        ((3.0, 3.0), None, "'point-reach-0' takes 3 s.*--fps"),
        ((0.05, 0.05), 0, "--fps is 0"),
    ],
)
def test_lerobot_without_one_rate_is_refused(found, seconds: tuple[float, ...], asked: int | None, says: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=says):
        write_lerobot(stepping(found, *seconds), tmp_path / "set", asked)
    assert list(tmp_path.iterdir()) == []


def test_the_command_asks_for_a_rate_before_it_collects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An environment that does not say how long its steps take."""
    pytest.importorskip("pyarrow.parquet")
    task = 'task: "gym:slider_world:OwnSlider-v0#gap<=0.1", expert: "python:slider_world:push"'
    (tmp_path / "mine.yaml").write_text(f"name: mine\ndemonstrations: 2\ntasks: [{{{task}}}]\n")
    rest = ["--workers", "0", "--quiet", "--folder", str(tmp_path / "kept"), "--output-dir", str(tmp_path / "set")]
    export = ["export-demonstrations", str(tmp_path / "mine.yaml"), *rest, "--format"]
    assert main([*export, "lerobot"]) == 2
    assert "takes 0 s" in capsys.readouterr().err and not (tmp_path / "kept").exists()
    assert main([*export, "hdf5", "--fps", "10"]) == 2
    assert "--fps is of --format lerobot only" in capsys.readouterr().err and not (tmp_path / "kept").exists()
    assert main([*export, "lerobot", "--fps", "10"]) == 0
    assert read_json(tmp_path / "set" / "meta" / "info.json")["fps"] == 10


def test_minari_reads_back_what_was_written(found: list[Demonstrations], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari")
    pytest.importorskip("h5py")
    ids = write_minari(found, tmp_path / "sets")
    assert ids == ["reconverge/point-reach-0-expert-v0", "reconverge/point-reach-1-expert-v0"]
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    for name, of_task in zip(ids, found, strict=True):
        for read, episode in zip(minari.load_dataset(name).iterate_episodes(), of_task.episodes, strict=True):
            assert np.array_equal(read.observations, episode.observations) and np.array_equal(read.actions, episode.actions)
            assert read.rewards.tolist() == episode.success.astype(float).tolist() and read.truncations.tolist()[-1]
            assert np.array_equal(read.infos["success"][1:], episode.success)


def test_the_reader_of_this_package_reads_minari_back(found: list[Demonstrations], tmp_path: Path) -> None:
    for name in ("minari", "h5py"):
        pytest.importorskip(name)
    reader = pytest.importorskip("reconverge.envs.minari_episodes")
    write_minari(found, tmp_path / "sets")
    for of_task in found:
        place = str(tmp_path / "sets" / minari_id(of_task.task))
        for read, episode in zip(reader.minari_episodes(place, of_task.task), of_task.episodes, strict=True):
            assert np.allclose(read.observations, episode.observations) and np.allclose(read.actions, episode.actions)
            assert read.success is not None and read.success.tolist() == episode.success.tolist()


def test_every_task_has_a_minari_set_of_its_own() -> None:
    names = ("gym:Mine-v0?mass=0.1#gap<=0.1", "gym:mine.a:Mine-v0", "gym:mine_a:Mine-v0", "gym:mine_2Ea:Mine-v0", "gym:" + "x" * 200)
    ids = [minari_id(replace(TASKS[0], name=name)) for name in names]
    assert len(set(ids)) == len(names) and all(re.fullmatch("reconverge/[A-Za-z0-9_-]+-expert-v0", name) for name in ids)


@pytest.mark.parametrize("rule", ["gap<=0.1", "solved", "return>=90.0"])
def test_minari_brings_success_back_by_whatever_rule_the_task_has(found: list[Demonstrations], rule: str, tmp_path: Path) -> None:
    """Neither what the rule judges nor the rewards are exported, only which steps succeeded."""
    for name in ("minari", "h5py"):
        pytest.importorskip(name)
    task = replace(TASKS[0], name=f"gym:Mine-v0#{rule}", family="gym")
    (name,) = write_minari([replace(found[0], task=task)], tmp_path / "sets")
    task = replace(task, expert=read_expert(f"minari:{tmp_path / 'sets' / name}", "here"))
    read = collect(task, DemonstrationConfig(workers=0), 3)
    for back, episode in zip(read.episodes, found[0].episodes, strict=True):
        np.testing.assert_array_equal(back.success, episode.success)


def test_actions_leave_in_the_simulators_own_units() -> None:
    task = replace(TASKS[0], action_bounds=((-2.0, 0.0), (2.0, 1.0)))
    assert own_actions(task, np.array([[-1.0, -1.0], [1.0, 0.0]])).tolist() == [[-2.0, 0.0], [2.0, 0.5]]


def test_hdf5_has_the_layout_of_robomimic(found: list[Demonstrations], tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    files = write_hdf5(found, tmp_path / "files")
    assert [path.name for path in files] == ["point-reach-0.hdf5", "point-reach-1.hdf5"]
    for path, of_task in zip(files, found, strict=True):
        with h5py.File(path, "r") as file:
            data = file["data"]
            assert data.attrs["total"] == 15 and json.loads(data.attrs["env_args"])["env_name"] == of_task.task.name
            assert sorted(data) == ["demo_0", "demo_1", "demo_2"]
            for number, episode in enumerate(of_task.episodes):
                demo, steps = data[f"demo_{number}"], len(episode.actions)
                assert demo.attrs["num_samples"] == steps and demo.attrs["seed"] == episode.seed
                np.testing.assert_array_equal(demo["obs/state"][()], episode.observations[:-1])
                np.testing.assert_array_equal(demo["next_obs/state"][()], episode.observations[1:])
                np.testing.assert_array_equal(demo["actions"][()], episode.actions)
                assert demo["dones"][()].tolist() == [0] * (steps - 2) + [1, 1] == demo["rewards"][()].tolist()


@pytest.mark.parametrize("keys", ["", "#state"])
def test_hdf5_brings_the_episodes_back_as_demonstrations(found: list[Demonstrations], keys: str, tmp_path: Path) -> None:
    """Out, and in again as a stage's expert: the same arrays to the last bit, under their numbers in the file."""
    pytest.importorskip("h5py")
    for path, of_task in zip(write_hdf5(found, tmp_path / "files"), found, strict=True):
        task = replace(of_task.task, expert=read_expert(f"hdf5:{path}{keys}", "here"))
        read = collect(task, DemonstrationConfig(workers=0), 3)
        assert [episode.seed for episode in read.episodes] == [0, 1, 2]
        for back, episode in zip(read.episodes, of_task.episodes, strict=True):
            for name in ("observations", "actions", "success"):
                np.testing.assert_array_equal(getattr(back, name), getattr(episode, name))
                assert getattr(back, name).dtype == getattr(episode, name).dtype


def test_the_command_writes_hdf5_and_a_run_learns_from_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("h5py")
    rest = ["--episodes", "3", "--workers", "0", "--quiet", "--folder", str(tmp_path / "kept"), "--output-dir", str(tmp_path / "set")]
    assert main(["export-demonstrations", "point-reach-0", "--format", "hdf5", *rest]) == 0
    said = capsys.readouterr().out
    expert = said.partition('expert: "')[2].partition('"')[0]
    assert expert == f"hdf5:{tmp_path / 'set' / 'point-reach-0.hdf5'}#state"
    (tmp_path / "mine.yaml").write_text(f"name: mine\ndemonstrations: 3\nupdates: 3\ntasks: [{{task: point-reach-0, expert: '{expert}'}}]\n")
    config = tiny(tmp_path, curriculum=str(tmp_path / "mine.yaml"))
    assert read_run(run(tmp_path / "run", config)).finished


@pytest.mark.parametrize(("write", "package"), [(write_lerobot, "pyarrow"), (write_minari, "minari"), (write_hdf5, "h5py")])
def test_without_the_package_the_line_that_installs_it_is_said(write, package: str, found, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingLibrary, match="pip install -e '"):
        write(found, tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(found: list[Demonstrations], tmp_path: Path) -> None:
    pytest.importorskip("pyarrow.parquet")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").write_text("x")
    with pytest.raises(RunFolderError, match="not empty"):
        write_lerobot(found, tmp_path / "set")
    assert [path.name for path in tmp_path.rglob("*")] == ["set", "mine"]


def test_the_command_collects_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow.parquet")
    rest = ["--episodes", "2", "--workers", "0", "--quiet", "--folder", str(tmp_path / "kept"), "--output-dir", str(tmp_path / "set")]
    assert main(["export-demonstrations", "point-reach:2", "--format", "lerobot", *rest]) == 0
    assert "LeRobot data set" in capsys.readouterr().out
    assert read_json(tmp_path / "set" / "meta" / "info.json")["total_episodes"] == 4
    assert main(["export-demonstrations", "point-reach-1", "--format", "lerobot", *rest]) == 2
    assert main(["export-demonstrations", "cw11", "--format", "lerobot", *rest]) == 2
    assert "did you mean 'cw10'?" in capsys.readouterr().err
