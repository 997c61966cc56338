"""What a run cost so far: seconds per phase, episodes, FLOPs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from reconverge.envs.artifact import write_file
from reconverge.envs.errors import DamagedFile
from reconverge.envs.plain_json import read_json_object
from reconverge.launch.progress import Progress
from reconverge.launch.run_folder import RunFolder


def _written(folder: RunFolder) -> dict[str, Any]:
    """What the file says; nothing where it is missing or damaged, as it follows from what lies beside the checkpoints."""
    try:
        return read_json_object(folder.cost_json)
    except (FileNotFoundError, DamagedFile):
        return {}


def write_cost(folder: RunFolder, progress: Progress, episodes: int | None = None, flops: Mapping[str, int] | None = None) -> None:
    """Write the seconds of every phase so far; call it again when another phase has ended. `episodes` and `flops` left out stay as they were."""
    folder.check_held()
    total_s = round(progress.total_s, 2)
    phases = {name: round(seconds, 2) for name, seconds in progress.seconds.items()}
    before = _written(folder) if episodes is None or flops is None else {}
    content = {"phases": phases, "total_s": total_s, "episodes_evaluated": before.get("episodes_evaluated", 0) if episodes is None else episodes}
    flops = before.get("flops") if flops is None else flops
    content |= {"flops": dict(flops)} if flops else {}
    write_file(folder.cost_json, json.dumps(content, indent=1) + "\n")
