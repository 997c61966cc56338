"""What is shared on the Hub: an exported policy as a model, demonstrations in LeRobot's layout as a data set.

    push    the export is verified, every file of it is on the list below, and goes into one commit, with its manifest; files on that list
            which an earlier push has left and this one lacks are deleted in the same commit: a card's glob would still gather them
    pull    a branch, tag or hash becomes one commit; its manifest is read first, and says which files there are, how large, with which
            hashes; only those are fetched, if every name is on the list and no file larger than its kind may be

A repository may be anybody's. Names that are not on the list (`../x`, `weights.pt`, `setup.py`) are refused before anything is
fetched; nothing is kept unless all is well. The hashes show that what arrived is what was committed, not who has committed it: for
that there is the commit's own hash, which `push` prints and `pull --revision` takes.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reconverge.envs.artifact import MANIFEST, MOST_FILES, Artifact, listed_files, manifest_of, write_durably
from reconverge.envs.bounded_file import MIB, read_bounded
from reconverge.envs.errors import DamagedFile, RunFolderError, shown
from reconverge.envs.plain_json import LARGEST_TEXT, parse_json, read_json_object
from reconverge.launch.demonstration_folder import new_folder
from reconverge.launch.hub_client import HubClient, Repository
from reconverge.launch.policy_export import KIND, RECORD
from reconverge.launch.run_folder import LEAST_FREE_BYTES
from reconverge.policy.diffusion_policy import DiffusionPolicy

LARGEST_ARRAYS = 2048 * MIB
CARD = "README.md"
LEROBOT_INFO = "meta/info.json"


@dataclass(frozen=True)
class Shared:
    """A kind of folder that is shared.

    Attributes:
        marker: the file by which it is known.
        files: pattern of a name -> the most bytes that such a file may have.
    """

    kind: Literal["model", "dataset"]
    marker: str
    files: Mapping[str, int]

    def largest(self, name: str) -> int | None:
        """The most bytes that a file of this name may have; None for a name that no such folder holds."""
        return next((size for pattern, size in self.files.items() if re.fullmatch(pattern, name, re.ASCII)), None)

    def holds(self, name: str) -> bool:
        """Whether such a folder may hold a file of this name."""
        return self.largest(name) is not None


POLICY = Shared("model", RECORD, {
    r"policy\.(safetensors|onnx)": LARGEST_ARRAYS,
    r"(policy|export)\.json|README\.md": LARGEST_TEXT,
})  # fmt: skip
DEMONSTRATIONS = Shared("dataset", LEROBOT_INFO, {
    r"meta/(info|stats)\.json|README\.md": LARGEST_TEXT,
    r"meta/tasks\.parquet": LARGEST_TEXT,
    r"meta/episodes/chunk-\d{3}/file-\d{3}\.parquet": 128 * MIB,
    r"data/chunk-\d{3}/file-\d{3}\.parquet": LARGEST_ARRAYS,
})  # fmt: skip


@dataclass(frozen=True)
class Pushed:
    repository: Repository
    commit: str
    bytes: int


def push(folder: Path, repository: str, private: bool, hub: HubClient) -> Pushed:
    """Commit an exported folder to `OWNER/NAME`. Raises RunFolderError for a folder that is none, DamagedFile for one that was changed."""
    shared, files = _read_policy(folder) if (folder / RECORD).is_file() else _read_demonstrations(folder)
    place = Repository(repository, shared.kind)
    # LeRobot finds the layout's version by a tag.
    tag = str(parse_json(files[LEROBOT_INFO], LEROBOT_INFO)["codebase_version"]) if shared is DEMONSTRATIONS else None
    commit = hub.commit(place, files, private, f"{folder.resolve().name}, by reconverge push", tag, shared.holds)
    return Pushed(place, commit, sum(map(len, files.values())))


def pull(repository: Repository, revision: str | None, folder: Path, hub: HubClient) -> str:
    """Write what a commit holds to `folder`, which must be new or empty, in one step. Returns the commit's hash.

    Raises DamagedFile, and leaves nothing behind, unless the commit holds exactly a policy or demonstrations, whole; RunFolderError where
    `folder` holds something.
    """
    shared = DEMONSTRATIONS if repository.kind == "dataset" else POLICY
    with new_folder(folder) as draft:
        commit = hub.commit_at(repository, revision)
        place = f"{MANIFEST} of {repository}"
        manifest = hub.read(repository, commit, MANIFEST, LARGEST_TEXT)
        listed = _listed(shared, manifest, place)
        wanted, free = sum(size for size, _ in listed.values()), shutil.disk_usage(draft).free
        if wanted > free - LEAST_FREE_BYTES:
            raise RunFolderError(f"{repository} has {wanted / 1e9:.1f} GB and the volume of {folder} {free / 1e9:.1f} left; make room there")
        for name, (size, digest) in listed.items():
            data = hub.read(repository, commit, name, size)
            if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
                raise DamagedFile(f"{name} of {repository} is not what its manifest says; nothing was kept, ask its owner to push it again")
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            write_durably(draft / name, data)
        write_durably(draft / MANIFEST, manifest)
        _check_whole(shared, draft)
    return commit


def _listed(shared: Shared, manifest: bytes, place: str) -> dict[str, tuple[int, str]]:
    """Name -> bytes and hash of what will be fetched; DamagedFile for a name or size that no such folder has."""
    try:
        listed = listed_files(parse_json(manifest, place))
    except ValueError as error:
        raise DamagedFile(f"{place} is no manifest ({error}); reconverge push did not write it") from error
    for name, (size, _) in listed.items():
        largest = shared.largest(name)
        if largest is None:
            raise DamagedFile(f"{place} names {shown(name)}, which no such repository of ours holds; nothing was fetched")
        if size > largest:
            raise DamagedFile(f"{place} says that {shown(name)} has {size} bytes; it may have {largest}, nothing was fetched")
    if shared.marker not in listed:
        raise DamagedFile(f"{place} lists no {shared.marker}; a policy is OWNER/NAME, demonstrations are datasets/OWNER/NAME")
    return listed


def _check_whole(shared: Shared, folder: Path) -> None:
    """Raise DamagedFile unless the files are those of a policy that loads, of an ONNX export, or of demonstrations."""
    record = read_json_object(folder / shared.marker)
    if shared is POLICY:
        if record.get("kind") != KIND:
            raise DamagedFile(f"{shared.marker} says that it is {shown(record.get('kind'))}, not a policy of ours; nothing was kept")
        if not (folder / "policy.onnx").exists():
            DiffusionPolicy.load(folder)


def _read_policy(folder: Path) -> tuple[Shared, dict[str, bytes]]:
    artifact = Artifact(folder)
    files = {name: artifact.bytes(name) for name in artifact.names}
    _refuse_others(POLICY, folder, files)
    return POLICY, {**files, MANIFEST: read_bounded(folder / MANIFEST, LARGEST_TEXT)}


def _read_demonstrations(folder: Path) -> tuple[Shared, dict[str, bytes]]:
    """The files of a folder in LeRobot's layout, with a card for the Hub where there is none and a manifest of them all."""
    if not (folder / LEROBOT_INFO).is_file():
        raise RunFolderError(
            f"{folder} is nothing that is shared; give a folder that `reconverge export RUN` or "
            "`reconverge export-demonstrations CURRICULUM --format lerobot` has written"
        )
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    names = [name for name in found if name != MANIFEST]
    _refuse_others(DEMONSTRATIONS, folder, names)
    files = {name: read_bounded(folder / name, DEMONSTRATIONS.largest(name) or 0) for name in names}
    files.setdefault(CARD, _DATA_CARD.encode())
    return DEMONSTRATIONS, {**files, MANIFEST: manifest_of(files)}


def _refuse_others(shared: Shared, folder: Path, names: Iterable[str]) -> None:
    """Raise RunFolderError for a file that no export has written: it might be anything, and all could read it."""
    names = list(names)
    others = [name for name in names if not shared.holds(name) or (folder / name).is_symlink()]
    if others or len(names) > MOST_FILES:
        found = shown(others[0]) if others else f"{len(names)} files"
        raise RunFolderError(f"{folder} holds {found}, which no export has written; nothing was pushed, export into a new folder")


_DATA_CARD = """---
task_categories: [robotics]
tags: [LeRobot, robotics]
configs: [{config_name: default, data_files: data/*/*.parquet}]
---

Demonstrations in LeRobot's layout, written by `reconverge export-demonstrations`. `meta/info.json` says how many episodes, of which tasks.
"""
