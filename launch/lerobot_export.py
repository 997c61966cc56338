"""Demonstrations as a data set in LeRobot's layout, version 3.0. Needs pyarrow: pip install -e '.[lerobot]'.

    meta/info.json                               sizes, frames per second, what each column is
    meta/tasks.parquet                           task name -> task_index
    meta/episodes/chunk-000/file-000.parquet     a row per episode: its length, task, where its frames lie, their statistics, its seed
    meta/stats.json                              the same statistics over all frames
    data/chunk-000/file-000.parquet              a row per frame

Of an episode of T steps there are T frames: what was observed, what was done, whether that step succeeded. The observation after the last
action is not in that layout, and is left out.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from reconverge.envs.artifact import write_durably
from reconverge.envs.demonstrations import Demonstrations
from reconverge.envs.episodes import Episode
from reconverge.envs.errors import ConfigError
from reconverge.envs.optional_library import optional_library
from reconverge.envs.task import Task
from reconverge.launch.demonstration_folder import new_folder, own_actions

VERSION = "v3.0"
FILES_PER_CHUNK = 1000
MOST_FRAMES = 500_000
"""Frames of a data file; an episode lies in one."""
_FEATURES = ("observation.state", "action")
_INDICES = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64", "task_index": "int64"}
Columns = dict[str, np.ndarray]


def write_lerobot(found: Sequence[Demonstrations], folder: Path, fps: int | None = None) -> None:
    """One data set of all tasks, whose sizes agree, at `frames_per_second`.

    Raises MissingLibrary without pyarrow, ConfigError without a rate, RunFolderError where `folder` holds something.
    """
    rate = frames_per_second([of_task.task for of_task in found], fps)
    parquet = optional_library("pyarrow.parquet", "--format lerobot", "lerobot")
    with new_folder(folder) as draft:
        _write(parquet, found, draft, rate)


def frames_per_second(tasks: Sequence[Task], asked: int | None = None) -> int:
    """The rate that is asked for, else that of the tasks' steps, rounded: LeRobot counts whole frames. Raises ConfigError where these have none."""
    if asked is not None:
        if asked < 1:
            raise ConfigError(f"--fps is {asked}; a data set has at least 1 frame per second")
        return asked
    first = tasks[0]
    for task in tasks:
        if not 0 < task.control_dt_s <= 1:
            raise ConfigError(f"a step of '{task.name}' takes {task.control_dt_s:g} s, which gives no whole frames per second; say them with --fps")
        if not math.isclose(task.control_dt_s, first.control_dt_s):
            raise ConfigError(
                f"a step of '{first.name}' takes {first.control_dt_s:g} s, of '{task.name}' {task.control_dt_s:g} s, and a LeRobot data set has one "
                "rate; export them separately, or say one with --fps"
            )
    return round(1 / first.control_dt_s)


def _write(parquet: Any, found: Sequence[Demonstrations], folder: Path, fps: int) -> None:
    episodes = [(number, episode) for number, of_task in enumerate(found) for episode in of_task.episodes]
    frames = [_frames(found[number], number, index, episode, fps) for index, (number, episode) in enumerate(episodes)]
    starts = list(accumulate((len(columns["action"]) for columns in frames), initial=0))
    for columns, start in zip(frames, starts, strict=False):
        columns["index"] = np.arange(start, start + len(columns["action"]), dtype=np.int64)

    rows: list[dict[str, Any]] = []
    for file, members in enumerate(_in_files(frames)):
        place = {"chunk_index": file // FILES_PER_CHUNK, "file_index": file % FILES_PER_CHUNK}
        together = {name: np.concatenate([frames[index][name] for index in members]) for name in frames[0]}
        _write_parquet(parquet, folder / _data_path(**place), together)
        rows += [_episode_row(found, episodes[index], index, starts[index : index + 2], place, frames[index]) for index in members]

    _write_rows(parquet, folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet", rows)
    _write_tasks(parquet, folder / "meta" / "tasks.parquet", [of_task.task.name for of_task in found])
    whole = {name: np.concatenate([columns[name] for columns in frames]) for name in frames[0]}
    _write_json(folder / "meta" / "stats.json", {name: _statistics(column) for name, column in whole.items()})
    _write_json(folder / "meta" / "info.json", _info(found, len(frames), starts[-1], fps))


def _frames(of_task: Demonstrations, task_index: int, episode_index: int, episode: Episode, fps: int) -> Columns:
    steps = len(episode.actions)
    return {
        "observation.state": episode.observations[:-1].astype(np.float32),
        "action": own_actions(of_task.task, episode.actions),
        "next.success": episode.success.astype(bool),
        "next.done": np.arange(steps) == steps - 1,
        "timestamp": (np.arange(steps) / fps).astype(np.float32),
        "frame_index": np.arange(steps, dtype=np.int64),
        "episode_index": np.full(steps, episode_index, np.int64),
        "task_index": np.full(steps, task_index, np.int64),
    }


def _in_files(frames: Sequence[Columns]) -> Iterator[list[int]]:
    """The episodes of each data file, by their indices."""
    members: list[int] = []
    size = 0
    for index, columns in enumerate(frames):
        if members and size + len(columns["action"]) > MOST_FRAMES:
            yield members
            members, size = [], 0
        members.append(index)
        size += len(columns["action"])
    yield members


def _data_path(chunk_index: int, file_index: int) -> Path:
    return Path("data", f"chunk-{chunk_index:03d}", f"file-{file_index:03d}.parquet")


def _episode_row(
    found: Sequence[Demonstrations], numbered: tuple[int, Episode], index: int, bounds: Sequence[int], place: Mapping[str, int], columns: Columns
) -> dict[str, Any]:
    task, episode = numbered
    statistics = {f"stats/{name}/{kind}": value for name, column in columns.items() for kind, value in _statistics(column).items()}
    return {
        "episode_index": index, "tasks": [found[task].task.name], "length": len(episode.actions),
        "dataset_from_index": bounds[0], "dataset_to_index": bounds[1],
        "data/chunk_index": place["chunk_index"], "data/file_index": place["file_index"],
        "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0, "seed": episode.seed, **statistics,
    }  # fmt: skip


def _statistics(column: np.ndarray) -> dict[str, list[float] | list[int]]:
    """Over the frames, a list with an entry per dimension."""
    values = column.reshape(len(column), -1).astype(np.float64)
    kinds: dict[str, Callable[..., np.ndarray]] = {"min": np.min, "max": np.max, "mean": np.mean, "std": np.std}
    return {**{kind: of(values, axis=0).tolist() for kind, of in kinds.items()}, "count": [len(values)]}


def _info(found: Sequence[Demonstrations], episodes: int, frames: int, fps: int) -> dict[str, Any]:
    first = found[0].task
    sizes = {"observation.state": first.observation_size, "action": first.action_size}
    names = {name: [f"{name.rpartition('.')[2]}_{number}" for number in range(size)] for name, size in sizes.items()}
    features: dict[str, Any] = {name: {"dtype": "float32", "shape": [size], "names": names[name]} for name, size in sizes.items()}
    features |= {name: {"dtype": "bool", "shape": [1], "names": None} for name in ("next.success", "next.done")}
    features |= {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in _INDICES.items()}
    return {
        "codebase_version": VERSION, "robot_type": first.family, "total_episodes": episodes, "total_frames": frames, "total_tasks": len(found),
        "chunks_size": FILES_PER_CHUNK, "data_files_size_in_mb": 100, "video_files_size_in_mb": 500, "fps": fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet", "video_path": None, "features": features,
    }  # fmt: skip


def _write_parquet(parquet: Any, path: Path, columns: Columns) -> None:
    arrow: Any = importlib.import_module("pyarrow")
    arrays = {}
    for name, column in columns.items():
        flat = arrow.array(column.reshape(-1))
        arrays[name] = arrow.FixedSizeListArray.from_arrays(flat, column.shape[1]) if name in _FEATURES else flat
    _save(parquet, path, arrow.table(arrays))


def _write_rows(parquet: Any, path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    arrow: Any = importlib.import_module("pyarrow")
    _save(parquet, path, arrow.table({name: arrow.array([row[name] for row in rows]) for name in rows[0]}))


def _write_tasks(parquet: Any, path: Path, names: Sequence[str]) -> None:
    """As pandas writes a frame whose index holds the task names, for that is how LeRobot reads it."""
    arrow: Any = importlib.import_module("pyarrow")
    kinds = (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    columns = [{"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None} for name, kind, numpy in kinds]
    about = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "creator": {"library": "pyarrow"}, "pandas_version": "2.2.0"}
    table = arrow.table({"task_index": arrow.array(range(len(names)), arrow.int64()), "task": arrow.array(list(names), arrow.string())})
    _save(parquet, path, table.replace_schema_metadata({"pandas": json.dumps(about)}))


def _save(parquet: Any, path: Path, table: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, json.dumps(content, indent=1).encode())


