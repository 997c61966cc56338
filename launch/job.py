"""One job of a sweep: a configuration, where its results lie, and the address by which they are known.

    settings that count  +  stages with their budgets  +  simulators   ->   sha256   ->   address

Whether a folder holds a job's results is decided by reading its config.yaml as it would be read today and forming the
address of that: a setting that a later version adds takes its default there, so finished jobs stay finished.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from reconverge.envs.curriculum import Curriculum, Stage
from reconverge.envs.errors import DamagedFile, ReconvergeError
from reconverge.envs.plain_json import read_json_object
from reconverge.envs.tasks import simulator_version
from reconverge.eval.inert_settings import INERT
from reconverge.eval.run_results import read_run
from reconverge.launch.config import RunConfig
from reconverge.launch.config_file import Difference, flag_words, flat
from reconverge.launch.fingerprint import PACKAGES, package_versions
from reconverge.launch.own_methods import method_package
from reconverge.launch.run_folder import RunFolder, holds_run, refuse_foreign
from reconverge.launch.stage_plan import StagePlan, plan_stages, run_curriculum
from reconverge.policy.method_settings import is_read

LEFT_OUT: dict[str, str] = {"curriculum": "a name or a file; the stages it resolves to stand in its place", **INERT}
"""Settings that are no part of an address, and why they cannot change a table. Nor are those that the method does not read."""

UNREADABLE = (ReconvergeError, OSError, ValueError, TypeError, RecursionError)
"""What reading a run's files may end in, whatever they hold."""


@dataclass(frozen=True)
class Job:
    """What one run of a sweep shall be.

    Attributes:
        curriculum: with every budget filled in.
        variation: the settings that `--vary` and `--ablate` gave, as part of a path; empty without.
        command: a `reconverge train` line that gives the same configuration; the run folder keeps it.
    """

    config: RunConfig
    curriculum: Curriculum
    variation: str = ""
    command: str = ""

    @property
    def group(self) -> str:
        """What the seeds of a table's row have in common: METHOD or METHOD/VARIATION."""
        return f"{self.config.method}/{self.variation}" if self.variation else self.config.method

    @property
    def path(self) -> Path:
        """Folder of the run below that of the sweep: METHOD[/VARIATION]/seed-N."""
        return Path(self.group, f"seed-{self.config.seed}")

    @cached_property
    def plans(self) -> list[StagePlan]:
        return plan_stages(self.config, self.curriculum)

    @property
    def updates(self) -> int:
        """Gradient updates of all stages."""
        return sum(plan.updates for plan in self.plans)

    @cached_property
    def content(self) -> dict[str, Any]:
        """All that the results depend on."""
        return content(self.config, self.curriculum, package_versions(), method_package(self.config.method))

    @cached_property
    def address(self) -> str:
        return address(self.content)


@dataclass(frozen=True)
class Holding:
    """What a folder holds of a job: nothing, a part of the run, its whole result, another run, files that are no run's, or what cannot be told.

    Attributes:
        reason: of `other`, `foreign` and `unreadable`, what differs or is wrong.
        flags: of `other`, the flags with which the job would be the run that lies there; empty where settings alone do not make it so.
        stages_done: finished stages of a part; joint training counts its single stage as the last.
        seconds: what the whole run took, where cost.json says it.
    """

    state: Literal["nothing", "part", "result", "other", "foreign", "unreadable"]
    reason: str = ""
    stages_done: int = 0
    seconds: float | None = None
    flags: str = ""


def content(config: RunConfig, curriculum: Curriculum, versions: Mapping[str, str], method_package: str | None = None) -> dict[str, Any]:
    """All that the results of a job depend on, flat: settings, stages, simulators in these package versions, and another package's method."""
    settings = {key: value for key, value in flat(config).items() if key not in LEFT_OUT and is_read(key, config.method)}
    stages = curriculum.resolved(config.train.updates, config.demonstrations.episodes).stages
    budgets = {f"stage {stage.number}": _in_words(stage) for stage in stages}
    brought = {} if method_package is None else {"method package": method_package}
    return {**settings, **budgets, **brought, "simulators": _simulators(curriculum, versions)}


def _in_words(stage: Stage) -> str:
    """A stage with its budgets and, where it names an expert of its own, what that expert is."""
    expert = "" if stage.task.expert is None else f", expert {stage.task.expert.identity}"
    return f"{stage.task.name}, {stage.updates} updates, {stage.demonstrations} demonstrations{expert}"


def address(content: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of a content in canonical form."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def look(folder: Path, job: Job) -> Holding:
    """What `folder` holds of the job. Never raises for what lies there: that is `other`, `foreign` or `unreadable`, with the reason.

    A run is another one only where it was read and differs: what a disk or a network refuses now may be days of this very job.
    """
    try:
        refuse_foreign(folder)
    except ReconvergeError as error:
        return Holding("foreign", str(error))
    except OSError as error:
        return Holding("unreadable", f"it cannot be read ({error})")
    if not holds_run(folder):
        return Holding("nothing")
    try:
        stored = stored_content(folder)
    except ReconvergeError as error:
        damaged = isinstance(error, DamagedFile)  # else it was read, and is of an earlier version, or cannot run here
        return Holding("unreadable" if damaged else "other", str(error))
    except UNREADABLE as error:
        return Holding("unreadable", f"one of its files cannot be read ({error})")
    if address(stored) != job.address:
        return Holding("other", difference_in_words(stored, job.content), flags=flags_of(stored, job))
    try:
        return _progress_of(RunFolder.open(folder))
    except UNREADABLE as error:
        # Tables are made from what lies beside the checkpoints: a run that goes on writes them anew.
        derived = isinstance(error, ReconvergeError) and (folder / "checkpoints").is_dir()
        return Holding("part") if derived else Holding("unreadable", f"one of its files cannot be read ({error})")


def stored_content(folder: Path) -> dict[str, Any]:
    """The content of the run in a folder. Raises a ReconvergeError when one of its files cannot be read."""
    run = RunFolder.open(folder)
    config = run.config
    stored = content(config, run_curriculum(run, config), *_recorded(run))
    return {**stored, "extended after": list(extended)} if (extended := run.extended_after) else stored


def _progress_of(run: RunFolder) -> Holding:
    """A run with checkpoints but without a report was stopped in its last steps; published tables have neither."""
    if not run.curriculum_yaml.exists():
        return Holding("part")
    results = read_run(run.path)
    whole = results.finished and (run.report_html.exists() or not run.checkpoints.exists())
    return Holding("result" if whole else "part", "", results.stages_done, _seconds(run, results.cost.get("total_s")))


def _seconds(run: RunFolder, total_s: Any) -> float | None:
    try:
        return float(total_s) if total_s else None
    except (ValueError, TypeError) as error:
        raise DamagedFile(f"{run.cost_json}: total_s is {total_s!r}; a number of seconds was expected") from error


def _simulators(curriculum: Curriculum, versions: Mapping[str, str]) -> list[str]:
    """Such as `metaworld 3.1.1, mujoco 3.3.0`, with the given versions in place of those that are installed."""
    one_each = {task.family: task for task in curriculum.tasks}.values()
    return sorted(", ".join(_at_version(part, versions) for part in simulator_version(task).split(", ")) for task in one_each)


def _at_version(part: str, versions: Mapping[str, str]) -> str:
    package = part.partition(" ")[0]
    return f"{package} {versions.get(package, 'unknown')}" if package in PACKAGES else part


def _recorded(run: RunFolder) -> tuple[dict[str, str], str | None]:
    """The versions under which a run was made, and the package that its method came from where that was another one."""
    try:
        found = read_json_object(run.fingerprint_json)
        package = found.get("method_package")
        return {str(name): str(version) for name, version in found["versions"].items()}, None if package is None else str(package)
    except (FileNotFoundError, KeyError, AttributeError, DamagedFile) as error:
        raise DamagedFile(f"{run.fingerprint_json} cannot be read, so its simulator is unknown; redo the run") from error


def flags_of(stored: Mapping[str, Any], job: Job) -> str:
    """The flags that make a job the run whose content is stored, such as `--evaluation.episodes 100`; empty where flags alone do not."""
    keys = _unlike(stored, job.content)
    settings = [key for key in keys if key in flat(job.config)]
    others = [key for key in keys if key not in settings]
    budgets = {"train.updates", "demonstrations.episodes"} & set(settings)  # which the stages repeat
    if {"method", "seed"} & set(settings) or any(not (key.startswith("stage ") and budgets) for key in others):
        return ""
    return shlex.join(word for key in settings for word in flag_words(key, stored[key]))


def difference_in_words(stored: Mapping[str, Any], wanted: Mapping[str, Any], limit: int = 3) -> str:
    """The first few keys in which two contents differ, in words; empty where they are the same."""
    keys = _unlike(stored, wanted)
    shown = "; ".join(str(Difference(key, stored.get(key), wanted.get(key))) for key in keys[:limit])
    return shown if len(keys) <= limit else f"{shown}; and {len(keys) - limit} more"


def _unlike(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The keys in which two contents differ, or that one of them alone has."""
    return [key for key in {**stored, **wanted} if stored.get(key) != wanted.get(key)]
