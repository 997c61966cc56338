"""Which simulator made an episode, told without loading it: versions, and digests of the files that the physics and the success flags come from.

    metaworld 3.1.1, mujoco 3.3.0, models 0f1e2d3c4b5a, code 5a4b3c2d1e0f, reward success only
    gymnasium 1.4.0, environment Pendulum-v1
    point-reach 1

Two equal version numbers do not make two equal simulators: an edited XML file, a mesh of another checkout or a patched success test
keep them. Two equal fingerprints do, up to the last bits, in which processors differ; of an environment of your own, as far as the file
goes that defines it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from typing import Any

from reconverge.envs.gym_name import GYM_PREFIX, read_gym_name
from reconverge.envs.point_reach import VERSION as POINT_REACH_VERSION
from reconverge.envs.task import Task

REWARD = "success only"
"""The reward that Meta-World episodes carry here; it changes when a shaped one is used."""
MODEL_SUFFIXES = (".xml", ".stl")
"""Scenes and what they include, and the meshes that collide. Textures are for the eye."""
DIGITS = 12


def simulator_fingerprints(tasks: Iterable[Task]) -> dict[str, str]:
    """Simulator -> its fingerprint, for every simulator of the tasks: `metaworld`, `point-reach`, or the name of a `gym:` task."""
    return {_simulator(task): simulator_fingerprint(task) for task in tasks}


def simulator_fingerprint(task: Task) -> str:
    """The fingerprint of the simulator of one task; imports neither mujoco nor metaworld. A missing package is `absent`."""
    if task.family == "metaworld":
        return metaworld_fingerprint()
    if task.family == "point-reach":
        return POINT_REACH_VERSION
    return gym_fingerprint(task.name.removeprefix(GYM_PREFIX))


@cache
def metaworld_fingerprint() -> str:
    """Meta-World's and MuJoCo's; some 40 ms, once per process."""
    models, code = metaworld_digests(_package_folder("metaworld"))
    return f"{_versioned('metaworld')}, {_versioned('mujoco')}, models {models}, code {code}, reward {REWARD}"


def metaworld_digests(package: Path | None) -> tuple[str, str]:
    """Digests of the model files and of the Python files in a package's folder; `unknown` where there is none."""
    if package is None:
        return "unknown", "unknown"
    return _digest(package / "assets", MODEL_SUFFIXES), _digest(package, (".py",))


def gym_fingerprint(environment: str) -> str:
    """Gymnasium's version, the environment and, where Gymnasium says which, the package that it comes from."""
    name = read_gym_name(environment)
    spec = _spec(name.environment)
    parts = [_versioned("gymnasium"), f"environment {environment}"]
    if spec is not None and spec.id != name.environment.rpartition(":")[2]:  # an id without a version stands for the newest
        parts.append(f"that is {spec.id}")
    # An option may name a file, such as the model to simulate.
    files = [Path(value) for value in name.arguments.values() if isinstance(value, str) and os.path.isfile(value)]  # no error for a long text
    parts += [f"file {path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:DIGITS]}" for path in files]
    module = _registering_module(spec)
    package = module.partition(".")[0]
    if package not in ("", "gymnasium"):
        parts += [_versioned(package), *_files_of(spec)]
    if module.startswith("gymnasium.envs.mujoco"):
        parts.append(_versioned("mujoco"))
    return ", ".join(parts)


def _simulator(task: Task) -> str:
    return task.name if task.family == "gym" else task.family


def _spec(environment: str) -> Any | None:
    """What Gymnasium knows of an environment; None where it is not loaded, as it is once the task is known."""
    gymnasium: Any = sys.modules.get("gymnasium")
    if gymnasium is None:
        return None
    registered = environment.rpartition(":")[2]
    if registered in gymnasium.registry:
        return gymnasium.registry[registered]
    try:
        namespace, name, _ = gymnasium.envs.registration.parse_env_id(registered)
    except gymnasium.error.Error:
        return None
    newest = gymnasium.envs.registration.find_highest_version(namespace, name)
    return gymnasium.registry.get(f"{registered}-v{newest}")


def _registering_module(spec: Any | None) -> str:
    """The module of the environment's class; empty where Gymnasium does not say."""
    entry: Any = None if spec is None else spec.entry_point
    return entry.partition(":")[0] if isinstance(entry, str) else str(getattr(entry, "__module__", "") or "")


def _digest(folder: Path, suffixes: tuple[str, ...]) -> str:
    """SHA-256, shortened, over names and contents of the files with these suffixes, in the order of their names."""
    found = hashlib.sha256()
    for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.suffix in suffixes):
        content = path.read_bytes()
        found.update(f"{name}\0{len(content)}\0".encode())
        found.update(content)
    return found.hexdigest()[:DIGITS]


def _package_folder(name: str) -> Path | None:
    spec = find_spec(name)
    places = None if spec is None else spec.submodule_search_locations
    return Path(places[0]) if places else None


def _files_of(spec: Any) -> list[str]:
    """The files that the environment is registered and defined in, by their digests; what these import is not looked at."""
    entry: Any = spec.entry_point
    registered = _registering_module(spec)
    if isinstance(entry, str):
        with contextlib.suppress(ImportError, AttributeError):
            entry = attrgetter(entry.partition(":")[2])(importlib.import_module(registered))
    defined = getattr(getattr(entry, "func", entry), "__module__", None) or registered
    return [said for module in dict.fromkeys((registered, defined)) if (said := _file_of(module))]


def _file_of(module: str) -> str:
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return ""
    path = None if spec is None or spec.origin is None else Path(spec.origin)
    return "" if path is None or not path.is_file() else f"file {path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:DIGITS]}"


def _versioned(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} absent"
