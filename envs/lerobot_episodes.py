"""The episodes of a data set in LeRobot's layout, version 3. Needs pyarrow: pip install -e '.[lerobot]'.

    FOLDER/meta/info.json                          {"codebase_version": "v3.0", ...}
    FOLDER/meta/tasks.parquet                      a row per task: task_index, task; of several, the episodes of the one that is asked for are read
    FOLDER/data/chunk-000/file-000.parquet         a row per step: observation.state, action, episode_index, frame_index, next.success, ...

An observation is `observation.state`, followed by `observation.environment_state` where there is one. Videos are not read. As many
observations as actions are kept there: of each episode the last action is left out (`recorded_episodes.py`).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from reconverge.envs.bounded_file import MIB, read_bounded
from reconverge.envs.errors import DamagedFile, ReconvergeError, UnsupportedEnvironment, shown
from reconverge.envs.expert_source import MissingExpert
from reconverge.envs.hdf5_group import MOST_NUMBERS
from reconverge.envs.optional_library import optional_library
from reconverge.envs.plain_json import read_json_object
from reconverge.envs.recording import Recording

OBSERVATIONS = ("observation.state", "observation.environment_state")
SUCCESS = ("next.success", "success")
TASK = ("task", "__index_level_0__")
"""The column of the tasks' names: the index of the frame that pandas wrote, with or without a name of its own."""
LARGEST_TASKS = 4 * MIB
"""Of meta/tasks.parquet, as it lies there and unpacked."""


def lerobot_episodes(place: str, task: str) -> Iterator[Recording]:
    """The data set's episodes in order; of a set of several tasks those of the one called `task`.

    Raises MissingLibrary, UnsupportedEnvironment, MissingExpert or DamagedFile, naming the place.
    """
    parquet = optional_library("pyarrow.parquet", f"'lerobot:{place}'", "lerobot")
    _check_version(place)
    # pyarrow's own errors are of all these kinds.
    try:
        wanted = _wanted_indices(_tasks(parquet, Path(place, "meta", "tasks.parquet")), task, place)
        for path in sorted(Path(place, "data").glob("chunk-*/*.parquet")):
            yield from _episodes_of(_columns(parquet, path, wanted is not None), wanted)
    except (OSError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        if isinstance(error, ReconvergeError):
            raise
        raise DamagedFile(f"'lerobot:{place}' cannot be read ({str(error)[:200]}); restore its files") from error


def _check_version(place: str) -> None:
    try:
        version = read_json_object(Path(place, "meta", "info.json")).get("codebase_version")
    except OSError as error:
        raise MissingExpert(f"'lerobot:{place}' has no meta/info.json; give the folder of the data set") from error
    if not str(version).startswith("v3"):
        raise UnsupportedEnvironment(f"'lerobot:{place}' is of version {shown(version)}; convert it to v3.0 with lerobot's own converter")


def _tasks(parquet: Any, path: Path) -> dict[int, str]:
    """task_index -> name; none where the file is not there."""
    try:
        content = read_bounded(path, LARGEST_TASKS)
    except FileNotFoundError:
        return {}
    file = parquet.ParquetFile(io.BytesIO(content))
    name = next((name for name in TASK if name in file.schema_arrow.names), None)
    if name is None or "task_index" not in file.schema_arrow.names:
        raise ValueError("meta/tasks.parquet has no columns task_index and task")
    found: dict[int, str] = {}
    size = 0
    # A few at a time: a small file can repeat a long name for ever.
    for batch in file.iter_batches(batch_size=64, columns=["task_index", name]):
        size += batch.nbytes
        if size > LARGEST_TASKS:
            raise ValueError(f"meta/tasks.parquet holds more than {LARGEST_TASKS // MIB} MiB of tasks")
        found.update(zip(batch.column("task_index").to_pylist(), batch.column(name).to_pylist(), strict=True))
    if not all(isinstance(index, int) and isinstance(called, str) for index, called in found.items()):
        raise ValueError("meta/tasks.parquet does not give every task an index and a name")
    return found


def _wanted_indices(tasks: dict[int, str], task: str, place: str) -> list[int] | None:
    """The task_index of the frames that are wanted; None: a set of one task, whatever it is called."""
    names = list(dict.fromkeys(tasks.values()))
    if len(names) < 2:
        return None
    if task not in names:
        known = f"{', '.join(shown(name) for name in names[:12])}{f', ... ({len(names)} in all)' if len(names) > 12 else ''}"
        raise UnsupportedEnvironment(
            f"'lerobot:{place}' holds the tasks {known}, and none is called {shown(task)}; "
            "use it for one of these, or keep the task's episodes in a set of their own"
        )
    return [index for index, name in tasks.items() if name == task]


def _columns(parquet: Any, path: Path, several_tasks: bool) -> dict[str, np.ndarray]:
    """The columns that are needed, as arrays with a row per step."""
    if not path.is_file():
        raise ValueError(f"{path.name} is not a regular file")
    file = parquet.ParquetFile(path)
    present = set(file.schema_arrow.names)
    needed = ["observation.state", "action", "episode_index", *(["task_index"] if several_tasks else [])]
    if missing := set(needed) - present:
        raise ValueError(f"{path.name} has no column {sorted(missing)[0]}")
    wanted = [name for name in dict.fromkeys((*OBSERVATIONS, *needed, "frame_index", *SUCCESS)) if name in present]
    numbers = sum(_numbers(file.metadata, name) for name in wanted)
    if numbers > MOST_NUMBERS:
        raise ValueError(f"{path.name} says that it holds {numbers} numbers, more than {MOST_NUMBERS}")
    table = file.read(columns=wanted)
    return {name: _array(table.column(name).combine_chunks(), name) for name in wanted}


def _numbers(metadata: Any, column: str) -> int:
    """How many numbers a column says that it holds, before it is unpacked."""
    chunks = (metadata.row_group(group).column(place) for group in range(metadata.num_row_groups) for place in range(metadata.num_columns))
    return sum(chunk.num_values for chunk in chunks if f"{chunk.path_in_schema}.".startswith(f"{column}."))


def _array(column: Any, name: str) -> np.ndarray:
    """(rows,) or (rows, width): a column of numbers, or of lists of one length."""
    if name in SUCCESS and column.type.num_fields == 0:
        column = column.fill_null(False)
    if column.null_count:
        raise ValueError(f"column {name} has gaps")
    if column.type.num_fields == 0:  # no lists
        return np.asarray(column.to_numpy(zero_copy_only=False))
    if not hasattr(column, "value_lengths"):
        raise ValueError(f"column {name} is of type {column.type}; numbers or lists of them are expected")
    widths = np.unique(column.value_lengths().to_numpy())
    if len(widths) != 1:
        raise ValueError(f"column {name} holds {f'lists of {widths[0]} to {widths[-1]} numbers' if len(widths) else 'nothing'}")
    return np.asarray(column.flatten().to_numpy(zero_copy_only=False)).reshape(len(column), int(widths[0]))


def _episodes_of(columns: dict[str, np.ndarray], task_indices: list[int] | None) -> Iterator[Recording]:
    """The wanted episodes of one file, each in the order of its frames; no episode is spread over two files."""
    observations = np.concatenate([_rows(columns[name]) for name in OBSERVATIONS if name in columns], axis=1)
    actions, success = _rows(columns["action"]), next((columns[name].reshape(-1) for name in SUCCESS if name in columns), None)
    for number in dict.fromkeys(columns["episode_index"].tolist()):
        rows = np.flatnonzero(columns["episode_index"] == number)
        if task_indices is not None and not np.isin(columns["task_index"][rows], task_indices).all():
            continue
        if "frame_index" in columns:
            rows = rows[np.argsort(columns["frame_index"][rows], kind="stable")]
        yield Recording(int(number), observations[rows], actions[rows], None if success is None else success[rows].astype(bool))


def _rows(column: np.ndarray) -> np.ndarray:
    values = column.astype(np.float64)
    return values[:, None] if values.ndim == 1 else values
