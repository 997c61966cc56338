"""The episodes of a data set in LeRobot's layout, version 3. Needs pyarrow: pip install 'reconverge[lerobot]'.

    FOLDER/meta/info.json                          {"codebase_version": "v3.0", ...}
    FOLDER/data/chunk-000/file-000.parquet         a row per step: observation.state, action, episode_index, frame_index, next.success, ...

An observation is `observation.state`, followed by `observation.environment_state` where there is one. Videos are not read. As many
observations as actions are kept there: of each episode the last action is left out (`recorded_episodes.py`).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from reconverge.envs.errors import DamagedFile, UnsupportedEnvironment, shown
from reconverge.envs.expert_source import MissingExpert
from reconverge.envs.plain_json import read_json_object
from reconverge.envs.recording import Recording

OBSERVATIONS = ("observation.state", "observation.environment_state")
SUCCESS = ("next.success", "success")


def lerobot_episodes(place: str) -> Iterator[Recording]:
    """The data set's episodes in order. Raises UnsupportedEnvironment, MissingExpert or DamagedFile, naming the place."""
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise UnsupportedEnvironment(f"'lerobot:{place}' needs pyarrow, which is not installed: pip install 'reconverge[lerobot]'") from error
    _check_version(place)
    # pyarrow's own errors are ValueErrors and OSErrors.
    try:
        for path in sorted(Path(place, "data").glob("chunk-*/*.parquet")):
            yield from _episodes_of(_columns(parquet, path), place)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DamagedFile(f"'lerobot:{place}' cannot be read ({str(error)[:200]}); restore its files") from error


def _check_version(place: str) -> None:
    try:
        version = read_json_object(Path(place, "meta", "info.json")).get("codebase_version")
    except OSError as error:
        raise MissingExpert(f"'lerobot:{place}' has no meta/info.json; give the folder of the data set") from error
    if not str(version).startswith("v3"):
        raise UnsupportedEnvironment(f"'lerobot:{place}' is of version {shown(version)}; convert it to v3.0 with lerobot's own converter")


def _columns(parquet: Any, path: Path) -> dict[str, np.ndarray]:
    """The columns that are needed, as arrays with a row per step."""
    present = set(parquet.ParquetFile(path).schema_arrow.names)
    if missing := {"observation.state", "action", "episode_index"} - present:
        raise ValueError(f"{path.name} has no column {sorted(missing)[0]}")
    wanted = [name for name in (*OBSERVATIONS, "action", "episode_index", "frame_index", *SUCCESS) if name in present]
    table = parquet.read_table(path, columns=wanted)
    return {name: np.array(table.column(name).to_pylist()) for name in wanted}


def _episodes_of(columns: dict[str, np.ndarray], place: str) -> Iterator[Recording]:
    """The episodes of one file, each in the order of its frames; no episode is spread over two files."""
    observations = np.concatenate([_rows(columns[name]) for name in OBSERVATIONS if name in columns], axis=1)
    actions, success = _rows(columns["action"]), next((columns[name].reshape(-1) for name in SUCCESS if name in columns), None)
    for number in dict.fromkeys(columns["episode_index"].tolist()):
        rows = np.flatnonzero(columns["episode_index"] == number)
        if "frame_index" in columns:
            rows = rows[np.argsort(columns["frame_index"][rows], kind="stable")]
        yield Recording(int(number), observations[rows], actions[rows], None if success is None else success[rows].astype(bool))


def _rows(column: np.ndarray) -> np.ndarray:
    values = column.astype(np.float64)
    return values[:, None] if values.ndim == 1 else values
