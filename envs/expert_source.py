"""Who demonstrates a task, as a stage of a curriculum says it, and a digest of what that is at the moment.

    expert: "python:my_package.experts:reach"     a function: observation (Do,) -> action (Da,), both in the environment's own units
    expert: "sb3:runs/experts/reacher"            what `reconverge train-expert` wrote: weights and settings, no code
    expert: "sb3:mine.zip"                        an archive of stable-baselines3; needs `trusted: true` beside it, for it can hold code
    expert: "minari:D4RL/door/human-v2"           recorded episodes: a Minari data set, by its id or its folder
    expert: "lerobot:data/reach"                  recorded episodes: a folder in LeRobot's layout, version 3
    expert: "hdf5:lift.hdf5#object,robot0_eef_pos"    recorded episodes: an HDF5 file in robomimic's layout, and the observations to put end to end

The digest becomes a part of the demonstrations' name and of a run's address: other weights, another function or other data are other
demonstrations. Of a function it covers the file that holds it, not what that file imports. A run folder keeps the digest, so that a
run goes on with what it began with, or says that it cannot.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from reconverge.envs.artifact import MANIFEST
from reconverge.envs.errors import CurriculumError, ReconvergeError, UnknownName, shown

Kind = Literal["python", "sb3", "minari", "lerobot", "hdf5"]
FORMS = "python:MODULE:FUNCTION, sb3:FOLDER, minari:ID, lerobot:FOLDER or hdf5:FILE#KEY,KEY"
DIGITS = 16
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_DIGEST = re.compile(f"[0-9a-f]{{{DIGITS}}}")


class UntrustedExpert(ReconvergeError):
    """An archive that can run code when it is opened, and nobody has said that it may."""


class MissingExpert(ReconvergeError):
    """An expert that is not where its stage says, or is another one than the run began with."""


@dataclass(frozen=True)
class ExpertSource:
    """One expert.

    Attributes:
        place: `MODULE:FUNCTION`, a path, the id of a data set, or `FILE#KEY,KEY`.
        digest: SHA-256, shortened, of what lies there.
        trusted: the user has said that the archive may run its code.
    """

    kind: Kind
    place: str
    digest: str
    trusted: bool = False

    def __str__(self) -> str:
        return f"{self.kind}:{self.place}"

    @property
    def identity(self) -> str:
        """What its demonstrations depend on: of data and weights the content, wherever it lies."""
        return f"{self} {self.digest}" if self.kind == "python" else f"{self.kind} {self.digest}"

    @property
    def recorded(self) -> bool:
        """Whether it is a set of episodes, which cannot be asked to act."""
        return self.kind in ("minari", "lerobot", "hdf5")

    @property
    def is_archive(self) -> bool:
        return self.kind == "sb3" and self.place.endswith(".zip")

    def require_unchanged(self) -> None:
        """Raise MissingExpert unless it is still what the digest says."""
        if (found := _digest_of(self.kind, self.place, str(self))) != self.digest:
            raise MissingExpert(
                f"expert '{self}' has the digest {found}, not {self.digest} as when it was named: it was changed since. "
                "Restore it, or start a new run (in another folder) from your curriculum file"
            )

    def require_trusted(self, place: str = "") -> None:
        """Raise UntrustedExpert for an archive that nobody has vouched for."""
        if self.is_archive and not self.trusted:
            raise UntrustedExpert(
                f"{f'{place}: ' if place else ''}'{self}' is an archive of stable-baselines3, which is unpickled when it is opened: whoever made "
                "it can run any code on this machine. Write `trusted: true` into the stage of your own curriculum file if it is yours "
                "(a run folder's word does not count), or train one without code: reconverge train-expert"
            )


def read_expert(text: object, place: str, digest: object = None, trusted: object = False) -> ExpertSource:
    """The expert that a stage names; without a digest, what lies there is looked at now.

    Raises CurriculumError, UnknownName, MissingExpert or UntrustedExpert, naming the place. Runs none of the expert's code, but imports the
    package that a function's module belongs to.
    """
    if not isinstance(text, str) or "\0" in text or ":" not in text:
        raise CurriculumError(f"{place}: 'expert' must be one of {FORMS}, not {shown(text)}")
    kind, _, where = text.partition(":")
    if kind not in get_args(Kind):
        raise UnknownName("kind of expert", kind, get_args(Kind), f"{place} (the forms are {FORMS})")
    if not where.strip() or (kind == "python" and not _FUNCTION.fullmatch(where)):
        raise CurriculumError(f"{place}: 'expert' must be one of {FORMS}, not {shown(text)}")
    if not isinstance(trusted, bool):
        raise CurriculumError(f"{place}: 'trusted' must be true or false, not {shown(trusted)}")
    if digest is not None and not (isinstance(digest, str) and _DIGEST.fullmatch(digest)):
        raise CurriculumError(f"{place}: 'expert_digest' must be {DIGITS} hexadecimal digits, not {shown(digest)}; leave it out")
    known: Kind = next(one for one in get_args(Kind) if one == kind)
    source = ExpertSource(known, where, digest or _digest_of(known, where, f"{place}: '{text}'"), trusted)
    if digest is None:
        source.require_trusted(place)
    return source


def minari_folder(place: str) -> Path:
    """Where a Minari data set lies: a folder, or an id below MINARI_DATASETS_PATH (~/.minari/datasets)."""
    if Path(place).is_dir():
        return Path(place)
    return Path(os.environ.get("MINARI_DATASETS_PATH", Path.home() / ".minari" / "datasets"), place)


def file_and_keys(place: str) -> tuple[Path, tuple[str, ...]]:
    """`FILE#KEY,KEY` -> the file and the observations that are wanted of it; none for `FILE` alone."""
    file, mark, keys = place.rpartition("#")
    return (Path(file), tuple(key.strip() for key in keys.split(",") if key.strip())) if mark else (Path(place), ())


def _digest_of(kind: Kind, where: str, place: str) -> str:
    try:
        match kind:
            case "python":
                return _of_bytes(_module_file(where.partition(":")[0], place).read_bytes())
            case "sb3":
                path = Path(where)
                return _of_bytes((path / MANIFEST if path.is_dir() else path).read_bytes())
            case "minari":
                return _of_folder(minari_folder(where), place, "download it first: minari download ID")
            case "lerobot":
                return _of_folder(Path(where), place, "give the folder that holds meta/info.json")
            case "hdf5":
                file, keys = file_and_keys(where)
                return _of_bytes(_content(file) + ",".join(keys).encode())
    except OSError as error:
        fix = "train it with reconverge train-expert --output-dir FOLDER" if kind == "sb3" else "correct the path"
        raise MissingExpert(f"{place} cannot be read ({error.strerror or error}); {fix}") from error


def _module_file(module: str, place: str) -> Path:
    """The source file of a module that can be imported, without running the module itself."""
    if module.partition(".")[0] in {*sys.stdlib_module_names, "__main__", "builtins"}:
        raise MissingExpert(f"{place}: an expert is a function of a module of your own, not of '{module}'; put it into a file such as my_experts.py")
    try:
        spec = find_spec(module)
    except (ImportError, ValueError, AttributeError) as error:
        raise MissingExpert(f"{place}: module '{module}' cannot be found ({error}); install it, or put its folder on PYTHONPATH") from error
    if spec is None or spec.origin is None or not spec.has_location:
        raise MissingExpert(f"{place}: module '{module}' cannot be found; install it, or put its folder on PYTHONPATH")
    return Path(spec.origin)


def _of_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:DIGITS]


def _of_folder(folder: Path, place: str, fix: str) -> str:
    """Over names and contents of the files of a data set, videos left out: they are not read."""
    found = hashlib.sha256()
    names = list(_data_files(folder))
    if not names:
        raise MissingExpert(f"{place}: {folder} holds no data set; {fix}")
    for path in names:
        found.update(f"{path.relative_to(folder).as_posix()}\0".encode() + _content(path))
    return found.hexdigest()[:DIGITS]


def _content(path: Path) -> bytes:
    """SHA-256 of a file that may be large."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _data_files(folder: Path) -> Iterator[Path]:
    kinds = (".hdf5", ".json", ".parquet", ".arrow", ".jsonl")
    yield from sorted(path for path in folder.rglob("*") if path.suffix in kinds and path.is_file())
