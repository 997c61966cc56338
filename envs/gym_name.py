"""The name of a task that Gymnasium simulates: environment, options and rule of success, so that the name alone makes the task again.

    gym:Reacher-v5#reward_dist>=-0.05                          success by a rule: after `#`
    gym:Reacher-v5?frame_skip=4#reward_dist>=-0.05             options of gymnasium.make: after `?`, values in JSON, keys in order
    gym:my_package.tasks:Reach-v0?mass=2.0&wind=[0.1,0.0]      the module that registers the environment: before the id

Two tasks that differ in anything have two names: `%`, `&` and `#` within a value are written as `%25`, `%26` and `%23`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reconverge.envs.errors import CurriculumError, DamagedFile, shown
from reconverge.envs.plain_json import parse_json
from reconverge.envs.success_rule import SuccessRule, parse_rule

GYM_PREFIX = "gym:"
LONGEST_NAME = 2000
LONGEST_SHOWN = 32
"""Letters that fit beside a row of a picture."""
OURS = ("id", "render_mode", "disable_env_checker")
"""Arguments of gymnasium.make that are no part of a task."""
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}", re.ASCII)


@dataclass(frozen=True)
class GymName:
    """What a name says.

    Attributes:
        environment: what gymnasium.make takes first: `[MODULE:]ID`.
        options: (key, value in JSON), sorted by key.
        success: None: the environment's own flag.
    """

    environment: str
    options: tuple[tuple[str, str], ...] = ()
    success: SuccessRule | None = None

    def __str__(self) -> str:
        options = "&".join(f"{key}={_escaped(value)}" for key, value in self.options)
        return f"{GYM_PREFIX}{self.environment}{f'?{options}' if options else ''}{'' if self.success is None else f'#{self.success}'}"

    @property
    def arguments(self) -> dict[str, Any]:
        """The options as keyword arguments."""
        return {key: parse_json(value.encode(), f"option '{key}'") for key, value in self.options}


def gym_name(environment: str, options: Mapping[Any, Any] | None = None, success: SuccessRule | None = None, place: str = "options") -> GymName:
    """The name of an environment with options. Raises CurriculumError, naming the place, for options that are no plain values."""
    found = [(_checked_key(key, place), _plain(key, value, place)) for key, value in (options or {}).items()]
    return GymName(environment, tuple(sorted(found)), success)


def read_gym_name(text: str) -> GymName:
    """What the name `gym:...` says. Raises CurriculumError where it is none."""
    if len(text) > LONGEST_NAME:
        raise CurriculumError(f"a task's name of {len(text)} letters, {shown(text)}, is too long; at most {LONGEST_NAME} are accepted")
    front, marked, rule = text.removeprefix(GYM_PREFIX).partition("#")
    environment, asked, written = front.partition("?")
    options: dict[str, Any] = {}
    for part in written.split("&") if asked else ():
        key, _, value = part.partition("=")
        if key in options:
            raise CurriculumError(f"task {shown(text)}: option '{key}' is given twice")
        try:
            options[key] = parse_json(_unescaped(value).encode(), f"option {shown(key)}")
        except (DamagedFile, ValueError) as error:
            raise CurriculumError(f"task {shown(text)}: {error}; options are written as key=VALUE, VALUE in JSON, such as frame_skip=4") from error
    return gym_name(environment, options, parse_rule(rule, f"task {shown(text)}") if marked else None, f"task {shown(text)}")


def short_name(task: str) -> str:
    """A task's name as pictures show it: `hammer`, `Reacher`, `Reacher frame_skip=4`. Tables have the whole name."""
    if not task.startswith(GYM_PREFIX):
        return task.removesuffix("-v3")
    environment, _, options = task.removeprefix(GYM_PREFIX).partition("#")[0].partition("?")
    plain = re.sub(r"-v\d+$", "", environment.rpartition(":")[2])
    whole = f"{plain} {options.replace('&', ' ')}".strip().replace("$", "")
    return whole if len(whole) <= LONGEST_SHOWN else f"{whole[: LONGEST_SHOWN - 3]}..."


def _checked_key(key: Any, place: str) -> str:
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise CurriculumError(f"{place}: an option must be called like an argument of gymnasium.make, not {shown(key)}")
    if key in OURS:
        raise CurriculumError(f"{place}: '{key}' is not an option of a task; leave it out")
    return key


def _plain(key: Any, value: Any, place: str) -> str:
    try:
        text = json.dumps(value, allow_nan=False, sort_keys=True, separators=(",", ":"))
        parse_json(text.encode(), f"option '{key}'")
    except (TypeError, ValueError, RecursionError, DamagedFile) as error:
        raise CurriculumError(f"{place}: option '{key}' is {shown(value)}; numbers, texts, true, false and lists of them are accepted") from error
    return text


def _escaped(value: str) -> str:
    return value.replace("%", "%25").replace("&", "%26").replace("#", "%23")


def _unescaped(value: str) -> str:
    return value.replace("%23", "#").replace("%26", "&").replace("%25", "%")


def rule_of(task_name: str) -> SuccessRule | None:
    """The rule of success in the name of a `gym:` task; None where it has none, and for a task of this package."""
    return read_gym_name(task_name).success if task_name.startswith(GYM_PREFIX) else None
