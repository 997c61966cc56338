"""A folder of arrays and JSON that is either whole or not there.

    stage-03/
      manifest.json        {"version": 1, "files": {"policy.safetensors": {"sha256": ..., "bytes": ...}}}
      policy.safetensors   arrays, read without running any code
      stage.json           everything else

Writing goes to a hidden sibling folder, is flushed to disk, and becomes visible by one rename; reading
checks every size and hash first, because a flipped bit in a safetensors file loads without complaint. Only
safetensors, JSON and plain text are ever read: no pickle, hence no code from a file. A file is read once, into
memory: what was checked is what is used, whatever happens to the file afterwards.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as save_arrays

from reconverge.envs.bounded_file import read_bounded
from reconverge.envs.errors import DamagedFile, shown
from reconverge.envs.plain_arrays import parse_arrays
from reconverge.envs.plain_json import LARGEST_TEXT, parse_json, read_json

Arrays = Mapping[str, np.ndarray]
MANIFEST = "manifest.json"
VERSION = 1
MOST_FILES = 1000
NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""Refusals of the system by which a file is missing. All others, such as those of a disk or a network, say nothing of what it holds."""
ABANDONED_S = 24 * 3600.0
"""Nobody writes for so long: what has lain half-written in a folder of many writers for a day was left by a process that was killed."""


def write_artifact(folder: Path, files: Mapping[str, Arrays | str | bytes | dict[str, Any]]) -> None:
    """Write `files` as one artifact at `folder`. A new folder appears in one rename, an old one steps aside first.

    The suffix of a name chooses its form: `.safetensors` takes arrays, `.json` a JSON value, anything
    else text or bytes. The parent folder is created when missing.
    """
    with written_whole(folder) as draft:
        entries = {}
        for name, content in files.items():
            data = _encode(name, content)
            entries[name] = _entry_of(data)
            write_durably(draft / name, data)
        write_durably(draft / MANIFEST, _manifest(entries))
        _flush_folder(draft)


def manifest_of(files: Mapping[str, bytes]) -> bytes:
    """The manifest of these files."""
    return _manifest({name: _entry_of(data) for name, data in files.items()})


@contextlib.contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A hidden draft beside `folder` to write in; it takes the name in one rename when all went well, and is gone when not."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_of(folder)
    draft.mkdir()
    try:
        yield draft
        swap_into_place(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


class Artifact:
    """A verified artifact opened for reading; every file's size and hash was checked on opening.

    Opening and reading raise DamagedFile for a file that is missing, changed, no safetensors or JSON, or not the folder's own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._data = _read_verified(self.folder)

    def __contains__(self, name: str) -> bool:
        return name in self._data

    @property
    def names(self) -> list[str]:
        return sorted(self._data)

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        return parse_arrays(self.bytes(name), str(self.folder / name))

    def json(self, name: str, most_bytes: int = LARGEST_TEXT) -> Any:
        """The value of a JSON file, in which a figure that was not measured may be NaN."""
        return parse_json(self.bytes(name), str(self.folder / name), most_bytes, unmeasured=True)

    def text(self, name: str) -> str:
        try:
            return self.bytes(name).decode()
        except UnicodeDecodeError as error:
            raise DamagedFile(f"{self.folder / name} is not UTF-8 text (byte {error.start}); delete {self.folder} and redo it") from error

    def bytes(self, name: str) -> bytes:
        if name not in self._data:
            raise DamagedFile(f"{self.folder} has no file '{name}'; it holds {', '.join(self.names)}")
        return self._data[name]


def write_file(path: Path, content: str | bytes) -> None:
    """Replace one file atomically: a reader sees the old or the new content, never a part."""
    draft = draft_of(path)
    try:
        write_durably(draft, content.encode() if isinstance(content, str) else content)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def draft_of(path: Path) -> Path:
    """A hidden name beside `path` to write under that nobody else has: processes of two containers may have one number."""
    return path.with_name(f".{path.name}.writing-{os.getpid()}-{secrets.token_hex(4)}")


def sweep_drafts(folder: Path) -> None:
    """Remove what an interrupted write left behind in `folder`, in which nobody else may be writing."""
    for draft in folder.glob(".*.writing-*"):
        _sweep(draft)


def sweep_abandoned(folder: Path) -> None:
    """The same where others may be writing: what has been so for `ABANDONED_S`. Failing is nobody's concern: another one may be sweeping too."""
    for draft in folder.glob(".*.writing-*"):
        with contextlib.suppress(OSError):
            if file_system_now_s(folder) - draft.lstat().st_ctime >= ABANDONED_S:
                _sweep(draft)


def file_system_now_s(folder: Path) -> float:
    """The file system's own clock, which is what the age of a file must be compared with."""
    probe = draft_of(folder / "clock")
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def _sweep(draft: Path) -> None:
    place = draft.with_name(draft.name[1:].partition(".writing-")[0])
    if draft.name.endswith("-old") and not place.exists():  # stepped aside for a new one that never came
        os.rename(draft, place)
    else:
        shutil.rmtree(draft) if draft.is_dir() else draft.unlink()


def swap_into_place(draft: Path, folder: Path) -> None:
    """Give `draft`, a folder beside it, the name `folder`. An old one steps aside first; it comes back when that fails."""
    if not folder.exists():
        os.rename(draft, folder)
    else:
        old = draft_of(folder)
        old = old.with_name(f"{old.name}-old")
        os.rename(folder, old)
        try:
            os.rename(draft, folder)
        finally:
            if folder.exists():  # the draft, or what another process has put there meanwhile
                shutil.rmtree(old)
            else:
                os.rename(old, folder)
    _flush_folder(folder.parent)


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it. Raises OSError, which names the file also where the disk is full."""
    try:
        with open(path, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _read_verified(folder: Path) -> dict[str, bytes]:
    if not folder.is_dir():
        raise DamagedFile(f"there is no folder {folder}")
    return {name: _read_listed(folder, name, size, digest) for name, (size, digest) in _read_manifest(folder).items()}


def _read_manifest(folder: Path) -> dict[str, tuple[int, str]]:
    """Name -> bytes and SHA-256 of every file."""
    _refuse_link(folder, MANIFEST)
    try:
        return listed_files(read_json(folder / MANIFEST))
    except (OSError, ValueError, DamagedFile) as error:
        _raise_unless_damage(error)
        raise DamagedFile(f"{folder} has no readable {MANIFEST} ({error}); delete the folder and redo it") from error


def listed_files(manifest: Any) -> dict[str, tuple[int, str]]:
    """Name -> bytes and SHA-256, as a manifest's content says. Raises ValueError for what is no manifest; names are not looked at."""
    try:
        files = manifest["files"]
        if manifest["version"] != VERSION or len(files) > MOST_FILES:
            raise ValueError(f"it is of version {shown(manifest['version'])} and lists {len(files)} files")
        return {name: _entry(entry) for name, entry in files.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from error


def _entry(entry: dict[str, Any]) -> tuple[int, str]:
    size, digest = entry["bytes"], entry["sha256"]
    if type(size) is not int or size < 0 or not re.fullmatch("[0-9a-f]{64}", digest):
        raise ValueError(f"an entry is {shown(entry)}")
    return size, digest


def _read_listed(folder: Path, name: str, size: int, digest: str) -> bytes:
    """The file's content, read once; a size that differs from the manifest's is refused before anything is read."""
    if Path(name).name != name or name in ("", ".", ".."):
        raise DamagedFile(f"{folder / MANIFEST} names {shown(name)}, which leaves the folder; it was tampered with")
    _refuse_link(folder, name)
    try:
        found = (folder / name).stat().st_size
        if found != size:
            raise DamagedFile(f"{folder / name} does not match its hash: it has {found} bytes instead of {size}; delete {folder} and redo it")
        content = read_bounded(folder / name, size)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        _raise_unless_damage(error)
        raise DamagedFile(f"{folder / name} is missing; delete {folder} and redo it") from error
    if _sha256(content) != digest:
        raise DamagedFile(f"{folder / name} does not match its hash; delete {folder} and redo it")
    return content


def _refuse_link(folder: Path, name: str) -> None:
    """An artifact that was handed over must not show the files of the one who opens it."""
    try:
        leads_out = (folder / name).is_symlink() and (folder / name).resolve().parent != folder.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a NUL in the name; RuntimeError: a link to itself
        _raise_unless_damage(error)
        raise DamagedFile(f"{folder} holds a file that cannot be found ({error}); delete the folder and redo it") from error
    if leads_out:
        raise DamagedFile(f"{folder / name} is a link that leads out of its folder; put the file itself there")


def _raise_unless_damage(error: Exception) -> None:
    """Raise the system's refusal of a file again, unless it says that the file is missing."""
    if isinstance(error, OSError) and error.errno not in NOT_THERE:
        raise error


def _manifest(entries: Mapping[str, dict[str, Any]]) -> bytes:
    return json.dumps({"version": VERSION, "files": dict(entries)}, indent=1).encode()


def _entry_of(data: bytes) -> dict[str, Any]:
    return {"sha256": _sha256(data), "bytes": len(data)}


def _encode(name: str, content: Arrays | str | bytes | dict[str, Any]) -> bytes:
    if name.endswith(".safetensors"):
        assert isinstance(content, Mapping)
        return save_arrays({key: np.ascontiguousarray(value) for key, value in content.items()})
    if isinstance(content, bytes):
        return content
    return content.encode() if isinstance(content, str) else json.dumps(content, indent=1).encode()


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
