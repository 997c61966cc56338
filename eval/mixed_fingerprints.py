"""Runs that were made with different simulators or libraries, named one by one: their figures must not be mixed without a word.

    runs/a  mujoco 3.3.0, models afd1950321d5   torch 2.13.0
    runs/b  mujoco 3.3.0, models 77c1d2e3f4a5   torch 2.13.0     ->   the simulator metaworld (models afd1...: runs/a; models 77c1...: runs/b)
    runs/c  mujoco 3.3.0                        torch 2.12.0     ->   the version of torch (2.13.0: runs/a, runs/b; 2.12.0: runs/c)

A run of an earlier version says its simulator's versions only: it is unlike another by these, not by what it does not say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconverge.eval.run_results import RunResults

LIBRARIES = ("torch", "mujoco", "metaworld")
UNKNOWN = "unknown"
SHOWN_RUNS = 4
"""Runs named for each value; of more only the number is given."""


def mixed_fingerprints(runs: Sequence[RunResults]) -> list[str]:
    """What differs, such as `the version of torch (2.12.0: runs/a; 2.13.0: runs/b)`; nothing when nothing that is known does."""
    versions = [("the version of " + name, [_version(run, name) for run in runs]) for name in LIBRARIES]
    simulators = sorted({name for run in runs for name in _simulators(run)})
    fingerprints = [(f"the simulator {name}", [_without_versions(_simulators(run).get(name, UNKNOWN)) for run in runs]) for name in simulators]
    described = _described(runs)
    return [f"{aspect} ({_by_value(runs, values)})" for aspect, values in [*versions, *fingerprints, *described] if _differ(values)]


def warning(runs: Sequence[RunResults]) -> str:
    """One line for the terminal; empty when there is nothing to warn of."""
    mixed = mixed_fingerprints(runs)
    return f"warning: these runs differ in {'; in '.join(mixed)}. Their figures are not like for like" if mixed else ""


def _described(runs: Sequence[RunResults]) -> list[tuple[str, list[str]]]:
    """The one line on the simulator, where a run has nothing else to say of it."""
    told = all(_version(run, "mujoco") != UNKNOWN for run in runs)
    return [] if told else [("the simulator", [str(run.fingerprint.get("simulator") or UNKNOWN) for run in runs])]


def _differ(values: Sequence[str]) -> bool:
    return len(set(values) - {UNKNOWN}) > 1


def _by_value(runs: Sequence[RunResults], values: Sequence[str]) -> str:
    having: dict[str, list[str]] = {}
    for run, value in zip(runs, values, strict=True):
        having.setdefault(value, []).append(str(run.folder))
    return "; ".join(f"{value}: {_named(folders)}" for value, folders in having.items())


def _named(folders: Sequence[str]) -> str:
    shown = ", ".join(folders[:SHOWN_RUNS])
    return shown if len(folders) <= SHOWN_RUNS else f"{shown} and {len(folders) - SHOWN_RUNS} more"


def _version(run: RunResults, name: str) -> str:
    return str(_mapping(run.fingerprint.get("versions")).get(name, UNKNOWN))


def _simulators(run: RunResults) -> dict[str, str]:
    return {str(name): str(found) for name, found in _mapping(run.fingerprint.get("simulators")).items()}


def _without_versions(fingerprint: str) -> str:
    """What a fingerprint says beside the versions of the libraries, which are compared by themselves."""
    parts = [part for part in fingerprint.split(", ") if part.partition(" ")[0] not in LIBRARIES]
    return ", ".join(parts) or UNKNOWN


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
