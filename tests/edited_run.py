"""Changes by hand in the files of a run folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from reconverge.launch.config_file import HEADER


def with_settings(folder: Path, **settings: object) -> Path:
    """Change settings in a run's config.yaml, given as mappings of top-level keys."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(HEADER + yaml.safe_dump({**config, **settings}))
    return folder


def with_fingerprint(folder: Path, **facts: object) -> Path:
    """Change what a run's fingerprint.json says, by top-level keys."""
    fingerprint = json.loads((folder / "fingerprint.json").read_text())
    (folder / "fingerprint.json").write_text(json.dumps({**fingerprint, **facts}))
    return folder


def with_updates(folder: Path, updates: int) -> Path:
    """Change the updates of every stage in a run's curriculum.yaml."""
    curriculum = yaml.safe_load((folder / "curriculum.yaml").read_text())
    for stage in curriculum["tasks"]:
        stage["updates"] = updates
    (folder / "curriculum.yaml").write_text(yaml.safe_dump(curriculum))
    return folder


def with_demonstrations(folder: Path, counts: Sequence[int | None]) -> Path:
    """Change the demonstrations of every stage in a run's curriculum.yaml; None takes the entry out."""
    curriculum = yaml.safe_load((folder / "curriculum.yaml").read_text())
    for stage, count in zip(curriculum["tasks"], counts, strict=True):
        stage["demonstrations"] = count
        if count is None:
            del stage["demonstrations"]
    (folder / "curriculum.yaml").write_text(yaml.safe_dump(curriculum))
    return folder


def add_lines(path: Path, *lines: str) -> None:
    path.write_text(path.read_text() + "".join(f"{line}\n" for line in lines))


def keep_lines(path: Path, kept: Callable[[str], bool]) -> None:
    """Leave out the lines, of which the first has the names, for which `kept` is false."""
    heading, *lines = path.read_text().splitlines(True)
    path.write_text(heading + "".join(filter(kept, lines)))
