"""Curricula: which tasks come in which order, and how long each is trained.

    cw10                  a named curriculum           point-reach:3      its first three stages
    cw10:shuffle-7        its stages in the random order number 7
    mine.yaml             a file of your own, checked fully before anything runs:

        name: mine
        tasks: [hammer-v3, {task: push-v3, updates: 3000}, hammer-v3]
        updates: 1500               # per stage, optional; a stage's own value comes first
        demonstrations: 100         # likewise

A stage may bring its own environment and expert (docs/own_task.md); a task's expert need be named once:

        tasks:
          - {task: gym:Reacher-v5, success: {info: reward_dist, at_least: -0.05}, expert: "python:my_experts:reach"}
          - {task: gym:Reacher-v5, options: {frame_skip: 4}, success: {info: reward_dist, at_least: -0.05}, expert: "sb3:runs/experts/slow"}
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from reconverge.envs.errors import CurriculumError, DamagedFile, UnknownName, shown
from reconverge.envs.expert_source import ExpertSource, read_expert
from reconverge.envs.gym_name import GYM_PREFIX, gym_name, read_gym_name
from reconverge.envs.plain_yaml import read_yaml
from reconverge.envs.seeding import numpy_stream
from reconverge.envs.success_rule import read_rule
from reconverge.envs.task import Task
from reconverge.envs.tasks import find_task

CW10 = (
    "hammer-v3",
    "push-wall-v3",
    "faucet-close-v3",
    "push-back-v3",
    "stick-pull-v3",
    "handle-press-side-v3",
    "push-v3",
    "shelf-place-v3",
    "window-close-v3",
    "peg-unplug-side-v3",
)
"""The ten tasks of Continual World (Wolczyk et al. 2021) in its order, on Meta-World v3."""

CURRICULA: dict[str, tuple[str, ...]] = {
    "cw10": CW10,
    "cw20": CW10 + CW10,
    "point-reach": tuple(f"point-reach-{number}" for number in range(5)),
}

FILE_KEYS = ("name", "tasks", "updates", "demonstrations")
STAGE_KEYS = ("task", "updates", "demonstrations", "options", "success", "expert", "expert_digest", "trusted")
MOST_STAGES = 1000
LARGEST_NUMBER = 10**9


@dataclass(frozen=True)
class Stage:
    """One position in a curriculum.

    Attributes:
        number: 1-based.
        updates: gradient updates; None: as the configuration says.
        demonstrations: successful expert episodes; None: as the configuration says.
    """

    number: int
    task: Task
    updates: int | None = None
    demonstrations: int | None = None


@dataclass(frozen=True)
class Curriculum:
    name: str
    stages: tuple[Stage, ...]

    @property
    def tasks(self) -> list[Task]:
        """The distinct tasks in order of first appearance."""
        return list(dict.fromkeys(stage.task for stage in self.stages))

    def resolved(self, updates: int, demonstrations: int) -> Curriculum:
        """The same with these budgets where a stage leaves its own open."""
        stages = [
            replace(stage, updates=stage.updates or updates, demonstrations=stage.demonstrations or demonstrations) for stage in self.stages
        ]
        return Curriculum(self.name, tuple(stages))

    def to_yaml(self) -> str:
        """The text of a curriculum file that `load_curriculum` reads back, with the digests of experts as they are now, and without `trusted`."""
        stages = [
            {
                "task": stage.task.name,
                **{key: value for key in ("updates", "demonstrations") if (value := getattr(stage, key)) is not None},
                **_expert_keys(stage.task.expert),
            }
            for stage in self.stages
        ]
        return yaml.safe_dump({"name": self.name, "tasks": stages}, sort_keys=False)


def load_curriculum(name_or_file: str, trusting: bool = True) -> Curriculum:
    """A curriculum by name (`cw10`), prefix (`cw10:3`), order (`cw10:shuffle-7`) or file (`mine.yaml`).

    `trusting` heeds `trusted: true` in a file: false for one that somebody else may have written. Raises UnknownName for a name that does
    not exist, MissingExpert or UntrustedExpert for an expert that cannot be used, CurriculumError for anything else that cannot be run.
    """
    if name_or_file.endswith((".yaml", ".yml")):
        return _from_file(Path(name_or_file), trusting)
    name, _, suffix = name_or_file.partition(":")
    if name not in CURRICULA:
        raise UnknownName("curriculum", name, CURRICULA, "--curriculum (a file's name must end in .yaml)")
    return _checked(name_or_file, [{"task": task} for task in _arranged(name_or_file, suffix, CURRICULA[name])], {}, name_or_file)


def _arranged(whole: str, suffix: str, names: Sequence[str]) -> Sequence[str]:
    """The stages that a name with its suffix stands for: all, a prefix, or all in a random order that is a function of its number."""
    shuffled = re.fullmatch(r"shuffle-(\d{1,9})", suffix, re.ASCII)
    if shuffled:
        return [names[index] for index in numpy_stream("curriculum order", int(shuffled[1])).permutation(len(names))]
    return names[: _prefix_length(whole, suffix, len(names))]


def _prefix_length(whole: str, prefix: str, most: int) -> int:
    if ":" not in whole:
        return most
    if not (prefix.isascii() and prefix.isdigit() and len(prefix) < 6 and 1 <= int(prefix) <= most):
        raise CurriculumError(f"curriculum '{whole}': after ':' comes a number between 1 and {most}, or an order such as shuffle-7")
    return int(prefix)


def _expert_keys(expert: ExpertSource | None) -> dict[str, str]:
    return {} if expert is None else {"expert": str(expert), "expert_digest": expert.digest}


def _from_file(path: Path, trusting: bool) -> Curriculum:
    content = _parsed(path)
    if not isinstance(content, dict):
        raise CurriculumError(f"{path} must be a mapping with the keys {', '.join(FILE_KEYS)}")
    _check_keys(content, FILE_KEYS, str(path))
    entries = content.get("tasks")
    if not isinstance(entries, list) or not entries:
        raise CurriculumError(f"{path}: 'tasks' must be a list of at least one task name")
    if len(entries) > MOST_STAGES:
        raise CurriculumError(f"{path}: 'tasks' lists {len(entries)} stages; at most {MOST_STAGES} are accepted")
    name = content.get("name", path.stem)
    if not isinstance(name, str) or not name.strip():
        raise CurriculumError(f"{path}: 'name' must be text, not {shown(name)}")
    stages = [_stage_entry(entry, f"{path}, stage {number}") for number, entry in enumerate(entries, 1)]
    if not trusting:
        stages = [{key: value for key, value in stage.items() if key != "trusted"} for stage in stages]
    return _checked(name, stages, content, str(path))


def _stage_entry(entry: Any, place: str) -> dict[str, Any]:
    if isinstance(entry, str):
        return {"task": entry}
    if not isinstance(entry, dict):
        raise CurriculumError(f"{place}: {shown(entry)} is neither a task name nor a mapping with the keys {', '.join(STAGE_KEYS)}")
    _check_keys(entry, STAGE_KEYS, place)
    if not isinstance(entry.get("task"), str):
        raise CurriculumError(f"{place}: 'task' must be the name of a task, not {shown(entry.get('task'))}")
    return entry


def _checked(name: str, entries: Sequence[Mapping[str, Any]], defaults: Mapping[str, Any], place: str) -> Curriculum:
    fallback = {key: _amount(defaults, key, place) for key in ("updates", "demonstrations")}
    stages = []
    for number, entry in enumerate(entries, 1):
        here = f"{place}, stage {number}"
        own = {key: _amount(entry, key, here) for key in fallback}
        amounts = {key: fallback[key] if own[key] is None else own[key] for key in fallback}
        stages.append(Stage(number, _task(entry, here), **amounts))
    stages = _with_one_expert_each(stages, place)
    check_sizes(stages, place)
    return Curriculum(name, tuple(stages))


def _task(entry: Mapping[str, Any], place: str) -> Task:
    """The task of a stage: found by name, with the stage's options, rule of success and expert."""
    try:
        task = find_task(_full_name(entry, place))
    except UnknownName as error:
        raise UnknownName(error.kind, error.name, error.known, place) from None
    if "expert" in entry:
        return replace(task, expert=read_expert(entry["expert"], place, entry.get("expert_digest"), entry.get("trusted", False)))
    if unused := {"expert_digest", "trusted"} & set(entry):
        raise CurriculumError(f"{place}: '{sorted(unused)[0]}' goes with 'expert', which is missing")
    return task


def _full_name(entry: Mapping[str, Any], place: str) -> str:
    """The name that holds the stage's options and rule of success."""
    name: str = entry["task"]
    given = [key for key in ("options", "success") if key in entry]
    if not given:
        return name
    if not name.startswith(GYM_PREFIX):
        raise CurriculumError(f"{place}: '{given[0]}' is for Gymnasium environments, named gym:ID; '{name[:80]}' is none")
    known = read_gym_name(name)
    if ("options" in entry and known.options) or ("success" in entry and known.success is not None):
        raise CurriculumError(f"{place}: '{given[0]}' is given twice, in the name '{name[:80]}' and beside it")
    options, rule = known.arguments, known.success
    if "options" in entry:
        if not isinstance(entry["options"], dict):
            raise CurriculumError(f"{place}: 'options' must be a mapping of arguments of gymnasium.make, not {shown(entry['options'])}")
        options = entry["options"]
    if "success" in entry:
        rule = read_rule(entry["success"], place)
    return str(gym_name(known.environment, options, rule, f"{place}, options"))


def _with_one_expert_each(stages: Sequence[Stage], place: str) -> list[Stage]:
    """A task that comes again has the expert that it was first given. Raises CurriculumError where it is given two."""
    experts: dict[str, ExpertSource] = {}
    for stage in stages:
        if (expert := stage.task.expert) is not None and experts.setdefault(stage.task.name, expert) != expert:
            first = experts[stage.task.name]
            raise CurriculumError(f"{place}, stage {stage.number}: '{stage.task.name}' has two experts, '{first}' and '{expert}'; name one of them")
    return [replace(stage, task=replace(stage.task, expert=experts.get(stage.task.name))) for stage in stages]


def _amount(mapping: Mapping[str, Any], key: str, place: str) -> int | None:
    value = mapping.get(key)
    if value is None and key not in mapping:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST_NUMBER:
        raise CurriculumError(f"{place}: '{key}' must be a whole number of at least 1, not {shown(value)}")
    return value


def _check_keys(mapping: Mapping[Any, Any], known: Sequence[str], place: str) -> None:
    for key in mapping:
        if key not in known:
            raise UnknownName("curriculum key", key if isinstance(key, str) else shown(key), known, place)


def check_sizes(stages: Sequence[Stage], place: str) -> None:
    """One network serves all tasks, so their observations and actions must have the same sizes."""
    first = stages[0].task
    for task in (stage.task for stage in stages):
        if (task.observation_size, task.action_size) != (first.observation_size, first.action_size):
            raise CurriculumError(
                f"{place}: '{task.name}' has {task.observation_size} observations and {task.action_size} actions, "
                f"'{first.name}' has {first.observation_size} and {first.action_size}; a curriculum's tasks must agree"
            )
        if task.layout != first.layout or (task.observation_centre is None) != (first.observation_centre is None):
            raise CurriculumError(f"{place}: the observations of '{task.name}' and '{first.name}' are laid out differently; tasks must agree")


def _parsed(path: Path) -> Any:
    try:
        return read_yaml(path)
    except OSError as error:
        raise CurriculumError(f"cannot read curriculum {path}: {error.strerror}") from error
    except DamagedFile as error:
        raise CurriculumError(f"curriculum {error}") from error
