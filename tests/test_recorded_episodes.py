"""Recorded episodes as demonstrations: Minari's files and LeRobot's, filtered by success, refused where they do not fit."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import slider_world

from reconverge.envs.demonstrations import collect
from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.envs.errors import DamagedFile, ReconvergeError, UnsupportedEnvironment
from reconverge.envs.expert_source import MissingExpert, read_expert
from reconverge.envs.own_task import own_task
from reconverge.envs.recorded_episodes import as_episode
from reconverge.envs.recording import Recording
from reconverge.envs.task import Task

ENV = "slider_world:OwnSlider-v0"
CONFIG = DemonstrationConfig(workers=0, hold_steps=2)
Played = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def play(seed: int, diligent: bool = True) -> Played:
    """Observations (T+1, 1), actions in own units (T, 1), gaps (T+1,), rewards (T,) of an episode that pushes, or idles."""
    env = slider_world.Slider()
    observations, gaps, actions, rewards = [env.reset(seed=seed)[0]], [9.0], [], []
    for _ in range(25):
        actions.append(slider_world.push(observations[-1]) if diligent else np.zeros(1))
        observation, reward, _, _, info = env.step(actions[-1])
        observations.append(observation)
        gaps.append(info["gap"])
        rewards.append(reward)
    return np.array(observations), np.array(actions), np.array(gaps), np.array(rewards)


EPISODES = [play(seed, diligent=seed % 3 != 1) for seed in range(9)]
"""Every third one, from the second on, fails."""


def task_for(source: str, success: dict | None = None) -> Task:
    return own_task(ENV, success=success or {"info": "gap", "at_most": 0.1}, expert=source)


# The step that both share --------------------------------------------------------------------------------------------------------


def test_a_recording_is_cut_after_its_success_and_put_into_units() -> None:
    success = np.array([False, False, True, True, True, True])
    recording = Recording(4, np.arange(7.0)[:, None], np.full((6, 1), 6.0), success)
    episode = as_episode(recording, _plain(), hold_steps=1)
    assert episode is not None and episode.seed == 4
    np.testing.assert_array_equal(episode.actions, np.ones((4, 1), np.float32))
    np.testing.assert_array_equal(episode.observations[:, 0], [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(episode.success, [False, False, True, True])


def test_without_the_last_observation_the_last_action_is_left_out_and_its_success_kept() -> None:
    recording = Recording(0, np.zeros((4, 1)), np.zeros((4, 1)), np.array([False, False, False, True]))
    episode = as_episode(recording, _plain(), hold_steps=5)
    assert episode is not None and episode.success.tolist() == [False, False, True] and len(episode.observations) == 4


def test_data_that_say_nothing_of_success_are_taken_whole() -> None:
    episode = as_episode(Recording(0, np.zeros((5, 1)), np.zeros((4, 1)), None), _plain(), hold_steps=0)
    assert episode is not None and episode.success.tolist() == [False, False, False, True]
    assert as_episode(Recording(0, np.zeros((5, 1)), np.zeros((4, 1)), np.zeros(4, bool)), _plain(), 0) is None


def test_a_recording_of_another_environment_is_refused() -> None:
    with pytest.raises(UnsupportedEnvironment, match=r"episode 3, has observations of shape \(5, 2\)"):
        as_episode(Recording(3, np.zeros((5, 2)), np.zeros((4, 1)), None), _plain(), 0)
    with pytest.raises(DamagedFile, match="not finite"):
        as_episode(Recording(3, np.full((5, 1), np.nan), np.zeros((4, 1)), None), _plain(), 0)


def _plain() -> Task:
    return own_task(ENV, success={"info": "gap", "at_most": 0.1})


# Minari --------------------------------------------------------------------------------------------------------------------------


def write_minari(folder: Path, infos: bool = True, kind: str = "hdf5", flag: str = "") -> Path:
    """With what a rule judges, or with nothing but a flag of success, or with neither."""
    h5py = pytest.importorskip("h5py")
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "metadata.json").write_text(json.dumps({"data_format": kind, "total_episodes": len(EPISODES)}))
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for number, (observations, actions, gaps, rewards) in enumerate(EPISODES):
            group = file.create_group(f"episode_{number}")
            group["observations"], group["actions"], group["rewards"] = observations, actions, rewards
            if flag:
                group[f"infos/{flag}"] = gaps < 0.1
            elif infos:
                group["infos/gap"] = gaps
    return folder


def test_a_minari_set_teaches_with_the_tasks_own_rule(tmp_path: Path) -> None:
    write_minari(tmp_path / "set")
    found = collect(task_for(f"minari:{tmp_path / 'set'}"), CONFIG, 6, tmp_path / "kept")
    assert [episode.seed for episode in found.episodes] == [0, 2, 3, 5, 6, 8] and found.attempts == 9
    for episode in found.episodes:
        assert int(episode.success.argmax()) + 1 + CONFIG.hold_steps == len(episode.actions) and np.abs(episode.actions).max() == 1.0
    again = collect(task_for(f"minari:{tmp_path / 'set'}"), CONFIG, 6, tmp_path / "kept")
    np.testing.assert_array_equal(again.episodes[3].observations, found.episodes[3].observations)
    with pytest.raises(UnsupportedEnvironment, match=r"holds 6 successful episodes.*among 9, and 7 are wanted; ask for 6 or fewer"):
        collect(task_for(f"minari:{tmp_path / 'set'}"), CONFIG, 7)


def test_a_return_judges_recorded_rewards(tmp_path: Path) -> None:
    write_minari(tmp_path / "set", infos=False)
    middle = float(np.median([rewards.sum() for *_, rewards in EPISODES]))
    found = collect(task_for(f"minari:{tmp_path / 'set'}", {"return_at_least": middle}), CONFIG, 5)
    assert [episode.seed for episode in found.episodes] == [n for n, (*_, rewards) in enumerate(EPISODES) if rewards.sum() >= middle]


def test_a_minari_set_that_says_nothing_is_taken_whole(tmp_path: Path) -> None:
    write_minari(tmp_path / "set", infos=False)
    assert len(collect(task_for(f"minari:{tmp_path / 'set'}"), CONFIG, 9).episodes) == 9


@pytest.mark.parametrize("flag", ["success", "is_success"])
def test_a_minari_set_without_what_the_rule_judges_teaches_where_it_says_success(flag: str, tmp_path: Path) -> None:
    write_minari(tmp_path / "set", flag=flag)
    for rule in ({"info": "gap", "at_most": 0.1}, {"info": "solved"}):
        found = collect(task_for(f"minari:{tmp_path / 'set'}", rule), CONFIG, 6)
        assert [episode.seed for episode in found.episodes] == [0, 2, 3, 5, 6, 8] and found.attempts == 9


def test_what_the_rule_judges_comes_before_a_minari_sets_own_flag(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    write_minari(tmp_path / "set")
    with h5py.File(tmp_path / "set" / "data" / "main_data.hdf5", "a") as file:
        for number in range(9):
            file[f"episode_{number}/infos/success"] = np.ones(26, bool)
    assert collect(task_for(f"minari:{tmp_path / 'set'}"), CONFIG, 6).attempts == 9


def test_a_minari_set_keeps_what_the_rule_judges_in_a_group_of_its_own(tmp_path: Path) -> None:
    """An info called `reward/forward` is the array `forward` of a group."""
    h5py = pytest.importorskip("h5py")
    write_minari(tmp_path / "set", infos=False)
    with h5py.File(tmp_path / "set" / "data" / "main_data.hdf5", "a") as file:
        for number, (_, _, gaps, _) in enumerate(EPISODES):
            file[f"episode_{number}/infos/to/goal"] = gaps[1:]
    task = replace(_plain(), name=f"gym:{ENV}#to/goal<=0.1", expert=read_expert(f"minari:{tmp_path / 'set'}", "here"))
    assert [episode.seed for episode in collect(task, CONFIG, 6).episodes] == [0, 2, 3, 5, 6, 8]


def test_choices_among_a_few_are_no_actions(tmp_path: Path) -> None:
    """Minari keeps discrete actions as a column, which must not pass for one continuous action."""
    h5py = pytest.importorskip("h5py")
    write_minari(tmp_path / "set")
    with h5py.File(tmp_path / "set" / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0/actions"]
        file["episode_0/actions"] = np.ones(25, int)
    with pytest.raises(UnsupportedEnvironment, match=r"actions of shape \(25,\)"):
        collect(task_for(f"minari:{tmp_path / 'set'}"), CONFIG, 3)


def test_the_id_of_a_minari_set_is_looked_up_on_this_machine(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    write_minari(tmp_path / "mine" / "slider-v0")
    assert len(collect(task_for("minari:mine/slider-v0"), CONFIG, 3).episodes) == 3
    with pytest.raises(MissingExpert, match="minari download"):
        task_for("minari:mine/slider-v1")


def test_a_minari_set_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for name, kind, says in (("arrow", "arrow", "only hdf5"), ("cut", "hdf5", "cannot be read")):
        folder = write_minari(tmp_path / name, kind=kind)
        if name == "cut":
            (folder / "data" / "main_data.hdf5").write_bytes((folder / "data" / "main_data.hdf5").read_bytes()[:900])
        with pytest.raises(ReconvergeError, match=says):
            collect(task_for(f"minari:{folder}"), CONFIG, 3)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # Minari's own temporary folder
def test_what_minari_itself_wrote_is_read(tmp_path: Path, monkeypatch) -> None:
    minari = pytest.importorskip("minari")
    pytest.importorskip("h5py")
    pytest.importorskip("jax")  # Minari's recorder needs it
    gymnasium = pytest.importorskip("gymnasium")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    collector = minari.DataCollector(gymnasium.make("OwnSlider-v0"), record_infos=True)
    for seed in range(4):
        observation, ended = collector.reset(seed=seed)[0], False
        while not ended:
            observation, _, terminated, truncated, _ = collector.step(slider_world.push(observation).astype(np.float32))
            ended = terminated or truncated
    facts: dict = {"algorithm_name": "push", "author": "t", "author_email": "t@example.org", "code_permalink": "none", "description": "none"}
    facts["eval_env"] = gymnasium.spec("OwnSlider-v0")
    collector.create_dataset("mine/slider-v0", **facts)
    collector.close()
    found = collect(task_for("minari:mine/slider-v0"), CONFIG, 4)
    for episode, (observations, actions, _, _) in zip(found.episodes, [play(seed) for seed in range(4)], strict=True):
        np.testing.assert_allclose(episode.observations, observations[: len(episode.observations)], atol=1e-6)
        np.testing.assert_allclose(episode.actions, (actions[: len(episode.actions)] + 2) / 4 - 1, atol=1e-6)


# LeRobot -------------------------------------------------------------------------------------------------------------------------


def write_lerobot(folder: Path, success: bool = True, version: str = "v3.0") -> Path:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (folder / "meta").mkdir(parents=True)
    (folder / "data" / "chunk-000").mkdir(parents=True)
    (folder / "meta" / "info.json").write_text(json.dumps({"codebase_version": version, "total_episodes": len(EPISODES)}))
    for file, numbers in enumerate((range(5), range(5, 9))):
        rows: dict[str, list] = {name: [] for name in ("observation.state", "action", "episode_index", "frame_index", "next.success")}
        for number in numbers:
            observations, actions, gaps, _ = EPISODES[number]
            rows["observation.state"] += observations[:-1].tolist()
            rows["action"] += actions.tolist()
            rows["episode_index"] += [number] * len(actions)
            rows["frame_index"] += list(range(len(actions)))
            rows["next.success"] += (gaps[1:] < 0.1).tolist()
        if not success:
            del rows["next.success"]
        parquet.write_table(pa.table(rows), folder / "data" / "chunk-000" / f"file-{file:03d}.parquet")
    return folder


def test_a_lerobot_set_teaches_where_it_says_success(tmp_path: Path) -> None:
    write_lerobot(tmp_path / "set")
    found = collect(task_for(f"lerobot:{tmp_path / 'set'}"), CONFIG, 6)
    assert [episode.seed for episode in found.episodes] == [0, 2, 3, 5, 6, 8]
    expected = EPISODES[5][0][: len(found.episodes[3].observations)]
    np.testing.assert_array_equal(found.episodes[3].observations, np.float32(expected))


def test_a_lerobot_set_that_says_nothing_is_taken_whole(tmp_path: Path) -> None:
    write_lerobot(tmp_path / "set", success=False)
    found = collect(task_for(f"lerobot:{tmp_path / 'set'}"), CONFIG, 9)
    assert all(len(episode.actions) == 24 and episode.success.tolist() == [False] * 23 + [True] for episode in found.episodes)


def test_a_lerobot_set_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    old, cut = write_lerobot(tmp_path / "old", version="v2.1"), write_lerobot(tmp_path / "cut")
    with pytest.raises(UnsupportedEnvironment, match=r"of version 'v2\.1'; convert it"):
        collect(task_for(f"lerobot:{old}"), CONFIG, 3)
    (cut / "data" / "chunk-000" / "file-000.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DamagedFile, match="cannot be read"):
        collect(task_for(f"lerobot:{cut}"), CONFIG, 3)


def test_a_lerobot_file_that_unpacks_to_more_than_it_may_is_refused_unread(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = write_lerobot(tmp_path / "set") / "data" / "chunk-000" / "file-000.parquet"
    same = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2**20, np.int8)), pa.array([1.0])).cast(pa.float64())
    table = pa.table({"observation.state": same, "action": same, "episode_index": pa.array(np.zeros(2**20, np.int64))})
    with parquet.ParquetWriter(file, table.schema) as writer:
        for _ in range(50):
            writer.write_table(table)
    assert file.stat().st_size < 2**20
    with pytest.raises(DamagedFile, match="says that it holds 157286400 numbers, more than"):
        collect(task_for(f"lerobot:{tmp_path / 'set'}"), CONFIG, 3)


@pytest.mark.parametrize(("lists", "says"), [([[1.0], [1.0, 2.0]], "lists of 1 to 2 numbers"), ([[1.0], None], "has gaps")])
def test_a_lerobot_column_that_is_no_table_is_refused(lists: list, says: str, tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = write_lerobot(tmp_path / "set") / "data" / "chunk-000" / "file-000.parquet"
    parquet.write_table(pa.table({"observation.state": lists, "action": [[0.0], [0.0]], "episode_index": [0, 0]}), file)
    with pytest.raises(DamagedFile, match=says):
        collect(task_for(f"lerobot:{tmp_path / 'set'}"), CONFIG, 3)


def name_tasks(folder: Path, *names: str, column: str = "task") -> None:
    """Say that even episodes are of the set's first task and odd ones of its second."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({column: list(names), "task_index": list(range(len(names)))}), folder / "meta" / "tasks.parquet")
    for path in (folder / "data" / "chunk-000").iterdir():
        table = parquet.read_table(path)
        parquet.write_table(table.append_column("task_index", pa.array([number % 2 for number in table["episode_index"].to_pylist()])), path)


@pytest.mark.parametrize("column", ["task", "__index_level_0__"])
def test_of_a_lerobot_set_of_several_tasks_only_the_tasks_own_episodes_are_read(column: str, tmp_path: Path) -> None:
    from reconverge.envs.lerobot_episodes import lerobot_episodes

    folder = write_lerobot(tmp_path / "set")
    name_tasks(folder, "hammer-v3", "push-v3", column=column)
    assert [recording.number for recording in lerobot_episodes(str(folder), "hammer-v3")] == [0, 2, 4, 6, 8]
    assert [recording.number for recording in lerobot_episodes(str(folder), "push-v3")] == [1, 3, 5, 7]


def test_a_stage_learns_from_its_own_tasks_episodes_of_a_lerobot_set(tmp_path: Path) -> None:
    folder = write_lerobot(tmp_path / "set")
    name_tasks(folder, _plain().name, "push-v3")
    found = collect(task_for(f"lerobot:{folder}"), CONFIG, 4)
    assert [episode.seed for episode in found.episodes] == [0, 2, 6, 8] and found.attempts == 5


def test_a_lerobot_set_of_other_tasks_is_refused(tmp_path: Path) -> None:
    from reconverge.envs.lerobot_episodes import lerobot_episodes

    folder = write_lerobot(tmp_path / "set")
    name_tasks(folder, "hammer-v3", "push-v3")
    for ask in (lambda: list(lerobot_episodes(str(folder), "pull-v3")), lambda: collect(task_for(f"lerobot:{folder}"), CONFIG, 3)):
        with pytest.raises(UnsupportedEnvironment, match="holds the tasks 'hammer-v3', 'push-v3', and none"):
            ask()


def test_a_lerobot_set_of_one_task_may_call_it_anything(tmp_path: Path) -> None:
    folder = write_lerobot(tmp_path / "set")
    name_tasks(folder, "Push the slider, please.")
    assert collect(task_for(f"lerobot:{folder}"), CONFIG, 6).attempts == 9


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("garbage", "cannot be read"),
        ("a pipe", "not a regular file"),
        ("too long", "larger than 4 MiB"),
        ("too much", "more than 4 MiB of tasks"),
        ("numbers", "does not give every task an index and a name"),
        ("no names", "no columns task_index and task"),
        ("no index of frames", "has no column task_index"),
    ],
)
def test_tasks_of_a_lerobot_set_that_cannot_be_read_are_refused(what: str, says: str, tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    from reconverge.envs.lerobot_episodes import lerobot_episodes

    folder = write_lerobot(tmp_path / "set")
    path = folder / "meta" / "tasks.parquet"
    tables = {
        "too much": {"task": ["x" * 1000] * 100_000, "task_index": [0] * 100_000},
        "numbers": {"task": [1, 2], "task_index": [0, 1]},
        "no names": {"task_index": [0, 1]},
        "no index of frames": {"task": ["push-v3", "pull-v3"], "task_index": [0, 1]},
    }
    if what in tables:
        parquet.write_table(pa.table(tables[what]), path)
        assert path.stat().st_size < 100_000
    elif what == "a pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(b"PAR1 nothing" if what == "garbage" else bytes(5 * 2**20))
    with pytest.raises(DamagedFile, match=says):
        list(lerobot_episodes(str(folder), "push-v3"))


# HDF5 in robomimic's layout --------------------------------------------------------------------------------------------------------------


def write_hdf5(path: Path, success: bool = True, last: bool = True) -> Path:
    """Two observation keys, of which the second is the same every time; demonstrations are numbered 0, 1, ... as they come."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for number, (observations, actions, gaps, rewards) in enumerate(EPISODES):
            demo = file.create_group(f"data/demo_{number}")
            demo["actions"], demo["rewards"], demo["dones"] = actions, rewards, np.zeros(len(actions), int)
            for group, seen in (("obs", observations[:-1]), ("next_obs", observations[1:])):
                if group == "obs" or last:
                    demo[f"{group}/place"], demo[f"{group}/still"] = seen, np.full(len(seen), 7.0)
                    demo[f"{group}/camera"] = np.zeros((len(seen), 2, 2, 3), np.uint8)
            if success:
                demo["success"] = gaps[1:] < 0.1
    return path


def test_an_hdf5_file_teaches_the_observations_that_are_named(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "set.hdf5")
    found = collect(task_for(f"hdf5:{path}#place"), CONFIG, 6, tmp_path / "kept")
    assert [episode.seed for episode in found.episodes] == [0, 2, 3, 5, 6, 8] and found.attempts == 9
    expected = EPISODES[5][0][: len(found.episodes[3].observations)]
    np.testing.assert_array_equal(found.episodes[3].observations, np.float32(expected))
    assert np.abs(found.episodes[0].actions).max() == 1.0


def test_observations_are_put_end_to_end_in_the_order_of_their_names(tmp_path: Path) -> None:
    from reconverge.envs.hdf5_episodes import hdf5_episodes

    path = write_hdf5(tmp_path / "set.hdf5")
    for keys, columns in (("place,still", (0, 1)), ("still, place", (1, 0))):
        recording = next(hdf5_episodes(f"{path}#{keys}", _plain()))
        expected = np.stack([EPISODES[0][0][:, 0], np.full(26, 7.0)], axis=1)
        np.testing.assert_array_equal(recording.observations, expected[:, columns])
    assert read_digest(f"hdf5:{path}#place,still") != read_digest(f"hdf5:{path}#still,place")  # other observations, other demonstrations


def read_digest(expert: str) -> str:
    return read_expert(expert, "here").digest


def test_an_hdf5_file_that_says_little_is_taken_whole_but_for_the_last_action(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "set.hdf5", success=False, last=False)
    found = collect(task_for(f"hdf5:{path}#place"), CONFIG, 9)
    assert all(len(episode.actions) == 24 and episode.success.tolist() == [False] * 23 + [True] for episode in found.episodes)


def test_an_hdf5_file_keeps_what_the_rule_judges_in_a_group_of_its_own(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = write_hdf5(tmp_path / "set.hdf5", success=False)
    with h5py.File(path, "a") as file:
        for number, (_, _, gaps, _) in enumerate(EPISODES):
            file[f"data/demo_{number}/to/goal"] = gaps[1:]
    task = replace(_plain(), name=f"gym:{ENV}#to/goal<=0.1", expert=read_expert(f"hdf5:{path}#place", "here"))
    assert [episode.seed for episode in collect(task, CONFIG, 6).episodes] == [0, 2, 3, 5, 6, 8]


def test_a_return_judges_the_rewards_of_an_hdf5_file(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "set.hdf5", success=False)
    middle = float(np.median([rewards.sum() for *_, rewards in EPISODES]))
    found = collect(task_for(f"hdf5:{path}#place", {"return_at_least": middle}), CONFIG, 5)
    assert [episode.seed for episode in found.episodes] == [n for n, (*_, rewards) in enumerate(EPISODES) if rewards.sum() >= middle]


@pytest.mark.parametrize(
    ("keys", "kind", "says"),
    [
        ("", UnsupportedEnvironment, "demo_0/obs holds camera, place, still; say which to put end to end"),
        ("#plaice", UnsupportedEnvironment, "demo_0/obs has no 'plaice'; it holds camera, place, still"),
        ("#camera", UnsupportedEnvironment, r"camera has the shape \(25, 2, 2, 3\)"),
        ("#place,still", UnsupportedEnvironment, r"observations of shape \(26, 2\)"),
    ],
)
def test_observations_that_cannot_be_used_are_named(keys: str, kind: type[Exception], says: str, tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "set.hdf5")
    with pytest.raises(kind, match=says):
        collect(task_for(f"hdf5:{path}{keys}"), CONFIG, 3)


MEMBERS = {
    "hdf5": {"demo": "data/demo_0", "seen": "obs/place", "flags": "success", "group": "obs"},
    "minari": {"demo": "episode_0", "seen": "observations", "flags": "infos/gap", "group": "infos"},
}
"""Where the two layouts of an HDF5 file have the same things."""


def write(kind: str, folder: Path) -> tuple[Path, str]:
    """A file of the layout, and how it is named as an expert."""
    if kind == "hdf5":
        path = write_hdf5(folder / "set.hdf5")
        return path, f"hdf5:{path}#place"
    return write_minari(folder / "set") / "data" / "main_data.hdf5", f"minari:{folder / 'set'}"


def change(path: Path, what: str, kind: str = "hdf5") -> None:
    h5py = pytest.importorskip("h5py")
    where = MEMBERS[kind]
    seen, flags = where["seen"], where["flags"]
    with h5py.File(path, "a") as file:
        demo = file[where["demo"]]
        match what:
            case "short":
                del demo[seen]
                demo[seen] = np.zeros((3, 1))
            case "dones" | "rewards":
                del demo[what]
                demo[what] = np.zeros(3)
            case "flags":
                del demo[flags]
                demo[flags] = np.zeros(27)
            case "text":
                del demo["actions"]
                demo["actions"] = "none"
            case "mapping":
                del demo[seen]
                demo[f"{seen}/place"] = np.zeros((26, 1))
            case "no actions":
                del demo["actions"]
            case "no demos":
                del file["data"]
                file.create_group("data")
            case "no data":
                del file["data"]
            case "nan":
                demo["actions"][3] = np.nan
            case "huge":
                del demo[seen]
                demo.create_dataset(seen, (25, 2**40), "f4", chunks=(1, 1024))
            case "virtual" | "huge virtual":
                rows, numbers = (25, 1) if what == "virtual" else (2**40, 2**10)
                del demo[seen]
                layout = h5py.VirtualLayout((rows, numbers), "f8")
                layout[:] = h5py.VirtualSource("elsewhere.hdf5", "x", (rows, numbers))
                demo.create_virtual_dataset(seen, layout)
            case "other files":
                del demo[seen]
                demo.create_dataset(seen, (25, 1), "f8", external=[(str(path.parent / "elsewhere"), 0, 200)])
            case "outside" | "flags outside" | "demo outside":
                base, name = (file, where["demo"]) if what == "demo outside" else (demo, seen if what == "outside" else flags)
                del base[name]
                base[name] = h5py.ExternalLink("/etc/passwd", "/")
            case "elsewhere":
                del demo[seen]
                demo[seen] = h5py.SoftLink("/nowhere")
            case "array for group":
                del demo[where["group"]]
                demo[where["group"]] = np.zeros((25, 1))


REFUSED_IN_BOTH: list[tuple[str, type[Exception], str]] = [
    ("short", DamagedFile, "(place|observations) has 3 rows, and the demonstration has 25 actions"),
    ("flags", DamagedFile, "(success|gap) has 27 rows, and the demonstration has 25 actions"),
    ("text", UnsupportedEnvironment, "actions is no array of numbers"),
    ("mapping", UnsupportedEnvironment, "(place|observations) is no array of numbers"),
    ("no actions", UnsupportedEnvironment, "_0 has no 'actions'"),
    ("nan", DamagedFile, "not finite"),
    ("huge", DamagedFile, "claims 27487790694400 numbers"),
    ("virtual", DamagedFile, "or keeps them in other files"),
    ("huge virtual", DamagedFile, "claims 1125899906842624 numbers"),
    ("other files", DamagedFile, "or keeps them in other files"),
    ("outside", DamagedFile, "(place|observations) is a link to elsewhere"),
    ("flags outside", DamagedFile, "(success|gap) is a link to elsewhere"),
    ("demo outside", DamagedFile, "_0 is a link to elsewhere"),
    ("elsewhere", DamagedFile, "(place|observations) is a link to elsewhere"),
    ("array for group", DamagedFile, "(obs|infos) is no group"),
]
REFUSED_IN_ROBOMIMICS: list[tuple[str, type[Exception], str]] = [
    ("dones", DamagedFile, "dones has 3 rows"),
    ("no demos", UnsupportedEnvironment, "holds no demo_0"),
    ("no data", UnsupportedEnvironment, "has no 'data'; it holds nothing"),
]


@pytest.mark.parametrize(
    ("kind", "what", "refused", "says"),
    [*((kind, *row) for kind in MEMBERS for row in REFUSED_IN_BOTH), *(("hdf5", *row) for row in REFUSED_IN_ROBOMIMICS)],
)
def test_an_hdf5_file_that_is_not_what_it_should_be_is_refused(kind: str, what: str, refused: type[Exception], says: str, tmp_path: Path) -> None:
    path, expert = write(kind, tmp_path)
    change(path, what, kind)
    with pytest.raises(refused, match=says):
        collect(task_for(expert), CONFIG, 3)


@pytest.mark.parametrize("kind", MEMBERS)
def test_rewards_of_too_few_steps_do_not_judge(kind: str, tmp_path: Path) -> None:
    path, expert = write(kind, tmp_path)
    change(path, "rewards", kind)
    with pytest.raises(DamagedFile, match="rewards has 3 rows"):
        collect(task_for(expert, {"return_at_least": -90}), CONFIG, 3)


def test_half_an_hdf5_file_and_none_are_refused(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "set.hdf5")
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(DamagedFile, match="cannot be read"):
        collect(task_for(f"hdf5:{path}#place"), CONFIG, 3)
    path.write_bytes(b"no hdf5")
    with pytest.raises(DamagedFile, match="cannot be read"):
        collect(task_for(f"hdf5:{path}#place"), CONFIG, 3)
    with pytest.raises(MissingExpert, match="cannot be read"):
        task_for(f"hdf5:{tmp_path / 'none.hdf5'}#place")


def test_an_hdf5_file_changed_since_it_was_named_is_refused(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "set.hdf5")
    task = task_for(f"hdf5:{path}#place")
    change(path, "dones")
    with pytest.raises(MissingExpert, match="it was changed since"):
        collect(task, CONFIG, 3)
