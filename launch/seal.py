"""The seal of a run folder: a list of its files with their hashes, there as long as nobody writes in the folder.

    files.json    {"version": 1, "files": {"episodes.csv": {"sha256": ..., "bytes": ...}, ...}}

Who opens the folder to write breaks the seal, and makes a new one on leaving. A run that was killed has none: its
checkpoints, which carry hashes of their own, are what it is resumed from, and the tables are written anew from them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from reconverge.envs.artifact import write_file
from reconverge.envs.errors import DamagedFile
from reconverge.envs.plain_json import read_json, read_json_object

SEAL = "files.json"
HASHED_THEMSELVES = "checkpoints"

Sealed = dict[str, tuple[dict[str, Any], int]]
"""File -> what the seal said of it, and when it was last written, in ns."""


def seal(folder: Path, before: Sealed | None = None) -> None:
    """Hash every file; one that nobody has written since `unseal` gave `before` keeps the hash that it had, whatever it holds."""
    files = {}
    for path in sealed_files(folder):
        name = str(path.relative_to(folder))
        known, written_ns = (before or {}).get(name, ({}, -1))
        files[name] = known if path.stat().st_mtime_ns == written_ns else _entry(path)
    write_file(folder / SEAL, json.dumps({"version": 1, "files": files}, indent=1) + "\n")


def renew(folder: Path, written: Iterable[Path]) -> None:
    """Take files that were written anew into the seal, and vouch for no other; does nothing where there is no seal."""
    if not (folder / SEAL).exists():
        return
    listed = read_json(folder / SEAL)
    for path in written:
        listed["files"][str(path.relative_to(folder))] = _entry(path)
    write_file(folder / SEAL, json.dumps(listed, indent=1) + "\n")


def unseal(folder: Path) -> Sealed:
    """Break the seal; returns what it said of the files that are there, for `seal`."""
    try:
        listed = read_json_object(folder / SEAL)["files"]
        found: Sealed = {name: (dict(entry), (folder / name).stat().st_mtime_ns) for name, entry in listed.items() if (folder / name).is_file()}
    except (OSError, DamagedFile, KeyError, TypeError, ValueError, AttributeError):
        found = {}
    (folder / SEAL).unlink(missing_ok=True)
    return found


def broken_seals(folder: Path, listed: dict[str, Any]) -> list[str]:
    """What has changed since the folder was sealed with the list `listed`: a sentence per file that differs, is missing or is new."""
    present = {str(path.relative_to(folder)): path for path in sealed_files(folder)}
    changed = []
    for name, entry in listed.items():
        path = present.pop(name, None)
        if path is None:
            changed.append(f"{name} is missing")
        elif path.stat().st_size != entry["bytes"]:
            changed.append(f"{name} has {path.stat().st_size} bytes instead of {entry['bytes']}")
        elif _sha256(path) != entry["sha256"]:
            changed.append(f"{name} does not match its hash")
    return changed + [f"{name} came later" for name in present]


def sealed_files(folder: Path) -> Iterator[Path]:
    """Every file of the run but the seal, the checkpoints and what is hidden: locks and drafts."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        if path.is_file() and not hidden and inside.parts[0] != HASHED_THEMSELVES and str(inside) != SEAL:
            yield path


def _entry(path: Path) -> dict[str, Any]:
    return {"sha256": _sha256(path), "bytes": path.stat().st_size}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
